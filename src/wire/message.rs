//! Every message of today's network as a type.

use crate::chain::command::RawBlock;
use bitcoin::bip152::{BlockTransactions, BlockTransactionsRequest, HeaderAndShortIds};
use bitcoin::block::Header;
use bitcoin::p2p::address::{AddrV2Message, Address};
use bitcoin::p2p::message_blockdata::{GetBlocksMessage, GetHeadersMessage, Inventory};
use bitcoin::p2p::message_bloom::{FilterAdd, FilterLoad};
use bitcoin::p2p::message_compact_blocks::SendCmpct;
use bitcoin::p2p::message_filter::{CFCheckpt, CFHeaders, CFilter, GetCFCheckpt, GetCFHeaders, GetCFilters};
use bitcoin::p2p::message_network::VersionMessage;
use bitcoin::{MerkleBlock, Transaction};

/// A message of the peer-to-peer protocol.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Message {
    /// First message in both directions.
    Version(VersionMessage),
    /// Accepts the peer's version.
    Verack,
    /// BIP339: transactions are announced by wtxid.
    WtxidRelay,
    /// BIP155: `addrv2` is understood.
    SendAddrV2,
    /// BIP130: announce blocks by headers.
    SendHeaders,
    /// BIP152.
    SendCmpct(SendCmpct),
    /// BIP330: salt and version of transaction reconciliation; the payload is kept as it came.
    SendTxRcncl(Vec<u8>),
    /// Keep-alive with a nonce.
    Ping(u64),
    /// Answer to a ping.
    Pong(u64),
    /// Asks for addresses.
    GetAddr,
    /// Addresses with the time they were last seen, in Unix seconds.
    Addr(Vec<(u32, Address)>),
    /// BIP155 addresses.
    AddrV2(Vec<AddrV2Message>),
    /// Announcements.
    Inv(Vec<Inventory>),
    /// Requests for announced objects.
    GetData(Vec<Inventory>),
    /// Objects that the peer does not have.
    NotFound(Vec<Inventory>),
    /// Asks for an inv of block hashes after a locator.
    GetBlocks(GetBlocksMessage),
    /// Asks for headers after a locator.
    GetHeaders(GetHeadersMessage),
    /// At most 2,000 headers.
    Headers(Vec<Header>),
    /// A block's bytes, not parsed beyond the header.
    Block(RawBlock),
    /// A transaction.
    Tx(Transaction),
    /// BIP35: asks for the mempool's contents.
    MemPool,
    /// BIP133: the lowest fee rate of transactions wanted, in satoshis per 1,000 virtual bytes.
    FeeFilter(i64),
    /// BIP37.
    FilterLoad(FilterLoad),
    /// BIP37.
    FilterAdd(FilterAdd),
    /// BIP37.
    FilterClear,
    /// BIP37.
    MerkleBlock(MerkleBlock),
    /// BIP152: a block as header and short ids.
    CmpctBlock(HeaderAndShortIds),
    /// BIP152: asks for transactions of a block.
    GetBlockTxn(BlockTransactionsRequest),
    /// BIP152: the transactions asked for.
    BlockTxn(BlockTransactions),
    /// BIP157.
    GetCFilters(GetCFilters),
    /// BIP157.
    CFilter(CFilter),
    /// BIP157.
    GetCFHeaders(GetCFHeaders),
    /// BIP157.
    CFHeaders(CFHeaders),
    /// BIP157.
    GetCFCheckpt(GetCFCheckpt),
    /// BIP157.
    CFCheckpt(CFCheckpt),
}
