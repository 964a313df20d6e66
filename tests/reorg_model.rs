//! Random trees of blocks with spends on all branches, fed in any order, beside a naive model that
//! recomputes the chain from the genesis block for every decision. Blocks that break a rule, marks of the
//! host, clean restarts and crashes are among the events.
//!
//! A failing case prints its seed: set it in `HEADLONG_SEED` to repeat it alone.

#![cfg(feature = "consensus")]

mod ground;

use bitcoin::block::Header;
use bitcoin::{Amount, Block, BlockHash, OutPoint, Transaction, TxOut};
use ground::{ANYONE, Ground, History, NOBODY, SUBSIDY, Utxos, bytes, mine, output, spend};
use headlong::chainstate::{BlockVerdict, Front};
use headlong::error::Error;
use headlong::rng::Rng;
use headlong::store::coin::Coin;
use headlong::store::schema;
use std::collections::{BTreeMap, BTreeSet};

/// Blocks of the trunk below the random tree, so that there are mature coinbases.
const TRUNK: usize = 104;

// ---- blocks ----

/// All blocks of a case; a parent comes before its children.
struct Tree {
    blocks: Vec<Block>,
    parents: Vec<Option<usize>>,
    hashes: Vec<BlockHash>,
    genesis: Header,
}

impl Tree {
    fn height(&self, mut at: usize) -> u32 {
        let mut height = 1;
        while let Some(parent) = self.parents[at] {
            at = parent;
            height += 1;
        }
        height
    }

    /// From the first block to this one.
    fn chain(&self, at: usize) -> Vec<usize> {
        let mut chain: Vec<usize> = std::iter::successors(Some(at), |at| self.parents[*at]).collect();
        chain.reverse();
        chain
    }

    fn descends(&self, mut at: usize, from: usize) -> bool {
        loop {
            if at == from {
                return true;
            }
            match self.parents[at] {
                Some(parent) => at = parent,
                None => return false,
            }
        }
    }

    fn push(&mut self, parent: Option<usize>, block: Block) -> usize {
        self.hashes.push(block.block_hash());
        self.blocks.push(block);
        self.parents.push(parent);
        self.blocks.len() - 1
    }
}

/// A block's effect, or the word for why it has none. The rules as simply as they can be said.
fn apply(block: &Block, height: u32, utxos: &mut Utxos) -> Result<(), &'static str> {
    let mut fees = 0;
    let mut script_failed = false;
    for (index, tx) in block.txdata.iter().enumerate() {
        let mut value_in = 0;
        if index > 0 {
            for input in &tx.input {
                if !utxos.contains_key(&input.previous_output) {
                    return Err("bad-txns-inputs-missingorspent");
                }
            }
            for input in &tx.input {
                let coin = utxos.remove(&input.previous_output).unwrap();
                if coin.coinbase && height - coin.height < 100 {
                    return Err("bad-txns-premature-spend-of-coinbase");
                }
                script_failed |= coin.output.script_pubkey.as_bytes() == [NOBODY];
                value_in += coin.output.value.to_sat();
            }
            let value_out: u64 = tx.output.iter().map(|output| output.value.to_sat()).sum();
            if value_in < value_out {
                return Err("bad-txns-in-belowout");
            }
            fees += value_in - value_out;
        }
        for (vout, output) in (0u32..).zip(&tx.output) {
            let coin = Coin { height, coinbase: index == 0, output: output.clone() };
            utxos.insert(OutPoint::new(tx.compute_txid(), vout), coin);
        }
    }
    // The subsidy of a case's heights is the first one or the second.
    let subsidy = SUBSIDY >> (height / 150);
    if block.txdata[0].output[0].value.to_sat() > subsidy + fees {
        return Err("bad-cb-amount");
    }
    if script_failed { Err("block-script-verify-flag-failed") } else { Ok(()) }
}

/// Makes a tree: a trunk, and random blocks on top of it and of each other.
fn grow(rng: &mut Rng, genesis: Header, count: usize) -> Tree {
    let mut tree = Tree { blocks: Vec::new(), parents: Vec::new(), hashes: Vec::new(), genesis };
    let mut header = genesis;
    for height in 1..=TRUNK as u32 {
        let block = mine(&header, height, 0, SUBSIDY, Vec::new());
        header = block.header;
        let parent = tree.blocks.len().checked_sub(1);
        tree.push(parent, block);
    }
    // What is unspent after each random block, as if every block were valid.
    let mut utxos: Vec<Utxos> = Vec::new();
    let mut trunk = Utxos::new();
    for (height, block) in (1..).zip(&tree.blocks) {
        apply(block, height, &mut trunk).unwrap();
    }
    for number in 0..count {
        // Mostly on top of something recent, so that branches become long.
        let back = rng.below(6.min(number as u64) + 1) as usize;
        let parent = TRUNK + number - 1 - back.min(number);
        let parent = parent.max(TRUNK - 1);
        let mut state = if parent < TRUNK { trunk.clone() } else { utxos[parent - TRUNK].clone() };
        let height = tree.height(parent) + 1;
        let block = random_block(rng, &tree.blocks[parent].header, height, number as u64 + 1, &state);
        let before = state.clone();
        if apply(&block, height, &mut state).is_err() {
            state = before;
        }
        utxos.push(state);
        tree.push(Some(parent), block);
    }
    tree
}

fn random_block(rng: &mut Rng, parent: &Header, height: u32, unique: u64, state: &Utxos) -> Block {
    let fault = rng.below(24);
    let mut txs: Vec<Transaction> = Vec::new();
    let mut fees = 0;
    let mut coins: Vec<(OutPoint, Coin)> = state
        .iter()
        .filter(|(_, coin)| fault == 0 || !coin.coinbase || height - coin.height >= 100)
        .filter(|(_, coin)| fault == 1 || coin.output.script_pubkey.as_bytes() != [NOBODY])
        .map(|(outpoint, coin)| (*outpoint, coin.clone()))
        .collect();
    rng.shuffle(&mut coins);
    match fault {
        // A coinbase that is too young.
        0 => coins.sort_by_key(|(_, coin)| coin.coinbase.then_some(coin.height)),
        1 => coins.sort_by_key(|(_, coin)| coin.output.script_pubkey.as_bytes() == [NOBODY]),
        _ => {}
    }
    for _ in 0..rng.below(4) {
        let take = (1 + rng.below(2)) as usize;
        let spent: Vec<_> = coins.split_off(coins.len().saturating_sub(take));
        if spent.is_empty() {
            break;
        }
        let value: u64 = spent.iter().map(|(_, coin)| coin.output.value.to_sat()).sum();
        let fee = rng.below(value / 10 + 1);
        let paid = if fault == 2 { value + 1 } else { value - fee };
        let parts = 1 + rng.below(3);
        let outputs = (0..parts).map(|part| {
            let share = if part == 0 { paid - paid / parts * (parts - 1) } else { paid / parts };
            output(share, if rng.below(10) == 0 { NOBODY } else { ANYONE })
        });
        let outputs: Vec<TxOut> = outputs.collect();
        let outpoints: Vec<OutPoint> = spent.iter().map(|(outpoint, _)| *outpoint).collect();
        fees += value.saturating_sub(paid);
        let tx = spend(&outpoints, outputs);
        // What was just made can be spent in the same block.
        for (vout, made) in (0u32..).zip(&tx.output) {
            if made.script_pubkey.as_bytes() == [ANYONE] && rng.below(2) == 0 {
                let coin = Coin { height, coinbase: false, output: made.clone() };
                coins.push((OutPoint::new(tx.compute_txid(), vout), coin));
            }
        }
        txs.push(tx);
    }
    if fault == 3 && !txs.is_empty() {
        // The same coins twice.
        let mut again = txs[0].clone();
        again.output[0].value = again.output[0].value.checked_sub(Amount::from_sat(1)).unwrap_or_default();
        txs.push(again);
    }
    let subsidy = SUBSIDY >> (height / 150);
    let reward = subsidy + fees + u64::from(fault == 4);
    // A wrong height in the coinbase is found before the coins are looked at.
    let claimed = if fault == 5 { height + 1 } else { height };
    mine(parent, claimed, unique, reward, txs)
}

// ---- the model ----

#[derive(Clone, Default)]
struct Model {
    /// Known headers, and whether they are marked invalid, in the order of acceptance.
    headers: Vec<usize>,
    failed: Vec<bool>,
    /// Stored bodies, in the order of their storing.
    stored: Vec<usize>,
    /// Stored bodies whose ancestors are all stored, in the order in which they became so.
    complete: Vec<usize>,
    tip: Option<usize>,
    /// Why blocks failed that were tried during the last event.
    refused: Vec<(usize, &'static str)>,
}

impl Model {
    fn new(blocks: usize) -> Self {
        Self { failed: vec![false; blocks], ..Self::default() }
    }

    fn knows(&self, at: Option<usize>) -> bool {
        at.is_none_or(|at| self.headers.contains(&at))
    }

    fn header(&mut self, tree: &Tree, at: usize) -> Result<(), &'static str> {
        if self.headers.contains(&at) {
            return if self.failed[at] { Err("duplicate-invalid") } else { Ok(()) };
        }
        if !self.knows(tree.parents[at]) {
            return Err("prev-blk-not-found");
        }
        if tree.parents[at].is_some_and(|parent| self.failed[parent]) {
            return Err("bad-prevblk");
        }
        self.headers.push(at);
        Ok(())
    }

    fn mark(&mut self, tree: &Tree, at: usize) {
        for &header in &self.headers {
            if tree.descends(header, at) {
                self.failed[header] = true;
            }
        }
    }

    fn reconsider(&mut self, tree: &Tree, at: usize) {
        for &header in &self.headers {
            if tree.descends(header, at) || tree.descends(at, header) {
                self.failed[header] = false;
            }
        }
    }

    fn store(&mut self, tree: &Tree, at: usize) {
        self.stored.push(at);
        if tree.parents[at].is_some_and(|parent| !self.complete.contains(&parent)) {
            return;
        }
        // Generation by generation, each parent's children in the order of their storing.
        let mut queue = vec![at];
        while !queue.is_empty() {
            let at = queue.remove(0);
            self.complete.push(at);
            queue.extend(self.stored.iter().filter(|child| tree.parents[**child] == Some(at)));
        }
    }

    fn block(&mut self, tree: &Tree, at: usize) -> (&'static str, Option<&'static str>) {
        if let Err(reason) = self.header(tree, at) {
            return ("rejected", Some(reason));
        }
        if self.stored.contains(&at) {
            return ("duplicate", None);
        }
        let height = tree.height(at);
        let claimed = bitcoin::script::Builder::new().push_int(i64::from(height)).into_script();
        let coinbase = &tree.blocks[at].txdata[0].input[0].script_sig;
        if !coinbase.as_bytes().starts_with(claimed.as_bytes()) {
            self.mark(tree, at);
            return ("rejected", Some("bad-cb-height"));
        }
        self.store(tree, at);
        self.activate(tree);
        if let Some((_, reason)) = self.refused.iter().find(|(refused, _)| *refused == at) {
            return ("rejected", Some(reason));
        }
        if self.failed[at] {
            return ("rejected", Some("bad-prevblk"));
        }
        let active = self.tip.is_some_and(|tip| tree.descends(tip, at));
        (if active { "connected" } else { "side" }, None)
    }

    /// Tries the best candidate from the genesis block on until one holds.
    fn activate(&mut self, tree: &Tree) {
        self.refused.clear();
        loop {
            let mut best: Option<usize> = None;
            for &at in self.complete.iter().filter(|at| !self.failed[**at]) {
                if best.is_none_or(|best| tree.height(at) > tree.height(best)) {
                    best = Some(at);
                }
            }
            let Some(best) = best else {
                self.tip = None;
                return;
            };
            match connect_all(tree, best) {
                Ok(_) => {
                    self.tip = Some(best);
                    return;
                }
                Err((at, reason)) => {
                    self.refused.push((at, reason));
                    self.mark(tree, at);
                }
            }
        }
    }

    fn utxos(&self, tree: &Tree) -> Utxos {
        self.tip.map_or(Utxos::new(), |tip| connect_all(tree, tip).expect("the tip is valid"))
    }
}

fn connect_all(tree: &Tree, tip: usize) -> Result<Utxos, (usize, &'static str)> {
    let mut utxos = Utxos::new();
    for (height, at) in (1..).zip(tree.chain(tip)) {
        apply(&tree.blocks[at], height, &mut utxos).map_err(|reason| (at, reason))?;
    }
    Ok(utxos)
}

// ---- both side by side ----

fn told(verdict: BlockVerdict) -> (&'static str, Option<&'static str>) {
    match verdict {
        BlockVerdict::Connected => ("connected", None),
        BlockVerdict::Side => ("side", None),
        BlockVerdict::Duplicate => ("duplicate", None),
        BlockVerdict::Rejected(reject) => ("rejected", Some(reject.reason)),
        other => panic!("{other:?}"),
    }
}

fn tip_of(tree: &Tree, model: &Model) -> (u32, BlockHash) {
    model.tip.map_or((0, tree.genesis.block_hash()), |tip| (tree.height(tip), tree.hashes[tip]))
}

fn check_tip(front: &Front, tree: &Tree, model: &Model) {
    let tip = front.tip();
    assert_eq!((tip.height, tip.hash), tip_of(tree, model));
}

/// After a crash: only what was committed is stored, but headers and marks are all there; the order of
/// completion is the active chain's, then that of storing.
fn crash(model: &mut Model, tree: &Tree, committed: &Model) {
    let active = committed.tip.map_or(Vec::new(), |tip| tree.chain(tip));
    let mut order = active.clone();
    order.extend(committed.stored.iter().filter(|at| !active.contains(at)));
    model.stored.clear();
    model.complete.clear();
    order.into_iter().for_each(|at| model.store(tree, at));
    model.activate(tree);
}

/// What happened how often, so that a test can see that it tested something.
type Tally = BTreeMap<String, u32>;

fn run_case(seed: u64, tally: &mut Tally) {
    let mut rng = Rng::from_number(seed);
    let (threads, limit) = (rng.below(3) as usize, [3, 7, 1_000][rng.below(3) as usize]);
    let ground = Ground::new(threads, limit, [1, 40_000, 1 << 20][rng.below(3) as usize]);
    let tree = grow(&mut rng, *ground.params.genesis_header(), 30);
    let mut front = ground.open();
    let mut model = Model::new(tree.blocks.len());
    let mut committed = model.clone();

    let mut order: Vec<usize> = (TRUNK..tree.blocks.len()).collect();
    // With all headers known, bodies may come in any order; without, a late parent costs its children.
    let headers_first = rng.below(2) == 0;
    let reach = if headers_first { 10 } else { 2 };
    for at in 0..order.len() {
        let to = (at + rng.below(reach) as usize).min(order.len() - 1);
        order.swap(at, to);
    }
    let order: Vec<usize> = (0..TRUNK).chain(order.iter().copied()).chain(order.iter().copied()).collect();
    for (step, at) in order.into_iter().enumerate() {
        let block = &tree.blocks[at];
        if step == TRUNK && headers_first {
            for at in TRUNK..tree.blocks.len() {
                assert_eq!(model.header(&tree, at), Ok(()));
                front.process_header(&tree.blocks[at].header).unwrap().unwrap();
            }
        }
        if step >= TRUNK && rng.below(6) == 0 {
            // Another body under the same header says nothing about the hash.
            let mut mutated = block.clone();
            mutated.txdata.push(mutated.txdata[0].clone());
            let (_, verdict) = front.process_block(bytes(&mutated)).unwrap();
            assert_eq!(told(verdict), ("rejected", Some("bad-txnmrklroot")), "seed {seed}");
        }
        if step >= TRUNK && rng.below(8) == 0 {
            let expected = model.header(&tree, at);
            let found = front.process_header(&block.header).unwrap().map_err(|reject| reject.reason);
            assert_eq!(found, expected, "seed {seed}, header {at}");
        }
        let before = model.tip;
        let expected = model.block(&tree, at);
        let (hash, verdict) = front.process_block(bytes(block)).unwrap();
        assert_eq!(told(verdict), expected, "seed {seed}, block {at} at height {}", tree.height(at));
        assert_eq!(hash, Some(tree.hashes[at]));
        *tally.entry(format!("{} {}", expected.0, expected.1.unwrap_or_default())).or_default() += 1;
        if let (Some(before), Some(tip)) = (before, model.tip)
            && !tree.descends(tip, before)
        {
            *tally.entry("reorg".into()).or_default() += 1;
            if model.refused.len() > 1 || model.refused.iter().any(|(refused, _)| *refused != at) {
                *tally.entry("reorg past a block found invalid".into()).or_default() += 1;
            }
        }
        check_tip(&front, &tree, &model);
        if step < TRUNK {
            continue;
        }
        let any = TRUNK - 3 + rng.below((tree.blocks.len() - TRUNK + 3) as u64) as usize;
        match rng.below(24) {
            0 => {
                let known = model.headers.contains(&any);
                assert_eq!(front.invalidate(&tree.hashes[any]).unwrap(), known);
                if known {
                    model.mark(&tree, any);
                    model.activate(&tree);
                }
            }
            1 | 2 => {
                let known = model.headers.contains(&any);
                assert_eq!(front.reconsider(&tree.hashes[any]).unwrap(), known);
                if known {
                    model.reconsider(&tree, any);
                    model.activate(&tree);
                }
            }
            3 => {
                front.commit().unwrap();
                assert_eq!(ground.stored_coins(), model.utxos(&tree), "seed {seed}");
                committed = model.clone();
                if rng.below(2) == 0 {
                    drop(front);
                    crash(&mut model, &tree, &committed);
                    front = ground.open();
                }
            }
            // A commit may have happened unasked with a small cache: what survives is not known then.
            4 if ground.coins_bytes == 1 << 20 => {
                drop(front);
                crash(&mut model, &tree, &committed);
                front = ground.open();
            }
            _ => {}
        }
        check_tip(&front, &tree, &model);
    }
    front.commit().unwrap();
    let utxos = model.utxos(&tree);
    assert_eq!(ground.stored_coins(), utxos, "seed {seed}");
    let (stats, at) = front.chainstate().utxo_stats().unwrap();
    assert_eq!(at, front.tip());
    assert_eq!(stats.txouts, utxos.len() as u64);
    let total: u64 = utxos.values().map(|coin| coin.output.value.to_sat()).sum();
    assert_eq!(stats.total_amount_sat, total);
}

#[test]
fn random_trees_end_as_the_model_says() {
    let mut tally = Tally::new();
    if let Ok(seed) = std::env::var("HEADLONG_SEED") {
        return run_case(seed.parse().expect("a number"), &mut tally);
    }
    for seed in 0..60 {
        let case = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run_case(seed, &mut tally)));
        if let Err(panic) = case {
            eprintln!("the case of HEADLONG_SEED={seed} failed");
            std::panic::resume_unwind(panic);
        }
    }
    for expected in [
        "connected ",
        "duplicate ",
        "rejected bad-cb-amount",
        "rejected bad-cb-height",
        "rejected bad-prevblk",
        "rejected bad-txns-in-belowout",
        "rejected bad-txns-inputs-missingorspent",
        "rejected bad-txns-premature-spend-of-coinbase",
        "rejected block-script-verify-flag-failed",
        "rejected duplicate-invalid",
        "rejected prev-blk-not-found",
        "reorg",
        "reorg past a block found invalid",
        "side ",
    ] {
        assert!(tally.contains_key(expected), "{expected:?} never happened: {tally:#?}");
    }
}

/// Feeds all blocks, with a commit now and then.
fn feed(front: &mut Front, tree: &Tree) -> Result<(), Error> {
    for (number, block) in tree.blocks.iter().enumerate() {
        front.process_block(bytes(block))?;
        if number > TRUNK && number % 5 == 0 {
            front.commit()?;
        }
    }
    front.commit()
}

/// The coins in the store must be those of the tip that the store names.
fn check_stored(ground: &Ground, front: &Front, tree: &Tree) {
    let tip = front.chainstate().durable_tip();
    let at = tree.hashes.iter().position(|hash| *hash == tip.hash);
    let expected = at.map_or(Utxos::new(), |at| connect_all(tree, at).expect("it was committed"));
    assert_eq!(ground.stored_coins(), expected, "at height {}", tip.height);
}

/// A flush of many batches over reorgs is cut short at each of its commits in turn, before the commit takes
/// effect and after. What is found on opening must be a state that existed; and from there the way goes on
/// to the same end.
#[test]
fn a_failure_at_any_commit_recovers_to_a_state_that_existed() {
    for seed in [1, 5] {
        let mut rng = Rng::from_number(seed);
        let ground = Ground::new(0, 3, 1 << 20);
        let tree = grow(&mut rng, *ground.params.genesis_header(), 30);
        let mut front = ground.open();
        feed(&mut front, &tree).unwrap();
        check_stored(&ground, &front, &tree);
        let end = front.tip().height;
        let mut in_steps = 0;
        for applied in [false, true] {
            for failing in 1.. {
                let ground = Ground::new(0, 3, 1 << 20);
                let run = ground.open_failing(failing, applied).and_then(|mut front| feed(&mut front, &tree));
                let died = run.is_err();
                if schema::pending(&ground.store).unwrap().is_some() {
                    in_steps += 1;
                }
                // The recovery may be cut short as well, at its first commit or its second.
                for again in [1, 2] {
                    drop(ground.open_failing(again, applied));
                }
                let mut front = ground.open();
                check_stored(&ground, &front, &tree);
                assert_eq!(schema::pending(&ground.store).unwrap(), None);
                feed(&mut front, &tree).unwrap();
                check_stored(&ground, &front, &tree);
                assert_eq!(front.tip().height, end);
                if !died {
                    break;
                }
            }
        }
        assert!(in_steps > 10, "flushes of several batches were hardly tested: {in_steps}");
    }
}

/// A store whose log was damaged may come up at any earlier commit of its own, in the middle of a flush too,
/// while the files beside it are as they were at the end.
#[test]
fn a_store_that_stepped_back_comes_up_at_its_older_tip() {
    let mut rng = Rng::from_number(5);
    let history = History::default();
    let ground = Ground { history: Some(history.clone()), ..Ground::new(0, 3, 1 << 20) };
    let tree = grow(&mut rng, *ground.params.genesis_header(), 30);
    let mut front = ground.open();
    feed(&mut front, &tree).unwrap();
    let end = front.tip();
    drop(front);
    let commits = std::mem::take(&mut *history.lock().unwrap());
    let mut tips = BTreeSet::new();
    for store in &commits {
        let older = ground.with_store(store.fork());
        let mut front = older.open();
        check_stored(&older, &front, &tree);
        tips.insert(front.chainstate().durable_tip().height);
        // What is known to be stored connects at once, and what is not may be delivered again.
        feed(&mut front, &tree).unwrap();
        check_stored(&older, &front, &tree);
        assert_eq!(front.tip().height, end.height);
    }
    assert!(commits.len() > 20 && tips.len() > 3, "{} commits, tips {tips:?}", commits.len());
}
