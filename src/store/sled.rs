//! The default embedded store, on sled 0.34.
//!
//! What sled does by itself and what is done about it here:
//!
//! 1. Batches on single trees are not atomic with each other: a commit is one transaction over all trees.
//! 2. A transaction holds a lock of the whole process that stops every reader of every database:
//!    [`Store::batch_limit`] is small.
//! 3. Readers of several keys take no lock together: a lock of ours makes commits atomic for them.
//! 4. A thread would flush twice a second: it is turned off. Written buffers reach the file when they are
//!    full, in order, and all at a durable commit and when the store is dropped.
//! 5. On Linux `flush` ends in `sync_file_range`, which neither makes the file's length durable nor
//!    empties the disk's cache; and pages too large for its log (128 KiB) become files in `blobs/`
//!    that it never syncs. A durable commit syncs all of these itself. Keep values small.
//! 6. Damaged files make sled panic in places: panics are caught and are errors of kind `Corrupt`, after
//!    which the store has to be opened anew.
//! 7. An error while writing stays: every later commit fails with it until the store is opened anew.
//! 8. It takes a snapshot that a killed process had half written for a whole one, and says that the store is corrupt:
//!    what is unfinished is removed before sled looks.
//! 9. Its time goes with the number of keys: coins share pages of some 4 kB, in the order of their keys, and so do
//!    the entries of blocks.
//!
//! Recovery belongs to sled: at open it reads its log up to the last whole transaction, which takes longer
//! the more was written since its last snapshot, and cuts off what follows. A damaged byte of the log looks
//! to it like the end: the store is then at an earlier commit, still a whole one, and says nothing. Who
//! keeps blocks apart can connect them again from there.

mod paged;

use super::embedded::Embedded;
use super::medium::{create_folder, sync_folder};
use super::{Batch, Change, Durability, Entry, Store, StoreError, StoreErrorKind, Table};
use ::sled::transaction::{ConflictableTransactionError, TransactionError, Transactional};
use ::sled::{Config, Db, Tree};
use core::ops::Bound;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

/// Changes of one commit: more would stop readers for long.
const BATCH_LIMIT: usize = 1_000;

/// A store in a folder of its own. Dropping it writes everything out.
pub struct SledStore {
    place: Embedded,
    db: Db,
    /// In the order of [`Table::ALL`].
    trees: Vec<Tree>,
    /// sled's log, for [`File::sync_all`].
    log: File,
    gate: RwLock<()>,
    /// One commit at a time: it reads pages before it writes them.
    writer: Mutex<()>,
    /// Names in `blobs/` that are durable.
    blobs: Mutex<BTreeSet<OsString>>,
}

impl SledStore {
    /// Opens the store in `folder`, which is created if absent, with a page cache of `cache_bytes`.
    ///
    /// # Errors
    /// `Locked` if another process has it open; `Unsupported` for another version of sled's format;
    /// `Corrupt`; `Full`; other failures of the operating system as `Transient`.
    pub fn open(folder: impl AsRef<Path>, cache_bytes: u64) -> Result<Self, StoreError> {
        let folder = folder.as_ref();
        let place = Embedded::new("sled", folder.to_owned());
        let failed = |e| StoreError::io(place.context("open"), e);
        create_folder(folder).map_err(failed)?;
        remove_unfinished(folder).map_err(failed)?;
        let config = Config::new().path(folder).cache_capacity(cache_bytes).flush_every_ms(None);
        let db = place.open(|| config.open(), error)?;
        let trees = Table::ALL.iter().map(|table| db.open_tree(table.name()));
        let trees = place.run("open", || trees.collect(), error)?;
        let log = File::options().read(true).write(true).open(folder.join("db")).map_err(failed)?;
        let store = Self {
            place,
            db,
            trees,
            log,
            gate: RwLock::new(()),
            writer: Mutex::new(()),
            blobs: Mutex::default(),
        };
        store.flush()?;
        Ok(store)
    }

    /// Makes all commits so far durable.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn flush(&self) -> Result<(), StoreError> {
        self.run("flush", || self.db.flush())?;
        let synced = (|| -> io::Result<()> {
            self.sync_blobs()?;
            self.log.sync_all()?;
            sync_folder(&self.place.folder)
        })();
        synced.map_err(|e| {
            // What the platform dropped after a failed sync is not known: nothing more may build on it.
            self.place.give_up();
            let mut error = StoreError::io(self.place.context("sync"), e);
            if error.kind != StoreErrorKind::Full {
                error.kind = StoreErrorKind::Corrupt;
            }
            error
        })
    }

    /// Syncs the pages that are files of their own, once each: they never change.
    fn sync_blobs(&self) -> io::Result<()> {
        let mut synced = self.blobs.lock();
        let folder = self.place.folder.join("blobs");
        let mut present = BTreeSet::new();
        for entry in std::fs::read_dir(&folder)? {
            let name = entry?.file_name();
            if !synced.contains(&name) {
                match File::options().read(true).write(true).open(folder.join(&name)) {
                    Ok(file) => file.sync_all()?,
                    // sled removed it meanwhile.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(e),
                }
            }
            present.insert(name);
        }
        if *synced != present {
            sync_folder(&folder)?;
        }
        *synced = present;
        Ok(())
    }

    fn run<T>(&self, doing: &str, operation: impl FnOnce() -> ::sled::Result<T>) -> Result<T, StoreError> {
        self.place.run(doing, operation, error)
    }

    fn tree(&self, table: Table) -> Result<&Tree, StoreError> {
        index(table).and_then(|at| self.trees.get(at)).ok_or_else(|| no_tree(table))
    }
}

/// Removes snapshots that were not finished, unless another process has the store open. (It gives them this name until
/// they are, and writes one at each start.)
fn remove_unfinished(folder: &Path) -> io::Result<()> {
    let log = match File::open(folder.join("db")) {
        Ok(log) => log,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    // sled's own lock.
    match log.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(()),
        Err(TryLockError::Error(e)) => return Err(e),
    }
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        if name.to_str().is_some_and(|name| name.starts_with("snap.") && name.ends_with(".generating")) {
            std::fs::remove_file(folder.join(name))?;
        }
    }
    Ok(())
}

/// Where a table is in [`Table::ALL`].
fn index(table: Table) -> Option<usize> {
    Table::ALL.iter().position(|other| *other == table)
}

/// Whether a table's entries, many and small, share pages.
fn is_paged(table: Table) -> bool {
    table != Table::Meta
}

fn no_tree(table: Table) -> StoreError {
    StoreError::new(StoreErrorKind::Unsupported, format!("no tree for table {}", table.name()))
}

impl Store for SledStore {
    fn get_many(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let tree = self.tree(table)?;
        let _no_commit = self.gate.read();
        if is_paged(table) {
            return self.run("read", || paged::get_many(tree, keys));
        }
        self.run("read", || keys.iter().map(|key| Ok(tree.get(key)?.map(|value| value.to_vec()))).collect())
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
        let tree = self.tree(table)?;
        let _no_commit = self.gate.read();
        if is_paged(table) {
            return self.run("read", || paged::range(tree, from, to, limit));
        }
        self.run("read", || {
            let entries = tree.range::<&[u8], _>((from, to)).take(limit);
            entries.map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec()))).collect()
        })
    }

    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        batch.check_sizes()?;
        if !batch.is_empty() {
            let _alone = self.writer.lock();
            let mut changes: Vec<Vec<paged::KeyChange>> = vec![Vec::new(); Table::ALL.len()];
            for change in batch.into_changes() {
                let (table, key, value) = match change {
                    Change::Put(table, key, value) => (table, key, Some(value)),
                    Change::Delete(table, key) => (table, key, None),
                };
                let of_table = index(table).and_then(|at| changes.get_mut(at));
                of_table.ok_or_else(|| no_tree(table))?.push((key, value));
            }
            let tables = Table::ALL.iter().zip(&self.trees).zip(changes);
            let parts = tables.map(|((table, tree), changes)| {
                if is_paged(*table) {
                    return self.run("commit to", || paged::batch(tree, changes));
                }
                let mut part = ::sled::Batch::default();
                for (key, value) in changes {
                    match value {
                        Some(value) => part.insert(key, value),
                        None => part.remove(key),
                    }
                }
                Ok(part)
            });
            let parts: Vec<::sled::Batch> = parts.collect::<Result<_, StoreError>>()?;
            let _no_reader = self.gate.write();
            self.run("commit to", || self.transaction(&parts))?;
        }
        match durability {
            Durability::Buffered => Ok(()),
            Durability::Durable => self.flush(),
        }
    }

    fn batch_limit(&self) -> usize {
        BATCH_LIMIT
    }
}

impl SledStore {
    fn transaction(&self, parts: &[::sled::Batch]) -> ::sled::Result<()> {
        let done = self.trees[..].transaction(|trees| {
            for (tree, part) in trees.iter().zip(parts) {
                tree.apply_batch(part)?;
            }
            Ok::<(), ConflictableTransactionError<()>>(())
        });
        done.map_err(|e| match e {
            TransactionError::Storage(e) => e,
            // Nothing above aborts.
            TransactionError::Abort(()) => ::sled::Error::ReportableBug("aborted".into()),
        })
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        // Nobody is left to tell of an error; whoever needs to know commits durably before.
        let _ = self.flush();
    }
}

impl fmt::Debug for SledStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SledStore").field("folder", &self.place.folder).finish_non_exhaustive()
    }
}

fn error(doing: &str, e: ::sled::Error) -> StoreError {
    use ::sled::Error;
    let kind = match e {
        // sled 0.34 gives its lock no kind of its own.
        Error::Io(ref e) if e.kind() == io::ErrorKind::Other && e.to_string().contains("acquire lock") => {
            StoreErrorKind::Locked
        }
        Error::Io(e) => return StoreError::io(doing, e),
        Error::Unsupported(_) => StoreErrorKind::Unsupported,
        Error::Corruption { .. } | Error::CollectionNotFound(_) | Error::ReportableBug(_) => {
            StoreErrorKind::Corrupt
        }
    };
    StoreError { kind, context: doing.to_owned(), source: Some(Box::new(e)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CACHE: u64 = 8 << 20;

    #[test]
    fn a_second_opener_is_locked_out() {
        let folder = tempfile::tempdir().unwrap();
        let store = SledStore::open(folder.path(), CACHE).unwrap();
        assert_eq!(SledStore::open(folder.path(), CACHE).unwrap_err().kind, StoreErrorKind::Locked);
        drop(store);
        SledStore::open(folder.path(), CACHE).unwrap();
    }

    /// The bug: a process that was killed while sled wrote a snapshot left a part of one, with which the store could
    /// not be opened any more.
    #[test]
    fn a_snapshot_that_was_cut_short_is_no_damage() {
        let folder = tempfile::tempdir().unwrap();
        let store = SledStore::open(folder.path(), CACHE).unwrap();
        let mut batch = Batch::new();
        batch.put(Table::Coins, *b"key", *b"value");
        store.commit(batch, Durability::Durable).unwrap();
        let cut = folder.path().join("snap.00000000FFFFFFFF.generating");
        std::fs::write(&cut, [7; 20]).unwrap();
        // Not while somebody may be writing it.
        assert_eq!(SledStore::open(folder.path(), CACHE).unwrap_err().kind, StoreErrorKind::Locked);
        assert!(cut.exists());
        drop(store);
        let store = SledStore::open(folder.path(), CACHE).unwrap();
        assert_eq!(store.get(Table::Coins, b"key").unwrap().as_deref(), Some(&b"value"[..]));
        assert!(!cut.exists());
    }

    #[test]
    fn errors_are_sorted_by_what_can_be_done() {
        let io = |kind: io::ErrorKind| error("x", ::sled::Error::Io(kind.into())).kind;
        assert_eq!(io(io::ErrorKind::StorageFull), StoreErrorKind::Full);
        assert_eq!(io(io::ErrorKind::TimedOut), StoreErrorKind::Transient);
        let corruption = ::sled::Error::Corruption { at: None, bt: () };
        assert_eq!(error("x", corruption).kind, StoreErrorKind::Corrupt);
        assert_eq!(error("x", ::sled::Error::Unsupported("v".into())).kind, StoreErrorKind::Unsupported);
    }

    #[test]
    fn a_broken_page_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = SledStore::open(folder.path(), CACHE).unwrap();
        store.tree(Table::Coins).unwrap().insert(b"", b"no page").unwrap();
        let error = store.get(Table::Coins, b"key").unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Corrupt);
        assert!(error.to_string().contains("the page from"), "{error}");
        let mut batch = Batch::new();
        batch.put(Table::Coins, *b"key", *b"value");
        assert_eq!(store.commit(batch, Durability::Durable).unwrap_err().kind, StoreErrorKind::Corrupt);
    }

    #[test]
    fn garbage_is_an_error_and_no_panic() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("conf"), b"not sled's configuration").unwrap();
        assert_ne!(SledStore::open(folder.path(), CACHE).unwrap_err().kind, StoreErrorKind::Locked);
    }
}
