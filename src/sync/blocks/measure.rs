//! What is measured of the peers: speed, times of delivery, sizes of blocks.

use crate::limits::{
    BLOCK_SIZE_MAX, BLOCKS_IN_FLIGHT_MAX, BLOCKS_IN_FLIGHT_MIN, BLOCKS_IN_FLIGHT_START, DELIVERY_SAMPLES,
    HEDGE_MAX, HEDGE_MIN, HEDGE_START, SPEED_SAMPLE_MILLIS,
};
use crate::time::Timestamp;
use core::time::Duration;
use std::collections::VecDeque;

/// Speed of one peer's blocks while it owes any.
#[derive(Debug)]
pub(super) struct Meter {
    /// It may owe what it delivers in so many seconds.
    pub ahead: u64,
    /// Bytes a second; moving average.
    rate: u64,
    measured: bool,
    bytes: u64,
    blocks: usize,
    millis: u64,
    mark: Timestamp,
}

impl Meter {
    /// Nothing measured; the peer may owe what it delivers in so many seconds.
    pub fn new(ahead: u64) -> Self {
        Self { ahead, rate: 0, measured: false, bytes: 0, blocks: 0, millis: 0, mark: Timestamp::ZERO }
    }

    /// The peer owes a block after it owed none: the idle time before does not count.
    pub fn start(&mut self, now: Timestamp) {
        self.mark = now;
    }

    /// A block came that the peer owed. Answers the speed of the last blocks if it was measured anew,
    /// and over how many milliseconds.
    pub fn delivered(&mut self, now: Timestamp, bytes: u64) -> Option<(u64, u64)> {
        self.millis = self.millis.saturating_add(now.since(self.mark).as_millis() as u64);
        self.mark = now;
        self.bytes = self.bytes.saturating_add(bytes);
        self.blocks += 1;
        if self.millis < SPEED_SAMPLE_MILLIS && self.blocks < BLOCKS_IN_FLIGHT_START {
            return None;
        }
        let sample = self.bytes.saturating_mul(1_000) / self.millis.max(1);
        // A quarter for the newest sample: some seconds of memory.
        self.rate = if self.measured { (self.rate / 4).saturating_mul(3) + sample / 4 } else { sample };
        self.measured = true;
        let millis = self.millis;
        (self.bytes, self.blocks, self.millis) = (0, 0, 0);
        Some((sample, millis))
    }

    /// The peer was late: it is trusted with half as much until it delivers again.
    pub fn halve(&mut self) {
        self.rate /= 2;
    }

    /// Bytes a second; 0 before the first measurement.
    pub fn rate(&self) -> u64 {
        self.rate
    }

    /// Whether it has delivered anything yet.
    pub fn is_measured(&self) -> bool {
        self.measured
    }

    /// How many blocks of `size` bytes the peer may owe at a time.
    pub fn limit(&self, size: u64) -> usize {
        if !self.measured {
            return BLOCKS_IN_FLIGHT_START;
        }
        let blocks = self.rate.saturating_mul(self.ahead) / size.max(1);
        usize::try_from(blocks).unwrap_or(usize::MAX).clamp(BLOCKS_IN_FLIGHT_MIN, BLOCKS_IN_FLIGHT_MAX)
    }
}

/// The last times from request to delivery, of all peers.
#[derive(Debug, Default)]
pub(super) struct DeliveryTimes {
    samples: VecDeque<u64>,
}

impl DeliveryTimes {
    /// Records one.
    pub fn push(&mut self, time: Duration) {
        if self.samples.len() >= DELIVERY_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    }

    /// The time within which 95 of 100 arrive, within limits; a guess while there are few.
    pub fn percentile_95(&self) -> Duration {
        if self.samples.len() < 20 {
            return HEDGE_START;
        }
        let mut sorted: Vec<u64> = self.samples.iter().copied().collect();
        let at = (sorted.len() * 95).div_ceil(100).saturating_sub(1);
        let (_, value, _) = sorted.select_nth_unstable(at);
        Duration::from_millis(*value).clamp(HEDGE_MIN, HEDGE_MAX)
    }
}

/// The size that the next block is expected to have at most.
#[derive(Debug)]
pub(super) struct SizeEstimate {
    average: u64,
}

impl SizeEstimate {
    /// Before any block was seen: what full blocks have been for years, so that memory is safe at first.
    pub fn new() -> Self {
        Self { average: 1_000_000 }
    }

    /// A block of this size came.
    pub fn push(&mut self, bytes: u64) {
        let bytes = bytes.min(BLOCK_SIZE_MAX);
        self.average = (self.average * 7 + bytes) / 8;
    }

    /// A quarter above the moving average, at most the largest block.
    pub fn get(&self) -> u64 {
        (self.average + self.average / 4 + 512).min(BLOCK_SIZE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::BLOCKS_IN_FLIGHT_SECONDS;

    #[test]
    fn a_peer_may_owe_what_it_delivers_in_four_seconds() {
        let mut meter = Meter::new(BLOCKS_IN_FLIGHT_SECONDS);
        assert_eq!((meter.rate(), meter.limit(1)), (0, BLOCKS_IN_FLIGHT_START));
        meter.start(Timestamp::from_millis(10_000));
        // 100 kB each 100 ms; the idle time before `start` does not count.
        for at in 1..=50 {
            meter.delivered(Timestamp::from_millis(10_000 + at * 100), 100_000);
        }
        assert!((990_000..=1_000_000).contains(&meter.rate()), "{}", meter.rate());
        assert_eq!(meter.limit(100_000), 40);
        assert_eq!(meter.limit(4_000_000), BLOCKS_IN_FLIGHT_MIN);
        assert_eq!(meter.limit(100), BLOCKS_IN_FLIGHT_MAX);
        let before = meter.rate();
        meter.halve();
        assert_eq!(meter.rate(), before / 2);
    }

    #[test]
    fn blocks_that_come_in_no_time_are_measured_too() {
        let mut meter = Meter::new(BLOCKS_IN_FLIGHT_SECONDS);
        meter.start(Timestamp::ZERO);
        for _ in 0..BLOCKS_IN_FLIGHT_START {
            meter.delivered(Timestamp::ZERO, u64::MAX);
        }
        assert_eq!(meter.limit(1_000), BLOCKS_IN_FLIGHT_MAX);
    }

    #[test]
    fn the_percentile_is_that_of_the_last_times_and_within_bounds() {
        let mut times = DeliveryTimes::default();
        assert_eq!(times.percentile_95(), HEDGE_START);
        for millis in (1..=100).rev() {
            times.push(Duration::from_millis(millis * 100));
        }
        assert_eq!(times.percentile_95(), Duration::from_millis(9_500));
        for _ in 0..DELIVERY_SAMPLES {
            times.push(Duration::ZERO);
        }
        assert_eq!(times.percentile_95(), HEDGE_MIN);
        for _ in 0..DELIVERY_SAMPLES {
            times.push(Duration::MAX);
        }
        assert_eq!(times.percentile_95(), HEDGE_MAX);
    }

    #[test]
    fn the_expected_size_follows_the_blocks_and_never_exceeds_the_largest() {
        let mut size = SizeEstimate::new();
        for _ in 0..200 {
            size.push(1_000);
        }
        assert!((1_000..2_000).contains(&size.get()), "{}", size.get());
        for _ in 0..200 {
            size.push(u64::MAX);
        }
        assert_eq!(size.get(), BLOCK_SIZE_MAX);
    }
}
