//! Through a real SOCKS5 server (microsocks), and nowhere else.

use super::{PATIENCE, Sync, extend, forge};
use crate::bitcoind::{Bitcoind, available, fetch_program, on_path};
use futures::future::BoxFuture;
use headlong::net::native::NativeTransport;
use headlong::net::{BoxStream, Gateway, Listener, Transport};
use headlong::relay::reach::{ReachReply, ReachRequest};
use headlong::{Builder, MemoryStore, Network, PeerAddress};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A SOCKS5 server on loopback.
struct Microsocks {
    child: Child,
    address: SocketAddr,
}

impl Microsocks {
    /// `None` if it can't be had; in CI that is a failure.
    fn start() -> Option<Self> {
        let Some(program) = on_path("microsocks").or_else(|| fetch_program("microsocks")) else {
            eprintln!("\n**** SKIPPED: no microsocks ****\n");
            assert!(std::env::var_os("CI").is_none(), "no microsocks in CI");
            return None;
        };
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let child = Command::new(program)
            .args(["-i", "127.0.0.1", "-p", &address.port().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("microsocks starts");
        let server = Self { child, address };
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(begun.elapsed() < PATIENCE, "microsocks does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(server)
    }
}

impl Drop for Microsocks {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The usual sockets, with a record of where they went and what was looked up.
#[derive(Clone, Debug, Default)]
struct Watched(Arc<Mutex<Vec<String>>>);

impl Watched {
    fn note(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }
}

impl Transport for Watched {
    fn dial(&self, address: &PeerAddress) -> BoxFuture<'static, io::Result<BoxStream>> {
        self.note(address.to_string());
        NativeTransport::new().dial(address)
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        self.note(format!("listen on {address}"));
        NativeTransport::new().listen(address)
    }

    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        self.note(format!("look {host} up"));
        NativeTransport::new().resolve(host, port)
    }
}

/// Gateways and STUN servers are past the proxy, too.
impl Gateway for Watched {
    fn ask(&self, request: ReachRequest) -> BoxFuture<'static, io::Result<ReachReply>> {
        self.note(format!("ask {request:?}"));
        Box::pin(async { Err(io::Error::other("nobody is there")) })
    }
}

fn start(builder: Builder) -> Sync {
    Sync::run(builder.threads(2).store(MemoryStore::new()))
}

#[test]
fn syncs_through_a_proxy_that_resolves_the_name_and_connects_to_nothing_else() {
    if !available() {
        return;
    }
    let Some(proxy) = Microsocks::start() else { return };
    let (mut forge, mut branch) = forge(41, 130);
    let node = Bitcoind::start(&[]);
    node.submit(&extend(&mut forge, &mut branch, 120, 6));
    let watched = Watched::default();
    let sync = start(
        Builder::new(Network::Regtest)
            .transport(watched.clone())
            .proxy(proxy.address)
            .connect(PeerAddress::Name("localhost".into(), node.p2p().port())),
    );
    sync.reach(&node.tip());
    sync.assert_same_coins(&node);
    sync.stop();
    let went = watched.0.lock().unwrap().clone();
    assert!(!went.is_empty() && went.iter().all(|to| *to == proxy.address.to_string()), "{went:?}");
}

/// A node that looks for peers by itself asks seeds, dials addresses that it was given, of Tor too, and those that come with
/// the program: all of it goes to the proxy.
#[test]
fn nothing_that_looks_for_peers_goes_past_the_proxy() {
    let Some(proxy) = Microsocks::start() else { return };
    let watched = Watched::default();
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let node = |watched: &Watched| {
        let builder = Builder::new(Network::Signet).transport(watched.clone()).gateway(watched.clone());
        builder.listen(everywhere)
    };
    let sync = start(node(&watched).proxy(proxy.address));
    let onion = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion:38333";
    let known = ["203.0.113.1:38333", "127.0.0.1:1", onion].map(|text| text.parse().unwrap());
    sync.handle.add_addresses_blocking(known.to_vec()).unwrap();
    let begun = Instant::now();
    while watched.0.lock().unwrap().len() < 5 {
        assert!(begun.elapsed() < PATIENCE, "it looks for nobody: {:?}", watched.0.lock().unwrap());
        std::thread::sleep(Duration::from_millis(50));
    }
    sync.stop();
    let went = watched.0.lock().unwrap().clone();
    let allowed = [proxy.address.to_string(), format!("listen on {everywhere}")];
    assert!(went.iter().all(|to| allowed.contains(to)), "{went:?}");
    let stun = || PeerAddress::Ip(([192, 0, 2, 1], 3_478).into());
    assert!(
        node(&watched).proxy(proxy.address).stun_servers([stun()]).build().is_err(),
        "nor is that promised"
    );

    // The same node without the proxy is noticed.
    let watched = Watched::default();
    let sync = start(node(&watched).dns(false).fixed_seeds(false).stun_servers([stun()]));
    for asked in ["ask Local", "ask Map { by: Pcp", "ask Map { by: NatPmp", "ask Observe"] {
        let begun = Instant::now();
        while !watched.0.lock().unwrap().iter().any(|what| what.starts_with(asked)) {
            assert!(begun.elapsed() < PATIENCE, "{asked}: {:?}", watched.0.lock().unwrap());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    sync.stop();
}
