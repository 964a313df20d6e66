//! Integers of variable length.
