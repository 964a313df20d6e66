//! The block scheduler: which block is asked of which peer, and when another is asked instead.
//!
//! 1. The *window* is the best header's chain past the proved tip, by count and by bytes: the bytes of a
//!    block are reserved before it is asked for and given back when the chainstate has stored or refused it.
//!    The next block to connect is always asked for.
//! 2. Lowest heights first, each of one peer, which owes at most what it delivers in a few seconds by its
//!    measured speed, and by how long nothing has come of it. It is asked anew when half of that has come. Who
//!    is asked first, and who for hardly anything, the [scores](crate::peer::score) say; but whoever was asked in vain since
//!    it last delivered comes after all others. Consecutive heights asked together are a *segment* with a deadline; what is
//!    missing then is asked of others.
//! 3. The block that everything waits for is asked of a second peer, one that delivers if there is one, when it
//!    takes longer than 95 of 100 blocks did (if that one has more to send before it: when the first sends nothing
//!    for twice what 95 of 100 take on a free line), and then of one after the other that is far faster than those
//!    who owe it, in growing intervals.
//! 4. A *stall*: the peer that owes the first block of the window is silent, and nothing else can be
//!    connected, or nothing more asked for. Its blocks are asked of others; it gets nothing more until it
//!    sends again, and is dropped only if it stays silent while others send. If all are slow, nobody is
//!    dropped; if all are silent, nobody either, and each is asked again in turn. Slowness is no fault.
//! 5. If nobody delivers the first block of the window while a peer has shown another chain, the window
//!    follows that one for a while (`withheld`).
//! 6. A block below the window whose stored bytes are damaged, and needed to undo what stands on it, is asked
//!    for again: of all peers in turn, those first whose chain it is on (`lost`).
//! 7. Blocks go to the chainstate unparsed. Its report frees the bytes, and blames the sender where the body
//!    was false; a body that was changed on its way is asked of another peer.
//!
//! After Bitcoin Core's `FindNextBlocksToDownload` and the stalling logic of `SendMessages`
//! (net_processing.cpp), with the differences above. Left out: compact blocks.

mod clocks;
mod late;
mod limits;
mod lost;
mod measure;
mod source;
mod window;
mod withheld;

use crate::chain::block_tree::{BlockTree, HeaderId};
use crate::chain::command::{ChainCommand, ChainReport, RawBlock};
use crate::limits::{
    BLOCK_RESERVED_BYTES, BLOCK_WINDOW, BLOCKS_IN_FLIGHT_MIN, BLOCKS_IN_FLIGHT_SECONDS, DIRECT_FETCH_BLOCKS,
    LIFE_BYTES, SEGMENT_BLOCKS, SEGMENT_TIMEOUT, STALL_TIMEOUT_MIN,
};
use crate::peer::score::{Rank, ScorePolicy, Scores};
use crate::peer::timers::Timers;
use crate::peer::{Cx, Demand, PeerId, PeerView};
use crate::time::Timestamp;
use crate::wire::Message;
use bitcoin::BlockHash;
use bitcoin::p2p::message_blockdata::Inventory;
use clocks::Clocks;
use core::cmp::Reverse;
use core::time::Duration;
use late::Owed;
use lost::Lost;
use measure::{DeliveryTimes, SizeEstimate};
use source::Source;
use std::collections::{BTreeMap, BTreeSet};
use window::Window;
use withheld::Withholding;

/// How much is fetched ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// Blocks past the proved tip that are fetched ahead; at least 1.
    pub window: u32,
    /// Bytes of blocks that may be under way or waiting to be stored, by their expected size. The next
    /// block to connect is asked for even if it does not fit.
    pub reserved_bytes: u64,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self { window: BLOCK_WINDOW, reserved_bytes: BLOCK_RESERVED_BYTES }
    }
}

/// A block that was asked of a peer.
#[derive(Clone, Copy, Debug)]
struct Request {
    peer: PeerId,
    at: Timestamp,
    segment: u64,
}

/// A block that is asked for.
#[derive(Debug)]
struct Flight {
    /// Bytes reserved.
    reserved: u64,
    /// How often it was asked of somebody, so far.
    asked: u32,
    /// At most [`crate::limits::BLOCK_REQUESTS_MAX`].
    requests: Vec<Request>,
}

/// A block that the chainstate has not answered for.
#[derive(Debug)]
struct Arrived {
    from: PeerId,
    bytes: u64,
}

/// Consecutive heights asked of one peer together.
#[derive(Debug)]
struct Segment {
    peer: PeerId,
    blocks: BTreeSet<HeaderId>,
}

/// Everything waits for a silent peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stall {
    peer: PeerId,
    since: Timestamp,
}

/// What a scheduler holds, for [`crate::engine::Load`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedulerLoad {
    /// Blocks that are asked for.
    pub flights: usize,
    /// The most peers that one of them is asked of.
    pub requests: usize,
    /// Bytes reserved.
    pub reserved: u64,
    /// Remembered senders of stored blocks.
    pub senders: usize,
    /// The most blocks that one peer is remembered to lack.
    pub lacking: usize,
    /// Blocks that nobody delivers.
    pub withheld: usize,
}

/// The scheduler's window, peers and requests.
#[derive(Debug)]
pub struct BlockScheduler {
    config: SchedulerConfig,
    /// Nothing above this height is fetched.
    highest: Option<u32>,
    tip: HeaderId,
    tip_height: u32,
    /// The end of the chain that is fetched, if it has the minimum work: the best header, unless blocks of
    /// its chain are withheld.
    target: Option<HeaderId>,
    window: Window,
    /// Blocks outside the window whose stored bytes are needed and not there; at most one a report.
    again: BTreeMap<HeaderId, Lost>,
    sources: BTreeMap<PeerId, Source>,
    clocks: Clocks,
    scores: Scores,
    /// Peers that owe more than they keep ([`Source::kept`]).
    overladen: BTreeSet<PeerId>,
    flights: BTreeMap<HeaderId, Flight>,
    arrived: BTreeMap<HeaderId, Arrived>,
    /// Who sent the blocks that are stored and not connected yet.
    senders: BTreeMap<HeaderId, PeerId>,
    segments: BTreeMap<u64, Segment>,
    /// Of the segments.
    deadlines: Timers<u64>,
    next_segment: u64,
    reserved: u64,
    /// A peer may owe what it delivers in so many seconds.
    ahead: u64,
    size: SizeEstimate,
    times: DeliveryTimes,
    /// As [`Self::times`], from when the peer's line was free for the block.
    responses: DeliveryTimes,
    stall: Option<Stall>,
    stall_timeout: Duration,
    /// The block that everything waits for and when a second peer is asked.
    hedge: Option<(HeaderId, Timestamp)>,
    /// A peer became free for requests outside an event that could make them.
    wake: Option<Timestamp>,
    withholding: Withholding,
    /// No block is asked for.
    resting: bool,
}

impl BlockScheduler {
    /// A scheduler without peers, over the proved tip `tip`.
    pub fn new(config: SchedulerConfig, tree: &BlockTree, tip: HeaderId) -> Self {
        let mut new = Self {
            config,
            highest: None,
            tip,
            tip_height: tree.height(tip),
            target: None,
            window: Window::default(),
            again: BTreeMap::new(),
            sources: BTreeMap::new(),
            clocks: Clocks::default(),
            scores: Scores::new(ScorePolicy::default()),
            overladen: BTreeSet::new(),
            flights: BTreeMap::new(),
            arrived: BTreeMap::new(),
            senders: BTreeMap::new(),
            segments: BTreeMap::new(),
            deadlines: Timers::new(),
            next_segment: 0,
            reserved: 0,
            ahead: BLOCKS_IN_FLIGHT_SECONDS,
            size: SizeEstimate::new(),
            times: DeliveryTimes::default(),
            responses: DeliveryTimes::default(),
            stall: None,
            stall_timeout: STALL_TIMEOUT_MIN,
            hedge: None,
            wake: None,
            withholding: Withholding::default(),
            resting: false,
        };
        new.follow(tree);
        new
    }

    /// The same scheduler, for a node that stops at this height: nothing above it is fetched.
    #[must_use]
    pub fn up_to(mut self, tree: &BlockTree, height: Option<u32>) -> Self {
        self.highest = height;
        self.follow(tree);
        self
    }

    /// The same scheduler, with these scores instead of fresh ones; before any peer is ready.
    #[must_use]
    pub fn with_scores(mut self, scores: Scores) -> Self {
        self.scores = scores;
        self
    }

    /// The scores of the peers.
    pub fn scores(&self) -> &Scores {
        &self.scores
    }

    /// A handshake is complete. Peers without witness data are of no use.
    pub fn on_peer_ready(&mut self, cx: &mut Cx<'_>, tree: &BlockTree, peer: &PeerView) {
        if !peer.serves_recent() {
            return;
        }
        let mut source = Source::new(peer, self.ahead, self.resting, cx.now.at);
        if let Some(best) = peer.best_known {
            self.reaches(tree, &mut source, best);
        }
        self.sources.insert(peer.id, source);
        self.score(peer.id, |scores| scores.on_ready(peer.id, &peer.address, peer.kind, cx.now.at));
        self.settle(cx, tree);
    }

    /// A connection ended: what it owed is asked of others.
    pub fn on_peer_gone(&mut self, cx: &mut Cx<'_>, tree: &BlockTree, peer: PeerId) {
        self.take_all(tree, peer, None);
        self.sources.remove(&peer);
        self.set_clocks(peer);
        self.settle(cx, tree);
    }

    /// The best header changed.
    pub fn on_headers(&mut self, cx: &mut Cx<'_>, tree: &BlockTree) {
        self.follow(tree);
        self.settle(cx, tree);
    }

    /// A peer is known to have this header's block. Near the tip it is the first to be asked.
    pub fn on_peer_has(&mut self, cx: &mut Cx<'_>, tree: &BlockTree, peer: PeerId, best: HeaderId) {
        let Some(mut source) = self.sources.remove(&peer) else { return };
        self.reaches(tree, &mut source, best);
        self.sources.insert(peer, source);
        if self.target.is_some_and(|target| target != tree.best_header()) {
            self.follow(tree);
        }
        if self.window.needed_len() <= DIRECT_FETCH_BLOCKS {
            self.fill(cx, tree, peer);
        }
        self.settle(cx, tree);
    }

    /// A `block` message. Emits `ChainCommand::StoreBlock` if it was wanted; asks for headers if its header
    /// is not known.
    pub fn on_block(&mut self, cx: &mut Cx<'_>, tree: &BlockTree, peer: PeerId, block: RawBlock) {
        let Some(id) = tree.find(&block.hash()) else {
            self.on_other(peer, block.bytes().len() as u64);
            cx.out.demands.push(Demand::FetchHeaders(peer));
            return;
        };
        let bytes = block.bytes().len() as u64;
        if self.is_intrusion(peer, id) {
            self.on_other(peer, bytes);
            return self.score(peer, |scores| scores.on_bytes(peer, bytes, false));
        }
        let owed = self.owed(peer, id);
        self.note_overtaken(cx.now.at, peer, id);
        self.note_delivery(cx.now.at, peer, id, bytes);
        let asked = self.flights.contains_key(&id);
        self.cancel(id, Some(peer));
        self.set_clocks(peer);
        self.check_load(peer);
        let stored = tree.has_body(id) && !self.again.contains_key(&id) || self.arrived.contains_key(&id);
        let wanted = !stored && !tree.is_failed(id) && (asked || self.wants_unasked(tree, id, bytes));
        // What comes late because we asked another as well is of use to nobody, but no fault.
        let (useful, repeated) = (wanted || owed != Owed::Never, stored && owed != Owed::Still);
        self.note_use(cx.now.at, peer, id, bytes, useful, repeated);
        if wanted {
            if let Some(height) = self.window.height_of(tree, id) {
                self.window.taken(height);
            }
            self.arrived.insert(id, Arrived { from: peer, bytes });
            self.reserved = self.reserved.saturating_add(bytes);
            cx.command(ChainCommand::StoreBlock(tree.context(id), block));
        }
        self.settle(cx, tree);
    }

    /// A `notfound` named these blocks.
    pub fn on_not_found(&mut self, cx: &mut Cx<'_>, tree: &BlockTree, peer: PeerId, hashes: &[BlockHash]) {
        for hash in hashes {
            let Some(id) = tree.find(hash) else { continue };
            if self.sources.get(&peer).is_some_and(|source| source.owes.contains(&id)) {
                self.take_away(tree, peer, id, Some(cx.now.at));
                if let Some(source) = self.sources.get_mut(&peer) {
                    source.coming.remove(&id);
                }
                self.note_stall(peer, cx.now.at);
            }
        }
        self.settle(cx, tree);
    }

    /// Bytes came from a peer: all bytes of the connection so far.
    pub fn on_progress(&mut self, cx: &mut Cx<'_>, peer: PeerId, bytes: u64) {
        let Some(source) = self.sources.get_mut(&peer) else { return };
        let bytes = bytes.saturating_sub(source.idle_bytes);
        if bytes.saturating_sub(source.life_bytes) >= LIFE_BYTES {
            source.life_bytes = bytes;
            source.life = cx.now.at;
        }
        if bytes > source.bytes {
            source.bytes = bytes;
            if source.suspicion.take().is_some() {
                self.set_clocks(peer);
                self.wake = Some(cx.now.at);
            }
        }
    }

    /// A whole message came that is no block, or a block that it was never asked for. Whoever floods us while it owes
    /// blocks is not at work on them.
    pub fn on_other(&mut self, peer: PeerId, bytes: u64) {
        if let Some(source) = self.sources.get_mut(&peer) {
            source.idle_bytes = source.idle_bytes.saturating_add(bytes);
        }
    }

    /// The engine stopped (`paused`) or resumed reading from this peer. Its clocks stand still meanwhile,
    /// and nothing new is asked of it.
    pub fn set_paused(&mut self, cx: &mut Cx<'_>, peer: PeerId, paused: bool) {
        if let Some(source) = self.sources.get_mut(&peer) {
            source.unread = paused;
            self.update_pause(cx.now.at, peer);
        }
    }

    /// The host wants no more blocks fetched (`rest`), or wants them again. What is under way arrives; nobody's
    /// clock runs meanwhile.
    pub fn set_resting(&mut self, cx: &mut Cx<'_>, tree: &BlockTree, rest: bool) {
        self.resting = rest;
        let peers: Vec<PeerId> = self.sources.keys().copied().collect();
        for peer in peers {
            self.update_pause(cx.now.at, peer);
        }
        self.settle(cx, tree);
    }

    fn update_pause(&mut self, now: Timestamp, peer: PeerId) {
        let Some(source) = self.sources.get_mut(&peer) else { return };
        let paused = source.unread || self.resting;
        if source.paused == paused {
            return;
        }
        source.paused = paused;
        source.life = now;
        source.waiting_since = now;
        if paused {
            self.stall = self.stall.filter(|stall| stall.peer != peer);
        } else {
            source.meter.start(now);
            self.wake = Some(now);
            let late: Vec<u64> =
                self.segments.iter().filter(|(_, s)| s.peer == peer).map(|(&number, _)| number).collect();
            for number in late {
                self.renew(number, now);
            }
        }
        self.set_clocks(peer);
    }

    /// The chainstate reported; the tree already knows it. Frees the window and blames senders.
    pub fn on_report(&mut self, cx: &mut Cx<'_>, tree: &BlockTree, report: &ChainReport) {
        match report {
            ChainReport::Stored { block, .. } => self.stored(tree, block),
            ChainReport::Refused { block, reject } => self.refused(cx, tree, block, reject),
            ChainReport::Connected { block, .. } => {
                if let Some(id) = tree.find(&block.hash) {
                    self.senders.remove(&id);
                }
                self.stall_timeout = (self.stall_timeout * 85 / 100).max(STALL_TIMEOUT_MIN);
            }
            ChainReport::Invalid { block, reject } => {
                let sender = tree.find(&block.hash).and_then(|id| self.senders.remove(&id));
                self.blame(cx, sender, block, reject);
                self.follow(tree);
            }
            ChainReport::Dropped { block, lost: true } => {
                if let Some(id) = tree.find(&block.hash)
                    && !self.flights.contains_key(&id)
                    && !self.arrived.contains_key(&id)
                {
                    self.window.need(tree, id);
                }
            }
            ChainReport::Missing(block) => {
                if let Some(id) = tree.find(&block.hash) {
                    self.again.entry(id).or_default();
                }
            }
            _ => return,
        }
        self.settle(cx, tree);
    }

    /// The proved tip changed: the window moves.
    pub fn on_tip(&mut self, cx: &mut Cx<'_>, tree: &BlockTree, tip: HeaderId) {
        self.tip = tip;
        self.tip_height = tree.height(tip);
        self.withholding.on_tip();
        self.follow(tree);
        self.settle(cx, tree);
    }

    /// A deadline passed.
    pub fn on_timer(&mut self, cx: &mut Cx<'_>, tree: &BlockTree) {
        let now = cx.now.at;
        self.wake = None;
        self.forget_lacking(now);
        self.retry_withheld(now, tree);
        self.check_stall(cx, tree);
        while let Some(number) = self.deadlines.pop_due(now) {
            self.check_segment(cx, tree, number);
        }
        self.check_sources(cx, tree);
        self.check_late(now);
        self.check_hedge(cx, tree);
        self.settle(cx, tree);
    }

    /// When `on_timer` has something to do. No look at all peers, or blocks.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let segment = self.deadlines.next();
        let stall = self.stall.and_then(|stall| self.stall_deadline(stall));
        let hedge = self.hedge.map(|(_, at)| at);
        let needy = self.window.is_needy() || !self.again.is_empty();
        let peers = self.next_clock(needy);
        let withheld = self.withholding.next_deadline();
        [segment, stall, hedge, peers, withheld, self.wake].into_iter().flatten().min()
    }

    /// Blocks asked for and not yet delivered, in all and of this peer.
    pub fn in_flight(&self, peer: Option<PeerId>) -> usize {
        match peer {
            None => self.flights.len(),
            Some(peer) => self.sources.get(&peer).map_or(0, |source| source.owes.len()),
        }
    }

    /// What is held now.
    pub fn load(&self) -> SchedulerLoad {
        SchedulerLoad {
            flights: self.flights.len(),
            requests: self.flights.values().map(|flight| flight.requests.len()).max().unwrap_or(0),
            reserved: self.reserved,
            senders: self.senders.len(),
            lacking: self.sources.values().map(|source| source.lacking.len()).max().unwrap_or(0),
            withheld: self.withholding.len(),
        }
    }

    /// Measured speed of a peer's blocks, in bytes a second; 0 before the first measurement.
    pub fn speed(&self, peer: PeerId) -> u64 {
        self.sources.get(&peer).map_or(0, |source| source.meter.rate())
    }

    /// Bytes of blocks that are under way (as expected) or waiting to be stored (as they are).
    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    // ---- the window ----

    /// Follows the best header's chain from the proved tip, or the best of which blocks are delivered.
    fn follow(&mut self, tree: &BlockTree) {
        let best = self.choose_target(tree);
        if tree.work(best) < tree.params().minimum_chain_work {
            self.target = None;
            self.window.clear();
            return;
        }
        let cut = self.highest.filter(|highest| tree.height(best) > *highest);
        let best = cut.and_then(|highest| tree.ancestor(best, highest)).unwrap_or(best);
        let (flights, arrived) = (&self.flights, &self.arrived);
        let busy = |id: HeaderId| flights.contains_key(&id) || arrived.contains_key(&id);
        self.window.follow(tree, self.tip, best, self.config.window.max(1), busy);
        if self.target != Some(best) {
            self.target = Some(best);
            for source in self.sources.values_mut() {
                source.reach = reach(tree, source.best, best);
            }
        }
    }

    /// Records that a source has this header's block.
    fn reaches(&self, tree: &BlockTree, source: &mut Source, best: HeaderId) {
        if source.best.is_none_or(|known| tree.work(best) >= tree.work(known)) {
            source.best = Some(best);
            source.best_height = tree.height(best);
            source.reach = self.target.map_or(0, |target| reach(tree, source.best, target));
        }
    }

    // ---- asking ----

    /// Ends each event: asks for what may be asked for, and sets the clocks for what is waited for.
    fn settle(&mut self, cx: &mut Cx<'_>, tree: &BlockTree) {
        self.watch_withheld(cx.now.at, tree);
        self.relieve(tree, cx.now.at);
        if self.window.is_needy() {
            if self.scores.policy() == ScorePolicy::Random {
                self.sources.values_mut().for_each(|source| source.rank.order = cx.rng.u64() as u32);
            }
            let strangers = self.takes_strangers();
            let mut order: Vec<_> = self
                .sources
                .iter()
                .filter(|(_, source)| source.usable() && (strangers || !source.inbound))
                .map(|(&id, source)| {
                    (Reverse((source.strikes == 0, source.rank.order, source.meter.rate())), id)
                })
                .collect();
            order.sort_unstable();
            for (_, id) in order {
                self.fill(cx, tree, id);
            }
            self.ask_head(cx, tree);
        }
        self.ask_again(cx, tree);
        self.watch_head(cx.now.at, tree);
    }

    /// Whether peers that came to us are asked for many blocks too: near the tip, or if none of our choice has the next one
    /// (Core's `FindNextBlocksToDownload` is called for them in the same cases). Each that comes could hold up its share.
    pub(super) fn takes_strangers(&self) -> bool {
        let next = self.tip_height.saturating_add(1);
        let has_next = |source: &Source| (source.lowest()..=source.reach).contains(&next);
        self.window.end().saturating_sub(self.tip_height) as usize <= DIRECT_FETCH_BLOCKS
            || !self.sources.values().any(|source| !source.inbound && source.usable() && has_next(source))
    }

    /// Asks a peer for the lowest blocks that are needed, up to what it may owe and the bytes allow.
    fn fill(&mut self, cx: &mut Cx<'_>, tree: &BlockTree, peer: PeerId) {
        let size = self.size.get();
        let Some(source) = self.sources.get(&peer).filter(|source| source.usable()) else { return };
        // Where all are low, there is nobody for whom to hold the blocks back.
        let rank = if self.has_better() { source.rank } else { Rank::FREE };
        let mut limit = source.limit(size, rank);
        if !source.meter.is_measured() {
            // In a small window those who deliver nothing must leave a share to each other peer.
            let strangers = self.takes_strangers();
            let asked = self.sources.values().filter(|source| strangers || !source.inbound).count();
            let share = self.config.window as usize / asked.max(1);
            limit = limit.min(share.max(BLOCKS_IN_FLIGHT_MIN));
        }
        if source.owes.len() > limit / 2 {
            return;
        }
        let room = limit - source.owes.len();
        let budget = self.config.reserved_bytes.saturating_sub(self.reserved) / size.max(1);
        let count = room.min(usize::try_from(budget).unwrap_or(usize::MAX));
        let least = if rank.isolated { self.least_for_isolated() } else { 0 };
        let blocks: Vec<(u32, HeaderId)> = self
            .window
            .needed(source.lowest().max(least), source.reach)
            .filter(|&(height, id)| source.serves(height, id))
            .take(count)
            .collect();
        self.ask(cx, tree, peer, &blocks);
    }

    /// The next block to connect is asked for whatever the limits say.
    fn ask_head(&mut self, cx: &mut Cx<'_>, tree: &BlockTree) {
        let Some((height, id)) = self.window.head(tree) else { return };
        if self.flights.contains_key(&id) || self.arrived.contains_key(&id) {
            return;
        }
        if let Some(peer) = self.best_source(height, id) {
            self.ask(cx, tree, peer, &[(height, id)]);
        }
    }

    /// The source to ask for one block: with room if possible, then one that delivers, then the best. Strangers may be
    /// many, and come again and again; each that says nothing costs its time.
    fn best_source(&self, height: u32, id: HeaderId) -> Option<PeerId> {
        let size = self.size.get();
        self.sources
            .iter()
            .filter(|(_, source)| source.serves(height, id))
            .max_by_key(|(peer, source)| {
                let room = source.owes.len() < source.limit(size, source.rank);
                let Rank { order, isolated, .. } = source.rank;
                let rate = source.meter.rate();
                (
                    !source.inbound,
                    !isolated,
                    room,
                    source.delivers(),
                    order,
                    rate,
                    Reverse(source.owes.len()),
                    Reverse(**peer),
                )
            })
            .map(|(&peer, _)| peer)
    }

    /// Sends one `getdata` and opens a segment for each run of consecutive heights.
    fn ask(&mut self, cx: &mut Cx<'_>, tree: &BlockTree, peer: PeerId, blocks: &[(u32, HeaderId)]) {
        if blocks.is_empty() {
            return;
        }
        let now = cx.now.at;
        let reserved = self.size.get();
        let Some(source) = self.sources.get_mut(&peer) else { return };
        source.begin(now);
        if source.owes.is_empty() {
            // What others delivered in its place ends none of its waiting.
            source.waiting_since =
                Timestamp::from_millis(now.as_millis().saturating_sub(source.owed_for.as_millis() as u64));
        }
        let mut open: Option<(u32, usize)> = None;
        for &(height, id) in blocks {
            let number = match open {
                Some((last, length)) if last + 1 == height && length < SEGMENT_BLOCKS => {
                    open = Some((height, length + 1));
                    self.next_segment
                }
                _ => {
                    open = Some((height, 1));
                    self.next_segment += 1;
                    self.deadlines.set(self.next_segment, now + SEGMENT_TIMEOUT);
                    self.segments.insert(self.next_segment, Segment { peer, blocks: BTreeSet::new() });
                    self.next_segment
                }
            };
            if let Some(segment) = self.segments.get_mut(&number) {
                segment.blocks.insert(id);
            }
            let total = &mut self.reserved;
            let flight = self.flights.entry(id).or_insert_with(|| {
                *total = total.saturating_add(reserved);
                Flight { reserved, asked: 0, requests: Vec::with_capacity(1) }
            });
            flight.asked = flight.asked.saturating_add(1);
            flight.requests.push(Request { peer, at: now, segment: number });
            source.owes.insert(id);
            if self.window.id_at(height) == Some(id) {
                self.window.taken(height);
            }
        }
        self.set_clocks(peer);
        let inventory = blocks.iter().map(|&(_, id)| Inventory::WitnessBlock(tree.hash(id))).collect();
        cx.send(peer, Message::GetData(inventory));
    }
}

/// The height up to which a peer with this best block has the blocks of the target's chain.
fn reach(tree: &BlockTree, best: Option<HeaderId>, target: HeaderId) -> u32 {
    best.map_or(0, |best| tree.height(tree.fork_point(best, target)))
}

#[cfg(test)]
mod tests;
