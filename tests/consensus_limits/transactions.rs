//! Rules of one transaction by itself.

use crate::edits;
use crate::lab::Lab;
use crate::lab::Memory::{Forgotten, Remembered};

const MAX_MONEY: u64 = 2_100_000_000_000_000;

#[test]
fn inputs_and_outputs() {
    let mut lab = Lab::new();
    lab.fails("bad-txns-vin-empty", Forgotten, edits::no_inputs);
    lab.fails("bad-txns-vout-empty", Forgotten, edits::no_outputs);
    lab.fails("bad-txns-inputs-duplicate", Forgotten, edits::same_input_twice);
    lab.fails("bad-txns-prevout-null", Forgotten, edits::null_input);
    lab.passes(|draft| edits::in_below_out(draft, 0));
}

#[test]
fn values() {
    let mut lab = Lab::new();
    for value in [1 << 63, u64::MAX] {
        lab.fails("bad-txns-vout-negative", Forgotten, |draft| edits::values(draft, &[value]));
    }
    for value in [MAX_MONEY + 1, i64::MAX as u64] {
        lab.fails("bad-txns-vout-toolarge", Forgotten, |draft| edits::values(draft, &[value]));
    }
    lab.fails("bad-txns-txouttotal-toolarge", Forgotten, |draft| edits::total(draft, 1));
    lab.passes(|draft| edits::values(draft, &[0]));
    // All the money is possible, and only more than there is to spend.
    lab.fails("bad-txns-in-belowout", Remembered, |draft| edits::values(draft, &[MAX_MONEY]));
    lab.fails("bad-txns-in-belowout", Remembered, |draft| edits::total(draft, 0));
}
