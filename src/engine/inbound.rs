//! Connections that others open.

use super::peers::Peer;
use super::{Engine, Output};
use crate::limits::HANDSHAKE_TIMEOUT;
use crate::peer::book::NetGroup;
use crate::peer::eviction::{Candidate, select};
use crate::peer::handshake::Handshake;
use crate::peer::lifecycle::{Life, PeerEvent};
use crate::peer::{CloseReason, ConnectionKind, PeerAddress, PeerId, PeerView};
use bitcoin::p2p::ServiceFlags;

/// A connection that waits for the engine's word, by a number of the driver's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Arrival(pub u64);

impl Engine {
    /// Somebody has opened a connection.
    pub(super) fn on_arrival(&mut self, arrival: Arrival, address: PeerAddress) {
        if !self.has_place(&address) {
            self.outputs.push_back(Output::Refuse(arrival));
            return;
        }
        let id = PeerId(self.next_peer);
        self.next_peer += 1;
        let me = self.introduction();
        let handshake = Handshake::answer(&me, address.socket_addr());
        let mut life = Life::new();
        let begun = life.apply(PeerEvent::ConnectInitiated);
        debug_assert!(begun.is_ok());
        let view = PeerView {
            id,
            address,
            ready: false,
            kind: ConnectionKind::Inbound,
            services: ServiceFlags::NONE,
            start_height: 0,
            best_known: None,
        };
        self.nonces.insert(me.nonce);
        self.peers.insert(id, Peer::new(view, life, Some(handshake), self.now.at));
        self.waits.set(id, self.now.at + HANDSHAKE_TIMEOUT);
        self.outputs.push_back(Output::Accept(arrival, id));
    }

    /// Whether there is a place for one more, which another may have to leave.
    fn has_place(&mut self, address: &PeerAddress) -> bool {
        if self.stopping || self.config.inbound_max == 0 {
            return false;
        }
        let inbound = self.inbound();
        // Who broke a rule may come as long as nobody else wants the place.
        if self.dialer.book.is_discouraged(address) && inbound + 1 >= self.config.inbound_max {
            return false;
        }
        if inbound < self.config.inbound_max {
            return true;
        }
        let Some(leaving) = select(self.candidates(), self.eviction_key) else { return false };
        self.close_peer(leaving, CloseReason::Evicted);
        true
    }

    /// How many connections others have opened.
    pub(super) fn inbound(&self) -> usize {
        self.peers.values().filter(|peer| peer.view.kind == ConnectionKind::Inbound).count()
    }

    fn candidates(&self) -> Vec<Candidate> {
        let inbound = self.peers.values().filter(|peer| peer.view.kind == ConnectionKind::Inbound);
        let candidate = |peer: &Peer| Candidate {
            id: peer.view.id,
            since: peer.since,
            ping: self.pings.shortest(peer.view.id),
            last_block: peer.last_block,
            group: NetGroup::of(&peer.view.address),
            network: peer.view.address.network(),
            local: peer.view.address.is_local(),
            discouraged: self.dialer.book.is_discouraged(&peer.view.address),
        };
        inbound.map(candidate).collect()
    }
}
