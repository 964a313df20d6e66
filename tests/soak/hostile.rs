//! Hostile servers on loopback. The node dials them as it does its other peers; how often is for its own
//! back-off to say, and what they send is bounded in rate.

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::Inventory;
use headlong::chain::command::RawBlock;
use headlong::rng::Rng;
use headlong::sim::serve::{ServedChain, Session};
use headlong::wire::Message;
use headlong::wire::frame::{self, Decoder};
use parking_lot::RwLock;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const REGTEST: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];
/// Between two looks at a socket; also between two messages of a flood.
const POLL: Duration = Duration::from_millis(5);
/// A flood ends after this many messages; the connection stays.
const FLOOD: u64 = 20_000;

/// What a server does to who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malice {
    /// Random bytes.
    Garbage,
    /// Nothing at all.
    Mute,
    /// A handshake, one byte at a time.
    Slow,
    /// Closes at once.
    Hangup,
    /// A frame that claims to be too long, or has a wrong checksum.
    BadFrame,
    /// Blocks with a wrong byte under the right header.
    WrongBlocks,
    /// Headers, and never a block.
    Withholds,
    /// Blocks cut into pieces of a few bytes, with pauses.
    Drips,
    /// The honest chain with a longer, invalid end.
    InvalidChain,
    /// Headers without proof of work.
    BadHeaders,
    /// Headers that connect to nothing, again and again.
    Unconnected,
    /// Pings, announcements of nothing, addresses, unknown commands.
    Flood,
    /// The first blocks of the chain, unasked, again and again.
    Unasked,
}

impl Malice {
    pub const ALL: [Self; 13] = [
        Self::Garbage,
        Self::Mute,
        Self::Slow,
        Self::Hangup,
        Self::BadFrame,
        Self::WrongBlocks,
        Self::Withholds,
        Self::Drips,
        Self::InvalidChain,
        Self::BadHeaders,
        Self::Unconnected,
        Self::Flood,
        Self::Unasked,
    ];
}

/// The chains that are served.
#[derive(Clone)]
pub struct Chains {
    pub honest: Arc<RwLock<ServedChain>>,
    /// The same with an invalid end that has more work.
    pub invalid: Arc<RwLock<ServedChain>>,
}

/// A listening server with a thread.
pub struct Hostile {
    pub malice: Malice,
    pub address: SocketAddr,
    connections: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Hostile {
    pub fn start(malice: Malice, chains: Chains, seed: u64) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("it is bound");
        let (connections, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (connections, stop) = (connections.clone(), stop.clone());
            move || {
                let mut rng = Rng::from_number(seed);
                while !stop.load(Ordering::Relaxed) {
                    let Ok((stream, _)) = listener.accept() else {
                        std::thread::sleep(Duration::from_millis(50));
                        continue;
                    };
                    connections.fetch_add(1, Ordering::Relaxed);
                    let mut guest = Guest { stream, stop: &stop, rng: &mut rng };
                    // However it ends, the next one comes.
                    let _ = guest.treat(malice, &chains);
                }
            }
        });
        Self { malice, address, connections, stop, thread: Some(thread) }
    }

    /// How often somebody connected.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One connection.
struct Guest<'a> {
    stream: TcpStream,
    stop: &'a AtomicBool,
    rng: &'a mut Rng,
}

impl Guest<'_> {
    fn treat(&mut self, malice: Malice, chains: &Chains) -> io::Result<()> {
        self.stream.set_nonblocking(false)?;
        self.stream.set_nodelay(true)?;
        self.stream.set_read_timeout(Some(POLL))?;
        self.stream.set_write_timeout(Some(Duration::from_secs(5)))?;
        match malice {
            Malice::Garbage => {
                let bytes: Vec<u8> = (0..8_192).flat_map(|_| self.rng.u64().to_le_bytes()).collect();
                self.stream.write_all(&bytes)?;
                self.wait()
            }
            Malice::Mute => self.wait(),
            Malice::Hangup => Ok(()),
            Malice::Slow => {
                let mut session = Session::new(chains.honest.clone(), self.rng.u64());
                let greeting = session.on_message(Message::Ping(1));
                for byte in greeting.iter().flat_map(|message| frame::encode(REGTEST, message)) {
                    self.stream.write_all(&[byte])?;
                    self.pause(Duration::from_millis(500))?;
                }
                self.wait()
            }
            Malice::BadFrame => {
                let mut bytes = frame::encode(REGTEST, &Message::Ping(1));
                match self.rng.below(3) {
                    0 => bytes[16..20].fill(0xff),
                    1 => bytes[20] ^= 1,
                    _ => bytes[0] ^= 1,
                }
                self.stream.write_all(&bytes)?;
                self.wait()
            }
            Malice::InvalidChain => self.serve(chains.invalid.clone(), malice),
            _ => self.serve(chains.honest.clone(), malice),
        }
    }

    /// Reads on until the other side closes.
    fn wait(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4_096];
        while !self.stop.load(Ordering::Relaxed) {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if is_pause(&error) => std::thread::sleep(Duration::from_millis(50)),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn pause(&mut self, time: Duration) -> io::Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < time {
            if self.stop.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// An honest conversation but for one thing.
    fn serve(&mut self, chain: Arc<RwLock<ServedChain>>, malice: Malice) -> io::Result<()> {
        let mut session = Session::new(chain.clone(), self.rng.u64());
        let mut decoder = Decoder::new(REGTEST);
        let mut buffer = vec![0; 64 * 1024];
        let mut ready = false;
        let mut sent = 0;
        while !self.stop.load(Ordering::Relaxed) {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    for message in decode(&mut decoder, &buffer[..count])? {
                        ready |= message == Message::Verack;
                        for answer in session.on_message(message) {
                            self.answer(&answer, malice)?;
                        }
                    }
                }
                Err(error) if is_pause(&error) => {}
                Err(error) => return Err(error),
            }
            if let Some(news) = session.announce() {
                self.answer(&news, malice)?;
            }
            if ready
                && sent < FLOOD
                && let Some(bytes) = self.unasked(&chain, malice)
            {
                sent += 1;
                self.stream.write_all(&bytes)?;
            }
        }
        Ok(())
    }

    fn answer(&mut self, answer: &Message, malice: Malice) -> io::Result<()> {
        let answer = match (answer, malice) {
            (Message::Block(_), Malice::Withholds) => return Ok(()),
            (Message::Block(raw), Malice::WrongBlocks) => {
                let mut bytes = raw.bytes().to_vec();
                let at = 81 + self.rng.below(bytes.len() as u64 - 81) as usize;
                bytes[at] ^= 1;
                RawBlock::new(bytes).map_or_else(|| answer.clone(), Message::Block)
            }
            (Message::Block(_), Malice::Drips) => {
                for piece in frame::encode(REGTEST, answer).chunks(400) {
                    self.stream.write_all(piece)?;
                    self.pause(Duration::from_millis(20))?;
                }
                return Ok(());
            }
            (Message::Headers(headers), Malice::BadHeaders) => {
                let mut headers = headers.clone();
                if let Some(last) = headers.last_mut() {
                    while bitcoin::Target::from_compact(last.bits).is_met_by(last.block_hash()) {
                        last.nonce = last.nonce.wrapping_add(1);
                    }
                }
                Message::Headers(headers)
            }
            _ => answer.clone(),
        };
        self.stream.write_all(&frame::encode(REGTEST, &answer))
    }

    /// The next message that nobody asked for.
    fn unasked(&mut self, chain: &RwLock<ServedChain>, malice: Malice) -> Option<Vec<u8>> {
        let nothing = BlockHash::from_byte_array(self.rng.array::<32>());
        let message = match malice {
            Malice::Flood => match self.rng.below(4) {
                0 => Message::Ping(self.rng.u64()),
                1 => Message::Inv(vec![Inventory::Block(nothing); 50]),
                2 => Message::NotFound(vec![Inventory::WitnessBlock(nothing); 50]),
                _ => {
                    let mut bytes = frame::encode(REGTEST, &Message::Ping(1));
                    bytes[4..8].copy_from_slice(b"what");
                    return Some(bytes);
                }
            },
            Malice::Unconnected => {
                let tip = chain.read().tip().hash;
                let mut header = *chain.read().block(&tip)?.header();
                header.prev_blockhash = nothing;
                headlong::sim::forge::mine_header(&mut header);
                Message::Headers(vec![header])
            }
            Malice::Unasked => {
                let tip = chain.read().tip().hash;
                Message::Block(chain.read().block(&tip)?.clone())
            }
            _ => return None,
        };
        Some(frame::encode(REGTEST, &message))
    }
}

fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn decode(decoder: &mut Decoder, mut bytes: &[u8]) -> io::Result<Vec<Message>> {
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidData);
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let used = decoder.feed(bytes).map_err(invalid)?;
        bytes = &bytes[used..];
        if let Some(frame) = decoder.take_frame() {
            messages.extend(frame.into_message().map_err(invalid)?);
        }
    }
    Ok(messages)
}
