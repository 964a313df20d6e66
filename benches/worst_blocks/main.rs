//! The slowest blocks by the crate's verifiers: `cargo bench --bench worst_blocks`.
//!
//! `crates/headlong-kernel` has the same for Core's library, which is the measure: docs/worst-blocks.md compares them.

mod measure;

use headlong::verify::interpreter::Interpreter;
use headlong::verify::standard::StandardVerifier;

fn main() {
    let standard = StandardVerifier::with_cache(0);
    // Every input through the library, for what the default engine saves.
    if std::env::var_os("INTERPRETER").is_some() {
        measure::measure(&[("standard", &standard), ("interpreter", &Interpreter)]);
    } else {
        measure::measure(&[("standard", &standard)]);
    }
}
