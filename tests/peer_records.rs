//! What a node keeps of its peers in the data directory besides their addresses: the scores and the audit log.
#![cfg(all(feature = "native", feature = "consensus"))]

mod world;

use bitcoin::Amount;
use headlong::sim::loopback::LoopbackPeer;
use headlong::sim::serve::ServedChain;
use headlong::{CloseReason, Fault, PeerAddress};
use parking_lot::RwLock;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use world::{Running, World, wait};

/// A node in this folder with the world's peer and another.
fn start(world: &World, folder: &Path, second: SocketAddr) -> Running {
    Running::start(world.builder().connect(second).datadir(folder).build().unwrap())
}

/// The stability of a peer that is connected.
fn stability(node: &Running, peer: SocketAddr) -> Option<f64> {
    let peers = node.handle.peers_blocking().unwrap();
    let peer = peers.into_iter().find(|status| status.address == PeerAddress::Ip(peer))?;
    peer.score.map(|score| score.features.stability)
}

#[test]
fn the_next_run_knows_who_left_and_damaged_scores_are_set_aside() {
    let world = World::new(130);
    let folder = tempfile::tempdir().unwrap();
    let second = LoopbackPeer::start(world.chain.clone(), world.params.magic).unwrap();
    let (first, address) = (world.peer.address(), second.address());
    let node = start(&world, folder.path(), address);
    node.wait_for(world.tip());
    wait("both are there", || stability(&node, first).is_some() && stability(&node, address).is_some());
    assert!((0.49..0.51).contains(&stability(&node, address).unwrap()));
    drop(second);
    wait("one has left", || stability(&node, address).is_none());
    node.stop();

    let second = LoopbackPeer::start_at(address, world.chain.clone(), world.params.magic).unwrap();
    let node = start(&world, folder.path(), address);
    wait("it is there again", || stability(&node, address).is_some());
    assert!((0.36..0.39).contains(&stability(&node, address).unwrap()), "an eighth less");
    wait("the other too", || stability(&node, first).is_some());
    assert!((0.49..0.51).contains(&stability(&node, first).unwrap()), "it was not the first that ended it");
    node.stop();

    let file = folder.path().join("scores.dat");
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let node = start(&world, folder.path(), address);
    assert_eq!(std::fs::read(folder.path().join("scores.dat.damaged")).unwrap(), bytes);
    wait("it is there once more", || stability(&node, address).is_some());
    assert!((0.49..0.51).contains(&stability(&node, address).unwrap()), "nothing is known of it");
    node.stop();
    drop(second);
}

#[test]
fn whoever_sends_false_blocks_is_in_the_audit_log_with_the_evidence_and_who_does_not_is_not() {
    let world = World::new(130);
    let mut chain = ServedChain::new(&world.params.genesis);
    let mut blocks = world.blocks.clone();
    for block in &mut blocks {
        block.txdata[0].output[0].value += Amount::ONE_SAT;
    }
    chain.extend(&blocks);
    let false_one = LoopbackPeer::start(Arc::new(RwLock::new(chain)), world.params.magic).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let node = start(&world, folder.path(), false_one.address());
    wait("the false one is noticed", || !node.handle.audit_blocking().unwrap().is_empty());
    let records = node.handle.audit_blocking().unwrap();
    for record in &records {
        assert_eq!(record.address, PeerAddress::Ip(false_one.address()));
        let CloseReason::Fault(Fault::Block { hash, .. }) = &record.reason else { panic!("{record}") };
        assert!(world.blocks.iter().any(|block| block.block_hash() == *hash), "{record}");
    }
    node.wait_for(world.tip());
    node.stop();
    let log = std::fs::read_to_string(folder.path().join("audit.log")).unwrap();
    assert!(log.lines().count() >= records.len());
    for record in &records {
        assert!(log.lines().any(|line| line == record.to_string()), "{record}\n{log}");
    }
    let honest = world.peer.address().to_string();
    assert!(!log.contains(&honest), "{log}");
}
