//! The chainstate beside a real bitcoind: the same blocks, headers, marks and clocks in the same order, and
//! after each the same verdict, the same reason and the same tip; at times and in the end the same coins.
//!
//! Blocks are random: valid, or with one of the mutations of `table.rs` near the limit of a rule. Unless it is
//! asked for less, a run must have seen each form of each mutation, and of each the outcomes on both sides.
//! What `submitblock` repairs comes as a peer's message, and so does a part of all others.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `HEADLONG_SEED` | another run (1); each step is shown then |
//! | `HEADLONG_BLOCKS` | blocks of each of the tests, in rounds of a thousand with seeds that count up |
//!
//! ```sh
//! HEADLONG_BLOCKS=100000 cargo test --test differential the_rules_of_today -- --nocapture
//! ```
//!
//! A failure says its seed and step, whether the block fails on its ancestors alone, and where the commands are
//! with which the example `validate` repeats our side of that.
#![cfg(all(feature = "sim", feature = "consensus"))]

#[path = "../interop/bitcoind.rs"]
mod bitcoind;
#[path = "../consensus_limits/draft.rs"]
mod draft;
#[path = "../consensus_limits/edits.rs"]
mod edits;
mod oracle;
mod pair;
mod scripts;
#[path = "../consensus_limits/signed.rs"]
mod signed;
mod table;
mod world;

use headlong::chain::params::RegtestOptions;
use pair::{Pair, Seen, Setup};
use std::collections::BTreeSet;
use std::time::Instant;
use table::Mutation;
use world::Card;

/// Blocks of one round: a chain that is soon repeated by its seed.
const ROUND: u64 = 1_000;
/// A shorter run need not have seen everything.
const ASSERTED: u64 = 500;
/// Rounds that a run may add to see everything.
const MORE_ROUNDS: u32 = 3;
/// Steps between two comparisons of all coins.
const COINS_EVERY: u64 = 250;
/// Events that any long run must have seen.
const EVENTS: [&str; 12] = [
    "clock",
    "invalidate",
    "reconsider",
    "block again",
    "header again",
    "child first",
    "block for later",
    "block aside",
    "block",
    "block of a peer",
    "branch with a mutation",
    "reorg",
];
/// Outcomes that come of the order of events and not of a mutation.
const OUTCOMES: [&str; 7] = [
    "connected ",
    "side ",
    "duplicate ",
    "accepted ",
    "rejected duplicate-invalid",
    "rejected bad-prevblk",
    "rejected prev-blk-not-found",
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Runs rounds until `blocks` were given to both. `wanted`: mutations and outcomes that must be seen.
fn run(setup: &Setup, blocks: u64, wanted: &[(&str, &str)]) {
    if !bitcoind::available() {
        return;
    }
    let first = number("HEADLONG_SEED").unwrap_or(1);
    let blocks = number("HEADLONG_BLOCKS").unwrap_or(blocks);
    let begun = Instant::now();
    let (mut all, mut seed) = (Seen::default(), first);
    let mut skipped = BTreeSet::new();
    // What a seed dealt unevenly another one brings.
    let mut more = MORE_ROUNDS;
    let missing = loop {
        let round_blocks = blocks.min(ROUND);
        let (seen, lacking) = round(setup, seed, round_blocks);
        all.add(seen);
        skipped.extend(lacking);
        eprintln!("{}: seed {seed} done, {} blocks in {:.0?}", setup.name, all.blocks, begun.elapsed());
        if all.blocks >= blocks {
            let missing = match blocks {
                0..ASSERTED => Vec::new(),
                _ if setup.about.is_empty() => all.missing(&table::table(), &skipped),
                _ => all.missing_of(wanted),
            };
            if missing.is_empty() || more == 0 {
                break missing;
            }
            more -= 1;
        }
        seed += 1;
    };
    eprint!("{}", all.report(setup.name, first, seed, begun));
    assert!(missing.is_empty(), "{}: never seen: {missing:#?}", setup.name);
}

/// One round; also the mutations that cannot be tried beside this bitcoind.
fn round(setup: &Setup, seed: u64, blocks: u64) -> (Seen, BTreeSet<Card>) {
    let show = number("HEADLONG_SEED").is_some() && number("HEADLONG_BLOCKS").is_none();
    let mut pair = Pair::start(setup, seed);
    let mut log = Vec::new();
    while pair.seen.blocks < blocks {
        let known = pair.world.known.len();
        let (event, found) = pair.step();
        let step = pair.seen.steps;
        log.push(format!("{step}: {event}: {found:?}"));
        if show {
            eprintln!("{}", log[log.len() - 1]);
        }
        if let Err(difference) = found {
            let from = log.len().saturating_sub(25);
            let name = setup.name;
            eprintln!("{name}: HEADLONG_SEED={seed} step {step}\n{}\n{difference}", log[from..].join("\n"));
            // What was new in this step, or else what was last.
            for index in known.min(pair.world.known.len() - 1)..pair.world.known.len() {
                eprintln!("block {index}: {}", setup.shrink(&pair.world, index));
            }
            panic!("{name}: HEADLONG_SEED={seed} step {step}: {difference}");
        }
        if step.is_multiple_of(COINS_EVERY) {
            pair.coins();
        }
    }
    pair.coins();
    (pair.seen, pair.world.skipped)
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.blocks += other.blocks;
        self.steps += other.steps;
        other.events.into_iter().for_each(|(key, count)| *self.events.entry(key).or_default() += count);
        other.outcomes.into_iter().for_each(|(key, count)| *self.outcomes.entry(key).or_default() += count);
        other.mutations.into_iter().for_each(|(key, count)| *self.mutations.entry(key).or_default() += count);
        other.forms.into_iter().for_each(|(key, count)| *self.forms.entry(key).or_default() += count);
    }

    fn report(&self, name: &str, first: u64, last: u64, begun: Instant) -> String {
        use std::fmt::Write as _;
        let seconds = begun.elapsed().as_secs_f64();
        let mut text = format!(
            "{name}: seeds {first} to {last}, {} blocks in {} steps, {seconds:.1} s, {:.0} blocks/s\n",
            self.blocks,
            self.steps,
            self.blocks as f64 / seconds
        );
        for (event, count) in &self.events {
            let _ = writeln!(text, "  event    {count:6}  {event}");
        }
        for (outcome, count) in &self.outcomes {
            let _ = writeln!(text, "  verdict  {count:6}  {outcome}");
        }
        for ((mutation, outcome), count) in &self.mutations {
            let _ = writeln!(text, "  mutation {count:6}  {mutation}: {outcome}");
        }
        text
    }

    /// What should have been seen of a run that is about everything.
    fn missing(&self, table: &[Mutation], skipped: &BTreeSet<Card>) -> Vec<String> {
        let mut missing = Vec::new();
        for (at, entry) in table.iter().enumerate().filter(|(_, entry)| !entry.wanted.is_empty()) {
            for outcome in entry.wanted {
                if !self.mutations.contains_key(&(entry.name, (*outcome).to_owned())) {
                    missing.push(format!("{}: {outcome}", entry.name));
                }
            }
            for form in 0..entry.forms {
                let tried = skipped.iter().any(|card| (card.mutation, card.form) == (at, form));
                if !tried && !self.forms.contains_key(&(at, form)) {
                    missing.push(table::describe(entry.name, form));
                }
            }
        }
        missing.extend(EVENTS.iter().filter(|event| !self.events.contains_key(**event)).map(|e| (*e).into()));
        missing.extend(OUTCOMES.iter().filter(|one| !self.outcomes.contains_key(**one)).map(|o| (*o).into()));
        missing
    }

    fn missing_of(&self, wanted: &[(&str, &str)]) -> Vec<String> {
        let seen =
            |name, outcome| self.mutations.keys().any(|key| key.0 == name && key.1.as_str() == outcome);
        let missing = wanted.iter().filter(|(name, outcome)| !seen(*name, *outcome));
        missing.map(|(name, outcome)| format!("{name}: {outcome}")).collect()
    }
}

#[test]
fn the_rules_of_today() {
    let setup = Setup { name: "today", options: Vec::new(), regtest: RegtestOptions::default(), about: &[] };
    run(&setup, ROUND, &[]);
}

#[test]
fn rules_that_come_into_force() {
    let heights = ["bip34=150", "dersig=190", "cltv=210", "csv=230", "segwit=250"];
    let options =
        heights.iter().map(|at| format!("-testactivationheight={}", at.replace('=', "@"))).collect();
    let regtest = heights.iter().fold(RegtestOptions::default(), |mut regtest, at| {
        regtest.activations.push(at.parse().expect("an activation"));
        regtest
    });
    let about = &[
        "version",
        "coinbase again",
        "coinbase height",
        "coinbase script",
        "padded signature",
        "CLTV",
        "CSV",
        "relative height",
        "relative time",
        "dummy",
        "commitment in any case",
        "no commitment",
        "maturity",
    ];
    let setup = Setup { name: "activation", options, regtest, about };
    // Before a rule and after it.
    let wanted = [
        ("coinbase again", "bad-txns-BIP30"),
        ("coinbase again", "bad-cb-height"),
        ("coinbase height", "connected"),
        ("coinbase height", "bad-cb-height"),
        ("version", "bad-version"),
        ("padded signature", "connected"),
        ("padded signature", "block-script-verify-flag-failed"),
        ("CLTV", "block-script-verify-flag-failed"),
        ("CSV", "block-script-verify-flag-failed"),
        ("relative height", "bad-txns-nonfinal"),
        ("dummy", "connected"),
        ("dummy", "block-script-verify-flag-failed"),
        ("commitment in any case", "unexpected-witness"),
        ("commitment in any case", "connected"),
    ];
    run(&setup, ROUND / 2, &wanted);
}

#[test]
fn bip94_and_version_bits() {
    let bits = "testdummy:0:9999999999:144";
    let mut regtest = RegtestOptions::default().bip94(true);
    regtest.version_bits.push(bits.parse().expect("version bits"));
    let options = vec!["-test=bip94".into(), format!("-vbparams={bits}")];
    let about = &["begin of a period", "version", "time above the median", "time ahead"];
    let setup = Setup { name: "bip94", options, regtest, about };
    let wanted = [("begin of a period", "time-timewarp-attack"), ("begin of a period", "connected")];
    run(&setup, ROUND / 2, &wanted);
}
