//! Deadlines by key, in one ordered structure: set, cancel and take what is due in O(log n), no scan.

use crate::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// At most one deadline a key. Deadlines of the same time come due in the order of their keys.
#[derive(Clone, Debug)]
pub struct Timers<K> {
    order: BTreeSet<(Timestamp, K)>,
    by_key: BTreeMap<K, Timestamp>,
}

impl<K: Ord + Clone> Timers<K> {
    /// No deadline.
    pub const fn new() -> Self {
        Self { order: BTreeSet::new(), by_key: BTreeMap::new() }
    }

    /// Sets or moves the deadline of `key`.
    pub fn set(&mut self, key: K, at: Timestamp) {
        if let Some(old) = self.by_key.insert(key.clone(), at) {
            self.order.remove(&(old, key.clone()));
        }
        self.order.insert((at, key));
    }

    /// Takes the deadline of `key` away, if it had one.
    pub fn cancel(&mut self, key: &K) -> Option<Timestamp> {
        let old = self.by_key.remove(key)?;
        self.order.remove(&(old, key.clone()));
        Some(old)
    }

    /// Sets or moves the deadline of `key`, or takes it away.
    pub fn put(&mut self, key: K, at: Option<Timestamp>) {
        match at {
            Some(at) => self.set(key, at),
            None => _ = self.cancel(&key),
        }
    }

    /// The deadline of `key`.
    pub fn get(&self, key: &K) -> Option<Timestamp> {
        self.by_key.get(key).copied()
    }

    /// The soonest deadline.
    pub fn next(&self) -> Option<Timestamp> {
        self.order.first().map(|(at, _)| *at)
    }

    /// The keys whose deadlines are not after `now`, the soonest first.
    pub fn due(&self, now: Timestamp) -> impl Iterator<Item = &K> {
        self.order.iter().take_while(move |(at, _)| *at <= now).map(|(_, key)| key)
    }

    /// Takes the soonest deadline that is not after `now`.
    pub fn pop_due(&mut self, now: Timestamp) -> Option<K> {
        let key = self.due(now).next()?.clone();
        self.cancel(&key);
        Some(key)
    }

    /// The keys, by their deadlines.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.order.iter().map(|(_, key)| key)
    }

    /// The number of deadlines.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there is no deadline.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

impl<K: Ord + Clone> Default for Timers<K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_like_a_list_that_is_scanned(steps in prop::collection::vec((0u8..3, 0u8..6, 0u64..20), 0..200)) {
            let mut timers = Timers::new();
            let mut naive: Vec<(u8, u64)> = Vec::new();
            for (what, key, at) in steps {
                match what {
                    0 => {
                        timers.set(key, Timestamp::from_millis(at));
                        naive.retain(|(k, _)| *k != key);
                        naive.push((key, at));
                    }
                    1 => {
                        let old = naive.iter().find(|(k, _)| *k == key).map(|(_, at)| *at);
                        prop_assert_eq!(timers.cancel(&key).map(Timestamp::as_millis), old);
                        naive.retain(|(k, _)| *k != key);
                    }
                    _ => {
                        naive.sort_by_key(|(key, at)| (*at, *key));
                        let now = Timestamp::from_millis(at);
                        let due: Vec<u8> = naive.iter().filter(|(_, t)| *t <= at).map(|(k, _)| *k).collect();
                        prop_assert_eq!(timers.due(now).copied().collect::<Vec<_>>(), due.clone());
                        prop_assert_eq!(timers.pop_due(now), due.first().copied());
                        naive.retain(|(k, _)| Some(k) != due.first());
                        prop_assert!(timers.keys().eq(naive.iter().map(|(k, _)| k)));
                    }
                }
                prop_assert_eq!(timers.len(), naive.len());
                prop_assert_eq!(timers.next().map(Timestamp::as_millis), naive.iter().map(|(_, t)| *t).min());
            }
        }
    }
}
