//! The verdicts of scripts, in whole blocks.

use crate::edits;
use crate::lab::Lab;
use crate::lab::Memory::Remembered;
use crate::signed;

const FAILED: &str = "block-script-verify-flag-failed";

#[test]
fn limits_of_the_interpreter() {
    let mut lab = Lab::new();
    for (name, good, lock, sig, witness) in edits::locks() {
        eprintln!("{name}");
        let edit = |draft: &mut crate::draft::Draft<'_>| edits::spend(draft, lock, sig, &witness);
        if good { lab.passes(edit) } else { lab.fails(FAILED, Remembered, edit) }
    }
}

#[test]
fn signatures() {
    let mut lab = Lab::new();
    // The first byte that unlocks, and a late one, of several inputs.
    for random in [0, 1, 2, 3] {
        let place = 9 << 16;
        lab.fails_with(8, FAILED, Remembered, |draft| edits::broken_signature(draft, random | place));
    }
    lab.fails(FAILED, Remembered, edits::padded_signature);
    lab.fails(FAILED, Remembered, edits::dummy);
    lab.passes_with(8, |_| true);
}

#[test]
fn lock_time_operations() {
    let mut lab = Lab::new();
    lab.passes(|draft| edits::check_lock_time(draft, 0, 0));
    lab.fails(FAILED, Remembered, |draft| edits::check_lock_time(draft, 1, 0));
    lab.fails(FAILED, Remembered, |draft| edits::check_lock_time(draft, 0, u32::MAX));
    lab.passes(|draft| edits::check_sequence(draft, 0, 0, 2));
    lab.fails(FAILED, Remembered, |draft| edits::check_sequence(draft, 1, 0, 2));
    lab.fails(FAILED, Remembered, |draft| edits::check_sequence(draft, 0, 0, 1));
    lab.fails(FAILED, Remembered, |draft| edits::check_sequence(draft, 0, 1 << 31, 2));
}

#[test]
fn signatures_keys_and_control_blocks_in_every_form() {
    // The clock stands still: a chain has room for some blocks.
    for cases in signed::cases().chunks(20) {
        let mut lab = Lab::new();
        for case in cases {
            eprintln!("{}", case.name);
            let edit = |draft: &mut crate::draft::Draft<'_>| signed::spend(draft, case);
            if case.good { lab.passes(edit) } else { lab.fails(FAILED, Remembered, edit) }
        }
    }
}
