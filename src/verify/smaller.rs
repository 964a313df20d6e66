//! An input in less than its transaction, and the same verdict: for interpreters that parse, hash or copy for each input
//! all that they are given.
//!
//! 1. If no script that an input can run holds a signature operation, nothing of the transaction reaches the scripts
//!    but its version, its lock time and this input (BIPs 65 and 112). It is judged in a transaction of its own.
//! 2. A tapscript that does hold one is tried in a transaction of its own, with another input and an output that are
//!    nobody's choice: they hold the hash of the whole. If it succeeds there it succeeds in the whole: of the signatures
//!    that are not empty each was good (a bad one fails a tapscript, BIP342), and what it signs is either the same in
//!    both, if it covers nothing but this input (`NONE` with `ANYONECANPAY`), or depends on a hash of the signature
//!    itself. If not, nothing is known, and the whole is asked.
//!
//! Scripts have no jumps: what runs is read from front to back, up to where it cannot be read, and there it fails. So
//! an operation that is not found in reading cannot run.

use super::{InputVerifier, TxScripts, VerifierError, VerifyInputs};
use crate::chain::deployments::ScriptFlags;
use crate::consensus::sigops::{Operations, last_push, witness_program};
use bitcoin::consensus::serialize;
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::opcodes::all as op;
use bitcoin::{Amount, OutPoint, Transaction, TxIn, TxOut, Txid};

/// From so many bytes on a transaction costs more than the attempt to do without it, which mostly fails.
const LARGE: usize = 8_000;

/// The inputs of one transaction, to be checked one by one.
pub(super) struct Smaller<'a, V: InputVerifier> {
    scripts: TxScripts<'a>,
    interpreter: &'a V,
    /// All of the transaction, once an input needs the interpreter.
    whole: Option<V::Inputs<'a>>,
    /// The hash of the whole transaction, once it is needed.
    hash: Option<[u8; 32]>,
}

impl<'a, V: InputVerifier> Smaller<'a, V> {
    /// Refuses what the interpreter could not be asked about.
    pub(super) fn of(scripts: TxScripts<'a>, interpreter: &'a V) -> Result<Self, VerifierError> {
        scripts.check()?;
        Ok(Self { scripts, interpreter, whole: None, hash: None })
    }

    fn whole(&mut self) -> Result<&mut V::Inputs<'a>, VerifierError> {
        match &mut self.whole {
            Some(whole) => Ok(whole),
            none => Ok(none.insert(self.interpreter.inputs(self.scripts)?)),
        }
    }

    /// Whether the script of this input succeeds.
    pub(super) fn succeeds(&mut self, index: usize) -> Result<bool, VerifierError> {
        let TxScripts { tx, raw, spent, flags } = self.scripts;
        let whole = self.whole()?;
        let (Some(input), Some(output)) = (tx.input.get(index), spent.get(index)) else {
            return whole.succeeds(index);
        };
        if tx.input.len() == 1 || !whole.is_slow(index) {
            return whole.succeeds(index);
        }
        match signature_operations(input, output, flags) {
            SignatureOperations::None => {
                let alone = Transaction { input: vec![input.clone()], output: Vec::new(), ..*tx };
                self.first_succeeds(&alone, core::slice::from_ref(output))
            }
            SignatureOperations::InTapscript
                if raw.len() >= LARGE && self.succeeds_without_the_rest(input, output)? =>
            {
                Ok(true)
            }
            _ => self.whole()?.succeeds(index),
        }
    }

    /// Whether an input succeeds beside another and an output that nobody can sign for.
    fn succeeds_without_the_rest(&mut self, input: &TxIn, output: &TxOut) -> Result<bool, VerifierError> {
        let (small, spent) = self.without_the_rest(input, output);
        self.first_succeeds(&small, &spent)
    }

    fn without_the_rest(&mut self, input: &TxIn, output: &TxOut) -> (Transaction, [TxOut; 2]) {
        let TxScripts { tx, raw, .. } = self.scripts;
        let hash = *self.hash.get_or_insert_with(|| sha256d::Hash::hash(raw).to_byte_array());
        let nobodys = TxOut { value: Amount::ZERO, script_pubkey: hash.to_vec().into() };
        let other =
            TxIn { previous_output: OutPoint::new(Txid::from_byte_array(hash), 0), ..TxIn::default() };
        let small = Transaction { input: vec![input.clone(), other], output: vec![nobodys.clone()], ..*tx };
        (small, [output.clone(), nobodys])
    }

    /// Whether the first input of another transaction succeeds.
    fn first_succeeds(&self, tx: &Transaction, spent: &[TxOut]) -> Result<bool, VerifierError> {
        let raw = serialize(tx);
        let scripts = TxScripts { tx, raw: &raw, spent, flags: self.scripts.flags };
        self.interpreter.inputs(scripts)?.succeeds(0)
    }
}

/// Where the operations and rules are that look at the whole transaction, of all that runs for an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SignatureOperations {
    None,
    /// In a script that a taproot output commits to, and nowhere else.
    InTapscript,
    /// Anywhere else, or a key in a witness program.
    Other,
}

/// Where it is not clear what runs, more is looked at.
fn signature_operations(input: &TxIn, output: &TxOut, flags: ScriptFlags) -> SignatureOperations {
    let lock = &output.script_pubkey;
    // A redeem script runs only behind pushes alone (BIP16).
    let redeem = lock.is_p2sh().then(|| last_push(&input.script_sig)).flatten();
    let program = witness_program(lock).or_else(|| redeem.and_then(witness_program));
    let witness = &input.witness;
    let revealed = match program.filter(|_| flags.contains(ScriptFlags::WITNESS)) {
        // A version 0 program of another length fails.
        Some((0, program)) if program.len() == 20 => return SignatureOperations::Other,
        Some((0, _)) => witness.last(),
        Some((1, program)) if program.len() == 32 => {
            match witness.len() - usize::from(witness.taproot_annex().is_some()) {
                // By key.
                1 => return SignatureOperations::Other,
                items => items.checked_sub(2).and_then(|script| witness.nth(script)),
            }
        }
        _ => None,
    };
    let open = [Some(input.script_sig.as_bytes()), Some(lock.as_bytes()), redeem.map(|s| s.as_bytes())];
    if open.into_iter().flatten().any(holds_a_signature_operation) {
        SignatureOperations::Other
    } else if !revealed.is_some_and(holds_a_signature_operation) {
        SignatureOperations::None
    } else if lock.is_p2tr() && flags.contains(ScriptFlags::TAPROOT) {
        SignatureOperations::InTapscript
    } else {
        SignatureOperations::Other
    }
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

#[cfg(all(test, feature = "consensus"))]
mod tests;
