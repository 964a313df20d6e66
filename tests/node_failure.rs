//! What goes wrong becomes an error of `run()`, and nothing that was durable is lost.
#![cfg(all(feature = "native", feature = "consensus", feature = "sled"))]

mod world;

use core::ops::Bound;
use core::task::{Context, Waker};
use core::time::Duration;
use futures::FutureExt;
use headlong::store::{Batch, Durability, Entry, Store, StoreError, StoreErrorKind, Table};
use headlong::verify::{TxScripts, Verdict, VerifierError};
use headlong::{Error, MemoryStore, RequestError, RunError, Verifier};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use world::{Running, World};

#[derive(Debug)]
struct Panics;

impl Verifier for Panics {
    fn verify(&self, _batch: &[TxScripts<'_>]) -> Result<Verdict, VerifierError> {
        panic!("the verifier fell over")
    }
}

#[test]
fn a_worker_that_panics_ends_the_run_with_its_message() {
    let world = World::new(120);
    let node = Running::start(world.builder().verifier(Panics).build().unwrap());
    let handle = node.handle.clone();
    match node.outcome() {
        Err(RunError::Failed { error: Error::WorkerPanic(message), tip }) => {
            assert!(message.contains("the verifier fell over"), "{message}");
            assert!(tip.height < 120);
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(handle.wait_synced_blocking(), Err(RequestError::Stopped)));
    assert!(handle.wait_stopped_blocking().unwrap().height < 120);
}

#[derive(Debug)]
struct Undecided;

impl Verifier for Undecided {
    fn verify(&self, _batch: &[TxScripts<'_>]) -> Result<Verdict, VerifierError> {
        Err(VerifierError { reason: "no verdict".to_owned() })
    }
}

#[test]
fn a_verifier_without_a_verdict_condemns_no_block() {
    let world = World::new(120);
    let node = Running::start(world.builder().verifier(Undecided).build().unwrap());
    match node.outcome() {
        Err(RunError::Failed { error: Error::Verifier(error), .. }) => assert_eq!(error.reason, "no verdict"),
        other => panic!("{other:?}"),
    }
}

/// A store whose disk fills up after so many commits.
#[derive(Debug)]
struct Filling {
    inner: MemoryStore,
    left: AtomicUsize,
}

impl Store for Filling {
    fn get_many(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.inner.get_many(table, keys)
    }

    fn range(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.inner.range(table, from, to, limit)
    }

    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match left {
            Ok(_) => self.inner.commit(batch, durability),
            Err(_) => Err(StoreError::new(StoreErrorKind::Full, "commit")),
        }
    }

    fn is_durable(&self) -> bool {
        false
    }
}

#[test]
fn a_store_that_fails_ends_the_run_with_its_error() {
    let mut world = World::new(5);
    for commits in [0, 1, 2] {
        let store = Arc::new(Filling { inner: MemoryStore::new(), left: AtomicUsize::new(1_000) });
        let built = world.builder().shared_store(store.clone()).build().unwrap();
        store.left.store(commits, Ordering::SeqCst);
        let node = Running::start(built);
        // A sync this short is one commit, and so is each new block after it.
        let mut durable = 0;
        for _ in 0..commits {
            node.wait_for(world.tip());
            durable = world.tip().height;
            world.grow(1);
        }
        match node.outcome() {
            Err(RunError::Failed { error: Error::Store(error), tip }) => {
                assert_eq!(error.kind, StoreErrorKind::Full, "{error}");
                assert_eq!(tip.height, durable);
            }
            other => panic!("after {commits} commits: {other:?}"),
        }
    }
}

/// Whatever a dropped run had begun, the next one opens the directory and comes to the same tip.
#[test]
fn run_may_be_dropped_at_any_await() {
    let world = World::new(120);
    let folder = tempfile::tempdir().unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    for polls in [0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144] {
        let (node, handle) = world.builder().datadir(folder.path()).build().expect("the directory is free");
        let mut run = Box::pin(node.run());
        for _ in 0..polls {
            assert!(run.poll_unpin(&mut cx).is_pending());
            std::thread::sleep(Duration::from_micros(500));
        }
        drop(run);
        let durable = handle.wait_stopped_blocking().unwrap();
        assert!(durable.height <= 120);
        assert!(matches!(handle.peers_blocking(), Err(RequestError::Stopped)));
    }
    let node = Running::start(world.builder().datadir(folder.path()).build().unwrap());
    node.wait_for(world.tip());
    let stats = node.handle.utxo_stats_blocking().unwrap();
    assert_eq!(stats.value.txouts as usize, world.branch.coins.len() + world.branch.maturing.len());
    node.stop();
}

#[test]
fn a_shutdown_in_the_middle_of_a_sync_waits_for_the_last_commit() {
    let world = World::new(200);
    let folder = tempfile::tempdir().unwrap();
    let mut last = 0;
    for goal in [1, 50, 120] {
        let node = Running::start(world.builder().datadir(folder.path()).build().unwrap());
        assert!(node.handle.status().durable.height >= last);
        node.handle.wait_for_height_blocking(goal).unwrap();
        let durable = node.stop();
        assert!(durable.height >= goal, "what was connected is durable: {durable:?}");
        last = durable.height;
    }
}
