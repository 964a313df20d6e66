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

/// A stored block that is being read back.
#[derive(Debug)]
pub(super) struct Loading {
    height: u32,
    /// Of memory that it will take.
    bytes: usize,
}

impl Chainstate {
    /// Does what can be done for `next`, and for blocks behind it in the queue. `false` if its bytes cannot be had.
    pub(super) fn look_ahead(&mut self, next: BlockRef) -> Result<bool, Error> {
        let waiting = self.queue.iter().map_while(|command| match command {
            ChainCommand::Connect(context) => Some(context.block()),
            _ => None,
        });
        // Where no coins have to be looked for, it is enough that the next bodies are there.
        let most = if self.coins.is_complete() { READ_BACK_AT_ONCE } else { LOOK_AHEAD };
        let waiting: Vec<BlockRef> = waiting.take(most).collect();
        let (mut ahead, mut bytes, mut spent) = (Vec::new(), 0, 0);
        for block in &waiting {
            let Some(taken) = self.memory_of(&block.hash)? else {
                if *block == next {
                    return Ok(false);
                }
                break;
            };
            bytes += taken;
            if *block != next && (!self.bodies.fit(bytes) || self.coins.is_much(spent)) {
                break;
            }
            spent += self.bodies.get(&block.hash).map_or(0, |body| body.inputs());
            ahead.push(*block);
        }
        self.bodies.want(next.height, ahead.iter().map(|block| block.hash).collect());
        for block in &ahead {
            if !self.load(*block)? && *block == next {
                return Ok(false);
            }
        }
        if !self.coins.is_complete() {
            if self.prefetch.keep(&waiting) {
                self.coins.release();
            }
            self.start_prefetch(&ahead);
        }
        Ok(true)
    }

    /// What a block takes in memory, or would; `None` if it is not stored.
    fn memory_of(&self, hash: &BlockHash) -> Result<Option<usize>, Error> {
        if let Some(body) = self.bodies.get(hash) {
            return Ok(Some(bodies::memory(body.size())));
        }
        if let Some(loading) = self.loading.get(hash) {
            return Ok(Some(loading.bytes));
        }
        if self.checking.contains_key(hash) {
            // It comes with the others that are being checked, whether it fits or not.
            return Ok(Some(0));
        }
        Ok(self.archive.block_size(hash)?.map(bodies::memory))
    }

    /// Starts to look for the coins of blocks that are in memory.
    fn start_prefetch(&mut self, ahead: &[BlockRef]) {
        let waiting =
            |block: &&BlockRef| !self.prefetch.has(&block.hash) && self.bodies.contains(&block.hash);
        let count = ahead.iter().filter(waiting).count();
        let needed_now = ahead.first().filter(waiting).is_some();
        if count == 0 || !needed_now && count < ahead.len().div_ceil(2) {
            return;
        }
        let mut created: HashSet<Txid, foldhash::fast::RandomState> = HashSet::default();
        let (mut blocks, mut spent) = (Vec::new(), Vec::new());
        for BlockRef { hash, .. } in ahead {
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

    /// Starts to bring a stored block back into memory, unless enough others are on their way; `false` if its bytes cannot
    /// be had.
    fn load(&mut self, block: BlockRef) -> Result<bool, Error> {
        let hash = block.hash;
        if self.bodies.contains(&hash)
            || self.checking.contains_key(&hash)
            || self.loading.contains_key(&hash)
            || self.loading.len() >= READ_BACK_AT_ONCE
        {
            return Ok(true);
        }
        let Some(bytes) = self.archive.read_block(&hash)? else { return Ok(false) };
        self.loading.insert(hash, Loading { height: block.height, bytes: bodies::memory(bytes.len()) });
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
        let Some(Loading { height, .. }) = self.loading.remove(&hash) else { return Ok(()) };
        match result.map_err(|panic| Error::WorkerPanic(panic.0))? {
            Ok(body) if body.hash() == hash => self.bodies.insert(height, body),
            // It was good when it was stored, so the bytes are damaged; a new copy may be stored.
            Ok(_) | Err(CheckError::Rejected(_)) => self.archive.forget(&hash)?,
            Err(CheckError::Verifier(error)) => return Err(error.into()),
        }
        Ok(())
    }
}
