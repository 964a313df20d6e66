//! Block locators: which heights a `getheaders` names.
//!
//! The newest first, then ten more one by one, then at distances that double, and the genesis block at the
//! end (Core's `LocatorEntries`): about 10 + log2 of the height, so a peer on another branch finds a common
//! block at most as far below the fork as the fork is deep.

/// The heights that the locator of a block at `tip` names, descending, ending with 0.
pub fn heights(tip: u32) -> impl Iterator<Item = u32> {
    let mut next = Some(tip);
    let (mut named, mut step) = (0_u32, 1_u32);
    core::iter::from_fn(move || {
        let height = next?;
        next = (height > 0).then(|| height.saturating_sub(step));
        named += 1;
        if named > 10 {
            step = step.saturating_mul(2);
        }
        Some(height)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_LOCATOR;

    #[test]
    fn heights_are_those_of_core() {
        let named = |tip| heights(tip).collect::<Vec<_>>();
        assert_eq!(named(0), [0]);
        assert_eq!(named(1), [1, 0]);
        assert_eq!(named(11), [11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
        assert_eq!(named(100), [100, 99, 98, 97, 96, 95, 94, 93, 92, 91, 90, 89, 87, 83, 75, 59, 27, 0]);
        assert!(named(u32::MAX).len() <= MAX_LOCATOR);
    }
}
