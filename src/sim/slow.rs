//! Transactions that fill a block and are slow to verify, for measuring verifiers against each other.
//!
//! 1. [`SlowKind::ALL`] names what is known to be slow, and why.
//! 2. [`SlowKind::forge`] makes one transaction of it with as many inputs as a weight allows. It is valid, within
//!    the limit of signature operations, and the same at each call.
//!
//! What they spend is not on any chain: they are for a [`Verifier`](crate::verify::Verifier), not for a node.

use crate::consensus::transaction::MAX_BLOCK_WEIGHT;
use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::key::{Keypair, TapTweak};
use bitcoin::opcodes::all as op;
use bitcoin::script::{Builder, PushBytes, PushBytesBuf};
use bitcoin::secp256k1::{All, Message, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::taproot::{LeafVersion, TapLeafHash, TaprootBuilder, TaprootSpendInfo};
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness, transaction};

/// Weight that a block's header and coinbase may need.
const OVERHEAD: u64 = 2_000;
/// What a full block leaves for one transaction, in weight units.
pub const FULL: u64 = MAX_BLOCK_WEIGHT as u64 - OVERHEAD;
/// Signature checks in one input of [`SlowKind::BareChecks`] and of [`SlowKind::BareSeparators`]: what 201 operations
/// allow.
const CHECKS: [usize; 2] = [65, 49];
/// Room for an ECDSA signature with its hash type.
const ECDSA: usize = 72;

/// A way of being slow. All inputs of a transaction are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SlowKind {
    /// Bare `OP_1`: nothing but a large number of inputs.
    BareTrue,
    /// `OP_1` within P2WSH.
    WitnessTrue,
    /// P2WSH: a signature check in a branch that is not taken.
    WitnessUntaken,
    /// P2WSH: a check that an empty signature fails, which hashes nothing, and `OP_NOT`.
    WitnessEmpty,
    /// P2WSH: `<key> OP_CHECKSIG`.
    WitnessKey,
    /// P2WSH: 2 of 3 signatures.
    WitnessMultisig,
    /// P2WSH: a signature check and an operation that does nothing.
    WitnessOdd,
    /// P2TR by a script without signatures.
    TapTrue,
    /// P2TR by a script of one key.
    TapKey,
    /// P2TR: a signature check in a branch that is not taken.
    TapUntaken,
    /// P2TR: a check that an empty signature fails, and `OP_NOT`.
    TapEmpty,
    /// P2TR: a signature check and an operation that does nothing.
    TapOdd,
    /// P2TR by key.
    KeyPath,
    /// Bare: the same failing signature checked 65 times, all against one hash of the whole transaction.
    BareChecks,
    /// Bare: 49 failing checks with `OP_CODESEPARATOR` between them, each against a hash of its own.
    BareSeparators,
}

/// What a signature is for.
enum Signs {
    Nothing,
    WitnessV0(ScriptBuf),
    TapLeaf(ScriptBuf),
    TapKey,
}

impl SlowKind {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::BareTrue,
        Self::WitnessTrue,
        Self::WitnessUntaken,
        Self::WitnessEmpty,
        Self::WitnessKey,
        Self::WitnessMultisig,
        Self::WitnessOdd,
        Self::TapTrue,
        Self::TapKey,
        Self::TapUntaken,
        Self::TapEmpty,
        Self::TapOdd,
        Self::KeyPath,
        Self::BareChecks,
        Self::BareSeparators,
    ];

    /// The largest weight at which an engine that hashes every byte it must is done in some seconds: the last two
    /// kinds take Core itself many minutes for a full block.
    pub fn bearable(self) -> u64 {
        match self {
            Self::BareChecks => FULL / 8,
            Self::BareSeparators => FULL / 16,
            _ => FULL,
        }
    }

    /// A transaction of this kind with as many inputs as `weight` units allow, at least one, and what it spends.
    pub fn forge(self, weight: u64) -> (Transaction, Vec<TxOut>) {
        let keys = Keys::new();
        let lock = self.lock(&keys);
        let spent =
            |count| vec![TxOut { value: Amount::from_sat(1_000), script_pubkey: lock.clone() }; count];
        let with_dummies = |count| {
            let mut tx = unsigned(count);
            let (script_sig, witness) = self.unlock(&keys, &self.dummies());
            for input in &mut tx.input {
                (input.script_sig, input.witness) = (script_sig.clone(), witness.clone());
            }
            tx.weight().to_wu()
        };
        // Two weights tell that of an input; the length of the list takes up to 16 more.
        let (one, two) = (with_dummies(1), with_dummies(2));
        let count = 1 + weight.saturating_sub(one + 16) / (two - one);
        let (mut tx, spent) = (unsigned(count as usize), spent(count as usize));
        let before = tx.clone();
        let mut cache = SighashCache::new(&before);
        for (index, input) in tx.input.iter_mut().enumerate() {
            let signatures = self.signatures(&keys, &mut cache, index, &spent);
            (input.script_sig, input.witness) = self.unlock(&keys, &signatures);
        }
        (tx, spent)
    }

    /// The script that is run, where it is not the output's own.
    fn inner(self, keys: &Keys) -> ScriptBuf {
        let check = |key: &PushBytes| Builder::new().push_slice(key).push_opcode(op::OP_CHECKSIG);
        let key = keys.pair(0).public_key().serialize();
        let tap_key = keys.pair(0).x_only_public_key().0.serialize();
        let untaken = || {
            let script = Builder::new().push_int(0).push_opcode(op::OP_IF).push_opcode(op::OP_CHECKSIG);
            script.push_opcode(op::OP_ENDIF).push_int(1).into_script()
        };
        match self {
            Self::WitnessTrue | Self::TapTrue => Builder::new().push_int(1).into_script(),
            Self::WitnessUntaken | Self::TapUntaken => untaken(),
            Self::WitnessEmpty => check(key.as_ref()).push_opcode(op::OP_NOT).into_script(),
            Self::WitnessOdd => check(key.as_ref()).push_opcode(op::OP_NOP).into_script(),
            Self::WitnessMultisig => (0..3)
                .fold(Builder::new().push_int(2), |script, n| {
                    script.push_slice(keys.pair(n).public_key().serialize())
                })
                .push_int(3)
                .push_opcode(op::OP_CHECKMULTISIG)
                .into_script(),
            Self::TapEmpty => check(tap_key.as_ref()).push_opcode(op::OP_NOT).into_script(),
            Self::TapOdd => check(tap_key.as_ref()).push_opcode(op::OP_NOP).into_script(),
            Self::TapKey => check(tap_key.as_ref()).into_script(),
            _ => check(key.as_ref()).into_script(),
        }
    }

    fn lock(self, keys: &Keys) -> ScriptBuf {
        let checks = |count, separated| {
            let key = keys.pair(0).public_key();
            let script = (0..count).fold(Builder::new().push_slice(key.serialize()), |script, _| {
                let script = script.push_opcode(op::OP_2DUP);
                let script = if separated { script.push_opcode(op::OP_CODESEPARATOR) } else { script };
                script.push_opcode(op::OP_CHECKSIG).push_opcode(op::OP_DROP)
            });
            script.push_opcode(op::OP_2DROP).push_int(1).into_script()
        };
        match self {
            Self::BareTrue => Builder::new().push_int(1).into_script(),
            Self::BareChecks => checks(CHECKS[0], false),
            Self::BareSeparators => checks(CHECKS[1], true),
            _ if self.is_taproot() => ScriptBuf::new_p2tr_tweaked(keys.tap(self.inner(keys)).output_key()),
            _ => self.inner(keys).to_p2wsh(),
        }
    }

    fn is_taproot(self) -> bool {
        use SlowKind::{KeyPath, TapEmpty, TapKey, TapOdd, TapTrue, TapUntaken};
        matches!(self, TapTrue | TapKey | TapUntaken | TapEmpty | TapOdd | KeyPath)
    }

    fn signs(self, keys: &Keys) -> Signs {
        match self {
            Self::WitnessKey | Self::WitnessMultisig | Self::WitnessOdd => Signs::WitnessV0(self.inner(keys)),
            Self::TapKey | Self::TapOdd => Signs::TapLeaf(self.inner(keys)),
            Self::KeyPath => Signs::TapKey,
            _ => Signs::Nothing,
        }
    }

    /// Signatures of the length that the real ones have at most.
    fn dummies(self) -> Vec<Vec<u8>> {
        match self {
            Self::WitnessKey | Self::WitnessOdd => vec![vec![0; ECDSA]],
            Self::WitnessMultisig => vec![vec![0; ECDSA]; 2],
            Self::TapKey | Self::TapOdd | Self::KeyPath => vec![vec![0; 64]],
            _ => Vec::new(),
        }
    }

    fn signatures(
        self,
        keys: &Keys,
        cache: &mut SighashCache<&Transaction>,
        index: usize,
        spent: &[TxOut],
    ) -> Vec<Vec<u8>> {
        let all = Prevouts::All(spent);
        match self.signs(keys) {
            Signs::Nothing => Vec::new(),
            Signs::WitnessV0(script) => {
                let hash =
                    cache.p2wsh_signature_hash(index, &script, spent[index].value, EcdsaSighashType::All);
                let message = Message::from_digest(hash.expect("the input exists").to_byte_array());
                let signature = |n| {
                    let signature = keys.secp.sign_ecdsa(&message, &keys.pair(n).secret_key());
                    [signature.serialize_der().as_ref(), &[1]].concat()
                };
                (0..self.dummies().len() as u8).map(signature).collect()
            }
            Signs::TapLeaf(script) => {
                let leaf = TapLeafHash::from_script(&script, LeafVersion::TapScript);
                let hash =
                    cache.taproot_script_spend_signature_hash(index, &all, leaf, TapSighashType::Default);
                let message = Message::from_digest(hash.expect("the input exists").to_byte_array());
                vec![keys.secp.sign_schnorr_no_aux_rand(&message, &keys.pair(0)).serialize().to_vec()]
            }
            Signs::TapKey => {
                let hash = cache.taproot_key_spend_signature_hash(index, &all, TapSighashType::Default);
                let message = Message::from_digest(hash.expect("the input exists").to_byte_array());
                let root = keys.tap(self.inner(keys)).merkle_root();
                let tweaked = keys.pair(9).tap_tweak(&keys.secp, root).to_keypair();
                vec![keys.secp.sign_schnorr_no_aux_rand(&message, &tweaked).serialize().to_vec()]
            }
        }
    }

    fn unlock(self, keys: &Keys, signatures: &[Vec<u8>]) -> (ScriptBuf, Witness) {
        let inner = self.inner(keys);
        let nothing = ScriptBuf::new();
        match self {
            Self::BareTrue => (nothing, Witness::new()),
            Self::BareChecks | Self::BareSeparators => {
                // Well-formed, for nothing in particular.
                let signature =
                    keys.secp.sign_ecdsa(&Message::from_digest([7; 32]), &keys.pair(0).secret_key());
                let signature = [signature.serialize_der().as_ref(), &[1]].concat();
                let signature = PushBytesBuf::try_from(signature).expect("under 520 bytes");
                (Builder::new().push_slice(signature).into_script(), Witness::new())
            }
            Self::KeyPath => (nothing, Witness::from_slice(signatures)),
            _ => {
                // CHECKMULTISIG takes one item more than it should; the failing check takes an empty one.
                let empty = matches!(self, Self::WitnessMultisig | Self::WitnessEmpty | Self::TapEmpty);
                let first = if empty { vec![Vec::new()] } else { Vec::new() };
                let control = self.is_taproot().then(|| {
                    let leaf = (inner.clone(), LeafVersion::TapScript);
                    keys.tap(inner.clone()).control_block(&leaf).expect("the leaf is in the tree").serialize()
                });
                let script = [Some(inner.into_bytes()), control].into_iter().flatten().collect::<Vec<_>>();
                (nothing, Witness::from_slice(&[&first[..], signatures, &script].concat()))
            }
        }
    }
}

struct Keys {
    secp: Secp256k1<All>,
}

impl Keys {
    fn new() -> Self {
        Self { secp: Secp256k1::new() }
    }

    fn pair(&self, n: u8) -> Keypair {
        let secret = SecretKey::from_slice(&[n + 1; 32]).expect("in range");
        Keypair::from_secret_key(&self.secp, &secret)
    }

    /// A tree of one script.
    fn tap(&self, script: ScriptBuf) -> TaprootSpendInfo {
        let builder = TaprootBuilder::new().add_leaf(0, script).expect("one leaf");
        builder.finalize(&self.secp, self.pair(9).x_only_public_key().0).expect("a whole tree")
    }
}

fn unsigned(inputs: usize) -> Transaction {
    let input = |vout| TxIn {
        previous_output: OutPoint::new(Txid::from_byte_array([7; 32]), vout),
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: (0..inputs as u32).map(input).collect(),
        output: vec![TxOut { value: Amount::from_sat(1), script_pubkey: ScriptBuf::from(vec![0x51; 22]) }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::deployments::ScriptFlags;
    use crate::consensus::sigops::transaction_sigop_cost;

    #[test]
    fn they_fill_the_weight_and_keep_to_the_limit_of_signature_operations() {
        for kind in SlowKind::ALL {
            let weight = kind.bearable() / 8;
            let (tx, spent) = kind.forge(weight);
            let found = tx.weight().to_wu();
            assert!(found <= weight && found > weight * 98 / 100, "{kind:?}: {found} of {weight}");
            let cost = transaction_sigop_cost(&tx, &spent, ScriptFlags::ALL);
            assert!(cost * FULL / weight <= 80_000, "{kind:?}: {cost}");
            assert_eq!((tx, spent), kind.forge(weight));
        }
    }

    #[cfg(feature = "consensus")]
    #[test]
    fn they_are_valid() {
        use crate::verify::standard::StandardVerifier;
        use crate::verify::{TxScripts, Verdict, Verifier};
        for kind in SlowKind::ALL {
            let (tx, spent) = kind.forge(20_000);
            let raw = bitcoin::consensus::serialize(&tx);
            let scripts = TxScripts { tx: &tx, raw: &raw, spent: &spent, flags: ScriptFlags::ALL };
            assert_eq!(StandardVerifier::default().verify(&[scripts]), Ok(Verdict::Valid), "{kind:?}");
        }
    }
}
