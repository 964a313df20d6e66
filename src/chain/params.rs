//! Parameters of the five networks.

use super::work::ChainWork;
use bitcoin::block::Header;
use bitcoin::{Block, BlockHash, ScriptBuf};

/// The networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Network {
    /// Bitcoin.
    Main,
    /// The third test network.
    Testnet3,
    /// The fourth test network (BIP94).
    Testnet4,
    /// BIP325, the default one or one with its own challenge.
    Signet,
    /// A private network without difficulty.
    Regtest,
}

/// Everything in which networks differ.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Params {
    /// Which network.
    pub network: Network,
    /// First four bytes of each message.
    pub magic: [u8; 4],
    /// Usual port.
    pub port: u16,
    /// The first block.
    pub genesis: Block,
    /// Names that resolve to peers.
    pub dns_seeds: Vec<&'static str>,
    /// Work below which a chain is not believed to be the network's.
    pub minimum_chain_work: ChainWork,
    /// The block up to which scripts may be skipped; `None`: never.
    pub assume_valid: Option<BlockHash>,
    /// Blocks between halvings of the subsidy.
    pub halving_interval: u32,
    /// The script that blocks of a signet satisfy (BIP325).
    pub signet_challenge: Option<ScriptBuf>,
}

impl Params {
    /// Hash of the first block.
    pub fn genesis_hash(&self) -> BlockHash {
        self.genesis.block_hash()
    }

    /// Header of the first block.
    pub fn genesis_header(&self) -> &Header {
        &self.genesis.header
    }
}
