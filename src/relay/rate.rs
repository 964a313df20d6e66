//! How many messages a second: token buckets that follow the measured bandwidth.
//!
//! 1. [`BandwidthMeter`] counts the bytes of a connection in both directions by the second; the average is that of the last
//!    ten seconds.
//! 2. [`RateConfig::rate`] makes a rate of it: 50 messages a second for each megabyte a second, from 10 to 200; half as
//!    many more for state, three tenths of it for bulk. Control has no rate.
//! 3. A [`Pacer`] holds a [`TokenBucket`] for each of the two, and changes their rates as the bandwidth changes.
//!
//! Rates are for what nobody asked for: news and gossip of ours, and what a peer sends of its own accord. What was asked for
//! is bounded in bytes alone, or a sync of small blocks would be held up. All arithmetic is in whole numbers, so that no
//! token is lost to rounding.

use super::priority::{Priority, QueueCounts};
use crate::limits::{BANDWIDTH_SECONDS, RATE_BURST_SECONDS};
use crate::time::Timestamp;
use core::time::Duration;

/// Millionths of a token.
const TOKEN: i64 = 1_000_000;

/// How fast unasked messages may follow each other, and how long they may wait. The default is right for the real network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateConfig {
    /// Messages a second for each megabyte a second that is measured.
    pub per_megabyte: u64,
    /// The least rate, in messages a second, whatever is measured.
    pub least: u64,
    /// The greatest.
    pub most: u64,
    /// What state (headers, inventories, requests) gets of the rate, in percent.
    pub state_percent: u64,
    /// What bulk (addresses, transactions) gets, in percent.
    pub bulk_percent: u64,
    /// A control message that waits longer counts as late. It is never dropped: without it the protocol would break.
    pub control_limit: Duration,
    /// An announcement that waits longer is dropped, and the newest one is made later.
    pub state_limit: Duration,
    /// Gossip that waits longer is dropped.
    pub bulk_limit: Duration,
}

impl Default for RateConfig {
    fn default() -> Self {
        Self {
            per_megabyte: 50,
            least: 10,
            most: 200,
            state_percent: 150,
            bulk_percent: 30,
            control_limit: Duration::from_millis(50),
            state_limit: Duration::from_millis(500),
            bulk_limit: Duration::from_secs(5),
        }
    }
}

impl RateConfig {
    /// The rate of a class at this bandwidth, in thousandths of a message a second; `None`: without limit.
    pub fn rate(&self, priority: Priority, bytes_per_second: u64) -> Option<u64> {
        let percent = match priority {
            Priority::Control => return None,
            Priority::State => self.state_percent,
            Priority::Bulk => self.bulk_percent,
        };
        // Thousandths of a message for a byte, times bytes.
        let measured = u128::from(bytes_per_second) * u128::from(self.per_megabyte) / 1_000;
        let (least, most) = (u128::from(self.least) * 1_000, u128::from(self.most) * 1_000);
        let rate = measured.max(least).min(most) * u128::from(percent) / 100;
        Some(u64::try_from(rate).unwrap_or(u64::MAX))
    }

    /// How long a message of this class may wait.
    pub fn limit(&self, priority: Priority) -> Duration {
        match priority {
            Priority::Control => self.control_limit,
            Priority::State => self.state_limit,
            Priority::Bulk => self.bulk_limit,
        }
    }
}

/// Tokens that come at a rate, up to what comes in ten seconds. It may owe as much, and no more: a flood that was read at
/// once has a bounded pause after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    /// Thousandths of a token a second.
    rate: u64,
    /// Millionths of a token; negative: owed.
    level: i64,
    at: Timestamp,
}

impl TokenBucket {
    /// A full bucket. `rate` in thousandths of a token a second.
    pub fn new(rate: u64, now: Timestamp) -> Self {
        let mut bucket = Self { rate, level: 0, at: now };
        bucket.level = bucket.capacity();
        bucket
    }

    /// What it holds at most, and owes at most: at least one token.
    fn capacity(&self) -> i64 {
        let earned = self.rate.saturating_mul(1_000 * RATE_BURST_SECONDS);
        // Half of the numbers there are, so that a sum of two has room.
        i64::try_from(earned).unwrap_or(i64::MAX).clamp(TOKEN, i64::MAX / 2)
    }

    fn earn(&mut self, now: Timestamp) {
        let millis = now.as_millis().saturating_sub(self.at.as_millis());
        let earned = i64::try_from(millis.saturating_mul(self.rate)).unwrap_or(i64::MAX);
        self.level = self.level.saturating_add(earned).min(self.capacity());
        self.at = self.at.max(now);
    }

    /// Another rate from now on. What is there beyond the new bounds is lost.
    pub fn set_rate(&mut self, rate: u64, now: Timestamp) {
        self.earn(now);
        self.rate = rate;
        self.level = self.level.clamp(-self.capacity(), self.capacity());
    }

    /// Takes a token if there is one.
    pub fn take(&mut self, now: Timestamp) -> bool {
        self.earn(now);
        let there = self.level >= TOKEN;
        if there {
            self.level -= TOKEN;
        }
        there
    }

    /// Takes a token that has been used already.
    pub fn spend(&mut self, now: Timestamp) {
        self.earn(now);
        self.level = self.level.saturating_sub(TOKEN).max(-self.capacity());
    }

    /// Gives a token back.
    pub fn give(&mut self, now: Timestamp) {
        self.earn(now);
        self.level = self.level.saturating_add(TOKEN).min(self.capacity());
    }

    /// How long until there is a token; zero if there is one. An hour if none ever comes.
    pub fn wait(&mut self, now: Timestamp) -> Duration {
        self.earn(now);
        let missing = u64::try_from(TOKEN.saturating_sub(self.level)).unwrap_or(0);
        if missing == 0 {
            return Duration::ZERO;
        }
        missing
            .checked_div(self.rate)
            .map_or(Duration::from_secs(3_600), |_| Duration::from_millis(missing.div_ceil(self.rate)))
    }

    /// Whether less than a quarter is left.
    pub fn is_low(&mut self, now: Timestamp) -> bool {
        self.earn(now);
        self.level < self.capacity() / 4
    }
}

/// The buckets of one direction of a connection.
#[derive(Clone, Debug)]
pub struct Pacer {
    config: RateConfig,
    state: TokenBucket,
    bulk: TokenBucket,
}

impl Pacer {
    /// Full buckets at the least rates.
    pub fn new(config: RateConfig, now: Timestamp) -> Self {
        let bucket = |priority| TokenBucket::new(config.rate(priority, 0).unwrap_or(u64::MAX), now);
        Self { state: bucket(Priority::State), bulk: bucket(Priority::Bulk), config }
    }

    /// What was chosen.
    pub fn config(&self) -> &RateConfig {
        &self.config
    }

    /// The bandwidth is this now.
    pub fn follow(&mut self, bytes_per_second: u64, now: Timestamp) {
        for priority in [Priority::State, Priority::Bulk] {
            if let (Some(rate), Some(bucket)) =
                (self.config.rate(priority, bytes_per_second), self.bucket(priority))
            {
                bucket.set_rate(rate, now);
            }
        }
    }

    /// The bucket of a class; control has none.
    pub fn bucket(&mut self, priority: Priority) -> Option<&mut TokenBucket> {
        match priority {
            Priority::Control => None,
            Priority::State => Some(&mut self.state),
            Priority::Bulk => Some(&mut self.bulk),
        }
    }

    /// How long until all buckets have a token.
    pub fn wait(&mut self, now: Timestamp) -> Duration {
        self.state.wait(now).max(self.bulk.wait(now))
    }

    /// Whether a bucket has less than a quarter left.
    pub fn is_low(&mut self, now: Timestamp) -> bool {
        self.state.is_low(now) || self.bulk.is_low(now)
    }
}

/// Bytes by the second, for an average over the last ten.
#[derive(Clone, Debug)]
pub struct BandwidthMeter {
    /// Bytes in and out of each second, by its number modulo their count.
    seconds: [[u64; 2]; BANDWIDTH_SECONDS as usize],
    /// The number of the latest second.
    latest: u64,
    begun: Timestamp,
    /// All bytes in and out.
    total: [u64; 2],
}

/// Bytes a second in both directions, averaged over ten seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bandwidths {
    /// Received.
    pub received: u64,
    /// Sent.
    pub sent: u64,
}

/// What flows through a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerTraffic {
    /// Bytes a second, averaged over ten seconds.
    pub per_second: Bandwidths,
    /// What waits to be sent, and what was dropped or late.
    pub queues: QueueCounts,
    /// Times that the peer was not read for a while because it sent more than its rate of what nobody asked for.
    pub rests: u64,
}

impl BandwidthMeter {
    /// A meter that has seen nothing.
    pub fn new(now: Timestamp) -> Self {
        let seconds = [[0; 2]; BANDWIDTH_SECONDS as usize];
        Self { seconds, latest: now.as_millis() / 1_000, begun: now, total: [0; 2] }
    }

    fn slot(&mut self, second: u64) -> Option<&mut [u64; 2]> {
        self.seconds.get_mut(usize::try_from(second % BANDWIDTH_SECONDS).unwrap_or(0))
    }

    /// Empties the seconds that have begun since.
    fn advance(&mut self, now: Timestamp) {
        let second = now.as_millis() / 1_000;
        if second.saturating_sub(self.latest) >= BANDWIDTH_SECONDS {
            self.seconds = Default::default();
        } else {
            for begun in self.latest.saturating_add(1)..=second {
                if let Some(slot) = self.slot(begun) {
                    *slot = [0; 2];
                }
            }
        }
        self.latest = self.latest.max(second);
    }

    /// Bytes were received and sent.
    pub fn count(&mut self, received: u64, sent: u64, now: Timestamp) {
        self.advance(now);
        let latest = self.latest;
        if let Some(slot) = self.slot(latest) {
            *slot = [slot[0].saturating_add(received), slot[1].saturating_add(sent)];
        }
        self.total = [self.total[0].saturating_add(received), self.total[1].saturating_add(sent)];
    }

    /// The averages of the last ten seconds, of which the present one is not over; of a shorter time if the meter is younger,
    /// but of no less than a second.
    pub fn average(&mut self, now: Timestamp) -> Bandwidths {
        self.advance(now);
        let covered = (BANDWIDTH_SECONDS - 1) * 1_000 + now.as_millis() % 1_000;
        let age = now.as_millis().saturating_sub(self.begun.as_millis());
        let millis = u128::from(covered.min(age).max(1_000));
        let rate = |way: usize| {
            let bytes: u128 =
                self.seconds.iter().filter_map(|slot| slot.get(way)).map(|n| u128::from(*n)).sum();
            u64::try_from(bytes * 1_000 / millis).unwrap_or(u64::MAX)
        };
        Bandwidths { received: rate(0), sent: rate(1) }
    }

    /// All bytes received and sent.
    pub fn totals(&self) -> (u64, u64) {
        (self.total[0], self.total[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn rates_follow_the_bandwidth_within_their_bounds() {
        let config = RateConfig::default();
        let rates = |bytes| {
            [Priority::Control, Priority::State, Priority::Bulk].map(|class| config.rate(class, bytes))
        };
        assert_eq!(rates(0), [None, Some(15_000), Some(3_000)], "10 a second");
        assert_eq!(rates(200_000), rates(0));
        assert_eq!(rates(1_000_000), [None, Some(75_000), Some(15_000)], "50 a second");
        assert_eq!(rates(4_000_000), [None, Some(300_000), Some(60_000)], "200 a second");
        assert_eq!(rates(u64::MAX), rates(4_000_000));
    }

    #[test]
    fn a_pacer_follows_and_keeps_the_classes_apart() {
        let mut pacer = Pacer::new(RateConfig::default(), at(0));
        let taken = |pacer: &mut Pacer, class, now| {
            core::iter::from_fn(|| pacer.bucket(class)?.take(now).then_some(())).count()
        };
        assert_eq!(taken(&mut pacer, Priority::State, at(0)), 150);
        assert_eq!(taken(&mut pacer, Priority::Bulk, at(0)), 30);
        assert_eq!(pacer.wait(at(0)), Duration::from_millis(334), "three a second");
        assert_eq!(taken(&mut pacer, Priority::State, at(1_000)), 15);
        pacer.follow(2_000_000, at(1_000));
        assert_eq!(taken(&mut pacer, Priority::State, at(2_000)), 150);
        assert_eq!(taken(&mut pacer, Priority::Bulk, at(2_000)), 33);
    }

    #[test]
    fn a_debt_is_bounded_and_paid() {
        let mut bucket = TokenBucket::new(10_000, at(0));
        (0..10_000).for_each(|_| bucket.spend(at(0)));
        assert_eq!(bucket.wait(at(0)), Duration::from_millis(10_100), "ten seconds, and one token");
        bucket.give(at(0));
        assert_eq!(bucket.wait(at(0)), Duration::from_millis(10_000));
        assert!(!bucket.take(at(9_999)) && bucket.is_low(at(10_000)) && bucket.take(at(10_000)));
        let mut never = TokenBucket::new(0, at(0));
        assert!(never.take(at(0)));
        assert_eq!(never.wait(at(u64::MAX)), Duration::from_secs(3_600));
    }

    #[test]
    fn the_least_and_the_greatest_numbers_do_no_harm() {
        for rate in [0, 1, u64::MAX] {
            let mut bucket = TokenBucket::new(rate, at(u64::MAX));
            bucket.spend(at(0));
            bucket.give(at(u64::MAX));
            bucket.set_rate(u64::MAX - rate, at(5));
            let _ = (bucket.take(at(u64::MAX)), bucket.wait(at(u64::MAX)), bucket.is_low(at(0)));
        }
        let mut meter = BandwidthMeter::new(at(u64::MAX));
        meter.count(u64::MAX, u64::MAX, at(0));
        meter.count(u64::MAX, 1, at(u64::MAX));
        assert_eq!(meter.average(at(u64::MAX)).received, u64::MAX);
    }

    proptest! {
        #[test]
        fn a_bucket_is_a_sum_that_is_clamped_at_each_step(
            first in 0u64..20_000,
            steps in prop::collection::vec((0u8..4, 0u64..3_000, 0u64..20_000), 0..100),
        ) {
            let mut bucket = TokenBucket::new(first, at(0));
            let bound = |rate: u64| ((rate as f64) / 1_000.0 * RATE_BURST_SECONDS as f64).max(1.0);
            let (mut rate, mut level, mut now) = (first, bound(first), 0);
            for (what, wait, value) in steps {
                now += wait;
                level = (level + rate as f64 / 1_000.0 * wait as f64 / 1_000.0).min(bound(rate));
                match what {
                    // Where the sums round differently, either answer will do.
                    0 if (level - 1.0).abs() < 1e-6 => level -= f64::from(u8::from(bucket.take(at(now)))),
                    0 => {
                        let there = level >= 1.0;
                        prop_assert_eq!(bucket.take(at(now)), there);
                        level -= if there { 1.0 } else { 0.0 };
                    }
                    1 => {
                        bucket.spend(at(now));
                        level = (level - 1.0).max(-bound(rate));
                    }
                    2 => {
                        bucket.give(at(now));
                        level = (level + 1.0).min(bound(rate));
                    }
                    _ => {
                        bucket.set_rate(value, at(now));
                        rate = value;
                        level = level.clamp(-bound(rate), bound(rate));
                    }
                }
                prop_assert!((bucket.level as f64 / 1e6 - level).abs() < 1e-6, "{:?} {}", bucket, level);
                if rate > 0 {
                    let wait = ((1.0 - level).max(0.0) / (rate as f64 / 1_000.0) * 1_000.0).ceil();
                    prop_assert!((bucket.wait(at(now)).as_millis() as f64 - wait).abs() <= 1.0);
                }
            }
        }

        #[test]
        fn the_average_is_that_of_a_list_of_all_bytes(
            begun in 0u64..20_000,
            steps in prop::collection::vec((0u64..4_000, 0u64..1_000_000, 0u64..1_000), 1..80),
        ) {
            let mut meter = BandwidthMeter::new(at(begun));
            let (mut all, mut now) = (Vec::new(), begun);
            for (wait, received, sent) in steps {
                now += wait;
                meter.count(received, sent, at(now));
                all.push((now, received, sent));
                let recent = all.iter().filter(|(then, ..)| then / 1_000 + BANDWIDTH_SECONDS > now / 1_000);
                let (received, sent) = recent.fold((0, 0), |sum, (_, r, s)| (sum.0 + r, sum.1 + s));
                let first = (now / 1_000 + 1).saturating_sub(BANDWIDTH_SECONDS) * 1_000;
                let millis = (now - begun.max(first)).max(1_000).min(
                    (BANDWIDTH_SECONDS - 1) * 1_000 + now % 1_000,
                );
                let expected =
                    Bandwidths { received: received * 1_000 / millis, sent: sent * 1_000 / millis };
                prop_assert_eq!(meter.average(at(now)), expected);
            }
            let sum = all.iter().fold((0, 0), |sum, (_, r, s)| (sum.0 + r, sum.1 + s));
            prop_assert_eq!(meter.totals(), sum);
        }
    }
}
