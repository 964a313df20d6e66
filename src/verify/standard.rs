//! The common scripts straight to libsecp256k1, everything else to an interpreter behind them, with no more of the
//! transaction than the verdict needs (`smaller`).
//!
//! These ways of spending are known here, and each is nothing but signatures by keys:
//!
//! | output | what unlocks it |
//! | --- | --- |
//! | P2PKH | a signature and a key in the scriptSig |
//! | P2WPKH (BIP141) | a signature and a key in the witness |
//! | P2WSH of `<key> OP_CHECKSIG` | a signature and the script in the witness |
//! | P2WSH of a multisig, m of n keys | an empty item, m signatures and the script in the witness |
//! | P2WPKH and P2WSH within P2SH (BIP16) | the same, and the program alone in the scriptSig |
//! | P2TR by key (BIP341) | a signature in the witness, and an annex or none |
//! | P2TR by `<key> OP_CHECKSIG` (BIP342) | a signature, the script and its control block, and an annex or none |
//!
//! An input counts as valid here only if it has one of these forms to the byte, names one of the six hash types that
//! are defined (or BIP341's default), and its signature is good. Whatever is not so, a bad signature included, the
//! interpreter judges: so this module can be wrong in one direction only, and has to argue for that one.
//!
//! 1. The forms leave the interpreter no choice: no opcode runs but those that push, hash, compare and check
//!    signatures. Locktime and script size have no part in them, and a signature is too long to be found (and deleted
//!    before hashing) within the 25 bytes of P2PKH. Of a multisig Core takes signatures and keys from the last to the
//!    first; whether each signature finds a key of its own, in order, is the same from the other end.
//! 2. An ECDSA signature is taken if it is the one DER encoding of its numbers; that is what BIP66 asks for, and
//!    the lax parser of the time before reads it alike. The higher of the two possible `s` is good, as in blocks.
//! 3. Signature hashes are those of `bitcoin::sighash`, with the hashes that inputs share made once a transaction.
//! 4. Good signatures are remembered (`cache`), by all that their check depends on.
//!
//! The interpreter of Core (script/interpreter.cpp) is what each form is tested against.

use super::cache::SignatureCache;
#[cfg(feature = "consensus")]
use super::interpreter::Interpreter;
use super::smaller::Smaller;
use super::{InputVerifier, TxScripts, Verdict, Verifier, VerifierError, input_by_input};
use crate::chain::deployments::ScriptFlags;
use crate::limits::SIGNATURE_CACHE;
use bitcoin::hashes::{Hash, hash160, sha256};
use bitcoin::opcodes::all as op;
use bitcoin::secp256k1::{Message, PublicKey, Secp256k1, VerifyOnly, XOnlyPublicKey, ecdsa, schnorr};
use bitcoin::sighash::{Annex, EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::taproot::{ControlBlock, LeafVersion, TapLeafHash};
use bitcoin::{Script, Transaction, TxIn, TxOut, Witness};
use std::sync::Arc;

/// Lengths of an ECDSA signature and its hash type that are looked at; shorter ones are as good as impossible.
const SIGNATURES: core::ops::RangeInclusive<usize> = 60..=73;
/// How the cache tells the schemes apart.
const ECDSA: u8 = 0;
const BIP340: u8 = 1;

const OP_1: u8 = op::OP_PUSHNUM_1.to_u8();
const OP_16: u8 = op::OP_PUSHNUM_16.to_u8();
const OP_CHECKSIG: u8 = op::OP_CHECKSIG.to_u8();
const OP_CHECKMULTISIG: u8 = op::OP_CHECKMULTISIG.to_u8();

/// The verifier that comes with the crate: the known forms, and Core's interpreter behind them.
#[cfg(feature = "consensus")]
pub type StandardVerifier = KnownForms<Interpreter>;

/// The known forms, and `V` behind them for everything else. Clones are equal, and share what they remember.
#[derive(Clone, Debug)]
pub struct KnownForms<V> {
    interpreter: V,
    secp: Secp256k1<VerifyOnly>,
    cache: Option<Arc<SignatureCache>>,
}

impl<V: Default> Default for KnownForms<V> {
    /// Remembers the last [`SIGNATURE_CACHE`] good signatures or so, in 2 MiB: those of the last blocks.
    fn default() -> Self {
        Self::with_cache(SIGNATURE_CACHE)
    }
}

impl<V: Default> KnownForms<V> {
    /// A verifier that remembers about so many good signatures, 32 bytes each; 0 for none.
    pub fn with_cache(entries: usize) -> Self {
        let cache = SignatureCache::new(entries).map(Arc::new);
        Self { interpreter: V::default(), secp: Secp256k1::verification_only(), cache }
    }
}

impl<V> KnownForms<V> {
    /// Whether a signature is good: it was before, or the check says so.
    fn is_good_once(
        &self,
        scheme: u8,
        hash: &[u8; 32],
        key: &[u8],
        signature: &[u8],
        check: impl FnOnce() -> bool,
    ) -> bool {
        let Some(cache) = &self.cache else { return check() };
        let checked = cache.checked(scheme, hash, key, signature);
        if cache.has(&checked) {
            return true;
        }
        let good = check();
        if good {
            cache.add(&checked);
        }
        good
    }

    fn is_ecdsa_good(&self, hash: &[u8; 32], key: &PublicKey, sig: &ecdsa::Signature) -> bool {
        self.is_good_once(ECDSA, hash, &key.serialize(), &sig.serialize_compact(), || {
            self.secp.verify_ecdsa(&Message::from_digest(*hash), sig, key).is_ok()
        })
    }

    fn is_schnorr_good(&self, hash: &[u8; 32], key: &XOnlyPublicKey, sig: &schnorr::Signature) -> bool {
        self.is_good_once(BIP340, hash, &key.serialize(), sig.as_ref(), || {
            self.secp.verify_schnorr(sig, &Message::from_digest(*hash), key).is_ok()
        })
    }
}

impl<V: InputVerifier> Verifier for KnownForms<V> {
    fn verify(&self, batch: &[TxScripts<'_>]) -> Result<Verdict, VerifierError> {
        input_by_input(batch, |scripts| {
            let mut others = Smaller::of(scripts, &self.interpreter)?;
            let mut hashes = SighashCache::new(scripts.tx);
            Ok(move |input| Ok(self.is_signed(&scripts, &mut hashes, input) || others.succeeds(input)?))
        })
    }
}

impl<V> KnownForms<V> {
    /// Whether an input has one of the known forms and a good signature. If not, nothing is known.
    fn is_signed(
        &self,
        scripts: &TxScripts<'_>,
        hashes: &mut SighashCache<&Transaction>,
        index: usize,
    ) -> bool {
        let TxScripts { tx, spent, flags, .. } = *scripts;
        let (Some(input), Some(output)) = (tx.input.get(index), spent.get(index)) else { return false };
        let (lock, sig) = (output.script_pubkey.as_bytes(), input.script_sig.as_bytes());
        let witness = flags.contains(ScriptFlags::P2SH.with(ScriptFlags::WITNESS));
        match *lock {
            [0x76, 0xa9, 20, ref hash @ .., 0x88, 0xac] if hash.len() == 20 => {
                self.key_hash_signed(hashes, index, input, hash)
            }
            [0, 20, ref hash @ ..] if witness && hash.len() == 20 && sig.is_empty() => {
                self.witness_signed(hashes, index, input, output, hash)
            }
            [0, 32, ref hash @ ..] if witness && hash.len() == 32 && sig.is_empty() => {
                self.script_signed(hashes, index, input, output, hash)
            }
            [0xa9, 20, ref outer @ .., 0x87] if witness && outer.len() == 20 => match *sig {
                [22 | 34, ref program @ ..] if hash160::Hash::hash(program).as_byte_array() == outer => {
                    match *program {
                        [0, 20, ref hash @ ..] if sig[0] == 22 && hash.len() == 20 => {
                            self.witness_signed(hashes, index, input, output, hash)
                        }
                        [0, 32, ref hash @ ..] if sig[0] == 34 && hash.len() == 32 => {
                            self.script_signed(hashes, index, input, output, hash)
                        }
                        _ => false,
                    }
                }
                _ => false,
            },
            [0x51, 32, ref key @ ..]
                if witness && flags.contains(ScriptFlags::TAPROOT) && key.len() == 32 && sig.is_empty() =>
            {
                self.taproot_signed(hashes, index, &input.witness, spent, key)
            }
            _ => false,
        }
    }

    /// P2PKH: the scriptSig pushes a signature and a key, and there is no witness.
    fn key_hash_signed(
        &self,
        hashes: &SighashCache<&Transaction>,
        index: usize,
        input: &TxIn,
        key_hash: &[u8],
    ) -> bool {
        let Some((sig, rest)) = pushed(input.script_sig.as_bytes()) else { return false };
        let Some((key, [])) = pushed(rest) else { return false };
        if !input.witness.is_empty() {
            return false;
        }
        self.is_good(key, sig, key_hash, |code, kind| {
            let hash = hashes.legacy_signature_hash(index, code, kind.to_u32());
            Some(hash.ok()?.to_byte_array())
        })
    }

    /// P2WPKH: the witness is a signature and a key.
    fn witness_signed(
        &self,
        hashes: &mut SighashCache<&Transaction>,
        index: usize,
        input: &TxIn,
        output: &TxOut,
        key_hash: &[u8],
    ) -> bool {
        let (2, Some(sig), Some(key)) = (input.witness.len(), input.witness.nth(0), input.witness.nth(1))
        else {
            return false;
        };
        // BIP143 hashes the script of P2PKH in place of the program.
        self.is_good(key, sig, key_hash, |code, kind| {
            let hash = hashes.p2wsh_signature_hash(index, code, output.value, kind);
            Some(hash.ok()?.to_byte_array())
        })
    }

    /// P2WSH of keys: the witness is an empty item (of a multisig), the signatures and the script.
    fn script_signed(
        &self,
        hashes: &mut SighashCache<&Transaction>,
        index: usize,
        input: &TxIn,
        output: &TxOut,
        script_hash: &[u8],
    ) -> bool {
        let witness = &input.witness;
        let Some(script) = witness.last() else { return false };
        if sha256::Hash::hash(script).as_byte_array() != script_hash {
            return false;
        }
        let (dummy, required, keys) = match (lone_key::<33>(script), multisig(script)) {
            (Some(key), _) => (0, 1, key),
            (None, Some((required, keys))) if witness.nth(0).is_some_and(<[u8]>::is_empty) => {
                (1, required, keys)
            }
            _ => return false,
        };
        let script = Script::from_bytes(script);
        if witness.len() != dummy + required + 1 {
            return false;
        }
        // Each push of a key is an opcode and 33 bytes.
        let mut keys = keys.chunks_exact(34).map(|push| PublicKey::from_slice(&push[1..]));
        witness.iter().skip(dummy).take(required).all(|sig| {
            let Some((sig, kind)) = signature(sig) else { return false };
            let Ok(hash) = hashes.p2wsh_signature_hash(index, script, output.value, kind) else {
                return false;
            };
            let hash = hash.to_byte_array();
            keys.any(|key| key.is_ok_and(|key| self.is_ecdsa_good(&hash, &key, &sig)))
        })
    }

    /// P2TR by key: the witness is a signature; or by a script of one key: a signature, the script and its control
    /// block. An annex may follow.
    fn taproot_signed(
        &self,
        hashes: &mut SighashCache<&Transaction>,
        index: usize,
        witness: &Witness,
        spent: &[TxOut],
        key: &[u8],
    ) -> bool {
        let annex = witness.taproot_annex().and_then(|item| Annex::new(item).ok());
        let items = witness.len() - usize::from(annex.is_some());
        let (Some((sig, kind)), Ok(output_key)) =
            (witness.nth(0).and_then(taproot_signature), XOnlyPublicKey::from_slice(key))
        else {
            return false;
        };
        let (leaf, key) = match (items, witness.nth(1), witness.nth(2)) {
            (1, ..) => (None, output_key),
            (3, Some(script), Some(control)) => {
                let (Some(key), Ok(control)) = (lone_key::<32>(script), ControlBlock::decode(control)) else {
                    return false;
                };
                let script = Script::from_bytes(script);
                let committed = control.leaf_version == LeafVersion::TapScript
                    && control.verify_taproot_commitment(&self.secp, output_key, script);
                let (true, Ok(key)) = (committed, XOnlyPublicKey::from_slice(&key[1..])) else {
                    return false;
                };
                (Some(TapLeafHash::from_script(script, LeafVersion::TapScript)), key)
            }
            _ => return false,
        };
        // No OP_CODESEPARATOR ran.
        let leaf = leaf.map(|leaf| (leaf, u32::MAX));
        hashes
            .taproot_signature_hash(index, &Prevouts::All(spent), annex, leaf, kind)
            .is_ok_and(|hash| self.is_schnorr_good(&hash.to_byte_array(), &key, &sig))
    }

    /// Whether the key has this hash, and its signature is good for what `hash` makes of P2PKH's script.
    fn is_good(
        &self,
        key: &[u8],
        sig: &[u8],
        key_hash: &[u8],
        hash: impl FnOnce(&Script, EcdsaSighashType) -> Option<[u8; 32]>,
    ) -> bool {
        let Some((key, sig, kind)) = key_and_signature(key, sig, key_hash) else { return false };
        let code = key_hash_script(key_hash);
        let Some(hash) = hash(Script::from_bytes(&code), kind) else { return false };
        self.is_ecdsa_good(&hash, &key, &sig)
    }
}

/// Splits off what a direct push at the start of a script pushes: an opcode of 1 to 75 and so many bytes.
fn pushed(script: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = script.split_first()?;
    if (1..=75).contains(&length) { rest.split_at_checked(usize::from(length)) } else { None }
}

/// The push of the key of a script that is `<key> OP_CHECKSIG`, of a key with this length.
fn lone_key<const LENGTH: usize>(script: &[u8]) -> Option<&[u8]> {
    let (&[.., OP_CHECKSIG], &[length, ..]) = (script, script) else { return None };
    (usize::from(length) == LENGTH && script.len() == LENGTH + 2).then(|| &script[..=LENGTH])
}

/// How many signatures a multisig of keys of 33 bytes needs, up to 16 of 16, and the pushes of its keys.
fn multisig(script: &[u8]) -> Option<(usize, &[u8])> {
    let &[required @ OP_1..=OP_16, ref keys @ .., count @ OP_1..=OP_16, OP_CHECKMULTISIG] = script else {
        return None;
    };
    let (required, count) = (usize::from(required - OP_1) + 1, usize::from(count - OP_1) + 1);
    let pushes = keys.len() == 34 * count && keys.chunks_exact(34).all(|push| push[0] == 33);
    (pushes && required <= count).then_some((required, keys))
}

/// The key, if it is of one of the two usual forms and has this hash, and the signature, if it is known.
fn key_and_signature(
    key: &[u8],
    sig: &[u8],
    key_hash: &[u8],
) -> Option<(PublicKey, ecdsa::Signature, EcdsaSighashType)> {
    let whole_key = matches!((key.len(), key.first()), (33, Some(2 | 3)) | (65, Some(4)));
    let (sig, kind) = signature(sig)?;
    if !whole_key || hash160::Hash::hash(key).as_byte_array() != key_hash {
        return None;
    }
    Some((PublicKey::from_slice(key).ok()?, sig, kind))
}

/// The signature and its hash type, if that is defined and the signature encoded as BIP66 wants it.
fn signature(sig: &[u8]) -> Option<(ecdsa::Signature, EcdsaSighashType)> {
    let (&kind, der) = sig.split_last()?;
    let kind = EcdsaSighashType::from_standard(kind.into()).ok()?;
    if !SIGNATURES.contains(&sig.len()) {
        return None;
    }
    let mut sig = ecdsa::Signature::from_der(der).ok()?;
    if sig.serialize_der().as_ref() != der {
        return None;
    }
    sig.normalize_s();
    Some((sig, kind))
}

/// The signature and its hash type: the default is not written (BIP341).
fn taproot_signature(bytes: &[u8]) -> Option<(schnorr::Signature, TapSighashType)> {
    let (sig, kind) = bytes.split_at_checked(64)?;
    let kind = match *kind {
        [] => TapSighashType::Default,
        [kind] if kind != 0 => TapSighashType::from_consensus_u8(kind).ok()?,
        _ => return None,
    };
    Some((schnorr::Signature::from_slice(sig).ok()?, kind))
}

/// `OP_DUP OP_HASH160 <hash> OP_EQUALVERIFY OP_CHECKSIG`.
fn key_hash_script(key_hash: &[u8]) -> [u8; 25] {
    let mut script = [0; 25];
    script[..3].copy_from_slice(&[0x76, 0xa9, 20]);
    script[3..23].copy_from_slice(key_hash);
    script[23..].copy_from_slice(&[0x88, 0xac]);
    script
}

#[cfg(all(test, feature = "consensus"))]
mod tests;
