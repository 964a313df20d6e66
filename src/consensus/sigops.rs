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
pub(crate) struct Operations<'a>(&'a [u8]);

impl<'a> Operations<'a> {
    /// Starts at the script's first byte.
    pub(crate) fn new(script: &'a [u8]) -> Self {
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
pub(crate) fn last_push(script_sig: &Script) -> Option<&Script> {
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
pub(crate) fn witness_program(script: &Script) -> Option<(u8, &[u8])> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::absolute::LockTime;
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, ScriptBuf, TxIn};
    use proptest::prelude::*;

    const ALL: ScriptFlags = ScriptFlags::P2SH.with(ScriptFlags::WITNESS);

    fn script(bytes: &[u8]) -> ScriptBuf {
        ScriptBuf::from_bytes(bytes.to_vec())
    }

    fn count(bytes: &[u8], accurate: bool) -> u64 {
        script_sigops(&script(bytes), accurate)
    }

    #[test]
    fn multisigs_count_twenty_unless_the_number_stands_right_before() {
        assert_eq!(count(&[0xac, 0xad], false), 2);
        assert_eq!(count(&[0x53, 0xae], false), 20);
        assert_eq!(count(&[0x53, 0xae], true), 3);
        assert_eq!(count(&[0x60, 0xaf], true), 16);
        assert_eq!(count(&[0x00, 0xae], true), 20);
        assert_eq!(count(&[0x4f, 0xae], true), 20);
        assert_eq!(count(&[0x01, 0x03, 0xae], true), 20);
        // Not remembered over another operation.
        assert_eq!(count(&[0x52, 0xac, 0xae], true), 21);
        assert_eq!(count(&[0x52, 0xae, 0xae], true), 22);
    }

    #[test]
    fn pushes_hide_operations_and_a_short_push_ends_the_count() {
        assert_eq!(count(&[0x02, 0xac, 0xac, 0xac], false), 1);
        assert_eq!(count(&[0xac, 0x05, 0xac, 0xac], false), 1);
        assert_eq!(count(&[0x4c, 0x01, 0xac, 0xac], false), 1);
        assert_eq!(count(&[0x4d, 0x01, 0x00, 0xac, 0xac], false), 1);
        assert_eq!(count(&[0x4e, 0x01, 0x00, 0x00, 0x00, 0xac, 0xac], false), 1);
        assert_eq!(count(&[0xac, 0x4e, 0xff, 0xff, 0xff, 0xff, 0xac], false), 1);
        assert_eq!(count(&[0xac, 0x4d, 0x01], false), 1);
        assert_eq!(count(&[], false), 0);
    }

    fn spend(script_sig: ScriptBuf, witness: &[&[u8]]) -> Transaction {
        let input = TxIn { script_sig, witness: Witness::from_slice(witness), ..TxIn::default() };
        Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![input],
            output: Vec::new(),
        }
    }

    fn output(script_pubkey: ScriptBuf) -> TxOut {
        TxOut { value: Amount::ZERO, script_pubkey }
    }

    #[test]
    fn each_kind_of_spend_costs_what_the_rules_say() {
        let multisig = script(&[0x52, 0xae]);
        let p2sh = output(multisig.to_p2sh());
        let mut push = vec![2];
        push.extend(multisig.as_bytes());
        let cost = |tx: &Transaction, output: &TxOut, flags| {
            spent_sigop_cost(tx, core::slice::from_ref(output), flags)
        };

        let tx = spend(script(&push), &[]);
        assert_eq!(cost(&tx, &p2sh, ALL), 8);
        assert_eq!(cost(&tx, &p2sh, ScriptFlags::P2SH), 8);
        assert_eq!(cost(&tx, &p2sh, ScriptFlags::NONE), 0);
        // Anything but pushes before the redeem script: nothing counts.
        let mut other = vec![0x61];
        other.extend(&push);
        assert_eq!(cost(&spend(script(&other), &[]), &p2sh, ALL), 0);
        // A number as the last push: the redeem script is empty.
        push.push(0x51);
        assert_eq!(cost(&spend(script(&push), &[]), &p2sh, ALL), 0);

        let tx = spend(ScriptBuf::new(), &[&[1], multisig.as_bytes()]);
        let p2wsh = multisig.to_p2wsh();
        assert_eq!(cost(&tx, &output(p2wsh.clone()), ALL), 2);
        assert_eq!(cost(&tx, &output(p2wsh.clone()), ScriptFlags::P2SH), 0);
        assert_eq!(cost(&spend(ScriptBuf::new(), &[]), &output(p2wsh.clone()), ALL), 0);
        let mut nested = vec![34];
        nested.extend(p2wsh.as_bytes());
        let tx = spend(script(&nested), &[multisig.as_bytes()]);
        assert_eq!(cost(&tx, &output(p2wsh.to_p2sh()), ALL), 2);

        let program = |version: u8, len: u8| {
            let mut bytes = vec![version, len];
            bytes.resize(2 + usize::from(len), 7);
            output(script(&bytes))
        };
        let tx = spend(ScriptBuf::new(), &[multisig.as_bytes()]);
        assert_eq!(cost(&tx, &program(0, 20), ALL), 1);
        assert_eq!(cost(&tx, &program(0, 32), ALL), 2);
        assert_eq!(cost(&tx, &program(0x51, 32), ALL), 0);
        assert_eq!(cost(&tx, &program(0, 21), ALL), 0);
        assert_eq!(cost(&tx, &program(0x50, 20), ALL), 0);
    }

    #[test]
    fn what_the_transaction_shows_costs_four_units_each() {
        let mut tx = spend(script(&[0xac]), &[]);
        tx.output = vec![output(script(&[0x51, 0xae])), output(script(&[0xad]))];
        assert_eq!(legacy_sigops(&tx), 22);
        assert_eq!(transaction_sigop_cost(&tx, &[], ALL), 88);
    }

    /// Scripts of pushes, numbers and signature operations where the number, if any, stands right before
    /// its multisig, as everywhere else rust-bitcoin and Core agree.
    fn any_script(pushes_alone: bool) -> impl Strategy<Value = Vec<u8>> {
        let push = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..75).prop_map(|data| {
                let mut bytes = vec![data.len() as u8];
                bytes.extend(data);
                bytes
            }),
            proptest::collection::vec(any::<u8>(), 0..200).prop_map(|data| {
                let mut bytes = vec![0x4c, data.len() as u8];
                bytes.extend(data);
                bytes
            }),
        ];
        let operation = prop_oneof![
            Just(vec![0xac]),
            Just(vec![0xad]),
            (0x51u8..=0x60, 0xaeu8..=0xaf).prop_map(|(n, op)| vec![n, op, 0x75]),
            Just(vec![0x75, 0xae, 0x75]),
            (0x61u8..0xac).prop_map(|op| vec![op]),
        ];
        let piece = if pushes_alone { push.boxed() } else { prop_oneof![push, operation].boxed() };
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn scripts_count_as_in_rust_bitcoin(bytes in any_script(false), cut in any::<proptest::sample::Index>()) {
            // A cut may leave a multisig whose number rust-bitcoin remembers wrongly, so cut only legacy.
            let whole = script(&bytes);
            prop_assert_eq!(script_sigops(&whole, true), whole.count_sigops() as u64);
            let part = script(&bytes[..cut.index(bytes.len() + 1)]);
            prop_assert_eq!(script_sigops(&part, false), part.count_sigops_legacy() as u64);
        }

        #[test]
        fn costs_are_those_of_rust_bitcoin(
            sigs in proptest::collection::vec(any_script(true), 1..4),
            inner in any_script(false),
            kinds in proptest::collection::vec(0u8..6, 4),
            outputs in proptest::collection::vec(any_script(false), 0..3),
        ) {
            let inner = script(&inner);
            let mut tx = spend(ScriptBuf::new(), &[]);
            tx.input.clear();
            let mut spent = Vec::new();
            for (i, (sig, kind)) in sigs.into_iter().zip(kinds).enumerate() {
                let mut script_sig = sig;
                let mut witness: Vec<&[u8]> = Vec::new();
                let redeem = match kind {
                    0 | 1 => inner.clone(),
                    2 => inner.to_p2wsh(),
                    _ => script(&[&[0, 20], &[i as u8; 20][..]].concat()),
                };
                let script_pubkey = match kind {
                    0 => inner.clone(),
                    5 => inner.to_p2wsh(),
                    _ => redeem.to_p2sh(),
                };
                if kind == 2 || kind == 5 {
                    witness.push(inner.as_bytes());
                }
                if (1..5).contains(&kind) {
                    script_sig.extend([0x4d]);
                    script_sig.extend((redeem.len() as u16).to_le_bytes());
                    script_sig.extend(redeem.as_bytes());
                }
                let mut input = spend(script(&script_sig), &witness).input.remove(0);
                input.previous_output.vout = i as u32;
                tx.input.push(input);
                spent.push(output(script_pubkey));
            }
            tx.output = outputs.into_iter().map(|bytes| output(script(&bytes))).collect();
            let theirs = tx.total_sigop_cost(|outpoint| spent.get(outpoint.vout as usize).cloned());
            prop_assert_eq!(transaction_sigop_cost(&tx, &spent, ALL), theirs as u64);
        }
    }
}
