//! Whom to connect to, and when.
//!
//! 1. Addresses of the host, HTTP sources among them, are dialled at once and again for ever, with a wait that doubles
//!    from one second to one minute, and up to half less by chance.
//! 2. Unless the host wants only its own addresses, connections of our own accord are kept up from the address book:
//!    eight full ones, and two that exchange blocks and no addresses, so that nobody learns of them from gossip
//!    (block-relay-only). Those two of the last run come first (anchors). Never two of one network group.
//! 3. While the tip is stale, one more.
//! 4. With all of these in place, a *feeler* every two minutes on average: a handshake and no more, with an address that
//!    was only told, or with one whose place in the book another wants.
//! 5. DNS seeds are asked when the book has nothing to offer: at once on a first start, after some seconds where there are
//!    saved addresses, then at growing intervals while peers are missing. If they do not help within a minute, or are
//!    turned off, the addresses that come with the program are taken. Behind a proxy, which looks names up by itself, a
//!    seed is connected to and asked for addresses.
//!
//! As Core's net.cpp (`ThreadOpenConnections`, `ThreadDNSAddressSeed`).

use super::address::AddressNetwork;
use super::backoff::Backoff;
use super::book::{AddressBook, NetGroup, Told, Wanted, is_routable};
use super::timers::Timers;
use super::{ConnectionKind, PeerAddress, PeerId};
use crate::limits::{
    BLOCK_RELAY_TARGET, DIAL_SPACING, FEELER_INTERVAL, FIXED_SEEDS_DELAY, MAX_ANCHORS, MAX_SEED_ADDRESSES,
    OUTBOUND_TARGET, RECONNECT_FIRST, RECONNECT_MAX, SAVE_AT_ONCE, SAVE_INTERVAL, SEED_DELAY, SEED_INTERVAL,
    SEED_INTERVAL_MAX,
};
use crate::rng::Rng;
use crate::time::{Now, Timestamp};
use bitcoin::p2p::ServiceFlags;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// What the policy wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DialWish {
    /// Dial.
    Dial {
        /// Where.
        address: PeerAddress,
        /// What for.
        kind: ConnectionKind,
    },
    /// Look up a DNS seed.
    Resolve(String, u16),
    /// Save these bytes: the address book.
    Save(Vec<u8>),
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
    /// How many full ones.
    pub target: usize,
    /// How many that exchange blocks only.
    pub block_relay_target: usize,
    /// Mean time between feelers.
    pub probe_interval: Duration,
    /// Networks whose addresses are kept and dialled.
    pub networks: BTreeSet<AddressNetwork>,
    /// DNS seeds; asked only if IPv4 or IPv6 is among the networks.
    pub seeds: Vec<String>,
    /// Whether the seeds are connected to and asked, since there is no resolver but a proxy.
    pub fetch_from_seeds: bool,
    /// Addresses that come with the program.
    pub fixed_seeds: Vec<PeerAddress>,
    /// The port of addresses that seeds give.
    pub port: u16,
    /// Whether each change of the book is saved within a second, instead of every ten minutes.
    pub persist_on_update: bool,
}

impl Default for DialConfig {
    fn default() -> Self {
        Self {
            automatic: true,
            target: OUTBOUND_TARGET,
            block_relay_target: BLOCK_RELAY_TARGET,
            probe_interval: FEELER_INTERVAL,
            networks: AddressNetwork::ALL.into_iter().filter(|network| network.is_direct()).collect(),
            seeds: Vec::new(),
            fetch_from_seeds: false,
            fixed_seeds: Vec::new(),
            port: 0,
            persist_on_update: false,
        }
    }
}

/// What of the chain concerns dialling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The tip is at most a day old: a peer with the last 288 blocks is enough.
    pub near_tip: bool,
    /// The tip has not moved for long.
    pub stale: bool,
    /// Enough peers deliver blocks: what may be worse is not needed.
    pub served: bool,
}

#[derive(Debug)]
struct Manual {
    backoff: Backoff,
    peer: Option<PeerId>,
    /// When its handshake was complete.
    ready: Option<Timestamp>,
}

#[derive(Debug)]
struct Dialled {
    address: PeerAddress,
    kind: ConnectionKind,
    ready: bool,
}

/// The policy with its address book.
#[derive(Debug)]
pub struct Dialer {
    config: DialConfig,
    /// The book.
    pub book: AddressBook,
    manual: BTreeMap<PeerAddress, Manual>,
    /// When those of them that are not connected are dialled.
    tries: Timers<PeerAddress>,
    /// All connections that we opened, and those that are being opened.
    dialled: BTreeMap<PeerId, Dialled>,
    /// Of the last run, the next at the end.
    anchors: Vec<PeerAddress>,
    /// Dialled only where nothing else can be had.
    avoided: BTreeSet<PeerAddress>,
    standing: Standing,
    next_dial: Timestamp,
    next_feeler: Option<Timestamp>,
    next_seeds: Timestamp,
    seed_wait: Backoff,
    to_resolve: Vec<String>,
    next_fixed: Option<Timestamp>,
    next_save: Timestamp,
    stopped: bool,
}

impl Dialer {
    /// A policy that has not begun; the first call of [`Self::next`] begins.
    pub fn new(mut config: DialConfig, book: AddressBook) -> Self {
        // Seeds know of IPv4 and IPv6 alone, and a resolver that is asked learns that this is a node.
        if !config.networks.iter().any(|network| network.is_direct()) {
            config.seeds.clear();
        }
        let fixed_wait = if config.seeds.is_empty() { Duration::ZERO } else { FIXED_SEEDS_DELAY };
        let has_saved = !book.is_empty();
        let reached = |address: &&PeerAddress| reaches(&config, address);
        let anchors = book.anchors().iter().filter(reached).take(config.block_relay_target);
        let anchors = anchors.cloned().collect();
        Self {
            next_seeds: Timestamp::ZERO + if has_saved { SEED_DELAY } else { Duration::ZERO },
            next_fixed: (!config.fixed_seeds.is_empty()).then_some(Timestamp::ZERO + fixed_wait),
            config,
            book,
            manual: BTreeMap::new(),
            tries: Timers::new(),
            dialled: BTreeMap::new(),
            anchors,
            avoided: BTreeSet::new(),
            standing: Standing::default(),
            next_dial: Timestamp::ZERO,
            next_feeler: None,
            seed_wait: Backoff::new(SEED_INTERVAL, SEED_INTERVAL_MAX),
            to_resolve: Vec::new(),
            next_save: Timestamp::ZERO,
            stopped: false,
        }
    }

    /// What was chosen.
    pub fn config(&self) -> &DialConfig {
        &self.config
    }

    /// The number of addresses that are kept up for the host.
    pub fn manual_addresses(&self) -> usize {
        self.manual.len()
    }

    /// The host wants this address kept up. Idempotent.
    pub fn add_manual(&mut self, address: PeerAddress) {
        let backoff = Backoff::new(RECONNECT_FIRST, RECONNECT_MAX);
        self.manual.entry(address).or_insert_with_key(|address| {
            self.tries.set(address.clone(), Timestamp::ZERO);
            Manual { backoff, peer: None, ready: None }
        });
    }

    /// The host does not want this address any more.
    pub fn remove_manual(&mut self, address: &PeerAddress) {
        self.manual.remove(address);
        self.tries.cancel(address);
    }

    /// Takes addresses that the host knows of, as if a seed had told them.
    pub fn on_known(&mut self, addresses: Vec<PeerAddress>, now: Now, rng: &mut Rng) {
        let source = NetGroup::Name("host".into());
        for address in addresses {
            self.take(address, &source, now, rng);
        }
    }

    /// A DNS seed answered.
    pub fn on_resolved(&mut self, seed: &str, addresses: &[SocketAddr], now: Now, rng: &mut Rng) {
        let source = NetGroup::Name(seed.to_owned());
        // An answer of DNS is bounded only by the message; Core takes 256 as well, and like gossip nothing
        // that would lead into the host's own network.
        let usable = addresses.iter().map(|socket| PeerAddress::from(*socket)).filter(is_routable);
        for address in usable.take(MAX_SEED_ADDRESSES) {
            self.take(address, &source, now, rng);
        }
    }

    fn take(&mut self, address: PeerAddress, source: &NetGroup, now: Now, rng: &mut Rng) {
        if self.reaches(&address) {
            let services = ServiceFlags::NETWORK | ServiceFlags::WITNESS;
            let told = Told { address, services, seen: now.unix };
            self.book.add(&told, source, Duration::ZERO, now.unix, rng);
        }
    }

    /// Whether the address is of a network that is dialled.
    pub fn reaches(&self, address: &PeerAddress) -> bool {
        reaches(&self.config, address)
    }

    /// These addresses are dialled only where nothing else can be had; while too few peers deliver blocks, every second time
    /// they are as good as others. Else one of them could be found again only behind all that peers have made up.
    pub fn set_avoided(&mut self, avoided: BTreeSet<PeerAddress>) {
        self.avoided = avoided;
    }

    /// Whether an address could be dialled at once in place of a peer of ours that would go.
    pub fn has_replacement(&self, now: Now, rng: &mut Rng) -> bool {
        let wanted = |address: &PeerAddress, services: ServiceFlags| {
            !self.avoided.contains(address) && self.may_dial(address, services)
        };
        let taken = self.groups();
        let wanted = Wanted { new_only: false, taken: &taken, fits: &wanted };
        self.config.automatic && !self.stopped && self.book.pick(now, rng, &wanted).is_ok()
    }

    /// Whether the address is one for a connection of our own accord.
    fn may_dial(&self, address: &PeerAddress, services: ServiceFlags) -> bool {
        !self.manual.contains_key(address) && self.reaches(address) && self.standing.suits(services)
    }

    /// Nothing is dialled or looked up from now on.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// The bytes of the book, if it changed since it was saved.
    pub fn take_changed(&mut self) -> Option<Vec<u8>> {
        let relaying = |peer: &&Dialled| {
            peer.kind == ConnectionKind::BlockRelayOnly && peer.ready && self.reaches(&peer.address)
        };
        let anchors: Vec<_> = self
            .dialled
            .values()
            .filter(relaying)
            .map(|peer| peer.address.clone())
            .take(MAX_ANCHORS)
            .collect();
        if !anchors.is_empty() {
            self.book.set_anchors(anchors);
        }
        self.book.take_changed()
    }

    /// What the chain is like now.
    pub fn set_standing(&mut self, standing: Standing, now: Timestamp) {
        if self.standing != standing {
            self.standing = standing;
            self.on_addresses(now);
        }
    }

    fn count(&self, kind: ConnectionKind) -> usize {
        self.dialled.values().filter(|peer| peer.kind == kind).count()
    }

    /// The kind of connection that is missing.
    fn missing(&self) -> Option<ConnectionKind> {
        if !self.config.automatic {
            return None;
        }
        let relaying = self.count(ConnectionKind::BlockRelayOnly);
        let full = self.config.target + usize::from(self.standing.stale);
        if !self.anchors.is_empty() && relaying < self.config.block_relay_target {
            Some(ConnectionKind::BlockRelayOnly)
        } else if self.count(ConnectionKind::FullRelay) < full {
            Some(ConnectionKind::FullRelay)
        } else {
            (relaying < self.config.block_relay_target).then_some(ConnectionKind::BlockRelayOnly)
        }
    }

    /// The next thing to do; to be called until `None`. A dial must be answered by [`Self::on_dialled`]
    /// before the next call.
    pub fn next(&mut self, now: Now, rng: &mut Rng) -> Option<DialWish> {
        if self.stopped {
            return None;
        }
        if let Some(address) = self.tries.due(now.at).next() {
            let kind = match address {
                PeerAddress::Http(_) => ConnectionKind::Source,
                _ => ConnectionKind::Manual,
            };
            return Some(DialWish::Dial { address: address.clone(), kind });
        }
        if self.book.is_changed() && self.next_save <= now.at {
            self.next_save =
                now.at + if self.config.persist_on_update { SAVE_AT_ONCE } else { SAVE_INTERVAL };
            return self.take_changed().map(DialWish::Save);
        }
        if !self.config.automatic {
            return None;
        }
        if let Some(wish) = self.ask_seed() {
            return Some(wish);
        }
        let Some(kind) = self.missing() else { return self.feel(now, rng) };
        self.next_feeler = None;
        if self.next_dial <= now.at {
            match self.pick(kind, now, rng) {
                Ok(address) => return Some(DialWish::Dial { address, kind }),
                Err(at) => self.next_dial = at.unwrap_or(Timestamp::from_millis(u64::MAX)),
            }
        }
        self.seek(now, rng)
    }

    /// Asks whoever may know addresses, if it is time.
    fn seek(&mut self, now: Now, rng: &mut Rng) -> Option<DialWish> {
        if self.next_fixed.is_some_and(|at| at <= now.at) {
            self.next_fixed = None;
            if self.book.is_empty() {
                let source = NetGroup::Name("fixed seeds".into());
                for address in self.config.fixed_seeds.clone() {
                    self.take(address, &source, now, rng);
                }
                self.on_addresses(now.at);
            }
        }
        if self.next_seeds <= now.at && !self.config.seeds.is_empty() {
            self.next_seeds = now.at + self.seed_wait.fail(rng);
            self.to_resolve = self.config.seeds.clone();
            rng.shuffle(&mut self.to_resolve);
            return self.ask_seed();
        }
        None
    }

    fn ask_seed(&mut self) -> Option<DialWish> {
        let (seed, port) = (self.to_resolve.pop()?, self.config.port);
        if !self.config.fetch_from_seeds {
            return Some(DialWish::Resolve(seed, port));
        }
        let address = PeerAddress::Name(seed.trim_end_matches('.').to_owned(), port);
        Some(DialWish::Dial { address, kind: ConnectionKind::AddrFetch })
    }

    fn pick(
        &mut self,
        kind: ConnectionKind,
        now: Now,
        rng: &mut Rng,
    ) -> Result<PeerAddress, Option<Timestamp>> {
        if kind == ConnectionKind::BlockRelayOnly
            && let Some(anchor) = self.anchors.pop()
            && !self.book.is_discouraged(&anchor)
            && !self.avoided.contains(&anchor)
            && !self.is_dialled(&anchor)
        {
            return Ok(anchor);
        }
        if kind == ConnectionKind::Feeler {
            // It ends at once, so that it may be of any group.
            let fits = |address: &PeerAddress, _| !self.manual.contains_key(address) && self.reaches(address);
            return self.book.pick(
                now,
                rng,
                &Wanted { new_only: true, taken: &BTreeSet::new(), fits: &fits },
            );
        }
        let taken = self.groups();
        if !self.avoided.is_empty() && (self.standing.served || rng.below(2) == 0) {
            let fits = |address: &PeerAddress, services| {
                !self.avoided.contains(address) && self.may_dial(address, services)
            };
            if let Ok(address) =
                self.book.pick(now, rng, &Wanted { new_only: false, taken: &taken, fits: &fits })
            {
                return Ok(address);
            }
        }
        let fits = |address: &PeerAddress, services| self.may_dial(address, services);
        self.book.pick(now, rng, &Wanted { new_only: false, taken: &taken, fits: &fits })
    }

    fn is_dialled(&self, address: &PeerAddress) -> bool {
        self.dialled.values().any(|peer| peer.address == *address)
    }

    /// Groups of which no further peer is wanted. There are too few of Tor, I2P and CJDNS to go by them.
    fn groups(&self) -> BTreeSet<NetGroup> {
        let lasting = self.dialled.values().filter(|peer| peer.kind != ConnectionKind::Feeler);
        let groups = lasting.map(|peer| NetGroup::of(&peer.address));
        groups.filter(|group| matches!(group, NetGroup::V4(_) | NetGroup::V6(_))).collect()
    }

    /// Finds out who is there, now and then.
    fn feel(&mut self, now: Now, rng: &mut Rng) -> Option<DialWish> {
        if self.book.is_empty() || self.config.probe_interval.is_zero() {
            return None;
        }
        let due =
            *self.next_feeler.get_or_insert_with(|| now.at + exponential(self.config.probe_interval, rng));
        if due > now.at {
            return None;
        }
        self.next_feeler = Some(now.at + exponential(self.config.probe_interval, rng));
        if self.count(ConnectionKind::Feeler) > 0 {
            return None;
        }
        self.book.resolve_collisions(now.unix);
        let kind = ConnectionKind::Feeler;
        let to_test = self.book.to_test(now, rng).filter(|address| self.reaches(address));
        let address = to_test.or_else(|| self.pick(kind, now, rng).ok())?;
        Some(DialWish::Dial { address, kind })
    }

    /// The address is being dialled as this connection.
    pub fn on_dialled(&mut self, peer: PeerId, address: &PeerAddress, kind: ConnectionKind, now: Now) {
        // With hardly a connection, it may be our own network that fails.
        self.book.on_dial(address, self.dialled.values().filter(|peer| peer.ready).count() >= 2, now.unix);
        if kind.is_manual() {
            if let Some(entry) = self.manual.get_mut(address) {
                entry.peer = Some(peer);
                self.tries.cancel(address);
            }
        } else {
            self.next_dial = now.at + DIAL_SPACING;
        }
        self.dialled.insert(peer, Dialled { address: address.clone(), kind, ready: false });
    }

    /// The handshake is complete.
    pub fn on_ready(&mut self, peer: PeerId, services: ServiceFlags, now: Now) {
        let Some(dialled) = self.dialled.get_mut(&peer) else { return };
        dialled.ready = true;
        self.book.on_good(&dialled.address, services, now.unix);
        if let Some(entry) = self.manual.get_mut(&dialled.address) {
            entry.ready = Some(now.at);
        }
        if self.count(ConnectionKind::FullRelay) >= self.config.target {
            self.seed_wait.succeed();
        }
    }

    /// New addresses came: dialling need not wait for old ones.
    pub fn on_addresses(&mut self, now: Timestamp) {
        self.next_dial = self.next_dial.min(now + DIAL_SPACING);
    }

    /// The connection ended.
    pub fn on_gone(&mut self, peer: PeerId, address: &PeerAddress, ending: Ending, now: Now, rng: &mut Rng) {
        let manual = match self.manual.get_mut(address) {
            Some(entry) if entry.peer == Some(peer) => {
                entry.peer = None;
                // A connection counts as good only once it has lasted, or one that ends right after its
                // handshake would be dialled every second for ever.
                let lasted = entry.ready.take().is_some_and(|ready| now.at.since(ready) >= RECONNECT_MAX);
                match ending {
                    // It would only break the rule again at once.
                    Ending::Misbehaved | Ending::Useless => entry.backoff.give_up(),
                    Ending::Lost if lasted => entry.backoff.succeed(),
                    _ => {}
                }
                self.tries.set(address.clone(), now.at + entry.backoff.fail(rng));
                true
            }
            _ => false,
        };
        if self.dialled.remove(&peer).is_some() {
            self.next_dial = self.next_dial.min(now.at + DIAL_SPACING);
            self.book.on_gone(address, now, ending != Ending::Lost);
        }
        if ending == Ending::Misbehaved && !manual && !address.is_local() {
            self.book.discourage(address);
        }
    }

    /// When [`Self::next`] has something to do.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        if self.stopped {
            return None;
        }
        let save = self.book.is_changed().then_some(self.next_save);
        let wants = self.missing().is_some();
        let dial = (wants && self.next_dial.as_millis() < u64::MAX).then_some(self.next_dial);
        let seeds = (wants && !self.config.seeds.is_empty()).then_some(self.next_seeds);
        let fixed = self.next_fixed.filter(|_| wants);
        let feeler = self.next_feeler.filter(|_| !wants && self.config.automatic);
        [self.tries.next(), save, dial, seeds, fixed, feeler].into_iter().flatten().min()
    }
}

fn reaches(config: &DialConfig, address: &PeerAddress) -> bool {
    address.network().is_some_and(|network| config.networks.contains(&network))
}

impl Standing {
    /// Whether a peer with these services is worth a connection (Core's `GetDesirableServiceFlags`).
    pub fn suits(self, services: ServiceFlags) -> bool {
        let recent = ServiceFlags::NETWORK_LIMITED | ServiceFlags::WITNESS;
        services.has(ServiceFlags::NETWORK | ServiceFlags::WITNESS) || (self.near_tip && services.has(recent))
    }
}

/// A wait with this mean, such that nobody can tell from one when the next is.
pub fn exponential(mean: Duration, rng: &mut Rng) -> Duration {
    let uniform = (rng.u64() >> 11) as f64 / (1u64 << 53) as f64;
    mean.min(Duration::from_secs(86_400)).mul_f64(-(1.0 - uniform).ln())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> PeerAddress {
        text.parse().unwrap()
    }

    fn dialer(change: impl FnOnce(&mut DialConfig)) -> (Dialer, Rng) {
        let mut config = DialConfig {
            target: 2,
            block_relay_target: 0,
            seeds: vec!["seed.example".into()],
            port: 8333,
            ..DialConfig::default()
        };
        change(&mut config);
        (Dialer::new(config, AddressBook::new([1; 16])), Rng::from_number(1))
    }

    fn by_hand() -> (Dialer, Rng) {
        dialer(|config| config.automatic = false)
    }

    fn seconds(at: u64) -> Now {
        Now::new(at * 1_000, 1_700_000_000 + at)
    }

    /// Each wait is from half of its bound up to it.
    fn assert_waits(waits: &[Duration], bounds: &[u64]) {
        let within = |(wait, bound): (&Duration, &u64)| {
            Duration::from_secs(*bound) / 2 <= *wait && *wait <= Duration::from_secs(*bound)
        };
        assert!(waits.len() == bounds.len() && waits.iter().zip(bounds).all(within), "{waits:?}");
    }

    const USEFUL: ServiceFlags = ServiceFlags::NETWORK;

    /// Lets the policy do what it wants from this moment on, until it dials.
    fn next_dial(dialer: &mut Dialer, rng: &mut Rng, now: &mut Now) -> Option<(PeerAddress, ConnectionKind)> {
        for _ in 0..1_000 {
            match dialer.next(*now, rng) {
                Some(DialWish::Dial { address, kind }) => return Some((address, kind)),
                Some(_) => {}
                None => {
                    let next = dialer.next_deadline()?;
                    let wait = next.since(now.at).as_millis() as u64;
                    *now = Now::new(next.as_millis(), now.unix + wait / 1_000);
                }
            }
        }
        None
    }

    #[test]
    fn an_address_of_the_host_is_dialled_for_ever_with_growing_waits() {
        let (mut dialer, mut rng) = by_hand();
        let peer = address("127.0.0.1:1");
        dialer.add_manual(peer.clone());
        let mut now = Now::default();
        let mut waits = Vec::new();
        for n in 0..9 {
            let wish = dialer.next(now, &mut rng);
            let kind = ConnectionKind::Manual;
            assert_eq!(wish, Some(DialWish::Dial { address: peer.clone(), kind }));
            dialer.on_dialled(PeerId(n), &peer, kind, now);
            assert_eq!(dialer.next(now, &mut rng), None);
            assert_eq!(dialer.next_deadline(), None);
            dialer.on_gone(PeerId(n), &peer, Ending::Failed, now, &mut rng);
            let next = dialer.next_deadline().unwrap();
            waits.push(next.since(now.at));
            now.at = next;
        }
        assert_waits(&waits, &[1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn a_connection_that_ends_after_its_handshake_is_dialled_ever_more_slowly() {
        let (mut dialer, mut rng) = by_hand();
        let peer = address("127.0.0.1:1");
        dialer.add_manual(peer.clone());
        let mut now = Now::new(0, 1_700_000_000);
        let mut waits = Vec::new();
        for (n, lasting) in [0, 0, 0, 0, 60, 0].into_iter().enumerate() {
            while dialer.next(now, &mut rng).is_some_and(|wish| matches!(wish, DialWish::Save(_))) {}
            let id = PeerId(n as u64);
            dialer.on_dialled(id, &peer, ConnectionKind::Manual, now);
            dialer.on_ready(id, USEFUL, now);
            now.at = now.at + Duration::from_secs(lasting);
            dialer.on_gone(id, &peer, Ending::Lost, now, &mut rng);
            let next = dialer.next_deadline().unwrap();
            waits.push(next.since(now.at));
            now.at = next;
        }
        assert_waits(&waits, &[1, 2, 4, 8, 1, 2]);
    }

    #[test]
    fn seeds_that_answer_nonsense_fill_nothing() {
        let (mut dialer, mut rng) = dialer(|_| {});
        let private: Vec<SocketAddr> =
            ["127.0.0.1:8333", "10.0.0.1:22", "192.168.1.1:80", "[::1]:1", "8.8.8.8:0", "0.0.0.0:1"]
                .iter()
                .map(|text| text.parse().unwrap())
                .collect();
        dialer.on_resolved("seed.example", &private, seconds(0), &mut rng);
        assert!(dialer.book.is_empty());
        let many: Vec<SocketAddr> = (0..10_000u32)
            .map(|n| (std::net::Ipv4Addr::from(0x0800_0000 + n * 65_536), 8333).into())
            .collect();
        dialer.on_resolved("seed.example", &many, seconds(0), &mut rng);
        let taken = dialer.book.len();
        assert!((200..=MAX_SEED_ADDRESSES).contains(&taken), "{taken}");
    }

    #[test]
    fn seeds_fill_the_book_and_the_target_is_kept() {
        let (mut dialer, mut rng) = dialer(|config| config.probe_interval = Duration::ZERO);
        assert_eq!(dialer.next(seconds(0), &mut rng), Some(DialWish::Resolve("seed.example".into(), 8333)));
        assert_eq!(dialer.next(seconds(0), &mut rng), None);
        let found: Vec<SocketAddr> =
            ["1.1.1.1:1", "1.1.2.2:1", "2.2.2.2:1", "3.3.3.3:1"].iter().map(|t| t.parse().unwrap()).collect();
        dialer.on_resolved("seed.example", &found, seconds(1), &mut rng);
        dialer.on_addresses(seconds(1).at);
        let mut groups = BTreeSet::new();
        for n in 0..2 {
            let mut now = seconds(2 + n);
            let (address, kind) = next_dial(&mut dialer, &mut rng, &mut now).unwrap();
            assert_eq!(kind, ConnectionKind::FullRelay);
            dialer.on_dialled(PeerId(n), &address, kind, now);
            assert!(groups.insert(NetGroup::of(&address)));
            dialer.on_ready(PeerId(n), USEFUL, now);
        }
        assert_eq!(dialer.next(seconds(9), &mut rng), None, "the target is reached");
        assert_eq!(dialer.next_deadline(), Some(seconds(2 + 600).at), "only a saving is due");
    }

    #[test]
    fn saved_addresses_come_before_dns() {
        let mut book = AddressBook::new([1; 16]);
        let mut rng = Rng::from_number(1);
        let told = Told {
            address: address("1.1.1.1:1"),
            services: ServiceFlags::NETWORK | ServiceFlags::WITNESS,
            seen: 1_700_000_000,
        };
        book.add(&told, &NetGroup::V4([1, 2]), Duration::ZERO, 1_700_000_000, &mut rng);
        let book = AddressBook::decode(&book.encode()).unwrap();
        let (config, _) = dialer(|_| {});
        let mut dialer = Dialer::new(config.config, book);
        let now = seconds(0);
        let Some(DialWish::Dial { address: first, kind }) = dialer.next(now, &mut rng) else { panic!() };
        dialer.on_dialled(PeerId(0), &first, kind, now);
        assert_eq!(dialer.next(seconds(1), &mut rng), None);
        // An address of the host is not dialled a second time for the target.
        let second = address("7.7.7.7:1");
        dialer.add_manual(second.clone());
        dialer.on_dialled(PeerId(1), &second, ConnectionKind::Manual, seconds(1));
        dialer.on_known(vec![second], seconds(1), &mut rng);
        dialer.on_addresses(seconds(1).at);
        assert!(matches!(dialer.next(seconds(2), &mut rng), Some(DialWish::Save(_))));
        assert_eq!(dialer.next(seconds(2), &mut rng), None);
        assert!(matches!(dialer.next(seconds(12), &mut rng), Some(DialWish::Resolve(..))));
    }

    #[test]
    fn misbehaviour_is_remembered_except_of_this_machine_and_of_the_host() {
        let (mut dialer, mut rng) = dialer(|_| {});
        let (bad, local, manual) = (address("1.1.1.1:1"), address("127.0.0.1:5"), address("2.2.2.2:2"));
        dialer.add_manual(manual.clone());
        let kinds = [ConnectionKind::FullRelay, ConnectionKind::FullRelay, ConnectionKind::Manual];
        for (n, (peer, kind)) in [&bad, &local, &manual].into_iter().zip(kinds).enumerate() {
            let id = PeerId(n as u64);
            dialer.on_dialled(id, peer, kind, Now::default());
            dialer.on_gone(id, peer, Ending::Misbehaved, Now::default(), &mut rng);
        }
        assert!(dialer.book.is_discouraged(&bad));
        assert!(!dialer.book.is_discouraged(&local) && !dialer.book.is_discouraged(&manual));
        assert_eq!(dialer.next_deadline(), Some(Timestamp::ZERO), "the book is to be saved");
    }

    fn numbered(n: u8) -> PeerAddress {
        PeerAddress::Ip(([n, 1, 1, 1], 8_333).into())
    }

    /// Dials until nothing is missing, all with success; what is dialled next is a feeler.
    fn settle(
        dialer: &mut Dialer,
        rng: &mut Rng,
        now: &mut Now,
        first: u64,
    ) -> Vec<(PeerAddress, ConnectionKind)> {
        let mut all = Vec::new();
        loop {
            let (address, kind) = next_dial(dialer, rng, now).expect("there are enough addresses");
            let id = PeerId(first + all.len() as u64);
            dialer.on_dialled(id, &address, kind, *now);
            dialer.on_ready(id, USEFUL, *now);
            all.push((address, kind));
            if kind == ConnectionKind::Feeler {
                return all;
            }
        }
    }

    #[test]
    fn eight_full_two_for_blocks_then_feelers_and_the_two_are_the_next_runs_anchors() {
        let change = |config: &mut DialConfig| {
            *config = DialConfig { seeds: Vec::new(), ..DialConfig::default() };
        };
        let (mut first, mut rng) = dialer(change);
        let mut now = seconds(0);
        first.on_known((1..=60).map(numbered).collect(), now, &mut rng);
        let all = settle(&mut first, &mut rng, &mut now, 0);
        let kinds: Vec<_> = all.iter().map(|(_, kind)| *kind).collect();
        let of = |kind| kinds.iter().filter(|other| **other == kind).count();
        assert_eq!((of(ConnectionKind::FullRelay), of(ConnectionKind::BlockRelayOnly)), (8, 2));
        assert_eq!(all.len(), 11);
        assert!(now.at > seconds(3).at, "a feeler waits");
        // Feelers go on, one at a time.
        first.on_gone(PeerId(10), &all[10].0, Ending::Lost, now, &mut rng);
        let began = now;
        let mut feelers = 0;
        while now.at.since(began.at) < Duration::from_secs(7_200) {
            let (address, kind) = next_dial(&mut first, &mut rng, &mut now).unwrap();
            assert_eq!(kind, ConnectionKind::Feeler);
            feelers += 1;
            first.on_dialled(PeerId(100 + feelers), &address, kind, now);
            first.on_gone(PeerId(100 + feelers), &address, Ending::Failed, now, &mut rng);
        }
        assert!((30..=90).contains(&feelers), "{feelers} in two hours");

        let anchors: BTreeSet<_> = all[8..10].iter().map(|(address, _)| address.clone()).collect();
        let saved = first.take_changed().unwrap();
        let (next, _) = dialer(change);
        let mut next = Dialer::new(next.config, AddressBook::decode(&saved).unwrap());
        let mut now = seconds(0);
        let all = settle(&mut next, &mut rng, &mut now, 0);
        assert!(all[..2].iter().all(|(_, kind)| *kind == ConnectionKind::BlockRelayOnly));
        assert_eq!(all[..2].iter().map(|(address, _)| address.clone()).collect::<BTreeSet<_>>(), anchors);
    }

    /// The bug: with other networks than in the run before, its anchors were dialled all the same, and so was who had a
    /// place that another wanted: of a node that was to use Tor alone, directly.
    #[test]
    fn what_an_earlier_run_left_of_other_networks_is_not_dialled() {
        let mut book = AddressBook::new([1; 16]);
        let mut rng = Rng::from_number(1);
        let services = ServiceFlags::NETWORK | ServiceFlags::WITNESS;
        let unix = seconds(0).unix;
        // One group has 512 places: of some thousand, many want one that is taken.
        for n in 0..2_000u16 {
            let [high, low] = n.to_be_bytes();
            let address = PeerAddress::Ip(([1, 1, high, low], 8_333).into());
            let told = Told { address: address.clone(), services, seen: unix };
            book.add(&told, &NetGroup::V4([2, low]), Duration::ZERO, unix, &mut rng);
            book.on_good(&address, services, unix);
        }
        assert!(book.collisions() > 0 && book.to_test(seconds(0), &mut rng).is_some());
        book.set_anchors(vec![numbered(7), numbered(8)]);
        let dialled = |target, networks: BTreeSet<AddressNetwork>| {
            let seeds = Vec::new();
            let config =
                DialConfig { target, block_relay_target: target, networks, seeds, ..Default::default() };
            let mut dialer = Dialer::new(config, AddressBook::decode(&book.encode()).unwrap());
            for n in 0..200u16 {
                let address = PeerAddress::Ip(([1, 1, 0, n as u8], 8_333).into());
                dialer.book.on_good(&address, services, unix);
            }
            next_dial(&mut dialer, &mut Rng::from_number(1), &mut seconds(0))
        };
        let direct = DialConfig::default().networks;
        let onions = BTreeSet::from([AddressNetwork::Onion]);
        assert_eq!(dialled(2, direct.clone()).map(|(_, kind)| kind), Some(ConnectionKind::BlockRelayOnly));
        assert_eq!(dialled(0, direct).map(|(_, kind)| kind), Some(ConnectionKind::Feeler));
        assert_eq!((dialled(2, onions.clone()), dialled(0, onions.clone())), (None, None));
        let (mut dialer, mut rng) = dialer(|config| config.networks = onions);
        assert_eq!(
            (dialer.next(seconds(0), &mut rng), dialer.next_deadline()),
            (None, None),
            "no seed is asked"
        );
    }

    #[test]
    fn a_stale_tip_asks_for_one_more() {
        let (mut dialer, mut rng) = dialer(|config| config.seeds.clear());
        let mut now = seconds(0);
        dialer.on_known((1..=20).map(numbered).collect(), now, &mut rng);
        assert_eq!(settle(&mut dialer, &mut rng, &mut now, 0).len(), 3);
        dialer.set_standing(Standing { stale: true, near_tip: true, ..Standing::default() }, now.at);
        let (_, kind) = next_dial(&mut dialer, &mut rng, &mut now).unwrap();
        assert_eq!(kind, ConnectionKind::FullRelay);
    }

    #[test]
    fn addresses_of_low_scores_come_last_only_while_others_serve() {
        let (mut dialer, mut rng) = dialer(|config| config.seeds.clear());
        let now = seconds(0);
        dialer.on_known((1..=20).map(numbered).collect(), now, &mut rng);
        // It was there; it lies in the tried table, the others only were told.
        let services = USEFUL | ServiceFlags::WITNESS;
        dialer.book.on_good(&numbered(1), services, now.unix - 3_600);
        dialer.set_avoided(BTreeSet::from([numbered(1)]));
        let mut is_dialled = |served: bool| {
            dialer.set_standing(Standing { served, ..Standing::default() }, now.at);
            let mut draws = (0..100).map(|_| dialer.pick(ConnectionKind::FullRelay, now, &mut rng));
            draws.any(|address| address == Ok(numbered(1)))
        };
        assert!(!is_dialled(true));
        assert!(is_dialled(false));
    }

    #[test]
    fn only_networks_that_are_reached_are_kept_and_what_comes_with_the_program_is_the_last_resort() {
        let onion = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion:8333";
        let fixed = vec![address(onion), address("9.9.9.9:1")];
        let (mut dialer, mut rng) = dialer(|config| config.fixed_seeds = fixed.clone());
        let mut now = seconds(0);
        assert!(matches!(dialer.next(now, &mut rng), Some(DialWish::Resolve(..))));
        let (first, _) = next_dial(&mut dialer, &mut rng, &mut now).unwrap();
        assert_eq!((first, now.at), (address("9.9.9.9:1"), (seconds(60).at + DIAL_SPACING)));
        assert_eq!(dialer.book.len(), 1);
        dialer.config.networks = BTreeSet::from([AddressNetwork::Onion]);
        dialer.on_known(fixed, now, &mut rng);
        assert_eq!(dialer.book.len(), 2);
        now.at = now.at + Duration::from_secs(1);
        dialer.on_addresses(now.at);
        let wanted = next_dial(&mut dialer, &mut rng, &mut now).map(|(address, _)| address.to_string());
        assert_eq!(wanted.as_deref(), Some(onion));
    }

    #[test]
    fn peers_without_all_blocks_are_dialled_only_near_the_tip() {
        let (mut dialer, mut rng) = dialer(|config| config.seeds.clear());
        let services = ServiceFlags::NETWORK_LIMITED | ServiceFlags::WITNESS;
        let told = Told { address: numbered(1), services, seen: 1_700_000_000 };
        dialer.book.add(&told, &NetGroup::V4([1, 2]), Duration::ZERO, 1_700_000_000, &mut rng);
        assert!(matches!(dialer.next(seconds(0), &mut rng), Some(DialWish::Save(_))));
        assert_eq!(dialer.next(seconds(0), &mut rng), None);
        dialer.set_standing(Standing { near_tip: true, ..Standing::default() }, seconds(1).at);
        assert!(matches!(dialer.next(seconds(2), &mut rng), Some(DialWish::Dial { .. })));
    }
}
