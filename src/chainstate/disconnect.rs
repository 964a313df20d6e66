//! Disconnecting a block with its undo data, and carrying blocks out or back blindly after a crash.
//!
//! [`disconnect`] follows Core's `DisconnectBlock` (validation.cpp): transactions in reverse order; the
//! outputs must be there as the block made them and are removed; the spent coins come back and must not be
//! there. Core calls any difference unclean; here it is an error, since nothing but a defect or a damaged
//! store can cause it. The coinbases of two blocks before BIP30 were overwritten by later ones and may be
//! missing.
//!
//! [`roll_back`] and [`roll_forward`] are for recovery (Core's `ReplayBlocks`): the store holds an unknown
//! part of the effects, so nothing is compared. All they do is idempotent, and the last of all operations
//! on an outpoint decides, so that the result is right whatever was there before.

use super::coins::{Coins, Lookup};
use crate::chain::command::BlockRef;
use crate::chain::deployments::is_bip30_unspendable;
use crate::consensus::decode::DecodedBlock;
use crate::consensus::transaction::is_unspendable;
use crate::error::Error;
use crate::store::coin::Coin;
use bitcoin::{OutPoint, Transaction, Txid};

/// Undoes the tip. No block is unproved.
///
/// # Errors
/// A storage failure; [`Error::Bug`] if coins and undo data do not fit the block.
pub fn disconnect(coins: &mut Coins, block: &DecodedBlock, at: BlockRef, undo: &[Coin]) -> Result<(), Error> {
    if coins.unproved() > 0 {
        return Err(Error::Bug("a block is disconnected while others are not proved"));
    }
    coins.fetch(touched(block).into_iter())?;
    let may_be_missing = is_bip30_unspendable(at);
    for (index, tx, txid, spent) in reversed(block, undo)? {
        for (outpoint, output) in outputs(tx, txid) {
            let made = Coin { height: at.height, coinbase: index == 0, output: output.clone() };
            let found = coins.peek(&outpoint)?;
            if found != Lookup::Coin(made) && !(index == 0 && may_be_missing) {
                return Err(Error::Bug("an output of a block to disconnect is not as the block made it"));
            }
            coins.remove(outpoint);
        }
        for (input, coin) in tx.input.iter().zip(spent).rev() {
            if coins.has(&input.previous_output) {
                return Err(Error::Bug("a coin that a block to disconnect spent is there"));
            }
            coins.add(input.previous_output, coin, false);
        }
    }
    Ok(())
}

/// Undoes a block whose effects may be there in part.
///
/// # Errors
/// [`Error::Bug`] if the undo data does not fit the block.
pub fn roll_back(coins: &mut Coins, block: &DecodedBlock, undo: &[Coin]) -> Result<(), Error> {
    for (_, tx, txid, spent) in reversed(block, undo)? {
        outputs(tx, txid).for_each(|(outpoint, _)| coins.remove(outpoint));
        for (input, coin) in tx.input.iter().zip(spent) {
            coins.add(input.previous_output, coin, true);
        }
    }
    Ok(())
}

/// Carries out a block whose effects may be there in part.
pub fn roll_forward(coins: &mut Coins, block: &DecodedBlock, height: u32) {
    for (index, (tx, txid)) in block.transactions().iter().zip(block.txids()).enumerate() {
        if index > 0 {
            tx.input.iter().for_each(|input| coins.remove(input.previous_output));
        }
        for (outpoint, output) in outputs(tx, *txid) {
            let coin = Coin { height, coinbase: index == 0, output: output.clone() };
            coins.add(outpoint, &coin, true);
        }
    }
}

/// A transaction, its place, its id and the coins it spent.
type Step<'a> = (usize, &'a Transaction, Txid, &'a [Coin]);

/// The transactions from the last to the first.
fn reversed<'a>(block: &'a DecodedBlock, undo: &'a [Coin]) -> Result<Vec<Step<'a>>, Error> {
    const MISFIT: Error = Error::Bug("the undo data does not fit its block");
    let mut rest = undo;
    let mut steps = Vec::with_capacity(block.transactions().len());
    for (index, (tx, txid)) in block.transactions().iter().zip(block.txids()).enumerate() {
        let inputs = if index == 0 { 0 } else { tx.input.len() };
        steps.push((index, tx, *txid, rest.split_off(..inputs).ok_or(MISFIT)?));
    }
    if !rest.is_empty() {
        return Err(MISFIT);
    }
    steps.reverse();
    Ok(steps)
}

/// The outputs that are coins.
fn outputs(tx: &Transaction, txid: Txid) -> impl Iterator<Item = (OutPoint, &bitcoin::TxOut)> {
    (0u32..)
        .zip(&tx.output)
        .filter(|(_, output)| !is_unspendable(&output.script_pubkey))
        .map(move |(vout, output)| (OutPoint::new(txid, vout), output))
}

/// All outpoints that the block created or spent.
fn touched(block: &DecodedBlock) -> Vec<OutPoint> {
    let mut all = Vec::new();
    for (index, (tx, txid)) in block.transactions().iter().zip(block.txids()).enumerate() {
        all.extend(outputs(tx, *txid).map(|(outpoint, _)| outpoint));
        if index > 0 {
            all.extend(tx.input.iter().map(|input| input.previous_output));
        }
    }
    all
}
