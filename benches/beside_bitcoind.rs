//! The `sync` example and a bitcoind side by side: both sync the same forged chain (2,000 blocks, about
//! 360,000 signed inputs of every output type) from the same serving bitcoind on loopback, in turn, every
//! script executed on both sides, and must end with the same set of coins.
//!
//! `cargo build --release --example sync && cargo bench --bench beside_bitcoind`
//!
//! The bitcoind is found as in the interop tests. `BLOCKS`, `INPUTS` and `ROUNDS` in the environment change
//! the size. The time of each is that of its process, from its start until the tip is connected (for headlong:
//! and durable).

#[path = "../tests/interop/bitcoind.rs"]
mod bitcoind;

use bitcoind::{Bitcoind, available};
use headlong::sim::forge::demo_chain;
use headlong::{Network, Params};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

fn number(name: &str, usual: u32) -> u32 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn main() {
    if !available() {
        return;
    }
    let (blocks, inputs, rounds) = (number("BLOCKS", 2_000), number("INPUTS", 360_000), number("ROUNDS", 3));
    let example = example();
    let params = Arc::new(Params::new(Network::Regtest));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as u32;
    let begun = Instant::now();
    let chain = demo_chain(&params, 7, blocks, inputs, now - 600 * (blocks + 2));
    let forged: usize = chain.iter().flat_map(|block| &block.txdata[1..]).map(|tx| tx.input.len()).sum();
    println!("forged {blocks} blocks with {forged} inputs in {:.1} s", begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    let server = Bitcoind::start(&["-par=2"]);
    server.submit(&chain);
    drop(chain);
    println!("the serving bitcoind took them in {:.1} s", begun.elapsed().as_secs_f64());
    let coins = server.coins();

    let mut ratios = Vec::new();
    for round in 1..=rounds {
        let ours = headlong(&example, &server, blocks, &coins);
        let theirs = other_bitcoind(&server, blocks, &coins);
        ratios.push(theirs / ours);
        println!("round {round}: headlong {ours:.2} s, bitcoind {theirs:.2} s, ratio {:.2}", theirs / ours);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio {:.2} (over 1: headlong is faster)", ratios[ratios.len() / 2]);
}

/// The built example, which lies beside this program's folder.
fn example() -> PathBuf {
    let own = std::env::current_exe().expect("a path");
    let path = own.ancestors().nth(2).expect("a target folder").join("examples/sync");
    assert!(path.is_file(), "build it first: cargo build --release --example sync");
    path
}

/// Seconds of a sync by the example.
fn headlong(example: &Path, server: &Bitcoind, blocks: u32, coins: &(String, String, u64)) -> f64 {
    let folder = tempfile::tempdir().expect("a folder");
    let begun = Instant::now();
    let mut child = Command::new(example)
        .args(["--network", "regtest", "--threads", "2", "--assumevalid", "none", "--utxo-hash"])
        .args(["--stop-at-height", &blocks.to_string(), "--connect", &server.p2p().to_string()])
        .arg("--datadir")
        .arg(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the example starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut line = || lines.next().expect("a line").expect("text");
    assert_eq!(line(), format!("reached {blocks} {}", server.tip()));
    let seconds = begun.elapsed().as_secs_f64();
    let stats: Value = serde_json::from_str(&line()).expect("the line of --utxo-hash");
    assert_eq!(stats["hash_serialized_3"], coins.0.as_str());
    assert_eq!(stats["muhash"], coins.1.as_str());
    assert!(child.wait().expect("it ends").success());
    seconds
}

/// Seconds of a sync by another bitcoind.
fn other_bitcoind(server: &Bitcoind, blocks: u32, coins: &(String, String, u64)) -> f64 {
    let begun = Instant::now();
    let connect = format!("-connect={}", server.p2p());
    let node = Bitcoind::start(&[&connect, "-par=2", "-dbcache=450", "-assumevalid=0", "-blocksonly"]);
    while node.call("getblockcount", json!([])) != blocks {
        std::thread::sleep(Duration::from_millis(20));
    }
    let seconds = begun.elapsed().as_secs_f64();
    assert_eq!(&node.coins(), coins);
    seconds
}
