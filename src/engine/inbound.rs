//! Connections that others open.

use super::peers::Peer;
use super::{Engine, Output};
use crate::limits::HANDSHAKE_TIMEOUT;
use crate::peer::book::NetGroup;
use crate::peer::eviction::{Candidate, select};
use crate::peer::handshake::Handshake;
use crate::peer::{CloseReason, ConnectionKind, PeerAddress};

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
        let own = self.own_address_for(&address, ConnectionKind::Inbound);
        let me = self.introduction(own);
        let handshake = Handshake::answer(&me, address.socket_addr());
        self.nonces.insert(me.nonce);
        let id = self.new_peer(address, ConnectionKind::Inbound, Some(handshake));
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
