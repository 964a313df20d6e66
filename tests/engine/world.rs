//! A world for one engine: virtual time, peers in memory, a chainstate that keeps books instead of coins.
//!
//! Everything happens in the order of (time, number of the event), so that a world is repeated exactly by
//! its seed.

use bitcoin::hashes::Hash;
use bitcoin::{Block, BlockHash};
use headlong::chain::block_tree::BlockTree;
use headlong::chain::command::{
    BlockRef, ChainCommand, ChainReport, HeaderMark, RawBlock, RollbackCheckpoint,
};
use headlong::chain::params::{Network, Params};
use headlong::chainstate::Chainstate;
use headlong::engine::output::Event;
use headlong::engine::status::Status;
use headlong::engine::{Answer, Engine, EngineConfig, Input, Output, Query, QueryId};
use headlong::error::{Reject, RejectKind};
use headlong::peer::lifecycle::{PeerState, TRANSITIONS};
use headlong::peer::{CloseReason, PeerAddress, PeerId};
use headlong::sim::forge::{BlockPlan, Branch, Forge};
use headlong::sim::serve::{ServedChain, Session};
use headlong::sync::diagnosis::Figures;
use headlong::time::Now;
use headlong::wire::Message;
use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Unix seconds when a world begins.
pub const BEGIN: u64 = 1_790_000_000;

pub fn params() -> Arc<Params> {
    Arc::new(Params::new(Network::Regtest))
}

/// A chain of `count` blocks that ends ten hours before the world begins.
pub fn chain(forge: &mut Forge, count: u32) -> (Branch, Vec<Block>) {
    // Ten hours ago, so that what is built on top is not from the future.
    let first = BEGIN as u32 - 600 * count - 36_000;
    let mut branch = forge.genesis(Some(first));
    let blocks = extend(forge, &mut branch, count);
    (branch, blocks)
}

pub fn extend(forge: &mut Forge, branch: &mut Branch, count: u32) -> Vec<Block> {
    (0..count).map(|_| forge.extend(branch, BlockPlan::default())).collect()
}

pub fn address(n: u8) -> PeerAddress {
    // One network group each.
    PeerAddress::Ip(([9, n, 0, 1], 8333).into())
}

/// How a peer differs from an honest one.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    /// Milliseconds for a message either way.
    pub latency: u64,
    /// Milliseconds to send one block.
    pub block_time: u64,
    /// Says nothing more after so many blocks.
    pub silent_after: Option<u32>,
    /// Closes after so many blocks.
    pub leaves_after: Option<u32>,
    /// Sends this block with a changed body.
    pub mutates: Option<BlockHash>,
    /// Sends our version back.
    pub mirror: bool,
    /// Does not care for `sendheaders`.
    pub by_inv: bool,
    /// Accepts the connection and says nothing.
    pub mute: bool,
    /// Nobody is there.
    pub absent: bool,
    /// Says this right after its verack.
    pub after_verack: Vec<Message>,
    /// Says this before anything else.
    pub before_version: Vec<Message>,
    /// Answers no pings.
    pub deaf: bool,
}

struct Remote {
    chain: Arc<RwLock<ServedChain>>,
    manner: Manner,
    blocks_sent: u32,
    busy_until: u64,
    silent: bool,
}

/// What keeps the books: which body is stored, which block is the tip, what is durable.
pub struct Books {
    pub stored: BTreeSet<BlockHash>,
    pub tip: BlockRef,
    pub parents: BTreeMap<BlockHash, BlockRef>,
    pub durable: BlockRef,
    pub last: Option<RollbackCheckpoint>,
    /// Blocks that fail when they are connected.
    pub invalid: BTreeSet<BlockHash>,
    pub marks: Vec<(BlockHash, HeaderMark)>,
    pub headers: Vec<bitcoin::block::Header>,
    /// Commands in the order they came, by name.
    pub log: Vec<String>,
    /// Bodies are not looked at, and answered only by hand.
    pub hold_stores: bool,
    pub held: Vec<BlockRef>,
    /// Milliseconds for a command.
    pub delay: u64,
}

impl Books {
    pub fn new(genesis: BlockRef) -> Self {
        Self {
            stored: BTreeSet::from([genesis.hash]),
            tip: genesis,
            parents: BTreeMap::new(),
            durable: genesis,
            last: None,
            invalid: BTreeSet::new(),
            marks: Vec::new(),
            headers: Vec::new(),
            log: Vec::new(),
            hold_stores: false,
            held: Vec::new(),
            delay: 1,
        }
    }

    pub fn carry_out(&mut self, command: ChainCommand) -> Vec<ChainReport> {
        match command {
            ChainCommand::SaveHeaders(headers) => {
                for header in headers {
                    let parent = header.prev_blockhash;
                    let known = self.headers.iter().rev().any(|other| other.block_hash() == parent);
                    assert!(known || parent == params().genesis_hash(), "headers are saved parents first");
                    self.headers.push(header);
                }
                vec![]
            }
            ChainCommand::SaveMark(hash, mark) => {
                self.marks.push((hash, mark));
                vec![]
            }
            ChainCommand::StoreBlock(context, raw) => {
                self.log.push(format!("store {}", context.height));
                assert_eq!(context.hash, raw.hash());
                self.parents
                    .insert(context.hash, BlockRef { height: context.height - 1, hash: context.prev });
                if self.hold_stores {
                    self.held.push(context.block());
                    return vec![];
                }
                let block: Block = bitcoin::consensus::deserialize(raw.bytes()).expect("a block");
                if !block.check_merkle_root() {
                    let reject = Reject::new(RejectKind::Mutated, "bad-txnmrklroot");
                    return vec![ChainReport::Refused { block: context.block(), reject }];
                }
                assert!(self.stored.insert(context.hash), "a stored block is not stored again");
                vec![ChainReport::Stored { block: context.block(), transactions: 1 }]
            }
            ChainCommand::Connect(context) => {
                self.log.push(format!("connect {}", context.height));
                let block = context.block();
                vec![if context.prev != self.tip.hash || !self.stored.contains(&block.hash) {
                    ChainReport::Dropped { block, lost: !self.stored.contains(&block.hash) }
                } else if self.invalid.contains(&block.hash) {
                    ChainReport::Invalid {
                        block,
                        reject: Reject::consensus("bad-txns-inputs-missingorspent"),
                    }
                } else {
                    self.tip = block;
                    ChainReport::Connected { block, inputs: 0, transactions: 1 }
                }]
            }
            ChainCommand::Disconnect(block) => {
                self.log.push(format!("disconnect {}", block.height));
                assert_eq!(block, self.tip, "only the tip is disconnected");
                self.tip = self.parents[&block.hash];
                vec![ChainReport::Disconnected { block, tip: self.tip }]
            }
            ChainCommand::Commit { time } => {
                self.log.push(format!("commit {}", self.tip.height));
                if self.tip == self.durable {
                    let last = self.last.clone().expect("a first commit changes something");
                    return vec![ChainReport::Committed(last)];
                }
                let checkpoint = RollbackCheckpoint::next(self.last.as_ref(), time, self.durable, self.tip);
                self.durable = self.tip;
                self.last = Some(checkpoint.clone());
                vec![ChainReport::CheckpointDurable(checkpoint.clone()), ChainReport::Committed(checkpoint)]
            }
            // Answered by hand.
            ChainCommand::ReadBlock(_) => vec![],
            other => panic!("unexpected command {other:?}"),
        }
    }
}

enum Happening {
    ToEngine(Input),
    ToRemote(PeerId, Message),
}

pub struct World {
    pub now: u64,
    pub engine: Engine,
    pub books: Books,
    /// The real thing, in place of the books.
    chainstate: Option<Chainstate>,
    remotes: BTreeMap<PeerAddress, Remote>,
    links: BTreeMap<PeerId, (PeerAddress, Session)>,
    events: BTreeMap<(u64, u64), Happening>,
    sequence: u64,
    deadline: Option<u64>,
    pub wakes: u64,
    pub dials: Vec<PeerAddress>,
    pub closed: Vec<(PeerAddress, CloseReason)>,
    pub resolved: Vec<String>,
    pub status: Vec<Status>,
    pub stopped: Option<BlockRef>,
    pub reached: Option<BlockRef>,
    pub fatal: Option<String>,
    pub events_ready: u32,
    /// The states that each connection came into.
    pub states: BTreeMap<PeerId, Vec<PeerState>>,
    pub answer: Option<Answer>,
    pub saved: Option<Vec<u8>>,
    /// Every output, as text.
    pub outputs: Vec<String>,
}

pub fn config(peers: &[u8]) -> EngineConfig {
    EngineConfig {
        peers: peers.iter().map(|n| address(*n)).collect(),
        automatic: false,
        dns_seeds: false,
        ..EngineConfig::default()
    }
}

impl World {
    pub fn new(config: EngineConfig, seed: u8) -> Self {
        let params = params();
        let tree = BlockTree::new(params.clone(), [1, 2]);
        let genesis = BlockRef { height: 0, hash: params.genesis_hash() };
        let engine = Engine::new(config, tree, genesis, None, [seed; 32]).expect("a fresh start");
        Self::with(engine, Books::new(genesis))
    }

    /// A world with a real chainstate.
    #[cfg(feature = "consensus")]
    pub fn with_chainstate(engine: Engine, chainstate: Chainstate) -> Self {
        let genesis = BlockRef { height: 0, hash: params().genesis_hash() };
        Self { chainstate: Some(chainstate), ..Self::with(engine, Books::new(genesis)) }
    }

    pub fn with(engine: Engine, books: Books) -> Self {
        Self {
            now: 0,
            engine,
            books,
            chainstate: None,
            remotes: BTreeMap::new(),
            links: BTreeMap::new(),
            events: BTreeMap::new(),
            sequence: 0,
            deadline: Some(0),
            wakes: 0,
            dials: Vec::new(),
            closed: Vec::new(),
            resolved: Vec::new(),
            status: Vec::new(),
            stopped: None,
            reached: None,
            fatal: None,
            events_ready: 0,
            states: BTreeMap::new(),
            answer: None,
            saved: None,
            outputs: Vec::new(),
        }
    }

    /// Adds a peer that serves this chain.
    pub fn serve(&mut self, n: u8, chain: &Arc<RwLock<ServedChain>>, manner: Manner) {
        let remote = Remote { chain: chain.clone(), manner, blocks_sent: 0, busy_until: 0, silent: false };
        self.remotes.insert(address(n), remote);
    }

    /// Lets all connected peers tell of their new tips.
    pub fn announce(&mut self) {
        let mut news = Vec::new();
        for (id, (address, session)) in &mut self.links {
            if let Some(message) = session.announce() {
                news.push((*id, address.clone(), message));
            }
        }
        for (id, address, message) in news {
            let latency = self.remotes[&address].manner.latency;
            self.later(latency, Happening::ToEngine(Input::Received(id, message, 100)));
        }
    }

    pub fn input(&mut self, input: Input) {
        self.engine.handle(self.clock(), input);
        self.drain();
    }

    pub fn ask(&mut self, query: Query) -> Answer {
        self.input(Input::Query(QueryId(1), query));
        self.answer.take().expect("every query is answered at once")
    }

    /// All events after a cursor, fetched in small pieces.
    pub fn events_after(&mut self, mut cursor: Option<BlockRef>) -> Vec<Event> {
        let mut all = Vec::new();
        loop {
            let Answer::Events(events) = self.ask(Query::Events(cursor, 7)) else { panic!("unknown cursor") };
            match events.last() {
                None => return all,
                Some(Event::Apply(block, _)) => cursor = Some(*block),
                Some(Event::Undo(_, header)) => {
                    let height = match events.last() {
                        Some(Event::Undo(block, _)) => block.height - 1,
                        _ => unreachable!(),
                    };
                    cursor = Some(BlockRef { height, hash: header.prev_blockhash });
                }
                Some(other) => panic!("unknown event {other:?}"),
            }
            all.extend(events);
        }
    }

    pub fn link(&self, n: u8) -> Option<PeerId> {
        self.links.iter().find(|(_, (a, _))| *a == address(n)).map(|(id, _)| *id)
    }

    pub fn links_are_closed(&self) -> bool {
        self.links.is_empty()
    }

    pub fn clock(&self) -> Now {
        Now::new(self.now, BEGIN + self.now / 1_000)
    }

    fn later(&mut self, wait: u64, what: Happening) {
        self.sequence += 1;
        self.events.insert((self.now + wait, self.sequence), what);
    }

    /// Runs until the condition holds (true), or nothing is left to happen within `limit` milliseconds.
    pub fn run(&mut self, limit: u64, until: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            if until(self) {
                return true;
            }
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = [event, self.deadline].into_iter().flatten().min().filter(|at| *at <= end)
            else {
                self.now = end;
                return until(self);
            };
            self.now = self.now.max(next);
            if event.is_some_and(|at| at <= self.now) {
                let (_, happening) = self.events.pop_first().expect("just seen");
                self.happen(happening);
            } else {
                self.wakes += 1;
                self.engine.handle(self.clock(), Input::Timer);
                self.drain();
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::ToEngine(input) => {
                let wanted = match &input {
                    Input::Received(id, ..) => self.links.contains_key(id),
                    _ => true,
                };
                if wanted {
                    self.engine.handle(self.clock(), input);
                    self.drain();
                }
            }
            Happening::ToRemote(id, message) => self.remote(id, message),
        }
    }

    fn remote(&mut self, id: PeerId, message: Message) {
        let Some((address, session)) = self.links.get_mut(&id) else { return };
        let remote = self.remotes.get_mut(address).expect("a link leads to a peer");
        let manner = remote.manner.clone();
        if remote.silent || manner.mute || (manner.deaf && matches!(message, Message::Ping(_))) {
            return;
        }
        let answers = match message {
            Message::SendHeaders if manner.by_inv => vec![],
            Message::Version(version) if manner.mirror => vec![Message::Version(version), Message::Verack],
            Message::Version(version) => {
                let mut all = manner.before_version.clone();
                all.extend(session.on_message(Message::Version(version)));
                all.extend(manner.after_verack.clone());
                all
            }
            message => session.on_message(message),
        };
        for mut answer in answers {
            let mut wait = manner.latency;
            let mut bytes = 24;
            if let Message::Block(raw) = &mut answer {
                if manner.leaves_after.is_some_and(|n| remote.blocks_sent >= n) {
                    self.links.remove(&id);
                    self.later(wait, Happening::ToEngine(Input::Closed(id)));
                    return;
                }
                if manner.silent_after.is_some_and(|n| remote.blocks_sent >= n) {
                    remote.silent = true;
                    return;
                }
                remote.blocks_sent += 1;
                bytes += raw.bytes().len();
                remote.busy_until = remote.busy_until.max(self.now) + manner.block_time;
                wait += remote.busy_until - self.now;
                if manner.mutates == Some(raw.hash()) {
                    let mut changed = raw.bytes().to_vec();
                    let last = changed.len() - 1;
                    changed[last] ^= 1;
                    *raw = RawBlock::new(changed).expect("a header");
                }
            }
            self.sequence += 1;
            let what = Happening::ToEngine(Input::Received(id, answer, bytes));
            self.events.insert((self.now + wait, self.sequence), what);
        }
    }

    fn drain(&mut self) {
        loop {
            let output = self.engine.poll_output();
            if let Output::Idle { deadline } = output {
                self.deadline = deadline.map(|at| at.as_millis());
                return;
            }
            self.outputs.push(format!("{} {output:?}", self.now));
            self.carry_out(output);
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Dial { peer: id, address, .. } => {
                self.dials.push(address.clone());
                match self.remotes.get_mut(&address) {
                    Some(remote) if !remote.manner.absent => {
                        let session = Session::new(remote.chain.clone(), 1_000 + id.0);
                        let latency = remote.manner.latency;
                        self.links.insert(id, (address, session));
                        self.later(latency, Happening::ToEngine(Input::Connected(id)));
                    }
                    _ => self.later(5, Happening::ToEngine(Input::DialFailed(id, "refused".into()))),
                }
            }
            Output::Send(id, message) | Output::Tell(id, message) => {
                let Some((address, _)) = self.links.get(&id) else { return };
                let latency = self.remotes[address].manner.latency;
                self.later(latency, Happening::ToRemote(id, message));
            }
            Output::Close(id, reason) => {
                if let Some((address, _)) = self.links.remove(&id) {
                    self.closed.push((address, reason));
                }
            }
            Output::Resolve(name, _) => self.resolved.push(name),
            Output::Command(command) => {
                let reports = match &mut self.chainstate {
                    None => self.books.carry_out(command),
                    Some(chainstate) => {
                        chainstate.submit(command);
                        chainstate.settle();
                        std::iter::from_fn(|| chainstate.poll()).collect()
                    }
                };
                for report in reports {
                    let delay = self.books.delay;
                    self.later(delay, Happening::ToEngine(Input::Chain(report)));
                }
            }
            Output::SaveAddresses(book) => self.saved = Some(book),
            Output::Answer(_, answer) => self.answer = Some(answer),
            Output::PeerChanged(change) => {
                let step = (change.from, change.event, change.to);
                assert!(TRANSITIONS.contains(&step), "{change:?}");
                self.states.entry(change.id).or_default().push(change.to);
            }
            Output::Measure => self.later(0, Happening::ToEngine(Input::Measured(Figures::default()))),
            Output::EventsReady => self.events_ready += 1,
            Output::Status(status) => self.status.push(*status),
            Output::Stopped(block) => self.stopped = Some(block),
            Output::Reached(block) => self.reached = Some(block),
            Output::Fatal(error) => self.fatal = Some(error.to_string()),
            Output::Idle { .. } => unreachable!(),
            Output::SaveScores(_) | Output::SaveUsedDay(_) | Output::Audit(_) => {}
            other => panic!("unknown output {other:?}"),
        }
    }
}

/// A served chain that holds these blocks.
pub fn served(blocks: &[Block]) -> Arc<RwLock<ServedChain>> {
    let mut chain = ServedChain::new(&params().genesis);
    chain.extend(blocks);
    Arc::new(RwLock::new(chain))
}

pub fn block_ref(height: u32, block: &Block) -> BlockRef {
    BlockRef { height, hash: block.block_hash() }
}

/// A body of so many bytes under a real header: nobody parses it on the way.
pub fn padded(block: &Block, bytes: usize) -> RawBlock {
    let mut raw = bitcoin::consensus::serialize(&block.header);
    raw.resize(bytes, 0);
    let raw = RawBlock::new(raw).expect("a header");
    assert_ne!(raw.hash(), BlockHash::all_zeros());
    raw
}
