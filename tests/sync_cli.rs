//! The example `sync` as a program: its options, what it prints, how it ends and how it resumes; served by a
//! peer on loopback.

#![cfg(all(unix, feature = "native", feature = "sled", feature = "consensus"))]

use headlong::sim::forge::demo_chain;
use headlong::sim::loopback::LoopbackPeer;
use headlong::sim::serve::ServedChain;
use headlong::{Network, Params};
use parking_lot::RwLock;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

const BLOCKS: u32 = 160;
/// The past, so that the chain is valid at any time.
const FIRST_TIME: u32 = 1_700_000_000;

/// The program, which `cargo test` builds with the tests; before a run of this file alone, `cargo build
/// --examples` does.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).unwrap().join("examples/sync")
}

/// A peer that serves a chain, and the hashes of the chain by height.
fn peer() -> (LoopbackPeer, Vec<String>) {
    let (chain, magic, hashes) = chain();
    (LoopbackPeer::start(chain, magic).unwrap(), hashes)
}

type Served = Arc<RwLock<ServedChain>>;

/// A chain to serve, the network's magic, and the hashes of the chain by height.
fn chain() -> (Served, [u8; 4], Vec<String>) {
    let params = Arc::new(Params::new(Network::Regtest));
    let blocks = demo_chain(&params, 5, BLOCKS, 300, FIRST_TIME);
    let mut hashes = vec![params.genesis_hash().to_string()];
    hashes.extend(blocks.iter().map(|block| block.block_hash().to_string()));
    let mut chain = ServedChain::new(&params.genesis);
    chain.extend(&blocks);
    (Arc::new(RwLock::new(chain)), params.magic, hashes)
}

fn command(peer: &LoopbackPeer, folder: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(program());
    command
        .args(["--network", "regtest", "--connect", &peer.address().to_string(), "--datadir"])
        .arg(folder)
        .args(more);
    command
}

fn output(peer: &LoopbackPeer, folder: &Path, more: &[&str]) -> Output {
    command(peer, folder, more).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A running program whose stdout is read line by line.
struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn object(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// Waits for a status in which this holds.
    fn until(&mut self, holds: impl Fn(&Value) -> bool) -> Value {
        loop {
            let object = self.object();
            if holds(&object) {
                return object;
            }
        }
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    /// The rest of stdout, stderr, and the exit code.
    fn end(mut self) -> (String, String, Option<i32>) {
        let (mut out, mut err) = (String::new(), String::new());
        self.lines.read_to_string(&mut out).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (out, err, self.child.wait().unwrap().code())
    }
}

#[test]
fn stops_at_a_height_and_resumes_from_it() {
    let (peer, hashes) = peer();
    let folder = tempfile::tempdir().unwrap();
    for height in [50, 120] {
        let done = output(&peer, folder.path(), &["--stop-at-height", &height.to_string()]);
        assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
        assert_eq!(text(&done.stdout), format!("reached {height} {}\n", hashes[height]));
        assert!(text(&done.stderr).contains(&format!("durable tip {height} {}", hashes[height])));
    }
    // Below the durable tip: the active hash at that height, and nothing moves, even without the peer.
    drop(peer);
    let gone = Command::new(program())
        .args(["--network", "regtest", "--connect", "127.0.0.1:1", "--stop-at-height", "7", "--datadir"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert_eq!(text(&gone.stdout), format!("reached 7 {}\n", hashes[7]));
    assert!(text(&gone.stderr).contains("durable tip 120"), "{}", text(&gone.stderr));
    assert_eq!(gone.status.code(), Some(0));
}

#[test]
fn status_objects_have_the_documented_keys_and_signals_end_it_cleanly() {
    let (peer, hashes) = peer();
    let documented = include_str!("../examples/README.md");
    for signal in ["TERM", "INT"] {
        let folder = tempfile::tempdir().unwrap();
        let mut running = Running::start(command(&peer, folder.path(), &["--status", "json"]));
        let synced = running.until(|status| status["stage"] == "synced");
        assert_eq!(synced["tip"], hashes[BLOCKS as usize].as_str());
        assert_eq!(synced["final"], false);
        for key in synced.as_object().unwrap().keys() {
            assert!(documented.contains(&format!("`{key}`")), "{key} is not documented");
        }
        running.signal(signal);
        let (out, err, code) = running.end();
        let last: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
        assert_eq!(last["final"], true);
        assert_eq!(last["durable_height"], BLOCKS);
        assert!(err.contains(&format!("durable tip {BLOCKS}")), "{err}");
        assert_eq!(code, Some(0));
    }
}

#[test]
fn wrong_usage_ends_with_2_and_a_failure_with_1() {
    let (peer, _) = peer();
    let folder = tempfile::tempdir().unwrap();
    for wrong in [
        &["--no-such-option"][..],
        &["--network", "nonet"],
        &["--stop-at-height", "x"],
        &["--threads", "0"],
        &["--prune", "-1"],
        &["--store", "floppy"],
        &["--status", "xml"],
        &["--signet-challenge", "51"],
        &["--activation", "segwit"],
        &["--assumevalid", "12"],
    ] {
        let done = output(&peer, folder.path(), wrong);
        assert_eq!(done.status.code(), Some(2), "{wrong:?}: {}", text(&done.stderr));
        assert!(done.stdout.is_empty());
    }
    // A second process on the same folder.
    let mut running = Running::start(command(&peer, folder.path(), &["--status", "json"]));
    running.until(|status| status["stage"] == "synced");
    let second = output(&peer, folder.path(), &[]);
    assert_eq!(second.status.code(), Some(1));
    let (error, id) = (text(&second.stderr), running.child.id());
    let said = format!("{} is in use by another node, process {id} (Locked)", folder.path().display());
    assert!(error.contains(&said), "{error}");
    running.signal("TERM");
    running.end();
    // The folder of another network.
    let other = Command::new(program())
        .args(["--network", "signet", "--connect", "127.0.0.1:1", "--datadir"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert_eq!(other.status.code(), Some(1));
    assert!(text(&other.stderr).contains("Unsupported"), "{}", text(&other.stderr));
}

#[test]
fn hashes_of_the_coins_are_those_of_validate() {
    let (peer, hashes) = peer();
    let folder = tempfile::tempdir().unwrap();
    let height = BLOCKS.to_string();
    let done = output(&peer, folder.path(), &["--stop-at-height", &height, "--utxo-hash", "--threads", "1"]);
    let lines: Vec<&str> = text(&done.stdout).lines().collect();
    assert_eq!(lines[0], format!("reached {BLOCKS} {}", hashes[BLOCKS as usize]));
    let ours: Value = serde_json::from_str(lines[1]).unwrap();
    let validate = Command::new(program().with_file_name("validate"))
        .args(["--network", "regtest", "--utxo-hash", "--datadir"])
        .arg(folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let theirs: Value = serde_json::from_str(text(&validate.stdout).lines().last().unwrap()).unwrap();
    for key in ["hash_serialized_3", "muhash", "txouts", "total_amount_sat", "tip", "height"] {
        assert_eq!(ours[key], theirs[key], "{key}");
        assert!(!ours[key].is_null(), "{key}");
    }
    // And those of a store in memory.
    let memory =
        output(&peer, folder.path(), &["--store", "memory", "--stop-at-height", &height, "--utxo-hash"]);
    assert_eq!(text(&memory.stdout), text(&done.stdout));
}

#[test]
fn a_store_in_memory_leaves_the_folder_alone() {
    let (peer, hashes) = peer();
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("never");
    let done = output(&peer, &folder, &["--store", "memory", "--stop-at-height", "30"]);
    assert_eq!(text(&done.stdout), format!("reached 30 {}\n", hashes[30]));
    assert!(!folder.exists());
}

/// `--peers`: a line for the peer with what it is for, its state, network, transport and score, and one for all.
#[test]
fn the_table_of_peers_tells_who_is_there_and_how() {
    let (peer, _) = peer();
    let folder = tempfile::tempdir().unwrap();
    let mut running = Running::start(command(&peer, folder.path(), &["--peers", "--status", "json"]));
    running.until(|object| object["stage"] == "synced" && object["elapsed_seconds"].as_f64() > Some(4.0));
    running.signal("INT");
    let (_, err, code) = running.end();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let rows: Vec<_> =
        err.lines().map(words).filter(|row| row.get(1).is_some_and(|kind| kind == "manual")).collect();
    let row = rows.first().unwrap_or_else(|| panic!("no table: {err}"));
    // The peer on loopback speaks v1 only. A stranger's score is 50; it may have moved since.
    assert_eq!(row[2..5], ["stable", "ipv4", "v1"], "{err}");
    assert!(row[5].parse::<u8>().is_ok_and(|score| score <= 100), "{err}");
    assert_eq!(row.last(), Some(&peer.address().to_string()));
    assert!(err.contains("1 peers, 0 of them came to us; "), "{err}");
    assert_eq!(code, Some(0));
}

#[test]
fn genesis_is_a_height_to_stop_at_and_one_above_the_tip_is_waited_for() {
    let (peer, hashes) = peer();
    let folder = tempfile::tempdir().unwrap();
    let done = output(&peer, folder.path(), &["--stop-at-height", "0"]);
    assert_eq!(text(&done.stdout), format!("reached 0 {}\n", hashes[0]));
    let above = (BLOCKS + 1).to_string();
    let goal = ["--stop-at-height", &above, "--status", "json"];
    let mut running = Running::start(command(&peer, folder.path(), &goal));
    running.until(|status| status["stage"] == "synced" && status["height"] == BLOCKS);
    // It is still there a second later.
    assert_eq!(running.object()["final"], false);
    running.signal("INT");
    let (out, _, code) = running.end();
    assert!(!out.lines().any(|line| line.starts_with("reached")), "{out}");
    assert_eq!(code, Some(0));
}

#[test]
fn a_peer_that_comes_later_is_found_by_name_and_by_either_kind_of_address() {
    let (chain, magic, hashes) = chain();
    for (listen, connect) in
        [("127.0.0.1:0", "127.0.0.1"), ("127.0.0.1:0", "localhost"), ("[::1]:0", "[::1]")]
    {
        let Ok(first) = LoopbackPeer::start_at(listen.parse().unwrap(), chain.clone(), magic) else {
            eprintln!("SKIPPED: nobody can listen on {listen} here");
            continue;
        };
        let address = first.address();
        drop(first);
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(program());
        command.args(["--network", "regtest", "--stop-at-height", "20", "--status", "json", "--datadir"]);
        command.arg(folder.path()).args(["--connect", &format!("{connect}:{}", address.port())]);
        let mut running = Running::start(command);
        let waiting = running.until(|status| !status["trouble"].is_null());
        assert_eq!(waiting["stage"], "connecting");
        let _peer = LoopbackPeer::start_at(address, chain.clone(), magic).unwrap();
        let (out, err, code) = running.end();
        assert!(out.contains(&format!("reached 20 {}\n", hashes[20])), "{connect}: {out}{err}");
        assert_eq!(code, Some(0));
    }
}

/// Kills at any moment, with a cache that holds next to nothing: the next run goes on, and the coins at the
/// end are those of a run that nobody disturbed.
#[test]
fn a_run_that_is_killed_again_and_again_ends_with_the_same_coins() {
    let (peer, _) = peer();
    let (folder, height) = (tempfile::tempdir().unwrap(), BLOCKS.to_string());
    for millis in [60, 90, 120, 150, 180, 210, 240, 270] {
        let mut running = Running::start(command(&peer, folder.path(), &["--dbcache", "1"]));
        std::thread::sleep(Duration::from_millis(millis));
        running.child.kill().unwrap();
        running.child.wait().unwrap();
    }
    let goal = ["--dbcache", "1", "--threads", "1", "--stop-at-height", &height, "--utxo-hash"];
    let resumed = output(&peer, folder.path(), &goal);
    assert_eq!(resumed.status.code(), Some(0), "{}", text(&resumed.stderr));
    let whole = tempfile::tempdir().unwrap();
    let undisturbed = output(&peer, whole.path(), &["--stop-at-height", &height, "--utxo-hash"]);
    assert_eq!(text(&resumed.stdout), text(&undisturbed.stdout));
    assert_eq!(text(&resumed.stdout).lines().count(), 2);
}

#[cfg(target_os = "linux")]
#[test]
fn without_a_datadir_it_is_the_one_of_the_user_and_the_network() {
    let (peer, hashes) = peer();
    let home = tempfile::tempdir().unwrap();
    let connect = peer.address().to_string();
    for (variable, below) in
        [("XDG_DATA_HOME", "headlong/regtest"), ("HOME", ".local/share/headlong/regtest")]
    {
        let done = Command::new(program())
            .args(["--network", "regtest", "--stop-at-height", "5", "--connect", &connect])
            .env_remove("XDG_DATA_HOME")
            .env(variable, home.path())
            .output()
            .unwrap();
        assert_eq!(text(&done.stdout), format!("reached 5 {}\n", hashes[5]));
        assert!(home.path().join(below).is_dir());
        assert!(text(&done.stderr).contains(below), "it is said: {}", text(&done.stderr));
    }
}

#[test]
fn a_fixed_clock_reaches_consensus_and_not_the_timers() {
    let (peer, hashes) = peer();
    let folder = tempfile::tempdir().unwrap();
    // A block is refused while its time is over two hours ahead, so the sync ends at the last that is not.
    let clock = u64::from(FIRST_TIME) + 600 * 100 - 7_200;
    let goal = ["--clock", &clock.to_string(), "--stop-at-height", "100"];
    let done = output(&peer, folder.path(), &goal);
    assert_eq!(text(&done.stdout), format!("reached 100 {}\n", hashes[100]));
    assert!(text(&done.stderr).contains("/100 "), "no header above 100: {}", text(&done.stderr));
}
