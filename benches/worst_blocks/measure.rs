//! The seconds that verifiers take for the blocks of `headlong::sim::slow`, as a table.

use headlong::Verifier;
use headlong::chain::deployments::ScriptFlags;
use headlong::sim::slow::SlowKind;
use headlong::verify::{TxScripts, Verdict};
use std::time::Instant;

/// Measures each engine on each kind, on one thread. `KINDS` in the environment chooses kinds by parts of their names,
/// with commas between them; `SHARE` divides the weight of the blocks (8; 1 for whole ones).
pub fn measure(engines: &[(&str, &dyn Verifier)]) {
    let chosen = std::env::var("KINDS").unwrap_or_default();
    let share =
        std::env::var("SHARE").ok().and_then(|text| text.parse().ok()).filter(|n| *n > 0).unwrap_or(8);
    print!("{:<16}{:>10}{:>8}{:>9}", "kind", "weight", "inputs", "kB");
    engines.iter().for_each(|(name, _)| print!("{:>14}", format!("{name} s")));
    println!();
    for kind in SlowKind::ALL {
        let name = format!("{kind:?}");
        if !chosen.split(',').any(|part| name.contains(part)) {
            continue;
        }
        let (tx, spent) = kind.forge(kind.bearable() / share);
        let raw = bitcoin::consensus::serialize(&tx);
        let scripts = TxScripts { tx: &tx, raw: &raw, spent: &spent, flags: ScriptFlags::ALL };
        print!("{name:<16}{:>10}{:>8}{:>9}", tx.weight().to_wu(), spent.len(), raw.len() / 1_000);
        for (_, verifier) in engines {
            let begun = Instant::now();
            let verdict = verifier.verify(&[scripts]);
            print!("{:>14.3}", begun.elapsed().as_secs_f64());
            assert_eq!(verdict, Ok(Verdict::Valid), "{name}");
        }
        println!();
    }
}
