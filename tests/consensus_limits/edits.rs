//! What can be changed about a block, near the limit of each rule. Each edit answers whether the draft had
//! what it needs. A number called `over` is 0 at the limit and 1 one step over it.

use super::draft::{Draft, output, push, script, sigop_script};
use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use headlong::sim::forge::commit_to_witnesses;
use headlong::sim::wallet::OutputKind;

const MAX_MONEY: u64 = 2_100_000_000_000_000;
/// Spending these costs no signature operations.
const FREE: [OutputKind; 3] = [OutputKind::P2pk, OutputKind::P2pkh, OutputKind::BareMultisig];
/// These need no witness.
pub const LEGACY: [OutputKind; 3] = FREE;

// ---- coinbase ----

/// The coinbase's script gets `len` bytes, the height still in front where it fits.
pub fn coinbase_script_len(draft: &mut Draft<'_>, len: usize) -> bool {
    let old = draft.block.txdata[0].input[0].script_sig.to_bytes();
    let mut bytes = old[..old.len().min(len)].to_vec();
    bytes.resize(len, 0);
    draft.block.txdata[0].input[0].script_sig = ScriptBuf::from_bytes(bytes);
    true
}

/// The coinbase claims another height.
pub fn coinbase_height(draft: &mut Draft<'_>, difference: i64) -> bool {
    let height = i64::from(draft.place.height) + difference;
    draft.block.txdata[0].input[0].script_sig =
        bitcoin::script::Builder::new().push_int(height).push_slice([7; 8]).into_script();
    true
}

/// The coinbase pays that much more (or less).
pub fn coinbase_amount(draft: &mut Draft<'_>, difference: i64) -> bool {
    let out = &mut draft.block.txdata[0].output[0];
    let value = out.value.to_sat().saturating_add_signed(difference);
    out.value = bitcoin::Amount::from_sat(value);
    true
}

pub fn no_coinbase(draft: &mut Draft<'_>) -> bool {
    draft.block.txdata.remove(0);
    draft.commit = false;
    !draft.block.txdata.is_empty()
}

pub fn two_coinbases(draft: &mut Draft<'_>) -> bool {
    let mut second = draft.block.txdata[0].clone();
    second.lock_time = bitcoin::absolute::LockTime::from_consensus(1);
    second.input[0].witness = Witness::new();
    draft.block.txdata.push(second);
    true
}

/// The coinbase of an earlier block of the chain again (BIP30).
pub fn coinbase_again(draft: &mut Draft<'_>, back: usize) -> bool {
    let Some(at) = draft.place.coinbases.len().checked_sub(1 + back) else { return false };
    draft.block.txdata[0] = draft.place.coinbases[at].clone();
    true
}

/// Forms of the coinbase's script that [`coinbase_script`] knows.
pub const COINBASE_SCRIPTS: usize = 8;

/// The height in other forms than the shortest push (BIP34), and what may stand behind it.
pub fn coinbase_script(draft: &mut Draft<'_>, form: usize) -> bool {
    let height = draft.place.height;
    let right = bitcoin::script::Builder::new().push_int(i64::from(height)).into_bytes();
    let bytes = height.to_le_bytes();
    draft.block.txdata[0].input[0].script_sig = ScriptBuf::from_bytes(match form {
        0 => [right, vec![0xff, 0x4e, 0xba]].concat(),
        1 => [vec![3], bytes[..3].to_vec()].concat(),
        2 => [vec![0x4c], right].concat(),
        3 => [vec![0x61], right].concat(),
        4 => [vec![0], right].concat(),
        5 => [vec![2, bytes[0], bytes[1] | 0x80], vec![7; 8]].concat(),
        6 => [vec![8], u64::from(height).to_le_bytes().to_vec()].concat(),
        // Cut within a push behind it.
        _ => [right, vec![0x4d, 0xff]].concat(),
    });
    true
}

/// Forms of the coinbase that [`coinbase_shape`] knows.
pub const COINBASE_SHAPES: usize = 8;

/// A coinbase that is one and is not quite one.
pub fn coinbase_shape(draft: &mut Draft<'_>, form: usize) -> bool {
    let count = draft.block.txdata.len();
    let height = draft.place.height;
    let coinbase = &mut draft.block.txdata[0];
    match form {
        0 => coinbase.output.push(output(0, ScriptBuf::new())),
        1 => coinbase.output.clear(),
        2 => coinbase.input.push(coinbase.input[0].clone()),
        3 => coinbase.input[0].previous_output.vout = 0,
        4 => coinbase.input[0].previous_output.txid = Txid::from_byte_array([1; 32]),
        // A lock time binds it too: the last one that has passed, and the next.
        5 | 6 => {
            coinbase.input[0].sequence = Sequence(0);
            let lock = height - 1 + (form as u32 - 5);
            coinbase.lock_time = bitcoin::absolute::LockTime::from_consensus(lock);
        }
        _ if count < 2 => return false,
        _ => {
            commit_to_witnesses(&mut draft.block);
            draft.block.txdata.swap(0, 1);
        }
    }
    // What is committed to by the first transaction stays so.
    draft.commit &= !matches!(form, 1..=4 | 7);
    true
}

// ---- transactions by themselves ----

fn append(draft: &mut Draft<'_>, edit: impl FnOnce(&mut Transaction)) -> bool {
    let Some(coin) = draft.coin(&LEGACY) else { return false };
    let mut tx = draft.simple(&coin);
    edit(&mut tx);
    draft.block.txdata.push(tx);
    true
}

pub fn no_inputs(draft: &mut Draft<'_>) -> bool {
    append(draft, |tx| {
        tx.input.clear();
        tx.output.clear();
    })
}

pub fn no_outputs(draft: &mut Draft<'_>) -> bool {
    append(draft, |tx| tx.output.clear())
}

/// A transaction with outputs of these values, which spends a coin.
pub fn values(draft: &mut Draft<'_>, values: &[u64]) -> bool {
    let Some(coin) = draft.coin(&LEGACY) else { return false };
    let outputs = values.iter().map(|value| output(*value, script(&[0x51]))).collect();
    let tx = draft.pay(&[coin], outputs, 2, 0, u32::MAX);
    draft.block.txdata.push(tx);
    true
}

/// One output of nearly all money, and another that makes the sum reach or exceed it.
pub fn total(draft: &mut Draft<'_>, over: u64) -> bool {
    values(draft, &[MAX_MONEY - 1, 1 + over])
}

pub fn same_input_twice(draft: &mut Draft<'_>) -> bool {
    append(draft, |tx| tx.input.push(tx.input[0].clone()))
}

/// The second input is a coinbase's.
pub fn null_input(draft: &mut Draft<'_>) -> bool {
    append(draft, |tx| tx.input.push(TxIn { previous_output: OutPoint::null(), ..TxIn::default() }))
}

// ---- coins ----

pub fn missing_coin(draft: &mut Draft<'_>, random: u64) -> bool {
    append(draft, |tx| {
        let txid = Txid::from_byte_array([random as u8; 32]);
        tx.input.push(TxIn { previous_output: OutPoint { txid, vout: 0 }, ..TxIn::default() });
    })
}

/// Two transactions spend one coin.
pub fn spent_twice(draft: &mut Draft<'_>) -> bool {
    let Some(coin) = draft.coin(&[]) else { return false };
    let first = draft.simple(&coin);
    let mut second = draft.pay(std::slice::from_ref(&coin), vec![output(0, script(&[0x51]))], 2, 0, u32::MAX);
    second.lock_time = bitcoin::absolute::LockTime::ZERO;
    draft.block.txdata.extend([first, second]);
    true
}

/// A transaction spends an output of the one behind it, or of the one before it.
pub fn in_block(draft: &mut Draft<'_>, backwards: bool) -> bool {
    let Some(funds) = draft.fund(&[], vec![script(&[0x51])]) else { return false };
    draft.redeem(&funds, vec![(Vec::new(), Witness::new())], script(&[0x51]));
    if backwards {
        let last = draft.block.txdata.len() - 1;
        draft.block.txdata.swap(last, last - 1);
    }
    true
}

/// Spends the oldest coinbase that is mature (`over` 0), or the one after it.
pub fn maturity(draft: &mut Draft<'_>, over: u32) -> bool {
    let wanted = draft.place.height + over;
    let fits = |coin: &&headlong::sim::wallet::ForgedCoin| {
        coin.mature_at == wanted && (draft.place.segwit || super::draft::is_legacy(coin.kind))
    };
    let coins = draft.branch.coins.iter().chain(&draft.branch.maturing);
    let Some(coin) = coins.clone().find(fits).cloned() else { return false };
    draft.branch.coins.retain(|other| other.outpoint != coin.outpoint);
    let tx = draft.simple(&coin);
    draft.block.txdata.push(tx);
    true
}

/// A transaction that creates `over` satoshis.
pub fn in_below_out(draft: &mut Draft<'_>, over: u64) -> bool {
    let Some(coin) = draft.coin(&[]) else { return false };
    let value = coin.output.value.to_sat() + over;
    let tx = draft.pay(&[coin], vec![output(value, script(&[0x51]))], 2, 0, u32::MAX);
    draft.block.txdata.push(tx);
    true
}

/// Spends a coinbase that the chain has spent before.
pub fn spent_coin(draft: &mut Draft<'_>) -> bool {
    let coins = draft.branch.coins.iter().chain(&draft.branch.maturing);
    let unspent: std::collections::HashSet<OutPoint> = coins.map(|coin| coin.outpoint).collect();
    let mut spent = draft.place.coinbases.iter().map(|tx| OutPoint { txid: tx.compute_txid(), vout: 0 });
    let old = |point: &OutPoint| draft.births.get(point).is_some_and(|at| at + 100 <= draft.place.height);
    let Some(previous_output) = spent.rfind(|point| !unspent.contains(point) && old(point)) else {
        return false;
    };
    append(draft, |tx| tx.input.push(TxIn { previous_output, ..TxIn::default() }))
}

/// A transaction of `len` bytes without its witness (at least 60), whose input is free for all. One of 64
/// bytes looks like an inner node of the merkle tree.
pub fn tx_of_size(draft: &mut Draft<'_>, len: usize) -> bool {
    let kinds: &[OutputKind] = if draft.place.segwit { &[] } else { &LEGACY };
    let Some(funds) = draft.fund(kinds, vec![script(&[0x51])]) else { return false };
    let to = ScriptBuf::from_bytes(vec![0x51; len - 60]);
    let at = draft.redeem(&funds, vec![(Vec::new(), Witness::new())], to);
    draft.block.txdata[at].base_size() == len
}

/// A transaction of this version.
pub fn tx_version(draft: &mut Draft<'_>, version: i32) -> bool {
    let Some(coin) = draft.coin(&LEGACY) else { return false };
    let value = coin.output.value.to_sat();
    let tx = draft.pay(&[coin], vec![output(value, script(&[0x51]))], version, 0, u32::MAX);
    draft.block.txdata.push(tx);
    true
}

// ---- lock times ----

/// A transaction with this lock time, which counts unless the sequence number is final.
pub fn lock_time(draft: &mut Draft<'_>, lock: u32, sequence: u32) -> bool {
    let Some(coin) = draft.coin(&[]) else { return false };
    let outputs = vec![TxOut { script_pubkey: script(&[0x51]), ..coin.output.clone() }];
    let tx = draft.pay(&[coin], outputs, 2, lock, sequence);
    draft.block.txdata.push(tx);
    true
}

/// BIP68 by height: as many blocks as the coin is old, and `over` more.
pub fn relative_height(draft: &mut Draft<'_>, over: u32, version: i32) -> bool {
    let Some(coin) = draft.coin(&[]) else { return false };
    let sequence = draft.place.height - draft.birth(&coin) + over;
    let outputs = vec![TxOut { script_pubkey: script(&[0x51]), ..coin.output.clone() }];
    let tx = draft.pay(&[coin], outputs, version, 0, sequence);
    draft.block.txdata.push(tx);
    true
}

/// BIP68 by time: as many units of 512 seconds as have passed, and `over` more.
pub fn relative_time(draft: &mut Draft<'_>, over: u32, version: i32) -> bool {
    let Some(coin) = draft.coin(&[]) else { return false };
    let since = draft.place.medians[draft.birth(&coin).saturating_sub(1) as usize];
    let units = draft.place.mtp().saturating_sub(since) / 512 + over;
    let outputs = vec![TxOut { script_pubkey: script(&[0x51]), ..coin.output.clone() }];
    let tx = draft.pay(&[coin], outputs, version, 0, 1 << 22 | units.min(0xffff));
    draft.block.txdata.push(tx);
    true
}

/// BIP68 for a coin of the same block.
pub fn relative_in_block(draft: &mut Draft<'_>, sequence: u32) -> bool {
    let Some(funds) = draft.fund(&[], vec![script(&[0x51])]) else { return false };
    let at = draft.redeem(&funds, vec![(Vec::new(), Witness::new())], script(&[0x51]));
    draft.block.txdata[at].input[0].sequence = Sequence(sequence);
    true
}

// ---- signature operations and sizes ----

/// How signature operations are hidden in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sigops {
    Legacy,
    P2sh,
    P2wsh,
}

/// The block's signature operations cost 80,000 and `over` more. The draft must have no transactions yet.
pub fn sigops(draft: &mut Draft<'_>, how: Sigops, over: i64) -> bool {
    let target = (80_000 + over) as usize;
    // (cost of one, most in one script)
    let (scale, most) = match how {
        Sigops::Legacy => (4, usize::MAX),
        Sigops::P2sh => (4, 3_600),
        Sigops::P2wsh => (1, 3_600),
    };
    let mut counts = Vec::new();
    let mut left = target / scale;
    while left > 0 {
        counts.push(left.min(most));
        left -= left.min(most);
    }
    let filler = sigop_script(target % scale);
    let mut to = vec![0x51];
    let inner: Vec<ScriptBuf> = match how {
        Sigops::Legacy => {
            to = vec![0xac; counts[0]];
            Vec::new()
        }
        _ => counts.iter().map(|count| sigop_script(*count)).collect(),
    };
    let mut locks: Vec<ScriptBuf> = inner
        .iter()
        .map(|inner| if how == Sigops::P2sh { inner.to_p2sh() } else { inner.to_p2wsh() })
        .collect();
    locks.push(filler.to_p2wsh());
    draft.block.txdata[0].output[0].script_pubkey = script(&[0x51]);
    let Some(funds) = draft.fund(&FREE, locks) else { return false };
    let mut unlock: Vec<(Vec<u8>, Witness)> = inner
        .iter()
        .map(|inner| match how {
            Sigops::P2sh => (push(inner.as_bytes()), Witness::new()),
            _ => (Vec::new(), Witness::from_slice(&[inner.as_bytes()])),
        })
        .collect();
    unlock.push((Vec::new(), Witness::from_slice(&[filler.as_bytes()])));
    draft.redeem(&funds, unlock, ScriptBuf::from_bytes(to));
    true
}

/// The block weighs 4,000,000 units and `over` more, most of them witness.
pub fn weight(draft: &mut Draft<'_>, over: i64) -> bool {
    let Some(funds) = draft.fund(&[], vec![script(&[0x52, 2, 1, 2])]) else { return false };
    let item = |len: usize| Witness::from_slice(&[vec![0x77u8; len]]);
    let at = draft.redeem(&funds, vec![(Vec::new(), item(3_000_000))], script(&[0x51]));
    commit_to_witnesses(&mut draft.block);
    let missing = 4_000_000 + over - draft.block.weight().to_wu() as i64;
    draft.block.txdata[at].input[0].witness = item((3_000_000 + missing) as usize);
    true
}

/// The block has 1,000,000 bytes and `over` more, without any witness; with `commitment`, the coinbase has
/// one.
pub fn base_size(draft: &mut Draft<'_>, over: i64, commitment: bool) -> bool {
    let data = |len: usize| {
        let mut bytes = vec![0x6a, 0x4e];
        bytes.extend((len as u32).to_le_bytes());
        bytes.resize(6 + len, 0);
        ScriptBuf::from_bytes(bytes)
    };
    let Some(coin) = draft.coin(&LEGACY) else { return false };
    let value = coin.output.value.to_sat();
    let first = draft.pay(std::slice::from_ref(&coin), vec![output(value, data(900_000))], 2, 0, u32::MAX);
    let script_len = first.input[0].script_sig.len();
    draft.block.txdata.push(first);
    if commitment {
        commit_to_witnesses(&mut draft.block);
    } else {
        draft.strip();
        draft.commit = false;
    }
    let size: usize = 81 + draft.block.txdata.iter().map(Transaction::base_size).sum::<usize>();
    let out = output(value, data((900_000 + 1_000_000 + over - size as i64) as usize));
    // A signature of the same size: the lock time of a final input has no effect but on what is signed.
    let signed = (0..200)
        .map(|lock| draft.pay(std::slice::from_ref(&coin), vec![out.clone()], 2, lock, u32::MAX))
        .find(|tx| tx.input[0].script_sig.len() == script_len);
    let (Some(signed), Some(last)) = (signed, draft.block.txdata.last_mut()) else { return false };
    *last = signed;
    true
}

/// Forms of serialisation that [`encoding`] knows.
pub const ENCODINGS: usize = 7;

/// The block's bytes in another form; the last transaction needs no witness.
pub fn encoding(draft: &mut Draft<'_>, form: usize) -> bool {
    if !append(draft, |_| {}) {
        return false;
    }
    draft.bytes = Some(match form {
        0 => |bytes, random| bytes.extend(&random.to_le_bytes()[..1 + random as usize % 4]),
        1 => |bytes, random| bytes.truncate(random as usize % bytes.len()),
        // The number of transactions in three bytes, though one is enough.
        2 => |bytes, _| drop(bytes.splice(80..81, [0xfd, bytes[80], 0])),
        3 => |bytes, _| with_last(bytes, 1, true),
        4 => |bytes, _| with_last(bytes, 2, false),
        // More inputs than there are bytes.
        5 => |bytes, _| drop(bytes.splice(80..81, [0xfe, 0xff, 0xff, 0xff, 0x01])),
        _ => |bytes, random| {
            let at = 80 + random as usize % (bytes.len() - 80);
            bytes[at] ^= 1 << (random >> 60 & 7);
        },
    });
    true
}

/// Gives the last transaction of a serialised block the marker of witnesses and this flag, and empty
/// witnesses.
fn with_last(bytes: &mut Vec<u8>, flag: u8, witnesses: bool) {
    let Ok(block) = bitcoin::consensus::deserialize::<bitcoin::Block>(bytes) else { return };
    let Some(last) = block.txdata.last() else { return };
    let start = bytes.len() - last.total_size();
    bytes.splice(start + 4..start + 4, [0, flag]);
    if witnesses {
        let end = bytes.len() - 4;
        bytes.splice(end..end, vec![0; last.input.len()]);
    }
}

// ---- the root and the commitment ----

/// The last transactions again, so that the root stays the same (CVE-2012-2459).
pub fn repeated_tail(draft: &mut Draft<'_>) -> bool {
    if draft.commit {
        commit_to_witnesses(&mut draft.block);
        draft.commit = false;
    } else if !draft.place.segwit {
        draft.strip();
    }
    let count = draft.block.txdata.len();
    let tail = if count % 2 == 1 && count > 1 {
        1
    } else if count % 4 == 2 && count > 2 {
        2
    } else {
        return false;
    };
    draft.seal();
    let again = draft.block.txdata[count - tail..].to_vec();
    draft.block.txdata.extend(again);
    draft.root = false;
    draft.work = false;
    true
}

/// Another version of a transaction under the old root.
pub fn wrong_root(draft: &mut Draft<'_>) -> bool {
    let coinbase = &mut draft.block.txdata[0];
    coinbase.lock_time = bitcoin::absolute::LockTime::from_consensus(1);
    draft.commit = false;
    draft.root = false;
    true
}

/// Commits, then gives `edit` the coinbase.
pub fn commitment(draft: &mut Draft<'_>, edit: impl FnOnce(&mut Transaction)) -> bool {
    commit_to_witnesses(&mut draft.block);
    draft.commit = false;
    edit(&mut draft.block.txdata[0]);
    true
}

/// The coinbase's witness has items of these lengths; the commitment fits the first.
pub fn reserved(draft: &mut Draft<'_>, lens: &[usize]) -> bool {
    let items: Vec<Vec<u8>> = lens.iter().map(|len| vec![0; *len]).collect();
    commitment(draft, |coinbase| coinbase.input[0].witness = Witness::from_slice(&items))
}

/// Forms of the commitment that [`commitments`] knows.
pub const COMMITMENTS: usize = 8;

/// Changes around the witness commitment.
pub fn commitments(draft: &mut Draft<'_>, form: usize) -> bool {
    commitment(draft, |coinbase| {
        let Some(right) = coinbase.output.last().cloned() else { return };
        let last = coinbase.output.len() - 1;
        let changed = |change: fn(&mut Vec<u8>)| {
            let mut bytes = right.script_pubkey.to_bytes();
            change(&mut bytes);
            TxOut { script_pubkey: ScriptBuf::from_bytes(bytes), ..right.clone() }
        };
        match form {
            // Of several commitments the last counts.
            0 | 1 => coinbase.output.insert(last + form, changed(|bytes| bytes[20] ^= 1)),
            2 => coinbase.output[last] = changed(|bytes| bytes.extend([0x51, 0x52])),
            // Too short to be a commitment: then nothing allows the coinbase's witness.
            3 => coinbase.output[last] = changed(|bytes| bytes.truncate(37)),
            4 => coinbase.output[last] = changed(|bytes| bytes[37] ^= 1),
            5 => coinbase.output[last] = changed(|bytes| bytes[5] ^= 1),
            // One that looks like another kind of push.
            6 => coinbase.output[last] = changed(|bytes| bytes[1] = 0x25),
            _ => coinbase.input[0].witness = Witness::from_slice(&[[1u8; 32]]),
        }
    })
}

/// Forms of the coinbase's witness that [`coinbase_witness`] knows.
pub const COINBASE_WITNESSES: usize = 6;

/// The coinbase's witness is absent or another, with a commitment and without one, in a block with
/// witnesses and in one without. (`submitblock` adds an absent one before it validates.)
pub fn coinbase_witness(draft: &mut Draft<'_>, form: usize) -> bool {
    let witnesses =
        draft.block.txdata.iter().skip(1).flat_map(|tx| &tx.input).any(|input| !input.witness.is_empty());
    let absent = |coinbase: &mut Transaction| coinbase.input[0].witness = Witness::new();
    match form {
        0 => commitment(draft, absent),
        1 => {
            draft.block.txdata.truncate(1);
            commitment(draft, absent)
        }
        // Without witnesses there need be neither commitment nor reserved value.
        2 if !witnesses => {
            draft.strip();
            draft.commit = false;
            true
        }
        3 if !witnesses => {
            draft.strip();
            draft.commit = false;
            draft.block.txdata[0].input[0].witness = Witness::from_slice(&[[0u8; 32]]);
            true
        }
        4 => reserved(draft, &[32, 0]),
        5 => commitment(draft, |coinbase| coinbase.input[0].witness = Witness::from_slice(&[[1u8; 32]])),
        _ => false,
    }
}

/// Changes a witness after the commitment to it: the hash of the block stays.
pub fn other_witness(draft: &mut Draft<'_>) -> bool {
    let found = draft.block.txdata.iter().skip(1).position(|tx| !tx.input[0].witness.is_empty());
    let Some(found) = found else { return false };
    commit_to_witnesses(&mut draft.block);
    draft.commit = false;
    draft.block.txdata[found + 1].input[0].witness.push([1]);
    true
}

/// Witnesses without a commitment.
pub fn no_commitment(draft: &mut Draft<'_>) -> bool {
    draft.strip();
    draft.commit = false;
    if draft.block.txdata.iter().skip(1).all(|tx| tx.input.iter().all(|input| input.witness.is_empty())) {
        // Nothing forbids such a witness but the missing commitment.
        let Some(funds) = draft.fund(&LEGACY, vec![script(&[0x52, 2, 1, 2])]) else { return false };
        draft.redeem(&funds, vec![(Vec::new(), Witness::from_slice(&[[1u8]]))], script(&[0x51]));
    }
    true
}

// ---- scripts ----

/// Flips a bit of a signature (or of whatever else unlocks an input).
pub fn broken_signature(draft: &mut Draft<'_>, random: u64) -> bool {
    let mut inputs: Vec<&mut TxIn> =
        draft.block.txdata.iter_mut().skip(1).flat_map(|tx| &mut tx.input).collect();
    if inputs.is_empty() {
        return false;
    }
    let count = inputs.len() as u64;
    let input = &mut inputs[(random % count) as usize];
    let place = (random >> 16) as usize;
    if !input.script_sig.is_empty() {
        let mut bytes = input.script_sig.to_bytes();
        let at = place % bytes.len();
        bytes[at] ^= 1 << (random >> 60 & 7);
        input.script_sig = ScriptBuf::from_bytes(bytes);
        return true;
    }
    let mut items: Vec<Vec<u8>> = input.witness.to_vec();
    let Some(item) = items.iter_mut().find(|item| !item.is_empty()) else { return false };
    let at = place % item.len();
    item[at] ^= 1 << (random >> 60 & 7);
    input.witness = Witness::from_slice(&items);
    true
}

/// A signature whose R has a zero too many: BER, not DER (BIP66).
pub fn padded_signature(draft: &mut Draft<'_>) -> bool {
    let Some(coin) = draft.coin(&[OutputKind::P2pk]) else { return false };
    let mut tx = draft.simple(&coin);
    let mut sig = tx.input[0].script_sig.as_bytes()[1..].to_vec();
    sig[1] += 1;
    sig[3] += 1;
    sig.insert(4, 0);
    tx.input[0].script_sig = ScriptBuf::from_bytes(push(&sig));
    draft.block.txdata.push(tx);
    true
}

/// A multisig whose needless item is not empty (BIP147).
pub fn dummy(draft: &mut Draft<'_>) -> bool {
    let Some(coin) = draft.coin(&[OutputKind::BareMultisig]) else { return false };
    let mut tx = draft.simple(&coin);
    let mut bytes = tx.input[0].script_sig.to_bytes();
    bytes[0] = 0x51;
    tx.input[0].script_sig = ScriptBuf::from_bytes(bytes);
    draft.block.txdata.push(tx);
    true
}

/// A lock that is spent in the same block: `(lock, script_sig, witness)`.
pub fn spend(draft: &mut Draft<'_>, lock: Vec<u8>, script_sig: Vec<u8>, witness: &[Vec<u8>]) -> bool {
    let kinds: &[OutputKind] = if draft.place.segwit { &[] } else { &LEGACY };
    let Some(funds) = draft.fund(kinds, vec![ScriptBuf::from_bytes(lock)]) else { return false };
    draft.redeem(&funds, vec![(script_sig, Witness::from_slice(witness))], script(&[0x51]));
    true
}

/// An output that demands (BIP65) the last height that is possible, spent at that height less `early`.
pub fn check_lock_time(draft: &mut Draft<'_>, early: u32, sequence: u32) -> bool {
    let height = draft.place.height - 1;
    let mut lock = push(&height.to_le_bytes()[..3]);
    lock.extend([0xb1, 0x75, 0x51]);
    if !spend(draft, lock, Vec::new(), &[]) {
        return false;
    }
    let Some(tx) = draft.block.txdata.last_mut() else { return false };
    tx.lock_time = bitcoin::absolute::LockTime::from_consensus(height - early);
    tx.input[0].sequence = Sequence(sequence);
    true
}

/// An output that demands (BIP112) a relative lock of `demanded`, spent with `given` in the same block.
pub fn check_sequence(draft: &mut Draft<'_>, demanded: u8, given: u32, version: i32) -> bool {
    let mut lock = push(&[demanded][..usize::from(demanded > 0)]);
    lock.extend([0xb2, 0x75, 0x51]);
    if !spend(draft, lock, Vec::new(), &[]) {
        return false;
    }
    let Some(tx) = draft.block.txdata.last_mut() else { return false };
    tx.version = bitcoin::transaction::Version(version);
    tx.input[0].sequence = Sequence(given);
    true
}

/// Name, whether it can be spent, lock, script, witness.
pub type Lock = (&'static str, bool, Vec<u8>, Vec<u8>, Vec<Vec<u8>>);

/// Locks at the limits of the interpreter.
pub fn locks() -> Vec<Lock> {
    let mut found: Vec<Lock> = Vec::new();
    let p2wsh = |inner: &[u8]| script(inner).to_p2wsh().to_bytes();
    let p2sh = |inner: &[u8]| script(inner).to_p2sh().to_bytes();
    for (name, good, count) in [("201 operations", true, 201), ("202 operations", false, 202)] {
        found.push((name, good, [vec![0x51], vec![0x61; count]].concat(), vec![], vec![]));
    }
    for (name, good, count) in [("1,000 items", true, 1_000), ("1,001 items", false, 1_001)] {
        found.push((name, good, vec![0x51; count], vec![], vec![]));
    }
    for (name, good, len) in [("520 bytes", true, 520), ("521 bytes", false, 521)] {
        found.push((name, good, [push(&vec![7; len]), vec![0x51]].concat(), vec![], vec![]));
    }
    for (name, good, len) in [("10,000 bytes of witness script", true, 10_000), ("10,001", false, 10_001)] {
        // Each push of 520 bytes is dropped: 524 bytes.
        let mut inner: Vec<u8> = (0..19).flat_map(|_| [push(&[7; 520]), vec![0x75]].concat()).collect();
        inner.extend(push(&vec![7; len - inner.len() - 3]));
        inner.extend([0x75, 0x51]);
        found.push((name, good, p2wsh(&inner), vec![], vec![inner]));
    }
    for (name, good, lock, sig, witness) in [
        ("witness program of version 0 with 5 bytes", false, vec![0, 5, 1, 2, 3, 4, 5], vec![], vec![]),
        ("witness program of version 1 with 31 bytes", true, push_program(0x51, 31), vec![], vec![]),
        ("witness program of version 1 with 32 bytes", false, push_program(0x51, 32), vec![], vec![]),
        ("witness program of version 1 with 33 bytes", true, push_program(0x51, 33), vec![], vec![vec![1]]),
        ("witness program of version 16", true, push_program(0x60, 32), vec![], vec![]),
        ("witness program unlocked by a script", false, push_program(0x52, 32), vec![0x51], vec![]),
        ("P2SH of a push", true, p2sh(&[0x51]), push(&[0x51]), vec![]),
        ("P2SH of another script", false, p2sh(&[0x51]), push(&[0x52]), vec![]),
        (
            "P2SH unlocked by more than pushes",
            false,
            p2sh(&[0x51]),
            [vec![0x61], push(&[0x51])].concat(),
            vec![],
        ),
        ("witness for what needs none", false, vec![0x51], vec![], vec![vec![1]]),
        ("P2WSH that leaves two items", false, p2wsh(&[0x51, 0x51]), vec![], vec![vec![0x51, 0x51]]),
        ("legacy that leaves two items", true, vec![0x51, 0x51], vec![], vec![]),
        ("disabled operation that is not reached", false, vec![0x51, 0x00, 0x63, 0x7e, 0x68], vec![], vec![]),
        ("reserved operation that is not reached", true, vec![0x51, 0x00, 0x63, 0x50, 0x68], vec![], vec![]),
        ("false", false, vec![0x00], vec![], vec![]),
        ("negative zero", false, vec![0x01, 0x80], vec![], vec![]),
        ("push that is not minimal", true, vec![0x4c, 1, 1], vec![], vec![]),
    ] {
        found.push((name, good, lock, sig, witness));
    }
    found.extend(tap_locks());
    found
}

/// An output with one script (BIP341), and the witness items that reveal it.
pub fn tap(leaf: &[u8], version: u8) -> (Vec<u8>, Vec<Vec<u8>>) {
    use bitcoin::taproot::{LeafVersion, TaprootBuilder};
    // The generator: nobody can spend by key.
    let generator = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
    let secp = bitcoin::key::Secp256k1::verification_only();
    let leaf = ScriptBuf::from_bytes(leaf.to_vec());
    let version = LeafVersion::from_consensus(version).expect("a leaf version");
    let tree = TaprootBuilder::new().add_leaf_with_ver(0, leaf.clone(), version).expect("one leaf");
    let info = tree.finalize(&secp, generator.parse().expect("a key")).expect("a whole tree");
    let control = info.control_block(&(leaf.clone(), version)).expect("it is in the tree");
    (ScriptBuf::new_p2tr_tweaked(info.output_key()).to_bytes(), vec![leaf.to_bytes(), control.serialize()])
}

fn tap_locks() -> Vec<Lock> {
    const TAPSCRIPT: u8 = 0xc0;
    let mut found = Vec::new();
    let mut add = |name, good, leaf: &[u8], version, before: &[Vec<u8>], behind: &[Vec<u8>]| {
        let (lock, reveal) = tap(leaf, version);
        found.push((name, good, lock, Vec::new(), [before, &reveal, behind].concat()));
    };
    add("tapscript", true, &[0x51], TAPSCRIPT, &[], &[]);
    add("tapscript that leaves nothing", false, &[], TAPSCRIPT, &[], &[]);
    add("tapscript that leaves two items", false, &[0x51, 0x51], TAPSCRIPT, &[], &[]);
    add("tapscript that leaves false", false, &[0x00], TAPSCRIPT, &[], &[]);
    add("another leaf version", true, &[0x00], 0xc2, &[], &[]);
    add("annex", true, &[0x51], TAPSCRIPT, &[], &[vec![0x50, 1, 2]]);
    add("no annex", false, &[0x51], TAPSCRIPT, &[], &[vec![0x51, 1, 2]]);
    add("OP_SUCCESS", true, &[0x00, 0x50], TAPSCRIPT, &[], &[]);
    add("OP_SUCCESS behind a push that is cut", false, &[0x4c, 0x09, 0x50], TAPSCRIPT, &[], &[]);
    add("OP_SUCCESS before a push that is cut", true, &[0x50, 0x4c, 0x09], TAPSCRIPT, &[], &[]);
    add("multisig in tapscript", false, &[0x00, 0x00, 0x00, 0xae], TAPSCRIPT, &[], &[]);
    add("IF of one", true, &[0x63, 0x51, 0x68], TAPSCRIPT, &[vec![1]], &[]);
    add("IF of two", false, &[0x63, 0x51, 0x68], TAPSCRIPT, &[vec![2]], &[]);
    add("202 operations in tapscript", true, &[vec![0x61; 202], vec![0x51]].concat(), TAPSCRIPT, &[], &[]);
    add("item of 520 bytes", true, &[0x75, 0x51], TAPSCRIPT, &[vec![7; 520]], &[]);
    add("item of 521 bytes", false, &[0x75, 0x51], TAPSCRIPT, &[vec![7; 521]], &[]);
    add("999 items and one", true, &[vec![0x51; 1], vec![0x77; 999]].concat(), TAPSCRIPT, &empty(999), &[]);
    add(
        "1,000 items and one",
        false,
        &[vec![0x51; 1], vec![0x77; 1_000]].concat(),
        TAPSCRIPT,
        &empty(1_000),
        &[],
    );
    // Each signature with a key of an unknown type costs 50 of what the witness's size allows.
    let sig = [0x51, 0x02, 9, 9, 0xac, 0x75];
    let leaf = [vec![0x75], sig.repeat(10), vec![0x51]].concat();
    let fixed = 1 + 3 + 1 + leaf.len() + 1 + 33;
    let pad = 10 * 50 - 50 - fixed;
    add("signatures within the budget", true, &leaf, TAPSCRIPT, &[vec![7; pad]], &[]);
    add("signatures beyond the budget", false, &leaf, TAPSCRIPT, &[vec![7; pad - 1]], &[]);
    found
}

fn empty(count: usize) -> Vec<Vec<u8>> {
    vec![Vec::new(); count]
}

fn push_program(version: u8, len: u8) -> Vec<u8> {
    [vec![version, len], vec![3; usize::from(len)]].concat()
}
