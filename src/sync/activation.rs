//! The active chain: which blocks are connected and disconnected, in which order, and when what was
//! reached is made durable. Core's `ActivateBestChain` and `FlushStateToDisk`, as decisions only.
//!
//! 1. The target is the tree's best candidate: the block with the most work whose bodies are all there and
//!    that is not known to be invalid; with `stop_at_height`, its ancestor at that height.
//! 2. From where the commands sent so far lead (`planned`), blocks are disconnected down to the fork and
//!    connected up to the target, a bounded number ahead of the answers. A `Disconnect` waits until no
//!    `Connect` is unanswered, so that a block that fails never leaves a `Disconnect` behind it.
//! 3. A block that is found invalid is marked and saved as such; what was sent on top of it comes back as
//!    `Dropped`; then a new target is chosen: perhaps on another branch, perhaps where we came from.
//!    A tip that can't be disconnected because a stored block is damaged stays until that block was fetched
//!    and stored again.
//! 4. Every step goes through [`Commits`] and its `SyncStateFsm`. A commit is asked for when the chainstate
//!    wants one, after each new tip when in step with the network, at intervals before that, at the height
//!    to stop at, and at the end.
//!
//! Left out: carrying the commands out ([`crate::chainstate`]), fetching bodies ([`super::blocks`]).

use super::commits::{CommitError, Commits, Committed};
use super::fsm::{IllegalStep, SyncState};
use super::rollback::BrokenChain;
use crate::chain::block_tree::{BlockTree, HeaderId};
use crate::chain::command::{BlockRef, ChainCommand, ChainReport, HeaderMark, RollbackCheckpoint};
use crate::error::{Reject, RejectKind};
use crate::limits::MAX_PATH_IN_FLIGHT;
use crate::peer::{Cx, Fact};
use crate::time::Timestamp;
use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};

/// The chainstate's reports make no sense: the activation can't go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ActivationError {
    /// A report that answers nothing that was asked.
    #[error("unexpected report: {0}")]
    Unexpected(&'static str),
    /// A step of a commit that was refused.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<IllegalStep> for ActivationError {
    fn from(step: IllegalStep) -> Self {
        Self::Commit(step.into())
    }
}

/// How the machine behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActivationConfig {
    /// No block above this height is connected.
    pub stop_at_height: Option<u32>,
    /// Between commits during the initial sync.
    pub commit_interval: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Connect(HeaderId),
    Disconnect(HeaderId),
}

/// Decides the active chain; see the [module](self).
#[derive(Debug)]
pub struct Activation {
    config: ActivationConfig,
    /// The tip after all commands that were sent.
    planned: HeaderId,
    /// The tip as last reported: all its scripts are proved.
    proved: HeaderId,
    /// The tip that survives a kill.
    durable: HeaderId,
    /// What was sent and not answered.
    steps: VecDeque<Step>,
    /// Stored blocks that were found damaged and are needed to disconnect the tip.
    missing: BTreeSet<HeaderId>,
    /// A block failed: the answers to what was sent on top of it are awaited.
    draining: bool,
    commits: Commits,
    commit_at: Timestamp,
    commit_wanted: bool,
    resting: bool,
    stopping: bool,
    blocks: u64,
    inputs: u64,
}

impl Activation {
    /// Commands to connect and disconnect that are not answered.
    pub fn path_in_flight(&self) -> usize {
        self.steps.len()
    }

    /// A machine whose tip, proved and durable, is `tip`; `last` is the last checkpoint of the store.
    ///
    /// # Errors
    /// [`BrokenChain`] if the checkpoint and the tip contradict each other.
    pub fn new(
        config: ActivationConfig,
        tree: &BlockTree,
        tip: HeaderId,
        last: Option<RollbackCheckpoint>,
    ) -> Result<Self, BrokenChain> {
        let commits = Commits::begin(last, tree.block(tip))?;
        Ok(Self {
            config,
            planned: tip,
            proved: tip,
            durable: tip,
            steps: VecDeque::new(),
            missing: BTreeSet::new(),
            draining: false,
            commits,
            commit_at: Timestamp::ZERO,
            commit_wanted: false,
            resting: false,
            stopping: false,
            blocks: 0,
            inputs: 0,
        })
    }

    /// The proved tip.
    pub fn proved(&self) -> HeaderId {
        self.proved
    }

    /// The durable tip.
    pub fn durable(&self) -> HeaderId {
        self.durable
    }

    /// Blocks connected and inputs checked since the start.
    pub fn totals(&self) -> (u64, u64) {
        (self.blocks, self.inputs)
    }

    /// Where the change of the durable state stands.
    pub fn state(&self) -> SyncState {
        self.commits.state()
    }

    /// The last checkpoint.
    pub fn last_checkpoint(&self) -> Option<&RollbackCheckpoint> {
        self.commits.last()
    }

    /// Whether nothing is under way and everything reached is durable.
    pub fn is_quiet(&self) -> bool {
        self.steps.is_empty() && !self.commits.is_committing() && self.proved == self.durable
    }

    /// The block at the height to stop at, once it is durable.
    pub fn reached(&self, tree: &BlockTree) -> Option<BlockRef> {
        let stop = self.config.stop_at_height?;
        (tree.height(self.durable) >= stop)
            .then(|| tree.ancestor(self.durable, stop))
            .flatten()
            .map(|id| tree.block(id))
    }

    /// Nothing new is connected from now on; what is under way, a whole reorg too, is finished and made durable.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// No more blocks are fetched (`rest`), or are again: meanwhile all that is there is committed once it is proved.
    pub fn set_resting(&mut self, rest: bool) {
        self.resting = rest;
    }

    /// Takes a report of the chainstate into the tree.
    ///
    /// # Errors
    /// [`ActivationError`] if it answers nothing that was asked.
    pub fn on_report(
        &mut self,
        cx: &mut Cx<'_>,
        tree: &mut BlockTree,
        report: &ChainReport,
    ) -> Result<(), ActivationError> {
        match report {
            ChainReport::Stored { block, .. } => {
                let id = tree.find(&block.hash).ok_or(ActivationError::Unexpected("unknown block stored"))?;
                self.missing.remove(&id);
                tree.body_stored(id);
                cx.fact(Fact::CandidatesChanged);
            }
            ChainReport::Refused { block, reject } => {
                let id =
                    tree.find(&block.hash).ok_or(ActivationError::Unexpected("unknown block refused"))?;
                if reject.condemns_hash() {
                    self.condemn(cx, tree, id);
                }
            }
            ChainReport::Connected { block, inputs, .. } => {
                let id = self.answer(tree, *block, Step::Connect)?;
                self.proved = id;
                self.blocks += 1;
                self.inputs += u64::from(*inputs);
                tree.connected(id);
                cx.fact(Fact::TipChanged(id));
            }
            ChainReport::Invalid { block, reject } => {
                let id = self.answer(tree, *block, Step::Connect)?;
                self.fail(cx, tree, id, reject);
            }
            ChainReport::Dropped { block, lost } => {
                let id = match self.steps.front() {
                    Some(Step::Disconnect(_)) => self.answer(tree, *block, Step::Disconnect)?,
                    _ => self.answer(tree, *block, Step::Connect)?,
                };
                if *lost {
                    tree.body_lost(id);
                    cx.fact(Fact::CandidatesChanged);
                }
                self.drain();
            }
            ChainReport::Missing(block) => {
                let id = tree.find(&block.hash);
                self.missing.insert(id.ok_or(ActivationError::Unexpected("unknown block missing"))?);
            }
            ChainReport::Disconnected { block, tip } => {
                let id = self.answer(tree, *block, Step::Disconnect)?;
                let parent = tree.parent(id).filter(|parent| tree.hash(*parent) == tip.hash);
                self.proved = parent.ok_or(ActivationError::Unexpected("another tip after a disconnect"))?;
                cx.fact(Fact::TipChanged(self.proved));
            }
            ChainReport::CheckpointDurable(checkpoint) => self.commits.checkpoint(checkpoint)?,
            ChainReport::Committed(checkpoint) => self.on_committed(tree, checkpoint)?,
            ChainReport::CommitWanted => self.commit_wanted = true,
            ChainReport::Failed(_) => {
                self.commits.failed()?;
            }
            ChainReport::Storage(_) | ChainReport::Read(..) => {}
        }
        Ok(())
    }

    /// The first unanswered step, which must be about this block.
    fn answer(
        &mut self,
        tree: &BlockTree,
        block: BlockRef,
        kind: impl Fn(HeaderId) -> Step,
    ) -> Result<HeaderId, ActivationError> {
        let step =
            self.steps.pop_front().ok_or(ActivationError::Unexpected("an answer without a question"))?;
        let (Step::Connect(id) | Step::Disconnect(id)) = step;
        if step != kind(id) || tree.hash(id) != block.hash {
            return Err(ActivationError::Unexpected("an answer to another question"));
        }
        Ok(id)
    }

    fn fail(&mut self, cx: &mut Cx<'_>, tree: &mut BlockTree, id: HeaderId, reject: &Reject) {
        if reject.kind == RejectKind::Mutated {
            // Only the copy is bad; the block is fetched again.
            tree.body_lost(id);
        } else {
            self.condemn(cx, tree, id);
        }
        cx.fact(Fact::CandidatesChanged);
        self.drain();
    }

    /// Waits for the answers to what was sent on top of a failure; then starts anew from the proved tip.
    fn drain(&mut self) {
        self.draining = !self.steps.is_empty();
        if !self.draining {
            self.planned = self.proved;
        }
    }

    fn condemn(&mut self, cx: &mut Cx<'_>, tree: &mut BlockTree, id: HeaderId) {
        tree.mark_invalid(id);
        cx.command(ChainCommand::SaveMark(tree.hash(id), HeaderMark::Invalid));
        cx.fact(Fact::HeadersAdvanced);
        cx.fact(Fact::CandidatesChanged);
    }

    /// The host wants this block and its descendants treated as invalid.
    pub fn invalidate(&mut self, cx: &mut Cx<'_>, tree: &mut BlockTree, id: HeaderId) {
        if id != tree.genesis() {
            self.condemn(cx, tree, id);
        }
    }

    /// The host takes the invalidity of this block, its ancestors and its descendants back.
    pub fn reconsider(&mut self, cx: &mut Cx<'_>, tree: &mut BlockTree, id: HeaderId) {
        tree.reconsider(id);
        cx.command(ChainCommand::SaveMark(tree.hash(id), HeaderMark::Reconsidered));
        cx.fact(Fact::HeadersAdvanced);
        cx.fact(Fact::CandidatesChanged);
    }

    fn on_committed(
        &mut self,
        tree: &BlockTree,
        checkpoint: &RollbackCheckpoint,
    ) -> Result<(), ActivationError> {
        match self.commits.committed(checkpoint)? {
            Committed::Repeated => return Ok(()),
            Committed::Nothing => {}
            Committed::Durable(tip) => {
                let id = tree.find(&tip.hash);
                self.durable = id.ok_or(ActivationError::Unexpected("an unknown tip is durable"))?;
            }
        }
        let behind = self.planned != self.durable || !self.steps.is_empty();
        self.commits.acknowledge(behind)?;
        Ok(())
    }

    /// Sends what is to be sent now. `synced`: the proved tip is the network's best block.
    ///
    /// # Errors
    /// [`ActivationError`] only by a defect.
    pub fn advance(
        &mut self,
        cx: &mut Cx<'_>,
        tree: &BlockTree,
        synced: bool,
    ) -> Result<(), ActivationError> {
        if matches!(self.commits.state(), SyncState::Failed | SyncState::RollingBack) {
            return Ok(());
        }
        // A stop finishes a reorg, also to a branch that lies and back: it never leaves a worse tip than is durable.
        let between = tree.work(self.planned) < tree.work(self.durable);
        if !self.draining && (!self.stopping || between) {
            self.send_path(cx, tree)?;
        }
        self.send_commit(cx, tree, synced)
    }

    fn target(&self, tree: &BlockTree) -> HeaderId {
        let best = tree.best_candidate(self.planned);
        match self.config.stop_at_height {
            // Above it already: there is nothing to do any more.
            Some(stop) if tree.height(self.proved) >= stop => self.planned,
            Some(stop) if tree.height(best) > stop => tree.ancestor(best, stop).unwrap_or(self.planned),
            _ => best,
        }
    }

    fn send_path(&mut self, cx: &mut Cx<'_>, tree: &BlockTree) -> Result<(), ActivationError> {
        let target = self.target(tree);
        while self.steps.len() < MAX_PATH_IN_FLIGHT && self.planned != target {
            let next = tree.height(self.planned).checked_add(1);
            let (step, command, planned) = if tree.is_ancestor(self.planned, target) {
                let Some(next) = next.and_then(|height| tree.ancestor(target, height)) else { break };
                let mut context = tree.context(next);
                context.scripts = tree.script_policy(next);
                (Step::Connect(next), ChainCommand::Connect(context), next)
            } else {
                let Some(parent) = tree.parent(self.planned) else { break };
                if !self.missing.is_empty() {
                    break;
                }
                if self.steps.iter().any(|step| matches!(step, Step::Connect(_))) {
                    break;
                }
                let tip = self.planned;
                (Step::Disconnect(tip), ChainCommand::Disconnect(tree.block(tip)), parent)
            };
            if self.commits.state() == SyncState::Idle {
                self.commit_at = cx.now.at + self.config.commit_interval;
            }
            self.commits.moved()?;
            cx.command(command);
            self.steps.push_back(step);
            self.planned = planned;
        }
        Ok(())
    }

    fn send_commit(
        &mut self,
        cx: &mut Cx<'_>,
        tree: &BlockTree,
        synced: bool,
    ) -> Result<(), ActivationError> {
        if self.commits.state() != SyncState::Syncing {
            return Ok(());
        }
        let settled = self.steps.is_empty();
        let moved = self.proved != self.durable;
        // In the middle of a reorg the tip is none that was ever the best: it waits for the whole.
        let at_tip = settled && moved && self.planned == self.target(tree);
        let at_stop = self.config.stop_at_height.is_some_and(|stop| tree.height(self.proved) >= stop);
        let due = self.commit_wanted
            || (at_tip && (synced || at_stop || self.resting))
            || (self.stopping && settled && moved)
            || (self.commit_at <= cx.now.at && (moved || !settled));
        if due {
            self.commits.asked()?;
            self.commit_wanted = false;
            self.commit_at = cx.now.at + self.config.commit_interval;
            cx.command(ChainCommand::Commit { time: cx.now.unix });
        }
        Ok(())
    }

    /// When [`Self::advance`] has something to do by the clock.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let behind = self.proved != self.durable || !self.steps.is_empty();
        (self.commits.state() == SyncState::Syncing && behind).then_some(self.commit_at)
    }
}
