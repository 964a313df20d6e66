//! Headers first: finds the chain with the most work, from one peer at a time, then from all.

use crate::chain::block_tree::BlockTree;
use crate::peer::{Cx, PeerId, PeerView};
use crate::time::Timestamp;
use bitcoin::BlockHash;
use bitcoin::block::Header;

/// The machine.
#[derive(Debug)]
pub struct HeaderSync {}

impl HeaderSync {
    /// A handshake is complete.
    pub fn on_peer_ready(&mut self, _cx: &mut Cx<'_>, _tree: &BlockTree, _peer: &PeerView) {
        todo!()
    }

    /// A connection ended.
    pub fn on_peer_gone(&mut self, _cx: &mut Cx<'_>, _tree: &BlockTree, _peer: PeerId) {
        todo!()
    }

    /// A `headers` message.
    pub fn on_headers(
        &mut self,
        _cx: &mut Cx<'_>,
        _tree: &mut BlockTree,
        _peer: &PeerView,
        _headers: Vec<Header>,
    ) {
        todo!()
    }

    /// An `inv` named this block.
    pub fn on_block_inv(&mut self, _cx: &mut Cx<'_>, _tree: &BlockTree, _peer: &PeerView, _hash: BlockHash) {
        todo!()
    }

    /// Another machine needs headers from this peer (`Demand::FetchHeaders`).
    pub fn fetch(&mut self, _cx: &mut Cx<'_>, _tree: &BlockTree, _peer: PeerId) {
        todo!()
    }

    /// A deadline passed.
    pub fn on_timer(&mut self, _cx: &mut Cx<'_>, _tree: &BlockTree) {
        todo!()
    }

    /// When `on_timer` has something to do.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        todo!()
    }

    /// Whether the best header has enough work and is recent, or a peer has said that it knows no more.
    pub fn is_synced(&self) -> bool {
        todo!()
    }
}
