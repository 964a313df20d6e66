//! Servers on loopback that answer by a script. Their bytes are put together here, not by the crate.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

/// A UDP server; it ends when it is dropped.
pub struct Fake {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Vec<u8>>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A datagram, and whether it comes from the server itself or from somebody else on this machine.
pub struct Datagram(pub Vec<u8>, pub bool);

impl Fake {
    /// Answers each request with these datagrams.
    pub fn serve(mut answer: impl FnMut(&[u8]) -> Vec<Datagram> + Send + 'static) -> Self {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (socket, stranger) = (bind(), bind());
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let address = socket.local_addr().unwrap();
        let (asked, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (log, end) = (asked.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 2_000];
            while !end.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                let request = &buffer[..length];
                log.lock().push(request.to_vec());
                for Datagram(bytes, own) in answer(request) {
                    let socket = if own { &socket } else { &stranger };
                    socket.send_to(&bytes, from).unwrap();
                }
            }
        });
        Self { address, asked, stop, thread: Some(thread) }
    }

    /// One truthful datagram for each request, or none.
    pub fn answering(mut answer: impl FnMut(&[u8]) -> Option<Vec<u8>> + Send + 'static) -> Self {
        Self::serve(move |request| answer(request).map(|bytes| Datagram(bytes, true)).into_iter().collect())
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Vec<u8>> {
        self.asked.lock().clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// PCP's answer (RFC 6887, sections 7.2 and 11.1) to a request.
pub fn granted(request: &[u8], external: &str, seconds: u32) -> Vec<u8> {
    let external: SocketAddr = external.parse().unwrap();
    let mut answer = vec![2, 0x81, 0, 0];
    answer.extend(seconds.to_be_bytes());
    answer.extend(1_000u32.to_be_bytes());
    answer.extend([0; 12]);
    answer.extend(&request[24..42]);
    answer.extend(external.port().to_be_bytes());
    answer.extend(octets(external.ip()));
    answer
}

/// A gateway that speaks PCP and gives this address.
pub fn pcp_gateway(external: &'static str, seconds: u32) -> Fake {
    Fake::answering(move |request| (request[0] == 2).then(|| granted(request, external, seconds)))
}

/// A gateway that speaks NAT-PMP only (RFC 6886).
pub fn natpmp_gateway(external: &'static str, seconds: u32) -> Fake {
    let external: SocketAddr = external.parse().unwrap();
    Fake::answering(move |request| {
        let IpAddr::V4(ip) = external.ip() else { panic!("it has IPv4 only") };
        let mut answer = vec![0, 128 | request[1], 0, 0, 0, 0, 0, 7];
        match request {
            [0, 0] => answer.extend(ip.octets()),
            [0, 2, ..] => {
                answer.extend(&request[4..6]);
                answer.extend(external.port().to_be_bytes());
                answer.extend(seconds.to_be_bytes());
            }
            _ => answer = vec![0, 128 | request[1], 0, 1, 0, 0, 0, 7],
        }
        Some(answer)
    })
}

/// A STUN response (RFC 8489, section 14.2) to a request.
pub fn sees(request: &[u8], address: &str) -> Vec<u8> {
    let SocketAddr::V4(address) = address.parse().unwrap() else { panic!("the fake has IPv4 only") };
    let mut answer = vec![1, 1, 0, 12];
    answer.extend(&request[4..20]);
    answer.extend([0, 0x20, 0, 8, 0, 1]);
    answer.extend((address.port() ^ 0x2112).to_be_bytes());
    answer.extend((address.ip().to_bits() ^ 0x2112_a442).to_be_bytes());
    answer
}

/// A server that sees everybody there.
pub fn stun_server(address: &'static str) -> Fake {
    Fake::answering(move |request| Some(sees(request, address)))
}
