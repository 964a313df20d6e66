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
use std::time::{Duration, Instant};

/// The name of the keyspace.
const KEYSPACE: &str = "headlong";
/// Bytes of what is kept in memory before it becomes a table. Larger tables are merged less often: a fifth of the whole
/// time with a small cache.
const MEMTABLE_FACTOR: u64 = 5;
const LEAST_MEMTABLE: u64 = 8 << 20;
const MOST_MEMTABLE: u64 = 64 << 20;
/// The smallest that can be asked for: smaller ones are merged for ever.
const TINY_MEMTABLE: u64 = 1 << 20;
/// Memory that a byte of a memtable takes, as fjall counts: nodes of its list, what the allocator adds, and tables that are
/// files already and still held.
const REAL_BYTES: u64 = 2;
/// Memtables' worth of changes that may wait to become tables. fjall's only worker may be merging for long, and begins no
/// new memtable meanwhile: that in use would take in all that comes.
const MOST_WAITING: u64 = 3;
/// How long a commit waits for that at most, so that no defect of the worker's stops it for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// A store in a folder of its own. Dropping it makes everything durable.
pub struct FjallStore {
    place: Embedded,
    db: Database,
    entries: Keyspace,
    /// Bytes of changes that may wait to become tables.
    most_waiting: u64,
}

impl FjallStore {
    /// Opens the store in `folder`, which is created if absent, with a cache of `cache_bytes` for what is read.
    /// What is written becomes a file once it takes five times as much, 8 to 64 MiB; while files are made slower than
    /// changes come, up to three times that waits, then commits do. (All as fjall counts, which is half of the memory.)
    ///
    /// # Errors
    /// `Locked` if another process has it open; `Unsupported` for another version of fjall's format; `Corrupt`;
    /// `Full`; other failures of the operating system as `Transient`.
    pub fn open(folder: impl AsRef<Path>, cache_bytes: u64) -> Result<Self, StoreError> {
        Self::open_within(folder, cache_bytes, None)
    }

    /// The same, with `write_bytes` of memory, from 6 to 384 MiB, for what is written and waits to become files. Less
    /// means that files are merged more often.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_within(
        folder: impl AsRef<Path>,
        cache_bytes: u64,
        write_bytes: Option<u64>,
    ) -> Result<Self, StoreError> {
        let folder = folder.as_ref();
        let memtable = match write_bytes {
            Some(bytes) => (bytes / MOST_WAITING / REAL_BYTES).clamp(TINY_MEMTABLE, MOST_MEMTABLE),
            None => cache_bytes.saturating_mul(MEMTABLE_FACTOR).clamp(LEAST_MEMTABLE, MOST_MEMTABLE),
        };
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
            drop(open_at(&place, &new, cache_bytes, memtable)?);
            std::fs::rename(&new, &files).and_then(|()| sync_folder(folder)).map_err(failed)?;
        }
        let (db, entries) = open_at(&place, &files, cache_bytes, memtable)?;
        let store = Self { place, db, entries, most_waiting: MOST_WAITING * memtable };
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

    /// Returns once no more waits to become tables than may.
    fn wait_for_room(&self) {
        let begun = Instant::now();
        while self.db.write_buffer_size() > self.most_waiting && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn run<T>(&self, doing: &str, operation: impl FnOnce() -> ::fjall::Result<T>) -> Result<T, StoreError> {
        self.place.run(doing, operation, error)
    }
}

/// Opens the database in this folder, and its keyspace.
fn open_at(
    place: &Embedded,
    files: &Path,
    cache_bytes: u64,
    memtable: u64,
) -> Result<(Database, Keyspace), StoreError> {
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
            .max_memtable_size(memtable)
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
        self.wait_for_room();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_to_become_a_table_is_bounded() {
        const CHANGES: u64 = 10_000;
        let folder = tempfile::tempdir().unwrap();
        let store = FjallStore::open_within(folder.path(), 1 << 20, Some(24 << 20)).unwrap();
        assert_eq!(store.most_waiting, 12 << 20);
        for round in 0..40 {
            let mut batch = Batch::new();
            for n in 0..CHANGES {
                // In no order, so that tables overlap and have to be merged.
                let key = (round * CHANGES + n).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
                batch.put(Table::Coins, key, [0; 200]);
            }
            store.commit(batch, Durability::Buffered).unwrap();
            assert!(store.db.write_buffer_size() <= store.most_waiting, "round {round}");
        }
    }
}
