//! Whole worlds from seeds: nodes with real chains, coins, scripts and files on virtual time, beside honest,
//! odd and hostile peers, with kills, losses of power, failing and lying disks, reorgs and wrong clocks. What
//! must hold is checked after every step (`headlong::sim::world::World::violation`).
//!
//! - `HEADLONG_SEEDS=5000..6000` plays these seeds instead of the first ones.
//! - `HEADLONG_SEED=17` plays one, and prints its trace if it fails.
//!
//! A seed that fails is printed, made small, and its trace written to the target folder.
#![cfg(feature = "consensus")]

mod day;
mod majority;
mod stories;

use headlong::sim::scenario::{Outcome, Scenario};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds of an ordinary test run.
const SEEDS: Range<u64> = 0..150;

/// The seeds that are asked for, or these.
fn seeds_or(usual: Range<u64>) -> Range<u64> {
    if let Ok(seed) = std::env::var("HEADLONG_SEED") {
        let seed = seed.parse().expect("HEADLONG_SEED is a number");
        return seed..seed + 1;
    }
    let Ok(range) = std::env::var("HEADLONG_SEEDS") else { return usual };
    let (from, to) = range.split_once("..").expect("HEADLONG_SEEDS is FROM..TO");
    from.parse().expect("a number")..to.parse().expect("a number")
}

/// Plays a scenario; a panic is a failure like any other.
fn play(scenario: &Scenario, trace: bool) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| scenario.run(trace))).unwrap_or_else(|panic| {
        let detail = panic.downcast_ref::<String>().cloned();
        let detail = detail.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let violation = headlong::sim::world::Violation {
            at: 0,
            node: 0,
            invariant: "no panic",
            detail: detail.unwrap_or_default(),
        };
        Outcome { violation: Some(violation), ..Outcome::default() }
    })
}

/// Prints all there is to know about a failing scenario.
fn tell(scenario: &Scenario, outcome: &Outcome) {
    let violation = outcome.violation.as_ref().expect("a failure");
    println!("HEADLONG_SEED={} fails: {violation:?}", scenario.seed);
    let small = scenario.shrink(violation.invariant, |smaller| play(smaller, false));
    let last = play(&small, true);
    println!("the smallest scenario found: {small:#?}\nit ends with {:?}", last.violation);
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("trace-{}.txt", scenario.seed));
    std::fs::write(&path, last.trace.join("\n")).expect("a trace can be written");
    println!("its trace, {} lines, is in {}; it ends so:", last.trace.len(), path.display());
    for line in &last.trace[last.trace.len().saturating_sub(40)..] {
        println!("{line}");
    }
}

#[test]
fn every_seed_keeps_all_invariants_and_reaches_the_best_tip() {
    let seeds = seeds_or(SEEDS);
    let begun = std::time::Instant::now();
    let next = AtomicU64::new(seeds.start);
    let failures = Mutex::new(Vec::new());
    let totals = Mutex::new((0u64, 0u64, 0u64, 0usize));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || failures.lock().expect("no panic").len() >= 3 {
                        return;
                    }
                    let scenario = Scenario::random(seed);
                    let outcome = play(&scenario, false);
                    let mut totals = totals.lock().expect("no panic");
                    totals.0 += outcome.steps;
                    totals.1 += outcome.millis;
                    totals.2 += outcome.deaths;
                    totals.3 += outcome.faults;
                    drop(totals);
                    if outcome.violation.is_some() {
                        failures.lock().expect("no panic").push((scenario, outcome));
                    }
                }
            });
        }
    });
    let (steps, millis, deaths, faults) = *totals.lock().expect("no panic");
    println!(
        "{} seeds from {}: {steps} steps, {} virtual hours, {deaths} ends of nodes, {faults} disk faults, {:.1} s",
        seeds.end - seeds.start,
        seeds.start,
        millis / 3_600_000,
        begun.elapsed().as_secs_f64()
    );
    let failures = failures.into_inner().expect("no panic");
    for (scenario, outcome) in &failures {
        tell(scenario, outcome);
    }
    assert!(failures.is_empty(), "{} failing seeds", failures.len());
}

#[test]
fn a_seed_repeats_to_the_byte() {
    for seed in 0..12 {
        let scenario = Scenario::random(seed);
        let (first, second) = (scenario.run(true), scenario.run(true));
        assert!(first.trace.len() > 100);
        for (line, (once, again)) in first.trace.iter().zip(&second.trace).enumerate() {
            assert_eq!(once, again, "seed {seed}, line {line}");
        }
        assert_eq!(
            (first.trace.len(), first.steps, first.millis),
            (second.trace.len(), second.steps, second.millis)
        );
    }
}
