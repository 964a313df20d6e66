//! Rules for a block that need no coins.
//!
//! 1. [`check_block`]: what needs nothing but the block (Core: `CheckBlock`). It makes a [`CheckedBlock`].
//! 2. [`contextual_check_block`]: lock times, height, witness commitment, weight (`ContextualCheckBlock`).
//! 3. [`is_mutated`]: the question asked about a block from a peer before all else, whose answer blames the
//!    peer and never the hash (`IsBlockMutated`).
//!
//! The rules of the header are in [`super::header`], those that need coins in [`super::connect`].

use super::decode::DecodedBlock;
use super::locktime::is_final;
use super::merkle::merkle_root;
use super::signet::{SignetSpend, signet_spend};
use super::sigops::{MAX_BLOCK_SIGOPS_COST, WITNESS_SCALE_FACTOR, legacy_sigops};
use super::transaction::{MAX_BLOCK_WEIGHT, check_transaction};
use crate::chain::command::BlockContext;
use crate::chain::params::Params;
use crate::chain::work::check_proof_of_work;
use crate::error::{Reject, RejectKind};
use bitcoin::Transaction;
use bitcoin::hashes::{Hash, HashEngine, sha256d};
use bitcoin::script::Builder;
use core::ops::Deref;

/// A block that passed [`check_block`]; nothing else can make one. Reads as the [`DecodedBlock`] it was.
#[derive(Clone, Debug)]
pub struct CheckedBlock {
    decoded: DecodedBlock,
    legacy_sigops: Vec<u32>,
    inputs: usize,
}

impl CheckedBlock {
    /// Signature operations that transaction `index` itself shows, not in units; 0 if there are fewer.
    pub fn legacy_sigops(&self, index: usize) -> u64 {
        self.legacy_sigops.get(index).copied().map_or(0, u64::from)
    }

    /// Inputs of all transactions but the coinbase.
    pub fn inputs(&self) -> usize {
        self.inputs
    }
}

impl Deref for CheckedBlock {
    type Target = DecodedBlock;

    fn deref(&self) -> &DecodedBlock {
        &self.decoded
    }
}

/// Checks a block by itself, in the order of Core's `CheckBlock`. `solved` is asked whether the script of a
/// signet block's solution succeeds under [`super::signet::SIGNET_SCRIPT_FLAGS`]; on other networks never.
/// ([`crate::verify::check_block`] does that with a verifier.)
///
/// # Errors
/// `high-hash` (an invalid header), `bad-signet-blksig`, `bad-txnmrklroot`, `bad-txns-duplicate` (both
/// `Mutated`), `bad-blk-length`, `bad-cb-missing`, `bad-cb-multiple`, those of [`check_transaction`],
/// `bad-blk-sigops`.
pub fn check_block(
    block: DecodedBlock,
    params: &Params,
    solved: impl FnOnce(&SignetSpend) -> bool,
) -> Result<CheckedBlock, Reject> {
    if !check_proof_of_work(&block.hash(), block.header().bits.to_consensus(), params) {
        return Err(Reject::new(RejectKind::InvalidHeader, "high-hash").with_detail("proof of work failed"));
    }
    if let Some(challenge) = &params.signet_challenge
        && block.hash() != params.genesis_hash()
        && !signet_spend(&block, challenge).is_some_and(|spend| solved(&spend))
    {
        return Err(Reject::consensus("bad-signet-blksig"));
    }
    check_merkle_root(&block)?;

    let transactions = block.transactions();
    let most = MAX_BLOCK_WEIGHT / 4;
    if transactions.is_empty() || transactions.len() > most || block.base_size() > most {
        return Err(Reject::consensus("bad-blk-length"));
    }
    if !transactions[0].is_coinbase() {
        return Err(Reject::consensus("bad-cb-missing"));
    }
    if transactions[1..].iter().any(Transaction::is_coinbase) {
        return Err(Reject::consensus("bad-cb-multiple"));
    }
    for (tx, txid) in transactions.iter().zip(block.txids()) {
        check_transaction(tx).map_err(|reject| reject.with_detail(format!("in transaction {txid}")))?;
    }
    let legacy_sigops: Vec<u64> = transactions.iter().map(legacy_sigops).collect();
    if WITNESS_SCALE_FACTOR * legacy_sigops.iter().sum::<u64>() > MAX_BLOCK_SIGOPS_COST {
        return Err(Reject::consensus("bad-blk-sigops").with_detail("out-of-bounds SigOpCount"));
    }
    let inputs = transactions[1..].iter().map(|tx| tx.input.len()).sum();
    // Their sum was just found to be small.
    let legacy_sigops = legacy_sigops.into_iter().map(|count| count as u32).collect();
    Ok(CheckedBlock { decoded: block, legacy_sigops, inputs })
}

/// Checks a block in its place, in the order of Core's `ContextualCheckBlock`.
///
/// # Errors
/// `bad-txns-nonfinal`, `bad-cb-height`, `bad-witness-nonce-size`, `bad-witness-merkle-match`,
/// `unexpected-witness` (these three `Mutated`), `bad-blk-weight`.
pub fn contextual_check_block(block: &CheckedBlock, context: &BlockContext) -> Result<(), Reject> {
    let rules = &context.rules;
    let cutoff = if rules.csv { context.parent_mtp } else { block.header().time };
    for (tx, txid) in block.transactions().iter().zip(block.txids()) {
        if !is_final(tx, context.height, cutoff) {
            return Err(
                Reject::consensus("bad-txns-nonfinal").with_detail(format!("non-final transaction {txid}"))
            );
        }
    }
    if rules.bip34 {
        let expected = Builder::new().push_int(i64::from(context.height)).into_script();
        let script = block.transactions().first().and_then(|tx| tx.input.first()).map(|i| &i.script_sig);
        if !script.is_some_and(|script| script.as_bytes().starts_with(expected.as_bytes())) {
            return Err(Reject::consensus("bad-cb-height"));
        }
    }
    check_witness_malleation(block, rules.segwit)?;
    if block.weight() > MAX_BLOCK_WEIGHT {
        return Err(Reject::consensus("bad-blk-weight"));
    }
    Ok(())
}

/// Whether a body may have been changed on its way, so that nothing is known about its hash: the roots do
/// not fit, the list of transactions repeats itself, or, without a coinbase, a transaction of 64 bytes may
/// be an inner node of the merkle tree. Core asks this of blocks from peers whose parent is known, with
/// `segwit` as in force for a child of that parent, and parts with the peer.
pub fn is_mutated(block: &DecodedBlock, segwit: bool) -> bool {
    if check_merkle_root(block).is_err() {
        return true;
    }
    if !block.transactions().first().is_some_and(Transaction::is_coinbase) {
        return (0..block.transactions().len()).any(|i| block.transaction_base_size(i) == 64);
    }
    check_witness_malleation(block, segwit).is_err()
}

/// Position of the output that commits to the witnesses: the last of the coinbase's that has the form.
pub fn witness_commitment_index(transactions: &[Transaction]) -> Option<usize> {
    const FORM: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
    transactions.first()?.output.iter().rposition(|output| {
        let script = output.script_pubkey.as_bytes();
        script.len() >= 38 && script.starts_with(&FORM)
    })
}

fn check_merkle_root(block: &DecodedBlock) -> Result<(), Reject> {
    let (root, mutated) = merkle_root(block.txids().iter().map(|txid| txid.to_raw_hash()).collect());
    if block.header().merkle_root.to_raw_hash() != root {
        return Err(
            Reject::new(RejectKind::Mutated, "bad-txnmrklroot").with_detail("hashMerkleRoot mismatch")
        );
    }
    if mutated {
        return Err(
            Reject::new(RejectKind::Mutated, "bad-txns-duplicate").with_detail("duplicate transaction")
        );
    }
    Ok(())
}

/// Checks that the witnesses are those that the coinbase commits to, or that there are none.
fn check_witness_malleation(block: &DecodedBlock, expect_commitment: bool) -> Result<(), Reject> {
    let mutated = |reason| Err(Reject::new(RejectKind::Mutated, reason));
    let transactions = block.transactions();
    if expect_commitment && let Some(at) = witness_commitment_index(transactions) {
        let coinbase = &transactions[0];
        let witness = coinbase.input.first().map(|input| &input.witness);
        let Some(reserved) =
            witness.filter(|w| w.len() == 1).and_then(|w| w.nth(0)).filter(|r| r.len() == 32)
        else {
            return mutated("bad-witness-nonce-size");
        };
        let mut leaves = vec![sha256d::Hash::all_zeros()];
        leaves.extend(block.wtxids().iter().skip(1).map(|wtxid| wtxid.to_raw_hash()));
        // A mutation of this tree shows in that of the ids.
        let (root, _) = merkle_root(leaves);
        let mut engine = sha256d::Hash::engine();
        engine.input(root.as_byte_array());
        engine.input(reserved);
        let commitment = sha256d::Hash::from_engine(engine);
        let committed = coinbase.output.get(at).and_then(|output| output.script_pubkey.as_bytes().get(6..38));
        if committed != Some(commitment.as_byte_array().as_slice()) {
            return mutated("bad-witness-merkle-match");
        }
        return Ok(());
    }
    if (0..transactions.len()).any(|i| block.has_witness(i)) {
        return mutated("unexpected-witness");
    }
    Ok(())
}
