//! The deterministic network: nodes and peers on virtual time, everything from one seed.
//!
//! 1. Whatever happens has a time and a number; the first is taken, and what it leads to is put in its place.
//!    The same seed and the same calls give the same run, to the byte.
//! 2. Nodes are real: [`crate::engine::Engine`] over [`crate::chainstate::Chainstate`] on a [`SimDisk`], with
//!    real blocks and a real verifier. Peers are as their [`Manner`] says, over links with latency, jitter,
//!    bandwidth and losses. What a process adds to this (sockets, threads, files) is not here.
//! 3. After every step the [invariants](World::violation) are checked; a world in which one is broken
//!    stands still.
//!
//! ```
//! use headlong::sim::manner::Manner;
//! use headlong::sim::node::NodePlan;
//! use headlong::sim::world::{PeerPlan, World};
//!
//! let mut world = World::new(7);
//! world.extend(30, 0);
//! world.add_peer(PeerPlan::default());
//! world.add_peer(PeerPlan { manner: Manner::NotFound, ..PeerPlan::default() });
//! let node = world.add_node(NodePlan::default());
//! assert!(world.run_until(600_000, |world| world.is_synced(node)), "{:?}", world.violation());
//! ```

mod life;
mod network;

use super::disk::{Crash, DiskFault, SimDisk};
use super::forge::{BlockPlan, Branch, Forge, SPACING, mine};
use super::ledger::Ledger;
use super::manner::Manner;
use super::node::{NodePlan, SimNode};
use super::serve::ServedChain;
use crate::chain::command::BlockRef;
use crate::chain::params::{Network, Params};
use crate::chain::work::ChainWork;
use crate::engine::{Engine, Input};
use crate::peer::audit::AuditRecord;
use crate::peer::{PeerAddress, PeerId};
use crate::rng::Rng;
use crate::verify::Verifier;
use crate::verify::pool::Pool;
use crate::wire::Message;
use bitcoin::{Amount, Block};
use parking_lot::RwLock;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Seconds between the last block and the beginning of a world.
const SLACK: u64 = 36_000;
/// Milliseconds from the end of a life to the next.
const REBIRTH: u64 = 2_000;
/// Milliseconds between signs of life of a message that takes long to arrive.
const PROGRESS: u64 = 1_000;
/// Branches of the honest chain that are remembered, to fork from.
const REMEMBERED: usize = 80;
/// Steps at one moment after which a world counts as going round in circles. Some thirty noisy connections may come to
/// say all that they have to say in the same millisecond.
const MAX_STEPS_AT_ONCE: u64 = 200_000;
/// Lines of the trace that are kept.
const TRACE_LINES: usize = 100_000;

/// A connection's qualities, the same both ways but for the bandwidth, which is that of what the peer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wire {
    /// Milliseconds for a message.
    pub latency: u64,
    /// The most milliseconds more, drawn for each message.
    pub jitter: u64,
    /// Bytes a second; 0 is without limit.
    pub bandwidth: u64,
    /// Of ten thousand messages to the node, how many end the connection instead.
    pub losses: u64,
}

impl Default for Wire {
    /// 20 ms, and no limits.
    fn default() -> Self {
        Self { latency: 20, jitter: 0, bandwidth: 0, losses: 0 }
    }
}

/// Which chain a peer serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Serves {
    /// The honest one, growing.
    #[default]
    Honest,
    /// Its headers, and never a block.
    HeadersOnly,
    /// The chain that [`World::fork_off`] made, by its number.
    Fork(usize),
}

/// A peer.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeerPlan {
    /// What it does.
    pub manner: Manner,
    /// How it is connected.
    pub wire: Wire,
    /// What it serves.
    pub serves: Serves,
    /// How many connections it opens to each node, each again when it has ended; 0: it waits to be dialled.
    pub opens: u32,
}

/// What is wrong with a forked chain, in its second block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing.
    None,
    /// The coinbase takes a satoshi too much.
    Greed,
    /// A signature is by the wrong key. (Greed, where nothing can be spent.)
    Signature,
    /// A coin is spent twice. (Greed, where nothing can be spent.)
    DoubleSpend,
}

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Milliseconds since the world began.
    pub at: u64,
    /// The node.
    pub node: usize,
    /// Which.
    pub invariant: &'static str,
    /// How.
    pub detail: String,
}

#[derive(Debug)]
enum Happening {
    /// An input for the engine of a life.
    Input(usize, u64, Input),
    /// A message arrives at a node.
    FromPeer(usize, u64, PeerId, Message, usize),
    /// The peer's end of the connection.
    PeerLeft(usize, u64, PeerId),
    /// A message arrives at a peer.
    ToPeer(usize, u64, PeerId, Message),
    /// The chainstate takes its next command.
    Command(usize, u64),
    /// A job of the pool is done.
    Job(usize, u64, u64),
    /// The next life begins.
    Birth(usize, u64),
    /// A peer opens a connection to a node.
    Knock(usize, u64, usize),
}

struct Peer {
    plan: PeerPlan,
    address: PeerAddress,
    /// Not to be reached before this.
    away_until: u64,
}

/// Nodes, peers, and the chain they talk about. See the [module](self).
pub struct World {
    now: u64,
    sequence: u64,
    happenings: BTreeMap<(u64, u64), Happening>,
    rng: Rng,
    params: Arc<Params>,
    forge: Forge,
    ledger: Ledger,
    begin: u64,
    honest: Branch,
    /// Earlier ends of the honest chain.
    past: VecDeque<Branch>,
    chain: Arc<RwLock<ServedChain>>,
    forks: Vec<Arc<RwLock<ServedChain>>>,
    peers: Vec<Peer>,
    nodes: Vec<SimNode>,
    /// How often each byte of a block counts on the wires.
    block_weight: u64,
    verifier: Arc<dyn Verifier>,
    pool: Arc<Pool>,
    steps: u64,
    /// Steps at the present moment.
    steps_now: u64,
    violation: Option<Violation>,
    trace: Option<VecDeque<String>>,
}

/// Blocks without spends that every world begins with, so that there is something to spend.
const BASE: u32 = 110;

/// The same of a long world: more than one message of headers, and blocks of which most are data that nobody checks.
const LONG_BASE: u32 = 2_400;
const LONG_PADDING: usize = 1_500;

/// A forge and what it has made.
type First = (Forge, Branch, Vec<Block>);

fn first(blocks: u32, padding: usize) -> First {
    let mut forge = Forge::new(Arc::new(Params::new(Network::Regtest)), 0);
    forge.pad(padding);
    let mut branch = forge.genesis(None);
    let blocks = (0..blocks).map(|_| forge.extend(&mut branch, BlockPlan::default())).collect();
    forge.pad(0);
    (forge, branch, blocks)
}

/// The first blocks of all worlds, made once a process.
fn base() -> &'static First {
    static FIRST: std::sync::OnceLock<First> = std::sync::OnceLock::new();
    FIRST.get_or_init(|| first(BASE, 0))
}

/// The first blocks of all long worlds.
fn long_base() -> &'static First {
    static FIRST: std::sync::OnceLock<First> = std::sync::OnceLock::new();
    FIRST.get_or_init(|| first(LONG_BASE, LONG_PADDING))
}

impl World {
    /// An empty world of this seed, whose nodes run scripts through Bitcoin Core's code. Its chain has 110
    /// blocks, the last of them ten hours old.
    #[cfg(feature = "consensus")]
    pub fn new(seed: u64) -> Self {
        Self::with_verifier(seed, Arc::new(crate::verify::interpreter::Interpreter))
    }

    /// An empty world of this seed, whose nodes have this verifier.
    ///
    /// # Panics
    /// Never: a pool without threads asks nothing of the system.
    pub fn with_verifier(seed: u64, verifier: Arc<dyn Verifier>) -> Self {
        Self::begun(seed, verifier, base())
    }

    /// A world whose chain has 2,400 blocks at first, of some 1.7 kB each: it takes two messages to tell its headers, and
    /// minutes to bring its blocks over a slow link. Its nodes know how much work the first 2,300 have (`nMinimumChainWork`).
    pub fn long(seed: u64, verifier: Arc<dyn Verifier>) -> Self {
        let mut world = Self::begun(seed, verifier, long_base());
        let block = ChainWork::of_bits(world.params.genesis_header().bits.to_consensus());
        let least = block.saturating_mul(LONG_BASE - 100);
        world.params = Arc::new((*world.params).clone().with_minimum_chain_work(least));
        world
    }

    fn begun(seed: u64, verifier: Arc<dyn Verifier>, (forge, branch, blocks): &First) -> Self {
        let params = Arc::new(Params::new(Network::Regtest));
        let mut ledger = Ledger::new(&params.genesis);
        let mut chain = ServedChain::new(&params.genesis);
        for block in blocks {
            ledger.enter(block, true);
        }
        chain.extend(blocks);
        Self {
            now: 0,
            sequence: 0,
            happenings: BTreeMap::new(),
            rng: Rng::from_number(seed),
            forge: forge.fork(seed),
            ledger,
            begin: u64::from(branch.time) + SLACK,
            honest: branch.clone(),
            past: VecDeque::from([branch.clone()]),
            chain: Arc::new(RwLock::new(chain)),
            forks: Vec::new(),
            peers: Vec::new(),
            nodes: Vec::new(),
            verifier,
            block_weight: 1,
            pool: Arc::new(Pool::new("sim", 0, 1).expect("no thread is asked for")),
            params,
            steps: 0,
            steps_now: 0,
            violation: None,
            trace: None,
        }
    }

    // ---- what the test does ----

    /// Keeps a readable trace from here on, of the last 100,000 lines.
    pub fn keep_trace(&mut self) {
        self.trace = Some(VecDeque::new());
    }

    /// The trace's lines, oldest first.
    pub fn trace(&self) -> impl Iterator<Item = &str> {
        self.trace.iter().flatten().map(String::as_str)
    }

    /// Adds a peer and answers its number. Nodes that are added later know its address.
    pub fn add_peer(&mut self, plan: PeerPlan) -> usize {
        let number = self.peers.len();
        // One network group each.
        let address = PeerAddress::Ip(([11 + (number / 250) as u8, (number % 250) as u8, 0, 1], 8333).into());
        self.peers.push(Peer { plan, address, away_until: 0 });
        number
    }

    /// Adds a node, which begins at once, and answers its number.
    pub fn add_node(&mut self, plan: NodePlan) -> usize {
        let number = self.nodes.len();
        self.nodes.push(SimNode::new(plan, self.verifier.clone(), self.pool.clone()));
        self.later(0, Happening::Birth(number, 0));
        number
    }

    /// Lets each byte of a block count so many times on the wires from now on: blocks that are as long on the way as large
    /// ones, and small in memory. What the engine measures of their speed is of the small ones.
    pub fn weigh_blocks(&mut self, factor: u64) {
        self.block_weight = factor.max(1);
    }

    /// Lets the honest chain grow by so many blocks, each with about so many spent inputs.
    pub fn extend(&mut self, blocks: u32, inputs: usize) {
        for _ in 0..blocks {
            let plan = BlockPlan { inputs, growth: inputs / 2 };
            self.honest.time = paced(self.honest.time, self.begin + self.now / 1_000);
            let block = self.forge.extend(&mut self.honest, plan);
            self.ledger.enter(&block, true);
            self.chain.write().extend([&block]);
            self.past.push_back(self.honest.clone());
        }
        while self.past.len() > REMEMBERED {
            self.past.pop_front();
        }
        self.note(|| format!("the honest chain grows by {blocks}"));
        self.announce();
    }

    /// Replaces the last `depth` blocks of the honest chain (as far as they are remembered, never below
    /// block 110) by `depth + longer` others.
    pub fn reorg(&mut self, depth: usize, longer: u32, inputs: usize) {
        let depth = depth.min(self.past.len() - 1);
        self.past.truncate(self.past.len() - depth);
        if let Some(fork) = self.past.back() {
            self.honest = fork.clone();
        }
        self.note(|| format!("a reorg, {depth} deep"));
        self.extend(depth as u32 + longer.max(1), inputs);
    }

    /// Makes a chain that leaves the honest one `depth` blocks below its tip (at least 2), is `longer` blocks
    /// longer than it is now, and has this flaw in its second block. Answers its number for
    /// [`Serves::Fork`]. With a flaw, every block from the second on is invalid.
    pub fn fork_off(&mut self, depth: usize, longer: u32, flaw: Flaw) -> usize {
        let depth = depth.clamp(2, (self.past.len() - 1).max(2)).min(self.past.len() - 1);
        let mut branch = self.past[self.past.len() - 1 - depth].clone();
        let mut fork = ServedChain::new(&self.params.genesis);
        let chain = self.chain.read();
        for height in 1..=branch.tip.height {
            let block =
                chain.at(height).and_then(|raw| bitcoin::consensus::deserialize::<Block>(raw.bytes()).ok());
            fork.extend(&block);
        }
        drop(chain);
        for index in 0..depth as u32 + longer {
            let flawed = index == 1 && flaw != Flaw::None;
            branch.time = paced(branch.time, self.begin + self.now / 1_000);
            let block = if flawed {
                self.flawed(&mut branch, flaw)
            } else {
                self.forge.extend(&mut branch, BlockPlan::default())
            };
            self.ledger.enter(&block, !flawed);
            fork.extend([&block]);
        }
        self.forks.push(Arc::new(RwLock::new(fork)));
        self.note(|| format!("a fork to height {}, {flaw:?}", branch.tip.height));
        self.forks.len() - 1
    }

    /// Changes what a peer does and serves, for connections to come.
    pub fn set_peer(&mut self, peer: usize, plan: PeerPlan) {
        self.peers[peer].plan = plan;
    }

    /// Ends all connections of a peer, which is not to be reached for so many milliseconds.
    pub fn take_away(&mut self, peer: usize, millis: u64) {
        self.peers[peer].away_until = self.now + millis;
        self.note(|| format!("peer {peer} is away for {millis} ms"));
        for node in 0..self.nodes.len() {
            let number = self.nodes[node].number;
            let Some(life) = &self.nodes[node].life else { continue };
            let ids: Vec<PeerId> =
                life.links.iter().filter(|(_, link)| link.peer == peer).map(|(id, _)| *id).collect();
            for id in ids {
                self.later(0, Happening::PeerLeft(node, number, id));
            }
        }
    }

    /// Ends a node at once; it begins again two seconds later from what its disk then holds.
    pub fn kill(&mut self, node: usize, how: Crash) {
        self.note(|| format!("node {node}: {how:?}"));
        let SimNode { disk, life, number, fuse, .. } = &mut self.nodes[node];
        (*life, *fuse) = (None, None);
        *number += 1;
        let number = *number;
        disk.crash(how, &mut self.rng);
        self.later(REBIRTH, Happening::Birth(node, number));
    }

    /// Lets a node die between two outputs of its engine: after so many more.
    pub fn kill_at_output(&mut self, node: usize, outputs: u64, how: Crash) {
        self.nodes[node].fuse = Some((outputs, how));
    }

    /// Lays a fault on a write of a node's disk, counted from now. A node that dies of it dies so.
    pub fn strike_disk(&mut self, node: usize, writes: u64, fault: DiskFault, death: Crash) {
        let node = &mut self.nodes[node];
        node.disk.strike(node.disk.writes() + 1 + writes, fault);
        node.death = death;
    }

    /// Makes a node's Unix clock wrong by so many seconds; its timers run on.
    pub fn set_clock(&mut self, node: usize, seconds: i64) {
        self.note(|| format!("node {node}: the clock is wrong by {seconds} s"));
        self.nodes[node].clock = seconds;
    }

    /// Asks a node to shut down in order; it begins again two seconds after its end.
    pub fn shut_down(&mut self, node: usize) {
        if let Some(life) = &mut self.nodes[node].life {
            life.stopping = true;
            self.input(node, Input::Shutdown);
        }
    }

    // ---- what the test sees ----

    /// Milliseconds since the world began.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The first broken invariant:
    ///
    /// 1. No block is proved, committed or reported that the [`Ledger`] does not hold for valid.
    /// 2. After each commit and each start the store holds exactly the coins of its tip, and no flush that
    ///    was cut short; a start loses no commit that was reported.
    ///    What a host is told of a coin is true at the tip that the answer names.
    /// 3. Every `Apply` has its parent applied, every `Undo` is of the last applied block, and what is told
    ///    survives a loss of power.
    /// 4. What the engine and the chainstate hold stays within [`crate::limits`] and the budgets.
    /// 5. No peer that broke no rule is held for hostile.
    /// 6. A pruned node keeps the blocks that it has to, and leaves no consumer behind that keeps up.
    /// 7. A node ends only if its host or its disk is the cause, or a reorg deeper than it keeps; it does not spin.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// What is true.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The tip of the honest chain.
    pub fn tip(&self) -> BlockRef {
        self.honest.tip
    }

    /// The number of nodes.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// The engine of a node that lives.
    pub fn engine(&self, node: usize) -> Option<&Engine> {
        self.nodes[node].life.as_ref().map(|life| &life.engine)
    }

    /// A node's disk.
    pub fn disk(&self, node: usize) -> &SimDisk {
        &self.nodes[node].disk
    }

    /// The lives that a node has begun, less one.
    pub fn deaths(&self, node: usize) -> u64 {
        self.nodes[node].number
    }

    /// Events that a node's consumer has got.
    pub fn events(&self, node: usize) -> u64 {
        self.nodes[node].events
    }

    /// What a node's lives had learnt of peers when it was last saved.
    pub fn scores(&self, node: usize) -> Option<&[u8]> {
        self.nodes[node].scores.as_deref()
    }

    /// The peers that a node replaced for their low scores, in all its lives.
    pub fn replaced(&self, node: usize) -> &[AuditRecord] {
        &self.nodes[node].replaced
    }

    /// Whether a node's durable tip is the honest chain's tip, and its consumer has been told.
    pub fn is_synced(&self, node: usize) -> bool {
        let synced = self.engine(node).is_some_and(|engine| engine.status().durable == self.honest.tip);
        synced && self.nodes[node].cursor == Some(self.honest.tip)
    }

    // ---- time ----

    /// Lets so many milliseconds pass.
    pub fn run(&mut self, millis: u64) {
        self.run_until(millis, |_| false);
    }

    /// Runs until the condition holds (true), or so many milliseconds have passed or an invariant is broken
    /// (false).
    pub fn run_until(&mut self, millis: u64, until: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + millis;
        loop {
            if self.violation.is_some() {
                return false;
            }
            if until(self) {
                return true;
            }
            if !self.step(end) {
                self.now = end;
                return false;
            }
        }
    }

    /// The next step, if there is one before `end`.
    fn step(&mut self, end: u64) -> bool {
        let happening = self.happenings.first_key_value().map(|((at, _), _)| *at);
        let deadlines = self.nodes.iter().enumerate();
        let wake = deadlines.filter_map(|(n, node)| Some((node.life.as_ref()?.deadline?, n))).min();
        let next = happening.into_iter().chain(wake.map(|(at, _)| at)).min();
        let Some(next) = next.filter(|next| *next <= end) else { return false };
        self.steps_now = if next > self.now { 0 } else { self.steps_now + 1 };
        self.now = self.now.max(next);
        self.steps += 1;
        if self.steps_now > MAX_STEPS_AT_ONCE {
            let node = wake.map_or(0, |(_, node)| node);
            self.violate(node, "no spinning", format!("{MAX_STEPS_AT_ONCE} steps at {next} ms"));
            return false;
        }
        match wake {
            Some((at, node)) if happening.is_none_or(|happening| at < happening) => {
                self.input(node, Input::Timer);
                self.forbid_spinning(node, at);
            }
            _ => {
                if let Some((_, happening)) = self.happenings.pop_first() {
                    self.happen(happening);
                }
            }
        }
        true
    }

    fn forbid_spinning(&mut self, node: usize, was: u64) {
        let deadline = self.nodes[node].life.as_ref().and_then(|life| life.deadline);
        if deadline.is_some_and(|deadline| deadline <= was && deadline < self.now) {
            self.violate(node, "no spinning", format!("the deadline stays at {was} ms"));
        }
    }

    fn later(&mut self, wait: u64, what: Happening) {
        self.at(self.now + wait, what);
    }

    fn at(&mut self, at: u64, what: Happening) {
        self.sequence += 1;
        self.happenings.insert((at, self.sequence), what);
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            if trace.len() >= TRACE_LINES {
                trace.pop_front();
            }
            trace.push_back(format!("{:>10} {}", self.now, line()));
        }
    }

    fn violate(&mut self, node: usize, invariant: &'static str, detail: String) {
        self.note(|| format!("node {node}: BROKEN: {invariant}: {detail}"));
        let violation = Violation { at: self.now, node, invariant, detail };
        self.violation.get_or_insert(violation);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Birth(node, number) => {
                if self.nodes[node].number == number && self.nodes[node].life.is_none() {
                    self.give_birth(node);
                }
            }
            Happening::Knock(node, number, peer) => {
                if self.lives(node, number) {
                    self.knock(node, peer);
                }
            }
            Happening::Input(node, number, input) => {
                if self.lives(node, number) && self.concerns_a_link(node, &input) {
                    self.input(node, input);
                }
            }
            Happening::FromPeer(node, number, id, message, bytes) => {
                if self.lives(node, number) {
                    self.arrive(node, id, message, bytes);
                }
            }
            Happening::PeerLeft(node, number, id) => {
                if self.lives(node, number)
                    && let Some(life) = &mut self.nodes[node].life
                    && let Some(link) = life.links.get_mut(&id)
                {
                    link.ended = true;
                    self.settle(node);
                }
            }
            Happening::ToPeer(node, number, id, message) => {
                if self.lives(node, number) {
                    self.hear(node, id, message);
                }
            }
            Happening::Command(node, number) => {
                if self.lives(node, number)
                    && let Some(life) = &mut self.nodes[node].life
                    && let Some(command) = life.commands.pop_front()
                {
                    life.chainstate.submit(command);
                    self.after_work(node);
                }
            }
            Happening::Job(node, number, job) => {
                if self.lives(node, number)
                    && let Some(life) = &mut self.nodes[node].life
                    && let Some(completion) = life.completions.remove(&job)
                {
                    life.chainstate.complete(completion);
                    self.after_work(node);
                }
            }
        }
    }

    fn lives(&self, node: usize, number: u64) -> bool {
        self.nodes[node].number == number && self.nodes[node].life.is_some()
    }

    fn concerns_a_link(&self, node: usize, input: &Input) -> bool {
        let Some(life) = &self.nodes[node].life else { return false };
        match input {
            Input::Connected(id) => life.links.contains_key(id),
            Input::Progress(id, _) => {
                life.links.get(id).is_some_and(|link| link.held.is_empty() && life.engine.may_read(*id))
            }
            _ => true,
        }
    }

    // ---- forging ----

    /// The next block of a branch, with a flaw.
    fn flawed(&mut self, branch: &mut Branch, flaw: Flaw) -> Block {
        let victim = branch.coins.iter().position(|coin| coin.kind != super::wallet::OutputKind::Anchor);
        match (flaw, victim) {
            (Flaw::Signature, Some(victim)) => {
                let mut coin = branch.coins.swap_remove(victim);
                coin.key = (coin.key + 1) % self.forge.wallet().key_sets();
                let (tx, _, fee) = self.forge.spend(&[coin], 1);
                self.forge.extend_with(branch, vec![tx], fee)
            }
            (Flaw::DoubleSpend, Some(victim)) => {
                let coin = branch.coins.swap_remove(victim);
                let (first, _, fee) = self.forge.spend(core::slice::from_ref(&coin), 1);
                let (second, _, more) = self.forge.spend(&[coin], 2);
                self.forge.extend_with(branch, vec![first, second], fee + more)
            }
            _ => {
                let mut block = self.forge.extend(branch, BlockPlan::default());
                block.txdata[0].output[0].value += Amount::ONE_SAT;
                mine(&mut block);
                branch.tip.hash = block.block_hash();
                block
            }
        }
    }
}

/// The time of a branch's last block as the forge has to see it, so that the next is ten minutes later but not
/// from the future.
fn paced(last: u32, now: u64) -> u32 {
    let next = (last + SPACING).min(u32::try_from(now).unwrap_or(u32::MAX)).max(last + 1);
    next - SPACING
}

/// The first words of a value, for the trace.
fn brief(value: &impl core::fmt::Debug) -> String {
    let mut text = format!("{value:?}");
    if let Some((end, _)) = text.char_indices().nth(160) {
        text.truncate(end);
    }
    text
}
