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

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::absolute::LockTime;
    use bitcoin::transaction::Version;
    use bitcoin::{Sequence, TxIn};
    use core::convert::Infallible;

    fn tx(version: i32, lock: u32, sequences: &[u32]) -> Transaction {
        let input = |&sequence| TxIn { sequence: Sequence(sequence), ..TxIn::default() };
        Transaction {
            version: Version(version),
            lock_time: LockTime::from_consensus(lock),
            input: sequences.iter().map(input).collect(),
            output: Vec::new(),
        }
    }

    #[test]
    fn a_lock_time_is_the_last_height_or_time_that_is_too_early() {
        let threshold = LOCKTIME_THRESHOLD;
        for (lock, height, time, expected) in [
            (0, 0, 0, true),
            (100, 100, u32::MAX, false),
            (100, 101, 0, true),
            (threshold - 1, threshold - 1, u32::MAX, false),
            (threshold - 1, threshold, 0, true),
            (threshold, u32::MAX, threshold, false),
            (threshold, 0, threshold + 1, true),
            (u32::MAX, u32::MAX, u32::MAX, false),
        ] {
            assert_eq!(is_final(&tx(2, lock, &[0]), height, time), expected, "{lock} {height} {time}");
            assert!(is_final(&tx(2, lock, &[u32::MAX, u32::MAX]), height, time));
            assert_eq!(is_final(&tx(2, lock, &[u32::MAX, u32::MAX - 1]), height, time), expected);
        }
    }

    fn locks(version: i32, inputs: &[(u32, u32)]) -> SequenceLocks {
        let sequences: Vec<u32> = inputs.iter().map(|input| input.0).collect();
        let heights = inputs.iter().map(|input| input.1);
        // Blocks come every 600 s, the first at 1,000,000.
        let mtp = |height: u32| Ok::<_, Infallible>(1_000_000 + height * 600);
        SequenceLocks::new(&tx(version, 0, &sequences), heights, mtp).unwrap()
    }

    #[test]
    fn relative_heights_count_from_the_coin() {
        let found = locks(2, &[(10, 500), (0, 505)]);
        assert_eq!(found, SequenceLocks { min_height: 509, min_time: -1 });
        assert!(!found.satisfied(509, u32::MAX));
        assert!(found.satisfied(510, 0));
        assert_eq!(locks(2, &[(0xffff, 1)]).min_height, 0xffff);
        // Bits that have no meaning.
        assert_eq!(locks(2, &[(0x7fbf_0005, 100)]).min_height, 104);
    }

    #[test]
    fn relative_times_count_from_the_median_before_the_coin() {
        let found = locks(2, &[(TYPE_FLAG | 3, 500)]);
        assert_eq!(found, SequenceLocks { min_height: -1, min_time: 1_000_000 + 499 * 600 + 3 * 512 - 1 });
        assert!(!found.satisfied(u32::MAX, found.min_time as u32));
        assert!(found.satisfied(0, found.min_time as u32 + 1));
        // The genesis block has nothing before it.
        assert_eq!(locks(2, &[(TYPE_FLAG, 0)]).min_time, 999_999);
    }

    #[test]
    fn old_versions_and_disabled_inputs_have_no_locks() {
        assert_eq!(locks(1, &[(10, 500)]), SequenceLocks::NONE);
        assert_eq!(locks(0, &[(10, 500)]), SequenceLocks::NONE);
        assert_eq!(locks(2, &[(DISABLE_FLAG | 10, 500)]), SequenceLocks::NONE);
        // A version is unsigned, though rust-bitcoin's is not.
        assert_eq!(locks(-1, &[(10, 500)]).min_height, 509);
        assert!(SequenceLocks::NONE.satisfied(0, 0));
    }

    #[test]
    fn a_failed_look_up_is_passed_on() {
        let failed = SequenceLocks::new(&tx(2, 0, &[TYPE_FLAG]), [7], Err::<u32, u32>);
        assert_eq!(failed, Err(6));
    }
}
