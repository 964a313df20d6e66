//! The v1 frame: magic, command, length, checksum, payload.

/// What is wrong with a peer's bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The first four bytes are not the network's.
    #[error("wrong magic {0:02x?}")]
    Magic([u8; 4]),
    /// The command is not zero-padded printable ASCII.
    #[error("malformed command")]
    Command,
    /// The payload is longer than this command allows.
    #[error("{command} of {length} bytes")]
    Length {
        /// The command.
        command: String,
        /// The length stated.
        length: u32,
    },
    /// The checksum does not match the payload.
    #[error("wrong checksum on {0}")]
    Checksum(String),
    /// The payload is not what the command says.
    #[error("malformed {0}")]
    Payload(String),
}
