//! The common scripts straight to libsecp256k1, everything else to the [`interpreter`](super::interpreter).
//!
//! Four ways of spending are known here, and each is nothing but one signature by one key:
//!
//! | output | what unlocks it |
//! | --- | --- |
//! | P2PKH | a signature and a key in the scriptSig |
//! | P2WPKH (BIP141) | a signature and a key in the witness |
//! | P2WPKH within P2SH (BIP16) | the same, and the program alone in the scriptSig |
//! | P2TR by key (BIP341) | a signature alone in the witness |
//!
//! An input counts as valid here only if it has one of these forms to the byte, commits to the whole transaction
//! (`SIGHASH_ALL` or BIP341's default) and its signature is good. Whatever is not so, a bad signature included,
//! the interpreter judges: so this module can be wrong in one direction only, and has to argue for that one.
//!
//! 1. The forms leave the interpreter no choice: no opcode runs but those that push, hash, compare and check the
//!    one signature. Locktime, multisig and script size have no part in them, and a signature is too long to be
//!    found (and deleted before hashing) within the 25 bytes of P2PKH.
//! 2. An ECDSA signature is taken if it is the one DER encoding of its numbers; that is what BIP66 asks for, and
//!    the lax parser of the time before reads it alike. The higher of the two possible `s` is good, as in blocks.
//! 3. Signature hashes are those of `bitcoin::sighash`, with the hashes that inputs share made once a transaction.
//! 4. Good signatures are remembered (`cache`), by the very bytes that were checked.
//!
//! The interpreter of Core (script/interpreter.cpp) is what each form is tested against.

use super::cache::SignatureCache;
use super::interpreter::Inputs;
use super::{ScriptFailure, TxScripts, Verdict, Verifier, VerifierError};
use crate::chain::deployments::ScriptFlags;
use crate::limits::SIGNATURE_CACHE;
use bitcoin::hashes::{Hash, hash160};
use bitcoin::secp256k1::{Message, PublicKey, Secp256k1, VerifyOnly, XOnlyPublicKey, ecdsa, schnorr};
use bitcoin::sighash::{EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::{Script, Transaction, TxIn, TxOut, Witness};
use std::sync::Arc;

/// Lengths of an ECDSA signature and its hash type that are looked at; shorter ones are as good as impossible.
const SIGNATURES: core::ops::RangeInclusive<usize> = 60..=73;
/// How the cache tells the schemes apart.
const ECDSA: u8 = 0;
const BIP340: u8 = 1;
/// `SIGHASH_ALL`, the last byte of a signature.
const ALL: u8 = 1;

/// The verifier that comes with the crate. Clones are equal, and share what they remember.
#[derive(Clone, Debug)]
pub struct StandardVerifier {
    secp: Secp256k1<VerifyOnly>,
    cache: Option<Arc<SignatureCache>>,
}

impl Default for StandardVerifier {
    /// Remembers the last [`SIGNATURE_CACHE`] good signatures or so, in 2 MiB: those of the last blocks.
    fn default() -> Self {
        Self::with_cache(SIGNATURE_CACHE)
    }
}

impl StandardVerifier {
    /// A verifier that remembers about so many good signatures, 32 bytes each; 0 for none.
    pub fn with_cache(entries: usize) -> Self {
        Self { secp: Secp256k1::verification_only(), cache: SignatureCache::new(entries).map(Arc::new) }
    }

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
}

impl Verifier for StandardVerifier {
    fn verify(&self, batch: &[TxScripts<'_>]) -> Result<Verdict, VerifierError> {
        for (transaction, scripts) in batch.iter().enumerate() {
            let mut others = Inputs::of(*scripts)?;
            let mut hashes = SighashCache::new(scripts.tx);
            for input in 0..scripts.spent.len() {
                if !self.is_signed(scripts, &mut hashes, input) && !others.succeeds(input)? {
                    return Ok(Verdict::Invalid(ScriptFailure { transaction, input }));
                }
            }
        }
        Ok(Verdict::Valid)
    }
}

impl StandardVerifier {
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
            [0xa9, 20, ref outer @ .., 0x87] if witness && outer.len() == 20 => match *sig {
                [22, ref program @ ..] if hash160::Hash::hash(program).as_byte_array() == outer => {
                    match *program {
                        [0, 20, ref hash @ ..] if hash.len() == 20 => {
                            self.witness_signed(hashes, index, input, output, hash)
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
        self.is_good(key, sig, key_hash, |code| {
            let hash = hashes.legacy_signature_hash(index, code, u32::from(ALL));
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
        self.is_good(key, sig, key_hash, |code| {
            let hash = hashes.p2wsh_signature_hash(index, code, output.value, EcdsaSighashType::All);
            Some(hash.ok()?.to_byte_array())
        })
    }

    /// P2TR by key: the witness is a signature, and no annex.
    fn taproot_signed(
        &self,
        hashes: &mut SighashCache<&Transaction>,
        index: usize,
        witness: &Witness,
        spent: &[TxOut],
        key: &[u8],
    ) -> bool {
        let (1, Some(bytes)) = (witness.len(), witness.nth(0)) else { return false };
        let (sig, kind) = match bytes.split_at_checked(64) {
            Some((sig, [])) => (sig, TapSighashType::Default),
            Some((sig, [ALL])) => (sig, TapSighashType::All),
            _ => return false,
        };
        let Ok(hash) = hashes.taproot_key_spend_signature_hash(index, &Prevouts::All(spent), kind) else {
            return false;
        };
        let hash = hash.to_byte_array();
        self.is_good_once(BIP340, &hash, key, sig, || {
            let (Ok(sig), Ok(key)) = (schnorr::Signature::from_slice(sig), XOnlyPublicKey::from_slice(key))
            else {
                return false;
            };
            self.secp.verify_schnorr(&sig, &Message::from_digest(hash), &key).is_ok()
        })
    }

    /// Whether the key has this hash, and its signature is good for what `hash` makes of P2PKH's script.
    fn is_good(
        &self,
        key: &[u8],
        sig: &[u8],
        key_hash: &[u8],
        hash: impl FnOnce(&Script) -> Option<[u8; 32]>,
    ) -> bool {
        let Some(der) = signature_for(key, sig, key_hash) else { return false };
        let code = key_hash_script(key_hash);
        let Some(hash) = hash(Script::from_bytes(&code)) else { return false };
        self.is_good_once(ECDSA, &hash, key, der, || {
            let Some((key, sig)) = parsed(key, der) else { return false };
            self.secp.verify_ecdsa(&Message::from_digest(hash), &sig, &key).is_ok()
        })
    }
}

/// Splits off what a direct push at the start of a script pushes: an opcode of 1 to 75 and so many bytes.
fn pushed(script: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = script.split_first()?;
    if (1..=75).contains(&length) { rest.split_at_checked(usize::from(length)) } else { None }
}

/// The signature without its hash type, if it is for the whole transaction and the key is of one of the two usual forms
/// and has this hash.
fn signature_for<'a>(key: &[u8], sig: &'a [u8], key_hash: &[u8]) -> Option<&'a [u8]> {
    let (&kind, der) = sig.split_last()?;
    let whole_key = matches!((key.len(), key.first()), (33, Some(2 | 3)) | (65, Some(4)));
    let known = kind == ALL && SIGNATURES.contains(&sig.len()) && whole_key;
    if !known || hash160::Hash::hash(key).as_byte_array() != key_hash {
        return None;
    }
    Some(der)
}

/// Key and signature, if the latter is encoded as BIP66 wants it.
fn parsed(key: &[u8], der: &[u8]) -> Option<(PublicKey, ecdsa::Signature)> {
    let key = PublicKey::from_slice(key).ok()?;
    let mut sig = ecdsa::Signature::from_der(der).ok()?;
    if sig.serialize_der().as_ref() != der {
        return None;
    }
    sig.normalize_s();
    Some((key, sig))
}

/// `OP_DUP OP_HASH160 <hash> OP_EQUALVERIFY OP_CHECKSIG`.
fn key_hash_script(key_hash: &[u8]) -> [u8; 25] {
    let mut script = [0; 25];
    script[..3].copy_from_slice(&[0x76, 0xa9, 20]);
    script[3..23].copy_from_slice(key_hash);
    script[23..].copy_from_slice(&[0x88, 0xac]);
    script
}

#[cfg(test)]
mod tests;
