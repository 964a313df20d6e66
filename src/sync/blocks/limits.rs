//! What the closed loop sees of the download, and what it may set.

use super::{BlockScheduler, SchedulerConfig};
use crate::chain::block_tree::{BlockTree, HeaderId};
use crate::peer::{Cx, PeerId};
use crate::sync::tuning::Settings;
use crate::time::Timestamp;

impl BlockScheduler {
    /// Fetches within other limits from now on. What is asked for already stays asked for.
    pub fn set_limits(&mut self, cx: &mut Cx<'_>, tree: &BlockTree, settings: Settings) {
        self.config = SchedulerConfig { window: settings.window, reserved_bytes: settings.reserved_bytes };
        self.ahead = settings.ahead;
        for peer in self.sources.keys().copied().collect::<Vec<_>>() {
            if let Some(source) = self.sources.get_mut(&peer) {
                source.meter.ahead = settings.ahead;
            }
            self.check_load(peer);
        }
        self.follow(tree);
        self.settle(cx, tree);
    }

    /// The height of the next block to connect, and of whom and since when it is asked; `None` if there is none.
    pub fn waits_for(&self, tree: &BlockTree) -> Option<(u32, Option<(PeerId, Timestamp)>)> {
        let id = self.next_of(tree)?;
        let first = self.flights.get(&id).and_then(|flight| flight.requests.first());
        Some((tree.height(id), first.map(|request| (request.peer, request.at))))
    }

    /// Whether the next block to connect is there, and perhaps connecting.
    pub fn has_next(&self, tree: &BlockTree) -> bool {
        self.next_of(tree).is_some_and(|id| {
            self.arrived.contains_key(&id) || tree.has_body(id) && !self.again.contains_key(&id)
        })
    }

    /// The next block to connect, or one without which the tip cannot be left for it.
    fn next_of(&self, tree: &BlockTree) -> Option<HeaderId> {
        if let Some((&lost, _)) = self.again.first_key_value()
            && self.leaves_tip(tree)
        {
            return Some(lost);
        }
        let target = self.target.filter(|target| *target != self.tip)?;
        let fork = tree.height(tree.fork_point(self.tip, target));
        tree.ancestor(target, fork.saturating_add(1))
    }

    /// Whether every block of the window is asked for or there, and the chain goes on behind it.
    pub fn window_is_spent(&self, tree: &BlockTree) -> bool {
        let goes_on = self.target.is_some_and(|target| self.window.end() < tree.height(target));
        goes_on && !self.window.is_needy()
    }
}
