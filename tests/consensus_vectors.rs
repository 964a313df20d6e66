//! Real blocks and transactions of Bitcoin Core's tests through the rules and the interpreter. Two small blocks are
//! part of this file; the rest are shared vectors, and where that folder is not, their tests say so.
#![cfg(feature = "consensus")]

mod vectors;

use bitcoin::hashes::Hash;
use bitcoin::hex::FromHex;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid};
use headlong::chain::command::{BlockContext, ScriptPolicy};
use headlong::chain::deployments::{Rules, ScriptFlags};
use headlong::chain::params::{Network, Params};
use headlong::consensus::block::{CheckedBlock, contextual_check_block, is_mutated};
use headlong::consensus::connect::{CoinRules, Totals};
use headlong::consensus::decode::{decode_block, decode_transaction};
use headlong::consensus::transaction::{SpentCoin, check_transaction};
use headlong::error::Reject;
use headlong::verify::interpreter::Interpreter;
use headlong::verify::pool::Pool;
use headlong::verify::scripts::{ScriptPool, ScriptTask};
use headlong::verify::{Proof, TxScripts, Verdict, Verifier, check_block};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;
use std::str::FromStr;
use std::sync::Arc;
use vectors::{unpacked, vector};

/// Block 170 of the main network, with the first payment.
const MAIN_170: &str = "\
    0100000055bd840a78798ad0da853f68974f3d183e2bd1db6a842c1feecf222a00000000ff104ccb05421ab93e63f8c3\
    ce5c2c2e9dbb37de2764b3a3175c8166562cac7d51b96a49ffff001d283e9e7002010000000100000000000000000000\
    00000000000000000000000000000000000000000000ffffffff0704ffff001d0102ffffffff0100f2052a0100000043\
    4104d46c4968bde02899d2aa0963367c7a6ce34eec332b32e42e5f3407e052d64ac625da6f0718e7b302140434bd7257\
    06957c092db53805b821a85b23a7ac61725bac000000000100000001c997a5e56e104102fa209c6a852dd90660a20b2d\
    9c352423edce25857fcd3704000000004847304402204e45e16932b8af514961a1d3a1a25fdf3f4f7732e9d624c6c615\
    48ab5fb8cd410220181522ec8eca07de4860a4acdd12909d831cc56cbbac4622082221a8768d1d0901ffffffff0200ca\
    9a3b00000000434104ae1a62fe09c5f51b13905f07f06b99a2f7159b2225f374cd378d71302fa28414e7aab37397f554\
    a7df5f142c21c1b7303b8a0626f1baded5c72a704f7e6cd84cac00286bee0000000043410411db93e1dcdb8a016b4984\
    0f8c53bc1eb68a382e97b1482ecad7b148a6909a5cb2e0eaddfb84ccf9744464f82e160bfa9b8b64f9d4c03f999b8643\
    f656b412a3ac00000000\
";

/// Block 1 of the default signet.
const SIGNET_1: &str = "\
    00000020f61eee3b63a380a477a063af32b2bbc97c9ff9f01f2c4225e973988108000000f575c83235984e7dc4afc1f3\
    0944c170462e84437ab6f2d52e16878a79e4678bd1914d5fae77031eccf4070001010000000001010000000000000000\
    000000000000000000000000000000000000000000000000ffffffff025151feffffff0200f2052a0100000016001492\
    43f727dd5343293eb83174324019ec16c2630f0000000000000000776a24aa21a9ede2f61c3f71d1defd3fa999dfa369\
    53755c690689799962b48bebd836974e8cf94c4fecc7daa2490047304402205e423a8754336ca99dbe16509b877ef1bf\
    98d008836c725005b3c787c41ebe46022047246e4467ad7cc7f1ad98662afcaf14c115e0095a227c7b05c5182591c23e\
    7e01000120000000000000000000000000000000000000000000000000000000000000000000000000\
";

fn checked(bytes: Vec<u8>, network: Network) -> CheckedBlock {
    let decoded = decode_block(Arc::new(bytes)).unwrap();
    assert!(!is_mutated(&decoded, true));
    check_block(decoded, &Params::new(network), &Interpreter).unwrap()
}

fn context(block: &CheckedBlock, height: u32, rules: Rules) -> BlockContext {
    BlockContext {
        height,
        hash: block.hash(),
        prev: block.header().prev_blockhash,
        parent_mtp: block.header().time - 1,
        rules,
        scripts: ScriptPolicy::Verify,
    }
}

const ALL: ScriptFlags = ScriptFlags::ALL;

/// Everything that connecting asks of a block whose spent outputs (in order of inputs) are known.
fn connect(block: CheckedBlock, spent: Vec<TxOut>, context: BlockContext, network: Network) -> Totals {
    contextual_check_block(&block, &context).unwrap();
    let params = Params::new(network);
    let mut rules = CoinRules::new(&block, &context, &params);
    let mut left = spent.as_slice();
    for (index, tx) in block.transactions().iter().enumerate() {
        let (mine, rest) = left.split_at(if index == 0 { 0 } else { tx.input.len() });
        left = rest;
        let coins: Vec<_> =
            mine.iter().map(|output| SpentCoin { output, height: 1, coinbase: false }).collect();
        rules.transaction::<Reject>(&coins, |_| Ok(0)).unwrap();
    }
    assert!(left.is_empty());
    let totals = rules.finish().unwrap();
    let pool = ScriptPool::new(Arc::new(Pool::new("scripts", 2, 64).unwrap()), Arc::new(Interpreter));
    let task = ScriptTask { block: Arc::new(block), spent: spent.into(), context };
    let verified = pool.check::<()>(task, None).wait().unwrap();
    assert_eq!(verified.proof(), Proof::Scripts);
    totals
}

#[test]
fn the_first_payment_connects() {
    let block = checked(Vec::from_hex(MAIN_170).unwrap(), Network::Main);
    assert_eq!(block.hash().to_string(), "00000000d1145790a8694403d4063f323d499e655c83426834d4ce2f8dd4a2ee");
    // The change of this payment went back to the key that held the coin.
    let script_pubkey = block.transactions()[1].output[1].script_pubkey.clone();
    let spent = TxOut { value: Amount::from_sat(5_000_000_000), script_pubkey };
    let context = context(&block, 170, Rules { script_flags: ALL, ..Rules::default() });
    let totals = connect(block, vec![spent], context, Network::Main);
    assert_eq!(totals, Totals { fees: Amount::ZERO, sigop_cost: 12 });
}

#[test]
fn a_signet_block_needs_its_own_solution() {
    let bytes = Vec::from_hex(SIGNET_1).unwrap();
    let block = checked(bytes.clone(), Network::Signet);
    let rules = Rules { bip30: true, bip34: true, csv: true, segwit: true, script_flags: ALL };
    contextual_check_block(&block, &context(&block, 1, rules)).unwrap();
    // With other challenges: anybody can solve the first (scripts run without a rule against what is left
    // on the stack), nobody the second.
    for (challenge, expected) in [(0x51, None), (0x00, Some("bad-signet-blksig"))] {
        let params = Params::signet(ScriptBuf::from_bytes(vec![challenge]));
        let decoded = decode_block(Arc::new(bytes.clone())).unwrap();
        let refused = check_block(decoded, &params, &Interpreter).err().map(|error| error.to_string());
        assert_eq!(refused.as_deref(), expected);
    }
}

#[test]
fn signet_blocks_from_the_first_on_have_solutions() {
    let Some(bytes) = vector("utreexo/floresta_signet_blocks.json") else { return };
    let list: Value = serde_json::from_slice(&bytes).unwrap();
    let list = list.as_array().unwrap();
    assert!(list.len() > 100);
    let params = Params::new(Network::Signet);
    for entry in list {
        let bytes = Vec::from_hex(entry["block"].as_str().unwrap()).unwrap();
        let decoded = decode_block(Arc::new(bytes)).unwrap();
        let block = check_block(decoded, &params, &Interpreter).unwrap();
        assert_eq!(block.hash() == params.genesis_hash(), entry["height"] == 0);
    }
}

fn spent_outputs(name: &str) -> Option<Vec<(OutPoint, TxOut)>> {
    let compressed = vector(name)?;
    let mut json = Vec::new();
    ruzstd::decoding::StreamingDecoder::new(compressed.as_slice()).unwrap().read_to_end(&mut json).unwrap();
    let list: Value = serde_json::from_slice(&json).unwrap();
    let output = |entry: &Value| {
        let txid = Txid::from_str(entry["txid"].as_str().unwrap()).unwrap();
        let script = Vec::from_hex(entry["script"].as_str().unwrap()).unwrap();
        (
            OutPoint { txid, vout: entry["vout"].as_u64().unwrap() as u32 },
            TxOut {
                value: Amount::from_sat(entry["value"].as_u64().unwrap()),
                script_pubkey: ScriptBuf::from_bytes(script),
            },
        )
    };
    Some(list.as_array().unwrap().iter().map(output).collect())
}

#[test]
fn real_blocks_connect_with_the_outputs_they_spend() {
    for (name, network, height, inputs, segwit) in [
        ("main-300025", Network::Main, 300_025, 1427, false),
        ("test3-1087400", Network::Testnet3, 1_087_400, 205, true),
    ] {
        let Some(bytes) = vector(&format!("blocks/{name}.raw")) else { return };
        let spent = spent_outputs(&format!("blocks/{name}.spent.json.zst")).unwrap();
        let block = checked(bytes, network);
        assert_eq!(block.inputs(), inputs);
        let outpoints = block.transactions()[1..].iter().flat_map(|tx| &tx.input).map(|i| i.previous_output);
        assert!(outpoints.eq(spent.iter().map(|(outpoint, _)| *outpoint)));
        let flags = if segwit { ALL } else { ScriptFlags::P2SH };
        let rules = Rules { bip30: true, bip34: true, csv: segwit, segwit, script_flags: flags };
        let context = context(&block, height, rules);
        let paid: u64 = block.transactions()[0].output.iter().map(|output| output.value.to_sat()).sum();
        let subsidy = headlong::consensus::subsidy::block_subsidy(height, 210_000).to_sat();
        let spent = spent.into_iter().map(|(_, output)| output).collect();
        let totals = connect(block, spent, context, network);
        // The miners of both took all that they could.
        assert_eq!(totals.fees.to_sat() + subsidy, paid, "{name}");
    }
}

/// Takes a number as btcd's store (and Core's) writes it: seven bits a byte, the highest first, each form
/// counted from where the shorter ones end.
fn take_number(bytes: &mut &[u8]) -> u64 {
    let mut number = 0;
    loop {
        let byte = *bytes.split_off_first().unwrap();
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return number;
        }
        number += 1;
    }
}

/// An amount whose trailing zeros were folded into an exponent.
fn unfold(folded: u64) -> u64 {
    let Some(rest) = folded.checked_sub(1) else { return 0 };
    let (exponent, rest) = (rest % 10, rest / 10);
    let digits = if exponent < 9 { rest / 9 * 10 + rest % 9 + 1 } else { rest + 1 };
    digits * 10_u64.pow(exponent as u32)
}

/// A script as btcd's store keeps it.
fn unpack_script(mut bytes: &[u8]) -> ScriptBuf {
    let form = take_number(&mut bytes);
    let hash = || bytes.try_into().unwrap();
    match form {
        0 => ScriptBuf::new_p2pkh(&bitcoin::PubkeyHash::from_byte_array(hash())),
        1 => ScriptBuf::new_p2sh(&bitcoin::ScriptHash::from_byte_array(hash())),
        2..=5 => {
            let compressed = [&[2 + form as u8 % 2], bytes].concat();
            let inner = bitcoin::secp256k1::PublicKey::from_slice(&compressed).unwrap();
            ScriptBuf::new_p2pk(&bitcoin::PublicKey { inner, compressed: form < 4 })
        }
        _ => ScriptBuf::from_bytes(bytes[..form as usize - 6].to_vec()),
    }
}

/// The outputs that main 277,647 spends, with their heights: outpoint, length, number of height and
/// coinbase, amount, script.
fn spent_by_277647() -> Option<BTreeMap<OutPoint, (u32, bool, TxOut)>> {
    let store = unpacked("blocks/main-277647.utxostore.btcd.bz2")?;
    let mut rest = store.as_slice();
    let mut spent = BTreeMap::new();
    while !rest.is_empty() {
        let outpoint: OutPoint = bitcoin::consensus::deserialize(rest.split_off(..36).unwrap()).unwrap();
        let length = u32::from_le_bytes(*rest.split_off(..4).unwrap().first_chunk().unwrap());
        let mut entry = rest.split_off(..length as usize).unwrap();
        let code = take_number(&mut entry);
        let value = Amount::from_sat(unfold(take_number(&mut entry)));
        let output = TxOut { value, script_pubkey: unpack_script(entry) };
        spent.insert(outpoint, (code as u32 >> 1, code & 1 == 1, output));
    }
    Some(spent)
}

#[test]
fn a_real_block_connects_with_coins_from_a_store_of_btcd() {
    let Some(framed) = unpacked("blocks/main-277647.btcd.bz2") else { return };
    let mut coins = spent_by_277647().unwrap();
    let block = checked(framed[8..].to_vec(), Network::Main);
    let paid: u64 = block.transactions()[0].output.iter().map(|output| output.value.to_sat()).sum();
    let mut spent = Vec::new();
    for (tx, txid) in block.transactions().iter().zip(block.txids()) {
        for input in tx.input.iter().filter(|_| !tx.is_coinbase()) {
            let (height, coinbase, output) = coins.remove(&input.previous_output).unwrap();
            assert!(height <= 277_647 && (!coinbase || height + 100 <= 277_647));
            spent.push(output);
        }
        for (vout, output) in (0..).zip(&tx.output) {
            coins.entry(OutPoint { txid: *txid, vout }).or_insert((277_647, false, output.clone()));
        }
    }
    assert!(spent.len() > 500, "{}", spent.len());
    let rules = Rules { bip30: true, bip34: true, script_flags: FLAGS_2009, ..Rules::default() };
    let context = context(&block, 277_647, rules);
    let totals = connect(block, spent, context, Network::Main);
    assert_eq!(totals.fees.to_sat() + 2_500_000_000, paid);
}

#[test]
fn real_blocks_pass_what_needs_no_coins() {
    use Network::{Main, Testnet3};
    for (name, network, csv, segwit, witnesses) in [
        ("blocks/main-413567.raw", Main, false, false, false),
        ("bip152/main-426884.block.raw", Main, true, false, false),
        ("blocks/main-482683.raw", Main, true, true, true),
        ("blocks/main-000000000000000000000c835b2adcae.raw", Main, true, true, true),
        ("bip152/test3-898352.block.raw", Testnet3, true, true, false),
    ] {
        let Some(bytes) = vector(name) else { return };
        let size = bytes.len();
        let block = checked(bytes, network);
        assert_eq!(block.size(), size);
        let height = block.block().bip34_block_height().unwrap() as u32;
        assert!(height > 413_000, "{height}");
        let rules = Rules { bip30: false, bip34: true, csv, segwit, script_flags: ALL };
        contextual_check_block(&block, &context(&block, height, rules)).unwrap();
        let found = (0..block.transactions().len()).any(|i| block.has_witness(i));
        assert_eq!(found, witnesses, "{name}");
    }
}

#[test]
fn the_first_255_blocks_connect_one_after_another() {
    let Some(framed) = unpacked("blocks/main-0001-0255.btcd.bz2") else { return };
    let params = Params::new(Network::Main);
    let mut coins: BTreeMap<OutPoint, TxOut> = BTreeMap::new();
    let (mut rest, mut height, mut tip, mut inputs) = (framed.as_slice(), 0, params.genesis_hash(), 0);
    while !rest.is_empty() {
        let length = u32::from_le_bytes(rest[4..8].try_into().unwrap()) as usize;
        let block = checked(rest[8..8 + length].to_vec(), Network::Main);
        rest = &rest[8 + length..];
        height += 1;
        assert_eq!(block.header().prev_blockhash, tip);
        tip = block.hash();
        let mut spent = Vec::new();
        for (tx, txid) in block.transactions().iter().zip(block.txids()) {
            let inputs = tx.input.iter().filter(|_| !tx.is_coinbase());
            spent.extend(inputs.map(|input| coins.remove(&input.previous_output).unwrap()));
            for (vout, output) in tx.output.iter().enumerate() {
                coins.insert(OutPoint { txid: *txid, vout: vout as u32 }, output.clone());
            }
        }
        inputs += spent.len();
        let rules = Rules { bip30: true, script_flags: FLAGS_2009, ..Rules::default() };
        let context = context(&block, height, rules);
        connect(block, spent, context, Network::Main);
    }
    assert_eq!(height, 255);
    assert!(inputs > 0);
    // Every satoshi that was created is still there.
    let total: u64 = coins.values().map(|output| output.value.to_sat()).sum();
    assert_eq!(total, 255 * 5_000_000_000);
}

/// What Core uses for blocks before any buried deployment.
const FLAGS_2009: ScriptFlags = ScriptFlags::P2SH.with(ScriptFlags::WITNESS).with(ScriptFlags::TAPROOT);

// ---- Bitcoin Core's JSON files ----

fn core_json(name: &str) -> Option<Vec<Vec<Value>>> {
    let list: Value = serde_json::from_slice(&vector(name)?).unwrap();
    let entries = list.as_array().unwrap().iter().map(|entry| entry.as_array().unwrap().clone());
    // Arrays of one string are comments.
    Some(entries.filter(|entry| entry.len() > 1).collect())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// What their scripts say is in `tests/verifier_conformance.rs`; this is the rule that needs none.
#[test]
fn cores_transactions_by_the_rule_without_scripts() {
    let (Some(valid), Some(invalid)) = (core_json("core/tx_valid.json"), core_json("core/tx_invalid.json"))
    else {
        return;
    };
    assert_eq!((valid.len(), invalid.len()), (121, 93));
    let refused = |entry: &[Value]| {
        let tx = decode_transaction(&Vec::from_hex(text(&entry[1])).unwrap()).unwrap();
        check_transaction(&tx).is_err()
    };
    assert!(valid.iter().all(|entry| !refused(entry)));
    for entry in &invalid {
        assert_eq!(refused(entry), text(&entry[2]) == "BADTX", "{entry:?}");
    }
}

#[test]
fn flags_without_meaning_give_no_verdict() {
    let spent = TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(vec![0x51]) };
    let tx = Transaction {
        version: bitcoin::transaction::Version::ONE,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![TxIn { sequence: Sequence::MAX, ..TxIn::default() }],
        output: vec![spent.clone()],
    };
    let raw = bitcoin::consensus::serialize(&tx);
    let verify =
        |raw: &[u8], spent: &[TxOut], flags| Interpreter.verify(&[TxScripts { tx: &tx, raw, spent, flags }]);
    let spent = [spent];
    assert_eq!(verify(&raw, &spent, ALL).unwrap(), Verdict::Valid);
    // The library would abort on the first and refuse the second.
    assert!(verify(&raw, &spent, ScriptFlags::WITNESS).is_err());
    assert!(verify(&raw, &spent, ScriptFlags(1 << 1)).is_err());
    assert!(verify(&raw, &[], ALL).is_err());
    assert!(verify(&raw[1..], &spent, ALL).is_err());
    assert_eq!(Txid::all_zeros(), OutPoint::null().txid);
}
