//! Checks with a process that is killed, or that finds no room.
//!
//! The child commits the sequence of [`super::states`] and tells on its standard output what it is about to do
//! and what is done. The parent kills it at some word, or a moment later, and looks at the store: it must be in
//! a state of the sequence that is no older than the last durable one that the child told of, and no newer than
//! the last that it began.

use super::states::{DURABLE_EVERY, Growth, batch, state};
use super::{Backend, Clause, Done, Fault, Outcome, ensure};
use crate::rng::Rng;
use crate::store::{Durability, Store, StoreError};
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// Begins each line of the child for the parent: a test harness writes lines of its own.
const MARK: &str = "headlong-child";
/// Longer than a child takes for any step; one that hangs fails the check instead of hanging it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Children that are killed.
const KILLS: u32 = 10;
/// After so many commits the child waits for a word, so that it can be killed between commits.
const PAUSE_EVERY: u32 = 10;
/// Commits that a child makes at most when it is to run out of room.
const PILE: u32 = 1_000;
/// The largest file that a child without room may write, in units of `ulimit -f`: 512 bytes, in some shells
/// 1,024.
const ROOM: &str = "8192";

/// A command that starts the current test program again, with only the test called `test`, and with the
/// environment variable `key` set to `value` (where the store is). That test calls [`commit_until_killed`] if
/// the variable is there, and does nothing if it is not.
///
/// # Errors
/// The path of the running program is not known.
pub fn test_child(test: &str, key: &str, value: impl AsRef<OsStr>) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--exact", test, "--nocapture"]).env(key, value);
    Ok(command)
}

/// What the child process of [`Backend::child`] does with its store: commits until it is killed, as the parent
/// says on its standard input. Returns when the parent is gone or has what it wanted.
///
/// # Errors
/// A failure of the store where none was to be expected; the parent learns of it by itself.
pub fn commit_until_killed(store: &dyn Store) -> Result<(), StoreError> {
    let mut order = String::new();
    let growth = match io::stdin().read_line(&mut order) {
        Ok(_) if order.trim() == "replace" => Growth::Replace,
        Ok(_) if order.trim() == "pile" => Growth::Pile,
        // Nobody that knows the words is there.
        _ => return Ok(()),
    };
    let Ok(start) = state(store, growth) else {
        say("broken");
        return Ok(());
    };
    for n in start + 1.. {
        let durable = n % DURABLE_EVERY == 0;
        if !say(&format!("begin {n}")) || (growth == Growth::Pile && n > PILE) {
            return Ok(());
        }
        let durability = if durable { Durability::Durable } else { Durability::Buffered };
        if let Err(error) = store.commit(batch(store, n, growth), durability) {
            say(&format!("failed {n} {:?}", error.kind));
            return if growth == Growth::Pile { Ok(()) } else { Err(error) };
        }
        if durable {
            say(&format!("durable {n}"));
        }
        if growth == Growth::Replace && n % PAUSE_EVERY == 0 {
            say(&format!("pause {n}"));
            if !matches!(io::stdin().read_line(&mut order), Ok(count) if count > 0) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Tells the parent; false if it is gone. The empty line before ends what others left unfinished.
fn say(words: &str) -> bool {
    let mut out = io::stdout().lock();
    out.write_all(format!("\n{MARK} {words}\n").as_bytes()).and_then(|()| out.flush()).is_ok()
}

/// A word of the child.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    Begin(u32),
    Durable(u32),
    Pause(u32),
    Failed(u32, String),
    Broken,
}

fn word(line: &str) -> Option<Word> {
    let mut parts = line.strip_prefix(MARK)?.split_whitespace();
    let verb = parts.next()?;
    if verb == "broken" {
        return Some(Word::Broken);
    }
    let n = parts.next()?.parse().ok()?;
    match verb {
        "begin" => Some(Word::Begin(n)),
        "durable" => Some(Word::Durable(n)),
        "pause" => Some(Word::Pause(n)),
        "failed" => Some(Word::Failed(n, parts.next()?.to_owned())),
        _ => None,
    }
}

/// A running child and what it told so far. Dropping it kills it.
struct Running {
    child: Child,
    words: Receiver<Word>,
    /// The last durable commit that it told of, in this life or one before.
    durable: u32,
    /// The last commit that it began.
    begun: u32,
    failed: Option<(u32, String)>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The suite's own trouble: no clause of the store, but the check cannot be done.
fn trouble(what: &str, error: &io::Error) -> Fault {
    Fault::new(Clause::Errors, format!("the child process: {what}: {error}"))
}

impl Running {
    fn start(mut command: Command, growth: Growth, durable: u32) -> Result<Self, Fault> {
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = started.map_err(|error| trouble("start", &error))?;
        let (sender, words) = channel();
        if let Some(out) = child.stdout.take() {
            std::thread::spawn(move || {
                let lines = BufReader::new(out).lines().map_while(Result::ok);
                let _ = lines.filter_map(|line| word(&line)).try_for_each(|word| sender.send(word));
            });
        }
        let mut running = Self { child, words, durable, begun: durable, failed: None };
        running.order(if growth == Growth::Replace { "replace" } else { "pile" })?;
        Ok(running)
    }

    fn order(&mut self, words: &str) -> Result<(), Fault> {
        let Some(stdin) = &mut self.child.stdin else { return Ok(()) };
        writeln!(stdin, "{words}").and_then(|()| stdin.flush()).map_err(|error| trouble("write", &error))
    }

    /// The next word, or `None` when the child has ended.
    fn next(&mut self) -> Result<Option<Word>, Fault> {
        let word = match self.words.recv_timeout(PATIENCE) {
            Ok(word) => word,
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
            Err(RecvTimeoutError::Timeout) => {
                let detail = format!("the child process hangs, after it began commit {}", self.begun);
                return Err(Fault::new(Clause::Errors, detail));
            }
        };
        match &word {
            Word::Begin(n) => self.begun = *n,
            Word::Durable(n) => self.durable = *n,
            Word::Failed(n, kind) => self.failed = Some((*n, kind.clone())),
            Word::Pause(_) | Word::Broken => {}
        }
        Ok(Some(word))
    }

    /// Goes on until the child says a word like this.
    fn until(&mut self, wanted: impl Fn(&Word) -> bool) -> Result<(), Fault> {
        loop {
            match self.next()? {
                Some(word) if wanted(&word) => return Ok(()),
                Some(Word::Pause(_)) => self.order("go")?,
                Some(Word::Broken) => {
                    return Err(Fault::new(
                        Clause::Atomic,
                        "the child found its store in no state of the sequence",
                    ));
                }
                Some(Word::Failed(n, kind)) => {
                    return Err(Fault::new(
                        Clause::Errors,
                        format!("commit {n} failed in the child: {kind}"),
                    ));
                }
                Some(_) => {}
                None => {
                    let detail =
                        format!("the child process ended by itself, after it began commit {}", self.begun);
                    return Err(Fault::new(Clause::Errors, detail));
                }
            }
        }
    }

    /// Kills it and takes in what it still told.
    fn kill(&mut self) -> Result<(), Fault> {
        self.child.kill().map_err(|error| trouble("kill", &error))?;
        self.child.wait().map_err(|error| trouble("wait", &error))?;
        while self.next()?.is_some() {}
        Ok(())
    }

    /// Which state the store is in that it left behind.
    fn left<B: Backend>(&self, backend: &B, place: &B::Place, growth: Growth) -> Result<u32, Fault> {
        let (durable, begun) = (self.durable, self.begun);
        let n = state(&*backend.open(place)?, growth)?;
        ensure!(n >= durable, Durable, "the store is at commit {n}, but {durable} was durable");
        ensure!(n <= begun, Ordered, "the store is at commit {n}, but only {begun} was begun");
        Ok(n)
    }
}

pub(super) fn check_kills<B: Backend>(backend: &B, seed: u64) -> Done {
    let place = backend.new_place();
    if backend.child(&place).is_none() {
        return Ok(Outcome::Skipped("the backend names no child process"));
    }
    let mut rng = Rng::from_number(seed);
    let (mut durable, mut at, mut lost) = (0, 0, 0);
    for round in 0..KILLS {
        let Some(command) = backend.child(&place) else { continue };
        let mut running = Running::start(command, Growth::Replace, durable)?;
        let first = at + 1 + rng.below(12) as u32;
        match round % 3 {
            // Between two commits: the child waits.
            0 => running.until(|word| matches!(word, Word::Pause(n) if *n > first))?,
            // In the middle of one: it was just begun.
            1 => running.until(|word| *word == Word::Begin(first))?,
            // Anywhere, while it goes on.
            _ => {
                running.until(|word| matches!(word, Word::Durable(_)))?;
                std::thread::sleep(Duration::from_micros(rng.below(30_000)));
            }
        }
        running.kill()?;
        let begun = running.begun;
        let context =
            |fault: Fault| Fault::new(fault.clause, format!("kill {round}, seed {seed}: {}", fault.detail));
        at = running.left(backend, &place, Growth::Replace).map_err(context)?;
        durable = running.durable;
        lost += begun - at;
    }
    Ok(Outcome::Passed(format!("{KILLS} kills, {at} commits, {lost} begun and not there afterwards")))
}

#[cfg(not(unix))]
pub(super) fn check_no_room<B: Backend>(_backend: &B) -> Done {
    Ok(Outcome::Skipped("the size of files is limited by a Unix shell"))
}

#[cfg(unix)]
pub(super) fn check_no_room<B: Backend>(backend: &B) -> Done {
    let place = backend.new_place();
    let Some(command) = backend.child(&place) else {
        return Ok(Outcome::Skipped("the backend names no child process"));
    };
    // A store that needs more room than that to begin with has it.
    drop(backend.open(&place)?);
    let mut running = Running::start(without_room(&command), Growth::Pile, 0)?;
    while running.next()?.is_some() {}
    let status = running.child.wait().map_err(|error| trouble("wait", &error))?;
    let n = running.left(backend, &place, Growth::Pile)?;
    let Some((failed, kind)) = running.failed.take() else {
        ensure!(
            running.begun > PILE,
            AfterError,
            "without room the child ended ({status}) in commit {}",
            running.begun
        );
        return Ok(Outcome::Skipped("the child met no limit on the size of its files"));
    };
    // With room again the batch can be repeated.
    let store = backend.open(&place)?;
    for again in n + 1..=failed {
        store.commit(batch(&*store, again, Growth::Pile), Durability::Durable)?;
    }
    let now = state(&*store, Growth::Pile)?;
    ensure!(now == failed, AfterError, "commit {failed} was repeated, and the state is {now}");
    Ok(Outcome::Passed(format!("commit {failed} failed ({kind}), the store was at {n}")))
}

/// The same command, but a write beyond the limit is an error (`EFBIG`).
#[cfg(unix)]
fn without_room(command: &Command) -> Command {
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f \"$1\" && shift && exec \"$@\"", "sh", ROOM]);
    limited.arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(key, value),
            None => limited.env_remove(key),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        limited.current_dir(folder);
    }
    limited
}
