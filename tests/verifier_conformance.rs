//! The crate's verifiers pass the conformance suite and Bitcoin Core's vectors, and verifiers with one defect each
//! do not.
#![cfg(feature = "consensus")]

mod conformance;
mod vectors;

use headlong::Verifier;
use headlong::chain::deployments::ScriptFlags;
use headlong::verify::conformance::{Failure, Suite};
use headlong::verify::interpreter::Interpreter;
use headlong::verify::standard::StandardVerifier;
use headlong::verify::{ScriptFailure, TxScripts, Verdict, VerifierError};
use std::sync::atomic::{AtomicUsize, Ordering};
use vectors::vector;

/// The verifiers of the crate.
fn engines() -> [Box<dyn Verifier>; 2] {
    [Box::new(Interpreter), Box::new(StandardVerifier::default())]
}

#[test]
fn every_engine_conforms() {
    engines().iter().for_each(|engine| conformance::conforms(&**engine));
}

fn text(name: &str) -> Option<String> {
    vector(name).map(|bytes| String::from_utf8(bytes).unwrap())
}

#[test]
fn cores_script_tests() {
    let Some(json) = text("core/script_tests.json") else { return };
    engines().iter().for_each(|engine| conformance::core_scripts(&**engine, &json));
}

#[test]
fn cores_transactions() {
    let (Some(valid), Some(invalid)) = (text("core/tx_valid.json"), text("core/tx_invalid.json")) else {
        return;
    };
    engines().iter().for_each(|engine| conformance::core_transactions(&**engine, &valid, &invalid));
}

#[test]
fn cores_signature_hashes() {
    let Some(json) = text("core/sighash.json") else { return };
    engines().iter().for_each(|engine| conformance::core_signature_hashes(&**engine, &json));
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
