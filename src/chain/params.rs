//! Parameters of the five networks, with the values of Bitcoin Core 31.99 (`kernel/chainparams.cpp`).
//!
//! Only what consensus and synchronisation need: no address prefixes, fixed seeds or snapshots.
//! Deployments that Core has buried (BIPs 34, 65, 66, CSV, segwit) are heights; taproot is enforced for
//! every block but one and has no record any more; the only version-bits deployment left is `testdummy`,
//! which changes no rule.

use super::deployments::ScriptFlags;
use super::fixed_seeds;
use super::tx_counts::{self, TxCounts};
use super::work::{ChainWork, Target};
use bitcoin::block::Header;
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::{Block, BlockHash, ScriptBuf, constants::genesis_block, hex::FromHex};
use core::fmt;
use core::str::FromStr;

/// The networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Network {
    /// Bitcoin.
    Main,
    /// The third test network.
    Testnet3,
    /// The fourth test network (BIP94).
    Testnet4,
    /// BIP325, the default one or one with its own challenge.
    Signet,
    /// A private network without difficulty.
    Regtest,
}

impl Network {
    /// All networks.
    pub const ALL: [Self; 5] = [Self::Main, Self::Testnet3, Self::Testnet4, Self::Signet, Self::Regtest];

    /// `main`, `testnet3`, `testnet4`, `signet` or `regtest`; stable, fit for file names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Testnet3 => "testnet3",
            Self::Testnet4 => "testnet4",
            Self::Signet => "signet",
            Self::Regtest => "regtest",
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Network {
    type Err = ParamsError;

    /// A [`Network::name`], or Core's spellings `mainnet`, `bitcoin`, `test`, `testnet`.
    fn from_str(name: &str) -> Result<Self, ParamsError> {
        match name {
            "main" | "mainnet" | "bitcoin" => Ok(Self::Main),
            "testnet3" | "testnet" | "test" => Ok(Self::Testnet3),
            "testnet4" => Ok(Self::Testnet4),
            "signet" => Ok(Self::Signet),
            "regtest" => Ok(Self::Regtest),
            _ => Err(ParamsError::Network(name.into())),
        }
    }
}

/// A string that should have named a parameter does not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParamsError {
    /// No such network.
    #[error("unknown network {0:?}: expected main, testnet3, testnet4, signet or regtest")]
    Network(String),
    /// An activation is not `NAME=HEIGHT`.
    #[error("malformed activation {0:?}: expected NAME=HEIGHT")]
    Activation(String),
    /// No deployment of this name can be set.
    #[error("unknown deployment {0:?}")]
    Deployment(String),
    /// A height is not a number from 0 to 2^31 - 2.
    #[error("invalid height {0:?}")]
    Height(String),
    /// Version-bits parameters are not `name:start:end[:min_height]`.
    #[error("malformed version-bits parameters {0:?}: expected name:start:end[:min_height]")]
    VersionBits(String),
    /// A time is not a whole number of seconds.
    #[error("invalid time {0:?}")]
    Time(String),
}

/// A rule change that activates at a fixed height.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum BuriedDeployment {
    /// BIP34: the height in the coinbase.
    HeightInCoinbase,
    /// BIP66: strict DER signatures.
    DerSig,
    /// BIP65: `OP_CHECKLOCKTIMEVERIFY`.
    Cltv,
    /// BIPs 68, 112 and 113: relative lock times.
    Csv,
    /// BIPs 141, 143 and 147: segregated witness.
    Segwit,
}

impl FromStr for BuriedDeployment {
    type Err = ParamsError;

    /// `segwit`, `bip34`, `dersig`, `cltv` or `csv`, as Core's `-testactivationheight`.
    fn from_str(name: &str) -> Result<Self, ParamsError> {
        match name {
            "segwit" => Ok(Self::Segwit),
            "bip34" => Ok(Self::HeightInCoinbase),
            "dersig" => Ok(Self::DerSig),
            "cltv" => Ok(Self::Cltv),
            "csv" => Ok(Self::Csv),
            _ => Err(ParamsError::Deployment(name.into())),
        }
    }
}

/// The heights at which buried deployments are in force (from this block on).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BuriedHeights {
    /// BIP34.
    pub bip34: u32,
    /// BIP65.
    pub cltv: u32,
    /// BIP66.
    pub dersig: u32,
    /// BIPs 68, 112 and 113.
    pub csv: u32,
    /// BIPs 141, 143 and 147.
    pub segwit: u32,
}

impl BuriedHeights {
    /// The height of one deployment.
    pub const fn of(&self, deployment: BuriedDeployment) -> u32 {
        match deployment {
            BuriedDeployment::HeightInCoinbase => self.bip34,
            BuriedDeployment::DerSig => self.dersig,
            BuriedDeployment::Cltv => self.cltv,
            BuriedDeployment::Csv => self.csv,
            BuriedDeployment::Segwit => self.segwit,
        }
    }

    fn set(&mut self, activation: Activation) {
        let field = match activation.deployment {
            BuriedDeployment::HeightInCoinbase => &mut self.bip34,
            BuriedDeployment::DerSig => &mut self.dersig,
            BuriedDeployment::Cltv => &mut self.cltv,
            BuriedDeployment::Csv => &mut self.csv,
            BuriedDeployment::Segwit => &mut self.segwit,
        };
        *field = activation.height;
    }
}

/// A buried deployment's height on a regtest network, as in `segwit=200`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Activation {
    /// Which deployment.
    pub deployment: BuriedDeployment,
    /// The first height at which it is in force.
    pub height: u32,
}

impl FromStr for Activation {
    type Err = ParamsError;

    /// `NAME=HEIGHT`; Core's `NAME@HEIGHT` is understood too.
    fn from_str(text: &str) -> Result<Self, ParamsError> {
        let (name, height) =
            text.split_once(['=', '@']).ok_or_else(|| ParamsError::Activation(text.into()))?;
        // Core excludes its largest int.
        let height = integer(height)
            .and_then(|height| u32::try_from(height).ok())
            .filter(|height| *height < i32::MAX as u32)
            .ok_or_else(|| ParamsError::Height(height.into()))?;
        Ok(Self { deployment: name.parse()?, height })
    }
}

/// A rule change that activates by signalling in the version (BIP9, with BIP8's least height).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum VersionBitsDeployment {
    /// Changes no rule; exists so that the machinery is exercised.
    TestDummy,
}

impl FromStr for VersionBitsDeployment {
    type Err = ParamsError;

    /// `testdummy`.
    fn from_str(name: &str) -> Result<Self, ParamsError> {
        match name {
            "testdummy" => Ok(Self::TestDummy),
            _ => Err(ParamsError::Deployment(name.into())),
        }
    }
}

/// How a version-bits deployment activates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct VersionBits {
    /// The bit of the version, 0 to 28.
    pub bit: u8,
    /// Median time past (Unix seconds) from which blocks may signal; see [`VersionBits::ALWAYS_ACTIVE`]
    /// and [`VersionBits::NEVER_ACTIVE`].
    pub start: i64,
    /// Median time past (Unix seconds) at which the attempt fails.
    pub timeout: i64,
    /// Not active below this height, even if locked in.
    pub min_activation_height: i64,
    /// Blocks of a period.
    pub period: u32,
    /// Signalling blocks of a period that lock it in.
    pub threshold: u32,
}

impl VersionBits {
    /// A `start` that means: in force from the genesis block on.
    pub const ALWAYS_ACTIVE: i64 = -1;
    /// A `start` that means: never in force.
    pub const NEVER_ACTIVE: i64 = -2;
    /// A `timeout` that never comes.
    pub const NO_TIMEOUT: i64 = i64::MAX;
}

/// Parameters of a version-bits deployment on a regtest network, as in `testdummy:0:999:144`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VersionBitsOption {
    /// Which deployment.
    pub deployment: VersionBitsDeployment,
    /// See [`VersionBits::start`].
    pub start: i64,
    /// See [`VersionBits::timeout`].
    pub timeout: i64,
    /// See [`VersionBits::min_activation_height`].
    pub min_activation_height: i64,
}

impl FromStr for VersionBitsOption {
    type Err = ParamsError;

    /// `name:start:end[:min_height]`, as Core's `-vbparams`.
    fn from_str(text: &str) -> Result<Self, ParamsError> {
        let parts: Vec<&str> = text.split(':').collect();
        let (name, start, timeout, height) = match parts[..] {
            [name, start, timeout] => (name, start, timeout, "0"),
            [name, start, timeout, height] => (name, start, timeout, height),
            _ => return Err(ParamsError::VersionBits(text.into())),
        };
        let time = |text: &str| integer(text).ok_or_else(|| ParamsError::Time(text.into()));
        Ok(Self {
            deployment: name.parse()?,
            start: time(start)?,
            timeout: time(timeout)?,
            min_activation_height: integer(height).ok_or_else(|| ParamsError::Height(height.into()))?,
        })
    }
}

/// A decimal number without plus sign or blanks, as Core's `ToIntegral`.
fn integer(text: &str) -> Option<i64> {
    if text.starts_with('+') { None } else { text.parse().ok() }
}

/// What can be chosen about a regtest network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegtestOptions {
    /// Heights of buried deployments; of several for one deployment the last counts.
    pub activations: Vec<Activation>,
    /// Version-bits deployments; of several for one deployment the last counts.
    pub version_bits: Vec<VersionBitsOption>,
    /// Enforces BIP94.
    pub bip94: bool,
}

impl RegtestOptions {
    /// Sets the height of a buried deployment.
    #[must_use]
    pub fn activation(mut self, deployment: BuriedDeployment, height: u32) -> Self {
        self.activations.push(Activation { deployment, height });
        self
    }

    /// Sets the parameters of a version-bits deployment.
    #[must_use]
    pub fn version_bits(mut self, option: VersionBitsOption) -> Self {
        self.version_bits.push(option);
        self
    }

    /// Turns BIP94 on or off.
    #[must_use]
    pub fn bip94(mut self, enforce: bool) -> Self {
        self.bip94 = enforce;
        self
    }
}

/// The script flags of one block that breaks the usual ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScriptFlagException {
    /// The block's hash.
    pub block: BlockHash,
    /// In place of `P2SH | WITNESS | TAPROOT`.
    pub flags: ScriptFlags,
}

/// Parameters of the headers presync (Core's `HeadersSyncParams`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadersSyncParams {
    /// Headers between two commitments of the first pass.
    pub commitment_period: u32,
    /// Headers above one in the second pass before it is released.
    pub redownload_buffer_size: usize,
}

/// Everything in which networks differ.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Params {
    /// Which network.
    pub network: Network,
    /// First four bytes of each message.
    pub magic: [u8; 4],
    /// Usual port.
    pub port: u16,
    /// The first block.
    pub genesis: Block,
    /// Names that resolve to peers; none for regtest and for signets with their own challenge.
    pub dns_seeds: Vec<&'static str>,
    /// Nodes for the case that no seed answers.
    pub fixed_seeds: &'static [&'static str],
    /// How many transactions the chain has up to some heights, for estimates; empty if that is not known.
    pub tx_counts: TxCounts,
    /// Work below which a chain is not believed to be the network's.
    pub minimum_chain_work: ChainWork,
    /// The block up to which scripts may be skipped; `None`: never.
    pub assume_valid: Option<BlockHash>,
    /// Blocks between halvings of the subsidy.
    pub halving_interval: u32,
    /// The script that blocks of a signet satisfy (BIP325).
    pub signet_challenge: Option<ScriptBuf>,
    /// The easiest target.
    pub pow_limit: Target,
    /// Seconds that a difficulty period should take.
    pub pow_target_timespan: u32,
    /// Seconds that a block should take.
    pub pow_target_spacing: u32,
    /// Whether a block more than two spacings after its parent has the easiest target.
    pub allow_min_difficulty: bool,
    /// Whether the target never changes.
    pub no_retargeting: bool,
    /// Whether BIP94's rules hold (first block of a period: time and base of the retargeting).
    pub enforce_bip94: bool,
    /// Heights of buried deployments.
    pub buried: BuriedHeights,
    /// The block at BIP34's height on the network's chain; above it BIP30 can't be broken. `None`: unknown.
    pub bip34_hash: Option<BlockHash>,
    /// The `testdummy` deployment.
    pub test_dummy: VersionBits,
    /// Blocks with script flags of their own.
    pub script_flag_exceptions: Vec<ScriptFlagException>,
    /// Parameters of the headers presync.
    pub headers_sync: HeadersSyncParams,
}

impl Params {
    /// The usual parameters of a network.
    pub fn new(network: Network) -> Self {
        match network {
            Network::Main => main(),
            Network::Testnet3 => testnet3(),
            Network::Testnet4 => testnet4(),
            Network::Signet => default_signet(),
            Network::Regtest => Self::regtest(&RegtestOptions::default()),
        }
    }

    /// A signet with this challenge (BIP325). Its magic follows from the challenge; unless that is the
    /// default one, there is no minimum chainwork, no `assumevalid` and no seed.
    pub fn signet(challenge: ScriptBuf) -> Self {
        let default = default_signet();
        if default.signet_challenge.as_ref() == Some(&challenge) {
            return default;
        }
        Self {
            magic: signet_magic(&challenge),
            dns_seeds: Vec::new(),
            fixed_seeds: &[],
            tx_counts: &[],
            minimum_chain_work: ChainWork::ZERO,
            assume_valid: None,
            signet_challenge: Some(challenge),
            ..default
        }
    }

    /// A regtest network.
    pub fn regtest(options: &RegtestOptions) -> Self {
        let mut params = regtest();
        params.enforce_bip94 = options.bip94;
        for activation in &options.activations {
            params.buried.set(*activation);
        }
        for option in &options.version_bits {
            let deployment = params.version_bits_mut(option.deployment);
            deployment.start = option.start;
            deployment.timeout = option.timeout;
            deployment.min_activation_height = option.min_activation_height;
        }
        params
    }

    /// With another minimum chainwork.
    #[must_use]
    pub fn with_minimum_chain_work(mut self, work: ChainWork) -> Self {
        self.minimum_chain_work = work;
        self
    }

    /// With another block up to which scripts may be skipped; `None`: never.
    #[must_use]
    pub fn with_assume_valid(mut self, block: Option<BlockHash>) -> Self {
        self.assume_valid = block;
        self
    }

    /// Hash of the first block.
    pub fn genesis_hash(&self) -> BlockHash {
        self.genesis.block_hash()
    }

    /// Header of the first block.
    pub fn genesis_header(&self) -> &Header {
        &self.genesis.header
    }

    /// Blocks of a difficulty period.
    pub fn difficulty_interval(&self) -> u32 {
        self.pow_target_timespan.checked_div(self.pow_target_spacing).unwrap_or(1).max(1)
    }

    /// How a version-bits deployment activates.
    pub fn version_bits(&self, deployment: VersionBitsDeployment) -> &VersionBits {
        match deployment {
            VersionBitsDeployment::TestDummy => &self.test_dummy,
        }
    }

    fn version_bits_mut(&mut self, deployment: VersionBitsDeployment) -> &mut VersionBits {
        match deployment {
            VersionBitsDeployment::TestDummy => &mut self.test_dummy,
        }
    }
}

const TWO_WEEKS: u32 = 14 * 24 * 60 * 60;
const TEN_MINUTES: u32 = 10 * 60;
/// 32 leading zero bits: difficulty 1, rounded up.
const DIFFICULTY_1: Target = Target::from_halves(u128::MAX >> 32, u128::MAX);
const DEFAULT_SIGNET_CHALLENGE: &str = "512103ad5e0edad18cb1f0fc0d28a3d4f1f3e445640337489abb10404f2d1e086be430\
     210359ef5021964fe22d6f8e05b2463c9540ce96883fe3b278760f048f5189f2e6c452ae";

/// A constant of this file: hexadecimal as hashes are shown.
fn hash(hex: &'static str) -> BlockHash {
    hex.parse().expect("a constant of 64 digits")
}

const fn never_active(threshold: u32) -> VersionBits {
    VersionBits {
        bit: 28,
        start: VersionBits::NEVER_ACTIVE,
        timeout: VersionBits::NO_TIMEOUT,
        min_activation_height: 0,
        period: 2016,
        threshold,
    }
}

fn main() -> Params {
    Params {
        network: Network::Main,
        magic: [0xf9, 0xbe, 0xb4, 0xd9],
        port: 8333,
        genesis: genesis_block(bitcoin::Network::Bitcoin),
        dns_seeds: vec![
            "dnsseed.bluematt.me.",
            "seed.bitcoin.jonasschnelli.ch.",
            "seed.btc.petertodd.net.",
            "seed.bitcoin.sprovoost.nl.",
            "dnsseed.emzy.de.",
            "seed.bitcoin.wiz.biz.",
            "seed.mainnet.achownodes.xyz.",
        ],
        fixed_seeds: fixed_seeds::MAIN,
        tx_counts: tx_counts::MAIN,
        minimum_chain_work: ChainWork::from(0x0000_0001_1287_50f8_2f4c_3661_53a3_a030_u128),
        // Height 938,343.
        assume_valid: Some(hash("00000000000000000000ccebd6d74d9194d8dcdc1d177c478e094bfad51ba5ac")),
        halving_interval: 210_000,
        signet_challenge: None,
        pow_limit: DIFFICULTY_1,
        pow_target_timespan: TWO_WEEKS,
        pow_target_spacing: TEN_MINUTES,
        allow_min_difficulty: false,
        no_retargeting: false,
        enforce_bip94: false,
        buried: BuriedHeights {
            bip34: 227_931,
            cltv: 388_381,
            dersig: 363_725,
            csv: 419_328,
            segwit: 481_824,
        },
        bip34_hash: Some(hash("000000000000024b89b42a942fe0d9fea3bb44ab7bd1b19115dd6a759c0808b8")),
        test_dummy: never_active(1815),
        script_flag_exceptions: vec![
            // Breaks BIP16.
            ScriptFlagException {
                block: hash("00000000000002dc756eebf4f49723ed8d30cc28a5f108eb94b1ba88ac4f9c22"),
                flags: ScriptFlags::NONE,
            },
            // Breaks taproot.
            ScriptFlagException {
                block: hash("0000000000000000000f14c35b2d841e986ab5441de8c585d5ffe55ea1e395ad"),
                flags: ScriptFlags::P2SH.with(ScriptFlags::WITNESS),
            },
        ],
        headers_sync: HeadersSyncParams { commitment_period: 641, redownload_buffer_size: 15_218 },
    }
}

fn testnet3() -> Params {
    Params {
        network: Network::Testnet3,
        magic: [0x0b, 0x11, 0x09, 0x07],
        port: 18333,
        genesis: genesis_block(bitcoin::Network::Testnet),
        dns_seeds: vec![
            "testnet-seed.bitcoin.jonasschnelli.ch.",
            "seed.tbtc.petertodd.net.",
            "seed.testnet.bitcoin.sprovoost.nl.",
            "testnet-seed.bluematt.me.",
            "seed.testnet.achownodes.xyz.",
        ],
        fixed_seeds: fixed_seeds::TESTNET3,
        tx_counts: tx_counts::TESTNET3,
        minimum_chain_work: ChainWork::from(0x17dd_e1c6_49f3_708d_14b6_u128),
        // Height 4,842,348.
        assume_valid: Some(hash("000000007a61e4230b28ac5cb6b5e5a0130de37ac1faf2f8987d2fa6505b67f4")),
        allow_min_difficulty: true,
        buried: BuriedHeights {
            bip34: 21_111,
            cltv: 581_885,
            dersig: 330_776,
            csv: 770_112,
            segwit: 834_624,
        },
        bip34_hash: Some(hash("0000000023b3a96d3484e5abb3755c413e7d41500f8e2a5c3f0dd01299cd8ef8")),
        test_dummy: never_active(1512),
        // Breaks BIP16.
        script_flag_exceptions: vec![ScriptFlagException {
            block: hash("00000000dd30457c001f4095d208cc1296b0eed002427aa599874af7a432b105"),
            flags: ScriptFlags::NONE,
        }],
        headers_sync: HeadersSyncParams { commitment_period: 673, redownload_buffer_size: 14_460 },
        ..main()
    }
}

/// Every buried deployment from block 1 on; no exceptions.
const FROM_FIRST_BLOCK: BuriedHeights = BuriedHeights { bip34: 1, cltv: 1, dersig: 1, csv: 1, segwit: 1 };

fn testnet4() -> Params {
    Params {
        network: Network::Testnet4,
        magic: [0x1c, 0x16, 0x3f, 0x28],
        port: 48333,
        genesis: genesis_block(bitcoin::Network::Testnet4),
        dns_seeds: vec!["seed.testnet4.bitcoin.sprovoost.nl.", "seed.testnet4.wiz.biz."],
        fixed_seeds: fixed_seeds::TESTNET4,
        tx_counts: tx_counts::TESTNET4,
        minimum_chain_work: ChainWork::from(0x09a0_fe15_d017_7d08_6304_u128),
        // Height 123,613.
        assume_valid: Some(hash("0000000002368b1e4ee27e2e85676ae6f9f9e69579b29093e9a82c170bf7cf8a")),
        allow_min_difficulty: true,
        enforce_bip94: true,
        buried: FROM_FIRST_BLOCK,
        bip34_hash: None,
        test_dummy: never_active(1512),
        script_flag_exceptions: Vec::new(),
        headers_sync: HeadersSyncParams { commitment_period: 606, redownload_buffer_size: 16_092 },
        ..main()
    }
}

fn default_signet() -> Params {
    let challenge = Vec::from_hex(DEFAULT_SIGNET_CHALLENGE).expect("a constant of hexadecimal digits");
    let challenge = ScriptBuf::from_bytes(challenge);
    Params {
        network: Network::Signet,
        magic: signet_magic(&challenge),
        port: 38333,
        genesis: genesis_block(bitcoin::Network::Signet),
        dns_seeds: vec!["seed.signet.bitcoin.sprovoost.nl.", "seed.signet.achownodes.xyz."],
        fixed_seeds: fixed_seeds::SIGNET,
        tx_counts: tx_counts::SIGNET,
        minimum_chain_work: ChainWork::from(0x0b46_3ea0_a4b8_u128),
        // Height 293,175.
        assume_valid: Some(hash("00000008414aab61092ef93f1aacc54cf9e9f16af29ddad493b908a01ff5c329")),
        signet_challenge: Some(challenge),
        pow_limit: Target::from_halves(0x0000_0377_ae00_0000_0000_0000_0000_0000, 0),
        buried: FROM_FIRST_BLOCK,
        bip34_hash: None,
        script_flag_exceptions: Vec::new(),
        headers_sync: HeadersSyncParams { commitment_period: 620, redownload_buffer_size: 15_724 },
        ..main()
    }
}

/// BIP325: the first bytes of the double SHA-256 of the serialised challenge.
fn signet_magic(challenge: &ScriptBuf) -> [u8; 4] {
    let digest = sha256d::Hash::hash(&bitcoin::consensus::serialize(challenge)).to_byte_array();
    [digest[0], digest[1], digest[2], digest[3]]
}

fn regtest() -> Params {
    Params {
        network: Network::Regtest,
        magic: [0xfa, 0xbf, 0xb5, 0xda],
        port: 18444,
        genesis: genesis_block(bitcoin::Network::Regtest),
        dns_seeds: Vec::new(),
        fixed_seeds: &[],
        tx_counts: &[],
        minimum_chain_work: ChainWork::ZERO,
        assume_valid: None,
        halving_interval: 150,
        pow_limit: Target::from_halves(u128::MAX >> 1, u128::MAX),
        pow_target_timespan: 24 * 60 * 60,
        allow_min_difficulty: true,
        no_retargeting: true,
        buried: BuriedHeights { segwit: 0, ..FROM_FIRST_BLOCK },
        bip34_hash: None,
        test_dummy: VersionBits { start: 0, period: 144, threshold: 108, ..never_active(108) },
        script_flag_exceptions: Vec::new(),
        headers_sync: HeadersSyncParams { commitment_period: 275, redownload_buffer_size: 7_017 },
        ..main()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn genesis_blocks_and_magics_are_the_networks() {
        let expected = [
            "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
            "000000000933ea01ad0ee984209779baaec3ced90fa3f408719526f8d77f4943",
            "00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043",
            "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6",
            "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206",
        ];
        for (network, genesis) in Network::ALL.into_iter().zip(expected) {
            let params = Params::new(network);
            assert_eq!(params.genesis_hash().to_string(), genesis, "{network}");
            assert!(params.genesis.check_merkle_root(), "{network}");
            assert_eq!(params.difficulty_interval(), if network == Network::Regtest { 144 } else { 2016 });
            // The first block is as easy as the network allows.
            let bits = params.genesis.header.bits.to_consensus();
            assert_eq!(params.pow_limit.to_bits(), bits, "{network}");
            assert_eq!(network.to_string().parse(), Ok(network));
        }
        assert_eq!(Params::new(Network::Signet).magic, [0x0a, 0x03, 0xcf, 0x40]);
        assert_eq!("mainnet".parse(), Ok(Network::Main));
        assert_eq!("Main".parse::<Network>(), Err(ParamsError::Network("Main".into())));
    }

    #[test]
    fn rust_bitcoin_knows_the_same_numbers() {
        use bitcoin::params::{MAINNET, REGTEST, SIGNET, TESTNET3, TESTNET4};
        for (network, theirs) in
            Network::ALL.into_iter().zip([&MAINNET, &TESTNET3, &TESTNET4, &SIGNET, &REGTEST])
        {
            let ours = Params::new(network);
            assert_eq!(ours.magic, theirs.network.magic().to_bytes(), "{network}");
            assert_eq!(u64::from(ours.pow_target_spacing), theirs.pow_target_spacing, "{network}");
            assert_eq!(ours.allow_min_difficulty, theirs.allow_min_difficulty_blocks, "{network}");
            assert_eq!(ours.no_retargeting, theirs.no_pow_retargeting, "{network}");
            let limit = theirs.max_attainable_target.to_compact_lossy().to_consensus();
            assert_eq!(ours.pow_limit.to_bits(), limit, "{network}");
            if matches!(network, Network::Main | Network::Testnet3) {
                let heights = (ours.buried.bip34, ours.buried.cltv, ours.buried.dersig);
                assert_eq!(heights, (theirs.bip34_height, theirs.bip65_height, theirs.bip66_height));
            }
        }
    }

    #[test]
    fn a_signet_with_its_own_challenge_trusts_nothing_of_the_default_one() {
        let params = Params::signet(ScriptBuf::from_bytes(vec![0x51]));
        assert_eq!(params.minimum_chain_work, ChainWork::ZERO);
        assert_eq!(params.assume_valid, None);
        assert!(params.dns_seeds.is_empty());
        assert_ne!(params.magic, Params::new(Network::Signet).magic);
        let default = Params::signet(Params::new(Network::Signet).signet_challenge.unwrap());
        assert!(default.assume_valid.is_some());
    }

    #[test]
    fn activations_are_parsed_as_core_does() {
        let parse = |text: &str| text.parse::<Activation>();
        let segwit = Activation { deployment: BuriedDeployment::Segwit, height: 7 };
        assert_eq!(parse("segwit=7"), Ok(segwit));
        assert_eq!(parse("segwit@7"), Ok(segwit));
        assert!(parse("csv=2147483646").is_ok());
        for bad in ["csv=2147483647", "csv=-1", "csv=+1", "csv= 1", "csv="] {
            assert!(matches!(parse(bad), Err(ParamsError::Height(_))), "{bad}");
        }
        assert_eq!(parse("segwit"), Err(ParamsError::Activation("segwit".into())));
        assert_eq!(parse("taproot=1"), Err(ParamsError::Deployment("taproot".into())));

        let options = RegtestOptions {
            activations: ["bip34=2", "dersig=3", "cltv=4", "csv=5", "segwit=6"]
                .map(|text| parse(text).unwrap())
                .to_vec(),
            ..RegtestOptions::default()
        };
        let expected = BuriedHeights { bip34: 2, dersig: 3, cltv: 4, csv: 5, segwit: 6 };
        assert_eq!(Params::regtest(&options).buried, expected);
    }

    #[test]
    fn version_bits_parameters_are_parsed_as_core_does() {
        let parse = |text: &str| text.parse::<VersionBitsOption>();
        let option = parse("testdummy:-2:9223372036854775807:300").unwrap();
        assert_eq!((option.start, option.timeout), (-2, VersionBits::NO_TIMEOUT));
        assert_eq!(option.min_activation_height, 300);
        assert_eq!(parse("testdummy:1:2").unwrap().min_activation_height, 0);
        assert!(matches!(parse("testdummy:1"), Err(ParamsError::VersionBits(_))));
        assert!(matches!(parse("testdummy:1:2:3:4"), Err(ParamsError::VersionBits(_))));
        assert!(matches!(parse("testdummy:x:2"), Err(ParamsError::Time(_))));
        assert!(matches!(parse("testdummy:1:+2"), Err(ParamsError::Time(_))));
        assert!(matches!(parse("testdummy:1:2:"), Err(ParamsError::Height(_))));
        assert!(matches!(parse("taproot:1:2"), Err(ParamsError::Deployment(_))));
        let params = Params::regtest(&RegtestOptions::default().version_bits(option).bip94(true));
        assert_eq!((params.test_dummy.start, params.test_dummy.period), (-2, 144));
        assert!(params.enforce_bip94);
    }
}
