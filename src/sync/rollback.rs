//! The chain of rollback checkpoints: each names the hash of the one before, so that a record that was
//! lost, repeated out of turn or brought in from another data directory is noticed before it is trusted.
//!
//! On start: the durable tip must be where the last checkpoint leads (its change was finished) or where
//! it starts (its change was undone by recovery). Afterwards each commit's checkpoint must follow the last.

use crate::chain::command::{BlockRef, RollbackCheckpoint};
use crate::limits::MAX_CHECKPOINTS;
use std::collections::VecDeque;

/// What a checkpoint is to the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// The next one.
    New,
    /// The last one again; acknowledged before.
    Repeated,
    /// An earlier one of this run again.
    Earlier,
}

/// What the last checkpoint says about the state found on start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// There was no change yet, or the last one was finished.
    Finished,
    /// The last change was begun and undone.
    RolledBack,
}

/// A chain of checkpoints that does not hold together. The state can't be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "rollback checkpoint {found} {problem}; the stored coins can't be trusted: start with an empty \
     data directory, or restore a complete copy of this one"
)]
pub struct BrokenChain {
    /// Sequence number of the checkpoint that does not fit.
    pub found: u64,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// The checkpoints seen so far: the last [`MAX_CHECKPOINTS`], as in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointChain {
    /// From the oldest.
    kept: VecDeque<RollbackCheckpoint>,
}

impl CheckpointChain {
    /// Begins with what the store holds.
    ///
    /// # Errors
    /// [`BrokenChain`] if `tip`, the durable tip, is neither end of the last change.
    pub fn begin(last: Option<RollbackCheckpoint>, tip: BlockRef) -> Result<(Self, Start), BrokenChain> {
        let start = match &last {
            None => Start::Finished,
            Some(checkpoint) if checkpoint.to == tip => Start::Finished,
            Some(checkpoint) if checkpoint.from == tip => Start::RolledBack,
            Some(checkpoint) => {
                let problem = "leads neither to nor from the durable tip";
                return Err(BrokenChain { found: checkpoint.sequence, problem });
            }
        };
        Ok((Self { kept: last.into_iter().collect() }, start))
    }

    /// The last checkpoint.
    pub fn last(&self) -> Option<&RollbackCheckpoint> {
        self.kept.back()
    }

    /// Judges a checkpoint without taking it in.
    ///
    /// # Errors
    /// [`BrokenChain`] if it is neither one that was taken in nor linked to the last.
    pub fn judge(&self, checkpoint: &RollbackCheckpoint) -> Result<Link, BrokenChain> {
        let broken = |problem| Err(BrokenChain { found: checkpoint.sequence, problem });
        let Some(last) = self.last() else {
            // The first one seen: a store whose older checkpoints were pruned begins anywhere.
            return Ok(Link::New);
        };
        if checkpoint == last {
            return Ok(Link::Repeated);
        }
        if self.kept.contains(checkpoint) {
            return Ok(Link::Earlier);
        }
        if Some(checkpoint.sequence) != last.sequence.checked_add(1) {
            return broken("is out of turn");
        }
        if checkpoint.previous != last.hash() {
            return broken("does not name the one before it");
        }
        if checkpoint.from != last.to && checkpoint.from != last.from {
            return broken("does not start where the one before it led");
        }
        Ok(Link::New)
    }

    /// Takes a checkpoint in.
    ///
    /// # Errors
    /// [`BrokenChain`] as in [`Self::judge`]; the chain stays as it was.
    pub fn extend(&mut self, checkpoint: RollbackCheckpoint) -> Result<Link, BrokenChain> {
        let link = self.judge(&checkpoint)?;
        if link == Link::New {
            self.kept.push_back(checkpoint);
            if self.kept.len() > MAX_CHECKPOINTS {
                self.kept.pop_front();
            }
        }
        Ok(link)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::BlockHash;
    use bitcoin::hashes::Hash;

    fn block(height: u32) -> BlockRef {
        BlockRef { height, hash: BlockHash::from_byte_array([height as u8; 32]) }
    }

    #[test]
    fn each_checkpoint_must_follow_the_last() {
        let (mut chain, start) = CheckpointChain::begin(None, block(0)).unwrap();
        assert_eq!(start, Start::Finished);
        let first = RollbackCheckpoint::next(None, 1, block(0), block(5));
        let second = RollbackCheckpoint::next(Some(&first), 2, block(5), block(9));
        let third = RollbackCheckpoint::next(Some(&second), 3, block(9), block(8));
        assert_eq!(chain.extend(first.clone()), Ok(Link::New));
        assert_eq!(chain.extend(first.clone()), Ok(Link::Repeated));
        assert_eq!(chain.extend(third.clone()).unwrap_err().problem, "is out of turn");
        let forged = RollbackCheckpoint { time: 77, ..first.clone() };
        let grafted = RollbackCheckpoint::next(Some(&forged), 2, block(5), block(9));
        assert_eq!(chain.extend(grafted).unwrap_err().problem, "does not name the one before it");
        let leap = RollbackCheckpoint::next(Some(&first), 2, block(6), block(9));
        assert_eq!(chain.extend(leap).unwrap_err().problem, "does not start where the one before it led");
        assert_eq!(chain.extend(second), Ok(Link::New));
        assert_eq!(chain.extend(third.clone()), Ok(Link::New));
        // Late news of an earlier one changes nothing.
        assert_eq!(chain.extend(first), Ok(Link::Earlier));
        assert_eq!(chain.last(), Some(&third));
    }

    #[test]
    fn the_chain_keeps_as_many_as_the_store() {
        let (mut chain, _) = CheckpointChain::begin(None, block(0)).unwrap();
        let mut all: Vec<RollbackCheckpoint> = Vec::new();
        for n in 0..MAX_CHECKPOINTS as u64 + 5 {
            let next = RollbackCheckpoint::next(all.last(), n, block(0), block(0));
            assert_eq!(chain.extend(next.clone()), Ok(Link::New));
            all.push(next);
        }
        assert_eq!(chain.judge(&all[5]), Ok(Link::Earlier));
        assert_eq!(chain.judge(&all[4]).unwrap_err().problem, "is out of turn");
    }

    #[test]
    fn a_change_that_was_undone_on_start_may_be_followed() {
        let first = RollbackCheckpoint::next(None, 1, block(0), block(5));
        let (mut chain, start) = CheckpointChain::begin(Some(first.clone()), block(0)).unwrap();
        assert_eq!(start, Start::RolledBack);
        let second = RollbackCheckpoint::next(Some(&first), 2, block(0), block(4));
        assert_eq!(chain.extend(second), Ok(Link::New));
    }

    #[test]
    fn a_tip_from_elsewhere_is_refused_with_the_way_out() {
        let first = RollbackCheckpoint::next(None, 1, block(0), block(5));
        let broken = CheckpointChain::begin(Some(first), block(3)).unwrap_err();
        assert!(broken.to_string().contains("start with an empty data directory"));
    }
}
