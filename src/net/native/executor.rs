//! An executor for hosts that have none: one thread for all tasks, a pool for what blocks.
//!
//! 1. [`NativeExecutor::new`] starts the thread, which runs tasks and waits for sockets and timers.
//! 2. A task that panics ends; the others go on. The panic is counted.
//! 3. Nothing wakes while no task has something to do. The pool is the crate `blocking`: in version 1.6 its threads end
//!    after half a second without work; in 1.7.0 they stay, and each wakes twice a second. Where that matters (a phone,
//!    a battery), `cargo update -p blocking --precise 1.6.2`; this crate asks for either, so as not to stand against
//!    another that needs the newer.
//! 4. Dropping the executor lets the task that is being polled reach its next wait, ends the thread, and
//!    drops all tasks. Blocking work that has begun is not waited for.
//!
//! Left out: work stealing. The node's tasks are short; what takes time goes to its own workers.

use crate::net::Executor;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use futures::channel::oneshot;
use futures::future::{BoxFuture, FutureExt};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// Runs tasks on one background thread of its own, named `headlong-io`.
///
/// A task that owns an `Arc` of its executor keeps the executor alive until the task ends.
pub struct NativeExecutor {
    tasks: Arc<async_executor::Executor<'static>>,
    panics: Arc<AtomicU64>,
    /// Dropping it stops the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl NativeExecutor {
    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system's, if it gives no thread.
    pub fn new() -> io::Result<Self> {
        let tasks = Arc::new(async_executor::Executor::new());
        let (stop, stopped) = oneshot::channel();
        let running = Arc::clone(&tasks);
        let thread =
            thread::Builder::new().name("headlong-io".into()).spawn(move || run(&running, stopped))?;
        Ok(Self { tasks, panics: Arc::default(), stop: Some(stop), thread: Some(thread) })
    }

    /// How many tasks and blocking functions have panicked.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }
}

/// Runs tasks until `stopped`. A panic can reach this place only from a task's destructor.
fn run(tasks: &async_executor::Executor<'static>, mut stopped: oneshot::Receiver<()>) {
    let mut turn = || async_io::block_on(tasks.run((&mut stopped).map(drop)));
    while catch_unwind(AssertUnwindSafe(&mut turn)).is_err() {}
}

impl Executor for NativeExecutor {
    fn spawn(&self, future: BoxFuture<'static, ()>) {
        let panics = Arc::clone(&self.panics);
        let task = AssertUnwindSafe(future).catch_unwind().map(move |end| {
            if end.is_err() {
                panics.fetch_add(1, Ordering::Relaxed);
            }
        });
        self.tasks.spawn(task).detach();
    }

    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        let panics = Arc::clone(&self.panics);
        let work = move || {
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                panics.fetch_add(1, Ordering::Relaxed);
            }
        };
        blocking::unblock(work).detach();
    }

    fn timer(&self, wait: Duration) -> BoxFuture<'static, ()> {
        Box::pin(async_io::Timer::after(wait).map(drop))
    }
}

impl Drop for NativeExecutor {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A task may own the last handle to its executor: a thread cannot wait for itself.
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl fmt::Debug for NativeExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NativeExecutor").field("panics", &self.panics()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_io::block_on;
    use std::sync::atomic::AtomicBool;
    use std::time::Instant;

    /// Runs a task to its end and answers what it found.
    fn ask<T: Send + 'static>(executor: &NativeExecutor, question: impl FnOnce() -> T + Send + 'static) -> T {
        let (answer, answered) = oneshot::channel();
        executor.spawn(Box::pin(async move {
            let _ = answer.send(question());
        }));
        block_on(answered).unwrap()
    }

    fn thread_name() -> Option<String> {
        thread::current().name().map(str::to_owned)
    }

    #[test]
    fn tasks_run_on_its_thread_and_blocking_work_elsewhere() {
        let executor = NativeExecutor::new().unwrap();
        assert_eq!(ask(&executor, thread_name).as_deref(), Some("headlong-io"));
        let (answer, answered) = oneshot::channel();
        executor.spawn_blocking(Box::new(move || answer.send(thread_name()).unwrap()));
        assert_ne!(block_on(answered).unwrap().as_deref(), Some("headlong-io"));
    }

    #[test]
    fn a_timer_is_never_early() {
        let executor = NativeExecutor::new().unwrap();
        let (answer, answered) = oneshot::channel();
        let (timer, begin) = (executor.timer(Duration::from_millis(30)), Instant::now());
        let never = executor.timer(Duration::MAX);
        executor.spawn(Box::pin(async move {
            timer.await;
            let _ = answer.send(begin.elapsed());
        }));
        executor.spawn(never);
        assert!(block_on(answered).unwrap() >= Duration::from_millis(29));
    }

    #[test]
    fn a_panic_ends_its_task_only() {
        let executor = NativeExecutor::new().unwrap();
        executor.spawn(Box::pin(async { panic!("a task's own") }));
        assert_eq!(ask(&executor, || 7), 7);
        assert_eq!(executor.panics(), 1);
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("a destructor's own");
            }
        }
        let bomb = Bomb;
        executor.spawn(Box::pin(async move {
            let _bomb = bomb;
        }));
        assert_eq!(ask(&executor, || 8), 8);
        assert_eq!(executor.panics(), 2);
        let (answer, answered) = oneshot::channel::<()>();
        executor.spawn_blocking(Box::new(move || {
            let _answer = answer;
            panic!("blocking work's own");
        }));
        assert!(block_on(answered).is_err());
        assert_eq!(ask(&executor, || 9), 9);
    }

    #[test]
    fn dropping_it_waits_for_the_thread_and_drops_the_tasks() {
        let executor = NativeExecutor::new().unwrap();
        let (started, starting) = oneshot::channel();
        let passed = Arc::new(AtomicBool::new(false));
        let (passing, held) = (Arc::clone(&passed), Arc::new(()));
        let holding = Arc::clone(&held);
        executor.spawn(Box::pin(async move {
            let _holding = holding;
            futures::future::pending::<()>().await;
        }));
        executor.spawn(Box::pin(async move {
            let _ = started.send(());
            thread::sleep(Duration::from_millis(50));
            passing.store(true, Ordering::SeqCst);
        }));
        block_on(starting).unwrap();
        drop(executor);
        assert!(passed.load(Ordering::SeqCst));
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[test]
    fn a_task_may_drop_the_last_handle_to_its_executor() {
        let executor = Arc::new(NativeExecutor::new().unwrap());
        let ((go, gone), (done, finished)) = (oneshot::channel::<()>(), oneshot::channel());
        let last = Arc::clone(&executor);
        executor.spawn(Box::pin(async move {
            let _ = gone.await;
            drop(last);
            let _ = done.send(());
        }));
        drop(executor);
        go.send(()).unwrap();
        block_on(finished).unwrap();
    }
}
