//! The address book as bytes.
//!
//! | part | content |
//! | --- | --- |
//! | 8 bytes | `HLADDRS1` |
//! | 16 bytes | the secret key of the places |
//! | `u32` | number of entries, then each: address (network of BIP155, length and bytes, port), tried, length and bytes of its source's group, services, four times, failures, count and numbers of its buckets in the new table |
//! | `u8` | number of anchors, then their addresses |
//! | 32 bytes | SHA-256 of all before |
//!
//! Integers are little-endian, lengths one byte. Places within buckets follow from the key. What finds its place taken, or
//! has none, is left out: the file is advice, and its hash guards against flipped bits, not against whoever may write it.

use super::table::Places;
use super::{AddressBook, Entry, NetGroup};
use crate::limits::{ADDRESS_BUCKET, MAX_ANCHORS, NEW_BUCKETS, NEW_BUCKETS_PER_ADDRESS, TRIED_BUCKETS};
use crate::peer::PeerAddress;
use crate::wire::compact_size::{ReadError, Reader};
use bitcoin::hashes::{Hash, sha256};
use bitcoin::p2p::ServiceFlags;
use std::net::{Ipv6Addr, SocketAddr};

const HEAD: &[u8; 8] = b"HLADDRS1";
/// Entries that the tables have room for.
const MAX_ENTRIES: usize = (NEW_BUCKETS as usize + TRIED_BUCKETS as usize) * ADDRESS_BUCKET as usize;

/// The bytes are no address book.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BookError {
    /// They do not begin as one.
    #[error("not an address book of this version")]
    Head,
    /// They are not what was written.
    #[error("the address book is damaged")]
    Damaged,
    /// They were written by something else.
    #[error("the address book: {0}")]
    Content(#[from] ReadError),
}

impl AddressBook {
    /// The bytes of the book.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.entries.len() * 96);
        out.extend_from_slice(HEAD);
        out.extend_from_slice(&self.places.key());
        out.extend_from_slice(&(self.entries.len() as u32).to_le_bytes());
        for (address, entry) in &self.entries {
            write_address(&mut out, address);
            out.push(u8::from(entry.tried));
            write_bytes(&mut out, &entry.source.bytes());
            out.extend_from_slice(&entry.services.to_u64().to_le_bytes());
            for time in [entry.last_seen, entry.last_try, entry.last_counted, entry.last_success] {
                out.extend_from_slice(&time.to_le_bytes());
            }
            out.extend_from_slice(&entry.attempts.to_le_bytes());
            out.push(entry.buckets.len() as u8);
            for bucket in &entry.buckets {
                out.extend_from_slice(&bucket.to_le_bytes());
            }
        }
        let anchors = self.anchors.iter().filter(|anchor| anchor.network().is_some()).take(MAX_ANCHORS);
        let anchors: Vec<_> = anchors.collect();
        out.push(anchors.len() as u8);
        for anchor in anchors {
            write_address(&mut out, anchor);
        }
        let hash = sha256::Hash::hash(&out);
        out.extend_from_slice(hash.as_ref());
        out
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`BookError`]; nothing of a damaged book is used.
    pub fn decode(bytes: &[u8]) -> Result<Self, BookError> {
        if !bytes.starts_with(HEAD) {
            return Err(BookError::Head);
        }
        let (content, hash) = bytes.split_last_chunk::<32>().ok_or(BookError::Damaged)?;
        if sha256::Hash::hash(content).as_byte_array() != hash {
            return Err(BookError::Damaged);
        }
        let mut reader = Reader::new(content.get(HEAD.len()..).ok_or(BookError::Damaged)?);
        let mut book = Self::new(reader.array()?);
        let count = reader.u32()? as usize;
        if count > MAX_ENTRIES {
            return Err(ReadError::TooMany { count: count as u64, limit: MAX_ENTRIES }.into());
        }
        for _ in 0..count {
            let (address, entry) = read_entry(&mut reader)?;
            book.restore(address, entry);
        }
        for _ in 0..usize::from(reader.u8()?).min(MAX_ANCHORS) {
            book.anchors.push(read_address(&mut reader)?);
        }
        if !reader.is_empty() {
            return Err(ReadError::Field("bytes behind the anchors").into());
        }
        Ok(book)
    }

    /// Puts an entry where it lay.
    fn restore(&mut self, address: PeerAddress, mut entry: Entry) {
        if self.entries.contains_key(&address) {
            return;
        }
        if entry.tried {
            entry.buckets.clear();
            let slot = self.places.tried_slot(&address);
            if self.tried.get(slot).is_some() {
                return;
            }
            self.tried.put(slot, address.clone());
        } else {
            let (places, new): (&Places, _) = (&self.places, &mut self.new);
            let slot = |bucket: u16| (bucket, places.new_position(&address, bucket));
            entry.buckets.retain(|bucket| {
                let free = *bucket < NEW_BUCKETS && new.get(slot(*bucket)).is_none();
                if free {
                    new.put(slot(*bucket), address.clone());
                }
                free
            });
            if entry.buckets.is_empty() {
                return;
            }
        }
        if entry.last_try == 0 {
            self.vouched.put(&address, &entry.source);
        }
        self.last_good = self.last_good.max(entry.last_success);
        self.entries.insert(address, entry);
    }
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(255)];
    out.push(bytes.len() as u8);
    out.extend_from_slice(bytes);
}

fn read_bytes<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], ReadError> {
    let length = usize::from(reader.u8()?);
    reader.bytes(length)
}

/// The numbers of BIP155.
pub(in crate::peer) fn write_address(out: &mut Vec<u8>, address: &PeerAddress) {
    let (network, bytes) = match address {
        PeerAddress::Ip(socket) => match socket.ip().to_canonical() {
            std::net::IpAddr::V4(ip) => (1, ip.octets().to_vec()),
            std::net::IpAddr::V6(ip) => (2, ip.octets().to_vec()),
        },
        PeerAddress::Onion(key, _) => (4, key.to_vec()),
        PeerAddress::I2p(hash, _) => (5, hash.to_vec()),
        PeerAddress::Cjdns(ip, _) => (6, ip.octets().to_vec()),
        // No entry and no anchor has one.
        PeerAddress::Name(..) | PeerAddress::Http(_) => (0, Vec::new()),
    };
    out.push(network);
    write_bytes(out, &bytes);
    out.extend_from_slice(&address.port().to_le_bytes());
}

pub(in crate::peer) fn read_address(reader: &mut Reader<'_>) -> Result<PeerAddress, ReadError> {
    let network = reader.u8()?;
    let bytes = read_bytes(reader)?;
    let port = u16::from_le_bytes(reader.array()?);
    let wrong = |_| ReadError::Field("an address whose length is not its network's");
    Ok(match network {
        1 => SocketAddr::from((<[u8; 4]>::try_from(bytes).map_err(wrong)?, port)).into(),
        2 => SocketAddr::from((<[u8; 16]>::try_from(bytes).map_err(wrong)?, port)).into(),
        4 => PeerAddress::Onion(bytes.try_into().map_err(wrong)?, port),
        5 => PeerAddress::I2p(bytes.try_into().map_err(wrong)?, port),
        6 => PeerAddress::Cjdns(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).map_err(wrong)?), port),
        _ => return Err(ReadError::Field("an address of no network")),
    })
}

fn read_entry(reader: &mut Reader<'_>) -> Result<(PeerAddress, Entry), ReadError> {
    let address = read_address(reader)?;
    let tried = reader.u8()? != 0;
    let source =
        NetGroup::from_bytes(read_bytes(reader)?).ok_or(ReadError::Field("a group of no network"))?;
    let services = ServiceFlags::from(reader.u64()?);
    let mut entry = Entry::new(source, services, reader.u64()?);
    entry.tried = tried;
    entry.last_try = reader.u64()?;
    entry.last_counted = reader.u64()?;
    entry.last_success = reader.u64()?;
    entry.attempts = reader.u32()?;
    let buckets = usize::from(reader.u8()?);
    if buckets > NEW_BUCKETS_PER_ADDRESS {
        return Err(ReadError::Field("an address in too many buckets"));
    }
    for _ in 0..buckets {
        let bucket = u16::from_le_bytes(reader.array()?);
        if !entry.buckets.contains(&bucket) {
            entry.buckets.push(bucket);
        }
    }
    Ok((address, entry))
}
