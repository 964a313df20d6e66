//! The chainstate without a network: a header tree and a chainstate, driven by whole blocks.
//!
//! A block goes through Core's `ProcessNewBlock` (validation.cpp), as `submitblock` calls it:
//! 1. It is decoded and checked by itself. A failure marks nothing: it says nothing sure about the hash.
//! 2. Its header is accepted. A failure marks nothing either, and the header is not kept.
//! 3. A block that is stored already is a duplicate, unless its bytes were found damaged.
//! 4. It is checked in its place and stored. A failure marks the hash invalid, except for a mutated body.
//! 5. The best chain is activated: the valid block with the most work whose bodies are all there; of equals
//!    the one that was complete first. A branch found invalid half-way is left for the best one that
//!    remains.
//!
//! Every answer implies that the scripts of the active chain are proved (or assumed). It does not imply
//! that anything is durable: [`Front::commit`] does.

use super::pipeline::Chainstate;
use super::recovery::Opened;
use crate::chain::block_tree::{BlockTree, HeaderId};
use crate::chain::command::{BlockRef, ChainCommand, ChainReport, HeaderMark};
use crate::consensus::decode::decode_block;
use crate::consensus::header;
use crate::error::{Error, Reject, RejectKind};
use crate::verify::{CheckError, check_block};
use bitcoin::BlockHash;
use bitcoin::block::Header;
use std::sync::Arc;

/// Blocks that are connected before the best candidate is asked for again.
const STEP: usize = 64;

/// What became of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlockVerdict {
    /// It is in the active chain.
    Connected,
    /// It is stored and not in the active chain.
    Side,
    /// It was stored before.
    Duplicate,
    /// It is invalid, or could not be stored.
    Rejected(Reject),
}

/// A chainstate with its own header tree.
#[derive(Debug)]
pub struct Front {
    tree: BlockTree,
    chainstate: Chainstate,
    clock: u64,
    /// Blocks found invalid while the last block was processed, with the reasons.
    refused: Vec<(BlockHash, Reject)>,
    /// A stored block that turned out to be damaged and is needed to leave the tip.
    missing: Option<BlockHash>,
}

impl Front {
    /// Takes what [`super::recovery::open`] returns. `clock` is Unix seconds.
    ///
    /// # Errors
    /// What halts the chainstate: a better chain may have to be activated first. Where that needs a block
    /// whose bytes are damaged, the front stays at its tip until the block is processed again.
    pub fn new(opened: Opened, clock: u64) -> Result<Self, Error> {
        let (tree, chainstate) = (opened.tree, opened.chainstate);
        let mut front = Self { tree, chainstate, clock, refused: Vec::new(), missing: None };
        match front.activate() {
            Ok(()) | Err(Error::MissingBlock(_)) => Ok(front),
            Err(error) => Err(error),
        }
    }

    /// The header tree.
    pub fn tree(&self) -> &BlockTree {
        &self.tree
    }

    /// The chainstate.
    pub fn chainstate(&self) -> &Chainstate {
        &self.chainstate
    }

    /// The end of the active chain.
    pub fn tip(&self) -> BlockRef {
        self.chainstate.tip()
    }

    /// Sets the clock that bounds the time of headers, in Unix seconds.
    pub fn set_clock(&mut self, unix: u64) {
        self.clock = unix;
    }

    /// Takes a serialised block. The hash is `None` if the bytes are no block.
    ///
    /// # Errors
    /// What halts the chainstate; a refusal is a verdict. After [`Error::MissingBlock`] the block is stored,
    /// and the better chain is activated once the block that the error names is processed again.
    pub fn process_block(&mut self, bytes: Vec<u8>) -> Result<(Option<BlockHash>, BlockVerdict), Error> {
        let Ok(decoded) = decode_block(Arc::new(bytes)) else {
            let reject = Reject::new(RejectKind::Mutated, "decode-failed");
            return Ok((None, BlockVerdict::Rejected(reject)));
        };
        let hash = decoded.hash();
        let verdict = self.process_decoded(decoded)?;
        Ok((Some(hash), verdict))
    }

    fn process_decoded(
        &mut self,
        decoded: crate::consensus::decode::DecodedBlock,
    ) -> Result<BlockVerdict, Error> {
        let block = match check_block(decoded, self.tree.params(), &**self.chainstate.verifier()) {
            Ok(block) => block,
            Err(CheckError::Rejected(reject)) => return Ok(BlockVerdict::Rejected(reject)),
            Err(CheckError::Verifier(error)) => return Err(error.into()),
        };
        let id = match self.accept_header(block.header())? {
            Ok(id) => id,
            Err(reject) => return Ok(BlockVerdict::Rejected(reject)),
        };
        let again = self.missing == Some(self.tree.hash(id));
        if self.tree.has_body(id) && !again {
            return Ok(BlockVerdict::Duplicate);
        }
        let context = self.tree.context(id);
        if let Err(reject) = self.chainstate.store_checked(&context, Arc::new(block))? {
            if reject.kind != RejectKind::Mutated {
                self.mark_invalid(id)?;
            }
            return Ok(BlockVerdict::Rejected(reject));
        }
        self.tree.body_stored(id);
        self.missing = self.missing.filter(|_| !again);
        self.refused.clear();
        self.activate()?;
        Ok(self.verdict_of(id))
    }

    fn verdict_of(&self, id: HeaderId) -> BlockVerdict {
        let hash = self.tree.hash(id);
        if let Some((_, reject)) = self.refused.iter().find(|(refused, _)| *refused == hash) {
            return BlockVerdict::Rejected(reject.clone());
        }
        if self.tree.is_failed(id) {
            return BlockVerdict::Rejected(Reject::new(RejectKind::InvalidParent, "bad-prevblk"));
        }
        let tip = self.tree.find(&self.tip().hash);
        if tip.is_some_and(|tip| self.tree.is_ancestor(id, tip)) {
            BlockVerdict::Connected
        } else {
            BlockVerdict::Side
        }
    }

    /// Takes a header (Core's `submitheader`). A refusal is the inner error.
    ///
    /// # Errors
    /// What halts the chainstate.
    pub fn process_header(&mut self, header: &Header) -> Result<Result<(), Reject>, Error> {
        Ok(self.accept_header(header)?.map(drop))
    }

    fn accept_header(&mut self, header: &Header) -> Result<Result<HeaderId, Reject>, Error> {
        let known = self.tree.len();
        let accepted = header::accept(&mut self.tree, header, self.clock);
        if self.tree.len() > known {
            self.run(vec![ChainCommand::SaveHeaders(vec![*header])])?;
        }
        Ok(accepted)
    }

    /// Marks a block invalid, with its descendants, and leaves it for the best chain that remains (Core's
    /// `invalidateblock`). `false` if its header is not known. The genesis block stays as it is.
    ///
    /// # Errors
    /// What halts the chainstate.
    pub fn invalidate(&mut self, hash: &BlockHash) -> Result<bool, Error> {
        let Some(id) = self.tree.find(hash) else { return Ok(false) };
        if id != self.tree.genesis() {
            self.mark_invalid(id)?;
            self.activate()?;
        }
        Ok(true)
    }

    /// Takes the marks off a block, its ancestors and its descendants (Core's `reconsiderblock`). `false`
    /// if its header is not known.
    ///
    /// # Errors
    /// What halts the chainstate.
    pub fn reconsider(&mut self, hash: &BlockHash) -> Result<bool, Error> {
        let Some(id) = self.tree.find(hash) else { return Ok(false) };
        self.tree.reconsider(id);
        self.run(vec![ChainCommand::SaveMark(*hash, HeaderMark::Reconsidered)])?;
        self.activate()?;
        Ok(true)
    }

    /// Makes the active chain durable.
    ///
    /// # Errors
    /// What halts the chainstate.
    pub fn commit(&mut self) -> Result<(), Error> {
        self.run(vec![ChainCommand::Commit { time: self.clock }])
    }

    fn mark_invalid(&mut self, id: HeaderId) -> Result<(), Error> {
        self.tree.mark_invalid(id);
        let hash = self.tree.hash(id);
        self.run(vec![ChainCommand::SaveMark(hash, HeaderMark::Invalid)])
    }

    /// Moves to the best chain. Each round moves the tip, or finds a block invalid or lost, so that it ends.
    fn activate(&mut self) -> Result<(), Error> {
        loop {
            let tip = self.tree.find(&self.tip().hash).ok_or(Error::Bug("the tip is not in the tree"))?;
            // Ties are decided by the order of completion alone: asked for with the genesis block, the
            // answer does not favour the tip, which another block may have preceded (after `reconsider`).
            let best = self.tree.best_candidate(self.tree.genesis());
            if best == tip {
                return Ok(());
            }
            let (disconnect, connect) = self.tree.path(tip, best, STEP);
            let mut commands: Vec<ChainCommand> =
                disconnect.into_iter().map(|id| ChainCommand::Disconnect(self.tree.block(id))).collect();
            commands.extend(connect.into_iter().map(|id| {
                let mut context = self.tree.context(id);
                context.scripts = self.tree.script_policy(id);
                ChainCommand::Connect(context)
            }));
            self.run(commands)?;
            if let Some(hash) = self.missing {
                return Err(Error::MissingBlock(hash));
            }
        }
    }

    /// Gives commands to the chainstate, waits until they are carried out and follows the reports.
    fn run(&mut self, commands: Vec<ChainCommand>) -> Result<(), Error> {
        for command in commands {
            self.chainstate.submit(command);
        }
        self.chainstate.settle();
        while let Some(report) = self.chainstate.poll() {
            match report {
                ChainReport::Connected { block, .. } => {
                    if let Some(id) = self.tree.find(&block.hash) {
                        self.tree.connected(id);
                    }
                }
                ChainReport::Invalid { block, reject } => {
                    if let Some(id) = self.tree.find(&block.hash) {
                        self.tree.mark_invalid(id);
                        self.chainstate.submit(ChainCommand::SaveMark(block.hash, HeaderMark::Invalid));
                    }
                    self.refused.push((block.hash, reject));
                }
                ChainReport::Dropped { block, lost: true } => {
                    if let Some(id) = self.tree.find(&block.hash) {
                        self.tree.body_lost(id);
                    }
                }
                ChainReport::Missing(block) => self.missing = Some(block.hash),
                ChainReport::CommitWanted => {
                    self.chainstate.submit(ChainCommand::Commit { time: self.clock });
                    self.chainstate.settle();
                }
                ChainReport::Failed(error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}
