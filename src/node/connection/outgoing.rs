//! What waits to be written to a connection, and the task that writes it.
//!
//! 1. The driver puts messages into the connection's [`Outbox`]; the writer takes them in the outbox's order.
//! 2. Each is encoded when its turn comes (a long one on a thread of the blocking pool) and written in pieces, so that what
//!    has left is told piece by piece. A message is not interrupted by another.
//! 3. With an upload rate each piece is paid for before it is written, but those of control messages: they wait for nothing.

use super::{Gate, Out, Seal, Surroundings, elsewhere};
use crate::limits::{CLOSE_MILLIS, READ_CHUNK, WRITE_CHUNK};
use crate::node::bandwidth::Bandwidth;
use crate::node::inbox::Inbound;
use crate::node::traffic::Traffic;
use crate::node::wait::let_others_run;
use crate::peer::PeerId;
use crate::relay::priority::{Departure, Next, Outbox, Priority, Pushed, QueueCounts};
use crate::relay::rate::{Bandwidths, RateConfig};
use crate::time::Timestamp;
use crate::trace;
use crate::wire::Message;
use core::future::{Future, poll_fn};
use core::pin::pin;
#[cfg(feature = "http")]
use core::task::Context;
use core::task::{Poll, Waker};
use core::time::Duration;
use futures::channel::oneshot;
use futures::future::{Either, select};
use futures::io::AsyncWriteExt;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;

/// The queue between the driver and a connection's writer.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<QueueState>,
    traffic: Arc<Traffic>,
    /// Whether the other side opened the connection.
    inbound: bool,
}

#[derive(Debug)]
struct QueueState {
    outbox: Outbox,
    /// Something changed since the writer looked.
    changed: bool,
    /// Nothing more comes.
    ended: bool,
    waiting: Option<Waker>,
}

/// What the writer does next.
enum Turn {
    Write(Departure),
    Wait(Option<Timestamp>),
    End,
}

impl Queue {
    pub(super) fn new(rates: RateConfig, now: Timestamp, traffic: Arc<Traffic>, inbound: bool) -> Arc<Self> {
        let outbox = Outbox::new(rates, now);
        let state = QueueState { outbox, changed: false, ended: false, waiting: None };
        let queue = Arc::new(Self { state: Mutex::new(state), traffic, inbound });
        queue.traffic.opened(&queue);
        queue
    }

    /// Changes what waits and wakes the writer.
    fn change<T>(&self, change: impl FnOnce(&mut QueueState) -> T) -> T {
        let (result, woken) = {
            let mut state = self.state.lock();
            let before = state.outbox.bytes();
            state.changed = true;
            let result = change(&mut state);
            if self.inbound {
                self.traffic.change_unsent(before, state.outbox.bytes());
            }
            (result, state.waiting.take())
        };
        if let Some(waker) = woken {
            waker.wake();
        }
        result
    }

    pub(super) fn push(&self, now: Timestamp, message: Message, news: bool) -> Pushed {
        self.change(|state| state.outbox.push(now, message, news))
    }

    /// Nothing more comes: the writer ends when it has written what waits.
    pub(super) fn end(&self) {
        self.change(|state| state.ended = true);
    }

    /// Forgets what waits: nobody will write it.
    pub(super) fn clear(&self) {
        self.change(|state| state.outbox.clear());
    }

    pub(in crate::node) fn sent(&self, held: usize) {
        self.change(|state| state.outbox.sent(held));
    }

    /// The next turn of the writer, and whether announcements were dropped on the way.
    fn turn(&self, bandwidths: Bandwidths, now: Timestamp) -> (Turn, bool) {
        self.change(|state| {
            state.changed = false;
            let Bandwidths { received, sent } = bandwidths;
            state.outbox.follow(received.saturating_add(sent), now);
            let turn = match state.outbox.pop(now) {
                Next::Send(departure) => Turn::Write(departure),
                _ if state.ended => Turn::End,
                Next::Wait(until) => Turn::Wait(Some(until)),
                Next::Empty => Turn::Wait(None),
            };
            (turn, state.outbox.take_lost())
        })
    }

    /// The next message, for a source: it writes nothing by itself, so that no rate holds anything back.
    #[cfg(feature = "http")]
    pub(in crate::node) fn poll_take(&self, now: Timestamp, cx: &mut Context<'_>) -> Poll<Option<Departure>> {
        let mut state = self.state.lock();
        match state.outbox.pop(now) {
            Next::Send(departure) => Poll::Ready(Some(departure)),
            _ if state.ended => Poll::Ready(None),
            // What waits for its rate is news, for which a source has no use.
            Next::Wait(_) | Next::Empty => {
                state.waiting = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Waits until something has been changed by others.
    fn changed(&self) -> impl Future<Output = ()> {
        poll_fn(|cx| {
            let mut state = self.state.lock();
            if core::mem::take(&mut state.changed) {
                return Poll::Ready(());
            }
            state.waiting = Some(cx.waker().clone());
            Poll::Pending
        })
    }

    pub(in crate::node) fn counts(&self) -> QueueCounts {
        self.state.lock().outbox.counts()
    }

    pub(super) fn bytes(&self) -> usize {
        self.state.lock().outbox.bytes()
    }

    /// Whether the other side opened the connection.
    pub(super) fn is_inbound(&self) -> bool {
        self.inbound
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let counts = self.state.get_mut().outbox.counts();
        if self.inbound {
            self.traffic.change_unsent(counts.bytes, 0);
        }
        self.traffic.ended(&counts);
    }
}

pub(super) struct Writer {
    pub(super) id: PeerId,
    pub(super) queue: Arc<Queue>,
    pub(super) gate: Arc<Gate>,
    pub(super) around: Surroundings,
}

impl Writer {
    pub(super) async fn run(self, out: oneshot::Receiver<Out>, asked_to_close: oneshot::Receiver<()>) {
        let executor = self.around.executor.clone();
        let limit = pin!(async move {
            // Dropping the other end without a word ends the connection too, by aborting this task.
            if asked_to_close.await.is_err() {
                core::future::pending::<()>().await;
            }
            executor.timer(Duration::from_millis(CLOSE_MILLIS)).await;
        });
        let (id, inbox) = (self.id, self.around.inbox.clone());
        if let Either::Left((Err(error), _)) = select(pin!(self.write(out)), limit).await {
            trace::event!(DEBUG, "writing failed", peer = id, error = error);
            inbox.send(Inbound::Closed(id));
        }
    }

    async fn write(&self, out: oneshot::Receiver<Out>) -> io::Result<()> {
        // The reader, which has ended then, has said why.
        let Ok((mut stream, mut seal)) = out.await else { return Ok(()) };
        let upload = self.around.upload.clone();
        let piece = upload.as_ref().map_or(WRITE_CHUNK, |upload| upload.chunk().min(WRITE_CHUNK));
        while let Some(Departure { message, priority, owed, held }) = self.next().await {
            self.gate.leaves(&message, self.now());
            let bytes;
            (seal, bytes) = self.encode(seal, message).await?;
            for piece in bytes.chunks(piece) {
                if let Some(upload) = &upload {
                    self.pay(upload, priority, piece.len()).await;
                }
                stream.write_all(piece).await?;
                stream.flush().await?;
                let now = self.now();
                self.gate.count(0, piece.len(), now);
                self.around.traffic.count(0, piece.len(), now);
                self.around.inbox.send(Inbound::Flushed(self.id, piece.len()));
            }
            drop(bytes);
            self.queue.sent(held);
            if owed && priority == Priority::Bulk {
                self.gate.give(self.now());
            }
            let_others_run().await;
        }
        stream.close().await
    }

    /// The bytes of a message. A long one is encoded where it holds up no other task: its checksum, or its encryption, takes
    /// some milliseconds a megabyte.
    async fn encode(&self, mut seal: Seal, message: Message) -> io::Result<(Seal, Vec<u8>)> {
        if message.payload_size_hint() < READ_CHUNK {
            let bytes = seal.encode(&message);
            return Ok((seal, bytes));
        }
        let encoded = elsewhere(&self.around, move || {
            let bytes = seal.encode(&message);
            (seal, bytes)
        });
        encoded.await.ok_or_else(|| io::Error::other("the executor has ended"))
    }

    fn now(&self) -> Timestamp {
        self.around.clock.now().at
    }

    /// The message whose turn it is; `None` when nothing more comes.
    async fn next(&self) -> Option<Departure> {
        loop {
            let now = self.now();
            let (turn, lost) = self.queue.turn(self.gate.bandwidths(now), now);
            if lost {
                self.around.inbox.send(Inbound::Untold(self.id));
            }
            let until = match turn {
                Turn::Write(departure) => return Some(departure),
                Turn::End => return None,
                Turn::Wait(until) => until,
            };
            let changed = pin!(self.queue.changed());
            match until {
                Some(until) => {
                    // Not less than a millisecond, so that it can never spin.
                    let wait = until.since(now).max(Duration::from_millis(1));
                    let _ = select(changed, self.around.executor.timer(wait)).await;
                }
                None => changed.await,
            }
        }
    }

    /// Waits until these bytes may leave, and pays for them.
    async fn pay(&self, upload: &Bandwidth, priority: Priority, bytes: usize) {
        while priority != Priority::Control && !upload.wait().is_zero() {
            self.around.executor.timer(upload.wait()).await;
        }
        upload.spend(bytes);
    }
}
