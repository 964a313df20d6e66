//! One request to a source: over a pooled connection, at the allowed rate, within limits, tried again where that helps.
//!
//! 1. A place is taken from the pool, with a connection that stands or to be opened. One that the server has closed in
//!    the meantime is opened anew at once.
//! 2. The answer is read as the bandwidth of the node allows, and its memory ([`room`](super::room)). What is too long, or no HTTP, is a fault.
//! 3. What may pass (no connection, silence, an answer cut short, status 408, 429 and 5xx) is tried again after a wait
//!    that doubles, with jitter, [`SOURCE_ATTEMPTS`] times in all. Redirects are not followed: the host named this server.
//!
//! gzip is asked for in the first request of each kind, and in further ones only if that answer was packed, or said that
//! it varies with what is asked for.

use super::super::connection::{Gate, Surroundings};
use super::super::inbox::Inbound;
use super::room::Share;
use crate::limits::{
    DIAL_MILLIS, LEAST_READ_CHUNK, POOL_WAIT_MILLIS, READ_CHUNK, SOURCE_ATTEMPTS, SOURCE_REQUEST_MILLIS,
    SOURCE_RETRY_MILLIS, SOURCE_SILENCE_MILLIS, SOURCE_SMALL_ANSWER, SOURCE_UNPACK_INLINE,
};
use crate::net::BoxStream;
use crate::net::http::{Coding, HttpError, Response, ResponseReader, request, unpack};
use crate::net::pool::PoolError;
use crate::peer::{PeerAddress, PeerId, SourceUrl};
use crate::trace;
use core::future::Future;
use core::pin::pin;
use core::time::Duration;
use futures::channel::oneshot;
use futures::future::{Either, select};
use futures::io::{AsyncReadExt, AsyncWriteExt};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is asked for; servers pack some kinds and others not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    ChainInfo,
    Headers,
    Block,
}

/// Why there is no body.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The server does not have it.
    #[error("status 404 (is it a bitcoind with -rest=1?)")]
    Absent,
    /// The server can't answer now.
    #[error("status {0}")]
    Busy(u16),
    /// The server does not want to.
    #[error("status {0}{note}", note = if matches!(.0, 300..400) { " (redirects are not followed)" } else { "" })]
    Refused(u16),
    #[error("{0}")]
    Http(#[from] HttpError),
    #[error("{0}")]
    Pool(#[from] PoolError),
    #[error("{0}")]
    Connection(#[from] io::Error),
}

impl Failure {
    /// Whether another attempt may do better.
    fn may_pass(&self) -> bool {
        match self {
            Self::Busy(_) | Self::Pool(_) | Self::Connection(_) => true,
            Self::Http(error) => *error == HttpError::CutShort,
            Self::Absent | Self::Refused(_) => false,
        }
    }

    /// The rule of HTTP that was broken, if one was.
    pub(super) fn fault(&self) -> Option<&'static str> {
        match self {
            Self::Http(HttpError::CutShort | HttpError::Unsupported(_)) => None,
            Self::Http(error) => Some(error.reason()),
            _ => None,
        }
    }

    /// Whether the server did answer.
    pub(super) fn is_answer(&self) -> bool {
        matches!(self, Self::Absent | Self::Busy(_) | Self::Refused(_))
    }
}

/// A body, unpacked, and how many bytes came for it.
pub(super) struct Fetched {
    pub(super) body: Vec<u8>,
    pub(super) received: usize,
    /// Of what bodies of all sources may take, as long as this lives.
    _share: Option<Share>,
}

/// An answer as it came.
struct Answer {
    response: Response,
    received: usize,
    share: Option<Share>,
    /// More came than belongs to it.
    rest: bool,
}

/// Asks one source.
pub(super) struct Fetcher {
    url: SourceUrl,
    target: PeerAddress,
    around: Surroundings,
    /// All bytes that came.
    received: AtomicU64,
    /// Whether gzip is asked for; unknown before the first answer of a kind.
    packs: Mutex<[Option<bool>; 3]>,
    /// Who is told of progress, once the connection has a number.
    listener: Mutex<Option<(PeerId, Arc<Gate>)>>,
}

impl Drop for Fetcher {
    /// Ends the connections that wait for their next use: nobody else has one for them.
    fn drop(&mut self) {
        self.around.outgoing.forget(&self.target);
    }
}

impl Fetcher {
    pub(super) fn new(url: SourceUrl, around: Surroundings) -> Self {
        Self {
            target: PeerAddress::Http(url.clone()),
            url,
            around,
            received: AtomicU64::new(0),
            packs: Mutex::new([None; 3]),
            listener: Mutex::new(None),
        }
    }

    #[cfg(test)]
    pub(super) fn room(&self) -> Arc<super::Room> {
        self.around.source_room.clone()
    }

    pub(super) fn tell(&self, id: PeerId, gate: Arc<Gate>) {
        *self.listener.lock() = Some((id, gate));
    }

    /// Asks for what is at this path below `/rest`, of at most so many bytes, until it comes or the attempts are used up.
    pub(super) async fn get(&self, kind: Kind, path: &str, limit: usize) -> Result<Fetched, Failure> {
        let mut attempt = 1;
        loop {
            match self.once(kind, path, limit).await {
                Err(failure) if failure.may_pass() && attempt < SOURCE_ATTEMPTS => {
                    trace::event!(DEBUG, "asking a source again", path = path, reason = failure);
                    self.around.executor.timer(self.pause(attempt)).await;
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    /// Half to one and a half of a time that doubles.
    fn pause(&self, attempt: u32) -> Duration {
        let mean = SOURCE_RETRY_MILLIS << (attempt - 1).min(10);
        Duration::from_millis(mean / 2 + self.around.rng.lock().below(mean))
    }

    /// One attempt.
    pub(super) async fn once(&self, kind: Kind, path: &str, limit: usize) -> Result<Fetched, Failure> {
        let gzip = self.packs.lock()[kind as usize].unwrap_or(true);
        let path = format!("{}/rest/{path}", self.url.path());
        let request = request(&self.url.host().to_string(), &path, gzip);
        let work = self.exchange(&request, limit);
        let Answer { response, received, share, .. } = self.within(SOURCE_REQUEST_MILLIS, work).await??;
        match response.status {
            200 => {}
            404 | 410 => return Err(Failure::Absent),
            status @ (408 | 429 | 500..) => return Err(Failure::Busy(status)),
            status => return Err(Failure::Refused(status)),
        }
        if gzip {
            self.packs.lock()[kind as usize] = Some(response.coding == Coding::Gzip || response.varies);
        }
        let body = self.unpack(response, limit).await?;
        Ok(Fetched { body, received, _share: share })
    }

    /// Sends a request and reads the answer.
    async fn exchange(&self, request: &[u8], limit: usize) -> Result<Answer, Failure> {
        let wait = Duration::from_millis(POOL_WAIT_MILLIS);
        let mut place = self.around.outgoing.get(&self.target, wait).await?;
        let used = match place.take() {
            Some(mut stream) => match self.converse(&mut stream, request, limit).await {
                // The server has most likely closed it while it was idle, which is no failed attempt.
                Err(Failure::Connection(_) | Failure::Http(HttpError::CutShort)) => None,
                outcome => Some((stream, outcome?)),
            },
            None => None,
        };
        let (stream, answer) = match used {
            Some(used) => used,
            None => {
                let dial = self.around.transport.dial(self.url.host());
                let mut stream = self.within(DIAL_MILLIS, dial).await??;
                place.renewed();
                let outcome = self.converse(&mut stream, request, limit).await?;
                (stream, outcome)
            }
        };
        if answer.response.keep_alive && !answer.rest {
            place.put(stream);
        }
        Ok(answer)
    }

    /// Sends a request on this connection and reads the answer.
    async fn converse(
        &self,
        stream: &mut BoxStream,
        request: &[u8],
        limit: usize,
    ) -> Result<Answer, Failure> {
        self.within(SOURCE_SILENCE_MILLIS, async {
            stream.write_all(request).await?;
            stream.flush().await
        })
        .await??;
        if let Some((id, _)) = &*self.listener.lock() {
            self.around.inbox.send(Inbound::Flushed(*id, request.len()));
        }
        let bandwidth = self.around.bandwidth.as_ref();
        let mut chunk =
            vec![0; bandwidth.map_or(READ_CHUNK / 4, |bandwidth| bandwidth.chunk()).max(LEAST_READ_CHUNK)];
        let mut reader = ResponseReader::new(limit);
        let (mut received, mut share) = (0, None);
        loop {
            if share.is_none()
                && let Some(place) = reader.place().filter(|place| *place > SOURCE_SMALL_ANSWER)
            {
                share = Some(self.around.source_room.take(place).await);
            }
            while let Some(wait) = bandwidth.map(|bandwidth| bandwidth.wait()).filter(|wait| !wait.is_zero())
            {
                self.around.executor.timer(wait).await;
            }
            let read = self.within(SOURCE_SILENCE_MILLIS, stream.read(&mut chunk)).await??;
            if let Some(bandwidth) = bandwidth {
                bandwidth.spend(read);
            }
            received += read;
            let used = match read {
                0 => reader.end().map(|()| 0)?,
                read => reader.feed(chunk.get(..read).unwrap_or_default())?,
            };
            self.tell_progress(read);
            if reader.is_complete() {
                let response = reader.into_response().ok_or(HttpError::CutShort)?;
                return Ok(Answer { response, received, share, rest: used < read });
            }
        }
    }

    fn tell_progress(&self, read: usize) {
        let total = self.received.fetch_add(read as u64, Ordering::Relaxed).saturating_add(read as u64);
        let now = self.around.clock.now().at;
        self.around.traffic.count(read, 0, now);
        if let Some((id, gate)) = &*self.listener.lock() {
            gate.count(read, 0, now);
            if gate.begin_progress() {
                self.around.inbox.send(Inbound::Progress(*id, total));
            }
        }
    }

    async fn within<T>(&self, millis: u64, work: impl Future<Output = T>) -> io::Result<T> {
        let limit = self.around.executor.timer(Duration::from_millis(millis));
        match select(pin!(work), limit).await {
            Either::Left((outcome, _)) => Ok(outcome),
            Either::Right(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// A long body is unpacked where it holds up no other task.
    async fn unpack(&self, response: Response, limit: usize) -> Result<Vec<u8>, Failure> {
        let Response { coding, body, .. } = response;
        if coding == Coding::Identity || body.len() <= SOURCE_UNPACK_INLINE {
            return Ok(unpack(coding, body, limit)?);
        }
        let (reply, unpacked) = oneshot::channel();
        let inbox = self.around.inbox.clone();
        self.around.executor.spawn_blocking(Box::new(move || {
            if let Some(result) = inbox.catch(|| unpack(coding, body, limit)) {
                let _ = reply.send(result);
            }
        }));
        let ended = |_| io::Error::other("the executor has ended");
        Ok(unpacked.await.map_err(ended)??)
    }
}
