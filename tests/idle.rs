//! A node with nothing to do sleeps: between its deadlines it makes no system call, seen from outside by strace. This needs
//! the version of the crate `blocking` that `Cargo.lock` names ([`headlong::net::native::NativeExecutor`] says why).
#![cfg(all(target_os = "linux", feature = "native", feature = "consensus"))]

mod world;

use headlong::sim::loopback::LoopbackPeer;
use headlong::{Builder, Network};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use world::{Running, World};

/// Tells the process that is watched that it is the one, and its peers.
const ROLE: &str = "HEADLONG_IDLE_NODE";
/// What follows the sync (the first commit, the last headers) is over by then.
const SETTLED: Duration = Duration::from_secs(4);
/// How long is looked. No deadline falls into it: pings come after two minutes.
const LOOK: Duration = Duration::from_secs(10);
const BLOCKS: u32 = 120;

/// The node that is watched, a process of its own; its peers, whose threads look at a flag now and then, are in the other.
#[test]
fn the_node_that_is_watched() {
    let Ok(peers) = std::env::var(ROLE) else { return };
    let mut builder = Builder::new(Network::Regtest).threads(2);
    for peer in peers.split(',') {
        builder = builder.connect(peer.parse::<std::net::SocketAddr>().unwrap());
    }
    let node = Running::start(builder.build().unwrap());
    let mut status = node.handle.status();
    while status.durable.height < BLOCKS || status.peers < 2 {
        status = node.handle.status_changed_blocking(status.version).unwrap();
    }
    println!("\nsynced");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    assert_eq!(node.handle.status().peers, 2);
    node.stop();
    println!("stopped");
}

fn unix() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

#[test]
fn a_node_in_step_with_two_peers_makes_no_system_call_between_its_deadlines() {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        println!("SKIPPED: there is no strace on this machine");
        return;
    }
    let world = World::new(BLOCKS);
    let second = LoopbackPeer::start(world.chain.clone(), world.params.magic).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("calls");
    let mut child = Command::new("strace")
        .args(["-f", "-ttt", "-o"])
        .arg(&log)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "the_node_that_is_watched", "--nocapture", "--test-threads=1"])
        .env(ROLE, format!("{},{}", world.peer.address(), second.address()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    if !lines.any(|line| line == "synced") {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        assert!(text.is_empty(), "the node did not sync under strace");
        println!("SKIPPED: this machine lets nobody trace a process");
        let _ = child.wait();
        return;
    }
    std::thread::sleep(SETTLED);
    let from = unix();
    std::thread::sleep(LOOK);
    let to = unix();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(lines.any(|line| line == "stopped"), "it lived all the time");
    assert!(child.wait().unwrap().success());
    let text = std::fs::read_to_string(&log).unwrap();
    let time = |line: &str| line.split_whitespace().nth(1).and_then(|word| word.parse::<f64>().ok());
    let all = text.lines().filter(|line| time(line).is_some()).count();
    let calls: Vec<&str> =
        text.lines().filter(|line| time(line).is_some_and(|at| (from..to).contains(&at))).collect();
    println!("{all} calls in all, {} in {:.1} s without a deadline", calls.len(), to - from);
    assert!(all > 1_000, "the log is whole");
    assert!(calls.is_empty(), "{calls:#?}");
}
