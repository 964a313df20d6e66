//! The scripts of one block on many threads.
//!
//! 1. The transactions are cut into batches of about [`SCRIPT_BATCH_INPUTS`] inputs; one with many inputs
//!    is a batch of its own. A batch is one job of the pool.
//! 2. The caller goes on at once with a [`Ticket`], and is told through a channel when the last job ended.
//! 3. The verdict is the same with any number of threads: of all batches that found something, the one of
//!    the lowest transaction counts. A batch behind a known failure need not run.
//!
//! Core checks scripts likewise (checkqueue.h), but waits for them at the end of each block.

use super::pool::{Effort, Pool, WorkerPanic, catch};
use super::{ScriptFailure, TxScripts, Verdict, Verified, Verifier, VerifierError};
use crate::chain::command::{BlockContext, BlockRef, ScriptPolicy};
use crate::chain::deployments::ScriptFlags;
use crate::consensus::block::CheckedBlock;
use crate::error::{Error, Reject};
use crate::limits::SCRIPT_BATCH_INPUTS;
use bitcoin::TxOut;
use crossbeam_channel::Sender;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A block whose coins were found, and whose scripts are to be executed.
#[derive(Clone, Debug)]
pub struct ScriptTask {
    /// The block.
    pub block: Arc<CheckedBlock>,
    /// The outputs spent by all its inputs in order, the coinbase's not among them.
    pub spent: Arc<[TxOut]>,
    /// Its place, its flags, and whether the scripts are executed at all.
    pub context: BlockContext,
}

/// Why a block's scripts are not proved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScriptError {
    /// A script failed. `transaction` counts within the block.
    #[error("script of input {} of transaction {} failed", .0.input, .0.transaction)]
    Failed(ScriptFailure),
    /// The verifier gave no verdict.
    #[error("the verifier failed: {0}")]
    Verifier(String),
    /// A worker panicked.
    #[error(transparent)]
    Panic(#[from] WorkerPanic),
    /// [`Ticket::cancel`] was called before the verdict.
    #[error("the check was cancelled")]
    Cancelled,
    /// There are not as many spent outputs as inputs: a defect of the caller.
    #[error("spent outputs do not fit the block's inputs")]
    Mismatch,
}

impl ScriptError {
    /// The refusal of the block if a script failed, else the error that stops the chainstate.
    ///
    /// # Errors
    /// Whatever is not the block's fault.
    pub fn into_reject(self) -> Result<Reject, Error> {
        match self {
            Self::Failed(failure) => {
                let ScriptFailure { transaction, input } = failure;
                Ok(Reject::consensus("block-script-verify-flag-failed")
                    .with_detail(format!("input {input} of transaction {transaction}")))
            }
            Self::Verifier(reason) => Err(Error::Verifier(VerifierError { reason })),
            Self::Panic(panic) => Err(Error::WorkerPanic(panic.0)),
            Self::Cancelled => Err(Error::Bug("the verdict of a cancelled check was asked for")),
            Self::Mismatch => Err(Error::Bug("spent outputs do not fit the block's inputs")),
        }
    }
}

/// A pool of threads with a verifier.
#[derive(Clone, Debug)]
pub struct ScriptPool {
    pool: Arc<Pool>,
    verifier: Arc<dyn Verifier>,
    effort: Arc<Effort>,
}

impl ScriptPool {
    /// Uses `pool`, which may have other work too.
    pub fn new(pool: Arc<Pool>, verifier: Arc<dyn Verifier>) -> Self {
        Self { pool, verifier, effort: Arc::default() }
    }

    /// The verifier.
    pub fn verifier(&self) -> &Arc<dyn Verifier> {
        &self.verifier
    }

    /// Inputs whose scripts were executed, and the time that it took.
    pub fn effort(&self) -> &Arc<Effort> {
        &self.effort
    }

    /// Starts to check the scripts of a block. Returns at once, unless the pool's queue is full or it has
    /// no threads. When all is done, `done` is sent its value, once; its channel should be unbounded, for a
    /// thread of the pool waits while it is full. A task whose policy is to assume is done at once.
    pub fn check<T: Send + 'static>(&self, task: ScriptTask, done: Option<(Sender<T>, T)>) -> Ticket {
        let done = done.map(|(sender, value)| -> Done {
            Box::new(move || {
                // Nobody listens any more if this fails.
                let _ = sender.send(value);
            })
        });
        let block = task.context.block();
        let inputs: usize = task.block.inputs();
        let batches = match task.context.scripts {
            ScriptPolicy::AssumeValid => Ok(Vec::new()),
            ScriptPolicy::Verify if inputs != task.spent.len() => Err(ScriptError::Mismatch),
            ScriptPolicy::Verify => Ok(batches(&task.block)),
        };
        let (batches, found) = match batches {
            Ok(batches) => (batches, None),
            Err(error) => (Vec::new(), Some((0, error))),
        };
        let lowest = AtomicUsize::new(usize::MAX);
        let state = State { left: batches.len(), found, done };
        let policy = task.context.scripts;
        let shared =
            Arc::new(Shared { block, policy, lowest, state: Mutex::new(state), ended: Condvar::new() });
        if batches.is_empty() {
            shared.end(None, 0);
        }
        for batch in batches {
            let (task, shared, verifier) = (task.clone(), Arc::clone(&shared), Arc::clone(&self.verifier));
            let effort = Arc::clone(&self.effort);
            self.pool.submit(Box::new(move || {
                let found = effort.spend(batch.inputs, || batch.found(&task, &shared, verifier.as_ref()));
                drop(task);
                shared.end(found, 1);
            }));
        }
        Ticket { shared }
    }
}

/// A run of transactions and the spent outputs that belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ScriptBatch {
    first: usize,
    end: usize,
    spent: usize,
    inputs: usize,
}

/// Cuts the transactions behind the coinbase into batches.
fn batches(block: &CheckedBlock) -> Vec<ScriptBatch> {
    let mut batches = Vec::new();
    let (mut first, mut spent, mut inputs) = (1, 0, 0);
    for (index, tx) in block.transactions().iter().enumerate().skip(1) {
        // What is gathered is closed before a transaction that would more than fill it.
        if inputs > 0 && inputs + tx.input.len() > SCRIPT_BATCH_INPUTS {
            batches.push(ScriptBatch { first, end: index, spent, inputs });
            (first, spent, inputs) = (index, spent + inputs, 0);
        }
        inputs += tx.input.len();
    }
    if inputs > 0 {
        batches.push(ScriptBatch { first, end: block.transactions().len(), spent, inputs });
    }
    batches
}

impl ScriptBatch {
    /// Checks the batch; what it found, with the transaction's index.
    fn found(
        self,
        task: &ScriptTask,
        shared: &Shared,
        verifier: &dyn Verifier,
    ) -> Option<(usize, ScriptError)> {
        if shared.lowest.load(Ordering::Relaxed) < self.first {
            return None;
        }
        let verdict = match catch(|| self.verify(task, verifier)) {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(error)) => return Some((self.first, error)),
            Err(panic) => return Some((self.first, panic.into())),
        };
        let Verdict::Invalid(ScriptFailure { transaction, input }) = verdict else { return None };
        let transaction = self.first.saturating_add(transaction);
        Some((transaction, ScriptError::Failed(ScriptFailure { transaction, input })))
    }

    fn verify(self, task: &ScriptTask, verifier: &dyn Verifier) -> Result<Verdict, ScriptError> {
        let flags: ScriptFlags = task.context.rules.script_flags;
        let mut left = task.spent.get(self.spent..).unwrap_or(&[]);
        let mut scripts = Vec::with_capacity(self.end - self.first);
        for index in self.first..self.end {
            let tx = task.block.transactions().get(index).ok_or(ScriptError::Mismatch)?;
            let (spent, rest) = left.split_at_checked(tx.input.len()).ok_or(ScriptError::Mismatch)?;
            left = rest;
            scripts.push(TxScripts { tx, raw: task.block.raw_transaction(index), spent, flags });
        }
        verifier.verify(&scripts).map_err(|error| ScriptError::Verifier(error.reason))
    }
}

type Done = Box<dyn FnOnce() + Send>;

struct State {
    /// Batches that have not ended.
    left: usize,
    /// What was found, at the lowest transaction so far.
    found: Option<(usize, ScriptError)>,
    /// To be called at the end.
    done: Option<Done>,
}

struct Shared {
    block: BlockRef,
    policy: ScriptPolicy,
    /// Transaction of `found`, readable without the lock.
    lowest: AtomicUsize,
    state: Mutex<State>,
    ended: Condvar,
}

impl core::fmt::Debug for Shared {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Shared").field("block", &self.block).finish_non_exhaustive()
    }
}

impl Shared {
    /// Records that `batches` batches ended, and what they found.
    fn end(&self, found: Option<(usize, ScriptError)>, batches: usize) {
        let mut state = self.state.lock();
        if let Some((at, error)) = found
            && state.found.as_ref().is_none_or(|(lowest, _)| at < *lowest)
        {
            self.lowest.store(at, Ordering::Relaxed);
            state.found = Some((at, error));
        }
        state.left = state.left.saturating_sub(batches);
        if state.left > 0 {
            return;
        }
        let done = state.done.take();
        self.ended.notify_all();
        drop(state);
        if let Some(done) = done {
            done();
        }
    }

    fn result(&self, state: &State) -> Result<Verified<BlockRef>, ScriptError> {
        match &state.found {
            Some((_, error)) => Err(error.clone()),
            None => Ok(Verified::assumed(self.block, self.policy)
                .unwrap_or_else(|| Verified::by_scripts(self.block))),
        }
    }
}

/// The promise of a verdict about one block's scripts. Dropping it changes nothing for the jobs.
#[derive(Debug)]
pub struct Ticket {
    shared: Arc<Shared>,
}

impl Ticket {
    /// The block.
    pub fn block(&self) -> BlockRef {
        self.shared.block
    }

    /// The verdict, if all jobs have ended.
    pub fn poll(&self) -> Option<Result<Verified<BlockRef>, ScriptError>> {
        let state = self.shared.state.lock();
        (state.left == 0).then(|| self.shared.result(&state))
    }

    /// Gives the check up: batches that no thread has begun are not run. The caller is still told when all
    /// jobs have ended, and the verdict then is [`ScriptError::Cancelled`], unless it was there before.
    pub fn cancel(&self) {
        let mut state = self.shared.state.lock();
        if state.left > 0 {
            self.shared.lowest.store(0, Ordering::Relaxed);
            state.found = Some((0, ScriptError::Cancelled));
        }
    }

    /// Waits for the verdict. Must not be called on a thread of the pool.
    ///
    /// # Errors
    /// [`ScriptError`], which says whose fault it is.
    pub fn wait(&self) -> Result<Verified<BlockRef>, ScriptError> {
        let mut state = self.shared.state.lock();
        while state.left > 0 {
            self.shared.ended.wait(&mut state);
        }
        self.shared.result(&state)
    }
}
