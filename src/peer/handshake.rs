//! The handshake of a connection.
//!
//! 1. We send `version` (protocol 70016, `relay` 0; the caller says which services).
//! 2. The peer's `version`: services, protocol and nonce are judged; we answer `wtxidrelay` (BIP339) and
//!    `sendaddrv2` (BIP155), both to protocol 70016 and later only, and `verack`, in this order.
//! 3. The peer's `wtxidrelay`, `sendaddrv2`, `sendtxrcncl` and `sendcmpct` between its `version` and its
//!    `verack` are taken note of; anything else sent early is dropped, as in Core's net_processing.cpp.
//! 4. The peer's `verack` completes it; we say `sendheaders` (BIP130).
//!
//! Where the other side opened the connection, its `version` comes first, and ours goes before the rest of the answer.
//! Sixty seconds are allowed for all of it (the engine's timer).
//!
//! A second `version` or `verack` is ignored, `wtxidrelay` or `sendaddrv2` after the `verack` ends the
//! connection, both as Core does; none of it is punished. Left out: `feefilter` of ours (we relay no
//! transactions: with `relay` 0 the peer announces none), `sendcmpct` (compact blocks are not handled
//! yet).

use super::CloseReason;
use crate::limits::{MAX_USER_AGENT, MIN_PEER_PROTOCOL, PROTOCOL};
use crate::wire::Message;
use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::address::Address;
use bitcoin::p2p::message_network::VersionMessage;
use std::net::{Ipv6Addr, SocketAddr};

/// What we say of ourselves.
#[derive(Clone, Debug)]
pub struct Introduction {
    /// What we serve.
    pub services: ServiceFlags,
    /// Where we are reached, if the peer may know it.
    pub own: Option<SocketAddr>,
    /// Name and version of the program (BIP14).
    pub user_agent: String,
    /// Height of our proved tip.
    pub start_height: u32,
    /// Unix seconds.
    pub time: u64,
    /// This connection's nonce.
    pub nonce: u64,
}

/// What the peer said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Its protocol version.
    pub version: u32,
    /// What it offers.
    pub services: ServiceFlags,
    /// Its program; printable ASCII only, at most 256 bytes. Untrusted.
    pub user_agent: String,
    /// The height it states. Untrusted.
    pub start_height: u32,
    /// Whether it wants `addrv2` (BIP155).
    pub wants_addrv2: bool,
    /// Whether it announces transactions by wtxid (BIP339).
    pub wtxid_relay: bool,
}

/// What a message of the handshake leads to.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Nothing (more) to do.
    Ignore,
    /// Send these, in order.
    Send(Vec<Message>),
    /// The handshake is complete; send these, in order.
    Complete(Vec<Message>),
    /// End the connection.
    Close(CloseReason),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    AwaitVersion,
    AwaitVerack,
    Complete,
}

/// The handshake of one connection.
#[derive(Debug)]
pub struct Handshake {
    stage: Stage,
    nonce: u64,
    /// What we say once they have.
    version: Option<Box<VersionMessage>>,
    info: PeerInfo,
}

impl Handshake {
    /// Awaits the handshake of a peer that came to us from `remote`.
    pub fn answer(me: &Introduction, remote: Option<SocketAddr>) -> Self {
        let (handshake, version) = Self::begin(me, remote);
        match version {
            Message::Version(version) => Self { version: Some(Box::new(version)), ..handshake },
            _ => handshake,
        }
    }

    /// Begins: the first value is to be kept, the message to be sent. `remote` is written into the
    /// message, as the protocol wants; where it is not known (a name, a proxy) it stays empty.
    pub fn begin(me: &Introduction, remote: Option<SocketAddr>) -> (Self, Message) {
        let nowhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let version = VersionMessage {
            version: PROTOCOL,
            services: me.services,
            timestamp: i64::try_from(me.time).unwrap_or(i64::MAX),
            receiver: Address::new(&remote.unwrap_or(nowhere), ServiceFlags::NONE),
            // Nobody need look at it (Core sends zeroes): what counts is told by `addr` and `addrv2`.
            sender: Address::new(&me.own.unwrap_or(nowhere), me.services),
            nonce: me.nonce,
            user_agent: me.user_agent.clone(),
            start_height: i32::try_from(me.start_height).unwrap_or(i32::MAX),
            relay: false,
        };
        let info = PeerInfo {
            version: 0,
            services: ServiceFlags::NONE,
            user_agent: String::new(),
            start_height: 0,
            wants_addrv2: false,
            wtxid_relay: false,
        };
        let handshake = Self { stage: Stage::AwaitVersion, nonce: me.nonce, version: None, info };
        (handshake, Message::Version(version))
    }

    /// What the peer said so far.
    pub fn info(&self) -> &PeerInfo {
        &self.info
    }

    /// Our nonce on this connection.
    pub fn nonce(&self) -> u64 {
        self.nonce
    }

    /// Whether the handshake is complete.
    pub fn is_complete(&self) -> bool {
        self.stage == Stage::Complete
    }

    /// Takes a message. `is_ours` tells whether a nonce is of one of our own connections; `suits` whether
    /// a peer with these services is wanted. After completion only messages that belong to the handshake
    /// need to be passed.
    pub fn on_message(
        &mut self,
        message: &Message,
        is_ours: impl Fn(u64) -> bool,
        suits: impl Fn(ServiceFlags, u32) -> bool,
    ) -> Step {
        match (self.stage, message) {
            (Stage::AwaitVersion, Message::Version(version)) => self.on_version(version, is_ours, suits),
            (Stage::AwaitVerack, Message::Verack) => {
                self.stage = Stage::Complete;
                Step::Complete(vec![Message::SendHeaders])
            }
            (Stage::AwaitVerack, Message::SendAddrV2) => {
                self.info.wants_addrv2 = true;
                Step::Ignore
            }
            (Stage::AwaitVerack, Message::WtxidRelay) => {
                self.info.wtxid_relay = self.info.version >= PROTOCOL;
                Step::Ignore
            }
            (Stage::Complete, Message::WtxidRelay) => {
                Step::Close(CloseReason::Unsuitable("wtxidrelay after verack"))
            }
            (Stage::Complete, Message::SendAddrV2) => {
                Step::Close(CloseReason::Unsuitable("sendaddrv2 after verack"))
            }
            _ => Step::Ignore,
        }
    }

    fn on_version(
        &mut self,
        version: &VersionMessage,
        is_ours: impl Fn(u64) -> bool,
        suits: impl Fn(ServiceFlags, u32) -> bool,
    ) -> Step {
        if version.nonce != 0 && is_ours(version.nonce) {
            return Step::Close(CloseReason::Ourselves);
        }
        let start_height = u32::try_from(version.start_height).unwrap_or(0);
        if !suits(version.services, start_height) {
            return Step::Close(CloseReason::Unsuitable("does not offer the services we need"));
        }
        if version.version < MIN_PEER_PROTOCOL {
            return Step::Close(CloseReason::Unsuitable("obsolete protocol version"));
        }
        self.stage = Stage::AwaitVerack;
        self.info.version = version.version;
        self.info.services = version.services;
        self.info.user_agent = printable(&version.user_agent);
        self.info.start_height = start_height;
        let mut answer = Vec::with_capacity(4);
        answer.extend(self.version.take().map(|version| Message::Version(*version)));
        if version.version >= PROTOCOL {
            answer.push(Message::WtxidRelay);
            answer.push(Message::SendAddrV2);
        }
        answer.push(Message::Verack);
        Step::Send(answer)
    }
}

/// The printable ASCII of a text, at most 256 bytes of it.
fn printable(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(MAX_USER_AGENT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> Introduction {
        Introduction {
            services: ServiceFlags::NONE,
            own: None,
            user_agent: "/test:1/".into(),
            start_height: 7,
            time: 1_700_000_000,
            nonce: 99,
        }
    }

    fn their_version(change: impl FnOnce(&mut VersionMessage)) -> Message {
        let they = Introduction { services: ServiceFlags::NETWORK | ServiceFlags::WITNESS, nonce: 5, ..me() };
        let (_, Message::Version(mut version)) = Handshake::begin(&they, None) else { panic!() };
        change(&mut version);
        Message::Version(version)
    }

    fn on(handshake: &mut Handshake, message: &Message) -> Step {
        handshake.on_message(message, |n| n == 99, |s, _| s.has(ServiceFlags::NETWORK))
    }

    #[test]
    fn our_version_asks_for_no_relay_and_serves_nothing() {
        let (_, Message::Version(version)) = Handshake::begin(&me(), None) else { panic!() };
        assert_eq!((version.version, version.relay, version.start_height), (70_016, false, 7));
        assert_eq!(version.services, ServiceFlags::NONE);
    }

    #[test]
    fn answers_in_order_and_completes_on_verack() {
        let (mut handshake, _) = Handshake::begin(&me(), None);
        assert_eq!(on(&mut handshake, &Message::Verack), Step::Ignore, "verack before version is dropped");
        assert_eq!(on(&mut handshake, &Message::Ping(3)), Step::Ignore);
        let step = on(&mut handshake, &their_version(|_| ()));
        assert_eq!(step, Step::Send(vec![Message::WtxidRelay, Message::SendAddrV2, Message::Verack]));
        assert_eq!(on(&mut handshake, &their_version(|_| ())), Step::Ignore, "a second version is ignored");
        assert_eq!(on(&mut handshake, &Message::WtxidRelay), Step::Ignore);
        assert_eq!(on(&mut handshake, &Message::SendAddrV2), Step::Ignore);
        assert!(!handshake.is_complete());
        assert_eq!(on(&mut handshake, &Message::Verack), Step::Complete(vec![Message::SendHeaders]));
        assert!(handshake.is_complete() && handshake.info().wants_addrv2 && handshake.info().wtxid_relay);
        assert_eq!(on(&mut handshake, &Message::Verack), Step::Ignore);
        assert_eq!(on(&mut handshake, &their_version(|_| ())), Step::Ignore);
        for late in [Message::WtxidRelay, Message::SendAddrV2] {
            assert!(matches!(on(&mut handshake, &late), Step::Close(CloseReason::Unsuitable(_))));
        }
    }

    #[test]
    fn who_comes_to_us_speaks_first() {
        let mut handshake = Handshake::answer(&me(), None);
        let Step::Send(answer) = on(&mut handshake, &their_version(|_| ())) else { panic!() };
        let (ours, rest) = answer.split_first().unwrap();
        assert!(matches!(ours, Message::Version(version) if version.nonce == 99));
        assert_eq!(rest, [Message::WtxidRelay, Message::SendAddrV2, Message::Verack]);
        assert_eq!(on(&mut handshake, &Message::Verack), Step::Complete(vec![Message::SendHeaders]));
    }

    #[test]
    fn an_old_peer_gets_a_verack_only_and_a_too_old_one_nothing() {
        let (mut handshake, _) = Handshake::begin(&me(), None);
        let old = their_version(|v| v.version = 70_015);
        assert_eq!(on(&mut handshake, &old), Step::Send(vec![Message::Verack]));
        let (mut handshake, _) = Handshake::begin(&me(), None);
        let too_old = their_version(|v| v.version = 31_799);
        assert!(matches!(on(&mut handshake, &too_old), Step::Close(CloseReason::Unsuitable(_))));
    }

    #[test]
    fn ourselves_and_the_unsuitable_are_left() {
        let (mut handshake, _) = Handshake::begin(&me(), None);
        let own = their_version(|v| v.nonce = 99);
        assert_eq!(on(&mut handshake, &own), Step::Close(CloseReason::Ourselves));
        let (mut handshake, _) = Handshake::begin(&me(), None);
        let useless = their_version(|v| v.services = ServiceFlags::WITNESS);
        assert!(matches!(on(&mut handshake, &useless), Step::Close(CloseReason::Unsuitable(_))));
    }

    #[test]
    fn what_a_peer_says_of_itself_is_cleaned() {
        let (mut handshake, _) = Handshake::begin(&me(), None);
        let odd = their_version(|v| {
            v.user_agent = format!("/a\u{1b}[31m\nb/{}", "x".repeat(400));
            v.start_height = -5;
        });
        on(&mut handshake, &odd);
        assert!(handshake.info().user_agent.starts_with("/a[31mb/x"));
        assert_eq!((handshake.info().user_agent.len(), handshake.info().start_height), (256, 0));
    }
}
