//! What is passed on to peers: headers and blocks to those who ask, addresses to those who listen; and how fast, in what
//! order.

pub mod asked;
pub mod gossip;
pub mod priority;
pub mod rate;
pub mod reach;
pub mod serve;
