//! Signatures that were found good: a block that a reorg brings back, or one that was rolled back before its scripts were
//! proved, need not be paid for twice.
//!
//! 1. What is remembered is the salted SHA-256 of all that the check depends on: scheme, hash that is signed, key and
//!    signature. Nobody outside knows the salt, so nobody can choose entries that displace each other or look alike.
//! 2. The table has a fixed number of places. An entry has four; where all are taken, its own bits choose one.
//! 3. Only good signatures are remembered, so a false hit needs a collision of SHA-256.
//!
//! Bitcoin Core has the same cache for what its mempool checked (script/sigcache.cpp).

use crate::limits::SIGNATURE_CACHE_SHARDS;
use bitcoin::hashes::{Hash, HashEngine, sha256};
use parking_lot::Mutex;
use std::fmt;

/// Places of an entry.
const WAYS: usize = 4;

type Entry = [u8; 32];

/// What a signature is checked for, as the cache knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checked(Entry);

/// A bounded set of good signatures. See the [module](self).
pub(super) struct SignatureCache {
    /// Has taken the salt: a whole block of SHA-256, so that it costs nothing more.
    salted: sha256::HashEngine,
    shards: Box<[Mutex<Vec<Entry>>]>,
    /// Sets of a shard.
    sets: usize,
}

impl SignatureCache {
    /// A cache with room for about so many signatures of 32 bytes each; none for 0, and none if the system gives no
    /// randomness for the salt: it is only there to save time.
    pub fn new(entries: usize) -> Option<Self> {
        let mut salt = [0; 64];
        getrandom::fill(&mut salt).ok()?;
        Self::with_salt(entries, &salt)
    }

    fn with_salt(entries: usize, salt: &[u8; 64]) -> Option<Self> {
        if entries == 0 {
            return None;
        }
        let sets = entries.div_ceil(SIGNATURE_CACHE_SHARDS * WAYS);
        let mut salted = sha256::Hash::engine();
        salted.input(salt);
        let shards = (0..SIGNATURE_CACHE_SHARDS).map(|_| Mutex::new(vec![[0; 32]; sets * WAYS])).collect();
        Some(Self { salted, shards, sets })
    }

    /// What stands for the check of a signature: `scheme` tells ECDSA from BIP340.
    pub fn checked(&self, scheme: u8, hash: &[u8; 32], key: &[u8], signature: &[u8]) -> Checked {
        let mut engine = self.salted.clone();
        // All have the length that their scheme has: 33 or 32 bytes of key, 64 of signature.
        engine.input(&[scheme]);
        engine.input(hash);
        engine.input(key);
        engine.input(signature);
        Checked(sha256::Hash::from_engine(engine).to_byte_array())
    }

    /// Whether it was found good.
    pub fn has(&self, checked: &Checked) -> bool {
        let (shard, at) = self.place(checked);
        shard.lock().get(at..at + WAYS).is_some_and(|set| set.contains(&checked.0))
    }

    /// It was found good.
    pub fn add(&self, checked: &Checked) {
        let (shard, at) = self.place(checked);
        let mut entries = shard.lock();
        let Some(set) = entries.get_mut(at..at + WAYS) else { return };
        let free = set.iter().position(|entry| *entry == [0; 32] || *entry == checked.0);
        let way = free.unwrap_or(usize::from(checked.0[31]) % WAYS);
        set[way] = checked.0;
    }

    fn place(&self, checked: &Checked) -> (&Mutex<Vec<Entry>>, usize) {
        let [number, a, b, c, d, ..] = checked.0;
        let shard = &self.shards[usize::from(number) % SIGNATURE_CACHE_SHARDS];
        (shard, u32::from_le_bytes([a, b, c, d]) as usize % self.sets * WAYS)
    }
}

impl fmt::Debug for SignatureCache {
    /// Without the salt.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignatureCache").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(cache: &SignatureCache, n: u32) -> Checked {
        cache.checked(0, &[1; 32], &[2; 33], &n.to_le_bytes())
    }

    #[test]
    fn what_was_added_is_there_and_nothing_else() {
        let cache = SignatureCache::new(10_000).unwrap();
        (0..1_000).for_each(|n| cache.add(&number(&cache, n)));
        let found = (0..1_000).filter(|n| cache.has(&number(&cache, *n))).count();
        // A set of four may be full by chance, here almost never.
        assert!(found > 990, "{found}");
        assert!((1_000..5_000).all(|n| !cache.has(&number(&cache, n))));
        let hash = [1; 32];
        assert_ne!(cache.checked(0, &hash, &[2; 33], &[3]), cache.checked(1, &hash, &[2; 33], &[3]));
        assert_ne!(cache.checked(0, &hash, &[2; 33], &[3]), cache.checked(0, &[4; 32], &[2; 33], &[3]));
    }

    #[test]
    fn a_full_cache_keeps_its_size_and_the_newest() {
        let cache = SignatureCache::new(100).unwrap();
        let places = |cache: &SignatureCache| cache.shards.iter().map(|s| s.lock().len()).sum::<usize>();
        let before = places(&cache);
        for n in 0..20_000 {
            cache.add(&number(&cache, n));
            assert!(cache.has(&number(&cache, n)));
        }
        assert_eq!(places(&cache), before);
        assert!(before <= 100 + WAYS * SIGNATURE_CACHE_SHARDS);
    }

    #[test]
    fn another_salt_is_another_cache_and_no_room_is_none() {
        let (a, b) = (SignatureCache::new(8).unwrap(), SignatureCache::new(8).unwrap());
        assert_ne!(number(&a, 1), number(&b, 1));
        assert!(SignatureCache::new(0).is_none());
    }
}
