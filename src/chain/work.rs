//! Work and difficulty: targets, chainwork, and what the next header's `bits` must be on each network.
//!
//! 1. `bits` is a floating-point form of a 256-bit target: one byte of exponent, a sign bit, 23 bits of
//!    mantissa (Core's `arith_uint256::SetCompact`). Negative, zero and too large targets are no targets.
//! 2. A header's hash, read as a little-endian number, must not be above its target; the work of a header
//!    is the expected number of hashes for that, 2^256 / (target + 1).
//! 3. Every 2016 blocks (144 on regtest, which ignores the result) the target is scaled by the time that
//!    the last 2015 intervals took, within a factor of 4 and below the network's limit ([`next_bits`]).
//! 4. testnet3 and testnet4 allow the limit itself after 20 minutes without a block; testnet4 (BIP94)
//!    scales the target of the period's first block, which can't use that exception.
//!
//! Sources: Core's `pow.cpp`, `chain.cpp`, `arith_uint256.cpp`. Left out: the retargeting rule's place
//! among the header's other rules, see [`crate::consensus::header`].

use super::block_tree::{BlockTree, HeaderId};
use super::params::Params;
use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use core::fmt;
use core::ops::{Add, Sub};
use core::str::FromStr;

/// An unsigned 256-bit number; `hi` first, so that the derived order is the numeric one.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct U256 {
    hi: u128,
    lo: u128,
}

impl U256 {
    const ZERO: Self = Self { hi: 0, lo: 0 };
    const ONE: Self = Self { hi: 0, lo: 1 };
    const MAX: Self = Self { hi: u128::MAX, lo: u128::MAX };

    fn from_be_bytes(bytes: [u8; 32]) -> Self {
        let mut out = Self::ZERO;
        for byte in bytes {
            out.hi = out.hi << 8 | out.lo >> 120;
            out.lo = out.lo << 8 | u128::from(byte);
        }
        out
    }

    fn to_be_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&self.hi.to_be_bytes());
        bytes[16..].copy_from_slice(&self.lo.to_be_bytes());
        bytes
    }

    /// The position of the highest set bit, from 1; 0 for zero.
    fn bits(self) -> u32 {
        if self.hi != 0 { 256 - self.hi.leading_zeros() } else { 128 - self.lo.leading_zeros() }
    }

    fn shl(self, by: u32) -> Self {
        match by {
            0 => self,
            1..128 => Self { hi: self.hi << by | self.lo >> (128 - by), lo: self.lo << by },
            128..256 => Self { hi: self.lo << (by - 128), lo: 0 },
            _ => Self::ZERO,
        }
    }

    fn shr(self, by: u32) -> Self {
        match by {
            0 => self,
            1..128 => Self { hi: self.hi >> by, lo: self.lo >> by | self.hi << (128 - by) },
            128..256 => Self { hi: 0, lo: self.hi >> (by - 128) },
            _ => Self::ZERO,
        }
    }

    fn checked_add(self, other: Self) -> Option<Self> {
        let (lo, carry) = self.lo.overflowing_add(other.lo);
        let hi = self.hi.checked_add(other.hi)?.checked_add(u128::from(carry))?;
        Some(Self { hi, lo })
    }

    fn wrapping_sub(self, other: Self) -> Self {
        let (lo, borrow) = self.lo.overflowing_sub(other.lo);
        Self { hi: self.hi.wrapping_sub(other.hi).wrapping_sub(u128::from(borrow)), lo }
    }

    fn not(self) -> Self {
        Self { hi: !self.hi, lo: !self.lo }
    }

    /// Limbs of 64 bits, least significant first.
    fn limbs(self) -> [u64; 4] {
        [self.lo as u64, (self.lo >> 64) as u64, self.hi as u64, (self.hi >> 64) as u64]
    }

    fn from_limbs(l: [u64; 4]) -> Self {
        Self { hi: u128::from(l[3]) << 64 | u128::from(l[2]), lo: u128::from(l[1]) << 64 | u128::from(l[0]) }
    }

    /// Modulo 2^256, as Core's number does.
    fn wrapping_mul(self, factor: u64) -> Self {
        let mut carry = 0_u128;
        Self::from_limbs(self.limbs().map(|limb| {
            let product = u128::from(limb) * u128::from(factor) + carry;
            carry = product >> 64;
            product as u64
        }))
    }

    /// Quotient; all bits set for a divisor of zero (which no caller has).
    fn div(self, divisor: Self) -> Self {
        if divisor == Self::ZERO {
            return Self::MAX;
        }
        if self < divisor {
            return Self::ZERO;
        }
        let (mut rest, mut quotient) = (self, Self::ZERO);
        // Both numbers aligned at their highest bits, then long division bit by bit.
        for shift in (0..=self.bits() - divisor.bits()).rev() {
            let part = divisor.shl(shift);
            if part <= rest {
                rest = rest.wrapping_sub(part);
                let bit = Self::ONE.shl(shift);
                quotient = Self { hi: quotient.hi | bit.hi, lo: quotient.lo | bit.lo };
            }
        }
        quotient
    }
}

impl fmt::LowerHex for U256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}{:032x}", self.hi, self.lo)
    }
}

/// A string is not a number of at most 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 1 to 64 hexadecimal digits")]
pub struct ParseWorkError;

/// Total work of a chain or of a block, in expected hashes: an unsigned 256-bit number.
///
/// Read from and shown as hexadecimal digits, most significant first. Sums saturate.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainWork(U256);

impl ChainWork {
    /// No work.
    pub const ZERO: Self = Self(U256::ZERO);

    /// The work that a header with these `bits` proves (Core's `GetBitsProof`); zero for bits that are no
    /// target.
    pub fn of_bits(bits: u32) -> Self {
        let Some(Target(target)) = Target::from_bits(bits) else { return Self::ZERO };
        // 2^256 / (t + 1), without a number of 257 bits. A target of 2^256 - 1 can't be written as bits.
        let Some(above) = target.checked_add(U256::ONE) else { return Self(U256::ONE) };
        Self(target.not().div(above).checked_add(U256::ONE).unwrap_or(U256::MAX))
    }

    /// From 32 bytes, most significant first.
    pub fn from_be_bytes(bytes: [u8; 32]) -> Self {
        Self(U256::from_be_bytes(bytes))
    }

    /// As 32 bytes, most significant first.
    pub fn to_be_bytes(self) -> [u8; 32] {
        self.0.to_be_bytes()
    }

    /// The sum, or the largest number if that is smaller.
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.checked_add(other.0).unwrap_or(U256::MAX))
    }

    /// The difference, or zero.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        if self > other { Self(self.0.wrapping_sub(other.0)) } else { Self::ZERO }
    }

    /// The product, or the largest number if that is smaller.
    #[must_use]
    pub fn saturating_mul(self, factor: u32) -> Self {
        if self.0.bits() + (32 - factor.leading_zeros()) <= 256 {
            Self(self.0.wrapping_mul(u64::from(factor)))
        } else {
            Self(U256::MAX)
        }
    }

    /// The logarithm to base 2, as Core logs it; negative infinity for zero.
    pub fn log2(self) -> f64 {
        (self.0.hi as f64 * 2_f64.powi(128) + self.0.lo as f64).log2()
    }

    /// As 128 bits; the largest such number if it is greater. Work beyond 2^128 hashes can't be done, so
    /// a chain whose headers were checked never has more.
    pub(super) fn to_u128(self) -> u128 {
        if self.0.hi == 0 { self.0.lo } else { u128::MAX }
    }
}

impl From<u128> for ChainWork {
    fn from(lo: u128) -> Self {
        Self(U256 { hi: 0, lo })
    }
}

impl Add for ChainWork {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.saturating_add(other)
    }
}

impl Sub for ChainWork {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.saturating_sub(other)
    }
}

impl core::iter::Sum for ChainWork {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Add::add)
    }
}

impl FromStr for ChainWork {
    type Err = ParseWorkError;

    /// Up to 64 hexadecimal digits, most significant first, optionally after `0x` (as Core's
    /// `-minimumchainwork`).
    fn from_str(text: &str) -> Result<Self, ParseWorkError> {
        let digits = text.strip_prefix("0x").or(text.strip_prefix("0X")).unwrap_or(text);
        if digits.is_empty() || digits.len() > 64 {
            return Err(ParseWorkError);
        }
        let mut number = U256::ZERO;
        for digit in digits.chars() {
            let digit = digit.to_digit(16).ok_or(ParseWorkError)?;
            number = number.shl(4);
            number.lo |= u128::from(digit);
        }
        Ok(Self(number))
    }
}

impl fmt::LowerHex for ChainWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

impl fmt::Display for ChainWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

impl fmt::Debug for ChainWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChainWork({:x})", self.0)
    }
}

/// The largest hash that a header may have: an unsigned 256-bit number, not zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target(U256);

impl Target {
    /// From its upper and lower 128 bits.
    pub const fn from_halves(hi: u128, lo: u128) -> Self {
        Self(U256 { hi, lo })
    }

    /// What `bits` stands for; `None` if that is negative, zero or above 256 bits.
    pub fn from_bits(bits: u32) -> Option<Self> {
        let (size, mantissa) = (bits >> 24, bits & 0x007f_ffff);
        let word = if size <= 3 { mantissa >> (8 * (3 - size)) } else { mantissa };
        let negative = word != 0 && bits & 0x0080_0000 != 0;
        let overflow = word != 0 && (size > 34 || (word > 0xff && size > 33) || (word > 0xffff && size > 32));
        if word == 0 || negative || overflow {
            return None;
        }
        let number = U256 { hi: 0, lo: u128::from(word) };
        Some(Self(if size <= 3 { number } else { number.shl(8 * (size - 3)) }))
    }

    /// The nearest `bits` that is not above it (Core's `GetCompact`).
    pub fn to_bits(self) -> u32 {
        let mut size = self.0.bits().div_ceil(8);
        let mut mantissa = if size <= 3 {
            (self.0.lo as u32) << (8 * (3 - size))
        } else {
            self.0.shr(8 * (size - 3)).lo as u32
        };
        // Bit 23 is the sign, so a mantissa that would reach it moves down a byte.
        if mantissa & 0x0080_0000 != 0 {
            mantissa >>= 8;
            size += 1;
        }
        mantissa | size << 24
    }

    /// Whether a header with this hash meets the target.
    pub fn is_met_by(self, hash: &BlockHash) -> bool {
        let mut bytes = hash.to_byte_array();
        bytes.reverse();
        U256::from_be_bytes(bytes) <= self.0
    }

    /// Scaled by `seconds / timespan`, not above `limit`, as rounded by `bits`.
    fn retargeted(self, seconds: u64, timespan: u32, limit: Self) -> u32 {
        let divisor = U256 { hi: 0, lo: u128::from(timespan) };
        Self(self.0.wrapping_mul(seconds).div(divisor)).min(limit).to_bits()
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({:x})", self.0)
    }
}

/// Whether `hash` meets the target of `bits`, and that target is one the network allows (Core's
/// `CheckProofOfWork`).
pub fn check_proof_of_work(hash: &BlockHash, bits: u32, params: &Params) -> bool {
    Target::from_bits(bits).is_some_and(|target| target <= params.pow_limit && target.is_met_by(hash))
}

/// The `bits` that a child of `parent` with this `time` (Unix seconds) must have (Core's
/// `GetNextWorkRequired`).
pub fn next_bits(tree: &BlockTree, parent: HeaderId, time: u32) -> u32 {
    let params = tree.params();
    let interval = params.difficulty_interval();
    let height = tree.height(parent);
    if !(height + 1).is_multiple_of(interval) {
        if !params.allow_min_difficulty {
            return tree.bits(parent);
        }
        let limit = params.pow_limit.to_bits();
        if u64::from(time) > u64::from(tree.time(parent)) + 2 * u64::from(params.pow_target_spacing) {
            return limit;
        }
        // The last block of this period that did not use the exception.
        let mut at = parent;
        while !tree.height(at).is_multiple_of(interval) && tree.bits(at) == limit {
            let Some(below) = tree.parent(at) else { break };
            at = below;
        }
        return tree.bits(at);
    }
    // The first block of the period that ends with `parent`: 2015 intervals, not 2016.
    let first = tree.ancestor(parent, height + 1 - interval).unwrap_or(parent);
    retarget(
        params,
        Period {
            first_bits: tree.bits(first),
            first_time: tree.time(first),
            last_bits: tree.bits(parent),
            last_time: tree.time(parent),
        },
    )
}

/// The ends of a difficulty period.
#[derive(Clone, Copy, Debug)]
pub struct Period {
    /// `bits` of its first header.
    pub first_bits: u32,
    /// Time of its first header, in Unix seconds.
    pub first_time: u32,
    /// `bits` of its last header.
    pub last_bits: u32,
    /// Time of its last header, in Unix seconds.
    pub last_time: u32,
}

/// The `bits` of the period after this one (Core's `CalculateNextWorkRequired`).
pub fn retarget(params: &Params, period: Period) -> u32 {
    if params.no_retargeting {
        return period.last_bits;
    }
    let timespan = params.pow_target_timespan;
    let took = i64::from(period.last_time) - i64::from(period.first_time);
    let took = took.clamp(i64::from(timespan / 4), i64::from(timespan) * 4);
    let base = if params.enforce_bip94 { period.first_bits } else { period.last_bits };
    // Accepted headers have targets; anything else would have been `high-hash`.
    Target::from_bits(base)
        .map_or(base, |target| target.retargeted(took.unsigned_abs(), timespan, params.pow_limit))
}

/// Whether `bits` may change from `old` (the parent's) to `new` at `height` (of the header with `new`),
/// judged without the headers between: unchanged within a period, by at most a factor of 4 at its end;
/// always where the network allows the least difficulty at any time (Core's
/// `PermittedDifficultyTransition`).
pub fn permitted_difficulty_transition(params: &Params, height: u32, old: u32, new: u32) -> bool {
    if params.allow_min_difficulty {
        return true;
    }
    if !height.is_multiple_of(params.difficulty_interval()) {
        return old == new;
    }
    let (Some(old), Some(new)) = (Target::from_bits(old), Target::from_bits(new)) else { return false };
    let timespan = params.pow_target_timespan;
    // Rounded as `bits` rounds; a target that shrinks to nothing bounds nothing.
    let bound = |seconds| Target::from_bits(old.retargeted(seconds, timespan, params.pow_limit));
    bound(u64::from(timespan) * 4).is_some_and(|easiest| new <= easiest)
        && bound(u64::from(timespan / 4)).is_none_or(|hardest| hardest <= new)
}

/// How long it would take, in seconds, to do the work between `from` and `to` again at the pace of a block
/// with the proof `tip` every `spacing` seconds; negative if `to` has less work than `from` (Core's
/// `GetBlockProofEquivalentTime`).
pub fn proof_equivalent_time(to: ChainWork, from: ChainWork, tip: ChainWork, spacing: u32) -> i64 {
    let (sign, difference) = if to > from { (1, to - from) } else { (-1, from - to) };
    let seconds = difference.0.wrapping_mul(u64::from(spacing)).div(tip.0);
    if seconds.bits() > 63 { sign * i64::MAX } else { sign * seconds.lo as i64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::params::Network;
    use bitcoin::CompactTarget;
    use proptest::prelude::*;

    fn main() -> Params {
        Params::new(Network::Main)
    }

    #[test]
    fn bits_are_decoded_as_core_does() {
        // Zero, negative and overflowing.
        for bits in [
            0,
            0x0012_3456,
            0x0100_3456,
            0x0200_0056,
            0x0300_0000,
            0x0400_0000,
            0x0092_3456,
            0x0180_3456,
            0x0280_0056,
            0x0380_0000,
            0x0480_0000,
            0x01fe_dcba,
            0x0492_3456,
            0xff12_3456,
            0x2300_0001,
            0x2200_0100,
            0x2101_0000,
        ] {
            assert_eq!(Target::from_bits(bits), None, "{bits:08x}");
            assert_eq!(ChainWork::of_bits(bits), ChainWork::ZERO);
        }
        for (bits, lo, back) in [
            (0x0112_3456, 0x12, 0x0112_0000),
            (0x0212_3456, 0x1234, 0x0212_3400),
            (0x0312_3456, 0x12_3456, 0x0312_3456),
            (0x0412_3456, 0x1234_5600, 0x0412_3456),
            (0x0500_9234, 0x9234_0000, 0x0500_9234),
        ] {
            let target = Target::from_bits(bits).unwrap();
            assert_eq!(target, Target::from_halves(0, lo));
            assert_eq!(target.to_bits(), back);
        }
        assert_eq!(Target::from_bits(0x2012_3456), Some(Target::from_halves(0x123456 << 104, 0)));
        assert_eq!(Target::from_bits(0x2200_00ff), Some(Target::from_halves(0xff << 120, 0)));
        assert_eq!(Target::from_halves(0, 0x80).to_bits(), 0x0200_8000);
    }

    #[test]
    fn retargeting_matches_mainnet() {
        let from =
            |first_time, last_time, bits| Period { first_bits: bits, first_time, last_bits: bits, last_time };
        for (height, period, expected) in [
            // Unconstrained.
            (32_256, from(1_261_130_161, 1_262_152_739, 0x1d00_ffff), 0x1d00_d86a),
            // At the network's limit.
            (2_016, from(1_231_006_505, 1_233_061_996, 0x1d00_ffff), 0x1d00_ffff),
            // Faster than a quarter of the time.
            (68_544, from(1_279_008_237, 1_279_297_671, 0x1c05_a3f4), 0x1c01_68fd),
            // Slower than four times (the first time is not a real one).
            (46_368, from(1_263_163_443, 1_269_211_443, 0x1c38_7f6f), 0x1d00_e1fd),
        ] {
            assert_eq!(retarget(&main(), period), expected, "{height}");
            let permitted = |new| permitted_difficulty_transition(&main(), height, period.last_bits, new);
            assert!(permitted(expected));
        }
        let permitted = |height, old, new| permitted_difficulty_transition(&main(), height, old, new);
        assert!(!permitted(68_544, 0x1c05_a3f4, 0x1c01_68fd - 1));
        assert!(!permitted(46_368, 0x1c38_7f6f, 0x1d00_e1fd + 1));
        assert!(!permitted(46_368, 0x1c38_7f6f, 0));
        assert!(permitted(46_369, 0x1c38_7f6f, 0x1c38_7f6f));
        assert!(!permitted(46_369, 0x1c38_7f6f, 0x1c38_7f6e));
        let testnet = Params::new(Network::Testnet3);
        assert!(permitted_difficulty_transition(&testnet, 46_369, 0x1c38_7f6f, 0x1d00_ffff));
    }

    #[test]
    fn bip94_scales_the_first_target_of_the_period() {
        let period = Period {
            first_bits: 0x1c05_a3f4,
            first_time: 1_279_008_237,
            last_bits: 0x1d00_ffff,
            last_time: 1_279_297_671,
        };
        assert_eq!(retarget(&Params::new(Network::Testnet4), period), 0x1c01_68fd);
        assert_eq!(retarget(&Params::new(Network::Testnet3), period), 0x1c3f_ffc0);
        assert_eq!(retarget(&Params::new(Network::Regtest), period), 0x1d00_ffff);
    }

    #[test]
    fn proof_of_work_needs_a_permitted_target() {
        let hash = |byte: usize| {
            let mut bytes = [0; 32];
            bytes[byte] = 1;
            BlockHash::from_byte_array(bytes)
        };
        let limit = main().pow_limit.to_bits();
        // The limit's bits stand for 0xffff << 208: one less passes, byte 28 is above.
        assert!(check_proof_of_work(&hash(0), limit, &main()));
        assert!(check_proof_of_work(&hash(27), limit, &main()));
        assert!(!check_proof_of_work(&hash(28), limit, &main()));
        for bits in [0, limit | 0x0080_0000, !0x0080_0000, 0x1d01_ffff, 0x1e00_ffff] {
            assert!(!check_proof_of_work(&hash(0), bits, &main()), "{bits:08x}");
        }
        let mut exact = [0; 32];
        exact[26..28].fill(0xff);
        assert!(check_proof_of_work(&BlockHash::from_byte_array(exact), limit, &main()));
        exact[0] = 1;
        assert!(!check_proof_of_work(&BlockHash::from_byte_array(exact), limit, &main()));
    }

    #[test]
    fn retargeting_never_overflows() {
        for network in Network::ALL.map(Params::new).iter().filter(|params| !params.no_retargeting) {
            let most = U256::MAX.div(U256 { hi: 0, lo: u128::from(network.pow_target_timespan) * 4 });
            assert!(network.pow_limit.0 < most);
        }
    }

    #[test]
    fn equivalent_time_is_the_time_at_constant_difficulty() {
        let proof = ChainWork::of_bits(0x207f_ffff);
        let after = |blocks: u32| proof.saturating_mul(blocks);
        assert_eq!(proof_equivalent_time(after(10), after(3), proof, 600), 4200);
        assert_eq!(proof_equivalent_time(after(3), after(10), proof, 600), -4200);
        let far = ChainWork(U256::ONE.shl(200));
        assert_eq!(proof_equivalent_time(far, proof, proof, 600), i64::MAX);
        assert_eq!(proof_equivalent_time(proof, far, proof, 600), -i64::MAX);
    }

    #[test]
    fn work_is_read_and_shown_in_hexadecimal() {
        let text = "0000000000000000000000000000000000000001128750f82f4c366153a3a030";
        assert_eq!(text.parse::<ChainWork>().unwrap(), main().minimum_chain_work);
        assert_eq!(main().minimum_chain_work.to_string(), text);
        assert_eq!("0x10".parse(), Ok(ChainWork::from(16)));
        for bad in ["", "0x", "g", "-1", &"0".repeat(65)] {
            assert_eq!(bad.parse::<ChainWork>(), Err(ParseWorkError), "{bad:?}");
        }
    }

    proptest! {
        /// The `bitcoin` crate's numbers are the model.
        #[test]
        fn numbers_agree_with_another_implementation(
            size in 1_u32..=0x20, mantissa in 1_u32..0x0080_0000, a in any::<[u8; 32]>(), b in any::<[u8; 32]>(),
        ) {
            let bits = size << 24 | mantissa;
            let theirs = bitcoin::Target::from_compact(CompactTarget::from_consensus(bits));
            let ours = Target::from_bits(bits);
            prop_assert_eq!(ours.is_some(), theirs != bitcoin::Target::ZERO);
            if let Some(target) = ours {
                prop_assert_eq!(target.0.to_be_bytes(), theirs.to_be_bytes());
                prop_assert_eq!(target.to_bits(), theirs.to_compact_lossy().to_consensus());
                // The work of target 1 is 2^255, as in Core; theirs is the greatest number.
                let half = U256 { hi: 1 << 127, lo: 0 }.to_be_bytes();
                let theirs = if target.0 == U256::ONE { half } else { theirs.to_work().to_be_bytes() };
                prop_assert_eq!(ChainWork::of_bits(bits).to_be_bytes(), theirs);
            }
            let (x, y) = (ChainWork::from_be_bytes(a), ChainWork::from_be_bytes(b));
            prop_assert_eq!(x.to_be_bytes(), a);
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            prop_assert_eq!(x.to_string().parse(), Ok(x));
            prop_assert_eq!(x.saturating_sub(y).saturating_add(y), x.max(y));
            prop_assert_eq!((x + y) - y, if x + y == ChainWork(U256::MAX) { ChainWork(U256::MAX) - y } else { x });
        }

        /// Quotient times divisor plus a rest below the divisor is the dividend.
        #[test]
        fn division_undoes_multiplication(limbs in any::<[u64; 3]>(), factor in 1_u64.., rest in any::<u64>()) {
            let number = U256::from_limbs([limbs[0], limbs[1], limbs[2], 0]);
            let divisor = U256 { hi: 0, lo: u128::from(factor) };
            let rest = U256 { hi: 0, lo: u128::from(rest % factor) };
            let product = number.wrapping_mul(factor);
            if let Some(sum) = product.checked_add(rest) {
                prop_assert_eq!(sum.div(divisor).to_be_bytes(), number.to_be_bytes());
            }
            for by in [0, 1, 64, 127, 128, 129, 255] {
                prop_assert_eq!(number.shl(by).shr(by).shl(by).to_be_bytes(), number.shl(by).to_be_bytes());
            }
        }
    }
}
