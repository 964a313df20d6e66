//! A peer's side of a connection, as raw as the peer wants it: a listener and a thread a connection.

use crate::world::World;
use bitcoin::p2p::Address;
use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::message_network::VersionMessage;
use headlong::sim::serve::{ServedChain, Session};
use headlong::wire::Message;
use headlong::wire::frame::{self, Command, Decoder};
use parking_lot::RwLock;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a socket is waited for before the end of the case is looked for.
const POLL: Duration = Duration::from_millis(20);
/// Connections of one peer in one case.
const MAX_CONNECTIONS: usize = 40;

/// What a peer does with a connection. An error is the end of the connection.
pub type Behaviour = Arc<dyn Fn(&Stage, &mut Wire) -> io::Result<()> + Send + Sync>;

/// What a behaviour knows of its case.
#[derive(Clone)]
pub struct Stage {
    pub world: &'static World,
    /// Set once the hostile peer has done what it is there for; the honest peer waits for that.
    pub engaged: Arc<AtomicBool>,
}

impl Stage {
    pub fn engage(&self) {
        self.engaged.store(true, Ordering::SeqCst);
    }
}

/// A listening peer. Dropping it ends its connections.
pub struct Peer {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    pub fn start(stage: Stage, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, connections) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let thread = std::thread::spawn({
            let (stop, connections) = (stop.clone(), connections.clone());
            move || accept(&listener, &stage, &behaviour, &stop, &connections)
        });
        Self { address, connections, stop, thread: Some(thread) }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept(
    listener: &TcpListener,
    stage: &Stage,
    behaviour: &Behaviour,
    stop: &Arc<AtomicBool>,
    connections: &AtomicUsize,
) {
    let mut threads = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let Ok((stream, _)) = listener.accept() else {
            std::thread::sleep(POLL);
            continue;
        };
        if connections.fetch_add(1, Ordering::SeqCst) >= MAX_CONNECTIONS {
            continue;
        }
        let stage = stage.clone();
        let mut wire = Wire::new(stream, stage.world.params.magic, stop.clone());
        let behaviour = behaviour.clone();
        threads.push(std::thread::spawn(move || {
            // Most end because the node or the case ends.
            let _ = behaviour(&stage, &mut wire);
            stage.engage();
        }));
    }
    for thread in threads {
        thread.join().expect("a behaviour does not panic");
    }
}

/// A connection that the node opened.
pub struct Wire {
    stream: TcpStream,
    decoder: Decoder,
    pub magic: [u8; 4],
    received: VecDeque<Message>,
    stop: Arc<AtomicBool>,
}

fn over() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "the case is over")
}

fn waits(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

impl Wire {
    fn new(stream: TcpStream, magic: [u8; 4], stop: Arc<AtomicBool>) -> Self {
        stream.set_nonblocking(false).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(POLL)).unwrap();
        stream.set_write_timeout(Some(POLL)).unwrap();
        Self { stream, decoder: Decoder::new(magic), magic, received: VecDeque::new(), stop }
    }

    /// The next message of the node.
    pub fn next(&mut self) -> io::Result<Message> {
        loop {
            if let Some(message) = self.poll()? {
                return Ok(message);
            }
        }
    }

    /// The next message, if one comes soon.
    pub fn poll(&mut self) -> io::Result<Option<Message>> {
        if let Some(message) = self.received.pop_front() {
            return Ok(Some(message));
        }
        if self.stop.load(Ordering::SeqCst) {
            return Err(over());
        }
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => self.decode(&buffer[..read]),
            Err(error) if waits(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(self.received.pop_front())
    }

    /// Reads what is there, without waiting, and forgets it; whether there was something.
    pub fn take_soon(&mut self) -> io::Result<bool> {
        self.stream.set_nonblocking(true)?;
        let mut buffer = [0; 64 * 1024];
        let read = self.stream.read(&mut buffer);
        self.stream.set_nonblocking(false)?;
        self.received.clear();
        match read {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(true),
            Err(error) if waits(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn decode(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let used = self.decoder.feed(bytes).expect("the node keeps to the protocol");
            bytes = &bytes[used..];
            if let Some(frame) = self.decoder.take_frame() {
                frame.verify().expect("the node keeps to the protocol");
                self.received.extend(frame.into_message().expect("the node keeps to the protocol"));
            }
        }
    }

    /// Reads and answers nothing until the end.
    pub fn ignore(&mut self) -> io::Result<()> {
        loop {
            while self.take_soon()? {}
            self.pause(POLL)?;
        }
    }

    /// Neither reads nor writes until the end of the case.
    pub fn freeze(&mut self) -> io::Result<()> {
        self.pause(Duration::from_secs(3_600))
    }

    pub fn pause(&self, time: Duration) -> io::Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            if self.stop.load(Ordering::SeqCst) {
                return Err(over());
            }
            std::thread::sleep(POLL.min(time));
        }
        Ok(())
    }

    /// Writes bytes as they are.
    pub fn raw(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.stop.load(Ordering::SeqCst) {
                return Err(over());
            }
            match self.stream.write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if waits(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes so many bytes a second.
    pub fn slowly(&mut self, bytes: &[u8], per_second: usize) -> io::Result<()> {
        for part in bytes.chunks(per_second.div_ceil(4)) {
            self.raw(part)?;
            self.pause(Duration::from_millis(250))?;
        }
        Ok(())
    }

    pub fn send(&mut self, message: &Message) -> io::Result<()> {
        self.raw(&frame::encode(self.magic, message))
    }

    /// A frame with the right length and checksum.
    pub fn frame(&self, command: &str, payload: &[u8]) -> Vec<u8> {
        framed(self.magic, command, payload)
    }

    /// Waits for the node's version and answers with ours.
    pub fn introduce(&mut self) -> io::Result<()> {
        while !matches!(self.next()?, Message::Version(_)) {}
        self.send(&version())
    }

    /// The whole handshake.
    pub fn shake_hands(&mut self) -> io::Result<()> {
        self.introduce()?;
        self.send(&Message::Verack)?;
        while self.next()? != Message::Verack {}
        Ok(())
    }

    /// Serves a chain as an honest node does, but for what `twist` answers.
    pub fn serve(
        &mut self,
        chain: &Arc<RwLock<ServedChain>>,
        mut twist: impl FnMut(&mut Self, &Message) -> io::Result<Done>,
    ) -> io::Result<()> {
        let mut session = Session::new(chain.clone(), nonce());
        loop {
            let Some(message) = self.poll()? else { continue };
            if twist(self, &message)? == Done::No {
                for answer in session.on_message(message) {
                    self.send(&answer)?;
                }
            }
        }
    }
}

/// Whether a message was answered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Done {
    Yes,
    No,
}

/// A frame with the right length and checksum.
pub fn framed(magic: [u8; 4], command: &str, payload: &[u8]) -> Vec<u8> {
    use bitcoin::hashes::{Hash, sha256d};
    let sum = &sha256d::Hash::hash(payload).to_byte_array()[..4];
    header(magic, command, payload.len() as u32, sum).into_iter().chain(payload.iter().copied()).collect()
}

/// A frame's header.
pub fn header(magic: [u8; 4], command: &str, length: u32, checksum: &[u8]) -> Vec<u8> {
    let command = Command::new(command).expect("at most twelve printable characters").to_bytes();
    [&magic[..], &command, &length.to_le_bytes(), checksum].concat()
}

fn nonce() -> u64 {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed) as u64 | 0x7e57 << 40
}

/// The version of a full node that claims as many blocks as the honest one.
pub fn version() -> Message {
    let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let services = ServiceFlags::NETWORK | ServiceFlags::WITNESS;
    Message::Version(VersionMessage {
        version: 70_016,
        services,
        timestamp: 0,
        receiver: Address::new(&nowhere, ServiceFlags::NONE),
        sender: Address::new(&nowhere, services),
        nonce: nonce(),
        user_agent: "/hostile:1/".into(),
        start_height: 360,
        relay: false,
    })
}

/// The honest peer: it waits until the hostile ones are engaged, for a limited time.
pub fn honest(engaged: Vec<Arc<AtomicBool>>, patience: Duration) -> Behaviour {
    Arc::new(move |stage, wire| {
        let end = Instant::now() + patience;
        while Instant::now() < end && !engaged.iter().all(|flag| flag.load(Ordering::SeqCst)) {
            wire.pause(POLL)?;
        }
        wire.serve(&stage.world.honest.served, |_, _| Ok(Done::No))
    })
}
