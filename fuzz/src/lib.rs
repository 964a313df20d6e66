//! What the fuzz targets do with their bytes. `fuzz_targets/` only hands them over, so that the same code
//! runs without a fuzzer: `cargo run --bin tool -- replay TARGET FILE`.
//!
//! `README.md` says what each target checks.

pub mod address_file;
pub mod base;
pub mod block;
pub mod block_files;
pub mod chainstate_connect;
pub mod encryption;
pub mod engine;
pub mod feed;
pub mod frame;
pub mod header_sync;
pub mod http_response;
pub mod message;
pub mod meter;
pub mod nat_replies;
pub mod proxy;
pub mod score_file;
pub mod seeds;
pub mod small_files;
pub mod store_decoding;
pub mod stream;
pub mod undo;

/// A target's code.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 16] = [
    ("frame", frame::run),
    ("message", message::run),
    ("block", block::run),
    ("header_sync", header_sync::run),
    ("engine", engine::run),
    ("chainstate_connect", chainstate_connect::run),
    ("undo", undo::run),
    ("store_decoding", store_decoding::run),
    ("block_files", block_files::run),
    ("small_files", small_files::run),
    ("address_file", address_file::run),
    ("score_file", score_file::run),
    ("encryption", encryption::run),
    ("proxy", proxy::run),
    ("nat_replies", nat_replies::run),
    ("http_response", http_response::run),
];
