//! sigops
