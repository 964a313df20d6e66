//! Signatures of every hash type, and which changes of the transaction each of them allows.

use super::cases::{AT, VALUE, changed, spent, unsigned};
use super::{Case, Expected};
use crate::chain::deployments::ScriptFlags;
use crate::rng::Rng;
use bitcoin::hashes::Hash;
use bitcoin::key::{Keypair, Secp256k1, TapTweak};
use bitcoin::script::PushBytesBuf;
use bitcoin::secp256k1::{All, Message, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::{Amount, PublicKey, ScriptBuf, Sequence, Transaction, TxOut, Witness};

/// The bits of a hash type.
const NONE: u8 = 2;
const SINGLE: u8 = 3;
const ANYONE_CAN_PAY: u8 = 0x80;

/// How the output is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lock {
    P2pkh,
    P2wpkh,
    P2tr,
}

/// One key, and signing by it.
pub(super) struct Signer {
    secp: Secp256k1<All>,
    pair: Keypair,
}

impl Signer {
    /// A key from the generator.
    pub(super) fn new(rng: &mut Rng) -> Self {
        let secp = Secp256k1::new();
        loop {
            if let Ok(secret) = SecretKey::from_slice(&rng.array::<32>()) {
                return Self { pair: Keypair::from_secret_key(&secp, &secret), secp };
            }
        }
    }

    pub(super) fn key(&self) -> PublicKey {
        PublicKey::new(self.pair.public_key())
    }

    /// A signature (DER) over a digest, with its hash type behind it.
    pub(super) fn ecdsa(&self, digest: [u8; 32], hash_type: u8) -> Vec<u8> {
        let signature = self.secp.sign_ecdsa(&Message::from_digest(digest), &self.pair.secret_key());
        [&signature.serialize_der()[..], &[hash_type]].concat()
    }

    fn lock(&self, lock: Lock) -> Option<ScriptBuf> {
        Some(match lock {
            Lock::P2pkh => ScriptBuf::new_p2pkh(&self.key().pubkey_hash()),
            Lock::P2wpkh => ScriptBuf::new_p2wpkh(&self.key().wpubkey_hash().ok()?),
            Lock::P2tr => {
                let tweaked = self.pair.tap_tweak(&self.secp, None);
                ScriptBuf::new_p2tr_tweaked(tweaked.public_parts().0)
            }
        })
    }

    /// Signs the input that is looked at; `None` if there is nothing to sign.
    fn sign(&self, tx: &mut Transaction, spent: &[TxOut], lock: Lock, hash_type: u8) -> Option<()> {
        let script = spent.get(AT)?.script_pubkey.clone();
        let unsigned = tx.clone();
        let mut cache = SighashCache::new(&unsigned);
        let input = tx.input.get_mut(AT)?;
        match lock {
            Lock::P2pkh => {
                let hash = cache.legacy_signature_hash(AT, &script, hash_type.into()).ok()?;
                let sig = PushBytesBuf::try_from(self.ecdsa(hash.to_byte_array(), hash_type)).ok()?;
                let builder = bitcoin::script::Builder::new().push_slice(sig);
                input.script_sig = builder.push_key(&self.key()).into_script();
            }
            Lock::P2wpkh => {
                let kind = EcdsaSighashType::from_standard(hash_type.into()).ok()?;
                let hash = cache.p2wpkh_signature_hash(AT, &script, Amount::from_sat(VALUE), kind).ok()?;
                let sig = self.ecdsa(hash.to_byte_array(), hash_type);
                input.witness = Witness::from_slice(&[sig, self.key().to_bytes()]);
            }
            Lock::P2tr => {
                let kind = TapSighashType::from_consensus_u8(hash_type).ok()?;
                let hash = cache.taproot_key_spend_signature_hash(AT, &Prevouts::All(spent), kind).ok()?;
                let message = Message::from_digest(hash.to_byte_array());
                let pair = self.pair.tap_tweak(&self.secp, None).to_keypair();
                let mut sig = self.secp.sign_schnorr_no_aux_rand(&message, &pair).serialize().to_vec();
                sig.extend((hash_type != 0).then_some(hash_type));
                input.witness = Witness::from_slice(&[sig]);
            }
        }
        Some(())
    }
}

/// Every way to lock with every hash type, and the changes that it allows and forbids.
pub(super) fn cases(seed: u64) -> Vec<Case> {
    let mut rng = Rng::from_number(seed);
    let signer = Signer::new(&mut rng);
    let mut cases = Vec::new();
    for lock in [Lock::P2pkh, Lock::P2wpkh, Lock::P2tr] {
        // Types that no standard knows are taken before segwit: all that is not NONE or SINGLE is ALL.
        let others: &[u8] = match lock {
            Lock::P2pkh => &[0, 4, 0x20, 0x7f, 0xff],
            Lock::P2wpkh => &[],
            Lock::P2tr => &[0],
        };
        for &hash_type in [1, 2, 3, 0x81, 0x82, 0x83].iter().chain(others) {
            for outputs in [3, 1] {
                cases.extend(of_hash_type(&signer, &mut rng, lock, hash_type, outputs));
            }
        }
    }
    cases
}

/// A spend with this hash type by a transaction of so many outputs, and its changes.
fn of_hash_type(signer: &Signer, rng: &mut Rng, lock: Lock, hash_type: u8, outputs: usize) -> Vec<Case> {
    let mut tx = unsigned(rng);
    tx.output.truncate(outputs);
    let Some(spent) = signer.lock(lock).map(spent) else { return Vec::new() };
    // Taproot has no signature for an output that is not there.
    let Some(()) = signer.sign(&mut tx, &spent, lock, hash_type) else { return Vec::new() };
    let name = format!("{lock:?} with hash type {hash_type:#04x} and {outputs} outputs");
    let signed = Case { name, tx, spent, flags: ScriptFlags::ALL, expected: Expected::Valid };

    let (base, alone) = (hash_type & 0x1f, hash_type & ANYONE_CAN_PAY != 0);
    // Before segwit, SINGLE without an output of its own signs the number one: nothing at all.
    let nothing = lock == Lock::P2pkh && base == SINGLE && outputs <= AT;
    let one = Amount::from_sat(1);
    let mut cases = vec![
        changed(&signed, "another first output", nothing || base == NONE || base == SINGLE, |case| {
            case.tx.output[0].value += one;
        }),
        changed(
            &signed,
            "another sequence number before",
            nothing || alone || (lock != Lock::P2tr && (base == NONE || base == SINGLE)),
            |case| case.tx.input[0].sequence = Sequence::MAX,
        ),
        changed(&signed, "another outpoint before", nothing || alone, |case| {
            case.tx.input[0].previous_output.vout ^= 1;
        }),
        changed(&signed, "another amount spent before", lock != Lock::P2tr || alone, |case| {
            case.spent[0].value += one;
        }),
        changed(&signed, "an input more", nothing || alone, |case| {
            case.tx.input.push(case.tx.input[2].clone());
            case.spent.push(case.spent[2].clone());
        }),
        changed(&signed, "another sequence number of its own", nothing, |case| {
            case.tx.input[AT].sequence = Sequence::MAX;
        }),
    ];
    if outputs > AT {
        cases.push(changed(&signed, "another output of its own", base == NONE, |case| {
            case.tx.output[AT].value += one;
        }));
    }
    cases.push(signed);
    cases
}
