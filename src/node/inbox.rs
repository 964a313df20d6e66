//! What reaches the driver from tasks and threads: one queue, in order of arrival.
//!
//! The queue itself has no bound; each source has one: a connection stops reading when too much of it
//! waits, the chainstate reports what it was asked for, and there is one look-up per name asked.

use crate::chain::command::ChainReport;
use crate::net::BoxStream;
use crate::peer::{Fault, PeerId};
use crate::wire::Message;
use core::any::Any;
use core::future::Future;
use core::panic::AssertUnwindSafe;
use futures::FutureExt;
use futures::channel::mpsc;
use std::io;
use std::net::SocketAddr;

/// Something for the driver.
pub(super) enum Inbound {
    Dialled(PeerId, io::Result<BoxStream>),
    Received(PeerId, Message, usize),
    Progress(PeerId, u64),
    Faulted(PeerId, Fault),
    Closed(PeerId),
    Flushed(PeerId, usize),
    Resolved(String, Vec<SocketAddr>),
    Chain(ChainReport),
    /// The chainstate's thread has ended and its files are closed.
    ChainEnded,
    /// A task or thread panicked, with this message.
    Panicked(String),
}

/// The sending end.
#[derive(Clone, Debug)]
pub(super) struct Inbox(mpsc::UnboundedSender<Inbound>);

impl Inbox {
    /// Both ends.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Inbound>) {
        let (sender, receiver) = mpsc::unbounded();
        (Self(sender), receiver)
    }

    /// Hands something on; nobody minds if the driver has ended.
    pub(super) fn send(&self, inbound: Inbound) {
        let _ = self.0.unbounded_send(inbound);
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
