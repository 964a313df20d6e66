//! Forms of coinbases, commitments, transactions and bytes: those that pass, and what is said of the others.

use crate::draft::Draft;
use crate::edits;
use crate::lab::Lab;
use crate::lab::Memory::{self, Forgotten, Remembered};

/// Each form by its number: `None` connects.
fn each(
    lab: &mut Lab,
    count: usize,
    verdicts: &[(usize, &str, Memory)],
    edit: impl Fn(&mut Draft<'_>, usize) -> bool,
) {
    for form in 0..count {
        let fails = verdicts.iter().find(|(at, ..)| *at == form);
        match fails {
            Some((_, reason, memory)) => lab.fails(reason, *memory, |draft| edit(draft, form)),
            None => lab.passes(|draft| edit(draft, form)),
        }
    }
}

#[test]
fn scripts_of_the_coinbase() {
    let height = |form| (form, "bad-cb-height", Remembered);
    let verdicts: Vec<_> = (1..=6).map(height).collect();
    // Junk behind the height is allowed, even a push that is cut.
    each(&mut Lab::new(), edits::COINBASE_SCRIPTS, &verdicts, edits::coinbase_script);
}

#[test]
fn shapes_of_the_coinbase() {
    let missing = "bad-cb-missing";
    let mut lab = Lab::new();
    let verdicts = [
        (1, "bad-txns-vout-empty", Forgotten),
        (2, missing, Forgotten),
        (3, missing, Forgotten),
        (4, missing, Forgotten),
        (6, "bad-txns-nonfinal", Remembered),
    ];
    each(&mut lab, edits::COINBASE_SHAPES - 1, &verdicts, edits::coinbase_shape);
    let last = edits::COINBASE_SHAPES - 1;
    lab.fails_with(2, missing, Forgotten, |draft| edits::coinbase_shape(draft, last));
}

#[test]
fn witnesses_of_the_coinbase() {
    let nonce = "bad-witness-nonce-size";
    let verdicts = [
        (0, nonce, Forgotten),
        (1, nonce, Forgotten),
        (3, "unexpected-witness", Forgotten),
        (4, nonce, Forgotten),
        (5, "bad-witness-merkle-match", Forgotten),
    ];
    each(&mut Lab::new(), edits::COINBASE_WITNESSES, &verdicts, edits::coinbase_witness);
}

#[test]
fn commitments() {
    let wrong = "bad-witness-merkle-match";
    let none = "unexpected-witness";
    let verdicts = [
        (1, wrong, Forgotten),
        (3, none, Forgotten),
        (4, wrong, Forgotten),
        (5, none, Forgotten),
        (6, none, Forgotten),
        (7, wrong, Forgotten),
    ];
    each(&mut Lab::new(), edits::COMMITMENTS, &verdicts, edits::commitments);
}

#[test]
fn sizes_and_versions_of_transactions() {
    let mut lab = Lab::new();
    // One of 64 bytes looks like an inner node of the merkle tree, and is allowed all the same.
    for len in [60, 61, 63, 64, 65] {
        lab.passes(|draft| edits::tx_of_size(draft, len));
    }
    for version in [i32::MIN, -1, 0, 1, 2, 3, i32::MAX] {
        lab.passes(|draft| edits::tx_version(draft, version));
    }
    lab.passes_with(8, |_| true);
    lab.fails("bad-txns-inputs-missingorspent", Remembered, edits::spent_coin);
}

#[test]
fn encodings() {
    let decode = "decode-failed";
    let verdicts: Vec<_> = (1..=5).map(|form| (form, decode, Forgotten)).collect();
    // The last form flips any bit.
    each(&mut Lab::new(), edits::ENCODINGS - 1, &verdicts, edits::encoding);
}
