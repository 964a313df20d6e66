//! What the test knows: every block it made, the coins behind it, the clock, and which mutations are to come.

use crate::draft::{Draft, Made, Place, medians};
use crate::table::{Mutation, Via, table};
use bitcoin::block::Header;
use bitcoin::{BlockHash, OutPoint, Transaction};
use headlong::chain::params::Params;
use headlong::rng::Rng;
use headlong::sim::forge::{Branch, Forge};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// Blocks below the random ones, so that coinbases are mature.
const TRUNK: u32 = 104;

/// Coinbases of a chain that may come again, or whose coins may be spent again.
const COINBASES: usize = 160;

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
    /// How each of them is given to bitcoind.
    pub vias: Vec<Via>,
    by_hash: HashMap<BlockHash, usize>,
    births: HashMap<OutPoint, u32>,
    pub clock: u32,
    /// Whether blocks may have them.
    pub negative_versions: bool,
    pub table: Vec<Mutation>,
    /// All mutations, and those that the run is most about.
    decks: [Deck; 2],
    /// Blocks so far that were to begin a period at a time near the limit.
    periods: usize,
    /// What cannot be tried beside this bitcoind.
    pub skipped: BTreeSet<Card>,
}

impl World {
    /// `about`: mutations that half of the blocks have.
    pub fn new(params: Arc<Params>, seed: u64, about: &[&str]) -> Self {
        let table = table();
        let mut decks = [Deck::new(&table, &[]), Deck::new(&table, about)];
        if about.is_empty() {
            decks[1].all.clear();
        }
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
            vias: vec![Via::Rpc],
            births: HashMap::new(),
            negative_versions: true,
            table,
            decks,
            periods: 0,
            skipped: BTreeSet::new(),
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
            if coinbases.len() < COINBASES {
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
            period: height.is_multiple_of(self.params.difficulty_interval()),
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
        self.vias.push(Via::Rpc);
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

    /// A block on `parent` with a mutation of the deck, or (`drawn` false) with a random one that may go to
    /// a block beside the tip.
    pub fn block(&mut self, parent: usize, drawn: bool) -> Fresh {
        let place = self.place(parent);
        let time = self.time(&place);
        for _ in 0..10 {
            let card = self.card(&place, drawn);
            let Mutation { alone, edit, .. } = self.table[card.mutation];
            // Another draft may have what the first one has not.
            for _ in 0..8 {
                let random = self.rng.u64();
                let inputs = if alone { 0 } else { self.rng.below(7) as usize };
                let negative = self.negative_versions;
                let mut draft = self.draft(parent, time, inputs);
                if !edit(&mut draft, card.form, random) {
                    continue;
                }
                if !negative && draft.block.header.version.to_consensus() < 0 {
                    self.skipped.insert(card);
                    break;
                }
                let made = draft.finish(random);
                return Fresh { index: self.keep(parent, made), card };
            }
            if drawn && !self.skipped.contains(&card) {
                self.put_back(card);
            }
        }
        let made = self.draft(parent, time, 1).finish(0);
        Fresh { index: self.keep(parent, made), card: Card { deck: 0, mutation: 0, form: 0 } }
    }

    /// A block that is meant to be valid.
    pub fn plain(&mut self, parent: usize) -> Fresh {
        let time = self.time(&self.place(parent));
        let inputs = self.rng.below(5) as usize;
        let made = self.draft(parent, time, inputs).finish(0);
        Fresh { index: self.keep(parent, made), card: Card { deck: 0, mutation: 0, form: 0 } }
    }

    /// A block and its ancestors but for the genesis block, the lowest first.
    pub fn chain(&self, index: usize) -> Vec<usize> {
        let mut chain: Vec<usize> = std::iter::successors(Some(index), |at| self.known[*at].parent).collect();
        chain.pop();
        chain.reverse();
        chain
    }

    /// A mutation that was drawn and not tried comes again.
    pub fn put_back(&mut self, card: Card) {
        let deck = &mut self.decks[card.deck];
        if deck.all.contains(&(card.mutation, card.form)) {
            deck.cards.insert(0, (card.mutation, card.form));
        }
    }

    fn time(&mut self, place: &Place) -> u32 {
        let least = place.mtp() + 1;
        let usual = place.parent_time.saturating_add(1 + self.rng.below(900) as u32);
        // The end of a period is ahead, so that the next block's time can be before it (BIP94).
        let last = (place.height + 1).is_multiple_of(self.params.difficulty_interval());
        let time = match self.rng.below(8) {
            _ if last => self.clock.max(usual) + 3_600,
            0 => least + self.rng.below(600) as u32,
            1 => self.clock + self.rng.below(7_000) as u32,
            _ => usual,
        };
        time.max(least).min(self.clock.max(least) + 7_200)
    }

    fn card(&mut self, place: &Place, drawn: bool) -> Card {
        if (place.height + 1).is_multiple_of(self.params.difficulty_interval()) && self.params.enforce_bip94 {
            // A plain block ends the period, at the time that was chosen for it.
            return Card { deck: 0, mutation: 0, form: 0 };
        }
        if place.period && self.rng.below(4) > 0 {
            let found = self.table.iter().position(|entry| entry.name == "begin of a period");
            let mutation = found.unwrap_or(0);
            self.periods += 1;
            let form = self.periods % self.table[mutation].forms;
            // Not from the deck, so that it need not go back to it.
            return Card { deck: 0, mutation, form };
        }
        if drawn {
            let deck = if self.decks[1].all.is_empty() { 0 } else { self.rng.below(2) as usize };
            let (mutation, form) = self.decks[deck].draw(&mut self.rng);
            return Card { deck, mutation, form };
        }
        loop {
            let (mutation, form) = self.decks[0].any(&mut self.rng);
            let entry = &self.table[mutation];
            // A side block's verdict says less: few of them are large.
            if entry.via != Via::Peer && !(entry.alone && self.rng.below(4) > 0) {
                return Card { deck: 0, mutation, form };
            }
        }
    }
}

/// A block that was just made.
pub struct Fresh {
    pub index: usize,
    pub card: Card,
}

/// A form of a mutation, and the deck it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Card {
    pub deck: usize,
    pub mutation: usize,
    pub form: usize,
}

/// Mutations in random order, each form once before any comes again.
struct Deck {
    all: Vec<(usize, usize)>,
    /// What is still to come, the next one last.
    cards: Vec<(usize, usize)>,
}

impl Deck {
    /// Those of the table with these names; all, if none is named.
    fn new(table: &[Mutation], names: &[&str]) -> Self {
        let entries = table.iter().enumerate();
        let all = entries
            .filter(|(_, entry)| names.is_empty() || names.contains(&entry.name))
            .flat_map(|(mutation, entry)| (0..entry.forms).map(move |form| (mutation, form)))
            .collect();
        Self { all, cards: Vec::new() }
    }

    fn draw(&mut self, rng: &mut Rng) -> (usize, usize) {
        // What does not fit for long must not be all that is left.
        if self.cards.len() < 20 {
            let mut fresh = self.all.clone();
            rng.shuffle(&mut fresh);
            fresh.append(&mut self.cards);
            self.cards = fresh;
        }
        self.cards.pop().unwrap_or_default()
    }

    fn any(&self, rng: &mut Rng) -> (usize, usize) {
        self.all[rng.below(self.all.len() as u64) as usize]
    }
}
