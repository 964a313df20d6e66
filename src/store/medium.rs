//! What append-only files lie on: a folder of a file system, or memory.
//!
//! [`Medium`] is the small set of operations that [`super::block_files`] and [`super::header_file`] need,
//! so that a simulation, or a disk that is made to fail, can stand in for a folder.
//!
//! [`FolderMedium`] reads and writes at positions (`pread`/`pwrite`, on Windows `seek_read`/`seek_write`)
//! and never maps files into memory. A new or removed file's folder is synced too where the platform can.

use super::{StoreError, StoreErrorKind};
use crate::limits::MAX_OPEN_SEGMENTS;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A flat set of named byte sequences that grow at their end.
///
/// # Contract
/// 1. Names are plain file names: ASCII letters, digits, `-` and `.`.
/// 2. One writer for each name at a time; any number of readers beside it.
/// 3. What `append` wrote is seen by every later `read_at` of this process.
/// 4. After `sync` returned, the bytes, the length and the name itself survive a crash of the machine.
///    After it failed nothing is known about what was appended since the last success.
/// 5. A failed `append` may leave any prefix of its bytes behind.
/// 6. An absent name is [`io::ErrorKind::NotFound`], except for `append`, which creates it.
pub trait Medium: Send + Sync + fmt::Debug {
    /// The names present, in any order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Bytes of `name`.
    fn len(&self, name: &str) -> io::Result<u64>;

    /// Fills `buffer` from `offset`; [`io::ErrorKind::UnexpectedEof`] if there are fewer bytes.
    fn read_at(&self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Appends the parts one behind the other.
    fn append(&self, name: &str, parts: &[&[u8]]) -> io::Result<()>;

    /// Cuts `name` to `len` bytes, which must not be more than it has.
    fn truncate(&self, name: &str, len: u64) -> io::Result<()>;

    /// Puts `name` on stable storage.
    fn sync(&self, name: &str) -> io::Result<()>;

    /// Removes `name` and makes that durable.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Where `name` is, for error messages.
    fn describe(&self, name: &str) -> String {
        name.to_owned()
    }
}

/// The files of one folder.
pub struct FolderMedium {
    folder: PathBuf,
    /// Open files; bounded, because a full node has thousands of segments.
    open: RwLock<BTreeMap<String, Arc<File>>>,
    /// Names created since the folder was last synced.
    created: Mutex<BTreeSet<String>>,
}

impl FolderMedium {
    /// Uses `folder`, which is created if absent (its parent must exist or is created too).
    pub fn open(folder: impl Into<PathBuf>) -> io::Result<Self> {
        let folder = folder.into();
        create_folder(&folder)?;
        Ok(Self { folder, open: RwLock::default(), created: Mutex::default() })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn file(&self, name: &str, create: bool) -> io::Result<Arc<File>> {
        if let Some(file) = self.open.read().get(name) {
            return Ok(file.clone());
        }
        let mut open = self.open.write();
        if let Some(file) = open.get(name) {
            return Ok(file.clone());
        }
        let path = self.folder.join(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let file = match options.open(&path) {
            Err(e) if create && e.kind() == io::ErrorKind::NotFound => {
                let file = options.create_new(true).open(&path)?;
                self.created.lock().insert(name.to_owned());
                file
            }
            other => other?,
        };
        // The names that grow are the last of their kind: the first one is the likeliest to be idle.
        while open.len() >= MAX_OPEN_SEGMENTS {
            open.pop_first();
        }
        let file = Arc::new(file);
        open.insert(name.to_owned(), file.clone());
        Ok(file)
    }
}

impl fmt::Debug for FolderMedium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FolderMedium").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Medium for FolderMedium {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        Ok(self.file(name, false)?.metadata()?.len())
    }

    fn read_at(&self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        positioned::read_exact(&*self.file(name, false)?, offset, buffer)
    }

    fn append(&self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        let file = self.file(name, true)?;
        let mut end = file.metadata()?.len();
        for part in parts {
            positioned::write_all(&file, end, part)?;
            end += part.len() as u64;
        }
        Ok(())
    }

    fn truncate(&self, name: &str, len: u64) -> io::Result<()> {
        self.file(name, false)?.set_len(len)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.file(name, false)?.sync_data()?;
        // The entry leaves the set only once the folder is synced: a failure is repeated, not forgotten.
        let is_new = self.created.lock().contains(name);
        if is_new {
            sync_folder(&self.folder)?;
            self.created.lock().remove(name);
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.open.write().remove(name);
        std::fs::remove_file(self.folder.join(name))?;
        self.created.lock().remove(name);
        sync_folder(&self.folder)
    }

    fn describe(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

/// Reads and writes at a position, without moving a cursor that others share.
mod positioned {
    use std::fs::File;
    use std::io;

    #[cfg(unix)]
    pub fn read_exact(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
    }

    #[cfg(unix)]
    pub fn write_all(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
    }

    // `seek_read` and `seek_write` name their position with each call, so the cursor that they move does
    // not matter.
    #[cfg(windows)]
    pub fn read_exact(file: &File, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            match std::os::windows::fs::FileExt::seek_read(file, buffer, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    buffer = &mut buffer[n..];
                    offset += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    #[cfg(windows)]
    pub fn write_all(file: &File, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match std::os::windows::fs::FileExt::seek_write(file, bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    bytes = &bytes[n..];
                    offset += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Makes created, renamed and removed names of `folder` durable.
#[cfg(unix)]
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Windows has no call for this: NTFS writes names to its journal by itself.
#[cfg(not(unix))]
pub(super) fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

/// Creates `folder` and its missing parents, durably.
pub(super) fn create_folder(folder: &Path) -> io::Result<()> {
    let mut missing = Vec::new();
    let mut at = folder;
    while !at.as_os_str().is_empty() && !at.exists() {
        missing.push(at);
        match at.parent() {
            Some(parent) => at = parent,
            None => break,
        }
    }
    std::fs::create_dir_all(folder)?;
    for made in missing {
        let parent = made.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync_folder(parent)?;
    }
    Ok(())
}

/// Files in memory. Clones share their content, so that a clone can stand for the folder after a restart.
#[derive(Clone, Debug, Default)]
pub struct MemoryMedium {
    files: Arc<RwLock<BTreeMap<String, Vec<u8>>>>,
}

impl MemoryMedium {
    /// No files.
    pub fn new() -> Self {
        Self::default()
    }
}

fn absent(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no file {name}"))
}

impl Medium for MemoryMedium {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files.read().keys().cloned().collect())
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        self.files.read().get(name).map(|f| f.len() as u64).ok_or_else(|| absent(name))
    }

    fn read_at(&self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let files = self.files.read();
        let file = files.get(name).ok_or_else(|| absent(name))?;
        let from = usize::try_from(offset).ok();
        let bytes = from.and_then(|from| file.get(from..from.checked_add(buffer.len())?));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn append(&self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        let mut files = self.files.write();
        let file = files.entry(name.to_owned()).or_default();
        for part in parts {
            file.extend_from_slice(part);
        }
        Ok(())
    }

    fn truncate(&self, name: &str, len: u64) -> io::Result<()> {
        let mut files = self.files.write();
        let file = files.get_mut(name).ok_or_else(|| absent(name))?;
        file.truncate(usize::try_from(len).unwrap_or(usize::MAX));
        Ok(())
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.len(name).map(drop)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.write().remove(name).map(drop).ok_or_else(|| absent(name))
    }
}

/// The growing end of one file: knows how long the file ought to be and repairs it after a failed append.
#[derive(Debug)]
pub(super) struct Tail {
    medium: Arc<dyn Medium>,
    name: String,
    len: u64,
    /// Bytes beyond `len` may exist and must go before the next append.
    torn: bool,
    unsynced: bool,
    /// A sync failed: what the platform holds is unknown until the file is read again.
    lost: bool,
}

impl Tail {
    /// The end of `name`, of which `len` bytes are good; `torn` if there may be more. They may be those of an
    /// earlier process that was killed before they were on the disk, so the first `sync` is never left out.
    pub fn new(medium: Arc<dyn Medium>, name: String, len: u64, torn: bool) -> Self {
        Self { medium, name, len, torn, unsynced: true, lost: false }
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    fn context(&self, doing: &str) -> String {
        format!("{doing} {}", self.medium.describe(&self.name))
    }

    fn check_alive(&self) -> Result<(), StoreError> {
        if !self.lost {
            return Ok(());
        }
        let context = self.context("an earlier sync failed, open anew:");
        Err(StoreError::new(StoreErrorKind::Corrupt, context))
    }

    /// Appends and returns the offset of the first byte. After an error nothing was appended.
    pub fn append(&mut self, parts: &[&[u8]]) -> Result<u64, StoreError> {
        self.check_alive()?;
        if self.torn {
            let cut = self.medium.truncate(&self.name, self.len);
            cut.map_err(|e| StoreError::io(self.context("truncate"), e))?;
            self.torn = false;
        }
        self.unsynced = true;
        if let Err(e) = self.medium.append(&self.name, parts) {
            self.torn = self.medium.truncate(&self.name, self.len).is_err();
            return Err(StoreError::io(self.context("append to"), e));
        }
        let at = self.len;
        self.len += parts.iter().map(|part| part.len() as u64).sum::<u64>();
        Ok(at)
    }

    /// Makes all that was appended durable. A failure is final for this value: platforms may drop the
    /// unwritten pages and report success the next time.
    pub fn sync(&mut self) -> Result<(), StoreError> {
        self.check_alive()?;
        if !self.unsynced {
            return Ok(());
        }
        if let Err(e) = self.medium.sync(&self.name) {
            self.lost = true;
            let mut error = StoreError::io(self.context("sync"), e);
            if error.kind != StoreErrorKind::Full {
                error.kind = StoreErrorKind::Corrupt;
            }
            return Err(error);
        }
        self.unsynced = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suite(medium: &dyn Medium) {
        assert_eq!(medium.len("a.dat").unwrap_err().kind(), io::ErrorKind::NotFound);
        medium.append("a.dat", &[b"hel", b"lo"]).unwrap();
        medium.append("a.dat", &[b" world"]).unwrap();
        assert_eq!(medium.len("a.dat").unwrap(), 11);
        let mut five = [0; 5];
        medium.read_at("a.dat", 6, &mut five).unwrap();
        assert_eq!(&five, b"world");
        assert_eq!(medium.read_at("a.dat", 7, &mut five).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        medium.sync("a.dat").unwrap();
        medium.truncate("a.dat", 6).unwrap();
        medium.append("a.dat", &[b"there"]).unwrap();
        medium.read_at("a.dat", 6, &mut five).unwrap();
        assert_eq!(&five, b"there");
        medium.append("b.dat", &[b"x"]).unwrap();
        let mut names = medium.list().unwrap();
        names.sort();
        assert_eq!(names, ["a.dat", "b.dat"]);
        medium.remove("a.dat").unwrap();
        assert_eq!(medium.list().unwrap(), ["b.dat"]);
        assert_eq!(medium.sync("a.dat").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn folder_and_memory_behave_alike() {
        suite(&MemoryMedium::new());
        let folder = tempfile::tempdir().unwrap();
        suite(&FolderMedium::open(folder.path().join("deep/er")).unwrap());
    }

    #[test]
    fn a_folder_keeps_a_bounded_number_of_files_open() {
        let folder = tempfile::tempdir().unwrap();
        let medium = FolderMedium::open(folder.path()).unwrap();
        for i in 0..MAX_OPEN_SEGMENTS + 20 {
            medium.append(&format!("{i:04}"), &[b"x"]).unwrap();
        }
        assert!(medium.open.read().len() <= MAX_OPEN_SEGMENTS);
        let mut byte = [0];
        medium.read_at("0000", 0, &mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }

    /// Fails appends half-way and syncs on demand.
    #[derive(Debug, Default)]
    struct Failing {
        inner: MemoryMedium,
        fail: Mutex<bool>,
    }

    impl Medium for Failing {
        fn list(&self) -> io::Result<Vec<String>> {
            self.inner.list()
        }
        fn len(&self, name: &str) -> io::Result<u64> {
            self.inner.len(name)
        }
        fn read_at(&self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            self.inner.read_at(name, offset, buffer)
        }
        fn append(&self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
            if *self.fail.lock() {
                self.inner.append(name, &[&parts[0][..1]])?;
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.inner.append(name, parts)
        }
        fn truncate(&self, name: &str, len: u64) -> io::Result<()> {
            if *self.fail.lock() {
                return Err(io::Error::other("no"));
            }
            self.inner.truncate(name, len)
        }
        fn sync(&self, name: &str) -> io::Result<()> {
            if *self.fail.lock() {
                return Err(io::Error::other("no"));
            }
            self.inner.sync(name)
        }
        fn remove(&self, name: &str) -> io::Result<()> {
            self.inner.remove(name)
        }
    }

    #[test]
    fn a_failed_append_leaves_no_bytes_and_a_failed_sync_is_final() {
        let failing = Arc::new(Failing::default());
        let mut tail = Tail::new(failing.clone(), "t".into(), 0, false);
        tail.append(&[b"one"]).unwrap();
        *failing.fail.lock() = true;
        for _ in 0..2 {
            // The second failure is the truncation that the first left to be done.
            tail.append(&[b"two"]).unwrap_err();
        }
        *failing.fail.lock() = false;
        assert_eq!(tail.append(&[b"six"]).unwrap(), 3);
        let mut all = [0; 6];
        failing.read_at("t", 0, &mut all).unwrap();
        assert_eq!((&all, failing.len("t").unwrap()), (b"onesix", 6));
        *failing.fail.lock() = true;
        assert_eq!(tail.sync().unwrap_err().kind, StoreErrorKind::Corrupt);
        *failing.fail.lock() = false;
        assert_eq!(tail.sync().unwrap_err().kind, StoreErrorKind::Corrupt);
        assert_eq!(tail.append(&[b"x"]).unwrap_err().kind, StoreErrorKind::Corrupt);
    }
}
