//! Scripts through `libbitcoinkernel`, the library that Bitcoin Core makes of its own validation code.
//!
//! [`KernelVerifier`] is a [`Verifier`] for [headlong](headlong): the common scripts go straight to libsecp256k1, and
//! everything else is judged by the interpreter of Core 31, with what the inputs of one transaction share (BIPs 143 and
//! 341) hashed once. [`KernelInterpreter`] gives every input to the interpreter: what others are measured against.
//!
//! The engines of headlong's feature `consensus` stand on a library that hashes the whole transaction again for each
//! input, and a miner can make that slow; this one stays within ten times Core's time (docs/worst-blocks.md). The two
//! cannot be linked into one program: a host of this crate takes headlong with `default-features = false`.
//!
//! ```
//! use headlong::{Builder, Network};
//! use headlong_kernel::KernelVerifier;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // With headlong's feature `native`; other hosts bring a transport and an executor too.
//! let (node, handle) = Builder::new(Network::Regtest).verifier(KernelVerifier::default()).build()?;
//! # drop((node, handle));
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]

use bitcoinkernel::prelude::*;
use bitcoinkernel::{
    KernelError, PrecomputedTransactionData, ScriptPubkey, ScriptVerifyError, Transaction, TxOut, VERIFY_ALL,
    verify,
};
use headlong::chain::deployments::ScriptFlags;
use headlong::verify::standard::KnownForms;
use headlong::verify::{
    InputVerifier, TxScripts, Verdict, Verifier, VerifierError, VerifyInputs, input_by_input,
};

// The library's flags have the values of headlong's.
const _: () = assert!(VERIFY_ALL == ScriptFlags::ALL.0);

/// The common scripts straight to libsecp256k1, and everything else through Core's interpreter. Clones are equal, and
/// share what they remember of good signatures.
///
/// It takes every set of the flags of [`ScriptFlags::ALL`] but those with `WITNESS` and without `P2SH`, and says
/// nothing of why a script failed.
pub type KernelVerifier = KnownForms<KernelInterpreter>;

/// Every input through Core's interpreter. It holds nothing; all threads may share one.
///
/// Where a taproot output is spent, the library copies all spent outputs for that input (as of version 0.3.2): n such
/// inputs take n² copies, of which Core has none. [`KernelVerifier`] asks it less often.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelInterpreter;

impl Verifier for KernelInterpreter {
    /// # Errors
    /// [`VerifierError`] for flags without meaning, a number of spent outputs that is not that of the inputs, an amount
    /// above 2^63 - 1 satoshis, and bytes that are no transaction; and if the library has no memory.
    fn verify(&self, batch: &[TxScripts<'_>]) -> Result<Verdict, VerifierError> {
        input_by_input(batch, |scripts| {
            let mut inputs = self.inputs(scripts)?;
            Ok(move |input| inputs.succeeds(input))
        })
    }
}

impl InputVerifier for KernelInterpreter {
    type Inputs<'a> = Inputs<'a>;

    fn inputs<'a>(&'a self, scripts: TxScripts<'a>) -> Result<Inputs<'a>, VerifierError> {
        scripts.check()?;
        let tx = Transaction::new(scripts.raw).map_err(from_library)?;
        // The library would abort the process for an input that it does not find.
        if tx.input_count() != scripts.spent.len() {
            return Err(no_verdict("not as many spent outputs as inputs"));
        }
        Ok(Inputs { scripts, tx, without_outputs: None, with_outputs: None })
    }
}

/// The inputs of one transaction, with what they share.
pub struct Inputs<'a> {
    scripts: TxScripts<'a>,
    tx: Transaction,
    /// The hashes that need no spent outputs, once they are asked for.
    without_outputs: Option<PrecomputedTransactionData>,
    /// All that taproot inputs need: only they are given it, for it is copied at each call.
    with_outputs: Option<PrecomputedTransactionData>,
}

impl VerifyInputs for Inputs<'_> {
    fn succeeds(&mut self, index: usize) -> Result<bool, VerifierError> {
        let (spent, flags) = (self.scripts.spent, self.scripts.flags_of(index));
        let output = spent.get(index).map(output).ok_or_else(|| no_verdict("no such input"))??;
        let taproot = flags.contains(ScriptFlags::TAPROOT);
        let shared = if taproot { &mut self.with_outputs } else { &mut self.without_outputs };
        let shared = match shared {
            Some(made) => made,
            none => {
                let all = if taproot { spent } else { &[] };
                let all = all.iter().map(self::output).collect::<Result<Vec<TxOut>, _>>()?;
                none.insert(PrecomputedTransactionData::new(&self.tx, &all).map_err(from_library)?)
            }
        };
        match verify(&output.script_pubkey(), Some(output.value()), &self.tx, index, Some(flags.0), shared) {
            Ok(()) => Ok(true),
            Err(KernelError::ScriptVerify(ScriptVerifyError::Invalid)) => Ok(false),
            Err(error) => Err(from_library(error)),
        }
    }

    fn is_slow(&self, index: usize) -> bool {
        self.scripts.flags_of(index).contains(ScriptFlags::TAPROOT)
    }
}

impl std::fmt::Debug for Inputs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inputs").field("scripts", &self.scripts).finish_non_exhaustive()
    }
}

/// A spent output as the library has it.
fn output(spent: &bitcoin::TxOut) -> Result<TxOut, VerifierError> {
    let amount = spent.value.to_sat().try_into().map_err(|_| no_verdict("a spent output is out of range"))?;
    let script = ScriptPubkey::new(spent.script_pubkey.as_bytes()).map_err(from_library)?;
    Ok(TxOut::new(&script, amount))
}

fn no_verdict(reason: &str) -> VerifierError {
    VerifierError { reason: reason.into() }
}

fn from_library(error: KernelError) -> VerifierError {
    no_verdict(&format!("bitcoinkernel: {error}"))
}
