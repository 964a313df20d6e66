//! CompactSize: Bitcoin's integer of one, three, five or nine bytes, and the reader that all payloads go
//! through.
//!
//! | first byte | value |
//! | --- | --- |
//! | 0 … 252 | itself |
//! | 253 | the next two bytes, little-endian |
//! | 254 | the next four |
//! | 255 | the next eight |
//!
//! As in Bitcoin Core (`serialize.h`, `ReadCompactSize`) only the smallest form of a number is accepted. A
//! number that counts something goes through [`Reader::count`], which refuses it before anything is
//! allocated: above its limit, or when the bytes that are left cannot hold so many items.

use bitcoin::consensus::Decodable;

/// Why bytes are not a CompactSize.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompactSizeError {
    /// The bytes end inside the number, which has this many bytes in all; more bytes may complete it.
    #[error("{0} bytes needed")]
    NeedMore(usize),
    /// A shorter form exists for this number; no further bytes can make it good.
    #[error("not the shortest form")]
    NonCanonical,
}

/// Bytes that `value` takes: 1, 3, 5 or 9.
pub const fn len(value: u64) -> usize {
    match value {
        0..=0xfc => 1,
        0xfd..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// Appends the smallest form of `value`.
pub fn encode(value: u64, out: &mut Vec<u8>) {
    let bytes = value.to_le_bytes();
    match len(value) {
        1 => out.push(bytes[0]),
        3 => {
            out.push(0xfd);
            out.extend_from_slice(&bytes[..2]);
        }
        5 => {
            out.push(0xfe);
            out.extend_from_slice(&bytes[..4]);
        }
        _ => {
            out.push(0xff);
            out.extend_from_slice(&bytes);
        }
    }
}

/// The number at the start of `bytes`, and how many bytes it takes.
///
/// # Errors
/// [`CompactSizeError::NeedMore`] if `bytes` end too early, [`CompactSizeError::NonCanonical`] if a shorter
/// form exists.
pub fn decode(bytes: &[u8]) -> Result<(u64, usize), CompactSizeError> {
    let size = match bytes.first() {
        None => return Err(CompactSizeError::NeedMore(1)),
        Some(&byte @ 0..=0xfc) => return Ok((u64::from(byte), 1)),
        Some(0xfd) => 3,
        Some(0xfe) => 5,
        Some(0xff) => 9,
    };
    let digits = bytes.get(1..size).ok_or(CompactSizeError::NeedMore(size))?;
    let value = digits.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    if len(value) == size { Ok((value, size)) } else { Err(CompactSizeError::NonCanonical) }
}

/// Why a payload is not what its command says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The bytes end too early.
    #[error("it ends too early")]
    Truncated,
    /// A CompactSize has a shorter form.
    #[error("a CompactSize is not in its shortest form")]
    NonCanonical,
    /// More items than the protocol allows.
    #[error("{count} items, at most {limit} are allowed")]
    TooMany {
        /// Items stated.
        count: u64,
        /// Items allowed.
        limit: usize,
    },
    /// A field has a value that it cannot have; the word says which.
    #[error("{0}")]
    Field(&'static str),
}

/// Reads a complete payload from front to back; whatever it refuses, it refuses before it allocates.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads these bytes.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The bytes not yet read.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether all bytes are read.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`ReadError::Truncated`].
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], ReadError> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(ReadError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// [`ReadError::Truncated`].
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(ReadError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`ReadError::Truncated`].
    pub fn u8(&mut self) -> Result<u8, ReadError> {
        self.array().map(|[byte]| byte)
    }

    /// Four bytes, little-endian.
    ///
    /// # Errors
    /// [`ReadError::Truncated`].
    pub fn u32(&mut self) -> Result<u32, ReadError> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes, little-endian.
    ///
    /// # Errors
    /// [`ReadError::Truncated`].
    pub fn u64(&mut self) -> Result<u64, ReadError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A CompactSize that is a plain number (service bits): any value.
    ///
    /// # Errors
    /// [`ReadError::Truncated`], [`ReadError::NonCanonical`].
    pub fn compact_size(&mut self) -> Result<u64, ReadError> {
        let (value, size) = decode(self.rest).map_err(|error| match error {
            CompactSizeError::NeedMore(_) => ReadError::Truncated,
            CompactSizeError::NonCanonical => ReadError::NonCanonical,
        })?;
        self.bytes(size)?;
        Ok(value)
    }

    /// A CompactSize that counts items of at least `least_size` bytes each, of which `limit` are allowed.
    /// A caller may allocate room for that many: the bytes for them are there.
    ///
    /// # Errors
    /// [`ReadError::TooMany`] above the limit; [`ReadError::Truncated`] if the bytes that are left cannot
    /// hold so many; [`ReadError::NonCanonical`].
    pub fn count(&mut self, limit: usize, least_size: usize) -> Result<usize, ReadError> {
        let count = self.compact_size()?;
        match usize::try_from(count) {
            Ok(count) if count <= limit => {
                let needed = count.checked_mul(least_size).ok_or(ReadError::Truncated)?;
                if needed <= self.rest.len() { Ok(count) } else { Err(ReadError::Truncated) }
            }
            _ => Err(ReadError::TooMany { count, limit }),
        }
    }

    /// A CompactSize count and so many items of at least `least_size` bytes, read by `item`.
    ///
    /// # Errors
    /// Those of [`Self::count`] and of `item`.
    pub fn list<T>(
        &mut self,
        limit: usize,
        least_size: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, ReadError>,
    ) -> Result<Vec<T>, ReadError> {
        let count = self.count(limit, least_size)?;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// A CompactSize length and so many bytes, at most `limit`.
    ///
    /// # Errors
    /// Those of [`Self::count`].
    pub fn var_bytes(&mut self, limit: usize) -> Result<&'a [u8], ReadError> {
        let length = self.count(limit, 1)?;
        self.bytes(length)
    }

    /// A value of fixed size in the consensus encoding. For types that hold lists check their counts first:
    /// some decoders allocate for a count before they have its items.
    ///
    /// # Errors
    /// [`ReadError::Truncated`] if the bytes end too early, [`ReadError::Field`] for all else.
    pub fn consensus<T: Decodable>(&mut self) -> Result<T, ReadError> {
        T::consensus_decode_from_finite_reader(&mut self.rest).map_err(|error| match error {
            bitcoin::consensus::encode::Error::Io(_) => ReadError::Truncated,
            bitcoin::consensus::encode::Error::NonMinimalVarInt => ReadError::NonCanonical,
            bitcoin::consensus::encode::Error::ParseFailed(what) => ReadError::Field(what),
            _ => ReadError::Field("a value out of range"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn edges_of_each_form() {
        let cases: [(u64, &[u8]); 7] = [
            (0, &[0]),
            (252, &[252]),
            (253, &[253, 253, 0]),
            (0xffff, &[253, 0xff, 0xff]),
            (0x1_0000, &[254, 0, 0, 1, 0]),
            (0xffff_ffff, &[254, 0xff, 0xff, 0xff, 0xff]),
            (0x1_0000_0000, &[255, 0, 0, 0, 0, 1, 0, 0, 0]),
        ];
        for (value, bytes) in cases {
            let mut out = Vec::new();
            encode(value, &mut out);
            assert_eq!(out, bytes);
            assert_eq!(decode(bytes), Ok((value, bytes.len())));
        }
        for long in [&[253, 252, 0][..], &[254, 0xff, 0xff, 0, 0], &[255, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]]
        {
            assert_eq!(decode(long), Err(CompactSizeError::NonCanonical));
            assert_eq!(Reader::new(long).compact_size(), Err(ReadError::NonCanonical));
        }
    }

    #[test]
    fn a_count_is_refused_before_anything_is_allocated() {
        let mut bytes = Vec::new();
        encode(1 << 63, &mut bytes);
        assert_eq!(
            Reader::new(&bytes).list(usize::MAX, 1, |r| r.u8()),
            if usize::BITS > 63 {
                Err(ReadError::Truncated)
            } else {
                Err(ReadError::TooMany { count: 1 << 63, limit: usize::MAX })
            }
        );
        assert_eq!(
            Reader::new(&bytes).list(50_000, 36, |r| r.u8()),
            Err(ReadError::TooMany { count: 1 << 63, limit: 50_000 })
        );
        // Two allowed, three stated; three allowed and stated, but two are there.
        assert_eq!(Reader::new(&[3, 1, 2, 3]).var_bytes(2), Err(ReadError::TooMany { count: 3, limit: 2 }));
        assert_eq!(Reader::new(&[3, 1, 2]).var_bytes(3), Err(ReadError::Truncated));
        assert_eq!(Reader::new(&[2, 1, 2, 9]).var_bytes(2), Ok(&[1, 2][..]));
    }

    proptest! {
        #[test]
        fn round_trip(value: u64, shift in 0u32..64, tail: Vec<u8>) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            encode(value, &mut bytes);
            prop_assert_eq!(bytes.len(), len(value));
            for cut in 0..bytes.len() {
                let whole = if cut == 0 { 1 } else { bytes.len() };
                prop_assert_eq!(decode(&bytes[..cut]), Err(CompactSizeError::NeedMore(whole)));
            }
            bytes.extend(tail);
            prop_assert_eq!(decode(&bytes), Ok((value, len(value))));
        }

        #[test]
        fn what_is_accepted_encodes_to_the_same_bytes(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            if let Ok((value, size)) = decode(&bytes) {
                let mut again = Vec::new();
                encode(value, &mut again);
                prop_assert_eq!(&again[..], &bytes[..size]);
            }
        }
    }
}
