//! Headers and blocks for peers who ask, and the news of a new tip.
//!
//! 1. `getheaders`: up to 2,000 headers of the active chain behind the first hash of the locator that is in it; none as long
//!    as our own chain has less than the network's least work.
//! 2. `getdata` for blocks: those of the active chain whose bodies are stored, and of other branches less than a month
//!    behind. Peers take turns, one block each; a few are read at a time, and none for a peer that has not yet taken what it
//!    asked for before. What can't be had is answered by `notfound`.
//! 3. A new tip is announced by `headers` where the peer asked for that (BIP130) and knows what comes before, else by `inv`.
//!    An announcement that could not leave in time is made again, of the tip of then, after a wait that doubles.
//! 4. Blocks older than a week count against the budget of a day, if the host gave one; beyond it who asks for one is left
//!    (Core's `-maxuploadtarget`).
//!
//! 5. Blocks that wait to be sent to all peers together are bounded, too: beyond, none is read, and who takes nothing for a
//!    while is left, so that it does not hold up the others.
//!
//! As Core's net_processing.cpp (`ProcessGetBlockData`, `FindForkInGlobalIndex`, `BlockRequestAllowed`). Left out: `getblocks`,
//! blocks without witnesses (a peer that wants them is told `notfound`), filters, transactions.

use crate::chain::block_tree::{BlockTree, HeaderId, Validity};
use crate::chain::command::{ChainCommand, RawBlock};
use crate::limits::{
    ANNOUNCE_AGAIN_FIRST, ANNOUNCE_AGAIN_MAX, HISTORICAL_BLOCKS, IDLE_CUSTOMER, MAX_ANNOUNCED_HEADERS,
    MAX_HEADERS, MAX_SERVED_READS, MAX_SERVED_REQUESTS, MAX_SERVED_UNSENT, MAX_SERVED_UNSENT_ALL,
    PRUNED_PEER_BLOCKS, STALE_BRANCH_SECONDS,
};
use crate::peer::backoff::Backoff;
use crate::peer::timers::Timers;
use crate::peer::{CloseReason, Cx, PeerId, PeerView};
use crate::time::Timestamp;
use crate::wire::Message;
use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::message_blockdata::{GetHeadersMessage, Inventory};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

/// The time over which the budget is counted.
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// What is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServeConfig {
    /// Whether anything is.
    pub enabled: bool,
    /// Whether old blocks are deleted: only the last 288 are promised (BIP159).
    pub pruned: bool,
    /// Bytes of all kinds a day after which no old blocks are served; `None`: no limit.
    pub upload_budget: Option<u64>,
}

impl ServeConfig {
    /// What we say that we offer.
    pub fn services(&self) -> ServiceFlags {
        match (self.enabled, self.pruned) {
            (false, _) => ServiceFlags::NONE,
            (true, true) => ServiceFlags::WITNESS | ServiceFlags::NETWORK_LIMITED,
            (true, false) => ServiceFlags::NETWORK | ServiceFlags::WITNESS | ServiceFlags::NETWORK_LIMITED,
        }
    }
}

#[derive(Debug, Default)]
struct Customer {
    wants_headers: bool,
    /// Blocks that it has asked for, the first to come.
    queue: VecDeque<BlockHash>,
    /// Whether one of them is being read.
    reading: bool,
    /// Bytes of blocks that wait to be sent.
    unsent: usize,
    /// The best header that we told it of.
    told: Option<HeaderId>,
    /// How long announcements to it wait that found no room, and since when.
    again: Option<(Backoff, Timestamp)>,
}

/// Where the chain stands, as far as serving goes.
#[derive(Clone, Copy, Debug)]
pub struct Shelf {
    /// The proved tip.
    pub tip: HeaderId,
    /// Blocks below this height may be gone.
    pub pruned_below: u32,
}

/// The serving side.
#[derive(Debug)]
pub struct Serving {
    config: ServeConfig,
    customers: BTreeMap<PeerId, Customer>,
    /// Who waits for a block, in the order of their turns.
    turns: VecDeque<PeerId>,
    /// Blocks that are being read, and for whom.
    reading: BTreeMap<BlockHash, Vec<PeerId>>,
    /// When the day of the budget began, and the bytes sent since.
    spent: (Timestamp, u64),
    /// No old blocks are served, whatever the budget says.
    closed: bool,
    /// Bytes of blocks that wait to be sent to all.
    unsent: usize,
    /// When the tip is announced again to those whom it did not reach.
    untold: Timers<PeerId>,
    /// When customers for whom blocks wait have taken nothing of them for too long.
    idle: Timers<PeerId>,
}

impl Serving {
    /// Serves what is configured.
    pub fn new(config: ServeConfig) -> Self {
        Self {
            config,
            customers: BTreeMap::new(),
            turns: VecDeque::new(),
            reading: BTreeMap::new(),
            spent: (Timestamp::ZERO, 0),
            closed: false,
            unsent: 0,
            untold: Timers::new(),
            idle: Timers::new(),
        }
    }

    /// Whether no old blocks are served for another reason than the budget.
    pub fn set_spent(&mut self, spent: bool) {
        self.closed = spent;
    }

    /// What is served.
    pub fn config(&self) -> &ServeConfig {
        &self.config
    }

    /// Requests for blocks that wait, of all peers.
    pub fn waiting(&self) -> usize {
        self.customers.values().map(|customer| customer.queue.len()).sum()
    }

    /// Bytes of blocks that wait to be sent to all peers.
    pub fn unsent(&self) -> usize {
        self.unsent
    }

    /// Whether this peer has got everything that it asked for.
    pub fn owes_nothing(&self, peer: PeerId) -> bool {
        let owes =
            |customer: &Customer| customer.reading || !customer.queue.is_empty() || customer.unsent > 0;
        !self.customers.get(&peer).is_some_and(owes)
    }

    /// A handshake is complete.
    pub fn on_peer_ready(&mut self, peer: PeerId) {
        if self.config.enabled {
            self.customers.insert(peer, Customer::default());
        }
    }

    /// A connection ended.
    pub fn on_peer_gone(&mut self, peer: PeerId) {
        if let Some(customer) = self.customers.remove(&peer) {
            self.unsent = self.unsent.saturating_sub(customer.unsent);
        }
        self.untold.cancel(&peer);
        self.idle.cancel(&peer);
        self.turns.retain(|other| *other != peer);
    }

    /// `sendheaders`.
    pub fn on_send_headers(&mut self, peer: PeerId) {
        if let Some(customer) = self.customers.get_mut(&peer) {
            customer.wants_headers = true;
        }
    }

    /// `getheaders`.
    pub fn on_get_headers(
        &mut self,
        cx: &mut Cx<'_>,
        tree: &BlockTree,
        shelf: Shelf,
        peer: PeerId,
        request: &GetHeadersMessage,
    ) {
        let Some(customer) = self.customers.get_mut(&peer) else { return };
        let tip = shelf.tip;
        if tree.work(tip) < tree.params().minimum_chain_work {
            // A peer that hears nothing would wait for us; one that hears of too little work would leave.
            return cx.send(peer, Message::Headers(Vec::new()));
        }
        let active = |hash: &BlockHash| tree.find(hash).filter(|id| tree.is_ancestor(*id, tip));
        if request.locator_hashes.is_empty() {
            let asked = tree.find(&request.stop_hash).filter(|id| tree.is_ancestor(*id, tip));
            return cx.send(peer, Message::Headers(asked.map(|id| tree.header(id)).into_iter().collect()));
        }
        let fork = request.locator_hashes.iter().find_map(active).unwrap_or(tree.genesis());
        let first = tree.height(fork).saturating_add(1);
        let mut headers: Vec<Header> = Vec::new();
        let mut last = fork;
        for height in first..=tree.height(tip) {
            let Some(id) = tree.ancestor(tip, height).filter(|_| headers.len() < MAX_HEADERS) else { break };
            headers.push(tree.header(id));
            last = id;
            if tree.hash(id) == request.stop_hash {
                break;
            }
        }
        customer.told = Some(last);
        cx.send(peer, Message::Headers(headers));
    }

    /// `getdata`, the part of it that names blocks.
    pub fn on_get_data(
        &mut self,
        cx: &mut Cx<'_>,
        tree: &BlockTree,
        shelf: Shelf,
        peer: PeerId,
        wanted: &[Inventory],
    ) {
        if !self.customers.contains_key(&peer) {
            return;
        }
        let mut absent = Vec::new();
        for item in wanted {
            match item {
                Inventory::WitnessBlock(hash) => match self.judge(cx, tree, shelf, hash) {
                    Verdict::Have => {
                        if !self.enqueue(peer, *hash) {
                            return cx.close(peer, CloseReason::Greedy("asks for too many blocks at once"));
                        }
                    }
                    Verdict::Lack => absent.push(*item),
                    Verdict::Leave(reason) => return cx.close(peer, reason),
                },
                _ => absent.push(*item),
            }
        }
        if !absent.is_empty() {
            cx.send(peer, Message::NotFound(absent));
        }
        self.pump(cx);
    }

    fn judge(&mut self, cx: &Cx<'_>, tree: &BlockTree, shelf: Shelf, hash: &BlockHash) -> Verdict {
        let Some(id) = tree.find(hash).filter(|id| tree.has_body(*id)) else { return Verdict::Lack };
        let (tip, height) = (shelf.tip, tree.height(id));
        let active = tree.is_ancestor(id, tip);
        let age = u64::from(tree.time(tip)).saturating_sub(u64::from(tree.time(id)));
        // Of other branches only what all honest nodes may have at this time, so that nobody is told apart by them.
        if !active && (tree.validity(id) != Validity::Connected || age > STALE_BRANCH_SECONDS) {
            return Verdict::Lack;
        }
        let depth = tree.height(tip).saturating_sub(height);
        if self.config.pruned && depth > PRUNED_PEER_BLOCKS {
            return Verdict::Leave(CloseReason::Greedy("asks for blocks that we do not promise"));
        }
        if height < shelf.pruned_below {
            return Verdict::Lack;
        }
        if depth > HISTORICAL_BLOCKS && (self.is_spent(cx.now.at) || self.closed) {
            return Verdict::Leave(CloseReason::Greedy("asks for old blocks beyond the day's budget"));
        }
        Verdict::Have
    }

    /// Whether the day's budget is used up.
    fn is_spent(&mut self, now: Timestamp) -> bool {
        if now.since(self.spent.0) >= DAY {
            self.spent = (now, 0);
        }
        self.config.upload_budget.is_some_and(|budget| self.spent.1 >= budget)
    }

    /// `false` if it has asked for too many.
    fn enqueue(&mut self, peer: PeerId, hash: BlockHash) -> bool {
        let Some(customer) = self.customers.get_mut(&peer) else { return true };
        if customer.queue.len() >= MAX_SERVED_REQUESTS {
            return false;
        }
        customer.queue.push_back(hash);
        if customer.queue.len() == 1 && !customer.reading {
            self.turns.push_back(peer);
        }
        true
    }

    /// Has blocks read for those whose turn it is.
    fn pump(&mut self, cx: &mut Cx<'_>) {
        for _ in 0..self.turns.len() {
            if self.reading.len() >= MAX_SERVED_READS || self.unsent >= MAX_SERVED_UNSENT_ALL {
                return;
            }
            let Some(peer) = self.turns.pop_front() else { return };
            let Some(customer) = self.customers.get_mut(&peer) else { continue };
            if customer.unsent >= MAX_SERVED_UNSENT {
                self.turns.push_back(peer);
                continue;
            }
            let Some(hash) = customer.queue.pop_front() else { continue };
            customer.reading = true;
            let waiting = self.reading.entry(hash).or_default();
            if waiting.is_empty() {
                cx.command(ChainCommand::ReadBlock(hash));
            }
            waiting.push(peer);
        }
    }

    /// A block was read.
    pub fn on_read(&mut self, cx: &mut Cx<'_>, hash: BlockHash, block: Option<&RawBlock>) {
        for peer in self.reading.remove(&hash).unwrap_or_default() {
            let Some(customer) = self.customers.get_mut(&peer) else { continue };
            customer.reading = false;
            match block {
                // As many may wait for one block as there are peers: what there is no room for is read again.
                Some(_) if self.unsent >= MAX_SERVED_UNSENT_ALL => customer.queue.push_front(hash),
                Some(block) => {
                    if customer.unsent == 0 {
                        self.idle.set(peer, cx.now.at + IDLE_CUSTOMER);
                    }
                    customer.unsent = customer.unsent.saturating_add(block.bytes().len());
                    self.unsent = self.unsent.saturating_add(block.bytes().len());
                    cx.send(peer, Message::Block(block.clone()));
                }
                None => cx.send(peer, Message::NotFound(vec![Inventory::WitnessBlock(hash)])),
            }
            if !customer.queue.is_empty() {
                self.turns.push_back(peer);
            }
        }
        self.pump(cx);
    }

    /// So many bytes have left for a peer.
    pub fn on_flushed(&mut self, cx: &mut Cx<'_>, peer: PeerId, bytes: usize) {
        if self.config.upload_budget.is_some() {
            let _ = self.is_spent(cx.now.at);
            self.spent.1 = self.spent.1.saturating_add(bytes as u64);
        }
        let Some(customer) = self.customers.get_mut(&peer).filter(|customer| customer.unsent > 0) else {
            return;
        };
        let left = bytes.min(customer.unsent);
        customer.unsent -= left;
        let waits = (customer.unsent > 0).then_some(cx.now.at + IDLE_CUSTOMER);
        self.idle.put(peer, waits);
        self.unsent = self.unsent.saturating_sub(left);
        self.pump(cx);
    }

    /// The proved tip changed: tells those who do not know it.
    pub fn announce<'a>(
        &mut self,
        cx: &mut Cx<'_>,
        tree: &BlockTree,
        tip: HeaderId,
        peers: impl Iterator<Item = &'a PeerView>,
    ) {
        for peer in peers {
            let Some(customer) = self.customers.get_mut(&peer.id) else { continue };
            let known = [customer.told, peer.best_known].into_iter().flatten();
            let known = known.map(|id| tree.fork_point(id, tip)).max_by_key(|id| tree.height(*id));
            if known == Some(tip) {
                continue;
            }
            customer.told = Some(tip);
            let first = known.map_or(0, |id| tree.height(id).saturating_add(1));
            let count = tree.height(tip).saturating_sub(first).saturating_add(1) as usize;
            let news = (first..=tree.height(tip)).filter_map(|height| tree.ancestor(tip, height));
            let message = if customer.wants_headers && known.is_some() && count <= MAX_ANNOUNCED_HEADERS {
                Message::Headers(news.map(|id| tree.header(id)).collect())
            } else {
                Message::Inv(vec![Inventory::Block(tree.hash(tip))])
            };
            cx.tell(peer.id, message);
        }
    }

    /// Announcements to this peer were dropped: the tip of then is told later.
    pub fn on_untold(&mut self, cx: &mut Cx<'_>, peer: PeerId) {
        let Some(customer) = self.customers.get_mut(&peer) else { return };
        customer.told = None;
        let fresh = Backoff::new(ANNOUNCE_AGAIN_FIRST, ANNOUNCE_AGAIN_MAX);
        let recent = |since: Timestamp| cx.now.at.since(since) <= 2 * ANNOUNCE_AGAIN_MAX;
        let mut backoff = customer.again.filter(|(_, since)| recent(*since)).map_or(fresh, |(old, _)| old);
        let wait = backoff.fail(cx.rng);
        customer.again = Some((backoff, cx.now.at));
        self.untold.set(peer, cx.now.at + wait);
    }

    /// Who is to be told of the tip again now. Leaves those who hold up the others.
    pub fn take_due(&mut self, cx: &mut Cx<'_>) -> Vec<PeerId> {
        while self.is_crowded()
            && let Some(peer) = self.idle.pop_due(cx.now.at)
        {
            cx.close(peer, CloseReason::Greedy("does not take what it asked for"));
        }
        core::iter::from_fn(|| self.untold.pop_due(cx.now.at)).collect()
    }

    /// Whether somebody waits for others to take their blocks.
    fn is_crowded(&self) -> bool {
        self.unsent >= MAX_SERVED_UNSENT_ALL && !self.turns.is_empty()
    }

    /// When [`Self::take_due`] has something to do.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let idle = self.idle.next().filter(|_| self.is_crowded());
        [self.untold.next(), idle].into_iter().flatten().min()
    }
}

enum Verdict {
    Have,
    Lack,
    Leave(CloseReason),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::{Demand, Effect, Wishes};
    use crate::rng::Rng;
    use crate::time::Now;
    use bitcoin::consensus::serialize;
    use std::sync::Arc;

    /// A chain of forged headers whose bodies are all "stored".
    struct Scene {
        tree: BlockTree,
        chain: Vec<HeaderId>,
        serving: Serving,
        shelf: Shelf,
        now: Timestamp,
        out: Wishes,
        rng: Rng,
    }

    fn scene(length: usize, config: ServeConfig) -> Scene {
        let params = Arc::new(crate::chain::params::Params::new(crate::chain::params::Network::Regtest));
        let mut tree = BlockTree::new(params.clone(), [1, 2]);
        let mut chain = vec![tree.genesis()];
        let mut header = *params.genesis_header();
        for _ in 0..length {
            header = Header { prev_blockhash: header.block_hash(), time: header.time + 600, ..header };
            let id = tree.insert(chain[chain.len() - 1], &header);
            tree.body_stored(id);
            tree.connected(id);
            chain.push(id);
        }
        let shelf = Shelf { tip: chain[length], pruned_below: 0 };
        let mut serving = Serving::new(ServeConfig { enabled: true, ..config });
        for peer in 1..=3 {
            serving.on_peer_ready(PeerId(peer));
        }
        let (now, out, rng) = (Timestamp::ZERO, Wishes::default(), Rng::from_number(1));
        Scene { tree, chain, serving, shelf, now, out, rng }
    }

    impl Scene {
        fn with<T>(&mut self, act: impl FnOnce(&mut Serving, &mut Cx<'_>, &BlockTree, Shelf) -> T) -> T {
            let now = Now { at: self.now, unix: 0 };
            let mut cx = Cx { now, rng: &mut self.rng, out: &mut self.out };
            act(&mut self.serving, &mut cx, &self.tree, self.shelf)
        }

        fn hash(&self, height: usize) -> BlockHash {
            self.tree.hash(self.chain[height])
        }

        fn ask(&mut self, peer: u64, heights: impl IntoIterator<Item = usize>) {
            let wanted: Vec<_> =
                heights.into_iter().map(|height| Inventory::WitnessBlock(self.hash(height))).collect();
            self.with(|serving, cx, tree, shelf| serving.on_get_data(cx, tree, shelf, PeerId(peer), &wanted));
        }

        fn headers(&mut self, locator: Vec<BlockHash>, stop: Option<BlockHash>) -> Vec<Header> {
            let stop_hash = stop.unwrap_or_else(bitcoin::hashes::Hash::all_zeros);
            let request = GetHeadersMessage { version: 70_016, locator_hashes: locator, stop_hash };
            self.with(|serving, cx, tree, shelf| {
                serving.on_get_headers(cx, tree, shelf, PeerId(1), &request);
            });
            match self.sent().pop() {
                Some((PeerId(1), Message::Headers(headers))) => headers,
                other => panic!("{other:?}"),
            }
        }

        fn sent(&mut self) -> Vec<(PeerId, Message)> {
            let sent = |effect| match effect {
                Effect::Send(peer, message) | Effect::Tell(peer, message) => Some((peer, message)),
                Effect::Command(_) => None,
            };
            core::mem::take(&mut self.out.effects).into_iter().filter_map(sent).collect()
        }

        /// Reads that were asked for, by height.
        fn reads(&mut self) -> Vec<u32> {
            let read = |effect| match effect {
                Effect::Command(ChainCommand::ReadBlock(hash)) => {
                    Some(self.tree.height(self.tree.find(&hash)?))
                }
                _ => None,
            };
            core::mem::take(&mut self.out.effects).into_iter().filter_map(read).collect()
        }

        /// The body of a height, with padding.
        fn deliver(&mut self, height: u32, bytes: usize) {
            let id = self.chain[height as usize];
            let mut raw = serialize(&self.tree.header(id));
            raw.resize(80 + bytes, 0);
            let (raw, hash) = (RawBlock::new(raw).unwrap(), self.tree.hash(id));
            self.with(|serving, cx, _, _| serving.on_read(cx, hash, Some(&raw)));
        }
    }

    #[test]
    fn headers_follow_the_locator_up_to_the_stop_or_the_tip() {
        let mut scene = scene(2_500, ServeConfig::default());
        let all = scene.headers(vec![scene.hash(0)], None);
        assert_eq!((all.len(), all[0].block_hash()), (2_000, scene.hash(1)));
        let next = scene.headers(vec![scene.hash(2_000), scene.hash(0)], None);
        assert_eq!((next.len(), next[499].block_hash()), (500, scene.hash(2_500)));
        assert_eq!(scene.headers(vec![scene.hash(2_500)], None), []);
        let unknown = bitcoin::hashes::Hash::from_byte_array([7; 32]);
        assert_eq!(scene.headers(vec![unknown], None).len(), 2_000, "from genesis on");
        assert_eq!(scene.headers(vec![scene.hash(5)], Some(scene.hash(8))).len(), 3);
        assert_eq!(scene.headers(vec![], Some(scene.hash(8)))[0].block_hash(), scene.hash(8));
        assert_eq!(scene.headers(vec![], Some(unknown)), []);
    }

    #[test]
    fn peers_take_turns_and_one_that_does_not_read_waits() {
        let mut scene = scene(50, ServeConfig::default());
        scene.ask(1, 1..=40);
        scene.ask(2, 41..=42);
        scene.ask(3, [41]);
        assert_eq!(scene.reads(), [1, 41], "one each, and one read for two who want the same");
        scene.deliver(1, MAX_SERVED_UNSENT);
        scene.deliver(41, 100);
        let sent = scene.out.effects.iter().filter(|effect| matches!(effect, Effect::Send(..))).count();
        assert_eq!(sent, 3);
        assert_eq!(scene.reads(), [42], "the first has not taken its block yet");
        scene.with(|serving, cx, _, _| serving.on_flushed(cx, PeerId(1), MAX_SERVED_UNSENT));
        assert_eq!(scene.reads(), [2]);
        let hash = scene.hash(2);
        scene.with(|serving, cx, _, _| serving.on_read(cx, hash, None));
        assert!(
            scene
                .out
                .effects
                .contains(&Effect::Send(PeerId(1), Message::NotFound(vec![Inventory::WitnessBlock(hash)])))
        );
        assert_eq!(scene.reads(), [3]);
    }

    #[test]
    fn what_is_not_there_is_said_and_greed_ends_the_connection() {
        let mut scene = scene(400, ServeConfig { pruned: true, ..ServeConfig::default() });
        scene.shelf.pruned_below = 200;
        scene.ask(1, [150]);
        assert_eq!(
            scene.sent(),
            [(PeerId(1), Message::NotFound(vec![Inventory::WitnessBlock(scene.hash(150))]))]
        );
        scene.ask(1, [400 - PRUNED_PEER_BLOCKS as usize - 1]);
        assert!(matches!(scene.out.demands.pop(), Some(Demand::Close(PeerId(1), CloseReason::Greedy(_)))));
        scene.ask(2, std::iter::repeat_n(300, MAX_SERVED_REQUESTS));
        assert!(scene.out.demands.is_empty());
        scene.ask(2, [300, 300]);
        assert!(matches!(scene.out.demands.pop(), Some(Demand::Close(PeerId(2), CloseReason::Greedy(_)))));
        let legacy = [Inventory::Block(scene.hash(300))];
        scene.out.effects.clear();
        scene.with(|serving, cx, tree, shelf| serving.on_get_data(cx, tree, shelf, PeerId(3), &legacy));
        assert_eq!(scene.sent(), [(PeerId(3), Message::NotFound(legacy.to_vec()))]);
    }

    #[test]
    fn the_days_budget_is_for_recent_blocks_once_it_is_used_up() {
        let mut scene = scene(1_200, ServeConfig { upload_budget: Some(1_000), ..ServeConfig::default() });
        scene.ask(1, [1]);
        assert_eq!(scene.reads(), [1]);
        scene.deliver(1, 900);
        scene.with(|serving, cx, _, _| serving.on_flushed(cx, PeerId(1), 1_000));
        scene.ask(1, [1_199]);
        assert_eq!(scene.reads(), [1_199], "a recent block");
        assert!(scene.out.demands.is_empty());
        scene.ask(1, [2]);
        assert!(matches!(scene.out.demands.pop(), Some(Demand::Close(PeerId(1), CloseReason::Greedy(_)))));
        scene.now = scene.now + DAY;
        scene.ask(2, [2]);
        assert!(scene.out.demands.is_empty());
    }

    #[test]
    fn what_waits_for_all_is_bounded_and_who_takes_nothing_is_left() {
        let mut scene = scene(100, ServeConfig::default());
        let peers = 4..=60;
        peers.clone().for_each(|peer| scene.serving.on_peer_ready(PeerId(peer)));
        // Each wants the same block of a megabyte, and takes none of it.
        peers.clone().for_each(|peer| scene.ask(peer, [7]));
        assert_eq!(scene.reads(), [7]);
        scene.deliver(7, 1_000_000);
        let served: Vec<PeerId> = scene.sent().into_iter().map(|(peer, _)| peer).collect();
        assert_eq!(served.len(), MAX_SERVED_UNSENT_ALL / 1_000_080 + 1);
        assert_eq!(scene.serving.waiting(), 57 - served.len(), "none is forgotten");
        assert!(scene.reads().is_empty(), "nor read for nobody");
        // The first takes some of it in time; the others are left, so that others have their turn.
        scene.now = scene.now + Duration::from_secs(10);
        scene.with(|serving, cx, _, _| serving.on_flushed(cx, served[0], 100));
        assert_eq!(scene.serving.next_deadline(), Some(Timestamp::ZERO + IDLE_CUSTOMER));
        scene.now = Timestamp::ZERO + IDLE_CUSTOMER;
        scene.with(|serving, cx, _, _| assert_eq!(serving.take_due(cx), []));
        let left: Vec<PeerId> = core::mem::take(&mut scene.out.demands)
            .into_iter()
            .map(|demand| match demand {
                Demand::Close(peer, CloseReason::Greedy(_)) => peer,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(left, served[1..]);
        left.iter().for_each(|peer| scene.serving.on_peer_gone(*peer));
        scene.with(|serving, cx, _, _| serving.on_flushed(cx, served[0], 2_000_000));
        assert_eq!(scene.reads(), [7]);
        scene.deliver(7, 1_000_000);
        assert_eq!(scene.sent().len(), MAX_SERVED_UNSENT_ALL / 1_000_080 + 1);
    }

    #[test]
    fn an_announcement_that_found_no_room_is_made_again_ever_more_slowly() {
        let mut scene = scene(20, ServeConfig::default());
        let mut waits = Vec::new();
        for _ in 0..8 {
            scene.with(|serving, cx, _, _| serving.on_untold(cx, PeerId(1)));
            let due = scene.serving.next_deadline().unwrap();
            waits.push(due.since(scene.now));
            scene.now = due;
            scene.with(|serving, cx, _, _| assert_eq!(serving.take_due(cx), [PeerId(1)]));
        }
        let within = |(n, wait): (u32, &Duration)| {
            let bound = (ANNOUNCE_AGAIN_FIRST * 2u32.pow(n)).min(ANNOUNCE_AGAIN_MAX);
            bound / 2 <= *wait && *wait <= bound
        };
        assert!((0..).zip(&waits).all(within), "{waits:?}");
        scene.now = scene.now + ANNOUNCE_AGAIN_MAX * 3;
        scene.with(|serving, cx, _, _| serving.on_untold(cx, PeerId(1)));
        assert!(scene.serving.next_deadline().unwrap().since(scene.now) <= ANNOUNCE_AGAIN_FIRST);
        scene.serving.on_peer_gone(PeerId(1));
        assert_eq!(scene.serving.next_deadline(), None);
    }

    #[test]
    fn a_new_tip_is_told_by_headers_or_inv_to_those_who_lack_it() {
        let mut scene = scene(20, ServeConfig::default());
        let view = |id: u64, best: Option<HeaderId>| PeerView {
            id: PeerId(id),
            address: crate::peer::PeerAddress::Name("a".into(), 1),
            ready: true,
            kind: crate::peer::ConnectionKind::Inbound,
            services: ServiceFlags::NONE,
            start_height: 0,
            best_known: best,
        };
        scene.serving.on_send_headers(PeerId(1));
        scene.serving.on_send_headers(PeerId(2));
        let chain = scene.chain.clone();
        let views = [view(1, Some(chain[18])), view(2, Some(chain[5])), view(3, Some(chain[19]))];
        scene.with(|serving, cx, tree, shelf| serving.announce(cx, tree, shelf.tip, views.iter()));
        let tip = Inventory::Block(scene.hash(20));
        let headers = [19, 20].map(|height| scene.tree.header(chain[height])).to_vec();
        let expected = [
            (PeerId(1), Message::Headers(headers)),
            (PeerId(2), Message::Inv(vec![tip])),
            (PeerId(3), Message::Inv(vec![tip])),
        ];
        assert_eq!(scene.sent(), expected);
        scene.with(|serving, cx, tree, shelf| serving.announce(cx, tree, shelf.tip, views.iter()));
        assert_eq!(scene.sent(), [], "once");
        scene.serving.customers.get_mut(&PeerId(3)).unwrap().told = None;
        let has_it = [view(3, Some(chain[20]))];
        scene.with(|serving, cx, tree, shelf| serving.announce(cx, tree, shelf.tip, has_it.iter()));
        assert_eq!(scene.sent(), [], "it has it");
    }
}
