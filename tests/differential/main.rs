//! The chainstate beside a real bitcoind: the same blocks, headers, marks and clocks in the same order, and
//! after each the same verdict, the same reason and the same tip; in the end the same coins.
//!
//! Blocks are random, valid or changed near the limit of one rule. `HEADLONG_SEED` and `HEADLONG_STEPS`
//! choose other runs, whose steps are all shown; a failing run says its seed and step.
//!
//! Not tried: a coinbase without its witness, which `submitblock` repairs before it validates.
#![cfg(all(feature = "sim", feature = "consensus"))]

#[path = "../interop/bitcoind.rs"]
#[allow(dead_code)]
mod bitcoind;
#[path = "../consensus_limits/draft.rs"]
mod draft;
#[path = "../consensus_limits/edits.rs"]
mod edits;
mod scripts;
mod world;

use bitcoin::BlockHash;
use bitcoin::consensus::serialize;
use bitcoin::hex::DisplayHex;
use bitcoind::Bitcoind;
use headlong::chain::block_tree::Validity;
use headlong::chain::params::{Params, RegtestOptions};
use headlong::chainstate::{BlockVerdict, Front};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use world::World;

/// Verdict and reason.
type Outcome = (&'static str, String);

struct Pair {
    theirs: Bitcoind,
    ours: Front,
    world: World,
    /// Version of theirs as a number, 310000 for 31.0.
    version: u64,
    /// How often each outcome came.
    seen: BTreeMap<String, usize>,
}

/// A reason up to its details, in the words of Core 31.
fn word(reason: &str) -> String {
    let end = reason.find([' ', '(', ',']).unwrap_or(reason.len());
    match &reason[..end] {
        "mandatory-script-verify-flag-failed" => "block-script-verify-flag-failed".into(),
        word => word.to_owned(),
    }
}

impl Pair {
    fn start(options: &[&str], regtest: &RegtestOptions, seed: u64) -> Self {
        let params = Arc::new(Params::regtest(regtest));
        let options = [options, &["-checkblockindex=0", "-checkmempool=0"]].concat();
        let theirs = Bitcoind::start(&options);
        let mut world = World::new(params.clone(), seed);
        let ours = draft::front(&params, u64::from(world.clock));
        let info = theirs.call("getnetworkinfo", json!([]));
        // Knots takes a header with a negative version for one of 164 bytes, and fails to read it.
        world.negative_versions = !info["subversion"].as_str().is_some_and(|name| name.contains("Knots"));
        let version = info["version"].as_u64().unwrap_or_default();
        let mut pair = Self { theirs, ours, world, version, seen: BTreeMap::new() };
        pair.set_clock(pair.world.clock);
        for index in pair.world.trunk() {
            let outcome = pair.submit(index);
            assert_eq!(
                outcome,
                Ok(("connected", String::new())),
                "trunk at {}",
                pair.world.known[index].height
            );
        }
        pair
    }

    fn set_clock(&mut self, clock: u32) {
        self.world.clock = clock;
        self.theirs.call("setmocktime", json!([clock]));
        self.ours.set_clock(u64::from(clock));
    }

    fn tip(&self) -> usize {
        self.world.find(&self.ours.tip().hash).expect("every connected block was made here")
    }

    /// Gives a block to both. The error says how they differ.
    fn submit(&mut self, index: usize) -> Result<Outcome, String> {
        let known = &self.world.known[index];
        let (hash, bytes) = (known.hash, known.bytes.clone());
        let theirs = self.theirs.try_call("submitblock", &json!([bytes.to_lower_hex_string()]));
        let (_, verdict) = self.ours.process_block(bytes).expect("the chainstate works");
        let ours = match verdict {
            BlockVerdict::Connected => ("connected", String::new()),
            BlockVerdict::Side => ("side", String::new()),
            BlockVerdict::Duplicate => ("duplicate", String::new()),
            BlockVerdict::Rejected(reject) => ("rejected", reject.reason.to_owned()),
            other => panic!("{other:?}"),
        };
        let theirs = match theirs {
            Ok(Value::Null) => {
                // Connected at least once; a failure above it may have led back to the other branch.
                let header = self.theirs.call("getblockheader", json!([hash.to_string()]));
                let active = header["confirmations"].as_i64().is_some_and(|depth| depth > 0);
                (if active { "connected" } else { "side" }, String::new())
            }
            Ok(Value::String(text)) => match text.as_str() {
                // Stored. If a block below it failed only now, bitcoind does not tell it here.
                "inconclusive" if self.is_invalid(&hash) => ("rejected", "bad-prevblk".into()),
                "inconclusive" => ("side", String::new()),
                "duplicate" => ("duplicate", String::new()),
                reason => ("rejected", word(reason)),
            },
            Ok(other) => return Err(format!("bitcoind answers {other}")),
            Err(error) if error.contains("Block decode failed") => ("rejected", "decode-failed".into()),
            Err(error) => ("rejected", error),
        };
        let theirs = self.with_inherited_marks(&hash, &ours, theirs);
        self.compare(ours, theirs)
    }

    /// A known difference: before version 31, Core marks a block's known descendants only when it comes
    /// across them, not when the block is refused. So there they are still duplicates, or accepted headers.
    fn with_inherited_marks(&self, hash: &BlockHash, ours: &Outcome, theirs: Outcome) -> Outcome {
        let tree = self.ours.tree();
        let inherited = tree.find(hash).is_some_and(|id| tree.validity(id) == Validity::FailedParent);
        let unaware = matches!(theirs.0, "duplicate" | "accepted") && ours.1 == "duplicate-invalid";
        if self.version < 310_000 && inherited && unaware { ours.clone() } else { theirs }
    }

    /// Whether a block is the end of a branch that bitcoind found invalid.
    fn is_invalid(&self, hash: &BlockHash) -> bool {
        let tips = self.theirs.call("getchaintips", json!([]));
        let hash = hash.to_string();
        tips.as_array()
            .is_some_and(|tips| tips.iter().any(|tip| tip["hash"] == hash && tip["status"] == "invalid"))
    }

    fn header(&mut self, index: usize) -> Result<Outcome, String> {
        let header = self.world.known[index].header;
        let hex = serialize(&header).to_lower_hex_string();
        let ours = match self.ours.process_header(&header).expect("the chainstate works") {
            Ok(()) => ("accepted", String::new()),
            Err(reject) => ("rejected", reject.reason.to_owned()),
        };
        let theirs = match self.theirs.try_call("submitheader", &json!([hex])) {
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
        self.compare(ours, theirs)
    }

    fn mark(&mut self, method: &str, index: usize) -> Result<Outcome, String> {
        let hash = self.world.known[index].hash;
        let theirs = self.theirs.try_call(method, &json!([hash.to_string()]));
        let found = match method {
            "invalidateblock" => self.ours.invalidate(&hash),
            _ => self.ours.reconsider(&hash),
        };
        let ours = if found.expect("the chainstate works") { "ok" } else { "unknown" };
        let theirs = match theirs {
            Err(error) if error.contains("Block not found") => "unknown",
            _ => "ok",
        };
        self.compare((ours, String::new()), (theirs, String::new()))
    }

    fn compare(&mut self, ours: Outcome, theirs: Outcome) -> Result<Outcome, String> {
        let (tip, their_tip) = (self.ours.tip().hash.to_string(), self.theirs.tip());
        if ours != theirs || tip != their_tip {
            return Err(format!("ours {ours:?} with tip {tip}, theirs {theirs:?} with tip {their_tip}"));
        }
        *self.seen.entry(format!("{} {}", ours.0, ours.1)).or_default() += 1;
        Ok(ours)
    }

    /// One random event, with its name.
    fn step(&mut self) -> (String, Result<Outcome, String>) {
        let tip = self.tip();
        match self.world.rng.below(40) {
            0 => {
                // Up to two hours back, or ahead.
                let time = self.world.known[tip].header.time;
                let clock = time - 7_200 + self.world.rng.below(12_000) as u32;
                self.set_clock(clock);
                (format!("clock {clock}"), Ok(("ok", String::new())))
            }
            1 | 2 => {
                let index = self.recent();
                (format!("invalidate {index}"), self.mark("invalidateblock", index))
            }
            3..=5 => {
                let index = self.recent();
                let index = self.reconsidered(index);
                (format!("reconsider {index}"), self.mark("reconsiderblock", index))
            }
            6 | 7 => {
                let index = self.recent();
                (format!("block {index} again"), self.submit(index))
            }
            8 => {
                let index = self.recent();
                (format!("header {index} again"), self.header(index))
            }
            9 | 10 => {
                // A child first, or its header; its parent later, by chance.
                let parent = self.world.parent(tip);
                let (name, index) = self.world.block(parent);
                let (child, grandchild) = self.world.block(index);
                let mut found = self.header(index);
                if found.is_ok() {
                    found = self.submit(grandchild);
                }
                (format!("header of {name} {index}, then {child} {grandchild} on it"), found)
            }
            11 => {
                let parent = self.world.parent(tip);
                let (name, index) = self.world.block(parent);
                (format!("{name} {index} on {parent}, for later"), Ok(("ok", String::new())))
            }
            _ => {
                let parent = self.world.parent(tip);
                let (name, index) = self.world.block(parent);
                let found = self.submit(index);
                let clock = self.world.clock.max(self.world.known[index].header.time);
                if found.as_ref().is_ok_and(|found| found.0 == "connected") {
                    self.set_clock(clock.min(self.world.clock + 600));
                }
                (format!("{name} {index} on {parent}"), found)
            }
        }
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
        while self.version < 310_000
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

    fn coins(&mut self) {
        self.ours.commit().expect("the chainstate works");
        let (stats, tip) = self.ours.chainstate().utxo_stats().expect("the chainstate works");
        let (serialized, muhash, txouts) = self.theirs.coins();
        assert_eq!(tip, self.ours.tip());
        assert_eq!(txouts, stats.txouts);
        assert_eq!(serialized, stats.hash_serialized_3.to_string());
        let mut ours = stats.muhash;
        ours.reverse();
        assert_eq!(muhash, ours.to_lower_hex_string());
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn run(name: &str, offset: u64, steps: u64, options: &[&str], regtest: &RegtestOptions) {
    if !bitcoind::available() {
        return;
    }
    let seed = number("HEADLONG_SEED").unwrap_or(1);
    let steps = number("HEADLONG_STEPS").unwrap_or(steps);
    let mut pair = Pair::start(options, regtest, seed * 8 + offset);
    let mut log = Vec::new();
    for step in 0..steps {
        let (event, found) = pair.step();
        log.push(format!("{step}: {event}: {found:?}"));
        if let Err(difference) = found {
            let from = log.len().saturating_sub(25);
            panic!("{name}: HEADLONG_SEED={seed} step {step}\n{}\n{difference}", log[from..].join("\n"));
        }
    }
    pair.coins();
    if number("HEADLONG_SEED").is_some() {
        eprintln!("{}", log.join("\n"));
    }
    eprintln!("{name}: seed {seed}, {steps} steps, tip at {}: {:#?}", pair.ours.tip().height, pair.seen);
}

#[test]
fn the_rules_of_today() {
    run("default", 1, 900, &[], &RegtestOptions::default());
}

#[test]
fn rules_that_come_into_force() {
    let heights = ["bip34=125", "dersig=140", "cltv=150", "csv=165", "segwit=180"];
    let options: Vec<String> =
        heights.iter().map(|at| format!("-testactivationheight={}", at.replace('=', "@"))).collect();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let regtest = heights.iter().fold(RegtestOptions::default(), |mut regtest, at| {
        regtest.activations.push(at.parse().expect("an activation"));
        regtest
    });
    run("activation", 2, 500, &options, &regtest);
}

#[test]
fn bip94_and_version_bits() {
    let bits = "testdummy:0:9999999999:144";
    let mut regtest = RegtestOptions::default().bip94(true);
    regtest.version_bits.push(bits.parse().expect("version bits"));
    let bits = format!("-vbparams={bits}");
    run("bip94", 3, 500, &["-test=bip94", &bits], &regtest);
}
