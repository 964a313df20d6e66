//! The coins: a write-back cache over the store, which blocks change as they connect, and how each change is taken
//! back while a block's scripts are not proved.
//!
//! A coin is looked up in the cache, then in the store; what the store answers is kept in the cache.
//!
//! An entry of the cache is *dirty* if it differs from the store, and *fresh* if the store is known to
//! lack its outpoint, so that spending it leaves nothing to write. Which creations are fresh follows Core's
//! `CCoinsViewCache::AddCoin` (`coins.cpp`): a coinbase may overwrite an older one (before BIP30), so it is
//! never fresh; nothing else can, and is fresh unless the cache itself holds a spending of the same outpoint
//! that the store does not know of.
//!
//! A block changes the cache at once and in place: one look-up for each coin that it spends or creates. What it
//! found is kept, as [`Applied`], until its scripts are proved; blocks that are not are taken back in the reverse
//! order if a script fails. What is *proved* are the coins below all such blocks. What is to be written is fixed
//! while there are none, and can be written while blocks go on to change the cache.
//!
//! Memory is counted to the byte ([`super::coin_table`]). A full cache forgets clean coins, some at a time; only if
//! there are too few of them does a block have to wait for a flush.

use super::coin_table::{AWAITED, Cached, CoinList, CoinTable, DIRTY, FRESH, Key, KeyChanges, SPENT};
use super::undo::UndoWriter;
use crate::error::Error;
use crate::store::coin::{Coin, Packed, pack};
use crate::store::schema;
use crate::store::{Change, Store, StoreError, Table};
use bitcoin::{OutPoint, TxOut};
use core::ops::{Bound, Range};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Of the clean coins in a shard, those that are kept when it is gone over to make room.
const KEPT_PERCENT: usize = 50;
/// The coins of one of so many shards are looked at to tell which are old.
const SAMPLED: usize = 128;
/// What a coin from the store takes in the cache, about.
const FETCHED_BYTES: usize = 100;
/// Look-ups of one call to the store, whose answers are held twice for a moment.
const LOOKED_UP_AT_ONCE: usize = 4_096;
const DAMAGED: Error = Error::Bug("a coin in the cache cannot be read");

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

/// What one block did to the coins, so that it can be taken back.
#[derive(Debug)]
pub struct Applied {
    /// Its height.
    height: u32,
    /// In the order they were made.
    changes: Vec<Changed>,
    /// The coins it spent.
    undo: UndoWriter,
}

#[derive(Debug)]
struct Changed {
    outpoint: OutPoint,
    before: Before,
}

/// The entry that a change found.
#[derive(Debug)]
enum Before {
    Nothing,
    /// A coin, which was spent: its flags, and where it lies in the undo data.
    Coin(u8, Range<u32>),
    /// Something that was overwritten: its flags and bytes.
    Other(Box<(u8, Vec<u8>)>),
}

impl Applied {
    /// For a block of this height that spends `inputs` coins and has `outputs`.
    pub fn new(height: u32, inputs: usize, outputs: usize) -> Self {
        Self { height, changes: Vec::with_capacity(inputs + outputs), undo: UndoWriter::new(inputs) }
    }

    /// Bytes held, about.
    pub fn bytes(&self) -> usize {
        self.changes.capacity() * size_of::<Changed>() + self.undo.bytes().len()
    }

    /// The flags and the coin's bytes before a change; `None` if there was no entry.
    fn before<'a>(&'a self, changed: &'a Changed) -> Option<(u8, &'a [u8])> {
        match &changed.before {
            Before::Nothing => None,
            Before::Coin(flags, at) => {
                Some((*flags, self.undo.bytes().get(at.start as usize..at.end as usize).unwrap_or(&[])))
            }
            Before::Other(other) => Some((other.0, &other.1)),
        }
    }
}

/// The coins at the tip: store, cache, and what blocks that are not proved found there.
#[derive(Debug)]
pub struct Coins {
    store: Arc<dyn Store>,
    table: CoinTable,
    unproved: VecDeque<Applied>,
    /// The cache holds all that the store does.
    complete: bool,
    budget: usize,
    /// The same without what is lent.
    own_budget: usize,
    /// A coin as bytes, on its way.
    packed: Vec<u8>,
    /// What [`Self::fetch`] waited for the store; see [`Self::take_reading`].
    reading: Duration,
}

impl Coins {
    /// An empty cache over `store` that is full at about `budget` bytes. `key` keys the table and should be
    /// secret, so that nobody can choose outpoints that meet in it; the same key gives the same table, so that
    /// a simulation repeats.
    ///
    /// # Errors
    /// The store's.
    pub fn new(store: Arc<dyn Store>, budget: usize, key: u64) -> Result<Self, StoreError> {
        let complete = store.range(Table::Coins, Bound::Unbounded, Bound::Unbounded, 1)?.is_empty();
        Ok(Self {
            store,
            table: CoinTable::new(budget, key),
            unproved: VecDeque::new(),
            complete,
            budget,
            own_budget: budget,
            packed: Vec::new(),
            reading: Duration::ZERO,
        })
    }

    /// Gives it so many bytes beyond its own budget, in place of what it was lent before.
    pub fn lend(&mut self, bytes: usize) {
        self.budget = self.own_budget.saturating_add(bytes);
    }

    /// Whether the cache has reached its budget.
    pub fn is_full(&self) -> bool {
        self.bytes() > self.budget || self.table.is_crowded()
    }

    /// Whether so many coins from the store would take much of the cache.
    pub fn is_much(&self, coins: usize) -> bool {
        coins.saturating_mul(FETCHED_BYTES) > self.budget / 4
    }

    /// Bytes of memory that the cache uses; what is kept to take unproved blocks back is not counted.
    pub fn bytes(&self) -> usize {
        self.table.bytes()
    }

    /// Blocks that are not proved.
    pub fn unproved(&self) -> usize {
        self.unproved.len()
    }

    /// Entries that differ from the store.
    pub fn dirty(&self) -> usize {
        self.table.dirty()
    }

    /// Entries of the cache.
    pub fn entries(&self) -> usize {
        self.table.entries()
    }

    /// What the cache knows at the tip, the store not asked.
    ///
    /// # Errors
    /// [`Error::Bug`] if memory is damaged.
    pub fn peek(&self, outpoint: &OutPoint) -> Result<Lookup, Error> {
        match self.table.get(outpoint) {
            None if self.complete => Ok(Lookup::Absent),
            None => Ok(Lookup::Unknown),
            Some(entry) if entry.is(SPENT) => Ok(Lookup::Absent),
            Some(entry) => Coin::decode(entry.coin).map(Lookup::Coin).ok_or(DAMAGED),
        }
    }

    /// Whether the outpoint is unspent at the tip, as far as the cache knows after [`Self::fetch`].
    pub fn has(&self, outpoint: &OutPoint) -> bool {
        self.table.flags(outpoint).is_some_and(|flags| flags & SPENT == 0)
    }

    /// The coin below all unproved blocks, the store asked if need be; nothing is kept.
    ///
    /// # Errors
    /// The store's, and an undecodable coin.
    pub fn get_proved(&self, outpoint: &OutPoint) -> Result<Option<Coin>, Error> {
        let now = self.table.get(outpoint).map(|entry| (entry.flags, entry.coin));
        let decode = |coin: &[u8]| Coin::decode(coin).ok_or(DAMAGED);
        if let Some(oldest) = self.unproved.front() {
            // A coin from below these blocks was not touched by them.
            if let Some((flags, coin)) = now
                && flags & SPENT == 0
                && Packed::read(coin).is_some_and(|coin| coin.height < oldest.height)
            {
                return decode(coin).map(Some);
            }
        }
        let first = self.unproved.iter().find_map(|applied| {
            let changed = applied.changes.iter().find(|changed| changed.outpoint == *outpoint)?;
            Some(applied.before(changed))
        });
        match first.unwrap_or(now) {
            Some((flags, _)) if flags & SPENT != 0 => Ok(None),
            Some((_, coin)) => decode(coin).map(Some),
            None if self.complete => Ok(None),
            None => {
                let key = schema::coin_key(outpoint);
                let value = self.store.get(Table::Coins, &key)?;
                Ok(value.map(|value| schema::decode_coin(&key, &value)).transpose()?)
            }
        }
    }

    /// Whether the cache holds all coins that the store does, so that [`Self::fetch`] has nothing to do.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Brings the coins of these outpoints from the store into the cache, with one look-up, in the order of the
    /// keys, for all that the cache does not know. What the store lacks stays unknown.
    ///
    /// # Errors
    /// The store's, and an undecodable coin.
    pub fn fetch(&mut self, outpoints: impl Iterator<Item = OutPoint>) -> Result<(), StoreError> {
        let unknown = self.unknown(outpoints);
        if unknown.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        let found = look_up(&*self.store, &unknown)?;
        self.reading += begun.elapsed();
        self.learn(&found);
        Ok(())
    }

    /// How long [`Self::fetch`] waited for the store since the last call.
    pub fn take_reading(&mut self) -> Duration {
        core::mem::take(&mut self.reading)
    }

    /// Those of these outpoints that only the store can tell of, in the order of their keys.
    pub fn unknown(&self, outpoints: impl Iterator<Item = OutPoint>) -> Vec<OutPoint> {
        if self.complete {
            return Vec::new();
        }
        let mut unknown: Vec<OutPoint> =
            outpoints.filter(|outpoint| self.table.flags(outpoint).is_none()).collect();
        unknown.sort_unstable();
        unknown
    }

    /// Keeps what [`look_up`] found until it is spent, or released, unless the cache knows better by now. There was no
    /// [`Self::freeze`] since the look-up began.
    pub fn learn(&mut self, found: &Found) {
        for (outpoint, coin) in found.iter() {
            if let Some(coin) = coin
                && self.table.flags(outpoint).is_none()
            {
                self.table.put(outpoint, coin, |_| AWAITED);
            }
        }
    }

    /// No block waits for what [`Self::learn`] keeps any more; others are yet to be looked for.
    pub fn release(&mut self) {
        self.table.release();
    }

    /// A block spends a coin: answers it, or `None` if there is none. The store is asked if the cache does not know,
    /// or has forgotten.
    ///
    /// # Errors
    /// The store's; [`Error::Bug`] if memory is damaged.
    pub fn spend(&mut self, outpoint: OutPoint, applied: &mut Applied) -> Result<Option<Coin>, Error> {
        if !self.complete && self.table.flags(&outpoint).is_none() {
            self.fetch(core::iter::once(outpoint))?;
        }
        let undo = &mut applied.undo;
        let spent = self.table.spend(&outpoint, |entry| {
            let at = undo.push(entry.coin);
            (Before::Coin(entry.flags, at.start as u32..at.end as u32), Coin::decode(entry.coin))
        });
        let Some((before, coin)) = spent else { return Ok(None) };
        applied.changes.push(Changed { outpoint, before });
        coin.map(Some).ok_or(DAMAGED)
    }

    /// A block creates a coin.
    pub fn create(
        &mut self,
        outpoint: OutPoint,
        height: u32,
        coinbase: bool,
        output: &TxOut,
        applied: &mut Applied,
    ) {
        let mut before = Before::Nothing;
        self.packed.clear();
        pack(height, coinbase, output, &mut self.packed);
        self.put_packed(outpoint, coinbase, |entry| {
            before = Before::Other(Box::new((entry.flags, entry.coin.to_vec())));
        });
        applied.changes.push(Changed { outpoint, before });
    }

    /// Takes a block back that was not pushed.
    pub fn take_back(&mut self, applied: &Applied) {
        for changed in applied.changes.iter().rev() {
            match applied.before(changed) {
                None => drop(self.table.remove(&changed.outpoint)),
                Some((flags, coin)) => self.table.put(&changed.outpoint, coin, |_| flags),
            }
        }
    }

    /// Keeps what a block did until its scripts are proved.
    pub fn push(&mut self, applied: Applied) {
        self.unproved.push_back(applied);
    }

    /// The undo data of the oldest unproved block.
    pub fn oldest_undo(&self) -> Option<&[u8]> {
        self.unproved.front().map(|oldest| oldest.undo.bytes())
    }

    /// The scripts of the oldest unproved block are proved: what it did stays.
    pub fn prove_oldest(&mut self) {
        self.unproved.pop_front();
    }

    /// Takes all unproved blocks back: a script of the oldest failed.
    pub fn drop_unproved(&mut self) {
        while let Some(applied) = self.unproved.pop_back() {
            self.take_back(&applied);
        }
    }

    /// Adds a coin. `overwrites`: the store may hold an unspent coin of this outpoint.
    pub fn add(&mut self, outpoint: OutPoint, coin: &Coin, overwrites: bool) {
        self.packed.clear();
        coin.encode_into(&mut self.packed);
        self.put_packed(outpoint, overwrites, |_| ());
    }

    /// Removes a coin, whether it is known or not.
    pub fn remove(&mut self, outpoint: OutPoint) {
        if self.table.spend(&outpoint, |_| ()).is_none() {
            self.table.put(&outpoint, &[], |_| DIRTY | SPENT);
        }
    }

    /// Puts what is packed into the cache; `old` is given the entry that was there.
    fn put_packed(&mut self, outpoint: OutPoint, overwrites: bool, old: impl FnMut(Cached<'_>)) {
        self.table.put(&outpoint, &self.packed, |there| {
            let fresh_there = there.map(|entry| entry.is(FRESH));
            // What overwrites: the store's coin, if any, is unknown or hidden by an entry that it does not know of.
            let fresh = fresh_there.unwrap_or(!overwrites);
            there.into_iter().for_each(old);
            if fresh { DIRTY | FRESH } else { DIRTY }
        });
    }

    /// Fixes what is to be written: the coins as they are now. No block is unproved, and what was fixed before is
    /// stored.
    pub fn freeze(&mut self) {
        self.table.freeze();
    }

    /// The next part of what is to be written, of at least so many changes unless it is the last, and what has to be
    /// remembered for [`Self::stored`]; `None` behind it. All are in the order of the outpoints, so that neighbours are
    /// written together.
    pub fn collect(&mut self, least: usize) -> Option<(KeyChanges, Written)> {
        let (changes, shards) = self.table.collect(least)?;
        let spent = changes.iter().filter(|(_, coin)| coin.is_none()).map(|(key, _)| *key).collect();
        Some((changes, Written { spent, shards }))
    }

    /// A part, and all before it, are stored.
    pub fn stored(&mut self, part: &Written) {
        self.table.stored(&part.spent, part.shards);
    }

    /// Whether much of a cache that is almost full differs from the store, so that it is time to write.
    pub fn wants_flush(&self) -> bool {
        self.bytes() > self.budget / 8 * 7 && self.dirty() > self.entries() / 2
    }

    /// Makes room in a full cache without writing anything, if it can, by forgetting clean coins, the older before
    /// the newer: a coin is the less likely to be spent the longer it was not.
    pub fn make_room(&mut self) -> bool {
        // Some more, so that it is not for the next block alone.
        let most = self.budget - self.budget / 64;
        // It is not worth a look at every coin if there are too few to forget.
        let wanted = self.bytes().saturating_sub(most);
        if self.table.forgettable() <= wanted && !self.table.is_crowded() {
            return !self.is_full();
        }
        self.complete = false;
        let oldest = self.oldest_to_keep();
        let keep = |coin: &[u8]| {
            let height = Packed::read(coin).map(|coin| coin.height);
            oldest.is_some_and(|oldest| height.is_some_and(|height| height >= oldest))
        };
        self.table.forget(most, keep) || self.table.forget(most, |_| false) || !self.is_full()
    }

    /// The height from which on coins are kept when the cache is full; `None` if none are.
    fn oldest_to_keep(&self) -> Option<u32> {
        if self.table.is_crowded() {
            return None;
        }
        let coins = self.table.sample(SAMPLED).filter_map(Packed::read);
        let mut heights: Vec<u32> = coins.map(|coin| coin.height).collect();
        heights.sort_unstable();
        heights.get(heights.len() * (100 - KEPT_PERCENT) / 100).copied()
    }
}

/// Coins that the store had, packed.
pub type Found = CoinList<OutPoint>;

/// Asks the store for the coins of these outpoints.
///
/// # Errors
/// The store's, and an undecodable coin.
pub fn look_up(store: &dyn Store, outpoints: &[OutPoint]) -> Result<Found, StoreError> {
    let mut found = Found::default();
    for outpoints in outpoints.chunks(LOOKED_UP_AT_ONCE) {
        let keys: Vec<_> = outpoints.iter().map(schema::coin_key).collect();
        let slices: Vec<&[u8]> = keys.iter().map(|key| key.as_slice()).collect();
        let values = store.get_many(Table::Coins, &slices)?;
        for ((outpoint, value), key) in outpoints.iter().zip(values).zip(slices) {
            if let Some(value) = value {
                Packed::read(&value).ok_or_else(|| schema::corrupt(Table::Coins, key, "not a coin"))?;
                found.push(*outpoint, Some(&value));
            }
        }
    }
    Ok(found)
}

/// What has to be remembered of a part until it is stored.
#[derive(Debug)]
pub struct Written {
    spent: Vec<Key>,
    shards: usize,
}

/// Changes of coins for the store.
pub fn store_changes(changes: &KeyChanges) -> impl Iterator<Item = Change> {
    changes.iter().map(|(key, coin)| match coin {
        Some(coin) => Change::Put(Table::Coins, key.to_vec(), coin.to_vec()),
        None => Change::Delete(Table::Coins, key.to_vec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::store::{Batch, Durability};
    use bitcoin::hashes::Hash;
    use bitcoin::{Amount, ScriptBuf};
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

    /// Writes what was fixed, up to `parts` of it; answers whether that was all.
    fn write(coins: &mut Coins, store: &dyn Store, parts: usize) -> bool {
        for _ in 0..parts {
            let Some((changes, written)) = coins.collect(2) else { return true };
            let mut batch = Batch::new();
            store_changes(&changes).for_each(|change| batch.push(change));
            store.commit(batch, Durability::Durable).unwrap();
            coins.stored(&written);
        }
        false
    }

    fn flush(coins: &mut Coins, store: &dyn Store) {
        coins.freeze();
        assert!(write(coins, store, usize::MAX));
    }

    #[test]
    fn created_and_spent_in_the_cache_leaves_nothing_to_write() {
        let mut coins = Coins::new(Arc::new(MemoryStore::new()), 1 << 20, 1).unwrap();
        coins.add(outpoint(1), &coin(5, false), false);
        coins.remove(outpoint(1));
        assert_eq!(coins.dirty(), 0);
        assert_eq!(coins.entries(), 0);
    }

    #[test]
    fn a_coinbase_may_overwrite_and_is_deleted_when_spent() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let mut coins = Coins::new(store.clone(), 1 << 20, 1).unwrap();
        coins.add(outpoint(1), &coin(5, true), true);
        flush(&mut coins, &*store);
        // The same outpoint again, the store's coin unseen: spending it must reach the store.
        coins.add(outpoint(1), &coin(9, true), true);
        coins.remove(outpoint(1));
        flush(&mut coins, &*store);
        assert_eq!(coins.get_proved(&outpoint(1)).unwrap(), None);
    }

    #[test]
    fn a_coin_that_comes_back_before_its_spending_is_written_is_not_fresh() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let mut coins = Coins::new(store.clone(), 1 << 20, 1).unwrap();
        coins.add(outpoint(1), &coin(5, false), false);
        flush(&mut coins, &*store);
        coins.remove(outpoint(1));
        coins.add(outpoint(1), &coin(5, false), false);
        coins.remove(outpoint(1));
        flush(&mut coins, &*store);
        assert_eq!(coins.get_proved(&outpoint(1)).unwrap(), None);
    }

    #[test]
    fn a_full_cache_makes_room_once_it_is_flushed() {
        for (budget, most) in [(1, 2), (200_000, 5_000), (30 << 20, 500_000)] {
            let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
            let mut coins = Coins::new(store.clone(), budget, 1).unwrap();
            let mut filled = Vec::new();
            let mut id = 0u32;
            for _ in 0..4 {
                let before = coins.entries();
                assert!(!coins.is_full() || coins.make_room() || budget == 1);
                while !coins.is_full() || coins.entries() == before {
                    id += 1;
                    let txid = bitcoin::Txid::hash(&id.to_le_bytes());
                    coins.add(OutPoint::new(txid, 0), &coin(id / 1_000, false), false);
                    // All is dirty, or there are old ones to forget.
                    if coins.is_full() && coins.make_room() && coins.wants_flush() {
                        break;
                    }
                }
                assert!(budget == 1 || coins.bytes() <= budget + budget / 20, "{}", coins.bytes());
                filled.push(coins.dirty());
                flush(&mut coins, &*store);
            }
            assert!(filled.iter().all(|dirty| (1..=most).contains(dirty)), "{filled:?}");
            assert!(filled[3] * 4 >= filled[0], "{filled:?}");
        }
    }

    #[test]
    fn a_coin_takes_less_than_a_hundred_bytes() {
        let mut table = CoinTable::new(64 << 20, 1);
        let p2wpkh = ScriptBuf::from_bytes([&[0, 20][..], &[7; 20]].concat());
        let output = TxOut { value: Amount::from_sat(12_345_678), script_pubkey: p2wpkh };
        let packed = Coin { height: 900_000, coinbase: false, output }.encode();
        let (mut least, mut most) = (usize::MAX, 0);
        for id in 0..600_000u32 {
            let txid = bitcoin::Txid::hash(&id.to_le_bytes());
            table.put(&OutPoint::new(txid, 1), &packed, |_| DIRTY);
            if id > 300_000 {
                let each = table.bytes() / table.entries();
                (least, most) = (least.min(each), most.max(each));
            }
        }
        assert!((80..100).contains(&least) && (80..110).contains(&most), "{least} to {most} bytes a coin");
    }

    fn stored(store: &dyn Store, id: u8) -> Option<Coin> {
        let value = store.get(Table::Coins, &schema::coin_key(&outpoint(id))).unwrap();
        value.map(|value| Coin::decode(&value).unwrap())
    }

    #[derive(Clone, Debug)]
    enum Op {
        Fetch(u8),
        Create(u8, bool),
        Spend(u8),
        Push,
        Prove,
        Drop,
        TakeBack,
        Freeze,
        Write,
        Forget,
    }

    fn op() -> impl Strategy<Value = Op> {
        let id = 0u8..12;
        prop_oneof![
            2 => id.clone().prop_map(Op::Fetch),
            4 => (id.clone(), prop::bool::weighted(0.3)).prop_map(|(id, base)| Op::Create(id, base)),
            4 => id.prop_map(Op::Spend),
            2 => Just(Op::Push),
            2 => Just(Op::Prove),
            1 => Just(Op::Drop),
            1 => Just(Op::TakeBack),
            1 => Just(Op::Freeze),
            2 => Just(Op::Write),
            1 => Just(Op::Forget),
        ]
    }

    proptest! {
        #[test]
        fn the_cache_equals_a_plain_map(ops in prop::collection::vec(op(), 1..200), budget in 0usize..2) {
            let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
            // A cache that forgets all it can, and one that forgets nothing.
            let mut coins = Coins::new(store.clone(), budget << 20, 1).unwrap();
            // One map a level: proved, each pushed block, and the block being applied on top.
            let mut levels: Vec<BTreeMap<OutPoint, Coin>> = vec![BTreeMap::new()];
            let mut work = BTreeMap::new();
            let mut height = 1;
            let new = |height| Applied::new(height, 0, 0);
            let mut applied = new(height);
            let mut frozen = None;
            for op in ops {
                match op {
                    Op::Fetch(id) => coins.fetch([outpoint(id)].into_iter()).unwrap(),
                    Op::Create(id, coinbase) => {
                        // Only a coinbase may overwrite.
                        if work.contains_key(&outpoint(id)) && !coinbase { continue; }
                        work.insert(outpoint(id), coin(height, coinbase));
                        let output = coin(height, coinbase).output;
                        coins.create(outpoint(id), height, coinbase, &output, &mut applied);
                    }
                    Op::Spend(id) => {
                        let spent = coins.spend(outpoint(id), &mut applied).unwrap();
                        prop_assert_eq!(spent, work.remove(&outpoint(id)));
                    }
                    Op::Push => {
                        height += 1;
                        coins.push(core::mem::replace(&mut applied, new(height)));
                        levels.push(work.clone());
                    }
                    Op::Prove => {
                        prop_assert_eq!(coins.oldest_undo().is_some(), levels.len() > 1);
                        coins.prove_oldest();
                        if levels.len() > 1 { levels.remove(0); }
                    }
                    Op::Drop => {
                        coins.take_back(&core::mem::replace(&mut applied, new(height)));
                        coins.drop_unproved();
                        levels.truncate(1);
                        work = levels[0].clone();
                    }
                    Op::TakeBack => {
                        coins.take_back(&core::mem::replace(&mut applied, new(height)));
                        work = levels.last().unwrap().clone();
                    }
                    Op::Write => {
                        if frozen.is_some() && write(&mut coins, &*store, 1) {
                            // The store has what was fixed, whatever happened to the cache meanwhile.
                            let fixed: BTreeMap<OutPoint, Coin> = frozen.take().unwrap();
                            for id in 0..12 {
                                let stored = stored(&*store, id);
                                prop_assert_eq!(stored.as_ref(), fixed.get(&outpoint(id)));
                            }
                        }
                    }
                    Op::Forget => drop(coins.make_room()),
                    Op::Freeze => {
                        if frozen.is_some() { continue; }
                        // Nothing is written above the proved tip.
                        coins.take_back(&core::mem::replace(&mut applied, new(height)));
                        coins.drop_unproved();
                        levels.truncate(1);
                        work = levels[0].clone();
                        coins.freeze();
                        frozen = Some(work.clone());
                    }
                }
                let pushed = levels.len() > 1 || !applied.changes.is_empty();
                for id in 0..12 {
                    let top = work.get(&outpoint(id));
                    let seen = match coins.peek(&outpoint(id)).unwrap() {
                        Lookup::Coin(coin) => Some(coin),
                        Lookup::Absent => None,
                        Lookup::Unknown => stored(&*store, id),
                    };
                    prop_assert_eq!(seen.as_ref(), top);
                    if !pushed || applied.changes.is_empty() {
                        let proved = coins.get_proved(&outpoint(id)).unwrap();
                        prop_assert_eq!(proved.as_ref(), levels[0].get(&outpoint(id)));
                    }
                }
            }
            coins.take_back(&applied);
            coins.drop_unproved();
            if frozen.is_some() { write(&mut coins, &*store, usize::MAX); }
            flush(&mut coins, &*store);
            for id in 0..12 {
                let proved = coins.get_proved(&outpoint(id)).unwrap();
                prop_assert_eq!(proved.as_ref(), levels[0].get(&outpoint(id)));
            }
        }
    }
}
