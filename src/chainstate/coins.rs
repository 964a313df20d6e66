//! The coins: a write-back cache over the store, and the overlays of blocks whose scripts are not proved.
//!
//! A coin is looked up in the overlays from the newest to the oldest, then in the cache, then in the
//! store; what the store answers is kept in the cache.
//!
//! An entry of the cache is *dirty* if it differs from the store, and *fresh* if the store is known to
//! lack its outpoint, so that spending it leaves nothing to write. Which creations are fresh follows Core's
//! `CCoinsViewCache::AddCoin` (`coins.cpp`): a coinbase may overwrite an older one (before BIP30), so it is
//! never fresh; nothing else can, and is fresh unless the cache itself holds a spending of the same outpoint
//! that the store does not know of.
//!
//! Memory is counted: the tables' allocations and the scripts. The table is cut into shards of a fixed size,
//! as many as two thirds of the budget hold, so that growing moves little at a time and never beyond the
//! budget: [`Coins::is_full`] says when a flush is due.

use crate::limits::COIN_OVERHEAD;
use crate::store::coin::Coin;
use crate::store::schema;
use crate::store::{Change, Store, StoreError, Table};
use bitcoin::{Amount, OutPoint, ScriptBuf, TxOut};
use core::hash::BuildHasher;
use hashbrown::{HashMap, HashTable};
use std::collections::VecDeque;
use std::sync::Arc;

/// Buckets of a full-grown shard: 600 kB, moved in about a millisecond when it grows.
const SHARD_BUCKETS: usize = 8_192;
/// Entries of a shard at which the cache is full: what the table holds without growing, less room for what
/// one block adds.
const SHARD_ENTRIES: usize = SHARD_BUCKETS / 8 * 7 - 368;
/// The fewest shards, for small budgets.
const LEAST_SHARDS: usize = 16;
/// Bytes of a bucket: an entry and its control byte.
const BUCKET_BYTES: usize = size_of::<Entry>() + 1;
/// The cache differs from the store.
const DIRTY: u8 = 1;
/// The store is known to lack the outpoint.
const FRESH: u8 = 2;
/// Spent: the store holds it, and has to forget it.
const SPENT: u8 = 4;

/// A coin in the table: 64 bytes and its script.
#[derive(Debug)]
struct Entry {
    outpoint: OutPoint,
    /// Height, and whether a coinbase created it, in the lowest bit.
    code: u32,
    value: u64,
    script: Box<[u8]>,
    flags: u8,
}

impl Entry {
    fn new(outpoint: OutPoint, coin: Coin, flags: u8) -> Self {
        Self {
            outpoint,
            code: coin.height << 1 | u32::from(coin.coinbase),
            value: coin.output.value.to_sat(),
            script: coin.output.script_pubkey.into_bytes().into_boxed_slice(),
            flags,
        }
    }

    fn spent(outpoint: OutPoint) -> Self {
        Self { outpoint, code: 0, value: 0, script: Box::default(), flags: DIRTY | SPENT }
    }

    fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn coin(&self) -> Option<Coin> {
        (!self.is(SPENT)).then(|| Coin {
            height: self.code >> 1,
            coinbase: self.code & 1 == 1,
            output: TxOut {
                value: Amount::from_sat(self.value),
                script_pubkey: ScriptBuf::from_bytes(self.script.to_vec()),
            },
        })
    }

    fn heap(&self) -> usize {
        if self.script.is_empty() { 0 } else { self.script.len() + COIN_OVERHEAD }
    }
}

/// What the cache knows of an outpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Unspent.
    Coin(Coin),
    /// Known to be spent or never created.
    Absent,
    /// The store has to be asked.
    Unknown,
}

/// What one block does to the coins, while its scripts are not proved.
#[derive(Debug, Default)]
pub struct Overlay {
    /// New coins, and `None` for coins of earlier blocks that it spends.
    changes: HashMap<OutPoint, Option<Coin>, foldhash::fast::FixedState>,
    bytes: usize,
}

impl Overlay {
    /// What this block says about an outpoint: `None` if nothing.
    pub fn get(&self, outpoint: &OutPoint) -> Option<Option<&Coin>> {
        self.changes.get(outpoint).map(Option::as_ref)
    }

    /// Adds a coin that the block creates.
    pub fn create(&mut self, outpoint: OutPoint, coin: Coin) {
        self.bytes += coin.output.script_pubkey.len() + size_of::<(OutPoint, Coin)>();
        self.changes.insert(outpoint, Some(coin));
    }

    /// Spends a coin. One that this block created leaves no trace.
    pub fn spend(&mut self, outpoint: OutPoint) {
        if let Some(Some(coin)) = self.changes.remove(&outpoint) {
            self.bytes =
                self.bytes.saturating_sub(coin.output.script_pubkey.len() + size_of::<(OutPoint, Coin)>());
        } else {
            self.bytes += size_of::<(OutPoint, Coin)>();
            self.changes.insert(outpoint, None);
        }
    }

    /// Bytes held, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The coins at the tip: store, cache and overlays.
#[derive(Debug)]
pub struct Coins {
    store: Arc<dyn Store>,
    shards: Vec<HashTable<Entry>>,
    hasher: foldhash::fast::FixedState,
    overlays: VecDeque<Overlay>,
    table_bytes: usize,
    script_bytes: usize,
    overlay_bytes: usize,
    dirty: usize,
    entries: usize,
    /// Entries of the largest shard since the last flush.
    largest: usize,
    budget: usize,
}

impl Coins {
    /// An empty cache over `store` that is full at about `budget` bytes. `key` keys the table and should be
    /// secret, so that nobody can choose outpoints that meet in it; the same key gives the same table, so that
    /// a simulation repeats.
    pub fn new(store: Arc<dyn Store>, budget: usize, key: u64) -> Self {
        let shards = (budget / 3 * 2 / (SHARD_BUCKETS * BUCKET_BYTES)).max(LEAST_SHARDS);
        Self {
            store,
            shards: (0..shards).map(|_| HashTable::new()).collect(),
            hasher: foldhash::fast::FixedState::with_seed(key),
            overlays: VecDeque::new(),
            table_bytes: 0,
            script_bytes: 0,
            overlay_bytes: 0,
            dirty: 0,
            entries: 0,
            largest: 0,
            budget,
        }
    }

    /// An overlay with room for `changes`, whose table has the cache's key.
    pub fn new_overlay(&self, changes: usize) -> Overlay {
        Overlay { changes: HashMap::with_capacity_and_hasher(changes, self.hasher.clone()), bytes: 0 }
    }

    /// Whether the cache has reached its budget, the overlays counted, so that it has to be flushed.
    pub fn is_full(&self) -> bool {
        self.bytes().saturating_add(self.overlay_bytes) > self.budget || self.largest >= SHARD_ENTRIES
    }

    /// Bytes of memory that the cache uses, the overlays' not counted.
    pub fn bytes(&self) -> usize {
        self.table_bytes + self.script_bytes
    }

    /// Bytes of memory that the overlays use, about.
    pub fn overlay_bytes(&self) -> usize {
        self.overlay_bytes
    }

    /// Blocks above the cache.
    pub fn overlays(&self) -> usize {
        self.overlays.len()
    }

    /// Entries that differ from the store.
    pub fn dirty(&self) -> usize {
        self.dirty
    }

    /// Entries of the cache.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// What overlays and cache know, the store not asked.
    pub fn peek(&self, outpoint: &OutPoint) -> Lookup {
        for overlay in self.overlays.iter().rev() {
            match overlay.get(outpoint) {
                Some(Some(coin)) => return Lookup::Coin(coin.clone()),
                Some(None) => return Lookup::Absent,
                None => {}
            }
        }
        self.peek_proved(outpoint)
    }

    /// What the cache knows below all overlays.
    pub fn peek_proved(&self, outpoint: &OutPoint) -> Lookup {
        match self.find(outpoint) {
            Some(entry) => entry.coin().map_or(Lookup::Absent, Lookup::Coin),
            None => Lookup::Unknown,
        }
    }

    /// The coin below all overlays, the store asked if need be; nothing is kept.
    ///
    /// # Errors
    /// The store's, and an undecodable coin.
    pub fn get_proved(&self, outpoint: &OutPoint) -> Result<Option<Coin>, StoreError> {
        match self.peek_proved(outpoint) {
            Lookup::Coin(coin) => Ok(Some(coin)),
            Lookup::Absent => Ok(None),
            Lookup::Unknown => {
                let key = schema::coin_key(outpoint);
                let value = self.store.get(Table::Coins, &key)?;
                value.map(|value| schema::decode_coin(&key, &value)).transpose()
            }
        }
    }

    /// Brings the coins of these outpoints from the store into the cache, with one look-up for all that
    /// are known neither to the overlays nor to the cache. What the store lacks stays unknown.
    ///
    /// # Errors
    /// The store's, and an undecodable coin.
    pub fn fetch(&mut self, outpoints: impl Iterator<Item = OutPoint>) -> Result<(), StoreError> {
        let missing: Vec<OutPoint> =
            outpoints.filter(|outpoint| self.peek_kind(outpoint) == Kind::Unknown).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let keys: Vec<_> = missing.iter().map(schema::coin_key).collect();
        let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_slice()).collect();
        let values = self.store.get_many(Table::Coins, &keys)?;
        for ((outpoint, value), key) in missing.into_iter().zip(values).zip(keys) {
            if let Some(value) = value
                && self.find(&outpoint).is_none()
            {
                let entry = Entry::new(outpoint, schema::decode_coin(key, &value)?, 0);
                self.insert(entry);
            }
        }
        Ok(())
    }

    /// Whether the outpoint is unspent at the tip, as far as overlays and cache know after
    /// [`Self::fetch`].
    pub fn has(&self, outpoint: &OutPoint) -> bool {
        self.peek_kind(outpoint) == Kind::Coin
    }

    /// Puts a connected block on top.
    pub fn push(&mut self, overlay: Overlay) {
        self.overlay_bytes += overlay.bytes;
        self.overlays.push_back(overlay);
    }

    /// Merges the oldest overlay: its scripts are proved.
    pub fn merge_oldest(&mut self) {
        let Some(overlay) = self.overlays.pop_front() else { return };
        self.overlay_bytes = self.overlay_bytes.saturating_sub(overlay.bytes);
        for (outpoint, change) in overlay.changes {
            match change {
                Some(coin) => {
                    let overwrites = coin.coinbase;
                    self.add(outpoint, coin, overwrites);
                }
                None => self.spend(outpoint),
            }
        }
    }

    /// Drops all overlays from the `keep`-th on: a script of that block failed.
    pub fn drop_from(&mut self, keep: usize) {
        self.overlays.truncate(keep);
        self.overlay_bytes = self.overlays.iter().map(Overlay::bytes).sum();
    }

    /// Adds a coin to the cache. `overwrites`: the store may hold an unspent coin of this outpoint.
    pub fn add(&mut self, outpoint: OutPoint, coin: Coin, overwrites: bool) {
        let old = self.find(&outpoint).map(|entry| entry.flags);
        let fresh = match old {
            // The store's coin, if any, is unknown or hidden by an entry that it does not know of.
            _ if overwrites => old.is_some_and(|flags| flags & FRESH != 0),
            None => true,
            Some(flags) => flags & FRESH != 0,
        };
        let flags = if fresh { DIRTY | FRESH } else { DIRTY };
        self.insert(Entry::new(outpoint, coin, flags));
    }

    /// Removes a coin, whether it is known or not.
    pub fn spend(&mut self, outpoint: OutPoint) {
        if self.find(&outpoint).is_some_and(|entry| entry.is(FRESH)) {
            self.remove(&outpoint);
        } else {
            self.insert(Entry::spent(outpoint));
        }
    }

    /// What the store has to be told, in the order of the outpoints, so that neighbours are written
    /// together.
    pub fn dirty_changes(&self) -> impl Iterator<Item = Change> + '_ {
        let mut dirty: Vec<&Entry> =
            self.shards.iter().flat_map(|shard| shard.iter()).filter(|entry| entry.is(DIRTY)).collect();
        dirty.sort_unstable_by_key(|entry| entry.outpoint);
        dirty.into_iter().map(|entry| {
            let key = schema::coin_key(&entry.outpoint).to_vec();
            match entry.coin() {
                Some(coin) => Change::Put(Table::Coins, key, coin.encode()),
                None => Change::Delete(Table::Coins, key),
            }
        })
    }

    /// After all changes are durable: entries are clean, spent ones are forgotten. With `empty` the
    /// unspent ones are forgotten too.
    pub fn written(&mut self, empty: bool) {
        if empty && self.table_bytes > self.budget / 4 * 3 {
            // With a small budget the tables alone would fill it.
            self.shards.iter_mut().for_each(|shard| *shard = HashTable::new());
            self.table_bytes = 0;
        }
        for shard in &mut self.shards {
            if empty {
                shard.clear();
            } else {
                shard.retain(|entry| {
                    entry.flags &= !(DIRTY | FRESH);
                    !entry.is(SPENT)
                });
            }
        }
        self.dirty = 0;
        self.entries = self.shards.iter().map(HashTable::len).sum();
        self.largest = self.shards.iter().map(HashTable::len).max().unwrap_or(0);
        self.script_bytes = self.shards.iter().flat_map(|shard| shard.iter()).map(Entry::heap).sum();
    }

    /// The kind of what is known, without copying the coin.
    fn peek_kind(&self, outpoint: &OutPoint) -> Kind {
        for overlay in self.overlays.iter().rev() {
            match overlay.get(outpoint) {
                Some(Some(_)) => return Kind::Coin,
                Some(None) => return Kind::Absent,
                None => {}
            }
        }
        match self.find(outpoint) {
            Some(entry) if entry.is(SPENT) => Kind::Absent,
            Some(_) => Kind::Coin,
            None => Kind::Unknown,
        }
    }

    fn slot(&self, outpoint: &OutPoint) -> (u64, usize) {
        let hash = self.hasher.hash_one(outpoint);
        // The table uses the lowest bits and the highest seven; these are between.
        let between = u64::from((hash >> 20) as u32);
        (hash, ((between * self.shards.len() as u64) >> 32) as usize)
    }

    fn find(&self, outpoint: &OutPoint) -> Option<&Entry> {
        let (hash, shard) = self.slot(outpoint);
        self.shards[shard].find(hash, |entry| entry.outpoint == *outpoint)
    }

    fn insert(&mut self, entry: Entry) {
        let (hash, shard) = self.slot(&entry.outpoint);
        let hasher = &self.hasher;
        let table = &mut self.shards[shard];
        self.script_bytes += entry.heap();
        self.dirty += usize::from(entry.is(DIRTY));
        let before = table.allocation_size();
        match table.entry(hash, |old| old.outpoint == entry.outpoint, |old| hasher.hash_one(old.outpoint)) {
            hashbrown::hash_table::Entry::Occupied(mut slot) => {
                let old = core::mem::replace(slot.get_mut(), entry);
                self.script_bytes -= old.heap();
                self.dirty -= usize::from(old.is(DIRTY));
            }
            hashbrown::hash_table::Entry::Vacant(slot) => {
                slot.insert(entry);
                self.entries += 1;
            }
        }
        self.largest = self.largest.max(table.len());
        self.table_bytes = (self.table_bytes + table.allocation_size()).saturating_sub(before);
    }

    fn remove(&mut self, outpoint: &OutPoint) {
        let (hash, shard) = self.slot(outpoint);
        if let Ok(slot) = self.shards[shard].find_entry(hash, |entry| entry.outpoint == *outpoint) {
            let (old, _) = slot.remove();
            self.script_bytes -= old.heap();
            self.dirty -= usize::from(old.is(DIRTY));
            self.entries -= 1;
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Coin,
    Absent,
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::store::{Batch, Durability};
    use bitcoin::hashes::Hash;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn outpoint(n: u8) -> OutPoint {
        OutPoint::new(bitcoin::Txid::from_byte_array([n; 32]), u32::from(n))
    }

    fn coin(height: u32, coinbase: bool) -> Coin {
        Coin {
            height,
            coinbase,
            output: TxOut {
                value: Amount::from_sat(u64::from(height) * 7),
                script_pubkey: ScriptBuf::from_bytes(vec![0x51; height as usize % 40]),
            },
        }
    }

    fn flush(coins: &mut Coins, store: &dyn Store, empty: bool) {
        let mut batch = Batch::new();
        for change in coins.dirty_changes() {
            match change {
                Change::Put(table, key, value) => batch.put(table, key, value),
                Change::Delete(table, key) => batch.delete(table, key),
            }
        }
        store.commit(batch, Durability::Durable).unwrap();
        coins.written(empty);
    }

    #[test]
    fn created_and_spent_in_the_cache_leaves_nothing_to_write() {
        let mut coins = Coins::new(Arc::new(MemoryStore::new()), 1 << 20, 1);
        coins.add(outpoint(1), coin(5, false), false);
        coins.spend(outpoint(1));
        assert_eq!(coins.dirty_changes().count(), 0);
        assert_eq!(coins.entries(), 0);
    }

    #[test]
    fn a_coinbase_may_overwrite_and_is_deleted_when_spent() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let mut coins = Coins::new(store.clone(), 1 << 20, 1);
        coins.add(outpoint(1), coin(5, true), true);
        flush(&mut coins, &*store, true);
        // The same outpoint again, the store's coin unseen: spending it must reach the store.
        coins.add(outpoint(1), coin(9, true), true);
        coins.spend(outpoint(1));
        flush(&mut coins, &*store, true);
        assert_eq!(coins.get_proved(&outpoint(1)).unwrap(), None);
    }

    #[test]
    fn a_coin_that_comes_back_before_its_spending_is_written_is_not_fresh() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let mut coins = Coins::new(store.clone(), 1 << 20, 1);
        coins.add(outpoint(1), coin(5, false), false);
        flush(&mut coins, &*store, false);
        coins.spend(outpoint(1));
        coins.add(outpoint(1), coin(5, false), false);
        coins.spend(outpoint(1));
        flush(&mut coins, &*store, true);
        assert_eq!(coins.get_proved(&outpoint(1)).unwrap(), None);
    }

    #[test]
    fn a_flush_makes_room_with_any_budget() {
        for (budget, most) in [(1, 1), (100_000, 5_000), (30 << 20, 300_000)] {
            let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
            let mut coins = Coins::new(store.clone(), budget, 1);
            let mut filled = Vec::new();
            let mut id = 0u32;
            for _ in 0..3 {
                let before = coins.entries();
                while !coins.is_full() {
                    id += 1;
                    let txid = bitcoin::Txid::hash(&id.to_le_bytes());
                    coins.add(OutPoint::new(txid, 0), coin(25, false), false);
                }
                // A little more is allowed: a table doubles.
                assert!(budget < 10_000 || coins.bytes() <= budget + budget / 2, "{}", coins.bytes());
                filled.push(coins.entries() - before);
                flush(&mut coins, &*store, true);
                assert_eq!(coins.entries(), 0);
            }
            assert!(filled.iter().all(|entries| (1..=most).contains(entries)), "{filled:?}");
            assert!(filled[2] * 2 >= filled[0], "{filled:?}");
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Fetch(u8),
        Create(u8, bool),
        Spend(u8),
        Push,
        Merge,
        Drop(u8),
        Flush(bool),
    }

    fn op() -> impl Strategy<Value = Op> {
        let id = 0u8..12;
        prop_oneof![
            id.clone().prop_map(Op::Fetch),
            (id.clone(), any::<bool>()).prop_map(|(id, base)| Op::Create(id, base)),
            id.prop_map(Op::Spend),
            Just(Op::Push),
            Just(Op::Merge),
            (0u8..4).prop_map(Op::Drop),
            any::<bool>().prop_map(Op::Flush),
        ]
    }

    proptest! {
        #[test]
        fn the_cache_equals_a_plain_map(ops in prop::collection::vec(op(), 1..200)) {
            let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
            let mut coins = Coins::new(store.clone(), 1 << 20, 1);
            // One map a level: proved, each pushed overlay, and the block being built on top.
            let mut levels: Vec<BTreeMap<OutPoint, Coin>> = vec![BTreeMap::new()];
            let mut work = BTreeMap::new();
            let mut overlay = Overlay::default();
            let mut height = 0;
            for op in ops {
                match op {
                    Op::Fetch(id) => coins.fetch([outpoint(id)].into_iter()).unwrap(),
                    Op::Create(id, coinbase) => {
                        height += 1;
                        // Only a coinbase may overwrite; and not one of its own block.
                        let exists = work.contains_key(&outpoint(id));
                        if exists && (!coinbase || overlay.get(&outpoint(id)).is_some()) { continue; }
                        work.insert(outpoint(id), coin(height, coinbase));
                        // A spending of this block before it is replaced by the creation, so that the
                        // coin must not be fresh: the cache sees only the last change.
                        if overlay.get(&outpoint(id)).is_some() { work.remove(&outpoint(id)); continue; }
                        overlay.create(outpoint(id), coin(height, coinbase));
                    }
                    Op::Spend(id) => {
                        // A coinbase cannot be spent in its own block.
                        if matches!(overlay.get(&outpoint(id)), Some(Some(coin)) if coin.coinbase) { continue; }
                        if work.remove(&outpoint(id)).is_some() {
                            overlay.spend(outpoint(id));
                        }
                    }
                    Op::Push => {
                        coins.push(core::mem::take(&mut overlay));
                        levels.push(work.clone());
                    }
                    Op::Merge => {
                        coins.merge_oldest();
                        if levels.len() > 1 { levels.remove(0); }
                    }
                    Op::Drop(keep) => {
                        coins.drop_from(usize::from(keep));
                        levels.truncate(usize::from(keep) + 1);
                        work = levels.last().unwrap().clone();
                        overlay = Overlay::default();
                    }
                    Op::Flush(empty) => flush(&mut coins, &*store, empty),
                }
                let top = levels.last().unwrap();
                for id in 0..12 {
                    let proved = coins.get_proved(&outpoint(id)).unwrap();
                    prop_assert_eq!(proved.as_ref(), levels[0].get(&outpoint(id)));
                    let seen = match coins.peek(&outpoint(id)) {
                        Lookup::Coin(coin) => Some(coin),
                        Lookup::Absent => None,
                        Lookup::Unknown => proved,
                    };
                    prop_assert_eq!(seen.as_ref(), top.get(&outpoint(id)));
                }
                let dirty = coins.dirty_changes().count();
                prop_assert_eq!(dirty, coins.dirty());
                prop_assert_eq!(coins.entries(), coins.shards.iter().map(HashTable::len).sum::<usize>());
                let allocated: usize = coins.shards.iter().map(HashTable::allocation_size).sum();
                prop_assert_eq!(coins.table_bytes, allocated);
            }
            flush(&mut coins, &*store, true);
            for id in 0..12 {
                let proved = coins.get_proved(&outpoint(id)).unwrap();
                prop_assert_eq!(proved.as_ref(), levels[0].get(&outpoint(id)));
            }
        }
    }
}
