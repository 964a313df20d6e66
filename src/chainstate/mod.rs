//! The coins, and all that changes them. Usable without any network.
//!
//! ```text
//! raw block ─► decode+check (pool) ─► connect (one thread, owns the coins) ─► scripts (pool) ─► commit
//! ```
//!
//! | module | what it does |
//! | --- | --- |
//! | [`pipeline`] | [`Chainstate`]: commands in, reports out; connects without waiting for scripts |
//! | [`coins`] | the write-back cache, and overlays of unproved blocks |
//! | [`connect`], [`disconnect`], [`undo`] | what a block does to the coins, and back |
//! | `archive`, `bodies` | stored blocks and undo data; checked blocks in memory |
//! | `repair` | what undoes a block, where the files are damaged too |
//! | `commit`, [`recovery`] | to the store and back, through any crash |
//! | [`front`] | [`Front`]: blocks in, verdicts out, with its own header tree |
//! | [`utxo_hash`], [`muhash`] | hashes of the whole set of coins |

mod archive;
mod bodies;
pub mod coins;
mod commit;
pub mod connect;
pub mod disconnect;
pub mod front;
pub mod muhash;
pub mod pipeline;
pub mod recovery;
mod repair;
pub mod undo;
pub mod utxo_hash;

pub use front::{BlockVerdict, Front};
pub use pipeline::{Chainstate, ChainstateMemory, ChainstateOptions, Completion};
pub use recovery::{Opened, Sources, open};
pub use utxo_hash::UtxoStats;
