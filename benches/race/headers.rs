//! The profile `headers`: a million headers from a peer in this process, which has no blocks to give.
//!
//! Who has taken all of them asks for more, with the last in its locator: both sides tell so themselves when they are
//! done, in the same way.

use bitcoin::BlockHash;
use bitcoin::block::Header;
use headlong::limits::MAX_HEADERS;
use headlong::sim::forge::forge_header;
use headlong::sim::serve::{ServedChain, Session};
use headlong::wire::Message;
use headlong::wire::frame::{self, Decoder, FrameError};
use headlong::{Network, Params};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// Seconds between headers: a million of them end before today, and long ago.
const SPACING: u32 = 300;
/// Nobody takes so long.
const PATIENCE: Duration = Duration::from_secs(600);

/// A chain of headers whose blocks nobody has.
pub struct HeaderChain {
    params: Params,
    headers: Vec<Header>,
    /// How many of the headers lead to a block.
    heights: HashMap<BlockHash, usize>,
}

impl HeaderChain {
    /// `count` headers on regtest's genesis block, all rules kept.
    pub fn forge(count: usize) -> Self {
        let params = Params::new(Network::Regtest);
        let mut headers = Vec::with_capacity(count);
        let mut heights = HashMap::with_capacity(count + 1);
        let mut parent = *params.genesis_header();
        heights.insert(parent.block_hash(), 0);
        for height in 1..=count {
            parent = forge_header(&parent, parent.time + SPACING, parent.bits, [7; 32]);
            heights.insert(parent.block_hash(), height);
            headers.push(parent);
        }
        Self { params, headers, heights }
    }

    /// What follows the first of these that is known.
    fn after(&self, locator: &[BlockHash]) -> &[Header] {
        let from = locator.iter().find_map(|hash| self.heights.get(hash).copied());
        let rest = &self.headers[from.unwrap_or(0)..];
        &rest[..rest.len().min(MAX_HEADERS)]
    }

    /// Serves one connection.
    fn serve(&self, mut stream: TcpStream, asked: &Sender<Asked>) -> io::Result<()> {
        stream.set_nodelay(true)?;
        // It greets and answers pings as the simulated peers do.
        let genesis = Arc::new(RwLock::new(ServedChain::new(&self.params.genesis)));
        let mut session = Session::new(genesis, 1);
        let mut decoder = Decoder::new(self.params.magic);
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = stream.read(&mut buffer)?;
            let mut bytes = &buffer[..count];
            if bytes.is_empty() {
                return Ok(());
            }
            while !bytes.is_empty() {
                let used = decoder.feed(bytes).map_err(invalid)?;
                bytes = &bytes[used..];
                let Some(frame) = decoder.take_frame() else { continue };
                let Some(message) = frame.into_message().map_err(invalid)? else { continue };
                for answer in self.answers(&mut session, message, asked) {
                    stream.write_all(&frame::encode(self.params.magic, &answer))?;
                }
            }
        }
    }

    fn answers(&self, session: &mut Session, message: Message, asked: &Sender<Asked>) -> Vec<Message> {
        match message {
            Message::GetHeaders(request) => {
                let headers = self.after(&request.locator_hashes);
                // Nobody listens any more once a run has been measured.
                let _ = asked.send(Asked { at: Instant::now(), all: headers.is_empty() });
                vec![Message::Headers(headers.to_vec())]
            }
            Message::GetData(_) => Vec::new(),
            other => session.on_message(other),
        }
    }
}

fn invalid(error: FrameError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// A request for headers.
struct Asked {
    at: Instant,
    /// By somebody who has all of them.
    all: bool,
}

/// A peer with a chain of headers, for one who syncs.
pub struct HeaderServer {
    pub address: SocketAddr,
    asked: Receiver<Asked>,
}

impl HeaderServer {
    /// Listens on loopback, until the program ends.
    pub fn start(chain: Arc<HeaderChain>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let (sender, asked) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (chain, sender) = (chain.clone(), sender.clone());
                // Who syncs is killed in the end: a broken connection is no failure.
                std::thread::spawn(move || chain.serve(stream, &sender).is_ok());
            }
        });
        Self { address, asked }
    }

    /// Waits until somebody has all headers; answers the time from its first request to its last.
    pub fn wait_for_all(&self) -> Duration {
        let mut first = None;
        loop {
            let asked = self.asked.recv_timeout(PATIENCE).expect("it goes on asking");
            let first = *first.get_or_insert(asked.at);
            if asked.all {
                return asked.at - first;
            }
        }
    }
}
