//! Connections over streams of all kinds, and what bounds them.

use super::*;
use crate::chain::command::RawBlock;
use crate::limits::{MAX_UNHANDLED_BYTES, MAX_UNHANDLED_MESSAGES, MAX_UNSENT_BYTES};
use crate::net::SystemClock;
use crate::net::native::{NativeExecutor, NativeTransport};
use crate::net::pool::PoolConfig;
use crate::node::inbox::Arrivals;
use crate::node::wait::block_on_until;
use crate::relay::priority::place;
use core::pin::Pin;
use core::task::{Context, Poll};
use futures::future::BoxFuture;
use futures::io::{AsyncRead, AsyncWrite};
use futures::stream::StreamExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

const MAGIC: [u8; 4] = [1, 2, 3, 4];

/// Rates with which nobody ever rests.
const UNLIMITED: RateConfig = RateConfig {
    per_megabyte: 50,
    least: 1_000_000_000,
    most: 1_000_000_000,
    state_percent: 150,
    bulk_percent: 30,
    control_limit: Duration::from_millis(50),
    state_limit: Duration::from_millis(500),
    bulk_limit: Duration::from_secs(5),
};

/// Counts what is sent to the blocking pool.
#[derive(Debug)]
struct Counting(NativeExecutor, Arc<AtomicUsize>);

impl Executor for Counting {
    fn spawn(&self, future: BoxFuture<'static, ()>) {
        self.0.spawn(future);
    }

    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.spawn_blocking(work);
    }

    fn timer(&self, wait: Duration) -> BoxFuture<'static, ()> {
        self.0.timer(wait)
    }
}

struct Edge {
    around: Surroundings,
    inbound: Arrivals,
    blocking: Arc<AtomicUsize>,
}

fn edge() -> Edge {
    let blocking = Arc::new(AtomicUsize::new(0));
    let (inbox, inbound) = Inbox::new();
    let clock = NodeClock::new(Arc::new(crate::net::SystemClock::new()));
    let executor: Arc<dyn Executor> = Arc::new(Counting(NativeExecutor::new().unwrap(), blocking.clone()));
    let around = Surroundings {
        magic: MAGIC,
        executor: executor.clone(),
        transport: Arc::new(NativeTransport::new()),
        inbox,
        bandwidth: None,
        upload: None,
        rates: RateConfig::default(),
        clock: clock.clone(),
        traffic: Arc::new(Traffic::new(clock.now().at)),
        encrypt: true,
        rng: Arc::new(Mutex::new(Rng::from_number(1))),
        outgoing: Outgoing::new(PoolConfig::default(), executor, Arc::new(SystemClock::new())),
        network: Network::Regtest,
        source_interval: Duration::from_secs(1),
        #[cfg(feature = "http")]
        source_room: source::Room::new(1 << 20),
    };
    Edge { around, inbound, blocking }
}

impl Edge {
    fn next(&mut self) -> Inbound {
        let deadline = Instant::now() + Duration::from_secs(20);
        block_on_until(self.inbound.next(), deadline).expect("something comes").unwrap()
    }

    /// A connection that was not dialled: what came of that could arrive between the messages.
    fn unopened(&self) -> Connection {
        Connection {
            address: ([127, 0, 0, 1], 1).into_peer(),
            gate: Arc::new(Gate::new(self.around.rates, self.around.now())),
            queue: Queue::new(self.around.rates, self.around.now(), self.around.traffic.clone(), false),
            closing: None,
            tasks: Vec::new(),
        }
    }

    /// A connection whose other side sends these bytes and then ends the stream.
    fn fed_with(&self, bytes: Vec<u8>) -> Connection {
        let mut connection = self.unopened();
        connection.open(PeerId(1), plain(futures::io::Cursor::new(bytes)), &self.around);
        connection
    }
}

fn plain(stream: impl crate::net::Stream + 'static) -> Opened {
    Opened(Line::Stream(Box::new(stream), Speech::Plain, None))
}

trait IntoPeer {
    fn into_peer(self) -> PeerAddress;
}

impl IntoPeer for ([u8; 4], u16) {
    fn into_peer(self) -> PeerAddress {
        PeerAddress::Ip(self.into())
    }
}

fn block() -> Message {
    let genesis = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
    Message::Block(RawBlock::new(bitcoin::consensus::serialize(&genesis)).unwrap())
}

fn stream(messages: &[Message]) -> Vec<u8> {
    messages.iter().flat_map(|message| encode(MAGIC, message)).collect()
}

#[test]
fn messages_keep_their_order_and_blocks_are_checked_elsewhere() {
    let mut edge = edge();
    let messages = [Message::Ping(1), block(), Message::Ping(2), block(), Message::Verack];
    let _connection = edge.fed_with(stream(&messages));
    for expected in messages {
        match edge.next() {
            Inbound::Received(PeerId(1), message, bytes) => {
                assert_eq!(message, expected);
                assert_eq!(bytes, encode(MAGIC, &message).len());
            }
            _ => panic!("a message is missing"),
        }
    }
    assert!(matches!(edge.next(), Inbound::Closed(PeerId(1))));
    // All that came with one read is checked in one go.
    assert_eq!(edge.blocking.load(Ordering::SeqCst), 1);
}

#[test]
fn a_block_with_a_wrong_checksum_is_a_fault_after_what_came_before_it() {
    let mut edge = edge();
    let mut bytes = stream(&[Message::Ping(1), block(), Message::Ping(2)]);
    let inside_the_block = encode(MAGIC, &Message::Ping(1)).len() + HEADER_SIZE + 100;
    bytes[inside_the_block] ^= 1;
    let _connection = edge.fed_with(bytes);
    assert!(matches!(edge.next(), Inbound::Received(_, Message::Ping(1), _)));
    assert!(matches!(
        edge.next(),
        Inbound::Faulted(PeerId(1), Fault::Wire(FrameError::Checksum(command))) if command == "block"
    ));
}

#[test]
fn small_messages_need_no_worker_and_garbage_is_a_fault() {
    let mut edge = edge();
    let mut bytes = stream(&[Message::Verack]);
    bytes.extend([0; HEADER_SIZE]);
    let _connection = edge.fed_with(bytes);
    assert!(matches!(edge.next(), Inbound::Received(_, Message::Verack, _)));
    assert!(matches!(edge.next(), Inbound::Faulted(_, Fault::Wire(FrameError::Magic(_)))));
    assert_eq!(edge.blocking.load(Ordering::SeqCst), 0);
}

#[test]
fn nothing_is_read_while_too_much_is_unhandled_or_the_engine_pauses_the_peer() {
    let mut edge = edge();
    let gate = Gate::new(RateConfig::default(), Timestamp::ZERO);
    let passes = |gate: &Gate| block_on_until(gate.passed(), Instant::now()).is_some();
    assert!(passes(&gate));
    gate.change(|gate| gate.unhandled = MAX_UNHANDLED_BYTES);
    assert!(!passes(&gate));
    gate.change(|gate| gate.unhandled -= 1);
    assert!(passes(&gate));
    gate.change(|gate| gate.messages = MAX_UNHANDLED_MESSAGES);
    assert!(!passes(&gate));
    gate.change(|gate| gate.messages -= 1);
    assert!(passes(&gate));
    gate.change(|gate| gate.open = false);
    assert!(!passes(&gate));

    edge.around.rates = UNLIMITED;
    // A chunk is handed on whole; the next is read when the gate opens.
    let pongs = READ_CHUNK / encode(MAGIC, &Message::Pong(0)).len() + 1;
    let messages: Vec<Message> = (0..2 * pongs as u64).map(Message::Pong).collect();
    let mut connection = edge.fed_with(Vec::new());
    connection.tasks.drain(..).for_each(|task| task.abort());
    connection.set_may_read(false);
    connection.open(PeerId(2), plain(futures::io::Cursor::new(stream(&messages))), &edge.around);
    std::thread::sleep(Duration::from_millis(30));
    while let Some(inbound) = edge.inbound.try_next() {
        assert!(!matches!(inbound, Inbound::Received(..)), "read although paused");
    }
    connection.set_may_read(true);
    let mut received = Vec::new();
    while received.len() < messages.len() {
        match edge.next() {
            Inbound::Received(_, message, bytes) => {
                connection.handled(bytes);
                received.push(message);
            }
            Inbound::Progress(..) => {}
            _ => panic!("the connection ended early"),
        }
    }
    assert_eq!(received, messages);
}

/// Story: each read told of its progress, however few bytes it was, and nothing bounded how much of that
/// waited in the inbox.
#[cfg(unix)]
#[test]
fn bytes_that_come_one_by_one_do_not_fill_the_inbox() {
    let mut edge = edge();
    let (near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
    let near = async_io::Async::new(near).unwrap();
    let mut connection = Connection::dial(PeerId(1), ([127, 0, 0, 1], 1).into_peer(), false, &edge.around);
    connection.tasks.drain(..).for_each(|task| task.abort());
    connection.open(PeerId(1), plain(near), &edge.around);
    let bytes = stream(&[block()]);
    for byte in &bytes[..bytes.len() - 1] {
        std::io::Write::write_all(&mut far, &[*byte]).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut told = 0;
    while let Some(inbound) = edge.inbound.try_next() {
        told += usize::from(matches!(inbound, Inbound::Progress(..)));
    }
    assert_eq!(told, 1);
    connection.progress_taken();
    std::io::Write::write_all(&mut far, &bytes[bytes.len() - 1..]).unwrap();
    assert!(matches!(edge.next(), Inbound::Received(_, Message::Block(_), _)));
}

#[test]
fn a_message_counts_for_its_place_in_the_queue() {
    assert!(weight(HEADER_SIZE) >= HEADER_SIZE + size_of::<Inbound>());
    let length = HEADER_SIZE + 1;
    let mut edge = edge();
    edge.around.rates = UNLIMITED;
    // More of the smallest messages than may wait, so that the reader stops half-way.
    let count = 2 * MAX_UNHANDLED_BYTES / weight(length);
    let connection = edge.fed_with(stream(&vec![Message::NotFound(Vec::new()); count]));
    let mut received = 0;
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let before = received;
        while let Some(inbound) = edge.inbound.try_next() {
            received += usize::from(matches!(inbound, Inbound::Received(..)));
        }
        if received > 0 && received == before {
            break;
        }
    }
    let chunk = READ_CHUNK / length + 1;
    let most = (MAX_UNHANDLED_BYTES / weight(length)).min(MAX_UNHANDLED_MESSAGES);
    assert!(received <= most + chunk, "{received} of {count}");
    (0..received).for_each(|_| connection.handled(length));
    while received < count {
        if let Inbound::Received(_, _, bytes) = edge.next() {
            connection.handled(bytes);
            received += 1;
        }
    }
}

#[test]
fn a_peer_that_does_not_read_is_given_up() {
    let edge = edge();
    // Nothing leaves before it is open.
    let connection = Connection::dial(PeerId(1), ([127, 0, 0, 1], 1).into_peer(), false, &edge.around);
    let large = || Message::Block(RawBlock::new(vec![0; 100_000]).unwrap());
    let fits = MAX_UNSENT_BYTES / place(&large());
    let now = edge.around.now();
    assert!((0..fits).all(|_| connection.send(now, large(), false) == Pushed::Queued));
    assert_eq!(connection.send(now, large(), false), Pushed::Overfull);
}

/// A stream that always has another frame for whoever reads it.
struct Endless(Vec<u8>);

impl AsyncRead for Endless {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let frame = &self.0;
        buffer.chunks_exact_mut(frame.len()).for_each(|part| part.copy_from_slice(frame));
        Poll::Ready(Ok(buffer.len() / frame.len() * frame.len()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A peer whose bytes never ran out, and were handled as fast as they came, had the thread of all sockets
/// for itself: nobody else was heard for as long as it went on.
#[test]
fn a_peer_that_never_stops_sending_lets_others_be_heard() {
    let mut edge = edge();
    edge.around.rates = UNLIMITED;
    let mut unknown = encode(MAGIC, &Message::Verack);
    unknown[4..10].copy_from_slice(b"nobody");
    let mut busy = Connection::dial(PeerId(2), ([127, 0, 0, 1], 1).into_peer(), false, &edge.around);
    busy.tasks.drain(..).for_each(|task| task.abort());
    busy.open(PeerId(2), plain(Endless(unknown)), &edge.around);
    std::thread::sleep(Duration::from_millis(50));
    let _quiet = edge.fed_with(stream(&[Message::Verack]));
    while !matches!(edge.next(), Inbound::Received(PeerId(1), Message::Verack, _)) {}
}

#[test]
fn what_is_queued_leaves_before_the_connection_closes() {
    let mut edge = edge();
    let connection = edge.fed_with(stream(&[Message::Verack]));
    let now = edge.around.now();
    assert_eq!(connection.send(now, Message::Ping(1), false), Pushed::Queued);
    assert_eq!(connection.send(now, Message::Ping(2), false), Pushed::Queued);
    connection.close();
    let mut flushed = 0;
    while flushed < 2 {
        if let Inbound::Flushed(_, bytes) = edge.next() {
            assert_eq!(bytes, encode(MAGIC, &Message::Ping(1)).len());
            flushed += 1;
        }
    }
}

/// A link of which each end reads and writes without sockets.
#[cfg(unix)]
fn link() -> (async_io::Async<std::os::unix::net::UnixStream>, std::os::unix::net::UnixStream) {
    let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    far.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (async_io::Async::new(near).unwrap(), far)
}

#[cfg(unix)]
impl Edge {
    /// A connection that the other side has opened, over this stream.
    fn arrived(&self, id: u64, stream: impl crate::net::Stream + 'static) -> Connection {
        let mut around = self.around.clone();
        around.encrypt = false;
        Connection::arrived(PeerId(id), ([127, 0, 0, 1], 1).into_peer(), Box::new(stream), &around)
    }
}

/// The names of the messages that a peer reads, up to this one.
#[cfg(unix)]
fn read_until(far: &mut std::os::unix::net::UnixStream, last: &str) -> Vec<String> {
    let (mut decoder, mut chunk, mut names) = (Decoder::new(MAGIC), vec![0; 4_096], Vec::new());
    while names.last().is_none_or(|name| name != last) {
        let read = std::io::Read::read(far, &mut chunk).expect("something comes");
        let mut bytes = &chunk[..read];
        while !bytes.is_empty() {
            bytes = &bytes[decoder.feed(bytes).unwrap()..];
            names.extend(decoder.take_frame().map(|frame| frame.command.as_str().to_owned()));
        }
    }
    names
}

/// The stated limit of a control message: what is on the wire when it is queued (one message, and what the system has
/// taken of it and those before), however many blocks wait.
#[cfg(unix)]
#[test]
fn a_flood_of_blocks_to_a_slow_peer_holds_up_its_pong_by_what_is_on_the_wire() {
    let edge = edge();
    let (near, mut far) = link();
    let connection = edge.arrived(1, near);
    let large = || Message::Block(RawBlock::new(vec![0; 400_000]).unwrap());
    let now = edge.around.now();
    (0..10).for_each(|_| assert_eq!(connection.send(now, large(), false), Pushed::Queued));
    // The peer reads nothing yet: the writer comes to stand in a block.
    let begun = || 10 - connection.queue.counts().waiting[2];
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut before = 0;
    while begun() == 0 || begun() != before {
        before = begun();
        std::thread::sleep(Duration::from_millis(50));
        assert!(Instant::now() < deadline);
    }
    let begun = begun();
    assert_eq!(connection.send(edge.around.now(), Message::Pong(7), false), Pushed::Queued);
    let names = read_until(&mut far, "pong");
    assert_eq!(names.len(), begun + 1, "{names:?}");
    assert!(begun < 5, "the system takes less than half of them");
}

#[cfg(unix)]
#[test]
fn a_peer_that_asks_too_much_rests_and_what_it_was_asked_for_has_no_rate() {
    use std::io::Write;
    let mut edge = edge();
    let (near, mut far) = link();
    let connection = edge.arrived(1, near);
    let take = |edge: &mut Edge, count: usize| {
        for _ in 0..count {
            while !matches!(edge.next(), Inbound::Received(..)) {}
        }
    };
    // Far more than any rate, of what it is asked for.
    let hash = bitcoin::constants::genesis_block(bitcoin::Network::Regtest).block_hash();
    let wanted = Message::GetData(vec![bitcoin::p2p::message_blockdata::Inventory::WitnessBlock(hash); 900]);
    assert_eq!(connection.send(edge.around.now(), wanted, false), Pushed::Queued);
    read_until(&mut far, "getdata");
    far.write_all(&stream(&vec![block(); 900])).unwrap();
    take(&mut edge, 900);
    assert_eq!(connection.traffic(edge.around.now()).rests, 0);
    // What its bucket holds.
    far.write_all(&stream(&(0..140).map(Message::Ping).collect::<Vec<_>>())).unwrap();
    take(&mut edge, 140);
    let before = edge.around.now();
    far.write_all(&stream(&(0..40).map(Message::Ping).collect::<Vec<_>>())).unwrap();
    take(&mut edge, 40);
    far.write_all(&stream(&[Message::Ping(0)])).unwrap();
    take(&mut edge, 1);
    // 181 of which 150 were there at first: the rest come at 15 a second.
    let waited = edge.around.now().since(before);
    assert!(waited >= Duration::from_millis(1_000), "{waited:?}");
    assert!(connection.traffic(edge.around.now()).rests >= 1);
    assert!(edge.around.traffic.status(edge.around.now()).rests >= 1);
}

/// Answers to nothing had no rate at all.
#[cfg(unix)]
#[test]
fn answers_that_nobody_asked_for_have_the_rate_of_what_comes_unasked() {
    use std::io::Write;
    let genesis = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
    // As announcements of eight each, two thousand headers are more than a bucket holds.
    let floods = [
        vec![Message::Pong(1); 200],
        vec![Message::Headers(Vec::new()); 200],
        vec![Message::Headers(vec![genesis.header; 2_000])],
        vec![Message::NotFound(Vec::new()); 200],
        vec![block(); 200],
    ];
    for flood in floods {
        let edge = edge();
        let (near, mut far) = link();
        let connection = edge.arrived(1, near);
        far.write_all(&stream(&flood)).unwrap();
        let mut come = 0;
        let deadline = Instant::now() + Duration::from_secs(20);
        // All but what is read little by little comes at once.
        while come < flood.len() && connection.traffic(edge.around.now()).rests == 0 {
            assert!(Instant::now() < deadline);
            while let Some(inbound) = edge.inbound.try_next() {
                come += usize::from(matches!(inbound, Inbound::Received(..)));
            }
            std::thread::yield_now();
        }
        while connection.traffic(edge.around.now()).rests == 0 {
            assert!(Instant::now() < deadline, "{:?} without end", flood[0]);
            std::thread::yield_now();
        }
    }
}

/// Whoever takes the blocks that it asked for may go on asking, however small they are.
#[cfg(unix)]
#[test]
fn each_block_that_is_sent_pays_for_one_request() {
    use std::io::Write;
    let mut edge = edge();
    let (near, mut far) = link();
    let connection = edge.arrived(1, near);
    for _ in 0..1_000 {
        far.write_all(&stream(&[Message::GetData(Vec::new())])).unwrap();
        while !matches!(edge.next(), Inbound::Received(_, Message::GetData(_), _)) {}
        assert_eq!(connection.send(edge.around.now(), block(), false), Pushed::Queued);
        assert_eq!(read_until(&mut far, "block"), ["block"]);
    }
    assert_eq!(connection.traffic(edge.around.now()).rests, 0);
}

/// Peers that begin messages and never end them held four megabytes each.
#[cfg(unix)]
#[test]
fn peers_that_came_hold_no_more_than_their_common_room_and_the_largest_goes() {
    use crate::limits::MAX_UNHANDLED_INBOUND;
    use std::io::Write;
    let mut edge = edge();
    let each = 3_900_000;
    let peers = MAX_UNHANDLED_INBOUND as u64 / each as u64 + 4;
    let mut begun = encode(MAGIC, &Message::Block(RawBlock::new(vec![0; each]).unwrap()));
    begun.pop();
    let writers: Vec<_> = (1..=peers)
        .map(|id| {
            let (near, mut far) = link();
            let (connection, begun) = (edge.arrived(id, near), begun.clone());
            // It ends with the connection.
            (connection, std::thread::spawn(move || far.write_all(&begun).map(|()| far)))
        })
        .collect();
    // One that we chose is read all the while.
    let ours = edge.fed_with(stream(&[block()]));
    let mut closed = Vec::new();
    let (mut heard, mut most) = (false, 0);
    while closed.is_empty() || !heard {
        match edge.next() {
            Inbound::Closed(PeerId(1)) | Inbound::Progress(..) => {}
            Inbound::Closed(id) => closed.push(id),
            Inbound::Received(PeerId(1), Message::Block(_), _) => heard = true,
            _ => {}
        }
        most = most.max(edge.around.traffic.status(edge.around.now()).unhandled_inbound);
    }
    let slack = peers as usize * 2 * READ_CHUNK;
    assert!(most >= MAX_UNHANDLED_INBOUND && most <= MAX_UNHANDLED_INBOUND + slack, "{most}");
    drop(ours);
    for (connection, writer) in writers {
        drop(connection);
        let _ = writer.join().unwrap();
    }
    // A task that is being run when it is aborted ends a moment later.
    let begun = std::time::Instant::now();
    while edge.around.traffic.crowd.total() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "what they held still counts");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Both ends of an encrypted connection: ours, and the other with its stream.
#[cfg(unix)]
fn encrypted(edge: &Edge, id: u64) -> (Connection, Session, std::os::unix::net::UnixStream) {
    let (near, far) = link();
    let secrets = |n| Secrets::new(Rng::from_number(n));
    let (mut near, far) = (Box::new(near) as BoxStream, async_io::Async::new(far).unwrap());
    let mut other: BoxStream = Box::new(async_io::Async::new(far.get_ref().try_clone().unwrap()).unwrap());
    let (ours, theirs) = async_io::block_on(futures::future::join(
        encryption::call(&mut near, MAGIC, secrets(1)),
        encryption::answer(&mut other, MAGIC, secrets(2)),
    ));
    let Ok(Agreed::Encrypted(theirs)) = theirs else { panic!("no session") };
    drop(other);
    let far = far.into_inner().unwrap();
    far.set_nonblocking(false).unwrap();
    let mut connection = edge.unopened();
    let speech = Speech::Encrypted(Box::new(ours.unwrap()));
    connection.open(PeerId(id), Opened(Line::Stream(near, speech, None)), &edge.around);
    (connection, *theirs, far)
}

/// A block of four megabytes, encrypted or decrypted, held up all connections of its thread.
#[cfg(unix)]
#[test]
fn long_packets_are_encrypted_and_decrypted_elsewhere() {
    use std::io::{Read, Write};
    let mut edge = edge();
    let (connection, mut session, mut far) = encrypted(&edge, 7);
    let large = || Message::Block(RawBlock::new(vec![7; 400_000]).unwrap());
    let ours = [Message::Ping(1), large(), Message::Ping(2)];
    for message in &ours {
        assert_eq!(connection.send(edge.around.now(), message.clone(), false), Pushed::Queued);
    }
    let (mut decoder, mut chunk, mut frames) =
        (v2::Decoder::new(session.inbound), vec![0; 50_000], Vec::new());
    while frames.len() < ours.len() {
        let read = far.read(&mut chunk).unwrap();
        let mut bytes = &chunk[..read];
        while !bytes.is_empty() {
            bytes = &bytes[decoder.feed(bytes).unwrap()..];
            frames.extend(decoder.take_frame());
        }
    }
    frames.sort_by_key(|frame| frame.payload.len());
    assert!(frames[2].payload.len() == 400_000 && frames[2].payload.iter().all(|byte| *byte == 7));
    assert_eq!(edge.blocking.load(Ordering::SeqCst), 1, "encrypted there");

    let theirs = [Message::Ping(3), large(), Message::Ping(4), large(), Message::Verack];
    for message in &theirs {
        far.write_all(&v2::encode(&mut session.outbound, message)).unwrap();
    }
    let mut received = Vec::new();
    while received.len() < theirs.len() {
        match edge.next() {
            Inbound::Received(_, message, bytes) => {
                connection.handled(bytes);
                received.push(message);
            }
            Inbound::Progress(..) => connection.progress_taken(),
            Inbound::Flushed(..) => {}
            Inbound::Faulted(_, fault) => panic!("{fault}"),
            _ => panic!("the connection ended early"),
        }
    }
    assert!(received == theirs, "all, in their order");
    assert_eq!(edge.blocking.load(Ordering::SeqCst), 3, "decrypted and parsed in one go");
}

/// Its seconds are twentieths.
#[derive(Debug)]
struct Hasty(NativeExecutor);

impl Executor for Hasty {
    fn spawn(&self, future: BoxFuture<'static, ()>) {
        self.0.spawn(future);
    }

    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        self.0.spawn_blocking(work);
    }

    fn timer(&self, wait: Duration) -> BoxFuture<'static, ()> {
        self.0.timer(wait / 20)
    }
}

/// Nothing tells a v1 peer that says nothing from a slow one, but time.
#[test]
fn a_peer_that_says_nothing_is_called_once_more_in_v1_after_its_time() {
    let mut edge = edge();
    edge.around.executor = Arc::new(Hasty(NativeExecutor::new().unwrap()));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let begun = Instant::now();
    let address = PeerAddress::Ip(listener.local_addr().unwrap());
    let _connection = Connection::dial(PeerId(1), address, true, &edge.around);
    let silent = listener.accept().unwrap();
    let Inbound::Dialled(PeerId(1), Ok(opened)) = edge.next() else { panic!("it is there") };
    assert!(begun.elapsed() >= Duration::from_millis(ENCRYPTION_MILLIS) / 20);
    assert!(matches!(opened.0, Line::Stream(_, Speech::Plain, Some(_))));
    listener.accept().unwrap();
    drop(silent);
}
