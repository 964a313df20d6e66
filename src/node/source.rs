//! An HTTP source: the REST interface of a node (bitcoind with `-rest=1`, version 24 or later), spoken to as to a peer.
//!
//! To the engine it is one more peer, so that each rule, limit, score, stall and second request of the block scheduler
//! holds for it, and nothing that it says is trusted more. This task takes the engine's messages and answers them:
//!
//! | message | request below `/rest/` | answer |
//! | --- | --- | --- |
//! | (the dial) | `chaininfo.json` | the connection stands, if it is our chain |
//! | `version` | | `version` made of that, `verack` |
//! | `getheaders` | `headers/HASH.bin?count=2000`, from the first hash of the locator that is in its chain | `headers` |
//! | `getdata` | `block/HASH.bin` for each block, four at a time | `block`, or `notfound` |
//! | `ping` | `chaininfo.json` | `pong` |
//! | (every ten seconds) | `chaininfo.json` | `inv`, if the tip is another |
//!
//! Headers and pings go before blocks. A request that fails is tried again (`fetch`); in the end a block that the server
//! did not give is handed back by `notfound`, and a server that can't be reached ends the connection, which hands all of
//! them back; it is dialled again as any address of the host. An answer that is not what was asked for, or no HTTP, is a
//! fault of its sender as that of a peer.
//!
//! Bounded: while messages wait unhandled, or the engine does not want to hear of it, no new request begins; those that
//! have begun end, and bring at most four blocks. What answers of all sources take before that is bounded in bytes
//! ([`room`]), which `Builder::memory` counts. Only `http` is spoken: for TLS the host brings a transport.

mod fetch;
mod rest;
mod room;

use super::connection::{Gate, Queue, Surroundings};
use super::inbox::Inbound;
use crate::limits::{MAX_SOURCE_WAITING, SOURCE_REQUESTS};
use crate::peer::{Fault, PeerId, SourceUrl};
use crate::relay::priority::Departure;
use crate::trace;
use crate::wire::Message;
use bitcoin::BlockHash;
use bitcoin::p2p::message_blockdata::{GetHeadersMessage, Inventory};
use core::future::poll_fn;
use core::task::{Context, Poll};
use fetch::Fetcher;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use rest::{ChainInfo, Delivered, Trouble};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

pub(super) use room::Room;

/// A source that has answered.
pub(super) struct Source {
    fetcher: Fetcher,
    info: ChainInfo,
}

/// Asks a source where it stands. The caller sets the limit.
pub(super) async fn open(url: SourceUrl, around: Surroundings) -> io::Result<Source> {
    let network = around.network;
    let fetcher = Fetcher::new(url, around);
    let outcome = rest::chain_info(&fetcher, network, false).await;
    let (info, _) = outcome.map_err(|trouble| io::Error::other(format!("HTTP source: {trouble}")))?;
    Ok(Source { fetcher, info })
}

/// A request, or several that belong together.
enum Job {
    Headers(Box<GetHeadersMessage>),
    Ping(u64),
    Look,
    Block(BlockHash),
}

/// What a request led to.
enum Outcome {
    Deliver(Delivered),
    /// Where the source stands now; the answer to a ping, and its bytes.
    Stands(ChainInfo, Option<u64>, usize),
}

/// What woke the task.
enum Wake {
    Asked(Option<Departure>),
    Done(Result<Outcome, Trouble>),
    Look,
    /// A request may begin.
    Open,
}

/// What a conversation needs of its connection.
pub(super) struct Ends {
    pub(super) id: PeerId,
    pub(super) gate: Arc<Gate>,
    pub(super) queue: Arc<Queue>,
    pub(super) around: Surroundings,
}

/// The conversation with a source.
struct Conversation {
    ends: Ends,
    fetcher: Arc<Fetcher>,
    /// What it last said.
    info: ChainInfo,
    /// Few: the engine has one of each under way.
    urgent: VecDeque<Job>,
    blocks: VecDeque<BlockHash>,
    running: FuturesUnordered<BoxFuture<'static, Result<Outcome, Trouble>>>,
    next_look: BoxFuture<'static, ()>,
    /// A look has begun, or waits.
    looking: bool,
}

impl Source {
    /// Converses until the engine has enough of it, or the source fails.
    pub(super) async fn run(self, ends: Ends) {
        self.fetcher.tell(ends.id, ends.gate.clone());
        let mut conversation = Conversation {
            fetcher: Arc::new(self.fetcher),
            info: self.info,
            urgent: VecDeque::new(),
            blocks: VecDeque::new(),
            running: FuturesUnordered::new(),
            next_look: ends.around.executor.timer(ends.around.source_interval),
            looking: false,
            ends,
        };
        conversation.run().await;
    }
}

impl Conversation {
    async fn run(&mut self) {
        loop {
            match poll_fn(|cx| self.poll_wake(cx)).await {
                Wake::Asked(None) => return,
                Wake::Asked(Some(Departure { message, held, .. })) => {
                    self.ends.queue.sent(held);
                    self.take(message);
                }
                Wake::Done(Ok(Outcome::Deliver((message, bytes)))) => self.deliver(message, bytes),
                Wake::Done(Ok(Outcome::Stands(info, pong, bytes))) => self.on_info(info, pong, bytes),
                Wake::Done(Err(trouble)) => return self.end(&trouble),
                Wake::Look => {
                    let around = &self.ends.around;
                    self.next_look = around.executor.timer(around.source_interval);
                    if !core::mem::replace(&mut self.looking, true) {
                        self.urgent.push_back(Job::Look);
                    }
                }
                Wake::Open => self.begin(),
            }
        }
    }

    fn poll_wake(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        if let Poll::Ready(asked) = self.ends.queue.poll_take(self.ends.around.clock.now().at, cx) {
            return Poll::Ready(Wake::Asked(asked));
        }
        if let Poll::Ready(Some(outcome)) = self.running.poll_next_unpin(cx) {
            return Poll::Ready(Wake::Done(outcome));
        }
        if self.next_look.poll_unpin(cx).is_ready() {
            return Poll::Ready(Wake::Look);
        }
        let waits = !self.urgent.is_empty() || !self.blocks.is_empty();
        if waits && self.running.len() < SOURCE_REQUESTS && self.ends.gate.poll_passed(cx).is_ready() {
            return Poll::Ready(Wake::Open);
        }
        Poll::Pending
    }

    /// A message of the engine.
    fn take(&mut self, message: Message) {
        match message {
            Message::Version(_) => {
                let version = self.info.version();
                self.deliver(version, 0);
                self.deliver(Message::Verack, 0);
            }
            Message::Ping(nonce) => self.urgent.push_back(Job::Ping(nonce)),
            Message::GetHeaders(request) => self.urgent.push_back(Job::Headers(Box::new(request))),
            Message::GetData(wanted) => wanted.into_iter().for_each(|entry| self.take_wanted(entry)),
            // It has no use for what else a peer is told.
            _ => {}
        }
    }

    fn take_wanted(&mut self, entry: Inventory) {
        match entry {
            Inventory::Block(hash) | Inventory::WitnessBlock(hash) => {
                if self.blocks.len() < MAX_SOURCE_WAITING {
                    self.blocks.push_back(hash);
                } else {
                    self.deliver(rest::not_found(hash), 0);
                }
            }
            other => self.deliver(Message::NotFound(vec![other]), 0),
        }
    }

    /// Begins the next request.
    fn begin(&mut self) {
        let job = self.urgent.pop_front().or_else(|| self.blocks.pop_front().map(Job::Block));
        let Some(job) = job else { return };
        let (fetcher, network) = (self.fetcher.clone(), self.ends.around.network);
        self.running.push(Box::pin(async move {
            let stands = |pong: Option<u64>| {
                let fetcher = &fetcher;
                async move {
                    let (info, bytes) = rest::chain_info(fetcher, network, true).await?;
                    Ok(Outcome::Stands(info, pong, bytes))
                }
            };
            match job {
                Job::Headers(request) => rest::headers(&fetcher, &request).await.map(Outcome::Deliver),
                Job::Block(hash) => rest::block(&fetcher, hash).await.map(Outcome::Deliver),
                Job::Ping(nonce) => stands(Some(nonce)).await,
                Job::Look => stands(None).await,
            }
        }));
    }

    fn on_info(&mut self, info: ChainInfo, pong: Option<u64>, bytes: usize) {
        match pong {
            Some(nonce) => self.deliver(Message::Pong(nonce), bytes),
            None => self.looking = false,
        }
        if info.best != self.info.best {
            let bytes = if pong.is_none() { bytes } else { 0 };
            self.deliver(Message::Inv(vec![Inventory::Block(info.best)]), bytes);
        }
        self.info = info;
    }

    fn deliver(&self, message: Message, bytes: usize) {
        self.ends.gate.expect(&message);
        self.ends.around.inbox.send(Inbound::Received(self.ends.id, message, bytes));
    }

    fn end(&self, trouble: &Trouble) {
        let id = self.ends.id;
        trace::event!(DEBUG, "the source ended", peer = id, reason = trouble);
        self.ends.around.inbox.send(match trouble {
            Trouble::Fault(fault) => Inbound::Faulted(id, Fault::Http(fault)),
            Trouble::Lost(_) | Trouble::OtherChain(_) => Inbound::Closed(id),
        });
    }
}

#[cfg(all(test, feature = "native"))]
mod tests;
