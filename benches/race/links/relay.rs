//! Links that relays in this program make: bytes arrive after the delay, no faster than the bandwidth; a lost packet
//! holds up what follows for a round trip, as TCP's repetition does.

use super::{DELAY, LOSSES, Link};
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

/// A relay to this address, until the program ends; where it listens.
pub fn open(link: Link, to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            // Who has gone takes nothing more.
            let Ok(far) = TcpStream::connect(to) else { continue };
            let _ = near.set_nodelay(true).and_then(|()| far.set_nodelay(true));
            if let (Ok(near_too), Ok(far_too)) = (near.try_clone(), far.try_clone()) {
                carry(link.megabits, near_too, far_too, None);
                carry(link.megabits, far, near, link.stalls_after);
            }
        }
    });
    address
}

/// Carries bytes one way.
fn carry(megabits: u32, mut from: TcpStream, to: TcpStream, stalls_after: Option<u64>) {
    let (sender, receiver) = sync_channel(UNDER_WAY);
    std::thread::spawn(move || deliver(&receiver, to));
    std::thread::spawn(move || {
        let mut rng = Rng::from_number(megabits.into());
        let (mut passed, mut free) = (0, Instant::now());
        let mut chunk = vec![0; CHUNK];
        while let Ok(count @ 1..) = from.read(&mut chunk) {
            if stalls_after.is_some_and(|most| passed >= most) {
                // Read and lost: the sender notices nothing.
                continue;
            }
            passed += count as u64;
            let micros = count as f64 * 8.0 / f64::from(megabits);
            free = free.max(Instant::now()) + Duration::from_secs_f64(micros / 1e6);
            for _ in 0..count.div_ceil(PACKET) {
                if rng.below(100) < u64::from(LOSSES) {
                    free += DELAY * 2;
                }
            }
            if sender.send((free + DELAY, chunk[..count].to_vec())).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
    });
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
