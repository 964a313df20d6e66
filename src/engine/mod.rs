//! The composer: the only place where the machines meet. No I/O, no clock, no locks.

pub mod input;
pub mod output;
pub mod status;

pub use input::{Input, Query, QueryId};
pub use output::{Answer, Output};
