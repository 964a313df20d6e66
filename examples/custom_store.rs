//! A store of one's own: coins in SQLite. Three methods and a mapping of errors are all that a node needs.
//!
//! ```sh
//! cargo run --release --example custom_store
//! ```
//!
//! It first runs the conformance suite against itself, children that are killed included, and then syncs a
//! generated chain from two peers on loopback: once into memory, once into SQLite. Both end with the same coins.

mod hosts;

use core::ops::Bound;
use headlong::store::conformance::{Backend, Suite, commit_until_killed};
use headlong::store::{Batch, Change, Durability, Entry, StoreErrorKind, Table};
use headlong::{Builder, Store, StoreError};
use parking_lot::Mutex;
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params, params_from_iter};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The file in the folder of a store.
const FILE: &str = "coins.sqlite";
/// The argument of the child process that the suite kills.
const CHILD: &str = "--child-of-the-suite";

/// One SQL table for each [`Table`]. SQLite compares blobs bytewise, which is the order that the contract asks
/// for; `WITHOUT ROWID` keeps the rows in it.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS meta   (k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS coins  (k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS blocks (k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS durable (n INTEGER NOT NULL);
    INSERT INTO durable SELECT 0 WHERE NOT EXISTS (SELECT * FROM durable);";

/// A connection may be used by one thread at a time. The lock also makes commits atomic for readers: none of
/// them sees the middle of one, nor two different states within one question.
#[derive(Debug)]
struct SqliteStore {
    connection: Mutex<Connection>,
}

impl SqliteStore {
    /// Opens the store in a folder. The write-ahead log makes buffered commits cheap: they are appended to it
    /// in order and not synced. The exclusive mode keeps other processes out: two nodes on the same coins would
    /// destroy them.
    fn open(folder: &Path) -> Result<Self, StoreError> {
        let open = || {
            let connection = Connection::open(folder.join(FILE))?;
            connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            connection.execute_batch(SCHEMA)?;
            connection.set_prepared_statement_cache_capacity(32);
            Ok(Self { connection: Mutex::new(connection) })
        };
        open().map_err(|error| failure("open", error))
    }
}

impl Store for SqliteStore {
    fn get_many(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let connection = self.connection.lock();
        let read = || -> rusqlite::Result<_> {
            let sql = format!("SELECT v FROM {} WHERE k = ?1", table.name());
            let mut statement = connection.prepare_cached(&sql)?;
            // An absent key is no error.
            keys.iter().map(|key| statement.query_row(params![key], |row| row.get(0)).optional()).collect()
        };
        read().map_err(|error| failure("read", error))
    }

    fn range(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut conditions = Vec::new();
        let mut values = Vec::new();
        for (bound, included, excluded) in [(from, ">=", ">"), (to, "<=", "<")] {
            let (operator, key) = match bound {
                Bound::Unbounded => continue,
                Bound::Included(key) => (included, key),
                Bound::Excluded(key) => (excluded, key),
            };
            values.push(Value::Blob(key.to_vec()));
            conditions.push(format!("k {operator} ?{}", values.len()));
        }
        values.push(Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
        let place = if conditions.is_empty() { "1".to_owned() } else { conditions.join(" AND ") };
        let (name, last) = (table.name(), values.len());
        let sql = format!("SELECT k, v FROM {name} WHERE {place} ORDER BY k LIMIT ?{last}");
        let connection = self.connection.lock();
        let read = || -> rusqlite::Result<_> {
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement.query_map(params_from_iter(values), |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        };
        read().map_err(|error| failure("read", error))
    }

    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        // Sizes are part of the contract: SQLite itself would take more.
        batch.check_sizes()?;
        let durable = durability == Durability::Durable;
        let mut connection = self.connection.lock();
        let mut write = || -> rusqlite::Result<()> {
            connection.pragma_update(None, "synchronous", if durable { "FULL" } else { "NORMAL" })?;
            // Dropped before its end, a transaction is rolled back: an error leaves the state before it.
            let transaction = connection.transaction()?;
            for change in batch.changes() {
                match change {
                    Change::Put(table, key, value) => {
                        let sql = format!("INSERT OR REPLACE INTO {} VALUES (?1, ?2)", table.name());
                        transaction.prepare_cached(&sql)?.execute(params![key, value])?;
                    }
                    Change::Delete(table, key) => {
                        let sql = format!("DELETE FROM {} WHERE k = ?1", table.name());
                        transaction.prepare_cached(&sql)?.execute(params![key])?;
                    }
                }
            }
            if durable {
                // A transaction that writes nothing syncs nothing, but an empty batch must make those before
                // it durable too: this write has the log synced, with all that it holds.
                transaction.execute("UPDATE durable SET n = n + 1", ())?;
            }
            transaction.commit()
        };
        write().map_err(|error| failure("commit", error))
    }
}

/// What can be done about an error of SQLite.
fn failure(doing: &str, error: rusqlite::Error) -> StoreError {
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreErrorKind::Full,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreErrorKind::Locked,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreErrorKind::Corrupt,
        Some(ErrorCode::TooBig) => StoreErrorKind::Unsupported,
        _ => StoreErrorKind::Transient,
    };
    StoreError { kind, context: format!("{doing} (SQLite)"), source: Some(Box::new(error)) }
}

/// What the conformance suite has to know.
struct Sqlite;

impl Backend for Sqlite {
    type Place = tempfile::TempDir;

    fn new_place(&self) -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary folder")
    }

    fn open(&self, place: &tempfile::TempDir) -> Result<Box<dyn Store>, StoreError> {
        Ok(Box::new(SqliteStore::open(place.path())?))
    }

    /// This program again; `main` knows the argument.
    fn child(&self, place: &tempfile::TempDir) -> Option<Command> {
        let mut command = Command::new(std::env::current_exe().ok()?);
        command.arg(CHILD).arg(place.path());
        Some(command)
    }
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|argument| argument == CHILD) {
        let folder = PathBuf::from(arguments.next().ok_or("a folder is missing")?);
        commit_until_killed(&SqliteStore::open(&folder)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = Suite::new(&Sqlite).run();
    print!("{report}");
    if !report.conforms() {
        return Ok(ExitCode::FAILURE);
    }
    let plan = hosts::Plan::demo()?;
    let in_memory = sync("memory", plan.builder())?;
    let folder = tempfile::tempdir()?;
    let store = SqliteStore::open(folder.path())?;
    // Blocks and headers lie in files of the data directory; coins are where the host wants them.
    let in_sqlite = sync("SQLite", plan.builder().datadir(folder.path().join("node")).store(store))?;
    let equal = in_memory == in_sqlite;
    println!("the coins are {}", if equal { "equal" } else { "NOT equal" });
    Ok(if equal { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs a node until it has synced; the hash of all its coins, as `gettxoutsetinfo` has it.
fn sync(name: &str, builder: Builder) -> Result<String, Box<dyn Error>> {
    let (node, handle) = builder.build()?;
    let running = std::thread::spawn(|| node.run_blocking());
    let tip = handle.wait_synced_blocking()?;
    let coins = handle.utxo_stats_blocking()?.value;
    handle.shutdown_blocking()?;
    running.join().map_err(|_| "the node panicked")??;
    let hash = coins.hash_serialized_3.to_string();
    println!("{name}: height {}, {} coins, {hash}", tip.height, coins.txouts);
    Ok(hash)
}
