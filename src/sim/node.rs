//! A node of the simulation: a real [`Engine`] over a real [`Chainstate`] on a [`SimDisk`], in lives.
//!
//! What the driver and the threads of a real node do is done here in virtual time: commands reach the
//! chainstate late, results of the pool come back in any order, reports wait in a queue.

use super::disk::{Crash, SimDisk};
use super::manner::Conversation;
use crate::chain::command::{BlockRef, ChainCommand};
use crate::chain::params::Params;
use crate::chainstate::{self, Chainstate, ChainstateOptions, Completion, PruneOptions, Sources};
use crate::engine::{Arrival, Engine, EngineConfig};
use crate::error::Error;
use crate::peer::audit::AuditRecord;
use crate::peer::score::{Saved, ScorePolicy};
use crate::peer::{PeerAddress, PeerId};
use crate::relay::serve::ServeConfig;
use crate::rng::Rng;
use crate::store::block_files::{BlockFiles, BlockFilesOptions};
use crate::store::header_file::{HEADER_FILE, HeaderFile};
use crate::verify::Verifier;
use crate::verify::pool::Pool;
use crate::wire::Message;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Bytes of a segment of a simulated node's block files: a few dozen blocks.
const SEGMENT_BYTES: u32 = 20_000;

/// What a node of the simulation is made of.
#[derive(Clone, Copy, Debug)]
pub struct NodePlan {
    /// Whether its host names all peers; else it dials from a list of addresses.
    pub manual: bool,
    /// Bytes of the coins cache.
    pub coins_bytes: usize,
    /// Changes of one batch of its store.
    pub batch_limit: usize,
    /// Milliseconds between commits during the initial sync.
    pub commit_millis: u64,
    /// Blocks that are fetched ahead.
    pub window: u32,
    /// The most milliseconds for a command or a job of its threads.
    pub work_millis: u64,
    /// Whether it prunes; its segments hold a few blocks then.
    pub prune: Option<PruneOptions>,
    /// Places for peers that come to it, and are served; 0: it does not listen.
    pub inbound: usize,
    /// How it chooses peers for blocks.
    pub score_policy: ScorePolicy,
}

impl Default for NodePlan {
    /// A node whose host names its peers, with a cache that holds everything.
    fn default() -> Self {
        Self {
            manual: true,
            coins_bytes: 1 << 24,
            batch_limit: 1_000,
            commit_millis: 60_000,
            window: 1_024,
            work_millis: 5,
            prune: None,
            inbound: 0,
            score_policy: ScorePolicy::default(),
        }
    }
}

/// A connection, as the node's side sees it.
#[derive(Debug)]
pub(super) struct Link {
    /// Index of the peer.
    pub peer: usize,
    pub conversation: Conversation,
    pub open: bool,
    /// When the last byte sent so far arrives, either way: bytes of one connection keep their order.
    pub to_node: u64,
    pub to_peer: u64,
    /// Bytes that have been sent to the node.
    pub sent: u64,
    /// Messages that came while the engine did not want to read.
    pub held: VecDeque<(Message, usize)>,
    /// The peer has closed; told once all that it sent is read.
    pub ended: bool,
}

/// One life of a node.
#[derive(Debug)]
pub(super) struct Life {
    pub engine: Engine,
    pub chainstate: Chainstate,
    pub begun: u64,
    pub links: BTreeMap<PeerId, Link>,
    /// Connections that wait for the engine's word, and the peers that opened them.
    pub arrivals: BTreeMap<Arrival, usize>,
    pub next_arrival: u64,
    pub commands: VecDeque<ChainCommand>,
    pub completions: BTreeMap<u64, Completion>,
    pub next_completion: u64,
    pub deadline: Option<u64>,
    /// Reports keep their order.
    pub last_report: u64,
    /// Commands keep their order.
    pub last_command: u64,
    pub news: bool,
    /// Faults of the disk before it began.
    pub faults_before: usize,
    /// Faults of the disk that were noticed.
    pub faults: usize,
    pub stopping: bool,
}

/// A node over all its lives.
#[derive(Debug)]
pub(super) struct SimNode {
    pub plan: NodePlan,
    pub disk: SimDisk,
    pub verifier: Arc<dyn Verifier>,
    pub pool: Arc<Pool>,
    /// Counts the lives; what was under way for an earlier one is void.
    pub number: u64,
    pub life: Option<Life>,
    /// The last event that the consumer has dealt with.
    pub cursor: Option<BlockRef>,
    /// Events that the consumer has got.
    pub events: u64,
    /// Sequence of the last checkpoint that was reported as committed, and its tip.
    pub committed: (u64, Option<BlockRef>),
    /// Seconds by which its clock is wrong.
    pub clock: i64,
    /// Outputs until it dies.
    pub fuse: Option<(u64, Crash)>,
    /// How it dies when its disk says so.
    pub death: Crash,
    /// The highest that its durable tip was since its disk was last empty.
    pub highest: u32,
    /// Its disk has lied or stored something wrongly since it was last wiped.
    pub damaged: bool,
    /// How often it had pruned what a reorg needed.
    pub caught: u32,
    /// What its lives have learnt of peers; a file that no fault strikes.
    pub scores: Option<Vec<u8>>,
    /// Peers that made room for others for their scores.
    pub replaced: Vec<AuditRecord>,
}

impl SimNode {
    /// A node that has not begun.
    pub fn new(plan: NodePlan, verifier: Arc<dyn Verifier>, pool: Arc<Pool>) -> Self {
        Self {
            plan,
            disk: SimDisk::new(plan.batch_limit),
            verifier,
            pool,
            number: 0,
            life: None,
            cursor: None,
            events: 0,
            committed: (0, None),
            clock: 0,
            fuse: None,
            death: Crash::Kill,
            highest: 0,
            damaged: false,
            caught: 0,
            scores: None,
            replaced: Vec::new(),
        }
    }

    /// Opens what is on the disk.
    pub fn open(
        &self,
        params: &Arc<Params>,
        peers: &[PeerAddress],
        now: u64,
        rng: &mut Rng,
    ) -> Result<Life, Error> {
        let faults_before = self.disk.struck().len();
        let files = Arc::new(self.disk.files());
        let (headers, loaded) = HeaderFile::with_medium(files.clone(), HEADER_FILE)?;
        let segment_bytes = self.plan.prune.map_or(SEGMENT_BYTES, |prune| prune.files().segment_bytes);
        let options = BlockFilesOptions { segment_bytes, key: Some(rng.array()) };
        let sources = Sources {
            params: params.clone(),
            store: Arc::new(self.disk.store()),
            blocks: BlockFiles::with_medium(files, options)?,
            headers,
            loaded,
            pool: self.pool.clone(),
            verifier: self.verifier.clone(),
        };
        let budget = ChainstateOptions::default().coins_bytes(self.plan.coins_bytes).bodies_bytes(200_000);
        let budget = budget.prune(self.plan.prune);
        let opened = chainstate::open(sources, budget, [rng.u64(), rng.u64()])?;
        let mut config = EngineConfig {
            peers: if self.plan.manual { peers.to_vec() } else { Vec::new() },
            automatic: !self.plan.manual,
            dns_seeds: false,
            commit_interval: Duration::from_millis(self.plan.commit_millis),
            inbound_max: self.plan.inbound,
            serve: ServeConfig {
                enabled: self.plan.inbound > 0,
                pruned: self.plan.prune.is_some(),
                upload_budget: None,
            },
            ..EngineConfig::default()
        };
        config.score_policy = self.plan.score_policy;
        config.scheduler.window = self.plan.window;
        let last = opened.chainstate.checkpoint().clone();
        let engine = Engine::new(config, opened.tree, opened.tip, Some(last), rng.array())
            .map_err(|_| Error::Bug("recovery and engine contradict each other"))?
            .with_storage(opened.chainstate.storage());
        let saved = self.scores.as_deref().map(Saved::decode).transpose();
        let engine = match saved.map_err(|_| Error::Bug("scores that are not read back"))? {
            Some(saved) => engine.with_scores(saved),
            None => engine,
        };
        Ok(Life {
            engine,
            chainstate: opened.chainstate,
            begun: now,
            links: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            next_arrival: 0,
            commands: VecDeque::new(),
            completions: BTreeMap::new(),
            next_completion: 0,
            deadline: Some(now),
            last_report: now,
            last_command: now,
            news: true,
            faults_before,
            faults: self.disk.struck().len(),
            stopping: false,
        })
    }
}
