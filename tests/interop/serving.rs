//! A bitcoind that has nobody but headlong.

use super::{PATIENCE, Sync, extend, forge};
use crate::bitcoind::{Bitcoind, available};
use headlong::{Builder, ConnectionKind, MemoryStore, Network, PeerAddress};
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

fn wait_for_tip(node: &Bitcoind, hash: &str) {
    let begun = Instant::now();
    while node.tip() != hash {
        assert!(
            begun.elapsed() < PATIENCE,
            "bitcoind did not reach {hash}: {}",
            node.call("getpeerinfo", json!([]))
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn listening(sync: &Sync) -> SocketAddr {
    let begun = Instant::now();
    loop {
        if let Some(address) = sync.handle.listening().first() {
            return *address;
        }
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn serving(source: &Bitcoind) -> Sync {
    let builder = Builder::new(Network::Regtest).threads(2).store(MemoryStore::new());
    let builder = builder.connect(PeerAddress::Ip(source.p2p())).listen((Ipv4Addr::LOCALHOST, 0).into());
    Sync::run(builder)
}

#[test]
fn a_bitcoind_that_speaks_v1_syncs_from_headlong() {
    if !available() {
        return;
    }
    let (mut forge, mut branch) = forge(32, 120);
    let source = Bitcoind::start(&[]);
    source.submit(&extend(&mut forge, &mut branch, 30, 4));
    let sync = serving(&source);
    sync.reach(&source.tip());
    let pupil = Bitcoind::start(&[&format!("-connect={}", listening(&sync)), "-v2transport=0"]);
    wait_for_tip(&pupil, &source.tip());
    super::assert_same_session(&pupil, "v1", None);
    let inbound = sync.handle.peers_blocking().unwrap();
    let visitor = inbound.iter().find(|peer| peer.kind == ConnectionKind::Inbound).unwrap();
    assert_eq!(visitor.session, None);
    sync.stop();
}

#[test]
fn a_bitcoind_syncs_from_headlong_alone_and_follows_its_tip() {
    if !available() {
        return;
    }
    let (mut forge, mut branch) = forge(31, 320);
    let source = Bitcoind::start(&[]);
    source.submit(&extend(&mut forge, &mut branch, 300, 8));
    let sync = serving(&source);
    sync.reach(&source.tip());
    let address = listening(&sync);
    let pupil = Bitcoind::start(&[&format!("-connect={address}"), "-assumevalid=0"]);
    wait_for_tip(&pupil, &source.tip());
    assert_eq!(pupil.coins(), source.coins());
    let inbound = sync.handle.peers_blocking().unwrap();
    let visitor = inbound.iter().find(|peer| peer.kind == ConnectionKind::Inbound).unwrap();
    super::assert_same_session(&pupil, "v2", visitor.session);
    let peers = pupil.call("getpeerinfo", json!([]));
    assert!(peers[0]["subver"].as_str().is_some_and(|name| name.contains("headlong")), "{peers}");

    // A second headlong from the first.
    let builder = Builder::new(Network::Regtest).threads(2).store(MemoryStore::new());
    let second = Sync::run(builder.connect(PeerAddress::Ip(address)));
    second.reach(&source.tip());
    second.assert_same_coins(&source);

    // New blocks, one by one, and a reorg.
    let mut fork = branch.clone();
    for _ in 0..3 {
        source.submit(&extend(&mut forge, &mut branch, 1, 4));
        wait_for_tip(&pupil, &source.tip());
    }
    source.submit(&extend(&mut forge, &mut fork, 5, 4));
    assert_eq!(source.tip(), fork.tip.hash.to_string());
    wait_for_tip(&pupil, &source.tip());
    second.reach(&source.tip());
    assert_eq!(pupil.coins(), source.coins());
    second.stop();
    sync.stop();
}
