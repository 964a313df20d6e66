//! Which of the peers that came to us goes when another comes and all places are taken.
//!
//! Protected are, one after the other: four by a secret choice of network groups, so that an attacker can't tell which
//! groups help; the eight that answer pings fastest, and the four that last brought a block, both of which cost something
//! to be; half of the others, those that stay longest, with a quarter of the places for peers over Tor, I2P, CJDNS and from
//! this machine, which would lose by their slowness. Of the rest, the group with the most peers loses its youngest.
//!
//! As Core's node/eviction.cpp (`SelectNodeToEvict`), but for what needs transactions.

use super::PeerId;
use super::address::AddressNetwork;
use super::group::NetGroup;
use crate::time::Timestamp;
use bitcoin::hashes::siphash24;
use core::cmp::Reverse;
use core::time::Duration;
use std::collections::BTreeMap;

/// Places by the choice of groups.
const BY_GROUP: usize = 4;
/// Places by the shortest round trip.
const BY_PING: usize = 8;
/// Places by the last block that was brought.
const BY_BLOCK: usize = 4;

/// What counts of a peer that came to us.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its number.
    pub id: PeerId,
    /// Since when it is connected.
    pub since: Timestamp,
    /// The shortest round trip; `None` before the first.
    pub ping: Option<Duration>,
    /// When it last brought a block that was new.
    pub last_block: Option<Timestamp>,
    /// Its group.
    pub group: NetGroup,
    /// Its network; `None` if that is not known, as over a proxy of ours.
    pub network: Option<AddressNetwork>,
    /// Whether it is on this machine.
    pub local: bool,
    /// Whether its host broke a rule before.
    pub discouraged: bool,
}

impl Candidate {
    fn is_disadvantaged(&self) -> bool {
        self.local || self.network.is_some_and(|network| !network.is_direct())
    }
}

/// Takes those that a rule likes best out of the candidates: at most so many.
fn protect<K: Ord>(candidates: &mut Vec<Candidate>, most: usize, rank: impl Fn(&Candidate) -> K) {
    candidates.sort_by_key(|candidate| Reverse(rank(candidate)));
    candidates.truncate(candidates.len().saturating_sub(most));
}

/// The peer that goes; `None` if all are protected. `key` is secret, and the same over time.
pub fn select(mut candidates: Vec<Candidate>, key: [u64; 2]) -> Option<PeerId> {
    let keyed = |group: &NetGroup| siphash24::Hash::hash_to_u64_with_keys(key[0], key[1], &group.bytes());
    protect(&mut candidates, BY_GROUP, |candidate| (keyed(&candidate.group), candidate.id));
    protect(&mut candidates, BY_PING, |candidate| {
        (candidate.ping.unwrap_or(Duration::MAX), candidate.since, candidate.id)
    });
    // Who never brought one is not protected by being among few that did.
    let brought = candidates.iter().filter(|candidate| candidate.last_block.is_some()).count();
    protect(&mut candidates, BY_BLOCK.min(brought), |candidate| {
        (Reverse(candidate.last_block), candidate.since, candidate.id)
    });
    protect_by_uptime(&mut candidates);
    if candidates.iter().any(|candidate| candidate.discouraged) {
        candidates.retain(|candidate| candidate.discouraged);
    }
    let mut groups: BTreeMap<&NetGroup, (usize, Timestamp)> = BTreeMap::new();
    for candidate in &candidates {
        let (count, youngest) = groups.entry(&candidate.group).or_insert((0, Timestamp::ZERO));
        *count += 1;
        *youngest = candidate.since.max(*youngest);
    }
    let (largest, _) = groups.into_iter().max_by_key(|(_, weight)| *weight)?;
    let of_group = candidates.iter().filter(|candidate| candidate.group == *largest);
    of_group.max_by_key(|candidate| (candidate.since, candidate.id)).map(|candidate| candidate.id)
}

/// Half of them stay: up to half of these places go to the disadvantaged, the others to the oldest.
fn protect_by_uptime(candidates: &mut Vec<Candidate>) {
    let places = candidates.len() / 2;
    let (mut slow, mut direct): (Vec<_>, Vec<_>) =
        core::mem::take(candidates).into_iter().partition(Candidate::is_disadvantaged);
    let before = slow.len();
    protect(&mut slow, places / 2, |candidate| (candidate.since, candidate.id));
    let kept = before - slow.len();
    direct.append(&mut slow);
    protect(&mut direct, places - kept, |candidate| (candidate.since, candidate.id));
    *candidates = direct;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use std::collections::BTreeSet;

    const KEY: [u64; 2] = [1, 2];

    fn candidate(n: u64) -> Candidate {
        Candidate {
            id: PeerId(n),
            since: Timestamp::from_millis(n),
            ping: None,
            last_block: None,
            group: NetGroup::V4([1, 1]),
            network: Some(AddressNetwork::Ipv4),
            local: false,
            discouraged: false,
        }
    }

    /// Those that go if one after the other has to.
    fn order(mut candidates: Vec<Candidate>) -> Vec<u64> {
        let mut gone = Vec::new();
        while let Some(id) = select(candidates.clone(), KEY) {
            candidates.retain(|candidate| candidate.id != id);
            gone.push(id.0);
        }
        gone
    }

    #[test]
    fn few_peers_are_all_protected() {
        assert_eq!(select((0..12).map(candidate).collect(), KEY), None);
        assert!(select((0..14).map(candidate).collect(), KEY).is_some());
    }

    #[test]
    fn fast_useful_and_old_ones_stay_and_the_youngest_goes() {
        let mut all: Vec<_> = (0..60).map(candidate).collect();
        // The youngest are worth something.
        for peer in &mut all[50..58] {
            peer.ping = Some(Duration::from_millis(1));
        }
        (all[58].last_block, all[59].last_block) = (Some(Timestamp::ZERO), Some(Timestamp::ZERO));
        let gone = order(all);
        assert_eq!(gone[0], 49);
        let kept: Vec<u64> = (0..60).filter(|n| !gone.contains(n)).collect();
        // Four of them may be those whom the groups protect.
        assert!(kept.iter().filter(|n| (50..60).contains(*n)).count() >= 10, "{kept:?}");
    }

    /// Newcomers of one group take no place from those who were there: only their own.
    #[test]
    fn a_flood_from_one_group_evicts_itself() {
        let mut rng = Rng::from_number(3);
        let mut all: Vec<_> = (0..100).map(candidate).collect();
        for peer in &mut all {
            peer.group = NetGroup::V4([2, peer.id.0 as u8]);
            peer.ping = Some(Duration::from_millis(20 + rng.below(200)));
        }
        let honest: BTreeSet<u64> = (0..100).collect();
        for n in 1_000..6_000 {
            while all.len() >= 114 {
                let id = select(all.clone(), KEY).unwrap();
                assert!(!honest.contains(&id.0), "{id}");
                all.retain(|peer| peer.id != id);
            }
            all.push(candidate(n));
        }
    }

    #[test]
    fn slow_networks_have_places_and_the_discouraged_go_first() {
        let mut all: Vec<_> = (0..100).map(candidate).collect();
        for peer in &mut all {
            peer.ping = Some(Duration::from_millis(10));
        }
        for peer in &mut all[80..] {
            peer.network = Some(AddressNetwork::Onion);
            peer.ping = Some(Duration::from_secs(2));
            peer.group = NetGroup::Onion(peer.id.0 as u8 % 16);
        }
        let onions =
            |all: &[Candidate]| all.iter().filter(|peer| peer.network == Some(AddressNetwork::Onion)).count();
        let mut kept = all.clone();
        for _ in 0..50 {
            let id = select(kept.clone(), KEY).unwrap();
            kept.retain(|peer| peer.id != id);
        }
        assert!(onions(&kept) >= 12, "{}", onions(&kept));
        all[70].discouraged = true;
        assert_eq!(select(all, KEY), Some(PeerId(70)));
    }
}
