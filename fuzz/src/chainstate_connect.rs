//! Blocks put together from bytes, given to a chainstate on top of a small chain, with reorgs, commits,
//! restarts and crashes between. What must be accepted is accepted; and at the end the coins are those of
//! the simplest reckoning over the active chain's blocks.
//!
//! Input: one step after the other.

use crate::base::{ANYONE, Base, CLOCK, Ground, HEIGHT, Utxos, apply, base, draft, output, spend, subsidy};
use crate::feed::Feed;
use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, Txid, Witness,
};
use headlong::chainstate::{BlockVerdict, Front};
use headlong::sim::forge::{self, mine_header};
use headlong::store::coin::Coin;

const STEPS: usize = 24;
/// Blocks of the base that can be built on or called invalid.
const REACH: u32 = 5;

/// A block that blocks can be built on.
struct Known {
    block: Block,
    height: u32,
    /// What is unspent after it, as far as it and its ancestors are valid.
    coins: Utxos,
    /// It and all its ancestors keep every rule.
    honest: bool,
}

struct World {
    base: &'static Base,
    ground: Ground,
    front: Option<Front>,
    known: Vec<Known>,
    /// The host called something invalid.
    meddled: bool,
    extra: u64,
}

pub fn run(data: &[u8]) {
    let mut feed = Feed::new(data);
    let base = base();
    let ground = base.ground();
    let front = ground.open(&base.params).expect("a whole store");
    let known = (HEIGHT - REACH..=HEIGHT).map(|height| Known {
        block: base.blocks[height as usize].clone(),
        height,
        coins: base.coins[&height].clone(),
        honest: true,
    });
    let known = known.collect();
    let mut world = World { base, ground, front: Some(front), known, meddled: false, extra: 0 };
    for _ in 0..STEPS {
        if feed.is_empty() {
            break;
        }
        world.step(&mut feed);
    }
    world.finish();
}

impl World {
    fn front(&mut self) -> &mut Front {
        self.front.as_mut().expect("open between steps")
    }

    fn step(&mut self, feed: &mut Feed<'_>) {
        match feed.u8() % 24 {
            0..=8 => {
                let parent = self.parent(feed);
                let block = self.assemble(feed, parent, false);
                self.give(block, parent, true);
            }
            9..=16 => {
                let parent = self.parent(feed);
                let mut block = self.assemble(feed, parent, true);
                for _ in 0..1 + feed.u8() % 2 {
                    deviate(feed, &mut block);
                }
                self.give(block, parent, false);
            }
            17 => self.raw(feed),
            18 => {
                let hash = self.any(feed).block.block_hash();
                self.meddled = true;
                self.front().invalidate(&hash).expect("no failure");
            }
            19 => {
                let hash = self.any(feed).block.block_hash();
                self.front().reconsider(&hash).expect("no failure");
            }
            20 => self.front().commit().expect("no failure"),
            21 => {
                self.front().commit().expect("no failure");
                self.reopen();
            }
            22 => {
                // A crash: what is not committed is given once more.
                self.reopen();
                let all: Vec<Vec<u8>> = self.known.iter().map(|known| serialize(&known.block)).collect();
                for bytes in all {
                    self.front().process_block(bytes).expect("no failure");
                }
            }
            _ => {
                let header = self.any(feed).block.header;
                let header = mutate_header(feed, header);
                let _ = self.front().process_header(&header).expect("no failure");
                self.extra += 1;
            }
        }
    }

    fn reopen(&mut self) {
        self.front = None;
        self.front = Some(self.ground.open(&self.base.params).expect("what was written is read"));
    }

    fn any(&self, feed: &mut Feed<'_>) -> &Known {
        &self.known[feed.below(self.known.len())]
    }

    /// Mostly the last block.
    fn parent(&self, feed: &mut Feed<'_>) -> usize {
        let back = match feed.u8() {
            0..160 => 0,
            byte => usize::from(byte) % self.known.len(),
        };
        self.known.len() - 1 - back
    }

    /// A block that keeps the rules, or, if `careless`, one that takes any coins.
    fn assemble(&mut self, feed: &mut Feed<'_>, parent: usize, careless: bool) -> Block {
        self.extra += 1;
        let parent = &self.known[parent];
        let height = parent.height + 1;
        let mut coins: Vec<(OutPoint, Coin)> = parent
            .coins
            .iter()
            .filter(|(_, coin)| careless || can_spend(coin, height))
            .map(|(outpoint, coin)| (*outpoint, coin.clone()))
            .collect();
        let mut txs = Vec::new();
        let mut fees = 0;
        for _ in 0..feed.u8() % 4 {
            let mut spent = Vec::new();
            let mut value = 0;
            for _ in 0..1 + feed.u8() % 3 {
                if !coins.is_empty() {
                    let at = feed.below(coins.len());
                    let (outpoint, coin) = if careless && feed.u8().is_multiple_of(8) {
                        coins[at].clone()
                    } else {
                        coins.swap_remove(at)
                    };
                    value += coin.output.value.to_sat();
                    spent.push(outpoint);
                }
            }
            if spent.is_empty() {
                break;
            }
            let fee = u64::from(feed.u16()).min(value);
            let parts = 1 + u64::from(feed.u8() % 3);
            let share = (value - fee) / parts;
            let tx = spend(&spent, (0..parts).map(|_| output(share, &script(feed))).collect());
            fees += value - share * parts;
            let txid = tx.compute_txid();
            for (vout, output) in (0u32..).zip(&tx.output) {
                let coin = Coin { height, coinbase: false, output: output.clone() };
                if careless || can_spend(&coin, height) {
                    coins.push((OutPoint::new(txid, vout), coin));
                }
            }
            txs.push(tx);
        }
        let time = parent.block.header.time + 1;
        let mut block = draft(&parent.block.header, height, time, self.extra, subsidy(height) + fees, txs);
        forge::mine(&mut block);
        block
    }

    fn give(&mut self, block: Block, parent: usize, honest: bool) {
        let honest = honest && self.known[parent].honest;
        let height = self.known[parent].height + 1;
        let mut coins = self.known[parent].coins.clone();
        let applied = apply(&block, height, &mut coins);
        let hash = block.block_hash();
        let (found, verdict) = self.front().process_block(serialize(&block)).expect("no failure");
        if honest && !self.meddled {
            assert_eq!(applied, Ok(()));
            assert_eq!(found, Some(hash));
            assert!(
                matches!(verdict, BlockVerdict::Connected | BlockVerdict::Side | BlockVerdict::Duplicate),
                "a good block is {verdict:?}"
            );
        }
        if verdict == BlockVerdict::Connected && self.known[parent].honest {
            assert_eq!(applied, Ok(()), "a bad block was connected");
        }
        if matches!(verdict, BlockVerdict::Connected | BlockVerdict::Side) {
            self.known.push(Known { block, height, coins, honest });
        }
    }

    /// The bytes of a known block or of a new one, damaged.
    fn raw(&mut self, feed: &mut Feed<'_>) {
        let mut bytes = if feed.bool() {
            serialize(&self.any(feed).block)
        } else {
            let parent = self.parent(feed);
            serialize(&self.assemble(feed, parent, true))
        };
        crate::store_decoding::tamper(feed, &mut bytes);
        if feed.bool()
            && let Some(mut header) = bytes.get(..80).and_then(|head| deserialize::<Header>(head).ok())
            && header.bits == CompactTarget::from_consensus(0x207f_ffff)
        {
            mine_header(&mut header);
            bytes[..80].copy_from_slice(&serialize(&header));
        }
        self.front().process_block(bytes).expect("no failure");
    }

    /// The active chain is the longest of good blocks, its coins are right, and so they are after a restart.
    fn finish(mut self) {
        self.front().commit().expect("no failure");
        let tip = self.front().tip();
        if !self.meddled {
            let best = self.known.iter().filter(|known| known.honest).map(|known| known.height).max();
            assert!(Some(tip.height) >= best, "a longer chain of good blocks was left");
        }
        let expected = self.reckon(tip.hash, tip.height);
        assert_eq!(self.ground.coins(), expected, "coins at {tip:?}");
        // Opening costs as much as all steps together.
        if self.extra % 4 == 1 {
            self.reopen();
            assert_eq!(self.front().tip(), tip);
            assert_eq!(self.ground.coins(), expected);
        }
        for (outpoint, coin) in expected.iter().take(3) {
            let found = self.front().chainstate().coin(outpoint).expect("in memory");
            assert_eq!(found, (Some(coin.clone()), tip));
        }
    }

    /// The coins by the stored blocks from the base on.
    fn reckon(&mut self, mut hash: BlockHash, mut height: u32) -> Utxos {
        let mut blocks = Vec::new();
        while self.base.blocks.get(height as usize).is_none_or(|block| block.block_hash() != hash) {
            let raw = self.front().chainstate().read_block(&hash).expect("in memory").expect("it is stored");
            // What follows a block's end belongs to nobody.
            let (block, _) =
                bitcoin::consensus::encode::deserialize_partial::<Block>(raw.bytes()).expect("a block");
            hash = block.header.prev_blockhash;
            height -= 1;
            blocks.push(block);
        }
        let mut coins = self.base.coins[&height].clone();
        for (block, height) in blocks.iter().rev().zip(height + 1..) {
            assert_eq!(apply(block, height, &mut coins), Ok(()), "a bad block was connected");
        }
        coins
    }
}

fn can_spend(coin: &Coin, height: u32) -> bool {
    let mature = !coin.coinbase || height - coin.height >= 100;
    mature && coin.output.script_pubkey.as_bytes() == [ANYONE]
}

fn script(feed: &mut Feed<'_>) -> Vec<u8> {
    match feed.u8() % 16 {
        0 => vec![0x6a, 1, 7],
        1 => vec![0],
        2 => [&[0, 20][..], &[7; 20]].concat(),
        3 => [&[0x76, 0xa9, 20][..], &[7; 20], &[0x88, 0xac]].concat(),
        4 => [&[0xa9, 20][..], &[7; 20], &[0x87]].concat(),
        5 => [&[0x51, 32][..], &[7; 32]].concat(),
        6 => vec![0x61; 10_001],
        7 => feed.bytes().to_vec(),
        _ => vec![ANYONE],
    }
}

fn mutate_header(feed: &mut Feed<'_>, mut header: Header) -> Header {
    match feed.u8() % 8 {
        0 => header.time = header.time.wrapping_sub(u32::from(feed.u8())),
        1 => header.time = (CLOCK + 7_195) as u32 + u32::from(feed.u8() % 10),
        2 => header.version = Version::from_consensus(i32::from(feed.u8() % 6)),
        3 => header.bits = CompactTarget::from_consensus(feed.u32()),
        4 => header.prev_blockhash = BlockHash::from_byte_array([feed.u8(); 32]),
        5 => {
            header.nonce ^= u32::from(feed.u8());
            return header;
        }
        _ => {}
    }
    mine_if_easy(&mut header);
    header
}

/// Mines a header whose target is met within some hundred tries. Others, made so by an earlier change, stay as they are.
fn mine_if_easy(header: &mut Header) {
    if header.target() >= bitcoin::Target::from_compact(CompactTarget::from_consensus(0x1f7f_ffff)) {
        mine_header(header);
    }
}

/// Breaks a rule, perhaps; the block is sealed again unless the seal itself is what is broken.
fn deviate(feed: &mut Feed<'_>, block: &mut Block) {
    let at = feed.below(block.txdata.len().max(1));
    let Some(tx) = block.txdata.get_mut(at) else { return };
    let mut commit = true;
    match feed.u8() % 24 {
        0 => tx.output.iter_mut().for_each(|out| out.value = Amount::from_sat(feed.u64())),
        1 => {
            if let Some(out) = tx.output.first_mut() {
                out.value = Amount::from_sat(out.value.to_sat().wrapping_add(u64::from(feed.u8())));
            }
        }
        2 => tx.lock_time = LockTime::from_consensus(feed.u32()),
        3 => {
            tx.lock_time = LockTime::from_consensus(HEIGHT + u32::from(feed.u8() % 16));
            tx.input.iter_mut().for_each(|input| input.sequence = Sequence(feed.u32()));
        }
        4 => tx.input.iter_mut().for_each(|input| input.sequence = Sequence(feed.u32() & 0x0040_ffff)),
        5 => {
            if let Some(input) = tx.input.first_mut() {
                input.previous_output = OutPoint::new(Txid::from_byte_array([feed.u8(); 32]), feed.u32());
            }
        }
        6 => {
            if let Some(input) = tx.input.first().cloned() {
                tx.input.push(input);
            }
        }
        7 => tx.input.clear(),
        8 => tx.output.clear(),
        9 => {
            let witness: Vec<&[u8]> = vec![feed.bytes()];
            if let Some(input) = tx.input.first_mut() {
                input.witness = Witness::from_slice(&witness);
            }
        }
        10 => {
            if let Some(input) = tx.input.first_mut() {
                input.script_sig = ScriptBuf::from_bytes(feed.bytes().to_vec());
            }
        }
        11 => {
            // Signature operations: each counts for four.
            let count = feed.u16() as usize;
            tx.output.push(output(0, &vec![0xac; count.min(21_000)]));
        }
        12 => tx.version = bitcoin::transaction::Version(feed.u32() as i32),
        13 => {
            let copy = block.txdata[at].clone();
            block.txdata.push(copy);
        }
        14 => {
            // The same root over more transactions (CVE-2012-2459).
            let copies: Vec<Transaction> = block.txdata[at..].to_vec();
            block.txdata.extend(copies);
            commit = false;
        }
        15 => block.txdata.swap(0, at),
        16 => drop(block.txdata.remove(at)),
        17 => {
            let coinbase = block.txdata[0].clone();
            block.txdata.push(coinbase);
        }
        18 => {
            if let Some(out) = block.txdata[0].output.last_mut() {
                let mut script = out.script_pubkey.to_bytes();
                crate::store_decoding::tamper(feed, &mut script);
                out.script_pubkey = ScriptBuf::from_bytes(script);
            }
            commit = false;
        }
        19 => {
            block.header = mutate_header(feed, block.header);
            return;
        }
        20 => {
            block.header.merkle_root = bitcoin::TxMerkleNode::from_byte_array([feed.u8(); 32]);
            mine_if_easy(&mut block.header);
            return;
        }
        21 => {
            if let Some(input) = block.txdata[0].input.first_mut() {
                input.witness = Witness::new();
            }
            commit = false;
        }
        22 => {
            // More coins than the cache likes at once.
            let many = usize::from(feed.u8()) * 4;
            if let Some(out) = tx.output.pop() {
                let share = out.value.to_sat() / (many as u64 + 1);
                tx.output.extend((0..=many).map(|_| output(share, &[ANYONE])));
            }
        }
        _ => {}
    }
    if block.txdata.first().is_some_and(|tx| !tx.input.is_empty()) && commit {
        forge::commit_to_witnesses(block);
    }
    if let Some(root) = block.compute_merkle_root() {
        block.header.merkle_root = root;
        mine_if_easy(&mut block.header);
    }
}
