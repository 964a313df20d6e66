//! How a simulated peer behaves: honest, odd, broken or hostile. A [`Conversation`] is one connection with
//! such a peer, on top of the honest [`Session`].

use super::noise;
use super::serve::{ServedChain, Session};
use crate::chain::command::RawBlock;
use crate::rng::Rng;
use crate::wire::Message;
use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::Inventory;
use parking_lot::RwLock;
use std::sync::Arc;

/// Unasked messages of one connection.
const NOISE: u32 = 3_000;

/// What a peer does. All but [`Manner::Honest`] differ from it in one point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Manner {
    /// Answers everything.
    #[default]
    Honest,
    /// Nobody answers a dial.
    Absent,
    /// A dial neither succeeds nor fails.
    BlackHole,
    /// Accepts the connection and says nothing.
    Mute,
    /// Answers no pings.
    Deaf,
    /// Says nothing more after so many blocks.
    SilentAfter(u32),
    /// Closes after so many blocks, each time it is dialled.
    LeavesAfter(u32),
    /// After so many blocks, pauses once for so many seconds.
    PausesAfter(u32, u32),
    /// Sends the blocks of a request in any order.
    Shuffles,
    /// Changes every n-th body in one of four ways; the header stays.
    Mutates(u32),
    /// Sends another block of its chain than the one asked for, every n-th time.
    WrongBlock(u32),
    /// Has headers and answers `notfound` for all blocks.
    NotFound,
    /// Has headers and never answers for blocks that the honest chain lacks.
    Withholds,
    /// Serves its own chain, in which a block is invalid.
    Lies,
    /// Answers with headers in the wrong order.
    ReversedHeaders,
    /// Answers with headers that connect to nothing.
    UnconnectedHeaders,
    /// Answers with headers without proof of work.
    WorthlessHeaders,
    /// Says that it knows no headers.
    EmptyHeaders,
    /// Repeats messages of the handshake after it.
    RepeatsHandshake,
    /// Sends our own version back.
    Mirror,
    /// Sends so many messages of every kind unasked with each answer, up to 3,000 a connection.
    Floods(u32),
    /// Sends blocks nobody asked for with each answer.
    Pushes,
    /// Shows the headers of so many blocks of a chain of its own, each with proof of work, and has none of the blocks.
    LowWork(u32),
    /// Tells addresses of every kind unasked, true and senseless: so many messages with each answer.
    TellsAddresses(u32),
    /// Sends compact blocks, their transactions and requests for them unasked: so many with each answer.
    PushesCompact(u32),
    /// Sends and announces transactions nobody asked for: so many messages with each answer.
    PushesTransactions(u32),
    /// Asks for blocks, headers, addresses and transactions: so many questions with each answer.
    Asks(u32),
    /// Sends so many pings with each answer.
    Pings(u32),
}

impl Manner {
    /// Whether a node can learn from this peer all there is to learn.
    pub fn is_honest(self) -> bool {
        self == Self::Honest
    }

    /// Whether what it does can be proved against it, so that a node may hold it for hostile.
    pub fn is_provable(self) -> bool {
        matches!(
            self,
            Self::Mutates(_)
                | Self::Lies
                | Self::ReversedHeaders
                | Self::WorthlessHeaders
                | Self::RepeatsHandshake
        )
    }
}

/// Something that a peer does to the other side.
#[derive(Debug)]
pub enum Act {
    /// Sends a message.
    Say(Message),
    /// Does nothing for so many milliseconds.
    Pause(u64),
    /// Closes the connection.
    Leave,
}

/// One connection with a peer of some manner.
#[derive(Debug)]
pub struct Conversation {
    manner: Manner,
    session: Session,
    chain: Arc<RwLock<ServedChain>>,
    honest: Arc<RwLock<ServedChain>>,
    blocks: u32,
    /// Unasked messages that may still be sent.
    noise: u32,
    silent: bool,
    greeted: bool,
    /// The headers of [`Manner::LowWork`], once they were asked for.
    cheap: Vec<Header>,
    /// It never answers for a block.
    keeps_blocks: bool,
}

impl Conversation {
    /// A connection that a node opened to a peer that serves `chain`. `honest` is the chain of the honest
    /// peers; `nonce` goes into its version message.
    pub fn new(
        manner: Manner,
        chain: Arc<RwLock<ServedChain>>,
        honest: Arc<RwLock<ServedChain>>,
        nonce: u64,
    ) -> Self {
        let mut session = Session::new(chain.clone(), nonce);
        if let Manner::LowWork(headers) = manner {
            session.claim(headers);
        }
        Self {
            manner,
            session,
            chain,
            honest,
            blocks: 0,
            noise: NOISE,
            silent: manner == Manner::Mute,
            greeted: false,
            cheap: Vec::new(),
            keeps_blocks: false,
        }
    }

    /// Never answers for a block.
    pub fn keep_blocks(&mut self) {
        self.keeps_blocks = true;
    }

    /// What the peer says first on a connection that it opened, if anything.
    pub fn open(&mut self) -> Option<Message> {
        let speaks = !self.silent && self.manner != Manner::Mirror;
        speaks.then(|| self.session.open())
    }

    /// What the peer does about a message.
    pub fn on_message(&mut self, message: Message, rng: &mut Rng) -> Vec<Act> {
        if self.silent {
            return Vec::new();
        }
        let answers = match (self.manner, message) {
            (Manner::Deaf, Message::Ping(_)) => Vec::new(),
            (Manner::Mirror, Message::Version(version)) => vec![Message::Version(version), Message::Verack],
            (_, Message::GetData(_)) if self.keeps_blocks => Vec::new(),
            (Manner::NotFound, Message::GetData(wanted)) => vec![Message::NotFound(wanted)],
            (Manner::Withholds, Message::GetData(wanted)) => self.answer_known(wanted),
            (Manner::EmptyHeaders, Message::GetHeaders(_)) => vec![Message::Headers(Vec::new())],
            (Manner::LowWork(headers), Message::GetHeaders(request)) => {
                if self.cheap.is_empty() {
                    let genesis = self.chain.read().at(0).map(|raw| *raw.header());
                    self.cheap =
                        genesis.map_or(Vec::new(), |first| noise::cheap_headers(first, headers, rng));
                }
                vec![noise::headers_after(&self.cheap, &request.locator_hashes)]
            }
            (Manner::LowWork(_), Message::GetData(_)) => Vec::new(),
            (_, message) => self.session.on_message(message),
        };
        let mut acts = Vec::new();
        for answer in self.arrange(answers, rng) {
            if self.act(answer, &mut acts, rng) {
                break;
            }
        }
        acts
    }

    /// Says nothing more.
    pub fn hang_up(&mut self) {
        self.silent = true;
    }

    /// The announcement of a new tip, if it makes any.
    pub fn announce(&mut self) -> Option<Message> {
        let news = self.session.announce();
        if self.silent { None } else { news }
    }

    fn answer_known(&mut self, mut wanted: Vec<Inventory>) -> Vec<Message> {
        let honest = self.honest.clone();
        wanted.retain(|item| match item {
            Inventory::WitnessBlock(hash) | Inventory::Block(hash) => honest.read().block(hash).is_some(),
            _ => false,
        });
        if wanted.is_empty() { Vec::new() } else { self.session.on_message(Message::GetData(wanted)) }
    }

    fn arrange(&mut self, mut answers: Vec<Message>, rng: &mut Rng) -> Vec<Message> {
        match self.manner {
            Manner::Shuffles if answers.iter().all(|answer| matches!(answer, Message::Block(_))) => {
                rng.shuffle(&mut answers);
            }
            Manner::ReversedHeaders | Manner::UnconnectedHeaders | Manner::WorthlessHeaders => {
                answers.iter_mut().for_each(|answer| spoil_headers(self.manner, answer, rng));
            }
            Manner::Floods(count) if self.greeted => {
                let count = count.min(self.noise);
                self.noise -= count;
                answers.extend((0..count).map(|n| noise::any(n, rng)));
            }
            Manner::TellsAddresses(count)
            | Manner::PushesCompact(count)
            | Manner::PushesTransactions(count)
            | Manner::Asks(count)
            | Manner::Pings(count)
                if self.greeted =>
            {
                let count = count.min(self.noise);
                self.noise -= count;
                let chain = self.chain.read();
                answers.extend((0..count).map(|n| match self.manner {
                    Manner::TellsAddresses(_) => noise::addresses(n, rng),
                    Manner::PushesCompact(_) => noise::compact(n, &chain, rng),
                    Manner::PushesTransactions(_) => noise::transactions(n, rng),
                    Manner::Asks(_) => noise::questions(n, &chain, rng),
                    _ => Message::Ping(rng.u64()),
                }));
                if count > 0 {
                    // Its answer is the next occasion.
                    answers.push(Message::Ping(rng.u64()));
                }
            }
            Manner::Pushes if self.greeted => {
                let chain = self.chain.read();
                let height = rng.below(u64::from(chain.tip().height) + 1) as u32;
                answers.extend(chain.at(height).cloned().map(Message::Block));
            }
            _ => {}
        }
        answers
    }

    /// Does one thing; true if nothing follows.
    fn act(&mut self, message: Message, acts: &mut Vec<Act>, rng: &mut Rng) -> bool {
        let verack = matches!(message, Message::Verack);
        let message = match message {
            Message::Block(raw) => {
                match self.manner {
                    Manner::SilentAfter(blocks) if self.blocks >= blocks => {
                        self.silent = true;
                        return true;
                    }
                    Manner::LeavesAfter(blocks) if self.blocks >= blocks => {
                        acts.push(Act::Leave);
                        return true;
                    }
                    Manner::PausesAfter(blocks, seconds) if self.blocks == blocks => {
                        acts.push(Act::Pause(u64::from(seconds) * 1_000));
                    }
                    _ => {}
                }
                self.blocks += 1;
                Message::Block(self.spoil_block(raw, rng))
            }
            other => other,
        };
        acts.push(Act::Say(message));
        if verack {
            self.greeted = true;
            if self.manner == Manner::RepeatsHandshake {
                acts.push(Act::Say(Message::Verack));
                acts.push(Act::Say(Message::WtxidRelay));
            }
        }
        false
    }

    fn spoil_block(&self, raw: RawBlock, rng: &mut Rng) -> RawBlock {
        match self.manner {
            Manner::Mutates(every) if self.blocks.is_multiple_of(every.max(1)) => {
                mutated(&raw, rng).unwrap_or(raw)
            }
            Manner::WrongBlock(every) if self.blocks.is_multiple_of(every.max(1)) => {
                let chain = self.chain.read();
                let height = rng.below(u64::from(chain.tip().height) + 1) as u32;
                chain.at(height).cloned().unwrap_or(raw)
            }
            _ => raw,
        }
    }
}

/// The same header over a body that differs: a byte, a transaction missing, the last one twice
/// (CVE-2012-2459), or the coinbase's witness gone.
fn mutated(raw: &RawBlock, rng: &mut Rng) -> Option<RawBlock> {
    let mut block: bitcoin::Block = deserialize(raw.bytes()).ok()?;
    match rng.below(4) {
        0 => {
            let mut bytes = raw.bytes().to_vec();
            let at = 81 + rng.below(bytes.len() as u64 - 81) as usize;
            bytes[at] ^= 1 << rng.below(8);
            return RawBlock::new(bytes);
        }
        1 => drop(block.txdata.pop()),
        2 => block.txdata.push(block.txdata.last()?.clone()),
        _ => block.txdata[0].input[0].witness.clear(),
    }
    RawBlock::new(serialize(&block))
}

fn spoil_headers(manner: Manner, answer: &mut Message, rng: &mut Rng) {
    let Message::Headers(headers) = answer else { return };
    match manner {
        Manner::ReversedHeaders => headers.reverse(),
        Manner::UnconnectedHeaders => {
            if headers.len() > 1 {
                headers.drain(..headers.len() / 2);
                headers[0].prev_blockhash = BlockHash::from_byte_array(rng.array());
                super::forge::mine_header(&mut headers[0]);
                headers.truncate(1);
            }
        }
        _ => {
            if let Some(last) = headers.last_mut() {
                while last.target().is_met_by(last.block_hash()) {
                    last.nonce = last.nonce.wrapping_add(1);
                }
            }
        }
    }
}
