//! What is run and killed: blocks with spends on branches that displace each other, in several sessions; and
//! a naive model of the coins at each of its blocks.

use crate::ground::{ANYONE, SUBSIDY, Utxos, bytes, mine, output, spend};
use bitcoin::block::Header;
use bitcoin::{Block, BlockHash, OutPoint};
use headlong::chain::command::BlockRef;
use headlong::chainstate::{BlockVerdict, Front};
use headlong::error::Error;
use headlong::rng::Rng;
use headlong::store::coin::Coin;
use std::collections::BTreeMap;

/// Blocks without spends at the beginning, so that there are mature coinbases.
pub const TRUNK: u32 = 103;

/// One thing that is done.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A block, by its place in [`Script::blocks`].
    Block(usize),
    Commit,
}

/// From one start to the next end.
#[derive(Clone, Debug)]
pub struct Session {
    /// Budget of the coins cache, in bytes: with 1 each block asks for a commit.
    pub coins_bytes: usize,
    pub steps: Vec<Step>,
}

pub struct Script {
    pub blocks: Vec<Block>,
    pub sessions: Vec<Session>,
    /// The coins at each block that is valid.
    pub coins: BTreeMap<BlockHash, Utxos>,
    heights: BTreeMap<BlockHash, u32>,
    genesis: Header,
}

impl Script {
    pub fn new(genesis: &Header) -> Self {
        let mut script = Self {
            blocks: Vec::new(),
            sessions: Vec::new(),
            coins: BTreeMap::from([(genesis.block_hash(), Utxos::new())]),
            heights: BTreeMap::from([(genesis.block_hash(), 0)]),
            genesis: *genesis,
        };
        let mut rng = Rng::from_number(11);
        let trunk = script.branch(&mut rng, genesis, TRUNK, 0);
        let fork = trunk[TRUNK as usize - 1];
        let all = |blocks: &[usize]| -> Vec<Step> { blocks.iter().map(|at| Step::Block(*at)).collect() };
        // The first blocks on an empty disk, then the rest of the trunk, never committed but by the cache.
        let roomy = 1 << 20;
        script.session(roomy, [all(&trunk[..6]), vec![Step::Commit], all(&trunk[6..9])].concat());
        script.session(roomy, [all(&trunk), vec![Step::Commit]].concat());
        // A branch of seven, half of it durable; another displaces four of them, durable and not.
        let a = script.branch(&mut rng, &script.header(fork), 7, 3);
        let b = script.branch(&mut rng, &script.header(a[2]), 5, 3);
        script.session(
            roomy,
            [all(&a[..4]), vec![Step::Commit], all(&a[4..]), all(&b), vec![Step::Commit]].concat(),
        );
        // Nothing of this one is committed before its end but what the small cache asks for.
        let c = script.branch(&mut rng, &script.header(a[1]), 8, 2);
        script.session(1, all(&c));
        // A deep one from the end of the trunk, after a block that takes too much; no commit at its end.
        let bad = script.greedy(&script.header(c[7]));
        let d = script.branch(&mut rng, &script.header(fork), 12, 2);
        let commit = vec![Step::Commit];
        // The commit in the middle has nothing but entries of blocks to write, and syncs headers and a mark.
        script.session(roomy, [vec![Step::Block(bad)], all(&d[..5]), commit, all(&d[5..])].concat());
        // Blocks that arrive in the wrong order, a flush in the middle, and a reorg by one block.
        let e = script.branch(&mut rng, &script.header(d[10]), 2, 3);
        let mut mixed = d.clone();
        mixed.swap(2, 3);
        script.session(
            30_000,
            [all(&mixed[..9]), vec![Step::Commit], all(&mixed[9..]), all(&e), vec![Step::Commit]].concat(),
        );
        // At the tip: each block is a commit, and then comes a reorg by two.
        let f = script.branch(&mut rng, &script.header(e[1]), 5, 3);
        let g = script.branch(&mut rng, &script.header(f[2]), 3, 3);
        let each = f.iter().chain(&g).flat_map(|at| [Step::Block(*at), Step::Commit]).collect();
        script.session(1, each);
        script
    }

    fn session(&mut self, coins_bytes: usize, steps: Vec<Step>) {
        self.sessions.push(Session { coins_bytes, steps });
    }

    fn header(&self, at: usize) -> Header {
        self.blocks[at].header
    }

    fn push(&mut self, block: Block, height: u32) -> usize {
        self.heights.insert(block.block_hash(), height);
        self.blocks.push(block);
        self.blocks.len() - 1
    }

    /// A branch on top of a block; each of its blocks has up to so many transactions.
    fn branch(&mut self, rng: &mut Rng, parent: &Header, length: u32, txs: u64) -> Vec<usize> {
        let mut parent = *parent;
        (0..length)
            .map(|_| {
                let height = self.heights[&parent.block_hash()] + 1;
                let mut coins = self.coins[&parent.block_hash()].clone();
                let block = filled(rng, &parent, height, txs, &mut coins, self.blocks.len() as u64);
                parent = block.header;
                self.coins.insert(block.block_hash(), coins);
                self.push(block, height)
            })
            .collect()
    }

    /// A block that pays itself a satoshi too much.
    fn greedy(&mut self, parent: &Header) -> usize {
        let height = self.heights[&parent.block_hash()] + 1;
        let block = mine(parent, height, 99, SUBSIDY + 1, Vec::new());
        self.push(block, height)
    }

    /// The block with the most work that is valid.
    pub fn end(&self) -> BlockRef {
        let best = self.coins.keys().max_by_key(|hash| self.heights[*hash]).unwrap();
        BlockRef { height: self.heights[best], hash: *best }
    }

    /// Whether a block is another or stands on it.
    pub fn descends(&self, mut at: BlockHash, from: BlockHash) -> bool {
        while at != from {
            let Some(block) = self.blocks.iter().find(|block| block.block_hash() == at) else { return false };
            at = block.header.prev_blockhash;
        }
        true
    }

    pub fn genesis(&self) -> BlockRef {
        BlockRef { height: 0, hash: self.genesis.block_hash() }
    }
}

/// A block with random spends. The coins become those after it.
fn filled(rng: &mut Rng, parent: &Header, height: u32, txs: u64, coins: &mut Utxos, unique: u64) -> Block {
    let mut made = Vec::new();
    for _ in 0..txs {
        let mut mature: Vec<OutPoint> = coins
            .iter()
            .filter(|(_, coin)| !coin.coinbase || height - coin.height >= 100)
            .map(|(outpoint, _)| *outpoint)
            .collect();
        rng.shuffle(&mut mature);
        mature.truncate(1 + rng.below(2) as usize);
        if mature.is_empty() {
            break;
        }
        let value: u64 = mature.iter().map(|outpoint| coins[outpoint].output.value.to_sat()).sum();
        let parts = 1 + rng.below(4);
        let tx = spend(&mature, (0..parts).map(|_| output(value / parts, ANYONE)).collect());
        mature.iter().for_each(|outpoint| drop(coins.remove(outpoint)));
        add(coins, &tx, height, false);
        made.push(tx);
    }
    let block = mine(parent, height, unique, SUBSIDY, made);
    add(coins, &block.txdata[0], height, true);
    block
}

fn add(coins: &mut Utxos, tx: &bitcoin::Transaction, height: u32, coinbase: bool) {
    for (vout, output) in (0u32..).zip(&tx.output) {
        let coin = Coin { height, coinbase, output: output.clone() };
        coins.insert(OutPoint::new(tx.compute_txid(), vout), coin);
    }
}

/// What the front had said when it ended.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// The last tip that was reported as committed.
    pub durable: Option<BlockRef>,
    /// Blocks that were stored before that was reported.
    pub committed: Vec<BlockHash>,
    /// Blocks whose headers were accepted, and how many of them before that was reported.
    pub headers: Vec<BlockHash>,
    pub committed_headers: usize,
    /// Whether the block that takes too much was found invalid before that was reported.
    pub committed_mark: Option<BlockHash>,
}

/// Carries a session out, until it ends or fails.
pub fn play(script: &Script, session: &Session, front: &mut Front, told: &mut Told) -> Result<(), Error> {
    let mut stored: Vec<BlockHash> = Vec::new();
    let mut marked = None;
    for step in &session.steps {
        let before = front.chainstate().checkpoint().sequence;
        let (headers, mark) = (told.headers.len(), marked);
        let done = match step {
            Step::Commit => front.commit(),
            Step::Block(at) => front.process_block(bytes(&script.blocks[*at])).map(|(hash, verdict)| {
                told.headers.extend(hash);
                if matches!(verdict, BlockVerdict::Connected | BlockVerdict::Side) {
                    stored.extend(hash);
                } else if matches!(verdict, BlockVerdict::Rejected(_)) {
                    marked = hash;
                }
            }),
        };
        let committed = matches!(step, Step::Commit) && done.is_ok();
        if committed || front.chainstate().checkpoint().sequence != before {
            told.durable = Some(front.chainstate().durable_tip());
            // The block of this step may have been stored by a later commit of the same step only.
            let whole =
                if matches!(step, Step::Commit) { stored.len() } else { stored.len().saturating_sub(1) };
            told.committed = stored[..whole].to_vec();
            told.committed_headers = headers;
            told.committed_mark = mark.or(told.committed_mark);
        }
        done?;
    }
    Ok(())
}

/// Feeds everything, in the order of the sessions, and commits.
pub fn finish(script: &Script, front: &mut Front) -> Result<(), Error> {
    for block in &script.blocks {
        front.process_block(bytes(block))?;
    }
    front.commit()
}
