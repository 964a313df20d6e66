//! The host's handle on a running node.
//!
//! Every method comes in two forms: `name` is a future, `name_blocking` blocks the calling thread and must
//! not be called from a task of the executor that runs the node. Every request ends, with a result or a
//! typed error: requests have a deadline (a minute unless [`Handle::with_timeout`] says otherwise), and
//! waits end when the node does.

use super::events::Events;
use super::requests::{At, BlockInfo, HeaderInfo, KnownAddresses, Request, RequestError, Shared};
use super::status::Status;
use super::wait::{block_on, block_on_until};
use crate::chain::command::BlockRef;
use crate::chainstate::UtxoStats;
use crate::engine::Query;
use crate::engine::output::{EndedPeer, Event, PeerStatus};
use crate::engine::status::Stage;
use crate::net::Executor;
use crate::peer::audit::AuditRecord;
use crate::peer::{PeerAddress, PeerId};
use crate::store::coin::Coin;
use crate::sync::tuning::Action;
use bitcoin::{BlockHash, OutPoint};
use core::future::Future;
use core::pin::pin;
use core::time::Duration;
use futures::future::{Either, select};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// For questions that are answered from memory or by one read.
const SHORT: Option<Duration> = Some(Duration::from_secs(60));
/// For what reads or writes a whole set of coins.
const LONG: Option<Duration> = Some(Duration::from_secs(6 * 3_600));
/// For what ends when something happens or the node stops.
const UNBOUNDED: Option<Duration> = None;

/// A cloneable handle on a node; see the [module](self).
///
/// Handles do not keep the node alive, and dropping all of them does not stop it.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
    executor: Arc<dyn Executor>,
    timeout: Option<Duration>,
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>, executor: Arc<dyn Executor>) -> Self {
        Self { shared, executor, timeout: None }
    }

    /// The same handle with this deadline for each request and each wait.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    async fn within<T>(
        &self,
        usual: Option<Duration>,
        request: impl Future<Output = Result<T, RequestError>>,
    ) -> Result<T, RequestError> {
        let Some(timeout) = self.timeout.or(usual) else { return request.await };
        match select(pin!(request), self.executor.timer(timeout)).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) => Err(RequestError::Timeout),
        }
    }

    fn blocking<T>(
        &self,
        usual: Option<Duration>,
        request: impl Future<Output = Result<T, RequestError>>,
    ) -> Result<T, RequestError> {
        let deadline = self.timeout.or(usual).and_then(|t| Instant::now().checked_add(t));
        match deadline {
            Some(deadline) => block_on_until(request, deadline).unwrap_or(Err(RequestError::Timeout)),
            None => block_on(request),
        }
    }

    /// The latest status. Never waits; after the end of the node, its last status.
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// Waits for a status newer than `version` ([`Status::version`]). Intermediate ones may be skipped.
    ///
    /// # Errors
    /// [`RequestError::Stopped`] when the node ends.
    pub async fn status_changed(&self, version: u64) -> Result<Status, RequestError> {
        self.within(UNBOUNDED, self.shared.status_changed(version)).await
    }

    /// Blocking form of [`Self::status_changed`].
    ///
    /// # Errors
    /// As [`Self::status_changed`].
    pub fn status_changed_blocking(&self, version: u64) -> Result<Status, RequestError> {
        self.blocking(UNBOUNDED, self.shared.status_changed(version))
    }

    /// The proved tip of the active chain.
    ///
    /// # Errors
    /// [`RequestError::Stopped`] after the end of the node.
    pub async fn tip(&self) -> Result<BlockRef, RequestError> {
        self.shared.tip()
    }

    /// Blocking form of [`Self::tip`].
    ///
    /// # Errors
    /// As [`Self::tip`].
    pub fn tip_blocking(&self) -> Result<BlockRef, RequestError> {
        self.shared.tip()
    }

    /// The header with this hash, in whichever chain; `None` if it is not known.
    ///
    /// # Errors
    /// [`RequestError`]: stopped, busy or out of time.
    pub async fn header(&self, hash: BlockHash) -> Result<At<Option<HeaderInfo>>, RequestError> {
        self.within(SHORT, self.shared.header(Query::HeaderByHash(hash))).await
    }

    /// Blocking form of [`Self::header`].
    ///
    /// # Errors
    /// As [`Self::header`].
    pub fn header_blocking(&self, hash: BlockHash) -> Result<At<Option<HeaderInfo>>, RequestError> {
        self.blocking(SHORT, self.shared.header(Query::HeaderByHash(hash)))
    }

    /// The header at this height of the active chain; `None` above the tip.
    ///
    /// # Errors
    /// [`RequestError`]: stopped, busy or out of time.
    pub async fn header_at(&self, height: u32) -> Result<At<Option<HeaderInfo>>, RequestError> {
        self.within(SHORT, self.shared.header(Query::HeaderByHeight(height))).await
    }

    /// Blocking form of [`Self::header_at`].
    ///
    /// # Errors
    /// As [`Self::header_at`].
    pub fn header_at_blocking(&self, height: u32) -> Result<At<Option<HeaderInfo>>, RequestError> {
        self.blocking(SHORT, self.shared.header(Query::HeaderByHeight(height)))
    }

    /// The block with this hash, in whichever chain; `None` if its body is not stored. A block that is not
    /// active may not have been validated.
    ///
    /// # Errors
    /// [`RequestError`]: pruned, stopped, busy, out of time, or a failure of storage.
    pub async fn block(&self, hash: BlockHash) -> Result<At<Option<BlockInfo>>, RequestError> {
        self.within(SHORT, self.shared.block(Query::HeaderByHash(hash))).await
    }

    /// Blocking form of [`Self::block`].
    ///
    /// # Errors
    /// As [`Self::block`].
    pub fn block_blocking(&self, hash: BlockHash) -> Result<At<Option<BlockInfo>>, RequestError> {
        self.blocking(SHORT, self.shared.block(Query::HeaderByHash(hash)))
    }

    /// The block at this height of the active chain; `None` above the tip.
    ///
    /// # Errors
    /// [`RequestError`]: pruned, stopped, busy, out of time, or a failure of storage.
    pub async fn block_at(&self, height: u32) -> Result<At<Option<BlockInfo>>, RequestError> {
        self.within(SHORT, self.shared.block(Query::HeaderByHeight(height))).await
    }

    /// Blocking form of [`Self::block_at`].
    ///
    /// # Errors
    /// As [`Self::block_at`].
    pub fn block_at_blocking(&self, height: u32) -> Result<At<Option<BlockInfo>>, RequestError> {
        self.blocking(SHORT, self.shared.block(Query::HeaderByHeight(height)))
    }

    /// The unspent output of the proved chain at this outpoint; `None` if it is spent or never existed.
    ///
    /// # Errors
    /// [`RequestError`]: stopped, busy, out of time, or a failure of storage.
    pub async fn coin(&self, outpoint: OutPoint) -> Result<At<Option<Coin>>, RequestError> {
        self.within(SHORT, self.shared.coin(outpoint)).await
    }

    /// Blocking form of [`Self::coin`].
    ///
    /// # Errors
    /// As [`Self::coin`].
    pub fn coin_blocking(&self, outpoint: OutPoint) -> Result<At<Option<Coin>>, RequestError> {
        self.blocking(SHORT, self.shared.coin(outpoint))
    }

    /// Size, value and both hashes (`hash_serialized_3`, MuHash3072) of the set of unspent outputs at
    /// the durable tip. Reads the whole set; no block connects meanwhile.
    ///
    /// # Errors
    /// [`RequestError`]: stopped, busy, out of time, or a failure of storage.
    pub async fn utxo_stats(&self) -> Result<At<UtxoStats>, RequestError> {
        self.within(LONG, self.shared.utxo_stats()).await
    }

    /// Blocking form of [`Self::utxo_stats`].
    ///
    /// # Errors
    /// As [`Self::utxo_stats`].
    pub fn utxo_stats_blocking(&self) -> Result<At<UtxoStats>, RequestError> {
        self.blocking(LONG, self.shared.utxo_stats())
    }

    /// The peers that are connected or being dialled.
    ///
    /// # Errors
    /// [`RequestError`]: stopped, busy or out of time.
    pub async fn peers(&self) -> Result<Vec<PeerStatus>, RequestError> {
        self.within(SHORT, self.shared.peers()).await
    }

    /// Blocking form of [`Self::peers`].
    ///
    /// # Errors
    /// As [`Self::peers`].
    pub fn peers_blocking(&self) -> Result<Vec<PeerStatus>, RequestError> {
        self.blocking(SHORT, self.shared.peers())
    }

    /// What the node did about what bounds its sync, the latest last; at most [`crate::limits::TUNING_RECORDS`].
    ///
    /// # Errors
    /// [`RequestError`]: stopped, busy or out of time.
    pub async fn actions(&self) -> Result<Vec<Action>, RequestError> {
        self.within(SHORT, self.shared.actions()).await
    }

    /// Blocking form of [`Self::actions`].
    ///
    /// # Errors
    /// As [`Self::actions`].
    pub fn actions_blocking(&self) -> Result<Vec<Action>, RequestError> {
        self.blocking(SHORT, self.shared.actions())
    }

    /// The last connections that have ended and why, the latest last; at most
    /// [`crate::limits::MAX_ENDED_PEERS`].
    ///
    /// # Errors
    /// [`RequestError`]: stopped, busy or out of time.
    pub async fn ended_peers(&self) -> Result<Vec<EndedPeer>, RequestError> {
        self.within(SHORT, self.shared.ended_peers()).await
    }

    /// Blocking form of [`Self::ended_peers`].
    ///
    /// # Errors
    /// As [`Self::ended_peers`].
    pub fn ended_peers_blocking(&self) -> Result<Vec<EndedPeer>, RequestError> {
        self.blocking(SHORT, self.shared.ended_peers())
    }

    /// The last bans with their evidence, and the last peers that were replaced for low scores, the latest last; at most
    /// [`crate::limits::MAX_AUDIT_RECORDS`] of this run. With a data directory they are also in `audit.log` there.
    ///
    /// # Errors
    /// [`RequestError`]: stopped, busy or out of time.
    pub async fn audit(&self) -> Result<Vec<AuditRecord>, RequestError> {
        self.within(SHORT, self.shared.audit()).await
    }

    /// Blocking form of [`Self::audit`].
    ///
    /// # Errors
    /// As [`Self::audit`].
    pub fn audit_blocking(&self) -> Result<Vec<AuditRecord>, RequestError> {
        self.blocking(SHORT, self.shared.audit())
    }

    /// Keeps a connection to this address up from now on. Ready once the node has taken note, not when
    /// the connection stands.
    ///
    /// # Errors
    /// [`RequestError`]: stopped, busy or out of time.
    pub async fn add_peer(&self, address: PeerAddress) -> Result<(), RequestError> {
        self.within(SHORT, self.shared.tell(|reply| Request::AddPeer(address, reply))).await
    }

    /// Blocking form of [`Self::add_peer`].
    ///
    /// # Errors
    /// As [`Self::add_peer`].
    pub fn add_peer_blocking(&self, address: PeerAddress) -> Result<(), RequestError> {
        self.blocking(SHORT, self.shared.tell(|reply| Request::AddPeer(address, reply)))
    }

    /// The addresses on which the node listens: those of [`Builder::listen`](crate::Builder::listen) with the ports that
    /// they really have. Empty until it runs.
    pub fn listening(&self) -> Vec<SocketAddr> {
        self.shared.listening.lock().clone()
    }

    /// Takes addresses of nodes into the address book, to be dialled when peers are wanted. Names are left out, as are
    /// addresses of networks that are not dialled ([`Builder::networks`](crate::Builder::networks)).
    ///
    /// # Errors
    /// [`RequestError`]: stopped, busy or out of time.
    pub async fn add_addresses(&self, addresses: Vec<PeerAddress>) -> Result<(), RequestError> {
        self.within(SHORT, self.shared.tell(|reply| Request::AddAddresses(addresses, reply))).await
    }

    /// Blocking form of [`Self::add_addresses`].
    ///
    /// # Errors
    /// As [`Self::add_addresses`].
    pub fn add_addresses_blocking(&self, addresses: Vec<PeerAddress>) -> Result<(), RequestError> {
        self.blocking(SHORT, self.shared.tell(|reply| Request::AddAddresses(addresses, reply)))
    }

    /// What the address book holds.
    ///
    /// # Errors
    /// [`RequestError`]: stopped, busy or out of time.
    pub async fn addresses(&self) -> Result<KnownAddresses, RequestError> {
        self.within(SHORT, self.shared.addresses()).await
    }

    /// Blocking form of [`Self::addresses`].
    ///
    /// # Errors
    /// As [`Self::addresses`].
    pub fn addresses_blocking(&self) -> Result<KnownAddresses, RequestError> {
        self.blocking(SHORT, self.shared.addresses())
    }

    /// Ends this connection, once the peer has got what it asked for or two seconds are over. If the host had named its
    /// address, that is no longer kept connected. No effect if the connection has ended already.
    ///
    /// # Errors
    /// [`RequestError`]: stopped, busy or out of time.
    pub async fn remove_peer(&self, peer: PeerId) -> Result<(), RequestError> {
        self.within(SHORT, self.shared.tell(|reply| Request::RemovePeer(peer, reply))).await
    }

    /// Blocking form of [`Self::remove_peer`].
    ///
    /// # Errors
    /// As [`Self::remove_peer`].
    pub fn remove_peer_blocking(&self, peer: PeerId) -> Result<(), RequestError> {
        self.blocking(SHORT, self.shared.tell(|reply| Request::RemovePeer(peer, reply)))
    }

    /// Fetches no more blocks until [`Self::resume`]: for metered links and batteries. Those that are under way arrive,
    /// connect and are committed. Connections, headers, addresses and answers go on, and [`Self::wait_synced`] waits.
    /// No effect in a pause; a node that is built anew is in none.
    ///
    /// # Errors
    /// [`RequestError`]: stopped, busy or out of time.
    pub async fn pause(&self) -> Result<(), RequestError> {
        self.within(SHORT, self.shared.tell(Request::Pause)).await
    }

    /// Blocking form of [`Self::pause`].
    ///
    /// # Errors
    /// As [`Self::pause`].
    pub fn pause_blocking(&self) -> Result<(), RequestError> {
        self.blocking(SHORT, self.shared.tell(Request::Pause))
    }

    /// Ends the pause that [`Self::pause`] began.
    ///
    /// # Errors
    /// [`RequestError`]: stopped, busy or out of time.
    pub async fn resume(&self) -> Result<(), RequestError> {
        self.within(SHORT, self.shared.tell(Request::Resume)).await
    }

    /// Blocking form of [`Self::resume`].
    ///
    /// # Errors
    /// As [`Self::resume`].
    pub fn resume_blocking(&self) -> Result<(), RequestError> {
        self.blocking(SHORT, self.shared.tell(Request::Resume))
    }

    /// Treats a block and its descendants as invalid: the best chain without it becomes active. Ready once
    /// the node has taken note; the chain changes afterwards.
    ///
    /// # Errors
    /// [`RequestError::UnknownBlock`], [`RequestError::Pruned`] if undoing it would need what is pruned, or stopped,
    /// busy, out of time.
    pub async fn invalidate(&self, hash: BlockHash) -> Result<(), RequestError> {
        self.within(SHORT, self.shared.invalidate(hash)).await
    }

    /// Blocking form of [`Self::invalidate`].
    ///
    /// # Errors
    /// As [`Self::invalidate`].
    pub fn invalidate_blocking(&self, hash: BlockHash) -> Result<(), RequestError> {
        self.blocking(SHORT, self.shared.invalidate(hash))
    }

    /// Takes the invalidity of a block, its ancestors and its descendants back.
    ///
    /// # Errors
    /// [`RequestError::UnknownBlock`], or stopped, busy, out of time.
    pub async fn reconsider(&self, hash: BlockHash) -> Result<(), RequestError> {
        self.within(SHORT, self.shared.judge(hash, Request::Reconsider)).await
    }

    /// Blocking form of [`Self::reconsider`].
    ///
    /// # Errors
    /// As [`Self::reconsider`].
    pub fn reconsider_blocking(&self, hash: BlockHash) -> Result<(), RequestError> {
        self.blocking(SHORT, self.shared.judge(hash, Request::Reconsider))
    }

    /// Changes of the durable active chain after `cursor`, the last block that the consumer applied
    /// (`None`: from the genesis block on).
    pub fn events(&self, cursor: Option<BlockRef>) -> Events {
        Events::new(self.clone(), cursor)
    }

    pub(crate) async fn fetch_events(&self, cursor: Option<BlockRef>) -> Result<Vec<Event>, RequestError> {
        self.within(UNBOUNDED, self.shared.events_next(cursor)).await
    }

    pub(crate) fn fetch_events_blocking(&self, cursor: Option<BlockRef>) -> Result<Vec<Event>, RequestError> {
        self.blocking(UNBOUNDED, self.shared.events_next(cursor))
    }

    pub(crate) async fn fetch_events_now(
        &self,
        cursor: Option<BlockRef>,
    ) -> Result<Vec<Event>, RequestError> {
        self.within(SHORT, self.shared.events_now(cursor)).await
    }

    pub(crate) fn fetch_events_now_blocking(
        &self,
        cursor: Option<BlockRef>,
    ) -> Result<Vec<Event>, RequestError> {
        self.blocking(SHORT, self.shared.events_now(cursor))
    }

    /// Waits until the tip of the best known chain is connected; answers that tip.
    ///
    /// # Errors
    /// [`RequestError::Stopped`] when the node ends first.
    pub async fn wait_synced(&self) -> Result<BlockRef, RequestError> {
        self.within(UNBOUNDED, self.shared.wait_until(is_synced)).await
    }

    /// Blocking form of [`Self::wait_synced`].
    ///
    /// # Errors
    /// As [`Self::wait_synced`].
    pub fn wait_synced_blocking(&self) -> Result<BlockRef, RequestError> {
        self.blocking(UNBOUNDED, self.shared.wait_until(is_synced))
    }

    /// Waits until the proved tip is at `height` or above; answers that tip.
    ///
    /// # Errors
    /// [`RequestError::Stopped`] when the node ends first.
    pub async fn wait_for_height(&self, height: u32) -> Result<BlockRef, RequestError> {
        self.within(UNBOUNDED, self.shared.wait_until(|_, tip| tip.height >= height)).await
    }

    /// Blocking form of [`Self::wait_for_height`].
    ///
    /// # Errors
    /// As [`Self::wait_for_height`].
    pub fn wait_for_height_blocking(&self, height: u32) -> Result<BlockRef, RequestError> {
        self.blocking(UNBOUNDED, self.shared.wait_until(|_, tip| tip.height >= height))
    }

    /// Stops the node: a last commit is made, connections and files are closed. Answers the durable tip
    /// once the data directory is released. Stopping a node that has ended is no error.
    ///
    /// It takes as long as writing the coins that are not written yet, some 10,000 for each MiB of
    /// [`Builder::dbcache`](crate::Builder::dbcache) at most: 1 to 3 s a million on fjall, 1 to 7 s on sled, the more the larger
    /// the store (two cores, a local disk). [`Status::pipeline`](crate::Status::pipeline) tells before how long
    /// ([`PipelineStatus::time_to_write`](crate::chainstate::PipelineStatus::time_to_write)), and while it lasts how many are
    /// left. Killing the process meanwhile loses what the last commit lacks, and nothing else.
    ///
    /// # Errors
    /// [`RequestError`]: out of time (the node still stops), or busy (it was not asked to).
    pub async fn shutdown(&self) -> Result<BlockRef, RequestError> {
        self.within(LONG, self.shared.shutdown()).await
    }

    /// Blocking form of [`Self::shutdown`].
    ///
    /// # Errors
    /// As [`Self::shutdown`].
    pub fn shutdown_blocking(&self) -> Result<BlockRef, RequestError> {
        self.blocking(LONG, self.shared.shutdown())
    }

    /// Waits until the node has ended for whatever reason (`run()` returned or was dropped) and its data
    /// directory is released; answers the durable tip. Asks nobody to stop.
    ///
    /// # Errors
    /// [`RequestError::Timeout`] if the handle has a time limit.
    pub async fn wait_stopped(&self) -> Result<BlockRef, RequestError> {
        self.within(UNBOUNDED, self.shared.wait_ended()).await
    }

    /// Blocking form of [`Self::wait_stopped`].
    ///
    /// # Errors
    /// As [`Self::wait_stopped`].
    pub fn wait_stopped_blocking(&self) -> Result<BlockRef, RequestError> {
        self.blocking(UNBOUNDED, self.shared.wait_ended())
    }
}

fn is_synced(stage: Stage, _tip: BlockRef) -> bool {
    stage == Stage::Synced
}
