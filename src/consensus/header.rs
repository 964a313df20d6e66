//! Rules for headers.
//!
//! [`accept`] applies them in the order of Core's `AcceptBlockHeader`, which decides the reason that a
//! header with several faults is refused for:
//!
//! 1. Known already: accepted again, or `duplicate-invalid`. The genesis block is always accepted.
//! 2. The hash meets the target of `bits`, and that is one of the network's (`CheckBlockHeader`).
//! 3. The parent is known and not invalid.
//! 4. In the context of the parent (`ContextualCheckBlockHeader`): `bits` are what the retargeting rule
//!    says, the time is after the median time past, not too long before the parent's at the start of a
//!    period (BIP94), not more than two hours ahead, and the version is not outdated (BIPs 34, 65, 66).
//!
//! Left out: whether the chain has enough work to be kept is decided before (`too-little-chainwork`, in
//! the headers machine).

use crate::chain::block_tree::{BlockTree, HeaderId};
use crate::chain::params::Params;
use crate::chain::work;
use crate::error::{Reject, RejectKind};
use bitcoin::BlockHash;
use bitcoin::block::Header;

/// Seconds that a header's time may be ahead of our clock (`MAX_FUTURE_BLOCK_TIME`).
pub const MAX_FUTURE_BLOCK_TIME: u64 = 2 * 60 * 60;
/// Seconds that the first header of a difficulty period may be before its parent (`MAX_TIMEWARP`, BIP94).
pub const MAX_TIMEWARP: u32 = 600;

/// Checks a header in the order of Core's `AcceptBlockHeader` (known, proof of work, parent known, parent
/// valid, contextual rules) and adds it to the tree. A known valid header is accepted again.
///
/// `now` is Unix seconds.
///
/// # Errors
/// `duplicate-invalid`, `high-hash`, `prev-blk-not-found`, `bad-prevblk`, `bad-diffbits`, `time-too-old`,
/// `time-timewarp-attack`, `time-too-new`, `bad-version`.
pub fn accept(tree: &mut BlockTree, header: &Header, now: u64) -> Result<HeaderId, Reject> {
    let hash = header.block_hash();
    if let Some(known) = tree.find(&hash) {
        return if tree.is_failed(known) {
            Err(Reject::new(RejectKind::CachedInvalid, "duplicate-invalid"))
        } else {
            Ok(known)
        };
    }
    check_proof_of_work(header, &hash, tree.params())?;
    let parent = tree
        .find(&header.prev_blockhash)
        .ok_or(Reject::new(RejectKind::MissingParent, "prev-blk-not-found"))?;
    if tree.is_failed(parent) {
        return Err(Reject::new(RejectKind::InvalidParent, "bad-prevblk"));
    }
    check_in_context(tree, parent, header, now)?;
    Ok(tree.insert_hashed(parent, header, hash))
}

/// Checks that `hash` (of `header`) meets the header's target (Core's `CheckBlockHeader`).
///
/// # Errors
/// `high-hash`, also where `bits` are no target or one easier than the network's limit.
pub fn check_proof_of_work(header: &Header, hash: &BlockHash, params: &Params) -> Result<(), Reject> {
    if work::check_proof_of_work(hash, header.bits.to_consensus(), params) {
        Ok(())
    } else {
        Err(Reject::new(RejectKind::InvalidHeader, "high-hash").with_detail("proof of work failed"))
    }
}

/// Checks a header against its ancestors and the clock (Core's `ContextualCheckBlockHeader`).
///
/// `now` is Unix seconds.
///
/// # Errors
/// `bad-diffbits`, `time-too-old`, `time-timewarp-attack`, `time-too-new`, `bad-version`.
pub fn check_in_context(tree: &BlockTree, parent: HeaderId, header: &Header, now: u64) -> Result<(), Reject> {
    let params = tree.params();
    let invalid = |reason| Err(Reject::new(RejectKind::InvalidHeader, reason));
    let height = tree.height(parent).saturating_add(1);
    if header.bits.to_consensus() != work::next_bits(tree, parent, header.time) {
        return invalid("bad-diffbits");
    }
    if header.time <= tree.median_time_past(parent) {
        return invalid("time-too-old");
    }
    if params.enforce_bip94
        && height % params.difficulty_interval() == 0
        && header.time < tree.time(parent).saturating_sub(MAX_TIMEWARP)
    {
        return invalid("time-timewarp-attack");
    }
    if u64::from(header.time) > now.saturating_add(MAX_FUTURE_BLOCK_TIME) {
        return Err(Reject::new(RejectKind::TimeFuture, "time-too-new"));
    }
    let version = header.version.to_consensus();
    let buried = &params.buried;
    let outdated = [(2, buried.bip34), (3, buried.dersig), (4, buried.cltv)]
        .into_iter()
        .any(|(least, from)| version < least && height >= from);
    if outdated {
        return Err(Reject::new(RejectKind::InvalidHeader, "bad-version")
            .with_detail(format!("version 0x{version:08x} is outdated")));
    }
    Ok(())
}

/// Whether each header of a batch follows the one before it.
pub fn are_continuous(headers: &[Header]) -> bool {
    headers.windows(2).all(|pair| match pair {
        [parent, child] => child.prev_blockhash == parent.block_hash(),
        _ => true,
    })
}
