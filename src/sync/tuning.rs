//! What is done about what bounds the sync, within limits, and what came of it.
//!
//! | bound | action | limit |
//! | --- | --- | --- |
//! | network, the whole window is asked for | a window twice as wide | [`WINDOW_WIDEST`] times the usual; never on a pruned node |
//! | network, there is room, and answers take [`AHEAD_LATE`] | peers owe what they deliver in twice the time: they are asked anew when half has come, and would idle | [`AHEAD_MOST`] times the usual |
//! | network, three times in a row | the slowest of at least four peers of our own accord makes way for another | only if it delivers less than an eighth of the median, another is known, and none was replaced of late, for its score neither |
//! | disk | memory goes from blocks under way to coins, a quarter at a time | half of it |
//! | disk or processor, three times in a row; network with that memory used up | one step back | the usual |
//!
//! Each action is kept with the diagnosis that caused it, and the next diagnosis as its effect. Being replaced is held
//! against nobody.

use super::diagnosis::{Bound, Diagnosis};
use crate::limits::{
    AHEAD_LATE, AHEAD_MOST, BLOCK_WINDOW, BLOCKS_IN_FLIGHT_SECONDS, LEAST_RESERVED_BYTES, TUNING_RECORDS,
    WINDOW_WIDEST,
};
use crate::peer::PeerId;
use crate::sync::blocks::SchedulerConfig;
use core::fmt;
use std::collections::VecDeque;

/// What may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TuningConfig {
    /// The window of blocks may become wider.
    pub window: bool,
    /// Peers may owe more.
    pub in_flight: bool,
    /// Slow peers of our own accord may be replaced.
    pub replace: bool,
    /// Memory may go from blocks under way to coins.
    pub cache: bool,
}

impl TuningConfig {
    /// All of it.
    pub const ALL: Self = Self { window: true, in_flight: true, replace: true, cache: true };
    /// Nothing.
    pub const NOTHING: Self = Self { window: false, in_flight: false, replace: false, cache: false };
}

impl Default for TuningConfig {
    fn default() -> Self {
        Self::ALL
    }
}

/// What was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// The window, in blocks.
    Window {
        /// Before.
        from: u32,
        /// After.
        to: u32,
    },
    /// The time for which peers are given work, in seconds.
    Ahead {
        /// Before.
        from: u64,
        /// After.
        to: u64,
    },
    /// A slow peer was disconnected, so that another gets its place.
    Replace {
        /// The peer.
        peer: PeerId,
        /// What it delivered, in bytes a second.
        speed: u64,
        /// What peers delivered in the median.
        median: u64,
    },
    /// Memory that coins have got from blocks under way, in bytes.
    Cache {
        /// Before.
        from: u64,
        /// After.
        to: u64,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Window { from, to } => write!(f, "a window of {to} blocks instead of {from}"),
            Self::Ahead { from, to } => write!(f, "peers are given work for {to} s instead of {from}"),
            Self::Replace { peer, speed, median } => {
                let (speed, median) = (speed / 1_000, median / 1_000);
                write!(f, "peer {peer} makes way for another ({speed} kB/s; the median is {median})")
            }
            Self::Cache { from, to } => {
                let (from, to) = (from >> 20, to >> 20);
                write!(f, "{to} MiB of the memory of blocks under way are for coins, instead of {from}")
            }
        }
    }
}

/// Something that was done.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Action {
    /// What.
    pub change: Change,
    /// Why.
    pub cause: Diagnosis,
    /// How the next interval went; `None` as long as there is none.
    pub effect: Option<Diagnosis>,
}

/// How the download stands.
#[derive(Clone, Debug, Default)]
pub struct Download {
    /// Every block of the window is asked for or there, and the window does not reach the end of the chain.
    pub window_spent: bool,
    /// Bytes reserved for blocks under way.
    pub reserved: u64,
    /// Peers of our own accord that deliver blocks: their speeds in bytes a second.
    pub speeds: Vec<(PeerId, u64)>,
    /// One of them may be replaced: the last time is long enough ago, whatever it was for, and another can come.
    pub may_replace: bool,
}

/// The settings that actions change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Blocks past the proved tip that are fetched ahead.
    pub window: u32,
    /// Bytes of blocks that may be under way.
    pub reserved_bytes: u64,
    /// A peer owes what it delivers in so many seconds.
    pub ahead: u64,
    /// Bytes that coins get besides their own.
    pub coins: u64,
}

/// Decides on actions and keeps a record of them.
#[derive(Debug)]
pub struct Tuner {
    config: TuningConfig,
    usual: Settings,
    settings: Settings,
    /// The bound of the last intervals, and how many in a row.
    streak: (Bound, u32),
    records: VecDeque<Action>,
}

impl Tuner {
    /// Begins with these settings, which are the usual ones.
    pub fn new(config: TuningConfig, scheduler: SchedulerConfig) -> Self {
        let usual = Settings {
            window: scheduler.window,
            reserved_bytes: scheduler.reserved_bytes,
            ahead: BLOCKS_IN_FLIGHT_SECONDS,
            coins: 0,
        };
        Self { config, usual, settings: usual, streak: (Bound::Nothing, 0), records: VecDeque::new() }
    }

    /// The settings now.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// What was done; the latest last, at most [`TUNING_RECORDS`].
    pub fn records(&self) -> impl Iterator<Item = &Action> {
        self.records.iter()
    }

    /// What an interval asks for; at most one action. Settings change with it; a peer is the caller's to replace.
    pub fn decide(&mut self, diagnosis: &Diagnosis, download: &Download) -> Option<Change> {
        for record in self.records.iter_mut().rev().take_while(|record| record.effect.is_none()) {
            record.effect = Some(*diagnosis);
        }
        let (bound, in_a_row) = self.streak;
        self.streak =
            (diagnosis.bound, if bound == diagnosis.bound { in_a_row.saturating_add(1) } else { 1 });
        let change = match diagnosis.bound {
            Bound::Network => self.on_network(diagnosis, download),
            Bound::Disk => self.lend_to_coins().or_else(|| self.back()),
            Bound::Cpu => self.back(),
            Bound::Nothing => None,
        }?;
        while self.records.len() >= TUNING_RECORDS {
            self.records.pop_front();
        }
        self.records.push_back(Action { change, cause: *diagnosis, effect: None });
        Some(change)
    }

    fn on_network(&mut self, diagnosis: &Diagnosis, download: &Download) -> Option<Change> {
        if self.streak.1 >= 3
            && let Some(change) = self.replace(download)
        {
            return Some(change);
        }
        let is_full = download.reserved > self.settings.reserved_bytes / 4 * 3;
        if is_full {
            return self.give_back();
        }
        if download.window_spent {
            return self.widen();
        }
        // More work than that keeps no link busier, and the slow would sit on it.
        let late = diagnosis.headers_answer.is_some_and(|time| time >= AHEAD_LATE);
        let (from, most) = (self.settings.ahead, self.usual.ahead * AHEAD_MOST);
        let to = (from * 2).min(most);
        (self.config.in_flight && late && to > from).then(|| {
            self.settings.ahead = to;
            Change::Ahead { from, to }
        })
    }

    fn widen(&mut self) -> Option<Change> {
        // A narrower window than usual has a reason: what waits can't be pruned.
        let may = self.config.window && self.usual.window >= BLOCK_WINDOW;
        let from = self.settings.window;
        let to = from.saturating_mul(2).min(self.usual.window.saturating_mul(WINDOW_WIDEST));
        (may && to > from).then(|| {
            self.settings.window = to;
            Change::Window { from, to }
        })
    }

    fn replace(&self, download: &Download) -> Option<Change> {
        if !self.config.replace || !download.may_replace || download.speeds.len() < 4 {
            return None;
        }
        let mut speeds = download.speeds.clone();
        speeds.sort_unstable_by_key(|(peer, speed)| (*speed, *peer));
        let (&(peer, speed), &(_, median)) = (speeds.first()?, speeds.get(speeds.len() / 2)?);
        (speed < median / 8).then_some(Change::Replace { peer, speed, median })
    }

    fn shift(&mut self, to: u64) -> Option<Change> {
        let from = self.settings.coins;
        (self.config.cache && to != from).then(|| {
            self.settings.coins = to;
            self.settings.reserved_bytes = self.usual.reserved_bytes.saturating_sub(to);
            Change::Cache { from, to }
        })
    }

    fn lend_to_coins(&mut self) -> Option<Change> {
        let most = (self.usual.reserved_bytes / 2)
            .min(self.usual.reserved_bytes.saturating_sub(LEAST_RESERVED_BYTES));
        self.shift((self.settings.coins + self.usual.reserved_bytes / 4).min(most))
    }

    fn give_back(&mut self) -> Option<Change> {
        self.shift(self.settings.coins.saturating_sub(self.usual.reserved_bytes / 4))
    }

    /// What was widened for the network is of no use when something else is the bound.
    fn back(&mut self) -> Option<Change> {
        if self.streak.1 < 3 {
            return None;
        }
        let Settings { window, ahead, .. } = self.settings;
        if window > self.usual.window {
            self.settings.window = (window / 2).max(self.usual.window);
            return Some(Change::Window { from: window, to: self.settings.window });
        }
        if ahead > self.usual.ahead {
            self.settings.ahead = (ahead / 2).max(self.usual.ahead);
            return Some(Change::Ahead { from: ahead, to: self.settings.ahead });
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn diagnosis(bound: Bound, second: u64) -> Diagnosis {
        Diagnosis {
            at: Timestamp::from_millis(second * 1_000),
            bound,
            network: 0.0,
            disk: 0.0,
            cpu: 0.0,
            bytes_per_second: second,
            headers_answer: Some(AHEAD_LATE),
            long_flush: false,
        }
    }

    fn tuner(config: TuningConfig) -> Tuner {
        Tuner::new(config, SchedulerConfig::default())
    }

    #[test]
    fn a_spent_window_widens_up_to_its_limit_and_comes_back_when_something_else_is_the_bound() {
        let mut tuner = tuner(TuningConfig::ALL);
        let spent = Download { window_spent: true, ..Download::default() };
        for second in 0..10 {
            tuner.decide(&diagnosis(Bound::Network, second), &spent);
        }
        assert_eq!(tuner.settings().window, BLOCK_WINDOW * WINDOW_WIDEST);
        for second in 10..20 {
            tuner.decide(&diagnosis(Bound::Cpu, second), &Download::default());
        }
        assert_eq!(tuner.settings(), tuner.usual);
    }

    #[test]
    fn peers_that_answer_late_get_more_work_while_there_is_room() {
        let mut tuner = tuner(TuningConfig::ALL);
        let soon = Diagnosis { headers_answer: None, ..diagnosis(Bound::Network, 0) };
        assert_eq!(tuner.decide(&soon, &Download::default()), None, "links without delay are busy anyway");
        let change = tuner.decide(&diagnosis(Bound::Network, 1), &Download::default());
        assert_eq!(change, Some(Change::Ahead { from: 4, to: 8 }));
        tuner.decide(&diagnosis(Bound::Network, 2), &Download::default());
        tuner.decide(&diagnosis(Bound::Network, 3), &Download::default());
        assert_eq!(tuner.settings().ahead, BLOCKS_IN_FLIGHT_SECONDS * AHEAD_MOST);
        let effects: Vec<_> =
            tuner.records().map(|record| record.effect.map(|effect| effect.bytes_per_second)).collect();
        assert_eq!(effects, [Some(2), Some(3)], "each has the interval after it as its effect");
    }

    #[test]
    fn a_peer_is_replaced_only_if_it_is_far_behind_another_may_come_and_others_are_left() {
        let mut tuner = tuner(TuningConfig::ALL);
        let speeds = |slowest: u64, count: u64, may_replace| {
            let mut all: Vec<_> = (1..count).map(|n| (PeerId(n), 1_000_000)).collect();
            all.push((PeerId(0), slowest));
            // No room, so that nothing else is done.
            Download { speeds: all, reserved: u64::MAX, may_replace, ..Download::default() }
        };
        let mut ask = |second, slowest, count, may| {
            tuner.decide(&diagnosis(Bound::Network, second), &speeds(slowest, count, may))
        };
        assert_eq!(ask(0, 10, 8, true), None);
        assert_eq!(ask(10, 10, 8, true), None, "once is no habit");
        assert_eq!(ask(20, 200_000, 8, true), None, "a fifth is no eighth");
        assert_eq!(ask(30, 10, 3, true), None, "too few are left");
        assert_eq!(ask(40, 10, 8, false), None, "one was replaced of late, or nobody else is known");
        let replace = Change::Replace { peer: PeerId(0), speed: 10, median: 1_000_000 };
        assert_eq!(ask(50, 10, 8, true), Some(replace));
    }

    #[test]
    fn memory_goes_lend_to_coins_when_they_are_the_bound_and_back_when_blocks_lack_it() {
        let mut tuner = tuner(TuningConfig::ALL);
        let usual = tuner.usual.reserved_bytes;
        for second in 0..5 {
            tuner.decide(&diagnosis(Bound::Disk, second), &Download::default());
        }
        let settings = tuner.settings();
        assert_eq!((settings.coins, settings.reserved_bytes), (usual / 2, usual / 2));
        let full = Download { reserved: usual / 2, ..Download::default() };
        tuner.decide(&diagnosis(Bound::Network, 6), &full);
        assert_eq!(tuner.settings().coins, usual / 4);
        tuner.decide(&diagnosis(Bound::Network, 7), &Download { reserved: usual, ..Download::default() });
        assert_eq!(tuner.settings(), tuner.usual);
    }

    #[test]
    fn what_is_turned_off_is_not_done_and_records_are_bounded() {
        let mut tuner = tuner(TuningConfig::NOTHING);
        let slow = (0..8).map(|n| (PeerId(n), if n == 0 { 1 } else { 1 << 20 })).collect();
        for (n, bound) in [Bound::Network, Bound::Disk, Bound::Cpu, Bound::Nothing].into_iter().enumerate() {
            for second in 0..9 {
                for window_spent in [true, false] {
                    let speeds = Vec::clone(&slow);
                    let download = Download { window_spent, reserved: 0, speeds, may_replace: true };
                    let at = n as u64 * 100 + second;
                    assert_eq!(tuner.decide(&diagnosis(bound, at), &download), None);
                }
            }
        }
        let mut tuner = self::tuner(TuningConfig::ALL);
        for n in 0..1_000 {
            let bound = if n % 8 < 4 { Bound::Network } else { Bound::Cpu };
            tuner.decide(&diagnosis(bound, n), &Download::default());
        }
        assert_eq!(tuner.records().count(), TUNING_RECORDS);
    }

    #[test]
    fn a_pruned_nodes_window_stays() {
        let scheduler = SchedulerConfig { window: 64, ..SchedulerConfig::default() };
        let mut tuner = Tuner::new(TuningConfig::ALL, scheduler);
        let spent = Download { window_spent: true, ..Download::default() };
        assert_eq!(tuner.decide(&diagnosis(Bound::Network, 0), &spent), None);
    }
}
