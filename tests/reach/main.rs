//! How a node learns how it is reached: gateways and STUN servers on loopback, truthful and lying, and what peers are told.

#![cfg(all(feature = "native", feature = "consensus"))]

mod fake;
mod questions;
mod recorded;
#[path = "../world/mod.rs"]
mod world;

use bitcoin::consensus::{Decodable, serialize};
use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::address::{AddrV2Message, Address};
use bitcoin::p2p::message::{NetworkMessage, RawNetworkMessage};
use bitcoin::p2p::message_network::VersionMessage;
use fake::{Fake, natpmp_gateway, pcp_gateway, stun_server};
use futures::future::BoxFuture;
use headlong::net::native::{NativeExecutor, NativeGateway};
use headlong::net::{Gateway, SystemClock};
use headlong::relay::reach::{ReachReply, ReachRequest};
use headlong::{Builder, Clock, Executor, Handle, PeerAddress, ReachMethod, Status};
use parking_lot::Mutex;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use world::{PATIENCE, Running, World};

/// A node here lives so many times as fast, so that what comes in minutes comes in seconds.
const SPEED: u32 = 20;

#[derive(Debug)]
struct FastClock(SystemClock);

impl Clock for FastClock {
    fn monotonic(&self) -> Duration {
        self.0.monotonic() * SPEED
    }

    fn unix(&self) -> u64 {
        self.0.unix()
    }
}

#[derive(Debug)]
struct FastExecutor(NativeExecutor);

impl Executor for FastExecutor {
    fn spawn(&self, future: BoxFuture<'static, ()>) {
        self.0.spawn(future);
    }

    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        self.0.spawn_blocking(work);
    }

    fn timer(&self, wait: Duration) -> BoxFuture<'static, ()> {
        self.0.timer(wait / SPEED)
    }
}

/// The real questions to fake gateways, with a record; as on a machine behind a gateway, whatever this one is.
#[derive(Clone, Debug)]
struct Behind(NativeGateway, Arc<Mutex<Vec<ReachRequest>>>);

impl Behind {
    fn new(gateway: &Fake) -> Self {
        Self(NativeGateway::new().at(gateway.address), Arc::default())
    }
}

impl Gateway for Behind {
    fn ask(&self, mut request: ReachRequest) -> BoxFuture<'static, io::Result<ReachReply>> {
        self.1.lock().push(request.clone());
        match &mut request {
            ReachRequest::Local { listening } => {
                let address = SocketAddr::new([192, 168, 1, 5].into(), listening.port());
                Box::pin(async move { Ok(ReachReply { address, seconds: 0 }) })
            }
            _ => self.0.ask(request),
        }
    }
}

/// A node that listens everywhere and has this gateway.
fn listening(world: &World, gateway: Behind) -> Builder {
    let builder = world.builder().listen((Ipv4Addr::UNSPECIFIED, 0).into()).gateway(gateway).encrypt(false);
    let executor = FastExecutor(NativeExecutor::new().unwrap());
    builder.clock(FastClock(SystemClock::new())).executor(executor)
}

fn wait_for(what: &str, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn port(handle: &Handle) -> u16 {
    wait_for("it listens", || !handle.listening().is_empty());
    handle.listening()[0].port()
}

fn wait(handle: &Handle, done: impl Fn(&Status) -> bool) -> Status {
    let begun = Instant::now();
    loop {
        let status = handle.status();
        if done(&status) {
            return status;
        }
        assert!(begun.elapsed() < PATIENCE, "{:?}", status.reach);
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A peer that speaks v1 and looks at what it is told.
struct Visitor {
    stream: TcpStream,
    magic: [u8; 4],
    version: VersionMessage,
}

impl Visitor {
    fn come(port: u16, magic: [u8; 4]) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let nowhere = Address::new(&(Ipv6Addr::UNSPECIFIED, 0).into(), ServiceFlags::NONE);
        let version = VersionMessage {
            version: 70_016,
            services: ServiceFlags::NONE,
            timestamp: 1_700_000_000,
            receiver: nowhere.clone(),
            sender: nowhere,
            nonce: 77,
            user_agent: "/visitor:1/".into(),
            start_height: 0,
            relay: false,
        };
        let mut visitor = Self { stream, magic, version: version.clone() };
        visitor.send(NetworkMessage::Version(version));
        loop {
            match visitor.receive() {
                NetworkMessage::Version(version) => visitor.version = version,
                NetworkMessage::Verack => break,
                _ => {}
            }
        }
        visitor.send(NetworkMessage::SendAddrV2);
        visitor.send(NetworkMessage::Verack);
        visitor
    }

    fn send(&mut self, message: NetworkMessage) {
        let message = RawNetworkMessage::new(bitcoin::p2p::Magic::from_bytes(self.magic), message);
        self.stream.write_all(&serialize(&message)).unwrap();
    }

    fn receive(&mut self) -> NetworkMessage {
        RawNetworkMessage::consensus_decode(&mut self.stream).unwrap().into_payload()
    }

    /// The next addresses that it is told.
    fn told(&mut self) -> Vec<AddrV2Message> {
        loop {
            match self.receive() {
                NetworkMessage::AddrV2(told) => return told,
                NetworkMessage::Ping(nonce) => self.send(NetworkMessage::Pong(nonce)),
                _ => {}
            }
        }
    }
}

#[test]
fn a_mapped_address_is_told_in_version_and_by_addrv2_and_taken_back_at_the_end() {
    let world = World::new(3);
    let gateway = pcp_gateway("88.1.2.3:9000", 7_200);
    let behind = Behind::new(&gateway);
    let node = Running::start(listening(&world, behind.clone()).build().unwrap());
    let port = port(&node.handle);
    let status = wait(&node.handle, |status| !status.reach.addresses.is_empty());
    let own = &status.reach.addresses[0];
    assert_eq!((own.address.to_string().as_str(), own.by), ("88.1.2.3:9000", ReachMethod::Pcp));
    let left = own.until.unwrap() - SystemClock::new().unix();
    assert!((7_100..=7_200).contains(&left), "{left}");
    assert_eq!((status.reach.asking, status.reach.trouble), (None, None));

    let mut visitor = Visitor::come(port, world.params.magic);
    assert_eq!(visitor.version.sender.socket_addr().unwrap(), "88.1.2.3:9000".parse().unwrap());
    let told = visitor.told();
    assert!(
        told.len() == 1 && told[0].socket_addr().unwrap() == "88.1.2.3:9000".parse().unwrap(),
        "{told:?}"
    );
    assert!(told[0].services.has(ServiceFlags::NETWORK));

    let before = gateway.asked();
    assert!(before.iter().all(|request| request[4..8] == [0, 0, 0x1c, 0x20] && request[..] == before[0][..]));
    assert_eq!(before[0][40..42], port.to_be_bytes());
    node.stop();
    wait_for("the mapping is taken back", || gateway.asked().len() > before.len());
    let after = gateway.asked();
    let last = after.last().unwrap();
    assert_eq!((after.len(), &last[4..8]), (before.len() + 1, &[0; 4][..]), "taken back");
    assert_eq!(last[24..42], before[0][24..42], "the same nonce and port");
}

#[test]
fn an_old_gateway_maps_by_nat_pmp_and_a_changed_address_is_told_anew() {
    let world = World::new(1);
    let (first, second) = (natpmp_gateway("88.1.2.3:9000", 130), natpmp_gateway("88.1.2.4:9001", 130));
    // One gateway that changes its address: the port stays.
    let changed = Arc::new(Mutex::new(false));
    let (now, addresses) = (changed.clone(), [first.address, second.address]);
    let gateway = Fake::answering(move |request| {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.send_to(request, addresses[usize::from(*now.lock())]).unwrap();
        let mut buffer = [0; 100];
        let length = socket.recv(&mut buffer).unwrap();
        Some(buffer[..length].to_vec())
    });
    let node = Running::start(listening(&world, Behind::new(&gateway)).build().unwrap());
    let status = wait(&node.handle, |status| !status.reach.addresses.is_empty());
    assert_eq!(status.reach.addresses[0].by, ReachMethod::NatPmp);
    let mut visitor = Visitor::come(port(&node.handle), world.params.magic);
    assert_eq!(visitor.told()[0].socket_addr().unwrap(), "88.1.2.3:9000".parse().unwrap());
    *changed.lock() = true;
    // It is renewed after 65 s, of which here twenty pass in one.
    assert_eq!(visitor.told()[0].socket_addr().unwrap(), "88.1.2.4:9001".parse().unwrap());
    node.stop();
}

#[test]
fn without_a_gateway_that_helps_a_stun_server_is_asked_and_a_lying_gateway_is_named() {
    let world = World::new(1);
    // Behind another gateway: its own address is of no use.
    let gateway = pcp_gateway("10.0.0.2:8333", 7_200);
    let server = stun_server("88.1.2.9:40000");
    let builder = listening(&world, Behind::new(&gateway)).stun_servers([PeerAddress::Ip(server.address)]);
    let node = Running::start(builder.build().unwrap());
    let status = wait(&node.handle, |status| !status.reach.addresses.is_empty());
    let own = &status.reach.addresses[0];
    let expected = format!("88.1.2.9:{}", port(&node.handle));
    assert_eq!(
        (own.address.to_string(), own.by),
        (expected, ReachMethod::Stun),
        "with the port that listens"
    );
    node.stop();

    for (lie, seconds, why) in [
        ("10.0.0.2:8333", 7_200, "cannot be reached from the Internet"),
        ("0.0.0.0:8333", 7_200, "cannot be reached from the Internet"),
        ("88.1.2.3:0", 7_200, "cannot be reached from the Internet"),
        ("88.1.2.3:1", 3, "given for 3 s only"),
    ] {
        let gateway = pcp_gateway(lie, seconds);
        let node = Running::start(listening(&world, Behind::new(&gateway)).build().unwrap());
        let named = |status: &Status| status.reach.trouble.as_ref().is_some_and(|all| all.contains(why));
        let status = wait(&node.handle, named);
        assert!(status.reach.addresses.is_empty(), "{:?}", status.reach);
        node.stop();
    }
}

#[test]
fn a_mapping_for_ever_counts_for_two_hours() {
    let world = World::new(1);
    let gateway = pcp_gateway("88.1.2.3:9000", u32::MAX);
    let node = Running::start(listening(&world, Behind::new(&gateway)).build().unwrap());
    let status = wait(&node.handle, |status| !status.reach.addresses.is_empty());
    assert!(status.reach.addresses[0].until.unwrap() <= SystemClock::new().unix() + 7_200);
    node.stop();
}

#[test]
fn who_listens_on_loopback_only_or_behind_a_proxy_or_has_no_map_asks_no_gateway() {
    let world = World::new(1);
    let gateway = pcp_gateway("88.1.2.3:9000", 7_200);
    let quiet = |change: &dyn Fn(Builder) -> Builder, local: usize| {
        let behind = Behind::new(&gateway);
        let node = Running::start(change(world.builder().gateway(behind.clone())).build().unwrap());
        port(&node.handle);
        std::thread::sleep(Duration::from_millis(300));
        let status = node.handle.status();
        assert!(status.reach.addresses.is_empty(), "{:?}", status.reach);
        node.stop();
        let asked = behind.1.lock();
        assert!(
            asked.len() == local && asked.iter().all(|request| matches!(request, ReachRequest::Local { .. }))
        );
    };
    let everywhere = || SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    quiet(&|builder| builder.listen((Ipv4Addr::LOCALHOST, 0).into()), 0);
    quiet(&|builder| builder.listen(everywhere()).map_ports(false), 1);
    #[cfg(feature = "socks5")]
    quiet(&|builder| builder.listen(everywhere()).proxy(([127, 0, 0, 1], 1).into()), 0);
    assert!(gateway.asked().is_empty());
}

/// A gateway that never answers: the end of the node does not wait for it for long.
#[test]
fn a_node_ends_soon_although_its_gateway_has_become_silent() {
    let world = World::new(1);
    let silent = Arc::new(Mutex::new(false));
    let still = silent.clone();
    let gateway = Fake::answering(move |request| {
        (request[0] == 2 && !*still.lock()).then(|| fake::granted(request, "88.1.2.3:9000", 7_200))
    });
    let node = Running::start(listening(&world, Behind::new(&gateway)).build().unwrap());
    wait(&node.handle, |status| !status.reach.addresses.is_empty());
    *silent.lock() = true;
    node.stop();
    wait_for("it is asked", || gateway.asked().last().unwrap()[4..8] == [0; 4]);
}

/// The bug: a socket of IPv6 took IPv4 too where the system has it so, and the second of both could not be had.
#[test]
fn both_families_listen_on_one_port() {
    let world = World::new(1);
    let free = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0));
    let Ok(free) = free else {
        eprintln!("\n**** SKIPPED: this machine has no IPv6 ****\n");
        return;
    };
    let port = free.local_addr().unwrap().port();
    drop(free);
    let builder = world.builder().map_ports(false);
    let builder =
        builder.listen((Ipv4Addr::UNSPECIFIED, port).into()).listen((Ipv6Addr::UNSPECIFIED, port).into());
    let node = Running::start(builder.build().unwrap());
    wait_for("it listens on both", || node.handle.listening().len() == 2);
    for address in [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), (Ipv6Addr::LOCALHOST, port).into()] {
        let stream = TcpStream::connect(address).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
    }
    node.stop();
}
