//! What is true in a simulated world: all blocks that were ever forged, whether each is valid, and the coins
//! after it, worked out by naive code that shares nothing with the chainstate.

use crate::chain::command::BlockRef;
use crate::store::coin::Coin;
use bitcoin::{Block, BlockHash, OutPoint};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The coins after a block.
pub type CoinSet = BTreeMap<OutPoint, Coin>;

#[derive(Debug)]
struct Page {
    block: Arc<Block>,
    height: u32,
    /// Valid itself, and all its ancestors.
    valid: bool,
}

/// All blocks of a world.
#[derive(Debug)]
pub struct Ledger {
    pages: HashMap<BlockHash, Page>,
    coins: Mutex<HashMap<BlockHash, Arc<CoinSet>>>,
}

impl Ledger {
    /// A ledger with the genesis block, whose coinbase is no coin.
    pub fn new(genesis: &Block) -> Self {
        let block = BlockRef { height: 0, hash: genesis.block_hash() };
        let page = Page { block: Arc::new(genesis.clone()), height: 0, valid: true };
        Self {
            pages: HashMap::from([(block.hash, page)]),
            coins: Mutex::new(HashMap::from([(block.hash, Arc::default())])),
        }
    }

    /// Enters a block whose parent is known; `valid` says whether it keeps all rules by itself. A block
    /// above an invalid one is invalid.
    ///
    /// # Panics
    /// If the parent is not known: the world is wrong, not what is tested in it.
    pub fn enter(&mut self, block: &Block, valid: bool) -> BlockRef {
        let parent = &self.pages[&block.header.prev_blockhash];
        let page =
            Page { block: Arc::new(block.clone()), height: parent.height + 1, valid: valid && parent.valid };
        let entered = BlockRef { height: page.height, hash: block.block_hash() };
        self.pages.insert(entered.hash, page);
        entered
    }

    /// Whether a block was entered and is valid with all its ancestors.
    pub fn is_valid(&self, hash: &BlockHash) -> bool {
        self.pages.get(hash).is_some_and(|page| page.valid)
    }

    /// The parent of a block; `None` for the genesis block and unknown ones.
    pub fn parent(&self, hash: &BlockHash) -> Option<BlockRef> {
        let parent = self.pages.get(hash)?.block.header.prev_blockhash;
        let page = self.pages.get(&parent)?;
        Some(BlockRef { height: page.height, hash: parent })
    }

    /// Whether `a` is `b` or an ancestor of it.
    pub fn is_ancestor(&self, a: BlockRef, b: BlockRef) -> bool {
        let mut at = b;
        while at.height > a.height {
            match self.parent(&at.hash) {
                Some(parent) => at = parent,
                None => return false,
            }
        }
        at == a
    }

    /// The coins after a valid block.
    ///
    /// # Panics
    /// If the block is not known.
    pub fn coins(&self, hash: &BlockHash) -> Arc<CoinSet> {
        let mut known = self.coins.lock();
        let mut ahead = Vec::new();
        let mut at = *hash;
        let below = loop {
            if let Some(coins) = known.get(&at) {
                break coins.clone();
            }
            let page = &self.pages[&at];
            ahead.push(page);
            at = page.block.header.prev_blockhash;
        };
        if ahead.is_empty() {
            return below;
        }
        let mut coins = (*below).clone();
        for page in ahead.into_iter().rev() {
            replay(&mut coins, &page.block, page.height);
        }
        let coins = Arc::new(coins);
        known.insert(*hash, coins.clone());
        coins
    }

    /// The first output of the coinbase, or of the last transaction, of a block.
    pub fn some_outpoint(&self, hash: &BlockHash, last: bool) -> Option<OutPoint> {
        let block = &self.pages.get(hash)?.block;
        let tx = if last { block.txdata.last() } else { block.txdata.first() }?;
        Some(OutPoint::new(tx.compute_txid(), 0))
    }
}

fn replay(coins: &mut CoinSet, block: &Block, height: u32) {
    for (index, tx) in block.txdata.iter().enumerate() {
        if index > 0 {
            for input in &tx.input {
                coins.remove(&input.previous_output);
            }
        }
        let txid = tx.compute_txid();
        for (vout, output) in (0u32..).zip(&tx.output) {
            if !output.script_pubkey.is_op_return() && output.script_pubkey.len() <= 10_000 {
                let coin = Coin { height, coinbase: index == 0, output: output.clone() };
                coins.insert(OutPoint::new(txid, vout), coin);
            }
        }
    }
}
