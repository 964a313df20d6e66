//! The chains of the race: regtest, all rules kept, the same blocks from the same seed and clock.
//!
//! | profile | what it has |
//! | --- | --- |
//! | `sigs` | 2,000 blocks with some 360,000 signed inputs, in today's proportions of output types |
//! | `utxo` | 4.5 million coins, then 10 million spends of random ones; scripts that cost next to nothing |
//! | `small` | 20,000 blocks, every fourth with one spend, the others with a coinbase alone |

use bitcoin::absolute::LockTime;
use bitcoin::{Amount, Block, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, transaction};
use headlong::Params;
use headlong::rng::Rng;
use headlong::sim::forge::{BlockPlan, Branch, Forge};
use headlong::sim::wallet::OutputKind;
use std::sync::Arc;

/// Shares of inputs by what they spend, about those of the main network in 2025.
const TODAY: [(OutputKind, u64); 10] = [
    (OutputKind::P2wpkh, 46),
    (OutputKind::P2trKey, 20),
    (OutputKind::P2pkh, 11),
    (OutputKind::P2shP2wpkh, 8),
    (OutputKind::P2wsh, 5),
    (OutputKind::P2trScript, 4),
    (OutputKind::P2shP2wsh, 2),
    (OutputKind::P2shMultisig, 2),
    (OutputKind::P2pk, 1),
    (OutputKind::BareMultisig, 1),
];
/// Outputs of one transaction that makes many coins: a block's worth of them.
const FAN_OUT: u64 = 30_000;
/// Inputs of a block of random spends: a block's worth of them.
const SPENDS: usize = 12_000;
/// Blocks until the first coinbase may be spent.
const MATURITY: u32 = 100;

/// A chain to sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    Sigs,
    Utxo,
    Small,
}

impl Profile {
    pub const ALL: [Self; 3] = [Self::Sigs, Self::Utxo, Self::Small];

    pub fn name(self) -> &'static str {
        match self {
            Self::Sigs => "sigs",
            Self::Utxo => "utxo",
            Self::Small => "small",
        }
    }

    /// MiB for coins, unless other terms are set: all coins of the chain fit.
    pub fn dbcache(self) -> u32 {
        if self == Self::Utxo { 1_000 } else { 450 }
    }

    /// Gives the chain's blocks in order, made smaller by `scale` (1: as described). The first is an hour behind
    /// `first_time`.
    pub fn forge(self, params: &Arc<Params>, first_time: u32, scale: u32, each: impl FnMut(&Block)) -> Size {
        let forge = Forge::new(params.clone(), 7);
        let branch = forge.genesis(Some(first_time));
        let mut chain = Chain { forge, branch, size: Size::default(), each };
        match self {
            Self::Sigs => chain.sigs(2_000 / scale, 360_000 / scale as usize),
            Self::Utxo => chain.utxo(4_500_000 / u64::from(scale), 10_000_000 / scale as usize),
            Self::Small => chain.small(20_000 / scale),
        }
        chain.size
    }
}

/// What a chain has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub blocks: u32,
    pub inputs: usize,
    pub bytes: usize,
}

struct Chain<F> {
    forge: Forge,
    branch: Branch,
    size: Size,
    each: F,
}

impl<F: FnMut(&Block)> Chain<F> {
    fn give(&mut self, block: &Block) {
        self.size.blocks += 1;
        self.size.inputs += block.txdata[1..].iter().map(|tx| tx.input.len()).sum::<usize>();
        self.size.bytes += block.total_size();
        (self.each)(block);
    }

    fn extend(&mut self, plan: BlockPlan) {
        let block = self.forge.extend(&mut self.branch, plan);
        self.give(&block);
    }

    fn sigs(&mut self, blocks: u32, inputs: usize) {
        self.forge = self.forge.fork(7).mix(&TODAY);
        let inputs = inputs.div_ceil(blocks.saturating_sub(MATURITY).max(1) as usize);
        for _ in 0..blocks {
            // Few coins at first: each spent one makes several, until there are enough for all blocks.
            let growth = if self.branch.coins.len() < inputs * 4 { inputs } else { 0 };
            self.extend(BlockPlan { inputs, growth });
        }
    }

    fn small(&mut self, blocks: u32) {
        for height in 0..blocks {
            self.extend(BlockPlan { inputs: usize::from(height % 4 == 0), growth: 0 });
        }
    }

    fn utxo(&mut self, coins: u64, spends: usize) {
        let fans = coins.div_ceil(FAN_OUT) as u32;
        let mut rng = Rng::from_number(9);
        for _ in 0..MATURITY {
            self.extend(BlockPlan::default());
        }
        let mut live: Vec<(OutPoint, u64)> = Vec::with_capacity(coins as usize);
        for _ in 0..fans {
            // The coinbases are of many types, so that the forge's wallet signs for the first.
            self.mature();
            let coin = self.forge.take(&mut self.branch.coins, 1);
            let value = coin[0].output.value.to_sat();
            let mut tx = spend(&[coin[0].outpoint], FAN_OUT, value / FAN_OUT);
            self.forge.wallet().sign(&mut tx, &coin);
            live.extend(outputs(&tx));
            let block = self.forge.extend_with(&mut self.branch, vec![tx], value % FAN_OUT);
            self.give(&block);
        }
        let mut left = spends;
        while left > 0 {
            let mut txs = Vec::new();
            let mut made = Vec::new();
            let mut fees = 0;
            for _ in 0..left.min(SPENDS).div_ceil(2) {
                let pair = [(); 2].map(|()| live.swap_remove(rng.below(live.len() as u64) as usize));
                let value = pair[0].1 + pair[1].1;
                let tx = spend(&pair.map(|(outpoint, _)| outpoint), 2, value / 2);
                fees += value % 2;
                made.extend(outputs(&tx));
                txs.push(tx);
            }
            live.append(&mut made);
            left -= left.min(SPENDS);
            let block = self.forge.extend_with(&mut self.branch, txs, fees);
            self.give(&block);
        }
    }

    /// Takes over what the next block may spend.
    fn mature(&mut self) {
        let height = self.branch.tip.height + 1;
        while self.branch.maturing.front().is_some_and(|coin| coin.mature_at <= height) {
            self.branch.coins.extend(self.branch.maturing.pop_front());
        }
    }
}

/// A script as long as a usual one (23 bytes) that anyone satisfies with nothing.
fn trivial(rng: u64) -> ScriptBuf {
    let mut script = vec![20];
    script.extend([rng.to_le_bytes(), rng.to_be_bytes()].concat());
    script.extend([0; 4]);
    // OP_DROP OP_1
    script.extend([0x75, 0x51]);
    script.into()
}

fn spend(coins: &[OutPoint], outputs: u64, value: u64) -> Transaction {
    let input = |outpoint: &OutPoint| TxIn {
        previous_output: *outpoint,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    let output = |n| TxOut { value: Amount::from_sat(value), script_pubkey: trivial(n) };
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: coins.iter().map(input).collect(),
        output: (0..outputs).map(output).collect(),
    }
}

fn outputs(tx: &Transaction) -> Vec<(OutPoint, u64)> {
    let txid = tx.compute_txid();
    (0..).zip(&tx.output).map(|(vout, output)| (OutPoint::new(txid, vout), output.value.to_sat())).collect()
}
