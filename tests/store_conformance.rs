//! Every store that comes with the crate passes the conformance suite, and stores with one defect each are
//! found out by the clause that they break.

use core::ops::Bound;
use headlong::store::conformance::{
    Backend, Check, Clause, FailingStore, Outcome, Report, Suite, When, commit_until_killed, test_child,
};
use headlong::store::{Batch, Change, Durability, Entry, StoreErrorKind, Table};
use headlong::{MemoryStore, Store, StoreError};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The one body for every backend.
fn conforms<B: Backend>(backend: &B) -> Report {
    let seed = std::env::var("HEADLONG_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let report = Suite::new(backend).seed(seed).run();
    eprintln!("seed {seed}\n{report}");
    assert!(report.conforms(), "{report}");
    assert_eq!(report.outcomes.len(), Check::ALL.len());
    report
}

struct InMemory;

impl Backend for InMemory {
    type Place = MemoryStore;

    fn new_place(&self) -> MemoryStore {
        MemoryStore::new()
    }

    fn open(&self, place: &MemoryStore) -> Result<Box<dyn Store>, StoreError> {
        Ok(Box::new(place.clone()))
    }
}

#[test]
fn the_store_in_memory_conforms() {
    // Nothing outlives the process.
    assert_eq!(conforms(&InMemory).skipped(), [Check::Kill, Check::NoRoom]);
}

#[cfg(feature = "sled")]
mod sled {
    use super::*;
    use headlong::SledStore;

    const CHILD: &str = "HEADLONG_TEST_SLED_CHILD";
    const CACHE: u64 = 8 << 20;

    struct InSled;

    impl Backend for InSled {
        type Place = tempfile::TempDir;

        fn new_place(&self) -> tempfile::TempDir {
            tempfile::tempdir().unwrap()
        }

        fn open(&self, place: &tempfile::TempDir) -> Result<Box<dyn Store>, StoreError> {
            Ok(Box::new(SledStore::open(place.path(), CACHE)?))
        }

        fn child(&self, place: &tempfile::TempDir) -> Option<Command> {
            Some(test_child("sled::child", CHILD, place.path()).unwrap())
        }
    }

    /// Runs in the child process of the suite; else it does nothing.
    #[test]
    fn child() {
        let Some(folder) = std::env::var_os(CHILD) else { return };
        commit_until_killed(&SledStore::open(folder, CACHE).unwrap()).unwrap();
    }

    /// With one batch for each tree instead of a transaction over all, a killed process left tables of
    /// different commits behind in most rounds.
    #[test]
    fn the_store_on_sled_conforms() {
        let skipped: &[Check] = if cfg!(unix) { &[] } else { &[Check::NoRoom] };
        let report = conforms(&InSled);
        assert_eq!(report.skipped(), skipped);
        // What stood in the way is told.
        assert!(!cfg!(unix) || report.to_string().contains("failed (Full)"), "{report}");
    }
}

mod fjall {
    use super::*;
    use headlong::FjallStore;

    const CHILD: &str = "HEADLONG_TEST_FJALL_CHILD";
    const CACHE: u64 = 8 << 20;

    struct InFjall;

    impl Backend for InFjall {
        type Place = tempfile::TempDir;

        fn new_place(&self) -> tempfile::TempDir {
            tempfile::tempdir().unwrap()
        }

        fn open(&self, place: &tempfile::TempDir) -> Result<Box<dyn Store>, StoreError> {
            Ok(Box::new(FjallStore::open(place.path(), CACHE)?))
        }

        fn child(&self, place: &tempfile::TempDir) -> Option<Command> {
            Some(test_child("fjall::child", CHILD, place.path()).unwrap())
        }
    }

    /// Runs in the child process of the suite; else it does nothing.
    #[test]
    fn child() {
        let Some(folder) = std::env::var_os(CHILD) else { return };
        commit_until_killed(&FjallStore::open(folder, CACHE).unwrap()).unwrap();
    }

    #[test]
    fn the_store_on_fjall_conforms() {
        let skipped: &[Check] = if cfg!(unix) { &[] } else { &[Check::NoRoom] };
        assert_eq!(conforms(&InFjall).skipped(), skipped);
    }
}

// ---- Stores with one defect each ----

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defect {
    /// Each table is changed by itself, with a pause between.
    TornForReaders,
    /// A refused batch is applied up to what was refused.
    HalfRefused,
    /// Sizes are not looked at.
    TakesAnySize,
    /// The wrong kind of error for them.
    WrongKind,
    /// The first change of a key counts.
    FirstChange,
    /// All tables are one.
    OneTable,
    /// An upper bound that is excluded is included.
    UpperBound,
    /// One entry more than asked for.
    Limit,
    /// The last byte decides the order.
    Order,
    /// Values in the order of keys instead of that asked for.
    SortedAnswer,
    /// Absent keys are left out.
    AbsentLeftOut,
    /// A panic-free complaint about bounds between which nothing lies.
    EmptyRange,
    /// What is buffered is gone when the store is closed.
    LosesBuffered,
    /// Every twentieth commit is forgotten.
    Forgets,
    /// No batch at all is wanted.
    NoBatch,
    /// Less is taken than `batch_limit` says.
    SmallBatch,
    /// An empty value deletes.
    EmptyValue,
    /// A second batch of the same content is an error.
    NotRepeatable,
}

use Defect::*;

type Map = BTreeMap<(u8, Vec<u8>), Vec<u8>>;

#[derive(Debug, Default)]
struct Kept {
    entries: RwLock<Map>,
    durable: RwLock<Map>,
    last: RwLock<Batch>,
}

#[derive(Debug)]
struct Defective {
    defect: Defect,
    kept: Arc<Kept>,
    commits: AtomicUsize,
}

fn unsupported(context: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Unsupported, context)
}

impl Defective {
    fn place(&self, table: Table) -> u8 {
        if self.defect == OneTable { 0 } else { table as u8 }
    }

    fn apply(&self, change: Change, done: &mut Vec<(Table, Vec<u8>)>) {
        let mut entries = self.kept.entries.write();
        let (table, key, value) = match change {
            Change::Put(table, key, value) => (table, key, Some(value)),
            Change::Delete(table, key) => (table, key, None),
        };
        if self.defect == FirstChange && done.contains(&(table, key.clone())) {
            return;
        }
        done.push((table, key.clone()));
        match value.filter(|value| !value.is_empty() || self.defect != EmptyValue) {
            Some(value) => entries.insert((self.place(table), key), value),
            None => entries.remove(&(self.place(table), key)),
        };
    }
}

impl Drop for Defective {
    fn drop(&mut self) {
        if self.defect == LosesBuffered {
            *self.kept.entries.write() = self.kept.durable.read().clone();
        }
    }
}

impl Store for Defective {
    fn get_many(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let entries = self.kept.entries.read();
        let mut keys = keys.to_vec();
        if self.defect == SortedAnswer {
            keys.sort();
        }
        let values = keys.iter().map(|key| entries.get(&(self.place(table), key.to_vec())).cloned());
        Ok(values.filter(|value| value.is_some() || self.defect != AbsentLeftOut).collect())
    }

    fn range(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let above = |key: &[u8]| match from {
            Bound::Included(bound) => key >= bound,
            Bound::Excluded(bound) => key > bound,
            Bound::Unbounded => true,
        };
        let below = |key: &[u8]| match to {
            Bound::Included(bound) => key <= bound,
            Bound::Excluded(bound) if self.defect == UpperBound => key <= bound,
            Bound::Excluded(bound) => key < bound,
            Bound::Unbounded => true,
        };
        if let (Bound::Included(a), Bound::Included(b)) = (from, to)
            && a > b
            && self.defect == EmptyRange
        {
            return Err(unsupported("the range is empty"));
        }
        let entries = self.kept.entries.read();
        let mut found: Vec<Entry> = entries
            .iter()
            .filter(|((place, key), _)| *place == self.place(table) && above(key) && below(key))
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect();
        if self.defect == Order {
            found.sort_by_key(|(key, _)| (key.last().copied(), key.clone()));
        }
        found.truncate(limit.saturating_add(usize::from(self.defect == Limit && limit > 0)));
        Ok(found)
    }

    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        let nth = self.commits.fetch_add(1, Ordering::SeqCst) + 1;
        match self.defect {
            TakesAnySize => {}
            WrongKind => {
                batch.check_sizes().map_err(|_| StoreError::new(StoreErrorKind::Corrupt, "sizes"))?
            }
            HalfRefused if batch.check_sizes().is_err() => {
                self.apply(batch.changes()[0].clone(), &mut Vec::new());
                batch.check_sizes()?;
            }
            _ => batch.check_sizes()?,
        }
        if self.defect == SmallBatch && batch.len() > 50_000 {
            return Err(unsupported("so many changes"));
        }
        if self.defect == NotRepeatable && !batch.is_empty() {
            let mut last = self.kept.last.write();
            if *last == batch {
                return Err(unsupported("the same again"));
            }
            *last = batch.clone();
        }
        if self.defect == Forgets && nth.is_multiple_of(20) {
            return Ok(());
        }
        let mut done = Vec::new();
        if self.defect == TornForReaders {
            for change in batch.into_changes() {
                self.apply(change, &mut done);
                std::thread::sleep(Duration::from_micros(20));
            }
        } else {
            // Readers wait meanwhile.
            let mut next = Self { defect: self.defect, kept: Arc::default(), commits: AtomicUsize::new(0) };
            let mut entries = self.kept.entries.write();
            std::mem::swap(&mut *entries, &mut *next.kept.entries.write());
            for change in batch.into_changes() {
                next.apply(change, &mut done);
            }
            std::mem::swap(&mut *entries, &mut *next.kept.entries.write());
            next.defect = OneTable;
        }
        if durability == Durability::Durable {
            let now = self.kept.entries.read().clone();
            *self.kept.durable.write() = now;
        }
        Ok(())
    }

    fn batch_limit(&self) -> usize {
        if self.defect == NoBatch { 0 } else { 100_000 }
    }
}

impl Backend for Defect {
    type Place = Arc<Kept>;

    fn new_place(&self) -> Arc<Kept> {
        Arc::default()
    }

    fn open(&self, place: &Arc<Kept>) -> Result<Box<dyn Store>, StoreError> {
        Ok(Box::new(Defective { defect: *self, kept: place.clone(), commits: AtomicUsize::new(0) }))
    }
}

#[test]
fn each_defect_is_found_and_the_broken_clause_is_named() {
    for (defect, check, clause) in [
        (TornForReaders, Check::Readers, Clause::Atomic),
        (HalfRefused, Check::Sizes, Clause::Atomic),
        (TakesAnySize, Check::Sizes, Clause::Errors),
        (WrongKind, Check::Sizes, Clause::Errors),
        (FirstChange, Check::LastChange, Clause::Changes),
        (FirstChange, Check::Model, Clause::Changes),
        (OneTable, Check::Tables, Clause::Changes),
        (UpperBound, Check::Ranges, Clause::Reads),
        (UpperBound, Check::Model, Clause::Reads),
        (Limit, Check::Ranges, Clause::Reads),
        (Order, Check::Ranges, Clause::Keys),
        (Order, Check::ManyKeys, Clause::Keys),
        (SortedAnswer, Check::LastChange, Clause::Changes),
        (SortedAnswer, Check::ManyKeys, Clause::Reads),
        (AbsentLeftOut, Check::LastChange, Clause::Changes),
        (EmptyRange, Check::Ranges, Clause::Errors),
        (LosesBuffered, Check::Reopen, Clause::Durable),
        (LosesBuffered, Check::Model, Clause::Changes),
        (Forgets, Check::Reopen, Clause::Durable),
        (NoBatch, Check::BatchLimit, Clause::BatchLimit),
        (SmallBatch, Check::BatchLimit, Clause::BatchLimit),
        (EmptyValue, Check::LastChange, Clause::Changes),
        (NotRepeatable, Check::LastChange, Clause::Errors),
        (NotRepeatable, Check::FailingWrites, Clause::Errors),
    ] {
        match Suite::new(&defect).check(check) {
            Err(violation) => assert_eq!((violation.check, violation.clause), (check, clause), "{violation}"),
            Ok(outcome) => panic!("{defect:?} passed {check:?}: {outcome:?}"),
        }
    }
}

#[test]
fn a_failure_of_random_steps_names_its_seed_and_is_short() {
    let violation = Suite::new(&UpperBound).seed(7).check(Check::Model).unwrap_err();
    assert!(violation.detail.starts_with("seed 7, case "), "{violation}");
    let steps = violation.detail.split("after [").nth(1).unwrap();
    // One commit of one entry, and the range that shows too much.
    assert_eq!(steps.matches("Put(").count(), 1, "{violation}");
    assert_eq!((steps.matches("Commit(").count(), steps.matches("Range(").count()), (1, 1), "{violation}");
}

// ---- Stores that a kill finds out ----

/// A file a table, written one after another, in a folder: nothing makes them one.
#[derive(Debug)]
struct FileATable {
    inner: MemoryStore,
    folder: std::path::PathBuf,
}

impl FileATable {
    fn open(folder: &Path) -> Self {
        let inner = MemoryStore::new();
        for table in Table::ALL {
            let text = std::fs::read(folder.join(table.name())).unwrap_or_default();
            let entries: Vec<Entry> = serde_json::from_slice(&text).unwrap_or_default();
            let mut batch = Batch::new();
            entries.into_iter().for_each(|(key, value)| batch.put(table, key, value));
            inner.commit(batch, Durability::Durable).unwrap();
        }
        Self { inner, folder: folder.to_owned() }
    }
}

impl Store for FileATable {
    fn get_many(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.inner.get_many(table, keys)
    }

    fn range(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.inner.range(table, from, to, limit)
    }

    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        self.inner.commit(batch, durability)?;
        for table in Table::ALL {
            let entries = self.inner.range(table, Bound::Unbounded, Bound::Unbounded, usize::MAX)?;
            let new = self.folder.join("new");
            std::fs::write(&new, serde_json::to_vec(&entries).unwrap())
                .and_then(|()| std::fs::rename(&new, self.folder.join(table.name())))
                .map_err(|error| StoreError::io("write a table", error))?;
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

/// Keeps in memory what it calls durable.
struct Forgetful;
struct Torn;

const TORN: &str = "HEADLONG_TEST_TORN_CHILD";
const FORGETFUL: &str = "HEADLONG_TEST_FORGETFUL_CHILD";

impl Backend for Torn {
    type Place = tempfile::TempDir;

    fn new_place(&self) -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn open(&self, place: &tempfile::TempDir) -> Result<Box<dyn Store>, StoreError> {
        Ok(Box::new(FileATable::open(place.path())))
    }

    fn child(&self, place: &tempfile::TempDir) -> Option<Command> {
        Some(test_child("torn_child", TORN, place.path()).unwrap())
    }
}

impl Backend for Forgetful {
    type Place = ();

    fn new_place(&self) {}

    fn open(&self, (): &()) -> Result<Box<dyn Store>, StoreError> {
        Ok(Box::new(MemoryStore::new()))
    }

    fn child(&self, (): &()) -> Option<Command> {
        Some(test_child("forgetful_child", FORGETFUL, "").unwrap())
    }
}

#[test]
fn torn_child() {
    let Some(folder) = std::env::var_os(TORN) else { return };
    commit_until_killed(&FileATable::open(Path::new(&folder))).unwrap();
}

#[test]
fn forgetful_child() {
    if std::env::var_os(FORGETFUL).is_some() {
        commit_until_killed(&MemoryStore::new()).unwrap();
    }
}

#[test]
fn a_kill_finds_tables_that_do_not_move_together_and_commits_that_were_not_durable() {
    let torn = Suite::new(&Torn).check(Check::Kill).unwrap_err();
    assert_eq!(torn.clause, Clause::Atomic, "{torn}");
    let forgetful = Suite::new(&Forgetful).check(Check::Kill).unwrap_err();
    assert_eq!(forgetful.clause, Clause::Durable, "{forgetful}");
}

#[test]
fn a_child_that_is_none_is_the_checks_failure_and_hangs_nothing() {
    struct NoChild;
    impl Backend for NoChild {
        type Place = MemoryStore;

        fn new_place(&self) -> MemoryStore {
            MemoryStore::new()
        }

        fn open(&self, place: &MemoryStore) -> Result<Box<dyn Store>, StoreError> {
            Ok(Box::new(place.clone()))
        }

        fn child(&self, _place: &MemoryStore) -> Option<Command> {
            Some(test_child("no_such_test", "HEADLONG_TEST_NOTHING", "").unwrap())
        }
    }
    let violation = Suite::new(&NoChild).check(Check::Kill).unwrap_err();
    assert!(violation.detail.contains("child process"), "{violation}");
}

#[test]
fn a_failing_store_fails_when_told_to() {
    let put = |key: u8| {
        let mut batch = Batch::new();
        batch.put(Table::Meta, [key], *b"v");
        batch
    };
    let has = |store: &dyn Store, key: u8| store.get(Table::Meta, &[key]).unwrap().is_some();
    let kind = StoreErrorKind::Full;
    let once = FailingStore::once(MemoryStore::new(), 2, When::Before, kind);
    assert!(once.commit(put(1), Durability::Durable).is_ok());
    assert_eq!(once.commit(put(2), Durability::Durable).unwrap_err().kind, kind);
    assert!(!has(&once, 2));
    assert!(once.commit(put(2), Durability::Durable).is_ok());
    assert!(has(&once, 1) && has(&once, 2));
    assert_eq!(once.commits(), 3);
    let from = FailingStore::from(MemoryStore::new(), 1, When::After, kind);
    for _ in 0..3 {
        assert!(from.commit(put(1), Durability::Durable).is_err());
    }
    assert!(has(&from, 1));
    let outcome = Suite::new(&InMemory).check(Check::Kill).unwrap();
    assert!(matches!(outcome, Outcome::Skipped(_)), "{outcome:?}");
}
