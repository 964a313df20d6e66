//! Script verification behind one trait.
//!
//! A [`Verifier`] is a pure function of its input: the transaction, the outputs it spends and the flags.
//! It does no I/O, reads no clock and starts no thread, so it can be run in another process or an enclave.
//! Proofs that something was verified are made by this crate alone.

#[cfg(feature = "consensus")]
pub mod interpreter;
pub mod pool;

use crate::chain::deployments::ScriptFlags;
use bitcoin::{Transaction, TxOut};
use core::fmt;

/// One transaction whose inputs are to be checked.
#[derive(Clone, Copy, Debug)]
pub struct TxScripts<'a> {
    /// The transaction.
    pub tx: &'a Transaction,
    /// Its serialisation with witnesses (BIP144).
    pub raw: &'a [u8],
    /// The outputs it spends, one an input, in order.
    pub spent: &'a [TxOut],
    /// The rules.
    pub flags: ScriptFlags,
}

/// A script that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScriptFailure {
    /// Index of the transaction in the batch.
    pub transaction: usize,
    /// Index of the input in the transaction.
    pub input: usize,
}

/// What a verifier found for a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Every input of every transaction satisfies its script.
    Valid,
    /// The first failure found.
    Invalid(ScriptFailure),
}

/// The verifier could give no verdict. This condemns no block.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct VerifierError {
    /// What happened.
    pub reason: String,
}

/// Checks scripts. Implementations must be pure: the same input gives the same verdict.
pub trait Verifier: Send + Sync + fmt::Debug {
    /// Checks all inputs of all transactions of the batch.
    ///
    /// # Errors
    /// [`VerifierError`] if no verdict could be reached; never for an invalid script.
    fn verify(&self, batch: &[TxScripts<'_>]) -> Result<Verdict, VerifierError>;
}
