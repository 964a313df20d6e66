//! Making the proved tip durable: the only place that turns proofs into batches.
//!
//! 1. Block bytes, undo data and headers are synced.
//! 2. If everything fits into one batch of the store, one atomic commit writes index entries, coins, tip and
//!    checkpoint.
//! 3. Else index entries first; then, durable, the checkpoint and a marker with the old tip and the new;
//!    then the coins in batches; then, durable, the tip, the marker removed.
//!
//! While the marker stands, the coins are those of neither tip. [`super::recovery`] carries the blocks of
//! both branches out again: all writes are idempotent, so that it does not matter how far a flush got.
//!
//! The proof is the watermark: [`Chainstate::tip`] moves up only with a
//! [`Verified`](crate::verify::Verified) block, and the cache holds nothing from above it.
//!
//! Afterwards the cache keeps its coins, clean; if it is over its budget it is emptied.

use super::pipeline::Chainstate;
use crate::chain::command::{ChainReport, RollbackCheckpoint};
use crate::error::Error;
use crate::store::schema::{self, Pending};
use crate::store::{Batch, Change, Durability, Store, StoreError};

/// Changes of a batch besides coins and index entries: tip, two of the checkpoint.
const FIXED_CHANGES: usize = 3;

impl Chainstate {
    /// Commits the proved tip. There are no overlays.
    pub(super) fn commit_proved(&mut self, time: u64) -> Result<(), Error> {
        self.archive.sync()?;
        self.headers.sync()?;
        let (from, to) = (self.durable, self.proved);
        let entries = self.archive.pending().len();
        let whole = entries + self.coins.dirty() + FIXED_CHANGES <= self.store.batch_limit().max(1);
        if from == to && self.coins.dirty() == 0 {
            self.write_entries(Batch::new(), Durability::Durable)?;
        } else {
            let checkpoint = RollbackCheckpoint::next(Some(&self.checkpoint), time, from, to);
            if whole {
                self.write_at_once(&checkpoint)?;
            } else {
                self.write_in_steps(&checkpoint)?;
            }
            self.checkpoint = checkpoint;
        }
        self.archive.committed();
        self.coins.written(self.coins.is_full());
        self.durable = to;
        self.reports.push_back(ChainReport::Committed(self.checkpoint.clone()));
        Ok(())
    }

    fn write_at_once(&mut self, checkpoint: &RollbackCheckpoint) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        for (hash, entry) in self.archive.pending() {
            schema::put_block_entry(&mut batch, *hash, entry);
        }
        self.coins.dirty_changes().for_each(|change| push(&mut batch, change));
        schema::put_tip(&mut batch, checkpoint.to);
        schema::put_checkpoint(&mut batch, checkpoint);
        self.store.commit(batch, Durability::Durable)?;
        self.reports.push_back(ChainReport::CheckpointDurable(checkpoint.clone()));
        Ok(())
    }

    fn write_in_steps(&mut self, checkpoint: &RollbackCheckpoint) -> Result<(), StoreError> {
        let mut first = Batch::new();
        schema::put_checkpoint(&mut first, checkpoint);
        schema::put_pending(&mut first, Pending { from: checkpoint.from, to: checkpoint.to });
        self.write_entries(Batch::new(), Durability::Buffered)?;
        self.store.commit(first, Durability::Durable)?;
        self.reports.push_back(ChainReport::CheckpointDurable(checkpoint.clone()));
        write_changes(&*self.store, self.coins.dirty_changes())?;
        let mut last = Batch::new();
        schema::put_tip(&mut last, checkpoint.to);
        schema::clear_pending(&mut last);
        self.store.commit(last, Durability::Durable)
    }

    /// Writes all index entries, the last batch with this durability.
    fn write_entries(&self, mut batch: Batch, durability: Durability) -> Result<(), StoreError> {
        let limit = self.store.batch_limit().max(1);
        for (hash, entry) in self.archive.pending() {
            if batch.len() >= limit {
                self.store.commit(core::mem::take(&mut batch), Durability::Buffered)?;
            }
            schema::put_block_entry(&mut batch, *hash, entry);
        }
        if batch.is_empty() { Ok(()) } else { self.store.commit(batch, durability) }
    }
}

/// Writes changes in batches of the size that the store asks for. None of them is durable yet.
pub(super) fn write_changes(
    store: &dyn Store,
    changes: impl Iterator<Item = Change>,
) -> Result<(), StoreError> {
    let limit = store.batch_limit().max(1);
    let mut batch = Batch::new();
    for change in changes {
        push(&mut batch, change);
        if batch.len() >= limit {
            store.commit(core::mem::take(&mut batch), Durability::Buffered)?;
        }
    }
    if batch.is_empty() { Ok(()) } else { store.commit(batch, Durability::Buffered) }
}

fn push(batch: &mut Batch, change: Change) {
    match change {
        Change::Put(table, key, value) => batch.put(table, key, value),
        Change::Delete(table, key) => batch.delete(table, key),
    }
}
