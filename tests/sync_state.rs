//! The two-phase commit as a machine: an exhaustive search over all orders of events, with repeated, late,
//! forged and premature reports, failures and restarts; and the chain of checkpoints at a start.

#![cfg(feature = "consensus")]

mod ground;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use ground::{Ground, SUBSIDY, bytes, mine};
use headlong::chain::command::{BlockRef, RollbackCheckpoint};
use headlong::error::Error;
use headlong::store::{Batch, Durability, Store, StoreErrorKind, Table, schema};
use headlong::sync::commits::{CommitError, Commits, Committed};
use headlong::sync::fsm::SyncState;
use std::collections::{BTreeMap, BTreeSet};

/// Events in a row that the search looks at, at most: it ends before, when nothing new is found.
const DEPTH: usize = 40;
/// Commits in a row that it looks at, so that there is an end.
const MAX_COMMITS: usize = 3;

fn block(n: u32) -> BlockRef {
    BlockRef { height: n, hash: BlockHash::from_byte_array([n as u8; 32]) }
}

/// The chainstate's side, as it is on disk and in memory, and the machine.
#[derive(Clone, Debug)]
struct World {
    commits: Commits,
    /// Checkpoints on disk.
    chain: Vec<RollbackCheckpoint>,
    /// The durable tip, and all that ever were.
    durable: BlockRef,
    history: BTreeSet<BlockRef>,
    /// The tip in memory, with what stands behind a commit that was asked for.
    memory: BlockRef,
    /// The tip that the commit is to make durable.
    covered: BlockRef,
    /// A commit was asked for and is not answered.
    asked: bool,
    /// Its checkpoint is on disk, the change is not.
    pending: bool,
    /// The chainstate failed: it does nothing more before the state is restored.
    dead: bool,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// The tip in memory moves here.
    Move(u32),
    Ask,
    /// The chainstate does phase one, and tells.
    Prepare,
    /// It does phase two, and tells.
    Finish,
    /// It does phase two, and dies before it tells.
    FinishUntold,
    /// It had nothing to do, and tells.
    Nothing,
    Acknowledge,
    /// The checkpoint with this place is told again, as durable or as committed.
    Again(usize, bool),
    /// A checkpoint is told that never was.
    Forged(Forgery, bool),
    /// The state of the next checkpoint is told without it.
    Premature,
    Failure,
    RolledBack,
    /// The process ends here, and starts again from the disk.
    Restart,
}

#[derive(Clone, Copy, Debug)]
enum Forgery {
    /// The last one with another time.
    Time,
    /// One that leaves a number out.
    Leap,
    /// One that follows another history.
    Graft,
    /// One that starts elsewhere.
    Start,
}

fn events() -> Vec<Event> {
    let mut all = vec![
        Event::Move(1),
        Event::Move(2),
        Event::Ask,
        Event::Prepare,
        Event::Finish,
        Event::FinishUntold,
        Event::Nothing,
        Event::Acknowledge,
        Event::Premature,
        Event::Failure,
        Event::RolledBack,
        Event::Restart,
    ];
    for committed in [false, true] {
        all.extend((0..=MAX_COMMITS).map(|at| Event::Again(at, committed)));
        let forgeries = [Forgery::Time, Forgery::Leap, Forgery::Graft, Forgery::Start];
        all.extend(forgeries.map(|forgery| Event::Forged(forgery, committed)));
    }
    all
}

impl World {
    fn new() -> Self {
        // As recovery leaves a new store.
        let first = RollbackCheckpoint::next(None, 0, block(0), block(0));
        Self {
            commits: Commits::begin(Some(first.clone()), block(0)).unwrap(),
            chain: vec![first],
            durable: block(0),
            history: BTreeSet::from([block(0)]),
            memory: block(0),
            covered: block(0),
            asked: false,
            pending: false,
            dead: false,
        }
    }

    fn last(&self) -> &RollbackCheckpoint {
        self.chain.last().unwrap()
    }

    /// The next checkpoint: what phase one makes durable.
    fn next(&self) -> RollbackCheckpoint {
        RollbackCheckpoint::next(Some(self.last()), 7, self.durable, self.covered)
    }

    fn forged(&self, forgery: Forgery) -> RollbackCheckpoint {
        let last = self.last();
        match forgery {
            Forgery::Time => RollbackCheckpoint { time: 99, ..last.clone() },
            Forgery::Leap => RollbackCheckpoint { sequence: last.sequence + 2, ..self.next() },
            Forgery::Graft => {
                let other = RollbackCheckpoint { time: 99, ..last.clone() };
                RollbackCheckpoint::next(Some(&other), 7, self.durable, block(2))
            }
            Forgery::Start => RollbackCheckpoint::next(Some(last), 7, block(9), block(2)),
        }
    }

    fn tell(&mut self, checkpoint: &RollbackCheckpoint, committed: bool) -> Result<(), CommitError> {
        if committed {
            self.commits.committed(checkpoint).map(drop)
        } else {
            self.commits.checkpoint(checkpoint)
        }
    }

    /// Carries an event out; `None` where it cannot happen. The answer is the machine's.
    fn step(&mut self, event: Event) -> Option<Result<(), CommitError>> {
        let step = |result: Result<(), headlong::sync::fsm::IllegalStep>| Some(result.map_err(Into::into));
        let works = matches!(event, Event::Prepare | Event::Finish | Event::FinishUntold | Event::Nothing);
        if works && self.dead {
            return None;
        }
        match event {
            Event::Move(to) => {
                let moved = self.commits.moved();
                if moved.is_ok() {
                    self.memory = block(to);
                }
                step(moved)
            }
            Event::Ask => {
                let asked = self.commits.asked();
                if asked.is_ok() {
                    self.asked = true;
                    self.covered = self.memory;
                }
                step(asked)
            }
            Event::Prepare if self.asked && !self.pending && self.covered != self.durable => {
                if self.chain.len() > MAX_COMMITS {
                    return None;
                }
                let next = self.next();
                self.chain.push(next.clone());
                self.pending = true;
                Some(self.commits.checkpoint(&next))
            }
            Event::Finish | Event::FinishUntold if self.pending => {
                self.pending = false;
                self.asked = false;
                self.durable = self.last().to;
                self.history.insert(self.durable);
                let last = self.last().clone();
                if matches!(event, Event::FinishUntold) {
                    self.restart();
                    return Some(Ok(()));
                }
                Some(self.commits.committed(&last).map(drop))
            }
            Event::Nothing if self.asked && !self.pending && self.covered == self.durable => {
                self.asked = false;
                let last = self.last().clone();
                let told = self.commits.committed(&last);
                if let Ok(told) = told {
                    assert_eq!(told, Committed::Nothing);
                }
                Some(told.map(drop))
            }
            Event::Acknowledge => {
                let behind = self.memory != self.durable;
                step(self.commits.acknowledge(behind))
            }
            Event::Again(at, committed) => {
                // What is under way is no repetition.
                let settled = self.chain.len() - usize::from(self.pending);
                // The last one again, while a commit waits for its answer, is that answer.
                let answer = self.asked && !self.pending && at + 1 == settled && committed;
                let checkpoint = self.chain[..settled].get(at).filter(|_| !answer)?.clone();
                Some(self.tell(&checkpoint, committed))
            }
            Event::Forged(forgery, committed) => {
                let forged = self.forged(forgery);
                let told = self.tell(&forged, committed);
                assert!(told.is_err(), "{forgery:?} was taken in {:?}", self.commits.state());
                Some(told)
            }
            Event::Premature if !self.pending => {
                let next = self.next();
                let told = self.commits.committed(&next);
                assert!(told.is_err(), "committed without a checkpoint in {:?}", self.commits.state());
                Some(told.map(drop))
            }
            Event::Failure => {
                self.dead = true;
                step(self.commits.failed())
            }
            Event::RolledBack => {
                let restored = self.commits.rolled_back();
                if restored.is_ok() {
                    // Undone in this run: the checkpoint stays, and the tip is where it began.
                    (self.dead, self.pending, self.asked) = (false, false, false);
                    (self.memory, self.covered) = (self.durable, self.durable);
                }
                step(restored)
            }
            Event::Restart => {
                self.restart();
                Some(Ok(()))
            }
            _ => None,
        }
    }

    /// What recovery does: a change whose checkpoint is durable is finished.
    fn restart(&mut self) {
        if self.pending {
            self.pending = false;
            self.durable = self.last().to;
            self.history.insert(self.durable);
        }
        (self.asked, self.dead) = (false, false);
        (self.memory, self.covered) = (self.durable, self.durable);
        let last = Some(self.last().clone());
        self.commits = Commits::begin(last, self.durable).expect("the disk is consistent at any time");
    }

    fn check(&self, before: &Self, event: Event, told: &Result<(), CommitError>) {
        let what = || format!("{event:?} from {before:?}");
        let (now, then) = (&self.commits, &before.commits);
        if told.is_err() {
            assert_eq!(now, then, "{}: what is refused changes nothing", what());
        }
        // The machine never says that something is durable which is not.
        assert!(self.history.contains(&now.durable()), "{}", what());
        assert!(self.chain.contains(now.last().unwrap()), "{}", what());
        let restarted = matches!(event, Event::Restart | Event::FinishUntold);
        if now.durable() != then.durable() && !restarted {
            assert_eq!(
                (then.state(), now.state()),
                (SyncState::Committing, SyncState::Committed),
                "{}",
                what()
            );
            assert_eq!(now.last().unwrap().to, now.durable(), "{}", what());
        }
        if now.state() == SyncState::Committed && then.state() != SyncState::Committed {
            let from = [SyncState::Committing, SyncState::Preparing];
            assert!(from.contains(&then.state()), "{}", what());
            assert_eq!(now.durable(), self.durable, "{}", what());
        }
        // Repetitions change nothing but where a commit waits for exactly that.
        if let Event::Again(..) = event
            && told.is_ok()
        {
            assert_eq!(now, then, "{}", what());
        }
        // The disk is a chain at any time.
        assert!(self.chain.windows(2).all(|pair| pair[1].previous == pair[0].hash()), "{}", what());
        // A failure anywhere leads back to the last consistent state, in this run or in the next.
        let mut failed = self.clone();
        failed.commits.failed().unwrap();
        if failed.commits.rolled_back().is_ok() {
            assert_eq!((failed.commits.state(), failed.commits.durable()), (SyncState::Idle, now.durable()));
        } else {
            assert_eq!(failed.commits.state(), SyncState::Failed, "{}", what());
        }
        failed.restart();
        assert!(failed.history.contains(&failed.commits.durable()));
        assert_eq!(failed.commits.state(), SyncState::Idle);
    }
}

#[test]
fn all_orders_of_events_keep_the_promises() {
    let events = events();
    let mut seen: BTreeSet<String> = BTreeSet::from([format!("{:?}", World::new())]);
    let mut frontier = vec![World::new()];
    let mut steps = 0u64;
    let mut reached: BTreeMap<String, u64> = BTreeMap::new();
    let mut depth = 0;
    while depth < DEPTH && !frontier.is_empty() {
        depth += 1;
        let mut next = Vec::new();
        for world in &frontier {
            for &event in &events {
                let mut after = world.clone();
                let Some(told) = after.step(event) else { continue };
                steps += 1;
                after.check(world, event, &told);
                let name = format!("{:?} → {:?}", world.commits.state(), after.commits.state());
                *reached.entry(name).or_default() += 1;
                if seen.insert(format!("{after:?}")) {
                    next.push(after);
                }
            }
        }
        frontier = next;
    }
    println!("{} states and {steps} steps, all there are, up to depth {depth}", seen.len());
    assert!(frontier.is_empty(), "more states beyond depth {depth}");
    let forbidden = ["Syncing → Committed", "Idle → Committed", "Syncing → Committing", "Idle → Preparing"];
    for name in forbidden {
        assert!(!reached.contains_key(name), "{name}");
    }
    for name in [
        "Idle → Syncing",
        "Syncing → Preparing",
        "Preparing → Committing",
        "Preparing → Committed",
        "Committing → Committed",
        "Committed → Idle",
        "Committed → Syncing",
        "Syncing → RollingBack",
        "Preparing → RollingBack",
        "Committing → RollingBack",
        "Committed → RollingBack",
        "RollingBack → Idle",
        "RollingBack → Failed",
    ] {
        assert!(reached.contains_key(name), "{name} never happened: {reached:#?}");
    }
}

/// The bug: while a commit was under way, a report that a state is durable was taken for "there was nothing to
/// do" whatever it named, so that a state without a checkpoint could count as committed; and an
/// acknowledgement that came late, after the next commit, ended the node.
#[test]
fn a_state_without_its_checkpoint_is_refused_and_a_late_acknowledgement_is_nothing() {
    let first = RollbackCheckpoint::next(None, 0, block(0), block(0));
    let mut commits = Commits::begin(Some(first.clone()), block(0)).unwrap();
    commits.moved().unwrap();
    commits.asked().unwrap();
    let second = RollbackCheckpoint::next(Some(&first), 1, block(0), block(1));
    assert_eq!(commits.committed(&second), Err(CommitError::WithoutCheckpoint(2)));
    commits.checkpoint(&second).unwrap();
    for _ in 0..2 {
        commits.checkpoint(&second).unwrap();
        assert_eq!(commits.committed(&first), Ok(Committed::Repeated));
        assert_eq!(commits.state(), SyncState::Committing);
    }
    assert_eq!(commits.committed(&second), Ok(Committed::Durable(block(1))));
    assert_eq!(commits.committed(&second), Ok(Committed::Repeated));
    commits.acknowledge(false).unwrap();
    assert_eq!(commits.committed(&second), Ok(Committed::Repeated));
    assert_eq!(commits.committed(&first), Ok(Committed::Repeated));
    assert_eq!((commits.state(), commits.durable()), (SyncState::Idle, block(1)));
}

fn key(sequence: u64) -> Vec<u8> {
    [b"checkpoint/", &sequence.to_be_bytes()[..]].concat()
}

/// Every kept checkpoint is looked at when a chainstate opens, not the last alone.
#[test]
fn a_chain_of_checkpoints_that_is_broken_anywhere_is_refused_with_the_way_out() {
    let ground = Ground::new(0, 1_000, 1 << 20);
    let mut front = ground.open();
    let mut parent = *ground.params.genesis_header();
    for height in 1..=8 {
        let block = mine(&parent, height, 0, SUBSIDY, Vec::new());
        parent = block.header;
        front.process_block(bytes(&block)).unwrap();
        front.commit().unwrap();
    }
    drop(front);
    let kept = schema::checkpoints(&ground.store).unwrap();
    assert_eq!(kept.len(), 9);
    let refused = |change: &dyn Fn(&mut Batch)| {
        let damaged = ground.with_store(ground.store.fork());
        let mut batch = Batch::new();
        change(&mut batch);
        damaged.store.commit(batch, Durability::Durable).unwrap();
        let Err(Error::Store(error)) = damaged.open_failing(usize::MAX, false) else { panic!("opened") };
        assert_eq!(error.kind, StoreErrorKind::Corrupt);
        let text = error.to_string();
        assert!(text.contains("checkpoint"), "{text}");
        assert!(text.contains("empty data directory") || text.contains("synced anew"), "{text}");
    };
    for (at, victim) in kept.iter().enumerate() {
        let key = key(victim.sequence);
        let put = |checkpoint: RollbackCheckpoint| {
            let key = key.clone();
            move |batch: &mut Batch| batch.put(Table::Meta, key.clone(), checkpoint.to_bytes())
        };
        let last = at + 1 == kept.len();
        if at > 0 {
            refused(&|batch| batch.delete(Table::Meta, key.clone()));
            let elsewhere = BlockRef { height: 99, ..victim.from };
            refused(&put(RollbackCheckpoint { from: elsewhere, ..victim.clone() }));
            refused(&put(RollbackCheckpoint { previous: Hash::all_zeros(), ..victim.clone() }));
        }
        if !last {
            refused(&put(RollbackCheckpoint { time: victim.time + 1, ..victim.clone() }));
        }
        refused(&put(RollbackCheckpoint { to: BlockRef { height: 99, ..victim.to }, ..victim.clone() }));
        refused(&put(RollbackCheckpoint { sequence: victim.sequence + 1, ..victim.clone() }));
        refused(&|batch| batch.put(Table::Meta, key.clone(), &victim.to_bytes()[..119]));
    }
    // A marker that no checkpoint announced.
    let marker = schema::Pending { from: kept[8].to, to: kept[3].to };
    refused(&|batch| schema::put_pending(batch, marker));
    // Undamaged, it opens.
    assert_eq!(ground.open().tip().height, 8);
}
