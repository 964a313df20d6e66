//! A sequence of states that only whole commits in order can produce, and how to tell which of them a store is
//! in. Commit `n` moves entries of all three tables; state `n` is what commits 1 to `n` leave behind.

use super::{Clause, Fault, ensure};
use crate::store::conformance::basics::all;
use crate::store::{Batch, Store, Table};

/// How many commits of the sequence go from one durable commit to the next.
pub(super) const DURABLE_EVERY: u32 = 7;
/// Most keys of one commit in each of two tables.
const WIDTH: usize = 60;
/// Where the state says its own number.
const NUMBER: &[u8] = b"n";

/// What becomes of the keys of earlier commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Growth {
    /// Each commit deletes those of the one before: the store stays small.
    Replace,
    /// They stay: the store grows.
    Pile,
}

/// Keys of commit `n` in each table, so many that four times as many changes fit the store's batches.
fn keys(store: &dyn Store, n: u32) -> impl Iterator<Item = Vec<u8>> + use<> {
    let width = (store.batch_limit().saturating_sub(1) / 4).clamp(1, WIDTH) as u32;
    (0..width).map(move |i| [n.wrapping_mul(0x9e37_79b9).to_be_bytes(), i.to_be_bytes()].concat())
}

fn value(n: u32) -> Vec<u8> {
    n.to_be_bytes().repeat(75)
}

/// The batch that leads from state `n - 1` to state `n`, from 1.
pub(super) fn batch(store: &dyn Store, n: u32, growth: Growth) -> Batch {
    let mut batch = Batch::new();
    for table in [Table::Coins, Table::Blocks] {
        if growth == Growth::Replace {
            keys(store, n - 1).for_each(|key| batch.delete(table, key));
        }
        keys(store, n).for_each(|key| batch.put(table, key, value(n)));
    }
    batch.put(Table::Meta, NUMBER, n.to_be_bytes());
    batch
}

/// Which state the store is in; a fault if it is in none.
pub(super) fn state(store: &dyn Store, growth: Growth) -> Result<u32, Fault> {
    let n = match store.get(Table::Meta, NUMBER)? {
        None => 0,
        Some(bytes) => match <[u8; 4]>::try_from(&bytes[..]) {
            Ok(bytes) => u32::from_be_bytes(bytes),
            Err(_) => return Err(Fault::new(Clause::Reads, format!("the number reads as {bytes:x?}"))),
        },
    };
    let first = if growth == Growth::Replace { n.max(1) } else { 1 };
    let mut expected: Vec<(Vec<u8>, Vec<u8>)> =
        (first..=n).flat_map(|n| keys(store, n).map(move |key| (key, value(n)))).collect();
    expected.sort();
    for table in [Table::Coins, Table::Blocks] {
        let found = all(store, table)?;
        let name = table.name();
        let differ = found.iter().zip(&expected).filter(|(a, b)| a != b).count();
        ensure!(
            found == expected,
            Atomic,
            "the number says commit {n}, but {name} holds {} entries of {}, {differ} of them others",
            found.len(),
            expected.len()
        );
    }
    Ok(n)
}
