//! How much memory, and room for blocks, a chainstate may use, and how much memory it uses.

use super::prune::PruneOptions;
use crate::limits::MAX_UNPROVED_BYTES;

/// What the chainstate may use.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ChainstateOptions {
    /// Bytes of the coins cache: before it is reached, a commit is asked for.
    pub coins_bytes: usize,
    /// Bytes of checked blocks that wait in memory to be connected; others are read back.
    pub bodies_bytes: usize,
    /// Bytes of blocks whose scripts are not proved, with what takes them back: when it is reached, connecting waits
    /// for the scripts of the oldest.
    pub unproved_bytes: usize,
    /// Whether old blocks are deleted. What was deleted stays away without it too.
    pub prune: Option<PruneOptions>,
}

impl Default for ChainstateOptions {
    /// 450 MiB of coins, as Core on small machines, 64 MiB of blocks that wait, as much of unproved ones, and no
    /// pruning.
    fn default() -> Self {
        Self {
            coins_bytes: 450 << 20,
            bodies_bytes: 64 << 20,
            unproved_bytes: MAX_UNPROVED_BYTES,
            prune: None,
        }
    }
}

impl ChainstateOptions {
    /// With another budget for the coins cache, in bytes.
    #[must_use]
    pub fn coins_bytes(mut self, bytes: usize) -> Self {
        self.coins_bytes = bytes;
        self
    }

    /// With another budget for unproved blocks, in bytes.
    #[must_use]
    pub fn unproved_bytes(mut self, bytes: usize) -> Self {
        self.unproved_bytes = bytes;
        self
    }

    /// With another budget for blocks that wait, in bytes.
    #[must_use]
    pub fn bodies_bytes(mut self, bytes: usize) -> Self {
        self.bodies_bytes = bytes;
        self
    }

    /// With old blocks deleted (`None`: kept).
    #[must_use]
    pub fn prune(mut self, prune: Option<PruneOptions>) -> Self {
        self.prune = prune;
        self
    }
}

/// Memory in use, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChainstateMemory {
    /// The coins cache.
    pub coins: usize,
    /// Entries of the coins cache.
    pub coin_entries: usize,
    /// Entries of the coins cache that are not committed.
    pub dirty_entries: usize,
    /// Blocks whose scripts are not proved: what takes them back, undo data and the blocks.
    pub unproved: usize,
    /// Checked blocks that wait to be connected.
    pub bodies: usize,
}
