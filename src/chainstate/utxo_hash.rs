//! Hashes of the whole set of unspent outputs, comparable with Bitcoin Core's `gettxoutsetinfo`.
//!
//! `hash_serialized_3` is the double SHA-256 over all coins in the order of the raw bytes of the txid, then
//! of the number of the output; `muhash` is [`MuHash`] over the same elements, in no order. The element of
//! a coin: outpoint (36 bytes), u32 `height << 1 | coinbase`, i64 value, script with its CompactSize; all
//! little-endian. Core: `kernel/coinstats.cpp`.
//!
//! Reads the store alone, in steps, so it is right for what was committed last, and while nothing commits.

use super::muhash::MuHash;
use crate::store::coin::Coin;
use crate::store::schema;
use crate::store::{Store, StoreError, Table, each_entry};
use bitcoin::consensus::Encodable;
use bitcoin::hashes::{Hash, HashEngine, sha256d};
use bitcoin::{OutPoint, Txid};

/// What the committed set of unspent outputs amounts to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UtxoStats {
    /// Core's `hash_serialized_3`.
    pub hash_serialized_3: sha256d::Hash,
    /// Core's `muhash`, in the order SHA-256 gives the bytes; Core displays them reversed.
    pub muhash: [u8; 32],
    /// Unspent outputs.
    pub txouts: u64,
    /// Their value in satoshis.
    pub total_amount_sat: u64,
}

/// Hashes all coins of a store.
///
/// # Errors
/// The store's, and keys or coins that cannot be decoded.
pub fn utxo_stats(store: &dyn Store) -> Result<UtxoStats, StoreError> {
    let mut serialized = sha256d::Hash::engine();
    let mut muhash = MuHash::new();
    let (mut txouts, mut total) = (0u64, 0u64);
    let mut run: Vec<(u32, Coin)> = Vec::new();
    let mut txid: Option<Txid> = None;
    let mut element = Vec::new();
    let mut absorb = |txid: Txid, run: &mut Vec<(u32, Coin)>| {
        // The keys' order of the numbers is the schema's; the hash wants them ascending.
        run.sort_unstable_by_key(|(vout, _)| *vout);
        for (vout, coin) in run.drain(..) {
            serialise(&mut element, &OutPoint::new(txid, vout), &coin);
            serialized.input(&element);
            muhash.insert(&element);
            txouts += 1;
            total = total.saturating_add(coin.output.value.to_sat());
        }
    };
    each_entry(store, Table::Coins, |entries| {
        for (key, value) in entries {
            let outpoint = schema::decode_coin_key(&key)?;
            if txid != Some(outpoint.txid) {
                if let Some(txid) = txid {
                    absorb(txid, &mut run);
                }
                txid = Some(outpoint.txid);
            }
            run.push((outpoint.vout, schema::decode_coin(&key, &value)?));
        }
        Ok(())
    })?;
    if let Some(txid) = txid {
        absorb(txid, &mut run);
    }
    Ok(UtxoStats {
        hash_serialized_3: sha256d::Hash::from_engine(serialized),
        muhash: muhash.digest(),
        txouts,
        total_amount_sat: total,
    })
}

/// The element of a coin in both hashes.
pub fn serialise(out: &mut Vec<u8>, outpoint: &OutPoint, coin: &Coin) {
    out.clear();
    out.extend_from_slice(outpoint.txid.as_byte_array());
    out.extend_from_slice(&outpoint.vout.to_le_bytes());
    out.extend_from_slice(&(coin.height << 1 | u32::from(coin.coinbase)).to_le_bytes());
    out.extend_from_slice(&coin.output.value.to_sat().to_le_bytes());
    // Writing to a vector does not fail.
    let _ = coin.output.script_pubkey.consensus_encode(out);
}
