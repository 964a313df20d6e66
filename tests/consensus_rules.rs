//! For each rule of a block: one at its limit, which passes, and one over it, which is refused with Bitcoin
//! Core's word. All blocks are made here, on regtest's difficulty.
#![cfg(feature = "sim")]

use bitcoin::absolute::LockTime;
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode,
    TxOut, Txid, Witness, block,
};
use headlong::chain::command::{BlockContext, ScriptPolicy};
use headlong::chain::deployments::{Rules, ScriptFlags};
use headlong::chain::params::{Network, Params};
use headlong::consensus::block::{CheckedBlock, check_block, contextual_check_block, is_mutated};
use headlong::consensus::connect::{CoinRules, Totals};
use headlong::consensus::decode::{DecodedBlock, decode_block};
use headlong::consensus::signet::{SignetSpend, signet_spend};
use headlong::consensus::transaction::{MAX_MONEY, SpentCoin};
use headlong::error::{Reject, RejectKind};
use headlong::sim::forge::{commit_to_witnesses, mine};
use std::sync::Arc;

const TIME: u32 = 1_700_000_000;
const FLAGS: ScriptFlags = ScriptFlags::P2SH.with(ScriptFlags::WITNESS);

fn params() -> Params {
    Params::new(Network::Regtest)
}

fn rules() -> Rules {
    Rules { bip30: true, bip34: true, csv: true, segwit: true, script_flags: FLAGS }
}

fn context(height: u32) -> BlockContext {
    BlockContext {
        height,
        hash: BlockHash::all_zeros(),
        prev: BlockHash::all_zeros(),
        parent_mtp: TIME - 3_600,
        rules: rules(),
        scripts: ScriptPolicy::Verify,
    }
}

fn output(sat: u64, script: Vec<u8>) -> TxOut {
    TxOut { value: Amount::from_sat(sat), script_pubkey: ScriptBuf::from_bytes(script) }
}

fn coinbase(height: u32) -> Transaction {
    let script_sig = Builder::new().push_int(i64::from(height)).push_int(0).into_script();
    Transaction {
        version: Version::ONE,
        lock_time: LockTime::ZERO,
        input: vec![TxIn { previous_output: OutPoint::null(), script_sig, ..TxIn::default() }],
        output: vec![output(0, vec![0x51])],
    }
}

fn tx(n: u8) -> Transaction {
    let previous_output = OutPoint { txid: Txid::from_byte_array([n; 32]), vout: 0 };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn { previous_output, sequence: Sequence::MAX, ..TxIn::default() }],
        output: vec![output(0, vec![0x51])],
    }
}

/// A block with a witness commitment and proof of work.
fn sealed(txdata: Vec<Transaction>) -> Block {
    let mut block = Block { header: header(), txdata };
    commit_to_witnesses(&mut block);
    mine(&mut block);
    block
}

/// The same without a witness commitment.
fn bare(txdata: Vec<Transaction>) -> Block {
    let mut block = Block { header: header(), txdata };
    mine(&mut block);
    block
}

fn header() -> block::Header {
    block::Header {
        version: block::Version::from_consensus(0x2000_0000),
        prev_blockhash: BlockHash::all_zeros(),
        merkle_root: TxMerkleNode::all_zeros(),
        time: TIME,
        bits: CompactTarget::from_consensus(0x207f_ffff),
        nonce: 0,
    }
}

fn decoded(block: &Block) -> DecodedBlock {
    decode_block(Arc::new(serialize(block))).unwrap()
}

fn never(_: &SignetSpend) -> bool {
    panic!("regtest has no solutions")
}

fn checked(block: &Block) -> CheckedBlock {
    check_block(decoded(block), &params(), never).unwrap()
}

fn word<T>(result: Result<T, Reject>) -> (&'static str, Option<RejectKind>) {
    result.map_or_else(|reject| (reject.reason, Some(reject.kind)), |_| ("ok", None))
}

fn check(block: &Block) -> (&'static str, Option<RejectKind>) {
    word(check_block(decoded(block), &params(), never))
}

const OK: (&str, Option<RejectKind>) = ("ok", None);

fn consensus(reason: &'static str) -> (&'static str, Option<RejectKind>) {
    (reason, Some(RejectKind::Consensus))
}

fn mutated(reason: &'static str) -> (&'static str, Option<RejectKind>) {
    (reason, Some(RejectKind::Mutated))
}

// ---- check_block ----

#[test]
fn proof_of_work_is_needed_for_a_target_that_the_network_allows() {
    let mut block = sealed(vec![coinbase(1)]);
    assert_eq!(check(&block), OK);
    let high_hash = ("high-hash", Some(RejectKind::InvalidHeader));
    let target = bitcoin::Target::from_compact(block.header.bits);
    while target.is_met_by(block.block_hash()) {
        block.header.nonce += 1;
    }
    assert_eq!(check(&block), high_hash);
    // Easier than regtest, negative, zero.
    for bits in [0x2100_ffff, 0x2080_ffff, 0x2000_0000] {
        block.header.bits = CompactTarget::from_consensus(bits);
        assert_eq!(check(&block), high_hash, "{bits:x}");
    }
}

#[test]
fn the_root_fits_and_nothing_is_repeated() {
    let mut block = sealed(vec![coinbase(1), tx(1), tx(2)]);
    assert_eq!(check(&block), OK);
    assert!(!is_mutated(&decoded(&block), true));
    block.txdata.push(tx(2));
    assert_eq!(check(&block), mutated("bad-txns-duplicate"));
    assert!(is_mutated(&decoded(&block), true));
    block.txdata.push(tx(3));
    assert_eq!(check(&block), mutated("bad-txnmrklroot"));
    assert!(is_mutated(&decoded(&block), true));
    // The root comes before what the transactions break.
    block.txdata.clear();
    assert_eq!(check(&block), mutated("bad-txnmrklroot"));
}

#[test]
fn a_million_bytes_without_witnesses_and_one_more() {
    let size = |filler: usize| {
        let mut cb = coinbase(1);
        cb.output.push(output(0, vec![0x6a; filler]));
        bare(vec![cb, tx(1)])
    };
    let least = decoded(&size(500_000)).base_size() - 500_000;
    let block = size(1_000_000 - least);
    assert_eq!(decoded(&block).base_size(), 1_000_000);
    assert_eq!(check(&block), OK);
    assert_eq!(contextual_check_block(&checked(&block), &context(1)), Ok(()));
    assert_eq!(check(&size(1_000_001 - least)), consensus("bad-blk-length"));
}

#[test]
fn a_block_without_transactions_has_no_length() {
    let mut block = Block { header: header(), txdata: Vec::new() };
    headlong::sim::forge::mine_header(&mut block.header);
    assert_eq!(check(&block), consensus("bad-blk-length"));
}

#[test]
fn the_first_transaction_alone_is_a_coinbase() {
    assert_eq!(check(&bare(vec![tx(1), tx(2)])), consensus("bad-cb-missing"));
    assert_eq!(check(&bare(vec![tx(1), coinbase(1)])), consensus("bad-cb-missing"));
    assert_eq!(check(&bare(vec![coinbase(1), tx(1), coinbase(2)])), consensus("bad-cb-multiple"));
}

#[test]
fn every_transaction_is_checked() {
    let mut negative = tx(2);
    negative.output[0].value = Amount::from_sat(1 << 63);
    assert_eq!(check(&sealed(vec![coinbase(1), tx(1), negative])), consensus("bad-txns-vout-negative"));
    let mut short = coinbase(1);
    short.input[0].script_sig = ScriptBuf::from_bytes(vec![0x51]);
    assert_eq!(check(&sealed(vec![short])), consensus("bad-cb-length"));

    // Neither inputs nor outputs, a form that rust-bitcoin does not write.
    let empty = Transaction { input: Vec::new(), output: Vec::new(), ..tx(1) };
    let block = bare(vec![coinbase(1), empty]);
    let mut bytes = serialize(&block.header);
    bytes.push(2);
    bytes.extend(serialize(&block.txdata[0]));
    bytes.extend([2, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let decoded = decode_block(Arc::new(bytes)).unwrap();
    assert_eq!(word(check_block(decoded, &params(), never)), consensus("bad-txns-vin-empty"));
}

#[test]
fn twenty_thousand_signature_operations_and_one_more() {
    let block = |count: usize| {
        let mut spender = tx(1);
        spender.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0xac; count / 2]);
        spender.input[0].script_sig = ScriptBuf::from_bytes(vec![0xad; count - count / 2]);
        sealed(vec![coinbase(1), spender])
    };
    assert_eq!(check(&block(20_000)), OK);
    assert_eq!(check(&block(20_001)), consensus("bad-blk-sigops"));
}

#[test]
fn a_block_of_64_byte_transactions_may_be_a_trick() {
    let mut small = tx(1);
    small.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51; 4]);
    assert_eq!(small.total_size(), 64);
    assert!(is_mutated(&decoded(&bare(vec![small.clone()])), false));
    small.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51; 5]);
    assert!(!is_mutated(&decoded(&bare(vec![small.clone()])), false));
    // With a coinbase the question is not asked.
    small.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51; 4]);
    assert!(!is_mutated(&decoded(&bare(vec![coinbase(1), small])), false));
}

// ---- contextual_check_block ----

fn contextual(block: &Block, context: &BlockContext) -> (&'static str, Option<RejectKind>) {
    word(contextual_check_block(&checked(block), context))
}

#[test]
fn lock_times_are_over_by_height_and_by_the_time_that_counts() {
    let at = |lock: u32| {
        let mut locked = tx(1);
        locked.lock_time = LockTime::from_consensus(lock);
        locked.input[0].sequence = Sequence::ZERO;
        sealed(vec![coinbase(500), locked])
    };
    let nonfinal = consensus("bad-txns-nonfinal");
    let mut context = context(500);
    assert_eq!(contextual(&at(499), &context), OK);
    assert_eq!(contextual(&at(500), &context), nonfinal);
    assert_eq!(contextual(&at(context.parent_mtp - 1), &context), OK);
    assert_eq!(contextual(&at(context.parent_mtp), &context), nonfinal);
    // Before BIP113 the block's own time counts.
    context.rules.csv = false;
    assert_eq!(contextual(&at(TIME - 1), &context), OK);
    assert_eq!(contextual(&at(TIME), &context), nonfinal);
    // The coinbase has a lock time too.
    let mut cb = coinbase(500);
    cb.lock_time = LockTime::from_consensus(500);
    cb.input[0].sequence = Sequence::ZERO;
    assert_eq!(contextual(&sealed(vec![cb]), &context), nonfinal);
}

#[test]
fn the_coinbase_starts_with_the_height() {
    for height in [1, 16, 17, 127, 128, 255, 256, 32_767, 32_768, 8_388_607, 8_388_608, 100_000_000] {
        let block = sealed(vec![coinbase(height)]);
        assert_eq!(contextual(&block, &context(height)), OK, "{height}");
        assert_eq!(contextual(&block, &context(height + 1)), consensus("bad-cb-height"));
        let mut before = context(height + 1);
        before.rules.bip34 = false;
        assert_eq!(contextual(&block, &before), OK);
    }
    // The number alone, in a longer form, is not the height.
    let mut cb = coinbase(5);
    cb.input[0].script_sig = ScriptBuf::from_bytes(vec![0x01, 0x05]);
    assert_eq!(contextual(&sealed(vec![cb]), &context(5)), consensus("bad-cb-height"));
}

fn witness_tx(items: &[&[u8]]) -> Transaction {
    let mut tx = tx(1);
    tx.input[0].witness = Witness::from_slice(items);
    tx
}

#[test]
fn the_reserved_value_is_one_string_of_32_bytes() {
    let good = sealed(vec![coinbase(1), witness_tx(&[&[7; 40]])]);
    assert_eq!(contextual(&good, &context(1)), OK);
    for items in [vec![], vec![vec![0; 31]], vec![vec![0; 33]], vec![vec![0; 32]; 2], vec![vec![]]] {
        let mut block = good.clone();
        block.txdata[0].input[0].witness = Witness::from_slice(&items);
        assert_eq!(contextual(&block, &context(1)), mutated("bad-witness-nonce-size"), "{items:?}");
        assert!(is_mutated(&decoded(&block), true));
    }
}

#[test]
fn the_commitment_fits_the_witnesses() {
    let good = sealed(vec![coinbase(1), witness_tx(&[&[7; 40]])]);
    let mut block = good.clone();
    block.txdata[1].input[0].witness = Witness::from_slice(&[&[8; 40]]);
    assert_eq!(contextual(&block, &context(1)), mutated("bad-witness-merkle-match"));
    assert!(is_mutated(&decoded(&block), true));
    let mut block = good.clone();
    block.txdata[0].input[0].witness = Witness::from_slice(&[[1; 32]]);
    assert_eq!(contextual(&block, &context(1)), mutated("bad-witness-merkle-match"));

    // Of several commitments the last counts; what follows its 38 bytes does not.
    let right = good.txdata[0].output.last().unwrap().clone();
    let mut wrong = right.script_pubkey.to_bytes();
    wrong[37] ^= 1;
    let wrong = output(0, wrong);
    let with = |outputs: &[&TxOut]| {
        let mut block = good.clone();
        block.txdata[0].output.truncate(1);
        block.txdata[0].output.extend(outputs.iter().map(|output| (*output).clone()));
        mine(&mut block);
        contextual(&block, &context(1))
    };
    assert_eq!(with(&[&wrong, &right]), OK);
    assert_eq!(with(&[&right, &wrong]), mutated("bad-witness-merkle-match"));
    let mut longer = right.script_pubkey.to_bytes();
    longer.extend([0x51; 5]);
    assert_eq!(with(&[&output(0, longer)]), OK);
    assert_eq!(with(&[&right, &output(0, wrong.script_pubkey.as_bytes()[..37].to_vec())]), OK);
}

#[test]
fn witnesses_without_a_commitment_are_unexpected() {
    let mut block = bare(vec![coinbase(1), witness_tx(&[&[7; 40]])]);
    assert_eq!(contextual(&block, &context(1)), mutated("unexpected-witness"));
    block.txdata[1].input[0].witness = Witness::new();
    assert_eq!(contextual(&block, &context(1)), OK);
    // Before segwit a commitment means nothing.
    let committed = sealed(vec![coinbase(1), tx(1)]);
    let mut before = context(1);
    before.rules.segwit = false;
    assert_eq!(contextual(&committed, &before), mutated("unexpected-witness"));
    assert!(is_mutated(&decoded(&committed), false));
    assert!(!is_mutated(&decoded(&committed), true));
}

#[test]
fn four_million_units_of_weight_and_one_more() {
    let block = |filler: usize| sealed(vec![coinbase(1), witness_tx(&[&vec![0; filler]])]);
    let least = decoded(&block(1_000_000)).weight() - 1_000_000;
    let limit = block(4_000_000 - least);
    assert_eq!(decoded(&limit).weight(), 4_000_000);
    assert_eq!(contextual(&limit, &context(1)), OK);
    let over = block(4_000_001 - least);
    assert_eq!(check(&over), OK);
    assert_eq!(contextual(&over, &context(1)), consensus("bad-blk-weight"));
}

// ---- what needs coins ----

type Coin = (TxOut, u32, bool);

fn connect(
    block: &Block,
    coins: &[Vec<Coin>],
    context: &BlockContext,
    params: &Params,
) -> Result<Totals, &'static str> {
    let block = checked(block);
    let mut rules = CoinRules::new(&block, context, params);
    let none = Vec::new();
    let mtp_at = |height| Ok::<u32, Reject>(TIME - 1_000_000 + 600 * height);
    for coins in core::iter::once(&none).chain(coins) {
        let coins: Vec<_> = coins
            .iter()
            .map(|(output, height, coinbase)| SpentCoin { output, height: *height, coinbase: *coinbase })
            .collect();
        rules.transaction(&coins, mtp_at).map_err(|reject| reject.reason)?;
    }
    rules.finish().map_err(|reject| reject.reason)
}

#[test]
fn the_coinbase_takes_subsidy_and_fees_and_no_satoshi_more() {
    let block = |sat: u64| {
        let mut cb = coinbase(450);
        cb.output[0].value = Amount::from_sat(sat);
        let mut spender = tx(1);
        spender.output[0].value = Amount::from_sat(1_000);
        sealed(vec![cb, spender])
    };
    let coins = [vec![(output(1_234, vec![0x51]), 300, false)]];
    let mut params = params();
    let connect = |sat, params: &Params| connect(&block(sat), &coins, &context(450), params);
    // Regtest halves every 150 blocks.
    let reward = 5_000_000_000 / 8 + 234;
    let totals = Totals { fees: Amount::from_sat(234), sigop_cost: 0 };
    assert_eq!(connect(reward, &params), Ok(totals));
    assert_eq!(connect(reward + 1, &params), Err("bad-cb-amount"));
    params.halving_interval = 151;
    assert_eq!(connect(2 * (reward - 234) + 234, &params), Ok(totals));
}

#[test]
fn eighty_thousand_units_of_signature_operations_and_one_more() {
    let mut spender = tx(1);
    spender.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0xac; 20_000]);
    let block = sealed(vec![coinbase(200), spender]);
    let p2wpkh = [&[0x00, 0x14][..], &[5; 20]].concat();
    let connect = |script: Vec<u8>, context: &BlockContext| {
        connect(&block, &[vec![(output(0, script), 1, false)]], context, &params())
    };
    let limit = Totals { fees: Amount::ZERO, sigop_cost: 80_000 };
    assert_eq!(connect(vec![0x51], &context(200)), Ok(limit));
    assert_eq!(connect(p2wpkh.clone(), &context(200)), Err("bad-blk-sigops"));
    let mut before = context(200);
    before.rules.script_flags = ScriptFlags::P2SH;
    assert_eq!(connect(p2wpkh, &before), Ok(limit));
}

#[test]
fn relative_lock_times_hold_once_bip68_does() {
    let block = |sequence: u32| {
        let mut spender = tx(1);
        spender.input[0].sequence = Sequence(sequence);
        sealed(vec![coinbase(500), spender])
    };
    let coin = [vec![(output(0, vec![0x51]), 400, false)]];
    let connect =
        |sequence, context: &BlockContext| connect(&block(sequence), &coin, context, &params()).map(|_| ());
    let nonfinal = Err("bad-txns-nonfinal");
    assert_eq!(connect(100, &context(500)), Ok(()));
    assert_eq!(connect(101, &context(500)), nonfinal);
    let mut before = context(500);
    before.rules.csv = false;
    assert_eq!(connect(101, &before), Ok(()));
    // The coin's clock starts at the median of the block before it; a unit has 512 seconds.
    let mut at = context(500);
    at.parent_mtp = TIME - 1_000_000 + 600 * 399 + 512 * 9;
    assert_eq!(connect(1 << 22 | 9, &at), Ok(()));
    assert_eq!(connect(1 << 22 | 10, &at), nonfinal);
}

#[test]
fn coins_are_mature_and_worth_enough_and_fees_stay_in_range() {
    let block = sealed(vec![coinbase(200), tx(1), tx(2)]);
    let coin = |sat, height, coinbase| vec![(output(sat, vec![0x51]), height, coinbase)];
    let connect =
        |coins: [Vec<Coin>; 2]| connect(&block, &coins, &context(200), &params()).map(|t| t.fees.to_sat());
    assert_eq!(connect([coin(5, 100, true), coin(6, 199, false)]), Ok(11));
    assert_eq!(
        connect([coin(5, 199, false), coin(6, 101, true)]),
        Err("bad-txns-premature-spend-of-coinbase")
    );
    assert_eq!(connect([coin(5, 1, false), Vec::new()]), Err("bad-txns-inputs-missingorspent"));
    assert_eq!(connect([coin(MAX_MONEY - 1, 1, false), coin(1, 1, false)]), Ok(MAX_MONEY));
    assert_eq!(
        connect([coin(MAX_MONEY, 1, false), coin(1, 1, false)]),
        Err("bad-txns-accumulated-fee-outofrange")
    );
    assert_eq!(
        connect([coin(MAX_MONEY + 1, 1, false), coin(1, 1, false)]),
        Err("bad-txns-inputvalues-outofrange")
    );
}

#[test]
fn a_look_up_that_fails_is_passed_on() {
    #[derive(Debug, PartialEq)]
    enum Failure {
        Rejected(Reject),
        LookUp(u32),
    }
    impl From<Reject> for Failure {
        fn from(reject: Reject) -> Self {
            Self::Rejected(reject)
        }
    }
    let mut spender = tx(1);
    spender.input[0].sequence = Sequence(1 << 22);
    let block = checked(&sealed(vec![coinbase(500), spender]));
    let (context, params) = (context(500), params());
    let mut rules = CoinRules::new(&block, &context, &params);
    rules.transaction::<Failure>(&[], |_| unreachable!()).unwrap();
    let output = output(0, vec![0x51]);
    let coin = SpentCoin { output: &output, height: 7, coinbase: false };
    assert_eq!(rules.transaction(&[coin], |height| Err(Failure::LookUp(height))), Err(Failure::LookUp(6)));
}

// ---- signet ----

/// A signet whose blocks are mined as on regtest.
fn signet(challenge: Vec<u8>) -> Params {
    let mut params = Params::signet(ScriptBuf::from_bytes(challenge));
    params.pow_limit = self::params().pow_limit;
    params
}

fn solution_push(solution: &[u8]) -> Vec<u8> {
    let data = [&[0xec, 0xc7, 0xda, 0xa2], solution].concat();
    Builder::new().push_slice(PushBytesBuf::try_from(data).unwrap()).into_bytes()
}

/// A block whose commitment ends with `tail`.
fn with_tail(tail: &[u8]) -> Block {
    let mut block = sealed(vec![coinbase(1), tx(1)]);
    let commitment = &mut block.txdata[0].output.last_mut().unwrap().script_pubkey;
    *commitment = ScriptBuf::from_bytes([commitment.as_bytes(), tail].concat());
    mine(&mut block);
    block
}

#[test]
fn a_signet_block_is_asked_for_its_solution_and_others_are_not() {
    let params = signet(vec![0x51]);
    let block = sealed(vec![coinbase(1)]);
    assert_eq!(word(check_block(decoded(&block), &params, |_| true)), OK);
    let refused = consensus("bad-signet-blksig");
    assert_eq!(word(check_block(decoded(&block), &params, |_| false)), refused);
    // Without a commitment there is nothing to ask about.
    let block = bare(vec![coinbase(1)]);
    assert_eq!(word(check_block(decoded(&block), &params, |_| true)), refused);
    assert_eq!(
        word(check_block(decoded(&Block { txdata: Vec::new(), ..block }), &params, |_| true)).0,
        "bad-signet-blksig"
    );
    // The genesis block needs none.
    let real = Params::new(Network::Signet);
    assert_eq!(word(check_block(decoded(&real.genesis), &real, |_| false)), OK);
}

#[test]
fn solutions_are_read_to_their_last_byte() {
    let challenge = ScriptBuf::from_bytes(vec![0x51]);
    let spend = |tail: &[u8]| signet_spend(&decoded(&with_tail(tail)), &challenge);
    let solution = |bytes: &[u8]| spend(&solution_push(bytes));
    let input = |spend: Option<SignetSpend>| {
        let input = spend.unwrap().to_sign.input.remove(0);
        (input.script_sig.into_bytes(), input.witness.to_vec())
    };
    assert_eq!(input(spend(&[])), (vec![], vec![]));
    assert_eq!(input(solution(&[0, 0])), (vec![], vec![]));
    assert_eq!(input(solution(&[1, 0x51, 0])), (vec![0x51], vec![]));
    assert_eq!(input(solution(&[0, 2, 1, 9, 0])), (vec![], vec![vec![9], vec![]]));
    for malformed in [&[0][..], &[0, 0, 0], &[2, 0x51], &[0, 1], &[0xfd, 0, 0, 0], &[0, 1, 0xff]] {
        assert_eq!(solution(malformed), None, "{malformed:?}");
    }
    // The header with nothing behind it is no solution; of two pushes with one the first counts.
    assert_eq!(input(spend(&solution_push(&[]))), (vec![], vec![]));
    let two = [solution_push(&[1, 0x51, 0]), solution_push(&[1, 0x52, 0])].concat();
    assert_eq!(input(spend(&two)).0, [0x51]);
    // What the solution says does not change what it signs; what else stands there does.
    let committed = |spend: Option<SignetSpend>| spend.unwrap().to_sign.input[0].previous_output;
    assert_eq!(committed(solution(&[1, 0x51, 0])), committed(solution(&[0, 0])));
    assert_ne!(committed(solution(&[0, 0])), committed(spend(&[])));
    assert_ne!(committed(spend(&[0x51])), committed(spend(&[])));
}

#[cfg(feature = "consensus")]
#[test]
fn a_signature_solves_the_block_it_was_made_for() {
    use bitcoin::key::Secp256k1;
    use bitcoin::secp256k1::{Message, SecretKey};
    use bitcoin::sighash::{EcdsaSighashType, SighashCache};

    use headlong::verify::{check_block, interpreter::Interpreter};
    let secp = Secp256k1::new();
    let secret = SecretKey::from_slice(&[3; 32]).unwrap();
    let key = bitcoin::PublicKey::new(secret.public_key(&secp));
    let challenge =
        Builder::new().push_key(&key).push_opcode(bitcoin::opcodes::all::OP_CHECKSIG).into_script();
    let params = signet(challenge.to_bytes());

    let spend = signet_spend(&decoded(&with_tail(&solution_push(&[0, 0]))), &challenge).unwrap();
    let sighash = SighashCache::new(&spend.to_sign)
        .legacy_signature_hash(0, &challenge, EcdsaSighashType::All.to_u32())
        .unwrap();
    let signature = secp.sign_ecdsa(&Message::from_digest(sighash.to_byte_array()), &secret);
    let signature = bitcoin::ecdsa::Signature { signature, sighash_type: EcdsaSighashType::All };
    let script_sig = Builder::new().push_slice(signature.serialize()).into_script();
    let mut solution = serialize(&script_sig);
    solution.push(0);

    let verdict = |block: &Block| {
        check_block(decoded(block), &params, &Interpreter).map(|_| ()).map_err(|error| error.to_string())
    };
    let good = with_tail(&solution_push(&solution));
    assert_eq!(verdict(&good), Ok(()));
    let refused = Err("bad-signet-blksig".to_owned());
    let mut later = good.clone();
    later.header.time += 1;
    mine(&mut later);
    assert_eq!(verdict(&later), refused);
    let mut other = good.clone();
    other.txdata[1].output[0].value = Amount::from_sat(1);
    mine(&mut other);
    assert_eq!(verdict(&other), refused);
    assert_eq!(verdict(&with_tail(&[])), refused);
}
