//! STUN (RFC 8489): which address do you see me come from?
//!
//! 1. A binding request: 20 bytes with a random transaction of 96 bits, which nobody off the path can guess.
//! 2. The success response repeats it and holds XOR-MAPPED-ADDRESS, or MAPPED-ADDRESS from a server of RFC 3489's times.
//!
//! A success response with an attribute that has to be understood and is not is discarded (section 6.3.3). Left out:
//! credentials (public servers ask for none), FINGERPRINT (nothing else comes to our socket) and ALTERNATE-SERVER.

use super::{ReplyError, bytes};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The port of a STUN server whose address names none.
pub const PORT: u16 = 3_478;
/// Tells STUN from other protocols, and hides addresses from gateways that rewrite them in passing.
const COOKIE: u32 = 0x2112_a442;
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;
const HEADER: usize = 20;

const MAPPED_ADDRESS: u16 = 0x0001;
const ERROR_CODE: u16 = 0x0009;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// Attributes of RFC 8489 that a response may have and that say nothing of the address: USERNAME, MESSAGE-INTEGRITY,
/// REALM, NONCE, MESSAGE-INTEGRITY-SHA256, PASSWORD-ALGORITHM, USERHASH; and of RFC 3489: SOURCE-ADDRESS, CHANGED-ADDRESS.
const KNOWN: [u16; 9] = [0x0004, 0x0005, 0x0006, 0x0008, 0x0014, 0x0015, 0x001c, 0x001d, 0x001e];
/// From here on attributes may be ignored.
const OPTIONAL: u16 = 0x8000;

/// The request with this transaction.
pub fn request(transaction: &[u8; 12]) -> [u8; HEADER] {
    let mut request = [0; HEADER];
    request[..2].copy_from_slice(&BINDING_REQUEST.to_be_bytes());
    request[4..8].copy_from_slice(&COOKIE.to_be_bytes());
    request[8..].copy_from_slice(transaction);
    request
}

/// The address in the response to the request with this transaction.
///
/// # Errors
/// [`ReplyError`].
pub fn parse(data: &[u8], transaction: &[u8; 12]) -> Result<SocketAddr, ReplyError> {
    let kind = u16::from_be_bytes(bytes(data, 0)?);
    let length = usize::from(u16::from_be_bytes(bytes(data, 2)?));
    let cookie: [u8; 4] = bytes(data, 4)?;
    let id: [u8; 12] = bytes(data, 8)?;
    if cookie != COOKIE.to_be_bytes() || id != *transaction {
        return Err(ReplyError::Foreign);
    }
    if !length.is_multiple_of(4) || data.len() != HEADER + length {
        return Err(ReplyError::Malformed);
    }
    let found = attributes(&data[HEADER..], transaction)?;
    match kind {
        BINDING_ERROR => Err(ReplyError::Refused(found.code)),
        BINDING_SUCCESS if found.unknown => Err(ReplyError::Foreign),
        BINDING_SUCCESS => found.xored.or(found.plain).ok_or(ReplyError::NoAddress),
        _ => Err(ReplyError::Foreign),
    }
}

/// What attributes say; of two of a kind the first counts (section 14).
#[derive(Default)]
struct Found {
    xored: Option<SocketAddr>,
    plain: Option<SocketAddr>,
    code: u16,
    unknown: bool,
}

fn attributes(mut data: &[u8], transaction: &[u8; 12]) -> Result<Found, ReplyError> {
    let mut found = Found::default();
    while !data.is_empty() {
        let kind = u16::from_be_bytes(bytes(data, 0)?);
        let length = usize::from(u16::from_be_bytes(bytes(data, 2)?));
        let value = data.get(4..4 + length).ok_or(ReplyError::Malformed)?;
        match kind {
            XOR_MAPPED_ADDRESS => found.xored = found.xored.or(address(value, Some(transaction))?),
            MAPPED_ADDRESS => found.plain = found.plain.or(address(value, None)?),
            ERROR_CODE => {
                let [_, _, class, number] = bytes(value, 0)?;
                found.code = u16::from(class & 7) * 100 + u16::from(number);
            }
            other => found.unknown |= other < OPTIONAL && !KNOWN.contains(&other),
        }
        data = data.get(4 + length.next_multiple_of(4)..).ok_or(ReplyError::Malformed)?;
    }
    Ok(found)
}

/// An address; `None` if it is of a family that we don't know. With the transaction: XORed (section 14.2).
fn address(value: &[u8], transaction: Option<&[u8; 12]>) -> Result<Option<SocketAddr>, ReplyError> {
    let mut mask = [0; 16];
    if let Some(transaction) = transaction {
        mask[..4].copy_from_slice(&COOKIE.to_be_bytes());
        mask[4..].copy_from_slice(transaction);
    }
    let [_, family] = bytes(value, 0)?;
    let port = u16::from_be_bytes(bytes(value, 2)?) ^ u16::from_be_bytes([mask[0], mask[1]]);
    let ip = match (family, value.len()) {
        (1, 8) => {
            let ip: [u8; 4] = bytes(value, 4)?;
            let mask: [u8; 4] = bytes(&mask, 0)?;
            IpAddr::V4(Ipv4Addr::from_bits(u32::from_be_bytes(ip) ^ u32::from_be_bytes(mask)))
        }
        (2, 20) => {
            let ip: [u8; 16] = bytes(value, 4)?;
            IpAddr::V6(Ipv6Addr::from_bits(u128::from_be_bytes(ip) ^ u128::from_be_bytes(mask)))
        }
        (1 | 2, _) => return Err(ReplyError::Malformed),
        _ => return Ok(None),
    };
    Ok(Some(SocketAddr::new(ip, port)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A response with these attributes.
    fn response(kind: u16, transaction: &[u8; 12], attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut body = Vec::new();
        for (kind, value) in attributes {
            body.extend(kind.to_be_bytes());
            body.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
            body.extend(value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut all = request(transaction).to_vec();
        all[..2].copy_from_slice(&kind.to_be_bytes());
        all[2..4].copy_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
        all.extend(body);
        all
    }

    const ID: [u8; 12] = [7; 12];

    fn plain() -> (u16, Vec<u8>) {
        (MAPPED_ADDRESS, vec![0, 1, 0x20, 0x8d, 8, 8, 4, 4])
    }

    #[test]
    fn a_response_of_the_old_kind_counts_if_there_is_no_other() {
        let seen = parse(&response(BINDING_SUCCESS, &ID, &[plain()]), &ID);
        assert_eq!(seen, Ok("8.8.4.4:8333".parse().unwrap()));
        let xored = (XOR_MAPPED_ADDRESS, vec![0, 1, 0x21, 0x12, 0x21 ^ 9, 0x12 ^ 9, 0xa4 ^ 9, 0x42 ^ 9]);
        let seen = parse(&response(BINDING_SUCCESS, &ID, &[plain(), xored]), &ID);
        assert_eq!(seen, Ok("9.9.9.9:0".parse().unwrap()));
    }

    #[test]
    fn what_is_no_answer_is_told_apart() {
        let good = response(BINDING_SUCCESS, &ID, &[plain()]);
        assert_eq!(parse(&good, &[8; 12]), Err(ReplyError::Foreign));
        for cut in 0..good.len() {
            assert_eq!(parse(&good[..cut], &ID), Err(ReplyError::Malformed), "{cut}");
        }
        assert_eq!(parse(&[&good[..], &[0; 4]].concat(), &ID), Err(ReplyError::Malformed));
        assert_eq!(parse(&response(BINDING_SUCCESS, &ID, &[]), &ID), Err(ReplyError::NoAddress));
        assert_eq!(parse(&response(BINDING_REQUEST, &ID, &[plain()]), &ID), Err(ReplyError::Foreign));
        let unknown = response(BINDING_SUCCESS, &ID, &[plain(), (0x7fff, vec![1])]);
        assert_eq!(parse(&unknown, &ID), Err(ReplyError::Foreign), "it might have changed the meaning");
        let ignorable = response(BINDING_SUCCESS, &ID, &[(0x8022, b"a server".to_vec()), plain()]);
        assert!(parse(&ignorable, &ID).is_ok());
        let refusal = response(BINDING_ERROR, &ID, &[(ERROR_CODE, vec![0, 0, 4, 1])]);
        assert_eq!(parse(&refusal, &ID), Err(ReplyError::Refused(401)));
        let family = response(BINDING_SUCCESS, &ID, &[(MAPPED_ADDRESS, vec![0, 3, 0, 1, 1, 2, 3, 4])]);
        assert_eq!(parse(&family, &ID), Err(ReplyError::NoAddress));
        let short = response(BINDING_SUCCESS, &ID, &[(MAPPED_ADDRESS, vec![0, 2, 0, 1, 1, 2, 3, 4])]);
        assert_eq!(parse(&short, &ID), Err(ReplyError::Malformed));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&data, &ID);
        }

        #[test]
        fn no_attributes_panic(rest in proptest::collection::vec(any::<u8>(), 0..50)) {
            let mut all = response(BINDING_SUCCESS, &ID, &[]);
            all[3] = (rest.len() / 4 * 4) as u8;
            all.extend(&rest[..rest.len() / 4 * 4]);
            let _ = parse(&all, &ID);
        }
    }
}
