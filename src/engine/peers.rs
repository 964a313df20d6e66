//! The connections: from the dial over the handshake to the end, and what each message is for.

use super::output::EndedPeer;
use super::{Engine, Output, cx};
use crate::limits::{DIAL_TIMEOUT, HANDSHAKE_TIMEOUT, LEAVE_TIMEOUT, MAX_ADDR, MAX_ENDED_PEERS, MAX_INV};
use crate::peer::book::Told;
use crate::peer::dial::{Ending, Standing};
use crate::peer::handshake::{Handshake, Introduction, Step};
use crate::peer::lifecycle::{Life, PeerEvent};
use crate::peer::ping::PongOutcome;
use crate::peer::{CloseReason, ConnectionKind, Cx, Fact, PeerAddress, PeerId, PeerView};
use crate::relay::serve::Shelf;
use crate::time::Timestamp;
use crate::wire::{Message, addr};
use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::message_blockdata::Inventory;
use core::fmt;
use std::net::SocketAddr;

/// A connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) view: PeerView,
    pub(super) life: Life,
    /// From the moment the connection is open.
    pub(super) handshake: Option<Handshake>,
    pub(super) bytes_in: u64,
    /// Bytes of the messages that are complete.
    received: u64,
    pub(super) bytes_out: u64,
    /// Since when there is a connection, or a dial.
    pub(super) since: Timestamp,
    /// When it last brought a block that we did not have.
    pub(super) last_block: Option<Timestamp>,
    /// Of an encrypted connection.
    pub(super) session: Option<[u8; 32]>,
    /// It goes, and why, as soon as it has got what it asked for.
    pub(super) leaving: Option<CloseReason>,
}

impl Peer {
    pub(super) fn new(view: PeerView, life: Life, handshake: Option<Handshake>, since: Timestamp) -> Self {
        Self {
            view,
            life,
            handshake,
            bytes_in: 0,
            received: 0,
            bytes_out: 0,
            since,
            last_block: None,
            session: None,
            leaving: None,
        }
    }
}

impl Engine {
    /// Begins the life of a connection.
    pub(super) fn new_peer(
        &mut self,
        address: PeerAddress,
        kind: ConnectionKind,
        handshake: Option<Handshake>,
    ) -> PeerId {
        let id = PeerId(self.next_peer);
        self.next_peer += 1;
        let view = PeerView {
            id,
            address,
            ready: false,
            kind,
            services: ServiceFlags::NONE,
            start_height: 0,
            best_known: None,
        };
        self.peers.insert(id, Peer::new(view, Life::new(), handshake, self.now.at));
        self.life_event(id, PeerEvent::ConnectInitiated);
        id
    }

    pub(super) fn start_dial(&mut self, address: PeerAddress, kind: ConnectionKind) {
        let id = self.new_peer(address.clone(), kind, None);
        self.waits.set(id, self.now.at + DIAL_TIMEOUT);
        self.dialer.on_dialled(id, &address, kind, self.now);
        let services = self.dialer.book.services(&address);
        let speaks = kind == ConnectionKind::Manual || services.has(ServiceFlags::P2P_V2);
        self.outputs.push_back(Output::Dial { peer: id, address, encrypted: self.config.encrypt && speaks });
    }

    pub(super) fn on_connected(&mut self, id: PeerId) {
        let Some(view) = self.peers.get(&id).map(|peer| &peer.view) else { return };
        let own = self.own_address_for(&view.address, view.kind);
        let me = self.introduction(own);
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.handshake.is_none()) else { return };
        let (handshake, version) = Handshake::begin(&me, peer.view.address.socket_addr());
        peer.handshake = Some(handshake);
        peer.since = self.now.at;
        self.nonces.insert(me.nonce);
        self.waits.set(id, self.now.at + HANDSHAKE_TIMEOUT);
        self.outputs.push_back(Output::Send(id, version));
    }

    /// What we say of ourselves on a new connection, with our address if the peer may know it.
    pub(super) fn introduction(&mut self, own: Option<SocketAddr>) -> Introduction {
        Introduction {
            services: self.services(),
            own,
            user_agent: self.config.user_agent.clone(),
            start_height: self.tree.height(self.activation.proved()),
            time: self.now.unix,
            nonce: self.rng.u64().max(1),
        }
    }

    fn services(&self) -> ServiceFlags {
        let v2 = if self.config.encrypt && self.config.inbound_max > 0 {
            ServiceFlags::P2P_V2
        } else {
            ServiceFlags::NONE
        };
        self.serving.config().services() | v2
    }

    /// Ends a connection from our side.
    pub(super) fn close_peer(&mut self, id: PeerId, reason: CloseReason) {
        if self.peers.contains_key(&id) {
            self.note_trouble(id, &reason);
            self.life_event(id, PeerEvent::GracefulShutdown);
            self.drop_peer(id, &reason);
            self.outputs.push_back(Output::Close(id, reason));
        }
    }

    /// A connection is no more.
    pub(super) fn on_closed(&mut self, id: PeerId, reason: &CloseReason) {
        self.note_trouble(id, reason);
        self.life_event(id, PeerEvent::HeartbeatMissed);
        self.drop_peer(id, reason);
    }

    /// Ends a connection without need: what the peer owes us is asked of others at once; what it asked us for it still
    /// gets, for a limited time.
    pub(super) fn leave_peer(&mut self, id: PeerId, reason: CloseReason) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if !peer.view.ready || self.serving.owes_nothing(id) {
            return self.close_peer(id, reason);
        }
        if peer.leaving.is_some() {
            return;
        }
        peer.leaving = Some(reason);
        self.life_event(id, PeerEvent::GracefulShutdown);
        self.pings.stop(id);
        self.gossip.on_peer_gone(id);
        self.waits.set(id, self.now.at + LEAVE_TIMEOUT);
        self.facts.push_back(Fact::PeerGone(id));
    }

    /// Closes the connection of a peer that leaves and has got everything.
    pub(super) fn end_leave(&mut self, id: PeerId) {
        if let Some(reason) = self.peers.get(&id).and_then(|peer| peer.leaving.clone())
            && self.serving.owes_nothing(id)
        {
            self.close_peer(id, reason);
        }
    }

    /// Keeps the reason for which an address did not become a peer, or ceased to be one.
    pub(super) fn note_trouble(&mut self, id: PeerId, why: impl fmt::Display) {
        if let Some(peer) = self.peers.get(&id) {
            self.trouble = Some(format!("{}: {why}", peer.view.address));
        }
    }

    /// Forgets a connection that has ended.
    pub(super) fn drop_peer(&mut self, id: PeerId, reason: &CloseReason) {
        self.life_event(id, PeerEvent::ConnectTimeout);
        let Some(peer) = self.peers.remove(&id) else { return };
        self.waits.cancel(&id);
        self.pings.stop(id);
        self.paused.remove(&id);
        if let Some(handshake) = &peer.handshake {
            self.nonces.remove(&handshake.nonce());
        }
        let ending = match reason {
            CloseReason::Fault(_) => Ending::Misbehaved,
            CloseReason::Unsuitable(_) | CloseReason::Ourselves => Ending::Useless,
            CloseReason::Probed => Ending::Lost,
            _ if peer.view.ready => Ending::Lost,
            _ => Ending::Failed,
        };
        self.dialer.on_gone(id, &peer.view.address, ending, self.now, &mut self.rng);
        if peer.handshake.is_some() && *reason != CloseReason::Probed {
            self.note_ended(&peer.view, reason);
        }
        self.note_audit(&peer.view, reason);
        if peer.view.ready {
            self.blocks.note_end(id, reason, self.now);
            self.avoid_low_addresses();
        }
        self.serving.on_peer_gone(id);
        self.gossip.on_peer_gone(id);
        if peer.view.ready {
            self.ready = self.ready.saturating_sub(1);
        }
        if peer.view.ready && peer.leaving.is_none() {
            self.facts.push_back(Fact::PeerGone(id));
        }
    }

    fn note_ended(&mut self, view: &PeerView, reason: &CloseReason) {
        while self.ended_peers.len() >= MAX_ENDED_PEERS {
            self.ended_peers.pop_front();
        }
        self.ended_peers.push_back(EndedPeer {
            id: view.id,
            address: view.address.clone(),
            reason: reason.clone(),
            discouraged: self.dialer.book.is_discouraged(&view.address),
        });
    }

    pub(super) fn on_progress(&mut self, id: PeerId, bytes: u64) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        self.bytes_in = self.bytes_in.saturating_add(bytes.saturating_sub(peer.bytes_in));
        peer.bytes_in = peer.bytes_in.max(bytes);
        if peer.view.ready {
            self.blocks.on_progress(cx!(self), id, bytes);
        }
    }

    pub(super) fn on_received(&mut self, id: PeerId, message: Message, bytes: usize) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        // `Progress` counts whole connections, and may have told of these bytes already.
        peer.received = peer.received.saturating_add(bytes as u64);
        if peer.received > peer.bytes_in {
            self.bytes_in = self.bytes_in.saturating_add(peer.received - peer.bytes_in);
            peer.bytes_in = peer.received;
        }
        if !peer.view.ready || is_handshake(&message) {
            self.on_handshake(id, &message);
            return;
        }
        if !matches!(message, Message::Block(_)) {
            self.blocks.on_other(id, bytes as u64);
        }
        self.delivering = Some(id);
        self.on_message(id, message);
        self.settle();
        self.delivering = None;
    }

    fn on_handshake(&mut self, id: PeerId, message: &Message) {
        let near_tip = self.is_near_tip();
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(handshake) = &mut peer.handshake else { return };
        let kind = peer.view.kind;
        let nonces = &self.nonces;
        let standing = Standing { near_tip, ..Standing::default() };
        let needed = kind.is_our_choice();
        let suits = |services: ServiceFlags, _| !needed || standing.suits(services);
        let step = handshake.on_message(message, |nonce| nonces.contains(&nonce), suits);
        match step {
            Step::Ignore => {}
            Step::Send(messages) => self.send_all(id, messages),
            Step::Complete(messages) => {
                let info = handshake.info();
                if kind == ConnectionKind::Feeler {
                    self.dialer.on_ready(id, info.services, self.now);
                    return self.close_peer(id, CloseReason::Probed);
                }
                peer.view.ready = true;
                self.ready += 1;
                self.trouble = None;
                peer.view.services = info.services;
                peer.view.start_height = info.start_height;
                let (services, v2) = (info.services, info.wants_addrv2);
                let view = peer.view.clone();
                self.waits.cancel(&id);
                if kind == ConnectionKind::AddrFetch {
                    self.waits.set(id, self.now.at + HANDSHAKE_TIMEOUT);
                }
                self.life_event(id, PeerEvent::Connected);
                self.pings.start(id, self.now.at);
                self.dialer.on_ready(id, services, self.now);
                self.send_all(id, messages);
                self.gossip.on_peer_ready(cx!(self), &view, v2, self.config.automatic);
                self.serving.on_peer_ready(id);
                self.settle();
                self.facts.push_back(Fact::PeerReady(id));
            }
            Step::Close(reason) => self.close_peer(id, reason),
        }
    }

    /// Whether our tip is at most a day's blocks old, so that a peer with the last 288 blocks is enough
    /// (Core's `GetDesirableServiceFlags`).
    pub(super) fn is_near_tip(&self) -> bool {
        let age = self.now.unix.saturating_sub(u64::from(self.tree.time(self.activation.proved())));
        age < 144 * u64::from(self.tree.params().pow_target_spacing)
    }

    fn send_all(&mut self, id: PeerId, messages: Vec<Message>) {
        self.outputs.extend(messages.into_iter().map(|message| Output::Send(id, message)));
    }

    fn on_message(&mut self, id: PeerId, message: Message) {
        if self.peers.get(&id).is_some_and(|peer| peer.leaving.is_some()) {
            if let Message::Ping(nonce) = message {
                self.send_all(id, vec![Message::Pong(nonce)]);
            }
            return;
        }
        match message {
            Message::Ping(nonce) => self.send_all(id, vec![Message::Pong(nonce)]),
            Message::Pong(nonce) => {
                if let PongOutcome::Answered(_) = self.pings.on_pong(id, nonce, self.now.at) {
                    self.life_event(id, PeerEvent::ReconnectSuccess);
                }
            }
            Message::Headers(headers) => self.on_headers(id, headers),
            Message::Inv(entries) => self.on_inv(id, &entries),
            Message::Block(block) => self.blocks.on_block(cx!(self), &self.tree, id, block),
            Message::NotFound(entries) => {
                let hashes: Vec<BlockHash> = entries.iter().take(MAX_INV).filter_map(block_of).collect();
                self.blocks.on_not_found(cx!(self), &self.tree, id, &hashes);
            }
            Message::SendHeaders => self.serving.on_send_headers(id),
            Message::GetHeaders(request) => {
                let shelf = self.shelf();
                self.serving.on_get_headers(cx!(self), &self.tree, shelf, id, &request);
            }
            Message::GetData(wanted) => {
                let shelf = self.shelf();
                self.serving.on_get_data(cx!(self), &self.tree, shelf, id, &wanted);
            }
            Message::GetAddr => self.gossip.on_get_addr(cx!(self), &self.dialer, id),
            Message::Addr(entries) => {
                let all = entries.into_iter().take(MAX_ADDR).filter_map(|(time, legacy)| {
                    let address = PeerAddress::from_addr_v2(&addr::from_legacy(&legacy), legacy.port)?;
                    Some(Told { address, services: legacy.services, seen: u64::from(time) })
                });
                self.on_addresses(id, all.collect());
            }
            Message::AddrV2(entries) => {
                let all = entries.into_iter().take(MAX_ADDR).filter_map(|entry| {
                    let address = PeerAddress::from_addr_v2(&entry.addr, entry.port)?;
                    Some(Told { address, services: entry.services, seen: u64::from(entry.time) })
                });
                self.on_addresses(id, all.collect());
            }
            // No transactions are relayed: the rest asks for what we do not have.
            _ => {}
        }
    }

    fn on_headers(&mut self, id: PeerId, headers: Vec<Header>) {
        let Some(peer) = self.peers.get(&id) else { return };
        self.headers.on_headers(cx!(self), &mut self.tree, &peer.view, headers);
    }

    /// Only the last block counts, as in Core: it is the highest, and headers lead to the others.
    fn on_inv(&mut self, id: PeerId, entries: &[Inventory]) {
        let Some(peer) = self.peers.get(&id) else { return };
        if let Some(hash) = entries.iter().rev().find_map(block_of) {
            self.headers.on_block_inv(cx!(self), &self.tree, &peer.view, hash);
        }
    }

    fn on_addresses(&mut self, id: PeerId, entries: Vec<Told>) {
        let is_answer = entries.len() > 1;
        if self.gossip.on_addresses(cx!(self), &mut self.dialer, id, entries) {
            self.dialer.on_addresses(self.now.at);
        }
        // One address is the peer's own, which comes unasked.
        if is_answer && self.peers.get(&id).is_some_and(|peer| peer.view.kind == ConnectionKind::AddrFetch) {
            self.close_peer(id, CloseReason::Probed);
        }
    }

    fn shelf(&self) -> Shelf {
        Shelf { tip: self.activation.proved(), pruned_below: self.storage.pruned_below }
    }

    /// Tells those of the tip again whom it did not reach, unless we are behind.
    pub(super) fn tell_again(&mut self) {
        let due = self.serving.take_due(cx!(self));
        let tip = self.activation.proved();
        if self.synced && self.is_at_end() {
            let due = due.iter().filter_map(|id| self.peers.get(id));
            let views = due.filter(|peer| peer.leaving.is_none()).map(|peer| &peer.view);
            self.serving.announce(cx!(self), &self.tree, tip, views);
        }
        self.settle();
    }

    /// Tells peers of a new tip, unless we are behind.
    pub(super) fn announce_tip(&mut self) {
        let tip = self.activation.proved();
        if self.synced && self.is_at_end() && self.announced != Some(tip) {
            self.announced = Some(tip);
            let staying = self.peers.values().filter(|peer| peer.leaving.is_none());
            let peers = staying.map(|peer| &peer.view).filter(|view| view.ready);
            self.serving.announce(cx!(self), &self.tree, tip, peers);
            self.settle();
        }
    }
}

fn is_handshake(message: &Message) -> bool {
    matches!(message, Message::Version(_) | Message::Verack | Message::WtxidRelay | Message::SendAddrV2)
}

fn block_of(entry: &Inventory) -> Option<BlockHash> {
    match entry {
        Inventory::Block(hash) | Inventory::WitnessBlock(hash) | Inventory::CompactBlock(hash) => Some(*hash),
        _ => None,
    }
}
