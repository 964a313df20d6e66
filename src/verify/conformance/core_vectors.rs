//! Bitcoin Core's JSON files of `src/test/data`, as `script_tests.cpp`, `transaction_tests.cpp` and
//! `sighash_tests.cpp` use them, as far as a [`Verifier`](crate::verify::Verifier) can be asked.

use super::cases::{tree_of, without};
use super::hash_types::Signer;
use super::notation::{flags, hex, script};
use super::{Case, Counts, Expected, Failure, Suite};
use crate::chain::deployments::ScriptFlags;
use crate::consensus::decode::decode_transaction;
use crate::rng::Rng;
use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::sighash::SighashCache;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use serde_json::Value;
use std::collections::BTreeMap;

const ALL: ScriptFlags = ScriptFlags::ALL;
/// Entries that only a rule of relay decides.
const RELAY: &str = "rules of relay";
/// Entries that a rule decides which looks at no script.
const NO_SCRIPT: &str = "rules without scripts";
/// `OP_CODESEPARATOR`, which Core's signature hash leaves out.
const CODE_SEPARATOR: u8 = 0xab;

fn bad(what: impl core::fmt::Display) -> Failure {
    Failure::Vectors(what.to_string())
}

/// The entries of a file; arrays of one string are comments.
fn entries(json: &str) -> Result<Vec<Vec<Value>>, Failure> {
    let list: Vec<Vec<Value>> = serde_json::from_str(json).map_err(bad)?;
    Ok(list.into_iter().filter(|entry| entry.len() > 1).collect())
}

fn at(entry: &[Value], index: usize) -> Result<&Value, Failure> {
    entry.get(index).ok_or_else(|| bad(format!("no item {index} in {entry:?}")))
}

fn text(entry: &[Value], index: usize) -> Result<&str, Failure> {
    at(entry, index)?.as_str().ok_or_else(|| bad(format!("item {index} of {entry:?} is no text")))
}

fn number(entry: &[Value], index: usize) -> Result<i64, Failure> {
    at(entry, index)?.as_i64().ok_or_else(|| bad(format!("item {index} of {entry:?} is no number")))
}

fn transaction(entry: &[Value], index: usize) -> Result<Transaction, Failure> {
    decode_transaction(&hex(text(entry, index)?)?).map_err(|error| bad(format!("{error} in {entry:?}")))
}

fn single_flags(flags: ScriptFlags) -> impl Iterator<Item = ScriptFlags> {
    (0..32).map(|bit| ScriptFlags(1 << bit)).filter(move |flag| flags.contains(*flag))
}

/// Whether an entry of `script_tests.json` fails by a rule of relay, so that without it it may succeed.
fn fails_by_policy(flags: &str, error: &str) -> bool {
    let has = |flag: &str| flags.split(',').any(|name| name == flag);
    match error {
        "SIG_HASHTYPE" | "PUBKEYTYPE" | "SIG_HIGH_S" | "MINIMALDATA" | "MINIMALIF" | "NULLFAIL"
        | "WITNESS_PUBKEYTYPE" => true,
        "SIG_DER" => !has("DERSIG"),
        "SCRIPTNUM" => has("MINIMALDATA"),
        "SIG_PUSHONLY" => has("SIGPUSHONLY"),
        "CLEANSTACK" => has("CLEANSTACK"),
        _ => error.starts_with("DISCOURAGE"),
    }
}

impl Suite<'_> {
    /// `script_tests.json`: each entry under its flags; valid ones under fewer flags too, invalid ones under
    /// all. Entries that fail by a rule of relay are skipped.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn core_script_tests(&self, json: &str) -> Result<Counts, Failure> {
        let mut counts = Counts::default();
        for entry in entries(json)? {
            let first = usize::from(at(&entry, 0)?.is_array());
            let (names, error) = (text(&entry, first + 2)?, text(&entry, first + 3)?);
            if fails_by_policy(names, error) {
                counts.skip(RELAY);
                continue;
            }
            let (witness, value, taproot) = witness(at(&entry, 0)?)?;
            let script_pubkey = taproot.map_or_else(|| script(text(&entry, first + 1)?), Ok)?;
            let spent = TxOut { value, script_pubkey };
            let tx = credit_and_spend(script(text(&entry, first)?)?, witness, &spent);
            let expected = if error == "OK" { Expected::Valid } else { Expected::InvalidAt(0) };
            let name = format!("script_tests.json {entry:?}");
            let case = Case { name, tx, spent: vec![spent], flags: flags(names)?.0, expected };
            self.judge(&mut counts, &case)?;
            let more: Vec<ScriptFlags> = match expected {
                Expected::Valid => single_flags(case.flags).map(|flag| without(case.flags, flag)).collect(),
                _ => vec![ALL],
            };
            self.judge_under(&mut counts, &case, more)?;
        }
        Ok(counts)
    }

    /// `tx_valid.json`: valid with all flags of consensus but those that an entry names, with fewer, and not
    /// with one more.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn core_valid_transactions(&self, json: &str) -> Result<Counts, Failure> {
        let mut counts = Counts::default();
        for entry in entries(json)? {
            let tx = transaction(&entry, 1)?;
            let spent = spent_by(&tx, at(&entry, 0)?)?;
            let (excluded, _) = flags(text(&entry, 2)?)?;
            let set = single_flags(excluded).fold(ALL, without);
            let name = format!("tx_valid.json {entry:?}");
            let mut case = Case { name, tx, spent, flags: set, expected: Expected::Valid };
            self.judge(&mut counts, &case)?;
            self.judge_under(&mut counts, &case, single_flags(set).map(|flag| without(set, flag)))?;
            case.expected = Expected::Invalid;
            self.judge_under(&mut counts, &case, single_flags(excluded).map(|flag| set.with(flag)))?;
        }
        Ok(counts)
    }

    /// `tx_invalid.json`: invalid with the flags that an entry names and with all, and valid with one less.
    /// Skipped are entries that break a rule without scripts or one of relay.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn core_invalid_transactions(&self, json: &str) -> Result<Counts, Failure> {
        let mut counts = Counts::default();
        for entry in entries(json)? {
            let names = text(&entry, 2)?;
            if names == "BADTX" {
                counts.skip(NO_SCRIPT);
                continue;
            }
            let (set, relay) = flags(names)?;
            if relay {
                counts.skip(RELAY);
                continue;
            }
            let tx = transaction(&entry, 1)?;
            let spent = spent_by(&tx, at(&entry, 0)?)?;
            let name = format!("tx_invalid.json {entry:?}");
            let mut case = Case { name, tx, spent, flags: set, expected: Expected::Invalid };
            self.judge(&mut counts, &case)?;
            self.judge_under(&mut counts, &case, [ALL])?;
            case.expected = Expected::Valid;
            self.judge_under(&mut counts, &case, single_flags(set).map(|flag| without(set, flag)))?;
        }
        Ok(counts)
    }

    /// `sighash.json`: a verifier tells no hashes, so each entry's transaction is signed with its hash type (the
    /// byte that a signature has room for) and must be valid, and invalid with the signature of another hash.
    /// That the hashes signed are Core's is checked against the entry's own.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn core_signature_hashes(&self, json: &str) -> Result<Counts, Failure> {
        let mut counts = Counts::default();
        let signer = Signer::new(&mut Rng::from_number(self.seed));
        for entry in entries(json)? {
            let mut tx = transaction(&entry, 0)?;
            let code = hex(text(&entry, 1)?)?.into_iter().filter(|byte| *byte != CODE_SEPARATOR).collect();
            let index = usize::try_from(number(&entry, 2)?).map_err(bad)?;
            let (hash_type, expected) = (number(&entry, 3)? as u32, text(&entry, 4)?);
            let hash_of = |tx: &Transaction, code: &ScriptBuf, hash_type: u32| {
                let hash = SighashCache::new(tx).legacy_signature_hash(index, code, hash_type);
                hash.map(|hash| hash.to_byte_array()).map_err(bad)
            };
            let mut hash = hash_of(&tx, &ScriptBuf::from_bytes(code), hash_type)?;
            hash.reverse();
            if hash[..] != hex(expected)?[..] {
                return Err(bad(format!("the signature hash of {entry:?} is not that of Core")));
            }
            // The hash leaves out the scripts of all inputs, so that these may be any.
            tx.input.iter_mut().for_each(|input| input.script_sig = ScriptBuf::new());
            let lock = ScriptBuf::new_p2pk(&signer.key());
            let byte = hash_type.to_le_bytes()[0];
            let good = hash_of(&tx, &lock, byte.into())?;
            let anyone = TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(vec![0x51]) };
            let mut spent = vec![anyone; tx.input.len()];
            spent[index].script_pubkey = lock;
            for (digest, expected) in
                [(good, Expected::Valid), (good.map(|byte| byte ^ 1), Expected::InvalidAt(index))]
            {
                let mut tx = tx.clone();
                let signature = PushBytesBuf::try_from(signer.ecdsa(digest, byte)).map_err(bad)?;
                tx.input[index].script_sig = Builder::new().push_slice(signature).into_script();
                let name = format!("sighash.json {entry:?}");
                let case = Case { name, tx, spent: spent.clone(), flags: ALL, expected };
                self.judge(&mut counts, &case)?;
            }
        }
        Ok(counts)
    }

    /// The same case under other flags.
    fn judge_under(
        &self,
        counts: &mut Counts,
        case: &Case,
        sets: impl IntoIterator<Item = ScriptFlags>,
    ) -> Result<(), Failure> {
        sets.into_iter().try_for_each(|flags| {
            let name = format!("under flags {:#x}: {}", flags.0, case.name);
            self.judge(counts, &Case { name, flags, ..case.clone() })
        })
    }
}

/// The pair of transactions that `script_tests.json` describes.
fn credit_and_spend(script_sig: ScriptBuf, witness: Witness, spent: &TxOut) -> Transaction {
    let tx = |input, output| Transaction {
        version: Version::ONE,
        lock_time: LockTime::ZERO,
        input: vec![input],
        output: vec![output],
    };
    let credit = tx(
        TxIn { script_sig: ScriptBuf::from_bytes(vec![0, 0]), sequence: Sequence::MAX, ..TxIn::default() },
        spent.clone(),
    );
    let previous_output = OutPoint { txid: credit.compute_txid(), vout: 0 };
    tx(
        TxIn { previous_output, script_sig, sequence: Sequence::MAX, witness },
        TxOut { value: spent.value, script_pubkey: ScriptBuf::new() },
    )
}

/// The witness of an entry, its amount, and the taproot output it belongs to, if it asks for one.
fn witness(entry: &Value) -> Result<(Witness, Amount, Option<ScriptBuf>), Failure> {
    let Some(list) = entry.as_array() else { return Ok((Witness::new(), Amount::ZERO, None)) };
    let (amount, items) = list.split_last().ok_or_else(|| bad("an empty witness"))?;
    let amount = amount.as_f64().ok_or_else(|| bad(format!("the amount {amount}")))?;
    let amount = Amount::from_btc(amount).map_err(bad)?;
    let mut stack: Vec<Vec<u8>> = Vec::new();
    let mut output = None;
    for index in 0..items.len() {
        let item = text(items, index)?;
        if let Some(notation) = item.strip_prefix("#SCRIPT#") {
            stack.push(script(notation)?.into_bytes());
        } else if item == "#CONTROLBLOCK#" {
            let leaf = stack.last().ok_or_else(|| bad("a control block without a script"))?;
            let leaf = ScriptBuf::from_bytes(leaf.clone());
            let (script, control) = tree_of(&leaf, 0xc0).ok_or_else(|| bad("no tree of that script"))?;
            stack.push(control);
            output = Some(script);
        } else {
            stack.push(hex(item)?);
        }
    }
    Ok((Witness::from_slice(&stack), amount, output))
}

/// The outputs that a transaction spends, from the list of an entry.
fn spent_by(tx: &Transaction, list: &Value) -> Result<Vec<TxOut>, Failure> {
    let list = list.as_array().ok_or_else(|| bad(format!("{list} is no list")))?;
    let mut outputs = BTreeMap::new();
    for input in list {
        let input = input.as_array().ok_or_else(|| bad(format!("{input} is no list")))?;
        let txid: Txid = text(input, 0)?.parse().map_err(bad)?;
        // -1 is the coinbase's number.
        let vout = number(input, 1)? as u32;
        let value = if input.len() > 3 { number(input, 3)? } else { 0 };
        let value = Amount::from_sat(u64::try_from(value).map_err(bad)?);
        outputs.insert(OutPoint { txid, vout }, TxOut { value, script_pubkey: script(text(input, 2)?)? });
    }
    let spent = |input: &TxIn| outputs.get(&input.previous_output).cloned();
    let found: Option<Vec<TxOut>> = tx.input.iter().map(spent).collect();
    found.ok_or_else(|| bad(format!("an output that is spent is not in {list:?}")))
}
