//! The life of a peer: one table of allowed transitions.
//!
//! ```text
//! Disconnected ──ConnectInitiated──► Connecting ──Connected──► Connected ──DataSynced──► Stable
//!      ▲                                 │                        │  ▲                      │
//!      └── ConnectTimeout, ──────────────┘          HeartbeatMissed  ReconnectSuccess       │
//!          DiscoveryFailed                                        ▼  │                      │
//!                                                               Degraded ◄──HeartbeatMissed─┘
//! ```
//! `GracefulShutdown` leads from every connected state to `ShuttingDown`, and `ConnectTimeout` from
//! `Degraded` and `ShuttingDown` to `Disconnected`. A state is changed by [`Life::apply`] alone, which
//! looks in the table: what is not there cannot happen. Left out: what is *done* in a state (the engine).

use core::fmt;

/// Where a peer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerState {
    /// No connection.
    Disconnected,
    /// Dialling, or in the handshake.
    Connecting,
    /// The handshake is complete.
    Connected,
    /// Connected, but answers are missing.
    Degraded,
    /// In step with our headers.
    Stable,
    /// Leaving: requests are answered or handed back.
    ShuttingDown,
}

impl PeerState {
    /// All states.
    pub const ALL: [Self; 6] = [
        Self::Disconnected,
        Self::Connecting,
        Self::Connected,
        Self::Degraded,
        Self::Stable,
        Self::ShuttingDown,
    ];
}

/// What happens to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerEvent {
    /// We dial it, or it has come to us.
    ConnectInitiated,
    /// Its name has no address, or nobody answers there.
    DiscoveryFailed,
    /// The handshake is complete.
    Connected,
    /// The time for the dial, the handshake, an answer or the leaving is over.
    ConnectTimeout,
    /// A ping was not answered in time, or the connection broke.
    HeartbeatMissed,
    /// It answers again.
    ReconnectSuccess,
    /// It is in step with our headers.
    DataSynced,
    /// One side wants the connection ended.
    GracefulShutdown,
}

impl PeerEvent {
    /// All events.
    pub const ALL: [Self; 8] = [
        Self::ConnectInitiated,
        Self::DiscoveryFailed,
        Self::Connected,
        Self::ConnectTimeout,
        Self::HeartbeatMissed,
        Self::ReconnectSuccess,
        Self::DataSynced,
        Self::GracefulShutdown,
    ];
}

use PeerEvent as E;
use PeerState as S;

/// Every allowed transition: from, event, to. Anything else is refused.
pub const TRANSITIONS: [(PeerState, PeerEvent, PeerState); 19] = [
    (S::Disconnected, E::ConnectInitiated, S::Connecting),
    (S::Disconnected, E::DiscoveryFailed, S::Disconnected),
    (S::Connecting, E::DiscoveryFailed, S::Disconnected),
    (S::Connecting, E::ConnectTimeout, S::Disconnected),
    (S::Connecting, E::Connected, S::Connected),
    (S::Connecting, E::GracefulShutdown, S::ShuttingDown),
    (S::Connected, E::HeartbeatMissed, S::Degraded),
    (S::Connected, E::DataSynced, S::Stable),
    (S::Connected, E::GracefulShutdown, S::ShuttingDown),
    (S::Stable, E::DataSynced, S::Stable),
    (S::Stable, E::HeartbeatMissed, S::Degraded),
    (S::Stable, E::GracefulShutdown, S::ShuttingDown),
    (S::Degraded, E::HeartbeatMissed, S::Degraded),
    (S::Degraded, E::ReconnectSuccess, S::Connected),
    (S::Degraded, E::ConnectTimeout, S::Disconnected),
    (S::Degraded, E::GracefulShutdown, S::ShuttingDown),
    (S::ShuttingDown, E::GracefulShutdown, S::ShuttingDown),
    (S::ShuttingDown, E::HeartbeatMissed, S::Disconnected),
    (S::ShuttingDown, E::ConnectTimeout, S::Disconnected),
];

/// An event that the state does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a peer that is {from:?} cannot take {event:?}")]
pub struct IllegalTransition {
    /// The state.
    pub from: PeerState,
    /// The event.
    pub event: PeerEvent,
}

/// The state of one peer. Starts as [`PeerState::Disconnected`].
#[derive(Debug, PartialEq, Eq)]
pub struct Life(PeerState);

impl Life {
    /// A peer without a connection.
    pub const fn new() -> Self {
        Self(PeerState::Disconnected)
    }

    /// The state.
    pub const fn state(&self) -> PeerState {
        self.0
    }

    /// Where the event would lead.
    ///
    /// # Errors
    /// [`IllegalTransition`] if the table has no such transition.
    pub fn peek(&self, event: PeerEvent) -> Result<PeerState, IllegalTransition> {
        TRANSITIONS
            .iter()
            .find(|(from, on, _)| *from == self.0 && *on == event)
            .map(|(_, _, to)| *to)
            .ok_or(IllegalTransition { from: self.0, event })
    }

    /// Changes the state.
    ///
    /// # Errors
    /// [`IllegalTransition`] if the table has no such transition; the state stays.
    pub fn apply(&mut self, event: PeerEvent) -> Result<PeerState, IllegalTransition> {
        self.0 = self.peek(event)?;
        Ok(self.0)
    }
}

impl Default for Life {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disconnected => "disconnected",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Degraded => "degraded",
            Self::Stable => "stable",
            Self::ShuttingDown => "shutting down",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole relation, written a second time and the other way round: a row a state, a column an
    /// event in the order of `PeerEvent::ALL`; `.` is refused, a letter the state it leads to.
    const RELATION: [(PeerState, &str); 6] = [
        (S::Disconnected, "GD......"),
        (S::Connecting, ".DCD...X"),
        (S::Connected, "....F.SX"),
        (S::Degraded, "...DFC.X"),
        (S::Stable, "....F.SX"),
        (S::ShuttingDown, "...DD..X"),
    ];

    fn letter(state: PeerState) -> char {
        match state {
            S::Disconnected => 'D',
            S::Connecting => 'G',
            S::Connected => 'C',
            S::Degraded => 'F',
            S::Stable => 'S',
            S::ShuttingDown => 'X',
        }
    }

    #[test]
    fn the_whole_relation() {
        assert_eq!(RELATION.map(|(state, _)| state), PeerState::ALL);
        for (state, row) in RELATION {
            assert_eq!(row.len(), PeerEvent::ALL.len());
            for (event, expected) in PeerEvent::ALL.into_iter().zip(row.chars()) {
                let mut life = Life(state);
                match life.apply(event) {
                    Ok(to) => assert_eq!(letter(to), expected, "{state:?} {event:?}"),
                    Err(illegal) => {
                        assert_eq!(expected, '.', "{state:?} {event:?}");
                        assert_eq!(illegal, IllegalTransition { from: state, event });
                        assert_eq!(life.state(), state, "a refused event changes nothing");
                    }
                }
            }
        }
    }

    #[test]
    fn the_table_is_a_function_and_every_state_can_be_reached_and_left() {
        for (at, (from, event, _)) in TRANSITIONS.iter().enumerate() {
            assert!(!TRANSITIONS[at + 1..].iter().any(|(f, e, _)| f == from && e == event));
        }
        for state in PeerState::ALL {
            assert!(TRANSITIONS.iter().any(|(from, _, to)| *from == state && *to != state));
            assert!(TRANSITIONS.iter().any(|(from, _, to)| *to == state && *from != state));
        }
    }
}
