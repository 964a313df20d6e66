//! presync
