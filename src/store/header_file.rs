//! Accepted headers and marks on them, in an append-only file with checksums.
//!
//! Integers are little-endian. The file begins with `HLHEADR1`; groups follow without gaps:
//!
//! | at | bytes | content |
//! | --- | --- | --- |
//! | 0 | 4 | `HLHG` |
//! | 4 | 1 | kind: 1 headers, 2 a mark |
//! | 5 | 3 | zero |
//! | 8 | 4 | number of entries; 1 for a mark |
//! | 12 | 8 | SipHash-2-4 (fixed key) of the group's offset (u64), the 12 bytes before and the payload |
//! | 20 | n × 80 | headers as they are hashed |
//! | 20 | 33 | or a mark: 1 invalid, 2 reconsidered; the block's hash (internal byte order) |
//!
//! One checksum for each appended group makes a million headers quick to read.
//!
//! At open everything from the first group that is cut or damaged is dropped and the caller is told
//! ([`Dropped`]): peers have the headers still, and later groups may build on the lost ones. Whether the
//! records form a chain is checked by the block tree.

use super::StoreError;
use super::block_files::check;
use super::medium::{FolderMedium, Medium, Tail};
use crate::chain::command::HeaderMark;
use crate::limits::MAX_HEADER_GROUP;
use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::encode;
use bitcoin::hashes::Hash;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

/// The file's usual name.
pub const HEADER_FILE: &str = "headers.dat";

const MAGIC: &[u8; 8] = b"HLHEADR1";
const GROUP_MAGIC: &[u8; 4] = b"HLHG";
const GROUP_HEAD: usize = 20;
const HEADER: usize = 80;
const MARK: usize = 33;
const KIND_HEADERS: u8 = 1;
const KIND_MARK: u8 = 2;
const KEY: (u64, u64) = (0x6865_6164_6c6f_6e67, 0x6865_6164_6572_7331);
const BUFFER: usize = 1 << 20;

/// One record of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// A header, its parent before it.
    Header(Header),
    /// A mark on an earlier header.
    Mark(BlockHash, HeaderMark),
}

/// The end of a file that was cut or damaged and has been dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The file.
    pub file: String,
    /// Offset of the first dropped byte.
    pub offset: u64,
    /// Number of dropped bytes.
    pub bytes: u64,
}

/// What opening read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loaded {
    /// The records in the order of their appending.
    pub records: Vec<Record>,
    /// What had to be dropped, if anything: the records that it held are missing from `records` and have
    /// to be had again.
    pub dropped: Option<Dropped>,
}

/// The open file.
#[derive(Debug)]
pub struct HeaderFile {
    tail: Tail,
}

impl HeaderFile {
    /// Opens [`HEADER_FILE`] in a folder; both are created if absent.
    ///
    /// # Errors
    /// Failures of the operating system. Damaged content is no error, see [`Loaded::dropped`].
    pub fn open(folder: &Path) -> Result<(Self, Loaded), StoreError> {
        let medium = FolderMedium::open(folder)
            .map_err(|e| StoreError::io(format!("open folder {}", folder.display()), e))?;
        Self::with_medium(Arc::new(medium), HEADER_FILE)
    }

    /// Opens the file `name` of any medium.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn with_medium(medium: Arc<dyn Medium>, name: &str) -> Result<(Self, Loaded), StoreError> {
        let describe = medium.describe(name);
        let failed = |e| StoreError::io(describe.clone(), e);
        let end = match medium.len(name) {
            Ok(len) => Some(len),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(failed(e)),
        };
        let mut loaded = Loaded::default();
        let mut good = 0;
        if let Some(end) = end {
            let reader = Reader { medium: &*medium, name, at: 0, end };
            let mut reader = BufReader::with_capacity(BUFFER, reader);
            good = load(&mut reader, end, &mut loaded.records).map_err(failed)?;
            if good < end {
                loaded.dropped = Some(Dropped { file: describe, offset: good, bytes: end - good });
            }
        }
        let torn = loaded.dropped.is_some();
        let mut tail = Tail::new(medium, name.to_owned(), good, torn);
        if good == 0 {
            tail.append(&[MAGIC])?;
        } else if torn {
            tail.append(&[])?;
        }
        tail.sync()?;
        Ok((Self { tail }, loaded))
    }

    /// Appends headers, parents first. They are durable after the next [`Self::sync`].
    ///
    /// # Errors
    /// Failures of the medium. More than [`MAX_HEADER_GROUP`] headers are several groups, of which the
    /// first ones may have been appended then.
    pub fn append_headers(&mut self, headers: &[Header]) -> Result<(), StoreError> {
        for group in headers.chunks(MAX_HEADER_GROUP) {
            let mut payload = Vec::with_capacity(group.len() * HEADER);
            for header in group {
                payload.extend_from_slice(&encode::serialize(header));
            }
            self.append(KIND_HEADERS, group.len() as u32, &payload)?;
        }
        Ok(())
    }

    /// Appends a mark. It is durable after the next [`Self::sync`].
    ///
    /// # Errors
    /// Failures of the medium, after which nothing was appended.
    pub fn append_mark(&mut self, hash: BlockHash, mark: HeaderMark) -> Result<(), StoreError> {
        let mut payload = [0; MARK];
        payload[0] = match mark {
            HeaderMark::Invalid => 1,
            HeaderMark::Reconsidered => 2,
        };
        payload[1..].copy_from_slice(hash.as_byte_array());
        self.append(KIND_MARK, 1, &payload)
    }

    /// Makes all appended records durable.
    ///
    /// # Errors
    /// `Full` or `Corrupt`: what was appended since the last success may be lost, and the file must be
    /// opened anew.
    pub fn sync(&mut self) -> Result<(), StoreError> {
        self.tail.sync()
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.tail.len()
    }

    fn append(&mut self, kind: u8, count: u32, payload: &[u8]) -> Result<(), StoreError> {
        let mut head = [0; GROUP_HEAD];
        head[..4].copy_from_slice(GROUP_MAGIC);
        head[4] = kind;
        head[8..12].copy_from_slice(&count.to_le_bytes());
        let own = group_check(self.tail.len(), &head, payload);
        head[12..].copy_from_slice(&own.to_le_bytes());
        self.tail.append(&[&head, payload]).map(drop)
    }
}

fn group_check(offset: u64, head: &[u8; GROUP_HEAD], payload: &[u8]) -> u64 {
    check(KEY, &[&offset.to_le_bytes(), &head[..12], payload])
}

/// Reads groups up to the end or the first bad one; returns where the good ones end.
fn load(reader: &mut impl Read, end: u64, records: &mut Vec<Record>) -> io::Result<u64> {
    let mut magic = [0; MAGIC.len()];
    if end < magic.len() as u64 {
        return Ok(0);
    }
    reader.read_exact(&mut magic)?;
    if magic != *MAGIC {
        return Ok(0);
    }
    let mut at = magic.len() as u64;
    let mut payload = Vec::new();
    while end - at >= GROUP_HEAD as u64 {
        let mut head = [0; GROUP_HEAD];
        reader.read_exact(&mut head)?;
        let Some(size) = payload_size(&head) else { break };
        let next = at + (GROUP_HEAD + size) as u64;
        if next > end {
            break;
        }
        payload.resize(size, 0);
        reader.read_exact(&mut payload)?;
        if head[12..] != group_check(at, &head, &payload).to_le_bytes() {
            break;
        }
        let before = records.len();
        if !decode_payload(head[4], &payload, records) {
            records.truncate(before);
            break;
        }
        at = next;
    }
    Ok(at)
}

/// Bytes of a group's payload, bounded by [`MAX_HEADER_GROUP`].
fn payload_size(head: &[u8; GROUP_HEAD]) -> Option<usize> {
    let count = u32::from_le_bytes(*head[8..].first_chunk()?) as usize;
    match head[4] {
        _ if !head.starts_with(GROUP_MAGIC) => None,
        KIND_HEADERS if (1..=MAX_HEADER_GROUP).contains(&count) => Some(count * HEADER),
        KIND_MARK if count == 1 => Some(MARK),
        _ => None,
    }
}

fn decode_payload(kind: u8, payload: &[u8], records: &mut Vec<Record>) -> bool {
    if kind == KIND_HEADERS {
        return payload.chunks_exact(HEADER).all(|bytes| {
            let header = encode::deserialize(bytes).map(Record::Header);
            header.map(|record| records.push(record)).is_ok()
        });
    }
    let mark = match payload.first() {
        Some(1) => HeaderMark::Invalid,
        Some(2) => HeaderMark::Reconsidered,
        _ => return false,
    };
    let Ok(hash) = BlockHash::from_slice(&payload[1..]) else { return false };
    records.push(Record::Mark(hash, mark));
    true
}

/// A medium's file as a stream.
struct Reader<'a> {
    medium: &'a dyn Medium,
    name: &'a str,
    at: u64,
    end: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let part = (self.end - self.at).min(buffer.len() as u64) as usize;
        self.medium.read_at(self.name, self.at, &mut buffer[..part])?;
        self.at += part as u64;
        Ok(part)
    }
}

#[cfg(test)]
mod tests {
    use super::super::medium::MemoryMedium;
    use super::*;
    use bitcoin::block::Version;
    use bitcoin::{CompactTarget, TxMerkleNode};
    use proptest::prelude::*;

    fn header(n: u32) -> Header {
        Header {
            version: Version::ONE,
            prev_blockhash: BlockHash::from_byte_array([n as u8; 32]),
            merkle_root: TxMerkleNode::from_byte_array([7; 32]),
            time: n,
            bits: CompactTarget::from_consensus(0x207f_ffff),
            nonce: n,
        }
    }

    fn open(medium: &MemoryMedium) -> (HeaderFile, Loaded) {
        HeaderFile::with_medium(Arc::new(medium.clone()), "h").unwrap()
    }

    fn content(medium: &MemoryMedium) -> Vec<u8> {
        let mut bytes = vec![0; medium.len("h").unwrap() as usize];
        medium.read_at("h", 0, &mut bytes).unwrap();
        bytes
    }

    fn medium_with(bytes: &[u8]) -> MemoryMedium {
        let medium = MemoryMedium::new();
        medium.append("h", &[bytes]).unwrap();
        medium
    }

    /// A small file, its records, and where its groups end with the number of records up to there.
    fn sample() -> (Vec<u8>, Vec<Record>, Vec<(usize, usize)>) {
        let medium = MemoryMedium::new();
        let (mut file, loaded) = open(&medium);
        assert_eq!(loaded, Loaded::default());
        let mut records = Vec::new();
        let mut ends = vec![(MAGIC.len(), 0)];
        for group in [&[1, 2][..], &[3], &[4, 5, 6]] {
            let headers: Vec<Header> = group.iter().map(|n| header(*n)).collect();
            file.append_headers(&headers).unwrap();
            records.extend(headers.into_iter().map(Record::Header));
            ends.push((file.bytes() as usize, records.len()));
            let mark = if group[0] == 3 { HeaderMark::Reconsidered } else { HeaderMark::Invalid };
            let hash = header(group[0]).block_hash();
            file.append_mark(hash, mark).unwrap();
            records.push(Record::Mark(hash, mark));
            ends.push((file.bytes() as usize, records.len()));
        }
        file.sync().unwrap();
        (content(&medium), records, ends)
    }

    /// What opening a cut or damaged copy must yield: the records of the groups before `bad`.
    fn expect_prefix(bytes: &[u8], bad: usize) {
        let (_, records, ends) = sample();
        let (good, count) = ends.iter().rev().find(|(end, _)| *end <= bad).copied().unwrap_or((0, 0));
        let medium = medium_with(bytes);
        let (mut file, loaded) = open(&medium);
        assert_eq!(loaded.records, records[..count], "at {bad}");
        let lost = (bytes.len() - good) as u64;
        let dropped = Dropped { file: "h".into(), offset: good as u64, bytes: lost };
        assert_eq!(loaded.dropped, (lost > 0).then_some(dropped), "at {bad}");
        // The rest is gone for good, and the file grows from there.
        file.append_headers(&[header(99)]).unwrap();
        let (_, again) = open(&medium);
        let expected: Vec<Record> =
            records[..count].iter().copied().chain([Record::Header(header(99))]).collect();
        assert_eq!((again.records, again.dropped), (expected, None), "at {bad}");
    }

    #[test]
    fn records_come_back_in_order() {
        let (bytes, records, _) = sample();
        let (_, loaded) = open(&medium_with(&bytes));
        assert_eq!(loaded, Loaded { records, dropped: None });
    }

    #[test]
    fn a_file_cut_anywhere_keeps_its_whole_groups() {
        let (bytes, ..) = sample();
        for len in 0..=bytes.len() {
            expect_prefix(&bytes[..len], len);
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_drops_the_rest_and_says_so() {
        let (bytes, ..) = sample();
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            expect_prefix(&bytes, at);
        }
    }

    #[test]
    fn groups_moved_within_the_file_are_not_taken() {
        let (bytes, _, ends) = sample();
        // The second group once more at the end.
        let again = [&bytes[..], &bytes[ends[1].0..ends[2].0]].concat();
        expect_prefix(&again, bytes.len());
    }

    #[test]
    fn claimed_counts_do_not_decide_what_is_allocated() {
        let mut head = [0; GROUP_HEAD];
        head[..4].copy_from_slice(GROUP_MAGIC);
        head[4] = KIND_HEADERS;
        for (count, size) in [(0, None), (1, Some(80)), (MAX_HEADER_GROUP as u32 + 1, None), (u32::MAX, None)]
        {
            head[8..12].copy_from_slice(&count.to_le_bytes());
            assert_eq!(payload_size(&head), size);
        }
    }

    #[test]
    fn many_headers_are_several_groups() {
        let medium = MemoryMedium::new();
        let (mut file, _) = open(&medium);
        let headers: Vec<Header> = (0..MAX_HEADER_GROUP as u32 + 5).map(header).collect();
        file.append_headers(&headers).unwrap();
        let (_, loaded) = open(&medium);
        assert!(loaded.records.into_iter().eq(headers.into_iter().map(Record::Header)));
        assert_eq!(loaded.dropped, None);
    }

    #[test]
    fn on_a_disk() {
        let folder = tempfile::tempdir().unwrap();
        let (mut file, _) = HeaderFile::open(folder.path()).unwrap();
        file.append_headers(&[header(1)]).unwrap();
        file.sync().unwrap();
        drop(file);
        std::fs::OpenOptions::new()
            .append(true)
            .open(folder.path().join(HEADER_FILE))
            .and_then(|mut f| std::io::Write::write_all(&mut f, b"HLHGtorn"))
            .unwrap();
        let (_, loaded) = HeaderFile::open(folder.path()).unwrap();
        assert_eq!(loaded.records, [Record::Header(header(1))]);
        let dropped = loaded.dropped.unwrap();
        assert_eq!((dropped.offset, dropped.bytes), (108, 8));
        assert!(dropped.file.ends_with(HEADER_FILE));
    }

    proptest! {
        #[test]
        fn any_bytes_open(bytes in proptest::collection::vec(any::<u8>(), 0..300), good in any::<bool>()) {
            let bytes = if good { [&MAGIC[..], &GROUP_MAGIC[..], &bytes].concat() } else { bytes };
            let (_, loaded) = open(&medium_with(&bytes));
            prop_assert_eq!(loaded.records, []);
        }
    }
}
