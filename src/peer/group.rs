//! Which addresses one party is likely to own together, and which can be reached over the internet.
//!
//! As Core's netgroup.cpp (`GetGroup`, without AS maps) and netaddress.cpp (`IsRoutable`). An address that carries an
//! IPv4 address within (6to4, Teredo, NAT64) belongs to the group of that one.

use super::address::PeerAddress;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses that one party is likely to own together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum NetGroup {
    /// The first 16 bits of an IPv4 address.
    V4([u8; 2]),
    /// The first 32 bits of an IPv6 address, 36 of a tunnel by Hurricane Electric; the others are 0.
    V6([u8; 5]),
    /// The first 4 bits of a Tor key, which costs nothing to choose.
    Onion(u8),
    /// The first 4 bits of an I2P hash.
    I2p(u8),
    /// The 4 bits behind `fc`.
    Cjdns(u8),
    /// A name stands for itself, and so does a seed as the source of addresses.
    Name(String),
}

impl NetGroup {
    /// The group of an address.
    pub fn of(address: &PeerAddress) -> Self {
        match address {
            PeerAddress::Ip(socket) => match socket.ip().to_canonical() {
                IpAddr::V4(ip) => Self::of_v4(ip),
                IpAddr::V6(ip) => Self::of_v6(ip),
            },
            PeerAddress::Name(name, _) => Self::Name(name.clone()),
            PeerAddress::Http(url) => Self::of(url.host()),
            PeerAddress::Onion(key, _) => Self::Onion(key[0] >> 4),
            PeerAddress::I2p(hash, _) => Self::I2p(hash[0] >> 4),
            PeerAddress::Cjdns(ip, _) => Self::Cjdns(ip.octets()[1] >> 4),
        }
    }

    fn of_v4(ip: Ipv4Addr) -> Self {
        let [a, b, ..] = ip.octets();
        Self::V4([a, b])
    }

    fn of_v6(ip: Ipv6Addr) -> Self {
        if let Some(ip) = linked_v4(ip) {
            return Self::of_v4(ip);
        }
        let [a, b, c, d, e, ..] = ip.octets();
        let tunnel = [a, b, c, d] == [0x20, 0x01, 0x04, 0x70];
        Self::V6([a, b, c, d, if tunnel { e & 0xf0 } else { 0 }])
    }

    /// Its bytes, for hashing and for files; no two groups have the same.
    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::V4(prefix) => [&[1], &prefix[..]].concat(),
            Self::V6(prefix) => [&[2], &prefix[..]].concat(),
            Self::Onion(bits) => vec![4, *bits],
            Self::I2p(bits) => vec![5, *bits],
            Self::Cjdns(bits) => vec![6, *bits],
            Self::Name(name) => [&[0], name.as_bytes()].concat(),
        }
    }

    /// From its bytes.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (network, rest) = bytes.split_first()?;
        Some(match (network, rest) {
            (1, prefix) => Self::V4(prefix.try_into().ok()?),
            (2, prefix) => Self::V6(prefix.try_into().ok()?),
            (4, [bits]) => Self::Onion(*bits),
            (5, [bits]) => Self::I2p(*bits),
            (6, [bits]) => Self::Cjdns(*bits),
            (0, name) => Self::Name(core::str::from_utf8(name).ok()?.to_owned()),
            _ => return None,
        })
    }
}

/// The IPv4 address within an IPv6 one: NAT64 (RFC 6052), 6to4 (RFC 3964), Teredo (RFC 4380).
fn linked_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = ip.octets();
    let v4 = |at: usize| Ipv4Addr::new(octets[at], octets[at + 1], octets[at + 2], octets[at + 3]);
    match ip.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(v4(12)),
        [0x2002, ..] => Some(v4(2)),
        [0x2001, 0, ..] => Some(Ipv4Addr::from_bits(!v4(12).to_bits())),
        _ => None,
    }
}

/// Whether an address can be that of a node that anybody reaches.
pub fn is_routable(address: &PeerAddress) -> bool {
    match address {
        PeerAddress::Ip(socket) => {
            let routable = match socket.ip().to_canonical() {
                IpAddr::V4(ip) => is_routable_v4(ip),
                IpAddr::V6(ip) => is_routable_v6(ip),
            };
            routable && socket.port() != 0
        }
        PeerAddress::Name(..) | PeerAddress::Http(_) => false,
        PeerAddress::Onion(_, port) | PeerAddress::Cjdns(_, port) => *port != 0,
        PeerAddress::I2p(..) => true,
    }
}

fn is_routable_v4(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    // RFC 6598 (100.64/10) and RFC 2544 (198.18/15) have no stable predicate.
    let shared = a == 100 && b & 0xc0 == 64;
    let benchmark = a == 198 && b & 0xfe == 18;
    let special = ip.is_unspecified() || ip.is_loopback() || ip.is_private() || ip.is_link_local();
    !(a == 0 || a >= 224 || shared || benchmark || special || ip.is_documentation() || ip.is_broadcast())
}

fn is_routable_v6(ip: Ipv6Addr) -> bool {
    let [a, b, ..] = ip.segments();
    let unique_local = a & 0xfe00 == 0xfc00;
    let link_local = a & 0xffc0 == 0xfe80;
    let documentation = a == 0x2001 && b == 0x0db8;
    let orchid = a == 0x2001 && (b & 0xfff0 == 0x10 || b & 0xfff0 == 0x20);
    let special = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast();
    !(unique_local || link_local || documentation || orchid || special)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(text: &str) -> NetGroup {
        NetGroup::of(&text.parse().unwrap())
    }

    /// As Core's netbase_tests.cpp (`netbase_getgroup`).
    #[test]
    fn groups_of_all_networks() {
        assert_eq!(group("1.2.3.4:1"), NetGroup::V4([1, 2]));
        for text in [
            "[::ffff:1.2.9.9]:1",
            "[64:ff9b::102:304]:1",
            "[2002:102:304:9:9:9:9:9]:1",
            "[2001:0:9:9:9:9:fefd:fcfb]:1",
        ] {
            assert_eq!(group(text), NetGroup::V4([1, 2]), "{text}");
        }
        assert_eq!(group("[2001:470:abcd:9999::1]:1"), NetGroup::V6([0x20, 1, 4, 0x70, 0xa0]));
        assert_eq!(group("[2001:2001:9999::1]:1"), NetGroup::V6([0x20, 1, 0x20, 1, 0]));
        assert_eq!(NetGroup::of(&PeerAddress::Onion([0xef; 32], 1)), NetGroup::Onion(0xe));
        assert_eq!(NetGroup::of(&PeerAddress::I2p([0x1f; 32], 1)), NetGroup::I2p(1));
        assert_eq!(group("[fc3a::1]:1"), NetGroup::Cjdns(3));
    }

    #[test]
    fn groups_are_read_from_their_bytes() {
        for text in ["1.2.3.4:1", "[2001:470:abcd::1]:1", "a.example:1", "[fc3a::1]:1"] {
            assert_eq!(NetGroup::from_bytes(&group(text).bytes()), Some(group(text)));
        }
        for other in [NetGroup::Onion(3), NetGroup::I2p(4)] {
            assert_eq!(NetGroup::from_bytes(&other.bytes()), Some(other));
        }
        for bytes in [&[][..], &[1, 2], &[2, 0, 0], &[3, 1], &[4], &[5, 1, 2], &[0, 0xff], &[9]] {
            assert_eq!(NetGroup::from_bytes(bytes), None);
        }
    }

    #[test]
    fn what_leads_into_the_hosts_own_network_is_not_routable() {
        for text in [
            "127.0.0.1:1",
            "10.0.0.1:1",
            "192.168.1.1:1",
            "100.64.0.1:1",
            "8.8.8.8:0",
            "0.0.0.0:1",
            "[::1]:1",
            "[fd00::1]:1",
            "[fe80::1]:1",
            "[fc00::1]:0",
            "localhost:1",
        ] {
            assert!(!is_routable(&text.parse().unwrap()), "{text}");
        }
        for text in ["8.8.8.8:1", "[2a00::1]:1", "[fc00::1]:1"] {
            assert!(is_routable(&text.parse().unwrap()), "{text}");
        }
        assert!(is_routable(&PeerAddress::I2p([1; 32], 0)));
    }
}
