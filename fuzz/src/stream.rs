//! A stream whose other side has said everything already; what is written to it is gone.

use core::pin::Pin;
use core::task::{Context, Poll};
use futures::io::{AsyncRead, AsyncWrite};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that come in pieces of one length.
#[derive(Clone, Debug)]
pub struct Script {
    bytes: Arc<[u8]>,
    piece: usize,
    read: Arc<AtomicUsize>,
}

impl Script {
    /// All of these bytes, at most `piece` at a time.
    pub fn new(bytes: &[u8], piece: usize) -> Self {
        Self { bytes: bytes.into(), piece: piece.max(1), read: Arc::default() }
    }

    /// How many there are.
    pub fn length(&self) -> usize {
        self.bytes.len()
    }

    /// How many have been read.
    pub fn read(&self) -> usize {
        self.read.load(Ordering::Relaxed)
    }
}

impl AsyncRead for Script {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        let at = self.read();
        let count = self.piece.min(out.len()).min(self.bytes.len() - at);
        out[..count].copy_from_slice(&self.bytes[at..at + count]);
        self.read.store(at + count, Ordering::Relaxed);
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Script {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
