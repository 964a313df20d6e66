//! A store in memory: for tests, simulations and hosts that keep nothing.
//!
//! Nothing survives the last clone, so [`Durability::Durable`] means no more than `Buffered`.

use super::{Batch, Change, Durability, Entry, Store, StoreError, Table};
use core::ops::Bound;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;

type Tables = BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>;

/// Ordered maps behind one lock. Clones share their content, so that a clone can stand for the store after
/// a restart; [`Self::fork`] makes one of its own.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    tables: Arc<RwLock<Tables>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy that shares nothing with this one.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self { tables: Arc::new(RwLock::new(self.tables.read().clone())) }
    }
}

impl Store for MemoryStore {
    fn is_durable(&self) -> bool {
        false
    }

    fn get_many(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let tables = self.tables.read();
        let table = tables.get(&table);
        Ok(keys.iter().map(|key| table.and_then(|t| t.get(*key).cloned())).collect())
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
        let tables = self.tables.read();
        let Some(table) = tables.get(&table) else { return Ok(Vec::new()) };
        let entries = table.range::<[u8], _>((from, to)).take(limit);
        Ok(entries.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn commit(&self, batch: Batch, _durability: Durability) -> Result<(), StoreError> {
        batch.check_sizes()?;
        let mut tables = self.tables.write();
        for change in batch.into_changes() {
            match change {
                Change::Put(table, key, value) => tables.entry(table).or_default().insert(key, value),
                Change::Delete(table, key) => tables.entry(table).or_default().remove(&key),
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_shares_nothing() {
        let store = MemoryStore::new();
        let fork = store.fork();
        let mut batch = Batch::new();
        batch.put(Table::Meta, *b"k", *b"v");
        store.commit(batch, Durability::Durable).unwrap();
        assert_eq!(store.get(Table::Meta, b"k").unwrap().as_deref(), Some(&b"v"[..]));
        assert_eq!(fork.get(Table::Meta, b"k").unwrap(), None);
    }
}
