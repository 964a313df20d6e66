//! The driver: it feeds the engine what happens and does what the engine wants.
//!
//! 1. It waits for the first of: a question of a host, the engine's deadline, something in the inbox.
//! 2. It hands that to [`Engine::handle`] with the time, and carries the outputs out in order.
//! 3. It tells the connections of which that has changed whether the engine wants to hear more of them.
//! 4. At the engine's `Stopped` or `Fatal`, or a panic anywhere, it ends the chainstate's thread, waits for
//!    its files to be closed, and returns.
//!
//! It blocks nowhere, decides nothing, and wakes only when one of the three has come. Dropping its future
//! at any await ends the tasks and the thread; what is durable stays.

use super::chain_thread::{ChainParts, ChainThread, Work};
use super::connection::{Connection, Opened, Surroundings};
use super::inbox::{Arrivals, Inbound, panic_message};
use super::listener;
use super::peer_handlers::{PeerHandlers, Reaction};
use super::reach::Asking;
use super::requests::{Request, Shared};
use super::wait::let_others_run;
use crate::chain::command::{BlockRef, ChainCommand, ChainReport};
use crate::engine::{Answer, Arrival, Engine, Input, Output, QueryId};
use crate::error::Error;
use crate::limits::{INPUTS_PER_TURN, MAX_UNSENT_INBOUND, RESOLVE_MILLIS};
use crate::net::{BoxStream, Gateway};
use crate::peer::{PeerAddress, PeerId};
use crate::relay::priority::Pushed;
use crate::time::Timestamp;
use crate::trace;
use crate::wire::Message;
use core::future::poll_fn;
use core::panic::AssertUnwindSafe;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use futures::FutureExt;
use futures::channel::{mpsc, oneshot};
use futures::future::{AbortHandle, BoxFuture, Either, abortable, select};
use futures::stream::Stream;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// How a node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stopped {
    /// The durable tip: where the next run starts.
    pub tip: BlockRef,
}

/// Why a node could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Storage, a worker, or a defect. What was durable at `tip` stays so.
    #[error("{error}")]
    Failed {
        /// What happened.
        #[source]
        error: Error,
        /// The durable tip.
        tip: BlockRef,
    },
    /// The operating system gave no thread.
    #[error("no thread: {0}")]
    Thread(#[source] io::Error),
    /// An address to listen on can't be had.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        error: io::Error,
    },
}

/// What a node is made of before it runs.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) engine: Engine,
    pub(super) chain: ChainParts,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) shared: Arc<Shared>,
    pub(super) around: Surroundings,
    pub(super) inbound: Arrivals,
    pub(super) listen: Vec<SocketAddr>,
    pub(super) peer_handlers: PeerHandlers,
    pub(super) gateway: Option<Arc<dyn Gateway>>,
    /// The last field: whoever waits is woken when all else is gone.
    pub(super) close: CloseWatches,
}

/// Closes the status and events for everyone who waits, however the driver ends.
#[derive(Debug)]
pub(super) struct CloseWatches(pub(super) Arc<Shared>);

impl Drop for CloseWatches {
    fn drop(&mut self) {
        self.0.status.close();
        self.0.events.close();
    }
}

/// Runs a node to its end.
pub(super) async fn run(parts: Parts) -> Result<Stopped, RunError> {
    let Parts {
        engine,
        chain,
        requests,
        shared,
        around,
        inbound,
        listen,
        peer_handlers,
        gateway,
        close: _close,
    } = parts;
    let listeners = listener::open(&listen, &around).await;
    let listeners = listeners.map_err(|(address, error)| RunError::Listen { address, error })?;
    let ended = shared.ended.clone();
    let chain = ChainThread::start(chain, around.inbox.clone()).map_err(RunError::Thread)?;
    let mut driver = Driver {
        engine,
        shared,
        around,
        chain,
        requests,
        inbound,
        connections: BTreeMap::new(),
        lookups: BTreeMap::new(),
        questions: BTreeMap::new(),
        next_question: 0,
        deadline: None,
        timer: None,
        pending: VecDeque::new(),
        outcome: None,
        accepting: Vec::new(),
        peer_handlers,
        arrivals: BTreeMap::new(),
        next_arrival: 0,
        asking: Asking::new(gateway),
    };
    let addresses = listeners.iter().map(|(_, address)| *address).collect();
    driver.pending.push_back(Input::Listening(addresses));
    for (listener, address) in listeners {
        driver.shared.listening.lock().push(address);
        driver.accepting.push(listener::accept(listener, &driver.around));
    }
    trace::event!(INFO, "node started");
    // A defect of the engine ends this node as an error; the host's other tasks go on.
    let outcome = match AssertUnwindSafe(driver.run()).catch_unwind().await {
        Ok(outcome) => outcome,
        Err(panic) => Err(Error::WorkerPanic(panic_message(&*panic))),
    };
    driver.end(outcome.is_ok()).await;
    let last_known = driver.shared.status.read(|meter, _| meter.latest().durable);
    drop(driver);
    let durable = ended.read(|tip, _| *tip).unwrap_or(last_known);
    match outcome {
        Ok(_) => {
            trace::event!(INFO, "node stopped", height = durable.height, hash = durable.hash);
            Ok(Stopped { tip: durable })
        }
        Err(error) => {
            trace::event!(ERROR, "node failed", error = error);
            Err(RunError::Failed { error, tip: durable })
        }
    }
}

/// What woke the driver.
enum Wake {
    Request(Request),
    Timer,
    Inbound(Inbound),
}

struct Driver {
    engine: Engine,
    shared: Arc<Shared>,
    around: Surroundings,
    chain: ChainThread,
    requests: mpsc::Receiver<Request>,
    inbound: Arrivals,
    connections: BTreeMap<PeerId, Connection>,
    lookups: BTreeMap<String, AbortHandle>,
    questions: BTreeMap<QueryId, oneshot::Sender<Answer>>,
    next_question: u64,
    /// When the engine wants to be called, and the timer for it.
    deadline: Option<Timestamp>,
    timer: Option<BoxFuture<'static, ()>>,
    /// Inputs that arose while outputs were carried out.
    pending: VecDeque<Input>,
    outcome: Option<Result<BlockRef, Error>>,
    accepting: Vec<AbortHandle>,
    peer_handlers: PeerHandlers,
    /// Connections that wait for the engine's word.
    arrivals: BTreeMap<Arrival, (BoxStream, PeerAddress)>,
    next_arrival: u64,
    /// Questions of how we are reached.
    asking: Asking,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.accepting.iter().for_each(AbortHandle::abort);
        self.lookups.values().for_each(AbortHandle::abort);
    }
}

impl Driver {
    /// Until the engine has stopped (its durable tip) or cannot go on.
    async fn run(&mut self) -> Result<BlockRef, Error> {
        self.feed(Input::Timer);
        let mut turn = 0;
        loop {
            if let Some(outcome) = self.outcome.take() {
                return outcome;
            }
            match self.wake().await {
                Wake::Request(request) => self.on_request(request),
                Wake::Timer => self.feed(Input::Timer),
                Wake::Inbound(inbound) => self.on_inbound(inbound),
            }
            turn += 1;
            if turn % INPUTS_PER_TURN == 0 {
                let_others_run().await;
            }
        }
    }

    /// Waits for the next thing. Questions and time come before the inbox, which may never run dry.
    async fn wake(&mut self) -> Wake {
        poll_fn(|cx| self.poll_wake(cx)).await
    }

    fn poll_wake(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        if let Poll::Ready(Some(request)) = Pin::new(&mut self.requests).poll_next(cx) {
            return Poll::Ready(Wake::Request(request));
        }
        if let Some(timer) = &mut self.timer
            && timer.poll_unpin(cx).is_ready()
        {
            self.timer = None;
            self.deadline = None;
            return Poll::Ready(Wake::Timer);
        }
        match Pin::new(&mut self.inbound).poll_next(cx) {
            Poll::Ready(Some(inbound)) => Poll::Ready(Wake::Inbound(inbound)),
            // Never `None`: the driver itself holds a sender.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn on_request(&mut self, request: Request) {
        match request {
            Request::Query(query, reply) => {
                let id = QueryId(self.next_question);
                self.next_question += 1;
                self.questions.insert(id, reply);
                self.feed(Input::Query(id, query));
            }
            Request::AddPeer(address, taken) => self.feed_and_confirm(Input::AddPeer(address), taken),
            Request::AddAddresses(all, taken) => self.feed_and_confirm(Input::AddAddresses(all), taken),
            Request::RemovePeer(peer, taken) => self.feed_and_confirm(Input::RemovePeer(peer), taken),
            Request::Invalidate(hash, taken) => self.feed_and_confirm(Input::Invalidate(hash), taken),
            Request::Reconsider(hash, taken) => self.feed_and_confirm(Input::Reconsider(hash), taken),
            Request::Pause(taken) => self.feed_and_confirm(Input::Pause, taken),
            Request::Resume(taken) => self.feed_and_confirm(Input::Resume, taken),
            Request::Shutdown => {
                trace::event!(INFO, "shutting down");
                self.feed(Input::Shutdown);
            }
        }
    }

    fn feed_and_confirm(&mut self, input: Input, taken: oneshot::Sender<()>) {
        self.feed(input);
        let _ = taken.send(());
    }

    fn on_inbound(&mut self, inbound: Inbound) {
        match inbound {
            Inbound::Dialled(id, outcome) => self.on_dialled(id, outcome),
            Inbound::Arrived(stream, address, _taken) => {
                let (arrival, address) = (Arrival(self.next_arrival), PeerAddress::from(address));
                self.next_arrival += 1;
                self.arrivals.insert(arrival, (stream, address.clone()));
                self.feed(Input::Arrived(arrival, address));
            }
            Inbound::Received(id, message, bytes) => {
                if let Some(connection) = self.connections.get(&id) {
                    connection.handled(bytes);
                    self.feed(Input::Received(id, message, bytes));
                }
            }
            Inbound::Progress(id, bytes) => {
                if let Some(connection) = self.connections.get(&id) {
                    connection.progress_taken();
                    self.feed(Input::Progress(id, bytes));
                }
            }
            Inbound::Encrypted(id, session) => self.feed_from(id, Input::Encrypted(id, session)),
            Inbound::Faulted(id, fault) => self.feed_from(id, Input::Faulted(id, fault)),
            Inbound::Flushed(id, bytes) => self.feed_from(id, Input::Flushed(id, bytes)),
            Inbound::Untold(id) => self.feed_from(id, Input::Untold(id)),
            Inbound::Closed(id) => {
                if self.give_up(id).is_some() {
                    self.feed(Input::Closed(id));
                }
            }
            Inbound::Resolved(host, addresses) => {
                self.lookups.remove(&host);
                self.feed(Input::Resolved(host, addresses));
            }
            Inbound::Answered(id, answer) => {
                self.asking.answered(id);
                self.feed(Input::Answered(id, answer));
            }
            Inbound::Chain(report) => {
                record_report(&report);
                self.feed(Input::Chain(report));
            }
            Inbound::ChainEnded => {
                self.outcome.get_or_insert(Err(Error::Bug("the chainstate's thread has ended")));
            }
            Inbound::Panicked(message) => self.outcome = Some(Err(Error::WorkerPanic(message))),
        }
    }

    /// Takes a connection out, and forgets what it has sent.
    fn give_up(&mut self, id: PeerId) -> Option<Connection> {
        self.inbound.forget(id);
        self.connections.remove(&id)
    }

    /// Feeds an input of a connection that still exists.
    fn feed_from(&mut self, id: PeerId, input: Input) {
        if self.connections.contains_key(&id) {
            self.feed(input);
        }
    }

    fn on_dialled(&mut self, id: PeerId, outcome: io::Result<Opened>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        match outcome {
            Ok(opened) => {
                let session = opened.session();
                connection.open(id, opened, &self.around);
                if let Some(session) = session {
                    self.feed(Input::Encrypted(id, session));
                }
                self.feed(Input::Connected(id));
            }
            Err(error) => {
                self.give_up(id);
                trace::event!(DEBUG, "dial failed", peer = id, error = error);
                self.feed(Input::DialFailed(id, error.to_string()));
            }
        }
    }

    /// Hands an input to the engine and does what it wants, until it wants nothing more.
    fn feed(&mut self, input: Input) {
        self.pending.push_back(input);
        while let Some(input) = self.pending.pop_front() {
            self.engine.handle(self.shared.clock.now(), input);
            loop {
                match self.engine.poll_output() {
                    Output::Idle { deadline } => {
                        self.set_deadline(deadline);
                        break;
                    }
                    output => self.act(output),
                }
            }
        }
        for id in self.engine.take_read_changes() {
            if let Some(connection) = self.connections.get(&id) {
                connection.set_may_read(self.engine.may_read(id));
            }
        }
    }

    fn set_deadline(&mut self, deadline: Option<Timestamp>) {
        if deadline == self.deadline && self.timer.is_some() == deadline.is_some() {
            return;
        }
        self.deadline = deadline;
        self.timer = deadline.map(|deadline| {
            // At least a millisecond, so that an engine that is late can never make us spin.
            let wait = deadline.since(self.shared.clock.now().at).max(Duration::from_millis(1));
            self.around.executor.timer(wait)
        });
    }

    fn act(&mut self, output: Output) {
        match output {
            Output::Dial { peer: id, address, encrypted } => {
                trace::event!(DEBUG, "dialling", peer = id, address = address);
                self.connections.insert(id, Connection::dial(id, address, encrypted, &self.around));
            }
            Output::Accept(arrival, id) => {
                if let Some((stream, address)) = self.arrivals.remove(&arrival) {
                    self.connections.insert(id, Connection::arrived(id, address, stream, &self.around));
                }
            }
            Output::Refuse(arrival) => drop(self.arrivals.remove(&arrival)),
            Output::Send(id, message) => self.send(id, message, false),
            Output::Tell(id, message) => self.send(id, message, true),
            Output::Close(id, reason) => {
                trace::event!(DEBUG, "closing", peer = id, reason = reason);
                if let Some(connection) = self.give_up(id) {
                    connection.close();
                }
            }
            Output::Resolve(host, port) => self.resolve(host, port),
            Output::Ask(id, request) => self.asking.ask(id, request, &self.around),
            Output::Command(command) => {
                record_command(&command);
                self.chain.push(Work::Command(command));
            }
            Output::SaveAddresses(book) => self.chain.push(Work::SaveAddresses(book)),
            Output::SaveScores(scores) => self.chain.push(Work::SaveScores(scores)),
            Output::SaveUsedDay(day) => self.chain.push(Work::SaveUsedDay(day)),
            Output::Audit(record) => {
                trace::event!(INFO, "audit", record = record);
                self.chain.push(Work::Audit(record.to_string()));
            }
            Output::Answer(id, mut answer) => {
                self.add_traffic(&mut answer);
                if let Some(reply) = self.questions.remove(&id) {
                    // A host that no longer waits needs no answer.
                    let _ = reply.send(answer);
                }
            }
            Output::Reached(block) => {
                trace::event!(
                    INFO,
                    "reached the height to stop at",
                    height = block.height,
                    hash = block.hash
                );
            }
            Output::PeerChanged(change) => {
                trace::event!(DEBUG, "peer state", peer = change.id, from = change.from, to = change.to);
                if self.peer_handlers.call(&change) == Reaction::Leave {
                    self.pending.push_back(Input::RemovePeer(change.id));
                }
            }
            Output::Measure => self.pending.push_back(Input::Measured(self.shared.figures())),
            Output::EventsReady => self.shared.events.update(|()| ()),
            Output::Status(status) => {
                let now = self.shared.clock.now().at;
                self.shared.status.update(|meter| {
                    if meter.latest().stage != status.stage {
                        trace::event!(INFO, "stage", stage = format_args!("{:?}", status.stage));
                    }
                    meter.record(now, *status);
                });
            }
            Output::Stopped(tip) => self.outcome = Some(Ok(tip)),
            Output::Fatal(error) => self.outcome = Some(Err(error)),
            Output::Idle { .. } => {}
        }
    }

    /// Queues a message. Who does not read is given up: by its own queue, or as the one with the longest of all who came
    /// to us.
    fn send(&mut self, id: PeerId, message: Message, news: bool) {
        let Some(connection) = self.connections.get(&id) else { return };
        let now = self.shared.clock.now().at;
        let leaving = match connection.send(now, message, news) {
            Pushed::Overfull => Some(id),
            _ if self.around.traffic.unsent_inbound() > MAX_UNSENT_INBOUND => {
                let queues = self.connections.iter().filter_map(|(id, c)| Some((c.unsent_inbound()?, *id)));
                queues.max().map(|(_, id)| id)
            }
            _ => None,
        };
        if let Some(id) = leaving {
            trace::event!(DEBUG, "the peer does not read", peer = id);
            if let Some(connection) = self.give_up(id) {
                connection.abandon();
            }
            self.pending.push_back(Input::Unread(id));
        }
    }

    /// What only the connections know of peers that the host asks for.
    fn add_traffic(&self, answer: &mut Answer) {
        let Answer::Peers(peers) = answer else { return };
        let now = self.shared.clock.now().at;
        for peer in peers {
            if let Some(connection) = self.connections.get(&peer.id) {
                peer.traffic = connection.traffic(now);
            }
        }
    }

    fn resolve(&mut self, host: String, port: u16) {
        trace::event!(DEBUG, "resolving", host = host);
        let lookup = self.around.transport.resolve(&host, port);
        let limit = self.around.executor.timer(Duration::from_millis(RESOLVE_MILLIS));
        let inbox = self.around.inbox.clone();
        let name = host.clone();
        let guarded = self.around.inbox.guard(async move {
            let found = match select(lookup, limit).await {
                Either::Left((found, _)) => found.unwrap_or_default(),
                Either::Right(_) => Vec::new(),
            };
            inbox.send(Inbound::Resolved(name, found));
        });
        let (task, handle) = abortable(guarded);
        self.lookups.insert(host, handle);
        self.around.executor.spawn(Box::pin(async move {
            let _ = task.await;
        }));
    }

    /// Ends connections and the chainstate's thread, and waits for the latter.
    async fn end(&mut self, orderly: bool) {
        self.accepting.drain(..).for_each(|accepting| accepting.abort());
        for connection in core::mem::take(&mut self.connections).into_values() {
            connection.close();
        }
        if orderly {
            self.chain.finish();
        } else {
            self.chain.stop_now();
        }
        while self.shared.ended.read(|tip, _| tip.is_none()) {
            self.shared.ended.newer_than(0).await;
        }
        self.asking.withdrawn().await;
    }
}

fn record_command(command: &ChainCommand) {
    match command {
        ChainCommand::SaveHeaders(headers) => {
            trace::event!(DEBUG, "headers accepted", count = headers.len());
        }
        ChainCommand::Commit { .. } => trace::event!(DEBUG, "commit begins"),
        _ => {}
    }
}

fn record_report(report: &ChainReport) {
    match report {
        ChainReport::Connected { block, inputs, transactions } => {
            trace::event!(
                DEBUG,
                "block connected",
                height = block.height,
                hash = block.hash,
                transactions = transactions,
                inputs = inputs,
            );
        }
        ChainReport::Disconnected { block, .. } => {
            trace::event!(INFO, "block disconnected", height = block.height, hash = block.hash);
        }
        ChainReport::Invalid { block, reject } | ChainReport::Refused { block, reject } => {
            trace::event!(WARN, "block refused", height = block.height, hash = block.hash, reason = reject);
        }
        ChainReport::Committed(checkpoint) => {
            trace::event!(INFO, "committed", height = checkpoint.to.height, hash = checkpoint.to.hash);
        }
        ChainReport::Storage(storage) => {
            trace::event!(DEBUG, "block files", bytes = storage.bytes, pruned_below = storage.pruned_below);
        }
        ChainReport::Missing(block) | ChainReport::Dropped { block, lost: true } => {
            trace::event!(
                WARN,
                "a stored block is damaged and fetched again",
                height = block.height,
                hash = block.hash
            );
        }
        ChainReport::Failed(error) => trace::event!(ERROR, "the chainstate failed", error = error),
        _ => {}
    }
}
