//! What the stores on embedded databases have in common: a folder, errors that name it, panics as errors, and a
//! refusal to go on after damage.

use super::{StoreError, StoreErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A value dropped a moment ago may still be closing its files in one of the database's threads.
const LOCK_ATTEMPTS: u32 = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(25);

/// A database: its name, where it is, and whether it can still be used.
#[derive(Debug)]
pub(super) struct Embedded {
    name: &'static str,
    pub folder: PathBuf,
    broken: AtomicBool,
}

impl Embedded {
    pub fn new(name: &'static str, folder: PathBuf) -> Self {
        Self { name, folder, broken: AtomicBool::new(false) }
    }

    /// What is being done, for errors.
    pub fn context(&self, doing: &str) -> String {
        format!("{doing} {} store {}", self.name, self.folder.display())
    }

    /// Refuses all that follows.
    pub fn give_up(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// Opens the database, waiting a moment for a lock that is about to be released.
    pub fn open<T, E>(
        &self,
        open: impl Fn() -> Result<T, E>,
        error: impl Fn(&str, E) -> StoreError,
    ) -> Result<T, StoreError> {
        let mut attempt = 1;
        loop {
            match self.run("open", &open, &error) {
                Err(e) if e.kind == StoreErrorKind::Locked && attempt < LOCK_ATTEMPTS => {
                    attempt += 1;
                    std::thread::sleep(LOCK_PAUSE);
                }
                done => return done,
            }
        }
    }

    /// Runs an operation of the database. A panic is an error; after one, or after damage, nothing runs any more.
    pub fn run<T, E>(
        &self,
        doing: &str,
        operation: impl FnOnce() -> Result<T, E>,
        error: impl FnOnce(&str, E) -> StoreError,
    ) -> Result<T, StoreError> {
        if self.broken.load(Ordering::Relaxed) {
            let context = self.context("after an earlier failure, open anew:");
            return Err(StoreError::new(StoreErrorKind::Corrupt, context));
        }
        let context = self.context(doing);
        // Whoever catches a panic here uses the database no more, so broken invariants are not seen.
        let done = match catch_unwind(AssertUnwindSafe(operation)) {
            Ok(result) => result.map_err(|e| error(&context, e)),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
                let context = format!("{context}: {} panicked: {text}", self.name);
                Err(StoreError::new(StoreErrorKind::Corrupt, context))
            }
        };
        done.inspect_err(|e| {
            if e.kind == StoreErrorKind::Corrupt {
                self.give_up();
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_and_the_last_thing_that_runs() {
        let database = Embedded::new("test", "place".into());
        let run = |operation: fn() -> Result<(), ()>| {
            database.run("read", operation, |doing, ()| StoreError::new(StoreErrorKind::Full, doing))
        };
        let full = run(|| Err(())).unwrap_err();
        assert_eq!((full.kind, &full.context[..]), (StoreErrorKind::Full, "read test store place"));
        run(|| Ok(())).unwrap();
        let panicked = run(|| panic!("number {}", 5)).unwrap_err();
        assert_eq!(panicked.kind, StoreErrorKind::Corrupt);
        assert!(panicked.to_string().contains("number 5"));
        assert_eq!(run(|| Ok(())).unwrap_err().kind, StoreErrorKind::Corrupt);
    }
}
