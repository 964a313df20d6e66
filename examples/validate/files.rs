//! Framed block files: magic, length (u32, little-endian), block.

use bitcoin::BlockHash;
use bitcoin::block::Header;
use headlong::chain::block_tree::BlockTree;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// A longer frame is not a block.
const MAX_BLOCK: u32 = 4_000_000;

/// Where a block lies.
pub struct FramedBlock {
    path: Rc<PathBuf>,
    offset: u64,
    length: u32,
    /// The block's hash.
    pub hash: BlockHash,
    parent: BlockHash,
    /// Its place among all frames.
    number: usize,
}

impl FramedBlock {
    /// The block's bytes.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let mut file = File::open(&*self.path)?;
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = vec![0; self.length as usize];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// Adds all frames of a file to `blocks`. Bytes between frames are skipped.
pub fn scan(path: &Path, magic: [u8; 4], blocks: &mut Vec<FramedBlock>) -> io::Result<()> {
    let path = Rc::new(path.to_owned());
    let mut file = BufReader::new(File::open(&*path)?);
    let end = file.get_ref().metadata()?.len();
    let mut at = 0;
    while end.saturating_sub(at) >= 88 {
        let mut head = [0; 88];
        file.read_exact(&mut head)?;
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let whole = (80..=MAX_BLOCK).contains(&length) && u64::from(length) + 8 <= end - at;
        let header = bitcoin::consensus::deserialize::<Header>(&head[8..]);
        let step = match header {
            Ok(header) if head[..4] == magic && whole => {
                let (hash, parent) = (header.block_hash(), header.prev_blockhash);
                let (path, number) = (path.clone(), blocks.len());
                blocks.push(FramedBlock { path, offset: at + 8, length, hash, parent, number });
                u64::from(length) + 8
            }
            _ => 1,
        };
        at += step;
        file.seek_relative(step as i64 - 88)?;
    }
    if at < end {
        eprintln!("{}: {} bytes at the end are no frame", path.display(), end - at);
    }
    Ok(())
}

/// Blocks whose parents have not come yet.
#[derive(Default)]
pub struct Waiting(HashMap<BlockHash, Vec<FramedBlock>>);

impl Waiting {
    /// Keeps a block until its parent is known, or gives it back if it need not wait.
    pub fn pass(&mut self, block: FramedBlock, tree: &BlockTree) -> Option<FramedBlock> {
        if tree.find(&block.parent).is_some() || tree.find(&block.hash).is_some() {
            return Some(block);
        }
        self.0.entry(block.parent).or_default().push(block);
        None
    }

    /// Those that waited for this block, if it is known now: a copy of it may have been refused.
    pub fn children(&mut self, parent: &BlockHash, tree: &BlockTree) -> Vec<FramedBlock> {
        tree.find(parent).and_then(|_| self.0.remove(parent)).unwrap_or_default()
    }

    /// Those whose parents never came, in the order of the files.
    pub fn rest(self) -> Vec<FramedBlock> {
        let mut rest: Vec<FramedBlock> = self.0.into_values().flatten().collect();
        rest.sort_by_key(|block| block.number);
        rest
    }
}
