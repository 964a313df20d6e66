//! For tests of this crate and of its hosts (feature `sim`): a forge of valid chains and peers that serve
//! them.
//!
//! | part | what it gives |
//! | --- | --- |
//! | [`forge`] | blocks with real proof of work and signatures, from one seed |
//! | [`wallet`] | a way to lock and to spend every standard output type |
//! | [`serve`] | the serving side of the protocol, without I/O |
//! | [`loopback`] | that side on real sockets of the loopback interface |

pub mod forge;
pub mod loopback;
pub mod serve;
pub mod wallet;
