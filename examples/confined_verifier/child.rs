//! The child: reads requests from its standard input and writes answers to its standard output, and does nothing
//! else. It also plays the parts of children that went wrong, so that it can be seen what becomes of them.

use super::parent::read_frame;
use headlong::Verifier;
use headlong::limits::MAX_REMOTE_REQUEST;
use headlong::verify::interpreter::Interpreter;
use headlong::verify::remote::{Batch, encode_answer};
use headlong::verify::{ScriptFailure, Verdict};
use std::io::{self, Write};
use std::time::Duration;

/// The parts that a child can play.
pub const PARTS: [&str; 11] = [
    "honest",
    "crashes",
    "crashes-once",
    "hangs",
    "answers-twice",
    "answers-another-request",
    "answers-other-bytes",
    "names-no-input",
    "says-nonsense",
    "stops-in-the-middle",
    "condemns-once",
];

/// Serves until the parent closes the pipe, or sends what is no request.
pub fn serve(part: &str) -> io::Result<()> {
    let (mut requests, mut answers) = (io::stdin().lock(), io::stdout().lock());
    while let Some(Ok(message)) = read_frame(&mut requests, MAX_REMOTE_REQUEST) {
        let batch = Batch::decode(&message).map_err(io::Error::other)?;
        let answer = match part {
            "honest" => honest(&batch),
            "answers-twice" => [honest(&batch), honest(&batch)].concat(),
            part => corrupted(part, &batch)?,
        };
        answers.write_all(&answer)?;
        answers.flush()?;
    }
    Ok(())
}

fn honest(batch: &Batch) -> Vec<u8> {
    batch.answer(&Interpreter.verify(&batch.scripts()))
}

/// What a child that went wrong says.
fn corrupted(part: &str, batch: &Batch) -> io::Result<Vec<u8>> {
    let valid = Ok(Verdict::Valid);
    let (id, digest) = (batch.id, batch.digest);
    let fails = |transaction| batch.answer(&Ok(Verdict::Invalid(ScriptFailure { transaction, input: 0 })));
    Ok(match part {
        "crashes" => std::process::abort(),
        "crashes-once" if id == 1 => std::process::abort(),
        "hangs" => loop {
            std::thread::sleep(Duration::from_secs(3_600));
        },
        "answers-another-request" => encode_answer(id - 1, digest, &valid),
        "answers-other-bytes" => encode_answer(id, digest.map(|byte| !byte), &valid),
        "names-no-input" => fails(batch.scripts().len()),
        "says-nonsense" => b"HTTP/1.1 200 OK\r\n".to_vec(),
        "stops-in-the-middle" => {
            io::stdout().lock().write_all(&batch.answer(&valid)[..20])?;
            std::process::exit(0);
        }
        // A bit that flips once, at the first request.
        "condemns-once" if id == 1 => fails(0),
        _ => honest(batch),
    })
}
