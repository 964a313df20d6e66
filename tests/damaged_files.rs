//! Files of a data directory that were torn or had bits flipped after an orderly end. Each time the node comes
//! to the same chain and the same coins as if nothing had happened, through a reorg that has to undo damaged
//! blocks; or it says which file is damaged, in a typed error. It never uses what is damaged, and never panics.
//!
//! The places are random: `HEADLONG_SEED` repeats a run, `HEADLONG_DAMAGE` is the number of cuts and of flips
//! for each file.
#![cfg(all(feature = "native", feature = "consensus", feature = "sled"))]

mod world;

use bitcoin::p2p::ServiceFlags;
use headlong::chainstate::UtxoStats;
use headlong::peer::book::{AddressBook, NetGroup, Told};
use headlong::rng::Rng;
use headlong::store::{StoreError, StoreErrorKind};
use headlong::{BlockRef, BuildError, Builder, Error, Proof, RunError};
use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use world::{PATIENCE, Running, World};

/// Cuts and flips of each file unless the environment says otherwise.
const DEFAULT_CASES: u64 = 3;
/// The stores that keep their coins in the data directory, by the name of their folder.
const STORES: [&str; 1] = ["coins-sled"];

/// A directory to damage, and what is to come of it.
struct Scene {
    world: World,
    template: tempfile::TempDir,
    goal: BlockRef,
    coins: UtxoStats,
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// All files below a folder, as paths from it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(folder).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// The address book of a node that found two peers.
fn peers() -> Vec<u8> {
    let (mut book, mut rng, source) = (AddressBook::new([1; 16]), Rng::from_number(1), NetGroup::V4([1, 2]));
    for address in ["127.0.0.1:1", "127.0.0.1:2"] {
        let services = ServiceFlags::NETWORK | ServiceFlags::WITNESS;
        let told = Told { address: address.parse().unwrap(), services, seen: 1_700_000_000 };
        assert!(book.add(&told, &source, Duration::ZERO, 1_700_000_000, &mut rng));
    }
    book.encode()
}

impl Scene {
    fn new() -> Self {
        // Most of the blocks that spend something, and of the undo data, is above the fork.
        let mut world = World::new(106);
        let template = tempfile::tempdir().unwrap();
        let fork = world.branch.clone();
        world.grow(20);
        let node = Running::start(world.builder().datadir(template.path()).build().unwrap());
        node.wait_for(world.tip());
        node.stop();
        // What a node that found peers and skipped scripts would have left as well.
        fs::write(template.path().join("peers.dat"), peers()).unwrap();
        fs::write(template.path().join("assumed-valid"), "scripts of some blocks were not executed\n")
            .unwrap();
        // All that is above the fork has to be undone by the next run.
        world.reorganise(fork, 22);
        let node = Running::start(world.builder().build().unwrap());
        node.wait_for(world.tip());
        let coins = node.handle.utxo_stats_blocking().unwrap().value;
        node.stop();
        let goal = world.tip();
        Self { world, template, goal, coins }
    }

    /// A builder that reads the saved addresses too.
    fn builder(&self, folder: &Path) -> Builder {
        let params = (*self.world.params).clone();
        let builder = Builder::with_params(params).add_node(self.world.peer.address()).dns(false);
        builder.threads(2).seed([9; 32]).datadir(folder)
    }

    /// Runs a node on a damaged directory: repaired, or the error that it ends with.
    fn outcome(&self, folder: &Path) -> Result<(), StoreError> {
        let built = catch_unwind(AssertUnwindSafe(|| self.builder(folder).build())).expect("no panic");
        let node = match built {
            Ok(built) => Running::start(built),
            Err(BuildError::Store(error)) => return Err(error),
            Err(other) => panic!("an error that names nothing: {other}"),
        };
        let deadline = Instant::now() + PATIENCE;
        let ended = loop {
            let status = node.handle.status();
            if status.tip == self.goal && status.durable == self.goal {
                break false;
            }
            if node.handle.peers_blocking().is_err() {
                break true;
            }
            assert!(Instant::now() < deadline, "it does not get there: {status:?}");
            std::thread::sleep(Duration::from_millis(5));
        };
        if ended {
            return match node.outcome() {
                Err(RunError::Failed { error: Error::Store(error), .. }) => Err(error),
                other => panic!("an end that names nothing: {other:?}"),
            };
        }
        let coins = node.handle.utxo_stats_blocking();
        assert_eq!(node.stop(), self.goal);
        let coins = coins.unwrap();
        assert_eq!(coins.value, self.coins);
        assert_eq!(coins.trust, Proof::AssumedValid, "the mark counts, whatever became of its content");
        // What is on disk now is whole: another start needs nobody.
        let nobody = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let params = (*self.world.params).clone();
        let again = Builder::with_params(params).connect(nobody).datadir(folder).build();
        let again = Running::start(again.expect("it was repaired"));
        assert_eq!(again.handle.status().durable, self.goal);
        assert_eq!(again.handle.utxo_stats_blocking().unwrap().value, self.coins);
        again.stop();
        Ok(())
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    /// Cut to so many bytes.
    Cut(usize),
    /// This bit of this byte.
    Flip(usize, u8),
    /// All bytes from here on are zero.
    Zeroes(usize),
}

impl Damage {
    fn apply(self, path: &Path) {
        let mut bytes = fs::read(path).unwrap();
        match self {
            Self::Cut(len) => bytes.truncate(len),
            Self::Flip(at, bit) => bytes[at] ^= 1 << bit,
            Self::Zeroes(from) => bytes[from..].fill(0),
        }
        fs::write(path, bytes).unwrap();
    }
}

/// Random damage of a file of so many bytes: the ends and the first bytes are likelier than chance.
fn damages(rng: &mut Rng, len: usize, count: u64) -> Vec<Damage> {
    let place = |rng: &mut Rng| match rng.below(4) {
        0 => rng.below(len.min(100) as u64) as usize,
        1 => len - 1 - rng.below(len.min(100) as u64) as usize,
        _ => rng.below(len as u64) as usize,
    };
    let mut all = Vec::new();
    for n in 0..count {
        all.push(Damage::Cut(place(rng)));
        all.push(Damage::Flip(place(rng), rng.below(8) as u8));
        if n == 0 {
            all.push(Damage::Zeroes(place(rng)));
        }
    }
    all
}

#[test]
fn damage_of_any_file_is_repaired_or_named() {
    let scene = Scene::new();
    let seed = number("HEADLONG_SEED", 1);
    let cases = number("HEADLONG_DAMAGE", DEFAULT_CASES);
    println!("HEADLONG_SEED={seed} HEADLONG_DAMAGE={cases}");
    let mut rng = Rng::from_number(seed);
    let mut tally: BTreeMap<String, [u64; 2]> = BTreeMap::new();
    for file in files(scene.template.path()) {
        let len = fs::metadata(scene.template.path().join(&file)).unwrap().len() as usize;
        let name = file.display().to_string();
        if name == "LOCK" || len == 0 {
            continue;
        }
        for damage in damages(&mut rng, len, cases) {
            let folder = tempfile::tempdir().unwrap();
            copy(scene.template.path(), folder.path());
            damage.apply(&folder.path().join(&file));
            println!("{name}: {damage:?}");
            let outcome = scene.outcome(folder.path());
            tally.entry(name.clone()).or_default()[usize::from(outcome.is_err())] += 1;
            let Err(error) = outcome else { continue };
            let store = STORES.iter().find(|store| name.starts_with(**store));
            let named = store.map_or(name.as_str(), |store| *store);
            let text = error.to_string();
            assert!(text.contains(named) || name == "VERSION" && names(&text, folder.path()), "{text}");
            // Blocks, undo data, headers and addresses can always be had back from peers.
            assert!(store.is_some() || name == "VERSION", "{name}, {damage:?}: {text}");
            assert!(matches!(error.kind, StoreErrorKind::Corrupt | StoreErrorKind::Unsupported), "{text}");
        }
    }
    println!("file: repaired, refused: {tally:#?}");
    let known = [
        "VERSION",
        "assumed-valid",
        "blocks/blk-000000.dat",
        "blocks/undo-000000.dat",
        "headers.dat",
        "peers.dat",
    ];
    for name in known {
        assert!(tally.contains_key(name), "{name} was not damaged: {tally:?}");
    }
    for store in STORES {
        assert!(tally.keys().any(|name| name.starts_with(store)), "{tally:?}");
    }
}

fn names(text: &str, folder: &Path) -> bool {
    text.contains(&folder.display().to_string())
}

/// All blocks, all undo data and all headers at once: what the store knows is enough to fetch the rest.
#[test]
fn a_directory_whose_block_files_are_gone_is_filled_from_peers() {
    let scene = Scene::new();
    for gone in [&["blocks"][..], &["headers.dat"]] {
        let folder = tempfile::tempdir().unwrap();
        copy(scene.template.path(), folder.path());
        for name in gone {
            let path = folder.path().join(name);
            if path.is_dir() {
                fs::remove_dir_all(path).unwrap();
            } else {
                fs::remove_file(path).unwrap();
            }
        }
        scene.outcome(folder.path()).unwrap_or_else(|error| panic!("{gone:?}: {error}"));
    }
    // Without headers and blocks there is nothing that the tip's chain could be known from.
    let folder = tempfile::tempdir().unwrap();
    copy(scene.template.path(), folder.path());
    fs::remove_dir_all(folder.path().join("blocks")).unwrap();
    fs::remove_file(folder.path().join("headers.dat")).unwrap();
    let text = scene.outcome(folder.path()).unwrap_err().to_string();
    assert!(text.contains("blk-000000.dat") && text.contains("synced anew"), "{text}");
}
