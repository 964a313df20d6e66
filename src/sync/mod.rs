//! The machines of the sync. Pure.

pub mod activation;
pub mod blocks;
pub mod commits;
pub mod diagnosis;
#[cfg(test)]
mod forged;
pub mod fsm;
pub mod headers;
pub mod presync;
pub mod rollback;
pub mod tuning;
pub mod watch;
