//! Every mutation of a block, how many forms it has, and which outcomes a long enough run must have seen of
//! it: near a limit these are both sides of it.

use crate::draft::Draft;
use crate::edits::{self, Lock, Sigops};
use crate::scripts;
use crate::signed::{self, Signed};
use bitcoin::CompactTarget;
use bitcoin::block::Version;
use std::sync::LazyLock;

const FINAL: u32 = u32::MAX;
const MONEY: u64 = 2_100_000_000_000_000;

/// How a block is given to bitcoind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// `submitblock`: what is large, or no block at all.
    Rpc,
    /// Either, by chance.
    Any,
    /// As a peer's message: what `submitblock` repairs.
    Peer,
}

pub struct Mutation {
    pub name: &'static str,
    pub forms: usize,
    pub via: Via,
    /// Whether it needs a block without other transactions.
    pub alone: bool,
    /// Outcomes that must be seen where all rules are in force.
    pub wanted: &'static [&'static str],
    /// Changes a draft by its form and something random. `false`: the draft does not have what it needs.
    pub edit: fn(&mut Draft<'_>, usize, u64) -> bool,
}

static LOCKS: LazyLock<Vec<Lock>> = LazyLock::new(edits::locks);
static SIGNED: LazyLock<Vec<Signed>> = LazyLock::new(signed::cases);

const SCRIPT: &str = "block-script-verify-flag-failed";
const CONNECTED: &str = "connected";
const MISSING: &str = "bad-txns-inputs-missingorspent";
const NONFINAL: &str = "bad-txns-nonfinal";
const MATCH: &str = "bad-witness-merkle-match";
const NONCE: &str = "bad-witness-nonce-size";
const UNEXPECTED: &str = "unexpected-witness";

const fn usual(
    name: &'static str,
    forms: usize,
    wanted: &'static [&'static str],
    edit: fn(&mut Draft<'_>, usize, u64) -> bool,
) -> Mutation {
    Mutation { name, forms, via: Via::Any, alone: false, wanted, edit }
}

/// In a block of its own.
const fn alone(mutation: Mutation) -> Mutation {
    Mutation { alone: true, ..mutation }
}

const fn via(via: Via, mutation: Mutation) -> Mutation {
    Mutation { via, ..mutation }
}

/// The table.
pub fn table() -> Vec<Mutation> {
    let mut all = vec![usual("plain", 60, &[CONNECTED], |_, _, _| true)];
    all.extend(header());
    all.extend(coinbase());
    all.extend(body());
    all.extend(transactions());
    all.extend(lock_times());
    all.extend(witness());
    all.push(usual("lock", LOCKS.len(), &[CONNECTED, SCRIPT], |draft, form, _| {
        let (_, _, lock, sig, witness) = &LOCKS[form];
        let allowed = draft.place.segwit || witness.is_empty();
        allowed && edits::spend(draft, lock.clone(), sig.clone(), witness)
    }));
    all.push(usual("signed", SIGNED.len(), &[CONNECTED, SCRIPT], |draft, form, _| {
        signed::spend(draft, &SIGNED[form])
    }));
    all.extend(signatures());
    all
}

/// More about a form than its number.
pub fn describe(name: &str, form: usize) -> String {
    match name {
        "lock" => format!("{name} {form} ({})", LOCKS[form].0),
        "signed" => format!("{name} {form} ({})", SIGNED[form].name),
        _ => format!("{name} {form}"),
    }
}

fn header() -> Vec<Mutation> {
    vec![
        usual("bits", 6, &["bad-diffbits", "high-hash"], |draft, form, _| {
            let bits = [0x207f_fffe, 0x2100_ffff, 0, 0x20ff_ffff, 0x2080_0000, 0x207f_ff00][form];
            draft.block.header.bits = CompactTarget::from_consensus(bits);
            // Bits that are no target cannot be mined for.
            draft.work = matches!(bits, 0x207f_fffe | 0x207f_ff00);
            true
        }),
        usual("time above the median", 3, &[CONNECTED, "time-too-old"], |draft, form, _| {
            draft.block.header.time = draft.place.mtp() + [0, 1, 2][form];
            true
        }),
        usual("time ahead", 2, &[CONNECTED, "time-too-new"], |draft, form, _| {
            draft.block.header.time = draft.place.clock + 7_200 + form as u32;
            true
        }),
        // BIP94, where it is in force: at most ten minutes before the parent.
        usual("begin of a period", 3, &[], |draft, form, _| {
            let time = draft.place.parent_time - [600, 601, 599][form];
            draft.block.header.time = time;
            draft.place.period && time > draft.place.mtp()
        }),
        usual("version", 8, &[CONNECTED, "bad-version"], |draft, form, _| {
            let version = [-1, 0, 1, 2, 3, 4, i32::MIN, i32::MAX][form];
            draft.block.header.version = Version::from_consensus(version);
            true
        }),
        usual("unknown parent", 1, &["prev-blk-not-found"], |draft, _, random| {
            draft.block.header.prev_blockhash = bitcoin::hashes::Hash::from_byte_array([random as u8; 32]);
            true
        }),
        usual("no work", 2, &["high-hash"], |draft, _, random| {
            draft.work = false;
            if !draft.place.segwit {
                draft.strip();
            }
            draft.seal();
            draft.root = false;
            let target = bitcoin::Target::from_compact(draft.block.header.bits);
            draft.block.header.nonce = random as u32;
            while target.is_met_by(draft.block.block_hash()) {
                draft.block.header.nonce = draft.block.header.nonce.wrapping_add(1);
            }
            // Else the commitment would change the root.
            draft.commit = false;
            true
        }),
    ]
}

fn coinbase() -> Vec<Mutation> {
    const HEIGHT: &str = "bad-cb-height";
    vec![
        usual("coinbase script length", 9, &[CONNECTED, "bad-cb-length", HEIGHT], |draft, form, _| {
            edits::coinbase_script_len(draft, [0, 1, 2, 3, 4, 5, 99, 100, 101][form])
        }),
        usual("coinbase height", 4, &[CONNECTED, HEIGHT], |draft, form, _| {
            edits::coinbase_height(draft, [-1, 0, 1, 256][form])
        }),
        usual("coinbase script", edits::COINBASE_SCRIPTS, &[CONNECTED, HEIGHT], |draft, form, _| {
            edits::coinbase_script(draft, form)
        }),
        // Without outputs it has no commitment either; a peer's witnesses are looked at first.
        via(
            Via::Rpc,
            usual(
                "coinbase shape",
                edits::COINBASE_SHAPES,
                &[CONNECTED, "bad-txns-vout-empty", "bad-cb-missing", NONFINAL],
                |draft, form, _| edits::coinbase_shape(draft, form),
            ),
        ),
        usual("coinbase amount", 5, &[CONNECTED, "bad-cb-amount"], |draft, form, _| {
            edits::coinbase_amount(draft, [0, 1, -1, -5_000_000_000, MONEY as i64][form])
        }),
        usual("no coinbase", 1, &["bad-cb-missing"], |draft, _, _| edits::no_coinbase(draft)),
        usual("two coinbases", 1, &["bad-cb-multiple"], |draft, _, _| edits::two_coinbases(draft)),
        usual("coinbase again", 4, &[HEIGHT], |draft, form, _| edits::coinbase_again(draft, form)),
    ]
}

fn body() -> Vec<Mutation> {
    const SIGOPS: &str = "bad-blk-sigops";
    vec![
        via(
            Via::Rpc,
            alone(usual("sigops", 15, &[CONNECTED, SIGOPS], |draft, form, _| {
                let how = [Sigops::Legacy, Sigops::P2sh, Sigops::P2wsh][form % 3];
                draft.place.segwit && edits::sigops(draft, how, [0, 1, 4, -1, -4][form / 3])
            })),
        ),
        via(
            Via::Rpc,
            alone(usual("weight", 3, &[CONNECTED, "bad-blk-weight"], |draft, form, _| {
                draft.place.segwit && edits::weight(draft, [0, 1, -1][form])
            })),
        ),
        via(
            Via::Rpc,
            alone(usual(
                "base size",
                3,
                &[CONNECTED, "bad-blk-length", "bad-blk-weight"],
                |draft, form, _| {
                    let commitment = form == 2;
                    (draft.place.segwit || !commitment)
                        && edits::base_size(draft, [0, 1, 0][form], commitment)
                },
            )),
        ),
        usual("wrong root", 1, &["bad-txnmrklroot"], |draft, _, _| edits::wrong_root(draft)),
        usual("repeated tail", 2, &["bad-txns-duplicate"], |draft, _, _| edits::repeated_tail(draft)),
        via(
            Via::Rpc,
            usual("no transactions", 1, &["bad-blk-length"], |draft, _, _| {
                draft.block.txdata.clear();
                draft.commit = false;
                true
            }),
        ),
        via(
            Via::Rpc,
            usual("encoding", edits::ENCODINGS, &[CONNECTED, "decode-failed"], |draft, form, _| {
                edits::encoding(draft, form)
            }),
        ),
    ]
}

fn transactions() -> Vec<Mutation> {
    const BELOW: &str = "bad-txns-in-belowout";
    vec![
        // Its commitment is another one for who reads its bytes as Core does; a peer's is looked at first.
        via(Via::Rpc, usual("no inputs", 1, &["bad-txns-vin-empty"], |draft, _, _| edits::no_inputs(draft))),
        usual("no outputs", 1, &["bad-txns-vout-empty"], |draft, _, _| edits::no_outputs(draft)),
        usual("size of a transaction", 4, &[CONNECTED], |draft, form, _| {
            edits::tx_of_size(draft, [61, 63, 64, 65][form])
        }),
        usual("version of a transaction", 6, &[CONNECTED], |draft, form, _| {
            edits::tx_version(draft, [0, 1, 3, -1, i32::MIN, i32::MAX][form])
        }),
        usual(
            "value",
            6,
            &[CONNECTED, BELOW, "bad-txns-vout-toolarge", "bad-txns-vout-negative"],
            |draft, form, _| {
                let value = [0, MONEY, MONEY + 1, 1 << 63, u64::MAX, i64::MAX as u64][form];
                edits::values(draft, &[value])
            },
        ),
        usual("total", 2, &[BELOW, "bad-txns-txouttotal-toolarge"], |draft, form, _| {
            edits::total(draft, form as u64)
        }),
        usual("same input twice", 1, &["bad-txns-inputs-duplicate"], |draft, _, _| {
            edits::same_input_twice(draft)
        }),
        usual("null input", 1, &["bad-txns-prevout-null"], |draft, _, _| edits::null_input(draft)),
        usual("missing coin", 1, &[MISSING], |draft, _, random| edits::missing_coin(draft, random)),
        usual("spent twice", 1, &[MISSING], |draft, _, _| edits::spent_twice(draft)),
        usual("spent before", 1, &[MISSING], |draft, _, _| edits::spent_coin(draft)),
        usual("in block", 2, &[CONNECTED, MISSING], |draft, form, _| edits::in_block(draft, form == 1)),
        alone(usual(
            "maturity",
            2,
            &[CONNECTED, "bad-txns-premature-spend-of-coinbase"],
            |draft, form, _| edits::maturity(draft, form as u32),
        )),
        usual("in below out", 2, &[CONNECTED, BELOW], |draft, form, _| {
            edits::in_below_out(draft, form as u64)
        }),
    ]
}

fn lock_times() -> Vec<Mutation> {
    vec![
        usual("lock time", 10, &[CONNECTED, NONFINAL], |draft, form, _| {
            let (height, mtp, time) = (draft.place.height, draft.place.mtp(), draft.block.header.time);
            let (lock, sequence) = [
                (height - 1, 0),
                (height, 0),
                (height, FINAL),
                (mtp - 1, 0),
                (mtp, 0),
                (mtp, FINAL),
                (time, 0),
                (time - 1, FINAL - 1),
                (499_999_999, 0),
                (500_000_000, 0),
            ][form];
            edits::lock_time(draft, lock, sequence)
        }),
        usual("relative height", 6, &[CONNECTED, NONFINAL], |draft, form, _| {
            edits::relative_height(draft, form as u32 % 2, [1, 2, -1][form / 2])
        }),
        usual("relative time", 6, &[CONNECTED, NONFINAL], |draft, form, _| {
            edits::relative_time(draft, form as u32 % 2, [1, 2, -1][form / 2])
        }),
        usual("relative in block", 5, &[CONNECTED, NONFINAL], |draft, form, _| {
            edits::relative_in_block(draft, [0, 1, 1 << 31 | 1, 1 << 22, 1 << 22 | 1][form])
        }),
        usual("CLTV", 6, &[CONNECTED, SCRIPT], |draft, form, _| {
            edits::check_lock_time(draft, form as u32 % 2, [0, FINAL - 1, FINAL][form / 2])
        }),
        usual("CSV", 6, &[CONNECTED, SCRIPT], |draft, form, _| {
            let (demanded, given, version) =
                [(0, 0, 2), (0, 0, 1), (1, 0, 2), (0, 1 << 31, 2), (1, 1 << 31 | 5, 1), (0, 1 << 22, 2)]
                    [form];
            edits::check_sequence(draft, demanded, given, version)
        }),
    ]
}

fn witness() -> Vec<Mutation> {
    vec![
        usual("reserved value", 5, &[CONNECTED, NONCE], |draft, form, _| {
            let lens: &[usize] = [&[32][..], &[31], &[33], &[32, 1], &[0]][form];
            draft.place.segwit && edits::reserved(draft, lens)
        }),
        usual("other witness", 2, &[MATCH], |draft, _, _| draft.place.segwit && edits::other_witness(draft)),
        usual("commitment", edits::COMMITMENTS, &[CONNECTED, MATCH, UNEXPECTED], |draft, form, _| {
            draft.place.segwit && edits::commitments(draft, form)
        }),
        usual("no commitment", 2, &[UNEXPECTED], |draft, _, _| edits::no_commitment(draft)),
        // Before its time a commitment means nothing, and a witness is not expected.
        usual("commitment in any case", 2, &[CONNECTED], |draft, _, _| {
            draft.commit = true;
            true
        }),
        via(
            Via::Peer,
            usual(
                "coinbase witness",
                edits::COINBASE_WITNESSES,
                &[CONNECTED, NONCE, UNEXPECTED, MATCH],
                |draft, form, _| draft.place.segwit && edits::coinbase_witness(draft, form),
            ),
        ),
    ]
}

fn signatures() -> Vec<Mutation> {
    vec![
        usual("broken signature", 12, &[SCRIPT], |draft, _, random| edits::broken_signature(draft, random)),
        usual("padded signature", 3, &[SCRIPT], |draft, _, _| edits::padded_signature(draft)),
        usual("dummy", 3, &[SCRIPT], |draft, _, _| edits::dummy(draft)),
        usual("random script", 40, &[CONNECTED, SCRIPT], |draft, _, random| scripts::random(draft, random)),
    ]
}
