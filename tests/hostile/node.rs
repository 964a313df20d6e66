//! The node of a case, in a process of its own. It gets a plan in the environment, tells on stdout what happens,
//! and ends when its stdin does.

use crate::world::{self, Net};
use futures::future::BoxFuture;
use headlong::net::native::NativeTransport;
use headlong::net::{BoxStream, Listener, Transport};
use headlong::{Builder, CloseReason, EndedPeer, Handle, PeerAddress};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The variable with the plan: lines of `network easy|hard`, `datadir PATH`, `peer PUBLIC REAL auto|manual`.
pub const PLAN: &str = "HEADLONG_HOSTILE_NODE";
/// What each line for the test begins with.
pub const MARK: &str = "node: ";

/// Sockets that lead from public addresses, as a real network has, to those of this machine; and the DNS seed.
#[derive(Debug)]
struct Network {
    real: BTreeMap<PeerAddress, PeerAddress>,
    seeded: Vec<SocketAddr>,
    sockets: NativeTransport,
}

impl Transport for Network {
    fn dial(&self, address: &PeerAddress) -> BoxFuture<'static, io::Result<BoxStream>> {
        match self.real.get(address) {
            Some(real) => self.sockets.dial(real),
            // What hostile peers gossip about.
            None => Box::pin(async { Err(io::ErrorKind::HostUnreachable.into()) }),
        }
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        self.sockets.listen(address)
    }

    fn resolve(&self, _host: &str, _port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let seeded = self.seeded.clone();
        Box::pin(async move { Ok(seeded) })
    }
}

pub fn run(plan: &str) {
    let mut network = Network { real: BTreeMap::new(), seeded: Vec::new(), sockets: NativeTransport::new() };
    let (mut net, mut datadir, mut manual) = (Net::Easy, String::new(), Vec::new());
    for line in plan.lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["network", name] => net = if name == "hard" { Net::Hard } else { Net::Easy },
            ["datadir", path] => datadir = path.to_owned(),
            ["peer", public, real, how] => {
                let public: SocketAddr = public.parse().unwrap();
                network.real.insert(public.into(), PeerAddress::Ip(real.parse().unwrap()));
                match how {
                    "manual" => manual.push(public),
                    _ => network.seeded.push(public),
                }
            }
            _ => panic!("{line}"),
        }
    }
    let mut builder = Builder::with_params(world::params(net)).datadir(datadir).transport(network).threads(2);
    // The cases write v1 by hand.
    builder = builder.encrypt(false);
    for peer in manual {
        builder = builder.add_node(peer);
    }
    let (node, handle) = builder.build().unwrap();
    let running = std::thread::spawn(move || node.run_blocking());
    let over = Arc::new(AtomicBool::new(false));
    std::thread::spawn({
        let over = over.clone();
        move || {
            let _ = io::stdin().read_to_end(&mut Vec::new());
            over.store(true, Ordering::SeqCst);
        }
    });
    report(&handle, &over);
    let durable = handle.shutdown_blocking();
    let outcome = running.join();
    println!("{MARK}ended {durable:?} {outcome:?}");
}

/// Tells tips and ended connections until it is over.
fn report(handle: &Handle, over: &AtomicBool) {
    let (mut told, mut tip) = (BTreeSet::new(), None);
    let mut last = false;
    while !last {
        last = over.load(Ordering::SeqCst);
        let status = handle.status();
        if tip != Some(status.tip) {
            tip = Some(status.tip);
            println!("{MARK}tip {} {}", status.tip.height, status.tip.hash);
        }
        match handle.ended_peers_blocking() {
            Ok(ended) => ended.iter().filter(|peer| told.insert(peer.id)).for_each(tell),
            Err(error) => return println!("{MARK}failed {error}"),
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    println!("{MARK}status {:?} {:?}", handle.status(), handle.peers_blocking());
}

fn tell(peer: &EndedPeer) {
    let kind = match peer.reason {
        CloseReason::Fault(_) if peer.discouraged => "discouraged",
        CloseReason::Fault(_) => "fault",
        _ => "closed",
    };
    println!("{MARK}{kind} {} {}", peer.address, peer.reason);
}
