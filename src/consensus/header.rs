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
        && height.is_multiple_of(params.difficulty_interval())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::params::{BuriedDeployment, Network, RegtestOptions};
    use bitcoin::CompactTarget;
    use bitcoin::block::Version;
    use std::sync::Arc;

    fn tree(params: Params) -> BlockTree {
        BlockTree::new(Arc::new(params), [3, 4])
    }

    /// A child with the bits that its time asks for, not mined.
    fn child(tree: &BlockTree, parent: HeaderId, time: u32) -> Header {
        Header {
            version: Version::from_consensus(4),
            prev_blockhash: tree.hash(parent),
            merkle_root: tree.header(parent).merkle_root,
            time,
            bits: CompactTarget::from_consensus(work::next_bits(tree, parent, time)),
            nonce: 0,
        }
    }

    fn mine(tree: &BlockTree, mut header: Header) -> Header {
        while check_proof_of_work(&header, &header.block_hash(), tree.params()).is_err() {
            header.nonce += 1;
        }
        header
    }

    /// Puts `count` headers on top, `spacing` seconds apart.
    fn extend(tree: &mut BlockTree, from: HeaderId, count: u32, spacing: u32) -> HeaderId {
        (0..count).fold(from, |parent, _| {
            let header = child(tree, parent, tree.time(parent) + spacing);
            check_in_context(tree, parent, &header, u64::from(u32::MAX)).unwrap();
            tree.insert(parent, &header)
        })
    }

    fn reason(result: Result<impl Sized, Reject>) -> (&'static str, RejectKind) {
        result.err().map(|reject| (reject.reason, reject.kind)).expect("refused")
    }

    const INVALID: RejectKind = RejectKind::InvalidHeader;
    const LATE: u64 = u32::MAX as u64;

    #[test]
    fn headers_are_accepted_again_unless_they_are_marked() {
        let mut tree = tree(Params::new(Network::Regtest));
        let genesis = tree.genesis();
        let header = *tree.params().genesis_header();
        assert_eq!(accept(&mut tree, &header, 0), Ok(genesis));

        let first = mine(&tree, child(&tree, genesis, header.time + 1));
        let id = accept(&mut tree, &first, LATE).unwrap();
        // Even when the clock would refuse it now.
        assert_eq!(accept(&mut tree, &first, 0), Ok(id));
        let second = mine(&tree, child(&tree, id, first.time + 1));
        tree.mark_invalid(id);
        assert_eq!(reason(accept(&mut tree, &first, LATE)), ("duplicate-invalid", RejectKind::CachedInvalid));
        assert_eq!(reason(accept(&mut tree, &second, LATE)), ("bad-prevblk", RejectKind::InvalidParent));
        tree.reconsider(id);
        let top = accept(&mut tree, &second, LATE).unwrap();
        tree.mark_invalid(id);
        assert_eq!(
            reason(accept(&mut tree, &second, LATE)),
            ("duplicate-invalid", RejectKind::CachedInvalid)
        );
        assert_eq!(tree.parent(top), Some(id));
    }

    #[test]
    fn proof_of_work_comes_before_the_parent() {
        let mut tree = tree(Params::new(Network::Regtest));
        let genesis = tree.genesis();
        let mut header = child(&tree, genesis, tree.time(genesis) + 1);
        header.prev_blockhash = header.block_hash();
        let orphan = mine(&tree, header);
        assert_eq!(
            reason(accept(&mut tree, &orphan, LATE)),
            ("prev-blk-not-found", RejectKind::MissingParent)
        );
        while check_proof_of_work(&header, &header.block_hash(), tree.params()).is_ok() {
            header.nonce += 1;
        }
        assert_eq!(reason(accept(&mut tree, &header, LATE)), ("high-hash", INVALID));
        // A target above the network's limit is none, even if the hash meets it; nor is a negative one.
        for bits in [0x2100_ffff, 0x20ff_ffff, 0] {
            header.bits = CompactTarget::from_consensus(bits);
            assert_eq!(reason(accept(&mut tree, &header, LATE)), ("high-hash", INVALID));
        }
        assert_eq!(tree.len(), 1);
    }

    #[test]
    fn bits_must_be_the_required_ones() {
        let mut tree = tree(Params::new(Network::Regtest));
        let genesis = tree.genesis();
        let mut header = child(&tree, genesis, tree.time(genesis) + 1);
        header.bits = CompactTarget::from_consensus(0x207f_fffe);
        let header = mine(&tree, header);
        assert_eq!(reason(accept(&mut tree, &header, LATE)), ("bad-diffbits", INVALID));
    }

    #[test]
    fn time_is_after_the_median_and_at_most_two_hours_ahead() {
        let mut tree = tree(Params::new(Network::Regtest));
        let genesis = tree.genesis();
        let tip = extend(&mut tree, genesis, 30, 100);
        // Headers 20 to 30 are the median's eleven.
        let median = tree.time(genesis) + 25 * 100;
        let at = |time| check_in_context(&tree, tip, &child(&tree, tip, time), LATE);
        assert_eq!(reason(at(median)), ("time-too-old", INVALID));
        assert_eq!(at(median + 1), Ok(()));

        let time = tree.time(tip) + 10_000;
        let header = mine(&tree, child(&tree, tip, time));
        let now = u64::from(time) - 7_200;
        assert_eq!(reason(accept(&mut tree, &header, now - 1)), ("time-too-new", RejectKind::TimeFuture));
        assert!(accept(&mut tree, &header, now).is_ok());
    }

    #[test]
    fn outdated_versions_end_at_their_heights() {
        let options = RegtestOptions::default()
            .activation(BuriedDeployment::HeightInCoinbase, 2)
            .activation(BuriedDeployment::DerSig, 3)
            .activation(BuriedDeployment::Cltv, 4);
        let mut tree = tree(Params::regtest(&options));
        let mut tip = tree.genesis();
        for least in [i32::MIN, 2, 3, 4, 4] {
            let mut header = child(&tree, tip, tree.time(tip) + 1);
            for outdated in [least.checked_sub(1), (least > 0).then_some(-1)].into_iter().flatten() {
                header.version = Version::from_consensus(outdated);
                let header = mine(&tree, header);
                assert_eq!(reason(accept(&mut tree, &header, LATE)), ("bad-version", INVALID));
            }
            header.version = Version::from_consensus(least);
            let header = mine(&tree, header);
            tip = accept(&mut tree, &header, LATE).unwrap();
        }
        assert_eq!(tree.height(tip), 5);
    }

    #[test]
    fn a_new_period_may_start_ten_minutes_before_its_parent_under_bip94() {
        let regtest = |bip94| Params::regtest(&RegtestOptions::default().bip94(bip94));
        for (params, interval, enforced) in [
            (regtest(true), 144, true),
            (regtest(false), 144, false),
            (Params::new(Network::Testnet4), 2016, true),
            (Params::new(Network::Testnet3), 2016, false),
            (Params::new(Network::Main), 2016, false),
        ] {
            let mut tree = tree(params);
            let genesis = tree.genesis();
            let early = extend(&mut tree, genesis, interval - 2, 600);
            let last = extend(&mut tree, early, 1, 600);
            let at = |tree: &BlockTree, parent, before: u32| {
                check_in_context(tree, parent, &child(tree, parent, tree.time(parent) - before), LATE)
            };
            assert_eq!(at(&tree, last, 600), Ok(()));
            if enforced {
                assert_eq!(reason(at(&tree, last, 601)), ("time-timewarp-attack", INVALID));
            } else {
                assert_eq!(at(&tree, last, 601), Ok(()));
            }
            // Not within a period.
            assert_eq!(at(&tree, early, 601), Ok(()));
            let first = extend(&mut tree, last, 1, 600);
            assert_eq!(at(&tree, first, 601), Ok(()));
        }
    }

    #[test]
    fn a_block_after_twenty_minutes_has_the_least_difficulty_on_test_networks() {
        const LEAST: u32 = 0x1d00_ffff;
        for network in [Network::Testnet3, Network::Testnet4] {
            let mut tree = tree(Params::new(network));
            let genesis = tree.genesis();
            // Twice as fast as intended: half the target, nearly.
            let last = extend(&mut tree, genesis, 2015, 300);
            let first = extend(&mut tree, last, 1, 5_000);
            let hard = tree.bits(first);
            // 0xffff << 208 times 2015 · 300 s, over two weeks.
            assert_eq!(hard, 0x1c7f_ef3f);
            let required =
                |tree: &BlockTree, parent, after| work::next_bits(tree, parent, tree.time(parent) + after);
            assert_eq!(required(&tree, first, 1_200), hard);
            assert_eq!(required(&tree, first, 1_201), LEAST);
            // The other one is refused in both places.
            for (after, wrong) in [(1_200, LEAST), (1_201, hard)] {
                let mut header = child(&tree, first, tree.time(first) + after);
                header.bits = CompactTarget::from_consensus(wrong);
                assert_eq!(reason(check_in_context(&tree, first, &header, LATE)), ("bad-diffbits", INVALID));
            }
            // Blocks after easy ones go back to the last real difficulty.
            let easy = extend(&mut tree, first, 3, 1_201);
            assert_eq!(tree.bits(easy), LEAST);
            assert_eq!(required(&tree, easy, 1_200), hard);
            // A period that ends with an easy block: testnet3 forgets the real difficulty.
            let end = extend(&mut tree, easy, 2011, 300);
            let end = extend(&mut tree, end, 1, 1_201);
            assert_eq!((tree.height(end), tree.bits(end)), (4031, LEAST));
            let next = required(&tree, end, 5_000);
            let period = work::Period {
                first_bits: hard,
                first_time: tree.time(first),
                last_bits: LEAST,
                last_time: tree.time(end),
            };
            assert_eq!(next, work::retarget(tree.params(), period));
            assert_eq!(next < hard, network == Network::Testnet4, "{network}");
        }
    }

    #[test]
    fn a_batch_is_continuous_if_each_header_names_the_one_before() {
        let mut tree = tree(Params::new(Network::Regtest));
        let genesis = tree.genesis();
        let tip = extend(&mut tree, genesis, 3, 1);
        let batch: Vec<_> = (1..=3).map(|height| tree.header(tree.ancestor(tip, height).unwrap())).collect();
        assert!(are_continuous(&batch) && are_continuous(&batch[..1]) && are_continuous(&[]));
        assert!(!are_continuous(&[batch[0], batch[2]]));
        assert!(!are_continuous(&[batch[1], batch[0]]));
    }
}
