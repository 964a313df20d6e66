//! The one gate through which slow peers of our own accord make way for others, whoever wants it: their scores
//! ([`super::scores`]) or the closed loop ([`super::control`]). After each it stays shut for [`REPLACE_INTERVAL`], so that
//! the two never act on the same trouble, and whoever comes has its time to show what it can.

use crate::limits::REPLACE_INTERVAL;
use crate::time::Timestamp;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Gate {
    opens: Timestamp,
}

impl Gate {
    /// Open from the beginning.
    pub(super) const fn new() -> Self {
        Self { opens: Timestamp::ZERO }
    }

    /// From when on a peer may be replaced.
    pub(super) const fn opens(&self) -> Timestamp {
        self.opens
    }

    /// Whether a peer may be replaced now.
    pub(super) fn is_open(&self, now: Timestamp) -> bool {
        self.opens <= now
    }

    /// A peer is replaced now.
    pub(super) fn pass(&mut self, now: Timestamp) {
        self.opens = now + REPLACE_INTERVAL;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_shut_for_the_interval_after_each() {
        let mut gate = Gate::new();
        assert!(gate.is_open(Timestamp::ZERO));
        let first = Timestamp::from_millis(7);
        gate.pass(first);
        assert!(!gate.is_open(first) && !gate.is_open(Timestamp::from_millis(6) + REPLACE_INTERVAL));
        assert!(gate.is_open(gate.opens()));
    }
}
