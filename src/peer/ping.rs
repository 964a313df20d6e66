//! Pings.
