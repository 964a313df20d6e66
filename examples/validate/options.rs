//! The command line of `validate`.

use super::network::{HELP as NETWORK_HELP, NetworkOptions};
use headlong::chain::params::Params;
use lexopt::prelude::*;
use std::path::PathBuf;

/// The text of `--help`.
pub fn usage() -> String {
    format!(
        "usage: validate [OPTIONS] [FRAMED FILES...]

Commands on stdin, one a line: a block's hex; header HEX; clock UNIX; invalidate HASH; reconsider HASH.
Framed files (magic, u32 LE length, block) are taken before. Options:
{NETWORK_HELP}
  --store sled|memory        (sled with --datadir, else memory)
  --datadir DIR
  --utxo-hash                a last line about all unspent outputs
"
    )
}

/// Where the coins are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Memory,
    Sled,
}

pub struct Options {
    pub params: Params,
    pub clock: Option<u64>,
    pub backend: Backend,
    pub datadir: Option<PathBuf>,
    pub utxo_hash: bool,
    pub files: Vec<PathBuf>,
}

pub enum Parsed {
    Run(Box<Options>),
    Help,
}

pub fn parse() -> Result<Parsed, lexopt::Error> {
    let mut network = NetworkOptions::default();
    let (mut backend, mut datadir, mut utxo_hash, mut files) = (None, None, false, Vec::new());
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("store") => {
                backend = Some(parser.value()?.parse_with(|name| match name {
                    "memory" => Ok(Backend::Memory),
                    "sled" => Ok(Backend::Sled),
                    _ => Err("expected sled or memory"),
                })?);
            }
            Long("datadir") => datadir = Some(PathBuf::from(parser.value()?)),
            Long("utxo-hash") => utxo_hash = true,
            Long("help") | Short('h') => return Ok(Parsed::Help),
            Long(name) => {
                let name = name.to_owned();
                if !network.take(&name, &mut parser)? {
                    return Err(Long(&name).unexpected());
                }
            }
            Value(file) => files.push(PathBuf::from(file)),
            other => return Err(other.unexpected()),
        }
    }
    if backend == Some(Backend::Memory) && datadir.is_some() {
        return Err("--store memory keeps nothing in a --datadir".into());
    }
    let usual = if datadir.is_some() { Backend::Sled } else { Backend::Memory };
    Ok(Parsed::Run(Box::new(Options {
        params: network.params()?,
        clock: network.clock,
        backend: backend.unwrap_or(usual),
        datadir,
        utxo_hash,
        files,
    })))
}

/// Bytes of a hexadecimal string; `None` for an empty one or any other.
pub fn from_hex(hex: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    if hex.is_empty() || !hex.len().is_multiple_of(2) {
        return None;
    }
    hex.as_bytes().chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}
