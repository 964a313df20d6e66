//! The demonstration: several peers inside this process serve a generated chain over loopback TCP, and a
//! node syncs it into a temporary folder.

use super::{Change, Failure, Goal, Shown, run, size_of};
use headlong::sim::forge::demo_chain;
use headlong::sim::loopback::LoopbackPeer;
use headlong::sim::serve::ServedChain;
use headlong::{Builder, Network, Params, PeerAddress};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

const BLOCKS: u32 = 2_000;
const INPUTS: u32 = 40_000;
const PEERS: usize = 4;
const SEED: u64 = 1;

/// Forges, serves, syncs, sums up.
pub fn run_demo(change: Change) -> Result<(), Failure> {
    let params = Arc::new(Params::new(Network::Regtest));
    eprintln!("forging {BLOCKS} regtest blocks with about {INPUTS} signed inputs ...");
    let begun = Instant::now();
    // The chain ends about now, as a live one does.
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let first_time = u32::try_from(now)?.saturating_sub(600 * (BLOCKS + 1));
    let blocks = demo_chain(&params, SEED, BLOCKS, INPUTS, first_time);
    let mut chain = ServedChain::new(&params.genesis);
    chain.extend(&blocks);
    drop(blocks);
    eprintln!("forged in {:.1} s; {PEERS} peers serve them on loopback", begun.elapsed().as_secs_f64());

    let chain = Arc::new(parking_lot::RwLock::new(chain));
    let peers = (0..PEERS)
        .map(|_| LoopbackPeer::start(chain.clone(), params.magic))
        .collect::<Result<Vec<_>, _>>()?;
    let folder = tempfile::tempdir()?;
    let mut builder = Builder::new(Network::Regtest).datadir(folder.path());
    for peer in &peers {
        builder = builder.connect(PeerAddress::Ip(peer.address()));
    }
    let (node, handle) = change(builder).build()?;
    let begun = Instant::now();
    run(node, &handle, Goal { height: None, synced: true, utxo_hash: false }, Shown::default())?;
    let seconds = begun.elapsed().as_secs_f64();
    let status = handle.status();
    println!("tip        {} {}", status.durable.height, status.durable.hash);
    println!("time       {seconds:.2} s");
    println!("blocks     {} ({:.0}/s)", status.blocks, status.blocks as f64 / seconds);
    println!("inputs     {} ({:.0}/s)", status.inputs, status.inputs as f64 / seconds);
    match peak_memory() {
        Some(kibibytes) => {
            println!("memory     {} MiB at the peak, the peers' chain included", kibibytes / 1024)
        }
        None => println!("memory     not known on this system"),
    }
    println!("disk       {:.1} MB", size_of(folder.path()) as f64 / 1e6);
    if status.durable.height != BLOCKS {
        return Err(format!("ended at {} of {BLOCKS}", status.durable.height).into());
    }
    Ok(())
}

/// Peak resident memory in KiB, where the system tells it in `/proc`.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.split_whitespace().next()?.parse().ok()
}
