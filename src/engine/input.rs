//! What happens to an engine.

use super::Arrival;
use crate::chain::command::{BlockRef, ChainReport};
use crate::peer::{Fault, PeerAddress, PeerId};
use crate::relay::reach::{AskId, ReachReply};
use crate::sync::diagnosis::Figures;
use crate::wire::Message;
use bitcoin::BlockHash;
use std::net::SocketAddr;

/// Something that happened outside.
#[derive(Debug)]
#[non_exhaustive]
pub enum Input {
    /// A deadline passed; also harmless at any other time.
    Timer,
    /// The dial of this peer succeeded.
    Connected(PeerId),
    /// The connection is encrypted (BIP324); its session.
    Encrypted(PeerId, [u8; 32]),
    /// The node listens on these addresses, with the ports that they really have. Given at most once.
    Listening(Vec<SocketAddr>),
    /// The answer to an `Ask`, or why there is none; the text is for people.
    Answered(AskId, Result<ReachReply, String>),
    /// Somebody has opened a connection from this address; answered by `Accept` or `Refuse`.
    Arrived(Arrival, PeerAddress),
    /// The dial of this peer failed; the text is for people.
    DialFailed(PeerId, String),
    /// A message came, `bytes` long on the wire with its header.
    Received(PeerId, Message, usize),
    /// Bytes arrived that belong to a message that is not complete yet (the count of all bytes so far of
    /// the connection). Shows that a slow peer is alive.
    Progress(PeerId, u64),
    /// The peer's bytes were not the protocol's; the driver stopped reading.
    Faulted(PeerId, Fault),
    /// The connection ended from the other side or by an error.
    Closed(PeerId),
    /// The peer does not read what it is sent; its connection was given up.
    Unread(PeerId),
    /// This many bytes of what was sent to the peer left our queue.
    Flushed(PeerId, usize),
    /// Announcements to this peer could not leave in time and were dropped.
    Untold(PeerId),
    /// A DNS seed answered (empty if it failed).
    Resolved(String, Vec<SocketAddr>),
    /// Addresses that the host knows of; names are left out.
    AddAddresses(Vec<PeerAddress>),
    /// The host wants a connection to this address kept up.
    AddPeer(PeerAddress),
    /// The host wants this connection ended.
    RemovePeer(PeerId),
    /// The chainstate reports.
    Chain(ChainReport),
    /// The answer to `Measure`.
    Measured(Figures),
    /// The host asks.
    Query(QueryId, Query),
    /// The host wants the block and its descendants treated as invalid.
    Invalidate(BlockHash),
    /// Takes the invalidity of the block, its ancestors and descendants back.
    Reconsider(BlockHash),
    /// The host wants no more blocks fetched for now. Those that are under way connect and are committed; connections,
    /// headers and addresses are kept up.
    Pause,
    /// The host wants blocks again.
    Resume,
    /// The host wants to stop: peers are closed, a last commit is made.
    Shutdown,
}

/// A question's number, chosen by the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueryId(pub u64);

/// What a host may ask the engine. Questions about coins and bodies go to the chainstate.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Query {
    /// The header with this hash.
    HeaderByHash(BlockHash),
    /// The header of the active chain at this height.
    HeaderByHeight(u32),
    /// The connected peers.
    Peers,
    /// What was done about what bounds the sync.
    Actions,
    /// The last connections that have ended, and why.
    EndedPeers,
    /// The last bans and replacements.
    Audit,
    /// How many addresses of each network are known.
    Addresses,
    /// Events after a cursor (the last block the consumer applied; `None`: from before genesis), at most
    /// so many. Answered at once, with no events if there are none.
    Events(Option<BlockRef>, usize),
}
