//! The saved list of good addresses: a text file with one address a line, behind a line with the SHA-256 of
//! the others.
//!
//! It is advisory: a file that is missing, torn or damaged costs a question to the DNS seeds and nothing else.
//! None of it is used then, since a flipped bit makes an address of somebody else. It is replaced as a whole.

use crate::limits::MAX_SAVED_ADDRESSES;
use crate::peer::PeerAddress;
use crate::store::datadir::Datadir;
use crate::store::{StoreError, StoreErrorKind};
use bitcoin::hashes::{Hash, sha256};

/// The file's name in the data directory.
const FILE: &str = "peers.txt";
/// Begins the first line; the hash follows.
const HEAD: &str = "headlong peers sha256 ";
/// No line of ours is longer: a name has at most 253 characters.
const MAX_LINE: usize = 300;

/// Replaces the list; what is over the limit is left out.
pub(super) fn save(datadir: &Datadir, addresses: &[PeerAddress]) -> Result<(), StoreError> {
    let kept = addresses.iter().take(MAX_SAVED_ADDRESSES);
    let list: String = kept.flat_map(|address| [address.to_string(), "\n".to_owned()]).collect();
    let text = format!("{HEAD}{}\n{list}", sha256::Hash::hash(list.as_bytes()));
    datadir.write_file(FILE, text.as_bytes())
}

/// Reads the list; an empty one if there is none.
///
/// # Errors
/// `Corrupt`, naming the file, if it is not as it was written; failures of the operating system.
pub(super) fn load(datadir: &Datadir) -> Result<Vec<PeerAddress>, StoreError> {
    let Some(bytes) = datadir.read_file(FILE, MAX_SAVED_ADDRESSES * MAX_LINE)? else { return Ok(Vec::new()) };
    let list = std::str::from_utf8(&bytes).ok().and_then(checked);
    let addresses = list.and_then(|list| list.lines().map(|line| line.parse().ok()).collect());
    addresses.ok_or_else(|| {
        let path = datadir.path().join(FILE);
        StoreError::new(StoreErrorKind::Corrupt, format!("{} is damaged", path.display()))
    })
}

/// The lines behind the first, if they are what it says.
fn checked(text: &str) -> Option<&str> {
    let (head, list) = text.split_once('\n')?;
    (head.strip_prefix(HEAD)? == sha256::Hash::hash(list.as_bytes()).to_string()).then_some(list)
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
    fn a_saved_list_is_read_back_and_one_that_is_damaged_anywhere_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let datadir = open(folder.path());
        assert_eq!(load(&datadir).unwrap(), []);
        let list = [
            PeerAddress::Ip("127.0.0.1:8333".parse().unwrap()),
            PeerAddress::Ip("[2001:db8::1]:18444".parse().unwrap()),
            PeerAddress::Name("seed.example".to_owned(), 8333),
        ];
        save(&datadir, &list).unwrap();
        assert_eq!(load(&datadir).unwrap(), list);
        let path = folder.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let error = load(&datadir).unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Corrupt);
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        };
        for at in 0..whole.len() {
            refused(&whole[..at]);
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                refused(&flipped);
            }
        }
        refused(&[&whole[..], b"a:1\n"].concat());
        // What is not an address is none of ours, whatever the hash says.
        let odd = format!("{HEAD}{}\na b:1\n", sha256::Hash::hash(b"a b:1\n"));
        refused(odd.as_bytes());
        save(&datadir, &list[..1]).unwrap();
        assert_eq!(load(&datadir).unwrap(), list[..1]);
    }

    #[test]
    fn a_list_over_the_limit_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let datadir = open(folder.path());
        let list = vec![PeerAddress::Name("a".to_owned(), 8333); MAX_SAVED_ADDRESSES + 1];
        save(&datadir, &list).unwrap();
        assert_eq!(load(&datadir).unwrap().len(), MAX_SAVED_ADDRESSES);
        let huge = "a:1\n".repeat(MAX_SAVED_ADDRESSES * MAX_LINE);
        std::fs::write(folder.path().join(FILE), huge).unwrap();
        assert_eq!(load(&datadir).unwrap_err().kind, StoreErrorKind::Corrupt);
    }
}
