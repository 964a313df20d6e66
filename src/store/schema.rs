//! Keys and values of the tables, byte by byte.
//!
//! Integers in values are little-endian, in keys big-endian, so that iteration is in numeric order. Hashes
//! are in internal byte order. A *block* below is its height (u32) and its hash, 36 bytes.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | Meta | `schema` | [`SCHEMA_VERSION`] (u32) |
//! | Meta | `network` | magic (4 bytes), hash of the genesis block (32) |
//! | Meta | `tip` | the block that the coins belong to |
//! | Meta | `pending` | two blocks, the old tip and the new: a flush between them is under way |
//! | Meta | `checkpoint/` and sequence (u64) | [`RollbackCheckpoint::to_bytes`], 120 bytes |
//! | Coins | txid (32), output index (u32) | [`Coin::encode`] |
//! | Blocks | hash of the block (32) | [`BlockEntry`], below |
//!
//! A block's entry:
//!
//! | bytes | content |
//! | --- | --- |
//! | 4 | height |
//! | 4 | number of transactions |
//! | 1 | bit 0: the block is stored; bit 1: its undo data are |
//! | 12 | for each of the two that is: segment, offset, length (u32 each) |
//!
//! Locations in segments that are not there any more count for nothing: they are pruned.
//!
//! Coins in key order are coins in the order of Bitcoin Core's `hash_serialized_3`.
//!
//! Decoders refuse with [`StoreErrorKind::Corrupt`], naming table and key; they never panic.

use super::block_files::{Location, RecordKind};
use super::coin::Coin;
use super::{Batch, Change, Store, StoreError, StoreErrorKind, Table};
use crate::chain::command::{BlockRef, RollbackCheckpoint};
use crate::limits::MAX_CHECKPOINTS;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, OutPoint, Txid};
use core::ops::Bound;
use std::fmt::Write;

/// Version of this schema.
pub const SCHEMA_VERSION: u32 = 3;

/// Key of the schema's version in [`Table::Meta`].
pub const KEY_SCHEMA: &[u8] = b"schema";
/// Key of the network in [`Table::Meta`].
pub const KEY_NETWORK: &[u8] = b"network";
/// Key of the tip in [`Table::Meta`].
pub const KEY_TIP: &[u8] = b"tip";
/// Key of the marker of a flush under way in [`Table::Meta`].
pub const KEY_PENDING: &[u8] = b"pending";
/// What remains to be done about a broken chain of checkpoints.
const WAY_OUT: &str = "the stored coins can't be trusted: start with an empty data directory, or restore a \
                       whole copy of this one";
const CHECKPOINT_PREFIX: &[u8] = b"checkpoint/";

/// Bytes of a coin's key.
pub const COIN_KEY_LEN: usize = 36;

/// The failure that a value is not what the schema says.
pub fn corrupt(table: Table, key: &[u8], what: &str) -> StoreError {
    let mut context = format!("table {}, key ", table.name());
    if table == Table::Meta && key.iter().all(u8::is_ascii_graphic) {
        context.push_str(&String::from_utf8_lossy(key));
    } else {
        for byte in key {
            let _ = write!(context, "{byte:02x}");
        }
    }
    let _ = write!(context, ": {what}");
    StoreError::new(StoreErrorKind::Corrupt, context)
}

// ---- Meta ----

/// Claims an empty store for a network, or checks that a used one belongs to it.
///
/// # Errors
/// `Unsupported`, naming both sides, if version or network differ; `Corrupt`; failures of the store.
pub fn claim(store: &dyn Store, magic: [u8; 4], genesis: BlockHash) -> Result<(), StoreError> {
    let network = [&magic[..], genesis.as_byte_array()].concat();
    let found = store.get_many(Table::Meta, &[KEY_SCHEMA, KEY_NETWORK])?;
    let mut found = found.into_iter().flatten();
    let (Some(version), Some(owner)) = (found.next(), found.next()) else {
        return claim_empty(store, network);
    };
    let version: [u8; 4] =
        version[..].try_into().map_err(|_| corrupt(Table::Meta, KEY_SCHEMA, "not 4 bytes"))?;
    let version = u32::from_le_bytes(version);
    if version != SCHEMA_VERSION {
        let context = format!("the store has schema version {version}, this program {SCHEMA_VERSION}");
        return Err(StoreError::new(StoreErrorKind::Unsupported, context));
    }
    if owner.len() != network.len() {
        return Err(corrupt(Table::Meta, KEY_NETWORK, "not 36 bytes"));
    }
    if owner != network {
        let name = |bytes: &[u8]| -> String {
            let genesis = BlockHash::from_slice(&bytes[4..]);
            let genesis = genesis.map(|hash| hash.to_string()).unwrap_or_default();
            format!("magic {:02x?} and genesis {genesis}", &bytes[..4])
        };
        let context = format!("the store belongs to {}, wanted is {}", name(&owner), name(&network));
        return Err(StoreError::new(StoreErrorKind::Unsupported, context));
    }
    Ok(())
}

fn claim_empty(store: &dyn Store, network: Vec<u8>) -> Result<(), StoreError> {
    for table in Table::ALL {
        if let Some((key, _)) = store.range(table, Bound::Unbounded, Bound::Unbounded, 1)?.pop() {
            return Err(corrupt(table, &key, "the store has content, but no version and network"));
        }
    }
    let mut batch = Batch::new();
    batch.put(Table::Meta, KEY_SCHEMA, SCHEMA_VERSION.to_le_bytes());
    batch.put(Table::Meta, KEY_NETWORK, network);
    store.commit(batch, super::Durability::Durable)
}

/// A block as height and hash, 36 bytes.
pub fn encode_block_ref(block: BlockRef) -> [u8; 36] {
    let mut out = [0; 36];
    out[..4].copy_from_slice(&block.height.to_le_bytes());
    out[4..].copy_from_slice(block.hash.as_byte_array());
    out
}

fn decode_block_ref(bytes: &[u8; 36]) -> BlockRef {
    let (height, hash) = bytes.split_first_chunk().unwrap_or((&[0; 4], &[]));
    let hash = BlockHash::from_slice(hash).unwrap_or(BlockHash::all_zeros());
    BlockRef { height: u32::from_le_bytes(*height), hash }
}

/// The block that the coins belong to; `None` in a new store.
///
/// # Errors
/// `Corrupt`; failures of the store.
pub fn tip(store: &dyn Store) -> Result<Option<BlockRef>, StoreError> {
    let Some(value) = store.get(Table::Meta, KEY_TIP)? else { return Ok(None) };
    let bytes = value[..].try_into().map_err(|_| corrupt(Table::Meta, KEY_TIP, "not 36 bytes"))?;
    Ok(Some(decode_block_ref(bytes)))
}

/// Sets the tip.
pub fn put_tip(batch: &mut Batch, tip: BlockRef) {
    batch.put(Table::Meta, KEY_TIP, encode_block_ref(tip));
}

/// A flush under way, from one tip to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The tip before.
    pub from: BlockRef,
    /// The tip after.
    pub to: BlockRef,
}

/// The marker of a flush under way; `None` if the coins are those of the tip.
///
/// # Errors
/// `Corrupt`; failures of the store.
pub fn pending(store: &dyn Store) -> Result<Option<Pending>, StoreError> {
    let Some(value) = store.get(Table::Meta, KEY_PENDING)? else { return Ok(None) };
    let bad = || corrupt(Table::Meta, KEY_PENDING, "not 72 bytes");
    let (from, to) = value.split_first_chunk().ok_or_else(bad)?;
    let to = to.try_into().map_err(|_| bad())?;
    Ok(Some(Pending { from: decode_block_ref(from), to: decode_block_ref(to) }))
}

/// Sets the marker.
pub fn put_pending(batch: &mut Batch, pending: Pending) {
    let value = [encode_block_ref(pending.from), encode_block_ref(pending.to)].concat();
    batch.put(Table::Meta, KEY_PENDING, value);
}

/// Removes the marker.
pub fn clear_pending(batch: &mut Batch) {
    batch.delete(Table::Meta, KEY_PENDING);
}

fn checkpoint_key(sequence: u64) -> Vec<u8> {
    [CHECKPOINT_PREFIX, &sequence.to_be_bytes()].concat()
}

/// Adds a checkpoint and removes the one that is [`MAX_CHECKPOINTS`] older.
pub fn put_checkpoint(batch: &mut Batch, checkpoint: &RollbackCheckpoint) {
    batch.put(Table::Meta, checkpoint_key(checkpoint.sequence), checkpoint.to_bytes());
    if let Some(old) = checkpoint.sequence.checked_sub(MAX_CHECKPOINTS as u64) {
        batch.delete(Table::Meta, checkpoint_key(old));
    }
}

/// The kept checkpoints, oldest first, their chain checked.
///
/// # Errors
/// `Corrupt`, naming the first that does not follow the one before, and the way out; failures of the store.
pub fn checkpoints(store: &dyn Store) -> Result<Vec<RollbackCheckpoint>, StoreError> {
    let (first, last) = (checkpoint_key(0), checkpoint_key(u64::MAX));
    let bounds = (Bound::Included(&first[..]), Bound::Included(&last[..]));
    let mut chain: Vec<RollbackCheckpoint> = Vec::new();
    for (key, value) in store.range(Table::Meta, bounds.0, bounds.1, MAX_CHECKPOINTS + 1)? {
        let bad = |what: &str| corrupt(Table::Meta, &key, &format!("rollback checkpoint: {what}; {WAY_OUT}"));
        let next = RollbackCheckpoint::from_bytes(&value).ok_or_else(|| bad("not 120 bytes"))?;
        if key != checkpoint_key(next.sequence) {
            return Err(bad("another checkpoint than the key says"));
        }
        if let Some(previous) = chain.last() {
            let follows = previous.sequence.checked_add(1) == Some(next.sequence);
            if !follows || previous.hash() != next.previous {
                return Err(bad("does not follow the checkpoint before"));
            }
            // From where the one before led, or where it began if that change was undone.
            if next.from != previous.to && next.from != previous.from {
                return Err(bad("does not start where the checkpoint before led"));
            }
        }
        chain.push(next);
    }
    Ok(chain)
}

// ---- Coins ----

/// Key of a coin: txid as it is hashed, output index big-endian.
pub fn coin_key(outpoint: &OutPoint) -> [u8; COIN_KEY_LEN] {
    let mut key = [0; COIN_KEY_LEN];
    key[..32].copy_from_slice(outpoint.txid.as_byte_array());
    key[32..].copy_from_slice(&outpoint.vout.to_be_bytes());
    key
}

/// The outpoint of a coin's key.
///
/// # Errors
/// `Corrupt` if the key has another length than 36.
pub fn decode_coin_key(key: &[u8]) -> Result<OutPoint, StoreError> {
    let bad = || corrupt(Table::Coins, key, "not a coin's key");
    let (txid, vout) = key.split_first_chunk::<32>().ok_or_else(bad)?;
    let vout = u32::from_be_bytes(vout.try_into().map_err(|_| bad())?);
    Ok(OutPoint { txid: Txid::from_byte_array(*txid), vout })
}

/// The coin of a value.
///
/// # Errors
/// `Corrupt` if it is not one.
pub fn decode_coin(key: &[u8], value: &[u8]) -> Result<Coin, StoreError> {
    Coin::decode(value).ok_or_else(|| corrupt(Table::Coins, key, "not a coin"))
}

// ---- Blocks ----

/// Where a block's data lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockEntry {
    /// The block's height.
    pub height: u32,
    /// Its transactions.
    pub transactions: u32,
    /// Its bytes, if they are stored; of kind [`RecordKind::Block`].
    pub block: Option<Location>,
    /// Its undo data, if they are; of kind [`RecordKind::Undo`].
    pub undo: Option<Location>,
}

impl BlockEntry {
    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(33);
        out.extend_from_slice(&self.height.to_le_bytes());
        out.extend_from_slice(&self.transactions.to_le_bytes());
        out.push(u8::from(self.block.is_some()) | u8::from(self.undo.is_some()) << 1);
        for location in [self.block, self.undo].into_iter().flatten() {
            for field in [location.segment, location.offset, location.length] {
                out.extend_from_slice(&field.to_le_bytes());
            }
        }
        out
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// `Corrupt` for anything else.
    pub fn decode(hash: BlockHash, value: &[u8]) -> Result<Self, StoreError> {
        Self::parse(value).ok_or_else(|| corrupt(Table::Blocks, hash.as_byte_array(), "not a block's entry"))
    }

    fn parse(mut value: &[u8]) -> Option<Self> {
        fn take(value: &mut &[u8]) -> Option<u32> {
            let (field, rest) = value.split_first_chunk()?;
            *value = rest;
            Some(u32::from_le_bytes(*field))
        }
        fn location(value: &mut &[u8], kind: RecordKind) -> Option<Location> {
            let (segment, offset, length) = (take(value)?, take(value)?, take(value)?);
            Some(Location { kind, segment, offset, length })
        }
        let (height, transactions) = (take(&mut value)?, take(&mut value)?);
        let (&flags, rest) = value.split_first()?;
        value = rest;
        let mut entry = Self { height, transactions, block: None, undo: None };
        if flags & 1 != 0 {
            entry.block = Some(location(&mut value, RecordKind::Block)?);
        }
        if flags & 2 != 0 {
            entry.undo = Some(location(&mut value, RecordKind::Undo)?);
        }
        (value.is_empty() && flags <= 3).then_some(entry)
    }
}

/// The entry of a block.
///
/// # Errors
/// `Corrupt`; failures of the store.
pub fn block_entry(store: &dyn Store, hash: BlockHash) -> Result<Option<BlockEntry>, StoreError> {
    let value = store.get(Table::Blocks, hash.as_byte_array())?;
    value.map(|value| BlockEntry::decode(hash, &value)).transpose()
}

/// Sets the entry of a block.
pub fn put_block_entry(batch: &mut Batch, hash: BlockHash, entry: &BlockEntry) {
    batch.push(block_entry_change(&hash, entry));
}

/// The change that sets the entry of a block.
pub(crate) fn block_entry_change(hash: &BlockHash, entry: &BlockEntry) -> Change {
    Change::Put(Table::Blocks, hash.as_byte_array().to_vec(), entry.encode())
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryStore;
    use super::super::{Durability, Entry};
    use super::*;
    use bitcoin::{Amount, ScriptBuf, TxOut};
    use proptest::prelude::*;

    const MAGIC: [u8; 4] = [1, 2, 3, 4];

    fn block(n: u32) -> BlockRef {
        BlockRef { height: n, hash: BlockHash::from_byte_array([n as u8; 32]) }
    }

    fn commit(store: &MemoryStore, change: impl FnOnce(&mut Batch)) {
        let mut batch = Batch::new();
        change(&mut batch);
        store.commit(batch, Durability::Buffered).unwrap();
    }

    #[test]
    fn a_store_belongs_to_one_network_and_version() {
        let store = MemoryStore::new();
        claim(&store, MAGIC, block(1).hash).unwrap();
        claim(&store, MAGIC, block(1).hash).unwrap();
        for (magic, genesis) in [([9; 4], block(1).hash), (MAGIC, block(2).hash)] {
            let error = claim(&store, magic, genesis).unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Unsupported);
            let text = error.to_string();
            assert!(text.contains(&block(1).hash.to_string()) && text.contains(&genesis.to_string()));
        }
        let later = store.fork();
        commit(&later, |b| b.put(Table::Meta, KEY_SCHEMA, (SCHEMA_VERSION + 1).to_le_bytes()));
        let error = claim(&later, MAGIC, block(1).hash).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Unsupported);
        let both = format!("version {}, this program {SCHEMA_VERSION}", SCHEMA_VERSION + 1);
        assert!(error.to_string().contains(&both), "{error}");
        for key in [KEY_SCHEMA, KEY_NETWORK] {
            let damaged = store.fork();
            commit(&damaged, |b| b.put(Table::Meta, key, [1, 0, 0]));
            assert_eq!(claim(&damaged, MAGIC, block(1).hash).unwrap_err().kind, StoreErrorKind::Corrupt);
            let missing = store.fork();
            commit(&missing, |b| b.delete(Table::Meta, key));
            assert_eq!(claim(&missing, MAGIC, block(1).hash).unwrap_err().kind, StoreErrorKind::Corrupt);
        }
        let foreign = MemoryStore::new();
        commit(&foreign, |b| b.put(Table::Coins, [0xab], [1]));
        let error = claim(&foreign, MAGIC, block(1).hash).unwrap_err();
        assert!(error.to_string().contains("table coins, key ab"), "{error}");
    }

    #[test]
    fn tip_and_marker() {
        let store = MemoryStore::new();
        assert_eq!((tip(&store).unwrap(), pending(&store).unwrap()), (None, None));
        let flush = Pending { from: block(5), to: block(9) };
        commit(&store, |b| {
            put_tip(b, block(5));
            put_pending(b, flush);
        });
        assert_eq!((tip(&store).unwrap(), pending(&store).unwrap()), (Some(block(5)), Some(flush)));
        commit(&store, clear_pending);
        assert_eq!(pending(&store).unwrap(), None);
        for bad in [0, 35, 37, 71, 73] {
            commit(&store, |b| {
                b.put(Table::Meta, KEY_TIP, vec![1; bad]);
                b.put(Table::Meta, KEY_PENDING, vec![1; bad]);
            });
            let error = tip(&store).unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Corrupt);
            assert!(error.to_string().contains("table meta, key tip"), "{error}");
            assert!(pending(&store).unwrap_err().to_string().contains("key pending"));
        }
    }

    #[test]
    fn checkpoints_are_a_bounded_chain() {
        let store = MemoryStore::new();
        assert_eq!(checkpoints(&store).unwrap(), []);
        let mut last = None;
        // Past the sequences at which the first byte of a little-endian key would break the order.
        for n in 0..300 {
            let next = RollbackCheckpoint::next(last.as_ref(), 1000 + u64::from(n), block(n), block(n + 1));
            commit(&store, |b| put_checkpoint(b, &next));
            last = Some(next);
        }
        let kept = checkpoints(&store).unwrap();
        assert_eq!((kept.len(), kept.last()), (MAX_CHECKPOINTS, last.as_ref()));
        let victim = kept[MAX_CHECKPOINTS / 2].clone();
        type Damage<'a> = Box<dyn Fn(&mut Batch) + 'a>;
        let damage: [Damage<'_>; 4] = [
            Box::new(|b| b.delete(Table::Meta, checkpoint_key(victim.sequence))),
            Box::new(|b| b.put(Table::Meta, checkpoint_key(victim.sequence), [0; 119])),
            Box::new(|b| b.put(Table::Meta, checkpoint_key(victim.sequence), [0; 120])),
            Box::new(|b| put_checkpoint(b, &RollbackCheckpoint { time: 0, ..victim.clone() })),
        ];
        for change in damage {
            let store = store.fork();
            commit(&store, |b| change(b));
            assert_eq!(checkpoints(&store).unwrap_err().kind, StoreErrorKind::Corrupt);
        }
    }

    #[test]
    fn coins_iterate_in_the_order_of_the_utxo_hash() {
        let store = MemoryStore::new();
        let txid = |n| Txid::from_byte_array([n; 32]);
        let ordered = [(1, 0), (1, 1), (1, 255), (1, 256), (1, 65_536), (2, 0), (255, 3)];
        for (n, vout) in ordered.iter().rev() {
            let outpoint = OutPoint { txid: txid(*n), vout: *vout };
            let output = TxOut { value: Amount::from_sat(u64::from(*vout)), script_pubkey: ScriptBuf::new() };
            let coin = Coin { height: 3, coinbase: false, output };
            commit(&store, |b| b.put(Table::Coins, coin_key(&outpoint), coin.encode()));
        }
        let entries: Vec<Entry> =
            store.range(Table::Coins, Bound::Unbounded, Bound::Unbounded, usize::MAX).unwrap();
        let found: Vec<(u8, u32)> = entries
            .iter()
            .map(|(key, value)| {
                let outpoint = decode_coin_key(key).unwrap();
                let coin = decode_coin(key, value).unwrap();
                assert_eq!(coin.output.value.to_sat(), u64::from(outpoint.vout));
                (outpoint.txid.to_byte_array()[0], outpoint.vout)
            })
            .collect();
        assert_eq!(found, ordered);
        let error = decode_coin(&[0xab; 36], &[]).unwrap_err();
        assert!(error.kind == StoreErrorKind::Corrupt && error.to_string().contains("abab"));
        for len in [0, 31, 32, 35, 37] {
            assert_eq!(decode_coin_key(&vec![0; len]).unwrap_err().kind, StoreErrorKind::Corrupt);
        }
    }

    fn locations(kind: RecordKind) -> impl Strategy<Value = Option<Location>> {
        let fields = any::<(u32, u32, u32)>();
        let location =
            fields.prop_map(move |(segment, offset, length)| Location { kind, segment, offset, length });
        proptest::option::of(location)
    }

    proptest! {
        #[test]
        fn block_entries(
            height: u32,
            transactions: u32,
            block in locations(RecordKind::Block),
            undo in locations(RecordKind::Undo),
        ) {
            let entry = BlockEntry { height, transactions, block, undo };
            let hash = BlockHash::from_byte_array([9; 32]);
            let store = MemoryStore::new();
            prop_assert_eq!(block_entry(&store, hash).unwrap(), None);
            commit(&store, |b| put_block_entry(b, hash, &entry));
            prop_assert_eq!(block_entry(&store, hash).unwrap(), Some(entry));
            let bytes = entry.encode();
            for len in 0..bytes.len() {
                prop_assert!(BlockEntry::decode(hash, &bytes[..len]).is_err());
            }
            prop_assert!(BlockEntry::decode(hash, &[&bytes[..], &[0]].concat()).is_err());
        }

        #[test]
        fn any_bytes_are_an_entry_or_corrupt(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            match BlockEntry::decode(block(1).hash, &bytes) {
                Ok(entry) => prop_assert_eq!(entry.encode(), bytes),
                Err(e) => prop_assert_eq!(e.kind, StoreErrorKind::Corrupt),
            }
        }
    }
}
