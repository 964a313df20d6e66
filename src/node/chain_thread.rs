//! The thread that owns the chainstate, `headlong-chain`.
//!
//! 1. It sleeps until there is a command, a finished script check, or a question of a host.
//! 2. After each it drains the chainstate's reports into the driver's inbox.
//! 3. When the driver drops its end, the commands that are queued are carried out, the chainstate and its
//!    files are closed, the durable tip is published, and the thread ends. When told to stop at once, it
//!    leaves queued commands alone: what is durable stays, the rest is done again by the next run.

use super::addresses;
use super::inbox::{Inbound, Inbox};
use super::requests::{At, Body, ChainRequest};
use super::trust::Trust;
use super::wait::Watch;
use super::{audit_log, kept};
use crate::chain::command::{BlockRef, ChainCommand, ChainReport};
use crate::chainstate::{Chainstate, PipelineStatus};
use crate::engine::allowance::UsedDay;
use crate::error::Error;
use crate::store::StoreError;
use crate::store::datadir::Datadir;
use crate::trace;
use bitcoin::BlockHash;
use crossbeam_channel::{Receiver, Sender, select};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Work of the thread, done in order.
#[derive(Debug)]
pub(super) enum Work {
    Command(ChainCommand),
    /// Keep the address book for the next run.
    SaveAddresses(Vec<u8>),
    /// Keep what was learnt of peers for the next run.
    SaveScores(Vec<u8>),
    /// Keep what was used of the day's bytes.
    SaveUsedDay(UsedDay),
    /// Add a line to the audit log.
    Audit(String),
}

/// Publishes the durable tip when the chainstate is gone, however it goes.
#[derive(Debug)]
pub(super) struct EndSignal {
    ended: Arc<Watch<Option<BlockRef>>>,
    durable: BlockRef,
}

impl EndSignal {
    pub(super) fn new(ended: Arc<Watch<Option<BlockRef>>>, durable: BlockRef) -> Self {
        Self { ended, durable }
    }
}

impl Drop for EndSignal {
    fn drop(&mut self) {
        let durable = self.durable;
        self.ended.update(|tip| *tip = Some(durable));
        self.ended.close();
    }
}

/// What the thread owns. Fields are dropped in this order: files first, then the signal.
#[derive(Debug)]
pub(super) struct ChainParts {
    pub(super) chainstate: Chainstate,
    pub(super) requests: Receiver<ChainRequest>,
    /// Locked until the chainstate is gone; takes the saved addresses.
    pub(super) datadir: Option<Datadir>,
    pub(super) trust: Trust,
    /// Where hosts read what the pipeline does.
    pub(super) pipeline: Arc<Mutex<PipelineStatus>>,
    pub(super) end: EndSignal,
}

/// The driver's end of the thread. Dropping it stops the thread at the next step.
#[derive(Debug)]
pub(super) struct ChainThread {
    work: Option<Sender<Work>>,
    stop: Arc<AtomicBool>,
}

impl Drop for ChainThread {
    fn drop(&mut self) {
        self.stop_now();
    }
}

impl ChainThread {
    /// Starts the thread.
    pub(super) fn start(parts: ChainParts, inbox: Inbox) -> io::Result<Self> {
        let (work, queued) = crossbeam_channel::unbounded();
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        std::thread::Builder::new()
            .name("headlong-chain".to_owned())
            .spawn(move || serve(parts, &queued, &inbox, &told))?;
        Ok(Self { work: Some(work), stop })
    }

    /// Queues work.
    pub(super) fn push(&self, work: Work) {
        if let Some(queue) = &self.work {
            // A thread that has ended has said why.
            let _ = queue.send(work);
        }
    }

    /// Lets the thread end when the queue is empty.
    pub(super) fn finish(&mut self) {
        self.work = None;
    }

    /// Lets the thread end after the step it is in.
    pub(super) fn stop_now(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.work = None;
    }
}

fn serve(mut parts: ChainParts, work: &Receiver<Work>, inbox: &Inbox, stop: &AtomicBool) {
    inbox.catch(|| parts.serve(work, inbox, stop));
    let ChainParts { chainstate, requests, datadir, end, .. } = parts;
    // Whoever still waits learns that nobody answers any more.
    drop(requests);
    inbox.catch(|| drop(chainstate));
    drop(datadir);
    drop(end);
    inbox.send(Inbound::ChainEnded);
}

impl ChainParts {
    fn serve(&mut self, work: &Receiver<Work>, inbox: &Inbox, stop: &AtomicBool) {
        let mut hosts_gone = crossbeam_channel::never();
        core::mem::swap(&mut hosts_gone, &mut self.requests);
        let mut requests = hosts_gone;
        let completions = self.chainstate.completions().clone();
        while !stop.load(Ordering::Acquire) {
            select! {
                recv(completions) -> completion => match completion {
                    Ok(completion) => self.chainstate.complete(completion),
                    Err(_) => {
                        let gone = Error::Bug("the script pool has ended");
                        return inbox.send(Inbound::Chain(ChainReport::Failed(gone)));
                    }
                },
                recv(work) -> next => match next {
                    Ok(Work::Command(command)) => {
                        if let Err(error) = self.trust.before(&command, self.datadir.as_ref()) {
                            return inbox.send(Inbound::Chain(ChainReport::Failed(error.into())));
                        }
                        self.chainstate.submit(command);
                    }
                    Ok(Work::SaveAddresses(book)) => self.save_addresses(&book),
                    Ok(Work::SaveScores(bytes)) => self.keep("scores", |dir| kept::save_scores(dir, &bytes)),
                    Ok(Work::SaveUsedDay(day)) => self.keep("bytes of the day", |dir| kept::save_day(dir, &day)),
                    Ok(Work::Audit(line)) => self.keep("audit record", |dir| audit_log::add(dir, &line)),
                    Err(_) => {
                        // A flush that was begun is finished, unless there is no time.
                        if !stop.load(Ordering::Acquire) {
                            self.chainstate.settle();
                        }
                        return self.report(inbox);
                    }
                },
                recv(requests) -> request => match request {
                    Ok(request) => self.answer(request),
                    // All handles and the node's own end are gone: only the driver is left.
                    Err(_) => requests = crossbeam_channel::never(),
                },
            }
            self.report(inbox);
        }
    }

    fn report(&mut self, inbox: &Inbox) {
        *self.pipeline.lock() = self.chainstate.pipeline();
        while let Some(report) = self.chainstate.poll() {
            if let ChainReport::Committed(checkpoint) = &report {
                self.end.durable = checkpoint.to;
            }
            inbox.send(Inbound::Chain(report));
        }
    }

    fn answer(&mut self, request: ChainRequest) {
        match request {
            ChainRequest::Block(hash, reply) => {
                let _ = reply.send(self.body(&hash));
            }
            ChainRequest::Coin(outpoint, reply) => {
                let coin = self.chainstate.coin(&outpoint);
                let trust = self.trust.proof();
                let _ = reply.send(coin.map(|(value, tip)| At { value, tip, trust }));
            }
            ChainRequest::UtxoStats(reply) => {
                let stats = self.chainstate.utxo_stats();
                let trust = self.trust.proof();
                let _ = reply.send(stats.map(|(value, tip)| At { value, tip, trust }));
            }
        }
    }

    fn body(&self, hash: &BlockHash) -> Result<Body, Error> {
        Ok(match self.chainstate.read_block(hash)? {
            Some(raw) => Body::Stored(raw),
            None if self.chainstate.is_pruned(hash)? => Body::Pruned(self.chainstate.storage().pruned_below),
            None => Body::Absent,
        })
    }

    fn save_addresses(&self, book: &[u8]) {
        self.keep("addresses", |datadir| addresses::save(datadir, book));
    }

    /// Writes advisory data: without it the next run asks the seeds again, and learns anew.
    fn keep(&self, what: &str, write: impl FnOnce(&Datadir) -> Result<(), StoreError>) {
        if let Some(datadir) = &self.datadir
            && let Err(error) = write(datadir)
        {
            trace::event!(WARN, "not saved", what = what, error = error);
        }
    }
}
