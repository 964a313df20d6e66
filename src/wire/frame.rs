//! The v1 frame, pushed in and taken out.
//!
//! | bytes | field |
//! | --- | --- |
//! | 4 | the network's magic |
//! | 12 | the command, ASCII, padded with zeros |
//! | 4 | length of the payload, little-endian |
//! | 4 | first bytes of the payload's double SHA-256 |
//!
//! 1. [`Decoder::feed`] takes bytes as they come, in any splitting, until a frame is complete.
//! 2. [`Decoder::take_frame`] gives the frame out.
//! 3. [`Frame::verify`] computes the checksum: apart, since for a block it takes milliseconds and belongs on a worker.
//! 4. [`Frame::into_message`] parses; a block is not parsed beyond its header.
//!
//! Each command has its own limit, checked on the header before anything is allocated. A `block` gets the
//! whole of its stated length at once, so that its body is copied only once, to where it stays. Any other
//! payload gets 64 KiB at first, and the rest once these have arrived: a peer that sends headers only makes
//! us hold little. An unknown command is read over and kept nowhere; its checksum is not checked, since
//! nothing depends on it. The first error is final.
//!
//! Bitcoin Core: `V1Transport` in `net.cpp`, `CMessageHeader` in `protocol.cpp`. Core drops a message with a
//! wrong checksum and reads on; here it is an error, as it cannot happen on a transport that delivers what
//! was sent. BIP324 has its own framing ([`v2`](super::v2)).

use super::message::Message;
use crate::limits;
use bitcoin::hashes::{Hash, sha256d};
use core::fmt;

/// Bytes before the payload.
pub const HEADER_SIZE: usize = 24;

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
    /// An encrypted packet that does not come from whom the keys are shared with.
    #[error("not authentic")]
    Authentication,
    /// The payload is not what the command says.
    #[error("malformed {0}")]
    Payload(String),
}

/// A command: up to twelve printable ASCII characters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Command([u8; 12]);

impl Command {
    /// The command of this name; `None` if it is over twelve characters or not printable ASCII.
    pub fn new(name: &str) -> Option<Self> {
        let mut padded = [0; 12];
        padded.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        Self::parse(padded).filter(|command| command.as_str().len() == name.len())
    }

    /// A command as a header has it; `None` if it is malformed.
    pub fn parse(padded: [u8; 12]) -> Option<Self> {
        let end = padded.iter().position(|byte| *byte == 0).unwrap_or(padded.len());
        let (name, padding) = padded.split_at(end);
        let good = name.iter().all(|byte| (b' '..=b'~').contains(byte)) && padding.iter().all(|b| *b == 0);
        good.then_some(Self(padded))
    }

    /// Its name, without padding.
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        core::str::from_utf8(&self.0[..end]).unwrap_or_default()
    }

    /// Its twelve bytes.
    pub const fn to_bytes(self) -> [u8; 12] {
        self.0
    }

    /// Bytes that are allocated when a header states this length, which is within the limit.
    fn first_allocation(&self, length: usize) -> usize {
        if self.as_str() == "block" { length } else { length.min(limits::PAYLOAD_FIRST_ALLOCATION) }
    }

    /// The most bytes that its payload may have; `None` for a command that is not known.
    pub fn payload_limit(&self) -> Option<usize> {
        /// A list of `count` items: its count takes five bytes at most.
        const fn list(count: usize, item: usize) -> usize {
            5 + count * item
        }
        Some(match self.as_str() {
            "version" | "verack" | "wtxidrelay" | "sendaddrv2" | "sendheaders" | "sendcmpct"
            | "sendtxrcncl" | "ping" | "pong" | "getaddr" | "mempool" | "feefilter" | "filterclear"
            | "getcfilters" | "getcfheaders" | "getcfcheckpt" => limits::MAX_SMALL_PAYLOAD,
            "addr" => list(limits::MAX_ADDR, 30),
            // Time, services, network, length, address, port.
            "addrv2" => list(limits::MAX_ADDR, 4 + 9 + 1 + 3 + limits::MAX_ADDRV2_BYTES + 2),
            "inv" | "getdata" | "notfound" => list(limits::MAX_INV, 36),
            "getblocks" | "getheaders" => 4 + list(limits::MAX_LOCATOR, 32) + 32,
            // Twice what is needed: a chain that split off mainnet has longer headers, and is to be told
            // from a fault.
            "headers" => list(limits::MAX_HEADERS, 165),
            "block" | "tx" | "cmpctblock" | "blocktxn" => limits::MAX_PAYLOAD,
            "getblocktxn" => 32 + list(limits::MAX_COMPACT_TRANSACTIONS, 3),
            "filterload" => list(limits::MAX_BLOOM_FILTER, 1) + 9,
            "filteradd" => list(limits::MAX_FILTER_ADD, 1),
            "merkleblock" => {
                84 + list(limits::MAX_BLOCK_TRANSACTIONS, 32) + list(limits::MAX_MERKLE_FLAG_BYTES, 1)
            }
            "cfilter" => 33 + list(limits::MAX_BLOCK_FILTER, 1),
            "cfheaders" => 65 + list(limits::MAX_CFHEADERS, 32),
            "cfcheckpt" => 33 + list(limits::MAX_CFCHECKPTS, 32),
            _ => return None,
        })
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// A complete frame. Nothing is known of its payload but its length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is.
    pub command: Command,
    /// The message's content.
    pub payload: Vec<u8>,
    /// The checksum that the header states; `None` where what carried the frame is authentic (BIP324).
    pub checksum: Option<[u8; 4]>,
}

impl Frame {
    /// Computes the checksum of the payload and compares it: hashes all of it.
    ///
    /// # Errors
    /// [`FrameError::Checksum`].
    pub fn verify(&self) -> Result<(), FrameError> {
        if self.checksum.is_none_or(|stated| checksum(&self.payload) == stated) {
            Ok(())
        } else {
            Err(FrameError::Checksum(self.command.to_string()))
        }
    }

    /// Parses the payload; `None` if the command is not known. Does not look at the checksum: call
    /// [`Self::verify`] first.
    ///
    /// # Errors
    /// [`FrameError::Payload`].
    pub fn into_message(self) -> Result<Option<Message>, FrameError> {
        Message::decode_payload(self.command, self.payload)
    }
}

/// The frame of a message.
pub fn encode(magic: [u8; 4], message: &Message) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER_SIZE + message.payload_size_hint());
    frame.extend_from_slice(&magic);
    frame.extend_from_slice(&message.command().to_bytes());
    frame.extend_from_slice(&[0; 8]);
    message.encode_payload(&mut frame);
    let payload = &frame[HEADER_SIZE..];
    // No message of ours comes near 2^32 bytes; one that did would be refused by whoever receives it.
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
    let sum = checksum(payload);
    frame[16..20].copy_from_slice(&length);
    frame[20..24].copy_from_slice(&sum);
    frame
}

/// First four bytes of the double SHA-256.
fn checksum(payload: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = sha256d::Hash::hash(payload).to_byte_array();
    [a, b, c, d]
}

/// How far the frame has come that is being received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Its command.
    pub command: Command,
    /// Bytes of the payload that have arrived.
    pub received: usize,
    /// Bytes of the payload in all.
    pub length: usize,
}

/// Where the decoder is in the stream.
#[derive(Debug)]
enum State {
    /// In a header, of which so many bytes are here.
    Header([u8; HEADER_SIZE], usize),
    /// In the payload of a known command; the frame's vector fills up to this length.
    Payload(Frame, usize),
    /// In the payload of an unknown command.
    Skip(Progress),
    /// A frame is complete and waits to be taken.
    Ready(Frame),
    /// Nothing more is read.
    Failed(FrameError),
}

impl State {
    const fn start() -> Self {
        Self::Header([0; HEADER_SIZE], 0)
    }
}

/// Turns one connection's bytes into frames.
///
/// Feed it, take the frame, feed it what it did not consume:
/// ```
/// use headlong::wire::{Message, frame};
/// let magic = [0xfa, 0xbf, 0xb5, 0xda];
/// let bytes = frame::encode(magic, &Message::Ping(7));
/// let mut decoder = frame::Decoder::new(magic);
/// let mut rest = &bytes[..];
/// while !rest.is_empty() {
///     let used = decoder.feed(rest)?;
///     rest = &rest[used..];
///     if let Some(frame) = decoder.take_frame() {
///         frame.verify()?;
///         assert_eq!(frame.into_message()?, Some(Message::Ping(7)));
///     }
/// }
/// # Ok::<(), frame::FrameError>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    magic: [u8; 4],
    state: State,
    received: u64,
    unknown: u64,
}

impl Decoder {
    /// At the start of a connection on the network of this magic.
    pub const fn new(magic: [u8; 4]) -> Self {
        Self { magic, state: State::start(), received: 0, unknown: 0 }
    }

    /// Takes bytes from the front of `bytes` until they end or a frame is complete, and answers how many it
    /// took. Takes none while a complete frame waits in [`Self::take_frame`].
    ///
    /// # Errors
    /// A wrong magic, a malformed command or a length over the command's limit. The stream cannot be trusted
    /// after that: every later call answers the same error.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, FrameError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let used = match &mut self.state {
                State::Ready(_) => break,
                State::Failed(error) => return Err(error.clone()),
                State::Header(header, have) => {
                    let used = rest.len().min(HEADER_SIZE - *have);
                    header[*have..*have + used].copy_from_slice(&rest[..used]);
                    *have += used;
                    used
                }
                State::Payload(frame, length) => {
                    let used = rest.len().min(*length - frame.payload.len());
                    append(&mut frame.payload, &rest[..used], *length);
                    used
                }
                State::Skip(progress) => {
                    let used = rest.len().min(progress.length - progress.received);
                    progress.received += used;
                    used
                }
            };
            self.received += used as u64;
            rest = &rest[used..];
            self.advance()?;
        }
        Ok(bytes.len() - rest.len())
    }

    /// The complete frame, once.
    pub fn take_frame(&mut self) -> Option<Frame> {
        match core::mem::replace(&mut self.state, State::start()) {
            State::Ready(frame) => Some(frame),
            other => {
                self.state = other;
                None
            }
        }
    }

    /// Bytes taken since the connection began.
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Messages with unknown commands, read over since the connection began.
    pub const fn unknown_count(&self) -> u64 {
        self.unknown
    }

    /// Bytes held of a payload that is not complete.
    pub const fn held(&self) -> usize {
        match &self.state {
            State::Payload(frame, _) => frame.payload.len(),
            _ => 0,
        }
    }

    /// The frame that is being received; `None` between frames and inside a header.
    pub fn progress(&self) -> Option<Progress> {
        match &self.state {
            State::Payload(frame, length) => {
                Some(Progress { command: frame.command, received: frame.payload.len(), length: *length })
            }
            State::Skip(progress) => Some(*progress),
            _ => None,
        }
    }

    /// Goes on to the next state if the present one is complete.
    fn advance(&mut self) -> Result<(), FrameError> {
        let next = match core::mem::replace(&mut self.state, State::start()) {
            State::Header(header, have) => self.read_header(header, have).unwrap_or_else(State::Failed),
            other => other,
        };
        self.state = match next {
            State::Payload(frame, length) if frame.payload.len() == length => State::Ready(frame),
            State::Skip(progress) if progress.received == progress.length => {
                self.unknown += 1;
                State::start()
            }
            other => other,
        };
        match &self.state {
            State::Failed(error) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Checks what is there of a header: the magic as soon as it is complete, all else at its end.
    fn read_header(&self, header: [u8; HEADER_SIZE], have: usize) -> Result<State, FrameError> {
        let [m0, m1, m2, m3, command @ .., l0, l1, l2, l3, c0, c1, c2, c3] = header;
        let magic = [m0, m1, m2, m3];
        if have >= magic.len() && magic != self.magic {
            return Err(FrameError::Magic(magic));
        }
        if have < HEADER_SIZE {
            return Ok(State::Header(header, have));
        }
        let command = Command::parse(command).ok_or(FrameError::Command)?;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let limit = command.payload_limit();
        let size = usize::try_from(length).unwrap_or(usize::MAX);
        if size > limit.unwrap_or(limits::MAX_PAYLOAD) {
            return Err(FrameError::Length { command: command.to_string(), length });
        }
        Ok(if limit.is_some() {
            let payload = Vec::with_capacity(command.first_allocation(size));
            State::Payload(Frame { command, payload, checksum: Some([c0, c1, c2, c3]) }, size)
        } else {
            State::Skip(Progress { command, received: 0, length: size })
        })
    }
}

/// Appends to a payload; one that outgrows its first allocation gets room for all of its `length`.
fn append(payload: &mut Vec<u8>, bytes: &[u8], length: usize) {
    if payload.len() + bytes.len() > payload.capacity() {
        payload.reserve_exact(length - payload.len());
    }
    payload.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::super::message::tests::any_message;
    use super::*;
    use proptest::prelude::*;

    const MAGIC: [u8; 4] = [0xf9, 0xbe, 0xb4, 0xd9];

    /// A frame with any command, whatever it is.
    fn raw(command: &str, payload: &[u8]) -> Vec<u8> {
        let mut frame = MAGIC.to_vec();
        frame.extend_from_slice(&Command::new(command).unwrap().to_bytes());
        frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        frame.extend_from_slice(&checksum(payload));
        frame.extend_from_slice(payload);
        frame
    }

    fn push(decoder: &mut Decoder, mut bytes: &[u8]) -> Result<Vec<Frame>, FrameError> {
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            let used = decoder.feed(bytes)?;
            bytes = &bytes[used..];
            frames.extend(decoder.take_frame());
        }
        Ok(frames)
    }

    fn capacity(decoder: &Decoder) -> usize {
        match &decoder.state {
            State::Payload(frame, _) | State::Ready(frame) => frame.payload.capacity(),
            _ => 0,
        }
    }

    #[test]
    fn the_frame_of_a_verack() {
        let expected = [&MAGIC[..], b"verack\0\0\0\0\0\0", &[0; 4], &[0x5d, 0xf6, 0xe0, 0xe2]].concat();
        assert_eq!(encode(MAGIC, &Message::Verack), expected);
        let mut decoder = Decoder::new(MAGIC);
        assert_eq!(decoder.feed(&expected[..23]), Ok(23));
        assert_eq!(decoder.take_frame(), None);
        // It stops behind the frame, and takes nothing until the frame is taken.
        assert_eq!(decoder.feed(&[&expected[23..], &MAGIC[..]].concat()), Ok(1));
        assert_eq!(decoder.feed(&MAGIC), Ok(0));
        let frame = decoder.take_frame().unwrap();
        assert_eq!(frame.verify(), Ok(()));
        assert_eq!(frame.into_message(), Ok(Some(Message::Verack)));
        assert_eq!(decoder.feed(&MAGIC), Ok(4));
        assert_eq!(decoder.received(), 28);
    }

    #[test]
    fn the_first_error_is_final() {
        let good = encode(MAGIC, &Message::Ping(1));
        let mut long = good.clone();
        long[16..20].copy_from_slice(&1_025u32.to_le_bytes());
        let mut command = good.clone();
        command[4 + 11] = b'x';
        let mut control = good.clone();
        control[4] = 7;
        let cases = [
            (b"GET / HTTP/1.1\r\n\r\n".to_vec(), FrameError::Magic(*b"GET ")),
            (command, FrameError::Command),
            (control, FrameError::Command),
            (long, FrameError::Length { command: "ping".into(), length: 1_025 }),
        ];
        for (bytes, error) in cases {
            let mut decoder = Decoder::new(MAGIC);
            assert_eq!(push(&mut decoder, &good).unwrap().len(), 1);
            assert_eq!(push(&mut decoder, &bytes), Err(error.clone()));
            assert_eq!(decoder.feed(&good), Err(error));
            assert_eq!(decoder.take_frame(), None);
        }
    }

    #[test]
    fn a_wrong_checksum_is_found_by_verify() {
        let mut bytes = encode(MAGIC, &Message::Ping(1));
        *bytes.last_mut().unwrap() ^= 1;
        let frames = push(&mut Decoder::new(MAGIC), &bytes).unwrap();
        assert_eq!(frames[0].verify(), Err(FrameError::Checksum("ping".into())));
    }

    #[test]
    fn unknown_commands_are_counted_and_kept_nowhere() {
        let mut decoder = Decoder::new(MAGIC);
        let mut stream = raw("alert", &vec![1; limits::MAX_PAYLOAD]);
        stream.extend(raw("reject", &[]));
        stream.extend(encode(MAGIC, &Message::Pong(3)));
        let mut frames = Vec::new();
        for piece in stream.chunks(100_000) {
            frames.extend(push(&mut decoder, piece).unwrap());
            assert!(capacity(&decoder) <= 8);
        }
        assert_eq!(decoder.unknown_count(), 2);
        assert_eq!(frames.len(), 1);
        assert_eq!(frames.remove(0).into_message(), Ok(Some(Message::Pong(3))));
        let mut over = raw("alert", &[]);
        over[16..20].copy_from_slice(&(limits::MAX_PAYLOAD as u32 + 1).to_le_bytes());
        assert!(matches!(decoder.feed(&over), Err(FrameError::Length { .. })));
    }

    #[test]
    fn a_header_alone_allocates_little() {
        let mut decoder = Decoder::new(MAGIC);
        let payload = vec![0; limits::MAX_PAYLOAD];
        let stream = raw("cmpctblock", &payload);
        decoder.feed(&stream[..HEADER_SIZE]).unwrap();
        assert!(capacity(&decoder) <= limits::PAYLOAD_FIRST_ALLOCATION);
        let progress = decoder.progress().unwrap();
        let expected = ("cmpctblock", 0, 4_000_000);
        assert_eq!((progress.command.as_str(), progress.received, progress.length), expected);
        decoder.feed(&stream[HEADER_SIZE..HEADER_SIZE + limits::PAYLOAD_FIRST_ALLOCATION]).unwrap();
        assert!(capacity(&decoder) <= limits::PAYLOAD_FIRST_ALLOCATION);
        decoder.feed(&stream[HEADER_SIZE + limits::PAYLOAD_FIRST_ALLOCATION..]).unwrap();
        assert_eq!(capacity(&decoder), payload.len());
        assert_eq!(decoder.take_frame().unwrap().payload, payload);
        assert_eq!(decoder.progress(), None);
    }

    #[test]
    fn the_body_of_a_block_stays_where_it_was_first_copied_to() {
        let mut decoder = Decoder::new(MAGIC);
        let block: Vec<u8> = (0..limits::MAX_PAYLOAD).map(|n| (n % 251) as u8).collect();
        let stream = raw("block", &block);
        decoder.feed(&stream[..HEADER_SIZE]).unwrap();
        assert_eq!(capacity(&decoder), block.len());
        let State::Payload(frame, _) = &decoder.state else { panic!() };
        let place = frame.payload.as_ptr();
        for piece in stream[HEADER_SIZE..].chunks(100_000) {
            assert_eq!(decoder.feed(piece), Ok(piece.len()));
        }
        let frame = decoder.take_frame().unwrap();
        assert_eq!(frame.payload.as_ptr(), place);
        let Ok(Some(Message::Block(raw))) = frame.into_message() else { panic!() };
        assert!(**raw.bytes() == block);
        assert_eq!(raw.bytes().as_ptr(), place);
        // A byte over the limit allocates nothing.
        let mut over = stream[..HEADER_SIZE].to_vec();
        over[16..20].copy_from_slice(&(limits::MAX_PAYLOAD as u32 + 1).to_le_bytes());
        let mut decoder = Decoder::new(MAGIC);
        assert!(matches!(decoder.feed(&over), Err(FrameError::Length { .. })));
        assert_eq!(capacity(&decoder), 0);
    }

    #[test]
    fn commands() {
        assert_eq!(Command::new("sendtxrcncl").unwrap().as_str(), "sendtxrcncl");
        assert_eq!(Command::new("twelve bytes").unwrap().as_str(), "twelve bytes");
        assert_eq!(Command::new("thirteen bytes"), None);
        assert_eq!(Command::new("nul\0"), None);
        assert_eq!(Command::new("ümlaut"), None);
        assert_eq!(Command::new("inv").unwrap().payload_limit(), Some(1_800_005));
        assert_eq!(Command::new("inv2").unwrap().payload_limit(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_splitting_gives_the_same_messages(
            messages in prop::collection::vec(any_message(), 1..6),
            sizes in prop::collection::vec(1usize..400, 1..20),
        ) {
            let stream: Vec<u8> = messages.iter().flat_map(|message| encode(MAGIC, message)).collect();
            let mut decoder = Decoder::new(MAGIC);
            let (mut rest, mut sizes) = (&stream[..], sizes.iter().cycle());
            let mut got = Vec::new();
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
                for frame in push(&mut decoder, piece).unwrap() {
                    frame.verify().unwrap();
                    got.push(frame.into_message().unwrap().unwrap());
                }
                rest = after;
            }
            prop_assert_eq!(got, messages);
            prop_assert_eq!(decoder.received(), stream.len() as u64);
        }

        #[test]
        fn random_bytes_never_panic_nor_allocate_more_than_allowed(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8),
            command in prop::sample::select(vec!["block", "inv", "version", "cmpctblock", "nothing"]),
            length in 0u32..5_000_000,
        ) {
            let mut header = raw(command, &[]);
            header[16..20].copy_from_slice(&length.to_le_bytes());
            for start in [Vec::new(), MAGIC.to_vec(), header] {
                let mut decoder = Decoder::new(MAGIC);
                let mut failed = decoder.feed(&start).err();
                for piece in &pieces {
                    match decoder.feed(piece) {
                        Ok(used) => {
                            prop_assert!(failed.is_none() || piece.is_empty());
                            prop_assert!(used <= piece.len());
                        }
                        Err(error) => {
                            prop_assert!(failed.is_none_or(|first| first == error));
                            failed = Some(error);
                        }
                    }
                    let block = decoder.progress().is_some_and(|frame| frame.command.as_str() == "block");
                    let most = if block { limits::MAX_PAYLOAD } else { limits::PAYLOAD_FIRST_ALLOCATION };
                    prop_assert!(capacity(&decoder) <= most);
                }
            }
        }
    }
}
