//! One connection: a reader task and a writer task on the host's executor.
//!
//! Reader: wait for the gate, read a chunk, cut it into frames, decrypt, check and parse them (blocks and other long
//! ones on a thread of the blocking pool, so that no other connection waits for it), hand them on in order.
//! Writer ([`outgoing`]): take messages from the queue by their priority, write them, report how many bytes have left.
//!
//! Both are bounded: the gate ([`gate`]) stays shut while messages of this peer wait unhandled
//! ([`MAX_UNHANDLED_BYTES`](crate::limits::MAX_UNHANDLED_BYTES)) or the engine does not want more; a peer that sends more
//! than its rate of what nobody asked for is not read for a while; and one that lets
//! [`MAX_UNSENT_BYTES`](crate::limits::MAX_UNSENT_BYTES) pile up is dropped. What peers that came to us hold together is
//! bounded too ([`super::crowd`]).
//!
//! Each connection that we open has a place in the node's [pool](crate::net::pool), which it waits for a limited time. One to
//! an HTTP source has one task instead of two (`source`), and a place for each of its requests.

mod gate;
mod outgoing;

use super::bandwidth::Bandwidth;
use super::inbox::{Inbound, Inbox};
use super::requests::NodeClock;
#[cfg(feature = "http")]
use super::source;
use super::traffic::Traffic;
use super::wait::let_others_run;
use crate::chain::params::Network;
use crate::limits::{CROWDED_MILLIS, DIAL_MILLIS, ENCRYPTION_MILLIS, POOL_WAIT_MILLIS, READ_CHUNK};
use crate::net::encryption::{self, Agreed, NoSession, Secrets, Session};
use crate::net::pool::{Place, Pool};
use crate::net::{BoxStream, Executor, Transport};
use crate::peer::{Fault, PeerAddress, PeerId};
use crate::relay::priority::Pushed;
use crate::relay::rate::{PeerTraffic, RateConfig};
use crate::rng::Rng;
use crate::time::Timestamp;
use crate::trace;
use crate::wire::frame::{Decoder, Frame, FrameError, HEADER_SIZE, encode};
use crate::wire::{Message, v2};
use core::future::Future;
use core::pin::pin;
use core::time::Duration;
use futures::channel::oneshot;
use futures::future::{AbortHandle, Either, abortable, select};
use futures::io::{AsyncReadExt, ReadHalf, WriteHalf};
use gate::weight;
use outgoing::Writer;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;

pub(super) use gate::Gate;
pub(super) use outgoing::Queue;

/// All connections that a node opens.
pub(super) type Outgoing = Pool<PeerAddress, BoxStream>;

/// What a connection's tasks need of the node.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    pub(super) magic: [u8; 4],
    pub(super) executor: Arc<dyn Executor>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) inbox: Inbox,
    /// What all connections together may read; `None` for as much as comes.
    pub(super) bandwidth: Option<Arc<Bandwidth>>,
    /// What they may write.
    pub(super) upload: Option<Arc<Bandwidth>>,
    /// The rates of what nobody asked for.
    pub(super) rates: RateConfig,
    pub(super) clock: NodeClock,
    /// What flows through all of them.
    pub(super) traffic: Arc<Traffic>,
    /// Whether those who come are answered in v2 if they speak it.
    pub(super) encrypt: bool,
    /// Where the secrets of encrypted connections come from.
    pub(super) rng: Arc<Mutex<Rng>>,
    /// The places of connections that we open.
    pub(super) outgoing: Outgoing,
    /// The network that HTTP sources must serve.
    #[cfg_attr(not(feature = "http"), expect(dead_code, reason = "there are no sources"))]
    pub(super) network: Network,
    /// Time between two looks at a source's tip.
    #[cfg_attr(not(feature = "http"), expect(dead_code, reason = "there are no sources"))]
    pub(super) source_interval: Duration,
    /// What answers of all sources may take.
    #[cfg(feature = "http")]
    pub(super) source_room: Arc<source::Room>,
}

impl Surroundings {
    fn secrets(&self) -> Secrets {
        Secrets::new(self.rng.lock().fork())
    }

    fn now(&self) -> Timestamp {
        self.clock.now().at
    }
}

/// An open connection, and what is known of how its other side speaks.
pub(super) struct Opened(Line);

enum Line {
    /// A stream of messages, and its place in the pool if we opened it.
    Stream(BoxStream, Speech, Option<Place<PeerAddress, BoxStream>>),
    /// Requests and answers.
    #[cfg(feature = "http")]
    Source(Box<source::Source>),
}

enum Speech {
    /// The frames of v1.
    Plain,
    /// The packets of v2.
    Encrypted(Box<Session>),
    /// The other side will show.
    Unknown,
}

impl Opened {
    /// Of the side that was called.
    fn arrived(stream: BoxStream, encrypt: bool) -> Self {
        Self(Line::Stream(stream, if encrypt { Speech::Unknown } else { Speech::Plain }, None))
    }

    /// The session, if there is one already.
    pub(super) fn session(&self) -> Option<[u8; 32]> {
        match &self.0 {
            Line::Stream(_, Speech::Encrypted(session), _) => Some(session.id),
            _ => None,
        }
    }
}

/// Opens a connection; in v1 if the other side understands nothing else.
async fn open_to(address: PeerAddress, encrypted: bool, around: Surroundings) -> io::Result<Opened> {
    if let PeerAddress::Http(url) = address {
        #[cfg(feature = "http")]
        return source::open(url, around).await.map(|source| Opened(Line::Source(Box::new(source))));
        #[cfg(not(feature = "http"))]
        return Err(io::Error::new(io::ErrorKind::Unsupported, format!("{url} needs the feature `http`")));
    }
    let place = around.outgoing.get(&address, Duration::from_millis(POOL_WAIT_MILLIS)).await;
    let place = place.map_err(io::Error::other)?;
    if encrypted {
        let mut stream = around.transport.dial(&address).await?;
        let limit = around.executor.timer(Duration::from_millis(ENCRYPTION_MILLIS));
        let agreed = {
            let call = pin!(encryption::call(&mut stream, around.magic, around.secrets()));
            match select(call, limit).await {
                Either::Left((agreed, _)) => Some(agreed),
                Either::Right(_) => None,
            }
        };
        match agreed {
            Some(Ok(session)) => {
                let speech = Speech::Encrypted(Box::new(session));
                return Ok(Opened(Line::Stream(stream, speech, Some(place))));
            }
            Some(Err(NoSession::Failed(error))) => return Err(error),
            // It closed the connection at bytes that it did not understand, or waits for others.
            Some(Err(NoSession::NoKey(_))) | None => drop(stream),
        }
    }
    let stream = around.transport.dial(&address).await?;
    Ok(Opened(Line::Stream(stream, Speech::Plain, Some(place))))
}

/// The driver's end of a connection. Dropping it ends both tasks.
#[derive(Debug)]
pub(super) struct Connection {
    address: PeerAddress,
    gate: Arc<Gate>,
    queue: Arc<Queue>,
    /// `None` until the dial has succeeded.
    closing: Option<oneshot::Sender<()>>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Connection {
    /// Starts to dial; `Inbound::Dialled` follows.
    pub(super) fn dial(id: PeerId, address: PeerAddress, encrypted: bool, around: &Surroundings) -> Self {
        let dial = open_to(address.clone(), encrypted, around.clone());
        let executor = around.executor.clone();
        let inbox = around.inbox.clone();
        let task = spawn(around, id, &address, async move {
            let limit = executor.timer(Duration::from_millis(DIAL_MILLIS));
            let outcome = match select(pin!(dial), limit).await {
                Either::Left((outcome, _)) => outcome,
                Either::Right(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
            };
            inbox.send(Inbound::Dialled(id, outcome));
        });
        let now = around.now();
        Self {
            address,
            gate: Arc::new(Gate::new(around.rates, now)),
            queue: Queue::new(around.rates, now, around.traffic.clone(), false),
            closing: None,
            tasks: vec![task],
        }
    }

    /// A connection that the other side has opened.
    pub(super) fn arrived(
        id: PeerId,
        address: PeerAddress,
        stream: BoxStream,
        around: &Surroundings,
    ) -> Self {
        let now = around.now();
        let mut connection = Self {
            address,
            gate: Arc::new(Gate::in_crowd(around.rates, now, around.traffic.clone(), id)),
            queue: Queue::new(around.rates, now, around.traffic.clone(), true),
            closing: None,
            tasks: Vec::new(),
        };
        connection.open(id, Opened::arrived(stream, around.encrypt), around);
        connection
    }

    /// The dial succeeded: starts the reader and the writer.
    pub(super) fn open(&mut self, id: PeerId, opened: Opened, around: &Surroundings) {
        trace::event!(DEBUG, "connected", peer = id, address = self.address);
        let (closing, asked_to_close) = oneshot::channel();
        self.closing = Some(closing);
        let (stream, speech, place) = match opened.0 {
            Line::Stream(stream, speech, place) => (stream, speech, place),
            #[cfg(feature = "http")]
            Line::Source(source) => {
                let (gate, queue) = (self.gate.clone(), self.queue.clone());
                let ends = source::Ends { id, gate, queue, around: around.clone() };
                self.tasks = vec![spawn(around, id, &self.address, source.run(ends))];
                return;
            }
        };
        let (to_writer, out) = oneshot::channel();
        let speaks = Speaks { id, to_writer, gate: self.gate.clone(), around: around.clone() };
        let reading = match speech {
            // What is queued leaves, though the reader may be ended before it begins.
            Speech::Plain => Either::Left(speaks.begin(stream, Codec::plain(around.magic))),
            Speech::Encrypted(session) => Either::Left(speaks.begin(stream, Codec::encrypted(*session))),
            Speech::Unknown => Either::Right(speaks.find_out(stream)),
        };
        let (queue, gate) = (self.queue.clone(), self.gate.clone());
        let writer = Writer { id, queue, gate, around: around.clone() };
        self.tasks = vec![
            spawn(around, id, &self.address, async move {
                writer.run(out, asked_to_close).await;
                // Until the last message has left.
                drop(place);
            }),
            spawn(around, id, &self.address, reading),
        ];
    }

    /// Queues a message; `news`: one that nobody asked for. Overfull: the peer does not read.
    pub(super) fn send(&self, now: Timestamp, message: Message, news: bool) -> Pushed {
        self.queue.push(now, message, news)
    }

    /// Bytes that wait for a peer that came to us; `None` for one that we chose.
    pub(super) fn unsent_inbound(&self) -> Option<usize> {
        self.queue.is_inbound().then(|| self.queue.bytes())
    }

    /// What flows through it.
    pub(super) fn traffic(&self, now: Timestamp) -> PeerTraffic {
        PeerTraffic {
            per_second: self.gate.bandwidths(now),
            queues: self.queue.counts(),
            rests: self.gate.rests(),
        }
    }

    /// Sends what is queued, for a limited time, then ends.
    pub(super) fn close(mut self) {
        self.queue.end();
        if let Some(closing) = self.closing.take() {
            let _ = closing.send(());
            // The writer, which is the first, ends by itself.
            self.tasks.remove(0);
        }
    }

    /// Ends without sending what is queued, which counts no more at once.
    pub(super) fn abandon(self) {
        self.queue.clear();
    }

    /// A message of this length was handled.
    pub(super) fn handled(&self, bytes: usize) {
        self.gate.change(|gate| {
            let weight = gate.weights.pop_front().unwrap_or_else(|| weight(bytes));
            gate.unhandled = gate.unhandled.saturating_sub(weight);
            gate.messages = gate.messages.saturating_sub(1);
        });
    }

    /// An `Inbound::Progress` was taken.
    pub(super) fn progress_taken(&self) {
        self.gate.change(|gate| gate.progress = false);
    }

    /// Whether the engine wants to hear of this peer.
    pub(super) fn set_may_read(&self, open: bool) {
        self.gate.change(|gate| gate.open = open);
    }
}

/// Runs a task of a connection in its span; a panic reaches the driver.
fn spawn(
    around: &Surroundings,
    id: PeerId,
    address: &PeerAddress,
    future: impl Future<Output = ()> + Send + 'static,
) -> AbortHandle {
    let guarded = around.inbox.guard(trace::in_connection(id, address, future));
    let (task, handle) = abortable(guarded);
    around.executor.spawn(Box::pin(async move {
        let _ = task.await;
    }));
    handle
}

/// How the other side's bytes become frames.
enum Frames {
    Plain(Decoder),
    Encrypted(Box<v2::Decoder>),
}

impl Frames {
    fn feed(&mut self, bytes: &[u8]) -> Result<usize, FrameError> {
        match self {
            Self::Plain(decoder) => decoder.feed(bytes),
            Self::Encrypted(decoder) => decoder.feed(bytes),
        }
    }

    fn take_frame(&mut self) -> Option<Frame> {
        match self {
            Self::Plain(decoder) => decoder.take_frame(),
            Self::Encrypted(decoder) => decoder.take_frame(),
        }
    }

    fn received(&self) -> u64 {
        match self {
            Self::Plain(decoder) => decoder.received(),
            Self::Encrypted(decoder) => decoder.received(),
        }
    }

    /// Whether so many more bytes complete what takes long to decrypt.
    fn completes_long(&self, bytes: usize) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Encrypted(decoder) => decoder.completes(bytes).is_some_and(|packet| packet >= READ_CHUNK),
        }
    }

    /// The frames that these bytes complete, and what is wrong after them.
    fn cut(&mut self, mut bytes: &[u8]) -> (Vec<Frame>, Option<FrameError>) {
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            match self.feed(bytes) {
                Ok(used) => bytes = bytes.get(used..).unwrap_or_default(),
                Err(fault) => return (frames, Some(fault)),
            }
            frames.extend(self.take_frame());
        }
        (frames, None)
    }

    /// Messages that were read over because nobody knows them.
    fn unknown(&self) -> u64 {
        match self {
            Self::Plain(decoder) => decoder.unknown_count(),
            Self::Encrypted(decoder) => decoder.unknown_count(),
        }
    }

    /// Bytes held of a frame that is not complete.
    fn held(&self) -> usize {
        match self {
            Self::Plain(decoder) => decoder.held(),
            Self::Encrypted(decoder) => decoder.held(),
        }
    }

    /// Whether a frame has begun and is not complete.
    fn is_within(&self) -> bool {
        match self {
            Self::Plain(decoder) => decoder.progress().is_some(),
            Self::Encrypted(decoder) => decoder.is_within_packet(),
        }
    }
}

/// How messages become the bytes that the other side understands.
enum Seal {
    Plain([u8; 4]),
    Encrypted(Box<bip324::OutboundCipher>),
}

impl Seal {
    fn encode(&mut self, message: &Message) -> Vec<u8> {
        match self {
            Self::Plain(magic) => encode(*magic, message),
            Self::Encrypted(cipher) => v2::encode(cipher, message),
        }
    }
}

/// Both directions of a connection.
struct Codec {
    decoder: Frames,
    seal: Seal,
    /// Bytes that were read already.
    first: Vec<u8>,
}

impl Codec {
    /// In v1.
    fn plain(magic: [u8; 4]) -> Self {
        Self { decoder: Frames::Plain(Decoder::new(magic)), seal: Seal::Plain(magic), first: Vec::new() }
    }

    /// In v2.
    fn encrypted(session: Session) -> Self {
        let Session { inbound, outbound, rest, .. } = session;
        let decoder = Frames::Encrypted(Box::new(v2::Decoder::new(inbound)));
        Self { decoder, seal: Seal::Encrypted(Box::new(outbound)), first: rest }
    }
}

/// Where the writer writes, once that is known.
type Out = (WriteHalf<BoxStream>, Seal);

/// A connection that is about to be read and written.
struct Speaks {
    id: PeerId,
    to_writer: oneshot::Sender<Out>,
    gate: Arc<Gate>,
    around: Surroundings,
}

impl Speaks {
    /// Hands the writer its half; what is left to do is reading.
    fn begin(self, stream: BoxStream, codec: Codec) -> impl Future<Output = ()> + Send + use<> {
        let Codec { decoder, seal, first } = codec;
        let (reading, writing) = stream.split();
        // A writer that has ended needs no half.
        let _ = self.to_writer.send((writing, seal));
        let (gate, around) = (self.gate, self.around);
        Reader { id: self.id, stream: reading, decoder, unknown: 0, gate, around }.run(first)
    }

    /// As the other side does.
    async fn find_out(self, mut stream: BoxStream) {
        let (id, around) = (self.id, self.around.clone());
        match encryption::answer(&mut stream, around.magic, around.secrets()).await {
            Ok(Agreed::Plain(first)) => {
                let codec = Codec { first, ..Codec::plain(around.magic) };
                self.begin(stream, codec).await;
            }
            Ok(Agreed::Encrypted(session)) => {
                around.inbox.send(Inbound::Encrypted(id, session.id));
                self.begin(stream, Codec::encrypted(*session)).await;
            }
            Err(error) => {
                trace::event!(DEBUG, "connection ended", peer = id, reason = error.into_io());
                around.inbox.send(Inbound::Closed(id));
            }
        }
    }
}

struct Reader {
    id: PeerId,
    stream: ReadHalf<BoxStream>,
    decoder: Frames,
    /// Messages that nobody knows, as far as they are counted.
    unknown: u64,
    gate: Arc<Gate>,
    around: Surroundings,
}

impl Reader {
    /// `first` are bytes that were read already.
    async fn run(mut self, first: Vec<u8>) {
        if !first.is_empty() && !self.take(&first).await {
            return;
        }
        let bandwidth = self.around.bandwidth.clone();
        let mut chunk = vec![0; bandwidth.as_ref().map_or(READ_CHUNK, |bandwidth| bandwidth.chunk())];
        loop {
            self.may_read().await;
            if let Some(bandwidth) = &bandwidth {
                self.pay(bandwidth).await;
            }
            let most = self.gate.chunk(chunk.len(), self.around.now());
            let read = match self.stream.read(chunk.get_mut(..most).unwrap_or_default()).await {
                Ok(0) => return self.end("end of stream"),
                Ok(read) => read,
                Err(error) => return self.end(error),
            };
            if let Some(bandwidth) = &bandwidth {
                bandwidth.spend(read);
            }
            let now = self.around.now();
            self.gate.count(read, 0, now);
            self.around.traffic.count(read, 0, now);
            if !self.take(chunk.get(..read).unwrap_or_default()).await {
                return;
            }
            // A peer that sends faster than we read would have this thread for itself.
            let_others_run().await;
        }
    }

    /// Waits until there is room for more of this peer's messages, and it has not sent too many.
    async fn may_read(&self) {
        self.gate.passed().await;
        let rest = self.gate.rest(self.around.now());
        if !rest.is_zero() {
            self.around.traffic.rested();
            self.around.executor.timer(rest).await;
        }
        let Some((traffic, id)) = self.gate.crowd() else { return };
        while !traffic.crowd.has_room(id) {
            let limit = self.around.executor.timer(Duration::from_millis(CROWDED_MILLIS));
            if let Either::Right(_) = select(pin!(traffic.crowd.room(id)), limit).await
                && let Some(largest) = traffic.crowd.largest()
            {
                trace::event!(DEBUG, "holds most of what is full", peer = largest);
                self.around.inbox.send(Inbound::Closed(largest));
            }
        }
    }

    /// Hands on what these bytes complete; `false` at the end.
    async fn take(&mut self, bytes: &[u8]) -> bool {
        let Some((messages, fault)) = self.read(bytes).await else {
            self.end("the executor has ended");
            return false;
        };
        self.count(&messages);
        for (message, bytes) in messages {
            self.gate.change(|gate| {
                gate.unhandled = gate.unhandled.saturating_add(weight(bytes));
                gate.messages = gate.messages.saturating_add(1);
            });
            self.around.inbox.send(Inbound::Received(self.id, message, bytes));
        }
        if let Some(fault) = fault {
            trace::event!(DEBUG, "not the protocol", peer = self.id, fault = fault);
            self.around.inbox.send(Inbound::Faulted(self.id, Fault::Wire(fault)));
            return false;
        }
        if self.decoder.is_within() {
            self.tell_progress();
        }
        true
    }

    /// Counts what came unasked, and what is held of a message that is not complete.
    fn count(&mut self, messages: &[(Message, usize)]) {
        let unknown = self.decoder.unknown();
        let more = unknown.saturating_sub(core::mem::replace(&mut self.unknown, unknown));
        let more = usize::try_from(more).unwrap_or(usize::MAX);
        self.gate.came(messages.iter().map(|(message, _)| message), more, self.around.now());
        let begun = self.decoder.held();
        if self.gate.crowd().is_some() {
            self.gate.change(|gate| gate.begun = begun);
        }
    }

    /// Waits until something may be read.
    async fn pay(&self, bandwidth: &Bandwidth) {
        loop {
            let wait = bandwidth.wait();
            if wait.is_zero() {
                return;
            }
            self.around.executor.timer(wait).await;
        }
    }

    /// At most one waits, or bytes that come one by one would fill the inbox. What is left out now is
    /// counted by the next.
    fn tell_progress(&self) {
        if self.gate.begin_progress() {
            self.around.inbox.send(Inbound::Progress(self.id, self.decoder.received()));
        }
    }

    fn end(&self, reason: impl core::fmt::Display) {
        trace::event!(DEBUG, "connection ended", peer = self.id, reason = reason);
        self.around.inbox.send(Inbound::Closed(self.id));
    }

    /// The messages that these bytes complete, up to the first fault. `None` if the executor dropped the work.
    async fn read(&mut self, bytes: &[u8]) -> Option<Checked> {
        if !self.decoder.completes_long(bytes.len()) {
            let (frames, fault) = self.decoder.cut(bytes);
            let (messages, checked) = self.check(frames).await?;
            return Some((messages, checked.or(fault)));
        }
        // The cipher goes along: what comes next needs the state that this leaves.
        let nothing = Frames::Plain(Decoder::new(self.around.magic));
        let (mut decoder, bytes) = (core::mem::replace(&mut self.decoder, nothing), bytes.to_vec());
        let (decoder, checked) = elsewhere(&self.around, move || {
            let (frames, fault) = decoder.cut(&bytes);
            let (messages, checked) = check(frames);
            (decoder, (messages, checked.or(fault)))
        })
        .await?;
        self.decoder = decoder;
        Some(checked)
    }

    async fn check(&self, frames: Vec<Frame>) -> Option<Checked> {
        let long = |frame: &Frame| frame.command.as_str() == "block" || frame.payload.len() >= READ_CHUNK;
        if frames.iter().any(long) {
            elsewhere(&self.around, move || check(frames)).await
        } else {
            Some(check(frames))
        }
    }
}

/// Does what takes long where it holds up no other task. `None` if the executor dropped the work.
async fn elsewhere<T: Send + 'static>(
    around: &Surroundings,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (reply, done) = oneshot::channel();
    let inbox = around.inbox.clone();
    around.executor.spawn_blocking(Box::new(move || {
        if let Some(result) = inbox.catch(work) {
            let _ = reply.send(result);
        }
    }));
    done.await.ok()
}

/// Messages with their length on the wire, and the fault that ended them.
type Checked = (Vec<(Message, usize)>, Option<FrameError>);

fn check(frames: Vec<Frame>) -> Checked {
    let mut messages = Vec::with_capacity(frames.len());
    for frame in frames {
        let bytes = HEADER_SIZE + frame.payload.len();
        match frame.verify().and_then(|()| frame.into_message()) {
            Ok(Some(message)) => messages.push((message, bytes)),
            Ok(None) => {}
            Err(fault) => return (messages, Some(fault)),
        }
    }
    (messages, None)
}

#[cfg(all(test, feature = "native"))]
mod tests;
