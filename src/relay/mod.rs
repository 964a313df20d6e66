//! What is passed on to peers: headers and blocks to those who ask, addresses to those who listen.

pub mod gossip;
pub mod serve;
