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
//! [`Verified`](crate::verify::Verified) block, and no other block has changed the cache when what is to be written
//! is fixed.
//!
//! What takes more than a batch is written by a thread of its own ([`super::flush`]), while blocks go on to connect;
//! without threads, in steps between them. The cache keeps its coins, clean.

use super::coins::{Coins, store_changes};
use super::flush::{Job, Stage};
use super::pipeline::Chainstate;
use crate::chain::command::{ChainReport, RollbackCheckpoint};
use crate::error::Error;
use crate::store::schema::{self, BlockEntry, Pending};
use crate::store::{Batch, Change, Durability, Store, StoreError, commit_in_batches};
use bitcoin::BlockHash;
use std::collections::BTreeMap;

/// Changes of a batch besides coins and index entries: tip, two of the checkpoint.
const FIXED_CHANGES: usize = 3;
/// Coins that the flushing thread is handed at a time, at least; no more than the store wants at once.
const SLICE: usize = 4_000;
/// Parts that it may have in hand: one to write, one to go on with.
const IN_HAND: usize = 2;

impl Chainstate {
    /// Begins to commit the proved tip. No block is unproved, no flush and no look-up is under way.
    pub(super) fn commit_proved(&mut self, time: u64) -> Result<(), Error> {
        self.headers.sync()?;
        let (from, to) = (self.durable, self.proved);
        let entries = self.archive.pending().len();
        let unchanged = from == to && self.coins.dirty() == 0;
        if !unchanged {
            self.note_commit();
        }
        let whole = entries + self.coins.dirty() + FIXED_CHANGES <= self.store.batch_limit().max(1);
        if unchanged || whole {
            self.archive.sync()?;
            if unchanged {
                let entries = entry_changes(self.archive.pending());
                commit_in_batches(&*self.store, entries, Durability::Durable)?;
            } else {
                let checkpoint = RollbackCheckpoint::next(Some(&self.checkpoint), time, from, to);
                let effort = self.gauges.commit.clone();
                effort.spend(self.coins.dirty(), || self.write_at_once(&checkpoint))?;
                self.checkpoint = checkpoint;
            }
            self.archive.hand_over();
            return self.committed();
        }
        let checkpoint = RollbackCheckpoint::next(Some(&self.checkpoint), time, from, to);
        self.coins.freeze();
        let mut first = Batch::new();
        schema::put_checkpoint(&mut first, &checkpoint);
        schema::put_pending(&mut first, Pending { from, to });
        let entries = self.archive.hand_over();
        let mut flush = self.start_flush(checkpoint);
        flush.hand(Job::Prepare { entries, first });
        self.flush = Some(flush);
        Ok(())
    }

    fn write_at_once(&mut self, checkpoint: &RollbackCheckpoint) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        entry_changes(self.archive.pending()).for_each(|change| batch.push(change));
        self.coins.freeze();
        let mut parts = Vec::new();
        while let Some((changes, written)) = self.coins.collect(usize::MAX) {
            store_changes(&changes).for_each(|change| batch.push(change));
            parts.push(written);
        }
        schema::put_tip(&mut batch, checkpoint.to);
        schema::put_checkpoint(&mut batch, checkpoint);
        self.store.commit(batch, Durability::Durable)?;
        parts.iter().for_each(|part| self.coins.stored(part));
        self.reports.push_back(ChainReport::CheckpointDurable(checkpoint.clone()));
        Ok(())
    }

    /// A job of the flush is done; gives it the next ones.
    pub(super) fn flushed(&mut self, result: Result<(), Error>) -> Result<(), Error> {
        result?;
        let Some(flush) = &mut self.flush else { return Ok(()) };
        match flush.stage() {
            Stage::Preparing => {
                flush.enter(Stage::Coins);
                self.reports.push_back(ChainReport::CheckpointDurable(flush.checkpoint.clone()));
            }
            Stage::Coins => {
                if let Some(part) = flush.written() {
                    self.coins.stored(&part);
                }
            }
            Stage::Ending => {
                self.checkpoint = flush.checkpoint.clone();
                self.flush = None;
                return self.committed();
            }
        }
        self.flush_on();
        Ok(())
    }

    /// Hands out coins as far as the flush can take them; behind the last, the tip.
    fn flush_on(&mut self) {
        let Some(flush) = &mut self.flush else { return };
        let least = self.store.batch_limit().min(SLICE);
        while flush.in_hand() < IN_HAND {
            if let Some((changes, written)) = self.coins.collect(least) {
                flush.hand_coins(changes, written);
            } else if flush.in_hand() == 0 {
                let mut last = Batch::new();
                schema::put_tip(&mut last, flush.checkpoint.to);
                schema::clear_pending(&mut last);
                flush.enter(Stage::Ending);
                return flush.hand(Job::End(last));
            } else {
                return;
            }
        }
    }

    /// The tip of the last checkpoint is durable.
    fn committed(&mut self) -> Result<(), Error> {
        self.archive.committed();
        self.durable = self.checkpoint.to;
        // A reorg may have brought back what was pruned on the other branch, and whoever hears of it asks for events at
        // once.
        self.report_storage();
        self.reports.push_back(ChainReport::Committed(self.checkpoint.clone()));
        self.after_commit()
    }
}

/// What sets these index entries.
pub(super) fn entry_changes(entries: &BTreeMap<BlockHash, BlockEntry>) -> impl Iterator<Item = Change> + '_ {
    entries.iter().map(|(hash, entry)| schema::block_entry_change(hash, entry))
}

/// Writes all that differs, in batches of the size that the store asks for. None of them is durable yet.
pub(super) fn write_coins(store: &dyn Store, coins: &mut Coins) -> Result<(), StoreError> {
    coins.freeze();
    while let Some((changes, written)) = coins.collect(SLICE) {
        commit_in_batches(store, store_changes(&changes), Durability::Buffered)?;
        coins.stored(&written);
    }
    Ok(())
}
