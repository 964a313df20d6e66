//! The closed loop: figures at intervals while blocks are synced, a diagnosis of each, and what is done about it.

use super::status::{Blocker, Stage, WaitsFor};
use super::{Engine, Output, cx};
use crate::chain::command::ChainCommand;
use crate::limits::DIAGNOSIS_INTERVAL;
use crate::peer::{CloseReason, ConnectionKind, Cx, Demand, PeerId};
use crate::sync::blocks::SchedulerConfig;
use crate::sync::diagnosis::{Diagnoser, Diagnosis, Figures, Own, Thresholds};
use crate::sync::tuning::{Action, Change, Download, Tuner, TuningConfig};
use crate::time::Timestamp;
use core::time::Duration;

/// What the loop remembers.
#[derive(Debug)]
pub(super) struct Control {
    diagnoser: Diagnoser,
    tuner: Tuner,
    /// When the next figures are due; `None` unless blocks are synced.
    due: Option<Timestamp>,
    latest: Option<Diagnosis>,
    /// How long the next block was not there, and up to when that was counted, and whether it was missing then.
    starved: Duration,
    counted: Timestamp,
    missing: bool,
    /// When the tip last moved.
    moved: Timestamp,
}

impl Control {
    pub(super) fn new(thresholds: Thresholds, tuning: TuningConfig, scheduler: SchedulerConfig) -> Self {
        Self {
            diagnoser: Diagnoser::new(thresholds),
            tuner: Tuner::new(tuning, scheduler),
            due: None,
            latest: None,
            starved: Duration::ZERO,
            counted: Timestamp::ZERO,
            missing: false,
            moved: Timestamp::ZERO,
        }
    }

    /// The deadline of the next figures.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.due
    }

    /// The last diagnosis, while blocks are synced.
    pub(super) fn latest(&self) -> Option<Diagnosis> {
        self.latest
    }

    /// What was done, the latest last.
    pub(super) fn actions(&self) -> Vec<Action> {
        self.tuner.records().copied().collect()
    }

    pub(super) fn on_tip(&mut self, now: Timestamp) {
        self.moved = now;
    }
}

impl Engine {
    /// What the next block to connect waits for; `None` at the end of the chain, or before its blocks may be fetched.
    pub(super) fn blocker(&self) -> Option<Blocker> {
        let (height, asked) = self.blocks.waits_for(&self.tree)?;
        let since = asked.map_or(self.control.moved, |(_, at)| at.max(self.control.moved));
        let waits_for = match asked {
            _ if self.blocks.has_next(&self.tree) => WaitsFor::Checks,
            Some((peer, _)) => WaitsFor::Peer(peer, self.peers.get(&peer)?.view.address.clone()),
            None => WaitsFor::AnyPeer,
        };
        Some(Blocker { height, since, waits_for })
    }

    /// Counts the time that has passed, and asks for figures if they are due.
    pub(super) fn control(&mut self, stage: Stage) {
        let now = self.now.at;
        if self.control.missing {
            self.control.starved += now.since(self.control.counted);
        }
        self.control.counted = now;
        let syncs = stage == Stage::Blocks && !self.resting && !self.allowance.is_spent();
        self.control.missing =
            syncs && self.blocks.waits_for(&self.tree).is_some() && !self.blocks.has_next(&self.tree);
        match self.control.due {
            _ if !syncs => {
                self.control.due = None;
                self.control.latest = None;
                self.control.diagnoser.pause();
            }
            Some(due) if due > now => {}
            _ => {
                self.control.due = Some(now + DIAGNOSIS_INTERVAL);
                self.outputs.push_back(Output::Measure);
            }
        }
    }

    /// The figures have come.
    pub(super) fn on_measured(&mut self, figures: Figures) {
        if self.control.due.is_none() {
            return;
        }
        let own = Own {
            starved: self.control.starved,
            bytes_in: self.bytes_in,
            headers_answer: self.headers.last_answer(self.now.at),
        };
        let Some(diagnosis) = self.control.diagnoser.observe(self.now.at, own, figures) else { return };
        self.control.latest = Some(diagnosis);
        let download = self.download();
        let Some(change) = self.control.tuner.decide(&diagnosis, &download) else { return };
        let settings = self.control.tuner.settings();
        match change {
            Change::Window { .. } | Change::Ahead { .. } => {}
            Change::Cache { to, .. } => {
                self.outputs.push_back(Output::Command(ChainCommand::LendToCoins(to)));
            }
            Change::Replace { peer, .. } => {
                self.replacements.pass(self.now.at);
                self.demands.push(Demand::Close(peer, CloseReason::Replaced));
            }
        }
        self.blocks.set_limits(cx!(self), &self.tree, settings);
        self.settle();
    }

    fn download(&mut self) -> Download {
        let may_replace =
            self.replacements.is_open(self.now.at) && self.dialer.has_replacement(self.now, &mut self.rng);
        let full = self.peers.values().filter(|peer| {
            peer.view.ready && peer.leaving.is_none() && peer.view.kind == ConnectionKind::FullRelay
        });
        let speeds = full.map(|peer| peer.view.id).filter_map(|id: PeerId| {
            let speed = self.blocks.speed(id);
            // One that was never asked has shown nothing.
            (speed > 0 || self.blocks.in_flight(Some(id)) > 0).then_some((id, speed))
        });
        Download {
            window_spent: self.blocks.window_is_spent(&self.tree),
            reserved: self.blocks.reserved(),
            speeds: speeds.collect(),
            may_replace,
        }
    }
}
