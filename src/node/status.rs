//! Where the node stands, with rates over a sliding window and an estimate of the time left.
//!
//! Samples are taken when the engine reports a change; rates are worked out when somebody looks, so that a
//! sync that stands still shows falling rates although nothing wakes up.

use super::estimate::{EstimateQuality, Estimator, TimeLeft};
use super::traffic::TrafficStatus;
use crate::chain::command::BlockRef;
use crate::chain::tx_counts::TxCounts;
use crate::chainstate::{PipelineStatus, Wait};
use crate::engine::allowance::AllowanceStatus;
use crate::engine::status::{Stage, Status as EngineStatus, WaitsFor};
use crate::limits::{RATE_SAMPLE_MILLIS, RATE_SAMPLES};
use crate::net::pool::PoolCounts;
use crate::relay::reach::Reachability;
use crate::sync::diagnosis::Diagnosis;
use crate::time::Timestamp;
use core::fmt;
use core::time::Duration;
use std::collections::VecDeque;

/// The latest state of a node. `tip` may run ahead of `durable`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Status {
    /// Counts the changes; see [`crate::Handle::status_changed`].
    pub version: u64,
    /// What the node is doing.
    pub stage: Stage,
    /// The proved tip.
    pub tip: BlockRef,
    /// The durable tip: what survives a kill at this moment.
    pub durable: BlockRef,
    /// The best header.
    pub best_header: BlockRef,
    /// Ready peers.
    pub peers: usize,
    /// Blocks asked for and not yet delivered.
    pub in_flight: usize,
    /// No blocks are fetched: [`crate::Handle::pause`] holds, or the day's bytes are used up.
    pub paused: bool,
    /// Blocks connected since the start.
    pub blocks: u64,
    /// Inputs checked since the start (coinbases not counted).
    pub inputs: u64,
    /// Bytes received from all peers since the start.
    pub bytes_in: u64,
    /// Headers accepted since the start.
    pub headers: u64,
    /// Blocks of the active chain below this height, or what undoes them, may be pruned, in this run or an earlier one;
    /// 0 if none was.
    pub pruned_below: u32,
    /// Bytes of the files of blocks and undo data, as of the last commit or deletion.
    pub block_bytes: u64,
    /// Why nothing goes on, for people: the last dial, handshake or look-up that failed while there is no ready
    /// peer, or a damaged block that a reorg waits for and no peer has. `None` otherwise.
    pub trouble: Option<String>,
    /// Under which addresses others reach the node, by what they are known, and why no more are.
    pub reach: Reachability,
    /// Blocks connected a second, over the last half minute.
    pub blocks_per_second: f64,
    /// Inputs checked a second, over the last half minute.
    pub inputs_per_second: f64,
    /// Bytes received a second, over the last half minute.
    pub bytes_per_second: f64,
    /// Blocks that are known and missing, at the present rate; weighed by the transactions that blocks of their heights
    /// have, where the network's chain is known ([`Params::tx_counts`](crate::Params::tx_counts)). `None` before there is a
    /// rate or a header, and in a pause. While the node stops: [`PipelineStatus::time_to_write`].
    pub time_left: Option<Duration>,
    /// The same with a band.
    pub time_left_band: Option<TimeLeft>,
    /// How good the estimates of the last sync of blocks were, once it is over.
    pub estimate_quality: Option<EstimateQuality>,
    /// What the next block to connect waits for, while blocks are synced.
    pub blocker: Option<Blocked>,
    /// What bounds the sync of blocks, as of the last ten seconds.
    pub diagnosis: Option<Diagnosis>,
    /// Where the time of checking and connecting blocks goes, since the start.
    pub pipeline: PipelineStatus,
    /// What flows through the connections, and what waits there.
    pub traffic: TrafficStatus,
    /// The bytes of the day, if they are limited ([`crate::Builder::daily_bytes`]).
    pub allowance: Option<AllowanceStatus>,
    /// The connections that the node opens: how many there are, and what became of them.
    pub connections: PoolCounts,
}

/// What the next block to connect waits for. As text: `height 812001 waits for peer 7 (192.0.2.1:8333), 14 s`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Blocked {
    /// Its height.
    pub height: u32,
    /// What it waits for.
    pub waits_for: WaitsFor,
    /// If it is checked and connected: what that waits for.
    pub within: Option<Wait>,
    /// For how long.
    pub time: Duration,
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "height {} ", self.height)?;
        match (&self.waits_for, self.within) {
            (WaitsFor::Peer(id, address), _) => write!(f, "waits for peer {id} ({address})")?,
            (WaitsFor::AnyPeer, _) => f.write_str("waits for a peer that has it")?,
            (WaitsFor::Checks, Some(wait)) if wait != Wait::Blocks => write!(f, "waits for {wait}")?,
            (WaitsFor::Checks, _) => f.write_str("is being connected")?,
        }
        write!(f, ", {} s", self.time.as_secs())
    }
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Timestamp,
    blocks: u64,
    inputs: u64,
    bytes: u64,
}

/// The engine's last status and the samples for its rates.
#[derive(Debug)]
pub(crate) struct Meter {
    latest: EngineStatus,
    samples: VecDeque<Sample>,
    estimator: Estimator,
}

impl Meter {
    /// A meter that starts with this status, on a chain with so many transactions.
    pub(crate) fn new(at: Timestamp, latest: EngineStatus, counts: TxCounts) -> Self {
        let mut meter = Self {
            samples: VecDeque::with_capacity(RATE_SAMPLES),
            latest: latest.clone(),
            estimator: Estimator::new(counts),
        };
        meter.record(at, latest);
        meter
    }

    /// Takes a new status.
    pub(crate) fn record(&mut self, at: Timestamp, status: EngineStatus) {
        let spaced = self
            .samples
            .back()
            .is_none_or(|last| at.since(last.at) >= Duration::from_millis(RATE_SAMPLE_MILLIS));
        if spaced {
            if self.samples.len() == RATE_SAMPLES {
                self.samples.pop_front();
            }
            let (blocks, inputs, bytes) = (status.blocks, status.inputs, status.bytes_in);
            self.samples.push_back(Sample { at, blocks, inputs, bytes });
        }
        let missing = status.best_header.height.saturating_sub(status.tip.height);
        match status.stage {
            Stage::Blocks if !status.paused => self.estimator.record(at, status.tip.height, missing),
            Stage::Synced => self.estimator.finish(at),
            _ => {}
        }
        self.latest = status;
    }

    /// The engine's last status.
    pub(crate) fn latest(&self) -> &EngineStatus {
        &self.latest
    }

    /// The status as a host sees it at this time.
    pub(crate) fn status(&self, now: Timestamp, version: u64, pipeline: PipelineStatus) -> Status {
        let latest = &self.latest;
        let window = Duration::from_millis(RATE_SAMPLE_MILLIS * RATE_SAMPLES as u64);
        // The last sample before the window, so that the whole window is covered; else the oldest.
        let base = self.samples.iter().rev().find(|s| now.since(s.at) >= window).or(self.samples.front());
        let seconds = base.map_or(0.0, |s| now.since(s.at).as_secs_f64());
        let rate = |latest: u64, then: Option<u64>| match then {
            Some(then) if seconds > 0.0 => latest.saturating_sub(then) as f64 / seconds,
            _ => 0.0,
        };
        let blocks_per_second = rate(latest.blocks, base.map(|s| s.blocks));
        let missing = latest.best_header.height.saturating_sub(latest.tip.height);
        let band = self.estimator.estimate(now, latest.tip.height, missing);
        let band = band.filter(|_| latest.stage == Stage::Blocks && !latest.paused);
        let time_left = match (latest.stage, missing) {
            (Stage::Stopping, _) => pipeline.time_to_write(),
            // Before the headers are there, nobody knows what is missing.
            (Stage::Connecting | Stage::Headers, 0) => None,
            (_, 0) => Some(Duration::ZERO),
            _ if latest.paused => None,
            _ => band.map(|band| band.likely),
        };
        Status {
            version,
            stage: latest.stage,
            tip: latest.tip,
            durable: latest.durable,
            best_header: latest.best_header,
            peers: latest.peers,
            in_flight: latest.in_flight,
            paused: latest.paused,
            blocks: latest.blocks,
            inputs: latest.inputs,
            bytes_in: latest.bytes_in,
            headers: latest.headers,
            pruned_below: latest.pruned_below,
            block_bytes: latest.block_bytes,
            trouble: latest.trouble.clone(),
            reach: latest.reach.clone(),
            blocks_per_second,
            inputs_per_second: rate(latest.inputs, base.map(|s| s.inputs)),
            bytes_per_second: rate(latest.bytes_in, base.map(|s| s.bytes)),
            time_left,
            time_left_band: band,
            estimate_quality: self.estimator.quality(),
            blocker: latest.blocker.as_ref().map(|blocker| Blocked {
                height: blocker.height,
                waits_for: blocker.waits_for.clone(),
                within: pipeline.waiting.filter(|_| blocker.waits_for == WaitsFor::Checks),
                time: now.since(blocker.since),
            }),
            diagnosis: latest.diagnosis,
            pipeline,
            traffic: TrafficStatus::default(),
            allowance: latest.allowance,
            connections: PoolCounts::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::BlockHash;
    use bitcoin::hashes::Hash;

    fn engine_status(blocks: u64, best: u32) -> EngineStatus {
        let at = |height| BlockRef { height, hash: BlockHash::all_zeros() };
        EngineStatus {
            stage: Stage::Blocks,
            tip: at(blocks as u32),
            durable: at(0),
            best_header: at(best),
            peers: 1,
            in_flight: 0,
            paused: false,
            blocks,
            inputs: blocks * 10,
            bytes_in: blocks * 1_000,
            headers: u64::from(best),
            pruned_below: 0,
            block_bytes: 0,
            trouble: None,
            blocker: None,
            diagnosis: None,
            allowance: None,
            reach: Reachability::default(),
        }
    }

    #[test]
    fn rates_follow_the_window_and_fall_when_nothing_happens() {
        let mut meter = Meter::new(Timestamp::ZERO, engine_status(0, 1_000), &[]);
        for second in 1..=10 {
            meter.record(Timestamp::from_millis(second * 1_000), engine_status(second * 50, 1_000));
        }
        let status = meter.status(Timestamp::from_millis(10_000), 3, PipelineStatus::default());
        assert_eq!(status.blocks_per_second, 50.0);
        assert_eq!(status.inputs_per_second, 500.0);
        assert_eq!(status.bytes_per_second, 50_000.0);
        assert_eq!(status.time_left, Some(Duration::from_secs(10)));
        assert_eq!(status.version, 3);
        let later = meter.status(Timestamp::from_millis(20_000), 3, PipelineStatus::default());
        assert_eq!(later.blocks_per_second, 25.0);
        let idle = meter.status(Timestamp::from_millis(3_600_000), 3, PipelineStatus::default());
        assert_eq!(idle.blocks_per_second, 0.0);
        assert_eq!(idle.time_left, None);
    }

    #[test]
    fn a_node_that_stops_says_how_long_writing_takes() {
        let meter =
            Meter::new(Timestamp::ZERO, EngineStatus { stage: Stage::Stopping, ..engine_status(5, 9) }, &[]);
        let left = |pipeline| meter.status(Timestamp::ZERO, 0, pipeline).time_left;
        let mut pipeline = PipelineStatus::default();
        pipeline.commit.waiting = 3_000;
        assert_eq!(left(pipeline), None);
        (pipeline.commit.done, pipeline.commit.busy) = (1_000, Duration::from_millis(20));
        assert_eq!(left(pipeline), Some(Duration::from_millis(60)));
    }

    #[test]
    fn samples_are_bounded() {
        let mut meter = Meter::new(Timestamp::ZERO, engine_status(0, 10), &[]);
        for millis in 0..200_000 {
            meter.record(Timestamp::from_millis(millis), engine_status(millis, 10));
        }
        assert_eq!(meter.samples.len(), RATE_SAMPLES);
    }

    #[test]
    fn nothing_missing_means_no_time_left_once_that_is_known() {
        let meter = Meter::new(Timestamp::ZERO, engine_status(10, 10), &[]);
        assert_eq!(
            meter.status(Timestamp::ZERO, 0, PipelineStatus::default()).time_left,
            Some(Duration::ZERO)
        );
        for stage in [Stage::Connecting, Stage::Headers] {
            let meter = Meter::new(Timestamp::ZERO, EngineStatus { stage, ..engine_status(0, 0) }, &[]);
            assert_eq!(meter.status(Timestamp::ZERO, 0, PipelineStatus::default()).time_left, None);
        }
    }
}
