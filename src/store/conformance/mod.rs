//! The conformance suite for stores (feature `conformance`): what every [`Store`] must do, as checks that
//! take any backend and say which clause of the contract was broken.
//!
//! 1. The implementer describes the backend: how a new place for a store is made, and how the store at a
//!    place is opened, again and again ([`Backend`]).
//! 2. [`Suite::run`] runs every [`Check`]; [`Suite::check`] runs one.
//! 3. For a store that outlives its process, [`Backend::child`] names a program that opens the place and calls
//!    [`commit_until_killed`]. The suite starts it, kills it between and during commits (SIGKILL on Unix) and
//!    looks at what it left behind; and, on Unix, lets it run into a limit on the size of files.
//!
//! ```
//! use headlong::store::conformance::{Backend, Suite};
//! use headlong::{MemoryStore, Store, StoreError};
//!
//! struct InMemory;
//!
//! impl Backend for InMemory {
//!     /// For a store in files this is a folder (`tempfile::TempDir`).
//!     type Place = MemoryStore;
//!
//!     fn new_place(&self) -> MemoryStore {
//!         MemoryStore::new()
//!     }
//!
//!     fn open(&self, place: &MemoryStore) -> Result<Box<dyn Store>, StoreError> {
//!         Ok(Box::new(place.clone()))
//!     }
//! }
//!
//! let report = Suite::new(&InMemory).run();
//! assert!(report.conforms(), "{report}");
//! ```
//!
//! A test of a store in files whose child process is the test itself, started again:
//!
//! ```no_run
//! # #[cfg(feature = "sled")]
//! # mod tests {
//! use headlong::store::conformance::{Backend, Suite, commit_until_killed, test_child};
//! use headlong::{SledStore, Store, StoreError};
//! use std::process::Command;
//!
//! struct InSled;
//!
//! impl Backend for InSled {
//!     type Place = tempfile::TempDir;
//!
//!     fn new_place(&self) -> tempfile::TempDir {
//!         tempfile::tempdir().unwrap()
//!     }
//!
//!     fn open(&self, place: &tempfile::TempDir) -> Result<Box<dyn Store>, StoreError> {
//!         Ok(Box::new(SledStore::open(place.path(), 8 << 20)?))
//!     }
//!
//!     fn child(&self, place: &tempfile::TempDir) -> Option<Command> {
//!         Some(test_child("killed_child", "KILLED_CHILD", place.path()).unwrap())
//!     }
//! }
//!
//! // #[test]
//! fn conforms() {
//!     let report = Suite::new(&InSled).run();
//!     assert!(report.conforms(), "{report}");
//! }
//!
//! /// Does nothing but in the child process.
//! // #[test]
//! fn killed_child() {
//!     let Some(folder) = std::env::var_os("KILLED_CHILD") else { return };
//!     commit_until_killed(&SledStore::open(folder, 8 << 20).unwrap()).unwrap();
//! }
//! # }
//! ```

mod basics;
mod failing;
mod killed;
mod model;
mod states;
mod threads;

pub use failing::{FailingStore, When};
pub use killed::{commit_until_killed, test_child};

use super::{Store, StoreError};
use core::fmt;
use std::process::Command;

/// A backend under test: how its stores are made and opened.
pub trait Backend {
    /// Where one store is: a folder, a name, or for a store in memory what it shares with its next opening.
    /// Dropping it removes the store.
    type Place;

    /// A place with no store yet. Stores at two places share nothing.
    fn new_place(&self) -> Self::Place;

    /// Opens the store at a place, creating it if there is none. The suite drops a store before it opens the
    /// same place again.
    ///
    /// # Errors
    /// The store's; the suite reports it as a broken [`Clause::Errors`].
    fn open(&self, place: &Self::Place) -> Result<Box<dyn Store>, StoreError>;

    /// A program that opens the store at this place, calls [`commit_until_killed`] and ends. Its standard
    /// input and output belong to the suite. `None`, the default, where nothing outlives the process: the
    /// checks that need it are then skipped, and the report says so.
    fn child(&self, place: &Self::Place) -> Option<Command> {
        let _ = place;
        None
    }
}

/// What the contract of [`Store`] asks. The numbers are those of its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Clause {
    /// 1: all of a commit or nothing, over all tables, for readers and after a crash.
    Atomic,
    /// 2: a commit that survives brings all before it along.
    Ordered,
    /// 3: methods may be called from several threads at once.
    Concurrent,
    /// 4: keys are ordered bytewise; sizes up to the limits are taken.
    Keys,
    /// 5: errors where there is something to complain about and nowhere else, of the right kind.
    Errors,
    /// 6: after an error of `commit` the state is that before or after it, and the batch may be repeated.
    AfterError,
    /// Of [`Store::get_many`] and [`Store::range`]: they give what was committed, in the order told.
    Reads,
    /// Of [`super::Batch`]: of several changes for one key the last counts; tables never meet.
    Changes,
    /// Of [`super::Durability`]: what was durable, or closed in an orderly way, is there again.
    Durable,
    /// Of [`Store::batch_limit`]: at least 1, always the same, and a batch of that size is taken.
    BatchLimit,
}

impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Atomic => "clause 1 (a commit is atomic)",
            Self::Ordered => "clause 2 (commits are ordered)",
            Self::Concurrent => "clause 3 (several threads at once)",
            Self::Keys => "clause 4 (order and sizes of keys and values)",
            Self::Errors => "clause 5 (errors are sorted)",
            Self::AfterError => "clause 6 (the state after an error)",
            Self::Reads => "the contract of get_many and range",
            Self::Changes => "the contract of Batch",
            Self::Durable => "the contract of Durability",
            Self::BatchLimit => "the contract of batch_limit",
        })
    }
}

/// One check of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Check {
    /// A new store has nothing, and empty batches and questions are taken.
    Empty,
    /// The last change of a key counts; repeating a batch changes nothing.
    LastChange,
    /// Tables never meet.
    Tables,
    /// Bounds, limits and order of ranges.
    Ranges,
    /// Thousands of keys in one question, in any order and repeatedly; paging through a table.
    ManyKeys,
    /// Keys and values at the limits of size, and beyond.
    Sizes,
    /// The largest batch that the store asks for.
    BatchLimit,
    /// Closing and opening loses nothing.
    Reopen,
    /// Readers beside a writer see whole commits in order.
    Readers,
    /// Writers beside each other lose nothing.
    Writers,
    /// Random commits, ranges and reopenings give what ordered maps give.
    Model,
    /// Writes that fail before or after they happened ([`FailingStore`]) can be repeated.
    FailingWrites,
    /// A process killed between and during commits leaves a state that existed, with all that was durable.
    Kill,
    /// A process that runs into a limit on the size of files gets an error, and leaves such a state.
    NoRoom,
}

impl Check {
    /// All checks, the quick ones first.
    pub const ALL: [Self; 14] = [
        Self::Empty,
        Self::LastChange,
        Self::Tables,
        Self::Ranges,
        Self::ManyKeys,
        Self::Sizes,
        Self::BatchLimit,
        Self::Reopen,
        Self::Readers,
        Self::Writers,
        Self::Model,
        Self::FailingWrites,
        Self::Kill,
        Self::NoRoom,
    ];
}

/// A broken clause: which, found by which check, and what was seen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{check:?}: {clause} is broken: {detail}")]
pub struct Violation {
    /// The check that found it.
    pub check: Check,
    /// The clause.
    pub clause: Clause,
    /// What was expected and what was seen.
    pub detail: String,
}

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is wrong. The text says what was done where that is of interest; else it is empty.
    Passed(String),
    /// It could not be done; why.
    Skipped(&'static str),
    /// A clause is broken.
    Broken(Violation),
}

/// How all checks ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Each check that was run, in the order of [`Check::ALL`].
    pub outcomes: Vec<(Check, Outcome)>,
}

impl Report {
    /// Whether no clause is broken. Skipped checks don't count: see [`Self::skipped`].
    pub fn conforms(&self) -> bool {
        self.broken().next().is_none()
    }

    /// The broken clauses.
    pub fn broken(&self) -> impl Iterator<Item = &Violation> {
        self.outcomes.iter().filter_map(|(_, outcome)| match outcome {
            Outcome::Broken(violation) => Some(violation),
            _ => None,
        })
    }

    /// The checks that could not be done.
    pub fn skipped(&self) -> Vec<Check> {
        let skipped = |outcome: &Outcome| matches!(outcome, Outcome::Skipped(_));
        self.outcomes.iter().filter(|(_, outcome)| skipped(outcome)).map(|(check, _)| *check).collect()
    }
}

impl fmt::Display for Report {
    /// One line a check.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (check, outcome) in &self.outcomes {
            match outcome {
                Outcome::Passed(what) if what.is_empty() => writeln!(f, "ok       {check:?}")?,
                Outcome::Passed(what) => writeln!(f, "ok       {check:?}: {what}")?,
                Outcome::Skipped(why) => writeln!(f, "SKIPPED  {check:?}: {why}")?,
                Outcome::Broken(violation) => writeln!(f, "BROKEN   {violation}")?,
            }
        }
        Ok(())
    }
}

/// The suite for one backend.
#[derive(Debug)]
pub struct Suite<'a, B> {
    backend: &'a B,
    seed: u64,
}

impl<'a, B: Backend> Suite<'a, B> {
    /// The suite with seed 1.
    pub fn new(backend: &'a B) -> Self {
        Self { backend, seed: 1 }
    }

    /// Another seed for the random checks. A failure names the seed and the steps that lead to it.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Runs all checks, those after a broken one too. Takes seconds; longer for a slow disk.
    pub fn run(&self) -> Report {
        let run = |check| match self.check(check) {
            Ok(outcome) => (check, outcome),
            Err(violation) => (check, Outcome::Broken(violation)),
        };
        Report { outcomes: Check::ALL.into_iter().map(run).collect() }
    }

    /// Runs one check on stores of its own.
    ///
    /// # Errors
    /// The broken clause. Otherwise the outcome is `Passed` or `Skipped`.
    pub fn check(&self, check: Check) -> Result<Outcome, Violation> {
        let done = match check {
            Check::Empty => self.on_new_store(basics::empty),
            Check::LastChange => self.on_new_store(basics::last_change),
            Check::Tables => self.on_new_store(basics::tables),
            Check::Ranges => self.on_new_store(basics::ranges),
            Check::ManyKeys => self.on_new_store(basics::many_keys),
            Check::Sizes => self.on_new_store(basics::sizes),
            Check::BatchLimit => self.on_new_store(basics::batch_limit),
            Check::Reopen => basics::reopen(self.backend),
            Check::Readers => self.on_new_store(threads::readers),
            Check::Writers => self.on_new_store(threads::writers),
            Check::Model => model::check(self.backend, self.seed),
            Check::FailingWrites => failing::check(self.backend),
            Check::Kill => killed::check_kills(self.backend, self.seed),
            Check::NoRoom => killed::check_no_room(self.backend),
        };
        done.map_err(|Fault { clause, detail }| Violation { check, clause, detail })
    }

    fn on_new_store(&self, check: impl FnOnce(&dyn Store) -> Result<(), Fault>) -> Done {
        let place = self.backend.new_place();
        let store = self.backend.open(&place)?;
        check(&*store)?;
        drop(store);
        passed()
    }
}

/// A violation before it is known which check found it.
#[derive(Debug)]
struct Fault {
    clause: Clause,
    detail: String,
}

type Done = Result<Outcome, Fault>;

fn passed() -> Done {
    Ok(Outcome::Passed(String::new()))
}

impl Fault {
    fn new(clause: Clause, detail: impl Into<String>) -> Self {
        Self { clause, detail: detail.into() }
    }
}

/// An error where the contract allows none.
impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::new(Clause::Errors, format!("an error where none is allowed: {error}"))
    }
}

/// Ends a check with a fault unless this holds.
macro_rules! ensure {
    ($holds:expr, $clause:ident, $($detail:tt)+) => {
        if !$holds {
            return Err($crate::store::conformance::Fault::new(
                $crate::store::conformance::Clause::$clause,
                format!($($detail)+),
            ));
        }
    };
}
use ensure;
