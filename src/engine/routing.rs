//! How the machines hear of each other.
//!
//! The rank is: peers → headers → activation → blocks → watch. A *fact* goes to machines of a later rank only, so
//! that it can't come back to where it started. A *demand*, which goes against the rank (end a connection,
//! ask for headers), waits for the start of the next pass. The number of passes within one input is
//! bounded; what is left goes on with the next input, which the deadline then asks for at once.
//!
//! | fact | from | to |
//! | --- | --- | --- |
//! | `PeerReady`, `PeerGone` | peers | headers, blocks, watch |
//! | `PeerHas` | headers | the peer's view, blocks, watch |
//! | `HeadersAdvanced` | headers, activation | blocks |
//! | `CandidatesChanged` | activation | activation's next step, at the end of the pass |
//! | `TipChanged` | activation | blocks, watch; headers and the closed loop take note |

use super::output::PeerChange;
use super::{Engine, Output, cx};
use crate::chain::command::ChainCommand;
use crate::limits::MAX_PASSES;
use crate::peer::dial::{DialWish, Standing};
use crate::peer::lifecycle::PeerEvent;
use crate::peer::ping::PingDue;
use crate::peer::{CloseReason, Cx, Demand, Effect, Fact};
use crate::wire::Message;

impl Engine {
    /// Moves what a machine left in its context on: effects to the outputs, facts and demands to their
    /// queues.
    pub(super) fn settle(&mut self) {
        for effect in core::mem::take(&mut self.wishes.effects) {
            match effect {
                Effect::Send(peer, message) => {
                    // A machine may not have heard yet that a peer is gone.
                    if self.peers.contains_key(&peer) {
                        self.outputs.push_back(Output::Send(peer, message));
                    }
                }
                Effect::Tell(peer, message) => {
                    if self.peers.contains_key(&peer) {
                        self.outputs.push_back(Output::Tell(peer, message));
                    }
                }
                Effect::Command(command) => {
                    if let ChainCommand::StoreBlock(_, raw) = &command {
                        self.hold(raw.hash(), raw.bytes().len());
                    }
                    self.outputs.push_back(Output::Command(command));
                }
            }
        }
        self.facts.extend(self.wishes.facts.drain(..));
        self.demands.append(&mut self.wishes.demands);
    }

    /// Routes facts and demands until the machines are at rest or the passes are used up.
    pub(super) fn run_passes(&mut self) {
        for _ in 0..MAX_PASSES {
            for demand in core::mem::take(&mut self.demands) {
                self.apply(demand);
            }
            self.route_facts();
            let in_step = self.synced && self.is_at_end();
            if let Err(error) = self.activation.advance(cx!(self), &self.tree, in_step) {
                self.fail_with(&error);
                return;
            }
            self.settle();
            self.announce_tip();
            self.dial();
            if self.demands.is_empty() && self.facts.is_empty() {
                return;
            }
        }
    }

    fn apply(&mut self, demand: Demand) {
        match demand {
            Demand::Close(peer, reason) => {
                let slow = matches!(reason, CloseReason::Stalled | CloseReason::Timeout(_));
                let manual = self.peers.get(&peer).is_some_and(|peer| peer.view.is_manual());
                // What the host wants stays, though its work is given to others; and a peer that we do not
                // read from can't be late.
                if !(slow && (manual || self.paused.contains(&peer))) {
                    self.close_peer(peer, reason);
                }
            }
            Demand::FetchHeaders(peer) => self.headers.fetch(cx!(self), &self.tree, peer),
        }
        self.settle();
    }

    fn route_facts(&mut self) {
        while let Some(fact) = self.facts.pop_front() {
            match fact {
                Fact::PeerReady(id) => {
                    if let Some(peer) = self.peers.get(&id) {
                        self.headers.on_peer_ready(cx!(self), &self.tree, &peer.view);
                        self.blocks.on_peer_ready(cx!(self), &self.tree, &peer.view);
                        self.watch.on_peer_ready(cx!(self), &self.tree, &peer.view);
                    }
                }
                Fact::PeerGone(id) => {
                    self.headers.on_peer_gone(cx!(self), &self.tree, id);
                    self.blocks.on_peer_gone(cx!(self), &self.tree, id);
                    self.watch.on_peer_gone(id);
                }
                Fact::HeadersAdvanced => self.blocks.on_headers(cx!(self), &self.tree),
                Fact::PeerHas(id, header) => {
                    let Some(peer) = self.peers.get_mut(&id) else { continue };
                    let known = peer.view.best_known;
                    if known.is_none_or(|known| self.tree.work(known) < self.tree.work(header)) {
                        peer.view.best_known = Some(header);
                    }
                    self.blocks.on_peer_has(cx!(self), &self.tree, id, header);
                    self.watch.on_peer_has(cx!(self), &self.tree, id, header);
                    self.note_in_step(id);
                }
                Fact::CandidatesChanged => {}
                Fact::TipChanged(tip) => {
                    // No fact for a machine of an earlier rank: it wishes nothing because of it.
                    self.headers.set_tip(tip);
                    self.control.on_tip(self.now.at);
                    self.blocks.on_tip(cx!(self), &self.tree, tip);
                    self.watch.on_tip(cx!(self), &self.tree, tip);
                }
            }
            self.settle();
        }
        let synced = self.headers.is_synced();
        if synced && !self.synced {
            self.synced = true;
            self.watch.on_synced(self.now.at);
            let peers: Vec<_> = self.peers.keys().copied().collect();
            for peer in peers {
                self.note_in_step(peer);
            }
        }
        self.synced = synced;
    }

    /// A peer whose best block is ours is stable.
    fn note_in_step(&mut self, id: crate::peer::PeerId) {
        let Some(peer) = self.peers.get(&id) else { return };
        let in_step = peer.view.best_known.is_some_and(|best| self.best_is(best));
        if in_step && self.headers.is_synced() {
            self.life_event(id, PeerEvent::DataSynced);
        }
    }

    /// Applies what the table allows; an event that comes too late for the state is no event.
    pub(super) fn life_event(&mut self, id: crate::peer::PeerId, event: PeerEvent) {
        if let Some(peer) = self.peers.get_mut(&id)
            && peer.life.peek(event).is_ok()
        {
            let from = peer.life.state();
            let changed = peer.life.apply(event);
            debug_assert!(changed.is_ok());
            let to = peer.life.state();
            if from != to {
                let view = &peer.view;
                let (address, kind) = (view.address.clone(), view.kind);
                self.outputs.push_back(Output::PeerChanged(PeerChange {
                    id,
                    address,
                    kind,
                    from,
                    event,
                    to,
                }));
            }
        }
    }

    /// Does what the clock asks for.
    pub(super) fn on_timers(&mut self) {
        let now = self.now.at;
        while let Some(peer) = self.waits.pop_due(now) {
            if let Some(reason) = self.peers.get(&peer).and_then(|peer| peer.leaving.clone()) {
                self.close_peer(peer, reason);
                continue;
            }
            let ready = self.peers.get(&peer).is_some_and(|peer| peer.handshake.is_some());
            let what = match self.peers.get(&peer) {
                Some(peer) if peer.view.ready => "addresses",
                _ if ready => "handshake",
                _ => "dial",
            };
            self.close_peer(peer, CloseReason::Timeout(what));
        }
        while let Some(due) = self.pings.pop_due(now, &mut self.rng) {
            match due {
                PingDue::Send(peer, nonce) => {
                    self.outputs.push_back(Output::Send(peer, Message::Ping(nonce)))
                }
                PingDue::Missed(peer) => self.life_event(peer, PeerEvent::HeartbeatMissed),
                PingDue::TimedOut(peer) => self.close_peer(peer, CloseReason::Timeout("ping")),
            }
        }
        if self.stopping {
            return;
        }
        if self.headers.next_deadline().is_some_and(|at| at <= now) {
            self.headers.on_timer(cx!(self), &self.tree);
            self.settle();
        }
        if self.blocks.next_deadline().is_some_and(|at| at <= now) {
            self.blocks.on_timer(cx!(self), &self.tree);
            self.settle();
        }
        if self.watch.next_deadline().is_some_and(|at| at <= now) {
            let blocks = &self.blocks;
            let score = |peer| blocks.scores().get(peer).map_or(0, |score| score.score);
            self.watch.on_timer(cx!(self), &self.tree, |peer| blocks.in_flight(peer), score);
            self.settle();
        }
        if self.next_score_deadline().is_some_and(|at| at <= now) {
            self.on_score_timer();
        }
        if self.gossip.next_deadline().is_some_and(|at| at <= now) {
            self.gossip.on_timer(cx!(self));
            self.settle();
        }
        if self.serving.next_deadline().is_some_and(|at| at <= now) {
            self.tell_again();
        }
    }

    fn dial(&mut self) {
        let standing =
            Standing { near_tip: self.is_near_tip(), stale: self.watch.is_stale(), served: self.is_served() };
        self.dialer.set_standing(standing, self.now.at);
        while let Some(wish) = self.dialer.next(self.now, &mut self.rng) {
            match wish {
                DialWish::Dial { address, kind } => self.start_dial(address, kind),
                DialWish::Resolve(name, port) => self.outputs.push_back(Output::Resolve(name, port)),
                DialWish::Save(addresses) => self.outputs.push_back(Output::SaveAddresses(addresses)),
            }
        }
    }
}
