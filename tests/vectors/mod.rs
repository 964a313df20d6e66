//! The folder of shared vectors: beside the project, or where `HEADLONG_SHARED` says.
#![allow(dead_code, reason = "each test uses a part")]

use std::io::{Read, Write};
use std::path::PathBuf;

/// A file of the folder. Where it is absent the caller is skipped, loudly: past the capture of the test
/// harness.
pub fn vector(name: &str) -> Option<Vec<u8>> {
    let folder = std::env::var_os("HEADLONG_SHARED")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared")), PathBuf::from);
    let path = folder.join("vectors").join(name);
    let bytes = std::fs::read(&path);
    if bytes.is_err() {
        let line = format!("SKIPPED: there is no {}\n", path.display());
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    bytes.ok()
}

/// The content of a file packed with bzip2.
pub fn unpacked(name: &str) -> Option<Vec<u8>> {
    let packed = vector(name)?;
    let mut content = Vec::new();
    bzip2_rs::DecoderReader::new(packed.as_slice()).read_to_end(&mut content).unwrap();
    Some(content)
}
