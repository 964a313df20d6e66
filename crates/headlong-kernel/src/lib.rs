//! Scripts through `libbitcoinkernel`, the library that Bitcoin Core makes of its own validation code.
//!
//! [`KernelVerifier`] is a [`Verifier`] for [headlong](headlong): every input is judged by the interpreter of Core 31,
//! and what the inputs of one transaction share (BIPs 143 and 341) is hashed once, as Core does. The engines of
//! headlong's feature `consensus` stand on a library that hashes the whole transaction again for each input. The two
//! cannot be linked into one program: a host of this crate takes headlong with `default-features = false`.
//!
//! ```
//! use headlong::{Builder, Network};
//! use headlong_kernel::KernelVerifier;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // With headlong's feature `native`; other hosts bring a transport and an executor too.
//! let (node, handle) = Builder::new(Network::Regtest).verifier(KernelVerifier).build()?;
//! # drop((node, handle));
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]

use bitcoinkernel::prelude::*;
use bitcoinkernel::{
    KernelError, PrecomputedTransactionData, ScriptPubkey, ScriptVerifyError, Transaction, TxOut, VERIFY_ALL,
    verify,
};
use headlong::Verifier;
use headlong::chain::deployments::ScriptFlags;
use headlong::verify::{ScriptFailure, TxScripts, Verdict, VerifierError};

// The library's flags have the values of headlong's.
const _: () = assert!(VERIFY_ALL == ScriptFlags::ALL.0);

/// Every input through Core's interpreter. It holds nothing; all threads may share one.
///
/// It takes every set of the flags of [`ScriptFlags::ALL`] but those with `WITNESS` and without `P2SH`, and says
/// nothing of why a script failed.
///
/// Where a taproot output is spent, the library copies all spent outputs for each input (as of version 0.3.2): a
/// transaction with n inputs takes n² such copies, of which Core has none.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelVerifier;

impl Verifier for KernelVerifier {
    /// # Errors
    /// [`VerifierError`] for flags without meaning, a number of spent outputs that is not that of the inputs, an amount
    /// above 2^63 - 1 satoshis, and bytes that are no transaction; and if the library has no memory.
    fn verify(&self, batch: &[TxScripts<'_>]) -> Result<Verdict, VerifierError> {
        for (transaction, scripts) in batch.iter().enumerate() {
            if let Some(input) = first_failure(scripts)? {
                return Ok(Verdict::Invalid(ScriptFailure { transaction, input }));
            }
        }
        Ok(Verdict::Valid)
    }
}

/// The first input whose script fails.
fn first_failure(scripts: &TxScripts<'_>) -> Result<Option<usize>, VerifierError> {
    let flags = scripts.flags;
    if !ScriptFlags::ALL.contains(flags) {
        return Err(no_verdict("unknown script verification flags"));
    }
    let tx = Transaction::new(scripts.raw).map_err(from_library)?;
    if tx.input_count() != scripts.spent.len() {
        return Err(no_verdict("not as many spent outputs as inputs"));
    }
    let spent = scripts.spent.iter().map(output).collect::<Result<Vec<TxOut>, _>>()?;
    // The library copies what is shared at each call, all spent outputs included. Only a taproot output needs them, and
    // without one the flag means nothing.
    let taproot = scripts.spent.iter().any(|output| output.script_pubkey.is_p2tr());
    let (all, flags) =
        if taproot { (&spent[..], flags.0) } else { (&[][..], flags.0 & !ScriptFlags::TAPROOT.0) };
    let shared = PrecomputedTransactionData::new(&tx, all).map_err(from_library)?;
    for (input, spent) in spent.iter().enumerate() {
        match verify(&spent.script_pubkey(), Some(spent.value()), &tx, input, Some(flags), &shared) {
            Ok(()) => {}
            Err(KernelError::ScriptVerify(ScriptVerifyError::Invalid)) => return Ok(Some(input)),
            Err(error) => return Err(from_library(error)),
        }
    }
    Ok(None)
}

/// A spent output as the library has it.
fn output(spent: &bitcoin::TxOut) -> Result<TxOut, VerifierError> {
    let amount = spent.value.to_sat().try_into().map_err(|_| no_verdict("a spent output is out of range"))?;
    let script = ScriptPubkey::new(spent.script_pubkey.as_bytes()).map_err(from_library)?;
    Ok(TxOut::new(&script, amount))
}

fn no_verdict(reason: &str) -> VerifierError {
    VerifierError { reason: reason.into() }
}

fn from_library(error: KernelError) -> VerifierError {
    no_verdict(&format!("bitcoinkernel: {error}"))
}
