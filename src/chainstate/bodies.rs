//! Checked blocks kept in memory between being stored and being connected, within a bound.

use crate::consensus::block::CheckedBlock;
use bitcoin::BlockHash;
use hashbrown::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;

/// Bytes of memory that a decoded block takes for each of its serialised bytes, about: the bytes
/// themselves, transactions with their scripts, ids.
const EXPANSION: usize = 4;

/// The most recent checked blocks.
#[derive(Debug)]
pub(super) struct Bodies {
    blocks: HashMap<BlockHash, Arc<CheckedBlock>, foldhash::fast::RandomState>,
    /// From the oldest; may name blocks that were taken.
    order: VecDeque<BlockHash>,
    bytes: usize,
    budget: usize,
}

impl Bodies {
    pub fn new(budget: usize) -> Self {
        Self { blocks: HashMap::default(), order: VecDeque::new(), bytes: 0, budget }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn contains(&self, hash: &BlockHash) -> bool {
        self.blocks.contains_key(hash)
    }

    /// A block, left where it is.
    pub fn get(&self, hash: &BlockHash) -> Option<&Arc<CheckedBlock>> {
        self.blocks.get(hash)
    }

    /// Keeps a block; the oldest ones go if there are too many, never this one.
    pub fn insert(&mut self, block: Arc<CheckedBlock>) {
        let hash = block.hash();
        self.bytes += memory(&block);
        if let Some(old) = self.blocks.insert(hash, block) {
            self.bytes -= memory(&old);
        } else {
            self.order.push_back(hash);
        }
        while self.bytes > self.budget
            && let Some(oldest) = self.order.front().copied().filter(|oldest| *oldest != hash)
        {
            self.order.pop_front();
            self.forget(&oldest);
        }
    }

    /// Takes a block out.
    pub fn take(&mut self, hash: &BlockHash) -> Option<Arc<CheckedBlock>> {
        let block = self.blocks.get(hash).cloned()?;
        self.forget(hash);
        self.order.retain(|kept| kept != hash);
        Some(block)
    }

    fn forget(&mut self, hash: &BlockHash) {
        if let Some(block) = self.blocks.remove(hash) {
            self.bytes -= memory(&block);
        }
    }
}

fn memory(block: &CheckedBlock) -> usize {
    block.size() * EXPANSION
}
