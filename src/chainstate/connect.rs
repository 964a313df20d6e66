//! Connecting a block: the rules that need coins, its effect on the coins, and its undo data.
//!
//! In the order of Core's `ConnectBlock` (validation.cpp):
//! 1. BIP30, where it is in force: no output may overwrite an unspent coin.
//! 2. Each transaction in order: its coins exist, then [`CoinRules::transaction`]; its coins are spent and
//!    its outputs become coins.
//! 3. What the coinbase pays.
//!
//! The coins that a block needs ([`needed`]) were brought into the cache before; one that is not there is asked for
//! when it is spent.
//!
//! The scripts are collected, not run. The coins are changed at once; [`Applied`] takes it back.

use super::coins::{Applied, Coins};
use crate::chain::command::{BlockContext, ScriptPolicy};
use crate::chain::params::Params;
use crate::consensus::block::CheckedBlock;
use crate::consensus::connect::{CoinRules, OVERWRITES};
use crate::consensus::transaction::{MISSING_INPUTS, SpentCoin, is_unspendable};
use crate::error::{Error, Reject};
use crate::store::StoreError;
use crate::store::coin::Coin;
use bitcoin::{OutPoint, Transaction, TxOut, Txid};

/// What a block does, if its scripts are satisfied.
#[derive(Debug)]
pub struct Connection {
    /// How to take it back, and its undo data.
    pub applied: Applied,
    /// The outputs that its inputs spend, in order, the coinbase's not among them; empty under
    /// `assumevalid`.
    pub spent: Vec<TxOut>,
}

/// Why a block was not connected.
#[derive(Debug)]
pub enum ConnectError {
    /// It breaks a rule.
    Rule(Reject),
    /// We cannot tell.
    Halt(Error),
}

impl From<Reject> for ConnectError {
    fn from(reject: Reject) -> Self {
        Self::Rule(reject)
    }
}

impl From<StoreError> for ConnectError {
    fn from(error: StoreError) -> Self {
        Self::Halt(error.into())
    }
}

/// Checks all rules of a block but its scripts, and changes `coins` accordingly. `mtps` are the median times past of
/// the ancestors by height, the parent's being in the context. After an error the coins are as they were.
///
/// # Errors
/// `bad-txns-BIP30`, `bad-txns-inputs-missingorspent`, those of [`CoinRules`]; a storage failure.
pub fn connect(
    coins: &mut Coins,
    block: &CheckedBlock,
    context: &BlockContext,
    params: &Params,
    mtps: &[u32],
) -> Result<Connection, ConnectError> {
    if context.rules.bip30 {
        coins.fetch(outpoints(block))?;
        if outpoints(block).any(|outpoint| coins.has(&outpoint)) {
            return Err(OVERWRITES.into());
        }
    }
    let outputs = block.transactions().iter().map(|tx| tx.output.len()).sum();
    let mut applied = Applied::new(context.height, block.inputs(), outputs);
    match apply(coins, block, context, params, mtps, &mut applied) {
        Ok(spent) => Ok(Connection { applied, spent }),
        Err(error) => {
            coins.take_back(&applied);
            Err(error)
        }
    }
}

/// Carries the transactions out one after the other; answers the outputs spent, if the scripts are to be executed.
fn apply(
    coins: &mut Coins,
    block: &CheckedBlock,
    context: &BlockContext,
    params: &Params,
    mtps: &[u32],
    applied: &mut Applied,
) -> Result<Vec<TxOut>, ConnectError> {
    let mtp_at = |height: u32| {
        if height.checked_add(1) == Some(context.height) {
            return Ok(context.parent_mtp);
        }
        let known = mtps.get(height as usize).copied();
        known.ok_or(ConnectError::Halt(Error::Bug("the median time past of an ancestor is not known")))
    };
    let mut rules = CoinRules::new(block, context, params);
    let verify = context.scripts == ScriptPolicy::Verify;
    let mut all_spent = Vec::with_capacity(if verify { block.inputs() } else { 0 });
    let mut spent: Vec<Coin> = Vec::new();
    for (index, (tx, txid)) in block.transactions().iter().zip(block.txids()).enumerate() {
        if index > 0 {
            for input in &tx.input {
                let coin = coins.spend(input.previous_output, applied).map_err(ConnectError::Halt)?;
                spent.push(coin.ok_or(MISSING_INPUTS)?);
            }
        }
        let views: Vec<SpentCoin<'_>> = spent
            .iter()
            .map(|coin| SpentCoin { output: &coin.output, height: coin.height, coinbase: coin.coinbase })
            .collect();
        rules.transaction(&views, mtp_at)?;
        create(coins, tx, *txid, context.height, index == 0, applied);
        let outputs = spent.drain(..).map(|coin| coin.output);
        if verify {
            all_spent.extend(outputs);
        }
    }
    rules.finish()?;
    Ok(all_spent)
}

/// The outpoints whose coins must come from below this block.
pub fn needed(block: &CheckedBlock) -> Vec<OutPoint> {
    let mut created: hashbrown::HashSet<Txid, foldhash::fast::RandomState> = Default::default();
    let mut needed = Vec::with_capacity(block.inputs());
    for (index, (tx, txid)) in block.transactions().iter().zip(block.txids()).enumerate() {
        if index > 0 {
            let spent = tx.input.iter().map(|input| input.previous_output);
            needed.extend(spent.filter(|outpoint| !created.contains(&outpoint.txid)));
        }
        created.insert(*txid);
    }
    needed
}

/// All outpoints that the block's outputs have, unspendable ones too.
fn outpoints(block: &CheckedBlock) -> impl Iterator<Item = OutPoint> + '_ {
    block
        .transactions()
        .iter()
        .zip(block.txids())
        .flat_map(|(tx, txid)| (0..tx.output.len() as u32).map(|vout| OutPoint::new(*txid, vout)))
}

fn create(
    coins: &mut Coins,
    tx: &Transaction,
    txid: Txid,
    height: u32,
    coinbase: bool,
    applied: &mut Applied,
) {
    for (vout, output) in (0u32..).zip(&tx.output) {
        if !is_unspendable(&output.script_pubkey) {
            coins.create(OutPoint::new(txid, vout), height, coinbase, output, applied);
        }
    }
}
