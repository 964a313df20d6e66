//! Options that concern HTTP sources.

use super::{BuildError, Builder};
use crate::limits::SOURCE_POLL_LEAST_MILLIS;
use crate::peer::{PeerAddress, SourceUrl};
use core::time::Duration;

impl Builder {
    /// Takes headers and blocks from the REST interface of a node, too: a bitcoind of version 24 or later with `-rest=1`,
    /// or a server in front of one. It stands beside peers, is trusted no more than they are, and is tried again for ever.
    /// To use sources and no peers, give each to [`Self::connect`] instead. Needs the feature `http`.
    ///
    /// It goes over the [transport](Self::transport) and the [proxy](Self::proxy) as peers do, in the clear, within
    /// [`Self::bandwidth`]; gzip is used where the server offers it.
    pub fn http_source(mut self, url: SourceUrl) -> Self {
        self.added.push(PeerAddress::Http(url));
        self
    }

    /// Time between two looks at the tip of each HTTP source, which can't announce one: ten seconds by default, at least
    /// [`SOURCE_POLL_LEAST_MILLIS`].
    pub fn source_interval(mut self, interval: Duration) -> Self {
        self.source_interval = interval;
        self
    }

    /// Whether the options about sources make sense.
    pub(super) fn check_sources(&self) -> Result<(), BuildError> {
        let mut named = self.connect.iter().chain(&self.added);
        if cfg!(not(feature = "http")) && named.any(|address| matches!(address, PeerAddress::Http(_))) {
            return Err(BuildError::Option("an HTTP source needs the feature `http`"));
        }
        if self.source_interval < Duration::from_millis(SOURCE_POLL_LEAST_MILLIS) {
            return Err(BuildError::Option("a source is looked at every 100 milliseconds at most"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Network;

    #[test]
    fn options_about_sources_are_checked() {
        let builder = Builder::new(Network::Regtest);
        assert!(builder.check_sources().is_ok());
        let hasty = Builder::new(Network::Regtest).source_interval(Duration::from_millis(99));
        assert!(matches!(hasty.build(), Err(BuildError::Option(_))));
        let source = Builder::new(Network::Regtest).http_source("http://a".parse().unwrap());
        assert_eq!(source.check_sources().is_ok(), cfg!(feature = "http"));
    }
}
