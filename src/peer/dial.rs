//! Whom to connect to, and when.
//!
//! 1. Addresses of the host are dialled at once and again for ever, with a wait that doubles from one
//!    second to one minute.
//! 2. Unless the host wants only its own addresses, connections of our own accord are kept up to a target,
//!    one a network group, from the list of addresses.
//! 3. DNS seeds are asked when the list has nothing to offer: at once on a first start, after some seconds
//!    where there are saved addresses, then at growing intervals while peers are missing.
//!
//! Left out: connections opened by others, feelers, anchors, block-relay-only connections.

use super::book::{AddressBook, NetGroup, backoff, is_routable};
use super::{PeerAddress, PeerId};
use crate::limits::{
    DIAL_SPACING, MAX_SEED_ADDRESSES, RECONNECT_MAX, SAVE_INTERVAL, SEED_DELAY, SEED_INTERVAL,
};
use crate::rng::Rng;
use crate::time::{Now, Timestamp};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// What the policy wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DialWish {
    /// Dial; `manual`: for the host.
    Dial {
        /// Where.
        address: PeerAddress,
        /// Whether the host wants it.
        manual: bool,
    },
    /// Look up a DNS seed.
    Resolve(String, u16),
    /// Save these good addresses.
    Save(Vec<PeerAddress>),
}

/// How a connection ended, as far as dialling goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Before the handshake was complete.
    Failed,
    /// After it was complete.
    Lost,
    /// It broke a rule.
    Misbehaved,
    /// It is of no use to us (services, ourselves, another chain).
    Useless,
}

/// Which connections are made of our own accord.
#[derive(Clone, Debug)]
pub struct DialConfig {
    /// Whether connections of our own accord are made at all.
    pub automatic: bool,
    /// How many of those.
    pub target: usize,
    /// DNS seeds, and the network's usual port.
    pub seeds: Vec<String>,
    /// The port of addresses that seeds give.
    pub port: u16,
}

#[derive(Debug)]
struct Manual {
    failures: u32,
    next_try: Timestamp,
    peer: Option<PeerId>,
    /// When its handshake was complete.
    ready: Option<Timestamp>,
}

/// The policy with its list of addresses.
#[derive(Debug)]
pub struct Dialer {
    config: DialConfig,
    /// The list.
    pub book: AddressBook,
    manual: BTreeMap<PeerAddress, Manual>,
    automatic: BTreeMap<PeerId, PeerAddress>,
    groups: BTreeSet<NetGroup>,
    next_dial: Timestamp,
    next_seeds: Timestamp,
    seed_wait: Duration,
    to_resolve: Vec<String>,
    next_save: Timestamp,
    stopped: bool,
}

impl Dialer {
    /// A policy that has not begun; the first call of [`Self::next`] begins.
    pub fn new(config: DialConfig) -> Self {
        Self {
            config,
            book: AddressBook::default(),
            manual: BTreeMap::new(),
            automatic: BTreeMap::new(),
            groups: BTreeSet::new(),
            next_dial: Timestamp::ZERO,
            next_seeds: Timestamp::ZERO,
            seed_wait: SEED_INTERVAL,
            to_resolve: Vec::new(),
            next_save: Timestamp::ZERO,
            stopped: false,
        }
    }

    /// The number of addresses that are kept up for the host.
    pub fn manual_addresses(&self) -> usize {
        self.manual.len()
    }

    /// The host wants this address kept up. Idempotent.
    pub fn add_manual(&mut self, address: PeerAddress) {
        let fresh = Manual { failures: 0, next_try: Timestamp::ZERO, peer: None, ready: None };
        self.manual.entry(address).or_insert(fresh);
    }

    /// The host does not want this address any more.
    pub fn remove_manual(&mut self, address: &PeerAddress) {
        self.manual.remove(address);
    }

    /// Addresses of an earlier run; `unix` in seconds. DNS waits a little for them.
    pub fn on_saved(&mut self, addresses: Vec<PeerAddress>, now: Now) {
        if addresses.is_empty() {
            return;
        }
        for address in addresses {
            self.book.add(address, now.unix, true);
        }
        self.next_seeds = self.next_seeds.max(now.at + SEED_DELAY);
    }

    /// A DNS seed answered.
    pub fn on_resolved(&mut self, addresses: &[SocketAddr], now: Now) {
        // An answer of DNS is bounded only by the message; Core takes 256 as well, and like gossip nothing
        // that would lead into the host's own network.
        let usable = addresses.iter().filter(|socket| is_routable(socket.ip()) && socket.port() != 0);
        for socket in usable.take(MAX_SEED_ADDRESSES) {
            self.book.add(PeerAddress::Ip(*socket), now.unix, false);
        }
    }

    /// Nothing is dialled or looked up from now on.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// The good addresses, if they changed since they were saved.
    pub fn take_changed(&mut self) -> Option<Vec<PeerAddress>> {
        self.book.take_changed()
    }

    /// The next thing to do; to be called until `None`. A dial must be answered by [`Self::on_dialled`]
    /// before the next call.
    pub fn next(&mut self, now: Now, rng: &mut Rng) -> Option<DialWish> {
        if self.stopped {
            return None;
        }
        let due = self.manual.iter().find(|(_, m)| m.peer.is_none() && m.next_try <= now.at);
        if let Some((address, _)) = due {
            return Some(DialWish::Dial { address: address.clone(), manual: true });
        }
        if self.book.is_changed() && self.next_save <= now.at {
            self.next_save = now.at + SAVE_INTERVAL;
            return self.book.take_changed().map(DialWish::Save);
        }
        if !self.config.automatic {
            return None;
        }
        if let Some(seed) = self.to_resolve.pop() {
            return Some(DialWish::Resolve(seed, self.config.port));
        }
        if self.automatic.len() >= self.config.target {
            return None;
        }
        if self.next_dial <= now.at {
            let by_hand = |address: &PeerAddress| self.manual.contains_key(address);
            match self.book.pick(now.at, rng, &self.groups, by_hand) {
                Ok(address) => return Some(DialWish::Dial { address, manual: false }),
                Err(at) => self.next_dial = at.unwrap_or(Timestamp::from_millis(u64::MAX)),
            }
        }
        if self.next_seeds <= now.at && !self.config.seeds.is_empty() {
            self.next_seeds = now.at + self.seed_wait;
            self.seed_wait = (self.seed_wait * 2).min(Duration::from_secs(3_600));
            self.to_resolve = self.config.seeds.clone();
            rng.shuffle(&mut self.to_resolve);
            return self.to_resolve.pop().map(|seed| DialWish::Resolve(seed, self.config.port));
        }
        None
    }

    /// The address is being dialled as this connection.
    pub fn on_dialled(&mut self, peer: PeerId, address: &PeerAddress, manual: bool, now: Timestamp) {
        self.book.on_dial(address);
        if manual {
            if let Some(entry) = self.manual.get_mut(address) {
                entry.peer = Some(peer);
            }
        } else {
            self.next_dial = now + DIAL_SPACING;
            self.groups.insert(NetGroup::of(address));
            self.automatic.insert(peer, address.clone());
        }
    }

    /// The handshake is complete.
    pub fn on_ready(&mut self, address: &PeerAddress, now: Now) {
        self.book.on_good(address, now.unix);
        if let Some(entry) = self.manual.get_mut(address) {
            entry.ready = Some(now.at);
        }
        if self.automatic.len() >= self.config.target {
            self.seed_wait = SEED_INTERVAL;
        }
    }

    /// New addresses came: dialling need not wait for old ones.
    pub fn on_addresses(&mut self, now: Timestamp) {
        self.next_dial = self.next_dial.min(now + DIAL_SPACING);
    }

    /// The connection ended.
    pub fn on_gone(&mut self, peer: PeerId, address: &PeerAddress, ending: Ending, now: Timestamp) {
        let manual = match self.manual.get_mut(address) {
            Some(entry) if entry.peer == Some(peer) => {
                entry.peer = None;
                // A connection counts as good only once it has lasted, or one that ends right after its
                // handshake would be dialled every second for ever.
                let lasted = entry.ready.take().is_some_and(|ready| now.since(ready) >= RECONNECT_MAX);
                entry.failures = match ending {
                    // It would only break the rule again at once.
                    Ending::Misbehaved | Ending::Useless => u32::MAX,
                    Ending::Lost if lasted => 1,
                    _ => entry.failures.saturating_add(1),
                };
                entry.next_try = now + backoff(entry.failures);
                true
            }
            _ => false,
        };
        if let Some(address) = self.automatic.remove(&peer) {
            self.groups.remove(&NetGroup::of(&address));
            self.next_dial = self.next_dial.min(now + DIAL_SPACING);
        }
        self.book.on_gone(address, now, ending != Ending::Lost);
        if ending == Ending::Misbehaved && !manual && !is_local(address) {
            self.book.discourage(address);
        }
    }

    /// When [`Self::next`] has something to do.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        if self.stopped {
            return None;
        }
        let manual = self.manual.values().filter(|m| m.peer.is_none()).map(|m| m.next_try).min();
        let save = self.book.is_changed().then_some(self.next_save);
        let wants = self.config.automatic && self.automatic.len() < self.config.target;
        let dial = (wants && self.next_dial.as_millis() < u64::MAX).then_some(self.next_dial);
        let seeds = (wants && !self.config.seeds.is_empty()).then_some(self.next_seeds);
        [manual, save, dial, seeds].into_iter().flatten().min()
    }
}

/// Whether the address is on this machine: others share it, so it is never discouraged (as in Core).
fn is_local(address: &PeerAddress) -> bool {
    match address {
        PeerAddress::Ip(socket) => socket.ip().to_canonical().is_loopback(),
        PeerAddress::Name(name, _) => name == "localhost",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> PeerAddress {
        PeerAddress::Ip(text.parse().unwrap())
    }

    fn address_2() -> PeerAddress {
        address("7.7.7.7:1")
    }

    fn config(automatic: bool) -> DialConfig {
        DialConfig { automatic, target: 2, seeds: vec!["seed.example".into()], port: 8333 }
    }

    fn seconds(at: u64) -> Now {
        Now::new(at * 1_000, 1_700_000_000 + at)
    }

    #[test]
    fn an_address_of_the_host_is_dialled_for_ever_with_growing_waits() {
        let (mut dialer, mut rng) = (Dialer::new(config(false)), Rng::from_number(1));
        let peer = address("127.0.0.1:1");
        dialer.add_manual(peer.clone());
        let mut now = Timestamp::ZERO;
        let mut waits = Vec::new();
        for n in 0..9 {
            let at = Now { at: now, unix: 0 };
            let wish = dialer.next(at, &mut rng);
            assert_eq!(wish, Some(DialWish::Dial { address: peer.clone(), manual: true }));
            dialer.on_dialled(PeerId(n), &peer, true, now);
            assert_eq!(dialer.next(at, &mut rng), None);
            assert_eq!(dialer.next_deadline(), None);
            dialer.on_gone(PeerId(n), &peer, Ending::Failed, now);
            let next = dialer.next_deadline().unwrap();
            waits.push(next.since(now).as_secs());
            now = next;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn a_connection_that_ends_after_its_handshake_is_dialled_ever_more_slowly() {
        let (mut dialer, mut rng) = (Dialer::new(config(false)), Rng::from_number(1));
        let peer = address("127.0.0.1:1");
        dialer.add_manual(peer.clone());
        let mut now = Now::new(0, 1_700_000_000);
        let mut waits = Vec::new();
        for (n, lasting) in [0, 0, 0, 0, 60, 0].into_iter().enumerate() {
            while dialer.next(now, &mut rng).is_some_and(|wish| matches!(wish, DialWish::Save(_))) {}
            let id = PeerId(n as u64);
            dialer.on_dialled(id, &peer, true, now.at);
            dialer.on_ready(&peer, now);
            now.at = now.at + Duration::from_secs(lasting);
            dialer.on_gone(id, &peer, Ending::Lost, now.at);
            let next = dialer.next_deadline().unwrap();
            waits.push(next.since(now.at).as_secs());
            now.at = next;
        }
        assert_eq!(waits, [1, 2, 4, 8, 1, 2]);
    }

    #[test]
    fn seeds_that_answer_nonsense_fill_nothing() {
        let mut dialer = Dialer::new(config(true));
        let private: Vec<SocketAddr> =
            ["127.0.0.1:8333", "10.0.0.1:22", "192.168.1.1:80", "[::1]:1", "8.8.8.8:0", "0.0.0.0:1"]
                .iter()
                .map(|text| text.parse().unwrap())
                .collect();
        dialer.on_resolved(&private, seconds(0));
        assert!(dialer.book.is_empty());
        let many: Vec<SocketAddr> =
            (0..10_000u32).map(|n| (std::net::Ipv4Addr::from(0x0800_0000 + n), 8333).into()).collect();
        dialer.on_resolved(&many, seconds(0));
        assert_eq!(dialer.book.len(), MAX_SEED_ADDRESSES);
    }

    #[test]
    fn seeds_fill_the_list_and_the_target_is_kept() {
        let (mut dialer, mut rng) = (Dialer::new(config(true)), Rng::from_number(1));
        assert_eq!(dialer.next(seconds(0), &mut rng), Some(DialWish::Resolve("seed.example".into(), 8333)));
        assert_eq!(dialer.next(seconds(0), &mut rng), None);
        let found: Vec<SocketAddr> =
            ["1.1.1.1:1", "1.1.2.2:1", "2.2.2.2:1", "3.3.3.3:1"].iter().map(|t| t.parse().unwrap()).collect();
        dialer.on_resolved(&found, seconds(1));
        dialer.on_addresses(seconds(1).at);
        let mut groups = BTreeSet::new();
        for n in 0..2 {
            let now = seconds(2 + n);
            if n == 1 {
                // The first good address is saved at once.
                assert!(
                    matches!(dialer.next(now, &mut rng), Some(DialWish::Save(saved)) if saved.len() == 1)
                );
            }
            let Some(DialWish::Dial { address, manual: false }) = dialer.next(now, &mut rng) else {
                panic!()
            };
            dialer.on_dialled(PeerId(n), &address, false, now.at);
            assert!(groups.insert(NetGroup::of(&address)));
            dialer.on_ready(&address, now);
        }
        assert_eq!(dialer.next(seconds(9), &mut rng), None, "the target is reached");
        assert_eq!(dialer.next_deadline(), Some(seconds(3 + 600).at), "only a saving is due");
    }

    #[test]
    fn saved_addresses_come_before_dns() {
        let (mut dialer, mut rng) = (Dialer::new(config(true)), Rng::from_number(1));
        dialer.on_saved(vec![address("1.1.1.1:1")], seconds(0));
        let Some(DialWish::Dial { address, .. }) = dialer.next(seconds(0), &mut rng) else { panic!() };
        dialer.on_dialled(PeerId(0), &address, false, seconds(0).at);
        assert_eq!(dialer.next(seconds(1), &mut rng), None);
        // An address of the host is not dialled a second time for the target.
        dialer.add_manual(address_2());
        dialer.on_dialled(PeerId(1), &address_2(), true, seconds(1).at);
        dialer.book.add(address_2(), 0, true);
        dialer.on_addresses(seconds(1).at);
        assert_eq!(dialer.next(seconds(2), &mut rng), None);
        assert!(matches!(dialer.next(seconds(12), &mut rng), Some(DialWish::Resolve(..))));
    }

    #[test]
    fn misbehaviour_is_remembered_except_of_this_machine_and_of_the_host() {
        let mut dialer = Dialer::new(config(true));
        let (bad, local, manual) = (address("1.1.1.1:1"), address("127.0.0.1:5"), address("2.2.2.2:2"));
        dialer.add_manual(manual.clone());
        for (n, (peer, by_hand)) in [(&bad, false), (&local, false), (&manual, true)].into_iter().enumerate()
        {
            let id = PeerId(n as u64);
            dialer.on_dialled(id, peer, by_hand, Timestamp::ZERO);
            dialer.on_gone(id, peer, Ending::Misbehaved, Timestamp::ZERO);
        }
        assert!(dialer.book.is_discouraged(&bad));
        assert!(!dialer.book.is_discouraged(&local) && !dialer.book.is_discouraged(&manual));
        assert_eq!(dialer.next_deadline(), Some(Timestamp::ZERO), "the list is to be saved");
    }
}
