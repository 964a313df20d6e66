//! A table kept in pages ([`crate::store::page`]) in one of sled's trees.
//!
//! sled's time goes with the number of its keys, far more than with their bytes. So entries of which there are many
//! small ones share pages, and a commit writes each page once that its changes, in the order of their keys, fall
//! into.
//!
//! The tree's keys are the pages' bounds. The lowest entries may be below all bounds once their page is gone; the
//! page that is made for them then has the empty bound.

use crate::store::Entry;
use crate::store::page::{self, BrokenPage, Merger, PAGE_BYTES};
use ::sled::{Batch, IVec, Tree};
use core::iter::Peekable;
use core::ops::{Bound, RangeBounds};
use std::io;

/// A page that shrinks below this many bytes takes in the next one.
const LEAST_BYTES: usize = PAGE_BYTES / 4;

/// Pages after the one at hand that are gone through in search of another before it is sought from above.
const NEAR: usize = 4;

/// A change of a key; `None` removes it.
pub(super) type KeyChange = (Vec<u8>, Option<Vec<u8>>);

type Page = (IVec, IVec);

/// The page that a key belongs to.
fn page_of(tree: &Tree, key: &[u8]) -> ::sled::Result<Option<Page>> {
    tree.range::<&[u8], _>(..=key).next_back().transpose()
}

/// Goes from page to page of a tree that nobody changes meanwhile. Keys that come in order find theirs without a way
/// through the tree from above: sled's iterators keep the node that they are in.
struct Pages<'a> {
    tree: &'a Tree,
    here: Option<Page>,
    /// What follows, once it was asked for.
    rest: Option<Peekable<::sled::Iter>>,
}

impl<'a> Pages<'a> {
    fn new(tree: &'a Tree) -> Self {
        Self { tree, here: None, rest: None }
    }

    /// The page that a key belongs to: then it is the one at hand. There is none at hand below all bounds.
    fn find(&mut self, key: &[u8]) -> ::sled::Result<Option<&Page>> {
        if !self.is_near(key)? {
            *self = Self::new(self.tree);
            self.here = page_of(self.tree, key)?;
        }
        Ok(self.here.as_ref())
    }

    /// Whether the page of a key was found, at hand or soon behind.
    fn is_near(&mut self, key: &[u8]) -> ::sled::Result<bool> {
        if self.here.as_ref().is_none_or(|(bound, _)| *key < **bound) {
            return Ok(false);
        }
        for _ in 0..NEAR {
            match self.next()? {
                Some((bound, _)) if **bound <= *key => self.step()?,
                _ => return Ok(true),
            }
        }
        Ok(false)
    }

    /// The page after the one at hand, or the first if there is none at hand.
    fn next(&mut self) -> ::sled::Result<Option<&Page>> {
        match self.rest().peek() {
            Some(Err(error)) => Err(error.clone()),
            Some(Ok(page)) => Ok(Some(page)),
            None => Ok(None),
        }
    }

    /// Goes to the next page.
    fn step(&mut self) -> ::sled::Result<()> {
        self.here = self.rest().next().transpose()?;
        Ok(())
    }

    fn rest(&mut self) -> &mut Peekable<::sled::Iter> {
        let after =
            |(bound, _): &Page| self.tree.range::<&[u8], _>((Bound::Excluded(&bound[..]), Bound::Unbounded));
        let here = &self.here;
        self.rest.get_or_insert_with(|| here.as_ref().map_or_else(|| self.tree.iter(), after).peekable())
    }
}

/// The error for a page that cannot be read; of kind `Corrupt` to users of the store.
fn broken(bound: &[u8]) -> ::sled::Error {
    let text = format!("the page from {bound:02x?} on: {BrokenPage}");
    ::sled::Error::Io(io::Error::new(io::ErrorKind::InvalidData, text))
}

/// The values of these keys; it is the faster the more of them are in order.
pub(super) fn get_many(tree: &Tree, keys: &[&[u8]]) -> ::sled::Result<Vec<Option<Vec<u8>>>> {
    let mut pages = Pages::new(tree);
    let mut value = |key: &[u8]| {
        let Some((bound, bytes)) = pages.find(key)? else { return Ok(None) };
        let found = page::find(bytes, key).map_err(|BrokenPage| broken(bound))?;
        Ok(found.map(<[u8]>::to_vec))
    };
    keys.iter().map(|key| value(key)).collect()
}

/// Up to `limit` entries within the bounds, in order.
pub(super) fn range(
    tree: &Tree,
    from: Bound<&[u8]>,
    to: Bound<&[u8]>,
    limit: usize,
) -> ::sled::Result<Vec<Entry>> {
    let start = match from {
        Bound::Included(key) | Bound::Excluded(key) => page_of(tree, key)?.map(|(bound, _)| bound),
        Bound::Unbounded => None,
    };
    let start = start.as_ref().map_or(Bound::Unbounded, |bound| Bound::Included(&bound[..]));
    let mut found = Vec::new();
    // A page whose bound is beyond the end has nothing within it.
    for page in tree.range::<&[u8], _>((start, to)) {
        let (bound, bytes) = page?;
        let entries = page::entries(&bytes).map_err(|BrokenPage| broken(&bound))?;
        let inside =
            entries.into_iter().filter(|(key, _)| RangeBounds::<[u8]>::contains(&(from, to), &key[..]));
        found.extend(inside.take(limit - found.len()));
        if found.len() >= limit {
            break;
        }
    }
    Ok(found)
}

/// What these changes do to the pages; of several for one key the last counts. Nothing else may change the tree until
/// it is applied.
pub(super) fn batch(tree: &Tree, mut changes: Vec<KeyChange>) -> ::sled::Result<Batch> {
    changes.reverse();
    changes.sort_by(|(a, _), (b, _)| a.cmp(b));
    changes.dedup_by(|(later, _), (kept, _)| later == kept);
    let mut batch = Batch::default();
    let (mut pages, mut merger) = (Pages::new(tree), Merger::default());
    let mut changes = changes.iter().map(|(key, new)| (&key[..], new.as_deref())).peekable();
    while let Some(&(key, _)) = changes.peek() {
        let at_hand = pages.find(key)?.cloned();
        let there = at_hand.is_some();
        let (bound, mut bytes) = at_hand.unwrap_or_default();
        let new = loop {
            // What is known of the page that follows decides which changes belong to this one.
            let next = pages.next()?.cloned();
            let here = core::iter::from_fn(|| {
                changes.next_if(|(key, _)| next.as_ref().is_none_or(|(bound, _)| *key < &bound[..]))
            });
            let new = merger.merge(&bytes, here).map_err(|BrokenPage| broken(&bound))?;
            let small = new.iter().map(|(_, page)| page.len()).sum::<usize>() < LEAST_BYTES;
            let Some((absorbed, more)) = next.filter(|_| small) else { break new };
            let small = new.first().map_or(&[][..], |(_, page)| page);
            bytes = page::joined(small, &more).map_err(|BrokenPage| broken(&absorbed))?.into();
            pages.step()?;
            batch.remove(absorbed);
        };
        if new.is_empty() && there {
            batch.remove(&bound);
        }
        for (n, (first, page)) in new.into_iter().enumerate() {
            batch.insert(if n == 0 { bound.clone() } else { first.into() }, page);
        }
    }
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn keys() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop_oneof![0..4u8, 250..=255u8], 0..4)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Values so large that a page holds a few, and a tree many pages in several of sled's nodes.
        #[test]
        fn a_tree_in_pages_does_what_an_ordered_map_does(
            rounds in prop::collection::vec(
                prop::collection::btree_map(keys(), prop::option::weighted(0.6, 0..3_000usize), 1..150), 1..6,
            ),
            wanted in prop::collection::vec(keys(), 0..60),
        ) {
            let db = ::sled::Config::new().temporary(true).open().unwrap();
            let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
            for (n, round) in rounds.into_iter().enumerate() {
                let changes: Vec<KeyChange> =
                    round.into_iter().map(|(key, length)| (key, length.map(|length| vec![n as u8; length]))).collect();
                db.apply_batch(batch(&db, changes.clone()).unwrap()).unwrap();
                for (key, value) in changes {
                    match value {
                        Some(value) => drop(model.insert(key, value)),
                        None => drop(model.remove(&key)),
                    }
                }
                let all = range(&db, Bound::Unbounded, Bound::Unbounded, usize::MAX).unwrap();
                prop_assert!(all.into_iter().eq(model.clone()));
                // In any order, and sorted, with those that are there among them.
                let mut wanted: Vec<&[u8]> =
                    wanted.iter().chain(model.keys().step_by(3)).map(Vec::as_slice).collect();
                for _ in 0..2 {
                    let expected: Vec<_> = wanted.iter().map(|key| model.get(*key).cloned()).collect();
                    prop_assert_eq!(get_many(&db, &wanted).unwrap(), expected);
                    wanted.sort_unstable();
                }
            }
        }
    }
}
