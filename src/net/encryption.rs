//! How two ends of a connection come to share keys (BIP324), or find out that one of them speaks v1.
//!
//! 1. Who opened the connection sends its key and some garbage; the other does the same once it has read that key.
//! 2. Both send a terminator that only the other can know, and a first packet that authenticates the garbage.
//! 3. Who was called tells v1 from v2 by the first 16 bytes: magic and `version`. Who calls somebody that closes the
//!    connection instead of sending a key calls once more and speaks v1.
//!
//! A v1 peer that neither closes nor answers can't be told from a slow one. Bitcoin Core calls it once more when that
//! connection ends without a byte received (`V2Transport::ShouldReconnectV1`), which is after its own time limit for a first
//! message, 60 s (`-peertimeout`). Here it is after [`ENCRYPTION_MILLIS`](crate::limits::ENCRYPTION_MILLIS); Core's own v1
//! code closes at the first wrong magic, in a round trip. Only addresses that the host names, or that were told with
//! `NODE_P2P_V2`, are called in v2 at all.
//!
//! The arithmetic is the crate `bip324`'s; here is what is read and written when. What is read before the keys are agreed on
//! is bounded by the protocol: 64 bytes, 4,095 of garbage, 16 of the terminator. Left out: sending decoys.

use crate::limits::MAX_HANDSHAKE_PACKET;
use crate::net::BoxStream;
use crate::rng::Rng;
use bip324::{
    FillBytes, GarbageResult, Handshake, InboundCipher, Initialized, OutboundCipher, ReceivedKey, Role,
    VersionResult,
};
use core::fmt;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use secp256k1::Secp256k1;
use std::io;

/// Bytes of a key as it is sent.
const KEY: usize = 64;
/// Most bytes of garbage that we send; the protocol allows 4,095.
const GARBAGE: u64 = 1_024;
/// Bytes that are asked of the stream at a time.
const CHUNK: usize = 512;

/// What both ends share from now on.
pub struct Session {
    /// The same on both sides; people compare it to see that nobody stands between.
    pub id: [u8; 32],
    /// For [`v2::Decoder`](crate::wire::v2::Decoder).
    pub inbound: InboundCipher,
    /// For [`v2::encode`](crate::wire::v2::encode()).
    pub outbound: OutboundCipher,
    /// Bytes that were read and belong to what follows.
    pub rest: Vec<u8>,
}

/// What was agreed on by who was called.
#[derive(Debug)]
pub enum Agreed {
    /// The other side speaks v1; these bytes of it were read.
    Plain(Vec<u8>),
    /// Both have the same keys.
    Encrypted(Box<Session>),
}

/// Why there are no keys.
#[derive(Debug)]
pub enum NoSession {
    /// The other side sent no key: perhaps it speaks v1 only.
    NoKey(io::Error),
    /// It broke the protocol, or the connection broke.
    Failed(io::Error),
}

impl NoSession {
    /// As an error of the connection.
    pub fn into_io(self) -> io::Error {
        match self {
            Self::NoKey(error) | Self::Failed(error) => error,
        }
    }
}

fn broken(what: &'static str) -> NoSession {
    NoSession::Failed(io::Error::new(io::ErrorKind::InvalidData, what))
}

/// Randomness of one handshake, from which keys come: it has to be the operating system's, or a generator's that has its
/// seed from there.
pub struct Secrets(Rng);

// Neither shows what it holds.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

impl Secrets {
    /// Secrets out of this generator, which is used for nothing else.
    pub fn new(rng: Rng) -> Self {
        Self(rng)
    }

    fn garbage(&mut self) -> Vec<u8> {
        let mut garbage = vec![0; self.0.below(GARBAGE) as usize];
        self.0.fill(&mut garbage);
        garbage
    }
}

impl FillBytes for Secrets {
    fn fill_bytes(&mut self, out: &mut [u8; 32]) {
        self.0.fill(out);
    }
}

/// The first bytes of whoever speaks v1.
fn v1_start(magic: [u8; 4]) -> [u8; 16] {
    let mut start = *b"....version\0\0\0\0\0";
    start[..4].copy_from_slice(&magic);
    start
}

/// Bytes that have been read, from the front.
struct Input<'a> {
    stream: &'a mut BoxStream,
    bytes: Vec<u8>,
}

impl Input<'_> {
    /// Reads until there are so many.
    async fn fill(&mut self, count: usize) -> io::Result<()> {
        while self.bytes.len() < count {
            self.more().await?;
        }
        Ok(())
    }

    async fn more(&mut self) -> io::Result<()> {
        let mut chunk = [0; CHUNK];
        let read = self.stream.read(&mut chunk).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.bytes.extend_from_slice(chunk.get(..read).unwrap_or_default());
        Ok(())
    }

    /// Takes so many from the front; they have to be there.
    fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.bytes.split_off(count.min(self.bytes.len()));
        core::mem::replace(&mut self.bytes, rest)
    }
}

/// As the side that opened the connection. The caller limits the time.
///
/// # Errors
/// [`NoSession`]; the connection is of no more use.
pub async fn call(
    stream: &mut BoxStream,
    magic: [u8; 4],
    mut secrets: Secrets,
) -> Result<Session, NoSession> {
    let garbage = secrets.garbage();
    let handshake = begin(magic, Role::Initiator, &mut secrets)?;
    let mut ours = vec![0; Handshake::<Initialized>::send_key_len(Some(&garbage))];
    let handshake = handshake.send_key(Some(&garbage), &mut ours).map_err(|_| broken("no key of ours"))?;
    stream.write_all(&ours).await.map_err(NoSession::NoKey)?;
    stream.flush().await.map_err(NoSession::NoKey)?;
    let mut input = Input { stream, bytes: Vec::new() };
    input.fill(KEY).await.map_err(NoSession::NoKey)?;
    let key = key(&input.take(KEY));
    if key.starts_with(&magic) {
        return Err(NoSession::NoKey(io::Error::new(io::ErrorKind::InvalidData, "the peer speaks v1")));
    }
    let handshake = handshake.receive_key(key).map_err(|_| broken("no key of theirs"))?;
    agree(input, handshake).await
}

/// As the side that was called, whose peer may speak v1. The caller limits the time.
///
/// # Errors
/// [`NoSession`]; the connection is of no more use.
pub async fn answer(
    stream: &mut BoxStream,
    magic: [u8; 4],
    mut secrets: Secrets,
) -> Result<Agreed, NoSession> {
    let v1 = v1_start(magic);
    let mut input = Input { stream, bytes: Vec::new() };
    loop {
        let seen = input.bytes.len().min(v1.len());
        if input.bytes.get(..seen) != v1.get(..seen) {
            break;
        }
        if seen == v1.len() {
            return Ok(Agreed::Plain(input.bytes));
        }
        input.more().await.map_err(NoSession::NoKey)?;
    }
    input.fill(KEY).await.map_err(NoSession::NoKey)?;
    let key = key(&input.take(KEY));
    let garbage = secrets.garbage();
    let handshake = begin(magic, Role::Responder, &mut secrets)?;
    let mut ours = vec![0; Handshake::<Initialized>::send_key_len(Some(&garbage))];
    let handshake = handshake.send_key(Some(&garbage), &mut ours).map_err(|_| broken("no key of ours"))?;
    input.stream.write_all(&ours).await.map_err(NoSession::Failed)?;
    let handshake = handshake.receive_key(key).map_err(|_| broken("no key of theirs"))?;
    agree(input, handshake).await.map(|session| Agreed::Encrypted(Box::new(session)))
}

fn begin(magic: [u8; 4], role: Role, secrets: &mut Secrets) -> Result<Handshake<Initialized>, NoSession> {
    let curve = Secp256k1::signing_only();
    Handshake::new_with_rng(magic, role, secrets, &curve).map_err(|_| broken("no key of ours"))
}

fn key(bytes: &[u8]) -> [u8; KEY] {
    let mut key = [0; KEY];
    key.copy_from_slice(bytes);
    key
}

/// Both sides alike, once each has the other's key.
async fn agree(mut input: Input<'_>, handshake: Handshake<ReceivedKey<'_>>) -> Result<Session, NoSession> {
    let mut version = vec![0; Handshake::<ReceivedKey<'_>>::send_version_len(None)];
    let mut waiting =
        handshake.send_version(&mut version, None).map_err(|_| broken("no first packet of ours"))?;
    input.stream.write_all(&version).await.map_err(NoSession::Failed)?;
    input.stream.flush().await.map_err(NoSession::Failed)?;
    // The garbage is authenticated by the first packet, so it is kept until then.
    let mut garbage = core::mem::take(&mut input.bytes);
    let (mut handshake, consumed) = loop {
        match waiting.receive_garbage(&garbage) {
            Ok(GarbageResult::FoundGarbage { handshake, consumed_bytes }) => {
                break (handshake, consumed_bytes);
            }
            Ok(GarbageResult::NeedMoreData(same)) => waiting = same,
            Err(_) => return Err(broken("no end of the garbage")),
        }
        input.more().await.map_err(NoSession::Failed)?;
        garbage.append(&mut input.bytes);
    };
    input.bytes = garbage.get(consumed..).unwrap_or_default().to_vec();
    loop {
        input.fill(3).await.map_err(NoSession::Failed)?;
        let mut length = [0; 3];
        length.copy_from_slice(&input.take(3));
        let length =
            handshake.decrypt_packet_len(length).map_err(|_| broken("a first packet without a length"))?;
        if length > MAX_HANDSHAKE_PACKET {
            return Err(broken("a first packet that is too long"));
        }
        input.fill(length).await.map_err(NoSession::Failed)?;
        let mut packet = input.take(length);
        match handshake.receive_version(&mut packet) {
            Ok(VersionResult::Complete { cipher }) => {
                let id = *cipher.id();
                let (inbound, outbound) = cipher.into_split();
                return Ok(Session { id, inbound, outbound, rest: input.bytes });
            }
            Ok(VersionResult::Decoy(same)) => handshake = same,
            Err(_) => return Err(broken("a first packet that is not authentic")),
        }
    }
}

#[cfg(all(test, unix, feature = "native"))]
mod tests {
    use super::*;
    use crate::wire::{Message, v2};
    use async_io::{Async, block_on};
    use futures::future::join;
    use std::os::unix::net::UnixStream;

    const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];

    fn secrets(n: u64) -> Secrets {
        Secrets::new(Rng::from_number(n))
    }

    fn pair() -> (BoxStream, BoxStream) {
        let (a, b) = UnixStream::pair().unwrap();
        (Box::new(Async::new(a).unwrap()), Box::new(Async::new(b).unwrap()))
    }

    #[test]
    fn both_sides_share_a_session_and_understand_each_other() {
        for n in 0..20 {
            let (mut a, mut b) = pair();
            let (called, answered) =
                block_on(join(call(&mut a, MAGIC, secrets(n)), answer(&mut b, MAGIC, secrets(n + 100))));
            let (Ok(mut one), Ok(Agreed::Encrypted(two))) = (called, answered) else { panic!("no session") };
            assert_eq!(one.id, two.id);
            let packet = v2::encode(&mut one.outbound, &Message::Ping(n));
            let mut decoder = v2::Decoder::new(two.inbound);
            assert_eq!(decoder.feed(&packet), Ok(packet.len()));
            assert_eq!(decoder.take_frame().unwrap().into_message(), Ok(Some(Message::Ping(n))));
        }
    }

    #[test]
    fn who_speaks_v1_is_heard() {
        let (mut a, mut b) = pair();
        let start = [&v1_start(MAGIC)[..], b"more"].concat();
        let (_, answered) = block_on(join(a.write_all(&start), answer(&mut b, MAGIC, secrets(1))));
        assert!(matches!(answered, Ok(Agreed::Plain(first)) if first == start));
    }

    #[test]
    fn who_closes_instead_of_sending_a_key_may_speak_v1_only() {
        let (mut a, mut b) = pair();
        let closing = async {
            let _ = b.read(&mut [0; 24]).await;
            drop(b);
        };
        let (called, ()) = block_on(join(call(&mut a, MAGIC, secrets(1)), closing));
        assert!(matches!(called, Err(NoSession::NoKey(_))));
    }

    #[test]
    fn nonsense_behind_a_key_is_an_error_and_is_bounded() {
        let (mut a, mut b) = pair();
        let nonsense = async {
            for _ in 0..200 {
                if a.write_all(&[0xab; 64]).await.is_err() {
                    return;
                }
            }
        };
        let (_, answered) = block_on(join(nonsense, async {
            let answered = answer(&mut b, MAGIC, secrets(1)).await;
            drop(b);
            answered
        }));
        assert!(matches!(answered, Err(NoSession::Failed(_))));
    }
}
