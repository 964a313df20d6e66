//! headlong against a real bitcoind in regtest, which serves blocks that the tests forge and sign.
//!
//! Each case ends by comparing the tips, and where coins matter both hashes of the set of coins.

#![cfg(all(unix, feature = "native", feature = "sled", feature = "consensus"))]

mod bitcoind;
#[cfg(target_os = "linux")]
mod nat;
mod proxy;
#[cfg(feature = "http")]
mod rest;
mod serving;

use bitcoin::{Block, ScriptBuf};
use bitcoind::{Bitcoind, available};
use headlong::sim::forge::{BlockPlan, Branch, Forge};
use headlong::{Builder, Event, Handle, MemoryStore, Network, Params, PeerAddress};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// No case waits longer than this for anything.
const PATIENCE: Duration = Duration::from_secs(120);

/// A forge and a branch that ends about now after so many blocks. (A bitcoind whose tip is a day old thinks
/// that it is still syncing, and announces nothing.)
fn forge(seed: u64, blocks: u32) -> (Forge, Branch) {
    let forge = Forge::new(Arc::new(Params::new(Network::Regtest)), seed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as u32;
    let branch = forge.genesis(Some(now - 600 * (blocks + 2)));
    (forge, branch)
}

fn extend(forge: &mut Forge, branch: &mut Branch, blocks: u32, inputs: usize) -> Vec<Block> {
    (0..blocks).map(|_| forge.extend(branch, BlockPlan { inputs, growth: inputs / 2 + 2 })).collect()
}

/// A running headlong.
struct Sync {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Sync {
    fn start(folder: Option<&Path>, nodes: &[&Bitcoind]) -> Self {
        Self::start_on(Params::new(Network::Regtest), folder, nodes)
    }

    fn start_on(params: Params, folder: Option<&Path>, nodes: &[&Bitcoind]) -> Self {
        let mut builder = Builder::with_params(params).threads(2);
        builder = match folder {
            Some(folder) => builder.datadir(folder),
            None => builder.store(MemoryStore::new()),
        };
        for node in nodes {
            builder = builder.connect(PeerAddress::Ip(node.p2p()));
        }
        Self::run(builder)
    }

    fn run(builder: Builder) -> Self {
        let (node, handle) = builder.build().expect("a node");
        let thread = std::thread::spawn(move || {
            node.run_blocking().expect("the node runs");
        });
        Self { handle, thread: Some(thread) }
    }

    /// Waits until the durable tip is this block.
    fn reach(&self, hash: &str) {
        let begun = Instant::now();
        loop {
            let status = self.handle.status();
            if status.durable.hash.to_string() == hash {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "did not reach {hash}: {status:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn wait_for_height(&self, height: u32) {
        self.handle.clone().with_timeout(PATIENCE).wait_for_height_blocking(height).expect("progress");
    }

    fn assert_same_coins(&self, node: &Bitcoind) {
        let ours = self.handle.utxo_stats_blocking().expect("stats");
        let theirs = node.coins();
        let muhash = ours.value.muhash.iter().rev().map(|byte| format!("{byte:02x}")).collect();
        let ours = (ours.value.hash_serialized_3.to_string(), muhash, ours.value.txouts);
        assert_eq!(ours, theirs);
    }

    fn stop(mut self) {
        self.handle.shutdown_blocking().expect("shutdown");
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic");
        }
    }
}

impl Drop for Sync {
    fn drop(&mut self) {
        if self.thread.is_some() {
            let _ = self.handle.clone().with_timeout(Duration::from_secs(10)).shutdown_blocking();
        }
    }
}

#[test]
fn syncs_every_output_type_and_resumes_after_a_restart() {
    if !available() {
        return;
    }
    let (mut forge, mut branch) = forge(1, 300);
    let node = Bitcoind::start(&[]);
    node.submit(&extend(&mut forge, &mut branch, 250, 12));
    let folder = tempfile::tempdir().expect("a folder");
    let sync = Sync::start(Some(folder.path()), &[&node]);
    sync.reach(&node.tip());
    sync.assert_same_coins(&node);
    sync.stop();

    node.submit(&extend(&mut forge, &mut branch, 50, 12));
    let sync = Sync::start(Some(folder.path()), &[&node]);
    assert!(sync.handle.status().durable.height >= 250, "nothing is synced twice");
    sync.reach(&node.tip());
    sync.assert_same_coins(&node);
    sync.stop();
}

#[test]
fn follows_new_blocks_one_by_one() {
    if !available() {
        return;
    }
    let (mut forge, mut branch) = forge(2, 120);
    let node = Bitcoind::start(&[]);
    node.submit(&extend(&mut forge, &mut branch, 110, 0));
    let sync = Sync::start(None, &[&node]);
    sync.reach(&node.tip());
    for _ in 0..10 {
        node.submit(&extend(&mut forge, &mut branch, 1, 8));
        sync.reach(&node.tip());
    }
    sync.assert_same_coins(&node);
    sync.stop();
}

fn reorg_of(depth: u32) {
    if !available() {
        return;
    }
    let (mut forge, mut branch) = forge(30 + u64::from(depth), 116 + depth);
    let node = Bitcoind::start(&[]);
    node.submit(&extend(&mut forge, &mut branch, 115, 6));
    let mut other = branch.clone();
    node.submit(&extend(&mut forge, &mut branch, depth, 6));
    let sync = Sync::start(None, &[&node]);
    sync.reach(&node.tip());
    let old = sync.handle.status().durable;

    node.submit(&extend(&mut forge, &mut other, depth + 1, 6));
    assert_eq!(node.tip(), other.tip.hash.to_string(), "bitcoind follows the longer branch");
    sync.reach(&node.tip());
    sync.assert_same_coins(&node);
    check_events(&sync.handle, old, depth);
    sync.stop();
}

/// A consumer that stood at the old tip gets `depth` undos, then the new branch.
fn check_events(handle: &Handle, old: headlong::BlockRef, depth: u32) {
    let mut events = handle.events(Some(old));
    let (mut undone, mut applied) = (0, 0);
    let mut at = old;
    while applied < depth + 1 {
        match events.next_blocking().expect("an event") {
            Event::Undo(block, header) => {
                assert_eq!(block, at);
                assert_eq!(applied, 0, "no undo after an apply");
                at = headlong::BlockRef { height: block.height - 1, hash: header.prev_blockhash };
                undone += 1;
            }
            Event::Apply(block, header) => {
                assert_eq!(header.prev_blockhash, at.hash);
                at = block;
                applied += 1;
            }
            _ => unreachable!("there are two kinds of events"),
        }
    }
    assert_eq!(undone, depth);
}

#[test]
fn reorg_of_1_block() {
    reorg_of(1);
}

#[test]
fn reorg_of_10_blocks() {
    reorg_of(10);
}

#[test]
fn reorg_of_120_blocks() {
    reorg_of(120);
}

/// Nodes that serve the same blocks.
fn nodes(count: usize, blocks: &[Block]) -> Vec<Bitcoind> {
    nodes_with(&[], count, blocks)
}

fn nodes_with(options: &[&str], count: usize, blocks: &[Block]) -> Vec<Bitcoind> {
    let nodes: Vec<Bitcoind> = (0..count).map(|_| Bitcoind::start(options)).collect();
    std::thread::scope(|scope| {
        for node in &nodes {
            scope.spawn(|| node.submit(blocks));
        }
    });
    nodes
}

#[test]
fn two_nodes_share_the_work() {
    if !available() {
        return;
    }
    let (mut forge, mut branch) = forge(4, 300);
    let nodes = nodes(2, &extend(&mut forge, &mut branch, 300, 10));
    let sync = Sync::start(None, &[&nodes[0], &nodes[1]]);
    sync.reach(&nodes[0].tip());
    sync.assert_same_coins(&nodes[0]);
    let peers = sync.handle.peers_blocking().expect("peers");
    let served = peers.iter().filter(|peer| peer.bytes_in > 20_000).count();
    assert_eq!(served, 2, "both gave blocks: {peers:?}");
    sync.stop();
}

#[test]
fn one_of_four_nodes_is_killed_midway() {
    if !available() {
        return;
    }
    let (mut forge, mut branch) = forge(5, 500);
    let mut nodes = nodes(4, &extend(&mut forge, &mut branch, 500, 16));
    let sync = Sync::start(None, &nodes.iter().collect::<Vec<_>>());
    sync.wait_for_height(60);
    nodes[1].kill();
    sync.reach(&nodes[0].tip());
    sync.assert_same_coins(&nodes[0]);
    sync.stop();
}

#[test]
fn a_frozen_node_does_not_stop_the_sync_and_nobody_honest_is_banned() {
    if !available() {
        return;
    }
    let (mut forge, mut branch) = forge(6, 500);
    let nodes = nodes(2, &extend(&mut forge, &mut branch, 500, 16));
    let sync = Sync::start(None, &[&nodes[0], &nodes[1]]);
    sync.wait_for_height(60);
    nodes[1].signal("STOP");
    sync.reach(&nodes[0].tip());
    sync.assert_same_coins(&nodes[0]);
    nodes[1].signal("CONT");
    // Whoever was held up is connected again: slowness is no misbehaviour.
    let begun = Instant::now();
    loop {
        let peers = sync.handle.peers_blocking().expect("peers");
        let ready = |address| peers.iter().any(|peer| peer.address == address && !peer.user_agent.is_empty());
        if nodes.iter().all(|node| ready(PeerAddress::Ip(node.p2p()))) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "a peer is missing: {peers:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    sync.stop();
}

/// The only connection of the node, as it sees it, is this one.
fn assert_same_session(node: &Bitcoind, transport: &str, ours: Option<[u8; 32]>) {
    let peers = node.call("getpeerinfo", json!([]));
    assert_eq!(peers[0]["transport_protocol_type"], transport, "{peers}");
    let ours = ours.map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    assert_eq!(peers[0]["session_id"].as_str().unwrap_or_default(), ours.unwrap_or_default(), "{peers}");
}

#[test]
fn servers_with_and_without_the_v2_transport() {
    if !available() {
        return;
    }
    let (mut forge, mut branch) = forge(7, 120);
    let blocks = extend(&mut forge, &mut branch, 120, 4);
    for (option, transport) in [("-v2transport=0", "v1"), ("-v2transport=1", "v2")] {
        let node = Bitcoind::start(&[option]);
        node.submit(&blocks);
        let sync = Sync::start(None, &[&node]);
        sync.reach(&node.tip());
        sync.assert_same_coins(&node);
        let peers = sync.handle.peers_blocking().unwrap();
        assert_same_session(&node, transport, peers[0].session);
        sync.stop();
    }
}

/// The simplest challenge is one that everything satisfies: bitcoind mines such a signet by itself, and its
/// blocks need no solution. Real solutions are in the vectors.
#[test]
fn a_signet_with_its_own_challenge() {
    if !available() {
        return;
    }
    let node = Bitcoind::start(&["-signet", "-signetchallenge=51"]);
    let address = "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx";
    node.call("generatetoaddress", json!([3, address, 100_000_000]));
    let params = Params::signet(ScriptBuf::from_bytes(vec![0x51]));
    let sync = Sync::start_on(params, None, &[&node]);
    sync.reach(&node.tip());
    sync.assert_same_coins(&node);
    sync.stop();
}
