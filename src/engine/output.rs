//! What an engine wants done.

use super::{Arrival, QueryId};
use crate::chain::command::{BlockRef, ChainCommand};
use crate::peer::audit::AuditRecord;
use crate::peer::book::Census;
use crate::peer::lifecycle::{PeerEvent, PeerState};
use crate::peer::score::PeerScore;
use crate::peer::{CloseReason, ConnectionKind, PeerAddress, PeerId};
use crate::relay::rate::PeerTraffic;
use crate::relay::reach::{AskId, ReachRequest};
use crate::sync::tuning::Action;
use crate::time::Timestamp;
use crate::wire::Message;
use bitcoin::block::Header;
use bitcoin::p2p::ServiceFlags;

/// Something to do, in the order given.
#[derive(Debug)]
#[non_exhaustive]
pub enum Output {
    /// Open a connection; answer `Connected` or `DialFailed`. `encrypted`: try to (BIP324), and tell by `Encrypted`
    /// if it is.
    Dial {
        /// The connection's number.
        peer: PeerId,
        /// Where.
        address: PeerAddress,
        /// Whether the peer is likely to understand.
        encrypted: bool,
    },
    /// The connection that has arrived is this peer's.
    Accept(Arrival, PeerId),
    /// End the connection that has arrived.
    Refuse(Arrival),
    /// Queue a message to a peer.
    Send(PeerId, Message),
    /// Queue news that nobody asked for: it may be dropped if it can't leave soon. If it was an announcement, `Untold`
    /// tells.
    Tell(PeerId, Message),
    /// Send what is queued, then close. No `Closed` is expected.
    Close(PeerId, CloseReason),
    /// Look up a DNS seed; answer `Resolved`.
    Resolve(String, u16),
    /// Ask what stands between this machine and the Internet; answer `Answered`, also where nobody can be asked.
    Ask(AskId, ReachRequest),
    /// Hand a command to the chainstate.
    Command(ChainCommand),
    /// Keep these bytes for the next run, atomically: an [`AddressBook`](crate::peer::book::AddressBook).
    SaveAddresses(Vec<u8>),
    /// Keep these bytes for the next run, atomically: what [`Scores`](crate::peer::score::Scores) have learnt.
    SaveScores(Vec<u8>),
    /// Keep this for the next run, atomically: what was used of the day's bytes. Given only where they are limited.
    SaveUsedDay(super::allowance::UsedDay),
    /// Add this to the audit log.
    Audit(Box<AuditRecord>),
    /// Answer a question.
    Answer(QueryId, Answer),
    /// A peer's state changed.
    PeerChanged(PeerChange),
    /// Tell what the chainstate did since the start, by `Measured`.
    Measure,
    /// The durable chain changed: consumers of events have something to fetch.
    EventsReady,
    /// The height to stop at is durable: the active block there. Given once.
    Reached(BlockRef),
    /// The status changed.
    Status(Box<crate::engine::status::Status>),
    /// Everything after `Shutdown` is done: the durable tip.
    Stopped(BlockRef),
    /// The engine cannot go on.
    Fatal(crate::error::Error),
    /// Nothing to do until then (or until an input).
    Idle {
        /// When to call with `Input::Timer`; `None`: never.
        deadline: Option<Timestamp>,
    },
}

/// A change of the durable active chain. Each `Apply` has its parent applied before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The block extends the active chain.
    Apply(BlockRef, Header),
    /// The block, which was the tip, is no longer part of the active chain.
    Undo(BlockRef, Header),
}

/// The answer to a `Query`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Answer {
    /// To `HeaderByHash` and `HeaderByHeight`: the header, its place, whether it is in the active chain,
    /// and the active tip for which this is true.
    Header {
        /// The header, if known.
        header: Option<(BlockRef, Header, bool)>,
        /// The active, proved tip.
        tip: BlockRef,
    },
    /// To `Peers`.
    Peers(Vec<PeerStatus>),
    /// To `Actions`, the latest last.
    Actions(Vec<Action>),
    /// To `EndedPeers`, the latest last.
    EndedPeers(Vec<EndedPeer>),
    /// To `Audit`, the latest last.
    Audit(Vec<AuditRecord>),
    /// To `Addresses`.
    Addresses(Vec<Census>),
    /// To `Events`.
    Events(Vec<Event>),
    /// The cursor of `Events` is not a block that is known.
    UnknownCursor,
    /// The first block to apply after the cursor of `Events` lies below this height, where blocks are pruned.
    PrunedCursor(u32),
}

/// A peer as the host sees it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PeerStatus {
    /// Number of the connection.
    pub id: PeerId,
    /// Address.
    pub address: PeerAddress,
    /// What the connection is for.
    pub kind: ConnectionKind,
    /// The session of an encrypted connection (BIP324): both sides have the same if nobody stands between. `None`:
    /// not encrypted.
    pub session: Option<[u8; 32]>,
    /// State in the transition table.
    pub state: PeerState,
    /// User agent; empty before the handshake. Untrusted text.
    pub user_agent: String,
    /// Services offered.
    pub services: ServiceFlags,
    /// Height stated in its version message.
    pub start_height: u32,
    /// The best block it is known to have.
    pub best_known: Option<BlockRef>,
    /// Last round trip, in milliseconds.
    pub ping_millis: Option<u64>,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Blocks asked for and not yet delivered.
    pub in_flight: usize,
    /// Download speed of blocks, in bytes a second, as last measured.
    pub bytes_per_second: u64,
    /// Rates, queues and drops of the connection. Known to the node, not to the engine alone.
    pub traffic: PeerTraffic,
    /// How useful it is for fetching blocks; `None` before the handshake, and of peers that serve no blocks.
    pub score: Option<PeerScore>,
}

/// A step of a peer through the [transition table](crate::peer::lifecycle::TRANSITIONS).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerChange {
    /// Number of the connection.
    pub id: PeerId,
    /// Address.
    pub address: PeerAddress,
    /// What the connection is for.
    pub kind: ConnectionKind,
    /// The state before.
    pub from: PeerState,
    /// What happened.
    pub event: PeerEvent,
    /// The state now.
    pub to: PeerState,
}

/// A connection that stood and has ended. Dials that failed are none.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndedPeer {
    /// Number of the connection.
    pub id: PeerId,
    /// Address.
    pub address: PeerAddress,
    /// Why it ended.
    pub reason: CloseReason,
    /// Whether the address is not dialled again because of it. Never so for an address of the host or on
    /// this machine.
    pub discouraged: bool,
}
