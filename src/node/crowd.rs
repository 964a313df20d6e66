//! What all peers that came to us hold in our memory by what they have sent.
//!
//! Each has a bound of its own, and all together have one that is far less than the sum: bytes of messages that are not
//! handled, and of messages that have begun. Above it each of them is read only up to a small amount, so that none starves;
//! and when it lasts, the one that holds the most is given up. Peers that we chose are not counted: a flood from outside
//! takes nothing from the sync.

use crate::limits::{MAX_UNHANDLED_INBOUND, READ_CHUNK};
use crate::peer::PeerId;
use core::future::{Future, poll_fn};
use core::task::{Poll, Waker};
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// The room that they share.
#[derive(Debug, Default)]
pub(super) struct Crowd(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    by_peer: BTreeMap<PeerId, usize>,
    total: usize,
    waiting: Vec<Waker>,
}

impl Held {
    fn has_room(&self, peer: PeerId) -> bool {
        self.total < MAX_UNHANDLED_INBOUND || self.by_peer.get(&peer).is_none_or(|held| *held < READ_CHUNK)
    }
}

impl Crowd {
    /// A peer holds this much now; nothing: it is forgotten.
    pub(super) fn set(&self, peer: PeerId, bytes: usize) {
        let woken = {
            let mut held = self.0.lock();
            let before = if bytes == 0 {
                held.by_peer.remove(&peer).unwrap_or(0)
            } else {
                held.by_peer.insert(peer, bytes).unwrap_or(0)
            };
            held.total = held.total.saturating_add(bytes).saturating_sub(before);
            // Less is room for others, or for this one.
            if bytes < before { core::mem::take(&mut held.waiting) } else { Vec::new() }
        };
        woken.into_iter().for_each(Waker::wake);
    }

    /// Whether more may be read from this peer.
    pub(super) fn has_room(&self, peer: PeerId) -> bool {
        self.0.lock().has_room(peer)
    }

    /// Waits until more may be read from this peer.
    pub(super) fn room(&self, peer: PeerId) -> impl Future<Output = ()> {
        poll_fn(move |cx| {
            let mut held = self.0.lock();
            if held.has_room(peer) {
                return Poll::Ready(());
            }
            held.waiting.retain(|waker| !waker.will_wake(cx.waker()));
            held.waiting.push(cx.waker().clone());
            Poll::Pending
        })
    }

    /// Who holds the most.
    pub(super) fn largest(&self) -> Option<PeerId> {
        let held = self.0.lock();
        held.by_peer.iter().max_by_key(|(_, bytes)| **bytes).map(|(peer, _)| *peer)
    }

    /// What all hold.
    pub(super) fn total(&self) -> usize {
        self.0.lock().total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::wait::block_on_until;
    use std::time::Instant;

    fn enters(crowd: &Crowd, peer: u64) -> bool {
        block_on_until(crowd.room(PeerId(peer)), Instant::now()).is_some()
    }

    #[test]
    fn all_share_one_room_and_each_has_a_little_of_its_own() {
        let crowd = Crowd::default();
        for peer in 0..8 {
            crowd.set(PeerId(peer), MAX_UNHANDLED_INBOUND / 8 - usize::from(peer == 3));
        }
        assert!(enters(&crowd, 0), "one byte is left");
        crowd.set(PeerId(8), 1);
        assert!(!enters(&crowd, 0) && enters(&crowd, 8) && enters(&crowd, 9));
        crowd.set(PeerId(8), READ_CHUNK);
        assert!(!enters(&crowd, 8));
        assert!(crowd.largest().is_some_and(|peer| peer.0 < 8 && peer.0 != 3));
        crowd.set(PeerId(0), 0);
        assert!(enters(&crowd, 8) && enters(&crowd, 1));
        (0..10).for_each(|peer| crowd.set(PeerId(peer), 0));
        assert_eq!((crowd.total(), crowd.largest()), (0, None));
    }

    #[test]
    fn whoever_waits_hears_of_the_room() {
        let crowd = std::sync::Arc::new(Crowd::default());
        crowd.set(PeerId(1), MAX_UNHANDLED_INBOUND);
        crowd.set(PeerId(2), READ_CHUNK);
        let waits = crowd.clone();
        let thread = std::thread::spawn(move || {
            let deadline = Instant::now() + std::time::Duration::from_secs(20);
            block_on_until(waits.room(PeerId(2)), deadline).is_some()
        });
        while crowd.0.lock().waiting.is_empty() {
            std::thread::yield_now();
        }
        crowd.set(PeerId(1), 0);
        assert!(thread.join().unwrap());
    }
}
