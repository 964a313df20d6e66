//! Threads for work that keeps a processor busy: decoding and checking blocks, executing scripts.
//!
//! 1. Jobs wait in a bounded queue; submitting to a full one blocks. Those that others wait for
//!    ([`Pool::run_first`]) have a queue of their own, which is emptied first.
//! 2. With no threads, a job runs at once on the thread that submits it.
//! 3. A panic of a job ends neither its thread nor goes unseen: it comes back as a value.
//! 4. Dropping the pool runs what is queued, then joins the threads.
//!
//! A job must not submit to its own pool: with the queue full, nothing would ever empty it.

use crossbeam_channel::{Receiver, Sender, bounded, select};
use parking_lot::Mutex;
use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Work for a pool.
pub type Job = Box<dyn FnOnce() + Send>;

/// Panics that are kept until they are taken; later ones only repeat the news.
const KEPT_PANICS: usize = 16;

/// Work of one kind that was done, and the time that it took, on whatever threads.
#[derive(Debug, Default)]
pub struct Effort {
    done: AtomicU64,
    nanos: AtomicU64,
}

impl Effort {
    /// Does `work`, which counts as `count` things done, and takes its time.
    pub fn spend<T>(&self, count: usize, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.nanos.fetch_add(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX), Relaxed);
        self.done.fetch_add(count as u64, Relaxed);
        result
    }

    /// Things done.
    pub fn done(&self) -> u64 {
        self.done.load(Relaxed)
    }

    /// Time that they took, summed over all threads.
    pub fn busy(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Relaxed))
    }
}

/// A job panicked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a worker panicked: {0}")]
pub struct WorkerPanic(
    /// The panic's message.
    pub String,
);

/// Threads that take jobs from two queues.
#[derive(Debug)]
pub struct Pool {
    queues: Option<Queues<Sender<Job>>>,
    threads: Vec<JoinHandle<()>>,
    panics: Arc<Mutex<VecDeque<WorkerPanic>>>,
}

#[derive(Clone, Debug)]
struct Queues<T> {
    /// Emptied before the other.
    first: T,
    usual: T,
}

impl Pool {
    /// Starts `threads` threads called `name-0`, `name-1`, …, with room for `capacity` waiting jobs in each queue.
    ///
    /// # Errors
    /// What the system fails with if it cannot start a thread.
    pub fn new(name: &str, threads: usize, capacity: usize) -> io::Result<Self> {
        let mut pool = Self { queues: None, threads: Vec::new(), panics: Arc::default() };
        if threads == 0 {
            return Ok(pool);
        }
        let ((first, from_first), (usual, from_usual)) = (bounded(capacity.max(1)), bounded(capacity.max(1)));
        // Set first: on an error below, dropping the pool then ends the threads that did start.
        pool.queues = Some(Queues { first, usual });
        let receivers = Queues { first: from_first, usual: from_usual };
        for i in 0..threads {
            let (receivers, panics) = (receivers.clone(), Arc::clone(&pool.panics));
            let builder = std::thread::Builder::new().name(format!("{name}-{i}"));
            pool.threads.push(builder.spawn(move || work(&receivers, &panics))?);
        }
        Ok(pool)
    }

    /// The number of threads; 0 if jobs run where they are submitted.
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Jobs that wait.
    pub fn queued(&self) -> usize {
        self.queues.as_ref().map_or(0, |queues| queues.first.len() + queues.usual.len())
    }

    /// Runs `job`, as soon as a thread is free. Blocks while the queue is full. If it panics,
    /// [`Pool::take_panic`] tells.
    pub fn submit(&self, job: Job) {
        self.put(job, |queues| &queues.usual);
    }

    fn put(&self, job: Job, choose: impl FnOnce(&Queues<Sender<Job>>) -> &Sender<Job>) {
        let refused = match self.queues.as_ref().map(choose) {
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

    /// As [`Pool::run`], before all jobs that were not given this way.
    pub fn run_first<T>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(Result<T, WorkerPanic>) + Send + 'static,
    ) {
        self.put(Box::new(move || done(catch(job))), |queues| &queues.first);
    }

    /// The oldest panic of a job given to [`Pool::submit`] that was not taken yet.
    pub fn take_panic(&self) -> Option<WorkerPanic> {
        self.panics.lock().pop_front()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.queues = None;
        let me = std::thread::current().id();
        for thread in self.threads.drain(..) {
            // A job may hold the last reference to its own pool; it cannot wait for itself.
            if thread.thread().id() != me {
                let _ = thread.join();
            }
        }
    }
}

fn work(queues: &Queues<Receiver<Job>>, panics: &Mutex<VecDeque<WorkerPanic>>) {
    loop {
        let job = queues.first.try_recv().ok().or_else(|| {
            // Either is an error once the pool is gone and that queue is empty; the other may not be.
            select! {
                recv(queues.first) -> job => job.ok().or_else(|| queues.usual.recv().ok()),
                recv(queues.usual) -> job => job.ok().or_else(|| queues.first.recv().ok()),
            }
        });
        match job {
            Some(job) => run_caught(job, panics),
            None => return,
        }
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
pub(crate) fn catch<T>(job: impl FnOnce() -> T) -> Result<T, WorkerPanic> {
    catch_unwind(AssertUnwindSafe(job)).map_err(|payload| WorkerPanic(message(payload.as_ref())))
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::unbounded;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_job_runs_before_the_pool_is_gone() {
        for threads in [0, 1, 4] {
            let pool = Pool::new("test", threads, 2).unwrap();
            assert_eq!(pool.threads(), threads);
            let count = Arc::new(AtomicUsize::new(0));
            for _ in 0..100 {
                let count = Arc::clone(&count);
                pool.submit(Box::new(move || {
                    count.fetch_add(1, Ordering::Relaxed);
                }));
            }
            drop(pool);
            assert_eq!(count.load(Ordering::Relaxed), 100);
        }
    }

    #[test]
    fn jobs_run_on_named_threads_or_on_the_caller() {
        for (threads, expected) in [(1, Some("worker-0")), (0, std::thread::current().name())] {
            let (sender, names) = unbounded();
            Pool::new("worker", threads, 1).unwrap().run(
                || std::thread::current().name().map(str::to_owned),
                move |name| sender.send(name).unwrap(),
            );
            assert_eq!(names.recv().unwrap().unwrap().as_deref(), expected);
        }
    }

    #[test]
    fn panics_come_back_as_values_and_threads_live_on() {
        for threads in [0, 1, 3] {
            let pool = Pool::new("test", threads, 1).unwrap();
            let (sender, results) = unbounded();
            for i in 0..6 {
                let sender = sender.clone();
                let job = move || if i % 2 == 0 { panic!("job {i}") } else { i };
                pool.run(job, move |result| sender.send(result).unwrap());
            }
            drop(sender);
            let mut results: Vec<_> = results.iter().collect();
            results.sort_by_key(|result| format!("{result:?}"));
            let panic = |i| Err(WorkerPanic(format!("job {i}")));
            assert_eq!(results, [panic(0), panic(2), panic(4), Ok(1), Ok(3), Ok(5)]);
            assert_eq!(pool.take_panic(), None);

            pool.submit(Box::new(|| panic!("unseen")));
            let (sender, done) = unbounded();
            // With several threads the job after may end first; wait for all of them.
            for _ in 0..threads.max(1) {
                let sender = sender.clone();
                pool.submit(Box::new(move || sender.send(()).unwrap()));
            }
            for _ in 0..threads.max(1) {
                done.recv().unwrap();
            }
            let mut panic = pool.take_panic();
            while panic.is_none() {
                std::thread::yield_now();
                panic = pool.take_panic();
            }
            assert_eq!(panic, Some(WorkerPanic("unseen".into())));
            assert_eq!(pool.take_panic(), None);
        }
    }

    #[test]
    fn what_others_wait_for_runs_first() {
        let pool = Pool::new("test", 1, 8).unwrap();
        let (open, gate) = unbounded::<()>();
        let (sender, order) = unbounded();
        let (started, running) = unbounded();
        pool.submit(Box::new(move || {
            started.send(()).unwrap();
            gate.recv().unwrap();
        }));
        running.recv().unwrap();
        for n in [1, 2] {
            let (usual, first) = (sender.clone(), sender.clone());
            pool.run(move || n, move |n| usual.send(n.unwrap()).unwrap());
            pool.run_first(move || n * 10, move |n| first.send(n.unwrap()).unwrap());
        }
        assert_eq!(pool.queued(), 4);
        open.send(()).unwrap();
        drop((pool, sender));
        assert_eq!(order.iter().collect::<Vec<_>>(), [10, 20, 1, 2]);
    }

    #[test]
    fn a_full_queue_holds_the_submitter() {
        let pool = Arc::new(Pool::new("test", 1, 1).unwrap());
        let (open, gate) = unbounded::<()>();
        let (started, running) = unbounded();
        pool.submit(Box::new(move || {
            started.send(()).unwrap();
            gate.recv().unwrap();
        }));
        running.recv().unwrap();
        pool.submit(Box::new(|| {}));
        assert_eq!(pool.queued(), 1);
        let (submitted, news) = unbounded();
        let submitter = {
            let pool = Arc::clone(&pool);
            std::thread::spawn(move || {
                pool.submit(Box::new(|| {}));
                submitted.send(()).unwrap();
            })
        };
        assert!(news.recv_timeout(std::time::Duration::from_millis(50)).is_err());
        open.send(()).unwrap();
        news.recv().unwrap();
        submitter.join().unwrap();
    }

    #[test]
    fn a_job_may_drop_the_last_reference_to_its_pool() {
        let pool = Arc::new(Pool::new("test", 1, 2).unwrap());
        let (sender, done) = unbounded();
        let last = Arc::clone(&pool);
        let (open, gate) = unbounded::<()>();
        pool.submit(Box::new(move || {
            gate.recv().unwrap();
            drop(last);
            sender.send(()).unwrap();
        }));
        drop(pool);
        open.send(()).unwrap();
        done.recv().unwrap();
    }
}
