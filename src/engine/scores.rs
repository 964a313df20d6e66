//! What follows from scores beyond the order of requests: replacements, the audit log, what is kept for the next run.
//!
//! A peer of our own accord whose score has been low for long ([`SCORE_LIMITED_TIME`], [`SCORE_ISOLATED_TIME`]) makes room
//! for another only while blocks are fetched, if the address book has one to dial now, and if enough others delivered blocks
//! and are not low; one at a time ([`super::replace`]). Peers of the host and those that came to us stay. The
//! address is not discouraged; it is dialled again after others.

use super::{Engine, Output};
use crate::limits::{MAX_AUDIT_RECORDS, SAVE_INTERVAL, SCORE_LEAST_OTHERS};
use crate::peer::audit::{AuditAction, AuditRecord};
use crate::peer::score::{FEATURES, Saved};
use crate::peer::{CloseReason, ConnectionKind, PeerId, PeerView};
use crate::time::Timestamp;

impl Engine {
    /// Begins with what an earlier run has learnt of peers.
    #[must_use]
    pub fn with_scores(mut self, saved: Saved) -> Self {
        self.blocks.restore_scores(saved);
        self.avoid_low_addresses();
        self
    }

    /// The weights of the scores' features as they are now, in the order of [`Features`](crate::peer::score::Features).
    pub fn score_weights(&self) -> [f64; FEATURES] {
        self.blocks.scores().weights()
    }

    /// Tells the dialler which addresses come after others.
    pub(super) fn avoid_low_addresses(&mut self) {
        self.dialer.set_avoided(self.blocks.scores().low_addresses().cloned().collect());
    }

    /// Emits what was learnt, if it changed.
    pub(super) fn save_scores(&mut self) {
        if let Some(bytes) = self.blocks.take_scores(self.now) {
            self.outputs.push_back(Output::SaveScores(bytes));
        }
    }

    /// When there is something to do.
    pub(super) fn next_score_deadline(&self) -> Option<Timestamp> {
        let save = self.blocks.scores().is_changed().then_some(self.next_scores_save);
        let look = self.blocks.scores().next_look().map(|at| at.max(self.replacements.opens()));
        save.into_iter().chain(look).min()
    }

    pub(super) fn on_score_timer(&mut self) {
        let now = self.now.at;
        if self.blocks.scores().is_changed() && self.next_scores_save <= now {
            self.next_scores_save = now + SAVE_INTERVAL;
            self.save_scores();
        }
        if !self.replacements.is_open(now) {
            return;
        }
        for id in self.blocks.scores().lowest(now) {
            if self.can_replace(id) {
                self.replacements.pass(now);
                self.close_peer(id, CloseReason::LowScore);
                return;
            }
            self.blocks.pardon(id, now);
        }
    }

    /// Whether enough peers deliver blocks that those with low scores can be done without.
    pub(super) fn is_served(&self) -> bool {
        self.blocks.scores().delivering() >= SCORE_LEAST_OTHERS
    }

    /// Whether a low peer may go, and another can come.
    fn can_replace(&mut self, id: PeerId) -> bool {
        let ours = self.peers.get(&id).is_some_and(|peer| peer.view.kind.is_our_choice());
        ours && self.blocks.in_flight(None) > 0
            && self.is_served()
            && self.dialer.has_replacement(self.now, &mut self.rng)
    }

    /// Records a ban or a replacement; of peers that came to us only so many ([`AUDIT_RATE_INBOUND`](crate::limits::AUDIT_RATE_INBOUND)), since whoever
    /// likes can come again and again. To be called once the address is discouraged, and before its score is
    /// forgotten.
    pub(super) fn note_audit(&mut self, view: &PeerView, reason: &CloseReason) {
        let action = match reason {
            CloseReason::LowScore => AuditAction::Replaced,
            CloseReason::Fault(_) if self.dialer.book.is_discouraged(&view.address) => {
                AuditAction::Discouraged
            }
            CloseReason::Fault(_) => AuditAction::Disconnected,
            _ => return,
        };
        if view.kind == ConnectionKind::Inbound && !self.audit_inbound.take(self.now.at) {
            return;
        }
        let record = AuditRecord {
            unix: self.now.unix,
            peer: view.id,
            address: view.address.clone(),
            kind: view.kind,
            action,
            reason: reason.clone(),
            score: self.blocks.scores().get(view.id),
        };
        while self.audit.len() >= MAX_AUDIT_RECORDS {
            self.audit.pop_front();
        }
        self.audit.push_back(record.clone());
        self.outputs.push_back(Output::Audit(Box::new(record)));
    }
}
