//! The `sync` example and a bitcoind race: both sync the same chain from the same serving bitcoind on loopback,
//! in turn (A B A B), every script executed on both sides, and must end with the same set of coins.
//!
//! ```sh
//! cargo build --release --example sync && cargo bench --bench race
//! cargo bench --bench race -- sigs small headers  # these profiles only
//! ```
//!
//! The bitcoind is found as in the interop tests (`BITCOIND_EXE`, on PATH, or fetched). In the environment:
//! `ROUNDS` (5 pairs), `THREADS` (2), `DBCACHE` in MiB (450; for `utxo` 1,000, more than its coins take), `STORE` (of
//! the example: sled; several, as in `STORE=sled,fjall`, are tried in turn beside one bitcoind; `headers` takes the first),
//! `SCALE` (1; 10 makes chains of a tenth). The chains are forged once and kept with the serving node in the target folder.
//!
//! Seconds are those of a process from its start until its tip is connected, for headlong also durable. The other
//! figures are those that the system holds about the process at that moment. In `headers`, a million of them, the tip is
//! that of the headers: a peer in this process has them, and no blocks.
//!
//! In `links` the chain of `sigs` comes from four serving bitcoinds over links of 100 ms with one packet of a hundred lost: one of
//! 20 Mbit/s among three of 1 Mbit/s, then one of 20 Mbit/s among three that carry nothing any more after 200 kB. Who makes
//! the links, `tc netem` or relays, the output says ([`links`]). A bitcoind that takes `PATIENCE` (10) times as long as
//! headlong is not waited for: one that all of its blocks are asked of, and that stalls, it leaves after ten minutes and more.
//!
//! bitcoind's checks of itself, which regtest turns on and no user has, are off.

mod arguments;
#[path = "../../tests/interop/bitcoind.rs"]
mod bitcoind;
mod headers;
mod links;
mod meter;
mod profile;

use arguments::{is_chosen, number};
use bitcoind::{Bitcoind, available};
use headers::{HeaderChain, HeaderServer};
use headlong::limits::MAX_HEADERS;
use headlong::{Network, Params};
use meter::{Figures, figures};
use profile::Profile;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time of the first block of each chain: the same chain on every day.
const FIRST_TIME: u32 = 1_700_000_000;
/// Chains of long ago are served, too. (Who syncs is not told so: its initial download would be over at once.)
const OLD_TIP: &str = "-maxtipage=1000000000";
/// Regtest's checks of the whole index and the mempool after each block.
const NO_SELF_CHECKS: [&str; 2] = ["-checkblockindex=0", "-checkmempool=0"];
/// As the example, which is told `--v1`: what is raced is not the encryption.
const IN_THE_CLEAR: &str = "-v2transport=0";
/// Headers of the profile `headers`, in all.
const HEADERS: u32 = 1_000_000;

/// What a bitcoind is told that serves.
const SERVING: [&str; 6] =
    ["-par=2", "-dbcache=1000", OLD_TIP, IN_THE_CLEAR, NO_SELF_CHECKS[0], NO_SELF_CHECKS[1]];

type Figure = fn(&Figures) -> f64;

/// What the ratios are of.
const COMPARED: [(&str, Figure); 4] = [
    ("seconds", |figures| figures.seconds),
    ("CPU seconds", |figures| figures.cpu_seconds),
    ("peak memory", |figures| figures.peak_mib),
    ("bytes written", |figures| figures.written_mib),
];

/// What both sides are given.
struct Terms {
    threads: String,
    dbcache: String,
    stores: Vec<String>,
    /// In `links`, how many times our time bitcoind is given.
    patience: f64,
}

/// What both sides must reach.
struct Goal {
    height: u32,
    tip: String,
    coins: (String, String, u64),
}

impl Goal {
    /// What this one has.
    fn of(server: &Bitcoind) -> Self {
        let height = server.call("getblockcount", json!([])).as_u64().expect("a height") as u32;
        Self { height, tip: server.tip(), coins: server.coins() }
    }
}

fn main() {
    if links::answer_trial() || !available() {
        return;
    }
    let terms = |dbcache: u32| Terms {
        threads: number("THREADS", 2).to_string(),
        dbcache: number("DBCACHE", dbcache).to_string(),
        stores: std::env::var("STORE")
            .map_or_else(|_| vec!["sled".into()], |all| all.split(',').map(str::to_owned).collect()),
        patience: number("PATIENCE", 10.0),
    };
    let (example, rounds, scale) = (example(), number("ROUNDS", 5), number::<u32>("SCALE", 1).max(1));
    for profile in Profile::ALL {
        if is_chosen(profile.name()) {
            race(&example, profile, &terms(profile.dbcache()), rounds, scale);
        }
    }
    if is_chosen("headers") {
        // Whole messages, so that whoever has the last asks for more.
        race_headers(&example, &terms(450), rounds, (HEADERS / scale).next_multiple_of(MAX_HEADERS as u32));
    }
    if is_chosen("links") {
        links::race(&example, &terms(450), rounds, scale);
    }
}

fn race(example: &Path, profile: Profile, terms: &Terms, rounds: u32, scale: u32) {
    let server = serve(profile, scale);
    let goal = Goal::of(&server);
    let Terms { threads, dbcache, stores, .. } = terms;
    let (name, height, coins) = (profile.name(), goal.height, goal.coins.2);
    println!("{name}: {height} blocks, {coins} coins, {threads} threads, {dbcache} MiB");
    let mut pairs: Vec<Vec<_>> = stores.iter().map(|_| Vec::new()).collect();
    for round in 1..=rounds {
        let ours = stores.iter().map(|store| {
            let ours = headlong(example, &[server.p2p()], &goal, terms, store);
            println!("{name} {round}: headlong, {store} {ours}");
            ours
        });
        let ours: Vec<Figures> = ours.collect();
        let theirs = other_bitcoind(&[server.p2p()], &goal, terms, None).expect("it takes its time");
        println!("{name} {round}: bitcoind {theirs}");
        pairs.iter_mut().zip(ours).for_each(|(pairs, ours)| pairs.push((ours, theirs)));
    }
    for (store, pairs) in stores.iter().zip(&pairs) {
        print_ratios(&format!("{name}, {store}"), pairs);
    }
}

fn race_headers(example: &Path, terms: &Terms, rounds: u32, count: u32) {
    let chain = Arc::new(HeaderChain::forge(count as usize));
    println!("headers: {count}, {} threads", terms.threads);
    let report = |round, who: &str, figures: &Figures, asking: Duration| {
        let rate = f64::from(count) / asking.as_secs_f64();
        println!("headers {round}: {who} {figures}; from the first request on {rate:.0} a second");
    };
    let mut pairs = Vec::new();
    for round in 1..=rounds {
        let (server, folder) = (HeaderServer::start(chain.clone()), tempfile::tempdir().expect("a folder"));
        let begun = Instant::now();
        let child =
            Running::start(&mut sync(example, &[server.address], folder.path(), terms, &terms.stores[0]));
        let asking = server.wait_for_all();
        let ours = figures(child.0.id(), begun.elapsed());
        report(round, "headlong", &ours, asking);
        drop(child);

        let server = HeaderServer::start(chain.clone());
        let begun = Instant::now();
        let node = start_bitcoind(&[server.address], terms);
        let asking = server.wait_for_all();
        let theirs = figures(node.id(), begun.elapsed());
        report(round, "bitcoind", &theirs, asking);
        pairs.push((ours, theirs));
    }
    print_ratios("headers", &pairs);
}

fn print_ratios(name: &str, pairs: &[(Figures, Figures)]) {
    for (what, figure) in COMPARED {
        // A disk in memory is written nothing to.
        if pairs.iter().any(|(ours, _)| figure(ours) == 0.0) {
            continue;
        }
        let mut ratios: Vec<f64> = pairs.iter().map(|(ours, theirs)| figure(theirs) / figure(ours)).collect();
        ratios.sort_by(f64::total_cmp);
        let [least, median, most] = [0, ratios.len() / 2, ratios.len() - 1].map(|at| ratios[at]);
        println!("{name}: bitcoind's {what} by ours: median {median:.2} ({least:.2} to {most:.2})");
    }
}

/// A bitcoind that has the profile's chain, which is forged if it was not before.
fn serve(profile: Profile, scale: u32) -> Bitcoind {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("race/{}-{scale}", profile.name()));
    let done = folder.join("forged");
    if !done.is_file() {
        let _ = std::fs::remove_dir_all(&folder);
    }
    std::fs::create_dir_all(&folder).expect("a folder for the serving node");
    let mut server = Bitcoind::start_in(&folder, &SERVING);
    if !done.is_file() {
        let begun = Instant::now();
        let params = Arc::new(Params::new(Network::Regtest));
        let size = profile.forge(&params, FIRST_TIME, scale, |block| {
            server.submit(core::slice::from_ref(block));
        });
        println!("{}: forged {size:?} in {:.0} s", profile.name(), begun.elapsed().as_secs_f64());
        // Written out in an orderly way, so that the next start is a quick one.
        server.restart(|| ());
        std::fs::write(done, format!("{size:?}\n")).expect("a file for the note");
    }
    server
}

/// The built example, which lies beside this program's folder.
fn example() -> PathBuf {
    let own = std::env::current_exe().expect("a path");
    let path = own.ancestors().nth(2).expect("a target folder").join("examples/sync");
    assert!(path.is_file(), "build it first: cargo build --release --example sync");
    path
}

/// The example, syncing from these addresses.
fn sync(example: &Path, from: &[SocketAddr], folder: &Path, terms: &Terms, store: &str) -> Command {
    let mut command = Command::new(example);
    command
        .args(["--network", "regtest", "--assumevalid", "none", "--v1"])
        .args(["--threads", &terms.threads, "--dbcache", &terms.dbcache, "--store", store])
        .args(from.iter().flat_map(|address| ["--connect".to_owned(), address.to_string()]))
        .arg("--datadir")
        .arg(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// A process that is killed with this value, if it has not ended.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.spawn().expect("the example starts"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A sync by the example.
fn headlong(example: &Path, from: &[SocketAddr], goal: &Goal, terms: &Terms, store: &str) -> Figures {
    let folder = tempfile::tempdir().expect("a folder");
    let begun = Instant::now();
    let mut command = sync(example, from, folder.path(), terms, store);
    let mut child =
        Running::start(command.args(["--utxo-hash", "--stop-at-height", &goal.height.to_string()]));
    let mut lines = BufReader::new(child.0.stdout.take().expect("piped")).lines();
    let mut line = || lines.next().expect("a line").expect("text");
    assert_eq!(line(), format!("reached {} {}", goal.height, goal.tip));
    let figures = figures(child.0.id(), begun.elapsed());
    let stats: Value = serde_json::from_str(&line()).expect("the line of --utxo-hash");
    assert_eq!(stats["hash_serialized_3"], goal.coins.0.as_str());
    assert_eq!(stats["muhash"], goal.coins.1.as_str());
    assert!(child.0.wait().expect("it ends").success());
    figures
}

/// Another bitcoind, syncing from these addresses.
fn start_bitcoind(from: &[SocketAddr], terms: &Terms) -> Bitcoind {
    let connect: Vec<String> = from.iter().map(|address| format!("-connect={address}")).collect();
    let (par, dbcache) = (format!("-par={}", terms.threads), format!("-dbcache={}", terms.dbcache));
    let mut options = vec![&par[..], &dbcache, "-assumevalid=0", "-blocksonly", IN_THE_CLEAR];
    options.extend(connect.iter().map(String::as_str));
    options.extend(NO_SELF_CHECKS);
    Bitcoind::start(&options)
}

/// A sync by another bitcoind; `None` if it is not done in that time.
fn other_bitcoind(
    from: &[SocketAddr],
    goal: &Goal,
    terms: &Terms,
    patience: Option<Duration>,
) -> Option<Figures> {
    let begun = Instant::now();
    let node = start_bitcoind(from, terms);
    while node.call("getblockcount", json!([])) != goal.height {
        if patience.is_some_and(|patience| begun.elapsed() >= patience) {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let figures = figures(node.id(), begun.elapsed());
    assert_eq!(node.coins(), goal.coins);
    Some(figures)
}
