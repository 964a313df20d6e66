//! When a transaction may be in a block.
//!
//! 1. [`is_final`]: the absolute lock time against the height or a time (BIP113 decides which time).
//! 2. [`SequenceLocks`]: relative lock times of the inputs (BIP68).
//!
//! Core: tx_verify.cpp (`IsFinalTx`, `CalculateSequenceLocks`, `EvaluateSequenceLocks`). Both failures have
//! the reason `bad-txns-nonfinal`. The opcodes of BIPs 65 and 112 are the interpreter's.

use bitcoin::Transaction;

/// Lock times below this are heights, others Unix seconds.
pub const LOCKTIME_THRESHOLD: u32 = 500_000_000;

/// With this bit an input's sequence number is no relative lock time.
const DISABLE_FLAG: u32 = 1 << 31;
/// With this bit a relative lock time counts time, without it blocks.
const TYPE_FLAG: u32 = 1 << 22;
/// The bits of a relative lock time's number.
const MASK: u32 = 0xffff;
/// A unit of relative time is 2^9 seconds.
const GRANULARITY: u32 = 9;

/// Whether the transaction may be in a block of this height, whose cut-off time is `time` (Unix seconds:
/// the parent's median time past under BIP113, else the block's own time).
pub fn is_final(tx: &Transaction, height: u32, time: u32) -> bool {
    let lock = tx.lock_time.to_consensus_u32();
    let limit = if lock < LOCKTIME_THRESHOLD { height } else { time };
    lock == 0 || lock < limit || tx.input.iter().all(|input| input.sequence.0 == u32::MAX)
}

/// The last height and the last time at which the relative lock times of a transaction still forbid it;
/// −1 where nothing is forbidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceLocks {
    /// The last height at which the transaction is not allowed.
    pub min_height: i64,
    /// The last median time past (of the parent, in Unix seconds) at which it is not allowed.
    pub min_time: i64,
}

impl SequenceLocks {
    /// What a transaction without relative lock times has.
    pub const NONE: Self = Self { min_height: -1, min_time: -1 };

    /// Gathers the locks of a transaction whose inputs spend coins of these heights (one an input, in
    /// order). `mtp_at(h)` is the median time past of the block at height `h` in the chain that the block
    /// extends. Only call it where BIP68 is in force.
    ///
    /// # Errors
    /// What `mtp_at` fails with.
    pub fn new<E>(
        tx: &Transaction,
        coin_heights: impl IntoIterator<Item = u32>,
        mut mtp_at: impl FnMut(u32) -> Result<u32, E>,
    ) -> Result<Self, E> {
        let mut locks = Self::NONE;
        // Core reads the version as unsigned.
        if (tx.version.0 as u32) < 2 {
            return Ok(locks);
        }
        for (input, coin_height) in tx.input.iter().zip(coin_heights) {
            let sequence = input.sequence.0;
            if sequence & DISABLE_FLAG != 0 {
                continue;
            }
            let number = i64::from(sequence & MASK);
            if sequence & TYPE_FLAG != 0 {
                let coin_time = i64::from(mtp_at(coin_height.saturating_sub(1))?);
                locks.min_time = locks.min_time.max(coin_time + (number << GRANULARITY) - 1);
            } else {
                locks.min_height = locks.min_height.max(i64::from(coin_height) + number - 1);
            }
        }
        Ok(locks)
    }

    /// Whether a block of this height, whose parent has this median time past, may hold the transaction.
    pub fn satisfied(&self, height: u32, parent_mtp: u32) -> bool {
        self.min_height < i64::from(height) && self.min_time < i64::from(parent_mtp)
    }
}
