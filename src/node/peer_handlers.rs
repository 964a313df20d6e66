//! What a host does when a peer comes into a state: handlers by state, called in the order in which they were given.

use crate::engine::output::PeerChange;
use crate::peer::lifecycle::PeerState;
use core::fmt;
use std::sync::Arc;

/// What becomes of a peer after a handler has looked at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reaction {
    /// It stays.
    Keep,
    /// It leaves, as if by [`Handle::remove_peer`](crate::Handle::remove_peer); its address is not held against it.
    Leave,
}

type Handler = Arc<dyn Fn(&PeerChange) -> Reaction + Send + Sync>;

/// Handlers by the state that a peer comes into.
#[derive(Clone, Default)]
pub(super) struct PeerHandlers(Vec<(PeerState, Handler)>);

impl PeerHandlers {
    pub(super) fn add(
        &mut self,
        state: PeerState,
        handler: impl Fn(&PeerChange) -> Reaction + Send + Sync + 'static,
    ) {
        self.0.push((state, Arc::new(handler)));
    }

    /// Calls those of the new state; the peer leaves if one of them wants that.
    pub(super) fn call(&self, change: &PeerChange) -> Reaction {
        let wanted = self.0.iter().filter(|(state, _)| *state == change.to);
        // All of them hear of it, whatever the others say.
        wanted.fold(Reaction::Keep, |so_far, (_, handler)| match handler(change) {
            Reaction::Keep => so_far,
            Reaction::Leave => Reaction::Leave,
        })
    }
}

impl fmt::Debug for PeerHandlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(state, _)| state)).finish()
    }
}
