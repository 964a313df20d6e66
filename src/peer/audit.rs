//! The audit log: every ban with its evidence, and everyone who was replaced for a low score.
//!
//! A ban takes a [`Fault`](super::Fault), which names the rule that was broken and, where there is one, the hash of the
//! block or header that broke it. Whoever is slow can be replaced, with the figures of its score as the evidence, and its
//! address stays as good as any.

use super::score::PeerScore;
use super::{CloseReason, ConnectionKind, PeerAddress, PeerId};
use core::fmt;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AuditAction {
    /// The connection was ended, and the address is not dialled any more.
    Discouraged,
    /// The connection was ended because a rule was broken. The address is the host's or on this machine, so that it is
    /// dialled again.
    Disconnected,
    /// The connection was ended to make room for another peer.
    Replaced,
}

impl fmt::Display for AuditAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Discouraged => "discouraged",
            Self::Disconnected => "disconnected",
            Self::Replaced => "replaced",
        })
    }
}

/// One entry. Its `Display` is one line of `key=value`, whatever a peer has said.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct AuditRecord {
    /// When, in Unix seconds.
    pub unix: u64,
    /// Number of the connection.
    pub peer: PeerId,
    /// Address.
    pub address: PeerAddress,
    /// What the connection was for.
    pub kind: ConnectionKind,
    /// What was done.
    pub action: AuditAction,
    /// Why: the fault with its hash, or the low score.
    pub reason: CloseReason,
    /// Its score at the time, with the features; `None` before the handshake is complete.
    pub score: Option<PeerScore>,
}

impl fmt::Display for AuditRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { unix, peer, address, kind, action, reason, score } = self;
        write!(f, "time={unix} peer={peer} address={address} for={:?} action={action}", kind.to_string())?;
        write!(f, " reason={:?}", reason.to_string())?;
        if let Some(PeerScore { score, band, features }) = score {
            write!(f, " score={score} band={band} quickness={:.3}", features.quickness)?;
            write!(f, " stability={:.3} useless={:.3}", features.stability, features.useless)?;
            write!(f, " stalls={:.3} speed={:.3}", features.stalls, features.speed)?;
            write!(f, " overtaken={:.3}", features.overtaken)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Fault;

    #[test]
    fn a_record_is_one_line_that_a_peer_cannot_break() {
        let record = AuditRecord {
            unix: 1_700_000_000,
            peer: PeerId(7),
            address: "192.0.2.1:8333".parse().unwrap(),
            kind: ConnectionKind::BlockRelayOnly,
            action: AuditAction::Discouraged,
            reason: CloseReason::Fault(Fault::Handshake("two\nlines \"of\" it")),
            score: None,
        };
        assert_eq!(
            record.to_string(),
            "time=1700000000 peer=7 address=192.0.2.1:8333 for=\"blocks only\" action=discouraged \
             reason=\"misbehaviour: handshake: two\\nlines \\\"of\\\" it\""
        );
    }
}
