//! What answers of all sources together may take in memory: a body as it comes and, if it is packed, as it is unpacked.
//!
//! A long answer takes its share when its head has come, all at once and in turn, so that none waits for what another holds
//! half of. Meanwhile nothing of it is read. It gives the share back when its block is on its way to the driver, where other
//! bounds hold.

use futures::channel::oneshot;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;

/// The room.
#[derive(Debug)]
pub(in crate::node) struct Room {
    size: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// Each has a place among the requests of its source, so that they are few.
    waiting: VecDeque<(usize, oneshot::Sender<Share>)>,
}

/// A part of the room, until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    room: Arc<Room>,
    bytes: usize,
}

impl Room {
    /// Room for so many bytes.
    pub(in crate::node) fn new(size: usize) -> Arc<Self> {
        Arc::new(Self { size, state: Mutex::new(State { free: size, waiting: VecDeque::new() }) })
    }

    /// Waits for so many bytes; who needs more than there are takes all.
    pub(super) async fn take(self: &Arc<Self>, bytes: usize) -> Share {
        let bytes = bytes.min(self.size);
        let granted = {
            let mut state = self.state.lock();
            if state.waiting.is_empty() && state.free >= bytes {
                state.free -= bytes;
                None
            } else {
                let (grant, granted) = oneshot::channel();
                state.waiting.push_back((bytes, grant));
                Some(granted)
            }
        };
        let share = |bytes| Share { room: self.clone(), bytes };
        match granted {
            // The room, which is ours too, forgets no one who waits.
            Some(granted) => granted.await.unwrap_or_else(|_| share(0)),
            None => share(bytes),
        }
    }

    /// Gives back, and hands on to those who have waited longest.
    fn give(self: &Arc<Self>, bytes: usize) {
        let mut back = bytes;
        loop {
            let next = {
                let mut state = self.state.lock();
                state.free += core::mem::take(&mut back);
                // Who has gone is not to hold up the others.
                while state.waiting.front().is_some_and(|(_, grant)| grant.is_canceled()) {
                    state.waiting.pop_front();
                }
                match state.waiting.front() {
                    Some((bytes, _)) if *bytes <= state.free => {
                        state.free -= *bytes;
                        state.waiting.pop_front()
                    }
                    _ => None,
                }
            };
            let Some((bytes, grant)) = next else { return };
            // Outside the lock: if nobody takes it, it comes back here at once.
            let _ = grant.send(Share { room: self.clone(), bytes });
        }
    }

    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.state.lock().free
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.give(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::wait::block_on_until;
    use core::future::Future;
    use core::pin::pin;
    use core::task::{Context, Waker};
    use std::time::Instant;

    fn at_once<T>(work: impl Future<Output = T>) -> Option<T> {
        block_on_until(work, Instant::now())
    }

    #[test]
    fn shares_are_given_in_turn_and_come_back() {
        let room = Room::new(10);
        let first = at_once(room.take(6)).unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        let (mut large, mut small) = (pin!(room.take(5)), pin!(room.take(1)));
        assert!(large.as_mut().poll(&mut cx).is_pending());
        assert!(small.as_mut().poll(&mut cx).is_pending(), "it came later");
        drop(first);
        let (large, small) = (at_once(large).unwrap(), at_once(small).unwrap());
        assert_eq!(room.free(), 4);
        drop((large, small));
        let all = at_once(room.take(1_000)).unwrap();
        assert_eq!(room.free(), 0);
        drop(all);
        assert_eq!(room.free(), 10);
    }

    #[test]
    fn who_gives_up_waiting_holds_up_nobody_and_takes_nothing() {
        let room = Room::new(10);
        let first = at_once(room.take(8)).unwrap();
        assert!(at_once(room.take(9)).is_none(), "given up");
        let mut cx = Context::from_waker(Waker::noop());
        let mut small = pin!(room.take(2));
        assert!(small.as_mut().poll(&mut cx).is_pending());
        {
            let mut granted = Box::pin(room.take(3));
            assert!(granted.as_mut().poll(&mut cx).is_pending());
            drop(first);
            // It was given its share, and is dropped with it.
        }
        assert!(small.as_mut().poll(&mut cx).is_ready());
        assert_eq!(room.free(), 10);
    }
}
