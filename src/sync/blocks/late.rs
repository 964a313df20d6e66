//! The other half of the scheduler: deliveries and reports, and what is done about peers that are late.

use super::source::{Source, Suspicion};
use super::{Arrived, BlockScheduler, Flight, Stall};
use crate::chain::block_tree::{BlockTree, HeaderId};
use crate::chain::command::BlockRef;
use crate::error::{Reject, RejectKind};
use crate::limits::{
    BLOCK_REQUESTS_MAX, FROZEN_CHECK, HEDGE_DOUBLINGS, HEDGE_FASTER, HEDGE_LATER, HEDGE_LEAD, HEDGE_MIN,
    SEGMENT_KEEP, SEGMENT_TIMEOUT, SENDERS_MAX, SILENCE, STALL_TIMEOUT_MAX, STRIKES_MAX,
    UNASKED_BLOCKS_AHEAD,
};
use crate::peer::score::{Saved, Scores};
use crate::peer::{CloseReason, Cx, Fault, PeerId};
use crate::time::{Now, Timestamp};
use core::time::Duration;

/// Whether a peer was asked for a block that it delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owed {
    Still,
    /// It was taken away from it.
    Once,
    Never,
}

impl BlockScheduler {
    // ---- deliveries and reports ----

    /// Measures a delivery: the peer's speed and the time it took, if it owed the block.
    pub(super) fn note_delivery(&mut self, now: Timestamp, peer: PeerId, id: HeaderId, bytes: u64) {
        let Some(source) = self.sources.get_mut(&peer) else { return };
        let owed = source.owes.contains(&id);
        if !owed && !source.came_late(now, id) {
            return self.on_other(peer, bytes);
        }
        source.life = now;
        source.suspicion = None;
        source.most = usize::MAX;
        let speed = source.meter.delivered(now, bytes);
        if !owed {
            return self.note_speed(now, peer, speed);
        }
        let free_since = source.free_since();
        source.waiting_since = now;
        source.strikes = 0;
        source.overtaken = 0;
        source.owed_for = Duration::ZERO;
        self.size.push(bytes);
        let asked = self.flights.get(&id).and_then(|flight| flight.requests.iter().find(|r| r.peer == peer));
        let Some(&request) = asked else { return };
        self.times.push(now.since(request.at));
        let response = now.since(request.at.max(free_since));
        self.responses.push(response);
        self.score(peer, |scores| scores.on_response(peer, response.as_millis() as u64));
        self.note_speed(now, peer, speed);
    }

    /// Tells the scores of a peer's speed, if it was measured anew.
    fn note_speed(&mut self, now: Timestamp, peer: PeerId, speed: Option<(u64, u64)>) {
        if let Some((speed, millis)) = speed {
            self.score(peer, |scores| scores.on_speed(peer, speed, millis, now));
        }
    }

    // ---- scores ----

    /// Tells the scores something of a peer, and takes what follows for its place.
    pub(super) fn score(&mut self, peer: PeerId, tell: impl FnOnce(&mut Scores)) {
        tell(&mut self.scores);
        if let Some(source) = self.sources.get_mut(&peer) {
            source.rank = self.scores.rank(peer);
            self.check_load(peer);
        }
    }

    /// A peer's blocks are taken away from it, which it has owed without delivering any for a while.
    pub(super) fn note_stall(&mut self, peer: PeerId, now: Timestamp) {
        let Some(source) = self.sources.get(&peer) else { return };
        let waited = now.since(source.waiting_since).as_millis() as u64;
        self.score(peer, |scores| scores.on_stall(peer, waited, now));
    }

    /// Peers that owe more than they may by now keep the lowest blocks; the others are asked of whoever has room for them,
    /// if anybody has.
    pub(super) fn relieve(&mut self, tree: &BlockTree, now: Timestamp) {
        while let Some(peer) = self.overladen.pop_first() {
            let Some(source) = self.sources.get(&peer) else { continue };
            let mut owed: Vec<(u32, HeaderId)> =
                source.owes.iter().map(|&id| (tree.height(id), id)).collect();
            owed.sort_unstable();
            for &(height, id) in owed.iter().skip(source.kept(self.size.get())) {
                if self.has_other(peer, height, id, true) {
                    self.take_away(tree, peer, id, Some(now));
                }
            }
        }
    }

    /// A connection ended, for this reason; before [`Self::on_peer_gone`].
    pub fn note_end(&mut self, peer: PeerId, reason: &CloseReason, now: Now) {
        let owing = self.in_flight(Some(peer)) > 0;
        self.scores.on_gone(peer, reason, owing, now);
    }

    /// A peer whose score is low stays: it is looked at again later.
    pub fn pardon(&mut self, peer: PeerId, now: Timestamp) {
        self.score(peer, |scores| scores.pardon(peer, now));
        self.wake = Some(now);
    }

    /// Takes over what an earlier run has learnt.
    pub fn restore_scores(&mut self, saved: Saved) {
        self.scores.restore(saved);
    }

    /// What is to be kept of the scores, if it changed.
    pub fn take_scores(&mut self, now: Now) -> Option<Vec<u8>> {
        self.scores.take_changed(now)
    }

    /// Whether a peer was asked for a block: it owes it, or it was taken away from it a while ago.
    pub(super) fn owed(&self, peer: PeerId, id: HeaderId) -> Owed {
        match self.sources.get(&peer) {
            Some(source) if source.owes.contains(&id) => Owed::Still,
            Some(source) if source.owed_once(id) => Owed::Once,
            _ => Owed::Never,
        }
    }

    /// Counts what a delivery was worth.
    pub(super) fn note_use(
        &mut self,
        now: Timestamp,
        peer: PeerId,
        id: HeaderId,
        bytes: u64,
        useful: bool,
        repeated: bool,
    ) {
        self.score(peer, |scores| {
            scores.on_bytes(peer, bytes, useful);
            if repeated {
                scores.on_repeated(peer, id, now);
            }
        });
    }

    /// Whether anybody who delivers is not low.
    pub(super) fn has_better(&self) -> bool {
        self.sources.values().any(|source| source.usable() && source.delivers() && source.rank.part == 1)
    }

    /// The height from which isolated peers are asked: no better one has the blocks there.
    pub(super) fn least_for_isolated(&self) -> u32 {
        let better = self.sources.values().filter(|source| source.usable() && !source.rank.isolated);
        better.filter(|source| source.full).map(|source| source.reach.saturating_add(1)).max().unwrap_or(0)
    }

    /// Counts who was asked for a block before the peer that delivers it. A visitor that is asked for the next block alone
    /// says nothing of who is asked for all others.
    pub(super) fn note_overtaken(&mut self, now: Timestamp, peer: PeerId, id: HeaderId) {
        if self.sources.get(&peer).is_some_and(|source| source.inbound) && !self.takes_strangers() {
            return;
        }
        let Some(flight) = self.flights.get(&id) else { return };
        let Some(asked) = flight.requests.iter().find(|request| request.peer == peer) else { return };
        for earlier in flight.requests.iter().filter(|request| request.at < asked.at) {
            if let Some(source) = self.sources.get_mut(&earlier.peer) {
                source.overtaken = source.overtaken.saturating_add(1);
                source.owed_for = now.since(source.waiting_since);
                self.scores.on_overtaken(earlier.peer);
            }
        }
    }

    /// Whether a peer sends what only others were asked for. It is not looked at, or false bodies from one
    /// peer would cancel what honest peers are sending. What was asked of it and taken away may still come.
    pub(super) fn is_intrusion(&self, peer: PeerId, id: HeaderId) -> bool {
        self.owed(peer, id) == Owed::Never && self.flights.contains_key(&id)
    }

    /// Whether a block that nobody was asked for is kept: it fits, and is near the tip and has at least the
    /// tip's work, or is in the window.
    pub(super) fn wants_unasked(&self, tree: &BlockTree, id: HeaderId, bytes: u64) -> bool {
        let work = tree.work(id);
        let near = tree.height(id) <= self.tip_height.saturating_add(UNASKED_BLOCKS_AHEAD);
        let candidate = near && work >= tree.work(self.tip) && work >= tree.params().minimum_chain_work;
        (candidate || self.window.height_of(tree, id).is_some())
            && self.reserved.saturating_add(bytes) <= self.config.reserved_bytes
    }

    /// The chainstate stored a body.
    pub(super) fn stored(&mut self, tree: &BlockTree, block: &BlockRef) {
        if let Some(id) = tree.find(&block.hash) {
            // It may have come another way than from the peers that owe it.
            self.cancel(id, None);
            self.again.remove(&id);
            if let Some(height) = self.window.height_of(tree, id) {
                self.window.taken(height);
                if tree.work(id) <= tree.work(self.tip) {
                    // A part of a deep reorg: it makes room for more of it.
                    self.follow(tree);
                }
            }
        }
        let Some((id, arrived)) = self.answered(tree, block) else { return };
        self.senders.insert(id, arrived.from);
        while self.senders.len() > SENDERS_MAX {
            self.senders.pop_first();
        }
    }

    /// The chainstate refused a body: its sender is blamed, and a body that says nothing about the hash is
    /// asked of others.
    pub(super) fn refused(&mut self, cx: &mut Cx<'_>, tree: &BlockTree, block: &BlockRef, reject: &Reject) {
        let Some((id, arrived)) = self.answered(tree, block) else { return };
        if let Some(source) = self.sources.get_mut(&arrived.from) {
            source.lacks(id, cx.now.at);
            self.set_clocks(arrived.from);
        }
        if is_fault(reject) {
            self.scores.on_false(arrived.from, arrived.bytes);
        }
        self.blame(cx, Some(arrived.from), block, reject);
        self.follow(tree);
        if !tree.is_failed(id) && !self.flights.contains_key(&id) {
            self.window.need(tree, id);
        }
    }

    /// Frees what an arrived block held.
    fn answered(&mut self, tree: &BlockTree, block: &BlockRef) -> Option<(HeaderId, Arrived)> {
        let id = tree.find(&block.hash)?;
        let arrived = self.arrived.remove(&id)?;
        self.reserved = self.reserved.saturating_sub(arrived.bytes);
        Some((id, arrived))
    }

    /// Ends the connection to the sender of a false block (Core's `MaybePunishNodeForBlock`).
    pub(super) fn blame(
        &mut self,
        cx: &mut Cx<'_>,
        sender: Option<PeerId>,
        block: &BlockRef,
        reject: &Reject,
    ) {
        let Some(peer) = sender.filter(|_| is_fault(reject)) else { return };
        // The peer may be gone: then its number means nobody.
        if let Some(source) = self.sources.get_mut(&peer) {
            source.closing = true;
            self.set_clocks(peer);
            let fault = Fault::Block { hash: block.hash, reason: reject.reason };
            cx.close(peer, CloseReason::Fault(fault));
        }
    }

    // ---- taking blocks away ----

    /// Removes a block from everyone who owes it and frees its reservation. `from` has delivered it; from the others it
    /// may still come.
    pub(super) fn cancel(&mut self, id: HeaderId, from: Option<PeerId>) {
        let Some(flight) = self.flights.remove(&id) else { return };
        self.reserved = self.reserved.saturating_sub(flight.reserved);
        for request in &flight.requests {
            self.release(request.peer, request.segment, id);
            if Some(request.peer) != from
                && let Some(source) = self.sources.get_mut(&request.peer)
            {
                source.may_still_come(id);
            }
            self.set_clocks(request.peer);
        }
    }

    /// Takes one block off a peer's account and its segment.
    fn release(&mut self, peer: PeerId, number: u64, id: HeaderId) {
        if let Some(source) = self.sources.get_mut(&peer) {
            source.owes.remove(&id);
        }
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.blocks.remove(&id);
            if segment.blocks.is_empty() {
                self.deadlines.cancel(&number);
                self.segments.remove(&number);
            }
        }
    }

    /// Takes a block away from a peer, of which it may still come; it is needed again if no other owes it. With a time, the
    /// peer is not asked for it for a while.
    pub(super) fn take_away(
        &mut self,
        tree: &BlockTree,
        peer: PeerId,
        id: HeaderId,
        lacking: Option<Timestamp>,
    ) {
        let Some(flight) = self.flights.get_mut(&id) else { return };
        let Some(at) = flight.requests.iter().position(|request| request.peer == peer) else { return };
        let request = flight.requests.remove(at);
        let orphaned = flight.requests.is_empty();
        self.release(peer, request.segment, id);
        if orphaned {
            if let Some(Flight { reserved, .. }) = self.flights.remove(&id) {
                self.reserved = self.reserved.saturating_sub(reserved);
            }
            self.window.need(tree, id);
        }
        let Some(source) = self.sources.get_mut(&peer) else { return };
        if let Some(now) = lacking {
            source.lacks(id, now);
        }
        source.may_still_come(id);
        self.set_clocks(peer);
    }

    /// Takes everything away from a peer.
    pub(super) fn take_all(&mut self, tree: &BlockTree, peer: PeerId, lacking: Option<Timestamp>) {
        let owed = self.sources.get(&peer).map(|source| source.owes.clone()).unwrap_or_default();
        for id in owed {
            self.take_away(tree, peer, id, lacking);
        }
    }

    /// A peer is silent while others could deliver: they are asked, and it gets nothing until it sends. It goes if that was
    /// so three times.
    fn suspect(&mut self, cx: &mut Cx<'_>, tree: &BlockTree, peer: PeerId) {
        let now = cx.now.at;
        self.take_all(tree, peer, Some(now));
        if let Some(source) = self.sources.get_mut(&peer) {
            source.strikes = source.strikes.saturating_add(1);
            source.meter.halve();
            source.suspicion = Some(Suspicion { next: now + FROZEN_CHECK, proofs: 0 });
        }
        self.set_clocks(peer);
        self.note_stall(peer, now);
        let struck = self.sources.get(&peer).filter(|source| source.strikes >= STRIKES_MAX);
        if struck.is_some_and(|source| self.others_live(peer, source.waiting_since)) {
            if let Some(source) = self.sources.get_mut(&peer) {
                source.strikes = 0;
            }
            self.drop_source(cx, tree, peer, CloseReason::Stalled);
        }
    }

    /// Gives a segment its whole time again.
    pub(super) fn renew(&mut self, number: u64, now: Timestamp) {
        if self.segments.contains_key(&number) {
            self.deadlines.set(number, now + SEGMENT_TIMEOUT);
        }
    }

    /// Whether another peer than `except` could be asked for a block; `spare`: without owing too much.
    fn has_other(&self, except: PeerId, height: u32, id: HeaderId, spare: bool) -> bool {
        let size = self.size.get();
        self.sources.iter().any(|(&peer, source)| {
            peer != except
                && source.serves(height, id)
                && (!spare || source.owes.len() < source.limit(size, source.rank))
        })
    }

    // ---- clocks ----

    /// A segment's time is over: what is missing is asked of others, if they can take it.
    pub(super) fn check_segment(&mut self, cx: &mut Cx<'_>, tree: &BlockTree, number: u64) {
        let now = cx.now.at;
        let Some(segment) = self.segments.get(&number) else { return };
        let peer = segment.peer;
        let mut blocks: Vec<(u32, HeaderId)> =
            segment.blocks.iter().map(|&id| (tree.height(id), id)).collect();
        blocks.sort_unstable();
        // After a reorganisation nobody waits for the blocks of the other branch.
        blocks.retain(|&(_, id)| {
            let wanted = self.window.height_of(tree, id).is_some();
            if !wanted {
                let lacking = self.again.contains_key(&id).then_some(now);
                self.take_away(tree, peer, id, lacking);
            }
            wanted
        });
        let (Some(source), Some(&(height, id))) = (self.sources.get(&peer), blocks.first()) else { return };
        let silent = !source.paused && source.silent_since() + SILENCE <= now;
        if silent && self.has_other(peer, height, id, false) {
            self.suspect(cx, tree, peer);
            return;
        }
        if !source.paused && self.has_other(peer, height, id, true) && blocks.len() > SEGMENT_KEEP {
            for &(_, id) in blocks.iter().skip(SEGMENT_KEEP) {
                self.take_away(tree, peer, id, Some(now));
            }
            if let Some(source) = self.sources.get_mut(&peer) {
                source.meter.halve();
            }
            self.note_stall(peer, now);
            self.check_load(peer);
        }
        self.renew(number, now);
    }

    /// When a stall is over the time-out; `None` if the peer is paused or gone, or has delivered what it owed and the
    /// chainstate is what everything waits for.
    pub(super) fn stall_deadline(&self, stall: Stall) -> Option<Timestamp> {
        let source = self.sources.get(&stall.peer).filter(|source| source.is_waiting())?;
        Some(stall.since.max(source.silent_since()) + self.stall_timeout)
    }

    /// The holder of the window's first block has been silent for too long.
    pub(super) fn check_stall(&mut self, cx: &mut Cx<'_>, tree: &BlockTree) {
        let now = cx.now.at;
        let Some(stall) = self.stall else { return };
        if self.stall_deadline(stall).is_some_and(|at| at <= now) {
            self.stall = None;
            self.stall_timeout = (self.stall_timeout * 2).min(STALL_TIMEOUT_MAX);
            self.suspect(cx, tree, stall.peer);
        }
    }

    /// Asks a second peer for the block that everything waits for.
    pub(super) fn check_hedge(&mut self, cx: &mut Cx<'_>, tree: &BlockTree) {
        let now = cx.now.at;
        let Some((id, at)) = self.hedge else { return };
        let height = tree.height(id);
        // An earlier clock of this pass may have taken the block away from the peer that owed it.
        let Some(flight) = self.flights.get(&id).filter(|_| at <= now) else { return };
        let Some(peer) = self.hedge_source(flight, height, id) else { return };
        let slowest = flight.requests.iter().min_by_key(|request| self.speed(request.peer));
        if flight.requests.len() >= BLOCK_REQUESTS_MAX
            && let Some(slowest) = slowest.map(|request| request.peer)
        {
            self.take_away(tree, slowest, id, Some(now));
        }
        self.ask(cx, tree, peer, &[(height, id)]);
    }

    /// Who is asked next for a block that is asked for: the second whoever is best, a further one only if it is far faster
    /// than those who owe it and has room. On a slow link of our own nobody is, and each more would make it slower.
    fn hedge_source(&self, flight: &Flight, height: u32, id: HeaderId) -> Option<PeerId> {
        let peer = self.best_source(height, id)?;
        if flight.requests.len() < BLOCK_REQUESTS_MAX {
            return Some(peer);
        }
        let fastest = flight.requests.iter().map(|request| self.speed(request.peer)).max().unwrap_or(0);
        let source = self.sources.get(&peer)?;
        let rate = source.meter.rate();
        let free = source.owes.len() < source.limit(self.size.get(), source.rank);
        (free && rate > 0 && rate / HEDGE_FASTER >= fastest).then_some(peer)
    }

    /// Finds out what everything waits for, and sets the clocks of the stall and of the second request.
    pub(super) fn watch_head(&mut self, now: Timestamp, tree: &BlockTree) {
        self.hedge = None;
        let head = self.window.head(tree);
        let Some((height, id)) = head else {
            self.stall = None;
            return;
        };
        let Some(flight) = self.flights.get(&id) else {
            // What a second peer has brought and is not stored yet says nothing of who owes the next.
            if !self.arrived.contains_key(&id) {
                self.stall = None;
            }
            return;
        };
        let Some(&first) = flight.requests.first() else { return };
        let waited_for = height <= self.tip_height.saturating_add(1 + HEDGE_LEAD);
        let other = self.has_other(first.peer, height, id, false);
        if waited_for {
            self.hedge = self.hedge_time(flight, height, id, now).map(|at| (id, at));
        }
        // The clock runs on while the same peer owes one first block after the other.
        let full = self.reserved.saturating_add(self.size.get()) > self.config.reserved_bytes;
        let paused = self.sources.get(&first.peer).is_some_and(|source| source.paused);
        let stuck = other && !paused && (waited_for || full || !self.window.is_needy());
        self.stall = match self.stall {
            _ if !stuck => None,
            Some(stall) if stall.peer == first.peer => Some(stall),
            _ => Some(Stall { peer: first.peer, since: self.stalls_since(first.peer, now) }),
        };
    }

    /// When one more peer is asked for the block that everything waits for, if there is one.
    fn hedge_time(&self, flight: &Flight, height: u32, id: HeaderId, now: Timestamp) -> Option<Timestamp> {
        let next = self.hedge_source(flight, height, id)?;
        let (first, last) = (flight.requests.first()?, flight.requests.last()?);
        let second = flight.requests.len() < BLOCK_REQUESTS_MAX;
        let (since, usual) = if second && !self.is_sooner(next, first.peer) {
            // It can only help if nothing comes of the first.
            let since = last.at.max(self.line_free_since(first.peer, id, now));
            (since, HEDGE_LATER * self.responses.percentile_95())
        } else {
            (last.at, self.times.percentile_95())
        };
        // The lower the score of who owes it, the sooner.
        let order = self.sources.get(&first.peer).map_or(0, |source| source.rank.order);
        let patience = match self.scores.policy().uses_scores() {
            true => usual * order.clamp(10_000, 40_000) / 40_000,
            false => usual,
        };
        // Nor may two slow ones keep it from all others: those are asked one by one, after twice the time each.
        let doublings = flight.asked.saturating_sub(1).min(HEDGE_DOUBLINGS);
        Some(since + patience.max(HEDGE_MIN) * (1 << doublings))
    }

    /// Whether a peer delivers all that it owes, and one block more, before another delivers one.
    fn is_sooner(&self, peer: PeerId, other: PeerId) -> bool {
        let owes = self.in_flight(Some(peer)) as u64;
        self.speed(peer) >= self.speed(other).saturating_mul(owes.saturating_add(1))
    }

    /// Since when a peer could send the block that everything waits for: what it sent before that was in its turn, what it
    /// sends since then is not.
    fn line_free_since(&self, peer: PeerId, head: HeaderId, now: Timestamp) -> Timestamp {
        let waited = self.withholding.waited_since(head).unwrap_or(now);
        self.sources.get(&peer).map_or(waited, |source| source.free_since().min(waited))
    }

    /// Since when a peer stalls for which everything begins to wait: it may have been silent for long while others were not.
    fn stalls_since(&self, peer: PeerId, now: Timestamp) -> Timestamp {
        let silent = self.sources.get(&peer).map_or(now, Source::silent_since);
        let others = self.sources.iter().any(|(&other, source)| other != peer && source.life > silent);
        if others { silent.min(now) } else { now }
    }
}

/// Whether whoever sent the body is to blame.
fn is_fault(reject: &Reject) -> bool {
    matches!(reject.kind, RejectKind::Consensus | RejectKind::Mutated | RejectKind::InvalidHeader)
}
