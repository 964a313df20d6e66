//! What is said to gateways and servers that stand between this machine and the Internet: bytes out, bytes in.
//!
//! | protocol | with whom | what comes of it |
//! | --- | --- | --- |
//! | [`pcp`] (RFC 6887) | the default gateway, UDP port 5351 | a port of the gateway leads to ours; with IPv6: its firewall lets peers in |
//! | [`natpmp`] (RFC 6886) | the same | the same, of older gateways, with IPv4 only |
//! | [`stun`] (RFC 8489) | a server on the Internet | the address that it sees us come from |
//!
//! Nothing here waits or sends; `net::native` does. A reply is taken only if it carries what the request did: the nonce of
//! PCP, the transaction of STUN, the port of NAT-PMP, which has neither. What is no such reply is an error, and the caller
//! goes on waiting for the right one: whoever can send to our socket may send anything.

pub mod natpmp;
pub mod pcp;
pub mod stun;

/// The UDP port on which gateways listen for PCP and NAT-PMP (RFC 6887, section 19).
pub const GATEWAY_PORT: u16 = 5_351;

/// Why bytes are not the answer that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// Too short, too long, or a length in it is wrong.
    #[error("malformed")]
    Malformed,
    /// It answers another request, or none.
    #[error("not an answer to this request")]
    Foreign,
    /// The gateway knows only other versions of the protocol.
    #[error("unsupported version")]
    Version,
    /// The other side refuses; its code, of the protocol's RFC.
    #[error("refused with code {0}{hint}", hint = if *.0 == 2 { " (not authorized)" } else { "" })]
    Refused(u16),
    /// It holds no address.
    #[error("no address")]
    NoAddress,
}

impl ReplyError {
    /// Whether it is the other side's last word on the request, so that waiting for another reply is of no use.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Version | Self::Refused(_) | Self::NoAddress)
    }
}

/// So many bytes from this place on.
fn bytes<const N: usize>(data: &[u8], at: usize) -> Result<[u8; N], ReplyError> {
    data.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(ReplyError::Malformed)
}
