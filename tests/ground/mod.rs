//! What a chainstate stands on in tests: a store and files in memory that survive a restart, and blocks of
//! bare scripts.
#![allow(dead_code, reason = "each test uses a part")]

use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, CompactTarget, OutPoint, ScriptBuf, Sequence, Target, Transaction, TxIn, TxMerkleNode,
    TxOut, Witness, absolute, transaction,
};
use headlong::chain::params::{Network, Params};
use headlong::chainstate::{self, ChainstateOptions, Front, Opened, PruneOptions, Sources};
use headlong::error::Error;
use headlong::sim::disk::SimDisk;
use headlong::store::block_files::{BlockFiles, BlockFilesOptions};
use headlong::store::coin::Coin;
use headlong::store::header_file::{HEADER_FILE, HeaderFile};
use headlong::store::medium::{Medium, MemoryMedium};
use headlong::store::memory::MemoryStore;
use headlong::store::{Batch, Durability, Entry, Store, StoreError, StoreErrorKind, Table, schema};
use headlong::verify::Verifier;
use headlong::verify::interpreter::Interpreter;
use headlong::verify::pool::Pool;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// The clock of a front, in Unix seconds.
pub const CLOCK: u64 = 1_700_000_000;
/// The first subsidy, in satoshis.
pub const SUBSIDY: u64 = 5_000_000_000;

/// A store that fails on demand, and asks for small batches.
#[derive(Debug)]
pub struct Faulty {
    inner: MemoryStore,
    pub batch_limit: usize,
    /// Commits until the failure; it comes before the commit is applied, or after it.
    left: AtomicUsize,
    applied: bool,
    history: Option<History>,
}

/// What a store was after each of its commits.
pub type History = Arc<Mutex<Vec<MemoryStore>>>;

impl Store for Faulty {
    fn get_many(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.inner.get_many(table, keys)
    }

    fn range(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.inner.range(table, from, to, limit)
    }

    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        assert!(batch.len() <= self.batch_limit.max(3), "a batch is larger than the store asked for");
        let dies = self.left.fetch_sub(1, Ordering::Relaxed) == 1;
        if !dies || self.applied {
            self.inner.commit(batch, durability)?;
            if let Some(history) = &self.history {
                history.lock().unwrap().push(self.inner.fork());
            }
        }
        if dies {
            return Err(StoreError::new(StoreErrorKind::Transient, "the test pulls the plug"));
        }
        Ok(())
    }

    fn batch_limit(&self) -> usize {
        self.batch_limit
    }
}

#[derive(Clone)]
pub struct Ground {
    pub params: Arc<Params>,
    pub store: MemoryStore,
    pub medium: MemoryMedium,
    pub pool: Arc<Pool>,
    pub batch_limit: usize,
    pub coins_bytes: usize,
    pub prune: Option<PruneOptions>,
    /// Where the stores of this ground are recorded, if anywhere.
    pub history: Option<History>,
}

impl Ground {
    pub fn new(threads: usize, batch_limit: usize, coins_bytes: usize) -> Self {
        Self {
            params: Arc::new(Params::new(Network::Regtest)),
            store: MemoryStore::new(),
            medium: MemoryMedium::new(),
            pool: Arc::new(Pool::new("test", threads, 64).unwrap()),
            batch_limit,
            coins_bytes,
            prune: None,
            history: None,
        }
    }

    pub fn open(&self) -> Front {
        self.open_failing(usize::MAX, false).unwrap()
    }

    /// A front whose store fails at its `at`-th commit, before it is applied or after.
    pub fn open_failing(&self, at: usize, applied: bool) -> Result<Front, Error> {
        Front::new(self.open_with(at, applied, Arc::new(Interpreter))?, CLOCK)
    }

    /// Tree and chainstate, scripts executed by `verifier`.
    pub fn open_bare(&self, verifier: Arc<dyn Verifier>) -> Opened {
        self.open_with(usize::MAX, false, verifier).unwrap()
    }

    fn open_with(&self, at: usize, applied: bool, verifier: Arc<dyn Verifier>) -> Result<Opened, Error> {
        let store = Faulty {
            inner: self.store.clone(),
            batch_limit: self.batch_limit,
            left: AtomicUsize::new(at),
            applied,
            history: self.history.clone(),
        };
        self.open_at(Arc::new(self.medium.clone()), Arc::new(store), verifier)
    }

    /// Tree and chainstate on a simulated disk.
    pub fn open_on(&self, disk: &SimDisk, verifier: Arc<dyn Verifier>) -> Opened {
        self.open_at(Arc::new(disk.files()), Arc::new(disk.store()), verifier).unwrap()
    }

    fn open_at(
        &self,
        medium: Arc<dyn Medium>,
        store: Arc<dyn Store>,
        verifier: Arc<dyn Verifier>,
    ) -> Result<Opened, Error> {
        let (headers, loaded) = HeaderFile::with_medium(medium.clone(), HEADER_FILE)?;
        let segment_bytes = self.prune.map_or(20_000, |prune| prune.files().segment_bytes);
        let options = BlockFilesOptions { segment_bytes, key: Some([7; 16]) };
        let sources = Sources {
            params: self.params.clone(),
            store,
            blocks: BlockFiles::with_medium(medium, options)?,
            headers,
            loaded,
            pool: self.pool.clone(),
            verifier,
        };
        let options = ChainstateOptions::default().coins_bytes(self.coins_bytes).bodies_bytes(20_000);
        chainstate::open(sources, options.prune(self.prune), [1, 2])
    }

    /// A ground with another store and copies of this one's files.
    pub fn with_store(&self, store: MemoryStore) -> Self {
        let medium = MemoryMedium::new();
        for name in self.medium.list().unwrap() {
            let mut content = vec![0; self.medium.len(&name).unwrap() as usize];
            self.medium.read_at(&name, 0, &mut content).unwrap();
            medium.append(&name, &[&content]).unwrap();
        }
        Self { store, medium, history: None, ..self.clone() }
    }

    pub fn stored_coins(&self) -> Utxos {
        let entries = self.store.range(Table::Coins, Bound::Unbounded, Bound::Unbounded, usize::MAX).unwrap();
        entries
            .iter()
            .map(|(key, value)| {
                (schema::decode_coin_key(key).unwrap(), schema::decode_coin(key, value).unwrap())
            })
            .collect()
    }
}

pub type Utxos = BTreeMap<OutPoint, Coin>;

pub fn output(value: u64, script: u8) -> TxOut {
    TxOut { value: Amount::from_sat(value), script_pubkey: ScriptBuf::from_bytes(vec![script]) }
}

/// `OP_TRUE`: anyone can spend it; and `OP_0`: nobody can.
pub const ANYONE: u8 = 0x51;
pub const NOBODY: u8 = 0x00;

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

/// A block one second after its parent, whose coinbase claims `height`, is made unique by `unique`, and pays
/// `reward` satoshis.
pub fn mine(parent: &Header, height: u32, unique: u64, reward: u64, txs: Vec<Transaction>) -> Block {
    mine_at(parent, parent.time + 1, height, unique, reward, txs)
}

/// The same with a time of its own, in Unix seconds.
pub fn mine_at(
    parent: &Header,
    time: u32,
    height: u32,
    unique: u64,
    reward: u64,
    txs: Vec<Transaction>,
) -> Block {
    let mut coinbase = spend(&[OutPoint::null()], vec![output(reward, ANYONE)]);
    coinbase.input[0].script_sig = bitcoin::script::Builder::new()
        .push_int(i64::from(height))
        .push_slice(unique.to_le_bytes())
        .into_script();
    let mut txdata = vec![coinbase];
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
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    while !Target::from_compact(block.header.bits).is_met_by(block.block_hash()) {
        block.header.nonce += 1;
    }
    block
}

/// The serialised block.
pub fn bytes(block: &Block) -> Vec<u8> {
    bitcoin::consensus::serialize(block)
}
