//! Addresses of nodes, taken from peers and passed on to them.
//!
//! 1. What a peer tells goes into the address book at the rate of a token bucket: one address in ten seconds, and a
//!    thousand more once we have asked for them (`getaddr`).
//! 2. `getaddr` of a peer that came to us is answered once: a part of the book, the same for about a day for everyone who
//!    comes from the same network, so that nobody can copy the book by asking often, nor see from two answers that an onion
//!    service and an IP address are one node.
//! 3. A few addresses that came unasked and were seen in the last ten minutes are passed on to two peers, whom a secret
//!    chooses anew each day for each address; half a minute later on average, so that their way can't be followed.
//! 4. Our own addresses, if we have any that others reach, are told to each peer at first and then once a day on average.
//!    Those of IPv4 and IPv6 not to peers of Tor or I2P, to whom they would tell whose hidden service they have come to.
//!
//! As Core's net_processing.cpp (`ProcessAddrs`, `RelayAddress`, `MaybeSendAddr`). Peers of the kinds that don't gossip
//! are told nothing, and what they tell is ignored.

use crate::limits::{
    ADDR_ANSWER_PART, ADDR_BUCKET, ADDR_RATE_PER_SECOND, ADDR_RELAY_AT_MOST, ADDR_RELAY_PEERS,
    ADDR_SEND_INTERVAL, ADDR_TELL_OWN_INTERVAL, MAX_ADDR, MAX_KNOWN_ADDRESSES,
};
use crate::peer::book::{NetGroup, Told, is_routable};
use crate::peer::dial::{Dialer, exponential};
use crate::peer::timers::Timers;
use crate::peer::{AddressNetwork, ConnectionKind, Cx, PeerAddress, PeerId, PeerView};
use crate::time::{Now, Timestamp};
use crate::wire::{Message, addr};
use bitcoin::hashes::{HashEngine, siphash24};
use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::address::AddrV2Message;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

/// Age in seconds up to which an address that is told counts as news.
const FRESH: u64 = 600;

/// How a peer comes to us.
type Way = (Option<AddressNetwork>, bool);

#[derive(Debug)]
struct Listener {
    group: NetGroup,
    inbound: bool,
    /// Whether it is not to learn our IP addresses.
    private: bool,
    /// Whether it takes `addrv2` (BIP155).
    v2: bool,
    /// How many addresses are taken from it now, and as of when.
    tokens: (f64, Timestamp),
    /// Whether its answer to our `getaddr` is still to come.
    asked: bool,
    answered: bool,
    /// Its network, and whether it is on this machine, as those are who come through an onion service of ours.
    way: Way,
    /// Hashes of addresses that it told or was told.
    known: BTreeSet<u64>,
    waiting: Vec<Told>,
}

/// The exchange of addresses with all peers.
#[derive(Debug)]
pub struct Gossip {
    key: [u64; 2],
    listeners: BTreeMap<PeerId, Listener>,
    /// When what waits is sent; none where nothing waits.
    sends: Timers<PeerId>,
    /// When our own addresses are told again.
    own_due: Timers<PeerId>,
    own: Vec<PeerAddress>,
    services: ServiceFlags,
    /// Whether what some tell is passed on to others.
    relaying: bool,
    /// The answers to `getaddr`, and until when they are given.
    answers: BTreeMap<Way, (Timestamp, Vec<Told>)>,
}

impl Gossip {
    /// An exchange whose choices follow from this secret; `services` are ours.
    pub fn new(key: [u64; 2], services: ServiceFlags) -> Self {
        Self {
            key,
            listeners: BTreeMap::new(),
            sends: Timers::new(),
            own_due: Timers::new(),
            own: Vec::new(),
            services,
            relaying: true,
            answers: BTreeMap::new(),
        }
    }

    /// Whether addresses that come unasked are passed on; they are, unless this says otherwise.
    pub fn set_relaying(&mut self, relaying: bool) {
        self.relaying = relaying;
    }

    /// Addresses of ours that others reach.
    pub fn own(&self) -> &[PeerAddress] {
        &self.own
    }

    /// Sets them; news are told to all.
    pub fn set_own(&mut self, own: Vec<PeerAddress>, now: Timestamp) {
        if self.own == own || self.services == ServiceFlags::NONE {
            return;
        }
        self.own = own;
        for peer in self.listeners.keys() {
            self.own_due.set(*peer, now);
        }
    }

    /// Whether a peer is not to learn our IP addresses: it is of Tor or I2P, or it has come through a service of ours there,
    /// which connects from this machine.
    pub fn is_private(&self, peer: &PeerAddress, kind: ConnectionKind) -> bool {
        let hidden = |address: &PeerAddress| {
            matches!(address.network(), Some(AddressNetwork::Onion | AddressNetwork::I2p))
        };
        hidden(peer) || (kind == ConnectionKind::Inbound && peer.is_local() && self.own.iter().any(hidden))
    }

    /// Addresses that wait to be told, of all peers.
    pub fn waiting(&self) -> usize {
        self.listeners.values().map(|listener| listener.waiting.len()).sum()
    }

    /// A handshake is complete. `v2`: it takes `addrv2`. Answers whether it is to be asked for addresses.
    pub fn on_peer_ready(&mut self, cx: &mut Cx<'_>, peer: &PeerView, v2: bool, ask: bool) {
        if !peer.kind.gossips() {
            return;
        }
        let asked = ask && matches!(peer.kind, ConnectionKind::FullRelay | ConnectionKind::AddrFetch);
        let mut tokens = 1.0;
        if asked {
            // Their answer may bring a thousand addresses at once.
            tokens += ADDR_BUCKET;
            cx.send(peer.id, Message::GetAddr);
        }
        let listener = Listener {
            group: NetGroup::of(&peer.address),
            inbound: peer.kind == ConnectionKind::Inbound,
            private: self.is_private(&peer.address, peer.kind),
            v2,
            tokens: (tokens, cx.now.at),
            asked,
            answered: false,
            way: (peer.address.network(), peer.address.is_local()),
            known: BTreeSet::new(),
            waiting: Vec::new(),
        };
        self.listeners.insert(peer.id, listener);
        if !self.own.is_empty() {
            self.own_due.set(peer.id, cx.now.at);
        }
    }

    /// A connection ended.
    pub fn on_peer_gone(&mut self, peer: PeerId) {
        self.listeners.remove(&peer);
        self.sends.cancel(&peer);
        self.own_due.cancel(&peer);
    }

    /// `addr` or `addrv2`. `true` if the book has news.
    pub fn on_addresses(
        &mut self,
        cx: &mut Cx<'_>,
        dialer: &mut Dialer,
        peer: PeerId,
        entries: Vec<Told>,
    ) -> bool {
        let Some(listener) = self.listeners.get_mut(&peer) else { return false };
        let (tokens, since) = listener.tokens;
        let earned = cx.now.at.since(since).as_secs_f64() * ADDR_RATE_PER_SECOND;
        let mut tokens = if tokens < ADDR_BUCKET { (tokens + earned).min(ADDR_BUCKET) } else { tokens };
        let is_answer = core::mem::take(&mut listener.asked) || entries.len() > ADDR_RELAY_AT_MOST;
        let group = listener.group.clone();
        let (mut news, mut fresh) = (false, Vec::new());
        for told in entries {
            if tokens < 1.0 {
                break;
            }
            tokens -= 1.0;
            remember(&mut listener.known, hash(self.key, 0, &told.address));
            let serves = [ServiceFlags::NETWORK, ServiceFlags::NETWORK_LIMITED];
            if !serves.iter().any(|flag| told.services.has(*flag)) || !is_routable(&told.address) {
                continue;
            }
            let is_fresh = told.seen.abs_diff(cx.now.unix) < FRESH;
            if !is_answer && is_fresh && !dialer.book.is_discouraged(&told.address) {
                fresh.push(told.clone());
            }
            if dialer.reaches(&told.address) {
                news |= dialer.book.gossip(told, &group, cx.now.unix, cx.rng);
            }
        }
        listener.tokens = (tokens, cx.now.at);
        for told in fresh.into_iter().filter(|_| self.relaying).collect::<Vec<_>>() {
            self.relay(cx, peer, &told);
        }
        news
    }

    /// Passes an address on.
    fn relay(&mut self, cx: &mut Cx<'_>, from: PeerId, told: &Told) {
        let day = cx.now.unix / (24 * 3_600);
        let choice = hash(self.key, day.saturating_add(1), &told.address);
        let mut others: Vec<(u64, PeerId)> = self
            .listeners
            .keys()
            .filter(|peer| **peer != from)
            .map(|peer| (mix(self.key, choice, peer.0), *peer))
            .collect();
        others.sort_unstable();
        for (_, peer) in others.into_iter().take(ADDR_RELAY_PEERS) {
            self.tell(cx, peer, told.clone());
        }
    }

    /// Puts an address among those that a peer is told next.
    fn tell(&mut self, cx: &mut Cx<'_>, peer: PeerId, told: Told) {
        let Some(listener) = self.listeners.get_mut(&peer) else { return };
        let speaks = listener.v2 || told.address.network().is_some_and(|network| network.is_direct());
        if !speaks || !remember(&mut listener.known, hash(self.key, 0, &told.address)) {
            return;
        }
        if listener.waiting.len() < MAX_ADDR {
            listener.waiting.push(told);
        }
        if self.sends.get(&peer).is_none() {
            self.sends.set(peer, cx.now.at + exponential(ADDR_SEND_INTERVAL, cx.rng));
        }
    }

    /// `getaddr`.
    pub fn on_get_addr(&mut self, cx: &mut Cx<'_>, dialer: &Dialer, peer: PeerId) {
        let Some(listener) = self.listeners.get_mut(&peer) else { return };
        if !listener.inbound || core::mem::replace(&mut listener.answered, true) {
            return;
        }
        let (until, all) = self.answers.entry(listener.way).or_default();
        // At first it is not later than any time.
        if *until <= cx.now.at {
            let most = (dialer.book.len() * ADDR_ANSWER_PART / 100).min(MAX_ADDR);
            let hours = Duration::from_secs(21 * 3_600 + cx.rng.below(6 * 3_600));
            (*until, *all) = (cx.now.at + hours, dialer.book.sample(most, cx.now.unix, cx.rng));
        }
        if let Some(message) = message(listener.v2, all) {
            cx.send(peer, message);
        }
    }

    /// Sends what is due.
    pub fn on_timer(&mut self, cx: &mut Cx<'_>) {
        while let Some(peer) = self.own_due.pop_due(cx.now.at) {
            let told = |address: &PeerAddress, now: Now| Told {
                address: address.clone(),
                services: self.services,
                seen: now.unix,
            };
            let own: Vec<Told> = self.own.iter().map(|address| told(address, cx.now)).collect();
            for told in own {
                if let Some(listener) = self.listeners.get_mut(&peer) {
                    if listener.private && told.address.network().is_some_and(AddressNetwork::is_direct) {
                        continue;
                    }
                    listener.known.remove(&hash(self.key, 0, &told.address));
                }
                self.tell(cx, peer, told);
            }
            if !self.own.is_empty() {
                self.own_due.set(peer, cx.now.at + exponential(ADDR_TELL_OWN_INTERVAL, cx.rng));
            }
        }
        while let Some(peer) = self.sends.pop_due(cx.now.at) {
            let Some(listener) = self.listeners.get_mut(&peer) else { continue };
            let all = core::mem::take(&mut listener.waiting);
            if let Some(message) = message(listener.v2, &all) {
                cx.tell(peer, message);
            }
        }
    }

    /// When there is something to do.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        [self.sends.next(), self.own_due.next()].into_iter().flatten().min()
    }
}

/// `false` if it was known. At its bound the memory begins anew: the cost is an address told twice.
fn remember(known: &mut BTreeSet<u64>, hash: u64) -> bool {
    if known.len() >= MAX_KNOWN_ADDRESSES {
        known.clear();
    }
    known.insert(hash)
}

fn hash(key: [u64; 2], salt: u64, address: &PeerAddress) -> u64 {
    let mut engine = siphash24::HashEngine::with_keys(key[0], key[1]);
    engine.input(&salt.to_le_bytes());
    engine.input(address.to_string().as_bytes());
    siphash24::Hash::from_engine_to_u64(engine)
}

fn mix(key: [u64; 2], a: u64, b: u64) -> u64 {
    let bytes = [a.to_le_bytes(), b.to_le_bytes()].concat();
    siphash24::Hash::hash_to_u64_with_keys(key[0], key[1], &bytes)
}

/// Addresses in the form that the peer takes; `None` if there are none for it.
fn message(v2: bool, all: &[Told]) -> Option<Message> {
    let time = |told: &Told| u32::try_from(told.seen).unwrap_or(u32::MAX);
    let wire = all.iter().filter_map(|told| Some((told, told.address.to_addr_v2()?))).take(MAX_ADDR);
    let message = if v2 {
        let entry = |(told, address): (&Told, _)| AddrV2Message {
            time: time(told),
            services: told.services,
            addr: address,
            port: told.address.port(),
        };
        Message::AddrV2(wire.map(entry).collect())
    } else {
        let direct =
            wire.filter(|(told, _)| told.address.network().is_some_and(|network| network.is_direct()));
        let entry = |(told, address): (&Told, _)| {
            (time(told), addr::to_legacy(&address, told.address.port(), told.services))
        };
        Message::Addr(direct.map(entry).collect())
    };
    let is_empty = matches!(&message, Message::Addr(entries) if entries.is_empty())
        || matches!(&message, Message::AddrV2(entries) if entries.is_empty());
    (!is_empty).then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::book::AddressBook;
    use crate::peer::dial::DialConfig;
    use crate::peer::{Effect, Wishes};
    use crate::rng::Rng;

    const NOW: u64 = 1_700_000_000;
    const ONION: &str = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion:8333";

    struct Scene {
        gossip: Gossip,
        dialer: Dialer,
        now: Now,
        out: Wishes,
        rng: Rng,
    }

    fn scene() -> Scene {
        Scene {
            gossip: Gossip::new([1, 2], ServiceFlags::NETWORK),
            dialer: Dialer::new(DialConfig::default(), AddressBook::new([1; 16])),
            now: Now::new(0, NOW),
            out: Wishes::default(),
            rng: Rng::from_number(1),
        }
    }

    fn told(n: u8, seen: u64) -> Told {
        let address = PeerAddress::Ip(([n, 1, 1, 1], 8_333).into());
        Told { address, services: ServiceFlags::NETWORK, seen }
    }

    fn view(id: PeerId, address: PeerAddress, kind: ConnectionKind) -> PeerView {
        let services = ServiceFlags::NETWORK;
        PeerView { id, address, ready: true, kind, services, start_height: 0, best_known: None }
    }

    impl Scene {
        fn with<T>(&mut self, act: impl FnOnce(&mut Gossip, &mut Cx<'_>, &mut Dialer) -> T) -> T {
            let mut cx = Cx { now: self.now, rng: &mut self.rng, out: &mut self.out };
            act(&mut self.gossip, &mut cx, &mut self.dialer)
        }

        fn ready(&mut self, id: u64, kind: ConnectionKind, v2: bool) {
            let address = PeerAddress::Ip(([100 + id as u8, 1, 1, 1], 8_333).into());
            let peer = view(PeerId(id), address, kind);
            self.with(|gossip, cx, _| gossip.on_peer_ready(cx, &peer, v2, true));
        }

        /// Somebody comes to us from there.
        fn arrives(&mut self, id: PeerId, address: PeerAddress) {
            let peer = view(id, address, ConnectionKind::Inbound);
            self.with(|gossip, cx, _| gossip.on_peer_ready(cx, &peer, true, false));
        }

        fn tells(&mut self, id: u64, entries: Vec<Told>) -> bool {
            self.with(|gossip, cx, dialer| gossip.on_addresses(cx, dialer, PeerId(id), entries))
        }

        fn wait(&mut self, wait: Duration) {
            let end = self.now.at + wait;
            while let Some(at) = self.gossip.next_deadline().filter(|at| *at <= end) {
                self.now.at = at;
                self.with(|gossip, cx, _| gossip.on_timer(cx));
            }
            self.now = Now { at: end, unix: self.now.unix + wait.as_secs() };
        }

        fn sent(&mut self) -> Vec<(u64, Message)> {
            let sent = |effect| match effect {
                Effect::Send(peer, message) | Effect::Tell(peer, message) => Some((peer.0, message)),
                Effect::Command(_) => None,
            };
            core::mem::take(&mut self.out.effects).into_iter().filter_map(sent).collect()
        }
    }

    #[test]
    fn addresses_are_taken_at_the_rate_of_the_bucket() {
        let mut scene = scene();
        scene.ready(1, ConnectionKind::FullRelay, true);
        scene.ready(2, ConnectionKind::Inbound, true);
        scene.ready(3, ConnectionKind::BlockRelayOnly, true);
        assert_eq!(scene.sent(), [(1, Message::GetAddr)], "only a full peer of ours is asked");
        assert!(!scene.tells(3, vec![told(1, NOW)]), "what others tell unasked is not heard");
        assert!(scene.tells(2, (1..=9).map(|n| told(n, NOW)).collect()));
        assert_eq!(scene.dialer.book.len(), 1, "one at first");
        scene.wait(Duration::from_secs(30));
        scene.tells(2, (11..=19).map(|n| told(n, NOW)).collect());
        assert_eq!(scene.dialer.book.len(), 4, "then one in ten seconds");
        scene.tells(1, (20..=90).map(|n| told(n, NOW)).collect());
        assert_eq!(scene.dialer.book.len(), 75);
    }

    #[test]
    fn a_node_that_saves_bytes_passes_nothing_on_and_still_takes_it() {
        let mut scene = scene();
        scene.gossip.set_relaying(false);
        (1..=6).for_each(|id| scene.ready(id, ConnectionKind::Inbound, true));
        assert!(scene.tells(1, vec![told(1, NOW - 100)]));
        assert_eq!(scene.gossip.waiting(), 0);
        assert_eq!(scene.dialer.book.len(), 1);
    }

    #[test]
    fn news_go_to_two_others_and_answers_to_nobody() {
        let mut scene = scene();
        for id in 1..=6 {
            scene.ready(id, ConnectionKind::Inbound, true);
        }
        scene.ready(7, ConnectionKind::BlockRelayOnly, true);
        scene.tells(1, vec![told(1, NOW - 100)]);
        assert_eq!(scene.sent(), [], "not at once");
        scene.wait(Duration::from_secs(600));
        let sent = scene.sent();
        assert_eq!(sent.len(), 2);
        assert!(sent.iter().all(|(peer, message)| (2..=6).contains(peer)
            && matches!(message, Message::AddrV2(entries) if entries.len() == 1)));
        let again = sent.iter().map(|(peer, _)| *peer).collect::<Vec<_>>();
        scene.tells(2, vec![told(1, NOW - 100)]);
        scene.wait(Duration::from_secs(600));
        assert!(scene.sent().iter().all(|(peer, _)| !again.contains(peer)), "nobody is told twice");
        scene.tells(3, vec![told(2, NOW - 1_000)]);
        scene.tells(4, (10..=30).map(|n| told(n, NOW)).collect());
        scene.wait(Duration::from_secs(600));
        assert_eq!(scene.sent(), [], "old ones, and what was asked for, stay");
        let now = scene.now.unix;
        scene.dialer.book.discourage(&told(41, now).address);
        scene.tells(5, vec![told(40, now + 601), told(41, now)]);
        scene.wait(Duration::from_secs(600));
        assert_eq!(scene.sent(), [], "nor does what nobody can have seen, or who broke a rule");
        assert_eq!(scene.gossip.next_deadline(), None);
    }

    #[test]
    fn getaddr_is_answered_once_to_those_who_came_and_the_same_for_a_day() {
        let mut scene = scene();
        let mut rng = Rng::from_number(2);
        for n in 1..=200 {
            let from = NetGroup::V4([n, 9]);
            scene.dialer.book.add(&told(n, NOW), &from, Duration::ZERO, NOW, &mut rng);
        }
        let mut answers = Vec::new();
        for (id, kind) in
            [(1, ConnectionKind::Inbound), (2, ConnectionKind::Inbound), (3, ConnectionKind::FullRelay)]
        {
            scene.ready(id, kind, id == 1);
            scene.sent();
            scene.with(|gossip, cx, dialer| gossip.on_get_addr(cx, dialer, PeerId(id)));
            scene.with(|gossip, cx, dialer| gossip.on_get_addr(cx, dialer, PeerId(id)));
            answers.push(scene.sent());
        }
        assert_eq!(answers.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 0]);
        let (Message::AddrV2(one), Message::Addr(two)) = (&answers[0][0].1, &answers[1][0].1) else {
            panic!()
        };
        assert!((40..=46).contains(&one.len()), "{}", one.len());
        assert_eq!(one.len(), two.len());
        assert!(one.iter().zip(two).all(|(a, b)| a.socket_addr().unwrap() == b.1.socket_addr().unwrap()));
    }

    /// The bug: who asked over an IP address and over an onion service got the same answer, and knew that both are one node.
    #[test]
    fn answers_over_different_networks_have_nothing_to_do_with_each_other() {
        let mut scene = scene();
        let mut rng = Rng::from_number(2);
        for n in 1..=200 {
            scene.dialer.book.add(&told(n, NOW), &NetGroup::V4([n, 9]), Duration::ZERO, NOW, &mut rng);
        }
        let texts = ["8.8.8.8:1", "9.9.9.9:1", "127.0.0.1:4000", "[2a00::1]:1", ONION];
        let answers = texts.map(|text| {
            let id = PeerId(scene.rng.u64());
            scene.arrives(id, text.parse().unwrap());
            scene.with(|gossip, cx, dialer| gossip.on_get_addr(cx, dialer, id));
            scene.sent().remove(0).1
        });
        assert_eq!(answers[0], answers[1]);
        for (at, answer) in answers.iter().enumerate().skip(1) {
            assert!(answers[at + 1..].iter().all(|other| other != answer), "{}", texts[at]);
        }
    }

    #[test]
    fn whoever_comes_through_a_hidden_service_learns_no_ip_address() {
        let mut scene = scene();
        let (now, ours) = (scene.now.at, told(9, 0).address);
        let local = PeerAddress::Ip(([127, 0, 0, 1], 4_000).into());
        assert!(!scene.gossip.is_private(&local, ConnectionKind::Inbound));
        scene.gossip.set_own(vec![ours.clone(), ONION.parse().unwrap()], now);
        assert!(scene.gossip.is_private(&local, ConnectionKind::Inbound));
        let mut peer = view(PeerId(1), local, ConnectionKind::Inbound);
        scene.with(|gossip, cx, _| gossip.on_peer_ready(cx, &peer, true, true));
        (peer.id, peer.address) = (PeerId(2), ONION.parse().unwrap());
        peer.kind = ConnectionKind::Manual;
        scene.with(|gossip, cx, _| gossip.on_peer_ready(cx, &peer, true, true));
        scene.wait(Duration::from_secs(600));
        let sent = scene.sent();
        assert_eq!(sent.len(), 2);
        for (_, message) in sent {
            let Message::AddrV2(entries) = message else { panic!("{message:?}") };
            assert!(entries.len() == 1 && entries[0].socket_addr().is_err(), "{entries:?}");
        }
    }

    #[test]
    fn our_own_addresses_are_told_to_all_and_onions_to_those_who_understand() {
        let mut scene = scene();
        scene.ready(1, ConnectionKind::FullRelay, true);
        scene.ready(2, ConnectionKind::Inbound, false);
        scene.sent();
        let now = scene.now.at;
        scene.gossip.set_own(vec![told(9, 0).address, ONION.parse().unwrap()], now);
        scene.wait(Duration::from_secs(600));
        let mut sent = scene.sent();
        sent.sort_by_key(|(peer, _)| *peer);
        assert!(matches!(&sent[0], (1, Message::AddrV2(entries)) if entries.len() == 2));
        assert!(matches!(&sent[1], (2, Message::Addr(entries)) if entries.len() == 1));
        scene.wait(Duration::from_secs(20 * 24 * 3_600));
        assert!((10..=90).contains(&scene.sent().len()), "again about once a day each");
    }
}
