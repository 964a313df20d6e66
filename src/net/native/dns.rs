//! Names to addresses, by the operating system's resolver.
//!
//! Its call blocks for as long as its own time limits allow, so it runs on a thread that may block. Giving up
//! on the future leaves the call to end by itself.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

/// The addresses of `host`, in the resolver's order; an IP address is its own name.
///
/// # Errors
/// The resolver's; [`io::ErrorKind::NotFound`] if it knows the name and has no address for it.
pub(super) async fn resolve(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    let addresses: Vec<SocketAddr> =
        blocking::unblock(move || (host.as_str(), port).to_socket_addrs().map(Iterator::collect)).await?;
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(addresses)
}
