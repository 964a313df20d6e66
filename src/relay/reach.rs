//! How this node is reached from outside: addresses of ours that peers may be told, found out by asking.
//!
//! For each of IPv4 and IPv6, once the node listens on an address of the family that others might come to:
//! 1. An address that the host states is told, always. The family is then not looked for, but its port is still mapped.
//! 2. If this machine has an address of the Internet itself, that is it. (With IPv4 no gateway need be asked then; with IPv6
//!    one is asked first, because it may have a firewall.)
//! 3. Else a gateway is asked to lead a port of its own to ours: by PCP, by NAT-PMP, by UPnP. What it gives is renewed after
//!    half of its time, by the way that it was given; if that fails, by all others.
//! 4. Else STUN servers are asked, one after the other, what address they see. Whether the port is open there remains to be
//!    seen.
//! 5. A round without a mapping is repeated after a minute, then after twice as long, up to an hour; what an earlier one has
//!    found counts until its time is over.
//!
//! When the node stops, mappings are taken back. The requests leave as [`ReachRequest`]s, one at a time for each family; who
//! carries them out answers each. Nothing is believed that is no address of the Internet: a gateway may itself be behind
//! another one.
//!
//! Left out: what peers say our address is (Core's `IsPeerAddrLocalGood`), because they may lie and we can't tell how many
//! of them are one.

use crate::limits::{
    REACH_LEAST_LIFETIME, REACH_LIFETIME, REACH_RENEW_MAX, REACH_RETRY_FIRST, REACH_RETRY_MAX,
};
use crate::peer::PeerAddress;
use crate::peer::book::is_routable;
use crate::rng::Rng;
use crate::time::{Now, Timestamp};
use core::fmt;
use core::time::Duration;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

/// What a host allows.
#[derive(Clone, Debug, Default)]
pub struct ReachConfig {
    /// Whether addresses are looked for at all. Without it only stated ones are told.
    pub look: bool,
    /// Whether gateways are asked for mappings by PCP and NAT-PMP.
    pub map: bool,
    /// Whether they are by UPnP.
    pub upnp: bool,
    /// Servers that are asked by STUN; they learn of this node.
    pub stun_servers: Vec<PeerAddress>,
}

/// By what an address of ours is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ReachMethod {
    /// The host has stated it.
    Stated,
    /// It is this machine's own.
    Local,
    /// A gateway leads to us, by PCP (RFC 6887).
    Pcp,
    /// A gateway leads to us, by NAT-PMP (RFC 6886).
    NatPmp,
    /// A gateway leads to us, by UPnP.
    Upnp,
    /// A server sees us there, by STUN (RFC 8489).
    Stun,
}

impl ReachMethod {
    /// Whether a gateway was asked to let peers in.
    pub const fn is_mapping(self) -> bool {
        matches!(self, Self::Pcp | Self::NatPmp | Self::Upnp)
    }
}

impl fmt::Display for ReachMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stated => "stated",
            Self::Local => "own address",
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
            Self::Stun => "STUN",
        })
    }
}

/// A request's number, never used twice by one engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AskId(pub u64);

/// A question to what stands between this machine and the Internet. `listening` is where the node listens: its IP address,
/// which may be unspecified, is to be sent from; its family is the one that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReachRequest {
    /// From which address does this machine send to the Internet? Nothing is sent for it.
    Local {
        /// Where the node listens.
        listening: SocketAddr,
    },
    /// The gateway is to lead a TCP port to ours, or no longer.
    Map {
        /// [`ReachMethod::Pcp`], `NatPmp` or `Upnp`.
        by: ReachMethod,
        /// Where the node listens.
        listening: SocketAddr,
        /// What was given before.
        external: Option<SocketAddr>,
        /// For how long; 0 takes the mapping back.
        seconds: u32,
        /// The same for all requests of a mapping; nobody else knows it.
        nonce: [u8; 12],
    },
    /// What address does this server see?
    Observe {
        /// The server.
        server: PeerAddress,
        /// Where the node listens.
        listening: SocketAddr,
        /// Random, new each time.
        transaction: [u8; 12],
    },
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReachReply {
    /// The address. Of a mapping: with the outer port.
    pub address: SocketAddr,
    /// For how long a mapping was given, in seconds; 0 with all else.
    pub seconds: u32,
}

/// An address of ours that peers are told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OwnAddress {
    /// The address.
    pub address: PeerAddress,
    /// By what it is known.
    pub by: ReachMethod,
    /// Unix seconds until which it counts unless it is confirmed; `None`: for ever.
    pub until: Option<u64>,
}

/// How we are reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reachability {
    /// Addresses of ours; empty if none is known.
    pub addresses: Vec<OwnAddress>,
    /// What is being asked now.
    pub asking: Option<ReachMethod>,
    /// The last round's failures, for people; `None` after a round that found something.
    pub trouble: Option<String>,
}

/// A step of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Local,
    Map(ReachMethod),
    Observe(PeerAddress),
}

impl Step {
    fn method(&self) -> ReachMethod {
        match self {
            Self::Local => ReachMethod::Local,
            Self::Map(by) => *by,
            Self::Observe(_) => ReachMethod::Stun,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Found {
    by: ReachMethod,
    address: SocketAddr,
    until: Timestamp,
    until_unix: u64,
}

/// One family.
#[derive(Debug)]
struct Line {
    listening: SocketAddr,
    /// Whether the host has stated an address of it.
    stated: bool,
    nonce: [u8; 12],
    asking: Option<(AskId, Step)>,
    /// The rest of the round.
    left: VecDeque<Step>,
    found: Option<Found>,
    /// When the next round begins; none while one goes on.
    due: Option<Timestamp>,
    /// Rounds in a row that brought no mapping and no address of our own.
    failures: u32,
    trouble: Vec<String>,
}

impl Line {
    fn new(listening: SocketAddr, stated: bool, nonce: [u8; 12], due: Timestamp) -> Self {
        Self {
            listening,
            stated,
            nonce,
            asking: None,
            left: VecDeque::new(),
            found: None,
            due: Some(due),
            failures: 0,
            trouble: Vec::new(),
        }
    }

    /// The steps of a round: first what has worked, then the rest in order.
    fn round(&self, config: &ReachConfig) -> VecDeque<Step> {
        let v6 = self.listening.is_ipv6();
        let local = (!self.stated).then_some(Step::Local);
        let mut steps = VecDeque::new();
        steps.extend(local.clone().filter(|_| !v6));
        if config.map {
            steps.push_back(Step::Map(ReachMethod::Pcp));
            steps.extend((!v6).then_some(Step::Map(ReachMethod::NatPmp)));
        }
        steps.extend((config.upnp && !v6).then_some(Step::Map(ReachMethod::Upnp)));
        steps.extend(local.filter(|_| v6));
        if !self.stated {
            steps.extend(config.stun_servers.iter().cloned().map(Step::Observe));
        }
        if let Some(found) = self.found.filter(|found| found.by.is_mapping())
            && let Some(at) = steps.iter().position(|step| *step == Step::Map(found.by))
            && let Some(step) = steps.remove(at)
        {
            steps.push_front(step);
        }
        steps
    }

    fn map(&self, by: ReachMethod, seconds: u32) -> ReachRequest {
        let external = self.found.filter(|found| found.by.is_mapping()).map(|found| found.address);
        ReachRequest::Map { by, listening: self.listening, external, seconds, nonce: self.nonce }
    }

    /// What an answer is worth.
    fn judge(&self, step: &Step, reply: ReachReply, now: Now) -> Result<Found, String> {
        let by = step.method();
        let port = if by.is_mapping() { reply.address.port() } else { self.listening.port() };
        let address = SocketAddr::new(reply.address.ip().to_canonical(), port);
        if address.is_ipv4() != self.listening.is_ipv4() {
            return Err(format!("{} is of another family", address.ip()));
        }
        if !is_routable(&PeerAddress::Ip(address)) {
            return Err(format!("{address} cannot be reached from the Internet"));
        }
        // Nobody is believed for longer than we asked for.
        let given = if by.is_mapping() { Duration::from_secs(reply.seconds.into()) } else { REACH_LIFETIME };
        if given < REACH_LEAST_LIFETIME {
            return Err(format!("given for {} s only", given.as_secs()));
        }
        let given = given.min(REACH_LIFETIME);
        Ok(Found { by, address, until: now.at + given, until_unix: now.unix.saturating_add(given.as_secs()) })
    }

    /// Takes what a step has found. A mapping that still stands is not given up for the sight of the same address.
    fn take(&mut self, found: Found, now: Now) {
        self.left.clear();
        self.trouble.clear();
        let stands = self.found.filter(|old| old.by.is_mapping() && old.until > now.at);
        let lasting = found.by != ReachMethod::Stun;
        if lasting || stands.is_none_or(|old| old.address.ip() != found.address.ip()) {
            self.found = Some(found);
        }
        let renew = (found.until.since(now.at) / 2).min(REACH_RENEW_MAX);
        self.failures = if lasting { 0 } else { self.failures + 1 };
        let wait = if lasting { renew } else { renew.min(backoff(self.failures)) };
        self.due = Some(now.at + wait);
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        [self.due, self.found.map(|found| found.until)].into_iter().flatten().min()
    }
}

/// The wait after so many rounds in a row without a mapping.
fn backoff(failures: u32) -> Duration {
    let doubled = REACH_RETRY_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(REACH_RETRY_MAX)
}

/// Finds out how we are reached.
#[derive(Debug)]
pub struct Reach {
    config: ReachConfig,
    stated: Vec<PeerAddress>,
    /// At most one for IPv4 and one for IPv6.
    lines: Vec<Line>,
    next_id: u64,
    /// Whether [`Self::own`] may have changed.
    news: bool,
    stopping: bool,
}

impl Reach {
    /// Knows what the host states, and nothing else until the node listens.
    pub fn new(config: ReachConfig, stated: Vec<PeerAddress>) -> Self {
        Self { config, stated, lines: Vec::new(), next_id: 0, news: false, stopping: false }
    }

    /// The node listens on these addresses. Of each family the first counts that others might come to.
    pub fn on_listening(&mut self, addresses: &[SocketAddr], now: Now, rng: &mut Rng) {
        if !self.config.look {
            return;
        }
        for v6 in [false, true] {
            let open = |address: &&SocketAddr| address.is_ipv6() == v6 && !is_inward(address.ip());
            if let Some(listening) = addresses.iter().find(open) {
                let stated =
                    |own: &PeerAddress| own.socket_addr().is_some_and(|address| address.is_ipv6() == v6);
                let stated = self.stated.iter().any(stated);
                let line = Line::new(*listening, stated, rng.array(), now.at);
                if !line.round(&self.config).is_empty() {
                    self.lines.push(line);
                }
            }
        }
    }

    /// The answer to a request, or why there is none; the text is for people.
    pub fn on_answer(&mut self, id: AskId, answer: Result<ReachReply, String>, now: Now) {
        let asked = |line: &&mut Line| line.asking.as_ref().is_some_and(|(asked, _)| *asked == id);
        let Some(line) = self.lines.iter_mut().find(asked) else { return };
        let Some((_, step)) = line.asking.take() else { return };
        match answer.and_then(|reply| line.judge(&step, reply, now)) {
            Ok(found) => {
                line.take(found, now);
                self.news = true;
            }
            // Most machines are behind a gateway: that is no news.
            Err(_) if step == Step::Local => {}
            Err(why) => line.trouble.push(match step {
                Step::Observe(server) => format!("STUN with {server}: {why}"),
                step => format!("{}: {why}", step.method()),
            }),
        }
    }

    /// What is to be asked now, one request at a time; `None` once there is nothing more.
    pub fn next(&mut self, now: Now, rng: &mut Rng) -> Option<(AskId, ReachRequest)> {
        if self.stopping {
            return self.withdraw(now);
        }
        for line in &mut self.lines {
            if line.found.is_some_and(|found| found.until <= now.at) {
                line.found = None;
                self.news = true;
            }
            if line.due.is_some_and(|due| due <= now.at) {
                line.due = None;
                line.trouble.clear();
                line.left = line.round(&self.config);
            }
            if line.asking.is_some() || line.due.is_some() {
                continue;
            }
            let Some(step) = line.left.pop_front() else {
                line.failures += 1;
                line.due = Some(now.at + backoff(line.failures));
                continue;
            };
            let listening = line.listening;
            let request = match &step {
                Step::Local => ReachRequest::Local { listening },
                Step::Map(by) => line.map(*by, seconds(REACH_LIFETIME)),
                Step::Observe(server) => {
                    ReachRequest::Observe { server: server.clone(), listening, transaction: rng.array() }
                }
            };
            let id = AskId(self.next_id);
            self.next_id += 1;
            line.asking = Some((id, step));
            return Some((id, request));
        }
        None
    }

    /// The mappings that stand are taken back, once each.
    fn withdraw(&mut self, now: Now) -> Option<(AskId, ReachRequest)> {
        let stands = |line: &&mut Line| line.found.is_some_and(|found| found.by.is_mapping());
        let line = self.lines.iter_mut().find(stands)?;
        let request = line.found.filter(|found| found.until > now.at).map(|found| line.map(found.by, 0));
        line.found = None;
        let id = AskId(self.next_id);
        self.next_id += 1;
        match request {
            Some(request) => Some((id, request)),
            None => self.withdraw(now),
        }
    }

    /// Asks nothing more, but takes mappings back.
    pub fn stop(&mut self) {
        self.stopping = true;
        for line in &mut self.lines {
            (line.due, line.asking) = (None, None);
        }
    }

    /// Whether [`Self::own`] may have changed since this was last called.
    pub fn take_news(&mut self) -> bool {
        core::mem::take(&mut self.news)
    }

    /// The addresses of ours that peers may be told: stated ones first.
    pub fn own(&self) -> Vec<PeerAddress> {
        self.addresses().into_iter().map(|own| own.address).collect()
    }

    fn addresses(&self) -> Vec<OwnAddress> {
        let stated = |address: &PeerAddress| OwnAddress {
            address: address.clone(),
            by: ReachMethod::Stated,
            until: None,
        };
        let mut all: Vec<OwnAddress> = self.stated.iter().map(stated).collect();
        for found in self.lines.iter().filter_map(|line| line.found) {
            let (address, until) = (PeerAddress::Ip(found.address), Some(found.until_unix));
            if all.iter().all(|own| own.address != address) {
                all.push(OwnAddress { address, by: found.by, until });
            }
        }
        all
    }

    /// Where things stand.
    pub fn status(&self) -> Reachability {
        let asking = |line: &Line| line.asking.as_ref().map(|(_, step)| step.method());
        let trouble: Vec<&str> =
            self.lines.iter().flat_map(|line| &line.trouble).map(String::as_str).collect();
        Reachability {
            addresses: self.addresses(),
            asking: self.lines.iter().find_map(asking),
            trouble: (!trouble.is_empty()).then(|| trouble.join("; ")),
        }
    }

    /// When there is something to ask or to forget.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        if self.stopping {
            return None;
        }
        self.lines.iter().filter_map(Line::next_deadline).min()
    }
}

/// Whether nobody on another machine can come there.
fn is_inward(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
    }
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use ReachMethod::{Local, NatPmp, Pcp, Stun, Upnp};
    use proptest::prelude::*;

    const NOW: u64 = 1_700_000_000;

    /// A machine, its time, and what it asks at the moment.
    struct Scene {
        reach: Reach,
        rng: Rng,
        now: Now,
        asked: Vec<(AskId, ReachRequest)>,
    }

    fn everything() -> ReachConfig {
        let stun_servers = vec!["192.0.2.9:3478".parse().unwrap(), "a.example:3478".parse().unwrap()];
        ReachConfig { look: true, map: true, upnp: true, stun_servers }
    }

    fn scene(config: ReachConfig, stated: &[&str], listening: &[&str]) -> Scene {
        let stated = stated.iter().map(|text| text.parse().unwrap()).collect();
        let mut scene = Scene {
            reach: Reach::new(config, stated),
            rng: Rng::from_number(1),
            now: Now::new(0, NOW),
            asked: Vec::new(),
        };
        let listening: Vec<SocketAddr> = listening.iter().map(|text| text.parse().unwrap()).collect();
        scene.reach.on_listening(&listening, scene.now, &mut scene.rng);
        scene.poll();
        scene
    }

    fn method(request: &ReachRequest) -> ReachMethod {
        match request {
            ReachRequest::Local { .. } => Local,
            ReachRequest::Map { by, .. } => *by,
            ReachRequest::Observe { .. } => Stun,
        }
    }

    impl Scene {
        fn poll(&mut self) {
            while let Some(asked) = self.reach.next(self.now, &mut self.rng) {
                self.asked.push(asked);
            }
        }

        fn methods(&self) -> Vec<ReachMethod> {
            self.asked.iter().map(|(_, request)| method(request)).collect()
        }

        /// Answers the oldest question.
        fn answer(&mut self, answer: Result<(&str, u32), &str>) -> ReachRequest {
            let (id, request) = self.asked.remove(0);
            let answer = answer
                .map(|(address, seconds)| ReachReply { address: address.parse().unwrap(), seconds })
                .map_err(str::to_owned);
            self.reach.on_answer(id, answer, self.now);
            self.poll();
            request
        }

        fn fail(&mut self) -> ReachMethod {
            method(&self.answer(Err("no")))
        }

        fn fail_times(&mut self, times: usize) -> Vec<ReachMethod> {
            (0..times).map(|_| self.fail()).collect()
        }

        /// To the next deadline, which is so many seconds away.
        fn wait(&mut self) -> u64 {
            let due = self.reach.next_deadline().expect("something is due");
            let seconds = due.since(self.now.at).as_secs();
            self.now = Now { at: due, unix: self.now.unix + seconds };
            self.poll();
            seconds
        }

        fn own(&self) -> Vec<String> {
            self.reach.own().iter().map(ToString::to_string).collect()
        }
    }

    #[test]
    fn all_ways_are_tried_in_order_and_again_after_longer_and_longer() {
        let mut scene = scene(everything(), &[], &["0.0.0.0:8333"]);
        for wait in [60, 120, 240, 480, 960, 1_920, 3_600, 3_600] {
            assert_eq!(scene.fail_times(6), [Local, Pcp, NatPmp, Upnp, Stun, Stun]);
            let trouble = scene.reach.status().trouble.unwrap();
            assert!(trouble.starts_with("PCP: no; NAT-PMP: no; UPnP: no; STUN with 192.0.2.9:3478: no"));
            assert_eq!(scene.own(), [""; 0]);
            assert_eq!(scene.wait(), wait);
        }
    }

    #[test]
    fn a_mapping_is_renewed_by_its_way_after_half_of_its_time_and_replaced_when_that_fails() {
        let mut scene = scene(everything(), &[], &["0.0.0.0:8333"]);
        scene.fail();
        scene.fail();
        scene.answer(Ok(("88.1.2.3:9000", 3_600)));
        assert_eq!(scene.own(), ["88.1.2.3:9000"]);
        let status = scene.reach.status();
        assert_eq!((status.asking, status.trouble), (None, None));
        assert_eq!((status.addresses[0].by, status.addresses[0].until), (NatPmp, Some(NOW + 3_600)));
        assert_eq!(scene.wait(), 1_800);
        assert_eq!(scene.methods(), [NatPmp], "the way that has worked");
        // The outer address has changed.
        let ReachRequest::Map { external, seconds, .. } = scene.answer(Ok(("88.1.2.4:9000", 7_200))) else {
            panic!()
        };
        assert_eq!((external, seconds), (Some("88.1.2.3:9000".parse().unwrap()), 7_200));
        assert!(scene.reach.take_news());
        assert_eq!(scene.own(), ["88.1.2.4:9000"]);
        assert_eq!(scene.wait(), 3_600);
        assert_eq!(scene.fail_times(6), [NatPmp, Local, Pcp, Upnp, Stun, Stun]);
        assert_eq!(scene.own(), ["88.1.2.4:9000"], "it counts until its time is over");
        assert!(scene.reach.status().trouble.is_some());
        assert_eq!(scene.wait(), 60);
        assert_eq!((scene.fail(), scene.fail()), (NatPmp, Local));
        scene.answer(Ok(("88.1.2.4:9001", 7_200)));
        assert_eq!(scene.reach.status().addresses[0].by, Pcp);
    }

    #[test]
    fn what_is_not_renewed_is_forgotten_when_its_time_is_over() {
        let mut scene =
            scene(ReachConfig { look: true, map: true, ..ReachConfig::default() }, &[], &["0.0.0.0:1"]);
        scene.fail();
        scene.answer(Ok(("88.1.2.3:1", 7_200)));
        let begun = scene.now.at;
        while scene.own() == ["88.1.2.3:1"] {
            scene.wait();
            while !scene.asked.is_empty() {
                scene.fail();
            }
        }
        assert_eq!(scene.now.at.since(begun), REACH_LIFETIME);
    }

    #[test]
    fn nonces_stay_and_transactions_change() {
        let mut scene = scene(everything(), &[], &["0.0.0.0:8333"]);
        let (mut nonces, mut transactions) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            for _ in 0..6 {
                match scene.answer(Err("no")) {
                    ReachRequest::Map { nonce, .. } => nonces.push(nonce),
                    ReachRequest::Observe { transaction, .. } => transactions.push(transaction),
                    ReachRequest::Local { .. } => {}
                }
            }
            scene.wait();
        }
        nonces.dedup();
        transactions.sort_unstable();
        transactions.dedup();
        assert_eq!((nonces.len(), transactions.len()), (1, 4));
    }

    #[test]
    fn lies_and_mistakes_of_gateways_are_not_believed() {
        let mut scene = scene(everything(), &[], &["0.0.0.0:8333"]);
        scene.answer(Ok(("192.168.1.5:8333", 0)));
        // Behind another gateway; for no time; no port; another family; nowhere.
        scene.answer(Ok(("10.0.0.2:8333", 7_200)));
        scene.answer(Ok(("88.1.2.3:8333", 119)));
        scene.answer(Ok(("88.1.2.3:0", 7_200)));
        scene.answer(Ok(("[2a00::1]:8333", 0)));
        scene.answer(Ok(("0.0.0.0:8333", 0)));
        assert_eq!(scene.own(), [""; 0]);
        let trouble = scene.reach.status().trouble.unwrap();
        for why in ["10.0.0.2:8333 cannot be reached", "given for 119 s only", "another family"] {
            assert!(trouble.contains(why), "{trouble}");
        }
        // A mapping for ever is believed for as long as we asked.
        scene.wait();
        scene.fail();
        scene.answer(Ok(("88.1.2.3:8333", u32::MAX)));
        assert_eq!(scene.reach.status().addresses[0].until, Some(scene.now.unix + 7_200));
    }

    #[test]
    fn a_machine_with_an_address_of_the_internet_asks_nobody() {
        let mut scene = scene(everything(), &[], &["127.0.0.1:1", "0.0.0.0:8333", "0.0.0.0:9"]);
        scene.answer(Ok(("88.1.2.3:8333", 0)));
        assert_eq!(scene.own(), ["88.1.2.3:8333"]);
        assert_eq!(scene.methods(), []);
        assert_eq!(scene.wait(), 3_600);
        assert_eq!(scene.methods(), [Local], "it may change");
    }

    #[test]
    fn with_ipv6_the_gateway_is_asked_first_and_our_own_address_counts_without_it() {
        let mut scene = scene(everything(), &[], &["[::1]:1", "[::]:8333"]);
        assert_eq!(scene.fail(), Pcp);
        assert_eq!(method(&scene.answer(Ok(("[2a00::5]:1", 0)))), Local);
        assert_eq!(scene.own(), ["[2a00::5]:8333"]);
    }

    /// What a server sees has the port of a socket that nobody listens on.
    #[test]
    fn what_a_server_sees_counts_with_our_port_and_displaces_no_mapping_of_the_same_address() {
        let mut scene = scene(everything(), &[], &["0.0.0.0:8333"]);
        scene.fail_times(4);
        scene.answer(Ok(("88.1.2.3:40000", 0)));
        assert_eq!((scene.own(), scene.methods()), (vec!["88.1.2.3:8333".to_owned()], vec![]));
        assert_eq!(scene.wait(), 60, "a mapping would be better");
        scene.fail();
        scene.answer(Ok(("88.1.2.3:9000", 7_200)));
        assert_eq!((scene.own(), scene.wait()), (vec!["88.1.2.3:9000".to_owned()], 3_600));
        scene.fail_times(4);
        scene.answer(Ok(("88.1.2.3:40000", 0)));
        assert_eq!(scene.own(), ["88.1.2.3:9000"]);
        assert_eq!(scene.wait(), 60);
        scene.fail_times(4);
        scene.answer(Ok(("88.1.2.9:40000", 0)));
        assert_eq!(scene.own(), ["88.1.2.9:8333"], "the gateway has another address now");
    }

    #[test]
    fn a_stated_address_always_counts_and_no_other_of_its_network_is_looked_for() {
        let mut scene = scene(everything(), &["88.7.7.7:8333"], &["0.0.0.0:8333", "[::]:8333"]);
        assert_eq!(scene.methods(), [Pcp, Pcp]);
        assert_eq!((scene.fail(), scene.fail(), scene.fail(), scene.fail()), (Pcp, Pcp, NatPmp, Local));
        scene.answer(Ok(("88.1.2.3:9000", 7_200)));
        assert_eq!(scene.own(), ["88.7.7.7:8333", "88.1.2.3:9000"]);
        scene.reach.stop();
        scene.poll();
        assert_eq!(scene.own(), ["88.7.7.7:8333"]);
    }

    #[test]
    fn who_listens_for_this_machine_only_or_is_told_not_to_look_asks_nothing() {
        let quiet = ReachConfig { look: false, ..everything() };
        for (config, listening) in [
            (everything(), &["127.0.0.1:8333", "[::1]:8333", "[fe80::1]:1"][..]),
            (everything(), &[]),
            (quiet, &["0.0.0.0:8333"]),
        ] {
            let scene = scene(config, &["a.example:1"], listening);
            assert_eq!((scene.methods(), scene.reach.next_deadline()), (vec![], None));
            assert_eq!(scene.own(), ["a.example:1"]);
        }
        let look = ReachConfig { look: true, ..ReachConfig::default() };
        let scene = scene(look, &["88.7.7.7:8333"], &["0.0.0.0:8333"]);
        assert_eq!(scene.reach.next_deadline(), None, "there is nothing to ask");
    }

    #[test]
    fn mappings_are_taken_back_once_at_the_end() {
        let mut scene = scene(everything(), &[], &["0.0.0.0:8333", "[::]:8333"]);
        scene.fail();
        scene.answer(Ok(("[2a00::5]:8333", 7_200)));
        scene.answer(Ok(("88.1.2.3:9000", 7_200)));
        scene.asked.clear();
        scene.reach.stop();
        scene.poll();
        let back: Vec<_> = scene.asked.iter().map(|(_, request)| request.clone()).collect();
        let is_end = |request: &ReachRequest, outer: &str| {
            let outer = outer.parse().unwrap();
            matches!(request, ReachRequest::Map { by: Pcp, external: Some(external), seconds: 0, .. } if *external == outer)
        };
        assert!(
            back.len() == 2 && is_end(&back[0], "88.1.2.3:9000") && is_end(&back[1], "[2a00::5]:8333"),
            "{back:?}"
        );
        scene.answer(Err("too late"));
        scene.asked.clear();
        scene.poll();
        assert_eq!((scene.methods(), scene.reach.next_deadline()), (vec![], None));
    }

    proptest! {
        /// Whatever is answered and however late, questions go on, one for each family, never without an end, and nothing
        /// is told that is no address of the Internet.
        #[test]
        fn it_goes_on_whatever_is_answered(
            answers in proptest::collection::vec((any::<Option<(u32, u16, u32)>>(), 0u64..10_000), 1..80),
        ) {
            let mut scene = scene(everything(), &[], &["0.0.0.0:8333", "[::]:8333"]);
            for (answer, wait) in answers {
                prop_assert!(scene.asked.len() <= 2);
                if scene.asked.is_empty() {
                    prop_assert!(scene.wait() <= REACH_LIFETIME.as_secs());
                    continue;
                }
                scene.now = Now { at: scene.now.at + Duration::from_secs(wait), unix: scene.now.unix + wait };
                let address = answer.map(|(ip, port, seconds)| {
                    (SocketAddr::new(std::net::Ipv4Addr::from(ip).into(), port).to_string(), seconds)
                });
                match &address {
                    Some((address, seconds)) => scene.answer(Ok((address, *seconds))),
                    None => scene.answer(Err("no")),
                };
                for own in scene.reach.own() {
                    prop_assert!(is_routable(&own), "{own}");
                }
            }
        }
    }
}
