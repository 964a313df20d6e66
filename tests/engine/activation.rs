//! The activation beside a naive model: random trees of blocks, some invalid, whose bodies come in any
//! order while the chainstate answers late.

use crate::world::{BEGIN, Books, params};
use headlong::chain::block_tree::{BlockTree, HeaderId};
use headlong::chain::command::{BlockRef, ChainReport, HeaderMark};
use headlong::consensus::header::accept;
use headlong::peer::{Cx, Effect, Wishes};
use headlong::rng::Rng;
use headlong::sim::forge::forge_header;
use headlong::sync::activation::{Activation, ActivationConfig};
use headlong::sync::fsm::SyncState;
use headlong::time::Now;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::time::Duration;

struct Model {
    tree: BlockTree,
    activation: Activation,
    books: Books,
    reports: VecDeque<ChainReport>,
    ids: Vec<HeaderId>,
    rng: Rng,
    now: u64,
}

impl Model {
    /// A tree in which block n + 1 has the parent `parents[n]` (modulo the blocks there are).
    fn new(parents: &[usize], stop_at_height: Option<u32>) -> Self {
        let params = params();
        let mut tree = BlockTree::new(params.clone(), [3, 4]);
        let mut ids = vec![tree.genesis()];
        for (n, parent) in parents.iter().enumerate() {
            let parent = ids[parent % ids.len()];
            let time = tree.time(parent) + 600;
            let bits = params.genesis_header().bits;
            let header = forge_header(&tree.header(parent), time, bits, [n as u8 + 1; 32]);
            ids.push(accept(&mut tree, &header, BEGIN).expect("a valid header"));
        }
        let genesis = tree.block(tree.genesis());
        let config = ActivationConfig { stop_at_height, commit_interval: Duration::from_secs(60) };
        let activation = Activation::new(config, &tree, tree.genesis(), None).expect("a fresh start");
        let (reports, rng) = (VecDeque::new(), Rng::from_number(1));
        Self { tree, activation, books: Books::new(genesis), reports, ids, rng, now: 0 }
    }

    fn act(&mut self, act: impl FnOnce(&mut Activation, &mut Cx<'_>, &mut BlockTree)) {
        let mut wishes = Wishes::default();
        let now = Now::new(self.now, BEGIN);
        let mut cx = Cx { now, rng: &mut self.rng, out: &mut wishes };
        act(&mut self.activation, &mut cx, &mut self.tree);
        self.activation.advance(&mut cx, &self.tree, false).expect("no defect");
        for effect in wishes.effects {
            let Effect::Command(command) = effect else { panic!("{effect:?}") };
            self.reports.extend(self.books.carry_out(command));
        }
    }

    fn store(&mut self, n: usize) {
        let id = self.ids[n];
        let (block, parent) = (self.tree.block(id), self.tree.parent(id).expect("not genesis"));
        let parent = self.tree.block(parent);
        self.books.parents.insert(block.hash, parent);
        self.books.stored.insert(block.hash);
        let report = ChainReport::Stored { block, transactions: 1 };
        self.act(|activation, cx, tree| activation.on_report(cx, tree, &report).expect("expected"));
    }

    /// Delivers the oldest report.
    fn deliver(&mut self) -> bool {
        let Some(report) = self.reports.pop_front() else { return false };
        self.act(|activation, cx, tree| activation.on_report(cx, tree, &report).expect("expected"));
        true
    }

    fn chain_of(&self, n: usize) -> Vec<BlockRef> {
        let up = |id: &HeaderId| self.tree.parent(*id);
        std::iter::successors(Some(self.ids[n]), up).map(|id| self.tree.block(id)).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn ends_at_the_best_valid_chain(
        parents in prop::collection::vec(0usize..20, 1..20),
        // Deep trees are rarer by chance: half of the blocks extend the last one.
        extend in prop::collection::vec(any::<bool>(), 20),
        invalid in prop::collection::vec(0u8..6, 20),
        order in prop::collection::vec(any::<u16>(), 20),
        delays in prop::collection::vec(0usize..4, 20),
    ) {
        let parents: Vec<usize> =
            parents.iter().enumerate().map(|(n, parent)| if extend[n] { n } else { *parent }).collect();
        let mut model = Model::new(&parents, None);
        let count = model.ids.len();
        for n in 1..count {
            if invalid[n - 1] == 0 {
                let hash = model.tree.hash(model.ids[n]);
                model.books.invalid.insert(hash);
            }
        }
        let mut bodies: Vec<usize> = (1..count).collect();
        bodies.sort_by_key(|n| order[*n - 1]);
        for (n, delay) in bodies.into_iter().zip(delays) {
            model.store(n);
            for _ in 0..delay {
                model.deliver();
            }
        }
        while model.deliver() {}

        let valid = |n: &usize| !model.chain_of(*n).iter().any(|b| model.books.invalid.contains(&b.hash));
        let best = (0..count).filter(valid).map(|n| model.tree.height(model.ids[n])).max();
        prop_assert_eq!(Some(model.books.tip.height), best);
        let tip = model.tree.find(&model.books.tip.hash);
        prop_assert_eq!(tip, Some(model.activation.proved()));
        let right = model.books.marks.iter().all(|(hash, mark)| {
            *mark == HeaderMark::Invalid && model.books.invalid.contains(hash)
        });
        prop_assert!(right, "only what is invalid is marked");

        // The interval passes: everything is made durable, in two phases.
        model.now = 61_000;
        model.act(|_, _, _| ());
        while model.deliver() {}
        prop_assert_eq!(model.books.durable, model.books.tip);
        prop_assert!(model.activation.is_quiet());
        // What moved and came back leaves nothing to commit.
        let genesis = model.tree.genesis();
        prop_assert!(model.activation.state() == SyncState::Idle || model.activation.proved() == genesis);
    }

    /// Nor does it leave the block that a branch which lies shares with the tip.
    #[test]
    fn a_stop_never_leaves_a_worse_tip_than_was_durable(
        parents in prop::collection::vec(0usize..20, 1..20),
        extend in prop::collection::vec(any::<bool>(), 20),
        invalid in prop::collection::vec(0u8..4, 20),
        early in 2usize..20,
        delivered in 0usize..12,
    ) {
        let parents: Vec<usize> =
            parents.iter().enumerate().map(|(n, parent)| if extend[n] { n } else { *parent }).collect();
        let mut model = Model::new(&parents, None);
        let count = model.ids.len();
        // The first one is valid, so that something is durable.
        for n in (2..count).filter(|n| invalid[n - 1] == 0) {
            let hash = model.tree.hash(model.ids[n]);
            model.books.invalid.insert(hash);
        }
        for n in 1..count.min(early) {
            model.store(n);
        }
        while model.deliver() {}
        model.now = 61_000;
        model.act(|_, _, _| ());
        while model.deliver() {}
        let durable = model.books.durable;
        for n in count.min(early)..count {
            model.store(n);
        }
        for _ in 0..delivered {
            model.deliver();
        }
        model.act(|activation, _, _| activation.stop());
        while model.deliver() {}
        prop_assert!(model.activation.is_quiet());
        prop_assert!(model.books.durable.height >= durable.height, "{:?} after {durable:?}", model.books.durable);
    }

    #[test]
    fn never_passes_the_height_to_stop_at(
        parents in prop::collection::vec(0usize..20, 1..20),
        extend in prop::collection::vec(any::<bool>(), 20),
        stop in 1u32..6,
    ) {
        let parents: Vec<usize> =
            parents.iter().enumerate().map(|(n, parent)| if extend[n] { n } else { *parent }).collect();
        let mut model = Model::new(&parents, Some(stop));
        for n in 1..model.ids.len() {
            model.store(n);
            while model.deliver() {}
            prop_assert!(model.books.tip.height <= stop);
        }
        let highest = model.ids.iter().map(|id| model.tree.height(*id)).max().unwrap_or(0);
        prop_assert_eq!(model.books.tip.height, highest.min(stop));
        let reached = model.activation.reached(&model.tree);
        prop_assert_eq!(reached, (highest >= stop).then_some(model.books.durable));
    }
}

#[test]
fn a_lost_body_is_waited_for() {
    let mut model = Model::new(&[0, 1, 2], None);
    for n in 1..=3 {
        let id = model.ids[n];
        model.tree.body_stored(id);
    }
    for n in [1, 3] {
        let (id, parent) = (model.ids[n], model.ids[n - 1]);
        model.books.stored.insert(model.tree.hash(id));
        model.books.parents.insert(model.tree.hash(id), model.tree.block(parent));
    }
    model.act(|_, _, _| ());
    while model.deliver() {}
    assert_eq!(model.books.tip.height, 1);
    assert!(!model.tree.has_body(model.ids[2]), "it is to be fetched again");
    model.store(2);
    while model.deliver() {}
    assert_eq!(model.books.tip.height, 3);
}

#[test]
fn a_report_that_answers_nothing_is_an_error() {
    let mut model = Model::new(&[0], None);
    let block = model.tree.block(model.ids[1]);
    let mut wishes = Wishes::default();
    let mut cx = Cx { now: Now::default(), rng: &mut model.rng, out: &mut wishes };
    let reports = [
        ChainReport::Connected { block, inputs: 0, transactions: 1 },
        ChainReport::Dropped { block, lost: true },
        ChainReport::Disconnected { block, tip: block },
    ];
    for report in reports {
        assert!(model.activation.on_report(&mut cx, &mut model.tree, &report).is_err());
    }
    assert!(wishes.effects.is_empty() && !model.tree.has_body(model.ids[1]));
}
