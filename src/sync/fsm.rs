//! The life of a change: `SyncStateFsm`, driven by events, polled by nothing.
//!
//! A change of the durable state takes two phases, so that a failure at any point leads back to a state
//! that existed:
//!
//! 1. `Syncing`: blocks connect or disconnect in memory.
//! 2. `Preparing`: a commit was asked for; its [`RollbackCheckpoint`] is being made durable.
//! 3. `Committing`: the checkpoint is durable; memory and store change together.
//! 4. `Committed`: the state of the checkpoint is durable; its acknowledgement (idempotent: the same
//!    checkpoint may be reported again) leads to `Idle`, or to `Syncing` if blocks connected meanwhile.
//! 5. A failure leads to `RollingBack` (what the chainstate's recovery does on the next start, from the
//!    checkpoint) or, where nothing was begun or the roll back fails, to `Failed`.
//!
//! The states change through [`SyncStateFsm::apply`] alone, by one table.
//!
//! [`RollbackCheckpoint`]: crate::chain::command::RollbackCheckpoint

/// Where the change of the durable state stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SyncState {
    /// Memory and store agree.
    Idle,
    /// Memory is ahead of the store.
    Syncing,
    /// The checkpoint is on its way to the disk.
    Preparing,
    /// The checkpoint is durable, the change is on its way.
    Committing,
    /// The change is durable and not acknowledged yet.
    Committed,
    /// The last consistent state is being restored.
    RollingBack,
    /// Nothing more can be changed.
    Failed,
}

impl SyncState {
    /// All states.
    pub const ALL: [Self; 7] = [
        Self::Idle,
        Self::Syncing,
        Self::Preparing,
        Self::Committing,
        Self::Committed,
        Self::RollingBack,
        Self::Failed,
    ];
}

/// What happens to a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SyncEvent {
    /// A block is to be connected or disconnected in memory.
    BlocksMoved,
    /// A commit was asked for.
    CommitAsked,
    /// Phase one: the checkpoint is durable.
    CheckpointDurable,
    /// Phase two: the state it leads to is durable.
    StateDurable,
    /// There was nothing to make durable.
    NothingToCommit,
    /// The durable state was acknowledged, and memory agrees with it.
    Acknowledged,
    /// The durable state was acknowledged, while memory moved on.
    AcknowledgedBehind,
    /// An unfinished change was found on start, or the chainstate failed.
    Failure,
    /// The last consistent state is restored.
    RolledBack,
}

impl SyncEvent {
    /// All events.
    pub const ALL: [Self; 9] = [
        Self::BlocksMoved,
        Self::CommitAsked,
        Self::CheckpointDurable,
        Self::StateDurable,
        Self::NothingToCommit,
        Self::Acknowledged,
        Self::AcknowledgedBehind,
        Self::Failure,
        Self::RolledBack,
    ];
}

use SyncEvent as E;
use SyncState as S;

/// Every allowed step: from, event, to. Anything else is refused, so a change can't become `Committed`
/// without its checkpoint, and a checkpoint can't be skipped.
pub const STEPS: [(SyncState, SyncEvent, SyncState); 19] = [
    (S::Idle, E::BlocksMoved, S::Syncing),
    (S::Idle, E::Failure, S::RollingBack),
    (S::Syncing, E::BlocksMoved, S::Syncing),
    (S::Syncing, E::CommitAsked, S::Preparing),
    (S::Syncing, E::Failure, S::RollingBack),
    (S::Preparing, E::BlocksMoved, S::Preparing),
    (S::Preparing, E::CheckpointDurable, S::Committing),
    (S::Preparing, E::NothingToCommit, S::Committed),
    (S::Preparing, E::Failure, S::RollingBack),
    (S::Committing, E::BlocksMoved, S::Committing),
    (S::Committing, E::StateDurable, S::Committed),
    (S::Committing, E::Failure, S::RollingBack),
    (S::Committed, E::StateDurable, S::Committed),
    (S::Committed, E::Acknowledged, S::Idle),
    (S::Committed, E::AcknowledgedBehind, S::Syncing),
    (S::Committed, E::Failure, S::RollingBack),
    (S::RollingBack, E::RolledBack, S::Idle),
    (S::RollingBack, E::Failure, S::Failed),
    (S::Failed, E::Failure, S::Failed),
];

/// An event that the state does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} is not allowed while {from:?}")]
pub struct IllegalStep {
    /// The state.
    pub from: SyncState,
    /// The event.
    pub event: SyncEvent,
}

/// The machine: a state that the table alone changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncStateFsm(SyncState);

impl SyncStateFsm {
    /// Memory and store agree.
    pub const fn new() -> Self {
        Self(SyncState::Idle)
    }

    /// The state.
    pub const fn state(&self) -> SyncState {
        self.0
    }

    /// Whether a commit is under way.
    pub const fn is_committing(&self) -> bool {
        matches!(self.0, S::Preparing | S::Committing | S::Committed)
    }

    /// Changes the state.
    ///
    /// # Errors
    /// [`IllegalStep`] if the table has no such step; the state stays.
    pub fn apply(&mut self, event: SyncEvent) -> Result<SyncState, IllegalStep> {
        let illegal = IllegalStep { from: self.0, event };
        let step = STEPS.iter().find(|(from, on, _)| *from == self.0 && *on == event).ok_or(illegal)?;
        self.0 = step.2;
        Ok(self.0)
    }
}

impl Default for SyncStateFsm {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole relation, written a second time: a row a state, a column an event in the order of
    /// `SyncEvent::ALL`; `.` is refused, a letter the state it leads to.
    const RELATION: [(SyncState, &str); 7] = [
        (S::Idle, "S......R."),
        (S::Syncing, "SP.....R."),
        (S::Preparing, "P.C.D..R."),
        (S::Committing, "C..D...R."),
        (S::Committed, "...D.ISR."),
        (S::RollingBack, ".......FI"),
        (S::Failed, ".......F."),
    ];

    fn letter(state: SyncState) -> char {
        match state {
            S::Idle => 'I',
            S::Syncing => 'S',
            S::Preparing => 'P',
            S::Committing => 'C',
            S::Committed => 'D',
            S::RollingBack => 'R',
            S::Failed => 'F',
        }
    }

    #[test]
    fn the_whole_relation() {
        for (state, row) in RELATION {
            assert_eq!(row.len(), SyncEvent::ALL.len());
            for (event, expected) in SyncEvent::ALL.into_iter().zip(row.chars()) {
                let mut fsm = SyncStateFsm(state);
                match fsm.apply(event) {
                    Ok(to) => assert_eq!(letter(to), expected, "{state:?} {event:?}"),
                    Err(illegal) => {
                        assert_eq!(expected, '.', "{state:?} {event:?}");
                        assert_eq!(illegal, IllegalStep { from: state, event });
                        assert_eq!(fsm.state(), state, "a refused event changes nothing");
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_is_committed_without_its_checkpoint() {
        let mut fsm = SyncStateFsm::new();
        fsm.apply(E::BlocksMoved).unwrap();
        assert!(fsm.apply(E::StateDurable).is_err(), "Syncing → Committed");
        fsm.apply(E::CommitAsked).unwrap();
        assert!(fsm.apply(E::StateDurable).is_err(), "Preparing → Committed without the checkpoint");
        fsm.apply(E::CheckpointDurable).unwrap();
        fsm.apply(E::StateDurable).unwrap();
        fsm.apply(E::StateDurable).unwrap();
        assert_eq!(fsm.apply(E::Acknowledged).unwrap(), S::Idle);
    }
}
