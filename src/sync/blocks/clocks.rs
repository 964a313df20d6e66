//! The deadlines of the peers that blocks are asked of: each in an ordered structure, so that none is found by looking at
//! all peers; and what is done about those that are due.

use super::BlockScheduler;
use super::source::Suspicion;
use crate::chain::block_tree::BlockTree;
use crate::limits::{BLOCK_TIMEOUT, BLOCKS_IN_FLIGHT_MIN, FROZEN_CHECK, LATE_BLOCK, OVERLADEN};
use crate::peer::timers::Timers;
use crate::peer::{CloseReason, Cx, PeerId};
use crate::time::Timestamp;
use core::time::Duration;

/// The deadlines of all peers, by what happens then.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    /// Since when those that owe blocks have delivered none. One patience is that of all: the first of them goes first.
    waiting: Timers<PeerId>,
    /// When those of them that have delivered none for a while are looked at, to bound what they may owe.
    late: Timers<PeerId>,
    /// When those under suspicion are looked at.
    suspects: Timers<PeerId>,
    /// When a block that they failed to deliver may be asked of them again.
    lacking: Timers<PeerId>,
}

impl Clocks {
    fn forget(&mut self, peer: PeerId) {
        for timers in [&mut self.waiting, &mut self.late, &mut self.suspects, &mut self.lacking] {
            timers.cancel(&peer);
        }
    }
}

impl BlockScheduler {
    /// Sets the clocks of a peer by its present state; after each change of what they depend on.
    pub(super) fn set_clocks(&mut self, peer: PeerId) {
        let clocks = &mut self.clocks;
        let Some(source) = self.sources.get(&peer) else { return clocks.forget(peer) };
        let waiting = source.is_waiting().then_some(source.waiting_since);
        if waiting.is_none() || clocks.waiting.get(&peer) != waiting {
            clocks.waiting.put(peer, waiting);
            clocks.late.cancel(&peer);
        }
        if waiting.is_some() && source.most > BLOCKS_IN_FLIGHT_MIN && clocks.late.get(&peer).is_none() {
            clocks.late.set(peer, source.free_since() + LATE_BLOCK);
        }
        clocks.suspects.put(peer, source.suspected_until());
        clocks.lacking.put(peer, source.lacking.next());
    }

    /// The soonest deadline of any peer. Nobody waits for blocks that a peer lacked unless some are needed (`needy`).
    pub(super) fn next_clock(&self, needy: bool) -> Option<Timestamp> {
        let Clocks { waiting, late, suspects, lacking } = &self.clocks;
        let waiting = waiting.next().map(|since| since + self.patience());
        let lacking = lacking.next().filter(|_| needy);
        [waiting, late.next(), suspects.next(), lacking].into_iter().flatten().min()
    }

    /// Time without a block after which a peer goes: longer the more peers share the link.
    fn patience(&self) -> Duration {
        let others = u32::try_from(self.clocks.waiting.len().saturating_sub(1)).unwrap_or(u32::MAX);
        BLOCK_TIMEOUT.saturating_add((BLOCK_TIMEOUT / 2).saturating_mul(others))
    }

    /// Blocks that peers lacked a while ago may be asked of them again.
    pub(super) fn forget_lacking(&mut self, now: Timestamp) {
        while let Some(peer) = self.clocks.lacking.pop_due(now) {
            let Some(source) = self.sources.get_mut(&peer) else { continue };
            while source.lacking.pop_due(now).is_some() {}
            self.clocks.lacking.put(peer, source.lacking.next());
        }
    }

    /// Bounds what peers may owe that have delivered nothing for long.
    pub(super) fn check_late(&mut self, now: Timestamp) {
        if self.clocks.late.due(now).next().is_none() {
            return;
        }
        let size = self.size.get();
        let usual = self.usual_rate().map(|rate| size.saturating_mul(1_000) / rate);
        while let Some(peer) = self.clocks.late.pop_due(now) {
            let Some(source) = self.sources.get_mut(&peer) else { continue };
            let again = match usual {
                Some(usual) => source.note_wait(now, size, usual),
                None => Some(now + LATE_BLOCK),
            };
            self.clocks.late.put(peer, again);
            self.check_load(peer);
        }
    }

    /// The median speed of those that owe blocks, as far as measured.
    fn usual_rate(&self) -> Option<u64> {
        let rates = self.clocks.waiting.keys().map(|peer| self.speed(*peer));
        let mut rates: Vec<u64> = rates.filter(|&rate| rate > 0).collect();
        rates.sort_unstable();
        rates.get(rates.len() / 2).copied()
    }

    /// Whether a peer owes more than it can deliver, since it became slower, blocks larger, or nothing comes of it; or more
    /// than its score allows.
    pub(super) fn check_load(&mut self, peer: PeerId) {
        let Some(source) = self.sources.get(&peer) else { return };
        let times = if source.rank.isolated { 1 } else { OVERLADEN };
        if source.owes.len() > source.kept(self.size.get()).saturating_mul(times) {
            self.overladen.insert(peer);
        }
    }

    /// Drops peers that are silent, or deliver nothing, while others do. Never one that the host chose.
    pub(super) fn check_sources(&mut self, cx: &mut Cx<'_>, tree: &BlockTree) {
        let now = cx.now.at;
        while let Some(peer) = self.clocks.suspects.pop_due(now) {
            self.check_suspect(cx, tree, peer);
        }
        let patience = self.patience().as_millis() as u64;
        let Some(latest) = now.as_millis().checked_sub(patience).map(Timestamp::from_millis) else { return };
        while let Some(peer) = self.clocks.waiting.pop_due(latest) {
            let Some(source) = self.sources.get_mut(&peer) else { continue };
            let since = core::mem::replace(&mut source.waiting_since, now);
            self.set_clocks(peer);
            if self.others_live(peer, since) {
                self.drop_source(cx, tree, peer, CloseReason::Timeout("block"));
            }
        }
    }

    /// A suspect that was silent at two looks in a row while others were not goes. If nobody else delivers anything either,
    /// it is asked again: those that are asked in its place may be silent for ever.
    fn check_suspect(&mut self, cx: &mut Cx<'_>, tree: &BlockTree, peer: PeerId) {
        let Some(Suspicion { next, proofs }) = self.sources.get(&peer).and_then(|source| source.suspicion)
        else {
            return;
        };
        let since = next.as_millis().saturating_sub(FROZEN_CHECK.as_millis() as u64);
        let alive = self.others_live(peer, Timestamp::from_millis(since));
        let proofs = proofs.saturating_add(1);
        let suspicion = alive.then_some(Suspicion { next: cx.now.at + FROZEN_CHECK, proofs });
        if let Some(source) = self.sources.get_mut(&peer) {
            source.suspicion = suspicion;
        }
        self.set_clocks(peer);
        if !alive {
            self.wake = Some(cx.now.at);
        } else if proofs >= 2 {
            self.drop_source(cx, tree, peer, CloseReason::Stalled);
        }
    }

    /// Whether another peer has shown life since then.
    pub(super) fn others_live(&self, peer: PeerId, since: Timestamp) -> bool {
        self.sources.iter().any(|(&other, source)| other != peer && source.life > since)
    }

    /// Ends the connection to a peer, unless the host chose it; what it owes is needed again.
    pub(super) fn drop_source(
        &mut self,
        cx: &mut Cx<'_>,
        tree: &BlockTree,
        peer: PeerId,
        reason: CloseReason,
    ) {
        let Some(source) = self.sources.get_mut(&peer).filter(|source| !source.manual) else { return };
        source.closing = true;
        source.suspicion = None;
        self.take_all(tree, peer, None);
        self.set_clocks(peer);
        cx.close(peer, reason);
    }

    /// Whether the clocks are what a look at all peers finds.
    #[cfg(test)]
    pub(super) fn check_clocks(&self) {
        let Clocks { waiting, late, suspects, lacking } = &self.clocks;
        for (peer, source) in &self.sources {
            assert_eq!(waiting.get(peer), source.is_waiting().then_some(source.waiting_since));
            assert_eq!(suspects.get(peer), source.suspected_until());
            assert_eq!(lacking.get(peer), source.lacking.next());
            let looked_at = late.get(peer).is_some() || source.most <= BLOCKS_IN_FLIGHT_MIN;
            assert!(looked_at || !source.is_waiting());
        }
        let waits = self.sources.values().filter(|source| source.is_waiting());
        assert_eq!(waits.count(), waiting.len());
        assert!(late.keys().all(|peer| waiting.get(peer).is_some()));
        let suspected = self.sources.values().filter(|source| source.suspected_until().is_some());
        assert_eq!(suspected.count(), suspects.len());
        assert_eq!(self.sources.values().filter(|source| !source.lacking.is_empty()).count(), lacking.len());
    }
}
