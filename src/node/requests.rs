//! What a host may ask a running node, as plain futures without deadlines.
//!
//! Questions about headers, peers and events go to the engine through the driver; questions about bodies
//! and coins go straight to the chainstate's thread. Both queues are bounded and every question carries the
//! place for its answer: when the node ends, the places are dropped and the questions end with
//! [`RequestError::Stopped`].

use super::status::{Meter, Status};
use super::traffic::Traffic;
use super::trust::Trust;
use super::wait::Watch;
use crate::chain::command::{BlockRef, RawBlock};
use crate::chainstate::{PipelineStatus, UtxoStats};
use crate::engine::output::{EndedPeer, Event, PeerStatus};
use crate::engine::status::Stage;
use crate::engine::{Answer, Query};
use crate::error::Error;
use crate::limits::EVENTS_PER_QUERY;
use crate::net::pool::Pool;
use crate::net::{BoxStream, Clock};
use crate::peer::audit::AuditRecord;
use crate::peer::book::Census;
use crate::peer::{PeerAddress, PeerId};
use crate::store::StoreError;
use crate::store::coin::Coin;
use crate::sync::diagnosis::Figures;
use crate::sync::tuning::Action;
use crate::time::{Now, Timestamp};
use crate::verify::Proof;
use bitcoin::block::Header;
use bitcoin::{BlockHash, OutPoint};
use core::time::Duration;
use crossbeam_channel::TrySendError;
use futures::channel::{mpsc, oneshot};
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The node has ended, or ended before it answered.
    #[error("the node has stopped")]
    Stopped,
    /// The deadline passed first. The node may be busy, or nobody runs it.
    #[error("no answer in time")]
    Timeout,
    /// Too many requests wait already ([`crate::limits::MAX_REQUESTS`]).
    #[error("too many requests are waiting")]
    Busy,
    /// The block is not known.
    #[error("block {0} is not known")]
    UnknownBlock(BlockHash),
    /// The cursor of an event stream is not a block that is known.
    #[error("the cursor is not a block that is known")]
    UnknownCursor,
    /// The block, or the first one after the cursor of an event stream, was stored and is pruned. From the block
    /// before `below` on, all blocks that follow are there: a consumer that stands lower can't be led up to it.
    #[error("pruned: blocks below height {below} are not kept")]
    Pruned {
        /// Blocks from this height on are kept.
        below: u32,
    },
    /// The store or a file failed.
    #[error("storage: {0}")]
    Storage(#[from] StoreError),
    /// The chainstate failed at this question for another reason.
    #[error("{0}")]
    Failed(Error),
}

/// An answer, and the active block that it is true for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At<T> {
    /// The answer.
    pub value: T,
    /// The tip for which it is true: the proved one, or the durable one where the method says so.
    pub tip: BlockRef,
    /// What the chain up to there rests on: [`Proof::AssumedValid`] if scripts of some of its blocks were
    /// skipped under `assumevalid`, in this run or an earlier one on the same data directory.
    pub trust: Proof,
}

/// A header that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeaderInfo {
    /// Its height in its own chain, and its hash.
    pub block: BlockRef,
    /// The header.
    pub header: Header,
    /// Whether it is in the active chain.
    pub active: bool,
}

/// A block whose body is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockInfo {
    /// Its height in its own chain, and its hash.
    pub block: BlockRef,
    /// Whether it is in the active chain.
    pub active: bool,
    /// The body as it was received.
    pub raw: RawBlock,
}

/// What the address book holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KnownAddresses {
    /// How many addresses of each network.
    pub networks: Vec<Census>,
    /// The file of the last run's book, if it was damaged and set aside when the node was built.
    pub set_aside: Option<PathBuf>,
}

/// A question for the driver.
#[derive(Debug)]
pub(crate) enum Request {
    Query(Query, oneshot::Sender<Answer>),
    AddPeer(PeerAddress, oneshot::Sender<()>),
    AddAddresses(Vec<PeerAddress>, oneshot::Sender<()>),
    RemovePeer(PeerId, oneshot::Sender<()>),
    Invalidate(BlockHash, oneshot::Sender<()>),
    Reconsider(BlockHash, oneshot::Sender<()>),
    Pause(oneshot::Sender<()>),
    Resume(oneshot::Sender<()>),
    Shutdown,
}

/// A body that was asked for.
#[derive(Debug)]
pub(crate) enum Body {
    Stored(RawBlock),
    Absent,
    /// Its file is deleted; from this height on all are kept.
    Pruned(u32),
}

/// Where an answer of the chainstate's thread goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// A question for the chainstate's thread.
#[derive(Debug)]
pub(crate) enum ChainRequest {
    Block(BlockHash, Reply<Body>),
    Coin(OutPoint, Reply<At<Option<Coin>>>),
    UtxoStats(Reply<At<UtxoStats>>),
}

/// The host's clocks as the machines see them: monotonic time counts from the building of the node.
#[derive(Clone, Debug)]
pub(crate) struct NodeClock {
    clock: Arc<dyn Clock>,
    origin: Duration,
}

impl NodeClock {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let origin = clock.monotonic();
        Self { clock, origin }
    }

    pub(crate) fn now(&self) -> Now {
        let since = self.clock.monotonic().saturating_sub(self.origin);
        let at = Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        Now { at, unix: self.clock.unix() }
    }
}

fn another_answer() -> RequestError {
    RequestError::Failed(Error::Bug("the engine answered another question"))
}

/// What node and handles share. Holds no thread and no file.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) engine: Mutex<mpsc::Sender<Request>>,
    pub(crate) chain: crossbeam_channel::Sender<ChainRequest>,
    /// The latest status.
    pub(crate) status: Arc<Watch<Meter>>,
    /// What the chainstate's thread last said of its pipeline.
    pub(crate) pipeline: Arc<Mutex<PipelineStatus>>,
    /// Threads of the pool that checks.
    pub(crate) threads: usize,
    /// What flows through the connections.
    pub(crate) traffic: Arc<Traffic>,
    /// The connections that the node opens.
    pub(crate) outgoing: Pool<PeerAddress, BoxStream>,
    /// Counts `EventsReady`.
    pub(crate) events: Arc<Watch<()>>,
    /// The durable tip, once the chainstate and its files are closed.
    pub(crate) ended: Arc<Watch<Option<BlockRef>>>,
    pub(crate) clock: NodeClock,
    pub(crate) trust: Trust,
    /// Where a damaged address book was set aside at the start.
    pub(crate) set_aside: Option<PathBuf>,
    /// Where the node listens.
    pub(crate) listening: Mutex<Vec<SocketAddr>>,
}

impl Shared {
    pub(crate) fn status(&self) -> Status {
        let (now, pipeline) = (self.clock.now().at, self.pipeline.lock().up_to_now());
        let connections = self.outgoing.counts();
        let status = self.status.read(|meter, version| meter.status(now, version, pipeline));
        Status { connections, traffic: self.traffic.status(now), ..status }
    }

    /// What the chainstate did, for the engine.
    pub(crate) fn figures(&self) -> Figures {
        let pipeline = self.pipeline.lock().up_to_now();
        Figures {
            reading: pipeline.wait_coins.total,
            writing: pipeline.wait_commit.total,
            longest_write: pipeline.wait_commit.longest,
            connecting: pipeline.connect.busy,
            proving: pipeline.wait_bodies.total + pipeline.wait_scripts.total,
            // Threads that look for coins wait for the store.
            pool: pipeline.check.busy + pipeline.scripts.busy,
            threads: self.threads,
        }
    }

    pub(crate) async fn status_changed(&self, seen: u64) -> Result<Status, RequestError> {
        self.status.newer_than(seen).await.ok_or(RequestError::Stopped)?;
        Ok(self.status())
    }

    pub(crate) fn tip(&self) -> Result<BlockRef, RequestError> {
        if self.status.is_closed() {
            return Err(RequestError::Stopped);
        }
        Ok(self.status.read(|meter, _| meter.latest().tip))
    }

    fn send(&self, request: Request) -> Result<(), RequestError> {
        self.engine.lock().try_send(request).map_err(|error| match error.is_full() {
            true => RequestError::Busy,
            false => RequestError::Stopped,
        })
    }

    /// Asks the engine.
    pub(crate) async fn query(&self, query: Query) -> Result<Answer, RequestError> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Query(query, reply))?;
        answer.await.map_err(|_| RequestError::Stopped)
    }

    /// Tells the engine something; ready once it has taken it.
    pub(crate) async fn tell(
        &self,
        request: impl FnOnce(oneshot::Sender<()>) -> Request,
    ) -> Result<(), RequestError> {
        let (reply, taken) = oneshot::channel();
        self.send(request(reply))?;
        taken.await.map_err(|_| RequestError::Stopped)
    }

    /// Asks the chainstate's thread.
    async fn ask_chain<T>(&self, request: impl FnOnce(Reply<T>) -> ChainRequest) -> Result<T, RequestError> {
        let (reply, answer) = oneshot::channel();
        self.chain.try_send(request(reply)).map_err(|error| match error {
            TrySendError::Full(_) => RequestError::Busy,
            TrySendError::Disconnected(_) => RequestError::Stopped,
        })?;
        match answer.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Error::Store(error))) => Err(RequestError::Storage(error)),
            Ok(Err(error)) => Err(RequestError::Failed(error)),
            Err(_) => Err(RequestError::Stopped),
        }
    }

    pub(crate) async fn header(&self, query: Query) -> Result<At<Option<HeaderInfo>>, RequestError> {
        match self.query(query).await? {
            Answer::Header { header, tip } => {
                let value = header.map(|(block, header, active)| HeaderInfo { block, header, active });
                Ok(At { value, tip, trust: self.trust.proof() })
            }
            _ => Err(another_answer()),
        }
    }

    pub(crate) async fn block(&self, query: Query) -> Result<At<Option<BlockInfo>>, RequestError> {
        let At { value, tip, trust } = self.header(query).await?;
        let Some(HeaderInfo { block, active, .. }) = value else { return Ok(At { value: None, tip, trust }) };
        let value = match self.ask_chain(|reply| ChainRequest::Block(block.hash, reply)).await? {
            Body::Stored(raw) => Some(BlockInfo { block, active, raw }),
            Body::Absent => None,
            Body::Pruned(below) => return Err(RequestError::Pruned { below }),
        };
        Ok(At { value, tip, trust })
    }

    pub(crate) async fn coin(&self, outpoint: OutPoint) -> Result<At<Option<Coin>>, RequestError> {
        self.ask_chain(|reply| ChainRequest::Coin(outpoint, reply)).await
    }

    pub(crate) async fn utxo_stats(&self) -> Result<At<UtxoStats>, RequestError> {
        self.ask_chain(ChainRequest::UtxoStats).await
    }

    pub(crate) async fn peers(&self) -> Result<Vec<PeerStatus>, RequestError> {
        match self.query(Query::Peers).await? {
            Answer::Peers(peers) => Ok(peers),
            _ => Err(another_answer()),
        }
    }

    pub(crate) async fn addresses(&self) -> Result<KnownAddresses, RequestError> {
        match self.query(Query::Addresses).await? {
            Answer::Addresses(networks) => Ok(KnownAddresses { networks, set_aside: self.set_aside.clone() }),
            _ => Err(another_answer()),
        }
    }

    pub(crate) async fn actions(&self) -> Result<Vec<Action>, RequestError> {
        match self.query(Query::Actions).await? {
            Answer::Actions(actions) => Ok(actions),
            _ => Err(another_answer()),
        }
    }

    pub(crate) async fn ended_peers(&self) -> Result<Vec<EndedPeer>, RequestError> {
        match self.query(Query::EndedPeers).await? {
            Answer::EndedPeers(peers) => Ok(peers),
            _ => Err(another_answer()),
        }
    }

    pub(crate) async fn audit(&self) -> Result<Vec<AuditRecord>, RequestError> {
        match self.query(Query::Audit).await? {
            Answer::Audit(records) => Ok(records),
            _ => Err(another_answer()),
        }
    }

    /// Checks that a block is known, then passes the host's judgement on.
    pub(crate) async fn judge(
        &self,
        hash: BlockHash,
        request: impl FnOnce(BlockHash, oneshot::Sender<()>) -> Request,
    ) -> Result<(), RequestError> {
        if self.header(Query::HeaderByHash(hash)).await?.value.is_none() {
            return Err(RequestError::UnknownBlock(hash));
        }
        self.tell(|reply| request(hash, reply)).await
    }

    /// As [`Self::judge`], unless the reorg would need what is pruned, which would end the node.
    pub(crate) async fn invalidate(&self, hash: BlockHash) -> Result<(), RequestError> {
        let below = self.status.read(|meter, _| meter.latest().pruned_below);
        let known = self.header(Query::HeaderByHash(hash)).await?.value;
        if known.is_some_and(|known| known.active && known.block.height < below) {
            return Err(RequestError::Pruned { below });
        }
        self.judge(hash, Request::Invalidate).await
    }

    /// Events after a cursor, at once; empty if there are none.
    pub(crate) async fn events_now(&self, cursor: Option<BlockRef>) -> Result<Vec<Event>, RequestError> {
        match self.query(Query::Events(cursor, EVENTS_PER_QUERY)).await? {
            Answer::Events(events) => Ok(events),
            Answer::UnknownCursor => Err(RequestError::UnknownCursor),
            Answer::PrunedCursor(below) => Err(RequestError::Pruned { below }),
            _ => Err(another_answer()),
        }
    }

    /// Events after a cursor, at least one.
    pub(crate) async fn events_next(&self, cursor: Option<BlockRef>) -> Result<Vec<Event>, RequestError> {
        loop {
            let seen = self.events.read(|_, version| version);
            let events = self.events_now(cursor).await?;
            if !events.is_empty() {
                return Ok(events);
            }
            self.events.newer_than(seen).await.ok_or(RequestError::Stopped)?;
        }
    }

    /// Waits until the status satisfies a condition; answers the proved tip then.
    pub(crate) async fn wait_until(
        &self,
        condition: impl Fn(Stage, BlockRef) -> bool,
    ) -> Result<BlockRef, RequestError> {
        let mut seen = 0;
        loop {
            let (stage, tip, version) =
                self.status.read(|meter, version| (meter.latest().stage, meter.latest().tip, version));
            if condition(stage, tip) {
                return Ok(tip);
            }
            if self.status.is_closed() {
                return Err(RequestError::Stopped);
            }
            seen = version.max(seen);
            self.status.newer_than(seen).await.ok_or(RequestError::Stopped)?;
        }
    }

    /// Waits until everything is closed; answers the durable tip.
    pub(crate) async fn wait_ended(&self) -> Result<BlockRef, RequestError> {
        let _ = self.ended.newer_than(0).await;
        self.ended.read(|tip, _| *tip).ok_or(RequestError::Stopped)
    }

    pub(crate) async fn shutdown(&self) -> Result<BlockRef, RequestError> {
        match self.send(Request::Shutdown) {
            // A node that has stopped already, or is about to, still tells its durable tip.
            Ok(()) | Err(RequestError::Stopped) => self.wait_ended().await,
            Err(error) => Err(error),
        }
    }
}
