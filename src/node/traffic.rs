//! What flows through all connections of a node, for its status and for the bound that they share.

use super::connection::Queue;
use super::crowd::Crowd;
use crate::relay::priority::QueueCounts;
use crate::relay::rate::{BandwidthMeter, Bandwidths};
use crate::time::Timestamp;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// The traffic of all connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TrafficStatus {
    /// Bytes a second, averaged over ten seconds.
    pub per_second: Bandwidths,
    /// Bytes since the start.
    pub received: u64,
    /// See [`Self::received`].
    pub sent: u64,
    /// What waits to be sent to all peers; what was dropped or late since the start, of ended connections too.
    pub queues: QueueCounts,
    /// Bytes that peers who came to us have sent and that are not handled, begun messages among them.
    pub unhandled_inbound: usize,
    /// Times that a peer was not read for a while because it sent more than its rate of what nobody asked for.
    pub rests: u64,
}

/// The figures that all connections write to.
#[derive(Debug)]
pub(crate) struct Traffic {
    meter: Mutex<BandwidthMeter>,
    queues: Mutex<Queues>,
    /// Bytes that wait for all peers that came to us.
    unsent_inbound: AtomicUsize,
    rests: AtomicU64,
    /// What peers that came to us hold.
    pub(super) crowd: Crowd,
}

#[derive(Debug, Default)]
struct Queues {
    open: Vec<Weak<Queue>>,
    /// Of connections that have ended.
    ended: QueueCounts,
}

impl Traffic {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            meter: Mutex::new(BandwidthMeter::new(now)),
            queues: Mutex::default(),
            unsent_inbound: AtomicUsize::new(0),
            rests: AtomicU64::new(0),
            crowd: Crowd::default(),
        }
    }

    pub(super) fn count(&self, received: usize, sent: usize, now: Timestamp) {
        self.meter.lock().count(received as u64, sent as u64, now);
    }

    pub(super) fn rested(&self) {
        self.rests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn opened(&self, queue: &Arc<Queue>) {
        let mut queues = self.queues.lock();
        queues.open.retain(|queue| queue.strong_count() > 0);
        queues.open.push(Arc::downgrade(queue));
    }

    /// A connection's queue is gone.
    pub(super) fn ended(&self, counts: &QueueCounts) {
        let (waiting, bytes) = (Default::default(), 0);
        self.queues.lock().ended.add(&QueueCounts { waiting, bytes, ..*counts });
    }

    pub(super) fn unsent_inbound(&self) -> usize {
        self.unsent_inbound.load(Ordering::Relaxed)
    }

    /// What waits for a peer that came to us has changed.
    pub(super) fn change_unsent(&self, before: usize, after: usize) {
        self.unsent_inbound.fetch_add(after, Ordering::Relaxed);
        self.unsent_inbound.fetch_sub(before, Ordering::Relaxed);
    }

    pub(super) fn status(&self, now: Timestamp) -> TrafficStatus {
        let (per_second, (received, sent)) = {
            let mut meter = self.meter.lock();
            (meter.average(now), meter.totals())
        };
        let (mut counts, open) = {
            let queues = self.queues.lock();
            (queues.ended, queues.open.iter().filter_map(Weak::upgrade).collect::<Vec<_>>())
        };
        // Outside the lock: the last holder of a queue tells us of its end.
        open.iter().for_each(|queue| counts.add(&queue.counts()));
        TrafficStatus {
            per_second,
            received,
            sent,
            queues: counts,
            unhandled_inbound: self.crowd.total(),
            rests: self.rests.load(Ordering::Relaxed),
        }
    }
}
