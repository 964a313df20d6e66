//! NAT-PMP (RFC 6886), PCP's predecessor: the gateway's outer address, and a TCP port of it for one of ours.
//!
//! 1. The request for the address is two bytes; the answer has the address.
//! 2. The request for a mapping names our port, the outer port that would be nice, and seconds; the answer, what was given.
//! 3. Zero seconds and no outer port take the mapping back.
//!
//! There is no nonce: that an answer comes from the gateway's address is all that speaks for it (section 3.1). The epoch is
//! left out for the reason that [`pcp`](super::pcp) gives.

use super::{ReplyError, bytes};
use std::net::Ipv4Addr;

const VERSION: u8 = 0;
const RESPONSE: u8 = 0x80;
const ADDRESS: u8 = 0;
const MAP_TCP: u8 = 2;
const UNSUPPORTED_VERSION: u16 = 1;

/// Asks for the outer address.
pub const fn address_request() -> [u8; 2] {
    [VERSION, ADDRESS]
}

/// Asks for a mapping of `port`, if possible to `external`, for so many seconds.
pub fn map_request(port: u16, external: u16, seconds: u32) -> [u8; 12] {
    let mut request = [0; 12];
    request[1] = MAP_TCP;
    request[4..6].copy_from_slice(&port.to_be_bytes());
    request[6..8].copy_from_slice(&external.to_be_bytes());
    request[8..].copy_from_slice(&seconds.to_be_bytes());
    request
}

/// What all answers begin with: version, opcode, result.
fn head(data: &[u8], opcode: u8, length: usize) -> Result<(), ReplyError> {
    let [version, answered] = bytes(data, 0)?;
    let code = u16::from_be_bytes(bytes(data, 2)?);
    if answered != RESPONSE | opcode {
        return Err(ReplyError::Foreign);
    }
    match code {
        UNSUPPORTED_VERSION => Err(ReplyError::Version),
        _ if version != VERSION => Err(ReplyError::Foreign),
        // An answer that refuses may end after its head.
        2.. => Err(ReplyError::Refused(code)),
        0 if data.len() != length => Err(ReplyError::Malformed),
        0 => Ok(()),
    }
}

/// The outer address that an answer tells.
///
/// # Errors
/// [`ReplyError`].
pub fn parse_address(data: &[u8]) -> Result<Ipv4Addr, ReplyError> {
    head(data, ADDRESS, 12)?;
    Ok(Ipv4Addr::from(bytes::<4>(data, 8)?))
}

/// The outer port and the seconds that an answer gives for `port`.
///
/// # Errors
/// [`ReplyError`].
pub fn parse_map(data: &[u8], port: u16) -> Result<(u16, u32), ReplyError> {
    head(data, MAP_TCP, 16)?;
    if u16::from_be_bytes(bytes(data, 8)?) != port {
        return Err(ReplyError::Foreign);
    }
    Ok((u16::from_be_bytes(bytes(data, 10)?), u32::from_be_bytes(bytes(data, 12)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_and_answers_have_their_fields_where_the_rfc_wants_them() {
        assert_eq!(address_request(), [0, 0]);
        assert_eq!(map_request(8_333, 9_000, 7_200), [0, 2, 0, 0, 0x20, 0x8d, 0x23, 0x28, 0, 0, 0x1c, 0x20]);
        let address = [0, 128, 0, 0, 0, 0, 1, 0, 88, 1, 2, 3];
        assert_eq!(parse_address(&address), Ok(Ipv4Addr::new(88, 1, 2, 3)));
        let map = [0, 130, 0, 0, 0, 0, 1, 0, 0x20, 0x8d, 0x23, 0x28, 0, 0, 0x0e, 0x10];
        assert_eq!(parse_map(&map, 8_333), Ok((9_000, 3_600)));
        assert_eq!(parse_map(&map, 8_334), Err(ReplyError::Foreign), "another port's");
        assert_eq!(parse_map(&address, 8_333), Err(ReplyError::Foreign));
        for cut in 0..map.len() {
            assert!(parse_map(&map[..cut], 8_333).is_err());
            assert!(parse_address(&address[..cut.min(11)]).is_err());
        }
        assert_eq!(parse_map(&[&map[..], &[0]].concat(), 8_333), Err(ReplyError::Malformed));
        // Not authorized: nothing need follow.
        assert_eq!(parse_map(&[0, 130, 0, 2, 0, 0, 0, 1], 8_333), Err(ReplyError::Refused(2)));
        assert_eq!(parse_address(&[2, 128, 0, 1]), Err(ReplyError::Version));
        assert_eq!(parse_address(&[2, 128, 0, 0]), Err(ReplyError::Foreign));
        assert_eq!(parse_address(&[0, 0]), Err(ReplyError::Malformed), "our own request, come back");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(data in proptest::collection::vec(any::<u8>(), 0..40), port in any::<u16>()) {
            let _ = (parse_address(&data), parse_map(&data, port));
        }
    }
}
