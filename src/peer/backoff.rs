//! Waits between tries that fail: each twice the last up to a bound, and never quite the same for two who fail together.

use crate::rng::Rng;
use core::time::Duration;

/// Counts failures in a row and tells how long to wait after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    /// No failure yet. The wait after the first is at most `first`, and after any at most `most`.
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, failures: 0 }
    }

    /// After this many failures.
    pub const fn after(self, failures: u32) -> Self {
        Self { failures, ..self }
    }

    /// It failed once more: how long to wait. From half of the bound that has doubled so often up to all of it.
    pub fn fail(&mut self, rng: &mut Rng) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let wait = self.bound();
        let half = wait / 2;
        let spread = u64::try_from((wait - half).as_millis()).unwrap_or(u64::MAX);
        half + Duration::from_millis(rng.below(spread.saturating_add(1))).min(wait - half)
    }

    /// The longest wait after this many failures.
    pub fn bound(&self) -> Duration {
        self.first.saturating_mul(1 << self.failures.saturating_sub(1).min(16)).min(self.most)
    }

    /// It will fail for a long time: the next waits are the longest.
    pub fn give_up(&mut self) {
        self.failures = u32::MAX;
    }

    /// It worked: the next wait is the shortest.
    pub fn succeed(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_bound_with_a_spread() {
        let mut rng = Rng::from_number(1);
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        for bound in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            let wait = backoff.fail(&mut rng);
            let bound = Duration::from_secs(bound);
            assert_eq!(backoff.bound(), bound);
            assert!(bound / 2 <= wait && wait <= bound, "{wait:?}");
        }
        backoff.succeed();
        assert!(backoff.fail(&mut rng) <= Duration::from_secs(1));
        backoff.give_up();
        assert!(backoff.fail(&mut rng) >= Duration::from_secs(30));
        let waits: std::collections::BTreeSet<_> = (0..20).map(|_| backoff.fail(&mut rng)).collect();
        assert!(waits.len() > 10, "two who fail together come back apart");
    }

    #[test]
    fn the_greatest_numbers_do_no_harm() {
        let mut backoff = Backoff::new(Duration::MAX, Duration::MAX);
        backoff.give_up();
        assert!(backoff.fail(&mut Rng::from_number(2)) >= Duration::MAX / 2);
    }
}
