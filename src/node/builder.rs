//! Options of a node, and the opening of what it stands on.
//!
//! 1. Options are checked, and what is missing gets its default.
//! 2. The data directory is created and locked; its version and network are checked.
//! 3. Store, block files and header file are opened, and recovery yields the state that the last run left.
//! 4. The engine starts from that state. Nothing is dialled before the node runs.

mod control;
mod peers;
mod rates;
mod reach;
mod scores;
mod sources;

pub use rates::Profile;

use super::addresses::{self, Saved};
use super::bandwidth::Bandwidth;
use super::budget::{Budget, counted};
use super::chain_thread::{ChainParts, EndSignal};
use super::connection::{Outgoing, Surroundings};
use super::driver::{self, CloseWatches, Parts, RunError, Stopped};
use super::handle::Handle;
use super::inbox::Inbox;
use super::peer_handlers::PeerHandlers;
use super::requests::{NodeClock, Shared};
use super::status::Meter;
use super::traffic::Traffic;
use super::trust::Trust;
use super::wait::{Watch, block_on};
use crate::chain::params::{Network, Params};
use crate::chain::work::ChainWork;
use crate::chainstate::recovery::{self, Sources};
use crate::chainstate::{Chainstate, PruneOptions};
use crate::engine::{Engine, EngineConfig, StartError};
use crate::error::Error;
use crate::limits::{INBOUND_MAX, MAX_REQUESTS, MIN_PRUNE_MIB, POOL_QUEUE, SOURCE_POLL_MILLIS};
use crate::net::pool::PoolConfig;
use crate::net::{Clock, Executor, Gateway, SystemClock, Transport};
use crate::peer::{AddressNetwork, PeerAddress};
use crate::rng::Rng;
use crate::store::backend::StoreBackend;
use crate::store::block_files::{BlockFiles, BlockFilesOptions};
use crate::store::datadir::Datadir;
use crate::store::header_file::{HEADER_FILE, HeaderFile};
use crate::store::medium::MemoryMedium;
use crate::store::memory::MemoryStore;
use crate::store::{Store, StoreError};
use crate::trace;
use crate::verify::Verifier;
use crate::verify::pool::Pool;
use bitcoin::BlockHash;
use core::fmt;
use core::time::Duration;
use futures::channel::mpsc;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// The part of that memory which the embedded store gets for its pages: an eighth. Coins in our own cache are
/// worth more, since they need no write when they are spent soon.
const STORE_SHARE: usize = 8;
/// The least that the embedded store works well with.
const LEAST_STORE_CACHE: usize = 8 << 20;

/// Why no node was built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The store or a file cannot be used: another process holds it, it belongs to another network or
    /// version, or it failed. The kind tells which.
    #[error("storage: {0}")]
    Store(#[from] StoreError),
    /// What is stored could not be brought into a consistent state.
    #[error("recovery: {0}")]
    Recovery(Error),
    /// What is stored contradicts itself.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Without the feature `native` the host brings the transport.
    #[error("no transport: enable the feature `native` or set one")]
    MissingTransport,
    /// Without the feature `native` the host brings the executor.
    #[error("no executor: enable the feature `native` or set one")]
    MissingExecutor,
    /// Without the feature `consensus` the host brings the verifier.
    #[error("no verifier: enable the feature `consensus` or set one")]
    MissingVerifier,
    /// The backend's feature is not enabled, and there is no store of the host.
    #[error("no store for the data directory: enable the feature `sled` or `fjall`, or set one")]
    MissingStore,
    /// A store that outlives the process needs a data directory for block and header files beside it.
    #[error("a durable store needs a data directory")]
    MissingDatadir,
    /// An option has a value that makes no sense.
    #[error("{0}")]
    Option(&'static str),
    /// The operating system gave no thread.
    #[error("no thread: {0}")]
    Thread(#[source] io::Error),
    /// The operating system gave no randomness.
    #[error("no randomness: {0}")]
    Entropy(String),
}

/// Collects the options of a node; see [`Builder::build`].
#[derive(Debug)]
#[must_use]
pub struct Builder {
    params: Params,
    datadir: Option<PathBuf>,
    store: Option<Arc<dyn Store>>,
    backend: StoreBackend,
    connect: Vec<PeerAddress>,
    added: Vec<PeerAddress>,
    dns: Option<bool>,
    listen: Vec<SocketAddr>,
    serve: Option<bool>,
    proxy: Option<SocketAddr>,
    onion_proxy: Option<SocketAddr>,
    networks: Option<BTreeSet<AddressNetwork>>,
    /// What of the engine's options is about peers.
    network: EngineConfig,
    cache: Option<usize>,
    memory: Option<usize>,
    bandwidth: Option<u64>,
    reach: reach::ReachOptions,
    prune: Option<PruneOptions>,
    threads: Option<usize>,
    stop_at_height: Option<u32>,
    clock: Arc<dyn Clock>,
    transport: Option<Arc<dyn Transport>>,
    executor: Option<Arc<dyn Executor>>,
    verifier: Option<Arc<dyn Verifier>>,
    seed: Option<[u8; 32]>,
    peer_handlers: PeerHandlers,
    rates: rates::RateOptions,
    source_interval: Duration,
}

impl Builder {
    /// A node of this network, with Bitcoin Core's parameters.
    pub fn new(network: Network) -> Self {
        Self::with_params(Params::new(network))
    }

    /// A node with these parameters: a signet with its own challenge, a regtest with its own activations.
    pub fn with_params(params: Params) -> Self {
        Self {
            params,
            datadir: None,
            store: None,
            backend: StoreBackend::Sled,
            connect: Vec::new(),
            added: Vec::new(),
            dns: None,
            listen: Vec::new(),
            peer_handlers: PeerHandlers::default(),
            rates: rates::RateOptions::default(),
            source_interval: Duration::from_millis(SOURCE_POLL_MILLIS),
            serve: None,
            proxy: None,
            onion_proxy: None,
            networks: None,
            network: EngineConfig { inbound_max: INBOUND_MAX, ..EngineConfig::default() },
            cache: None,
            memory: None,
            bandwidth: None,
            reach: reach::ReachOptions::default(),
            prune: None,
            threads: None,
            stop_at_height: None,
            clock: Arc::new(SystemClock::new()),
            transport: None,
            executor: None,
            verifier: None,
            seed: None,
        }
    }

    /// Keeps everything in this directory: coins (with sled, unless [`Self::store`] says otherwise), blocks,
    /// headers, addresses. It is created if it does not exist, and locked while the node lives. Without it,
    /// everything is in memory.
    pub fn datadir(mut self, path: impl Into<PathBuf>) -> Self {
        self.datadir = Some(path.into());
        self
    }

    /// Keeps coins in this store. Blocks and headers go to [`Self::datadir`].
    pub fn store(self, store: impl Store + 'static) -> Self {
        self.shared_store(Arc::new(store))
    }

    /// The same for a store that the host goes on to use; it must not write to it.
    pub fn shared_store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// Connects to this peer and, with others given so, to no one else: DNS seeds and saved addresses are
    /// not used. The connection is tried again for ever.
    pub fn connect(mut self, peer: impl Into<PeerAddress>) -> Self {
        self.connect.push(peer.into());
        self
    }

    /// Connects to this peer besides those that are found. The connection is tried again for ever.
    pub fn add_node(mut self, peer: impl Into<PeerAddress>) -> Self {
        self.added.push(peer.into());
        self
    }

    /// Whether DNS seeds are asked for peers; by default unless [`Self::connect`] is used. None is asked where
    /// [`Self::networks`] has neither IPv4 nor IPv6, of which alone they know.
    pub fn dns(mut self, on: bool) -> Self {
        self.dns = Some(on);
        self
    }

    /// Whether addresses that come with the program are the last resort where DNS seeds are silent or off; by default
    /// unless [`Self::connect`] is used.
    pub fn fixed_seeds(mut self, on: bool) -> Self {
        self.network.fixed_seeds = on;
        self
    }

    /// Listens on this address, and on others given so; port 0 is any that is free ([`Handle::listening`]). Up to
    /// [`Self::inbound`] peers may come; when all places are taken, a newcomer displaces one of the largest group of those
    /// that are not fast, useful or old (Core's rules). Without it nobody can come.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen.push(address);
        self
    }

    /// How many connections others may open: 114 by default.
    pub fn inbound(mut self, most: usize) -> Self {
        self.network.inbound_max = most;
        self
    }

    /// Whether headers, blocks and addresses are served to peers, and new blocks announced; by default if the node listens.
    /// A pruned node offers the last 288 blocks (BIP159).
    pub fn serve(mut self, on: bool) -> Self {
        self.serve = Some(on);
        self
    }

    /// Bytes a day after which no blocks older than a week are served; by default there is no limit. Who asks for one then
    /// is left (Core's `-maxuploadtarget`).
    pub fn upload_budget(mut self, bytes_a_day: u64) -> Self {
        self.network.serve.upload_budget = Some(bytes_a_day);
        self
    }

    /// Opens all connections through this SOCKS5 proxy, names and onion addresses included, with another user and password
    /// for each; no name is looked up on this side. DNS seeds are connected to over the proxy and asked for addresses.
    /// Onion addresses are dialled then, unless [`Self::networks`] says otherwise. Listening is not affected. Needs the
    /// feature `socks5`.
    pub fn proxy(mut self, address: SocketAddr) -> Self {
        self.proxy = Some(address);
        self
    }

    /// Opens connections to onion addresses through this SOCKS5 proxy, and no others, unless [`Self::proxy`] is given for
    /// them. Needs the feature `socks5`.
    pub fn onion_proxy(mut self, address: SocketAddr) -> Self {
        self.onion_proxy = Some(address);
        self
    }

    /// Whether connections are encrypted where both sides can (BIP324); on by default. With peers who can't, the node
    /// speaks in the clear either way. [`PeerStatus::session`](crate::PeerStatus::session) tells which it is.
    pub fn encrypt(mut self, on: bool) -> Self {
        self.network.encrypt = on;
        self
    }

    /// An address of ours that others reach, which is told to peers: where the host knows it better than the node can find
    /// out. It is told in any case; no other one of the same network is looked for, though a gateway's port may be mapped.
    pub fn external_address(mut self, address: PeerAddress) -> Self {
        self.network.own_addresses.push(address);
        self
    }

    /// Networks whose addresses are kept and dialled, besides peers that the host names: IPv4 and IPv6 by default. For
    /// CJDNS its router has to run on this machine; Tor and I2P need a proxy or a [`Self::transport`] that reaches them.
    pub fn networks(mut self, networks: impl IntoIterator<Item = AddressNetwork>) -> Self {
        self.networks = Some(networks.into_iter().collect());
        self
    }

    /// Connections of the node's own accord: eight for everything, and two that exchange blocks and no addresses, so that
    /// nobody learns of them from gossip. They are of different network groups.
    pub fn outbound(mut self, full: usize, blocks_only: usize) -> Self {
        self.network.outbound_target = full;
        self.network.block_relay_target = blocks_only;
        self
    }

    /// Mean time between two looks whether an address that was only told is there (feelers): two minutes by default, zero
    /// for never. They begin once all connections stand.
    pub fn probe_interval(mut self, mean: Duration) -> Self {
        self.network.probe_interval = mean;
        self
    }

    /// Addresses that nobody has seen for so long make way for others and are not taken: thirty days by default.
    pub fn address_horizon(mut self, horizon: Duration) -> Self {
        self.network.address_horizon = horizon;
        self
    }

    /// Whether a change of the address book is saved within a second, instead of every ten minutes and at the end.
    pub fn persist_addresses_on_update(mut self, on: bool) -> Self {
        self.network.persist_on_update = on;
        self
    }

    /// The backend of the store that the node opens by itself in [`Self::datadir`]; sled by default.
    pub fn backend(mut self, backend: StoreBackend) -> Self {
        self.backend = backend;
        self
    }

    /// Memory for coins, in bytes; 450 MiB by default. More means fewer writes. The store that the node
    /// opens by itself gets an eighth of it. Blocks that are under way, wait or are unproved get as much in all, from 64 to
    /// 256 MiB, unless [`Self::memory`] says otherwise.
    pub fn dbcache(mut self, bytes: usize) -> Self {
        self.cache = Some(bytes);
        self
    }

    /// Memory of the whole process without its headers (up to 250 bytes each), in bytes: at least [`LEAST_MEMORY`](crate::limits::LEAST_MEMORY), with
    /// sled [`SLED_UNCOUNTED_MEMORY`](crate::limits::SLED_UNCOUNTED_MEMORY) more. These two are left to what cannot be counted. Half of the rest is for coins,
    /// unless [`Self::dbcache`] says otherwise; an eighth each for blocks that are under way, for those that wait or are
    /// unproved, and for changes that the store has not written; a sixteenth, or 8 MB, for answers of HTTP sources. Less means more writes and fewer blocks at once. By
    /// default it goes with [`Self::dbcache`], and the store takes more for changes. What is kept in memory instead of in
    /// files comes on top.
    ///
    /// Measured while millions of coins were made and spent (`sync --memory`): with fjall 180 of 192 MiB, 462 of 512;
    /// with sled 316 of 320, 441 of 512. That is with an allocator that returns what threads free. glibc's may hold some
    /// 300 MB more: a host for which that counts chooses another, as the example `sync` does, or sets
    /// `MALLOC_ARENA_MAX=2`.
    pub fn memory(mut self, bytes: usize) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// Bytes a second that all connections together may receive, at least [`LEAST_BANDWIDTH`](crate::limits::LEAST_BANDWIDTH); by default as many as
    /// come. For what they send there is [`Self::upload_rate`].
    pub fn bandwidth(mut self, bytes_per_second: u64) -> Self {
        self.bandwidth = Some(bytes_per_second);
        self
    }

    /// Deletes old blocks and undo data, so that their files stay within so many MiB: at least 550 (Core's `-prune`),
    /// on regtest 1. What can't go yet may take more: the last 288 blocks up to the durable tip
    /// ([`MIN_BLOCKS_TO_KEEP`](crate::limits::MIN_BLOCKS_TO_KEEP)), those since the commit before the last, those
    /// fetched ahead, and the segment that grows, a quarter of the budget at most.
    ///
    /// A data directory that was pruned goes on without this option, and its old blocks stay away. A reorg deeper than
    /// what is kept ends the node with [`Error::Pruned`].
    pub fn prune(mut self, mebibytes: u64) -> Self {
        self.prune = Some(PruneOptions::new(mebibytes.saturating_mul(1 << 20)));
        self
    }

    /// Threads that check blocks and scripts; by default one for each core.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// The block up to which scripts may be skipped (`None`: all scripts are run), instead of the
    /// network's. Core's conditions decide for each block.
    pub fn assume_valid(mut self, block: Option<BlockHash>) -> Self {
        self.params = self.params.with_assume_valid(block);
        self
    }

    /// Work below which a chain is not believed to be the network's, instead of the network's figure.
    pub fn minimum_chain_work(mut self, work: ChainWork) -> Self {
        self.params = self.params.with_minimum_chain_work(work);
        self
    }

    /// Never connects a block above this height.
    pub fn stop_at_height(mut self, height: u32) -> Self {
        self.stop_at_height = Some(height);
        self
    }

    /// Another clock than the system's. Its Unix time reaches consensus, its monotonic time drives timers.
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The host's sockets.
    pub fn transport(mut self, transport: impl Transport + 'static) -> Self {
        self.transport = Some(Arc::new(transport));
        self
    }

    /// The host's executor, for tasks, timers and blocking work.
    pub fn executor(mut self, executor: impl Executor + 'static) -> Self {
        self.executor = Some(Arc::new(executor));
        self
    }

    /// Another script verifier than Bitcoin Core's code.
    pub fn verifier(mut self, verifier: impl Verifier + 'static) -> Self {
        self.verifier = Some(Arc::new(verifier));
        self
    }

    /// The seed of all random choices, for tests; by default the operating system gives it.
    pub fn seed(mut self, seed: [u8; 32]) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Opens what the node stands on and builds it. Reads the header file and repairs what a kill left
    /// behind, so it may take seconds: an async host calls it where blocking is allowed.
    ///
    /// # Errors
    /// [`BuildError`]. Nothing is left running or locked then.
    pub fn build(self) -> Result<(Node, Handle), BuildError> {
        let threads = match self.threads {
            Some(0) => return Err(BuildError::Option("at least one thread is needed")),
            Some(threads) => threads,
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        self.check_sources()?;
        let of_network = self.params.network;
        let least = if self.params.network == Network::Regtest { 1 } else { MIN_PRUNE_MIB };
        if self.prune.is_some_and(|prune| prune.bytes < least << 20) {
            return Err(BuildError::Option(
                "the budget for blocks is less than 550 MiB, or on regtest than 1 MiB",
            ));
        }
        self.rates.check(self.network.daily_bytes)?;
        let (reach, gateway) = self.reach.resolve(self.transport.is_some(), self.proxy.is_some())?;
        let transport = self.transport.map_or_else(default_transport, Ok)?;
        let (proxy, onion_proxy) = (self.proxy, self.onion_proxy);
        let transport = through(transport, proxy, onion_proxy)?;
        let executor = self.executor.map_or_else(default_executor, Ok)?;
        let verifier = self.verifier.map_or_else(default_verifier, Ok)?;
        let mut rng = Rng::from_seed(self.seed.map_or_else(system_seed, Ok)?);
        let params = Arc::new(self.params);
        let (genesis, magic) = (params.genesis_hash(), params.magic);
        let datadir = self.datadir.as_deref().map(|path| Datadir::open(path, magic, genesis)).transpose()?;
        let opens_sled =
            self.store.is_none() && datadir.is_some() && matches!(self.backend, StoreBackend::Sled);
        let memory = self.memory.map(|memory| counted(memory, opens_sled)).transpose()?;
        let budget = Budget::new(self.cache, memory, self.bandwidth)?;
        let mut coins_bytes = budget.cache;
        let store = match (self.store, &datadir) {
            (Some(store), None) if store.is_durable() => return Err(BuildError::MissingDatadir),
            (Some(store), _) => store,
            (None, Some(datadir)) => {
                let pages = (budget.cache / STORE_SHARE).max(LEAST_STORE_CACHE);
                coins_bytes = coins_bytes.saturating_sub(pages);
                if !self.backend.is_enabled() {
                    return Err(BuildError::MissingStore);
                }
                self.backend.open_within(datadir, pages as u64, budget.store_writes)?
            }
            (None, None) => Arc::new(MemoryStore::new()),
        };
        let layout = self.prune.map_or_else(BlockFilesOptions::default, |prune| prune.files());
        let (blocks, (headers, loaded)) = match &datadir {
            Some(datadir) => (datadir.block_files(layout)?, datadir.header_file()?),
            None => {
                let medium = Arc::new(MemoryMedium::new());
                (
                    BlockFiles::with_medium(medium.clone(), layout)?,
                    HeaderFile::with_medium(medium, HEADER_FILE)?,
                )
            }
        };
        for damage in blocks.recovery().truncated.iter().chain(&blocks.recovery().damaged) {
            trace::event!(WARN, "block files", file = damage.file, at = damage.offset, bytes = damage.bytes);
        }
        if let Some(lost) = &loaded.dropped {
            trace::event!(
                WARN,
                "the header file was cut where it was damaged",
                file = lost.file,
                at = lost.offset,
                bytes = lost.bytes,
            );
        }
        let pool = Pool::new("headlong-check", threads, POOL_QUEUE).map_err(BuildError::Thread)?;
        let sources = Sources { params, store, blocks, headers, loaded, pool: Arc::new(pool), verifier };
        let options = budget.chainstate.coins_bytes(coins_bytes).prune(self.prune);
        let opened = recovery::open(sources, options, [rng.u64(), rng.u64()]).map_err(recovery_error)?;
        let listen = self.listen;
        let mut network = self.network;
        let encrypt = network.encrypt;
        network.proxied = proxy.is_some();
        if proxy.or(onion_proxy).is_some() {
            network.networks.insert(AddressNetwork::Onion);
        }
        network.networks = self.networks.unwrap_or(network.networks);
        network.serve.enabled = self.serve.unwrap_or(!listen.is_empty());
        network.serve.pruned |= self.prune.is_some() || opened.chainstate.storage().pruned_below > 0;
        if listen.is_empty() {
            network.inbound_max = 0;
        }
        let automatic = self.connect.is_empty() || self.dns == Some(true);
        let saved = match &datadir {
            Some(datadir) if automatic => addresses::load(datadir)?,
            _ => Saved::None,
        };
        let mut config = EngineConfig {
            peers: self.connect.into_iter().chain(self.added).collect(),
            automatic,
            dns_seeds: automatic && self.dns.unwrap_or(true),
            stop_at_height: self.stop_at_height,
            scheduler: budget.scheduler,
            reach,
            ..network
        };
        if let Some(prune) = self.prune {
            config.scheduler.window = prune.window(config.scheduler.window);
        }
        let checkpoint = opened.chainstate.checkpoint().clone();
        let mut engine = Engine::new(config, opened.tree, opened.tip, Some(checkpoint), rng.array())?
            .with_storage(opened.chainstate.storage());
        let mut set_aside = None;
        match saved {
            Saved::None => {}
            Saved::Book(book) => engine = engine.with_addresses(*book),
            Saved::Damaged(path, why) => {
                trace::event!(WARN, "saved addresses set aside", path = path.display(), why = why);
                set_aside = Some(path);
            }
        }
        engine = super::kept::restore(engine, datadir.as_ref())?;
        let trust = Trust::load(datadir.as_ref())?;
        let bandwidth = self.bandwidth;
        let edge = Edge {
            magic,
            executor,
            transport,
            clock: self.clock,
            bandwidth,
            set_aside,
            listen,
            peer_handlers: self.peer_handlers,
            threads,
            rates: self.rates,
            gateway,
            encrypt,
            rng,
            trust,
            network: of_network,
            source_interval: self.source_interval,
            source_bytes: budget.source_bytes,
        };
        Ok(edge.assemble(engine, opened.chainstate, datadir))
    }
}

/// What the host provides, or its defaults.
struct Edge {
    magic: [u8; 4],
    executor: Arc<dyn Executor>,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    bandwidth: Option<u64>,
    set_aside: Option<PathBuf>,
    peer_handlers: PeerHandlers,
    threads: usize,
    rates: rates::RateOptions,
    listen: Vec<SocketAddr>,
    gateway: Option<Arc<dyn Gateway>>,
    encrypt: bool,
    rng: Rng,
    trust: Trust,
    network: Network,
    source_interval: Duration,
    #[cfg_attr(not(feature = "http"), expect(dead_code, reason = "there are no sources"))]
    source_bytes: usize,
}

impl Edge {
    /// Joins engine and chainstate to a node, with its handle.
    fn assemble(self, engine: Engine, chainstate: Chainstate, datadir: Option<Datadir>) -> (Node, Handle) {
        let outgoing = Outgoing::new(PoolConfig::default(), self.executor.clone(), self.clock.clone());
        let clock = NodeClock::new(self.clock);
        let bandwidth = self.bandwidth.map(|rate| Arc::new(Bandwidth::new(rate, clock.clone())));
        let (upload, rates) = (self.rates.upload(&clock), self.rates.messages());
        let traffic = Arc::new(Traffic::new(clock.now().at));
        let (to_engine, requests) = mpsc::channel(MAX_REQUESTS);
        let (to_chain, chain_requests) = crossbeam_channel::bounded(MAX_REQUESTS);
        let ended = Arc::new(Watch::new(None));
        let meter = Meter::new(clock.now().at, engine.status(), engine.tree().params().tx_counts);
        let shared = Arc::new(Shared {
            engine: Mutex::new(to_engine),
            chain: to_chain,
            status: Arc::new(Watch::new(meter)),
            pipeline: Arc::new(Mutex::new(chainstate.pipeline())),
            threads: self.threads,
            outgoing: outgoing.clone(),
            events: Arc::new(Watch::new(())),
            ended: ended.clone(),
            traffic: traffic.clone(),
            clock: clock.clone(),
            trust: self.trust.clone(),
            set_aside: self.set_aside,
            listening: Mutex::default(),
        });
        let (inbox, inbound) = Inbox::new();
        let handle = Handle::new(shared.clone(), self.executor.clone());
        let durable = chainstate.durable_tip();
        let parts = Parts {
            engine,
            chain: ChainParts {
                chainstate,
                requests: chain_requests,
                datadir,
                trust: self.trust,
                pipeline: shared.pipeline.clone(),
                end: EndSignal::new(ended, durable),
            },
            requests,
            around: Surroundings {
                magic: self.magic,
                executor: self.executor,
                transport: self.transport,
                inbox,
                bandwidth,
                upload,
                rates,
                clock,
                traffic,
                encrypt: self.encrypt,
                rng: Arc::new(Mutex::new(self.rng)),
                outgoing,
                network: self.network,
                source_interval: self.source_interval,
                #[cfg(feature = "http")]
                source_room: super::source::Room::new(self.source_bytes),
            },
            inbound,
            listen: self.listen,
            peer_handlers: self.peer_handlers,
            gateway: self.gateway,
            close: CloseWatches(shared.clone()),
            shared,
        };
        (Node { parts }, handle)
    }
}

/// The transport with the proxies before it.
#[cfg(feature = "socks5")]
fn through(
    transport: Arc<dyn Transport>,
    proxy: Option<SocketAddr>,
    onion_proxy: Option<SocketAddr>,
) -> Result<Arc<dyn Transport>, BuildError> {
    use crate::net::socks5::Socks5Transport;
    // The onions' proxy is reached directly, whatever the other one is for.
    let mut through: Arc<dyn Transport> = transport.clone();
    if let Some(proxy) = proxy {
        through = Arc::new(Socks5Transport::new(through, proxy));
    }
    if let Some(proxy) = onion_proxy {
        through = Arc::new(Socks5Transport::onions_only(through, transport, proxy));
    }
    Ok(through)
}

#[cfg(not(feature = "socks5"))]
fn through(
    transport: Arc<dyn Transport>,
    proxy: Option<SocketAddr>,
    onion_proxy: Option<SocketAddr>,
) -> Result<Arc<dyn Transport>, BuildError> {
    match proxy.or(onion_proxy) {
        None => Ok(transport),
        Some(_) => Err(BuildError::Option("a proxy needs the feature `socks5`")),
    }
}

/// A failure of storage stays what it was: a host looks at its kind.
fn recovery_error(error: Error) -> BuildError {
    match error {
        Error::Store(error) => BuildError::Store(error),
        error => BuildError::Recovery(error),
    }
}

#[cfg(feature = "native")]
fn default_transport() -> Result<Arc<dyn Transport>, BuildError> {
    Ok(Arc::new(crate::net::native::NativeTransport::new()))
}

#[cfg(not(feature = "native"))]
fn default_transport() -> Result<Arc<dyn Transport>, BuildError> {
    Err(BuildError::MissingTransport)
}

#[cfg(feature = "native")]
fn default_executor() -> Result<Arc<dyn Executor>, BuildError> {
    Ok(Arc::new(crate::net::native::NativeExecutor::new().map_err(BuildError::Thread)?))
}

#[cfg(not(feature = "native"))]
fn default_executor() -> Result<Arc<dyn Executor>, BuildError> {
    Err(BuildError::MissingExecutor)
}

#[cfg(feature = "consensus")]
fn default_verifier() -> Result<Arc<dyn Verifier>, BuildError> {
    Ok(Arc::new(crate::verify::standard::StandardVerifier::default()))
}

#[cfg(not(feature = "consensus"))]
fn default_verifier() -> Result<Arc<dyn Verifier>, BuildError> {
    Err(BuildError::MissingVerifier)
}

fn system_seed() -> Result<[u8; 32], BuildError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| BuildError::Entropy(error.to_string()))?;
    Ok(seed)
}

/// A node, before it runs. Dropping it closes its files.
#[must_use = "a node does nothing until it runs"]
pub struct Node {
    parts: Parts,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").finish_non_exhaustive()
    }
}

impl Node {
    /// Runs the node until [`Handle::shutdown`] or a failure. The future is to be spawned or awaited on
    /// the host's executor; connections and timers are spawned on the [`Executor`] of the builder.
    ///
    /// Dropping the future at any await stops the node without a last commit: what is durable stays.
    /// [`Handle::wait_stopped`] tells when its files are closed.
    ///
    /// # Errors
    /// [`RunError`]: storage failed, a worker, thread or task panicked, or a defect.
    pub fn run(self) -> impl Future<Output = Result<Stopped, RunError>> + Send + 'static {
        trace::in_node(self.parts.engine.tree().params().network, driver::run(self.parts))
    }

    /// Runs the node on the calling thread until [`Handle::shutdown`] or a failure. Needs no executor of
    /// the host with the feature `native`.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_blocking(self) -> Result<Stopped, RunError> {
        block_on(self.run())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::LEAST_MEMORY;

    #[test]
    fn no_threads_make_no_node() {
        let error = Builder::new(Network::Regtest).threads(0).build().unwrap_err();
        assert!(matches!(error, BuildError::Option(_)), "{error}");
    }

    #[test]
    fn memory_for_blocks_goes_with_that_for_coins() {
        let mebibytes = |cache: Option<usize>, memory: Option<usize>| {
            let budget = Budget::new(cache.map(|mib| mib << 20), memory.map(|mib| mib << 20), None).unwrap();
            let Budget { cache, chainstate, scheduler, .. } = budget;
            let blocks = [chainstate.bodies_bytes, chainstate.unproved_bytes].map(|bytes| bytes >> 20);
            (cache >> 20, blocks, scheduler.reserved_bytes >> 20)
        };
        assert_eq!(mebibytes(None, None), (450, [64, 64], 128));
        assert_eq!(mebibytes(Some(100), None), (100, [25, 25], 50));
        assert_eq!(mebibytes(Some(4), None), (4, [16, 16], 32));
        assert_eq!(mebibytes(None, Some(64)), (32, [4, 4], 8));
        assert_eq!(mebibytes(Some(100), Some(64)), (100, [4, 4], 8));
        assert_eq!(mebibytes(None, Some(4_000)), (2_000, [64, 64], 128));
    }

    #[test]
    fn what_cannot_be_counted_is_left_out_of_the_memory() {
        assert_eq!(counted(LEAST_MEMORY, false).unwrap(), 32 << 20);
        assert_eq!(counted(320 << 20, true).unwrap(), 32 << 20);
        for (memory, sled) in [((192 << 20) - 1, false), ((320 << 20) - 1, true)] {
            assert!(matches!(counted(memory, sled), Err(BuildError::Option(_))));
        }
    }

    #[test]
    fn a_budget_for_blocks_has_a_least_value() {
        for (network, mebibytes) in [(Network::Main, 549), (Network::Signet, 1), (Network::Regtest, 0)] {
            let error = Builder::new(network).prune(mebibytes).build().unwrap_err();
            assert!(matches!(error, BuildError::Option(_)), "{error}");
        }
    }

    #[cfg(not(feature = "native"))]
    #[test]
    fn without_a_runtime_of_its_own_the_crate_asks_for_the_hosts() {
        let error = Builder::new(Network::Regtest).build().unwrap_err();
        assert!(matches!(error, BuildError::MissingTransport), "{error}");
    }

    #[cfg(all(feature = "native", not(feature = "consensus")))]
    #[test]
    fn without_an_interpreter_the_crate_asks_for_a_verifier() {
        let error = Builder::new(Network::Regtest).build().unwrap_err();
        assert!(matches!(error, BuildError::MissingVerifier), "{error}");
    }

    #[cfg(feature = "native")]
    #[derive(Debug)]
    struct AcceptsAll;

    #[cfg(feature = "native")]
    impl Verifier for AcceptsAll {
        fn verify(
            &self,
            _batch: &[crate::verify::TxScripts<'_>],
        ) -> Result<crate::verify::Verdict, crate::verify::VerifierError> {
            Ok(crate::verify::Verdict::Valid)
        }
    }

    #[cfg(all(feature = "native", not(feature = "sled")))]
    #[test]
    fn without_an_embedded_store_a_directory_needs_the_hosts() {
        let folder = tempfile::tempdir().unwrap();
        let builder = Builder::new(Network::Regtest).verifier(AcceptsAll).datadir(folder.path());
        let error = builder.build().unwrap_err();
        assert!(matches!(error, BuildError::MissingStore), "{error}");
    }

    #[cfg(feature = "native")]
    #[test]
    fn whom_to_connect_to_decides_whether_others_are_looked_for() {
        let peer = || std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let builder = || Builder::new(Network::Main).verifier(AcceptsAll);
        let config = |builder: Builder| {
            let (node, _) = builder.build().unwrap();
            let config = node.parts.engine.config().clone();
            (config.automatic, config.dns_seeds, config.peers.len())
        };
        assert_eq!(config(builder()), (true, true, 0));
        assert_eq!(config(builder().dns(false)), (true, false, 0));
        assert_eq!(config(builder().add_node(peer())), (true, true, 1));
        assert_eq!(config(builder().connect(peer())), (false, false, 1));
        assert_eq!(config(builder().connect(peer()).dns(true)), (true, true, 1));
    }
}
