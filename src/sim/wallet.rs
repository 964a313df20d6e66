//! Keys and scripts of the forge: one way to lock and to spend for each standard output type.
//!
//! Signatures are real. The keys come from a seed and are worth nothing.

use crate::rng::Rng;
use bitcoin::hashes::Hash;
use bitcoin::key::{Keypair, Secp256k1, TapTweak, TweakedKeypair, UntweakedPublicKey};
use bitcoin::opcodes::all as op;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::secp256k1::{All, Message, SecretKey};
use bitcoin::sighash::{Annex, EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::taproot::{LeafVersion, TapLeafHash, TaprootBuilder, TaprootSpendInfo};
use bitcoin::{Amount, OutPoint, PublicKey, Script, ScriptBuf, Transaction, TxOut, Witness};

/// The standard output types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum OutputKind {
    /// Pay to a bare public key.
    P2pk,
    /// Pay to a public key's hash.
    P2pkh,
    /// Bare 1-of-2 multisig.
    BareMultisig,
    /// BIP16 with a 2-of-3 multisig inside.
    P2shMultisig,
    /// BIP141 key hash within BIP16.
    P2shP2wpkh,
    /// BIP141 2-of-3 multisig within BIP16.
    P2shP2wsh,
    /// BIP141 key hash.
    P2wpkh,
    /// BIP141 script hash with a 2-of-3 multisig.
    P2wsh,
    /// BIP341, spent by key.
    P2trKey,
    /// BIP341, spent by a script (BIP342).
    P2trScript,
    /// Pay to anchor: anyone may spend it, with nothing.
    Anchor,
}

impl OutputKind {
    /// All that can be spent. (`OP_RETURN` outputs, which cannot, are added by the forge.)
    pub const ALL: [Self; 11] = [
        Self::P2pk,
        Self::P2pkh,
        Self::BareMultisig,
        Self::P2shMultisig,
        Self::P2shP2wpkh,
        Self::P2shP2wsh,
        Self::P2wpkh,
        Self::P2wsh,
        Self::P2trKey,
        Self::P2trScript,
        Self::Anchor,
    ];
}

/// An output of the forge: enough to spend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForgedCoin {
    /// Where it is.
    pub outpoint: OutPoint,
    /// Amount and script.
    pub output: TxOut,
    /// How it is locked.
    pub kind: OutputKind,
    /// Which of the wallet's key sets locks it.
    pub key: usize,
    /// The first height at which it may be spent.
    pub mature_at: u32,
}

/// Three keys and the scripts made of them.
#[derive(Debug)]
struct KeySet {
    pairs: [Keypair; 3],
    multisig: ScriptBuf,
    bare: ScriptBuf,
    tweaked: TweakedKeypair,
    leaf: ScriptBuf,
    spend_info: TaprootSpendInfo,
}

/// The forge's keys.
#[derive(Debug)]
pub struct Wallet {
    secp: Secp256k1<All>,
    sets: Vec<KeySet>,
}

fn multisig(required: i64, keys: &[PublicKey]) -> ScriptBuf {
    let mut script = Builder::new().push_int(required);
    for key in keys {
        script = script.push_key(key);
    }
    script.push_int(keys.len() as i64).push_opcode(op::OP_CHECKMULTISIG).into_script()
}

impl KeySet {
    fn new(secp: &Secp256k1<All>, rng: &mut Rng) -> Self {
        let pairs = [(); 3].map(|()| {
            loop {
                if let Ok(secret) = SecretKey::from_slice(&rng.array::<32>()) {
                    break Keypair::from_secret_key(secp, &secret);
                }
            }
        });
        let keys = pairs.map(|pair| PublicKey::new(pair.public_key()));
        let internal: UntweakedPublicKey = pairs[0].x_only_public_key().0;
        let leaf = Builder::new()
            .push_x_only_key(&pairs[1].x_only_public_key().0)
            .push_opcode(op::OP_CHECKSIG)
            .into_script();
        let spend_info = TaprootBuilder::new()
            .add_leaf(0, leaf.clone())
            .expect("one leaf at depth 0 is a tree")
            .finalize(secp, internal)
            .expect("a complete tree");
        Self {
            pairs,
            multisig: multisig(2, &keys),
            bare: multisig(1, &keys[..2]),
            tweaked: pairs[0].tap_tweak(secp, None),
            leaf,
            spend_info,
        }
    }

    fn key(&self) -> PublicKey {
        PublicKey::new(self.pairs[0].public_key())
    }

    fn p2wpkh(&self) -> ScriptBuf {
        ScriptBuf::new_p2wpkh(&self.key().wpubkey_hash().expect("compressed"))
    }
}

impl Wallet {
    /// `sets` key sets drawn from `rng`.
    pub fn new(rng: &mut Rng, sets: usize) -> Self {
        let secp = Secp256k1::new();
        let sets = (0..sets.max(1)).map(|_| KeySet::new(&secp, rng)).collect();
        Self { secp, sets }
    }

    /// How many key sets there are.
    pub fn key_sets(&self) -> usize {
        self.sets.len()
    }

    /// The script that locks an output of this kind.
    pub fn lock(&self, kind: OutputKind, key: usize) -> ScriptBuf {
        let set = &self.sets[key % self.sets.len()];
        match kind {
            OutputKind::P2pk => ScriptBuf::new_p2pk(&set.key()),
            OutputKind::P2pkh => ScriptBuf::new_p2pkh(&set.key().pubkey_hash()),
            OutputKind::BareMultisig => set.bare.clone(),
            OutputKind::P2shMultisig => set.multisig.to_p2sh(),
            OutputKind::P2shP2wpkh => set.p2wpkh().to_p2sh(),
            OutputKind::P2shP2wsh => set.multisig.to_p2wsh().to_p2sh(),
            OutputKind::P2wpkh => set.p2wpkh(),
            OutputKind::P2wsh => set.multisig.to_p2wsh(),
            OutputKind::P2trKey => ScriptBuf::new_p2tr_tweaked(set.tweaked.public_parts().0),
            OutputKind::P2trScript => ScriptBuf::new_p2tr_tweaked(set.spend_info.output_key()),
            OutputKind::Anchor => {
                Builder::new().push_opcode(op::OP_PUSHNUM_1).push_slice([0x4e, 0x73]).into_script()
            }
        }
    }

    /// Signs every input of `tx`, which spends `coins` in order, for the whole transaction.
    pub fn sign(&self, tx: &mut Transaction, coins: &[ForgedCoin]) {
        self.sign_as(tx, coins, WHOLE);
    }

    /// Signs every input as `what` says.
    pub(crate) fn sign_as(&self, tx: &mut Transaction, coins: &[ForgedCoin], what: Signs<'_>) {
        let outputs: Vec<TxOut> = coins.iter().map(|coin| coin.output.clone()).collect();
        let unsigned = tx.clone();
        let mut cache = SighashCache::new(&unsigned);
        for (index, coin) in coins.iter().enumerate() {
            let (script_sig, witness) = self.unlock(&mut cache, index, coin, &outputs, what);
            tx.input[index].script_sig = script_sig;
            tx.input[index].witness = witness;
        }
    }

    fn unlock(
        &self,
        cache: &mut SighashCache<&Transaction>,
        index: usize,
        coin: &ForgedCoin,
        outputs: &[TxOut],
        what: Signs<'_>,
    ) -> (ScriptBuf, Witness) {
        let set = &self.sets[coin.key % self.sets.len()];
        let amount = coin.output.value;
        match coin.kind {
            OutputKind::P2pk => {
                let sig = self.legacy(cache, index, &coin.output.script_pubkey, &set.pairs[0], what.ecdsa);
                (pushes(&[&sig]), Witness::new())
            }
            OutputKind::P2pkh => {
                let sig = self.legacy(cache, index, &coin.output.script_pubkey, &set.pairs[0], what.ecdsa);
                (pushes(&[&sig, &set.key().to_bytes()]), Witness::new())
            }
            OutputKind::BareMultisig => {
                let sig = self.legacy(cache, index, &set.bare, &set.pairs[1], what.ecdsa);
                (pushes(&[&[], &sig]), Witness::new())
            }
            OutputKind::P2shMultisig => {
                let first = self.legacy(cache, index, &set.multisig, &set.pairs[0], what.ecdsa);
                let second = self.legacy(cache, index, &set.multisig, &set.pairs[2], what.ecdsa);
                (pushes(&[&[], &first, &second, set.multisig.as_bytes()]), Witness::new())
            }
            OutputKind::P2shP2wpkh => {
                let inner = set.p2wpkh();
                (pushes(&[inner.as_bytes()]), self.key_hash(cache, index, &inner, amount, set, what.ecdsa))
            }
            OutputKind::P2wpkh => {
                (ScriptBuf::new(), self.key_hash(cache, index, &set.p2wpkh(), amount, set, what.ecdsa))
            }
            OutputKind::P2shP2wsh => {
                let inner = set.multisig.to_p2wsh();
                (pushes(&[inner.as_bytes()]), self.script_hash(cache, index, amount, set, what.ecdsa))
            }
            OutputKind::P2wsh => (ScriptBuf::new(), self.script_hash(cache, index, amount, set, what.ecdsa)),
            OutputKind::P2trKey => {
                let sig = self.taproot(cache, index, outputs, what, None, &set.tweaked.to_keypair());
                (ScriptBuf::new(), with_annex(&[sig], what))
            }
            OutputKind::P2trScript => (ScriptBuf::new(), self.tap_script(cache, index, outputs, set, what)),
            OutputKind::Anchor => (ScriptBuf::new(), Witness::new()),
        }
    }

    fn legacy(
        &self,
        cache: &SighashCache<&Transaction>,
        index: usize,
        code: &Script,
        pair: &Keypair,
        what: EcdsaSighashType,
    ) -> Vec<u8> {
        let hash = cache.legacy_signature_hash(index, code, what.to_u32()).expect("the input exists");
        self.ecdsa(hash.to_byte_array(), pair, what)
    }

    fn ecdsa(&self, digest: [u8; 32], pair: &Keypair, what: EcdsaSighashType) -> Vec<u8> {
        let sig = self.secp.sign_ecdsa(&Message::from_digest(digest), &pair.secret_key());
        let mut bytes = sig.serialize_der().to_vec();
        bytes.push(what.to_u32() as u8);
        bytes
    }

    fn key_hash(
        &self,
        cache: &mut SighashCache<&Transaction>,
        index: usize,
        script: &Script,
        amount: Amount,
        set: &KeySet,
        what: EcdsaSighashType,
    ) -> Witness {
        let hash = cache.p2wpkh_signature_hash(index, script, amount, what).expect("a key hash script");
        Witness::from_slice(&[self.ecdsa(hash.to_byte_array(), &set.pairs[0], what), set.key().to_bytes()])
    }

    fn script_hash(
        &self,
        cache: &mut SighashCache<&Transaction>,
        index: usize,
        amount: Amount,
        set: &KeySet,
        what: EcdsaSighashType,
    ) -> Witness {
        let hash = cache
            .p2wsh_signature_hash(index, &set.multisig, amount, what)
            .expect("the input exists")
            .to_byte_array();
        Witness::from_slice(&[
            Vec::new(),
            self.ecdsa(hash, &set.pairs[0], what),
            self.ecdsa(hash, &set.pairs[1], what),
            set.multisig.to_bytes(),
        ])
    }

    fn tap_script(
        &self,
        cache: &mut SighashCache<&Transaction>,
        index: usize,
        outputs: &[TxOut],
        set: &KeySet,
        what: Signs<'_>,
    ) -> Witness {
        let leaf = TapLeafHash::from_script(&set.leaf, LeafVersion::TapScript);
        let sig = self.taproot(cache, index, outputs, what, Some(leaf), &set.pairs[1]);
        let control = set
            .spend_info
            .control_block(&(set.leaf.clone(), LeafVersion::TapScript))
            .expect("the leaf is in the tree");
        with_annex(&[sig, set.leaf.to_bytes(), control.serialize()], what)
    }

    fn taproot(
        &self,
        cache: &mut SighashCache<&Transaction>,
        index: usize,
        outputs: &[TxOut],
        what: Signs<'_>,
        leaf: Option<TapLeafHash>,
        pair: &Keypair,
    ) -> Vec<u8> {
        let annex = what.annex.map(|bytes| Annex::new(bytes).expect("an annex"));
        let leaf = leaf.map(|leaf| (leaf, u32::MAX));
        let hash = cache.taproot_signature_hash(index, &Prevouts::All(outputs), annex, leaf, what.taproot);
        // SINGLE without an output of this index: there is nothing to sign.
        let hash = hash.map_or([0; 32], |hash| hash.to_byte_array());
        let sig = self.secp.sign_schnorr_no_aux_rand(&Message::from_digest(hash), pair).serialize();
        match what.taproot {
            TapSighashType::Default => sig.to_vec(),
            kind => [&sig[..], &[kind as u8]].concat(),
        }
    }
}

/// What signatures cover.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signs<'a> {
    pub(crate) ecdsa: EcdsaSighashType,
    pub(crate) taproot: TapSighashType,
    /// Of taproot inputs.
    pub(crate) annex: Option<&'a [u8]>,
}

#[cfg(all(test, feature = "consensus"))]
impl Signs<'_> {
    /// Every defined hash type, BIP341's default first.
    pub(crate) const ALL: [Self; 7] = [
        WHOLE,
        Self::of(EcdsaSighashType::All, TapSighashType::All),
        Self::of(EcdsaSighashType::None, TapSighashType::None),
        Self::of(EcdsaSighashType::Single, TapSighashType::Single),
        Self::of(EcdsaSighashType::AllPlusAnyoneCanPay, TapSighashType::AllPlusAnyoneCanPay),
        Self::of(EcdsaSighashType::NonePlusAnyoneCanPay, TapSighashType::NonePlusAnyoneCanPay),
        Self::of(EcdsaSighashType::SinglePlusAnyoneCanPay, TapSighashType::SinglePlusAnyoneCanPay),
    ];

    const fn of(ecdsa: EcdsaSighashType, taproot: TapSighashType) -> Self {
        Self { ecdsa, taproot, annex: None }
    }
}

const WHOLE: Signs<'static> =
    Signs { ecdsa: EcdsaSighashType::All, taproot: TapSighashType::Default, annex: None };

fn with_annex(items: &[Vec<u8>], what: Signs<'_>) -> Witness {
    let mut witness = Witness::from_slice(items);
    what.annex.into_iter().for_each(|annex| witness.push(annex));
    witness
}

fn pushes(items: &[&[u8]]) -> ScriptBuf {
    items
        .iter()
        .fold(Builder::new(), |script, item| {
            script.push_slice(PushBytesBuf::try_from(item.to_vec()).expect("under 520 bytes"))
        })
        .into_script()
}
