//! Messages that nobody asked for, and chains of headers that cost nothing: what hostile peers of the simulation send.
//! All of it is the protocol's, and none of it a provable fault.

use super::forge::mine_header;
use super::serve::ServedChain;
use crate::limits::{MAX_ADDR, MAX_HEADERS};
use crate::rng::Rng;
use crate::wire::Message;
use bitcoin::absolute::LockTime;
use bitcoin::bip152::{
    BlockTransactions, BlockTransactionsRequest, HeaderAndShortIds, PrefilledTransaction, ShortId,
};
use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::address::{AddrV2, AddrV2Message, Address};
use bitcoin::p2p::message_blockdata::{GetHeadersMessage, Inventory};
use bitcoin::p2p::message_compact_blocks::SendCmpct;
use bitcoin::{
    Amount, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Txid, Witness,
    Wtxid,
};
use std::net::{Ipv4Addr, SocketAddr};

/// Seconds between headers of a cheap chain.
const CHEAP_SPACING: u32 = 1;

/// Headers with proof of work, one on the other, from this one on.
pub(super) fn cheap_headers(first: Header, count: u32, rng: &mut Rng) -> Vec<Header> {
    let mut headers = Vec::with_capacity(count as usize);
    let mut parent = first;
    for _ in 0..count {
        let mut header = Header {
            version: bitcoin::block::Version::from_consensus(0x2000_0000),
            prev_blockhash: parent.block_hash(),
            merkle_root: TxMerkleNode::from_byte_array(rng.array()),
            time: parent.time + CHEAP_SPACING,
            ..first
        };
        mine_header(&mut header);
        headers.push(header);
        parent = header;
    }
    headers
}

/// Those of them that a node with this locator lacks, at most 2,000.
pub(super) fn headers_after(headers: &[Header], locator: &[BlockHash]) -> Message {
    // Each header names the one before: what is known is found as a parent.
    let known = |header: &Header| locator.contains(&header.prev_blockhash);
    let end = headers.last().is_some_and(|last| locator.contains(&last.block_hash()));
    let from = if end { headers.len() } else { headers.iter().rposition(known).unwrap_or(0) };
    Message::Headers(headers[from..].iter().take(MAX_HEADERS).copied().collect())
}

/// A message of the kinds that every node sees.
pub(super) fn any(n: u32, rng: &mut Rng) -> Message {
    let hash = BlockHash::from_byte_array(rng.array());
    match n % 6 {
        0 => Message::Ping(rng.u64()),
        1 => Message::Inv(vec![Inventory::Block(hash)]),
        2 => Message::Addr(Vec::new()),
        3 => Message::GetData(vec![Inventory::WitnessBlock(hash)]),
        4 => Message::NotFound(vec![Inventory::WitnessBlock(hash)]),
        _ => Message::Pong(rng.u64()),
    }
}

/// `addr` and `addrv2` with up to a thousand entries: of all networks, at all times, also such as nobody can have.
pub(super) fn addresses(n: u32, rng: &mut Rng) -> Message {
    let entries = 1 + rng.below(MAX_ADDR as u64);
    if n.is_multiple_of(3) {
        let legacy = |rng: &mut Rng| {
            let socket = SocketAddr::from((Ipv4Addr::from(rng.array::<4>()), rng.u64() as u16));
            (rng.u64() as u32, Address::new(&socket, ServiceFlags::from(rng.u64())))
        };
        return Message::Addr((0..entries).map(|_| legacy(rng)).collect());
    }
    Message::AddrV2((0..entries).map(|_| address(rng)).collect())
}

fn address(rng: &mut Rng) -> AddrV2Message {
    let addr = match rng.below(8) {
        0..3 => AddrV2::Ipv4(rng.array::<4>().into()),
        3 => AddrV2::Ipv6(rng.array::<16>().into()),
        4 => AddrV2::TorV3(rng.array()),
        5 => AddrV2::I2p(rng.array()),
        6 => AddrV2::TorV2(rng.array()),
        _ => AddrV2::Unknown(rng.u64() as u8 | 0x80, vec![rng.u64() as u8; rng.below(512) as usize]),
    };
    let services = if rng.below(2) == 0 { ServiceFlags::NETWORK } else { ServiceFlags::from(rng.u64()) };
    AddrV2Message { time: rng.u64() as u32, services, addr, port: rng.u64() as u16 }
}

/// Compact blocks of blocks that exist and of others, and what belongs to them (BIP152).
pub(super) fn compact(n: u32, chain: &ServedChain, rng: &mut Rng) -> Message {
    let block = some_block(chain, rng);
    match n % 5 {
        0 | 1 => {
            let mut header = block.map_or_else(|| header(rng), |raw| *raw.header());
            if n % 5 == 1 {
                header.merkle_root = TxMerkleNode::from_byte_array(rng.array());
                mine_header(&mut header);
            }
            let short_ids = (0..rng.below(200)).map(|_| ShortId::from(rng.array::<6>())).collect();
            let prefilled_txs = vec![PrefilledTransaction { idx: 0, tx: transaction(rng) }];
            Message::CmpctBlock(HeaderAndShortIds { header, nonce: rng.u64(), short_ids, prefilled_txs })
        }
        2 => Message::BlockTxn(BlockTransactions {
            block_hash: hash_of(chain, rng),
            transactions: (0..rng.below(20)).map(|_| transaction(rng)).collect(),
        }),
        3 => Message::GetBlockTxn(BlockTransactionsRequest {
            block_hash: hash_of(chain, rng),
            indexes: (0..rng.below(100)).collect(),
        }),
        _ => Message::SendCmpct(SendCmpct { send_compact: rng.below(2) == 0, version: 1 + rng.below(3) }),
    }
}

/// Transactions that spend nothing that exists, and announcements of more.
pub(super) fn transactions(n: u32, rng: &mut Rng) -> Message {
    if n.is_multiple_of(4) {
        let known = |rng: &mut Rng| match rng.below(2) {
            0 => Inventory::Transaction(Txid::from_byte_array(rng.array())),
            _ => Inventory::WTx(Wtxid::from_byte_array(rng.array())),
        };
        let entries = rng.below(500);
        return Message::Inv((0..entries).map(|_| known(rng)).collect());
    }
    Message::Tx(transaction(rng))
}

/// Questions: for blocks that the node may have and for others, for headers by any locator, for what it does not serve.
pub(super) fn questions(n: u32, chain: &ServedChain, rng: &mut Rng) -> Message {
    match n % 6 {
        0..3 => {
            let wanted = |rng: &mut Rng| match rng.below(8) {
                0 => Inventory::WitnessBlock(BlockHash::from_byte_array(rng.array())),
                1 => Inventory::Transaction(Txid::from_byte_array(rng.array())),
                2 => Inventory::Block(hash_of(chain, rng)),
                3 => Inventory::CompactBlock(hash_of(chain, rng)),
                _ => Inventory::WitnessBlock(hash_of(chain, rng)),
            };
            let entries = 1 + rng.below(300);
            Message::GetData((0..entries).map(|_| wanted(rng)).collect())
        }
        3 => {
            let locator_hashes = (0..rng.below(101)).map(|_| hash_of(chain, rng)).collect();
            let stop_hash = hash_of(chain, rng);
            Message::GetHeaders(GetHeadersMessage { version: 70_016, locator_hashes, stop_hash })
        }
        4 => Message::GetAddr,
        _ => Message::MemPool,
    }
}

fn some_block<'a>(chain: &'a ServedChain, rng: &mut Rng) -> Option<&'a crate::chain::command::RawBlock> {
    chain.at(rng.below(u64::from(chain.tip().height) + 1) as u32)
}

fn hash_of(chain: &ServedChain, rng: &mut Rng) -> BlockHash {
    some_block(chain, rng).map_or_else(|| BlockHash::from_byte_array(rng.array()), |raw| raw.hash())
}

fn header(rng: &mut Rng) -> Header {
    Header {
        version: bitcoin::block::Version::TWO,
        prev_blockhash: BlockHash::from_byte_array(rng.array()),
        merkle_root: TxMerkleNode::from_byte_array(rng.array()),
        time: rng.u64() as u32,
        bits: bitcoin::CompactTarget::from_consensus(0x207f_ffff),
        nonce: 0,
    }
}

fn transaction(rng: &mut Rng) -> Transaction {
    let input = |rng: &mut Rng| TxIn {
        previous_output: OutPoint::new(Txid::from_byte_array(rng.array()), 0),
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::from_slice(&[rng.array::<32>()]),
    };
    let inputs = 1 + rng.below(10);
    Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: (0..inputs).map(|_| input(rng)).collect(),
        output: vec![TxOut { value: Amount::from_sat(1_000), script_pubkey: ScriptBuf::new() }],
    }
}
