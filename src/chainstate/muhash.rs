//! MuHash3072: a hash of a set that can be updated element by element, in any order.
//!
//! 1. Each element is hashed with SHA-256; the digest is the key of a ChaCha20 stream (nonce 0) whose first
//!    384 bytes, little-endian, are a number.
//! 2. The numbers of all elements put in are multiplied modulo 2^3072 − 1103717, so are those of all
//!    elements taken out; the quotient stands for the set.
//! 3. The digest is the SHA-256 of that quotient's 384 little-endian bytes.
//!
//! Bitcoin Core: `crypto/muhash.cpp`. The arithmetic is written plainly, not in constant time: nothing here
//! is secret.

use crate::rng::Rng;
use bitcoin::hashes::{Hash, HashEngine, sha256};

/// 64-bit limbs of a number of 3072 bits.
const LIMBS: usize = 48;
/// Bytes of a number of 3072 bits.
const BYTES: usize = 384;
/// The modulus is 2^3072 less this prime gap.
const GAP: u64 = 1_103_717;

/// A number below 2^3072, limbs from the least significant; it stands for its residue and may be above the
/// modulus until [`Number::reduced`].
#[derive(Clone, PartialEq, Eq)]
struct Number([u64; LIMBS]);

impl Number {
    const ONE: Self = {
        let mut limbs = [0; LIMBS];
        limbs[0] = 1;
        Self(limbs)
    };

    fn from_bytes(bytes: &[u8; BYTES]) -> Self {
        let mut limbs = [0; LIMBS];
        for (limb, chunk) in limbs.iter_mut().zip(bytes.chunks_exact(8)) {
            *limb = chunk.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
        }
        Self(limbs)
    }

    fn to_bytes(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        for (chunk, limb) in bytes.chunks_exact_mut(8).zip(&self.0) {
            chunk.copy_from_slice(&limb.to_le_bytes());
        }
        bytes
    }

    /// Adds a small number at the bottom; the carry out of the top.
    fn add_small(&mut self, small: u128) -> u64 {
        let mut carry = small;
        for limb in &mut self.0 {
            if carry == 0 {
                return 0;
            }
            let sum = u128::from(*limb) + (carry & u128::from(u64::MAX));
            *limb = sum as u64;
            carry = (carry >> 64) + (sum >> 64);
        }
        carry as u64
    }

    /// The residue itself, below the modulus.
    fn reduced(mut self) -> Self {
        let mut raised = self.clone();
        // n >= 2^3072 - GAP exactly if n + GAP overflows; what is left is the residue.
        if raised.add_small(u128::from(GAP)) != 0 {
            self = raised;
        }
        self
    }

    fn times(&self, other: &Self) -> Self {
        let mut product = [0u64; 2 * LIMBS];
        for (at, &a) in self.0.iter().enumerate() {
            let mut carry = 0u128;
            for (limb, &b) in product[at..].iter_mut().zip(&other.0) {
                let sum = u128::from(a) * u128::from(b) + u128::from(*limb) + carry;
                *limb = sum as u64;
                carry = sum >> 64;
            }
            product[at + LIMBS] = carry as u64;
        }
        let (low, high) = product.split_at(LIMBS);
        let mut limbs = [0; LIMBS];
        let mut carry = 0u128;
        for ((limb, &l), &h) in limbs.iter_mut().zip(low).zip(high) {
            let sum = u128::from(h) * u128::from(GAP) + u128::from(l) + carry;
            *limb = sum as u64;
            carry = sum >> 64;
        }
        let mut out = Self(limbs);
        // What runs over the top is worth GAP each time; the second round can overflow by one at most.
        let mut over = carry as u64;
        while over != 0 {
            over = out.add_small(u128::from(over) * u128::from(GAP));
        }
        out
    }

    /// The inverse modulo the prime, by Fermat: self^(p − 2).
    fn inverse(&self) -> Self {
        let mut exponent = [u64::MAX; LIMBS];
        exponent[0] = u64::MAX - GAP - 1;
        let mut out = Self::ONE;
        for bit in (0..LIMBS * 64).rev() {
            out = out.times(&out);
            if exponent[bit / 64] >> (bit % 64) & 1 == 1 {
                out = out.times(self);
            }
        }
        out
    }
}

/// The running hash of a set.
#[derive(Clone)]
pub struct MuHash {
    numerator: Number,
    denominator: Number,
}

impl core::fmt::Debug for MuHash {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("MuHash").finish_non_exhaustive()
    }
}

impl Default for MuHash {
    fn default() -> Self {
        Self::new()
    }
}

impl MuHash {
    /// The empty set.
    pub fn new() -> Self {
        Self { numerator: Number::ONE, denominator: Number::ONE }
    }

    /// Puts an element into the set.
    pub fn insert(&mut self, element: &[u8]) {
        self.numerator = self.numerator.times(&number_of(element));
    }

    /// Takes an element out of the set.
    pub fn remove(&mut self, element: &[u8]) {
        self.denominator = self.denominator.times(&number_of(element));
    }

    /// The union of two disjoint sets.
    pub fn combine(&mut self, other: &Self) {
        self.numerator = self.numerator.times(&other.numerator);
        self.denominator = self.denominator.times(&other.denominator);
    }

    /// The digest of the set: 32 bytes in the order SHA-256 gives them (Core displays them reversed).
    pub fn digest(&self) -> [u8; 32] {
        let quotient = self.numerator.times(&self.denominator.clone().reduced().inverse()).reduced();
        sha256::Hash::hash(&quotient.to_bytes()).to_byte_array()
    }

    /// The state as Core serialises it: numerator, then denominator, 384 bytes little-endian each.
    pub fn to_bytes(&self) -> [u8; 2 * BYTES] {
        let mut bytes = [0; 2 * BYTES];
        bytes[..BYTES].copy_from_slice(&self.numerator.to_bytes());
        bytes[BYTES..].copy_from_slice(&self.denominator.to_bytes());
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote. Any 768 bytes are a state.
    pub fn from_bytes(bytes: &[u8; 2 * BYTES]) -> Self {
        let mut halves = [[0; BYTES]; 2];
        halves[0].copy_from_slice(&bytes[..BYTES]);
        halves[1].copy_from_slice(&bytes[BYTES..]);
        Self { numerator: Number::from_bytes(&halves[0]), denominator: Number::from_bytes(&halves[1]) }
    }
}

fn number_of(element: &[u8]) -> Number {
    let mut engine = sha256::Hash::engine();
    engine.input(element);
    let mut bytes = [0; BYTES];
    Rng::from_seed(sha256::Hash::from_engine(engine).to_byte_array()).fill(&mut bytes);
    Number::from_bytes(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sets_are_independent_of_order_and_removal_undoes() {
        let mut a = MuHash::new();
        let mut b = MuHash::new();
        for n in 0u8..5 {
            a.insert(&[n]);
            b.insert(&[4 - n]);
        }
        assert_eq!(a.digest(), b.digest());
        a.remove(&[3]);
        assert_ne!(a.digest(), b.digest());
        b.insert(&[9]);
        a.insert(&[9]);
        a.insert(&[3]);
        assert_eq!(a.digest(), b.digest());
        let mut empty = b.clone();
        for n in [0, 1, 2, 3, 4, 9] {
            empty.remove(&[n]);
        }
        assert_eq!(empty.digest(), MuHash::new().digest());
    }

    #[test]
    fn the_known_digest_of_bitcoin_core() {
        let element = |n: u8| {
            let mut bytes = [0; 32];
            bytes[0] = n;
            bytes
        };
        let mut set = MuHash::new();
        set.insert(&element(0));
        set.insert(&element(1));
        set.remove(&element(2));
        let mut digest = set.digest();
        digest.reverse();
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "10d312b100cbd32ada024a6646e40d3482fcff103668d2625f10002a607d5863");
    }

    #[test]
    fn numbers_above_the_modulus_are_reduced() {
        let all = Number([u64::MAX; LIMBS]);
        assert_eq!(all.clone().reduced().0[0], GAP - 1);
        assert!(all.clone().reduced().0[1..].iter().all(|&limb| limb == 0));
        let mut modulus = [u64::MAX; LIMBS];
        modulus[0] = u64::MAX - GAP + 1;
        assert!(Number(modulus).reduced().0.iter().all(|&limb| limb == 0));
        let mut below = modulus;
        below[0] -= 1;
        assert_eq!(Number(below).reduced().0, below);
        assert!(all.times(&all.inverse()).reduced() == Number::ONE);
    }

    #[test]
    fn the_shared_vectors_hold() {
        let shared = std::env::var("HEADLONG_SHARED")
            .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../shared").into());
        let Ok(text) = std::fs::read_to_string(format!("{shared}/vectors/muhash.json")) else {
            eprintln!("SKIPPED: {shared}/vectors/muhash.json is not there");
            return;
        };
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let unhex = |value: &serde_json::Value| -> Vec<u8> {
            let text = value.as_str().unwrap();
            (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
        };
        for case in json["cases"].as_array().unwrap() {
            let mut set = MuHash::new();
            for element in case["insert"].as_array().unwrap() {
                set.insert(&unhex(element));
            }
            for element in case["remove"].as_array().unwrap() {
                set.remove(&unhex(element));
            }
            assert_eq!(set.digest().to_vec(), unhex(&case["digest"]));
        }
        let states = json["state"].as_array().unwrap();
        assert!(!states.is_empty());
        for state in states {
            let bytes: [u8; 768] = unhex(&state["hex"]).try_into().unwrap();
            let set = MuHash::from_bytes(&bytes);
            assert_eq!(set.to_bytes(), bytes);
            if let Some(digest) = state.get("digest") {
                assert_eq!(set.digest().to_vec(), unhex(digest), "{}", state["what"]);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn multiplication_is_a_group(a in any::<[u64; 4]>(), b in any::<[u64; 4]>(), c in any::<[u64; 4]>()) {
            let wide = |words: [u64; 4]| {
                let mut limbs = [u64::MAX; LIMBS];
                limbs[..2].copy_from_slice(&words[..2]);
                limbs[46..].copy_from_slice(&words[2..]);
                Number(limbs)
            };
            let (a, b, c) = (wide(a), wide(b), wide(c));
            prop_assert!(a.times(&b).reduced() == b.times(&a).reduced());
            prop_assert!(a.times(&b).times(&c).reduced() == a.times(&b.times(&c)).reduced());
            prop_assert!(a.times(&b).times(&b.inverse()).reduced() == a.clone().reduced());
        }
    }
}
