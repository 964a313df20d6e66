//! Defaults
