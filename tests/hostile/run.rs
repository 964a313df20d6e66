//! Runs a case: peers, a node in a process of its own, and what must hold afterwards.

use crate::cases::{Case, End};
use crate::node::{MARK, PLAN};
use crate::wire::{Peer, Stage, honest};
use crate::world::{Net, world};
use headlong::limits;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How long the honest peer waits for the hostile ones to do what they are there for.
const HEAD_START: Duration = Duration::from_secs(4);
/// What the sync may take beyond three times the honest time.
const GRACE: Duration = Duration::from_secs(30);
/// How long a close that the table asks for is waited for after the sync.
const PATIENCE: Duration = Duration::from_secs(12);

/// Bytes that a message read from a payload takes for each of its bytes (`wire::message`).
const PARSED: usize = 8;
/// Bytes that a checked block takes for each of its own: serialised, decoded, in a report or two.
const CHECKED: usize = 5;
/// Bytes of one presync (`MAX_PRESYNCS` tells).
const PRESYNC: usize = 1_400_000;

/// What the limits let one hostile peer make the node hold: messages that wait to be handled, read or not, with the
/// one that passes the gate last; the payload that is arriving; what is cut from the socket; what it does not read;
/// blocks that wait to be stored, and one more; a presync.
pub const fn memory_of_peer() -> usize {
    PARSED * (limits::MAX_UNHANDLED_BYTES + limits::MAX_PAYLOAD)
        + limits::MAX_PAYLOAD
        + 2 * limits::READ_CHUNK
        + limits::MAX_UNSENT_BYTES
        + CHECKED * (limits::MAX_UNSTORED_PER_PEER + limits::MAX_PAYLOAD)
        + PRESYNC
}

/// The honest run of a network.
#[derive(Clone, Copy, Debug)]
pub struct Baseline {
    pub seconds: f64,
    /// `VmHWM`, in bytes.
    pub memory: usize,
}

/// Measured once each.
#[derive(Default)]
pub struct Baselines([OnceLock<Baseline>; 2]);

impl Baselines {
    pub fn of(&self, network: Net) -> Baseline {
        *self.0[network as usize].get_or_init(|| {
            let alone = Case { network, ..Case::new("honest alone", Vec::new(), End::NoFault) };
            let unlimited = Baseline { seconds: 20.0, memory: 1 << 30 };
            let outcome = run(&alone, unlimited);
            assert!(outcome.wrong.is_empty(), "{outcome}");
            Baseline { seconds: outcome.seconds, memory: outcome.memory }
        })
    }
}

/// How a case went.
pub struct Outcome {
    name: String,
    seconds: f64,
    memory: usize,
    /// Why hostile peers were closed, and how many for each reason.
    closes: Vec<(String, usize)>,
    /// It took longer than is allowed.
    pub late: bool,
    /// What must not be.
    pub wrong: Vec<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.wrong.is_empty() { "ok" } else { "WRONG" };
        write!(f, "{verdict:5} {:6.1} s {:5} MiB  {}", self.seconds, self.memory >> 20, self.name)?;
        for (reason, count) in self.closes.iter().take(if self.wrong.is_empty() { 4 } else { 200 }) {
            write!(f, "; {count}x {reason}")?;
        }
        self.wrong.iter().try_for_each(|wrong| write!(f, "\n      {wrong}"))
    }
}

/// A connection that ended, as the node told it.
#[derive(Clone, Debug)]
struct Ended {
    kind: String,
    address: SocketAddr,
    reason: String,
}

/// A running node.
struct Node {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    _folder: tempfile::TempDir,
    tip: String,
    ended: Vec<Ended>,
    last: Vec<String>,
}

impl Node {
    fn start(network: Net, peers: &[(SocketAddr, SocketAddr, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut plan = format!("network {}\n", if network == Net::Hard { "hard" } else { "easy" });
        plan += &format!("datadir {}\n", folder.path().display());
        for (public, real, how) in peers {
            plan += &format!("peer {public} {real} {how}\n");
        }
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["node_of_a_case", "--exact", "--nocapture"])
            .env(PLAN, plan)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let stdin = child.stdin.take();
        Self { child, stdin, lines, _folder: folder, tip: String::new(), ended: vec![], last: vec![] }
    }

    /// Reads what the node tells until this holds; false if it did not in time or the node has ended.
    fn until(&mut self, end: Instant, holds: impl Fn(&Self) -> bool) -> bool {
        loop {
            if holds(self) {
                return true;
            }
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => self.take(&line),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return holds(self),
            }
        }
    }

    fn take(&mut self, line: &str) {
        // The test harness may have begun the line.
        let Some((_, told)) = line.split_once(MARK) else { return };
        match told.split_once(' ') {
            Some(("tip", tip)) => self.tip = tip.to_owned(),
            Some((kind @ ("fault" | "discouraged" | "closed"), rest)) => {
                let (address, reason) = rest.split_once(' ').unwrap();
                let (kind, reason) = (kind.to_owned(), reason.to_owned());
                self.ended.push(Ended { kind, address: address.parse().unwrap(), reason });
            }
            _ => self.last.push(told.to_owned()),
        }
    }

    /// The most memory so far, in bytes.
    fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes: Option<usize> =
            line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse().ok());
        kilobytes.map_or(0, |kilobytes| kilobytes << 10)
    }

    /// Lets the node end and reads the rest.
    fn end(&mut self) {
        drop(self.stdin.take());
        self.until(Instant::now() + Duration::from_secs(30), |_| false);
        if self.child.try_wait().unwrap().is_none() {
            self.last.push("the node does not end".to_owned());
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The public address of a peer; each has a network group of its own.
fn public(number: usize) -> SocketAddr {
    let [.., high, low] = (number as u32).to_be_bytes();
    SocketAddr::from(([8 + high, low, 3, 4], 18_444))
}

/// A hostile peer of a running case.
struct Foe {
    name: String,
    address: SocketAddr,
    end: End,
    peer: Peer,
}

pub fn run(case: &Case, base: Baseline) -> Outcome {
    let world = world(case.network);
    let mut engaged = Vec::new();
    let foes: Vec<Foe> = case
        .peers
        .iter()
        .enumerate()
        .map(|(number, foe)| {
            let stage = Stage { world, engaged: Arc::new(AtomicBool::new(false)) };
            engaged.push(stage.engaged.clone());
            let peer = Peer::start(stage, foe.behaviour.clone());
            Foe { name: foe.name.clone(), address: public(number + 1), end: foe.end, peer }
        })
        .collect();
    let patience = HEAD_START.max(case.head_start);
    let flags = engaged.clone();
    let stage = Stage { world, engaged: Arc::new(AtomicBool::new(false)) };
    let friend = Peer::start(stage, honest(engaged, patience));
    let mut peers = vec![(public(0), friend.address, "auto")];
    let how = if case.manual { "manual" } else { "auto" };
    peers.extend(foes.iter().map(|foe| (foe.address, foe.peer.address, how)));

    let begun = Instant::now();
    let mut node = Node::start(case.network, &peers);
    let limit = Duration::from_secs_f64(base.seconds * 3.0) + GRACE;
    let tip = world.honest.served.read().tip();
    let goal = format!("{} {}", tip.height, tip.hash);
    // Waited for longer than is allowed, so that one learns by how much.
    let synced = node.until(begun + limit * 2, |node| node.tip == goal);
    let seconds = begun.elapsed().as_secs_f64();
    if synced {
        node.until(Instant::now() + PATIENCE, |node| {
            foes.iter()
                .all(|foe| !foe.end.is_awaited() || node.ended.iter().any(|e| e.address == foe.address))
        });
        node.until(Instant::now() + case.linger, |_| false);
    }
    let memory = node.memory();
    node.end();

    let mut wrong = Vec::new();
    if !synced {
        wrong.push(format!("no sync after {seconds:.1} s: tip {}, {:?}", node.tip, node.last));
    } else if seconds > limit.as_secs_f64() {
        wrong.push(format!("synced after {seconds:.1} s, allowed are {:.1} s", limit.as_secs_f64()));
    }
    if node.tip != goal && synced {
        wrong.push(format!("left the honest tip for {}", node.tip));
    }
    if !node.last.iter().any(|line| line.starts_with("ended Ok")) {
        wrong.push(format!("the node did not end well: {:?}", node.last));
    }
    let allowed = base.memory + foes.len() * memory_of_peer();
    if memory > allowed {
        wrong.push(format!("{} MiB of memory, allowed are {} MiB", memory >> 20, allowed >> 20));
    }
    // Of several that do the same, not each need be asked.
    let same = foes.iter().all(|foe| foe.name == foes[0].name);
    let idle: Vec<&Foe> = foes
        .iter()
        .zip(&flags)
        .filter(|(_, flag)| !flag.load(Ordering::SeqCst))
        .map(|(foe, _)| foe)
        .collect();
    if idle.len() == foes.len() || !same {
        wrong.extend(idle.iter().map(|foe| format!("{}: never did what it is there for", foe.name)));
    }
    for ended in node.ended.iter().filter(|e| e.address == public(0) && e.kind != "closed") {
        wrong.push(format!("the honest peer was closed: {}", ended.reason));
    }
    for foe in &foes {
        judge(foe, &node.ended, case.manual, &mut wrong);
    }
    let late = seconds > limit.as_secs_f64();
    let hostile: Vec<Ended> = node.ended.iter().filter(|e| e.address != public(0)).cloned().collect();
    Outcome { name: case.name.clone(), seconds, memory, closes: tally(&hostile), late, wrong }
}

fn judge(foe: &Foe, ended: &[Ended], manual: bool, wrong: &mut Vec<String>) {
    let mut own = ended.iter().filter(|e| e.address == foe.address && !e.reason.contains("shutting down"));
    let mut complain = |what: String| wrong.push(format!("{}: {what}", foe.name));
    match foe.end {
        End::Fault(why) => {
            let kind = if manual { "fault" } else { "discouraged" };
            let mut faults = own.clone().filter(|e| e.kind != "closed").peekable();
            if faults.peek().is_none() {
                complain(format!("no fault; ended: {:?}", own.collect::<Vec<_>>()));
            } else if let Some(other) = faults.find(|e| !e.reason.contains(why) || e.kind != kind) {
                complain(format!("{} for {:?} instead of {why:?}", other.kind, other.reason));
            } else if !manual && foe.peer.connections.load(Ordering::SeqCst) > 1 {
                complain("dialled again after a fault".to_owned());
            }
        }
        End::Closed(why) => {
            if let Some(fault) = own.clone().find(|e| e.kind != "closed") {
                complain(format!("fault: {}", fault.reason));
            } else if !own.any(|e| e.reason.contains(why)) {
                complain(format!("not closed for {why:?}"));
            }
        }
        End::NoFault => {
            if let Some(fault) = own.find(|e| e.kind != "closed") {
                complain(format!("fault: {}", fault.reason));
            }
        }
    }
}

fn tally(ended: &[Ended]) -> Vec<(String, usize)> {
    let mut closes: Vec<(String, usize)> = Vec::new();
    for end in ended {
        let text = format!("{} {}", end.kind, end.reason);
        match closes.iter_mut().find(|(known, _)| *known == text) {
            Some((_, count)) => *count += 1,
            None => closes.push((text, 1)),
        }
    }
    closes
}
