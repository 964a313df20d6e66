//! Checked blocks kept in memory between being stored and being connected, within a bound.

use crate::chain::command::BlockRef;
use crate::consensus::block::CheckedBlock;
use bitcoin::BlockHash;
use hashbrown::HashMap;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Bytes of memory that a decoded block takes for each of its serialised bytes, about: the bytes
/// themselves, transactions with their scripts, ids.
const EXPANSION: usize = 4;

/// Checked blocks. Those of the least heights stay: they are the next to be connected.
#[derive(Debug)]
pub(super) struct Bodies {
    blocks: HashMap<BlockHash, (u32, Arc<CheckedBlock>), foldhash::fast::RandomState>,
    order: BTreeSet<(u32, BlockHash)>,
    /// The block that connects next.
    next: Option<BlockHash>,
    bytes: usize,
    budget: usize,
}

impl Bodies {
    pub fn new(budget: usize) -> Self {
        Self { blocks: HashMap::default(), order: BTreeSet::new(), next: None, bytes: 0, budget }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn contains(&self, hash: &BlockHash) -> bool {
        self.blocks.contains_key(hash)
    }

    /// A block, left where it is.
    pub fn get(&self, hash: &BlockHash) -> Option<&Arc<CheckedBlock>> {
        self.blocks.get(hash).map(|(_, block)| block)
    }

    /// Whether these bytes of blocks are so much that others have no room beside them.
    pub fn is_much(&self, bytes: usize) -> bool {
        bytes > self.budget / 4 * 3
    }

    /// Keeps a block of this height. The highest go if there are too many, never the one that connects next.
    pub fn insert(&mut self, height: u32, block: Arc<CheckedBlock>) {
        let hash = block.hash();
        if !self.contains(&hash) {
            self.bytes += memory(&block);
            self.order.insert((height, hash));
            self.blocks.insert(hash, (height, block));
        }
        while self.bytes > self.budget {
            let (next, mut highest) = (self.next, self.order.iter().rev());
            let Some((_, hash)) = highest.find(|(_, hash)| Some(*hash) != next).copied() else { break };
            self.take(&hash);
        }
    }

    /// Takes a block out.
    pub fn take(&mut self, hash: &BlockHash) -> Option<Arc<CheckedBlock>> {
        let (height, block) = self.blocks.remove(hash)?;
        self.order.remove(&(height, *hash));
        self.bytes -= memory(&block);
        Some(block)
    }

    /// Says which block connects next; those of lesser heights are forgotten.
    pub fn expect(&mut self, next: BlockRef) {
        self.next = Some(next.hash);
        while let Some((height, hash)) = self.order.first().copied()
            && height < next.height
        {
            self.take(&hash);
        }
    }
}

/// Bytes of memory that a block takes, about.
pub(super) fn memory(block: &CheckedBlock) -> usize {
    block.size() * EXPANSION
}
