//! What the answers of a node rest on: whether scripts were skipped under `assumevalid` on the way to the
//! present chain, by this run or an earlier one.
//!
//! A mark in the data directory is written before the first such block connects, so that no commit that
//! rests on one is ever durable without it.

use crate::chain::command::{ChainCommand, ScriptPolicy};
use crate::store::StoreError;
use crate::store::datadir::Datadir;
use crate::verify::Proof;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The mark's name in the data directory. Its presence is what counts.
const FILE: &str = "assumed-valid";
/// The mark says for people what it means.
const TEXT: &[u8] = b"scripts of some blocks were not executed (assumevalid)\n";

/// Shared by the chainstate's thread, which changes it, and the handles.
#[derive(Clone, Debug)]
pub(crate) struct Trust(Arc<AtomicBool>);

impl Trust {
    /// What earlier runs left.
    pub(super) fn load(datadir: Option<&Datadir>) -> Result<Self, StoreError> {
        let assumed = match datadir {
            Some(datadir) => datadir.read_file(FILE, 4_096)?.is_some(),
            None => false,
        };
        Ok(Self(Arc::new(AtomicBool::new(assumed))))
    }

    /// Notes a command before it is carried out.
    pub(super) fn before(&self, command: &ChainCommand, datadir: Option<&Datadir>) -> Result<(), StoreError> {
        let skips =
            matches!(command, ChainCommand::Connect(context) if context.scripts == ScriptPolicy::AssumeValid);
        if skips && !self.0.load(Ordering::Acquire) {
            if let Some(datadir) = datadir {
                datadir.write_file(FILE, TEXT)?;
            }
            self.0.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// The weakest proof that the chain rests on.
    pub(crate) fn proof(&self) -> Proof {
        if self.0.load(Ordering::Acquire) { Proof::AssumedValid } else { Proof::Scripts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::block_tree::BlockTree;
    use crate::chain::params::{Network, Params};

    #[test]
    fn skipping_scripts_once_is_remembered_across_runs() {
        let folder = tempfile::tempdir().unwrap();
        let params = Arc::new(Params::new(Network::Regtest));
        let open = || Datadir::open(folder.path(), params.magic, params.genesis_hash()).unwrap();
        let datadir = open();
        let trust = Trust::load(Some(&datadir)).unwrap();
        let mut tree = BlockTree::new(params.clone(), [0; 2]);
        let header =
            bitcoin::block::Header { prev_blockhash: params.genesis_hash(), ..*params.genesis_header() };
        let id = tree.insert(tree.genesis(), &header);
        let mut context = tree.context(id);
        trust.before(&ChainCommand::Connect(context), Some(&datadir)).unwrap();
        assert_eq!(trust.proof(), Proof::Scripts);
        context.scripts = ScriptPolicy::AssumeValid;
        trust.before(&ChainCommand::Connect(context), Some(&datadir)).unwrap();
        assert_eq!(trust.proof(), Proof::AssumedValid);
        drop(datadir);
        // Whatever became of its content.
        for content in [TEXT, b"", b"scri", b"\0\xff"] {
            std::fs::write(folder.path().join(FILE), content).unwrap();
            assert_eq!(Trust::load(Some(&open())).unwrap().proof(), Proof::AssumedValid);
        }
    }
}
