//! What is checked of a block by itself, on whatever thread.

use crate::chain::command::BlockContext;
use crate::chain::params::Params;
use crate::consensus::block::{CheckedBlock, contextual_check_block, is_mutated};
use crate::consensus::decode::decode_block;
use crate::error::{Reject, RejectKind};
use crate::verify::{CheckError, Verifier, check_block};
use std::sync::Arc;

/// A block that was checked by itself, or why it failed.
pub(super) type BodyResult = Result<Arc<CheckedBlock>, CheckError>;

/// Checks a body that came from outside, in its place. What is found wrong with a body that was changed on
/// its way says nothing about its hash; Core asks whether it was before all else (`IsBlockMutated` in
/// net_processing.cpp), here a good block need not pay for that.
pub(super) fn check_received(
    bytes: Arc<Vec<u8>>,
    params: &Params,
    verifier: &dyn Verifier,
    context: &BlockContext,
) -> BodyResult {
    let checked = check_body(bytes.clone(), params, verifier).and_then(|block| {
        contextual_check_block(&block, context)?;
        Ok(block)
    });
    match checked {
        Err(CheckError::Rejected(reject))
            if reject.condemns_hash()
                && decode_block(bytes).is_ok_and(|body| is_mutated(&body, context.rules.segwit)) =>
        {
            Err(Reject { kind: RejectKind::Mutated, ..reject }.into())
        }
        checked => checked,
    }
}

/// Decodes and checks a body by itself.
pub(super) fn check_body(bytes: Arc<Vec<u8>>, params: &Params, verifier: &dyn Verifier) -> BodyResult {
    // What cannot be read is not the body of its header: nothing is known about the hash.
    let decoded = decode_block(bytes)
        .map_err(|error| Reject::new(RejectKind::Mutated, "decode-failed").with_detail(error.to_string()))?;
    check_block(decoded, params, verifier).map(Arc::new)
}
