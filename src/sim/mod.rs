//! For tests of this crate and of its hosts (feature `sim`): a forge of valid chains and peers that serve
//! them.
//!
//! | part | what it gives |
//! | --- | --- |
//! | [`forge`] | blocks with real proof of work and signatures, from one seed |
//! | [`wallet`] | a way to lock and to spend every standard output type |
//! | [`slow`] | transactions that fill a block and are slow to verify |
//! | [`serve`] | the serving side of the protocol, without I/O |
//! | [`loopback`] | that side on real sockets of the loopback interface |
//! | [`world`] | nodes and peers on virtual time, with invariants checked after every step |
//! | [`node`], [`manner`], [`disk`] | what nodes and peers of a world are made of, and how they fail |
//! | [`ledger`] | what is true in a world, by naive code |
//! | [`scenario`] | worlds made of a seed, and how a failing one is made small |

pub mod disk;
pub mod forge;
mod invariants;
pub mod ledger;
pub mod loopback;
pub mod manner;
pub mod node;
mod noise;
pub mod scenario;
pub mod serve;
pub mod slow;
pub mod wallet;
pub mod world;
