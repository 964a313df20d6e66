//! Framed block files: magic, length (u32, little-endian), block.

use bitcoin::BlockHash;
use bitcoin::block::Header;
use headlong::chain::block_tree::BlockTree;
use std::collections::{HashMap, HashSet};
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
    hash: BlockHash,
    parent: BlockHash,
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

/// Finds all frames of a file. Bytes between frames are skipped.
pub fn scan(path: &Path, magic: [u8; 4]) -> io::Result<Vec<FramedBlock>> {
    let path = Rc::new(path.to_owned());
    let mut file = BufReader::new(File::open(&*path)?);
    let end = file.get_ref().metadata()?.len();
    let mut blocks = Vec::new();
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
                blocks.push(FramedBlock { path: path.clone(), offset: at + 8, length, hash, parent });
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
    Ok(blocks)
}

/// The blocks with each one behind its parent, if that is among them; otherwise in their order. Those whose
/// parent is nowhere come last.
pub fn in_order(blocks: Vec<FramedBlock>, tree: &BlockTree) -> Vec<FramedBlock> {
    let mut known: HashSet<BlockHash> = HashSet::new();
    let mut waiting: HashMap<BlockHash, Vec<FramedBlock>> = HashMap::new();
    let mut ordered = Vec::with_capacity(blocks.len());
    for block in blocks {
        if !known.contains(&block.parent)
            && tree.find(&block.parent).is_none()
            && tree.find(&block.hash).is_none()
        {
            waiting.entry(block.parent).or_default().push(block);
            continue;
        }
        let mut next = vec![block];
        while let Some(block) = next.pop() {
            known.insert(block.hash);
            let children = waiting.remove(&block.hash).unwrap_or_default();
            ordered.push(block);
            next.extend(children.into_iter().rev());
        }
    }
    let mut rest: Vec<FramedBlock> = waiting.into_values().flatten().collect();
    rest.sort_by(|a, b| (&a.path, a.offset).cmp(&(&b.path, b.offset)));
    ordered.append(&mut rest);
    ordered
}
