//! Ways to lay coins out in the embedded stores, side by side: `cargo bench --bench layouts`.
//!
//! | layout | what it is |
//! | --- | --- |
//! | `sled-keys` | sled, a key per outpoint, a transaction per commit |
//! | `sled-pages` | [`SledStore`]: sled, coins in pages of 4 kB |
//! | `fjall-keys` | [`FjallStore`]: fjall, a key per outpoint |
//! | `fjall-pages` | fjall, coins in the same pages |
//!
//! The load is that of a sync whose coins cache is small: 3,000 coins are made and 2,000 random ones spent at a time,
//! those looked up in the order of their keys; changes are collected and written in that order, in commits as large as
//! the layout likes, the last of them durable. Every value that is read is compared.
//!
//! COINS is how many are made in all (3,000,000), FLUSH how many changes are collected (200,000), CACHE the MiB that the
//! store gets (16). Arguments choose layouts. Each runs in a process of its own, so that its memory can be told.

#[path = "../race/arguments.rs"]
mod arguments;
mod layout;
#[path = "../race/meter.rs"]
mod meter;

use arguments::{is_chosen, number};
use headlong::rng::Rng;
use layout::{Key, LAYOUTS, Layout};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const MADE: usize = 3_000;
const SPENT: usize = 2_000;
/// Outputs of a transaction.
const OUTPUTS: u64 = 3;

fn main() {
    if let Ok(name) = std::env::var("LAYOUT") {
        return alone(&name);
    }
    let program = std::env::current_exe().expect("a path");
    for (name, _) in LAYOUTS {
        if is_chosen(name) {
            let status = Command::new(&program).env("LAYOUT", name).status().expect("it starts");
            assert!(status.success(), "{name}");
        }
    }
}

/// The key of a coin by its number. Those of one transaction are neighbours.
fn key(coin: u64) -> Key {
    let mut key = [0; 36];
    key[..32].copy_from_slice(&Rng::from_number(coin / OUTPUTS).array::<32>());
    key[32..].copy_from_slice(&((coin % OUTPUTS) as u32).to_be_bytes());
    key
}

/// What is stored of a coin: as long as one that pays to a key hash, and told from all others.
fn value(coin: u64) -> Vec<u8> {
    [&coin.to_le_bytes()[..], &[7; 19]].concat()
}

/// How long things took.
#[derive(Default)]
struct Times {
    reading: Duration,
    writing: Duration,
    longest_commit: Duration,
}

fn alone(name: &str) {
    let Some((_, open)) = LAYOUTS.iter().find(|(other, _)| *other == name) else {
        panic!("no layout is called {name}");
    };
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let begun = Instant::now();
    let layout = open(folder.path(), (number::<u64>("CACHE", 16)) << 20);
    let live = run(&*layout, number("COINS", 3_000_000), number("FLUSH", 200_000));
    let figures = meter::figures(std::process::id(), begun.elapsed());
    let (times, left) = live;
    println!(
        "{name}: {figures}, {} MiB in files; reading {:.1} s, writing {:.1} s, longest commit {:.0?}; {left} coins left",
        size(folder.path()) >> 20,
        times.reading.as_secs_f64(),
        times.writing.as_secs_f64(),
        times.longest_commit,
    );
}

fn run(layout: &dyn Layout, coins: u64, flush_at: usize) -> (Times, usize) {
    let (mut times, mut rng) = (Times::default(), Rng::from_number(1));
    let mut live: Vec<u64> = Vec::new();
    let mut changes: BTreeMap<Key, Option<Vec<u8>>> = BTreeMap::new();
    let mut made = 0;
    while made < coins {
        let spendable = live.len().min(SPENT);
        let mut spent: Vec<(Key, u64)> = (0..spendable)
            .map(|_| live.swap_remove(rng.below(live.len() as u64) as usize))
            .map(|coin| (key(coin), coin))
            .collect();
        spent.sort_unstable();
        let wanted: Vec<&(Key, u64)> = spent.iter().filter(|(key, _)| !changes.contains_key(key)).collect();
        let keys: Vec<&[u8]> = wanted.iter().map(|(key, _)| &key[..]).collect();
        let start = Instant::now();
        let found = layout.get_many(&keys);
        times.reading += start.elapsed();
        for (found, (_, coin)) in found.into_iter().zip(wanted) {
            assert_eq!(found, Some(value(*coin)), "coin {coin}");
        }
        changes.extend(spent.into_iter().map(|(key, _)| (key, None)));
        for _ in 0..MADE {
            changes.insert(key(made), Some(value(made)));
            live.push(made);
            made += 1;
        }
        if changes.len() >= flush_at || made >= coins {
            write(layout, core::mem::take(&mut changes), &mut times);
        }
    }
    (times, live.len())
}

fn write(layout: &dyn Layout, changes: BTreeMap<Key, Option<Vec<u8>>>, times: &mut Times) {
    let changes: Vec<(Key, Option<Vec<u8>>)> = changes.into_iter().collect();
    let begun = Instant::now();
    let parts = changes.chunks(layout.commit_size());
    let last = parts.len() - 1;
    for (n, part) in parts.enumerate() {
        let start = Instant::now();
        layout.commit(part, n == last);
        times.longest_commit = times.longest_commit.max(start.elapsed());
    }
    times.writing += begun.elapsed();
}

/// Bytes of all files in a folder.
fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    entries
        .map(|entry| match entry.metadata().expect("metadata") {
            data if data.is_dir() => size(&entry.path()),
            data => data.len(),
        })
        .sum()
}
