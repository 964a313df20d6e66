//! Script verification behind one trait.
//!
//! A [`Verifier`] is a pure function of its input: the transaction, the outputs it spends and the flags.
//! It does no I/O, reads no clock and starts no thread, so it can be run in another process or an enclave:
//! [`remote`] has the bytes for that. The feature `conformance` has a suite for verifiers of one's own.
//! Proofs that something was verified are made by this crate alone.
//!
//! 1. [`check_block`] checks a block by itself, a signet's solution included.
//! 2. [`scripts::ScriptPool`] splits the scripts of one block among the threads of a [`pool::Pool`].
//! 3. Its ticket yields [`Verified`], which says whether scripts were executed or assumed valid.

mod cache;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "consensus")]
pub mod interpreter;
pub mod pool;
pub mod remote;
pub mod scripts;
mod smaller;
pub mod standard;

use crate::chain::command::ScriptPolicy;
use crate::chain::deployments::ScriptFlags;
use crate::chain::params::Params;
use crate::consensus::block::CheckedBlock;
use crate::consensus::decode::DecodedBlock;
use crate::consensus::signet::{SIGNET_SCRIPT_FLAGS, SignetSpend};
use crate::error::Reject;
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

impl TxScripts<'_> {
    /// Refuses what has no meaning.
    ///
    /// # Errors
    /// [`VerifierError`] for flags beside those of [`ScriptFlags::ALL`], for `WITNESS` without `P2SH` (BIP141), and
    /// for spent outputs that are not one an input.
    pub fn check(&self) -> Result<(), VerifierError> {
        let reason = if !ScriptFlags::ALL.contains(self.flags) {
            "unknown script verification flags"
        } else if self.flags.contains(ScriptFlags::WITNESS) && !self.flags.contains(ScriptFlags::P2SH) {
            "the WITNESS flag needs P2SH"
        } else if self.spent.len() != self.tx.input.len() {
            "not as many spent outputs as inputs"
        } else {
            return Ok(());
        };
        Err(VerifierError { reason: reason.into() })
    }

    /// The flags that mean something for this input: `TAPROOT` only if it spends such an output (BIP341), for only then
    /// does its verdict need all spent outputs.
    pub fn flags_of(&self, index: usize) -> ScriptFlags {
        match self.spent.get(index) {
            Some(output) if output.script_pubkey.is_p2tr() => self.flags,
            _ => ScriptFlags(self.flags.0 & !ScriptFlags::TAPROOT.0),
        }
    }
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
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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

/// The verdict of checks that are made input by input. `ready` makes a transaction ready; what it answers tells of an input
/// by its index whether its script succeeds.
///
/// # Errors
/// What `ready` and the checks fail with.
pub fn input_by_input<'a, C>(
    batch: &[TxScripts<'a>],
    mut ready: impl FnMut(TxScripts<'a>) -> Result<C, VerifierError>,
) -> Result<Verdict, VerifierError>
where
    C: FnMut(usize) -> Result<bool, VerifierError>,
{
    for (transaction, scripts) in batch.iter().enumerate() {
        let mut succeeds = ready(*scripts)?;
        for input in 0..scripts.spent.len() {
            if !succeeds(input)? {
                return Ok(Verdict::Invalid(ScriptFailure { transaction, input }));
            }
        }
    }
    Ok(Verdict::Valid)
}

/// Checks inputs one by one: what [`standard::KnownForms`] has behind it. Implementations must be pure.
pub trait InputVerifier: Send + Sync + fmt::Debug {
    /// A transaction made ready.
    type Inputs<'a>: VerifyInputs
    where
        Self: 'a;

    /// Makes what the inputs of a transaction share.
    ///
    /// # Errors
    /// [`VerifierError`] for what could not be judged: unknown flags, or spent outputs that are not one an input.
    fn inputs<'a>(&'a self, scripts: TxScripts<'a>) -> Result<Self::Inputs<'a>, VerifierError>;
}

/// The inputs of one transaction.
pub trait VerifyInputs {
    /// Whether the script of this input succeeds.
    ///
    /// # Errors
    /// [`VerifierError`] if there is no such input, or no verdict could be reached; never for an invalid script.
    fn succeeds(&mut self, index: usize) -> Result<bool, VerifierError>;

    /// Whether the check of this input takes time in proportion to the whole transaction, whatever its script does: then
    /// it is worth while to try it with less.
    fn is_slow(&self, index: usize) -> bool;
}

/// How a block came to count as valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Proof {
    /// Its scripts were not executed, because it lies below the block that `assumevalid` names.
    AssumedValid,
    /// Every script was executed and succeeded.
    Scripts,
}

/// Something whose scripts are proved, or assumed: [`Verified::proof`] says which. Only this crate makes it.
#[derive(Clone, Debug)]
pub struct Verified<T> {
    value: T,
    proof: Proof,
}

impl<T> Verified<T> {
    /// All scripts of `value` succeeded.
    pub(crate) fn by_scripts(value: T) -> Self {
        Self { value, proof: Proof::Scripts }
    }

    /// The scripts of `value` were skipped under `policy`; `None` if the policy is to verify.
    pub(crate) fn assumed(value: T, policy: ScriptPolicy) -> Option<Self> {
        match policy {
            ScriptPolicy::AssumeValid => Some(Self { value, proof: Proof::AssumedValid }),
            ScriptPolicy::Verify => None,
        }
    }

    /// What it rests on.
    pub fn proof(&self) -> Proof {
        self.proof
    }

    /// The thing itself.
    pub fn get(&self) -> &T {
        &self.value
    }

    /// The thing itself, without its proof.
    pub fn into_inner(self) -> T {
        self.value
    }
}

/// Why a check gave no proof.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// A rule is broken.
    #[error(transparent)]
    Rejected(#[from] Reject),
    /// The verifier gave no verdict; nothing is known about the block.
    #[error(transparent)]
    Verifier(#[from] VerifierError),
}

/// [`crate::consensus::block::check_block`] with the scripts of signet solutions run by `verifier`.
///
/// # Errors
/// What that function refuses; [`CheckError::Verifier`] if the verifier gave no verdict.
pub fn check_block(
    block: DecodedBlock,
    params: &Params,
    verifier: &dyn Verifier,
) -> Result<CheckedBlock, CheckError> {
    let mut failed = None;
    let checked = crate::consensus::block::check_block(block, params, |spend| {
        solves(spend, verifier).unwrap_or_else(|error| {
            failed = Some(error);
            false
        })
    });
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(checked?),
    }
}

fn solves(spend: &SignetSpend, verifier: &dyn Verifier) -> Result<bool, VerifierError> {
    let raw = bitcoin::consensus::serialize(&spend.to_sign);
    let spent = core::slice::from_ref(&spend.spent);
    let scripts = TxScripts { tx: &spend.to_sign, raw: &raw, spent, flags: SIGNET_SCRIPT_FLAGS };
    Ok(verifier.verify(&[scripts])? == Verdict::Valid)
}
