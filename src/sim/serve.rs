//! The serving side of the protocol, without I/O: what an honest full node answers to a syncing one.
//!
//! A [`Session`] is one connection: messages in, messages out. Several share one [`ServedChain`], which may
//! be extended or reorganised meanwhile; [`Session::announce`] then tells the other side, by headers if it
//! asked for that (BIP130), else by inv.

use crate::chain::command::{BlockRef, RawBlock};
use crate::limits::MAX_HEADERS;
use crate::wire::Message;
use bitcoin::block::Header;
use bitcoin::p2p::message_blockdata::{GetHeadersMessage, Inventory};
use bitcoin::p2p::message_network::VersionMessage;
use bitcoin::p2p::{Address, ServiceFlags};
use bitcoin::{Block, BlockHash};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// Headers that are announced unasked in one message (Core's `MAX_BLOCKS_TO_ANNOUNCE`).
const MAX_ANNOUNCED: usize = 8;

/// The chain that a peer serves.
#[derive(Debug)]
pub struct ServedChain {
    active: Vec<RawBlock>,
    all: HashMap<BlockHash, (u32, RawBlock)>,
}

impl ServedChain {
    /// A chain that holds the genesis block only.
    pub fn new(genesis: &Block) -> Self {
        let raw = raw(genesis);
        Self { all: HashMap::from([(raw.hash(), (0, raw.clone()))]), active: vec![raw] }
    }

    /// Puts blocks on top of the active chain. They are not checked, but for their parents: blocks after
    /// one whose parent is neither the tip nor an active block are ignored. A parent below the tip cuts the
    /// chain there: a reorg, whatever its work.
    pub fn extend<'a>(&mut self, blocks: impl IntoIterator<Item = &'a Block>) {
        for block in blocks {
            let Some(parent) = self.height(&block.header.prev_blockhash) else { return };
            let raw = raw(block);
            self.active.truncate(parent as usize + 1);
            self.all.insert(raw.hash(), (parent + 1, raw.clone()));
            self.active.push(raw);
        }
    }

    /// The last block.
    pub fn tip(&self) -> BlockRef {
        let height = self.active.len() - 1;
        BlockRef { height: height as u32, hash: self.active[height].hash() }
    }

    /// The height of a block of the active chain.
    pub fn height(&self, hash: &BlockHash) -> Option<u32> {
        let (height, _) = self.all.get(hash)?;
        (self.active.get(*height as usize)?.hash() == *hash).then_some(*height)
    }

    /// The block of the active chain at this height.
    pub fn at(&self, height: u32) -> Option<&RawBlock> {
        self.active.get(height as usize)
    }

    /// A block, active or not.
    pub fn block(&self, hash: &BlockHash) -> Option<&RawBlock> {
        self.all.get(hash).map(|(_, raw)| raw)
    }

    /// Headers after the first hash of the locator that is active, at most 2,000, up to the stop hash.
    fn headers(&self, request: &GetHeadersMessage) -> Vec<Header> {
        let fork = request.locator_hashes.iter().find_map(|hash| self.height(hash)).unwrap_or(0) as usize;
        let mut headers = Vec::new();
        for raw in self.active[fork + 1..].iter().take(MAX_HEADERS) {
            headers.push(*raw.header());
            if raw.hash() == request.stop_hash {
                break;
            }
        }
        headers
    }
}

fn raw(block: &Block) -> RawBlock {
    RawBlock::new(bitcoin::consensus::serialize(block)).expect("a block has a header")
}

/// One connection to a peer that serves a chain.
#[derive(Debug)]
pub struct Session {
    chain: Arc<RwLock<ServedChain>>,
    nonce: u64,
    wants_headers: bool,
    ready: bool,
    announced: BlockHash,
    /// We have opened the connection, and said our version.
    opened: bool,
    /// The height that it states, if that is not its chain's.
    claim: Option<u32>,
}

impl Session {
    /// A connection that the other side opened. `nonce` goes into the version message.
    pub fn new(chain: Arc<RwLock<ServedChain>>, nonce: u64) -> Self {
        let announced = chain.read().tip().hash;
        Self { chain, nonce, wants_headers: false, ready: false, announced, opened: false, claim: None }
    }

    /// Opens the connection from this side: the first message.
    pub fn open(&mut self) -> Message {
        self.opened = true;
        Message::Version(self.version())
    }

    /// States this height instead of the chain's.
    pub fn claim(&mut self, height: u32) {
        self.claim = Some(height);
    }

    /// The answers to a message, in order. What a serving node does not care about is ignored.
    pub fn on_message(&mut self, message: Message) -> Vec<Message> {
        match message {
            Message::Version(_) if self.opened => vec![Message::Verack],
            Message::Version(_) => vec![Message::Version(self.version()), Message::Verack],
            Message::Verack => {
                self.ready = true;
                Vec::new()
            }
            Message::SendHeaders => {
                self.wants_headers = true;
                Vec::new()
            }
            Message::Ping(nonce) => vec![Message::Pong(nonce)],
            Message::GetHeaders(request) => vec![Message::Headers(self.chain.read().headers(&request))],
            Message::GetData(wanted) => self.blocks(wanted),
            _ => Vec::new(),
        }
    }

    /// The announcement of a new tip, if there is one since the last call.
    pub fn announce(&mut self) -> Option<Message> {
        let chain = self.chain.read();
        let tip = chain.tip();
        if !self.ready || tip.hash == self.announced {
            return None;
        }
        // After a reorg, or when many blocks came at once, an inv makes the other side ask for headers.
        let known = chain.height(&self.announced);
        self.announced = tip.hash;
        let news = known.map_or(usize::MAX, |height| (tip.height - height) as usize);
        if self.wants_headers && news <= MAX_ANNOUNCED {
            let first = chain.active.len() - news;
            return Some(Message::Headers(chain.active[first..].iter().map(|raw| *raw.header()).collect()));
        }
        Some(Message::Inv(vec![Inventory::Block(tip.hash)]))
    }

    fn blocks(&self, wanted: Vec<Inventory>) -> Vec<Message> {
        let chain = self.chain.read();
        let mut missing = Vec::new();
        let mut answers = Vec::new();
        for item in wanted {
            match item {
                Inventory::WitnessBlock(hash) | Inventory::Block(hash) => match chain.block(&hash) {
                    Some(raw) => answers.push(Message::Block(raw.clone())),
                    None => missing.push(item),
                },
                other => missing.push(other),
            }
        }
        if !missing.is_empty() {
            answers.push(Message::NotFound(missing));
        }
        answers
    }

    fn version(&self) -> VersionMessage {
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let services = ServiceFlags::NETWORK | ServiceFlags::WITNESS;
        VersionMessage {
            version: 70016,
            services,
            timestamp: 0,
            receiver: Address::new(&nowhere, ServiceFlags::NONE),
            sender: Address::new(&nowhere, services),
            nonce: self.nonce,
            user_agent: "/headlong-sim:0.1.0/".into(),
            start_height: self.claim.unwrap_or(self.chain.read().tip().height) as i32,
            relay: false,
        }
    }
}
