//! A table kept in pages ([`crate::store::page`]) in one of sled's trees.
//!
//! sled's time goes with the number of its keys, far more than with their bytes. So coins, of which there are many
//! small ones, share pages, and a commit writes each page once that its changes, in the order of their keys, fall
//! into.
//!
//! The tree's keys are the pages' bounds. The lowest entries may be below all bounds once their page is gone; the
//! page that is made for them then has the empty bound.

use crate::store::Entry;
use crate::store::page::{self, BrokenPage, PAGE_BYTES};
use ::sled::{Batch, IVec, Tree};
use core::ops::{Bound, RangeBounds};
use std::collections::BTreeMap;
use std::io;

/// A page that shrinks below this many bytes takes in the next one.
const LEAST_BYTES: usize = PAGE_BYTES / 4;

/// Changes by key.
pub(super) type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

type Page = (IVec, IVec);

/// The page that a key belongs to.
fn page_of(tree: &Tree, key: &[u8]) -> ::sled::Result<Option<Page>> {
    tree.range::<&[u8], _>(..=key).next_back().transpose()
}

/// The page after this bound.
fn page_after(tree: &Tree, bound: &[u8]) -> ::sled::Result<Option<Page>> {
    tree.range::<&[u8], _>((Bound::Excluded(bound), Bound::Unbounded)).next().transpose()
}

/// The error for a page that cannot be read; of kind `Corrupt` to users of the store.
fn broken(bound: &[u8]) -> ::sled::Error {
    let text = format!("the page of coins from {bound:02x?} on: {BrokenPage}");
    ::sled::Error::Io(io::Error::new(io::ErrorKind::InvalidData, text))
}

/// The value of a key.
pub(super) fn get(tree: &Tree, key: &[u8]) -> ::sled::Result<Option<Vec<u8>>> {
    let Some((bound, bytes)) = page_of(tree, key)? else { return Ok(None) };
    let found = page::find(&bytes, key).map_err(|BrokenPage| broken(&bound))?;
    Ok(found.map(<[u8]>::to_vec))
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

/// What these changes do to the pages. Nothing else may change the tree until it is applied.
pub(super) fn batch(tree: &Tree, changes: &Changes) -> ::sled::Result<Batch> {
    let mut batch = Batch::default();
    let mut changes = changes.iter().map(|(key, new)| (&key[..], new.as_deref())).peekable();
    while let Some(&(key, _)) = changes.peek() {
        let (bound, mut bytes, there) = match page_of(tree, key)? {
            Some((bound, bytes)) => (bound, bytes, true),
            None => (IVec::default(), IVec::default(), false),
        };
        // What is known of the page that follows decides which changes belong to this one.
        let mut next = if there { page_after(tree, &bound)? } else { tree.first()? };
        let pages = loop {
            let here = core::iter::from_fn(|| {
                changes.next_if(|(key, _)| next.as_ref().is_none_or(|(bound, _)| *key < &bound[..]))
            });
            let pages = page::merge(&bytes, here).map_err(|BrokenPage| broken(&bound))?;
            let small = pages.iter().map(|(_, page)| page.len()).sum::<usize>() < LEAST_BYTES;
            let Some((absorbed, more)) = next.take().filter(|_| small) else { break pages };
            let small = pages.first().map_or(&[][..], |(_, page)| page);
            bytes = page::joined(small, &more).map_err(|BrokenPage| broken(&absorbed))?.into();
            next = page_after(tree, &absorbed)?;
            batch.remove(absorbed);
        };
        if pages.is_empty() && there {
            batch.remove(&bound);
        }
        for (n, (first, page)) in pages.into_iter().enumerate() {
            batch.insert(if n == 0 { bound.clone() } else { first.into() }, page);
        }
    }
    Ok(batch)
}
