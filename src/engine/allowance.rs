//! How many bytes a day a node may exchange, for links that are paid for by the byte.
//!
//! A day begins when the node does, and every 24 hours after. When its bytes are used up, in both directions together, no
//! blocks are fetched until the next one begins; what is under way still comes and is connected, connections and headers
//! are kept up, and no old blocks are served. A restart begins a new day.

use super::{Engine, cx};
use crate::peer::Cx;
use crate::time::Timestamp;
use core::time::Duration;

/// A day.
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// The bytes of the day, against their limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AllowanceStatus {
    /// Bytes received and sent since the day began.
    pub used: u64,
    /// How many there may be.
    pub limit: u64,
    /// They are used up: no blocks are fetched before the next day.
    pub spent: bool,
}

/// Counts the bytes of a day.
#[derive(Debug)]
pub(super) struct Allowance {
    limit: Option<u64>,
    begun: Timestamp,
    /// Bytes sent since the start of the node.
    sent: u64,
    /// All bytes before the day began.
    before: u64,
    spent: bool,
}

impl Allowance {
    pub(super) const fn new(limit: Option<u64>) -> Self {
        Self { limit, begun: Timestamp::ZERO, sent: 0, before: 0, spent: false }
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes as u64);
    }

    pub(super) const fn is_spent(&self) -> bool {
        self.spent
    }

    fn used(&self, received: u64) -> u64 {
        self.sent.saturating_add(received).saturating_sub(self.before)
    }

    /// So much was received since the start of the node. Answers whether blocks may be fetched again, or may no more.
    fn update(&mut self, received: u64, now: Timestamp) -> bool {
        let Some(limit) = self.limit else { return false };
        while now.since(self.begun) >= DAY {
            self.begun = self.begun + DAY;
            self.before = self.sent.saturating_add(received);
        }
        let spent = self.used(received) >= limit;
        core::mem::replace(&mut self.spent, spent) != spent
    }

    /// When the next day begins, while that is waited for.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.spent.then(|| self.begun + DAY)
    }

    pub(super) fn status(&self, received: u64) -> Option<AllowanceStatus> {
        Some(AllowanceStatus { used: self.used(received), limit: self.limit?, spent: self.spent })
    }
}

impl Engine {
    /// Stops and resumes the fetching of blocks with the day's bytes.
    pub(super) fn apply_allowance(&mut self) {
        if self.allowance.update(self.bytes_in, self.now.at) {
            self.apply_rest();
            self.settle();
        }
    }

    /// Fetches blocks, or does not, as the host and the day's bytes want it.
    pub(super) fn apply_rest(&mut self) {
        let rest = self.resting || self.allowance.is_spent();
        self.serving.set_spent(self.allowance.is_spent());
        self.blocks.set_resting(cx!(self), &self.tree, rest);
        self.activation.set_resting(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_its_bytes_and_the_next_one_new_ones() {
        let hours = |n: u64| Timestamp::from_millis(n * 3_600_000);
        let mut allowance = Allowance::new(Some(1_000));
        assert!(!allowance.update(600, hours(1)));
        allowance.sent(399);
        assert!(!allowance.update(600, hours(2)) && !allowance.is_spent());
        assert_eq!(allowance.next_deadline(), None);
        assert!(allowance.update(601, hours(3)) && allowance.is_spent());
        assert!(!allowance.update(700, hours(4)), "told once");
        assert_eq!(allowance.next_deadline(), Some(hours(24)));
        let status = AllowanceStatus { used: 1_099, limit: 1_000, spent: true };
        assert_eq!(allowance.status(700), Some(status));
        assert!(allowance.update(700, hours(24)) && !allowance.is_spent());
        assert_eq!(allowance.status(800).map(|status| status.used), Some(100));
        // Days in which nothing happened.
        assert!(!allowance.update(900, hours(24 * 5 + 1)));
        assert_eq!(allowance.status(900).map(|status| status.used), Some(0));
        let mut unlimited = Allowance::new(None);
        assert!(!unlimited.update(u64::MAX, hours(1)) && unlimited.status(5).is_none());
    }
}
