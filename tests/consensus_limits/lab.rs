//! A chainstate with a chain that is long enough, and questions to it.

use crate::draft::{Draft, Made, Place, front, medians};
use bitcoin::{OutPoint, Transaction};
use headlong::chain::params::{Params, RegtestOptions};
use headlong::chainstate::{BlockVerdict, Front};
use headlong::sim::forge::{Branch, Forge};
use std::collections::HashMap;
use std::sync::Arc;

/// Whether a refused hash is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    Remembered,
    Forgotten,
}

pub struct Lab {
    params: Arc<Params>,
    pub forge: Forge,
    pub front: Front,
    pub clock: u32,
    pub branch: Branch,
    times: Vec<u32>,
    coinbases: Vec<Transaction>,
    births: HashMap<OutPoint, u32>,
}

impl Lab {
    /// A chain of 112 blocks on a usual regtest.
    pub fn new() -> Self {
        Self::with(&RegtestOptions::default(), 112)
    }

    /// A chain of this height; the blocks behind the first hundred spend and split coins.
    pub fn with(options: &RegtestOptions, height: u32) -> Self {
        let params = Arc::new(Params::regtest(options));
        let forge = Forge::new(params.clone(), 4);
        let branch = forge.genesis(None);
        let genesis = branch.time;
        let clock = genesis + 600 * (height + 1) + 7_200;
        let front = front(&params, u64::from(clock));
        let mut lab = Self {
            params,
            forge,
            front,
            clock,
            branch,
            times: vec![genesis],
            coinbases: Vec::new(),
            births: HashMap::new(),
        };
        while lab.height() < height {
            let inputs = if lab.height() < 100 { 0 } else { 8 };
            lab.passes_with(inputs, |_| true);
        }
        lab
    }

    /// Height of the tip.
    pub fn height(&self) -> u32 {
        self.front.tip().height
    }

    /// A valid block for the tip, `after` seconds later.
    pub fn draft(&mut self, inputs: usize, after: i64) -> Draft<'_> {
        let parent_time = self.times[self.times.len() - 1];
        let height = self.height() + 1;
        let place = Place {
            height,
            parent_time,
            medians: medians(&self.times),
            clock: self.clock,
            segwit: height >= self.params.buried.segwit,
            period: height.is_multiple_of(self.params.difficulty_interval()),
            coinbases: self.coinbases.clone(),
        };
        let time = (i64::from(parent_time) + after) as u32;
        Draft::new(&mut self.forge, &self.births, &self.branch, place, time, inputs)
    }

    /// A changed block.
    pub fn make(&mut self, inputs: usize, edit: impl FnOnce(&mut Draft<'_>) -> bool) -> Made {
        let mut draft = self.draft(inputs, 600);
        assert!(edit(&mut draft), "the draft lacks what the edit needs");
        draft.finish(0)
    }

    /// Verdict and reason.
    pub fn submit(&mut self, bytes: &[u8]) -> (&'static str, &'static str) {
        match self.front.process_block(bytes.to_vec()).unwrap().1 {
            BlockVerdict::Connected => ("connected", ""),
            BlockVerdict::Side => ("side", ""),
            BlockVerdict::Duplicate => ("duplicate", ""),
            BlockVerdict::Rejected(reject) => ("rejected", reject.reason),
            other => panic!("{other:?}"),
        }
    }

    /// The next block with this change is connected.
    pub fn passes(&mut self, edit: impl FnOnce(&mut Draft<'_>) -> bool) {
        self.passes_with(0, edit);
    }

    pub fn passes_with(&mut self, inputs: usize, edit: impl FnOnce(&mut Draft<'_>) -> bool) {
        let made = self.make(inputs, edit);
        self.connects(made);
    }

    /// This block is connected, and everything goes on from it.
    pub fn connects(&mut self, made: Made) {
        assert_eq!(self.submit(&made.bytes), ("connected", ""), "at {}", self.height() + 1);
        assert_eq!(self.front.tip().hash, made.hash);
        let height = self.height();
        for tx in &made.block.txdata {
            let txid = tx.compute_txid();
            for vout in 0..tx.output.len() as u32 {
                self.births.entry(OutPoint { txid, vout }).or_insert(height);
            }
        }
        self.times.push(made.block.header.time);
        self.coinbases.push(made.block.txdata[0].clone());
        self.branch = made.branch;
        assert_eq!(self.submit(&made.bytes), ("duplicate", ""));
    }

    /// The next block with this change is refused for this reason, and the tip stays.
    pub fn fails(&mut self, reason: &str, memory: Memory, edit: impl FnOnce(&mut Draft<'_>) -> bool) {
        self.fails_with(0, reason, memory, edit);
    }

    pub fn fails_with(
        &mut self,
        inputs: usize,
        reason: &str,
        memory: Memory,
        edit: impl FnOnce(&mut Draft<'_>) -> bool,
    ) {
        let made = self.make(inputs, edit);
        self.refuses(&made, reason, memory);
    }

    /// This block is refused.
    pub fn refuses(&mut self, made: &Made, reason: &str, memory: Memory) {
        let tip = self.front.tip();
        assert_eq!(self.submit(&made.bytes), ("rejected", reason), "at {}", self.height() + 1);
        assert_eq!(self.front.tip(), tip);
        let again = match memory {
            Memory::Remembered => "duplicate-invalid",
            Memory::Forgotten => reason,
        };
        assert_eq!(self.submit(&made.bytes), ("rejected", again));
        assert_eq!(self.front.tip(), tip);
    }
}
