//! Single questions to gateways and servers on real sockets.

use super::fake::{Datagram, Fake, granted, natpmp_gateway, pcp_gateway, sees, stun_server};
use headlong::PeerAddress;
use headlong::ReachMethod::{NatPmp, Pcp};
use headlong::net::Gateway;
use headlong::net::native::NativeGateway;
use headlong::relay::reach::{ReachReply, ReachRequest};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

const OUTER: &str = "88.1.2.3:9000";
const LIE: &str = "66.6.6.6:666";

fn listening() -> SocketAddr {
    ([127, 0, 0, 1], 8_333).into()
}

fn map(by: headlong::ReachMethod, external: Option<&str>, seconds: u32) -> ReachRequest {
    let external = external.map(|text| text.parse().unwrap());
    ReachRequest::Map { by, listening: listening(), external, seconds, nonce: *b"one and only" }
}

fn observe(server: PeerAddress) -> ReachRequest {
    ReachRequest::Observe { server, listening: listening(), transaction: *b"transaction!" }
}

fn ask(gateway: &Fake, request: ReachRequest) -> io::Result<ReachReply> {
    smol::block_on(NativeGateway::new().at(gateway.address).ask(request))
}

fn look(server: &Fake) -> io::Result<ReachReply> {
    ask(server, observe(PeerAddress::Ip(server.address)))
}

fn reply(address: &str, seconds: u32) -> ReachReply {
    ReachReply { address: address.parse().unwrap(), seconds }
}

#[test]
fn a_gateway_that_speaks_pcp_maps_and_takes_back() {
    let gateway = pcp_gateway(OUTER, 7_200);
    assert_eq!(ask(&gateway, map(Pcp, None, 7_200)).unwrap(), reply(OUTER, 7_200));
    ask(&gateway, map(Pcp, Some(OUTER), 7_200)).unwrap();
    ask(&gateway, map(Pcp, Some(OUTER), 0)).unwrap();
    let asked = gateway.asked();
    let fields = |at: usize| -> Vec<_> {
        let request = &asked[at];
        [&request[..2], &request[4..8], &request[8..24], &request[24..36], &request[36..44]].concat()
    };
    let client = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1];
    let expect = |seconds: [u8; 4], outer: [u8; 2]| {
        [&[2, 1][..], &seconds, &client, b"one and only", &[6, 0, 0, 0, 0x20, 0x8d], &outer].concat()
    };
    assert_eq!(fields(0), expect([0, 0, 0x1c, 0x20], [0x20, 0x8d]));
    assert_eq!(fields(1), expect([0, 0, 0x1c, 0x20], [0x23, 0x28]), "what was given is asked for again");
    assert_eq!(fields(2), expect([0; 4], [0; 2]));
}

#[test]
fn a_gateway_that_speaks_nat_pmp_only_says_so_and_maps() {
    let gateway = natpmp_gateway(OUTER, 3_600);
    let error = ask(&gateway, map(Pcp, None, 7_200)).unwrap_err();
    assert!(error.to_string().contains("unsupported version"), "{error}");
    assert_eq!(gateway.asked().len(), 1, "it is not asked again");
    assert_eq!(ask(&gateway, map(NatPmp, None, 7_200)).unwrap(), reply(OUTER, 3_600));
    ask(&gateway, map(NatPmp, Some(OUTER), 0)).unwrap();
    let asked = gateway.asked();
    assert_eq!(asked[2], [0, 2, 0, 0, 0x20, 0x8d, 0x20, 0x8d, 0, 0, 0x1c, 0x20]);
    assert_eq!(asked[3], [0, 2, 0, 0, 0x20, 0x8d, 0, 0, 0, 0, 0, 0], "without asking for the address before");
}

#[test]
fn what_is_lost_is_sent_again_and_who_stays_silent_is_given_up() {
    let mut turn = 0;
    let gateway = Fake::answering(move |request| {
        turn += 1;
        (turn == 3).then(|| granted(request, OUTER, 7_200))
    });
    assert_eq!(ask(&gateway, map(Pcp, None, 7_200)).unwrap(), reply(OUTER, 7_200));
    let asked = gateway.asked();
    assert!(asked.len() == 3 && asked.iter().all(|request| *request == asked[0]));
    let silent = Fake::answering(|_| None);
    let error = ask(&silent, map(Pcp, None, 7_200)).unwrap_err();
    assert_eq!((error.kind(), silent.asked().len()), (io::ErrorKind::TimedOut, 4));
}

#[test]
fn answers_with_another_nonce_or_from_elsewhere_and_torn_ones_are_not_taken() {
    let gateway = Fake::serve(|request| {
        let lie = granted(request, LIE, 7_200);
        let mut other_nonce = lie.clone();
        other_nonce[30] ^= 1;
        let mut other_port = lie.clone();
        other_port[41] ^= 1;
        vec![
            Datagram(lie.clone(), false),
            Datagram(other_nonce, true),
            Datagram(other_port, true),
            Datagram(lie[..59].to_vec(), true),
            Datagram([&lie[..], &[0; 1_500]].concat(), true),
            Datagram(Vec::new(), true),
            Datagram(request.to_vec(), true),
            Datagram(granted(request, OUTER, 7_200), true),
        ]
    });
    assert_eq!(ask(&gateway, map(Pcp, None, 7_200)).unwrap(), reply(OUTER, 7_200));
    assert_eq!(gateway.asked().len(), 1);
}

#[test]
fn a_flood_of_other_answers_ends_the_question() {
    let gateway = Fake::serve(|_| (0..200).map(|_| Datagram(vec![2, 0x81, 0, 0], true)).collect());
    let error = ask(&gateway, map(Pcp, None, 7_200)).unwrap_err();
    assert!(error.to_string().contains("nothing but replies"), "{error}");
}

#[test]
fn a_refusal_is_final() {
    let gateway = Fake::answering(|request| {
        let mut answer = granted(request, OUTER, 7_200);
        answer[3] = 2;
        Some(answer)
    });
    let error = ask(&gateway, map(Pcp, None, 7_200)).unwrap_err();
    assert!(error.to_string().contains("code 2"), "{error}");
    assert_eq!(gateway.asked().len(), 1);
}

#[test]
fn a_stun_server_says_what_it_sees_and_nobody_else_is_believed() {
    let server = stun_server("88.1.2.3:40000");
    assert_eq!(look(&server).unwrap(), reply("88.1.2.3:40000", 0));
    assert_eq!(server.asked()[0], *b"\x00\x01\x00\x00\x21\x12\xa4\x42transaction!");
    // By name, with another address before it that has no server.
    let name = PeerAddress::Name("localhost".into(), server.address.port());
    assert_eq!(ask(&server, observe(name)).unwrap(), reply("88.1.2.3:40000", 0));
    let server = Fake::serve(|request| {
        let lie = sees(request, LIE);
        let mut other = lie.clone();
        other[19] ^= 1;
        vec![
            Datagram(lie.clone(), false),
            Datagram(other, true),
            Datagram(lie[..31].to_vec(), true),
            Datagram(sees(request, OUTER), true),
        ]
    });
    assert_eq!(look(&server).unwrap(), reply(OUTER, 0));
}

#[test]
fn a_server_without_an_address_of_the_family_is_not_asked() {
    let server = stun_server(OUTER);
    let error = ask(&server, observe("[::1]:3478".parse().unwrap())).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(server.asked().is_empty());
}

/// A host may drop the future at any time; nothing goes on behind its back.
#[test]
fn giving_up_ends_the_question() {
    let silent = Fake::answering(|_| None);
    let request = NativeGateway::new().at(silent.address).ask(map(Pcp, None, 7_200));
    smol::block_on(async {
        let limit = smol::Timer::after(Duration::from_millis(600));
        futures::future::select(request, limit).await;
    });
    let asked = silent.asked().len();
    std::thread::sleep(Duration::from_millis(1_200));
    assert_eq!(silent.asked().len(), asked);
}

#[test]
fn our_own_address_is_that_of_the_socket() {
    let local = NativeGateway::new().ask(ReachRequest::Local { listening: listening() });
    // From loopback there is no way to the Internet; whatever the system says, it is no other address.
    if let Ok(found) = smol::block_on(local) {
        assert_eq!(found, reply("127.0.0.1:8333", 0));
    }
}
