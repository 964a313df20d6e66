//! A plain list of addresses: what DNS seeds, gossip and earlier runs told, and who misbehaved.
//!
//! 1. Addresses come in with the time they were last seen (Unix seconds); gossip is cleaned of what can't
//!    be reached over the internet and what is older than thirty days.
//! 2. A dial picks at random among those that may be tried, half of the time among those that were good
//!    once; never two of one network group, never a discouraged one. It picks who told the address first, and
//!    then one of those: a peer that tells a thousand counts no more than one that tells a few.
//! 3. The list is bounded: a full one lets go of the worst of whoever told the most. Core's tried and new
//!    tables with their buckets against eclipse attacks (addrman.cpp) are left out for now.

use super::PeerAddress;
use crate::limits::{
    MAX_BOOK, MAX_DIAL_FAILURES, MAX_DISCOURAGED, MAX_SAVED_ADDRESSES, RECONNECT_FIRST, RECONNECT_MAX,
};
use crate::rng::Rng;
use crate::time::Timestamp;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses not seen for so long are not taken (`ADDRMAN_HORIZON`).
const HORIZON: u64 = 30 * 24 * 3_600;

/// Addresses that one party is likely to own together (Core's `GetGroup`, without AS maps).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NetGroup {
    /// The first 16 bits of an IPv4 address.
    V4([u8; 2]),
    /// The first 32 bits of an IPv6 address.
    V6([u8; 4]),
    /// A name stands for itself.
    Name(String),
}

impl NetGroup {
    /// The group of an address.
    pub fn of(address: &PeerAddress) -> Self {
        match address {
            PeerAddress::Ip(socket) => match socket.ip().to_canonical() {
                IpAddr::V4(ip) => {
                    let [a, b, ..] = ip.octets();
                    Self::V4([a, b])
                }
                IpAddr::V6(ip) => {
                    let [a, b, c, d, ..] = ip.octets();
                    Self::V6([a, b, c, d])
                }
            },
            PeerAddress::Name(name, _) => Self::Name(name.clone()),
        }
    }
}

/// The host part of an address: misbehaviour is remembered for all its ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Host {
    Ip(IpAddr),
    Name(String),
}

fn host(address: &PeerAddress) -> Host {
    match address {
        PeerAddress::Ip(socket) => Host::Ip(socket.ip().to_canonical()),
        PeerAddress::Name(name, _) => Host::Name(name.clone()),
    }
}

/// Whether an address can be reached over the internet (Core's `IsRoutable`, for IPv4 and IPv6).
pub fn is_routable(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => is_routable_v4(ip),
        IpAddr::V6(ip) => is_routable_v6(ip),
    }
}

fn is_routable_v4(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    // RFC 6598 (100.64/10) and RFC 2544 (198.18/15) have no stable predicate.
    let shared = a == 100 && b & 0xc0 == 64;
    let benchmark = a == 198 && b & 0xfe == 18;
    let special = ip.is_unspecified() || ip.is_loopback() || ip.is_private() || ip.is_link_local();
    !(a == 0 || a >= 224 || shared || benchmark || special || ip.is_documentation() || ip.is_broadcast())
}

fn is_routable_v6(ip: Ipv6Addr) -> bool {
    let [a, b, ..] = ip.segments();
    let unique_local = a & 0xfe00 == 0xfc00;
    let link_local = a & 0xffc0 == 0xfe80;
    let documentation = a == 0x2001 && b == 0x0db8;
    let orchid = a == 0x2001 && (b & 0xfff0 == 0x10 || b & 0xfff0 == 0x20);
    let special = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast();
    !(unique_local || link_local || documentation || orchid || special)
}

#[derive(Clone, Debug)]
struct Entry {
    last_seen: u64,
    /// The network group of the peer that told it first; `None`: a DNS seed or an earlier run.
    told_by: Option<NetGroup>,
    good: bool,
    failures: u32,
    /// Not to be dialled before.
    next_try: Timestamp,
    connected: bool,
}

/// Addresses worth dialling, and hosts that are not; at most [`crate::limits::MAX_BOOK`] and
/// [`crate::limits::MAX_DISCOURAGED`].
#[derive(Debug, Default)]
pub struct AddressBook {
    entries: BTreeMap<PeerAddress, Entry>,
    discouraged: BTreeSet<Host>,
    /// The order in which they were discouraged.
    oldest: VecDeque<Host>,
    changed: bool,
}

impl AddressBook {
    /// The number of addresses.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The number of hosts that are not dialled because they broke a rule.
    pub fn discouraged(&self) -> usize {
        self.discouraged.len()
    }

    /// Whether there is no address.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes an address from a DNS seed or from an earlier run (`good`: it served us then).
    pub fn add(&mut self, address: PeerAddress, seen: u64, good: bool) {
        self.insert(address, seen, good, None);
    }

    fn insert(&mut self, address: PeerAddress, seen: u64, good: bool, told_by: Option<NetGroup>) {
        if self.is_discouraged(&address) {
            return;
        }
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.last_seen = entry.last_seen.max(seen);
            entry.good |= good;
            return;
        }
        if self.entries.len() >= MAX_BOOK && !self.make_room(good) {
            return;
        }
        let next_try = Timestamp::ZERO;
        let entry = Entry { last_seen: seen, told_by, good, failures: 0, next_try, connected: false };
        self.entries.insert(address, entry);
    }

    /// Takes an address that the peer `from` told. `now` is Unix seconds; a time from the future, or none, counts
    /// as five days ago, and all lose two hours, as in Core.
    pub fn gossip(&mut self, address: PeerAddress, seen: u64, now: u64, from: &PeerAddress) {
        if let PeerAddress::Ip(socket) = &address
            && (!is_routable(socket.ip()) || socket.port() == 0)
        {
            return;
        }
        let seen = if seen <= 100_000_000 || seen > now.saturating_add(600) {
            now.saturating_sub(5 * 24 * 3_600)
        } else {
            seen.saturating_sub(2 * 3_600)
        };
        if now.saturating_sub(seen) <= HORIZON {
            self.insert(address, seen, false, Some(NetGroup::of(from)));
        }
    }

    /// Lets go of the worst address: never good before good, one of whoever told the most, more failures
    /// first, then the oldest.
    fn make_room(&mut self, for_good: bool) -> bool {
        let may_go = |entry: &Entry| !entry.connected && (for_good || !entry.good);
        let mut told: BTreeMap<&Option<NetGroup>, usize> = BTreeMap::new();
        for entry in self.entries.values().filter(|entry| may_go(entry)) {
            *told.entry(&entry.told_by).or_default() += 1;
        }
        let most =
            told.into_iter().max_by_key(|(_, count)| *count).map(|(by, _)| by.clone()).unwrap_or_default();
        let worst = self
            .entries
            .iter()
            .filter(|(_, entry)| may_go(entry))
            .max_by_key(|(_, entry)| {
                (!entry.good, entry.told_by == most, entry.failures, u64::MAX - entry.last_seen)
            })
            .map(|(address, _)| address.clone());
        worst.is_some_and(|address| self.entries.remove(&address).is_some())
    }

    /// An address to dial that is not to be skipped, or when there may be one.
    ///
    /// # Errors
    /// When to ask again; `None` if only new addresses can help.
    pub fn pick(
        &self,
        now: Timestamp,
        rng: &mut Rng,
        taken: &BTreeSet<NetGroup>,
        skip: impl Fn(&PeerAddress) -> bool,
    ) -> Result<PeerAddress, Option<Timestamp>> {
        let mut ready: [Vec<(&PeerAddress, &Option<NetGroup>)>; 2] = [Vec::new(), Vec::new()];
        let mut soonest: Option<Timestamp> = None;
        for (address, entry) in &self.entries {
            if entry.connected || skip(address) || taken.contains(&NetGroup::of(address)) {
                continue;
            }
            if entry.next_try > now {
                soonest = Some(soonest.map_or(entry.next_try, |at| at.min(entry.next_try)));
            } else {
                ready[usize::from(entry.good)].push((address, &entry.told_by));
            }
        }
        let [other, good] = ready;
        let mut from = if good.is_empty() || (!other.is_empty() && rng.below(2) == 0) { other } else { good };
        let tellers: BTreeSet<&Option<NetGroup>> = from.iter().map(|(_, by)| *by).collect();
        let teller = tellers.iter().nth(rng.below(tellers.len() as u64) as usize).copied();
        from.retain(|(_, by)| Some(*by) == teller);
        let chosen = from.get(rng.below(from.len() as u64) as usize);
        chosen.map(|(address, _)| (*address).clone()).ok_or(soonest)
    }

    /// The address is being dialled.
    pub fn on_dial(&mut self, address: &PeerAddress) {
        if let Some(entry) = self.entries.get_mut(address) {
            entry.connected = true;
        }
    }

    /// The handshake was completed; `now` is Unix seconds.
    pub fn on_good(&mut self, address: &PeerAddress, now: u64) {
        if let Some(entry) = self.entries.get_mut(address) {
            self.changed |= !entry.good;
            entry.good = true;
            entry.failures = 0;
            entry.last_seen = now;
        }
    }

    /// The connection ended; `failed`: it came to nothing.
    pub fn on_gone(&mut self, address: &PeerAddress, now: Timestamp, failed: bool) {
        let Some(entry) = self.entries.get_mut(address) else { return };
        entry.connected = false;
        entry.failures = if failed { entry.failures.saturating_add(1) } else { 0 };
        // An address of the list has others beside it: ten times the patience of one that the host chose.
        entry.next_try = now + backoff(entry.failures.max(1)) * 10;
        if entry.failures >= MAX_DIAL_FAILURES && !entry.good {
            self.entries.remove(address);
        }
    }

    /// Remembers misbehaviour: the host is dialled no more, and leaves the list with all its ports.
    pub fn discourage(&mut self, address: &PeerAddress) {
        let host_ = host(address);
        self.entries.retain(|other, _| host(other) != host_);
        self.changed = true;
        if self.discouraged.insert(host_.clone()) {
            self.oldest.push_back(host_);
        }
        while self.oldest.len() > MAX_DISCOURAGED {
            if let Some(first) = self.oldest.pop_front() {
                self.discouraged.remove(&first);
            }
        }
    }

    /// Whether the host misbehaved.
    pub fn is_discouraged(&self, address: &PeerAddress) -> bool {
        self.discouraged.contains(&host(address))
    }

    /// The good addresses for the next run, latest first, if they changed since the last call.
    pub fn take_changed(&mut self) -> Option<Vec<PeerAddress>> {
        if !core::mem::take(&mut self.changed) {
            return None;
        }
        let mut good: Vec<_> = self.entries.iter().filter(|(_, entry)| entry.good).collect();
        good.sort_by_key(|(_, entry)| u64::MAX - entry.last_seen);
        Some(good.into_iter().take(MAX_SAVED_ADDRESSES).map(|(address, _)| address.clone()).collect())
    }

    /// Whether [`Self::take_changed`] has something.
    pub fn is_changed(&self) -> bool {
        self.changed
    }
}

/// The wait after this many failures in a row: one second, doubled each time, up to a minute.
pub fn backoff(failures: u32) -> Duration {
    RECONNECT_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(RECONNECT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn address(text: &str) -> PeerAddress {
        PeerAddress::Ip(text.parse().unwrap())
    }

    #[test]
    fn picks_one_per_group_and_never_the_discouraged() {
        let mut book = AddressBook::default();
        let mut rng = Rng::from_number(1);
        for text in ["1.2.3.4:8333", "1.2.9.9:8333", "5.6.7.8:8333"] {
            book.add(address(text), 0, false);
        }
        book.discourage(&address("5.6.7.8:1"));
        assert_eq!(book.len(), 2);
        book.add(address("5.6.7.8:8333"), 0, true);
        assert_eq!(book.len(), 2, "a discouraged host does not come back");
        let first = book.pick(Timestamp::ZERO, &mut rng, &BTreeSet::new(), |_| false).unwrap();
        book.on_dial(&first);
        let taken = BTreeSet::from([NetGroup::of(&first)]);
        assert_eq!(book.pick(Timestamp::ZERO, &mut rng, &taken, |_| false), Err(None));
    }

    #[test]
    fn the_list_is_bounded_and_keeps_the_good() {
        let mut book = AddressBook::default();
        for n in 0..MAX_BOOK as u32 + 50 {
            let ip = Ipv4Addr::from(0x0800_0000 + n);
            book.add(PeerAddress::Ip((ip, 8333).into()), u64::from(n), n < 10);
        }
        assert_eq!(book.len(), MAX_BOOK);
        assert_eq!(book.entries.values().filter(|entry| entry.good).count(), 10);
    }

    /// A thousand addresses that lead nowhere, told by one peer, hid the few of the DNS seeds: the next dials
    /// went astray one by one.
    #[test]
    fn one_peer_cannot_hide_what_others_told() {
        let mut book = AddressBook::default();
        let mut rng = Rng::from_number(1);
        let (now, seeded) = (1_700_000_000, address("1.2.3.4:8333"));
        book.add(seeded.clone(), now - 100_000, false);
        for n in 0..3 * MAX_BOOK as u32 {
            let ip = Ipv4Addr::from(0x0800_0000 + n * 65_536 + n);
            book.gossip(PeerAddress::Ip((ip, 8333).into()), now, now, &address("9.9.9.9:8333"));
        }
        assert_eq!(book.len(), MAX_BOOK);
        let picks =
            (0..100).map(|_| book.pick(Timestamp::ZERO, &mut rng, &BTreeSet::new(), |_| false).unwrap());
        let hits = picks.filter(|pick| *pick == seeded).count();
        assert!((30..70).contains(&hits), "{hits} of 100");
    }

    #[test]
    fn discouraged_hosts_are_bounded() {
        let mut book = AddressBook::default();
        for n in 0..MAX_DISCOURAGED as u32 + 5 {
            book.discourage(&PeerAddress::Ip((Ipv4Addr::from(0x0800_0000 + n), 1).into()));
        }
        assert_eq!(book.discouraged.len(), MAX_DISCOURAGED);
        assert!(!book.is_discouraged(&address("8.0.0.0:1")), "the oldest is forgotten");
    }

    #[test]
    fn dead_addresses_leave_and_good_ones_are_saved() {
        let mut book = AddressBook::default();
        let (dead, alive) = (address("1.2.3.4:8333"), address("5.6.7.8:8333"));
        book.add(dead.clone(), 0, false);
        book.add(alive.clone(), 0, false);
        for _ in 0..MAX_DIAL_FAILURES {
            book.on_dial(&dead);
            book.on_gone(&dead, Timestamp::ZERO, true);
        }
        book.on_dial(&alive);
        book.on_good(&alive, 9);
        assert_eq!(book.len(), 1);
        assert_eq!(book.take_changed(), Some(vec![alive]));
        assert_eq!(book.take_changed(), None);
    }

    #[test]
    fn gossip_is_cleaned() {
        let mut book = AddressBook::default();
        let (now, teller) = (1_700_000_000, address("9.9.9.9:8333"));
        for text in [
            "10.0.0.1:1",
            "127.0.0.1:1",
            "192.168.1.1:1",
            "100.64.0.1:1",
            "[fe80::1]:1",
            "[::ffff:10.0.0.1]:1",
        ] {
            book.gossip(address(text), now, now, &teller);
        }
        book.gossip(address("8.8.8.8:0"), now, now, &teller);
        book.gossip(address("8.8.8.8:8333"), now - HORIZON, now, &teller);
        assert!(book.is_empty());
        book.gossip(address("8.8.8.8:8333"), now + 10_000, now, &teller);
        book.gossip(address("[2a00::1]:8333"), now - 5, now, &teller);
        assert_eq!(book.len(), 2);
    }
}
