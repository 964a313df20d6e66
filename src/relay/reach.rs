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
