//! One life of the node: a process of its own, which can be looked at and ended in either way.

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a process holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Resident memory in KiB.
    pub rss: u64,
    pub descriptors: u64,
    pub threads: u64,
}

/// The example `sync` following the given servers.
pub struct Life {
    child: Child,
    lines: Receiver<Value>,
    reader: Option<JoinHandle<()>>,
    errors: Option<JoinHandle<String>>,
    latest: Value,
    pub begun: Instant,
    pub samples: Vec<Sample>,
}

/// `cargo test` builds it with the tests; before a run of this file alone, `cargo build --example sync` does.
fn program() -> PathBuf {
    let test = std::env::current_exe().expect("this program");
    let folder = test.parent().and_then(Path::parent).expect("the target folder");
    let program = folder.join("examples/sync");
    assert!(program.is_file(), "build the example first: cargo build --example sync");
    program
}

impl Life {
    pub fn start(folder: &Path, servers: &[SocketAddr]) -> Self {
        let mut command = Command::new(program());
        command.args(["--network", "regtest", "--status", "json", "--utxo-hash", "--threads", "2"]);
        // A small cache is full soon, and from then on it should stay as it is.
        command.args(["--dbcache", "4", "--datadir"]).arg(folder);
        for server in servers {
            command.args(["--connect", &server.to_string()]);
        }
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the example starts");
        let (sender, lines) = channel();
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        let reader = std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if let Ok(value) = serde_json::from_str(&line) {
                    let _ = sender.send(value);
                }
            }
        });
        let err = BufReader::new(child.stderr.take().expect("a pipe"));
        // Of what it says only the end is kept.
        let errors = std::thread::spawn(move || {
            let mut last = std::collections::VecDeque::new();
            for line in err.lines().map_while(Result::ok) {
                last.push_back(line);
                if last.len() > 20 {
                    last.pop_front();
                }
            }
            Vec::from(last).join("\n")
        });
        Self {
            child,
            lines,
            reader: Some(reader),
            errors: Some(errors),
            latest: Value::Null,
            begun: Instant::now(),
            samples: Vec::new(),
        }
    }

    /// Waits until its durable tip is this block.
    pub fn reach(&mut self, hash: &str, patience: Duration) {
        let begun = Instant::now();
        while self.latest["durable_tip"] != hash {
            match self.lines.recv_timeout(Duration::from_millis(200)) {
                Ok(line) => self.latest = line,
                Err(_) => {
                    let ended = self.child.try_wait().expect("a child");
                    assert!(ended.is_none(), "the node ended by itself: {}", self.last_words());
                }
            }
            let waited = begun.elapsed();
            assert!(waited < patience, "did not reach {hash} in {waited:?}: {}", self.latest);
        }
    }

    /// Notes what the process holds now.
    pub fn sample(&mut self) {
        let proc = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = std::fs::read_to_string(proc.join("status")).expect("it lives");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of it");
            line.split_whitespace().next().and_then(|text| text.parse().ok()).expect("a number")
        };
        let descriptors = std::fs::read_dir(proc.join("fd")).expect("it lives").count() as u64;
        self.samples.push(Sample { rss: field("VmRSS:"), threads: field("Threads:"), descriptors });
    }

    /// SIGKILL.
    pub fn kill(mut self) -> Vec<Sample> {
        let _ = self.child.kill();
        let _ = self.child.wait();
        std::mem::take(&mut self.samples)
    }

    /// SIGTERM; also what it says of its coins before the end.
    pub fn stop(mut self) -> (Vec<Sample>, Value) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -TERM");
        let status = self.child.wait().expect("a child");
        let _ = self.reader.take().map(JoinHandle::join);
        let coins = self.lines.try_iter().find(|line| !line["muhash"].is_null());
        assert_eq!(status.code(), Some(0), "{}", self.last_words());
        (std::mem::take(&mut self.samples), coins.expect("hashes of the coins"))
    }

    fn last_words(&mut self) -> String {
        self.errors.take().and_then(|errors| errors.join().ok()).unwrap_or_default()
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
