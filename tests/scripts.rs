//! Scripts of whole blocks: every standard output type through the interpreter, and the same verdict from
//! any number of threads.
#![cfg(all(feature = "sim", feature = "consensus"))]

use bitcoin::consensus::serialize;
use bitcoin::{Block, OutPoint, TxOut, Witness};
use crossbeam_channel::unbounded;
use headlong::chain::command::{BlockContext, ScriptPolicy};
use headlong::chain::deployments::{Rules, ScriptFlags};
use headlong::chain::params::{Network, Params};
use headlong::consensus::block::{CheckedBlock, contextual_check_block};
use headlong::consensus::connect::CoinRules;
use headlong::consensus::decode::decode_block;
use headlong::consensus::transaction::SpentCoin;
use headlong::error::{Error, Reject};
use headlong::rng::Rng;
use headlong::sim::forge::{BlockPlan, Forge, commit_to_witnesses, mine};
use headlong::verify::interpreter::Interpreter;
use headlong::verify::pool::{Pool, WorkerPanic};
use headlong::verify::scripts::{ScriptError, ScriptPool, ScriptTask};
use headlong::verify::{
    Proof, ScriptFailure, TxScripts, Verdict, Verified, Verifier, VerifierError, check_block,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const FLAGS: ScriptFlags = ScriptFlags::ALL;

fn params() -> Arc<Params> {
    Arc::new(Params::new(Network::Regtest))
}

fn checked(block: &Block) -> CheckedBlock {
    check_block(decode_block(Arc::new(serialize(block))).unwrap(), &params(), &Interpreter).unwrap()
}

fn context(block: &CheckedBlock, height: u32) -> BlockContext {
    BlockContext {
        height,
        hash: block.hash(),
        prev: block.header().prev_blockhash,
        parent_mtp: block.header().time - 3_600,
        rules: Rules { bip30: true, bip34: true, csv: true, segwit: true, script_flags: FLAGS },
        scripts: ScriptPolicy::Verify,
    }
}

type Coins = BTreeMap<OutPoint, (TxOut, u32, bool)>;

/// Connects a block to a naive set of coins; its script task.
fn connect(coins: &mut Coins, block: &Block, height: u32) -> ScriptTask {
    let block = checked(block);
    let context = context(&block, height);
    contextual_check_block(&block, &context).unwrap();
    let params = params();
    let mut rules = CoinRules::new(&block, &context, &params);
    let mut all = Vec::new();
    for (index, tx) in block.transactions().iter().enumerate() {
        let inputs = if index == 0 { &[][..] } else { &tx.input };
        let spent: Vec<_> =
            inputs.iter().map(|input| coins.remove(&input.previous_output).unwrap()).collect();
        let views: Vec<_> = spent
            .iter()
            .map(|(output, height, coinbase)| SpentCoin { output, height: *height, coinbase: *coinbase })
            .collect();
        rules.transaction::<Reject>(&views, |_| unreachable!("no relative times")).unwrap();
        let txid = block.txids()[index];
        for (vout, output) in tx.output.iter().enumerate() {
            coins.insert(OutPoint { txid, vout: vout as u32 }, (output.clone(), height, index == 0));
        }
        all.extend(spent.into_iter().map(|(output, ..)| output));
    }
    rules.finish().unwrap();
    ScriptTask { block: Arc::new(block), spent: all.into(), context }
}

fn pools(verifier: impl Verifier + 'static) -> Vec<ScriptPool> {
    let verifier: Arc<dyn Verifier> = Arc::new(verifier);
    let pool =
        |threads| ScriptPool::new(Arc::new(Pool::new("scripts", threads, 8).unwrap()), verifier.clone());
    [0, 1, 3].map(pool).into()
}

/// A chain whose last block has this many inputs of all kinds, and that block with its task.
fn big_block(inputs: usize) -> (Block, ScriptTask) {
    let mut forge = Forge::new(params(), 7);
    let mut branch = forge.genesis(None);
    let mut coins = Coins::new();
    for height in 1..=102 {
        // Each mature coinbase is split into many.
        let plan = BlockPlan { inputs: usize::from(height > 100), growth: inputs };
        connect(&mut coins, &forge.extend(&mut branch, plan), height);
    }
    let block = forge.extend(&mut branch, BlockPlan { inputs, growth: 0 });
    let task = connect(&mut coins, &block, 103);
    assert!(task.block.inputs() >= inputs);
    (block, task)
}

/// Length and first byte, which tell the standard output types apart.
fn form(output: &TxOut) -> (usize, u8) {
    (output.script_pubkey.len(), output.script_pubkey.as_bytes()[0])
}

#[test]
fn every_output_type_is_spent_and_damage_is_found_at_the_same_input_by_any_number_of_threads() {
    let (block, task) = big_block(400);
    let pools = pools(Interpreter);
    let check = |task: &ScriptTask| -> Vec<Result<Proof, ScriptError>> {
        let check = |pool: &ScriptPool| pool.check::<()>(task.clone(), None).wait();
        pools.iter().map(|pool| check(pool).map(|verified: Verified<_>| verified.proof())).collect()
    };
    assert_eq!(check(&task), [const { Ok(Proof::Scripts) }; 3]);
    // P2PK, P2PKH, P2SH, bare multisig, P2WPKH, P2WSH, P2TR, P2A.
    assert_eq!(task.spent.iter().map(form).collect::<BTreeSet<_>>().len(), 8);

    let mut rng = Rng::from_number(1);
    for _ in 0..6 {
        let mut damaged = block.clone();
        let mut expected = None;
        for _ in 0..3 {
            let tx = 1 + rng.below(damaged.txdata.len() as u64 - 1) as usize;
            let input = rng.below(damaged.txdata[tx].input.len() as u64) as usize;
            let before: usize = block.txdata[1..tx].iter().map(|tx| tx.input.len()).sum();
            // Anybody may spend an anchor, with any witness. All others fail with this one.
            if form(&task.spent[before + input]).0 == 4 {
                continue;
            }
            let txin = &mut damaged.txdata[tx].input[input];
            txin.witness = Witness::from_slice(&[vec![1], vec![0x6a]]);
            let failure = ScriptFailure { transaction: tx, input };
            let before = |at: &ScriptFailure| (at.transaction, at.input) < (tx, input);
            expected = expected.filter(before).or(Some(failure));
        }
        commit_to_witnesses(&mut damaged);
        mine(&mut damaged);
        let damaged = checked(&damaged);
        let context = context(&damaged, 103);
        // The interpreter alone, one transaction after another, is the model.
        let mut left = &task.spent[..];
        let model = damaged.transactions().iter().enumerate().skip(1).find_map(|(index, tx)| {
            let (spent, rest) = left.split_at(tx.input.len());
            left = rest;
            let scripts = TxScripts { tx, raw: damaged.raw_transaction(index), spent, flags: FLAGS };
            match Interpreter.verify(&[scripts]).unwrap() {
                Verdict::Valid => None,
                Verdict::Invalid(at) => Some(ScriptFailure { transaction: index, input: at.input }),
            }
        });
        assert!(model.is_some());
        assert_eq!(model, expected);
        let task = ScriptTask { block: Arc::new(damaged), context, ..task.clone() };
        for result in check(&task) {
            assert_eq!(result, Err(ScriptError::Failed(model.unwrap())));
        }
    }
}

/// Says what a script says by a rule on the transaction's lock time, and counts its calls.
#[derive(Debug, Default)]
struct Scripted(Arc<AtomicUsize>);

impl Verifier for Scripted {
    fn verify(&self, batch: &[TxScripts<'_>]) -> Result<Verdict, VerifierError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        for (transaction, scripts) in batch.iter().enumerate() {
            assert_eq!(scripts.spent.len(), scripts.tx.input.len());
            assert_eq!(scripts.raw, serialize(scripts.tx));
            match scripts.tx.lock_time.to_consensus_u32() {
                0 => {}
                1 => return Ok(Verdict::Invalid(ScriptFailure { transaction, input: 0 })),
                2 => return Err(VerifierError { reason: "no verdict".into() }),
                _ => panic!("as told"),
            }
        }
        Ok(Verdict::Valid)
    }
}

#[test]
fn what_the_lowest_transaction_meets_is_the_verdict_whoever_comes_first() {
    let (block, task) = big_block(300);
    let count = block.txdata.len();
    let outcome = |at: usize, kind: u32| match kind {
        1 => ScriptError::Failed(ScriptFailure { transaction: at, input: 0 }),
        2 => ScriptError::Verifier("no verdict".into()),
        _ => ScriptError::Panic(WorkerPanic("as told".into())),
    };
    let pools = pools(Scripted::default());
    for (first, second) in [(1, 2), (2, 1), (3, 1), (1, 3), (2, 3), (3, 2)] {
        let (low, high) = (count / 4, count * 3 / 4);
        let mut block = block.clone();
        for (at, kind) in [(low, first), (high, second)] {
            block.txdata[at].lock_time = bitcoin::absolute::LockTime::from_consensus(kind);
        }
        commit_to_witnesses(&mut block);
        mine(&mut block);
        let block = Arc::new(checked(&block));
        for pool in &pools {
            for _ in 0..5 {
                let ticket = pool.check::<()>(ScriptTask { block: block.clone(), ..task.clone() }, None);
                assert_eq!(ticket.wait().unwrap_err(), outcome(low, first));
                assert_eq!(ticket.poll().unwrap().unwrap_err(), outcome(low, first));
            }
        }
    }
}

#[test]
fn the_end_is_told_once_and_after_it_the_ticket_has_the_verdict() {
    let (_, task) = big_block(200);
    for pool in pools(Interpreter) {
        let (sender, news) = unbounded();
        let tickets: Vec<_> = (0..4).map(|i| pool.check(task.clone(), Some((sender.clone(), i)))).collect();
        drop(sender);
        let mut told: Vec<usize> = Vec::new();
        for i in news {
            assert!(tickets[i].poll().unwrap().is_ok());
            told.push(i);
        }
        told.sort_unstable();
        assert_eq!(told, [0, 1, 2, 3]);
        assert_eq!(tickets[0].block(), task.context.block());
    }
}

#[test]
fn assuming_runs_nothing_and_says_so() {
    let (_, mut task) = big_block(100);
    task.context.scripts = ScriptPolicy::AssumeValid;
    let calls = Arc::new(AtomicUsize::new(0));
    for pool in pools(Scripted(calls.clone())) {
        let (sender, news) = unbounded();
        let ticket = pool.check(task.clone(), Some((sender, ())));
        news.recv().unwrap();
        let verified = ticket.poll().unwrap().unwrap();
        assert_eq!(verified.proof(), Proof::AssumedValid);
        assert_eq!(*verified.get(), task.context.block());
    }
    assert_eq!(calls.load(Ordering::Relaxed), 0);
}

#[test]
fn a_cancelled_check_runs_no_further_batch_and_proves_nothing() {
    let (_, task) = big_block(300);
    let calls = Arc::new(AtomicUsize::new(0));
    let pool = Arc::new(Pool::new("scripts", 1, 64).unwrap());
    let scripts = ScriptPool::new(pool.clone(), Arc::new(Scripted(calls.clone())));
    // The only thread is held until the check is cancelled.
    let (open, gate) = unbounded::<()>();
    pool.submit(Box::new(move || gate.recv().unwrap()));
    let (sender, news) = unbounded();
    let ticket = scripts.check(task.clone(), Some((sender, ())));
    assert!(ticket.poll().is_none());
    ticket.cancel();
    open.send(()).unwrap();
    news.recv().unwrap();
    assert_eq!(ticket.poll().unwrap().unwrap_err(), ScriptError::Cancelled);
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    // Afterwards it is too late.
    let ticket = scripts.check::<()>(task, None);
    assert!(ticket.wait().is_ok());
    ticket.cancel();
    assert!(ticket.wait().is_ok());
}

#[test]
fn blame_follows_the_cause() {
    let (_, mut task) = big_block(100);
    task.spent = task.spent[1..].into();
    for pool in pools(Interpreter) {
        let error = pool.check::<()>(task.clone(), None).wait().unwrap_err();
        assert_eq!(error, ScriptError::Mismatch);
        assert!(matches!(error.into_reject(), Err(Error::Bug(_))));
    }
    let failed = ScriptError::Failed(ScriptFailure { transaction: 3, input: 1 });
    let reject = failed.into_reject().unwrap();
    assert_eq!(reject.to_string(), "block-script-verify-flag-failed (input 1 of transaction 3)");
    assert!(reject.condemns_hash());
    assert!(matches!(ScriptError::Verifier("x".into()).into_reject(), Err(Error::Verifier(_))));
    assert!(matches!(ScriptError::Panic(WorkerPanic("x".into())).into_reject(), Err(Error::WorkerPanic(_))));
}
