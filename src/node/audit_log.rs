//! The audit log, `audit.log`: a line for each ban and each replacement. It is advisory; at a megabyte it takes the place of
//! `audit.log.old`.

use crate::limits::MAX_AUDIT_FILE;
use crate::store::StoreError;
use crate::store::datadir::Datadir;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

const LOG: &str = "audit.log";
const OLD_LOG: &str = "audit.log.old";

/// Adds a line to the audit log.
pub(super) fn add(datadir: &Datadir, line: &str) -> Result<(), StoreError> {
    append(datadir.path(), line).map_err(|error| StoreError::io("write the audit log", error))
}

fn append(folder: &Path, line: &str) -> io::Result<()> {
    let path = folder.join(LOG);
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    if file.metadata()?.len().saturating_add(line.len() as u64) >= MAX_AUDIT_FILE {
        drop(file);
        fs::rename(&path, folder.join(OLD_LOG))?;
        file = OpenOptions::new().create(true).append(true).open(&path)?;
    }
    // One write, so that a crash leaves a whole line or none.
    file.write_all(format!("{line}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_grows_by_lines_and_takes_at_most_two_files_of_its_size() {
        let folder = tempfile::tempdir().unwrap();
        let lines = 3 * MAX_AUDIT_FILE / 1_000;
        for number in 0..lines {
            append(folder.path(), &format!("{number:0>999}")).unwrap();
        }
        let read = |name| fs::read_to_string(folder.path().join(name)).unwrap();
        let (old, new) = (read(OLD_LOG), read(LOG));
        assert!(old.len() as u64 <= MAX_AUDIT_FILE && new.len() as u64 <= MAX_AUDIT_FILE);
        let numbers: Vec<u64> = old.lines().chain(new.lines()).map(|line| line.parse().unwrap()).collect();
        assert_eq!(numbers.last(), Some(&(lines - 1)));
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "no line is lost between the files");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
