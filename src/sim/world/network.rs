//! The network of a world: dials, links with their delays and losses, and what passes over them.

use super::{Happening, PROGRESS, Peer, Serves, World};
use crate::engine::{Arrival, Input};
use crate::peer::{CloseReason, PeerAddress, PeerId};
use crate::sim::manner::{Act, Conversation, Manner};
use crate::sim::node::Link;
use crate::wire::Message;
use std::collections::VecDeque;

/// Milliseconds within which who opens connections does so at first, and after which again, once or twice this time.
const VISIT: u64 = 5_000;

impl World {
    pub(super) fn dial(&mut self, node: usize, id: PeerId, address: &PeerAddress) {
        let number = self.nodes[node].number;
        let Some(peer) = self.peers.iter().position(|peer| peer.address == *address) else {
            return self.later(5, Happening::Input(node, number, Input::DialFailed(id, "no route".into())));
        };
        let Peer { plan, away_until, .. } = &self.peers[peer];
        let wait = 2 * plan.wire.latency;
        if plan.manner == Manner::BlackHole {
            return;
        }
        if plan.manner == Manner::Absent || self.now < *away_until {
            return self.later(wait, Happening::Input(node, number, Input::DialFailed(id, "refused".into())));
        }
        let link = self.link_to(peer, self.now + wait);
        if let Some(life) = &mut self.nodes[node].life {
            life.links.insert(id, link);
            self.later(wait, Happening::Input(node, number, Input::Connected(id)));
        }
    }

    /// A connection with a peer, over which bytes pass from this time on.
    fn link_to(&mut self, peer: usize, from: u64) -> Link {
        let plan = self.peers[peer].plan;
        let chain = match plan.serves {
            Serves::Honest | Serves::HeadersOnly => self.chain.clone(),
            Serves::Fork(fork) => self.forks[fork].clone(),
        };
        let mut conversation = Conversation::new(plan.manner, chain, self.chain.clone(), self.rng.u64());
        if plan.serves == Serves::HeadersOnly {
            conversation.keep_blocks();
        }
        let (open, ended, sent, held) = (false, false, 0, VecDeque::new());
        Link { peer, conversation, open, to_node: from, to_peer: from, sent, held, ended }
    }

    // ---- peers that come ----

    /// A node has begun: those who open connections do so soon.
    pub(super) fn expect_visitors(&mut self, node: usize) {
        let number = self.nodes[node].number;
        for peer in 0..self.peers.len() {
            for _ in 0..self.peers[peer].plan.opens {
                let wait = self.rng.below(VISIT);
                self.later(wait, Happening::Knock(node, number, peer));
            }
        }
    }

    /// A connection with a peer has ended: if the peer opened it, it does so again.
    pub(super) fn come_again(&mut self, node: usize, peer: usize) {
        if self.peers[peer].plan.opens > 0 {
            let (number, wait) = (self.nodes[node].number, VISIT + self.rng.below(VISIT));
            self.later(wait, Happening::Knock(node, number, peer));
        }
    }

    /// A peer opens a connection to a node.
    pub(super) fn knock(&mut self, node: usize, peer: usize) {
        let Peer { plan, away_until, address } = &self.peers[peer];
        if self.now < *away_until || matches!(plan.manner, Manner::Absent | Manner::BlackHole) {
            return self.come_again(node, peer);
        }
        let Some(host) = address.socket_addr().map(|socket| socket.ip()) else { return };
        let Some(life) = &mut self.nodes[node].life else { return };
        let arrival = Arrival(life.next_arrival);
        life.next_arrival += 1;
        life.arrivals.insert(arrival, peer);
        let port = 32_768 + (arrival.0 % 28_000) as u16;
        self.input(node, Input::Arrived(arrival, PeerAddress::Ip((host, port).into())));
    }

    /// The engine takes a connection that a peer has opened.
    pub(super) fn admit(&mut self, node: usize, arrival: Arrival, id: PeerId) {
        let Some(peer) = self.nodes[node].life.as_mut().and_then(|life| life.arrivals.remove(&arrival))
        else {
            return;
        };
        let mut link = self.link_to(peer, self.now);
        link.open = true;
        let first = link.conversation.open();
        if let Some(life) = &mut self.nodes[node].life {
            life.links.insert(id, link);
        }
        if let Some(message) = first {
            self.say(node, id, message);
        }
    }

    /// The engine does not take it.
    pub(super) fn turn_away(&mut self, node: usize, arrival: Arrival) {
        if let Some(peer) = self.nodes[node].life.as_mut().and_then(|life| life.arrivals.remove(&arrival)) {
            self.come_again(node, peer);
        }
    }

    pub(super) fn send(&mut self, node: usize, id: PeerId, message: Message) {
        let number = self.nodes[node].number;
        let Some(link) = self.nodes[node].life.as_mut().and_then(|life| life.links.get_mut(&id)) else {
            return;
        };
        let wire = self.peers[link.peer].plan.wire;
        // What is sent shows that the connection was opened.
        link.open = true;
        link.to_peer = link.to_peer.max(self.now + wire.latency + self.rng.below(wire.jitter + 1));
        let at = link.to_peer;
        if let Message::Block(raw) = &message {
            let left = Input::Flushed(id, raw.bytes().len());
            self.at(at, Happening::Input(node, number, left));
        }
        self.at(at, Happening::ToPeer(node, number, id, message));
    }

    pub(super) fn close(&mut self, node: usize, id: PeerId, reason: &CloseReason) {
        let Some(link) = self.nodes[node].life.as_mut().and_then(|life| life.links.remove(&id)) else {
            return;
        };
        let manner = self.peers[link.peer].plan.manner;
        if matches!(reason, CloseReason::Fault(_)) && !manner.is_provable() {
            let detail = format!("peer {} ({manner:?}): {reason}", link.peer);
            self.violate(node, "only provable faults are held against a peer", detail);
        }
        self.come_again(node, link.peer);
    }

    /// A message has reached a peer.
    pub(super) fn hear(&mut self, node: usize, id: PeerId, message: Message) {
        let Some(link) = self.nodes[node].life.as_mut().and_then(|life| life.links.get_mut(&id)) else {
            return;
        };
        if link.ended {
            return;
        }
        let peer = link.peer;
        for act in link.conversation.on_message(message, &mut self.rng) {
            match act {
                Act::Say(message) => self.say(node, id, message),
                Act::Pause(millis) => {
                    if let Some(link) = self.link(node, id) {
                        link.to_node += millis;
                    }
                }
                Act::Leave => self.leave(node, id),
            }
        }
        self.note(|| format!("peer {peer} has heard node {node}"));
    }

    fn link(&mut self, node: usize, id: PeerId) -> Option<&mut Link> {
        self.nodes[node].life.as_mut()?.links.get_mut(&id)
    }

    /// The peer closes behind what it has sent.
    fn leave(&mut self, node: usize, id: PeerId) {
        let (number, now) = (self.nodes[node].number, self.now);
        if let Some(link) = self.link(node, id) {
            let at = link.to_node.max(now);
            self.at(at, Happening::PeerLeft(node, number, id));
        }
    }

    /// A peer sends a message to a node.
    pub(super) fn say(&mut self, node: usize, id: PeerId, message: Message) {
        let (number, now) = (self.nodes[node].number, self.now);
        let Some(link) = self.nodes[node].life.as_mut().and_then(|life| life.links.get_mut(&id)) else {
            return;
        };
        let wire = self.peers[link.peer].plan.wire;
        let weight = if matches!(message, Message::Block(_)) { self.block_weight as usize } else { 1 };
        let bytes = size(&message).saturating_mul(weight);
        let transfer = (bytes as u64 * 1_000).checked_div(wire.bandwidth).unwrap_or(0);
        let begun = link.to_node.max(now + wire.latency + self.rng.below(wire.jitter + 1));
        link.to_node = begun + transfer;
        let (end, sent) = (link.to_node, link.sent);
        link.sent += bytes as u64;
        if self.rng.below(10_000) < wire.losses {
            link.conversation.hang_up();
            return self.at(end, Happening::PeerLeft(node, number, id));
        }
        let signs = transfer / PROGRESS;
        for sign in 1..=signs {
            let so_far = sent + bytes as u64 * sign / (signs + 1);
            self.at(begun + sign * PROGRESS, Happening::Input(node, number, Input::Progress(id, so_far)));
        }
        self.at(end, Happening::FromPeer(node, number, id, message, bytes));
    }

    /// A message has reached a node.
    pub(super) fn arrive(&mut self, node: usize, id: PeerId, message: Message, bytes: usize) {
        let Some(life) = &mut self.nodes[node].life else { return };
        let Some(link) = life.links.get_mut(&id) else { return };
        if link.ended {
            return;
        }
        let peer = link.peer;
        link.held.push_back((message, bytes));
        self.note(|| format!("node {node} has a message from peer {peer}"));
        self.settle(node);
    }

    /// All peers tell of their new tips.
    pub(super) fn announce(&mut self) {
        for node in 0..self.nodes.len() {
            let Some(life) = &mut self.nodes[node].life else { continue };
            let news: Vec<(PeerId, Message)> = life
                .links
                .iter_mut()
                .filter_map(|(id, link)| Some((*id, link.conversation.announce()?)))
                .collect();
            for (id, message) in news {
                self.say(node, id, message);
            }
        }
    }
}

/// Bytes of a message on the wire, about.
fn size(message: &Message) -> usize {
    24 + match message {
        Message::Block(raw) => raw.bytes().len(),
        Message::Headers(headers) => 1 + 81 * headers.len(),
        Message::Inv(entries) | Message::GetData(entries) | Message::NotFound(entries) => {
            1 + 36 * entries.len()
        }
        Message::Addr(entries) => 1 + 30 * entries.len(),
        Message::AddrV2(entries) => 1 + 40 * entries.len(),
        Message::Tx(transaction) => transaction.total_size(),
        _ => 60,
    }
}
