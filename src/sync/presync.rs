//! Headers presync: a chain is downloaded twice before any of it is kept, so that a peer which has only
//! headers of little work to offer cannot fill our memory.
//!
//! 1. *Presync*: headers are judged by what can be judged alone (they connect, the difficulty moves no
//!    faster than the network allows). One salted bit per period of heights, at a secret offset, is kept as
//!    a commitment; the headers are not.
//! 2. Once the chain shows the required work, *redownload*: the same headers again, from the fork point.
//!    Each committed height must yield the same bit. A header is released for acceptance when enough
//!    commitments above it were met, that is when the buffer is full, or when the required work is reached.
//! 3. *Final*: the peer has no more, gave another chain, or everything was released.
//!
//! Bitcoin Core's `headerssync.cpp`; the numbers per network are in [`crate::chain::params`]. The caller has
//! checked that a message's headers connect to each other and meet the targets they claim.

use crate::chain::block_tree::{BlockTree, HeaderId};
use crate::chain::params::Params;
use crate::chain::work::{ChainWork, permitted_difficulty_transition};
use crate::consensus::header::MAX_FUTURE_BLOCK_TIME;
use crate::limits::PRESYNC_BLOCKS_PER_SECOND;
use crate::rng::Rng;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::{Hash, siphash24};
use bitcoin::{BlockHash, CompactTarget, TxMerkleNode};
use std::collections::VecDeque;
use std::sync::Arc;

/// Which pass is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PresyncState {
    /// First pass: the work is counted, commitments are made.
    Presync,
    /// Second pass: commitments are checked, headers are released.
    Redownload,
    /// Over; nothing is held any more.
    Final,
}

/// Why a presync was given up. None of these is provably the peer's fault: it may have changed its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PresyncFailure {
    /// The headers do not continue the chain of this pass.
    NotContinuous,
    /// The difficulty moved faster than the network allows.
    DifficultyTransition,
    /// More headers than a valid chain can have at this time.
    TooLong,
    /// The second pass showed another chain than the first.
    CommitmentMismatch,
    /// The pass was over already.
    Finished,
}

/// What a message of headers led to.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PresyncOutcome {
    /// The message was taken: headers that may be accepted now (lowest first, often none), and whether to
    /// ask for more with [`Presync::locator`].
    Taken {
        /// Headers of a chain with the required work.
        released: Vec<Header>,
        /// Whether the peer is to be asked for more.
        request_more: bool,
    },
    /// The presync is over without success; the message may be treated as if there had been none.
    Failed(PresyncFailure),
}

/// A header without its parent's hash, as it waits in the buffer: 48 bytes.
#[derive(Clone, Copy, Debug)]
struct Bare {
    version: Version,
    merkle_root: TxMerkleNode,
    time: u32,
    bits: CompactTarget,
    nonce: u32,
}

impl Bare {
    fn of(header: &Header) -> Self {
        Self {
            version: header.version,
            merkle_root: header.merkle_root,
            time: header.time,
            bits: header.bits,
            nonce: header.nonce,
        }
    }

    fn after(self, prev_blockhash: BlockHash) -> Header {
        Header {
            version: self.version,
            prev_blockhash,
            merkle_root: self.merkle_root,
            time: self.time,
            bits: self.bits,
            nonce: self.nonce,
        }
    }
}

/// A queue of bits, one bit of memory each.
#[derive(Debug, Default)]
struct Bits {
    words: VecDeque<u64>,
    /// Bits of the first word that were taken already.
    taken: u32,
    len: u64,
}

impl Bits {
    fn push(&mut self, bit: bool) {
        let at = (u64::from(self.taken) + self.len) % 64;
        if at == 0 {
            self.words.push_back(0);
        }
        if let Some(word) = self.words.back_mut() {
            *word |= u64::from(bit) << at;
        }
        self.len += 1;
    }

    fn pop(&mut self) -> Option<bool> {
        self.len = self.len.checked_sub(1)?;
        let bit = (self.words.front()? >> self.taken) & 1 == 1;
        self.taken += 1;
        if self.taken == 64 || self.len == 0 {
            self.words.pop_front();
            self.taken = 0;
        }
        Some(bit)
    }
}

/// The presync of one peer's chain.
#[derive(Debug)]
pub struct Presync {
    params: Arc<Params>,
    state: PresyncState,
    required: ChainWork,
    /// The fork point with our tree.
    start: HeaderId,
    start_hash: BlockHash,
    start_bits: u32,
    start_height: u32,
    start_work: ChainWork,
    /// The fork point's locator, named after the last header.
    start_locator: Vec<BlockHash>,
    /// Heights with this remainder by the period carry a commitment. Secret.
    offset: u32,
    salt: [u64; 2],
    commitments: Bits,
    max_commitments: u64,
    /// The last header of the present pass.
    last_hash: BlockHash,
    last_bits: u32,
    last_time: u32,
    height: u32,
    work: ChainWork,
    buffer: VecDeque<Bare>,
    /// Parent of the buffer's first header.
    buffer_parent: BlockHash,
    /// The required work was reached in the second pass.
    release_all: bool,
}

impl Presync {
    /// Starts the first pass for a chain that forks off at `start`. It succeeds once the chain shows
    /// `required` work. `now` is Unix seconds.
    pub fn new(tree: &BlockTree, start: HeaderId, required: ChainWork, now: u64, rng: &mut Rng) -> Self {
        let params = Arc::clone(tree.params());
        let period = u64::from(params.headers_sync.commitment_period.max(1));
        // The median of eleven times must rise, so no valid chain has more than six blocks a second since.
        let seconds = now.saturating_sub(u64::from(tree.median_time_past(start))) + MAX_FUTURE_BLOCK_TIME;
        let header = tree.header(start);
        Self {
            state: PresyncState::Presync,
            required,
            start,
            start_hash: tree.hash(start),
            start_bits: header.bits.to_consensus(),
            start_height: tree.height(start),
            start_work: tree.work(start),
            start_locator: tree.locator(start),
            offset: rng.below(period) as u32,
            salt: [rng.u64(), rng.u64()],
            commitments: Bits::default(),
            max_commitments: seconds.saturating_mul(PRESYNC_BLOCKS_PER_SECOND) / period,
            last_hash: tree.hash(start),
            last_bits: header.bits.to_consensus(),
            last_time: header.time,
            height: tree.height(start),
            work: tree.work(start),
            buffer: VecDeque::new(),
            buffer_parent: tree.hash(start),
            release_all: false,
            params,
        }
    }

    /// Which pass is under way.
    pub fn state(&self) -> PresyncState {
        self.state
    }

    /// The block of our tree at which the chain starts.
    pub fn start(&self) -> HeaderId {
        self.start
    }

    /// Height reached in the present pass.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Hash of the last header of the present pass.
    pub fn last_hash(&self) -> BlockHash {
        self.last_hash
    }

    /// Time of the last header of the present pass, in Unix seconds.
    pub fn time(&self) -> u32 {
        self.last_time
    }

    /// Work reached in the present pass.
    pub fn work(&self) -> ChainWork {
        self.work
    }

    /// Takes the next message: `headers` with their hashes. `full`: it had as many headers as a message
    /// may have, so that the peer may know more.
    pub fn process(&mut self, headers: &[Header], hashes: &[BlockHash], full: bool) -> PresyncOutcome {
        let result = match self.state {
            PresyncState::Presync => self.first_pass(headers, hashes),
            PresyncState::Redownload => self.second_pass(headers, hashes),
            PresyncState::Final => Err(PresyncFailure::Finished),
        };
        if let Err(failure) = result {
            self.finish();
            return PresyncOutcome::Failed(failure);
        }
        let (released, request_more) = if self.state == PresyncState::Redownload && self.buffering() {
            let released = self.release();
            (released, full && !self.release_all)
        } else {
            // The first pass goes on with a full message, and ends where the second begins.
            (Vec::new(), full || self.state == PresyncState::Redownload)
        };
        if !request_more {
            self.finish();
        }
        PresyncOutcome::Taken { released, request_more }
    }

    /// What `getheaders` names to go on: the last header of this pass, then the fork point's locator.
    pub fn locator(&self) -> Vec<BlockHash> {
        let mut locator = vec![self.last_hash];
        if self.last_hash == self.start_hash {
            locator.clear();
        }
        locator.extend_from_slice(&self.start_locator);
        locator.truncate(crate::limits::MAX_LOCATOR);
        locator
    }

    /// Bytes held on behalf of the peer; bounded by the commitments that a valid chain can have and by the
    /// buffer's length.
    pub fn memory(&self) -> usize {
        self.commitments.words.len() * 8
            + self.buffer.len() * size_of::<Bare>()
            + self.start_locator.len() * 32
            + size_of::<Self>()
    }

    /// Whether the second pass has had a message.
    fn buffering(&self) -> bool {
        self.height > self.start_height || !self.buffer.is_empty()
    }

    fn first_pass(&mut self, headers: &[Header], hashes: &[BlockHash]) -> Result<(), PresyncFailure> {
        if headers.first().is_some_and(|first| first.prev_blockhash != self.last_hash) {
            return Err(PresyncFailure::NotContinuous);
        }
        for (header, hash) in headers.iter().zip(hashes) {
            let height = self.step(header)?;
            if self.is_committed(height) {
                if self.commitments.len >= self.max_commitments {
                    return Err(PresyncFailure::TooLong);
                }
                let bit = self.bit(hash);
                self.commitments.push(bit);
            }
            self.advance(header, *hash, height);
        }
        if self.work >= self.required {
            self.state = PresyncState::Redownload;
            self.last_hash = self.start_hash;
            self.last_bits = self.start_bits;
            self.height = self.start_height;
            self.work = self.start_work;
        }
        Ok(())
    }

    fn second_pass(&mut self, headers: &[Header], hashes: &[BlockHash]) -> Result<(), PresyncFailure> {
        for (header, hash) in headers.iter().zip(hashes) {
            if header.prev_blockhash != self.last_hash {
                return Err(PresyncFailure::NotContinuous);
            }
            let height = self.step(header)?;
            let work = self.work.saturating_add(ChainWork::of_bits(header.bits.to_consensus()));
            // Beyond the goal the peer may have grown its chain since the first pass: no more commitments.
            self.release_all |= work >= self.required;
            if !self.release_all
                && self.is_committed(height)
                && self.commitments.pop() != Some(self.bit(hash))
            {
                return Err(PresyncFailure::CommitmentMismatch);
            }
            self.buffer.push_back(Bare::of(header));
            self.advance(header, *hash, height);
        }
        Ok(())
    }

    /// The height of the next header, if its difficulty may follow that of the last.
    fn step(&self, header: &Header) -> Result<u32, PresyncFailure> {
        let height = self.height.checked_add(1).ok_or(PresyncFailure::TooLong)?;
        let bits = header.bits.to_consensus();
        if permitted_difficulty_transition(&self.params, height, self.last_bits, bits) {
            Ok(height)
        } else {
            Err(PresyncFailure::DifficultyTransition)
        }
    }

    fn advance(&mut self, header: &Header, hash: BlockHash, height: u32) {
        self.last_hash = hash;
        self.last_bits = header.bits.to_consensus();
        self.last_time = header.time;
        self.height = height;
        self.work = self.work.saturating_add(ChainWork::of_bits(self.last_bits));
    }

    fn is_committed(&self, height: u32) -> bool {
        height % self.params.headers_sync.commitment_period.max(1) == self.offset
    }

    fn bit(&self, hash: &BlockHash) -> bool {
        siphash24::Hash::hash_to_u64_with_keys(self.salt[0], self.salt[1], hash.as_byte_array()) & 1 == 1
    }

    fn release(&mut self) -> Vec<Header> {
        let keep = if self.release_all { 0 } else { self.params.headers_sync.redownload_buffer_size };
        let count = self.buffer.len().saturating_sub(keep);
        let mut released = Vec::with_capacity(count);
        for bare in self.buffer.drain(..count) {
            let header = bare.after(self.buffer_parent);
            self.buffer_parent = header.block_hash();
            released.push(header);
        }
        released
    }

    /// Frees what is held.
    fn finish(&mut self) {
        self.state = PresyncState::Final;
        self.commitments = Bits::default();
        self.buffer = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::super::forged;
    use super::*;
    use crate::limits::MAX_HEADERS;
    use crate::rng::Rng;
    use proptest::prelude::*;

    const BLOCKS: usize = 15_000;
    const NOW: u64 = 1_700_000_000;

    fn hashes(headers: &[Header]) -> Vec<BlockHash> {
        headers.iter().map(Header::block_hash).collect()
    }

    fn proof(params: &Params, blocks: u32) -> ChainWork {
        ChainWork::of_bits(params.genesis_header().bits.to_consensus()).saturating_mul(blocks)
    }

    /// A presync from the genesis block that wants the work of [`BLOCKS`] more blocks.
    fn start(params: &Arc<Params>, seed: u64) -> Presync {
        let tree = forged::tree(params);
        let required = proof(params, BLOCKS as u32 + 1);
        Presync::new(&tree, tree.genesis(), required, NOW, &mut Rng::from_number(seed))
    }

    fn feed(sync: &mut Presync, headers: &[Header], full: bool) -> PresyncOutcome {
        sync.process(headers, &hashes(headers), full)
    }

    /// Feeds a chain in full messages and a last one that is short; returns what was released and the last
    /// outcome.
    fn feed_all(sync: &mut Presync, chain: &[Header]) -> (Vec<Header>, PresyncOutcome) {
        let mut all = Vec::new();
        for message in chain.chunks(MAX_HEADERS) {
            match feed(sync, message, message.len() == MAX_HEADERS) {
                PresyncOutcome::Taken { released, request_more } => {
                    all.extend(released.iter().copied());
                    if !request_more || sync.state() == PresyncState::Final {
                        return (all, PresyncOutcome::Taken { released, request_more });
                    }
                }
                failed => return (all, failed),
            }
        }
        (all, PresyncOutcome::Taken { released: Vec::new(), request_more: true })
    }

    #[test]
    fn a_chain_with_enough_work_is_released_after_the_second_pass() {
        let params = forged::params(0);
        let chain = forged::chain(&params, params.genesis_header(), BLOCKS, 0);
        let mut sync = start(&params, 1);
        let (released, _) = feed_all(&mut sync, &chain);
        assert!(released.is_empty());
        assert_eq!(sync.state(), PresyncState::Redownload);
        assert_eq!(sync.locator(), [params.genesis_hash()]);
        let (released, last) = feed_all(&mut sync, &chain);
        assert_eq!(released, chain);
        assert!(matches!(last, PresyncOutcome::Taken { request_more: false, .. }));
        assert_eq!(sync.state(), PresyncState::Final);
        assert!(sync.memory() < 10_000);
    }

    #[test]
    fn another_chain_in_the_second_pass_is_found_out_before_anything_is_released() {
        let params = forged::params(0);
        let shown = forged::chain(&params, params.genesis_header(), BLOCKS, 0);
        // Without the salt and the offset the second chain cannot be made to match: with 25 commitments in
        // the buffer one try in 2^25 succeeds.
        let given = forged::chain(&params, params.genesis_header(), BLOCKS, 1);
        for seed in 0..5 {
            let mut sync = start(&params, seed);
            feed_all(&mut sync, &shown);
            let (released, last) = feed_all(&mut sync, &given);
            assert!(released.is_empty());
            assert_eq!(last, PresyncOutcome::Failed(PresyncFailure::CommitmentMismatch));
            assert_eq!(sync.state(), PresyncState::Final);
        }
    }

    #[test]
    fn a_chain_with_too_little_work_ends_with_its_short_message() {
        let params = forged::params(0);
        let chain = forged::chain(&params, params.genesis_header(), BLOCKS - 1, 0);
        let mut sync = start(&params, 1);
        let (released, last) = feed_all(&mut sync, &chain);
        assert!(released.is_empty());
        assert_eq!(last, PresyncOutcome::Taken { released: Vec::new(), request_more: false });
        assert_eq!(sync.state(), PresyncState::Final);
        assert_eq!(feed(&mut sync, &chain[..1], false), PresyncOutcome::Failed(PresyncFailure::Finished));
    }

    #[test]
    fn a_second_pass_that_ends_early_releases_only_what_is_covered() {
        let params = forged::params(0);
        let chain = forged::chain(&params, params.genesis_header(), BLOCKS, 0);
        let mut sync = start(&params, 1);
        feed_all(&mut sync, &chain);
        let (released, last) = feed_all(&mut sync, &chain[..9_999]);
        let buffer = params.headers_sync.redownload_buffer_size;
        assert_eq!(released, chain[..9_999 - buffer]);
        assert!(matches!(last, PresyncOutcome::Taken { request_more: false, .. }));
    }

    #[test]
    fn headers_beyond_the_goal_need_no_commitments() {
        let params = forged::params(0);
        let chain = forged::chain(&params, params.genesis_header(), BLOCKS + 500, 0);
        let mut sync = start(&params, 1);
        feed_all(&mut sync, &chain[..BLOCKS]);
        let (released, _) = feed_all(&mut sync, &chain);
        assert_eq!(released, chain);
    }

    #[test]
    fn gaps_end_either_pass() {
        let params = forged::params(0);
        let chain = forged::chain(&params, params.genesis_header(), BLOCKS, 0);
        let mut sync = start(&params, 1);
        assert_eq!(
            feed(&mut sync, &chain[1..2_001], true),
            PresyncOutcome::Failed(PresyncFailure::NotContinuous)
        );
        let mut sync = start(&params, 1);
        feed_all(&mut sync, &chain);
        assert_eq!(
            feed(&mut sync, &chain[1..2_001], true),
            PresyncOutcome::Failed(PresyncFailure::NotContinuous)
        );
    }

    /// An attacker who has endless headers: the commitments are capped by what a valid chain can have, and
    /// no header is kept.
    #[test]
    fn an_endless_chain_costs_bounded_memory() {
        let params = forged::params(0);
        let tree = forged::tree(&params);
        // At the genesis block's own time the cap is 6 blocks a second for two hours.
        let now = u64::from(params.genesis_header().time);
        let cap = 6 * MAX_FUTURE_BLOCK_TIME;
        let required = proof(&params, u32::MAX);
        let mut sync = Presync::new(&tree, tree.genesis(), required, now, &mut Rng::from_number(1));
        let chain = forged::chain(&params, params.genesis_header(), cap as usize + 4_000, 0);
        let mut fed = 0;
        let mut failure = None;
        for message in chain.chunks(MAX_HEADERS) {
            match feed(&mut sync, message, true) {
                PresyncOutcome::Taken { released, request_more } => {
                    assert!(released.is_empty() && request_more);
                    fed += message.len() as u64;
                    assert!(sync.memory() < 4_000, "{}", sync.memory());
                }
                PresyncOutcome::Failed(why) => {
                    failure = Some(why);
                    break;
                }
            }
        }
        assert_eq!(failure, Some(PresyncFailure::TooLong));
        assert!(fed >= cap - 4_000 && fed <= cap + 4_000, "{fed}");
    }

    #[test]
    fn the_redownload_buffer_is_bounded() {
        let params = forged::params(0);
        let chain = forged::chain(&params, params.genesis_header(), BLOCKS, 0);
        let mut sync = start(&params, 3);
        feed_all(&mut sync, &chain);
        let limit = params.headers_sync.redownload_buffer_size;
        for message in chain[..14_000].chunks(MAX_HEADERS) {
            feed(&mut sync, message, true);
            assert!(sync.buffer.len() <= limit);
        }
        assert_eq!(size_of::<Bare>(), 48);
        assert!(sync.memory() < (limit + MAX_HEADERS) * 48 + 10_000);
    }

    /// Mainnet's rule within a period: no change of difficulty, in either pass. The headers' own proof of
    /// work is the caller's matter.
    #[test]
    fn difficulty_that_moves_too_fast_ends_the_presync() {
        let params = Arc::new(Params::new(crate::chain::params::Network::Main));
        let tree = forged::tree(&params);
        let genesis = *params.genesis_header();
        let mut header = Header { prev_blockhash: genesis.block_hash(), ..genesis };
        header.bits = CompactTarget::from_consensus(0x1b00_ffff);
        let required = proof(&params, u32::MAX);
        let mut sync = Presync::new(&tree, tree.genesis(), required, NOW, &mut Rng::from_number(1));
        assert_eq!(
            feed(&mut sync, &[header], true),
            PresyncOutcome::Failed(PresyncFailure::DifficultyTransition)
        );
    }

    proptest! {
        #[test]
        fn bits_are_a_queue(pushes in proptest::collection::vec(any::<Option<bool>>(), 0..400)) {
            let (mut bits, mut model) = (Bits::default(), VecDeque::new());
            for push in pushes {
                match push {
                    Some(bit) => {
                        bits.push(bit);
                        model.push_back(bit);
                    }
                    None => prop_assert_eq!(bits.pop(), model.pop_front()),
                }
                prop_assert_eq!(bits.len as usize, model.len());
                prop_assert!(bits.words.len() <= model.len() / 64 + 2);
            }
            while let Some(bit) = model.pop_front() {
                prop_assert_eq!(bits.pop(), Some(bit));
            }
            prop_assert_eq!(bits.pop(), None);
        }
    }
}
