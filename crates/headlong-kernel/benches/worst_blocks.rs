//! The slowest blocks by Core's library: `cargo bench --bench worst_blocks`.

#[path = "../../../benches/worst_blocks/measure.rs"]
mod measure;

use headlong_kernel::{KernelInterpreter, KernelVerifier};

fn main() {
    measure::measure(&[("kernel", &KernelVerifier::with_cache(0)), ("interpreter", &KernelInterpreter)]);
}
