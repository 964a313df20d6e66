//! A scripted run over reorgs is killed at every single write: before it, in the middle of an append, and
//! after it, before anybody was told. What is left is what a killed process leaves, or a power loss. Each
//! time the next start finds a state that existed, no older than the last one that was reported; it may be
//! killed at each of its own writes too; and from there the way goes on to the same coins. All of it is done a second
//! time with pruning, whose deletions are writes too.
//!
//! All points are many: a run takes one part of them. `HEADLONG_KILL_SHARD=i/n` takes every n-th from the
//! i-th on; `0/1` are all.

#![cfg(feature = "consensus")]

mod disk;
#[path = "../ground/mod.rs"]
mod ground;
mod script;

use disk::{Crash, Disk, Extent};
use ground::{CLOCK, Utxos};
use headlong::chain::command::BlockRef;
use headlong::chain::params::{Network, Params};
use headlong::chainstate::utxo_hash::{UtxoStats, utxo_stats};
use headlong::chainstate::{self, ChainstateOptions, Front, Opened, PruneOptions, Sources};
use headlong::error::Error;
use headlong::rng::Rng;
use headlong::store::block_files::{BlockFiles, BlockFilesOptions};
use headlong::store::header_file::{HEADER_FILE, HeaderFile};
use headlong::store::{Table, schema};
use headlong::verify::interpreter::Interpreter;
use headlong::verify::pool::Pool;
use script::{Script, Session, Told, finish, play};
use std::ops::Bound;
use std::sync::Arc;

/// Without a shard in the environment, one point in so many is tried.
const DEFAULT_SHARDS: u64 = 40;
/// Changes of a batch: most flushes are several.
const BATCH_LIMIT: usize = 5;
/// What a pruned run keeps: more blocks than the deepest reorg leaves.
const KEEP: u32 = 14;
/// Bytes of its block files; the blocks of the script take more than five times as much.
const PRUNED_BYTES: u64 = 10_000;

struct Lab {
    params: Arc<Params>,
    pool: Arc<Pool>,
    script: Script,
    prune: Option<PruneOptions>,
    /// What the coins hash to at the end of an undisturbed run.
    end: UtxoStats,
}

/// A session as it goes undisturbed.
struct Recorded {
    session: Session,
    /// The disk before it.
    before: Disk,
    writes: u64,
    divisible: Vec<u64>,
    /// The durable tips, from the one at its start.
    tips: Vec<BlockRef>,
    /// What was told before it.
    told: Told,
}

/// One death.
#[derive(Clone, Copy, Debug)]
struct Point {
    session: usize,
    write: u64,
    extent: Extent,
    crash: Crash,
}

impl Lab {
    /// What recovery makes of the disk.
    fn recover(&self, disk: &Disk, coins_bytes: usize) -> Result<Opened, Error> {
        let (headers, loaded) = HeaderFile::with_medium(disk.medium(), HEADER_FILE)?;
        let segment_bytes = self.prune.map_or(6_000, |prune| prune.files().segment_bytes);
        let options = BlockFilesOptions { segment_bytes, key: Some([7; 16]) };
        let sources = Sources {
            params: self.params.clone(),
            store: Arc::new(disk.clone()),
            blocks: BlockFiles::with_medium(disk.medium(), options)?,
            headers,
            loaded,
            pool: self.pool.clone(),
            verifier: Arc::new(Interpreter),
        };
        let options = ChainstateOptions::default().coins_bytes(coins_bytes).bodies_bytes(20_000);
        let options = options.prune(self.prune);
        chainstate::open(sources, options, [1, 2])
    }

    fn open(&self, disk: &Disk, coins_bytes: usize) -> Result<Front, Error> {
        Front::new(self.recover(disk, coins_bytes)?, CLOCK)
    }

    fn run(&self, disk: &Disk, session: &Session, told: &mut Told) -> Result<(), Error> {
        let mut front = self.open(disk, session.coins_bytes)?;
        play(&self.script, session, &mut front, told)
    }

    /// What must hold after a start, whatever happened before: the stored coins are those of the tip that
    /// the store names, and no flush is half done.
    fn check_state(&self, disk: &Disk, front: &Front, what: &dyn Fn() -> String) -> BlockRef {
        let durable = front.chainstate().durable_tip();
        let expected = self.script.coins.get(&durable.hash);
        let expected = expected.unwrap_or_else(|| panic!("{}: at {durable:?}, which never was", what()));
        let entries = disk.store();
        let entries = headlong::store::Store::range(
            &entries,
            Table::Coins,
            Bound::Unbounded,
            Bound::Unbounded,
            usize::MAX,
        );
        let coins: Utxos = entries
            .unwrap()
            .iter()
            .map(|(key, value)| {
                (schema::decode_coin_key(key).unwrap(), schema::decode_coin(key, value).unwrap())
            })
            .collect();
        assert!(coins == *expected, "{}: the coins are not those at height {}", what(), durable.height);
        assert_eq!(schema::pending(&disk.store()).unwrap(), None, "{}", what());
        durable
    }

    /// Goes on to the end of the script.
    fn check_end(&self, disk: &Disk, mut front: Front, what: &dyn Fn() -> String) {
        finish(&self.script, &mut front).unwrap_or_else(|error| panic!("{}: {error}", what()));
        assert_eq!(front.tip(), self.script.end(), "{}", what());
        self.check_state(disk, &front, what);
        assert!(utxo_stats(&disk.store()).unwrap() == self.end, "{}: another hash of the coins", what());
    }
}

/// A lab, and the sessions of the script as they go undisturbed.
fn record(prune: Option<PruneOptions>) -> (Lab, Vec<Recorded>) {
    let params = Arc::new(Params::new(Network::Regtest));
    let script = Script::new(params.genesis_header());
    let pool = Arc::new(Pool::new("kill", 0, 64).unwrap());
    let disk = Disk::new(BATCH_LIMIT);
    let end = utxo_stats(&disk.store()).unwrap();
    let mut lab = Lab { params, pool, script, prune, end };
    let mut disk = disk;
    let mut told = Told::default();
    let mut recorded = Vec::new();
    for session in lab.script.sessions.clone() {
        let (before, run) = (disk.copy(), disk.copy());
        let start = schema::tip(&before.store()).unwrap().unwrap_or(lab.script.genesis());
        let told_before = told.clone();
        lab.run(&run, &session, &mut told).unwrap();
        let mut tips = vec![start];
        tips.extend(run.tips());
        tips.dedup();
        let (writes, divisible) = (run.writes(), run.divisible());
        recorded.push(Recorded { session, before, writes, divisible, tips, told: told_before });
        disk = run;
    }
    lab.end = utxo_stats(&disk.store()).unwrap();
    assert_eq!(schema::tip(&disk.store()).unwrap(), Some(lab.script.end()));
    (lab, recorded)
}

fn points(recorded: &[Recorded]) -> Vec<Point> {
    let mut points = Vec::new();
    for crash in [Crash::Process, Crash::Power] {
        for (session, known) in recorded.iter().enumerate() {
            for write in 1..=known.writes {
                let part = known.divisible.contains(&write).then_some(Extent::Part);
                for extent in [Some(Extent::Nothing), part, Some(Extent::All)].into_iter().flatten() {
                    points.push(Point { session, write, extent, crash });
                }
            }
        }
    }
    points
}

/// `HEADLONG_KILL_SHARD`, or the default.
fn shard() -> (u64, u64) {
    let Ok(text) = std::env::var("HEADLONG_KILL_SHARD") else { return (0, DEFAULT_SHARDS) };
    let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    parts.filter(|(i, n)| i < n).expect("HEADLONG_KILL_SHARD is i/n with i below n")
}

/// What the points that were run came to, so that a test can see that it tested something.
#[derive(Debug, Default)]
struct Tally {
    points: u64,
    again: u64,
    /// Starts that found a flush half done.
    replayed: u64,
    /// Starts at the tip whose commit was under way, not reported.
    ahead: u64,
    bodies: u64,
    /// Blocks that were stored and are pruned.
    pruned: u64,
}

fn kill_at(lab: &Lab, recorded: &[Recorded], point: Point, seed: u64, tally: &mut Tally) {
    let known = &recorded[point.session];
    let what = || format!("seed {seed}, {point:?}");
    let mut rng = Rng::from_number(seed);
    let disk = known.before.copy();
    disk.die_at(point.write, point.extent, seed);
    let mut told = known.told.clone();
    // The last write may be the last thing at all: then nobody notices the death.
    drop(lab.run(&disk, &known.session, &mut told));
    assert!(disk.is_dead(), "{}: the run is not the recorded one", what());
    let left = disk.after(point.crash, &mut rng);
    if schema::pending(&left.store()).unwrap().is_some() {
        tally.replayed += 1;
    }
    check_recovery_killed(lab, &left, seed, tally);

    let recovered =
        lab.recover(&left.copy(), 1 << 20).unwrap_or_else(|error| panic!("{}: {error}", what())).tip;
    let front = lab.open(&left, 1 << 20).unwrap_or_else(|error| panic!("{}: {error}", what()));
    let durable = lab.check_state(&left, &front, &what);
    // A front goes to the best chain of what is stored at once; only pruning has that committed, too.
    let went_on = lab.prune.is_some() && durable.height > recovered.height;
    assert!(durable == recovered || went_on, "{}: {durable:?} after {recovered:?}", what());
    // The bound: what was reported as committed is there; at most the one commit that was under way besides.
    let reported = told.durable.unwrap_or(known.tips[0]);
    let at = known.tips.iter().position(|tip| *tip == reported).expect("it was committed when undisturbed");
    let ahead = known.tips.get(at + 1) == Some(&recovered);
    assert!(recovered == reported || ahead, "{}: at {recovered:?}, reported was {reported:?}", what());
    tally.ahead += u64::from(ahead);
    // Blocks that were stored before a commit that was reported need not be fetched again.
    for hash in &told.committed {
        if front.chainstate().is_pruned(hash).unwrap() {
            let height = front.tree().find(hash).map(|id| front.tree().height(id));
            let deep = height.is_some_and(|height| height + KEEP <= durable.height);
            assert!(lab.prune.is_some() && deep, "{}: {hash} is pruned at {durable:?}", what());
            tally.pruned += 1;
            continue;
        }
        let id = front.tree().find(hash).unwrap_or_else(|| panic!("{}: no header of {hash}", what()));
        assert!(front.tree().has_body(id), "{}: {hash} was stored and committed", what());
        let bytes = front.chainstate().read_block(hash).unwrap();
        assert!(bytes.is_some(), "{}: {hash} cannot be read", what());
        tally.bodies += 1;
    }
    // A killed process loses no header and no mark; a power loss those since the last commit at most.
    let sure = if point.crash == Crash::Process { told.headers.len() } else { told.committed_headers };
    for hash in &told.headers[..sure] {
        assert!(front.tree().find(hash).is_some(), "{}: no header of {hash}", what());
    }
    if let Some(id) = told.committed_mark.and_then(|hash| front.tree().find(&hash)) {
        assert!(front.tree().is_failed(id), "{}: the mark is lost", what());
    }
    lab.check_end(&left, front, &what);
    tally.points += 1;
}

/// The start after a death is killed at each of its own writes.
fn check_recovery_killed(lab: &Lab, left: &Disk, seed: u64, tally: &mut Tally) {
    let mut rng = Rng::from_number(seed ^ 0xdead);
    for write in 1.. {
        let extent = [Extent::Nothing, Extent::Part, Extent::All][rng.below(3) as usize];
        let crash = if rng.below(2) == 0 { Crash::Process } else { Crash::Power };
        let what =
            || format!("seed {seed}, the start after it killed at write {write}, {extent:?} {crash:?}");
        let disk = left.copy();
        disk.die_at(write, extent, seed);
        drop(lab.open(&disk, 1 << 20));
        if !disk.is_dead() {
            return;
        }
        let again = disk.after(crash, &mut rng);
        let front = lab.open(&again, 1 << 20).unwrap_or_else(|error| panic!("{}: {error}", what()));
        lab.check_state(&again, &front, &what);
        tally.again += 1;
        if rng.below(8) == 0 {
            lab.check_end(&again, front, &what);
        }
    }
}

fn kill_at_all_points(prune: Option<PruneOptions>) -> Tally {
    let (lab, recorded) = record(prune);
    let all = points(&recorded);
    let (first, of) = shard();
    // The seed of one point is its number, so that a failure can be repeated alone.
    let only: Option<u64> = std::env::var("HEADLONG_SEED").ok().map(|seed| seed.parse().expect("a number"));
    let mut tally = Tally::default();
    for (seed, point) in (0u64..).zip(&all) {
        if only.is_none_or(|only| only == seed) && (only.is_some() || seed % of == first) {
            let one = std::panic::AssertUnwindSafe(|| kill_at(&lab, &recorded, *point, seed, &mut tally));
            if let Err(panic) = std::panic::catch_unwind(one) {
                eprintln!("HEADLONG_SEED={seed} repeats {point:?}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    let writes: u64 = recorded.iter().map(|known| known.writes).sum();
    println!("{} kill points of {}, at {writes} writes; {tally:?}", tally.points, all.len());
    if only.is_none() {
        assert!(tally.again > 20 && tally.replayed > 1 && tally.ahead > 0 && tally.bodies > 100, "{tally:?}");
    }
    tally
}

#[test]
fn a_kill_at_any_write_costs_what_came_since_the_last_commit_and_nothing_else() {
    let tally = kill_at_all_points(None);
    assert_eq!(tally.pruned, 0);
}

#[test]
fn a_pruned_node_that_is_killed_at_any_write_keeps_its_last_blocks_and_loses_nothing_else() {
    let tally = kill_at_all_points(Some(PruneOptions::new(PRUNED_BYTES).keep_blocks(KEEP)));
    assert!(tally.pruned > 100 || std::env::var("HEADLONG_SEED").is_ok(), "{tally:?}");
}

/// The script is what it is meant to be: reorgs of several depths, flushes in several batches, segments that
/// follow each other, a block that is refused.
#[test]
fn the_script_has_reorgs_and_long_flushes() {
    let (lab, recorded) = record(None);
    let mut tips: Vec<BlockRef> = recorded.iter().flat_map(|known| known.tips.clone()).collect();
    tips.dedup();
    let falls = tips.windows(2).filter(|pair| !lab.script.descends(pair[1].hash, pair[0].hash)).count();
    assert!(tips.len() > 12 && falls >= 4, "{falls} reorgs in {tips:?}");
    let last = recorded.last().unwrap();
    let run = last.before.copy();
    lab.run(&run, &last.session, &mut Told::default()).unwrap();
    assert!(run.in_steps() > 10, "{}", run.in_steps());
    let names = run.medium().list().unwrap();
    assert!(names.iter().filter(|name| name.starts_with("blk-")).count() > 3, "{names:?}");
    assert!(names.iter().any(|name| name.starts_with("undo-000001")), "{names:?}");
    // What the store holds at the end of the undisturbed run is what the model says.
    let front = lab.open(&run, 1 << 20).unwrap();
    assert_eq!(lab.check_state(&run, &front, &|| "undisturbed".into()), lab.script.end());
}
