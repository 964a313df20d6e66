//! The pool against a naive model under random steps, and the waiting at its edge.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

/// A connection with a number; the test says when its other side closes it.
#[derive(Clone, Debug)]
struct Fake {
    number: u32,
    closed: Arc<AtomicBool>,
}

impl Pooled for Fake {
    fn is_healthy(&mut self) -> bool {
        !self.closed.load(Ordering::Relaxed)
    }
}

#[derive(Clone, Debug)]
enum Action {
    Get(u8),
    /// Gives the n-th place in use back, with its connection or without.
    Put(usize, bool),
    GiveUp(usize),
    /// The other side closes the n-th connection.
    Close(usize),
    Forget(u8),
    Pass(u16),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        5 => (0..4u8).prop_map(Action::Get),
        5 => (0..16usize, prop::bool::weighted(0.8)).prop_map(|(n, kept)| Action::Put(n, kept)),
        1 => (0..8usize).prop_map(Action::GiveUp),
        1 => (0..32usize).prop_map(Action::Close),
        1 => (0..4u8).prop_map(Action::Forget),
        2 => (0..400u16).prop_map(Action::Pass),
    ]
}

const CONFIG: PoolConfig = PoolConfig {
    total: 5,
    per_target: 2,
    waiters: 4,
    idle: Duration::from_millis(300),
    max_age: Duration::from_millis(900),
    max_uses: 3,
};

/// A place of the model: of this target, with a connection or empty; idle since then, or in use.
#[derive(Clone, Debug)]
struct Row {
    target: u8,
    connection: Option<Fake>,
    opened: u64,
    uses: u32,
    idle_since: Option<(u64, u64)>,
}

/// The same rules over one list, without any index.
#[derive(Default)]
struct Model {
    now: u64,
    rows: Vec<Row>,
    waiting: Vec<u8>,
    steps: u64,
}

impl Model {
    fn expire(&mut self) {
        let now = self.now;
        self.rows.retain(|row| match row.idle_since {
            Some((since, _)) => now - since < 300 && now - row.opened < 900,
            None => true,
        });
    }

    /// The connection that is reused, or `None` for an empty place; `Err`: there is no place.
    fn grant(&mut self, target: u8) -> Result<Option<u32>, ()> {
        loop {
            let latest = self.rows.iter().enumerate().filter(|(_, row)| row.target == target);
            let latest = latest.filter_map(|(at, row)| Some((row.idle_since?.1, at))).max();
            let Some((_, at)) = latest else { break };
            let mut row = self.rows.remove(at);
            let connection = row.connection.clone().unwrap();
            if !connection.closed.load(Ordering::Relaxed) {
                row.idle_since = None;
                self.rows.push(row);
                return Ok(Some(connection.number));
            }
        }
        if self.rows.iter().filter(|row| row.target == target).count() >= 2 {
            return Err(());
        }
        if self.rows.len() >= 5 {
            let idle = self.rows.iter().enumerate().filter_map(|(at, row)| Some((row.idle_since?.1, at)));
            let Some((_, at)) = idle.min() else { return Err(()) };
            self.rows.remove(at);
        }
        self.rows.push(Row { target, connection: None, opened: self.now, uses: 0, idle_since: None });
        Ok(None)
    }

    /// Whom the free places go to, in order: the target, and the connection that it gets.
    fn serve(&mut self) -> Vec<(u8, Option<u32>)> {
        let mut served = Vec::new();
        while let Some((at, got)) =
            (0..self.waiting.len()).find_map(|at| Some((at, self.grant(self.waiting[at]).ok()?)))
        {
            served.push((self.waiting.remove(at), got));
        }
        served
    }
}

/// A place in use, as both sides know it.
struct Held {
    target: u8,
    past: Past,
    connection: Fake,
}

#[derive(Default)]
struct Run {
    held: Vec<Held>,
    tickets: Vec<(u64, u8)>,
    made: Vec<Fake>,
}

impl Run {
    fn hold(&mut self, model: &mut Model, target: u8, grant: Grant<Fake>) -> Option<u32> {
        let reused = grant.connection.as_ref().map(|connection| connection.number);
        let connection = grant.connection.unwrap_or_else(|| {
            let fresh = Fake { number: self.made.len() as u32, closed: Arc::default() };
            self.made.push(fresh.clone());
            fresh
        });
        let unnamed =
            |row: &&mut Row| row.target == target && row.idle_since.is_none() && row.connection.is_none();
        if let Some(row) = model.rows.iter_mut().find(unnamed) {
            row.connection = Some(connection.clone());
        }
        self.held.push(Held { target, past: grant.past, connection });
        reused
    }
}

fn step(book: &mut Bookkeeping<u8, Fake>, model: &mut Model, run: &mut Run, action: &Action) {
    let now = Timestamp::from_millis(model.now);
    match *action {
        Action::Pass(millis) => model.now += u64::from(millis),
        Action::Get(target) => {
            model.expire();
            let expected = if model.waiting.contains(&target) { Err(()) } else { model.grant(target) };
            match (book.get(now, &target), expected) {
                (Answer::Granted(grant), Ok(expected)) => {
                    assert_eq!(run.hold(model, target, grant), expected);
                }
                (Answer::Wait(ticket), Err(())) if model.waiting.len() < 4 => {
                    model.waiting.push(target);
                    run.tickets.push((ticket, target));
                }
                (Answer::Refused, Err(())) => assert_eq!(model.waiting.len(), 4),
                (answer, expected) => panic!("{answer:?}, not {expected:?}"),
            }
        }
        Action::Put(at, kept) if !run.held.is_empty() => {
            let held = run.held.remove(at % run.held.len());
            let number = held.connection.number;
            let same = |row: &Row| row.connection.as_ref().is_some_and(|other| other.number == number);
            let at = model.rows.iter().position(same).unwrap();
            let mut row = model.rows.remove(at);
            row.uses += 1;
            model.steps += 1;
            let closed = held.connection.closed.load(Ordering::Relaxed);
            if kept && row.uses < 3 && model.now - row.opened < 900 && !closed {
                row.idle_since = Some((model.now, model.steps));
                model.rows.push(row);
            }
            model.expire();
            book.put(now, &held.target, held.past, kept.then_some(held.connection));
        }
        Action::GiveUp(at) if !run.tickets.is_empty() => {
            let at = at % run.tickets.len();
            model.waiting.remove(at);
            book.give_up(run.tickets.remove(at).0, true);
        }
        Action::Close(at) if !run.made.is_empty() => {
            run.made[at % run.made.len()].closed.store(true, Ordering::Relaxed);
        }
        Action::Forget(target) => {
            model.rows.retain(|row| row.target != target || row.idle_since.is_none());
            book.forget(&target);
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn it_does_what_a_list_would(actions in prop::collection::vec(action(), 1..200)) {
        let mut book = Bookkeeping::new(CONFIG);
        let mut model = Model::default();
        let mut run = Run::default();
        for action in &actions {
            step(&mut book, &mut model, &mut run, action);
            let now = Timestamp::from_millis(model.now);
            for (target, expected) in model.serve() {
                let (ticket, grant) = book.next(now).unwrap();
                let at = run.tickets.iter().position(|(waiting, _)| *waiting == ticket).unwrap();
                prop_assert_eq!(run.tickets.remove(at).1, target);
                prop_assert_eq!(run.hold(&mut model, target, grant), expected);
            }
            prop_assert!(book.next(now).is_none());
            let counts = book.counts();
            prop_assert_eq!(counts.open, model.rows.len());
            prop_assert_eq!(counts.idle, model.rows.iter().filter(|row| row.idle_since.is_some()).count());
            prop_assert_eq!(counts.waiting, model.waiting.len());
            prop_assert!(counts.open <= CONFIG.total);
            let numbers: BTreeSet<u32> = run.held.iter().map(|held| held.connection.number).collect();
            prop_assert_eq!(numbers.len(), run.held.len(), "no connection has two users");
        }
        let counts = book.counts();
        let begun = run.made.len() as u64;
        prop_assert_eq!(counts.opened, begun);
        let ended = counts.unhealthy + counts.expired + counts.displaced;
        prop_assert!(ended + counts.open as u64 <= begun);
    }
}

#[cfg(feature = "native")]
mod edge {
    use super::*;
    use crate::net::SystemClock;
    use crate::net::native::NativeExecutor;
    use async_io::block_on;
    use std::sync::atomic::AtomicUsize;

    fn pool(config: PoolConfig) -> Pool<u8, Fake> {
        Pool::new(config, Arc::new(NativeExecutor::new().unwrap()), Arc::new(SystemClock::new()))
    }

    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(50);

    fn fake(number: u32) -> Fake {
        Fake { number, closed: Arc::default() }
    }

    #[test]
    fn a_wait_ends_with_a_place_or_with_its_time() {
        let pool = pool(PoolConfig { per_target: 1, ..PoolConfig::default() });
        let first = block_on(pool.get(&1, SHORT)).unwrap();
        assert_eq!(block_on(pool.get(&1, SHORT)).unwrap_err(), PoolError::TimedOut);
        assert!(block_on(pool.get(&2, SHORT)).is_ok(), "another target has its own places");
        let second = pool.clone();
        let waiter = std::thread::spawn(move || block_on(second.get(&1, LONG)).unwrap().take());
        while pool.counts().waiting == 0 {
            std::thread::yield_now();
        }
        first.put(fake(7));
        assert_eq!(waiter.join().unwrap().unwrap().number, 7);
        let counts = pool.counts();
        assert_eq!((counts.open, counts.waiting), (0, 0), "the thread dropped its place");
        assert_eq!((counts.opened, counts.reused, counts.timed_out), (2, 1, 1));
    }

    #[test]
    fn those_who_wait_are_served_in_order() {
        let pool = pool(PoolConfig { per_target: 1, ..PoolConfig::default() });
        let first = block_on(pool.get(&1, SHORT)).unwrap();
        let turn = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..5)
            .map(|n| {
                let (mine, turn) = (pool.clone(), turn.clone());
                let thread = std::thread::spawn(move || {
                    let _place = block_on(mine.get(&1, LONG)).unwrap();
                    turn.fetch_add(1, Ordering::SeqCst)
                });
                while pool.counts().waiting <= n {
                    std::thread::yield_now();
                }
                thread
            })
            .collect();
        drop(first);
        let turns: Vec<usize> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(turns, [0, 1, 2, 3, 4]);
        assert_eq!(pool.counts().open, 0);
    }

    #[test]
    fn a_wait_that_is_given_up_leaves_nothing_behind() {
        let pool = pool(PoolConfig { per_target: 1, waiters: 1, ..PoolConfig::default() });
        let first = block_on(pool.get(&1, SHORT)).unwrap();
        let mut wait = Box::pin(pool.get(&1, LONG));
        let waker = noop_waker();
        assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(block_on(pool.get(&1, LONG)).unwrap_err(), PoolError::Refused);
        // The place is given to the wait, which nobody looks at any more.
        first.put(fake(1));
        assert_eq!((pool.counts().open, pool.counts().waiting), (1, 0));
        drop(wait);
        let counts = pool.counts();
        assert_eq!((counts.open, counts.idle, counts.timed_out, counts.refused), (1, 1, 0, 1));
        assert_eq!(block_on(pool.get(&1, SHORT)).unwrap().take().unwrap().number, 1);
    }

    #[test]
    fn streams_that_are_closed_or_have_something_unread_are_not_used_again() {
        use std::io::Write;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let dial = || {
            let address = listener.local_addr().unwrap().into();
            let dialled = crate::net::Transport::dial(&crate::net::native::NativeTransport::new(), &address);
            let stream = block_on(dialled).unwrap();
            (stream, listener.accept().unwrap().0)
        };
        let unhealthy = |stream: &mut BoxStream| {
            let begun = std::time::Instant::now();
            while stream.is_healthy() {
                assert!(begun.elapsed() < LONG);
                std::thread::yield_now();
            }
        };
        let (mut stream, mut other) = dial();
        assert!(stream.is_healthy());
        other.write_all(b"x").unwrap();
        unhealthy(&mut stream);
        let (mut stream, other) = dial();
        assert!(stream.is_healthy());
        drop(other);
        unhealthy(&mut stream);
    }
}
