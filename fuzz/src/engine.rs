//! The whole engine under any inputs: peers' messages, timers, reports (some that answer nothing), the
//! host's wishes. It never panics, it says `Fatal` only after reports that answer nothing, and it ends at
//! an honest peer's chain.
//!
//! Input: the configuration, then one step after the other.

use crate::base::block;
use crate::feed::Feed;
use crate::message::COMMANDS;
use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{Block, BlockHash};
use headlong::chain::block_tree::BlockTree;
use headlong::chain::command::{BlockRef, ChainCommand, ChainReport, RawBlock, RollbackCheckpoint};
use headlong::chain::params::{Network, Params};
use headlong::engine::{Engine, EngineConfig, Input, Output, Query, QueryId};
use headlong::error::{Reject, RejectKind};
use headlong::limits::MAX_LOCATOR;
use headlong::peer::{Fault, PeerAddress, PeerId};
use headlong::sim::serve::{ServedChain, Session};
use headlong::time::Now;
use headlong::wire::Message;
use headlong::wire::frame::{Command, FrameError};
use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, OnceLock};

const FIRST_TIME: u32 = 1_700_000_000;
const STEPS: usize = 150;
/// More than any input can justify.
const MOST_OUTPUTS: usize = 20_000;

struct Chains {
    params: Arc<Params>,
    blocks: Vec<RawBlock>,
    /// The longer chain first.
    served: [Arc<RwLock<ServedChain>>; 2],
}

fn chains() -> &'static Chains {
    static CHAINS: OnceLock<Chains> = OnceLock::new();
    CHAINS.get_or_init(|| {
        let params = Arc::new(Params::new(Network::Regtest));
        let grow = |chain: &[Block], count: u32, salt: u64| {
            let mut chain = chain.to_vec();
            for _ in 0..count {
                let Some(tip) = chain.last().map(|block| block.header) else { break };
                let time = tip.time.max(FIRST_TIME) + 60;
                chain.push(block(&tip, chain.len() as u32, time, salt, 1_000, Vec::new()));
            }
            chain
        };
        let short = grow(core::slice::from_ref(&params.genesis), 24, 1);
        let long = grow(&short[..13], 20, 2);
        let served = [&long, &short].map(|chain| {
            let mut served = ServedChain::new(&params.genesis);
            served.extend(&chain[1..]);
            Arc::new(RwLock::new(served))
        });
        let raw = |block: &Block| RawBlock::new(bitcoin::consensus::serialize(block)).expect("a block");
        let blocks = short.iter().chain(&long[13..]).map(raw).collect();
        Chains { params, blocks, served }
    })
}

/// A chainstate that keeps books instead of coins.
struct Books {
    parents: BTreeMap<BlockHash, BlockRef>,
    stored: BTreeSet<BlockHash>,
    tip: BlockRef,
    durable: BlockRef,
    last: Option<RollbackCheckpoint>,
    /// Whether the engine has heard nothing but the truth, and is held to what it knows.
    strict: bool,
}

impl Books {
    fn carry_out(&mut self, command: ChainCommand) -> Vec<ChainReport> {
        match command {
            ChainCommand::StoreBlock(context, raw) => {
                let block = context.block();
                let good = bitcoin::consensus::deserialize::<Block>(raw.bytes())
                    .is_ok_and(|block| block.check_merkle_root());
                if !good {
                    let reject = Reject::new(RejectKind::Mutated, "bad-txnmrklroot");
                    return vec![ChainReport::Refused { block, reject }];
                }
                let parent = BlockRef { height: context.height - 1, hash: context.prev };
                self.parents.insert(context.hash, parent);
                self.stored.insert(context.hash);
                vec![ChainReport::Stored { block, transactions: 1 }]
            }
            ChainCommand::Connect(context) => {
                let block = context.block();
                let lost = !self.stored.contains(&block.hash);
                if context.prev != self.tip.hash || lost {
                    return vec![ChainReport::Dropped { block, lost }];
                }
                self.tip = block;
                vec![ChainReport::Connected { block, inputs: 0, transactions: 1 }]
            }
            ChainCommand::Disconnect(block) => {
                assert!(!self.strict || block == self.tip, "only the tip is disconnected");
                if block != self.tip || !self.parents.contains_key(&block.hash) {
                    return vec![];
                }
                self.tip = self.parents[&block.hash];
                vec![ChainReport::Disconnected { block, tip: self.tip }]
            }
            ChainCommand::Commit { time } => match &self.last {
                Some(last) if self.tip == self.durable => vec![ChainReport::Committed(last.clone())],
                last => {
                    let next = RollbackCheckpoint::next(last.as_ref(), time, self.durable, self.tip);
                    self.durable = self.tip;
                    self.last = Some(next.clone());
                    vec![ChainReport::CheckpointDurable(next.clone()), ChainReport::Committed(next)]
                }
            },
            ChainCommand::ReadBlock(hash) => vec![ChainReport::Read(hash, None)],
            _ => vec![],
        }
    }
}

struct World {
    engine: Engine,
    books: Books,
    now: u64,
    unix: u64,
    deadline: Option<u64>,
    dialled: Vec<(PeerId, PeerAddress)>,
    fresh_dials: VecDeque<(PeerId, PeerAddress)>,
    /// Connections that the engine knows of; what the other side has to say.
    links: BTreeMap<PeerId, (Session, VecDeque<Message>)>,
    commands: VecDeque<ChainCommand>,
    /// Something was reported that answers nothing.
    lied: bool,
    /// The host called something invalid, or wants to stop.
    meddled: bool,
    over: bool,
}

pub fn run(data: &[u8]) {
    let mut feed = Feed::new(data);
    let mut world = World::new(&mut feed);
    world.input(Input::Timer);
    for _ in 0..STEPS {
        if feed.is_empty() || world.over {
            break;
        }
        world.step(&mut feed);
    }
    if !(world.over || world.lied || world.meddled) {
        world.sync_with_honest();
    }
}

fn address(n: u8) -> PeerAddress {
    PeerAddress::Ip(([9, n, 0, 1], 8333).into())
}

impl World {
    fn new(feed: &mut Feed<'_>) -> Self {
        let setting = feed.u8();
        let config = EngineConfig {
            peers: (0..setting % 4).map(address).collect(),
            automatic: setting & 4 == 0,
            dns_seeds: false,
            stop_at_height: (setting & 0x38 == 0x38).then_some(60),
            ..EngineConfig::default()
        };
        let params = chains().params.clone();
        let genesis = BlockRef { height: 0, hash: params.genesis_hash() };
        let tree = BlockTree::new(params, [1, 2]);
        let seed = [feed.u8(); 32];
        let engine = Engine::new(config, tree, genesis, None, seed).expect("a fresh start");
        let books = Books {
            parents: BTreeMap::new(),
            stored: BTreeSet::from([genesis.hash]),
            tip: genesis,
            durable: genesis,
            last: None,
            strict: true,
        };
        let age = if setting & 64 == 0 { 600 } else { 30 * 86_400 };
        Self {
            engine,
            books,
            now: 0,
            unix: u64::from(FIRST_TIME) + 60 * 32 + age,
            deadline: None,
            dialled: Vec::new(),
            fresh_dials: VecDeque::new(),
            links: BTreeMap::new(),
            commands: VecDeque::new(),
            lied: false,
            meddled: false,
            over: false,
        }
    }

    fn input(&mut self, input: Input) {
        let now = Now::new(self.now, self.unix + self.now / 1_000);
        self.engine.handle(now, input);
        for count in 0.. {
            assert!(count < MOST_OUTPUTS, "one input causes too much");
            match self.engine.poll_output() {
                Output::Dial { peer: id, address, .. } => {
                    self.dialled.push((id, address.clone()));
                    self.fresh_dials.push_back((id, address));
                    let chain = chains().served[(id.0 % 2) as usize].clone();
                    self.links.insert(id, (Session::new(chain, id.0 + 1), VecDeque::new()));
                }
                Output::Send(id, message) | Output::Tell(id, message) => {
                    if let Message::GetHeaders(request) = &message {
                        assert!(request.locator_hashes.len() <= MAX_LOCATOR);
                    }
                    let (session, answers) = self.links.get_mut(&id).expect("only to who is connected");
                    answers.extend(session.on_message(message));
                }
                Output::Close(id, _) => {
                    assert!(self.links.remove(&id).is_some(), "only who is connected is closed");
                }
                Output::Command(command) => self.commands.push_back(command),
                Output::Fatal(error) => {
                    assert!(self.lied, "{error}");
                    self.over = true;
                }
                Output::Stopped(tip) => {
                    assert!(self.lied || tip == self.books.durable);
                    self.over = true;
                }
                Output::Idle { deadline } => {
                    self.deadline = deadline.map(|at| at.as_millis());
                    break;
                }
                _ => {}
            }
        }
    }

    fn gone(&mut self, id: PeerId, input: Input) {
        if self.links.remove(&id).is_some() {
            self.input(input);
        }
    }

    fn received(&mut self, id: PeerId, message: Message) {
        let bytes = 24 + 81;
        self.input(Input::Received(id, message, bytes));
    }

    /// Delivers what the other side has to say next.
    fn deliver(&mut self, id: PeerId) -> bool {
        let Some(message) = self.links.get_mut(&id).and_then(|(_, answers)| answers.pop_front()) else {
            return false;
        };
        if self.engine.may_read(id) {
            self.received(id, message);
        } else if let Some((_, answers)) = self.links.get_mut(&id) {
            answers.push_front(message);
            return false;
        }
        true
    }

    fn carry_out(&mut self) -> bool {
        let Some(command) = self.commands.pop_front() else { return false };
        for report in self.books.carry_out(command) {
            self.input(Input::Chain(report));
        }
        true
    }

    fn peer(&self, feed: &mut Feed<'_>) -> PeerId {
        let at = feed.below(self.dialled.len() + 1);
        self.dialled.get(at).map_or(PeerId(at as u64), |(id, _)| *id)
    }

    fn step(&mut self, feed: &mut Feed<'_>) {
        match feed.u8() % 24 {
            0 => {
                self.now = self.deadline.map_or(self.now, |at| self.now.max(at));
                self.input(Input::Timer);
            }
            1 => {
                self.now += u64::from(feed.u8()) * 100;
                self.input(Input::Timer);
            }
            2 => {
                self.now += u64::from(feed.u16()) * 1_000;
                self.input(Input::Timer);
            }
            3 | 4 => {
                let id = self.peer(feed);
                self.input(Input::Connected(id));
            }
            5 => {
                let id = self.peer(feed);
                let failed = Input::DialFailed(id, "refused".into());
                self.gone(id, if feed.bool() { Input::Closed(id) } else { failed });
            }
            6..=8 => {
                let id = self.peer(feed);
                for _ in 0..=feed.u8() % 8 {
                    self.deliver(id);
                }
            }
            9 | 10 => {
                for _ in 0..=feed.u8() % 32 {
                    self.carry_out();
                }
            }
            11..=17 => {
                let id = self.peer(feed);
                let message = message(feed);
                self.received(id, message);
            }
            18 => {
                let id = self.peer(feed);
                self.input(match feed.u8() % 3 {
                    0 => Input::Progress(id, feed.u64()),
                    1 => Input::Flushed(id, feed.u32() as usize),
                    _ => Input::Progress(id, u64::from(feed.u16())),
                });
            }
            19 => {
                let id = self.peer(feed);
                let connected = self.links.contains_key(&id);
                self.input(Input::Faulted(id, Fault::Wire(FrameError::Command)));
                assert!(!connected || self.over || !self.links.contains_key(&id));
            }
            20 => self.addresses(feed),
            21 => {
                let hash = hash(feed);
                let block = BlockRef { height: u32::from(feed.u8()), hash };
                self.input(Input::Query(
                    QueryId(1),
                    match feed.u8() % 5 {
                        0 => Query::HeaderByHash(hash),
                        1 => Query::HeaderByHeight(feed.u32()),
                        2 => Query::Peers,
                        3 => Query::Events(Some(block), usize::from(feed.u8())),
                        _ => Query::Events(None, feed.u32() as usize),
                    },
                ));
            }
            22 => {
                if feed.u8().is_multiple_of(4) {
                    self.meddled = true;
                    let hash = hash(feed);
                    self.input(if feed.bool() { Input::Invalidate(hash) } else { Input::Reconsider(hash) });
                }
            }
            _ => match feed.u8() % 16 {
                0 => {
                    self.meddled = true;
                    self.input(Input::Shutdown);
                }
                1 | 2 => {
                    self.lied = true;
                    self.books.strict = false;
                    let report = self.lie(feed);
                    self.input(Input::Chain(report));
                }
                _ => {}
            },
        }
    }

    fn addresses(&mut self, feed: &mut Feed<'_>) {
        let addresses: Vec<PeerAddress> = (0..feed.u8() % 8).map(|_| address(feed.u8() % 100)).collect();
        let socket = |address: &PeerAddress| match address {
            PeerAddress::Ip(socket) => Some(*socket),
            _ => None,
        };
        match feed.u8() % 4 {
            0 => {
                let sockets = addresses.iter().filter_map(socket).collect();
                self.input(Input::Resolved("seed.example".into(), sockets));
            }
            1 => self.input(Input::AddAddresses(addresses)),
            2 => self.input(Input::AddPeer(address(feed.u8() % 100))),
            _ => {
                let id = self.peer(feed);
                self.input(Input::RemovePeer(id));
            }
        }
    }

    /// A report that answers nothing that was asked.
    fn lie(&mut self, feed: &mut Feed<'_>) -> ChainReport {
        let raw = &chains().blocks[feed.below(chains().blocks.len())];
        let block = BlockRef { height: u32::from(feed.u8() % 64), hash: raw.hash() };
        let reject = Reject::consensus("bad-txns-inputs-missingorspent");
        match feed.u8() % 9 {
            0 => ChainReport::Stored { block, transactions: 1 },
            1 => ChainReport::Refused { block, reject },
            2 => ChainReport::Connected { block, inputs: 0, transactions: 1 },
            3 => ChainReport::Invalid { block, reject },
            4 => ChainReport::Dropped { block, lost: feed.bool() },
            5 => ChainReport::Disconnected { block, tip: self.books.tip },
            6 => {
                let from = if feed.bool() { self.books.durable } else { block };
                let last = self.books.last.as_ref().filter(|_| feed.bool());
                let checkpoint = RollbackCheckpoint::next(last, 1, from, block);
                if feed.bool() {
                    ChainReport::CheckpointDurable(checkpoint)
                } else {
                    ChainReport::Committed(checkpoint)
                }
            }
            7 => ChainReport::CommitWanted,
            _ => ChainReport::Read(block.hash, feed.bool().then(|| raw.clone())),
        }
    }

    /// Everybody leaves, and one comes who answers everything.
    fn sync_with_honest(&mut self) {
        let goal = chains().served[0].read().tip();
        let stop = self.engine.config().stop_at_height.unwrap_or(u32::MAX).min(goal.height);
        for id in self.links.keys().copied().collect::<Vec<_>>() {
            self.gone(id, Input::Closed(id));
        }
        let honest = address(250);
        self.input(Input::AddPeer(honest.clone()));
        let end = self.now + 86_400_000;
        while self.books.tip.height < stop {
            assert!(!self.over, "the engine ended by itself");
            let ready: Vec<PeerId> = self.links.keys().copied().collect();
            let mut busy = self.carry_out();
            while let Some((id, address)) = self.fresh_dials.pop_front() {
                busy = true;
                if !self.links.contains_key(&id) {
                    continue;
                }
                if address == honest {
                    let session = Session::new(chains().served[0].clone(), 77);
                    self.links.insert(id, (session, VecDeque::new()));
                    self.input(Input::Connected(id));
                } else {
                    self.gone(id, Input::DialFailed(id, "refused".into()));
                }
            }
            for id in ready {
                busy |= self.deliver(id);
            }
            if !busy {
                let next = self.deadline.unwrap_or(self.now + 1_000);
                self.now = next.max(self.now + 1);
                self.input(Input::Timer);
                let stuck = (self.books.tip, self.engine.status());
                assert!(self.now < end, "an honest peer's chain was not reached: {stuck:?}");
            }
        }
        self.nothing_is_held();
    }

    /// Once every command is carried out, no body counts as held any more.
    fn nothing_is_held(&mut self) {
        while self.carry_out() {}
        let load = self.engine.load();
        let held = |name: &str| load.figures().iter().find(|figure| figure.0 == name).map(|figure| figure.1);
        if !self.over {
            assert_eq!(held("unstored bytes"), Some(0));
            assert_eq!(held("commands to the chainstate"), Some(0));
        }
    }
}

fn hash(feed: &mut Feed<'_>) -> BlockHash {
    match feed.below(128) {
        at if at < chains().blocks.len() => chains().blocks[at].hash(),
        at => BlockHash::from_byte_array([at as u8; 32]),
    }
}

/// A message of any kind, those that matter most often.
fn message(feed: &mut Feed<'_>) -> Message {
    let blocks = &chains().blocks;
    match feed.u8() % 12 {
        0 | 1 => {
            let (from, count) = (feed.below(blocks.len()), usize::from(feed.u8() % 64));
            Message::Headers(blocks[from..].iter().take(count).map(|block| *block.header()).collect())
        }
        2 => Message::Block(blocks[feed.below(blocks.len())].clone()),
        3 => {
            // A body that was changed on its way.
            let mut bytes = blocks[feed.below(blocks.len())].bytes().to_vec();
            let at = 80 + feed.below(bytes.len() - 80);
            bytes[at] ^= feed.u8();
            Message::Block(RawBlock::new(bytes).expect("a block"))
        }
        4 => Message::Inv(vec![Inventory::Block(hash(feed))]),
        5 => Message::NotFound((0..feed.u8() % 8).map(|_| Inventory::WitnessBlock(hash(feed))).collect()),
        6 => {
            // Headers of one's own, whose blocks nobody has.
            let mut parent = *blocks[feed.below(blocks.len())].header();
            let mut headers = Vec::new();
            for _ in 0..feed.u8() % 64 {
                parent = headlong::sim::forge::forge_header(&parent, parent.time + 1, parent.bits, [9; 32]);
                headers.push(parent);
            }
            Message::Headers(headers)
        }
        7 => Message::Pong(feed.u64()),
        8 => Message::Verack,
        _ => {
            let name = COMMANDS[feed.below(COMMANDS.len())];
            let command = Command::new(name).expect("a short name");
            let payload = feed.bytes().to_vec();
            Message::decode_payload(command, payload).ok().flatten().unwrap_or(Message::MemPool)
        }
    }
}
