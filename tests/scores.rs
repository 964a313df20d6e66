//! What scores are worth: the time to sync in whole simulated worlds, by policy, and that slowness bans nobody.
//!
//! - `HEADLONG_SCORE_SEEDS=100..200` plays these seeds instead of the first ones, and prints each.
#![cfg(feature = "consensus")]

use headlong::peer::score::Features;
use headlong::rng::Rng;
use headlong::sim::manner::Manner;
use headlong::sim::node::NodePlan;
use headlong::sim::world::{Flaw, PeerPlan, Serves, Wire, World};
use headlong::{AuditAction, AuditRecord, CloseReason, ScorePolicy};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds of an ordinary test run: of short syncs, and of long ones.
const SEEDS: Range<u64> = 0..40;
const LONG_SEEDS: Range<u64> = 0..16;
/// Blocks above the first 110; each has some 250 bytes.
const BLOCKS: u32 = 1_500;
/// Blocks that are fetched ahead: as on the main network some of what each fast peer delivers in four seconds, where a
/// block of 1.5 MB takes about as long.
const WINDOW: u32 = 256;
/// The same of a long sync, whose blocks count as 1.5 MB on the wires.
const LONG_BLOCKS: u32 = 3_000;
const LONG_WEIGHT: u64 = 6_000;
const LONG_WINDOW: u32 = 128;
/// Virtual milliseconds within which every world is synced.
const PATIENCE: u64 = 6 * 3_600_000;

const POLICIES: [ScorePolicy; 4] =
    [ScorePolicy::Learnt, ScorePolicy::Fixed, ScorePolicy::Speed, ScorePolicy::Random];

fn seeds_or(usual: Range<u64>) -> (Range<u64>, bool) {
    let Ok(range) = std::env::var("HEADLONG_SCORE_SEEDS") else { return (usual, false) };
    let (from, to) = range.split_once("..").expect("HEADLONG_SCORE_SEEDS is FROM..TO");
    (from.parse().expect("a number")..to.parse().expect("a number"), true)
}

fn between(rng: &mut Rng, from: u64, to: u64) -> u64 {
    from + rng.below(to - from)
}

/// One of the mix: of 20 peers five are fast, seven slow, five flaky and three lie, on average.
fn peer(rng: &mut Rng, fork: usize) -> PeerPlan {
    let fast =
        Wire { latency: between(rng, 10, 80), jitter: 20, bandwidth: between(rng, 3_000, 12_000), losses: 0 };
    let honest = PeerPlan { manner: Manner::Honest, wire: fast, serves: Serves::Honest, opens: 0 };
    match rng.below(20) {
        0..5 => honest,
        5..12 => {
            let bandwidth = between(rng, 60, 600);
            let wire = Wire { latency: between(rng, 50, 400), jitter: 200, bandwidth, losses: 0 };
            PeerPlan { wire, ..honest }
        }
        12..17 => {
            let blocks = between(rng, 5, 60) as u32;
            let manner = match rng.below(3) {
                0 => Manner::LeavesAfter(blocks),
                1 => Manner::SilentAfter(blocks),
                _ => Manner::PausesAfter(blocks, between(rng, 5, 60) as u32),
            };
            PeerPlan { manner, wire: Wire { losses: 30, ..fast }, ..honest }
        }
        _ => {
            let manner = match rng.below(4) {
                0 => Manner::Mutates(between(rng, 2, 6) as u32),
                1 => Manner::WrongBlock(between(rng, 2, 6) as u32),
                2 => Manner::NotFound,
                _ => return PeerPlan { manner: Manner::Lies, serves: Serves::Fork(fork), ..honest },
            };
            PeerPlan { manner, ..honest }
        }
    }
}

/// A world of this seed, the same for each policy.
fn world(seed: u64, policy: ScorePolicy) -> (World, usize) {
    let mut rng = Rng::from_number(seed ^ 0x73_636f_7265);
    let mut world = World::new(seed);
    world.extend(BLOCKS, 0);
    let fork = world.fork_off(20, 3, Flaw::Greed);
    // One honest and fast one is always there; the node keeps ten of 30.
    world.add_peer(PeerPlan { wire: Wire { bandwidth: 6_000, ..Wire::default() }, ..PeerPlan::default() });
    for _ in 1..30 {
        world.add_peer(peer(&mut rng, fork));
    }
    let plan = NodePlan { manual: false, window: WINDOW, score_policy: policy, ..NodePlan::default() };
    let node = world.add_node(plan);
    (world, node)
}

/// Milliseconds from when all headers are there until the node is synced. Headers come from one peer, whoever is first;
/// beside these small blocks they would take half of the time.
fn time_to_sync(seed: u64, policy: ScorePolicy) -> u64 {
    let (mut world, node) = world(seed, policy);
    let has_headers =
        |world: &World| world.engine(node).is_some_and(|engine| engine.status().best_header == world.tip());
    assert!(world.run_until(PATIENCE, has_headers), "seed {seed}, {policy}: {:?}", world.violation());
    let begun = world.now();
    let synced = world.run_until(PATIENCE, |world| world.is_synced(node));
    assert!(synced, "seed {seed}, {policy}: {:?}", world.violation());
    world.now() - begun
}

/// A world in which it takes a quarter of an hour and more to sync, so that it matters whom the node keeps: its blocks are as
/// long on the way as the main network's, its peers as fast as there. The node keeps ten of 60.
fn long_world(seed: u64, policy: ScorePolicy) -> (World, usize) {
    let mut rng = Rng::from_number(seed ^ 0x6c6f_6e67);
    let mut world = World::new(seed);
    world.weigh_blocks(LONG_WEIGHT);
    world.extend(LONG_BLOCKS, 0);
    let fork = world.fork_off(20, 3, Flaw::Greed);
    world.add_peer(PeerPlan { wire: Wire { bandwidth: 600_000, ..Wire::default() }, ..PeerPlan::default() });
    for _ in 1..60 {
        let plan = peer(&mut rng, fork);
        // From 9 to 150 kB a second for the slow ones, from 300 to 1,200 for all others.
        let slow = plan.wire.bandwidth < 600;
        let bandwidth =
            if slow { 300_000 >> between(&mut rng, 1, 6) } else { plan.wire.bandwidth.saturating_mul(100) };
        world.add_peer(PeerPlan { wire: Wire { bandwidth, ..plan.wire }, ..plan });
    }
    let plan = NodePlan { manual: false, window: LONG_WINDOW, score_policy: policy, ..NodePlan::default() };
    let node = world.add_node(plan);
    (world, node)
}

/// Milliseconds from the node's start until it is synced.
fn time_to_sync_long(seed: u64, policy: ScorePolicy) -> u64 {
    let (mut world, node) = long_world(seed, policy);
    let synced = world.run_until(PATIENCE, |world| world.is_synced(node));
    assert!(synced, "seed {seed}, {policy}: {:?}", world.violation());
    world.now()
}

/// Plays every seed with each policy; the mean times in seconds, in the order of [`POLICIES`].
fn play((seeds, each): (Range<u64>, bool), time: fn(u64, ScorePolicy) -> u64) -> [f64; 4] {
    let begun = std::time::Instant::now();
    let next = AtomicU64::new(seeds.start);
    let times = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let result = POLICIES.map(|policy| time(seed, policy));
                    times.lock().expect("no panic").push((seed, result));
                }
            });
        }
    });
    let mut times: Vec<(u64, [u64; 4])> = times.into_inner().expect("no panic");
    times.sort_unstable();
    for (seed, t) in times.iter().filter(|_| each) {
        println!("seed {seed}: {t:?} ms");
    }
    let mean =
        |at: usize| times.iter().map(|(_, t)| t[at]).sum::<u64>() as f64 / times.len() as f64 / 1_000.0;
    let means = [mean(0), mean(1), mean(2), mean(3)];
    for (at, policy) in POLICIES.iter().enumerate() {
        let mut sorted: Vec<u64> = times.iter().map(|(_, t)| t[at]).collect();
        sorted.sort_unstable();
        let sooner = times.iter().filter(|(_, t)| t[0] < t[at]).count();
        println!(
            "{policy:>7}: mean {:.1} s, median {:.1} s, worst {:.1} s; learnt is sooner in {sooner} of {}, by {:.1}% in the mean",
            means[at],
            sorted[sorted.len() / 2] as f64 / 1_000.0,
            sorted[sorted.len() - 1] as f64 / 1_000.0,
            times.len(),
            (1.0 - means[0] / means[at]) * 100.0,
        );
    }
    println!("{} seeds from {}, {:.1} s", times.len(), seeds.start, begun.elapsed().as_secs_f64());
    means
}

/// Where there is time to learn, and to replace whom the scores say: what a first sync is.
#[test]
fn learnt_scores_sync_sooner_than_fixed_ones_speed_and_chance() {
    let [learnt, fixed, speed, chance] = play(seeds_or(LONG_SEEDS), time_to_sync_long);
    assert!(learnt < fixed, "learnt {learnt:.1} s, fixed {fixed:.1} s");
    assert!(learnt < speed, "learnt {learnt:.1} s, speed alone {speed:.1} s");
    assert!(learnt < chance, "learnt {learnt:.1} s, chance {chance:.1} s");
}

/// In half a minute nobody is replaced, and little learnt: scores only say who is asked first.
#[test]
fn within_half_a_minute_learnt_scores_are_as_good_as_fixed_ones_and_better_than_chance() {
    let [learnt, fixed, _, chance] = play(seeds_or(SEEDS), time_to_sync);
    assert!(learnt < fixed * 1.05, "learnt {learnt:.1} s, fixed {fixed:.1} s");
    assert!(learnt < chance, "learnt {learnt:.1} s, chance {chance:.1} s");
}

/// A thousand times slower than the others, and silent for minutes: whatever its score comes to, nobody is banned for it,
/// and once it is alone the node syncs from it.
#[test]
fn slowness_bans_nobody_and_one_slow_peer_is_enough() {
    for (seed, policy) in [(1, ScorePolicy::Learnt), (2, ScorePolicy::Fixed), (3, ScorePolicy::Learnt)] {
        let mut world = World::new(seed);
        world.extend(300, 0);
        let slow = Wire { latency: 900, jitter: 500, bandwidth: 400, losses: 0 };
        let slow = PeerPlan { wire: slow, manner: Manner::PausesAfter(40, 90), ..PeerPlan::default() };
        let all: Vec<usize> = (0..14).map(|_| world.add_peer(slow)).collect();
        let fast = Wire { bandwidth: 10_000, ..Wire::default() };
        let fast: Vec<usize> =
            (0..3).map(|_| world.add_peer(PeerPlan { wire: fast, ..PeerPlan::default() })).collect();
        let node = world.add_node(NodePlan { manual: false, score_policy: policy, ..NodePlan::default() });
        assert!(world.run_until(PATIENCE, |world| world.is_synced(node)), "{:?}", world.violation());
        let engine = world.engine(node).expect("it lives");
        assert_eq!(bans(engine), 0);
        // All but one slow one go, for good.
        for peer in fast.into_iter().chain(all.into_iter().skip(1)) {
            world.take_away(peer, PATIENCE);
        }
        world.extend(100, 0);
        assert!(world.run_until(PATIENCE, |world| world.is_synced(node)), "{:?}", world.violation());
        assert_eq!(bans(world.engine(node).expect("it lives")), 0);
        assert_eq!(world.violation(), None);
    }
}

/// Addresses that are discouraged, by the figure of what the engine holds.
fn bans(engine: &headlong::engine::Engine) -> u64 {
    let load = engine.load();
    let figure = load.figures().iter().find(|(name, _, _)| *name == "discouraged");
    figure.expect("it is among the figures").1
}

/// What a life has learnt is there in the next one.
#[test]
fn what_was_learnt_outlives_the_node() {
    let (mut world, node) = world(5, ScorePolicy::Learnt);
    assert!(world.run_until(PATIENCE, |world| world.is_synced(node)), "{:?}", world.violation());
    let weights = |world: &World| world.engine(node).map(|engine| engine.score_weights());
    let learnt = weights(&world).expect("it lives");
    assert_ne!(learnt, [0.4, 0.35, -0.25, 0.0, 0.0, 0.0]);
    world.shut_down(node);
    assert!(world.run_until(60_000, |world| world.deaths(node) == 1 && world.engine(node).is_some()));
    assert_eq!(weights(&world), Some(learnt));
    assert!(world.scores(node).is_some());
}

/// Of a score that stays low for minutes while there is something to fetch, another peer takes the place, with the evidence
/// in the audit log; where speed alone chooses, nobody's. Of 30 peers each third is twenty times slower than the others.
#[test]
fn who_stays_slow_makes_room_for_another_and_is_not_banned() {
    for (policy, some) in [(ScorePolicy::Learnt, true), (ScorePolicy::Speed, false)] {
        let replaced: Vec<AuditRecord> = (11..16).flat_map(|seed| replaced_slow_ones(seed, policy)).collect();
        println!("{policy}: {} replaced", replaced.len());
        assert_eq!(!replaced.is_empty(), some);
        for record in replaced {
            assert_eq!((record.action, &record.reason), (AuditAction::Replaced, &CloseReason::LowScore));
            let score = record.score.expect("it was connected");
            let Features { speed, stalls, .. } = score.features;
            assert!(score.score < 40 && (speed < 0.5 || stalls > 0.25), "{record}");
        }
    }
}

fn replaced_slow_ones(seed: u64, policy: ScorePolicy) -> Vec<AuditRecord> {
    let mut world = World::new(seed);
    world.weigh_blocks(LONG_WEIGHT);
    world.extend(LONG_BLOCKS, 0);
    for number in 0..30usize {
        let bandwidth = if number.is_multiple_of(3) { 20_000 } else { 400_000 };
        let wire = Wire { latency: 100, jitter: 50, bandwidth, losses: 0 };
        world.add_peer(PeerPlan { wire, ..PeerPlan::default() });
    }
    let plan = NodePlan { manual: false, window: LONG_WINDOW, score_policy: policy, ..NodePlan::default() };
    let node = world.add_node(plan);
    assert!(world.run_until(PATIENCE, |world| world.is_synced(node)), "{:?}", world.violation());
    assert_eq!(bans(world.engine(node).expect("it lives")), 0);
    world.replaced(node).to_vec()
}
