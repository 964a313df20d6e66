//! Connections that we open: bounded, waited for in turn, kept for the next use where they can be, and counted.
//!
//! 1. [`Pool::get`] gives a [`Place`]: with a connection that an earlier user left, or empty, to be filled by whoever
//!    holds it. If all places are taken, of this target or in all, it waits in the order of asking, for a limited time.
//! 2. [`Place::put`] gives a connection back. It is looked at: one that is closed, has unread bytes, is too old or was
//!    used too often is dropped; so it is again before the next use, for the other side may have closed it meanwhile.
//! 3. A place that is dropped is free. Idle connections end after [`PoolConfig::idle`], or when another target needs
//!    their places.
//!
//! A node has one pool for all that it opens. HTTP sources give connections back after each answer. Connections to peers
//! belong to one peer for their whole life and are never handed to another, so that for them the pool is the bound, the
//! wait with a limit, and the counts.
//!
//! [`Bookkeeping`] decides and is told the time; [`Pool`] adds the lock and the waiting. Nothing wakes to end an idle
//! connection: that happens with the next call, or with [`Pool::expire`].

use super::{BoxStream, Clock, Executor};
use crate::limits::{
    MAX_OUTGOING, MAX_OUTGOING_PER_TARGET, MAX_POOL_WAITERS, POOL_IDLE, POOL_MAX_AGE, POOL_MAX_USES,
};
use crate::time::Timestamp;
use core::fmt;
use core::pin::{Pin, pin};
use core::task::{Context, Poll};
use core::time::Duration;
use futures::channel::oneshot;
use futures::future::{Either, select};
use futures::io::AsyncRead;
use futures::task::noop_waker;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What a pool keeps.
pub trait Pooled {
    /// Whether it can be used again: open, with nothing unread.
    fn is_healthy(&mut self) -> bool;
}

impl Pooled for BoxStream {
    /// A stream with nothing to read and no end is fine. The byte that may be read for it is lost: there should be none.
    fn is_healthy(&mut self) -> bool {
        let waker = noop_waker();
        let mut unread = [0; 1];
        let look = Pin::new(self).poll_read(&mut Context::from_waker(&waker), &mut unread);
        matches!(look, Poll::Pending)
    }
}

/// The bounds of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Connections in all, in use or idle; at least 1.
    pub total: usize,
    /// Connections to one target; at least 1.
    pub per_target: usize,
    /// Who may wait; more are refused at once.
    pub waiters: usize,
    /// How long a connection is kept idle.
    pub idle: Duration,
    /// The age at which a connection is not kept any more.
    pub max_age: Duration,
    /// The uses after which it is not.
    pub max_uses: u32,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            total: MAX_OUTGOING,
            per_target: MAX_OUTGOING_PER_TARGET,
            waiters: MAX_POOL_WAITERS,
            idle: POOL_IDLE,
            max_age: POOL_MAX_AGE,
            max_uses: POOL_MAX_USES,
        }
    }
}

/// What a pool holds, and what has happened in it since its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolCounts {
    /// Places that are taken: connections in use, being opened, or idle.
    pub open: usize,
    /// Idle connections.
    pub idle: usize,
    /// Who waits for a place.
    pub waiting: usize,
    /// Places that were given out empty.
    pub opened: u64,
    /// Connections that were used again.
    pub reused: u64,
    /// Who was refused, since too many waited.
    pub refused: u64,
    /// Who waited for too long.
    pub timed_out: u64,
    /// Connections that were dropped since they were closed or had unread bytes.
    pub unhealthy: u64,
    /// Connections that were dropped for their age, their uses, or since nobody used them or will.
    pub expired: u64,
    /// Idle connections that made room for another target.
    pub displaced: u64,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// Too many wait already.
    #[error("too many wait for a connection")]
    Refused,
    /// No place became free in time.
    #[error("no connection became free in time")]
    TimedOut,
}

/// What is known of a connection besides itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    opened: Timestamp,
    uses: u32,
}

/// A place that was given: with a connection and its past, or empty.
#[derive(Debug)]
pub struct Grant<C> {
    /// The connection of an earlier user.
    pub connection: Option<C>,
    /// Since when there is one, and how often it was used.
    pub past: Past,
}

/// The answer to [`Bookkeeping::get`].
#[derive(Debug)]
pub enum Answer<C> {
    /// Here is a place.
    Granted(Grant<C>),
    /// Wait until this ticket is called.
    Wait(u64),
    /// Too many wait.
    Refused,
}

#[derive(Debug)]
struct Idle<C> {
    connection: C,
    past: Past,
    since: Timestamp,
    /// In the order of becoming idle, over all targets.
    number: u64,
}

/// The places of one target.
#[derive(Debug)]
struct Target<C> {
    in_use: usize,
    /// The latest at the end.
    idle: Vec<Idle<C>>,
}

/// A pool without lock and waiting: who has which place, and who is next.
#[derive(Debug)]
pub struct Bookkeeping<K, C> {
    config: PoolConfig,
    targets: BTreeMap<K, Target<C>>,
    /// Tickets in the order of asking.
    waiting: VecDeque<(u64, K)>,
    next_number: u64,
    counts: PoolCounts,
}

impl<K: Ord + Clone, C: Pooled> Bookkeeping<K, C> {
    /// An empty pool.
    pub fn new(config: PoolConfig) -> Self {
        Self {
            config,
            targets: BTreeMap::new(),
            waiting: VecDeque::new(),
            next_number: 0,
            counts: PoolCounts::default(),
        }
    }

    /// What is held and what has happened.
    pub fn counts(&self) -> PoolCounts {
        self.counts
    }

    /// Asks for a place. Who waits already for the same target comes first.
    pub fn get(&mut self, now: Timestamp, target: &K) -> Answer<C> {
        self.expire(now);
        let overtakes = self.waiting.iter().any(|(_, waiting)| waiting == target);
        if !overtakes && let Some(grant) = self.grant(now, target) {
            return Answer::Granted(grant);
        }
        if self.waiting.len() >= self.config.waiters {
            self.counts.refused += 1;
            return Answer::Refused;
        }
        let ticket = self.number();
        self.waiting.push_back((ticket, target.clone()));
        self.counts.waiting += 1;
        Answer::Wait(ticket)
    }

    /// Whoever had this ticket waits no more; `timed_out` tells why.
    pub fn give_up(&mut self, ticket: u64, timed_out: bool) {
        let before = self.waiting.len();
        self.waiting.retain(|(waiting, _)| *waiting != ticket);
        if self.waiting.len() < before {
            self.counts.waiting -= 1;
            self.counts.timed_out += u64::from(timed_out);
        }
    }

    /// A place is given back, with a connection that may be used again or without one. [`Self::next`] tells who is next.
    pub fn put(&mut self, now: Timestamp, target: &K, past: Past, connection: Option<C>) {
        let number = self.number();
        let Some(entry) = self.targets.get_mut(target).filter(|entry| entry.in_use > 0) else { return };
        entry.in_use -= 1;
        self.counts.open -= 1;
        if let Some(mut connection) = connection {
            let past = Past { uses: past.uses.saturating_add(1), ..past };
            if past.uses >= self.config.max_uses || now.since(past.opened) >= self.config.max_age {
                self.counts.expired += 1;
            } else if !connection.is_healthy() {
                self.counts.unhealthy += 1;
            } else {
                entry.idle.push(Idle { connection, past, since: now, number });
                self.counts.open += 1;
                self.counts.idle += 1;
            }
        }
        self.expire(now);
        self.forget_empty(target);
    }

    /// The first ticket for which there is a place now; to be called until `None`.
    pub fn next(&mut self, now: Timestamp) -> Option<(u64, Grant<C>)> {
        // Later tickets of a target that has no place are passed over: another target's may have one.
        for at in 0..self.waiting.len() {
            let (ticket, target) = self.waiting.get(at)?.clone();
            if let Some(grant) = self.grant(now, &target) {
                self.waiting.remove(at);
                self.counts.waiting -= 1;
                return Some((ticket, grant));
            }
        }
        None
    }

    /// Drops idle connections whose time is over.
    pub fn expire(&mut self, now: Timestamp) {
        let (idle, max_age) = (self.config.idle, self.config.max_age);
        let counts = &mut self.counts;
        self.targets.retain(|_, target| {
            let before = target.idle.len();
            target.idle.retain(|kept| now.since(kept.since) < idle && now.since(kept.past.opened) < max_age);
            let gone = before - target.idle.len();
            counts.expired += gone as u64;
            counts.idle -= gone;
            counts.open -= gone;
            target.in_use > 0 || !target.idle.is_empty()
        });
    }

    /// Drops the idle connections of a target that is not wanted any more.
    pub fn forget(&mut self, target: &K) {
        if let Some(entry) = self.targets.get_mut(target) {
            let gone = core::mem::take(&mut entry.idle).len();
            self.counts.idle -= gone;
            self.counts.open -= gone;
            self.counts.expired += gone as u64;
        }
        self.forget_empty(target);
    }

    /// A place for this target, if there is one.
    fn grant(&mut self, now: Timestamp, target: &K) -> Option<Grant<C>> {
        while let Some(mut kept) = self.targets.get_mut(target).and_then(|entry| entry.idle.pop()) {
            self.counts.idle -= 1;
            if kept.connection.is_healthy() {
                self.counts.reused += 1;
                self.take(target);
                return Some(Grant { connection: Some(kept.connection), past: kept.past });
            }
            self.counts.open -= 1;
            self.counts.unhealthy += 1;
        }
        let used = self.targets.get(target).map_or(0, |entry| entry.in_use);
        if used >= self.config.per_target.max(1) {
            return None;
        }
        if self.counts.open >= self.config.total.max(1) && !self.displace() {
            self.forget_empty(target);
            return None;
        }
        self.counts.open += 1;
        self.counts.opened += 1;
        self.take(target);
        Some(Grant { connection: None, past: Past { opened: now, uses: 0 } })
    }

    fn take(&mut self, target: &K) {
        let fresh = || Target { in_use: 0, idle: Vec::new() };
        self.targets.entry(target.clone()).or_insert_with(fresh).in_use += 1;
    }

    /// Ends the connection that has been idle for longest.
    fn displace(&mut self) -> bool {
        let oldest = |target: &Target<C>| target.idle.first().map(|kept| kept.number);
        let found = self.targets.iter().filter_map(|(key, target)| Some((oldest(target)?, key))).min();
        let Some((_, key)) = found else { return false };
        let key = key.clone();
        if let Some(target) = self.targets.get_mut(&key) {
            target.idle.remove(0);
            self.counts.idle -= 1;
            self.counts.open -= 1;
            self.counts.displaced += 1;
        }
        self.forget_empty(&key);
        true
    }

    fn forget_empty(&mut self, target: &K) {
        if self.targets.get(target).is_some_and(|entry| entry.in_use == 0 && entry.idle.is_empty()) {
            self.targets.remove(target);
        }
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }
}

/// Those who wait, by their tickets.
type Waiters<C> = BTreeMap<u64, oneshot::Sender<Grant<C>>>;

struct Inner<K, C> {
    state: Mutex<(Bookkeeping<K, C>, Waiters<C>)>,
    executor: Arc<dyn Executor>,
    clock: Arc<dyn Clock>,
}

impl<K: Ord + Clone, C: Pooled> Inner<K, C> {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX))
    }

    fn put(&self, target: &K, past: Past, connection: Option<C>) {
        let now = self.now();
        let mut state = self.state.lock();
        state.0.put(now, target, past, connection);
        self.serve(&mut state);
    }

    /// Gives free places to those who wait.
    fn serve(&self, state: &mut (Bookkeeping<K, C>, Waiters<C>)) {
        let now = self.now();
        let (book, waiters) = state;
        while let Some((ticket, grant)) = book.next(now) {
            let _ = waiters.remove(&ticket).map(|waiter| waiter.send(grant));
        }
    }
}

/// A pool; its clones are the same one.
pub struct Pool<K, C>(Arc<Inner<K, C>>);

impl<K, C> Clone for Pool<K, C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, C> fmt::Debug for Pool<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl<K: Ord + Clone, C: Pooled> Pool<K, C> {
    /// An empty pool.
    pub fn new(config: PoolConfig, executor: Arc<dyn Executor>, clock: Arc<dyn Clock>) -> Self {
        let state = Mutex::new((Bookkeeping::new(config), BTreeMap::new()));
        Self(Arc::new(Inner { state, executor, clock }))
    }

    /// What is held and what has happened.
    pub fn counts(&self) -> PoolCounts {
        self.0.state.lock().0.counts()
    }

    /// Drops idle connections whose time is over.
    pub fn expire(&self) {
        let now = self.0.now();
        self.0.state.lock().0.expire(now);
    }

    /// Drops the idle connections of a target that is not wanted any more.
    pub fn forget(&self, target: &K) {
        let mut state = self.0.state.lock();
        state.0.forget(target);
        self.0.serve(&mut state);
    }

    /// A place for a connection to this target, waited for at most so long. Dropping the future gives up.
    ///
    /// # Errors
    /// [`PoolError`].
    pub async fn get(&self, target: &K, limit: Duration) -> Result<Place<K, C>, PoolError> {
        let place = |grant: Grant<C>| Place {
            pool: self.0.clone(),
            target: target.clone(),
            past: grant.past,
            connection: grant.connection,
            returned: false,
        };
        let (ticket, called) = {
            let now = self.0.now();
            let mut state = self.0.state.lock();
            match state.0.get(now, target) {
                Answer::Granted(grant) => return Ok(place(grant)),
                Answer::Refused => return Err(PoolError::Refused),
                Answer::Wait(ticket) => {
                    let (sender, called) = oneshot::channel();
                    state.1.insert(ticket, sender);
                    (ticket, called)
                }
            }
        };
        let mut waiting = Waiting { pool: &self.0, target, ticket, called, timed_out: false };
        let timer = self.0.executor.timer(limit);
        let called = match select(pin!(&mut waiting.called), timer).await {
            Either::Left((called, _)) => called.ok(),
            Either::Right(_) => None,
        };
        waiting.timed_out = called.is_none();
        // A place that came with the end of the time is taken by `waiting`, and given back.
        called.map(place).ok_or(PoolError::TimedOut)
    }
}

/// Takes a ticket back, and a place that was given too late, however the waiting ends.
struct Waiting<'a, K: Ord + Clone, C: Pooled> {
    pool: &'a Inner<K, C>,
    target: &'a K,
    ticket: u64,
    called: oneshot::Receiver<Grant<C>>,
    timed_out: bool,
}

impl<K: Ord + Clone, C: Pooled> Drop for Waiting<'_, K, C> {
    fn drop(&mut self) {
        {
            let mut state = self.pool.state.lock();
            state.0.give_up(self.ticket, self.timed_out);
            state.1.remove(&self.ticket);
        }
        if let Ok(Some(grant)) = self.called.try_recv() {
            self.pool.put(self.target, grant.past, grant.connection);
        }
    }
}

/// A place in a pool: room for one connection. Dropping it frees the place and ends the connection.
pub struct Place<K: Ord + Clone, C: Pooled> {
    pool: Arc<Inner<K, C>>,
    target: K,
    past: Past,
    /// What an earlier user left.
    connection: Option<C>,
    returned: bool,
}

impl<K: Ord + Clone, C: Pooled> fmt::Debug for Place<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("past", &self.past).finish_non_exhaustive()
    }
}

impl<K: Ord + Clone, C: Pooled> Place<K, C> {
    /// The connection that an earlier user left, once; `None`: it is to be opened.
    pub fn take(&mut self) -> Option<C> {
        self.connection.take()
    }

    /// The connection was opened anew, in place of one that turned out to be closed.
    pub fn renewed(&mut self) {
        self.past = Past { opened: self.pool.now(), uses: 0 };
    }

    /// Gives the connection back for the next user, unless it is not fit for one.
    pub fn put(mut self, connection: C) {
        self.returned = true;
        self.pool.put(&self.target, self.past, Some(connection));
    }
}

impl<K: Ord + Clone, C: Pooled> Drop for Place<K, C> {
    fn drop(&mut self) {
        if !self.returned {
            // Its end comes first, so that no more are open than places are taken.
            drop(self.connection.take());
            self.pool.put(&self.target, self.past, None);
        }
    }
}

#[cfg(test)]
mod tests;
