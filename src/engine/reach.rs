//! How the node is reached: the questions go out, the answers decide what peers are told of us.

use super::{Engine, Output};
use crate::peer::{ConnectionKind, PeerAddress};
use std::net::SocketAddr;

impl Engine {
    /// The node listens there.
    pub(super) fn on_listening(&mut self, addresses: &[SocketAddr]) {
        self.reach.on_listening(addresses, self.now, &mut self.rng);
    }

    /// Asks what is to be asked, and tells peers what is new of us.
    pub(super) fn look_around(&mut self) {
        while let Some((id, request)) = self.reach.next(self.now, &mut self.rng) {
            self.outputs.push_back(Output::Ask(id, request));
        }
        if self.reach.take_news() {
            self.gossip.set_own(self.reach.own(), self.now.at);
        }
    }

    /// What `version` says of our own address: one of the peer's family, and nothing to those who are not to learn of it by
    /// gossip either.
    pub(super) fn own_address_for(&self, peer: &PeerAddress, kind: ConnectionKind) -> Option<SocketAddr> {
        let network = peer.network().filter(|network| network.is_direct())?;
        if !kind.gossips() || self.gossip.is_private(peer, kind) {
            return None;
        }
        let own = self.gossip.own().iter().find(|own| own.network() == Some(network))?;
        own.socket_addr()
    }
}
