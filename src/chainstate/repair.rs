//! What is needed to undo a block, and how it is had back where the files are damaged.
//!
//! 1. The block's bytes are in the block files alone: damaged, they have to be fetched again.
//! 2. Its undo data is taken from the undo files. Damaged, it is made anew: each coin that the block spent
//!    was made by the nearest ancestor that holds its transaction, or by the block itself. The stored blocks
//!    are read from the block downwards until all are found; memory is one block and the coins. How far down
//!    that is, the oldest coin decides: on a large chain it may take hours.
//! 3. A damaged ancestor on that way has to be fetched again first. A pruned one is not: all below it is gone too, and
//!    would have to be fetched one by one. The way ends there.

use super::archive::Archive;
use crate::chain::command::BlockRef;
use crate::consensus::decode::{DecodedBlock, decode_block};
use crate::error::Error;
use crate::store::coin::Coin;
use crate::store::{StoreError, StoreErrorKind};
use bitcoin::{BlockHash, OutPoint, Txid};
use hashbrown::{HashMap, HashSet};
use std::sync::Arc;

/// Why a block cannot be undone now: this block's bytes, its own or an ancestor's, are damaged or gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lost(pub BlockRef);

/// What undoes a block.
#[derive(Debug)]
pub(super) struct Undo {
    /// The block.
    pub block: DecodedBlock,
    /// The coins that it spent, in the order of its inputs.
    pub coins: Vec<Coin>,
    /// Whether they had to be looked for, because the undo data is damaged.
    pub rebuilt: bool,
}

/// A stored block; `None` if it is not stored or damaged.
///
/// # Errors
/// A storage failure.
pub(super) fn stored(archive: &Archive, hash: &BlockHash) -> Result<Option<DecodedBlock>, StoreError> {
    let decoded = archive.read_block(hash)?.and_then(|bytes| decode_block(Arc::new(bytes)).ok());
    Ok(decoded.filter(|block| block.hash() == *hash))
}

/// What undoes a block; the inner error is what has to be stored again first.
///
/// # Errors
/// A storage failure; `Corrupt` if no ancestor made a coin that it spent; `Pruned` if the undo data is gone and such
/// an ancestor too.
pub(super) fn to_disconnect(archive: &Archive, at: BlockRef) -> Result<Result<Undo, Lost>, Error> {
    let Some(block) = stored(archive, &at.hash)? else {
        // Without undo data the block alone would not help.
        return if archive.is_pruned(&at.hash)? && archive.spent_coins(&at.hash)?.is_none() {
            Err(pruned(at))
        } else {
            Ok(Err(Lost(at)))
        };
    };
    let inputs = spent(&block).count();
    if let Some(coins) = archive.spent_coins(&at.hash)?.filter(|coins| coins.len() == inputs) {
        return Ok(Ok(Undo { block, coins, rebuilt: false }));
    }
    Ok(rebuild(archive, &block, at)?.map(|coins| Undo { block, coins, rebuilt: true }))
}

fn pruned(at: BlockRef) -> Error {
    Error::Pruned { hash: at.hash, height: at.height }
}

/// The outpoints that a block spends, in order.
fn spent(block: &DecodedBlock) -> impl Iterator<Item = OutPoint> + '_ {
    let inputs = block.transactions().iter().skip(1).flat_map(|tx| &tx.input);
    inputs.map(|input| input.previous_output)
}

/// The coins that a block spent, from the blocks that made them.
fn rebuild(archive: &Archive, block: &DecodedBlock, at: BlockRef) -> Result<Result<Vec<Coin>, Lost>, Error> {
    let mut search = Search::new(block);
    // What it made itself; its coinbase is too young to be spent in it.
    search.look_at(block, at.height, true);
    let (mut height, mut hash) = (at.height, block.header().prev_blockhash);
    while !search.is_done() {
        height = height.saturating_sub(1);
        if height == 0 {
            let context = format!(
                "the undo data of block {} is damaged, and no stored block made what it spent: the data \
                 directory has to be synced anew",
                at.hash
            );
            return Err(StoreError::new(StoreErrorKind::Corrupt, context).into());
        }
        let Some(ancestor) = stored(archive, &hash)? else {
            let gone = archive.is_pruned(&hash)?;
            return if gone { Err(pruned(at)) } else { Ok(Err(Lost(BlockRef { height, hash }))) };
        };
        search.look_at(&ancestor, height, false);
        hash = ancestor.header().prev_blockhash;
    }
    Ok(Ok(spent(block).filter_map(|outpoint| search.found.remove(&outpoint)).collect()))
}

/// The coins that are looked for.
struct Search {
    wanted: HashSet<OutPoint, foldhash::fast::RandomState>,
    /// The transactions that made them and are not found.
    open: HashSet<Txid, foldhash::fast::RandomState>,
    found: HashMap<OutPoint, Coin, foldhash::fast::RandomState>,
}

impl Search {
    fn new(block: &DecodedBlock) -> Self {
        let wanted: HashSet<OutPoint, _> = spent(block).collect();
        let open = wanted.iter().map(|outpoint| outpoint.txid).collect();
        Self { wanted, open, found: HashMap::default() }
    }

    fn is_done(&self) -> bool {
        self.open.is_empty()
    }

    /// Takes what this block made. The first block that is looked at wins: where a coinbase was repeated, the
    /// newer one had replaced the older.
    fn look_at(&mut self, block: &DecodedBlock, height: u32, itself: bool) {
        let transactions = block.transactions().iter().zip(block.txids()).enumerate();
        for (index, (tx, txid)) in transactions.skip(usize::from(itself)) {
            if !self.open.remove(txid) {
                continue;
            }
            for (vout, output) in (0u32..).zip(&tx.output) {
                let outpoint = OutPoint::new(*txid, vout);
                if self.wanted.contains(&outpoint) {
                    let coin = Coin { height, coinbase: index == 0, output: output.clone() };
                    self.found.insert(outpoint, coin);
                }
            }
        }
    }
}
