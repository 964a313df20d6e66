//! Spends of the standard output types and of scripts made by hand, each valid as it is and with one thing
//! changed.
//!
//! The input that is looked at stands between two that anyone may spend with nothing, so that exactly one can
//! fail.

use super::{Case, Expected};
use crate::chain::deployments::ScriptFlags;
use crate::rng::Rng;
use crate::sim::wallet::{ForgedCoin, OutputKind, Wallet};
use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::opcodes::OP_TRUE;
use bitcoin::opcodes::all as op;
use bitcoin::script::{Builder, Instruction, PushBytesBuf};
use bitcoin::taproot::{LeafVersion, TaprootBuilder};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use bitcoin::{XOnlyPublicKey, key::Secp256k1};

const ALL: ScriptFlags = ScriptFlags::ALL;
/// The input that is looked at.
pub(super) const AT: usize = 1;
/// Key sets of the wallet.
const KEYS: usize = 3;
/// Satoshis of each spent output.
pub(super) const VALUE: u64 = 100_000;

/// The flags without some; what needs those goes too.
pub(super) const fn without(flags: ScriptFlags, flag: ScriptFlags) -> ScriptFlags {
    let mut left = flags.0 & !flag.0;
    if flag.contains(ScriptFlags::P2SH) {
        left &= !(ScriptFlags::WITNESS.0 | ScriptFlags::TAPROOT.0);
    }
    if flag.contains(ScriptFlags::WITNESS) {
        left &= !ScriptFlags::TAPROOT.0;
    }
    ScriptFlags(left)
}

/// A transaction of version 2 with three inputs, the outer two without a lock, and three outputs.
pub(super) fn unsigned(rng: &mut Rng) -> Transaction {
    let input = |rng: &mut Rng| TxIn {
        previous_output: OutPoint { txid: Txid::from_byte_array(rng.array()), vout: rng.below(9) as u32 },
        script_sig: ScriptBuf::new(),
        // Not final, so that the lock time counts.
        sequence: Sequence::ENABLE_LOCKTIME_NO_RBF,
        witness: Witness::new(),
    };
    let output = |script: ScriptBuf| TxOut { value: Amount::from_sat(VALUE / 2), script_pubkey: script };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: (0..3).map(|_| input(rng)).collect(),
        output: (0..3).map(|n| output(ScriptBuf::from_bytes(vec![op::OP_RETURN.to_u8(), n]))).collect(),
    }
}

/// What such a transaction spends.
pub(super) fn spent(script: ScriptBuf) -> Vec<TxOut> {
    let anyone = anyone();
    [anyone.clone(), script, anyone]
        .map(|script_pubkey| TxOut { value: Amount::from_sat(VALUE), script_pubkey })
        .into()
}

/// An output that anyone may spend with nothing (pay to anchor).
fn anyone() -> ScriptBuf {
    Builder::new().push_opcode(op::OP_PUSHNUM_1).push_slice([0x4e, 0x73]).into_script()
}

/// What a signature of an output kind covers besides the transaction, and where it is.
struct Form {
    /// The amount is signed (BIP143).
    amount: bool,
    /// All spent outputs are signed (BIP341).
    all_spent: bool,
    /// It is a witness program by itself.
    native: bool,
    /// The flag without which its signature means nothing.
    flag: ScriptFlags,
}

fn form(kind: OutputKind) -> Form {
    let (amount, all_spent, native, flag) = match kind {
        OutputKind::P2trKey | OutputKind::P2trScript | OutputKind::Anchor => {
            (true, true, true, ScriptFlags::TAPROOT)
        }
        OutputKind::P2wpkh | OutputKind::P2wsh => (true, false, true, ScriptFlags::WITNESS),
        OutputKind::P2shP2wpkh | OutputKind::P2shP2wsh => (true, false, false, ScriptFlags::WITNESS),
        OutputKind::P2shMultisig => (false, false, false, ScriptFlags::P2SH),
        _ => (false, false, false, ScriptFlags::NONE),
    };
    Form { amount, all_spent, native, flag }
}

/// Every kind of the wallet with every change.
pub(super) fn of_output_types(seed: u64) -> Vec<Case> {
    let mut rng = Rng::from_number(seed);
    let wallet = Wallet::new(&mut rng, KEYS);
    let mut cases = Vec::new();
    for kind in OutputKind::ALL {
        for key in 0..KEYS {
            let mut tx = unsigned(&mut rng);
            let spent = spent(wallet.lock(kind, key));
            let coin = |n: usize, kind| ForgedCoin {
                outpoint: tx.input[n].previous_output,
                output: spent[n].clone(),
                kind,
                key,
                mature_at: 0,
            };
            let coins = [coin(0, OutputKind::Anchor), coin(AT, kind), coin(2, OutputKind::Anchor)];
            wallet.sign(&mut tx, &coins);
            let name = format!("{kind:?} of key {key}");
            let signed = Case { name, tx, spent, flags: ALL, expected: Expected::Valid };
            if kind == OutputKind::Anchor {
                cases.extend(of_anchor(&signed));
            } else {
                let other = wallet.lock(kind, (key + 1) % KEYS);
                cases.extend(of_transaction(&signed, &form(kind), other));
                cases.extend(of_unlocking(&signed, kind));
            }
            cases.push(signed);
        }
    }
    cases
}

/// The case with one change that makes it invalid, or leaves it valid.
pub(super) fn changed(case: &Case, what: &str, valid: bool, change: impl FnOnce(&mut Case)) -> Case {
    let mut case = case.clone();
    case.name = format!("{}, {what}", case.name);
    change(&mut case);
    case.expected = if valid { Expected::Valid } else { Expected::InvalidAt(AT) };
    case
}

fn of_anchor(signed: &Case) -> Vec<Case> {
    vec![
        changed(signed, "with any witness", true, |case| {
            case.tx.input[AT].witness = Witness::from_slice(&[[1u8, 2, 3]]);
        }),
        changed(signed, "with a script", false, |case| {
            case.tx.input[AT].script_sig = Builder::new().push_int(1).into_script();
        }),
    ]
}

/// Changes of what is signed.
fn of_transaction(signed: &Case, form: &Form, other: ScriptBuf) -> Vec<Case> {
    let one = Amount::from_sat(1);
    let mut cases = vec![
        changed(signed, "another output", false, |case| case.tx.output[0].value += one),
        changed(signed, "an output more", false, |case| case.tx.output.push(case.tx.output[0].clone())),
        changed(signed, "another lock time", false, |case| case.tx.lock_time = LockTime::from_consensus(1)),
        changed(signed, "another version", false, |case| case.tx.version = Version::ONE),
        changed(signed, "another sequence number", false, |case| {
            case.tx.input[AT].sequence = Sequence::MAX;
        }),
        changed(signed, "another sequence number of the input before", false, |case| {
            case.tx.input[0].sequence = Sequence::MAX;
        }),
        changed(signed, "another outpoint", false, |case| case.tx.input[AT].previous_output.vout ^= 1),
        changed(signed, "another outpoint of the input behind", false, |case| {
            case.tx.input[2].previous_output.vout ^= 1;
        }),
        changed(signed, "another amount spent", !form.amount, |case| case.spent[AT].value += one),
        changed(signed, "another amount spent before", !form.all_spent, |case| case.spent[0].value += one),
        changed(signed, "another script spent behind", !form.all_spent, |case| {
            case.spent[2].script_pubkey = Builder::new().push_opcode(OP_TRUE).into_script();
        }),
        changed(signed, "locked by another key", false, |case| case.spent[AT].script_pubkey = other),
    ];
    // Without its flag even a spend of something else is good, if only the hash fits.
    if form.flag != ScriptFlags::NONE {
        cases.push(changed(signed, "another output, without its flag", true, |case| {
            case.tx.output[0].value += one;
            case.flags = without(case.flags, form.flag);
        }));
    }
    cases
}

/// Changes of what unlocks.
fn of_unlocking(signed: &Case, kind: OutputKind) -> Vec<Case> {
    let form = form(kind);
    let mut cases = vec![
        changed(signed, "with nothing", false, |case| {
            case.tx.input[AT].script_sig = ScriptBuf::new();
            case.tx.input[AT].witness = Witness::new();
        }),
        changed(signed, "a bit of the signature", false, |case| edit_signature(case, |sig| sig[50] ^= 4)),
        changed(signed, "another hash type", false, |case| {
            edit_signature(case, |sig| match sig.len() {
                64 => sig.push(2),
                length => sig[length - 1] = 2,
            });
        }),
        changed(signed, "the script of no push", false, |case| {
            let script = [&[op::OP_RETURN.to_u8()], case.tx.input[AT].script_sig.as_bytes()].concat();
            case.tx.input[AT].script_sig = ScriptBuf::from_bytes(script);
        }),
    ];
    if form.native {
        cases.push(changed(signed, "a script beside the witness", false, |case| {
            case.tx.input[AT].script_sig = Builder::new().push_int(1).into_script();
        }));
    }
    if form.flag.contains(ScriptFlags::WITNESS) && !form.native {
        cases.push(changed(signed, "a push more beside the witness", false, |case| {
            let script = [&[op::OP_PUSHNUM_1.to_u8()], case.tx.input[AT].script_sig.as_bytes()].concat();
            case.tx.input[AT].script_sig = ScriptBuf::from_bytes(script);
        }));
    }
    if signed.tx.input[AT].witness.is_empty() {
        let witness = |case: &mut Case| case.tx.input[AT].witness = Witness::from_slice(&[[1u8]]);
        cases.push(changed(signed, "a witness that nobody asked for", false, witness));
        cases.push(changed(signed, "such a witness without the flag", true, |case| {
            witness(case);
            case.flags = without(case.flags, ScriptFlags::WITNESS);
        }));
    } else {
        cases.push(changed(signed, "an item more on the witness", false, |case| {
            let items = case.tx.input[AT].witness.to_vec();
            case.tx.input[AT].witness = Witness::from_slice(&[&[vec![1]], &items[..]].concat());
        }));
        cases.push(changed(signed, "an item less on the witness", false, |case| {
            let items = case.tx.input[AT].witness.to_vec();
            case.tx.input[AT].witness = Witness::from_slice(&items[1..]);
        }));
    }
    if form.all_spent {
        cases.extend(of_taproot(signed, kind));
    } else {
        cases.extend(of_encoding(signed, kind));
    }
    cases
}

/// Rules about how ECDSA signatures and multisig's dummy are written.
fn of_encoding(signed: &Case, kind: OutputKind) -> Vec<Case> {
    let padded = |case: &mut Case| edit_signature(case, pad);
    let dummy = |case: &mut Case| {
        let input = &mut case.tx.input[AT];
        if input.witness.is_empty() {
            let mut script = input.script_sig.to_bytes();
            script[0] = op::OP_PUSHNUM_1.to_u8();
            input.script_sig = ScriptBuf::from_bytes(script);
        } else {
            let mut items = input.witness.to_vec();
            items[0] = vec![1];
            input.witness = Witness::from_slice(&items);
        }
    };
    let mut cases = vec![
        changed(signed, "a padded signature", false, padded),
        changed(signed, "a padded signature without the flag", true, |case| {
            padded(case);
            case.flags = without(case.flags, ScriptFlags::DERSIG);
        }),
    ];
    let multisig =
        [OutputKind::BareMultisig, OutputKind::P2shMultisig, OutputKind::P2wsh, OutputKind::P2shP2wsh];
    if multisig.contains(&kind) {
        cases.push(changed(signed, "a dummy that is not empty", false, dummy));
        cases.push(changed(signed, "such a dummy without the flag", true, |case| {
            dummy(case);
            case.flags = without(case.flags, ScriptFlags::NULLDUMMY);
        }));
    }
    cases
}

/// Rules of BIPs 341 and 342.
fn of_taproot(signed: &Case, kind: OutputKind) -> Vec<Case> {
    let mut cases = vec![
        changed(signed, "the default hash type written out", false, |case| {
            edit_signature(case, |sig| sig.push(0));
        }),
        changed(signed, "an annex that was not signed", false, |case| {
            case.tx.input[AT].witness.push([0x50, 1, 2]);
        }),
    ];
    if kind == OutputKind::P2trScript {
        for (what, item, byte) in
            [("another leaf", 1, 5), ("another internal key", 2, 7), ("another parity", 2, 0)]
        {
            cases.push(changed(signed, what, false, |case| {
                let mut items = case.tx.input[AT].witness.to_vec();
                items[item][byte] ^= 1;
                case.tx.input[AT].witness = Witness::from_slice(&items);
            }));
        }
    }
    cases
}

/// Writes the number R of a signature (DER) with a zero too many in front.
fn pad(sig: &mut Vec<u8>) {
    sig[1] += 1;
    sig[3] += 1;
    sig.insert(4, 0);
}

/// Changes the first signature of the input, which is the first item of its length.
fn edit_signature(case: &mut Case, edit: impl FnOnce(&mut Vec<u8>)) {
    let input = &mut case.tx.input[AT];
    let is_signature = |item: &[u8]| (64..=73).contains(&item.len());
    let mut items = input.witness.to_vec();
    if let Some(item) = items.iter_mut().find(|item| is_signature(item)) {
        edit(item);
        input.witness = Witness::from_slice(&items);
        return;
    }
    let mut edit = Some(edit);
    let mut script = Builder::new();
    for instruction in input.script_sig.instructions().flatten() {
        script = match instruction {
            Instruction::Op(opcode) => script.push_opcode(opcode),
            Instruction::PushBytes(bytes) => {
                let mut bytes = bytes.as_bytes().to_vec();
                if let Some(edit) = edit.take_if(|_| is_signature(&bytes)) {
                    edit(&mut bytes);
                }
                script.push_slice(PushBytesBuf::try_from(bytes).unwrap_or_default())
            }
        };
    }
    input.script_sig = script.into_script();
}

/// A spend of `script` with these, by a transaction whose signatures nobody looks at.
fn spend(name: &str, script: ScriptBuf, script_sig: ScriptBuf, witness: &[&[u8]]) -> Case {
    let mut tx = unsigned(&mut Rng::from_number(0));
    tx.input[AT].script_sig = script_sig;
    tx.input[AT].witness = Witness::from_slice(witness);
    let spent = spent(script);
    Case { name: name.to_owned(), tx, spent, flags: ALL, expected: Expected::Valid }
}

/// Scripts without signatures.
pub(super) fn by_hand() -> Vec<Case> {
    let mut cases = plain();
    cases.extend(of_p2sh());
    cases.extend(of_times());
    cases.extend(of_programs());
    cases
}

fn plain() -> Vec<Case> {
    let none = ScriptBuf::new;
    let bytes = |bytes: &[u8]| ScriptBuf::from_bytes(bytes.to_vec());
    let sized = |size: usize| {
        // Pushes that are dropped again, and a true value at the end.
        let mut script =
            [vec![0x4d, 0x08, 0x02], vec![0; 520], vec![op::OP_DROP.to_u8()]].concat().repeat(19);
        let rest = size - script.len() - 1;
        script.extend([vec![op::OP_NOP.to_u8(); rest.min(190)], vec![0x51]].concat());
        script
    };
    let pushed = |size: u16| [&[0x4d][..], &size.to_le_bytes(), &vec![1; size.into()]].concat();
    let (true_script, false_script) = (bytes(&[0x51]), bytes(&[0x00]));
    [
        ("true", true_script.clone(), none(), true),
        ("false", false_script, none(), false),
        ("nothing", none(), none(), false),
        ("nothing, with true", none(), true_script, true),
        ("negative zero", bytes(&[1, 0x80]), none(), false),
        ("OP_RETURN", bytes(&[0x6a]), bytes(&[0x51]), false),
        ("a disabled opcode that is not executed", bytes(&[0x00, 0x63, 0x7e, 0x68, 0x51]), none(), false),
        ("an unknown opcode that is not executed", bytes(&[0x00, 0x63, 0xba, 0x68, 0x51]), none(), true),
        ("an unbalanced condition", bytes(&[0x51, 0x63]), none(), false),
        ("a push of 520 bytes", bytes(&pushed(520)), none(), true),
        ("a push of 521 bytes", bytes(&pushed(521)), none(), false),
        ("201 opcodes", bytes(&[vec![0x61; 201], vec![0x51]].concat()), none(), true),
        ("202 opcodes", bytes(&[vec![0x61; 202], vec![0x51]].concat()), none(), false),
        ("10,000 bytes", bytes(&sized(10_000)), none(), true),
        ("10,001 bytes", bytes(&[&[0x61][..], &sized(10_000)].concat()), none(), false),
        ("two values left", bytes(&[0x00, 0x51]), none(), true),
    ]
    .into_iter()
    .map(|(name, script, script_sig, valid)| {
        changed(&spend(name, script, script_sig, &[]), "plain", valid, |_| {})
    })
    .collect()
}

fn of_p2sh() -> Vec<Case> {
    let push = |script: &ScriptBuf| {
        Builder::new().push_slice(PushBytesBuf::try_from(script.to_bytes()).unwrap_or_default())
    };
    let mut cases = Vec::new();
    let (yes, no) = (ScriptBuf::from_bytes(vec![0x51]), ScriptBuf::from_bytes(vec![0x00]));
    cases.push(spend("P2SH of true", yes.to_p2sh(), push(&yes).into_script(), &[]));
    let refused = spend("P2SH of false", no.to_p2sh(), push(&no).into_script(), &[]);
    cases.push(changed(&refused, "as it is", false, |_| {}));
    let off = |case: &mut Case| case.flags = without(ALL, ScriptFlags::P2SH);
    cases.push(changed(&refused, "without the flag", true, off));
    let script_sig = Builder::new().push_opcode(op::OP_NOP).into_bytes();
    let script_sig = ScriptBuf::from_bytes([script_sig, push(&yes).into_bytes()].concat());
    let unpushed = spend("P2SH with more than pushes", yes.to_p2sh(), script_sig, &[]);
    cases.push(changed(&unpushed, "as it is", false, |_| {}));
    cases.push(changed(&unpushed, "without the flag", true, off));
    cases
}

fn of_times() -> Vec<Case> {
    let lock = |n: i64, opcode| {
        Builder::new()
            .push_int(n)
            .push_opcode(opcode)
            .push_opcode(op::OP_DROP)
            .push_opcode(OP_TRUE)
            .into_script()
    };
    let mut absolute = spend("a lock until 100", lock(100, op::OP_CLTV), ScriptBuf::new(), &[]);
    absolute.tx.lock_time = LockTime::from_consensus(100);
    let mut relative = spend("a lock of 10 blocks", lock(10, op::OP_CSV), ScriptBuf::new(), &[]);
    relative.tx.input[AT].sequence = Sequence::from_consensus(10);
    let early = |case: &mut Case| case.tx.lock_time = LockTime::from_consensus(99);
    let young = |case: &mut Case| case.tx.input[AT].sequence = Sequence::from_consensus(9);
    vec![
        changed(&absolute, "at 99", false, early),
        changed(&absolute, "at 99 without the flag", true, |case| {
            early(case);
            case.flags = without(case.flags, ScriptFlags::CHECKLOCKTIMEVERIFY);
        }),
        changed(&absolute, "at 101", true, |case| case.tx.lock_time = LockTime::from_consensus(101)),
        changed(&absolute, "at a time instead of a height", false, |case| {
            case.tx.lock_time = LockTime::from_consensus(1_600_000_000);
        }),
        changed(&absolute, "final", false, |case| case.tx.input[AT].sequence = Sequence::MAX),
        changed(&relative, "after 9", false, young),
        changed(&relative, "after 9 without the flag", true, |case| {
            young(case);
            case.flags = without(case.flags, ScriptFlags::CHECKSEQUENCEVERIFY);
        }),
        changed(&relative, "in a transaction of version 1", false, |case| case.tx.version = Version::ONE),
        changed(&relative, "after a time instead of blocks", false, |case| {
            case.tx.input[AT].sequence = Sequence::from_consensus(10 | 1 << 22);
        }),
        absolute,
        relative,
    ]
}

/// Witness programs that no rule knows, and taproot's trees.
fn of_programs() -> Vec<Case> {
    let mut cases = Vec::new();
    for version in 2..=16u8 {
        let script = ScriptBuf::from_bytes([&[0x50 + version, 32][..], &[7; 32]].concat());
        cases.push(spend(
            &format!("witness version {version}"),
            script,
            ScriptBuf::new(),
            &[&[9], &[0; 600]],
        ));
    }
    // Version 0 has two lengths.
    let odd = ScriptBuf::from_bytes([&[0, 21][..], &[7; 21]].concat());
    cases.push(changed(
        &spend("a program of version 0", odd, ScriptBuf::new(), &[]),
        "21 bytes",
        false,
        |_| {},
    ));
    let leaf = |bytes: &[u8]| ScriptBuf::from_bytes(bytes.to_vec());
    for (name, script, version, valid) in [
        ("a leaf that is true", leaf(&[0x51]), 0xc0, true),
        ("a leaf that is false", leaf(&[0x00]), 0xc0, false),
        ("a leaf that leaves two values", leaf(&[0x51, 0x51]), 0xc0, false),
        ("a leaf with OP_SUCCESS", leaf(&[0x00, 0x50]), 0xc0, true),
        ("a leaf of a version to come", leaf(&[0x00]), 0xc2, true),
        ("a leaf of 300 opcodes", leaf(&[vec![0x61; 300], vec![0x51]].concat()), 0xc0, true),
        ("a leaf with OP_CHECKMULTISIG", leaf(&[0x00, 0x00, 0x00, 0xae]), 0xc0, false),
    ] {
        if let Some((output, control)) = tree_of(&script, version) {
            let case = spend(name, output, ScriptBuf::new(), &[script.as_bytes(), &control]);
            cases.push(changed(&case, "as it is", valid, |_| {}));
            cases.push(changed(&case, "without the flag", true, |case| {
                case.flags = without(case.flags, ScriptFlags::TAPROOT);
            }));
        }
    }
    cases
}

/// A taproot output with one leaf, and the leaf's control block.
pub(super) fn tree_of(leaf: &ScriptBuf, version: u8) -> Option<(ScriptBuf, Vec<u8>)> {
    let secp = Secp256k1::verification_only();
    let version = LeafVersion::from_consensus(version).ok()?;
    let builder = TaprootBuilder::new().add_leaf_with_ver(0, leaf.clone(), version).ok()?;
    let info = builder.finalize(&secp, generator()?).ok()?;
    let control = info.control_block(&(leaf.clone(), version))?;
    Some((ScriptBuf::new_p2tr_tweaked(info.output_key()), control.serialize()))
}

/// The x coordinate of the curve's generator: the key whose secret is one.
fn generator() -> Option<XOnlyPublicKey> {
    "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798".parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_kind_is_there() {
        let cases = [of_output_types(1), by_hand()].concat();
        let mut names: Vec<&str> = cases.iter().map(|case| &case.name[..]).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
        for kind in OutputKind::ALL {
            assert!(names.iter().any(|name| name.starts_with(&format!("{kind:?} of"))));
        }
    }
}
