//! Follows a Bitcoin network with full validation; with no arguments, a generated one.
//!
//! `cargo run --release --example sync` · see `examples/README.md` for what it prints.

mod demo;
mod display;
#[path = "../options/mod.rs"]
mod network;
mod options;
mod peers;

use display::{Display, print_line};
use headlong::store::datadir;
use headlong::{BlockRef, Builder, Handle, MemoryStore, Node, Profile, Stage};
use network::FixedClock;
use options::{Invocation, NodeOptions, Options, StoreKind};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How often the status is looked at.
const TICK: Duration = Duration::from_millis(50);
/// When the peers are shown first, and how often after that.
const TABLE_FIRST: Duration = Duration::from_secs(2);
const TABLE_EVERY: Duration = Duration::from_secs(10);

/// The system's allocator does the same work more slowly, and keeps much of what threads gave back: a node takes many
/// small pieces on one thread and returns them on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn Error + Send + Sync>;

/// What the program that uses this one changes about the node.
type Change = fn(Builder) -> Builder;

fn main() -> ExitCode {
    with(|builder| builder)
}

/// The whole program; `crates/headlong-kernel` has it with another verifier.
pub fn with(change: Change) -> ExitCode {
    let done = match options::parse() {
        Ok(Invocation::Help) => {
            print!("{}", options::help());
            Ok(())
        }
        Ok(Invocation::Demo) => demo::run_demo(change),
        Ok(Invocation::Sync(options)) => sync(&options, change),
        Err(error) => {
            eprintln!("sync: {error}; --help tells the options");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sync: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What happened to a run.
enum Happened {
    /// A signal asked for the end.
    Signal,
    /// `run()` returned.
    Ended(Result<(), Failure>),
}

fn sync(options: &Options, change: Change) -> Result<(), Failure> {
    let params = options.network.params()?;
    let folder = match &options.datadir {
        Some(folder) => folder.clone(),
        None => datadir::default_datadir(&params.network.to_string())
            .ok_or("no data folder for this user: give --datadir")?,
    };
    let mut builder = Builder::with_params(params);
    builder = match options.store {
        StoreKind::Disk(backend) => {
            eprintln!("data folder: {}", folder.display());
            builder.datadir(&folder).backend(backend)
        }
        StoreKind::Memory => builder.store(MemoryStore::new()),
    };
    for peer in &options.connect {
        builder = builder.connect(peer.clone());
    }
    builder = with_nodes(builder, &options.nodes);
    if let Some(unix) = options.network.clock {
        builder = builder.clock(FixedClock::new(unix));
    }
    if let Some(mebibytes) = options.dbcache_mib {
        builder = builder.dbcache(mebibytes.saturating_mul(1 << 20));
    }
    if let Some(mebibytes) = options.memory_mib {
        builder = builder.memory(mebibytes.saturating_mul(1 << 20));
    }
    if let Some(kilobytes) = options.bandwidth_kb {
        builder = builder.bandwidth((kilobytes as u64).saturating_mul(1_000));
    }
    if let Some(mebibytes) = options.prune_mib {
        builder = builder.prune(mebibytes);
    }
    if let Some(threads) = options.threads {
        builder = builder.threads(threads);
    }
    if let Some(height) = options.stop_at_height {
        builder = builder.stop_at_height(height);
    }
    let (node, handle) = change(builder).build()?;
    let goal = Goal { height: options.stop_at_height, synced: false, utxo_hash: options.utxo_hash };
    run(node, &handle, goal, Shown { json: options.json, peers: options.peers })
}

fn with_nodes(mut builder: Builder, nodes: &NodeOptions) -> Builder {
    if nodes.metered {
        builder = builder.profile(Profile::Metered);
    }
    if let Some(megabytes) = nodes.daily_mb {
        builder = builder.daily_bytes(megabytes.saturating_mul(1_000_000));
    }
    if let Some(kilobytes) = nodes.upload_kb {
        builder = builder.upload_rate(kilobytes.saturating_mul(1_000));
    }
    for peer in &nodes.added {
        builder = builder.add_node(peer.clone());
    }
    for url in &nodes.http {
        builder = builder.http_source(url.clone());
    }
    for address in &nodes.listen {
        builder = builder.listen(*address);
    }
    if let Some(megabytes) = nodes.upload_mb {
        builder = builder.upload_budget(megabytes.saturating_mul(1_000_000));
    }
    if let Some(address) = &nodes.external {
        builder = builder.external_address(address.clone());
    }
    // Left alone, defaults hold; a server or UPnP behind a proxy is refused by the builder.
    builder = builder.map_ports(!nodes.no_map).upnp(nodes.upnp).stun_servers(nodes.stun.iter().cloned());
    if let Some(proxy) = nodes.proxy {
        builder = builder.proxy(proxy);
    }
    if let Some(proxy) = nodes.onion_proxy {
        builder = builder.onion_proxy(proxy);
    }
    if !nodes.networks.is_empty() {
        builder = builder.networks(nodes.networks.iter().copied());
    }
    builder.encrypt(!nodes.in_the_clear)
}

/// What is shown besides progress.
#[derive(Clone, Copy, Default)]
struct Shown {
    json: bool,
    peers: bool,
}

/// When a run is over, and what it says then.
struct Goal {
    height: Option<u32>,
    synced: bool,
    utxo_hash: bool,
}

/// Runs a node to its goal or to a signal, then shuts it down.
fn run(node: Node, handle: &Handle, goal: Goal, shown: Shown) -> Result<(), Failure> {
    let (sender, happened) = channel();
    let signals = sender.clone();
    // A second run in one process (the demonstration has one) keeps the first handler.
    let _ = ctrlc::set_handler(move || drop(signals.send(Happened::Signal)));
    let thread = std::thread::Builder::new().name("node".into()).spawn(move || {
        let result = node.run_blocking().map(drop).map_err(Failure::from);
        let _ = sender.send(Happened::Ended(result));
    })?;
    let mut display = Display::new(shown.json);
    let ended = follow(handle, &goal, &happened, &mut display, shown.peers)?;
    if ended.is_none() {
        if goal.utxo_hash {
            let line = showing(handle, &mut display, || utxo_line(handle))??;
            print_line(&line)?;
        }
        let durable = showing(handle, &mut display, || handle.shutdown_blocking())??;
        display.finish(&handle.status())?;
        eprintln!("stopped; durable tip {} {}", durable.height, durable.hash);
        if let Some(line) = display::estimates(&handle.status()) {
            eprintln!("{line}");
        }
    }
    let result = match ended {
        Some(result) => result,
        None => loop {
            if let Happened::Ended(result) = happened.recv()? {
                break result;
            }
        },
    };
    let _ = thread.join();
    result
}

/// Does something long while progress goes on being shown.
fn showing<T: Send>(
    handle: &Handle,
    display: &mut Display,
    work: impl FnOnce() -> T + Send,
) -> Result<T, Failure> {
    std::thread::scope(|scope| {
        let working = scope.spawn(work);
        while !working.is_finished() {
            display.update(&handle.status())?;
            std::thread::sleep(TICK);
        }
        working.join().map_err(|_| "a panic".into())
    })
}

/// Shows progress until the goal is reached or a signal comes (`None`), or the node ended by itself.
fn follow(
    handle: &Handle,
    goal: &Goal,
    happened: &Receiver<Happened>,
    display: &mut Display,
    peers: bool,
) -> Result<Option<Result<(), Failure>>, Failure> {
    let mut next_table = Instant::now() + TABLE_FIRST;
    loop {
        match happened.recv_timeout(TICK) {
            Ok(Happened::Signal) => return Ok(None),
            Ok(Happened::Ended(result)) => return Ok(Some(result)),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        let status = handle.status();
        display.update(&status)?;
        if peers && next_table <= Instant::now() {
            next_table = Instant::now() + TABLE_EVERY;
            // A node that ends meanwhile says why by itself.
            if let Ok(table) = peers::table(handle) {
                display.show(&table);
            }
        }
        if let Some(block) = reached(handle, goal, status.durable)? {
            print_line(&format!("reached {} {}", block.height, block.hash))?;
            return Ok(None);
        }
        if goal.synced && status.stage == Stage::Synced && status.durable == status.best_header {
            return Ok(None);
        }
    }
}

/// The active block at the goal's height, once it is durable.
fn reached(handle: &Handle, goal: &Goal, durable: BlockRef) -> Result<Option<BlockRef>, Failure> {
    match goal.height {
        Some(height) if height == durable.height => Ok(Some(durable)),
        // In the middle of a reorganisation the tip may lie below for a moment.
        Some(height) if height < durable.height => {
            Ok(handle.header_at_blocking(height)?.value.map(|header| header.block))
        }
        _ => Ok(None),
    }
}

/// The same line as `validate --utxo-hash` ends with.
fn utxo_line(handle: &Handle) -> Result<String, Failure> {
    let stats = handle.utxo_stats_blocking()?;
    Ok(serde_json::json!({
        "hash_serialized_3": stats.value.hash_serialized_3.to_string(),
        "muhash": network::display_hex(stats.value.muhash),
        "txouts": stats.value.txouts,
        "total_amount_sat": stats.value.total_amount_sat,
        "tip": stats.tip.hash.to_string(),
        "height": stats.tip.height,
    })
    .to_string())
}

/// Bytes of all files below a folder.
fn size_of(folder: &Path) -> u64 {
    let mut folders: Vec<PathBuf> = vec![folder.into()];
    let mut bytes = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(data) if data.is_dir() => folders.push(entry.path()),
                Ok(data) => bytes += data.len(),
                Err(_) => {}
            }
        }
    }
    bytes
}
