//! Each buried deployment: the last block before it and the first one under it.

use crate::draft::Draft;
use crate::edits;
use crate::lab::Lab;
use crate::lab::Memory::{Forgotten, Remembered};
use headlong::chain::params::{BuriedDeployment, RegtestOptions};

const FAILED: &str = "block-script-verify-flag-failed";
const HEIGHT: u32 = 112;

/// What a deployment forbids passes in the last block before it, and fails from then on.
fn boundary(deployment: BuriedDeployment, reason: &str, edit: impl Fn(&mut Draft<'_>) -> bool) {
    let mut lab = Lab::with(&RegtestOptions::default().activation(deployment, HEIGHT), HEIGHT - 2);
    lab.passes(&edit);
    assert_eq!(lab.height(), HEIGHT - 1);
    lab.fails(reason, Remembered, &edit);
    lab.passes(|_| true);
    lab.fails(reason, Remembered, &edit);
}

#[test]
fn bip34() {
    boundary(BuriedDeployment::HeightInCoinbase, "bad-cb-height", |draft| {
        edits::coinbase_height(draft, 1_000)
    });
}

#[test]
fn dersig() {
    boundary(BuriedDeployment::DerSig, FAILED, edits::padded_signature);
}

#[test]
fn cltv() {
    boundary(BuriedDeployment::Cltv, FAILED, |draft| edits::check_lock_time(draft, 1, 0));
}

#[test]
fn csv() {
    let csv = BuriedDeployment::Csv;
    boundary(csv, FAILED, |draft| edits::check_sequence(draft, 1, 0, 2));
    boundary(csv, "bad-txns-nonfinal", |draft| edits::relative_height(draft, 1, 2));
    boundary(csv, "bad-txns-nonfinal", |draft| edits::relative_time(draft, 1, 2));
    // BIP113: before it the block's own time counts.
    boundary(csv, "bad-txns-nonfinal", |draft| {
        let lock = draft.block.header.time - 1;
        edits::lock_time(draft, lock, 0)
    });
}

#[test]
fn before_csv_a_lock_time_is_compared_with_the_blocks_own_time() {
    let options = RegtestOptions::default().activation(BuriedDeployment::Csv, 1_000);
    let mut lab = Lab::with(&options, 110);
    lab.fails("bad-txns-nonfinal", Remembered, |draft| {
        let lock = draft.block.header.time;
        edits::lock_time(draft, lock, 0)
    });
}

#[test]
fn segwit() {
    let options = RegtestOptions::default().activation(BuriedDeployment::Segwit, HEIGHT);
    let mut lab = Lab::with(&options, HEIGHT - 3);
    // A commitment means nothing yet, and a witness is not expected with it or without.
    lab.fails("unexpected-witness", Forgotten, |draft| {
        draft.commit = true;
        true
    });
    lab.fails("unexpected-witness", Forgotten, edits::no_commitment);
    lab.passes(|draft| {
        edits::commitment(draft, |coinbase| coinbase.input[0].witness = bitcoin::Witness::new())
    });
    // BIP147 comes with it.
    lab.passes(edits::dummy);
    assert_eq!(lab.height(), HEIGHT - 1);
    lab.fails(FAILED, Remembered, edits::dummy);
    lab.fails("unexpected-witness", Forgotten, edits::no_commitment);
    lab.fails("bad-witness-nonce-size", Forgotten, |draft| {
        edits::commitment(draft, |coinbase| coinbase.input[0].witness = bitcoin::Witness::new())
    });
    lab.passes_with(8, |_| true);
}
