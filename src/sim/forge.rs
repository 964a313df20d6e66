//! The forge: chains of valid regtest blocks with real proof of work and real signatures, from one seed.
//!
//! A [`Branch`] is the end of a chain with the coins that can be spent on it. Cloning it and extending both
//! copies makes a fork. The forge follows every rule of consensus, so what it makes is valid unless the
//! caller changes it; [`mine`] seals a changed block again.

use super::wallet::{ForgedCoin, OutputKind, Wallet};
use crate::chain::command::BlockRef;
use crate::chain::params::Params;
use crate::rng::Rng;
use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::opcodes::all as op;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::transaction;
use bitcoin::{
    Amount, Block, CompactTarget, OutPoint, ScriptBuf, Sequence, Target, Transaction, TxIn, TxMerkleNode,
    TxOut, Txid, Witness,
};
use std::collections::VecDeque;
use std::sync::Arc;

/// Blocks before a coinbase output may be spent.
const COINBASE_MATURITY: u32 = 100;
/// Inputs of one transaction of the forge.
const MAX_INPUTS: u64 = 4;
/// An output is not split below this many satoshis.
const MIN_OUTPUT: u64 = 1_000;
/// Seconds between blocks.
pub(super) const SPACING: u32 = 600;

/// What a forged block contains besides its coinbase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockPlan {
    /// Inputs to spend, if that many coins are mature.
    pub inputs: usize,
    /// How many coins more than were spent the block's transactions create.
    pub growth: usize,
}

/// The end of a forged chain.
#[derive(Clone, Debug)]
pub struct Branch {
    /// Its last block.
    pub tip: BlockRef,
    /// Time of the last block, in Unix seconds.
    pub time: u32,
    /// Coins that can be spent now, all locked by the forge's wallet.
    pub coins: Vec<ForgedCoin>,
    /// Coinbase outputs that are not mature yet, oldest first.
    pub maturing: VecDeque<ForgedCoin>,
}

/// Makes blocks. Deterministic: the same seed and calls give the same blocks.
#[derive(Debug)]
pub struct Forge {
    params: Arc<Params>,
    wallet: Arc<Wallet>,
    rng: Rng,
    /// Output types with the share that each has in new coins.
    mix: Vec<(OutputKind, u64)>,
    /// Bytes of data in each coinbase.
    padding: usize,
}

impl Forge {
    /// A forge for a network whose difficulty stays at its lowest (regtest).
    pub fn new(params: Arc<Params>, seed: u64) -> Self {
        let mut rng = Rng::from_number(seed);
        let wallet = Arc::new(Wallet::new(&mut rng, 16));
        Self { params, wallet, rng, mix: OutputKind::ALL.map(|kind| (kind, 1)).to_vec(), padding: 0 }
    }

    /// Makes new coins of these types only, in these proportions; without it all types are alike. At least one
    /// share has to be above 0.
    #[must_use]
    pub fn mix(mut self, mix: &[(OutputKind, u64)]) -> Self {
        self.mix = mix.to_vec();
        self
    }

    /// A forge with the same keys and choices of its own, so that it goes on from this one's branches.
    #[must_use]
    pub fn fork(&self, seed: u64) -> Self {
        Self {
            params: self.params.clone(),
            wallet: self.wallet.clone(),
            rng: Rng::from_number(seed),
            mix: self.mix.clone(),
            padding: self.padding,
        }
    }

    /// Puts so many bytes of data, which nothing has to check, into each coinbase from now on: blocks that take
    /// long on the way and no time to verify. At most 500,000.
    pub fn pad(&mut self, bytes: usize) {
        self.padding = bytes.min(500_000);
    }

    /// The keys.
    pub fn wallet(&self) -> &Wallet {
        &self.wallet
    }

    /// The branch that ends with the genesis block. `first_time`: the time of block 1 less ten minutes;
    /// `None` continues from the genesis block's.
    pub fn genesis(&self, first_time: Option<u32>) -> Branch {
        let header = self.params.genesis_header();
        Branch {
            tip: BlockRef { height: 0, hash: header.block_hash() },
            time: first_time.unwrap_or(header.time).max(header.time),
            coins: Vec::new(),
            maturing: VecDeque::new(),
        }
    }

    /// Forges the next block of a branch.
    pub fn extend(&mut self, branch: &mut Branch, plan: BlockPlan) -> Block {
        let height = branch.tip.height + 1;
        while branch.maturing.front().is_some_and(|coin| coin.mature_at <= height) {
            branch.coins.extend(branch.maturing.pop_front());
        }
        let mut transactions = Vec::new();
        let mut created = Vec::new();
        let (mut fees, mut spent) = (0, 0);
        while spent < plan.inputs && !branch.coins.is_empty() {
            let most = (plan.inputs - spent).min(branch.coins.len()) as u64;
            let count = (1 + self.rng.below(MAX_INPUTS)).min(most) as usize;
            let growth = plan.growth.saturating_mul(count).div_ceil(plan.inputs);
            let coins = self.take(&mut branch.coins, count);
            let (tx, outputs, fee) = self.spend(&coins, count + growth);
            spent += count;
            fees += fee;
            created.extend(outputs);
            transactions.push(tx);
        }
        branch.coins.extend(created);
        self.seal(branch, transactions, fees)
    }

    /// Forges a block with exactly these transactions, which pay `fees` satoshis in all. Their outputs are
    /// not added to the branch's coins; what they spend has to be taken out by the caller.
    pub fn extend_with(&mut self, branch: &mut Branch, transactions: Vec<Transaction>, fees: u64) -> Block {
        let height = branch.tip.height + 1;
        while branch.maturing.front().is_some_and(|coin| coin.mature_at <= height) {
            branch.coins.extend(branch.maturing.pop_front());
        }
        self.seal(branch, transactions, fees)
    }

    /// A signed transaction that spends `coins` to `outputs` new coins of random kinds, with its new coins
    /// and its fee in satoshis.
    pub fn spend(&mut self, coins: &[ForgedCoin], outputs: usize) -> (Transaction, Vec<ForgedCoin>, u64) {
        let value: u64 = coins.iter().map(|coin| coin.output.value.to_sat()).sum();
        let fee = (value / 1_000).min(10_000);
        let outputs = (outputs as u64).min((value - fee) / MIN_OUTPUT).max(1);
        let share = (value - fee) / outputs;
        let locks: Vec<(OutputKind, usize)> = (0..outputs).map(|_| self.any_lock()).collect();
        let mut tx = Transaction {
            version: transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input: coins
                .iter()
                .map(|coin| TxIn {
                    previous_output: coin.outpoint,
                    script_sig: ScriptBuf::new(),
                    sequence: Sequence::MAX,
                    witness: Witness::new(),
                })
                .collect(),
            output: locks
                .iter()
                .map(|&(kind, key)| TxOut {
                    value: Amount::from_sat(share),
                    script_pubkey: self.wallet.lock(kind, key),
                })
                .collect(),
        };
        if self.rng.below(16) == 0 {
            tx.output.push(data_output(&self.rng.array::<20>()));
        }
        self.wallet.sign(&mut tx, coins);
        let txid = tx.compute_txid();
        let created = locks
            .iter()
            .enumerate()
            .map(|(index, &(kind, key))| coin(txid, index, &tx.output[index], kind, key, 0))
            .collect();
        (tx, created, value - share * outputs)
    }

    /// Takes `count` random coins out of a list.
    pub fn take(&mut self, coins: &mut Vec<ForgedCoin>, count: usize) -> Vec<ForgedCoin> {
        (0..count.min(coins.len()))
            .map(|_| {
                let index = self.rng.below(coins.len() as u64) as usize;
                coins.swap_remove(index)
            })
            .collect()
    }

    fn any_lock(&mut self) -> (OutputKind, usize) {
        let mut at = self.rng.below(self.mix.iter().map(|(_, share)| share).sum());
        let mut kinds = self.mix.iter();
        let kind = loop {
            let &(kind, share) = kinds.next().expect("below the sum of all shares");
            match at.checked_sub(share) {
                Some(left) => at = left,
                None => break kind,
            }
        };
        (kind, self.rng.below(self.wallet.key_sets() as u64) as usize)
    }

    fn seal(&mut self, branch: &mut Branch, transactions: Vec<Transaction>, fees: u64) -> Block {
        let height = branch.tip.height + 1;
        let (kind, key) = self.any_lock();
        let reward = subsidy(height, self.params.halving_interval) + fees;
        let extra = self.rng.u64();
        let mut coinbase = coinbase(height, extra, reward, self.wallet.lock(kind, key));
        if self.padding > 0 {
            let data = PushBytesBuf::try_from(vec![0x5a; self.padding]).unwrap_or_default();
            let script_pubkey = ScriptBuf::new_op_return(data);
            coinbase.output.push(TxOut { value: Amount::ZERO, script_pubkey });
        }
        let mut txdata = vec![coinbase];
        txdata.extend(transactions);
        let mut block = Block {
            header: Header {
                version: Version::from_consensus(0x2000_0000),
                prev_blockhash: branch.tip.hash,
                merkle_root: TxMerkleNode::all_zeros(),
                time: branch.time + SPACING,
                bits: self.params.genesis_header().bits,
                nonce: 0,
            },
            txdata,
        };
        commit_to_witnesses(&mut block);
        mine(&mut block);
        branch.maturing.push_back(coin(
            block.txdata[0].compute_txid(),
            0,
            &block.txdata[0].output[0],
            kind,
            key,
            height + COINBASE_MATURITY,
        ));
        branch.tip = BlockRef { height, hash: block.block_hash() };
        branch.time = block.header.time;
        block
    }
}

fn coin(
    txid: Txid,
    index: usize,
    output: &TxOut,
    kind: OutputKind,
    key: usize,
    mature_at: u32,
) -> ForgedCoin {
    ForgedCoin { outpoint: OutPoint::new(txid, index as u32), output: output.clone(), kind, key, mature_at }
}

fn subsidy(height: u32, halving_interval: u32) -> u64 {
    5_000_000_000u64.checked_shr(height / halving_interval.max(1)).unwrap_or(0)
}

/// An output that carries data and can never be spent.
pub fn data_output(data: &[u8; 20]) -> TxOut {
    TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new_op_return(data) }
}

/// A coinbase with the height (BIP34) and `extra` in its script, paying `reward` satoshis to `script`.
pub fn coinbase(height: u32, extra: u64, reward: u64, script: ScriptBuf) -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: Builder::new()
                .push_int(i64::from(height))
                .push_slice(extra.to_le_bytes())
                .into_script(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut { value: Amount::from_sat(reward), script_pubkey: script }],
    }
}

/// Replaces the coinbase's witness commitment (BIP141) by the right one.
pub fn commit_to_witnesses(block: &mut Block) {
    const PREFIX: [u8; 4] = [0xaa, 0x21, 0xa9, 0xed];
    let reserved = [0u8; 32];
    let coinbase = &mut block.txdata[0];
    coinbase.output.retain(|output| output.script_pubkey.as_bytes().get(2..6) != Some(&PREFIX[..]));
    coinbase.input[0].witness = Witness::from_slice(&[reserved]);
    let root = block.witness_root().expect("there is a coinbase");
    let mut preimage = root.to_byte_array().to_vec();
    preimage.extend(reserved);
    let mut data = PREFIX.to_vec();
    data.extend(sha256d::Hash::hash(&preimage).to_byte_array());
    let script = Builder::new()
        .push_opcode(op::OP_RETURN)
        .push_slice(<[u8; 36]>::try_from(data).expect("4 + 32 bytes"))
        .into_script();
    block.txdata[0].output.push(TxOut { value: Amount::ZERO, script_pubkey: script });
}

/// Recomputes the merkle root and finds a nonce. Meant for the lowest difficulty: the search is short on
/// regtest and endless elsewhere.
pub fn mine(block: &mut Block) {
    block.header.merkle_root = block.compute_merkle_root().expect("there is a coinbase");
    mine_header(&mut block.header);
}

/// Finds a nonce for a header; moves its time when all nonces are used up.
pub fn mine_header(header: &mut Header) {
    let target = Target::from_compact(header.bits);
    while !target.is_met_by(header.block_hash()) {
        header.nonce = header.nonce.wrapping_add(1);
        if header.nonce == 0 {
            header.time = header.time.wrapping_add(1);
        }
    }
}

/// A header that extends another, with proof of work at the lowest difficulty.
pub fn forge_header(parent: &Header, time: u32, bits: CompactTarget, root: [u8; 32]) -> Header {
    let mut header = Header {
        version: Version::from_consensus(0x2000_0000),
        prev_blockhash: parent.block_hash(),
        merkle_root: TxMerkleNode::from_byte_array(root),
        time,
        bits,
        nonce: 0,
    };
    mine_header(&mut header);
    header
}

/// A chain for demonstrations: `blocks` blocks that spend about `inputs` inputs, every output type among
/// them.
pub fn demo_chain(params: &Arc<Params>, seed: u64, blocks: u32, inputs: u32, first_time: u32) -> Vec<Block> {
    let mut forge = Forge::new(params.clone(), seed);
    let mut branch = forge.genesis(Some(first_time));
    let spending = blocks.saturating_sub(COINBASE_MATURITY).max(1);
    let per_block = inputs.div_ceil(spending) as usize;
    (0..blocks)
        .map(|_| {
            // Few coins at first: each spent one makes several, until there are enough for all blocks.
            let plan = BlockPlan {
                inputs: per_block,
                growth: if branch.coins.len() < per_block * 4 { per_block.max(8) } else { 0 },
            };
            forge.extend(&mut branch, plan)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::params::Network;

    fn params() -> Arc<Params> {
        Arc::new(Params::new(Network::Regtest))
    }

    #[test]
    fn a_seed_gives_the_same_chain() {
        let (a, b) = (demo_chain(&params(), 1, 110, 40, 0), demo_chain(&params(), 1, 110, 40, 0));
        assert_eq!(a, b);
        assert_ne!(a, demo_chain(&params(), 2, 110, 40, 0));
    }

    #[cfg(feature = "consensus")]
    #[test]
    fn every_output_type_is_spent_and_satisfies_the_interpreter() {
        let mut forge = Forge::new(params(), 3);
        let mut branch = forge.genesis(None);
        for _ in 0..120 {
            forge.extend(&mut branch, BlockPlan::default());
        }
        let mut outputs: std::collections::HashMap<OutPoint, TxOut> = branch
            .coins
            .iter()
            .chain(&branch.maturing)
            .map(|coin| (coin.outpoint, coin.output.clone()))
            .collect();
        let mut kinds = std::collections::HashSet::new();
        for _ in 0..12 {
            let before = branch.coins.clone();
            let block = forge.extend(&mut branch, BlockPlan { inputs: 12, growth: 12 });
            for tx in &block.txdata[1..] {
                let raw = bitcoin::consensus::serialize(tx);
                let spent: Vec<TxOut> =
                    tx.input.iter().map(|input| outputs[&input.previous_output].clone()).collect();
                let all: Vec<bitcoinconsensus::Utxo> = spent
                    .iter()
                    .map(|out| bitcoinconsensus::Utxo {
                        script_pubkey: out.script_pubkey.as_bytes().as_ptr(),
                        script_pubkey_len: out.script_pubkey.len() as u32,
                        value: out.value.to_sat() as i64,
                    })
                    .collect();
                for (index, input) in tx.input.iter().enumerate() {
                    bitcoinconsensus::verify_with_flags(
                        spent[index].script_pubkey.as_bytes(),
                        spent[index].value.to_sat(),
                        &raw,
                        Some(&all),
                        index,
                        bitcoinconsensus::VERIFY_ALL_PRE_TAPROOT | bitcoinconsensus::VERIFY_TAPROOT,
                    )
                    .unwrap();
                    if let Some(coin) = before.iter().find(|coin| coin.outpoint == input.previous_output) {
                        kinds.insert(coin.kind);
                    }
                }
            }
            for tx in &block.txdata {
                let txid = tx.compute_txid();
                for (index, output) in tx.output.iter().enumerate() {
                    outputs.insert(OutPoint::new(txid, index as u32), output.clone());
                }
            }
        }
        assert_eq!(kinds.len(), OutputKind::ALL.len(), "{kinds:?}");
    }
}
