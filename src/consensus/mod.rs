//! The rules of consensus that need no I/O. Scripts are checked by [`crate::verify`].
//!
//! A block walks through these types, each of which only its check can make:
//! bytes → [`decode::DecodedBlock`] → [`block::CheckedBlock`] → [`connect::CoinRules`].

pub mod block;
pub mod connect;
pub mod decode;
pub mod header;
pub mod locktime;
pub mod merkle;
pub mod signet;
pub mod sigops;
pub mod subsidy;
pub mod transaction;
