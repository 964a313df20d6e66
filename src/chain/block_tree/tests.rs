//! The tree beside a model that keeps nothing but the events and recomputes every answer from them.

use super::*;
use crate::chain::params::Network;
use proptest::prelude::*;

/// Both are targets of headers that are never mined here; their work differs by a factor of 256.
const BITS: [u32; 2] = [0x207f_ffff, 0x1f7f_ffff];

fn tree() -> BlockTree {
    BlockTree::new(Arc::new(Params::new(Network::Regtest)), [7, 8])
}

fn child(tree: &mut BlockTree, parent: HeaderId, nonce: u32) -> HeaderId {
    let header = child_header(tree, parent, nonce, BITS[0]);
    tree.insert(parent, &header)
}

fn child_header(tree: &BlockTree, parent: HeaderId, nonce: u32, bits: u32) -> Header {
    Header {
        version: Version::from_consensus(4),
        prev_blockhash: tree.hash(parent),
        merkle_root: TxMerkleNode::from_byte_array([nonce as u8; 32]),
        time: tree.time(parent).wrapping_add(nonce % 5),
        bits: CompactTarget::from_consensus(bits),
        nonce,
    }
}

fn chain(tree: &mut BlockTree, from: HeaderId, length: u32, nonce: u32) -> Vec<HeaderId> {
    let mut tip = from;
    (0..length)
        .map(|_| {
            tip = child(tree, tip, nonce);
            tip
        })
        .collect()
}

/// What the model remembers of a block.
#[derive(Clone, Debug, Default)]
struct Known {
    parent: usize,
    bits: u32,
    time: u32,
    body: bool,
    connected: bool,
    failed: bool,
    failed_parent: bool,
    /// When its body came to wait for its parent.
    since: (usize, usize),
}

#[derive(Debug, Default)]
struct Model {
    blocks: Vec<Known>,
    /// Complete blocks in the order of completion.
    complete: Vec<usize>,
    clock: usize,
}

impl Model {
    fn ancestors(&self, id: usize) -> Vec<usize> {
        let mut all = vec![id];
        while *all.last().unwrap() != 0 {
            all.push(self.blocks[*all.last().unwrap()].parent);
        }
        all
    }

    fn descends(&self, id: usize, from: usize) -> bool {
        self.ancestors(id).contains(&from)
    }

    fn work(&self, id: usize) -> u128 {
        self.ancestors(id).iter().map(|id| ChainWork::of_bits(self.blocks[*id].bits).to_u128()).sum()
    }

    fn is_complete(&self, id: usize) -> bool {
        self.ancestors(id).iter().all(|id| self.blocks[*id].body)
    }

    fn is_failed(&self, id: usize) -> bool {
        self.blocks[id].failed || self.blocks[id].failed_parent
    }

    fn apply(&mut self, op: &Op) {
        self.clock += 1;
        let count = self.blocks.len();
        match *op {
            Op::Insert(at, nonce, bits) => {
                let parent = at % count;
                self.blocks.push(Known {
                    parent,
                    bits: BITS[usize::from(bits)],
                    time: self.blocks[parent].time.wrapping_add(nonce % 5),
                    failed_parent: self.is_failed(parent),
                    ..Known::default()
                });
            }
            Op::Stored(at) if !self.blocks[at % count].body => self.stored(at % count),
            Op::Lost(at) if at % count != 0 => {
                self.blocks[at % count].body = false;
                let gone: Vec<_> =
                    self.complete.iter().copied().filter(|id| !self.is_complete(*id)).collect();
                self.complete.retain(|id| !gone.contains(id));
                for id in gone {
                    self.blocks[id].since = (self.clock, id);
                }
            }
            Op::Connected(at) => self.blocks[at % count].connected = true,
            Op::Invalid(at) if at % count != 0 => {
                let id = at % count;
                self.blocks[id].failed = true;
                for below in
                    (0..count).filter(|below| *below != id && self.descends(*below, id)).collect::<Vec<_>>()
                {
                    self.blocks[below].failed_parent = true;
                }
            }
            Op::Reconsider(at) => {
                let id = at % count;
                for other in 0..count {
                    if self.descends(other, id) || self.descends(id, other) {
                        self.blocks[other].failed = false;
                        self.blocks[other].failed_parent = false;
                    }
                }
            }
            _ => {}
        }
    }

    fn stored(&mut self, id: usize) {
        self.blocks[id].body = true;
        self.blocks[id].since = (self.clock, 0);
        if !self.is_complete(id) {
            return;
        }
        let mut queue = VecDeque::from([id]);
        while let Some(id) = queue.pop_front() {
            self.complete.push(id);
            let mut waiting: Vec<_> = (1..self.blocks.len())
                .filter(|other| self.blocks[*other].parent == id && self.blocks[*other].body)
                .collect();
            waiting.sort_by_key(|other| self.blocks[*other].since);
            queue.extend(waiting);
        }
    }

    fn best_header(&self) -> usize {
        (0..self.blocks.len())
            .filter(|id| !self.is_failed(*id))
            .max_by_key(|id| (self.work(*id), Reverse(*id)))
            .unwrap()
    }

    fn best_candidate(&self, current: usize) -> usize {
        let order = |id: &usize| self.complete.iter().position(|other| other == id).unwrap();
        (0..self.blocks.len())
            .filter(|id| self.is_complete(*id) && !self.is_failed(*id))
            .max_by_key(|id| (self.work(*id), *id == current, Reverse(order(id))))
            .unwrap()
    }

    fn median_time_past(&self, id: usize) -> u32 {
        let mut times: Vec<_> = self.ancestors(id).iter().take(11).map(|id| self.blocks[*id].time).collect();
        times.sort();
        times[times.len() / 2]
    }
}

#[derive(Clone, Debug)]
enum Op {
    Insert(usize, u32, bool),
    Stored(usize),
    Lost(usize),
    Connected(usize),
    Invalid(usize),
    Reconsider(usize),
}

fn op() -> impl Strategy<Value = Op> {
    // Places are taken modulo the number of blocks; a large one with a small number of blocks on average
    // lands anywhere, so trees branch a lot.
    let at = any::<u16>().prop_map(usize::from);
    prop_oneof![
        6 => (at.clone(), any::<u32>(), prop::bool::weighted(0.2)).prop_map(|(a, n, b)| Op::Insert(a, n, b)),
        6 => at.clone().prop_map(Op::Stored),
        1 => at.clone().prop_map(Op::Lost),
        1 => at.clone().prop_map(Op::Connected),
        1 => at.clone().prop_map(Op::Invalid),
        1 => at.prop_map(Op::Reconsider),
    ]
}

fn apply(tree: &mut BlockTree, op: &Op) {
    let count = tree.len();
    let id = |at: usize| HeaderId((at % count) as u32);
    match *op {
        Op::Insert(at, nonce, bits) => {
            let header = child_header(tree, id(at), nonce, BITS[usize::from(bits)]);
            let new = tree.insert(id(at), &header);
            assert_eq!(tree.header(new), header);
            assert_eq!(tree.find(&header.block_hash()), Some(new));
        }
        Op::Stored(at) => tree.body_stored(id(at)),
        Op::Lost(at) => tree.body_lost(id(at)),
        Op::Connected(at) => tree.connected(id(at)),
        Op::Invalid(at) => tree.mark_invalid(id(at)),
        Op::Reconsider(at) => tree.reconsider(id(at)),
    }
}

fn compare(tree: &BlockTree, model: &Model) {
    assert_eq!(tree.len(), model.blocks.len());
    assert_eq!(tree.best_header().index(), model.best_header());
    for (index, known) in model.blocks.iter().enumerate() {
        let id = HeaderId(index as u32);
        assert_eq!(tree.work(id), ChainWork::from(model.work(index)));
        assert_eq!(tree.has_body(id), known.body);
        assert_eq!(tree.is_complete(id), model.is_complete(index));
        assert_eq!(tree.is_failed(id), model.is_failed(index));
        let validity = match known {
            Known { failed: true, .. } => Validity::Failed,
            Known { failed_parent: true, .. } => Validity::FailedParent,
            Known { connected: true, .. } => Validity::Connected,
            _ => Validity::Header,
        };
        assert_eq!(tree.validity(id), validity);
        assert_eq!(tree.best_candidate(id).index(), model.best_candidate(index));
        assert_eq!(tree.median_time_past(id), model.median_time_past(index));
    }
}

fn compare_structure(tree: &BlockTree, model: &Model) {
    for a in 0..model.blocks.len() {
        let id = HeaderId(a as u32);
        let line = model.ancestors(a);
        assert_eq!(tree.height(id) as usize, line.len() - 1);
        for (height, above) in line.iter().rev().enumerate() {
            assert_eq!(tree.ancestor(id, height as u32), Some(HeaderId(*above as u32)));
        }
        assert_eq!(tree.ancestor(id, line.len() as u32), None);
        for b in 0..model.blocks.len() {
            let other = model.ancestors(b);
            let fork = *line.iter().find(|id| other.contains(id)).unwrap();
            let to = HeaderId(b as u32);
            assert_eq!(tree.fork_point(id, to).index(), fork);
            assert_eq!(tree.is_ancestor(to, id), line.contains(&b));
            let numbers = |ids: Vec<HeaderId>| ids.into_iter().map(HeaderId::index).collect::<Vec<_>>();
            let (down, up) = tree.path(id, to, 3);
            let expected: Vec<_> = line.iter().copied().take_while(|id| *id != fork).collect();
            assert_eq!(numbers(down), expected);
            let mut expected: Vec<_> = other.iter().copied().take_while(|id| *id != fork).collect();
            expected.reverse();
            expected.truncate(3);
            assert_eq!(numbers(up), expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn the_tree_agrees_with_a_model_that_recomputes_everything(ops in prop::collection::vec(op(), 1..90)) {
        let mut tree = tree();
        let genesis = tree.genesis();
        let mut model = Model::default();
        model.blocks.push(Known {
            bits: tree.bits(genesis),
            time: tree.time(genesis),
            body: true,
            connected: true,
            ..Known::default()
        });
        model.complete.push(0);
        for op in &ops {
            let count = tree.len();
            apply(&mut tree, op);
            // The same header again changes nothing; the model does not hear of it.
            if matches!(op, Op::Insert(..)) && tree.len() == count {
                continue;
            }
            model.apply(op);
            compare(&tree, &model);
        }
        compare_structure(&tree, &model);
    }
}

#[test]
fn ancestors_of_a_long_chain_are_found_in_few_steps() {
    let mut tree = tree();
    let genesis = tree.genesis();
    let ids = chain(&mut tree, genesis, 20_000, 1);
    let tip = *ids.last().unwrap();
    for height in (1..20_000).step_by(37) {
        assert_eq!(tree.ancestor(tip, height), Some(ids[height as usize - 1]));
    }
    let side = chain(&mut tree, ids[4_999], 12_000, 2);
    assert_eq!(tree.fork_point(tip, *side.last().unwrap()), ids[4_999]);
    let locator = tree.locator(tip);
    assert_eq!(locator.first(), Some(&tree.hash(tip)));
    assert_eq!(locator.last(), Some(&tree.hash(genesis)));
    assert_eq!(locator.len(), locator::heights(20_000).count());
}

#[test]
fn the_first_complete_block_wins_a_tie_and_the_current_one_before_it() {
    let mut tree = tree();
    let genesis = tree.genesis();
    let (a, b) = (chain(&mut tree, genesis, 2, 1), chain(&mut tree, genesis, 2, 2));
    // A's tip comes first, but its gap closes after B is whole.
    tree.body_stored(a[1]);
    tree.body_stored(b[0]);
    tree.body_stored(b[1]);
    tree.body_stored(a[0]);
    assert_eq!(tree.best_candidate(genesis), b[1]);
    assert_eq!(tree.best_candidate(a[1]), a[1]);
    // A body that has to be fetched again has lost its place.
    tree.body_lost(b[0]);
    assert_eq!(tree.best_candidate(b[1]), a[1]);
    tree.body_stored(b[0]);
    assert_eq!(tree.best_candidate(genesis), a[1]);
    assert_eq!(tree.best_header(), a[1]);
}

#[test]
fn the_genesis_block_can_be_neither_marked_nor_lost() {
    let mut tree = tree();
    let genesis = tree.genesis();
    tree.mark_invalid(genesis);
    tree.body_lost(genesis);
    assert_eq!(tree.validity(genesis), Validity::Connected);
    assert!(tree.has_body(genesis));
    assert_eq!(tree.best_candidate(genesis), genesis);
    assert_eq!(tree.header(genesis), *tree.params().genesis_header());
    assert_eq!(tree.parent(genesis), None);
}

#[test]
fn a_context_carries_what_the_rules_ask_of_ancestors() {
    let mut tree = tree();
    let genesis = tree.genesis();
    let ids = chain(&mut tree, genesis, 12, 3);
    let context = tree.context(ids[11]);
    assert_eq!((context.height, context.prev), (12, tree.hash(ids[10])));
    // Three seconds a block: the parent is at 11, its median five below.
    assert_eq!(context.parent_mtp, tree.time(ids[5]));
    assert_eq!(context.hash, tree.hash(ids[11]));
    assert!(context.rules.segwit);
}

#[test]
fn scripts_are_skipped_only_below_the_assumed_block_and_two_weeks_of_work() {
    let mut plain = tree();
    let genesis = plain.genesis();
    let hashes: Vec<_> = chain(&mut plain, genesis, 3_000, 1).into_iter().map(|id| plain.hash(id)).collect();
    let with = |assumed: Option<BlockHash>, minimum: ChainWork| {
        let params =
            Params::new(Network::Regtest).with_assume_valid(assumed).with_minimum_chain_work(minimum);
        let mut tree = BlockTree::new(Arc::new(params), [1, 1]);
        let main = chain(&mut tree, genesis, 3_000, 1);
        let side = chain(&mut tree, main[9], 5, 2);
        (tree, main, side)
    };
    let height_100 = Some(hashes[99]);
    let (tree, main, side) = with(height_100, ChainWork::ZERO);
    assert_eq!(tree.script_policy(main[99]), ScriptPolicy::AssumeValid);
    assert_eq!(tree.script_policy(main[100]), ScriptPolicy::Verify);
    assert_eq!(tree.script_policy(side[0]), ScriptPolicy::Verify);
    assert_eq!(tree.script_policy(main[9]), ScriptPolicy::AssumeValid);

    // 2016 blocks of ten minutes are exactly two weeks: one more is needed on top.
    let (tree, main, _) = with(Some(hashes[2_999]), ChainWork::ZERO);
    assert_eq!(tree.script_policy(main[3_000 - 2_016 - 1]), ScriptPolicy::Verify);
    assert_eq!(tree.script_policy(main[3_000 - 2_017 - 1]), ScriptPolicy::AssumeValid);

    let total = tree.work(main[2_999]);
    let (tree, main, _) = with(height_100, total);
    assert_eq!(tree.script_policy(main[0]), ScriptPolicy::AssumeValid);
    let (mut tree, main, _) = with(height_100, total + ChainWork::from(1));
    assert_eq!(tree.script_policy(main[0]), ScriptPolicy::Verify);
    // Once the best header lies on another branch nothing is assumed.
    tree.mark_invalid(main[50]);
    assert_eq!(tree.script_policy(main[60]), ScriptPolicy::Verify);
    let (tree, main, _) = with(None, ChainWork::ZERO);
    assert_eq!(tree.script_policy(main[0]), ScriptPolicy::Verify);
}

#[test]
fn a_header_takes_no_more_memory_than_the_documentation_says() {
    assert_eq!(size_of::<Node>(), 112);
    let mut tree = tree();
    let genesis = tree.genesis();
    chain(&mut tree, genesis, 3 * PIECE as u32, 1);
    let slots: usize = tree.nodes.pieces.iter().map(Vec::capacity).sum();
    assert!(slots < tree.len() + PIECE);
    // A table never has more than 16/7 slots a header (plus rounding), of 4 bytes and one of control.
    assert!(tree.by_hash.allocation_size() <= tree.len() * 5 * 16 / 7 + 64);
    assert!(tree.candidates.len() == 1 && tree.waiting.is_empty());
}
