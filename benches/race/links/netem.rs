//! Links that the kernel makes: a veth pair each, from who syncs to a network namespace with a serving bitcoind, and on
//! both its ends `tc qdisc … netem`.
//!
//! 1. [`enter`] tries all of it once, by this program in new namespaces: root, `ip`, `tc`, `unshare` and a kernel with
//!    netem and veth are needed.
//! 2. It then starts this program anew in a network namespace and a mount namespace of its own, as the same process. What
//!    is made there has no name outside, meets nothing that was there before, and goes with the last process in it,
//!    however that ends.
//! 3. The serving bitcoinds are killed by the kernel when this program has ended.
//!
//! A segment that the network card would cut up counts as one packet with netem, and would get lost as a whole: the
//! ends take no such segments. A link that stalls loses everything from its far end on; what the near end sends
//! still arrives there. A thread looks every few milliseconds how many bytes have passed, so that some more may.

use super::{DELAY, LOSSES, Link};
use crate::bitcoind::Site;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Says that this program is in its namespaces.
const ENTERED: &str = "--in-namespaces";
/// Asks this program whether links can be made in the namespaces that it is in.
const TRIAL: &str = "--try-netem";
/// Between looks at how many bytes have passed.
const LOOK: Duration = Duration::from_millis(5);

fn is_told(option: &str) -> bool {
    std::env::args().any(|argument| argument == option)
}

pub fn is_entered() -> bool {
    is_told(ENTERED)
}

/// If this program is asked for a trial: answers by its end and says on standard output what failed.
pub fn answer_trial() -> bool {
    if is_told(TRIAL) {
        let outcome = prepare().and_then(|()| Wire::open(0, Link { megabits: 1, stalls_after: None }));
        let outcome = outcome.and_then(|wire| run(&format!("{} true", wire.site().through.join(" "))));
        if let Err(reason) = &outcome {
            println!("{reason}");
        }
        std::process::exit(i32::from(outcome.is_err()));
    }
    false
}

/// Starts this program anew in namespaces; comes back only with the reason why that is not possible.
pub fn enter() -> String {
    let own = std::env::current_exe().expect("a path");
    let unshare = |option| {
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--"]).arg(&own).args(["links", option]);
        command
    };
    match unshare(TRIAL).output() {
        Ok(tried) if tried.status.success() => format!("unshare: {}", unshare(ENTERED).exec()),
        Ok(tried) => {
            let said = [tried.stdout, tried.stderr].concat();
            String::from_utf8_lossy(&said).trim().to_owned()
        }
        Err(error) => format!("unshare: {error}"),
    }
}

/// Makes room for the names of namespaces and brings up the loopback, in new namespaces.
pub fn prepare() -> Result<(), String> {
    run("mkdir -p /run/netns")?;
    run("mount -t tmpfs tmpfs /run/netns")?;
    run("ip link set lo up")
}

/// Runs a command of words without spaces in them.
fn run(command: &str) -> Result<(), String> {
    let mut words = command.split(' ');
    let done = Command::new(words.next().unwrap_or_default()).args(words).output();
    match done {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => Err(format!("{command}: {}", String::from_utf8_lossy(&done.stderr).trim())),
        Err(error) => Err(format!("{command}: {error}")),
    }
}

/// A link with the namespace at its far end; both go with this value.
pub struct Wire {
    number: usize,
    stalls_after: Option<u64>,
    watch: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Wire {
    pub fn open(number: usize, link: Link) -> Result<Self, String> {
        // From here on it is taken down, too.
        let wire = Self { number, stalls_after: link.stalls_after, watch: None };
        let (near, far, namespace) = (wire.near(), wire.far(), wire.namespace());
        // What the kernel remembers of an earlier connection would help the later one.
        run("ip tcp_metrics flush")?;
        run(&format!("ip netns add {namespace}"))?;
        run(&format!("ip link add {near} type veth peer name {far} netns {namespace}"))?;
        let ends = [("", &near, wire.address(1)), (&*format!("-n {namespace} "), &far, wire.address(2))];
        for (at, end, address) in ends {
            run(&format!("ip {at}address add {address}/24 dev {end}"))?;
            run(&format!("ip {at}link set dev {end} gso_max_segs 1"))?;
            run(&format!("ip {at}link set dev {end} up"))?;
            let (delay, rate) = (DELAY.as_millis(), link.megabits);
            run(&format!(
                "tc {at}qdisc add dev {end} root netem delay {delay}ms loss {LOSSES}% rate {rate}mbit"
            ))?;
        }
        run(&format!("ip -n {namespace} link set lo up"))?;
        Ok(wire)
    }

    fn near(&self) -> String {
        format!("near{}", self.number)
    }

    fn far(&self) -> String {
        format!("far{}", self.number)
    }

    fn namespace(&self) -> String {
        format!("peer{}", self.number)
    }

    /// Of those for benchmarks (RFC 2544).
    fn address(&self, end: u8) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.number as u8, end)
    }

    /// Where the serving bitcoind runs.
    pub fn site(&self) -> Site {
        let through = format!("ip netns exec {} setpriv --pdeathsig KILL", self.namespace());
        let [rpc, p2p] = [18_443, 18_444].map(|port| SocketAddr::from((self.address(2), port)));
        Site { rpc, p2p, through: through.split(' ').map(str::to_owned).collect() }
    }

    /// What lets its calls through.
    pub fn reached(&self) -> [String; 2] {
        [format!("-rpcbind={}", self.address(2)), format!("-rpcallowip={}/24", self.address(0))]
    }

    /// Counts from now on the bytes after which nothing passes any more.
    pub fn count(&mut self) {
        let Some(most) = self.stalls_after else { return };
        let (near, stall) = (self.near(), format!("qdisc change dev {} root netem loss 100%\n", self.far()));
        // It waits for the word: a start at that moment would let more pass.
        let mut tc = Command::new("tc")
            .args(["-n", &self.namespace(), "-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("as tried before");
        let (sender, ended) = channel();
        let thread = std::thread::spawn(move || {
            let mut word = tc.stdin.take().expect("piped");
            let last = received(&near) + most;
            while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                if received(&near) >= last {
                    word.write_all(stall.as_bytes()).expect("it listens");
                    break;
                }
            }
            drop(word);
            assert!(tc.wait().is_ok_and(|status| status.success()), "tc makes the link stall");
        });
        self.watch = Some((sender, thread));
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some((ended, thread)) = self.watch.take() {
            drop(ended);
            let stalled = thread.join().is_ok();
            assert!(stalled || std::thread::panicking(), "the link should have stalled");
        }
        // What was never made can't be taken down.
        let _ = run(&format!("ip link delete {}", self.near()));
        let _ = run(&format!("ip netns delete {}", self.namespace()));
    }
}

/// Bytes that have come to this end.
fn received(end: &str) -> u64 {
    let all = std::fs::read_to_string("/proc/net/dev").expect("Linux");
    let line = all.lines().find_map(|line| line.trim_start().strip_prefix(end)?.strip_prefix(':'));
    let first = line.and_then(|line| line.split_whitespace().next());
    first.and_then(|number| number.parse().ok()).expect("an end of a link")
}
