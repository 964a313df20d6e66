//! The saved scores, and scores under any use.
//!
//! Input: bit 0 of the first byte: the content of a file (0), which gets its hash, or steps (1).

use crate::feed::Feed;
use bitcoin::hashes::{Hash, sha256};
use headlong::peer::score::{FEATURES, PeerScore, Saved, ScorePolicy, Scores};
use headlong::peer::{CloseReason, ConnectionKind, PeerAddress, PeerId};
use headlong::time::{Now, Timestamp};

/// What the weights keep to, whatever is learnt or read, in the order of the features.
const BOUNDS: [(f64, f64); FEATURES] =
    [(0.0, 1.0), (0.0, 1.0), (-1.0, 0.0), (-1.0, 0.0), (0.0, 1.5), (-1.0, 0.0)];

pub fn run(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    if mode & 1 == 0 { file(rest) } else { steps(Feed::new(rest)) }
}

/// What can be read leads to scores within their bounds, and is written and read as the same.
fn file(content: &[u8]) {
    let _ = Saved::decode(content);
    let hashed = [content, sha256::Hash::hash(content).as_byte_array()].concat();
    let Ok(saved) = Saved::decode(&hashed) else { return };
    let mut scores = Scores::new(ScorePolicy::Learnt);
    scores.restore(saved);
    same_again(&scores);
    let low: Vec<PeerAddress> = scores.low_addresses().take(4).cloned().collect();
    for (id, address) in (1..).zip(low) {
        scores.on_ready(PeerId(id), &address, ConnectionKind::FullRelay, Timestamp::ZERO);
        let PeerScore { score, .. } = within_bounds(&scores, id).expect("it is connected");
        assert!(score < 40, "a low address has {score} points");
    }
}

fn same_again(scores: &Scores) {
    let bytes = scores.encode();
    let mut again = Scores::new(scores.policy());
    again.restore(Saved::decode(&bytes).expect("it was just written"));
    assert_eq!(again.encode(), bytes);
    for (weight, (least, most)) in scores.weights().into_iter().zip(BOUNDS) {
        assert!((least..=most).contains(&weight), "{:?}", scores.weights());
    }
}

fn within_bounds(scores: &Scores, id: u64) -> Option<PeerScore> {
    let score = scores.get(PeerId(id))?;
    assert!(score.score <= 100, "{score:?}");
    assert!(score.features.values().iter().all(|value| (0.0..=1.0).contains(value)), "{score:?}");
    Some(score)
}

fn steps(mut feed: Feed<'_>) {
    let mut scores = Scores::new(ScorePolicy::Learnt);
    let mut millis = 0u64;
    while !feed.is_empty() {
        millis += u64::from(feed.u8()) * 1_000;
        let now = Now::new(millis, 1_790_000_000 + millis / 1_000);
        let (step, id) = (feed.u8() % 8, u64::from(feed.u8() % 4));
        let peer = PeerId(id);
        let number = u64::from(feed.u16()) << (feed.u8() % 49);
        match step {
            0 => {
                let address = PeerAddress::Ip(([11, 1, 1, feed.u8() % 6], 8_333).into());
                scores.on_gone(peer, &CloseReason::Remote, feed.bool(), now);
                scores.on_ready(peer, &address, ConnectionKind::FullRelay, now.at);
            }
            1 => scores.on_gone(peer, &CloseReason::Stalled, feed.bool(), now),
            2 => scores.on_speed(peer, number, u64::from(feed.u16()), now.at),
            3 => scores.on_stall(peer, number, now.at),
            4 => scores.on_response(peer, number),
            5 => scores.on_bytes(peer, number, feed.bool()),
            6 => scores.on_false(peer, number),
            _ => scores.on_overtaken(peer),
        }
        within_bounds(&scores, id);
    }
    same_again(&scores);
}

/// Saved scores without the hash at their end.
pub fn seeds() -> Vec<Vec<u8>> {
    let texts = ["11.1.1.1:8333", "[2a00::1]:8333", "[fc00::1]:8333"];
    let onion = PeerAddress::Onion([5; 32], 8_333);
    let addresses = texts.into_iter().map(|text| text.parse().expect("an address")).chain([onion]);
    let mut scores = Scores::new(ScorePolicy::Learnt);
    let mut seeds = Vec::new();
    for (id, address) in (1..).zip(addresses) {
        let bytes = scores.encode();
        seeds.push([&[0], &bytes[..bytes.len() - 32]].concat());
        scores.on_ready(PeerId(id), &address, ConnectionKind::FullRelay, Timestamp::ZERO);
        for second in 1..40 {
            let at = Timestamp::from_millis(second * 1_000);
            scores.on_speed(PeerId(id), 1_000_000 >> (3 * id), 250, at);
            scores.on_response(PeerId(id), 20 << id);
        }
        scores.on_stall(PeerId(id), 2_000, Timestamp::from_millis(41_000));
        scores.on_gone(PeerId(id), &CloseReason::Remote, false, Now::new(50_000, 1_790_000_000 + id));
    }
    seeds
}
