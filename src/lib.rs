//! headlong
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
pub mod rng;
#[cfg(feature = "sim")]
pub mod sim;
pub mod store;
pub mod sync;
pub mod time;
pub mod verify;
pub mod wire;
