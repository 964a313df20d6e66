//! Headers first: finds the chain with the most work, from one peer at a time, then from all.
//!
//! 1. One peer has the *role* of the source. It gets `getheaders` with the locator of the best header's
//!    parent (so that a peer in step always has something to say), and each full answer (2,000 headers) is
//!    followed by the next request at once.
//! 2. A source that leaves a request unanswered for ten seconds loses the role to another; one that has
//!    not finished within 15 minutes and a millisecond for each header expected is disconnected if there is
//!    another. Nobody has two requests outstanding within two minutes, except that a full answer and an
//!    empty one count as answered.
//!    While its chain has not shown enough work, one more peer is asked every few seconds.
//! 3. Once the best header is less than a day old, or a source has said that it knows no more, every ready
//!    peer is asked, and from then on peers announce new blocks by `headers` (BIP130) or by `inv`, which is
//!    answered with `getheaders`.
//! 4. Headers that connect to nothing are answered with `getheaders`, without blame. Bad proof of work, gaps
//!    and broken rules end the connection.
//! 5. A chain with less work than the network's minimum, or than our tip less 144 blocks, is kept
//!    only after [`super::presync`] has seen it twice; a short message of that kind is ignored.
//!
//! An empty answer does not always mean that a peer is at the same tip: a node below its own minimum chain
//! work answers so, too. It counts only if the peer has shown us headers before, or stated no greater height.
//!
//! Bitcoin Core's `ProcessHeadersMessage` and the "headers sync" part of `SendMessages`
//! (net_processing.cpp). Left out: eviction of outbound peers whose chain lags (the engine's matter).

use super::presync::{Presync, PresyncOutcome, PresyncState};
use crate::chain::block_tree::{BlockTree, HeaderId};
use crate::chain::command::ChainCommand;
use crate::chain::params::{Network, Params};
use crate::chain::work::{ChainWork, check_proof_of_work};
use crate::consensus::header::accept;
use crate::error::{Reject, RejectKind};
use crate::limits::{
    ANTI_DOS_WORK_BLOCKS, GETHEADERS_INTERVAL, HEADERS_ANSWER_LASTS, HEADERS_DOWNLOAD_PER_HEADER,
    HEADERS_DOWNLOAD_TIMEOUT, HEADERS_PATIENCE, HEADERS_RECENT_SECONDS, HEADERS_RETRY, MAX_ANNOUNCED_HEADERS,
    MAX_HEADERS, MAX_PRESYNCS, PRESYNC_ALONE,
};
use crate::peer::timers::Timers;
use crate::peer::{CloseReason, ConnectionKind, Cx, Fact, Fault, PeerId, PeerView};
use crate::time::Timestamp;
use crate::wire::Message;
use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::GetHeadersMessage;
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The height from which mainnet headers with version bit 31 belong to the chain that Knots 29.4.1 split
/// off. Below, and on other networks, the bit is only a negative version, which BIPs 34, 66 and 65 judge.
const FOREIGN_CHAIN_HEIGHT: u32 = 961_640;

/// Version in `getheaders`; peers ignore it.
const GETHEADERS_VERSION: u32 = 70_016;

/// What is known of a ready peer.
#[derive(Debug)]
struct Peer {
    manual: bool,
    /// Whether it came to us.
    inbound: bool,
    start_height: u32,
    /// When the unanswered `getheaders` was sent.
    asked_at: Option<Timestamp>,
    /// It was asked at least once, so that its announcements are followed up.
    started: bool,
    /// It has said that it knows no more than it sent.
    done: bool,
    /// It had the role and had nothing to offer, or did not answer: others come first.
    passed_over: bool,
    /// An `inv` made us ask it before its turn.
    asked_by_inv: bool,
    /// Its last full message held nothing new.
    repeats: bool,
    /// The last header it is known to have.
    best: Option<HeaderId>,
    /// The last block it announced that we did not know.
    unknown: Option<BlockHash>,
    presync: Option<Box<Presync>>,
}

impl Peer {
    /// What was asked of it is answered, and it may be asked again at once. When it was asked.
    fn answered(&mut self, id: PeerId, again: &mut Timers<PeerId>) -> Option<Timestamp> {
        if again.get(&id).is_some() {
            again.set(id, Timestamp::ZERO);
        }
        self.asked_at.take()
    }
}

/// The one peer that headers come from before the chain is recent.
#[derive(Clone, Copy, Debug)]
struct Role {
    peer: PeerId,
    /// When it has to be finished.
    until: Timestamp,
    /// When one more peer is asked, if its chain has not shown enough work by then.
    alone_until: Timestamp,
    /// It has not answered for [`HEADERS_PATIENCE`], and there was nobody else to ask.
    late: bool,
}

/// A message that passed the checks without context.
#[derive(Clone, Copy, Debug)]
struct Batch<'a> {
    headers: &'a [Header],
    hashes: &'a [BlockHash],
    /// As many headers as a message may have: the peer may know more.
    full: bool,
}

/// Which headers are asked of whom, and what is done with those that come.
#[derive(Debug)]
pub struct HeaderSync {
    params: Arc<Params>,
    peers: BTreeMap<PeerId, Peer>,
    /// Those that are to be asked again, and when they may be.
    again: Timers<PeerId>,
    role: Option<Role>,
    /// When peers that were passed over are tried again.
    retry_at: Option<Timestamp>,
    /// The last block whose `inv` made us ask a peer before its turn.
    inv_trigger: Option<BlockHash>,
    /// The tip of the chain whose blocks are connected; `None`: the genesis block.
    tip: Option<HeaderId>,
    synced: bool,
    recent: bool,
    /// When the last answer came, and how long it took.
    last_answer: Option<(Timestamp, Duration)>,
}

impl HeaderSync {
    /// How long the last answer to a `getheaders` took; `None` before the first, and for one of more than
    /// [`HEADERS_ANSWER_LASTS`] ago, which says nothing of the network as it is.
    pub fn last_answer(&self, now: Timestamp) -> Option<Duration> {
        self.last_answer.filter(|(at, _)| now.since(*at) <= HEADERS_ANSWER_LASTS).map(|(_, time)| time)
    }

    /// A machine without peers, for a network. Chains with less work than
    /// `params.minimum_chain_work` are never kept.
    pub fn new(params: Arc<Params>) -> Self {
        Self {
            params,
            peers: BTreeMap::new(),
            again: Timers::new(),
            role: None,
            retry_at: None,
            inv_trigger: None,
            tip: None,
            synced: false,
            last_answer: None,
            recent: false,
        }
    }

    /// How many presyncs are under way, and their bytes of memory.
    pub fn presync_load(&self) -> (usize, usize) {
        let presyncs = self.peers.values().filter_map(|peer| peer.presync.as_ref());
        presyncs.fold((0, 0), |(count, bytes), presync| (count + 1, bytes + presync.memory()))
    }

    /// The proved tip changed: chains are measured by its work.
    pub fn set_tip(&mut self, tip: HeaderId) {
        self.tip = Some(tip);
    }

    /// A handshake is complete.
    pub fn on_peer_ready(&mut self, cx: &mut Cx<'_>, tree: &BlockTree, peer: &PeerView) {
        self.peers.insert(
            peer.id,
            Peer {
                manual: peer.is_manual(),
                inbound: peer.kind == ConnectionKind::Inbound,
                start_height: peer.start_height,
                asked_at: None,
                started: false,
                done: false,
                passed_over: false,
                asked_by_inv: false,
                repeats: false,
                best: None,
                unknown: None,
                presync: None,
            },
        );
        self.proceed(cx, tree);
    }

    /// A connection ended.
    pub fn on_peer_gone(&mut self, cx: &mut Cx<'_>, tree: &BlockTree, peer: PeerId) {
        self.peers.remove(&peer);
        self.again.cancel(&peer);
        if self.role.is_some_and(|role| role.peer == peer) {
            self.role = None;
        }
        self.proceed(cx, tree);
    }

    /// A `headers` message.
    pub fn on_headers(
        &mut self,
        cx: &mut Cx<'_>,
        tree: &mut BlockTree,
        peer: &PeerView,
        headers: Vec<Header>,
    ) {
        if !self.peers.contains_key(&peer.id) {
            return;
        }
        if let Err(reason) = self.take(cx, tree, peer.id, headers) {
            cx.close(peer.id, reason);
        }
        self.proceed(cx, tree);
    }

    /// An `inv` named this block.
    pub fn on_block_inv(&mut self, cx: &mut Cx<'_>, tree: &BlockTree, peer: &PeerView, hash: BlockHash) {
        if let Some(id) = tree.find(&hash) {
            self.peer_has(cx, tree, peer.id, id);
            return;
        }
        let Some(state) = self.peers.get_mut(&peer.id) else { return };
        state.unknown = Some(hash);
        // Before its turn a peer is asked once, and one more peer for each new block: a source that does
        // not deliver then holds up nobody, and a flood of announcements starts nothing.
        if !state.started {
            if state.asked_by_inv || self.inv_trigger == Some(hash) {
                return;
            }
            state.asked_by_inv = true;
            self.inv_trigger = Some(hash);
        }
        self.fetch(cx, tree, peer.id);
    }

    /// Another machine needs headers from this peer (`Demand::FetchHeaders`). If one request is outstanding
    /// the next waits for its answer, or for two minutes.
    pub fn fetch(&mut self, cx: &mut Cx<'_>, tree: &BlockTree, peer: PeerId) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        if may_ask(state, cx.now.at) {
            self.ask(cx, peer, best_locator(tree));
        } else {
            self.again.put(peer, state.asked_at.map(|at| at + GETHEADERS_INTERVAL));
        }
    }

    /// A deadline passed.
    pub fn on_timer(&mut self, cx: &mut Cx<'_>, tree: &BlockTree) {
        let now = cx.now.at;
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            for peer in self.peers.values_mut() {
                peer.passed_over = false;
            }
        }
        self.check_role(cx);
        self.ask_beside(cx, tree);
        self.proceed(cx, tree);
    }

    /// When `on_timer` has something to do.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let role = self.role.and_then(|role| {
            let peer = self.peers.get(&role.peer);
            let asked = peer.and_then(|peer| peer.asked_at);
            let patience = asked.filter(|_| !role.late).map(|at| at + HEADERS_PATIENCE);
            let alone = peer.filter(|peer| peer.presync.is_some()).map(|_| role.alone_until);
            [patience, alone, Some(role.until)].into_iter().flatten().min()
        });
        [role, self.again.next(), self.retry_at].into_iter().flatten().min()
    }

    /// Whether the best header has enough work and is recent, or a peer has said that it knows no more.
    /// True as of the last event.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// The presync that is furthest: the height and the header time (Unix seconds) it reached in its present
    /// pass, and which pass that is.
    pub fn presync_progress(&self) -> Option<(PresyncState, u32, u32)> {
        self.peers
            .values()
            .filter_map(|peer| peer.presync.as_deref())
            .max_by_key(|sync| (sync.state() == PresyncState::Redownload, sync.work()))
            .map(|sync| (sync.state(), sync.height(), sync.time()))
    }

    /// Handles a message; an error ends the connection.
    fn take(
        &mut self,
        cx: &mut Cx<'_>,
        tree: &mut BlockTree,
        id: PeerId,
        mut headers: Vec<Header>,
    ) -> Result<(), CloseReason> {
        if headers.len() > MAX_HEADERS {
            return Err(CloseReason::Fault(Fault::Oversized("headers")));
        }
        if headers.is_empty() {
            self.take_empty(tree, id);
            return Ok(());
        }
        let full = headers.len() == MAX_HEADERS;
        self.check_foreign(tree, id, &headers)?;
        let hashes = self.check_chain(&headers)?;
        let mut proved = false;
        let mut presyncing = false;
        let batch = Batch { headers: &headers, hashes: &hashes, full };
        if let Some(outcome) = self.presync_continue(cx, id, batch) {
            if let PresyncOutcome::Taken { released, request_more } = outcome {
                headers = released;
                presyncing = request_more;
                proved = true;
            }
            if headers.is_empty() {
                if !presyncing {
                    self.finished(id);
                }
                return Ok(());
            }
        }
        let (Some(first), Some(&claimed)) = (headers.first(), hashes.last()) else { return Ok(()) };
        let Some(start) = tree.find(&first.prev_blockhash) else {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.unknown = Some(claimed);
            }
            self.fetch(cx, tree, id);
            return Ok(());
        };
        if let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.presync.is_none()) {
            // A message that connects answers what we asked.
            if let Some(at) = peer.answered(id, &mut self.again) {
                self.last_answer = Some((cx.now.at, cx.now.at.since(at)));
            }
        }
        let known = tree.find(&claimed).is_some_and(|last| tree.is_ancestor(last, tree.best_header()));
        if !proved && !known && self.is_low_work(tree, start, &headers) {
            self.take_low_work(cx, tree, id, start, Batch { headers: &headers, hashes: &hashes, full });
            return Ok(());
        }
        self.accept_all(cx, tree, id, &headers, full, presyncing)
    }

    /// An empty message: the peer knows nothing beyond our locator, or is below its own minimum chain work.
    fn take_empty(&mut self, tree: &BlockTree, id: PeerId) {
        let best = tree.height(tree.best_header());
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.presync = None;
        peer.answered(id, &mut self.again);
        if peer.best.is_some() || peer.start_height <= best {
            peer.done = true;
        }
        self.finished(id);
    }

    /// The peer has sent what it has: the role is free.
    fn finished(&mut self, id: PeerId) {
        if self.role.is_some_and(|role| role.peer == id) {
            self.role = None;
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.passed_over = true;
            }
        }
    }

    /// Refuses the headers of the chain that is known to have split off mainnet. It is not a fault to follow
    /// another chain. Runs before proof of work is checked, which the longer headers there do not have.
    fn check_foreign(&self, tree: &BlockTree, id: PeerId, headers: &[Header]) -> Result<(), CloseReason> {
        if self.params.network != Network::Main {
            return Ok(());
        }
        let presync = self.peers.get(&id).and_then(|peer| peer.presync.as_deref());
        let parent = headers.first().and_then(|first| match presync {
            Some(sync) if sync.last_hash() == first.prev_blockhash => Some(sync.height()),
            _ => tree.find(&first.prev_blockhash).map(|parent| tree.height(parent)),
        });
        match parent {
            Some(parent) if is_foreign(parent, headers) => {
                Err(CloseReason::Unsuitable("follows another chain"))
            }
            _ => Ok(()),
        }
    }

    /// Checks what can be checked without context: each header's proof of the work it claims, and that each
    /// follows the one before. Returns the hashes.
    fn check_chain(&self, headers: &[Header]) -> Result<Vec<BlockHash>, CloseReason> {
        let mut hashes: Vec<BlockHash> = Vec::with_capacity(headers.len());
        for header in headers {
            let hash = header.block_hash();
            if !check_proof_of_work(&hash, header.bits.to_consensus(), &self.params) {
                return Err(CloseReason::Fault(Fault::Header { hash, reason: "high-hash" }));
            }
            if hashes.last().is_some_and(|last| *last != header.prev_blockhash) {
                return Err(CloseReason::Fault(Fault::NonContinuousHeaders));
            }
            hashes.push(hash);
        }
        Ok(hashes)
    }

    /// Hands the message to the peer's presync, if there is one, and goes on with it.
    fn presync_continue(&mut self, cx: &mut Cx<'_>, id: PeerId, batch: Batch<'_>) -> Option<PresyncOutcome> {
        let peer = self.peers.get_mut(&id)?;
        let mut sync = peer.presync.take()?;
        // A new block is announced meanwhile: not an answer, and no reason to begin again.
        let continues = batch.headers.first().is_some_and(|header| header.prev_blockhash == sync.last_hash());
        if batch.headers.len() <= MAX_ANNOUNCED_HEADERS && !continues {
            peer.presync = Some(sync);
            return None;
        }
        let outcome = sync.process(batch.headers, batch.hashes, batch.full);
        if let PresyncOutcome::Taken { request_more, .. } = &outcome {
            peer.answered(id, &mut self.again);
            if *request_more {
                let locator = sync.locator();
                peer.presync = Some(sync);
                self.ask(cx, id, locator);
            }
        }
        Some(outcome)
    }

    /// The work below which a chain is not kept: the network's minimum, or that of the tip less 144 blocks
    /// like it. Not that of the best header: whoever could forge headers without blocks would make us refuse
    /// the chain that has blocks.
    fn required_work(&self, tree: &BlockTree) -> ChainWork {
        let tip = self.tip.unwrap_or(tree.genesis());
        let proof = ChainWork::of_bits(tree.bits(tip));
        let near_tip = tree.work(tip).saturating_sub(proof.saturating_mul(ANTI_DOS_WORK_BLOCKS));
        near_tip.max(self.params.minimum_chain_work)
    }

    fn is_low_work(&self, tree: &BlockTree, start: HeaderId, headers: &[Header]) -> bool {
        let claimed = headers.iter().fold(tree.work(start), |work, header| {
            work.saturating_add(ChainWork::of_bits(header.bits.to_consensus()))
        });
        claimed < self.required_work(tree)
    }

    /// A message of a chain that has not shown enough work: begins a presync if the peer may have more.
    fn take_low_work(
        &mut self,
        cx: &mut Cx<'_>,
        tree: &BlockTree,
        id: PeerId,
        start: HeaderId,
        batch: Batch<'_>,
    ) {
        if self.peers.get(&id).is_some_and(|peer| peer.presync.is_some()) {
            // An announcement while the presync goes on.
            return;
        }
        let running = self.peers.values().filter(|peer| peer.presync.is_some()).count();
        let has_role = self.role.is_some_and(|role| role.peer == id);
        if !batch.full || (running >= MAX_PRESYNCS && !has_role) {
            self.finished(id);
            return;
        }
        let sync = Presync::new(tree, start, self.required_work(tree), cx.now.unix, cx.rng);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.presync = Some(Box::new(sync));
        }
        if let Some(PresyncOutcome::Failed(_)) = self.presync_continue(cx, id, batch) {
            self.finished(id);
        }
    }

    /// Adds headers to the tree; stops at the first that is refused. What was accepted before it stays.
    fn accept_all(
        &mut self,
        cx: &mut Cx<'_>,
        tree: &mut BlockTree,
        id: PeerId,
        headers: &[Header],
        full: bool,
        presyncing: bool,
    ) -> Result<(), CloseReason> {
        let best_before = tree.best_header();
        let known_before = tree.len();
        let mut fresh = Vec::new();
        let mut last = None;
        let mut refused = None;
        for header in headers {
            let known = tree.len();
            match accept(tree, header, cx.now.unix) {
                Ok(accepted) => {
                    if tree.len() > known {
                        fresh.push(*header);
                    }
                    last = Some(accepted);
                }
                Err(reject) => {
                    refused = Some((header.block_hash(), reject));
                    break;
                }
            }
        }
        if !fresh.is_empty() {
            cx.command(ChainCommand::SaveHeaders(fresh));
            cx.fact(Fact::HeadersAdvanced);
        } else if tree.best_header() != best_before {
            cx.fact(Fact::HeadersAdvanced);
        }
        if let Some(last) = last {
            self.peer_has(cx, tree, id, last);
            self.resolve_unknown(cx, tree);
        }
        if let Some((hash, reject)) = refused {
            self.finished(id);
            return self.blame(id, hash, &reject).map_or(Ok(()), Err);
        }
        let Some(last) = last else { return Ok(()) };
        if full && !presyncing {
            self.ask_for_more(cx, tree, id, last, tree.len() > known_before);
        } else if !presyncing {
            self.sent_all(cx, tree, id, last)?;
        }
        Ok(())
    }

    /// A full message was taken: the peer may have more. A source that tells what we know is asked once from
    /// our best header on; telling it again it is none, or it could keep the role by saying nothing new.
    fn ask_for_more(&mut self, cx: &mut Cx<'_>, tree: &BlockTree, id: PeerId, last: HeaderId, fresh: bool) {
        let has_role = self.role.is_some_and(|role| role.peer == id);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.done = false;
        let repeated = core::mem::replace(&mut peer.repeats, !fresh);
        if fresh || !has_role {
            self.ask(cx, id, tree.locator(last));
        } else if repeated {
            self.finished(id);
        } else {
            self.ask(cx, id, best_locator(tree));
        }
    }

    /// A message that was not full: the peer has shown its tip.
    fn sent_all(
        &mut self,
        cx: &Cx<'_>,
        tree: &BlockTree,
        id: PeerId,
        last: HeaderId,
    ) -> Result<(), CloseReason> {
        self.finished(id);
        let recent = self.is_recent(cx, tree);
        let Some(peer) = self.peers.get_mut(&id) else { return Ok(()) };
        peer.done = true;
        // During the first sync a peer whose whole chain has too little work cannot help.
        if !recent && !peer.manual && tree.work(last) < self.params.minimum_chain_work {
            return Err(CloseReason::Unsuitable("its chain has too little work"));
        }
        Ok(())
    }

    /// What a refused header means for the peer that sent it (Core's `MaybePunishNodeForBlock`).
    fn blame(&self, id: PeerId, hash: BlockHash, reject: &Reject) -> Option<CloseReason> {
        let manual = self.peers.get(&id).is_some_and(|peer| peer.manual);
        let fault = CloseReason::Fault(Fault::Header { hash, reason: reject.reason });
        match reject.kind {
            RejectKind::Consensus | RejectKind::InvalidHeader | RejectKind::MissingParent => Some(fault),
            // A peer that the host chose stays, even if the host has called its chain invalid.
            RejectKind::InvalidParent => (!manual).then_some(fault),
            RejectKind::CachedInvalid => {
                (!manual).then_some(CloseReason::Unsuitable("follows a chain that was found invalid"))
            }
            // Our clock may be the wrong one; and bodies are not judged here.
            RejectKind::TimeFuture | RejectKind::LowWork | RejectKind::Mutated => None,
        }
    }

    /// Records that a peer has a header.
    fn peer_has(&mut self, cx: &mut Cx<'_>, tree: &BlockTree, id: PeerId, header: HeaderId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.best.is_none_or(|best| tree.work(header) >= tree.work(best)) {
            peer.best = Some(header);
        }
        cx.fact(Fact::PeerHas(id, header));
    }

    /// Peers that announced a block before we knew its header have it.
    fn resolve_unknown(&mut self, cx: &mut Cx<'_>, tree: &BlockTree) {
        let found: Vec<(PeerId, HeaderId)> =
            self.peers.iter().filter_map(|(&id, peer)| Some((id, tree.find(&peer.unknown?)?))).collect();
        for (id, header) in found {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.unknown = None;
            }
            self.peer_has(cx, tree, id, header);
        }
    }

    fn ask(&mut self, cx: &mut Cx<'_>, id: PeerId, locator_hashes: Vec<BlockHash>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.asked_at = Some(cx.now.at);
        self.again.cancel(&id);
        peer.started = true;
        if let Some(role) = self.role.as_mut().filter(|role| role.peer == id) {
            role.late = false;
        }
        cx.send(
            id,
            Message::GetHeaders(GetHeadersMessage {
                version: GETHEADERS_VERSION,
                locator_hashes,
                stop_hash: BlockHash::all_zeros(),
            }),
        );
    }

    fn is_recent(&self, cx: &Cx<'_>, tree: &BlockTree) -> bool {
        let time = u64::from(tree.time(tree.best_header()));
        time.saturating_add(HEADERS_RECENT_SECONDS) > cx.now.unix
    }

    /// Ends each event: who is to be asked now?
    fn proceed(&mut self, cx: &mut Cx<'_>, tree: &BlockTree) {
        let best = tree.best_header();
        self.recent = self.is_recent(cx, tree);
        let enough = tree.work(best) >= self.params.minimum_chain_work;
        // A peer that claims a longer chain is heard first, unless it keeps us waiting.
        let height = tree.height(best);
        let unheard = |peer: &Peer| !peer.done && !peer.passed_over && peer.start_height > height;
        self.synced = enough
            && (self.recent
                || (self.peers.values().any(|peer| peer.done) && !self.peers.values().any(unheard)));
        if self.recent || self.synced {
            self.role = None;
            self.retry_at = None;
            let new: Vec<PeerId> =
                self.peers.iter().filter(|(_, peer)| !peer.started).map(|(&id, _)| id).collect();
            for id in new {
                self.ask(cx, id, best_locator(tree));
            }
        } else if self.role.is_none_or(|role| role.late) {
            self.give_role(cx, tree);
        }
        while let Some(id) = self.again.pop_due(cx.now.at) {
            self.ask(cx, id, best_locator(tree));
        }
    }

    /// Makes another peer the source of headers.
    fn give_role(&mut self, cx: &mut Cx<'_>, tree: &BlockTree) {
        let now = cx.now.at;
        let holder = self.role.map(|role| role.peer);
        let fits =
            |(id, peer): &(&PeerId, &Peer)| !peer.passed_over && Some(**id) != holder && may_ask(peer, now);
        let fitting: Vec<_> = self.peers.iter().filter(fits).map(|(&id, peer)| (id, peer.inbound)).collect();
        // Whoever wants to mislead us can come to us, but can't choose to be dialled.
        let inbound = fitting.iter().all(|(_, inbound)| *inbound);
        let candidates: Vec<PeerId> =
            fitting.into_iter().filter(|(_, other)| *other == inbound).map(|(id, _)| id).collect();
        let choice = cx.rng.below(candidates.len() as u64) as usize;
        let Some(&peer) = candidates.get(choice) else {
            if self.retry_at.is_none() && !self.peers.is_empty() {
                self.retry_at = Some(now + HEADERS_RETRY);
            }
            return;
        };
        let age = cx.now.unix.saturating_sub(u64::from(tree.time(tree.best_header())));
        let expected = (age / u64::from(self.params.pow_target_spacing.max(1))).min(u64::from(u32::MAX));
        let until = now + HEADERS_DOWNLOAD_TIMEOUT + HEADERS_DOWNLOAD_PER_HEADER * expected as u32;
        self.role = Some(Role { peer, until, alone_until: now + PRESYNC_ALONE, late: false });
        let locator = match self.peers.get(&peer).and_then(|peer| peer.presync.as_deref()) {
            Some(sync) => sync.locator(),
            None => best_locator(tree),
        };
        self.ask(cx, peer, locator);
    }

    /// Asks one more peer while the source's chain has not shown enough work.
    fn ask_beside(&mut self, cx: &mut Cx<'_>, tree: &BlockTree) {
        let now = cx.now.at;
        let Some(role) = self.role.as_mut().filter(|role| role.alone_until <= now) else { return };
        let source = role.peer;
        role.alone_until = now + PRESYNC_ALONE;
        if self.peers.get(&source).is_none_or(|peer| peer.presync.is_none()) {
            return;
        }
        let free = |(id, peer): (&PeerId, &Peer)| {
            (*id != source && peer.presync.is_none() && !peer.done && may_ask(peer, now)).then_some(*id)
        };
        let candidates: Vec<PeerId> = self.peers.iter().filter_map(free).collect();
        let choice = cx.rng.below(candidates.len() as u64) as usize;
        if let Some(&peer) = candidates.get(choice) {
            self.ask(cx, peer, best_locator(tree));
        }
    }

    /// Takes the role from a source that does not answer or does not come to an end.
    fn check_role(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.at;
        let Some(role) = self.role else { return };
        let Some(peer) = self.peers.get(&role.peer) else {
            self.role = None;
            return;
        };
        if role.until <= now {
            let (manual, others) = (peer.manual, self.peers.len() > 1);
            self.finished(role.peer);
            if others && !manual {
                cx.close(role.peer, CloseReason::Timeout("headers"));
            }
        } else if peer.asked_at.is_some_and(|at| at + HEADERS_PATIENCE <= now) && !role.late {
            self.role = Some(Role { late: true, ..role });
            if let Some(peer) = self.peers.get_mut(&role.peer) {
                peer.passed_over = true;
            }
        }
    }
}

/// Whether mainnet headers that follow one at height `parent` belong to the chain that split off.
fn is_foreign(parent: u32, headers: &[Header]) -> bool {
    headers.iter().zip(1..).any(|(header, above): (_, u32)| {
        header.version.to_consensus() < 0 && parent.saturating_add(above) >= FOREIGN_CHAIN_HEIGHT
    })
}

/// Whether a `getheaders` may be sent: none is unanswered, or the last is two minutes old.
fn may_ask(peer: &Peer, now: Timestamp) -> bool {
    peer.asked_at.is_none_or(|at| at + GETHEADERS_INTERVAL <= now)
}

/// The locator of the best header's parent: a peer in step with us answers with one header, not with none.
fn best_locator(tree: &BlockTree) -> Vec<BlockHash> {
    let best = tree.best_header();
    tree.locator(tree.parent(best).unwrap_or(best))
}

#[cfg(test)]
mod tests;
