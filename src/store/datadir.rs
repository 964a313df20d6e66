//! The data directory: its layout, its lock, and what it belongs to.
//!
//! | name | content |
//! | --- | --- |
//! | `LOCK` | locked by the process that uses the directory, whose number it holds as text, for people |
//! | `VERSION` | layout version, network magic and genesis hash, as text |
//! | `headers.dat` | [`super::header_file`] |
//! | `blocks/` | [`super::block_files`]: blocks and undo data |
//! | `coins-NAME/` | the store of backend NAME |
//! | `peers.dat`, `assumed-valid` | small files of the node, each replaced as a whole |
//!
//! Small files are replaced by writing a temporary file, syncing it, renaming it over the old one and
//! syncing the folder: after a crash there is the old content or the new one.

use super::block_files::{BlockFiles, BlockFilesOptions};
use super::header_file::{HeaderFile, Loaded};
use super::medium::{create_folder, sync_folder};
use super::{StoreError, StoreErrorKind};
use bitcoin::BlockHash;
use parking_lot::Mutex;
use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Version of the layout that this crate writes.
pub const LAYOUT_VERSION: u32 = 1;

const LOCK: &str = "LOCK";
const VERSION: &str = "VERSION";
const TEMPORARY: &str = ".tmp";
/// Bytes of `VERSION`, with room for later fields.
const MAX_VERSION_FILE: usize = 4096;

/// An open data directory. Its lock is held until this is dropped.
#[derive(Debug)]
pub struct Datadir {
    path: PathBuf,
    /// Holds the lock; the operating system releases it when the process dies.
    _lock: File,
    /// One writer of small files at a time, since they share temporary names.
    small: Mutex<()>,
}

impl Datadir {
    /// Opens `path`, creating it for the network where it is new.
    ///
    /// # Errors
    /// - `Locked`: another process, or another value in this one, has it open.
    /// - `Unsupported`: it belongs to another network or layout version, or the file system has no locks.
    /// - `Corrupt`: its `VERSION` file is not readable.
    /// - failures of the operating system.
    pub fn open(path: &Path, magic: [u8; 4], genesis: BlockHash) -> Result<Self, StoreError> {
        let failed = |e| StoreError::io(format!("create {}", path.display()), e);
        create_folder(path).map_err(failed)?;
        let lock = lock(path)?;
        let dir = Self { path: path.to_owned(), _lock: lock, small: Mutex::default() };
        dir.clean_up()?;
        dir.claim(&Owner { layout: LAYOUT_VERSION, magic, genesis })?;
        create_folder(&dir.blocks_path()).map_err(failed)?;
        Ok(dir)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of blocks and undo data.
    pub fn blocks_path(&self) -> PathBuf {
        self.path.join("blocks")
    }

    /// The folder of the coins' store of a backend, for example `coins-sled`; the backend creates it.
    pub fn coins_path(&self, backend: &str) -> PathBuf {
        self.path.join(format!("coins-{backend}"))
    }

    /// Opens the block files.
    ///
    /// # Errors
    /// As [`BlockFiles::open`].
    pub fn block_files(&self, options: BlockFilesOptions) -> Result<BlockFiles, StoreError> {
        BlockFiles::open(&self.blocks_path(), options)
    }

    /// Opens the header file.
    ///
    /// # Errors
    /// As [`HeaderFile::open`].
    pub fn header_file(&self) -> Result<(HeaderFile, Loaded), StoreError> {
        HeaderFile::open(&self.path)
    }

    /// Replaces a small file of the directory as a whole; `name` is a plain file name.
    ///
    /// # Errors
    /// Failures of the operating system, after which the old or the new content is there.
    pub fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let _one = self.small.lock();
        write_atomically(&self.path.join(name), bytes)
    }

    /// Reads a small file of the directory; `None` if it is absent.
    ///
    /// # Errors
    /// `Corrupt` if it has more than `limit` bytes; failures of the operating system.
    pub fn read_file(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, StoreError> {
        read_bounded(&self.path.join(name), limit)
    }

    /// Removes temporary files that a crash left.
    fn clean_up(&self) -> Result<(), StoreError> {
        let failed = |e| StoreError::io(format!("clean up {}", self.path.display()), e);
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(TEMPORARY)) {
                std::fs::remove_file(&path).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Checks that the directory is ours, or makes it so where it is new.
    fn claim(&self, owner: &Owner) -> Result<(), StoreError> {
        let path = self.path.join(VERSION);
        let Some(text) = self.read_file(VERSION, MAX_VERSION_FILE)? else {
            return self.write_file(VERSION, owner.to_text().as_bytes());
        };
        let found = std::str::from_utf8(&text).ok().and_then(Owner::from_text).ok_or_else(|| {
            StoreError::new(StoreErrorKind::Corrupt, format!("{} is not readable", path.display()))
        })?;
        if found == *owner {
            return Ok(());
        }
        let context = format!("{} belongs to {found}, wanted is {owner}", self.path.display());
        Err(StoreError::new(StoreErrorKind::Unsupported, context))
    }
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let name = path.join(LOCK);
    let failed = |e| StoreError::io(format!("open {}", name.display()), e);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&name);
    let file = file.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {
            // Only people read it: a failure costs them the number.
            let _ =
                file.set_len(0).and_then(|()| (&file).write_all(std::process::id().to_string().as_bytes()));
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let context = format!("{} is in use by {}", path.display(), holder(&name));
            Err(StoreError::new(StoreErrorKind::Locked, context))
        }
        Err(TryLockError::Error(e)) => {
            let unsupported = e.kind() == io::ErrorKind::Unsupported;
            let mut error = StoreError::io(format!("lock {}", name.display()), e);
            if unsupported {
                error.kind = StoreErrorKind::Unsupported;
            }
            Err(error)
        }
    }
}

/// Who holds the lock, as far as the file tells: where a locked file can't be read, it tells nothing.
fn holder(lock: &Path) -> String {
    let number = read_bounded(lock, 20).ok().flatten();
    let number = number.and_then(|text| std::str::from_utf8(&text).ok()?.parse::<u32>().ok());
    match number {
        Some(number) if number == std::process::id() => "another node of this process".to_owned(),
        Some(number) => format!("another node, process {number}"),
        None => "another node".to_owned(),
    }
}

/// What a directory belongs to.
#[derive(Debug, PartialEq, Eq)]
struct Owner {
    layout: u32,
    magic: [u8; 4],
    genesis: BlockHash,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d] = self.magic;
        write!(
            f,
            "layout {} of the network with magic {a:02x}{b:02x}{c:02x}{d:02x} and genesis {}",
            self.layout, self.genesis
        )
    }
}

impl Owner {
    fn to_text(&self) -> String {
        let [a, b, c, d] = self.magic;
        format!(
            "headlong\nlayout {}\nmagic {a:02x}{b:02x}{c:02x}{d:02x}\ngenesis {}\n",
            self.layout, self.genesis
        )
    }

    /// Reads the fields of any layout version; unknown further lines belong to later ones.
    fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()? != "headlong" {
            return None;
        }
        let layout = lines.next()?.strip_prefix("layout ")?.parse().ok()?;
        let magic = lines.next()?.strip_prefix("magic ")?;
        let magic = (magic.len() == 8).then(|| u32::from_str_radix(magic, 16).ok())??.to_be_bytes();
        let genesis = lines.next()?.strip_prefix("genesis ")?.parse().ok()?;
        Some(Self { layout, magic, genesis })
    }
}

/// Replaces a file so that after a crash at any time there is the old content or the new one, never a
/// mixture. At most one call for a path at a time; it uses the path with `.tmp` appended.
///
/// # Errors
/// Failures of the operating system.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut temporary = OsString::from(path);
    temporary.push(TEMPORARY);
    let temporary = PathBuf::from(temporary);
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        drop(file);
        std::fs::rename(&temporary, path)?;
        sync_folder(folder)
    };
    write().map_err(|e| {
        // Best effort: the next start removes it too.
        let _ = std::fs::remove_file(&temporary);
        StoreError::io(format!("write {}", path.display()), e)
    })
}

fn read_bounded(path: &Path, limit: usize) -> Result<Option<Vec<u8>>, StoreError> {
    let failed = |e| StoreError::io(format!("read {}", path.display()), e);
    let file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > limit {
        let context = format!("{} has more than {limit} bytes", path.display());
        return Err(StoreError::new(StoreErrorKind::Corrupt, context));
    }
    Ok(Some(bytes))
}

/// Where the platform expects a program's data, for one network (a plain folder name such as `signet`):
/// `$XDG_DATA_HOME/headlong/NETWORK` or `~/.local/share/headlong/NETWORK`, on macOS
/// `~/Library/Application Support/headlong/NETWORK`, on Windows `%APPDATA%\headlong\NETWORK`.
///
/// `None` where the environment names no such place.
pub fn default_datadir(network: &str) -> Option<PathBuf> {
    let platform = if cfg!(windows) {
        Platform::Windows
    } else if cfg!(target_os = "macos") {
        Platform::MacOs
    } else {
        Platform::Other
    };
    data_home(platform, |name| std::env::var_os(name)).map(|home| home.join("headlong").join(network))
}

#[derive(Clone, Copy)]
enum Platform {
    Windows,
    MacOs,
    Other,
}

fn data_home(platform: Platform, var: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let dir = |name: &str| var(name).map(PathBuf::from).filter(|p| !p.as_os_str().is_empty());
    match platform {
        Platform::Windows => dir("APPDATA"),
        Platform::MacOs => Some(dir("HOME")?.join("Library/Application Support")),
        // The XDG specification: a relative path is to be ignored.
        Platform::Other => match dir("XDG_DATA_HOME").filter(|p| p.is_absolute()) {
            Some(home) => Some(home),
            None => Some(dir("HOME")?.join(".local/share")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::hashes::Hash;

    const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];

    fn genesis(n: u8) -> BlockHash {
        BlockHash::from_byte_array([n; 32])
    }

    fn open(path: &Path) -> Result<Datadir, StoreError> {
        Datadir::open(path, MAGIC, genesis(1))
    }

    #[test]
    fn a_second_opener_is_locked_out_until_the_first_is_dropped() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b");
        let first = open(&path).unwrap();
        let error = open(&path).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Locked);
        let text = error.to_string();
        assert!(text.contains(&path.display().to_string()) && text.contains("of this process"), "{text}");
        drop(first);
        // The number of a process that is gone means nothing.
        std::fs::write(path.join(LOCK), "999999999999").unwrap();
        open(&path).unwrap();
    }

    /// Runs in the child process of the test below; by itself it has nothing to open.
    #[test]
    fn child_tries_to_open() {
        let Some(path) = std::env::var_os("HEADLONG_TEST_LOCKED_DATADIR") else { return };
        let Err(error) = open(Path::new(&path)) else { std::process::exit(43) };
        println!("{error}");
        std::process::exit(if error.kind == StoreErrorKind::Locked { 42 } else { 44 });
    }

    #[test]
    fn another_process_is_locked_out() {
        let temp = tempfile::tempdir().unwrap();
        let dir = open(temp.path()).unwrap();
        let child = || {
            std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "store::datadir::tests::child_tries_to_open", "--nocapture"])
                .env("HEADLONG_TEST_LOCKED_DATADIR", temp.path())
                .output()
                .unwrap()
        };
        let refused = child();
        assert_eq!(refused.status.code(), Some(42));
        let text = String::from_utf8_lossy(&refused.stdout);
        let expected =
            format!("{} is in use by another node, process {}", temp.path().display(), std::process::id());
        // Where a locked file can't be read, the number stays unknown.
        assert!(text.contains(&expected) || cfg!(windows), "{text}");
        drop(dir);
        assert_eq!(child().status.code(), Some(43));
    }

    #[test]
    fn another_network_or_version_is_refused_by_name() {
        let temp = tempfile::tempdir().unwrap();
        drop(open(temp.path()).unwrap());
        for (magic, genesis) in [([1, 2, 3, 4], genesis(1)), (MAGIC, genesis(2))] {
            let error = Datadir::open(temp.path(), magic, genesis).unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Unsupported);
            let text = error.to_string();
            assert!(text.contains("fabfb5da") && text.contains(&genesis.to_string()), "{text}");
        }
        let text = Owner { layout: 2, magic: MAGIC, genesis: genesis(1) }.to_text();
        std::fs::write(temp.path().join(VERSION), text + "more\n").unwrap();
        let error = open(temp.path()).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Unsupported);
        assert!(error.to_string().contains("layout 2") && error.to_string().contains("layout 1"));
        for bad in ["", "headlong\nlayout 1\nmagic fabf\n", "headlong\nlayout one\n", "x"] {
            std::fs::write(temp.path().join(VERSION), bad).unwrap();
            assert_eq!(open(temp.path()).unwrap_err().kind, StoreErrorKind::Corrupt);
        }
        std::fs::write(temp.path().join(VERSION), vec![b'x'; MAX_VERSION_FILE + 1]).unwrap();
        assert_eq!(open(temp.path()).unwrap_err().kind, StoreErrorKind::Corrupt);
    }

    #[test]
    fn small_files_are_replaced_and_leftovers_removed() {
        let temp = tempfile::tempdir().unwrap();
        let dir = open(temp.path()).unwrap();
        assert_eq!(dir.read_file("peers.json", 10).unwrap(), None);
        dir.write_file("peers.json", b"old").unwrap();
        dir.write_file("peers.json", b"newer").unwrap();
        assert_eq!(dir.read_file("peers.json", 5).unwrap().as_deref(), Some(&b"newer"[..]));
        assert_eq!(dir.read_file("peers.json", 4).unwrap_err().kind, StoreErrorKind::Corrupt);
        // A crash between writing the temporary file and renaming it.
        std::fs::write(temp.path().join("peers.json.tmp"), b"half").unwrap();
        drop(dir);
        let dir = open(temp.path()).unwrap();
        assert!(!temp.path().join("peers.json.tmp").exists());
        assert_eq!(dir.read_file("peers.json", 5).unwrap().as_deref(), Some(&b"newer"[..]));
        // A folder in its place cannot be replaced: the error leaves nothing behind.
        std::fs::create_dir(temp.path().join("taken")).unwrap();
        dir.write_file("taken", b"x").unwrap_err();
        assert!(!temp.path().join("taken.tmp").exists());
    }

    #[test]
    fn it_opens_its_files() {
        let temp = tempfile::tempdir().unwrap();
        let dir = open(temp.path()).unwrap();
        let files = dir.block_files(BlockFilesOptions::default()).unwrap();
        let at = files.append_block(genesis(1), b"block").unwrap();
        assert_eq!(files.read(at, genesis(1)).unwrap(), b"block");
        assert!(dir.blocks_path().join("blk-000000.dat").exists());
        let (_, loaded) = dir.header_file().unwrap();
        assert_eq!(loaded, Loaded::default());
        assert_eq!(dir.coins_path("sled"), temp.path().join("coins-sled"));
    }

    #[test]
    fn default_places() {
        let home = |platform, vars: &[(&str, &str)]| {
            let find = |name: &str| vars.iter().find(|v| v.0 == name).map(|v| OsString::from(v.1));
            data_home(platform, find)
        };
        let at = |p: &str| Some(PathBuf::from(p));
        assert_eq!(home(Platform::Other, &[("HOME", "/h")]), at("/h/.local/share"));
        assert_eq!(home(Platform::Other, &[("HOME", "/h"), ("XDG_DATA_HOME", "rel")]), at("/h/.local/share"));
        assert_eq!(home(Platform::MacOs, &[("HOME", "/h")]), at("/h/Library/Application Support"));
        assert_eq!(home(Platform::Windows, &[("APPDATA", "/r")]), at("/r"));
        assert_eq!(home(Platform::Other, &[("HOME", "")]), None);
        if !cfg!(windows) {
            assert_eq!(home(Platform::Other, &[("XDG_DATA_HOME", "/x"), ("HOME", "/h")]), at("/x"));
        }
        if let Some(path) = default_datadir("signet") {
            assert!(path.ends_with("headlong/signet"));
        }
    }
}
