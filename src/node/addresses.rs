//! The address book's file, `peers.dat`.
//!
//! It is advisory: one that is missing, torn or damaged costs a question to the DNS seeds and nothing else. None of a damaged
//! one is used, since a flipped bit makes an address of somebody else; it is set aside, and the host is told. It is replaced
//! as a whole: written beside, synced, renamed, and the folder synced.

use crate::limits::MAX_ADDRESS_FILE;
use crate::peer::book::AddressBook;
use crate::store::datadir::Datadir;
use crate::store::{StoreError, StoreErrorKind};
use std::path::PathBuf;

/// The file's name in the data directory.
const FILE: &str = "peers.dat";
/// Where a damaged one goes; there is only ever the last.
const SET_ASIDE: &str = "peers.dat.damaged";

/// Replaces the file.
pub(super) fn save(datadir: &Datadir, book: &[u8]) -> Result<(), StoreError> {
    datadir.write_file(FILE, book)
}

/// What was found.
#[derive(Debug)]
pub(super) enum Saved {
    /// There is no file.
    None,
    /// The book of an earlier run.
    Book(Box<AddressBook>),
    /// A file that is damaged, and where it is now.
    Damaged(PathBuf, String),
}

/// Reads the file, and sets a damaged one aside.
///
/// # Errors
/// Failures of the operating system.
pub(super) fn load(datadir: &Datadir) -> Result<Saved, StoreError> {
    let why = match datadir.read_file(FILE, MAX_ADDRESS_FILE) {
        Ok(None) => return Ok(Saved::None),
        Ok(Some(bytes)) => match AddressBook::decode(&bytes) {
            Ok(book) => return Ok(Saved::Book(Box::new(book))),
            Err(error) => error.to_string(),
        },
        Err(error) if error.kind == StoreErrorKind::Corrupt => error.to_string(),
        Err(error) => return Err(error),
    };
    let (from, to) = (datadir.path().join(FILE), datadir.path().join(SET_ASIDE));
    std::fs::rename(&from, &to)
        .map_err(|error| StoreError::io(format!("set {} aside", from.display()), error))?;
    Ok(Saved::Damaged(to, why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::params::{Network, Params};

    fn open(folder: &std::path::Path) -> Datadir {
        let params = Params::new(Network::Regtest);
        Datadir::open(folder, params.magic, params.genesis_hash()).unwrap()
    }

    /// The bug: lines that were no address were skipped, but a flipped bit that made another address of one
    /// was not noticed, and that one was dialled.
    #[test]
    fn a_book_is_read_back_and_one_that_is_damaged_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let datadir = open(folder.path());
        assert!(matches!(load(&datadir).unwrap(), Saved::None));
        let bytes = AddressBook::new([7; 16]).encode();
        save(&datadir, &bytes).unwrap();
        let Saved::Book(book) = load(&datadir).unwrap() else { panic!("a book is there") };
        assert_eq!(book.encode(), bytes);
        let (path, aside) = (folder.path().join(FILE), folder.path().join(SET_ASIDE));
        for damaged in [&bytes[..bytes.len() - 1], &[&bytes[..], b"x"].concat(), b""] {
            std::fs::write(&path, damaged).unwrap();
            let Saved::Damaged(found, why) = load(&datadir).unwrap() else { panic!("it is damaged") };
            assert!(found == aside && !why.is_empty());
            assert_eq!(std::fs::read(&aside).unwrap(), damaged);
            assert!(!path.exists());
        }
        std::fs::write(&path, vec![0; MAX_ADDRESS_FILE + 1]).unwrap();
        assert!(matches!(load(&datadir).unwrap(), Saved::Damaged(..)));
    }
}
