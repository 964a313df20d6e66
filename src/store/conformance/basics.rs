//! Checks of one store on one thread: reads, changes, sizes, reopening.

use super::{Backend, Clause, Done, Fault, ensure, passed};
use crate::limits::{MAX_STORE_KEY, MAX_STORE_VALUE};
use crate::store::{Batch, Durability, Entry, Store, StoreErrorKind, Table};
use core::ops::Bound;

/// Most changes that [`batch_limit`] puts into a batch, however many the store would take.
const LARGEST_BATCH: usize = 100_000;
/// Keys of one question: more than the inputs of a large block's largest transactions.
const MANY: u32 = 5_000;

/// Commits one entry, buffered.
pub(super) fn put(store: &dyn Store, table: Table, key: &[u8], value: &[u8]) -> Result<(), Fault> {
    let mut batch = Batch::new();
    batch.put(table, key, value);
    Ok(store.commit(batch, Durability::Buffered)?)
}

/// All entries of a table.
pub(super) fn all(store: &dyn Store, table: Table) -> Result<Vec<Entry>, Fault> {
    Ok(store.range(table, Bound::Unbounded, Bound::Unbounded, usize::MAX)?)
}

pub(super) fn empty(store: &dyn Store) -> Result<(), Fault> {
    for table in Table::ALL {
        let name = table.name();
        ensure!(store.get(table, b"")?.is_none(), Reads, "a new store has an empty key in {name}");
        ensure!(store.get_many(table, &[])?.is_empty(), Reads, "values for no keys in {name}");
        ensure!(all(store, table)?.is_empty(), Reads, "a new store has entries in {name}");
    }
    store.commit(Batch::new(), Durability::Buffered)?;
    store.commit(Batch::new(), Durability::Durable)?;
    Ok(())
}

pub(super) fn last_change(store: &dyn Store) -> Result<(), Fault> {
    let mut batch = Batch::new();
    batch.put(Table::Coins, *b"a", *b"1");
    batch.delete(Table::Coins, *b"a");
    batch.put(Table::Coins, *b"b", *b"1");
    batch.put(Table::Coins, *b"b", *b"2");
    batch.delete(Table::Coins, *b"c");
    batch.put(Table::Coins, *b"c", *b"3");
    batch.delete(Table::Coins, *b"absent");
    let expected = [Some(b"3".to_vec()), None, Some(b"2".to_vec()), Some(b"3".to_vec())];
    for time in ["once", "twice"] {
        store.commit(batch.clone(), Durability::Buffered)?;
        let found = store.get_many(Table::Coins, &[b"c", b"a", b"b", b"c"])?;
        ensure!(found == expected, Changes, "c, a, b, c after a batch was applied {time}: {found:?}");
    }
    // An empty value is not an absent key.
    put(store, Table::Coins, b"empty", b"")?;
    let found = store.get(Table::Coins, b"empty")?;
    ensure!(found.as_deref() == Some(&b""[..]), Changes, "an empty value reads as {found:?}");
    Ok(())
}

pub(super) fn tables(store: &dyn Store) -> Result<(), Fault> {
    for table in Table::ALL {
        put(store, table, b"key", table.name().as_bytes())?;
    }
    let mut batch = Batch::new();
    batch.delete(Table::Coins, *b"key");
    store.commit(batch, Durability::Buffered)?;
    for table in Table::ALL {
        let expected = (table != Table::Coins).then(|| table.name().as_bytes().to_vec());
        let found = store.get(table, b"key")?;
        ensure!(found == expected, Changes, "after a change of coins, {} has {found:?}", table.name());
    }
    Ok(())
}

pub(super) fn ranges(store: &dyn Store) -> Result<(), Fault> {
    use Bound::{Excluded, Included, Unbounded};
    let present = [&b""[..], b"a", b"ab", b"b", b"ba", b"\xff", b"\xff\xff"];
    for key in present.iter().rev() {
        put(store, Table::Blocks, key, key)?;
    }
    type Case<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>, usize, &'a [&'a [u8]]);
    let cases: [Case<'_>; 12] = [
        (Unbounded, Unbounded, usize::MAX, &present),
        (Unbounded, Unbounded, 3, &present[..3]),
        (Unbounded, Unbounded, 0, &[]),
        (Included(b"a"), Excluded(b"b"), 9, &[b"a", b"ab"]),
        (Excluded(b"a"), Included(b"b"), 9, &[b"ab", b"b"]),
        (Excluded(b"b"), Unbounded, 9, &[b"ba", b"\xff", b"\xff\xff"]),
        (Included(b"aa"), Included(b"aaa"), 9, &[]),
        (Included(b"b"), Included(b"b"), 9, &[b"b"]),
        // Bounds between which no key can lie.
        (Included(b"b"), Included(b"a"), 9, &[]),
        (Excluded(b"b"), Excluded(b"b"), 9, &[]),
        (Included(b"b"), Excluded(b"b"), 9, &[]),
        (Excluded(b"b"), Included(b"a"), 9, &[]),
    ];
    for (from, to, limit, expected) in cases {
        let found = store.range(Table::Blocks, from, to, limit)?;
        let question = format!("from {from:x?} to {to:x?}, at most {limit}");
        ensure!(found.iter().all(|(key, value)| key == value), Reads, "{question}: {found:x?}");
        let keys: Vec<&[u8]> = found.iter().map(|(key, _)| &key[..]).collect();
        // The right keys in the wrong order break another clause.
        ensure!(keys.len() != expected.len() || keys.is_sorted(), Keys, "{question}: {keys:x?}");
        ensure!(keys == expected, Reads, "{question}: {keys:x?}, not {expected:x?}");
    }
    Ok(())
}

pub(super) fn many_keys(store: &dyn Store) -> Result<(), Fault> {
    let limit = u32::try_from(store.batch_limit()).unwrap_or(u32::MAX).clamp(1, MANY);
    // A multiplication scatters them, so that the order of writing is not that of keys.
    let key = |n: u32| n.wrapping_mul(0x9e37_79b9).to_be_bytes();
    for first in (0..MANY).step_by(limit as usize) {
        let mut batch = Batch::new();
        for n in first..MANY.min(first.saturating_add(limit)) {
            batch.put(Table::Coins, key(n), n.to_le_bytes());
        }
        store.commit(batch, Durability::Buffered)?;
    }
    let keys: Vec<[u8; 4]> = (0..2 * MANY).map(|n| key(n % (MANY + 100))).collect();
    let asked: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
    let found = store.get_many(Table::Coins, &asked)?;
    let expected =
        (0..2 * MANY).map(|n| n % (MANY + 100)).map(|n| (n < MANY).then(|| n.to_le_bytes().to_vec()));
    ensure!(found.iter().cloned().eq(expected), Reads, "wrong values for {} keys at once", asked.len());

    let mut sorted: Vec<[u8; 4]> = (0..MANY).map(key).collect();
    sorted.sort_unstable();
    let mut walked: Vec<Vec<u8>> = Vec::new();
    loop {
        let from = walked.last().map_or(Bound::Unbounded, |key| Bound::Excluded(&key[..]));
        let page = store.range(Table::Coins, from, Bound::Unbounded, 777)?;
        if page.is_empty() {
            break;
        }
        walked.extend(page.into_iter().map(|(key, _)| key));
        ensure!(walked.len() <= sorted.len(), Reads, "paging never ends");
    }
    ensure!(walked.iter().eq(sorted.iter()), Keys, "paging gave {} keys of {MANY}", walked.len());
    Ok(())
}

pub(super) fn sizes(store: &dyn Store) -> Result<(), Fault> {
    let (key, value) = (vec![0xff; MAX_STORE_KEY], vec![7; MAX_STORE_VALUE]);
    let mut batch = Batch::new();
    batch.put(Table::Meta, &key[..], &value[..]);
    store.commit(batch, Durability::Buffered).map_err(|error| {
        Fault::new(Clause::Keys, format!("{MAX_STORE_KEY} and {MAX_STORE_VALUE} bytes: {error}"))
    })?;
    ensure!(store.get(Table::Meta, &key)? == Some(value), Keys, "the largest value reads as another");
    let mut delete = Batch::new();
    delete.delete(Table::Meta, key);
    store.commit(delete, Durability::Buffered)?;
    for (key, value) in [(MAX_STORE_KEY + 1, 0), (1, MAX_STORE_VALUE + 1)] {
        let mut batch = Batch::new();
        batch.put(Table::Coins, *b"before", *b"1");
        batch.put(Table::Meta, vec![1; key], vec![1; value]);
        batch.put(Table::Blocks, *b"behind", *b"1");
        match store.commit(batch, Durability::Durable) {
            Err(error) if error.kind == StoreErrorKind::Unsupported => {}
            other => {
                let detail =
                    format!("a key of {key} and a value of {value} bytes: {other:?}, not Unsupported");
                return Err(Fault::new(Clause::Errors, detail));
            }
        }
        for table in Table::ALL {
            let rest = all(store, table)?.len();
            ensure!(rest == 0, Atomic, "of a refused batch {rest} changes are in {}", table.name());
        }
    }
    Ok(())
}

pub(super) fn batch_limit(store: &dyn Store) -> Result<(), Fault> {
    let limit = store.batch_limit();
    ensure!(limit > 0, BatchLimit, "it is 0");
    let count = limit.min(LARGEST_BATCH);
    let mut batch = Batch::new();
    for n in 0..count {
        batch.put(Table::ALL[n % Table::ALL.len()], (n as u64).to_be_bytes(), [5; 40]);
    }
    let taken = store.commit(batch, Durability::Durable);
    let detail = |error| format!("a batch of {count} changes: {error}");
    taken.map_err(|error| Fault::new(Clause::BatchLimit, detail(error)))?;
    let mut there = 0;
    for table in Table::ALL {
        there += all(store, table)?.len();
    }
    ensure!(there == count, BatchLimit, "of a batch of {count} changes {there} are there");
    ensure!(store.batch_limit() == limit, BatchLimit, "it changed from {limit}");
    Ok(())
}

pub(super) fn reopen<B: Backend>(backend: &B) -> Done {
    let place = backend.new_place();
    for round in 0u32..6 {
        let store = backend.open(&place)?;
        let found = all(&*store, Table::Coins)?.len();
        ensure!(
            found == round as usize * 20,
            Durable,
            "opening {round} finds {found} of {} coins",
            round * 20
        );
        for n in 0..20 {
            put(
                &*store,
                Table::Coins,
                &[round.to_be_bytes(), u32::to_be_bytes(n)].concat(),
                &[n as u8; 100],
            )?;
        }
        // An orderly end loses nothing, whether the last commit was durable or not.
        let durability = if round % 2 == 0 { Durability::Durable } else { Durability::Buffered };
        let mut batch = Batch::new();
        batch.put(Table::Meta, *b"round", round.to_be_bytes());
        store.commit(batch, durability)?;
        drop(store);
        let found = backend.open(&place)?.get(Table::Meta, b"round")?;
        ensure!(
            found == Some(round.to_be_bytes().to_vec()),
            Durable,
            "after a {durability:?} commit {round}: {found:?}"
        );
    }
    // An empty durable commit makes those before it durable: what that means, only a crash could show.
    let store = backend.open(&place)?;
    put(&*store, Table::Meta, b"last", b"1")?;
    store.commit(Batch::new(), Durability::Durable)?;
    drop(store);
    ensure!(backend.open(&place)?.get(Table::Meta, b"last")?.is_some(), Durable, "the last commit is lost");
    passed()
}
