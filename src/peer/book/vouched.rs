//! Addresses that a seed or the host told and that were never dialled.
//!
//! Peers may tell thousands of addresses where nobody is, so that a draw from all of them finds one of a seed late. Core
//! leaves it at that; here these come first in every second draw, each once. A seed that lies gains that many dials and
//! no more, and gets no larger part of them than the other seeds.

use crate::peer::PeerAddress;
use crate::peer::group::NetGroup;
use crate::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// Addresses by who told them; no empty sets.
#[derive(Debug, Default)]
pub(super) struct Vouched {
    by_source: BTreeMap<NetGroup, BTreeSet<PeerAddress>>,
}

impl Vouched {
    /// Remembers the address, if this source is one that the host or the network's parameters name.
    pub(super) fn put(&mut self, address: &PeerAddress, source: &NetGroup) {
        if matches!(source, NetGroup::Name(_)) {
            self.by_source.entry(source.clone()).or_default().insert(address.clone());
        }
    }

    /// It was dialled, or is gone.
    pub(super) fn remove(&mut self, address: &PeerAddress) {
        self.by_source.retain(|_, addresses| {
            addresses.remove(address);
            !addresses.is_empty()
        });
    }

    /// A source, each with the same chance, and one of its addresses.
    pub(super) fn draw(&self, rng: &mut Rng) -> Option<&PeerAddress> {
        let source = rng.below(self.by_source.len() as u64) as usize;
        let addresses = self.by_source.values().nth(source)?;
        addresses.iter().nth(rng.below(addresses.len() as u64) as usize)
    }
}
