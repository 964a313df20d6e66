//! The lives of a world's nodes: how they begin and end, the work of their chainstates' threads, and the
//! consumers of their events.

use super::{Happening, World, brief};
use crate::chain::command::{BlockRef, ChainReport};
use crate::engine::output::Event;
use crate::engine::{Answer, Input, Output, Query, QueryId};
use crate::error::Error;
use crate::peer::audit::{AuditAction, AuditRecord};
use crate::peer::lifecycle::TRANSITIONS;
use crate::peer::{CloseReason, PeerAddress};
use crate::sim::disk::{Crash, DiskFault};
use crate::sim::invariants;
use crate::sim::node::SimNode;
use crate::store::StoreErrorKind;
use crate::sync::diagnosis::Figures;
use crate::time::Now;

/// How often a pruned node syncs anew since a reorg needed what it had pruned; then it has the room to keep everything. As
/// long as whoever serves a worse branch is faster than who serves the best one, it is caught again each time.
const CAUGHT_AT_MOST: u32 = 2;

impl World {
    pub(super) fn give_birth(&mut self, node: usize) {
        let dialled = self.peers.iter().filter(|peer| peer.plan.opens == 0);
        let peers: Vec<PeerAddress> = dialled.map(|peer| peer.address.clone()).collect();
        let before = self.nodes[node].disk.struck().len();
        let opened = self.nodes[node].open(&self.params, &peers, self.now, &mut self.rng);
        let struck = self.note_faults(node, before);
        if self.nodes[node].disk.is_dead() {
            let how = self.nodes[node].death;
            return self.kill(node, how);
        }
        match opened {
            Ok(life) => {
                let tip = life.engine.status().durable;
                self.note(|| format!("node {node}: begins at {}", tip.height));
                let sequence = life.chainstate.checkpoint().sequence;
                let committed = self.nodes[node].committed;
                self.nodes[node].life = Some(life);
                self.nodes[node].committed = (sequence, Some(tip));
                self.nodes[node].highest = self.nodes[node].highest.max(tip.height);
                if sequence < committed.0 && !self.nodes[node].damaged {
                    self.violate(
                        node,
                        "a start loses no reported commit",
                        format!("{sequence} after {committed:?}"),
                    );
                }
                self.check_coins(node, tip);
                self.check_kept(node);
                if !self.nodes[node].plan.manual {
                    self.input(node, Input::AddAddresses(peers));
                }
                self.input(node, Input::Timer);
                self.expect_visitors(node);
            }
            Err(error) => self.after_failure(node, &error, struck),
        }
    }

    /// What becomes of a node that could not begin, or could not go on.
    fn after_failure(&mut self, node: usize, error: &Error, struck: bool) {
        self.note(|| format!("node {node}: fails: {error}"));
        let damage = match error {
            Error::Store(error) => error.kind == StoreErrorKind::Corrupt,
            Error::MissingBlock(_) | Error::LostBlock { .. } => true,
            _ => false,
        };
        let storage = matches!(error, Error::Store(_)) || damage;
        let damaged = self.nodes[node].damaged;
        let pruned = self.is_pruned_away(node, error);
        if !pruned && (!storage || !(struck || damaged)) {
            self.violate(node, "a node ends only with a cause", error.to_string());
        }
        self.kill(node, Crash::Kill);
        if pruned || (damage && damaged && !struck) {
            // As the error says: synced anew.
            self.nodes[node].disk.wipe();
            (self.nodes[node].damaged, self.nodes[node].highest) = (false, 0);
            (self.nodes[node].cursor, self.nodes[node].committed) = (None, (0, None));
        }
        if pruned {
            self.nodes[node].caught += 1;
            if self.nodes[node].caught > CAUGHT_AT_MOST {
                self.nodes[node].plan.prune = None;
            }
        }
    }

    /// Whether a reorg is deeper than the node had to keep.
    fn is_pruned_away(&self, node: usize, error: &Error) -> bool {
        let SimNode { plan, highest, damaged, .. } = &self.nodes[node];
        let Error::Pruned { height, .. } = error else { return false };
        *damaged || plan.prune.is_some_and(|prune| height.saturating_add(prune.keep_blocks) <= *highest)
    }

    fn check_kept(&mut self, node: usize) {
        let SimNode { plan, life, damaged, highest, disk, .. } = &self.nodes[node];
        if let (Some(prune), Some(life), false) = (plan.prune, life, *damaged || disk.is_dead())
            && let Err(detail) = invariants::last_blocks_are_kept(
                life.engine.tree(),
                &life.chainstate,
                highest.saturating_sub(prune.keep_blocks) + 1,
            )
        {
            self.violate(node, "a pruned node keeps its last blocks", detail);
        }
    }

    /// Whether faults came about since there were so many; remembers what they may have damaged.
    fn note_faults(&mut self, node: usize, before: usize) -> bool {
        let struck = self.nodes[node].disk.struck();
        for (write, fault) in &struck[before.min(struck.len())..] {
            self.note(|| format!("node {node}: write {write}: {fault:?}"));
            if matches!(fault, DiskFault::Lie | DiskFault::Rot) {
                self.nodes[node].damaged = true;
            }
        }
        struck.len() > before
    }

    fn check_coins(&mut self, node: usize, tip: BlockRef) {
        if let Err(detail) = invariants::store_is_a_state(&self.ledger, &self.nodes[node].disk, tip) {
            self.violate(node, "the store is a state that existed", detail);
        }
    }

    /// Feeds an engine, and does what it says and what follows from that.
    pub(super) fn input(&mut self, node: usize, input: Input) {
        self.feed(node, input);
        self.settle(node);
    }

    /// Feeds an engine and does what it says.
    fn feed(&mut self, node: usize, input: Input) {
        let unix = self.unix(node);
        if let Some(life) = &mut self.nodes[node].life {
            life.engine.handle(Now::new(self.now - life.begun, unix), input);
            self.drain(node);
        }
    }

    fn unix(&self, node: usize) -> u64 {
        (self.begin + self.now / 1_000).saturating_add_signed(self.nodes[node].clock)
    }

    /// What follows once the engine is at rest: the consumer looks, held messages are read, ends of
    /// connections are told.
    pub(super) fn settle(&mut self, node: usize) {
        while self.violation.is_none() {
            let Some(life) = &mut self.nodes[node].life else { return };
            if core::mem::take(&mut life.news) {
                self.consume(node);
                continue;
            }
            let engine = &life.engine;
            let ready = life.links.iter_mut().find_map(|(id, link)| {
                let read = !link.held.is_empty() && engine.may_read(*id);
                let over = link.ended && link.held.is_empty();
                (read || over).then(|| (*id, link.held.pop_front()))
            });
            let input = match ready {
                None => break,
                Some((id, Some((message, bytes)))) => Input::Received(id, message, bytes),
                Some((id, None)) => {
                    let link = life.links.remove(&id);
                    let (peer, open) = link.map_or((None, false), |link| (Some(link.peer), link.open));
                    if let Some(peer) = peer {
                        self.come_again(node, peer);
                    }
                    if open { Input::Closed(id) } else { Input::DialFailed(id, "refused".into()) }
                }
            };
            self.feed(node, input);
        }
        if let Some(life) = &self.nodes[node].life
            && let Err(detail) =
                invariants::held_is_bounded(&life.engine, &life.chainstate, &self.nodes[node].plan)
        {
            self.violate(node, "what is held is bounded", detail);
        }
    }

    fn drain(&mut self, node: usize) {
        loop {
            let SimNode { life, fuse, .. } = &mut self.nodes[node];
            let Some(life) = life else { return };
            let output = life.engine.poll_output();
            if let Output::Idle { deadline } = output {
                life.deadline = deadline.map(|at| life.begun + at.as_millis());
                return;
            }
            match fuse {
                Some((0, how)) => {
                    let how = *how;
                    self.note(|| format!("node {node}: dies before {output:?}"));
                    return self.kill(node, how);
                }
                Some((left, _)) => *left -= 1,
                None => {}
            }
            self.carry_out(node, output);
        }
    }

    fn carry_out(&mut self, node: usize, output: Output) {
        if !matches!(output, Output::Status(_)) {
            self.note(|| format!("node {node}: {}", brief(&output)));
        }
        match output {
            Output::Dial { peer, address, .. } => self.dial(node, peer, &address),
            Output::Send(id, message) | Output::Tell(id, message) => self.send(node, id, message),
            Output::Close(id, reason) => self.close(node, id, &reason),
            Output::Command(command) => {
                let number = self.nodes[node].number;
                let wait = 1 + self.rng.below(self.nodes[node].plan.work_millis.max(1));
                if let Some(life) = &mut self.nodes[node].life {
                    life.commands.push_back(command);
                    life.last_command = life.last_command.max(self.now + wait);
                    let at = life.last_command;
                    self.at(at, Happening::Command(node, number));
                }
            }
            Output::Answer(_, answer) => self.take_answer(node, answer),
            Output::PeerChanged(change) => {
                if !TRANSITIONS.contains(&(change.from, change.event, change.to)) {
                    self.violate(node, "peers keep to the transition table", format!("{change:?}"));
                }
            }
            Output::EventsReady => {
                if let Some(life) = &mut self.nodes[node].life {
                    life.news = true;
                }
            }
            Output::Status(status) => {
                for tip in [status.tip, status.durable] {
                    if !self.ledger.is_valid(&tip.hash) {
                        self.violate(
                            node,
                            "nothing unverified is reported",
                            format!("{tip:?} in the status"),
                        );
                    }
                }
            }
            Output::Stopped(tip) => {
                let stable = self.nodes[node].disk.stable_tip();
                if stable != Some(tip) && !self.nodes[node].damaged {
                    self.violate(
                        node,
                        "an orderly end is durable",
                        format!("{tip:?}, the disk has {stable:?}"),
                    );
                }
                self.kill(node, Crash::Kill);
            }
            Output::Fatal(error) => {
                let SimNode { life, disk, .. } = &self.nodes[node];
                let struck = life.as_ref().is_some_and(|life| disk.struck().len() > life.faults_before);
                self.after_failure(node, &error, struck);
            }
            Output::Accept(arrival, id) => self.admit(node, arrival, id),
            Output::Refuse(arrival) => self.turn_away(node, arrival),
            Output::SaveScores(bytes) => self.nodes[node].scores = Some(bytes),
            Output::Audit(record) => self.after_audit(node, *record),
            // Figures of a real clock would make runs differ.
            Output::Measure => {
                let number = self.nodes[node].number;
                let input = Input::Measured(Figures::default());
                self.at(self.now, Happening::Input(node, number, input));
            }
            // Simulated nodes have nobody to ask how they are reached.
            Output::Resolve(..)
            | Output::Ask(..)
            | Output::SaveAddresses(_)
            | Output::SaveUsedDay(_)
            | Output::Reached(_)
            | Output::Idle { .. } => {}
        }
    }

    /// Only broken rules are held against an address, with evidence; who is slow is replaced at most.
    fn after_audit(&mut self, node: usize, record: AuditRecord) {
        let is_fault = matches!(record.reason, CloseReason::Fault(_));
        if is_fault == (record.action == AuditAction::Replaced) {
            self.violate(node, "slowness never bans", record.to_string());
        }
        if record.action == AuditAction::Replaced {
            self.nodes[node].replaced.push(record);
        }
    }

    // ---- the chainstate's threads ----

    pub(super) fn after_work(&mut self, node: usize) {
        let work = self.nodes[node].plan.work_millis.max(1);
        let number = self.nodes[node].number;
        let mut before = 0;
        let mut jobs = Vec::new();
        let mut reports = Vec::new();
        if let SimNode { life: Some(life), .. } = &mut self.nodes[node] {
            before = life.faults;
            while let Ok(completion) = life.chainstate.completions().try_recv() {
                life.completions.insert(life.next_completion, completion);
                jobs.push(life.next_completion);
                life.next_completion += 1;
            }
            reports.extend(core::iter::from_fn(|| life.chainstate.poll()));
        }
        for job in jobs {
            let wait = self.rng.below(work * 4);
            self.later(wait, Happening::Job(node, number, job));
        }
        self.note_faults(node, before);
        let faults = self.nodes[node].disk.struck().len();
        for report in reports {
            self.check_report(node, &report);
            let wait = self.rng.below(work);
            if let Some(life) = &mut self.nodes[node].life {
                life.faults = faults;
                life.last_report = life.last_report.max(self.now + wait);
                let at = life.last_report;
                self.at(at, Happening::Input(node, number, Input::Chain(report)));
            }
        }
        if self.nodes[node].disk.is_dead() {
            let how = self.nodes[node].death;
            return self.kill(node, how);
        }
        self.ask_for_a_coin(node);
    }

    /// Asks for a coin as a host would, now and then.
    fn ask_for_a_coin(&mut self, node: usize) {
        if self.rng.below(8) > 0 {
            return;
        }
        let Some(life) = &self.nodes[node].life else { return };
        let back = self.rng.below(self.past.len() as u64) as usize;
        let Some(outpoint) = self.ledger.some_outpoint(&self.past[back].tip.hash, back.is_multiple_of(2))
        else {
            return;
        };
        if let Err(detail) = invariants::coin_is_true(&self.ledger, &life.chainstate, &outpoint) {
            self.violate(node, "what a host is told is true", detail);
        }
    }

    fn check_report(&mut self, node: usize, report: &ChainReport) {
        self.note(|| format!("node {node}: {}", brief(report)));
        match report {
            ChainReport::Connected { block, .. } if !self.ledger.is_valid(&block.hash) => {
                self.violate(node, "nothing unverified is proved", format!("{block:?}"));
            }
            ChainReport::Invalid { block, reject } if self.ledger.is_valid(&block.hash) => {
                self.violate(node, "no valid block is refused", format!("{block:?}: {reject}"));
            }
            ChainReport::Refused { block, reject }
                if self.ledger.is_valid(&block.hash) && reject.condemns_hash() =>
            {
                self.violate(node, "a body does not condemn its hash", format!("{block:?}: {reject}"));
            }
            ChainReport::Committed(checkpoint) => {
                let (sequence, tip) = (checkpoint.sequence, checkpoint.to);
                self.nodes[node].committed = (sequence, Some(tip));
                self.nodes[node].highest = self.nodes[node].highest.max(tip.height);
                self.check_coins(node, tip);
                self.check_kept(node);
            }
            _ => {}
        }
    }

    // ---- the consumer of events ----

    fn consume(&mut self, node: usize) {
        loop {
            let SimNode { events, cursor, .. } = self.nodes[node];
            self.feed(node, Input::Query(QueryId(0), Query::Events(cursor, 16)));
            if self.nodes[node].events == events || self.violation.is_some() {
                return;
            }
        }
    }

    fn take_answer(&mut self, node: usize, answer: Answer) {
        match answer {
            Answer::Events(events) => {
                for event in events {
                    self.take_event(node, &event);
                }
            }
            Answer::UnknownCursor => {
                let cursor = self.nodes[node].cursor.take();
                // The header file and the block itself: both are damaged, and the consumer begins anew.
                let rot = |&&(_, fault): &&(u64, DiskFault)| fault == DiskFault::Rot;
                if self.nodes[node].disk.struck().iter().filter(rot).count() < 2 {
                    self.violate(node, "a cursor stays known", format!("{cursor:?}"));
                }
            }
            Answer::PrunedCursor(below) => {
                let SimNode { cursor, damaged, life, .. } = &self.nodes[node];
                let (was, damaged) = (*cursor, *damaged);
                // Whoever begins late has its data from elsewhere.
                let next = life.as_ref().and_then(|life| {
                    let tree = life.engine.tree();
                    let tip = tree.find(&life.engine.status().durable.hash)?;
                    Some(tree.block(tree.ancestor(tip, below.saturating_sub(1))?))
                });
                if (was.is_some() && !damaged) || next.is_none() {
                    self.violate(
                        node,
                        "no consumer is left behind",
                        format!("{was:?}, pruned below {below}"),
                    );
                }
                self.nodes[node].cursor = next;
                self.nodes[node].events += 1;
            }
            _ => {}
        }
    }

    fn take_event(&mut self, node: usize, event: &Event) {
        let SimNode { cursor, disk, damaged, .. } = &self.nodes[node];
        let stable = disk.stable_tip().filter(|_| !*damaged);
        match invariants::event_follows(&self.ledger, *cursor, event, stable) {
            Ok(next) => {
                self.nodes[node].cursor = next;
                self.nodes[node].events += 1;
            }
            Err(detail) => self.violate(node, "events follow each other and are durable", detail),
        }
    }
}
