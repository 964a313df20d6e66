//! What must hold in a simulated world after every step. Each function answers with what is wrong.

use super::disk::SimDisk;
use super::ledger::{CoinSet, Ledger};
use super::node::NodePlan;
use crate::chain::block_tree::BlockTree;
use crate::chain::command::BlockRef;
use crate::chainstate::Chainstate;
use crate::engine::Engine;
use crate::engine::output::Event;
use crate::limits::{BLOCK_SIZE_MAX, MAX_UNPROVED_BYTES};
use crate::store::schema;
use bitcoin::OutPoint;

/// The store's coins are those of its tip, and no flush is cut short.
pub(super) fn store_is_a_state(ledger: &Ledger, disk: &SimDisk, tip: BlockRef) -> Result<(), String> {
    let (stored, pending, entries) = disk.coins();
    if stored != Some(tip) || pending {
        return Err(format!("tip {stored:?} instead of {tip:?}, a flush under way: {pending}"));
    }
    if !ledger.is_valid(&tip.hash) {
        return Err(format!("{tip:?} is not valid"));
    }
    let mut coins = CoinSet::new();
    for (key, value) in &entries {
        let outpoint = schema::decode_coin_key(key).map_err(|error| error.to_string())?;
        coins.insert(outpoint, schema::decode_coin(key, value).map_err(|error| error.to_string())?);
    }
    let expected = ledger.coins(&tip.hash);
    if coins == *expected {
        return Ok(());
    }
    let lost = expected.keys().filter(|outpoint| !coins.contains_key(outpoint)).count();
    let extra = coins.keys().filter(|outpoint| !expected.contains_key(outpoint)).count();
    Err(format!("at {tip:?} {lost} coins are missing and {extra} are too many"))
}

/// What a host that asks for a coin is told is true at the tip that the answer names.
pub(super) fn coin_is_true(
    ledger: &Ledger,
    chainstate: &Chainstate,
    outpoint: &OutPoint,
) -> Result<(), String> {
    let (coin, tip) = chainstate.coin(outpoint).map_err(|error| error.to_string())?;
    if !ledger.is_valid(&tip.hash) {
        return Err(format!("{tip:?} is not valid"));
    }
    let expected = ledger.coins(&tip.hash).get(outpoint).cloned();
    if coin == expected {
        Ok(())
    } else {
        Err(format!("{outpoint} at {tip:?}: {coin:?} instead of {expected:?}"))
    }
}

/// An event continues at the cursor and tells what a loss of power keeps. Answers the next cursor.
pub(super) fn event_follows(
    ledger: &Ledger,
    cursor: Option<BlockRef>,
    event: &Event,
    stable: Option<BlockRef>,
) -> Result<Option<BlockRef>, String> {
    match event {
        Event::Apply(block, header) => {
            let parent = ledger.parent(&block.hash);
            if !ledger.is_valid(&block.hash) || header.block_hash() != block.hash {
                return Err(format!("{block:?} is applied and not valid"));
            }
            // Without a cursor the first event is the genesis block's.
            if cursor != parent {
                return Err(format!("{block:?} is applied on {cursor:?}"));
            }
            if stable.is_some_and(|stable| stable.height < block.height) {
                return Err(format!("{block:?} is applied and {stable:?} is durable"));
            }
            Ok(Some(*block))
        }
        Event::Undo(block, header) => {
            if cursor != Some(*block) || header.block_hash() != block.hash {
                return Err(format!("{block:?} is undone at {cursor:?}"));
            }
            Ok(ledger.parent(&block.hash))
        }
    }
}

/// Blocks of the durable chain from this height on can be read.
pub(super) fn last_blocks_are_kept(
    tree: &BlockTree,
    chainstate: &Chainstate,
    lowest: u32,
) -> Result<(), String> {
    let durable = chainstate.durable_tip();
    let tip = tree.find(&durable.hash).ok_or("the durable tip is not in the tree")?;
    for block in (lowest.max(1)..=durable.height).filter_map(|height| tree.ancestor(tip, height)) {
        let block = tree.block(block);
        match chainstate.read_block(&block.hash) {
            Ok(Some(_)) => {}
            other => return Err(format!("{block:?} at the durable tip {durable:?}: {other:?}")),
        }
    }
    Ok(())
}

/// Queues are within [`crate::limits`], memory within its budgets.
pub(super) fn held_is_bounded(
    engine: &Engine,
    chainstate: &Chainstate,
    plan: &NodePlan,
) -> Result<(), String> {
    if let Some((what, value, bound)) = engine.load().over() {
        return Err(format!("{what}: {value}, at most {bound}"));
    }
    let memory = chainstate.memory();
    let block = BLOCK_SIZE_MAX as usize;
    // What one block adds comes on top of a budget, and a shard of the coins grows by doubling; the blocks of a
    // world are small.
    let figures = [
        ("coins", memory.coins, 2 * plan.coins_bytes + 100_000),
        ("unproved", memory.unproved, MAX_UNPROVED_BYTES + 4 * block),
        ("bodies", memory.bodies, 200_000 + block),
    ];
    match figures.into_iter().find(|(_, value, bound)| value > bound) {
        Some((what, value, bound)) => Err(format!("{what}: {value} bytes, at most {bound}")),
        None => Ok(()),
    }
}
