//! Worlds made of a seed: who takes part, what happens when, and how a failing world is made small.
//!
//! A [`Scenario`] is data: [`Scenario::random`] draws it from a seed, [`Scenario::run`] plays it, and
//! [`Scenario::shrink`] leaves out whatever a failure does not need. Printed, it tells its story.
//!
//! After its last action everything is healed (clocks, absent peers), and each node has half a day to reach
//! the honest chain's tip: one honest peer is enough.

use super::disk::{Crash, DiskFault};
use super::manner::Manner;
use super::node::NodePlan;
use super::world::{Flaw, PeerPlan, Serves, Violation, Wire, World};
use crate::chainstate::PruneOptions;
use crate::rng::Rng;

/// Milliseconds within which a healed world comes to its end.
const PATIENCE: u64 = 12 * 60 * 60 * 1_000;
/// Milliseconds between blocks of the healed world.
const BLOCK_TIME: u64 = 600_000;
/// Runs that making a scenario small may take.
const SHRINKING_RUNS: usize = 300;

/// Something that happens to a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// The honest chain grows by so many blocks with so many inputs each.
    Extend(u32, usize),
    /// Its last blocks are replaced by so many more.
    Reorg(usize, u32),
    /// A node ends, killed or by a loss of power.
    Kill(usize, Crash),
    /// A node ends after so many more outputs of its engine.
    KillAtOutput(usize, u64, Crash),
    /// A write of a node's disk, counted from now, meets a fault; if that is its death, in this way.
    Disk(usize, u64, DiskFault, Crash),
    /// A node's Unix clock is wrong by so many seconds.
    Clock(usize, i64),
    /// A node is asked to shut down, and begins again.
    Restart(usize),
    /// A peer is not to be reached for so many milliseconds.
    Away(usize, u64),
}

/// A world and what happens in it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Decides jitter, losses, order, and the content of blocks.
    pub seed: u64,
    /// Blocks of the honest chain above the first 110, and inputs of each.
    pub begin: (u32, usize),
    /// Chains beside it: depth, blocks more, flaw ([`World::fork_off`]).
    pub forks: Vec<(usize, u32, Flaw)>,
    /// The peers.
    pub peers: Vec<PeerPlan>,
    /// The nodes.
    pub nodes: Vec<NodePlan>,
    /// What happens, and how many milliseconds after what happened before.
    pub actions: Vec<(u64, Action)>,
}

/// How a run ended.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The broken invariant, if one is.
    pub violation: Option<Violation>,
    /// Steps of the world.
    pub steps: u64,
    /// Virtual milliseconds.
    pub millis: u64,
    /// Ends of nodes, of any kind.
    pub deaths: u64,
    /// Disk faults that came about.
    pub faults: usize,
    /// The trace, if one was wanted.
    pub trace: Vec<String>,
}

impl Scenario {
    /// The scenario of a seed.
    pub fn random(seed: u64) -> Self {
        let mut rng = Rng::from_number(seed ^ 0x7363_656e_6172_696f);
        let forks: Vec<_> = (0..rng.below(3)).map(|_| random_fork(&mut rng)).collect();
        let mut nodes: Vec<NodePlan> = (0..1 + rng.below(4) / 3).map(|_| random_node(&mut rng)).collect();
        let mut pruning = Rng::from_number(seed ^ 0x0070_7275_6e69_6e67);
        nodes.iter_mut().for_each(|node| node.prune = random_pruning(&mut pruning));
        let mut coming = Rng::from_number(seed ^ 0x0063_6f6d_696e_6700);
        let visitors = random_visitors(&mut coming, &mut nodes, &forks);
        let manual = nodes.iter().all(|node| node.manual);
        let mut peers: Vec<PeerPlan> = (0..1 + rng.below(3)).map(|_| honest_peer(&mut rng)).collect();
        // A node that dials of its own accord keeps eight connections.
        let others = rng.below(if manual { 12 } else { 6 });
        peers.extend((0..others).map(|_| other_peer(&mut rng, &forks)));
        let actions: Vec<_> = (0..rng.below(20))
            .map(|_| (rng.below(20_000), random_action(&mut rng, nodes.len(), peers.len(), manual)))
            .collect();
        peers.extend(visitors);
        Self { seed, begin: (4 + rng.below(50) as u32, rng.below(4) as usize), forks, peers, nodes, actions }
    }

    /// Plays the scenario to its end, or to the first broken invariant.
    #[cfg(feature = "consensus")]
    pub fn run(&self, keep_trace: bool) -> Outcome {
        self.play(World::new(self.seed), keep_trace)
    }

    /// Plays the scenario in an empty world.
    pub fn play(&self, mut world: World, keep_trace: bool) -> Outcome {
        if keep_trace {
            world.keep_trace();
        }
        world.extend(self.begin.0, self.begin.1);
        for (depth, longer, flaw) in &self.forks {
            world.fork_off(*depth, *longer, *flaw);
        }
        for peer in &self.peers {
            world.add_peer(*peer);
        }
        for node in &self.nodes {
            world.add_node(*node);
        }
        for (wait, action) in &self.actions {
            world.run(*wait);
            act(&mut world, *action);
        }
        let violation = end(&mut world);
        Outcome {
            violation,
            steps: world.steps(),
            millis: world.now(),
            deaths: (0..world.nodes()).map(|node| world.deaths(node)).sum(),
            faults: (0..world.nodes()).map(|node| world.disk(node).struck().len()).sum(),
            trace: world.trace().map(str::to_owned).collect(),
        }
    }

    /// A smaller scenario in which `run` still breaks the same invariant: actions are left out, peers are
    /// absent, the chain is shorter.
    #[must_use]
    pub fn shrink(&self, invariant: &str, run: impl Fn(&Self) -> Outcome) -> Self {
        let fails =
            |scenario: &Self| run(scenario).violation.is_some_and(|found| found.invariant == invariant);
        let mut small = self.clone();
        let mut runs = 0;
        loop {
            let before = runs;
            let mut smaller = false;
            for candidate in small.smaller() {
                runs += 1;
                if runs > SHRINKING_RUNS {
                    return small;
                }
                if fails(&candidate) {
                    small = candidate;
                    smaller = true;
                    break;
                }
            }
            if !smaller || runs == before {
                return small;
            }
        }
    }

    /// Scenarios with one thing less.
    fn smaller(&self) -> Vec<Self> {
        let mut all = Vec::new();
        for index in 0..self.actions.len() {
            let mut less = self.clone();
            let (wait, _) = less.actions.remove(index);
            if let Some((next, _)) = less.actions.get_mut(index) {
                *next += wait;
            }
            all.push(less);
        }
        for (index, peer) in self.peers.iter().enumerate() {
            if peer.manner != Manner::Absent && !(peer.manner.is_honest() && self.honest_peers() == 1) {
                let mut less = self.clone();
                less.peers[index].manner = Manner::Absent;
                all.push(less);
            }
        }
        if self.begin.0 > 4 {
            all.push(Self { begin: ((self.begin.0 / 2).max(4), self.begin.1), ..self.clone() });
        }
        if self.begin.1 > 0 {
            all.push(Self { begin: (self.begin.0, 0), ..self.clone() });
        }
        for (index, peer) in self.peers.iter().enumerate() {
            if peer.wire != Wire::default() && peer.manner != Manner::Absent {
                let mut less = self.clone();
                less.peers[index].wire = Wire::default();
                all.push(less);
            }
        }
        all
    }

    fn honest_peers(&self) -> usize {
        self.peers.iter().filter(|peer| peer.manner.is_honest() && peer.serves == Serves::Honest).count()
    }
}

fn act(world: &mut World, action: Action) {
    match action {
        Action::Extend(blocks, inputs) => world.extend(blocks, inputs),
        Action::Reorg(depth, longer) => world.reorg(depth, longer, 2),
        Action::Kill(node, how) => world.kill(node, how),
        Action::KillAtOutput(node, outputs, how) => world.kill_at_output(node, outputs, how),
        Action::Disk(node, writes, fault, death) => world.strike_disk(node, writes, fault, death),
        Action::Clock(node, seconds) => world.set_clock(node, seconds),
        Action::Restart(node) => world.shut_down(node),
        Action::Away(peer, millis) => world.take_away(peer, millis),
    }
}

/// Heals the world and waits for its nodes.
fn end(world: &mut World) -> Option<Violation> {
    for node in 0..world.nodes() {
        world.set_clock(node, 0);
    }
    let all = |world: &World| (0..world.nodes()).all(|node| world.is_synced(node));
    // The network lives on: a block every ten minutes.
    let mut synced = world.run_until(BLOCK_TIME, all);
    for _ in 0..PATIENCE / BLOCK_TIME {
        if synced || world.violation().is_some() {
            break;
        }
        world.extend(1, 1);
        synced = world.run_until(BLOCK_TIME, all);
    }
    if !synced && world.violation().is_none() {
        let node = (0..world.nodes()).find(|node| !world.is_synced(*node)).unwrap_or_default();
        let status = world.engine(node).map(|engine| engine.status());
        return Some(Violation {
            at: world.now(),
            node,
            invariant: "one honest peer is enough",
            detail: format!("the tip is {:?}, the node's status {status:?}", world.tip()),
        });
    }
    world.violation().cloned()
}

fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.below(from.len() as u64) as usize]
}

fn random_fork(rng: &mut Rng) -> (usize, u32, Flaw) {
    let flaw = pick(rng, &[Flaw::None, Flaw::Greed, Flaw::Signature, Flaw::DoubleSpend]);
    (3 + rng.below(30) as usize, 1 + rng.below(10) as u32, flaw)
}

fn random_node(rng: &mut Rng) -> NodePlan {
    NodePlan {
        manual: rng.below(4) > 0,
        coins_bytes: pick(rng, &[6_000, 50_000, 1 << 24]),
        batch_limit: pick(rng, &[3, 20, 1_000]),
        commit_millis: pick(rng, &[200, 5_000, 60_000]),
        window: pick(rng, &[8, 64, 1_024]),
        work_millis: pick(rng, &[1, 5, 50]),
        ..NodePlan::default()
    }
}

/// One node of three prunes. The world's reorgs are deeper than some keep.
fn random_pruning(rng: &mut Rng) -> Option<PruneOptions> {
    let bytes = pick(rng, &[2_000, 8_000, 30_000]);
    let keep = pick(rng, &[6, 30, 60]);
    (rng.below(3) == 0).then(|| PruneOptions::new(bytes).keep_blocks(keep))
}

/// One world of three has nodes that listen, and peers of any kind that come to them.
fn random_visitors(rng: &mut Rng, nodes: &mut [NodePlan], forks: &[(usize, u32, Flaw)]) -> Vec<PeerPlan> {
    if rng.below(3) > 0 {
        return Vec::new();
    }
    nodes.iter_mut().for_each(|node| node.inbound = 1 + rng.below(12) as usize);
    let visitor = |rng: &mut Rng| {
        let some = 1 + rng.below(40) as u32;
        let plan = other_peer(rng, forks);
        let manner = match rng.below(16) {
            0 => Manner::LowWork(some),
            1 | 2 => Manner::TellsAddresses(1 + some / 10),
            3 | 4 => Manner::PushesCompact(some),
            5 | 6 => Manner::PushesTransactions(some),
            7 | 8 => Manner::Asks(1 + some / 10),
            9 => Manner::Pings(some),
            10 => Manner::Honest,
            _ => plan.manner,
        };
        let serves = if manner == plan.manner { plan.serves } else { Serves::Honest };
        PeerPlan { manner, serves, opens: 1 + rng.below(3) as u32, ..plan }
    };
    (0..1 + rng.below(4)).map(|_| visitor(rng)).collect()
}

fn random_wire(rng: &mut Rng) -> Wire {
    Wire {
        latency: 1 + rng.below(300),
        jitter: pick(rng, &[0, 0, 50, 1_000]),
        bandwidth: pick(rng, &[0, 0, 1_000_000, 100_000, 20_000]),
        losses: pick(rng, &[0, 0, 0, 20, 200]),
    }
}

fn honest_peer(rng: &mut Rng) -> PeerPlan {
    PeerPlan { wire: random_wire(rng), ..PeerPlan::default() }
}

fn other_peer(rng: &mut Rng, forks: &[(usize, u32, Flaw)]) -> PeerPlan {
    let mut wire = random_wire(rng);
    let mut serves = Serves::Honest;
    let some = 1 + rng.below(60) as u32;
    let manner = match rng.below(24) {
        0 => Manner::Absent,
        1 => Manner::BlackHole,
        2 => Manner::Mute,
        3 => Manner::Deaf,
        4 => Manner::SilentAfter(some),
        5 => Manner::LeavesAfter(some),
        6 => Manner::PausesAfter(some, 1 + rng.below(400) as u32),
        7 => Manner::Shuffles,
        8 => Manner::Mutates(1 + some / 10),
        9 => Manner::WrongBlock(1 + some / 10),
        10 => Manner::NotFound,
        11 => Manner::ReversedHeaders,
        12 => Manner::UnconnectedHeaders,
        13 => Manner::WorthlessHeaders,
        14 => Manner::EmptyHeaders,
        15 => Manner::RepeatsHandshake,
        16 => Manner::Mirror,
        17 => Manner::Floods(1 + some),
        18 => Manner::Pushes,
        19 => {
            wire.bandwidth = 16;
            Manner::Honest
        }
        _ if forks.is_empty() => Manner::Withholds,
        _ => {
            let fork = rng.below(forks.len() as u64) as usize;
            serves = Serves::Fork(fork);
            if forks[fork].2 == Flaw::None { Manner::Withholds } else { Manner::Lies }
        }
    };
    PeerPlan { manner, wire, serves, opens: 0 }
}

fn random_action(rng: &mut Rng, nodes: usize, peers: usize, manual: bool) -> Action {
    let node = rng.below(nodes as u64) as usize;
    let how = pick(rng, &[Crash::Kill, Crash::PowerLoss]);
    match rng.below(12) {
        0..3 => Action::Extend(1 + rng.below(12) as u32, rng.below(4) as usize),
        3..5 => Action::Reorg(1 + rng.below(25) as usize, 1 + rng.below(3) as u32),
        5 => Action::Kill(node, how),
        6 => Action::KillAtOutput(node, rng.below(300), how),
        7..9 => {
            let faults = [
                DiskFault::Fail,
                DiskFault::Full,
                DiskFault::Lie,
                DiskFault::Rot,
                DiskFault::Die,
                DiskFault::Die,
            ];
            Action::Disk(node, rng.below(80), pick(rng, &faults), how)
        }
        9 => {
            const DAY: i64 = 86_400;
            Action::Clock(node, pick(rng, &[-30 * DAY, -DAY, -3_600, 3_600, DAY, 3_650 * DAY]))
        }
        10 => Action::Restart(node),
        _ if manual => Action::Away(rng.below(peers as u64) as usize, rng.below(100_000)),
        _ => Action::Extend(1, 1),
    }
}
