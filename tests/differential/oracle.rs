//! A bitcoind that says of each block what it thinks of it, however the block came: by `submitblock`, or as
//! a message of a peer, of which its log tells the reason.

use crate::bitcoind::Bitcoind;
use bitcoin::BlockHash;
use bitcoin::consensus::serialize;
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::hex::DisplayHex;
use bitcoin::p2p::address::Address;
use bitcoin::p2p::message_network::VersionMessage;
use bitcoin::p2p::{Magic, ServiceFlags};
use serde_json::{Value, json};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Verdict and reason.
pub type Outcome = (&'static str, String);

/// What bitcoind said of a block, and its tip afterwards.
pub struct Said {
    pub outcome: Outcome,
    pub tip: String,
}

pub struct Oracle {
    pub node: Bitcoind,
    /// Its version as a number, 310000 for 31.0.
    pub version: u64,
    /// Whether it is Knots, which reads some headers in another way.
    pub knots: bool,
    peer: Option<TcpStream>,
}

/// A reason up to its details, in the words of Core 31.
pub fn word(reason: &str) -> String {
    let end = reason.find([' ', '(', ',', ')', '\n']).unwrap_or(reason.len());
    match &reason[..end] {
        "mandatory-script-verify-flag-failed" => "block-script-verify-flag-failed".into(),
        word => word.to_owned(),
    }
}

impl Oracle {
    pub fn start(options: &[&str]) -> Self {
        // A peer is neither sent away for its bad blocks nor for what the clock does meanwhile.
        let peer = ["-whitelist=noban@127.0.0.1", "-peertimeout=1000000000", "-debug=validation"];
        let checks = ["-checkblockindex=0", "-checkmempool=0"];
        let node = Bitcoind::start(&[options, &peer, &checks].concat());
        let info = node.call("getnetworkinfo", json!([]));
        let knots = info["subversion"].as_str().is_some_and(|name| name.contains("Knots"));
        let version = info["version"].as_u64().unwrap_or_default();
        Self { node, version, knots, peer: None }
    }

    pub fn set_clock(&self, clock: u32) {
        self.node.call("setmocktime", json!([clock]));
    }

    pub fn tip(&self) -> String {
        self.node.tip()
    }

    /// `submitblock`.
    pub fn submit(&self, hash: &BlockHash, bytes: &[u8]) -> Said {
        let [submitted, header, tip] = self.ask(&[
            ("submitblock", json!([bytes.to_lower_hex_string()])),
            ("getblockheader", json!([hash.to_string()])),
            ("getbestblockhash", json!([])),
        ]);
        let outcome = match submitted {
            // Connected at least once; a failure above it may have led back to the other branch.
            Ok(Value::Null) => (if is_active(&header) { "connected" } else { "side" }, String::new()),
            Ok(Value::String(text)) => match text.as_str() {
                // Stored. If a block below it failed only now, bitcoind does not tell it here.
                "inconclusive" if self.is_invalid(bytes) => ("rejected", "bad-prevblk".into()),
                "inconclusive" => ("side", String::new()),
                "duplicate" => ("duplicate", String::new()),
                reason => ("rejected", word(reason)),
            },
            Ok(other) => ("rejected", format!("answer {other}")),
            Err(error) if error.contains("Block decode failed") => ("rejected", "decode-failed".into()),
            Err(error) => ("rejected", error),
        };
        Said { outcome, tip: text(tip) }
    }

    /// The same as a peer's unasked message: for a new block on the tip.
    pub fn deliver(&mut self, hash: &BlockHash, bytes: &[u8]) -> Said {
        let log = self.node.folder().join("regtest/debug.log");
        let mut log = std::fs::File::open(log).expect("a log");
        log.seek(SeekFrom::End(0)).expect("a log");
        self.send(bytes).expect("a connection that stays");
        let mut said = String::new();
        log.read_to_string(&mut said).expect("a log of text");
        if said.contains("Block mutated: ") && said.contains("witness") {
            // A peer's body is looked at before its header is taken (`IsBlockMutated`), that of `submitblock`
            // only afterwards. The verdict is the same; here the header is made known as there.
            let header = bytes[..80].to_lower_hex_string();
            let _ = self.node.try_call("submitheader", &json!([header]));
        }
        let [header, tip] =
            self.ask(&[("getblockheader", json!([hash.to_string()])), ("getbestblockhash", json!([]))]);
        let failed = format!("ConnectBlock {hash} failed, ");
        let reason = ["Block mutated: ", "AcceptBlock FAILED (", &failed]
            .iter()
            .find_map(|words| said.split_once(*words).map(|(_, reason)| word(reason)));
        let outcome = match reason {
            Some(reason) => ("rejected", reason),
            None if is_active(&header) => ("connected", String::new()),
            None => ("ignored", said),
        };
        Said { outcome, tip: text(tip) }
    }

    fn ask<const N: usize>(&self, calls: &[(&str, Value); N]) -> [Result<Value, String>; N] {
        self.node.batch(calls).try_into().unwrap_or_else(|_| panic!("as many answers as calls"))
    }

    /// Whether bitcoind found a stored block, or one below it, invalid.
    fn is_invalid(&self, bytes: &[u8]) -> bool {
        // A known header changes nothing.
        let again = self.node.try_call("submitheader", &json!([bytes[..80].to_lower_hex_string()]));
        again.is_err_and(|error| error.contains("duplicate-invalid"))
    }

    /// Sends a block, and a ping behind it: what a peer sends is handled in order.
    fn send(&mut self, block: &[u8]) -> io::Result<()> {
        let mut stream = match self.peer.take() {
            Some(stream) => stream,
            None => handshake(self.node.p2p())?,
        };
        stream.write_all(&frame("block", block))?;
        stream.write_all(&frame("ping", &[7; 8]))?;
        while receive(&mut stream)?.0 != "pong" {}
        self.peer = Some(stream);
        Ok(())
    }
}

fn is_active(header: &Result<Value, String>) -> bool {
    header.as_ref().is_ok_and(|header| header["confirmations"].as_i64().is_some_and(|depth| depth > 0))
}

fn text(value: Result<Value, String>) -> String {
    value.ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// A peer that offers nothing and takes no part in the sync.
fn handshake(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let nobody = Address::new(&address, ServiceFlags::NONE);
    let version = VersionMessage {
        version: 70_016,
        services: ServiceFlags::NONE,
        timestamp: 0,
        receiver: nobody.clone(),
        sender: nobody,
        nonce: 1,
        user_agent: "/differential:0.1.0/".into(),
        start_height: 0,
        relay: false,
    };
    stream.write_all(&frame("version", &serialize(&version)))?;
    while receive(&mut stream)?.0 != "version" {}
    stream.write_all(&frame("verack", &[]))?;
    while receive(&mut stream)?.0 != "verack" {}
    Ok(stream)
}

fn frame(command: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Magic::REGTEST.to_bytes().to_vec();
    let mut name = [0; 12];
    name[..command.len()].copy_from_slice(command.as_bytes());
    bytes.extend(name);
    bytes.extend((payload.len() as u32).to_le_bytes());
    bytes.extend(&sha256d::Hash::hash(payload).to_byte_array()[..4]);
    bytes.extend(payload);
    bytes
}

fn receive(stream: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut head = [0; 24];
    stream.read_exact(&mut head)?;
    let name = String::from_utf8_lossy(&head[4..16]).trim_end_matches('\0').to_owned();
    let len = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
    let mut payload = vec![0; len as usize];
    stream.read_exact(&mut payload)?;
    Ok((name, payload))
}
