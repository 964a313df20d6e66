//! Waiting without a runtime: a value that can be watched, and blocking on a future.
//!
//! [`Watch`] holds the latest value only, so that a slow reader never backs anything up: it sees the newest
//! state when it looks. [`block_on`] parks the calling thread, with an optional deadline of its own, so that
//! a blocking request ends even where no executor runs.

use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Wake;
use std::thread::Thread;
use std::time::Instant;

/// Lets the other tasks of this thread run.
pub(super) async fn let_others_run() {
    let mut yielded = false;
    poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A value, its version, and who waits for the next one.
#[derive(Debug)]
pub(crate) struct Watch<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    value: T,
    version: u64,
    closed: bool,
    next_waiter: u64,
    waiters: BTreeMap<u64, Waker>,
}

impl<T> Watch<T> {
    /// A watch at version 0.
    pub(crate) fn new(value: T) -> Self {
        let state = State { value, version: 0, closed: false, next_waiter: 0, waiters: BTreeMap::new() };
        Self { state: Mutex::new(state) }
    }

    /// Changes the value and wakes everyone who waits.
    pub(crate) fn update(&self, change: impl FnOnce(&mut T)) {
        let woken = {
            let mut state = self.state.lock();
            change(&mut state.value);
            state.version += 1;
            core::mem::take(&mut state.waiters)
        };
        woken.into_values().for_each(Waker::wake);
    }

    /// No more changes come: every wait ends with `None`.
    pub(crate) fn close(&self) {
        let woken = {
            let mut state = self.state.lock();
            state.closed = true;
            core::mem::take(&mut state.waiters)
        };
        woken.into_values().for_each(Waker::wake);
    }

    /// Reads the value with its version.
    pub(crate) fn read<R>(&self, look: impl FnOnce(&T, u64) -> R) -> R {
        let state = self.state.lock();
        look(&state.value, state.version)
    }

    /// Whether [`Self::close`] was called.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Ready once the version is above `seen`; `None` once closed and nothing newer is there.
    pub(crate) fn newer_than(self: &Arc<Self>, seen: u64) -> Newer<T> {
        Newer { watch: self.clone(), seen, waiter: None }
    }
}

/// The future of [`Watch::newer_than`]. Owns its watch, so that it can outlive whoever made it.
#[derive(Debug)]
pub(crate) struct Newer<T> {
    watch: Arc<Watch<T>>,
    seen: u64,
    waiter: Option<u64>,
}

impl<T> Future for Newer<T> {
    type Output = Option<u64>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<u64>> {
        let watch = self.watch.clone();
        let mut state = watch.state.lock();
        if state.version > self.seen {
            return Poll::Ready(Some(state.version));
        }
        if state.closed {
            return Poll::Ready(None);
        }
        let waiter = *self.waiter.get_or_insert_with(|| {
            state.next_waiter += 1;
            state.next_waiter
        });
        state.waiters.insert(waiter, cx.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for Newer<T> {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter {
            let gone = self.watch.state.lock().waiters.remove(&waiter);
            drop(gone);
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on the calling thread.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        std::thread::park();
    }
}

/// The same; `None` if `deadline` passes first.
pub(crate) fn block_on_until<F: Future>(future: F, deadline: Instant) -> Option<F::Output> {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return Some(output);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        std::thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_waiter_sees_the_newest_value_only() {
        let watch = Arc::new(Watch::new(0));
        watch.update(|v| *v = 1);
        watch.update(|v| *v = 2);
        assert_eq!(block_on(watch.newer_than(0)), Some(2));
        assert_eq!(watch.read(|v, _| *v), 2);
    }

    #[test]
    fn a_change_wakes_a_blocked_thread_and_close_ends_the_wait() {
        let watch = Arc::new(Watch::new(0));
        let other = watch.clone();
        let waiting = std::thread::spawn(move || {
            let first = block_on(other.newer_than(0));
            (first, block_on(other.newer_than(1)))
        });
        std::thread::sleep(Duration::from_millis(20));
        watch.update(|v| *v = 1);
        std::thread::sleep(Duration::from_millis(20));
        watch.close();
        assert_eq!(waiting.join().unwrap(), (Some(1), None));
        assert!(watch.is_closed());
    }

    #[test]
    fn a_deadline_ends_the_wait_and_a_dropped_wait_leaves_no_waker() {
        let watch = Arc::new(Watch::new(0));
        let deadline = Instant::now() + Duration::from_millis(10);
        assert_eq!(block_on_until(watch.newer_than(0), deadline), None);
        assert!(watch.state.lock().waiters.is_empty());
    }
}
