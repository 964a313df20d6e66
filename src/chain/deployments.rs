//! Which rules are in force for a block.
//!
//! Buried deployments activate at a height; version-bits deployments (BIP9 as in Core's
//! `versionbits.cpp`) by signalling. [`Rules`] is the answer for one block and travels with it.
//! P2SH, segwit's scripts and taproot are in force for every block of every network, but for the blocks
//! that the parameters name (Core's `GetBlockScriptFlags`).

use super::block_tree::{BlockTree, HeaderId};
use super::command::BlockRef;
use super::params::{Params, VersionBits, VersionBitsDeployment};
use bitcoin::BlockHash;
use std::collections::BTreeMap;

/// Script verification flags with the values of Bitcoin Core's library interface
/// (`bitcoinconsensus.h`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ScriptFlags(pub u32);

impl ScriptFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// BIP16.
    pub const P2SH: Self = Self(1 << 0);
    /// BIP66.
    pub const DERSIG: Self = Self(1 << 2);
    /// BIP147.
    pub const NULLDUMMY: Self = Self(1 << 4);
    /// BIP65.
    pub const CHECKLOCKTIMEVERIFY: Self = Self(1 << 9);
    /// BIP112.
    pub const CHECKSEQUENCEVERIFY: Self = Self(1 << 10);
    /// BIP141.
    pub const WITNESS: Self = Self(1 << 11);
    /// BIPs 341 and 342.
    pub const TAPROOT: Self = Self(1 << 17);
    /// All of the above: what is in force for a block of today.
    pub const ALL: Self = Self::P2SH
        .with(Self::DERSIG)
        .with(Self::NULLDUMMY)
        .with(Self::CHECKLOCKTIMEVERIFY)
        .with(Self::CHECKSEQUENCEVERIFY)
        .with(Self::WITNESS)
        .with(Self::TAPROOT);

    /// Whether all flags of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The rules in force for one block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rules {
    /// No transaction may overwrite an unspent one of the same id (BIP30).
    pub bip30: bool,
    /// The coinbase starts with the height (BIP34).
    pub bip34: bool,
    /// Relative lock times and median-time-past lock times (BIPs 68, 112, 113).
    pub csv: bool,
    /// Witnesses and their commitment (BIP141).
    pub segwit: bool,
    /// Flags for the interpreter (Core's `GetBlockScriptFlags`).
    pub script_flags: ScriptFlags,
}

/// From this height on, coinbases may repeat older ones in spite of BIP34 (some old blocks claim such
/// heights), so BIP30 is checked again (Core's `BIP34_IMPLIES_BIP30_LIMIT`).
const BIP34_IMPLIES_BIP30_LIMIT: u32 = 1_983_702;

/// The rules for a block with this hash on top of `parent`.
pub fn rules_for(tree: &BlockTree, parent: HeaderId, hash: &BlockHash) -> Rules {
    let params = tree.params();
    let block = BlockRef { height: tree.height(parent).saturating_add(1), hash: *hash };
    let at_bip34 = tree.ancestor(parent, params.buried.bip34).map(|id| tree.hash(id));
    Rules {
        bip30: bip30_applies(params, at_bip34, block),
        bip34: block.height >= params.buried.bip34,
        csv: block.height >= params.buried.csv,
        segwit: block.height >= params.buried.segwit,
        script_flags: script_flags(params, block),
    }
}

/// Flags for the scripts of a block (Core's `GetBlockScriptFlags`).
pub fn script_flags(params: &Params, block: BlockRef) -> ScriptFlags {
    let always = ScriptFlags::P2SH.with(ScriptFlags::WITNESS).with(ScriptFlags::TAPROOT);
    let exception = params.script_flag_exceptions.iter().find(|exception| exception.block == block.hash);
    [
        (params.buried.dersig, ScriptFlags::DERSIG),
        (params.buried.cltv, ScriptFlags::CHECKLOCKTIMEVERIFY),
        (params.buried.csv, ScriptFlags::CHECKSEQUENCEVERIFY),
        (params.buried.segwit, ScriptFlags::NULLDUMMY),
    ]
    .into_iter()
    .filter(|(from, _)| block.height >= *from)
    .fold(exception.map_or(always, |exception| exception.flags), |flags, (_, flag)| flags.with(flag))
}

/// Whether BIP30 is checked: not for the two blocks that broke it, nor where BIP34 makes it impossible on
/// the network's own chain. `at_bip34` is the block's ancestor at BIP34's height.
///
/// Where BIP34 is in force from the first block on, each coinbase of any chain begins with another height, and what
/// does not descend from equal coinbases is not equal: there is nothing to look for. (Core looks all the same.)
fn bip30_applies(params: &Params, at_bip34: Option<BlockHash>, block: BlockRef) -> bool {
    if params.buried.bip34 <= 1 {
        return false;
    }
    if block.height >= BIP34_IMPLIES_BIP30_LIMIT {
        return true;
    }
    let implied = at_bip34.is_some() && at_bip34 == params.bip34_hash;
    !implied && !is_named(block, &BIP30_REPEATS)
}

/// Mainnet blocks whose coinbase overwrote an earlier one.
const BIP30_REPEATS: [(u32, &str); 2] = [
    (91_842, "00000000000a4d0a398161ffc163c503763b1f4360639393e0e4c8e300e0caec"),
    (91_880, "00000000000743f190a18c5577a3c2d2a1f610ae9601ac046a38084ccb7cd721"),
];

/// Mainnet blocks whose coinbase was overwritten by a later one.
const BIP30_UNSPENDABLE: [(u32, &str); 2] = [
    (91_722, "00000000000271a2dc26e7667f8419f2e15416dc6955e5a6c6cdf3f2574dd08e"),
    (91_812, "00000000000af0aed4792b1acee3d966af36cf5def14935db8de83d6f9306f2f"),
];

fn is_named(block: BlockRef, names: &[(u32, &str)]) -> bool {
    names.iter().any(|(height, hash)| *height == block.height && block.hash.to_string() == *hash)
}

/// Whether this block's coinbase outputs were overwritten later (Core's `IsBIP30Unspendable`): when it is
/// disconnected, they may be missing.
pub fn is_bip30_unspendable(block: BlockRef) -> bool {
    is_named(block, &BIP30_UNSPENDABLE)
}

/// How far a version-bits deployment has come, for one period (BIP9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ThresholdState {
    /// Before its start.
    Defined,
    /// Blocks may signal.
    Started,
    /// Enough blocks of an earlier period signalled.
    LockedIn,
    /// In force.
    Active,
    /// Timed out.
    Failed,
}

/// States of version-bits deployments by the last block of the period before. One entry a period of a
/// branch that was asked about.
#[derive(Debug, Default)]
pub struct ThresholdCache(BTreeMap<(VersionBitsDeployment, HeaderId), ThresholdState>);

impl ThresholdCache {
    /// The state for the children of `parent` (Core's `GetStateFor`). All headers must be of one tree, the
    /// same at each call.
    pub fn state(
        &mut self,
        tree: &BlockTree,
        parent: HeaderId,
        deployment: VersionBitsDeployment,
    ) -> ThresholdState {
        let rule = *tree.params().version_bits(deployment);
        match rule.start {
            VersionBits::ALWAYS_ACTIVE => return ThresholdState::Active,
            VersionBits::NEVER_ACTIVE => return ThresholdState::Failed,
            _ => {}
        }
        // A state holds for a whole period: it is that of the block after the last full period.
        let period = rule.period.max(1);
        let mut end = period_end(tree, parent, period);
        let mut unknown = Vec::new();
        let mut state = loop {
            let Some(last) = end else { break ThresholdState::Defined };
            if let Some(state) = self.0.get(&(deployment, last)) {
                break *state;
            }
            if i64::from(tree.median_time_past(last)) < rule.start {
                self.0.insert((deployment, last), ThresholdState::Defined);
                break ThresholdState::Defined;
            }
            unknown.push(last);
            end = tree.height(last).checked_sub(period).and_then(|height| tree.ancestor(last, height));
        };
        for last in unknown.into_iter().rev() {
            state = next_state(tree, &rule, state, last);
            self.0.insert((deployment, last), state);
        }
        state
    }
}

/// The last block of the last full period that ends at or below `parent`.
fn period_end(tree: &BlockTree, parent: HeaderId, period: u32) -> Option<HeaderId> {
    let next = tree.height(parent) + 1;
    (next - next % period).checked_sub(1).and_then(|height| tree.ancestor(parent, height))
}

/// One transition of BIP9's state machine at the end of a period.
fn next_state(tree: &BlockTree, rule: &VersionBits, state: ThresholdState, last: HeaderId) -> ThresholdState {
    let time = i64::from(tree.median_time_past(last));
    match state {
        ThresholdState::Defined if time >= rule.start => ThresholdState::Started,
        ThresholdState::Started => {
            let blocks = core::iter::successors(Some(last), |id| tree.parent(*id));
            let signals =
                blocks.take(rule.period as usize).filter(|id| signals(tree.version(*id), rule.bit)).count();
            if signals >= rule.threshold as usize {
                ThresholdState::LockedIn
            } else if time >= rule.timeout {
                ThresholdState::Failed
            } else {
                state
            }
        }
        ThresholdState::LockedIn if i64::from(tree.height(last)) + 1 >= rule.min_activation_height => {
            ThresholdState::Active
        }
        _ => state,
    }
}

/// Whether a version signals `bit`: the top three bits are 001 (BIP9) and the bit is set.
fn signals(version: i32, bit: u8) -> bool {
    let version = version as u32;
    version >> 29 == 1 && version.checked_shr(u32::from(bit)).is_some_and(|rest| rest & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::params::{BuriedDeployment, Network, RegtestOptions, VersionBitsOption};
    use bitcoin::block::Version;
    use std::sync::Arc;

    const SIGNAL: i32 = 0x3000_0000;
    const SILENT: i32 = 0x2000_0000;

    /// Puts `count` headers on top of `parent`; the last `signals` of them signal bit 28.
    fn extend(tree: &mut BlockTree, parent: HeaderId, count: u32, signals: u32) -> HeaderId {
        (0..count).fold(parent, |parent, place| {
            let mut header = tree.header(parent);
            header.prev_blockhash = tree.hash(parent);
            header.time += 1;
            header.nonce = signals;
            header.version = Version::from_consensus(if count - place <= signals { SIGNAL } else { SILENT });
            tree.insert(parent, &header)
        })
    }

    fn tree_with(start: i64, timeout: i64, min_activation_height: i64) -> BlockTree {
        let deployment = VersionBitsDeployment::TestDummy;
        let option = VersionBitsOption { deployment, start, timeout, min_activation_height };
        let params = Params::regtest(&RegtestOptions::default().version_bits(option));
        BlockTree::new(Arc::new(params), [1, 2])
    }

    fn state(tree: &mut BlockTree, parent: HeaderId) -> ThresholdState {
        tree.deployment_state(parent, VersionBitsDeployment::TestDummy)
    }

    #[test]
    fn a_deployment_locks_in_at_the_threshold_and_activates_a_period_later() {
        let mut tree = tree_with(0, VersionBits::NO_TIMEOUT, 0);
        let genesis = tree.genesis();
        let first = extend(&mut tree, genesis, 142, 142);
        assert_eq!(state(&mut tree, first), ThresholdState::Defined);
        let started = extend(&mut tree, first, 1, 0);
        assert_eq!(state(&mut tree, started), ThresholdState::Started);
        // One signal too few keeps it started; the branch beside it has enough.
        let short = extend(&mut tree, started, 144, 107);
        let enough = extend(&mut tree, started, 144, 108);
        assert_eq!(state(&mut tree, short), ThresholdState::Started);
        assert_eq!(state(&mut tree, enough), ThresholdState::LockedIn);
        let almost = extend(&mut tree, enough, 143, 0);
        assert_eq!(state(&mut tree, almost), ThresholdState::LockedIn);
        let active = extend(&mut tree, almost, 1, 0);
        assert_eq!(state(&mut tree, active), ThresholdState::Active);
        let later = extend(&mut tree, active, 1000, 0);
        assert_eq!(state(&mut tree, later), ThresholdState::Active);
        // What is remembered does not change the answer.
        let mut fresh = ThresholdCache::default();
        for parent in [first, started, short, enough, almost, active, later] {
            let again = fresh.state(&tree, parent, VersionBitsDeployment::TestDummy);
            assert_eq!(again, state(&mut tree, parent));
        }
    }

    #[test]
    fn activation_waits_for_the_least_height() {
        for (least, expected) in [(432, ThresholdState::Active), (433, ThresholdState::LockedIn)] {
            let mut tree = tree_with(0, VersionBits::NO_TIMEOUT, least);
            let genesis = tree.genesis();
            let signalled = extend(&mut tree, genesis, 287, 144);
            assert_eq!(state(&mut tree, signalled), ThresholdState::LockedIn);
            let parent = extend(&mut tree, signalled, 144, 0);
            assert_eq!(state(&mut tree, parent), expected);
        }
    }

    #[test]
    fn start_and_timeout_are_median_times() {
        let begin = i64::from(Params::new(Network::Regtest).genesis.header.time);
        // One second a block: the median time past of block 143 is that of block 138.
        for (start, expected) in [(138, ThresholdState::Started), (139, ThresholdState::Defined)] {
            let mut tree = tree_with(begin + start, VersionBits::NO_TIMEOUT, 0);
            let genesis = tree.genesis();
            let parent = extend(&mut tree, genesis, 143, 0);
            assert_eq!(state(&mut tree, parent), expected);
        }
        for (timeout, expected) in [(282, ThresholdState::Failed), (283, ThresholdState::Started)] {
            let mut tree = tree_with(begin, begin + timeout, 0);
            let genesis = tree.genesis();
            let parent = extend(&mut tree, genesis, 287, 0);
            assert_eq!(state(&mut tree, parent), expected);
            // Enough signals in the last period win over the timeout.
            let signalled = extend(&mut tree, genesis, 287, 108);
            assert_eq!(state(&mut tree, signalled), ThresholdState::LockedIn);
        }
        let mut always = tree_with(VersionBits::ALWAYS_ACTIVE, VersionBits::NO_TIMEOUT, 0);
        let genesis = always.genesis();
        assert_eq!(state(&mut always, genesis), ThresholdState::Active);
        let mut never = tree_with(VersionBits::NEVER_ACTIVE, VersionBits::NO_TIMEOUT, 0);
        assert_eq!(state(&mut never, genesis), ThresholdState::Failed);
    }

    #[test]
    fn only_versions_with_the_top_bits_signal() {
        assert!(signals(0x3000_0000, 28));
        for version in [0x2000_0000, 0x1000_0000, 0x7000_0000, 0x5000_0000, -1, i32::MIN, 0] {
            assert!(!signals(version, 28), "{version:x}");
        }
        assert!(signals(0x2000_0001, 0));
    }

    #[test]
    fn buried_rules_start_at_their_height() {
        let options = RegtestOptions::default()
            .activation(BuriedDeployment::HeightInCoinbase, 2)
            .activation(BuriedDeployment::DerSig, 3)
            .activation(BuriedDeployment::Cltv, 4)
            .activation(BuriedDeployment::Csv, 5)
            .activation(BuriedDeployment::Segwit, 6);
        let mut tree = BlockTree::new(Arc::new(Params::regtest(&options)), [1, 2]);
        let always = ScriptFlags::P2SH.with(ScriptFlags::WITNESS).with(ScriptFlags::TAPROOT);
        let mut tip = tree.genesis();
        for height in 1..8 {
            tip = extend(&mut tree, tip, 1, 0);
            let rules = tree.context(tip).rules;
            assert_eq!(rules.bip34, height >= 2);
            assert_eq!(rules.csv, height >= 5);
            assert_eq!(rules.segwit, height >= 6);
            assert!(rules.bip30);
            let mut flags = always;
            for (from, flag) in [
                (3, ScriptFlags::DERSIG),
                (4, ScriptFlags::CHECKLOCKTIMEVERIFY),
                (5, ScriptFlags::CHECKSEQUENCEVERIFY),
                (6, ScriptFlags::NULLDUMMY),
            ] {
                flags = if height >= from { flags.with(flag) } else { flags };
            }
            assert_eq!(rules.script_flags, flags, "height {height}");
        }
    }

    #[test]
    fn blocks_that_break_script_rules_have_their_own_flags() {
        let params = Params::new(Network::Main);
        let named = |height, hash: &str| BlockRef { height, hash: hash.parse().unwrap() };
        let bip16 = "00000000000002dc756eebf4f49723ed8d30cc28a5f108eb94b1ba88ac4f9c22";
        assert_eq!(script_flags(&params, named(170_060, bip16)), ScriptFlags::NONE);
        let taproot = "0000000000000000000f14c35b2d841e986ab5441de8c585d5ffe55ea1e395ad";
        let flags = script_flags(&params, named(692_261, taproot));
        assert!(!flags.contains(ScriptFlags::TAPROOT));
        // P2SH, DERSIG, NULLDUMMY, CHECKLOCKTIMEVERIFY, CHECKSEQUENCEVERIFY, WITNESS.
        assert_eq!(flags.0, 1 | 1 << 2 | 1 << 4 | 1 << 9 | 1 << 10 | 1 << 11);
    }

    #[test]
    fn bip30_is_checked_where_bip34_does_not_imply_it() {
        let params = Params::new(Network::Main);
        let other = params.genesis_hash();
        let any = |height| BlockRef { height, hash: other };
        assert!(bip30_applies(&params, None, any(227_931)));
        assert!(bip30_applies(&params, Some(other), any(227_932)));
        assert!(!bip30_applies(&params, params.bip34_hash, any(227_932)));
        assert!(!bip30_applies(&params, params.bip34_hash, any(1_983_701)));
        assert!(bip30_applies(&params, params.bip34_hash, any(1_983_702)));
        // Networks without a known block at that height always check.
        assert!(!bip30_applies(&Params::new(Network::Regtest), None, any(1)));
        for (height, hash) in BIP30_REPEATS {
            let block = BlockRef { height, hash: hash.parse().unwrap() };
            assert!(!bip30_applies(&params, None, block));
            assert!(bip30_applies(&params, None, BlockRef { height: height + 1, ..block }));
            assert!(!is_bip30_unspendable(block));
        }
        for (height, hash) in BIP30_UNSPENDABLE {
            assert!(is_bip30_unspendable(BlockRef { height, hash: hash.parse().unwrap() }));
        }
    }
}
