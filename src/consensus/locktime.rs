//! locktime
