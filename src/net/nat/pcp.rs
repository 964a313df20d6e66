//! PCP's MAP request (RFC 6887, sections 7 and 11): let peers come to a TCP port of ours.
//!
//! 1. The request names our address, the port, for how many seconds, and which outer address would be nice; a nonce makes
//!    the mapping ours: renewing it takes the same one.
//! 2. The answer repeats nonce, protocol and port, and says what was given and for how long.
//! 3. Zero seconds take the mapping back.
//!
//! A gateway that knows NAT-PMP only answers in NAT-PMP's version ([`ReplyError::Version`]). Left out: options, and the
//! epoch, by which a client learns that its gateway has forgotten all mappings: each renewal asks for ours anew anyway.

use super::{ReplyError, bytes};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const VERSION: u8 = 2;
const MAP: u8 = 1;
const RESPONSE: u8 = 0x80;
const TCP: u8 = 6;
/// Bytes of request and response without options.
const LENGTH: usize = 60;
/// The most that a message may have (section 7).
pub const MAX_LENGTH: usize = 1_100;
/// The gateway's version is another (section 7.4).
const UNSUPPORTED_VERSION: u8 = 1;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The nonce of the mapping.
    pub nonce: [u8; 12],
    /// Our address as the gateway sees it; it refuses another one.
    pub client: IpAddr,
    /// The port that is to be reached.
    pub port: u16,
    /// The outer address that was given before or is wanted; its family is that of the mapping.
    pub external: SocketAddr,
    /// For how long; 0 ends the mapping.
    pub seconds: u32,
}

/// What was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Where peers reach the port.
    pub external: SocketAddr,
    /// For how long.
    pub seconds: u32,
}

/// IPv4 addresses are written as IPv6 has them (section 5).
fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// The bytes of a request.
pub fn request(asked: &Request) -> [u8; LENGTH] {
    let mut request = [0; LENGTH];
    request[0] = VERSION;
    request[1] = MAP;
    request[4..8].copy_from_slice(&asked.seconds.to_be_bytes());
    request[8..24].copy_from_slice(&octets(asked.client));
    request[24..36].copy_from_slice(&asked.nonce);
    request[36] = TCP;
    request[40..42].copy_from_slice(&asked.port.to_be_bytes());
    request[42..44].copy_from_slice(&asked.external.port().to_be_bytes());
    request[44..60].copy_from_slice(&octets(asked.external.ip()));
    request
}

/// What the answer to a request gives.
///
/// # Errors
/// [`ReplyError`].
pub fn parse(data: &[u8], asked: &Request) -> Result<Grant, ReplyError> {
    let [version, opcode, _, code] = bytes(data, 0)?;
    if opcode & RESPONSE == 0 {
        return Err(ReplyError::Foreign);
    }
    if version != VERSION {
        // Nothing more of it is known, nor is there more in NAT-PMP's.
        return Err(if code == UNSUPPORTED_VERSION { ReplyError::Version } else { ReplyError::Foreign });
    }
    if data.len() < LENGTH || data.len() > MAX_LENGTH || !data.len().is_multiple_of(4) {
        return Err(ReplyError::Malformed);
    }
    let nonce: [u8; 12] = bytes(data, 24)?;
    let port = u16::from_be_bytes(bytes(data, 40)?);
    if opcode != RESPONSE | MAP || nonce != asked.nonce || data[36] != TCP || port != asked.port {
        return Err(ReplyError::Foreign);
    }
    if code != 0 {
        return Err(if code == UNSUPPORTED_VERSION {
            ReplyError::Version
        } else {
            ReplyError::Refused(code.into())
        });
    }
    let ip = Ipv6Addr::from_bits(u128::from_be_bytes(bytes(data, 44)?)).to_canonical();
    let external = SocketAddr::new(ip, u16::from_be_bytes(bytes(data, 42)?));
    Ok(Grant { external, seconds: u32::from_be_bytes(bytes(data, 4)?) })
}

/// "Any address" of the same family.
pub fn anywhere(like: IpAddr, port: u16) -> SocketAddr {
    let ip = if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { IpAddr::from(Ipv6Addr::UNSPECIFIED) };
    SocketAddr::new(ip, port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn asked() -> Request {
        let client = IpAddr::from([192, 168, 1, 5]);
        Request { nonce: [9; 12], client, port: 8_333, external: anywhere(client, 8_333), seconds: 7_200 }
    }

    /// The answer of a gateway that gives this.
    fn answer(asked: &Request, external: &str, seconds: u32) -> Vec<u8> {
        let external = external.parse().unwrap();
        let mut answer = request(&Request { external, seconds, ..*asked }).to_vec();
        answer[1] |= RESPONSE;
        answer[8..24].fill(0);
        answer
    }

    #[test]
    fn a_request_has_its_fields_where_the_rfc_wants_them() {
        let bytes = request(&asked());
        assert_eq!(bytes[..8], [2, 1, 0, 0, 0, 0, 0x1c, 0x20]);
        assert_eq!(bytes[8..24], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 168, 1, 5]);
        assert_eq!(bytes[24..36], [9; 12]);
        assert_eq!(bytes[36..44], [6, 0, 0, 0, 0x20, 0x8d, 0x20, 0x8d]);
        assert_eq!(bytes[44..], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0]);
    }

    #[test]
    fn answers_of_both_families() {
        let asked = asked();
        let granted = parse(&answer(&asked, "88.1.2.3:9000", 3_600), &asked);
        assert_eq!(granted, Ok(Grant { external: "88.1.2.3:9000".parse().unwrap(), seconds: 3_600 }));
        let client: IpAddr = "2a00::5".parse().unwrap();
        let asked = Request { client, external: anywhere(client, 8_333), ..asked };
        assert_eq!(request(&asked)[44..], [0; 16]);
        let granted = parse(&answer(&asked, "[2a00::5]:8333", 60), &asked);
        assert_eq!(granted, Ok(Grant { external: "[2a00::5]:8333".parse().unwrap(), seconds: 60 }));
    }

    #[test]
    fn what_is_no_answer_is_told_apart() {
        let asked = asked();
        let good = answer(&asked, "88.1.2.3:9000", 3_600);
        for cut in 0..good.len() {
            assert!(parse(&good[..cut], &asked).is_err(), "{cut}");
        }
        assert_eq!(parse(&[&good[..], &[0; 3]].concat(), &asked), Err(ReplyError::Malformed));
        assert!(parse(&[&good[..], &[0; 8]].concat(), &asked).is_ok(), "options are allowed");
        assert_eq!(parse(&[&good[..], &[0; MAX_LENGTH]].concat(), &asked), Err(ReplyError::Malformed));
        // Its direction, opcode, nonce, protocol, port.
        for at in [1, 24, 35, 36, 40, 41] {
            let mut other = good.clone();
            other[at] ^= if at == 1 { 0x82 } else { 1 };
            assert_eq!(parse(&other, &asked), Err(ReplyError::Foreign), "{at}");
        }
        let mut refused = good.clone();
        refused[3] = 2;
        assert_eq!(parse(&refused, &asked), Err(ReplyError::Refused(2)));
        refused[3] = UNSUPPORTED_VERSION;
        assert_eq!(parse(&refused, &asked), Err(ReplyError::Version));
        // What a gateway with NAT-PMP only says (RFC 6886, section 3.5).
        assert_eq!(parse(&[0, 0x81, 0, 1, 0, 0, 0, 9], &asked), Err(ReplyError::Version));
        assert_eq!(parse(&[0, 0x81, 0, 0, 0, 0, 0, 9], &asked), Err(ReplyError::Foreign));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(data in proptest::collection::vec(any::<u8>(), 0..1_200)) {
            let _ = parse(&data, &asked());
        }

        #[test]
        fn what_was_given_is_read(ip in any::<[u8; 4]>(), port in any::<u16>(), seconds in any::<u32>()) {
            let external = SocketAddr::from((ip, port));
            let granted = parse(&answer(&asked(), &external.to_string(), seconds), &asked());
            prop_assert_eq!(granted, Ok(Grant { external, seconds }));
        }
    }
}
