//! The composer: the only place where the machines meet. No I/O, no clock, no locks.
//!
//! To drive it:
//! 1. Call [`Engine::handle`] with each thing that happens and the time; with [`Input::Timer`] at first.
//! 2. Take [`Engine::poll_output`] until [`Output::Idle`], and do what it says in that order. Polling only
//!    pops: nothing depends on how soon it is done.
//! 3. Call again with [`Input::Timer`] at the deadline that `Idle` names, if nothing else comes before.
//! 4. Read from a peer only while [`Engine::may_read`] allows it.
//!
//! The same seed and the same inputs give the same outputs. The parts: [`routing`] passes facts and demands
//! between the machines, `peers` and `inbound` hold the connections, `control` closes the loop of diagnosis and tuning,
//! `scores` replaces low peers and keeps the audit log, `queries` answers the host.

pub mod allowance;
mod control;
mod inbound;
pub mod input;
pub mod load;
pub mod output;
mod peers;
mod queries;
mod reach;
mod replace;
pub mod routing;
mod scores;
pub mod status;

use allowance::Allowance;
pub use inbound::Arrival;
pub use input::{Input, Query, QueryId};
pub use load::{Load, Wakeups};
pub use output::{Answer, Output};

use crate::chain::block_tree::{BlockTree, HeaderId};
use crate::chain::command::{BlockRef, BlockStorage, ChainReport, RollbackCheckpoint};
use crate::chain::params::Params;
use crate::error::Error;
use crate::limits::{
    ADDRESS_HORIZON, AUDIT_RATE_INBOUND, BLOCK_RELAY_TARGET, COMMIT_INTERVAL, FEELER_INTERVAL,
    LOST_BLOCK_ROUNDS, MAX_UNSTORED, MAX_UNSTORED_PER_PEER, OUTBOUND_TARGET, STATUS_INTERVAL,
};
use crate::peer::audit::AuditRecord;
use crate::peer::book::AddressBook;
use crate::peer::dial::{DialConfig, Dialer};
use crate::peer::lifecycle::PeerEvent;
use crate::peer::ping::Pings;
use crate::peer::score::{ScorePolicy, Scores};
use crate::peer::timers::Timers;
use crate::peer::{AddressNetwork, CloseReason, Cx, Demand, Fact, PeerAddress, PeerId, Wishes};
use crate::relay::gossip::Gossip;
use crate::relay::rate::TokenBucket;
use crate::relay::reach::{Reach, ReachConfig};
use crate::relay::serve::{ServeConfig, Serving};
use crate::rng::Rng;
use crate::sync::activation::{Activation, ActivationConfig};
use crate::sync::blocks::{BlockScheduler, SchedulerConfig};
use crate::sync::diagnosis::Thresholds;
use crate::sync::headers::HeaderSync;
use crate::sync::rollback::BrokenChain;
use crate::sync::tuning::TuningConfig;
use crate::sync::watch::PeerWatch;
use crate::time::{Now, Timestamp};
use bitcoin::BlockHash;
use control::Control;
use core::time::Duration;
use peers::Peer;
use status::{Stage, Status};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What a host may choose.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Name and version of the program, as peers see it (BIP14).
    pub user_agent: String,
    /// Addresses to which connections are kept up for ever.
    pub peers: Vec<PeerAddress>,
    /// Whether other connections are made: from saved addresses, gossip and DNS seeds.
    pub automatic: bool,
    /// Whether the network's DNS seeds are asked; needs `automatic`.
    pub dns_seeds: bool,
    /// How many other connections for everything.
    pub outbound_target: usize,
    /// How many other connections that exchange blocks only.
    pub block_relay_target: usize,
    /// How many connections others may open.
    pub inbound_max: usize,
    /// Whether connections are encrypted where both sides can (BIP324).
    pub encrypt: bool,
    /// What is served to peers.
    pub serve: ServeConfig,
    /// Addresses of ours that others reach, as the host says.
    pub own_addresses: Vec<PeerAddress>,
    /// Whether and how others are found out.
    pub reach: ReachConfig,
    /// Networks whose addresses are kept and dialled.
    pub networks: BTreeSet<AddressNetwork>,
    /// Whether names can't be looked up but by a proxy that dials them.
    pub proxied: bool,
    /// Whether the addresses that come with the program are the last resort; needs `automatic`.
    pub fixed_seeds: bool,
    /// Mean time between looks whether an address that was only told is there; zero: never.
    pub probe_interval: Duration,
    /// Addresses not seen for so long are forgotten.
    pub address_horizon: Duration,
    /// Whether each change of the address book is saved within a second, instead of every ten minutes.
    pub persist_on_update: bool,
    /// No block above this height is connected; [`Output::Reached`] tells when it is durable.
    pub stop_at_height: Option<u32>,
    /// Between commits during the initial sync.
    pub commit_interval: Duration,
    /// Whether addresses that peers tell are passed on to others.
    pub relay_addresses: bool,
    /// Bytes a day, in both directions, after which no blocks are fetched and no old ones served.
    pub daily_bytes: Option<u64>,
    /// How far blocks are fetched ahead.
    pub scheduler: SchedulerConfig,
    /// What counts as the bound of the sync.
    pub thresholds: Thresholds,
    /// What may be done about it.
    pub tuning: TuningConfig,
    /// How peers are chosen for blocks, and whether low scores have consequences.
    pub score_policy: ScorePolicy,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            user_agent: concat!("/headlong:", env!("CARGO_PKG_VERSION"), "/").into(),
            peers: Vec::new(),
            automatic: true,
            dns_seeds: true,
            outbound_target: OUTBOUND_TARGET,
            block_relay_target: BLOCK_RELAY_TARGET,
            inbound_max: 0,
            encrypt: true,
            serve: ServeConfig::default(),
            own_addresses: Vec::new(),
            reach: ReachConfig::default(),
            networks: DialConfig::default().networks,
            proxied: false,
            fixed_seeds: true,
            probe_interval: FEELER_INTERVAL,
            address_horizon: ADDRESS_HORIZON,
            persist_on_update: false,
            stop_at_height: None,
            commit_interval: COMMIT_INTERVAL,
            relay_addresses: true,
            daily_bytes: None,
            scheduler: SchedulerConfig::default(),
            thresholds: Thresholds::default(),
            tuning: TuningConfig::default(),
            score_policy: ScorePolicy::default(),
        }
    }
}

/// The engine can't begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The durable tip's header is not in the tree.
    #[error("the header of the durable tip {} at height {} is missing", .0.hash, .0.height)]
    UnknownTip(BlockRef),
    /// The store's checkpoints contradict its tip.
    #[error(transparent)]
    Checkpoints(#[from] BrokenChain),
}

/// All decisions of a node.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    tree: BlockTree,
    rng: Rng,
    now: Now,
    // The machines, by rank.
    peers: BTreeMap<PeerId, Peer>,
    nonces: BTreeSet<u64>,
    next_peer: u64,
    /// The last connections that have ended; at most [`crate::limits::MAX_ENDED_PEERS`].
    ended_peers: VecDeque<output::EndedPeer>,
    /// Bans and replacements, the latest last; at most [`crate::limits::MAX_AUDIT_RECORDS`].
    audit: VecDeque<AuditRecord>,
    /// What may go there of peers that came to us.
    audit_inbound: TokenBucket,
    /// Whether a slow peer may be replaced.
    replacements: replace::Gate,
    next_scores_save: Timestamp,
    dialer: Dialer,
    pings: Pings,
    /// Deadlines of dials and handshakes.
    waits: Timers<PeerId>,
    headers: HeaderSync,
    activation: Activation,
    /// What the chainstate's block files hold.
    storage: BlockStorage,
    blocks: BlockScheduler,
    watch: PeerWatch,
    control: Control,
    serving: Serving,
    gossip: Gossip,
    reach: Reach,
    /// Chooses whom a newcomer displaces.
    eviction_key: [u64; 2],
    /// The tip that peers were told of.
    announced: Option<HeaderId>,
    // What flows between them.
    wishes: Wishes,
    facts: VecDeque<Fact>,
    demands: Vec<Demand>,
    outputs: VecDeque<Output>,
    deadline: Option<Timestamp>,
    /// Delivered blocks that are not stored yet: from whom, and how many bytes.
    unstored: BTreeMap<BlockHash, (Option<PeerId>, usize)>,
    unstored_bytes: usize,
    /// The same bytes by peer; no zeroes.
    held: BTreeMap<PeerId, usize>,
    /// Whose message is being handled.
    delivering: Option<PeerId>,
    paused: BTreeSet<PeerId>,
    /// Peers for which [`Engine::may_read`] has changed since the driver asked.
    read_changes: Vec<PeerId>,
    /// Peers whose handshake is complete.
    ready: usize,
    wakeups: Wakeups,
    // What the host was told.
    known_headers: usize,
    bytes_in: u64,
    allowance: Allowance,
    trouble: Option<String>,
    status: Option<Status>,
    status_at: Timestamp,
    synced: bool,
    reached: bool,
    /// The host wants no blocks fetched.
    resting: bool,
    stopping: bool,
    ended: bool,
}

/// The policy of dialling that a host chose.
fn dialer(config: &EngineConfig, params: &Params, mut book: AddressBook) -> Dialer {
    book.set_horizon(config.address_horizon);
    let seeds: &[&str] = if config.dns_seeds { &params.dns_seeds } else { &[] };
    let fixed = if config.fixed_seeds { params.fixed_seeds } else { &[] };
    let config_of_dialler = DialConfig {
        automatic: config.automatic,
        target: config.outbound_target,
        block_relay_target: config.block_relay_target,
        probe_interval: config.probe_interval,
        networks: config.networks.clone(),
        seeds: seeds.iter().map(ToString::to_string).collect(),
        fetch_from_seeds: config.proxied,
        fixed_seeds: fixed.iter().filter_map(|text| text.parse().ok()).collect(),
        port: params.port,
        persist_on_update: config.persist_on_update,
    };
    let mut dialer = Dialer::new(config_of_dialler, book);
    for address in &config.peers {
        dialer.add_manual(address.clone());
    }
    dialer
}

/// The context of a machine, from disjoint fields of the engine.
macro_rules! cx {
    ($engine:expr) => {
        &mut Cx { now: $engine.now, rng: &mut $engine.rng, out: &mut $engine.wishes }
    };
}
use cx;

impl Engine {
    /// An engine over a tree of headers that knows which bodies are stored. `tip` is the chainstate's tip,
    /// proved and durable; `last` its last checkpoint, if there is one. `seed` decides every random choice.
    ///
    /// # Errors
    /// [`StartError`] if tree, tip and checkpoint contradict each other.
    pub fn new(
        config: EngineConfig,
        tree: BlockTree,
        tip: BlockRef,
        last: Option<RollbackCheckpoint>,
        seed: [u8; 32],
    ) -> Result<Self, StartError> {
        let id = tree.find(&tip.hash).filter(|id| tree.height(*id) == tip.height);
        let id = id.ok_or(StartError::UnknownTip(tip))?;
        let params = tree.params().clone();
        let activation = ActivationConfig {
            stop_at_height: config.stop_at_height,
            commit_interval: config.commit_interval,
        };
        let mut rng = Rng::from_seed(seed);
        let dialer = dialer(&config, &params, AddressBook::new(rng.array()));
        let eviction_key = [rng.u64(), rng.u64()];
        let mut gossip = Gossip::new([rng.u64(), rng.u64()], config.serve.services());
        gossip.set_own(config.own_addresses.clone(), Timestamp::ZERO);
        gossip.set_relaying(config.relay_addresses);
        let mut headers = HeaderSync::new(params);
        headers.set_tip(id);
        Ok(Self {
            rng,
            now: Now::default(),
            peers: BTreeMap::new(),
            nonces: BTreeSet::new(),
            next_peer: 0,
            ended_peers: VecDeque::new(),
            audit: VecDeque::new(),
            audit_inbound: TokenBucket::new(AUDIT_RATE_INBOUND, Timestamp::ZERO),
            replacements: replace::Gate::new(),
            next_scores_save: Timestamp::ZERO,
            dialer,
            pings: Pings::default(),
            waits: Timers::new(),
            storage: BlockStorage::default(),
            activation: Activation::new(activation, &tree, id, last)?,
            blocks: BlockScheduler::new(config.scheduler, &tree, id)
                .up_to(&tree, config.stop_at_height)
                .with_scores(Scores::new(config.score_policy)),
            control: Control::new(config.thresholds, config.tuning, config.scheduler),
            serving: Serving::new(config.serve),
            gossip,
            reach: Reach::new(config.reach.clone(), config.own_addresses.clone()),
            eviction_key,
            announced: None,
            watch: PeerWatch::new(config.outbound_target, id, &tree),
            headers,
            wishes: Wishes::default(),
            facts: VecDeque::new(),
            demands: Vec::new(),
            outputs: VecDeque::new(),
            deadline: Some(Timestamp::ZERO),
            unstored: BTreeMap::new(),
            unstored_bytes: 0,
            held: BTreeMap::new(),
            delivering: None,
            paused: BTreeSet::new(),
            read_changes: Vec::new(),
            ready: 0,
            wakeups: Wakeups::default(),
            known_headers: tree.len(),
            bytes_in: 0,
            allowance: Allowance::new(config.daily_bytes),
            trouble: None,
            status: None,
            status_at: Timestamp::ZERO,
            synced: false,
            reached: false,
            resting: false,
            stopping: false,
            ended: false,
            config,
            tree,
        })
    }

    /// What the chainstate's block files hold at the beginning ([`crate::chainstate::Chainstate::storage`]); without
    /// it, nothing is taken for pruned before the first commit.
    #[must_use]
    pub fn with_storage(mut self, storage: BlockStorage) -> Self {
        self.storage = storage;
        self
    }

    /// Begins with the address book of an earlier run.
    #[must_use]
    pub fn with_addresses(mut self, book: AddressBook) -> Self {
        self.dialer = dialer(&self.config, self.tree.params(), book);
        self.avoid_low_addresses();
        self
    }

    /// Takes one thing that happened. Bounded work; the outputs wait in a queue.
    pub fn handle(&mut self, now: Now, input: Input) {
        if self.ended {
            return;
        }
        // A monotonic clock does not go back; if a host's does, time stands still.
        self.now = Now { at: now.at.max(self.now.at), unix: now.unix };
        if matches!(input, Input::Timer) {
            self.wakeups.all += 1;
            let due = self.deadline.is_some_and(|deadline| deadline <= self.now.at);
            self.wakeups.empty += u64::from(!due);
        }
        self.take(input);
        self.on_timers();
        self.run_passes();
        self.finish();
    }

    /// The next thing to do; [`Output::Idle`] if there is none.
    pub fn poll_output(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or(Output::Idle { deadline: self.deadline })
    }

    /// Whether more bytes may be read from this peer. False while its delivered blocks wait to be stored.
    pub fn may_read(&self, peer: PeerId) -> bool {
        !self.paused.contains(&peer)
    }

    /// The peers for which [`Self::may_read`] has changed since the last call, so that a driver need not ask for each of
    /// thousands after every input.
    pub fn take_read_changes(&mut self) -> Vec<PeerId> {
        core::mem::take(&mut self.read_changes)
    }

    /// How often the engine was woken by its timer.
    pub fn wakeups(&self) -> Wakeups {
        self.wakeups
    }

    /// What the host chose.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// The header tree.
    pub fn tree(&self) -> &BlockTree {
        &self.tree
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Timer => {}
            Input::Connected(peer) => self.on_connected(peer),
            Input::Encrypted(peer, session) => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.session = Some(session);
                }
            }
            Input::Listening(addresses) => self.on_listening(&addresses),
            Input::Answered(id, answer) => self.reach.on_answer(id, answer, self.now),
            Input::Arrived(arrival, address) => self.on_arrival(arrival, address),
            Input::DialFailed(peer, why) => {
                self.note_trouble(peer, why);
                self.life_event(peer, PeerEvent::DiscoveryFailed);
                self.drop_peer(peer, &CloseReason::Remote);
            }
            Input::Closed(peer) => self.on_closed(peer, &CloseReason::Remote),
            Input::Unread(peer) => self.on_closed(peer, &CloseReason::Unread),
            Input::Received(peer, message, bytes) => self.on_received(peer, message, bytes),
            Input::Progress(peer, bytes) => self.on_progress(peer, bytes),
            Input::Faulted(peer, fault) => self.close_peer(peer, CloseReason::Fault(fault)),
            Input::Flushed(id, bytes) => {
                self.serving.on_flushed(cx!(self), id, bytes);
                self.allowance.sent(bytes);
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.bytes_out = peer.bytes_out.saturating_add(bytes as u64);
                }
                self.settle();
                self.end_leave(id);
            }
            Input::Untold(peer) => self.serving.on_untold(cx!(self), peer),
            Input::Resolved(seed, addresses) => {
                if addresses.is_empty() {
                    self.trouble = Some(format!("{seed}: no addresses"));
                }
                self.dialer.on_resolved(&seed, &addresses, self.now, &mut self.rng);
                self.dialer.on_addresses(self.now.at);
            }
            Input::AddAddresses(addresses) => {
                self.dialer.on_known(addresses, self.now, &mut self.rng);
                self.dialer.on_addresses(self.now.at);
            }
            Input::AddPeer(address) => self.dialer.add_manual(address),
            Input::RemovePeer(peer) => {
                if let Some(peer) = self.peers.get(&peer) {
                    self.dialer.remove_manual(&peer.view.address);
                }
                self.leave_peer(peer, CloseReason::Host);
            }
            Input::Chain(report) => self.on_report(report),
            Input::Measured(figures) => self.on_measured(figures),
            Input::Query(id, query) => {
                let answer = self.answer(query);
                self.outputs.push_back(Output::Answer(id, answer));
            }
            Input::Invalidate(hash) => {
                if let Some(id) = self.tree.find(&hash) {
                    self.activation.invalidate(cx!(self), &mut self.tree, id);
                }
            }
            Input::Reconsider(hash) => {
                if let Some(id) = self.tree.find(&hash) {
                    self.activation.reconsider(cx!(self), &mut self.tree, id);
                }
            }
            Input::Pause => self.rest(true),
            Input::Resume => self.rest(false),
            Input::Shutdown => self.shut_down(),
        }
        self.settle();
    }

    fn on_report(&mut self, report: ChainReport) {
        if let ChainReport::Stored { block, .. } | ChainReport::Refused { block, .. } = &report {
            if let ChainReport::Stored { .. } = &report
                && let Some((Some(from), _)) = self.unstored.get(&block.hash)
                && let Some(peer) = self.peers.get_mut(from)
            {
                peer.last_block = Some(self.now.at);
            }
            self.release(&block.hash);
        }
        if let ChainReport::Read(hash, block) = &report {
            self.serving.on_read(cx!(self), *hash, block.as_ref());
            self.settle();
            if block.is_none() {
                let leaving = self.peers.iter().filter(|(_, peer)| peer.leaving.is_some());
                for peer in leaving.map(|(id, _)| *id).collect::<Vec<_>>() {
                    self.end_leave(peer);
                }
            }
            return;
        }
        if let ChainReport::Storage(storage) = &report {
            self.storage = *storage;
        }
        let durable = self.activation.durable();
        if let Err(error) = self.activation.on_report(cx!(self), &mut self.tree, &report)
            && !matches!(report, ChainReport::Failed(_))
        {
            self.fail_with(&error);
            return;
        }
        self.settle();
        self.blocks.on_report(cx!(self), &self.tree, &report);
        if self.activation.durable() != durable {
            self.outputs.push_back(Output::EventsReady);
        }
        if let ChainReport::Failed(error) = report {
            self.fail(error);
        }
    }

    fn fail_with(&mut self, error: &crate::sync::activation::ActivationError) {
        use crate::sync::activation::ActivationError as A;
        use crate::sync::commits::CommitError;
        let what = match error {
            A::Unexpected(what) => what,
            A::Commit(CommitError::Checkpoint(_)) => "a rollback checkpoint that does not follow the last",
            A::Commit(_) => "a step of a commit out of order",
        };
        self.fail(Error::Bug(what));
    }

    /// Ends everything: the host is told, and nothing is handled any more.
    fn fail(&mut self, error: Error) {
        if !self.ended {
            self.ended = true;
            self.deadline = None;
            self.outputs.push_back(Output::Fatal(error));
        }
    }

    fn rest(&mut self, rest: bool) {
        if self.resting == rest {
            return;
        }
        self.resting = rest;
        self.apply_rest();
    }

    fn shut_down(&mut self) {
        if self.stopping {
            return;
        }
        self.stopping = true;
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        for peer in peers {
            self.leave_peer(peer, CloseReason::Shutdown);
        }
        if let Some(book) = self.dialer.take_changed() {
            self.outputs.push_back(Output::SaveAddresses(book));
        }
        self.save_scores();
        self.dialer.stop();
        self.reach.stop();
        self.activation.stop();
    }

    /// What follows once all machines are at rest.
    fn finish(&mut self) {
        if self.ended {
            return;
        }
        self.apply_backpressure();
        self.apply_allowance();
        self.look_around();
        if let Some((BlockRef { height, hash }, LOST_BLOCK_ROUNDS..)) = self.blocks.in_vain(&self.tree) {
            return self.fail(Error::LostBlock { hash, height });
        }
        if self.activation_is_done() {
            self.keep_day(true);
            self.push_status(true);
            self.ended = true;
            self.deadline = None;
            self.outputs.push_back(Output::Stopped(self.tree.block(self.activation.durable())));
            return;
        }
        if !self.reached
            && let Some(block) = self.activation.reached(&self.tree)
        {
            self.reached = true;
            self.outputs.push_back(Output::Reached(block));
        }
        self.control(self.stage());
        let status_due = self.push_status(false);
        self.deadline = self.soonest(status_due);
    }

    fn activation_is_done(&self) -> bool {
        self.stopping && self.activation.is_quiet() && self.peers.is_empty()
    }

    /// Counts a delivered block until it is stored or refused.
    fn hold(&mut self, hash: BlockHash, bytes: usize) {
        self.release(&hash);
        self.unstored.insert(hash, (self.delivering, bytes));
        self.unstored_bytes += bytes;
        if let Some(peer) = self.delivering {
            *self.held.entry(peer).or_default() += bytes;
        }
    }

    fn release(&mut self, hash: &BlockHash) {
        let Some((peer, bytes)) = self.unstored.remove(hash) else { return };
        self.unstored_bytes = self.unstored_bytes.saturating_sub(bytes);
        if let Some(peer) = peer
            && let Some(held) = self.held.get_mut(&peer)
        {
            *held = held.saturating_sub(bytes);
            if *held == 0 {
                self.held.remove(&peer);
            }
        }
    }

    /// Stops and resumes reading; a peer that is not read from has no clocks running.
    fn apply_backpressure(&mut self) {
        let full = self.unstored_bytes >= MAX_UNSTORED;
        let over = |bytes: usize| bytes >= MAX_UNSTORED_PER_PEER || (full && bytes > 0);
        let holding = self.held.iter().map(|(peer, bytes)| (*peer, over(*bytes)));
        let resumed =
            self.paused.iter().filter(|peer| !self.held.contains_key(peer)).map(|peer| (*peer, false));
        let changed: Vec<(PeerId, bool)> = holding
            .chain(resumed)
            .filter(|(peer, pause)| self.paused.contains(peer) != *pause && self.peers.contains_key(peer))
            .collect();
        for (peer, pause) in changed {
            self.read_changes.push(peer);
            if pause {
                self.paused.insert(peer);
                self.pings.pause(peer, self.now.at);
            } else {
                self.paused.remove(&peer);
                self.pings.resume(peer, self.now.at);
            }
            self.blocks.set_paused(cx!(self), peer, pause);
        }
        self.settle();
    }

    /// Where things stand.
    pub fn status(&self) -> Status {
        let (tip, durable) = (self.activation.proved(), self.activation.durable());
        let best = self.tree.best_header();
        let ready = self.ready;
        let (blocks, inputs) = self.activation.totals();
        let stage = self.stage();
        Status {
            stage,
            tip: self.tree.block(tip),
            durable: self.tree.block(durable),
            best_header: self.tree.block(best),
            peers: ready,
            in_flight: self.blocks.in_flight(None),
            paused: self.resting || self.allowance.is_spent(),
            blocks,
            inputs,
            bytes_in: self.bytes_in,
            headers: self.tree.len().saturating_sub(self.known_headers) as u64,
            pruned_below: self.storage.pruned_below,
            block_bytes: self.storage.bytes,
            trouble: self.trouble.clone().filter(|_| ready == 0).or_else(|| self.lost_block()),
            blocker: if stage == Stage::Blocks { self.blocker() } else { None },
            diagnosis: self.control.latest(),
            allowance: self.allowance.status(self.bytes_in),
            reach: self.reach.status(),
        }
    }

    fn stage(&self) -> Stage {
        if self.stopping {
            Stage::Stopping
        } else if !self.synced && self.ready == 0 {
            Stage::Connecting
        } else if !self.synced {
            Stage::Headers
        } else if !self.is_at_end() {
            Stage::Blocks
        } else {
            Stage::Synced
        }
    }

    fn lost_block(&self) -> Option<String> {
        let (BlockRef { height, hash }, _) = self.blocks.in_vain(&self.tree)?;
        Some(format!(
            "block {hash} at height {height} is damaged, has to be undone, and no peer has it so far"
        ))
    }

    /// Tells the status if it changed and the last one is old enough; else answers when it will be.
    fn push_status(&mut self, at_once: bool) -> Option<Timestamp> {
        let status = self.status();
        if self.status.as_ref() == Some(&status) {
            return None;
        }
        let due = self.status_at + STATUS_INTERVAL;
        if self.status.is_some() && due > self.now.at && !at_once {
            return Some(due);
        }
        self.status = Some(status.clone());
        self.status_at = self.now.at;
        self.outputs.push_back(Output::Status(Box::new(status)));
        None
    }

    /// The soonest deadline of all machines.
    fn soonest(&self, status: Option<Timestamp>) -> Option<Timestamp> {
        let more = (!self.demands.is_empty() || !self.facts.is_empty()).then_some(self.now.at);
        let soonest = [
            more,
            status,
            self.dialer.next_deadline(),
            self.reach.next_deadline(),
            self.waits.next(),
            self.pings.next_deadline(),
            if self.stopping { None } else { self.headers.next_deadline() },
            self.activation.next_deadline(),
            self.control.next_deadline(),
            if self.stopping { None } else { self.blocks.next_deadline() },
            if self.stopping { None } else { self.watch.next_deadline() },
            if self.stopping { None } else { self.next_score_deadline() },
            if self.stopping { None } else { self.gossip.next_deadline() },
            if self.stopping { None } else { self.serving.next_deadline() },
            if self.stopping { None } else { self.allowance.next_deadline() },
        ];
        // What could not be done at its time must not make the host spin.
        soonest.into_iter().flatten().min().map(|at| {
            if at <= self.now.at && more.is_none() { self.now.at + Duration::from_millis(1) } else { at }
        })
    }

    /// Whether no better block than the proved tip is to be had.
    fn is_at_end(&self) -> bool {
        self.best_is(self.activation.proved()) || self.blocks.is_at_end(&self.tree)
    }

    fn best_is(&self, id: HeaderId) -> bool {
        self.tree.work(id) >= self.tree.work(self.tree.best_header())
    }
}
