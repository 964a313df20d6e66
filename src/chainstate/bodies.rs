//! Checked blocks kept in memory between being stored and being connected, within a bound.

use crate::consensus::block::CheckedBlock;
use bitcoin::BlockHash;
use hashbrown::HashMap;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Bytes of memory that a decoded block takes for each of its serialised bytes, about: the bytes
/// themselves, transactions with their scripts, ids.
const EXPANSION: usize = 4;

/// Checked blocks. Those that connect next stay, then those of the least heights.
#[derive(Debug)]
pub(super) struct Bodies {
    blocks: HashMap<BlockHash, (u32, Arc<CheckedBlock>), foldhash::fast::RandomState>,
    order: BTreeSet<(u32, BlockHash)>,
    /// Those that connect next, in order.
    wanted: Vec<BlockHash>,
    bytes: usize,
    budget: usize,
}

impl Bodies {
    pub fn new(budget: usize) -> Self {
        Self { blocks: HashMap::default(), order: BTreeSet::new(), wanted: Vec::new(), bytes: 0, budget }
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

    /// Whether so many bytes fit.
    pub fn fit(&self, bytes: usize) -> bool {
        bytes <= self.budget
    }

    /// Keeps a block of this height. If there are too many, the highest go that are not wanted; of these, the highest,
    /// but never the next.
    pub fn insert(&mut self, height: u32, block: Arc<CheckedBlock>) {
        let hash = block.hash();
        if !self.contains(&hash) {
            self.bytes += memory(block.size());
            self.order.insert((height, hash));
            self.blocks.insert(hash, (height, block));
        }
        while self.bytes > self.budget {
            let highest = || self.order.iter().rev().map(|(_, hash)| hash);
            let unwanted = highest().find(|hash| !self.wanted.contains(hash));
            let not_next = || highest().find(|hash| Some(*hash) != self.wanted.first());
            let Some(hash) = unwanted.or_else(not_next).copied() else { break };
            self.take(&hash);
        }
    }

    /// Takes a block out.
    pub fn take(&mut self, hash: &BlockHash) -> Option<Arc<CheckedBlock>> {
        let (height, block) = self.blocks.remove(hash)?;
        self.order.remove(&(height, *hash));
        self.bytes -= memory(block.size());
        Some(block)
    }

    /// Says which blocks connect next, the first of them of this height. What is below it is forgotten.
    pub fn want(&mut self, height: u32, next: Vec<BlockHash>) {
        self.wanted = next;
        while let Some((below, hash)) = self.order.first().copied()
            && below < height
        {
            self.take(&hash);
        }
    }
}

/// Bytes of memory that a block of this size takes, about.
pub(super) fn memory(size: usize) -> usize {
    size * EXPANSION
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::params::{Network, Params};
    use crate::consensus::block::check_block;
    use crate::consensus::decode::decode_block;
    use bitcoin::CompactTarget;
    use bitcoin::consensus::serialize;

    /// Bodies of one size and different hashes.
    fn bodies() -> Vec<Arc<CheckedBlock>> {
        let params = Params::new(Network::Regtest);
        let mut block = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
        block.header.bits = CompactTarget::from_consensus(0x207f_ffff);
        let all = (0..100).filter_map(|nonce| {
            block.header.nonce = nonce;
            let decoded = decode_block(Arc::new(serialize(&block))).unwrap();
            check_block(decoded, &params, |_| true).map(Arc::new).ok()
        });
        all.collect()
    }

    #[test]
    fn those_that_connect_next_stay_whatever_else_comes() {
        let all = bodies();
        let hash = |at: usize| all[at].hash();
        let room = memory(all[0].size()) * 4;
        let mut bodies = Bodies::new(room);
        bodies.want(10, vec![hash(0), hash(1)]);
        // A branch of lesser heights than what is wanted, and one far above.
        for (height, at) in [(10, 0), (11, 1), (10, 2), (10, 3), (30, 4), (31, 5)] {
            bodies.insert(height, all[at].clone());
        }
        let kept = |bodies: &Bodies| (0..8).filter(|at| bodies.contains(&hash(*at))).collect::<Vec<_>>();
        assert_eq!(kept(&bodies), [0, 1, 2, 3]);
        // The lowest stay of those that are not wanted.
        bodies.take(&hash(2));
        bodies.insert(12, all[6].clone());
        bodies.insert(11, all[7].clone());
        assert_eq!((kept(&bodies), bodies.bytes()), (vec![0, 1, 3, 7], room));
        // What is below the next block goes.
        bodies.want(11, vec![hash(1)]);
        assert_eq!(kept(&bodies), [1, 7]);
    }

    #[test]
    fn the_next_block_is_kept_however_large() {
        let all = bodies();
        let mut bodies = Bodies::new(1);
        bodies.want(5, vec![all[0].hash(), all[1].hash()]);
        bodies.insert(5, all[0].clone());
        bodies.insert(6, all[1].clone());
        assert!(bodies.contains(&all[0].hash()) && !bodies.contains(&all[1].hash()));
        assert!(bodies.take(&all[0].hash()).is_some());
        assert_eq!(bodies.bytes(), 0);
    }
}
