//! The edge: traits by which a host plugs in its sockets, executor and clock, and defaults that need no
//! runtime (feature `native`).

pub mod encryption;
#[cfg(feature = "http")]
pub mod http;
pub mod nat;
#[cfg(feature = "native")]
pub mod native;
pub mod pool;
#[cfg(feature = "socks5")]
pub mod socks5;

use crate::peer::PeerAddress;
use crate::relay::reach::{ReachReply, ReachRequest};
use core::fmt;
use core::time::Duration;
use futures::future::BoxFuture;
use futures::io::{AsyncRead, AsyncWrite};
use std::io;
use std::net::SocketAddr;

/// A connection: any duplex byte stream.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A boxed connection.
pub type BoxStream = Box<dyn Stream>;

/// Opens connections.
pub trait Transport: Send + Sync + fmt::Debug {
    /// Connects to a peer. The caller sets the time limit; dropping the future gives up.
    fn dial(&self, address: &PeerAddress) -> BoxFuture<'static, io::Result<BoxStream>>;

    /// Listens for connections.
    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>>;

    /// Looks up a host name.
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;
}

/// Asks what stands between this machine and the Internet how the node is reached. Not used behind a proxy, nor with a
/// [`Transport`] of the host unless it brings one of these too: what is asked here goes past both.
pub trait Gateway: Send + Sync + fmt::Debug {
    /// Carries out one request, in a bounded time (RFC 6886, 6887, 8489; [`nat`] has the bytes). Dropping the future gives
    /// up. The error's text is shown to people.
    fn ask(&self, request: ReachRequest) -> BoxFuture<'static, io::Result<ReachReply>>;
}

/// Accepts connections.
pub trait Listener: Send {
    /// The address that peers reach it by.
    fn local_address(&self) -> io::Result<SocketAddr>;

    /// The next connection.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxStream, SocketAddr)>>;
}

/// Runs tasks and timers.
pub trait Executor: Send + Sync + fmt::Debug {
    /// Runs a future to its end in the background.
    fn spawn(&self, future: BoxFuture<'static, ()>);

    /// Runs a blocking function (name look-ups, files) where it holds up no task.
    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>);

    /// Ready after `wait`.
    fn timer(&self, wait: Duration) -> BoxFuture<'static, ()>;
}

/// Tells the time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Time since any fixed origin; never goes back.
    fn monotonic(&self) -> Duration;

    /// Seconds since the Unix epoch. Consensus uses it to refuse headers from the future.
    fn unix(&self) -> u64;
}

/// The clocks of the operating system.
#[derive(Debug)]
pub struct SystemClock {
    origin: std::time::Instant,
}

impl SystemClock {
    /// A clock whose origin is now.
    pub fn new() -> Self {
        Self { origin: std::time::Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }

    fn unix(&self) -> u64 {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
    }
}
