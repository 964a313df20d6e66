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
    let height = tree.height(parent).saturating_add(1);
    let buried = &params.buried;
    Rules {
        bip30: bip30_applies(tree, parent, BlockRef { height, hash: *hash }),
        bip34: height >= buried.bip34,
        csv: height >= buried.csv,
        segwit: height >= buried.segwit,
        script_flags: script_flags(params, BlockRef { height, hash: *hash }),
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
/// the network's own chain.
fn bip30_applies(tree: &BlockTree, parent: HeaderId, block: BlockRef) -> bool {
    if block.height >= BIP34_IMPLIES_BIP30_LIMIT {
        return true;
    }
    let params = tree.params();
    let bip34_block = tree.ancestor(parent, params.buried.bip34).map(|id| tree.hash(id));
    let implied = bip34_block.is_some() && bip34_block == params.bip34_hash;
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
    version as u32 >> 29 == 1 && version >> bit & 1 == 1
}
