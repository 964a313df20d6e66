//! Seven of eight peers are hostile, and some come to the node again and again: one honest peer is enough, and the
//! sync ends within a stated factor of the time that it takes with the honest one alone.
//!
//! All of it is virtual time: the same seed gives the same times, on every machine.

use headlong::rng::Rng;
use headlong::sim::manner::Manner;
use headlong::sim::node::NodePlan;
use headlong::sim::world::{Flaw, PeerPlan, Serves, Wire, World};
use headlong::verify::interpreter::Interpreter;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Seeds of an ordinary test run.
const SEEDS: std::ops::Range<u64> = 0..12;
/// Worlds that once took too long: addresses that nobody has hid the honest one, the one peer that delivered made room for
/// another, one was under suspicion for ever, strangers were asked before one that had delivered, and visitors or silent peers
/// held it at one block at a time.
const FOUND: [u64; 9] = [175_320, 403_320, 403_860, 406_200, 528_100, 607_740, 801_120, 814_080, 814_440];
/// Of a longer range that is asked for, one in so many: a world here costs as much as some dozens of the others.
const PART: usize = 20;
/// A sync with seven hostile peers takes at most so many times as long as with the honest peer alone.
const FACTOR: f64 = 2.5;
/// Half a day, by the end of which every world is in step.
const PATIENCE: u64 = 12 * 3_600_000;

/// Who takes part.
#[derive(Clone, Debug)]
struct Majority {
    seed: u64,
    node: NodePlan,
    honest: Wire,
    forks: Vec<(usize, u32, Flaw)>,
    hostile: Vec<PeerPlan>,
}

/// What a run came to.
#[derive(Clone, Copy, Debug)]
struct Times {
    alone: u64,
    among: u64,
}

fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.below(from.len() as u64) as usize]
}

fn hostile(rng: &mut Rng) -> PeerPlan {
    let some = 1 + rng.below(300) as u32;
    let mut wire = Wire {
        latency: 1 + rng.below(200),
        jitter: pick(rng, &[0, 50]),
        bandwidth: pick(rng, &[0, 1_000_000, 100_000]),
        losses: 0,
    };
    let mut serves = Serves::Honest;
    let manner = match rng.below(24) {
        0 => Manner::Lies,
        1 => Manner::Withholds,
        2 => Manner::Mutates(1 + some / 20),
        3 => Manner::WrongBlock(1 + some / 20),
        4 => Manner::Mute,
        5 => Manner::Deaf,
        6 => Manner::SilentAfter(some),
        7 => Manner::PausesAfter(some, 1 + rng.below(400) as u32),
        8 => Manner::NotFound,
        9 => Manner::EmptyHeaders,
        10 => Manner::UnconnectedHeaders,
        11 => Manner::ReversedHeaders,
        12 => Manner::WorthlessHeaders,
        13 => Manner::LowWork(2_000 + rng.below(299) as u32),
        14 => Manner::LowWork(1 + rng.below(2_000) as u32),
        15 => Manner::Floods(some),
        16 => Manner::Pushes,
        17 => Manner::TellsAddresses(1 + some / 50),
        18 => Manner::PushesCompact(some),
        19 => Manner::PushesTransactions(some),
        20 => Manner::Asks(1 + some / 20),
        21 => Manner::Pings(some),
        22 => Manner::RepeatsHandshake,
        // It sends, and never ends.
        _ => {
            wire.bandwidth = 64;
            Manner::Honest
        }
    };
    match manner {
        Manner::Lies => serves = Serves::Fork(0),
        Manner::Withholds => serves = Serves::Fork(1),
        Manner::Mutates(_) | Manner::WrongBlock(_) | Manner::SilentAfter(_) | Manner::PausesAfter(..) => {}
        // Who floods and serves would be of use.
        _ => serves = Serves::HeadersOnly,
    }
    PeerPlan { manner, wire, serves, opens: 0 }
}

impl Majority {
    fn random(seed: u64) -> Self {
        let mut rng = Rng::from_number(seed ^ 0x6d61_6a6f_7269_7479);
        let flaw = pick(&mut rng, &[Flaw::Greed, Flaw::Signature, Flaw::DoubleSpend]);
        let honest = Wire {
            latency: 10 + rng.below(150),
            jitter: pick(&mut rng, &[0, 30]),
            bandwidth: 17_000 + rng.below(20_000),
            losses: 0,
        };
        let mut peers: Vec<PeerPlan> = (0..7).map(|_| hostile(&mut rng)).collect();
        if rng.below(3) == 0 {
            // All of one mind.
            peers = vec![peers[0]; 7];
        }
        // Beside those that are dialled, as many again come by themselves, with some connections each.
        let visitors = rng.below(8);
        peers.extend((0..visitors).map(|_| PeerPlan { opens: 1 + rng.below(4) as u32, ..hostile(&mut rng) }));
        let node = NodePlan {
            manual: rng.below(2) == 0,
            inbound: pick(&mut rng, &[4, 16]),
            window: pick(&mut rng, &[64, 1_024]),
            ..NodePlan::default()
        };
        let forks = vec![(3 + rng.below(30) as usize, 2, flaw), (3 + rng.below(30) as usize, 3, Flaw::None)];
        Self { seed, node, honest, forks, hostile: peers }
    }

    /// Milliseconds until the node is in step; with or without the others.
    fn run(&self, others: bool, trace: bool) -> Result<u64, String> {
        let mut world = World::long(self.seed, Arc::new(Interpreter));
        if trace {
            world.keep_trace();
        }
        world.extend(40, 3);
        for (depth, longer, flaw) in &self.forks {
            world.fork_off(*depth, *longer, *flaw);
        }
        world.add_peer(PeerPlan { wire: self.honest, ..PeerPlan::default() });
        for peer in &self.hostile {
            let manner = if others { peer.manner } else { Manner::Absent };
            world.add_peer(PeerPlan { manner, ..*peer });
        }
        let node = world.add_node(self.node);
        let synced = world.run_until(PATIENCE, |world| world.is_synced(node));
        if trace {
            let lines: Vec<&str> = world.trace().collect();
            let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
            let path = path.join(format!("majority-{}.txt", self.seed));
            std::fs::write(&path, lines.join("\n")).expect("a trace can be written");
            println!("the trace is in {}", path.display());
        }
        if synced {
            return Ok(world.now());
        }
        let status = world.engine(node).map(|engine| engine.status());
        Err(format!("{:?}, {status:?}", world.violation()))
    }

    fn play(&self) -> Result<Times, String> {
        let alone = self.run(false, false).map_err(|error| format!("alone: {error}"))?;
        let among = self.run(true, false)?;
        Ok(Times { alone, among })
    }
}

#[test]
fn one_honest_peer_among_seven_hostile_ones_is_enough_within_a_factor() {
    let range = super::seeds_or(SEEDS);
    let part = if range.end - range.start > 100 { PART } else { 1 };
    let found = FOUND.into_iter().filter(|_| range == SEEDS);
    let seeds: Vec<u64> = range.clone().step_by(part).chain(found).collect();
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
                    let outcome = Majority::random(seed).play();
                    results.lock().expect("no panic").push((seed, outcome));
                }
            });
        }
    });
    let results = results.into_inner().expect("no panic");
    let mut factors = Vec::new();
    let mut failures = 0;
    for (seed, outcome) in &results {
        let factor = outcome.as_ref().map_or(f64::INFINITY, |times| times.among as f64 / times.alone as f64);
        factors.push(factor);
        if factor > FACTOR {
            failures += 1;
            println!("HEADLONG_SEED={seed} fails: {outcome:?}, {factor:.2}\n{:#?}", Majority::random(*seed));
            if outcome.is_err() || std::env::var_os("HEADLONG_SEED").is_some() {
                let _ = Majority::random(*seed).run(true, true);
            }
        }
    }
    factors.sort_by(f64::total_cmp);
    let at = |part: usize| factors[(factors.len() - 1) * part / 100];
    println!(
        "{} seeds: {:.2} times the honest-only time in the middle, {:.2} for 95 of 100, {:.2} at most",
        factors.len(),
        at(50),
        at(95),
        at(100)
    );
    assert_eq!(failures, 0, "of {} seeds", results.len());
}
