//! Where the sync stands, as a value.

use super::allowance::AllowanceStatus;
use crate::chain::command::BlockRef;
use crate::peer::{PeerAddress, PeerId};
use crate::relay::reach::Reachability;
use crate::sync::diagnosis::Diagnosis;
use crate::time::Timestamp;

/// What the node is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// No peer yet.
    Connecting,
    /// Fetching headers.
    Headers,
    /// Fetching and connecting blocks.
    Blocks,
    /// At the tip of the best known chain.
    Synced,
    /// Stopping.
    Stopping,
}

/// What the next block to connect waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker {
    /// Its height.
    pub height: u32,
    /// Since when.
    pub since: Timestamp,
    /// What.
    pub waits_for: WaitsFor,
}

/// See [`Blocker`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitsFor {
    /// It is asked of this peer.
    Peer(PeerId, PeerAddress),
    /// No peer that may have it can be asked.
    AnyPeer,
    /// It is there: the chainstate is to connect it.
    Checks,
}

/// The latest state. `tip` may run ahead of `durable`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Status {
    /// What the node is doing.
    pub stage: Stage,
    /// The proved tip.
    pub tip: BlockRef,
    /// The durable tip: what survives a kill at this moment.
    pub durable: BlockRef,
    /// The best header.
    pub best_header: BlockRef,
    /// Ready peers.
    pub peers: usize,
    /// Blocks asked for and not yet delivered.
    pub in_flight: usize,
    /// No blocks are fetched at present: the host wants it, or the day's bytes are used up.
    pub paused: bool,
    /// Blocks connected since the start.
    pub blocks: u64,
    /// Inputs checked since the start (coinbases not counted).
    pub inputs: u64,
    /// Bytes received from all peers since the start.
    pub bytes_in: u64,
    /// Headers accepted since the start.
    pub headers: u64,
    /// Blocks of the active chain below this height, or what undoes them, may be pruned; 0 if none was.
    pub pruned_below: u32,
    /// Bytes of the files of blocks and undo data, as of the last commit or deletion.
    pub block_bytes: u64,
    /// Why nothing goes on, for people: the last dial, handshake or look-up that failed while there is no ready
    /// peer, or a damaged block that a reorg waits for and no peer has. `None` otherwise.
    pub trouble: Option<String>,
    /// What the next block to connect waits for, while blocks are synced.
    pub blocker: Option<Blocker>,
    /// What bounds the sync of blocks, as of the last interval.
    pub diagnosis: Option<Diagnosis>,
    /// The bytes of the day, if they are limited.
    pub allowance: Option<AllowanceStatus>,
    /// How we are reached from outside.
    pub reach: Reachability,
}
