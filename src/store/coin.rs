//! A coin (an unspent output with its origin) and its compact form.
//!
//! | bytes | content |
//! | --- | --- |
//! | varint | `height << 1 \| coinbase` |
//! | varint | amount in satoshi |
//! | 1 | form of the script, below |
//! | rest | the script's variable part |
//!
//! | form | script | variable part |
//! | --- | --- | --- |
//! | 0 | any | the script |
//! | 1 | P2PKH | 20-byte hash |
//! | 2 | P2SH | 20-byte hash |
//! | 3 | P2WPKH | 20-byte hash |
//! | 4 | P2WSH | 32-byte hash |
//! | 5 | P2TR | 32-byte key |
//!
//! A varint has 7 bits in each byte, the lowest first; the high bit says that more follow; only the
//! shortest form is accepted. Public keys are not compressed, since that costs a square root on reading.

use crate::limits::MAX_SCRIPT_SIZE;
use bitcoin::opcodes::all::{OP_CHECKSIG, OP_DUP, OP_EQUAL, OP_EQUALVERIFY, OP_HASH160, OP_PUSHNUM_1};
use bitcoin::{Amount, ScriptBuf, TxOut};

/// An unspent output, and where it was created.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Coin {
    /// Height of the block that created it.
    pub height: u32,
    /// Whether a coinbase transaction created it.
    pub coinbase: bool,
    /// Amount and script.
    pub output: TxOut,
}

/// Heads and tails of the standard scripts, in the order of their forms from 1, and the length between.
const TEMPLATES: [(&[u8], usize, &[u8]); 5] = [
    (&[OP_DUP.to_u8(), OP_HASH160.to_u8(), 20], 20, &[OP_EQUALVERIFY.to_u8(), OP_CHECKSIG.to_u8()]),
    (&[OP_HASH160.to_u8(), 20], 20, &[OP_EQUAL.to_u8()]),
    (&[0, 20], 20, &[]),
    (&[0, 32], 32, &[]),
    (&[OP_PUSHNUM_1.to_u8(), 32], 32, &[]),
];

impl Coin {
    /// Appends the compact form.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        pack(self.height, self.coinbase, &self.output, out);
    }

    /// The compact form.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 + self.output.script_pubkey.len());
        self.encode_into(&mut out);
        out
    }

    /// Reads what [`Self::encode`] wrote; `None` for anything else, amounts above 21 million bitcoins and scripts
    /// above 10,000 bytes included: nothing spends these (`MAX_SCRIPT_SIZE` in Core's script.h).
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let packed = Packed::read(bytes)?;
        let script_pubkey = ScriptBuf::from_bytes([packed.head, packed.fill, packed.tail].concat());
        let output = TxOut { value: packed.value, script_pubkey };
        Some(Self { height: packed.height, coinbase: packed.coinbase, output })
    }
}

/// Appends the compact form of a coin that has these parts.
pub(crate) fn pack(height: u32, coinbase: bool, output: &TxOut, out: &mut Vec<u8>) {
    put_varint(out, u64::from(height) << 1 | u64::from(coinbase));
    put_varint(out, output.value.to_sat());
    let script = output.script_pubkey.as_bytes();
    for (form, (head, len, tail)) in (1u8..).zip(TEMPLATES) {
        if script.len() == head.len() + len + tail.len() && script.starts_with(head) && script.ends_with(tail)
        {
            out.push(form);
            out.extend_from_slice(&script[head.len()..head.len() + len]);
            return;
        }
    }
    out.push(0);
    out.extend_from_slice(script);
}

/// A coin in its compact form, taken apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packed<'a> {
    /// Height of the block that created it.
    pub height: u32,
    coinbase: bool,
    value: Amount,
    /// The script in three parts.
    head: &'static [u8],
    fill: &'a [u8],
    tail: &'static [u8],
}

impl<'a> Packed<'a> {
    /// As [`Coin::decode`], without copying.
    pub fn read(mut bytes: &'a [u8]) -> Option<Self> {
        let origin = take_varint(&mut bytes)?;
        let height = u32::try_from(origin >> 1).ok()?;
        let value = Amount::from_sat(take_varint(&mut bytes)?);
        let (&form, fill) = bytes.split_first()?;
        if value > Amount::MAX_MONEY {
            return None;
        }
        let (head, len, tail) = match usize::from(form).checked_sub(1) {
            None if fill.len() > MAX_SCRIPT_SIZE => return None,
            None => (&[][..], fill.len(), &[][..]),
            Some(template) => *TEMPLATES.get(template)?,
        };
        let coinbase = origin & 1 == 1;
        (fill.len() == len).then_some(Self { height, coinbase, value, head, fill, tail })
    }
}

/// Appends a varint.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a varint from the front; `None` if it is cut, too long, or not the shortest.
pub(crate) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if part << shift >> shift != part || (byte == 0 && shift > 0) {
            return None;
        }
        value |= part << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scripts() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..80),
            (0..TEMPLATES.len(), any::<[u8; 32]>()).prop_map(|(i, fill)| {
                let (head, len, tail) = TEMPLATES[i];
                [head, &fill[..len], tail].concat()
            }),
        ]
    }

    proptest! {
        #[test]
        fn round_trip(height in 0u32.., coinbase: bool, sat in 0..=21_000_000 * 100_000_000u64, script in scripts()) {
            let output = TxOut { value: Amount::from_sat(sat), script_pubkey: ScriptBuf::from_bytes(script) };
            let coin = Coin { height, coinbase, output };
            prop_assert_eq!(Coin::decode(&coin.encode()), Some(coin));
        }

        #[test]
        fn any_bytes_decode_to_one_coin_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Some(coin) = Coin::decode(&bytes) {
                prop_assert_eq!(Coin::decode(&coin.encode()), Some(coin));
            }
        }

        #[test]
        fn varints(value: u64, bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(take_varint(&mut &out[..]), Some(value));
            let mut rest = &bytes[..];
            if let Some(value) = take_varint(&mut rest) {
                let mut again = Vec::new();
                put_varint(&mut again, value);
                prop_assert_eq!(&bytes[..bytes.len() - rest.len()], &again[..]);
            }
        }
    }

    #[test]
    fn standard_scripts_are_short() {
        let p2wpkh = [&[0u8, 20][..], &[7; 20]].concat();
        let output = TxOut { value: Amount::from_sat(1), script_pubkey: ScriptBuf::from_bytes(p2wpkh) };
        let coin = Coin { height: 1, coinbase: true, output };
        assert_eq!(coin.encode(), [&[3u8, 1, 3][..], &[7; 20]].concat());
    }

    #[test]
    fn damaged_values_are_refused() {
        for bad in [&[][..], &[0], &[0, 0], &[0x80, 0, 0, 0], &[0, 0, 9], &[0, 0, 1, 5]] {
            assert_eq!(Coin::decode(bad), None, "{bad:?}");
        }
        let mut over = vec![0];
        put_varint(&mut over, Amount::MAX_MONEY.to_sat() + 1);
        over.push(0);
        assert_eq!(Coin::decode(&over), None);
    }
}
