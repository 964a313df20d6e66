//! Block bytes and undo data in append-only segment files.
//!
//! Blocks lie in `blk-NNNNNN.dat`, undo data in `undo-NNNNNN.dat`. A segment that reached its size is
//! synced and left alone; the next one begins. So all but the last of each kind are whole, recovery reads
//! only the last, and pruning drops whole files.
//!
//! Integers are little-endian. A segment begins with a header of 40 bytes, durable before any record:
//!
//! | at | bytes | content |
//! | --- | --- | --- |
//! | 0 | 8 | `HLSEGMT1` |
//! | 8 | 1 | kind: 1 blocks, 2 undo data |
//! | 9 | 3 | zero |
//! | 12 | 4 | number of the segment |
//! | 16 | 16 | key of the segment's checksums, random |
//! | 32 | 8 | SipHash-2-4 of the 32 bytes before, with a fixed key |
//!
//! Records follow without gaps, each a head of 60 bytes and the payload:
//!
//! | at | bytes | content |
//! | --- | --- | --- |
//! | 0 | 4 | `HLRC` |
//! | 4 | 1 | kind |
//! | 5 | 3 | zero |
//! | 8 | 4 | bytes of the payload |
//! | 12 | 32 | hash of the block (internal byte order) |
//! | 44 | 8 | SipHash-2-4 of the payload |
//! | 52 | 8 | SipHash-2-4 of the record's offset (u64) and the 52 bytes before |
//!
//! The key is secret and the offset is covered, so a payload that looks like a record, or a stale copy of
//! one, is never taken for one. SipHash because it is fast without special instructions; against chance it
//! is as good as any 64 bits.
//!
//! # Recovery at open
//! 1. Of each kind the last segment is scanned; a header that is cut or empty means that the segment was
//!    being created: it is removed.
//! 2. Bytes after the last whole record are a torn append: cut off, and reported in [`Recovery`].
//! 3. Damage *before* a whole record is left where it is, reported, skipped by scans, and an error of
//!    kind `Corrupt` when it is read.
//!
//! Which blocks are valid, and where each one lies, is the index's business.

use super::medium::{FolderMedium, Medium, MemoryMedium, Tail};
use super::{StoreError, StoreErrorKind};
use crate::limits::MAX_RECORD;
use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::encode;
use bitcoin::hashes::{Hash, HashEngine, siphash24};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const SEGMENT_MAGIC: &[u8; 8] = b"HLSEGMT1";
const SEGMENT_HEADER: usize = 40;
const RECORD_MAGIC: &[u8; 4] = b"HLRC";
const RECORD_HEAD: usize = 60;
/// The fixed key of segment headers.
const HEADER_KEY: Key = (0x6865_6164_6c6f_6e67, 0x7365_676d_656e_7431);
/// Bytes that a scan holds at once.
const CHUNK: usize = 1 << 20;

type Key = (u64, u64);

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RecordKind {
    /// A serialised block.
    Block,
    /// What is needed to disconnect a block.
    Undo,
}

impl RecordKind {
    /// The byte that stands for it: 1 blocks, 2 undo data.
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::Block => 1,
            Self::Undo => 2,
        }
    }

    const fn prefix(self) -> &'static str {
        match self {
            Self::Block => "blk-",
            Self::Undo => "undo-",
        }
    }
}

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    /// Blocks or undo data.
    pub kind: RecordKind,
    /// The segment's number.
    pub segment: u32,
    /// Offset of the record's head in the segment, in bytes.
    pub offset: u32,
    /// Bytes of the payload.
    pub length: u32,
}

impl Location {
    /// Offset of the first byte behind the record.
    pub(crate) fn end(&self) -> u64 {
        u64::from(self.offset) + RECORD_HEAD as u64 + u64::from(self.length)
    }
}

/// How block files are laid out.
#[derive(Clone, Debug)]
pub struct BlockFilesOptions {
    /// Bytes after which the next segment begins; at most [`MAX_RECORD`]. A larger record gets a segment
    /// of its own.
    pub segment_bytes: u32,
    /// The key of new segments' checksums; `None` draws one from the operating system for each.
    pub key: Option<[u8; 16]>,
}

impl Default for BlockFilesOptions {
    /// 128 MiB, random keys.
    fn default() -> Self {
        Self { segment_bytes: 128 << 20, key: None }
    }
}

/// A stretch of a file that holds no usable record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: String,
    /// Offset of the first unusable byte.
    pub offset: u64,
    /// Number of unusable bytes.
    pub bytes: u64,
}

/// What opening found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Torn ends that were cut off: normal after a crash.
    pub truncated: Vec<Damage>,
    /// Damage before whole records of the last segments, left in place.
    pub damaged: Vec<Damage>,
}

/// A segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its number.
    pub number: u32,
    /// Its bytes.
    pub bytes: u64,
}

/// Block and undo records on a [`Medium`]. All methods may be called from several threads; appends of one
/// kind wait for each other, reads wait for nobody.
#[derive(Debug)]
pub struct BlockFiles {
    files: Files,
    segment_bytes: u64,
    key: Option<[u8; 16]>,
    blocks: Mutex<Writer>,
    undo: Mutex<Writer>,
    recovery: Recovery,
}

/// The reading side: the medium, and the keys of the segments read so far.
#[derive(Debug)]
struct Files {
    medium: Arc<dyn Medium>,
    keys: RwLock<BTreeMap<(RecordKind, u32), Key>>,
}

/// The growing segment of one kind.
#[derive(Debug)]
struct Writer {
    kind: RecordKind,
    /// Number of the segment that comes next.
    next: u32,
    active: Option<Active>,
}

#[derive(Debug)]
struct Active {
    number: u32,
    key: Key,
    tail: Tail,
}

impl BlockFiles {
    /// Opens the files of a folder, which is created if absent, and repairs their ends.
    ///
    /// # Errors
    /// Failures of the operating system. Damaged content is no error here, see [`Self::recovery`].
    pub fn open(folder: &Path, options: BlockFilesOptions) -> Result<Self, StoreError> {
        let medium = FolderMedium::open(folder)
            .map_err(|e| StoreError::io(format!("open folder {}", folder.display()), e))?;
        Self::with_medium(Arc::new(medium), options)
    }

    /// Files in memory.
    pub fn in_memory() -> Self {
        // Nobody can write to these but this process: the key need not be secret.
        let options = BlockFilesOptions { key: Some(*b"headlong segment"), ..BlockFilesOptions::default() };
        let medium = Arc::new(MemoryMedium::new());
        let files = Files { medium, keys: RwLock::default() };
        Self::assemble(files, &options, Writer::new(RecordKind::Block), Writer::new(RecordKind::Undo))
    }

    /// Opens the files of any medium.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn with_medium(medium: Arc<dyn Medium>, options: BlockFilesOptions) -> Result<Self, StoreError> {
        let files = Files { medium, keys: RwLock::default() };
        let mut recovery = Recovery::default();
        let blocks = files.recover(RecordKind::Block, &mut recovery)?;
        let undo = files.recover(RecordKind::Undo, &mut recovery)?;
        let mut opened = Self::assemble(files, &options, blocks, undo);
        opened.recovery = recovery;
        Ok(opened)
    }

    fn assemble(files: Files, options: &BlockFilesOptions, blocks: Writer, undo: Writer) -> Self {
        Self {
            files,
            segment_bytes: u64::from(options.segment_bytes).min(MAX_RECORD as u64),
            key: options.key,
            blocks: Mutex::new(blocks),
            undo: Mutex::new(undo),
            recovery: Recovery::default(),
        }
    }

    /// What opening found and did.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Appends a block's bytes. They are durable after the next [`Self::sync`].
    ///
    /// # Errors
    /// Failures of the medium, after which nothing was appended; `Unsupported` above [`MAX_RECORD`] bytes.
    pub fn append_block(&self, hash: BlockHash, bytes: &[u8]) -> Result<Location, StoreError> {
        self.append(RecordKind::Block, hash, bytes)
    }

    /// Appends a block's undo data. They are durable after the next [`Self::sync`].
    ///
    /// # Errors
    /// As [`Self::append_block`].
    pub fn append_undo(&self, hash: BlockHash, bytes: &[u8]) -> Result<Location, StoreError> {
        self.append(RecordKind::Undo, hash, bytes)
    }

    fn writer(&self, kind: RecordKind) -> &Mutex<Writer> {
        match kind {
            RecordKind::Block => &self.blocks,
            RecordKind::Undo => &self.undo,
        }
    }

    fn append(&self, kind: RecordKind, hash: BlockHash, bytes: &[u8]) -> Result<Location, StoreError> {
        let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= MAX_RECORD);
        let length = length.ok_or_else(|| {
            let context = format!("a record of {} bytes for block {hash}", bytes.len());
            StoreError::new(StoreErrorKind::Unsupported, context)
        })?;
        let mut writer = self.writer(kind).lock();
        let active = writer.with_room(RECORD_HEAD as u64 + u64::from(length), self)?;
        let offset = active.tail.len();
        let head = RecordHead { kind, length, hash, check: check(active.key, &[bytes]) };
        active.tail.append(&[&head.encode(active.key, offset), bytes])?;
        // Segments end at MAX_RECORD bytes unless one record alone is larger: offsets fit in 32 bits.
        Ok(Location { kind, segment: active.number, offset: offset as u32, length })
    }

    /// The payload at `location`, after its checksum, its place and its block's hash were compared.
    ///
    /// # Errors
    /// `Corrupt`, naming file and offset, if the record is absent, torn, damaged or another block's; else
    /// failures of the medium.
    pub fn read(&self, location: Location, expected: BlockHash) -> Result<Vec<u8>, StoreError> {
        let (payload, whole) = self.read_start(location, expected, location.length)?;
        let key = self.files.key(location.kind, location.segment)?;
        if check(key, &[&payload]) != whole {
            let name = segment_name(location.kind, location.segment);
            let what = "a payload that does not match its checksum";
            return Err(self.files.corrupt(&name, u64::from(location.offset), what));
        }
        Ok(payload)
    }

    /// The first 80 bytes of a block's record: its header, if it hashes to `expected`, which is all that
    /// vouches for it.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_header(&self, location: Location, expected: BlockHash) -> Result<Header, StoreError> {
        let (bytes, _) = self.read_start(location, expected, location.length.min(80))?;
        let header = encode::deserialize::<Header>(&bytes).ok();
        header.filter(|header| header.block_hash() == expected).ok_or_else(|| {
            let name = segment_name(location.kind, location.segment);
            self.files.corrupt(
                &name,
                u64::from(location.offset),
                "a block that does not begin with its header",
            )
        })
    }

    /// The first `length` bytes of the payload, after the record's head was compared, and the checksum of
    /// the whole payload.
    fn read_start(
        &self,
        location: Location,
        expected: BlockHash,
        length: u32,
    ) -> Result<(Vec<u8>, u64), StoreError> {
        let Location { kind, segment, offset, length: whole } = location;
        let name = segment_name(kind, segment);
        let key = self.files.key(kind, segment)?;
        let offset = u64::from(offset);
        let bad = |what: &str| self.files.corrupt(&name, offset, what);
        let mut head = [0; RECORD_HEAD];
        self.files.read_at(&name, offset, &mut head)?;
        let head = RecordHead::decode(&head, key, offset).ok_or_else(|| bad("no record's head"))?;
        if (head.kind, head.length, head.hash) != (kind, whole, expected) {
            return Err(bad("another record than expected"));
        }
        // The length is vouched for by the head's checksum, so this allocates what once was written.
        let mut payload = vec![0; length as usize];
        self.files.read_at(&name, offset + RECORD_HEAD as u64, &mut payload)?;
        Ok((payload, head.check))
    }

    /// Makes all appended records durable.
    ///
    /// # Errors
    /// `Full` or `Corrupt`: what was appended since the last success may be lost, and the files must be
    /// opened anew.
    pub fn sync(&self) -> Result<(), StoreError> {
        for kind in [RecordKind::Block, RecordKind::Undo] {
            if let Some(active) = &mut self.writer(kind).lock().active {
                active.tail.sync()?;
            }
        }
        Ok(())
    }

    /// All records of a kind, oldest segment first, each verified. Damage is an error of kind `Corrupt`
    /// in its place, after which the scan goes on. Records appended meanwhile may be missing.
    ///
    /// # Errors
    /// Failures of the medium while listing.
    pub fn scan(&self, kind: RecordKind) -> Result<Scan<'_>, StoreError> {
        let segments = self.segments(kind)?;
        Ok(Scan { files: &self.files, kind, segments: segments.into_iter(), current: None })
    }

    /// The segments of a kind in ascending order.
    ///
    /// # Errors
    /// Failures of the medium.
    pub fn segments(&self, kind: RecordKind) -> Result<Vec<Segment>, StoreError> {
        // An append that is under way must not be seen half: the writer knows where whole records end.
        let writer = self.writer(kind).lock();
        let mut segments = Vec::new();
        for number in self.files.numbers(kind)? {
            let active = writer.active.as_ref().filter(|active| active.number == number);
            let bytes = match active {
                Some(active) => active.tail.len(),
                None => self.files.len(&segment_name(kind, number))?,
            };
            segments.push(Segment { number, bytes });
        }
        Ok(segments)
    }

    /// Removes a whole segment; its records are gone. One that is gone already is no failure.
    ///
    /// # Errors
    /// `Unsupported` for the segment that is being written; failures of the medium.
    pub fn remove_segment(&self, kind: RecordKind, number: u32) -> Result<(), StoreError> {
        let name = segment_name(kind, number);
        let growing = |active: &Active| active.number == number;
        // Not held while the file goes: a segment that was left is never written again.
        if self.writer(kind).lock().active.as_ref().is_some_and(growing) {
            let context = format!("remove {name}, which is being written");
            return Err(StoreError::new(StoreErrorKind::Unsupported, context));
        }
        let medium = &self.files.medium;
        self.files.keys.write().remove(&(kind, number));
        match medium.remove(&name) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::io(format!("remove {}", medium.describe(&name)), e))
            }
            _ => Ok(()),
        }
    }

    fn new_key(&self) -> Result<[u8; 16], StoreError> {
        if let Some(key) = self.key {
            return Ok(key);
        }
        let mut key = [0; 16];
        getrandom::fill(&mut key).map_err(|e| {
            let mut error = StoreError::new(StoreErrorKind::Transient, "draw a segment's key");
            error.source = Some(e.to_string().into());
            error
        })?;
        Ok(key)
    }
}

impl Writer {
    fn new(kind: RecordKind) -> Self {
        Self { kind, next: 0, active: None }
    }

    /// The segment that takes a record of `bytes`: the active one, or the next.
    fn with_room(&mut self, bytes: u64, files: &BlockFiles) -> Result<&mut Active, StoreError> {
        let fits = |active: &Active| {
            let len = active.tail.len();
            len == SEGMENT_HEADER as u64 || len.saturating_add(bytes) <= files.segment_bytes
        };
        if !self.active.as_ref().is_some_and(fits) {
            if let Some(active) = &mut self.active {
                active.tail.sync()?;
            }
            self.active = Some(self.begin(files)?);
        }
        self.active.as_mut().ok_or_else(|| StoreError::new(StoreErrorKind::Transient, "no segment"))
    }

    /// Creates the next segment, its header durable.
    fn begin(&mut self, files: &BlockFiles) -> Result<Active, StoreError> {
        let (kind, number) = (self.kind, self.next);
        let next = number
            .checked_add(1)
            .ok_or_else(|| StoreError::new(StoreErrorKind::Unsupported, "no numbers left for segments"))?;
        let name = segment_name(kind, number);
        let medium = files.files.medium.clone();
        let bytes = files.new_key()?;
        // Left by a failed attempt before this one.
        let exists = medium.len(&name).is_ok();
        let mut tail = Tail::new(medium, name, 0, exists);
        tail.append(&[&encode_segment_header(kind, number, &bytes)])?;
        tail.sync()?;
        self.next = next;
        let key = key_from_bytes(&bytes);
        files.files.keys.write().insert((kind, number), key);
        Ok(Active { number, key, tail })
    }
}

impl Files {
    fn corrupt(&self, name: &str, offset: u64, what: &str) -> StoreError {
        let context = format!("{} at {offset}: {what}", self.medium.describe(name));
        StoreError::new(StoreErrorKind::Corrupt, context)
    }

    fn io(&self, name: &str, offset: u64, e: std::io::Error) -> StoreError {
        let absent = e.kind() == std::io::ErrorKind::NotFound;
        let mut error = StoreError::io(format!("{} at {offset}", self.medium.describe(name)), e);
        if absent {
            error.kind = StoreErrorKind::Corrupt;
        }
        error
    }

    fn read_at(&self, name: &str, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        self.medium.read_at(name, offset, buffer).map_err(|e| self.io(name, offset, e))
    }

    fn len(&self, name: &str) -> Result<u64, StoreError> {
        self.medium.len(name).map_err(|e| self.io(name, 0, e))
    }

    /// The key of a segment, from its header.
    fn key(&self, kind: RecordKind, number: u32) -> Result<Key, StoreError> {
        if let Some(key) = self.keys.read().get(&(kind, number)) {
            return Ok(*key);
        }
        let name = segment_name(kind, number);
        let mut header = [0; SEGMENT_HEADER];
        self.read_at(&name, 0, &mut header)?;
        let key = decode_segment_header(&header, kind, number);
        let key = key.ok_or_else(|| self.corrupt(&name, 0, "no segment's header"))?;
        self.keys.write().insert((kind, number), key);
        Ok(key)
    }

    fn numbers(&self, kind: RecordKind) -> Result<Vec<u32>, StoreError> {
        let names = self.medium.list().map_err(|e| StoreError::io("list the block files", e))?;
        let mut numbers: Vec<u32> = names.iter().filter_map(|name| segment_number(kind, name)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Repairs the last segment of a kind and makes it the active one.
    fn recover(&self, kind: RecordKind, recovery: &mut Recovery) -> Result<Writer, StoreError> {
        let mut writer = Writer::new(kind);
        let Some(&number) = self.numbers(kind)?.last() else { return Ok(writer) };
        let name = segment_name(kind, number);
        let end = self.len(&name)?;
        let damage = |offset, to: u64| Damage {
            file: self.medium.describe(&name),
            offset,
            bytes: to.saturating_sub(offset),
        };
        let key = match self.key(kind, number) {
            Ok(key) => key,
            Err(e) if e.kind != StoreErrorKind::Corrupt => return Err(e),
            Err(_) if end <= SEGMENT_HEADER as u64 => {
                self.medium.remove(&name).map_err(|e| self.io(&name, 0, e))?;
                recovery.truncated.push(damage(0, end));
                writer.next = number;
                return Ok(writer);
            }
            Err(_) => {
                recovery.damaged.push(damage(0, end));
                writer.next = number.saturating_add(1);
                return Ok(writer);
            }
        };
        let mut walk = Walk { kind, number, name: name.clone(), key, at: SEGMENT_HEADER as u64, end };
        let mut whole = walk.at;
        let mut damages = Vec::new();
        while let Some(step) = walk.step(self)? {
            match step {
                Step::Record(..) => whole = walk.at,
                Step::Damage(offset) => damages.push((offset, walk.at)),
            }
        }
        damages.retain(|&(offset, _)| offset < whole);
        recovery.damaged.extend(damages.into_iter().map(|(offset, to)| damage(offset, to)));
        if whole < end {
            self.medium.truncate(&name, whole).map_err(|e| self.io(&name, whole, e))?;
            recovery.truncated.push(damage(whole, end));
        }
        // What a crash left unsynced is synced before anything is built on it.
        let mut tail = Tail::new(self.medium.clone(), name, whole, true);
        tail.sync()?;
        writer.next = number.saturating_add(1);
        writer.active = Some(Active { number, key, tail });
        Ok(writer)
    }
}

/// A walk over the records of one segment.
#[derive(Debug)]
struct Walk {
    kind: RecordKind,
    number: u32,
    name: String,
    key: Key,
    at: u64,
    end: u64,
}

enum Step {
    Record(BlockHash, Location),
    /// From this offset up to the walk's new place there is no record.
    Damage(u64),
}

impl Walk {
    fn step(&mut self, files: &Files) -> Result<Option<Step>, StoreError> {
        let at = self.at;
        if at >= self.end {
            return Ok(None);
        }
        let Some(head) = self.head_at(files, at)? else {
            self.at = self.next_head(files, at + 1)?;
            return Ok(Some(Step::Damage(at)));
        };
        let from = at + RECORD_HEAD as u64;
        let to = from + u64::from(head.length);
        self.at = to.min(self.end);
        if to > self.end || self.payload_check(files, from, to)? != head.check {
            return Ok(Some(Step::Damage(at)));
        }
        let offset = u32::try_from(at).map_err(|_| files.corrupt(&self.name, at, "beyond 4 GiB"))?;
        let (kind, segment, length) = (self.kind, self.number, head.length);
        Ok(Some(Step::Record(head.hash, Location { kind, segment, offset, length })))
    }

    fn head_at(&self, files: &Files, at: u64) -> Result<Option<RecordHead>, StoreError> {
        if self.end.saturating_sub(at) < RECORD_HEAD as u64 {
            return Ok(None);
        }
        let mut head = [0; RECORD_HEAD];
        files.read_at(&self.name, at, &mut head)?;
        Ok(RecordHead::decode(&head, self.key, at).filter(|head| head.kind == self.kind))
    }

    fn payload_check(&self, files: &Files, mut from: u64, to: u64) -> Result<u64, StoreError> {
        let mut engine = siphash24::HashEngine::with_keys(self.key.0, self.key.1);
        let mut chunk = vec![0; CHUNK.min((to - from) as usize)];
        while from < to {
            let part = (to - from).min(CHUNK as u64) as usize;
            files.read_at(&self.name, from, &mut chunk[..part])?;
            engine.input(&chunk[..part]);
            from += part as u64;
        }
        Ok(siphash24::Hash::from_engine_to_u64(engine))
    }

    /// Offset of the next genuine head from `from` on, or the end.
    fn next_head(&self, files: &Files, mut from: u64) -> Result<u64, StoreError> {
        let mut chunk = vec![0; CHUNK];
        while self.end.saturating_sub(from) >= RECORD_HEAD as u64 {
            let part = (self.end - from).min(CHUNK as u64) as usize;
            files.read_at(&self.name, from, &mut chunk[..part])?;
            for (i, head) in chunk[..part].windows(RECORD_HEAD).enumerate() {
                let place = from + i as u64;
                if let Some(head) = head.first_chunk().and_then(|h| RecordHead::decode(h, self.key, place))
                    && head.kind == self.kind
                {
                    return Ok(place);
                }
            }
            from += (part - RECORD_HEAD + 1) as u64;
        }
        Ok(self.end)
    }
}

/// Iterates over the records of a kind; see [`BlockFiles::scan`].
#[derive(Debug)]
pub struct Scan<'a> {
    files: &'a Files,
    kind: RecordKind,
    segments: std::vec::IntoIter<Segment>,
    current: Option<Walk>,
}

impl Iterator for Scan<'_> {
    type Item = Result<(BlockHash, Location), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(walk) = &mut self.current {
                match walk.step(self.files) {
                    Ok(Some(Step::Record(hash, location))) => return Some(Ok((hash, location))),
                    Ok(Some(Step::Damage(offset))) => {
                        return Some(Err(self.files.corrupt(&walk.name, offset, "no record")));
                    }
                    Ok(None) => {}
                    Err(e) => {
                        self.current = None;
                        return Some(Err(e));
                    }
                }
            }
            let Segment { number, bytes } = self.segments.next()?;
            let (kind, name, at) = (self.kind, segment_name(self.kind, number), SEGMENT_HEADER as u64);
            self.current = None;
            match self.files.key(kind, number) {
                Ok(key) => self.current = Some(Walk { kind, number, name, key, at, end: bytes }),
                Err(e) => return Some(Err(e)),
            }
        }
    }
}

/// The head of a record.
struct RecordHead {
    kind: RecordKind,
    length: u32,
    hash: BlockHash,
    check: u64,
}

impl RecordHead {
    fn encode(&self, key: Key, offset: u64) -> [u8; RECORD_HEAD] {
        let mut head = [0; RECORD_HEAD];
        head[..4].copy_from_slice(RECORD_MAGIC);
        head[4] = self.kind.to_byte();
        head[8..12].copy_from_slice(&self.length.to_le_bytes());
        head[12..44].copy_from_slice(self.hash.as_byte_array());
        head[44..52].copy_from_slice(&self.check.to_le_bytes());
        let own = check(key, &[&offset.to_le_bytes(), &head[..52]]);
        head[52..].copy_from_slice(&own.to_le_bytes());
        head
    }

    fn decode(head: &[u8; RECORD_HEAD], key: Key, offset: u64) -> Option<Self> {
        if !head.starts_with(RECORD_MAGIC) {
            return None;
        }
        let own = check(key, &[&offset.to_le_bytes(), &head[..52]]);
        if head[52..] != own.to_le_bytes() {
            return None;
        }
        let kind = [RecordKind::Block, RecordKind::Undo].into_iter().find(|k| k.to_byte() == head[4])?;
        Some(Self {
            kind,
            length: u32::from_le_bytes(*head[8..].first_chunk()?),
            hash: BlockHash::from_byte_array(*head[12..].first_chunk()?),
            check: u64::from_le_bytes(*head[44..].first_chunk()?),
        })
    }
}

/// A segment's key as SipHash takes it.
fn key_from_bytes(bytes: &[u8; 16]) -> Key {
    let both = u128::from_le_bytes(*bytes);
    (both as u64, (both >> 64) as u64)
}

/// SipHash-2-4 of the parts one behind the other.
pub(super) fn check(key: Key, parts: &[&[u8]]) -> u64 {
    let mut engine = siphash24::HashEngine::with_keys(key.0, key.1);
    for part in parts {
        engine.input(part);
    }
    siphash24::Hash::from_engine_to_u64(engine)
}

fn encode_segment_header(kind: RecordKind, number: u32, key: &[u8; 16]) -> [u8; SEGMENT_HEADER] {
    let mut header = [0; SEGMENT_HEADER];
    header[..8].copy_from_slice(SEGMENT_MAGIC);
    header[8] = kind.to_byte();
    header[12..16].copy_from_slice(&number.to_le_bytes());
    header[16..32].copy_from_slice(key);
    let own = check(HEADER_KEY, &[&header[..32]]);
    header[32..].copy_from_slice(&own.to_le_bytes());
    header
}

fn decode_segment_header(header: &[u8; SEGMENT_HEADER], kind: RecordKind, number: u32) -> Option<Key> {
    let key = header[16..].first_chunk()?;
    (*header == encode_segment_header(kind, number, key)).then(|| key_from_bytes(key))
}

fn segment_name(kind: RecordKind, number: u32) -> String {
    format!("{}{number:06}.dat", kind.prefix())
}

fn segment_number(kind: RecordKind, name: &str) -> Option<u32> {
    let number = name.strip_prefix(kind.prefix())?.strip_suffix(".dat")?.parse().ok()?;
    (segment_name(kind, number) == name).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hash(n: u32) -> BlockHash {
        let mut bytes = [0xaa; 32];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        BlockHash::from_byte_array(bytes)
    }

    fn options(segment_bytes: u32) -> BlockFilesOptions {
        BlockFilesOptions { segment_bytes, key: None }
    }

    fn open(medium: &MemoryMedium, segment_bytes: u32) -> BlockFiles {
        BlockFiles::with_medium(Arc::new(medium.clone()), options(segment_bytes)).unwrap()
    }

    fn content(medium: &MemoryMedium, name: &str) -> Vec<u8> {
        let mut bytes = vec![0; medium.len(name).unwrap() as usize];
        medium.read_at(name, 0, &mut bytes).unwrap();
        bytes
    }

    const FIRST: &str = "blk-000000.dat";

    fn medium_with(bytes: &[u8]) -> MemoryMedium {
        let medium = MemoryMedium::new();
        medium.append(FIRST, &[bytes]).unwrap();
        medium
    }

    fn payload(n: u32) -> Vec<u8> {
        n.to_le_bytes().repeat(n as usize)
    }

    /// A small file of four records and their locations.
    fn sample() -> (Vec<u8>, Vec<Location>) {
        let medium = MemoryMedium::new();
        let files = open(&medium, 1 << 20);
        let locations = (0..4).map(|n| files.append_block(hash(n), &payload(n)).unwrap()).collect();
        files.sync().unwrap();
        (content(&medium, FIRST), locations)
    }

    fn end(location: &Location) -> usize {
        location.offset as usize + RECORD_HEAD + location.length as usize
    }

    #[test]
    fn what_is_appended_is_read_before_and_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let files = BlockFiles::open(folder.path(), BlockFilesOptions::default()).unwrap();
        let block = files.append_block(hash(1), b"block").unwrap();
        let undo = files.append_undo(hash(1), b"undo").unwrap();
        let empty = files.append_undo(hash(2), b"").unwrap();
        files.sync().unwrap();
        for _ in 0..2 {
            let files = BlockFiles::open(folder.path(), BlockFilesOptions::default()).unwrap();
            assert_eq!(files.recovery(), &Recovery::default());
            assert_eq!(files.read(block, hash(1)).unwrap(), b"block");
            assert_eq!(files.read(undo, hash(1)).unwrap(), b"undo");
            assert_eq!(files.read(empty, hash(2)).unwrap(), b"");
            let found: Vec<_> = files.scan(RecordKind::Undo).unwrap().map(Result::unwrap).collect();
            assert_eq!(found, [(hash(1), undo), (hash(2), empty)]);
        }
        assert_eq!(files.read(block, hash(1)).unwrap(), b"block");
    }

    #[test]
    fn a_wrong_question_is_an_error_that_names_the_place() {
        let files = BlockFiles::in_memory();
        let at = files.append_block(hash(1), b"0123456789").unwrap();
        let wrong = [
            (at, hash(2)),
            (Location { kind: RecordKind::Undo, ..at }, hash(1)),
            (Location { segment: 5, ..at }, hash(1)),
            (Location { offset: at.offset + 1, ..at }, hash(1)),
            (Location { offset: u32::MAX, ..at }, hash(1)),
            (Location { length: 9, ..at }, hash(1)),
            (Location { length: u32::MAX, ..at }, hash(1)),
        ];
        for (location, hash) in wrong {
            let error = files.read(location, hash).unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Corrupt, "{location:?}");
            let name = segment_name(location.kind, location.segment);
            assert!(error.to_string().contains(&name), "{error}");
        }
        let error = files.read(at, hash(2)).unwrap_err();
        assert!(error.to_string().contains("blk-000000.dat at 40"), "{error}");
    }

    /// Opens a damaged copy, in which the records before `intact_to` and from `intact_from` on are whole:
    /// they, and no others, are found; then appends.
    fn expect_records(bytes: &[u8], intact: &[usize], at: usize) {
        let (_, locations) = sample();
        let medium = medium_with(bytes);
        let files = open(&medium, 1 << 20);
        for (n, location) in locations.iter().enumerate() {
            let read = files.read(*location, hash(n as u32));
            match read {
                Ok(found) => {
                    assert!(intact.contains(&n), "record {n} damaged at {at}");
                    assert_eq!(found, payload(n as u32));
                }
                Err(e) => {
                    assert!(!intact.contains(&n), "record {n} refused, damage at {at}: {e}");
                    assert_eq!(e.kind, StoreErrorKind::Corrupt);
                }
            }
        }
        let found: Vec<_> = files.scan(RecordKind::Block).unwrap().filter_map(Result::ok).collect();
        let expected: Vec<_> = intact.iter().map(|&n| (hash(n as u32), locations[n])).collect();
        assert_eq!(found, expected, "damage at {at}");
        // Nothing is dropped in silence.
        let lost = files.recovery().truncated.iter().chain(&files.recovery().damaged);
        let lost: u64 = lost.map(|damage| damage.bytes).sum();
        let kept: usize = intact.iter().map(|&n| RECORD_HEAD + locations[n].length as usize).sum();
        let kept = if lost == bytes.len() as u64 { 0 } else { kept + SEGMENT_HEADER };
        assert_eq!(lost + kept as u64, bytes.len() as u64, "damage at {at}");
        // Whatever happened, the next record is stored and found.
        let next = files.append_block(hash(77), b"next").unwrap();
        files.sync().unwrap();
        let again = open(&medium, 1 << 20);
        assert_eq!(again.read(next, hash(77)).unwrap(), b"next", "damage at {at}");
        assert_eq!(again.recovery().truncated, [], "damage at {at}");
    }

    #[test]
    fn a_file_cut_anywhere_keeps_its_whole_records() {
        let (bytes, locations) = sample();
        for len in 0..=bytes.len() {
            let intact: Vec<usize> = if len <= SEGMENT_HEADER {
                Vec::new()
            } else {
                (0..4).filter(|&n| end(&locations[n]) <= len).collect()
            };
            expect_records(&bytes[..len], &intact, len);
        }
    }

    #[test]
    fn a_tail_of_zeroes_is_cut() {
        let (bytes, locations) = sample();
        for keep in [SEGMENT_HEADER, end(&locations[1]), end(&locations[2]) + 7, bytes.len()] {
            let torn = [&bytes[..keep], &[0; 300]].concat();
            let intact: Vec<usize> = (0..4).filter(|&n| end(&locations[n]) <= keep).collect();
            expect_records(&torn, &intact, keep);
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found_and_costs_one_record() {
        let (bytes, locations) = sample();
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            let hit = |n: &usize| (locations[*n].offset as usize..end(&locations[*n])).contains(&at);
            let intact: Vec<usize> =
                if at < SEGMENT_HEADER { Vec::new() } else { (0..4).filter(|n| !hit(n)).collect() };
            expect_records(&bytes, &intact, at);
        }
    }

    #[test]
    fn damage_of_older_segments_is_found_when_read() {
        let medium = MemoryMedium::new();
        let files = open(&medium, 200);
        let locations: Vec<_> =
            (0..6).map(|n| files.append_block(hash(n), &[n as u8; 100]).unwrap()).collect();
        assert_eq!(files.segments(RecordKind::Block).unwrap().len(), 6);
        drop(files);
        let mut bytes = content(&medium, FIRST);
        *bytes.last_mut().unwrap() ^= 1;
        medium.truncate(FIRST, 0).unwrap();
        medium.append(FIRST, &[&bytes]).unwrap();
        let files = open(&medium, 200);
        assert_eq!(files.recovery(), &Recovery::default());
        assert_eq!(files.read(locations[0], hash(0)).unwrap_err().kind, StoreErrorKind::Corrupt);
        let scan: Vec<_> = files.scan(RecordKind::Block).unwrap().collect();
        assert_eq!(scan.len(), 6);
        assert!(scan[0].is_err() && scan[1..].iter().all(Result::is_ok));
    }

    #[test]
    fn segments_follow_each_other_and_whole_ones_can_go() {
        let medium = MemoryMedium::new();
        let files = open(&medium, 1000);
        let mut locations = Vec::new();
        for n in 0..30u32 {
            // One record larger than a segment gets one of its own.
            let bytes = vec![n as u8; if n == 7 { 2000 } else { 250 }];
            locations.push((files.append_block(hash(n), &bytes).unwrap(), bytes));
        }
        let segments = files.segments(RecordKind::Block).unwrap();
        let numbers: Vec<u32> = segments.iter().map(|s| s.number).collect();
        assert!(numbers.iter().copied().eq(0..numbers.len() as u32) && numbers.len() > 9);
        for segment in &segments {
            let alone = segment.number == locations[7].0.segment;
            assert_eq!(segment.bytes > 1000, alone);
            assert_eq!(segment.bytes, medium.len(&segment_name(RecordKind::Block, segment.number)).unwrap());
        }
        let last = *numbers.last().unwrap();
        assert_eq!(
            files.remove_segment(RecordKind::Block, last).unwrap_err().kind,
            StoreErrorKind::Unsupported
        );
        files.remove_segment(RecordKind::Block, 0).unwrap();
        files.remove_segment(RecordKind::Block, 1).unwrap();
        let files = open(&medium, 1000);
        for (n, (location, bytes)) in locations.iter().enumerate() {
            let read = files.read(*location, hash(n as u32));
            assert_eq!(read.ok(), (location.segment > 1).then(|| bytes.clone()));
        }
        assert_eq!(files.append_block(hash(99), &[1; 2000]).unwrap().segment, last + 1);
    }

    #[test]
    fn a_payload_that_looks_like_a_record_is_not_one() {
        // The key of the segment is known here, as it is not to anyone who makes blocks; only the offset
        // is wrong.
        let key = *b"0123456789abcdef";
        let fake = RecordHead {
            kind: RecordKind::Block,
            length: 3,
            hash: hash(666),
            check: check(key_from_bytes(&key), &[b"bad"]),
        };
        let fake = [&fake.encode(key_from_bytes(&key), 40)[..], b"bad"].concat();
        let medium = MemoryMedium::new();
        let options = BlockFilesOptions { key: Some(key), ..options(1 << 20) };
        let files = BlockFiles::with_medium(Arc::new(medium.clone()), options).unwrap();
        files.append_block(hash(1), &fake).unwrap();
        let good = files.append_block(hash(2), b"good").unwrap();
        // Damage the first head, so that a search for the next one crosses the payload.
        let mut bytes = content(&medium, FIRST);
        bytes[41] ^= 1;
        let files = open(&medium_with(&bytes), 1 << 20);
        let found: Vec<_> = files.scan(RecordKind::Block).unwrap().filter_map(Result::ok).collect();
        assert_eq!(found, [(hash(2), good)]);
    }

    #[test]
    fn a_search_crosses_the_borders_of_its_buffer() {
        let medium = MemoryMedium::new();
        let files = open(&medium, 64 << 20);
        for shift in 0..4 {
            files.append_block(hash(1), &vec![b'H'; CHUNK - 3 * RECORD_HEAD + 41 * shift]).unwrap();
        }
        let good = files.append_block(hash(2), b"good").unwrap();
        let mut bytes = content(&medium, FIRST);
        let mut at = SEGMENT_HEADER;
        for shift in 0..4 {
            bytes[at] ^= 1;
            at += CHUNK - 2 * RECORD_HEAD + 41 * shift;
        }
        let files = open(&medium_with(&bytes), 64 << 20);
        assert_eq!(files.read(good, hash(2)).unwrap(), b"good");
        assert_eq!(files.scan(RecordKind::Block).unwrap().filter(Result::is_ok).count(), 1);
    }

    #[test]
    fn reads_go_on_while_others_append() {
        let folder = tempfile::tempdir().unwrap();
        let files = BlockFiles::open(folder.path(), options(20_000)).unwrap();
        let (sender, receiver) = crossbeam_channel::unbounded();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let (files, receiver) = (&files, receiver.clone());
                scope.spawn(move || {
                    for (n, location) in receiver {
                        assert_eq!(files.read(location, hash(n)).unwrap(), payload(n));
                    }
                });
            }
            for n in 0..400 {
                sender.send((n, files.append_block(hash(n), &payload(n)).unwrap())).unwrap();
                let undo = files.append_undo(hash(n), &payload(n)).unwrap();
                sender.send((n, undo)).unwrap();
            }
            drop(sender);
        });
        assert_eq!(files.scan(RecordKind::Block).unwrap().map(Result::unwrap).count(), 400);
    }

    proptest! {
        #[test]
        fn any_bytes_open(bytes in proptest::collection::vec(any::<u8>(), 0..300), whole in any::<bool>()) {
            let (sample, _) = sample();
            let bytes = if whole { [&sample[..], &bytes].concat() } else { bytes };
            let files = open(&medium_with(&bytes), 1000);
            let found = files.scan(RecordKind::Block).unwrap().filter(Result::is_ok).count();
            prop_assert_eq!(found, if whole { 4 } else { 0 });
            files.append_block(hash(1), b"x").unwrap();
        }

        #[test]
        fn random_records_and_restarts(
            records in proptest::collection::vec((any::<bool>(), 0usize..400, 0u8..10), 1..60),
            segment in 100u32..2000,
        ) {
            let medium = MemoryMedium::new();
            let mut files = open(&medium, segment);
            let mut all = Vec::new();
            for (n, (undo, len, restart)) in records.into_iter().enumerate() {
                let (hash, bytes) = (hash(n as u32), vec![n as u8; len]);
                let at = if undo { files.append_undo(hash, &bytes) } else { files.append_block(hash, &bytes) };
                all.push((hash, at.unwrap(), bytes));
                if restart == 0 {
                    files = open(&medium, segment);
                    prop_assert_eq!(files.recovery(), &Recovery::default());
                }
            }
            for (hash, at, bytes) in &all {
                prop_assert_eq!(&files.read(*at, *hash).unwrap(), bytes);
            }
            for kind in [RecordKind::Block, RecordKind::Undo] {
                let found: Vec<_> = files.scan(kind).unwrap().map(Result::unwrap).collect();
                let expected = all.iter().filter(|r| r.1.kind == kind).map(|r| (r.0, r.1));
                prop_assert_eq!(found, expected.collect::<Vec<_>>());
            }
        }
    }
}
