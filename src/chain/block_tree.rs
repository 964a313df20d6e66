//! The tree of known headers: one arena, from genesis to every tip, with work, status and candidates.

use super::command::{BlockContext, BlockRef};
use super::params::Params;
use super::work::ChainWork;
use bitcoin::BlockHash;
use bitcoin::block::Header;
use std::sync::Arc;

/// The number of a header in its tree; parents have smaller numbers than their children.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HeaderId(u32);

/// What is known about a block's validity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Validity {
    /// The header is valid; nothing is known about the body.
    Header,
    /// Connected at some time with all scripts proved (or assumed).
    Connected,
    /// Itself invalid.
    Failed,
    /// An ancestor is invalid.
    FailedParent,
}

/// All known headers.
#[derive(Debug)]
pub struct BlockTree {
    params: Arc<Params>,
}

impl BlockTree {
    /// A tree that holds the genesis block of `params`, whose body counts as present and connected.
    /// `key` keys the table of hashes, so that nobody outside can choose collisions.
    pub fn new(params: Arc<Params>, key: [u64; 2]) -> Self {
        let _ = key;
        Self { params }
    }

    /// The parameters.
    pub fn params(&self) -> &Arc<Params> {
        &self.params
    }

    /// The genesis block.
    pub fn genesis(&self) -> HeaderId {
        HeaderId(0)
    }

    /// The number of headers, the genesis block's included.
    pub fn len(&self) -> usize {
        todo!()
    }

    /// Never true.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The header with this hash.
    pub fn find(&self, _hash: &BlockHash) -> Option<HeaderId> {
        todo!()
    }

    /// Appends a header that `consensus::header::accept` has checked; its parent is `parent`. Idempotent.
    pub(crate) fn insert(&mut self, _parent: HeaderId, _header: &Header) -> HeaderId {
        todo!()
    }

    /// The header (80 bytes, rebuilt).
    pub fn header(&self, _id: HeaderId) -> Header {
        todo!()
    }

    /// The hash.
    pub fn hash(&self, _id: HeaderId) -> BlockHash {
        todo!()
    }

    /// The height.
    pub fn height(&self, _id: HeaderId) -> u32 {
        todo!()
    }

    /// Height and hash.
    pub fn block(&self, id: HeaderId) -> BlockRef {
        BlockRef { height: self.height(id), hash: self.hash(id) }
    }

    /// The parent; `None` for the genesis block.
    pub fn parent(&self, _id: HeaderId) -> Option<HeaderId> {
        todo!()
    }

    /// Total work from the genesis block to this one.
    pub fn work(&self, _id: HeaderId) -> ChainWork {
        todo!()
    }

    /// The header's time, in Unix seconds.
    pub fn time(&self, _id: HeaderId) -> u32 {
        todo!()
    }

    /// Median time past of this block (its own time and those of its ten ancestors), in Unix seconds.
    pub fn median_time_past(&self, _id: HeaderId) -> u32 {
        todo!()
    }

    /// The ancestor at `height` (itself at its own height), in O(log n).
    pub fn ancestor(&self, _id: HeaderId, _height: u32) -> Option<HeaderId> {
        todo!()
    }

    /// Whether `a` is `b` or an ancestor of it.
    pub fn is_ancestor(&self, a: HeaderId, b: HeaderId) -> bool {
        self.ancestor(b, self.height(a)) == Some(a)
    }

    /// The last block that two chains share.
    pub fn fork_point(&self, _a: HeaderId, _b: HeaderId) -> HeaderId {
        todo!()
    }

    /// Hashes for `getheaders`, newest first: the last ten, then at doubling distances, then genesis.
    pub fn locator(&self, _id: HeaderId) -> Vec<BlockHash> {
        todo!()
    }

    /// What is known about the validity.
    pub fn validity(&self, _id: HeaderId) -> Validity {
        todo!()
    }

    /// Whether it or an ancestor is marked invalid.
    pub fn is_failed(&self, id: HeaderId) -> bool {
        matches!(self.validity(id), Validity::Failed | Validity::FailedParent)
    }

    /// Whether the body is stored.
    pub fn has_body(&self, _id: HeaderId) -> bool {
        todo!()
    }

    /// Records that the body is stored. The first of several blocks with equal work whose body *and* those
    /// of all ancestors are there wins ties.
    pub fn body_stored(&mut self, _id: HeaderId) {
        todo!()
    }

    /// Records that a stored body was found missing or damaged.
    pub fn body_lost(&mut self, _id: HeaderId) {
        todo!()
    }

    /// Records that the block was connected with all scripts proved.
    pub fn connected(&mut self, _id: HeaderId) {
        todo!()
    }

    /// Marks a block invalid, and its descendants as having an invalid ancestor. The genesis block cannot
    /// be marked (no effect).
    pub fn mark_invalid(&mut self, _id: HeaderId) {
        todo!()
    }

    /// Takes marks off this block, its ancestors and its descendants (Core's `ResetBlockFailureFlags`).
    pub fn reconsider(&mut self, _id: HeaderId) {
        todo!()
    }

    /// The header with the most work that is not marked invalid; the first accepted of equals.
    pub fn best_header(&self) -> HeaderId {
        todo!()
    }

    /// The block with the most work that is not marked invalid, whose body and whose ancestors' bodies are
    /// all stored. With equal work: `current` if it is among them, else the first whose data was complete.
    pub fn best_candidate(&self, _current: HeaderId) -> HeaderId {
        todo!()
    }

    /// What the rules for this block need to know of its ancestors. `scripts` is `Verify`; the caller
    /// decides about `assumevalid`. Must not be called for the genesis block (panics: our bug).
    pub fn context(&self, _id: HeaderId) -> BlockContext {
        todo!()
    }

    /// The blocks to disconnect (tip first) and to connect (lowest first) on the way from one block to
    /// another; the second list is cut after `limit` entries.
    pub fn path(&self, _from: HeaderId, _to: HeaderId, _limit: usize) -> (Vec<HeaderId>, Vec<HeaderId>) {
        todo!()
    }
}
