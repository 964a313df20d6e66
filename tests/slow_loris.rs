//! Hundreds of connection attempts on one process, half of them by peers that send a byte at a time and never come to an
//! end: its memory is bounded, and a peer that wants blocks is served meanwhile.
//!
//! `HEADLONG_ATTEMPTS=10000` makes as many attempts as that.
#![cfg(all(target_os = "linux", feature = "native", feature = "sled", feature = "consensus"))]

mod world;

use headlong::sim::serve::Session;
use headlong::wire::Message;
use headlong::{Builder, PeerAddress};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use world::{PATIENCE, Running, World};

/// Attempts of an ordinary test run.
const ATTEMPTS: usize = 800;
/// Connections that are held at a time, whatever the other side thinks of them: below the usual limit of open files.
const HELD: usize = 600;
/// Bytes by which the node's memory may grow. Each place takes two tasks and a buffer of 128 KiB; there are 114.
const GROWTH: u64 = 48 << 20;
const BLOCKS: u32 = 300;

fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).unwrap().join("examples/sync")
}

/// The node as a process; killed when it is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Kilobytes of a line of its status.
    fn kilobytes(&self, name: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

fn free_port() -> SocketAddr {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap()
}

/// The bytes of a version message, as a peer that opens a connection sends it.
fn version(world: &World) -> Vec<u8> {
    let message: Message = Session::new(world.chain.clone(), 7).open();
    headlong::wire::frame::encode(world.params.magic, &message)
}

/// Sends a byte on each held connection again and again, and lets the oldest go.
fn trickle(held: &mut VecDeque<(TcpStream, usize)>, greeting: &[u8]) {
    for (stream, sent) in held.iter_mut() {
        // The last byte is never sent.
        if *sent + 1 < greeting.len() && stream.write(&greeting[*sent..=*sent]).is_ok() {
            *sent += 1;
        }
    }
    while held.len() > HELD {
        held.pop_front();
    }
}

#[test]
fn a_crowd_that_sends_byte_by_byte_costs_little_memory_and_keeps_nobody_out() {
    let attempts = std::env::var("HEADLONG_ATTEMPTS").map_or(ATTEMPTS, |text| text.parse().unwrap());
    let world = World::new(BLOCKS);
    let folder = tempfile::tempdir().unwrap();
    let address = free_port();
    let mut child = Command::new(program())
        .args(["--network", "regtest", "--status", "json", "--connect", &world.peer.address().to_string()])
        .args(["--listen", &address.to_string(), "--datadir"])
        .arg(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let node = Process(child);
    let tip = format!("\"durable_height\":{BLOCKS}");
    let synced = lines.by_ref().map_while(Result::ok).any(|line| line.replace(' ', "").contains(&tip));
    assert!(synced, "the node syncs first");
    // What it prints is read, so that it is never held up by it.
    std::thread::spawn(move || lines.for_each(drop));

    let greeting = version(&world);
    let before = node.kilobytes("VmRSS:");
    let over = AtomicBool::new(false);
    let begun = Instant::now();
    let (made, served) = std::thread::scope(|scope| {
        let crowd = scope.spawn(|| {
            let mut held = VecDeque::new();
            let mut made = 0;
            while made < attempts && !over.load(Ordering::Relaxed) {
                if let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(5)) {
                    let _ = stream.set_nonblocking(true);
                    made += 1;
                    match made % 4 {
                        0 => {}
                        1 => drop(stream.write(&greeting[..16])),
                        _ => held.push_back((stream, 0)),
                    }
                }
                if made % 50 == 0 {
                    trickle(&mut held, &greeting);
                }
            }
            // Those that are held stay for a while.
            for _ in 0..20 {
                trickle(&mut held, &greeting);
                std::thread::sleep(Duration::from_millis(20));
            }
            made
        });
        let mut served = 0;
        while !crowd.is_finished() || served == 0 {
            let client = Builder::with_params((*world.params).clone()).threads(1);
            let client = Running::start(client.connect(PeerAddress::Ip(address)).build().unwrap());
            client.wait_for(world.tip());
            client.stop();
            served += 1;
            assert!(begun.elapsed() < PATIENCE * 20, "{served}");
        }
        over.store(true, Ordering::Relaxed);
        (crowd.join().unwrap(), served)
    });
    let peak = node.kilobytes("VmHWM:");
    println!(
        "{made} attempts in {:.1} s, {served} nodes synced {BLOCKS} blocks meanwhile; memory {before} kB before, {peak} kB at most",
        begun.elapsed().as_secs_f64()
    );
    assert_eq!(made, attempts);
    assert!(peak < before + GROWTH / 1_024, "{before} kB, then {peak} kB");
    drop(node);
}
