//! How much a node may use, from what its host says.

use super::builder::BuildError;
use crate::chainstate::ChainstateOptions;
use crate::limits::{
    BLOCKS_IN_FLIGHT_SECONDS, LEAST_BANDWIDTH, LEAST_MEMORY, LEAST_RESERVED_BYTES, LEAST_SOURCE_BYTES,
    MAX_SOURCE_BYTES, SLED_UNCOUNTED_MEMORY, UNCOUNTED_MEMORY,
};
use crate::sync::blocks::SchedulerConfig;

/// Memory for coins unless the host says otherwise: Core's default.
const DEFAULT_CACHE: usize = 450 << 20;
/// Memory that blocks get their share of, unless the host says how much there is, at least.
const USUAL_LEAST_MEMORY: usize = 256 << 20;

/// What a node may use, from what the host says.
pub(super) struct Budget {
    pub(super) cache: usize,
    /// What the store's unwritten changes may take, if the host said how much memory there is.
    pub(super) store_writes: Option<u64>,
    pub(super) chainstate: ChainstateOptions,
    pub(super) scheduler: SchedulerConfig,
    /// What answers of HTTP sources may take before they are handed on.
    pub(super) source_bytes: usize,
}

/// Of the memory that a node may use, what it can count.
pub(super) fn counted(memory: usize, opens_sled: bool) -> Result<usize, BuildError> {
    let (more, too_little) = if opens_sled {
        (SLED_UNCOUNTED_MEMORY, "a node with sled needs at least 320 MiB of memory")
    } else {
        (0, "a node needs at least 192 MiB of memory")
    };
    if memory < LEAST_MEMORY + more {
        return Err(BuildError::Option(too_little));
    }
    Ok(memory - UNCOUNTED_MEMORY - more)
}

impl Budget {
    /// `memory` is what can be counted.
    pub(super) fn new(
        cache: Option<usize>,
        memory: Option<usize>,
        bandwidth: Option<u64>,
    ) -> Result<Self, BuildError> {
        let store_writes = memory.map(|memory| memory as u64 / 8);
        let cache = cache.or(memory.map(|memory| memory / 2)).unwrap_or(DEFAULT_CACHE);
        // Who gives little to the coins has little for blocks.
        let memory = memory.unwrap_or_else(|| cache.saturating_mul(4).max(USUAL_LEAST_MEMORY));
        let chainstate = ChainstateOptions::default();
        let (bodies, unproved) = (chainstate.bodies_bytes, chainstate.unproved_bytes);
        let chainstate = chainstate.bodies_bytes(bodies.min(memory / 16));
        let chainstate = chainstate.unproved_bytes(unproved.min(memory / 16));
        let source_bytes = match store_writes {
            Some(_) => (memory / 16).clamp(LEAST_SOURCE_BYTES, MAX_SOURCE_BYTES),
            None => MAX_SOURCE_BYTES,
        };
        let scheduler = SchedulerConfig::default();
        let mut budget = Self { cache, store_writes, chainstate, scheduler, source_bytes };
        budget.reserve(memory as u64 / 8);
        if let Some(rate) = bandwidth {
            if rate < LEAST_BANDWIDTH {
                return Err(BuildError::Option("a node needs at least 16,000 bytes a second"));
            }
            // More would only wait, for longer than a peer is given.
            budget.reserve(rate.saturating_mul(BLOCKS_IN_FLIGHT_SECONDS));
        }
        Ok(budget)
    }

    fn reserve(&mut self, bytes: u64) {
        self.scheduler.reserved_bytes = self.scheduler.reserved_bytes.min(bytes.max(LEAST_RESERVED_BYTES));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_sources_have_a_sixteenth_and_room_for_one_at_least() {
        let bytes = |memory: Option<usize>| Budget::new(None, memory, None).unwrap().source_bytes;
        assert_eq!(bytes(None), MAX_SOURCE_BYTES);
        assert_eq!(bytes(Some(4 << 30)), MAX_SOURCE_BYTES);
        assert_eq!(bytes(Some(320 << 20)), 20 << 20);
        assert_eq!(bytes(Some(32 << 20)), LEAST_SOURCE_BYTES);
    }
}
