//! What a stranger sends while keys are agreed on (BIP324), and behind that.
//!
//! Input: bits 0 and 1 of the first byte: a stranger's bytes to who called (0) or was called (1); packets of a peer that
//! keeps the protocol (2, 3). Behind it for 0 and 1: the length of each piece, the bytes. For 2 and 3: packets, each a
//! byte (bit 0: a decoy, bit 1: one bit of it is changed), two of length, the contents.

use crate::feed::Feed;
use crate::frame::MAGIC;
use crate::stream::Script;
use bip324::PacketType;
use core::pin::Pin;
use core::task::{Context, Poll};
use futures::executor::block_on;
use futures::future::join;
use futures::io::{AsyncRead, AsyncWrite};
use headlong::net::BoxStream;
use headlong::net::encryption::{Agreed, NoSession, Secrets, Session, answer, call};
use headlong::rng::Rng;
use headlong::wire::v2;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

pub fn run(data: &[u8]) {
    let mut feed = Feed::new(data);
    match feed.u8() & 3 {
        mode @ (0 | 1) => stranger(feed, mode == 0),
        _ => peer(feed),
    }
}

fn secrets(n: u64) -> Secrets {
    Secrets::new(Rng::from_number(n))
}

/// It learns no keys, so that no session comes of it; and it is not read for ever.
fn stranger(mut feed: Feed<'_>, called: bool) {
    let piece = usize::from(feed.u8());
    // Enough, again and again, to see the end of what is read.
    let mut bytes = feed.rest().to_vec();
    let repeat = bytes.len() > 64 && called;
    while repeat && bytes.len() < 8_192 {
        bytes.extend_from_within(64..);
    }
    let script = Script::new(&bytes, piece);
    let mut stream: BoxStream = Box::new(script.clone());
    if called {
        let outcome = block_on(call(&mut stream, MAGIC, secrets(1)));
        assert!(matches!(outcome, Err(NoSession::NoKey(_) | NoSession::Failed(_))));
    } else {
        match block_on(answer(&mut stream, MAGIC, secrets(2))) {
            Ok(Agreed::Plain(first)) => {
                assert!(first.starts_with(&MAGIC) && first[4..16] == *b"version\0\0\0\0\0");
            }
            Ok(Agreed::Encrypted(_)) => panic!("a stranger's keys"),
            Err(_) => {}
        }
    }
    let read = script.read();
    assert!(read <= 64 + 4_095 + 16 + 512, "{read} bytes were read of a stranger");
}

/// One direction of a connection in memory.
type Pipe = Arc<Mutex<VecDeque<u8>>>;

struct End {
    from: Pipe,
    to: Pipe,
}

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut pipe = self.from.lock().unwrap_or_else(PoisonError::into_inner);
        if pipe.is_empty() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let count = out.len().min(pipe.len());
        out.iter_mut().zip(pipe.drain(..count)).for_each(|(slot, byte)| *slot = byte);
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.to.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn sessions() -> (Session, Session) {
    let (one, two) = (Pipe::default(), Pipe::default());
    let mut caller: BoxStream = Box::new(End { from: one.clone(), to: two.clone() });
    let mut called: BoxStream = Box::new(End { from: two, to: one });
    let both = join(call(&mut caller, MAGIC, secrets(1)), answer(&mut called, MAGIC, secrets(2)));
    match block_on(both) {
        (Ok(one), Ok(Agreed::Encrypted(two))) => (one, *two),
        _ => panic!("two that keep the protocol share no keys"),
    }
}

/// Packets arrive as they were sent until one was changed, and none after that.
fn peer(mut feed: Feed<'_>) {
    let (mut sender, receiver) = sessions();
    let mut decoder = v2::Decoder::new(receiver.inbound);
    while !feed.is_empty() {
        let (kind, length) = (feed.u8(), usize::from(feed.u16()));
        let contents = feed.take(length);
        let packet_type = if kind & 1 == 1 { PacketType::Decoy } else { PacketType::Genuine };
        let mut packet = vec![0; bip324::OutboundCipher::encryption_buffer_len(contents.len())];
        sender.outbound.encrypt(contents, &mut packet, packet_type, None).expect("it has the length");
        let changed = kind & 2 == 2;
        if changed {
            // Behind the length, which no tag protects by itself.
            let at = 3 + usize::from(kind) % (packet.len() - 3);
            packet[at] ^= 1;
        }
        let mut rest = packet.as_slice();
        while !rest.is_empty() {
            match decoder.feed(rest) {
                Ok(used) => {
                    assert!(used > 0, "the decoder stands still");
                    rest = &rest[used..];
                }
                Err(error) => {
                    assert_eq!(decoder.feed(&[0]), Err(error), "the first error is final");
                    return;
                }
            }
            if let Some(frame) = decoder.take_frame() {
                assert!(packet_type == PacketType::Genuine, "a decoy is no message");
                let _ = frame.into_message();
            }
        }
        assert!(!changed, "a changed packet was taken");
    }
}
