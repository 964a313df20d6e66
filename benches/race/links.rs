//! The profile `links`: the chain of `sigs` from four serving bitcoinds, each behind a link of its own, of which one is
//! good.
//!
//! Each has a copy of the chain. The links have 100 ms and lose one packet of a hundred. They are made by the kernel's
//! netem, with each bitcoind in a network namespace ([`netem`]); where that is not to be had, the program says so, and
//! relays in it stand in ([`relay`]). A link that stalls lets some 200 kB pass to who syncs, and then nothing more:
//! nobody is told, and the connection stays.
//!
//! TCP itself answers to losses: over netem one connection gets about 1.7 Mbit/s through the good link, whose 20 Mbit/s
//! only packets without losses would fill. Relays hold up what follows a lost packet for a round trip, and get about 7
//! through.

mod netem;
mod relay;

use super::bitcoind::Bitcoind;
use super::{Goal, Profile, SERVING, Terms, headlong, other_bitcoind, print_ratios, serve};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

pub use netem::answer_trial;

/// Peers of a run.
const PEERS: usize = 4;

/// How a link is: for a byte and its answer 100 ms; each way, one packet of a hundred lost.
#[derive(Clone, Copy, Debug)]
struct Link {
    /// Of a million bits a second, each way.
    megabits: u32,
    /// Bytes to the side that syncs after which nothing passes any more.
    stalls_after: Option<u64>,
}

/// What a byte takes one way.
const DELAY: Duration = Duration::from_millis(50);
/// Of a hundred packets, how many get lost.
const LOSSES: u32 = 1;
/// The peer that is worth having.
const GOOD: Link = Link { megabits: 20, stalls_after: None };
/// What the other three are.
const OTHERS: [(&str, Link); 2] = [
    ("slow", Link { megabits: 1, stalls_after: None }),
    ("stalling", Link { megabits: 20, stalls_after: Some(200_000) }),
];

/// Who shapes the links.
#[derive(Clone, Copy, Debug)]
enum Shaper {
    Netem,
    Relays,
}

impl Shaper {
    /// What this machine can do. For netem the program starts anew, in namespaces, and then comes here again.
    fn choose() -> Self {
        if netem::is_entered() {
            netem::prepare().expect("it was possible a moment ago");
            return Self::Netem;
        }
        let reason = netem::enter();
        println!("links: **** NO NETEM: relays in this program stand in for tc netem. {reason} ****");
        Self::Relays
    }
}

/// The race of this profile. The last one of a program: it may go on in another process.
pub fn race(example: &Path, terms: &Terms, rounds: u32, scale: u32) {
    let shaper = Shaper::choose();
    let mut server = serve(Profile::Sigs, scale);
    let goal = Goal::of(&server);
    server.stop();
    let copies = Copies::of(server.folder());
    for (name, other) in OTHERS {
        let title = format!("links by {shaper:?}, {name}");
        println!("{title}: {} blocks from one good peer among three {name} ones", goal.height);
        let mut pairs = Vec::new();
        // New peers for each side, so that both find them alike; the good one is not the first.
        let start = || Peers::start(shaper, &copies, [other, GOOD, other, other]);
        for round in 1..=rounds {
            let peers = start();
            let ours = headlong(example, &peers.addresses, &goal, terms, &terms.stores[0]);
            drop(peers);
            println!("{title} {round}: headlong {ours}");
            let peers = start();
            let patience = Duration::from_secs_f64(ours.seconds * terms.patience);
            match other_bitcoind(&peers.addresses, &goal, terms, Some(patience)) {
                Some(theirs) => {
                    println!("{title} {round}: bitcoind {theirs}");
                    pairs.push((ours, theirs));
                }
                None => println!(
                    "{title} {round}: bitcoind is not done after {:.0} s, {} times ours",
                    patience.as_secs_f64(),
                    terms.patience
                ),
            }
        }
        if pairs.len() == rounds as usize {
            print_ratios(&title, &pairs);
        }
    }
}

/// The data directories of the serving bitcoinds.
struct Copies(TempDir);

impl Copies {
    fn of(folder: &Path) -> Self {
        let copies = Self(tempfile::tempdir().expect("a folder"));
        for number in 0..PEERS {
            let done = Command::new("cp").arg("-r").arg(folder).arg(copies.folder(number)).status();
            assert!(done.is_ok_and(|status| status.success()), "room for copies of the chain");
        }
        copies
    }

    fn folder(&self, number: usize) -> PathBuf {
        self.0.path().join(number.to_string())
    }
}

/// Serving bitcoinds behind links, ended with this value.
struct Peers {
    /// Where who syncs connects.
    addresses: Vec<SocketAddr>,
    nodes: Vec<Bitcoind>,
    // After the nodes, which live in their namespaces.
    wires: Vec<netem::Wire>,
}

impl Peers {
    fn start(shaper: Shaper, copies: &Copies, links: [Link; PEERS]) -> Self {
        let mut peers = Self { addresses: Vec::new(), nodes: Vec::new(), wires: Vec::new() };
        for (number, link) in links.into_iter().enumerate() {
            let folder = copies.folder(number);
            match shaper {
                Shaper::Netem => {
                    let wire = netem::Wire::open(number, link).expect("as tried before");
                    let site = wire.site();
                    let reached = wire.reached();
                    let options: Vec<&str> =
                        SERVING.iter().copied().chain(reached.iter().map(String::as_str)).collect();
                    peers.addresses.push(site.p2p);
                    peers.nodes.push(Bitcoind::start_at(site, &folder, &options));
                    peers.wires.push(wire);
                }
                Shaper::Relays => {
                    let node = Bitcoind::start_in(&folder, &SERVING);
                    peers.addresses.push(relay::open(link, node.p2p()));
                    peers.nodes.push(node);
                }
            }
        }
        // What the nodes were asked when they started does not count.
        peers.wires.iter_mut().for_each(netem::Wire::count);
        peers
    }
}
