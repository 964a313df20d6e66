//! Which chain is fetched, whose fault a bad body is, and what happens to bodies nobody asked for.

use super::*;

#[test]
fn nothing_is_asked_of_a_chain_below_the_minimum_work() {
    let mut world = World::with_params(forged::params(200), 150, 1_000, config());
    let a = world.join(1, 1_000_000);
    world.run(5.0);
    assert!(world.asked.is_empty());
    let more = forged::chain(&world.params, &world.tree.header(world.tree.best_header()), 100, 0);
    world.learn(&more, 1_000);
    let best = forged::insert(&mut world.tree, &more);
    world.with(|scheduler, cx, tree| {
        scheduler.on_headers(cx, tree);
        scheduler.on_peer_has(cx, tree, a, best);
    });
    world.sync(60).expect("synced");
    assert_eq!(world.height(), 250);
}

#[test]
fn a_mutated_body_is_the_senders_fault_and_is_asked_of_another() {
    let mut world = World::new(1, 1_000, config());
    let a = world.join(1, 1_000_000);
    let b = world.join(2, 1_000_000);
    let id = world.at(1);
    let body = world.body(&world.tree.hash(id));
    world.with(|scheduler, cx, tree| scheduler.on_block(cx, tree, a, body));
    let block = world.to_store.pop_front().expect("to be stored");
    assert_eq!(world.scheduler.reserved(), 1_000);
    let reject = crate::error::Reject::new(crate::error::RejectKind::Mutated, "bad-txnmrklroot");
    let report = ChainReport::Refused { block, reject };
    world.with(|scheduler, cx, tree| scheduler.on_report(cx, tree, &report));
    let fault = Fault::Block { hash: block.hash, reason: "bad-txnmrklroot" };
    assert_eq!(world.closed, [(1, CloseReason::Fault(fault))]);
    assert_eq!(world.scheduler.in_flight(Some(b)), 1);
    world.sync(10).expect("synced");
}

/// Story: a body that nobody asked this peer for, however false, cancelled the requests of that block to all
/// others, so that one connection could take a whole window away from them.
#[test]
fn what_others_were_asked_for_is_not_taken_from_a_stranger() {
    let mut world = World::new(20, 1_000_000, config());
    let a = world.join(1, 1_000_000);
    let mut view = forged::view(2, 0);
    view.best_known = None;
    let stranger = world.join_as(view, 1_000_000);
    world.run(0.1);
    let owed = world.scheduler.in_flight(Some(a));
    assert!(owed > 4);
    for height in 1..=4 {
        let header = bitcoin::consensus::serialize(&world.tree.header(world.at(height)));
        let body = RawBlock::new(header).expect("a header's length");
        world.with(|scheduler, cx, tree| scheduler.on_block(cx, tree, stranger, body));
    }
    assert_eq!(world.scheduler.in_flight(Some(a)), owed);
    assert!(world.to_store.is_empty());
    world.sync(60).expect("synced");
}

#[test]
fn an_invalid_block_is_its_senders_fault_and_its_chain_is_left() {
    let mut world = World::new(50, 1_000, config());
    world.connecting = false;
    world.join(1, 1_000_000);
    world.run(3.0);
    assert_eq!(world.stored.len(), 50);
    let bad = world.at(10);
    world.tree.mark_invalid(bad);
    let block = world.tree.block(bad);
    let reject = crate::error::Reject::consensus("bad-cb-amount");
    let report = ChainReport::Invalid { block, reject };
    world.with(|scheduler, cx, tree| scheduler.on_report(cx, tree, &report));
    let fault = Fault::Block { hash: block.hash, reason: "bad-cb-amount" };
    assert_eq!(world.closed, [(1, CloseReason::Fault(fault))]);
    assert_eq!(world.scheduler.window.end(), 9);
}

#[test]
fn refusals_that_are_not_the_senders_doing_blame_nobody() {
    let mut world = World::new(1, 1_000, config());
    let a = world.join(1, 1_000_000);
    let body = world.body(&world.tree.hash(world.at(1)));
    world.with(|scheduler, cx, tree| scheduler.on_block(cx, tree, a, body));
    let block = world.to_store.pop_front().expect("to be stored");
    let reject = crate::error::Reject::new(crate::error::RejectKind::MissingParent, "prev-blk-not-found");
    let report = ChainReport::Refused { block, reject };
    world.with(|scheduler, cx, tree| scheduler.on_report(cx, tree, &report));
    assert!(world.closed.is_empty());
}

#[test]
fn a_body_that_was_lost_is_fetched_again() {
    let mut world = World::new(10, 1_000, config());
    world.connecting = false;
    world.join(1, 1_000_000);
    world.run(2.0);
    assert_eq!(world.stored.len(), 10);
    let id = world.at(4);
    world.tree.body_lost(id);
    let report = ChainReport::Dropped { block: world.tree.block(id), lost: true };
    world.with(|scheduler, cx, tree| scheduler.on_report(cx, tree, &report));
    world.connecting = true;
    world.sync(10).expect("synced");
    assert_eq!(world.stored.iter().filter(|&&height| height == 4).count(), 2);
}

/// The bug: a stored block that was damaged and had to be undone was never asked for, since it lies below the
/// window and counts as stored.
#[test]
fn a_damaged_block_below_the_window_is_asked_of_one_peer_after_the_other() {
    let mut world = World::new(40, 1_000, config());
    let a = world.join(1, 1_000_000);
    let b = world.join(2, 500_000);
    world.sync(10).expect("synced");
    let id = world.at(30);
    let report = ChainReport::Missing(world.tree.block(id));
    let asked = world.asked.len();
    for peer in [a, b] {
        world.peer(peer).lacks_all = true;
    }
    world.with(|scheduler, cx, tree| scheduler.on_report(cx, tree, &report));
    world.run(5.0);
    let by = |world: &World| -> Vec<(u64, u32)> {
        world.asked[asked..].iter().map(|&(_, peer, height)| (peer, height)).collect()
    };
    assert_eq!(by(&world).len(), 2, "each once, and then they are left alone: {:?}", by(&world));
    assert!(by(&world).contains(&(1, 30)) && by(&world).contains(&(2, 30)));
    // Whoever comes later is asked at once; its answer ends the search.
    world.join(3, 1_000_000);
    world.run(2.0);
    assert_eq!(by(&world).last(), Some(&(3, 30)));
    assert_eq!(world.stored.iter().filter(|&&height| height == 30).count(), 2);
    world.run(200.0);
    assert_eq!(by(&world).len(), 3);
    assert!(world.scheduler.again.is_empty() && world.closed.is_empty());
    assert_eq!((world.scheduler.in_flight(None), world.scheduler.reserved()), (0, 0));
}

/// The bug: with three silent peers on whose chain the block was, each was free to be asked again before anyone else's
/// turn came, and the reorg waited for ever.
#[test]
fn a_damaged_block_is_asked_of_all_in_turn_however_many_stay_silent() {
    let mut world = World::new(40, 1_000, config());
    let silent: Vec<PeerId> = (1..=4).map(|id| world.join(id, 1_000_000)).collect();
    world.sync(10).expect("synced");
    let mut view = forged::view(5, 0);
    view.best_known = Some(world.at(20));
    world.join_as(view, 1_000_000);
    for peer in silent {
        world.peer(peer).frozen = true;
    }
    let id = world.at(30);
    let fork = forged::chain(&world.params, &world.tree.header(world.at(20)), 30, 7);
    forged::insert(&mut world.tree, &fork);
    let report = ChainReport::Missing(world.tree.block(id));
    let asked = world.asked.len();
    world.with(|scheduler, cx, tree| scheduler.on_report(cx, tree, &report));
    world.run(5.0 * SEGMENT_TIMEOUT.as_secs_f64());
    let of = |world: &World| -> Vec<u64> {
        world.asked[asked..].iter().filter(|asked| asked.2 == 30).map(|asked| asked.1).collect()
    };
    assert_eq!(of(&world).last(), Some(&5), "{:?}", of(&world));
    assert_eq!(world.stored.iter().filter(|&&height| height == 30).count(), 2);
}

#[test]
fn blocks_nobody_asked_for_are_kept_near_the_tip_and_unknown_ones_ask_for_headers() {
    let mut world = World::new(600, 1_000, config());
    // A peer that is not known to have anything.
    let a = world.join_as(forged::view(1, 0), 1_000_000);
    assert!(world.asked.is_empty());
    let near = world.body(&world.tree.hash(world.at(288)));
    world.with(|scheduler, cx, tree| scheduler.on_block(cx, tree, a, near.clone()));
    world.with(|scheduler, cx, tree| scheduler.on_block(cx, tree, a, near));
    assert_eq!(world.to_store.len(), 1, "and only once");
    let unknown = forged::child(&world.params, &world.tree.header(world.at(3)), 9);
    let raw = RawBlock::new(bitcoin::consensus::serialize(&unknown)).expect("80 bytes");
    world.with(|scheduler, cx, tree| scheduler.on_block(cx, tree, a, raw));
    assert_eq!((world.fetches, world.to_store.len()), (1, 1));
    // A branch with less work than the tip is not worth a place.
    world.run(1.0);
    let b = world.join(2, 1_000_000);
    world.sync(60).expect("synced");
    let side = forged::child(&world.params, &world.tree.header(world.at(3)), 9);
    forged::insert(&mut world.tree, &[side]);
    world.learn(&[side], 1_000);
    let raw = world.body(&side.block_hash());
    world.with(|scheduler, cx, tree| scheduler.on_block(cx, tree, b, raw));
    assert!(world.to_store.is_empty());
    assert!(world.closed.is_empty());
}

#[test]
fn limited_peers_are_asked_for_the_last_286_blocks_only() {
    let mut world = World::new(500, 1_000, config());
    let mut view = forged::view(1, 0);
    view.services = ServiceFlags::NETWORK_LIMITED | ServiceFlags::WITNESS;
    view.best_known = Some(world.tree.best_header());
    world.join_as(view, 1_000_000);
    world.run(5.0);
    let lowest = world.asked.iter().map(|asked| asked.2).min();
    assert_eq!(lowest, Some(500 - 285));
    assert_eq!(world.stored.len(), 286);
    // Without witnesses a peer is of no use at all.
    let mut view = forged::view(2, 0);
    view.services = ServiceFlags::NETWORK;
    view.best_known = Some(world.tree.best_header());
    world.join_as(view, 1_000_000);
    world.run(1.0);
    assert!(world.asked.iter().all(|asked| asked.1 == 1));
    world.join(3, 1_000_000);
    world.sync(60).expect("synced");
}

#[test]
fn a_peer_is_asked_only_for_blocks_of_its_own_chain() {
    let mut world = World::new(100, 1_000, config());
    let mut view = forged::view(1, 0);
    view.best_known = Some(world.at(40));
    let a = world.join_as(view, 1_000_000);
    world.run(3.0);
    assert_eq!(world.height(), 40);
    let best = world.tree.best_header();
    world.with(|scheduler, cx, tree| scheduler.on_peer_has(cx, tree, a, best));
    world.sync(60).expect("synced");
}

#[test]
fn a_new_block_is_fetched_from_its_announcer_at_once() {
    let mut world = World::new(100, 1_000, config());
    world.join(1, 1_000_000);
    world.join(2, 1_000_000);
    let c = world.join(3, 10_000);
    world.sync(60).expect("synced");
    let new = forged::child(&world.params, &world.tree.header(world.tip), 0);
    world.learn(&[new], 1_000);
    let id = forged::insert(&mut world.tree, &[new]);
    world.asked.clear();
    world.with(|scheduler, cx, tree| {
        scheduler.on_headers(cx, tree);
        scheduler.on_peer_has(cx, tree, c, id);
    });
    assert_eq!(world.asked, [(world.now, 3, 101)]);
    world.sync(5).expect("synced");
}

#[test]
fn a_peer_that_we_have_paused_has_no_stall_time_out() {
    let mut world = World::new(100, 20_000, config());
    let a = world.join(1, 100_000);
    let b = world.join(2, 100_000);
    world.run(0.5);
    world.peer(a).frozen = true;
    world.peer(b).frozen = true;
    world.with(|scheduler, cx, _| {
        scheduler.set_paused(cx, a, true);
        scheduler.set_paused(cx, b, true);
    });
    let owed = world.scheduler.in_flight(None);
    let asked = world.asked.len();
    world.run(1_500.0);
    assert_eq!((world.scheduler.in_flight(None), world.asked.len()), (owed, asked));
    assert!(world.closed.is_empty());
    world.peer(a).frozen = false;
    world.peer(b).frozen = false;
    world.with(|scheduler, cx, _| {
        scheduler.set_paused(cx, a, false);
        scheduler.set_paused(cx, b, false);
    });
    world.sync(60).expect("synced");
    assert!(world.closed.is_empty(), "{:?}", world.closed);
}

#[test]
fn after_a_reorganisation_the_window_follows_the_better_branch() {
    let mut world = World::new(200, 5_000, config());
    let a = world.join(1, 100_000);
    world.run(2.0);
    assert!(world.scheduler.in_flight(None) > 0 && world.height() < 150);
    let fork = world.tree.header(world.at(world.height() + 2));
    let branch = forged::chain(&world.params, &fork, 300, 5);
    world.learn(&branch, 5_000);
    let best = forged::insert(&mut world.tree, &branch);
    world.with(|scheduler, cx, tree| {
        scheduler.on_headers(cx, tree);
        scheduler.on_peer_has(cx, tree, a, best);
    });
    world.sync(120).expect("synced");
    assert_eq!(world.tip, best);
    world.run(40.0);
    assert_eq!(world.scheduler.in_flight(None), 0);
}

/// Story: a peer showed the headers of a chain with more work and kept its blocks back. The window followed
/// that chain alone, and the honest chain, which had blocks and peers, was never fetched.
#[test]
fn headers_without_blocks_do_not_keep_us_from_the_chain_that_has_blocks() {
    for lacks_all in [false, true] {
        let mut world = World::new(100, 5_000, config());
        let honest = world.tree.best_header();
        let empty = forged::chain(&world.params, &world.tree.header(world.at(10)), 300, 5);
        world.learn(&empty, 5_000);
        let best = forged::insert(&mut world.tree, &empty);
        let mut view = forged::view(1, 0);
        view.best_known = Some(honest);
        world.join_as(view, 1_000_000);
        for id in 2..6 {
            let hostile = world.join(id, 1_000_000);
            world.peer(hostile).frozen = !lacks_all;
            world.peer(hostile).lacks_all = lacks_all;
        }
        world.with(|scheduler, cx, tree| scheduler.on_headers(cx, tree));
        world.run(90.0);
        assert_eq!(world.stored.len(), 100, "stored {:?}", world.stored.len());
        assert!(world.tree.is_complete(honest));
        // At the end of that chain nothing better is to be had.
        for height in 11..=100 {
            assert!(!world.scheduler.is_at_end(&world.tree));
            let id = world.tree.ancestor(honest, height).expect("on the chain");
            world.with(|scheduler, cx, tree| scheduler.on_tip(cx, tree, id));
        }
        assert!(world.scheduler.is_at_end(&world.tree));
        let tip = world.tip;
        world.with(|scheduler, cx, tree| scheduler.on_tip(cx, tree, tip));
        // The block that was kept back is tried again now and then, not all the time.
        world.connecting = false;
        world.asked.clear();
        world.run(1_200.0);
        assert!(world.asked.len() < 10_000, "{}", world.asked.len());
        // Once blocks of the better chain are delivered they are fetched.
        world.connecting = true;
        world.join(9, 1_000_000);
        world.sync(1_200).expect("synced");
        assert_eq!(world.tip, best);
    }
}

/// Story: a peer that sent a few bytes a second and never a block was never silent. It was asked for sixteen
/// blocks again and again, and each of them was waited for until a second peer was asked.
#[test]
fn a_peer_that_is_alive_and_never_delivers_holds_one_block_at_a_time() {
    let mut world = World::new(2_000, 5_000, config());
    let first = world.tree.hash(world.at(1));
    let hostile = world.join(1, 4_000);
    world.peer(hostile).trickles = Some(first);
    world.join(2, 1_000_000);
    world.sync(120).expect("synced");
    let begun = world.asked.iter().filter(|(_, peer, height)| *peer == 1 && *height <= 16).count();
    let asked = world.asked.iter().filter(|(_, peer, _)| *peer == 1).count();
    assert_eq!(begun, 16);
    assert!(asked < 60, "{asked} blocks asked of a peer that delivers none");
}

#[test]
fn blocks_stored_by_an_earlier_run_are_not_asked_for() {
    let mut world = World::new(100, 1_000, config());
    for height in (1..=100).filter(|height| height % 3 == 0) {
        let id = world.at(height);
        world.tree.body_stored(id);
    }
    world.scheduler = BlockScheduler::new(config(), &world.tree, world.tip);
    world.join(1, 1_000_000);
    world.sync(60).expect("synced");
    assert!(world.asked.iter().all(|asked| asked.2 % 3 != 0));
}

/// Peers of random speed join, leave, freeze, wake, lack blocks and are paused while the chain grows and
/// forks; the invariants of [`World::check`] hold throughout, and in the end everything is synced.
#[test]
fn random_peers_and_forks_always_end_synced() {
    for seed in 0..12 {
        let mut random = Rng::from_number(seed);
        let mut world = World::new(300, 3_000, SchedulerConfig { window: 128, reserved_bytes: 400_000 });
        let mut next_peer = 1;
        for round in 0..120 {
            let ids: Vec<PeerId> = world.peers.keys().copied().collect();
            let some = ids.get(random.below(ids.len() as u64) as usize).copied();
            match (random.below(9), some) {
                (0 | 1, _) if ids.len() < 6 => {
                    world.join(next_peer, 2_000 + random.below(200_000));
                    next_peer += 1;
                }
                (2, Some(peer)) => world.leave(peer),
                (3, Some(peer)) => world.peer(peer).frozen ^= true,
                (4, Some(peer)) => world.peer(peer).lacks_all ^= true,
                (5, Some(peer)) => {
                    let pause = random.below(2) == 0;
                    world.with(|scheduler, cx, _| scheduler.set_paused(cx, peer, pause));
                }
                (6, Some(peer)) => {
                    // The branch starts above the proved tip: the simulated chainstate cannot disconnect.
                    let (low, high) = (world.height(), world.tree.height(world.tree.best_header()));
                    let fork = low + random.below(u64::from(high - low) + 1) as u32;
                    let from = world.tree.header(world.at(fork));
                    let blocks = (high - fork) as usize + 1 + random.below(20) as usize;
                    let branch = forged::chain(&world.params, &from, blocks, round as u8 + 1);
                    world.learn(&branch, 500 + random.below(9_000));
                    let best = forged::insert(&mut world.tree, &branch);
                    world.with(|scheduler, cx, tree| {
                        scheduler.on_headers(cx, tree);
                        scheduler.on_peer_has(cx, tree, peer, best);
                    });
                }
                _ => {}
            }
            world.run(random.below(3_000) as f64 / 1_000.0);
        }
        world.join(next_peer, 100_000);
        let took = world.sync(600);
        assert!(took.is_some(), "seed {seed}: stuck at {} of {}", world.height(), world.tree.len());
        assert!(
            world.closed.iter().all(|(_, reason)| !matches!(reason, CloseReason::Fault(_))),
            "seed {seed}: {:?}",
            world.closed
        );
    }
}
