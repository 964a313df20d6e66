//! Slow peers make way one at a time, whoever wants it: their scores or the closed loop.

use super::world::{Manner, World, address, chain, config, params, served};
use headlong::ScorePolicy;
use headlong::engine::{EngineConfig, Input};
use headlong::limits::REPLACE_INTERVAL;
use headlong::peer::CloseReason;
use headlong::sim::forge::Forge;
use headlong::sync::tuning::TuningConfig;
use std::time::Duration;

/// When peers were replaced, in milliseconds, and what for.
fn replacements(tuning: TuningConfig, score_policy: ScorePolicy, seed: u8) -> Vec<(u64, CloseReason)> {
    let mut forge = Forge::new(params(), 31);
    let (branch, blocks) = chain(&mut forge, 1_500);
    let chain = served(&blocks);
    let automatic = EngineConfig {
        automatic: true,
        outbound_target: 7,
        block_relay_target: 0,
        tuning,
        score_policy,
        ..config(&[])
    };
    let mut world = World::new(automatic, seed);
    // Of twenty that are known every other one is slow: some so much that the loop acts, some less, for the scores.
    for n in 1..=20 {
        let block_time = match n % 4 {
            0 => 50_000,
            2 => 16_000,
            _ => 4_000,
        };
        world.serve(n, &chain, Manner { latency: 20, block_time, ..Manner::default() });
    }
    world.input(Input::AddAddresses((1..=20).map(address).collect()));
    let mut found = Vec::new();
    for second in 0..3_600 {
        if world.run(1_000, |world| world.books.tip == branch.tip) {
            break;
        }
        let slow = |reason: &CloseReason| matches!(reason, CloseReason::Replaced | CloseReason::LowScore);
        let closed: Vec<_> = world.closed.iter().filter(|(_, reason)| slow(reason)).collect();
        for (_, reason) in &closed[found.len()..] {
            found.push((second * 1_000, reason.clone()));
        }
    }
    assert_eq!(world.books.tip, branch.tip);
    found
}

#[test]
fn scores_and_the_closed_loop_replace_one_peer_at_a_time() {
    let all = |tuning, policy| -> Vec<_> { (1..=8).map(|seed| replacements(tuning, policy, seed)).collect() };
    let loop_alone = all(TuningConfig::ALL, ScorePolicy::Speed);
    let scores_alone = all(TuningConfig::NOTHING, ScorePolicy::Learnt);
    let both = all(TuningConfig::ALL, ScorePolicy::Learnt);
    println!("loop {loop_alone:?}\nscores {scores_alone:?}\nboth {both:?}");
    for (alone, only) in [(&loop_alone, CloseReason::Replaced), (&scores_alone, CloseReason::LowScore)] {
        assert!(alone.iter().any(|all| !all.is_empty()));
        assert!(alone.iter().flatten().all(|(_, reason)| *reason == only));
    }
    for reason in [CloseReason::Replaced, CloseReason::LowScore] {
        assert!(both.iter().flatten().any(|(_, other)| *other == reason), "both are at work: {both:?}");
    }
    for all in both.into_iter().chain(loop_alone).chain(scores_alone) {
        let times = all.windows(2).map(|pair| Duration::from_millis(pair[1].0 - pair[0].0));
        // Looked at once a second.
        let least = times.min().unwrap_or(REPLACE_INTERVAL);
        assert!(least + Duration::from_secs(1) > REPLACE_INTERVAL, "{all:?}");
    }
}
