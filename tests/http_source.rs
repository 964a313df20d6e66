//! Whole syncs from HTTP sources: a small server on loopback answers like a bitcoind with `-rest=1`, or does not.
#![cfg(all(feature = "native", feature = "consensus", feature = "http"))]

#[path = "world/mod.rs"]
mod world;

use bitcoin::consensus::serialize;
use bitcoin::{Block, BlockHash};
use flate2::Compression;
use flate2::write::GzEncoder;
use headlong::{
    Builder, CloseReason, ConnectionKind, EndedPeer, Fault, MemoryStore, PeerAddress, PeerStatus,
};
use parking_lot::{Mutex, RwLock};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use world::{PATIENCE, Running, World};

/// How the server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Plain,
    /// In chunks.
    Chunked,
    /// Packed and in chunks, for those who take it.
    Packed,
    /// Closes each connection after its answer.
    Closes,
    /// Every fourth answer is a 503.
    Busy,
    /// It has no blocks.
    Bare,
    /// The block after the one that was asked for.
    Another,
    /// One byte of the last transaction is another.
    Altered,
    /// Fifty megabytes, packed.
    Bomb,
    /// No HTTP.
    Nonsense,
    /// A byte now and then.
    Trickles,
    /// Sends whoever asks elsewhere.
    Redirects,
    /// Another network's name.
    OtherChain,
}

impl Manner {
    /// How answers without a block are written.
    fn of_others(self) -> Self {
        if matches!(self, Self::Nonsense | Self::Trickles) { Self::Plain } else { self }
    }
}

struct State {
    manner: Manner,
    /// From the genesis block on.
    chain: RwLock<Vec<Block>>,
    /// Paths, and whether gzip was taken.
    requests: Mutex<Vec<(String, bool)>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    most_open: AtomicUsize,
}

struct Server {
    address: SocketAddr,
    state: Arc<State>,
}

impl Server {
    fn start(world: &World, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let state = Arc::new(State {
            manner,
            chain: RwLock::default(),
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            most_open: AtomicUsize::new(0),
        });
        let server = Self { address: listener.local_addr().unwrap(), state: state.clone() };
        server.serve(world);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = state.clone();
                state.connections.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    let open = state.open.fetch_add(1, Ordering::SeqCst) + 1;
                    state.most_open.fetch_max(open, Ordering::SeqCst);
                    let _ = converse(&state, stream);
                    state.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        server
    }

    /// Serves the world's chain as it is now.
    fn serve(&self, world: &World) {
        let genesis = world.params.genesis.clone();
        *self.state.chain.write() = [genesis].into_iter().chain(world.blocks.iter().cloned()).collect();
    }

    fn source(&self) -> PeerAddress {
        format!("http://{}/node", self.address).parse().unwrap()
    }

    fn requests(&self, kind: &str) -> Vec<(String, bool)> {
        let all = self.state.requests.lock();
        all.iter().filter(|(path, _)| path.starts_with(&format!("/node/rest/{kind}"))).cloned().collect()
    }
}

/// Answers requests until the other side has enough.
fn converse(state: &State, mut stream: TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line.trim().is_empty() {
                break;
            }
            head.push(line.trim().to_ascii_lowercase());
        }
        let path = head[0].split(' ').nth(1).unwrap().to_owned();
        let gzip = head.iter().any(|line| line == "accept-encoding: gzip");
        let count = {
            let mut requests = state.requests.lock();
            requests.push((path.clone(), gzip));
            requests.len()
        };
        let (status, body) = answer(state, &path, count);
        let is_block = status == 200 && path.contains("block/");
        let manner = if is_block { state.manner } else { state.manner.of_others() };
        write_answer(manner, &mut stream, status, &body, gzip && is_block)?;
        if state.manner == Manner::Closes {
            return Ok(());
        }
    }
}

fn answer(state: &State, path: &str, count: usize) -> (u16, Vec<u8>) {
    let chain = state.chain.read();
    let find = |hash: &str| {
        let hash: BlockHash = hash.parse().unwrap();
        chain.iter().position(|block| block.block_hash() == hash)
    };
    let path = path.strip_prefix("/node/rest/").expect("the path of the address");
    if state.manner == Manner::Redirects {
        return (301, Vec::new());
    }
    if state.manner == Manner::Busy && count % 4 == 3 {
        return (503, b"Work queue depth exceeded".to_vec());
    }
    if path == "chaininfo.json" {
        let (best, height) = (chain.last().unwrap().block_hash(), chain.len() - 1);
        let name = if state.manner == Manner::OtherChain { "main" } else { "regtest" };
        let text = format!(
            r#"{{"chain":"{name}","blocks":{height},"headers":{height},"bestblockhash":"{best}","pruned":false}}"#
        );
        return (200, text.into_bytes());
    }
    if let Some(rest) = path.strip_prefix("headers/") {
        let (hash, count) = rest.split_once(".bin?count=").unwrap();
        let from = find(hash).unwrap_or(chain.len());
        let headers = chain[from..].iter().take(count.parse().unwrap());
        return (200, headers.flat_map(|block| serialize(&block.header)).collect());
    }
    let hash = path.strip_prefix("block/").and_then(|rest| rest.strip_suffix(".bin")).unwrap();
    match (find(hash), state.manner) {
        (None, _) | (_, Manner::Bare) => (404, b"not found".to_vec()),
        (Some(at), Manner::Another) => (200, serialize(&chain[(at + 1) % chain.len()])),
        (Some(at), Manner::Altered) => {
            let mut bytes = serialize(&chain[at]);
            let last = bytes.len() - 5;
            bytes[last] ^= 1;
            (200, bytes)
        }
        (Some(_), Manner::Bomb) => (200, vec![0; 50 << 20]),
        (Some(at), _) => (200, serialize(&chain[at])),
    }
}

fn write_answer(
    manner: Manner,
    stream: &mut TcpStream,
    status: u16,
    body: &[u8],
    pack: bool,
) -> io::Result<()> {
    if manner == Manner::Nonsense {
        return stream.write_all(b"\xf9\xbe\xb4\xd9version\0\0\0\0\0\n\n");
    }
    let packed = pack && matches!(manner, Manner::Packed | Manner::Bomb);
    let body = if packed {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body)?;
        encoder.finish()?
    } else {
        body.to_vec()
    };
    let mut head = format!("HTTP/1.1 {status} Status\r\nServer: test\r\n");
    if packed {
        head.push_str("Content-Encoding: gzip\r\n");
    }
    if status == 301 {
        head.push_str("Location: http://127.0.0.1:1/\r\n");
    }
    if matches!(manner, Manner::Chunked | Manner::Packed) {
        let mut bytes = (head + "Transfer-Encoding: chunked\r\n\r\n").into_bytes();
        for chunk in body.chunks(1_000) {
            bytes.extend(format!("{:x}\r\n", chunk.len()).bytes().chain(chunk.iter().copied()));
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n\r\n");
        return stream.write_all(&bytes);
    }
    let bytes = [format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat();
    if manner == Manner::Trickles {
        for byte in bytes {
            stream.write_all(&[byte])?;
            std::thread::sleep(Duration::from_millis(100));
        }
        return Ok(());
    }
    stream.write_all(&bytes)
}

fn builder(world: &World) -> Builder {
    Builder::with_params((*world.params).clone())
        .store(MemoryStore::new())
        .threads(2)
        .seed([9; 32])
        .source_interval(Duration::from_millis(100))
}

/// Waits until something is true of the node's connections.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not seen: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn the_source(node: &Running) -> PeerStatus {
    let peers = node.handle.peers_blocking().unwrap();
    peers.into_iter().find(|peer| peer.kind == ConnectionKind::Source).expect("the source is a peer")
}

/// Syncs from this source alone.
fn syncs_from(manner: Manner) -> (World, Server, Running) {
    let world = World::new(130);
    let server = Server::start(&world, manner);
    let node = Running::start(builder(&world).connect(server.source()).build().unwrap());
    node.wait_for(world.tip());
    (world, server, node)
}

#[test]
fn a_source_alone_is_enough_and_is_followed_through_a_reorganisation() {
    let mut world = World::new(126);
    let fork = world.branch.clone();
    world.grow(4);
    let server = Server::start(&world, Manner::Plain);
    let node = Running::start(builder(&world).connect(server.source()).build().unwrap());
    node.wait_for(world.tip());
    let source = the_source(&node);
    assert_eq!(source.address, server.source());
    assert_eq!((source.session, source.best_known), (None, Some(world.tip())));
    let size: usize = world.blocks.iter().map(|block| block.total_size()).sum();
    assert!(source.bytes_in > size as u64 && source.bytes_out > 10_000);
    // New blocks, then others in their place.
    world.grow(3);
    server.serve(&world);
    node.wait_for(world.tip());
    world.reorganise(fork, 12);
    server.serve(&world);
    node.wait_for(world.tip());
    // Each kind was once asked for packed; nothing ever was.
    for kind in ["chaininfo", "headers", "block"] {
        let packed = server.requests(kind).iter().filter(|(_, gzip)| *gzip).count();
        assert!((1..=4).contains(&packed), "{packed} of {kind}");
    }
    let counts = node.handle.status().connections;
    assert!(counts.reused > 100 && counts.opened < 20, "{counts:?}");
    assert!(server.state.most_open.load(Ordering::SeqCst) <= 4);
    node.stop();
    until("the end of all connections", || (server.state.open.load(Ordering::SeqCst) == 0).then_some(()));
}

#[test]
fn a_source_may_answer_in_chunks() {
    syncs_from(Manner::Chunked).2.stop();
}

#[test]
fn a_source_that_packs_is_asked_for_packed_blocks_only() {
    let (world, server, node) = syncs_from(Manner::Packed);
    let blocks = server.requests("block");
    assert_eq!(blocks.len(), world.blocks.len());
    assert!(blocks.iter().all(|(_, gzip)| *gzip));
    node.stop();
}

#[test]
fn a_source_may_close_each_connection_or_be_busy_now_and_then() {
    let (_, server, node) = syncs_from(Manner::Closes);
    let counts = node.handle.status().connections;
    assert!(server.state.connections.load(Ordering::SeqCst) > 100, "{counts:?}");
    assert!(counts.open <= 4);
    node.stop();
    let (world, server, node) = syncs_from(Manner::Busy);
    assert!(server.requests("block").len() > world.blocks.len());
    node.stop();
}

#[test]
fn a_source_and_a_peer_share_the_work_of_one_sync() {
    let world = World::new(400);
    let server = Server::start(&world, Manner::Plain);
    let builder = builder(&world).connect(world.peer.address()).connect(server.source());
    let node = Running::start(builder.build().unwrap());
    node.wait_for(world.tip());
    let from_source = server.requests("block").len();
    assert!((1..400).contains(&from_source), "{from_source} of 400");
    let peers = node.handle.peers_blocking().unwrap();
    let peer = peers.iter().find(|peer| peer.kind == ConnectionKind::Manual).unwrap();
    assert!(peer.bytes_in > 400 * 80 + 10_000, "{peer:?}");
    node.stop();
}

/// Starts with the source alone, so that blocks are asked of it, and adds an honest peer once `seen`.
fn peer_completes_after(manner: Manner, seen: impl Fn(&Server, &Running) -> bool) {
    let world = World::new(130);
    let server = Server::start(&world, manner);
    let node = Running::start(builder(&world).connect(server.source()).build().unwrap());
    until("what the source does", || seen(&server, &node).then_some(()));
    assert!(node.handle.status().tip.height < 130);
    node.handle.add_peer_blocking(world.peer.address().into()).unwrap();
    node.wait_for(world.tip());
    node.stop();
}

fn fault(node: &Running) -> Option<Fault> {
    let ended: Vec<EndedPeer> = node.handle.ended_peers_blocking().unwrap();
    ended.into_iter().find_map(|peer| match peer.reason {
        CloseReason::Fault(fault) => Some(fault),
        _ => None,
    })
}

#[test]
fn a_source_with_false_blocks_is_blamed_as_a_peer_is_and_a_peer_completes_the_sync() {
    for (manner, expected) in [
        (Manner::Another, Some(Fault::Http("another block than was asked for"))),
        (Manner::Bomb, Some(Fault::Http("body"))),
        (Manner::Nonsense, Some(Fault::Http("head"))),
        (Manner::Altered, None),
    ] {
        peer_completes_after(manner, |_, node| match (fault(node), &expected) {
            (None, _) => false,
            (Some(fault), Some(expected)) => {
                assert_eq!(fault, *expected, "{manner:?}");
                true
            }
            (Some(fault), None) => {
                assert!(matches!(fault, Fault::Block { .. }), "{fault}");
                true
            }
        });
    }
}

#[test]
fn a_source_without_blocks_or_with_a_trickle_holds_up_no_sync() {
    for manner in [Manner::Bare, Manner::Trickles] {
        peer_completes_after(manner, |server, _| !server.requests("block").is_empty());
    }
}

#[test]
fn a_server_that_is_no_source_is_told_in_words() {
    let world = World::new(5);
    for (manner, words) in
        [(Manner::Redirects, "redirects are not followed"), (Manner::OtherChain, "serves the chain \"main\"")]
    {
        let server = Server::start(&world, manner);
        let node = Running::start(builder(&world).connect(server.source()).build().unwrap());
        let trouble = until("the trouble", || node.handle.status().trouble);
        assert!(trouble.contains(words) && trouble.contains("http://"), "{trouble}");
        node.stop();
    }
}

#[test]
fn a_source_keeps_to_the_bandwidth_of_the_node() {
    let world = World::new(200);
    let server = Server::start(&world, Manner::Plain);
    let size: usize = world.blocks.iter().map(|block| block.total_size()).sum();
    let rate = size as u64 / 3;
    let begun = Instant::now();
    let builder = builder(&world).connect(server.source()).bandwidth(rate);
    let node = Running::start(builder.build().unwrap());
    node.wait_for(world.tip());
    let (received, elapsed) = (node.handle.status().bytes_in, begun.elapsed());
    assert!(received >= size as u64);
    // What is saved up at most, and a chunk read by each of four requests at the last.
    let most = rate as f64 * (elapsed.as_secs_f64() + 1.0);
    assert!(received as f64 <= most, "{received} bytes in {elapsed:?} at {rate} a second");
    node.stop();
}

#[test]
fn sources_come_and_go_by_the_handle() {
    let mut world = World::new(120);
    let first = Server::start(&world, Manner::Bare);
    let node = Running::start(builder(&world).connect(first.source()).build().unwrap());
    until("the source", || (!first.requests("block").is_empty()).then_some(()));
    let second = Server::start(&world, Manner::Plain);
    node.handle.add_peer_blocking(second.source()).unwrap();
    node.wait_for(world.tip());
    let peers = node.handle.peers_blocking().unwrap();
    let bare = peers.iter().find(|peer| peer.address == first.source()).unwrap();
    node.handle.remove_peer_blocking(bare.id).unwrap();
    world.grow(1);
    second.serve(&world);
    node.wait_for(world.tip());
    node.stop();
}
