//! The kernel's verifiers pass headlong's conformance suite and Bitcoin Core's vectors.

#[path = "../../../tests/conformance/mod.rs"]
mod conformance;

use headlong::Verifier;
use headlong_kernel::{KernelInterpreter, KernelVerifier};
use std::path::{Path, PathBuf};

fn engines() -> [Box<dyn Verifier>; 2] {
    [Box::new(KernelInterpreter), Box::new(KernelVerifier::default())]
}

#[test]
fn the_suite() {
    engines().iter().for_each(|engine| conformance::conforms(&**engine));
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
    engines().iter().for_each(|engine| conformance::core_scripts(&**engine, &json));
}

#[test]
fn cores_transactions() {
    let (Some(valid), Some(invalid)) = (text("tx_valid.json"), text("tx_invalid.json")) else { return };
    engines().iter().for_each(|engine| conformance::core_transactions(&**engine, &valid, &invalid));
}

#[test]
fn cores_signature_hashes() {
    let Some(json) = text("sighash.json") else { return };
    engines().iter().for_each(|engine| conformance::core_signature_hashes(&**engine, &json));
}
