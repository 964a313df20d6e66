//! The chains: the honest one, and what hostile peers offer instead.

use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bitcoin::{Block, CompactTarget};
use headlong::chain::work::ChainWork;
use headlong::sim::forge::{BlockPlan, Branch, Forge, commit_to_witnesses, forge_header, mine};
use headlong::sim::serve::ServedChain;
use headlong::{Network, Params};
use parking_lot::RwLock;
use std::sync::{Arc, OnceLock};

/// Which rules a case plays by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    /// Regtest.
    Easy,
    /// Regtest from a genesis block of 2^14 hashes; a block more than 20 minutes after its parent may be as easy
    /// as on regtest. The honest chain's work is the least that is believed.
    Hard,
}

pub const NETWORKS: [Net; 2] = [Net::Easy, Net::Hard];

/// Blocks of the honest chains.
const EASY_BLOCKS: u32 = 360;
const HARD_BLOCKS: u32 = 110;
/// The height up to which the false branches follow the honest chain.
pub const FORK: u32 = 200;
/// How much longer they are.
const LONGER: u32 = 40;
/// The past: two years of ten minutes a block are free before the present.
const FIRST_TIME: u32 = 1_700_000_000;
const EASIEST: u32 = 0x207f_ffff;
const HARDER: u32 = 0x1f03_ffff;

/// A chain from height 1, and who serves it.
#[derive(Clone)]
pub struct Chain {
    pub blocks: Arc<Vec<Block>>,
    pub served: Arc<RwLock<ServedChain>>,
}

impl Chain {
    fn new(params: &Params, blocks: Vec<Block>) -> Self {
        let mut served = ServedChain::new(&params.genesis);
        served.extend(&blocks);
        assert_eq!(served.tip().height as usize, blocks.len());
        Self { blocks: Arc::new(blocks), served: Arc::new(RwLock::new(served)) }
    }

    pub fn headers(&self) -> Vec<Header> {
        self.blocks.iter().map(|block| block.header).collect()
    }
}

/// All that is served on one network.
pub struct World {
    pub params: Arc<Params>,
    pub honest: Chain,
    /// More work, and a block whose coinbase takes too much, at the height after [`FORK`].
    pub greedy: Chain,
    /// More work, and a block with a false signature there.
    pub unsigned: Chain,
    /// More work, valid, but nobody has the blocks after [`FORK`].
    pub longer: Chain,
    /// Less work, valid.
    pub shorter: Chain,
}

pub fn params(net: Net) -> Params {
    let mut params = Params::new(Network::Regtest);
    // So that a node finds its peers as it would on a public network.
    params.dns_seeds = vec!["seed.test"];
    if net == Net::Hard {
        params.genesis.header.bits = CompactTarget::from_consensus(HARDER);
        mine(&mut params.genesis);
        params.minimum_chain_work = ChainWork::of_bits(HARDER).saturating_mul(HARD_BLOCKS + 1);
    }
    params
}

/// The world of a network, forged once.
pub fn world(net: Net) -> &'static World {
    static WORLDS: [OnceLock<World>; 2] = [const { OnceLock::new() }; 2];
    WORLDS[net as usize].get_or_init(|| match net {
        Net::Easy => easy(),
        Net::Hard => hard(),
    })
}

fn plan(branch: &Branch) -> BlockPlan {
    BlockPlan { inputs: 8, growth: if branch.coins.len() < 64 { 16 } else { 0 } }
}

fn extend(forge: &mut Forge, branch: &mut Branch, blocks: u32) -> Vec<Block> {
    (0..blocks).map(|_| forge.extend(branch, plan(branch))).collect()
}

fn easy() -> World {
    let params = Arc::new(params(Net::Easy));
    let mut forge = Forge::new(params.clone(), 11);
    let mut branch = forge.genesis(Some(FIRST_TIME));
    let common = extend(&mut forge, &mut branch, FORK);
    let mut side = |first: &dyn Fn(&mut Forge, &mut Branch) -> Vec<Block>, more: u32| {
        let mut end = branch.clone();
        let mut blocks = common.clone();
        blocks.extend(first(&mut forge, &mut end));
        blocks.extend(extend(&mut forge, &mut end, more));
        Chain::new(&params, blocks)
    };
    let more = EASY_BLOCKS - FORK;
    let honest = side(&|_, _| Vec::new(), more);
    let greedy = side(&|forge, end| vec![forge.extend_with(end, Vec::new(), 1)], more + LONGER);
    let unsigned = side(&|forge, end| vec![with_false_signature(forge, end)], more + LONGER);
    let longer = side(&|_, _| Vec::new(), more + LONGER);
    let shorter = side(&|_, _| Vec::new(), more / 2);
    World { params, honest, greedy, unsigned, longer, shorter }
}

fn with_false_signature(forge: &mut Forge, end: &mut Branch) -> Block {
    let mut block = forge.extend(end, BlockPlan { inputs: 40, growth: 0 });
    let input = block.txdata[1..].iter_mut().flat_map(|tx| &mut tx.input).find(|i| i.witness.len() > 1);
    let input = input.expect("one of forty inputs has a witness");
    let mut items = input.witness.to_vec();
    let signature = items.iter_mut().find(|item| item.len() >= 64).expect("a signature");
    signature[40] ^= 1;
    input.witness = bitcoin::Witness::from_slice(&items);
    commit_to_witnesses(&mut block);
    mine(&mut block);
    end.tip.hash = block.block_hash();
    // What it spends is not used again, and what its coinbase makes has another id now.
    end.coins.clear();
    end.maturing.clear();
    block
}

fn hard() -> World {
    let params = Arc::new(params(Net::Hard));
    let mut forge = Forge::new(params.clone(), 12);
    let mut branch = forge.genesis(None);
    let honest = Chain::new(&params, extend(&mut forge, &mut branch, HARD_BLOCKS));
    let (greedy, unsigned) = (honest.clone(), honest.clone());
    World { longer: honest.clone(), shorter: honest.clone(), params, honest, greedy, unsigned }
}

/// A header that extends another by the least work and the most time without the honest chain's difficulty.
pub fn cheap_header(parent: &Header) -> Header {
    forge_header(parent, parent.time + 1_201, CompactTarget::from_consensus(EASIEST), [1; 32])
}

/// A header of that work in the honest chain's pace; `number` makes it unique.
pub fn header_on(parent: &Header, number: u64) -> Header {
    let mut root = [0; 32];
    root[..8].copy_from_slice(&number.to_le_bytes());
    forge_header(parent, parent.time + 600, parent.bits, root)
}

/// Bytes that nobody can foresee, and that are the same each time.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 32);
    let mut block = bitcoin::hashes::sha256::Hash::hash(&seed.to_le_bytes());
    while bytes.len() < length {
        bytes.extend_from_slice(block.as_byte_array());
        block = bitcoin::hashes::sha256::Hash::hash(block.as_byte_array());
    }
    bytes.truncate(length);
    bytes
}
