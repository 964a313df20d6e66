//! The examples of a store and of a verifier of one's own, as programs.

#![cfg(all(feature = "native", feature = "consensus"))]

#[path = "../examples/confined_verifier/parent.rs"]
mod parent;
mod world;

use bitcoin::consensus::serialize;
use bitcoin::{Amount, ScriptBuf, Transaction, TxIn, TxOut};
use headlong::chain::deployments::ScriptFlags;
use headlong::verify::conformance::Suite;
use headlong::verify::remote::RemoteError;
use headlong::verify::{ScriptFailure, TxScripts, Verdict, VerifierError};
use headlong::{Error, RunError, Verifier};
use parent::{ChildError, Confined, MAX_FAILURES};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use world::{PATIENCE, Running, World};

/// The program, which `cargo test` builds with the tests; before a run of this file alone, `cargo build
/// --examples` does.
fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).unwrap().join("examples").join(name)
}

fn run(name: &str) -> (Output, String) {
    let output = Command::new(program(name)).output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    (output, text)
}

/// The last word of the line that begins so.
fn last_word<'a>(text: &'a str, begin: &str) -> &'a str {
    let line = text.lines().find(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("{begin}: {text}"));
    line.split_whitespace().last().unwrap()
}

#[test]
fn a_store_of_ones_own_passes_the_suite_and_syncs_to_the_same_coins() {
    let (output, text) = run("custom_store");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(!text.contains("BROKEN"), "{text}");
    for check in ["Sizes", "Readers", "Model", "FailingWrites", "Kill"] {
        assert!(text.lines().any(|line| line.starts_with(&format!("ok       {check}"))), "{check}: {text}");
    }
    assert_eq!(text.contains("ok       NoRoom"), cfg!(unix), "{text}");
    assert_eq!(last_word(&text, "memory: height 300"), last_word(&text, "SQLite: height 300"));
    assert_eq!(last_word(&text, "memory: height 300").len(), 64);
    assert!(text.ends_with("the coins are equal\n"), "{text}");
}

#[test]
fn a_sync_with_confined_scripts_and_what_becomes_of_children_that_go_wrong() {
    let (output, text) = run("confined_verifier");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.starts_with("synced to 300 "), "{text}");
    for line in [
        "crashes: the child ended: ",
        "crashes-once, then: Valid",
        "hangs: the child did not answer within 300ms",
        "answers-twice: Valid",
        "answers-another-request: the child's answer is false: an answer to request 0, not to 1",
        "condemns-once: one child says that input 0 of transaction 0 fails, another Valid",
    ] {
        assert!(text.contains(&format!("\n{line}")), "{line}: {text}");
    }
}

fn children(part: &str) -> Confined {
    let timeout = if part == "hangs" { Duration::from_millis(200) } else { PATIENCE };
    Confined::new(program("confined_verifier"), &["--child", part], timeout).unwrap()
}

/// A spend of so many outputs with this script each.
fn spend(inputs: usize, script: Vec<u8>) -> (Transaction, Vec<TxOut>) {
    let output = TxOut { value: Amount::from_sat(1), script_pubkey: ScriptBuf::from_bytes(script) };
    let tx = Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![TxIn::default(); inputs],
        output: vec![output.clone()],
    };
    (tx, vec![output; inputs])
}

fn ask(verifier: &Confined, (tx, spent): &(Transaction, Vec<TxOut>)) -> Result<Verdict, ChildError> {
    verifier.judge(&[TxScripts { tx, raw: &serialize(tx), spent, flags: ScriptFlags::ALL }])
}

#[test]
fn each_way_to_go_wrong_is_an_error_of_its_own_and_no_verdict() {
    let anyone = spend(1, vec![0x51]);
    let error = |part: &str| ask(&children(part), &anyone).unwrap_err();
    assert!(matches!(error("crashes"), ChildError::Crashed(status) if !status.success()));
    assert!(matches!(error("hangs"), ChildError::TimedOut(_)));
    let false_answer = |part: &str| match error(part) {
        ChildError::False(error) => error,
        other => panic!("{part}: {other}"),
    };
    let other_request = false_answer("answers-another-request");
    assert_eq!(other_request, RemoteError::OtherRequest { asked: 1, found: 0 });
    assert_eq!(false_answer("answers-other-bytes"), RemoteError::OtherDigest(1));
    let outside = ScriptFailure { transaction: 1, input: 0 };
    assert_eq!(false_answer("names-no-input"), RemoteError::OutOfRange(outside));
    assert!(matches!(false_answer("says-nonsense"), RemoteError::TooLarge(_)));
    assert_eq!(false_answer("stops-in-the-middle"), RemoteError::Length);
    assert!(matches!(
        error("condemns-once"),
        ChildError::Disagreement { one: ScriptFailure { transaction: 0, input: 0 }, other: Verdict::Valid }
    ));
    let twice = children("answers-twice");
    assert_eq!(ask(&twice, &anyone).unwrap(), Verdict::Valid);
    std::thread::sleep(Duration::from_millis(300));
    // On a machine so busy that it comes later, it is an answer to another request.
    assert!(matches!(
        ask(&twice, &anyone).unwrap_err(),
        ChildError::Unasked | ChildError::False(RemoteError::OtherRequest { asked: 2, found: 1 })
    ));
    let nowhere = Confined::new(PathBuf::from("/no/such/program"), &[], PATIENCE).unwrap();
    assert!(matches!(ask(&nowhere, &anyone).unwrap_err(), ChildError::Start(_)));
    // Flags without meaning are no child's fault: it says so and stays.
    let honest = children("honest");
    let (tx, spent) = &anyone;
    let unknown = TxScripts { tx, raw: &serialize(tx), spent, flags: ScriptFlags(1 << 1) };
    assert!(matches!(honest.judge(&[unknown]).unwrap_err(), ChildError::NoVerdict(VerifierError { .. })));
    assert_eq!(ask(&honest, &anyone).unwrap(), Verdict::Valid);
    assert_eq!(honest.totals(), (1, 2));
}

#[test]
fn after_a_crash_comes_a_new_child_but_not_for_ever() {
    let anyone = spend(1, vec![0x51]);
    let once = children("crashes-once");
    assert!(ask(&once, &anyone).is_err());
    assert_eq!(ask(&once, &anyone).unwrap(), Verdict::Valid);
    assert_eq!(once.totals(), (2, 2));
    let always = children("crashes");
    for _ in 0..MAX_FAILURES {
        assert!(matches!(ask(&always, &anyone).unwrap_err(), ChildError::Crashed(_)));
    }
    assert!(matches!(ask(&always, &anyone).unwrap_err(), ChildError::GivenUp));
    assert_eq!(always.totals().0, MAX_FAILURES);
}

#[test]
fn the_confined_verifier_conforms() {
    let verifier = children("honest");
    let suite = Suite::new(&verifier);
    let counts = suite.output_types().unwrap().and(suite.batches().unwrap());
    assert!(counts.invalid > 500 && counts.skipped.is_empty(), "{counts}");
    // Each "invalid" was said by two.
    assert_eq!(verifier.totals().0, 2);
    // More bytes than pipes hold, many times over.
    let large = spend(2_000, [vec![0x61; 190], vec![0x4d, 0xf4, 0x01], vec![7; 500], vec![0x51]].concat());
    assert_eq!(ask(&verifier, &large).unwrap(), Verdict::Valid);
    // Several threads have as many children.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(verifier.verify(&[]).unwrap(), Verdict::Valid));
        }
    });
}

/// The run ends with an error that blames the verifier, and a run with good children goes on from there.
#[test]
fn a_crashed_child_condemns_no_block() {
    let world = World::new(120);
    let folder = tempfile::tempdir().unwrap();
    let builder = || {
        let memory = headlong::MemoryStore::new();
        world.builder().datadir(folder.path()).store(memory)
    };
    for part in ["crashes", "condemns-once", "answers-other-bytes"] {
        let node = Running::start(builder().verifier(children(part)).build().unwrap());
        match node.outcome() {
            Err(RunError::Failed { error: Error::Verifier(error), .. }) => {
                assert!(error.reason.contains("child"), "{error}");
            }
            other => panic!("{part}: {other:?}"),
        }
    }
    let node = Running::start(builder().verifier(children("honest")).build().unwrap());
    node.wait_for(world.tip());
    assert_eq!(node.stop(), world.tip());
}
