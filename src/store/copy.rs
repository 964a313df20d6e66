//! Copies all that a store holds into another one, of any backend.
//!
//! [`Table::Meta`] goes last, in durable commits: a copy that was cut short has no schema, and is refused as a store.

use super::{
    Batch, Change, Durability, Store, StoreError, StoreErrorKind, Table, commit_in_batches, each_entry,
};
use core::ops::Bound;

/// Copies every entry; answers how many there were. Nothing else may write to either meanwhile. `progress` is
/// called after each step with the number of entries so far.
///
/// # Errors
/// `Unsupported` if the target is not empty; the failures of both.
pub fn copy(from: &dyn Store, to: &dyn Store, mut progress: impl FnMut(u64)) -> Result<u64, StoreError> {
    for table in Table::ALL {
        if !to.range(table, Bound::Unbounded, Bound::Unbounded, 1)?.is_empty() {
            let context = format!("the store to copy into has entries in {}", table.name());
            return Err(StoreError::new(StoreErrorKind::Unsupported, context));
        }
    }
    let mut copied = 0;
    let others = Table::ALL.into_iter().filter(|table| *table != Table::Meta);
    for table in others.chain([Table::Meta]) {
        each_entry(from, table, |entries| {
            copied += entries.len() as u64;
            let changes = entries.into_iter().map(|(key, value)| Change::Put(table, key, value));
            commit_in_batches(to, changes, Durability::Buffered)?;
            progress(copied);
            Ok(())
        })?;
        to.commit(Batch::new(), Durability::Durable)?;
    }
    Ok(copied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Entry;
    use crate::store::memory::MemoryStore;

    fn all(store: &dyn Store) -> Vec<Vec<Entry>> {
        Table::ALL
            .map(|table| store.range(table, Bound::Unbounded, Bound::Unbounded, usize::MAX).unwrap())
            .into()
    }

    #[test]
    fn everything_is_copied_into_an_empty_store_only() {
        let (from, to) = (MemoryStore::new(), MemoryStore::new());
        let mut batch = Batch::new();
        for n in 0..25_000u32 {
            batch.put(Table::ALL[n as usize % Table::ALL.len()], n.to_be_bytes(), n.to_le_bytes());
        }
        batch.put(Table::Coins, [], b"empty key");
        from.commit(batch, Durability::Durable).unwrap();
        let mut told = Vec::new();
        assert_eq!(copy(&from, &to, |copied| told.push(copied)).unwrap(), 25_001);
        assert_eq!(told.last(), Some(&25_001));
        assert_eq!(all(&from), all(&to));
        assert_eq!(copy(&from, &to, drop).unwrap_err().kind, StoreErrorKind::Unsupported);
    }
}
