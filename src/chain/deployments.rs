//! Which rules are in force for a block.
//!
//! Buried deployments activate at a height; version-bits deployments (BIP9 as in Core's
//! `versionbits.cpp`) by signalling. [`Rules`] is the answer for one block and travels with it.

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
