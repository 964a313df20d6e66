//! subsidy
