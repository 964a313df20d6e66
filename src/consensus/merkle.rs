//! Merkle roots, and the mutation that leaves one unchanged (Core: consensus/merkle.cpp).
//!
//! A level of odd length repeats its last hash, so that a list that ends in a repetition has the root of a
//! shorter one (CVE-2012-2459). Such a list shows two equal neighbours at some level.

use bitcoin::hashes::{Hash, HashEngine, sha256d};

/// The root of a list of leaves and whether two neighbours of some level were equal. The root of an empty
/// list is zero.
pub fn merkle_root(mut hashes: Vec<sha256d::Hash>) -> (sha256d::Hash, bool) {
    let mut mutated = false;
    while hashes.len() > 1 {
        let pairs = hashes.len().div_ceil(2);
        for i in 0..pairs {
            let left = hashes[2 * i];
            let right = match hashes.get(2 * i + 1) {
                Some(&right) => {
                    mutated |= left == right;
                    right
                }
                None => left,
            };
            let mut engine = sha256d::Hash::engine();
            engine.input(left.as_byte_array());
            engine.input(right.as_byte_array());
            hashes[i] = sha256d::Hash::from_engine(engine);
        }
        hashes.truncate(pairs);
    }
    (hashes.first().copied().unwrap_or(sha256d::Hash::all_zeros()), mutated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leaves(n: u64) -> Vec<sha256d::Hash> {
        (0..n).map(|i| sha256d::Hash::hash(&i.to_le_bytes())).collect()
    }

    proptest! {
        #[test]
        fn agrees_with_rust_bitcoin(n in 0u64..70) {
            let expected = bitcoin::merkle_tree::calculate_root(leaves(n).into_iter());
            let (root, mutated) = merkle_root(leaves(n));
            prop_assert_eq!(root, expected.unwrap_or(sha256d::Hash::all_zeros()));
            prop_assert!(!mutated);
        }

        /// Repeating the last 2^k leaves keeps the root where the list's length is an odd multiple of 2^k.
        #[test]
        fn repetitions_keep_the_root_and_are_seen(odd in 0u64..9, k in 0u32..4) {
            let (n, repeated) = ((2 * odd + 1) << k, 1usize << k);
            let mut list = leaves(n);
            let (root, _) = merkle_root(list.clone());
            let tail = list[list.len() - repeated..].to_vec();
            list.extend(tail);
            let (other, mutated) = merkle_root(list);
            // A whole tree repeated is a taller tree.
            prop_assert_eq!(other == root, odd > 0);
            prop_assert!(mutated);
        }
    }
}
