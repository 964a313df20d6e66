//! Known addresses: what DNS seeds, gossip and earlier runs told, who was there, and who misbehaved.
//!
//! As Core's addrman.cpp:
//! 1. An address that was told goes into the *new* table: 1,024 buckets of 64. The bucket follows from the group of the
//!    address and the group of who told it, so that one source reaches 64 buckets and no more. An address that several
//!    sources tell lies in up to 8 of them.
//! 2. One that was there goes into the *tried* table: 256 buckets of 64; all addresses of one group reach 8 of them.
//!    If its place is taken, it waits until the one that has it was tested: only if that does not answer, it goes.
//! 3. Buckets and places follow from a secret key, so that nobody can aim at them.
//! 4. A dial takes from either table with the same chance, a bucket, then an address within it; less often one that
//!    failed lately. What was not seen for thirty days, or failed again and again, makes way for others.
//! 5. Not as Core: every second draw is of what a seed or the host told and nobody dialled yet (`vouched`).
//!
//! Nothing here is larger than its tables. Saved as bytes by [`mod@file`]. Left out: AS maps.

pub mod file;
mod table;
mod vouched;

use super::PeerAddress;
use super::address::AddressNetwork;
pub use super::group::{NetGroup, is_routable};
use crate::limits::{
    ADDRESS_COLLISIONS, ADDRESS_DRAWS, ADDRESS_HORIZON, ADDRESS_TEST_WINDOW, MAX_DISCOURAGED,
    NEW_BUCKETS_PER_ADDRESS, RECONNECT_FIRST, RECONNECT_MAX,
};
use crate::peer::backoff::Backoff;
use crate::rng::Rng;
use crate::time::{Now, Timestamp};
use bitcoin::p2p::ServiceFlags;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use table::{Places, Table};
use vouched::Vouched;

/// Failures after which an address that never answered makes way (`ADDRMAN_RETRIES`).
const RETRIES: u32 = 3;
/// Failures after which one that did makes way (`ADDRMAN_MAX_FAILURES`), if it has not answered …
const MAX_FAILURES: u32 = 10;
/// … for so many seconds (`ADDRMAN_MIN_FAIL`).
const MIN_FAIL: u64 = 7 * 24 * 3_600;
/// Seconds since a test within which its outcome decides about a place (`ADDRMAN_REPLACEMENT`).
const REPLACEMENT: u64 = 4 * 3_600;
/// Seconds.
const DAY: u64 = 24 * 3_600;

/// The host part of an address: misbehaviour is remembered for all its ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Host {
    Ip(IpAddr),
    Name(String),
    Other(AddressNetwork, [u8; 32]),
}

fn host(address: &PeerAddress) -> Host {
    match address {
        PeerAddress::Ip(socket) => Host::Ip(socket.ip().to_canonical()),
        PeerAddress::Cjdns(ip, _) => Host::Ip((*ip).into()),
        PeerAddress::Name(name, _) => Host::Name(name.clone()),
        PeerAddress::Http(url) => host(url.host()),
        PeerAddress::Onion(key, _) => Host::Other(AddressNetwork::Onion, *key),
        PeerAddress::I2p(hash, _) => Host::Other(AddressNetwork::I2p, *hash),
    }
}

/// An address as somebody told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Where.
    pub address: PeerAddress,
    /// What it offers.
    pub services: ServiceFlags,
    /// When it was last seen, in Unix seconds.
    pub seen: u64,
}

/// What is known of an address; times are Unix seconds, 0 for never.
#[derive(Clone, Debug)]
struct Entry {
    services: ServiceFlags,
    /// Who told it first.
    source: NetGroup,
    last_seen: u64,
    last_try: u64,
    /// The last try that counted as a failure.
    last_counted: u64,
    last_success: u64,
    /// Failures since the last success.
    attempts: u32,
    tried: bool,
    /// Buckets of the new table where it lies.
    buckets: Vec<u16>,
    /// Failures in this run.
    failures: u32,
    /// Not to be dialled before.
    next_try: Timestamp,
    connected: bool,
}

impl Entry {
    fn new(source: NetGroup, services: ServiceFlags, seen: u64) -> Self {
        Self {
            services,
            source,
            last_seen: seen,
            last_try: 0,
            last_counted: 0,
            last_success: 0,
            attempts: 0,
            tried: false,
            buckets: Vec::new(),
            failures: 0,
            next_try: Timestamp::ZERO,
            connected: false,
        }
    }

    /// Whether it may make way for another (`AddrInfo::IsTerrible`).
    fn is_terrible(&self, now: u64, horizon: u64) -> bool {
        if now.saturating_sub(self.last_try) <= 60 {
            return false;
        }
        self.last_seen > now.saturating_add(600)
            || now.saturating_sub(self.last_seen) > horizon
            || (self.last_success == 0 && self.attempts >= RETRIES)
            || (now.saturating_sub(self.last_success) > MIN_FAIL && self.attempts >= MAX_FAILURES)
    }

    /// How readily it is taken, from 0 to 1 (`AddrInfo::GetChance`).
    fn chance(&self, now: u64) -> f64 {
        let lately = now.saturating_sub(self.last_try) < 600;
        0.66f64.powi(self.attempts.min(8) as i32) * if lately { 0.01 } else { 1.0 }
    }
}

/// What a pick has to keep to.
pub struct Wanted<'a> {
    /// From the new table only: to find out who is there.
    pub new_only: bool,
    /// Groups that have a connection already.
    pub taken: &'a BTreeSet<NetGroup>,
    /// Whether an address with these services may be dialled.
    pub fits: &'a dyn Fn(&PeerAddress, ServiceFlags) -> bool,
}

/// Addresses worth dialling, and hosts that are not.
#[derive(Debug)]
pub struct AddressBook {
    places: Places,
    horizon: u64,
    entries: BTreeMap<PeerAddress, Entry>,
    new: Table,
    tried: Table,
    vouched: Vouched,
    /// Addresses that wait for a place in the tried table.
    collisions: BTreeSet<PeerAddress>,
    /// When an address last became good: failures before count once.
    last_good: u64,
    /// Block-relay-only peers of the last run, to be dialled first.
    anchors: Vec<PeerAddress>,
    discouraged: BTreeSet<Host>,
    /// The order in which they were discouraged.
    oldest: VecDeque<Host>,
    changed: bool,
}

impl AddressBook {
    /// An empty book whose places follow from this secret.
    pub fn new(key: [u8; 16]) -> Self {
        Self {
            places: Places::new(key),
            horizon: ADDRESS_HORIZON.as_secs(),
            entries: BTreeMap::new(),
            new: Table::default(),
            tried: Table::default(),
            vouched: Vouched::default(),
            collisions: BTreeSet::new(),
            last_good: 1,
            anchors: Vec::new(),
            discouraged: BTreeSet::new(),
            oldest: VecDeque::new(),
            changed: false,
        }
    }

    /// Forgets what was not seen for so long, instead of for thirty days.
    pub fn set_horizon(&mut self, horizon: Duration) {
        self.horizon = horizon.as_secs();
    }

    /// The number of addresses.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no address.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The number of addresses that were there once.
    pub fn tried(&self) -> usize {
        self.tried.len()
    }

    /// The number of hosts that are not dialled because they broke a rule.
    pub fn discouraged(&self) -> usize {
        self.discouraged.len()
    }

    /// The number of addresses that wait for a place in the tried table.
    pub fn collisions(&self) -> usize {
        self.collisions.len()
    }

    /// What an address is said to offer; nothing if it is not known.
    pub fn services(&self, address: &PeerAddress) -> ServiceFlags {
        self.entries.get(address).map_or(ServiceFlags::NONE, |entry| entry.services)
    }

    /// How many addresses it has of each network.
    pub fn census(&self) -> [Census; 5] {
        let mut all = AddressNetwork::ALL.map(|network| Census { network, new: 0, tried: 0 });
        for (address, entry) in &self.entries {
            if let Some(census) = all.iter_mut().find(|census| address.network() == Some(census.network)) {
                *(if entry.tried { &mut census.tried } else { &mut census.new }) += 1;
            }
        }
        all
    }

    /// Takes an address from this source; `penalty` is taken off the time at which it was seen, since one that others
    /// tell is worth less than one that tells itself. `true` if it is new or lies in one more place.
    pub fn add(
        &mut self,
        told: &Told,
        source: &NetGroup,
        penalty: Duration,
        now: u64,
        rng: &mut Rng,
    ) -> bool {
        if told.address.network().is_none() || self.is_discouraged(&told.address) {
            return false;
        }
        let seen = told.seen.saturating_sub(penalty.as_secs());
        let known = self.entries.get_mut(&told.address);
        let places = known.as_ref().map(|entry| entry.buckets.len());
        if let Some(entry) = known {
            let is_online = now.saturating_sub(told.seen) < DAY;
            let interval = if is_online { 3_600 } else { DAY };
            if entry.last_seen < seen.saturating_sub(interval) {
                entry.last_seen = seen;
                self.changed = true;
            }
            entry.services |= told.services;
            if entry.last_try == 0 {
                self.vouched.put(&told.address, source);
            }
            let enough = entry.tried || entry.buckets.len() >= NEW_BUCKETS_PER_ADDRESS;
            // Each further place is half as likely as the one before.
            if told.seen <= entry.last_seen || enough || rng.below(1 << entry.buckets.len()) != 0 {
                return false;
            }
        }
        let slot = self.places.new_slot(&told.address, source);
        if let Some(other) = self.new.get(slot).cloned() {
            let Some(entry) = self.entries.get(&other) else { return false };
            let makes_way = entry.is_terrible(now, self.horizon)
                || (entry.buckets.len() > 1 && places.is_none_or(|places| places == 0));
            if other == told.address || entry.connected || !makes_way {
                return false;
            }
            self.clear_new(slot);
        }
        let fresh = || Entry::new(source.clone(), told.services, seen);
        let entry = self.entries.entry(told.address.clone()).or_insert_with(fresh);
        entry.buckets.push(slot.0);
        if places.is_none() {
            self.vouched.put(&told.address, source);
        }
        self.new.put(slot, told.address.clone());
        self.changed = true;
        true
    }

    /// Takes an address that a peer of the group `from` told. A time from the future, or none, counts as five days ago,
    /// and all lose two hours, as in Core.
    pub fn gossip(&mut self, told: Told, from: &NetGroup, now: u64, rng: &mut Rng) -> bool {
        let odd = told.seen <= 100_000_000 || told.seen > now.saturating_add(600);
        let seen = if odd { now.saturating_sub(5 * DAY) } else { told.seen };
        let told = Told { seen, ..told };
        let penalty = Duration::from_secs(2 * 3_600);
        is_routable(&told.address)
            && now.saturating_sub(seen) <= self.horizon
            && self.add(&told, from, penalty, now, rng)
    }

    /// Takes the address out of a place of the new table, and out of the book if it was its last.
    fn clear_new(&mut self, slot: (u16, u8)) {
        let Some(address) = self.new.take(slot) else { return };
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.buckets.retain(|bucket| *bucket != slot.0);
            if entry.buckets.is_empty() && !entry.tried {
                self.entries.remove(&address);
                self.collisions.remove(&address);
                self.vouched.remove(&address);
            }
        }
    }

    /// Moves an address into the tried table; whatever has its place goes back to the new one.
    fn make_tried(&mut self, address: &PeerAddress) {
        let slot = self.places.tried_slot(address);
        let Some(entry) = self.entries.get_mut(address).filter(|entry| !entry.tried) else { return };
        entry.tried = true;
        for bucket in core::mem::take(&mut entry.buckets) {
            self.new.take((bucket, self.places.new_position(address, bucket)));
        }
        if let Some(old) = self.tried.take(slot)
            && let Some(entry) = self.entries.get_mut(&old)
        {
            entry.tried = false;
            let back = self.places.new_slot(&old, &entry.source.clone());
            self.clear_new(back);
            if let Some(entry) = self.entries.get_mut(&old) {
                entry.buckets.push(back.0);
                self.new.put(back, old);
            }
        }
        self.tried.put(slot, address.clone());
        self.collisions.remove(address);
        self.changed = true;
    }

    /// An address to dial, or when there may be one.
    ///
    /// # Errors
    /// When to ask again; `None` if only new addresses can help.
    pub fn pick(
        &self,
        now: Now,
        rng: &mut Rng,
        wanted: &Wanted<'_>,
    ) -> Result<PeerAddress, Option<Timestamp>> {
        let mut ease = 1.0;
        for _ in 0..ADDRESS_DRAWS {
            let Some(address) = self.draw(wanted.new_only, rng) else { break };
            let Some(entry) = self.entries.get(address) else { continue };
            let may = entry.next_try <= now.at && self.fits(address, entry, wanted);
            let chance = (entry.chance(now.unix) * ease * 1e9) as u64;
            if may && rng.below(1_000_000_000) < chance {
                return Ok(address.clone());
            }
            ease *= 1.2;
        }
        self.search(now, rng, wanted)
    }

    fn draw(&self, new_only: bool, rng: &mut Rng) -> Option<&PeerAddress> {
        if rng.below(2) == 0
            && let Some(address) = self.vouched.draw(rng)
        {
            return Some(address);
        }
        let new = new_only || self.tried.is_empty() || (!self.new.is_empty() && rng.below(2) == 0);
        (if new { &self.new } else { &self.tried }).draw(rng)
    }

    /// The same by looking at all of them: few fit, or none.
    fn search(&self, now: Now, rng: &mut Rng, wanted: &Wanted<'_>) -> Result<PeerAddress, Option<Timestamp>> {
        let mut soonest: Option<Timestamp> = None;
        let (mut chosen, mut groups) = (Vec::new(), BTreeMap::<&NetGroup, u64>::new());
        for (address, entry) in self.entries.iter().filter(|(_, entry)| !(wanted.new_only && entry.tried)) {
            if !self.fits(address, entry, wanted) {
                continue;
            }
            if entry.next_try <= now.at {
                *groups.entry(&entry.source).or_default() += 1;
                chosen.push((address, &entry.source));
            } else {
                soonest = Some(soonest.map_or(entry.next_try, |at| at.min(entry.next_try)));
            }
        }
        // Who told much counts no more than who told little.
        let source = groups.keys().nth(rng.below(groups.len() as u64) as usize).copied();
        chosen.retain(|(_, by)| Some(*by) == source);
        let address = chosen.get(rng.below(chosen.len() as u64) as usize);
        address.map(|(address, _)| (*address).clone()).ok_or(soonest)
    }

    fn fits(&self, address: &PeerAddress, entry: &Entry, wanted: &Wanted<'_>) -> bool {
        !entry.connected
            && (wanted.fits)(address, entry.services)
            && !wanted.taken.contains(&NetGroup::of(address))
    }

    /// An address of the tried table whose place another wants: to be dialled, to see whether it is still there.
    pub fn to_test(&self, now: Now, rng: &mut Rng) -> Option<PeerAddress> {
        let waiting = self.collisions.iter().nth(rng.below(self.collisions.len() as u64) as usize)?;
        let address = self.tried.get(self.places.tried_slot(waiting))?;
        let entry = self.entries.get(address)?;
        (!entry.connected && entry.next_try <= now.at).then(|| address.clone())
    }

    /// Decides about addresses that wait for a place, as far as the test of who has it allows (`ResolveCollisions_`).
    pub fn resolve_collisions(&mut self, now: u64) {
        for address in self.collisions.clone() {
            let Some(entry) = self.entries.get(&address).filter(|entry| !entry.tried) else {
                self.collisions.remove(&address);
                continue;
            };
            let waited = now.saturating_sub(entry.last_success) > ADDRESS_TEST_WINDOW.as_secs();
            let Some(old) = self.tried.get(self.places.tried_slot(&address)) else {
                self.make_tried(&address);
                continue;
            };
            let Some(old) = self.entries.get(old) else { continue };
            if old.connected || now.saturating_sub(old.last_success) < REPLACEMENT {
                // It is there.
                self.collisions.remove(&address);
            } else if (now.saturating_sub(old.last_try) < REPLACEMENT
                && now.saturating_sub(old.last_try) > 60)
                || waited
            {
                self.make_tried(&address);
            }
        }
    }

    /// The address is being dialled. `counts`: if it fails, that is its own fault rather than that of our network.
    pub fn on_dial(&mut self, address: &PeerAddress, counts: bool, now: u64) {
        if let Some(entry) = self.entries.get_mut(address) {
            entry.connected = true;
            entry.last_try = now;
            self.vouched.remove(address);
            if counts && entry.last_counted < self.last_good {
                entry.last_counted = now;
                entry.attempts = entry.attempts.saturating_add(1);
            }
        }
    }

    /// The handshake was completed.
    pub fn on_good(&mut self, address: &PeerAddress, services: ServiceFlags, now: u64) {
        self.last_good = now;
        let Some(entry) = self.entries.get_mut(address) else { return };
        (entry.last_success, entry.last_try) = (now, now);
        (entry.attempts, entry.failures) = (0, 0);
        entry.services = services;
        self.changed = true;
        if entry.tried {
            return;
        }
        let slot = self.places.tried_slot(address);
        if self.tried.get(slot).is_none() {
            self.make_tried(address);
        } else if self.collisions.len() < ADDRESS_COLLISIONS {
            self.collisions.insert(address.clone());
        }
    }

    /// The connection ended; `failed`: it came to nothing.
    pub fn on_gone(&mut self, address: &PeerAddress, now: Now, failed: bool) {
        let Some(entry) = self.entries.get_mut(address) else { return };
        entry.connected = false;
        if !failed && now.unix.saturating_sub(entry.last_seen) > 20 * 60 {
            entry.last_seen = now.unix;
        }
        entry.failures = if failed { entry.failures.saturating_add(1) } else { 0 };
        // An address of the book has others beside it: ten times the patience of one that the host chose.
        // Which of those that are due comes next is drawn, so that no spread is needed.
        let backoff = Backoff::new(RECONNECT_FIRST * 10, RECONNECT_MAX * 10);
        entry.next_try = now.at + backoff.after(entry.failures.max(1)).bound();
        self.changed = true;
    }

    /// Addresses for others who ask: a part of all, at random, at most so many, none that should make way.
    pub fn sample(&self, most: usize, now: u64, rng: &mut Rng) -> Vec<Told> {
        let mut all: Vec<_> =
            self.entries.iter().filter(|(_, entry)| !entry.is_terrible(now, self.horizon)).collect();
        rng.shuffle(&mut all);
        let told = |(address, entry): (&PeerAddress, &Entry)| Told {
            address: address.clone(),
            services: entry.services,
            seen: entry.last_seen,
        };
        all.into_iter().take(most).map(told).collect()
    }

    /// Remembers misbehaviour: the host is dialled no more, and leaves the book with all its ports.
    pub fn discourage(&mut self, address: &PeerAddress) {
        let host_ = host(address);
        let gone: Vec<_> = self.entries.keys().filter(|other| host(other) == host_).cloned().collect();
        for address in gone {
            self.remove(&address);
        }
        self.changed = true;
        if self.discouraged.insert(host_.clone()) {
            self.oldest.push_back(host_);
        }
        while self.oldest.len() > MAX_DISCOURAGED {
            if let Some(first) = self.oldest.pop_front() {
                self.discouraged.remove(&first);
            }
        }
    }

    fn remove(&mut self, address: &PeerAddress) {
        let Some(entry) = self.entries.remove(address) else { return };
        self.collisions.remove(address);
        self.vouched.remove(address);
        if entry.tried {
            self.tried.take(self.places.tried_slot(address));
        }
        for bucket in entry.buckets {
            self.new.take((bucket, self.places.new_position(address, bucket)));
        }
    }

    /// Whether the host misbehaved.
    pub fn is_discouraged(&self, address: &PeerAddress) -> bool {
        self.discouraged.contains(&host(address))
    }

    /// Sets the peers that the next run dials first.
    pub fn set_anchors(&mut self, anchors: Vec<PeerAddress>) {
        self.changed |= self.anchors != anchors;
        self.anchors = anchors;
    }

    /// Those of the last run.
    pub fn anchors(&self) -> &[PeerAddress] {
        &self.anchors
    }

    /// Whether there is something to save.
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// The bytes of the file for the next run, if there is something to save.
    pub fn take_changed(&mut self) -> Option<Vec<u8>> {
        core::mem::take(&mut self.changed).then(|| self.encode())
    }
}

/// How many addresses a book has of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Census {
    /// The network.
    pub network: AddressNetwork,
    /// Addresses that were told.
    pub new: usize,
    /// Addresses that were there once.
    pub tried: usize,
}

#[cfg(test)]
mod tests;
