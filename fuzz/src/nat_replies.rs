//! What gateways and STUN servers may answer.
//!
//! Input: the protocol (the first byte modulo 4), bytes that replace the reply's head where they should match the request
//! (bit 2 of the first byte), the reply.

use headlong::net::nat::{ReplyError, natpmp, pcp, stun};
use std::net::{IpAddr, SocketAddr};

/// What the requests carry.
pub const TRANSACTION: [u8; 12] = *b"transaction!";
pub const PORT: u16 = 8_333;

pub fn run(data: &[u8]) {
    let Some((mode, reply)) = data.split_first() else { return };
    let mut reply = reply.to_vec();
    let matching = mode & 4 != 0;
    match mode & 3 {
        0 => {
            if matching {
                patch(&mut reply, 4, &[&[0x21, 0x12, 0xa4, 0x42][..], &TRANSACTION].concat());
            }
            answer(stun::parse(&reply, &TRANSACTION), reply.get(8..20) == Some(&TRANSACTION[..]));
        }
        1 => {
            if matching {
                patch(&mut reply, 0, &[2, 0x81]);
                patch(&mut reply, 24, &[&TRANSACTION[..], &[6, 0, 0, 0], &PORT.to_be_bytes()].concat());
            }
            let client = IpAddr::from([192, 168, 1, 5]);
            let external = pcp::anywhere(client, PORT);
            let asked = pcp::Request { nonce: TRANSACTION, client, port: PORT, external, seconds: 7_200 };
            let ours = reply.get(24..36) == Some(&TRANSACTION[..])
                && reply.get(40..42) == Some(&PORT.to_be_bytes()[..]);
            let given = pcp::parse(&reply, &asked);
            if let Ok(grant) = given {
                // The same in words of our own, sent as a request, has the same bytes.
                let said = pcp::Request { external: grant.external, seconds: grant.seconds, ..asked };
                let words = pcp::request(&said);
                assert_eq!((&words[4..8], &words[24..37]), (&reply[4..8], &reply[24..37]));
                assert_eq!(words[40..44], reply[40..44]);
                assert_eq!(words[44..60], reply[44..60]);
            }
            answer(given.map(|grant| grant.external), ours);
        }
        2 => {
            let address = natpmp::parse_address(&reply);
            answer(address.map(|ip| SocketAddr::from((ip, PORT))), reply.len() == 12);
        }
        _ => {
            if matching {
                patch(&mut reply, 8, &PORT.to_be_bytes());
            }
            let ours = reply.len() == 16 && reply[8..10] == PORT.to_be_bytes();
            let given = natpmp::parse_map(&reply, PORT);
            answer(given.map(|(port, _)| SocketAddr::from(([0, 0, 0, 0], port))), ours);
        }
    }
}

/// Puts bytes where they belong, if the reply goes so far.
fn patch(reply: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = reply.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// Whatever is taken for an answer carries what the request did.
fn answer(parsed: Result<SocketAddr, ReplyError>, ours: bool) {
    assert!(parsed.is_err() || ours, "{parsed:?} answers another request");
}
