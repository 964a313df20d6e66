//! Peers that come to a node: it serves them, and those who only take places displace nobody.

#![cfg(all(feature = "native", feature = "consensus"))]

mod world;

use headlong::{Builder, ConnectionKind, Handle, PeerAddress};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use world::{PATIENCE, Running, World};

const LOOPBACK: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// A node in memory that knows only who is named.
fn client(world: &World, server: SocketAddr) -> Running {
    let builder = Builder::with_params((*world.params).clone()).threads(1).connect(PeerAddress::Ip(server));
    Running::start(builder.build().unwrap())
}

fn listening(handle: &Handle) -> SocketAddr {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(address) = handle.listening().first() {
            return *address;
        }
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn inbound(handle: &Handle) -> usize {
    let peers = handle.peers_blocking().unwrap();
    peers.iter().filter(|peer| peer.kind == ConnectionKind::Inbound).count()
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
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
