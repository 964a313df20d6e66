//! Headers without blocks: whoever shows the headers of the chain with the most work and never delivers a
//! block of it must not keep us from following a chain that has blocks. On a network of low difficulty that
//! costs nothing; on signet headers need no signature.
//!
//! 1. The first missing block of the window has a clock.
//! 2. Twenty seconds after it began, if a peer has shown another chain with more work than the tip's that
//!    does without this block, the block counts as withheld and the window follows the best chain that
//!    does without any such block. Until a block connects, the first missing one of that chain has four seconds.
//! 3. After a minute, which doubles each time up to ten, the block is tried again. It is no longer withheld
//!    once it is stored.
//!
//! In Bitcoin Core each peer's blocks are fetched along that peer's own best chain
//! (`FindNextBlocksToDownload`), which has the same effect. Nobody is blamed: a peer may be slow.

use super::BlockScheduler;
use crate::chain::block_tree::{BlockTree, HeaderId};
use crate::limits::{WITHHELD_AFTER, WITHHELD_BLOCKS, WITHHELD_MAX, WITHHELD_MIN, WITHHELD_NEXT};
use crate::time::Timestamp;
use core::cmp::Reverse;
use core::time::Duration;
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug)]
struct Withheld {
    /// When it is tried again; `None` while it is.
    until: Option<Timestamp>,
    times: u32,
}

/// What is known of blocks that nobody delivers.
#[derive(Debug, Default)]
pub(super) struct Withholding {
    blocks: BTreeMap<HeaderId, Withheld>,
    /// The block that everything waits for, and since when.
    waited: Option<(HeaderId, Timestamp)>,
    /// When that one counts as withheld.
    due: Option<Timestamp>,
    /// No block has connected since one was withheld.
    barren: bool,
    /// When the first block is tried again.
    again: Option<Timestamp>,
}

impl Withholding {
    /// The number of blocks that nobody delivers.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// When something is to be done.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.due.into_iter().chain(self.again).min()
    }

    /// Since when everything waits for this block.
    pub fn waited_since(&self, id: HeaderId) -> Option<Timestamp> {
        self.waited.filter(|(waited, _)| *waited == id).map(|(_, since)| since)
    }

    /// A block has connected.
    pub fn on_tip(&mut self) {
        self.barren = false;
    }

    /// How long the block is waited for. One that was withheld before has all the time when it is tried again.
    fn patience(&self, id: HeaderId) -> Duration {
        if self.barren && !self.blocks.contains_key(&id) { WITHHELD_NEXT } else { WITHHELD_AFTER }
    }

    /// Whether the chain of `id` needs a block that is withheld.
    fn blocks_chain(&self, tree: &BlockTree, id: HeaderId) -> bool {
        self.blocks.iter().any(|(&block, withheld)| {
            withheld.until.is_some() && !tree.has_body(block) && tree.is_ancestor(block, id)
        })
    }

    fn add(&mut self, id: HeaderId, now: Timestamp) {
        let times = self.blocks.get(&id).map_or(0, |withheld| withheld.times);
        while self.blocks.len() >= WITHHELD_BLOCKS && !self.blocks.contains_key(&id) {
            self.blocks.pop_first();
        }
        let wait = WITHHELD_MIN.saturating_mul(1 << times.min(16)).min(WITHHELD_MAX);
        self.blocks.insert(id, Withheld { until: Some(now + wait), times: times.saturating_add(1) });
        self.find_again();
    }

    fn find_again(&mut self) {
        self.again = self.blocks.values().filter_map(|withheld| withheld.until).min();
    }
}

impl BlockScheduler {
    /// The end of the chain that is to be fetched.
    pub(super) fn choose_target(&self, tree: &BlockTree) -> HeaderId {
        let best = tree.best_header();
        if !self.withholding.blocks_chain(tree, best) {
            return best;
        }
        self.alternative(tree, None).unwrap_or(best)
    }

    /// Whether the best header's chain has a block that nobody delivered, and no peer has shown more work
    /// than the tip's without such a block: the tip is the best block there is.
    pub fn is_at_end(&self, tree: &BlockTree) -> bool {
        let lacks = |id: HeaderId| {
            let mut withheld = self.withholding.blocks.keys();
            withheld.any(|&block| !tree.has_body(block) && tree.is_ancestor(block, id))
        };
        let least = tree.work(self.tip);
        let mut shown = self.sources.values().filter_map(|source| source.best);
        lacks(tree.best_header())
            && !shown.any(|id| tree.work(id) > least && !tree.is_failed(id) && !lacks(id))
    }

    /// The best chain that a peer has shown, with more work than the tip, without withheld blocks and
    /// without `block`.
    fn alternative(&self, tree: &BlockTree, block: Option<HeaderId>) -> Option<HeaderId> {
        let least = tree.work(self.tip);
        self.sources
            .values()
            .filter(|source| !source.closing)
            .filter_map(|source| source.best)
            .filter(|&id| tree.work(id) > least && !tree.is_failed(id))
            .filter(|&id| block.is_none_or(|block| !tree.is_ancestor(block, id)))
            .filter(|&id| !self.withholding.blocks_chain(tree, id))
            .max_by_key(|&id| (tree.work(id), Reverse(id)))
            .filter(|&id| tree.work(id) >= tree.params().minimum_chain_work)
    }

    /// Finds out whether the first missing block is withheld.
    pub(super) fn watch_withheld(&mut self, now: Timestamp, tree: &BlockTree) {
        self.withholding.due = None;
        let head = self.window.head(tree).map(|(_, id)| id).filter(|id| !self.arrived.contains_key(id));
        let Some(id) = head else {
            self.withholding.waited = None;
            return;
        };
        // While we do not read from a peer that owes it, that peer can't deliver it.
        let ours = self.flights.get(&id).is_some_and(|flight| {
            let mut peers = flight.requests.iter().filter_map(|request| self.sources.get(&request.peer));
            peers.any(|source| source.paused)
        });
        let since = match self.withholding.waited {
            Some((waited, since)) if waited == id && !ours => since,
            _ => now,
        };
        self.withholding.waited = Some((id, since));
        // Only a peer whose chain leaves that of the window can have another.
        let forks = self.sources.values().any(|source| source.best_height > source.reach);
        if !forks || self.alternative(tree, Some(id)).is_none() {
            return;
        }
        let due = since + self.withholding.patience(id);
        if due > now {
            self.withholding.due = Some(due);
            return;
        }
        self.withholding.add(id, now);
        self.withholding.barren = true;
        self.withholding.waited = None;
        self.follow(tree);
        // The clock of the other chain's first missing block, which nobody may ever deliver either.
        self.watch_withheld(now, tree);
    }

    /// Blocks that were withheld a while ago are tried again.
    pub(super) fn retry_withheld(&mut self, now: Timestamp, tree: &BlockTree) {
        if self.withholding.again.is_none_or(|at| at > now) {
            return;
        }
        self.withholding.blocks.retain(|&id, _| !tree.has_body(id));
        for withheld in self.withholding.blocks.values_mut() {
            withheld.until = withheld.until.filter(|until| *until > now);
        }
        self.withholding.find_again();
        self.follow(tree);
    }
}
