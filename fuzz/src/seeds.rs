//! What the fuzzer begins with: real messages, blocks, undo data and files, and random steps. The same each
//! time.

use crate::base::{HEIGHT, base, content, output, spend};
use crate::frame::MAGIC;
use crate::message::COMMANDS;
use crate::nat_replies::{PORT, TRANSACTION};
use bitcoin::bip152::{BlockTransactions, BlockTransactionsRequest, HeaderAndShortIds};
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::p2p::address::{AddrV2, AddrV2Message, Address};
use bitcoin::p2p::message_blockdata::{GetBlocksMessage, GetHeadersMessage, Inventory};
use bitcoin::p2p::message_bloom::{BloomFlags, FilterAdd, FilterLoad};
use bitcoin::p2p::message_compact_blocks::SendCmpct;
use bitcoin::p2p::message_filter::{CFCheckpt, CFHeaders, CFilter, GetCFCheckpt, GetCFHeaders, GetCFilters};
use bitcoin::p2p::message_network::VersionMessage;
use bitcoin::p2p::{Magic, ServiceFlags};
use bitcoin::{Block, BlockHash, MerkleBlock, OutPoint, Transaction, Txid, Witness};
use headlong::PeerAddress;
use headlong::chain::command::{BlockRef, HeaderMark, RawBlock, RollbackCheckpoint};
use headlong::limits::MAX_LOCATOR;
use headlong::peer::book::{AddressBook, NetGroup, Told};
use headlong::rng::Rng;
use headlong::store::header_file::{HEADER_FILE, HeaderFile};
use headlong::store::medium::{Medium, MemoryMedium};
use headlong::store::schema::{BlockEntry, block_entry};
use headlong::store::{Store, Table};
use headlong::wire::{Message, frame, v2};
use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

/// The seeds of a target; none if there is no such target.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "frame" => frames(),
        "message" => messages().iter().chain(&long_locators()).map(numbered).collect(),
        "block" => blocks().iter().flat_map(|block| [0, 1].map(|mode| with(mode, block))).collect(),
        "undo" => undo().iter().flat_map(|undo| [0, 1].map(|mode| with(mode, undo))).collect(),
        "store_decoding" => [store(), steps(5, 24, 60)].concat(),
        "block_files" => [files(), steps(1, 24, 200), steps(0, 8, 200)].concat(),
        "small_files" => small_files(),
        "address_file" => [address_files(), steps(1, 24, 300)].concat(),
        "score_file" => [crate::score_file::seeds(), steps(1, 24, 300)].concat(),
        "encryption" => [v1_starts(), steps(0, 8, 400), steps(1, 8, 6_000), packets()].concat(),
        "proxy" => proxies(),
        "nat_replies" => nat_replies(),
        "http_response" => crate::http_response::seeds(),
        "header_sync" => [steps(0, 24, 120), steps(6, 24, 240), presyncs()].concat(),
        "engine" => [steps(1, 24, 300), steps(3, 24, 800), syncs(), changed_bodies()].concat(),
        "chainstate_connect" => [steps(0, 40, 200), steps(9, 40, 400)].concat(),
        _ => Vec::new(),
    }
}

fn with(first: u8, rest: &[u8]) -> Vec<u8> {
    [&[first], rest].concat()
}

/// Random steps behind a first byte.
fn steps(first: u8, count: usize, length: u64) -> Vec<Vec<u8>> {
    let mut rng = Rng::from_number(u64::from(first) << 32 | length);
    let mut seed = || {
        let mut bytes = vec![0; (length / 4 + rng.below(length)) as usize];
        rng.fill(&mut bytes);
        with(first, &bytes)
    };
    (0..count).map(|_| seed()).collect()
}

fn numbered(message: &Message) -> Vec<u8> {
    let number = COMMANDS.iter().position(|name| *name == message.command().as_str());
    let mut bytes = vec![number.expect("all commands are listed") as u8];
    message.encode_payload(&mut bytes);
    bytes
}

fn frames() -> Vec<Vec<u8>> {
    let messages = messages();
    let mut seeds: Vec<Vec<u8>> =
        messages.iter().map(|message| with(0, &frame::encode(MAGIC, message))).collect();
    // Several in one stream, an unknown one among them, in pieces of 1, 7 and 23 bytes.
    let mut stream = vec![3, 1, 7, 23];
    for message in messages.iter().filter(|message| frame::encode(MAGIC, message).len() < 200) {
        stream.extend_from_slice(&frame::encode(MAGIC, message));
    }
    let mut unknown = frame::encode(MAGIC, &Message::Ping(7));
    unknown[4..16].copy_from_slice(b"nosuchthing\0");
    stream.extend_from_slice(&unknown);
    seeds.push(stream);
    seeds
}

fn hash(n: u8) -> BlockHash {
    BlockHash::from_byte_array([n; 32])
}

/// One message of every command at least.
fn messages() -> Vec<Message> {
    let base = base();
    let tip = &base.blocks[HEIGHT as usize];
    let socket = SocketAddr::from(([1, 2, 3, 4], 8333));
    let services = ServiceFlags::NETWORK | ServiceFlags::WITNESS;
    let address = Address::new(&socket, services);
    let locator = vec![hash(1), hash(2)];
    let request =
        || GetHeadersMessage { version: 70_016, locator_hashes: locator.clone(), stop_hash: hash(0) };
    let items = vec![
        Inventory::Transaction(Txid::from_byte_array([1; 32])),
        Inventory::Block(hash(2)),
        Inventory::WitnessBlock(hash(3)),
        Inventory::CompactBlock(hash(4)),
        Inventory::Unknown { inv_type: 99, hash: [5; 32] },
    ];
    let nets = [
        AddrV2::Ipv4([1, 2, 3, 4].into()),
        AddrV2::Ipv6([0x20; 16].into()),
        AddrV2::TorV3([7; 32]),
        AddrV2::I2p([8; 32]),
        AddrV2::Cjdns([0xfc; 16].into()),
        AddrV2::Unknown(9, vec![1, 2, 3]),
    ];
    let addr_v2 = |addr: AddrV2| AddrV2Message { time: 1_700_000_000, services, addr, port: 8333 };
    let mut message =
        VersionMessage::new(services, 1_700_000_000, address.clone(), address.clone(), 7, "/a:1/".into(), 9);
    message.version = 70_016;
    let compact = HeaderAndShortIds::from_block(tip, 7, 2, &[0]).expect("a block");
    let merkle = MerkleBlock::from_block_with_predicate(tip, |_| true);
    vec![
        Message::Version(message),
        Message::Verack,
        Message::WtxidRelay,
        Message::SendAddrV2,
        Message::SendHeaders,
        Message::SendCmpct(SendCmpct { send_compact: true, version: 2 }),
        Message::SendTxRcncl(vec![1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]),
        Message::Ping(7),
        Message::Pong(7),
        Message::GetAddr,
        Message::Addr(vec![(1_700_000_000, address.clone()), (1, address)]),
        Message::AddrV2(nets.map(addr_v2).to_vec()),
        Message::Inv(items.clone()),
        Message::GetData(items.clone()),
        Message::NotFound(items),
        Message::GetBlocks(GetBlocksMessage {
            version: 70_016,
            locator_hashes: locator.clone(),
            stop_hash: hash(0),
        }),
        Message::GetHeaders(request()),
        Message::Headers(base.blocks[1..4].iter().map(|block| block.header).collect()),
        Message::Block(RawBlock::new(serialize(tip)).expect("a block")),
        Message::Tx(witness_transaction()),
        Message::Tx(tip.txdata[1].clone()),
        Message::MemPool,
        Message::FeeFilter(1_000),
        Message::FilterLoad(FilterLoad {
            filter: vec![1; 20],
            hash_funcs: 5,
            tweak: 1,
            flags: BloomFlags::All,
        }),
        Message::FilterAdd(FilterAdd { data: vec![1; 20] }),
        Message::FilterClear,
        Message::MerkleBlock(merkle),
        Message::CmpctBlock(compact),
        Message::GetBlockTxn(BlockTransactionsRequest { block_hash: hash(1), indexes: vec![1, 2, 300] }),
        Message::BlockTxn(BlockTransactions {
            block_hash: hash(1),
            transactions: vec![witness_transaction(), tip.txdata[1].clone()],
        }),
        Message::GetCFilters(GetCFilters { filter_type: 0, start_height: 1, stop_hash: hash(1) }),
        Message::CFilter(CFilter { filter_type: 0, block_hash: hash(1), filter: vec![1; 20] }),
        Message::GetCFHeaders(GetCFHeaders { filter_type: 0, start_height: 1, stop_hash: hash(1) }),
        Message::CFHeaders(CFHeaders {
            filter_type: 0,
            stop_hash: hash(1),
            previous_filter_header: bitcoin::bip158::FilterHeader::all_zeros(),
            filter_hashes: vec![bitcoin::bip158::FilterHash::all_zeros(); 3],
        }),
        Message::GetCFCheckpt(GetCFCheckpt { filter_type: 0, stop_hash: hash(1) }),
        Message::CFCheckpt(CFCheckpt {
            filter_type: 0,
            stop_hash: hash(1),
            filter_headers: vec![bitcoin::bip158::FilterHeader::all_zeros(); 3],
        }),
    ]
}

/// As long as a locator may be, and longer by one.
fn long_locators() -> Vec<Message> {
    let requests = |count| {
        let (version, locator_hashes, stop_hash) = (70_016, vec![hash(1); count], hash(0));
        let headers = GetHeadersMessage { version, locator_hashes: locator_hashes.clone(), stop_hash };
        let blocks = GetBlocksMessage { version, locator_hashes, stop_hash };
        [Message::GetHeaders(headers), Message::GetBlocks(blocks)]
    };
    [MAX_LOCATOR, MAX_LOCATOR + 1].into_iter().flat_map(requests).collect()
}

fn witness_transaction() -> Transaction {
    let outpoints = [OutPoint::new(Txid::from_byte_array([1; 32]), 0), OutPoint::new(Txid::all_zeros(), 7)];
    let mut tx = spend(&outpoints, vec![output(1_000, &[0x51]), output(0, &[0x6a, 1, 7])]);
    tx.input[0].witness = Witness::from_slice(&[vec![1; 71], vec![2; 33], vec![]]);
    tx
}

fn blocks() -> Vec<Vec<u8>> {
    let base = base();
    let mut witness: Block = base.blocks[HEIGHT as usize].clone();
    witness.txdata.push(witness_transaction());
    headlong::sim::forge::commit_to_witnesses(&mut witness);
    headlong::sim::forge::mine(&mut witness);
    let kept = [0, 1, 101, 105, HEIGHT as usize].map(|height| serialize(&base.blocks[height]));
    kept.into_iter().chain([serialize(&witness)]).collect()
}

fn undo() -> Vec<Vec<u8>> {
    let base = base();
    let (ground, files) = (base.ground(), base.ground().block_files().expect("whole files"));
    let read = |height: usize| {
        let hash = base.blocks[height].block_hash();
        let place = block_entry(&ground.store, hash).expect("in memory").expect("stored").undo;
        files.read(place.expect("connected"), hash).expect("whole files")
    };
    [1, 101, 105, 110, HEIGHT as usize].map(read).into()
}

fn store() -> Vec<Vec<u8>> {
    let ground = base().ground();
    let mut seeds = Vec::new();
    for (mode, table) in [(0, Table::Coins), (1, Table::Blocks), (1, Table::Meta)] {
        let entries = ground.store.range(table, Bound::Unbounded, Bound::Unbounded, 4).expect("in memory");
        for (key, value) in entries {
            seeds.push(with(mode, &value));
            seeds.push(with(0, &key));
        }
    }
    let block = |n: u8| BlockRef { height: u32::from(n), hash: hash(n) };
    seeds.push(with(1, &RollbackCheckpoint::next(None, 1, block(1), block(2)).to_bytes()));
    seeds.push(with(1, &BlockEntry { height: 1, transactions: 1, block: None, undo: None }.encode()));
    // Whole values behind their keys' numbers; three checkpoints in a chain.
    let tip = [&[2, 0, 36][..], &[1; 36], &[1, 72], &[2; 72]].concat();
    let chain = [&[2][..], &[7; 3 * 25]].concat();
    seeds.extend([tip, chain]);
    let medium = MemoryMedium::new();
    let (mut file, _) = HeaderFile::with_medium(Arc::new(medium.clone()), HEADER_FILE).expect("in memory");
    let headers: Vec<_> = base().blocks[1..6].iter().map(|block| block.header).collect();
    file.append_headers(&headers).expect("in memory");
    file.append_mark(headers[4].block_hash(), HeaderMark::Invalid).expect("in memory");
    file.append_mark(headers[4].block_hash(), HeaderMark::Reconsidered).expect("in memory");
    seeds.push(with(3, &content(&medium, HEADER_FILE)));
    seeds.extend(steps(4, 12, 40));
    seeds.extend(steps(2, 12, 200));
    seeds
}

/// The base's files, as the target takes them apart.
fn files() -> Vec<Vec<u8>> {
    let ground = base().ground();
    let mut seed = vec![0];
    for (number, name) in [(0, "blk-000000.dat"), (1, "blk-000001.dat"), (3, "undo-000000.dat")] {
        let Ok(length) = ground.medium.len(name) else { continue };
        let bytes = content(&ground.medium, name);
        let length = length.min(4_000) as u16;
        seed.push(number);
        seed.extend_from_slice(&length.to_le_bytes());
        seed.extend_from_slice(&bytes[..usize::from(length)]);
    }
    vec![seed]
}

fn small_files() -> Vec<Vec<u8>> {
    let genesis = base().blocks[0].block_hash();
    let magic = Magic::from_bytes(MAGIC);
    let version = format!("headlong\nlayout 1\nmagic {magic}\ngenesis {genesis}\n");
    let addresses = "127.0.0.1:8333\n[2001:db8::1]:18444\nseed.example:8333\nname:99999\na b:1\n";
    vec![with(0, addresses.as_bytes()), with(1, version.as_bytes()), with(1, b"headlong\nlayout 2\nmore\n")]
}

/// Saved address books without the hash at their end.
fn address_files() -> Vec<Vec<u8>> {
    let mut rng = Rng::from_number(77);
    let mut book = AddressBook::new([7; 16]);
    let mut seeds = Vec::new();
    let now = 1_790_000_000;
    for n in 0..9u8 {
        let bytes = book.encode();
        seeds.push(with(0, &bytes[..bytes.len() - 32]));
        let source = NetGroup::of(&PeerAddress::Ip(([9, n, 1, 1], 8_333).into()));
        let address = match n % 3 {
            0 => PeerAddress::Ip(([11, n, 1, 1], 8_333).into()),
            1 => PeerAddress::Onion([n; 32], 8_333),
            _ => PeerAddress::I2p([n; 32], 0),
        };
        let services = ServiceFlags::NETWORK | ServiceFlags::WITNESS;
        book.add(
            &Told { address: address.clone(), services, seen: now },
            &source,
            Duration::ZERO,
            now,
            &mut rng,
        );
        if n % 2 == 0 {
            book.on_good(&address, services, now);
        }
    }
    seeds
}

fn v1_starts() -> Vec<Vec<u8>> {
    let version = frame::encode(MAGIC, &messages().remove(0));
    [0, 1].map(|mode| [&[mode, 16], version.as_slice()].concat()).to_vec()
}

/// What the target packs: a message, a decoy, one that is changed on its way.
fn packets() -> Vec<Vec<u8>> {
    let packet = |kind: u8, message: &Message| {
        let contents = v2::contents(message);
        [&[kind], &(contents.len() as u16).to_le_bytes()[..], &contents].concat()
    };
    let small: Vec<Message> =
        messages().into_iter().filter(|message| v2::contents(message).len() < 300).collect();
    let mut seeds: Vec<Vec<u8>> = small.iter().map(|message| with(2, &packet(0, message))).collect();
    let ping = Message::Ping(1);
    seeds.push([&[2][..], &packet(1, &ping), &packet(0, &ping), &packet(3, &ping)].concat());
    seeds
}

/// The answers of a proxy that agrees, and of some that do not.
fn proxies() -> Vec<Vec<u8>> {
    let method = [5, 2];
    let login = [1, 0];
    let good = [5, 0, 0, 1, 127, 0, 0, 1, 0, 80];
    let name = [5, 0, 0, 3, 3, b'a', b'.', b'b', 0, 80];
    let refused = [5, 5, 0, 1, 0, 0, 0, 0, 0, 0];
    let mut seeds = Vec::new();
    for kind in 0..4 {
        for end in [&good, &name, &refused] {
            seeds.push([&[kind, 3][..], &method, &login, end].concat());
        }
    }
    seeds.extend([vec![0, 9, 5, 0xff], vec![1, 9, 5, 2, 1, 1], vec![2, 9, 4, 0]]);
    seeds
}

/// One good reply of each protocol, as it is and to be patched.
fn nat_replies() -> Vec<Vec<u8>> {
    let stun =
        [&[1, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42][..], &TRANSACTION, &[0, 0x20, 0, 8, 0, 1, 1, 2, 3, 4, 5, 6]]
            .concat();
    let port = PORT.to_be_bytes();
    let external = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 88, 1, 2, 3];
    let head = [2, 0x81, 0, 0, 0, 0, 0x1c, 0x20, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let pcp = [&head[..], &TRANSACTION, &[6, 0, 0, 0], &port, &port, &external].concat();
    let address = [0, 128, 0, 0, 0, 0, 0, 1, 88, 1, 2, 3].to_vec();
    let map = [&[0, 130, 0, 0, 0, 0, 0, 1][..], &port, &port, &[0, 0, 0x1c, 0x20]].concat();
    let all = [(0, stun), (1, pcp), (2, address), (3, map)];
    all.iter().flat_map(|(mode, reply)| [0, 4].map(|patched| with(mode + patched, reply))).collect()
}

/// Peers that show a long chain on a network that asks for its work.
fn presyncs() -> Vec<Vec<u8>> {
    let answer = |chain: u8| [3, 0, chain, 0];
    let mut plain = vec![7, 0, 0, 0, 0, 0, 1];
    let mut late = vec![7 + 64, 0, 0, 0, 0, 0, 1];
    for _ in 0..8 {
        plain.extend(answer(3));
        late.extend(answer(2));
    }
    vec![plain, late]
}

/// Two peers connect and deliver, the chainstate answers.
fn syncs() -> Vec<Vec<u8>> {
    [2, 3, 66, 67, 6]
        .map(|setting| {
            let mut seed = vec![setting, 1, 3, 0, 3, 1];
            for _ in 0..30 {
                seed.extend([6, 0, 7, 9, 31, 6, 1, 7, 0, 9, 31]);
            }
            seed
        })
        .into()
}

/// A peer of the shorter chain changes the bodies of blocks that are on no other chain, so that nobody delivers
/// them later.
fn changed_bodies() -> Vec<Vec<u8>> {
    [13, 14, 15]
        .map(|block| {
            let mut seed = vec![2, 1, 3, 1, 6, 1, 7, 9, 31];
            for block in block..17 {
                // A message of the second peer: a block's body with one byte changed.
                seed.extend([11, 1, 3, block, 40, 1, 9, 31]);
            }
            seed
        })
        .into()
}
