//! Every message's payload.
//!
//! Input: the command's number, the payload.

use crate::frame::MAGIC;
use crate::meter::peak;
use headlong::limits;
use headlong::wire::Message;
use headlong::wire::frame::{self, Command, Decoder};

/// All commands that are known, and one that is not.
pub const COMMANDS: [&str; 36] = [
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
    "nosuchthing",
];

pub fn run(data: &[u8]) {
    let Some((first, payload)) = data.split_first() else { return };
    let name = COMMANDS[usize::from(*first) % COMMANDS.len()];
    let command = Command::new(name).expect("a short name");
    if payload.len() > command.payload_limit().unwrap_or(usize::MAX) {
        return;
    }
    let owned = payload.to_vec();
    let (decoded, most) = peak(|| Message::decode_payload(command, owned));
    // The module promises about eight times; an error's text comes on top, and what grows is there twice.
    assert!(most <= 12 * payload.len() + 1_024, "{name}: {} bytes made us hold {most}", payload.len());
    let message = match decoded {
        Ok(Some(message)) => message,
        Ok(None) => {
            assert_eq!(command.payload_limit(), None, "{name} has a limit and is not known");
            return;
        }
        Err(_) => return,
    };
    assert_eq!(message.command(), command);
    check_limits(&message);
    if let Message::Version(version) = &message
        && version.user_agent.contains('\u{fffd}')
    {
        // What was no text was replaced, which may be longer.
        return;
    }
    let mut again = Vec::new();
    message.encode_payload(&mut again);
    let decoded = Message::decode_payload(command, again.clone());
    assert_eq!(decoded, Ok(Some(message.clone())), "what was read is written and read otherwise");
    let bytes = frame::encode(MAGIC, &message);
    assert_eq!(&bytes[frame::HEADER_SIZE..], again);
    let mut decoder = Decoder::new(MAGIC);
    if again.len() <= command.payload_limit().unwrap_or(0) {
        assert_eq!(decoder.feed(&bytes), Ok(bytes.len()));
        let frame = decoder.take_frame().expect("a whole frame");
        assert_eq!(frame.verify(), Ok(()));
    } else {
        assert!(decoder.feed(&bytes).is_err());
    }
}

fn check_limits(message: &Message) {
    let (items, limit) = match message {
        Message::Addr(list) => (list.len(), limits::MAX_ADDR),
        Message::AddrV2(list) => (list.len(), limits::MAX_ADDR),
        Message::Inv(list) | Message::GetData(list) | Message::NotFound(list) => {
            (list.len(), limits::MAX_INV)
        }
        Message::GetBlocks(request) => (request.locator_hashes.len(), limits::MAX_LOCATOR),
        Message::GetHeaders(request) => (request.locator_hashes.len(), limits::MAX_LOCATOR),
        Message::Headers(list) => (list.len(), limits::MAX_HEADERS),
        // Three bytes stand for each that was no text.
        Message::Version(version) => (version.user_agent.len(), 3 * limits::MAX_USER_AGENT),
        Message::FilterLoad(filter) => (filter.filter.len(), limits::MAX_BLOOM_FILTER),
        Message::FilterAdd(item) => (item.data.len(), limits::MAX_FILTER_ADD),
        Message::CFilter(filter) => (filter.filter.len(), limits::MAX_BLOCK_FILTER),
        Message::CFHeaders(list) => (list.filter_hashes.len(), limits::MAX_CFHEADERS),
        Message::CFCheckpt(list) => (list.filter_headers.len(), limits::MAX_CFCHECKPTS),
        Message::CmpctBlock(block) => {
            (block.short_ids.len() + block.prefilled_txs.len(), limits::MAX_COMPACT_TRANSACTIONS)
        }
        Message::GetBlockTxn(request) => (request.indexes.len(), limits::MAX_COMPACT_TRANSACTIONS),
        Message::BlockTxn(answer) => (answer.transactions.len(), limits::MAX_COMPACT_TRANSACTIONS),
        _ => (0, 0),
    };
    assert!(items <= limit, "{items} items in {}", message.command());
}
