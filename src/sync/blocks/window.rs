//! The window: the blocks past the fork from the proved tip that are to be fetched, by height.

use crate::chain::block_tree::{BlockTree, HeaderId};
use std::collections::{BTreeSet, VecDeque};

/// Blocks of one chain in a row, from the block after `base` on.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// Height of the last block that the proved chain shares with the chain of the window.
    base: u32,
    ids: VecDeque<HeaderId>,
    /// Heights whose block is neither stored, nor arrived, nor asked for.
    needed: BTreeSet<u32>,
    /// Below this height every block of the window is stored.
    head: u32,
}

impl Window {
    /// Follows the chain of `target` from where it leaves that of `tip`, at most `limit` blocks beyond those
    /// that are stored and cannot be connected yet, because they lead to no more work than the tip's: else a
    /// reorg deeper than the window would never end. `busy` tells which blocks are asked for or have arrived.
    pub fn follow(
        &mut self,
        tree: &BlockTree,
        tip: HeaderId,
        target: HeaderId,
        limit: u32,
        busy: impl Fn(HeaderId) -> bool,
    ) {
        let fork = tree.fork_point(tip, target);
        let base = tree.height(fork);
        let continues = base >= self.base
            && match self.ids.back() {
                None => false,
                Some(&last) => {
                    let shared = self.id_at(base);
                    (base == self.base || shared == Some(fork)) && tree.is_ancestor(last, target)
                }
            };
        if continues && tree.height(target) >= self.end() {
            let gone = (base - self.base) as usize;
            self.ids.drain(..gone.min(self.ids.len()));
            self.needed = self.needed.split_off(&base.saturating_add(1));
        } else {
            self.ids.clear();
            self.needed.clear();
            self.head = 0;
        }
        self.base = base;
        self.head = self.head.max(base.saturating_add(1));
        let mut end = base.saturating_add(limit);
        loop {
            for height in self.end().saturating_add(1)..=end.min(tree.height(target)) {
                let Some(id) = tree.ancestor(target, height) else { break };
                self.ids.push_back(id);
                if !tree.has_body(id) && !busy(id) {
                    self.needed.insert(height);
                }
            }
            let waiting = self.waiting(tree, tip).saturating_add(limit);
            if waiting <= end {
                return;
            }
            end = waiting;
        }
    }

    /// Height up to which blocks are stored that lead to no more work than the tip's.
    fn waiting(&mut self, tree: &BlockTree, tip: HeaderId) -> u32 {
        let stored = self.head(tree).map_or(self.end(), |(height, _)| height.saturating_sub(1));
        let waits = self.id_at(stored).is_some_and(|id| tree.work(id) <= tree.work(tip));
        if waits { stored } else { self.base }
    }

    /// Nothing is to be fetched.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Height of the block below the window.
    #[cfg(test)]
    pub fn base(&self) -> u32 {
        self.base
    }

    /// Height of the last block in the window; the base if it is empty.
    pub fn end(&self) -> u32 {
        self.base.saturating_add(self.ids.len() as u32)
    }

    /// The block at a height of the window.
    pub fn id_at(&self, height: u32) -> Option<HeaderId> {
        let above = height.checked_sub(self.base)?.checked_sub(1)?;
        self.ids.get(above as usize).copied()
    }

    /// The height of this block, if it is in the window.
    pub fn height_of(&self, tree: &BlockTree, id: HeaderId) -> Option<u32> {
        let height = tree.height(id);
        (self.id_at(height) == Some(id)).then_some(height)
    }

    /// Marks a block of the window as to be asked for again, unless it is stored.
    pub fn need(&mut self, tree: &BlockTree, id: HeaderId) {
        if tree.has_body(id) {
            return;
        }
        if let Some(height) = self.height_of(tree, id) {
            self.needed.insert(height);
            self.head = self.head.min(height);
        }
    }

    /// Marks a block as asked for or arrived. Whether it was needed.
    pub fn taken(&mut self, height: u32) -> bool {
        self.needed.remove(&height)
    }

    /// Heights to be asked for within a range, lowest first.
    pub fn needed(&self, from: u32, to: u32) -> impl Iterator<Item = (u32, HeaderId)> + '_ {
        // An empty range is not allowed to run backwards.
        let to = to.max(from);
        self.needed.range(from..=to).filter_map(|&height| Some((height, self.id_at(height)?)))
    }

    /// Whether anything is to be asked for.
    pub fn is_needy(&self) -> bool {
        !self.needed.is_empty()
    }

    /// How many blocks are to be asked for.
    pub fn needed_len(&self) -> usize {
        self.needed.len()
    }

    /// The lowest block that is not stored: the one everything waits for in the end.
    pub fn head(&mut self, tree: &BlockTree) -> Option<(u32, HeaderId)> {
        while let Some(id) = self.id_at(self.head) {
            if !tree.has_body(id) {
                return Some((self.head, id));
            }
            self.head = self.head.saturating_add(1);
        }
        None
    }
}
