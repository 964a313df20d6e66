//! The commits of a run: [`SyncStateFsm`] and the chain of checkpoints as one machine, which alone decides
//! what is durable.
//!
//! 1. `moved` and `asked`: memory changes, and a commit is on its way to the chainstate.
//! 2. `checkpoint`: phase one. The checkpoint must follow the last one and start at the durable tip.
//! 3. `committed`: phase two, for the checkpoint of phase one alone; or the last checkpoint again, when there
//!    was nothing to make durable. `acknowledge` ends it.
//! 4. What was acknowledged before may be told again, twice or late: nothing happens.
//! 5. What is refused changes nothing.
//!
//! Every change of state goes through [`SyncStateFsm::apply`], so that its table holds for all of this.

use super::fsm::{IllegalStep, SyncEvent, SyncState, SyncStateFsm};
use super::rollback::{BrokenChain, CheckpointChain, Link, Start};
use crate::chain::command::{BlockRef, RollbackCheckpoint};

/// Why a step of a commit was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// It is out of order.
    #[error("commit: {0}")]
    Step(#[from] IllegalStep),
    /// A checkpoint that does not follow the last.
    #[error(transparent)]
    Checkpoint(#[from] BrokenChain),
    /// A state is said to be durable whose checkpoint never was.
    #[error("the state of checkpoint {0} is said to be durable, but not the checkpoint")]
    WithoutCheckpoint(u64),
}

/// What a report that a state is durable means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// The durable tip is this now.
    Durable(BlockRef),
    /// There was nothing to make durable.
    Nothing,
    /// It was told before.
    Repeated,
}

/// The state of commits; see the [module](self).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commits {
    fsm: SyncStateFsm,
    chain: CheckpointChain,
    durable: BlockRef,
}

impl Commits {
    /// Begins with what the store holds: the last checkpoint and the durable tip.
    ///
    /// # Errors
    /// [`BrokenChain`] if they contradict each other.
    pub fn begin(last: Option<RollbackCheckpoint>, tip: BlockRef) -> Result<Self, BrokenChain> {
        let (chain, start) = CheckpointChain::begin(last, tip)?;
        let mut new = Self { fsm: SyncStateFsm::new(), chain, durable: tip };
        if start == Start::RolledBack {
            // Recovery has undone an unfinished change before we began.
            let undone = new.failed().and_then(|()| new.rolled_back());
            debug_assert!(undone.is_ok());
        }
        Ok(new)
    }

    /// Where the change of the durable state stands.
    pub fn state(&self) -> SyncState {
        self.fsm.state()
    }

    /// Whether a commit is under way.
    pub fn is_committing(&self) -> bool {
        self.fsm.is_committing()
    }

    /// The tip that survives a kill.
    pub fn durable(&self) -> BlockRef {
        self.durable
    }

    /// The last checkpoint.
    pub fn last(&self) -> Option<&RollbackCheckpoint> {
        self.chain.last()
    }

    /// A block is to be connected or disconnected in memory.
    ///
    /// # Errors
    /// [`IllegalStep`] after a failure.
    pub fn moved(&mut self) -> Result<(), IllegalStep> {
        self.fsm.apply(SyncEvent::BlocksMoved).map(drop)
    }

    /// A commit is asked for.
    ///
    /// # Errors
    /// [`IllegalStep`] unless memory is ahead and no commit is under way.
    pub fn asked(&mut self) -> Result<(), IllegalStep> {
        self.fsm.apply(SyncEvent::CommitAsked).map(drop)
    }

    /// Phase one: this checkpoint is durable.
    ///
    /// # Errors
    /// [`CommitError`] if it does not follow the last, or no commit was asked for.
    pub fn checkpoint(&mut self, checkpoint: &RollbackCheckpoint) -> Result<(), CommitError> {
        if self.chain.judge(checkpoint)? != Link::New {
            return Ok(());
        }
        if checkpoint.from != self.durable {
            let problem = "does not start at the durable tip";
            return Err(BrokenChain { found: checkpoint.sequence, problem }.into());
        }
        self.fsm.apply(SyncEvent::CheckpointDurable)?;
        self.chain.extend(checkpoint.clone())?;
        Ok(())
    }

    /// Phase two: the state that this checkpoint leads to is durable; or it is the last one and there was
    /// nothing to do. [`Self::acknowledge`] follows, unless it was told before.
    ///
    /// # Errors
    /// [`CommitError`] if the checkpoint is none of ours, or was never reported in phase one.
    pub fn committed(&mut self, checkpoint: &RollbackCheckpoint) -> Result<Committed, CommitError> {
        let link = self.chain.judge(checkpoint)?;
        // Before the first checkpoint there is none that could be repeated.
        let still =
            self.chain.last().is_none() && (checkpoint.from, checkpoint.to) == (self.durable, self.durable);
        match (self.fsm.state(), link) {
            (SyncState::Committing, Link::Repeated) => {
                self.fsm.apply(SyncEvent::StateDurable)?;
                self.durable = checkpoint.to;
                Ok(Committed::Durable(checkpoint.to))
            }
            (SyncState::Preparing, Link::Repeated) => self.nothing(),
            (SyncState::Preparing, Link::New) if still => self.nothing(),
            (_, Link::New) => Err(CommitError::WithoutCheckpoint(checkpoint.sequence)),
            (SyncState::Failed | SyncState::RollingBack, _) => {
                // Whatever comes late after a failure: the table refuses it.
                self.fsm.apply(SyncEvent::StateDurable)?;
                Ok(Committed::Repeated)
            }
            (_, Link::Repeated | Link::Earlier) => Ok(Committed::Repeated),
        }
    }

    fn nothing(&mut self) -> Result<Committed, CommitError> {
        self.fsm.apply(SyncEvent::NothingToCommit)?;
        Ok(Committed::Nothing)
    }

    /// Ends a commit. `behind`: memory is ahead of the durable state again.
    ///
    /// # Errors
    /// [`IllegalStep`] if no commit has reached its end.
    pub fn acknowledge(&mut self, behind: bool) -> Result<(), IllegalStep> {
        let event = if behind { SyncEvent::AcknowledgedBehind } else { SyncEvent::Acknowledged };
        self.fsm.apply(event).map(drop)
    }

    /// The chainstate failed.
    ///
    /// # Errors
    /// None: every state allows it.
    pub fn failed(&mut self) -> Result<(), IllegalStep> {
        self.fsm.apply(SyncEvent::Failure).map(drop)
    }

    /// The last consistent state is restored.
    ///
    /// # Errors
    /// [`IllegalStep`] if nothing failed.
    pub fn rolled_back(&mut self) -> Result<(), IllegalStep> {
        self.fsm.apply(SyncEvent::RolledBack).map(drop)
    }
}
