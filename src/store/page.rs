//! Many small entries in one value of a key-value store: a page.
//!
//! A table kept in pages is a sequence of them, each stored under its *bound*, a key that none of its entries is
//! below; an entry belongs to the page with the highest bound that is not above its key. So the pages are in the
//! order of their entries, and a page can be cut anywhere, between two outputs of one transaction too.
//!
//! | bytes of an entry | content |
//! | --- | --- |
//! | varint | bytes that its key has in common with the key before it |
//! | varint | bytes of the rest of its key |
//! | varint | bytes of its value |
//! | … | the rest of its key, its value |
//!
//! Varints are those of [`super::coin`]. The outputs of a transaction share 32 bytes of their keys and stand side by
//! side, so that each after the first costs some 30 bytes less.
//!
//! No I/O here: bytes in, bytes out. What is not a page is an error, never a panic.

use super::Entry;
use super::coin::{put_varint, take_varint};

/// A page above this many bytes is cut, unless it is a single entry. Larger pages cost more for each change, smaller
/// ones more for each look-up and for the store.
pub const PAGE_BYTES: usize = 4_096;
/// What is cut is cut into pages of about this many bytes, so that they can grow again.
const CUT_BYTES: usize = PAGE_BYTES / 3 * 2;

/// Bytes that are no page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a page of entries in order")]
pub struct BrokenPage;

/// An entry as it is stored.
struct Raw<'a> {
    shared: usize,
    rest: &'a [u8],
    value: &'a [u8],
}

fn take_raw<'a>(bytes: &mut &'a [u8]) -> Result<Raw<'a>, BrokenPage> {
    let mut number = || take_varint(bytes).and_then(|n| usize::try_from(n).ok()).ok_or(BrokenPage);
    let (shared, rest, value) = (number()?, number()?, number()?);
    let rest = bytes.split_off(..rest).ok_or(BrokenPage)?;
    let value = bytes.split_off(..value).ok_or(BrokenPage)?;
    Ok(Raw { shared, rest, value })
}

fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The value of a key in a page.
///
/// # Errors
/// [`BrokenPage`], as far as the search gets.
pub fn find<'a>(mut page: &'a [u8], key: &[u8]) -> Result<Option<&'a [u8]>, BrokenPage> {
    // Bytes that the wanted key has in common with the entry before, which is below it.
    let mut matched = 0;
    while !page.is_empty() {
        let Raw { shared, rest, value } = take_raw(&mut page)?;
        if shared > matched {
            // It differs from the wanted key where the one before did.
            continue;
        }
        if shared < matched {
            return Ok(None);
        }
        let left = &key[matched..];
        let equal = common(rest, left);
        match (rest.get(equal), left.get(equal)) {
            (None, None) => return Ok(Some(value)),
            (Some(_), None) => return Ok(None),
            (Some(have), Some(want)) if have > want => return Ok(None),
            _ => matched += equal,
        }
    }
    Ok(None)
}

/// The entries of a page, in order.
///
/// # Errors
/// [`BrokenPage`] if any part of it is broken or out of order.
pub fn entries(mut page: &[u8]) -> Result<Vec<Entry>, BrokenPage> {
    let mut entries: Vec<Entry> = Vec::new();
    while !page.is_empty() {
        let Raw { shared, rest, value } = take_raw(&mut page)?;
        let before = entries.last().map_or(&[][..], |(key, _)| key);
        let key = [before.get(..shared).ok_or(BrokenPage)?, rest].concat();
        if !entries.is_empty() && key[..] <= *before {
            return Err(BrokenPage);
        }
        entries.push((key, value.to_vec()));
    }
    Ok(entries)
}

/// What one key is to become: `None` removes it.
pub type KeyChange<'a> = (&'a [u8], Option<&'a [u8]>);

/// The first key of a page, and the page.
pub type NewPage = (Vec<u8>, Vec<u8>);

/// An entry of [`Merger`]: where its key begins in the buffer, its value, and what follows; and the bytes in common with
/// the key before.
struct MergedEntry {
    key: usize,
    value: usize,
    end: usize,
    shared: usize,
}

/// Applies changes to pages, one after the other, in the same room.
#[derive(Default)]
pub struct Merger {
    /// Keys and values of the entries, in order.
    bytes: Vec<u8>,
    entries: Vec<MergedEntry>,
}

impl Merger {
    fn key(&self, entry: &MergedEntry) -> &[u8] {
        &self.bytes[entry.key..entry.value]
    }

    fn value(&self, entry: &MergedEntry) -> &[u8] {
        &self.bytes[entry.value..entry.end]
    }

    fn push(&mut self, new: &[u8], value: &[u8]) {
        let shared = self.entries.last().map_or(0, |last| common(self.key(last), new));
        let key = self.bytes.len();
        self.bytes.extend_from_slice(new);
        self.bytes.extend_from_slice(value);
        let entry = MergedEntry { key, value: key + new.len(), end: self.bytes.len(), shared };
        self.entries.push(entry);
    }

    /// Applies changes, in the order of their keys and each key once, to a page; answers the pages that take its place,
    /// each with its first key, in order. None are left if nothing is.
    ///
    /// # Errors
    /// [`BrokenPage`]: nothing may be written then.
    pub fn merge<'a>(
        &mut self,
        page: &[u8],
        changes: impl IntoIterator<Item = KeyChange<'a>>,
    ) -> Result<Vec<NewPage>, BrokenPage> {
        self.bytes.clear();
        self.entries.clear();
        let mut changes = changes.into_iter().peekable();
        let (mut rest_of_page, mut key, mut first) = (page, Vec::new(), true);
        while !rest_of_page.is_empty() {
            let Raw { shared, rest, value } = take_raw(&mut rest_of_page)?;
            if shared > key.len() || (!first && key[shared..] >= *rest) {
                return Err(BrokenPage);
            }
            first = false;
            key.truncate(shared);
            key.extend_from_slice(rest);
            while let Some((changed, new)) = changes.next_if(|(changed, _)| *changed < &key[..]) {
                new.into_iter().for_each(|new| self.push(changed, new));
            }
            match changes.next_if(|(changed, _)| *changed == &key[..]) {
                Some((_, new)) => new.into_iter().for_each(|new| self.push(&key, new)),
                None => self.push(&key, value),
            }
        }
        for (changed, new) in changes {
            new.into_iter().for_each(|new| self.push(changed, new));
        }
        Ok(self.cut())
    }

    fn cut(&self) -> Vec<NewPage> {
        /// Bytes of an entry in a page, at most.
        fn size(entry: &MergedEntry) -> usize {
            entry.end - entry.key - entry.shared + 5
        }
        let total: usize = self.entries.iter().map(size).sum();
        let least = if total <= PAGE_BYTES { usize::MAX } else { total / total.div_ceil(CUT_BYTES) };
        let mut pages: Vec<NewPage> = Vec::new();
        for entry in &self.entries {
            let key = self.key(entry);
            let full = pages.last().is_none_or(|(_, page)| {
                page.len() >= least || page.len() + size(entry) > PAGE_BYTES.max(least)
            });
            let shared = if full { 0 } else { entry.shared };
            if full {
                pages.push((key.to_vec(), Vec::with_capacity(total.min(PAGE_BYTES))));
            }
            if let Some((_, page)) = pages.last_mut() {
                put_entry(page, shared, key, self.value(entry));
            }
        }
        pages
    }
}

/// As [`Merger::merge`].
///
/// # Errors
/// [`BrokenPage`]: nothing may be written then.
pub fn merge<'a>(
    page: &[u8],
    changes: impl IntoIterator<Item = KeyChange<'a>>,
) -> Result<Vec<NewPage>, BrokenPage> {
    Merger::default().merge(page, changes)
}

/// Two pages as one, which may be larger than [`PAGE_BYTES`]; the entries of the second are above the first's.
///
/// # Errors
/// [`BrokenPage`], also if they are not.
pub fn joined(first: &[u8], mut second: &[u8]) -> Result<Vec<u8>, BrokenPage> {
    let Some((last, _)) = entries(first)?.pop() else { return Ok(second.to_vec()) };
    if second.is_empty() {
        return Ok(first.to_vec());
    }
    let Raw { shared: 0, rest, value } = take_raw(&mut second)? else { return Err(BrokenPage) };
    if *rest <= last[..] {
        return Err(BrokenPage);
    }
    let mut page = first.to_vec();
    put_entry(&mut page, common(&last, rest), rest, value);
    page.extend_from_slice(second);
    Ok(page)
}

/// Appends an entry of whose key the first `shared` bytes are those of the key before.
fn put_entry(page: &mut Vec<u8>, shared: usize, key: &[u8], value: &[u8]) {
    put_varint(page, shared as u64);
    put_varint(page, (key.len() - shared) as u64);
    put_varint(page, value.len() as u64);
    page.extend_from_slice(&key[shared..]);
    page.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Model = BTreeMap<Vec<u8>, Vec<u8>>;

    fn read(pages: &[NewPage]) -> Model {
        pages.iter().flat_map(|(_, page)| entries(page).unwrap()).collect()
    }

    fn keys() -> impl Strategy<Value = Vec<u8>> {
        // Few letters, so that keys share beginnings and are beginnings of each other.
        prop::collection::vec(0..3u8, 0..6)
    }

    proptest! {
        #[test]
        fn pages_do_what_an_ordered_map_does(
            start in prop::collection::btree_map(keys(), prop::collection::vec(any::<u8>(), 0..200), 0..80),
            changes in prop::collection::btree_map(
                keys(), prop::option::of(prop::collection::vec(any::<u8>(), 0..200)), 0..80,
            ),
        ) {
            let begin = merge(&[], start.iter().map(|(key, value)| (&key[..], Some(&value[..])))).unwrap();
            prop_assert_eq!(&read(&begin), &start);
            let mut model = start.clone();
            for (key, change) in &changes {
                match change {
                    Some(value) => model.insert(key.clone(), value.clone()),
                    None => model.remove(key),
                };
            }
            // All in one page, however large, and the changes merged into it.
            let whole = one_page(&start);
            let pages =
                merge(&whole, changes.iter().map(|(key, value)| (&key[..], value.as_deref()))).unwrap();
            prop_assert_eq!(&read(&pages), &model);
            for (first, page) in &pages {
                let inside = entries(page).unwrap();
                prop_assert_eq!(&inside[0].0, first);
                prop_assert!(page.len() <= PAGE_BYTES || inside.len() == 1);
            }
            for key in start.keys().chain(changes.keys()) {
                let found = pages.iter().find_map(|(_, page)| find(page, key).unwrap());
                prop_assert_eq!(found, model.get(key).map(|value| &value[..]));
            }
        }

        #[test]
        fn two_pages_joined_have_the_entries_of_both(
            all in prop::collection::btree_map(keys(), prop::collection::vec(any::<u8>(), 0..9), 0..40),
            at in keys(),
        ) {
            let mut low = all.clone();
            let high = low.split_off(&at);
            prop_assert_eq!(joined(&one_page(&low), &one_page(&high)), Ok(one_page(&all)));
        }

        #[test]
        fn any_bytes_are_a_page_or_an_error(bytes in prop::collection::vec(0..20u8, 0..200), key in keys()) {
            let _ = find(&bytes, &key);
            let listed = entries(&bytes);
            let merged = merge(&bytes, []);
            prop_assert_eq!(listed.is_ok(), merged.is_ok());
            if let (Ok(listed), Ok(merged)) = (listed, merged) {
                prop_assert_eq!(listed.into_iter().collect::<Model>(), read(&merged));
            }
        }
    }

    fn one_page(model: &Model) -> Vec<u8> {
        let mut page = Vec::new();
        let mut before: &[u8] = &[];
        for (key, value) in model {
            let shared = common(before, key);
            put_entry(&mut page, shared, key, value);
            before = key;
        }
        page
    }

    #[test]
    fn the_outputs_of_a_transaction_share_their_beginning() {
        let keys: Vec<[u8; 36]> = (0..30u8)
            .map(|vout| {
                let mut key = [7; 36];
                key[32..].copy_from_slice(&[0, 0, 0, vout]);
                key
            })
            .collect();
        let pages = merge(&[], keys.iter().map(|key| (&key[..], Some(&[9; 25][..])))).unwrap();
        assert_eq!(pages.len(), 1);
        assert_eq!(pages[0].1.len(), 3 + 36 + 25 + 29 * (3 + 1 + 25));
    }

    #[test]
    fn a_page_out_of_order_is_none() {
        let [a, b] = [b"a", b"b"].map(|key| merge(&[], [(&key[..], Some(&b"1"[..]))]).unwrap().remove(0).1);
        for page in [[&b[..], &a].concat(), [&a[..], &a].concat()] {
            assert_eq!(entries(&page), Err(BrokenPage));
            assert_eq!(merge(&page, []), Err(BrokenPage));
        }
    }
}
