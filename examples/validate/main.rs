//! The chainstate without a network: blocks on stdin, one JSON line each on stdout.
//!
//! ```text
//! cargo run --example validate -- --network regtest --clock 1700000000 < commands.txt
//! cargo run --example validate -- --network main blocks.dat < /dev/null
//! ```
//!
//! Commands, one a line: a block's hex; `header HEX`; `clock UNIX`; `invalidate HASH`; `reconsider HASH`.
//! Every line is answered by one JSON object: `cmd`, `hash` or null, `verdict` (`connected`, `side`,
//! `duplicate` or `rejected` for a block; `accepted` or `rejected` for a header; `ok` or `error` for the
//! rest), `reason` or null, and `tip` and `height` of the active chain afterwards. An answer implies that
//! all scripts of the active chain are proved.
//!
//! Exit code 0 at the end of the input, 1 after a failure of storage or worker, 2 for wrong usage.

mod files;
#[path = "../options/mod.rs"]
mod network;
mod options;

use headlong::chain::params::Params;
use headlong::chainstate::{self, BlockVerdict, ChainstateOptions, Front, Sources};
use headlong::error::Error;
use headlong::store::Store;
use headlong::store::block_files::{BlockFiles, BlockFilesOptions};
use headlong::store::datadir::Datadir;
use headlong::store::header_file::{HEADER_FILE, HeaderFile};
use headlong::store::medium::MemoryMedium;
use headlong::store::memory::MemoryStore;
use headlong::verify::interpreter::Interpreter;
use headlong::verify::pool::Pool;
use options::{Backend, Options, Parsed};
use serde_json::{Value, json};
use std::error::Error as StdError;
use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of sled's own cache: the coins cache stands before it.
const SLED_CACHE: u64 = 64 << 20;

type Failure = Box<dyn StdError>;

fn main() -> ExitCode {
    let options = match options::parse() {
        Ok(Parsed::Run(options)) => options,
        Ok(Parsed::Help) => {
            print!("{}", options::usage());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("validate: {error}\n\n{}", options::usage());
            return ExitCode::from(2);
        }
    };
    match run(*options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("validate: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<(), Failure> {
    let params = Arc::new(options.params);
    // Dropped last: it holds the lock of the data directory.
    let mut ground = Ground::open(options.backend, options.datadir, &params)?;
    let mut validator =
        Validator { front: ground.front(params.clone(), options.clock)?, clock: options.clock };
    let mut framed = Vec::new();
    for path in &options.files {
        let before = framed.len();
        files::scan(path, params.magic, &mut framed)?;
        eprintln!("{}: {} blocks", path.display(), framed.len() - before);
    }
    validator.framed(framed)?;
    let stdin = std::io::stdin();
    if options.files.is_empty() || !stdin.is_terminal() {
        let mut stdin = stdin.lock();
        let mut line = Vec::new();
        while stdin.read_until(b'\n', &mut line)? > 0 {
            let answer = validator.line(String::from_utf8_lossy(&line).trim())?;
            say(&answer)?;
            line.clear();
        }
    }
    validator.front.commit()?;
    if options.utxo_hash {
        say(&utxo_hash(&validator.front)?)?;
    }
    Ok(())
}

fn say(answer: &Value) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{answer}")?;
    out.flush()
}

fn utxo_hash(front: &Front) -> Result<Value, Failure> {
    let (stats, tip) = front.chainstate().utxo_stats()?;
    Ok(json!({
        "hash_serialized_3": stats.hash_serialized_3.to_string(),
        "muhash": network::display_hex(stats.muhash),
        "txouts": stats.txouts,
        "total_amount_sat": stats.total_amount_sat,
        "tip": tip.hash.to_string(),
        "height": tip.height,
    }))
}

/// What the chainstate stands on.
struct Ground {
    sources: Option<Sources>,
    _datadir: Option<Datadir>,
    _temporary: Option<tempfile::TempDir>,
}

impl Ground {
    fn open(
        backend: Backend,
        datadir: Option<std::path::PathBuf>,
        params: &Arc<Params>,
    ) -> Result<Self, Failure> {
        let mut temporary = None;
        let mut opened = None;
        let (store, blocks, (headers, loaded)): (Arc<dyn Store>, _, _) = match backend {
            Backend::Memory => {
                let headers = HeaderFile::with_medium(Arc::new(MemoryMedium::new()), HEADER_FILE)?;
                (Arc::new(MemoryStore::new()), BlockFiles::in_memory(), headers)
            }
            Backend::Sled => {
                let path = match datadir {
                    Some(path) => path,
                    None => temporary.insert(tempfile::tempdir()?).path().to_owned(),
                };
                let dir = opened.insert(Datadir::open(&path, params.magic, params.genesis_hash())?);
                let store = open_sled(dir)?;
                (store, dir.block_files(BlockFilesOptions::default())?, dir.header_file()?)
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let sources = Sources {
            params: params.clone(),
            store,
            blocks,
            headers,
            loaded,
            pool: Arc::new(Pool::new("check", threads, 1_024)?),
            verifier: Arc::new(Interpreter),
        };
        Ok(Self { sources: Some(sources), _datadir: opened, _temporary: temporary })
    }

    fn front(&mut self, params: Arc<Params>, clock: Option<u64>) -> Result<Front, Failure> {
        let sources = self.sources.take().ok_or("opened twice")?;
        debug_assert_eq!(sources.params.magic, params.magic);
        let mut key = [0; 16];
        getrandom::fill(&mut key).map_err(|error| error.to_string())?;
        let key = [0, 8].map(|at| key[at..at + 8].iter().fold(0, |n, byte| n << 8 | u64::from(*byte)));
        let opened = chainstate::open(sources, ChainstateOptions::default(), key)?;
        Ok(Front::new(opened, clock.unwrap_or_else(unix))?)
    }
}

#[cfg(feature = "sled")]
fn open_sled(dir: &Datadir) -> Result<Arc<dyn Store>, Failure> {
    let store = headlong::store::sled::SledStore::open(dir.coins_path("sled"), SLED_CACHE)?;
    Ok(Arc::new(store))
}

#[cfg(not(feature = "sled"))]
fn open_sled(_: &Datadir) -> Result<Arc<dyn Store>, Failure> {
    Err("built without the feature `sled`".into())
}

fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

struct Validator {
    front: Front,
    /// A fixed clock; the system's if there is none.
    clock: Option<u64>,
}

impl Validator {
    /// Takes the blocks of files; one whose parent is not known waits for it.
    fn framed(&mut self, blocks: Vec<files::FramedBlock>) -> Result<(), Failure> {
        let mut waiting = files::Waiting::default();
        for block in blocks {
            let mut next: Vec<_> = waiting.pass(block, self.front.tree()).into_iter().collect();
            while let Some(block) = next.pop() {
                say(&self.block(block.read()?)?)?;
                next.extend(waiting.children(&block.hash, self.front.tree()).into_iter().rev());
            }
        }
        for block in waiting.rest() {
            say(&self.block(block.read()?)?)?;
        }
        Ok(())
    }

    fn line(&mut self, line: &str) -> Result<Value, Error> {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match word {
            "header" => self.header(rest),
            "clock" => Ok(self.set_clock(rest)),
            "invalidate" | "reconsider" => self.mark(word, rest),
            _ => match options::from_hex(line) {
                Some(bytes) => self.block(bytes),
                None => Ok(self.answer("block", None, "rejected", Some("decode-failed".into()))),
            },
        }
    }

    fn block(&mut self, bytes: Vec<u8>) -> Result<Value, Error> {
        self.front.set_clock(self.clock.unwrap_or_else(unix));
        let (hash, verdict) = self.front.process_block(bytes)?;
        let (verdict, reason) = match verdict {
            BlockVerdict::Connected => ("connected", None),
            BlockVerdict::Side => ("side", None),
            BlockVerdict::Duplicate => ("duplicate", None),
            BlockVerdict::Rejected(reject) => {
                eprintln!("{}: {reject}", hash.map(|hash| hash.to_string()).unwrap_or_default());
                ("rejected", Some(reject.reason.to_owned()))
            }
            other => ("error", Some(format!("{other:?}"))),
        };
        Ok(self.answer("block", hash.map(|hash| hash.to_string()), verdict, reason))
    }

    fn header(&mut self, hex: &str) -> Result<Value, Error> {
        let header: Option<bitcoin::block::Header> =
            options::from_hex(hex).and_then(|bytes| bitcoin::consensus::deserialize(bytes.get(..80)?).ok());
        let Some(header) = header else {
            return Ok(self.answer("header", None, "rejected", Some("decode-failed".into())));
        };
        self.front.set_clock(self.clock.unwrap_or_else(unix));
        let (verdict, reason) = match self.front.process_header(&header)? {
            Ok(()) => ("accepted", None),
            Err(reject) => ("rejected", Some(reject.reason.to_owned())),
        };
        Ok(self.answer("header", Some(header.block_hash().to_string()), verdict, reason))
    }

    fn set_clock(&mut self, text: &str) -> Value {
        match text.parse() {
            Ok(unix) => {
                self.clock = Some(unix);
                self.answer("clock", None, "ok", None)
            }
            Err(_) => self.answer("clock", None, "error", Some("malformed".into())),
        }
    }

    fn mark(&mut self, command: &str, text: &str) -> Result<Value, Error> {
        let Ok(hash) = bitcoin::BlockHash::from_str(text) else {
            return Ok(self.answer(command, None, "error", Some("malformed".into())));
        };
        let known = match command {
            "invalidate" => self.front.invalidate(&hash)?,
            _ => self.front.reconsider(&hash)?,
        };
        let (verdict, reason) = if known { ("ok", None) } else { ("error", Some("unknown-block".into())) };
        Ok(self.answer(command, Some(hash.to_string()), verdict, reason))
    }

    fn answer(&self, command: &str, hash: Option<String>, verdict: &str, reason: Option<String>) -> Value {
        let tip = self.front.tip();
        json!({
            "cmd": command,
            "hash": hash,
            "verdict": verdict,
            "reason": reason,
            "tip": tip.hash.to_string(),
            "height": tip.height,
        })
    }
}
