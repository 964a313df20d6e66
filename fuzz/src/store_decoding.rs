//! What comes from the store and the header file: each decoder alone, and a whole chainstate opened on a
//! store and a header file that were tampered with.
//!
//! Input: what to do, then what that needs.

use crate::base::{HEIGHT, base, content};
use crate::feed::Feed;
use crate::meter::peak;
use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use headlong::chain::command::{HeaderMark, RollbackCheckpoint};
use headlong::chainstate::Front;
use headlong::error::Error;
use headlong::limits::MAX_STORE_KEY;
use headlong::store::coin::Coin;
use headlong::store::header_file::{HEADER_FILE, HeaderFile, Record};
use headlong::store::medium::{Medium, MemoryMedium};
use headlong::store::memory::MemoryStore;
use headlong::store::schema::{self, BlockEntry};
use headlong::store::{Batch, Durability, Store, StoreErrorKind, Table};
use std::ops::Bound;
use std::sync::Arc;

pub fn run(data: &[u8]) {
    let mut feed = Feed::new(data);
    match feed.u8() % 6 {
        0 => coin(feed.rest()),
        1 => entries(feed.rest()),
        2 => meta(feed),
        3 => header_file_bytes(feed.rest()),
        4 => header_file_records(feed),
        _ => tampered(feed),
    }
}

fn coin(bytes: &[u8]) {
    let (coin, most) = peak(|| Coin::decode(bytes));
    assert!(most <= 2 * bytes.len() + 64);
    if let Some(coin) = coin {
        let again = coin.encode();
        assert!(again.len() <= bytes.len(), "the compact form is the shortest");
        assert_eq!(Coin::decode(&again), Some(coin));
    }
    if let Ok(outpoint) = schema::decode_coin_key(bytes) {
        assert_eq!(schema::coin_key(&outpoint), bytes);
    }
}

fn entries(bytes: &[u8]) {
    if let Ok(entry) = BlockEntry::decode(BlockHash::all_zeros(), bytes) {
        assert_eq!(entry.encode(), bytes);
    }
    if let Some(checkpoint) = RollbackCheckpoint::from_bytes(bytes) {
        assert_eq!(checkpoint.to_bytes(), bytes);
    }
}

/// A key of at most the longest length.
fn key(prefix: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut key = [prefix, rest].concat();
    key.truncate(MAX_STORE_KEY);
    key
}

/// A store whose first table holds anything.
fn meta(mut feed: Feed<'_>) {
    let store = MemoryStore::new();
    let mut batch = Batch::new();
    let mut last: Option<RollbackCheckpoint> = None;
    while !feed.is_empty() {
        match feed.u8() % 8 {
            0 => batch.put(Table::Meta, schema::KEY_TIP, feed.bytes()),
            1 => batch.put(Table::Meta, schema::KEY_PENDING, feed.bytes()),
            2 => batch.put(Table::Meta, schema::KEY_SCHEMA, feed.bytes()),
            3 => batch.put(Table::Meta, schema::KEY_NETWORK, feed.bytes()),
            4 => batch.put(Table::Meta, key(b"checkpoint/", feed.bytes()), feed.bytes()),
            5 => batch.put(Table::Meta, feed.bytes(), feed.bytes()),
            _ => {
                // A checkpoint that follows the last.
                let block = |feed: &mut Feed<'_>| headlong::BlockRef {
                    height: feed.u32(),
                    hash: BlockHash::from_byte_array([feed.u8(); 32]),
                };
                let mut next =
                    RollbackCheckpoint::next(last.as_ref(), feed.u64(), block(&mut feed), block(&mut feed));
                if last.is_none() {
                    next.sequence = feed.u64();
                }
                schema::put_checkpoint(&mut batch, &next);
                last = Some(next);
            }
        }
    }
    store.commit(batch, Durability::Durable).expect("short keys and values");
    corrupt_or(schema::tip(&store).err().map(Error::from));
    corrupt_or(schema::pending(&store).err().map(Error::from));
    match schema::checkpoints(&store) {
        Ok(chain) => {
            for pair in chain.windows(2) {
                assert_eq!(pair[1].previous, pair[0].hash());
                assert_eq!(pair[1].sequence, pair[0].sequence + 1);
            }
        }
        Err(error) => corrupt_or(Some(error.into())),
    }
    let params = &base().params;
    corrupt_or(schema::claim(&store, params.magic, params.genesis_hash()).err().map(Error::from));
}

/// Whatever the store holds, it is the store's fault.
fn corrupt_or(error: Option<Error>) {
    match error {
        None | Some(Error::MissingBlock(_)) => {}
        Some(Error::Store(error)) => {
            let kind = error.kind;
            assert!(matches!(kind, StoreErrorKind::Corrupt | StoreErrorKind::Unsupported), "{error}");
        }
        Some(error) => panic!("a damaged store is called {error:?}"),
    }
}

/// A header file of any content: what is dropped is gone, and records can be appended.
fn header_file_bytes(bytes: &[u8]) {
    let medium = MemoryMedium::new();
    medium.append(HEADER_FILE, &[bytes]).expect("in memory");
    let open = || HeaderFile::with_medium(Arc::new(medium.clone()), HEADER_FILE).expect("in memory");
    let (mut file, mut loaded) = open();
    let header = base().blocks[1].header;
    file.append_headers(&[header]).expect("in memory");
    file.sync().expect("in memory");
    loaded.records.push(Record::Header(header));
    let (_, again) = open();
    assert_eq!(again.records, loaded.records);
    assert_eq!(again.dropped, None, "the file was repaired before");
}

/// A header file that was written and then damaged: what is read is the front of what was written.
fn header_file_records(mut feed: Feed<'_>) {
    let medium = MemoryMedium::new();
    let open = || HeaderFile::with_medium(Arc::new(medium.clone()), HEADER_FILE).expect("in memory");
    let (mut file, _) = open();
    let mut written = Vec::new();
    for _ in 0..feed.u8() % 8 {
        if feed.bool() {
            let mark = if feed.bool() { HeaderMark::Invalid } else { HeaderMark::Reconsidered };
            let hash = BlockHash::from_byte_array([feed.u8(); 32]);
            file.append_mark(hash, mark).expect("in memory");
            written.push(Record::Mark(hash, mark));
        } else {
            let count = usize::from(feed.u8() % 8);
            let headers: Vec<Header> =
                (0..count).map(|_| base().blocks[feed.below(HEIGHT as usize)].header).collect();
            file.append_headers(&headers).expect("in memory");
            written.extend(headers.into_iter().map(Record::Header));
        }
    }
    file.sync().expect("in memory");
    drop(file);
    let mut bytes = content(&medium, HEADER_FILE);
    let whole = bytes.clone();
    tamper(&mut feed, &mut bytes);
    medium.truncate(HEADER_FILE, 0).expect("it is there");
    medium.append(HEADER_FILE, &[&bytes]).expect("in memory");
    let (_, loaded) = open();
    if bytes.starts_with(&whole) {
        assert_eq!(loaded.records, written);
    }
    assert!(written.starts_with(&loaded.records), "damage was read as records");
}

/// Changes some bytes, cuts the end or adds one.
pub fn tamper(feed: &mut Feed<'_>, bytes: &mut Vec<u8>) {
    for _ in 0..feed.u8() % 4 {
        match feed.u8() % 4 {
            0 => bytes.truncate(feed.below(bytes.len() + 1)),
            1 => bytes.extend_from_slice(feed.bytes()),
            _ => {
                let at = feed.below(bytes.len().max(1));
                let change = feed.u8();
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= change;
                }
            }
        }
    }
}

/// The base's store with entries changed, removed and added, and its header file damaged: opening says what
/// is wrong or succeeds, and then goes on as far as it can.
fn tampered(mut feed: Feed<'_>) {
    let base = base();
    let ground = base.ground();
    let mut batch = Batch::new();
    for _ in 0..1 + feed.u8() % 3 {
        let table = Table::ALL[feed.below(3)];
        let all = ground.store.range(table, Bound::Unbounded, Bound::Unbounded, 1_000).expect("in memory");
        let Some((key, mut value)) = feed.pick(&all).cloned() else { continue };
        match feed.u8() % 4 {
            0 => batch.delete(table, key),
            1 => {
                let mut other = key;
                tamper(&mut feed, &mut other);
                batch.put(table, other, value);
            }
            2 => {
                let (from, to) = (feed.below(base.blocks.len()), feed.below(base.blocks.len()));
                let block =
                    |at: usize| headlong::BlockRef { height: at as u32, hash: base.blocks[at].block_hash() };
                let pending = schema::Pending { from: block(from), to: block(to) };
                schema::put_pending(&mut batch, pending);
            }
            _ => {
                tamper(&mut feed, &mut value);
                batch.put(table, key, value);
            }
        }
    }
    batch_or_nothing(&ground.store, batch);
    if feed.bool() {
        let mut bytes = content(&ground.medium, HEADER_FILE);
        tamper(&mut feed, &mut bytes);
        ground.medium.truncate(HEADER_FILE, 0).expect("it is there");
        ground.medium.append(HEADER_FILE, &[&bytes]).expect("in memory");
    }
    match ground.open(&base.params) {
        Ok(front) => go_on(front, feed),
        // A defect of coins or undo data that a replay or a step of the activation meets.
        Err(Error::Bug(_)) => {}
        Err(error) => corrupt_or(Some(error)),
    }
}

/// Keys that grew too long are no business of this target.
fn batch_or_nothing(store: &MemoryStore, batch: Batch) {
    if batch.check_sizes().is_ok() {
        store.commit(batch, Durability::Durable).expect("in memory");
    }
}

/// Reads, moves and writes; failures end it, panics are the finding.
fn go_on(mut front: Front, mut feed: Feed<'_>) {
    let base = base();
    let _ = front.chainstate().utxo_stats();
    for block in &base.blocks {
        let _ = front.chainstate().read_block(&block.block_hash());
    }
    let at = HEIGHT as usize - feed.below(4);
    if front.invalidate(&base.blocks[at].block_hash()).is_err() {
        return;
    }
    for block in &base.blocks[at..] {
        if front.process_block(bitcoin::consensus::serialize(block)).is_err() {
            return;
        }
    }
    if front.reconsider(&base.blocks[at].block_hash()).is_ok() {
        let _ = front.commit();
    }
}
