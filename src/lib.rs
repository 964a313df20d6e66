//! headlong syncs a Bitcoin node inside your program: it finds peers, fetches headers and blocks from many
//! of them at once, validates everything, and keeps the set of unspent outputs crash-safe in a store of your
//! choice. It runs on any async executor, or on none.
//!
//! # The smallest program
//! ```no_run
//! # #[cfg(all(feature = "native", feature = "consensus", feature = "sled"))]
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let (node, handle) = headlong::Builder::new(headlong::Network::Signet).datadir("signet").build()?;
//!     let running = std::thread::spawn(|| node.run_blocking());
//!     let tip = handle.wait_synced_blocking()?;
//!     println!("synced to {} at height {}", tip.hash, tip.height);
//!     handle.shutdown_blocking()?;
//!     running.join().unwrap()?;
//!     Ok(())
//! }
//! # #[cfg(not(all(feature = "native", feature = "consensus", feature = "sled")))]
//! # fn main() {}
//! ```
//!
//! In an async program spawn [`Node::run`] on your executor instead, and give the builder an [`Executor`]
//! and a [`Transport`] of your runtime (`examples/tokio_host.rs`, `examples/smol_host.rs`) or leave the
//! default ones, which work beside any runtime.
//!
//! # What you hold
//! - [`Builder`]: the network, where things are kept, which peers, and the edges you want to provide.
//! - [`Node`]: the machine before it runs. [`Node::run`] ends with the durable tip or with an error; a panic
//!   of any of its threads is such an error. Dropping the future at any await is safe.
//! - [`Handle`]: cloneable; headers, blocks, coins, peers, status, waits, shutdown. Each method has a blocking
//!   form, and each request ends: with a result, a typed error or at a deadline. Answers say at which block
//!   they are true ([`At`]).
//! - [`Events`]: `Apply` and `Undo` of the *durable* chain, from the cursor you saved.
//!
//! # Features
//! | feature | default | what it adds |
//! | --- | --- | --- |
//! | `consensus` | yes | scripts through Bitcoin Core's own code (needs a C++ compiler); without it the host brings a [`Verifier`] |
//! | `sled` | yes | [`SledStore`], an embedded store |
//! | `fjall` | no | `FjallStore`, a log-structured store for full nodes (needs Rust 1.90) |
//! | `native` | yes | a transport, timers and an executor that need no runtime, and [`Node::run_blocking`] |
//! | `socks5` | yes | connections through a SOCKS5 proxy such as Tor (`Builder::proxy`) |
//! | `http` | yes | headers and blocks from the REST interface of a bitcoind beside peers (`Builder::http_source`) |
//! | `tracing` | yes | spans and events for the `tracing` facade, target `headlong` |
//! | `upnp` | no | with `native`: port mappings by UPnP (`Builder::upnp`; brings an HTTP client and a reader of XML) |
//! | `sim` | no | the chain forge, serving peers and the deterministic network, for tests |
//! | `conformance` | no | `store::conformance` and `verify::conformance`, suites for stores and verifiers of your own; brings `sim` and `serde_json` |
//!
//! # The layers
//! Everything that decides is a pure state machine: [`wire`], [`chain`], [`consensus`], [`peer`], [`sync`],
//! [`relay`] and [`engine`] know no sockets, files, threads, clocks or locks. [`chainstate`] validates and keeps the
//! coins; it can be used without a network. [`net`], [`store`] and [`verify`] hold the traits that a host
//! may implement. [`node`] puts them together.
//!
//! # Not there yet
//! Transactions: the node asks for none (`relay=0`), keeps none and broadcasts none. Compact blocks, filters of BIP157/158,
//! snapshots of the coins.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod chain;
pub mod chainstate;
pub mod consensus;
pub mod engine;
pub mod error;
pub mod limits;
pub mod net;
pub mod node;
pub mod peer;
pub mod relay;
pub mod rng;
#[cfg(feature = "sim")]
pub mod sim;
pub mod store;
pub mod sync;
pub mod time;
mod trace;
pub mod verify;
pub mod wire;

pub use chain::command::{BlockRef, RawBlock};
pub use chain::params::{Network, Params};
pub use engine::allowance::AllowanceStatus;
pub use engine::output::{EndedPeer, PeerChange, PeerStatus};
pub use engine::status::{Stage, WaitsFor};
pub use error::Error;
pub use net::{Clock, Executor, Gateway, Transport};
pub use node::{
    At, BlockInfo, Blocked, BuildError, Builder, EstimateQuality, Event, Events, Handle, HeaderInfo,
    KnownAddresses, Node, Profile, Reaction, RequestError, RunError, Status, Stopped, TimeLeft,
    TrafficStatus,
};
pub use peer::audit::{AuditAction, AuditRecord};
pub use peer::book::Census;
pub use peer::lifecycle::{PeerEvent, PeerState};
pub use peer::score::{Band, Features, PeerScore, ScorePolicy};
pub use peer::{AddressNetwork, CloseReason, ConnectionKind, Fault, PeerAddress, PeerId, SourceUrl};
pub use relay::priority::QueueCounts;
pub use relay::rate::{Bandwidths, PeerTraffic, RateConfig};
pub use relay::reach::{OwnAddress, ReachMethod, Reachability};
pub use store::backend::StoreBackend;
#[cfg(feature = "fjall")]
pub use store::fjall::FjallStore;
pub use store::memory::MemoryStore;
#[cfg(feature = "sled")]
pub use store::sled::SledStore;
pub use store::{Store, StoreError};
pub use sync::diagnosis::{Bound, Diagnosis, Thresholds};
pub use sync::tuning::{Action, Change, TuningConfig};
pub use verify::{Proof, Verifier};
