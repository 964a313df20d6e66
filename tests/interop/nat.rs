//! Through a real gateway (miniupnpd) and past a real STUN server (coturn), in network namespaces of Linux: a machine behind
//! the gateway, the gateway, and the Internet. Needs root, `ip` and the kernel's nftables; where these are missing, the tests
//! say so and pass, in CI too.
//!
//! A test runs its own program again inside the namespaces, with its part in `HEADLONG_NETNS`.

use super::{PATIENCE, Sync};
use crate::bitcoind::{fetch_program, on_path};
use futures::future::BoxFuture;
use headlong::net::Gateway;
use headlong::net::native::NativeGateway;
use headlong::relay::reach::{ReachReply, ReachRequest};
use headlong::{Builder, MemoryStore, Network, PeerAddress, ReachMethod};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Tells the program inside a namespace what to do.
const PART: &str = "HEADLONG_NETNS";
/// The gateway's address on the Internet of these tests, and that of the STUN server there.
const OUTER: &str = "88.1.2.3";
const SERVER: &str = "88.1.2.1:3478";

/// miniupnpd's own chains, a firewall that lets nobody in, and address translation.
const RULES: &str = r#"table inet filter {
  chain miniupnpd {
  }
  chain prerouting_miniupnpd {
  }
  chain postrouting_miniupnpd {
  }
  chain forward {
    type filter hook forward priority 0; policy drop;
    jump miniupnpd
    ct state established,related accept
    iifname "lan0" accept
  }
  chain prerouting {
    type nat hook prerouting priority -100; policy accept;
    jump prerouting_miniupnpd
  }
  chain postrouting {
    type nat hook postrouting priority 100; policy accept;
    jump postrouting_miniupnpd
    oifname "wan0" masquerade
  }
}
"#;

const CONFIGURATION: &str = "ext_ifname=wan0
listening_ip=lan0
http_port=0
enable_pcp_pmp=yes
enable_upnp=yes
secure_mode=yes
uuid=6f1c1f0e-0000-4000-8000-000000000001
upnp_table_name=filter
upnp_nat_table_name=filter
upnp_forward_chain=miniupnpd
upnp_nat_chain=prerouting_miniupnpd
upnp_nat_postrouting_chain=postrouting_miniupnpd
allow 1024-65535 192.168.77.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
";

/// A program on PATH or from Debian's packages; `None` if it can't be had, which in CI is a failure.
fn program(name: &str) -> Option<PathBuf> {
    let found = on_path(name).or_else(|| fetch_program(name));
    if found.is_none() {
        eprintln!("\n**** SKIPPED: no {name} ****\n");
        assert!(std::env::var_os("CI").is_none(), "no {name} in CI");
    }
    found
}

fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).output().is_ok_and(|output| output.status.success())
}

/// The three namespaces; they go with all that runs in them.
struct Net {
    name: String,
    children: Vec<Child>,
    folder: tempfile::TempDir,
}

impl Net {
    /// `None`, said loudly, where the machine does not allow it.
    fn new(nft: Option<&Path>) -> Option<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("headlong{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let net = Self { name, children: Vec::new(), folder: tempfile::tempdir().unwrap() };
        let made = net.wire() && nft.is_none_or(|nft| net.fill(nft));
        if !made {
            eprintln!(
                "\n**** SKIPPED: no network namespaces or no nftables here (root and Linux are needed) ****\n"
            );
        }
        made.then_some(net)
    }

    fn namespace(&self, part: &str) -> String {
        format!("{}{part}", self.name)
    }

    fn wire(&self) -> bool {
        let [lan, gateway, wan] = ["lan", "gw", "wan"].map(|part| self.namespace(part));
        let ip = |words: &str| succeeds(Command::new("ip").args(words.split(' ')));
        [&lan, &gateway, &wan]
            .iter()
            .all(|name| ip(&format!("netns add {name}")) && ip(&format!("-n {name} link set lo up")))
            && [
                format!("-n {gateway} link add lan0 type veth peer name eth0 netns {lan}"),
                format!("-n {gateway} link add wan0 type veth peer name eth0 netns {wan}"),
                format!("-n {gateway} addr add 192.168.77.1/24 dev lan0"),
                format!("-n {gateway} addr add {OUTER}/24 dev wan0"),
                format!("-n {lan} addr add 192.168.77.2/24 dev eth0"),
                format!("-n {wan} addr add 88.1.2.1/24 dev eth0"),
                format!("-n {gateway} link set lan0 up"),
                format!("-n {gateway} link set wan0 up"),
                format!("-n {lan} link set eth0 up"),
                format!("-n {wan} link set eth0 up"),
                format!("-n {lan} route add default via 192.168.77.1"),
            ]
            .iter()
            .all(|words| ip(words))
            && succeeds(
                self.inside("gw", Path::new("sh")).args(["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]),
            )
    }

    fn fill(&self, nft: &Path) -> bool {
        let rules = self.folder.path().join("rules");
        std::fs::write(&rules, RULES).unwrap();
        succeeds(self.inside("gw", nft).arg("-f").arg(rules))
    }

    /// A command inside a namespace.
    fn inside(&self, part: &str, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(part)]).arg(program);
        command
    }

    fn run(&mut self, mut command: Command) {
        self.children.push(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    }

    /// miniupnpd on the gateway.
    fn start_gateway(&mut self, miniupnpd: &Path) {
        let file = self.folder.path().join("configuration");
        let lease = self.folder.path().join("pid");
        std::fs::write(&file, CONFIGURATION).unwrap();
        let mut command = self.inside("gw", miniupnpd);
        command.arg("-d").arg("-f").arg(file).arg("-P").arg(lease);
        self.run(command);
        // A node that asks too early asks again after a minute.
        for port in [5_351, 1_900] {
            self.wait_for_port("gw", port);
        }
    }

    /// coturn on the Internet.
    fn start_stun(&mut self, turnserver: &Path) {
        let mut command = self.inside("wan", turnserver);
        command.args([
            "-n",
            "--stun-only",
            "-L",
            "88.1.2.1",
            "-p",
            "3478",
            "--log-file",
            "stdout",
            "--pidfile",
        ]);
        command.arg(self.folder.path().join("pid"));
        self.run(command);
        self.wait_for_port("wan", 3_478);
    }

    /// Until somebody has this UDP port.
    fn wait_for_port(&self, part: &str, port: u16) {
        let begun = Instant::now();
        loop {
            let table = self.inside(part, Path::new("cat")).arg("/proc/net/udp").output().unwrap();
            if String::from_utf8_lossy(&table.stdout).contains(&format!(":{port:04X} ")) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "nobody has port {port}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// This test again, in a namespace.
    fn again(&self, part: &str, test: &str, what: &str) -> Command {
        let mut command = self.inside(part, &std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture"]).env(PART, what);
        command
    }

    /// Whether a connection from the Internet reaches a node.
    fn is_reached(&self, test: &str, address: &str) -> bool {
        succeeds(&mut self.again("wan", test, &format!("visit {address}")))
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        for part in ["lan", "gw", "wan"] {
            let _ = Command::new("ip").args(["netns", "del", &self.namespace(part)]).output();
        }
    }
}

/// The usual questions, but to this way only.
#[derive(Debug)]
struct Only(ReachMethod);

impl Gateway for Only {
    fn ask(&self, request: ReachRequest) -> BoxFuture<'static, io::Result<ReachReply>> {
        match request {
            ReachRequest::Map { by, .. } if by != self.0 => {
                Box::pin(async { Err(io::Error::other("not in this test")) })
            }
            request => NativeGateway::new().ask(request),
        }
    }
}

/// What the program does inside a namespace; `false` outside.
fn plays_its_part(builder: impl FnOnce(Builder) -> Builder) -> bool {
    let Ok(part) = std::env::var(PART) else { return false };
    if let Some(address) = part.strip_prefix("visit ") {
        let timeout = Duration::from_millis(1_500);
        let mut stream =
            TcpStream::connect_timeout(&address.parse().unwrap(), timeout).expect("it is reached");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // A version message of regtest brings one back.
        let version = "fabfb5da76657273696f6e000000000056000000";
        let mut bytes: Vec<u8> = bitcoin::hex::FromHex::from_hex(version).unwrap();
        let mut payload = vec![0; 86];
        payload[..4].copy_from_slice(&70_016u32.to_le_bytes());
        payload[72] = 9;
        let sum = <bitcoin::hashes::sha256d::Hash as bitcoin::hashes::Hash>::hash(&payload);
        bytes.extend(&bitcoin::hashes::Hash::to_byte_array(sum)[..4]);
        bytes.extend(payload);
        stream.write_all(&bytes).unwrap();
        let mut head = [0; 16];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(head[4..11], *b"version");
        return true;
    }
    let node =
        Builder::new(Network::Regtest).threads(1).store(MemoryStore::new()).dns(false).fixed_seeds(false);
    let node = node.listen((Ipv4Addr::UNSPECIFIED, 0).into()).encrypt(false);
    let sync = Sync::run(builder(node));
    let begun = Instant::now();
    let own = loop {
        let reach = sync.handle.status().reach;
        if let Some(own) = reach.addresses.first() {
            break own.clone();
        }
        assert!(begun.elapsed() < PATIENCE, "{reach:?}");
        std::thread::sleep(Duration::from_millis(20));
    };
    println!("\nreached {} {} {}", own.address, own.by, sync.handle.listening()[0].port());
    let _ = io::stdin().read_line(&mut String::new());
    sync.stop();
    true
}

/// A node behind the gateway.
struct Inner {
    child: Child,
    output: BufReader<ChildStdout>,
    address: String,
    by: String,
    /// The port that listens.
    port: String,
}

fn node(net: &Net, test: &str) -> Inner {
    let mut command = net.again("lan", test, "node");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let lines = output.by_ref().lines().map_while(Result::ok);
    let line = { lines }.find(|line| line.starts_with("reached ")).expect("it is reached");
    let mut words = line.split(' ').skip(1).map(str::to_owned);
    let mut word = || words.next().unwrap();
    let (address, by, port) = (word(), word(), word());
    Inner { child, output, address, by, port }
}

impl Inner {
    fn end(mut self) {
        self.child.stdin.take().unwrap().write_all(b"\n").unwrap();
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success(), "{rest}");
    }
}

/// A node behind miniupnpd finds a mapping by one way; the Internet reaches it there, and after its end no more.
fn maps(test: &str, by: ReachMethod, options: impl FnOnce(Builder) -> Builder) {
    if plays_its_part(|builder| options(builder.gateway(Only(by)))) {
        return;
    }
    let Some(miniupnpd) = program("miniupnpd") else { return };
    let nft = on_path("nft").unwrap_or_else(|| miniupnpd.with_file_name("nft"));
    let Some(mut net) = Net::new(Some(&nft)) else { return };
    net.start_gateway(&miniupnpd);
    let node = node(&net, test);
    let address = node.address.clone();
    assert_eq!(node.by, by.to_string());
    assert!(address.starts_with(OUTER), "{address}");
    assert!(net.is_reached(test, &address), "{address} is reached from the Internet");
    node.end();
    assert!(!net.is_reached(test, &address), "the mapping is taken back");
}

#[test]
fn miniupnpd_maps_by_pcp() {
    maps("nat::miniupnpd_maps_by_pcp", ReachMethod::Pcp, |builder| builder);
}

#[test]
fn miniupnpd_maps_by_nat_pmp() {
    maps("nat::miniupnpd_maps_by_nat_pmp", ReachMethod::NatPmp, |builder| builder);
}

#[cfg(feature = "upnp")]
#[test]
fn miniupnpd_maps_by_upnp() {
    maps("nat::miniupnpd_maps_by_upnp", ReachMethod::Upnp, |builder| builder.map_ports(false).upnp(true));
}

#[test]
fn coturn_sees_the_gateway_that_maps_nothing() {
    let test = "nat::coturn_sees_the_gateway_that_maps_nothing";
    if plays_its_part(|builder| builder.stun_servers([SERVER.parse().unwrap()])) {
        return;
    }
    let (Some(turnserver), Some(miniupnpd)) = (program("turnserver"), program("miniupnpd")) else { return };
    let nft = on_path("nft").unwrap_or_else(|| miniupnpd.with_file_name("nft"));
    let Some(mut net) = Net::new(Some(&nft)) else { return };
    net.start_stun(&turnserver);
    let node = node(&net, test);
    assert_eq!((&node.address, node.by.as_str()), (&format!("{OUTER}:{}", node.port), "STUN"));
    node.end();
}

#[test]
fn coturn_on_loopback_says_what_it_sees() {
    let Some(turnserver) = program("turnserver") else { return };
    let folder = tempfile::tempdir().unwrap();
    let port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let mut child = Command::new(turnserver)
        .args([
            "-n",
            "--stun-only",
            "-L",
            "127.0.0.1",
            "-p",
            &port.to_string(),
            "--log-file",
            "stdout",
            "--pidfile",
        ])
        .arg(folder.path().join("pid"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let server = PeerAddress::Ip((Ipv4Addr::LOCALHOST, port).into());
    let listening: SocketAddr = ([127, 0, 0, 1], 8_333).into();
    let begun = Instant::now();
    let seen = loop {
        let request =
            ReachRequest::Observe { server: server.clone(), listening, transaction: *b"transaction!" };
        match smol::block_on(NativeGateway::new().ask(request)) {
            Ok(seen) => break Ok(seen),
            Err(error) if begun.elapsed() > PATIENCE => break Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let _ = child.kill();
    let _ = child.wait();
    assert_eq!(seen.unwrap().address.ip(), listening.ip());
}
