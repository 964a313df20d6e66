//! Every bound on what a peer, a disk or a host can make us hold or do, with its reason.
//!
//! | bound | protects against |
//! | --- | --- |
//! | sizes of messages | allocation before the content is known |
//! | queues and windows | memory that grows with a peer's patience |
//! | times | peers that never answer |

// ---- wire: sizes that Bitcoin Core enforces (net.h, net_processing.cpp) ----

/// Bytes of a message's payload (`MAX_PROTOCOL_MESSAGE_LENGTH`).
pub const MAX_PAYLOAD: usize = 4_000_000;
/// Entries of `inv`, `getdata`, `notfound` (`MAX_INV_SZ`).
pub const MAX_INV: usize = 50_000;
/// Entries of `addr` and `addrv2` (`MAX_ADDR_TO_SEND`).
pub const MAX_ADDR: usize = 1_000;
/// Headers of one message (`MAX_HEADERS_RESULTS`).
pub const MAX_HEADERS: usize = 2_000;
/// Hashes of a locator (`MAX_LOCATOR_SZ`).
pub const MAX_LOCATOR: usize = 101;
