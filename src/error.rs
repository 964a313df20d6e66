//! Errors by blame: whose fault a failure is decides what is done about it.
//!
//! | blame | type | consequence |
//! | --- | --- | --- |
//! | a peer broke a rule | [`crate::peer::Fault`] | the connection ends, the address is discouraged |
//! | a block or header breaks a rule | [`Reject`] | it is refused; whether its hash is remembered depends on the kind |
//! | storage failed | [`crate::store::StoreError`] | retried or fatal, by its kind |
//! | the host misused the library | `BuildError`, `RequestError` | returned to the caller |
//! | a defect of this crate | [`Error::Bug`] | `run()` ends with it |

use crate::store::StoreError;
use bitcoin::BlockHash;
use core::fmt;
use std::borrow::Cow;

/// What is known about an object that was refused; Bitcoin Core's `BlockValidationResult`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectKind {
    /// The block breaks a rule of consensus: its hash is invalid for ever.
    Consensus,
    /// The header breaks a rule of consensus (proof of work, difficulty, time, version).
    InvalidHeader,
    /// The body does not belong to the header (merkle root, witness commitment) or may have been changed
    /// on its way: nothing is known about the hash, another copy may be good.
    Mutated,
    /// The object was found invalid before.
    CachedInvalid,
    /// The parent is not known.
    MissingParent,
    /// An ancestor is invalid.
    InvalidParent,
    /// The header's time is more than two hours ahead of our clock: it may become valid.
    TimeFuture,
    /// The chain that leads here has too little work to be kept.
    LowWork,
}

/// Why a header or block was refused.
///
/// `reason` is the word of BIP22 that Bitcoin Core 31 gives, without its details.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// What the refusal says about the object's hash.
    pub kind: RejectKind,
    /// Bitcoin Core's word, for example `bad-txns-inputs-missingorspent`.
    pub reason: &'static str,
    /// Details for people; empty where the reason says it all.
    pub detail: Cow<'static, str>,
}

impl Reject {
    /// A refusal without details.
    pub const fn new(kind: RejectKind, reason: &'static str) -> Self {
        Self { kind, reason, detail: Cow::Borrowed("") }
    }

    /// Shorthand for [`RejectKind::Consensus`].
    pub const fn consensus(reason: &'static str) -> Self {
        Self::new(RejectKind::Consensus, reason)
    }

    /// The same refusal with details for people.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Whether the hash itself is to be remembered as invalid.
    pub fn condemns_hash(&self) -> bool {
        matches!(self.kind, RejectKind::Consensus | RejectKind::InvalidHeader)
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason)?;
        if !self.detail.is_empty() {
            write!(f, " ({})", self.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for Reject {}

/// Why the chainstate or a running node had to stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store or a file failed, or holds what it should not.
    #[error("storage: {0}")]
    Store(#[from] StoreError),
    /// A worker thread panicked; the message is the panic's.
    #[error("a worker panicked: {0}")]
    WorkerPanic(String),
    /// The script verifier itself failed (it gave no verdict).
    #[error("the verifier failed: {0}")]
    Verifier(#[from] crate::verify::VerifierError),
    /// A block that is needed is damaged or not stored, and cannot be had without a network: whoever has it
    /// gives it again.
    #[error("block {0} is damaged or not stored, and needed again")]
    MissingBlock(BlockHash),
    /// A block that a reorg has to undo is damaged, and for a long time no peer had it
    /// ([`LOST_BLOCK_ROUNDS`](crate::limits::LOST_BLOCK_ROUNDS)). Opened again, the node goes on asking.
    #[error(
        "block {hash} at height {height} is damaged, has to be undone, and no peer has it: the data directory has to be \
         synced anew, or a peer found that has the block"
    )]
    LostBlock {
        /// Its hash.
        hash: BlockHash,
        /// Its height.
        height: u32,
    },
    /// A reorg reaches deeper than a pruned node can undo. Opened again, the node meets the same.
    #[error(
        "block {hash} at height {height} has to be undone, and the data for that, or the blocks to make it anew, are \
         pruned: the data directory has to be synced anew"
    )]
    Pruned {
        /// Its hash.
        hash: BlockHash,
        /// Its height.
        height: u32,
    },
    /// A defect of this crate: an invariant does not hold.
    #[error("internal error: {0}")]
    Bug(&'static str),
}
