//! A pruned node: its block files stay within the budget, its coins are those of a node that keeps all, reorgs within
//! the kept depth work, and whoever asks for what is gone is told so.
#![cfg(all(feature = "native", feature = "consensus", feature = "sled"))]

mod ground;
mod world;

use bitcoin::Block;
use bitcoin::block::Header;
use ground::{ANYONE, Ground, SUBSIDY, bytes, mine, output, spend};
use headlong::chainstate::{BlockVerdict, Front, PruneOptions};
use headlong::store::{StoreErrorKind, schema};
use headlong::{BlockRef, Builder, Error, Event, Network, RequestError};
use std::path::Path;
use std::sync::{Arc, Mutex};
use world::{PATIENCE, Running, World};

/// The budget, in MiB; segments are a quarter of it.
const BUDGET: u64 = 1;
/// Blocks whose files take more than twice the budget.
const BLOCKS: u32 = 1_600;

/// Bytes of all block and undo files.
fn block_files(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder.join("blocks")).unwrap();
    entries.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

fn is_pruned<T: std::fmt::Debug>(answer: Result<T, RequestError>, from: u32) -> bool {
    matches!(answer, Err(RequestError::Pruned { below }) if below == from)
}

/// A chain, and what its coins hash to in a node that keeps all.
fn utxo_hash(world: &World) -> String {
    let twin = Running::start(world.builder().build().unwrap());
    twin.wait_for(world.tip());
    let stats = twin.handle.utxo_stats_blocking().unwrap();
    twin.stop();
    stats.value.hash_serialized_3.to_string()
}

/// Waits until the files are small enough: they are deleted on another thread.
fn settle(node: &Running, folder: &Path) -> u32 {
    let begun = std::time::Instant::now();
    loop {
        let status = node.handle.status();
        if status.block_bytes == block_files(folder) && status.block_bytes <= BUDGET << 20 {
            return status.pruned_below;
        }
        assert!(begun.elapsed() < PATIENCE, "{status:?}, on disk {}", block_files(folder));
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn a_pruned_node_stays_within_its_budget_and_knows_the_same_coins() {
    let mut world = World::new(BLOCKS);
    let folder = tempfile::tempdir().unwrap();
    let builder = |world: &World| world.builder().datadir(folder.path());
    let node = Running::start(builder(&world).prune(BUDGET).build().unwrap());
    node.wait_for(world.tip());
    // What is above the commit before the last is kept.
    for _ in 0..2 {
        world.grow(1);
        node.wait_for(world.tip());
    }
    let below = settle(&node, folder.path());
    let tip = world.tip();
    assert!(below > 200 && below + 287 <= tip.height, "{below} of {}", tip.height);

    // Requests for what is gone say so; all from there on is there.
    let handle = &node.handle;
    assert!(is_pruned(handle.block_at_blocking(1), below));
    assert!(is_pruned(handle.block_blocking(world.at(below / 2).block_hash()), below));
    for height in below..=tip.height {
        let block = handle.block_at_blocking(height).unwrap().value.unwrap();
        assert_eq!(**block.raw.bytes(), bytes(world.at(height)));
    }
    assert!(handle.header_at_blocking(1).unwrap().value.is_some());
    assert!(is_pruned(handle.invalidate_blocking(world.at(1).block_hash()), below));

    // Events begin where the blocks do.
    let at = |height: u32| BlockRef { height, hash: world.at(height).block_hash() };
    for cursor in [None, Some(at(1)), Some(at(below - 2))] {
        assert!(is_pruned(handle.events(cursor).try_next_blocking(), below), "{cursor:?}");
    }
    let first = handle.events(Some(at(below - 1))).try_next_blocking().unwrap();
    assert!(matches!(first, Some(Event::Apply(block, _)) if block == at(below)), "{first:?}");
    assert_eq!(handle.events(Some(tip)).try_next_blocking().unwrap(), None);
    assert_eq!(node.stop(), tip);

    // It goes on so, and through a reorg of a hundred blocks.
    let node = Running::start(builder(&world).prune(BUDGET).build().unwrap());
    assert_eq!(node.handle.status().pruned_below, below);
    assert!(is_pruned(node.handle.block_at_blocking(1), below));
    let fork = world.branch.clone();
    world.grow(100);
    node.wait_for(world.tip());
    world.reorganise(fork, 102);
    node.wait_for(world.tip());
    world.grow(2);
    node.wait_for(world.tip());
    let stats = node.handle.utxo_stats_blocking().unwrap();
    assert_eq!(stats.value.hash_serialized_3.to_string(), utxo_hash(&world));
    let below = settle(&node, folder.path());
    node.stop();

    // Without the option nothing more is deleted, and what is gone stays so.
    let node = Running::start(builder(&world).build().unwrap());
    world.grow(300);
    node.wait_for(world.tip());
    let status = node.handle.status();
    assert_eq!(status.pruned_below, below);
    assert!(is_pruned(node.handle.block_at_blocking(1), below));
    assert!(node.handle.block_at_blocking(below).unwrap().value.is_some());
    let grown = block_files(folder.path());
    assert!(status.block_bytes == grown && grown > BUDGET << 20, "{status:?}, {grown}");
    node.stop();

    // With it again, the start alone brings it back.
    let node = Running::start(builder(&world).prune(BUDGET).build().unwrap());
    assert!(settle(&node, folder.path()) > below);
    node.stop();
}

#[test]
fn everything_in_memory_can_be_pruned_too() {
    let world = World::new(BLOCKS);
    let node = Running::start(world.builder().prune(BUDGET).build().unwrap());
    node.wait_for(world.tip());
    assert!(node.handle.status().pruned_below > 0);
    assert!(matches!(node.handle.block_at_blocking(1), Err(RequestError::Pruned { .. })));
    node.stop();
    let error = Builder::new(Network::Main).prune(549).build().unwrap_err();
    assert!(error.to_string().contains("550"), "{error}");
}

/// Blocks on top of a header, of which each spends the coinbase that matured last, for some size.
fn chain(parent: &Header, above: u32, count: u32, unique: u64, trunk: &[Block]) -> Vec<Block> {
    let mut parent = *parent;
    let block = |height: u32| {
        let mature = height.checked_sub(101).and_then(|index| trunk.get(index as usize));
        let txs = mature.map(|block| {
            let coin = bitcoin::OutPoint::new(block.txdata[0].compute_txid(), 0);
            spend(&[coin], vec![output(block.txdata[0].output[0].value.to_sat() / 8, ANYONE); 8])
        });
        // Regtest halves each 150 blocks.
        let block = mine(&parent, height, unique, SUBSIDY >> (height / 150), txs.into_iter().collect());
        parent = block.header;
        block
    };
    (above + 1..=above + count).map(block).collect()
}

/// A ground with a budget of a few dozen blocks, of which the last 20 are kept.
fn pruned_ground(coins_bytes: usize) -> Ground {
    let mut ground = Ground::new(0, 5, coins_bytes);
    ground.prune = Some(PruneOptions::new(20_000).keep_blocks(20));
    ground
}

#[test]
fn a_reorg_deeper_than_what_is_kept_ends_with_an_error_that_names_the_way_out() {
    for (depth, works) in [(20, true), (21, true), (100, false)] {
        let ground = pruned_ground(1 << 20);
        let trunk = chain(ground.params.genesis_header(), 0, 210, 1, &[]);
        let top = chain(&trunk[209].header, 210, 100, 1, &trunk);
        let all: Vec<Block> = trunk.iter().chain(&top).cloned().collect();
        let mut front = ground.open();
        for (at, block) in all.iter().enumerate() {
            assert_eq!(front.process_block(bytes(block)).unwrap().1, BlockVerdict::Connected);
            if at % 10 == 0 {
                front.commit().unwrap();
            }
        }
        front.commit().unwrap();
        let storage = front.chainstate().storage();
        assert!(storage.pruned_below > 211 && storage.bytes <= 20_000, "{storage:?}");
        let fork = 310 - depth;
        let other = chain(&all[fork as usize - 1].header, fork, depth + 1, 2, &trunk);
        let mut end = other.iter().try_for_each(|block| front.process_block(bytes(block)).map(drop));
        // Blocks to undo can be had again, as long as their undo data is there.
        let mut fetched = 0;
        while let Err(Error::MissingBlock(hash)) = end {
            let again = all.iter().find(|block| block.block_hash() == hash).unwrap();
            end = front.process_block(bytes(again)).map(drop);
            fetched += 1;
        }
        assert_eq!(fetched > 0, !works);
        if works {
            end.unwrap();
            assert_eq!(front.tip().height, 311);
            continue;
        }
        let Err(error @ Error::Pruned { height, .. }) = end else { panic!("{end:?}") };
        assert!(height < storage.pruned_below && error.to_string().contains("synced anew"), "{error}");
    }
}

/// Gives a front all blocks, and those again that it misses.
fn go_on(front: &mut Front, all: &[Block]) -> Result<(), Error> {
    let mut end = all.iter().try_for_each(|block| front.process_block(bytes(block)).map(drop));
    while let Err(Error::MissingBlock(hash)) = end {
        let again = all.iter().find(|block| block.block_hash() == hash).unwrap();
        end = front.process_block(bytes(again)).map(drop);
    }
    end
}

/// sled takes its log back to an earlier commit by itself when the log is damaged.
#[test]
fn a_store_that_steps_back_fetches_pruned_blocks_again_or_names_the_way_out() {
    for coins_bytes in [1, 1 << 20] {
        let mut ground = pruned_ground(coins_bytes);
        // So few that after the reorg by eight at the end only what recovery may need stands against pruning both its branches.
        ground.prune = Some(PruneOptions::new(2_000).keep_blocks(8));
        let history = Arc::new(Mutex::new(Vec::new()));
        ground.history = Some(history.clone());
        let trunk = chain(ground.params.genesis_header(), 0, 210, 1, &[]);
        let top = chain(&trunk[209].header, 210, 60, 1, &trunk);
        let other = chain(&top[51].header, 262, 9, 2, &trunk);
        let all: Vec<Block> = trunk.into_iter().chain(top).chain(other).collect();
        let mut front = ground.open();
        for (at, block) in all.iter().enumerate() {
            front.process_block(bytes(block)).unwrap();
            if at % 15 == 0 {
                front.commit().unwrap();
            }
        }
        front.commit().unwrap();
        let (end, coins) = (front.tip(), ground.stored_coins());
        assert_eq!(end.hash, all[all.len() - 1].block_hash());
        let last = front.chainstate().checkpoint().clone();
        assert!(front.chainstate().storage().pruned_below > 150);
        drop(front);
        let (mut back, mut anew) = (0, 0);
        for store in history.lock().unwrap().iter() {
            let ground = ground.with_store(store.fork());
            let tip = schema::tip(&ground.store).unwrap();
            let end_of_it = ground.open_failing(usize::MAX, false).and_then(|mut front| {
                go_on(&mut front, &all)?;
                assert_eq!(front.tip(), end);
                front.commit()
            });
            let Err(error) = end_of_it else {
                assert_eq!(ground.stored_coins(), coins);
                back += 1;
                continue;
            };
            // A flush that was cut short, or a reorg, whose blocks are pruned: never the last commit's.
            let text = error.to_string();
            let corrupt = matches!(&error, Error::Store(error) if error.kind == StoreErrorKind::Corrupt);
            assert!(corrupt || matches!(error, Error::Pruned { .. }), "{text}");
            assert!(text.contains("pruned") && text.contains("synced anew"), "{text}");
            assert!(tip != Some(last.from) && tip != Some(last.to), "{text}");
            anew += 1;
        }
        println!("{back} states went on, {anew} have to be synced anew");
        assert!(back > 20 && anew > 5, "{back} {anew}");
    }
}
