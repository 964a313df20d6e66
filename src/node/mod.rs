//! The node: the driver that stands between the engine and the edge, and the host's handle on it.
//!
//! | part | what it is |
//! | --- | --- |
//! | [`builder`] | options, opening of stores and files |
//! | [`driver`] | [`Node::run`]: feeds the engine and does what it wants |
//! | [`handle`] | requests, waits and shutdown, async and blocking |
//! | [`events`] | Apply and Undo of the durable chain, from a cursor |
//! | [`status`] | the latest state with rates |

mod addresses;
mod audit_log;
mod bandwidth;
mod budget;
pub mod builder;
mod chain_thread;
mod connection;
mod crowd;
pub mod driver;
mod estimate;
pub mod events;
pub mod handle;
mod inbox;
mod kept;
mod listener;
mod peer_handlers;
mod reach;
pub mod requests;
#[cfg(feature = "http")]
mod source;
pub mod status;
mod traffic;
mod trust;
mod wait;

pub use builder::{BuildError, Builder, Node, Profile};
pub use driver::{RunError, Stopped};
pub use estimate::{EstimateQuality, TimeLeft};
pub use events::{Event, Events};
pub use handle::Handle;
pub use peer_handlers::Reaction;
pub use requests::{At, BlockInfo, HeaderInfo, KnownAddresses, RequestError};
pub use status::{Blocked, Status};
pub use traffic::TrafficStatus;
