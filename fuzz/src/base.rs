//! A small regtest chain that targets start from: its files and its store in memory, and what its coins are
//! by the simplest reckoning.

use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut,
    Witness, absolute, transaction,
};
use headlong::chain::params::{Network, Params};
use headlong::chainstate::{self, BlockVerdict, ChainstateOptions, Front, Opened, Sources};
use headlong::error::Error;
use headlong::sim::forge;
use headlong::store::block_files::{BlockFiles, BlockFilesOptions};
use headlong::store::coin::Coin;
use headlong::store::header_file::{HEADER_FILE, HeaderFile};
use headlong::store::medium::{Medium, MemoryMedium};
use headlong::store::memory::MemoryStore;
use headlong::store::{Store, StoreError, Table, schema};
use headlong::verify::pool::Pool;
use headlong::verify::{ScriptFailure, TxScripts, Verdict, Verifier, VerifierError};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

/// Blocks of the chain: enough for coinbases to be mature in the last ones.
pub const HEIGHT: u32 = 112;
/// Unix seconds: the time of the genesis block's first child, and of the clock.
const FIRST_TIME: u32 = 1_700_000_000;
pub const CLOCK: u64 = FIRST_TIME as u64 + 1_000_000;
/// `OP_TRUE`: the one script that the targets' verifier lets pass.
pub const ANYONE: u8 = 0x51;
/// How many heights the reckoning is kept for.
const KEPT: usize = 10;

/// Coins by outpoint.
pub type Utxos = BTreeMap<OutPoint, Coin>;

/// Takes `OP_TRUE` for satisfied and nothing else: fast, and known to the naive reckoning too. Scripts are
/// the business of Bitcoin Core's interpreter, which is not on trial here.
#[derive(Debug)]
pub struct Anyone;

impl Verifier for Anyone {
    fn verify(&self, batch: &[TxScripts<'_>]) -> Result<Verdict, VerifierError> {
        for (transaction, scripts) in batch.iter().enumerate() {
            let failed = |output: &TxOut| output.script_pubkey.as_bytes() != [ANYONE];
            if let Some(input) = scripts.spent.iter().position(failed) {
                return Ok(Verdict::Invalid(ScriptFailure { transaction, input }));
            }
        }
        Ok(Verdict::Valid)
    }
}

/// The chain.
pub struct Base {
    pub params: Arc<Params>,
    /// From the genesis block.
    pub blocks: Vec<Block>,
    /// What is unspent after the last blocks, by height.
    pub coins: BTreeMap<u32, Utxos>,
    ground: Ground,
}

/// The chain, made once a process.
pub fn base() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(Base::make)
}

impl Base {
    fn make() -> Self {
        let params = Arc::new(Params::new(Network::Regtest));
        let ground = Ground { store: MemoryStore::new(), medium: MemoryMedium::new() };
        let mut front = ground.open(&params).expect("a fresh start");
        let mut blocks = vec![params.genesis.clone()];
        let (mut utxos, mut coins) = (Utxos::new(), BTreeMap::new());
        for height in 1..=HEIGHT {
            let parent = blocks[height as usize - 1].header;
            let txs = if height > 100 { spend_first(&utxos) } else { Vec::new() };
            let time = if height == 1 { FIRST_TIME } else { parent.time + 1 };
            let block = block(&parent, height, time, 0, subsidy(height), txs);
            apply(&block, height, &mut utxos).expect("the base is valid");
            coins.insert(height, utxos.clone());
            if coins.len() > KEPT {
                coins.pop_first();
            }
            let verdict = front.process_block(bitcoin::consensus::serialize(&block)).expect("no failure").1;
            assert_eq!(verdict, BlockVerdict::Connected);
            blocks.push(block);
        }
        front.commit().expect("no failure");
        Self { params, blocks, coins, ground }
    }

    /// A copy of its store and files.
    pub fn ground(&self) -> Ground {
        let medium = MemoryMedium::new();
        for name in self.ground.medium.list().expect("in memory") {
            medium.append(&name, &[&content(&self.ground.medium, &name)]).expect("in memory");
        }
        Ground { store: self.ground.store.fork(), medium }
    }
}

/// All bytes of a file.
pub fn content(medium: &MemoryMedium, name: &str) -> Vec<u8> {
    let mut bytes = vec![0; medium.len(name).expect("it is there") as usize];
    medium.read_at(name, 0, &mut bytes).expect("it is there");
    bytes
}

/// A store and files that outlive the front which stands on them.
#[derive(Clone)]
pub struct Ground {
    pub store: MemoryStore,
    pub medium: MemoryMedium,
}

impl Ground {
    /// The block files.
    pub fn block_files(&self) -> Result<BlockFiles, StoreError> {
        let options = BlockFilesOptions { segment_bytes: 20_000, key: Some([7; 16]) };
        BlockFiles::with_medium(Arc::new(self.medium.clone()), options)
    }

    /// Tree and chainstate. Jobs run where they are submitted, so that an input's run is repeated exactly.
    pub fn open_bare(&self, params: &Arc<Params>) -> Result<Opened, Error> {
        static POOL: OnceLock<Arc<Pool>> = OnceLock::new();
        let pool = POOL.get_or_init(|| Arc::new(Pool::new("fuzz", 0, 64).expect("no thread to start")));
        let medium = Arc::new(self.medium.clone());
        let (headers, loaded) = HeaderFile::with_medium(medium, HEADER_FILE)?;
        let sources = Sources {
            params: params.clone(),
            store: Arc::new(self.store.clone()),
            blocks: self.block_files()?,
            headers,
            loaded,
            pool: pool.clone(),
            verifier: Arc::new(Anyone),
        };
        let options = ChainstateOptions::default().coins_bytes(1 << 20).bodies_bytes(20_000);
        chainstate::open(sources, options, [1, 2])
    }

    pub fn open(&self, params: &Arc<Params>) -> Result<Front, Error> {
        Front::new(self.open_bare(params)?, CLOCK)
    }

    /// All stored coins.
    pub fn coins(&self) -> Utxos {
        let entries = self.store.range(Table::Coins, Bound::Unbounded, Bound::Unbounded, usize::MAX);
        let decode = |(key, value): (Vec<u8>, Vec<u8>)| {
            let coin = schema::decode_coin(&key, &value).expect("a coin");
            (schema::decode_coin_key(&key).expect("a coin's key"), coin)
        };
        entries.expect("in memory").into_iter().map(decode).collect()
    }
}

/// Satoshis that a coinbase may claim besides fees.
pub fn subsidy(height: u32) -> u64 {
    5_000_000_000u64.checked_shr(height / 150).unwrap_or(0)
}

pub fn output(value: u64, script: &[u8]) -> TxOut {
    TxOut { value: Amount::from_sat(value), script_pubkey: ScriptBuf::from_bytes(script.to_vec()) }
}

pub fn spend(outpoints: &[OutPoint], outputs: Vec<TxOut>) -> Transaction {
    let input = |previous_output: &OutPoint| TxIn {
        previous_output: *previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: outpoints.iter().map(input).collect(),
        output: outputs,
    }
}

/// A transaction that spends the oldest coin to two.
fn spend_first(utxos: &Utxos) -> Vec<Transaction> {
    let oldest = utxos.iter().min_by_key(|(_, coin)| coin.height);
    let halves = |(outpoint, coin): (&OutPoint, &Coin)| {
        let half = coin.output.value.to_sat() / 2;
        spend(&[*outpoint], vec![output(half, &[ANYONE]), output(half, &[ANYONE])])
    };
    oldest.map(halves).into_iter().collect()
}

/// A block before its merkle root and proof of work.
pub fn draft(
    parent: &Header,
    height: u32,
    time: u32,
    extra: u64,
    reward: u64,
    txs: Vec<Transaction>,
) -> Block {
    let mut txdata = vec![forge::coinbase(height, extra, reward, ScriptBuf::from_bytes(vec![ANYONE]))];
    txdata.extend(txs);
    let header = Header {
        version: Version::from_consensus(0x2000_0000),
        prev_blockhash: parent.block_hash(),
        merkle_root: TxMerkleNode::all_zeros(),
        time,
        bits: CompactTarget::from_consensus(0x207f_ffff),
        nonce: 0,
    };
    let mut block = Block { header, txdata };
    forge::commit_to_witnesses(&mut block);
    block
}

/// A block with proof of work.
pub fn block(
    parent: &Header,
    height: u32,
    time: u32,
    extra: u64,
    reward: u64,
    txs: Vec<Transaction>,
) -> Block {
    let mut block = draft(parent, height, time, extra, reward, txs);
    forge::mine(&mut block);
    block
}

/// What a block does to the coins, and the rules about values, said as simply as possible.
pub fn apply(block: &Block, height: u32, utxos: &mut Utxos) -> Result<(), &'static str> {
    let mut fees = 0;
    let mut claimed = 0;
    for (index, tx) in block.txdata.iter().enumerate() {
        let value_out = tx.output.iter().try_fold(0u64, |sum, output| {
            sum.checked_add(output.value.to_sat()).filter(|sum| *sum <= 21_000_000 * 100_000_000)
        });
        let value_out = value_out.ok_or("more money than there is")?;
        if index == 0 {
            claimed = value_out;
        } else {
            let mut value_in = 0;
            for input in &tx.input {
                let coin = utxos.remove(&input.previous_output).ok_or("a coin that is not there")?;
                if coin.coinbase && height - coin.height < 100 {
                    return Err("a coinbase that is not mature");
                }
                if coin.output.script_pubkey.as_bytes() != [ANYONE] {
                    return Err("a script that is not satisfied");
                }
                value_in += coin.output.value.to_sat();
            }
            fees += value_in.checked_sub(value_out).ok_or("more out than in")?;
        }
        let txid = tx.compute_txid();
        for (vout, output) in (0u32..).zip(&tx.output) {
            let script = &output.script_pubkey;
            if !script.is_op_return() && script.len() <= 10_000 {
                let coin = Coin { height, coinbase: index == 0, output: output.clone() };
                if utxos.insert(OutPoint::new(txid, vout), coin).is_some() {
                    return Err("a coin that is there already");
                }
            }
        }
    }
    if claimed > subsidy(height) + fees { Err("a coinbase that claims too much") } else { Ok(()) }
}
