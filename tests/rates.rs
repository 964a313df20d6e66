//! Rates, priorities and budgets of a whole node over loopback sockets.

#![cfg(all(feature = "native", feature = "consensus", feature = "sim"))]

mod world;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::{GetHeadersMessage, Inventory};
use bitcoin::p2p::message_network::VersionMessage;
use bitcoin::p2p::{Address, ServiceFlags};
use headlong::peer::CloseReason;
use headlong::sim::forge::BlockPlan;
use headlong::wire::Message;
use headlong::wire::frame::{Decoder, encode};
use headlong::{Builder, Handle, PeerAddress, Profile, RateConfig, limits};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use world::{PATIENCE, Running, World, listening};

const LOOPBACK: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// A peer that speaks by hand, in v1.
struct ByHand {
    stream: TcpStream,
    magic: [u8; 4],
    decoder: Decoder,
    come: VecDeque<Message>,
    /// Bytes that it has read.
    read: usize,
}

impl ByHand {
    /// After the handshake.
    fn shake_hands(address: SocketAddr, magic: [u8; 4]) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut peer = Self { stream, magic, decoder: Decoder::new(magic), come: VecDeque::new(), read: 0 };
        let nowhere = Address::new(&(Ipv4Addr::UNSPECIFIED, 0).into(), ServiceFlags::NONE);
        peer.send(&[Message::Version(VersionMessage {
            version: 70_016,
            services: ServiceFlags::NONE,
            timestamp: 0,
            receiver: nowhere.clone(),
            sender: nowhere,
            nonce: 7,
            user_agent: "/by-hand/".into(),
            start_height: 0,
            relay: false,
        })]);
        peer.until(|message| *message == Message::Verack);
        peer.send(&[Message::Verack]);
        peer
    }

    fn send(&mut self, messages: &[Message]) {
        let bytes: Vec<u8> = messages.iter().flat_map(|message| encode(self.magic, message)).collect();
        self.stream.write_all(&bytes).unwrap();
    }

    /// The next message.
    fn take(&mut self) -> Message {
        let mut chunk = vec![0; 16_384];
        loop {
            if let Some(message) = self.come.pop_front() {
                return message;
            }
            let read = self.stream.read(&mut chunk).expect("something comes");
            assert!(read > 0, "the connection lasts");
            self.read += read;
            let mut bytes = &chunk[..read];
            while !bytes.is_empty() {
                bytes = &bytes[self.decoder.feed(bytes).unwrap()..];
                if let Some(frame) = self.decoder.take_frame() {
                    self.come.extend(frame.into_message().unwrap());
                }
            }
        }
    }

    /// Reads up to such a message; how many others came before.
    fn until(&mut self, wanted: impl Fn(&Message) -> bool) -> usize {
        let mut others = 0;
        while !wanted(&self.take()) {
            others += 1;
        }
        others
    }
}

/// A chain that ends with a block of some size.
fn large_world() -> (World, usize) {
    let mut world = World::new(110);
    let block = world.forge.extend(&mut world.branch, BlockPlan { inputs: 1, growth: 8_000 });
    world.chain.write().extend([&block]);
    let size = bitcoin::consensus::serialize(&block).len();
    assert!(size > 200_000, "{size}");
    world.blocks.push(block);
    (world, size)
}

/// What a peer that asks for far more than it reads does to its own ping, and to another's: the answer waits for what the
/// system has taken already and for one block, not for the flood.
#[test]
fn a_flood_of_requests_for_blocks_holds_up_no_ping() {
    let (world, size) = large_world();
    let server = Running::start(world.builder().listen(LOOPBACK.into()).build().unwrap());
    server.wait_for(world.tip());
    let address = listening(&server.handle);
    let mut greedy = ByHand::shake_hands(address, world.params.magic);
    let wanted = Inventory::WitnessBlock(world.tip().hash);
    let asked = 1_000;
    greedy.send(&[Message::GetData(vec![wanted; asked])]);
    // It reads nothing until everything is full.
    let sent = |handle: &Handle| handle.status().traffic.sent;
    let mut before = 0;
    while sent(&server.handle) != before || before < limits::WRITE_CHUNK as u64 {
        before = sent(&server.handle);
        std::thread::sleep(Duration::from_millis(100));
    }
    let queues = server.handle.status().traffic.queues;
    assert!(queues.bytes < 500_000 + 2 * size, "and no more than that waits: {queues:?}");
    greedy.send(&[Message::Ping(77)]);

    let mut other = ByHand::shake_hands(address, world.params.magic);
    other.send(&[Message::Ping(5)]);
    other.until(|message| *message == Message::Pong(5));

    // The largest buffers that systems give both sides by themselves hold ten megabytes.
    let blocks = greedy.until(|message| *message == Message::Pong(77));
    assert!(greedy.read <= 12_000_000 + 2 * size, "{} bytes before the pong", greedy.read);
    assert!(blocks * 2 < asked, "{blocks} of {asked} came before it");
    // And nothing of what it asked for is lost.
    for _ in blocks..asked.min(blocks + 50) {
        greedy.until(|message| matches!(message, Message::Block(_)));
    }
    let peers = server.handle.peers_blocking().unwrap();
    let mine = peers.iter().find(|peer| peer.user_agent == "/by-hand/").unwrap();
    assert!(mine.traffic.per_second.sent > 0 && mine.traffic.queues.dropped == 0, "{:?}", mine.traffic);
    server.stop();
}

/// Fifty megabytes of headers, of which it takes none.
#[test]
fn who_does_not_read_is_left_and_the_host_is_told_why() {
    let world = World::new(1_200);
    let server = Running::start(world.builder().listen(LOOPBACK.into()).build().unwrap());
    server.wait_for(world.tip());
    let mut deaf = ByHand::shake_hands(listening(&server.handle), world.params.magic);
    let all = GetHeadersMessage {
        version: 70_016,
        locator_hashes: vec![world.params.genesis_hash()],
        stop_hash: BlockHash::all_zeros(),
    };
    deaf.send(&vec![Message::GetHeaders(all); 500]);
    let deadline = Instant::now() + PATIENCE;
    let left = || server.handle.ended_peers_blocking().unwrap().pop();
    while left().is_none() {
        assert!(Instant::now() < deadline, "{:?}", server.handle.status().traffic);
        std::thread::sleep(Duration::from_millis(50));
    }
    let left = left().unwrap();
    assert_eq!((left.reason, left.discouraged), (CloseReason::Unread, false));
    server.stop();
}

#[test]
fn who_sends_too_much_unasked_rests_and_is_neither_left_nor_in_the_way() {
    let world = World::new(120);
    let server = Running::start(world.builder().listen(LOOPBACK.into()).build().unwrap());
    server.wait_for(world.tip());
    let address = listening(&server.handle);
    let mut chatty = ByHand::shake_hands(address, world.params.magic);
    chatty.send(&(0..400).map(Message::Ping).collect::<Vec<_>>());
    chatty.until(|message| *message == Message::Pong(399));
    chatty.send(&[Message::Ping(1_000)]);
    // Meanwhile another syncs.
    let builder = Builder::with_params((*world.params).clone()).threads(1).connect(PeerAddress::Ip(address));
    let client = Running::start(builder.build().unwrap());
    client.wait_for(world.tip());
    client.stop();
    chatty.until(|message| *message == Message::Pong(1_000));
    assert!(server.handle.status().traffic.rests >= 1);
    let ended = server.handle.ended_peers_blocking().unwrap();
    assert!(ended.iter().all(|peer| !peer.discouraged), "{ended:?}");
    let peers = server.handle.peers_blocking().unwrap();
    assert!(peers.iter().any(|peer| peer.user_agent == "/by-hand/" && peer.traffic.rests >= 1), "{peers:?}");
    server.stop();
}

#[test]
fn what_is_sent_keeps_within_the_upload_rate() {
    let (world, size) = large_world();
    let rate = 400_000;
    let server = Running::start(world.builder().listen(LOOPBACK.into()).upload_rate(rate).build().unwrap());
    server.wait_for(world.tip());
    let mut peer = ByHand::shake_hands(listening(&server.handle), world.params.magic);
    let begun = Instant::now();
    peer.read = 0;
    peer.send(&[Message::GetData(vec![Inventory::WitnessBlock(world.tip().hash); 4])]);
    for _ in 0..4 {
        peer.until(|message| matches!(message, Message::Block(_)));
    }
    // A quarter of a second may be saved up, and the last eighth is paid afterwards.
    let most = rate as f64 * (begun.elapsed().as_secs_f64() + 0.5);
    assert!(peer.read >= 4 * size && peer.read as f64 <= most, "{} of {most}", peer.read);
    server.stop();
}

#[test]
fn a_metered_node_offers_recent_blocks_only() {
    let world = World::new(5);
    let metered = world.builder().profile(Profile::Metered).listen(LOOPBACK.into());
    let server = Running::start(metered.build().unwrap());
    server.wait_for(world.tip());
    let builder = Builder::with_params((*world.params).clone()).threads(1);
    let peer = Running::start(builder.connect(listening(&server.handle)).build().unwrap());
    peer.wait_for(world.tip());
    let offered = peer.handle.peers_blocking().unwrap()[0].services;
    assert!(offered.has(ServiceFlags::NETWORK_LIMITED) && !offered.has(ServiceFlags::NETWORK), "{offered}");
    peer.stop();
    server.stop();
}

/// Announcements are news with a rate: of many in a moment some are dropped, and the last tip is told all the same.
#[test]
fn a_tip_that_could_not_be_announced_is_announced_later() {
    let mut world = World::new(20);
    let rates = RateConfig { least: 2, most: 2, state_percent: 100, ..RateConfig::default() };
    let server =
        Running::start(world.builder().listen(LOOPBACK.into()).message_rates(rates).build().unwrap());
    server.wait_for(world.tip());
    let address = listening(&server.handle);
    let client = Builder::with_params((*world.params).clone()).threads(1).connect(PeerAddress::Ip(address));
    let client = Running::start(client.build().unwrap());
    client.wait_for(world.tip());
    // More than the twenty that a bucket of two a second holds.
    for _ in 0..32 {
        world.grow(1);
        server.wait_for(world.tip());
    }
    client.wait_for(world.tip());
    let queues = server.handle.status().traffic.queues;
    assert!(queues.expired >= 1, "{queues:?}");
    client.stop();
    server.stop();
}

/// A node on a metered link that restarted every hour had a day's bytes for each of them.
#[cfg(feature = "sled")]
#[test]
fn a_restart_goes_on_with_the_bytes_of_the_day() {
    let world = World::new(150);
    let folder = tempfile::tempdir().unwrap();
    let start =
        || Running::start(world.builder().datadir(folder.path()).daily_bytes(50_000_000).build().unwrap());
    let used = |node: &Running| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match node.handle.status().allowance {
                Some(allowance) if allowance.used > 0 => return allowance.used,
                _ => assert!(Instant::now() < deadline),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let first = start();
    first.wait_for(world.tip());
    let before = used(&first);
    assert!(before > 30_000, "{before}");
    first.stop();
    let second = start();
    second.wait_for(world.tip());
    let after = used(&second);
    assert!(after >= before && after < before + 20_000, "{before} {after}");
    second.stop();

    // A damaged record costs its knowledge and no more.
    let file = folder.path().join("allowance.dat");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let third = start();
    assert!(used(&third) < before);
    third.stop();
    assert_eq!(std::fs::read(folder.path().join("allowance.dat.damaged")).unwrap(), bytes);
    assert!(file.exists(), "and the next run has one again");
}
