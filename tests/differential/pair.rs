//! Both nodes, and the world that they are asked about.

use crate::draft;
use crate::oracle::{Oracle, Outcome, Said, word};
use crate::table::{Via, describe};
use crate::world::{Card, World};
use bitcoin::BlockHash;
use bitcoin::consensus::serialize;
use bitcoin::hex::DisplayHex;
use headlong::chain::block_tree::Validity;
use headlong::chain::params::{Params, RegtestOptions};
use headlong::chainstate::{BlockVerdict, Front};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

/// How a run is set up.
#[derive(Clone)]
pub struct Setup {
    pub name: &'static str,
    /// bitcoind's options beyond the usual ones.
    pub options: Vec<String>,
    /// The same for us.
    pub regtest: RegtestOptions,
    /// Mutations that half of the blocks have; none: all alike.
    pub about: &'static [&'static str],
}

/// What a run has seen.
#[derive(Default)]
pub struct Seen {
    /// Blocks that both were given for the first time.
    pub blocks: u64,
    pub steps: u64,
    /// By kind of event, by outcome, and by mutation and outcome.
    pub events: BTreeMap<&'static str, usize>,
    pub outcomes: BTreeMap<String, usize>,
    pub mutations: BTreeMap<(&'static str, String), usize>,
    /// Forms of mutations, by their places in the table.
    pub forms: BTreeMap<(usize, usize), usize>,
}

pub struct Pair {
    theirs: Oracle,
    pub ours: Front,
    pub world: World,
    pub seen: Seen,
}

/// Reasons of a header by itself and its place.
const BY_ITSELF: [&str; 5] =
    ["bad-diffbits", "time-too-old", "time-too-new", "time-timewarp-attack", "bad-version"];

type Found = Result<Outcome, String>;

/// Our verdict in the words of the oracle.
fn judge(front: &mut Front, bytes: Vec<u8>) -> Outcome {
    match front.process_block(bytes).expect("the chainstate works").1 {
        BlockVerdict::Connected => ("connected", String::new()),
        BlockVerdict::Side => ("side", String::new()),
        BlockVerdict::Duplicate => ("duplicate", String::new()),
        BlockVerdict::Rejected(reject) => ("rejected", reject.reason.to_owned()),
        other => panic!("{other:?}"),
    }
}

fn agree(ours: Outcome, tip: String, theirs: Said) -> Found {
    if ours != theirs.outcome || tip != theirs.tip {
        let Said { outcome, tip: their_tip } = theirs;
        return Err(format!("ours {ours:?} with tip {tip}, theirs {outcome:?} with tip {their_tip}"));
    }
    Ok(ours)
}

impl Setup {
    fn start(&self, clock: u32) -> (Oracle, Front) {
        let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        let theirs = Oracle::start(&options);
        theirs.set_clock(clock);
        (theirs, draft::front(&self.params(), u64::from(clock)))
    }

    fn params(&self) -> Arc<Params> {
        Arc::new(Params::regtest(&self.regtest))
    }

    /// Whether the difference remains where both know nothing but the ancestors of a block.
    pub fn shrink(&self, world: &World, index: usize) -> String {
        let (mut theirs, mut ours) = self.start(world.clock);
        let chain = world.chain(index);
        let mut commands = format!("clock {}\n", world.clock);
        let mut told = String::new();
        for &at in &chain {
            let known = &world.known[at];
            let _ = writeln!(commands, "{}", known.bytes.to_lower_hex_string());
            let verdict = judge(&mut ours, known.bytes.clone());
            let said = match world.vias[at] {
                Via::Peer => theirs.deliver(&known.hash, &known.bytes),
                _ => theirs.submit(&known.hash, &known.bytes),
            };
            if let Err(difference) = agree(verdict, ours.tip().hash.to_string(), said) {
                told = format!("they differ at height {}: {difference}", known.height);
                break;
            }
        }
        if told.is_empty() {
            told = "they agree: it needs more than the ancestors".into();
        }
        let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("differential-{}-{}.txt", self.name, world.known[index].hash));
        let _ = std::fs::write(&file, commands);
        format!(
            "on its {} ancestors alone {told}\ncommands for the example `validate`: {}",
            chain.len() - 1,
            file.display()
        )
    }
}

impl Pair {
    pub fn start(setup: &Setup, seed: u64) -> Self {
        let mut world = World::new(setup.params(), seed, setup.about);
        let (theirs, ours) = setup.start(world.clock);
        // Knots takes a header with a negative version for one of 164 bytes, and fails to read it.
        world.negative_versions = !theirs.knots;
        let mut pair = Self { theirs, ours, world, seen: Seen::default() };
        for index in pair.world.trunk() {
            let height = pair.world.known[index].height;
            assert_eq!(pair.submit(index), Ok(("connected", String::new())), "trunk at {height}");
        }
        pair
    }

    fn set_clock(&mut self, clock: u32) {
        self.world.clock = clock;
        self.theirs.set_clock(clock);
        self.ours.set_clock(u64::from(clock));
    }

    fn tip(&self) -> usize {
        self.world.find(&self.ours.tip().hash).expect("every connected block was made here")
    }

    /// Gives a block to both. The error says how they differ.
    fn submit(&mut self, index: usize) -> Found {
        if self.is_untold(index) {
            return self.untold();
        }
        let known = &self.world.known[index];
        let (hash, bytes) = (known.hash, known.bytes.clone());
        // Both work at the same time.
        let (theirs, front) = (&mut self.theirs, &mut self.ours);
        let via = self.world.vias[index];
        let (ours, mut said) = std::thread::scope(|scope| {
            let ours = scope.spawn({
                let bytes = bytes.clone();
                move || judge(front, bytes)
            });
            let said = match via {
                Via::Peer => theirs.deliver(&hash, &bytes),
                _ => theirs.submit(&hash, &bytes),
            };
            (ours.join().expect("the chainstate works"), said)
        });
        // Of two faults, a peer's body shows its own before the header is judged.
        let header = BY_ITSELF.contains(&ours.1.as_str());
        if via == Via::Peer && header && said.outcome.1.contains("witness") {
            said.outcome = ours.clone();
        }
        said.outcome = self.with_inherited_marks(&hash, &ours, said.outcome);
        self.compare(ours, said)
    }

    /// A known difference: before version 31, Core marks a block's known descendants only when it comes
    /// across them, not when the block is refused. So there they are still duplicates, or accepted headers.
    fn with_inherited_marks(&self, hash: &BlockHash, ours: &Outcome, theirs: Outcome) -> Outcome {
        let tree = self.ours.tree();
        let inherited = tree.find(hash).is_some_and(|id| tree.validity(id) == Validity::FailedParent);
        let unaware = matches!(theirs.0, "duplicate" | "accepted") && ours.1 == "duplicate-invalid";
        if self.theirs.version < 310_000 && inherited && unaware { ours.clone() } else { theirs }
    }

    /// Whether a block or its header would be taken by a bitcoind before version 31 for the same reason, and is
    /// refused here: after that the two would know different things. (Blocks that fail in `AcceptBlock` do not
    /// come into its `m_failed_blocks`, so that even new headers on their descendants are accepted.)
    fn is_untold(&self, index: usize) -> bool {
        let tree = self.ours.tree();
        let known = &self.world.known[index];
        let inherited = |id| tree.validity(id) == Validity::FailedParent;
        let refused = match tree.find(&known.hash) {
            Some(id) => inherited(id) && !tree.has_body(id),
            None => tree.find(&known.header.prev_blockhash).is_some_and(inherited),
        };
        self.theirs.version < 310_000 && refused
    }

    fn untold(&mut self) -> Found {
        *self.seen.outcomes.entry("untold ".into()).or_default() += 1;
        Ok(("untold", String::new()))
    }

    fn header(&mut self, index: usize) -> Found {
        if self.is_untold(index) {
            return self.untold();
        }
        let header = self.world.known[index].header;
        let hex = serialize(&header).to_lower_hex_string();
        let ours = match self.ours.process_header(&header).expect("the chainstate works") {
            Ok(()) => ("accepted", String::new()),
            Err(reject) => ("rejected", reject.reason.to_owned()),
        };
        let theirs = match self.theirs.node.try_call("submitheader", &json!([hex])) {
            Ok(_) => ("accepted", String::new()),
            // This call looks for the parent first, before it validates.
            Err(error) if error.contains("Must submit previous header") => match ours.1.as_str() {
                "high-hash" => ours.clone(),
                _ => ("rejected", "prev-blk-not-found".into()),
            },
            Err(error) => {
                let error: Value = serde_json::from_str(&error).unwrap_or_default();
                ("rejected", word(error["message"].as_str().unwrap_or_default()))
            }
        };
        let hash = self.world.known[index].hash;
        let theirs = self.with_inherited_marks(&hash, &ours, theirs);
        self.compare_calls(ours, theirs)
    }

    fn mark(&mut self, method: &str, index: usize) -> Found {
        let hash = self.world.known[index].hash;
        let theirs = self.theirs.node.try_call(method, &json!([hash.to_string()]));
        let found = match method {
            "invalidateblock" => self.ours.invalidate(&hash),
            _ => self.ours.reconsider(&hash),
        };
        let ours = if found.expect("the chainstate works") { "ok" } else { "unknown" };
        let theirs = match theirs {
            Err(error) if error.contains("Block not found") => "unknown",
            _ => "ok",
        };
        self.compare_calls((ours, String::new()), (theirs, String::new()))
    }

    fn compare(&mut self, ours: Outcome, theirs: Said) -> Found {
        let ours = agree(ours, self.ours.tip().hash.to_string(), theirs)?;
        *self.seen.outcomes.entry(format!("{} {}", ours.0, ours.1)).or_default() += 1;
        Ok(ours)
    }

    /// The same for what has no verdict of a block.
    fn compare_calls(&mut self, ours: Outcome, outcome: Outcome) -> Found {
        let tip = self.theirs.tip();
        self.compare(ours, Said { outcome, tip })
    }

    /// A new block on `parent`, and its name.
    fn fresh(&mut self, parent: usize, drawn: bool) -> (String, usize, Card) {
        let fresh = self.world.block(parent, drawn);
        let entry = &self.world.table[fresh.card.mutation];
        (format!("{} {}", describe(entry.name, fresh.card.form), fresh.index), fresh.index, fresh.card)
    }

    /// Gives a new block to both and counts it.
    fn first(&mut self, index: usize, card: Card) -> Found {
        let parent = self.world.known[index].parent.expect("it is not the genesis block");
        let tree = self.ours.tree();
        let sound = tree.find(&self.world.known[parent].hash).is_some_and(|id| !tree.is_failed(id));
        self.seen.blocks += 1;
        let found = self.submit(index)?;
        if sound {
            let outcome = if found.1.is_empty() { found.0 } else { &found.1 };
            let name = self.world.table[card.mutation].name;
            *self.seen.mutations.entry((name, outcome.to_owned())).or_default() += 1;
            *self.seen.forms.entry((card.mutation, card.form)).or_default() += 1;
        }
        Ok(found)
    }

    /// One random event, with its description.
    pub fn step(&mut self) -> (String, Found) {
        self.seen.steps += 1;
        let ok = Ok(("ok", String::new()));
        let (kind, told, found) = match self.world.rng.below(50) {
            0 => {
                // Up to two hours back, or ahead.
                let tip = self.tip();
                let time = self.world.known[tip].header.time;
                let clock = time - 7_200 + self.world.rng.below(12_000) as u32;
                self.set_clock(clock);
                ("clock", clock.to_string(), ok)
            }
            1 | 2 => {
                let index = self.recent();
                ("invalidate", index.to_string(), self.mark("invalidateblock", index))
            }
            3..=5 => {
                let index = self.recent();
                let index = self.reconsidered(index);
                ("reconsider", index.to_string(), self.mark("reconsiderblock", index))
            }
            6 | 7 => {
                let index = self.recent();
                // `submitblock` would repair it.
                match self.world.vias[index] {
                    Via::Peer => ("header again", index.to_string(), self.header(index)),
                    _ => ("block again", index.to_string(), self.submit(index)),
                }
            }
            8 => {
                let index = self.recent();
                ("header again", index.to_string(), self.header(index))
            }
            9 => self.child_first(),
            10 => {
                let (told, ..) = self.aside();
                ("block for later", told, ok)
            }
            11 | 12 => self.branch(),
            13 | 14 => {
                let (told, index, card) = self.aside();
                ("block aside", told, self.first(index, card))
            }
            _ => self.next_block(),
        };
        *self.seen.events.entry(kind).or_default() += 1;
        (format!("{kind} {told}"), found)
    }

    /// A block beside the tip, or on something that may be invalid.
    fn aside(&mut self) -> (String, usize, Card) {
        let tip = self.tip();
        let parent = self.world.parent(tip);
        let (told, index, card) = self.fresh(parent, false);
        (format!("{told} on {parent}"), index, card)
    }

    /// A block on the tip, with a mutation whose turn it is.
    fn next_block(&mut self) -> (&'static str, String, Found) {
        let parent = self.tip();
        let (told, index, card) = self.fresh(parent, true);
        let via = match self.world.table[card.mutation].via {
            Via::Any if self.world.rng.below(4) == 0 => Via::Peer,
            Via::Any => Via::Rpc,
            via => via,
        };
        self.world.vias[index] = via;
        let found = self.first(index, card);
        let clock = self.world.clock.max(self.world.known[index].header.time);
        if found.is_ok() && self.world.table[card.mutation].via != Via::Peer {
            self.world.vias[index] = Via::Rpc;
        }
        if found.as_ref().is_ok_and(|found| found.0 == "connected") {
            self.set_clock(clock.min(self.world.clock + 600));
        }
        let kind = if via == Via::Peer { "block of a peer" } else { "block" };
        (kind, format!("{told} on {parent}"), found)
    }

    /// The header of a block, then a block on it; the block itself later, by chance.
    fn child_first(&mut self) -> (&'static str, String, Found) {
        let (told, index, _) = self.aside();
        let (child, grandchild, card) = self.fresh(index, false);
        let mut found = self.header(index);
        if found.is_ok() {
            found = self.first(grandchild, card);
        }
        ("child first", format!("header of {told}, then {child}"), found)
    }

    /// A branch from up to six blocks below the tip that has the most work if it is valid, in any order.
    fn branch(&mut self) -> (&'static str, String, Found) {
        let below = 1 + self.world.rng.below(6);
        let mut at = self.tip();
        for _ in 0..below {
            at = self.world.known[at].parent.unwrap_or(at);
        }
        let fork = at;
        let length = below + 1 + self.world.rng.below(2);
        // Half of the branches are sound as far as that was intended.
        let bad = self.world.rng.below(length * 2);
        let mut made = Vec::new();
        for place in 0..length {
            let fresh = match place == bad {
                true => self.world.block(at, false),
                false => self.world.plain(at),
            };
            at = fresh.index;
            made.push(fresh);
        }
        let order = self.world.rng.below(3);
        match order {
            0 => {}
            1 => made.reverse(),
            _ => self.world.rng.shuffle(&mut made),
        }
        let name = if bad < length { "branch with a mutation" } else { "branch" };
        let told = format!("of {length} from {fork} in order {order}");
        // Half of the time the headers come first: then no block is an orphan.
        if order > 0 && self.world.rng.below(2) == 0 {
            let mut headers: Vec<usize> = made.iter().map(|fresh| fresh.index).collect();
            headers.sort_unstable();
            for index in headers {
                if let Err(difference) = self.header(index) {
                    return (name, format!("{told}, header {index}"), Err(difference));
                }
            }
        }
        let before = self.ours.tip();
        for again in 0..2 {
            for fresh in &made {
                let found = match again {
                    0 => self.first(fresh.index, fresh.card),
                    _ => self.submit(fresh.index),
                };
                if found.is_err() {
                    return (name, format!("{told}, block {}", fresh.index), found);
                }
            }
        }
        let moved = self.ours.tip() != before;
        (if moved && bad >= length { "reorg" } else { name }, told, Ok(("ok", String::new())))
    }

    /// Which block is reconsidered when a random one is meant.
    ///
    /// A known difference: before version 31, Core takes the marks off the ancestors too, but does not take
    /// one of those for a tip again before some other block comes. So there it is the lowest marked one.
    fn reconsidered(&self, index: usize) -> usize {
        let tree = self.ours.tree();
        let failed =
            |index: usize| tree.find(&self.world.known[index].hash).is_some_and(|id| tree.is_failed(id));
        let mut at = index;
        while self.theirs.version < 310_000
            && let Some(parent) = self.world.known[at].parent
            && failed(parent)
        {
            at = parent;
        }
        at
    }

    fn recent(&mut self) -> usize {
        let count = self.world.known.len() as u64;
        (count - 1 - self.world.rng.below(10)) as usize
    }

    /// Both have the same coins.
    pub fn coins(&mut self) {
        self.ours.commit().expect("the chainstate works");
        let (stats, tip) = self.ours.chainstate().utxo_stats().expect("the chainstate works");
        let (serialized, muhash, txouts) = self.theirs.node.coins();
        assert_eq!(tip, self.ours.tip());
        assert_eq!(txouts, stats.txouts);
        assert_eq!(serialized, stats.hash_serialized_3.to_string());
        let mut ours = stats.muhash;
        ours.reverse();
        assert_eq!(muhash, ours.to_lower_hex_string());
    }
}
