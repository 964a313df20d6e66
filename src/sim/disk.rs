//! A disk that can fail, fill up, lie and lose power: files and a key-value store, as one device.
//!
//! 1. Every write (an append, a truncation, a sync, a removal, a commit) has a number, counted from the
//!    disk's beginning. A [`DiskFault`] can be laid on any number to come.
//! 2. [`SimDisk::crash`] is the end of a process: with [`Crash::Kill`] all that was written stays, as in the
//!    page cache of a system that lives on; with [`Crash::PowerLoss`] what was not synced is lost from some
//!    point on, perhaps torn or zeroed there, and new names may be gone.
//! 3. A handle belongs to the life of the disk in which it was made: after a crash it only fails.
//!
//! The store keeps the contract of [`Store`]: commits are atomic and ordered, and one that is durable
//! implies all before it. A disk with [`DiskFault::Lie`] breaks that promise, as real ones do.

use crate::chain::command::BlockRef;
use crate::rng::Rng;
use crate::store::medium::Medium;
use crate::store::memory::MemoryStore;
use crate::store::{Batch, Durability, Entry, Store, StoreError, Table, schema};
use core::fmt;
use core::ops::Bound;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// What happens at one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DiskFault {
    /// It fails; a part of an append may have been written.
    Fail,
    /// The disk is full from here on, until the next crash.
    Full,
    /// It is said to be on stable storage and is not: a loss of power takes it back.
    Lie,
    /// One bit of what is appended is stored wrongly. (Of other writes: nothing.)
    Rot,
    /// The process dies in the middle of it.
    Die,
}

/// How a process ends that did not end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process is killed; the system lives on.
    Kill,
    /// The machine loses its power.
    PowerLoss,
}

#[derive(Debug, Default)]
struct SimFile {
    bytes: Vec<u8>,
    /// Bytes that survive a loss of power; `None`: not even the name does.
    synced: Option<usize>,
}

#[derive(Debug, Default)]
struct Device {
    files: BTreeMap<String, SimFile>,
    /// The tables with all commits.
    tables: MemoryStore,
    /// The tables as a loss of power leaves them at worst.
    stable: MemoryStore,
    /// Commits that `stable` lacks, in order.
    unstable: Vec<Batch>,
    batch_limit: usize,
    life: u64,
    writes: u64,
    faults: BTreeMap<u64, DiskFault>,
    full: bool,
    dead: bool,
    struck: Vec<(u64, DiskFault)>,
}

/// The device. Clones are the same device.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<Device>>);

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let disk = self.0.lock();
        f.debug_struct("SimDisk")
            .field("life", &disk.life)
            .field("writes", &disk.writes)
            .finish_non_exhaustive()
    }
}

impl SimDisk {
    /// An empty disk whose store asks for batches of so many changes ([`Store::batch_limit`]).
    pub fn new(batch_limit: usize) -> Self {
        Self(Arc::new(Mutex::new(Device { batch_limit, ..Device::default() })))
    }

    /// The files, for the present life.
    pub fn files(&self) -> SimFiles {
        SimFiles { disk: self.clone(), life: self.0.lock().life }
    }

    /// The store, for the present life.
    pub fn store(&self) -> SimStore {
        SimStore { disk: self.clone(), life: self.0.lock().life }
    }

    /// Lays a fault on the write with this number, if it is still to come.
    pub fn strike(&self, write: u64, fault: DiskFault) {
        let mut disk = self.0.lock();
        if write > disk.writes {
            disk.faults.insert(write, fault);
        }
    }

    /// How many writes there were.
    pub fn writes(&self) -> u64 {
        self.0.lock().writes
    }

    /// The faults that came about, with the numbers of their writes.
    pub fn struck(&self) -> Vec<(u64, DiskFault)> {
        self.0.lock().struck.clone()
    }

    /// Whether a [`DiskFault::Die`] came about in this life.
    pub fn is_dead(&self) -> bool {
        self.0.lock().dead
    }

    /// Ends the life of all handles and leaves what such an end leaves. Faults that did not come about are
    /// taken back, and there is room again.
    pub fn crash(&self, how: Crash, rng: &mut Rng) {
        let mut disk = self.0.lock();
        disk.life += 1;
        disk.faults.clear();
        (disk.full, disk.dead) = (false, false);
        if how == Crash::Kill {
            return;
        }
        let Device { files, tables, stable, unstable, .. } = &mut *disk;
        files.retain(|_, file| file.synced.is_some() || rng.below(2) == 0);
        for file in files.values_mut() {
            let synced = file.synced.unwrap_or(0).min(file.bytes.len());
            let kept = synced + rng.below((file.bytes.len() - synced) as u64 + 1) as usize;
            file.bytes.truncate(kept);
            if rng.below(3) == 0 {
                // The length went to the disk before all of the content did.
                let zeroed = synced + rng.below((kept - synced) as u64 + 1) as usize;
                file.bytes[zeroed..].fill(0);
            }
            file.synced = Some(kept);
        }
        let kept = rng.below(unstable.len() as u64 + 1) as usize;
        for batch in unstable.drain(..).take(kept) {
            put(stable, batch);
        }
        *tables = stable.fork();
    }

    /// Empties the disk: what a host does that syncs anew.
    pub fn wipe(&self) {
        let mut disk = self.0.lock();
        disk.life += 1;
        let (life, batch_limit, writes) = (disk.life, disk.batch_limit, disk.writes);
        *disk = Device {
            life,
            batch_limit,
            writes,
            struck: core::mem::take(&mut disk.struck),
            ..Device::default()
        };
    }

    /// The tip in the tables that survive a loss of power; `None` before the first commit.
    pub fn stable_tip(&self) -> Option<BlockRef> {
        schema::tip(&self.0.lock().stable).ok().flatten()
    }

    /// The tip in the tables, whether a flush was cut short, and all entries of the coins.
    pub fn coins(&self) -> (Option<BlockRef>, bool, Vec<Entry>) {
        let disk = self.0.lock();
        let pending = !matches!(schema::pending(&disk.tables), Ok(None));
        let coins = disk.tables.range(Table::Coins, Bound::Unbounded, Bound::Unbounded, usize::MAX);
        (schema::tip(&disk.tables).ok().flatten(), pending, coins.unwrap_or_default())
    }
}

/// Applies a batch whose sizes are checked: tables in memory take it.
fn put(tables: &MemoryStore, batch: Batch) {
    let taken = tables.commit(batch, Durability::Buffered);
    debug_assert!(taken.is_ok());
}

impl Device {
    /// Whether a handle of this life may work.
    fn check(&self, life: u64) -> io::Result<()> {
        if self.life == life && !self.dead {
            return Ok(());
        }
        Err(io::Error::other("the process that held this has ended"))
    }

    /// Counts a write; the fault that strikes it.
    fn count(&mut self, life: u64) -> io::Result<Option<DiskFault>> {
        self.check(life)?;
        self.writes += 1;
        let fault = self.faults.remove(&self.writes);
        if let Some(fault) = fault {
            self.struck.push((self.writes, fault));
        }
        match fault {
            Some(DiskFault::Die) => self.dead = true,
            Some(DiskFault::Full) => self.full = true,
            _ => {}
        }
        Ok(fault)
    }

    fn failure(&self) -> io::Error {
        let kind = if self.full { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
        io::Error::new(kind, "the simulated disk")
    }

    /// Whether a write with this fault does not happen.
    fn fails(&self, fault: Option<DiskFault>) -> bool {
        self.full || matches!(fault, Some(DiskFault::Fail | DiskFault::Die))
    }
}

fn absent(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no file {name}"))
}

/// The files of a [`SimDisk`].
#[derive(Clone, Debug)]
pub struct SimFiles {
    disk: SimDisk,
    life: u64,
}

impl Medium for SimFiles {
    fn list(&self) -> io::Result<Vec<String>> {
        let disk = self.disk.0.lock();
        disk.check(self.life)?;
        Ok(disk.files.keys().cloned().collect())
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        let disk = self.disk.0.lock();
        disk.check(self.life)?;
        disk.files.get(name).map(|file| file.bytes.len() as u64).ok_or_else(|| absent(name))
    }

    fn read_at(&self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let disk = self.disk.0.lock();
        disk.check(self.life)?;
        let file = disk.files.get(name).ok_or_else(|| absent(name))?;
        let from = usize::try_from(offset).ok();
        let bytes = from.and_then(|from| file.bytes.get(from..from.checked_add(buffer.len())?));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn append(&self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        let mut disk = self.disk.0.lock();
        let fault = disk.count(self.life)?;
        let mut bytes = parts.concat();
        let fails = disk.fails(fault);
        if fails {
            // How much of it was written follows from the number of the write.
            let part = (disk.writes as usize).wrapping_mul(7_919) % (bytes.len() + 1);
            bytes.truncate(part);
        } else if fault == Some(DiskFault::Rot) && !bytes.is_empty() {
            let bit = (disk.writes as usize).wrapping_mul(7_919) % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        disk.files.entry(name.to_owned()).or_default().bytes.extend_from_slice(&bytes);
        if fails { Err(disk.failure()) } else { Ok(()) }
    }

    fn truncate(&self, name: &str, len: u64) -> io::Result<()> {
        let mut disk = self.disk.0.lock();
        let fault = disk.count(self.life)?;
        if disk.fails(fault) {
            return Err(disk.failure());
        }
        let file = disk.files.get_mut(name).ok_or_else(|| absent(name))?;
        file.bytes.truncate(usize::try_from(len).unwrap_or(usize::MAX));
        file.synced = file.synced.map(|synced| synced.min(file.bytes.len()));
        Ok(())
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk.0.lock();
        let fault = disk.count(self.life)?;
        if disk.fails(fault) {
            return Err(disk.failure());
        }
        let file = disk.files.get_mut(name).ok_or_else(|| absent(name))?;
        if fault != Some(DiskFault::Lie) {
            file.synced = Some(file.bytes.len());
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk.0.lock();
        let fault = disk.count(self.life)?;
        if disk.fails(fault) {
            return Err(disk.failure());
        }
        disk.files.remove(name).map(drop).ok_or_else(|| absent(name))
    }
}

/// The store of a [`SimDisk`].
#[derive(Clone, Debug)]
pub struct SimStore {
    disk: SimDisk,
    life: u64,
}

impl SimStore {
    fn context(doing: &str) -> impl FnOnce(io::Error) -> StoreError {
        move |error| StoreError::io(format!("{doing} the simulated store"), error)
    }
}

impl Store for SimStore {
    fn get_many(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let disk = self.disk.0.lock();
        disk.check(self.life).map_err(Self::context("read"))?;
        disk.tables.get_many(table, keys)
    }

    fn range(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let disk = self.disk.0.lock();
        disk.check(self.life).map_err(Self::context("read"))?;
        disk.tables.range(table, from, to, limit)
    }

    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        batch.check_sizes()?;
        let mut disk = self.disk.0.lock();
        let fault = disk.count(self.life).map_err(Self::context("write"))?;
        if disk.fails(fault) && (disk.full || disk.writes.is_multiple_of(2)) {
            return Err(Self::context("write")(disk.failure()));
        }
        put(&disk.tables, batch.clone());
        disk.unstable.push(batch);
        if disk.fails(fault) {
            // It happened, and the answer was lost: the contract allows either.
            return Err(Self::context("write")(disk.failure()));
        }
        if durability == Durability::Durable && fault != Some(DiskFault::Lie) {
            let Device { stable, unstable, .. } = &mut *disk;
            unstable.drain(..).for_each(|batch| put(stable, batch));
        }
        Ok(())
    }

    fn batch_limit(&self) -> usize {
        self.disk.0.lock().batch_limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreErrorKind;

    fn put(store: &SimStore, key: &[u8], durability: Durability) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        batch.put(Table::Meta, key, *b"v");
        store.commit(batch, durability)
    }

    #[test]
    fn a_loss_of_power_takes_only_what_was_not_synced() {
        for seed in 0..50 {
            let mut rng = Rng::from_number(seed);
            let disk = SimDisk::new(100);
            let (files, store) = (disk.files(), disk.store());
            files.append("a", &[b"synced"]).unwrap();
            files.sync("a").unwrap();
            files.append("a", &[b"not"]).unwrap();
            put(&store, b"durable", Durability::Durable).unwrap();
            put(&store, b"1", Durability::Buffered).unwrap();
            put(&store, b"2", Durability::Buffered).unwrap();
            disk.crash(Crash::PowerLoss, &mut rng);
            assert!(files.len("a").is_err() && put(&store, b"late", Durability::Durable).is_err());
            let (files, store) = (disk.files(), disk.store());
            let mut kept = [0; 6];
            files.read_at("a", 0, &mut kept).unwrap();
            assert_eq!(&kept, b"synced");
            assert!(files.len("a").unwrap() <= 9);
            let get = |key: &[u8]| store.get(Table::Meta, key).unwrap().is_some();
            assert!(get(b"durable") && (get(b"1") || !get(b"2")), "commits are lost from the end");
        }
    }

    #[test]
    fn faults_strike_the_write_they_were_laid_on() {
        let disk = SimDisk::new(100);
        let (files, store) = (disk.files(), disk.store());
        disk.strike(1, DiskFault::Fail);
        assert!(files.append("a", &[b"123"]).is_err());
        files.append("a", &[b"45"]).unwrap();
        disk.strike(3, DiskFault::Full);
        let full = put(&store, b"k", Durability::Durable).unwrap_err();
        assert_eq!(full.kind, StoreErrorKind::Full);
        assert!(files.sync("a").is_err(), "and it stays full");
        disk.crash(Crash::Kill, &mut Rng::from_number(1));
        assert!(disk.files().sync("a").is_ok(), "until somebody makes room");
        disk.strike(disk.writes() + 1, DiskFault::Die);
        assert!(put(&disk.store(), b"k", Durability::Durable).is_err());
        assert!(disk.is_dead() && disk.files().list().is_err());
        assert_eq!(disk.struck().len(), 3);
    }
}
