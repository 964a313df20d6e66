//! Options about the scores of peers.

use super::Builder;
use crate::peer::score::ScorePolicy;

impl Builder {
    /// How peers are chosen for blocks, and whether those with low scores are limited and replaced:
    /// [`ScorePolicy::Learnt`] by default. Whatever it is, scores are measured and shown
    /// ([`PeerStatus::score`](crate::PeerStatus::score)), peers that the host named are never replaced, and only broken
    /// rules are held against an address.
    pub fn score_policy(mut self, policy: ScorePolicy) -> Self {
        self.network.score_policy = policy;
        self
    }
}
