//! Undo data: the coins that a block spent, so that it can be disconnected.
//!
//! | bytes | content |
//! | --- | --- |
//! | varint | number of coins |
//! | for each input of each transaction but the coinbase, in the block's order: | |
//! | varint | bytes of the coin |
//! | rest | the coin as in the store ([`Coin::encode`]): height, coinbase, amount, script |
//!
//! Varints are those of [`crate::store::coin`]. A checksum is the block files' matter. Core keeps the same
//! facts in `CBlockUndo` (`undo.h`).

use crate::store::coin::{Coin, put_varint, take_varint};
use core::ops::Range;

/// The least bytes that a coin takes, its length included.
const LEAST: usize = 4;

/// Bytes of a coin in undo data, about.
const USUAL: usize = 32;

/// Writes the undo data of one block as it connects.
#[derive(Debug, Default)]
pub struct UndoWriter {
    bytes: Vec<u8>,
}

impl UndoWriter {
    /// For a block that spends so many coins: they have to follow, each with [`Self::push`].
    pub fn new(coins: usize) -> Self {
        let mut bytes = Vec::with_capacity(coins * USUAL + 9);
        put_varint(&mut bytes, coins as u64);
        Self { bytes }
    }

    /// Appends the coin that the next input spends, in its compact form; answers where in the data it lies.
    pub fn push(&mut self, coin: &[u8]) -> Range<usize> {
        put_varint(&mut self.bytes, coin.len() as u64);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(coin);
        start..self.bytes.len()
    }

    /// The data so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The serialised undo data.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads undo data: the coins in the order of the inputs. `None` if the bytes are not what
/// [`UndoWriter`] writes.
pub fn decode(mut bytes: &[u8]) -> Option<Vec<Coin>> {
    let count = usize::try_from(take_varint(&mut bytes)?).ok()?;
    // A wrong count allocates no more than the bytes justify.
    if count > bytes.len() / LEAST {
        return None;
    }
    let mut coins = Vec::with_capacity(count);
    for _ in 0..count {
        let length = usize::try_from(take_varint(&mut bytes)?).ok()?;
        coins.push(Coin::decode(bytes.split_off(..length)?)?);
    }
    bytes.is_empty().then_some(coins)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::{Amount, ScriptBuf, TxOut};
    use proptest::prelude::*;

    fn written(coins: &[Coin]) -> Vec<u8> {
        let mut writer = UndoWriter::new(coins.len());
        for coin in coins {
            let at = writer.push(&coin.encode());
            assert_eq!(writer.bytes()[at], coin.encode());
        }
        writer.finish()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            coins in prop::collection::vec(
                (0u32..1 << 31, any::<bool>(), 0..=Amount::MAX_MONEY.to_sat(), prop::collection::vec(any::<u8>(), 0..200)),
                0..20,
            ),
            cut in any::<prop::sample::Index>(),
        ) {
            let coins: Vec<Coin> = coins
                .into_iter()
                .map(|(height, coinbase, value, script)| Coin {
                    height,
                    coinbase,
                    output: TxOut {
                        value: Amount::from_sat(value),
                        script_pubkey: ScriptBuf::from_bytes(script),
                    },
                })
                .collect();
            let bytes = written(&coins);
            prop_assert_eq!(decode(&bytes), Some(coins));
            prop_assert_eq!(decode(&bytes[..cut.index(bytes.len())]), None);
            let longer = [&bytes[..], &[0]].concat();
            prop_assert_eq!(decode(&longer), None);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(coins) = decode(&bytes) {
                prop_assert_eq!(decode(&written(&coins)), Some(coins));
            }
        }
    }
}
