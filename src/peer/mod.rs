//! One peer: its handshake, its life, its pings; and the words that the machines share.
//!
//! A machine is called with a [`Cx`] and puts what it wants done there: *effects* for the outside, *facts*
//! for machines of a later rank, *demands* for what goes against the rank. It never calls another machine.

pub mod address;
pub mod audit;
pub mod backoff;
pub mod book;
pub mod dial;
pub mod eviction;
pub mod ftrl;
mod group;
pub mod handshake;
pub mod lifecycle;
pub mod ping;
pub mod score;
mod source_url;
pub mod timers;

use crate::chain::block_tree::HeaderId;
use crate::chain::command::ChainCommand;
use crate::rng::Rng;
use crate::time::Now;
use crate::wire::Message;
use bitcoin::p2p::ServiceFlags;
use core::fmt;

pub use address::{AddressNetwork, AddressParseError, PeerAddress};
pub use source_url::SourceUrl;

/// A connection's number, never used twice by one engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u64);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ConnectionKind {
    /// The host wants it kept up; it is never dropped for slowness.
    Manual,
    /// The REST interface of a node, which the host named: headers and blocks over HTTP. Kept up like [`Self::Manual`].
    Source,
    /// Of our own accord, for everything.
    FullRelay,
    /// Of our own accord, for blocks; no addresses are exchanged, so that gossip does not show it.
    BlockRelayOnly,
    /// To see whether somebody is there; it ends with the handshake.
    Feeler,
    /// To ask a seed for addresses over a proxy; it ends with the answer.
    AddrFetch,
    /// The other side opened it.
    Inbound,
}

impl ConnectionKind {
    /// Whether the host named it and wants it kept up.
    pub const fn is_manual(self) -> bool {
        matches!(self, Self::Manual | Self::Source)
    }

    /// Whether we chose it, and may choose another instead.
    pub const fn is_our_choice(self) -> bool {
        matches!(self, Self::FullRelay | Self::BlockRelayOnly)
    }

    /// Whether addresses are exchanged.
    pub const fn gossips(self) -> bool {
        matches!(self, Self::Manual | Self::FullRelay | Self::AddrFetch | Self::Inbound)
    }
}

impl fmt::Display for ConnectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manual => "manual",
            Self::Source => "http source",
            Self::FullRelay => "full",
            Self::BlockRelayOnly => "blocks only",
            Self::Feeler => "feeler",
            Self::AddrFetch => "address fetch",
            Self::Inbound => "inbound",
        })
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
    /// An answer of an HTTP source that is not what was asked for, or not HTTP.
    #[error("over HTTP: {0}")]
    Http(&'static str),
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
    /// It has not come to our chain in time.
    #[error("has no chain as good as ours")]
    Behind,
    /// It was the least useful of one peer too many.
    #[error("another peer took its place")]
    Replaced,
    /// It is there, which is all that we wanted to know.
    #[error("only looked whether it is there")]
    Probed,
    /// It made room for another that came to us.
    #[error("made room for another peer")]
    Evicted,
    /// It asks for more than we give.
    #[error("{0}")]
    Greedy(&'static str),
    /// It does not read what it is sent ([`crate::limits::MAX_UNSENT_BYTES`] and its neighbours).
    #[error("does not read what it is sent")]
    Unread,
    /// Its score was low for long, and another can take its place.
    #[error("scored low; another peer takes its place")]
    LowScore,
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
    /// What the connection is for.
    pub kind: ConnectionKind,
    /// What it offers.
    pub services: ServiceFlags,
    /// The height it stated.
    pub start_height: u32,
    /// The best header known to be in its chain.
    pub best_known: Option<HeaderId>,
}

impl PeerView {
    /// Whether the host wants it kept up.
    pub fn is_manual(&self) -> bool {
        self.kind.is_manual()
    }

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
    /// Send what nobody asked for, if it can leave soon.
    Tell(PeerId, Message),
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

    /// Sends what nobody asked for, if it can leave soon.
    pub fn tell(&mut self, peer: PeerId, message: Message) {
        self.out.effects.push(Effect::Tell(peer, message));
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
