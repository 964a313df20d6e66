//! A node that runs for long: it follows a bitcoind that mines, reorganises and is restarted, it is itself shut
//! down, killed and started again, and hostile peers connect all the time. In the end it has bitcoind's
//! coins, and holds no more memory, descriptors and threads than at the beginning.
//!
//! ```sh
//! cargo build --release --example sync
//! HEADLONG_SOAK_SECONDS=3600 cargo test --release --test soak -- --nocapture
//! ```
//!
//! | variable | meaning |
//! | --- | --- |
//! | `HEADLONG_SOAK_SECONDS` | how long the load goes on; without it, a smoke test of some 25 seconds |
//! | `HEADLONG_SEED` | another order of events (1) |
//!
//! The node is the example `sync`, in a process of its own. It has five lives (three in the smoke test); every
//! other ends with SIGKILL. It is looked at whenever it has caught up with bitcoind. After a warm-up of a
//! third of a life, the median of the first third of what is left stands for its start, that of the last
//! third for its end.
//!
//! Flat means: within a life, and between the ends of the first life and of every other,
//! - descriptors grow by at most six: of the servers that keep us waiting or hang up, more may be connected
//!   at one time than at another, and
//! - threads by at most eight, since the pools for blocking work grow with what is asked at once, and
//! - resident memory grows by at most a tenth and 6 MiB: the headers of the blocks mined meanwhile stay in
//!   memory, the caches fill up to their bounds, and an allocator keeps some of what it once needed.
//!
//! Memory is judged in lives of at least a minute: before, the caches are not full.
#![cfg(all(
    target_os = "linux",
    feature = "native",
    feature = "sled",
    feature = "consensus",
    feature = "sim"
))]

#[path = "../interop/bitcoind.rs"]
mod bitcoind;
mod hostile;
mod life;

use bitcoin::{Amount, Block};
use bitcoind::Bitcoind;
use headlong::rng::Rng;
use headlong::sim::forge::{BlockPlan, Branch, Forge, commit_to_witnesses, mine};
use headlong::sim::serve::ServedChain;
use headlong::{Network, Params};
use hostile::{Chains, Hostile, Malice};
use life::{Life, Sample};
use parking_lot::RwLock;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// No event takes longer than this to be followed.
const PATIENCE: Duration = Duration::from_secs(180);
/// Blocks before the load begins.
const TRUNK: u32 = 250;
/// Branches that are remembered, to fork from.
const REMEMBERED: usize = 12;
/// Inputs of a usual block.
const INPUTS: usize = 20;
/// The load is taken up for so long without `HEADLONG_SOAK_SECONDS`.
const SMOKE: u64 = 25;
/// Servers of each kind of malice.
const EACH: usize = 3;
/// A life shorter than this is not judged by its memory.
const FULL_LIFE: Duration = Duration::from_secs(60);

fn unix() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as u32
}

/// What happened so far.
#[derive(Debug, Default)]
struct Tally {
    cycles: u32,
    blocks: u32,
    reorgs: u32,
    deepest: usize,
    invalidated: u32,
    restarts: u32,
}

/// bitcoind, and who makes its blocks.
struct Load {
    node: Bitcoind,
    forge: Forge,
    rng: Rng,
    /// The ends of the last blocks' chains, the tip's last.
    ends: Vec<Branch>,
    chains: Chains,
    tally: Tally,
}

impl Load {
    fn new(seed: u64) -> Self {
        let params = Arc::new(Params::new(Network::Regtest));
        let forge = Forge::new(params.clone(), seed);
        let branch = forge.genesis(Some(unix() - 600 * (TRUNK + 12)));
        let served = || Arc::new(RwLock::new(ServedChain::new(&params.genesis)));
        let chains = Chains { honest: served(), invalid: served() };
        let node = Bitcoind::start(&["-debug=0"]);
        let rng = Rng::from_number(seed);
        let mut load = Self { node, forge, rng, ends: vec![branch], chains, tally: Tally::default() };
        for _ in 0..TRUNK {
            // Coins are split until there are enough; from then on as many are made as are spent.
            let growth = if load.tip().coins.len() < 400 { INPUTS } else { 0 };
            let mut branch = load.tip().clone();
            let block = load.forge.extend(&mut branch, BlockPlan { inputs: INPUTS, growth });
            load.take(branch, &block);
        }
        load
    }

    fn tip(&self) -> &Branch {
        &self.ends[self.ends.len() - 1]
    }

    /// Gives a new tip to bitcoind and to those who serve the honest chain.
    fn take(&mut self, branch: Branch, block: &Block) {
        self.node.submit(std::slice::from_ref(block));
        self.chains.honest.write().extend([block]);
        self.chains.invalid.write().extend([block]);
        self.ends.push(branch);
        if self.ends.len() > REMEMBERED {
            self.ends.remove(0);
        }
        self.tally.blocks += 1;
    }

    fn mine(&mut self) {
        let (branch, block) = self.block(self.tip().clone());
        self.take(branch, &block);
    }

    /// A block on a branch, at the present.
    fn block(&mut self, mut branch: Branch) -> (Branch, Block) {
        branch.time = (branch.time + 1).max(unix()) - 600;
        let block = self.forge.extend(&mut branch, BlockPlan { inputs: INPUTS, growth: 0 });
        (branch, block)
    }

    /// A branch from `depth` blocks below the tip that is one block longer. bitcoind takes it for its work, or
    /// because the block it competes with is called invalid for a time.
    fn reorganise(&mut self, depth: usize, by_mark: bool) {
        let depth = depth.min(self.ends.len() - 1);
        let marked = self.ends[self.ends.len() - depth].tip.hash.to_string();
        if by_mark {
            self.node.call("invalidateblock", json!([marked]));
            self.tally.invalidated += 1;
        }
        self.ends.truncate(self.ends.len() - depth);
        for _ in 0..=depth {
            self.mine();
        }
        if by_mark {
            self.node.call("reconsiderblock", json!([marked]));
        }
        assert_eq!(self.node.tip(), self.tip().tip.hash.to_string());
        self.tally.reorgs += 1;
        self.tally.deepest = self.tally.deepest.max(depth);
    }

    /// Puts an end on the honest chain that has more work and pays a satoshi too much in its first block.
    fn lie(&mut self) {
        let (mut branch, mut block) = self.block(self.tip().clone());
        let out = &mut block.txdata[0].output[0];
        out.value += Amount::from_sat(1);
        commit_to_witnesses(&mut block);
        mine(&mut block);
        branch.tip.hash = block.block_hash();
        let (_, second) = self.block(branch);
        self.chains.invalid.write().extend([&block, &second]);
    }

    /// One round of events; afterwards the node has bitcoind's tip.
    fn cycle(&mut self, life: &mut Life) {
        self.tally.cycles += 1;
        let cycle = self.tally.cycles;
        for _ in 0..1 + self.rng.below(2) {
            self.mine();
        }
        if cycle.is_multiple_of(4) {
            let depth = 1 + self.rng.below(6) as usize;
            let by_mark = self.rng.below(2) == 0;
            self.reorganise(depth, by_mark);
        }
        if cycle.is_multiple_of(3) {
            self.lie();
        }
        if cycle.is_multiple_of(6) {
            let pause = Duration::from_millis(self.rng.below(3_000));
            self.node.restart(|| std::thread::sleep(pause));
            self.tally.restarts += 1;
        }
        life.reach(&self.node.tip(), PATIENCE);
        life.sample();
        // Blocks come no faster than the clock goes, or they would be too far ahead.
        while unix() < self.tip().time {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The medians of a life's start and of its end.
fn ends_of(samples: &[Sample]) -> Option<(Sample, Sample)> {
    let steady = &samples[samples.len() / 3..];
    let third = steady.len() / 3;
    if third == 0 {
        return None;
    }
    let median = |part: &[Sample]| {
        let of = |field: fn(&Sample) -> u64| {
            let mut values: Vec<u64> = part.iter().map(field).collect();
            values.sort_unstable();
            values[values.len() / 2]
        };
        Sample { rss: of(|s| s.rss), descriptors: of(|s| s.descriptors), threads: of(|s| s.threads) }
    };
    Some((median(&steady[..third]), median(&steady[steady.len() - third..])))
}

/// Why the second is not as flat as the first, if it is not.
fn growth(from: Sample, to: Sample, memory: bool) -> Option<String> {
    if memory && to.rss > from.rss + from.rss / 10 + 6 * 1_024 {
        return Some(format!("memory {} KiB to {} KiB", from.rss, to.rss));
    }
    if to.descriptors > from.descriptors + 6 {
        return Some(format!("descriptors {} to {}", from.descriptors, to.descriptors));
    }
    (to.threads > from.threads + 8).then(|| format!("threads {} to {}", from.threads, to.threads))
}

#[test]
fn a_long_run_is_flat() {
    if !bitcoind::available() {
        return;
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = number("HEADLONG_SOAK_SECONDS");
    let seed = number("HEADLONG_SEED").unwrap_or(1);
    if seconds.is_none() {
        eprintln!("a smoke test of {SMOKE} s; HEADLONG_SOAK_SECONDS makes it a soak");
    }
    let lives = if seconds.is_none() { 3 } else { 5 };
    let length = Duration::from_secs(seconds.unwrap_or(SMOKE)) / lives;
    let mut load = Load::new(seed);
    let hostile: Vec<Hostile> = (0..)
        .zip([Malice::ALL; EACH].as_flattened())
        .map(|(at, malice)| Hostile::start(*malice, load.chains.clone(), seed * 100 + at))
        .collect();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut servers: Vec<SocketAddr> = hostile.iter().map(|server| server.address).collect();
    servers.push(load.node.p2p());
    let mut rows = Vec::new();
    for number in 0..lives {
        let mut life = Life::start(folder.path(), &servers);
        while life.begun.elapsed() < length {
            load.cycle(&mut life);
        }
        let (how, samples) = if number % 2 == 1 {
            ("SIGKILL", life.kill())
        } else {
            let (samples, coins) = life.stop();
            let (serialized, muhash, txouts) = load.node.coins();
            assert_eq!(coins["tip"], load.node.tip());
            assert_eq!(coins["hash_serialized_3"], serialized);
            assert_eq!(coins["muhash"], muhash);
            assert_eq!(coins["txouts"], txouts);
            ("SIGTERM", samples)
        };
        rows.push((how, samples));
    }
    report(&rows, length, &load.tally, &hostile);
    judge(&rows, length >= FULL_LIFE);
}

fn report(rows: &[(&str, Vec<Sample>)], length: Duration, tally: &Tally, hostile: &[Hostile]) {
    eprintln!("{} lives of {length:.0?}: {tally:?}; the coins are bitcoind's", rows.len());
    eprintln!("life  samples     memory, KiB          descriptors   threads    ended by");
    for (number, (how, samples)) in rows.iter().enumerate() {
        let Some((from, to)) = ends_of(samples) else { continue };
        eprintln!(
            "{:4}  {:7}  {:7} -> {:7}      {:3} -> {:3}    {:3} -> {:3}  {how}",
            number + 1,
            samples.len(),
            from.rss,
            to.rss,
            from.descriptors,
            to.descriptors,
            from.threads,
            to.threads,
        );
    }
    for malice in Malice::ALL {
        let connections: u64 =
            hostile.iter().filter(|server| server.malice == malice).map(Hostile::connections).sum();
        eprintln!("{malice:?}: {connections} connections");
        assert!(connections > 0, "nobody fell for {malice:?}");
    }
}

fn judge(rows: &[(&str, Vec<Sample>)], memory: bool) {
    let mut first = None;
    for (number, (_, samples)) in rows.iter().enumerate() {
        let Some((from, to)) = ends_of(samples) else { continue };
        if let Some(why) = growth(from, to, memory) {
            panic!("life {} is not flat: {why}", number + 1);
        }
        if let Some(why) = growth(*first.get_or_insert(to), to, memory) {
            panic!("life {} holds more than the first: {why}", number + 1);
        }
    }
}

#[test]
fn growth_is_noticed() {
    let sample = |rss, descriptors, threads| Sample { rss, descriptors, threads };
    let from = sample(50_000, 30, 12);
    assert_eq!(growth(from, from, true), None);
    assert!(growth(from, sample(62_000, 30, 12), true).is_some());
    assert_eq!(growth(from, sample(62_000, 30, 12), false), None);
    assert!(growth(from, sample(50_000, 37, 12), true).is_some());
    assert!(growth(from, sample(50_000, 30, 21), true).is_some());
    let rising: Vec<Sample> = (0..90).map(|at| sample(1_000 * at, 10 + at, 5)).collect();
    let (start, end) = ends_of(&rising).expect("samples");
    assert_eq!((start, end), (sample(40_000, 50, 5), sample(80_000, 90, 5)));
}
