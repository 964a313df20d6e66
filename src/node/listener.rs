//! Accepting connections: a task for each address that the node listens on.
//!
//! A connection that has arrived waits until the driver has dealt with it; only then the next is accepted. So a flood waits
//! in the operating system's queue, which drops what it has no room for.

use super::connection::Surroundings;
use super::inbox::Inbound;
use crate::limits::ACCEPT_PAUSE_MILLIS;
use crate::net::Listener;
use crate::trace;
use core::time::Duration;
use futures::channel::oneshot;
use futures::future::{AbortHandle, abortable};
use std::io;
use std::net::SocketAddr;

/// Opens the addresses; the sockets, and where they really are.
///
/// # Errors
/// The address that can't be had, and why.
pub(super) async fn open(
    addresses: &[SocketAddr],
    around: &Surroundings,
) -> Result<Vec<(Box<dyn Listener>, SocketAddr)>, (SocketAddr, io::Error)> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for address in addresses {
        let opened = around.transport.listen(*address).await;
        let listener = opened.map_err(|error| (*address, error))?;
        let local = listener.local_address().map_err(|error| (*address, error))?;
        trace::event!(INFO, "listening", address = local);
        listeners.push((listener, local));
    }
    Ok(listeners)
}

/// Accepts until the handle is used or the driver ends.
pub(super) fn accept(mut listener: Box<dyn Listener>, around: &Surroundings) -> AbortHandle {
    let (inbox, executor) = (around.inbox.clone(), around.executor.clone());
    let guarded = around.inbox.guard(async move {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => {
                    let (taken, dealt_with) = oneshot::channel::<()>();
                    inbox.send(Inbound::Arrived(stream, address, taken));
                    // The driver drops its end, whatever it decides.
                    let _ = dealt_with.await;
                }
                // Too many open files, or a connection that is gone already: it passes.
                Err(error) => {
                    trace::event!(DEBUG, "not accepted", error = error);
                    executor.timer(Duration::from_millis(ACCEPT_PAUSE_MILLIS)).await;
                }
            }
        }
    });
    let (task, handle) = abortable(guarded);
    around.executor.spawn(Box::pin(async move {
        let _ = task.await;
    }));
    handle
}
