//! Options that concern single peers.

use super::Builder;
use crate::engine::output::PeerChange;
use crate::node::peer_handlers::Reaction;
use crate::peer::lifecycle::PeerState;

impl Builder {
    /// Calls this whenever a peer comes into `state`; several handlers of one state are called in the order given. A
    /// peer's way through the states is that of [`TRANSITIONS`](crate::peer::lifecycle::TRANSITIONS), from
    /// `Disconnected` back to `Disconnected`, unless the node is dropped before.
    ///
    /// It runs on the node's task, between two inputs: it must neither block nor panic. It may ask for the peer to
    /// leave; a peer of the host ([`connect`](Self::connect), [`add_node`](Self::add_node)) is then not dialled again.
    pub fn on_peer_state(
        mut self,
        state: PeerState,
        handler: impl Fn(&PeerChange) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        self.peer_handlers.add(state, handler);
        self
    }
}
