//! What bounds the sync of blocks: the network, the disk, or the processor.
//!
//! 1. While blocks are synced, the engine takes figures at intervals: how long the next block to connect was not there
//!    (its own clock), and what the chainstate's stages did and waited for (from the edge).
//! 2. Each interval is judged by [`Thresholds`]: a commit that the chainstate waited for too long means the disk; a core
//!    that was busy nearly all the time the processor; an answer to `getheaders` that took too long the network; else what
//!    took most of the time, if it was half of it.
//!
//! These are the rules of thumb of those who watch nodes by hand. What follows from a diagnosis is [`super::tuning`]'s
//! business.

use crate::time::Timestamp;
use core::fmt;
use core::time::Duration;

/// From when something counts as the bound.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Thresholds {
    /// An answer to `getheaders` that took longer means the network.
    pub headers_answer: Duration,
    /// A wait for a commit, at a stretch, that was longer means the disk.
    pub flush: Duration,
    /// The part of a core's time, from 0 to 1, from which on the processor is the bound.
    pub core: f64,
    /// The part of the time, from 0 to 1, from which on what was waited for is the bound.
    pub share: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { headers_answer: Duration::from_secs(2), flush: Duration::from_secs(5), core: 0.95, share: 0.5 }
    }
}

/// What the chainstate did since the start; totals, from the edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Waits of the connecting thread for coins to be read.
    pub reading: Duration,
    /// Its waits for coins to be written.
    pub writing: Duration,
    /// The longest of the latter at a stretch.
    pub longest_write: Duration,
    /// What it worked.
    pub connecting: Duration,
    /// Its waits for blocks to be checked and scripts to be proved.
    pub proving: Duration,
    /// What all threads of the pool worked; reading coins is not work.
    pub pool: Duration,
    /// How many they are.
    pub threads: usize,
}

/// What bounds the sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Bound {
    /// Nothing in particular.
    Nothing,
    /// Peers, or the way to them.
    Network,
    /// Reading and writing coins.
    Disk,
    /// Checking.
    Cpu,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing in particular",
            Self::Network => "the network",
            Self::Disk => "the disk",
            Self::Cpu => "the processor",
        })
    }
}

/// How one interval went. Shares are parts of its time, from 0 to 1; they need not add up to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Diagnosis {
    /// When it ended.
    pub at: Timestamp,
    /// What bounded the sync.
    pub bound: Bound,
    /// In which the next block was not there.
    pub network: f64,
    /// In which coins were read or written and nothing could go on.
    pub disk: f64,
    /// In which blocks were connected, or checks were waited for.
    pub cpu: f64,
    /// Bytes a second from all peers.
    pub bytes_per_second: u64,
    /// The last answer to `getheaders`.
    pub headers_answer: Option<Duration>,
    /// Coins were waited for to be written, longer than the threshold at a stretch.
    pub long_flush: bool,
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| (share * 100.0).round();
        let (network, disk, cpu) = (percent(self.network), percent(self.disk), percent(self.cpu));
        write!(f, "bound by {} (of the time: no block there {network} %, ", self.bound)?;
        write!(f, "coins {disk} %, checks {cpu} %; {} kB/s)", self.bytes_per_second / 1_000)
    }
}

/// What the engine knows at the end of an interval; totals since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// How long the next block was not there.
    pub starved: Duration,
    /// Bytes from all peers.
    pub bytes_in: u64,
    /// The last answer to `getheaders`.
    pub headers_answer: Option<Duration>,
}

/// Turns totals into a diagnosis of each interval.
#[derive(Debug)]
pub struct Diagnoser {
    thresholds: Thresholds,
    last: Option<(Timestamp, Own, Figures)>,
}

impl Diagnoser {
    /// Nothing measured yet.
    pub fn new(thresholds: Thresholds) -> Self {
        Self { thresholds, last: None }
    }

    /// Forgets the beginning of the interval: the time until the next figures counts for nothing.
    pub fn pause(&mut self) {
        self.last = None;
    }

    /// Takes the totals at this time; `None` at the beginning of the first interval.
    pub fn observe(&mut self, now: Timestamp, own: Own, figures: Figures) -> Option<Diagnosis> {
        let (at, own_before, before) = self.last.replace((now, own, figures))?;
        let interval = now.since(at).as_secs_f64();
        if interval <= 0.0 {
            return None;
        }
        let share = |now: Duration, then: Duration| {
            (now.saturating_sub(then).as_secs_f64() / interval).clamp(0.0, 1.0)
        };
        let network = share(own.starved, own_before.starved);
        let writing = figures.writing.saturating_sub(before.writing);
        let disk = share(figures.reading + figures.writing, before.reading + before.writing);
        let connecting = share(figures.connecting, before.connecting);
        let cpu = share(figures.connecting + figures.proving, before.connecting + before.proving);
        let pool = figures.pool.saturating_sub(before.pool).as_secs_f64();
        let core = connecting.max(pool / interval / figures.threads.max(1) as f64);
        // One that began in the last interval counts in this one, where its end, or its length, makes it the longest.
        let flush = self.thresholds.flush;
        let grew = figures.longest_write > before.longest_write;
        let long_flush = figures.longest_write >= flush && (grew || writing >= flush);
        let bytes = own.bytes_in.saturating_sub(own_before.bytes_in) as f64 / interval;
        let mut diagnosis = Diagnosis {
            at: now,
            bound: Bound::Nothing,
            network,
            disk,
            cpu,
            bytes_per_second: bytes as u64,
            headers_answer: own.headers_answer,
            long_flush,
        };
        diagnosis.bound = self.judge(&diagnosis, core);
        Some(diagnosis)
    }

    fn judge(&self, diagnosis: &Diagnosis, core: f64) -> Bound {
        if diagnosis.long_flush {
            return Bound::Disk;
        }
        if core >= self.thresholds.core {
            return Bound::Cpu;
        }
        let shares =
            [(diagnosis.network, Bound::Network), (diagnosis.disk, Bound::Disk), (diagnosis.cpu, Bound::Cpu)];
        let most = shares.into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
        match most {
            Some((share, bound)) if share >= self.thresholds.share => bound,
            _ if diagnosis.headers_answer.is_some_and(|time| time > self.thresholds.headers_answer) => {
                Bound::Network
            }
            _ => Bound::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn after(seconds: u64, own: Own, figures: Figures) -> Diagnosis {
        let mut diagnoser = Diagnoser::new(Thresholds::default());
        assert_eq!(diagnoser.observe(Timestamp::ZERO, Own::default(), Figures::default()), None);
        diagnoser.observe(Timestamp::from_millis(seconds * 1_000), own, figures).unwrap()
    }

    #[test]
    fn what_took_most_of_the_time_is_the_bound() {
        let network = after(10, Own { starved: 7 * SECOND, ..Own::default() }, Figures::default());
        assert_eq!((network.bound, network.network), (Bound::Network, 0.7));
        let figures = Figures { reading: 4 * SECOND, writing: 2 * SECOND, ..Figures::default() };
        assert_eq!(after(10, Own::default(), figures).bound, Bound::Disk);
        let figures = Figures { connecting: 3 * SECOND, proving: 3 * SECOND, ..Figures::default() };
        assert_eq!(after(10, Own { starved: 2 * SECOND, ..Own::default() }, figures).bound, Bound::Cpu);
        assert_eq!(after(10, Own::default(), Figures::default()).bound, Bound::Nothing);
    }

    #[test]
    fn a_long_flush_a_full_core_and_a_late_answer_are_told_by_their_thresholds() {
        let flush = Figures { writing: 6 * SECOND, longest_write: 6 * SECOND, ..Figures::default() };
        assert_eq!(after(60, Own { starved: 40 * SECOND, ..Own::default() }, flush).bound, Bound::Disk);
        // Two threads that worked 9.6 of 10 seconds each.
        let pool = Figures { pool: Duration::from_millis(19_200), threads: 2, ..Figures::default() };
        assert_eq!(after(10, Own::default(), pool).bound, Bound::Cpu);
        let late = Own { headers_answer: Some(3 * SECOND), ..Own::default() };
        assert_eq!(after(10, late, Figures::default()).bound, Bound::Network);
        let soon = Own { headers_answer: Some(2 * SECOND), ..Own::default() };
        assert_eq!(after(10, soon, Figures::default()).bound, Bound::Nothing);
    }

    #[test]
    fn an_old_long_flush_is_no_news() {
        let mut diagnoser = Diagnoser::new(Thresholds::default());
        let figures = Figures { writing: 6 * SECOND, longest_write: 6 * SECOND, ..Figures::default() };
        diagnoser.observe(Timestamp::ZERO, Own::default(), figures);
        let next = diagnoser.observe(Timestamp::from_millis(10_000), Own::default(), figures);
        assert_eq!(next.unwrap().bound, Bound::Nothing);
    }

    #[test]
    fn a_long_flush_across_two_intervals_is_told_in_the_second() {
        let mut diagnoser = Diagnoser::new(Thresholds::default());
        let writing = |seconds: u32| Figures {
            writing: seconds * SECOND,
            longest_write: seconds * SECOND,
            ..Figures::default()
        };
        diagnoser.observe(Timestamp::ZERO, Own::default(), writing(0));
        let mut at = |second: u64, seconds| {
            diagnoser
                .observe(Timestamp::from_millis(second * 1_000), Own::default(), writing(seconds))
                .unwrap()
        };
        assert_eq!((at(10, 3).bound, at(20, 6).bound), (Bound::Nothing, Bound::Disk));
        assert_eq!(at(30, 6).bound, Bound::Nothing);
    }

    #[test]
    fn totals_that_go_back_and_no_time_do_no_harm() {
        let mut diagnoser = Diagnoser::new(Thresholds::default());
        let figures = Figures { connecting: 9 * SECOND, ..Figures::default() };
        diagnoser.observe(Timestamp::from_millis(5), Own { bytes_in: 9, ..Own::default() }, figures);
        assert_eq!(diagnoser.observe(Timestamp::from_millis(5), Own::default(), Figures::default()), None);
        let next = diagnoser.observe(Timestamp::from_millis(4), Own::default(), Figures::default());
        assert_eq!(next, None);
    }
}
