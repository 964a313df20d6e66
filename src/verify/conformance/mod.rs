//! The conformance suite for verifiers (feature `conformance`): what every [`Verifier`] must say.
//!
//! 1. [`Suite::output_types`]: spends of every standard output type and of scripts made by hand, valid as they
//!    are and with one thing changed: signature, key, hash type, amount, witness, flags.
//! 2. [`Suite::batches`]: which failure is told, and of which transaction.
//! 3. [`Suite::purity`]: the same input has the same verdict again, and on several threads at once.
//! 4. [`Suite::core_script_tests`] and its like: Bitcoin Core's JSON files (`src/test/data`), whose text the
//!    caller brings.
//!
//! [`Suite::run`] does the first three. All give [`Counts`], so that a test can assert that nothing was left
//! out, or the first [`Failure`].
//!
//! ```
//! # #[cfg(feature = "consensus")] {
//! use headlong::verify::conformance::Suite;
//! use headlong::verify::interpreter::Interpreter;
//!
//! let suite = Suite::new(&Interpreter);
//! let counts = suite.run().unwrap();
//! assert!(counts.valid > 100 && counts.invalid > 100 && counts.skipped.is_empty());
//! if let Ok(json) = std::fs::read_to_string("script_tests.json") {
//!     suite.core_script_tests(&json).unwrap();
//! }
//! # }
//! ```
//!
//! A verifier that knows only some flags says so with [`Suite::supporting`]; what needs others is counted as
//! skipped. Rules that Core has for relay alone have no flag in [`ScriptFlags`]; their entries are skipped too.

mod cases;
mod core_vectors;
mod hash_types;
mod notation;

use super::{ScriptFailure, TxScripts, Verdict, Verifier, VerifierError};
use crate::chain::deployments::ScriptFlags;
use bitcoin::consensus::serialize;
use bitcoin::{Transaction, TxOut};
use core::fmt;
use std::collections::BTreeMap;

/// Threads that ask at once in [`Suite::purity`].
const THREADS: usize = 4;

/// What was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Questions whose answer had to be valid.
    pub valid: usize,
    /// Questions whose answer had to be invalid.
    pub invalid: usize,
    /// What was left out, by reason.
    pub skipped: BTreeMap<&'static str, usize>,
}

impl Counts {
    fn skip(&mut self, reason: &'static str) {
        *self.skipped.entry(reason).or_default() += 1;
    }

    /// The sum of both.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.valid += other.valid;
        self.invalid += other.invalid;
        for (reason, count) in other.skipped {
            *self.skipped.entry(reason).or_default() += count;
        }
        self
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} valid, {} invalid", self.valid, self.invalid)?;
        self.skipped.iter().try_for_each(|(reason, count)| write!(f, ", {count} skipped ({reason})"))
    }
}

/// Why a verifier does not conform, or could not be checked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The verifier said something else than it must.
    #[error("{case}: the verdict is {found}, not {expected}")]
    Wrong {
        /// What was asked.
        case: String,
        /// What the verdict had to be.
        expected: String,
        /// What it was.
        found: String,
    },
    /// The text of vectors is not what it should be: the caller's fault.
    #[error("the vectors cannot be read: {0}")]
    Vectors(String),
}

/// What the verdict on one transaction must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Valid,
    /// This input fails, and no other.
    InvalidAt(usize),
    /// Some input fails.
    Invalid,
}

/// One transaction with what it spends, and what is to be said about it.
#[derive(Clone, Debug)]
struct Case {
    name: String,
    tx: Transaction,
    spent: Vec<TxOut>,
    flags: ScriptFlags,
    expected: Expected,
}

type Answer = Result<Verdict, VerifierError>;

/// The suite for one verifier.
#[derive(Debug)]
pub struct Suite<'a> {
    verifier: &'a dyn Verifier,
    supports: fn(ScriptFlags) -> bool,
    seed: u64,
}

/// Why entries are skipped whose flags the verifier does not know.
const UNSUPPORTED: &str = "flags that the verifier does not support";

impl<'a> Suite<'a> {
    /// The suite for a verifier that takes all flags, with keys from seed 1.
    pub fn new(verifier: &'a dyn Verifier) -> Self {
        Self { verifier, supports: |_| true, seed: 1 }
    }

    /// Other keys and random choices.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Which sets of flags the verifier takes. A node of today's networks needs all that
    /// [`script_flags`](crate::chain::deployments::script_flags) gives for its chain.
    #[must_use]
    pub fn supporting(mut self, supports: fn(ScriptFlags) -> bool) -> Self {
        self.supports = supports;
        self
    }

    /// Everything that needs no files.
    ///
    /// # Errors
    /// The first [`Failure::Wrong`].
    pub fn run(&self) -> Result<Counts, Failure> {
        Ok(self.output_types()?.and(self.batches()?).and(self.purity()?))
    }

    /// Spends of every standard output type, by every hash type, and of scripts made by hand; valid, and with
    /// one thing changed.
    ///
    /// # Errors
    /// The first [`Failure::Wrong`].
    pub fn output_types(&self) -> Result<Counts, Failure> {
        let mut counts = Counts::default();
        self.cases().iter().try_for_each(|case| self.judge(&mut counts, case))?;
        Ok(counts)
    }

    fn cases(&self) -> Vec<Case> {
        let mut cases = cases::of_output_types(self.seed);
        cases.extend(cases::by_hand());
        cases.extend(hash_types::cases(self.seed));
        cases
    }

    /// Batches of none, one and many transactions: the failure that is told is one that is there.
    ///
    /// # Errors
    /// The first [`Failure::Wrong`].
    pub fn batches(&self) -> Result<Counts, Failure> {
        let mut counts = Counts::default();
        let cases: Vec<Case> = self.cases().into_iter().filter(|case| (self.supports)(case.flags)).collect();
        let (valid, failing): (Vec<_>, Vec<_>) =
            cases.into_iter().partition(|case| case.expected == Expected::Valid);
        let failing: Vec<_> = failing.iter().step_by(17).collect();
        // As many as a batch of a block holds.
        let valid: Vec<_> = valid.iter().step_by(3).take(24).collect();
        self.judge_batch(&mut counts, &[])?;
        self.judge_batch(&mut counts, &valid)?;
        for (n, bad) in failing.iter().enumerate() {
            let at = n * 7 % (valid.len() + 1);
            let mut batch = valid.clone();
            batch.insert(at, bad);
            self.judge_batch(&mut counts, &batch)?;
            // A second one behind it: either may be told.
            let behind = (at + 1 + n % 3).min(batch.len());
            batch.insert(behind, failing[(n + 1) % failing.len()]);
            self.judge_batch(&mut counts, &batch)?;
        }
        self.judge_missing_output(&mut counts, &valid)?;
        Ok(counts)
    }

    /// Without an output for each input there is no verdict: nobody knows what is spent.
    fn judge_missing_output(&self, counts: &mut Counts, valid: &[&Case]) -> Result<(), Failure> {
        let Some(case) = valid.first() else {
            counts.skip(UNSUPPORTED);
            return Ok(());
        };
        let mut case = (*case).clone();
        case.spent.pop();
        match self.ask(&[&case]) {
            Err(_) => Ok(()),
            answer => Err(wrong("fewer outputs than inputs", "no verdict", &answer)),
        }
    }

    /// All built-in cases again, in another order, and on several threads at once.
    ///
    /// # Errors
    /// The first [`Failure::Wrong`].
    pub fn purity(&self) -> Result<Counts, Failure> {
        let mut cases = self.cases();
        let mut rng = crate::rng::Rng::from_number(self.seed);
        rng.shuffle(&mut cases);
        let mut counts = Counts::default();
        cases.iter().try_for_each(|case| self.judge(&mut counts, case))?;
        let part = |start: usize| {
            let mut counts = Counts::default();
            let mut rotated = cases.iter().cycle().skip(start).take(cases.len());
            rotated.try_for_each(|case| self.judge(&mut counts, case))?;
            Ok(counts)
        };
        let parts: Vec<Result<Counts, Failure>> = std::thread::scope(|scope| {
            let starts = (0..THREADS).map(|n| n * cases.len() / THREADS);
            let threads: Vec<_> = starts.map(|start| scope.spawn(move || part(start))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(panicked()))).collect()
        });
        parts.into_iter().try_fold(counts, |counts, part| Ok(counts.and(part?)))
    }

    fn ask(&self, cases: &[&Case]) -> Answer {
        let raws: Vec<Vec<u8>> = cases.iter().map(|case| serialize(&case.tx)).collect();
        let batch: Vec<TxScripts<'_>> = cases
            .iter()
            .zip(&raws)
            .map(|(case, raw)| TxScripts { tx: &case.tx, raw, spent: &case.spent, flags: case.flags })
            .collect();
        self.verifier.verify(&batch)
    }

    /// Asks about one case and counts it.
    fn judge(&self, counts: &mut Counts, case: &Case) -> Result<(), Failure> {
        if !(self.supports)(case.flags) {
            counts.skip(UNSUPPORTED);
            return Ok(());
        }
        let answer = self.ask(&[case]);
        let failed = match &answer {
            Ok(Verdict::Invalid(ScriptFailure { transaction: 0, input })) => Some(*input),
            _ => None,
        };
        let right = match case.expected {
            Expected::Valid => matches!(answer, Ok(Verdict::Valid)),
            Expected::InvalidAt(at) => failed == Some(at),
            Expected::Invalid => failed.is_some_and(|input| input < case.spent.len()),
        };
        match case.expected {
            _ if !right => return Err(wrong(&case.name, &case.expected.to_string(), &answer)),
            Expected::Valid => counts.valid += 1,
            _ => counts.invalid += 1,
        }
        Ok(())
    }

    /// Asks about several at once: all valid, or one of the failures.
    fn judge_batch(&self, counts: &mut Counts, cases: &[&Case]) -> Result<(), Failure> {
        let expected: Vec<ScriptFailure> = (0..)
            .zip(cases)
            .filter_map(|(transaction, case)| match case.expected {
                Expected::InvalidAt(input) => Some(ScriptFailure { transaction, input }),
                _ => None,
            })
            .collect();
        let answer = self.ask(cases);
        let right = match &answer {
            Ok(Verdict::Valid) => expected.is_empty(),
            Ok(Verdict::Invalid(failure)) => expected.contains(failure),
            Err(_) => false,
        };
        if !right {
            let names: Vec<&str> = cases.iter().map(|case| &case.name[..]).collect();
            return Err(wrong(
                &format!("a batch of {names:?}"),
                &format!("valid, or one of {expected:?}"),
                &answer,
            ));
        }
        if expected.is_empty() {
            counts.valid += 1;
        } else {
            counts.invalid += 1;
        }
        Ok(())
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Valid => f.write_str("valid"),
            Self::InvalidAt(input) => write!(f, "invalid at input {input}"),
            Self::Invalid => f.write_str("invalid"),
        }
    }
}

fn wrong(case: &str, expected: &str, answer: &Answer) -> Failure {
    let found = match answer {
        Ok(Verdict::Valid) => "valid".to_owned(),
        Ok(Verdict::Invalid(at)) => {
            format!("invalid at input {} of transaction {}", at.input, at.transaction)
        }
        Err(error) => format!("none: {error}"),
    };
    Failure::Wrong { case: case.to_owned(), expected: expected.to_owned(), found }
}

fn panicked() -> Failure {
    Failure::Wrong {
        case: "several threads at once".to_owned(),
        expected: "any".to_owned(),
        found: "a panic".to_owned(),
    }
}
