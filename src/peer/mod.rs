//! One peer: its handshake, its life, its pings; and the words that the machines share.
//!
//! A machine is called with a [`Cx`] and puts what it wants done there: *effects* for the outside, *facts*
//! for machines of a later rank, *demands* for what goes against the rank. It never calls another machine.

pub mod book;
pub mod dial;
pub mod handshake;
pub mod lifecycle;
pub mod ping;
pub mod timers;

use crate::chain::block_tree::HeaderId;
use crate::chain::command::ChainCommand;
use crate::rng::Rng;
use crate::time::Now;
use crate::wire::Message;
use bitcoin::p2p::ServiceFlags;
use core::fmt;
use std::net::{Ipv4Addr, SocketAddr};

/// A connection's number, never used twice by one engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u64);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Where a peer is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum PeerAddress {
    /// An IP address and port.
    Ip(SocketAddr),
    /// A name and port, resolved when dialled.
    Name(String, u16),
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(addr) => addr.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

/// The text is not `IP:PORT`, `[IPV6]:PORT` or `NAME:PORT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address of the form HOST:PORT")]
pub struct AddressParseError;

impl core::str::FromStr for PeerAddress {
    type Err = AddressParseError;

    fn from_str(text: &str) -> Result<Self, AddressParseError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self::Ip(address));
        }
        let (name, port) = text.rsplit_once(':').ok_or(AddressParseError)?;
        // A name of DNS has at most 253 characters (RFC 1035).
        let is_name = !name.is_empty()
            && name.len() <= 253
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        if !is_name || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(AddressParseError);
        }
        let port = port.parse().map_err(|_| AddressParseError)?;
        // However it was written, an IP address is none of the names.
        let ip = name.parse::<Ipv4Addr>().map(|ip| Self::Ip((ip, port).into()));
        Ok(ip.unwrap_or_else(|_| Self::Name(name.to_owned(), port)))
    }
}

impl From<SocketAddr> for PeerAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

/// A rule that a peer provably broke. The connection ends and its address is discouraged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The bytes are not the protocol's.
    #[error("{0}")]
    Wire(#[from] crate::wire::frame::FrameError),
    /// A message of the handshake at the wrong time.
    #[error("handshake: {0}")]
    Handshake(&'static str),
    /// A header that breaks a rule which its sender could check.
    #[error("header {hash}: {reason}")]
    Header {
        /// The header's hash.
        hash: bitcoin::BlockHash,
        /// Core's word.
        reason: &'static str,
    },
    /// A headers message that is not a chain.
    #[error("headers do not connect to each other")]
    NonContinuousHeaders,
    /// A block that breaks a rule.
    #[error("block {hash}: {reason}")]
    Block {
        /// The block's hash.
        hash: bitcoin::BlockHash,
        /// Core's word.
        reason: &'static str,
    },
    /// A message longer than the protocol allows.
    #[error("oversized {0}")]
    Oversized(&'static str),
}

/// Why we end a connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer broke a rule.
    #[error("misbehaviour: {0}")]
    Fault(Fault),
    /// The peer follows the rules but is of no use to us (services, version, another chain).
    #[error("unsuitable: {0}")]
    Unsuitable(&'static str),
    /// No answer in time.
    #[error("timed out: {0}")]
    Timeout(&'static str),
    /// It holds up the sync; others are faster.
    #[error("stalled the download")]
    Stalled,
    /// We connected to ourselves.
    #[error("connected to self")]
    Ourselves,
    /// The connection was closed or reset by the other side.
    #[error("closed by the peer")]
    Remote,
    /// The host asked for it.
    #[error("asked for by the host")]
    Host,
    /// The node stops.
    #[error("shutting down")]
    Shutdown,
}

/// What other machines may know of a peer.
#[derive(Clone, Debug)]
pub struct PeerView {
    /// Its number.
    pub id: PeerId,
    /// Where it is.
    pub address: PeerAddress,
    /// Whether the handshake is complete.
    pub ready: bool,
    /// Whether the host added it by hand; such a peer is never dropped for slowness.
    pub manual: bool,
    /// What it offers.
    pub services: ServiceFlags,
    /// The height it stated.
    pub start_height: u32,
    /// The best header known to be in its chain.
    pub best_known: Option<HeaderId>,
}

impl PeerView {
    /// Whether it serves all blocks with witnesses.
    pub fn serves_history(&self) -> bool {
        self.services.has(ServiceFlags::NETWORK | ServiceFlags::WITNESS)
    }

    /// Whether it serves at least the last 288 blocks with witnesses (BIP159).
    pub fn serves_recent(&self) -> bool {
        self.serves_history() || self.services.has(ServiceFlags::NETWORK_LIMITED | ServiceFlags::WITNESS)
    }
}

/// What a machine wants done outside.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send a message.
    Send(PeerId, Message),
    /// Ask the chainstate for something.
    Command(ChainCommand),
}

/// What a machine found out, for machines of a later rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A handshake is complete.
    PeerReady(PeerId),
    /// A connection ended.
    PeerGone(PeerId),
    /// The tree has new headers, or the best header changed.
    HeadersAdvanced,
    /// A peer has this header, and so all before it.
    PeerHas(PeerId, HeaderId),
    /// The set of bodies or their validity changed: the best chain may be another.
    CandidatesChanged,
    /// The proved tip changed.
    TipChanged(HeaderId),
}

/// What a machine needs from one of an earlier rank; applied at the start of the next pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Demand {
    /// End a connection; a [`CloseReason::Fault`] also discourages the address.
    Close(PeerId, CloseReason),
    /// Ask this peer for headers (an unknown block was announced or delivered).
    FetchHeaders(PeerId),
}

/// What a machine may use while it handles an event.
#[derive(Debug)]
pub struct Cx<'a> {
    /// When it happens.
    pub now: Now,
    /// Randomness.
    pub rng: &'a mut Rng,
    /// What it wants.
    pub out: &'a mut Wishes,
}

/// What machines put in their [`Cx`], in order.
#[derive(Debug, Default)]
pub struct Wishes {
    /// For the outside.
    pub effects: Vec<Effect>,
    /// For later machines.
    pub facts: Vec<Fact>,
    /// For earlier machines.
    pub demands: Vec<Demand>,
}

impl Cx<'_> {
    /// Sends a message.
    pub fn send(&mut self, peer: PeerId, message: Message) {
        self.out.effects.push(Effect::Send(peer, message));
    }

    /// Asks the chainstate.
    pub fn command(&mut self, command: ChainCommand) {
        self.out.effects.push(Effect::Command(command));
    }

    /// States a fact.
    pub fn fact(&mut self, fact: Fact) {
        self.out.facts.push(fact);
    }

    /// Ends a connection.
    pub fn close(&mut self, peer: PeerId, reason: CloseReason) {
        self.out.demands.push(Demand::Close(peer, reason));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bug, found by the fuzzer: `127.0.0.1:+8` was a name, which was written as `127.0.0.1:8` and then read as an
    /// IP address.
    #[test]
    fn what_is_an_address_is_written_as_one_and_read_as_the_same() {
        for text in
            ["127.0.0.1:8", "[::1]:8333", "seed.example:8333", "1.2.3:8", "127.0.0.1:08", "a:00065535"]
        {
            let address: PeerAddress = text.parse().unwrap();
            assert_eq!(address.to_string().parse(), Ok(address), "{text}");
        }
        for text in ["127.0.0.1:+8", "seed.example:+8", "a:", ":8", "a:65536", "a:-1", "a b:1", "::1"] {
            assert_eq!(text.parse::<PeerAddress>(), Err(AddressParseError), "{text}");
        }
    }
}
