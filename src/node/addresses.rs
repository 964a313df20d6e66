//! The saved list of good addresses: a text file with one address a line.
//!
//! It is advisory: a file that is missing or damaged costs a question to the DNS seeds and nothing else. It
//! is replaced as a whole.

use crate::limits::MAX_SAVED_ADDRESSES;
use crate::peer::PeerAddress;
use crate::store::StoreError;
use crate::store::datadir::Datadir;

/// The file's name in the data directory.
const FILE: &str = "peers.txt";
/// No line of ours is longer: a name has at most 253 characters.
const MAX_LINE: usize = 300;

/// Replaces the list; what is over the limit is left out.
pub(super) fn save(datadir: &Datadir, addresses: &[PeerAddress]) -> Result<(), StoreError> {
    let kept = addresses.iter().take(MAX_SAVED_ADDRESSES);
    let text: String = kept.flat_map(|address| [address.to_string(), "\n".to_owned()]).collect();
    datadir.write_file(FILE, text.as_bytes())
}

/// Reads the list; what is not an address is skipped.
pub(super) fn load(datadir: &Datadir) -> Vec<PeerAddress> {
    let bytes = datadir.read_file(FILE, MAX_SAVED_ADDRESSES * MAX_LINE).ok().flatten().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.lines().filter_map(|line| line.parse().ok()).take(MAX_SAVED_ADDRESSES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::params::{Network, Params};

    fn open(folder: &std::path::Path) -> Datadir {
        let params = Params::new(Network::Regtest);
        Datadir::open(folder, params.magic, params.genesis_hash()).unwrap()
    }

    #[test]
    fn a_saved_list_is_read_back_and_damage_is_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let datadir = open(folder.path());
        assert_eq!(load(&datadir), []);
        let list = [
            PeerAddress::Ip("127.0.0.1:8333".parse().unwrap()),
            PeerAddress::Ip("[2001:db8::1]:18444".parse().unwrap()),
            PeerAddress::Name("seed.example".to_owned(), 8333),
        ];
        save(&datadir, &list).unwrap();
        assert_eq!(load(&datadir), list);
        let mut text = std::fs::read_to_string(folder.path().join(FILE)).unwrap();
        text.insert_str(0, "nonsense\n:8333\nname:99999\na b:1\n\u{0}\n");
        std::fs::write(folder.path().join(FILE), text).unwrap();
        assert_eq!(load(&datadir), list);
        save(&datadir, &list[..1]).unwrap();
        assert_eq!(load(&datadir), list[..1]);
    }

    #[test]
    fn a_list_over_the_limit_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let datadir = open(folder.path());
        let list = vec![PeerAddress::Name("a".to_owned(), 8333); MAX_SAVED_ADDRESSES + 1];
        save(&datadir, &list).unwrap();
        assert_eq!(load(&datadir).len(), MAX_SAVED_ADDRESSES);
        std::fs::write(folder.path().join(FILE), "a:1\n".repeat(MAX_SAVED_ADDRESSES + 1)).unwrap();
        assert_eq!(load(&datadir).len(), MAX_SAVED_ADDRESSES);
    }
}
