//! Every bound on what a peer, a disk or a host can make us hold or do, with its reason.
//!
//! | bound | protects against |
//! | --- | --- |
//! | sizes of messages | allocation before the content is known |
//! | queues and windows | memory that grows with a peer's patience |
//! | times | peers that never answer |

use core::time::Duration;

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

// ---- sync: headers (net_processing.cpp, headerssync.cpp) ----

/// Blocks a second of the fastest chain that the rule of rising median times allows: bounds how many
/// commitments of a presync a peer can make us hold.
pub const PRESYNC_BLOCKS_PER_SECOND: u64 = 6;
/// Presyncs at one time, the one of the headers' source not counted. Each holds at most about 1.4 MB.
pub const MAX_PRESYNCS: usize = 16;
/// Blocks of work by which a chain may lie below the best header and still be kept without a presync
/// (`GetAntiDoSWorkThreshold`).
pub const ANTI_DOS_WORK_BLOCKS: u32 = 144;
/// Least time between two unanswered `getheaders` to a peer (`HEADERS_RESPONSE_TIME`).
pub const GETHEADERS_INTERVAL: Duration = Duration::from_secs(120);
/// Time after which a source that does not answer loses its role to another; an answer is 160 kB, so this
/// allows 6 kB/s.
pub const HEADERS_PATIENCE: Duration = Duration::from_secs(30);
/// Time for all headers from one source, without the share for each (`HEADERS_DOWNLOAD_TIMEOUT_BASE`).
pub const HEADERS_DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// More time for each header expected (`HEADERS_DOWNLOAD_TIMEOUT_PER_HEADER`).
pub const HEADERS_DOWNLOAD_PER_HEADER: Duration = Duration::from_millis(1);
/// Pause before sources that had nothing to offer are asked again.
pub const HEADERS_RETRY: Duration = Duration::from_secs(60);
/// Age of the best header, in seconds, below which all peers are asked for headers.
pub const HEADERS_RECENT_SECONDS: u64 = 24 * 60 * 60;
