//! What reaches the driver from tasks and threads: a queue for each connection and one for all else.
//!
//! 1. What comes from one source is taken in the order in which it came.
//! 2. Connections take turns, and so do they and all else: whoever floods us waits behind its own messages,
//!    and nobody else does.
//!
//! The queues themselves have no bound; each source has one: a connection stops reading when too much of it
//! waits, the chainstate reports what it was asked for, and there is one look-up per name asked.

use super::connection::Opened;
use crate::chain::command::ChainReport;
use crate::net::BoxStream;
use crate::peer::{Fault, PeerId};
use crate::relay::reach::{AskId, ReachReply};
use crate::wire::Message;
use core::any::Any;
use core::fmt;
use core::future::Future;
use core::panic::AssertUnwindSafe;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use futures::channel::oneshot;
use futures::{FutureExt, Stream};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// Something for the driver.
pub(super) enum Inbound {
    Dialled(PeerId, io::Result<Opened>),
    /// Somebody who has come speaks v2; the session.
    Encrypted(PeerId, [u8; 32]),
    /// Somebody has come; the next waits until the last part is dropped.
    Arrived(BoxStream, SocketAddr, oneshot::Sender<()>),
    Received(PeerId, Message, usize),
    Progress(PeerId, u64),
    Faulted(PeerId, Fault),
    Closed(PeerId),
    Flushed(PeerId, usize),
    /// Announcements to this peer were dropped.
    Untold(PeerId),
    Resolved(String, Vec<SocketAddr>),
    /// Of how we are reached.
    Answered(AskId, Result<ReachReply, String>),
    Chain(ChainReport),
    /// The chainstate's thread has ended and its files are closed.
    ChainEnded,
    /// A task or thread panicked, with this message.
    Panicked(String),
}

impl Inbound {
    /// The connection that it came from.
    fn peer(&self) -> Option<PeerId> {
        match self {
            Self::Dialled(peer, _)
            | Self::Encrypted(peer, _)
            | Self::Received(peer, ..)
            | Self::Progress(peer, _)
            | Self::Faulted(peer, _)
            | Self::Closed(peer)
            | Self::Flushed(peer, _)
            | Self::Untold(peer) => Some(*peer),
            Self::Arrived(..)
            | Self::Resolved(..)
            | Self::Answered(..)
            | Self::Chain(_)
            | Self::ChainEnded
            | Self::Panicked(_) => None,
        }
    }
}

#[derive(Default)]
struct Queues {
    peers: BTreeMap<PeerId, VecDeque<Inbound>>,
    /// Connections whose queue is not empty, in the order of their turns.
    turns: VecDeque<PeerId>,
    other: VecDeque<Inbound>,
    /// Whether a connection had the last turn.
    peer_was_last: bool,
    waiting: Option<Waker>,
    closed: bool,
}

impl fmt::Debug for Queues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queues").field("turns", &self.turns).finish_non_exhaustive()
    }
}

impl Queues {
    fn push(&mut self, inbound: Inbound) {
        let Some(peer) = inbound.peer() else { return self.other.push_back(inbound) };
        let queue = self.peers.entry(peer).or_default();
        if queue.is_empty() {
            self.turns.push_back(peer);
        }
        queue.push_back(inbound);
    }

    fn pop(&mut self) -> Option<Inbound> {
        self.peer_was_last = !self.peer_was_last && !self.turns.is_empty() || self.other.is_empty();
        if self.peer_was_last { self.pop_peer() } else { self.other.pop_front() }
    }

    fn pop_peer(&mut self) -> Option<Inbound> {
        let peer = self.turns.pop_front()?;
        let queue = self.peers.get_mut(&peer)?;
        let inbound = queue.pop_front();
        if queue.is_empty() {
            self.peers.remove(&peer);
        } else {
            self.turns.push_back(peer);
        }
        inbound
    }
}

/// The sending end.
#[derive(Clone, Debug)]
pub(super) struct Inbox(Arc<Mutex<Queues>>);

/// The driver's end: a stream without an end.
#[derive(Debug)]
pub(super) struct Arrivals(Arc<Mutex<Queues>>);

impl Arrivals {
    /// Forgets what a connection that is given up has sent.
    pub(super) fn forget(&self, peer: PeerId) {
        let forgotten = {
            let mut queues = self.0.lock();
            queues.turns.retain(|other| *other != peer);
            queues.peers.remove(&peer)
        };
        drop(forgotten);
    }
}

#[cfg(test)]
impl Arrivals {
    /// What is there, without waiting.
    pub(super) fn try_next(&self) -> Option<Inbound> {
        self.0.lock().pop()
    }
}

impl Stream for Arrivals {
    type Item = Inbound;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Inbound>> {
        let mut queues = self.0.lock();
        match queues.pop() {
            Some(inbound) => Poll::Ready(Some(inbound)),
            None => {
                queues.waiting = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        let left = core::mem::replace(&mut *self.0.lock(), Queues { closed: true, ..Queues::default() });
        // Streams among it close their connections.
        drop(left);
    }
}

impl Inbox {
    /// Both ends.
    pub(super) fn new() -> (Self, Arrivals) {
        let queues = Arc::new(Mutex::new(Queues::default()));
        (Self(queues.clone()), Arrivals(queues))
    }

    /// Hands something on; nobody minds if the driver has ended.
    pub(super) fn send(&self, inbound: Inbound) {
        let woken = {
            let mut queues = self.0.lock();
            if queues.closed {
                return;
            }
            queues.push(inbound);
            queues.waiting.take()
        };
        if let Some(waker) = woken {
            waker.wake();
        }
    }

    /// Runs a function; a panic reaches the driver.
    pub(super) fn catch<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        match std::panic::catch_unwind(AssertUnwindSafe(work)) {
            Ok(value) => Some(value),
            Err(panic) => {
                self.send(Inbound::Panicked(panic_message(&*panic)));
                None
            }
        }
    }

    /// The same for a future.
    pub(super) fn guard<F: Future<Output = ()>>(&self, future: F) -> impl Future<Output = ()> + use<F> {
        let inbox = self.clone();
        async move {
            if let Err(panic) = AssertUnwindSafe(future).catch_unwind().await {
                inbox.send(Inbound::Panicked(panic_message(&*panic)));
            }
        }
    }
}

/// What a panic said.
pub(super) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes what is there.
    fn taken(arrivals: &Arrivals) -> Vec<String> {
        let name = |inbound| match inbound {
            Inbound::Progress(peer, bytes) => format!("{peer}:{bytes}"),
            Inbound::ChainEnded => "chain".to_owned(),
            _ => unreachable!(),
        };
        core::iter::from_fn(|| arrivals.try_next()).map(name).collect()
    }

    /// A peer that sent pings as fast as it could held up the blocks of an honest one for as long as it did:
    /// there was one queue, in the order of arrival.
    #[test]
    fn a_flood_of_one_peer_holds_up_nobody_else() {
        let (inbox, arrivals) = Inbox::new();
        for bytes in 1..=5 {
            inbox.send(Inbound::Progress(PeerId(1), bytes));
        }
        inbox.send(Inbound::Progress(PeerId(2), 1));
        inbox.send(Inbound::Progress(PeerId(2), 2));
        inbox.send(Inbound::ChainEnded);
        inbox.send(Inbound::ChainEnded);
        assert_eq!(taken(&arrivals), ["1:1", "chain", "2:1", "chain", "1:2", "2:2", "1:3", "1:4", "1:5"]);
    }

    #[test]
    fn what_a_dropped_connection_sent_is_forgotten() {
        let (inbox, arrivals) = Inbox::new();
        inbox.send(Inbound::Progress(PeerId(1), 1));
        inbox.send(Inbound::Progress(PeerId(2), 1));
        arrivals.forget(PeerId(1));
        inbox.send(Inbound::Progress(PeerId(1), 2));
        assert_eq!(taken(&arrivals), ["2:1", "1:2"]);
        drop(arrivals);
        inbox.send(Inbound::ChainEnded);
        assert!(inbox.0.lock().pop().is_none());
    }
}
