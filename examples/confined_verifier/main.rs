//! Scripts are checked in child processes that can do nothing but read a pipe and write another.
//!
//! ```sh
//! cargo run --release --example confined_verifier
//! ```
//!
//! Code that reads what strangers wrote is where a node is attacked, and a verifier is a pure function of its
//! input: so it can live in a process of its own with nothing to lose. The bytes on the pipe are
//! `headlong::verify::remote`'s; `parent.rs` is the verifier that a host plugs in, `child.rs` the other end.
//!
//! The program syncs a generated chain so, then lets children crash and lie, and prints the errors that come of it.

mod child;
#[path = "../hosts/mod.rs"]
mod hosts;
mod parent;

use bitcoin::consensus::serialize;
use bitcoin::{Amount, ScriptBuf, Transaction, TxIn, TxOut};
use headlong::chain::deployments::ScriptFlags;
use headlong::verify::{TxScripts, Verdict};
use parent::{ChildError, Confined};
use std::error::Error;
use std::time::Duration;

/// The argument of a child process; the part it plays follows.
const CHILD: &str = "--child";
/// Far longer than a batch takes.
const TIMEOUT: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some(CHILD), Some(part)) => Ok(child::serve(&part)?),
        (None, _) => {
            sync()?;
            child::PARTS.into_iter().filter(|part| *part != "honest").try_for_each(show)
        }
        (Some(other), _) => Err(format!("unknown argument {other}").into()),
    }
}

fn children(part: &str, timeout: Duration) -> Result<Confined, Box<dyn Error>> {
    Ok(Confined::new(std::env::current_exe()?, &[CHILD, part], timeout)?)
}

/// A whole sync through the confined verifier.
fn sync() -> Result<(), Box<dyn Error>> {
    let plan = hosts::Plan::demo()?;
    let verifier = children("honest", TIMEOUT)?;
    let (node, handle) = plan.builder().threads(2).verifier(verifier.clone()).build()?;
    let running = std::thread::spawn(|| node.run_blocking());
    let tip = handle.wait_synced_blocking()?;
    let inputs = handle.status().inputs;
    handle.shutdown_blocking()?;
    running.join().map_err(|_| "the node panicked")??;
    let (children, batches) = verifier.totals();
    println!("synced to {} {}", tip.height, tip.hash);
    println!("{inputs} inputs in {batches} batches, checked by {children} children");
    Ok(())
}

/// What becomes of a good batch when the children play this part, and of the batch after it.
fn show(part: &str) -> Result<(), Box<dyn Error>> {
    let timeout = if part == "hangs" { Duration::from_millis(300) } else { TIMEOUT };
    let verifier = children(part, timeout)?;
    let told = |answer: Result<Verdict, ChildError>| match answer {
        Ok(verdict) => format!("{verdict:?}"),
        Err(error) => error.to_string(),
    };
    println!("{part}: {}", told(ask(&verifier)));
    if part.ends_with("-once") || part.ends_with("-twice") {
        // Time for what nobody asked for to arrive.
        std::thread::sleep(Duration::from_millis(200));
        println!("{part}, then: {}", told(ask(&verifier)));
    }
    Ok(())
}

/// Asks about a spend that anyone may make.
fn ask(verifier: &Confined) -> Result<Verdict, ChildError> {
    let anyone = TxOut { value: Amount::from_sat(1), script_pubkey: ScriptBuf::from_bytes(vec![0x51]) };
    let tx = Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![TxIn::default()],
        output: vec![anyone.clone()],
    };
    verifier.judge(&[TxScripts { tx: &tx, raw: &serialize(&tx), spent: &[anyone], flags: ScriptFlags::ALL }])
}
