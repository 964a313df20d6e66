//! The machines of the sync. Pure.

pub mod activation;
pub mod blocks;
#[cfg(test)]
mod forged;
pub mod fsm;
pub mod headers;
pub mod presync;
pub mod rollback;
