//! Time as a value: the pure machines are told the time and never read a clock.
//!
//! Two clocks are kept apart. [`Timestamp`] is monotonic and drives every timer; Unix time is used by
//! consensus (a header's time must not be more than two hours ahead) and by addresses. A host may fix or
//! move the second without touching the first.

use core::ops::{Add, Sub};
use core::time::Duration;

/// A point on a monotonic clock, in milliseconds since an arbitrary origin (the start of the node).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The origin of the clock.
    pub const ZERO: Self = Self(0);

    /// The point `millis` milliseconds after the origin.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the origin.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    /// Saturates; a fraction of a millisecond is rounded up so that a timer is never early.
    fn add(self, wait: Duration) -> Self {
        let millis = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }
}

impl Sub for Timestamp {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

/// The time at which an input happened, as both clocks see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic time, for timers.
    pub at: Timestamp,
    /// Seconds since the Unix epoch, for consensus and for addresses.
    pub unix: u64,
}

impl Now {
    /// Both clocks at once: milliseconds since the origin, and Unix seconds.
    pub const fn new(at_millis: u64, unix: u64) -> Self {
        Self { at: Timestamp::from_millis(at_millis), unix }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_rounds_up_and_saturates() {
        assert_eq!((Timestamp::from_millis(1) + Duration::from_micros(1)).as_millis(), 2);
        assert_eq!((Timestamp::from_millis(1) + Duration::MAX).as_millis(), u64::MAX);
        assert_eq!(Timestamp::ZERO.since(Timestamp::from_millis(5)), Duration::ZERO);
    }
}
