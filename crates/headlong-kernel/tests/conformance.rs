//! The kernel's verifier passes headlong's conformance suite and Bitcoin Core's vectors.

#[path = "../../../tests/conformance/mod.rs"]
mod conformance;

use headlong_kernel::KernelVerifier;
use std::path::{Path, PathBuf};

#[test]
fn the_suite() {
    conformance::conforms(&KernelVerifier);
}

/// A file of the vectors that headlong's own tests use; where it is absent the test says so and ends.
fn text(name: &str) -> Option<String> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let folder = std::env::var_os("HEADLONG_SHARED").map_or_else(beside, PathBuf::from);
    let path = folder.join("vectors/core").join(name);
    let text = std::fs::read_to_string(&path).ok();
    if text.is_none() {
        eprintln!("SKIPPED: there is no {}", path.display());
    }
    text
}

#[test]
fn cores_script_tests() {
    let Some(json) = text("script_tests.json") else { return };
    conformance::core_scripts(&KernelVerifier, &json);
}

#[test]
fn cores_transactions() {
    let (Some(valid), Some(invalid)) = (text("tx_valid.json"), text("tx_invalid.json")) else { return };
    conformance::core_transactions(&KernelVerifier, &valid, &invalid);
}

#[test]
fn cores_signature_hashes() {
    let Some(json) = text("sighash.json") else { return };
    conformance::core_signature_hashes(&KernelVerifier, &json);
}
