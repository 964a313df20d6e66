//! Rules of the header, and what becomes of blocks whose place is wrong.

use crate::lab::Lab;
use crate::lab::Memory::{Forgotten, Remembered};
use bitcoin::CompactTarget;
use bitcoin::block::Version;
use bitcoin::hashes::Hash;
use headlong::chain::params::{BuriedDeployment, RegtestOptions};

#[test]
fn proof_of_work() {
    let mut lab = Lab::new();
    let mut made = lab.make(0, |_| true);
    let target = bitcoin::Target::from_compact(made.block.header.bits);
    while target.is_met_by(made.block.block_hash()) {
        made.block.header.nonce += 1;
    }
    made.bytes = crate::draft::serialize_block(&made.block);
    lab.refuses(&made, "high-hash", Forgotten);
    // No targets of the network: zero, negative, above the limit, too large for 256 bits.
    for bits in [0, 0x2080_0001, 0x2100_ffff, 0xff7f_ffff] {
        lab.fails("high-hash", Forgotten, |draft| {
            draft.block.header.bits = CompactTarget::from_consensus(bits);
            draft.work = false;
            true
        });
    }
    lab.passes(|_| true);
}

#[test]
fn difficulty() {
    let mut lab = Lab::new();
    lab.fails("bad-diffbits", Forgotten, |draft| {
        draft.block.header.bits = CompactTarget::from_consensus(0x207f_fffe);
        true
    });
    lab.passes(|draft| draft.block.header.bits == CompactTarget::from_consensus(0x207f_ffff));
}

#[test]
fn time_is_after_the_median_of_eleven() {
    let mut lab = Lab::new();
    let mut at = |over: u32, reason: Option<&str>| {
        let edit = |draft: &mut crate::draft::Draft<'_>| {
            draft.block.header.time = draft.place.mtp() + 1 - over;
            true
        };
        match reason {
            Some(reason) => lab.fails(reason, Forgotten, edit),
            None => lab.passes(edit),
        }
    };
    at(1, Some("time-too-old"));
    at(0, None);
    at(1, Some("time-too-old"));
}

#[test]
fn time_is_at_most_two_hours_ahead() {
    let mut lab = Lab::new();
    let late = lab.make(0, |draft| {
        draft.block.header.time = draft.place.clock + 7_201;
        true
    });
    lab.refuses(&late, "time-too-new", Forgotten);
    lab.passes(|draft| {
        draft.block.header.time = draft.place.clock + 7_200;
        true
    });
    // The hash was not condemned: a second later the block is stored.
    let clock = u64::from(lab.clock) + 1;
    lab.front.set_clock(clock);
    assert_eq!(lab.submit(&late.bytes), ("side", ""));
}

#[test]
fn a_period_begins_at_most_ten_minutes_before_its_parent() {
    for (bip94, early, fails) in [(true, 600, false), (true, 601, true), (false, 601, false)] {
        let mut lab = Lab::with(&RegtestOptions::default().bip94(bip94), 142);
        lab.passes(|draft| {
            draft.block.header.time += 3_600;
            true
        });
        assert_eq!(lab.height(), 143);
        let edit = |draft: &mut crate::draft::Draft<'_>| {
            draft.block.header.time = draft.place.parent_time - early;
            draft.place.period
        };
        if fails {
            lab.fails("time-timewarp-attack", Forgotten, edit);
            lab.passes(|_| true);
        } else {
            lab.passes(edit);
        }
        // Elsewhere there is no such rule.
        lab.passes(|draft| {
            draft.block.header.time = draft.place.mtp() + 1;
            true
        });
    }
}

#[test]
fn old_versions_end_at_their_heights() {
    let deployments =
        [(BuriedDeployment::HeightInCoinbase, 1), (BuriedDeployment::DerSig, 2), (BuriedDeployment::Cltv, 3)];
    for (deployment, last) in deployments {
        let options = deployments
            .iter()
            .fold(RegtestOptions::default(), |options, (each, _)| options.activation(*each, 1_000))
            .activation(deployment, 104);
        let mut lab = Lab::with(&options, 102);
        let version = |version: i32| {
            move |draft: &mut crate::draft::Draft<'_>| {
                draft.block.header.version = Version::from_consensus(version);
                true
            }
        };
        lab.passes(version(last));
        lab.fails("bad-version", Forgotten, version(last));
        lab.fails("bad-version", Forgotten, version(-1));
        lab.fails("bad-version", Forgotten, version(i32::MIN));
        lab.passes(version(last + 1));
    }
}

#[test]
fn parents_are_known_and_valid() {
    let mut lab = Lab::new();
    lab.fails("prev-blk-not-found", Forgotten, |draft| {
        draft.block.header.prev_blockhash = bitcoin::BlockHash::from_byte_array([1; 32]);
        true
    });
    let bad = lab.make(0, |draft| crate::edits::coinbase_amount(draft, 1));
    lab.refuses(&bad, "bad-cb-amount", Remembered);
    let child = lab.make(0, |draft| {
        draft.block.header.prev_blockhash = bad.hash;
        crate::edits::coinbase_height(draft, 1)
    });
    lab.refuses(&child, "bad-prevblk", Forgotten);
    // A marked block is remembered like an invalid one, and so is what is built on it.
    let good = lab.make(0, |_| true);
    let hash = good.hash;
    lab.connects(good);
    let above = lab.make(0, |_| true);
    assert!(lab.front.invalidate(&hash).unwrap());
    lab.refuses(&above, "bad-prevblk", Forgotten);
    assert!(lab.front.reconsider(&hash).unwrap());
    assert_eq!(lab.front.tip().hash, hash);
    lab.connects(above);
}

#[test]
fn a_branch_that_fails_half_way_is_left() {
    let mut lab = Lab::new();
    let (fork, tip) = (lab.branch.clone(), lab.front.tip());
    lab.passes(|_| true);
    let best = lab.front.tip();
    // Two blocks beside it: the first cannot be connected, the second makes the branch longer.
    let on = |lab: &mut Lab, branch: &headlong::sim::forge::Branch, difference: i64| {
        let mut branch = branch.clone();
        let mut block = lab.forge.extend(&mut branch, headlong::sim::forge::BlockPlan::default());
        let out = &mut block.txdata[0].output[0];
        out.value = bitcoin::Amount::from_sat(out.value.to_sat().saturating_add_signed(difference));
        headlong::sim::forge::commit_to_witnesses(&mut block);
        headlong::sim::forge::mine(&mut block);
        branch.tip.hash = block.block_hash();
        (branch, bitcoin::consensus::serialize(&block))
    };
    let (branch, first) = on(&mut lab, &fork, 1);
    let (_, second) = on(&mut lab, &branch, 0);
    assert_eq!(fork.tip, tip);
    assert_eq!(lab.submit(&second), ("rejected", "prev-blk-not-found"));
    assert_eq!(lab.submit(&first), ("side", ""));
    // The reason is that of an ancestor.
    assert_eq!(lab.submit(&second), ("rejected", "bad-prevblk"));
    assert_eq!(lab.front.tip(), best);
    assert_eq!(lab.submit(&first), ("rejected", "duplicate-invalid"));
    assert_eq!(lab.submit(&second), ("rejected", "duplicate-invalid"));
}
