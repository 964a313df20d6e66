//! Where the pipeline's time goes: what each stage did and has in hand, and what the connecting thread waited for.
//!
//! These figures are observed and never decide anything. Diagnosis starts here: the stage that the thread waits for
//! most is the one that bounds the sync, and `blocks` among the waits means that it lies before the pipeline.

use super::memory::ChainstateMemory;
use super::pipeline::Chainstate;
use crate::chain::command::ChainCommand;
use crate::verify::pool::Effort;
use core::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What one stage did since the node was built, and what it has in hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StageStatus {
    /// What was done, in the stage's own unit.
    pub done: u64,
    /// What is under way or waits, in the unit that [`PipelineStatus`] names.
    pub waiting: usize,
    /// Time spent, summed over the stage's threads.
    pub busy: Duration,
}

/// How long the connecting thread waited for one thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitStatus {
    /// In all.
    pub total: Duration,
    /// At a stretch.
    pub longest: Duration,
}

/// The pipeline of a chainstate: its stages in the order that a block goes through them, and its waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PipelineStatus {
    /// Decoding and context-free checks. Done: bodies, again each time that one is read back; waiting: bodies.
    pub check: StageStatus,
    /// Looking for coins in the store before their block connects. Done: coins; waiting: jobs.
    pub fetch: StageStatus,
    /// Connecting, on its one thread, its look-ups in the store left out. Done: blocks; waiting: blocks.
    pub connect: StageStatus,
    /// Scripts. Done: inputs; waiting: connected blocks that are not proved.
    pub scripts: StageStatus,
    /// Writing to the store. Done: changes of coins; waiting: coins that are not written.
    pub commit: StageStatus,
    /// Waiting for something to connect: what comes before the pipeline is slow, or, at the tip, nothing is left to do.
    pub wait_blocks: WaitStatus,
    /// Waiting for the body of the next block to be decoded and checked, or read back.
    pub wait_bodies: WaitStatus,
    /// Waiting for coins of the next block, before it connects or while it does.
    pub wait_coins: WaitStatus,
    /// Waiting for scripts: as many blocks are unproved as may be, or what comes next needs all proved.
    pub wait_scripts: WaitStatus,
    /// Waiting for a commit: the cache is full of coins that are not written, or all of them are few and are written at once.
    pub wait_commit: WaitStatus,
    /// What is waited for now.
    pub waiting: Option<Wait>,
    /// Longest time that work for a commit took on the connecting thread at a stretch.
    pub longest_commit_step: Duration,
    /// Memory in use.
    pub memory: ChainstateMemory,
    /// Since when `waiting` lasts, and when these figures were taken.
    pub(crate) under_way: Option<(Instant, Instant)>,
}

impl PipelineStatus {
    /// These figures with what has passed since they were taken, if the connecting thread still waits: it takes them only
    /// when something happens.
    pub(crate) fn up_to_now(mut self) -> Self {
        if let (Some(what), Some((since, taken))) = (self.waiting, self.under_way) {
            let wait = match what {
                Wait::Blocks => &mut self.wait_blocks,
                Wait::Bodies => &mut self.wait_bodies,
                Wait::Coins => &mut self.wait_coins,
                Wait::Scripts => &mut self.wait_scripts,
                Wait::Commit => &mut self.wait_commit,
            };
            let now = Instant::now();
            wait.total += now.saturating_duration_since(taken);
            wait.longest = wait.longest.max(now.saturating_duration_since(since));
            self.under_way = Some((since, now));
        }
        self
    }

    /// What it would take to write all that is not written, as fast as before: about what a shutdown takes. `None` before
    /// anything was written.
    pub fn time_to_write(&self) -> Option<Duration> {
        let each = (self.commit.done > 0).then(|| self.commit.busy.div_f64(self.commit.done as f64))?;
        Some(each.mul_f64(self.commit.waiting as f64))
    }
}

/// What the connecting thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Wait {
    /// Something to connect.
    Blocks,
    /// The next block to be decoded and checked, or read back.
    Bodies,
    /// Its coins to be read.
    Coins,
    /// Scripts to be proved.
    Scripts,
    /// Coins to be written.
    Commit,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blocks => "blocks",
            Self::Bodies => "its body to be decoded",
            Self::Coins => "coins to be read",
            Self::Scripts => "scripts to be proved",
            Self::Commit => "coins to be written",
        })
    }
}

/// The chainstate's own account.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    pub check: Arc<Effort>,
    pub connect: Effort,
    pub commit: Arc<Effort>,
    /// Steps of commits on the connecting thread.
    commit_step: Duration,
    /// Of the time of connecting, what the store took.
    read: Duration,
    waits: [WaitStatus; 5],
    since: Option<(Wait, Instant)>,
}

impl Gauges {
    /// Something is waited for from now on, or still.
    pub fn wait(&mut self, what: Wait) {
        if self.since.is_none_or(|(before, _)| before != what) {
            self.go_on();
            self.since = Some((what, Instant::now()));
        }
    }

    /// The wait is over.
    pub fn go_on(&mut self) {
        if let Some((what, since)) = self.since.take() {
            self.waits[what as usize] = longer(self.waits[what as usize], since.elapsed());
        }
    }

    /// Connecting took so long to read coins: to wait for them is not to work.
    pub fn read(&mut self, time: Duration) {
        if !time.is_zero() {
            self.read += time;
            self.waits[Wait::Coins as usize] = longer(self.waits[Wait::Coins as usize], time);
        }
    }

    /// Takes the time of a commit that nothing could be connected beside, from its start.
    pub fn commit_at_once(&mut self, start: Instant) {
        self.waits[Wait::Commit as usize] = longer(self.waits[Wait::Commit as usize], start.elapsed());
        self.commit_step(start);
    }

    /// Takes the time of a step of a commit, from its start.
    pub fn commit_step(&mut self, start: Instant) {
        self.commit_step = self.commit_step.max(start.elapsed());
    }

    /// The account up to now, with that of stages which keep their own; what stages have in hand is left to the caller.
    pub fn status(&self, fetch: &Effort, scripts: &Effort) -> PipelineStatus {
        let waited = |what: Wait| match self.since {
            Some((now, since)) if now == what => longer(self.waits[what as usize], since.elapsed()),
            _ => self.waits[what as usize],
        };
        let connect = stage(&self.connect);
        PipelineStatus {
            check: stage(&self.check),
            fetch: stage(fetch),
            connect: StageStatus { busy: connect.busy.saturating_sub(self.read), ..connect },
            scripts: stage(scripts),
            commit: stage(&self.commit),
            wait_blocks: waited(Wait::Blocks),
            wait_bodies: waited(Wait::Bodies),
            wait_coins: waited(Wait::Coins),
            wait_scripts: waited(Wait::Scripts),
            wait_commit: waited(Wait::Commit),
            waiting: self.since.map(|(what, _)| what),
            under_way: self.since.map(|(_, since)| (since, Instant::now())),
            longest_commit_step: self.commit_step,
            ..PipelineStatus::default()
        }
    }
}

impl Chainstate {
    /// What the stages did and have in hand, and what connecting waited for.
    pub fn pipeline(&self) -> PipelineStatus {
        let mut status = self.gauges.status(self.prefetch.effort(), self.scripts.effort());
        status.check.waiting = self.checking.len() + self.loading.len();
        status.fetch.waiting = self.prefetch.jobs();
        let is_connect = |command: &&ChainCommand| matches!(command, ChainCommand::Connect(_));
        status.connect.waiting = self.queue.iter().filter(is_connect).count();
        status.scripts.waiting = self.unproved.len();
        status.memory = self.memory();
        status.commit.waiting = status.memory.dirty_entries;
        status
    }

    /// Memory in use.
    pub fn memory(&self) -> ChainstateMemory {
        ChainstateMemory {
            coins: self.coins.bytes(),
            coin_entries: self.coins.entries(),
            dirty_entries: self.coins.dirty(),
            unproved: self.unproved_bytes,
            bodies: self.bodies.bytes(),
        }
    }
}

fn stage(effort: &Effort) -> StageStatus {
    StageStatus { done: effort.done(), busy: effort.busy(), waiting: 0 }
}

fn longer(wait: WaitStatus, by: Duration) -> WaitStatus {
    WaitStatus { total: wait.total + by, longest: wait.longest.max(by) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::sleep;

    #[test]
    fn a_wait_counts_once_however_often_it_is_repeated_and_while_it_lasts() {
        let mut gauges = Gauges::default();
        let status = |gauges: &Gauges| gauges.status(&Effort::default(), &Effort::default());
        let step = Duration::from_millis(5);
        gauges.wait(Wait::Coins);
        sleep(step);
        gauges.wait(Wait::Coins);
        sleep(step);
        let during = status(&gauges).wait_coins;
        assert!(during.longest >= 2 * step && during.total == during.longest);
        gauges.wait(Wait::Commit);
        let coins = status(&gauges).wait_coins;
        sleep(step);
        gauges.go_on();
        gauges.go_on();
        gauges.wait(Wait::Coins);
        sleep(step);
        let status = status(&gauges);
        assert!(status.wait_commit.total >= step);
        assert!(status.wait_coins.total >= coins.total + step);
        assert!(status.wait_coins.longest >= coins.longest);
        assert_eq!(status.wait_scripts, WaitStatus::default());
    }

    #[test]
    fn a_wait_goes_on_in_figures_that_were_taken_before() {
        let mut gauges = Gauges::default();
        gauges.wait(Wait::Commit);
        let taken = gauges.status(&Effort::default(), &Effort::default());
        let step = Duration::from_millis(5);
        sleep(step);
        let later = taken.up_to_now();
        assert!(later.wait_commit.total >= taken.wait_commit.total + step);
        assert!(later.wait_commit.longest >= step);
        assert_eq!(later.wait_coins, taken.wait_coins);
        sleep(step);
        let twice = later.up_to_now().wait_commit;
        assert!(
            twice.total >= 2 * step && twice.total <= twice.longest,
            "nothing is counted twice: {twice:?}"
        );
        assert_eq!(PipelineStatus::default().up_to_now(), PipelineStatus::default());
    }

    #[test]
    fn what_the_store_took_is_waited_for_and_not_worked() {
        let mut gauges = Gauges::default();
        let (step, read) = (Duration::from_millis(5), Duration::from_millis(3));
        gauges.connect.spend(1, || sleep(step));
        let worked = gauges.connect.busy();
        gauges.read(read);
        gauges.read(Duration::ZERO);
        let start = Instant::now();
        sleep(step);
        gauges.commit_at_once(start);
        let status = gauges.status(&Effort::default(), &Effort::default());
        assert_eq!((status.connect.done, status.connect.busy), (1, worked - read));
        assert_eq!(status.wait_coins, WaitStatus { total: read, longest: read });
        assert!(status.wait_commit.longest >= step && status.longest_commit_step >= step);
    }
}
