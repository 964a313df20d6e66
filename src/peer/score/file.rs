//! What the scores have learnt, as bytes.
//!
//! | part | content |
//! | --- | --- |
//! | 8 bytes | `HLSCORE1` |
//! | `u8` | number of features, then for each the two sums of its weight (`f64`) |
//! | `u32` | number of addresses, then each: address as in the [address book](super::super::book::file), score in thousandths (`u32`), seconds connected (`u32`), losses (`u8`), part of stalls, of being overtaken, of useless bytes (`f64`), Unix time when last seen (`u64`) |
//! | 32 bytes | SHA-256 of all before |
//!
//! Integers and numbers are little-endian. The hash guards against flipped bits; values out of bounds are brought within,
//! so that no file leads to a score that could not have been learnt.

use super::{FEATURES, MAX_BREAKS, Memory, Milli, RANGES, Saved, Scores, TOP};
use crate::limits::{MAX_SCORED_ADDRESSES, SCORE_STABLE};
use crate::peer::PeerAddress;
use crate::peer::book::file::{read_address, write_address};
use crate::peer::ftrl::Ftrl;
use crate::wire::compact_size::{ReadError, Reader};
use bitcoin::hashes::{Hash, sha256};
use std::collections::BTreeMap;

const HEAD: &[u8; 8] = b"HLSCORE1";

/// The bytes are no scores.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScoresError {
    /// They do not begin as such.
    #[error("not the scores of this version")]
    Head,
    /// They are not what was written.
    #[error("the scores are damaged")]
    Damaged,
    /// They were written by something else.
    #[error("the scores: {0}")]
    Content(#[from] ReadError),
}

impl Scores {
    /// The bytes of what was learnt. Peers that are connected count as they are now; names, which have no form in the
    /// file, are left out.
    pub fn encode(&self) -> Vec<u8> {
        let mut known = self.known.clone();
        for record in self.peers.values() {
            if let Some(address) = &record.address {
                known.insert(address.clone(), record.lasting());
            }
        }
        known.retain(|address, _| address.network().is_some());
        let mut by_age: Vec<_> = known.into_iter().collect();
        by_age.sort_by_key(|(_, memory)| core::cmp::Reverse(memory.seen));
        by_age.truncate(MAX_SCORED_ADDRESSES);
        encode(&self.model, &by_age)
    }
}

fn encode(model: &Ftrl<FEATURES>, known: &[(PeerAddress, Memory)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + known.len() * 80);
    out.extend_from_slice(HEAD);
    out.push(FEATURES as u8);
    let (z, n) = model.sums();
    for (z, n) in z.iter().zip(n) {
        out.extend_from_slice(&z.to_le_bytes());
        out.extend_from_slice(&n.to_le_bytes());
    }
    out.extend_from_slice(&(known.len() as u32).to_le_bytes());
    for (address, memory) in known {
        write_address(&mut out, address);
        out.extend_from_slice(&memory.score.unsigned_abs().to_le_bytes());
        out.extend_from_slice(&memory.connected.to_le_bytes());
        out.push(memory.breaks);
        for part in [memory.stalls, memory.overtaken, memory.useless] {
            out.extend_from_slice(&part.to_le_bytes());
        }
        out.extend_from_slice(&memory.seen.to_le_bytes());
    }
    let hash = sha256::Hash::hash(&out);
    out.extend_from_slice(hash.as_ref());
    out
}

impl Saved {
    /// Reads what [`Scores::encode`] wrote.
    ///
    /// # Errors
    /// [`ScoresError`]; nothing of damaged scores is used.
    pub fn decode(bytes: &[u8]) -> Result<Self, ScoresError> {
        if !bytes.starts_with(HEAD) {
            return Err(ScoresError::Head);
        }
        let (content, hash) = bytes.split_last_chunk::<32>().ok_or(ScoresError::Damaged)?;
        if sha256::Hash::hash(content).as_byte_array() != hash {
            return Err(ScoresError::Damaged);
        }
        Self::read(content.get(HEAD.len()..).ok_or(ScoresError::Damaged)?).map_err(Into::into)
    }

    /// The part between head and hash.
    fn read(content: &[u8]) -> Result<Self, ReadError> {
        let mut reader = Reader::new(content);
        if usize::from(reader.u8()?) != FEATURES {
            return Err(ReadError::Field("scores of other features"));
        }
        let (mut z, mut n) = ([0.0; FEATURES], [0.0; FEATURES]);
        for (z, n) in z.iter_mut().zip(&mut n) {
            *z = f64::from_le_bytes(reader.array()?);
            *n = f64::from_le_bytes(reader.array()?);
        }
        let count = reader.u32()? as usize;
        if count > MAX_SCORED_ADDRESSES {
            return Err(ReadError::TooMany { count: count as u64, limit: MAX_SCORED_ADDRESSES });
        }
        let mut known = BTreeMap::new();
        for _ in 0..count {
            let address = read_address(&mut reader)?;
            known.insert(address, read_memory(&mut reader)?);
        }
        if !reader.is_empty() {
            return Err(ReadError::Field("bytes behind the scores"));
        }
        Ok(Self { model: Ftrl::with_sums(RANGES, z, n), known })
    }
}

fn read_memory(reader: &mut Reader<'_>) -> Result<Memory, ReadError> {
    let score = Milli::try_from(reader.u32()?).unwrap_or(TOP).min(TOP);
    let connected = reader.u32()?.min(SCORE_STABLE);
    let breaks = reader.u8()?.min(MAX_BREAKS);
    let mut parts = [0.0; 3];
    for part in &mut parts {
        let value = f64::from_le_bytes(reader.array()?);
        *part = if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) };
    }
    let [stalls, overtaken, useless] = parts;
    Ok(Memory { score, connected, breaks, stalls, overtaken, useless, seen: reader.u64()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::score::{ScorePolicy, tests::some_scores};
    use proptest::prelude::*;

    fn sealed(content: &[u8]) -> Vec<u8> {
        let mut bytes = [HEAD, content].concat();
        let hash = sha256::Hash::hash(&bytes);
        bytes.extend_from_slice(hash.as_ref());
        bytes
    }

    #[test]
    fn what_was_learnt_is_read_back_and_a_flipped_bit_is_noticed() {
        let scores = some_scores();
        let bytes = scores.encode();
        let mut again = Scores::new(ScorePolicy::Learnt);
        again.restore(Saved::decode(&bytes).unwrap());
        assert_eq!(again.weights(), scores.weights());
        assert_ne!(again.weights(), Scores::new(ScorePolicy::Learnt).weights());
        assert_eq!(again.remembered(), 3);
        assert_eq!(again.encode(), bytes);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Saved::decode(&damaged).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(Saved::decode(&bytes[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn more_addresses_than_are_kept_are_refused_before_they_are_read() {
        let mut content = vec![FEATURES as u8];
        content.extend_from_slice(&[0; FEATURES * 16]);
        content.extend_from_slice(&(MAX_SCORED_ADDRESSES as u32 + 1).to_le_bytes());
        let refused = Saved::decode(&sealed(&content)).unwrap_err();
        assert!(matches!(refused, ScoresError::Content(ReadError::TooMany { .. })), "{refused}");
    }

    proptest! {
        /// Whatever lies in the file under a good hash: refused, or scores within their bounds.
        #[test]
        fn any_bytes_are_refused_or_lead_to_scores_within_bounds(
            sums in proptest::collection::vec(any::<f64>(), FEATURES * 2),
            entries in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 41), 0..4),
            rest in proptest::collection::vec(any::<u8>(), 0..3),
        ) {
            let mut content = vec![FEATURES as u8];
            for sum in sums {
                content.extend_from_slice(&sum.to_le_bytes());
            }
            content.extend_from_slice(&(entries.len() as u32).to_le_bytes());
            for (host, entry) in entries.iter().enumerate() {
                content.extend_from_slice(&[1, 4, 10, 0, 0, host as u8, 0, 0]);
                content.extend_from_slice(entry);
            }
            content.extend_from_slice(&rest);
            match Saved::decode(&sealed(&content)) {
                Err(_) => prop_assert!(!rest.is_empty()),
                Ok(saved) => {
                    let mut scores = Scores::new(ScorePolicy::Learnt);
                    scores.restore(saved);
                    let once = scores.encode();
                    for (weight, range) in scores.weights().into_iter().zip(RANGES) {
                        prop_assert!((range.least..=range.most).contains(&weight));
                    }
                    scores.restore(Saved::decode(&once).unwrap());
                    prop_assert_eq!(scores.encode(), once);
                    for memory in scores.known.values() {
                        prop_assert!((0..=TOP).contains(&memory.score));
                    }
                }
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Saved::decode(&bytes).is_err());
            let _ = Saved::decode(&sealed(&bytes));
        }
    }
}
