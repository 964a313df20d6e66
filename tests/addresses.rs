//! The address book of a node, as its host sees it.

use headlong::{AddressNetwork, Builder, Handle, Network, Node, PeerAddress, RunError, Stopped};
use std::path::Path;
use std::thread::JoinHandle;

const ONION: &str = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion:8333";

type Run = JoinHandle<Result<Stopped, RunError>>;

/// A node that knows nobody and dials nobody.
fn start(folder: &Path, change: impl FnOnce(Builder) -> Builder) -> (Run, Handle) {
    let builder = Builder::new(Network::Regtest).datadir(folder).threads(1).dns(false).outbound(0, 0);
    let (node, handle): (Node, Handle) =
        change(builder.probe_interval(std::time::Duration::ZERO)).build().unwrap();
    (std::thread::spawn(move || node.run_blocking()), handle)
}

fn stop((run, handle): (Run, Handle)) {
    handle.shutdown_blocking().unwrap();
    run.join().unwrap().unwrap();
}

/// Addresses of different groups.
fn numbered(n: u8) -> PeerAddress {
    PeerAddress::Ip(([n, 1, 1, 1], 8_333).into())
}

fn known(handle: &Handle, network: AddressNetwork) -> usize {
    let all = handle.addresses_blocking().unwrap();
    let census = all.networks.iter().find(|census| census.network == network).unwrap();
    census.new + census.tried
}

#[test]
fn many_threads_use_the_book_and_the_next_run_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path(), |builder| builder);
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let handle = node.1.clone();
            scope.spawn(move || {
                let mut before = 0;
                for n in 1..=40 {
                    handle.add_addresses_blocking(vec![numbered(thread * 40 + n)]).unwrap();
                    let count = known(&handle, AddressNetwork::Ipv4);
                    assert!(count >= before, "{count} after {before}");
                    before = count;
                }
            });
        }
    });
    // Two may belong in one of the 4,096 places of their source, which the book's secret key chooses: of 160 some three,
    // twenty hardly once in 10^10 runs.
    let count = known(&node.1, AddressNetwork::Ipv4);
    assert!((141..=160).contains(&count), "{count}");
    stop(node);
    let node = start(folder.path(), |builder| builder);
    assert_eq!(known(&node.1, AddressNetwork::Ipv4), count);
    assert_eq!(node.1.addresses_blocking().unwrap().set_aside, None);
    stop(node);
}

#[test]
fn only_addresses_of_networks_that_are_dialled_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let all = || vec![numbered(1), ONION.parse().unwrap(), PeerAddress::Name("seed.example".into(), 1)];
    let node = start(folder.path(), |builder| builder);
    node.1.add_addresses_blocking(all()).unwrap();
    assert_eq!(known(&node.1, AddressNetwork::Ipv4), 1);
    assert_eq!(known(&node.1, AddressNetwork::Onion), 0);
    stop(node);
    let node = start(folder.path(), |builder| builder.networks([AddressNetwork::Onion]));
    node.1.add_addresses_blocking(all()).unwrap();
    assert_eq!(known(&node.1, AddressNetwork::Onion), 1);
    stop(node);
}

#[test]
fn a_damaged_book_is_set_aside_and_the_host_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path(), |builder| builder);
    node.1.add_addresses_blocking(vec![numbered(1)]).unwrap();
    stop(node);
    let file = folder.path().join("peers.dat");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[30] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let node = start(folder.path(), |builder| builder);
    let aside = node.1.addresses_blocking().unwrap().set_aside.unwrap();
    assert_eq!(std::fs::read(&aside).unwrap(), bytes);
    assert_eq!(known(&node.1, AddressNetwork::Ipv4), 0);
    stop(node);
}

#[test]
fn a_change_is_saved_within_a_second_where_the_host_wants_it() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path(), |builder| builder.persist_addresses_on_update(true));
    let file = folder.path().join("peers.dat");
    let mut sizes = Vec::new();
    for n in 1..=20 {
        node.1.add_addresses_blocking(vec![numbered(n)]).unwrap();
        if known(&node.1, AddressNetwork::Ipv4) == sizes.len() {
            // Once in a thousand runs its place is taken.
            continue;
        }
        let last = sizes.last().copied().unwrap_or(0);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let size = || std::fs::metadata(&file).map_or(0, |metadata| metadata.len());
        while size() <= last {
            assert!(std::time::Instant::now() < deadline, "{n} was not saved");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        sizes.push(size());
        if sizes.len() == 3 {
            break;
        }
    }
    assert_eq!(sizes.len(), 3);
    stop(node);
}
