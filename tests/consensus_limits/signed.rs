//! Signatures, keys and control blocks in every form that consensus tells apart, spent in the block that
//! makes their output.

use super::draft::{Draft, output, push, script};
use super::edits::LEGACY;
use bitcoin::hashes::Hash;
use bitcoin::key::{Keypair, Secp256k1, TapTweak};
use bitcoin::secp256k1::{All, Message, SecretKey};
use bitcoin::sighash::{Annex, EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::taproot::{LeafVersion, TapLeafHash, TapNodeHash};
use bitcoin::{Script, ScriptBuf, Transaction, TxOut, Witness};

/// The input that is signed; the one before it is free for all.
const INPUT: usize = 1;
const CHECKSIG: u8 = 0xac;

/// How an output is unlocked: script and witness items.
type Unlock = Box<dyn Fn(&Spend<'_>) -> (Vec<u8>, Vec<Vec<u8>>) + Send + Sync>;

/// An output and one way to spend it.
pub struct Signed {
    pub name: String,
    /// Whether that is allowed today.
    #[allow(dead_code, reason = "beside a bitcoind it is the judge")]
    pub good: bool,
    lock: Vec<u8>,
    /// Outputs of the transaction that spends it.
    outputs: usize,
    unlock: Unlock,
}

/// What a signature is made for.
struct Spend<'a> {
    secp: &'a Secp256k1<All>,
    pair: &'a Keypair,
    tx: &'a Transaction,
    spent: &'a [TxOut],
}

impl Spend<'_> {
    fn ecdsa(&self, digest: [u8; 32], hash_type: u8) -> Vec<u8> {
        let sig = self.secp.sign_ecdsa(&Message::from_digest(digest), &self.pair.secret_key());
        let mut bytes = sig.serialize_der().to_vec();
        bytes.push(hash_type);
        bytes
    }

    fn legacy(&self, code: &[u8], hash_type: u8) -> Vec<u8> {
        let cache = SighashCache::new(self.tx);
        let hash = cache.legacy_signature_hash(INPUT, Script::from_bytes(code), u32::from(hash_type));
        self.ecdsa(hash.expect("the input exists").to_byte_array(), hash_type)
    }

    fn version_0(&self, code: &[u8], hash_type: u8) -> Vec<u8> {
        let mut cache = SighashCache::new(self.tx);
        let standard = EcdsaSighashType::from_consensus(u32::from(hash_type));
        let value = self.spent[INPUT].value;
        let hash = cache.p2wsh_signature_hash(INPUT, Script::from_bytes(code), value, standard);
        self.ecdsa(hash.expect("the input exists").to_byte_array(), hash_type)
    }

    /// By key, or for a leaf with the position of the last code separator.
    fn schnorr(
        &self,
        annex: Option<&[u8]>,
        leaf: Option<(&[u8], u32)>,
        hash_type: TapSighashType,
    ) -> Vec<u8> {
        let mut cache = SighashCache::new(self.tx);
        let annex = annex.map(|annex| Annex::new(annex).expect("it begins with 0x50"));
        let leaf_hash = leaf.map(|(leaf, at)| (leaf_hash(leaf), at));
        let prevouts = Prevouts::All(self.spent);
        // Nothing is signed by SINGLE without an output: any message will do.
        let hash = cache.taproot_signature_hash(INPUT, &prevouts, annex, leaf_hash, hash_type);
        let message = Message::from_digest(hash.map_or([1; 32], |hash| hash.to_byte_array()));
        let pair = match leaf {
            Some(_) => *self.pair,
            None => self.pair.tap_tweak(self.secp, None).to_keypair(),
        };
        let mut bytes = self.secp.sign_schnorr_no_aux_rand(&message, &pair).serialize().to_vec();
        if hash_type != TapSighashType::Default {
            bytes.push(hash_type as u8);
        }
        bytes
    }
}

fn leaf_hash(leaf: &[u8]) -> TapLeafHash {
    TapLeafHash::from_script(Script::from_bytes(leaf), LeafVersion::TapScript)
}

/// Puts the output and the transaction that spends it at the block's end.
pub fn spend(draft: &mut Draft<'_>, case: &Signed) -> bool {
    let kinds: &[_] = if draft.place.segwit { &[] } else { &LEGACY };
    let locks = vec![script(&[0x51]), ScriptBuf::from_bytes(case.lock.clone())];
    let Some(funds) = draft.fund(kinds, locks) else { return false };
    let nothing = || (Vec::new(), Witness::new());
    let at = draft.redeem(&funds, vec![nothing(), nothing()], script(&[0x51]));
    let tx = &mut draft.block.txdata[at];
    let share = tx.output[0].value.to_sat() / case.outputs as u64;
    tx.output = vec![output(share, script(&[0x51])); case.outputs];
    let secp = Secp256k1::new();
    let pair = pair(&secp);
    let (script_sig, witness) =
        (case.unlock)(&Spend { secp: &secp, pair: &pair, tx: &tx.clone(), spent: &funds.output });
    if !draft.place.segwit && !witness.is_empty() {
        return false;
    }
    tx.input[INPUT].script_sig = ScriptBuf::from_bytes(script_sig);
    tx.input[INPUT].witness = Witness::from_slice(&witness);
    true
}

fn pair(secp: &Secp256k1<All>) -> Keypair {
    Keypair::from_secret_key(secp, &SecretKey::from_slice(&[7; 32]).expect("a key"))
}

/// The public key: compressed, uncompressed, and hybrid with the right parity and with the wrong one.
fn keys() -> [Vec<u8>; 4] {
    let key = pair(&Secp256k1::new()).public_key();
    let full = key.serialize_uncompressed().to_vec();
    let hybrid = |parity: u8| [vec![6 + parity], full[1..].to_vec()].concat();
    let parity = key.serialize()[0] - 2;
    [key.serialize().to_vec(), full.clone(), hybrid(parity), hybrid(1 - parity)]
}

/// `key CHECKSIG`.
fn check(key: &[u8]) -> Vec<u8> {
    [push(key), vec![CHECKSIG]].concat()
}

/// All cases, in an order that does not change.
pub fn cases() -> Vec<Signed> {
    let mut found = Vec::new();
    ecdsa_hash_types(&mut found);
    ecdsa_encodings(&mut found);
    key_forms(&mut found);
    multisig(&mut found);
    tap_keys(&mut found);
    tap_leaves(&mut found);
    tap_controls(&mut found);
    found
}

fn add(
    found: &mut Vec<Signed>,
    name: impl Into<String>,
    good: bool,
    lock: Vec<u8>,
    outputs: usize,
    unlock: impl Fn(&Spend<'_>) -> (Vec<u8>, Vec<Vec<u8>>) + Send + Sync + 'static,
) {
    found.push(Signed { name: name.into(), good, lock, outputs, unlock: Box::new(unlock) });
}

fn ecdsa_hash_types(found: &mut Vec<Signed>) {
    let code = check(&keys()[0]);
    // Before taproot any byte is a hash type. SINGLE without an output signs the number one.
    for hash_type in [0, 1, 2, 3, 4, 0x1f, 0x20, 0x80, 0x81, 0x82, 0x83, 0xff] {
        for outputs in [1, 2] {
            let signed = code.clone();
            add(
                found,
                format!("legacy {hash_type:#x} {outputs}"),
                true,
                code.clone(),
                outputs,
                move |spend| (push(&spend.legacy(&signed, hash_type)), vec![]),
            );
        }
    }
    let lock = script(&code).to_p2wsh().to_bytes();
    for hash_type in [1, 2, 3, 0x81, 0x82, 0x83] {
        for outputs in [1, 2] {
            let signed = code.clone();
            add(found, format!("v0 {hash_type:#x} {outputs}"), true, lock.clone(), outputs, move |spend| {
                (vec![], vec![spend.version_0(&signed, hash_type), signed.clone()])
            });
        }
    }
}

/// What makes another thing of a right one.
type Edit = fn(&mut Vec<u8>);
type Change = (&'static str, bool, Edit);

fn ecdsa_encodings(found: &mut Vec<Signed>) {
    let changes: [Change; 11] = [
        ("as it is", true, |_| {}),
        ("high S", true, high_s),
        ("another hash type", false, |sig| *sig.last_mut().expect("a byte") = 2),
        ("without a hash type", false, |sig| sig.truncate(sig.len() - 1)),
        ("empty", false, Vec::clear),
        ("one byte", false, |sig| sig.truncate(1)),
        ("padded R", false, |sig| {
            sig[1] += 1;
            sig[3] += 1;
            sig.insert(4, 0);
        }),
        ("wrong length inside", false, |sig| sig[1] += 1),
        ("another tag", false, |sig| sig[0] = 0x31),
        ("a byte too many", false, |sig| sig.insert(sig.len() - 1, 0)),
        ("other R", false, |sig| sig[8] ^= 4),
    ];
    let code = check(&keys()[0]);
    let lock = script(&code).to_p2wsh().to_bytes();
    for (name, good, change) in changes {
        let signed = code.clone();
        add(found, format!("legacy, {name}"), good, code.clone(), 1, move |spend| {
            let mut sig = spend.legacy(&signed, 1);
            change(&mut sig);
            (push(&sig), vec![])
        });
        let signed = code.clone();
        add(found, format!("v0, {name}"), good, lock.clone(), 1, move |spend| {
            let mut sig = spend.version_0(&signed, 1);
            change(&mut sig);
            (vec![], vec![sig, signed.clone()])
        });
    }
    // A signature that need not be good.
    let not = [check(&keys()[0]), vec![0x91]].concat();
    for (name, good, sig) in [("empty", true, vec![]), ("no DER", false, vec![1, 2, 3])] {
        add(found, format!("legacy, not {name}"), good, not.clone(), 1, move |_| (push(&sig), vec![]));
    }
    // What is signed begins behind the code separator.
    let separated = [vec![0xab], check(&keys()[0])].concat();
    for (name, good, from) in [("behind", true, 1), ("with", false, 0)] {
        let code = separated.clone();
        add(found, format!("legacy, {name} the separator"), good, separated.clone(), 1, move |spend| {
            (push(&spend.legacy(&code[from..], 1)), vec![])
        });
    }
}

fn high_s(sig: &mut Vec<u8>) {
    let hash_type = sig.pop().expect("a byte");
    let parsed = bitcoin::secp256k1::ecdsa::Signature::from_der(sig).expect("just made");
    let mut compact = parsed.serialize_compact();
    let s = SecretKey::from_slice(&compact[32..]).expect("in range").negate();
    compact[32..].copy_from_slice(&s.secret_bytes());
    let high = bitcoin::secp256k1::ecdsa::Signature::from_compact(&compact).expect("in range");
    *sig = high.serialize_der().to_vec();
    sig.push(hash_type);
}

fn key_forms(found: &mut Vec<Signed>) {
    let [compressed, full, hybrid, wrong] = keys();
    let mut other = compressed.clone();
    other[0] ^= 1;
    let forms = [
        ("compressed", true, compressed.clone()),
        ("uncompressed", true, full),
        ("hybrid", true, hybrid),
        ("hybrid of the wrong parity", false, wrong),
        ("the other parity", false, other),
        ("32 bytes", false, compressed[..32].to_vec()),
        ("34 bytes", false, [compressed, vec![0]].concat()),
    ];
    for (name, good, key) in forms {
        let code = check(&key);
        let lock = script(&code).to_p2wsh().to_bytes();
        let signed = code.clone();
        add(found, format!("legacy key, {name}"), good, code.clone(), 1, move |spend| {
            (push(&spend.legacy(&signed, 1)), vec![])
        });
        add(found, format!("v0 key, {name}"), good, lock, 1, move |spend| {
            (vec![], vec![spend.version_0(&code, 1), code.clone()])
        });
    }
}

fn multisig(found: &mut Vec<Signed>) {
    let key = push(&keys()[0]);
    let multisig = |required: u8, count: u8| {
        let keys = key.repeat(usize::from(count));
        [push(&[required]), keys, push(&[count]), vec![0xae]].concat()
    };
    for (required, count, good) in
        [(1, 20, true), (1, 21, false), (20, 20, true), (2, 1, false), (0, 0, true)]
    {
        let lock = multisig(required, count);
        let code = lock.clone();
        add(found, format!("{required} of {count} keys"), good, lock, 1, move |spend| {
            let sig = push(&spend.legacy(&code, 1));
            ([vec![0], sig.repeat(usize::from(required))].concat(), vec![])
        });
    }
    let code = multisig(1, 1);
    for (name, good, dummy) in [("empty", true, vec![]), ("zero", false, vec![0]), ("one", false, vec![1])] {
        let signed = code.clone();
        let lock = script(&code).to_p2wsh().to_bytes();
        add(found, format!("v0 multisig, dummy {name}"), good, lock, 1, move |spend| {
            (vec![], vec![dummy.clone(), spend.version_0(&signed, 1), signed.clone()])
        });
    }
}

fn tap_keys(found: &mut Vec<Signed>) {
    use TapSighashType::{All, AllPlusAnyoneCanPay, Default, None, NonePlusAnyoneCanPay, Single};
    let secp = Secp256k1::new();
    let internal = pair(&secp).x_only_public_key().0;
    let lock = ScriptBuf::new_p2tr(&secp, internal, Option::None).to_bytes();
    let single_pay = TapSighashType::SinglePlusAnyoneCanPay;
    for hash_type in [Default, All, None, Single, AllPlusAnyoneCanPay, NonePlusAnyoneCanPay, single_pay] {
        for outputs in [1, 2] {
            let good = outputs == 2 || !matches!(hash_type, Single | TapSighashType::SinglePlusAnyoneCanPay);
            let name = format!("taproot {:#x} {outputs}", hash_type as u8);
            add(found, name, good, lock.clone(), outputs, move |spend| {
                (vec![], vec![spend.schnorr(Option::None, Option::None, hash_type)])
            });
        }
    }
    let changes: [Change; 8] = [
        ("with a zero hash type", false, |sig| sig.push(0)),
        ("with hash type 4", false, |sig| sig.push(4)),
        ("with hash type 0x80", false, |sig| sig.push(0x80)),
        ("with another hash type", false, |sig| sig.push(1)),
        ("of 63 bytes", false, |sig| sig.truncate(63)),
        ("of 66 bytes", false, |sig| sig.extend([1, 1])),
        ("empty", false, Vec::clear),
        ("with another bit", false, |sig| sig[40] ^= 1),
    ];
    for (name, good, change) in changes {
        add(found, format!("taproot, {name}"), good, lock.clone(), 1, move |spend| {
            let mut sig = spend.schnorr(Option::None, Option::None, Default);
            change(&mut sig);
            (vec![], vec![sig])
        });
    }
    const ANNEX: &[u8] = &[0x50, 1, 2, 3];
    for (name, good, signed, shown) in [
        ("annex", true, true, true),
        ("annex that is not signed", false, false, true),
        ("annex that is missing", false, true, false),
    ] {
        add(found, format!("taproot, {name}"), good, lock.clone(), 1, move |spend| {
            let mut items = vec![spend.schnorr(signed.then_some(ANNEX), Option::None, Default)];
            items.extend(shown.then(|| ANNEX.to_vec()));
            (vec![], items)
        });
    }
}

/// An output that commits to one leaf at this depth, and the control block that shows it.
fn tap_tree(leaf: &[u8], depth: usize) -> (Vec<u8>, Vec<u8>) {
    let secp = Secp256k1::new();
    let internal = pair(&secp).x_only_public_key().0;
    let sibling = TapNodeHash::from_byte_array([9; 32]);
    let root = (0..depth)
        .fold(TapNodeHash::from(leaf_hash(leaf)), |node, _| TapNodeHash::from_node_hashes(node, sibling));
    let (key, parity) = internal.tap_tweak(&secp, Some(root));
    let mut control = vec![0xc0 | parity.to_u8()];
    control.extend(internal.serialize());
    control.extend([9; 32].repeat(depth));
    (ScriptBuf::new_p2tr_tweaked(key).to_bytes(), control)
}

/// Name, good, leaf, how many signatures, position that is signed, change.
type Leaf = (&'static str, bool, Vec<u8>, usize, u32, Edit);

fn tap_leaves(found: &mut Vec<Signed>) {
    let key = pair(&Secp256k1::new()).x_only_public_key().0.serialize().to_vec();
    let last = u32::MAX;
    let separated = [vec![0xab], check(&key)].concat();
    let twice = [check(&key), push(&key), vec![0xba, 0x52, 0x9c]].concat();
    let unless = [check(&key), vec![0x91]].concat();
    let unknown = check(&[&[2], &key[..]].concat());
    let cases: [Leaf; 13] = [
        ("signature", true, check(&key), 1, last, |_| {}),
        ("empty signature", false, check(&key), 1, last, Vec::clear),
        ("broken signature", false, check(&key), 1, last, |sig| sig[3] ^= 1),
        ("signature of 65 bytes", false, check(&key), 1, last, |sig| sig.push(0)),
        ("no signature wanted", true, unless.clone(), 1, last, Vec::clear),
        ("broken signature where none is wanted", false, unless, 1, last, |sig| sig[3] ^= 1),
        ("separator", true, separated.clone(), 1, 0, |_| {}),
        ("separator that is not signed", false, separated, 1, last, |_| {}),
        ("two signatures", true, twice.clone(), 2, last, |_| {}),
        ("two signatures, empty", false, twice, 2, last, Vec::clear),
        ("key of 33 bytes", true, unknown.clone(), 1, last, |sig| sig[3] ^= 1),
        ("key of 33 bytes, empty signature", false, unknown, 1, last, Vec::clear),
        ("empty key", false, vec![0, CHECKSIG], 1, last, |_| {}),
    ];
    for (name, good, leaf, count, position, change) in cases {
        let (lock, control) = tap_tree(&leaf, 0);
        add(found, format!("tapscript, {name}"), good, lock, 1, move |spend| {
            let mut sig = spend.schnorr(None, Some((&leaf, position)), TapSighashType::Default);
            change(&mut sig);
            (vec![], [vec![sig; count], vec![leaf.clone(), control.clone()]].concat())
        });
    }
}

fn tap_controls(found: &mut Vec<Signed>) {
    let cases: [(&str, bool, usize, Edit); 8] = [
        ("depth 1", true, 1, |_| {}),
        ("depth 128", true, 128, |_| {}),
        ("depth 129", false, 129, |_| {}),
        ("wrong parity", false, 1, |control| control[0] ^= 1),
        ("a byte too many", false, 1, |control| control.push(0)),
        ("a byte too few", false, 1, |control| control.truncate(control.len() - 1)),
        ("another sibling", false, 1, |control| control[40] ^= 1),
        ("another leaf version", false, 1, |control| control[0] ^= 2),
    ];
    for (name, good, depth, change) in cases {
        let leaf = vec![0x51];
        let (lock, mut control) = tap_tree(&leaf, depth);
        change(&mut control);
        add(found, format!("control block, {name}"), good, lock, 1, move |_| {
            (vec![], vec![leaf.clone(), control.clone()])
        });
    }
}
