//! The life of a peer: one table of allowed transitions.

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
