//! The time left of a sync of blocks, with a band, and how good the estimates were once it is over.
//!
//! What is left, and what was done, is counted in transactions, where it is known how many the chain has up to which height
//! (`Params::tx_counts`, as Core's `GuessVerificationProgress`): the main network's first half of blocks is a sixth of the
//! work. Else each block counts as much as another.
//!
//! The rate is that of the last fifth of the time since the sync began, or the last half minute if that is longer: of long
//! syncs a longer part, since transactions are not all alike. The band is what the quickest and the slowest quarter of that
//! time would make of it, at least a tenth to both sides. At each twentieth of the way the estimate is kept, and compared
//! with what came of it at the end.
//!
//! Left out: what blocks cost apart from their transactions, which is most of it in the first years; that scripts are
//! checked only above the block of `assumevalid`; coins that do not fit the cache any more.

use crate::chain::tx_counts::{self, TxCounts};
use crate::time::Timestamp;
use core::time::Duration;
use std::collections::VecDeque;

/// Samples that are kept; when there are more, every other one goes and they lie twice as far apart.
const SAMPLES: usize = 128;
/// Least distance of samples at the beginning.
const SPACING: Duration = Duration::from_millis(500);
/// Least time that the rate is taken over.
const LEAST_SPAN: Duration = Duration::from_secs(30);
/// Estimates that are kept for the comparison.
const KEPT: u32 = 20;

/// How long a sync still takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimeLeft {
    /// The estimate.
    pub likely: Duration,
    /// If it goes on as in its quickest part of late.
    pub least: Duration,
    /// If it goes on as in its slowest.
    pub most: Duration,
}

/// How good the estimates of a sync were.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct EstimateQuality {
    /// Estimates that were compared, spread evenly over the way.
    pub count: usize,
    /// How many had the true time within their band.
    pub within: usize,
    /// Mean of how far they were off, as a part of the true time: 0.1 is a tenth.
    pub mean_error: f64,
}

/// Follows the heights of a sync.
#[derive(Debug, Default)]
pub(super) struct Estimator {
    counts: TxCounts,
    /// Times, and the transactions up to the tip then.
    samples: VecDeque<(Timestamp, f64)>,
    spacing: Duration,
    /// Transactions that were missing at the beginning.
    whole: f64,
    kept: Vec<(Timestamp, TimeLeft)>,
    quality: Option<EstimateQuality>,
}

impl Estimator {
    /// Nothing is known but how many transactions the chain has up to some heights.
    pub(super) fn new(counts: TxCounts) -> Self {
        Self { counts, ..Self::default() }
    }

    /// The transactions up to the tip, and those missing above it.
    fn work(&self, height: u32, missing: u32) -> (f64, f64) {
        let done = tx_counts::up_to(self.counts, height);
        (done, tx_counts::up_to(self.counts, height.saturating_add(missing)) - done)
    }

    /// The height of the tip and the blocks missing above it at this time, while blocks are synced.
    pub(super) fn record(&mut self, at: Timestamp, height: u32, missing: u32) {
        if self.samples.is_empty() {
            let (quality, counts) = (self.quality, self.counts);
            *self = Self { quality, counts, spacing: SPACING, ..Self::default() };
        }
        let (done, left) = self.work(height, missing);
        // Headers may still come in.
        self.whole = self.whole.max(left);
        if self.samples.back().is_some_and(|(last, _)| at.since(*last) < self.spacing) {
            return;
        }
        if self.samples.len() >= SAMPLES {
            let mut even = false;
            self.samples.retain(|_| {
                even = !even;
                even
            });
            self.spacing *= 2;
        }
        self.samples.push_back((at, done));
        let kept = self.kept.len() as u32;
        if self.whole - left >= self.whole / f64::from(KEPT) * f64::from(kept + 1)
            && kept + 1 < KEPT
            && let Some(estimate) = self.estimate(at, height, missing)
        {
            self.kept.push((at, estimate));
        }
    }

    /// The sync is over: compares what was estimated.
    pub(super) fn finish(&mut self, at: Timestamp) {
        let kept = core::mem::take(&mut self.kept);
        self.samples.clear();
        let compared: Vec<(Duration, TimeLeft)> = kept
            .into_iter()
            .map(|(then, estimate)| (at.since(then), estimate))
            .filter(|(truly, _)| !truly.is_zero())
            .collect();
        if compared.is_empty() {
            return;
        }
        let within = compared.iter().filter(|(truly, band)| (band.least..=band.most).contains(truly)).count();
        let error = |(truly, estimate): &(Duration, TimeLeft)| {
            (estimate.likely.as_secs_f64() / truly.as_secs_f64() - 1.0).abs()
        };
        let mean_error = compared.iter().map(error).sum::<f64>() / compared.len() as f64;
        self.quality = Some(EstimateQuality { count: compared.len(), within, mean_error });
    }

    /// How good the estimates of the last sync were.
    pub(super) fn quality(&self) -> Option<EstimateQuality> {
        self.quality
    }

    /// `None` as long as nothing has moved.
    pub(super) fn estimate(&self, now: Timestamp, height: u32, missing: u32) -> Option<TimeLeft> {
        let (begun, _) = self.samples.front()?;
        let span = (now.since(*begun) / 5).max(LEAST_SPAN);
        let base = self.samples.iter().rposition(|(at, _)| now.since(*at) >= span).unwrap_or(0);
        let (done, left) = self.work(height, missing);
        let mut points: Vec<(Timestamp, f64)> = self.samples.iter().skip(base).copied().collect();
        points.push((now, done));
        let rate = |from: (Timestamp, f64), to: (Timestamp, f64)| {
            let seconds = to.0.since(from.0).as_secs_f64();
            if seconds > 0.0 { (to.1 - from.1).max(0.0) / seconds } else { 0.0 }
        };
        let time = |rate: f64| Duration::try_from_secs_f64(left / rate).ok();
        let (first, last) = (*points.first()?, *points.last()?);
        let likely = time(rate(first, last))?;
        let quarter = last.0.since(first.0) / 4;
        let mut marks = vec![first];
        for n in 1..4 {
            let from = first.0 + quarter * n;
            marks.extend(points.iter().find(|(at, _)| *at >= from));
        }
        marks.push(last);
        let rates = marks.windows(2).filter(|pair| pair[1].0 > pair[0].0).map(|pair| rate(pair[0], pair[1]));
        let (slow, fast) =
            rates.fold((f64::MAX, 0.0f64), |(slow, fast), rate| (slow.min(rate), fast.max(rate)));
        let least = time(fast).unwrap_or(likely).min(likely.mul_f64(0.9));
        // A quarter in which nothing moved tells no time: four times as long is what it makes of the whole.
        let most = time(slow).unwrap_or(likely.saturating_mul(4)).max(likely.mul_f64(1.1));
        Some(TimeLeft { likely, least, most })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    #[test]
    fn a_steady_sync_is_estimated_to_the_second() {
        let mut estimator = Estimator::default();
        for second in 0..=1_000u64 {
            let height = second as u32 * 10;
            estimator.record(at(second), height, 10_000 - height);
            if second == 500 {
                let left = estimator.estimate(at(500), 5_000, 5_000).unwrap();
                assert_eq!(left.likely, Duration::from_secs(500));
                assert!(left.least <= Duration::from_secs(450) && left.most >= Duration::from_secs(550));
            }
        }
        assert!(estimator.samples.len() <= SAMPLES);
        estimator.finish(at(1_000));
        let quality = estimator.quality().unwrap();
        assert_eq!((quality.count, quality.within), (19, 19));
        assert!(quality.mean_error < 0.01, "{quality:?}");
    }

    /// A made-up chain whose blocks grow all the time, of which a table knows eight heights, synced at a steady rate of
    /// transactions. By blocks alone every estimate is far too short until the end is near.
    #[test]
    fn where_blocks_grow_transactions_tell_the_time_and_blocks_do_not() {
        const BLOCKS: u32 = 80_000;
        let up_to = |height: u32| u64::from(height) + u64::from(height).pow(3) / 3_000_000;
        let table: Vec<(u32, u64)> =
            (1..=8).map(|eighth| (BLOCKS / 8 * eighth, up_to(BLOCKS / 8 * eighth))).collect();
        let table: TxCounts = table.leak();
        let quality = |counts| {
            let mut estimator = Estimator::new(counts);
            let (mut height, mut second) = (0, 0);
            while height < BLOCKS {
                while height < BLOCKS && up_to(height) < second * 20_000 {
                    height += 1;
                }
                estimator.record(at(second), height, BLOCKS - height);
                second += 1;
            }
            estimator.finish(at(second));
            estimator.quality().unwrap()
        };
        let (by_transactions, by_blocks) = (quality(table), quality(&[]));
        assert!(by_transactions.mean_error < 0.1, "{by_transactions:?}");
        assert!(by_blocks.mean_error > 2.0 * by_transactions.mean_error, "{by_blocks:?}");
        assert!(by_transactions.within > by_blocks.within, "{by_transactions:?}, {by_blocks:?}");
    }

    #[test]
    fn the_band_widens_with_an_uneven_rate_and_a_bad_estimate_shows() {
        let mut estimator = Estimator::default();
        let mut height = 0;
        // It becomes slower and slower: early estimates are far too short.
        for second in 0..2_000u64 {
            height += if second < 100 { 90 } else { 1 };
            estimator.record(at(second), height, 10_900 - height);
        }
        let uneven = estimator.estimate(at(2_000), height, 100).unwrap();
        assert!(uneven.most >= uneven.likely && uneven.least <= uneven.likely);
        estimator.finish(at(2_000));
        let quality = estimator.quality().unwrap();
        assert!(quality.mean_error > 0.5 && quality.within < quality.count, "{quality:?}");
    }

    #[test]
    fn nothing_is_told_of_a_sync_that_does_not_move_or_has_not_begun() {
        let mut estimator = Estimator::default();
        assert_eq!(estimator.estimate(at(1), 0, 5), None);
        for second in 0..100 {
            estimator.record(at(second), 7, 100);
        }
        assert_eq!(estimator.estimate(at(100), 7, 100), None);
        estimator.finish(at(100));
        assert_eq!(estimator.quality(), None);
    }
}
