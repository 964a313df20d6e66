//! Opening a chainstate: from what is stored to a state that existed.
//!
//! 1. The store is claimed for the network, or belongs to it with this schema.
//! 2. Headers and marks are read into a tree, in the order they were written. Each header's proof of work
//!    and parent are looked at; the other rules were checked before it was written.
//! 3. Where the header file was damaged, it lost its end. Headers of stored blocks are taken from these and
//!    appended again, those of the tip and of both tips of a flush that was cut short without fail; others, and
//!    marks, are lost: headers are fetched again, invalid blocks are found invalid again when they are the best.
//!    A mark that the host had asked for is not known any more.
//! 4. A marker in the store says that a flush was cut short. The coins are then a mixture of two tips. As in
//!    Core's `ReplayBlocks`, the blocks from the old tip down to the fork are rolled back and those from the
//!    fork up to the new tip are rolled forward, blindly; then the coins are those of the new tip.
//! 5. Before that, all kept checkpoints are checked to be a chain by hash, and the marker to be what the last
//!    one announced; afterwards the last one must lead to the tip.
//!    The tip is written once more, durably: the process before may have been killed between its last commit
//!    and the disk.
//! 6. Stored bodies are marked in the tree, those of the active chain first, then in the order of storing,
//!    which decides ties. Those whose files were pruned are not, but for the active chain's; no block is read.
//!    A thread of the pool has read the index of them while step 2 was done.
//!
//! The store may have stepped back to an earlier commit (a damaged log): headers, blocks and undo data are
//! ahead of it then, which is harmless, since a commit names only bytes that were durable before it.
//!
//! A new store starts at the genesis block, whose coinbase is no coin.
//!
//! # What a crash can cost
//! *Committed* is what [`ChainReport::Committed`](crate::chain::command::ChainReport::Committed) was reported
//! for.
//!
//! | | killed process | power loss |
//! | --- | --- | --- |
//! | durable tip | that of the last commit, or of the one that was under way | the same |
//! | connected blocks | those since that commit are connected again | the same |
//! | stored blocks | those stored since that commit are fetched again | the same |
//! | headers, marks of invalidity | none that was saved | those saved since that commit |
//! | `Apply` and `Undo` events | none: they go out for what is durable, from the host's cursor | the same |
//!
//! During the initial sync a commit follows after 60 s
//! ([`COMMIT_INTERVAL`](crate::limits::COMMIT_INTERVAL)) or when the cache is full, at the tip after each
//! block. `tests/kill_every_write` asserts all lines but the last at each single write, and at each write of
//! the start after it.

use super::archive::Archive;
use super::coins::Coins;
use super::commit::write_coins;
use super::disconnect::{roll_back, roll_forward};
use super::memory::ChainstateOptions;
use super::pipeline::{Chainstate, Parts};
use super::prune::Pruning;
use super::repair::{Lost, stored, to_disconnect};
use crate::chain::block_tree::{BlockTree, HeaderId};
use crate::chain::command::{BlockRef, HeaderMark, RollbackCheckpoint};
use crate::chain::params::Params;
use crate::consensus::header::check_proof_of_work;
use crate::error::Error;
use crate::store::block_files::{BlockFiles, Location};
use crate::store::header_file::{HeaderFile, Loaded, Record};
use crate::store::schema::{self, BlockEntry, Pending};
use crate::store::{Batch, Durability, Store, StoreError, StoreErrorKind, Table, each_entry};
use crate::verify::Verifier;
use crate::verify::pool::Pool;
use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use crossbeam_channel::{Receiver, bounded};
use std::sync::Arc;

/// The way out where nothing else is left.
const ANEW: &str = "the data directory has to be synced anew, or a whole copy of it restored";

/// All that a chainstate stands on.
#[derive(Debug)]
pub struct Sources {
    /// The network.
    pub params: Arc<Params>,
    /// The store of coins and index.
    pub store: Arc<dyn Store>,
    /// The block files.
    pub blocks: BlockFiles,
    /// The header file, open.
    pub headers: HeaderFile,
    /// What it held.
    pub loaded: Loaded,
    /// Threads for checks and scripts; may be shared.
    pub pool: Arc<Pool>,
    /// Executes scripts.
    pub verifier: Arc<dyn Verifier>,
}

/// What [`open`] yields.
#[derive(Debug)]
pub struct Opened {
    /// The chainstate at its durable tip.
    pub chainstate: Chainstate,
    /// All known headers, with marks and bodies.
    pub tree: BlockTree,
    /// The durable tip.
    pub tip: BlockRef,
}

/// Opens a chainstate. `key` keys the tables of headers and coins and should be random.
///
/// # Errors
/// The store's: `Unsupported` if it belongs to another network or schema, `Corrupt` if what it holds does
/// not fit together, or if a flush was cut short and a block to repeat it is damaged. Each names what is
/// wrong and, where nothing else helps, that the data directory has to be synced anew.
pub fn open(sources: Sources, options: ChainstateOptions, key: [u64; 2]) -> Result<Opened, Error> {
    let Sources { params, store, blocks, mut headers, loaded, pool, verifier } = sources;
    schema::claim(&*store, params.magic, params.genesis_hash())?;
    let checkpoints = schema::checkpoints(&*store)?;
    let index = read_index(&pool, store.clone());
    let mut tree = BlockTree::new(params.clone(), key);
    tree.reserve(loaded.records.len());
    let read = read_headers(&mut tree, &loaded.records);
    drop(loaded);
    // Whatever the headers are: nobody uses the store any more once this returns.
    let index = index.recv().map_err(|_| Error::Bug("the job that reads the index was lost"))??;
    read?;
    let mut archive = Archive::new(blocks, store.clone())?;
    if let Some(pending) = schema::pending(&*store)? {
        check_pending(&*store, pending, checkpoints.last())?;
        restore_headers(&mut tree, &archive, &mut headers, pending.from)?;
        restore_headers(&mut tree, &archive, &mut headers, pending.to)?;
        replay(&store, &archive, &tree, pending, options.coins_bytes, key[1])?;
    }
    let (tip, checkpoint) = read_tip(&*store, &params, checkpoints.last())?;
    restore_headers(&mut tree, &archive, &mut headers, tip)?;
    let tip_id = find(&tree, tip)?;
    let mtps = mark_chain(&mut tree, tip_id);
    let below = mark_bodies(&mut tree, &mut archive, &mut headers, index)?;
    let pruning = Pruning::new(options.prune, below, last_fork(&tree, &checkpoint), tip.height);
    let mut chainstate = Chainstate::new(Parts {
        params,
        options,
        key: key[1],
        store,
        archive,
        headers,
        pool,
        verifier,
        tip,
        checkpoint,
        mtps,
        pruning,
    })?;
    chainstate.begin_pruning()?;
    Ok(Opened { chainstate, tree, tip })
}

fn corrupt(context: impl Into<String>) -> Error {
    StoreError::new(StoreErrorKind::Corrupt, context).into()
}

fn find(tree: &BlockTree, block: BlockRef) -> Result<HeaderId, Error> {
    tree.find(&block.hash)
        .filter(|id| tree.height(*id) == block.height)
        .ok_or_else(|| corrupt(format!("the header of block {} is not in the header file", block.hash)))
}

fn read_headers(tree: &mut BlockTree, records: &[Record]) -> Result<(), Error> {
    for record in records {
        match record {
            Record::Header(header) => {
                let hash = header.block_hash();
                let parent = tree.find(&header.prev_blockhash).ok_or_else(|| {
                    corrupt(format!("the parent of header {hash} is not in the header file"))
                })?;
                check_proof_of_work(header, &hash, tree.params())
                    .map_err(|_| corrupt(format!("header {hash} has no proof of work")))?;
                tree.insert_hashed(parent, header, hash);
            }
            Record::Mark(hash, mark) => {
                let Some(id) = tree.find(hash) else {
                    return Err(corrupt(format!("a mark on block {hash}, whose header is not there")));
                };
                match mark {
                    HeaderMark::Invalid => tree.mark_invalid(id),
                    HeaderMark::Reconsidered => tree.reconsider(id),
                }
            }
        }
    }
    Ok(())
}

/// Takes the headers of a block and its ancestors, as far as the header file lost them, from the stored
/// blocks, and appends them to the file.
fn restore_headers(
    tree: &mut BlockTree,
    archive: &Archive,
    file: &mut HeaderFile,
    block: BlockRef,
) -> Result<(), Error> {
    let mut lost = Vec::new();
    let mut hash = block.hash;
    while tree.find(&hash).is_none() {
        let header = archive.read_header(&hash)?.ok_or_else(|| {
            let damage = archive.damage(&hash);
            corrupt(format!(
                "the header file lost the header of block {hash}, and the block itself is damaged ({damage}): \
                 {ANEW}"
            ))
        })?;
        // Each is another, lower block than the one before, so that a cycle is no more likely than a
        // collision of hashes.
        hash = header.prev_blockhash;
        lost.push(Record::Header(header));
    }
    if lost.is_empty() {
        return Ok(());
    }
    lost.reverse();
    read_headers(tree, &lost)?;
    let headers: Vec<Header> = lost
        .into_iter()
        .filter_map(|record| match record {
            Record::Header(header) => Some(header),
            Record::Mark(..) => None,
        })
        .collect();
    file.append_headers(&headers)?;
    Ok(file.sync()?)
}

/// Takes the headers of these stored blocks, which the header file lost, from the blocks and appends them to the
/// file. One that cannot be had so, or does not follow a known one, is left out; a consumer of events may stand
/// on any block that was connected.
fn restore_branches(
    tree: &mut BlockTree,
    archive: &Archive,
    file: &mut HeaderFile,
    blocks: &mut [(BlockHash, BlockEntry)],
) -> Result<(), Error> {
    // Parents first.
    blocks.sort_by_key(|(hash, entry)| (entry.height, *hash));
    let mut restored = Vec::new();
    for (hash, _) in blocks {
        if let Some(header) = archive.read_header(hash)?
            && read_headers(tree, &[Record::Header(header)]).is_ok()
        {
            restored.push(header);
        }
    }
    if restored.is_empty() {
        return Ok(());
    }
    file.append_headers(&restored)?;
    Ok(file.sync()?)
}

/// A flush under way is the one that the last checkpoint announced, from the tip.
fn check_pending(
    store: &dyn Store,
    pending: Pending,
    last: Option<&RollbackCheckpoint>,
) -> Result<(), Error> {
    let tip = schema::tip(store)?;
    let announced = last.is_some_and(|last| (last.from, last.to) == (pending.from, pending.to));
    if announced && tip == Some(pending.from) {
        return Ok(());
    }
    Err(corrupt(format!(
        "the marker of a commit under way does not fit the last checkpoint and the tip: {ANEW}"
    )))
}

/// The tip and the checkpoint that led to it. A new store is given both.
fn read_tip(
    store: &dyn Store,
    params: &Params,
    last: Option<&RollbackCheckpoint>,
) -> Result<(BlockRef, RollbackCheckpoint), Error> {
    match (schema::tip(store)?, last) {
        (Some(tip), Some(last)) if last.to == tip => {
            // A process that was killed before its commit returned may have left it in the system's memory
            // only. Nothing is told of it before it is on the disk.
            let mut again = Batch::new();
            schema::put_tip(&mut again, tip);
            store.commit(again, Durability::Durable)?;
            Ok((tip, last.clone()))
        }
        (None, None) => {
            let tip = BlockRef { height: 0, hash: params.genesis_hash() };
            let time = u64::from(params.genesis_header().time);
            let checkpoint = RollbackCheckpoint::next(None, time, tip, tip);
            let mut batch = Batch::new();
            schema::put_tip(&mut batch, tip);
            schema::put_checkpoint(&mut batch, &checkpoint);
            store.commit(batch, Durability::Durable)?;
            Ok((tip, checkpoint))
        }
        _ => Err(corrupt(format!("the last checkpoint does not lead to the tip: {ANEW}"))),
    }
}

/// Marks the active chain as stored and connected; the median times past below the tip.
fn mark_chain(tree: &mut BlockTree, tip: HeaderId) -> Vec<u32> {
    let mut chain: Vec<HeaderId> = core::iter::successors(Some(tip), |id| tree.parent(*id)).collect();
    chain.reverse();
    for id in &chain[1..] {
        tree.body_stored(*id);
        tree.connected(*id);
    }
    chain.pop();
    chain.into_iter().map(|id| tree.median_time_past(id)).collect()
}

/// The height of the fork of a commit's two tips; 0 if it can't be told.
fn last_fork(tree: &BlockTree, last: &RollbackCheckpoint) -> u32 {
    match (tree.find(&last.from.hash), tree.find(&last.to.hash)) {
        (Some(from), Some(to)) => tree.height(tree.fork_point(from, to)),
        _ => 0,
    }
}

/// The index of blocks, as it was written.
type Index = Vec<(BlockHash, BlockEntry)>;

/// Has a thread read the index, some 80 bytes an entry, while this one goes through the headers.
fn read_index(pool: &Pool, store: Arc<dyn Store>) -> Receiver<Result<Index, Error>> {
    let read = move || -> Result<Index, StoreError> {
        let mut index = Vec::new();
        each_entry(&*store, Table::Blocks, |entries| {
            for (key, value) in &entries {
                let hash = BlockHash::from_slice(key)
                    .map_err(|_| schema::corrupt(Table::Blocks, key, "not a block's hash"))?;
                index.push((hash, BlockEntry::decode(hash, value)?));
            }
            Ok(())
        })?;
        Ok(index)
    };
    let (done, result) = bounded(1);
    pool.run_first(read, move |index| {
        let index = match index {
            Ok(index) => index.map_err(Error::from),
            Err(panic) => Err(Error::WorkerPanic(panic.0)),
        };
        // Who asked waits for the answer.
        let _ = done.send(index);
    });
    result
}

/// Marks what is stored besides the active chain. Answers the height below which blocks of that chain, or their undo
/// data, are pruned.
fn mark_bodies(
    tree: &mut BlockTree,
    archive: &mut Archive,
    file: &mut HeaderFile,
    index: Index,
) -> Result<u32, Error> {
    let mut pruned_below = 0;
    let mut stored: Vec<(Location, HeaderId)> = Vec::new();
    let mut connected = Vec::new();
    let mut headless = Vec::new();
    let mut mark = |id: HeaderId, entry: &BlockEntry| {
        stored.extend(entry.block.map(|location| (location, id)));
        if entry.undo.is_some() {
            connected.push(id);
        }
    };
    for (hash, written) in index {
        let entry = archive.note(written);
        match tree.find(&hash) {
            // Until now only the active chain is marked.
            Some(id) if tree.has_body(id) => {
                if entry != written {
                    pruned_below = pruned_below.max(entry.height.saturating_add(1));
                }
            }
            Some(id) => mark(id, &entry),
            None => headless.push((hash, entry)),
        }
    }
    restore_branches(tree, archive, file, &mut headless)?;
    for (hash, entry) in &headless {
        if let Some(id) = tree.find(hash) {
            mark(id, entry);
        }
    }
    stored.sort_unstable();
    stored.into_iter().for_each(|(_, id)| tree.body_stored(id));
    connected.into_iter().for_each(|id| tree.connected(id));
    Ok(pruned_below)
}

/// Repeats a flush that was cut short.
fn replay(
    store: &Arc<dyn Store>,
    archive: &Archive,
    tree: &BlockTree,
    pending: Pending,
    budget: usize,
    key: u64,
) -> Result<(), Error> {
    let (from, to) = (find(tree, pending.from)?, find(tree, pending.to)?);
    let (back, forward) = tree.path(from, to, usize::MAX);
    let mut coins = Coins::new(store.clone(), budget, key)?;
    let write = |coins: &mut Coins, last: bool| -> Result<(), Error> {
        if last || coins.is_full() {
            write_coins(&**store, coins)?;
            coins.make_room();
        }
        Ok(())
    };
    for id in back {
        let undo = to_disconnect(archive, tree.block(id))?.map_err(|Lost(block)| gone(archive, block))?;
        roll_back(&mut coins, &undo.block, &undo.coins)?;
        write(&mut coins, false)?;
    }
    for id in forward {
        let block = tree.block(id);
        let body = stored(archive, &block.hash)?.ok_or_else(|| gone(archive, block))?;
        roll_forward(&mut coins, &body, block.height);
        write(&mut coins, false)?;
    }
    write(&mut coins, true)?;
    let mut batch = Batch::new();
    schema::put_tip(&mut batch, pending.to);
    schema::clear_pending(&mut batch);
    Ok(store.commit(batch, Durability::Durable)?)
}

/// A block that a flush has to be repeated with cannot be read, and there is no network yet to fetch it from.
fn gone(archive: &Archive, block: BlockRef) -> Error {
    let damage = archive.damage(&block.hash);
    corrupt(format!(
        "a commit was cut short, and block {} at height {}, which is needed to finish it, is damaged ({damage}): \
         {ANEW}",
        block.hash, block.height
    ))
}
