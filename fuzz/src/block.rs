//! Blocks from bytes, beside rust-bitcoin's reading, and the rules that need no context.
//!
//! Input: bit 0 of the first byte: the block is given the right merkle root and proof of work; the block.

use bitcoin::consensus::encode::deserialize_partial;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::{Block, CompactTarget, Transaction};
use headlong::chain::params::{Network, Params};
use headlong::consensus::block::check_block;
use headlong::consensus::decode::{DecodedBlock, decode_block, decode_transaction};
use headlong::sim::forge::mine;
use std::sync::{Arc, OnceLock};

fn params() -> &'static Params {
    static PARAMS: OnceLock<Params> = OnceLock::new();
    PARAMS.get_or_init(|| Params::new(Network::Regtest))
}

pub fn run(data: &[u8]) {
    let Some((mode, bytes)) = data.split_first() else { return };
    let ours = decode_block(Arc::new(bytes.to_vec()));
    let theirs = deserialize_partial::<Block>(bytes);
    match (&ours, &theirs) {
        (Ok(ours), Ok((theirs, size))) => {
            assert_eq!(ours.block(), theirs);
            assert_eq!(ours.size(), *size);
            check_sizes(ours, theirs);
        }
        // The two differences that the module names.
        (Ok(ours), Err(_)) => assert!(has_bare(&ours.block().txdata), "{:?}", theirs),
        (Err(error), Ok((theirs, _))) => assert!(has_bare(&theirs.txdata), "{error}"),
        (Err(_), Err(_)) => {}
    }
    let Ok(decoded) = ours else { return };
    assert_eq!(decoded.raw(), &bytes[..decoded.size()]);
    for index in 0..decoded.transactions().len() {
        let raw = decoded.raw_transaction(index);
        assert_eq!(decode_transaction(raw).as_ref(), Ok(&decoded.transactions()[index]));
    }
    let mut block = decoded.block().clone();
    if mode & 1 == 1 && !block.txdata.is_empty() {
        block.header.bits = CompactTarget::from_consensus(0x207f_ffff);
        mine(&mut block);
        let mut sealed = serialize(&block.header);
        sealed.extend_from_slice(&decoded.raw()[80..]);
        check_rules(decode_block(Arc::new(sealed)).expect("as it was, but for the header"));
    } else {
        check_rules(decoded);
    }
}

fn has_bare(transactions: &[Transaction]) -> bool {
    transactions.iter().any(|tx| tx.input.is_empty())
}

fn check_sizes(ours: &DecodedBlock, theirs: &Block) {
    assert_eq!(ours.hash(), theirs.block_hash());
    if has_bare(&theirs.txdata) {
        return;
    }
    assert_eq!(ours.weight() as u64, theirs.weight().to_wu());
    assert_eq!(ours.raw(), serialize(theirs));
    for (index, tx) in theirs.txdata.iter().enumerate() {
        assert_eq!(ours.txids()[index], tx.compute_txid());
        assert_eq!(ours.wtxids()[index], tx.compute_wtxid());
        assert_eq!(ours.transaction_base_size(index), tx.base_size());
        assert_eq!(deserialize::<Transaction>(ours.raw_transaction(index)).as_ref().ok(), Some(tx));
    }
}

fn check_rules(decoded: DecodedBlock) {
    let block = decoded.block().clone();
    match check_block(decoded, params(), |_| true) {
        Ok(checked) => {
            let header = checked.header();
            assert!(header.target().is_met_by(header.block_hash()));
            assert!(block.check_merkle_root());
            assert!(block.txdata[0].is_coinbase());
            assert!(!block.txdata[1..].iter().any(Transaction::is_coinbase));
            assert!(block.weight().to_wu() <= 4_000_000);
            let spent = |tx: &Transaction| tx.output.iter().map(|output| output.value.to_sat()).sum::<u64>();
            assert!(block.txdata.iter().all(|tx| spent(tx) <= 21_000_000 * 100_000_000));
        }
        Err(reject) if reject.reason == "bad-txnmrklroot" => assert!(!block.check_merkle_root()),
        Err(_) => {}
    }
}
