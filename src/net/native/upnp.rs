//! UPnP's port mappings (WANIPConnection), through `igd-next`. Blocks: for use on threads that may.
//!
//! 1. The gateway is searched for by multicast and its description read. The library takes descriptions only from the
//!    address that answered, up to a megabyte, and follows no redirect.
//! 2. The outer port that we have, or else the one of ours, is asked for; if another machine has it, any.
//! 3. A gateway that knows only mappings for ever is refused: one that nobody takes back would outlive us.

use crate::limits::UPNP_SEARCH_MILLIS;
use crate::relay::reach::ReachReply;
use core::time::Duration;
use igd_next::{AddPortError, PortMappingProtocol, SearchOptions, search_gateway};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// What the gateway shows its owner.
const DESCRIPTION: &str = "headlong";

/// Maps, renews, or with zero seconds takes back.
pub(super) fn map(
    listening: SocketAddr,
    external: Option<SocketAddr>,
    seconds: u32,
) -> io::Result<ReachReply> {
    let mut options = SearchOptions::default();
    options.bind_addr = SocketAddr::new(listening.ip(), 0);
    options.timeout = Some(Duration::from_millis(UPNP_SEARCH_MILLIS));
    options.single_search_timeout = options.timeout;
    let gateway = search_gateway(options).map_err(io::Error::other)?;
    let wanted = external.map_or(listening.port(), |external| external.port());
    if seconds == 0 {
        gateway.remove_port(PortMappingProtocol::TCP, wanted).map_err(io::Error::other)?;
        return Ok(ReachReply { address: external.unwrap_or(listening), seconds });
    }
    let ip: IpAddr = gateway.get_external_ip().map_err(io::Error::other)?;
    // The address of ours that the gateway reaches.
    let socket = UdpSocket::bind((listening.ip(), 0))?;
    socket.connect(gateway.addr)?;
    let ours = SocketAddr::new(socket.local_addr()?.ip(), listening.port());
    let port = match gateway.add_port(PortMappingProtocol::TCP, wanted, ours, seconds, DESCRIPTION) {
        Ok(()) => wanted,
        Err(AddPortError::PortInUse) => {
            let any = gateway.add_any_port(PortMappingProtocol::TCP, ours, seconds, DESCRIPTION);
            any.map_err(io::Error::other)?
        }
        Err(error) => return Err(io::Error::other(error)),
    };
    Ok(ReachReply { address: SocketAddr::new(ip, port), seconds })
}
