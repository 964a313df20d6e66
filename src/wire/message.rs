//! Every message of today's network as a type, its command and its payload.
//!
//! Payloads are read as Bitcoin Core reads them (`ProcessMessage` in `net_processing.cpp`): in order, counts
//! limited before anything is allocated, and what follows the last known field is ignored, so that later
//! versions may append fields. `version` may also end early (BIP37's relay flag and all that older versions
//! lacked). Where Core only drops a message that it cannot read, here it is an error: the sender broke the
//! protocol.
//!
//! What a payload makes us hold is at most about eight times its size: bytes, or items that were there.
//!
//! Left out: `alert`, `reject` and `feature`, which are unknown commands here; parsing blocks; what a message
//! means.

use super::addr;
use super::compact_size::{self, ReadError, Reader};
use super::frame::{Command, FrameError};
use crate::chain::command::RawBlock;
use crate::limits;
use bitcoin::bip152::{BlockTransactions, BlockTransactionsRequest, HeaderAndShortIds, PrefilledTransaction};
use bitcoin::block::Header;
use bitcoin::consensus::Encodable;
use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::address::{AddrV2Message, Address};
use bitcoin::p2p::message_blockdata::{GetBlocksMessage, GetHeadersMessage, Inventory};
use bitcoin::p2p::message_bloom::{BloomFlags, FilterAdd, FilterLoad};
use bitcoin::p2p::message_compact_blocks::SendCmpct;
use bitcoin::p2p::message_filter::{CFCheckpt, CFHeaders, CFilter, GetCFCheckpt, GetCFHeaders, GetCFilters};
use bitcoin::p2p::message_network::VersionMessage;
use bitcoin::{BlockHash, MerkleBlock, Transaction};

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
    /// At most 2,000 headers; on the wire each is followed by a zero for its transactions.
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

impl Message {
    /// The command that says what the payload is.
    pub fn command(&self) -> Command {
        let name = match self {
            Self::Version(_) => "version",
            Self::Verack => "verack",
            Self::WtxidRelay => "wtxidrelay",
            Self::SendAddrV2 => "sendaddrv2",
            Self::SendHeaders => "sendheaders",
            Self::SendCmpct(_) => "sendcmpct",
            Self::SendTxRcncl(_) => "sendtxrcncl",
            Self::Ping(_) => "ping",
            Self::Pong(_) => "pong",
            Self::GetAddr => "getaddr",
            Self::Addr(_) => "addr",
            Self::AddrV2(_) => "addrv2",
            Self::Inv(_) => "inv",
            Self::GetData(_) => "getdata",
            Self::NotFound(_) => "notfound",
            Self::GetBlocks(_) => "getblocks",
            Self::GetHeaders(_) => "getheaders",
            Self::Headers(_) => "headers",
            Self::Block(_) => "block",
            Self::Tx(_) => "tx",
            Self::MemPool => "mempool",
            Self::FeeFilter(_) => "feefilter",
            Self::FilterLoad(_) => "filterload",
            Self::FilterAdd(_) => "filteradd",
            Self::FilterClear => "filterclear",
            Self::MerkleBlock(_) => "merkleblock",
            Self::CmpctBlock(_) => "cmpctblock",
            Self::GetBlockTxn(_) => "getblocktxn",
            Self::BlockTxn(_) => "blocktxn",
            Self::GetCFilters(_) => "getcfilters",
            Self::CFilter(_) => "cfilter",
            Self::GetCFHeaders(_) => "getcfheaders",
            Self::CFHeaders(_) => "cfheaders",
            Self::GetCFCheckpt(_) => "getcfcheckpt",
            Self::CFCheckpt(_) => "cfcheckpt",
        };
        Command::new(name).expect("the names above have at most twelve ASCII characters")
    }

    /// Appends the payload. The protocol's limits are the caller's business.
    pub fn encode_payload(&self, out: &mut Vec<u8>) {
        match self {
            Self::Version(version) => put(out, version),
            Self::Verack
            | Self::WtxidRelay
            | Self::SendAddrV2
            | Self::SendHeaders
            | Self::GetAddr
            | Self::MemPool
            | Self::FilterClear => {}
            Self::SendCmpct(wish) => put(out, wish),
            Self::SendTxRcncl(bytes) => out.extend_from_slice(bytes),
            Self::Ping(nonce) | Self::Pong(nonce) => put(out, nonce),
            Self::Addr(addresses) => put_list(out, addresses),
            Self::AddrV2(addresses) => put_list(out, addresses),
            Self::Inv(items) | Self::GetData(items) | Self::NotFound(items) => put_list(out, items),
            Self::GetBlocks(request) => put(out, request),
            Self::GetHeaders(request) => put(out, request),
            Self::Headers(headers) => {
                compact_size::encode(headers.len() as u64, out);
                for header in headers {
                    put(out, header);
                    out.push(0);
                }
            }
            Self::Block(block) => out.extend_from_slice(block.bytes()),
            Self::Tx(transaction) => put(out, transaction),
            Self::FeeFilter(rate) => put(out, rate),
            Self::FilterLoad(filter) => put(out, filter),
            Self::FilterAdd(item) => put(out, item),
            Self::MerkleBlock(block) => put(out, block),
            Self::CmpctBlock(block) => put(out, block),
            Self::GetBlockTxn(request) => put_block_txn_request(out, request),
            Self::BlockTxn(answer) => put(out, answer),
            Self::GetCFilters(request) => put(out, request),
            Self::CFilter(filter) => put(out, filter),
            Self::GetCFHeaders(request) => put(out, request),
            Self::CFHeaders(headers) => put(out, headers),
            Self::GetCFCheckpt(request) => put(out, request),
            Self::CFCheckpt(headers) => put(out, headers),
        }
    }

    /// Parses a payload; `None` if the command is not known. A block keeps `payload` as it is.
    ///
    /// # Errors
    /// [`FrameError::Payload`] with the command and what is wrong.
    pub fn decode_payload(command: Command, payload: Vec<u8>) -> Result<Option<Self>, FrameError> {
        if command.as_str() == "block" {
            let block = RawBlock::new(payload).ok_or_else(|| blame(command, ReadError::Truncated))?;
            return Ok(Some(Self::Block(block)));
        }
        decode(command, &mut Reader::new(&payload)).map_err(|error| blame(command, error))
    }

    /// About how many bytes the payload will take, so that long ones are written without growing.
    pub(crate) fn payload_size_hint(&self) -> usize {
        match self {
            Self::Block(block) => block.bytes().len(),
            Self::Headers(headers) => 5 + headers.len() * 81,
            Self::Addr(entries) => 5 + entries.len() * 30,
            Self::AddrV2(entries) => 5 + entries.len() * 56,
            Self::Inv(items) | Self::GetData(items) | Self::NotFound(items) => 5 + items.len() * 36,
            _ => 64,
        }
    }
}

fn blame(command: Command, error: ReadError) -> FrameError {
    FrameError::Payload(format!("{command}: {error}"))
}

fn put<T: Encodable>(out: &mut Vec<u8>, value: &T) {
    value.consensus_encode(out).expect("a vector takes whatever is written");
}

fn put_list<T: Encodable>(out: &mut Vec<u8>, items: &[T]) {
    compact_size::encode(items.len() as u64, out);
    for item in items {
        put(out, item);
    }
}

/// BIP152: each index as its distance from the one after the previous. Out of order it would not be a request.
fn put_block_txn_request(out: &mut Vec<u8>, request: &BlockTransactionsRequest) {
    put(out, &request.block_hash);
    compact_size::encode(request.indexes.len() as u64, out);
    let mut next = 0u64;
    for index in &request.indexes {
        compact_size::encode(index.saturating_sub(next), out);
        next = index.saturating_add(1);
    }
}

/// Every payload but a block's.
fn decode(command: Command, r: &mut Reader<'_>) -> Result<Option<Message>, ReadError> {
    Ok(Some(match command.as_str() {
        "version" => Message::Version(version(r)?),
        "verack" => Message::Verack,
        "wtxidrelay" => Message::WtxidRelay,
        "sendaddrv2" => Message::SendAddrV2,
        "sendheaders" => Message::SendHeaders,
        "sendcmpct" => Message::SendCmpct(r.consensus()?),
        "sendtxrcncl" => Message::SendTxRcncl(r.rest().to_vec()),
        "ping" => Message::Ping(r.u64()?),
        "pong" => Message::Pong(r.u64()?),
        "getaddr" => Message::GetAddr,
        "addr" => Message::Addr(r.list(limits::MAX_ADDR, 30, Reader::consensus)?),
        // Time, services, network, length and port: the least that an entry takes.
        "addrv2" => Message::AddrV2(r.list(limits::MAX_ADDR, 9, addr::read_addr_v2_entry)?),
        "inv" => Message::Inv(inventory(r)?),
        "getdata" => Message::GetData(inventory(r)?),
        "notfound" => Message::NotFound(inventory(r)?),
        "getblocks" => {
            let (version, locator_hashes, stop_hash) = locator(r)?;
            Message::GetBlocks(GetBlocksMessage { version, locator_hashes, stop_hash })
        }
        "getheaders" => {
            let (version, locator_hashes, stop_hash) = locator(r)?;
            Message::GetHeaders(GetHeadersMessage { version, locator_hashes, stop_hash })
        }
        "headers" => Message::Headers(headers(r)?),
        "tx" => Message::Tx(transaction(r)?),
        "mempool" => Message::MemPool,
        "feefilter" => Message::FeeFilter(r.array().map(i64::from_le_bytes)?),
        "filterload" => Message::FilterLoad(filter_load(r)?),
        "filteradd" => Message::FilterAdd(FilterAdd { data: r.var_bytes(limits::MAX_FILTER_ADD)?.to_vec() }),
        "filterclear" => Message::FilterClear,
        "merkleblock" => Message::MerkleBlock(merkle_block(r)?),
        "cmpctblock" => Message::CmpctBlock(compact_block(r)?),
        "getblocktxn" => Message::GetBlockTxn(block_txn_request(r)?),
        "blocktxn" => Message::BlockTxn(BlockTransactions {
            block_hash: r.consensus()?,
            transactions: r.list(limits::MAX_COMPACT_TRANSACTIONS, LEAST_TRANSACTION, transaction)?,
        }),
        "getcfilters" => Message::GetCFilters(r.consensus()?),
        "cfilter" => Message::CFilter(CFilter {
            filter_type: r.u8()?,
            block_hash: r.consensus()?,
            filter: r.var_bytes(limits::MAX_BLOCK_FILTER)?.to_vec(),
        }),
        "getcfheaders" => Message::GetCFHeaders(r.consensus()?),
        "cfheaders" => Message::CFHeaders(CFHeaders {
            filter_type: r.u8()?,
            stop_hash: r.consensus()?,
            previous_filter_header: r.consensus()?,
            filter_hashes: r.list(limits::MAX_CFHEADERS, 32, Reader::consensus)?,
        }),
        "getcfcheckpt" => Message::GetCFCheckpt(r.consensus()?),
        "cfcheckpt" => Message::CFCheckpt(CFCheckpt {
            filter_type: r.u8()?,
            stop_hash: r.consensus()?,
            filter_headers: r.list(limits::MAX_CFCHECKPTS, 32, Reader::consensus)?,
        }),
        _ => return Ok(None),
    }))
}

/// The version message as Core takes it: 46 bytes must be there, then each further group may be missing.
fn version(r: &mut Reader<'_>) -> Result<VersionMessage, ReadError> {
    let nowhere = Address { services: ServiceFlags::NONE, address: [0; 8], port: 0 };
    let mut message = VersionMessage {
        // Core's is signed; a negative one is as obsolete as zero.
        version: r.array().map(i32::from_le_bytes)?.try_into().unwrap_or(0),
        services: ServiceFlags::from(r.u64()?),
        timestamp: r.array().map(i64::from_le_bytes)?,
        receiver: r.consensus()?,
        sender: nowhere,
        nonce: 0,
        user_agent: String::new(),
        start_height: -1,
        relay: true,
    };
    if !r.is_empty() {
        message.sender = r.consensus()?;
        message.nonce = r.u64()?;
    }
    if !r.is_empty() {
        // Anyone may put any bytes there; what is not UTF-8 is no reason to part.
        message.user_agent = String::from_utf8_lossy(r.var_bytes(limits::MAX_USER_AGENT)?).into_owned();
    }
    if !r.is_empty() {
        message.start_height = r.array().map(i32::from_le_bytes)?;
    }
    if !r.is_empty() {
        message.relay = r.u8()? != 0;
    }
    Ok(message)
}

fn inventory(r: &mut Reader<'_>) -> Result<Vec<Inventory>, ReadError> {
    r.list(limits::MAX_INV, 36, Reader::consensus)
}

fn locator(r: &mut Reader<'_>) -> Result<(u32, Vec<BlockHash>, BlockHash), ReadError> {
    Ok((r.u32()?, r.list(limits::MAX_LOCATOR, 32, Reader::consensus)?, r.consensus()?))
}

/// Headers, each followed by a zero for its transactions. A chain that split off mainnet flags its longer
/// headers by the top bit of the version: where such a header ends otherwise the list is cut behind it, so
/// that header sync, which knows heights, can tell another chain from a fault.
fn headers(r: &mut Reader<'_>) -> Result<Vec<Header>, ReadError> {
    let count = r.count(limits::MAX_HEADERS, 81)?;
    let mut headers: Vec<Header> = Vec::with_capacity(count);
    for _ in 0..count {
        let header: Header = r.consensus()?;
        let flagged = header.version.to_consensus() < 0;
        headers.push(header);
        match r.compact_size() {
            Ok(0) => {}
            _ if flagged => break,
            Ok(_) => return Err(ReadError::Field("a header followed by transactions")),
            Err(error) => return Err(error),
        }
    }
    Ok(headers)
}

fn filter_load(r: &mut Reader<'_>) -> Result<FilterLoad, ReadError> {
    let filter = r.var_bytes(limits::MAX_BLOOM_FILTER)?.to_vec();
    let (hash_funcs, tweak) = (r.u32()?, r.u32()?);
    if hash_funcs > limits::MAX_BLOOM_HASH_FUNCTIONS {
        return Err(ReadError::Field("too many hash functions"));
    }
    // The two lowest bits are the mode; Core takes the fourth mode as the first.
    let flags = match r.u8()? & 3 {
        1 => BloomFlags::All,
        2 => BloomFlags::PubkeyOnly,
        _ => BloomFlags::None,
    };
    Ok(FilterLoad { filter, hash_funcs, tweak, flags })
}

/// Checks both counts first: the decoder makes eight bytes of each byte of flags before it reads them.
fn merkle_block(r: &mut Reader<'_>) -> Result<MerkleBlock, ReadError> {
    let mut ahead = r.clone();
    ahead.bytes(80 + 4)?;
    let hashes = ahead.count(limits::MAX_BLOCK_TRANSACTIONS, 32)?;
    ahead.bytes(hashes * 32)?;
    ahead.var_bytes(limits::MAX_MERKLE_FLAG_BYTES)?;
    r.consensus()
}

fn compact_block(r: &mut Reader<'_>) -> Result<HeaderAndShortIds, ReadError> {
    let (header, nonce) = (r.consensus()?, r.u64()?);
    let short_ids = r.list(limits::MAX_COMPACT_TRANSACTIONS, 6, Reader::consensus)?;
    let left = limits::MAX_COMPACT_TRANSACTIONS - short_ids.len();
    let prefilled_txs = r.list(left, 1 + LEAST_TRANSACTION, |r| {
        let idx = u16::try_from(r.compact_size()?).map_err(|_| ReadError::Field("an index over 16 bits"))?;
        Ok(PrefilledTransaction { idx, tx: transaction(r)? })
    })?;
    Ok(HeaderAndShortIds { header, nonce, short_ids, prefilled_txs })
}

fn block_txn_request(r: &mut Reader<'_>) -> Result<BlockTransactionsRequest, ReadError> {
    let block_hash = r.consensus()?;
    let mut next = 0u64;
    let indexes = r.list(limits::MAX_COMPACT_TRANSACTIONS, 1, |r| {
        let index = next.saturating_add(r.compact_size()?);
        if index > u64::from(u16::MAX) {
            return Err(ReadError::Field("an index over 16 bits"));
        }
        next = index + 1;
        Ok(index)
    })?;
    Ok(BlockTransactionsRequest { block_hash, indexes })
}

/// Bytes of a transaction without inputs and outputs.
const LEAST_TRANSACTION: usize = 10;
/// Bytes of an input with an empty script, and of an output with one.
const LEAST_INPUT: usize = 41;
const LEAST_OUTPUT: usize = 9;

/// A transaction. Its outline is walked first: the decoder allocates for some counts (of witness items, 4
/// bytes each) before it has what they count.
fn transaction(r: &mut Reader<'_>) -> Result<Transaction, ReadError> {
    let mut ahead = r.clone();
    ahead.bytes(4)?;
    let mut inputs = skip_inputs(&mut ahead)?;
    let witness = inputs == 0;
    if witness {
        // No inputs: the marker of BIP144, a flag behind it.
        ahead.u8()?;
        inputs = skip_inputs(&mut ahead)?;
    }
    for _ in 0..ahead.count(usize::MAX, LEAST_OUTPUT)? {
        ahead.bytes(8)?;
        ahead.var_bytes(usize::MAX)?;
    }
    if witness {
        for _ in 0..inputs {
            for _ in 0..ahead.count(usize::MAX, 1)? {
                ahead.var_bytes(usize::MAX)?;
            }
        }
    }
    ahead.bytes(4)?;
    r.consensus()
}

fn skip_inputs(r: &mut Reader<'_>) -> Result<usize, ReadError> {
    let inputs = r.count(usize::MAX, LEAST_INPUT)?;
    for _ in 0..inputs {
        r.bytes(36)?;
        r.var_bytes(usize::MAX)?;
        r.bytes(4)?;
    }
    Ok(inputs)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use bitcoin::bip152::ShortId;
    use bitcoin::bip158::{FilterHash, FilterHeader};
    use bitcoin::consensus::{deserialize, serialize};
    use bitcoin::hashes::Hash;
    use bitcoin::hex::FromHex;
    use bitcoin::p2p::address::AddrV2;
    use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, TxIn, TxOut, Txid, Witness, Wtxid};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::strategy::Union;

    fn hash() -> impl Strategy<Value = [u8; 32]> {
        any::<[u8; 32]>()
    }

    fn block_hash() -> impl Strategy<Value = BlockHash> {
        hash().prop_map(BlockHash::from_byte_array)
    }

    fn header() -> impl Strategy<Value = Header> {
        vec(any::<u8>(), 80).prop_map(|bytes| deserialize(&bytes).unwrap())
    }

    fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
        vec(any::<u8>(), 0..=most)
    }

    fn any_transaction() -> impl Strategy<Value = Transaction> {
        let input = (hash(), any::<u32>(), bytes(40), any::<u32>(), vec(bytes(80), 0..4)).prop_map(
            |(txid, vout, script, sequence, witness)| TxIn {
                previous_output: OutPoint::new(Txid::from_byte_array(txid), vout),
                script_sig: ScriptBuf::from_bytes(script),
                sequence: Sequence(sequence),
                witness: Witness::from_slice(&witness),
            },
        );
        let output = (any::<u64>(), bytes(40)).prop_map(|(value, script)| TxOut {
            value: Amount::from_sat(value),
            script_pubkey: ScriptBuf::from_bytes(script),
        });
        (any::<i32>(), vec(input, 1..4), vec(output, 0..4), any::<u32>()).prop_map(
            |(version, input, output, lock_time)| Transaction {
                version: bitcoin::transaction::Version(version),
                lock_time: bitcoin::absolute::LockTime::from_consensus(lock_time),
                input,
                output,
            },
        )
    }

    fn address() -> impl Strategy<Value = Address> {
        (any::<u64>(), any::<[u16; 8]>(), any::<u16>()).prop_map(|(services, address, port)| Address {
            services: ServiceFlags::from(services),
            address,
            port,
        })
    }

    fn addr_v2() -> impl Strategy<Value = AddrV2Message> {
        let addr = prop_oneof![
            any::<[u8; 4]>().prop_map(|ip| AddrV2::Ipv4(ip.into())),
            any::<[u8; 16]>()
                .prop_filter("no disguise", |ip| ip[..10] != [0; 10] && ip[..2] != [0xfd, 0x87])
                .prop_map(|ip| AddrV2::Ipv6(ip.into())),
            any::<[u8; 10]>().prop_map(AddrV2::TorV2),
            hash().prop_map(AddrV2::TorV3),
            hash().prop_map(AddrV2::I2p),
            any::<[u8; 16]>().prop_map(|ip| AddrV2::Cjdns(ip.into())),
            (7u8.., bytes(64)).prop_map(|(network, bytes)| AddrV2::Unknown(network, bytes)),
        ];
        (any::<u32>(), any::<u64>(), addr, any::<u16>()).prop_map(|(time, services, addr, port)| {
            AddrV2Message { time, services: ServiceFlags::from(services), addr, port }
        })
    }

    fn items() -> impl Strategy<Value = Vec<Inventory>> {
        let item = (0..6, hash(), 6u32..100).prop_map(|(kind, hash, inv_type)| match kind {
            0 => Inventory::Transaction(Txid::from_byte_array(hash)),
            1 => Inventory::Block(BlockHash::from_byte_array(hash)),
            2 => Inventory::CompactBlock(BlockHash::from_byte_array(hash)),
            3 => Inventory::WTx(Wtxid::from_byte_array(hash)),
            4 => Inventory::WitnessBlock(BlockHash::from_byte_array(hash)),
            _ => Inventory::Unknown { inv_type, hash },
        });
        vec(item, 0..20)
    }

    fn version_message() -> impl Strategy<Value = VersionMessage> {
        let ends = (address(), address(), any::<u64>());
        (0..u32::MAX / 2, any::<u64>(), any::<i64>(), ends, "\\PC{0,40}", any::<i32>(), any::<bool>())
            .prop_map(
                |(
                    version,
                    services,
                    timestamp,
                    (receiver, sender, nonce),
                    user_agent,
                    start_height,
                    relay,
                )| {
                    VersionMessage {
                        version,
                        services: ServiceFlags::from(services),
                        timestamp,
                        receiver,
                        sender,
                        nonce,
                        user_agent,
                        start_height,
                        relay,
                    }
                },
            )
    }

    fn compact_block_message() -> impl Strategy<Value = HeaderAndShortIds> {
        let prefilled =
            (any::<u16>(), any_transaction()).prop_map(|(idx, tx)| PrefilledTransaction { idx, tx });
        let short_ids = vec(any::<[u8; 6]>().prop_map(ShortId::from), 0..20);
        (header(), any::<u64>(), short_ids, vec(prefilled, 0..3)).prop_map(
            |(header, nonce, short_ids, prefilled_txs)| HeaderAndShortIds {
                header,
                nonce,
                short_ids,
                prefilled_txs,
            },
        )
    }

    fn partial_merkle_tree() -> impl Strategy<Value = MerkleBlock> {
        (header(), vec((hash(), any::<bool>()), 1..40)).prop_map(|(header, leaves)| {
            let (txids, matches): (Vec<_>, Vec<_>) =
                leaves.into_iter().map(|(hash, matched)| (Txid::from_byte_array(hash), matched)).unzip();
            let txn = bitcoin::merkle_tree::PartialMerkleTree::from_txids(&txids, &matches);
            // Through its bytes once: they fill up the last byte of flags.
            deserialize(&serialize(&MerkleBlock { header, txn })).unwrap()
        })
    }

    fn filter_messages() -> impl Strategy<Value = Message> {
        (any::<u8>(), any::<u32>(), block_hash(), vec(hash(), 0..20), bytes(100), 0..6).prop_map(
            |(filter_type, start_height, stop_hash, hashes, filter, kind)| match kind {
                0 => Message::GetCFilters(GetCFilters { filter_type, start_height, stop_hash }),
                1 => Message::CFilter(CFilter { filter_type, block_hash: stop_hash, filter }),
                2 => Message::GetCFHeaders(GetCFHeaders { filter_type, start_height, stop_hash }),
                3 => Message::CFHeaders(CFHeaders {
                    filter_type,
                    stop_hash,
                    previous_filter_header: FilterHeader::all_zeros(),
                    filter_hashes: hashes.into_iter().map(FilterHash::from_byte_array).collect(),
                }),
                4 => Message::GetCFCheckpt(GetCFCheckpt { filter_type, stop_hash }),
                _ => Message::CFCheckpt(CFCheckpt {
                    filter_type,
                    stop_hash,
                    filter_headers: hashes.into_iter().map(FilterHeader::from_byte_array).collect(),
                }),
            },
        )
    }

    fn bloom_messages() -> impl Strategy<Value = Message> {
        (bytes(100), 0..=50u32, any::<u32>(), 0..5).prop_map(|(filter, hash_funcs, tweak, kind)| {
            let flags = match kind {
                0 => BloomFlags::None,
                1 => BloomFlags::All,
                2 => BloomFlags::PubkeyOnly,
                3 => return Message::FilterAdd(FilterAdd { data: filter }),
                _ => return Message::FilterClear,
            };
            Message::FilterLoad(FilterLoad { filter, hash_funcs, tweak, flags })
        })
    }

    /// Any message that the protocol allows, lists short.
    pub(crate) fn any_message() -> impl Strategy<Value = Message> {
        let empty = prop::sample::select(vec![
            Message::Verack,
            Message::WtxidRelay,
            Message::SendAddrV2,
            Message::SendHeaders,
            Message::GetAddr,
            Message::MemPool,
        ]);
        let request = || (any::<u32>(), vec(block_hash(), 0..20), block_hash());
        let indexes = prop::collection::btree_set(0u64..=65_535, 0..30);
        Union::new([
            empty.boxed(),
            version_message().prop_map(Message::Version).boxed(),
            (any::<bool>(), any::<u64>())
                .prop_map(|(send_compact, version)| Message::SendCmpct(SendCmpct { send_compact, version }))
                .boxed(),
            bytes(12).prop_map(Message::SendTxRcncl).boxed(),
            any::<u64>().prop_map(Message::Ping).boxed(),
            any::<u64>().prop_map(Message::Pong).boxed(),
            any::<i64>().prop_map(Message::FeeFilter).boxed(),
            vec((any::<u32>(), address()), 0..20).prop_map(Message::Addr).boxed(),
            vec(addr_v2(), 0..20).prop_map(Message::AddrV2).boxed(),
            items().prop_map(Message::Inv).boxed(),
            items().prop_map(Message::GetData).boxed(),
            items().prop_map(Message::NotFound).boxed(),
            request()
                .prop_map(|(version, locator_hashes, stop_hash)| {
                    Message::GetBlocks(GetBlocksMessage { version, locator_hashes, stop_hash })
                })
                .boxed(),
            request()
                .prop_map(|(version, locator_hashes, stop_hash)| {
                    Message::GetHeaders(GetHeadersMessage { version, locator_hashes, stop_hash })
                })
                .boxed(),
            vec(header(), 0..20).prop_map(Message::Headers).boxed(),
            vec(any::<u8>(), 80..2_000).prop_map(|b| Message::Block(RawBlock::new(b).unwrap())).boxed(),
            any_transaction().prop_map(Message::Tx).boxed(),
            bloom_messages().boxed(),
            partial_merkle_tree().prop_map(Message::MerkleBlock).boxed(),
            compact_block_message().prop_map(Message::CmpctBlock).boxed(),
            (block_hash(), indexes)
                .prop_map(|(block_hash, indexes)| {
                    let indexes = indexes.into_iter().collect();
                    Message::GetBlockTxn(BlockTransactionsRequest { block_hash, indexes })
                })
                .boxed(),
            (block_hash(), vec(any_transaction(), 0..4))
                .prop_map(|(block_hash, transactions)| {
                    Message::BlockTxn(BlockTransactions { block_hash, transactions })
                })
                .boxed(),
            filter_messages().boxed(),
        ])
    }

    const COMMANDS: [&str; 35] = [
        "version",
        "verack",
        "wtxidrelay",
        "sendaddrv2",
        "sendheaders",
        "sendcmpct",
        "sendtxrcncl",
        "ping",
        "pong",
        "getaddr",
        "addr",
        "addrv2",
        "inv",
        "getdata",
        "notfound",
        "getblocks",
        "getheaders",
        "headers",
        "block",
        "tx",
        "mempool",
        "feefilter",
        "filterload",
        "filteradd",
        "filterclear",
        "merkleblock",
        "cmpctblock",
        "getblocktxn",
        "blocktxn",
        "getcfilters",
        "cfilter",
        "getcfheaders",
        "cfheaders",
        "getcfcheckpt",
        "cfcheckpt",
    ];

    fn parse(command: &str, payload: &[u8]) -> Result<Option<Message>, FrameError> {
        Message::decode_payload(Command::new(command).unwrap(), payload.to_vec())
    }

    fn payload(message: &Message) -> Vec<u8> {
        let mut out = Vec::new();
        message.encode_payload(&mut out);
        out
    }

    fn counted(count: u64, rest: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        compact_size::encode(count, &mut bytes);
        bytes.extend_from_slice(rest);
        bytes
    }

    #[test]
    fn a_version_may_end_early() {
        let full = VersionMessage {
            version: 70_016,
            services: ServiceFlags::NETWORK,
            timestamp: 1,
            receiver: Address { services: ServiceFlags::NONE, address: [1; 8], port: 2 },
            sender: Address { services: ServiceFlags::NONE, address: [3; 8], port: 4 },
            nonce: 5,
            user_agent: "/a:1/".into(),
            start_height: 6,
            relay: false,
        };
        let bytes = serialize(&full);
        let at = |cut: usize| match parse("version", &bytes[..cut]) {
            Ok(Some(Message::Version(version))) => Some(version),
            Err(FrameError::Payload(_)) => None,
            other => panic!("{other:?}"),
        };
        let ends: Vec<usize> = (0..=bytes.len()).filter(|cut| at(*cut).is_some()).collect();
        assert_eq!(ends, [46, 80, 86, 90, 91]);
        assert_eq!(at(91), Some(full.clone()));
        assert_eq!(at(90), Some(VersionMessage { relay: true, ..full.clone() }));
        let bare = at(46).unwrap();
        assert_eq!((bare.start_height, bare.relay, bare.user_agent.as_str()), (-1, true, ""));
        let mut odd = bytes.clone();
        odd[81] = 0xff;
        odd[3] = 0x80;
        odd.extend([1, 2, 3]);
        let Ok(Some(Message::Version(odd))) = parse("version", &odd) else { panic!() };
        assert_eq!((odd.version, odd.user_agent.as_str()), (0, "\u{fffd}a:1/"));
        let mut long = bytes[..80].to_vec();
        long.extend(counted(257, &[b'a'; 257]));
        assert_eq!(
            parse("version", &long),
            Err(FrameError::Payload("version: 257 items, at most 256 are allowed".into()))
        );
    }

    #[test]
    fn lists_stop_at_their_limits() {
        let hash = [7; 32];
        let request =
            |count: u64| [&[0; 4][..], &counted(count, &vec![0; 32 * count as usize]), &hash].concat();
        let filters = |before: usize, count: u64| {
            [&vec![0; before][..], &counted(count, &vec![0; 32 * count as usize])].concat()
        };
        type Build<'a> = &'a dyn Fn(u64) -> Vec<u8>;
        let list = |size: usize| move |count: u64| counted(count, &vec![0; size * count as usize]);
        let (inv, addr, headers, blob) = (list(36), list(30), list(81), list(1));
        // An IPv4 address of network 1.
        let addr_v2 = |n: u64| counted(n, &[0, 0, 0, 0, 0, 1, 4, 1, 2, 3, 4, 0, 0].repeat(n as usize));
        let filter_load = |n: u64| [blob(n), vec![0; 9]].concat();
        let cf_headers = |n: u64| filters(65, n);
        let cf_checkpt = |n: u64| filters(33, n);
        let cfilter = |n: u64| [&[0; 33][..], &blob(n)].concat();
        let cases: [(&str, usize, Build<'_>); 13] = [
            ("inv", limits::MAX_INV, &inv),
            ("getdata", limits::MAX_INV, &inv),
            ("notfound", limits::MAX_INV, &inv),
            ("addr", limits::MAX_ADDR, &addr),
            ("addrv2", limits::MAX_ADDR, &addr_v2),
            ("headers", limits::MAX_HEADERS, &headers),
            ("getheaders", limits::MAX_LOCATOR, &request),
            ("getblocks", limits::MAX_LOCATOR, &request),
            ("filterload", limits::MAX_BLOOM_FILTER, &filter_load),
            ("filteradd", limits::MAX_FILTER_ADD, &blob),
            ("cfilter", limits::MAX_BLOCK_FILTER, &cfilter),
            ("cfheaders", limits::MAX_CFHEADERS, &cf_headers),
            ("cfcheckpt", limits::MAX_CFCHECKPTS, &cf_checkpt),
        ];
        for (command, limit, build) in cases {
            let full = build(limit as u64);
            assert!(full.len() <= Command::new(command).unwrap().payload_limit().unwrap(), "{command}");
            assert!(matches!(parse(command, &full), Ok(Some(_))), "{command}");
            let over = build(limit as u64 + 1);
            let Err(FrameError::Payload(why)) = parse(command, &over) else { panic!("{command}") };
            assert!(why.contains("allowed"), "{why}");
        }
    }

    #[test]
    fn hostile_counts_are_refused() {
        let huge = counted(1 << 63, &[0; 100]);
        for before in [0, 1, 4, 32, 33, 65, 80, 84, 88] {
            let bytes = [&vec![0; before][..], &huge].concat();
            for command in COMMANDS {
                // Reading on past the count would exhaust the memory or run for ever.
                let _ = parse(command, &bytes);
            }
        }
        // A transaction with one input whose witness claims four million items.
        let mut witness = vec![2, 0, 0, 0, 0, 1, 1];
        witness.extend([0; 41]);
        witness.push(0);
        witness.extend(counted(4_000_000, &[0; 8]));
        assert_eq!(parse("tx", &witness), Err(FrameError::Payload("tx: it ends too early".into())));
        // Flags of a merkle tree claim more than there is, and more than there can be.
        for (flags, why) in [(4_000, "it ends too early"), (1 << 40, "allowed")] {
            let bytes = [vec![0; 84], counted(0, &counted(flags, &[0; 8]))].concat();
            let Err(FrameError::Payload(text)) = parse("merkleblock", &bytes) else { panic!() };
            assert!(text.contains(why), "{text}");
        }
    }

    #[test]
    fn fields_out_of_range() {
        assert!(parse("sendcmpct", &[2, 2, 0, 0, 0, 0, 0, 0, 0]).is_err());
        let mut headers = counted(1, &[0; 81]);
        assert!(parse("headers", &headers).is_ok());
        headers[81] = 1;
        assert!(parse("headers", &headers).is_err());
        let filter = [counted(1, &[0]), vec![51, 0, 0, 0], vec![0; 5]].concat();
        assert!(parse("filterload", &filter).is_err());
        // Differences that add up to 65,535 and to 65,536.
        for (last, good) in [(65_533u16, true), (65_534, false)] {
            let [low, high] = last.to_le_bytes();
            let bytes = [vec![0; 32], vec![2, 1, 0xfd, low, high]].concat();
            assert_eq!(parse("getblocktxn", &bytes).is_ok(), good);
        }
        assert!(parse("block", &[0; 79]).is_err());
        assert_eq!(parse("reject", &[1]), Ok(None));
    }

    #[test]
    fn core_s_three_addresses() {
        let entries = "61bc6649 00 0210 00000000000000000000000000000001 0000
             79627683 01 0210 00000000000000000000000000000001 00f1
             ffffffff fd4804 0210 00000000000000000000000000000001 f1f2";
        let hex: String = format!("03{entries}").split_whitespace().collect();
        let bytes = Vec::from_hex(&hex).unwrap();
        let Ok(Some(message @ Message::AddrV2(_))) = parse("addrv2", &bytes) else { panic!() };
        assert_eq!(payload(&message), bytes);
        let Message::AddrV2(entries) = message else { panic!() };
        assert_eq!(entries[2].services.to_u64(), 1_096);
        assert_eq!(addr::to_socket(&entries[1].addr, entries[1].port), "[::1]:241".parse().ok());
    }

    proptest! {
        #[test]
        fn any_message_round_trips(message in any_message()) {
            let bytes = payload(&message);
            prop_assert!(bytes.len() <= message.command().payload_limit().unwrap());
            prop_assert_eq!(Message::decode_payload(message.command(), bytes), Ok(Some(message)));
        }

        #[test]
        fn bytes_behind_the_last_field_are_ignored(message in any_message(), tail in bytes(20)) {
            if matches!(message, Message::SendTxRcncl(_) | Message::Block(_)) {
                return Ok(());
            }
            let mut long = payload(&message);
            long.extend(tail);
            prop_assert_eq!(Message::decode_payload(message.command(), long), Ok(Some(message)));
        }

        #[test]
        fn a_payload_cut_short_is_no_message(message in any_message(), cut in any::<prop::sample::Index>()) {
            if matches!(message, Message::SendTxRcncl(_) | Message::Block(_) | Message::Version(_)) {
                return Ok(());
            }
            let bytes = payload(&message);
            if bytes.is_empty() {
                return Ok(());
            }
            let cut = &bytes[..cut.index(bytes.len())];
            prop_assert!(Message::decode_payload(message.command(), cut.to_vec()).is_err());
        }

        #[test]
        fn random_payloads_never_panic(command in prop::sample::select(&COMMANDS[..]), noise in bytes(300)) {
            if let Ok(Some(message)) = parse(command, &noise) {
                let answered = message.command();
                prop_assert_eq!(answered.as_str(), command);
            }
        }

        #[test]
        fn damaged_payloads_never_panic(
            message in any_message(),
            damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let mut bytes = payload(&message);
            if bytes.is_empty() {
                return Ok(());
            }
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = Message::decode_payload(message.command(), bytes);
        }
    }

    #[test]
    fn longer_headers_of_another_chain_are_cut_and_others_refused() {
        let mut payload = vec![2];
        for version in [0xA0u8, 0x20] {
            let mut header = [1u8; 164];
            header[3] = version;
            payload.extend(header);
            payload.push(0);
        }
        let command = Command::new("headers").unwrap();
        match Message::decode_payload(command, payload.clone()).unwrap() {
            Some(Message::Headers(headers)) => {
                assert_eq!(headers.len(), 1);
                assert!(headers[0].version.to_consensus() < 0);
            }
            other => panic!("{other:?}"),
        }
        payload[1 + 3] = 0x20;
        assert!(Message::decode_payload(command, payload).is_err());
    }
}
