//! The rules of consensus that need no I/O. Scripts are checked by [`crate::verify`].

pub mod block;
pub mod header;
pub mod locktime;
pub mod sigops;
pub mod subsidy;
pub mod transaction;
