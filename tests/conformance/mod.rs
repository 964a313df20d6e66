//! What a verifier has to say: the suite with the numbers of its questions, and Core's vectors. The crate
//! `headlong-kernel` uses this too.

use headlong::Verifier;
use headlong::verify::conformance::{Counts, Failure, Suite};

fn seed() -> u64 {
    std::env::var("HEADLONG_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

fn counted(name: &str, counts: Result<Counts, Failure>) -> Counts {
    let counts = counts.unwrap_or_else(|failure| panic!("{name}, seed {}: {failure}", seed()));
    eprintln!("{name}, seed {}: {counts}", seed());
    counts
}

/// Everything that needs no files.
pub fn conforms(engine: &dyn Verifier) {
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

fn skipped(counts: &Counts) -> Vec<(&str, usize)> {
    counts.skipped.iter().map(|(reason, count)| (*reason, *count)).collect()
}

/// `script_tests.json`.
pub fn core_scripts(engine: &dyn Verifier, json: &str) {
    let counts = counted("script_tests.json", Suite::new(engine).core_script_tests(json));
    // 675 entries are valid and 418 invalid; each is asked about more than once.
    assert_eq!((counts.valid, counts.invalid), (1251, 2 * 418));
    assert_eq!(skipped(&counts), [("rules of relay", 129)]);
}

/// `tx_valid.json` and `tx_invalid.json`.
pub fn core_transactions(engine: &dyn Verifier, valid: &str, invalid: &str) {
    let suite = Suite::new(engine);
    let valid = counted("tx_valid.json", suite.core_valid_transactions(valid));
    let invalid = counted("tx_invalid.json", suite.core_invalid_transactions(invalid));
    assert_eq!((valid.valid, valid.invalid), (958, 10));
    assert_eq!(skipped(&valid), []);
    assert_eq!((invalid.valid, invalid.invalid), (70, 2 * 70));
    assert_eq!(skipped(&invalid), [("rules of relay", 14), ("rules without scripts", 9)]);
}

/// `sighash.json`.
pub fn core_signature_hashes(engine: &dyn Verifier, json: &str) {
    let counts = counted("sighash.json", Suite::new(engine).core_signature_hashes(json));
    assert_eq!((counts.valid, counts.invalid), (500, 500));
    assert_eq!(skipped(&counts), []);
}
