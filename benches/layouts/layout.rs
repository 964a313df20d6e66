//! The layouts: how each reads and writes.

use fjall::config::{CompressionPolicy, RestartIntervalPolicy};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use headlong::store::fjall::FjallStore;
use headlong::store::sled::SledStore;
use headlong::store::{Batch, Durability, Store, Table, page};
use sled::transaction::{ConflictableTransactionError, Transactional};
use std::path::Path;

/// Of a coin: txid and output index.
pub type Key = [u8; 36];
/// What becomes of a key: `None` removes it.
pub type Change = (Key, Option<Vec<u8>>);

/// A way to keep coins.
pub trait Layout {
    /// Values of keys, which are in order.
    fn get_many(&self, keys: &[&[u8]]) -> Vec<Option<Vec<u8>>>;
    /// Changes in the order of their keys, atomically.
    fn commit(&self, changes: &[Change], durable: bool);
    /// Changes of a commit.
    fn commit_size(&self) -> usize;
}

type Open = fn(&Path, u64) -> Box<dyn Layout>;

/// Each with its name.
pub const LAYOUTS: [(&str, Open); 4] = [
    ("sled-keys", |folder, cache| Box::new(SledKeys::open(folder, cache))),
    ("sled-pages", |folder, cache| Box::new(OfStore(SledStore::open(folder, cache).expect("a store")))),
    ("fjall-keys", |folder, cache| Box::new(OfStore(FjallStore::open(folder, cache).expect("a store")))),
    ("fjall-pages", |folder, cache| Box::new(FjallPages::open(folder, cache))),
];

/// A store of the crate.
struct OfStore<S>(S);

impl<S: Store> Layout for OfStore<S> {
    fn get_many(&self, keys: &[&[u8]]) -> Vec<Option<Vec<u8>>> {
        self.0.get_many(Table::Coins, keys).expect("it reads")
    }

    fn commit(&self, changes: &[Change], durable: bool) {
        let mut batch = Batch::new();
        for (key, value) in changes {
            match value {
                Some(value) => batch.put(Table::Coins, *key, value.clone()),
                None => batch.delete(Table::Coins, *key),
            }
        }
        let durability = if durable { Durability::Durable } else { Durability::Buffered };
        self.0.commit(batch, durability).expect("it writes");
    }

    fn commit_size(&self) -> usize {
        self.0.batch_limit()
    }
}

struct SledKeys(sled::Db, sled::Tree);

impl SledKeys {
    fn open(folder: &Path, cache: u64) -> Self {
        let config = sled::Config::new().path(folder).cache_capacity(cache).flush_every_ms(None);
        let db = config.open().expect("sled opens");
        let tree = db.open_tree("coins").expect("a tree");
        Self(db, tree)
    }
}

impl Layout for SledKeys {
    fn get_many(&self, keys: &[&[u8]]) -> Vec<Option<Vec<u8>>> {
        let get = |key: &&[u8]| self.1.get(key).expect("it reads").map(|value| value.to_vec());
        keys.iter().map(get).collect()
    }

    fn commit(&self, changes: &[Change], durable: bool) {
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(&key[..], &value[..]),
                None => batch.remove(&key[..]),
            }
        }
        // A bare batch in a loop takes ever more memory.
        let done = [&self.1][..].transaction(|trees| {
            trees[0].apply_batch(&batch)?;
            Ok::<(), ConflictableTransactionError<()>>(())
        });
        done.expect("it writes");
        if durable {
            self.0.flush().expect("it flushes");
        }
    }

    fn commit_size(&self) -> usize {
        1_000
    }
}

/// Pages under the keys that none of their entries is below, as [`SledStore`] has them.
struct FjallPages(Database, Keyspace);

impl FjallPages {
    fn open(folder: &Path, cache: u64) -> Self {
        let database = Database::builder(folder).cache_size(cache).worker_threads(1);
        let database = database.open().expect("fjall opens");
        let options = || {
            KeyspaceCreateOptions::default()
                .expect_point_read_hits(true)
                .data_block_compression_policy(CompressionPolicy::disabled())
                .data_block_restart_interval_policy(RestartIntervalPolicy::all(1))
                .max_memtable_size((cache * 2).clamp(8 << 20, 64 << 20))
        };
        let pages = database.keyspace("coins", options).expect("a keyspace");
        Self(database, pages)
    }

    /// The page that a key belongs to; else the empty one.
    fn page_of(&self, key: &[u8]) -> (Vec<u8>, Vec<u8>) {
        // No key may be empty: bounds stand behind a byte.
        let to = [&[1][..], key].concat();
        let found = self.1.range(..=to).next_back().map(|entry| entry.into_inner().expect("it reads"));
        found.map_or_else(Default::default, |(bound, page)| (bound[1..].to_vec(), page.to_vec()))
    }

    /// The bound after this one.
    fn bound_after(&self, bound: &[u8]) -> Option<Vec<u8>> {
        let from = [&[1][..], bound, &[0]].concat();
        let found = self.1.range(from..).next().map(|entry| entry.key().expect("it reads"));
        found.map(|bound| bound[1..].to_vec())
    }
}

impl Layout for FjallPages {
    fn get_many(&self, keys: &[&[u8]]) -> Vec<Option<Vec<u8>>> {
        let get = |key: &&[u8]| page::find(&self.page_of(key).1, key).expect("a page").map(<[u8]>::to_vec);
        keys.iter().map(get).collect()
    }

    fn commit(&self, changes: &[Change], durable: bool) {
        let mut batch = self.0.batch();
        let mut changes = changes.iter().map(|(key, value)| (&key[..], value.as_deref())).peekable();
        while let Some(&(key, _)) = changes.peek() {
            let (bound, page) = self.page_of(key);
            let next = self.bound_after(&bound);
            let here = core::iter::from_fn(|| {
                changes.next_if(|(key, _)| next.as_ref().is_none_or(|next| *key < &next[..]))
            });
            let tagged = |bound: &[u8]| [&[1][..], bound].concat();
            let pages = page::merge(&page, here).expect("a page");
            if pages.is_empty() {
                batch.remove(&self.1, tagged(&bound));
            }
            for (n, (first, page)) in pages.into_iter().enumerate() {
                batch.insert(&self.1, tagged(if n == 0 { &bound } else { &first }), page);
            }
        }
        batch.commit().expect("it writes");
        if durable {
            self.0.persist(PersistMode::SyncAll).expect("it syncs");
        }
    }

    fn commit_size(&self) -> usize {
        50_000
    }
}
