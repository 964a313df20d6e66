//! Checks of one store on several threads.

use super::basics::all;
use super::{Clause, Fault, ensure};
use crate::store::{Batch, Durability, Store, Table};
use std::sync::atomic::{AtomicBool, Ordering};

/// Keys that each commit moves together, apart from each other so that they lie on different pages.
const KEYS: [&[u8]; 4] = [b"a", b"m", b"n", b"z"];
const COMMITS: u32 = 300;
const READERS: usize = 3;
const WRITERS: u8 = 3;

/// Says `stop` when it is dropped, by a panic or an error too, so that no reader waits for ever.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(super) fn readers(store: &dyn Store) -> Result<(), Fault> {
    for (key, table) in KEYS.iter().flat_map(|key| [(key, Table::Coins), (key, Table::Meta)]) {
        super::basics::put(store, table, key, &0u32.to_be_bytes())?;
    }
    // So much that a reader which is not isolated is interrupted in the middle.
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(|| read_until(store, &stop))).collect();
        let written = (|| {
            let _stop = Stop(&stop);
            for n in 1..=COMMITS {
                let mut batch = Batch::new();
                for key in KEYS {
                    batch.put(Table::Coins, key, n.to_be_bytes());
                    batch.put(Table::Meta, key, n.to_be_bytes());
                }
                store.commit(batch, Durability::Buffered)?;
            }
            Ok(())
        })();
        for reader in readers {
            joined(reader)?;
        }
        written
    })
}

fn joined(thread: std::thread::ScopedJoinHandle<'_, Result<(), Fault>>) -> Result<(), Fault> {
    thread.join().unwrap_or_else(|_| Err(Fault::new(Clause::Concurrent, "a thread panicked")))
}

/// Reads both tables until told to stop: whole commits, and none older than one seen before.
fn read_until(store: &dyn Store, stop: &AtomicBool) -> Result<(), Fault> {
    let mut seen = 0;
    while !stop.load(Ordering::Relaxed) {
        for table in [Table::Coins, Table::Meta, Table::Coins] {
            let values = store.get_many(table, &KEYS)?;
            let same = values.windows(2).all(|pair| pair[0] == pair[1]);
            ensure!(same, Atomic, "get_many beside a commit: {values:?}");
            let entries = all(store, table)?;
            let same = entries.windows(2).all(|pair| pair[0].1 == pair[1].1);
            ensure!(same && entries.len() == KEYS.len(), Atomic, "range beside a commit: {entries:?}");
            for value in
                values.into_iter().flatten().take(1).chain(entries.into_iter().map(|(_, v)| v).take(1))
            {
                let now = value.try_into().map(u32::from_be_bytes).unwrap_or(0);
                ensure!(now >= seen, Ordered, "commit {now} was read after commit {seen}");
                seen = now;
            }
        }
    }
    Ok(())
}

pub(super) fn writers(store: &dyn Store) -> Result<(), Fault> {
    std::thread::scope(|scope| {
        let write = |writer: u8| {
            move || {
                for n in 0..60u32 {
                    let mut batch = Batch::new();
                    batch.put(Table::Coins, [&[writer][..], &n.to_be_bytes()].concat(), [writer; 50]);
                    batch.put(Table::Blocks, [writer], n.to_be_bytes());
                    if n > 0 && n % 3 == 0 {
                        batch.delete(Table::Coins, [&[writer][..], &(n - 1).to_be_bytes()].concat());
                    }
                    let durable = n % 20 == 7;
                    store.commit(batch, if durable { Durability::Durable } else { Durability::Buffered })?;
                    let own = store.get(Table::Blocks, &[writer])?;
                    ensure!(
                        own == Some(n.to_be_bytes().to_vec()),
                        Concurrent,
                        "{n} reads as {own:?} beside others"
                    );
                }
                Ok(())
            }
        };
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(write(writer))).collect();
        writers.into_iter().try_for_each(joined)
    })?;
    let left = usize::from(WRITERS) * (60 - 19);
    let found = all(store, Table::Coins)?.len();
    ensure!(found == left, Concurrent, "{WRITERS} writers leave {found} entries, not {left}");
    Ok(())
}
