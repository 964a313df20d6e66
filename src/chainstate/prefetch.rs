//! Coins that blocks will spend, brought from the store on the pool while the blocks wait for their turn.
//!
//! 1. Of blocks that are soon to connect and in memory, the coins that the cache does not know are looked for
//!    together, in a few jobs, each in the order of the keys.
//! 2. What they find is put into the cache; a block connects when all jobs for it are done. The cache
//!    does not forget them before, unless it turns out that the block does not connect.
//! 3. What is to be written is not fixed while a look-up is under way: a coin that it found could be spent, deleted
//!    and forgotten before it is put into the cache.

use super::coins::look_up;
use super::pipeline::Completion;
use crate::chain::command::BlockRef;
use crate::error::Error;
use crate::store::Store;
use crate::verify::pool::{Effort, Pool};
use bitcoin::{BlockHash, OutPoint};
use crossbeam_channel::Sender;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Coins of a job, at least: less would not be worth a thread's while.
const LEAST: usize = 500;

/// The look-ups of some blocks.
#[derive(Debug, Default)]
pub(super) struct Prefetch {
    /// The batch that each block's coins were looked for with.
    blocks: BTreeMap<BlockHash, u64>,
    /// Jobs under way of each batch that has any.
    batches: BTreeMap<u64, usize>,
    /// Batches so far.
    number: u64,
    /// Coins that were looked for.
    effort: Arc<Effort>,
}

impl Prefetch {
    /// Whether a block's coins were looked for, or are.
    pub fn has(&self, hash: &BlockHash) -> bool {
        self.blocks.contains_key(hash)
    }

    /// Whether all jobs for a block are done, or it has none.
    pub fn is_done(&self, hash: &BlockHash) -> bool {
        self.blocks.get(hash).is_none_or(|batch| !self.batches.contains_key(batch))
    }

    /// Whether no job is under way.
    pub fn is_idle(&self) -> bool {
        self.batches.is_empty()
    }

    /// Jobs under way.
    pub fn jobs(&self) -> usize {
        self.batches.values().sum()
    }

    /// Coins that were looked for, and the time that it took.
    pub fn effort(&self) -> &Effort {
        &self.effort
    }

    /// Starts to look for the coins of these blocks.
    pub fn start(
        &mut self,
        blocks: &[BlockHash],
        unknown: &[OutPoint],
        store: &Arc<dyn Store>,
        pool: &Pool,
        done: &Sender<Completion>,
    ) {
        let each = unknown.len().div_ceil(pool.threads().max(1)).max(LEAST);
        let parts = unknown.chunks(each);
        let batch = self.number;
        self.number += 1;
        self.blocks.extend(blocks.iter().map(|hash| (*hash, batch)));
        if parts.len() > 0 {
            self.batches.insert(batch, parts.len());
        }
        for part in parts {
            let (store, part, done) = (store.clone(), part.to_vec(), done.clone());
            let effort = self.effort.clone();
            pool.run_first(
                move || effort.spend(part.len(), || look_up(&*store, &part)),
                move |result| {
                    let found = match result {
                        Ok(found) => found.map_err(Error::from),
                        Err(panic) => Err(Error::WorkerPanic(panic.0)),
                    };
                    // Nobody listens any more if this fails.
                    let _ = done.send(Completion::fetched(batch, found));
                },
            );
        }
    }

    /// A job of this batch is done.
    pub fn done(&mut self, batch: u64) {
        if let Some(left) = self.batches.get_mut(&batch) {
            *left -= 1;
            if *left == 0 {
                self.batches.remove(&batch);
            }
        }
    }

    /// A block connects now.
    pub fn used(&mut self, hash: &BlockHash) {
        self.blocks.remove(hash);
    }

    /// Forgets what is known of blocks that do not wait any more; answers whether coins were looked for in vain.
    pub fn keep(&mut self, waiting: &[BlockRef]) -> bool {
        let before = self.blocks.len();
        self.blocks.retain(|hash, _| waiting.iter().any(|block| block.hash == *hash));
        self.blocks.len() < before
    }
}
