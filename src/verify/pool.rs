//! Threads for work that keeps a processor busy: decoding and checking blocks, executing scripts.
//!
//! 1. Jobs wait in a bounded queue; submitting to a full one blocks.
//! 2. With no threads, a job runs at once on the thread that submits it.
//! 3. A panic of a job ends neither its thread nor goes unseen: it comes back as a value.
//! 4. Dropping the pool runs what is queued, then joins the threads.
//!
//! A job must not submit to its own pool: with the queue full, nothing would ever empty it.

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Work for a pool.
pub type Job = Box<dyn FnOnce() + Send>;

/// Panics that are kept until they are taken; later ones only repeat the news.
const KEPT_PANICS: usize = 16;

/// A job panicked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a worker panicked: {0}")]
pub struct WorkerPanic(
    /// The panic's message.
    pub String,
);

/// Threads with one queue.
#[derive(Debug)]
pub struct Pool {
    queue: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
    panics: Arc<Mutex<VecDeque<WorkerPanic>>>,
}

impl Pool {
    /// Starts `threads` threads called `name-0`, `name-1`, …, with room for `capacity` waiting jobs.
    ///
    /// # Errors
    /// What the system fails with if it cannot start a thread.
    pub fn new(name: &str, threads: usize, capacity: usize) -> io::Result<Self> {
        let mut pool = Self { queue: None, threads: Vec::new(), panics: Arc::default() };
        if threads == 0 {
            return Ok(pool);
        }
        let (sender, receiver) = bounded(capacity.max(1));
        // Set first: on an error below, dropping the pool then ends the threads that did start.
        pool.queue = Some(sender);
        for i in 0..threads {
            let (receiver, panics) = (receiver.clone(), Arc::clone(&pool.panics));
            let builder = std::thread::Builder::new().name(format!("{name}-{i}"));
            pool.threads.push(builder.spawn(move || work(&receiver, &panics))?);
        }
        Ok(pool)
    }

    /// The number of threads; 0 if jobs run where they are submitted.
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Jobs that wait.
    pub fn queued(&self) -> usize {
        self.queue.as_ref().map_or(0, Sender::len)
    }

    /// Runs `job`, as soon as a thread is free. Blocks while the queue is full. If it panics,
    /// [`Pool::take_panic`] tells.
    pub fn submit(&self, job: Job) {
        let refused = match &self.queue {
            Some(queue) => queue.send(job).err().map(|error| error.into_inner()),
            None => Some(job),
        };
        // No threads are there to take it.
        if let Some(job) = refused {
            run_caught(job, &self.panics);
        }
    }

    /// Runs `job` and hands what it returned, or its panic, to `done` on the same thread.
    pub fn run<T>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(Result<T, WorkerPanic>) + Send + 'static,
    ) {
        self.submit(Box::new(move || done(catch(job))));
    }

    /// The oldest panic of a job given to [`Pool::submit`] that was not taken yet.
    pub fn take_panic(&self) -> Option<WorkerPanic> {
        self.panics.lock().pop_front()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.queue = None;
        let me = std::thread::current().id();
        for thread in self.threads.drain(..) {
            // A job may hold the last reference to its own pool; it cannot wait for itself.
            if thread.thread().id() != me {
                let _ = thread.join();
            }
        }
    }
}

fn work(queue: &Receiver<Job>, panics: &Mutex<VecDeque<WorkerPanic>>) {
    for job in queue {
        run_caught(job, panics);
    }
}

fn run_caught(job: Job, panics: &Mutex<VecDeque<WorkerPanic>>) {
    if let Err(panic) = catch(job) {
        let mut panics = panics.lock();
        if panics.len() < KEPT_PANICS {
            panics.push_back(panic);
        }
    }
}

/// Runs `job` and turns its panic into a value. What it shared with others is guarded by locks or owned.
pub(super) fn catch<T>(job: impl FnOnce() -> T) -> Result<T, WorkerPanic> {
    catch_unwind(AssertUnwindSafe(job)).map_err(|payload| WorkerPanic(message(payload.as_ref())))
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
