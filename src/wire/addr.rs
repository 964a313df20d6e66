//! Addresses on the wire: BIP155's (`addrv2`) and the legacy form of 16 bytes (`addr`, `version`).
//!
//! What Bitcoin Core does (`netaddress.h`, `CNetAddr::UnserializeV2Stream`, `SetLegacyIPv6`, `IsValid`):
//! 1. A known network with a wrong length, or any address over 512 bytes, makes the whole message invalid.
//! 2. An unknown network, TORv2, and IPv4 or TORv2 dressed up as IPv6 are read over and ignored.
//! 3. Some addresses parse and are of no use: the unspecified ones, documentation ranges, CJDNS outside fc00::/8.
//!
//! Here the second kind becomes [`AddrV2::Unknown`] with its bytes, so that it encodes to what it came from.
//!
//! Left out: which addresses are routable, and how they are grouped (the address book's business).

use super::compact_size::{ReadError, Reader};
use crate::limits;
use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::address::{AddrV2, AddrV2Message, Address};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Network numbers of BIP155.
const IPV4: u8 = 1;
const IPV6: u8 = 2;
const TOR_V2: u8 = 3;
const TOR_V3: u8 = 4;
const I2P: u8 = 5;
const CJDNS: u8 = 6;

/// `fd87:d87e:eb43::/48`: a TORv2 name in the legacy form (OnionCat).
const ONION_CAT: [u8; 6] = [0xfd, 0x87, 0xd8, 0x7e, 0xeb, 0x43];
/// `fd6b:88c0:8724::/48`: Core's internal names; never sent by an honest peer.
const INTERNAL: [u8; 6] = [0xfd, 0x6b, 0x88, 0xc0, 0x87, 0x24];

/// Reads network, length and bytes of a BIP155 address.
///
/// # Errors
/// [`ReadError::TooMany`] over 512 bytes, [`ReadError::Field`] if the length is not the network's, and those
/// of the reader.
pub fn read_addr_v2(reader: &mut Reader<'_>) -> Result<AddrV2, ReadError> {
    let network = reader.u8()?;
    let bytes = reader.var_bytes(limits::MAX_ADDRV2_BYTES)?;
    let wrong = |_| ReadError::Field("an address whose length is not its network's");
    Ok(match network {
        IPV4 => AddrV2::Ipv4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).map_err(wrong)?)),
        IPV6 => {
            let ip = Ipv6Addr::from(<[u8; 16]>::try_from(bytes).map_err(wrong)?);
            if is_disguised(&ip) { AddrV2::Unknown(IPV6, bytes.to_vec()) } else { AddrV2::Ipv6(ip) }
        }
        TOR_V2 => match <[u8; 10]>::try_from(bytes) {
            Ok(name) => AddrV2::TorV2(name),
            Err(_) => AddrV2::Unknown(TOR_V2, bytes.to_vec()),
        },
        TOR_V3 => AddrV2::TorV3(bytes.try_into().map_err(wrong)?),
        I2P => AddrV2::I2p(bytes.try_into().map_err(wrong)?),
        CJDNS => AddrV2::Cjdns(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).map_err(wrong)?)),
        _ => AddrV2::Unknown(network, bytes.to_vec()),
    })
}

/// Reads one entry of an `addrv2` message: time, services, address, port.
///
/// # Errors
/// Those of [`read_addr_v2`].
pub fn read_addr_v2_entry(reader: &mut Reader<'_>) -> Result<AddrV2Message, ReadError> {
    Ok(AddrV2Message {
        time: reader.u32()?,
        services: ServiceFlags::from(reader.compact_size()?),
        addr: read_addr_v2(reader)?,
        port: u16::from_be_bytes(reader.array()?),
    })
}

/// Whether the address can be that of a node (Core's `CNetAddr::IsValid`). What is not, is ignored without
/// a penalty.
pub fn is_valid(addr: &AddrV2) -> bool {
    match addr {
        AddrV2::Ipv4(ip) => !ip.is_unspecified() && !ip.is_broadcast(),
        AddrV2::Ipv6(ip) => {
            let documentation = ip.segments().starts_with(&[0x2001, 0xdb8]);
            !ip.is_unspecified() && !documentation && !is_disguised(ip) && !ip.octets().starts_with(&INTERNAL)
        }
        AddrV2::Cjdns(ip) => ip.octets().starts_with(&[0xfc]),
        AddrV2::TorV3(_) | AddrV2::I2p(_) => true,
        AddrV2::TorV2(_) | AddrV2::Unknown(..) => false,
    }
}

/// The address of a socket; an IPv4 address mapped into IPv6 becomes IPv4.
pub fn from_socket(socket: &SocketAddr) -> AddrV2 {
    match socket.ip().to_canonical() {
        IpAddr::V4(ip) => AddrV2::Ipv4(ip),
        IpAddr::V6(ip) => AddrV2::Ipv6(ip),
    }
}

/// Where a plain socket reaches this address: valid IPv4 and IPv6 only, others need a proxy or a router.
pub fn to_socket(addr: &AddrV2, port: u16) -> Option<SocketAddr> {
    let ip = match addr {
        AddrV2::Ipv4(ip) => IpAddr::V4(*ip),
        AddrV2::Ipv6(ip) => IpAddr::V6(*ip),
        _ => return None,
    };
    is_valid(addr).then_some(SocketAddr::new(ip, port))
}

/// A legacy address as BIP155 has it. TORv2 names and other disguises become [`AddrV2::Unknown`].
pub fn from_legacy(address: &Address) -> AddrV2 {
    let ip = Ipv6Addr::from(address.address);
    match ip.to_ipv4_mapped() {
        Some(ip) => AddrV2::Ipv4(ip),
        None if is_disguised(&ip) => AddrV2::Unknown(IPV6, ip.octets().to_vec()),
        None => AddrV2::Ipv6(ip),
    }
}

/// The legacy form. What has none (Tor, I2P, CJDNS, unknown networks) becomes sixteen zero bytes.
pub fn to_legacy(addr: &AddrV2, port: u16, services: ServiceFlags) -> Address {
    let address = match addr {
        AddrV2::Ipv4(ip) => ip.to_ipv6_mapped().segments(),
        AddrV2::Ipv6(ip) => ip.segments(),
        _ => [0; 8],
    };
    Address { services, address, port }
}

/// Whether another network's address is dressed up as IPv6.
fn is_disguised(ip: &Ipv6Addr) -> bool {
    ip.to_ipv4_mapped().is_some() || ip.octets().starts_with(&ONION_CAT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::consensus::encode::serialize;
    use bitcoin::hex::FromHex;

    fn read(hex: &str) -> Result<AddrV2, ReadError> {
        let bytes = Vec::from_hex(hex).unwrap();
        let mut reader = Reader::new(&bytes);
        let addr = read_addr_v2(&mut reader)?;
        assert!(reader.is_empty(), "{hex}");
        assert_eq!(serialize(&addr), bytes, "{hex}");
        Ok(addr)
    }

    #[test]
    fn networks_of_bip155() {
        assert_eq!(read("010401020304"), Ok(AddrV2::Ipv4(Ipv4Addr::new(1, 2, 3, 4))));
        let six = "02101a1b2a2b3a3b4a4b5a5b6a6b7a7b8a8b";
        assert_eq!(read(six), Ok(AddrV2::Ipv6("1a1b:2a2b:3a3b:4a4b:5a5b:6a6b:7a7b:8a8b".parse().unwrap())));
        let cjdns = read("0610fc000001000200030004000500060007").unwrap();
        assert_eq!(cjdns, AddrV2::Cjdns("fc00:1:2:3:4:5:6:7".parse().unwrap()));
        for addr in [cjdns, AddrV2::TorV3([7; 32]), AddrV2::I2p([8; 32])] {
            assert!(is_valid(&addr));
            assert_eq!(to_socket(&addr, 8333), None);
            assert_eq!(to_legacy(&addr, 1, ServiceFlags::NONE).address, [0; 8]);
        }
    }

    #[test]
    fn ignored_ones_are_read_over() {
        for hex in [
            "021000000000000000000000ffff01020304",
            "0210fd87d87eeb430102030405060708090a",
            "030af1f2f3f4f5f6f7f8f9fa",
            "0302f1f2",
            "0610aa000001000200030004000500060007",
            "aa0401020304",
            "aa00",
            "021000000000000000000000000000000000",
            "010400000000",
            "0104ffffffff",
            "021020010db8000000000000000000000001",
            "0210fd6b88c0872401020304050607080900",
        ] {
            let addr = read(hex).unwrap();
            assert!(!is_valid(&addr), "{hex}");
            assert_eq!(to_socket(&addr, 8333), None, "{hex}");
        }
    }

    #[test]
    fn refused_ones() {
        for hex in ["01040102", "010501020304", "020400", "040000", "050300", "060100"] {
            assert!(read(hex).is_err(), "{hex}");
        }
        let limit = limits::MAX_ADDRV2_BYTES;
        assert_eq!(read("01fd010201020304"), Err(ReadError::TooMany { count: 513, limit }));
        assert_eq!(read("aafe0000000201020304050607"), Err(ReadError::TooMany { count: 33_554_432, limit }));
    }

    #[test]
    fn sockets_and_legacy_forms() {
        for text in ["1.2.3.4:8333", "[1a1b:2a2b::8a8b]:18444", "[::1]:0"] {
            let socket: SocketAddr = text.parse().unwrap();
            let addr = from_socket(&socket);
            assert_eq!(to_socket(&addr, socket.port()), Some(socket));
            let legacy = to_legacy(&addr, socket.port(), ServiceFlags::NETWORK);
            assert_eq!(from_legacy(&legacy), addr);
            assert_eq!(legacy, Address::new(&socket, ServiceFlags::NETWORK));
        }
        let mapped: SocketAddr = "[::ffff:1.2.3.4]:1".parse().unwrap();
        assert_eq!(from_socket(&mapped), AddrV2::Ipv4(Ipv4Addr::new(1, 2, 3, 4)));
        let onion = Address {
            address: [0xfd87, 0xd87e, 0xeb43, 1, 2, 3, 4, 5],
            ..to_legacy(&AddrV2::TorV3([0; 32]), 1, ServiceFlags::NONE)
        };
        assert!(!is_valid(&from_legacy(&onion)));
    }
}
