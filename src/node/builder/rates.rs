//! Options that concern how much a node sends and receives, and how fast.

use super::{BuildError, Builder};
use crate::limits::{
    BLOCK_RELAY_TARGET, FEELER_INTERVAL, INBOUND_MAX, LEAST_DAILY_BYTES, LEAST_UPLOAD_RATE,
    METERED_FEELER_INTERVAL, METERED_INBOUND, METERED_OUTBOUND, OUTBOUND_TARGET,
};
use crate::node::bandwidth::Bandwidth;
use crate::node::requests::NodeClock;
use crate::relay::rate::RateConfig;
use std::sync::Arc;

/// What a node is generous with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Profile {
    /// As Bitcoin Core's defaults.
    #[default]
    Default,
    /// For links that are paid for by the byte: what other nodes would like to have of us is cut.
    Metered,
}

/// What was chosen of these options.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RateOptions {
    upload: Option<u64>,
    messages: RateConfig,
}

impl RateOptions {
    /// What all connections may write.
    pub(super) fn upload(&self, clock: &NodeClock) -> Option<Arc<Bandwidth>> {
        self.upload.map(|rate| Arc::new(Bandwidth::new(rate, clock.clone())))
    }

    /// The rates of what nobody asked for.
    pub(super) fn messages(&self) -> RateConfig {
        self.messages
    }

    pub(super) fn check(&self, daily_bytes: Option<u64>) -> Result<(), BuildError> {
        if self.upload.is_some_and(|rate| rate < LEAST_UPLOAD_RATE) {
            return Err(BuildError::Option("a node needs to send at least 16,000 bytes a second"));
        }
        if daily_bytes.is_some_and(|bytes| bytes < LEAST_DAILY_BYTES) {
            return Err(BuildError::Option("a node needs at least 10,000,000 bytes a day"));
        }
        if self.messages.least == 0 || self.messages.least > self.messages.most {
            return Err(BuildError::Option("message rates: the least is zero, or more than the most"));
        }
        Ok(())
    }
}

impl Builder {
    /// Sets several options at once; those that are set after it go before it.
    ///
    /// [`Profile::Metered`]: four connections for everything and one for blocks only, instead of eight and two
    /// ([`outbound`](Self::outbound)); at most 16 that others open ([`inbound`](Self::inbound)); a feeler in an hour instead
    /// of two minutes ([`probe_interval`](Self::probe_interval)); no addresses of others are passed on
    /// ([`relay_addresses`](Self::relay_addresses)); and of blocks only the last 288 are offered and served, as by a pruned
    /// node. Fewer peers are a smaller protection against those who would surround a node with their own; blocks are
    /// validated all the same. A bound for the day is [`daily_bytes`](Self::daily_bytes).
    pub fn profile(mut self, profile: Profile) -> Self {
        let metered = profile == Profile::Metered;
        let network = &mut self.network;
        (network.outbound_target, network.block_relay_target) =
            if metered { METERED_OUTBOUND } else { (OUTBOUND_TARGET, BLOCK_RELAY_TARGET) };
        network.inbound_max = if metered { METERED_INBOUND } else { INBOUND_MAX };
        network.probe_interval = if metered { METERED_FEELER_INTERVAL } else { FEELER_INTERVAL };
        network.relay_addresses = !metered;
        network.serve.pruned = metered;
        self
    }

    /// Whether addresses that peers tell are passed on to others; they are by default.
    pub fn relay_addresses(mut self, on: bool) -> Self {
        self.network.relay_addresses = on;
        self
    }

    /// Bytes a day that all connections together may receive and send, at least
    /// [`LEAST_DAILY_BYTES`]; by default there is no limit. When they are used up, no
    /// blocks are fetched and none older than a week are served before the next day, which begins 24 hours after the node
    /// did. With a [`datadir`](Self::datadir) a restart goes on with the day and what was used of it; a kill forgets at most
    /// a hundredth of the limit, or ten minutes. What is under way then still comes: it may be some 128 MB more at a high speed, less with
    /// [`bandwidth`](Self::bandwidth). [`Status::allowance`](crate::Status::allowance) tells.
    pub fn daily_bytes(mut self, bytes: u64) -> Self {
        self.network.daily_bytes = Some(bytes);
        self
    }

    /// Bytes a second that all connections together may send, at least
    /// [`LEAST_UPLOAD_RATE`]; by default as many as they take. Control messages are
    /// counted, but wait for nothing.
    pub fn upload_rate(mut self, bytes_per_second: u64) -> Self {
        self.rates.upload = Some(bytes_per_second);
        self
    }

    /// How fast messages that nobody asked for may follow each other, in both directions, and how long ours may wait.
    pub fn message_rates(mut self, rates: RateConfig) -> Self {
        self.rates.messages = rates;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Network;
    use core::time::Duration;

    fn builder() -> Builder {
        Builder::new(Network::Regtest)
    }

    #[test]
    fn a_metered_node_is_less_generous_and_later_options_go_before() {
        let chosen = |builder: &Builder| {
            let network = &builder.network;
            let places = (network.outbound_target, network.block_relay_target, network.inbound_max);
            (places, network.probe_interval.as_secs(), network.relay_addresses, network.serve.pruned)
        };
        let usual = chosen(&builder());
        assert_eq!(usual, ((8, 2, 114), 120, true, false));
        let metered = builder().profile(Profile::Metered);
        assert_eq!(chosen(&metered), ((4, 1, 16), 3_600, false, true));
        assert_eq!(chosen(&metered.profile(Profile::Default)), usual);
        let mixed = builder().profile(Profile::Metered).outbound(2, 0).probe_interval(Duration::ZERO);
        assert_eq!(chosen(&mixed.inbound(3).relay_addresses(true)), ((2, 0, 3), 0, true, true));
    }

    #[test]
    fn rates_that_nothing_could_live_on_are_refused() {
        let none = RateConfig { least: 0, ..RateConfig::default() };
        let crossed = RateConfig { least: 201, ..RateConfig::default() };
        for builder in [
            builder().upload_rate(LEAST_UPLOAD_RATE - 1),
            builder().daily_bytes(LEAST_DAILY_BYTES - 1),
            builder().message_rates(none),
            builder().message_rates(crossed),
        ] {
            let error = builder.build().unwrap_err();
            assert!(matches!(error, BuildError::Option(_)), "{error}");
        }
        let least = builder().upload_rate(LEAST_UPLOAD_RATE).daily_bytes(LEAST_DAILY_BYTES);
        assert!(least.rates.check(least.network.daily_bytes).is_ok());
    }
}
