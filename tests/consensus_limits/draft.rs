//! Blocks that are valid until one thing about them is changed, with real proof of work and signatures.

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::VarInt;
use bitcoin::consensus::{Encodable, serialize};
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, Block, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Txid,
    Witness,
};
use headlong::chain::params::Params;
use headlong::chainstate::{self, ChainstateOptions, Front, Sources};
use headlong::sim::forge::{BlockPlan, Branch, Forge, commit_to_witnesses, mine_header};
use headlong::sim::wallet::{ForgedCoin, OutputKind};
use headlong::store::block_files::BlockFiles;
use headlong::store::header_file::{HEADER_FILE, HeaderFile};
use headlong::store::medium::MemoryMedium;
use headlong::store::memory::MemoryStore;
use headlong::verify::interpreter::Interpreter;
use headlong::verify::pool::Pool;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A chainstate in memory.
pub fn front(params: &Arc<Params>, clock: u64) -> Front {
    let (headers, loaded) = HeaderFile::with_medium(Arc::new(MemoryMedium::new()), HEADER_FILE).unwrap();
    let sources = Sources {
        params: params.clone(),
        store: Arc::new(MemoryStore::new()),
        blocks: BlockFiles::in_memory(),
        headers,
        loaded,
        pool: Arc::new(Pool::new("check", 1, 64).unwrap()),
        verifier: Arc::new(Interpreter),
    };
    let opened = chainstate::open(sources, ChainstateOptions::default(), [5, 6]).unwrap();
    Front::new(opened, clock).unwrap()
}

/// Median time past of every block of a chain, from the times of its blocks.
pub fn medians(times: &[u32]) -> Vec<u32> {
    (0..times.len())
        .map(|at| {
            let mut last = times[at.saturating_sub(10)..=at].to_vec();
            last.sort_unstable();
            last[last.len() / 2]
        })
        .collect()
}

/// Where a block is to stand.
#[derive(Clone, Debug)]
pub struct Place {
    pub height: u32,
    /// The parent's time.
    pub parent_time: u32,
    /// Median time past of each ancestor, by height.
    pub medians: Vec<u32>,
    /// Unix seconds of both nodes.
    pub clock: u32,
    /// Whether witnesses are allowed.
    pub segwit: bool,
    /// Whether a period of difficulty begins here.
    pub period: bool,
    /// The last coinbases of the chain, oldest first.
    pub coinbases: Vec<Transaction>,
}

impl Place {
    pub fn mtp(&self) -> u32 {
        self.medians[self.height as usize - 1]
    }
}

/// A block in the making.
pub struct Draft<'a> {
    pub forge: &'a mut Forge,
    pub block: Block,
    /// The branch that ends with the block.
    pub branch: Branch,
    pub place: Place,
    /// Height of the block that made a coin.
    pub births: &'a HashMap<OutPoint, u32>,
    /// Whether the coinbase commits to the witnesses anew at the end.
    pub commit: bool,
    /// Whether the merkle root is computed anew at the end.
    pub root: bool,
    /// Whether proof of work is done at the end.
    pub work: bool,
    /// Changes the serialised block.
    pub bytes: Option<fn(&mut Vec<u8>, u64)>,
    first: HashSet<Txid>,
}

/// A finished block.
pub struct Made {
    pub block: Block,
    pub bytes: Vec<u8>,
    pub hash: BlockHash,
    pub branch: Branch,
}

pub fn script(bytes: &[u8]) -> ScriptBuf {
    ScriptBuf::from_bytes(bytes.to_vec())
}

pub fn output(sat: u64, script_pubkey: ScriptBuf) -> TxOut {
    TxOut { value: Amount::from_sat(sat), script_pubkey }
}

/// A script that pushes `data`.
pub fn push(data: &[u8]) -> Vec<u8> {
    let mut bytes = match data.len() {
        n @ 0..=75 => vec![n as u8],
        n @ 76..=255 => vec![0x4c, n as u8],
        n => vec![0x4d, n as u8, (n >> 8) as u8],
    };
    bytes.extend(data);
    bytes
}

/// A script with these many signature operations (at most 3,619), which succeeds without one of them.
pub fn sigop_script(count: usize) -> ScriptBuf {
    let mut bytes = vec![0x00, 0x63];
    bytes.extend(vec![0xae; count / 20]);
    bytes.extend(vec![0xac; count % 20]);
    bytes.extend([0x68, 0x51]);
    ScriptBuf::from_bytes(bytes)
}

pub fn is_legacy(kind: OutputKind) -> bool {
    use OutputKind::{BareMultisig, P2pk, P2pkh, P2shMultisig};
    matches!(kind, P2pk | P2pkh | BareMultisig | P2shMultisig)
}

impl<'a> Draft<'a> {
    /// A valid block on `parent` with about `inputs` inputs, at `time`.
    pub fn new(
        forge: &'a mut Forge,
        births: &'a HashMap<OutPoint, u32>,
        parent: &Branch,
        place: Place,
        time: u32,
        inputs: usize,
    ) -> Self {
        let mut branch = parent.clone();
        branch.time = time - 600;
        let mut spendable = Vec::new();
        while branch.maturing.front().is_some_and(|coin| coin.mature_at <= place.height) {
            branch.coins.extend(branch.maturing.pop_front());
        }
        if !place.segwit {
            // The forge spends what it likes: hide what needs a witness.
            let all = std::mem::take(&mut branch.coins);
            (branch.coins, spendable) = all.into_iter().partition(|coin| is_legacy(coin.kind));
        }
        let growth = if branch.coins.len() < 120 { inputs * 2 } else { 0 };
        let block = forge.extend(&mut branch, BlockPlan { inputs, growth });
        branch.coins.extend(spendable);
        let first = block.txdata.iter().map(Transaction::compute_txid).collect();
        let commit = place.segwit;
        Self { forge, block, branch, place, births, commit, root: true, work: true, bytes: None, first }
    }

    /// Takes a coin of an earlier block out of the branch; one of `kinds`, if there are any.
    pub fn coin(&mut self, kinds: &[OutputKind]) -> Option<ForgedCoin> {
        let height = self.place.height;
        let fits = |coin: &ForgedCoin| {
            self.births.get(&coin.outpoint).is_some_and(|birth| *birth < height)
                && (kinds.is_empty() || kinds.contains(&coin.kind))
                && (self.place.segwit || is_legacy(coin.kind))
                && coin.output.value.to_sat() > 200_000
        };
        let found = self.branch.coins.iter().rposition(fits)?;
        Some(self.branch.coins.swap_remove(found))
    }

    /// The height at which a coin was made.
    pub fn birth(&self, coin: &ForgedCoin) -> u32 {
        self.births[&coin.outpoint]
    }

    /// A signed transaction that spends coins.
    pub fn pay(
        &self,
        coins: &[ForgedCoin],
        outputs: Vec<TxOut>,
        version: i32,
        lock: u32,
        sequence: u32,
    ) -> Transaction {
        let mut tx = Transaction {
            version: Version(version),
            lock_time: LockTime::from_consensus(lock),
            input: coins
                .iter()
                .map(|coin| TxIn {
                    previous_output: coin.outpoint,
                    sequence: Sequence(sequence),
                    ..TxIn::default()
                })
                .collect(),
            output: outputs,
        };
        self.forge.wallet().sign(&mut tx, coins);
        tx
    }

    /// A signed transaction that spends one coin without a fee to an output that anyone may spend.
    pub fn simple(&self, coin: &ForgedCoin) -> Transaction {
        let value = coin.output.value.to_sat();
        self.pay(std::slice::from_ref(coin), vec![output(value, script(&[0x51]))], 2, 0, u32::MAX)
    }

    /// Spends a coin to these scripts, in equal parts, at the block's end.
    pub fn fund(&mut self, kinds: &[OutputKind], scripts: Vec<ScriptBuf>) -> Option<Transaction> {
        let coin = self.coin(kinds)?;
        let share = coin.output.value.to_sat() / scripts.len() as u64;
        let outputs = scripts.into_iter().map(|script| output(share, script)).collect();
        let tx = self.pay(&[coin], outputs, 2, 0, u32::MAX);
        self.block.txdata.push(tx.clone());
        Some(tx)
    }

    /// Spends all outputs of a transaction with these unlocking scripts, at the block's end.
    pub fn redeem(&mut self, funds: &Transaction, unlock: Vec<(Vec<u8>, Witness)>, to: ScriptBuf) -> usize {
        let txid = funds.compute_txid();
        let value = funds.output.iter().map(|out| out.value.to_sat()).sum();
        let input = (0u32..)
            .zip(unlock)
            .map(|(vout, (script_sig, witness))| TxIn {
                previous_output: OutPoint { txid, vout },
                script_sig: ScriptBuf::from_bytes(script_sig),
                sequence: Sequence::MAX,
                witness,
            })
            .collect();
        let tx = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input,
            output: vec![output(value, to)],
        };
        self.block.txdata.push(tx);
        self.block.txdata.len() - 1
    }

    /// Commits, computes the root and mines, as far as that is asked for.
    pub fn finish(mut self, random: u64) -> Made {
        if self.commit {
            commit_to_witnesses(&mut self.block);
        } else if !self.place.segwit && !self.block.txdata.is_empty() {
            self.strip();
        }
        self.seal();
        let mut bytes = serialize_block(&self.block);
        if let Some(change) = self.bytes {
            change(&mut bytes, random);
        }
        self.follow();
        Made { hash: self.block.block_hash(), block: self.block, bytes, branch: self.branch }
    }

    /// Takes commitment and reserved value out of the coinbase.
    pub fn strip(&mut self) {
        let coinbase = &mut self.block.txdata[0];
        coinbase.output.retain(|out| !out.script_pubkey.as_bytes().starts_with(&[0x6a, 0x24, 0xaa, 0x21]));
        if let Some(input) = coinbase.input.first_mut() {
            input.witness = Witness::new();
        }
    }

    /// Root and proof of work.
    pub fn seal(&mut self) {
        if self.root {
            self.block.header.merkle_root =
                self.block.compute_merkle_root().unwrap_or(TxMerkleNode::all_zeros());
        }
        if self.work {
            mine_header(&mut self.block.header);
        }
    }

    /// Makes the branch fit the changed block.
    fn follow(&mut self) {
        let txids: HashMap<Txid, &Transaction> =
            self.block.txdata.iter().map(|tx| (tx.compute_txid(), tx)).collect();
        let first = &self.first;
        self.branch
            .coins
            .retain(|coin| !first.contains(&coin.outpoint.txid) || txids.contains_key(&coin.outpoint.txid));
        if let Some(coin) = self.branch.maturing.back_mut() {
            let coinbase = self.block.txdata.first().filter(|tx| tx.is_coinbase());
            match coinbase.and_then(|tx| tx.output.first().map(|out| (tx, out))) {
                Some((tx, out)) if out.script_pubkey == coin.output.script_pubkey => {
                    coin.outpoint.txid = tx.compute_txid();
                    coin.output = out.clone();
                }
                _ => drop(self.branch.maturing.pop_back()),
            }
        }
        self.branch.tip.hash = self.block.block_hash();
        self.branch.time = self.block.header.time;
    }
}

/// Core's serialisation, also of a transaction with neither inputs nor outputs.
pub fn serialize_block(block: &Block) -> Vec<u8> {
    let mut bytes = serialize(&block.header);
    let _ = VarInt(block.txdata.len() as u64).consensus_encode(&mut bytes);
    for tx in &block.txdata {
        if tx.input.is_empty() && tx.output.is_empty() {
            bytes.extend(serialize(&tx.version));
            bytes.extend([0, 0]);
            bytes.extend(serialize(&tx.lock_time));
        } else {
            bytes.extend(serialize(tx));
        }
    }
    bytes
}
