//! The table of cases.

mod blocks;
mod floods;
mod frames;
mod handshake;
mod headers;

use crate::wire::{Behaviour, Stage, Wire};
use crate::world::Net;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// What is to become of a hostile peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A fault with this text, and nothing but such: it provably broke a rule.
    Fault(&'static str),
    /// Closed with this text, without blame.
    Closed(&'static str),
    /// Whatever happens, no fault: nothing is proved.
    NoFault,
}

impl End {
    /// Whether it has to come.
    pub fn is_awaited(self) -> bool {
        self != Self::NoFault
    }
}

/// A hostile peer.
#[derive(Clone)]
pub struct Foe {
    pub name: String,
    pub behaviour: Behaviour,
    pub end: End,
}

/// A node with one honest peer and these.
#[derive(Clone)]
pub struct Case {
    pub name: String,
    pub network: Net,
    pub peers: Vec<Foe>,
    /// The host chose the hostile peers: they stay however slow they are.
    pub manual: bool,
    /// How long the honest peer waits for the hostile ones, if longer than usual.
    pub head_start: Duration,
    /// How long the node goes on after the sync.
    pub linger: Duration,
    /// Needs no time of its own: may share a node with others.
    pub crowd: bool,
    /// Is run alone even in a short run.
    pub short: bool,
}

impl Case {
    pub fn new(name: &str, behaviours: Vec<Behaviour>, end: End) -> Self {
        let foe = |behaviour| Foe { name: name.to_owned(), behaviour, end };
        Self {
            name: name.to_owned(),
            network: Net::Easy,
            peers: behaviours.into_iter().map(foe).collect(),
            manual: false,
            head_start: Duration::ZERO,
            linger: Duration::ZERO,
            crowd: false,
            short: false,
        }
    }

    fn crowd(self) -> Self {
        Self { crowd: true, ..self }
    }

    fn short(self) -> Self {
        Self { short: true, ..self }
    }

    fn manual(self) -> Self {
        Self { manual: true, name: format!("{}, chosen by the host", self.name), ..self }
    }

    fn linger(self, seconds: u64) -> Self {
        Self { linger: Duration::from_secs(seconds), ..self }
    }

    fn head_start(self, seconds: u64) -> Self {
        Self { head_start: Duration::from_secs(seconds), ..self }
    }

    fn on(self, network: Net) -> Self {
        Self { network, ..self }
    }
}

/// A case with one hostile peer.
fn case(
    name: impl Into<String>,
    end: End,
    behaviour: impl Fn(&Stage, &mut Wire) -> io::Result<()> + Send + Sync + 'static,
) -> Case {
    Case::new(&name.into(), vec![Arc::new(behaviour)], end)
}

/// The same behaviour for several peers at once.
fn several(count: usize, case: Case) -> Case {
    let foe = case.peers[0].clone();
    Case { name: format!("{} peers: {}", count, case.name), peers: vec![foe; count], ..case }
}

pub fn all() -> Vec<Case> {
    [frames::cases(), handshake::cases(), headers::cases(), blocks::cases(), floods::cases()]
        .into_iter()
        .flatten()
        .collect()
}

/// One node beside the peers of all these cases, which the host chose, so that all are dialled at once.
pub fn crowd(cases: Vec<Case>) -> Case {
    // Who stays and is silent has a role to lose first; those are cases of their own.
    let ends = cases.into_iter().flat_map(|case| case.peers).filter(|foe| foe.end.is_awaited());
    let peers: Vec<Foe> = ends.collect();
    let name = format!("a crowd of {} hostile peers", peers.len());
    Case {
        peers,
        manual: true,
        head_start: Duration::from_secs(10),
        ..Case::new(&name, vec![], End::NoFault)
    }
}
