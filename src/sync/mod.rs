//! The machines of the sync. Pure.

pub mod activation;
pub mod blocks;
pub mod commits;
#[cfg(test)]
mod forged;
pub mod fsm;
pub mod headers;
pub mod presync;
pub mod rollback;
pub mod watch;
