//! Coins in memory, packed: a hash table whose entries are bytes.
//!
//! | bytes of an entry | content |
//! | --- | --- |
//! | 1 | flags |
//! | 2 | bytes of the coin, little-endian; 0 if it is spent |
//! | 36 | the key of the outpoint, as in the store ([`schema::coin_key`]) |
//! | rest | the coin, as in the store ([`Coin::encode`](crate::store::coin::Coin::encode)) |
//!
//! Entries lie one behind the other in chunks; a table of hashes says where. So a coin that pays to the hash of a key
//! takes some 70 bytes and 10 to 20 of the table, nothing is allocated for it, and the memory in use is known to the
//! byte: it is that of the chunks and tables.
//!
//! The table is cut into shards by the first bytes of the txid, so that one shard after the other is in the order of
//! the keys. Whatever touches all entries of a shard (growing, closing gaps, forgetting) touches few. Who mines
//! txids that begin alike makes one shard long and the others short, no more; within a shard the hash is keyed.
//!
//! An entry that is removed or grows leaves a gap; a shard with too many is written anew.
//!
//! What is dirty can be written while the table changes on:
//! 1. [`CoinTable::freeze`] fixes what is to be written: the dirty entries as they are.
//! 2. [`CoinTable::collect`] hands it out, shard by shard, and what it handed out is clean. If an entry is to change
//!    before, what was to be written of it is laid aside first, and the entry counts as clean then.
//! 3. Spent entries stay until [`CoinTable::stored`] says that the store has forgotten them, since it would be asked
//!    else. Until then nothing of their shards may be forgotten.

use crate::store::schema;
use bitcoin::OutPoint;
use core::hash::BuildHasher;
use hashbrown::HashTable;

/// The entry differs from the store.
pub const DIRTY: u8 = 1;
/// The store is known to lack the outpoint.
pub const FRESH: u8 = 2;
/// Spent: the store holds it, and has to forget it, or is about to.
pub const SPENT: u8 = 4;
/// Awaited: a block that is about to connect will spend it, so it is not forgotten.
pub const AWAITED: u8 = 16;
/// Tells, of a dirty entry, whether it was changed before or since the last [`CoinTable::freeze`].
const EPOCH: u8 = 8;

/// Bytes before the key, and up to the coin.
const KEY_AT: usize = 3;
const COIN_AT: usize = KEY_AT + 36;
/// Bytes that a shard is meant to hold. Closing its gaps takes a tenth of a millisecond.
const SHARD_BYTES: usize = 512 << 10;
/// The fewest and the most shards.
const SHARDS: (usize, usize) = (16, 4_096);
/// The smallest and the largest chunk; what a chunk's end leaves unused is lost.
const CHUNKS: (usize, usize) = (1 << 10, 32 << 10);
/// The longest entry, so that places in a chunk fit 16 bits. Scripts of coins are far shorter.
const MAX_ENTRY: usize = 1 << 16;
/// Chunks of a shard at which the table is full, whatever its budget: the half of those that have a number.
const MOST_CHUNKS: usize = 1 << 15;

/// A key as the store has it.
pub type Key = [u8; 36];

/// In [`Place::tag`]: the entry is dirty.
const DIRTY_TAG: u32 = 1 << 31;

/// Where an entry lies.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// 31 bits of its hash, and [`DIRTY_TAG`], so that what is dirty is found without looking at entries.
    tag: u32,
    /// The chunk in the upper half, the offset in the lower.
    at: u32,
}

impl Place {
    /// The table's hash: from the tag, so that growing looks at no entry.
    fn spread(self) -> u64 {
        spread(self.tag & !DIRTY_TAG)
    }

    fn set_dirty(&mut self, flags: u8) {
        self.tag = if flags & DIRTY != 0 { self.tag | DIRTY_TAG } else { self.tag & !DIRTY_TAG };
    }

    fn is_dirty(self) -> bool {
        self.tag & DIRTY_TAG != 0
    }
}

fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Coins by key, or that they are spent; all in one piece of memory, because another thread gives it back.
#[derive(Debug)]
pub struct CoinList<K> {
    /// With the bounds of each coin.
    keys: Vec<(K, Option<(usize, usize)>)>,
    coins: Vec<u8>,
}

impl<K> Default for CoinList<K> {
    fn default() -> Self {
        Self { keys: Vec::new(), coins: Vec::new() }
    }
}

impl<K> CoinList<K> {
    /// Appends a coin; `None`: it is spent.
    pub fn push(&mut self, key: K, coin: Option<&[u8]>) {
        let from = self.coins.len();
        self.coins.extend_from_slice(coin.unwrap_or_default());
        self.keys.push((key, coin.map(|_| (from, self.coins.len()))));
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// What was appended, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, Option<&[u8]>)> {
        let coin = |(from, to)| self.coins.get(from..to).unwrap_or_default();
        self.keys.iter().map(move |(key, at)| (key, at.map(coin)))
    }

    /// Bytes of memory held.
    fn bytes(&self) -> usize {
        self.keys.capacity() * size_of::<(K, Option<(usize, usize)>)>() + self.coins.capacity()
    }
}

/// What the store is to be told, in the order of the keys.
pub type KeyChanges = CoinList<Key>;

/// An entry as it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cached<'a> {
    /// [`DIRTY`], [`FRESH`], [`SPENT`].
    pub flags: u8,
    /// The coin's bytes; none if it is spent.
    pub coin: &'a [u8],
}

impl Cached<'_> {
    /// Whether a flag is set.
    pub fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

#[derive(Debug, Default)]
struct Shard {
    table: HashTable<Place>,
    chunks: Vec<Box<[u8]>>,
    /// Bytes used of the last chunk.
    used: usize,
    /// Bytes of all chunks.
    bytes: usize,
    /// Bytes of entries that are there no more.
    gaps: usize,
    dirty: usize,
    /// What was laid aside to be written.
    aside: KeyChanges,
}

/// An entry's flags and its whole length.
fn head_of(entry: &[u8]) -> (u8, usize) {
    (entry[0], COIN_AT + usize::from(u16::from_le_bytes([entry[1], entry[2]])))
}

fn split(at: u32) -> (usize, usize) {
    ((at >> 16) as usize, (at & 0xffff) as usize)
}

impl Shard {
    fn find(&self, hash: u32, key: &Key) -> Option<Place> {
        self.table.find(spread(hash), |place| is_at(&self.chunks, place, hash, key)).copied()
    }

    fn entry(&self, at: u32) -> &[u8] {
        let (chunk, from) = split(at);
        let entry = &self.chunks[chunk][from..];
        &entry[..head_of(entry).1]
    }

    fn cached(&self, at: u32) -> Cached<'_> {
        let entry = self.entry(at);
        Cached { flags: entry[0] & !EPOCH, coin: &entry[COIN_AT..] }
    }

    fn entry_mut(&mut self, at: u32) -> &mut [u8] {
        let (chunk, from) = split(at);
        &mut self.chunks[chunk][from..]
    }

    /// Appends an entry; answers its place.
    fn append(&mut self, chunk: usize, flags: u8, key: &Key, coin: &[u8]) -> u32 {
        let length = COIN_AT + coin.len();
        assert!(length < MAX_ENTRY, "a coin's script is of limited length");
        let room = self.chunks.last().map_or(0, |last| last.len() - self.used);
        if room < length {
            self.gaps += room;
            let bytes = chunk.max(length);
            self.chunks.push(vec![0; bytes].into_boxed_slice());
            self.bytes += bytes;
            self.used = 0;
        }
        let at = self.chunks.len() - 1;
        let entry = &mut self.chunks[at][self.used..self.used + length];
        entry[0] = flags;
        entry[1..KEY_AT].copy_from_slice(&(coin.len() as u16).to_le_bytes());
        entry[KEY_AT..COIN_AT].copy_from_slice(key);
        entry[COIN_AT..].copy_from_slice(coin);
        let place = (at << 16 | self.used) as u32;
        self.used += length;
        place
    }

    /// Writes all entries anew, without gaps, if these are more than a quarter, and more than a chunk.
    fn tidy(&mut self, chunk: usize) {
        if self.table.is_empty() {
            (self.chunks, self.used, self.bytes, self.gaps) = (Vec::new(), 0, 0, 0);
        } else if self.gaps > self.bytes / 4 && self.gaps > chunk {
            let mut table = core::mem::take(&mut self.table);
            let mut anew = Self::default();
            for place in table.iter_mut() {
                let (head, coin) = self.entry(place.at).split_at(COIN_AT);
                if let Ok(key) = head[KEY_AT..].try_into() {
                    place.at = anew.append(chunk, head[0], key, coin);
                }
            }
            self.table = table;
            (self.chunks, self.used, self.bytes, self.gaps) = (anew.chunks, anew.used, anew.bytes, anew.gaps);
        }
    }

    fn held(&self) -> usize {
        self.bytes + self.table.allocation_size() + self.aside.bytes()
    }

    /// Lays aside what is to be written of a dirty entry, which counts as clean then.
    fn lay_aside(&mut self, at: u32, key: &Key) {
        let (chunk, from) = split(at);
        let entry = &mut self.chunks[chunk][from..];
        let (flags, length) = head_of(entry);
        self.aside.push(*key, (flags & SPENT == 0).then(|| &entry[COIN_AT..length]));
        entry[0] &= SPENT;
        self.dirty -= 1;
    }
}

fn is_at(chunks: &[Box<[u8]>], place: &Place, hash: u32, key: &Key) -> bool {
    place.tag & !DIRTY_TAG == hash && {
        let (chunk, from) = split(place.at);
        chunks[chunk][from + KEY_AT..from + COIN_AT] == *key
    }
}

/// The table. See the [module](self).
#[derive(Debug)]
pub struct CoinTable {
    shards: Vec<Shard>,
    hasher: foldhash::fast::FixedState,
    chunk: usize,
    bytes: usize,
    entries: usize,
    dirty: usize,
    crowded: bool,
    /// The [`EPOCH`] of what changes now.
    epoch: u8,
    /// While what was frozen is written: the first shard that was not handed out.
    frozen: Option<usize>,
    /// The first shard of which something is not known to be stored.
    unstored: usize,
    /// Shards that [`Self::forget`] still has to go through with what is awaited there being so no more.
    releasing: usize,
    /// Nothing is left to forget until more is stored.
    dry: bool,
    /// The shard where forgetting goes on.
    hand: usize,
}

impl CoinTable {
    /// An empty table that is meant for `budget` bytes. `key` keys the hashes and should be secret.
    pub fn new(budget: usize, key: u64) -> Self {
        let shards = (budget / SHARD_BYTES).clamp(SHARDS.0, SHARDS.1).next_power_of_two();
        let chunk = (budget / shards / 8).clamp(CHUNKS.0, CHUNKS.1);
        Self {
            shards: (0..shards).map(|_| Shard::default()).collect(),
            hasher: foldhash::fast::FixedState::with_seed(key),
            chunk,
            bytes: 0,
            entries: 0,
            dirty: 0,
            crowded: false,
            epoch: 0,
            frozen: None,
            unstored: shards,
            hand: 0,
            releasing: 0,
            dry: false,
        }
    }

    /// Bytes of chunks, tables, and what was laid aside.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of entries.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// The number of those that are dirty.
    pub fn dirty(&self) -> usize {
        self.dirty
    }

    /// Whether a shard is as long as one can be. (Somebody mined a great many txids for it.)
    pub fn is_crowded(&self) -> bool {
        self.crowded
    }

    /// The entry of an outpoint.
    pub fn get(&self, outpoint: &OutPoint) -> Option<Cached<'_>> {
        let key = schema::coin_key(outpoint);
        let shard = &self.shards[self.shard_of(&key)];
        let place = shard.find(self.hash(&key), &key)?;
        Some(shard.cached(place.at))
    }

    /// The flags of an outpoint's entry.
    pub fn flags(&self, outpoint: &OutPoint) -> Option<u8> {
        self.get(outpoint).map(|entry| entry.flags)
    }

    /// Sets an entry. `flags` is given the entry that is there and decides the new one's flags.
    pub fn put(&mut self, outpoint: &OutPoint, coin: &[u8], flags: impl FnOnce(Option<Cached<'_>>) -> u8) {
        let key = schema::coin_key(outpoint);
        let (at, hash, chunk, epoch) = (self.shard_of(&key), self.hash(&key), self.chunk, self.epoch);
        let frozen = self.is_frozen(at);
        let shard = &mut self.shards[at];
        let before = (shard.held(), shard.dirty);
        let new = match shard.find(hash, &key) {
            None => {
                let flags = flags(None);
                let mut new = Place { tag: hash, at: shard.append(chunk, flags | epoch, &key, coin) };
                new.set_dirty(flags);
                shard.table.insert_unique(new.spread(), new, |place| place.spread());
                self.entries += 1;
                flags
            }
            Some(place) => {
                if frozen && is_old(shard.entry(place.at)[0], epoch) {
                    shard.lay_aside(place.at, &key);
                }
                let old = shard.cached(place.at);
                let length = COIN_AT + old.coin.len();
                let was_dirty = old.is(DIRTY);
                let flags = flags(Some(old));
                shard.dirty -= usize::from(was_dirty);
                let mut new = place;
                if COIN_AT + coin.len() == length {
                    let entry = shard.entry_mut(place.at);
                    entry[0] = flags | epoch;
                    entry[COIN_AT..length].copy_from_slice(coin);
                } else {
                    shard.gaps += length;
                    new.at = shard.append(chunk, flags | epoch, &key, coin);
                }
                new.set_dirty(flags);
                let there = shard.table.find_mut(spread(hash), |found| found.at == place.at);
                there.into_iter().for_each(|found| *found = new);
                flags
            }
        };
        shard.dirty += usize::from(new & DIRTY != 0);
        shard.tidy(chunk);
        self.account(at, before);
    }

    /// Takes a coin away: forgets the entry if it is fresh, else marks it as spent. `taken` is given the entry as it
    /// was; it is not called, and nothing changes, if there is no unspent coin.
    pub fn spend<T>(&mut self, outpoint: &OutPoint, taken: impl FnOnce(Cached<'_>) -> T) -> Option<T> {
        let key = schema::coin_key(outpoint);
        let (at, hash, chunk, epoch) = (self.shard_of(&key), self.hash(&key), self.chunk, self.epoch);
        let frozen = self.is_frozen(at);
        let shard = &mut self.shards[at];
        let before = (shard.held(), shard.dirty);
        let chunks = &shard.chunks;
        let mut found =
            shard.table.find_entry(spread(hash), |place| is_at(chunks, place, hash, &key)).ok()?;
        let place = *found.get();
        let (chunk_at, from) = split(place.at);
        let (flags, length) = head_of(&shard.chunks[chunk_at][from..]);
        if flags & SPENT != 0 {
            return None;
        }
        let forget = flags & FRESH != 0 && !(frozen && is_old(flags, epoch));
        if forget {
            found.remove();
        } else {
            found.get_mut().set_dirty(DIRTY);
            if frozen && is_old(flags, epoch) {
                shard.lay_aside(place.at, &key);
            }
        }
        let old = shard.cached(place.at);
        let was_dirty = old.is(DIRTY);
        let taken = taken(old);
        if forget {
            shard.dirty -= usize::from(was_dirty);
            shard.gaps += length;
            self.entries -= 1;
        } else {
            shard.dirty += usize::from(!was_dirty);
            shard.gaps += length - COIN_AT;
            shard.entry_mut(place.at)[..KEY_AT].copy_from_slice(&[DIRTY | SPENT | epoch, 0, 0]);
        }
        shard.tidy(chunk);
        self.account(at, before);
        Some(taken)
    }

    /// Forgets an entry; answers whether there was one.
    pub fn remove(&mut self, outpoint: &OutPoint) -> bool {
        self.remove_if(&schema::coin_key(outpoint), |_| true)
    }

    fn remove_if(&mut self, key: &Key, condition: impl FnOnce(Cached<'_>) -> bool) -> bool {
        let (at, hash, chunk, epoch) = (self.shard_of(key), self.hash(key), self.chunk, self.epoch);
        let frozen = self.is_frozen(at);
        let shard = &mut self.shards[at];
        let before = (shard.held(), shard.dirty);
        let chunks = &shard.chunks;
        let Ok(found) = shard.table.find_entry(spread(hash), |place| is_at(chunks, place, hash, key)) else {
            return false;
        };
        let place = *found.get();
        let (chunk_at, from) = split(place.at);
        let (flags, length) = head_of(&shard.chunks[chunk_at][from..]);
        let coin = &shard.chunks[chunk_at][from + COIN_AT..from + length];
        if !condition(Cached { flags: flags & !EPOCH, coin }) {
            return false;
        }
        found.remove();
        if frozen && is_old(flags, epoch) {
            shard.lay_aside(place.at, key);
        } else {
            shard.dirty -= usize::from(flags & DIRTY != 0);
        }
        shard.gaps += length;
        shard.tidy(chunk);
        self.entries -= 1;
        self.account(at, before);
        true
    }

    /// Fixes what is to be written: all dirty entries as they are now. Whatever was frozen before is stored.
    pub fn freeze(&mut self) {
        self.epoch ^= EPOCH;
        self.frozen = Some(0);
        self.unstored = 0;
    }

    /// The next changes of what was frozen, in the order of the keys, with the number of shards that are handed out
    /// with them: those of as many shards as have `least` changes together. `None` after the last.
    pub fn collect(&mut self, least: usize) -> Option<(KeyChanges, usize)> {
        let mut next = self.frozen.filter(|next| *next < self.shards.len())?;
        let mut changes = KeyChanges::default();
        while next < self.shards.len() && changes.len() < least.max(1) {
            let before = (self.shards[next].held(), self.shards[next].dirty);
            self.collect_shard(next, &mut changes);
            self.account(next, before);
            next += 1;
        }
        self.frozen = Some(next);
        Some((changes, next))
    }

    fn collect_shard(&mut self, at: usize, changes: &mut KeyChanges) {
        let shard = &mut self.shards[at];
        let first = changes.len();
        changes.keys.reserve(shard.aside.len() + shard.dirty);
        for (key, coin) in core::mem::take(&mut shard.aside).iter() {
            changes.push(*key, coin);
        }
        for place in shard.table.iter_mut().filter(|place| place.is_dirty()) {
            let (chunk, from) = split(place.at);
            let entry = &mut shard.chunks[chunk][from..];
            let (flags, length) = head_of(entry);
            if is_old(flags, self.epoch)
                && let Ok(key) = entry[KEY_AT..COIN_AT].try_into()
            {
                changes.push(key, (flags & SPENT == 0).then(|| &entry[COIN_AT..length]));
                entry[0] = flags & SPENT;
                place.set_dirty(0);
                shard.dirty -= 1;
            }
        }
        changes.keys[first..].sort_unstable_by_key(|(key, _)| *key);
    }

    /// These changes are stored, and so is everything of the first so many shards: what they say is spent is
    /// forgotten, unless it has changed since.
    pub fn stored(&mut self, spent: &[Key], shards: usize) {
        for key in spent {
            self.remove_if(key, |entry| entry.flags == SPENT);
        }
        (self.unstored, self.dry) = (shards, false);
        if shards >= self.shards.len() {
            self.frozen = None;
        }
    }

    /// What is [`AWAITED`] is so no more.
    pub fn release(&mut self) {
        (self.releasing, self.dry) = (self.shards.len(), false);
    }

    /// Bytes that [`Self::forget`] could make free if it kept nothing, about.
    pub fn forgettable(&self) -> usize {
        if self.dry {
            return 0;
        }
        let stored = self.shards.iter().take(self.unstored);
        stored
            .filter(|shard| !shard.table.is_empty())
            .map(|shard| shard.bytes / shard.table.len() * (shard.table.len() - shard.dirty))
            .sum()
    }

    /// Forgets clean coins that `keep` refuses and that are not [`AWAITED`], shard after shard, until no more than `most`
    /// bytes are held; gives up after a whole round. Answers whether it got there.
    pub fn forget(&mut self, most: usize, mut keep: impl FnMut(&[u8]) -> bool) -> bool {
        let mut kept = 0;
        for _ in 0..self.shards.len() {
            if self.bytes <= most && !self.crowded {
                return true;
            }
            let at = self.hand;
            self.hand = (at + 1) % self.shards.len();
            if at < self.unstored {
                self.forget_in(at, &mut |coin| {
                    let keep = keep(coin);
                    kept += usize::from(keep);
                    keep
                });
            }
        }
        self.dry = kept == 0;
        self.crowded = self.shards.iter().any(|shard| shard.chunks.len() >= MOST_CHUNKS);
        self.bytes <= most && !self.crowded
    }

    fn forget_in(&mut self, at: usize, keep: &mut impl FnMut(&[u8]) -> bool) {
        let shard = &mut self.shards[at];
        let before = (shard.held(), shard.dirty);
        let (entries, chunks) = (shard.table.len(), &mut shard.chunks);
        let mut gaps = 0;
        let releases = self.releasing > 0;
        self.releasing -= usize::from(releases);
        shard.table.retain(|place| {
            let (chunk, from) = split(place.at);
            place.is_dirty() || {
                let entry = &mut chunks[chunk][from..];
                if releases {
                    entry[0] &= !AWAITED;
                }
                let (flags, length) = head_of(entry);
                let kept = flags & SPENT == 0 && (flags & AWAITED != 0 || keep(&entry[COIN_AT..length]));
                gaps += if kept { 0 } else { length };
                kept
            }
        });
        shard.gaps += gaps;
        self.entries -= entries - shard.table.len();
        if shard.table.len() * 4 < shard.table.capacity() {
            shard.table.shrink_to(0, |place| place.spread());
        }
        shard.tidy(self.chunk);
        self.account(at, before);
    }

    /// The bytes of the coins in some shards, one of each so many.
    pub fn sample(&self, each: usize) -> impl Iterator<Item = &[u8]> {
        let shards = self.shards.iter().step_by(each.max(1));
        shards.flat_map(|shard| shard.table.iter().map(|place| shard.cached(place.at).coin))
    }

    /// Whether what was frozen is still to be handed out in this shard.
    fn is_frozen(&self, shard: usize) -> bool {
        self.frozen.is_some_and(|next| next <= shard)
    }

    /// Carries the changes of a shard's figures into those of the whole.
    fn account(&mut self, at: usize, (held, dirty): (usize, usize)) {
        let shard = &self.shards[at];
        self.bytes = self.bytes + shard.held() - held;
        self.dirty = self.dirty + shard.dirty - dirty;
        self.crowded |= shard.chunks.len() >= MOST_CHUNKS;
    }

    fn shard_of(&self, key: &Key) -> usize {
        let first = usize::from(u16::from_be_bytes([key[0], key[1]]));
        (first * self.shards.len()) >> 16
    }

    fn hash(&self, key: &Key) -> u32 {
        self.hasher.hash_one(key) as u32 & !DIRTY_TAG
    }
}

/// Whether an entry with these flags was dirty before the epoch began.
fn is_old(flags: u8, epoch: u8) -> bool {
    flags & DIRTY != 0 && flags & EPOCH != epoch
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::Txid;
    use bitcoin::hashes::Hash;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Op {
        Put(u8, usize, u8),
        Spend(u8),
        Remove(u8),
        Written(u8),
    }

    fn op() -> impl Strategy<Value = Op> {
        let length = prop_oneof![3 => 20usize..40, 1 => 0usize..3_000];
        prop_oneof![
            8 => (any::<u8>(), length, prop::sample::select(vec![0, DIRTY, DIRTY | FRESH]))
                .prop_map(|(id, length, flags)| Op::Put(id, length, flags)),
            4 => any::<u8>().prop_map(Op::Spend),
            1 => any::<u8>().prop_map(Op::Remove),
            1 => any::<u8>().prop_map(Op::Written),
        ]
    }

    /// Txids in a few shards only.
    fn outpoint(id: u8) -> OutPoint {
        let mut txid = [id / 2; 32];
        txid[0] = id % 3 * 100;
        OutPoint::new(Txid::from_byte_array(txid), u32::from(id))
    }

    proptest! {
        #[test]
        fn the_table_equals_a_plain_map(ops in prop::collection::vec(op(), 1..800)) {
            let mut table = CoinTable::new(1, 7);
            let mut model: BTreeMap<Key, (u8, Vec<u8>)> = BTreeMap::new();
            for (n, op) in ops.into_iter().enumerate() {
                match op {
                    Op::Put(id, length, flags) => {
                        let (key, coin) = (schema::coin_key(&outpoint(id)), vec![n as u8; length]);
                        let mut seen = None;
                        table.put(&outpoint(id), &coin, |old| {
                            seen = old.map(|old| (old.flags, old.coin.to_vec()));
                            flags
                        });
                        prop_assert_eq!(seen, model.insert(key, (flags, coin)));
                    }
                    Op::Spend(id) => {
                        let key = schema::coin_key(&outpoint(id));
                        let there = model.get(&key).filter(|(flags, _)| flags & SPENT == 0).cloned();
                        let taken = table.spend(&outpoint(id), |old| (old.flags, old.coin.to_vec()));
                        prop_assert_eq!(&taken, &there);
                        match there {
                            Some((flags, _)) if flags & FRESH != 0 => drop(model.remove(&key)),
                            Some(_) => drop(model.insert(key, (DIRTY | SPENT, Vec::new()))),
                            None => {}
                        }
                    }
                    Op::Remove(id) => {
                        let there = model.remove(&schema::coin_key(&outpoint(id))).is_some();
                        prop_assert_eq!(table.remove(&outpoint(id)), there);
                    }
                    Op::Written(most) => {
                        table.freeze();
                        let dirty: Vec<_> = model.iter().filter(|(_, (flags, _))| flags & DIRTY != 0).collect();
                        let mut written = Vec::new();
                        while let Some((changes, shards)) = table.collect(3) {
                            let spent = changes.iter().filter(|(_, coin)| coin.is_none()).map(|(key, _)| *key);
                            table.stored(&spent.collect::<Vec<_>>(), shards);
                            written.extend(changes.iter().map(|(key, coin)| (*key, coin.map(<[u8]>::to_vec))));
                        }
                        let dirty = dirty.into_iter().map(|(key, (flags, coin))| {
                            (*key, (flags & SPENT == 0).then(|| coin.clone()))
                        });
                        prop_assert!(dirty.eq(written));
                        table.forget(0, |coin| coin.len() <= usize::from(most));
                        model.retain(|_, (flags, coin)| *flags & SPENT == 0 && coin.len() <= usize::from(most));
                        model.values_mut().for_each(|(flags, _)| *flags = 0);
                    }
                }
                prop_assert_eq!(table.entries(), model.len());
                let dirty = model.values().filter(|(flags, _)| flags & DIRTY != 0).count();
                prop_assert_eq!(table.dirty(), dirty);
                let shards = table.shards.iter();
                let held: usize = shards.map(|shard| {
                    shard.chunks.iter().map(|chunk| chunk.len()).sum::<usize>() + shard.table.allocation_size()
                }).sum();
                prop_assert_eq!(table.bytes(), held);
            }
            for id in 0..=u8::MAX {
                let found = table.get(&outpoint(id)).map(|entry| (entry.flags, entry.coin.to_vec()));
                prop_assert_eq!(found.as_ref(), model.get(&schema::coin_key(&outpoint(id))));
            }
            // Gaps do not pile up: what is held is a multiple of what there is, and a chunk or two a shard.
            let live: usize = model.values().map(|(_, coin)| COIN_AT + coin.len()).sum();
            prop_assert!(table.bytes() <= live * 2 + 3 * 8_192 * 2 + 16 * 2_048, "{live} {}", table.bytes());
        }
    }

    #[test]
    fn what_is_awaited_is_kept_until_it_is_spent_or_released() {
        let mut table = CoinTable::new(1, 7);
        for id in 0..100 {
            table.put(&outpoint(id), &[id; 30], |_| if id % 2 == 0 { AWAITED } else { 0 });
        }
        assert!(table.forgettable() > 0);
        // Again and again, as a full cache asks for it.
        for _ in 0..3 {
            table.forget(0, |_| false);
            assert_eq!(table.entries(), 50);
            // No more is to be had, which is known without another look.
            assert_eq!(table.forgettable(), 0);
        }
        assert!((0..100).step_by(2).all(|id| table.get(&outpoint(id)).is_some()));
        table.spend(&outpoint(0), |_| ()).unwrap();
        table.freeze();
        while let Some((changes, shards)) = table.collect(1) {
            let spent: Vec<Key> = changes.iter().map(|(key, _)| *key).collect();
            table.stored(&spent, shards);
        }
        assert_eq!(table.entries(), 49);
        table.release();
        assert!(table.forgettable() > 0 && table.forget(0, |_| false));
        assert_eq!(table.entries(), 0);
    }
}
