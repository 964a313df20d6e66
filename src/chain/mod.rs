//! The chain of headers: parameters of the networks, work, the tree of known headers, deployments, and
//! the commands by which the engine drives the chainstate. Pure: no I/O, no clocks, no locks.

pub mod block_tree;
pub mod command;
pub mod deployments;
mod fixed_seeds;
pub mod locator;
pub mod params;
pub mod tx_counts;
pub mod work;
