//! The example `validate` as a program: what it prints for blocks, headers, marks and malformed lines, from
//! framed files and with a data directory; and real blocks from the folder of shared vectors.

mod vectors;

use bitcoin::hex::{DisplayHex, FromHex};
use bitcoin::{Block, BlockHash};
use headlong::chain::params::{Network, Params};
use headlong::sim::forge::{BlockPlan, Branch, Forge, mine};
use serde_json::Value;
use std::io::{BufRead, BufReader, Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use vectors::{unpacked, vector};

/// The program, which `cargo test` builds with the tests; before a run of this file alone, `cargo build
/// --examples` does.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.parent().and_then(Path::parent).unwrap();
    target.join("examples").join(format!("validate{}", std::env::consts::EXE_SUFFIX))
}

fn run(args: &[&str], input: &[u8]) -> (Vec<Value>, ExitStatus) {
    let mut child = Command::new(program())
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", program().display()));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A program that refuses its arguments does not read.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    writer.join().unwrap();
    let lines = output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (lines, child.wait().unwrap())
}

fn answers(args: &[&str], input: &[u8]) -> Vec<Value> {
    let (lines, status) = run(args, input);
    assert!(status.success(), "{status}");
    lines
}

fn hex(block: &Block) -> String {
    bitcoin::consensus::serialize(block).to_lower_hex_string()
}

/// Verdict and reason.
fn verdict(answer: &Value) -> (&str, Option<&str>) {
    (answer["verdict"].as_str().unwrap(), answer["reason"].as_str())
}

fn forge() -> (Forge, Branch) {
    let forge = Forge::new(Arc::new(Params::new(Network::Regtest)), 11);
    let branch = forge.genesis(None);
    (forge, branch)
}

const REGTEST: [&str; 4] = ["--network", "regtest", "--clock", "1700000000"];

#[test]
fn every_line_is_answered_in_words_of_the_field() {
    let (mut forge, mut branch) = forge();
    let first = forge.extend(&mut branch, BlockPlan::default());
    let mut other = branch.clone();
    let second = forge.extend(&mut branch, BlockPlan::default());
    let rival = forge.extend(&mut other, BlockPlan::default());
    let third = forge.extend(&mut other, BlockPlan::default());
    let mut late = third.clone();
    late.header.time = 1_700_007_201;
    mine(&mut late);
    let mut mutated = second.clone();
    mutated.txdata[0].version = bitcoin::transaction::Version::ONE;
    let header = |block: &Block| bitcoin::consensus::serialize(&block.header).to_lower_hex_string();
    let (h1, h2, h3) = (first.block_hash(), second.block_hash(), third.block_hash());
    let rh = rival.block_hash();
    let genesis = Params::new(Network::Regtest).genesis_hash();

    // The line, the command, verdict and reason, and the tip afterwards.
    let steps: Vec<(String, &str, &str, Option<&str>, BlockHash)> = vec![
        (String::new(), "block", "rejected", Some("decode-failed"), genesis),
        ("zz".into(), "block", "rejected", Some("decode-failed"), genesis),
        (header(&first), "block", "rejected", Some("decode-failed"), genesis),
        (hex(&second), "block", "rejected", Some("prev-blk-not-found"), genesis),
        (hex(&first), "block", "connected", None, h1),
        (hex(&first), "block", "duplicate", None, h1),
        (hex(&mutated), "block", "rejected", Some("bad-txnmrklroot"), h1),
        (hex(&second), "block", "connected", None, h2),
        (format!("header {}", header(&rival)), "header", "accepted", None, h2),
        (hex(&third), "block", "side", None, h2),
        (format!("header {}", header(&late)), "header", "rejected", Some("time-too-new"), h2),
        ("clock 1700000001".into(), "clock", "ok", None, h2),
        (format!("header {}", header(&late)), "header", "accepted", None, h2),
        (hex(&rival), "block", "connected", None, h3),
        (format!("invalidate {rh}"), "invalidate", "ok", None, h2),
        (hex(&rival), "block", "rejected", Some("duplicate-invalid"), h2),
        (format!("reconsider {rh}"), "reconsider", "ok", None, h3),
        ("invalidate nothing".into(), "invalidate", "error", Some("malformed"), h3),
        (format!("reconsider {}", "00".repeat(32)), "reconsider", "error", Some("unknown-block"), h3),
        ("clock soon".into(), "clock", "error", Some("malformed"), h3),
        ("header 00".into(), "header", "rejected", Some("decode-failed"), h3),
        ("header".into(), "header", "rejected", Some("decode-failed"), h3),
    ];
    let mut input: String = steps.iter().map(|step| step.0.clone() + "\n").collect();
    input.pop();
    let found = answers(&REGTEST, input.as_bytes());
    assert_eq!(found.len(), steps.len());
    for ((line, command, word, reason, tip), answer) in steps.iter().zip(&found) {
        assert_eq!(verdict(answer), (*word, *reason), "{line}");
        assert_eq!(answer["cmd"], *command, "{line}");
        assert_eq!(answer["tip"], tip.to_string(), "{line}");
        let fields: Vec<&String> = answer.as_object().unwrap().keys().collect();
        assert_eq!(fields.len(), 6, "{fields:?}");
    }
    assert_eq!(found[0]["hash"], Value::Null);
    assert_eq!(found[4]["hash"], h1.to_string());
    assert_eq!(found.last().unwrap()["height"], 3);
}

#[test]
fn bytes_that_are_no_text_are_answered_too() {
    let found = answers(&REGTEST, b"\xff\xfe\n\r\n");
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|answer| verdict(answer) == ("rejected", Some("decode-failed"))));
}

#[test]
fn wrong_usage_exits_with_two() {
    for args in [
        &["--nonsense"][..],
        &["--network", "moon"],
        &["--network", "main", "--bip94"],
        &["--network", "main", "--signet-challenge", "51"],
        &["--clock", "soon"],
        &["--activation", "segwit"],
        &["--store", "memory", "--datadir", "x"],
    ] {
        assert_eq!(run(args, b"").1.code(), Some(2), "{args:?}");
    }
}

#[test]
fn a_missing_file_exits_with_one() {
    assert_eq!(run(&["/no/such/file"], b"").1.code(), Some(1));
}

fn framed(blocks: &[&Block]) -> Vec<u8> {
    let magic = Params::new(Network::Regtest).magic;
    let mut out = vec![7; 5];
    for block in blocks {
        let bytes = bitcoin::consensus::serialize(*block);
        out.extend(magic);
        out.extend((bytes.len() as u32).to_le_bytes());
        out.extend(bytes);
    }
    out.extend([0; 3]);
    out
}

#[test]
fn a_data_directory_is_resumed_and_its_coins_are_hashed() {
    let (mut forge, mut branch) = forge();
    let mut blocks = Vec::new();
    for height in 0..130 {
        let plan = BlockPlan { inputs: if height > 110 { 5 } else { 0 }, growth: 5 };
        blocks.push(forge.extend(&mut branch, plan));
    }
    // Children stand before their parents in two files.
    let folder = tempfile::tempdir().unwrap();
    let backwards: Vec<&Block> = blocks[..120].iter().rev().collect();
    let (first, second) = (folder.path().join("a.dat"), folder.path().join("b.dat"));
    std::fs::write(&first, framed(&backwards[..60])).unwrap();
    std::fs::write(&second, framed(&backwards[60..])).unwrap();
    let datadir = folder.path().join("data");
    let datadir = ["--datadir", datadir.to_str().unwrap(), "--utxo-hash"];
    let files = [first.to_str().unwrap(), second.to_str().unwrap()];

    let found = answers(&[&REGTEST[..], &datadir, &files].concat(), b"");
    assert_eq!(found.len(), 121);
    assert!(found[..120].iter().all(|answer| answer["verdict"] == "connected"));
    assert_eq!(found[119]["height"], 120);
    let rest: String = blocks[118..].iter().map(|block| hex(block) + "\n").collect();
    let found = answers(&[&REGTEST[..], &datadir].concat(), rest.as_bytes());
    let words: Vec<&str> = found[..12].iter().map(|answer| answer["verdict"].as_str().unwrap()).collect();
    assert_eq!(words, [&["duplicate"; 2][..], &["connected"; 10]].concat());
    let resumed = found.last().unwrap();

    // An empty input shows the same; and so does a store in memory that saw all blocks at once.
    assert_eq!(answers(&[&REGTEST[..], &datadir].concat(), b"").last(), Some(resumed));
    let all: String = blocks.iter().map(|block| hex(block) + "\n").collect();
    let memory = answers(&[&REGTEST[..], &["--utxo-hash"]].concat(), all.as_bytes());
    assert_eq!(memory.last(), Some(resumed));

    let coins = branch.coins.len() + branch.maturing.len();
    assert_eq!(resumed["txouts"], coins);
    let total: u64 = branch.coins.iter().chain(&branch.maturing).map(|coin| coin.output.value.to_sat()).sum();
    assert_eq!(resumed["total_amount_sat"], total);
    assert_eq!((&resumed["height"], &resumed["tip"]), (&130.into(), &branch.tip.hash.to_string().into()));
    for hash in ["hash_serialized_3", "muhash"] {
        assert_eq!(resumed[hash].as_str().unwrap().len(), 64);
    }

    // It belongs to its network.
    let (_, status) = run(&["--network", "signet", datadir[0], datadir[1]], b"");
    assert_eq!(status.code(), Some(1));
}

#[test]
fn assumed_blocks_skip_scripts_and_others_do_not() {
    // One script fails at height 102; 2,100 blocks of ten minutes lie on top: more than two weeks' work.
    let (mut forge, mut branch) = forge();
    let mut blocks = Vec::new();
    for _ in 0..101 {
        blocks.push(forge.extend(&mut branch, BlockPlan::default()));
    }
    let mut bad = forge.extend(&mut branch, BlockPlan { inputs: 1, growth: 0 });
    let input = &mut bad.txdata[1].input[0];
    if input.witness.is_empty() {
        input.script_sig = bitcoin::ScriptBuf::from_bytes(vec![0x51]);
    } else {
        let mut items = input.witness.to_vec();
        items[0] = vec![1; 9];
        input.witness = bitcoin::Witness::from_slice(&items);
    }
    headlong::sim::forge::commit_to_witnesses(&mut bad);
    mine(&mut bad);
    branch.tip.hash = bad.block_hash();
    let assumed = bad.block_hash().to_string();
    blocks.push(bad);
    for _ in 0..2_100 {
        blocks.push(forge.extend(&mut branch, BlockPlan::default()));
    }
    let headers = blocks.iter().map(|block| {
        format!("header {}\n", bitcoin::consensus::serialize(&block.header).to_lower_hex_string())
    });
    let bodies = blocks[..102].iter().map(|block| hex(block) + "\n");
    let input: String = headers.chain(bodies).collect();
    let clock = ["--network", "regtest", "--clock", "1900000000"];
    let assume = ["--assumevalid", &assumed];
    let last = |more: &[&str]| answers(&[&clock[..], more].concat(), input.as_bytes()).pop().unwrap();
    assert_eq!(verdict(&last(&assume)), ("connected", None));
    let refused = ("rejected", Some("block-script-verify-flag-failed"));
    assert_eq!(verdict(&last(&["--assumevalid", "none"])), refused);
    // Too little work for the minimum.
    let work = [&assume[..], &["--minimum-chainwork", "ffffff"]].concat();
    assert_eq!(verdict(&last(&work)), refused);
    // The assumed block is not known.
    assert_eq!(verdict(&last(&["--assumevalid", &"11".repeat(32)])), refused);
}

#[test]
fn two_thousand_blocks_on_mainnet_rules() {
    let Some(packed) = vector("blocks/blocks-mining_mainnet.jsonl.zst") else { return };
    let lines = BufReader::new(ruzstd::decoding::StreamingDecoder::new(Cursor::new(packed)).unwrap()).lines();
    let steps: Vec<Value> = lines
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap())
        .filter(|step| step["t"] == "block")
        .collect();
    assert_eq!(steps.len(), 2_016);
    let input: String = steps
        .iter()
        .map(|step| format!("clock {}\n{}\n", step["now"], step["hex"].as_str().unwrap()))
        .collect();
    let found = answers(&["--network", "main"], input.as_bytes());
    for (step, answer) in steps.iter().zip(found.iter().skip(1).step_by(2)) {
        let expected = if step["r"].is_null() { "connected" } else { "rejected" };
        assert_eq!(verdict(answer), (expected, step["r"].as_str()));
        assert_eq!((&answer["tip"], &answer["height"]), (&step["tip"], &step["height"]));
    }
}

#[test]
fn the_first_blocks_of_mainnet_from_a_framed_file() {
    let Some(framed) = unpacked("blocks/main-0001-0255.btcd.bz2") else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("blocks.dat");
    std::fs::write(&file, framed).unwrap();
    let found = answers(&["--network", "main", "--utxo-hash", file.to_str().unwrap()], b"");
    assert_eq!(found.len(), 256);
    assert!(found[..255].iter().all(|answer| answer["verdict"] == "connected"));
    // Each block made one coin; some spent one and made one or two. The first that was spent is block 9's.
    let stats = &found[255];
    assert_eq!(stats["height"], 255);
    assert_eq!(stats["total_amount_sat"], 255 * 5_000_000_000_u64);
    assert!(stats["txouts"].as_u64().unwrap() >= 255);
}

#[test]
fn a_coinbase_spent_too_early_ends_a_private_chain() {
    let Some(trunk) = unpacked("blocks/btcd-reorg/blk_0_to_4.dat.bz2") else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut args = vec!["--network".to_owned(), "main".to_owned()];
    for name in ["blk_3A", "blk_4A", "blk_5A"] {
        let file = folder.path().join(name);
        let block = unpacked(&format!("blocks/btcd-reorg/{name}.dat.bz2")).unwrap();
        std::fs::write(&file, block).unwrap();
        args.push(file.to_str().unwrap().to_owned());
    }
    let file = folder.path().join("blk_0_to_4");
    std::fs::write(&file, trunk).unwrap();
    args.push(file.to_str().unwrap().to_owned());
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let found = answers(&args, b"");
    let verdicts: Vec<_> = found.iter().map(verdict).collect();
    let too_early = ("rejected", Some("bad-txns-premature-spend-of-coinbase"));
    assert_eq!(verdicts[..3], [("duplicate", None), ("connected", None), too_early]);
    assert!(verdicts[3..].iter().all(|verdict| *verdict == ("rejected", Some("bad-prevblk"))
        || *verdict == ("rejected", Some("prev-blk-not-found"))));
    assert_eq!(found.last().unwrap()["height"], 1);
}

#[test]
fn hex_is_read_in_both_cases() {
    let (mut forge, mut branch) = forge();
    let block = forge.extend(&mut branch, BlockPlan::default());
    let upper = hex(&block).to_uppercase();
    assert_eq!(Vec::<u8>::from_hex(&upper).unwrap(), bitcoin::consensus::serialize(&block));
    assert_eq!(verdict(&answers(&REGTEST, upper.as_bytes())[0]), ("connected", None));
}

#[test]
fn an_answer_does_not_wait_for_the_next_line() {
    let (mut forge, mut branch) = forge();
    let mut child = Command::new(program())
        .args(REGTEST)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap());
    let mut ask = |line: &[u8]| -> Value {
        stdin.write_all(line).unwrap();
        stdin.flush().unwrap();
        let mut answer = String::new();
        answers.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    };
    for height in 1..4 {
        let block = forge.extend(&mut branch, BlockPlan::default());
        // Lines end as on any system, and blanks around them do not matter.
        let end = ["\n", "\r\n", " \n"][height % 3];
        let answer = ask(format!("{}{end}", hex(&block)).as_bytes());
        let keys: Vec<&String> = answer.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["cmd", "hash", "height", "reason", "tip", "verdict"]);
        assert_eq!(answer["hash"], block.block_hash().to_string());
        assert_eq!((verdict(&answer), &answer["height"]), (("connected", None), &height.into()));
    }
    assert_eq!(verdict(&ask(b"\r\n")), ("rejected", Some("decode-failed")));
    assert_eq!(verdict(&ask(b"dance 7\n")), ("rejected", Some("decode-failed")));
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_last_line_needs_no_end() {
    let (mut forge, mut branch) = forge();
    let block = forge.extend(&mut branch, BlockPlan::default());
    let found = answers(&REGTEST, hex(&block).as_bytes());
    assert_eq!(found.len(), 1);
    assert_eq!(verdict(&found[0]), ("connected", None));
    assert!(answers(&REGTEST, b"").is_empty());
}

#[test]
fn what_was_learnt_of_hashes_survives_in_the_data_directory() {
    let (mut forge, mut branch) = forge();
    let blocks: Vec<Block> = (0..3).map(|_| forge.extend(&mut branch, BlockPlan::default())).collect();
    let mut rival = branch.clone();
    let last = forge.extend(&mut branch, BlockPlan::default());
    let beside = forge.extend(&mut rival, BlockPlan::default());
    let mut bad = forge.extend(&mut branch.clone(), BlockPlan::default());
    bad.txdata[0].output[0].value += bitcoin::Amount::ONE_SAT;
    headlong::sim::forge::commit_to_witnesses(&mut bad);
    mine(&mut bad);
    let mut late = bad.clone();
    late.header.time = 1_700_007_201;
    mine(&mut late);
    let folder = tempfile::tempdir().unwrap();
    let datadir = [&REGTEST[..], &["--datadir", folder.path().to_str().unwrap()]].concat();
    let ask = |lines: &[String]| -> Vec<(String, Option<String>, Value)> {
        answers(&datadir, (lines.join("\n") + "\n").as_bytes())
            .iter()
            .map(|answer| {
                let (word, reason) = verdict(answer);
                (word.to_owned(), reason.map(str::to_owned), answer["tip"].clone())
            })
            .collect()
    };
    let said = |word: &str, reason: Option<&str>, tip: &Block| {
        (word.to_owned(), reason.map(str::to_owned), Value::from(tip.block_hash().to_string()))
    };
    let mut lines: Vec<String> = blocks.iter().map(hex).collect();
    lines.extend([hex(&last), hex(&beside), hex(&bad), hex(&late)]);
    let found = ask(&lines);
    assert_eq!(found[4], said("side", None, &last));
    assert_eq!(found[5], said("rejected", Some("bad-cb-amount"), &last));
    assert_eq!(found[6], said("rejected", Some("time-too-new"), &last));
    // Of equals the first stays, invalid blocks are remembered, those of the future are not.
    let found = ask(&[hex(&beside), hex(&bad), hex(&late), format!("invalidate {}", last.block_hash())]);
    assert_eq!(found[0], said("duplicate", None, &last));
    assert_eq!(found[1], said("rejected", Some("duplicate-invalid"), &last));
    assert_eq!(found[2], said("rejected", Some("time-too-new"), &last));
    assert_eq!(found[3], said("ok", None, &beside));
    // So is what the host said, until it takes it back.
    let found = ask(&[hex(&last), format!("reconsider {}", last.block_hash()), hex(&last)]);
    assert_eq!(found[0], said("rejected", Some("duplicate-invalid"), &beside));
    assert_eq!(found[1].0, "ok");
    assert_eq!(found[2].0, "duplicate");
}

#[test]
fn a_refused_copy_of_a_parent_lets_its_child_wait_on() {
    let (mut forge, mut branch) = forge();
    let first = forge.extend(&mut branch, BlockPlan::default());
    let second = forge.extend(&mut branch, BlockPlan::default());
    let mut copy = first.clone();
    copy.txdata[0].version = bitcoin::transaction::Version::ONE;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("blocks.dat");
    std::fs::write(&path, framed(&[&copy, &second, &first, &second])).unwrap();
    let found = answers(&[&REGTEST[..], &[path.to_str().unwrap()]].concat(), b"");
    let found: Vec<_> = found.iter().map(verdict).collect();
    let expected = [
        ("rejected", Some("bad-txnmrklroot")),
        ("connected", None),
        ("connected", None),
        ("duplicate", None),
    ];
    assert_eq!(found, expected);
    // One whose parent never comes is answered at the end, and stdin after it.
    let third = forge.extend(&mut branch, BlockPlan::default());
    std::fs::write(&path, framed(&[&third, &first])).unwrap();
    let found = answers(&[&REGTEST[..], &[path.to_str().unwrap()]].concat(), hex(&second).as_bytes());
    let found: Vec<_> = found.iter().map(verdict).collect();
    let expected = [("connected", None), ("rejected", Some("prev-blk-not-found")), ("connected", None)];
    assert_eq!(found, expected);
}

#[test]
fn options_choose_the_rules_and_the_store() {
    let (mut forge, mut branch) = forge();
    let mut blocks: Vec<Block> = (0..2).map(|_| forge.extend(&mut branch, BlockPlan::default())).collect();
    // A version that BIP66 ends.
    blocks[1].header.version = bitcoin::block::Version::from_consensus(2);
    mine(&mut blocks[1]);
    let input: String = blocks.iter().map(|block| hex(block) + "\n").collect();
    let last = |args: &[&str]| {
        let found = answers(&[&REGTEST[..], args].concat(), input.as_bytes());
        let (word, reason) = verdict(&found[1]);
        (word.to_owned(), reason.map(str::to_owned))
    };
    let refused = |reason: &str| ("rejected".to_owned(), Some(reason.to_owned()));
    let connected = ("connected".to_owned(), None);
    let later = ["--activation", "dersig=3", "--activation", "cltv=3"];
    assert_eq!(last(&[]), refused("bad-version"));
    assert_eq!(last(&later), connected);
    assert_eq!(last(&[&later[..], &["--activation", "dersig=2"]].concat()), refused("bad-version"));
    let store = |name| [&later[..], &["--store", name]].concat();
    assert_eq!(last(&store("memory")), connected);
    assert_eq!(last(&store("sled")), connected);
    let segwit = [&later[..], &["--activation", "segwit=2"]].concat();
    // The forge's first block carries a witness before its time. That may be another's doing, so that the
    // header is kept, and the second block waits on it.
    assert_eq!(last(&segwit), ("side".to_owned(), None));
    let bits = [&later[..], &["--vbparams", "testdummy:0:9999999999:144", "--bip94"]].concat();
    assert_eq!(last(&bits), connected);
}

#[test]
fn a_data_directory_has_one_user() {
    let folder = tempfile::tempdir().unwrap();
    let args = [&REGTEST[..], &["--datadir", folder.path().to_str().unwrap()]].concat();
    let mut first =
        Command::new(program()).args(&args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = first.stdin.take().unwrap();
    stdin.write_all(b"\n").unwrap();
    // It answers, so it has opened the directory.
    let mut line = String::new();
    BufReader::new(first.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(run(&args, b"").1.code(), Some(1));
    drop(stdin);
    assert!(first.wait().unwrap().success());
    assert_eq!(run(&args, b"").1.code(), Some(0));
}
