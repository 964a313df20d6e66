//! The chainstate as a machine: commands in, reports out, slow work on a pool.
//!
//! 1. `StoreBlock` is checked on the pool as soon as it comes and appended to the block files when its check
//!    is done; it waits for nothing. So do `SaveHeaders`, `SaveMark` and `ReadBlock`.
//! 2. `Connect`, `Disconnect` and `Commit` wait in one queue and are carried out in order.
//! 3. A `Connect` changes the coins and puts its scripts on the pool, and the next one follows at once.
//!    As the watermark of proved scripts advances from the oldest, `Connected` is reported. A failure is reported
//!    when it is the oldest, since one below it would come first; all unproved blocks are taken back then.
//! 4. `Disconnect` and `Commit` wait until every block is proved. A `Disconnect` that a damaged file stands
//!    in the way of reports which block has to be stored again, `Missing`.
//!
//! The thread that owns this value does the work between; nothing here starts threads. A host passes what
//! comes through [`Chainstate::completions`] to [`Chainstate::complete`] and then drains
//! [`Chainstate::poll`]; one without a network calls [`Chainstate::settle`].

use super::ahead::Loading;
use super::archive::Archive;
use super::bodies::Bodies;
use super::body::{BodyResult, check_received};
use super::coins::{Coins, Found};
use super::connect::{ConnectError, connect};
use super::disconnect::disconnect;
use super::flush::{Flush, Writer};
use super::gauges::{Gauges, Wait};
use super::memory::ChainstateOptions;
use super::prefetch::Prefetch;
use super::prune::Pruning;
use super::repair::{Lost, to_disconnect};
use super::utxo_hash::{UtxoStats, utxo_stats};
use crate::chain::command::{
    BlockContext, BlockRef, ChainCommand, ChainReport, HeaderMark, RawBlock, RollbackCheckpoint,
};
use crate::chain::params::Params;
use crate::consensus::block::{CheckedBlock, contextual_check_block};
use crate::error::{Error, Reject};
use crate::limits::MAX_UNPROVED_BLOCKS;
use crate::store::Store;
use crate::store::coin::Coin;
use crate::store::header_file::HeaderFile;
use crate::verify::pool::{Pool, WorkerPanic};
use crate::verify::scripts::{ScriptPool, ScriptTask, Ticket};
use crate::verify::{CheckError, Proof, Verified, Verifier};
use bitcoin::{BlockHash, OutPoint};
use crossbeam_channel::{Receiver, Sender};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

/// The result of a job of the pool, for [`Chainstate::complete`].
#[derive(Debug)]
pub struct Completion(Done);

#[derive(Debug)]
enum Done {
    /// A body from outside was checked.
    Checked(BlockHash, Result<BodyResult, WorkerPanic>),
    /// A body from the block files was checked again.
    Loaded(BlockHash, Result<BodyResult, WorkerPanic>),
    /// The scripts of the block with this number are done.
    Scripts(u64),
    /// A job of the flush is done.
    Flushed(Result<(), Error>),
    /// Segments of the block files were deleted.
    Removed(Result<(), Error>),
    /// A part of a batch of coins was looked for.
    Fetched(u64, Result<Found, Error>),
}

impl Completion {
    /// A job of the flush is done.
    pub(super) fn flushed(result: Result<(), Error>) -> Self {
        Self(Done::Flushed(result))
    }

    /// Segments of the block files were deleted.
    pub(super) fn removed(result: Result<(), Error>) -> Self {
        Self(Done::Removed(result))
    }

    /// A stored block was read back and checked.
    pub(super) fn loaded(hash: BlockHash, body: Result<BodyResult, WorkerPanic>) -> Self {
        Self(Done::Loaded(hash, body))
    }

    /// A part of a batch of coins was looked for.
    pub(super) fn fetched(batch: u64, found: Result<Found, Error>) -> Self {
        Self(Done::Fetched(batch, found))
    }
}

/// A block whose scripts are not known to be satisfied.
#[derive(Debug)]
pub(super) struct Unproved {
    number: u64,
    context: BlockContext,
    inputs: u32,
    transactions: u32,
    bytes: usize,
    state: ProofState,
}

#[derive(Debug)]
enum ProofState {
    Waiting(Ticket),
    Proved(Verified<BlockRef>),
    Failed(Reject),
}

/// A body that is being checked.
#[derive(Debug)]
pub(super) struct Checking {
    block: BlockRef,
    /// `StoreBlock` commands that wait for it.
    commands: u32,
    /// `ReadBlock` commands that wait for it.
    reads: u32,
}

/// Whether the head of the queue was carried out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Done,
    Wait(Wait),
}

/// The owner of the coins. See the [module](self).
#[derive(Debug)]
pub struct Chainstate {
    pub(super) params: Arc<Params>,
    pub(super) store: Arc<dyn Store>,
    pub(super) coins: Coins,
    pub(super) archive: Archive,
    pub(super) headers: HeaderFile,
    pub(super) pool: Arc<Pool>,
    pub(super) scripts: ScriptPool,
    pub(super) sender: Sender<Completion>,
    receiver: Receiver<Completion>,
    pub(super) queue: VecDeque<ChainCommand>,
    pub(super) reports: VecDeque<ChainReport>,
    pub(super) checking: BTreeMap<BlockHash, Checking>,
    pub(super) loading: BTreeMap<BlockHash, Loading>,
    pub(super) bodies: Bodies,
    pub(super) unproved: VecDeque<Unproved>,
    pub(super) unproved_bytes: usize,
    most_unproved: usize,
    pub(super) flush: Option<Flush>,
    pub(super) prefetch: Prefetch,
    pub(super) gauges: Gauges,
    pub(super) pruning: Pruning,
    number: u64,
    /// The last connected block, its scripts proved or not.
    top: BlockRef,
    /// The last block that is proved together with all its ancestors.
    pub(super) proved: BlockRef,
    /// The weakest proof since the genesis block, as far as this process connected it.
    trust: Proof,
    /// The last committed block.
    pub(super) durable: BlockRef,
    pub(super) checkpoint: RollbackCheckpoint,
    /// Median times past by height, up to the tip's parent at least.
    mtps: Vec<u32>,
    commit_wanted: bool,
    /// The last `Disconnect` could not be carried out, so neither can those that stand behind it.
    stuck: bool,
    stopped: bool,
}

/// What recovery hands over.
pub(super) struct Parts {
    pub params: Arc<Params>,
    pub options: ChainstateOptions,
    /// Keys the table of coins.
    pub key: u64,
    pub store: Arc<dyn Store>,
    pub archive: Archive,
    pub headers: HeaderFile,
    pub pool: Arc<Pool>,
    pub verifier: Arc<dyn Verifier>,
    pub tip: BlockRef,
    pub checkpoint: RollbackCheckpoint,
    pub mtps: Vec<u32>,
    pub pruning: Pruning,
}

impl Chainstate {
    pub(super) fn new(parts: Parts) -> Result<Self, Error> {
        let (sender, receiver) = crossbeam_channel::unbounded();
        Ok(Self {
            params: parts.params,
            coins: Coins::new(parts.store.clone(), parts.options.coins_bytes, parts.key)?,
            store: parts.store,
            archive: parts.archive,
            headers: parts.headers,
            scripts: ScriptPool::new(parts.pool.clone(), parts.verifier),
            pool: parts.pool,
            sender,
            receiver,
            queue: VecDeque::new(),
            reports: VecDeque::new(),
            checking: BTreeMap::new(),
            loading: BTreeMap::new(),
            bodies: Bodies::new(parts.options.bodies_bytes),
            unproved: VecDeque::new(),
            unproved_bytes: 0,
            most_unproved: parts.options.unproved_bytes,
            flush: None,
            prefetch: Prefetch::default(),
            gauges: Gauges::default(),
            pruning: parts.pruning,
            number: 0,
            top: parts.tip,
            proved: parts.tip,
            trust: Proof::Scripts,
            durable: parts.tip,
            checkpoint: parts.checkpoint,
            mtps: parts.mtps,
            commit_wanted: false,
            stuck: false,
            stopped: false,
        })
    }

    /// Takes a command. After `Failed` was reported, nothing happens any more.
    pub fn submit(&mut self, command: ChainCommand) {
        if self.stopped {
            return;
        }
        let done = match command {
            ChainCommand::SaveHeaders(headers) => self.headers.append_headers(&headers).map_err(Error::from),
            ChainCommand::SaveMark(hash, mark) => self.save_mark(hash, mark),
            ChainCommand::StoreBlock(context, raw) => self.store_block(context, raw),
            ChainCommand::ReadBlock(hash) => self.answer_read(hash),
            ChainCommand::LendToCoins(bytes) => {
                self.coins.lend(usize::try_from(bytes).unwrap_or(usize::MAX));
                Ok(())
            }
            ordered @ (ChainCommand::Connect(_)
            | ChainCommand::Disconnect(_)
            | ChainCommand::Commit { .. }) => {
                self.queue.push_back(ordered);
                Ok(())
            }
        };
        self.stop_on(done);
        self.pump();
    }

    /// Results of the pool, to be passed to [`Self::complete`].
    pub fn completions(&self) -> &Receiver<Completion> {
        &self.receiver
    }

    /// Takes a result of the pool.
    pub fn complete(&mut self, completion: Completion) {
        if self.stopped {
            return;
        }
        let done = match completion.0 {
            Done::Checked(hash, result) => self.checked(hash, result),
            Done::Loaded(hash, result) => self.loaded(hash, result),
            Done::Scripts(number) => self.scripts_done(number),
            Done::Flushed(result) => {
                let start = Instant::now();
                let done = self.flushed(result);
                self.gauges.commit_step(start);
                done
            }
            Done::Removed(result) => self.removed(result),
            Done::Fetched(batch, found) => self.fetched(batch, found),
        };
        self.stop_on(done);
        self.pump();
    }

    /// The next report.
    pub fn poll(&mut self) -> Option<ChainReport> {
        self.reports.pop_front()
    }

    /// Blocks until all that can be done without a further command is done. Reports are waiting then; a
    /// `CommitWanted` among them means that `Connect`s wait for a `Commit`, or soon will.
    pub fn settle(&mut self) {
        self.pump();
        while !self.stopped && self.is_busy() {
            // The chainstate holds a sender itself, so that receiving cannot fail.
            let Ok(completion) = self.receiver.recv() else { break };
            self.complete(completion);
        }
    }

    /// Whether work is on the pool whose result is waited for.
    pub fn is_busy(&self) -> bool {
        !self.checking.is_empty()
            || !self.loading.is_empty()
            || self.flush.is_some()
            || self.pruning.is_busy()
            || !self.prefetch.is_idle()
            || self.unproved.iter().any(|block| matches!(block.state, ProofState::Waiting(_)))
    }

    /// The verifier.
    pub fn verifier(&self) -> &Arc<dyn Verifier> {
        self.scripts.verifier()
    }

    /// The last block that is proved together with all its ancestors.
    pub fn tip(&self) -> BlockRef {
        self.proved
    }

    /// The last committed block.
    pub fn durable_tip(&self) -> BlockRef {
        self.durable
    }

    /// The checkpoint of the last commit.
    pub fn checkpoint(&self) -> &RollbackCheckpoint {
        &self.checkpoint
    }

    /// What the blocks that this process connected rest on: the weakest of their proofs.
    pub fn trust(&self) -> Proof {
        self.trust
    }

    /// The coin of an outpoint, if it is unspent at the proved tip, and that tip.
    ///
    /// # Errors
    /// A storage failure.
    pub fn coin(&self, outpoint: &OutPoint) -> Result<(Option<Coin>, BlockRef), Error> {
        Ok((self.coins.get_proved(outpoint)?, self.proved))
    }

    /// A stored block; `None` if it is not stored or damaged.
    ///
    /// # Errors
    /// A storage failure.
    pub fn read_block(&self, hash: &BlockHash) -> Result<Option<RawBlock>, Error> {
        Ok(self.archive.read_block(hash)?.and_then(RawBlock::new).filter(|raw| raw.hash() == *hash))
    }

    /// Hashes of all coins at the committed tip, and that tip. Takes long on a large set.
    ///
    /// # Errors
    /// A storage failure.
    pub fn utxo_stats(&self) -> Result<(UtxoStats, BlockRef), Error> {
        Ok((utxo_stats(&*self.store)?, self.durable))
    }

    fn stop_on(&mut self, result: Result<(), Error>) {
        if let Err(error) = result
            && !self.stopped
        {
            self.stopped = true;
            self.reports.push_back(ChainReport::Failed(error));
        }
    }

    // ---- bodies ----

    fn save_mark(&mut self, hash: BlockHash, mark: HeaderMark) -> Result<(), Error> {
        Ok(self.headers.append_mark(hash, mark)?)
    }

    fn store_block(&mut self, context: BlockContext, raw: RawBlock) -> Result<(), Error> {
        let hash = raw.hash();
        if let Some(transactions) = self.archive.transactions(&hash)? {
            self.reports.push_back(ChainReport::Stored { block: context.block(), transactions });
            return Ok(());
        }
        if let Some(checking) = self.checking.get_mut(&hash) {
            checking.commands += 1;
            return Ok(());
        }
        self.checking.insert(hash, Checking { block: context.block(), commands: 1, reads: 0 });
        let (params, verifier) = (self.params.clone(), self.scripts.verifier().clone());
        let bytes = raw.bytes().clone();
        let (sender, effort) = (self.sender.clone(), self.gauges.check.clone());
        self.pool.run(
            move || effort.spend(1, || check_received(bytes, &params, &*verifier, &context)),
            move |result| drop(sender.send(Completion(Done::Checked(hash, result)))),
        );
        Ok(())
    }

    /// Checks a block in its place, and stores it: for a caller that has checked it by itself already. A
    /// refusal is the inner error.
    ///
    /// # Errors
    /// A storage failure.
    pub fn store_checked(
        &mut self,
        context: &BlockContext,
        block: Arc<CheckedBlock>,
    ) -> Result<Result<(), Reject>, Error> {
        if let Err(reject) = contextual_check_block(&block, context) {
            return Ok(Err(reject));
        }
        if self.archive.transactions(&context.hash)?.is_none() {
            let transactions = count(block.transactions().len());
            self.archive.put_block(context.block(), block.raw(), transactions)?;
            self.bodies.insert(context.height, block);
        }
        Ok(Ok(()))
    }

    fn checked(&mut self, hash: BlockHash, result: Result<BodyResult, WorkerPanic>) -> Result<(), Error> {
        let Some(checking) = self.checking.remove(&hash) else { return Ok(()) };
        let block = checking.block;
        match result.map_err(|panic| Error::WorkerPanic(panic.0))? {
            Ok(body) => {
                let transactions = count(body.transactions().len());
                self.archive.put_block(block, body.raw(), transactions)?;
                self.bodies.insert(block.height, body);
                for _ in 0..checking.commands {
                    self.reports.push_back(ChainReport::Stored { block, transactions });
                }
            }
            Err(CheckError::Rejected(reject)) => {
                for _ in 0..checking.commands {
                    self.reports.push_back(ChainReport::Refused { block, reject: reject.clone() });
                }
            }
            Err(CheckError::Verifier(error)) => return Err(error.into()),
        }
        for _ in 0..checking.reads {
            self.answer_read(hash)?;
        }
        Ok(())
    }

    fn answer_read(&mut self, hash: BlockHash) -> Result<(), Error> {
        if let Some(checking) = self.checking.get_mut(&hash) {
            checking.reads += 1;
            return Ok(());
        }
        let raw = self.read_block(&hash)?;
        self.reports.push_back(ChainReport::Read(hash, raw));
        Ok(())
    }

    // ---- the queue ----

    fn pump(&mut self) {
        while !self.stopped {
            self.merge_proved();
            match self.step() {
                Ok(Step::Done) => self.gauges.go_on(),
                Ok(Step::Wait(what)) => return self.gauges.wait(what),
                Err(error) => self.stop_on(Err(error)),
            }
        }
    }

    fn step(&mut self) -> Result<Step, Error> {
        if self.coins.is_full() && self.flush.is_none() && self.is_ahead() {
            self.hasten_commit();
        }
        let Some(head) = self.queue.front() else { return Ok(Step::Wait(Wait::Blocks)) };
        let step = match head {
            ChainCommand::Connect(context) => {
                let context = *context;
                self.step_connect(&context)?
            }
            _ if !self.unproved.is_empty() => Step::Wait(Wait::Scripts),
            ChainCommand::Commit { .. } if self.flush.is_some() => Step::Wait(Wait::Commit),
            ChainCommand::Commit { .. } if !self.prefetch.is_idle() => Step::Wait(Wait::Coins),
            ChainCommand::Disconnect(block) => {
                let block = *block;
                self.step_disconnect(block)?
            }
            ChainCommand::Commit { time } => {
                let (time, start) = (*time, Instant::now());
                // What was waited for is there.
                self.gauges.go_on();
                self.commit_proved(time)?;
                self.gauges.commit_at_once(start);
                self.commit_wanted = false;
                Step::Done
            }
            _ => Step::Done,
        };
        if step == Step::Done {
            self.queue.pop_front();
        }
        Ok(step)
    }

    fn step_connect(&mut self, context: &BlockContext) -> Result<Step, Error> {
        let block = context.block();
        // A failure above the watermark is settled first: it decides what the tip is.
        if self.unproved.back().is_some_and(|last| matches!(last.state, ProofState::Failed(_))) {
            return Ok(Step::Wait(Wait::Scripts));
        }
        if context.prev != self.top.hash || Some(context.height) != self.top.height.checked_add(1) {
            return Ok(self.drop_connect(block, false));
        }
        let crowded = self.unproved.len() >= MAX_UNPROVED_BLOCKS || self.unproved_bytes >= self.most_unproved;
        if crowded && !self.unproved.is_empty() {
            return Ok(Step::Wait(Wait::Scripts));
        }
        if !self.has_room() {
            let scripts = self.flush.is_none() && !self.unproved.is_empty();
            return Ok(Step::Wait(if scripts { Wait::Scripts } else { Wait::Commit }));
        }
        if !self.look_ahead(block)? {
            self.archive.forget(&block.hash)?;
            return Ok(self.drop_connect(block, true));
        }
        if !self.prefetch.is_done(&block.hash) {
            return Ok(Step::Wait(Wait::Coins));
        }
        let Some(body) = self.bodies.take(&context.hash) else { return Ok(Step::Wait(Wait::Bodies)) };
        self.prefetch.used(&block.hash);
        self.connect_body(context, body)?;
        Ok(Step::Done)
    }

    /// Answers that a block is not connected, once all before it are answered for.
    fn drop_connect(&mut self, block: BlockRef, lost: bool) -> Step {
        if !self.unproved.is_empty() {
            return Step::Wait(Wait::Scripts);
        }
        self.reports.push_back(ChainReport::Dropped { block, lost });
        Step::Done
    }

    /// Whether there is room for another block's coins. A full cache forgets clean ones. If there are too few, a
    /// commit is asked for, once, and waited for. It is asked for before, so that blocks need not wait for it.
    fn has_room(&mut self) -> bool {
        let committing = self.flush.is_some() || self.commit_in_queue().is_some();
        let due = self.coins.wants_flush() || self.has_to_prune();
        if self.is_ahead() && !committing && !self.commit_wanted && due {
            self.want_commit();
        }
        if !self.coins.is_full() || self.coins.make_room() {
            return true;
        }
        if self.flush.is_some() || self.coins.unproved() > 0 {
            return false;
        }
        if self.coins.dirty() == 0 {
            // Not even one block fits.
            return true;
        }
        if self.commit_in_queue().is_some() {
            // What stands in front of it has an order.
            return true;
        }
        if !self.commit_wanted {
            self.want_commit();
        }
        false
    }

    /// Whether a commit would not take the durable tip back: it does in the middle of a reorg, and waits for its end.
    fn is_ahead(&self) -> bool {
        self.proved.height >= self.durable.height
    }

    /// With a full cache, a commit goes ahead of blocks that wait to connect.
    fn hasten_commit(&mut self) {
        if let Some(at) = self.commit_in_queue()
            && self.queue.iter().take(at).all(|command| matches!(command, ChainCommand::Connect(_)))
            && let Some(commit) = self.queue.remove(at)
        {
            self.queue.push_front(commit);
        }
    }

    fn commit_in_queue(&self) -> Option<usize> {
        self.queue.iter().position(|command| matches!(command, ChainCommand::Commit { .. }))
    }

    fn want_commit(&mut self) {
        self.commit_wanted = true;
        self.reports.push_back(ChainReport::CommitWanted);
    }

    pub(super) fn start_flush(&self, checkpoint: RollbackCheckpoint) -> Flush {
        let writer = Writer {
            files: self.archive.files().clone(),
            store: self.store.clone(),
            done: self.sender.clone(),
            effort: self.gauges.commit.clone(),
        };
        Flush::start(checkpoint, writer, self.pool.threads())
    }

    fn connect_body(&mut self, context: &BlockContext, body: Arc<CheckedBlock>) -> Result<(), Error> {
        let inputs = count(body.inputs());
        let transactions = count(body.transactions().len());
        self.number += 1;
        let number = self.number;
        self.gauges.go_on();
        let work = || connect(&mut self.coins, &body, context, &self.params, &self.mtps);
        let result = self.gauges.connect.spend(1, work);
        self.gauges.read(self.coins.take_reading());
        let (state, bytes) = match result {
            Ok(connection) => {
                // The scripts' check holds the outputs spent a second time.
                let bytes = connection.applied.bytes() * 2 + body.size() * 2;
                self.coins.push(connection.applied);
                self.set_mtp(context)?;
                self.top = context.block();
                let task = ScriptTask { block: body, spent: connection.spent.into(), context: *context };
                let done = (self.sender.clone(), Completion(Done::Scripts(number)));
                let ticket = self.scripts.check(task, Some(done));
                (ProofState::Waiting(ticket), bytes)
            }
            Err(ConnectError::Rule(reject)) => {
                self.coins.release();
                (ProofState::Failed(reject), 0)
            }
            Err(ConnectError::Halt(error)) => return Err(error),
        };
        self.unproved_bytes += bytes;
        self.unproved.push_back(Unproved { number, context: *context, inputs, transactions, bytes, state });
        Ok(())
    }

    /// Keeps the parent's median time past; all above belong to another branch.
    fn set_mtp(&mut self, context: &BlockContext) -> Result<(), Error> {
        let parent = context.height.saturating_sub(1) as usize;
        if self.mtps.len() < parent {
            return Err(Error::Bug("the median time past of an ancestor is not known"));
        }
        self.mtps.truncate(parent);
        self.mtps.push(context.parent_mtp);
        Ok(())
    }

    fn scripts_done(&mut self, number: u64) -> Result<(), Error> {
        // A block that was dropped meanwhile is not found.
        let Some(block) = self.unproved.iter_mut().find(|block| block.number == number) else {
            return Ok(());
        };
        if let ProofState::Waiting(ticket) = &block.state
            && let Some(result) = ticket.poll()
        {
            block.state = match result {
                Ok(proof) => ProofState::Proved(proof),
                Err(error) => ProofState::Failed(error.into_reject()?),
            };
        }
        Ok(())
    }

    /// Advances the watermark over all blocks that are proved, and settles the first failure above it.
    fn merge_proved(&mut self) {
        while let Some(oldest) = self.unproved.front() {
            match &oldest.state {
                ProofState::Waiting(_) => return,
                ProofState::Proved(proof) => {
                    let proof = proof.clone();
                    if let Err(error) = self.merge_oldest(proof) {
                        return self.stop_on(Err(error));
                    }
                }
                ProofState::Failed(reject) => {
                    let (block, reject) = (oldest.context.block(), reject.clone());
                    self.coins.drop_unproved();
                    self.top = self.proved;
                    self.unproved_bytes = 0;
                    self.reports.push_back(ChainReport::Invalid { block, reject });
                    for dropped in self.unproved.drain(..).skip(1) {
                        let block = dropped.context.block();
                        self.reports.push_back(ChainReport::Dropped { block, lost: false });
                    }
                }
            }
        }
    }

    fn merge_oldest(&mut self, proof: Verified<BlockRef>) -> Result<(), Error> {
        let Some(oldest) = self.unproved.front() else { return Ok(()) };
        // Until its undo data are stored, nothing is proved.
        let undo = self.coins.oldest_undo().ok_or(Error::Bug("a connected block has no undo data"))?;
        self.archive.put_undo(&oldest.context.hash, undo)?;
        self.coins.prove_oldest();
        let Some(oldest) = self.unproved.pop_front() else { return Ok(()) };
        self.unproved_bytes = self.unproved_bytes.saturating_sub(oldest.bytes);
        self.trust = self.trust.min(proof.proof());
        self.proved = proof.into_inner();
        self.reports.push_back(ChainReport::Connected {
            block: self.proved,
            inputs: oldest.inputs,
            transactions: oldest.transactions,
        });
        Ok(())
    }

    fn step_disconnect(&mut self, block: BlockRef) -> Result<Step, Error> {
        if block != self.top {
            // It was refused or dropped after the command was given: it is not connected, as was wanted.
            if block.height > self.top.height {
                self.reports.push_back(ChainReport::Disconnected { block, tip: self.top });
                return Ok(Step::Done);
            }
            if self.stuck {
                self.reports.push_back(ChainReport::Dropped { block, lost: false });
                return Ok(Step::Done);
            }
            return Err(Error::Bug("a block is disconnected that is not the tip"));
        }
        let found = to_disconnect(&self.archive, block)?;
        self.stuck = found.is_err();
        let undo = match found {
            Ok(undo) => undo,
            Err(Lost(lost)) => {
                self.archive.forget(&lost.hash)?;
                self.reports.push_back(ChainReport::Missing(lost));
                self.reports.push_back(ChainReport::Dropped { block, lost: false });
                return Ok(Step::Done);
            }
        };
        if undo.rebuilt {
            self.archive.forget_undo(&block.hash)?;
        }
        let body = undo.block;
        disconnect(&mut self.coins, &body, block, &undo.coins)?;
        let height = block.height.checked_sub(1).ok_or(Error::Bug("the genesis block is disconnected"))?;
        self.top = BlockRef { height, hash: body.header().prev_blockhash };
        self.proved = self.top;
        self.pruning.lowered(height);
        self.reports.push_back(ChainReport::Disconnected { block, tip: self.top });
        Ok(Step::Done)
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chainstate_can_live_on_a_thread_of_its_own() {
        fn is_send<T: Send>() {}
        is_send::<Chainstate>();
        is_send::<Completion>();
        is_send::<ChainReport>();
    }
}
