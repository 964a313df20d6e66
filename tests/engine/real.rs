//! The engine with the real chainstate: real blocks, spends and scripts; reorgs, a small coins cache, and
//! an end at any moment.

use crate::world::{BEGIN, Manner, World, config, params, served};
use headlong::chainstate::utxo_hash::utxo_stats;
use headlong::chainstate::{self, ChainstateOptions, Sources};
use headlong::engine::output::Event;
use headlong::engine::{Engine, EngineConfig, Input};
use headlong::peer::{CloseReason, Fault};
use headlong::rng::Rng;
use headlong::sim::forge::{BlockPlan, Branch, Forge, mine};
use headlong::sim::serve::ServedChain;
use headlong::store::block_files::{BlockFiles, BlockFilesOptions};
use headlong::store::header_file::{HEADER_FILE, HeaderFile};
use headlong::store::medium::{Medium, MemoryMedium};
use headlong::store::memory::MemoryStore;
use headlong::verify::interpreter::Interpreter;
use headlong::verify::pool::Pool;
use parking_lot::RwLock;
use std::sync::Arc;
use std::time::Duration;

const MINUTE: u64 = 60_000;

/// What survives the end of a node.
struct Ground {
    store: MemoryStore,
    medium: MemoryMedium,
    pool: Arc<Pool>,
    coins_bytes: usize,
}

impl Ground {
    fn new(coins_bytes: usize) -> Self {
        let pool = Arc::new(Pool::new("engine-test", 2, 64).expect("threads"));
        Self { store: MemoryStore::new(), medium: MemoryMedium::new(), pool, coins_bytes }
    }

    fn world(&self, config: EngineConfig, seed: u8) -> World {
        let medium = Arc::new(self.medium.clone());
        let (headers, loaded) = HeaderFile::with_medium(medium.clone(), HEADER_FILE).expect("readable");
        let options = BlockFilesOptions { segment_bytes: 200_000, key: Some([7; 16]) };
        let sources = Sources {
            params: params(),
            store: Arc::new(self.store.clone()),
            blocks: BlockFiles::with_medium(medium, options).expect("readable"),
            headers,
            loaded,
            pool: self.pool.clone(),
            verifier: Arc::new(Interpreter),
        };
        let options = ChainstateOptions::default().coins_bytes(self.coins_bytes);
        let opened = chainstate::open(sources, options, [5, 6]).expect("a state that existed");
        let last = opened.chainstate.checkpoint().clone();
        let engine =
            Engine::new(config, opened.tree, opened.tip, Some(last), [seed; 32]).expect("consistent");
        World::with_chainstate(engine, opened.chainstate)
    }
}

fn grow(forge: &mut Forge, branch: &mut Branch, count: u32) -> Vec<bitcoin::Block> {
    (0..count).map(|_| forge.extend(branch, BlockPlan { inputs: 6, growth: 3 })).collect()
}

fn begin(forge: &mut Forge, count: u32) -> (Branch, Vec<bitcoin::Block>) {
    let mut branch = forge.genesis(Some(BEGIN as u32 - 600 * count - 7_200));
    let blocks = grow(forge, &mut branch, count);
    (branch, blocks)
}

#[test]
fn syncs_with_spends_through_a_small_cache_and_follows_a_reorg() {
    let mut forge = Forge::new(params(), 1);
    let (mut branch, mut blocks) = begin(&mut forge, 140);
    let mut other = branch.clone();
    blocks.extend(grow(&mut forge, &mut branch, 10));
    let chain = served(&blocks);
    let ground = Ground::new(6_000);
    let mut world = ground.world(config(&[1, 2]), 1);
    world.serve(1, &chain, Manner { latency: 10, block_time: 2, ..Manner::default() });
    world.serve(2, &chain, Manner { latency: 25, block_time: 3, ..Manner::default() });
    assert!(
        world.run(10 * MINUTE, |w| w.engine.status().durable == branch.tip),
        "{:?}",
        world.engine.status()
    );
    assert!(world.events_ready > 2, "the small cache wanted commits on the way: {}", world.events_ready);
    let cursor = Some(branch.tip);
    chain.write().extend(&grow(&mut forge, &mut other, 12));
    world.announce();
    assert!(
        world.run(10 * MINUTE, |w| w.engine.status().durable == other.tip),
        "{:?}",
        world.engine.status()
    );
    let events = world.events_after(cursor);
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Undo(..))).count(), 10);
    assert_eq!(events.len(), 22);
    assert!(world.closed.is_empty() && world.fatal.is_none(), "{:?} {:?}", world.closed, world.fatal);
    world.input(Input::Shutdown);
    assert!(world.run(MINUTE, |w| w.stopped == Some(other.tip)));
}

#[test]
fn an_invalid_block_in_a_longer_branch_is_refused_and_its_sender_punished() {
    let mut forge = Forge::new(params(), 2);
    let (mut branch, blocks) = begin(&mut forge, 110);
    let mut bad = branch.clone();
    let good_blocks = [blocks.clone(), grow(&mut forge, &mut branch, 3)].concat();
    let mut bad_blocks = grow(&mut forge, &mut bad, 2);
    // The coinbase of the second takes a satoshi too much: only connecting it shows that.
    let greedy = bad_blocks.last_mut().expect("two blocks");
    let value = &mut greedy.txdata[0].output[0].value;
    *value += bitcoin::Amount::ONE_SAT;
    mine(greedy);
    bad.tip.hash = greedy.block_hash();
    bad_blocks.extend(grow(&mut forge, &mut bad, 3));
    let (good, evil) = (served(&good_blocks), served(&[blocks, bad_blocks].concat()));
    let ground = Ground::new(1 << 26);
    let mut world = ground.world(config(&[1, 2]), 1);
    world.serve(1, &good, Manner { latency: 10, block_time: 2, ..Manner::default() });
    world.serve(2, &evil, Manner { latency: 10, block_time: 2, ..Manner::default() });
    let end = |w: &World| w.engine.status().durable == branch.tip && !w.closed.is_empty();
    assert!(world.run(10 * MINUTE, end), "{:?} {:?}", world.engine.status(), world.closed);
    let (who, why) = &world.closed[0];
    let CloseReason::Fault(Fault::Block { reason, .. }) = why else { panic!("{why}") };
    assert_eq!((who, *reason), (&crate::world::address(2), "bad-cb-amount"));
    drop(world);
    // The mark is remembered: the branch is not tried again.
    let mut world = ground.world(config(&[2]), 2);
    world.serve(2, &evil, Manner::default());
    world.run(MINUTE, |_| false);
    assert_eq!(world.engine.status().tip, branch.tip);
    assert!(world.fatal.is_none());
}

#[test]
fn an_end_at_any_moment_is_followed_by_a_start_at_a_state_that_existed() {
    let mut forge = Forge::new(params(), 3);
    let (branch, blocks) = begin(&mut forge, 160);
    let chain = served(&blocks);
    let ground = Ground::new(6_000);
    let mut rng = Rng::from_number(9);
    let mut durable = 0;
    for life in 1..40 {
        let often = EngineConfig { commit_interval: Duration::from_millis(90), ..config(&[1]) };
        let mut world = ground.world(often, life);
        let start = world.engine.status().durable;
        assert!(start.height >= durable, "what was durable stays");
        world.serve(1, &chain, Manner { latency: 10, block_time: 5, ..Manner::default() });
        if world.run(50 + rng.below(400), |w| w.engine.status().durable == branch.tip) {
            assert!(life > 1, "at least one end came early");
            return;
        }
        durable = world.engine.status().durable.height;
        assert!(world.fatal.is_none(), "{:?}", world.fatal);
    }
    panic!("never done: {durable}");
}

/// A node on a branch of which all blocks and undo data are damaged, while its peers have a better one.
struct DamagedBranch {
    ground: Ground,
    /// What is to be left.
    branch: Branch,
    /// What is better.
    other: Branch,
    /// All of both.
    chain: Arc<RwLock<ServedChain>>,
    /// The better branch, of a peer that never had the other one.
    young: Arc<RwLock<ServedChain>>,
}

impl DamagedBranch {
    fn new() -> Self {
        let mut forge = Forge::new(params(), 4);
        let (mut branch, mut blocks) = begin(&mut forge, 130);
        let mut other = branch.clone();
        blocks.extend(grow(&mut forge, &mut branch, 4));
        let chain = served(&blocks);
        let ground = Ground::new(1 << 26);
        let mut world = ground.world(config(&[1]), 1);
        world.serve(1, &chain, Manner { latency: 10, block_time: 2, ..Manner::default() });
        assert!(world.run(10 * MINUTE, |w| w.engine.status().durable == branch.tip));
        drop(world);
        for name in ground.medium.list().unwrap() {
            if name.starts_with("blk-") || name.starts_with("undo-") {
                ground.medium.truncate(&name, 60).unwrap();
            }
        }
        chain.write().extend(&grow(&mut forge, &mut other, 6));
        let young = served(&[blocks[..130].to_vec(), chain_above(&chain, &blocks, 130)].concat());
        Self { ground, branch, other, chain, young }
    }
}

/// The bug: a reorg that had to undo a block which is damaged, and which no peer has, waited for ever in silence.
#[test]
fn a_damaged_block_that_nobody_has_is_named_and_ends_the_node_after_half_an_hour() {
    let DamagedBranch { ground, branch, young, .. } = DamagedBranch::new();
    let mut world = ground.world(config(&[1]), 2);
    world.serve(1, &young, Manner { latency: 5, block_time: 2, ..Manner::default() });
    assert!(!world.run(25 * MINUTE, |w| w.fatal.is_some()), "{:?}", world.fatal);
    let trouble = world.engine.status().trouble.expect("there is trouble");
    assert!(trouble.contains(&branch.tip.hash.to_string()), "{trouble}");
    assert!(world.run(10 * MINUTE, |w| w.fatal.is_some()));
    let error = world.fatal.expect("it ended");
    assert!(error.contains(&branch.tip.hash.to_string()) && error.contains("synced anew"), "{error}");
}

/// Blocks that a reorg has to undo are damaged, and so is their undo data: they are fetched again, from a peer
/// that only knows the other branch by now if it kept them, and the reorg goes on.
#[test]
fn damaged_blocks_that_a_reorg_has_to_undo_are_fetched_again() {
    let DamagedBranch { ground, branch, other, chain, young } = DamagedBranch::new();
    let mut world = ground.world(config(&[1, 2]), 2);
    // The first peer never had the branch that is left: it does not answer for its blocks.
    world.serve(1, &young, Manner { latency: 5, block_time: 2, ..Manner::default() });
    let wakes = world.wakes;
    assert!(!world.run(10 * MINUTE, |w| w.engine.status().durable == other.tip), "nobody had the blocks");
    assert_eq!(world.engine.status().tip, branch.tip);
    assert!(world.fatal.is_none() && world.closed.is_empty(), "{:?} {:?}", world.fatal, world.closed);
    assert!(world.wakes - wakes < 2_000, "it waits without spinning: {}", world.wakes - wakes);
    world.serve(2, &chain, Manner { latency: 10, block_time: 2, ..Manner::default() });
    assert!(
        world.run(30 * MINUTE, |w| w.engine.status().durable == other.tip),
        "{:?} {:?}",
        world.engine.status(),
        world.fatal
    );
    assert!(world.fatal.is_none());
    drop(world);
    // The coins are those of a node that nothing happened to.
    let undisturbed = Ground::new(1 << 26);
    let mut world = undisturbed.world(config(&[2]), 3);
    world.serve(2, &chain, Manner { latency: 10, block_time: 2, ..Manner::default() });
    assert!(world.run(10 * MINUTE, |w| w.engine.status().durable == other.tip));
    drop(world);
    assert_eq!(utxo_stats(&ground.store).unwrap(), utxo_stats(&undisturbed.store).unwrap());
}

/// The blocks that a peer serves above a height.
fn chain_above(
    chain: &Arc<RwLock<ServedChain>>,
    below: &[bitcoin::Block],
    height: usize,
) -> Vec<bitcoin::Block> {
    let chain = chain.read();
    let mut hash = chain.tip().hash;
    let mut above = Vec::new();
    while hash != below[height - 1].block_hash() {
        let block: bitcoin::Block =
            bitcoin::consensus::deserialize(chain.block(&hash).unwrap().bytes()).unwrap();
        hash = block.header.prev_blockhash;
        above.push(block);
    }
    above.reverse();
    above
}
