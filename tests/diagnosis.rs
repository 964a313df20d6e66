//! What bounds a sync, told by whole nodes: over a slow link, on a slow store, with a slow verifier; what the next block
//! waits for; what was done about it, and that nothing is done that is turned off.
//!
//! Each node syncs the same kind of chain; only what is slow differs, and with it the answer.
#![cfg(all(feature = "native", feature = "consensus"))]

mod world;

use core::ops::Bound as Range;
use headlong::engine::status::WaitsFor;
use headlong::sim::forge::BlockPlan;
use headlong::sim::serve::Session;
use headlong::store::{Batch, Change as StoreChange, Durability, Entry, Store, StoreError, Table};
use headlong::sync::tuning::{Action, Change, TuningConfig};
use headlong::verify::standard::StandardVerifier;
use headlong::verify::{TxScripts, Verdict, Verifier, VerifierError};
use headlong::wire::Message;
use headlong::wire::frame::{Decoder, encode};
use headlong::{Bound, Builder, Diagnosis, MemoryStore, PeerAddress, Stage, Status};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};
use world::{PATIENCE, Running, World};

const LOOPBACK: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// A builder that knows this peer alone.
fn builder(world: &World, peer: SocketAddr) -> Builder {
    Builder::with_params((*world.params).clone()).connect(peer).threads(2).seed([9; 32]).encrypt(false)
}

/// What `look` finds, asked again and again.
fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "it does not come about");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The first diagnosis of a node that syncs blocks.
fn first_diagnosis(node: &Running) -> Diagnosis {
    wait_for(|| {
        let status: Status = node.handle.status();
        assert_ne!(status.stage, Stage::Synced, "the sync lasts longer than an interval");
        status.diagnosis
    })
}

/// The first action whose effect is known.
fn first_effect(node: &Running) -> Action {
    wait_for(|| node.handle.actions_blocking().unwrap().into_iter().find(|action| action.effect.is_some()))
}

/// A way to `peer` that carries so many bytes a second from it. Its threads end with the process.
fn slow_link(peer: SocketAddr, bytes_per_second: usize) -> SocketAddr {
    let listener = TcpListener::bind(LOOPBACK).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = TcpStream::connect(peer) else { continue };
            let (mut from, mut to) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
            std::thread::spawn(move || {
                let _ = carry(&far, &near, bytes_per_second);
                let _ = near.shutdown(Shutdown::Both);
            });
        }
    });
    address
}

fn carry(mut from: &TcpStream, mut to: &TcpStream, bytes_per_second: usize) -> std::io::Result<()> {
    let mut chunk = vec![0; bytes_per_second / 50];
    loop {
        let count = from.read(&mut chunk)?;
        if count == 0 {
            return Ok(());
        }
        to.write_all(&chunk[..count])?;
        std::thread::sleep(Duration::from_secs_f64(count as f64 / bytes_per_second as f64));
    }
}

#[test]
fn over_a_slow_link_the_network_is_the_bound() {
    let mut world = World::new(110);
    world.forge.pad(20_000);
    world.grow(200);
    let node = Running::start(builder(&world, slow_link(world.peer.address(), 60_000)).build().unwrap());
    let diagnosis = first_diagnosis(&node);
    assert_eq!(diagnosis.bound, Bound::Network, "{diagnosis}");
    assert!(diagnosis.network > 0.5 && diagnosis.network > diagnosis.cpu, "{diagnosis:?}");
    assert!(diagnosis.bytes_per_second > 0 && diagnosis.bytes_per_second < 200_000, "{diagnosis:?}");
    assert!(diagnosis.to_string().starts_with("bound by the network ("), "{diagnosis}");
    let status = node.handle.status();
    assert!(status.time_left.is_some_and(|left| left > Duration::from_secs(10)), "{:?}", status.time_left);
    node.stop();
}

/// Outlives a node within this process, and takes its time.
#[derive(Clone, Debug, Default)]
struct SlowStore {
    inner: MemoryStore,
    each_read: Duration,
    each_commit: Duration,
}

impl Store for SlowStore {
    fn get_many(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        if table == Table::Coins {
            std::thread::sleep(self.each_read * keys.len() as u32);
        }
        self.inner.get_many(table, keys)
    }

    fn range(
        &self,
        table: Table,
        from: Range<&[u8]>,
        to: Range<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.inner.range(table, from, to, limit)
    }

    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        let is_coin = |change: &StoreChange| {
            matches!(change, StoreChange::Put(Table::Coins, ..) | StoreChange::Delete(Table::Coins, ..))
        };
        if batch.changes().iter().any(is_coin) {
            std::thread::sleep(self.each_commit);
        }
        self.inner.commit(batch, durability)
    }

    fn is_durable(&self) -> bool {
        true
    }
}

/// The pool's threads look for coins and so wait for the store; that they are never idle is not the processor's doing.
#[test]
fn on_a_store_that_reads_slowly_the_disk_is_the_bound_and_coins_get_more_memory() {
    let mut world = World::new(110);
    let spread = BlockPlan { inputs: 4, growth: 200 };
    let more: Vec<_> = (0..25).map(|_| world.forge.extend(&mut world.branch, spread)).collect();
    world.chain.write().extend(&more);
    let folder = tempfile::tempdir().unwrap();
    let mut store = SlowStore::default();
    let usual = builder(&world, world.peer.address()).datadir(folder.path());
    let node = Running::start(usual.store(store.clone()).build().unwrap());
    node.wait_for(world.tip());
    assert_eq!(node.stop(), world.tip());

    let spend = BlockPlan { inputs: 30, growth: 30 };
    let more: Vec<_> = (0..300).map(|_| world.forge.extend(&mut world.branch, spend)).collect();
    world.chain.write().extend(&more);
    store.each_read = Duration::from_millis(10);
    let slow = builder(&world, world.peer.address()).datadir(folder.path());
    let node = Running::start(slow.store(store).build().unwrap());
    let diagnosis = first_diagnosis(&node);
    assert_eq!(diagnosis.bound, Bound::Disk, "{diagnosis}");
    assert!(diagnosis.disk > 0.5 && !diagnosis.long_flush, "{diagnosis:?}");
    assert!(diagnosis.to_string().starts_with("bound by the disk ("), "{diagnosis}");
    let actions = wait_for(|| Some(node.handle.actions_blocking().unwrap()).filter(|all| !all.is_empty()));
    assert_eq!(actions[0].cause, diagnosis);
    assert!(matches!(actions[0].change, Change::Cache { from: 0, to } if to > 0), "{:?}", actions[0]);
    node.stop();
}

#[test]
fn a_commit_that_holds_everything_up_for_seconds_means_the_disk() {
    let mut world = World::new(110);
    let spread = BlockPlan { inputs: 8, growth: 1_000 };
    let more: Vec<_> = (0..60).map(|_| world.forge.extend(&mut world.branch, spread)).collect();
    world.chain.write().extend(&more);
    let store = SlowStore { each_commit: Duration::from_secs(6), ..SlowStore::default() };
    let folder = tempfile::tempdir().unwrap();
    let slow = builder(&world, world.peer.address()).datadir(folder.path()).dbcache(1 << 20);
    let node = Running::start(slow.store(store).build().unwrap());
    let diagnosis = wait_for(|| node.handle.status().diagnosis.filter(|diagnosis| diagnosis.long_flush));
    assert_eq!(diagnosis.bound, Bound::Disk, "{diagnosis}");
    node.stop();
}

/// Checks scripts as they should be, and takes its time over each input.
#[derive(Debug)]
struct Laborious {
    inner: StandardVerifier,
    each_input: Duration,
}

impl Verifier for Laborious {
    fn verify(&self, batch: &[TxScripts<'_>]) -> Result<Verdict, VerifierError> {
        let inputs: usize = batch.iter().map(|scripts| scripts.spent.len()).sum();
        let until = Instant::now() + self.each_input * inputs as u32;
        while Instant::now() < until {
            core::hint::spin_loop();
        }
        self.inner.verify(batch)
    }
}

#[test]
fn with_one_slow_worker_the_processor_is_the_bound() {
    let world = World::new(500);
    let verifier = Laborious { inner: StandardVerifier::default(), each_input: Duration::from_millis(20) };
    let node = builder(&world, world.peer.address()).threads(1).verifier(verifier);
    let node = Running::start(node.build().unwrap());
    let diagnosis = first_diagnosis(&node);
    assert_eq!(diagnosis.bound, Bound::Cpu, "{diagnosis}");
    assert!(diagnosis.cpu > diagnosis.network && diagnosis.cpu > diagnosis.disk, "{diagnosis:?}");
    assert!(diagnosis.to_string().starts_with("bound by the processor ("), "{diagnosis}");
    node.stop();
}

/// A peer that serves the chain, but for one block, about which it says nothing.
fn withholding(world: &World, height: u32) -> SocketAddr {
    let listener = TcpListener::bind(LOOPBACK).unwrap();
    let address = listener.local_addr().unwrap();
    let (chain, magic) = (world.chain.clone(), world.params.magic);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let withheld = chain.read().at(height).unwrap().hash();
            let mut session = Session::new(chain.clone(), 5);
            let mut decoder = Decoder::new(magic);
            let mut buffer = vec![0; 65_536];
            while let Ok(count) = stream.read(&mut buffer) {
                let mut bytes = &buffer[..count];
                if bytes.is_empty() {
                    break;
                }
                while !bytes.is_empty() {
                    let Ok(used) = decoder.feed(bytes) else { return };
                    bytes = &bytes[used..];
                    let message = decoder.take_frame().and_then(|frame| frame.into_message().ok().flatten());
                    for answer in message.into_iter().flat_map(|message| session.on_message(message)) {
                        let silent = matches!(&answer, Message::Block(block) if block.hash() == withheld);
                        if !silent && stream.write_all(&encode(magic, &answer)).is_err() {
                            return;
                        }
                    }
                }
            }
        }
    });
    address
}

#[test]
fn a_block_that_a_peer_withholds_is_named_with_the_peer_and_the_time() {
    let world = World::new(40);
    let silent = withholding(&world, 13);
    let node = Running::start(builder(&world, silent).build().unwrap());
    let blocked = wait_for(|| {
        node.handle.status().blocker.filter(|blocked| {
            matches!(blocked.waits_for, WaitsFor::Peer(..)) && blocked.time >= Duration::from_secs(2)
        })
    });
    assert_eq!(blocked.height, 13);
    let WaitsFor::Peer(id, _) = &blocked.waits_for else { panic!("{blocked:?}") };
    let said = format!("height 13 waits for peer {id} ({silent}), {} s", blocked.time.as_secs());
    assert_eq!(blocked.to_string(), said);
    assert_eq!(node.handle.status().tip.height, 12);
    node.handle.add_peer_blocking(PeerAddress::Ip(world.peer.address())).unwrap();
    node.wait_for(world.tip());
    wait_for(|| node.handle.status().blocker.is_none().then_some(()));
    node.stop();
}

#[test]
fn what_is_done_has_its_cause_and_effect_and_nothing_is_done_that_is_turned_off() {
    let mut world = World::new(110);
    world.forge.pad(1_000);
    world.grow(400);
    let start = |tuning| {
        let link = slow_link(world.peer.address(), 15_000);
        Running::start(builder(&world, link).tuning(tuning).build().unwrap())
    };
    let (acts, watches) = (start(TuningConfig::ALL), start(TuningConfig::NOTHING));
    let action = first_effect(&acts);
    // The headers took over a second to come, so the peer is asked for more at a time.
    assert_eq!(action.change, Change::Ahead { from: 4, to: 8 });
    assert_eq!(action.cause.bound, Bound::Network, "{action:?}");
    assert!(action.cause.headers_answer.is_some_and(|time| time > Duration::from_secs(1)), "{action:?}");
    assert!(action.effect.is_some_and(|effect| effect.at > action.cause.at), "{action:?}");
    let diagnosis = wait_for(|| watches.handle.status().diagnosis);
    assert_eq!(diagnosis.bound, Bound::Network, "{diagnosis}");
    assert_eq!(watches.handle.actions_blocking().unwrap(), []);
    acts.stop();
    watches.stop();
}

/// A chain whose blocks grow, over a link of steady speed: what the estimates were worth is measured at the end, and is better
/// for a node that knows how the work is spread over the heights.
#[test]
fn the_estimate_is_measured_and_better_where_it_is_known_how_blocks_grow() {
    const STEPS: u32 = 10;
    let mut world = World::new(0);
    let (mut bytes, mut counts) = (0, Vec::new());
    for step in 1..=STEPS {
        world.forge.pad(step as usize * 1_000);
        world.grow(40);
        let grown = world.blocks.iter().skip(world.blocks.len() - 40);
        bytes += grown.map(|block| block.total_size() as u64).sum::<u64>();
        counts.push((world.tip().height, bytes / 250));
    }
    let sync = |tx_counts: &'static [(u32, u64)]| {
        let mut params = (*world.params).clone();
        params.tx_counts = tx_counts;
        let link = slow_link(world.peer.address(), 160_000);
        let node = Builder::with_params(params).connect(link).threads(2).seed([9; 32]).encrypt(false);
        Running::start(node.build().unwrap())
    };
    let (knows, guesses) = (sync(counts.leak()), sync(&[]));
    let quality = |node: Running| {
        node.wait_for(world.tip());
        let quality = wait_for(|| node.handle.status().estimate_quality);
        node.stop();
        quality
    };
    let (knows, guesses) = (quality(knows), quality(guesses));
    println!("known:   {knows:?}\nguessed: {guesses:?}");
    assert!(knows.count >= 10 && guesses.count >= 10, "{knows:?}, {guesses:?}");
    assert!(knows.mean_error < guesses.mean_error, "{knows:?}, {guesses:?}");
}
