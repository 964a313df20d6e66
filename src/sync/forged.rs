//! Forged regtest headers with real proof of work, for the tests of the machines.

use crate::chain::block_tree::{BlockTree, HeaderId};
use crate::chain::params::{Network, Params};
use crate::chain::work::{ChainWork, check_proof_of_work};
use crate::peer::{ConnectionKind, PeerAddress, PeerId, PeerView};
use bitcoin::TxMerkleNode;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::p2p::ServiceFlags;
use std::sync::Arc;

/// Regtest on which a chain needs the work of so many blocks.
pub fn params(minimum_blocks: u32) -> Arc<Params> {
    let params = Params::new(Network::Regtest);
    let proof = ChainWork::of_bits(params.genesis_header().bits.to_consensus());
    Arc::new(params.with_minimum_chain_work(proof.saturating_mul(minimum_blocks)))
}

pub fn tree(params: &Arc<Params>) -> BlockTree {
    BlockTree::new(Arc::clone(params), [1, 2])
}

/// Ten minutes after its parent; `salt` makes siblings differ.
pub fn child(params: &Params, parent: &Header, salt: u8) -> Header {
    let mut header = Header {
        version: Version::from_consensus(0x2000_0000),
        prev_blockhash: parent.block_hash(),
        merkle_root: TxMerkleNode::from_byte_array([salt; 32]),
        time: parent.time + 600,
        bits: parent.bits,
        nonce: 0,
    };
    while !check_proof_of_work(&header.block_hash(), header.bits.to_consensus(), params) {
        header.nonce += 1;
    }
    header
}

pub fn chain(params: &Params, from: &Header, blocks: usize, salt: u8) -> Vec<Header> {
    let mut chain: Vec<Header> = Vec::with_capacity(blocks);
    for _ in 0..blocks {
        chain.push(child(params, chain.last().unwrap_or(from), salt));
    }
    chain
}

/// Adds headers to a tree without asking; returns the last.
pub fn insert(tree: &mut BlockTree, headers: &[Header]) -> HeaderId {
    let mut last = tree.best_header();
    for header in headers {
        let parent = tree.find(&header.prev_blockhash).expect("the chain connects");
        last = tree.insert(parent, header);
    }
    last
}

/// A ready peer that serves everything.
pub fn view(id: u64, start_height: u32) -> PeerView {
    PeerView {
        id: PeerId(id),
        address: PeerAddress::Name(format!("peer{id}"), 18_444),
        ready: true,
        kind: ConnectionKind::FullRelay,
        services: ServiceFlags::NETWORK | ServiceFlags::WITNESS,
        start_height,
        best_known: None,
    }
}
