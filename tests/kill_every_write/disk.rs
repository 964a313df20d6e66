//! A disk that counts its writes and dies at one of them: a medium and a store in memory, and what a killed
//! process or a power loss leaves of both.

use headlong::chain::command::BlockRef;
use headlong::rng::Rng;
use headlong::store::medium::Medium;
use headlong::store::memory::MemoryStore;
use headlong::store::schema::KEY_TIP;
use headlong::store::{Batch, Change, Durability, Entry, Store, StoreError, StoreErrorKind, Table};
use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

/// How far the write got at which the disk dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Nothing of it was done.
    Nothing,
    /// An append wrote some of its bytes; other writes are whole or not at all.
    Part,
    /// All of it was done, but nobody was told.
    All,
}

/// What happened to the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process died: all that was written stays.
    Process,
    /// The power failed: what was not synced may be lost in part, each file by itself.
    Power,
}

/// A file: what is read from it, and what is sure to survive.
#[derive(Clone, Debug, Default)]
struct File {
    bytes: Vec<u8>,
    /// `None`: not even the name.
    synced: Option<Vec<u8>>,
}

impl File {
    /// What a power loss leaves.
    fn after_loss(&self, rng: &mut Rng) -> Option<Vec<u8>> {
        let old = match &self.synced {
            None if rng.below(3) == 0 => return None,
            None => &[][..],
            Some(synced) => synced,
        };
        let shared = old.iter().zip(&self.bytes).take_while(|(a, b)| a == b).count();
        if shared < old.len() && rng.below(2) == 0 {
            // The file was cut, and the disk never heard of it.
            return Some(old.to_vec());
        }
        let kept = shared + rng.below((self.bytes.len() - shared) as u64 + 1) as usize;
        let mut left = self.bytes[..kept].to_vec();
        if rng.below(3) == 0 {
            // The length reached the disk, and not all of the content.
            let from = shared + rng.below((kept - shared) as u64 + 1) as usize;
            left[from..].fill(0);
        }
        Some(left)
    }
}

#[derive(Debug)]
struct State {
    files: BTreeMap<String, File>,
    store: MemoryStore,
    /// The store as its last durable commit left it, and after each commit since.
    surviving: Vec<MemoryStore>,
    batch_limit: usize,
    /// Writes so far.
    writes: u64,
    dies_at: Option<(u64, Extent)>,
    dead: bool,
    /// The tips that became durable, in order.
    tips: Vec<BlockRef>,
    /// Writes that were appends of at least two bytes: there is a middle to die in.
    divisible: Vec<u64>,
    /// Commits that set or found the marker of a flush in several batches.
    in_steps: u64,
    seed: u64,
}

/// The disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct Disk(Arc<Mutex<State>>);

impl Disk {
    /// An empty one, whose store asks for batches of at most `batch_limit` changes.
    pub fn new(batch_limit: usize) -> Self {
        let store = MemoryStore::new();
        Self::with(BTreeMap::new(), store, batch_limit)
    }

    fn with(files: BTreeMap<String, File>, store: MemoryStore, batch_limit: usize) -> Self {
        let state = State {
            files,
            surviving: vec![store.fork()],
            store,
            batch_limit,
            writes: 0,
            dies_at: None,
            dead: false,
            tips: Vec::new(),
            divisible: Vec::new(),
            in_steps: 0,
            seed: 0,
        };
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The same content on another disk that has counted nothing yet; everything is on stable storage.
    pub fn copy(&self) -> Self {
        let state = self.state();
        let settled = |file: &File| File { bytes: file.bytes.clone(), synced: Some(file.bytes.clone()) };
        let files = state.files.iter().map(|(name, file)| (name.clone(), settled(file))).collect();
        Self::with(files, state.store.fork(), state.batch_limit)
    }

    /// Dies at this write, from 1 on.
    pub fn die_at(&self, write: u64, extent: Extent, seed: u64) {
        let mut state = self.state();
        state.dies_at = Some((write, extent));
        state.seed = seed;
    }

    /// Whether it died.
    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// Writes so far.
    pub fn writes(&self) -> u64 {
        self.state().writes
    }

    /// The writes that were appends of several bytes.
    pub fn divisible(&self) -> Vec<u64> {
        self.state().divisible.clone()
    }

    /// The tips that were committed, in order.
    pub fn tips(&self) -> Vec<BlockRef> {
        self.state().tips.clone()
    }

    /// Commits that belonged to flushes in several batches.
    pub fn in_steps(&self) -> u64 {
        self.state().in_steps
    }

    /// The store, to look at.
    pub fn store(&self) -> MemoryStore {
        self.state().store.clone()
    }

    /// What is there after a crash.
    pub fn after(&self, crash: Crash, rng: &mut Rng) -> Self {
        if crash == Crash::Process {
            return self.copy();
        }
        let state = self.state();
        let at = rng.below(state.surviving.len() as u64) as usize;
        let files = state.files.iter().filter_map(|(name, file)| {
            let left = file.after_loss(rng)?;
            Some((name.clone(), File { bytes: left.clone(), synced: Some(left) }))
        });
        Self::with(files.collect(), state.surviving[at].fork(), state.batch_limit)
    }

    pub fn medium(&self) -> Arc<dyn Medium> {
        Arc::new(self.clone())
    }
}

const PULLED: &str = "the test pulls the plug";

impl State {
    /// Counts a write. What is to be done of it: `None` if nothing, because the disk is dead.
    fn begin(&mut self) -> Option<Extent> {
        if self.dead {
            return None;
        }
        self.writes += 1;
        match self.dies_at {
            Some((at, extent)) if at == self.writes => {
                self.dead = true;
                Some(extent)
            }
            _ => Some(Extent::All),
        }
    }

    fn end(&self) -> io::Result<()> {
        if self.dead { Err(io::Error::other(PULLED)) } else { Ok(()) }
    }

    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        self.files.get_mut(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Medium for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.state();
        state.end()?;
        Ok(state.files.keys().cloned().collect())
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        let mut state = self.state();
        state.end()?;
        Ok(state.file(name)?.bytes.len() as u64)
    }

    fn read_at(&self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut state = self.state();
        state.end()?;
        let bytes = &state.file(name)?.bytes;
        let from = offset as usize;
        let found = bytes.get(from..from + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(found);
        Ok(())
    }

    fn append(&self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        let mut state = self.state();
        let Some(extent) = state.begin() else { return state.end() };
        let bytes = parts.concat();
        let kept = match extent {
            Extent::Nothing => 0,
            Extent::Part => {
                1 + Rng::from_number(state.seed ^ state.writes).below(bytes.len().max(2) as u64 - 1) as usize
            }
            Extent::All => bytes.len(),
        };
        if bytes.len() > 1 {
            let number = state.writes;
            state.divisible.push(number);
        }
        if extent != Extent::Nothing {
            let file = state.files.entry(name.to_owned()).or_default();
            file.bytes.extend_from_slice(&bytes[..kept.min(bytes.len())]);
        }
        state.end()
    }

    fn truncate(&self, name: &str, len: u64) -> io::Result<()> {
        let mut state = self.state();
        let Some(extent) = state.begin() else { return state.end() };
        if extent == Extent::All {
            state.file(name)?.bytes.truncate(len as usize);
        }
        state.end()
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        let Some(extent) = state.begin() else { return state.end() };
        if extent == Extent::All {
            let file = state.file(name)?;
            file.synced = Some(file.bytes.clone());
        }
        state.end()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        let Some(extent) = state.begin() else { return state.end() };
        if extent == Extent::All {
            state.files.remove(name).ok_or(io::ErrorKind::NotFound)?;
        }
        state.end()
    }
}

impl Disk {
    fn alive(&self) -> Result<MemoryStore, StoreError> {
        let state = self.state();
        if state.dead { Err(pulled()) } else { Ok(state.store.clone()) }
    }
}

fn pulled() -> StoreError {
    StoreError::new(StoreErrorKind::Transient, PULLED)
}

impl Store for Disk {
    fn get_many(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.alive()?.get_many(table, keys)
    }

    fn range(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.alive()?.range(table, from, to, limit)
    }

    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        let mut state = self.state();
        assert!(batch.len() <= state.batch_limit.max(3), "a batch is larger than the store asked for");
        let Some(extent) = state.begin() else { return Err(pulled()) };
        if extent == Extent::All {
            let tip = batch.changes().iter().find_map(|change| match change {
                Change::Put(Table::Meta, key, _) if key == KEY_TIP => Some(()),
                _ => None,
            });
            state.store.commit(batch, durability)?;
            if durability == Durability::Durable {
                state.surviving.clear();
            }
            let now = state.store.fork();
            if headlong::store::schema::pending(&now)?.is_some() {
                state.in_steps += 1;
            }
            if tip.is_some() {
                state.tips.extend(headlong::store::schema::tip(&now)?);
            }
            state.surviving.push(now);
        }
        if state.dead { Err(pulled()) } else { Ok(()) }
    }

    fn batch_limit(&self) -> usize {
        self.state().batch_limit
    }
}
