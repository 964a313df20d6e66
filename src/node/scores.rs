//! What was learnt of peers, `scores.dat`, and the audit log, `audit.log`.
//!
//! Both are advisory. The scores are replaced as a whole, like the address book beside them; damaged ones are set aside,
//! and the node begins without. The log gets a line for each ban and each replacement; at a megabyte it takes the place of
//! `audit.log.old`.

use crate::engine::Engine;
use crate::limits::{MAX_AUDIT_FILE, MAX_SCORE_FILE};
use crate::peer::score::Saved;
use crate::store::datadir::Datadir;
use crate::store::{StoreError, StoreErrorKind};
use crate::trace;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

const FILE: &str = "scores.dat";
/// Where a damaged one goes; there is only ever the last.
const SET_ASIDE: &str = "scores.dat.damaged";
const LOG: &str = "audit.log";
const OLD_LOG: &str = "audit.log.old";

/// Replaces the scores.
pub(super) fn save(datadir: &Datadir, bytes: &[u8]) -> Result<(), StoreError> {
    datadir.write_file(FILE, bytes)
}

/// Gives an engine what the last run has learnt, if that is there and whole.
///
/// # Errors
/// Failures of the operating system.
pub(super) fn restore(engine: Engine, datadir: Option<&Datadir>) -> Result<Engine, StoreError> {
    let Some(datadir) = datadir else { return Ok(engine) };
    let why = match datadir.read_file(FILE, MAX_SCORE_FILE) {
        Ok(None) => return Ok(engine),
        Ok(Some(bytes)) => match Saved::decode(&bytes) {
            Ok(saved) => return Ok(engine.with_scores(saved)),
            Err(error) => error.to_string(),
        },
        Err(error) if error.kind == StoreErrorKind::Corrupt => error.to_string(),
        Err(error) => return Err(error),
    };
    let (from, to) = (datadir.path().join(FILE), datadir.path().join(SET_ASIDE));
    fs::rename(&from, &to).map_err(|error| StoreError::io(format!("set {} aside", from.display()), error))?;
    trace::event!(WARN, "saved scores set aside", path = to.display(), why = why);
    Ok(engine)
}

/// Adds a line to the audit log.
pub(super) fn log(datadir: &Datadir, line: &str) -> Result<(), StoreError> {
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
