//! Small advisory files of the data directory, each of one run for the next: replaced as a whole, like the address book
//! beside them, and set aside if damaged, so that the node begins without.
//!
//! | file | content |
//! | --- | --- |
//! | `scores.dat` | what was learnt of peers ([`crate::peer::score::file`]) |
//! | `allowance.dat` | what was used of the day's bytes ([`crate::engine::allowance`]) |

use crate::engine::Engine;
use crate::engine::allowance::UsedDay;
use crate::limits::MAX_SCORE_FILE;
use crate::peer::score::Saved;
use crate::store::datadir::Datadir;
use crate::store::{StoreError, StoreErrorKind};
use crate::trace;
use core::fmt::Display;
use std::fs;

const SCORES: &str = "scores.dat";
const DAY: &str = "allowance.dat";

/// Replaces the scores.
pub(super) fn save_scores(datadir: &Datadir, bytes: &[u8]) -> Result<(), StoreError> {
    datadir.write_file(SCORES, bytes)
}

/// Replaces what was used of the day.
pub(super) fn save_day(datadir: &Datadir, day: &UsedDay) -> Result<(), StoreError> {
    datadir.write_file(DAY, &day.encode())
}

/// Gives an engine what the last run has left, as far as it is there and whole.
///
/// # Errors
/// Failures of the operating system.
pub(super) fn restore(mut engine: Engine, datadir: Option<&Datadir>) -> Result<Engine, StoreError> {
    let Some(datadir) = datadir else { return Ok(engine) };
    if let Some(saved) = read(datadir, SCORES, MAX_SCORE_FILE, Saved::decode)? {
        engine = engine.with_scores(saved);
    }
    if let Some(day) = read(datadir, DAY, UsedDay::SIZE, UsedDay::decode)? {
        engine = engine.with_used_day(day);
    }
    Ok(engine)
}

/// What a file holds; a damaged one gets another name, of which there is only ever the last.
fn read<T, E: Display>(
    datadir: &Datadir,
    name: &str,
    most: usize,
    decode: impl FnOnce(&[u8]) -> Result<T, E>,
) -> Result<Option<T>, StoreError> {
    let why = match datadir.read_file(name, most) {
        Ok(None) => return Ok(None),
        Ok(Some(bytes)) => match decode(&bytes) {
            Ok(content) => return Ok(Some(content)),
            Err(error) => error.to_string(),
        },
        Err(error) if error.kind == StoreErrorKind::Corrupt => error.to_string(),
        Err(error) => return Err(error),
    };
    let (from, to) = (datadir.path().join(name), datadir.path().join(format!("{name}.damaged")));
    fs::rename(&from, &to).map_err(|error| StoreError::io(format!("set {} aside", from.display()), error))?;
    trace::event!(WARN, "a damaged file was set aside", path = to.display(), why = why);
    Ok(None)
}
