//! Headlong's example `sync`, with its scripts run by Core's own library.
//!
//! `cargo run --release --example sync` · headlong's `examples/README.md` tells its options and what it prints.

#[path = "../../../examples/sync/main.rs"]
#[allow(dead_code, reason = "its own main")]
mod program;

use headlong_kernel::KernelVerifier;
use std::process::ExitCode;

fn main() -> ExitCode {
    program::with(|builder| builder.verifier(KernelVerifier::default()))
}
