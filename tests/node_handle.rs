//! The handle: every request in both forms, answers that say where they are true, and ends for all waits.
#![cfg(all(feature = "native", feature = "consensus", feature = "sled"))]

mod world;

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, OutPoint};
use core::time::Duration;
use headlong::sim::loopback::LoopbackPeer;
use headlong::{BlockRef, Event, PeerAddress, RequestError};
use world::{Running, World};

fn unknown() -> BlockHash {
    BlockHash::from_byte_array([0x77; 32])
}

#[test]
fn headers_and_blocks_by_hash_and_by_height() {
    let world = World::new(15);
    let node = Running::start(world.builder().build().unwrap());
    node.wait_for(world.tip());
    let handle = &node.handle;
    let block = world.at(7);
    let expected = BlockRef { height: 7, hash: block.block_hash() };
    let bytes = bitcoin::consensus::serialize(block);
    smol::block_on(async {
        let by_hash = handle.header(expected.hash).await.unwrap();
        assert_eq!(by_hash.tip, world.tip());
        let header = by_hash.value.unwrap();
        assert_eq!((header.block, header.header, header.active), (expected, block.header, true));
        assert_eq!(handle.header_at(7).await.unwrap(), by_hash);
        assert_eq!(handle.header_blocking(expected.hash).unwrap(), by_hash);
        assert_eq!(handle.header_at_blocking(7).unwrap(), by_hash);

        let stored = handle.block(expected.hash).await.unwrap();
        assert_eq!(stored.tip, world.tip());
        let info = stored.value.clone().unwrap();
        assert_eq!((info.block, info.active, &**info.raw.bytes()), (expected, true, &bytes));
        assert_eq!(handle.block_at(7).await.unwrap(), stored);
        assert_eq!(handle.block_blocking(expected.hash).unwrap(), stored);
        assert_eq!(handle.block_at_blocking(7).unwrap(), stored);
        assert_eq!(handle.tip().await.unwrap(), world.tip());
    });
    assert_eq!(handle.header_blocking(unknown()).unwrap().value, None);
    assert_eq!(handle.header_at_blocking(16).unwrap().value, None);
    assert_eq!(handle.block_blocking(unknown()).unwrap().value, None);
    assert_eq!(handle.header_at_blocking(0).unwrap().value.unwrap().block.hash, world.params.genesis_hash());
    node.stop();
}

#[test]
fn coins_and_the_hashes_of_all_coins() {
    let world = World::new(130);
    let node = Running::start(world.builder().build().unwrap());
    node.wait_for(world.tip());
    let coin = &world.branch.coins[0];
    let found = node.handle.coin_blocking(coin.outpoint).unwrap();
    assert_eq!(found.tip, world.tip());
    assert_eq!(found.value.unwrap().output, coin.output);
    assert_eq!(smol::block_on(node.handle.coin(coin.outpoint)).unwrap().value.unwrap().output, coin.output);
    let spent = world.blocks.iter().find_map(|block| block.txdata.get(1)).unwrap().input[0].previous_output;
    assert_eq!(node.handle.coin_blocking(spent).unwrap().value, None);
    assert_eq!(node.handle.coin_blocking(OutPoint::null()).unwrap().value, None);

    let stats = node.handle.utxo_stats_blocking().unwrap();
    assert_eq!(stats.tip, world.tip());
    assert_eq!(stats.value.txouts as usize, world.branch.coins.len() + world.branch.maturing.len());
    assert_eq!(smol::block_on(node.handle.utxo_stats()).unwrap(), stats);
    node.stop();
}

#[test]
fn peers_are_listed_added_and_removed() {
    let world = World::new(5);
    let node = Running::start(world.builder().build().unwrap());
    node.wait_for(world.tip());
    let handle = &node.handle;
    let peers = handle.peers_blocking().unwrap();
    assert_eq!(peers.len(), 1);
    assert_eq!(peers[0].address, PeerAddress::Ip(world.peer.address()));

    let second = LoopbackPeer::start(world.chain.clone(), world.params.magic).unwrap();
    handle.add_peer_blocking(second.address().into()).unwrap();
    let mut status = handle.status();
    while status.peers < 2 {
        status = handle.status_changed_blocking(status.version).unwrap();
    }
    assert_eq!(smol::block_on(handle.peers()).unwrap().len(), 2);
    handle.remove_peer_blocking(peers[0].id).unwrap();
    assert!(handle.peers_blocking().unwrap().iter().all(|peer| peer.id != peers[0].id));
    node.stop();
}

#[test]
fn a_block_is_invalidated_and_reconsidered() {
    let world = World::new(12);
    let node = Running::start(world.builder().build().unwrap());
    node.wait_for(world.tip());
    node.handle.invalidate_blocking(world.at(10).block_hash()).unwrap();
    node.wait_for(BlockRef { height: 9, hash: world.at(9).block_hash() });
    let stale = node.handle.header_blocking(world.at(11).block_hash()).unwrap();
    assert!(!stale.value.unwrap().active);
    assert_eq!(stale.tip.height, 9);
    node.handle.reconsider_blocking(world.at(10).block_hash()).unwrap();
    node.wait_for(world.tip());
    let error = node.handle.invalidate_blocking(unknown()).unwrap_err();
    assert!(matches!(error, RequestError::UnknownBlock(hash) if hash == unknown()));
    node.stop();
}

#[test]
fn events_come_in_pairs_across_a_reorg_from_any_cursor() {
    let mut world = World::new(20);
    let node = Running::start(world.builder().build().unwrap());
    let mut events = node.handle.events(None);
    // From the very beginning: each block after its parent.
    let mut applied = Vec::new();
    while events.cursor() != Some(world.tip()) {
        match events.next_blocking().unwrap() {
            Event::Apply(block, header) => {
                assert_eq!(applied.last().map(|b: &BlockRef| b.hash), parent(&header, block));
                applied.push(block);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(applied.len(), 21);
    assert_eq!(events.try_next_blocking().unwrap(), None);

    let old = world.tip();
    let fork = world.branch.clone();
    world.grow(2);
    node.wait_for(world.tip());
    world.reorganise(fork, 4);
    node.wait_for(world.tip());
    // The consumer that was at the fork point sees only what leads to the tip; or, if it looked in time,
    // the two blocks that were undone in between. Either way its own chain is the node's at the end.
    while events.cursor() != Some(world.tip()) {
        follow(&mut applied, smol::block_on(events.next()).unwrap());
    }
    assert_eq!(applied.last(), Some(&world.tip()));
    assert_eq!(applied.len(), 25);
    assert!(applied.contains(&old));

    // A consumer on the abandoned branch is led back first.
    let abandoned = events_on_branch(&node, &mut world);
    let mut events = node.handle.events(Some(abandoned));
    assert!(matches!(events.next_blocking().unwrap(), Event::Undo(block, _) if block == abandoned));
    while events.cursor() != Some(world.tip()) {
        events.next_blocking().unwrap();
    }
    let error = node.handle.events(Some(BlockRef { height: 3, hash: unknown() })).next_blocking();
    assert!(matches!(error, Err(RequestError::UnknownCursor)));
    node.stop();
}

/// Makes the tip an abandoned block and answers it.
fn events_on_branch(node: &Running, world: &mut World) -> BlockRef {
    let fork = world.branch.clone();
    world.grow(1);
    node.wait_for(world.tip());
    let abandoned = world.tip();
    world.reorganise(fork, 2);
    node.wait_for(world.tip());
    abandoned
}

fn parent(header: &bitcoin::block::Header, block: BlockRef) -> Option<BlockHash> {
    (block.height > 0).then_some(header.prev_blockhash)
}

fn follow(chain: &mut Vec<BlockRef>, event: Event) {
    match event {
        Event::Apply(block, header) => {
            assert_eq!(chain.last().unwrap().hash, header.prev_blockhash);
            chain.push(block);
        }
        Event::Undo(block, _) => assert_eq!(chain.pop(), Some(block)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn requests_end_although_nobody_runs_the_node() {
    let world = World::new(1);
    let (node, handle) = world.builder().build().unwrap();
    let hasty = handle.clone().with_timeout(Duration::from_millis(20));
    assert!(matches!(hasty.peers_blocking(), Err(RequestError::Timeout)));
    assert!(matches!(smol::block_on(hasty.peers()), Err(RequestError::Timeout)));
    assert!(matches!(hasty.coin_blocking(OutPoint::null()), Err(RequestError::Timeout)));
    assert!(matches!(hasty.wait_synced_blocking(), Err(RequestError::Timeout)));
    assert!(matches!(hasty.shutdown_blocking(), Err(RequestError::Timeout)));
    let waiting = std::thread::spawn({
        let handle = handle.clone();
        move || handle.peers_blocking()
    });
    std::thread::sleep(Duration::from_millis(50));
    drop(node);
    assert!(matches!(waiting.join().unwrap(), Err(RequestError::Stopped)));
    assert!(matches!(handle.tip_blocking(), Err(RequestError::Stopped)));
    assert!(matches!(handle.wait_synced_blocking(), Err(RequestError::Stopped)));
    assert!(matches!(handle.events(None).next_blocking(), Err(RequestError::Stopped)));
    assert!(matches!(handle.coin_blocking(OutPoint::null()), Err(RequestError::Stopped)));
    assert_eq!(handle.shutdown_blocking().unwrap().height, 0);
}

#[test]
fn a_queue_that_nobody_empties_is_bounded() {
    let world = World::new(1);
    let (_node, handle) = world.builder().build().unwrap();
    let handle = handle.with_timeout(Duration::from_nanos(1));
    let busy = (0..2 * headlong::limits::MAX_REQUESTS)
        .filter(|_| matches!(handle.peers_blocking(), Err(RequestError::Busy)))
        .count();
    assert!(busy >= headlong::limits::MAX_REQUESTS - 1, "{busy}");
}
