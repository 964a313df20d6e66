//! The rules of a block that need the coins it spends: what Core's `ConnectBlock` (validation.cpp) checks
//! besides scripts.
//!
//! 1. Where [`Rules::bip30`](crate::chain::deployments::Rules) says so, the caller looks for coins that
//!    the block's outputs would overwrite: [`OVERWRITES`].
//! 2. For each transaction in order, the caller resolves its coins and calls [`CoinRules::transaction`].
//! 3. [`CoinRules::finish`] checks what the coinbase pays.
//! 4. Only then is the verdict of the scripts looked at: a failure of theirs is reported last.

use super::block::CheckedBlock;
use super::locktime::SequenceLocks;
use super::sigops::{MAX_BLOCK_SIGOPS_COST, WITNESS_SCALE_FACTOR, spent_sigop_cost_of};
use super::subsidy::block_subsidy;
use super::transaction::{MAX_MONEY, SpentCoin, check_tx_inputs, value_out};
use crate::chain::command::BlockContext;
use crate::chain::params::Params;
use crate::error::Reject;
use bitcoin::Amount;

/// A transaction would overwrite a coin that is unspent (BIP30).
pub const OVERWRITES: Reject = Reject::consensus("bad-txns-BIP30");

/// What a connected block amounted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Fees of all transactions.
    pub fees: Amount,
    /// Signature operations, in units (BIP141).
    pub sigop_cost: u64,
}

/// Walks over the transactions of a block and adds up what is limited per block.
#[derive(Debug)]
pub struct CoinRules<'a> {
    block: &'a CheckedBlock,
    context: &'a BlockContext,
    halving_interval: u32,
    next: usize,
    fees: u64,
    sigop_cost: u64,
}

impl<'a> CoinRules<'a> {
    /// Starts before the coinbase.
    pub fn new(block: &'a CheckedBlock, context: &'a BlockContext, params: &Params) -> Self {
        let halving_interval = params.halving_interval;
        Self { block, context, halving_interval, next: 0, fees: 0, sigop_cost: 0 }
    }

    /// Checks the next transaction. `coins` are those its inputs spend, in order (none for the coinbase,
    /// which is the first). `mtp_at(h)` is the median time past (Unix seconds) of the block at height `h`
    /// among the ancestors; it is asked only for inputs with a relative lock time that counts time.
    ///
    /// # Errors
    /// As [`check_tx_inputs`]; `bad-txns-accumulated-fee-outofrange`, `bad-txns-nonfinal` (BIP68),
    /// `bad-blk-sigops`; and what `mtp_at` fails with.
    pub fn transaction<E: From<Reject>>(
        &mut self,
        coins: &[SpentCoin<'_>],
        mtp_at: impl FnMut(u32) -> Result<u32, E>,
    ) -> Result<(), E> {
        let index = self.next;
        let Some(tx) = self.block.transactions().get(index) else { return Ok(()) };
        self.next += 1;
        if index > 0 {
            let fee = check_tx_inputs(tx, coins, self.context.height).map_err(|r| self.in_tx(index, r))?;
            self.fees = self.fees.saturating_add(fee.to_sat());
            if self.fees > MAX_MONEY {
                return Err(Reject::consensus("bad-txns-accumulated-fee-outofrange").into());
            }
            if self.context.rules.csv {
                let locks = SequenceLocks::new(tx, coins.iter().map(|coin| coin.height), mtp_at)?;
                if !locks.satisfied(self.context.height, self.context.parent_mtp) {
                    return Err(self.in_tx(index, Reject::consensus("bad-txns-nonfinal")).into());
                }
            }
        }
        let scripts = coins.iter().map(|coin| coin.output.script_pubkey.as_script());
        self.sigop_cost += WITNESS_SCALE_FACTOR * self.block.legacy_sigops(index)
            + spent_sigop_cost_of(tx, scripts, self.context.rules.script_flags);
        if self.sigop_cost > MAX_BLOCK_SIGOPS_COST {
            return Err(Reject::consensus("bad-blk-sigops").with_detail("too many sigops").into());
        }
        Ok(())
    }

    /// Checks that the coinbase pays no more than fees and subsidy, once every transaction was walked over.
    ///
    /// # Errors
    /// `bad-cb-amount`.
    pub fn finish(self) -> Result<Totals, Reject> {
        debug_assert_eq!(self.next, self.block.transactions().len());
        let subsidy = block_subsidy(self.context.height, self.halving_interval);
        let limit = self.fees.saturating_add(subsidy.to_sat());
        let paid = self.block.transactions().first().map_or(0, value_out);
        if paid > limit {
            return Err(Reject::consensus("bad-cb-amount")
                .with_detail(format!("coinbase pays too much (actual={paid} vs limit={limit})")));
        }
        Ok(Totals { fees: Amount::from_sat(self.fees), sigop_cost: self.sigop_cost })
    }

    fn in_tx(&self, index: usize, reject: Reject) -> Reject {
        let Some(txid) = self.block.txids().get(index) else { return reject };
        let detail = match reject.detail.as_ref() {
            "" => format!("in transaction {txid}"),
            detail => format!("{detail} in transaction {txid}"),
        };
        reject.with_detail(detail)
    }
}
