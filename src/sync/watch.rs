//! Whether the peers that we chose are worth their places, and whether the tip is stale.
//!
//! 1. A peer of our own accord whose best block has less work than our tip is given twenty minutes to come to where our
//!    tip was; then it is asked for headers once more, and two minutes later it goes. Four that have shown a chain as good
//!    as ours stay whatever they do later, so that a fault of ours can't cost us all peers.
//! 2. If no block has come for as long as three blocks usually take, and none is on its way, the tip is *stale*: one more
//!    peer is wanted, who may know more.
//! 3. With one more than the target, the one who was the last to announce a block longest ago goes, of several that have
//!    announced none the one with the lowest score, after half a minute
//!    for the newcomer; then the tip counts as stale no more.
//!
//! As Core's net_processing.cpp (`ConsiderEviction`, `CheckForStaleTipAndEvictPeers`, `EvictExtraOutboundPeers`), but each
//! has its own deadline. Peers that the host chose, and those that came to us, are not looked at.

use crate::chain::block_tree::{BlockTree, HeaderId};
use crate::limits::{
    BEHIND_TIMEOUT, EXTRA_PEER_CHECK, EXTRA_PEER_LEAST, HEADERS_LAST_CHANCE, MAX_PROTECTED_PEERS,
    STALE_BLOCKS, STALE_CHECK,
};
use crate::peer::timers::Timers;
use crate::peer::{CloseReason, ConnectionKind, Cx, Demand, PeerId, PeerView};
use crate::time::Timestamp;
use core::time::Duration;
use std::collections::BTreeMap;

/// A peer whose chain is worse than ours.
#[derive(Clone, Copy, Debug)]
struct Behind {
    until: Timestamp,
    /// What it has to reach.
    than: HeaderId,
    asked: bool,
}

#[derive(Debug)]
struct Watched {
    full: bool,
    since: Timestamp,
    best: Option<HeaderId>,
    /// When it last announced a block that was better than our tip.
    announced: Option<Timestamp>,
    behind: Option<Behind>,
    protected: bool,
}

/// The watch over the peers of our own accord.
#[derive(Debug)]
pub struct PeerWatch {
    peers: BTreeMap<PeerId, Watched>,
    /// When those that are behind are looked at again.
    deadlines: Timers<PeerId>,
    target: usize,
    tip: HeaderId,
    /// How long no block may come.
    patience: Duration,
    /// When to look whether the tip is stale; `None` before the first sync.
    next_stale: Option<Timestamp>,
    next_extra: Option<Timestamp>,
    stale: bool,
}

impl PeerWatch {
    /// A watch that wants this many full peers.
    pub fn new(target: usize, tip: HeaderId, tree: &BlockTree) -> Self {
        let spacing = Duration::from_secs(u64::from(tree.params().pow_target_spacing));
        Self {
            peers: BTreeMap::new(),
            deadlines: Timers::new(),
            target,
            tip,
            patience: spacing * STALE_BLOCKS,
            next_stale: None,
            next_extra: None,
            stale: false,
        }
    }

    /// Whether one more peer is wanted because the tip is stale.
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// A handshake is complete.
    pub fn on_peer_ready(&mut self, cx: &mut Cx<'_>, tree: &BlockTree, peer: &PeerView) {
        if !peer.kind.is_our_choice() {
            return;
        }
        let (full, since) = (peer.kind == ConnectionKind::FullRelay, cx.now.at);
        let watched = Watched { full, since, best: None, announced: None, behind: None, protected: false };
        self.peers.insert(peer.id, watched);
        self.consider(cx, tree, peer.id);
        if self.has_extra() {
            self.next_extra.get_or_insert(cx.now.at + EXTRA_PEER_CHECK);
        }
    }

    /// A connection ended.
    pub fn on_peer_gone(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
        self.deadlines.cancel(&peer);
        if !self.has_extra() {
            self.next_extra = None;
        }
    }

    /// A peer has this header.
    pub fn on_peer_has(&mut self, cx: &mut Cx<'_>, tree: &BlockTree, peer: PeerId, header: HeaderId) {
        let protected = self.peers.values().filter(|peer| peer.protected).count();
        let Some(watched) = self.peers.get_mut(&peer) else { return };
        let work = tree.work(header);
        if watched.best.is_none_or(|best| tree.work(best) < work) {
            if work > tree.work(self.tip) {
                watched.announced = Some(cx.now.at);
            }
            watched.best = Some(header);
        }
        if watched.full && work >= tree.work(self.tip) && protected < MAX_PROTECTED_PEERS {
            (watched.protected, watched.behind) = (true, None);
            self.deadlines.cancel(&peer);
        }
        self.consider(cx, tree, peer);
    }

    /// The proved tip changed.
    pub fn on_tip(&mut self, cx: &mut Cx<'_>, tree: &BlockTree, tip: HeaderId) {
        self.tip = tip;
        self.stale = false;
        if self.next_stale.is_some() {
            self.next_stale = Some(cx.now.at + self.patience);
        }
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        for peer in peers {
            self.consider(cx, tree, peer);
        }
    }

    /// The headers are as far as those of the peers: from now on a tip can be stale.
    pub fn on_synced(&mut self, now: Timestamp) {
        self.next_stale.get_or_insert(now + self.patience);
    }

    /// Does what is due. `in_flight` tells how many blocks a peer, or all of them, owe; `score`, how useful a peer is.
    pub fn on_timer(
        &mut self,
        cx: &mut Cx<'_>,
        tree: &BlockTree,
        in_flight: impl Fn(Option<PeerId>) -> usize,
        score: impl Fn(PeerId) -> u8,
    ) {
        let now = cx.now.at;
        while let Some(peer) = self.deadlines.pop_due(now) {
            self.consider(cx, tree, peer);
        }
        if self.next_stale.is_some_and(|at| at <= now) {
            self.stale |= in_flight(None) == 0;
            self.next_stale = Some(now + STALE_CHECK);
        }
        if self.next_extra.is_some_and(|at| at <= now) {
            self.next_extra = self.has_extra().then_some(now + EXTRA_PEER_CHECK);
            self.drop_extra(cx, in_flight, score);
        }
    }

    fn has_extra(&self) -> bool {
        self.peers.values().filter(|peer| peer.full).count() > self.target
    }

    fn drop_extra(
        &mut self,
        cx: &mut Cx<'_>,
        in_flight: impl Fn(Option<PeerId>) -> usize,
        score: impl Fn(PeerId) -> u8,
    ) {
        if !self.has_extra() {
            return;
        }
        let may_go = self.peers.iter().filter(|(_, peer)| peer.full && !peer.protected);
        let worst = may_go.min_by_key(|(id, peer)| (peer.announced, score(**id), u64::MAX - id.0));
        let Some((&id, peer)) = worst else { return };
        if cx.now.at.since(peer.since) > EXTRA_PEER_LEAST && in_flight(Some(id)) == 0 {
            cx.close(id, CloseReason::Replaced);
            self.stale = false;
        }
    }

    /// Looks whether a peer is in step with our tip, and if not, since when.
    fn consider(&mut self, cx: &mut Cx<'_>, tree: &BlockTree, id: PeerId) {
        let (tip, now) = (self.tip, cx.now.at);
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| !peer.protected) else { return };
        let reached = |header: HeaderId| peer.best.is_some_and(|best| tree.work(best) >= tree.work(header));
        let behind = match peer.behind {
            _ if reached(tip) => None,
            Some(behind) if !reached(behind.than) => {
                if behind.until > now {
                    return;
                }
                if behind.asked {
                    cx.close(id, CloseReason::Behind);
                    None
                } else {
                    cx.out.demands.push(Demand::FetchHeaders(id));
                    Some(Behind { until: now + HEADERS_LAST_CHANCE, asked: true, ..behind })
                }
            }
            _ => Some(Behind { until: now + BEHIND_TIMEOUT, than: tip, asked: false }),
        };
        peer.behind = behind;
        self.deadlines.put(id, behind.map(|behind| behind.until));
    }

    /// When there is something to do.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        [self.deadlines.next(), self.next_stale, self.next_extra].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Wishes;
    use crate::rng::Rng;
    use crate::sync::forged;
    use crate::time::Now;

    struct Scene {
        tree: BlockTree,
        chain: Vec<HeaderId>,
        watch: PeerWatch,
        now: Timestamp,
        out: Wishes,
        rng: Rng,
    }

    impl Scene {
        fn with<T>(&mut self, act: impl FnOnce(&mut PeerWatch, &mut Cx<'_>, &BlockTree) -> T) -> T {
            let now = Now { at: self.now, unix: 0 };
            let mut cx = Cx { now, rng: &mut self.rng, out: &mut self.out };
            act(&mut self.watch, &mut cx, &self.tree)
        }

        fn ready(&mut self, id: u64, kind: ConnectionKind) {
            let peer = PeerView { id: PeerId(id), kind, ..forged::view(id, 0) };
            self.with(|watch, cx, tree| watch.on_peer_ready(cx, tree, &peer));
        }

        fn has(&mut self, id: u64, height: usize) {
            let header = self.chain[height];
            self.with(|watch, cx, tree| watch.on_peer_has(cx, tree, PeerId(id), header));
        }

        fn tip(&mut self, height: usize) {
            let header = self.chain[height];
            self.with(|watch, cx, tree| watch.on_tip(cx, tree, header));
        }

        /// Runs its timers for so long; what it wanted.
        fn run(&mut self, wait: Duration, in_flight: usize) -> Vec<Demand> {
            let end = self.now + wait;
            while let Some(at) = self.watch.next_deadline().filter(|at| *at <= end) {
                self.now = self.now.max(at);
                self.with(|watch, cx, tree| watch.on_timer(cx, tree, |_| in_flight, |_| 50));
            }
            self.now = end;
            core::mem::take(&mut self.out.demands)
        }
    }

    fn scene() -> Scene {
        let params = forged::params(0);
        let mut tree = forged::tree(&params);
        let headers = forged::chain(&params, params.genesis_header(), 20, 1);
        let genesis = tree.best_header();
        let chain = headers.iter().map(|header| forged::insert(&mut tree, core::slice::from_ref(header)));
        let chain: Vec<HeaderId> = core::iter::once(genesis).chain(chain).collect();
        let watch = PeerWatch::new(2, chain[10], &tree);
        let (now, out, rng) = (Timestamp::ZERO, Wishes::default(), Rng::from_number(1));
        Scene { tree, chain, watch, now, out, rng }
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_peer_that_stays_behind_is_asked_once_more_and_goes() {
        let mut scene = scene();
        scene.ready(1, ConnectionKind::FullRelay);
        scene.ready(2, ConnectionKind::BlockRelayOnly);
        scene.ready(3, ConnectionKind::Manual);
        scene.ready(4, ConnectionKind::Inbound);
        scene.has(1, 9);
        scene.has(2, 10);
        assert_eq!(scene.run(MINUTE * 19, 0), []);
        assert_eq!(scene.run(MINUTE * 2, 0), [Demand::FetchHeaders(PeerId(1))]);
        assert_eq!(scene.run(MINUTE * 2, 0), [Demand::Close(PeerId(1), CloseReason::Behind)]);
        assert_eq!(scene.run(MINUTE * 60, 0), []);
    }

    #[test]
    fn a_peer_that_comes_to_where_the_tip_was_gets_more_time_and_one_in_step_stays() {
        let mut scene = scene();
        scene.ready(1, ConnectionKind::BlockRelayOnly);
        scene.has(1, 9);
        scene.run(MINUTE * 15, 0);
        scene.tip(12);
        scene.has(1, 10);
        assert_eq!(scene.run(MINUTE * 15, 0), [], "it has moved");
        scene.has(1, 12);
        assert_eq!(scene.run(MINUTE * 60, 0), []);
        // The first four full ones that were in step are kept, though they fall behind.
        for id in 2..=6 {
            scene.ready(id, ConnectionKind::FullRelay);
            scene.has(id, 12);
        }
        scene.watch.target = 9;
        scene.tip(15);
        let gone = scene.run(MINUTE * 60, 0);
        assert!(gone.contains(&Demand::Close(PeerId(6), CloseReason::Behind)));
        assert!(!(2..=5).any(|id| gone.contains(&Demand::Close(PeerId(id), CloseReason::Behind))));
    }

    #[test]
    fn a_stale_tip_wants_one_more_peer_and_the_least_useful_goes() {
        let mut scene = scene();
        scene.ready(1, ConnectionKind::FullRelay);
        scene.ready(2, ConnectionKind::FullRelay);
        scene.watch.peers.values_mut().for_each(|peer| peer.protected = false);
        scene.run(MINUTE * 90, 0);
        assert!(!scene.watch.is_stale(), "not before the first sync");
        let now = scene.now;
        scene.watch.on_synced(now);
        scene.run(MINUTE * 29, 0);
        assert!(!scene.watch.is_stale());
        scene.run(MINUTE * 2, 3);
        assert!(!scene.watch.is_stale(), "blocks are on their way");
        scene.run(MINUTE * 11, 0);
        assert!(scene.watch.is_stale());
        scene.tip(11);
        assert!(!scene.watch.is_stale());
        for (id, height) in [(1, 12), (2, 13)] {
            scene.has(id, height);
            scene.run(MINUTE, 0);
        }
        scene.run(MINUTE * 60, 0);
        assert!(scene.watch.is_stale());
        scene.ready(3, ConnectionKind::FullRelay);
        scene.watch.peers.values_mut().for_each(|peer| peer.protected = false);
        assert_eq!(scene.run(MINUTE, 1), [], "the newcomer owes blocks");
        scene.has(3, 14);
        scene.watch.peers.values_mut().for_each(|peer| peer.protected = false);
        let gone = scene.run(MINUTE, 0);
        assert!(gone.contains(&Demand::Close(PeerId(1), CloseReason::Replaced)), "{gone:?}");
        assert!(!scene.watch.is_stale());
    }

    #[test]
    fn nothing_is_due_where_nothing_can_happen() {
        let mut scene = scene();
        scene.ready(1, ConnectionKind::Inbound);
        assert_eq!(scene.watch.next_deadline(), None);
    }
}
