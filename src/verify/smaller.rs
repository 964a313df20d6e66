//! The interpreter with less of a transaction, and the same verdict: it parses and hashes for each input all that it is
//! given.
//!
//! 1. If no script that an input can run holds a signature operation, nothing of the transaction reaches the scripts
//!    but its version, its lock time and this input (BIPs 65 and 112). It is judged in a transaction of its own.
//! 2. Else the other inputs lose their scriptSigs and witnesses, which no signature hash covers: the one of old empties
//!    the scriptSigs, BIPs 143 and 341 leave them out, and of the annexes BIP341 hashes the input's own alone.
//!
//! Scripts have no jumps: what runs is read from front to back, up to where it cannot be read, and there it fails. So
//! an operation that is not found in reading cannot run.

use super::interpreter::Inputs;
use super::{TxScripts, VerifierError};
use crate::chain::deployments::ScriptFlags;
use crate::consensus::sigops::{Operations, last_push, witness_program};
use bitcoin::consensus::serialize;
use bitcoin::opcodes::all as op;
use bitcoin::{ScriptBuf, Transaction, TxIn, TxOut, Witness};

/// The first byte of an annex (BIP341).
const ANNEX: u8 = 0x50;

/// The inputs of one transaction, to be checked one by one.
pub(super) struct Smaller<'a> {
    scripts: TxScripts<'a>,
    whole: Inputs<'a>,
    /// The transaction without scriptSigs and witnesses, once it is needed.
    bare: Option<Transaction>,
}

impl<'a> Smaller<'a> {
    /// Refuses what the library could not be asked about.
    pub(super) fn of(scripts: TxScripts<'a>) -> Result<Self, VerifierError> {
        Ok(Self { scripts, whole: Inputs::of(scripts)?, bare: None })
    }

    /// Whether the script of this input succeeds.
    pub(super) fn succeeds(&mut self, index: usize) -> Result<bool, VerifierError> {
        let TxScripts { tx, spent, flags, .. } = self.scripts;
        let (Some(input), Some(output)) = (tx.input.get(index), spent.get(index)) else {
            return self.whole.succeeds(index);
        };
        if tx.input.len() == 1 {
            return self.whole.succeeds(index);
        }
        if !may_check_a_signature(input, output, flags) {
            let alone = Transaction { input: vec![input.clone()], output: Vec::new(), ..*tx };
            let (raw, spent) = (serialize(&alone), core::slice::from_ref(output));
            return Inputs::of(TxScripts { tx: &alone, raw: &raw, spent, flags })?.succeeds(0);
        }
        let bare = self.bare.get_or_insert_with(|| without_unlocking(tx));
        let Some(place) = bare.input.get_mut(index) else { return self.whole.succeeds(index) };
        *place = input.clone();
        let raw = serialize(bare);
        if let Some(place) = bare.input.get_mut(index) {
            *place = locked(input);
        }
        self.whole.succeeds_within(&raw, index)
    }
}

fn without_unlocking(tx: &Transaction) -> Transaction {
    Transaction { input: tx.input.iter().map(locked).collect(), output: tx.output.clone(), ..*tx }
}

/// The input without what unlocks it.
fn locked(input: &TxIn) -> TxIn {
    TxIn { script_sig: ScriptBuf::new(), witness: Witness::new(), ..*input }
}

/// Whether there is a signature operation in anything that runs for this input, or a key in a witness program. Where it
/// is not clear what runs, more is looked at.
fn may_check_a_signature(input: &TxIn, output: &TxOut, flags: ScriptFlags) -> bool {
    let lock = &output.script_pubkey;
    // A redeem script runs only behind pushes alone (BIP16).
    let redeem = lock.is_p2sh().then(|| last_push(&input.script_sig)).flatten();
    let program = witness_program(lock).or_else(|| redeem.and_then(witness_program));
    let witness = &input.witness;
    let revealed = match program.filter(|_| flags.contains(ScriptFlags::WITNESS)) {
        // A version 0 program of another length fails.
        Some((0, program)) if program.len() == 20 => return true,
        Some((0, _)) => witness.last(),
        Some((1, program)) if program.len() == 32 => {
            let annex = witness.len() >= 2 && witness.last().is_some_and(|item| item.first() == Some(&ANNEX));
            match witness.len() - usize::from(annex) {
                // By key.
                1 => return true,
                items => items.checked_sub(2).and_then(|script| witness.nth(script)),
            }
        }
        _ => None,
    };
    let scripts =
        [Some(input.script_sig.as_bytes()), Some(lock.as_bytes()), redeem.map(|s| s.as_bytes()), revealed];
    scripts.into_iter().flatten().any(holds_a_signature_operation)
}

fn holds_a_signature_operation(script: &[u8]) -> bool {
    let signs = [
        op::OP_CHECKSIG,
        op::OP_CHECKSIGVERIFY,
        op::OP_CHECKMULTISIG,
        op::OP_CHECKMULTISIGVERIFY,
        op::OP_CHECKSIGADD,
    ];
    let signs = signs.map(|operation| operation.to_u8());
    Operations::new(script).map_while(|operation| operation).any(|(operation, _)| signs.contains(&operation))
}

#[cfg(test)]
mod tests;
