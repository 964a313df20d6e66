//! Recorded exchanges, read by the codecs.

use bitcoin::hex::FromHex;
use headlong::net::nat::{ReplyError, natpmp, pcp, stun};
use std::net::IpAddr;

const EXCHANGES: &str = include_str!("../data/nat-exchanges.txt");

fn pcp_request(nonce: &str) -> pcp::Request {
    let client = IpAddr::from([192, 168, 77, 2]);
    let nonce = FromHex::from_hex(nonce).unwrap();
    pcp::Request { nonce, client, port: 8_333, external: pcp::anywhere(client, 8_333), seconds: 7_200 }
}

#[test]
fn recorded_answers_mean_what_they_say() {
    let mut seen = 0;
    for line in EXCHANGES.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        let [kind, asked, bytes, meaning @ ..] = &words[..] else { panic!("{line}") };
        let bytes = Vec::from_hex(bytes).unwrap();
        match (*kind, meaning) {
            ("stun", [address]) => {
                let transaction = FromHex::from_hex(asked).unwrap();
                assert_eq!(stun::parse(&bytes, &transaction), Ok(address.parse().unwrap()), "{line}");
                assert_eq!(stun::parse(&bytes, &[0; 12]), Err(ReplyError::Foreign));
            }
            ("pcp", ["refused", code]) => {
                let refused = Err(ReplyError::Refused(code.parse().unwrap()));
                assert_eq!(pcp::parse(&bytes, &pcp_request(asked)), refused);
            }
            ("pcp", ["foreign"]) => {
                assert_eq!(pcp::parse(&bytes, &pcp_request(asked)), Err(ReplyError::Foreign));
            }
            ("pcp", [external, seconds]) => {
                let (external, seconds) = (external.parse().unwrap(), seconds.parse().unwrap());
                let granted = pcp::parse(&bytes, &pcp_request(asked));
                assert_eq!(granted, Ok(pcp::Grant { external, seconds }), "{line}");
            }
            ("natpmp-address", [ip]) => {
                assert_eq!(natpmp::parse_address(&bytes), Ok(ip.parse().unwrap()));
            }
            ("natpmp-map", [port, seconds]) => {
                let given = (port.parse().unwrap(), seconds.parse().unwrap());
                assert_eq!(natpmp::parse_map(&bytes, asked.parse().unwrap()), Ok(given));
            }
            _ => panic!("{line}"),
        }
        seen += 1;
    }
    assert_eq!(seen, 10);
}
