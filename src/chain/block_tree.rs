//! The tree of known headers: one arena, from genesis to every tip, with work, status and candidates.
//!
//! 1. A header that passed [`crate::consensus::header::accept`] is appended; its number is its place. The
//!    parent's number replaces the parent's hash, and a second pointer to an older ancestor makes
//!    [`BlockTree::ancestor`] logarithmic (Core's `pskip`).
//! 2. A block whose body is stored, and whose ancestors' bodies all are, is *complete*. A body that arrives
//!    before an ancestor's waits; when the gap closes, all blocks above it become complete in one go. The
//!    order of completion decides ties of work, so that withholding a body wins nothing.
//! 3. Marks of invalidity are spread to descendants when they are set, and taken off as in Core.
//! 4. *Candidates* for the tip are the complete blocks without a mark that have no such child. They are
//!    kept in an ordered set at every change, so that the best is known at once. More work is always
//!    further from the genesis block, so no other block can be the best.
//!
//! # Memory
//! 112 bytes a header, 1 byte of flags, and 5 bytes for each slot of the table of hashes, of which between
//! 7/16 and 7/8 are used. A million headers take 123 MB (measured as the growth of a process, 123.4 MB). The
//! arena grows in pieces, so that no growth copies it. Nothing here bounds the number of headers: that a
//! header costs its sender real work is for the headers machine to see to (presync).
//!
//! Insertion, completion and look-ups are O(log n) or better. Linear in the headers that are *newer* than the
//! block: [`BlockTree::mark_invalid`], [`BlockTree::body_lost`]. Linear in all headers:
//! [`BlockTree::reconsider`], and finding the best header anew after a mark. Each of the last kind costs an
//! attacker a block's proof of work.
//!
//! Sources: Core's `chain.h`, `chain.cpp`, `validation.cpp` (`setBlockIndexCandidates`,
//! `ReceivedBlockTransactions`, `InvalidateBlock`, `ResetBlockFailureFlags`). Left out: snapshots. A pruned body
//! of the active chain still counts as stored.

use super::command::{BlockContext, BlockRef, ScriptPolicy};
use super::deployments::{self, ThresholdCache, ThresholdState};
use super::locator;
use super::params::{Params, VersionBitsDeployment};
use super::work::{ChainWork, proof_equivalent_time};
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, CompactTarget, TxMerkleNode};
use core::cmp::Reverse;
use core::hash::{BuildHasher, Hasher};
use hashbrown::HashTable;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// The number of a header in its tree; parents have smaller numbers than their children.
///
/// It means nothing to another tree, whose methods panic on a number that they did not give out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HeaderId(u32);

impl HeaderId {
    /// The number: 0 for the genesis block, then in the order of acceptance.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

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

/// What is kept of a header: all but the parent's hash, and what would be slow to derive.
#[derive(Clone, Copy, Debug)]
struct Node {
    hash: [u8; 32],
    merkle_root: [u8; 32],
    /// Total work, low half first: split so that the struct needs no padding.
    work: [u64; 2],
    version: i32,
    time: u32,
    bits: u32,
    nonce: u32,
    parent: u32,
    skip: u32,
    height: u32,
    /// Place in the order of completion, from 1; 0 while not complete (and for the genesis block).
    sequence: u32,
}

impl Node {
    fn work(&self) -> u128 {
        u128::from(self.work[1]) << 64 | u128::from(self.work[0])
    }
}

/// Bits of a header's status.
mod flag {
    /// The body is stored.
    pub const BODY: u8 = 1;
    /// The bodies of it and all ancestors are stored.
    pub const COMPLETE: u8 = 2;
    /// Connected at some time.
    pub const CONNECTED: u8 = 4;
    /// Marked invalid.
    pub const FAILED: u8 = 8;
    /// Marked because an ancestor was.
    pub const FAILED_PARENT: u8 = 16;
    /// Either mark.
    pub const ANY_FAILED: u8 = FAILED | FAILED_PARENT;
}

/// Headers of one piece of the arena.
const PIECE: usize = 4096;

/// A vector in pieces: growing moves nothing and leaves no slack.
#[derive(Debug, Default)]
struct Arena {
    pieces: Vec<Vec<Node>>,
}

impl Arena {
    fn get(&self, id: u32) -> &Node {
        &self.pieces[id as usize / PIECE][id as usize % PIECE]
    }

    fn get_mut(&mut self, id: u32) -> &mut Node {
        &mut self.pieces[id as usize / PIECE][id as usize % PIECE]
    }

    fn push(&mut self, node: Node) {
        match self.pieces.last_mut() {
            Some(piece) if piece.len() < PIECE => piece.push(node),
            _ => {
                let mut piece = Vec::with_capacity(PIECE);
                piece.push(node);
                self.pieces.push(piece);
            }
        }
    }
}

/// A candidate: most work last, then the first to be complete.
type Candidate = (u128, Reverse<u32>, Reverse<u32>);

/// All known headers.
#[derive(Debug)]
pub struct BlockTree {
    params: Arc<Params>,
    key: [u64; 2],
    nodes: Arena,
    flags: Vec<u8>,
    by_hash: HashTable<u32>,
    /// Stored blocks that are not complete, by their parents.
    waiting: BTreeMap<u32, Vec<u32>>,
    candidates: BTreeSet<Candidate>,
    best_header: u32,
    completed: u32,
    thresholds: ThresholdCache,
}

impl BlockTree {
    /// A tree that holds the genesis block of `params`, whose body counts as present and connected.
    /// `key` keys the table of hashes, so that nobody outside can choose collisions.
    pub fn new(params: Arc<Params>, key: [u64; 2]) -> Self {
        let mut tree = Self {
            params: params.clone(),
            key,
            nodes: Arena::default(),
            flags: Vec::new(),
            by_hash: HashTable::new(),
            waiting: BTreeMap::new(),
            candidates: BTreeSet::new(),
            best_header: 0,
            completed: 0,
            thresholds: ThresholdCache::default(),
        };
        let header = params.genesis_header();
        let work = ChainWork::of_bits(header.bits.to_consensus()).to_u128();
        let node = node_of(header, params.genesis_hash(), work);
        tree.append(node, flag::BODY | flag::COMPLETE | flag::CONNECTED);
        tree.candidates.insert(tree.candidate(0));
        tree
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
        self.flags.len()
    }

    /// Never true.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The header with this hash.
    pub fn find(&self, hash: &BlockHash) -> Option<HeaderId> {
        let bytes = hash.as_byte_array();
        self.by_hash
            .find(keyed(self.key, bytes), |id| self.nodes.get(*id).hash == *bytes)
            .map(|id| HeaderId(*id))
    }

    /// Appends a header that `consensus::header::accept` has checked; its parent is `parent`. Idempotent.
    #[allow(dead_code, reason = "for trees of headers that nobody mined: tests of this crate")]
    pub(crate) fn insert(&mut self, parent: HeaderId, header: &Header) -> HeaderId {
        self.insert_hashed(parent, header, header.block_hash())
    }

    /// [`BlockTree::insert`] where the header's hash is known already.
    pub(crate) fn insert_hashed(&mut self, parent: HeaderId, header: &Header, hash: BlockHash) -> HeaderId {
        if let Some(known) = self.find(&hash) {
            return known;
        }
        let above = *self.nodes.get(parent.0);
        let work = above.work().saturating_add(self.proof(header.bits.to_consensus(), &above));
        let mut node = node_of(header, hash, work);
        node.parent = parent.0;
        node.height = above.height.saturating_add(1);
        node.skip = self.ancestor(parent, skip_height(node.height)).map_or(0, |id| id.0);
        let failed = self.flags[parent.index()] & flag::ANY_FAILED != 0;
        let id = self.append(node, if failed { flag::FAILED_PARENT } else { 0 });
        if !failed && work > self.nodes.get(self.best_header).work() {
            self.best_header = id;
        }
        HeaderId(id)
    }

    /// The work of one block on top of `above`. Division is slow and `bits` rarely change: where they are
    /// the parent's, the parent's share of its own total is the answer.
    fn proof(&self, bits: u32, above: &Node) -> u128 {
        if bits == above.bits && above.height > 0 {
            above.work() - self.nodes.get(above.parent).work()
        } else {
            ChainWork::of_bits(bits).to_u128()
        }
    }

    /// Makes room for this many headers more, so that the table of hashes grows once.
    pub(crate) fn reserve(&mut self, additional: usize) {
        let (key, nodes) = (self.key, &self.nodes);
        self.by_hash.reserve(additional, |id| keyed(key, &nodes.get(*id).hash));
        self.flags.reserve(additional);
    }

    fn append(&mut self, node: Node, flags: u8) -> u32 {
        let id = u32::try_from(self.len()).expect("2^32 headers would take half a terabyte");
        let (key, hash) = (self.key, keyed(self.key, &node.hash));
        self.nodes.push(node);
        self.flags.push(flags);
        let nodes = &self.nodes;
        self.by_hash.insert_unique(hash, id, |id| keyed(key, &nodes.get(*id).hash));
        id
    }

    /// The header (80 bytes, rebuilt).
    pub fn header(&self, id: HeaderId) -> Header {
        let node = self.nodes.get(id.0);
        Header {
            version: Version::from_consensus(node.version),
            prev_blockhash: self.parent(id).map_or(BlockHash::all_zeros(), |parent| self.hash(parent)),
            merkle_root: TxMerkleNode::from_byte_array(node.merkle_root),
            time: node.time,
            bits: CompactTarget::from_consensus(node.bits),
            nonce: node.nonce,
        }
    }

    /// The hash.
    pub fn hash(&self, id: HeaderId) -> BlockHash {
        BlockHash::from_byte_array(self.nodes.get(id.0).hash)
    }

    /// The height.
    pub fn height(&self, id: HeaderId) -> u32 {
        self.nodes.get(id.0).height
    }

    /// Height and hash.
    pub fn block(&self, id: HeaderId) -> BlockRef {
        BlockRef { height: self.height(id), hash: self.hash(id) }
    }

    /// The parent; `None` for the genesis block.
    pub fn parent(&self, id: HeaderId) -> Option<HeaderId> {
        (id.0 != 0).then(|| HeaderId(self.nodes.get(id.0).parent))
    }

    /// Total work from the genesis block to this one.
    pub fn work(&self, id: HeaderId) -> ChainWork {
        ChainWork::from(self.nodes.get(id.0).work())
    }

    /// The header's time, in Unix seconds.
    pub fn time(&self, id: HeaderId) -> u32 {
        self.nodes.get(id.0).time
    }

    /// The header's compact target.
    pub fn bits(&self, id: HeaderId) -> u32 {
        self.nodes.get(id.0).bits
    }

    /// The header's version.
    pub fn version(&self, id: HeaderId) -> i32 {
        self.nodes.get(id.0).version
    }

    /// Median time past of this block (its own time and those of its ten ancestors), in Unix seconds.
    pub fn median_time_past(&self, id: HeaderId) -> u32 {
        let mut times = [0_u32; 11];
        let mut count = 0;
        let mut at = Some(id);
        for slot in &mut times {
            let Some(id) = at else { break };
            *slot = self.time(id);
            count += 1;
            at = self.parent(id);
        }
        let times = &mut times[..count];
        times.sort_unstable();
        times[count / 2]
    }

    /// The ancestor at `height` (itself at its own height), in O(log n).
    pub fn ancestor(&self, id: HeaderId, height: u32) -> Option<HeaderId> {
        let mut at = id.0;
        let mut node = self.nodes.get(at);
        if height > node.height {
            return None;
        }
        while node.height > height {
            let skip = skip_height(node.height);
            // One step down first pays if its skip lands lower than ours without passing the goal.
            let below = skip_height(node.height - 1);
            let step_first = below < skip.saturating_sub(2) && below >= height;
            at = if skip == height || (skip > height && !step_first) { node.skip } else { node.parent };
            node = self.nodes.get(at);
        }
        Some(HeaderId(at))
    }

    /// Whether `a` is `b` or an ancestor of it.
    pub fn is_ancestor(&self, a: HeaderId, b: HeaderId) -> bool {
        self.ancestor(b, self.height(a)) == Some(a)
    }

    /// The last block that two chains share.
    pub fn fork_point(&self, a: HeaderId, b: HeaderId) -> HeaderId {
        let height = self.height(a).min(self.height(b));
        let (Some(mut a), Some(mut b)) = (self.ancestor(a, height), self.ancestor(b, height)) else {
            return self.genesis();
        };
        // At equal heights both skip to equal heights.
        while a != b {
            let (left, right) = (self.nodes.get(a.0), self.nodes.get(b.0));
            (a, b) = if left.skip != right.skip {
                (HeaderId(left.skip), HeaderId(right.skip))
            } else {
                (HeaderId(left.parent), HeaderId(right.parent))
            };
        }
        a
    }

    /// Hashes for `getheaders`, newest first: the last ten, then at doubling distances, then genesis.
    pub fn locator(&self, id: HeaderId) -> Vec<BlockHash> {
        let mut at = id;
        locator::heights(self.height(id))
            .filter_map(|height| {
                at = self.ancestor(at, height)?;
                Some(self.hash(at))
            })
            .collect()
    }

    /// What is known about the validity.
    pub fn validity(&self, id: HeaderId) -> Validity {
        match self.flags[id.index()] {
            flags if flags & flag::FAILED != 0 => Validity::Failed,
            flags if flags & flag::FAILED_PARENT != 0 => Validity::FailedParent,
            flags if flags & flag::CONNECTED != 0 => Validity::Connected,
            _ => Validity::Header,
        }
    }

    /// Whether it or an ancestor is marked invalid.
    pub fn is_failed(&self, id: HeaderId) -> bool {
        matches!(self.validity(id), Validity::Failed | Validity::FailedParent)
    }

    /// Whether the body is stored.
    pub fn has_body(&self, id: HeaderId) -> bool {
        self.flags[id.index()] & flag::BODY != 0
    }

    /// Whether the bodies of this block and of all its ancestors are stored (Core's `HaveNumChainTxs`).
    pub fn is_complete(&self, id: HeaderId) -> bool {
        self.flags[id.index()] & flag::COMPLETE != 0
    }

    /// Records that the body is stored. The first of several blocks with equal work whose body *and* those
    /// of all ancestors are there wins ties.
    pub fn body_stored(&mut self, id: HeaderId) {
        if self.has_body(id) {
            return;
        }
        self.flags[id.index()] |= flag::BODY;
        let parent = self.nodes.get(id.0).parent;
        if self.flags[parent as usize] & flag::COMPLETE == 0 {
            self.waiting.entry(parent).or_default().push(id.0);
            return;
        }
        // In the usual case nothing waits and nothing is allocated.
        let (mut next, mut queue) = (Some(id.0), VecDeque::new());
        while let Some(id) = next {
            self.complete(id);
            queue.extend(self.waiting.remove(&id).into_iter().flatten());
            next = queue.pop_front();
        }
    }

    fn complete(&mut self, id: u32) {
        self.completed = self.completed.saturating_add(1);
        self.nodes.get_mut(id).sequence = self.completed;
        self.flags[id as usize] |= flag::COMPLETE;
        if self.is_eligible(id) {
            self.candidates.remove(&self.candidate(self.nodes.get(id).parent));
            self.candidates.insert(self.candidate(id));
        }
    }

    /// Records that a stored body was found missing or damaged. The block and its descendants can't be
    /// candidates until it is stored again. No effect for the genesis block.
    pub fn body_lost(&mut self, id: HeaderId) {
        if id.0 == 0 || !self.has_body(id) {
            return;
        }
        self.flags[id.index()] &= !flag::BODY;
        let parent = self.nodes.get(id.0).parent;
        if !self.is_complete(id) {
            if let Some(siblings) = self.waiting.get_mut(&parent) {
                siblings.retain(|sibling| *sibling != id.0);
                if siblings.is_empty() {
                    self.waiting.remove(&parent);
                }
            }
            return;
        }
        for lost in self.with_descendants(id.0) {
            if self.flags[lost as usize] & flag::COMPLETE == 0 {
                continue;
            }
            self.candidates.remove(&self.candidate(lost));
            self.flags[lost as usize] &= !flag::COMPLETE;
            let node = self.nodes.get_mut(lost);
            node.sequence = 0;
            if lost != id.0 {
                self.waiting.entry(node.parent).or_default().push(lost);
            }
        }
        self.restore_candidate(parent);
    }

    /// Records that the block was connected with all scripts proved.
    pub fn connected(&mut self, id: HeaderId) {
        self.flags[id.index()] |= flag::CONNECTED;
    }

    /// Marks a block invalid, and its descendants as having an invalid ancestor. The genesis block cannot
    /// be marked (no effect).
    pub fn mark_invalid(&mut self, id: HeaderId) {
        if id.0 == 0 {
            return;
        }
        for below in self.with_descendants(id.0) {
            self.candidates.remove(&self.candidate(below));
            let mark = if below == id.0 { flag::FAILED } else { flag::FAILED_PARENT };
            self.flags[below as usize] |= mark;
        }
        self.restore_candidate(self.nodes.get(id.0).parent);
        if self.is_failed(HeaderId(self.best_header)) {
            self.find_best_header();
        }
    }

    /// Takes marks off this block, its ancestors and its descendants (Core's `ResetBlockFailureFlags`).
    ///
    /// As in Core, blocks on other branches that were marked because of one of these ancestors stay marked
    /// until they are reconsidered themselves.
    pub fn reconsider(&mut self, id: HeaderId) {
        for below in self.with_descendants(id.0) {
            self.flags[below as usize] &= !flag::ANY_FAILED;
        }
        let mut at = id;
        while let Some(above) = self.parent(at) {
            self.flags[above.index()] &= !flag::ANY_FAILED;
            at = above;
        }
        self.find_candidates();
        self.find_best_header();
    }

    /// The header with the most work that is not marked invalid; the first accepted of equals.
    pub fn best_header(&self) -> HeaderId {
        HeaderId(self.best_header)
    }

    /// The block with the most work that is not marked invalid, whose body and whose ancestors' bodies are
    /// all stored. With equal work: `current` if it is among them, else the first whose data was complete.
    pub fn best_candidate(&self, current: HeaderId) -> HeaderId {
        let Some((work, _, Reverse(best))) = self.candidates.last() else { return self.genesis() };
        if self.is_eligible(current.0) && self.nodes.get(current.0).work() == *work {
            current
        } else {
            HeaderId(*best)
        }
    }

    /// What the rules for this block need to know of its ancestors. `scripts` is `Verify`; the caller
    /// decides about `assumevalid`. Must not be called for the genesis block (panics: our bug).
    pub fn context(&self, id: HeaderId) -> BlockContext {
        let parent = self.parent(id).expect("the genesis block is never connected");
        let block = self.block(id);
        BlockContext {
            height: block.height,
            hash: block.hash,
            prev: self.hash(parent),
            parent_mtp: self.median_time_past(parent),
            rules: deployments::rules_for(self, parent, &block.hash),
            scripts: ScriptPolicy::Verify,
        }
    }

    /// Whether a block's scripts may be skipped: the network's `assumevalid` block is known and descends
    /// from it, so does the best header, which has the minimum chainwork and, above this block, more than
    /// two weeks' work at its own pace (Core's `ConnectBlock`).
    pub fn script_policy(&self, id: HeaderId) -> ScriptPolicy {
        /// Seconds of work on top, so that a false claim is too expensive to be worth it.
        const BURIED: i64 = 14 * 24 * 60 * 60;
        let best = self.best_header();
        let Some(assumed) = self.params.assume_valid.and_then(|hash| self.find(&hash)) else {
            return ScriptPolicy::Verify;
        };
        let pace = ChainWork::of_bits(self.bits(best));
        let skip = self.is_ancestor(id, assumed)
            && self.is_ancestor(id, best)
            && self.work(best) >= self.params.minimum_chain_work
            && proof_equivalent_time(self.work(best), self.work(id), pace, self.params.pow_target_spacing)
                > BURIED;
        if skip { ScriptPolicy::AssumeValid } else { ScriptPolicy::Verify }
    }

    /// The state of a version-bits deployment for the children of `parent`. Remembers what it finds.
    pub fn deployment_state(
        &mut self,
        parent: HeaderId,
        deployment: VersionBitsDeployment,
    ) -> ThresholdState {
        let mut cache = core::mem::take(&mut self.thresholds);
        let state = cache.state(self, parent, deployment);
        self.thresholds = cache;
        state
    }

    /// The blocks to disconnect (tip first) and to connect (lowest first) on the way from one block to
    /// another; the second list is cut after `limit` entries.
    pub fn path(&self, from: HeaderId, to: HeaderId, limit: usize) -> (Vec<HeaderId>, Vec<HeaderId>) {
        let fork = self.fork_point(from, to);
        let upto = |top: HeaderId| {
            core::iter::successors(Some(top), |id| self.parent(*id)).take_while(|id| *id != fork)
        };
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let top = self.height(fork).saturating_add(limit).min(self.height(to));
        let mut connect: Vec<_> = self.ancestor(to, top).into_iter().flat_map(upto).collect();
        connect.reverse();
        (upto(from).collect(), connect)
    }

    /// Whether it could be the tip.
    fn is_eligible(&self, id: u32) -> bool {
        self.flags[id as usize] & (flag::COMPLETE | flag::ANY_FAILED) == flag::COMPLETE
    }

    fn candidate(&self, id: u32) -> Candidate {
        let node = self.nodes.get(id);
        (node.work(), Reverse(node.sequence), Reverse(id))
    }

    /// The numbers of a block and all its descendants, ascending. Only newer headers can descend from it.
    fn with_descendants(&self, id: u32) -> Vec<u32> {
        let mut descends = vec![false; self.len() - id as usize];
        descends[0] = true;
        let mut found = vec![id];
        for (place, newer) in (id + 1..self.len() as u32).enumerate() {
            let parent = self.nodes.get(newer).parent;
            if parent >= id && descends[(parent - id) as usize] {
                descends[place + 1] = true;
                found.push(newer);
            }
        }
        found
    }

    /// Makes `id` a candidate again if it may be one and no child stands in its place.
    fn restore_candidate(&mut self, id: u32) {
        let outlived = |newer: u32| self.nodes.get(newer).parent == id && self.is_eligible(newer);
        if self.is_eligible(id) && !(id + 1..self.len() as u32).any(outlived) {
            self.candidates.insert(self.candidate(id));
        }
    }

    fn find_candidates(&mut self) {
        let mut has_child = vec![false; self.len()];
        self.candidates.clear();
        // Children come after their parents, so backwards each block's children are seen before it.
        for id in (0..self.len() as u32).rev().filter(|id| self.is_eligible(*id)).collect::<Vec<_>>() {
            if !has_child[id as usize] {
                self.candidates.insert(self.candidate(id));
            }
            has_child[self.nodes.get(id).parent as usize] = true;
        }
    }

    fn find_best_header(&mut self) {
        let valid = (0..self.len() as u32).filter(|id| self.flags[*id as usize] & flag::ANY_FAILED == 0);
        self.best_header = valid.max_by_key(|id| (self.nodes.get(*id).work(), Reverse(*id))).unwrap_or(0);
    }
}

fn node_of(header: &Header, hash: BlockHash, work: u128) -> Node {
    Node {
        hash: hash.to_byte_array(),
        merkle_root: header.merkle_root.to_byte_array(),
        work: [work as u64, (work >> 64) as u64],
        version: header.version.to_consensus(),
        time: header.time,
        bits: header.bits.to_consensus(),
        nonce: header.nonce,
        parent: 0,
        skip: 0,
        height: 0,
        sequence: 0,
    }
}

/// The height that a block's second pointer leads to: clears the lowest set bit of even heights, two bits
/// of odd ones, so that a chain of pointers passes every number of trailing zeros (Core's `GetSkipHeight`).
fn skip_height(height: u32) -> u32 {
    let clear_lowest = |n: u32| n & n.wrapping_sub(1);
    match height {
        0 | 1 => 0,
        odd if odd % 2 == 1 => clear_lowest(clear_lowest(odd - 1)) + 1,
        even => clear_lowest(even),
    }
}

/// Where a header's hash belongs in the table. Each costs its miner work, so that a fast hash with a secret key is more
/// than enough (Core takes the first 8 bytes as they are).
fn keyed(key: [u64; 2], hash: &[u8; 32]) -> u64 {
    let mut hasher = foldhash::fast::FixedState::with_seed(key[0] ^ key[1]).build_hasher();
    hasher.write(hash);
    hasher.finish()
}

#[cfg(test)]
mod tests;
