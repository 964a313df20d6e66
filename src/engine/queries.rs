//! Answers to the host, from what the engine holds.

use super::output::{Event, PeerStatus};
use super::{Answer, Engine, Query};
use crate::chain::block_tree::HeaderId;
use crate::chain::command::BlockRef;
use crate::limits::MAX_EVENTS;
use crate::relay::rate::PeerTraffic;

impl Engine {
    pub(super) fn answer(&self, query: Query) -> Answer {
        match query {
            Query::HeaderByHash(hash) => self.answer_header(self.tree.find(&hash)),
            Query::HeaderByHeight(height) => {
                self.answer_header(self.tree.ancestor(self.activation.proved(), height))
            }
            Query::Peers => Answer::Peers(self.peer_statuses()),
            Query::Actions => Answer::Actions(self.control.actions()),
            Query::EndedPeers => Answer::EndedPeers(self.ended_peers.iter().cloned().collect()),
            Query::Audit => Answer::Audit(self.audit.iter().cloned().collect()),
            Query::Addresses => Answer::Addresses(self.dialer.book.census().to_vec()),
            Query::Events(cursor, limit) => self.events_after(cursor, limit),
        }
    }

    fn answer_header(&self, id: Option<HeaderId>) -> Answer {
        let tip = self.activation.proved();
        let header = id.map(|id| (self.tree.block(id), self.tree.header(id), self.tree.is_ancestor(id, tip)));
        Answer::Header { header, tip: self.tree.block(tip) }
    }

    fn peer_statuses(&self) -> Vec<PeerStatus> {
        let status = |peer: &super::peers::Peer| {
            let id = peer.view.id;
            PeerStatus {
                id,
                address: peer.view.address.clone(),
                kind: peer.view.kind,
                session: peer.session,
                state: peer.life.state(),
                user_agent: peer.handshake.as_ref().map_or_else(String::new, |h| h.info().user_agent.clone()),
                services: peer.view.services,
                start_height: peer.view.start_height,
                best_known: peer.view.best_known.map(|id| self.tree.block(id)),
                ping_millis: self.pings.round_trip(id).and_then(|t| u64::try_from(t.as_millis()).ok()),
                bytes_in: peer.bytes_in,
                bytes_out: peer.bytes_out,
                in_flight: self.blocks.in_flight(Some(id)),
                bytes_per_second: self.blocks.speed(id),
                traffic: PeerTraffic::default(),
                score: self.blocks.scores().get(id),
            }
        };
        self.peers.values().map(status).collect()
    }

    /// Walks from the cursor to the durable tip: blocks that left the active chain are undone, tip first,
    /// then its blocks are applied. Each answer ends at a cursor from which the next goes on.
    fn events_after(&self, cursor: Option<BlockRef>, limit: usize) -> Answer {
        let limit = limit.min(MAX_EVENTS);
        let durable = self.activation.durable();
        let mut events = Vec::new();
        let mut at = match cursor {
            None => None,
            Some(block) => match self.tree.find(&block.hash) {
                Some(id) if self.tree.height(id) == block.height => Some(id),
                _ => return Answer::UnknownCursor,
            },
        };
        let fork = at.map(|id| self.tree.fork_point(id, durable));
        let first = fork.map_or(0, |id| self.tree.height(id).saturating_add(1));
        if first < self.storage.pruned_below && first <= self.tree.height(durable) {
            return Answer::PrunedCursor(self.storage.pruned_below);
        }
        while let Some(id) = at.filter(|id| !self.tree.is_ancestor(*id, durable)) {
            if events.len() == limit {
                return Answer::Events(events);
            }
            events.push(Event::Undo(self.tree.block(id), self.tree.header(id)));
            at = self.tree.parent(id);
        }
        for height in first..=self.tree.height(durable) {
            if events.len() == limit {
                break;
            }
            let Some(id) = self.tree.ancestor(durable, height) else { break };
            events.push(Event::Apply(self.tree.block(id), self.tree.header(id)));
        }
        Answer::Events(events)
    }
}
