//! The crate's verifiers pass the conformance suite and Bitcoin Core's vectors, and verifiers with one defect each
//! do not.
#![cfg(feature = "consensus")]

mod vectors;

use headlong::Verifier;
use headlong::chain::deployments::ScriptFlags;
use headlong::verify::conformance::{Counts, Failure, Suite};
use headlong::verify::interpreter::Interpreter;
use headlong::verify::standard::StandardVerifier;
use headlong::verify::{ScriptFailure, TxScripts, Verdict, VerifierError};
use std::sync::atomic::{AtomicUsize, Ordering};
use vectors::vector;

fn seed() -> u64 {
    std::env::var("HEADLONG_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

fn counted(name: &str, counts: Result<Counts, Failure>) -> Counts {
    let counts = counts.unwrap_or_else(|failure| panic!("{name}, seed {}: {failure}", seed()));
    eprintln!("{name}, seed {}: {counts}", seed());
    counts
}

/// The verifiers of the crate.
fn engines() -> [Box<dyn Verifier>; 2] {
    [Box::new(Interpreter), Box::new(StandardVerifier::default())]
}

#[test]
fn every_engine_conforms() {
    engines().iter().for_each(|engine| conforms(&**engine));
}

fn conforms(engine: &dyn Verifier) {
    let suite = Suite::new(engine).seed(seed());
    let types = counted("output types", suite.output_types());
    let batches = counted("batches", suite.batches());
    let purity = counted("purity", suite.purity());
    assert_eq!((types.valid, types.invalid), (388, 731));
    assert_eq!((batches.valid, batches.invalid), (2, 86));
    // Once, and on each of four threads.
    assert_eq!((purity.valid, purity.invalid), (types.valid * 5, types.invalid * 5));
    let all = suite.run().unwrap();
    assert_eq!(all, types.and(batches).and(purity));
    assert!(all.skipped.is_empty());
}

fn text(name: &str) -> Option<String> {
    vector(name).map(|bytes| String::from_utf8(bytes).unwrap())
}

fn skipped(counts: &Counts) -> Vec<(&str, usize)> {
    counts.skipped.iter().map(|(reason, count)| (*reason, *count)).collect()
}

#[test]
fn cores_script_tests() {
    let Some(json) = text("core/script_tests.json") else { return };
    for engine in engines() {
        let counts = counted("script_tests.json", Suite::new(&*engine).core_script_tests(&json));
        // 675 entries are valid and 418 invalid; each is asked about more than once.
        assert_eq!((counts.valid, counts.invalid), (1251, 2 * 418));
        assert_eq!(skipped(&counts), [("rules of relay", 129)]);
    }
}

#[test]
fn cores_transactions() {
    let (Some(valid), Some(invalid)) = (text("core/tx_valid.json"), text("core/tx_invalid.json")) else {
        return;
    };
    for engine in engines() {
        let suite = Suite::new(&*engine);
        let valid = counted("tx_valid.json", suite.core_valid_transactions(&valid));
        let invalid = counted("tx_invalid.json", suite.core_invalid_transactions(&invalid));
        assert_eq!((valid.valid, valid.invalid), (958, 10));
        assert_eq!(skipped(&valid), []);
        assert_eq!((invalid.valid, invalid.invalid), (70, 2 * 70));
        assert_eq!(skipped(&invalid), [("rules of relay", 14), ("rules without scripts", 9)]);
    }
}

#[test]
fn cores_signature_hashes() {
    let Some(json) = text("core/sighash.json") else { return };
    for engine in engines() {
        let counts = counted("sighash.json", Suite::new(&*engine).core_signature_hashes(&json));
        assert_eq!((counts.valid, counts.invalid), (500, 500));
        assert_eq!(skipped(&counts), []);
    }
}

#[test]
fn vectors_that_are_none_are_the_callers_fault() {
    let suite = Suite::new(&Interpreter);
    for json in ["", "{}", "[1]", "[[1, 2]]", r#"[["x", "NOSUCH", "P2SH", "OK"]]"#, "[[[], 1, 2, 3, 4]]"] {
        for counts in [
            suite.core_script_tests(json),
            suite.core_valid_transactions(json),
            suite.core_invalid_transactions(json),
            suite.core_signature_hashes(json),
        ] {
            assert!(matches!(counts, Err(Failure::Vectors(_))), "{json}: {counts:?}");
        }
    }
}

#[derive(Debug)]
enum Defective {
    AcceptsAll,
    RefusesAll,
    /// No flag means anything to it.
    AllFlags,
    /// These are ignored.
    Without(ScriptFlags),
    /// What is spent is taken to be of the value of the first output.
    SameAmounts,
    /// Looks at the first transaction only.
    FirstOnly,
    /// Names the input behind the failing one.
    WrongInput,
    /// Names the transaction behind the failing one.
    WrongTransaction,
    /// Says valid once, at an answer (of many) to an invalid spend: what only [`Suite::purity`] asks often enough
    /// to see.
    Forgets(AtomicUsize),
    /// Takes what is spent from the inputs that are there.
    MissingOutput,
    /// An empty batch is an error.
    NoEmpty,
}

impl Verifier for Defective {
    fn verify(&self, batch: &[TxScripts<'_>]) -> Result<Verdict, VerifierError> {
        let under = |flags: fn(ScriptFlags, &Self) -> ScriptFlags| -> Result<Verdict, VerifierError> {
            let batch: Vec<_> = batch
                .iter()
                .map(|scripts| TxScripts { flags: flags(scripts.flags, self), ..*scripts })
                .collect();
            Interpreter.verify(&batch)
        };
        let verdict = Interpreter.verify(batch);
        match self {
            Self::AcceptsAll => Ok(Verdict::Valid),
            Self::RefusesAll => Ok(Verdict::Invalid(ScriptFailure { transaction: 0, input: 1 })),
            Self::AllFlags => under(|_, _| ScriptFlags::ALL),
            Self::Without(_) => under(|flags, defect| match defect {
                Self::Without(without) => ScriptFlags(flags.0 & !without.0),
                _ => flags,
            }),
            Self::SameAmounts => {
                batch.iter().enumerate().try_fold(Verdict::Valid, |sum, (transaction, scripts)| {
                    let mut spent = scripts.spent.to_vec();
                    let value = spent[0].value;
                    spent.iter_mut().for_each(|output| output.value = value);
                    let one = Interpreter.verify(&[TxScripts { spent: &spent, ..*scripts }])?;
                    Ok(match (sum, one) {
                        (Verdict::Valid, Verdict::Invalid(at)) => {
                            Verdict::Invalid(ScriptFailure { transaction, input: at.input })
                        }
                        _ => sum,
                    })
                })
            }
            Self::FirstOnly => Interpreter.verify(&batch[..batch.len().min(1)]),
            Self::WrongInput => verdict.map(|verdict| match verdict {
                Verdict::Invalid(at) => Verdict::Invalid(ScriptFailure { input: at.input + 1, ..at }),
                valid => valid,
            }),
            Self::WrongTransaction => verdict.map(|verdict| match verdict {
                Verdict::Invalid(at) if batch.len() > 1 => {
                    Verdict::Invalid(ScriptFailure { transaction: at.transaction + 1, ..at })
                }
                other => other,
            }),
            Self::Forgets(count) => match verdict {
                Ok(Verdict::Invalid(_)) if count.fetch_add(1, Ordering::SeqCst) == 1_000 => {
                    Ok(Verdict::Valid)
                }
                verdict => verdict,
            },
            Self::MissingOutput => Ok(verdict.unwrap_or(Verdict::Valid)),
            Self::NoEmpty if batch.is_empty() => Err(VerifierError { reason: "nothing".to_owned() }),
            Self::NoEmpty => verdict,
        }
    }
}

#[test]
fn verifiers_with_a_defect_are_found_out() {
    for defect in [
        Defective::AcceptsAll,
        Defective::RefusesAll,
        Defective::AllFlags,
        Defective::Without(ScriptFlags::DERSIG),
        Defective::Without(ScriptFlags::NULLDUMMY),
        Defective::Without(ScriptFlags::CHECKLOCKTIMEVERIFY),
        Defective::Without(ScriptFlags::CHECKSEQUENCEVERIFY),
        Defective::Without(ScriptFlags::WITNESS.with(ScriptFlags::TAPROOT)),
        Defective::Without(ScriptFlags::TAPROOT),
        Defective::SameAmounts,
        Defective::FirstOnly,
        Defective::WrongInput,
        Defective::WrongTransaction,
        Defective::MissingOutput,
        Defective::NoEmpty,
    ] {
        let result = Suite::new(&defect).run();
        assert!(matches!(result, Err(Failure::Wrong { .. })), "{defect:?}: {result:?}");
    }
    let suite = |defect| Suite::new(defect).purity();
    let forgets = Defective::Forgets(AtomicUsize::new(0));
    assert!(matches!(suite(&forgets), Err(Failure::Wrong { .. })));
}

#[test]
fn flags_that_a_verifier_does_not_know_are_counted() {
    // One that knows today's rules alone.
    let suite = Suite::new(&Interpreter).supporting(|flags| flags == ScriptFlags::ALL);
    let counts = suite.output_types().unwrap();
    let left_out = counts.skipped["flags that the verifier does not support"];
    let all = Suite::new(&Interpreter).output_types().unwrap();
    assert!(left_out > 0);
    assert_eq!(counts.valid + counts.invalid + left_out, all.valid + all.invalid);
    assert_eq!(counts.invalid, all.invalid, "what is invalid is so under all flags");
}
