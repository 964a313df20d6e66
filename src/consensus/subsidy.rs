//! How much a block may create: Core's `GetBlockSubsidy` (validation.cpp).

use bitcoin::Amount;

/// What the first blocks create.
const INITIAL: u64 = 50 * 100_000_000;

/// The subsidy of the block at `height`, which halves every `halving_interval` blocks and is zero from the
/// 64th halving on. An interval of zero is treated as one.
pub fn block_subsidy(height: u32, halving_interval: u32) -> Amount {
    let halvings = height / halving_interval.max(1);
    Amount::from_sat(INITIAL.checked_shr(halvings).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_at_the_interval_and_not_before() {
        for (height, sat) in [
            (0, 5_000_000_000),
            (209_999, 5_000_000_000),
            (210_000, 2_500_000_000),
            (419_999, 2_500_000_000),
            (420_000, 1_250_000_000),
            (32 * 210_000, 1),
            (33 * 210_000 - 1, 1),
            (33 * 210_000, 0),
            (63 * 210_000, 0),
            (64 * 210_000, 0),
            (u32::MAX, 0),
        ] {
            assert_eq!(block_subsidy(height, 210_000).to_sat(), sat, "height {height}");
        }
        assert_eq!(block_subsidy(150, 150).to_sat(), 2_500_000_000);
        assert_eq!(block_subsidy(63, 1).to_sat(), 0);
        assert_eq!(block_subsidy(64, 1).to_sat(), 0);
        assert_eq!(block_subsidy(64, 0).to_sat(), 0);
    }

    #[test]
    fn all_subsidies_together_stay_below_21_million() {
        let total: u64 = (0..40).map(|era| 210_000 * block_subsidy(era * 210_000, 210_000).to_sat()).sum();
        assert_eq!(total, 2_099_999_997_690_000);
    }
}
