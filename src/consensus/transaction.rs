//! Rules for one transaction.
//!
//! 1. [`check_transaction`]: what needs nothing but the transaction (Core: tx_check.cpp).
//! 2. [`check_tx_inputs`]: maturity and values of the coins it spends (Core: tx_verify.cpp).
//!
//! Whether the coins exist is the caller's to find out; the refusal for that is [`MISSING_INPUTS`].
//! rust-bitcoin's amounts are unsigned; what is 2^63 or more on the wire is negative in Core.

use crate::error::Reject;
use bitcoin::{Amount, OutPoint, Script, Transaction, TxOut};

/// No sum of values may exceed this, in satoshis (`MAX_MONEY`).
pub const MAX_MONEY: u64 = 21_000_000 * 100_000_000;
/// Depth from which the outputs of a coinbase may be spent.
pub const COINBASE_MATURITY: u32 = 100;
/// Weight a block or a transaction may have (BIP141).
pub const MAX_BLOCK_WEIGHT: usize = 4_000_000;
pub use crate::limits::MAX_SCRIPT_SIZE;
/// An input spends a coin that does not exist (any more).
pub const MISSING_INPUTS: Reject = Reject::consensus("bad-txns-inputs-missingorspent");

/// Up to so many inputs comparing each with each beats sorting.
const COMPARE_ALL: usize = 12;

/// A coin that an input spends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpentCoin<'a> {
    /// The output.
    pub output: &'a TxOut,
    /// Height of the block that created it.
    pub height: u32,
    /// Whether a coinbase created it.
    pub coinbase: bool,
}

/// Checks a transaction by itself, in the order of Core's `CheckTransaction`.
///
/// # Errors
/// `bad-txns-vin-empty`, `bad-txns-vout-empty`, `bad-txns-oversize`, `bad-txns-vout-negative`,
/// `bad-txns-vout-toolarge`, `bad-txns-txouttotal-toolarge`, `bad-txns-inputs-duplicate`, `bad-cb-length`,
/// `bad-txns-prevout-null`.
pub fn check_transaction(tx: &Transaction) -> Result<(), Reject> {
    let reject = |reason| Err(Reject::consensus(reason));
    if tx.input.is_empty() {
        return reject("bad-txns-vin-empty");
    }
    if tx.output.is_empty() {
        return reject("bad-txns-vout-empty");
    }
    if tx.base_size() > MAX_BLOCK_WEIGHT / 4 {
        return reject("bad-txns-oversize");
    }
    let mut total = 0;
    for output in &tx.output {
        let value = output.value.to_sat();
        if value > i64::MAX as u64 {
            return reject("bad-txns-vout-negative");
        }
        if value > MAX_MONEY {
            return reject("bad-txns-vout-toolarge");
        }
        total += value;
        if total > MAX_MONEY {
            return reject("bad-txns-txouttotal-toolarge");
        }
    }
    if has_duplicate_inputs(tx) {
        return reject("bad-txns-inputs-duplicate");
    }
    if tx.is_coinbase() {
        if !tx.input.iter().all(|input| (2..=100).contains(&input.script_sig.len())) {
            return reject("bad-cb-length");
        }
    } else if tx.input.iter().any(|input| input.previous_output.is_null()) {
        return reject("bad-txns-prevout-null");
    }
    Ok(())
}

/// Whether two inputs spend the same output (CVE-2018-17144).
fn has_duplicate_inputs(tx: &Transaction) -> bool {
    if tx.input.len() <= COMPARE_ALL {
        let outpoint = |i: &bitcoin::TxIn| i.previous_output;
        return tx
            .input
            .iter()
            .enumerate()
            .any(|(n, a)| tx.input[..n].iter().any(|b| outpoint(a) == outpoint(b)));
    }
    let mut spent: Vec<&OutPoint> = tx.input.iter().map(|input| &input.previous_output).collect();
    spent.sort_unstable();
    spent.windows(2).any(|pair| pair[0] == pair[1])
}

/// The sum of a transaction's outputs, which [`check_transaction`] has found to be in range.
pub(super) fn value_out(tx: &Transaction) -> u64 {
    tx.output.iter().fold(0, |sum, output| sum.saturating_add(output.value.to_sat()))
}

/// Checks the coins that a transaction spends in a block at `height`, in the order of Core's
/// `CheckTxInputs`, and returns its fee. The coins are those of its inputs, in order; the transaction
/// passed [`check_transaction`] and is no coinbase.
///
/// # Errors
/// [`MISSING_INPUTS`] if there are not as many coins as inputs; `bad-txns-premature-spend-of-coinbase`,
/// `bad-txns-inputvalues-outofrange`, `bad-txns-in-belowout`. (Core's `bad-txns-fee-outofrange` cannot
/// occur after these.)
pub fn check_tx_inputs(tx: &Transaction, coins: &[SpentCoin<'_>], height: u32) -> Result<Amount, Reject> {
    if coins.len() != tx.input.len() {
        return Err(MISSING_INPUTS);
    }
    let mut value_in = 0;
    for coin in coins {
        // Signed: the caller may ask about a height below the coin's.
        let depth = i64::from(height) - i64::from(coin.height);
        if coin.coinbase && depth < i64::from(COINBASE_MATURITY) {
            return Err(Reject::consensus("bad-txns-premature-spend-of-coinbase")
                .with_detail(format!("tried to spend coinbase at depth {depth}")));
        }
        let value = coin.output.value.to_sat();
        // Both are at most MAX_MONEY once checked, so that the sum cannot overflow.
        if value > MAX_MONEY || value_in + value > MAX_MONEY {
            return Err(Reject::consensus("bad-txns-inputvalues-outofrange"));
        }
        value_in += value;
    }
    let value_out = value_out(tx);
    let fee = value_in.checked_sub(value_out).ok_or_else(|| {
        Reject::consensus("bad-txns-in-belowout")
            .with_detail(format!("value in ({value_in} sat) < value out ({value_out} sat)"))
    })?;
    Ok(Amount::from_sat(fee))
}

/// Whether an output can never be spent and so never becomes a coin: `OP_RETURN` first, or a script over
/// 10,000 bytes (Core's `CScript::IsUnspendable`).
pub fn is_unspendable(script_pubkey: &Script) -> bool {
    script_pubkey.is_op_return() || script_pubkey.len() > MAX_SCRIPT_SIZE
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::absolute::LockTime;
    use bitcoin::hashes::Hash;
    use bitcoin::transaction::Version;
    use bitcoin::{ScriptBuf, TxIn, Txid};

    fn input(n: u32) -> TxIn {
        let previous_output = OutPoint { txid: Txid::from_byte_array([1; 32]), vout: n };
        TxIn { previous_output, ..TxIn::default() }
    }

    fn output(sat: u64) -> TxOut {
        TxOut { value: Amount::from_sat(sat), script_pubkey: ScriptBuf::new() }
    }

    fn tx(inputs: u32, values: &[u64]) -> Transaction {
        Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: (0..inputs).map(input).collect(),
            output: values.iter().copied().map(output).collect(),
        }
    }

    fn reason(tx: &Transaction) -> &'static str {
        check_transaction(tx).map_or_else(|reject| reject.reason, |()| "ok")
    }

    #[test]
    fn inputs_and_outputs_must_be_there() {
        assert_eq!(reason(&tx(0, &[])), "bad-txns-vin-empty");
        assert_eq!(reason(&tx(1, &[])), "bad-txns-vout-empty");
        assert_eq!(reason(&tx(1, &[0])), "ok");
    }

    #[test]
    fn a_million_bytes_without_witness_and_one_more() {
        let mut tx = tx(1, &[0]);
        let room = MAX_BLOCK_WEIGHT / 4 - tx.base_size() - 4;
        tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0; room]);
        assert_eq!(tx.base_size(), 1_000_000);
        tx.input[0].witness = bitcoin::Witness::from_slice(&[[0; 100]]);
        assert_eq!(reason(&tx), "ok");
        tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0; room + 1]);
        assert_eq!(reason(&tx), "bad-txns-oversize");
    }

    #[test]
    fn values_are_in_range_one_by_one_and_together() {
        let negative = 1 << 63;
        for (values, expected) in [
            (&[MAX_MONEY][..], "ok"),
            (&[MAX_MONEY + 1], "bad-txns-vout-toolarge"),
            (&[negative - 1], "bad-txns-vout-toolarge"),
            (&[negative], "bad-txns-vout-negative"),
            (&[u64::MAX], "bad-txns-vout-negative"),
            (&[MAX_MONEY - 1, 1], "ok"),
            (&[MAX_MONEY, 1], "bad-txns-txouttotal-toolarge"),
            (&[MAX_MONEY, 1, negative], "bad-txns-txouttotal-toolarge"),
            (&[1, negative, MAX_MONEY], "bad-txns-vout-negative"),
        ] {
            assert_eq!(reason(&tx(1, values)), expected, "{values:?}");
        }
    }

    #[test]
    fn no_output_is_spent_twice_with_few_inputs_and_with_many() {
        for inputs in [2, COMPARE_ALL as u32, COMPARE_ALL as u32 + 1, 500] {
            let mut tx = tx(inputs, &[0]);
            assert_eq!(reason(&tx), "ok");
            tx.input[inputs as usize - 1].previous_output.vout = 0;
            assert_eq!(reason(&tx), "bad-txns-inputs-duplicate", "{inputs}");
        }
    }

    #[test]
    fn the_null_outpoint_is_for_coinbases_whose_script_has_2_to_100_bytes() {
        let mut tx = tx(1, &[0]);
        tx.input[0].previous_output = OutPoint::null();
        for (len, expected) in [(1, "bad-cb-length"), (2, "ok"), (100, "ok"), (101, "bad-cb-length")] {
            tx.input[0].script_sig = ScriptBuf::from_bytes(vec![0; len]);
            assert_eq!(reason(&tx), expected, "{len}");
        }
        tx.input.push(input(0));
        assert_eq!(reason(&tx), "bad-txns-prevout-null");
    }

    fn spend(tx: &Transaction, coins: &[(u64, u32, bool)], height: u32) -> Result<u64, &'static str> {
        let outputs: Vec<TxOut> = coins.iter().map(|coin| output(coin.0)).collect();
        let coins: Vec<SpentCoin<'_>> = outputs
            .iter()
            .zip(coins)
            .map(|(output, &(_, height, coinbase))| SpentCoin { output, height, coinbase })
            .collect();
        check_tx_inputs(tx, &coins, height).map(Amount::to_sat).map_err(|reject| reject.reason)
    }

    #[test]
    fn a_coinbase_is_spent_from_depth_100_on() {
        let tx = tx(1, &[1]);
        assert_eq!(spend(&tx, &[(5, 10, true)], 110), Ok(4));
        assert_eq!(spend(&tx, &[(5, 10, true)], 109), Err("bad-txns-premature-spend-of-coinbase"));
        assert_eq!(spend(&tx, &[(5, 10, false)], 11), Ok(4));
        assert_eq!(spend(&tx, &[(5, 10, true)], 5), Err("bad-txns-premature-spend-of-coinbase"));
    }

    #[test]
    fn values_of_coins_are_in_range_and_cover_the_outputs() {
        let max = MAX_MONEY;
        assert_eq!(spend(&tx(2, &[max]), &[(max - 1, 0, false), (1, 0, false)], 1), Ok(0));
        let out_of_range = Err("bad-txns-inputvalues-outofrange");
        assert_eq!(spend(&tx(2, &[0]), &[(max, 0, false), (1, 0, false)], 1), out_of_range);
        assert_eq!(spend(&tx(1, &[0]), &[(max + 1, 0, false)], 1), out_of_range);
        assert_eq!(spend(&tx(1, &[0]), &[(u64::MAX, 0, false)], 1), out_of_range);
        assert_eq!(spend(&tx(1, &[3, 4]), &[(7, 0, false)], 1), Ok(0));
        assert_eq!(spend(&tx(1, &[3, 5]), &[(7, 0, false)], 1), Err("bad-txns-in-belowout"));
        assert_eq!(spend(&tx(2, &[0]), &[(7, 0, false)], 1), Err("bad-txns-inputs-missingorspent"));
        // The first coin that is wrong decides, maturity before value.
        assert_eq!(
            spend(&tx(2, &[0]), &[(max + 1, 0, true), (7, 0, false)], 1),
            Err("bad-txns-premature-spend-of-coinbase")
        );
    }

    #[test]
    fn outputs_that_never_become_coins() {
        for (bytes, expected) in [
            (vec![], false),
            (vec![0x6a], true),
            (vec![0x51, 0x6a], false),
            (vec![0; 10_000], false),
            (vec![0; 10_001], true),
        ] {
            assert_eq!(is_unspendable(&ScriptBuf::from_bytes(bytes)), expected);
        }
    }
}
