//! The command line of `sync`.

use super::network::{HELP as NETWORK_HELP, NetworkOptions};
use headlong::store::backend::UnknownBackend;
use headlong::{AddressNetwork, PeerAddress, SourceUrl, StoreBackend};
use lexopt::{Arg, Parser, ValueExt};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Which store holds the coins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// On disk.
    Disk(StoreBackend),
    /// In memory, for experiments: everything is lost at the end.
    Memory,
}

/// What the user asked for.
#[derive(Debug)]
pub struct Options {
    pub network: NetworkOptions,
    pub connect: Vec<PeerAddress>,
    pub datadir: Option<PathBuf>,
    pub dbcache_mib: Option<usize>,
    pub prune_mib: Option<u64>,
    pub threads: Option<usize>,
    pub memory_mib: Option<usize>,
    pub bandwidth_kb: Option<usize>,
    pub store: StoreKind,
    pub stop_at_height: Option<u32>,
    pub utxo_hash: bool,
    pub json: bool,
    pub peers: bool,
    pub nodes: NodeOptions,
}

/// Peers, and what goes to them.
#[derive(Debug, Default)]
pub struct NodeOptions {
    pub added: Vec<PeerAddress>,
    pub http: Vec<SourceUrl>,
    pub listen: Vec<SocketAddr>,
    pub upload_mb: Option<u64>,
    pub upload_kb: Option<u64>,
    pub metered: bool,
    pub daily_mb: Option<u64>,
    pub external: Option<PeerAddress>,
    pub no_map: bool,
    pub upnp: bool,
    pub stun: Vec<PeerAddress>,
    pub proxy: Option<SocketAddr>,
    pub onion_proxy: Option<SocketAddr>,
    pub networks: Vec<AddressNetwork>,
    pub in_the_clear: bool,
}

/// What to do.
pub enum Invocation {
    /// No arguments: the demonstration.
    Demo,
    /// A real sync.
    Sync(Box<Options>),
    /// Print the help.
    Help,
}

/// The text of `--help`.
pub fn help() -> String {
    format!(
        "sync: follows a Bitcoin network, fully validating

With no arguments it syncs a generated chain from peers inside this process. Options:
{NETWORK_HELP}
  --connect HOST:PORT        sync from this peer only, reconnecting for ever (repeatable); without it: DNS seeds
  --addnode HOST:PORT        keep this peer connected besides others (repeatable)
  --http URL                 take blocks from this bitcoind's REST interface, too: http://HOST[:PORT][/PATH] (repeatable)
  --listen IP:PORT           accept peers there, and serve headers, blocks and addresses (repeatable)
  --upload MB                megabytes a day after which no blocks older than a week are served
  --upload-rate KB           kilobytes a second that are sent at most, at least 16
  --metered                  few peers, no old blocks to others: for a link that is paid for by the byte
  --daily MB                 megabytes a day, both ways, after which no blocks are fetched
  --external HOST:PORT       an address of this node that others reach, to be told to peers
  --no-map                   do not ask the gateway (PCP, NAT-PMP) to let peers in
  --upnp                     ask it by UPnP, too
  --stun HOST:PORT           ask this server what address it sees, if no gateway helps (repeatable)
  --proxy IP:PORT            connect through this SOCKS5 proxy only; it resolves names, too
  --onion-proxy IP:PORT      connect to onion addresses through this SOCKS5 proxy
  --only-net NETWORK         dial only ipv4, ipv6, onion, i2p or cjdns of our own accord (repeatable)
  --v1                       no encrypted connections
  --peers                    show a table of the peers every ten seconds
  --datadir DIR              where everything is kept (default: headlong/NETWORK in the user's data folder)
  --dbcache MB               memory for coins, in MiB (default 450)
  --memory MB                memory of the whole process without its headers, in MiB, at least 192, with sled 320
  --bandwidth KB             kilobytes a second that are received at most, at least 16
  --prune MB                 delete old blocks, so that block files stay within so many MiB (at least 550)
  --threads N                threads that check blocks and scripts (default: the cores)
  --store sled|fjall|memory  where coins are kept (default sled); memory keeps everything in memory
  --stop-at-height H         stop once the block at height H is connected and durable
  --utxo-hash                before the end, print hashes of the set of coins as one JSON line on stdout
  --status json              print one JSON object a second on stdout
"
    )
}

impl Options {
    fn new() -> Self {
        Self {
            network: NetworkOptions::default(),
            connect: Vec::new(),
            datadir: None,
            dbcache_mib: None,
            prune_mib: None,
            threads: None,
            memory_mib: None,
            bandwidth_kb: None,
            store: StoreKind::Disk(StoreBackend::Sled),
            stop_at_height: None,
            utxo_hash: false,
            json: false,
            peers: false,
            nodes: NodeOptions::default(),
        }
    }
}

/// Reads the command line.
///
/// # Errors
/// What is wrong with it.
pub fn parse() -> Result<Invocation, lexopt::Error> {
    let mut parser = Parser::from_env();
    let mut options = Options::new();
    let mut any = false;
    while let Some(argument) = parser.next()? {
        any = true;
        let Arg::Long(name) = argument else { return Err(argument.unexpected()) };
        let name = name.to_owned();
        if options.network.take(&name, &mut parser)? {
            continue;
        }
        match name.as_str() {
            "help" => return Ok(Invocation::Help),
            "connect" => options.connect.push(parser.value()?.parse()?),
            "addnode" => options.nodes.added.push(parser.value()?.parse()?),
            "http" => options.nodes.http.push(parser.value()?.parse()?),
            "listen" => options.nodes.listen.push(parser.value()?.parse()?),
            "upload" => options.nodes.upload_mb = Some(parser.value()?.parse()?),
            "upload-rate" => options.nodes.upload_kb = Some(parser.value()?.parse()?),
            "metered" => options.nodes.metered = true,
            "daily" => options.nodes.daily_mb = Some(parser.value()?.parse()?),
            "external" => options.nodes.external = Some(parser.value()?.parse()?),
            "no-map" => options.nodes.no_map = true,
            "upnp" => options.nodes.upnp = true,
            "stun" => options.nodes.stun.push(parser.value()?.parse()?),
            "proxy" => options.nodes.proxy = Some(parser.value()?.parse()?),
            "onion-proxy" => options.nodes.onion_proxy = Some(parser.value()?.parse()?),
            "only-net" => options.nodes.networks.push(parser.value()?.parse()?),
            "v1" => options.nodes.in_the_clear = true,
            "peers" => options.peers = true,
            "datadir" => options.datadir = Some(parser.value()?.into()),
            "dbcache" => options.dbcache_mib = Some(parser.value()?.parse_with(positive)?),
            "memory" => options.memory_mib = Some(parser.value()?.parse_with(positive)?),
            "bandwidth" => options.bandwidth_kb = Some(parser.value()?.parse_with(positive)?),
            "prune" => options.prune_mib = Some(parser.value()?.parse()?),
            "threads" => options.threads = Some(parser.value()?.parse_with(positive)?),
            "store" => options.store = parser.value()?.parse_with(store)?,
            "stop-at-height" => options.stop_at_height = Some(parser.value()?.parse()?),
            "utxo-hash" => options.utxo_hash = true,
            "status" => options.json = parser.value()?.parse_with(json)?,
            _ => return Err(Arg::Long(&name).unexpected()),
        }
    }
    if !any {
        return Ok(Invocation::Demo);
    }
    options.network.params()?;
    Ok(Invocation::Sync(Box::new(options)))
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| format!("not a positive number: {text}"))
}

fn store(text: &str) -> Result<StoreKind, String> {
    match text {
        "memory" => Ok(StoreKind::Memory),
        name => name.parse().map(StoreKind::Disk).map_err(|error: UnknownBackend| error.to_string()),
    }
}

fn json(text: &str) -> Result<bool, String> {
    if text == "json" { Ok(true) } else { Err(format!("no such status format: {text}")) }
}
