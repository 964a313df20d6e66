//! Rules of the whole block: its root, its size, its coinbase, its signature operations, its commitment.

use crate::edits::{self, Sigops};
use crate::lab::Lab;
use crate::lab::Memory::{Forgotten, Remembered};
use bitcoin::{ScriptBuf, Witness};

#[test]
fn merkle_root() {
    let mut lab = Lab::new();
    lab.fails("bad-txnmrklroot", Forgotten, edits::wrong_root);
    // CVE-2012-2459: the same hash with transactions repeated, then the block itself.
    let mut found = 0;
    for _ in 0..40 {
        let mut draft = lab.draft(6, 600);
        if !edits::repeated_tail(&mut draft) {
            continue;
        }
        let mut made = draft.finish(0);
        lab.refuses(&made, "bad-txns-duplicate", Forgotten);
        let count = made.block.txdata.len();
        let tail = if (count - 1) % 2 == 1 { 1 } else { 2 };
        made.block.txdata.truncate(count - tail);
        made.bytes = crate::draft::serialize_block(&made.block);
        assert_eq!(made.block.block_hash(), made.hash);
        lab.connects(made);
        found += 1;
        if found == 3 {
            return;
        }
    }
    panic!("no block had the number of transactions that is needed");
}

#[test]
fn length() {
    let mut lab = Lab::new();
    lab.fails("bad-blk-length", Forgotten, |draft| {
        draft.block.txdata.clear();
        draft.commit = false;
        true
    });
    lab.fails("bad-blk-length", Forgotten, |draft| edits::base_size(draft, 1, false));
    lab.passes(|draft| edits::base_size(draft, 0, false));
    // As large, but with a commitment and its reserved value: too heavy.
    lab.fails("bad-blk-weight", Remembered, |draft| edits::base_size(draft, 0, true));
}

#[test]
fn weight() {
    let mut lab = Lab::new();
    lab.fails("bad-blk-weight", Remembered, |draft| edits::weight(draft, 1));
    let made = lab.make(0, |draft| edits::weight(draft, 0));
    assert_eq!(made.block.weight().to_wu(), 4_000_000);
    lab.connects(made);
}

#[test]
fn coinbase() {
    let mut lab = Lab::new();
    lab.fails_with(3, "bad-cb-missing", Forgotten, edits::no_coinbase);
    lab.fails("bad-cb-multiple", Forgotten, edits::two_coinbases);
    for len in [0, 1, 101] {
        lab.fails("bad-cb-length", Forgotten, |draft| edits::coinbase_script_len(draft, len));
    }
    // The height takes two bytes here.
    for len in [100, 2] {
        lab.passes(|draft| edits::coinbase_script_len(draft, len));
    }
    for difference in [-1, 1] {
        lab.fails("bad-cb-height", Remembered, |draft| edits::coinbase_height(draft, difference));
    }
    // The height in a longer form than the shortest.
    lab.fails("bad-cb-height", Remembered, |draft| {
        let height = draft.place.height as u8;
        draft.block.txdata[0].input[0].script_sig = ScriptBuf::from_bytes(vec![2, height, 0, 0]);
        true
    });
    lab.passes(|draft| edits::coinbase_height(draft, 0));
    lab.fails_with(3, "bad-cb-amount", Remembered, |draft| edits::coinbase_amount(draft, 1));
    lab.passes_with(3, |draft| edits::coinbase_amount(draft, 0));
    lab.passes_with(3, |draft| edits::coinbase_amount(draft, -5_000_000_000));
}

#[test]
fn two_bytes_are_enough_for_a_small_height() {
    // Height 16 is one byte; the script needs one more.
    let mut lab = Lab::with(&Default::default(), 15);
    lab.fails("bad-cb-length", Forgotten, |draft| edits::coinbase_script_len(draft, 1));
    lab.passes(|draft| edits::coinbase_script_len(draft, 2));
    assert_eq!(lab.height(), 16);
}

#[test]
fn the_subsidy_halves() {
    let mut lab = Lab::with(&Default::default(), 148);
    let paid = |draft: &crate::draft::Draft<'_>| draft.block.txdata[0].output[0].value.to_sat();
    lab.fails("bad-cb-amount", Remembered, |draft| edits::coinbase_amount(draft, 1));
    lab.passes(|draft| paid(draft) == 5_000_000_000);
    assert_eq!(lab.height(), 149);
    lab.fails("bad-cb-amount", Remembered, |draft| edits::coinbase_amount(draft, 2_500_000_000));
    lab.fails("bad-cb-amount", Remembered, |draft| edits::coinbase_amount(draft, 1));
    lab.passes(|draft| paid(draft) == 2_500_000_000);
}

#[test]
fn signature_operations() {
    let mut lab = Lab::new();
    // Four units over are one operation of the old kind: found by the block alone, without coins.
    lab.fails("bad-blk-sigops", Forgotten, |draft| edits::sigops(draft, Sigops::Legacy, 4));
    lab.fails("bad-blk-sigops", Remembered, |draft| edits::sigops(draft, Sigops::Legacy, 1));
    for how in [Sigops::P2sh, Sigops::P2wsh] {
        for over in [1, 4] {
            lab.fails("bad-blk-sigops", Remembered, |draft| edits::sigops(draft, how, over));
        }
    }
    for how in [Sigops::Legacy, Sigops::P2sh, Sigops::P2wsh] {
        lab.passes(|draft| edits::sigops(draft, how, 0));
    }
}

#[test]
fn witness_commitment() {
    let mut lab = Lab::new();
    lab.fails_with(6, "unexpected-witness", Forgotten, edits::no_commitment);
    for lens in [&[31][..], &[33], &[32, 1], &[0], &[]] {
        lab.fails("bad-witness-nonce-size", Forgotten, |draft| edits::reserved(draft, lens));
    }
    lab.passes(|draft| edits::reserved(draft, &[32]));
    lab.fails("bad-witness-merkle-match", Forgotten, |draft| {
        edits::commitment(draft, |coinbase| coinbase.input[0].witness = Witness::from_slice(&[[1u8; 32]]))
    });
    // Of several commitments the last counts.
    let double = |before: bool| {
        move |draft: &mut crate::draft::Draft<'_>| {
            edits::commitment(draft, |coinbase| {
                let mut wrong = coinbase.output[coinbase.output.len() - 1].clone();
                let mut bytes = wrong.script_pubkey.to_bytes();
                bytes[20] ^= 1;
                wrong.script_pubkey = ScriptBuf::from_bytes(bytes);
                let at = coinbase.output.len() - usize::from(before);
                coinbase.output.insert(at, wrong);
            })
        }
    };
    lab.fails("bad-witness-merkle-match", Forgotten, double(false));
    lab.passes(double(true));
    // Bytes behind it do not matter, and one too few make it none.
    lab.passes(|draft| {
        edits::commitment(draft, |coinbase| {
            let last = coinbase.output.len() - 1;
            let mut bytes = coinbase.output[last].script_pubkey.to_bytes();
            bytes.push(0x51);
            coinbase.output[last].script_pubkey = ScriptBuf::from_bytes(bytes);
        })
    });
    lab.fails("unexpected-witness", Forgotten, |draft| {
        edits::commitment(draft, |coinbase| {
            let last = coinbase.output.len() - 1;
            let bytes = coinbase.output[last].script_pubkey.to_bytes();
            coinbase.output[last].script_pubkey = ScriptBuf::from_bytes(bytes[..37].to_vec());
        })
    });
    // Without a witness no commitment is needed.
    lab.passes(|draft| {
        draft.strip();
        draft.commit = false;
        true
    });
}

#[test]
fn a_changed_witness_does_not_condemn_the_hash() {
    let mut lab = Lab::new();
    let made = lab.make(8, edits::other_witness);
    lab.refuses(&made, "bad-witness-merkle-match", Forgotten);
    let mut right = made;
    for tx in right.block.txdata.iter_mut().skip(1) {
        for input in &mut tx.input {
            let mut items = input.witness.to_vec();
            if items.len() > 1 && items.last().is_some_and(|item| item == &[1]) {
                items.pop();
                input.witness = Witness::from_slice(&items);
            }
        }
    }
    right.bytes = crate::draft::serialize_block(&right.block);
    assert_eq!(right.block.block_hash(), right.hash);
    lab.connects(right);
}

#[test]
fn bytes() {
    let mut lab = Lab::new();
    let made = lab.make(2, |_| true);
    for len in [0, 79, 80, 81, made.bytes.len() - 1] {
        assert_eq!(lab.submit(&made.bytes[..len]), ("rejected", "decode-failed"), "{len} bytes");
    }
    let mut longer = made.bytes.clone();
    longer.extend([1, 2, 3]);
    assert_eq!(lab.submit(&longer), ("connected", ""));
    assert_eq!(lab.submit(&made.bytes), ("duplicate", ""));
}
