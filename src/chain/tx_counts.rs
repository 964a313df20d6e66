//! How many transactions the networks' chains have up to some heights: what is known of blocks before they are there, so
//! that the time that they take can be estimated. Nothing is decided by it.
//!
//! The main network's figures from 804,000 up and those of the test networks are those of `chainTxData` and of the
//! snapshots in Bitcoin Core's releases up to 31.99 (`kernel/chainparams.cpp`). The older ones of the main network are of
//! older releases as others repeat them, and the first two are rounded: they are good to a few percent, and an estimate
//! needs no more.

/// Heights, ascending, with the transactions up to and with their blocks.
pub type TxCounts = &'static [(u32, u64)];

pub(super) const MAIN: TxCounts = &[
    (100_000, 217_000),
    (200_000, 7_320_000),
    (250_000, 21_491_097),
    (295_000, 36_544_669),
    (405_532, 119_994_369),
    (446_482, 184_495_391),
    (506_081, 295_363_220),
    (597_379, 460_596_047),
    (691_719, 656_509_474),
    (804_000, 881_818_374),
    (840_000, 991_032_194),
    (880_000, 1_145_604_538),
    (910_000, 1_226_586_151),
    (938_343, 1_315_805_869),
];

pub(super) const TESTNET3: TxCounts =
    &[(2_138_397, 61_958_978), (2_500_000, 66_484_552), (4_840_000, 536_078_574), (4_842_348, 536_108_416)];

pub(super) const TESTNET4: TxCounts = &[(90_000, 11_347_043), (120_000, 14_141_057), (123_613, 14_191_421)];

pub(super) const SIGNET: TxCounts =
    &[(150_000, 2_262_750), (160_000, 2_289_496), (290_000, 28_547_497), (293_175, 28_676_833)];

/// About how many transactions a chain has up to this height. Between two heights of the table, and past its last, they
/// grow evenly; without a table each block has one.
pub fn up_to(counts: TxCounts, height: u32) -> f64 {
    let Some(last) = counts.len().checked_sub(1) else { return f64::from(height) };
    let next = counts.partition_point(|(at, _)| *at < height).min(last);
    let (from, below) = next.checked_sub(1).map_or((0, 0), |before| counts[before]);
    let (to, above) = counts[next];
    let each = above.saturating_sub(below) as f64 / f64::from(to.saturating_sub(from).max(1));
    below as f64 + each * f64::from(height.saturating_sub(from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_ascend_and_each_block_has_a_transaction() {
        for counts in [MAIN, TESTNET3, TESTNET4, SIGNET] {
            let mut before = (0, 0);
            for &(height, count) in counts {
                assert!(height > before.0 && count - before.1 >= u64::from(height - before.0), "{height}");
                assert_eq!(up_to(counts, height), count as f64);
                before = (height, count);
            }
        }
    }

    #[test]
    fn between_and_past_the_heights_it_grows_evenly() {
        let counts: TxCounts = &[(10, 20), (20, 120)];
        let found: Vec<f64> = [0, 5, 10, 15, 20, 30].map(|height| up_to(counts, height)).to_vec();
        assert_eq!(found, [0.0, 10.0, 20.0, 70.0, 120.0, 220.0]);
        assert_eq!(up_to(&[], 7), 7.0);
        assert!(up_to(MAIN, u32::MAX).is_finite());
    }

    /// Half of the main network's blocks are a tenth of its transactions.
    #[test]
    fn old_blocks_are_small() {
        let part = up_to(MAIN, 469_000) / up_to(MAIN, 938_343);
        assert!((0.1..0.25).contains(&part), "{part}");
    }
}
