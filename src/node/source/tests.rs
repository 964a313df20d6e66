//! Servers that are slow, silent, or gone: each request ends.

use super::fetch::{Failure, Fetcher, Kind};
use super::*;
use crate::chain::params::Network;
use crate::limits::{SOURCE_ATTEMPTS, SOURCE_REQUEST_MILLIS, SOURCE_SILENCE_MILLIS};
use crate::net::native::{NativeExecutor, NativeTransport};
use crate::net::pool::PoolConfig;
use crate::net::{Executor, SystemClock};
use crate::node::connection::Outgoing;
use crate::node::inbox::Inbox;
use crate::node::requests::NodeClock;
use crate::node::traffic::Traffic;
use crate::node::wait::block_on_until;
use crate::relay::rate::RateConfig;
use crate::rng::Rng;
use core::future::Future;
use core::time::Duration;
use parking_lot::Mutex;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Its seconds are hundredths.
#[derive(Debug)]
struct Hasty(NativeExecutor);

const HASTE: u32 = 100;

impl Executor for Hasty {
    fn spawn(&self, future: BoxFuture<'static, ()>) {
        self.0.spawn(future);
    }

    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        self.0.spawn_blocking(work);
    }

    fn timer(&self, wait: Duration) -> BoxFuture<'static, ()> {
        self.0.timer(wait / HASTE)
    }
}

/// A fetcher of a server that does this with each connection, and how often somebody connected.
fn fetcher(serve: fn(TcpStream)) -> (Fetcher, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            counter.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || serve(stream));
        }
    });
    (fetcher_of(url), count)
}

/// What answers may take: one of two megabytes at a time.
const ROOM: usize = 3_000_000;

fn fetcher_of(url: SourceUrl) -> Fetcher {
    Fetcher::new(url, surroundings())
}

fn surroundings() -> Surroundings {
    let executor: Arc<dyn Executor> = Arc::new(Hasty(NativeExecutor::new().unwrap()));
    let clock = NodeClock::new(Arc::new(SystemClock::new()));
    Surroundings {
        magic: [0; 4],
        executor: executor.clone(),
        transport: Arc::new(NativeTransport::new()),
        inbox: Inbox::new().0,
        bandwidth: None,
        upload: None,
        rates: RateConfig::default(),
        clock: clock.clone(),
        traffic: Arc::new(Traffic::new(clock.now().at)),
        encrypt: false,
        rng: Arc::new(Mutex::new(Rng::from_number(1))),
        outgoing: Outgoing::new(PoolConfig::default(), executor, Arc::new(SystemClock::new())),
        network: Network::Regtest,
        source_interval: Duration::from_secs(10),
        source_room: Room::new(ROOM),
    }
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    block_on_until(work, Instant::now() + Duration::from_secs(60)).expect("it ends")
}

fn hasty(millis: u64) -> Duration {
    Duration::from_millis(millis) / HASTE
}

fn is_timeout(failure: &Failure) -> bool {
    matches!(failure, Failure::Connection(error) if error.kind() == io::ErrorKind::TimedOut)
}

#[test]
fn a_silent_server_ends_each_attempt_after_its_time() {
    let (fetcher, count) = fetcher(|mut stream| drop(stream.read_to_end(&mut Vec::new())));
    let begun = Instant::now();
    let failure = wait(fetcher.get(Kind::Block, "x", 100)).err().unwrap();
    assert!(is_timeout(&failure), "{failure}");
    assert!(begun.elapsed() >= hasty(SOURCE_SILENCE_MILLIS) * SOURCE_ATTEMPTS);
    assert_eq!(count.load(Ordering::SeqCst), SOURCE_ATTEMPTS as usize);
}

#[test]
fn a_server_that_trickles_ends_an_attempt_when_its_time_is_over() {
    let (fetcher, _) = fetcher(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n");
        while stream.write_all(b"x").is_ok() {
            std::thread::sleep(hasty(SOURCE_SILENCE_MILLIS) / 20);
        }
    });
    let begun = Instant::now();
    let failure = wait(fetcher.once(Kind::Block, "x", 4_000_000)).err().unwrap();
    assert!(is_timeout(&failure), "{failure}");
    assert!(begun.elapsed() >= hasty(SOURCE_REQUEST_MILLIS));
}

#[test]
fn an_answer_that_is_cut_short_is_asked_for_again_and_one_that_lies_is_not() {
    let (fetcher, count) = fetcher(|mut stream| {
        let _ = stream.read(&mut [0; 1_000]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
    });
    let failure = wait(fetcher.get(Kind::Block, "x", 100)).err().unwrap();
    assert!(failure.fault().is_none(), "{failure}");
    assert_eq!(count.load(Ordering::SeqCst), SOURCE_ATTEMPTS as usize);
    // More than was asked for; the connection with the unread rest is not used again.
    let failure = wait(fetcher.get(Kind::Block, "x", 8)).err().unwrap();
    assert_eq!(failure.fault(), Some("body"));
    assert_eq!(count.load(Ordering::SeqCst), SOURCE_ATTEMPTS as usize + 1);
}

#[test]
fn a_connection_that_the_server_closed_meanwhile_is_opened_anew_without_an_attempt() {
    let (fetcher, count) = fetcher(|mut stream| {
        for _ in 0..2 {
            let _ = stream.read(&mut [0; 1_000]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc");
        }
        // The third request is read and not answered.
        let _ = stream.read(&mut [0; 1_000]);
    });
    for _ in 0..6 {
        let fetched = wait(fetcher.once(Kind::Block, "x", 100)).unwrap();
        assert_eq!((&fetched.body[..], fetched.received), (&b"abc"[..], 41));
    }
    assert_eq!(count.load(Ordering::SeqCst), 3);
}

/// The bug: the connection of a source that was of another chain stayed open until somebody else asked the pool.
#[test]
fn an_idle_connection_ends_with_its_fetcher() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url: SourceUrl = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 1_000]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{\"chain\":\"main\"}");
        // Up to the connection's end.
        stream.read_to_end(&mut Vec::new())
    });
    let around = surroundings();
    let refused = wait(open(url.clone(), around.clone())).err().unwrap().to_string();
    assert!(refused.contains("serves the chain"), "{refused}");
    assert_eq!((around.outgoing.counts().opened, around.outgoing.counts().open), (1, 0));
    assert_eq!(server.join().unwrap().unwrap(), 0);
}

#[test]
fn nobody_there() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let fetcher = fetcher_of(format!("http://{gone}").parse().unwrap());
    let failure = wait(fetcher.get(Kind::Block, "x", 100)).err().unwrap();
    assert!(matches!(failure, Failure::Connection(_)) && !failure.is_answer(), "{failure}");
}

/// Each source could hold four blocks, packed and unpacked, that nobody counted.
#[test]
fn answers_of_all_sources_share_a_room() {
    const BODY: usize = 2_000_000;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let fetcher = fetcher_of(format!("http://{}", listener.local_addr().unwrap()).parse().unwrap());
    let room = fetcher.room();
    let get = || Box::pin(fetcher.once(Kind::Block, "x", 4_000_000));
    let server = std::thread::spawn(move || {
        let mut streams: Vec<TcpStream> = (0..2).map(|_| listener.accept().unwrap().0).collect();
        for stream in &mut streams {
            let _ = stream.read(&mut [0; 1_000]).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
        }
        // Both bodies at once, as far as they are read.
        let whole = |mut stream: TcpStream| std::thread::spawn(move || stream.write_all(&[7; BODY]).unwrap());
        streams.into_iter().map(whole).for_each(drop);
    });
    let mut both = FuturesUnordered::from_iter([get(), get()]);
    let first = wait(both.next()).unwrap().unwrap();
    server.join().unwrap();
    assert_eq!((first.body.len(), room.free()), (BODY, ROOM - BODY));
    // The other waits as long as the first is held.
    let second = block_on_until(both.next(), Instant::now() + Duration::from_millis(100));
    assert!(second.is_none(), "it found no room");
    drop(first);
    assert_eq!(wait(both.next()).unwrap().unwrap().body.len(), BODY);
    assert_eq!(room.free(), ROOM, "and gave it back");
}
