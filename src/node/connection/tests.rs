//! Connections over streams of all kinds, and what bounds them.

use super::*;
use crate::chain::command::RawBlock;
use crate::net::native::{NativeExecutor, NativeTransport};
use crate::node::inbox::Arrivals;
use crate::node::wait::block_on_until;
use core::pin::Pin;
use core::task::Context;
use futures::future::BoxFuture;
use futures::io::{AsyncRead, AsyncWrite};
use std::time::Instant;

const MAGIC: [u8; 4] = [1, 2, 3, 4];

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
    let around = Surroundings {
        magic: MAGIC,
        executor: Arc::new(Counting(NativeExecutor::new().unwrap(), blocking.clone())),
        transport: Arc::new(NativeTransport::new()),
        inbox,
        bandwidth: None,
        encrypt: true,
        rng: Arc::new(Mutex::new(Rng::from_number(1))),
    };
    Edge { around, inbound, blocking }
}

impl Edge {
    fn next(&mut self) -> Inbound {
        let deadline = Instant::now() + Duration::from_secs(20);
        block_on_until(self.inbound.next(), deadline).expect("something comes").unwrap()
    }

    /// A connection whose other side sends these bytes and then ends the stream.
    fn fed_with(&self, bytes: Vec<u8>) -> Connection {
        // Not dialled: what came of that could arrive between the messages.
        let mut connection = Connection {
            address: ([127, 0, 0, 1], 1).into_peer(),
            gate: Arc::new(Gate::new()),
            unsent: Arc::new(AtomicUsize::new(0)),
            queue: None,
            closing: None,
            tasks: Vec::new(),
        };
        connection.open(PeerId(1), plain(futures::io::Cursor::new(bytes)), &self.around);
        connection
    }
}

fn plain(stream: impl crate::net::Stream + 'static) -> Opened {
    Opened { stream: Box::new(stream), speech: Speech::Plain }
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
    let gate = Gate::new();
    let passes = |gate: &Gate| block_on_until(gate.passed(), Instant::now()).is_some();
    assert!(passes(&gate));
    gate.change(|gate| gate.unhandled = MAX_UNHANDLED_BYTES);
    assert!(!passes(&gate));
    gate.change(|gate| gate.unhandled -= 1);
    assert!(passes(&gate));
    gate.change(|gate| gate.open = false);
    assert!(!passes(&gate));

    // A chunk is handed on whole; the next is read when the gate opens.
    let pings = READ_CHUNK / encode(MAGIC, &Message::Ping(0)).len() + 1;
    let messages: Vec<Message> = (0..2 * pings as u64).map(Message::Ping).collect();
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
    let mut edge = edge();
    // More of the smallest messages than may wait, so that the reader stops half-way.
    let count = 2 * MAX_UNHANDLED_BYTES / weight(HEADER_SIZE);
    let connection = edge.fed_with(stream(&vec![Message::Verack; count]));
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
    let chunk = READ_CHUNK / HEADER_SIZE + 1;
    assert!(received <= MAX_UNHANDLED_BYTES / weight(HEADER_SIZE) + chunk, "{received} of {count}");
    (0..received).for_each(|_| connection.handled(HEADER_SIZE));
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
    let mut connection = edge.fed_with(Vec::new());
    // The queue's other end is held here: nothing leaves.
    let (queue, _held) = mpsc::unbounded();
    connection.queue = Some(queue);
    let fits = MAX_UNSENT_BYTES / place(&block());
    assert!((0..fits).all(|_| connection.send(block())));
    assert!(!connection.send(block()));
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
    assert!(connection.send(Message::Ping(1)));
    assert!(connection.send(Message::Ping(2)));
    connection.close();
    let mut flushed = 0;
    while flushed < 2 {
        if let Inbound::Flushed(_, bytes) = edge.next() {
            assert_eq!(bytes, encode(MAGIC, &Message::Ping(1)).len());
            flushed += 1;
        }
    }
}
