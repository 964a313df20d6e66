//! From the REST interface of a real bitcoind: alone, beside a peer, and behind nginx.

use super::{PATIENCE, Sync, extend, forge};
use crate::bitcoind::{Bitcoind, available, fetch_program};
use headlong::{Builder, ConnectionKind, MemoryStore, Network, PeerAddress, PeerStatus};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn builder() -> Builder {
    let builder = Builder::new(Network::Regtest).threads(2).store(MemoryStore::new());
    builder.source_interval(Duration::from_millis(200))
}

fn source(address: SocketAddr) -> PeerAddress {
    format!("http://{address}").parse().expect("an address")
}

fn peer_of(sync: &Sync, kind: ConnectionKind) -> PeerStatus {
    let peers = sync.handle.peers_blocking().expect("peers");
    peers.into_iter().find(|peer| peer.kind == kind).expect("it is connected")
}

#[test]
fn a_bitcoind_with_rest_is_enough_and_is_followed_through_a_reorganisation() {
    if !available() {
        return;
    }
    let (mut forge, mut branch) = forge(51, 320);
    let node = Bitcoind::start(&["-rest=1"]);
    node.submit(&extend(&mut forge, &mut branch, 300, 10));
    let sync = Sync::run(builder().connect(source(node.rest())));
    sync.reach(&node.tip());
    sync.assert_same_coins(&node);
    let mut other = branch.clone();
    node.submit(&extend(&mut forge, &mut branch, 3, 6));
    sync.reach(&node.tip());
    node.submit(&extend(&mut forge, &mut other, 5, 6));
    assert_eq!(node.tip(), other.tip.hash.to_string());
    sync.reach(&node.tip());
    sync.assert_same_coins(&node);
    let counts = sync.handle.status().connections;
    assert!(counts.reused > 250 && counts.opened < 20, "{counts:?}");
    sync.stop();
}

/// A chain of more headers than one answer has, so that the second answer is of a length of its own.
#[test]
fn headers_beyond_one_answer_come_over_rest() {
    if !available() {
        return;
    }
    let (mut forge, mut branch) = forge(52, 2_200);
    let node = Bitcoind::start(&["-rest=1"]);
    node.submit(&extend(&mut forge, &mut branch, 2_120, 0));
    let sync = Sync::run(builder().connect(source(node.rest())));
    sync.reach(&node.tip());
    sync.stop();
}

#[test]
fn a_source_and_a_peer_both_give_blocks_of_one_sync() {
    if !available() {
        return;
    }
    let (mut forge, mut branch) = forge(53, 500);
    let nodes = super::nodes_with(&["-rest=1"], 2, &extend(&mut forge, &mut branch, 500, 16));
    let sync = Sync::run(builder().connect(source(nodes[0].rest())).connect(nodes[1].p2p()));
    sync.reach(&nodes[0].tip());
    sync.assert_same_coins(&nodes[0]);
    for kind in [ConnectionKind::Source, ConnectionKind::Manual] {
        let peer = peer_of(&sync, kind);
        assert!(peer.bytes_in > 500 * 81 + 50_000, "it gave blocks: {peer:?}");
    }
    sync.stop();
}

/// Without the option, bitcoind knows no such path.
#[test]
fn a_bitcoind_without_rest_is_told_in_words() {
    if !available() {
        return;
    }
    let node = Bitcoind::start(&[]);
    let sync = Sync::run(builder().connect(source(node.rest())));
    let begun = Instant::now();
    let trouble = loop {
        if let Some(trouble) = sync.handle.status().trouble {
            break trouble;
        }
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(trouble.contains("-rest=1"), "{trouble}");
    sync.stop();
}

/// nginx in front of a bitcoind, which packs what it passes on.
struct Nginx {
    child: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Nginx {
    /// `None` if it can't be had; in CI that is a failure.
    fn start(upstream: SocketAddr) -> Option<Self> {
        let Some(program) = Self::program() else {
            eprintln!("\n**** SKIPPED: no nginx ****\n");
            assert!(std::env::var_os("CI").is_none(), "no nginx in CI");
            return None;
        };
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("nginx.conf"), configuration(address, upstream)).unwrap();
        let child = Command::new(program)
            .args(["-p", folder.path().to_str().unwrap(), "-c", "nginx.conf", "-e", "error.log"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx starts");
        let server = Self { child, address, folder };
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            let log = std::fs::read_to_string(server.folder.path().join("error.log"));
            assert!(begun.elapsed() < PATIENCE, "nginx does not answer: {log:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(server)
    }

    fn program() -> Option<PathBuf> {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let on_path = std::env::split_paths(&paths)
            .chain(["/usr/sbin".into()])
            .map(|folder| folder.join("nginx"))
            .find(|path| path.is_file());
        on_path.or_else(|| fetch_program("nginx"))
    }

    /// A line for each request: path, status, bytes sent, coding.
    fn log(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.path().join("access.log")).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One process, so that none is left when it is killed.
fn configuration(address: SocketAddr, upstream: SocketAddr) -> String {
    let folders = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let folders: String = folders.iter().map(|name| format!("  {name}_temp_path tmp_{name};\n")).collect();
    format!(
        "daemon off;\nmaster_process off;\npid nginx.pid;\nevents {{ }}\nhttp {{\n{folders}\
         log_format requests '$request_uri $status $bytes_sent \"$sent_http_content_encoding\"';\n\
         access_log access.log requests;\n\
         gzip on;\n gzip_types application/octet-stream application/json;\n gzip_proxied any;\n gzip_vary on;\n\
         server {{\n listen {address};\n location /btc/ {{\n proxy_pass http://{upstream}/;\n \
         proxy_http_version 1.1;\n proxy_set_header Connection '';\n }}\n }}\n}}\n"
    )
}

#[test]
fn nginx_in_front_packs_and_moves_the_path() {
    if !available() {
        return;
    }
    let (mut forge, mut branch) = forge(54, 160);
    let node = Bitcoind::start(&["-rest=1"]);
    node.submit(&extend(&mut forge, &mut branch, 150, 40));
    let Some(nginx) = Nginx::start(node.rest()) else { return };
    let url = format!("http://{}/btc", nginx.address);
    let sync = Sync::run(builder().connect(url.parse::<PeerAddress>().unwrap()));
    sync.reach(&node.tip());
    sync.assert_same_coins(&node);
    let blocks: usize = {
        let log = nginx.log();
        let blocks = log.iter().filter(|line| line.starts_with("/btc/rest/block/"));
        blocks.filter(|line| line.contains(" 200 ") && line.ends_with("\"gzip\"")).count()
    };
    assert!(blocks >= 150, "blocks come packed: {:?}", nginx.log());
    let counts = sync.handle.status().connections;
    assert!(counts.opened < 40, "connections to nginx are kept: {counts:?}");
    sync.stop();
    // What the recorded answers of the unit tests are like.
    let mut stream = TcpStream::connect(nginx.address).unwrap();
    let path = format!("/btc/rest/block/{}.bin", node.tip());
    write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(400)]).to_ascii_lowercase();
    assert!(head.contains("transfer-encoding: chunked") && head.contains("content-encoding: gzip"), "{head}");
}
