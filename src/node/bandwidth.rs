//! How many bytes a second all connections of a node together may read.
//!
//! A bucket that they share: a reader that has read is in debt for its bytes, and nobody reads before the debt is
//! paid at the allowed rate. What is not used is forgotten after a quarter of a second, so that a pause buys no burst.
//! What the system has received and the node has not read is not counted; TCP keeps it small while a reader is slow.

use super::requests::NodeClock;
use crate::limits::{LEAST_READ_CHUNK, READ_CHUNK};
use crate::time::Timestamp;
use core::time::Duration;
use parking_lot::Mutex;

/// The bucket of a node.
#[derive(Debug)]
pub(super) struct Bandwidth {
    /// Bytes a second.
    rate: u64,
    clock: NodeClock,
    paid: Mutex<Paid>,
}

#[derive(Debug)]
struct Paid {
    /// What was earned up to `at` and is not spent, in thousandths of a byte; a debt if it is negative.
    credit: i64,
    at: Timestamp,
}

impl Bandwidth {
    pub(super) fn new(rate: u64, clock: NodeClock) -> Self {
        let at = clock.now().at;
        Self { rate: rate.max(1), clock, paid: Mutex::new(Paid { credit: 0, at }) }
    }

    /// How many bytes to read at once: an eighth of a second's, so that no reader keeps the others waiting long.
    pub(super) fn chunk(&self) -> usize {
        usize::try_from(self.rate / 8).unwrap_or(usize::MAX).clamp(LEAST_READ_CHUNK, READ_CHUNK)
    }

    /// How long nobody may read.
    pub(super) fn wait(&self) -> Duration {
        let mut paid = self.paid.lock();
        self.pay(&mut paid);
        let debt = u64::try_from(-paid.credit).unwrap_or(0);
        Duration::from_millis(debt.div_ceil(self.rate))
    }

    /// These bytes were read.
    pub(super) fn spend(&self, bytes: usize) {
        let mut paid = self.paid.lock();
        self.pay(&mut paid);
        let thousandths = i64::try_from(bytes).unwrap_or(i64::MAX).saturating_mul(1_000);
        paid.credit = paid.credit.saturating_sub(thousandths);
    }

    fn pay(&self, paid: &mut Paid) {
        let now = self.clock.now().at;
        let millis = now.as_millis().saturating_sub(paid.at.as_millis());
        let earned = i64::try_from(millis.saturating_mul(self.rate)).unwrap_or(i64::MAX);
        let most = i64::try_from(self.rate.saturating_mul(250)).unwrap_or(i64::MAX);
        paid.credit = paid.credit.saturating_add(earned).min(most);
        paid.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Clock;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Clone, Debug, Default)]
    struct Hand(Arc<AtomicU64>);

    impl Clock for Hand {
        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::Relaxed))
        }

        fn unix(&self) -> u64 {
            0
        }
    }

    #[test]
    fn readers_together_keep_the_rate_and_save_nothing_up() {
        let hand = Hand::default();
        let bandwidth = Bandwidth::new(100_000, NodeClock::new(Arc::new(hand.clone())));
        assert_eq!(bandwidth.chunk(), 12_500);
        let (mut read, mut at) = (0, 0);
        // Three readers, each of which reads as soon as it may.
        while at < 60_000 {
            let wait = bandwidth.wait().as_millis() as u64;
            at += wait;
            hand.0.store(at, Ordering::Relaxed);
            if bandwidth.wait().is_zero() {
                (0..3).for_each(|_| bandwidth.spend(bandwidth.chunk()));
                read += 3 * bandwidth.chunk();
            }
        }
        let expected = 60 * 100_000;
        assert!((expected..=expected + 3 * 12_500).contains(&read), "{read}");
        // An hour without reading is worth a quarter of a second.
        hand.0.store(at + 3_600_000, Ordering::Relaxed);
        bandwidth.spend(25_000);
        assert_eq!(bandwidth.wait(), Duration::ZERO);
        bandwidth.spend(1_000);
        assert_eq!(bandwidth.wait(), Duration::from_millis(10));
    }

    #[test]
    fn the_largest_and_the_smallest_rates_do_no_harm() {
        for rate in [0, 1, u64::MAX] {
            let hand = Hand::default();
            let bandwidth = Bandwidth::new(rate, NodeClock::new(Arc::new(hand.clone())));
            bandwidth.spend(usize::MAX);
            hand.0.store(u64::MAX / 2, Ordering::Relaxed);
            let _ = bandwidth.wait();
            assert!((LEAST_READ_CHUNK..=READ_CHUNK).contains(&bandwidth.chunk()));
        }
    }
}
