//! The coins, and all that changes them. Usable without any network.
//!
//! ```text
//! raw block ─► decode+check (pool) ─► connect (one thread, owns the coins) ─► scripts (pool) ─► commit
//! ```
//!
//! | module | what it does |
//! | --- | --- |
//! | [`pipeline`] | [`Chainstate`]: commands in, reports out; connects without waiting for scripts |
//! | `coins`, `coin_table` | the write-back cache, and how unproved blocks are taken back |
//! | `connect`, `disconnect`, [`undo`] | what a block does to the coins, and back |
//! | `ahead`, `prefetch` | what is done for blocks that wait; their coins from the store |
//! | `archive`, `body`, `bodies` | stored blocks and undo data; the check of a block by itself; checked blocks in memory |
//! | `repair` | what undoes a block, where the files are damaged too |
//! | [`prune`] | old blocks and undo data deleted |
//! | `commit`, `flush`, [`recovery`] | to the store and back, through any crash |
//! | `gauges` | where the pipeline's time goes: [`PipelineStatus`] |
//! | [`front`] | [`Front`]: blocks in, verdicts out, with its own header tree |
//! | [`utxo_hash`], [`muhash`] | hashes of the whole set of coins |

mod ahead;
mod archive;
mod bodies;
mod body;
mod coin_table;
mod coins;
mod commit;
mod connect;
mod disconnect;
mod flush;
pub mod front;
mod gauges;
mod memory;
pub mod muhash;
pub mod pipeline;
mod prefetch;
pub mod prune;
pub mod recovery;
mod repair;
pub mod undo;
pub mod utxo_hash;

pub use front::{BlockVerdict, Front};
pub use gauges::{PipelineStatus, StageStatus, Wait, WaitStatus};
pub use memory::{ChainstateMemory, ChainstateOptions};
pub use pipeline::{Chainstate, Completion};
pub use prune::PruneOptions;
pub use recovery::{Opened, Sources, open};
pub use utxo_hash::UtxoStats;
