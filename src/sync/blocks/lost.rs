//! Blocks outside the window whose stored bytes are damaged or pruned, and needed to undo what stands on them.

use super::BlockScheduler;
use super::source::Source;
use crate::chain::block_tree::{BlockTree, HeaderId};
use crate::chain::command::BlockRef;
use crate::peer::{Cx, PeerId};
use core::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

/// A block that is needed again, and whom it is asked of in turn.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Peers in the order in which they are asked. Whoever was asked goes to the end, and whoever came meanwhile stands
    /// before it: neither silent peers nor a stream of new ones keep the block from those that have it.
    queue: VecDeque<PeerId>,
    /// Times a peer was asked since the last round ended.
    asked: usize,
    /// How often all of them were asked in vain.
    rounds: u32,
}

impl Lost {
    /// Takes newcomers into the queue, the best first, and those who left out of it.
    fn update(&mut self, sources: &BTreeMap<PeerId, Source>, tree: &BlockTree, id: HeaderId) {
        self.queue.retain(|peer| sources.contains_key(peer));
        let height = tree.height(id);
        let mut new: Vec<PeerId> = sources
            .iter()
            .filter(|(peer, source)| source.lowest() <= height && !self.queue.contains(peer))
            .map(|(&peer, _)| peer)
            .collect();
        new.sort_by_cached_key(|peer| {
            let key = sources.get(peer).map(|source| {
                let on_its_chain = source.best.is_some_and(|best| tree.is_ancestor(id, best));
                (!source.inbound, on_its_chain, source.rank.order, source.meter.rate())
            });
            (Reverse(key), *peer)
        });
        self.queue.extend(new);
    }

    /// The next one to ask, if there is one. With `reorg`, everything waits for the block, and rounds count.
    fn next(
        &mut self,
        sources: &BTreeMap<PeerId, Source>,
        height: u32,
        id: HeaderId,
        reorg: bool,
    ) -> Option<PeerId> {
        if self.asked > 0 && self.asked >= self.queue.len() {
            self.asked = 0;
            self.rounds += u32::from(reorg);
        }
        let may_have = |peer: &PeerId| sources.get(peer).is_some_and(|source| source.may_have(height, id));
        let Some(at) = self.queue.iter().position(may_have) else {
            self.rounds = self.rounds.max(u32::from(reorg));
            return None;
        };
        let peer = self.queue.remove(at)?;
        self.queue.push_back(peer);
        self.asked += 1;
        Some(peer)
    }
}

impl BlockScheduler {
    /// Asks for the blocks that are needed again.
    pub(super) fn ask_again(&mut self, cx: &mut Cx<'_>, tree: &BlockTree) {
        let reorg = self.leaves_tip(tree) && !self.sources.is_empty();
        for id in self.again.keys().copied().collect::<Vec<_>>() {
            if self.flights.contains_key(&id) || self.arrived.contains_key(&id) {
                continue;
            }
            let height = tree.height(id);
            let next = self.again.get_mut(&id).and_then(|lost| {
                lost.update(&self.sources, tree, id);
                lost.next(&self.sources, height, id, reorg)
            });
            if let Some(peer) = next {
                self.ask(cx, tree, peer, &[(height, id)]);
            }
        }
    }

    /// A damaged block that a reorg waits for and no peer has, and in how many rounds all were asked.
    pub fn in_vain(&self, tree: &BlockTree) -> Option<(BlockRef, u32)> {
        let (id, lost) = self.again.iter().max_by_key(|(_, lost)| lost.rounds)?;
        (lost.rounds > 0 && self.leaves_tip(tree)).then(|| (tree.block(*id), lost.rounds))
    }

    /// Whether the chain that is fetched leaves the tip's.
    pub(super) fn leaves_tip(&self, tree: &BlockTree) -> bool {
        self.target.is_some_and(|target| {
            tree.work(target) > tree.work(self.tip) && !tree.is_ancestor(self.tip, target)
        })
    }
}
