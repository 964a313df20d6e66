//! Peers that deliver, and slowly: what they are asked for, and that nothing waits for them.

use super::*;

/// So many blocks of 400 kB, and a slow peer that comes two seconds after three fast ones; their speeds in bytes a second.
fn slow_beside_three(blocks: usize, fast: u64, slow: u64) -> (World, PeerId) {
    let mut world = World::new(blocks, 400_000, config());
    for id in 1..=3 {
        world.join(id, fast);
    }
    world.run(2.0);
    let slow = world.join(4, slow);
    (world, slow)
}

/// The first blocks of a chain are small: slow peers were asked for as many of the large ones behind them as of those, and
/// everything waited for them in the end, while the fast one had nothing to do.
#[test]
fn who_was_asked_for_much_while_blocks_were_small_is_relieved_when_they_are_large() {
    let mut world = World::new(200, 300, config());
    for height in 109..=200 {
        let hash = world.tree.hash(world.at(height));
        world.sizes.insert(hash, 73_000);
    }
    let slow = [2, 3, 4].map(|id| world.join(id, 125_000));
    world.run(0.5);
    assert_eq!(world.scheduler.in_flight(None), 200 - world.height() as usize, "all are asked of slow ones");
    world.join(1, 1_000_000);
    let start = world.now;
    world.sync(60).expect("synced");
    assert!(world.now - start < 8_000, "{} ms", world.now - start);
    assert!(slow.iter().all(|&peer| world.peer(peer).delivered > 5));
}

/// Two slow peers that owed the first block kept it from all others, who had nothing to do, since neither was silent. (In a
/// simulated world for ten minutes.)
#[test]
fn two_slow_peers_do_not_keep_the_next_block_from_a_fast_one() {
    let mut world = World::new(300, 400_000, config());
    let slow = [world.join(1, 4_000), world.join(2, 4_000)];
    // A block takes them 100 s, and one is asked of both.
    world.run(40.0);
    let first = world.at(1);
    assert!(slow.iter().all(|peer| world.scheduler.sources[peer].owes.contains(&first)));
    for id in 3..=5 {
        world.join(id, 4_000_000);
    }
    let start = world.now;
    world.sync(200).expect("synced");
    // 120 MB at 12 MB/s.
    assert!(world.now - start < 25_000, "{} ms", world.now - start);
    assert!(world.closed.is_empty(), "slowness is no fault");
    assert!(world.scheduler.flights.is_empty());
}

/// What a peer owes before its first block says nothing of what it can deliver: a slow one among fast ones held its whole
/// first share until then.
#[test]
fn a_slow_stranger_is_relieved_before_its_first_block_has_come() {
    let (mut world, slow) = slow_beside_three(600, 4_000_000, 8_000);
    assert_eq!(world.scheduler.in_flight(Some(slow)), 16);
    world.run(6.0);
    assert_eq!(world.peer(slow).delivered, 0);
    assert_eq!(world.scheduler.in_flight(Some(slow)), 2);
    world.sync(60).expect("synced");
    assert!(world.closed.is_empty());
}

/// Of a peer whose blocks were all taken away before they came nothing was measured, and what came too late was useless.
#[test]
fn what_comes_late_says_how_slow_a_peer_is_and_is_not_useless() {
    // A block takes it longer than a block that was taken away is remembered as lacking.
    let (mut world, slow) = slow_beside_three(3_000, 2_400_000, 5_000);
    world.run(150.0);
    assert_eq!(world.closed, []);
    assert_ne!(world.scheduler.speed(slow), 0, "it was measured");
    let score = world.scheduler.scores().get(slow).expect("it is connected");
    assert!(score.features.speed < 0.2 && score.features.useless == 0.0, "{score:?}");
}

/// The block that everything waits for was asked of a slow peer as well while the fast one that owed it sent one block after
/// the other: half of what slow peers brought was there already.
#[test]
fn slow_peers_are_not_asked_for_what_a_fast_one_is_about_to_send() {
    let mut world = World::new(2_000, 41_000, config());
    world.join(1, 1_000_000);
    (2..=4).for_each(|id| _ = world.join(id, 125_000));
    world.sync(100).expect("synced");
    // 82 MB at 1.375 MB/s are 59.6 s.
    assert!(world.now < 62_500, "{} ms", world.now);
    assert!(world.asked.len() < 2_100, "{} requests", world.asked.len());
}

/// Who sends the blocks behind it is not at work on the one that everything waits for.
#[test]
fn who_keeps_back_every_fourth_block_makes_no_sync_slower_than_without_it() {
    let mut world = World::new(2_000, 41_000, config());
    world.join(1, 1_000_000);
    for id in 2..=4 {
        let id = world.join(id, 1_000_000);
        world.peer(id).keeps_back = |height| height % 4 == 0;
    }
    world.sync(82).expect("as soon as from the honest peer alone");
}

/// A peer whose score wavered about a bound was relieved each time it fell below, and sent in vain what it had been asked for.
#[test]
fn a_low_score_takes_away_only_from_who_is_isolated() {
    let mut world = World::new(2_000, 41_000, config());
    (1..=3).for_each(|id| _ = world.join(id, 1_000_000));
    world.run(3.0);
    for (isolated, relieved) in [(false, 0), (true, 1)] {
        let source = world.scheduler.sources.get_mut(&PeerId(1)).expect("connected");
        assert!(source.owes.len() > 40);
        source.rank = Rank { part: 10, isolated, ..source.rank };
        world.scheduler.check_load(PeerId(1));
        assert_eq!(world.scheduler.overladen.len(), relieved);
    }
}

/// It was suspected two seconds later, and nothing was ever asked of it again: only bytes end a suspicion.
#[test]
fn who_has_delivered_what_it_owed_is_not_suspected_while_the_chainstate_is_busy() {
    let mut world = World::new(40, 20_000, SchedulerConfig { window: 8, ..config() });
    for id in 1..=2 {
        world.join(id, 100_000);
    }
    world.run(0.5);
    world.store_per_step = 0;
    world.run(20.0);
    let suspects = world.scheduler.sources.values().filter(|source| source.suspicion.is_some());
    assert_eq!(suspects.count(), 0);
    world.store_per_step = 10;
    world.sync(60).expect("synced");
}

/// Silent peers took the place of one that had lost a request, and it was never asked again.
#[test]
fn a_suspect_is_asked_again_while_nobody_else_delivers() {
    for silent in [1, 3, 7] {
        let mut world = World::new(40, 20_000, config());
        let honest = world.join(1, 100_000);
        world.run(1.0);
        for id in 2..2 + silent {
            let silent = world.join(id, 1_000_000);
            world.peer(silent).frozen = true;
        }
        world.peer(honest).queue.clear();
        let took = world.sync(300).expect("synced");
        // It is not asked again for a block that it failed to deliver within a minute.
        assert!(took < 200, "{took} s beside {silent}");
        assert!(world.closed.iter().all(|(peer, _)| *peer != honest.0), "{:?}", world.closed);
    }
}

/// Strangers have better scores than a peer that is slower than others were, and were asked before it, one after the other.
#[test]
fn what_everything_waits_for_is_asked_of_who_has_delivered_before_any_stranger() {
    let mut world = World::new(40, 20_000, config());
    let slow = world.join(1, 200_000);
    world.sync(60).expect("synced");
    let now = Timestamp::from_millis(world.now);
    (0..3).for_each(|_| world.scheduler.score(slow, |scores| scores.on_stall(slow, 250, now)));
    for id in 2..=8 {
        let silent = world.join(id, 1_000_000);
        world.peer(silent).frozen = true;
    }
    let last = world.headers[&world.tree.hash(world.tip)];
    let more = forged::chain(&world.params, &last, 4, 1);
    forged::insert(&mut world.tree, &more);
    world.learn(&more, 20_000);
    let best = world.tree.best_header();
    for id in (1..=8).rev() {
        world.with(|scheduler, cx, tree| scheduler.on_peer_has(cx, tree, PeerId(id), best));
    }
    world.with(|scheduler, cx, tree| scheduler.on_headers(cx, tree));
    let took = world.sync(120).expect("synced");
    assert!(took < 15, "{took} s");
}

/// A visitor that was nearer than a peer of our own delivered each block first, which it was asked for as the second, and
/// nothing came of the other peer's line but one block at a time.
#[test]
fn who_is_overtaken_by_visitors_alone_is_asked_for_no_less() {
    let mut world = World::new(1_000, 20_000, config());
    let view = PeerView {
        kind: ConnectionKind::Inbound,
        best_known: Some(world.tree.best_header()),
        ..forged::view(1, 0)
    };
    let visitor = world.join_as(view, 100_000_000);
    world.peer(visitor).latency = 1;
    world.run(0.05);
    let before = world.peer(visitor).delivered + world.scheduler.in_flight(Some(visitor));
    let ours = world.join(2, 4_000_000);
    world.peer(ours).latency = 600;
    world.sync(60).expect("synced");
    let since = world.peer(visitor).delivered - before;
    assert!(since < 200, "{since} blocks of the visitor");
}
