//! Scripts through Bitcoin Core's own code: the library `bitcoinconsensus` of its version 26, whose rules
//! of consensus are today's.
//!
//! It tells no reason for a failure. For every input it parses and hashes the whole transaction again, so
//! that a transaction with very many inputs takes time in the square of their number (docs/worst-blocks.md).

use super::{InputVerifier, TxScripts, Verdict, Verifier, VerifierError, VerifyInputs, input_by_input};
use crate::chain::deployments::ScriptFlags;
use bitcoin::consensus::serialize;
use bitcoin::{ScriptBuf, Transaction, TxIn, TxOut, Witness};
use bitcoinconsensus::{Error, Utxo, verify_with_flags};
use core::fmt;

/// Every input through the library.
///
/// As a [`Verifier`] it gives the library each transaction as it is. Behind
/// [`KnownForms`](super::standard::KnownForms) the other inputs lose scriptSigs and witnesses, which no signature hash
/// covers: the one of old empties the scriptSigs, BIPs 143 and 341 leave them out, and of the annexes BIP341 hashes the
/// input's own alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interpreter;

impl Verifier for Interpreter {
    fn verify(&self, batch: &[TxScripts<'_>]) -> Result<Verdict, VerifierError> {
        input_by_input(batch, |scripts| {
            let mut inputs = Whole::of(scripts)?;
            Ok(move |input| inputs.succeeds(input))
        })
    }
}

impl InputVerifier for Interpreter {
    type Inputs<'a> = Inputs<'a>;

    fn inputs<'a>(&'a self, scripts: TxScripts<'a>) -> Result<Inputs<'a>, VerifierError> {
        Ok(Inputs { whole: Whole::of(scripts)?, bare: None })
    }
}

/// The inputs of one transaction, each in the transaction without what unlocks the others.
pub struct Inputs<'a> {
    whole: Whole<'a>,
    /// The transaction without scriptSigs and witnesses, once it is needed.
    bare: Option<Transaction>,
}

impl VerifyInputs for Inputs<'_> {
    fn succeeds(&mut self, index: usize) -> Result<bool, VerifierError> {
        let tx = self.whole.scripts.tx;
        if tx.input.len() == 1 {
            return self.whole.succeeds(index);
        }
        let bare = self.bare.get_or_insert_with(|| without_unlocking(tx));
        let (Some(place), Some(input)) = (bare.input.get_mut(index), tx.input.get(index)) else {
            return no_verdict("no such input");
        };
        let locked = core::mem::replace(place, input.clone());
        let raw = serialize(bare);
        if let Some(place) = bare.input.get_mut(index) {
            *place = locked;
        }
        self.whole.succeeds_within(&raw, index)
    }

    /// It parses and hashes for each input all that it is given.
    fn is_slow(&self, _: usize) -> bool {
        true
    }
}

impl fmt::Debug for Inputs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inputs").field("scripts", &self.whole.scripts).finish_non_exhaustive()
    }
}

fn without_unlocking(tx: &Transaction) -> Transaction {
    let locked = |input: &TxIn| TxIn { script_sig: ScriptBuf::new(), witness: Witness::new(), ..*input };
    Transaction { input: tx.input.iter().map(locked).collect(), output: tx.output.clone(), ..*tx }
}

/// The inputs of one transaction, each in all of it.
pub(super) struct Whole<'a> {
    scripts: TxScripts<'a>,
    /// All spent outputs as the library takes them, once they are needed.
    utxos: Option<Vec<Utxo>>,
}

impl<'a> Whole<'a> {
    /// Refuses what the library could not be asked about.
    pub(super) fn of(scripts: TxScripts<'a>) -> Result<Self, VerifierError> {
        // The library would abort the process for some of it.
        scripts.check()?;
        Ok(Self { scripts, utxos: None })
    }

    /// Whether the script of this input succeeds.
    pub(super) fn succeeds(&mut self, input: usize) -> Result<bool, VerifierError> {
        self.succeeds_within(self.scripts.raw, input)
    }

    /// The same within the bytes of another transaction, with as many inputs.
    fn succeeds_within(&mut self, raw: &[u8], input: usize) -> Result<bool, VerifierError> {
        let (spent, flags) = (self.scripts.spent, self.scripts.flags_of(input));
        let Some(output) = spent.get(input) else { return no_verdict("no such input") };
        // The library copies them at each call.
        let utxos = if flags.contains(ScriptFlags::TAPROOT) {
            if self.utxos.is_none() {
                self.utxos = Some(spent.iter().map(utxo).collect::<Result<_, _>>()?);
            }
            self.utxos.as_deref()
        } else {
            None
        };
        let script = output.script_pubkey.as_bytes();
        match verify_with_flags(script, output.value.to_sat(), raw, utxos, input, flags.0) {
            Ok(()) => Ok(true),
            // The error that the library leaves unset: it ran the script, which failed.
            Err(Error::ERR_SCRIPT) => Ok(false),
            Err(error) => no_verdict(&format!("bitcoinconsensus: {error}")),
        }
    }
}

fn no_verdict<T>(reason: &str) -> Result<T, VerifierError> {
    Err(VerifierError { reason: reason.into() })
}

fn utxo(output: &TxOut) -> Result<Utxo, VerifierError> {
    let out_of_range = |_| VerifierError { reason: "a spent output is out of range".into() };
    Ok(Utxo {
        script_pubkey: output.script_pubkey.as_bytes().as_ptr(),
        script_pubkey_len: output.script_pubkey.len().try_into().map_err(out_of_range)?,
        value: output.value.to_sat().try_into().map_err(out_of_range)?,
    })
}
