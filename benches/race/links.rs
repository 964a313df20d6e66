//! The links of the profile `links`: relays in this process that delay, slow down and stall what passes.
//!
//! A relay stands in for `tc netem`, which not every kernel has: bytes arrive after the delay, no faster than the
//! bandwidth; a lost packet holds up what follows for a round trip, as TCP's repetition does.

use headlong::rng::Rng;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

/// Bytes of a packet, of which some get lost.
const PACKET: usize = 1_460;
/// Bytes that are read at a time.
const CHUNK: usize = 8 << 10;
/// Chunks that may be under way one way: more than the bandwidth times the delay of any link here.
const UNDER_WAY: usize = 64;

/// How a link is.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Bits a second, each way.
    pub bandwidth: u64,
    /// For a byte and its answer.
    pub round_trip: Duration,
    /// Of a thousand packets, how many get lost.
    pub losses: u64,
    /// Bytes to the side that syncs after which nothing passes any more; the connection stays.
    pub stalls_after: Option<usize>,
}

impl Link {
    /// 100 ms, one packet of a hundred lost.
    pub const fn mbit(megabits: u64) -> Self {
        let round_trip = Duration::from_millis(100);
        Self { bandwidth: megabits * 1_000_000, round_trip, losses: 10, stalls_after: None }
    }

    /// A relay to this address, until the program ends; where it listens.
    pub fn open(self, to: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                // Who has gone takes nothing more.
                let Ok(far) = TcpStream::connect(to) else { continue };
                let _ = near.set_nodelay(true).and_then(|()| far.set_nodelay(true));
                if let (Ok(near_too), Ok(far_too)) = (near.try_clone(), far.try_clone()) {
                    self.carry(near_too, far_too, None);
                    self.carry(far, near, self.stalls_after);
                }
            }
        });
        address
    }

    /// Carries bytes one way.
    fn carry(self, mut from: TcpStream, to: TcpStream, stalls_after: Option<usize>) {
        let (sender, receiver) = sync_channel(UNDER_WAY);
        std::thread::spawn(move || deliver(&receiver, to));
        std::thread::spawn(move || {
            let mut rng = Rng::from_number(self.bandwidth);
            let (mut passed, mut free) = (0, Instant::now());
            let mut chunk = vec![0; CHUNK];
            while let Ok(count @ 1..) = from.read(&mut chunk) {
                if stalls_after.is_some_and(|most| passed >= most) {
                    // Read and lost: the sender notices nothing.
                    continue;
                }
                passed += count;
                free = free.max(Instant::now())
                    + Duration::from_secs_f64(count as f64 * 8.0 / self.bandwidth as f64);
                for _ in 0..count.div_ceil(PACKET) {
                    if rng.below(1_000) < self.losses {
                        free += self.round_trip;
                    }
                }
                let due = free + self.round_trip / 2;
                if sender.send((due, chunk[..count].to_vec())).is_err() {
                    break;
                }
            }
            let _ = from.shutdown(Shutdown::Both);
        });
    }
}

fn deliver(chunks: &Receiver<(Instant, Vec<u8>)>, mut to: TcpStream) {
    while let Ok((due, bytes)) = chunks.recv() {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
