//! Whether a connection's socket may be read, and how much it carries.

use crate::limits::{LEAST_READ_CHUNK, MAX_ASKED, MAX_UNHANDLED_BYTES, MAX_UNHANDLED_MESSAGES};
use crate::node::inbox::Inbound;
use crate::node::traffic::Traffic;
use crate::peer::PeerId;
use crate::relay::asked::Asked;
use crate::relay::priority::Priority;
#[cfg(feature = "http")]
use crate::relay::priority::place;
use crate::relay::rate::{BandwidthMeter, Bandwidths, Pacer, RateConfig};
use crate::time::Timestamp;
use crate::wire::Message;
use core::future::{Future, poll_fn};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;

/// Of one connection.
#[derive(Debug)]
pub(in crate::node) struct Gate {
    state: Mutex<GateState>,
    /// Where it is counted, if the other side opened it.
    crowd: Option<(Arc<Traffic>, PeerId)>,
}

#[derive(Debug)]
pub(super) struct GateState {
    /// Bytes of messages that were read and not yet handled, as [`weight`] counts them.
    pub(super) unhandled: usize,
    /// How many.
    pub(super) messages: usize,
    /// Bytes of a message that has begun.
    pub(super) begun: usize,
    /// Whether the driver has still to hear of bytes that arrived.
    pub(super) progress: bool,
    /// Whether the engine wants to hear of this peer.
    pub(super) open: bool,
    waiting: Option<Waker>,
    meter: BandwidthMeter,
    asked: Asked,
    /// For what comes unasked.
    pacer: Pacer,
    /// The second in which its rates were last brought up to date.
    followed: u64,
    rests: u64,
    /// What the messages of a source count for, the oldest first: their bytes came packed, or not at all.
    pub(super) weights: VecDeque<usize>,
}

impl Gate {
    /// Of a connection that we open.
    pub(super) fn new(rates: RateConfig, now: Timestamp) -> Self {
        let state = GateState {
            unhandled: 0,
            messages: 0,
            begun: 0,
            progress: false,
            open: true,
            waiting: None,
            meter: BandwidthMeter::new(now),
            asked: Asked::default(),
            pacer: Pacer::new(rates, now),
            followed: 0,
            rests: 0,
            weights: VecDeque::new(),
        };
        Self { state: Mutex::new(state), crowd: None }
    }

    /// Of one that the other side has opened.
    pub(super) fn in_crowd(rates: RateConfig, now: Timestamp, traffic: Arc<Traffic>, peer: PeerId) -> Self {
        let mut gate = Self::new(rates, now);
        gate.crowd = Some((traffic, peer));
        gate
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut GateState)) {
        let woken = {
            let mut state = self.state.lock();
            change(&mut state);
            if let Some((traffic, peer)) = &self.crowd {
                traffic.crowd.set(*peer, state.unhandled.saturating_add(state.begun));
            }
            if state.is_open() { state.waiting.take() } else { None }
        };
        if let Some(waker) = woken {
            waker.wake();
        }
    }

    pub(super) fn passed(&self) -> impl Future<Output = ()> {
        poll_fn(|cx| self.poll_passed(cx))
    }

    /// Ready while the gate is open.
    pub(in crate::node) fn poll_passed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.is_open() {
            return Poll::Ready(());
        }
        state.waiting = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether the driver is to hear of progress: not while it has still to take what was told before.
    pub(in crate::node) fn begin_progress(&self) -> bool {
        let mut waits = false;
        self.change(|gate| waits = core::mem::replace(&mut gate.progress, true));
        !waits
    }

    /// A message of a source is on its way to the driver.
    #[cfg(feature = "http")]
    pub(in crate::node) fn expect(&self, message: &Message) {
        let weight = weight(place(message));
        self.change(|gate| {
            gate.unhandled = gate.unhandled.saturating_add(weight);
            gate.messages += 1;
            gate.weights.push_back(weight);
        });
    }

    /// Where the connection is counted with others, if the other side opened it.
    pub(super) fn crowd(&self) -> Option<(&Traffic, PeerId)> {
        self.crowd.as_ref().map(|(traffic, peer)| (&**traffic, *peer))
    }

    /// Bytes went through.
    pub(in crate::node) fn count(&self, received: usize, sent: usize, now: Timestamp) {
        let mut state = self.state.lock();
        state.meter.count(received as u64, sent as u64, now);
        state.follow(now);
    }

    pub(super) fn bandwidths(&self, now: Timestamp) -> Bandwidths {
        self.state.lock().meter.average(now)
    }

    /// These messages came, and so many that nobody knows: what was not asked for uses up the peer's rate.
    pub(super) fn came<'a>(
        &self,
        messages: impl Iterator<Item = &'a Message>,
        unknown: usize,
        now: Timestamp,
    ) {
        let mut state = self.state.lock();
        let GateState { asked, pacer, .. } = &mut *state;
        let unasked = messages.filter_map(|message| asked.on_received(message));
        for (class, weight) in unasked.chain([(Priority::State, unknown)]) {
            if let Some(bucket) = pacer.bucket(class) {
                // More than a bucket may owe makes no difference, and the number is the peer's.
                (0..weight.min(MAX_UNHANDLED_MESSAGES)).for_each(|_| bucket.spend(now));
            }
        }
    }

    /// This message leaves for the peer. What it asks for may come without a rate, and for each block that we want of it
    /// the peer may have told us of one.
    pub(super) fn leaves(&self, message: &Message, now: Timestamp) {
        let mut state = self.state.lock();
        let wanted = state.asked.on_sent(message).min(MAX_ASKED);
        if let Some(bucket) = state.pacer.bucket(Priority::State) {
            (0..wanted).for_each(|_| bucket.give(now));
        }
    }

    /// Something went to the peer that it had asked for: it may ask once more.
    pub(super) fn give(&self, now: Timestamp) {
        if let Some(bucket) = self.state.lock().pacer.bucket(Priority::State) {
            bucket.give(now);
        }
    }

    /// How long the peer is not read, for what it sent unasked.
    pub(super) fn rest(&self, now: Timestamp) -> Duration {
        let mut state = self.state.lock();
        state.follow(now);
        let wait = state.pacer.wait(now);
        state.rests += u64::from(!wait.is_zero());
        wait
    }

    /// Times that the peer was not read for a while.
    pub(super) fn rests(&self) -> u64 {
        self.state.lock().rests
    }

    /// How much to read at once: little of a peer that has used up most of its rate, so that no more is read than it has
    /// to wait for.
    pub(super) fn chunk(&self, most: usize, now: Timestamp) -> usize {
        if self.state.lock().pacer.is_low(now) { most.min(LEAST_READ_CHUNK) } else { most }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if let Some((traffic, peer)) = &self.crowd {
            traffic.crowd.set(*peer, 0);
        }
    }
}

impl GateState {
    fn is_open(&self) -> bool {
        self.open && self.unhandled < MAX_UNHANDLED_BYTES && self.messages < MAX_UNHANDLED_MESSAGES
    }

    /// Brings the rates up to date, once a second.
    fn follow(&mut self, now: Timestamp) {
        let second = now.as_millis() / 1_000;
        if second != self.followed {
            self.followed = second;
            let Bandwidths { received, sent } = self.meter.average(now);
            self.pacer.follow(received.saturating_add(sent), now);
        }
    }
}

/// What a message of so many bytes on the wire counts for in the queue: its place there too, or a flood of
/// the smallest messages would take ten times the memory that it seems to.
pub(super) const fn weight(bytes: usize) -> usize {
    bytes.saturating_add(size_of::<Inbound>())
}
