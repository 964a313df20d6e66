//! Random scripts, for what nobody thought of.

use crate::draft::{Draft, push, script};
use crate::edits;
use headlong::rng::Rng;

/// Random operations as lock, as what unlocks it, and as a script within P2SH, P2WSH or P2TR.
pub fn random(draft: &mut Draft<'_>, seed: u64) -> bool {
    let mut rng = Rng::from_number(seed);
    let mut lock = Vec::new();
    for _ in 0..1 + rng.below(12) {
        match rng.below(8) {
            0 => lock.push(rng.below(256) as u8),
            1 => lock.extend(push(&rng.array::<3>()[..1 + rng.below(3) as usize])),
            2 | 3 => lock.push(0x50 + rng.below(17) as u8),
            4 => lock.extend([0x63, 0x51, 0x67, 0x00, 0x68]),
            // Operations up to the last that is known.
            _ => lock.push(0x61 + rng.below(0x5a) as u8),
        }
    }
    lock.push(0x51);
    let items: Vec<Vec<u8>> =
        (0..rng.below(4)).map(|_| rng.array::<4>()[..rng.below(5) as usize].to_vec()).collect();
    let pushed: Vec<u8> = items.iter().flat_map(|item| push(item)).collect();
    let inner = script(&lock);
    match rng.below(if draft.place.segwit { 4 } else { 2 }) {
        0 => edits::spend(draft, lock, pushed, &[]),
        1 => edits::spend(draft, inner.to_p2sh().to_bytes(), [pushed, push(&lock)].concat(), &[]),
        2 => edits::spend(draft, inner.to_p2wsh().to_bytes(), Vec::new(), &[items, vec![lock]].concat()),
        _ => {
            let (lock, reveal) = edits::tap(&lock, 0xc0);
            edits::spend(draft, lock, Vec::new(), &[items, reveal].concat())
        }
    }
}
