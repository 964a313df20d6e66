//! What every [`Store`] must do, as tests that take any backend.
//!
//! A factory makes a new empty store; what it returns opens that one store, as often as asked, after the
//! value from the time before was dropped.

use super::{Batch, Change, Durability, Entry, Store, StoreErrorKind, Table};
use crate::limits::{MAX_STORE_KEY, MAX_STORE_VALUE};
use core::ops::Bound;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

/// Opens one store again and again.
pub type Open = Box<dyn Fn() -> Box<dyn Store>>;

type Model = BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>;

/// Runs all tests against new stores of the factory.
pub fn store_suite(factory: &mut dyn FnMut() -> Open) {
    an_empty_store_has_nothing(&*factory()());
    the_last_change_of_a_key_counts(&*factory()());
    tables_are_apart(&*factory()());
    bounds_of_ranges(&*factory()());
    sizes(&*factory()());
    durable_commits_survive(&factory());
    commits_are_atomic_for_readers(&*factory()());
    behaves_like_maps(factory);
}

fn put(store: &dyn Store, table: Table, key: &[u8], value: &[u8]) {
    let mut batch = Batch::new();
    batch.put(table, key, value);
    store.commit(batch, Durability::Buffered).unwrap();
}

fn all(store: &dyn Store, table: Table) -> Vec<Entry> {
    store.range(table, Bound::Unbounded, Bound::Unbounded, usize::MAX).unwrap()
}

fn an_empty_store_has_nothing(store: &dyn Store) {
    for table in Table::ALL {
        assert_eq!(store.get(table, b"").unwrap(), None);
        assert_eq!(store.get_many(table, &[]).unwrap(), Vec::<Option<Vec<u8>>>::new());
        assert_eq!(all(store, table), []);
    }
    store.commit(Batch::new(), Durability::Buffered).unwrap();
    store.commit(Batch::new(), Durability::Durable).unwrap();
    assert!(store.batch_limit() > 0);
}

fn the_last_change_of_a_key_counts(store: &dyn Store) {
    let mut batch = Batch::new();
    batch.put(Table::Coins, *b"a", *b"1");
    batch.delete(Table::Coins, *b"a");
    batch.put(Table::Coins, *b"b", *b"1");
    batch.put(Table::Coins, *b"b", *b"2");
    batch.delete(Table::Coins, *b"c");
    batch.put(Table::Coins, *b"c", *b"3");
    batch.delete(Table::Coins, *b"absent");
    store.commit(batch, Durability::Buffered).unwrap();
    let found = store.get_many(Table::Coins, &[b"c", b"a", b"b", b"c"]).unwrap();
    assert_eq!(found, [Some(b"3".to_vec()), None, Some(b"2".to_vec()), Some(b"3".to_vec())]);
}

fn tables_are_apart(store: &dyn Store) {
    for table in Table::ALL {
        put(store, table, b"key", table.name().as_bytes());
    }
    let mut batch = Batch::new();
    batch.delete(Table::Coins, *b"key");
    store.commit(batch, Durability::Buffered).unwrap();
    for table in Table::ALL {
        let expected = (table != Table::Coins).then(|| table.name().as_bytes().to_vec());
        assert_eq!(store.get(table, b"key").unwrap(), expected);
    }
}

fn bounds_of_ranges(store: &dyn Store) {
    use Bound::{Excluded, Included, Unbounded};
    for key in [&b""[..], b"a", b"ab", b"b", b"\xff", b"\xff\xff"] {
        put(store, Table::Blocks, key, key);
    }
    let keys = |from, to, limit| -> Vec<Vec<u8>> {
        let entries = store.range(Table::Blocks, from, to, limit).unwrap();
        entries.into_iter().map(|(key, value)| (key == value).then_some(key).unwrap()).collect()
    };
    assert_eq!(keys(Unbounded, Unbounded, 3), [&b""[..], b"a", b"ab"]);
    assert_eq!(keys(Included(b"a"), Excluded(b"b"), 9), [&b"a"[..], b"ab"]);
    assert_eq!(keys(Excluded(b"a"), Included(b"b"), 9), [&b"ab"[..], b"b"]);
    assert_eq!(keys(Excluded(b"b"), Unbounded, 9), [&b"\xff"[..], b"\xff\xff"]);
    assert_eq!(keys(Included(b"aa"), Included(b"aaa"), 9), Vec::<Vec<u8>>::new());
    assert_eq!(keys(Included(b"b"), Included(b"b"), 9), [b"b"]);
    assert_eq!(keys(Unbounded, Unbounded, 0), Vec::<Vec<u8>>::new());
    let none = Vec::<Vec<u8>>::new();
    assert_eq!(keys(Included(b"b"), Included(b"a"), 9), none);
    assert_eq!(keys(Excluded(b"b"), Excluded(b"b"), 9), none);
    assert_eq!(keys(Included(b"b"), Excluded(b"b"), 9), none);
    assert_eq!(keys(Excluded(b"b"), Included(b"a"), 9), none);
}

fn sizes(store: &dyn Store) {
    let key = vec![0xff; MAX_STORE_KEY];
    let value = vec![7; MAX_STORE_VALUE];
    put(store, Table::Meta, &key, &value);
    assert_eq!(store.get(Table::Meta, &key).unwrap(), Some(value));
    let mut delete = Batch::new();
    delete.delete(Table::Meta, key);
    store.commit(delete, Durability::Buffered).unwrap();
    for (key, value) in [(MAX_STORE_KEY + 1, 0), (1, MAX_STORE_VALUE + 1)] {
        let mut batch = Batch::new();
        batch.put(Table::Meta, *b"first", *b"1");
        batch.put(Table::Meta, vec![1; key], vec![1; value]);
        let error = store.commit(batch, Durability::Durable).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Unsupported);
    }
    assert_eq!(store.get(Table::Meta, b"first").unwrap(), None);
}

fn durable_commits_survive(open: &Open) {
    for round in 0u32..4 {
        let store = open();
        assert_eq!(all(&*store, Table::Coins).len(), round as usize * 50);
        for n in 0..50 {
            let key = [round.to_be_bytes(), u32::to_be_bytes(n)].concat();
            put(&*store, Table::Coins, &key, &[n as u8; 100]);
        }
        let mut batch = Batch::new();
        batch.put(Table::Meta, *b"round", round.to_be_bytes());
        store.commit(batch, Durability::Durable).unwrap();
    }
    assert_eq!(open().get(Table::Meta, b"round").unwrap(), Some(3u32.to_be_bytes().to_vec()));
}

fn commits_are_atomic_for_readers(store: &dyn Store) {
    const KEYS: [&[u8]; 4] = [b"a", b"m", b"n", b"z"];
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut last = 0;
            while !stop.load(Ordering::Relaxed) {
                let values = store.get_many(Table::Coins, &KEYS).unwrap();
                assert!(values.windows(2).all(|w| w[0] == w[1]), "{values:?}");
                let entries = all(store, Table::Coins);
                assert!(entries.windows(2).all(|w| w[0].1 == w[1].1), "{entries:?}");
                assert!(entries.is_empty() || entries.len() == KEYS.len());
                let number = |v: &Vec<u8>| u32::from_be_bytes(v[..4].try_into().unwrap());
                let now = values[0].as_ref().map_or(0, number);
                assert!(now >= last);
                last = now;
            }
            last
        });
        for n in 1u32..=300 {
            let mut batch = Batch::new();
            for key in KEYS {
                batch.put(Table::Coins, key, n.to_be_bytes());
            }
            store.commit(batch, Durability::Buffered).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
    assert_eq!(store.get(Table::Coins, b"z").unwrap(), Some(300u32.to_be_bytes().to_vec()));
}

#[derive(Clone, Debug)]
enum Action {
    Commit(Vec<(Table, Vec<u8>, Option<Vec<u8>>)>, bool),
    Range(Table, Bound<Vec<u8>>, Bound<Vec<u8>>, usize),
    Reopen,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let key = || {
        prop_oneof![proptest::collection::vec(0u8..3, 0..4), proptest::collection::vec(any::<u8>(), 0..40),]
    };
    let table = || proptest::sample::select(&Table::ALL[..]);
    let value = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300));
    let bound = || {
        prop_oneof![Just(Bound::Unbounded), key().prop_map(Bound::Included), key().prop_map(Bound::Excluded),]
    };
    let action = prop_oneof![
        6 => (proptest::collection::vec((table(), key(), value), 0..60), any::<bool>())
            .prop_map(|(changes, durable)| Action::Commit(changes, durable)),
        3 => (table(), bound(), bound(), 0..50usize)
            .prop_map(|(table, from, to, limit)| Action::Range(table, from, to, limit)),
        1 => Just(Action::Reopen),
    ];
    proptest::collection::vec(action, 1..30)
}

fn behaves_like_maps(factory: &mut dyn FnMut() -> Open) {
    let factory = std::cell::RefCell::new(factory);
    let config = Config { cases: 24, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&actions(), |actions| {
            let open = (*factory.borrow_mut())();
            let mut store = open();
            let mut model = Model::new();
            for action in actions {
                match action {
                    Action::Commit(changes, durable) => {
                        let batch = apply(&mut model, changes);
                        let durability = if durable { Durability::Durable } else { Durability::Buffered };
                        store.commit(batch, durability).unwrap();
                    }
                    Action::Range(table, from, to, limit) => {
                        let inside = |key: &Vec<u8>| {
                            (match &from {
                                Bound::Included(b) => key >= b,
                                Bound::Excluded(b) => key > b,
                                Bound::Unbounded => true,
                            }) && (match &to {
                                Bound::Included(b) => key <= b,
                                Bound::Excluded(b) => key < b,
                                Bound::Unbounded => true,
                            })
                        };
                        let entries = model.entry(table).or_default().iter();
                        let expected: Vec<Entry> = entries
                            .filter(|(key, _)| inside(key))
                            .take(limit)
                            .map(|(key, value)| (key.clone(), value.clone()))
                            .collect();
                        let (from, to) = (from.as_ref().map(|b| &b[..]), to.as_ref().map(|b| &b[..]));
                        prop_assert_eq!(store.range(table, from, to, limit).unwrap(), expected);
                    }
                    Action::Reopen => {
                        // An orderly end loses nothing, buffered or not.
                        drop(store);
                        store = open();
                    }
                }
            }
            for table in Table::ALL {
                let expected: Vec<Entry> = model.remove(&table).unwrap_or_default().into_iter().collect();
                let keys: Vec<&[u8]> = expected.iter().map(|(key, _)| &key[..]).collect();
                let values = store.get_many(table, &keys).unwrap();
                let wanted: Vec<_> = expected.iter().map(|(_, value)| Some(value.clone())).collect();
                prop_assert_eq!(values, wanted);
                prop_assert_eq!(all(&*store, table), expected);
            }
            Ok(())
        })
        .unwrap();
}

fn apply(model: &mut Model, changes: Vec<(Table, Vec<u8>, Option<Vec<u8>>)>) -> Batch {
    let mut batch = Batch::new();
    for (table, key, value) in changes {
        match value {
            Some(value) => batch.put(table, key, value),
            None => batch.delete(table, key),
        }
    }
    for change in batch.changes() {
        match change.clone() {
            Change::Put(table, key, value) => model.entry(table).or_default().insert(key, value),
            Change::Delete(table, key) => model.entry(table).or_default().remove(&key),
        };
    }
    batch
}
