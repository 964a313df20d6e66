//! A log-structured store on fjall 3, for full nodes: sets of coins far larger than memory.
//!
//! 1. All tables are one keyspace, so that they share one memtable and one journal; a key is the table's number and
//!    then the key. (fjall takes no empty keys; ours may be.)
//! 2. A batch is written to the journal as one record and shown to readers at once; readers of several keys look at
//!    one snapshot, and wait for nobody.
//! 3. A buffered commit reaches the operating system before it returns, so that a killed process loses none; a durable
//!    one syncs the journal.
//! 4. After a failed write fjall refuses all others, until it is opened anew.
//!
//! Recovery is fjall's: the journal is read up to its last whole record.

use super::embedded::Embedded;
use super::medium::{create_folder, sync_folder};
use super::schema::COIN_KEY_LEN;
use super::{Batch, Change, Durability, Entry, Store, StoreError, StoreErrorKind, Table};
use ::fjall::config::{CompressionPolicy, PartitioningPolicy, RestartIntervalPolicy};
use ::fjall::{Database, Error, Keyspace, KeyspaceCreateOptions, LsmError, PersistMode, Readable, Slice};
use core::ops::Bound;
use std::fmt;
use std::path::Path;

/// The name of the keyspace.
const KEYSPACE: &str = "headlong";
/// Bytes of what is kept in memory before it becomes a table. Larger tables are merged less often: a fifth of the whole
/// time with a small cache.
const MEMTABLE_FACTOR: u64 = 5;
const LEAST_MEMTABLE: u64 = 8 << 20;
const MOST_MEMTABLE: u64 = 64 << 20;

/// A store in a folder of its own. Dropping it makes everything durable.
pub struct FjallStore {
    place: Embedded,
    db: Database,
    entries: Keyspace,
}

impl FjallStore {
    /// Opens the store in `folder`, which is created if absent, with a cache of `cache_bytes` for what is read.
    /// What is written takes up to five times as much, 8 to 64 MiB, before it becomes a file, and up to four times that
    /// while files are made slower than changes come.
    ///
    /// # Errors
    /// `Locked` if another process has it open; `Unsupported` for another version of fjall's format; `Corrupt`;
    /// `Full`; other failures of the operating system as `Transient`.
    pub fn open(folder: impl AsRef<Path>, cache_bytes: u64) -> Result<Self, StoreError> {
        let folder = folder.as_ref();
        let place = Embedded::new("fjall", folder.to_owned());
        let failed = |error| StoreError::io(place.context("open"), error);
        create_folder(folder).map_err(failed)?;
        let files = folder.join("db");
        if !files.is_dir() {
            // fjall cannot open what it was stopped from creating: that happens beside, and is then given its name.
            let new = folder.join("new");
            if new.is_dir() {
                std::fs::remove_dir_all(&new).map_err(failed)?;
            }
            drop(open_at(&place, &new, cache_bytes)?);
            std::fs::rename(&new, &files).and_then(|()| sync_folder(folder)).map_err(failed)?;
        }
        let (db, entries) = open_at(&place, &files, cache_bytes)?;
        let store = Self { place, db, entries };
        store.flush()?;
        Ok(store)
    }

    /// Makes all commits so far durable.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn flush(&self) -> Result<(), StoreError> {
        self.run("flush", || self.db.persist(PersistMode::SyncAll))
    }

    fn run<T>(&self, doing: &str, operation: impl FnOnce() -> ::fjall::Result<T>) -> Result<T, StoreError> {
        self.place.run(doing, operation, error)
    }
}

/// Opens the database in this folder, and its keyspace.
fn open_at(place: &Embedded, files: &Path, cache_bytes: u64) -> Result<(Database, Keyspace), StoreError> {
    // More than a few workers wake each other for nothing.
    let workers = std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 4).max(1));
    let builder = || Database::builder(files).cache_size(cache_bytes).worker_threads(workers);
    let db = place.open(|| builder().open(), error)?;
    let options = || {
        KeyspaceCreateOptions::default()
            // What is looked for is there, but in invalid blocks: filters of the last level would be of no use.
            .expect_point_read_hits(true)
            // Whole, those of a table are a megabyte, of which a small cache holds a few. The few young tables, which
            // every look-up asks first, are kept open with theirs.
            .filter_block_partitioning_policy(PartitioningPolicy::new([false, true]))
            .index_block_partitioning_policy(PartitioningPolicy::new([false, true]))
            // Hashes and amounts do not get smaller.
            .data_block_compression_policy(CompressionPolicy::disabled())
            // Coins are looked up one by one: fewer entries to read past.
            .data_block_restart_interval_policy(RestartIntervalPolicy::all(4))
            .max_memtable_size((cache_bytes * MEMTABLE_FACTOR).clamp(LEAST_MEMTABLE, MOST_MEMTABLE))
    };
    let entries = place.run("open", || db.keyspace(KEYSPACE, options), error)?;
    Ok((db, entries))
}

/// A table's number before a key.
fn tagged(table: Table, key: &[u8]) -> Slice {
    // Those of coins and blocks are put together without an allocation of their own.
    let mut short = [tag(table); COIN_KEY_LEN + 1];
    match short.get_mut(1..=key.len()) {
        Some(rest) => {
            rest.copy_from_slice(key);
            Slice::from(&short[..=key.len()])
        }
        None => Slice::from([&[tag(table)], key].concat()),
    }
}

/// A change's tagged key, and the value that it gets.
fn as_tagged(change: Change) -> (Slice, Option<Vec<u8>>) {
    match change {
        Change::Put(table, key, value) => (tagged(table, &key), Some(value)),
        Change::Delete(table, key) => (tagged(table, &key), None),
    }
}

fn tag(table: Table) -> u8 {
    Table::ALL.iter().zip(0..).find(|(other, _)| **other == table).map_or(u8::MAX, |(_, tag)| tag)
}

impl Store for FjallStore {
    fn get_many(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.run("read", || {
            let snapshot = self.db.snapshot();
            let value =
                |key: &&[u8]| Ok(snapshot.get(&self.entries, tagged(table, key))?.map(|v| v.to_vec()));
            keys.iter().map(value).collect()
        })
    }

    fn range(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        if super::is_empty_range(from, to) {
            return Ok(Vec::new());
        }
        let tagged = |key| tagged(table, key);
        let from = match from {
            Bound::Unbounded => Bound::Included(tagged(&[])),
            bound => bound.map(tagged),
        };
        let to = match to {
            Bound::Unbounded => Bound::Excluded(Slice::from([tag(table) + 1])),
            bound => bound.map(tagged),
        };
        self.run("read", || {
            let entries = self.db.snapshot().range(&self.entries, (from, to)).take(limit);
            let entries = entries.map(|entry| entry.into_inner());
            entries.map(|entry| entry.map(|(key, value)| (key[1..].to_vec(), value.to_vec()))).collect()
        })
    }

    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        batch.check_sizes()?;
        let mut changes: Vec<(Slice, Option<Vec<u8>>)> =
            batch.into_changes().into_iter().map(as_tagged).collect();
        // Of several changes for one key the last counts; in fjall all changes of a batch are of the same age.
        changes.sort_by(|(a, _), (b, _)| a.cmp(b));
        self.run("commit to", || {
            let mut batch = self.db.batch();
            let mut changes = changes.into_iter().peekable();
            while let Some((key, value)) = changes.next() {
                match value {
                    _ if changes.peek().is_some_and(|(next, _)| *next == key) => {}
                    Some(value) => batch.insert(&self.entries, key, value),
                    None => batch.remove(&self.entries, key),
                }
            }
            batch.commit()
        })?;
        match durability {
            Durability::Buffered => Ok(()),
            Durability::Durable => self.flush(),
        }
    }

    fn batch_limit(&self) -> usize {
        50_000
    }
}

impl Drop for FjallStore {
    fn drop(&mut self) {
        // Nobody is left to tell of an error; whoever needs to know commits durably before.
        let _ = self.flush();
    }
}

impl fmt::Debug for FjallStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FjallStore").field("folder", &self.place.folder).finish_non_exhaustive()
    }
}

fn error(doing: &str, error: Error) -> StoreError {
    let kind = match error {
        Error::Io(error) | Error::Storage(LsmError::Io(error)) => return StoreError::io(doing, error),
        Error::Locked => StoreErrorKind::Locked,
        Error::InvalidVersion(_) => StoreErrorKind::Unsupported,
        _ => StoreErrorKind::Corrupt,
    };
    StoreError { kind, context: doing.to_owned(), source: Some(Box::new(error)) }
}
