//! How long opening a synced data directory takes: `cargo bench --bench opening`. COUNT is the number of blocks
//! (200,000; the folder of a million takes half a gigabyte and some minutes to make).
//!
//! The chain has empty blocks, since opening reads none but those of the segment that was written last, 128 MiB at most,
//! whose end a crash may have torn. Printed is what each part took, and for a million headers all but that segment and the
//! backend's own opening.

use headlong::chainstate::{self, ChainstateOptions, Front, Sources};
use headlong::sim::forge::{BlockPlan, Forge};
use headlong::store::backend::StoreBackend;
use headlong::store::block_files::BlockFilesOptions;
use headlong::store::datadir::Datadir;
use headlong::verify::pool::Pool;
use headlong::verify::standard::StandardVerifier;
use headlong::{Network, Params};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of the backend's cache.
const CACHE: u64 = 64 << 20;
/// Blocks between commits.
const COMMIT_EVERY: usize = 50_000;

#[derive(Default)]
struct Times {
    files: Duration,
    headers: Duration,
    backend: Duration,
    rest: Duration,
}

fn open(
    folder: &Path,
    backend: StoreBackend,
    params: &Arc<Params>,
    times: &mut Times,
) -> Result<(Datadir, Front), Box<dyn Error>> {
    let mut start = Instant::now();
    let mut lap = || {
        let now = Instant::now();
        let time = now - start;
        start = now;
        time
    };
    let datadir = Datadir::open(folder, params.magic, params.genesis_hash())?;
    let blocks = datadir.block_files(BlockFilesOptions::default())?;
    times.files = lap();
    let (headers, loaded) = datadir.header_file()?;
    times.headers = lap();
    let store = backend.open(&datadir, CACHE)?;
    times.backend = lap();
    let (pool, verifier) = (Arc::new(Pool::new("check", 2, 64)?), Arc::new(StandardVerifier::default()));
    let sources = Sources { params: params.clone(), store, blocks, headers, loaded, pool, verifier };
    let opened = chainstate::open(sources, ChainstateOptions::default(), [1, 2])?;
    times.rest = lap();
    Ok((datadir, Front::new(opened, u64::from(u32::MAX))?))
}

fn measure(backend: StoreBackend, count: usize) -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let params = Arc::new(Params::new(Network::Regtest));
    let (datadir, mut front) = open(folder.path(), backend, &params, &mut Times::default())?;
    let mut forge = Forge::new(params.clone(), 1);
    let mut branch = forge.genesis(None);
    for n in 1..=count {
        let block = forge.extend(&mut branch, BlockPlan::default());
        front.process_block(bitcoin::consensus::serialize(&block))?;
        if n % COMMIT_EVERY == 0 || n == count {
            front.commit()?;
        }
    }
    assert_eq!(front.tip(), branch.tip);
    drop((front, datadir));
    for _ in 0..3 {
        let mut times = Times::default();
        let (_datadir, front) = open(folder.path(), backend, &params, &mut times)?;
        assert_eq!(front.tip(), branch.tip);
        let ours = times.headers + times.rest;
        println!(
            "{backend}, {count} blocks: last segment {:.0?}, header file {:.0?}, backend {:.0?}, the rest {:.0?}: {:.2} s a \
             million headers besides the backend and the last segment",
            times.files,
            times.headers,
            times.backend,
            times.rest,
            ours.as_secs_f64() * 1e6 / count as f64
        );
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let count = std::env::var("COUNT").map_or(Ok(200_000), |count| count.parse())?;
    for backend in [StoreBackend::Sled, StoreBackend::Fjall] {
        measure(backend, count)?;
    }
    Ok(())
}
