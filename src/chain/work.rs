//! Work and difficulty: targets, chainwork, and what the next header's `bits` must be on each network.

/// Total work of a chain, an unsigned 256-bit number.
pub use bitcoin::pow::Work as ChainWork;
