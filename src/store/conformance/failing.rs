//! A store that fails when told to, and what its callers may rely on.
//!
//! The contract leaves open whether a commit that returned an error happened; a caller repeats it, or opens the
//! store anew. So the failure comes in both forms.

use super::states::{Growth, batch, state};
use super::{Backend, Done, ensure, passed};
use crate::store::{Batch, Durability, Entry, Store, StoreError, StoreErrorKind, Table};
use core::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};

/// Whether a failing commit happens all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum When {
    /// It fails, and nothing of it is stored.
    Before,
    /// It is stored, and then fails: the caller cannot know.
    After,
}

/// A store that passes everything on, but fails one commit or all from one on. For tests of hosts too.
#[derive(Debug)]
pub struct FailingStore<S> {
    inner: S,
    when: When,
    kind: StoreErrorKind,
    first: u64,
    last: u64,
    commits: AtomicU64,
}

impl<S: Store> FailingStore<S> {
    /// Fails the `nth` commit (the first is 1) with this kind of error, and no other.
    pub fn once(inner: S, nth: u64, when: When, kind: StoreErrorKind) -> Self {
        Self { inner, when, kind, first: nth, last: nth, commits: AtomicU64::new(0) }
    }

    /// Fails the `nth` commit and all after it.
    pub fn from(inner: S, nth: u64, when: When, kind: StoreErrorKind) -> Self {
        Self { last: u64::MAX, ..Self::once(inner, nth, when, kind) }
    }

    /// The commits so far, failed ones among them.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::SeqCst)
    }
}

impl<S: Store> Store for FailingStore<S> {
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
        let nth = self.commits.fetch_add(1, Ordering::SeqCst) + 1;
        if !(self.first..=self.last).contains(&nth) {
            return self.inner.commit(batch, durability);
        }
        if self.when == When::After {
            self.inner.commit(batch, durability)?;
        }
        Err(StoreError::new(self.kind, format!("commit {nth} failed, as asked")))
    }

    fn batch_limit(&self) -> usize {
        self.inner.batch_limit()
    }

    fn is_durable(&self) -> bool {
        self.inner.is_durable()
    }
}

/// A boxed store is one, so that what a [`Backend`] opens can be wrapped.
#[derive(Debug)]
struct Boxed(Box<dyn Store>);

impl Store for Boxed {
    fn get_many(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.0.get_many(table, keys)
    }

    fn range(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.0.range(table, from, to, limit)
    }

    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        self.0.commit(batch, durability)
    }

    fn batch_limit(&self) -> usize {
        self.0.batch_limit()
    }

    fn is_durable(&self) -> bool {
        self.0.is_durable()
    }
}

/// Commits of the sequence in which each is failed in turn.
const LAST: u32 = 5;

pub(super) fn check<B: Backend>(backend: &B) -> Done {
    for when in [When::Before, When::After] {
        for nth in 1..=LAST {
            let place = backend.new_place();
            let inner = Boxed(backend.open(&place)?);
            let store = FailingStore::once(inner, nth.into(), when, StoreErrorKind::Transient);
            for n in 1..=LAST {
                let next = || batch(&store, n, Growth::Replace);
                let durability = if n % 2 == 0 { Durability::Durable } else { Durability::Buffered };
                let failed = store.commit(next(), durability).is_err();
                ensure!(failed == (n == nth), Errors, "commit {n} of the store underneath failed");
                if failed {
                    let found = state(&store, Growth::Replace)?;
                    let expected = if when == When::Before { n - 1 } else { n };
                    ensure!(found == expected, AfterError, "commit {n} failed, and the state is {found}");
                    store.commit(next(), durability)?;
                }
                let found = state(&store, Growth::Replace)?;
                ensure!(
                    found == n,
                    AfterError,
                    "commit {nth} was repeated, and after commit {n} the state is {found}"
                );
            }
            drop(store);
            let found = state(&*backend.open(&place)?, Growth::Replace)?;
            ensure!(
                found == LAST,
                AfterError,
                "commit {nth} was repeated; opened again, the state is {found}"
            );
        }
    }
    passed()
}
