//! Connections over TCP.
//!
//! 1. A name is resolved; its addresses are tried in the resolver's order until one answers.
//! 2. Nagle's algorithm is turned off, for small messages wait for answers.
//! 3. The system takes no more from us than it soon sends ([`MAX_UNSENT_BY_SYSTEM`], where it lets itself be told), so that
//!    what is urgent waits for little that is not.
//! 4. Closing the stream tells the peer that nothing more comes (the operating system does so anyway when
//!    the stream is dropped).
//!
//! There is no time limit here; the caller drops the future. The caller's limit covers all of a name's addresses.

use super::dns;
#[cfg(any(target_os = "android", target_os = "linux"))]
use crate::limits::MAX_UNSENT_BY_SYSTEM;
use crate::net::{BoxStream, Listener, Transport};
use crate::peer::PeerAddress;
use async_io::Async;
use core::pin::Pin;
use core::task::{Context, Poll};
use futures::future::BoxFuture;
use futures::io::{AsyncRead, AsyncWrite};
use socket2::{Domain, Socket, Type};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

/// Plain TCP, without a proxy.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct NativeTransport;

impl NativeTransport {
    /// The transport. It holds nothing.
    pub const fn new() -> Self {
        Self
    }
}

impl Transport for NativeTransport {
    /// A name's addresses are tried in turn; the error is that of the last.
    fn dial(&self, address: &PeerAddress) -> BoxFuture<'static, io::Result<BoxStream>> {
        let address = address.clone();
        Box::pin(async move {
            let addresses = match address {
                PeerAddress::Ip(address) => vec![address],
                PeerAddress::Cjdns(ip, port) => vec![(ip, port).into()],
                PeerAddress::Name(host, port) => dns::resolve(host, port).await?,
                PeerAddress::Onion(..) | PeerAddress::I2p(..) => {
                    return Err(io::Error::new(io::ErrorKind::Unsupported, "this address needs a proxy"));
                }
                PeerAddress::Http(_) => {
                    return Err(io::Error::new(
                        io::ErrorKind::Unsupported,
                        "a source is dialled at its host",
                    ));
                }
            };
            let mut failure = io::Error::from(io::ErrorKind::NotFound);
            for address in addresses {
                match Async::<TcpStream>::connect(address).await {
                    Ok(stream) => return Ok(Connection::boxed(stream)),
                    Err(error) => failure = error,
                }
            }
            Err(failure)
        })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener = Async::new(bind(address)?)?;
            Ok(Box::new(NativeListener(listener)) as Box<dyn Listener>)
        })
    }

    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        Box::pin(dns::resolve(host.to_owned(), port))
    }
}

/// Binds and listens. A socket of IPv6 takes no IPv4, whatever the system's custom is: both can then have the same port.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // As std does: elsewhere the option lets a second program take the port.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Connections that the operating system keeps until they are accepted, as std has it.
const BACKLOG: i32 = 128;

/// A listening socket.
#[derive(Debug)]
struct NativeListener(Async<TcpListener>);

impl Listener for NativeListener {
    fn local_address(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().local_addr()
    }

    /// An error need not be the listener's end: a connection that was gone before it was taken, or too many
    /// open files, pass.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxStream, SocketAddr)>> {
        Box::pin(async move {
            let (stream, address) = self.0.accept().await?;
            Ok((Connection::boxed(stream), address))
        })
    }
}

/// A TCP connection whose `close` ends our direction.
struct Connection(Async<TcpStream>);

impl Connection {
    fn boxed(stream: Async<TcpStream>) -> BoxStream {
        // Fails if the peer is gone already, which the first read will say better.
        let _ = stream.get_ref().set_nodelay(true);
        bound_unsent(stream.get_ref());
        Box::new(Self(stream))
    }
}

/// Without it the system takes up to its send buffer, some megabytes, and a message of control waits behind them all.
/// `TCP_NOTSENT_LOWAT` cuts only what has not been sent: as much as the link holds may still be on its way.
#[cfg(any(target_os = "android", target_os = "linux"))]
fn bound_unsent(stream: &TcpStream) {
    // Systems from before 2013 know no such option, and send as they always did.
    let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(MAX_UNSENT_BY_SYSTEM);
}

/// The others have no such option, or one that bounds only when they tell of room.
#[cfg(not(any(target_os = "android", target_os = "linux")))]
fn bound_unsent(_: &TcpStream) {}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read_vectored(cx, buffers)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, parts)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket keeps no bytes back, so there is nothing to flush.
        Poll::Ready(match self.0.get_ref().shutdown(Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(error),
            _ => Ok(()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_io::block_on;
    use futures::io::{AsyncReadExt, AsyncWriteExt};

    fn loopback() -> (Box<dyn Listener>, SocketAddr) {
        let listener = block_on(NativeTransport::new().listen(([127, 0, 0, 1], 0).into())).unwrap();
        let address = listener.local_address().unwrap();
        (listener, address)
    }

    /// Accepts one connection and sends back what comes, until the other side closes its direction.
    async fn echo(listener: &mut dyn Listener) -> io::Result<SocketAddr> {
        let (mut stream, from) = listener.accept().await?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await?;
        stream.write_all(&bytes).await?;
        stream.close().await?;
        Ok(from)
    }

    fn converse(listener: &mut dyn Listener, to: &PeerAddress) {
        // More than the buffers of both sockets hold at once.
        let sent: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
        let call = async {
            let stream = NativeTransport::new().dial(to).await?;
            let (mut reading, mut writing) = stream.split();
            writing.write_all(&sent).await?;
            writing.close().await?;
            let mut received = Vec::new();
            reading.read_to_end(&mut received).await?;
            io::Result::Ok(received)
        };
        let (from, received) = block_on(futures::future::join(echo(listener), call));
        assert!(from.unwrap().ip().is_loopback());
        assert!(received.unwrap() == sent);
    }

    #[test]
    fn echo_by_address_and_by_name() {
        let (mut listener, address) = loopback();
        assert_ne!(address.port(), 0);
        converse(&mut *listener, &PeerAddress::Ip(address));
        // "localhost" may be ::1 first, where nobody listens: the next address is tried.
        converse(&mut *listener, &PeerAddress::Name("localhost".into(), address.port()));
    }

    /// Writes until the system takes no more, to a peer that reads nothing and has this much room.
    #[cfg(any(target_os = "android", target_os = "linux"))]
    fn taken_by_the_system(room: usize, dialled: bool) -> usize {
        use core::time::Duration;
        let begun = std::time::Instant::now();
        let silent = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        silent.set_recv_buffer_size(room).unwrap();
        let here = SocketAddr::from(([127, 0, 0, 1], 0));
        let (mut stream, _peer) = if dialled {
            silent.bind(&here.into()).unwrap();
            silent.listen(1).unwrap();
            let address = silent.local_addr().unwrap().as_socket().unwrap();
            let stream = block_on(NativeTransport::new().dial(&PeerAddress::Ip(address))).unwrap();
            (stream, silent.accept().unwrap().0)
        } else {
            let mut listener = block_on(NativeTransport::new().listen(here)).unwrap();
            silent.connect(&listener.local_address().unwrap().into()).unwrap();
            (block_on(listener.accept()).unwrap().0, silent)
        };
        let (chunk, mut taken) = (vec![0; 64 * 1_024], 0);
        // What is in the peer's room is sent, which makes room for more, for a moment.
        while let Some(written) = block_on(async {
            let timer = async_io::Timer::after(Duration::from_millis(300));
            match futures::future::select(stream.write(&chunk), timer).await {
                futures::future::Either::Left((written, _)) => Some(written.unwrap()),
                futures::future::Either::Right(_) => None,
            }
        }) {
            taken += written;
            assert!(begun.elapsed() < Duration::from_secs(30), "{taken}");
        }
        taken
    }

    /// The bug: a peer that did not read let megabytes of blocks into the system's buffer, and its pong waited for them.
    #[cfg(any(target_os = "android", target_os = "linux"))]
    #[test]
    fn the_system_takes_little_that_it_does_not_send() {
        let room = 32 * 1_024;
        for dialled in [true, false] {
            let taken = taken_by_the_system(room, dialled);
            // Linux gives twice the room that is asked for, counts by buffers of up to 64 kB, and takes one more.
            let most = 4 * room + MAX_UNSENT_BY_SYSTEM as usize + 2 * 65_536;
            assert!(taken > room && taken <= most, "{taken} of {most}");
        }
    }

    #[test]
    fn nobody_there() {
        let (listener, address) = loopback();
        drop(listener);
        for peer in [PeerAddress::Ip(address), PeerAddress::Name("localhost".into(), address.port())] {
            let error = block_on(NativeTransport::new().dial(&peer)).err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        }
    }

    #[test]
    fn a_taken_port_cannot_be_listened_on() {
        let (_listener, address) = loopback();
        let error = block_on(NativeTransport::new().listen(address)).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn names() {
        let transport = NativeTransport::new();
        let found = block_on(transport.resolve("localhost", 8333)).unwrap();
        assert!(!found.is_empty());
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 8333));
        let literal = block_on(transport.resolve("::1", 1)).unwrap();
        assert_eq!(literal, ["[::1]:1".parse().unwrap()]);
        assert!(block_on(transport.resolve("no\0name", 1)).is_err());
        assert!(block_on(transport.dial(&PeerAddress::Name("no\0name".into(), 1))).is_err());
    }
}
