//! Spans and events for `tracing`; nothing at all without the feature of that name.
//!
//! Fields are shown with `Display`. Values are borrowed, so both forms accept the same expressions.

/// Records an event: `event!(INFO, "text", name = value, …)`.
#[cfg(feature = "tracing")]
macro_rules! event {
    ($level:ident, $text:literal $(, $name:ident = $value:expr)* $(,)?) => {
        ::tracing::event!(target: "headlong", ::tracing::Level::$level, $($name = %$value,)* $text)
    };
}

/// Records an event: compiled out.
#[cfg(not(feature = "tracing"))]
macro_rules! event {
    ($level:ident, $text:literal $(, $name:ident = $value:expr)* $(,)?) => {{
        $(let _ = &$value;)*
    }};
}

pub(crate) use event;

use crate::chain::params::Network;
use crate::peer::{PeerAddress, PeerId};
use core::future::Future;

/// Runs a node's future inside its span, which tells the nodes of one process apart.
#[cfg(feature = "tracing")]
pub(crate) fn in_node<F: Future>(network: Network, future: F) -> impl Future<Output = F::Output> + use<F> {
    use tracing::Instrument;
    future.instrument(tracing::info_span!(target: "headlong", "node", network = ?network))
}

/// Runs a node's future.
#[cfg(not(feature = "tracing"))]
pub(crate) fn in_node<F: Future>(_network: Network, future: F) -> impl Future<Output = F::Output> + use<F> {
    future
}

/// Runs a connection's future inside its span.
#[cfg(feature = "tracing")]
pub(crate) fn in_connection<F: Future>(
    id: PeerId,
    address: &PeerAddress,
    future: F,
) -> impl Future<Output = F::Output> + use<F> {
    use tracing::Instrument;
    future.instrument(tracing::info_span!(target: "headlong", "connection", peer = %id, address = %address))
}

/// Runs a connection's future.
#[cfg(not(feature = "tracing"))]
pub(crate) fn in_connection<F: Future>(
    _id: PeerId,
    _address: &PeerAddress,
    future: F,
) -> impl Future<Output = F::Output> + use<F> {
    future
}
