//! What an engine holds at a moment, against the bounds of [`crate::limits`].
//!
//! For whoever watches a node: a simulation after every step, a host that suspects a leak. Each figure has
//! one bound, and [`Load::over`] names the first that is passed.

use super::Engine;
use crate::limits::{
    ADDRESS_BUCKET, BLOCK_REQUESTS_MAX, BLOCK_SIZE_MAX, BLOCKS_IN_FLIGHT_MAX, LACKING_MAX, MAX_ADDR,
    MAX_AUDIT_RECORDS, MAX_DISCOURAGED, MAX_PATH_IN_FLIGHT, MAX_PAYLOAD, MAX_PRESYNCS, MAX_SCORED_ADDRESSES,
    MAX_SERVED_REQUESTS, MAX_SERVED_UNSENT_ALL, MAX_UNSTORED, NEW_BUCKETS, SENDERS_MAX, TRIED_BUCKETS,
    WITHHELD_BLOCKS,
};

/// Counts and bytes, with the bound of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    figures: Vec<(&'static str, u64, u64)>,
}

/// Calls with [`super::Input::Timer`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wakeups {
    /// All of them.
    pub all: u64,
    /// Those at which no deadline had come: none, if the host's timer is right.
    pub empty: u64,
}

impl Load {
    /// Name, value and bound of each figure.
    pub fn figures(&self) -> &[(&'static str, u64, u64)] {
        &self.figures
    }

    /// The first figure above its bound.
    pub fn over(&self) -> Option<(&'static str, u64, u64)> {
        self.figures.iter().copied().find(|(_, value, bound)| value > bound)
    }
}

impl Engine {
    /// What is held now. A walk over the peers.
    pub fn load(&self) -> Load {
        // One more while the tip is stale, a feeler, and the seeds that are asked over a proxy.
        let seeds = if self.config.proxied { self.tree.params().dns_seeds.len() } else { 0 };
        let own = self.config.outbound_target + self.config.block_relay_target + 2 + seeds;
        let places = own + self.dialer.manual_addresses() + self.config.inbound_max;
        let peers = self.peers.len() as u64;
        let scheduler = self.config.scheduler;
        // What was asked for along another chain is still owed.
        let owed = peers * BLOCKS_IN_FLIGHT_MAX as u64;
        let blocks = self.blocks.load();
        let (presyncs, presync_bytes) = self.headers.presync_load();
        // The last delivery of each peer may come before it is paused.
        let unstored = MAX_UNSTORED as u64 + peers * MAX_PAYLOAD as u64;
        let figures = vec![
            ("peers", peers, places as u64),
            ("requests for blocks", self.serving.waiting() as u64, peers * MAX_SERVED_REQUESTS as u64),
            (
                "bytes of blocks to send",
                self.serving.unsent() as u64,
                (MAX_SERVED_UNSENT_ALL + MAX_PAYLOAD) as u64,
            ),
            ("addresses to tell", self.gossip.waiting() as u64, peers * MAX_ADDR as u64),
            (
                "addresses",
                self.dialer.book.len() as u64,
                u64::from(NEW_BUCKETS + TRIED_BUCKETS) * ADDRESS_BUCKET,
            ),
            ("discouraged", self.dialer.book.discouraged() as u64, MAX_DISCOURAGED as u64),
            ("addresses with a score", self.blocks.scores().remembered() as u64, MAX_SCORED_ADDRESSES as u64),
            ("audit records", self.audit.len() as u64, MAX_AUDIT_RECORDS as u64),
            ("unstored bytes", self.unstored_bytes as u64, unstored),
            (
                "commands to the chainstate",
                self.activation.path_in_flight() as u64,
                MAX_PATH_IN_FLIGHT as u64,
            ),
            ("blocks asked for", blocks.flights as u64, owed),
            ("requests of one block", blocks.requests as u64, BLOCK_REQUESTS_MAX as u64),
            ("reserved bytes", blocks.reserved, scheduler.reserved_bytes + BLOCK_SIZE_MAX),
            ("senders", blocks.senders as u64, SENDERS_MAX as u64),
            ("blocks that a peer lacks", blocks.lacking as u64, LACKING_MAX as u64),
            ("withheld blocks", blocks.withheld as u64, WITHHELD_BLOCKS as u64),
            ("presyncs", presyncs as u64, MAX_PRESYNCS as u64 + 1),
            // A presync holds at most some 1.4 MB, as `MAX_PRESYNCS` says.
            ("bytes of presyncs", presync_bytes as u64, (MAX_PRESYNCS as u64 + 1) * 1_500_000),
        ];
        Load { figures }
    }
}
