//! The words in which the engine and the chainstate speak to each other.
//!
//! The engine decides *what* (which block is stored, connected, disconnected, when to commit); the
//! chainstate does it and reports. Commands are carried out in order. Context that a block needs from its
//! ancestors travels with the command, so that the chainstate needs no header tree.
//!
//! 1. `SaveHeaders` makes accepted headers durable (append-only file).
//! 2. `StoreBlock` decodes and checks a body by itself and in its context, then appends it to the block
//!    files: `Stored` or `Refused`.
//! 3. `Connect` extends the tip by a stored block: `Connected` once its scripts are proved, or `Invalid`,
//!    after which the tip is its parent and queued `Connect`s on top of it answer `Dropped`.
//! 4. `Disconnect` undoes the tip: `Disconnected`; or `Missing` and `Dropped`, if a stored block that it needs
//!    has to be stored again first.
//! 5. `Commit` makes the proved tip durable in two phases: `CheckpointDurable`, then `Committed`.
//! 6. `CommitWanted`, `Storage` and `Failed` come unasked.

use super::deployments::Rules;
use crate::error::Reject;
use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::hashes::{Hash, HashEngine, sha256};
use std::sync::Arc;

/// A block by its height in its chain and its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockRef {
    /// Height, 0 for the genesis block.
    pub height: u32,
    /// Hash of the header (internal byte order).
    pub hash: BlockHash,
}

/// A serialised block as a peer or a file gave it, not yet parsed beyond its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawBlock {
    header: Header,
    hash: BlockHash,
    bytes: Arc<Vec<u8>>,
}

impl RawBlock {
    /// Takes serialised bytes (header, CompactSize, transactions). `None` if there are fewer than the 80
    /// bytes of a header.
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        let header: Header = bitcoin::consensus::deserialize(bytes.get(..80)?).ok()?;
        Some(Self { header, hash: header.block_hash(), bytes: Arc::new(bytes) })
    }

    /// The block's header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The block's hash.
    pub fn hash(&self) -> BlockHash {
        self.hash
    }

    /// All bytes, the header's included.
    pub fn bytes(&self) -> &Arc<Vec<u8>> {
        &self.bytes
    }
}

/// Whether a block's scripts are executed when it connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScriptPolicy {
    /// Every script is executed.
    Verify,
    /// Skipped under `assumevalid`; answers that rest on this block say so.
    AssumeValid,
}

/// What the rules for one block need to know of its ancestors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockContext {
    /// The block's height.
    pub height: u32,
    /// The block's hash.
    pub hash: BlockHash,
    /// The parent's hash.
    pub prev: BlockHash,
    /// Median time past of the parent, in Unix seconds (BIP113).
    pub parent_mtp: u32,
    /// The rules in force for this block.
    pub rules: Rules,
    /// Whether its scripts are executed; meaningless for `StoreBlock`.
    pub scripts: ScriptPolicy,
}

impl BlockContext {
    /// The block's height and hash.
    pub fn block(&self) -> BlockRef {
        BlockRef { height: self.height, hash: self.hash }
    }
}

/// A mark on a block in the header file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeaderMark {
    /// The block was found invalid (or the host said so).
    Invalid,
    /// An earlier mark is taken back.
    Reconsidered,
}

/// A durable record that is written before the chainstate changes, so that a failure at any point can be
/// rolled back to a state that existed. Records form a chain by hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollbackCheckpoint {
    /// Position in the chain of checkpoints, from 1.
    pub sequence: u64,
    /// Unix seconds when the checkpoint was made.
    pub time: u64,
    /// The durable tip before the change: where a rollback leads.
    pub from: BlockRef,
    /// The tip that the change leads to.
    pub to: BlockRef,
    /// [`RollbackCheckpoint::hash`] of the checkpoint before; zeroes for the first.
    pub previous: sha256::Hash,
}

impl RollbackCheckpoint {
    /// The checkpoint that follows `previous` (`None`: the first).
    pub fn next(previous: Option<&Self>, time: u64, from: BlockRef, to: BlockRef) -> Self {
        Self {
            sequence: previous.map_or(1, |p| p.sequence.saturating_add(1)),
            time,
            from,
            to,
            previous: previous.map_or(sha256::Hash::all_zeros(), Self::hash),
        }
    }

    /// The serialised form: sequence, time (u64 LE each), from, to (u32 LE height and hash each), previous.
    pub fn to_bytes(&self) -> [u8; 120] {
        let mut out = [0; 120];
        out[..8].copy_from_slice(&self.sequence.to_le_bytes());
        out[8..16].copy_from_slice(&self.time.to_le_bytes());
        for (at, block) in [(16, &self.from), (52, &self.to)] {
            out[at..at + 4].copy_from_slice(&block.height.to_le_bytes());
            out[at + 4..at + 36].copy_from_slice(block.hash.as_byte_array());
        }
        out[88..].copy_from_slice(self.previous.as_byte_array());
        out
    }

    /// Reads what [`Self::to_bytes`] wrote; `None` if the length is not 120.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 120] = bytes.try_into().ok()?;
        let block = |at: usize| -> Option<BlockRef> {
            Some(BlockRef {
                height: u32::from_le_bytes(bytes[at..at + 4].try_into().ok()?),
                hash: BlockHash::from_byte_array(bytes[at + 4..at + 36].try_into().ok()?),
            })
        };
        Some(Self {
            sequence: u64::from_le_bytes(bytes[..8].try_into().ok()?),
            time: u64::from_le_bytes(bytes[8..16].try_into().ok()?),
            from: block(16)?,
            to: block(52)?,
            previous: sha256::Hash::from_byte_array(bytes[88..].try_into().ok()?),
        })
    }

    /// SHA-256 of [`Self::to_bytes`].
    pub fn hash(&self) -> sha256::Hash {
        let mut engine = sha256::Hash::engine();
        engine.input(&self.to_bytes());
        sha256::Hash::from_engine(engine)
    }
}

/// What the block files hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockStorage {
    /// Blocks of the active chain below this height, or what undoes them, may be pruned; 0 if none was.
    pub pruned_below: u32,
    /// Bytes of the files of blocks and undo data.
    pub bytes: u64,
}

/// What the engine asks of the chainstate.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChainCommand {
    /// Append accepted headers, parents first.
    SaveHeaders(Vec<Header>),
    /// Append a mark on a header.
    SaveMark(BlockHash, HeaderMark),
    /// Check a body and store it.
    StoreBlock(BlockContext, RawBlock),
    /// Extend the tip by a stored block whose parent is the tip (or the last `Connect` before this).
    Connect(BlockContext),
    /// Undo the tip, which must be this block.
    Disconnect(BlockRef),
    /// Make everything up to the tip that the commands before this lead to durable, after all scripts up
    /// to it are proved. Nothing happens, and only `Committed` is answered, if it is durable already.
    Commit {
        /// Unix seconds, for the checkpoint.
        time: u64,
    },
    /// Read a stored block.
    ReadBlock(BlockHash),
    /// The cache of coins may use so many bytes more than its own until told otherwise. Nothing is answered.
    LendToCoins(u64),
}

/// What the chainstate tells the engine.
#[derive(Debug)]
#[non_exhaustive]
pub enum ChainReport {
    /// The body passed all checks that need no coins and is in the block files.
    Stored {
        /// The block.
        block: BlockRef,
        /// Its transactions.
        transactions: u32,
    },
    /// The body was not stored.
    Refused {
        /// The block.
        block: BlockRef,
        /// Why; `Mutated` says nothing about the hash.
        reject: Reject,
    },
    /// The block is the tip and its scripts are proved (or assumed, by its context).
    Connected {
        /// The block.
        block: BlockRef,
        /// Transaction inputs, the coinbase's not counted.
        inputs: u32,
        /// Transactions.
        transactions: u32,
    },
    /// The block breaks a rule; the tip is its parent.
    Invalid {
        /// The block.
        block: BlockRef,
        /// Why.
        reject: Reject,
    },
    /// A `Connect` behind an invalid block was not carried out, or the block's bytes are missing or
    /// damaged (`lost`), so that it has to be fetched again; or a `Disconnect` was not, see `Missing`.
    Dropped {
        /// The block.
        block: BlockRef,
        /// Whether the stored bytes are unusable.
        lost: bool,
    },
    /// A stored block is damaged or gone which a `Disconnect` needs: the block itself, or an ancestor that
    /// made a coin which it spent, if its undo data is damaged too. It has to be stored again before that
    /// `Disconnect` can be repeated; this one, and those behind it, answer `Dropped`. The tip stays.
    Missing(BlockRef),
    /// The tip is the parent now.
    Disconnected {
        /// The block that was undone.
        block: BlockRef,
        /// The tip after it.
        tip: BlockRef,
    },
    /// Phase one of a commit: the checkpoint is durable.
    CheckpointDurable(RollbackCheckpoint),
    /// Phase two: the state of `checkpoint.to` is durable. The checkpoint is the one of the last change,
    /// so an answer may repeat it.
    Committed(RollbackCheckpoint),
    /// The cache is about to reach its budget, or has: a `Commit` is needed before many more blocks can connect.
    CommitWanted,
    /// What the block files hold, if it has changed: after a commit, and when files were deleted.
    Storage(BlockStorage),
    /// Answer to `ReadBlock`; `None` if it is not stored.
    Read(BlockHash, Option<RawBlock>),
    /// The chainstate cannot go on; it takes no more commands.
    Failed(crate::error::Error),
}
