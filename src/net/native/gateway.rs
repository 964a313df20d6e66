//! Questions to gateways and STUN servers over UDP.
//!
//! 1. A socket is bound to the address that the node listens on and connected to the other side, so that the operating system
//!    drops what others send.
//! 2. The request is sent, and again each time that the wait, which doubles, has passed without an answer.
//! 3. What is no answer is ignored, up to a bound; the first that is one, or a refusal, ends it.
//!
//! UPnP (feature `upnp`) goes through `igd-next`, which waits on threads that may block.

use super::{dns, route};
use crate::limits::{GATEWAY_FIRST_MILLIS, GATEWAY_SENDS, MAX_STRAY_REPLIES, STUN_FIRST_MILLIS, STUN_SENDS};
use crate::net::Gateway;
use crate::net::nat::{GATEWAY_PORT, ReplyError, natpmp, pcp, stun};
use crate::peer::PeerAddress;
use crate::relay::reach::{ReachMethod, ReachReply, ReachRequest};
use async_io::{Async, Timer};
use core::time::Duration;
use futures::future::{BoxFuture, Either, select};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::{Pin, pin};

/// Asks the default gateway of this machine, which is known on Linux, and whatever STUN servers are named.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct NativeGateway {
    v4: Option<SocketAddr>,
    v6: Option<SocketAddr>,
}

impl NativeGateway {
    /// Looks the default gateway up each time.
    pub const fn new() -> Self {
        Self { v4: None, v6: None }
    }

    /// Asks for PCP and NAT-PMP this gateway instead of its family's default one, at this port (usually 5351): where the machine can't
    /// tell which it is.
    #[must_use]
    pub const fn at(mut self, gateway: SocketAddr) -> Self {
        match gateway {
            SocketAddr::V4(_) => self.v4 = Some(gateway),
            SocketAddr::V6(_) => self.v6 = Some(gateway),
        }
        self
    }

    fn gateway(self, v6: bool) -> io::Result<SocketAddr> {
        let known = if v6 { self.v6 } else { self.v4 };
        let unknown = || io::Error::new(io::ErrorKind::NotFound, "no default gateway is known");
        known.or_else(|| route::default_gateway(v6, GATEWAY_PORT)).ok_or_else(unknown)
    }
}

impl Gateway for NativeGateway {
    fn ask(&self, request: ReachRequest) -> BoxFuture<'static, io::Result<ReachReply>> {
        let gateways = *self;
        Box::pin(async move {
            match request {
                ReachRequest::Local { listening } => local(listening).map(found),
                ReachRequest::Map { by, listening, external, seconds, nonce } => {
                    let asked = Mapping { listening, external, seconds };
                    match by {
                        ReachMethod::Pcp => pcp(gateways.gateway(listening.is_ipv6())?, asked, nonce).await,
                        ReachMethod::NatPmp => natpmp(gateways.gateway(false)?, asked).await,
                        #[cfg(feature = "upnp")]
                        ReachMethod::Upnp => {
                            blocking::unblock(move || super::upnp::map(listening, external, seconds)).await
                        }
                        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "needs the feature `upnp`")),
                    }
                }
                ReachRequest::Observe { server, listening, transaction } => {
                    observe(&server, listening, transaction).await.map(found)
                }
            }
        })
    }
}

#[derive(Clone, Copy)]
struct Mapping {
    listening: SocketAddr,
    external: Option<SocketAddr>,
    seconds: u32,
}

const fn found(address: SocketAddr) -> ReachReply {
    ReachReply { address, seconds: 0 }
}

/// The address that packets to the Internet would have. Connecting a UDP socket sends none; the addresses are of
/// documentation (RFC 5737, 3849), to which nobody answers.
fn local(listening: SocketAddr) -> io::Result<SocketAddr> {
    let far = match listening {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    };
    let socket = UdpSocket::bind((listening.ip(), 0))?;
    socket.connect((far, 9))?;
    Ok(SocketAddr::new(socket.local_addr()?.ip(), listening.port()))
}

/// A socket that hears the other side only.
fn connect(from: IpAddr, to: SocketAddr) -> io::Result<Async<UdpSocket>> {
    let socket = UdpSocket::bind((from, 0))?;
    socket.connect(to)?;
    Async::new(socket)
}

/// The next datagram; `None` if the time is over first.
async fn receive(
    socket: &Async<UdpSocket>,
    buffer: &mut [u8],
    timer: Pin<&mut Timer>,
) -> Option<io::Result<usize>> {
    match select(pin!(socket.recv(buffer)), timer).await {
        Either::Left((length, _)) => Some(length),
        Either::Right(_) => None,
    }
}

/// Sends the request until an answer comes that `parse` takes, or it has been sent `sends` times.
async fn exchange<T>(
    socket: &Async<UdpSocket>,
    request: &[u8],
    (first, sends): (u64, u32),
    parse: impl Fn(&[u8]) -> Result<T, ReplyError>,
) -> io::Result<T> {
    let mut strays = 0;
    // One more than the longest answer, so that a longer one is not taken for one.
    let mut buffer = [0; pcp::MAX_LENGTH + 1];
    for turn in 0..sends {
        socket.send(request).await?;
        let mut timer = pin!(Timer::after(Duration::from_millis(first << turn)));
        while let Some(length) = receive(socket, &mut buffer, timer.as_mut()).await {
            let length = length?;
            match parse(&buffer[..length]) {
                Ok(answer) => return Ok(answer),
                Err(error) if error.is_final() => return Err(io::Error::other(error)),
                Err(_) if strays >= MAX_STRAY_REPLIES => {
                    return Err(io::Error::other("nothing but replies that answer something else"));
                }
                Err(_) => strays += 1,
            }
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"))
}

const GATEWAY_PACE: (u64, u32) = (GATEWAY_FIRST_MILLIS, GATEWAY_SENDS);

async fn pcp(gateway: SocketAddr, mapping: Mapping, nonce: [u8; 12]) -> io::Result<ReachReply> {
    let Mapping { listening, external, seconds } = mapping;
    let socket = connect(listening.ip(), gateway)?;
    let client = socket.get_ref().local_addr()?.ip();
    // Nothing is suggested when a mapping is taken back (RFC 6887, section 15).
    let suggested = external.filter(|_| seconds > 0);
    let port = if seconds > 0 { listening.port() } else { 0 };
    let external = suggested.unwrap_or_else(|| pcp::anywhere(client, port));
    let asked = pcp::Request { nonce, client, port: listening.port(), external, seconds };
    let request = pcp::request(&asked);
    let granted = exchange(&socket, &request, GATEWAY_PACE, |data| pcp::parse(data, &asked)).await?;
    Ok(ReachReply { address: granted.external, seconds: granted.seconds })
}

async fn natpmp(gateway: SocketAddr, mapping: Mapping) -> io::Result<ReachReply> {
    let Mapping { listening, external, seconds } = mapping;
    let socket = connect(listening.ip(), gateway)?;
    let ip = if seconds > 0 {
        exchange(&socket, &natpmp::address_request(), GATEWAY_PACE, natpmp::parse_address).await?
    } else {
        // It is not needed to take a mapping back, for which there is little time.
        Ipv4Addr::UNSPECIFIED
    };
    let port = listening.port();
    let wanted = if seconds > 0 { external.map_or(port, |external| external.port()) } else { 0 };
    let request = natpmp::map_request(port, wanted, seconds);
    let given = exchange(&socket, &request, GATEWAY_PACE, |data| natpmp::parse_map(data, port)).await?;
    Ok(ReachReply { address: (ip, given.0).into(), seconds: given.1 })
}

/// What the server sees; the port is that of our socket, and of no use.
async fn observe(
    server: &PeerAddress,
    listening: SocketAddr,
    transaction: [u8; 12],
) -> io::Result<SocketAddr> {
    let addresses = match server {
        PeerAddress::Name(host, port) => dns::resolve(host.clone(), *port).await?,
        server => server.socket_addr().into_iter().collect(),
    };
    let family = |address: &SocketAddr| address.is_ipv4() == listening.is_ipv4();
    let other = || io::Error::new(io::ErrorKind::NotFound, "it has no address of this family");
    let address = addresses.into_iter().find(family).ok_or_else(other)?;
    let socket = connect(listening.ip(), address)?;
    let request = stun::request(&transaction);
    exchange(&socket, &request, (STUN_FIRST_MILLIS, STUN_SENDS), |data| stun::parse(data, &transaction)).await
}
