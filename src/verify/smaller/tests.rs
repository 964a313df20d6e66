//! The smaller transactions beside the whole one.

use super::*;
use crate::rng::Rng;
use crate::sim::wallet::{ForgedCoin, OutputKind, Signs, Wallet};
use crate::verify::interpreter::{Interpreter, Whole};
use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::sighash::TapSighashType;
use bitcoin::taproot::TAPROOT_ANNEX_PREFIX;
use bitcoin::taproot::{LeafVersion, TaprootBuilder};
use bitcoin::transaction::Version;
use bitcoin::{ScriptBuf, Sequence, Witness, WitnessProgram};

fn push(bytes: &[u8]) -> Vec<u8> {
    [&[0x4c, bytes.len() as u8][..], bytes].concat()
}

/// Random operations, lock times and signature operations more often than others.
fn operations(rng: &mut Rng) -> Vec<u8> {
    let mut script = Vec::new();
    for _ in 0..1 + rng.below(8) {
        match rng.below(10) {
            0 => script.push(rng.below(256) as u8),
            1 => script.extend(push(&rng.array::<40>()[..rng.below(41) as usize])),
            2 | 3 => script.push(0x51 + rng.below(3) as u8),
            4 => script.extend([0x63, 0xac, 0x67, 0x51, 0x68]),
            // Not taken.
            5 => script.extend([0x00, 0x63, [0xac, 0xae, 0xba][rng.below(3) as usize], 0x68]),
            // A lock time or an age, and its check.
            6 => script.extend([0x51 + rng.below(4) as u8, 0xb1 + rng.below(2) as u8, 0x75]),
            // An empty or a meaningless signature fails.
            7 => script.extend([&[0x00][..], &push(&[2; 33]), &[0xac, 0x91]].concat()),
            8 => script.push(0x61 + rng.below(0x5a) as u8),
            _ => script.push([0x74, 0x76, 0x75, 0x61][rng.below(4) as usize]),
        }
    }
    if rng.below(4) > 0 {
        script.push(0x51);
    }
    script
}

/// A lock around random operations, and what unlocks it.
fn random(rng: &mut Rng) -> (Vec<u8>, Vec<u8>, Vec<Vec<u8>>) {
    let inner = ScriptBuf::from(operations(rng));
    let items: Vec<Vec<u8>> =
        (0..rng.below(3)).map(|_| rng.array::<4>()[..rng.below(5) as usize].to_vec()).collect();
    let pushed: Vec<u8> = items.iter().flat_map(|item| push(item)).collect();
    let witness = [items, vec![inner.to_bytes()]].concat();
    match rng.below(7) {
        0 => (inner.into_bytes(), pushed, Vec::new()),
        1 => (inner.to_p2sh().into_bytes(), [pushed, push(inner.as_bytes())].concat(), Vec::new()),
        2 => (inner.to_p2wsh().into_bytes(), Vec::new(), witness),
        3 => (
            inner.to_p2wsh().to_p2sh().into_bytes(),
            [&[34][..], inner.to_p2wsh().as_bytes()].concat(),
            witness,
        ),
        4 => {
            let program = WitnessProgram::new(bitcoin::WitnessVersion::V2, &rng.array::<32>()).unwrap();
            (ScriptBuf::new_witness_program(&program).into_bytes(), Vec::new(), witness)
        }
        // A scriptSig that does more than push.
        5 => (inner.to_bytes(), operations(rng), Vec::new()),
        _ => {
            let secp = Secp256k1::new();
            let key = bitcoin::secp256k1::SecretKey::from_slice(&[5; 32]).unwrap().x_only_public_key(&secp).0;
            let tree =
                TaprootBuilder::new().add_leaf(0, inner.clone()).unwrap().finalize(&secp, key).unwrap();
            let control = tree.control_block(&(inner, LeafVersion::TapScript)).unwrap().serialize();
            let mut witness = [witness, vec![control]].concat();
            if rng.below(2) == 0 {
                witness.push([&[TAPROOT_ANNEX_PREFIX][..], &rng.array::<3>()].concat());
            }
            (ScriptBuf::new_p2tr_tweaked(tree.output_key()).into_bytes(), Vec::new(), witness)
        }
    }
}

/// Random scripts beside signed inputs of every kind, flags of every time: each input has the verdict that it has in
/// the whole transaction.
#[test]
fn every_input_has_the_verdict_of_the_whole_transaction() {
    // By the place of signature operations, valid and not.
    let mut seen = [[0; 2]; 3];
    let mut tried = 0;
    for seed in 0..6_000 {
        let mut rng = Rng::from_number(seed);
        let wallet = Wallet::new(&mut rng, 2);
        let coins: Vec<ForgedCoin> = (0..2 + rng.below(3) as usize)
            .map(|n| {
                let kind = OutputKind::ALL[rng.below(OutputKind::ALL.len() as u64) as usize];
                let output = TxOut { value: Amount::from_sat(1_000), script_pubkey: wallet.lock(kind, n) };
                let outpoint = OutPoint::new(Txid::from_byte_array([n as u8; 32]), n as u32);
                ForgedCoin { outpoint, output, kind, key: n, mature_at: 0 }
            })
            .collect();
        let mut made: Vec<_> = coins.iter().map(|_| (rng.below(3) > 0).then(|| random(&mut rng))).collect();
        let age = |rng: &mut Rng| Sequence([0, 1, 2, 3, 0xffff_fffe, u32::MAX][rng.below(6) as usize]);
        let mut tx = Transaction {
            version: Version(1 + rng.below(2) as i32),
            lock_time: LockTime::from_consensus(rng.below(5) as u32),
            input: coins
                .iter()
                .map(|coin| TxIn {
                    previous_output: coin.outpoint,
                    sequence: age(&mut rng),
                    ..TxIn::default()
                })
                .collect(),
            output: vec![coins[0].output.clone(); rng.below(3) as usize],
        };
        let mut spent: Vec<TxOut> = coins.iter().map(|coin| coin.output.clone()).collect();
        for (output, made) in spent.iter_mut().zip(&made) {
            if let Some((lock, ..)) = made {
                output.script_pubkey = lock.clone().into();
            }
        }
        // Signed with the outputs as they are.
        let signed: Vec<_> = coins
            .iter()
            .zip(&spent)
            .map(|(coin, output)| ForgedCoin { output: output.clone(), ..coin.clone() })
            .collect();
        wallet.sign(&mut tx, &signed);
        for (input, made) in tx.input.iter_mut().zip(&mut made) {
            if let Some((_, script_sig, witness)) = made.take() {
                input.script_sig = script_sig.into();
                input.witness = Witness::from_slice(&witness);
            }
        }
        let mut flags = ScriptFlags::ALL;
        if rng.below(3) == 0 {
            let some = [
                ScriptFlags::P2SH,
                ScriptFlags::P2SH.with(ScriptFlags::WITNESS),
                ScriptFlags::P2SH.with(ScriptFlags::WITNESS).with(ScriptFlags::TAPROOT),
                ScriptFlags::CHECKLOCKTIMEVERIFY,
                ScriptFlags::NONE,
            ];
            flags = some[rng.below(5) as usize];
        }
        let raw = serialize(&tx);
        let scripts = TxScripts { tx: &tx, raw: &raw, spent: &spent, flags };
        let (mut smaller, mut whole) =
            (Smaller::of(scripts, &Interpreter).unwrap(), Whole::of(scripts).unwrap());
        for (index, output) in spent.iter().enumerate() {
            let verdict = whole.succeeds(index).unwrap();
            assert_eq!(smaller.succeeds(index).unwrap(), verdict, "seed {seed}, input {index}");
            let place = signature_operations(&tx.input[index], output, flags);
            seen[place as usize][usize::from(verdict)] += 1;
            if place == SignatureOperations::InTapscript {
                let tries = smaller.succeeds_without_the_rest(&tx.input[index], output).unwrap();
                assert!(!tries || verdict, "seed {seed}, input {index}");
                tried += u32::from(tries);
            }
        }
    }
    // All happen often, or the test shows nothing.
    assert!(seen.as_flattened().iter().all(|count| *count > 100) && tried > 100, "{seen:?}, {tried}");
}

/// A signature that covers this input alone is good beside anything; every other one is good beside what it signed.
#[test]
fn a_signed_tapscript_succeeds_without_the_rest_if_nothing_of_it_is_signed() {
    for what in Signs::ALL {
        let wallet = Wallet::new(&mut Rng::from_number(1), 2);
        let coins: Vec<ForgedCoin> = (0..2)
            .map(|n| ForgedCoin {
                outpoint: OutPoint::new(Txid::from_byte_array([3; 32]), n as u32),
                output: TxOut {
                    value: Amount::from_sat(1_000),
                    script_pubkey: wallet.lock(OutputKind::P2trScript, n),
                },
                kind: OutputKind::P2trScript,
                key: n,
                mature_at: 0,
            })
            .collect();
        let spent: Vec<TxOut> = coins.iter().map(|coin| coin.output.clone()).collect();
        let mut tx = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: coins
                .iter()
                .map(|coin| TxIn { previous_output: coin.outpoint, ..TxIn::default() })
                .collect(),
            output: spent.clone(),
        };
        wallet.sign_as(&mut tx, &coins, what);
        let raw = serialize(&tx);
        let scripts = TxScripts { tx: &tx, raw: &raw, spent: &spent, flags: ScriptFlags::ALL };
        let mut smaller = Smaller::of(scripts, &Interpreter).unwrap();
        for (input, output) in tx.input.iter().zip(&spent) {
            let tries = smaller.succeeds_without_the_rest(input, output).unwrap();
            assert_eq!(tries, what.taproot == TapSighashType::NonePlusAnyoneCanPay, "{what:?}");
        }
        assert!(smaller.succeeds(0).unwrap() && smaller.succeeds(1).unwrap());
    }
}

/// Nobody can sign for what a tapscript is tried beside: the output and the other input depend on the signature.
#[test]
fn what_a_tapscript_is_tried_beside_changes_with_each_byte_of_its_witness() {
    let output = TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new() };
    let beside = |signature: [u8; 64]| {
        let mut input = TxIn::default();
        input.witness.push(signature);
        let input = [input, TxIn::default()].to_vec();
        let tx = Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output: vec![] };
        let (raw, spent) = (serialize(&tx), [output.clone(), output.clone()]);
        let scripts = TxScripts { tx: &tx, raw: &raw, spent: &spent, flags: ScriptFlags::ALL };
        let mut smaller = Smaller::of(scripts, &Interpreter).unwrap();
        let (small, spent) = smaller.without_the_rest(&tx.input[0], &output);
        (small.input[1].previous_output, small.output, spent)
    };
    let (first, second) = (beside([1; 64]), beside([2; 64]));
    assert!(first.0 != second.0 && first.1 != second.1 && first.2 != second.2);
}

#[test]
fn operations_count_and_their_bytes_within_pushes_do_not() {
    for (script, signs) in [
        (&[0x51][..], false),
        (&[0xac], true),
        (&[0x02, 0xac, 0xac], false),
        (&[0x4c, 0x01, 0xae, 0xad], true),
        // Behind a push that is cut short nothing runs.
        (&[0x03, 0xac, 0xac], false),
        (&[0x00, 0x63, 0xba, 0x68], true),
    ] {
        assert_eq!(holds_a_signature_operation(script), signs, "{script:x?}");
    }
}
