//! Scripts through Bitcoin Core's own code: the library `bitcoinconsensus` of its version 26, whose rules
//! of consensus are today's.
//!
//! It tells no reason for a failure. For every input it parses and hashes the whole transaction again, so
//! that a transaction with very many inputs takes time in the square of their number.

use super::{ScriptFailure, TxScripts, Verdict, Verifier, VerifierError};
use crate::chain::deployments::ScriptFlags;
use bitcoin::TxOut;
use bitcoinconsensus::{Error, Utxo, verify_with_flags};

/// The verifier that comes with the crate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interpreter;

impl Verifier for Interpreter {
    fn verify(&self, batch: &[TxScripts<'_>]) -> Result<Verdict, VerifierError> {
        for (transaction, scripts) in batch.iter().enumerate() {
            if let Some(input) = first_failure(scripts)? {
                return Ok(Verdict::Invalid(ScriptFailure { transaction, input }));
            }
        }
        Ok(Verdict::Valid)
    }
}

/// Index of the first input that fails.
fn first_failure(scripts: &TxScripts<'_>) -> Result<Option<usize>, VerifierError> {
    let TxScripts { tx, raw, spent, flags } = *scripts;
    let no_verdict = |reason: &str| Err(VerifierError { reason: reason.into() });
    if !ScriptFlags::ALL.contains(flags) {
        return no_verdict("unknown script verification flags");
    }
    // The library would abort the process.
    if flags.contains(ScriptFlags::WITNESS) && !flags.contains(ScriptFlags::P2SH) {
        return no_verdict("the WITNESS flag needs P2SH");
    }
    if spent.len() != tx.input.len() {
        return no_verdict("not as many spent outputs as inputs");
    }
    // Only a taproot output gives the flag a meaning, and without it the library need not be given (and
    // copy, for each input) all spent outputs.
    let taproot = flags.contains(ScriptFlags::TAPROOT) && spent.iter().any(|o| o.script_pubkey.is_p2tr());
    let flags = if taproot { flags.0 } else { flags.0 & !ScriptFlags::TAPROOT.0 };
    let utxos = if taproot { spent.iter().map(utxo).collect::<Result<Vec<_>, _>>()? } else { Vec::new() };
    let utxos = taproot.then_some(utxos.as_slice());
    for (input, output) in spent.iter().enumerate() {
        let script = output.script_pubkey.as_bytes();
        match verify_with_flags(script, output.value.to_sat(), raw, utxos, input, flags) {
            Ok(()) => {}
            // The error that the library leaves unset: it ran the script, which failed.
            Err(Error::ERR_SCRIPT) => return Ok(Some(input)),
            Err(error) => return no_verdict(&format!("bitcoinconsensus: {error}")),
        }
    }
    Ok(None)
}

fn utxo(output: &TxOut) -> Result<Utxo, VerifierError> {
    let out_of_range = |_| VerifierError { reason: "a spent output is out of range".into() };
    Ok(Utxo {
        script_pubkey: output.script_pubkey.as_bytes().as_ptr(),
        script_pubkey_len: output.script_pubkey.len().try_into().map_err(out_of_range)?,
        value: output.value.to_sat().try_into().map_err(out_of_range)?,
    })
}
