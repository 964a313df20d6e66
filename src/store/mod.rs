//! Storage: the traits that a host implements, the stores that come with the crate, and the append-only
//! files for blocks, undo data and headers.
//!
//! A [`Store`] holds ordered key-value tables. All that must change together goes through one atomic
//! [`Store::commit`]. What the bytes mean is decided above it, in [`schema`] and in the chainstate, so
//! that an implementer writes three methods.

pub mod backend;
pub mod block_files;
pub mod coin;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod copy;
pub mod datadir;
#[cfg(any(feature = "sled", feature = "fjall"))]
mod embedded;
#[cfg(feature = "fjall")]
pub mod fjall;
pub mod header_file;
pub mod medium;
pub mod memory;
#[cfg(any(test, feature = "sled"))]
pub mod page;
pub mod schema;
#[cfg(feature = "sled")]
pub mod sled;

use crate::limits::{MAX_STORE_KEY, MAX_STORE_VALUE};
use core::fmt;
use core::ops::Bound;

/// A table of a store. Keys of different tables never meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Table {
    /// Schema version, network, tip, marker, checkpoints.
    Meta,
    /// Unspent outputs by outpoint.
    Coins,
    /// Where blocks and undo data lie, by block hash.
    Blocks,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 3] = [Self::Meta, Self::Coins, Self::Blocks];

    /// A stable name: backends use it for trees and column families.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Coins => "coins",
            Self::Blocks => "blocks",
        }
    }
}

/// How far a commit must have got when it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Durability {
    /// Atomic and ordered, but a crash of the machine may lose the most recent commits (never an earlier
    /// one without all later ones).
    Buffered,
    /// This commit and all before it are on stable storage.
    Durable,
}

/// One change of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Insert or replace.
    Put(Table, Vec<u8>, Vec<u8>),
    /// Remove; no error if the key is absent.
    Delete(Table, Vec<u8>),
}

/// Changes that are applied together or not at all. Of several for one key the last counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    changes: Vec<Change>,
    bytes: usize,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch with room for so many changes.
    pub fn with_capacity(changes: usize) -> Self {
        Self { changes: Vec::with_capacity(changes), bytes: 0 }
    }

    /// Inserts or replaces `key`.
    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.push(Change::Put(table, key.into(), value.into()));
    }

    /// Removes `key`.
    pub fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) {
        self.push(Change::Delete(table, key.into()));
    }

    /// Appends a change.
    pub fn push(&mut self, change: Change) {
        self.bytes += match &change {
            Change::Put(_, key, value) => key.len() + value.len(),
            Change::Delete(_, key) => key.len(),
        };
        self.changes.push(change);
    }

    /// The changes in order.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The changes in order, by value.
    pub fn into_changes(self) -> Vec<Change> {
        self.changes
    }

    /// The number of changes.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Refuses keys and values beyond what the contract of [`Store`] asks backends to take.
    ///
    /// # Errors
    /// `Unsupported`, naming table and sizes.
    pub fn check_sizes(&self) -> Result<(), StoreError> {
        for change in &self.changes {
            let (table, key, value) = match change {
                Change::Put(table, key, value) => (table, key, value.len()),
                Change::Delete(table, key) => (table, key, 0),
            };
            if key.len() > MAX_STORE_KEY || value > MAX_STORE_VALUE {
                let context =
                    format!("a key of {} and a value of {value} bytes in {}", key.len(), table.name());
                return Err(StoreError::new(StoreErrorKind::Unsupported, context));
            }
        }
        Ok(())
    }
}

/// Commits changes in batches of the size that the store asks for, the last with this durability; nothing if there are
/// none.
///
/// # Errors
/// As [`Store::commit`]; some of the changes are written then.
pub(crate) fn commit_in_batches(
    store: &dyn Store,
    changes: impl Iterator<Item = Change>,
    durability: Durability,
) -> Result<(), StoreError> {
    let limit = store.batch_limit().max(1);
    let mut batch = Batch::new();
    for change in changes {
        if batch.len() >= limit {
            let next = Batch::with_capacity(batch.len());
            store.commit(core::mem::replace(&mut batch, next), Durability::Buffered)?;
        }
        batch.push(change);
    }
    if batch.is_empty() { Ok(()) } else { store.commit(batch, durability) }
}

/// Entries of a table that are read at a time.
const STEP: usize = 4_096;

/// Gives every entry of a table, in order and some at a time.
///
/// # Errors
/// As [`Store::range`], and those of `each`, after which nothing more is read.
pub(crate) fn each_entry(
    store: &dyn Store,
    table: Table,
    mut each: impl FnMut(Vec<Entry>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut last: Option<Vec<u8>> = None;
    loop {
        let from = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let entries = store.range(table, from, Bound::Unbounded, STEP)?;
        let Some((key, _)) = entries.last() else { return Ok(()) };
        last = Some(key.clone());
        each(entries)?;
    }
}

/// Whether no key can lie within the bounds. `BTreeMap::range` panics on some of these.
fn is_empty_range(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Included(a), Bound::Included(b)) => a > b,
        (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => a >= b,
        _ => false,
    }
}

/// A pair of key and value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// Ordered key-value tables with atomic batches.
///
/// # Contract
/// 1. A commit is atomic: after a crash, and for every concurrent reader, all of it happened or nothing.
/// 2. Commits are ordered: if one survives a crash, so do all before it.
/// 3. Methods may be called from several threads at once; a reader may see the state before or after a
///    commit that runs meanwhile.
/// 4. Keys are ordered bytewise. Keys have at most 255 bytes, values at most 16 MiB.
/// 5. Errors are sorted by what can be done ([`StoreErrorKind`]). Absent keys are none. `commit` fails with
///    `Unsupported` for keys and values beyond these sizes ([`Batch::check_sizes`]).
/// 6. After an error of `commit` the state is that before or after it; the caller repeats the batch (batches
///    are idempotent) or opens the store anew, which may then lack commits that were only buffered, the latest
///    first.
///
/// The feature `conformance` has a suite that checks all of this for a backend of your own.
pub trait Store: Send + Sync + fmt::Debug {
    /// The values of `keys`, in the order asked; `None` where a key is absent.
    ///
    /// # Errors
    /// As the contract says.
    fn get_many(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError>;

    /// Up to `limit` entries with keys within the bounds, in ascending order.
    ///
    /// # Errors
    /// As the contract says.
    fn range(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError>;

    /// Applies a batch atomically.
    ///
    /// # Errors
    /// As the contract says.
    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), StoreError>;

    /// The most changes that one `commit` should carry; larger flushes are cut into several with a marker
    /// that makes them one. A backend whose commits block readers states a small number.
    fn batch_limit(&self) -> usize {
        100_000
    }

    /// Whether what is committed outlives the process. A node keeps its block and header files beside such a
    /// store.
    fn is_durable(&self) -> bool {
        true
    }

    /// The value of one key.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.get_many(table, &[key])?.pop().flatten())
    }
}

/// What can be done about a storage failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// A repetition may succeed.
    Transient,
    /// What is stored is not what was written, or belongs to something else.
    Corrupt,
    /// No room left.
    Full,
    /// The data belongs to another version or network, or the backend cannot do this.
    Unsupported,
    /// Another process holds the data directory.
    Locked,
}

/// A storage failure: what it was, where, and its source.
#[derive(Debug, thiserror::Error)]
#[error("{context} ({kind:?}){}", .source.as_ref().map(|s| format!(": {s}")).unwrap_or_default())]
pub struct StoreError {
    /// What can be done about it.
    pub kind: StoreErrorKind,
    /// What was being done, with the file or table.
    pub context: String,
    /// The error underneath.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StoreError {
    /// A failure without a source.
    pub fn new(kind: StoreErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    /// A failure of the operating system; a full disk is recognised.
    pub fn io(context: impl Into<String>, source: std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::StorageFull
            | std::io::ErrorKind::QuotaExceeded
            | std::io::ErrorKind::FileTooLarge => StoreErrorKind::Full,
            std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => StoreErrorKind::Corrupt,
            _ => StoreErrorKind::Transient,
        };
        Self { kind, context: context.into(), source: Some(Box::new(source)) }
    }
}
