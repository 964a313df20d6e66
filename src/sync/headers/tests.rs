//! The headers machine against peers that serve a chain, in virtual time.

use super::*;
use crate::peer::{ConnectionKind, Demand, Effect, Wishes};
use crate::rng::Rng;
use crate::sync::forged;
use crate::time::Now;

/// A machine, its tree, the time, and what was wished.
struct World {
    params: Arc<Params>,
    tree: BlockTree,
    sync: HeaderSync,
    rng: Rng,
    now: Now,
    wishes: Wishes,
}

impl World {
    fn new(minimum_blocks: u32) -> Self {
        let params = forged::params(minimum_blocks);
        Self {
            tree: forged::tree(&params),
            sync: HeaderSync::new(Arc::clone(&params)),
            params,
            rng: Rng::from_number(1),
            now: Now::new(0, 1_700_000_000),
            wishes: Wishes::default(),
        }
    }

    /// Calls the machine.
    fn with<T>(&mut self, call: impl FnOnce(&mut HeaderSync, &mut Cx<'_>, &mut BlockTree) -> T) -> T {
        let mut cx = Cx { now: self.now, rng: &mut self.rng, out: &mut self.wishes };
        call(&mut self.sync, &mut cx, &mut self.tree)
    }

    fn ready(&mut self, peer: &PeerView) {
        self.with(|sync, cx, tree| sync.on_peer_ready(cx, tree, peer));
    }

    fn gone(&mut self, peer: &PeerView) {
        self.with(|sync, cx, tree| sync.on_peer_gone(cx, tree, peer.id));
    }

    fn headers(&mut self, peer: &PeerView, headers: &[Header]) {
        self.with(|sync, cx, tree| sync.on_headers(cx, tree, peer, headers.to_vec()));
    }

    fn inv(&mut self, peer: &PeerView, hash: BlockHash) {
        self.with(|sync, cx, tree| sync.on_block_inv(cx, tree, peer, hash));
    }

    /// Lets time pass, calling the timer whenever it is due.
    fn pass(&mut self, seconds: u64) {
        let end = self.now.at.as_millis() + seconds * 1_000;
        let mut calls = 0;
        while let Some(at) = self.sync.next_deadline().filter(|at| at.as_millis() <= end) {
            let at = at.as_millis().max(self.now.at.as_millis());
            self.now.unix += (at - self.now.at.as_millis()) / 1_000;
            self.now.at = Timestamp::from_millis(at);
            self.with(|sync, cx, tree| sync.on_timer(cx, tree));
            calls += 1;
            assert!(calls < 1_000, "the timer is due without end");
        }
        self.now.unix += (end - self.now.at.as_millis()) / 1_000;
        self.now.at = Timestamp::from_millis(end);
    }

    /// The `getheaders` sent since the last call.
    fn asked(&mut self) -> Vec<(PeerId, Vec<BlockHash>)> {
        let effects = std::mem::take(&mut self.wishes.effects);
        let mut asked = Vec::new();
        for effect in effects {
            match effect {
                Effect::Send(peer, Message::GetHeaders(message)) => {
                    assert!(message.locator_hashes.len() <= crate::limits::MAX_LOCATOR);
                    asked.push((peer, message.locator_hashes));
                }
                other => self.wishes.effects.push(other),
            }
        }
        asked
    }

    fn asked_peers(&mut self) -> Vec<u64> {
        self.asked().into_iter().map(|(peer, _)| peer.0).collect()
    }

    fn saved(&mut self) -> Vec<Header> {
        let mut saved = Vec::new();
        for effect in self.wishes.effects.drain(..) {
            if let Effect::Command(ChainCommand::SaveHeaders(headers)) = effect {
                saved.extend(headers);
            }
        }
        saved
    }

    fn facts(&mut self) -> Vec<Fact> {
        std::mem::take(&mut self.wishes.facts)
    }

    fn closed(&mut self) -> Vec<(u64, CloseReason)> {
        self.wishes
            .demands
            .drain(..)
            .filter_map(|demand| match demand {
                Demand::Close(peer, reason) => Some((peer.0, reason)),
                _ => None,
            })
            .collect()
    }

    /// Answers every request of `peer` from `chain` as a full node does, until it asks no more. Returns the
    /// number of messages.
    fn serve(&mut self, peer: &PeerView, chain: &[Header]) -> usize {
        let mut messages = 0;
        loop {
            let locators: Vec<_> = self.asked().into_iter().filter(|(to, _)| *to == peer.id).collect();
            if locators.is_empty() {
                return messages;
            }
            for (_, locator) in locators {
                let from = locator
                    .iter()
                    .find_map(|hash| chain.iter().position(|header| header.block_hash() == *hash))
                    .map_or(0, |at| at + 1);
                let end = (from + MAX_HEADERS).min(chain.len());
                messages += 1;
                assert!(messages < 1_000);
                self.headers(peer, &chain[from..end]);
            }
        }
    }

    fn best_height(&self) -> u32 {
        self.tree.height(self.tree.best_header())
    }

    fn chain(&self, blocks: usize, salt: u8) -> Vec<Header> {
        forged::chain(&self.params, self.params.genesis_header(), blocks, salt)
    }
}

fn fault(closed: &[(u64, CloseReason)]) -> Option<&Fault> {
    match closed {
        [(_, CloseReason::Fault(fault))] => Some(fault),
        _ => None,
    }
}

#[test]
fn headers_come_from_one_peer_and_then_from_all() {
    let mut world = World::new(0);
    let chain = world.chain(4_500, 0);
    let (a, b) = (forged::view(1, 4_500), forged::view(2, 4_500));
    world.ready(&a);
    world.ready(&b);
    assert_eq!(world.asked(), [(a.id, vec![world.params.genesis_hash()])]);
    assert!(!world.sync.is_synced());
    // Three full rounds at once, with no timer between.
    world.headers(&a, &chain[..2_000]);
    let asked = world.asked();
    assert_eq!((asked.len(), asked[0].0, asked[0].1[0]), (1, a.id, chain[1_999].block_hash()));
    world.headers(&a, &chain[2_000..4_000]);
    assert_eq!(world.asked_peers(), [1]);
    world.headers(&a, &chain[4_000..]);
    assert_eq!(world.best_height(), 4_500);
    assert!(world.sync.is_synced());
    // Now the other is asked, from the parent of the best header.
    let asked = world.asked();
    assert_eq!((asked.len(), asked[0].0, asked[0].1[0]), (1, b.id, chain[4_498].block_hash()));
    assert_eq!(world.saved(), chain);
    let facts = world.facts();
    let tip = world.tree.best_header();
    assert!(facts.contains(&Fact::HeadersAdvanced) && facts.contains(&Fact::PeerHas(a.id, tip)));
    world.headers(&b, &chain[4_499..]);
    assert_eq!(world.facts(), [Fact::PeerHas(b.id, tip)]);
    assert!(world.saved().is_empty() && world.closed().is_empty());
}

/// One late answer at the beginning was the network's fault for the whole sync.
#[test]
fn the_time_of_an_answer_counts_for_ten_minutes() {
    let mut world = World::new(0);
    let chain = world.chain(10, 0);
    let peer = forged::view(1, 10);
    world.ready(&peer);
    assert_eq!(world.sync.last_answer(world.now.at), None);
    world.pass(4);
    world.headers(&peer, &chain);
    assert_eq!(world.sync.last_answer(world.now.at), Some(Duration::from_secs(4)));
    let at = world.now.at;
    assert!(world.sync.last_answer(at + Duration::from_secs(600)).is_some());
    assert_eq!(world.sync.last_answer(at + Duration::from_secs(601)), None);
}

#[test]
fn a_source_that_does_not_answer_loses_its_role_and_then_its_connection() {
    let mut world = World::new(0);
    let (a, b) = (forged::view(1, 10), forged::view(2, 10));
    world.ready(&a);
    assert_eq!(world.asked_peers(), [1]);
    world.pass(60);
    // Alone it keeps the role, and is not asked twice.
    assert!(world.asked().is_empty());
    world.ready(&b);
    assert_eq!(world.asked_peers(), [2]);
    let chain = world.chain(10, 0);
    world.headers(&b, &chain);
    assert!(world.sync.is_synced());
    assert!(world.closed().is_empty());
}

#[test]
fn a_source_that_does_not_come_to_an_end_times_out_if_there_is_another() {
    for manual in [false, true] {
        let mut world = World::new(u32::MAX);
        let mut a = forged::view(1, 10);
        if manual {
            a.kind = ConnectionKind::Manual;
        }
        world.ready(&a);
        // About 670,000 headers are expected: 15 minutes and 11.
        let age = (world.now.unix - u64::from(world.params.genesis_header().time)) / 600;
        let limit = 15 * 60 + age / 1_000;
        let step = HEADERS_PATIENCE.as_secs() - 1;
        let chain = world.chain(2_000 * (limit / step + 1) as usize, 0);
        world.ready(&forged::view(2, 10));
        for message in chain.chunks(MAX_HEADERS) {
            assert!(world.closed().is_empty());
            // The other one is asked beside it, but has nothing to say.
            assert_eq!(world.asked_peers().iter().filter(|peer| **peer == 1).count(), 1);
            world.headers(&a, message);
            world.pass(step);
        }
        let expected = [(1, CloseReason::Timeout("headers"))];
        assert_eq!(world.closed(), if manual { &[][..] } else { &expected[..] });
    }
}

/// Story: a source that answered each question with the same 2,000 headers, at once, kept the role until the
/// time for all headers was over: half an hour on mainnet.
#[test]
fn a_source_that_tells_the_same_again_loses_its_role() {
    let mut world = World::new(u32::MAX);
    let (a, b) = (forged::view(1, 10_000), forged::view(2, 10_000));
    world.ready(&a);
    world.ready(&b);
    world.tree = forged::tree(&forged::params(0));
    let chain = world.chain(4_000, 0);
    forged::insert(&mut world.tree, &chain[..3_000]);
    assert_eq!(world.asked_peers(), [1]);
    world.headers(&a, &chain[..2_000]);
    // It may have been behind: it learns where we are.
    let asked = world.asked();
    assert_eq!((asked[0].0, asked[0].1[0]), (a.id, chain[2_998].block_hash()));
    world.headers(&a, &chain[..2_000]);
    assert_eq!(world.asked_peers(), [2]);
    world.headers(&b, &chain[2_000..]);
    assert_eq!(world.asked_peers(), [2]);
    assert!(world.closed().is_empty());
}

#[test]
fn an_empty_answer_from_a_peer_that_claims_more_does_not_mean_synced() {
    let mut world = World::new(0);
    let low = forged::view(1, 800_000);
    world.ready(&low);
    world.asked();
    world.headers(&low, &[]);
    assert!(!world.sync.is_synced());
    // It is asked again, but not in a hurry.
    assert!(world.asked().is_empty());
    world.pass(59);
    assert!(world.asked().is_empty());
    world.pass(2);
    assert_eq!(world.asked_peers(), [1]);
    // A peer whose chain is no longer than ours has nothing to add.
    let level = forged::view(2, 0);
    world.headers(&low, &[]);
    world.ready(&level);
    assert_eq!(world.asked_peers(), [2]);
    world.headers(&level, &[]);
    assert!(world.sync.is_synced());
}

#[test]
fn headers_that_connect_to_nothing_are_answered_with_getheaders_and_never_twice_in_two_minutes() {
    let mut world = World::new(0);
    let peer = forged::view(1, 0);
    let chain = world.chain(20, 0);
    world.ready(&peer);
    world.serve(&peer, &chain[..5]);
    world.facts();
    world.headers(&peer, &chain[10..11]);
    assert_eq!(world.asked_peers(), [1]);
    for at in 11..18 {
        world.headers(&peer, &chain[at..=at]);
        world.pass(10);
    }
    assert!(world.asked().is_empty());
    // The request was lost; the next one goes out two minutes after.
    world.pass(60);
    assert_eq!(world.asked_peers(), [1]);
    world.headers(&peer, &chain[4..18]);
    assert_eq!(world.best_height(), 18);
    assert!(world.closed().is_empty());
}

#[test]
fn what_a_peer_announced_before_its_header_was_known_is_remembered() {
    let mut world = World::new(0);
    let chain = world.chain(6, 0);
    let (a, b) = (forged::view(1, 5), forged::view(2, 5));
    world.ready(&a);
    world.ready(&b);
    world.serve(&a, &chain[..5]);
    world.serve(&b, &chain[..5]);
    world.facts();
    world.inv(&b, chain[5].block_hash());
    world.headers(&a, &chain[5..]);
    let tip = world.tree.best_header();
    let facts = world.facts();
    assert!(facts.contains(&Fact::PeerHas(a.id, tip)) && facts.contains(&Fact::PeerHas(b.id, tip)));
    // A known block's inv says the same at once.
    world.inv(&a, chain[5].block_hash());
    assert_eq!(world.facts(), [Fact::PeerHas(a.id, tip)]);
}

#[test]
fn an_inv_of_an_unknown_block_asks_for_headers() {
    let mut world = World::new(0);
    let chain = world.chain(7, 0);
    let peer = forged::view(1, 5);
    world.ready(&peer);
    world.serve(&peer, &chain[..5]);
    world.inv(&peer, chain[5].block_hash());
    assert_eq!(world.asked().len(), 1);
    // A second one waits for the answer, then goes out at once.
    world.inv(&peer, chain[6].block_hash());
    assert!(world.asked().is_empty());
    world.headers(&peer, &chain[4..6]);
    assert_eq!(world.asked_peers(), [1]);
}

#[test]
fn during_the_first_sync_an_inv_starts_one_more_peer_for_each_block() {
    let mut world = World::new(0);
    let chain = world.chain(3, 0);
    let peers: Vec<PeerView> = (1..=4).map(|id| forged::view(id, 100)).collect();
    for peer in &peers {
        world.ready(peer);
    }
    let source = world.asked()[0].0;
    let mut others = peers.iter().filter(|peer| peer.id != source);
    let (a, b) = (others.next().unwrap(), others.next().unwrap());
    world.inv(a, chain[0].block_hash());
    assert_eq!(world.asked_peers(), [a.id.0]);
    world.inv(b, chain[0].block_hash());
    assert!(world.asked().is_empty());
    world.inv(b, chain[1].block_hash());
    assert_eq!(world.asked_peers(), [b.id.0]);
}

#[test]
fn more_than_2000_headers_are_a_fault() {
    let mut world = World::new(0);
    let peer = forged::view(1, 5);
    let chain = world.chain(2_001, 0);
    world.ready(&peer);
    world.headers(&peer, &chain);
    assert_eq!(fault(&world.closed()), Some(&Fault::Oversized("headers")));
    assert_eq!(world.tree.len(), 1);
}

#[test]
fn gaps_and_missing_proof_of_work_are_faults() {
    let mut world = World::new(0);
    let peer = forged::view(1, 5);
    let chain = world.chain(5, 0);
    world.ready(&peer);
    world.headers(&peer, &[chain[0], chain[2]]);
    assert_eq!(fault(&world.closed()), Some(&Fault::NonContinuousHeaders));
    let mut bad = chain[0];
    while check_proof_of_work(&bad.block_hash(), bad.bits.to_consensus(), &world.params) {
        bad.nonce += 1;
    }
    world.headers(&peer, &[bad]);
    assert!(matches!(fault(&world.closed()), Some(Fault::Header { reason: "high-hash", .. })));
    assert_eq!(world.tree.len(), 1);
}

#[test]
fn a_header_that_breaks_a_rule_is_a_fault_and_those_before_it_stay() {
    let mut world = World::new(0);
    let peer = forged::view(1, 5);
    let mut chain = world.chain(20, 0);
    // The time may not be below the median of eleven.
    let mut old = chain[15];
    old.time = world.params.genesis_header().time;
    while !check_proof_of_work(&old.block_hash(), old.bits.to_consensus(), &world.params) {
        old.nonce += 1;
    }
    chain.truncate(15);
    chain.push(old);
    world.ready(&peer);
    world.headers(&peer, &chain);
    assert!(matches!(fault(&world.closed()), Some(Fault::Header { reason: "time-too-old", .. })));
    assert_eq!(world.best_height(), 15);
    assert_eq!(world.saved(), chain[..15]);
}

#[test]
fn a_header_from_the_future_is_no_fault() {
    let mut world = World::new(0);
    let peer = forged::view(1, 5);
    let chain = world.chain(5, 0);
    world.now.unix = u64::from(chain[2].time) - 7_201;
    world.ready(&peer);
    world.headers(&peer, &chain);
    assert!(world.closed().is_empty());
    assert_eq!(world.best_height(), 2);
    world.now.unix += 1;
    world.headers(&peer, &chain);
    assert_eq!(world.best_height(), 3);
}

#[test]
fn a_peer_on_an_invalid_chain_goes_unless_the_host_chose_it() {
    for manual in [false, true] {
        let mut world = World::new(0);
        let mut peer = forged::view(1, 5);
        if manual {
            peer.kind = ConnectionKind::Manual;
        }
        let chain = world.chain(5, 0);
        world.ready(&peer);
        world.headers(&peer, &chain);
        let invalid = world.tree.find(&chain[3].block_hash()).unwrap();
        world.tree.mark_invalid(invalid);
        world.headers(&peer, &chain[3..]);
        let unsuitable = [(1, CloseReason::Unsuitable("follows a chain that was found invalid"))];
        assert_eq!(world.closed(), if manual { &[][..] } else { &unsuitable[..] });
        // A new header on top of it.
        let child = forged::child(&world.params, &chain[4], 0);
        world.headers(&peer, &[child]);
        let closed = world.closed();
        assert_eq!(fault(&closed).is_some(), !manual, "{closed:?}");
    }
}

#[test]
fn a_chain_with_too_little_work_leaves_no_trace() {
    let mut world = World::new(15_000);
    let peer = forged::view(1, 9_000);
    let chain = world.chain(9_000, 0);
    world.ready(&peer);
    world.asked();
    // Short: ignored without penalty.
    world.headers(&peer, &chain[..1_500]);
    assert!(world.closed().is_empty());
    world.pass(61);
    // Full: seen through to its end, and then forgotten.
    assert_eq!(world.serve(&peer, &chain), 5);
    assert_eq!(world.tree.len(), 1);
    assert!(world.saved().is_empty() && world.facts().is_empty() && world.closed().is_empty());
    assert!(!world.sync.is_synced());
    assert!(world.sync.presync_progress().is_none());
}

#[test]
fn a_chain_with_the_minimum_work_comes_through_presync() {
    let mut world = World::new(15_000);
    let peer = forged::view(1, 16_100);
    let chain = world.chain(16_100, 0);
    world.ready(&peer);
    // 8 messages reach the goal, 9 more fetch everything again.
    assert_eq!(world.serve(&peer, &chain), 8 + 9);
    assert_eq!(world.best_height(), 16_100);
    assert_eq!(world.saved(), chain);
    assert!(world.sync.is_synced());
    assert!(world.closed().is_empty());
}

/// A source that announces a new block in the middle of a presync (Core begins again then).
#[test]
fn an_announcement_does_not_end_a_presync() {
    let mut world = World::new(15_000);
    let peer = forged::view(1, 16_100);
    let chain = world.chain(16_100, 0);
    world.ready(&peer);
    for message in chain.chunks(MAX_HEADERS).take(4) {
        world.headers(&peer, message);
    }
    assert_eq!(world.asked().len(), 5);
    world.headers(&peer, &chain[16_092..]);
    assert!(world.asked().is_empty());
    let reached = (PresyncState::Presync, 8_000, chain[7_999].time);
    assert_eq!(world.sync.presync_progress(), Some(reached));
    world.headers(&peer, &chain[8_000..10_000]);
    assert_eq!(world.serve(&peer, &chain), 3 + 9);
    assert_eq!(world.best_height(), 16_100);
}

/// Story: a source with an endless chain of little work kept the role until the time for all headers was over,
/// a quarter of an hour, while nobody else was asked.
#[test]
fn a_chain_without_enough_work_does_not_keep_us_from_another() {
    let mut world = World::new(15_000);
    let (a, b) = (forged::view(1, 16_100), forged::view(2, 16_100));
    let (endless, chain) = (world.chain(14_000, 1), world.chain(16_100, 0));
    world.ready(&a);
    world.ready(&b);
    assert_eq!(world.asked_peers(), [1]);
    world.headers(&a, &endless[..2_000]);
    world.pass(7);
    assert_eq!(world.asked_peers(), [1]);
    world.pass(1);
    assert_eq!(world.asked_peers(), [2]);
    for message in endless[2_000..].chunks(MAX_HEADERS) {
        world.headers(&a, message);
        assert_eq!(world.asked_peers(), [1]);
    }
    world.headers(&b, &chain[..MAX_HEADERS]);
    world.serve(&b, &chain);
    assert_eq!(world.best_height(), 16_100);
    assert!(world.closed().is_empty());
}

#[test]
fn presync_progress_is_told() {
    let mut world = World::new(15_000);
    let peer = forged::view(1, 4_000);
    let chain = world.chain(4_000, 0);
    world.ready(&peer);
    world.headers(&peer, &chain[..2_000]);
    let expected = (PresyncState::Presync, 2_000, chain[1_999].time);
    assert_eq!(world.sync.presync_progress(), Some(expected));
    // An empty message ends it.
    world.headers(&peer, &[]);
    assert_eq!(world.sync.presync_progress(), None);
}

#[test]
fn at_most_sixteen_peers_besides_the_source_are_in_presync() {
    let mut world = World::new(15_000);
    let chain = world.chain(2_000, 0);
    for id in 1..=30 {
        let peer = forged::view(id, 4_000);
        world.ready(&peer);
        world.headers(&peer, &chain);
    }
    let running = world.sync.peers.values().filter(|peer| peer.presync.is_some()).count();
    assert!((MAX_PRESYNCS..=MAX_PRESYNCS + 1).contains(&running), "{running}");
}

#[test]
fn near_the_tip_a_fork_far_below_is_ignored_and_one_close_by_is_kept() {
    let mut world = World::new(0);
    let peer = forged::view(1, 1_000);
    let main = world.chain(1_000, 0);
    world.ready(&peer);
    world.serve(&peer, &main);
    let tip = world.tree.best_header();
    world.with(|sync, _, _| sync.set_tip(tip));
    let known = world.tree.len();
    let far = forged::chain(&world.params, &main[800], 50, 7);
    world.headers(&peer, &far);
    assert_eq!(world.tree.len(), known);
    let near = forged::chain(&world.params, &main[900], 50, 7);
    world.headers(&peer, &near);
    assert_eq!(world.tree.len(), known + 50);
    // A better chain counts from wherever it forks off.
    let better = forged::chain(&world.params, &main[100], 1_000, 8);
    world.headers(&peer, &better);
    assert_eq!(world.best_height(), 1_101);
    assert!(world.closed().is_empty());
}

/// Story: chains were measured by the best header, so that headers without blocks, cheap on a network of low
/// difficulty, made us refuse the chain that everyone else follows.
#[test]
fn headers_without_blocks_do_not_raise_what_a_chain_must_show() {
    let mut world = World::new(0);
    let (hostile, honest) = (forged::view(1, 1_000), forged::view(2, 100));
    let main = world.chain(100, 0);
    world.ready(&honest);
    world.serve(&honest, &main);
    let tip = world.tree.best_header();
    world.with(|sync, _, _| sync.set_tip(tip));
    world.ready(&hostile);
    let empty = world.chain(1_000, 7);
    world.headers(&hostile, &empty);
    assert_eq!(world.best_height(), 1_000);
    let known = world.tree.len();
    let next = forged::child(&world.params, &main[99], 0);
    world.headers(&honest, &[next]);
    assert_eq!(world.tree.len(), known + 1);
}

#[test]
fn when_the_source_leaves_another_takes_over() {
    let mut world = World::new(0);
    let chain = world.chain(4_000, 0);
    let (a, b) = (forged::view(1, 4_000), forged::view(2, 4_000));
    world.ready(&a);
    world.ready(&b);
    world.headers(&a, &chain[..2_000]);
    world.asked();
    world.gone(&a);
    let asked = world.asked();
    assert_eq!((asked.len(), asked[0].0, asked[0].1[0]), (1, b.id, chain[1_998].block_hash()));
    // A message of one that is gone changes nothing.
    world.headers(&a, &chain[2_000..]);
    assert_eq!(world.best_height(), 2_000);
}

#[test]
fn only_mainnet_headers_from_the_fork_height_on_are_foreign() {
    let params = Params::new(Network::Main);
    let mut header = *params.genesis_header();
    assert!(!is_foreign(FOREIGN_CHAIN_HEIGHT, &[header]));
    header.version = bitcoin::block::Version::from_consensus(i32::MIN);
    assert!(is_foreign(FOREIGN_CHAIN_HEIGHT - 1, &[header]));
    assert!(!is_foreign(FOREIGN_CHAIN_HEIGHT - 2, &[header]));
    assert!(is_foreign(FOREIGN_CHAIN_HEIGHT - 2, &[*params.genesis_header(), header]));
    // On regtest the same header is judged by the rules on versions.
    let mut world = World::new(0);
    let peer = forged::view(1, 5);
    world.ready(&peer);
    let mut negative = world.chain(1, 0)[0];
    negative.version = bitcoin::block::Version::from_consensus(i32::MIN);
    while !check_proof_of_work(&negative.block_hash(), negative.bits.to_consensus(), &world.params) {
        negative.nonce += 1;
    }
    world.headers(&peer, &[negative]);
    assert!(matches!(fault(&world.closed()), Some(Fault::Header { reason: "bad-version", .. })));
}

#[test]
fn a_recent_chain_is_asked_of_everyone_at_once() {
    let mut world = World::new(0);
    let chain = world.chain(100, 0);
    forged::insert(&mut world.tree, &chain);
    world.now.unix = u64::from(chain[99].time) + 3_600;
    for id in 1..=3 {
        let peer = forged::view(id, 100);
        world.ready(&peer);
    }
    assert_eq!(world.asked_peers(), [1, 2, 3]);
    assert!(world.sync.is_synced());
}
