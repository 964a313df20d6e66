//! Options of being reached from outside.

use super::{BuildError, Builder};
use crate::limits::MAX_STUN_SERVERS;
use crate::net::Gateway;
use crate::peer::PeerAddress;
use crate::relay::reach::ReachConfig;
use std::sync::Arc;

/// What the host chose.
#[derive(Debug)]
pub(super) struct ReachOptions {
    map: bool,
    upnp: bool,
    stun_servers: Vec<PeerAddress>,
    gateway: Option<Arc<dyn Gateway>>,
}

impl Default for ReachOptions {
    fn default() -> Self {
        Self { map: true, upnp: false, stun_servers: Vec::new(), gateway: None }
    }
}

impl Builder {
    /// Whether the gateway is asked by PCP and NAT-PMP to let peers in where the node listens; on by default. Only addresses of
    /// [`Self::listen`] count that others might come to, the first each of IPv4 and IPv6. What is given is told to peers, is
    /// renewed, and is taken back at the end; [`Status::reach`](crate::Status::reach) shows it. Without it a node still tells
    /// an address of this machine that is of the Internet.
    ///
    /// With [`Self::proxy`] nothing is asked and no address looked for: it would go past the proxy. The same with a
    /// [`Self::transport`] of the host, unless it gives a [`Self::gateway`] too.
    pub fn map_ports(mut self, on: bool) -> Self {
        self.reach.map = on;
        self
    }

    /// Whether gateways that know neither PCP nor NAT-PMP are asked by UPnP; off by default, because a device of the local
    /// network then gives us XML to read. Needs the feature `upnp`.
    pub fn upnp(mut self, on: bool) -> Self {
        self.reach.upnp = on;
        self
    }

    /// Servers that are asked by STUN (RFC 8489) what address they see, one after the other, where no gateway maps a port: at
    /// most [`MAX_STUN_SERVERS`]. None by default: each learns of this node.
    pub fn stun_servers(mut self, servers: impl IntoIterator<Item = PeerAddress>) -> Self {
        self.reach.stun_servers = servers.into_iter().collect();
        self
    }

    /// What carries these questions out, instead of `net::native::NativeGateway`.
    pub fn gateway(mut self, gateway: impl Gateway + 'static) -> Self {
        self.reach.gateway = Some(Arc::new(gateway));
        self
    }
}

impl ReachOptions {
    /// What is asked, and by whom. `own_transport`: the host brings its sockets.
    pub(super) fn resolve(
        self,
        own_transport: bool,
        proxied: bool,
    ) -> Result<(ReachConfig, Option<Arc<dyn Gateway>>), BuildError> {
        if self.stun_servers.len() > MAX_STUN_SERVERS {
            return Err(BuildError::Option("more than eight STUN servers"));
        }
        let wanted = self.upnp || !self.stun_servers.is_empty();
        if proxied && wanted {
            return Err(BuildError::Option("UPnP and STUN would go past the proxy"));
        }
        if self.upnp && self.gateway.is_none() && !cfg!(feature = "upnp") {
            return Err(BuildError::Option("UPnP needs the feature `upnp`"));
        }
        let default = if own_transport { None } else { default_gateway() };
        let gateway = self.gateway.or(default).filter(|_| !proxied);
        if wanted && gateway.is_none() {
            return Err(BuildError::Option("UPnP and STUN need a gateway beside a transport of the host"));
        }
        let config = ReachConfig {
            look: gateway.is_some(),
            map: self.map,
            upnp: self.upnp,
            stun_servers: self.stun_servers,
        };
        Ok((config, gateway))
    }
}

#[cfg(feature = "native")]
fn default_gateway() -> Option<Arc<dyn Gateway>> {
    Some(Arc::new(crate::net::native::NativeGateway::new()))
}

#[cfg(not(feature = "native"))]
fn default_gateway() -> Option<Arc<dyn Gateway>> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> Vec<PeerAddress> {
        vec!["192.0.2.1:3478".parse().unwrap()]
    }

    #[test]
    fn nothing_goes_past_a_proxy_or_a_transport_of_the_host() {
        let options = || ReachOptions { stun_servers: server(), ..ReachOptions::default() };
        for (own_transport, proxied) in [(false, true), (true, true), (true, false)] {
            assert!(options().resolve(own_transport, proxied).is_err());
            let (config, gateway) = ReachOptions::default().resolve(own_transport, proxied).unwrap();
            assert!(!config.look && gateway.is_none());
        }
        let (config, gateway) = ReachOptions::default().resolve(false, false).unwrap();
        assert_eq!((config.look, gateway.is_some()), (cfg!(feature = "native"), cfg!(feature = "native")));
    }

    #[test]
    fn options_that_cannot_be_kept_are_refused() {
        let many = ReachOptions { stun_servers: vec![server().remove(0); 9], ..ReachOptions::default() };
        assert!(many.resolve(false, false).is_err());
        let upnp = ReachOptions { upnp: true, ..ReachOptions::default() };
        assert_eq!(upnp.resolve(false, false).is_ok(), cfg!(all(feature = "upnp", feature = "native")));
    }
}
