//! The example `sync` is killed with SIGKILL at random moments, again and again on one data directory, while
//! the chain that peers serve grows and is reorganised. It ends with the coins of a run that nobody disturbed.
//!
//! `HEADLONG_KILLS` is the number of kills for each store, `HEADLONG_SEED` repeats a run; with `HEADLONG_PRUNE=1` the
//! killed runs prune to one MiB, and the chain is longer, so that there is something to prune.
#![cfg(all(unix, feature = "native", feature = "sled", feature = "consensus"))]

use bitcoin::Block;
use headlong::rng::Rng;
use headlong::sim::forge::{BlockPlan, Branch, Forge};
use headlong::sim::loopback::LoopbackPeer;
use headlong::sim::serve::ServedChain;
use headlong::{Network, Params};
use parking_lot::RwLock;
use serde_json::Value;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Kills unless the environment says otherwise.
const DEFAULT_KILLS: u64 = 4;
/// The stores that survive a kill, as `--store` knows them.
const STORES: [&str; 2] = ["sled", "fjall"];
/// Blocks that are served at first.
const BLOCKS: u32 = 180;
/// The same for runs that prune.
const PRUNED_BLOCKS: u32 = 500;
/// Coins that each of them adds: together more than the cache holds, so that flushes are under way when kills come.
const GROWTH: usize = 150;
/// The past, so that the chain is valid at any time.
const FIRST_TIME: u32 = 1_700_000_000;
/// Branches that are kept to fork from: the deepest reorg.
const KEPT: usize = 12;

/// The program, which `cargo test` builds with the tests; before a run of this file alone, `cargo build
/// --examples` does.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).unwrap().join("examples/sync")
}

/// A served chain that changes.
struct World {
    forge: Forge,
    /// The last branches, the tip's at the end.
    branches: VecDeque<Branch>,
    chain: Arc<RwLock<ServedChain>>,
    peers: Vec<LoopbackPeer>,
}

impl World {
    fn new() -> Self {
        let params = Arc::new(Params::new(Network::Regtest));
        let forge = Forge::new(params.clone(), 21);
        let chain = Arc::new(RwLock::new(ServedChain::new(&params.genesis)));
        let peers = (0..2).map(|_| LoopbackPeer::start(chain.clone(), params.magic).unwrap()).collect();
        let branches = VecDeque::from([forge.genesis(Some(FIRST_TIME))]);
        let mut world = Self { forge, branches, chain, peers };
        world.grow(if prunes() { PRUNED_BLOCKS } else { BLOCKS }, GROWTH);
        world
    }

    fn grow(&mut self, count: u32, growth: usize) {
        let mut branch = self.branches.back().unwrap().clone();
        let mut fresh: Vec<Block> = Vec::new();
        for _ in 0..count {
            fresh.push(self.forge.extend(&mut branch, BlockPlan { inputs: 12, growth }));
            self.branches.push_back(branch.clone());
            while self.branches.len() > KEPT {
                self.branches.pop_front();
            }
        }
        self.chain.write().extend(&fresh);
    }

    /// Grows, or is reorganised.
    fn change(&mut self, rng: &mut Rng) {
        if rng.below(2) == 0 {
            return self.grow(rng.below(4) as u32, 8);
        }
        let depth = 1 + rng.below(self.branches.len() as u64 - 1) as u32;
        self.branches.truncate(self.branches.len() - depth as usize);
        self.grow(depth + 1 + rng.below(2) as u32, 8);
    }

    fn command(&self, store: &str, folder: &Path) -> Command {
        let mut command = Command::new(program());
        command.args(["--network", "regtest", "--store", store, "--dbcache", "1", "--threads", "2"]);
        for peer in &self.peers {
            command.args(["--connect", &peer.address().to_string()]);
        }
        command.arg("--datadir").arg(folder);
        if prunes() && store != "memory" {
            command.args(["--prune", "1"]);
        }
        command
    }

    /// A run to the end of the chain.
    fn finish(&self, store: &str, folder: &Path) -> Output {
        let height = self.chain.read().tip().height.to_string();
        let mut command = self.command(store, folder);
        command.args(["--stop-at-height", &height, "--utxo-hash"]).output().unwrap()
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn prunes() -> bool {
    number("HEADLONG_PRUNE", 0) != 0
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn a_sync_that_is_killed_at_random_moments_ends_with_the_right_coins() {
    let (kills, seed) = (number("HEADLONG_KILLS", DEFAULT_KILLS), number("HEADLONG_SEED", 1));
    for store in STORES {
        println!("{store}: HEADLONG_KILLS={kills} HEADLONG_SEED={seed}");
        let mut rng = Rng::from_number(seed);
        let mut world = World::new();
        // How long an undisturbed run takes on this machine, so that kills hit all of it.
        let begun = Instant::now();
        let fresh = tempfile::tempdir().unwrap();
        let done = world.finish(store, fresh.path());
        assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
        let whole = begun.elapsed().max(Duration::from_millis(100));
        let folder = tempfile::tempdir().unwrap();
        let (mut durable, mut seen) = (0, 0);
        for kill in 1..=kills {
            // One kill of four comes while the process starts.
            let share = if rng.below(4) == 0 { whole / 10 } else { whole };
            let delay = Duration::from_micros(rng.below(share.as_micros() as u64));
            let command = &mut world.command(store, folder.path());
            command.args(["--status", "json"]).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let changes_before = rng.below(2) == 0;
            if changes_before {
                world.change(&mut rng);
            }
            std::thread::sleep(delay);
            let early = child.try_wait().unwrap();
            child.kill().unwrap();
            let end = child.wait_with_output().unwrap();
            assert!(early.is_none(), "kill {kill}: it ended by itself: {}", text(&end.stderr));
            // What was said to be durable is there from then on.
            for height in durable_heights(&end.stdout) {
                assert!(height >= durable, "kill {kill}: durable {height}, and {durable} was before");
                durable = height;
                seen += 1;
            }
            if !changes_before {
                world.change(&mut rng);
            }
            println!("kill {kill} after {delay:?} of {whole:?}, tip {}", world.chain.read().tip().height);
            if kill % 10 == 0 {
                check(&world, store, folder.path(), kill);
                world.change(&mut rng);
            }
        }
        check(&world, store, folder.path(), kills);
        println!("{seen} states seen, durable up to {durable}");
    }
}

/// The durable heights in the whole lines of a run with `--status json`. A better chain is a higher one here.
fn durable_heights(stdout: &[u8]) -> Vec<u64> {
    let whole = stdout.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let lines = text(&stdout[..whole]).lines();
    lines
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["durable_height"].as_u64().unwrap())
        .collect()
}

/// The run goes on to the end of the chain, and the coins are those of a run in memory.
fn check(world: &World, store: &str, folder: &Path, kill: u64) {
    let resumed = world.finish(store, folder);
    assert_eq!(resumed.status.code(), Some(0), "after kill {kill}: {}", text(&resumed.stderr));
    let undisturbed = world.finish("memory", folder);
    assert_eq!(text(&resumed.stdout), text(&undisturbed.stdout), "after kill {kill}");
    if prunes() {
        let first = folder.join("blocks/blk-000000.dat");
        assert!(!first.exists(), "after kill {kill}: nothing was pruned");
    }
    let tip = world.chain.read().tip();
    assert!(text(&resumed.stdout).starts_with(&format!("reached {} {}\n", tip.height, tip.hash)));
    assert!(text(&resumed.stdout).contains("hash_serialized_3"));
}
