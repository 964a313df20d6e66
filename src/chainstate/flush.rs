//! A flush under way: what it has to write, handed to a thread of its own part by part, and what came of it.
//!
//! 1. [`Job::Prepare`]: the block files are synced; then the index entries, and, durable, checkpoint and marker.
//! 2. [`Job::Coins`], as often as there are changes left.
//! 3. [`Job::End`], durable: tip and end of the marker.
//!
//! Jobs are done in order; each is answered with a completion. After one that failed none is done: what it did not write
//! must not be hidden behind what others did. The thread ends with the flush. Where the chainstate's pool has no threads,
//! jobs are done as they are handed over, so that a simulation is the same each time.

use super::coin_table::KeyChanges;
use super::coins::{Written, store_changes};
use super::commit::entry_changes;
use super::pipeline::Completion;
use crate::chain::command::RollbackCheckpoint;
use crate::error::Error;
use crate::store::block_files::BlockFiles;
use crate::store::schema::BlockEntry;
use crate::store::{Batch, Durability, Store, StoreError, commit_in_batches};
use crate::verify::pool::{Effort, catch};
use bitcoin::BlockHash;
use crossbeam_channel::{Receiver, Sender};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Something to write.
#[derive(Debug)]
pub(super) enum Job {
    Prepare { entries: Arc<BTreeMap<BlockHash, BlockEntry>>, first: Batch },
    Coins(KeyChanges),
    End(Batch),
}

/// How far a flush has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Preparing,
    Coins,
    Ending,
}

/// What writes.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    pub files: Arc<BlockFiles>,
    pub store: Arc<dyn Store>,
    pub done: Sender<Completion>,
    /// Changes of coins, and the time that all jobs take.
    pub effort: Arc<Effort>,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Flush {
    /// What it leads to.
    pub checkpoint: RollbackCheckpoint,
    stage: Stage,
    /// Parts that were handed over, from the oldest.
    parts: VecDeque<Written>,
    jobs: Jobs,
}

#[derive(Debug)]
enum Jobs {
    /// `None` after a failure.
    Here(Option<Writer>),
    Thread {
        queue: Option<Sender<Job>>,
        thread: Option<JoinHandle<()>>,
    },
}

impl Flush {
    /// Starts a flush: on a thread, unless `threads` is 0 or none can be had.
    pub fn start(checkpoint: RollbackCheckpoint, writer: Writer, threads: usize) -> Self {
        let jobs = if threads == 0 { None } else { on_a_thread(writer.clone()) };
        let jobs = jobs.unwrap_or(Jobs::Here(Some(writer)));
        Self { checkpoint, stage: Stage::Preparing, parts: VecDeque::new(), jobs }
    }

    pub fn stage(&self) -> Stage {
        self.stage
    }

    pub fn enter(&mut self, stage: Stage) {
        self.stage = stage;
    }

    /// Parts that were handed over and are not written.
    pub fn in_hand(&self) -> usize {
        self.parts.len()
    }

    /// The oldest part was written.
    pub fn written(&mut self) -> Option<Written> {
        self.parts.pop_front()
    }

    /// Hands a part over.
    pub fn hand_coins(&mut self, changes: KeyChanges, written: Written) {
        self.parts.push_back(written);
        self.hand(Job::Coins(changes));
    }

    /// Hands a job over.
    pub fn hand(&mut self, job: Job) {
        match &mut self.jobs {
            Jobs::Here(writer) => {
                if writer.as_ref().is_some_and(|writer| !writer.answer(job)) {
                    *writer = None;
                }
            }
            // A thread that has ended has said why.
            Jobs::Thread { queue, .. } => drop(queue.as_ref().map(|queue| queue.send(job))),
        }
    }
}

impl Drop for Flush {
    /// Waits for the jobs that were handed over.
    fn drop(&mut self) {
        if let Jobs::Thread { queue, thread } = &mut self.jobs {
            *queue = None;
            let _ = thread.take().map(JoinHandle::join);
        }
    }
}

fn on_a_thread(writer: Writer) -> Option<Jobs> {
    let (queue, jobs) = crossbeam_channel::unbounded();
    let builder = std::thread::Builder::new().name("headlong-flush".to_owned());
    let thread = builder.spawn(move || writer.serve(&jobs)).ok()?;
    Some(Jobs::Thread { queue: Some(queue), thread: Some(thread) })
}

impl Writer {
    fn serve(&self, jobs: &Receiver<Job>) {
        for job in jobs {
            if !self.answer(job) {
                return;
            }
        }
    }

    /// Does a job and says how it went; answers whether it went well.
    fn answer(&self, job: Job) -> bool {
        let coins = match &job {
            Job::Coins(changes) => changes.len(),
            _ => 0,
        };
        let result = match catch(|| self.effort.spend(coins, || self.carry_out(job))) {
            Ok(result) => result.map_err(Error::from),
            Err(panic) => Err(Error::WorkerPanic(panic.0)),
        };
        let well = result.is_ok();
        // Nobody listens any more if this fails.
        let _ = self.done.send(Completion::flushed(result));
        well
    }

    fn carry_out(&self, job: Job) -> Result<(), StoreError> {
        match job {
            Job::Prepare { entries, first } => {
                self.files.sync()?;
                commit_in_batches(&*self.store, entry_changes(&entries), Durability::Buffered)?;
                self.store.commit(first, Durability::Durable)
            }
            Job::Coins(changes) => {
                commit_in_batches(&*self.store, store_changes(&changes), Durability::Buffered)
            }
            Job::End(last) => self.store.commit(last, Durability::Durable),
        }
    }
}
