//! Stored blocks and undo data: the block files, and the index that says where each lies.
//!
//! Entries of the index that are not committed yet are kept here and hide the store's; a commit writes them
//! before the coins, while others come. After a crash, blocks that were stored since the last commit are in the files without
//! an entry: they are fetched again, and their bytes stay unused until their segment is pruned.
//!
//! What an entry says of a segment that is not there counts for nothing: it was pruned.

use super::prune::Segments;
use super::undo;
use crate::chain::command::BlockRef;
use crate::store::block_files::{BlockFiles, Location};
use crate::store::coin::Coin;
use crate::store::schema::{self, BlockEntry};
use crate::store::{Store, StoreError, StoreErrorKind};
use bitcoin::BlockHash;
use bitcoin::block::Header;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Block files with their index.
#[derive(Debug)]
pub(super) struct Archive {
    files: Arc<BlockFiles>,
    segments: Segments,
    store: Arc<dyn Store>,
    pending: BTreeMap<BlockHash, BlockEntry>,
    /// Entries that are being committed.
    on_the_way: Arc<BTreeMap<BlockHash, BlockEntry>>,
}

impl Archive {
    pub fn new(files: BlockFiles, store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let (pending, on_the_way) = (BTreeMap::new(), Arc::default());
        Ok(Self { segments: Segments::of(&files)?, files: Arc::new(files), store, pending, on_the_way })
    }

    fn entry(&self, hash: &BlockHash) -> Result<Option<BlockEntry>, StoreError> {
        Ok(self.written_entry(hash)?.map(|entry| self.what_is_there(entry)))
    }

    /// The entry as it was written.
    fn written_entry(&self, hash: &BlockHash) -> Result<Option<BlockEntry>, StoreError> {
        match self.pending.get(hash).or_else(|| self.on_the_way.get(hash)) {
            Some(entry) => Ok(Some(*entry)),
            None => schema::block_entry(&*self.store, *hash),
        }
    }

    /// An entry without what has been pruned.
    fn what_is_there(&self, entry: BlockEntry) -> BlockEntry {
        let there = |location: &Location| self.segments.has(location);
        BlockEntry { block: entry.block.filter(there), undo: entry.undo.filter(there), ..entry }
    }

    /// Takes note of an entry of the store at the start; what of it is there.
    pub fn note(&mut self, entry: BlockEntry) -> BlockEntry {
        let entry = self.what_is_there(entry);
        for location in [entry.block, entry.undo].into_iter().flatten() {
            self.segments.note(&location, entry.height);
        }
        entry
    }

    /// The segments that are there.
    pub fn segments(&self) -> &Segments {
        &self.segments
    }

    /// The same, to prune.
    pub fn segments_mut(&mut self) -> &mut Segments {
        &mut self.segments
    }

    /// Whether a block was stored and its segment is gone.
    pub fn is_pruned(&self, hash: &BlockHash) -> Result<bool, StoreError> {
        let written = self.written_entry(hash)?.and_then(|entry| entry.block);
        Ok(written.is_some_and(|location| !self.segments.has(&location)))
    }

    /// The number of transactions of a stored block.
    pub fn transactions(&self, hash: &BlockHash) -> Result<Option<u32>, StoreError> {
        Ok(self.entry(hash)?.filter(|entry| entry.block.is_some()).map(|entry| entry.transactions))
    }

    /// The size of a stored block, in bytes.
    pub fn block_size(&self, hash: &BlockHash) -> Result<Option<usize>, StoreError> {
        Ok(self.entry(hash)?.and_then(|entry| entry.block).map(|location| location.length as usize))
    }

    /// A stored block's bytes; `None` if it is not stored or damaged.
    pub fn read_block(&self, hash: &BlockHash) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(hash, self.entry(hash)?.and_then(|entry| entry.block))
    }

    /// The header of a stored block, from its first bytes; `None` if it is not stored or damaged.
    pub fn read_header(&self, hash: &BlockHash) -> Result<Option<Header>, StoreError> {
        let Some(location) = self.entry(hash)?.and_then(|entry| entry.block) else { return Ok(None) };
        if_whole(self.files.read_header(location, *hash))
    }

    /// A block's undo data; `None` if it was never connected or the data is damaged.
    fn read_undo(&self, hash: &BlockHash) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(hash, self.entry(hash)?.and_then(|entry| entry.undo))
    }

    fn read(&self, hash: &BlockHash, location: Option<Location>) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(location) = location else { return Ok(None) };
        if_whole(self.files.read(location, *hash))
    }

    /// The coins that a block spent, to disconnect it; `None` if it was never connected or they are damaged.
    ///
    /// # Errors
    /// A storage failure.
    pub fn spent_coins(&self, hash: &BlockHash) -> Result<Option<Vec<Coin>>, StoreError> {
        Ok(self.read_undo(hash)?.and_then(|bytes| undo::decode(&bytes)))
    }

    /// Why a block cannot be read, for people: the file with the place, or that it is not stored.
    pub fn damage(&self, hash: &BlockHash) -> String {
        match self.written_entry(hash).map(|entry| entry.and_then(|entry| entry.block)) {
            Ok(None) => "not stored".to_owned(),
            Ok(Some(location)) => match self.files.read(location, *hash) {
                Ok(_) => "not what was stored".to_owned(),
                Err(error) if !self.segments.has(&location) => format!("{error}; pruned, if it was not lost"),
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        }
    }

    /// Appends a block.
    pub fn put_block(&mut self, block: BlockRef, bytes: &[u8], transactions: u32) -> Result<(), StoreError> {
        let undo = self.entry(&block.hash)?.and_then(|entry| entry.undo);
        let location = self.files.append_block(block.hash, bytes)?;
        self.segments.note(&location, block.height);
        let entry = BlockEntry { height: block.height, transactions, block: Some(location), undo };
        self.pending.insert(block.hash, entry);
        Ok(())
    }

    /// Appends the undo data of a stored block. What a block spends never changes, so data that is there
    /// already is kept.
    pub fn put_undo(&mut self, hash: &BlockHash, bytes: &[u8]) -> Result<(), StoreError> {
        if let Some(mut entry) = self.entry(hash)?
            && entry.undo.is_none()
        {
            let location = self.files.append_undo(*hash, bytes)?;
            self.segments.note(&location, entry.height);
            entry.undo = Some(location);
            self.pending.insert(*hash, entry);
        }
        Ok(())
    }

    /// Forgets where a block lies whose bytes are damaged, so that it can be stored anew.
    pub fn forget(&mut self, hash: &BlockHash) -> Result<(), StoreError> {
        self.change(hash, |entry| entry.block = None)
    }

    /// Forgets where undo data lies that is damaged, so that the block's next connection writes it anew.
    pub fn forget_undo(&mut self, hash: &BlockHash) -> Result<(), StoreError> {
        self.change(hash, |entry| entry.undo = None)
    }

    fn change(&mut self, hash: &BlockHash, change: impl FnOnce(&mut BlockEntry)) -> Result<(), StoreError> {
        if let Some(mut entry) = self.entry(hash)? {
            change(&mut entry);
            self.pending.insert(*hash, entry);
        }
        Ok(())
    }

    /// The files.
    pub fn files(&self) -> &Arc<BlockFiles> {
        &self.files
    }

    /// Makes all appended bytes durable.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.files.sync()
    }

    /// Entries that nobody commits yet.
    pub fn pending(&self) -> &BTreeMap<BlockHash, BlockEntry> {
        &self.pending
    }

    /// Hands these entries to a commit. They hide the store's until it has ended.
    pub fn hand_over(&mut self) -> Arc<BTreeMap<BlockHash, BlockEntry>> {
        self.on_the_way = Arc::new(core::mem::take(&mut self.pending));
        self.on_the_way.clone()
    }

    /// After the entries that were handed over are committed.
    pub fn committed(&mut self) {
        self.on_the_way = Arc::default();
    }
}

/// What is damaged counts as absent.
fn if_whole<T>(read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind == StoreErrorKind::Corrupt => Ok(None),
        Err(error) => Err(error),
    }
}
