//! A peer that may serve blocks: what it owes, what was measured of it, what it may be asked for.

use super::measure::Meter;
use crate::chain::block_tree::HeaderId;
use crate::limits::{
    BLOCKS_IN_FLIGHT_MIN, LACKING_MAX, LACKING_TIME, LATE_BLOCK, LATE_TIMES, LIMITED_PEER_BLOCKS, STRIKES_MAX,
};
use crate::peer::score::Rank;
use crate::peer::timers::Timers;
use crate::peer::{ConnectionKind, PeerView};
use crate::time::Timestamp;
use core::time::Duration;
use std::collections::BTreeSet;

/// A peer that does not answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspicion {
    /// When it is looked at again.
    pub next: Timestamp,
    /// Checks in a row at which it was silent while others were not.
    pub proofs: u8,
}

/// A peer that may serve blocks.
#[derive(Debug)]
pub(super) struct Source {
    pub manual: bool,
    /// It came to us: whoever wants to hold us up can do that at will.
    pub inbound: bool,
    /// Serves all blocks, not only the last 288.
    pub full: bool,
    pub best: Option<HeaderId>,
    pub best_height: u32,
    /// The height up to which it has the blocks of the best header's chain.
    pub reach: u32,
    /// Nothing new is asked of it, and its clocks stand still.
    pub paused: bool,
    /// The engine does not read from it; the scheduler may rest besides.
    pub unread: bool,
    /// Its end was asked for.
    pub closing: bool,
    pub owes: BTreeSet<HeaderId>,
    /// When it last delivered a block, or began to owe one.
    pub waiting_since: Timestamp,
    pub meter: Meter,
    /// The most it may owe until it delivers, by how long nothing has come of it.
    pub most: usize,
    /// What its score means for the order.
    pub rank: Rank,
    /// Last sign of life, and the connection's bytes then.
    pub life: Timestamp,
    pub life_bytes: u64,
    pub bytes: u64,
    /// Bytes of whole messages that are no blocks, which are no sign of life.
    pub idle_bytes: u64,
    pub suspicion: Option<Suspicion>,
    /// Times its blocks were taken away since it last delivered one.
    pub strikes: u32,
    /// Times that a second peer delivered what it had been asked for before, since it last delivered a block.
    pub overtaken: u32,
    /// How long it has owed blocks since then, without the present time.
    pub owed_for: Duration,
    /// Blocks it failed to deliver, until when it is not asked for them.
    pub lacking: Timers<HeaderId>,
    /// Blocks it was asked for that another delivered first, or that nobody waits for any more; they may still come.
    pub coming: BTreeSet<HeaderId>,
    /// When the last of those, or of the blocks that were taken away from it, came: its line was not free before.
    pub late_until: Timestamp,
}

impl Source {
    /// A peer that is ready for requests, of whose blocks nothing is known; it may owe what it delivers in `ahead` seconds.
    pub fn new(peer: &PeerView, ahead: u64, paused: bool, now: Timestamp) -> Self {
        Self {
            manual: peer.is_manual(),
            inbound: peer.kind == ConnectionKind::Inbound,
            full: peer.serves_history(),
            best: None,
            best_height: 0,
            reach: 0,
            paused,
            unread: false,
            closing: false,
            owes: BTreeSet::new(),
            waiting_since: now,
            meter: Meter::new(ahead),
            most: usize::MAX,
            rank: Rank::FREE,
            life: now,
            life_bytes: 0,
            bytes: 0,
            idle_bytes: 0,
            suspicion: None,
            strikes: 0,
            overtaken: 0,
            owed_for: Duration::ZERO,
            lacking: Timers::new(),
            coming: BTreeSet::new(),
            late_until: now,
        }
    }

    pub fn usable(&self) -> bool {
        !self.paused && !self.closing && self.suspicion.is_none()
    }

    /// Whether it has delivered blocks, and was not asked in vain since.
    pub fn delivers(&self) -> bool {
        self.meter.is_measured() && self.strikes == 0
    }

    /// The lowest height it serves.
    pub fn lowest(&self) -> u32 {
        if self.full { 0 } else { self.best_height.saturating_sub(LIMITED_PEER_BLOCKS - 1) }
    }

    /// When it is looked at whether it still does not answer, if it is under suspicion.
    pub fn suspected_until(&self) -> Option<Timestamp> {
        self.suspicion.filter(|_| !self.paused && !self.closing).map(|suspicion| suspicion.next)
    }

    /// Whether its clock for delivering any block runs.
    pub fn is_waiting(&self) -> bool {
        !self.owes.is_empty() && !self.paused && !self.closing
    }

    /// How many blocks of `size` bytes it may owe. One that is alive and delivers nothing gets one at a time.
    pub fn limit(&self, size: u64, rank: Rank) -> usize {
        let whole = self.meter.limit(size).min(self.most);
        if self.overtaken >= STRIKES_MAX { 1 } else { (whole / rank.part).max(BLOCKS_IN_FLIGHT_MIN) }
    }

    /// How many it keeps of what it owes. Who is only slow sends what it was asked for, and would send it in vain.
    pub fn kept(&self, size: u64) -> usize {
        self.limit(size, if self.rank.isolated { self.rank } else { Rank::FREE })
    }

    /// Bounds what it may owe if it has not delivered for long: whoever has sent no block in `t` seconds delivers less than
    /// one in that time. So a stranger's first share is known to be too large before its first block has come.
    /// `usual`: milliseconds that a block takes a peer usually; on a slow link of our own all take long. When to look
    /// again; `None` if it may not owe less.
    pub fn note_wait(&mut self, now: Timestamp, size: u64, usual: u64) -> Option<Timestamp> {
        let free_since = self.free_since();
        let waited = now.since(free_since).as_millis() as u64;
        let own = size.saturating_mul(1_000).checked_div(self.meter.rate()).unwrap_or(0);
        let late = LATE_BLOCK.max(Duration::from_millis(usual.max(own).saturating_mul(LATE_TIMES)));
        if free_since + late > now {
            return Some((free_since + late).min(now + LATE_BLOCK));
        }
        let most = self.meter.ahead.saturating_mul(1_000) / waited.max(1);
        self.most = self.most.min(usize::try_from(most).unwrap_or(usize::MAX));
        (self.most > BLOCKS_IN_FLIGHT_MIN).then(|| now + LATE_BLOCK / 2)
    }

    /// Since when its line has been free for the blocks that it owes.
    pub fn free_since(&self) -> Timestamp {
        self.waiting_since.max(self.late_until)
    }

    /// Since when nothing has come from it although it owes something.
    pub fn silent_since(&self) -> Timestamp {
        self.life.max(self.waiting_since)
    }

    /// Whether it may be asked for this block.
    pub fn serves(&self, height: u32, id: HeaderId) -> bool {
        height <= self.reach && self.may_have(height, id)
    }

    /// Whether it may be asked for this block, which need not be on the chain that it is known to have.
    pub fn may_have(&self, height: u32, id: HeaderId) -> bool {
        self.usable()
            && self.lowest() <= height
            && self.lacking.get(&id).is_none()
            && !self.owes.contains(&id)
    }

    /// Remembers that the peer failed to deliver a block.
    pub fn lacks(&mut self, id: HeaderId, now: Timestamp) {
        while self.lacking.len() >= LACKING_MAX {
            self.lacking.pop_due(Timestamp::from_millis(u64::MAX));
        }
        self.lacking.set(id, now + LACKING_TIME);
    }

    /// It does not owe a block any more, through no fault of its own.
    pub fn may_still_come(&mut self, id: HeaderId) {
        while self.coming.len() >= LACKING_MAX {
            self.coming.pop_first();
        }
        self.coming.insert(id);
    }

    /// Whether it was asked for a block that it does not owe any more.
    pub fn owed_once(&self, id: HeaderId) -> bool {
        self.lacking.get(&id).is_some() || self.coming.contains(&id)
    }

    /// Something is asked of it: its time is measured from now on, unless what it owed before is still on its line.
    pub fn begin(&mut self, now: Timestamp) {
        if self.owes.is_empty() && (self.coming.is_empty() || self.life + LATE_BLOCK < now) {
            self.meter.start(now);
        }
    }

    /// A block came that it does not owe any more, if it ever did. It took time on its line, which is not the fault of
    /// the blocks behind it. Whether it did owe it.
    pub fn came_late(&mut self, now: Timestamp, id: HeaderId) -> bool {
        let lacked = self.lacking.cancel(&id).is_some();
        let late = self.coming.remove(&id) || lacked;
        if late {
            self.late_until = now;
        }
        late
    }
}
