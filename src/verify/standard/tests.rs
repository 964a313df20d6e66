//! The known forms, whole and changed, beside the interpreter.

use super::*;
use crate::rng::Rng;
use crate::sim::wallet::{ForgedCoin, OutputKind, Signs, Wallet};
use crate::verify::interpreter::Whole;
use bitcoin::absolute::LockTime;
use bitcoin::secp256k1::{Keypair, SecretKey};
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Txid, transaction};

const DIRECT: [OutputKind; 7] = [
    OutputKind::P2pkh,
    OutputKind::P2wpkh,
    OutputKind::P2shP2wpkh,
    OutputKind::P2wsh,
    OutputKind::P2shP2wsh,
    OutputKind::P2trKey,
    OutputKind::P2trScript,
];

/// A signed transaction and what it spends.
#[derive(Clone)]
struct Spend {
    tx: Transaction,
    coins: Vec<ForgedCoin>,
    spent: Vec<TxOut>,
    flags: ScriptFlags,
}

impl Spend {
    fn new(wallet: &Wallet, rng: &mut Rng, kinds: &[OutputKind]) -> Self {
        let coin = |(n, &kind): (usize, &OutputKind)| ForgedCoin {
            outpoint: OutPoint::new(Txid::from_byte_array([n as u8; 32]), n as u32),
            output: TxOut { value: Amount::from_sat(1_000), script_pubkey: wallet.lock(kind, n) },
            kind,
            key: n,
            mature_at: 0,
        };
        let coins: Vec<ForgedCoin> = kinds.iter().enumerate().map(coin).collect();
        let input = |coin: &ForgedCoin| TxIn {
            previous_output: coin.outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence(rng.u64() as u32),
            witness: Witness::new(),
        };
        let mut tx = Transaction {
            version: transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input: coins.iter().map(input).collect(),
            output: vec![TxOut {
                value: Amount::from_sat(900),
                script_pubkey: ScriptBuf::from(vec![0x51; 22]),
            }],
        };
        wallet.sign(&mut tx, &coins);
        let spent = coins.iter().map(|coin| coin.output.clone()).collect();
        Self { tx, coins, spent, flags: ScriptFlags::ALL }
    }

    fn judge(&self, verifier: &dyn Verifier) -> Result<Verdict, VerifierError> {
        let raw = bitcoin::consensus::serialize(&self.tx);
        verifier.verify(&[TxScripts { tx: &self.tx, raw: &raw, spent: &self.spent, flags: self.flags }])
    }

    /// Which inputs are taken without the interpreter.
    fn direct(&self) -> Vec<bool> {
        let raw = bitcoin::consensus::serialize(&self.tx);
        let scripts = TxScripts { tx: &self.tx, raw: &raw, spent: &self.spent, flags: self.flags };
        let mut hashes = SighashCache::new(&self.tx);
        let verifier = StandardVerifier::with_cache(0);
        (0..self.spent.len()).map(|input| verifier.is_signed(&scripts, &mut hashes, input)).collect()
    }
}

#[test]
fn the_known_forms_need_no_interpreter_and_the_others_do() {
    let mut rng = Rng::from_number(1);
    let wallet = Wallet::new(&mut rng, 4);
    let spend = Spend::new(&wallet, &mut rng, &OutputKind::ALL);
    assert_eq!(spend.judge(&StandardVerifier::default()), Ok(Verdict::Valid));
    let known: Vec<bool> = OutputKind::ALL.iter().map(|kind| DIRECT.contains(kind)).collect();
    assert_eq!(spend.direct(), known);
}

/// What is not covered may change after signing, and what is covered may not; an annex is covered, and an output of the
/// input's number that is not there is nothing (BIP341), zero (BIP143) or the old number one.
#[test]
fn signatures_of_every_hash_type_get_the_verdict_of_the_interpreter() {
    let (mut direct, mut valid) = ([[0; 7]; 7], 0);
    for seed in 0..3_000 {
        let mut rng = Rng::from_number(seed);
        let wallet = Wallet::new(&mut rng, 2);
        let forms: Vec<usize> = (0..1 + rng.below(3)).map(|_| rng.below(7) as usize).collect();
        let kinds: Vec<OutputKind> = forms.iter().map(|form| DIRECT[*form]).collect();
        let mut spend = Spend::new(&wallet, &mut rng, &kinds);
        let which = rng.below(7) as usize;
        let annex = [&[0x50][..], &rng.array::<3>()].concat();
        let annex = (rng.below(3) == 0).then_some(&annex[..]);
        wallet.sign_as(&mut spend.tx, &spend.coins, Signs { annex, ..Signs::ALL[which] });
        for _ in 0..rng.below(2) {
            match rng.below(4) {
                0 => spend.tx.output.push(spend.spent[0].clone()),
                1 => spend.tx.output.clear(),
                2 => spend.tx.input.last_mut().unwrap().sequence = Sequence(7),
                _ => change(&mut spend, &mut rng),
            }
        }
        let verdict = spend.judge(&StandardVerifier::with_cache(0));
        assert_eq!(verdict, spend.judge(&Interpreter), "seed {seed}");
        let raw = bitcoin::consensus::serialize(&spend.tx);
        let scripts = TxScripts { tx: &spend.tx, raw: &raw, spent: &spend.spent, flags: spend.flags };
        for (input, taken) in spend.direct().into_iter().enumerate() {
            let passes = Whole::of(scripts).unwrap().succeeds(input).unwrap();
            assert!(!taken || passes, "seed {seed}: input {input}");
            direct[forms[input]][which] += u32::from(taken);
            valid += u32::from(passes);
        }
    }
    let taken: u32 = direct.as_flattened().iter().sum();
    assert!(direct.as_flattened().iter().all(|count| *count > 20), "{direct:?}");
    assert!(taken * 20 > valid * 19, "{taken} of {valid}");
}

#[test]
fn a_good_signature_is_checked_once_and_a_bad_one_each_time() {
    let verifier = StandardVerifier::with_cache(1_000);
    let good = |signature: &[u8], check: fn() -> bool| {
        verifier.is_good_once(ECDSA, &[1; 32], &[2; 33], signature, check)
    };
    assert!(good(&[3; 64], || true));
    assert!(good(&[3; 64], || panic!("checked again")));
    assert!(!good(&[4; 64], || false));
    assert!(good(&[4; 64], || true));
    // A clone knows what the other does.
    assert!(verifier.clone().is_good_once(ECDSA, &[1; 32], &[2; 33], &[4; 64], || false));
    assert!(!verifier.is_good_once(BIP340, &[1; 32], &[2; 33], &[4; 64], || false));
}

#[test]
fn without_the_soft_fork_its_forms_are_left_to_the_interpreter() {
    let mut rng = Rng::from_number(2);
    let wallet = Wallet::new(&mut rng, 4);
    let mut spend = Spend::new(&wallet, &mut rng, &DIRECT);
    for (flags, direct) in [
        (ScriptFlags::NONE, [true, false, false, false, false, false, false]),
        (ScriptFlags::P2SH.with(ScriptFlags::DERSIG), [true, false, false, false, false, false, false]),
        (ScriptFlags::P2SH.with(ScriptFlags::WITNESS), [true, true, true, true, true, false, false]),
        (ScriptFlags::ALL, [true; 7]),
    ] {
        spend.flags = flags;
        assert_eq!(spend.direct(), direct, "{flags:?}");
    }
}

#[test]
fn a_transaction_that_cannot_be_asked_about_gets_no_verdict() {
    let mut rng = Rng::from_number(3);
    let wallet = Wallet::new(&mut rng, 4);
    let spend = Spend::new(&wallet, &mut rng, &DIRECT);
    let short = Spend { spent: spend.spent[1..].to_vec(), ..spend.clone() };
    let bare_witness = Spend { flags: ScriptFlags::WITNESS, ..spend.clone() };
    let unknown = Spend { flags: ScriptFlags(1 << 30), ..spend };
    for spend in [short, bare_witness, unknown] {
        assert!(spend.judge(&StandardVerifier::default()).is_err());
        assert_eq!(spend.judge(&StandardVerifier::default()), spend.judge(&Interpreter));
    }
}

/// Signatures, keys, hash types, encodings, scripts, amounts and flags, one or two of them changed: the verdict is
/// the interpreter's, and what needs no interpreter would have passed it.
#[test]
fn changed_spends_get_the_verdict_of_the_interpreter() {
    let mut direct = 0;
    let mut invalid = 0;
    // Remembers the spends before they were changed.
    let warm = StandardVerifier::with_cache(1_000);
    for seed in 0..10_000 {
        let mut rng = Rng::from_number(seed);
        let wallet = Wallet::new(&mut rng, 2);
        let kinds: Vec<OutputKind> =
            (0..1 + rng.below(3)).map(|_| DIRECT[rng.below(DIRECT.len() as u64) as usize]).collect();
        let mut spend = Spend::new(&wallet, &mut rng, &kinds);
        assert_eq!(spend.judge(&warm), Ok(Verdict::Valid));
        for _ in 0..1 + rng.below(2) {
            change(&mut spend, &mut rng);
        }
        let verdict = spend.judge(&StandardVerifier::with_cache(0));
        assert_eq!(verdict, spend.judge(&Interpreter), "seed {seed}");
        assert_eq!(verdict, spend.judge(&warm), "seed {seed}");
        let raw = bitcoin::consensus::serialize(&spend.tx);
        let scripts = TxScripts { tx: &spend.tx, raw: &raw, spent: &spend.spent, flags: spend.flags };
        for (input, taken) in spend.direct().into_iter().enumerate() {
            let passes = Whole::of(scripts).unwrap().succeeds(input).unwrap();
            assert!(!taken || passes, "seed {seed}: input {input}");
            direct += u32::from(taken);
            invalid += u32::from(!passes);
        }
    }
    // Both happen often, or the test shows nothing.
    assert!(direct > 3_000 && invalid > 3_000, "{direct} taken, {invalid} invalid");
}

/// Changes something about one input.
fn change(spend: &mut Spend, rng: &mut Rng) {
    let index = rng.below(spend.tx.input.len() as u64) as usize;
    match rng.below(12) {
        0 => spend.spent[index].value = Amount::from_sat(rng.below(2_000)),
        1 => {
            let mut script = spend.spent[index].script_pubkey.to_bytes();
            flip(&mut script, rng);
            spend.spent[index].script_pubkey = script.into();
        }
        2 => {
            let all = [
                ScriptFlags::DERSIG,
                ScriptFlags::NULLDUMMY,
                ScriptFlags::P2SH,
                ScriptFlags::P2SH.with(ScriptFlags::WITNESS),
                ScriptFlags::ALL,
            ];
            spend.flags =
                all.into_iter().filter(|_| rng.below(2) == 0).fold(ScriptFlags::NONE, ScriptFlags::with);
        }
        3 => spend.tx.output[0].value = Amount::from_sat(rng.below(1_000)),
        4 => spend.tx.lock_time = LockTime::from_consensus(rng.u64() as u32),
        5 => spend.tx.input.swap(0, index),
        _ => items(spend, index, rng),
    }
}

/// Changes what unlocks an input: the pushes of its scriptSig, or the items of its witness.
fn items(spend: &mut Spend, index: usize, rng: &mut Rng) {
    let input = &mut spend.tx.input[index];
    let witness = !input.witness.is_empty() && rng.below(8) > 0;
    let mut items: Vec<Vec<u8>> = if witness {
        input.witness.iter().map(<[u8]>::to_vec).collect()
    } else {
        let instructions = input.script_sig.instructions().flatten();
        instructions.filter_map(|item| Some(item.push_bytes()?.as_bytes().to_vec())).collect()
    };
    // A multisig's signatures are behind an empty item.
    let first = usize::from(items.first().is_some_and(Vec::is_empty));
    match rng.below(10) {
        0 => items.push(vec![0x50; rng.below(3) as usize]),
        1 => drop(items.pop()),
        2 => items.reverse(),
        3 => items.insert(0, Vec::new()),
        4 => {
            // A larger or smaller `s`, which is the same signature to consensus.
            if let Some(der) = items.get(first).and_then(|sig| sig.split_last()).map(|(_, der)| der.to_vec())
                && let Ok(sig) = ecdsa::Signature::from_der(&der)
            {
                items[first] = [high_s(&sig).serialize_der().as_ref(), &[1]].concat();
            }
        }
        5 => {
            // Padded numbers: good before BIP66 only.
            if let Some(sig) = items.get_mut(first)
                && sig.len() > 60
                && sig[0] == 0x30
            {
                let r = usize::from(sig[3]).min(sig.len() - 6);
                sig.insert(4 + r + 2, 0);
                sig[4 + r + 1] = sig[4 + r + 1].wrapping_add(1);
                sig[1] = sig[1].wrapping_add(1);
            }
        }
        6 => {
            if let Some(sig) = items.get_mut(first) {
                match sig.len() {
                    64 => sig.push([0, 1, 2, 0x81][rng.below(4) as usize]),
                    0 => {}
                    length => sig[length - 1] = rng.below(256) as u8,
                }
            }
        }
        7 => {
            // The same key, uncompressed or hybrid, under its own hash.
            if let Some(key) = items.last()
                && let Ok(key) = PublicKey::from_slice(key)
            {
                let mut long = key.serialize_uncompressed().to_vec();
                long[0] = if rng.below(2) == 0 { 4 } else { 6 + (long[64] & 1) };
                spend.spent[index].script_pubkey =
                    key_hash_script(hash160::Hash::hash(&long).as_byte_array()).to_vec().into();
                *items.last_mut().unwrap() = long;
            }
        }
        _ => {
            let at = rng.below(items.len().max(1) as u64) as usize;
            if let Some(item) = items.get_mut(at) {
                flip(item, rng);
            }
        }
    }
    let input = &mut spend.tx.input[index];
    if witness {
        input.witness = Witness::from_slice(&items);
    } else {
        let mut script = Vec::new();
        for item in &items {
            // Each push by its shortest opcode, or by a longer one.
            if rng.below(8) == 0 {
                script.push(0x4c);
            }
            script.push(item.len().min(75) as u8);
            script.extend(&item[..item.len().min(75)]);
        }
        input.script_sig = script.into();
    }
}

fn flip(bytes: &mut [u8], rng: &mut Rng) {
    if !bytes.is_empty() {
        let at = rng.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << rng.below(8);
    }
}

/// The same signature with the other `s`.
fn high_s(sig: &ecdsa::Signature) -> ecdsa::Signature {
    let mut compact = sig.serialize_compact();
    let s = SecretKey::from_slice(&compact[32..]).unwrap().negate();
    compact[32..].copy_from_slice(&s.secret_bytes());
    ecdsa::Signature::from_compact(&compact).unwrap()
}

/// Scripts of keys, among them equal, long and meaningless ones, signed by some of them in and out of order, by too few
/// and too many: the verdict is the interpreter's, and what needs no interpreter would have passed it.
#[test]
fn multisigs_of_any_keys_get_the_verdict_of_the_interpreter() {
    let secp = Secp256k1::new();
    let pair = |n: u64| Keypair::from_secret_key(&secp, &SecretKey::from_slice(&[n as u8 + 1; 32]).unwrap());
    let (mut direct, mut invalid, mut passed) = (0, 0, 0);
    for seed in 0..6_000 {
        let mut rng = Rng::from_number(seed);
        let wallet = Wallet::new(&mut rng, 1);
        let mut spend = Spend::new(&wallet, &mut rng, &[OutputKind::P2wsh, OutputKind::Anchor]);
        let keys: Vec<u64> = (0..1 + rng.below(4)).map(|_| rng.below(3)).collect();
        let required = 1 + rng.below(keys.len() as u64);
        let mut script = vec![0x50 + required as u8 + u8::from(rng.below(20) == 0)];
        for &key in &keys {
            let key = pair(key).public_key();
            let mut bytes = match rng.below(16) {
                0 => key.serialize_uncompressed().to_vec(),
                _ => key.serialize().to_vec(),
            };
            if rng.below(16) == 0 {
                flip(&mut bytes, &mut rng);
            }
            script.push(bytes.len() as u8);
            script.extend(bytes);
        }
        script.extend([0x50 + keys.len() as u8 - u8::from(rng.below(20) == 0), 0xae]);
        if keys.len() == 1 && rng.below(2) == 0 {
            script = [&script[1..script.len() - 2], &[0xac]].concat();
        }
        if rng.below(16) == 0 {
            script.push(0x61);
        }
        let mut signers: Vec<usize> = (0..keys.len()).collect();
        rng.shuffle(&mut signers);
        signers.truncate(required as usize);
        if rng.below(8) > 0 {
            signers.sort_unstable();
        }
        if rng.below(16) == 0 {
            signers.push(0);
        }
        let lock = Script::from_bytes(&script).to_p2wsh();
        let nested = rng.below(2) == 0;
        spend.spent[0].script_pubkey = if nested { lock.to_p2sh() } else { lock.clone() };
        let kind = if rng.below(8) == 0 { EcdsaSighashType::None } else { EcdsaSighashType::All };
        let hash = SighashCache::new(&spend.tx)
            .p2wsh_signature_hash(0, Script::from_bytes(&script), spend.spent[0].value, kind)
            .unwrap();
        let message = Message::from_digest(hash.to_byte_array());
        let mut items: Vec<Vec<u8>> = Vec::new();
        if script.last() != Some(&0xac) {
            items.push(vec![1; usize::from(rng.below(20) == 0)]);
        }
        for signer in signers {
            let sig = secp.sign_ecdsa(&message, &pair(keys[signer]).secret_key());
            items.push([sig.serialize_der().as_ref(), &[kind.to_u32() as u8]].concat());
        }
        items.push(script);
        let input = &mut spend.tx.input[0];
        input.witness = Witness::from_slice(&items);
        input.script_sig = if nested { [&[34], lock.as_bytes()].concat().into() } else { ScriptBuf::new() };
        let verdict = spend.judge(&StandardVerifier::with_cache(0));
        assert_eq!(verdict, spend.judge(&Interpreter), "seed {seed}");
        let taken = spend.direct()[0];
        assert!(!taken || verdict == Ok(Verdict::Valid), "seed {seed}");
        direct += u32::from(taken);
        passed += u32::from(verdict == Ok(Verdict::Valid));
        invalid += u32::from(verdict != Ok(Verdict::Valid));
    }
    assert!(direct > 2_000 && passed > direct && invalid > 1_000, "{direct} of {passed}, {invalid} invalid");
}
