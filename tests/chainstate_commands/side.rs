//! A chainstate driven by commands, with its reports in short words.

use crate::ground::{self, ANYONE, Ground, SUBSIDY, bytes, mine, output, spend};
use bitcoin::{Block, OutPoint};
use headlong::chain::block_tree::BlockTree;
use headlong::chain::command::{BlockContext, ChainCommand, ChainReport, RawBlock};
use headlong::chainstate::{Chainstate, Opened};
use headlong::consensus::header;

/// A chainstate, and the tree that the engine would have.
pub struct Side {
    pub chainstate: Chainstate,
    pub tree: BlockTree,
}

impl Side {
    pub fn new(opened: Opened) -> Self {
        Self { chainstate: opened.chainstate, tree: opened.tree }
    }

    pub fn context(&mut self, block: &Block) -> BlockContext {
        let id = header::accept(&mut self.tree, &block.header, ground::CLOCK).unwrap();
        self.tree.context(id)
    }

    pub fn store(&mut self, block: &Block) {
        let context = self.context(block);
        self.chainstate.submit(ChainCommand::SaveHeaders(vec![block.header]));
        self.chainstate.submit(ChainCommand::StoreBlock(context, RawBlock::new(bytes(block)).unwrap()));
    }

    pub fn connect(&mut self, block: &Block) {
        let context = self.context(block);
        self.chainstate.submit(ChainCommand::Connect(context));
    }

    pub fn commit(&mut self) {
        self.chainstate.submit(ChainCommand::Commit { time: 5 });
    }

    /// All reports once nothing is under way, in short words.
    pub fn reports(&mut self) -> Vec<String> {
        self.chainstate.settle();
        self.waiting()
    }

    /// The reports that are there, but for those of what the block files hold.
    pub fn waiting(&mut self) -> Vec<String> {
        let reports = std::iter::from_fn(|| self.chainstate.poll());
        reports
            .filter(|report| !matches!(report, ChainReport::Storage(_)))
            .map(|report| word(&report))
            .collect()
    }
}

fn word(report: &ChainReport) -> String {
    match report {
        ChainReport::Stored { block, transactions } => format!("stored {} {transactions}", block.height),
        ChainReport::Refused { block, reject } => format!("refused {} {}", block.height, reject.reason),
        ChainReport::Connected { block, inputs, transactions } => {
            format!("connected {} {inputs} {transactions}", block.height)
        }
        ChainReport::Invalid { block, reject } => format!("invalid {} {}", block.height, reject.reason),
        ChainReport::Dropped { block, lost } => format!("dropped {} {lost}", block.height),
        ChainReport::Disconnected { block, tip } => format!("disconnected {} {}", block.height, tip.height),
        ChainReport::Missing(block) => format!("missing {}", block.height),
        ChainReport::CheckpointDurable(checkpoint) => {
            format!("checkpoint {} {}-{}", checkpoint.sequence, checkpoint.from.height, checkpoint.to.height)
        }
        ChainReport::Committed(checkpoint) => format!("committed {}", checkpoint.to.height),
        ChainReport::CommitWanted => "commit wanted".into(),
        ChainReport::Read(_, raw) => format!("read {}", raw.is_some()),
        ChainReport::Failed(error) => format!("failed: {error}"),
        other => panic!("{other:?}"),
    }
}

pub fn stored(side: &mut Side, blocks: &[Block]) {
    blocks.iter().for_each(|block| side.store(block));
    let reports = side.reports();
    assert_eq!(reports.iter().filter(|report| report.starts_with("stored")).count(), blocks.len());
}

/// 101 blocks without spends, connected.
pub fn trunk(ground: &Ground, side: &mut Side) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut parent = *ground.params.genesis_header();
    for height in 1..=101 {
        let block = mine(&parent, height, 0, SUBSIDY, Vec::new());
        parent = block.header;
        blocks.push(block);
    }
    stored(side, &blocks);
    blocks.iter().for_each(|block| side.connect(block));
    assert_eq!(side.reports().len(), 101);
    blocks
}

pub fn coinbase_of(block: &Block) -> OutPoint {
    OutPoint::new(block.txdata[0].compute_txid(), 0)
}

/// Three blocks on the trunk, each with one transaction, each spending what the one before made; the
/// second's output is locked by `script`.
pub fn three(trunk: &[Block], script: u8) -> Vec<Block> {
    let mut outpoint = coinbase_of(&trunk[0]);
    let mut parent = trunk[100].header;
    (102..105)
        .map(|height| {
            let script = if height == 103 { script } else { ANYONE };
            let tx = spend(&[outpoint], vec![output(SUBSIDY, script)]);
            outpoint = OutPoint::new(tx.compute_txid(), 0);
            let block = mine(&parent, height, 0, SUBSIDY, vec![tx]);
            parent = block.header;
            block
        })
        .collect()
}
