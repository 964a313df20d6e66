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

/// The least bytes that a coin takes, its length included.
const LEAST: usize = 4;

/// Writes the undo data of one block as it connects.
#[derive(Debug, Default)]
pub struct UndoWriter {
    coins: u64,
    body: Vec<u8>,
    coin: Vec<u8>,
}

impl UndoWriter {
    /// Appends the coin that the next input spends.
    pub fn push(&mut self, coin: &Coin) {
        self.coins += 1;
        self.coin.clear();
        coin.encode_into(&mut self.coin);
        put_varint(&mut self.body, self.coin.len() as u64);
        self.body.extend_from_slice(&self.coin);
    }

    /// The serialised undo data.
    pub fn finish(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.body.len() + 9);
        put_varint(&mut out, self.coins);
        out.extend_from_slice(&self.body);
        out
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
            let mut writer = UndoWriter::default();
            coins.iter().for_each(|coin| writer.push(coin));
            let bytes = writer.finish();
            prop_assert_eq!(decode(&bytes), Some(coins));
            prop_assert_eq!(decode(&bytes[..cut.index(bytes.len())]), None);
            let longer = [&bytes[..], &[0]].concat();
            prop_assert_eq!(decode(&longer), None);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(coins) = decode(&bytes) {
                let mut writer = UndoWriter::default();
                coins.iter().for_each(|coin| writer.push(coin));
                prop_assert_eq!(decode(&writer.finish()), Some(coins));
            }
        }
    }
}
