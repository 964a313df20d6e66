//! The block files: any bytes in the folder, and files that were written and then damaged.
//!
//! Input: bit 0 of the first byte says which; then what is written and how it is damaged.

use crate::base::content;
use crate::feed::Feed;
use crate::store_decoding::tamper;
use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use headlong::store::block_files::{BlockFiles, BlockFilesOptions, Location, RecordKind};
use headlong::store::medium::{Medium, MemoryMedium};
use headlong::store::{StoreError, StoreErrorKind};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What was written, by place.
type Records = BTreeMap<Location, (BlockHash, Vec<u8>)>;

const KINDS: [RecordKind; 2] = [RecordKind::Block, RecordKind::Undo];
/// The names that matter, and some that do not.
const NAMES: [&str; 8] = [
    "blk-000000.dat",
    "blk-000001.dat",
    "blk-000002.dat",
    "undo-000000.dat",
    "undo-000001.dat",
    "blk-4294967295.dat",
    "blk-1.dat",
    "other",
];

pub fn run(data: &[u8]) {
    let mut feed = Feed::new(data);
    let medium = MemoryMedium::new();
    let mut records = Records::new();
    if feed.bool() {
        write(&mut feed, &medium, &mut records);
        damage(&mut feed, &medium);
    } else {
        while !feed.is_empty() {
            let name = NAMES[feed.below(NAMES.len())];
            let count = usize::from(feed.u16());
            medium.append(name, &[feed.take(count)]).expect("in memory");
        }
    }
    check(&mut feed, &medium, &records);
}

fn open(medium: &MemoryMedium, segment_bytes: u32) -> BlockFiles {
    let options = BlockFilesOptions { segment_bytes, key: Some([3; 16]) };
    BlockFiles::with_medium(Arc::new(medium.clone()), options).expect("no content is an error here")
}

fn append(files: &BlockFiles, feed: &mut Feed<'_>, records: &mut Records) -> Result<(), StoreError> {
    let hash = BlockHash::from_byte_array([feed.u8(); 32]);
    let kind = feed.u8();
    // A payload that looks like a record is the interesting one: stale copies of what was written.
    let payload = match feed.u8() % 4 {
        0 => records.values().next_back().map(|(_, bytes)| bytes.clone()).unwrap_or_default(),
        1 => [b"HLRC", feed.bytes()].concat(),
        _ => feed.bytes().to_vec(),
    };
    let location = match kind % 2 {
        0 => files.append_block(hash, &payload)?,
        _ => files.append_undo(hash, &payload)?,
    };
    assert_eq!(files.read(location, hash).ok().as_ref(), Some(&payload), "at {location:?}");
    records.insert(location, (hash, payload));
    Ok(())
}

fn write(feed: &mut Feed<'_>, medium: &MemoryMedium, records: &mut Records) {
    let files = open(medium, 64 + 4 * u32::from(feed.u8()));
    for _ in 0..feed.u8() % 12 {
        append(&files, feed, records).expect("in memory");
    }
    files.sync().expect("in memory");
    // Whole files hold what was written, and nothing else.
    for kind in KINDS {
        let found: Vec<(BlockHash, Location)> =
            files.scan(kind).expect("in memory").map(|record| record.expect("whole files")).collect();
        let written: Vec<(BlockHash, Location)> = records
            .iter()
            .filter(|(location, _)| location.kind == kind)
            .map(|(location, (hash, _))| (*hash, *location))
            .collect();
        assert_eq!(found, written);
    }
}

fn damage(feed: &mut Feed<'_>, medium: &MemoryMedium) {
    for _ in 0..feed.u8() % 4 {
        let names = medium.list().expect("in memory");
        let Some(name) = feed.pick(&names) else { return };
        let mut bytes = content(medium, name);
        match feed.u8() % 4 {
            0 => {
                medium.remove(name).expect("it is there");
                continue;
            }
            1 => {
                // Another file's bytes.
                if let Some(other) = feed.pick(&names) {
                    bytes = content(medium, other);
                }
            }
            _ => tamper(feed, &mut bytes),
        }
        medium.truncate(name, 0).expect("it is there");
        medium.append(name, &[&bytes]).expect("in memory");
    }
}

/// Opens, reads, appends and opens again.
fn check(feed: &mut Feed<'_>, medium: &MemoryMedium, records: &Records) {
    let files = open(medium, 300);
    read_all(&files, records);
    for kind in KINDS {
        for found in files.scan(kind).expect("in memory") {
            match found {
                Ok((hash, location)) => {
                    let bytes = files.read(location, hash).expect("what a scan finds is whole");
                    let written = records.get(&location).map(|(hash, bytes)| (*hash, bytes));
                    assert!(records.is_empty() || written == Some((hash, &bytes)), "at {location:?}");
                }
                Err(error) => assert_eq!(error.kind, StoreErrorKind::Corrupt, "{error}"),
            }
        }
    }
    for _ in 0..4 {
        let kind = KINDS[feed.below(2)];
        let segment = u32::from(feed.u8() % 4);
        let place = Location { kind, segment, offset: feed.u32() % 512, length: feed.u32() % 512 };
        let hash = BlockHash::from_byte_array([feed.u8(); 32]);
        match files.read(place, hash) {
            Ok(bytes) => assert!(records.is_empty() || records.get(&place) == Some(&(hash, bytes))),
            Err(error) => assert_eq!(error.kind, StoreErrorKind::Corrupt, "{error}"),
        }
        let _ = files.read_header(place, hash);
    }
    let mut fresh = Records::new();
    for _ in 0..3 {
        match append(&files, feed, &mut fresh) {
            Ok(()) => {}
            // The last number is taken.
            Err(error) => assert_eq!(error.kind, StoreErrorKind::Unsupported, "{error}"),
        }
    }
    files.sync().expect("in memory");
    drop(files);
    let files = open(medium, 300);
    for (location, (hash, bytes)) in &fresh {
        let read = files.read(*location, *hash);
        assert_eq!(read.ok().as_ref(), Some(bytes), "what was appended after damage is lost: {location:?}");
    }
    // Where an append went to a place that damage had freed, the old record is gone.
    let kept: Records = records
        .iter()
        .filter(|(location, _)| !fresh.contains_key(location))
        .map(|(location, record)| (*location, record.clone()))
        .collect();
    read_all(&files, &kept);
}

/// Each record is what was written, or said to be damaged.
fn read_all(files: &BlockFiles, records: &Records) {
    for (location, (hash, bytes)) in records {
        match files.read(*location, *hash) {
            Ok(read) => assert_eq!(&read, bytes, "other bytes at {location:?}"),
            Err(error) => assert_eq!(error.kind, StoreErrorKind::Corrupt, "{error}"),
        }
        if let Ok(header) = files.read_header(*location, *hash) {
            assert_eq!(header.block_hash(), *hash);
        }
    }
}
