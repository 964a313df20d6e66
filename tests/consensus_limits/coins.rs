//! Rules that need the coins: existence, maturity, amounts, relative lock times, BIP30.

use crate::edits;
use crate::lab::Lab;
use crate::lab::Memory::Remembered;
use headlong::chain::params::{BuriedDeployment, RegtestOptions};

const FINAL: u32 = u32::MAX;

#[test]
fn coins_exist_once() {
    let mut lab = Lab::new();
    let missing = "bad-txns-inputs-missingorspent";
    lab.fails(missing, Remembered, |draft| edits::missing_coin(draft, 9));
    lab.fails(missing, Remembered, edits::spent_twice);
    lab.fails(missing, Remembered, |draft| edits::in_block(draft, true));
    lab.passes(|draft| edits::in_block(draft, false));
    // What can never be spent is no coin.
    let unspendable =
        |lock: Vec<u8>| move |draft: &mut crate::draft::Draft<'_>| edits::spend(draft, lock, Vec::new(), &[]);
    lab.fails(missing, Remembered, unspendable(vec![0x6a]));
    let long = |len: usize| {
        let mut lock: Vec<u8> = (0..19).flat_map(|_| crate::draft::push(&[7; 520])).collect();
        lock.extend(crate::draft::push(&vec![7; len - lock.len() - 3]));
        lock.push(0x51);
        lock.resize(len, 0x51);
        lock
    };
    lab.fails(missing, Remembered, unspendable(long(10_001)));
    lab.passes(unspendable(long(10_000)));
}

#[test]
fn coinbases_mature_after_a_hundred_blocks() {
    let mut lab = Lab::with(&RegtestOptions::default(), 100);
    // Block 1 can be spent in block 101.
    lab.fails("bad-txns-premature-spend-of-coinbase", Remembered, |draft| edits::maturity(draft, 1));
    lab.passes(|draft| edits::maturity(draft, 0));
    assert_eq!(lab.height(), 101);
}

#[test]
fn amounts() {
    let mut lab = Lab::new();
    lab.fails("bad-txns-in-belowout", Remembered, |draft| edits::in_below_out(draft, 1));
    lab.passes(|draft| edits::in_below_out(draft, 0));
}

#[test]
fn lock_times() {
    let mut lab = Lab::new();
    let fails = "bad-txns-nonfinal";
    let lock = |lock: fn(&crate::draft::Place) -> u32, sequence: u32| {
        move |draft: &mut crate::draft::Draft<'_>| {
            let lock = lock(&draft.place);
            edits::lock_time(draft, lock, sequence)
        }
    };
    lab.fails(fails, Remembered, lock(|place| place.height, 0));
    lab.fails(fails, Remembered, lock(|_| 499_999_999, 0));
    lab.passes(lock(|place| place.height - 1, FINAL - 1));
    lab.passes(lock(|place| place.height, FINAL));
    // BIP113: the median of the parent counts, not the block's own time.
    lab.fails(fails, Remembered, lock(|place| place.mtp(), 0));
    lab.passes(lock(|place| place.mtp() - 1, 0));
    lab.passes(lock(|_| FINAL, FINAL));
}

#[test]
fn relative_lock_times() {
    let mut lab = Lab::new();
    let fails = "bad-txns-nonfinal";
    for version in [2, -1] {
        lab.fails(fails, Remembered, |draft| edits::relative_height(draft, 1, version));
        lab.fails(fails, Remembered, |draft| edits::relative_time(draft, 1, version));
        lab.passes(|draft| edits::relative_height(draft, 0, version));
        lab.passes(|draft| edits::relative_time(draft, 0, version));
    }
    for sequence in [1, 1 << 22 | 1] {
        lab.fails(fails, Remembered, |draft| edits::relative_in_block(draft, sequence));
    }
    // Old transactions and disabled locks.
    lab.passes(|draft| edits::relative_height(draft, 1, 1));
    lab.passes(|draft| edits::relative_time(draft, 1, 1));
    lab.passes(|draft| edits::relative_in_block(draft, 1 << 31 | 1));
    lab.passes(|draft| edits::relative_in_block(draft, 0));
}

#[test]
fn an_unspent_coinbase_is_not_overwritten() {
    let options = RegtestOptions::default().activation(BuriedDeployment::HeightInCoinbase, 1_000);
    let mut lab = Lab::with(&options, 100);
    for back in [0, 50, 99] {
        lab.fails("bad-txns-BIP30", Remembered, |draft| edits::coinbase_again(draft, back));
    }
    // The first coinbase is spent in block 101, and can then be repeated; but not twice.
    lab.passes(|draft| edits::maturity(draft, 0));
    lab.passes(|draft| edits::coinbase_again(draft, 100));
    lab.fails("bad-txns-BIP30", Remembered, |draft| edits::coinbase_again(draft, 101));
}
