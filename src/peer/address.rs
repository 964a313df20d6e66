//! Where peers are, as text and as BIP155 has it.
//!
//! | network | as text |
//! | --- | --- |
//! | IPv4, IPv6 | `192.0.2.1:8333`, `[2001:db8::1]:8333` |
//! | Tor v3 | 56 characters of base32 (key, checksum, version), then `.onion:8333` (Tor's rend-spec-v3, section 6) |
//! | I2P | 52 characters of base32 (the SHA-256 of a destination), then `.b32.i2p:0` |
//! | CJDNS | an IPv6 address in `fc00::/8` |
//! | a name | `seed.example:8333`, resolved when it is dialled |
//! | an HTTP source | `http://127.0.0.1:8332`, and what else [`SourceUrl`] reads |
//!
//! A name that ends in `.onion` or `.i2p` and is no address of these networks is refused: a resolver must not see it
//! (RFC 7686).

use super::source_url::{SourceUrl, has_scheme};
use crate::wire::addr;
use bitcoin::p2p::address::AddrV2;
use core::fmt;
use data_encoding::BASE32_NOPAD;
use sha3::{Digest, Sha3_256};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where a peer is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum PeerAddress {
    /// An IP address and port.
    Ip(SocketAddr),
    /// A name and port, resolved when dialled.
    Name(String, u16),
    /// The public key of a Tor v3 service, and its port.
    Onion([u8; 32], u16),
    /// The hash of an I2P destination, and its port (0: I2P has none).
    I2p([u8; 32], u16),
    /// An address in `fc00::/8` and port.
    Cjdns(Ipv6Addr, u16),
    /// The REST interface of a node, which is dialled at its host. No [transport](crate::Transport) is given one.
    Http(SourceUrl),
}

/// The networks of BIP155 that are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AddressNetwork {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// Tor v3.
    Onion,
    /// I2P.
    I2p,
    /// CJDNS.
    Cjdns,
}

impl AddressNetwork {
    /// All networks.
    pub const ALL: [Self; 5] = [Self::Ipv4, Self::Ipv6, Self::Onion, Self::I2p, Self::Cjdns];

    /// Whether a socket of the operating system reaches it.
    pub const fn is_direct(self) -> bool {
        matches!(self, Self::Ipv4 | Self::Ipv6)
    }
}

impl fmt::Display for AddressNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Onion => "onion",
            Self::I2p => "i2p",
            Self::Cjdns => "cjdns",
        })
    }
}

impl core::str::FromStr for AddressNetwork {
    type Err = AddressParseError;

    fn from_str(text: &str) -> Result<Self, AddressParseError> {
        Self::ALL.into_iter().find(|network| network.to_string() == text).ok_or(AddressParseError)
    }
}

impl PeerAddress {
    /// Its network; `None` for a name and for an HTTP source, which is in no address book.
    pub fn network(&self) -> Option<AddressNetwork> {
        Some(match self {
            Self::Ip(socket) if socket.ip().to_canonical().is_ipv4() => AddressNetwork::Ipv4,
            Self::Ip(_) => AddressNetwork::Ipv6,
            Self::Name(..) | Self::Http(_) => return None,
            Self::Onion(..) => AddressNetwork::Onion,
            Self::I2p(..) => AddressNetwork::I2p,
            Self::Cjdns(..) => AddressNetwork::Cjdns,
        })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        match self {
            Self::Ip(socket) => socket.port(),
            Self::Http(url) => url.host().port(),
            Self::Name(_, port) | Self::Onion(_, port) | Self::I2p(_, port) | Self::Cjdns(_, port) => *port,
        }
    }

    /// What a socket of the operating system connects to. For CJDNS that works where its router runs.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(socket) => Some(*socket),
            Self::Cjdns(ip, port) => Some((*ip, *port).into()),
            Self::Http(url) => url.host().socket_addr(),
            Self::Name(..) | Self::Onion(..) | Self::I2p(..) => None,
        }
    }

    /// The form on the wire; `None` for a name and for an HTTP source.
    pub fn to_addr_v2(&self) -> Option<AddrV2> {
        Some(match self {
            Self::Ip(socket) => addr::from_socket(socket),
            Self::Name(..) | Self::Http(_) => return None,
            Self::Onion(key, _) => AddrV2::TorV3(*key),
            Self::I2p(hash, _) => AddrV2::I2p(*hash),
            Self::Cjdns(ip, _) => AddrV2::Cjdns(*ip),
        })
    }

    /// From the form on the wire; `None` if no node can be there ([`addr::is_valid`]).
    pub fn from_addr_v2(address: &AddrV2, port: u16) -> Option<Self> {
        if !addr::is_valid(address) {
            return None;
        }
        Some(match address {
            AddrV2::TorV3(key) => Self::Onion(*key, port),
            AddrV2::I2p(hash) => Self::I2p(*hash, port),
            AddrV2::Cjdns(ip) => Self::Cjdns(*ip, port),
            other => addr::to_socket(other, port)?.into(),
        })
    }

    /// Whether it is on this machine.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Ip(socket) => socket.ip().to_canonical().is_loopback(),
            Self::Name(name, _) => name == "localhost",
            Self::Http(url) => url.host().is_local(),
            Self::Onion(..) | Self::I2p(..) | Self::Cjdns(..) => false,
        }
    }
}

impl From<SocketAddr> for PeerAddress {
    /// What is in `fc00::/8` is CJDNS: nothing else uses that range. An IPv4 address mapped into IPv6 becomes IPv4, so that
    /// no address has two forms.
    fn from(address: SocketAddr) -> Self {
        match address.ip().to_canonical() {
            IpAddr::V6(ip) if ip.octets()[0] == 0xfc => Self::Cjdns(ip, address.port()),
            IpAddr::V4(ip) => Self::Ip((ip, address.port()).into()),
            IpAddr::V6(_) => Self::Ip(address),
        }
    }
}

/// The version of onion addresses with a key.
const ONION_VERSION: u8 = 3;

fn onion_checksum(key: &[u8; 32]) -> [u8; 2] {
    let digest =
        Sha3_256::new().chain_update(b".onion checksum").chain_update(key).chain_update([ONION_VERSION]);
    let digest = digest.finalize();
    [digest[0], digest[1]]
}

/// The host part of a Tor v3 address.
fn onion_name(key: &[u8; 32]) -> String {
    let mut bytes = [ONION_VERSION; 35];
    bytes[..32].copy_from_slice(key);
    bytes[32..34].copy_from_slice(&onion_checksum(key));
    format!("{}.onion", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
}

/// The key of what stands before `.onion`.
fn onion_key(name: &str) -> Option<[u8; 32]> {
    let bytes = BASE32_NOPAD.decode(name.to_ascii_uppercase().as_bytes()).ok()?;
    let key: [u8; 32] = bytes.get(..32)?.try_into().ok()?;
    let [one, two] = onion_checksum(&key);
    (bytes[32..] == [one, two, ONION_VERSION]).then_some(key)
}

/// The hash of what stands before `.b32.i2p`.
fn i2p_hash(name: &str) -> Option<[u8; 32]> {
    BASE32_NOPAD.decode(name.to_ascii_uppercase().as_bytes()).ok()?.try_into().ok()
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(socket) => socket.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::Onion(key, port) => write!(f, "{}:{port}", onion_name(key)),
            Self::I2p(hash, port) => {
                write!(f, "{}.b32.i2p:{port}", BASE32_NOPAD.encode(hash).to_ascii_lowercase())
            }
            Self::Cjdns(ip, port) => SocketAddr::from((*ip, *port)).fmt(f),
            Self::Http(url) => url.fmt(f),
        }
    }
}

/// The text is no address of the [forms](self) that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address of the form HOST:PORT or http://HOST[:PORT][/PATH]")]
pub struct AddressParseError;

impl core::str::FromStr for PeerAddress {
    type Err = AddressParseError;

    fn from_str(text: &str) -> Result<Self, AddressParseError> {
        if has_scheme(text) {
            return text.parse().map(Self::Http);
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        let (name, port) = text.rsplit_once(':').ok_or(AddressParseError)?;
        // A name of DNS has at most 253 characters (RFC 1035).
        let is_name = !name.is_empty()
            && name.len() <= 253
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        if !is_name || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(AddressParseError);
        }
        let port = port.parse().map_err(|_| AddressParseError)?;
        let lower = name.to_ascii_lowercase();
        // A resolver takes a name with a dot at its end for the same name.
        let lower = lower.trim_end_matches('.');
        if let Some(name) = lower.strip_suffix(".onion") {
            return onion_key(name).map(|key| Self::Onion(key, port)).ok_or(AddressParseError);
        }
        if let Some(name) = lower.strip_suffix(".i2p") {
            let hash = name.strip_suffix(".b32").and_then(i2p_hash);
            return hash.map(|hash| Self::I2p(hash, port)).ok_or(AddressParseError);
        }
        // However it was written, an IP address is none of the names.
        let ip = name.parse::<Ipv4Addr>().map(|ip| Self::Ip((ip, port).into()));
        Ok(ip.unwrap_or_else(|_| Self::Name(name.to_owned(), port)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bug, found by the fuzzer: `127.0.0.1:+8` was a name, which was written as `127.0.0.1:8` and then read as an
    /// IP address.
    #[test]
    fn what_is_an_address_is_written_as_one_and_read_as_the_same() {
        for text in [
            "127.0.0.1:8",
            "[::1]:8333",
            "seed.example:8333",
            "1.2.3:8",
            "127.0.0.1:08",
            "a:00065535",
            "[fc00:1:2:3:4:5:6:7]:8333",
            "[::ffff:1.2.3.4]:8333",
            "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion:8333",
            "ukeu3k5oycgaauneqgtnvselmt4yemvoilkln7jpvamvfx7dnkdq.b32.i2p:0",
        ] {
            let address: PeerAddress = text.parse().unwrap();
            assert_eq!(address.to_string().parse(), Ok(address), "{text}");
        }
        for text in [
            "127.0.0.1:+8",
            "seed.example:+8",
            "a:",
            ":8",
            "a:65536",
            "a:-1",
            "a b:1",
            "::1",
            // One character of the checksum is another, the name is cut short, the version is another.
            "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscsyd.onion:8333",
            "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscry.onion:8333",
            "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscrye.onion:8333",
            "expyuzz4wqqyqhjn.onion:80",
            "some.i2p:0",
            // The bug: with a dot at the end these were names, and a resolver was asked.
            "expyuzz4wqqyqhjn.onion.:80",
            "some.i2p..:0",
            "ukeu3k5oycgaauneqgtnvselmt4yemvoilkln7jpvamvfx7dnkd.b32.i2p:0",
        ] {
            assert_eq!(text.parse::<PeerAddress>(), Err(AddressParseError), "{text}");
        }
    }

    /// The example of BIP155, whose bytes and name Core's net_tests.cpp has too.
    #[test]
    fn names_and_keys_of_tor_and_i2p_belong_together() {
        let key = "79bcc625184b05194975c28b66b66b0469f7f6556fb1ac3189a79b40dda32f1f";
        let key: [u8; 32] = bitcoin::hex::FromHex::from_hex(key).unwrap();
        let onion = "PG6MMJIYJMCRSSLVYKFWNNTLARU7P5SVN6Y2YMMJU6NUBXNDF4PSCRYD.onion:1".parse();
        assert_eq!(onion, Ok(PeerAddress::Onion(key, 1)));
        let hash = "a2894dabaec08c0051a481a6dac88b64f98232ae42d4b6fd2fa81952dfe36a87";
        let hash: [u8; 32] = bitcoin::hex::FromHex::from_hex(hash).unwrap();
        let dotted = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion.:1".parse();
        assert_eq!(dotted, Ok(PeerAddress::Onion(key, 1)));
        let i2p = "ukeu3k5oycgaauneqgtnvselmt4yemvoilkln7jpvamvfx7dnkdq.b32.i2p:0".parse();
        assert_eq!(i2p, Ok(PeerAddress::I2p(hash, 0)));
    }

    #[test]
    fn every_network_has_its_form_on_the_wire() {
        for text in [
            "1.2.3.4:8333",
            "[1a1b::8a8b]:18444",
            "[fc00::1]:8333",
            "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion:8333",
            "ukeu3k5oycgaauneqgtnvselmt4yemvoilkln7jpvamvfx7dnkdq.b32.i2p:0",
        ] {
            let address: PeerAddress = text.parse().unwrap();
            let wire = address.to_addr_v2().unwrap();
            assert_eq!(PeerAddress::from_addr_v2(&wire, address.port()), Some(address));
        }
        assert_eq!("a:1".parse::<PeerAddress>().unwrap().to_addr_v2(), None);
        assert_eq!(PeerAddress::from_addr_v2(&AddrV2::TorV2([1; 10]), 1), None);
    }
}
