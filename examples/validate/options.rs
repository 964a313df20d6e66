//! The command line of `validate`.

use bitcoin::{BlockHash, ScriptBuf};
use headlong::chain::params::{Activation, Network, Params, RegtestOptions, VersionBitsOption};
use lexopt::prelude::*;
use std::path::PathBuf;
use std::str::FromStr;

pub const USAGE: &str = "\
usage: validate [OPTIONS] [FRAMED FILES...]

Commands on stdin, one a line: a block's hex; header HEX; clock UNIX; invalidate HASH; reconsider HASH.
Framed files (magic, u32 LE length, block) are taken before.

  --network main|testnet3|testnet4|signet|regtest   (main)
  --clock UNIX                 a fixed clock
  --activation NAME=HEIGHT     regtest, repeatable: segwit, bip34, dersig, cltv, csv
  --vbparams name:start:end[:min_height]            regtest, repeatable
  --bip94                      regtest
  --signet-challenge HEX       signet
  --minimum-chainwork HEX
  --assumevalid HASH|none
  --store sled|memory          (sled with --datadir, else memory)
  --datadir DIR
  --utxo-hash                  a last line about all unspent outputs
";

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

#[derive(Default)]
struct Given {
    network: Option<Network>,
    regtest: RegtestOptions,
    any_regtest: bool,
    challenge: Option<ScriptBuf>,
    minimum_work: Option<headlong::chain::work::ChainWork>,
    assume_valid: Option<Option<BlockHash>>,
    backend: Option<Backend>,
    datadir: Option<PathBuf>,
    clock: Option<u64>,
    utxo_hash: bool,
    files: Vec<PathBuf>,
}

pub fn parse() -> Result<Parsed, lexopt::Error> {
    let mut given = Given::default();
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("network") => given.network = Some(parser.value()?.parse()?),
            Long("clock") => given.clock = Some(parser.value()?.parse()?),
            Long("activation") => {
                given.regtest.activations.push(parser.value()?.parse::<Activation>()?);
                given.any_regtest = true;
            }
            Long("vbparams") => {
                given.regtest.version_bits.push(parser.value()?.parse::<VersionBitsOption>()?);
                given.any_regtest = true;
            }
            Long("bip94") => {
                given.regtest.bip94 = true;
                given.any_regtest = true;
            }
            Long("signet-challenge") => {
                let bytes = parser.value()?.parse_with(|hex| from_hex(hex).ok_or("not hexadecimal"))?;
                given.challenge = Some(ScriptBuf::from_bytes(bytes));
            }
            Long("minimum-chainwork") => given.minimum_work = Some(parser.value()?.parse()?),
            Long("assumevalid") => {
                given.assume_valid = Some(parser.value()?.parse_with(|text| match text {
                    "none" | "0" => Ok(None),
                    hash => BlockHash::from_str(hash).map(Some),
                })?);
            }
            Long("store") => {
                given.backend = Some(parser.value()?.parse_with(|name| match name {
                    "memory" => Ok(Backend::Memory),
                    "sled" => Ok(Backend::Sled),
                    _ => Err("expected sled or memory"),
                })?);
            }
            Long("datadir") => given.datadir = Some(parser.value()?.into()),
            Long("utxo-hash") => given.utxo_hash = true,
            Long("help") | Short('h') => return Ok(Parsed::Help),
            Value(file) => given.files.push(file.into()),
            other => return Err(other.unexpected()),
        }
    }
    given.finish().map(|options| Parsed::Run(Box::new(options)))
}

impl Given {
    fn finish(self) -> Result<Options, lexopt::Error> {
        let network = self.network.unwrap_or(Network::Main);
        if self.any_regtest && network != Network::Regtest {
            return Err("--activation, --vbparams and --bip94 are for regtest".into());
        }
        if self.challenge.is_some() && network != Network::Signet {
            return Err("--signet-challenge is for signet".into());
        }
        if self.backend == Some(Backend::Memory) && self.datadir.is_some() {
            return Err("--store memory keeps nothing in a --datadir".into());
        }
        let mut params = match (network, self.challenge) {
            (Network::Regtest, _) => Params::regtest(&self.regtest),
            (Network::Signet, Some(challenge)) => Params::signet(challenge),
            (network, _) => Params::new(network),
        };
        if let Some(work) = self.minimum_work {
            params = params.with_minimum_chain_work(work);
        }
        if let Some(block) = self.assume_valid {
            params = params.with_assume_valid(block);
        }
        let usual = if self.datadir.is_some() { Backend::Sled } else { Backend::Memory };
        Ok(Options {
            params,
            clock: self.clock,
            backend: self.backend.unwrap_or(usual),
            datadir: self.datadir,
            utxo_hash: self.utxo_hash,
            files: self.files,
        })
    }
}

/// Bytes of a hexadecimal string; `None` for an empty one or any other.
pub fn from_hex(hex: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    if hex.is_empty() || hex.len() % 2 != 0 {
        return None;
    }
    hex.as_bytes().chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

/// The hexadecimal string of bytes.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
