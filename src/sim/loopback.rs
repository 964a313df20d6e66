//! Serving peers on real sockets of the loopback interface, a thread a connection: for demonstrations and
//! tests, never for the network.

use super::serve::{ServedChain, Session};
use crate::wire::Message;
use crate::wire::frame::{self, Decoder, FrameError};
use parking_lot::{Mutex, RwLock};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a read waits before the connection looks for new blocks to announce.
const POLL: Duration = Duration::from_millis(20);

/// A serving peer. Dropping it closes its connections and its port.
#[derive(Debug)]
pub struct LoopbackPeer {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    chain: Arc<RwLock<ServedChain>>,
    magic: [u8; 4],
    stop: AtomicBool,
    nonce: AtomicU64,
    connections: Mutex<Vec<(TcpStream, JoinHandle<()>)>>,
}

impl LoopbackPeer {
    /// Listens on a free port and serves `chain` to all who connect.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn start(chain: Arc<RwLock<ServedChain>>, magic: [u8; 4]) -> io::Result<Self> {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), chain, magic)
    }

    /// The same at this address.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn start_at(
        address: SocketAddr,
        chain: Arc<RwLock<ServedChain>>,
        magic: [u8; 4],
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            chain,
            magic,
            stop: AtomicBool::new(false),
            nonce: AtomicU64::new(u64::from(address.port()) << 32),
            connections: Mutex::new(Vec::new()),
        });
        let acceptor = std::thread::Builder::new().name("loopback-peer".into()).spawn({
            let shared = shared.clone();
            move || accept(&listener, &shared)
        })?;
        Ok(Self { address, shared, acceptor: Some(acceptor) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for LoopbackPeer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the acceptor, which sees the flag.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for (stream, thread) in self.shared.connections.lock().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let Ok(mut stream) = stream else { continue };
        let Ok(handle) = stream.try_clone() else { continue };
        let session = Session::new(shared.chain.clone(), shared.nonce.fetch_add(1, Ordering::SeqCst));
        let magic = shared.magic;
        let thread = std::thread::Builder::new().name("loopback-connection".into()).spawn(move || {
            let _ = serve(&mut stream, session, magic);
            // The other handle would keep it open.
            let _ = stream.shutdown(Shutdown::Both);
        });
        if let Ok(thread) = thread {
            let mut connections = shared.connections.lock();
            connections.retain(|(_, thread)| !thread.is_finished());
            connections.push((handle, thread));
        }
    }
}

fn serve(stream: &mut TcpStream, mut session: Session, magic: [u8; 4]) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(POLL))?;
    let mut decoder = Decoder::new(magic);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                for message in decode(&mut decoder, &buffer[..count])? {
                    for answer in session.on_message(message) {
                        stream.write_all(&frame::encode(magic, &answer))?;
                    }
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
        if let Some(news) = session.announce() {
            stream.write_all(&frame::encode(magic, &news))?;
        }
    }
}

/// The messages that `bytes` complete. Unknown ones are passed over.
fn decode(decoder: &mut Decoder, mut bytes: &[u8]) -> io::Result<Vec<Message>> {
    let invalid = |error: FrameError| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let used = decoder.feed(bytes).map_err(invalid)?;
        bytes = &bytes[used..];
        if let Some(frame) = decoder.take_frame() {
            frame.verify().map_err(invalid)?;
            messages.extend(frame.into_message().map_err(invalid)?);
        }
    }
    Ok(messages)
}
