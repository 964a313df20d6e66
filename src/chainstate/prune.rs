//! Pruning: old blocks and their undo data are deleted, so that their files stay within a budget. Core's
//! `FindFilesToPrune` and `UnlinkPrunedFiles` (blockstorage.cpp, validation.cpp).
//!
//! 1. After a commit, when the files hold more than the budget, whole segments are chosen, those whose highest block
//!    is lowest first. The last segment of each kind stays. So does each that holds a block
//!    - less than [`MIN_BLOCKS_TO_KEEP`] below the durable tip, or above it: reorgs of that depth need it;
//!    - above the fork of the last commit's two tips: while its marker stood, recovery needed both branches, and a
//!      store that loses its last commit, whole or in part, needs them again. A consumer of events that has dealt
//!      with one commit before the next is begun is never left behind for the same reason;
//!    - above the fork of the durable tip and the present one: the next commit will be about them.
//! 2. Headers are synced: what the header file loses can't be had from these blocks any more.
//! 3. From now on the segments count as absent. A job of the pool deletes the files.
//!
//! The store is not written. What an entry of the index says of a segment that is not there is void, so that a kill
//! between any two deletions, a deletion that a loss of power takes back, and a store that steps back to an earlier
//! commit all leave a state that is whole. Files that were chosen and not deleted are found at the next start.
//!
//! With the files over budget, a commit is asked for each time that a segment has begun (Core's
//! `m_check_for_pruning`), since what is above the durable tip can't go.
//!
//! Left out: locks of consumers (Core's `PruneLockInfo`), pruning by hand (`pruneblockchain`).

use super::pipeline::{Chainstate, Completion};
use crate::chain::command::{BlockStorage, ChainReport};
use crate::error::Error;
use crate::limits::{MIN_BLOCKS_TO_KEEP, PRUNED_AT_ONCE, PRUNED_BLOCK_BYTES, PRUNED_WINDOW_MIN};
use crate::store::StoreError;
use crate::store::block_files::{BlockFiles, BlockFilesOptions, Location, RecordKind};
use crate::verify::pool::WorkerPanic;
use bitcoin::BlockHash;
use std::collections::BTreeMap;

/// How much of the old blocks is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PruneOptions {
    /// Bytes of block and undo files above which old segments are deleted.
    pub bytes: u64,
    /// Blocks up to the durable tip that stay whatever they take; [`MIN_BLOCKS_TO_KEEP`] but for tests.
    pub keep_blocks: u32,
}

impl PruneOptions {
    /// A budget in bytes.
    pub fn new(bytes: u64) -> Self {
        Self { bytes, keep_blocks: MIN_BLOCKS_TO_KEEP }
    }

    /// With another number of blocks that stay: networks of tests are short.
    #[must_use]
    pub fn keep_blocks(mut self, blocks: u32) -> Self {
        self.keep_blocks = blocks;
        self
    }

    /// The layout of block files that suits the budget: a quarter of it is the least that can go.
    pub fn files(&self) -> BlockFilesOptions {
        let usual = BlockFilesOptions::default();
        let quarter = u32::try_from(self.bytes / 4).unwrap_or(u32::MAX);
        BlockFilesOptions { segment_bytes: quarter.min(usual.segment_bytes), ..usual }
    }

    /// The window of the download that suits the budget, at most `usual`: blocks that wait to be connected can't be
    /// pruned, and should take no more than half of it.
    pub fn window(&self, usual: u32) -> u32 {
        let half = u32::try_from(self.bytes / 2 / PRUNED_BLOCK_BYTES).unwrap_or(u32::MAX);
        half.max(PRUNED_WINDOW_MIN).min(usual)
    }
}

/// A segment that is there.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    bytes: u64,
    /// Height of its highest block that an entry names; 0 without one.
    top: u32,
}

type SegmentName = (RecordKind, u32);

/// The segments that are there.
#[derive(Debug, Default)]
pub(super) struct Segments {
    held: BTreeMap<SegmentName, Held>,
    bytes: u64,
}

impl Segments {
    /// Those of these files. Reads no record.
    pub fn of(files: &BlockFiles) -> Result<Self, StoreError> {
        let mut segments = Self::default();
        for kind in [RecordKind::Block, RecordKind::Undo] {
            for segment in files.segments(kind)? {
                segments.held.insert((kind, segment.number), Held { bytes: segment.bytes, top: 0 });
                segments.bytes += segment.bytes;
            }
        }
        Ok(segments)
    }

    /// Whether the record's segment is there.
    pub fn has(&self, location: &Location) -> bool {
        self.held.contains_key(&(location.kind, location.segment))
    }

    /// A record of a block at this height is named by an entry, or is about to be.
    pub fn note(&mut self, location: &Location, height: u32) {
        let held = self.held.entry((location.kind, location.segment)).or_default();
        let grown = location.end().saturating_sub(held.bytes);
        held.bytes += grown;
        held.top = held.top.max(height);
        self.bytes += grown;
    }

    /// Bytes of all.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number of the segment that grows, or grew last.
    pub fn last(&self, kind: RecordKind) -> Option<u32> {
        let last = self.held.range((kind, 0)..=(kind, u32::MAX)).next_back();
        last.map(|((_, number), _)| *number)
    }

    /// Takes out what has to go for at most `bytes` to be left, as far as no block above `limit` goes with it. With
    /// it, the height below which blocks may be gone then.
    fn take_old(&mut self, bytes: u64, limit: u32) -> (Vec<SegmentName>, u32) {
        let growing = [RecordKind::Block, RecordKind::Undo].map(|kind| self.last(kind));
        let may_go = |(kind, number): &SegmentName, held: &Held| {
            let grows = growing[usize::from(*kind == RecordKind::Undo)] == Some(*number);
            held.top <= limit && !grows
        };
        let old = self.held.iter().filter(|(name, held)| may_go(name, held));
        let mut old: Vec<(u32, SegmentName)> = old.map(|(name, held)| (held.top, *name)).collect();
        old.sort_unstable();
        let (mut gone, mut below) = (Vec::new(), 0);
        for (top, name) in old.into_iter().take(PRUNED_AT_ONCE) {
            if self.bytes <= bytes {
                break;
            }
            if let Some(held) = self.held.remove(&name) {
                self.bytes = self.bytes.saturating_sub(held.bytes);
                if held.top > 0 {
                    below = top.saturating_add(1);
                }
                gone.push(name);
            }
        }
        (gone, below)
    }
}

/// What pruning has to remember.
#[derive(Debug)]
pub(super) struct Pruning {
    options: Option<PruneOptions>,
    /// Blocks of the active chain, or their undo data, may be gone below this height.
    below: u32,
    /// The height of the fork of the last commit's two tips, at most.
    fork: u32,
    /// The same of the commit that is under way, and of the next one.
    fork_of_this: u32,
    fork_of_next: u32,
    /// The segment of blocks that grew when the last commit was begun.
    growing: Option<u32>,
    /// Files are being deleted.
    busy: bool,
    reported: Option<BlockStorage>,
}

impl Pruning {
    /// `below` is where what is stored begins, `fork` that of the last commit's tips, `tip` the durable height.
    pub fn new(options: Option<PruneOptions>, below: u32, fork: u32, tip: u32) -> Self {
        let (fork_of_this, fork_of_next) = (fork, tip);
        Self { options, below, fork, fork_of_this, fork_of_next, growing: None, busy: false, reported: None }
    }

    /// The tip was lowered to this height. What connects above it is stored.
    pub fn lowered(&mut self, height: u32) {
        self.below = self.below.min(height.saturating_add(1));
        self.fork_of_next = self.fork_of_next.min(height);
    }

    /// Whether files are being deleted.
    pub fn is_busy(&self) -> bool {
        self.busy
    }
}

impl Completion {
    /// Segments were deleted.
    fn pruned(result: Result<Result<(), StoreError>, WorkerPanic>) -> Self {
        let result = result.map_err(|panic| Error::WorkerPanic(panic.0));
        Self::removed(result.and_then(|removed| removed.map_err(Error::from)))
    }
}

impl Chainstate {
    /// What the block files hold.
    pub fn storage(&self) -> BlockStorage {
        BlockStorage { pruned_below: self.pruning.below, bytes: self.archive.segments().bytes() }
    }

    /// Whether a block was stored and its file has been deleted since.
    ///
    /// # Errors
    /// A storage failure.
    pub fn is_pruned(&self, hash: &BlockHash) -> Result<bool, Error> {
        Ok(self.archive.is_pruned(hash)?)
    }

    /// A commit begins that has something to change.
    pub(super) fn note_commit(&mut self) {
        let heights = self.durable.height.min(self.proved.height);
        self.pruning.fork_of_this = self.pruning.fork_of_next.min(heights);
        self.pruning.fork_of_next = self.proved.height;
        self.pruning.growing = self.archive.segments().last(RecordKind::Block);
    }

    /// A commit has ended.
    pub(super) fn after_commit(&mut self) -> Result<(), Error> {
        self.pruning.fork = self.pruning.fork_of_this;
        self.prune()
    }

    /// Whether a commit would let files go, or bring that nearer.
    pub(super) fn has_to_prune(&self) -> bool {
        let Some(options) = self.pruning.options else { return false };
        let segments = self.archive.segments();
        segments.bytes() > options.bytes
            && self.proved != self.durable
            && self.pruning.growing != segments.last(RecordKind::Block)
    }

    /// Deletes what is too much at the start.
    pub(super) fn begin_pruning(&mut self) -> Result<(), Error> {
        self.prune()?;
        // Whoever opens a chainstate asks it.
        self.reports.clear();
        Ok(())
    }

    /// Deletes what is too much, and tells what is left. No flush is under way.
    pub(super) fn prune(&mut self) -> Result<(), Error> {
        if let Some(options) = self
            .pruning
            .options
            .filter(|options| !self.pruning.busy && self.archive.segments().bytes() > options.bytes)
        {
            // In the middle of a reorg the tip lies below what is durable.
            let tip = self.durable.height.min(self.proved.height);
            let forks = self.pruning.fork.min(self.pruning.fork_of_next);
            let limit = tip.saturating_sub(options.keep_blocks).min(forks);
            // A tenth more goes, so that not each new segment asks for a commit; Core does so during the initial sync.
            let goal = options.bytes - options.bytes / 10;
            let (gone, below) = self.archive.segments_mut().take_old(goal, limit);
            if !gone.is_empty() {
                self.pruning.below = self.pruning.below.max(below);
                self.headers.sync()?;
                self.delete(gone);
            }
        }
        self.report_storage();
        Ok(())
    }

    fn delete(&mut self, gone: Vec<SegmentName>) {
        self.pruning.busy = true;
        let (files, done) = (self.archive.files().clone(), self.sender.clone());
        self.pool.run(
            move || gone.into_iter().try_for_each(|(kind, number)| files.remove_segment(kind, number)),
            move |result| drop(done.send(Completion::pruned(result))),
        );
    }

    /// Files are deleted; goes on if there are more.
    pub(super) fn removed(&mut self, result: Result<(), Error>) -> Result<(), Error> {
        result?;
        self.pruning.busy = false;
        if self.flush.is_some() { Ok(()) } else { self.prune() }
    }

    /// Tells what the block files hold, if it has changed.
    pub(super) fn report_storage(&mut self) {
        let storage = Some(self.storage());
        if self.pruning.reported != storage {
            self.pruning.reported = storage;
            self.reports.extend(storage.map(ChainReport::Storage));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(held: &[(RecordKind, u32, u64, u32)]) -> Segments {
        let mut segments = Segments::default();
        for (kind, number, bytes, top) in held {
            segments.held.insert((*kind, *number), Held { bytes: *bytes, top: *top });
            segments.bytes += bytes;
        }
        segments
    }

    const BLOCKS: RecordKind = RecordKind::Block;
    const UNDO: RecordKind = RecordKind::Undo;

    #[test]
    fn the_lowest_segments_go_until_the_rest_fits() {
        let held = [(BLOCKS, 3, 100, 50), (BLOCKS, 4, 100, 20), (BLOCKS, 5, 100, 90), (BLOCKS, 9, 10, 95)];
        let undo = [(UNDO, 0, 100, 40), (UNDO, 1, 10, 95)];
        let all = || segments(&[&held[..], &undo].concat());
        // What fits, or what is too young, stays; so does the last of each kind, however old.
        assert_eq!(all().take_old(420, 1_000), (vec![], 0));
        assert_eq!(all().take_old(0, 19), (vec![], 0));
        assert_eq!(all().take_old(419, 1_000), (vec![(BLOCKS, 4)], 21));
        assert_eq!(all().take_old(319, 1_000), (vec![(BLOCKS, 4), (UNDO, 0)], 41));
        let mut rest = all();
        assert_eq!(rest.take_old(0, 50).1, 51);
        assert_eq!((rest.bytes(), rest.last(BLOCKS), rest.last(UNDO)), (120, Some(9), Some(1)));
        assert_eq!(rest.take_old(0, 1_000), (vec![(BLOCKS, 5)], 91));
        assert_eq!(rest.take_old(0, 1_000), (vec![], 0));
    }

    #[test]
    fn a_segment_that_no_entry_names_goes_first_and_takes_no_block_away() {
        let mut held = segments(&[(BLOCKS, 0, 100, 30), (BLOCKS, 1, 100, 0), (BLOCKS, 2, 1, 40)]);
        assert_eq!(held.take_old(150, 35), (vec![(BLOCKS, 1)], 0));
    }

    #[test]
    fn few_go_at_once() {
        let held: Vec<_> = (0..100).map(|number| (BLOCKS, number, 10, number)).collect();
        let mut held = segments(&held);
        assert_eq!(held.take_old(0, 1_000).0.len(), PRUNED_AT_ONCE);
        assert_eq!(held.bytes(), 1_000 - 10 * PRUNED_AT_ONCE as u64);
    }

    #[test]
    fn records_raise_their_segment_and_its_size() {
        let mut held = Segments::default();
        let at = |segment, offset| Location { kind: BLOCKS, segment, offset, length: 40 };
        held.note(&at(0, 40), 7);
        held.note(&at(0, 140), 5);
        held.note(&at(0, 40), 7);
        assert!(held.has(&at(0, 0)) && !held.has(&at(1, 0)));
        assert_eq!(held.bytes(), 240);
        held.note(&at(1, 40), 9);
        assert_eq!(held.take_old(140, 6), (vec![], 0));
        assert_eq!(held.take_old(140, 7), (vec![(BLOCKS, 0)], 8));
    }

    #[test]
    fn layout_and_window_suit_the_budget() {
        let least = PruneOptions::new(550 << 20);
        assert_eq!((least.files().segment_bytes, least.window(1_024)), (128 << 20, 137));
        assert_eq!(PruneOptions::new(1 << 20).files().segment_bytes, 256 << 10);
        assert_eq!(PruneOptions::new(1 << 20).window(1_024), PRUNED_WINDOW_MIN);
        assert_eq!(PruneOptions::new(1 << 40).window(1_024), 1_024);
        assert_eq!(PruneOptions::new(1 << 20).window(8), 8);
    }
}
