//! Scores by hand: what moves them, and what they mean.

use super::*;
use crate::chain::block_tree::BlockTree;
use crate::chain::params::{Network, Params};
use crate::peer::Fault;
use core::time::Duration;
use proptest::prelude::*;

const HOUR: u64 = 3_600;

fn address(host: u8) -> PeerAddress {
    PeerAddress::Ip(([10, 0, 0, host], 8333).into())
}

fn seconds(at: u64) -> Timestamp {
    Timestamp::ZERO + Duration::from_secs(at)
}

fn now(at: u64) -> Now {
    Now::new(at * 1_000, 1_700_000_000 + at)
}

fn with_peers(policy: ScorePolicy, count: u8) -> Scores {
    let mut scores = Scores::new(policy);
    for id in 1..=count {
        scores.on_ready(PeerId(u64::from(id)), &address(id), ConnectionKind::FullRelay, seconds(0));
    }
    scores
}

/// Three peers, one of which is connected no more; for the file's tests.
pub(super) fn some_scores() -> Scores {
    let mut scores = with_peers(ScorePolicy::Learnt, 3);
    for at in 1..60 {
        scores.on_speed(PeerId(1), 1_000_000, 250, seconds(at));
        scores.on_speed(PeerId(2), 10_000, 250, seconds(at));
        scores.on_stall(PeerId(3), 250, seconds(at));
    }
    scores.on_gone(PeerId(3), &CloseReason::Remote, false, now(61));
    scores
}

fn some_header() -> HeaderId {
    BlockTree::new(Params::new(Network::Regtest).into(), [1, 2]).genesis()
}

fn score(scores: &Scores, peer: u64) -> u8 {
    scores.get(PeerId(peer)).unwrap().score
}

#[test]
fn a_stranger_is_watched_at_fifty_and_bands_meet_without_a_gap() {
    let scores = with_peers(ScorePolicy::Learnt, 1);
    let stranger = scores.get(PeerId(1)).unwrap();
    assert_eq!((stranger.score, stranger.band), (50, Band::Watched));
    assert_eq!(stranger.features, Features::STRANGER);
    let bands = [19, 20, 39, 40, 59, 60, 79, 80, 100].map(Band::of);
    use Band::{Full, Isolated, Limited, Receive, Watched};
    assert_eq!(bands, [Isolated, Limited, Limited, Watched, Watched, Receive, Receive, Full, Full]);
}

#[test]
fn fast_peers_rise_slow_ones_fall_and_the_weight_of_speed_is_learnt() {
    let mut scores = with_peers(ScorePolicy::Learnt, 3);
    for at in 1..60 {
        for (peer, rate) in [(1, 2_000_000), (2, 200_000), (3, 20_000)] {
            scores.on_speed(PeerId(peer), rate, 250, seconds(at));
        }
    }
    assert!(score(&scores, 1) >= 70, "{}", score(&scores, 1));
    assert!((40..60).contains(&score(&scores, 2)), "{}", score(&scores, 2));
    assert!(score(&scores, 3) < 30, "{}", score(&scores, 3));
    let speed = scores.weights()[4];
    assert!(speed > 0.3, "{speed}");
    assert_eq!(scores.weights()[5], 0.0, "nobody was overtaken");
}

#[test]
fn a_slow_link_of_our_own_makes_nobody_look_bad() {
    let mut scores = with_peers(ScorePolicy::Learnt, 4);
    for at in 1..60 {
        for peer in 1..=4 {
            scores.on_response(PeerId(peer), 20_000);
            scores.on_speed(PeerId(peer), 2_000, 250, seconds(at));
        }
    }
    for peer in 1..=4 {
        assert!((45..=55).contains(&score(&scores, peer)), "{}", score(&scores, peer));
    }
}

#[test]
fn a_peer_alone_is_typical_however_slow_it_is() {
    let mut scores = with_peers(ScorePolicy::Learnt, 1);
    for at in 1..200 {
        scores.on_speed(PeerId(1), 10, 250, seconds(at));
    }
    assert!((45..=55).contains(&score(&scores, 1)), "{}", score(&scores, 1));
}

#[test]
fn stalls_cost_and_are_forgotten() {
    let mut scores = with_peers(ScorePolicy::Learnt, 2);
    for at in 1..40 {
        scores.on_speed(PeerId(1), 100_000, 250, seconds(at));
        scores.on_speed(PeerId(2), 100_000, 250, seconds(at));
        if at % 2 == 0 {
            scores.on_stall(PeerId(2), 250, seconds(at));
        }
    }
    assert!(score(&scores, 2) + 5 < score(&scores, 1), "{} {}", score(&scores, 1), score(&scores, 2));
    assert!(scores.weights()[3] < 0.0, "{:?}", scores.weights());
    for at in 40..90 {
        scores.on_speed(PeerId(2), 100_000, 250, seconds(at));
    }
    assert!(score(&scores, 2) >= 45, "{}", score(&scores, 2));
}

#[test]
fn fixed_weights_stay_and_give_the_score_of_the_article() {
    let mut scores = with_peers(ScorePolicy::Fixed, 2);
    for at in 1..60 {
        scores.on_response(PeerId(1), 10);
        scores.on_response(PeerId(2), 160_000);
        scores.on_speed(PeerId(1), 1_000_000, 250, seconds(at));
        scores.on_stall(PeerId(2), 250, seconds(at));
    }
    assert_eq!(scores.weights(), [0.4, 0.35, -0.25, 0.0, 0.0, 0.0]);
    assert_eq!(score(&scores, 1), 70, "50 and the whole of the quickness");
    assert_eq!(score(&scores, 2), 30);
    assert_eq!(scores.get(PeerId(2)).unwrap().band, Band::Limited);
}

#[test]
fn stability_takes_three_days_and_each_loss_costs_an_eighth() {
    let mut scores = with_peers(ScorePolicy::Fixed, 1);
    scores.on_speed(PeerId(1), 1, 250, seconds(36 * HOUR));
    let stability = |scores: &Scores| scores.get(PeerId(1)).unwrap().features.stability;
    assert_eq!(stability(&scores), 0.75);
    scores.on_speed(PeerId(1), 1, 250, seconds(72 * HOUR));
    assert_eq!(stability(&scores), 1.0);
    scores.on_gone(PeerId(1), &CloseReason::Remote, false, now(72 * HOUR));
    scores.on_ready(PeerId(1), &address(1), ConnectionKind::FullRelay, seconds(73 * HOUR));
    assert_eq!(stability(&scores), 0.875);
    scores.on_speed(PeerId(1), 1, 250, seconds(82 * HOUR));
    assert_eq!(stability(&scores), 1.0, "nine hours forgive one loss");
    // What we end ourselves is not its fault.
    scores.on_gone(PeerId(1), &CloseReason::Shutdown, false, now(82 * HOUR));
    scores.on_ready(PeerId(1), &address(1), ConnectionKind::FullRelay, seconds(83 * HOUR));
    assert_eq!(stability(&scores), 1.0);
}

#[test]
fn a_block_that_comes_for_the_third_time_costs_two_points_each_time() {
    let mut scores = with_peers(ScorePolicy::Learnt, 1);
    let block = some_header();
    for (times, expected) in [(2, 50), (3, 48), (4, 46)] {
        scores.on_repeated(PeerId(1), block, seconds(1));
        assert_eq!(score(&scores, 1), expected, "delivered {times} times");
    }
}

#[test]
fn useless_bytes_are_a_part_of_all_and_come_back_with_the_address() {
    let mut scores = with_peers(ScorePolicy::Learnt, 1);
    scores.on_bytes(PeerId(1), 3_000, true);
    scores.on_bytes(PeerId(1), 1_000, false);
    assert_eq!(scores.get(PeerId(1)).unwrap().features.useless, 0.25);
    scores.on_false(PeerId(1), 1_000);
    assert_eq!(scores.get(PeerId(1)).unwrap().features.useless, 0.5);
    scores.on_gone(PeerId(1), &CloseReason::Remote, false, now(5));
    scores.on_ready(PeerId(9), &address(1), ConnectionKind::FullRelay, seconds(6));
    assert_eq!(scores.get(PeerId(9)).unwrap().features.useless, 0.5);
    scores.on_bytes(PeerId(9), USELESS_MEMORY, true);
    assert_eq!(scores.get(PeerId(9)).unwrap().features.useless, 0.0);
}

#[test]
fn an_address_keeps_its_score_and_whoever_comes_from_any_port_does_not() {
    let mut scores = with_peers(ScorePolicy::Learnt, 2);
    assert_eq!(scores.delivering(), 0, "strangers have shown nothing");
    for at in 1..20 {
        scores.on_speed(PeerId(1), 1_000_000, 250, seconds(at));
        scores.on_stall(PeerId(2), 250, seconds(at));
    }
    assert_eq!(scores.delivering(), 1);
    let low = score(&scores, 2);
    assert!(low < 40);
    scores.on_gone(PeerId(2), &CloseReason::LowScore, false, now(20));
    assert_eq!(scores.low_addresses().collect::<Vec<_>>(), [&address(2)]);
    scores.on_ready(PeerId(3), &address(2), ConnectionKind::FullRelay, seconds(30));
    assert_eq!(score(&scores, 3), low);
    scores.on_ready(PeerId(4), &address(2), ConnectionKind::Inbound, seconds(30));
    assert_eq!(score(&scores, 4), 50);
    scores.on_gone(PeerId(4), &CloseReason::Remote, false, now(31));
    assert_eq!(scores.remembered(), 1);
}

#[test]
fn addresses_that_are_remembered_have_a_bound() {
    let mut scores = Scores::new(ScorePolicy::Learnt);
    for host in 0..MAX_SCORED_ADDRESSES as u64 + 50 {
        let address = PeerAddress::Ip(([10, 1, (host >> 8) as u8, host as u8], 8333).into());
        scores.on_ready(PeerId(host), &address, ConnectionKind::FullRelay, seconds(host));
        scores.on_gone(PeerId(host), &CloseReason::Remote, false, now(host));
    }
    assert_eq!(scores.remembered(), MAX_SCORED_ADDRESSES);
    assert!(
        !scores.known.contains_key(&PeerAddress::Ip(([10, 1, 0, 0], 8333).into())),
        "the oldest goes first"
    );
}

#[test]
fn a_low_score_has_a_clock_and_a_pardon_restarts_it() {
    let mut scores = with_peers(ScorePolicy::Learnt, 2);
    for at in 1..40 {
        scores.on_speed(PeerId(1), 1_000_000, 250, seconds(at));
        scores.on_stall(PeerId(2), 250, seconds(at));
    }
    assert_eq!(scores.looks.get(&PeerId(1)), None);
    assert!(scores.next_look().is_some_and(|at| at < seconds(10) + SCORE_ISOLATED_TIME));
    assert_eq!(scores.lowest(seconds(10) + SCORE_ISOLATED_TIME), [PeerId(2)]);
    assert!(scores.rank(PeerId(2)).isolated);
    assert_eq!(scores.rank(PeerId(2)).part, SCORE_LIMITED_PART);
    scores.pardon(PeerId(2), seconds(50));
    // Not isolated any more, it has more time.
    assert_eq!(scores.next_look(), Some(seconds(50) + SCORE_LIMITED_TIME));
    assert!(!scores.rank(PeerId(2)).isolated);
    assert!(scores.rank(PeerId(2)).order < scores.rank(PeerId(1)).order);
}

/// Of a choice that has become good the slower ones were low in their turn, and made room for whoever came.
#[test]
fn what_is_typical_remembers_those_that_left_for_a_while_and_knows_no_visitors() {
    let mut scores = with_peers(ScorePolicy::Learnt, 12);
    let visitor = PeerId(99);
    scores.on_ready(visitor, &address(99), ConnectionKind::Inbound, seconds(0));
    for at in 1..1_000 {
        (1..=4).for_each(|id| scores.on_speed(PeerId(id), 1_000_000, 250, seconds(at)));
        (5..=12).for_each(|id| scores.on_speed(PeerId(id), 30_000, 250, seconds(at)));
    }
    let (good, delivering) = (score(&scores, 1), scores.delivering());
    assert!(good > 53 && delivering >= 4, "{good} {delivering}");
    for at in 1_000..1_100 {
        scores.on_speed(visitor, 1 << 40, 250, seconds(at));
        scores.on_response(visitor, 1);
    }
    scores.on_speed(PeerId(1), 1_000_000, 250, seconds(1_100));
    assert!(score(&scores, 1).abs_diff(good) <= 1, "{} {good}", score(&scores, 1));
    assert_eq!(scores.delivering(), delivering);
    for id in 5..=12 {
        scores.on_gone(PeerId(id), &CloseReason::LowScore, false, now(1_101));
    }
    for at in 1_102..1_200 {
        (1..=4).for_each(|id| scores.on_speed(PeerId(id), 1_000_000, 250, seconds(at)));
    }
    assert!(score(&scores, 1) > 53, "{}", score(&scores, 1));
    // What left before those is forgotten.
    for id in 20..80 {
        scores.on_ready(PeerId(id), &address(id as u8), ConnectionKind::FullRelay, seconds(1_200));
        scores.on_speed(PeerId(id), 1_000_000, 250, seconds(1_201));
        scores.on_gone(PeerId(id), &CloseReason::LowScore, false, now(1_202));
    }
    for at in 1_203..1_300 {
        (1..=4).for_each(|id| scores.on_speed(PeerId(id), 1_000_000, 250, seconds(at)));
    }
    assert!((49..52).contains(&score(&scores, 1)), "{}", score(&scores, 1));
}

#[test]
fn policies_without_scores_limit_nobody() {
    for policy in [ScorePolicy::Speed, ScorePolicy::Random] {
        let mut scores = with_peers(policy, 1);
        for at in 1..40 {
            scores.on_stall(PeerId(1), 250, seconds(at));
            scores.on_repeated(PeerId(1), some_header(), seconds(at));
        }
        let rank = scores.rank(PeerId(1));
        assert!(!rank.isolated && rank.part == 1);
        assert_eq!(scores.next_look(), None);
        scores.on_gone(PeerId(1), &CloseReason::Fault(Fault::NonContinuousHeaders), false, now(50));
        assert_eq!(scores.low_addresses().count(), 0);
    }
}

#[test]
fn the_logarithm_is_exact_at_powers_of_two_and_rises() {
    assert_eq!(
        (octaves(0), octaves(1), octaves(2), octaves(3), octaves(1 << 40)),
        (0, 0, 1_000, 1_500, 40_000)
    );
    assert_eq!(octaves(u64::MAX), 63_999);
    assert_eq!((ratio(0.0), ratio(1.0), ratio(-1.0)), (0.5, 2.0 / 3.0, 1.0 / 3.0));
    let mut last = 0.0;
    for step in -300..300 {
        let next = ratio(f64::from(step) / 10.0);
        assert!((last..=1.0).contains(&next));
        last = next;
    }
}

#[derive(Clone, Debug)]
enum Event {
    Ready(u8),
    Gone(u8),
    Response(u8, u64),
    Bytes(u8, u64, bool),
    False(u8, u64),
    Repeated(u8),
    Overtaken(u8),
    Speed(u8, u64, u64),
    Stall(u8, u64),
    Pardon(u8),
}

fn event() -> impl Strategy<Value = Event> {
    let peer = 0u8..4;
    prop_oneof![
        peer.clone().prop_map(Event::Ready),
        peer.clone().prop_map(Event::Gone),
        (peer.clone(), any::<u64>()).prop_map(|(peer, millis)| Event::Response(peer, millis)),
        (peer.clone(), any::<u64>(), any::<bool>())
            .prop_map(|(peer, bytes, good)| Event::Bytes(peer, bytes, good)),
        (peer.clone(), any::<u64>()).prop_map(|(peer, bytes)| Event::False(peer, bytes)),
        peer.clone().prop_map(Event::Repeated),
        peer.clone().prop_map(Event::Overtaken),
        (peer.clone(), any::<u64>(), any::<u64>())
            .prop_map(|(peer, rate, millis)| Event::Speed(peer, rate, millis)),
        (peer.clone(), any::<u64>()).prop_map(|(peer, millis)| Event::Stall(peer, millis)),
        peer.prop_map(Event::Pardon),
    ]
}

proptest! {
    /// Whatever peers do, in whatever order: scores, features and weights stay within their bounds, no score moves by
    /// more than its step, and the means are those of who is there and who left last.
    #[test]
    fn everything_stays_within_its_bounds(events in proptest::collection::vec((event(), 0u64..100_000), 0..120)) {
        let mut scores = Scores::new(ScorePolicy::Learnt);
        let block = some_header();
        let mut at = 0;
        let mut gone = [(0, 0); 2];
        for (event, wait) in events {
            at += wait;
            let time = seconds(at);
            let before: Vec<_> = (0..4).map(|id| scores.peers.get(&PeerId(id)).map(|r| r.memory.score)).collect();
            let id = |peer: u8| PeerId(u64::from(peer));
            if let Event::Ready(peer) | Event::Gone(peer) = event
                && let Some(record) = scores.peers.get(&id(peer))
            {
                for (left, value) in gone.iter_mut().zip([record.speed, record.response]) {
                    let Some(value) = value else { continue };
                    left.1 = (left.1 + 1).min(SCORE_GONE);
                    left.0 += (value - left.0) / left.1;
                }
            }
            let mut fresh = false;
            match event {
                Event::Ready(peer) => {
                    fresh = true;
                    scores.on_gone(id(peer), &CloseReason::Remote, false, now(at));
                    scores.on_ready(id(peer), &address(peer), ConnectionKind::FullRelay, time);
                }
                Event::Gone(peer) => scores.on_gone(id(peer), &CloseReason::Stalled, false, now(at)),
                Event::Response(peer, millis) => scores.on_response(id(peer), millis),
                Event::Bytes(peer, bytes, good) => scores.on_bytes(id(peer), bytes, good),
                Event::False(peer, bytes) => scores.on_false(id(peer), bytes),
                Event::Repeated(peer) => scores.on_repeated(id(peer), block, time),
                Event::Overtaken(peer) => scores.on_overtaken(id(peer)),
                Event::Speed(peer, rate, millis) => scores.on_speed(id(peer), rate, millis, time),
                Event::Stall(peer, millis) => scores.on_stall(id(peer), millis, time),
                Event::Pardon(peer) => { fresh = true; scores.pardon(id(peer), time) }
            }
            let naive = |of: fn(&Record) -> Option<i64>, (mean, count): (i64, i64)| {
                let all: Vec<i64> = scores.peers.values().filter_map(of).collect();
                (all.iter().sum::<i64>() + mean * count).checked_div(all.len() as i64 + count)
            };
            let delivers = |record: &&Record| record.speed.is_some() && record.memory.score >= 40_000;
            prop_assert_eq!(scores.delivering(), scores.peers.values().filter(delivers).count());
            prop_assert_eq!(scores.speed.get(), naive(|record| record.speed, gone[0]));
            prop_assert_eq!(scores.response.get(), naive(|record| record.response, gone[1]));
            for (peer, record) in &scores.peers {
                let seen = scores.get(*peer).unwrap();
                prop_assert!(seen.score <= 100);
                prop_assert!(seen.features.values().iter().all(|value| (0.0..=1.0).contains(value)), "{:?}", seen);
                prop_assert_eq!(record.low_since.is_some(), record.memory.score < 40_000);
                prop_assert_eq!(scores.looks.get(peer), record.looked_at());
                if let (false, Some(before)) = (fresh, before[peer.0 as usize]) {
                    prop_assert!((record.memory.score - before).abs() <= SCORE_STEP * 1_000);
                }
            }
            for (weight, range) in scores.weights().into_iter().zip(RANGES) {
                prop_assert!((range.least..=range.most).contains(&weight));
            }
        }
    }
}
