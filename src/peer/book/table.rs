//! Buckets of places, and which place an address has.

use crate::limits::{
    ADDRESS_BUCKET, NEW_BUCKETS, NEW_BUCKETS_PER_SOURCE, TRIED_BUCKETS, TRIED_BUCKETS_PER_GROUP,
};
use crate::peer::PeerAddress;
use crate::peer::group::NetGroup;
use crate::rng::Rng;
use bitcoin::hashes::{HashEngine, siphash24};
use std::collections::BTreeMap;

/// A bucket, and a place within it.
pub(super) type Slot = (u16, u8);

/// Which addresses lie where.
#[derive(Debug, Default)]
pub(super) struct Table {
    taken: BTreeMap<Slot, PeerAddress>,
    /// How many a bucket holds; no zeroes.
    filled: BTreeMap<u16, u8>,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.taken.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&PeerAddress> {
        self.taken.get(&slot)
    }

    pub(super) fn put(&mut self, slot: Slot, address: PeerAddress) {
        if self.taken.insert(slot, address).is_none() {
            *self.filled.entry(slot.0).or_default() += 1;
        }
    }

    pub(super) fn take(&mut self, slot: Slot) -> Option<PeerAddress> {
        let address = self.taken.remove(&slot)?;
        if let Some(count) = self.filled.get_mut(&slot.0) {
            *count -= 1;
            if *count == 0 {
                self.filled.remove(&slot.0);
            }
        }
        Some(address)
    }

    /// A bucket that is not empty, each with the same chance, and one of its addresses.
    pub(super) fn draw(&self, rng: &mut Rng) -> Option<&PeerAddress> {
        let (bucket, count) = self.filled.iter().nth(rng.below(self.filled.len() as u64) as usize)?;
        let at = rng.below(u64::from(*count)) as usize;
        self.taken.range((*bucket, 0)..=(*bucket, u8::MAX)).nth(at).map(|(_, address)| address)
    }
}

/// Where addresses belong, by a secret key.
#[derive(Debug)]
pub(super) struct Places {
    key: [u8; 16],
}

impl Places {
    pub(super) fn new(key: [u8; 16]) -> Self {
        Self { key }
    }

    pub(super) fn key(&self) -> [u8; 16] {
        self.key
    }

    /// A hash of parts; `what` keeps the uses apart.
    fn hash(&self, what: u8, parts: &[&[u8]]) -> u64 {
        let [low, high] = [0, 8].map(|at| {
            let mut half = [0; 8];
            half.copy_from_slice(&self.key[at..at + 8]);
            u64::from_le_bytes(half)
        });
        let mut engine = siphash24::HashEngine::with_keys(low, high);
        engine.input(&[what]);
        for part in parts {
            engine.input(&(part.len() as u32).to_le_bytes());
            engine.input(part);
        }
        siphash24::Hash::from_engine_to_u64(engine)
    }

    /// Where an address that was told by this source lies in the new table.
    pub(super) fn new_slot(&self, address: &PeerAddress, source: &NetGroup) -> Slot {
        let (group, source) = (NetGroup::of(address).bytes(), source.bytes());
        let of_source = self.hash(b'n', &[&group, &source]) % NEW_BUCKETS_PER_SOURCE;
        let bucket = self.hash(b'N', &[&source, &of_source.to_le_bytes()]) % u64::from(NEW_BUCKETS);
        (bucket as u16, self.new_position(address, bucket as u16))
    }

    /// Its place within a bucket of the new table.
    pub(super) fn new_position(&self, address: &PeerAddress, bucket: u16) -> u8 {
        (self.hash(b'p', &[&bucket.to_le_bytes(), &bytes(address)]) % ADDRESS_BUCKET) as u8
    }

    /// Where an address lies in the tried table.
    pub(super) fn tried_slot(&self, address: &PeerAddress) -> Slot {
        let (group, bytes) = (NetGroup::of(address).bytes(), bytes(address));
        let of_group = self.hash(b't', &[&bytes]) % TRIED_BUCKETS_PER_GROUP;
        let bucket = self.hash(b'T', &[&group, &of_group.to_le_bytes()]) % u64::from(TRIED_BUCKETS);
        let position = self.hash(b'P', &[&bucket.to_le_bytes(), &bytes]) % ADDRESS_BUCKET;
        (bucket as u16, position as u8)
    }
}

/// The bytes of an address: its text, of which no two are the same.
fn bytes(address: &PeerAddress) -> Vec<u8> {
    match address {
        PeerAddress::Ip(socket) => [&address_octets(socket.ip())[..], &socket.port().to_be_bytes()].concat(),
        PeerAddress::Cjdns(ip, port) => [&ip.octets()[..], &port.to_be_bytes()].concat(),
        PeerAddress::Onion(key, port) => [&[4], &key[..], &port.to_be_bytes()].concat(),
        PeerAddress::I2p(hash, port) => [&[5], &hash[..], &port.to_be_bytes()].concat(),
        PeerAddress::Name(name, port) => [name.as_bytes(), &port.to_be_bytes()].concat(),
        PeerAddress::Http(url) => url.to_string().into_bytes(),
    }
}

fn address_octets(ip: std::net::IpAddr) -> [u8; 16] {
    match ip {
        std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        std::net::IpAddr::V6(ip) => ip.octets(),
    }
}
