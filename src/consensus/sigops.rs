//! Counting signature operations, of which a block may hold 80,000 units (a quarter of that many outside
//! witnesses). Core: `CScript::GetSigOpCount`, `GetTransactionSigOpCost`, `CountWitnessSigOps`.
//!
//! rust-bitcoin's `total_sigop_cost` is not used: it counts a redeem script that follows a non-push, and it
//! remembers a number over operations that come between it and `OP_CHECKMULTISIG`; Core does neither.

use crate::chain::deployments::ScriptFlags;
use bitcoin::opcodes::all as op;
use bitcoin::{Script, Transaction, TxOut, Witness};

/// Units that one operation outside a witness costs (BIP141).
pub const WITNESS_SCALE_FACTOR: u64 = 4;
/// Units a block may hold (BIP141).
pub const MAX_BLOCK_SIGOPS_COST: u64 = 80_000;
/// What a multisig counts whose number of keys is not known.
const MAX_PUBKEYS_PER_MULTISIG: u64 = 20;

const OP_1: u8 = op::OP_PUSHNUM_1.to_u8();
const OP_16: u8 = op::OP_PUSHNUM_16.to_u8();
const OP_CHECKSIG: u8 = op::OP_CHECKSIG.to_u8();
const OP_CHECKSIGVERIFY: u8 = op::OP_CHECKSIGVERIFY.to_u8();
const OP_CHECKMULTISIG: u8 = op::OP_CHECKMULTISIG.to_u8();
const OP_CHECKMULTISIGVERIFY: u8 = op::OP_CHECKMULTISIGVERIFY.to_u8();

/// The operations of a script with what they push, up to its end or to a push that is cut short (`None`).
pub(super) struct Operations<'a>(&'a [u8]);

impl<'a> Operations<'a> {
    /// Starts at the script's first byte.
    pub(super) fn new(script: &'a [u8]) -> Self {
        Self(script)
    }
}

impl<'a> Iterator for Operations<'a> {
    type Item = Option<(u8, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&opcode, rest) = self.0.split_first()?;
        let width = match opcode {
            0x4c => 1,
            0x4d => 2,
            0x4e => 4,
            _ => 0,
        };
        let operation = rest.split_at_checked(width).and_then(|(length, rest)| {
            let mut le = [0; 4];
            le[..width].copy_from_slice(length);
            let length = match opcode {
                0..0x4c => u32::from(opcode),
                _ => u32::from_le_bytes(le),
            };
            rest.split_at_checked(usize::try_from(length).ok()?)
        });
        self.0 = operation.map_or(&[], |(_, rest)| rest);
        Some(operation.map(|(data, _)| (opcode, data)))
    }
}

/// Operations of one script. `accurate`: a multisig right after the number of its keys counts that number,
/// not 20. A push that is cut short ends the count.
pub fn script_sigops(script: &Script, accurate: bool) -> u64 {
    let mut count = 0;
    let mut last = 0xff;
    for operation in Operations::new(script.as_bytes()) {
        let Some((opcode, _)) = operation else { break };
        count += match opcode {
            OP_CHECKSIG | OP_CHECKSIGVERIFY => 1,
            OP_CHECKMULTISIG | OP_CHECKMULTISIGVERIFY if accurate && (OP_1..=OP_16).contains(&last) => {
                u64::from(last - OP_1 + 1)
            }
            OP_CHECKMULTISIG | OP_CHECKMULTISIGVERIFY => MAX_PUBKEYS_PER_MULTISIG,
            _ => 0,
        };
        last = opcode;
    }
    count
}

/// Operations in the scripts that the transaction itself shows (`GetLegacySigOpCount`), not in units.
pub fn legacy_sigops(tx: &Transaction) -> u64 {
    let inputs = tx.input.iter().map(|input| script_sigops(&input.script_sig, false));
    let outputs = tx.output.iter().map(|output| script_sigops(&output.script_pubkey, false));
    inputs.sum::<u64>() + outputs.sum::<u64>()
}

/// The last push of a script of pushes alone (an empty string if that is an opcode for a number); `None`
/// if it holds anything else.
fn last_push(script_sig: &Script) -> Option<&Script> {
    let mut last: &[u8] = &[];
    for operation in Operations::new(script_sig.as_bytes()) {
        let (opcode, data) = operation?;
        if opcode > OP_16 {
            return None;
        }
        last = data;
    }
    Some(Script::from_bytes(last))
}

/// Version and program, if the script is a witness program (BIP141).
fn witness_program(script: &Script) -> Option<(u8, &[u8])> {
    let (&[version, length], program) = script.as_bytes().split_first_chunk()?;
    let version = match version {
        0 => 0,
        OP_1..=OP_16 => version - OP_1 + 1,
        _ => return None,
    };
    let fits = (2..=40).contains(&program.len()) && program.len() == usize::from(length);
    fits.then_some((version, program))
}

/// Units that a witness costs. Only version 0 has any here; taproot limits its own.
fn witness_sigops(program: (u8, &[u8]), witness: &Witness) -> u64 {
    match program {
        (0, program) if program.len() == 20 => 1,
        (0, program) if program.len() == 32 => {
            witness.last().map_or(0, |script| script_sigops(Script::from_bytes(script), true))
        }
        _ => 0,
    }
}

/// Units beyond [`legacy_sigops`]: redeem scripts (BIP16) and witnesses (BIP141), as far as `flags` hold
/// those rules. `spent` are the outputs that the inputs spend, in order; nothing counts for a coinbase,
/// which spends none.
pub fn spent_sigop_cost(tx: &Transaction, spent: &[TxOut], flags: ScriptFlags) -> u64 {
    let outputs = spent.iter().map(|output| output.script_pubkey.as_script());
    spent_sigop_cost_of(tx, outputs, flags)
}

/// [`spent_sigop_cost`] over the scripts alone.
pub(super) fn spent_sigop_cost_of<'a>(
    tx: &Transaction,
    spent: impl Iterator<Item = &'a Script>,
    flags: ScriptFlags,
) -> u64 {
    let mut cost = 0;
    for (input, script) in tx.input.iter().zip(spent) {
        let redeem = if script.is_p2sh() { last_push(&input.script_sig) } else { None };
        if let Some(redeem) = redeem
            && flags.contains(ScriptFlags::P2SH)
        {
            cost += WITNESS_SCALE_FACTOR * script_sigops(redeem, true);
        }
        if flags.contains(ScriptFlags::WITNESS) {
            let program = witness_program(script).or_else(|| redeem.and_then(witness_program));
            cost += program.map_or(0, |program| witness_sigops(program, &input.witness));
        }
    }
    cost
}

/// Core's `GetTransactionSigOpCost`: all units of a transaction.
pub fn transaction_sigop_cost(tx: &Transaction, spent: &[TxOut], flags: ScriptFlags) -> u64 {
    WITNESS_SCALE_FACTOR * legacy_sigops(tx) + spent_sigop_cost(tx, spent, flags)
}
