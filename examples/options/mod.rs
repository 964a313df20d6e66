//! The command line options that `sync` and `validate` share: which network, with which rules, at what time.

use bitcoin::{BlockHash, ScriptBuf};
use headlong::chain::params::{Network, Params, RegtestOptions};
use headlong::chain::work::ChainWork;
use headlong::net::{Clock, SystemClock};
use lexopt::{Parser, ValueExt};
use std::time::Duration;

/// How the shared options are described by `--help`.
pub const HELP: &str = "\
  --network NAME             main, testnet3, testnet4, signet or regtest (default main)
  --signet-challenge HEX     a signet of one's own
  --activation NAME=HEIGHT   regtest: height of segwit, bip34, dersig, cltv or csv (repeatable)
  --vbparams SPEC            regtest: name:start:end[:min_height] of a version-bits deployment (repeatable)
  --bip94                    regtest: enforce BIP94
  --clock UNIX               what consensus takes for the present; stands still
  --minimum-chainwork HEX    work below which a chain is not believed
  --assumevalid HASH|none    scripts of this block's ancestors are not executed";

/// What the shared options say.
#[derive(Debug, Default)]
pub struct NetworkOptions {
    network: Option<Network>,
    challenge: Option<ScriptBuf>,
    regtest: RegtestOptions,
    minimum_chain_work: Option<ChainWork>,
    assume_valid: Option<Option<BlockHash>>,
    /// Fixed Unix time for consensus, if given.
    pub clock: Option<u64>,
}

impl NetworkOptions {
    /// Takes one long option if it is a shared one.
    ///
    /// # Errors
    /// A value that cannot be read.
    pub fn take(&mut self, name: &str, parser: &mut Parser) -> Result<bool, lexopt::Error> {
        match name {
            "network" => self.network = Some(parser.value()?.parse()?),
            "signet-challenge" => {
                self.challenge = Some(parser.value()?.parse_with(ScriptBuf::from_hex)?);
            }
            "activation" => self.regtest.activations.push(parser.value()?.parse()?),
            "vbparams" => self.regtest.version_bits.push(parser.value()?.parse()?),
            "bip94" => self.regtest.bip94 = true,
            "clock" => self.clock = Some(parser.value()?.parse()?),
            "minimum-chainwork" => self.minimum_chain_work = Some(parser.value()?.parse()?),
            "assumevalid" => {
                let value = parser.value()?.string()?;
                self.assume_valid = Some(match value.as_str() {
                    "none" | "0" => None,
                    hash => Some(hash.parse().map_err(|_| format!("not a block hash: {hash}"))?),
                });
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The parameters that the options lead to.
    ///
    /// # Errors
    /// Options of another network.
    pub fn params(&self) -> Result<Params, lexopt::Error> {
        let network = self.network.unwrap_or(Network::Main);
        if network != Network::Regtest && self.regtest != RegtestOptions::default() {
            return Err("--activation, --vbparams and --bip94 are for regtest".into());
        }
        let mut params = match (network, &self.challenge) {
            (Network::Signet, Some(challenge)) => Params::signet(challenge.clone()),
            (_, Some(_)) => return Err("--signet-challenge is for signet".into()),
            (Network::Regtest, None) => Params::regtest(&self.regtest),
            (network, None) => Params::new(network),
        };
        if let Some(work) = self.minimum_chain_work {
            params = params.with_minimum_chain_work(work);
        }
        if let Some(block) = self.assume_valid {
            params = params.with_assume_valid(block);
        }
        Ok(params)
    }
}

/// A clock whose Unix time stands still while its timers run.
#[derive(Debug)]
pub struct FixedClock {
    timers: SystemClock,
    unix: u64,
}

impl FixedClock {
    /// A clock that stands at this Unix time.
    #[allow(dead_code, reason = "validate sets its time itself")]
    pub fn new(unix: u64) -> Self {
        Self { timers: SystemClock::new(), unix }
    }
}

impl Clock for FixedClock {
    fn monotonic(&self) -> Duration {
        self.timers.monotonic()
    }

    fn unix(&self) -> u64 {
        self.unix
    }
}

/// 32 bytes as Core displays a hash: hexadecimal, the last byte first.
pub fn display_hex(mut bytes: [u8; 32]) -> String {
    bytes.reverse();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
