//! The stream of changes of the durable active chain.
//!
//! 1. A consumer starts from a cursor: the last block it applied, or `None` for the very beginning.
//! 2. Each event moves the cursor: `Apply` to the block, `Undo` to its parent.
//! 3. The consumer saves [`Events::cursor`] with its own data and starts from it the next time.
//!
//! Where the node prunes, a consumer that has taken the events of a commit before the next one has begun finds all that
//! it is told of; one that is far behind gets [`RequestError::Pruned`] instead of events whose blocks are gone.
//!
//! Events are fetched from the header tree when they are asked for, so that a slow consumer costs nothing,
//! and only after the commit that makes them durable, so that none is ever taken back by a crash.

use super::handle::Handle;
use super::requests::RequestError;
use crate::chain::command::BlockRef;
pub use crate::engine::output::Event;
use std::collections::VecDeque;

/// Changes of the durable active chain after a cursor, in order. Made by [`Handle::events`].
#[derive(Debug)]
pub struct Events {
    handle: Handle,
    cursor: Option<BlockRef>,
    fetched: VecDeque<Event>,
    /// The cursor after everything fetched.
    ahead: Option<BlockRef>,
}

impl Events {
    pub(crate) fn new(handle: Handle, cursor: Option<BlockRef>) -> Self {
        Self { handle, cursor, fetched: VecDeque::new(), ahead: cursor }
    }

    /// Where the consumer stands after the events it was given: the block to start from the next time.
    pub fn cursor(&self) -> Option<BlockRef> {
        self.cursor
    }

    /// The next event; waits for it. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`RequestError::Stopped`] when the node ends, [`RequestError::UnknownCursor`] if the cursor is not a
    /// block that this node knows, [`RequestError::Pruned`] if the next block to apply is pruned (the consumer has to
    /// get there by other means, or begin anew from a node that keeps all), [`RequestError::Timeout`] if the handle has
    /// a time limit.
    pub async fn next(&mut self) -> Result<Event, RequestError> {
        if self.fetched.is_empty() {
            let events = self.handle.fetch_events(self.ahead).await?;
            self.take(events);
        }
        self.pop().ok_or(RequestError::Stopped)
    }

    /// Blocking form of [`Self::next`].
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn next_blocking(&mut self) -> Result<Event, RequestError> {
        if self.fetched.is_empty() {
            let events = self.handle.fetch_events_blocking(self.ahead)?;
            self.take(events);
        }
        self.pop().ok_or(RequestError::Stopped)
    }

    /// The next event if there is one now.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn try_next(&mut self) -> Result<Option<Event>, RequestError> {
        if self.fetched.is_empty() {
            let events = self.handle.fetch_events_now(self.ahead).await?;
            self.take(events);
        }
        Ok(self.pop())
    }

    /// Blocking form of [`Self::try_next`].
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn try_next_blocking(&mut self) -> Result<Option<Event>, RequestError> {
        if self.fetched.is_empty() {
            let events = self.handle.fetch_events_now_blocking(self.ahead)?;
            self.take(events);
        }
        Ok(self.pop())
    }

    fn take(&mut self, events: Vec<Event>) {
        if let Some(last) = events.last() {
            self.ahead = cursor_after(last);
        }
        self.fetched.extend(events);
    }

    fn pop(&mut self) -> Option<Event> {
        let event = self.fetched.pop_front()?;
        self.cursor = cursor_after(&event);
        Some(event)
    }
}

/// The block a consumer stands on after this event.
fn cursor_after(event: &Event) -> Option<BlockRef> {
    match event {
        Event::Apply(block, _) => Some(*block),
        Event::Undo(block, header) => {
            let height = block.height.checked_sub(1)?;
            Some(BlockRef { height, hash: header.prev_blockhash })
        }
    }
}
