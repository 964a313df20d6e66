//! The small text files of a data directory, and the addresses in them.
//!
//! Input: bit 0 of the first byte: addresses (0) or a `VERSION` file (1); the text.

use headlong::PeerAddress;
use headlong::chain::params::{Network, Params};
use headlong::peer::book::NetGroup;
use headlong::store::StoreErrorKind;
use headlong::store::datadir::Datadir;
use std::path::PathBuf;
use std::sync::OnceLock;

pub fn run(data: &[u8]) {
    let Some((mode, text)) = data.split_first() else { return };
    if mode & 1 == 0 { addresses(&String::from_utf8_lossy(text)) } else { version(text) }
}

/// What is an address is written as one and read as the same.
fn addresses(text: &str) {
    for line in text.lines() {
        let Ok(address) = line.parse::<PeerAddress>() else { continue };
        let again = address.to_string();
        assert_eq!(again.parse::<PeerAddress>().as_ref(), Ok(&address), "{line:?}");
        assert!(!again.contains(char::is_whitespace) && again.len() <= 300, "{again:?}");
        let _ = NetGroup::of(&address);
    }
}

/// A directory is ours or it is not; nothing is overwritten in it.
fn version(text: &[u8]) {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("headlong-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for temporary files");
        folder
    });
    let file = folder.join("VERSION");
    std::fs::write(&file, text).expect("a folder for temporary files");
    let params = Params::new(Network::Regtest);
    match Datadir::open(folder, params.magic, params.genesis_hash()) {
        Ok(_) => {}
        Err(error) => {
            let kind = error.kind;
            assert!(matches!(kind, StoreErrorKind::Corrupt | StoreErrorKind::Unsupported), "{error}");
        }
    }
    assert_eq!(std::fs::read(&file).expect("it is there"), text);
}
