//! Rules for headers.

use crate::chain::block_tree::{BlockTree, HeaderId};
use crate::error::Reject;
use bitcoin::block::Header;

/// Checks a header in the order of Core's `AcceptBlockHeader` (known, proof of work, parent known, parent
/// valid, contextual rules) and adds it to the tree. A known valid header is accepted again.
///
/// `now` is Unix seconds.
///
/// # Errors
/// `duplicate-invalid`, `high-hash`, `prev-blk-not-found`, `bad-prevblk`, `bad-diffbits`, `time-too-old`,
/// `time-timewarp-attack`, `time-too-new`, `bad-version`.
pub fn accept(_tree: &mut BlockTree, _header: &Header, _now: u64) -> Result<HeaderId, Reject> {
    todo!()
}
