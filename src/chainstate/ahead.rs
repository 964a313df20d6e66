//! What is done for the blocks that connect next, while those before them do: they are read back into memory if they
//! are only in the block files, and the coins that they spend are looked for.
//!
//! Coins of several blocks are looked for together, in the order of their keys: the store then reads each of its pages
//! once for all of them. So that there are several, look-ups start when half of the blocks within view have come
//! together, or when the next block needs them.

use super::bodies;
use super::body::{BodyResult, check_body};
use super::coins::Found;
use super::connect::needed;
use super::pipeline::{Chainstate, Completion};
use crate::chain::command::{BlockRef, ChainCommand};
use crate::error::Error;
use crate::limits::{LOOK_AHEAD, READ_BACK_AT_ONCE};
use crate::verify::CheckError;
use crate::verify::pool::WorkerPanic;
use bitcoin::{BlockHash, Txid};
use hashbrown::HashSet;
use std::sync::Arc;

impl Chainstate {
    /// Does what can be done for `next`, and for blocks behind it in the queue. `false` if its bytes cannot be had.
    pub(super) fn look_ahead(&mut self, next: BlockRef) -> Result<bool, Error> {
        self.bodies.expect(next);
        let waiting = self.queue.iter().map_while(|command| match command {
            ChainCommand::Connect(context) => Some(context.block()),
            _ => None,
        });
        let waiting: Vec<BlockRef> = waiting.take(LOOK_AHEAD).collect();
        let (mut ahead, mut bytes, mut spent) = (Vec::new(), 0, 0);
        for (at, block) in waiting.iter().enumerate() {
            let crowded = self.bodies.is_much(bytes) || self.coins.is_much(spent);
            if at >= READ_BACK_AT_ONCE && (crowded || self.loading.len() >= READ_BACK_AT_ONCE) {
                break;
            }
            if !self.load(*block)? && *block == next {
                return Ok(false);
            }
            if let Some(body) = self.bodies.get(&block.hash) {
                bytes += bodies::memory(body);
                spent += body.inputs();
            }
            ahead.push(block.hash);
        }
        if !self.coins.is_complete() {
            if self.prefetch.keep(&waiting) {
                self.coins.release();
            }
            self.start_prefetch(&ahead);
        }
        Ok(true)
    }

    /// Starts to look for the coins of blocks that are in memory.
    fn start_prefetch(&mut self, ahead: &[BlockHash]) {
        let waiting = |hash: &&BlockHash| !self.prefetch.has(hash) && self.bodies.contains(hash);
        let count = ahead.iter().filter(waiting).count();
        let needed_now = ahead.first().filter(waiting).is_some();
        if count == 0 || !needed_now && count < ahead.len().div_ceil(2) {
            return;
        }
        let mut created: HashSet<Txid, foldhash::fast::RandomState> = HashSet::default();
        let (mut blocks, mut spent) = (Vec::new(), Vec::new());
        for hash in ahead {
            let Some(body) = self.bodies.get(hash) else { continue };
            if !self.prefetch.has(hash) {
                blocks.push(*hash);
                spent.extend(needed(body).into_iter().filter(|spent| !created.contains(&spent.txid)));
            }
            created.extend(body.txids());
        }
        let unknown = self.coins.unknown(spent.into_iter());
        self.prefetch.start(&blocks, &unknown, &self.store, &self.pool, &self.sender);
    }

    /// A part of a batch of coins was looked for.
    pub(super) fn fetched(&mut self, batch: u64, found: Result<Found, Error>) -> Result<(), Error> {
        self.prefetch.done(batch);
        self.coins.learn(&found?);
        Ok(())
    }

    /// Starts to bring a stored block back into memory; `false` if its bytes cannot be had.
    fn load(&mut self, block: BlockRef) -> Result<bool, Error> {
        let hash = block.hash;
        if self.bodies.contains(&hash)
            || self.loading.contains_key(&hash)
            || self.checking.contains_key(&hash)
        {
            return Ok(true);
        }
        let Some(bytes) = self.archive.read_block(&hash)? else { return Ok(false) };
        self.loading.insert(hash, block.height);
        let (params, verifier) = (self.params.clone(), self.scripts.verifier().clone());
        let (sender, effort) = (self.sender.clone(), self.gauges.check.clone());
        self.pool.run_first(
            move || effort.spend(1, || check_body(Arc::new(bytes), &params, &*verifier)),
            move |result| drop(sender.send(Completion::loaded(hash, result))),
        );
        Ok(true)
    }

    /// A stored block was read back.
    pub(super) fn loaded(
        &mut self,
        hash: BlockHash,
        result: Result<BodyResult, WorkerPanic>,
    ) -> Result<(), Error> {
        let Some(height) = self.loading.remove(&hash) else { return Ok(()) };
        match result.map_err(|panic| Error::WorkerPanic(panic.0))? {
            Ok(body) if body.hash() == hash => self.bodies.insert(height, body),
            // It was good when it was stored, so the bytes are damaged; a new copy may be stored.
            Ok(_) | Err(CheckError::Rejected(_)) => self.archive.forget(&hash)?,
            Err(CheckError::Verifier(error)) => return Err(error.into()),
        }
        Ok(())
    }
}
