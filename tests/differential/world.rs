//! What the test knows: every block it made, the coins behind it, and the clock.

use crate::draft::{Draft, Made, Place, medians};
use crate::edits;
use crate::edits::Sigops;
use crate::scripts;
use bitcoin::block::{Header, Version};
use bitcoin::{BlockHash, CompactTarget, OutPoint, ScriptBuf, Transaction, Witness};
use headlong::chain::params::Params;
use headlong::rng::Rng;
use headlong::sim::forge::{Branch, Forge};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

const FINAL: u32 = u32::MAX;
/// Blocks below the random ones, so that coinbases are mature.
const TRUNK: u32 = 104;

/// A block that was made.
pub struct Known {
    pub hash: BlockHash,
    pub header: Header,
    pub bytes: Vec<u8>,
    pub parent: Option<usize>,
    pub height: u32,
    branch: Branch,
    coinbase: Option<Transaction>,
}

pub struct World {
    params: Arc<Params>,
    forge: Forge,
    pub rng: Rng,
    pub known: Vec<Known>,
    by_hash: HashMap<BlockHash, usize>,
    births: HashMap<OutPoint, u32>,
    pub clock: u32,
    /// Whether blocks may have them.
    pub negative_versions: bool,
}

impl World {
    pub fn new(params: Arc<Params>, seed: u64) -> Self {
        let forge = Forge::new(params.clone(), seed);
        let genesis = *params.genesis_header();
        let branch = forge.genesis(None);
        let root = Known {
            hash: genesis.block_hash(),
            header: genesis,
            bytes: Vec::new(),
            parent: None,
            height: 0,
            branch,
            coinbase: None,
        };
        Self {
            forge,
            rng: Rng::from_number(seed),
            by_hash: HashMap::from([(root.hash, 0)]),
            known: vec![root],
            births: HashMap::new(),
            negative_versions: true,
            clock: genesis.time + TRUNK * 600 + 7_200,
            params,
        }
    }

    pub fn find(&self, hash: &BlockHash) -> Option<usize> {
        self.by_hash.get(hash).copied()
    }

    /// Blocks of the trunk, and a few more that split the coins.
    pub fn trunk(&mut self) -> Vec<usize> {
        let mut tip = 0;
        (0..TRUNK + 6)
            .map(|at| {
                let time = self.known[tip].header.time + 600;
                let inputs = if at < TRUNK { 0 } else { 3 };
                let draft = self.draft(tip, time, inputs);
                let made = draft.finish(0);
                tip = self.keep(tip, made);
                tip
            })
            .collect()
    }

    fn place(&self, parent: usize) -> Place {
        let mut times = VecDeque::new();
        let mut coinbases = VecDeque::new();
        let mut at = Some(parent);
        while let Some(index) = at {
            let known = &self.known[index];
            times.push_front(known.header.time);
            if coinbases.len() < 40 {
                coinbases.extend(known.coinbase.clone());
            }
            at = known.parent;
        }
        let times: Vec<u32> = times.into();
        let height = self.known[parent].height + 1;
        Place {
            height,
            parent_time: times[times.len() - 1],
            medians: medians(&times),
            clock: self.clock,
            segwit: height >= self.params.buried.segwit,
            coinbases: coinbases.into_iter().rev().collect(),
        }
    }

    fn draft(&mut self, parent: usize, time: u32, inputs: usize) -> Draft<'_> {
        let place = self.place(parent);
        let branch = &self.known[parent].branch;
        Draft::new(&mut self.forge, &self.births, branch, place, time, inputs)
    }

    /// Remembers a block.
    pub fn keep(&mut self, parent: usize, made: Made) -> usize {
        let height = self.known[parent].height + 1;
        for tx in &made.block.txdata {
            let txid = tx.compute_txid();
            for vout in 0..tx.output.len() as u32 {
                self.births.entry(OutPoint { txid, vout }).or_insert(height);
            }
        }
        let index = self.known.len();
        self.by_hash.entry(made.hash).or_insert(index);
        self.known.push(Known {
            hash: made.hash,
            header: made.block.header,
            bytes: made.bytes,
            parent: Some(parent),
            height,
            branch: made.branch,
            coinbase: made.block.txdata.into_iter().next(),
        });
        index
    }

    /// A random parent: mostly the tip, else something recent, known to be invalid or not.
    pub fn parent(&mut self, tip: usize) -> usize {
        // Often the end of a period, where BIP94 has its rule.
        let interval = self.params.difficulty_interval();
        let over = (self.known[tip].height + 1) % interval;
        if self.params.enforce_bip94 && over < 20 && self.rng.below(2) == 0 {
            return (0..over).fold(tip, |at, _| self.known[at].parent.unwrap_or(at));
        }
        match self.rng.below(10) {
            0..=7 => tip,
            8 => {
                let mut at = tip;
                for _ in 0..self.rng.below(4) {
                    at = self.known[at].parent.unwrap_or(at);
                }
                at
            }
            _ => {
                let recent = (self.known.len() as u64 - 1).min(12);
                self.known.len() - 1 - self.rng.below(recent) as usize
            }
        }
    }

    /// A random block on `parent`, with a name for what is special about it.
    pub fn block(&mut self, parent: usize) -> (String, usize) {
        let place = self.place(parent);
        let period = place.height.is_multiple_of(self.params.difficulty_interval());
        let least = place.mtp() + 1;
        let usual = place.parent_time.saturating_add(1 + self.rng.below(900) as u32);
        // The end of a period is ahead, so that the next block's time can be before it (BIP94).
        let last = (place.height + 1).is_multiple_of(self.params.difficulty_interval());
        let ahead = self.clock + self.rng.below(7_000) as u32;
        let time = match self.rng.below(8) {
            _ if last => self.clock.max(usual) + 3_600,
            0 => least + self.rng.below(600) as u32,
            1 => ahead,
            _ if period && self.rng.below(3) > 0 => {
                place.parent_time.saturating_sub(600 + self.rng.below(2) as u32)
            }
            _ => usual,
        };
        let negative = self.negative_versions;
        let time = time.max(least).min(self.clock.max(least) + 7_200);
        for _ in 0..20 {
            let choice = self.rng.below(100);
            let random = self.rng.u64();
            let heavy = matches!(choice, 0..=4);
            let inputs = if heavy { 0 } else { 1 + self.rng.below(6) as usize };
            let mut draft = self.draft(parent, time, inputs);
            let Some(name) = edit(&mut draft, choice, random) else { continue };
            if draft.block.header.version.to_consensus() < 0 && !negative {
                continue;
            }
            let made = draft.finish(random);
            return (name, self.keep(parent, made));
        }
        let made = self.draft(parent, time, 1).finish(0);
        ("plain".into(), self.keep(parent, made))
    }
}

/// Changes a draft. About a third stay as they are.
fn edit(draft: &mut Draft<'_>, choice: u64, random: u64) -> Option<String> {
    let over = random & 1;
    let pick = |count: usize| (random >> 8) as usize % count;
    let locks = edits::locks();
    let height = draft.place.height;
    let mtp = draft.place.mtp();
    let clock = draft.place.clock;
    let named = |name: &str| format!("{name} {over}");
    let header = &mut draft.block.header;
    let (name, done) = match choice {
        0 | 1 => {
            let how = [Sigops::Legacy, Sigops::P2sh, Sigops::P2wsh][pick(3)];
            let over = [0, 1, 4, -1][pick(4)];
            (format!("sigops {how:?} {over}"), edits::sigops(draft, how, over))
        }
        2 | 3 => (named("weight"), edits::weight(draft, over as i64)),
        4 => {
            let commitment = pick(3) == 0 && draft.place.segwit;
            (format!("base size {over} {commitment}"), edits::base_size(draft, over as i64, commitment))
        }
        5 => {
            header.bits = CompactTarget::from_consensus(
                [0x207f_fffe, 0x2100_ffff, 0, 0x20ff_ffff, 0x2080_0000, 0x207f_ff00][pick(6)],
            );
            // Bits that are no target cannot be mined for.
            draft.work = matches!(header.bits.to_consensus(), 0x207f_fffe | 0x207f_ff00);
            ("bits".into(), true)
        }
        6 => {
            header.time = mtp + over as u32;
            ("time above median".into(), true)
        }
        7 => {
            header.time = clock + 7_200 + over as u32;
            (named("time ahead"), true)
        }
        8 => {
            let version = [-1, 0, 1, 2, 3, 4, i32::MIN, i32::MAX][pick(8)];
            header.version = Version::from_consensus(version);
            (format!("version {version}"), true)
        }
        9 => {
            if over == 0 {
                header.prev_blockhash = bitcoin::hashes::Hash::from_byte_array([random as u8; 32]);
            } else {
                draft.work = false;
                header.nonce = random as u32;
            }
            (named("unknown parent or no work"), true)
        }
        10 => ("wrong root".into(), edits::wrong_root(draft)),
        11 | 12 => ("repeated tail".into(), edits::repeated_tail(draft)),
        13 => match over {
            0 => ("no coinbase".into(), edits::no_coinbase(draft)),
            _ => ("two coinbases".into(), edits::two_coinbases(draft)),
        },
        14 => {
            let len = [0, 1, 2, 3, 4, 5, 99, 100, 101][pick(9)];
            (format!("coinbase script of {len}"), edits::coinbase_script_len(draft, len))
        }
        15 => {
            let difference = [-1, 0, 1, 256][pick(4)];
            (format!("coinbase height {difference}"), edits::coinbase_height(draft, difference))
        }
        16 | 17 => {
            let difference = [0, 1, -1, -5_000_000_000, 2_100_000_000_000_000][pick(5)];
            (format!("coinbase amount {difference}"), edits::coinbase_amount(draft, difference))
        }
        18 | 19 => (named("coinbase again"), edits::coinbase_again(draft, pick(4))),
        20 => match over {
            0 => ("no inputs".into(), edits::no_inputs(draft)),
            _ => ("no outputs".into(), edits::no_outputs(draft)),
        },
        21 => {
            let money = 2_100_000_000_000_000;
            let value = [0, money, money + 1, 1 << 63, u64::MAX, i64::MAX as u64][pick(6)];
            (format!("value {value}"), edits::values(draft, &[value]))
        }
        22 => (named("total"), edits::total(draft, over)),
        23 => ("same input twice".into(), edits::same_input_twice(draft)),
        24 => ("null input".into(), edits::null_input(draft)),
        25 => ("missing coin".into(), edits::missing_coin(draft, random)),
        26 => ("spent twice".into(), edits::spent_twice(draft)),
        27 => (named("in block, backwards"), edits::in_block(draft, over == 1)),
        28 | 29 => (named("maturity"), edits::maturity(draft, over as u32)),
        30 | 31 => (named("in below out"), edits::in_below_out(draft, over)),
        32 | 33 => {
            let (lock, sequence) = [
                (height - 1, 0),
                (height, 0),
                (height, FINAL),
                (mtp - 1, 0),
                (mtp, 0),
                (mtp, FINAL),
                (draft.block.header.time, 0),
                (draft.block.header.time - 1, FINAL - 1),
                (499_999_999, 0),
                (500_000_000, 0),
            ][pick(10)];
            (format!("lock time {lock} {sequence:x}"), edits::lock_time(draft, lock, sequence))
        }
        34 | 35 => {
            let version = [1, 2, 2, -1][pick(4)];
            (format!("relative height {over} {version}"), edits::relative_height(draft, over as u32, version))
        }
        36 | 37 => {
            let version = [1, 2, 2, -1][pick(4)];
            (format!("relative time {over} {version}"), edits::relative_time(draft, over as u32, version))
        }
        38 => {
            let sequence = [0, 1, 1 << 31 | 1, 1 << 22, 1 << 22 | 1][pick(5)];
            (format!("relative in block {sequence:x}"), edits::relative_in_block(draft, sequence))
        }
        39 | 40 if draft.place.segwit => {
            // A witness of the coinbase that is absent is put there by bitcoind itself: not tried.
            let lens: &[usize] = [&[32][..], &[31], &[33], &[32, 1], &[0], &[32, 32]][pick(6)];
            (format!("reserved {lens:?}"), edits::reserved(draft, lens))
        }
        41 | 42 if draft.place.segwit => ("another witness".into(), edits::other_witness(draft)),
        43 if draft.place.segwit => (named("commitment"), commitments(draft, pick(5))),
        44 => ("no commitment".into(), edits::no_commitment(draft)),
        45 => {
            // Before its time a commitment means nothing, and a witness is not expected.
            draft.commit = true;
            ("commitment in any case".into(), true)
        }
        46..=49 => ("broken signature".into(), edits::broken_signature(draft, random)),
        50 | 51 => ("padded signature".into(), edits::padded_signature(draft)),
        52 | 53 => ("dummy".into(), edits::dummy(draft)),
        54..=57 => {
            let (name, _, lock, sig, witness) = locks[pick(locks.len())].clone();
            if !draft.place.segwit && !witness.is_empty() {
                return None;
            }
            (name.into(), edits::spend(draft, lock, sig, &witness))
        }
        58 | 59 => {
            let sequence = [0, FINAL - 1, FINAL][pick(3)];
            let early = over as u32;
            (format!("CLTV {early} {sequence:x}"), edits::check_lock_time(draft, early, sequence))
        }
        60 | 61 => {
            let (demanded, given, version) =
                [(0, 0, 2), (0, 0, 1), (1, 0, 2), (0, 1 << 31, 2), (1, 1 << 31 | 5, 1), (0, 1 << 22, 2)]
                    [pick(6)];
            let done = edits::check_sequence(draft, demanded, given, version);
            (format!("CSV {demanded} {given:x} {version}"), done)
        }
        62 => {
            draft.bytes =
                Some(|bytes, random| bytes.extend(&random.to_le_bytes()[..1 + random as usize % 4]));
            ("bytes behind".into(), true)
        }
        63 => {
            draft.bytes = Some(|bytes, random| bytes.truncate(random as usize % bytes.len()));
            ("cut".into(), true)
        }
        64 | 65 => {
            draft.bytes = Some(|bytes, random| {
                let at = 80 + random as usize % (bytes.len() - 80);
                bytes[at] ^= 1 << (random >> 60 & 7);
            });
            ("flipped bit".into(), true)
        }
        67..=71 => ("random script".into(), scripts::random(draft, random)),
        66 => {
            draft.block.txdata.clear();
            draft.commit = false;
            ("no transactions".into(), true)
        }
        _ => ("plain".into(), true),
    };
    done.then_some(name)
}

/// Changes around the witness commitment.
fn commitments(draft: &mut Draft<'_>, kind: usize) -> bool {
    edits::commitment(draft, |coinbase| {
        let Some(right) = coinbase.output.last().cloned() else { return };
        let mut wrong = right.clone();
        let mut bytes = wrong.script_pubkey.to_bytes();
        match kind {
            // Of several commitments the last counts.
            0 | 1 => {
                bytes[20] ^= 1;
                wrong.script_pubkey = ScriptBuf::from_bytes(bytes);
                let at = coinbase.output.len() - 1 + kind;
                coinbase.output.insert(at, wrong);
            }
            2 => {
                bytes.extend([0x51, 0x52]);
                wrong.script_pubkey = ScriptBuf::from_bytes(bytes);
                *coinbase.output.last_mut().unwrap_or(&mut wrong) = wrong.clone();
            }
            3 => {
                // Too short to be a commitment: then nothing allows the coinbase's witness.
                bytes.truncate(37);
                wrong.script_pubkey = ScriptBuf::from_bytes(bytes);
                *coinbase.output.last_mut().unwrap_or(&mut wrong) = wrong.clone();
            }
            _ => coinbase.input[0].witness = Witness::from_slice(&[[1u8; 32]]),
        }
    })
}
