//! The block scheduler: which block is asked of which peer, and when another is asked instead.

use crate::chain::block_tree::{BlockTree, HeaderId};
use crate::chain::command::{ChainReport, RawBlock};
use crate::peer::{Cx, PeerId, PeerView};
use crate::time::Timestamp;
use bitcoin::BlockHash;

/// How much is fetched ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// Blocks past the proved tip that are fetched ahead.
    pub window: u32,
    /// Bytes of blocks that may be under way or waiting to be stored.
    pub reserved_bytes: u64,
}

/// The machine.
#[derive(Debug)]
pub struct BlockScheduler {}

impl BlockScheduler {
    /// A scheduler without peers, over the proved tip `tip`.
    pub fn new(_config: SchedulerConfig, _tree: &BlockTree, _tip: HeaderId) -> Self {
        todo!()
    }

    /// The engine stopped (`paused`) or resumed reading from this peer: its clocks stand still meanwhile.
    pub fn set_paused(&mut self, _cx: &mut Cx<'_>, _peer: PeerId, _paused: bool) {
        todo!()
    }

    /// Bytes of blocks that are under way or waiting to be stored.
    pub fn reserved(&self) -> u64 {
        todo!()
    }

    /// A handshake is complete.
    pub fn on_peer_ready(&mut self, _cx: &mut Cx<'_>, _tree: &BlockTree, _peer: &PeerView) {
        todo!()
    }

    /// A connection ended: what it owed is asked of others.
    pub fn on_peer_gone(&mut self, _cx: &mut Cx<'_>, _tree: &BlockTree, _peer: PeerId) {
        todo!()
    }

    /// The best header changed.
    pub fn on_headers(&mut self, _cx: &mut Cx<'_>, _tree: &BlockTree) {
        todo!()
    }

    /// A peer is known to have this header's block.
    pub fn on_peer_has(&mut self, _cx: &mut Cx<'_>, _tree: &BlockTree, _peer: PeerId, _best: HeaderId) {
        todo!()
    }

    /// A `block` message. Emits `ChainCommand::StoreBlock` if it was wanted.
    pub fn on_block(&mut self, _cx: &mut Cx<'_>, _tree: &BlockTree, _peer: PeerId, _block: RawBlock) {
        todo!()
    }

    /// A `notfound` named these blocks.
    pub fn on_not_found(
        &mut self,
        _cx: &mut Cx<'_>,
        _tree: &BlockTree,
        _peer: PeerId,
        _hashes: &[BlockHash],
    ) {
        todo!()
    }

    /// Bytes came from a peer: all bytes of the connection so far.
    pub fn on_progress(&mut self, _cx: &mut Cx<'_>, _peer: PeerId, _bytes: u64) {
        todo!()
    }

    /// The chainstate reported; the tree already knows it. Frees the window and blames senders.
    pub fn on_report(&mut self, _cx: &mut Cx<'_>, _tree: &BlockTree, _report: &ChainReport) {
        todo!()
    }

    /// The proved tip changed: the window moves.
    pub fn on_tip(&mut self, _cx: &mut Cx<'_>, _tree: &BlockTree, _tip: HeaderId) {
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

    /// Blocks asked for and not yet delivered, in all and of this peer.
    pub fn in_flight(&self, _peer: Option<PeerId>) -> usize {
        todo!()
    }

    /// Measured speed of a peer's blocks, in bytes a second.
    pub fn speed(&self, _peer: PeerId) -> u64 {
        todo!()
    }
}
