//! The contract between the engine and the chainstate (`chain::command`): what is reported, in which order,
//! and what is not reported before it is proved.

#![cfg(feature = "consensus")]

#[path = "../ground/mod.rs"]
mod ground;
mod side;

use bitcoin::hashes::Hash;
use bitcoin::{Block, BlockHash, OutPoint, ScriptBuf, Txid};
use crossbeam_channel::{Receiver, unbounded};
use ground::{ANYONE, Ground, NOBODY, SUBSIDY, bytes, mine, mine_at, output, spend};
use headlong::chain::command::{BlockRef, ChainCommand, ChainReport, HeaderMark, RawBlock};
use headlong::chain::params::{BuriedDeployment, Network, Params, RegtestOptions};
use headlong::consensus::header;
use headlong::error::{Error, RejectKind};
use headlong::sim::disk::{DiskFault, SimDisk};
use headlong::sim::forge;
use headlong::store::header_file::HEADER_FILE;
use headlong::store::medium::Medium;
use headlong::store::{Batch, Durability, Store, schema};
use headlong::verify::interpreter::Interpreter;
use headlong::verify::{TxScripts, Verdict, Verifier, VerifierError};
use side::{Side, coinbase_of, stored, three, trunk};
use std::sync::Arc;

#[test]
fn blocks_connect_commit_and_disconnect_in_order() {
    for threads in [0, 2] {
        let ground = Ground::new(threads, 1_000, 1 << 20);
        let mut side = Side::new(ground.open_bare(Arc::new(Interpreter)));
        let trunk = trunk(&ground, &mut side);
        let more = three(&trunk, ANYONE);
        stored(&mut side, &more);
        more.iter().for_each(|block| side.connect(block));
        side.commit();
        side.commit();
        assert_eq!(
            side.reports(),
            [
                "connected 102 1 2",
                "connected 103 1 2",
                "connected 104 1 2",
                "checkpoint 2 0-104",
                "committed 104",
                "committed 104"
            ]
        );
        let spent = OutPoint::new(more[1].txdata[1].compute_txid(), 0);
        assert_eq!(side.chainstate.coin(&spent).unwrap().0, None);
        let tip = BlockRef { height: 104, hash: more[2].block_hash() };
        side.chainstate.submit(ChainCommand::Disconnect(tip));
        assert_eq!(side.reports(), ["disconnected 104 103"]);
        let (coin, at) = side.chainstate.coin(&spent).unwrap();
        assert_eq!(coin.unwrap().height, 103);
        assert_eq!(at.hash, more[1].block_hash());
        side.connect(&more[2]);
        side.commit();
        assert_eq!(side.reports(), ["connected 104 1 2", "checkpoint 3 104-104", "committed 104"]);
    }
}

#[test]
fn a_stored_block_is_told_again_and_not_written_twice() {
    let ground = Ground::new(2, 1_000, 1 << 20);
    let mut side = Side::new(ground.open_bare(Arc::new(Interpreter)));
    let block = mine(ground.params.genesis_header(), 1, 0, SUBSIDY, Vec::new());
    side.store(&block);
    side.store(&block);
    side.chainstate.submit(ChainCommand::ReadBlock(block.block_hash()));
    assert_eq!(side.reports(), ["stored 1 1", "stored 1 1", "read true"]);
    let size = ground.medium.len("blk-000000.dat").unwrap();
    side.store(&block);
    assert_eq!(side.reports(), ["stored 1 1"]);
    assert_eq!(ground.medium.len("blk-000000.dat").unwrap(), size);
    assert_eq!(side.chainstate.read_block(&block.block_hash()).unwrap().unwrap().bytes()[..], bytes(&block));
    side.chainstate.submit(ChainCommand::ReadBlock(BlockHash::from_byte_array([1; 32])));
    assert_eq!(side.reports(), ["read false"]);
}

#[test]
fn a_refusal_says_whether_the_hash_is_bad_or_the_body() {
    let ground = Ground::new(1, 1_000, 1 << 20);
    let mut side = Side::new(ground.open_bare(Arc::new(Interpreter)));
    let wrong_height = mine(ground.params.genesis_header(), 7, 0, SUBSIDY, Vec::new());
    let good = mine(ground.params.genesis_header(), 1, 0, SUBSIDY, Vec::new());
    let mut mutated = good.clone();
    mutated.txdata.push(good.txdata[0].clone());
    let mut kinds = Vec::new();
    for body in [bytes(&wrong_height), bytes(&mutated), bytes(&good)[..100].to_vec()] {
        let raw = RawBlock::new(body).unwrap();
        let id = header::accept(&mut side.tree, raw.header(), ground::CLOCK).unwrap();
        let context = side.tree.context(id);
        side.chainstate.submit(ChainCommand::StoreBlock(context, raw));
        side.chainstate.settle();
        let Some(ChainReport::Refused { reject, .. }) = side.chainstate.poll() else { panic!() };
        kinds.push((reject.kind, reject.reason));
    }
    assert_eq!(
        kinds,
        [
            (RejectKind::Consensus, "bad-cb-height"),
            (RejectKind::Mutated, "bad-txnmrklroot"),
            (RejectKind::Mutated, "decode-failed")
        ]
    );
    side.store(&good);
    assert_eq!(side.reports(), ["stored 1 1"]);
}

/// Whoever changed the coinbase of a signet's block on its way made us take the block itself for invalid,
/// for ever: the signature of the signet was looked at before the merkle root.
#[test]
fn a_changed_body_on_a_signet_does_not_condemn_the_hash() {
    let mut ground = Ground::new(1, 1_000, 1 << 20);
    let mut params = Params::new(Network::Regtest);
    params.signet_challenge = Some(ScriptBuf::from_bytes(vec![ANYONE]));
    ground.params = Arc::new(params);
    let mut side = Side::new(ground.open_bare(Arc::new(Interpreter)));
    let mut good = mine(ground.params.genesis_header(), 1, 0, SUBSIDY, Vec::new());
    forge::commit_to_witnesses(&mut good);
    // BIP325's solution, with an empty script and an empty witness.
    let commitment = &mut good.txdata[0].output.last_mut().unwrap().script_pubkey;
    let mut script = commitment.to_bytes();
    script.extend([6, 0xec, 0xc7, 0xda, 0xa2, 0, 0]);
    *commitment = ScriptBuf::from_bytes(script);
    forge::mine(&mut good);
    let mut changed = good.clone();
    changed.txdata[0].output.pop();
    side.context(&good);
    assert_eq!(refusal(&mut side, &changed), (RejectKind::Mutated, "bad-signet-blksig"));
    side.store(&good);
    assert_eq!(side.reports(), ["stored 1 1"]);
}

/// An inner node of the merkle tree, which is two hashes of 32 bytes, may read as a transaction. A body of
/// such nodes has the right root and no coinbase; it made us take the block itself for invalid.
#[test]
fn a_body_of_inner_nodes_does_not_condemn_the_hash() {
    let ground = Ground::new(1, 1_000, 1 << 20);
    let mut side = Side::new(ground.open_bare(Arc::new(Interpreter)));
    let mut node = spend(&[OutPoint::new(Txid::from_byte_array([7; 32]), 0)], vec![output(1, ANYONE)]);
    node.input[0].script_sig = ScriptBuf::from_bytes(vec![ANYONE; 3]);
    assert_eq!(bitcoin::consensus::serialize(&node).len(), 64);
    let mut body = mine(ground.params.genesis_header(), 1, 0, SUBSIDY, Vec::new());
    body.txdata = vec![node];
    forge::mine(&mut body);
    assert_eq!(refusal(&mut side, &body), (RejectKind::Mutated, "bad-cb-missing"));
    // A transaction of another length is no node: then there is just no coinbase.
    body.txdata[0].input[0].script_sig = ScriptBuf::new();
    forge::mine(&mut body);
    assert_eq!(refusal(&mut side, &body), (RejectKind::Consensus, "bad-cb-missing"));
}

/// What a body is refused for.
fn refusal(side: &mut Side, body: &Block) -> (RejectKind, &'static str) {
    let context = side.context(body);
    side.chainstate.submit(ChainCommand::StoreBlock(context, RawBlock::new(bytes(body)).unwrap()));
    side.chainstate.settle();
    let Some(ChainReport::Refused { reject, .. }) = side.chainstate.poll() else { panic!("not refused") };
    (reject.kind, reject.reason)
}

#[test]
fn what_stands_on_an_invalid_block_is_dropped() {
    for threads in [0, 2] {
        let ground = Ground::new(threads, 1_000, 1 << 20);
        let mut side = Side::new(ground.open_bare(Arc::new(Interpreter)));
        let trunk = trunk(&ground, &mut side);
        // The third block spends what nobody can.
        let bad = three(&trunk, NOBODY);
        let above = mine(&bad[2].header, 105, 0, SUBSIDY, Vec::new());
        let all: Vec<Block> = bad.iter().cloned().chain([above]).collect();
        stored(&mut side, &all);
        all.iter().for_each(|block| side.connect(block));
        let mut reports = side.reports();
        // With threads the last one may be on top already, or still in the queue.
        assert_eq!(
            std::mem::take(&mut reports),
            [
                "connected 102 1 2",
                "connected 103 1 2",
                "invalid 104 block-script-verify-flag-failed",
                "dropped 105 false"
            ]
        );
        assert_eq!(side.chainstate.tip().hash, bad[1].block_hash());
        // A disconnect that was on its way meanwhile finds nothing to do.
        let gone = BlockRef { height: 104, hash: bad[2].block_hash() };
        side.chainstate.submit(ChainCommand::Disconnect(gone));
        assert_eq!(side.reports(), ["disconnected 104 103"]);
        let good = mine(&bad[1].header, 104, 1, SUBSIDY, Vec::new());
        stored(&mut side, std::slice::from_ref(&good));
        side.connect(&good);
        side.commit();
        assert_eq!(side.reports(), ["connected 104 0 1", "checkpoint 2 0-104", "committed 104"]);
    }
}

/// Executes no script before it is let, for transactions of this id.
#[derive(Debug)]
struct Gate {
    held: bitcoin::Txid,
    open: Receiver<()>,
}

impl Verifier for Gate {
    fn verify(&self, batch: &[TxScripts<'_>]) -> Result<Verdict, VerifierError> {
        if batch.iter().any(|scripts| scripts.tx.compute_txid() == self.held) {
            let _ = self.open.recv();
        }
        Interpreter.verify(batch)
    }
}

#[test]
fn nothing_is_reported_before_all_ancestors_are_proved() {
    let ground = Ground::new(2, 1_000, 1 << 20);
    // The blocks have to be known to hold one of them, so they are made on another ground.
    let other = Ground::new(0, 1_000, 1 << 20);
    let made = trunk(&other, &mut Side::new(other.open_bare(Arc::new(Interpreter))));
    let more = three(&made, ANYONE);
    let (let_go, open) = unbounded();
    let held = more[0].txdata[1].compute_txid();
    let mut side = Side::new(ground.open_bare(Arc::new(Gate { held, open })));
    trunk(&ground, &mut side);
    stored(&mut side, &more);
    more.iter().for_each(|block| side.connect(block));
    side.commit();
    // The scripts of the upper two end, those of the lowest do not.
    let completions = side.chainstate.completions().clone();
    for _ in 0..2 {
        side.chainstate.complete(completions.recv().unwrap());
    }
    assert_eq!(side.waiting(), Vec::<String>::new());
    assert_eq!(side.chainstate.tip().height, 101);
    let made = OutPoint::new(more[2].txdata[1].compute_txid(), 0);
    assert_eq!(side.chainstate.coin(&made).unwrap().0, None);
    assert!(side.chainstate.memory().unproved > 0);
    let held = side.chainstate.pipeline();
    assert_eq!((held.connect.done, held.scripts.waiting), (104, 3));
    assert!(!held.wait_scripts.total.is_zero());
    let_go.send(()).unwrap();
    assert_eq!(
        side.reports(),
        [
            "connected 102 1 2",
            "connected 103 1 2",
            "connected 104 1 2",
            "checkpoint 2 0-104",
            "committed 104"
        ]
    );
    assert_eq!(side.chainstate.coin(&made).unwrap().0.unwrap().height, 104);
    assert_eq!(side.chainstate.memory().unproved, 0);
    let done = side.chainstate.pipeline();
    assert_eq!((done.connect.done, done.scripts.done, done.scripts.waiting), (104, 3, 0));
    assert!(done.check.done >= 104 && !done.scripts.busy.is_zero() && !done.connect.busy.is_zero());
}

/// Breaks down in one way or another.
#[derive(Debug)]
struct Broken {
    panics: bool,
}

impl Verifier for Broken {
    fn verify(&self, _: &[TxScripts<'_>]) -> Result<Verdict, VerifierError> {
        assert!(!self.panics, "a deliberate panic");
        Err(VerifierError { reason: "out of order".into() })
    }
}

#[test]
fn a_broken_verifier_condemns_no_block() {
    for threads in [0, 1] {
        for (panics, error) in [
            (true, "failed: a worker panicked: a deliberate panic"),
            (false, "failed: the verifier failed: out of order"),
        ] {
            let ground = Ground::new(threads, 1_000, 1 << 20);
            let mut side = Side::new(ground.open_bare(Arc::new(Broken { panics })));
            let trunk = trunk(&ground, &mut side);
            let more = three(&trunk, ANYONE);
            stored(&mut side, &more);
            side.connect(&more[0]);
            assert_eq!(side.reports(), [error]);
            // It takes no more commands.
            side.commit();
            assert_eq!(side.reports(), Vec::<String>::new());
        }
    }
}

#[test]
fn a_full_cache_asks_for_a_commit_and_waits() {
    let ground = Ground::new(0, 1_000, 1);
    let mut side = Side::new(ground.open_bare(Arc::new(Interpreter)));
    let first = mine(ground.params.genesis_header(), 1, 0, SUBSIDY, Vec::new());
    let second = mine(&first.header, 2, 0, SUBSIDY, Vec::new());
    let third = mine(&second.header, 3, 0, SUBSIDY, Vec::new());
    stored(&mut side, &[first.clone(), second.clone(), third.clone()]);
    side.connect(&first);
    side.connect(&second);
    let mut reports = side.reports();
    reports.sort();
    assert_eq!(reports, ["commit wanted", "connected 1 0 1"]);
    let waits = side.chainstate.pipeline();
    assert!(!waits.wait_commit.total.is_zero());
    assert_eq!((waits.connect.waiting, waits.commit.waiting), (1, 1));
    // It goes ahead of the block that waits, for which there is no room.
    side.commit();
    side.connect(&third);
    let expected = ["checkpoint 2 0-1", "committed 1", "commit wanted", "connected 2 0 1"];
    let mut reports = side.reports();
    reports[2..].sort();
    assert_eq!(reports, expected);
    side.commit();
    assert_eq!(side.reports(), ["checkpoint 3 1-2", "committed 2", "connected 3 0 1"]);
    assert_eq!(side.chainstate.durable_tip().height, 2);
}

#[test]
fn a_damaged_body_is_told_lost_and_can_be_stored_anew() {
    let ground = Ground::new(0, 1_000, 1 << 20);
    let mut side = Side::new(ground.open_bare(Arc::new(Interpreter)));
    let block = mine(ground.params.genesis_header(), 1, 0, SUBSIDY, Vec::new());
    side.store(&block);
    assert_eq!(side.reports(), ["stored 1 1"]);
    side.commit();
    assert_eq!(side.reports(), ["committed 0"]);
    drop(side);
    // The record is cut off behind the segment's header of 40 bytes: the index still names it.
    ground.medium.truncate("blk-000000.dat", 60).unwrap();
    let mut side = Side::new(ground.open_bare(Arc::new(Interpreter)));
    side.connect(&block);
    assert_eq!(side.reports(), ["dropped 1 true"]);
    side.store(&block);
    side.connect(&block);
    assert_eq!(side.reports(), ["stored 1 1", "connected 1 0 1"]);
}

/// A block's scripts were proved, and its undo data could not be stored. What takes the block back was forgotten before,
/// while the tip stayed below it: a host was told that a coin is spent which is not. (Found by the simulation.)
#[test]
fn a_block_whose_undo_data_cannot_be_stored_is_not_half_proved() {
    let ground = Ground::new(0, 1_000, 1 << 20);
    let disk = SimDisk::new(1_000);
    let mut side = Side::new(ground.open_on(&disk, Arc::new(Interpreter)));
    let trunk = trunk(&ground, &mut side);
    let coin = coinbase_of(&trunk[0]);
    let tx = spend(&[coin], vec![output(SUBSIDY, ANYONE)]);
    let block = mine(&trunk[100].header, 102, 0, SUBSIDY, vec![tx]);
    side.store(&block);
    assert_eq!(side.reports(), ["stored 102 2"]);
    disk.strike(disk.writes() + 1, DiskFault::Fail);
    side.connect(&block);
    let reports = side.reports();
    assert!(reports.len() == 1 && reports[0].contains("append to undo-"), "{reports:?}");
    let (found, tip) = side.chainstate.coin(&coin).unwrap();
    assert_eq!((found.map(|coin| coin.height), tip.height), (Some(1), 101));
}

#[test]
fn marks_and_headers_survive_a_restart() {
    let ground = Ground::new(0, 1_000, 1 << 20);
    let mut side = Side::new(ground.open_bare(Arc::new(Interpreter)));
    let blocks = trunk(&ground, &mut side);
    let (low, high) = (blocks[49].block_hash(), blocks[99].block_hash());
    side.chainstate.submit(ChainCommand::SaveMark(high, HeaderMark::Invalid));
    side.chainstate.submit(ChainCommand::SaveMark(low, HeaderMark::Invalid));
    side.chainstate.submit(ChainCommand::SaveMark(low, HeaderMark::Reconsidered));
    side.chainstate.submit(ChainCommand::SaveMark(high, HeaderMark::Invalid));
    side.commit();
    side.reports();
    drop(side);
    let opened = ground.open_bare(Arc::new(Interpreter));
    assert_eq!(opened.tree.len(), 102);
    assert_eq!(opened.tip.height, 101);
    let failed = |block: &Block| opened.tree.is_failed(opened.tree.find(&block.block_hash()).unwrap());
    assert!(!failed(&blocks[98]) && failed(&blocks[99]) && failed(&blocks[100]));
}

/// The header file loses its end, from any byte on: what leads to the tip is taken from the stored blocks,
/// and is in the file again at the next start. The header of a block that is not stored is gone.
#[test]
fn headers_that_were_lost_come_back_from_the_stored_blocks() {
    let ground = Ground::new(0, 1_000, 1 << 20);
    let mut side = Side::new(ground.open_bare(Arc::new(Interpreter)));
    let blocks = trunk(&ground, &mut side);
    let above = mine(&blocks[100].header, 102, 0, SUBSIDY, Vec::new());
    side.chainstate.submit(ChainCommand::SaveHeaders(vec![above.header]));
    side.commit();
    side.reports();
    drop(side);
    let whole = ground.medium.len(HEADER_FILE).unwrap() as usize;
    for kept in [whole - 1, whole / 2, 9, 3, 0] {
        let damaged = ground.with_store(ground.store.fork());
        let mut byte = [0];
        damaged.medium.read_at(HEADER_FILE, kept as u64, &mut byte).unwrap();
        let mut rest = vec![0; whole - kept - 1];
        damaged.medium.read_at(HEADER_FILE, kept as u64 + 1, &mut rest).unwrap();
        damaged.medium.truncate(HEADER_FILE, kept as u64).unwrap();
        damaged.medium.append(HEADER_FILE, &[&[byte[0] ^ 1], &rest]).unwrap();
        for _ in 0..2 {
            let opened = damaged.open_bare(Arc::new(Interpreter));
            assert_eq!((opened.tip.height, opened.tree.len()), (101, 102), "{kept} bytes kept");
            assert_eq!(opened.tip.hash, blocks[100].block_hash());
        }
        let mut side = Side::new(damaged.open_bare(Arc::new(Interpreter)));
        side.store(&above);
        side.connect(&above);
        assert_eq!(side.reports(), ["stored 102 1", "connected 102 0 1"]);
    }
}

/// If the block that a lost header belongs to is gone as well, nothing can be had back: the error says which
/// and what remains to be done.
#[test]
fn a_lost_header_of_a_lost_block_is_an_error_that_names_it() {
    let ground = Ground::new(0, 1_000, 1 << 20);
    let mut side = Side::new(ground.open_bare(Arc::new(Interpreter)));
    let blocks = trunk(&ground, &mut side);
    side.commit();
    side.reports();
    drop(side);
    ground.medium.truncate(HEADER_FILE, 8).unwrap();
    ground.medium.truncate("blk-000000.dat", 60).unwrap();
    let Err(Error::Store(error)) = ground.open_failing(usize::MAX, false) else { panic!("opened") };
    assert_eq!(error.kind, headlong::store::StoreErrorKind::Corrupt);
    let named = blocks.iter().any(|block| error.to_string().contains(&block.block_hash().to_string()));
    assert!(named && error.to_string().contains("header file"), "{error}");
}

/// Three blocks with spends on a committed trunk, ready to be undone.
fn committed_three(ground: &Ground) -> Vec<Block> {
    let mut side = Side::new(ground.open_bare(Arc::new(Interpreter)));
    let trunk = trunk(ground, &mut side);
    let more = three(&trunk, ANYONE);
    stored(&mut side, &more);
    more.iter().for_each(|block| side.connect(block));
    side.commit();
    side.reports();
    [trunk, more].concat()
}

fn tip_of(blocks: &[Block]) -> BlockRef {
    BlockRef { height: blocks.len() as u32, hash: blocks.last().unwrap().block_hash() }
}

/// Cuts all files of a kind behind their headers.
fn cut_all(ground: &Ground, kind: &str) {
    for name in ground.medium.list().unwrap().iter().filter(|name| name.starts_with(kind)) {
        ground.medium.truncate(name, 60).unwrap();
    }
}

/// The bug: damaged undo data ended the node at the next reorg, although all that it says can be found in
/// the blocks below.
#[test]
fn undo_data_that_is_damaged_is_made_anew_from_the_blocks() {
    let ground = Ground::new(0, 1_000, 1 << 20);
    let blocks = committed_three(&ground);
    let whole = ground.with_store(ground.store.fork());
    cut_all(&ground, "undo-");
    let undone = |ground: &Ground| {
        let mut side = Side::new(ground.open_bare(Arc::new(Interpreter)));
        for height in [104, 103, 102] {
            side.chainstate.submit(ChainCommand::Disconnect(tip_of(&blocks[..height])));
        }
        side.commit();
        let reports = side.reports();
        assert_eq!(reports[..3], ["disconnected 104 103", "disconnected 103 102", "disconnected 102 101"]);
        // Connected again, they have undo data again.
        blocks[101..].iter().for_each(|block| side.connect(block));
        side.commit();
        side.reports();
        ground.stored_coins()
    };
    assert_eq!(undone(&ground), undone(&whole));
    cut_all(&ground, "blk-");
    let mut side = Side::new(ground.open_bare(Arc::new(Interpreter)));
    side.chainstate.submit(ChainCommand::Disconnect(tip_of(&blocks)));
    assert_eq!(side.reports(), ["missing 104", "dropped 104 false"]);
}

/// The bug: a stored block that was damaged ended the node when a reorg had to undo it.
#[test]
fn a_damaged_block_that_is_to_be_undone_is_told_and_can_be_stored_anew() {
    let ground = Ground::new(0, 1_000, 1 << 20);
    let blocks = committed_three(&ground);
    let before = ground.stored_coins();
    cut_all(&ground, "blk-");
    let mut side = Side::new(ground.open_bare(Arc::new(Interpreter)));
    for height in [104, 103] {
        side.chainstate.submit(ChainCommand::Disconnect(tip_of(&blocks[..height])));
    }
    // What stood behind it is not carried out either.
    assert_eq!(side.reports(), ["missing 104", "dropped 104 false", "dropped 103 false"]);
    assert_eq!(side.chainstate.tip(), tip_of(&blocks));
    // A commit meanwhile forgets nothing.
    side.commit();
    side.reports();
    drop(side);
    let mut side = Side::new(ground.open_bare(Arc::new(Interpreter)));
    assert_eq!(ground.stored_coins(), before);
    side.chainstate.submit(ChainCommand::Disconnect(tip_of(&blocks)));
    assert_eq!(side.reports(), ["missing 104", "dropped 104 false"]);
    side.store(&blocks[103]);
    assert_eq!(side.reports(), ["stored 104 2"]);
    side.chainstate.submit(ChainCommand::Disconnect(tip_of(&blocks)));
    assert_eq!(side.reports(), ["disconnected 104 103"]);
    // Undo data that is damaged as well asks for the block that made what was spent.
    drop(side);
    cut_all(&ground, "undo-");
    let mut side = Side::new(ground.open_bare(Arc::new(Interpreter)));
    let mut asked = Vec::new();
    for _ in 0..4 {
        side.chainstate.submit(ChainCommand::Disconnect(tip_of(&blocks)));
        let reports = side.reports();
        let Some(height) = reports[0].strip_prefix("missing ") else {
            assert_eq!(reports, ["disconnected 104 103"]);
            break;
        };
        let height: usize = height.parse().unwrap();
        asked.push(height);
        side.store(&blocks[height - 1]);
        side.reports();
    }
    assert_eq!(asked, [104, 103], "the third block spends what the second made");
    assert_eq!(side.chainstate.tip().height, 103);
}

/// The same without a network: the error names the block, and whoever has it gives it again.
#[test]
fn a_front_leaves_a_damaged_tip_once_its_block_is_given_again() {
    let ground = Ground::new(0, 1_000, 1 << 20);
    let blocks = committed_three(&ground);
    cut_all(&ground, "blk-");
    let mut front = ground.open();
    let mut parent = blocks[102].header;
    let branch: Vec<Block> = (104..106)
        .map(|height| {
            let block = mine(&parent, height, 7, SUBSIDY, Vec::new());
            parent = block.header;
            block
        })
        .collect();
    let told = |result: Result<_, Error>| match result {
        Ok((_, verdict)) => format!("{verdict:?}"),
        Err(error) => error.to_string(),
    };
    assert_eq!(told(front.process_block(bytes(&branch[0]))), "Side");
    let needed = told(front.process_block(bytes(&branch[1])));
    assert!(needed.contains(&blocks[103].block_hash().to_string()), "{needed}");
    assert_eq!(front.tip(), tip_of(&blocks));
    // The same after a restart, which finds the better chain by itself.
    front.commit().unwrap();
    drop(front);
    let mut front = ground.open();
    assert_eq!(front.tip(), tip_of(&blocks));
    assert_eq!(told(front.process_block(bytes(&blocks[103]))), "Side");
    assert_eq!(front.tip().hash, branch[1].block_hash());
    assert_eq!(told(front.process_block(bytes(&blocks[103]))), "Duplicate");
}

/// A flush over a reorg was cut short, and files are damaged before the next start: undo data is made anew; a
/// block that is needed to finish is named, with its file and the way out, since there is no network yet.
#[test]
fn a_flush_that_was_cut_short_needs_its_blocks_and_not_its_undo_data() {
    let ground = Ground::new(0, 3, 1 << 20);
    let blocks = committed_three(&ground);
    let mut parent = blocks[101].header;
    let branch: Vec<Block> = (103..107)
        .map(|height| {
            let block = mine(&parent, height, 7, SUBSIDY, Vec::new());
            parent = block.header;
            block
        })
        .collect();
    let mut cut_short = 0;
    for failing in 1.. {
        let ground = ground.with_store(ground.store.fork());
        let run = ground.open_failing(failing, true).and_then(|mut front| {
            branch.iter().try_for_each(|block| front.process_block(bytes(block)).map(drop))?;
            front.commit()
        });
        if run.is_ok() {
            break;
        }
        if schema::pending(&ground.store).unwrap().is_none() {
            continue;
        }
        cut_short += 1;
        let damaged = ground.with_store(ground.store.fork());
        cut_all(&damaged, "undo-");
        drop(ground.open());
        assert_eq!(damaged.open().tip(), ground.open().tip());
        assert_eq!(damaged.stored_coins(), ground.stored_coins());
        assert_eq!(damaged.open().tip().hash, branch[3].block_hash());
        let damaged = ground.with_store(ground.store.fork());
        let mut batch = Batch::new();
        let pending = schema::Pending { from: tip_of(&blocks), to: ground.open().tip() };
        schema::put_pending(&mut batch, pending);
        schema::put_tip(&mut batch, pending.from);
        damaged.store.commit(batch, Durability::Durable).unwrap();
        cut_all(&damaged, "blk-");
        let Err(Error::Store(error)) = damaged.open_failing(usize::MAX, false) else { panic!("opened") };
        let text = error.to_string();
        assert_eq!(error.kind, headlong::store::StoreErrorKind::Corrupt);
        let named = blocks.iter().chain(&branch).any(|block| text.contains(&block.block_hash().to_string()));
        assert!(named && text.contains("blk-") && text.contains("synced anew"), "{text}");
    }
    assert!(cut_short > 2, "{cut_short}");
}

#[test]
fn a_store_of_another_network_is_refused() {
    let ground = Ground::new(0, 1_000, 1 << 20);
    drop(ground.open());
    let params = Params::new(Network::Signet);
    let other = Ground { params: Arc::new(params), ..ground };
    let Err(Error::Store(error)) = other.open_failing(usize::MAX, false) else { panic!("opened") };
    assert_eq!(error.kind, headlong::store::StoreErrorKind::Unsupported);
}

/// Before BIP34 two blocks may have the same coinbase. BIP30 forbids the second while the first is unspent;
/// two blocks of mainnet did it all the same, and their coins replaced the older ones for good.
#[test]
fn a_repeated_coinbase_is_refused_or_overwrites() {
    let options = RegtestOptions::default().activation(BuriedDeployment::HeightInCoinbase, 1_000);
    let ground = Ground { params: Arc::new(Params::regtest(&options)), ..Ground::new(0, 1_000, 1 << 20) };
    let mut side = Side::new(ground.open_bare(Arc::new(Interpreter)));
    let first = mine(ground.params.genesis_header(), 1, 0, SUBSIDY, Vec::new());
    let second = mine(&first.header, 1, 0, SUBSIDY, Vec::new());
    assert_eq!(coinbase_of(&first), coinbase_of(&second));
    stored(&mut side, &[first.clone(), second.clone()]);
    side.connect(&first);
    side.connect(&second);
    assert_eq!(side.reports(), ["connected 1 0 1", "invalid 2 bad-txns-BIP30"]);
    let mut exempt = side.context(&second);
    exempt.rules.bip30 = false;
    // With the older coin in the store as well as in the cache.
    side.commit();
    side.chainstate.submit(ChainCommand::Connect(exempt));
    side.commit();
    assert_eq!(side.reports()[2..], ["connected 2 0 1", "checkpoint 3 1-2", "committed 2"]);
    let coins = ground.stored_coins();
    assert_eq!(coins.len(), 1);
    assert_eq!(coins[&coinbase_of(&second)].height, 2);
    // Going back the newer coin is removed and the older does not come back: the block that made it is not
    // one of the two that are known for this, so that it cannot be undone.
    side.chainstate.submit(ChainCommand::Disconnect(exempt.block()));
    side.chainstate.submit(ChainCommand::Disconnect(BlockRef { height: 1, hash: first.block_hash() }));
    let reports = side.reports();
    assert_eq!(reports[0], "disconnected 2 1");
    assert!(reports[1].starts_with("failed: internal error"), "{reports:?}");
}

/// A lock in units of 512 seconds counts from the median time past before the coin's block, however the
/// chainstate came to know it.
#[test]
fn relative_lock_times_use_the_median_time_past_by_height() {
    for restart in [false, true] {
        let ground = Ground::new(0, 1_000, 1 << 20);
        let mut side = Side::new(ground.open_bare(Arc::new(Interpreter)));
        let mut blocks: Vec<Block> = Vec::new();
        let mut times = vec![ground.params.genesis_header().time];
        for height in 1..=104 {
            let parent = blocks.last().map_or(*ground.params.genesis_header(), |block| block.header);
            let time = parent.time + 400 + height * 7;
            blocks.push(mine_at(&parent, time, height, 0, SUBSIDY, Vec::new()));
            times.push(time);
        }
        stored(&mut side, &blocks);
        blocks.iter().for_each(|block| side.connect(block));
        side.commit();
        side.reports();
        if restart {
            drop(side);
            side = Side::new(ground.open_bare(Arc::new(Interpreter)));
        }
        // Times ascend, so that the median of eleven is the sixth from the end.
        let mtp = |height: usize| times[height - 5];
        let elapsed = (mtp(104) - times[5 - 1 - 2]).div_euclid(512);
        // Height 4 has five blocks at and below it: the middle of 0 to 4 is block 2.
        let coin = coinbase_of(&blocks[4]);
        let attempt = |units: u32| {
            let mut tx = spend(&[coin], vec![output(SUBSIDY, ANYONE)]);
            tx.input[0].sequence = bitcoin::Sequence(1 << 22 | units);
            mine(&blocks[103].header, 105, u64::from(units), SUBSIDY, vec![tx])
        };
        let (early, right) = (attempt(elapsed + 1), attempt(elapsed));
        stored(&mut side, &[early.clone(), right.clone()]);
        side.connect(&early);
        side.connect(&right);
        assert_eq!(side.reports(), ["invalid 105 bad-txns-nonfinal", "connected 105 1 2"]);
    }
}
