//! What leaves for a peer, and in what order: three classes, and in each what is owed before what is news.
//!
//! | class | messages | may wait |
//! | --- | --- | --- |
//! | P0, control | the handshake, ping and pong, wishes (`sendheaders`, `sendcmpct`, `feefilter`) | never dropped; over 50 ms it counts as late |
//! | P1, state | requests, headers, inventories, `notfound`, compact blocks | news 500 ms |
//! | P2, bulk | blocks, addresses, transactions, filters | news 5 s |
//!
//! *News* is what nobody asked for: announcements and gossip. It is sent at the rate of a token bucket
//! ([`super::rate`]), waits its turn, and is dropped when it has waited too long; whoever made an announcement is told, and
//! makes the newest one later. All else is *owed*, to the peer or to the protocol: it has no rate and is never dropped; a
//! peer that lets too much of it pile up does not read, and is given up.
//!
//! The order: control first. Then, of the queues that have something that may leave, the first of owed state, news of state,
//! owed bulk, news of bulk; but one that was passed over eight times goes first, so that none starves. A message on the wire
//! can't be interrupted: control waits for the one that is being written, and for no other.
//!
//! Why this keeps the protocol: messages of one queue keep their order, so that `version`, `wtxidrelay`, `sendaddrv2` and
//! `verack` do, `merkleblock` and its transactions, and the filters of a range. Control is never about what was sent before
//! it: a `pong` only tells that we are there (BIP31), wishes are about what comes. Of state and bulk each message names the
//! hashes that it is about, so that `headers`, `notfound` and blocks may pass each other. Owed headers come before announced
//! ones, which then connect to them.

use super::rate::{Pacer, RateConfig};
use crate::limits::{MAX_PASSED_OVER, MAX_UNSENT_BYTES, MAX_UNSENT_MESSAGES, MAX_UNSENT_NEWS};
use crate::time::Timestamp;
use crate::wire::Message;
use crate::wire::frame::HEADER_SIZE;
use core::time::Duration;
use std::collections::VecDeque;

/// How soon a message has to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// P0: keeps the connection.
    Control,
    /// P1: keeps both sides in step.
    State,
    /// P2: all that is large or may be late.
    Bulk,
}

impl Priority {
    /// All, the first to leave first.
    pub const ALL: [Self; 3] = [Self::Control, Self::State, Self::Bulk];

    /// The class of a message.
    pub const fn of(message: &Message) -> Self {
        match message {
            Message::Version(_)
            | Message::Verack
            | Message::WtxidRelay
            | Message::SendAddrV2
            | Message::SendHeaders
            | Message::SendCmpct(_)
            | Message::SendTxRcncl(_)
            | Message::FeeFilter(_)
            | Message::Ping(_)
            | Message::Pong(_) => Self::Control,
            Message::Addr(_)
            | Message::AddrV2(_)
            | Message::Block(_)
            | Message::Tx(_)
            | Message::MerkleBlock(_)
            | Message::CFilter(_) => Self::Bulk,
            // Requests, what announces, and what is small and waited for. A filter that is loaded is for the requests
            // that follow it.
            _ => Self::State,
        }
    }
}

/// What a message that waits takes: its bytes, and its place.
pub fn place(message: &Message) -> usize {
    message.payload_size_hint().saturating_add(size_of::<Waiting>() + HEADER_SIZE + 64)
}

#[derive(Debug)]
struct Waiting {
    message: Message,
    since: Timestamp,
}

/// Queues by rank.
const LANES: [(Priority, bool); 5] = [
    (Priority::Control, false),
    (Priority::State, false),
    (Priority::State, true),
    (Priority::Bulk, false),
    (Priority::Bulk, true),
];

#[derive(Debug, Default)]
struct Lane {
    queue: VecDeque<Waiting>,
    /// How often another went although this one could have.
    passed: u32,
}

/// What became of a message that was to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Pushed {
    /// It waits.
    Queued,
    /// News for which there is no room.
    Dropped,
    /// It waits, and with it more than a peer that reads lets pile up.
    Overfull,
}

/// What is to be done next.
#[derive(Debug)]
pub enum Next {
    /// Write this; then call [`Outbox::sent`].
    Send(Departure),
    /// Nothing may leave before this time; what is pushed meanwhile may.
    Wait(Timestamp),
    /// Nothing waits.
    Empty,
}

/// A message whose turn it is.
#[derive(Debug)]
pub struct Departure {
    /// The message.
    pub message: Message,
    /// Its class.
    pub priority: Priority,
    /// Whether it was owed.
    pub owed: bool,
    /// What it takes until [`Outbox::sent`].
    pub held: usize,
}

/// Counts of what waits and what became of the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueCounts {
    /// Messages that wait, by class.
    pub waiting: [usize; 3],
    /// Bytes that they take, with what is being written.
    pub bytes: usize,
    /// News that waited too long and was dropped.
    pub expired: u64,
    /// News for which there was no room.
    pub dropped: u64,
    /// Control messages that waited longer than their limit.
    pub late: u64,
    /// The longest time that a control message waited for its turn.
    pub longest_control: Duration,
}

impl QueueCounts {
    /// Adds another connection's.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in self.waiting.iter_mut().zip(other.waiting) {
            *sum = sum.saturating_add(more);
        }
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.expired = self.expired.saturating_add(other.expired);
        self.dropped = self.dropped.saturating_add(other.dropped);
        self.late = self.late.saturating_add(other.late);
        self.longest_control = self.longest_control.max(other.longest_control);
    }
}

/// The queues of one connection.
#[derive(Debug)]
pub struct Outbox {
    lanes: [Lane; 5],
    pacer: Pacer,
    counts: QueueCounts,
    /// Announcements were dropped, and nobody has been told.
    lost: bool,
}

impl Outbox {
    /// Empty queues.
    pub fn new(config: RateConfig, now: Timestamp) -> Self {
        Self {
            lanes: Default::default(),
            pacer: Pacer::new(config, now),
            counts: QueueCounts::default(),
            lost: false,
        }
    }

    /// The bandwidth is this now, both ways together.
    pub fn follow(&mut self, bytes_per_second: u64, now: Timestamp) {
        self.pacer.follow(bytes_per_second, now);
    }

    /// Lets a message wait for its turn. `news`: nobody asked for it.
    pub fn push(&mut self, now: Timestamp, message: Message, news: bool) -> Pushed {
        let priority = Priority::of(&message);
        // Control has no news: each of its messages is part of the protocol.
        let news = news && priority != Priority::Control;
        let Some(rank) = LANES.iter().position(|lane| *lane == (priority, news)) else {
            return Pushed::Dropped;
        };
        self.expire(now);
        let held = place(&message);
        let full = self.counts.bytes.saturating_add(held) > MAX_UNSENT_BYTES
            || self.waiting() >= MAX_UNSENT_MESSAGES;
        let Some(lane) = self.lanes.get_mut(rank) else { return Pushed::Dropped };
        if news && (full || lane.queue.len() >= MAX_UNSENT_NEWS) {
            self.counts.dropped += 1;
            self.lost |= priority == Priority::State;
            return Pushed::Dropped;
        }
        lane.queue.push_back(Waiting { message, since: now });
        self.counts.bytes = self.counts.bytes.saturating_add(held);
        if full { Pushed::Overfull } else { Pushed::Queued }
    }

    /// Takes the message whose turn it is.
    pub fn pop(&mut self, now: Timestamp) -> Next {
        self.expire(now);
        let mut ready = [false; LANES.len()];
        let mut soonest: Option<Duration> = None;
        for (at, (priority, news)) in LANES.into_iter().enumerate() {
            let waits = self.lanes.get(at).is_some_and(|lane| !lane.queue.is_empty());
            let wait = match self.pacer.bucket(priority) {
                Some(bucket) if waits && news => bucket.wait(now),
                _ => Duration::ZERO,
            };
            if let Some(ready) = ready.get_mut(at) {
                *ready = waits && wait.is_zero();
            }
            if waits && !wait.is_zero() {
                soonest = Some(soonest.map_or(wait, |soonest| soonest.min(wait)));
            }
        }
        match self.choose(&ready) {
            Some(rank) => self.depart(rank, &ready, now),
            None => soonest.map_or(Next::Empty, |wait| Next::Wait(now + wait)),
        }
    }

    /// The rank of the queue whose turn it is.
    fn choose(&self, ready: &[bool; LANES.len()]) -> Option<usize> {
        let first = ready.iter().position(|ready| *ready)?;
        if first == 0 {
            return Some(0);
        }
        let passed = |rank: usize| self.lanes.get(rank).map_or(0, |lane| lane.passed);
        let waiting = (0..LANES.len()).filter(|rank| ready.get(*rank) == Some(&true));
        let longest = waiting.rev().max_by_key(|rank| passed(*rank)).unwrap_or(first);
        Some(if passed(longest) >= MAX_PASSED_OVER { longest } else { first })
    }

    fn depart(&mut self, rank: usize, ready: &[bool; LANES.len()], now: Timestamp) -> Next {
        let (priority, news) = LANES.get(rank).copied().unwrap_or((Priority::Bulk, false));
        if rank > 0 {
            for (at, lane) in self.lanes.iter_mut().enumerate() {
                if ready.get(at) == Some(&true) {
                    lane.passed = if at == rank { 0 } else { lane.passed.saturating_add(1) };
                }
            }
        }
        let Some(Waiting { message, since }) =
            self.lanes.get_mut(rank).and_then(|lane| lane.queue.pop_front())
        else {
            return Next::Empty;
        };
        if news && let Some(bucket) = self.pacer.bucket(priority) {
            bucket.take(now);
        }
        if priority == Priority::Control {
            let waited = now.since(since);
            self.counts.longest_control = self.counts.longest_control.max(waited);
            self.counts.late += u64::from(waited > self.pacer.config().control_limit);
        }
        let held = place(&message);
        Next::Send(Departure { message, priority, owed: !news, held })
    }

    /// Drops news that has waited too long.
    fn expire(&mut self, now: Timestamp) {
        for ((priority, news), lane) in LANES.into_iter().zip(&mut self.lanes) {
            let limit = self.pacer.config().limit(priority);
            while news
                && lane.queue.front().is_some_and(|first| now.since(first.since) > limit)
                && let Some(Waiting { message, .. }) = lane.queue.pop_front()
            {
                self.counts.bytes = self.counts.bytes.saturating_sub(place(&message));
                self.counts.expired += 1;
                self.lost |= priority == Priority::State;
            }
        }
    }

    /// A message has left.
    pub fn sent(&mut self, departure_held: usize) {
        self.counts.bytes = self.counts.bytes.saturating_sub(departure_held);
    }

    /// Forgets what waits.
    pub fn clear(&mut self) {
        self.lanes = Default::default();
        self.counts.bytes = 0;
    }

    /// Whether announcements were dropped since the last call.
    pub fn take_lost(&mut self) -> bool {
        core::mem::take(&mut self.lost)
    }

    /// Bytes that wait or are being written, with their places.
    pub fn bytes(&self) -> usize {
        self.counts.bytes
    }

    fn waiting(&self) -> usize {
        self.lanes.iter().map(|lane| lane.queue.len()).sum()
    }

    /// What waits, and what became of the rest.
    pub fn counts(&self) -> QueueCounts {
        let mut counts = self.counts;
        for ((priority, _), lane) in LANES.into_iter().zip(&self.lanes) {
            if let Some(waiting) = counts.waiting.get_mut(priority as usize) {
                *waiting += lane.queue.len();
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests;
