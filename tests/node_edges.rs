//! The driver's edges: what a host's parts and foreign peers can do to it.
#![cfg(all(feature = "native", feature = "consensus", feature = "sled"))]

mod world;

use core::future::Future;
use core::pin::{Pin, pin};
use core::task::{Context, Poll};
use core::time::Duration;
use futures::future::BoxFuture;
use futures::io::{AsyncRead, AsyncWrite};
use headlong::net::native::NativeTransport;
use headlong::net::{BoxStream, Listener, Transport};
use headlong::{Error, PeerAddress, Proof, RunError};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use world::{PATIENCE, Running, World};

/// A stream of a host with a defect.
struct Broken(BoxStream);

impl AsyncRead for Broken {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
        panic!("the host's stream fell over")
    }
}

impl AsyncWrite for Broken {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

#[derive(Debug)]
struct BrokenTransport;

impl Transport for BrokenTransport {
    fn dial(&self, address: &PeerAddress) -> BoxFuture<'static, io::Result<BoxStream>> {
        let dial = NativeTransport::new().dial(address);
        Box::pin(async move { Ok(Box::new(Broken(dial.await?)) as BoxStream) })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        NativeTransport::new().listen(address)
    }

    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        NativeTransport::new().resolve(host, port)
    }
}

#[test]
fn a_task_that_panics_ends_the_run_with_its_message() {
    let world = World::new(5);
    let node = Running::start(world.builder().transport(BrokenTransport).build().unwrap());
    match node.outcome() {
        Err(RunError::Failed { error: Error::WorkerPanic(message), .. }) => {
            assert!(message.contains("the host's stream fell over"), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_peer_that_talks_nonsense_does_not_hold_up_the_others() {
    let world = World::new(30);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let nonsense = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // It may be cut off while it still writes.
        let _ = stream.write_all(&[0x42; 100_000]);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    });
    let node = Running::start(world.builder().connect(address).build().unwrap());
    node.wait_for(world.tip());
    nonsense.join().unwrap();
    node.stop();
}

/// Counts how often a future is polled.
struct Counted<F> {
    inner: F,
    polls: Arc<AtomicUsize>,
}

impl<F: Future + Unpin> Future for Counted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.polls.fetch_add(1, Ordering::SeqCst);
        Pin::new(&mut self.inner).poll(cx)
    }
}

#[test]
fn nothing_wakes_the_node_when_nothing_is_due() {
    let world = World::new(10);
    let (node, handle) = world.builder().build().unwrap();
    let handle = handle.with_timeout(PATIENCE);
    let polls = Arc::new(AtomicUsize::new(0));
    let run = Counted { inner: Box::pin(node.run()), polls: polls.clone() };
    let thread = std::thread::spawn(move || smol::block_on(run));
    handle.wait_synced_blocking().unwrap();
    // Let the last messages and reports of the sync pass.
    std::thread::sleep(Duration::from_secs(1));
    let before = polls.load(Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(1_500));
    let idle = polls.load(Ordering::SeqCst) - before;
    assert!(idle <= 10, "{idle} polls while idle");
    handle.shutdown_blocking().unwrap();
    thread.join().unwrap().unwrap();
}

#[test]
fn answers_say_when_scripts_were_not_run() {
    let world = World::new(130);
    let folder = tempfile::tempdir().unwrap();
    let node = Running::start(world.builder().assume_valid(None).build().unwrap());
    node.wait_for(world.tip());
    assert_eq!(node.handle.header_at_blocking(5).unwrap().trust, Proof::Scripts);
    assert_eq!(node.handle.coin_blocking(world.branch.coins[0].outpoint).unwrap().trust, Proof::Scripts);
    node.stop();
    // `assumevalid` spares blocks that are two weeks of work below the best header (Core's condition).
    let mut world = World::new(2_200);
    let assumed = world.at(100).block_hash();
    let build = |world: &World| world.builder().assume_valid(Some(assumed)).datadir(folder.path()).build();
    let node = Running::start(build(&world).unwrap());
    node.wait_for(world.tip());
    assert_eq!(node.handle.header_at_blocking(5).unwrap().trust, Proof::AssumedValid);
    node.stop();
    world.grow(1);
    let node = Running::start(build(&world).unwrap());
    node.wait_for(world.tip());
    let stats = node.handle.utxo_stats_blocking().unwrap();
    assert_eq!(stats.trust, Proof::AssumedValid, "a restart does not forget it");
    node.stop();
}

#[test]
fn a_run_that_is_dropped_ends_every_wait() {
    let world = World::new(5);
    let (node, handle) = world.builder().build().unwrap();
    smol::block_on(async {
        let mut run = Box::pin(node.run());
        {
            let waiting = pin!(handle.wait_for_height(1_000));
            let running = async {
                let mut left = 200;
                core::future::poll_fn(|cx| {
                    left -= 1;
                    cx.waker().wake_by_ref();
                    std::thread::sleep(Duration::from_millis(1));
                    if run.as_mut().poll(cx).is_ready() || left == 0 {
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    }
                })
                .await;
            };
            futures::future::select(waiting, pin!(running)).await;
        }
        drop(run);
        assert!(handle.wait_for_height(1_000).await.is_err());
        assert!(handle.wait_stopped().await.unwrap().height <= 5);
        assert!(handle.status().tip.height <= 5);
    });
}
