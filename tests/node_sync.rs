//! Whole syncs over loopback TCP: stores, executors, restarts, two nodes at once.
#![cfg(all(feature = "native", feature = "consensus", feature = "sled"))]

mod world;

use core::time::Duration;
use futures::future::BoxFuture;
use headlong::limits::{LEAST_BANDWIDTH, LEAST_MEMORY};
use headlong::net::native::NativeTransport;
use headlong::net::{BoxStream, Executor, Listener, Transport};
use headlong::store::StoreErrorKind;
use headlong::{BuildError, MemoryStore, PeerAddress, SledStore, Stage};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use world::{PATIENCE, Running, World};

#[test]
fn a_node_in_memory_syncs_follows_and_reports_its_durable_tip() {
    let mut world = World::new(120);
    let node = Running::start(world.builder().build().unwrap());
    let tip = node.handle.wait_synced_blocking().unwrap();
    assert_eq!(tip, world.tip());
    world.grow(3);
    assert_eq!(node.handle.wait_for_height_blocking(123).unwrap(), world.tip());
    node.wait_for(world.tip());
    let status = node.handle.status();
    assert_eq!(status.blocks, 123);
    assert_eq!(status.stage, Stage::Synced);
    assert!(status.inputs > 0, "the chain spends coins");
    assert!(status.bytes_in > 0);
    assert_eq!(node.stop(), world.tip());
}

#[test]
fn budgets_of_bandwidth_and_memory_are_kept_and_the_sync_ends() {
    let world = World::new(300);
    let size: usize = world.blocks.iter().map(|block| block.total_size()).sum();
    let rate = size as u64 / 3;
    let begun = Instant::now();
    let builder = world.builder().memory(LEAST_MEMORY).bandwidth(rate);
    let node = Running::start(builder.build().unwrap());
    node.wait_for(world.tip());
    let (received, elapsed) = (node.handle.status().bytes_in, begun.elapsed());
    assert!(received >= size as u64);
    // What is saved up at most, and a chunk read by the last.
    let most = rate as f64 * (elapsed.as_secs_f64() + 0.5);
    assert!(received as f64 <= most, "{received} bytes in {elapsed:?} at {rate} a second");
    assert_eq!(node.stop(), world.tip());
    for builder in [world.builder().memory(LEAST_MEMORY - 1), world.builder().bandwidth(LEAST_BANDWIDTH - 1)]
    {
        assert!(matches!(builder.build(), Err(BuildError::Option(_))));
    }
}

#[test]
fn a_paused_node_knows_the_headers_and_goes_on_when_it_is_resumed() {
    let world = World::new(120);
    let node = Running::start(world.builder().build().unwrap());
    node.handle.pause_blocking().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while node.handle.status().best_header != world.tip() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(300));
    let status = node.handle.status();
    assert!(status.paused && status.tip.height < 120 && status.time_left.is_none());
    assert_eq!((status.durable, status.in_flight), (status.tip, 0));
    node.handle.resume_blocking().unwrap();
    node.wait_for(world.tip());
    assert_eq!(node.stop(), world.tip());
}

#[test]
fn an_explicit_memory_store_is_taken() {
    let world = World::new(20);
    let node = Running::start(world.builder().store(MemoryStore::new()).build().unwrap());
    node.wait_for(world.tip());
    assert_eq!(node.stop(), world.tip());
}

#[test]
fn a_second_run_on_the_same_directory_resumes() {
    let mut world = World::new(110);
    let folder = tempfile::tempdir().unwrap();
    let node = Running::start(world.builder().datadir(folder.path()).build().unwrap());
    node.wait_for(world.tip());
    assert_eq!(node.stop(), world.tip());

    world.grow(5);
    let node = Running::start(world.builder().datadir(folder.path()).build().unwrap());
    assert_eq!(node.handle.status().durable.height, 110, "nothing is done twice");
    node.wait_for(world.tip());
    assert_eq!(node.handle.status().blocks, 5);
    assert_eq!(node.stop(), world.tip());
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// sled takes a damaged byte of its log for the log's end: the node comes up at an older tip and goes on from
/// there to the same coins, or says that the store is damaged.
#[test]
fn a_damaged_store_comes_up_at_an_older_tip_or_says_so() {
    let mut world = World::new(105);
    let folder = tempfile::tempdir().unwrap();
    let node = Running::start(world.builder().datadir(folder.path()).build().unwrap());
    node.wait_for(world.tip());
    for _ in 0..8 {
        world.grow(1);
        node.wait_for(world.tip());
    }
    let coins = node.handle.utxo_stats_blocking().unwrap().value;
    node.stop();
    let (mut older, mut said) = (0, 0);
    let log = std::fs::read(folder.path().join("coins-sled/db")).unwrap();
    let end = log.iter().rposition(|byte| *byte != 0).unwrap();
    for part in 1..=16 {
        let damaged = tempfile::tempdir().unwrap();
        copy(folder.path(), damaged.path());
        let mut log = log.clone();
        log[end * part / 16] ^= 0x20;
        std::fs::write(damaged.path().join("coins-sled/db"), log).unwrap();
        match world.builder().datadir(damaged.path()).build() {
            Ok(built) => {
                let node = Running::start(built);
                older += u32::from(node.handle.status().durable != world.tip());
                node.wait_for(world.tip());
                assert_eq!(node.handle.utxo_stats_blocking().unwrap().value, coins);
                node.stop();
            }
            Err(BuildError::Store(error)) => {
                assert_eq!(error.kind, StoreErrorKind::Corrupt, "{error}");
                said += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    eprintln!("{older} of 16 came up at an older tip, {said} said that they are damaged");
    assert!(older + said > 0);
}

#[test]
fn a_sled_store_of_the_host_needs_a_directory_for_the_files_beside_it() {
    let world = World::new(10);
    let folder = tempfile::tempdir().unwrap();
    let store = || SledStore::open(folder.path().join("mine"), 8 << 20).unwrap();
    let error = world.builder().store(store()).build().unwrap_err();
    assert!(matches!(error, BuildError::MissingDatadir), "{error}");
    let node = Running::start(world.builder().store(store()).datadir(folder.path()).build().unwrap());
    node.wait_for(world.tip());
    assert_eq!(node.stop(), world.tip());
}

#[test]
fn a_directory_in_use_is_a_typed_error_and_is_free_again_afterwards() {
    let world = World::new(5);
    let folder = tempfile::tempdir().unwrap();
    let first = world.builder().datadir(folder.path()).build().unwrap();
    match world.builder().datadir(folder.path()).build() {
        Err(BuildError::Store(error)) => {
            assert_eq!(error.kind, StoreErrorKind::Locked);
            let said = format!("{} is in use by another node of this process", folder.path().display());
            assert!(error.to_string().contains(&said), "{error}");
        }
        other => panic!("{other:?}"),
    }
    // A node that never ran lets go of it too.
    let (node, handle) = first;
    drop(node);
    handle.wait_stopped_blocking().unwrap();
    let node = Running::start(world.builder().datadir(folder.path()).build().unwrap());
    node.wait_for(world.tip());
    node.stop();
    drop(world.builder().datadir(folder.path()).build().unwrap());
}

#[test]
fn another_networks_directory_is_refused() {
    let world = World::new(1);
    let folder = tempfile::tempdir().unwrap();
    drop(world.builder().datadir(folder.path()).build().unwrap());
    match headlong::Builder::new(headlong::Network::Signet).datadir(folder.path()).build() {
        Err(BuildError::Store(error)) => assert_eq!(error.kind, StoreErrorKind::Unsupported, "{error}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_nodes_in_one_process_do_not_know_of_each_other() {
    let (left, right) = (World::new(30), World::new(40));
    let a = Running::start(left.builder().build().unwrap());
    let b = Running::start(right.builder().build().unwrap());
    a.wait_for(left.tip());
    b.wait_for(right.tip());
    assert_eq!(a.stop(), left.tip());
    // The end of one is nothing to the other.
    assert_eq!(b.handle.tip_blocking().unwrap(), right.tip());
    assert_eq!(b.stop(), right.tip());
}

#[test]
fn nothing_above_the_stop_height_connects() {
    let world = World::new(40);
    let node = Running::start(world.builder().stop_at_height(25).build().unwrap());
    node.wait_for(headlong::BlockRef { height: 25, hash: world.at(25).block_hash() });
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(node.handle.tip_blocking().unwrap().height, 25);
    assert_eq!(node.stop().height, 25);
}

/// The default transport, whose first dials fail.
#[derive(Debug)]
struct Flaky {
    failures: AtomicUsize,
    sockets: NativeTransport,
}

impl Transport for Flaky {
    fn dial(&self, address: &PeerAddress) -> BoxFuture<'static, io::Result<BoxStream>> {
        let left = self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match left {
            Ok(_) => Box::pin(async { Err(io::Error::from(io::ErrorKind::ConnectionRefused)) }),
            Err(_) => self.sockets.dial(address),
        }
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        self.sockets.listen(address)
    }

    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        self.sockets.resolve(host, port)
    }
}

#[test]
fn a_peer_that_cannot_be_reached_is_tried_again() {
    let world = World::new(10);
    let flaky = Flaky { failures: AtomicUsize::new(2), sockets: NativeTransport::new() };
    let node = Running::start(world.builder().transport(flaky).build().unwrap());
    let mut status = node.handle.status();
    while status.trouble.is_none() {
        status = node.handle.status_changed_blocking(status.version).unwrap();
    }
    let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
    assert_eq!(status.trouble, Some(format!("{}: {refused}", world.peer.address())));
    node.wait_for(world.tip());
    assert_eq!(node.handle.status().trouble, None);
    node.stop();
}

/// An executor with one thread, the one that runs the node; even blocking work is done there.
#[derive(Debug, Clone)]
struct OneThread(Arc<smol::Executor<'static>>);

impl Executor for OneThread {
    fn spawn(&self, future: BoxFuture<'static, ()>) {
        self.0.spawn(future).detach();
    }

    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        self.0.spawn(async move { work() }).detach();
    }

    fn timer(&self, wait: Duration) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            smol::Timer::after(wait).await;
        })
    }
}

#[test]
fn a_whole_sync_on_one_thread_with_the_hosts_executor() {
    let world = World::new(120);
    let executor = OneThread(Arc::new(smol::Executor::new()));
    let (node, handle) = world.builder().executor(executor.clone()).build().unwrap();
    let handle = handle.with_timeout(PATIENCE);
    let tasks = executor.0.clone();
    let (tip, durable, stopped) = smol::block_on(executor.0.run(async move {
        let running = tasks.spawn(node.run());
        let tip = handle.wait_synced().await.unwrap();
        let durable = handle.shutdown().await.unwrap();
        (tip, durable, running.await.unwrap())
    }));
    assert_eq!(tip, world.tip());
    assert_eq!(durable, world.tip());
    assert_eq!(stopped.tip, durable);
}
