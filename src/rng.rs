//! Randomness as a value: one seed, given at construction, decides every random choice of the machines.
//!
//! The generator is ChaCha20, so that a peer that sees some outputs (nonces, salts) learns nothing about
//! the others. The edge draws the seed from the operating system; a simulation passes its own.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A seeded source of random values. Not `Clone`: two copies would repeat each other.
#[derive(Debug)]
pub struct Rng(ChaCha20Rng);

impl Rng {
    /// The generator of this 32-byte seed.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ChaCha20Rng::from_seed(seed))
    }

    /// A small number as the seed, for tests and simulations.
    pub fn from_number(seed: u64) -> Self {
        Self(ChaCha20Rng::seed_from_u64(seed))
    }

    /// An independent generator for a part, drawn from this one.
    pub fn fork(&mut self) -> Self {
        Self::from_seed(self.array())
    }

    /// A uniform 64-bit number.
    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A uniform number below `bound`; 0 when `bound` is 0. The bias is below 2^-64 × bound.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.u64()) * u128::from(bound)) >> 64) as u64
    }

    /// `N` random bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// Fills `bytes`. For the seed `k` a first call yields the ChaCha20 key stream of `k` with nonce 0.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    /// Puts `items` in a uniformly random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_forks_differ() {
        let (mut a, mut b) = (Rng::from_number(7), Rng::from_number(7));
        assert_eq!(a.u64(), b.u64());
        assert_ne!(a.fork().u64(), a.fork().u64());
        assert_eq!(a.below(0), 0);
        assert!((0..1_000).all(|_| a.below(3) < 3));
    }
}
