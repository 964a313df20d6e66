//! A real bitcoind in regtest, started and stopped by a test.
//!
//! The program is `$BITCOIND_EXE`, or `bitcoind` on PATH, or is brought once from Debian's packages into the
//! target folder. Where none can be had, tests say so and pass, except in CI, where that is a failure.

#![allow(dead_code, reason = "each test uses a part")]

use bitcoin::Block;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// How long bitcoind may take to answer its first call.
const START: Duration = Duration::from_secs(60);
/// How often it is started anew before a test gives up.
const ATTEMPTS: usize = 3;

/// The program, found or fetched once per test process; `None` if it cannot be had.
pub fn program() -> Option<&'static Path> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    PROGRAM.get_or_init(find).as_deref()
}

fn find() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("BITCOIND_EXE") {
        return Some(path.into());
    }
    on_path("bitcoind").or_else(fetch)
}

/// A program on PATH.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file())
}

fn fetch() -> Option<PathBuf> {
    fetch_program("bitcoind")
}

/// A program that the script knows, from the target folder or from Debian's packages.
pub fn fetch_program(name: &str) -> Option<PathBuf> {
    // Tests run side by side: two that fetch into one folder at a time would fail each other.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let program = folder.join("bin").join(name);
    if !program.is_file() {
        let script = root.join("tests/interop/fetch-debian.sh");
        let done = Command::new("sh").arg(script).arg(&folder).arg(name).stdout(Stdio::null()).status();
        if !done.is_ok_and(|status| status.success()) {
            return None;
        }
    }
    program.is_file().then_some(program)
}

/// Whether the test can run; says loudly if it cannot, and fails in CI.
pub fn available() -> bool {
    let found = program().is_some();
    if !found {
        eprintln!("\n**** SKIPPED: no bitcoind (set BITCOIND_EXE, or put it on PATH) ****\n");
        assert!(std::env::var_os("CI").is_none(), "no bitcoind in CI");
    }
    found
}

/// A running bitcoind, in a temporary folder if it was given none.
pub struct Bitcoind {
    child: Child,
    options: Vec<String>,
    folder: PathBuf,
    _temporary: Option<tempfile::TempDir>,
    site: Site,
}

/// Where a bitcoind listens, and the command (with its arguments) that starts it there, if it needs one.
#[derive(Clone, Debug)]
pub struct Site {
    pub rpc: SocketAddr,
    pub p2p: SocketAddr,
    pub through: Vec<String>,
}

impl Site {
    /// Two ports that are free now; by the time bitcoind listens on them, another test may have taken one.
    fn free() -> Self {
        let listeners = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"));
        let [rpc, p2p] = listeners.map(|listener| listener.local_addr().expect("it is bound"));
        Self { rpc, p2p, through: Vec::new() }
    }
}

impl Bitcoind {
    /// Starts one with further options, on regtest unless they name a network.
    pub fn start(options: &[&str]) -> Self {
        let started = (0..ATTEMPTS).find_map(|_| {
            let folder = tempfile::tempdir().expect("a temporary folder");
            Self::try_start(folder.path().to_owned(), Some(folder), Site::free(), options)
        });
        started.expect("bitcoind answers")
    }

    /// The same in a folder that stays, and may hold what an earlier one left.
    pub fn start_in(folder: &Path, options: &[&str]) -> Self {
        let started =
            (0..ATTEMPTS).find_map(|_| Self::try_start(folder.to_owned(), None, Site::free(), options));
        started.expect("bitcoind answers")
    }

    /// The same at a place where nobody else listens.
    pub fn start_at(site: Site, folder: &Path, options: &[&str]) -> Self {
        Self::try_start(folder.to_owned(), None, site, options).expect("bitcoind answers")
    }

    /// One attempt; `None` if the process ended (a port was taken) or does not answer.
    fn try_start(
        folder: PathBuf,
        temporary: Option<tempfile::TempDir>,
        site: Site,
        options: &[&str],
    ) -> Option<Self> {
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let child = spawn(&folder, &site, &options);
        let mut node = Self { child, options, folder, _temporary: temporary, site };
        node.answers().then_some(node)
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the first answer; false if the process ended or does not answer.
    fn answers(&mut self) -> bool {
        let begun = Instant::now();
        while self.try_call("getblockcount", &json!([])).is_err() {
            let ended = self.child.try_wait().is_ok_and(|status| status.is_some());
            if ended || begun.elapsed() > START {
                eprintln!("bitcoind {}", if ended { "ended at once" } else { "does not answer" });
                return false;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        true
    }

    /// Shuts it down and starts it on the same folder and the same ports. While it is away, `meanwhile` runs.
    pub fn restart(&mut self, meanwhile: impl FnOnce()) {
        self.stop();
        meanwhile();
        self.child = spawn(&self.folder, &self.site, &self.options);
        assert!(self.answers(), "bitcoind comes up again");
    }

    /// Shuts it down in an orderly way.
    pub fn stop(&mut self) {
        self.call("stop", json!([]));
        let _ = self.child.wait();
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where its REST interface is, with `-rest=1`.
    pub fn rest(&self) -> SocketAddr {
        self.site.rpc
    }

    /// Where its peers connect.
    pub fn p2p(&self) -> SocketAddr {
        self.site.p2p
    }

    /// Calls a method; panics with bitcoind's error.
    pub fn call(&self, method: &str, parameters: Value) -> Value {
        self.try_call(method, &parameters).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Calls a method; the error is the text of what bitcoind says.
    pub fn try_call(&self, method: &str, parameters: &Value) -> Result<Value, String> {
        let cookie =
            std::fs::read_to_string(self.folder.join("cookie")).map_err(|error| error.to_string())?;
        let body = json!({"id": 0, "method": method, "params": parameters}).to_string();
        let answer = post(self.site.rpc, &cookie, &body).map_err(|error| error.to_string())?;
        let mut answer: Value =
            serde_json::from_str(&answer).map_err(|error| format!("{error}: {answer}"))?;
        match answer["error"].take() {
            Value::Null => Ok(answer["result"].take()),
            error => Err(error.to_string()),
        }
    }

    /// Several calls in one request, carried out in this order; an error is the text of what bitcoind says.
    pub fn batch(&self, calls: &[(&str, Value)]) -> Vec<Result<Value, String>> {
        let cookie = std::fs::read_to_string(self.folder.join("cookie")).expect("a cookie");
        let body: Vec<Value> = calls
            .iter()
            .map(|(method, parameters)| json!({"id": 0, "method": method, "params": parameters}))
            .collect();
        let answer = post(self.site.rpc, &cookie, &Value::Array(body).to_string()).expect("bitcoind answers");
        let answers: Vec<Value> = serde_json::from_str(&answer).expect("as many answers as calls");
        assert_eq!(answers.len(), calls.len());
        answers
            .into_iter()
            .map(|mut answer| match answer["error"].take() {
                Value::Null => Ok(answer["result"].take()),
                error => Err(error.to_string()),
            })
            .collect()
    }

    /// Submits blocks; each must be accepted or known.
    pub fn submit(&self, blocks: &[Block]) {
        for block in blocks {
            let hex = bitcoin::consensus::encode::serialize_hex(block);
            let answer = self.call("submitblock", json!([hex]));
            let fine = answer.is_null() || answer == "inconclusive" || answer == "duplicate";
            assert!(fine, "bitcoind refused a block: {answer}");
        }
    }

    /// The hash of its tip, in hex.
    pub fn tip(&self) -> String {
        self.call("getbestblockhash", json!([])).as_str().unwrap_or_default().to_owned()
    }

    /// What it says of its coins: `(hash_serialized_3, muhash, txouts)`.
    pub fn coins(&self) -> (String, String, u64) {
        let serialized = self.call("gettxoutsetinfo", json!(["hash_serialized_3"]));
        let muhash = self.call("gettxoutsetinfo", json!(["muhash"]));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (
            text(&serialized["hash_serialized_3"]),
            text(&muhash["muhash"]),
            serialized["txouts"].as_u64().unwrap_or_default(),
        )
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends it a signal by name (`STOP`, `CONT`).
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -{name}");
    }
}

impl Drop for Bitcoind {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(folder: &Path, site: &Site, options: &[String]) -> Child {
    let mut words: Vec<&OsStr> = site.through.iter().map(OsStr::new).collect();
    words.push(program().expect("checked by available()").as_os_str());
    Command::new(words[0])
        .args(&words[1..])
        .arg(format!("-datadir={}", folder.display()))
        .arg(format!("-rpcport={}", site.rpc.port()))
        .arg(format!("-bind={}", site.p2p))
        .arg(format!("-rpccookiefile={}", folder.join("cookie").display()))
        .arg(if options.iter().any(|option| option == "-signet") { "-signet" } else { "-regtest" })
        .args(["-server", "-listen=1", "-dnsseed=0", "-fixedseeds=0", "-listenonion=0"])
        .args(["-disablewallet", "-par=1", "-dbcache=50", "-printtoconsole=0"])
        .args(options)
        .stdout(Stdio::null())
        .spawn()
        .expect("bitcoind starts")
}

/// One HTTP/1.1 request; answers the body.
fn post(address: SocketAddr, cookie: &str, body: &str) -> std::io::Result<String> {
    use std::fmt::Write as _;
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    let mut request = String::new();
    let _ = write!(
        request,
        "POST / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        base64(cookie.as_bytes()),
        body.len(),
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    bytes
        .chunks(3)
        .flat_map(|chunk| {
            let bits =
                chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
            (0..4).map(move |i| match i <= chunk.len() {
                true => LETTERS[(bits >> (18 - 6 * i)) as usize & 63] as char,
                false => '=',
            })
        })
        .collect()
}
