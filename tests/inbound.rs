//! Peers that come to a node: it serves them, and those who only take places displace nobody.

#![cfg(all(feature = "native", feature = "consensus"))]

mod world;

use headlong::peer::lifecycle::TRANSITIONS;
use headlong::{Builder, ConnectionKind, Handle, PeerAddress, PeerChange, PeerId, PeerState, Reaction};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use world::{Running, World, listening, wait};

const LOOPBACK: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// A node in memory that knows only who is named.
fn client(world: &World, server: SocketAddr) -> Running {
    let builder = Builder::with_params((*world.params).clone()).threads(1).connect(PeerAddress::Ip(server));
    Running::start(builder.build().unwrap())
}

fn inbound(handle: &Handle) -> usize {
    let peers = handle.peers_blocking().unwrap();
    peers.iter().filter(|peer| peer.kind == ConnectionKind::Inbound).count()
}

#[test]
fn a_second_node_syncs_from_the_first_and_follows_its_tip() {
    let mut world = World::new(130);
    let server = Running::start(world.builder().listen(LOOPBACK.into()).build().unwrap());
    server.wait_for(world.tip());
    let address = listening(&server.handle);
    let first = client(&world, address);
    first.wait_for(world.tip());
    // A third from the second would have to be told; here both come to the first.
    let second = client(&world, address);
    second.wait_for(world.tip());
    assert_eq!(inbound(&server.handle), 2);
    let coins = |node: &Running| node.handle.utxo_stats_blocking().unwrap().value;
    assert_eq!(coins(&first), coins(&server));
    world.grow(3);
    for node in [&server, &first, &second] {
        node.wait_for(world.tip());
    }
    second.stop();
    first.stop();
    server.stop();
}

/// Handlers by state: one keeps a record of every step, one sends the second visitor away.
#[test]
fn a_host_hears_of_each_step_of_a_peer_and_may_send_it_away() {
    let world = World::new(5);
    let steps = Arc::new(Mutex::new(Vec::<PeerChange>::new()));
    let mut builder = world.builder().listen(LOOPBACK.into());
    for state in PeerState::ALL {
        let steps = steps.clone();
        builder = builder.on_peer_state(state, move |change| {
            steps.lock().unwrap().push(change.clone());
            Reaction::Keep
        });
    }
    let visitors = AtomicUsize::new(0);
    let builder = builder.on_peer_state(PeerState::Connected, move |change| {
        let second = change.kind == ConnectionKind::Inbound && visitors.fetch_add(1, Ordering::Relaxed) == 1;
        if second { Reaction::Leave } else { Reaction::Keep }
    });
    let server = Running::start(builder.build().unwrap());
    let first = client(&world, listening(&server.handle));
    first.wait_for(world.tip());
    let second = client(&world, listening(&server.handle));
    let sent_away = |steps: &[PeerChange]| {
        steps.iter().any(|step| step.kind == ConnectionKind::Inbound && step.to == PeerState::Disconnected)
    };
    wait("the second is sent away", || sent_away(&steps.lock().unwrap()));
    assert!(inbound(&server.handle) >= 1, "the first stays");
    second.stop();
    first.stop();
    server.stop();
    let mut lives = BTreeMap::<PeerId, Vec<PeerState>>::new();
    for step in steps.lock().unwrap().iter() {
        assert!(TRANSITIONS.contains(&(step.from, step.event, step.to)), "{step:?}");
        let life = lives.entry(step.id).or_insert_with(|| vec![PeerState::Disconnected]);
        assert_eq!(life.last(), Some(&step.from), "no step is left out");
        life.push(step.to);
    }
    assert!(lives.len() >= 3, "two visitors and whom the node dialled: {lives:?}");
    for (id, life) in lives {
        assert_eq!(life[..2], [PeerState::Disconnected, PeerState::Connecting], "{id}");
        assert_eq!(life.last(), Some(&PeerState::Disconnected), "{id}");
    }
}

#[test]
fn a_pruned_node_offers_its_last_blocks_and_a_node_that_does_not_listen_offers_none() {
    use bitcoin::p2p::ServiceFlags;
    let world = World::new(5);
    let folder = tempfile::tempdir().unwrap();
    let pruned = world.builder().datadir(folder.path()).prune(1).listen(LOOPBACK.into());
    let server = Running::start(pruned.build().unwrap());
    let peer = client(&world, listening(&server.handle));
    let services = |node: &Running| node.handle.peers_blocking().unwrap().last().map(|peer| peer.services);
    let limited = ServiceFlags::NETWORK_LIMITED | ServiceFlags::WITNESS;
    let only_recent = |offered: ServiceFlags| offered.has(limited) && !offered.has(ServiceFlags::NETWORK);
    wait("the client sees what is offered", || services(&peer).is_some_and(only_recent));
    wait("the server sees that nothing is", || services(&server) == Some(ServiceFlags::NONE));
    peer.stop();
    server.stop();
}

#[test]
fn an_address_that_is_taken_ends_the_node_with_an_error_that_names_it() {
    let world = World::new(1);
    let taken = std::net::TcpListener::bind(LOOPBACK).unwrap();
    let address = taken.local_addr().unwrap();
    let node = Running::start(world.builder().listen(address).build().unwrap());
    let error = node.outcome().unwrap_err().to_string();
    assert!(error.contains(&address.to_string()), "{error}");
}

/// Hundreds of connections that say nothing, or half of something: all places are taken again and again, and the peer
/// that is of use keeps its own; then another one finds a place at once.
#[test]
fn a_flood_of_silent_connections_displaces_nobody_who_is_of_use() {
    let mut world = World::new(120);
    let server = Running::start(world.builder().listen(LOOPBACK.into()).inbound(24).build().unwrap());
    server.wait_for(world.tip());
    let address = listening(&server.handle);
    let honest = client(&world, address);
    honest.wait_for(world.tip());
    let before = honest.handle.peers_blocking().unwrap()[0].id;
    let mut flood = Vec::new();
    for n in 0..600usize {
        let Ok(mut stream) = TcpStream::connect(address) else { continue };
        if n % 2 == 0 {
            // The beginning of a version message, and no more.
            let _ = stream.write_all(&[&world.params.magic[..], b"version"].concat());
        }
        flood.push(stream);
        if n % 100 == 0 {
            assert!(inbound(&server.handle) <= 24);
        }
    }
    wait("all have been dealt with", || inbound(&server.handle) == 24);
    world.grow(2);
    honest.wait_for(world.tip());
    assert_eq!(honest.handle.peers_blocking().unwrap()[0].id, before, "its connection has lasted");
    let newcomer = client(&world, address);
    newcomer.wait_for(world.tip());
    drop(flood);
    newcomer.stop();
    honest.stop();
    server.stop();
}
