//! A [`Verifier`] that lets child processes do the work and believes them no more than it must.
//!
//! What a child can do to its parent is to send bytes. So each answer is bounded in size and in time, must repeat
//! the id and the digest of its request, and must name a failure that is in the batch; anything else is an
//! error, which condemns no block, and the child's end. "Invalid" counts when a second child says the same.
//! "Valid" is believed: who fears a child that lies so asks two for each batch.

use headlong::verify::remote::{LENGTH, MAX_ANSWER, RemoteError, Request, frame_length};
use headlong::verify::{ScriptFailure, TxScripts, Verdict, Verifier, VerifierError};
use parking_lot::Mutex;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// Children that failed one after another, after which no more are started.
pub const MAX_FAILURES: u32 = 3;
/// How long a child that closed its output may take to end by itself.
const LAST_BREATH: Duration = Duration::from_millis(500);

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    #[error("no child process: {0}")]
    Start(#[from] io::Error),
    #[error("the child ended: {0}")]
    Crashed(ExitStatus),
    #[error("the child did not answer within {0:?}")]
    TimedOut(Duration),
    #[error("the child said something before it was asked")]
    Unasked,
    #[error("the child's answer is false: {0}")]
    False(RemoteError),
    #[error("one child says that input {} of transaction {} fails, another {other:?}", .one.input, .one.transaction)]
    Disagreement { one: ScriptFailure, other: Verdict },
    #[error("the child gave no verdict: {0}")]
    NoVerdict(VerifierError),
    #[error("the batch cannot be sent: {0}")]
    Unsendable(RemoteError),
    #[error("{MAX_FAILURES} children failed one after another; no more are started")]
    GivenUp,
}

/// The verifier. Clones share their children.
#[derive(Clone, Debug)]
pub struct Confined(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    program: PathBuf,
    arguments: Vec<String>,
    timeout: Duration,
    /// An empty folder for the children to stand in.
    folder: tempfile::TempDir,
    idle: Mutex<Vec<Worker>>,
    ids: AtomicU64,
    started: AtomicU32,
    /// Children that failed since one last gave a verdict.
    failures: AtomicU32,
}

impl Confined {
    /// Children are this program with these arguments; a batch may take so long.
    pub fn new(program: PathBuf, arguments: &[&str], timeout: Duration) -> io::Result<Self> {
        Ok(Self(Arc::new(Inner {
            program,
            arguments: arguments.iter().map(ToString::to_string).collect(),
            timeout,
            folder: tempfile::tempdir()?,
            idle: Mutex::default(),
            ids: AtomicU64::new(1),
            started: AtomicU32::new(0),
            failures: AtomicU32::new(0),
        })))
    }

    /// Children that were started so far, and requests that were sent to them.
    pub fn totals(&self) -> (u32, u64) {
        (self.0.started.load(Ordering::SeqCst), self.0.ids.load(Ordering::SeqCst) - 1)
    }

    /// The verdict, or why there is none.
    pub fn judge(&self, batch: &[TxScripts<'_>]) -> Result<Verdict, ChildError> {
        let (verdict, worker) = self.ask(batch)?;
        let Verdict::Invalid(one) = verdict else {
            self.0.idle.lock().push(worker);
            return Ok(verdict);
        };
        // The first is held back meanwhile, so that it is another that is asked.
        let (other, second) = self.ask(batch)?;
        if other != verdict {
            return Err(ChildError::Disagreement { one, other });
        }
        self.0.idle.lock().extend([worker, second]);
        Ok(verdict)
    }

    /// Asks one child. It is given back if it behaved; else it has ended.
    fn ask(&self, batch: &[TxScripts<'_>]) -> Result<(Verdict, Worker), ChildError> {
        let inner = &self.0;
        if inner.failures.load(Ordering::SeqCst) >= MAX_FAILURES {
            return Err(ChildError::GivenUp);
        }
        let id = inner.ids.fetch_add(1, Ordering::SeqCst);
        let request = Request::encode(id, batch).map_err(ChildError::Unsendable)?;
        let answer = inner.worker().and_then(|mut worker| {
            let answer = worker.exchange(&request, inner.timeout)?;
            Ok((answer, worker))
        });
        match answer {
            Ok((answer, worker)) => {
                inner.failures.store(0, Ordering::SeqCst);
                match answer {
                    Ok(verdict) => Ok((verdict, worker)),
                    Err(error) => {
                        inner.idle.lock().push(worker);
                        Err(ChildError::NoVerdict(error))
                    }
                }
            }
            Err(error) => {
                inner.failures.fetch_add(1, Ordering::SeqCst);
                Err(error)
            }
        }
    }
}

impl Verifier for Confined {
    fn verify(&self, batch: &[TxScripts<'_>]) -> Result<Verdict, VerifierError> {
        self.judge(batch).map_err(|error| VerifierError { reason: error.to_string() })
    }
}

impl Inner {
    /// A child that has nothing to do, or a new one.
    fn worker(&self) -> Result<Worker, ChildError> {
        if let Some(worker) = self.idle.lock().pop() {
            return Ok(worker);
        }
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        self.confine(&mut command);
        let worker = Worker::start(command.spawn()?)?;
        self.started.fetch_add(1, Ordering::SeqCst);
        Ok(worker)
    }

    /// Takes from a child what can be taken without `unsafe`: its environment, a folder with anything in it,
    /// and every descriptor but a pipe in and a pipe out (Rust opens files so that children don't inherit them).
    ///
    /// A host that means it takes the rest too, by a launcher in front of the program or by system calls at the
    /// child's start, before it reads:
    ///
    /// - `setrlimit`: no new files or processes, bounded memory and time of the processor (`prlimit` does it);
    /// - seccomp: `read`, `write`, `exit_group`, and what the allocator needs (`mmap`, `munmap`, `brk`);
    /// - landlock, or an empty mount namespace: no file at all; a network namespace: no sockets
    ///   (`bwrap --unshare-all --ro-bind PROGRAM /verifier /verifier` does both);
    /// - another user, and `PR_SET_NO_NEW_PRIVS`.
    fn confine(&self, command: &mut Command) {
        command.env_clear().current_dir(self.folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    }
}

/// A running child with the two threads that write to it and read from it, so that neither a child that does not
/// read nor one that does not answer can hold up its parent. Dropping it kills it.
#[derive(Debug)]
struct Worker {
    child: Child,
    requests: SyncSender<Vec<u8>>,
    answers: Receiver<Result<Vec<u8>, RemoteError>>,
}

impl Worker {
    fn start(mut child: Child) -> Result<Self, ChildError> {
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (stdin, stdout) = pipes.ok_or_else(|| io::Error::other("a child without pipes"))?;
        // One message each way: a child that floods its parent waits, and costs it no more memory.
        let (requests, to_write) = sync_channel(1);
        let (sender, answers) = sync_channel(1);
        std::thread::spawn(move || write(stdin, &to_write));
        std::thread::spawn(move || read(stdout, &sender));
        Ok(Self { child, requests, answers })
    }

    /// Sends a request and waits for its answer.
    fn exchange(
        &mut self,
        request: &Request,
        timeout: Duration,
    ) -> Result<Result<Verdict, VerifierError>, ChildError> {
        if self.answers.try_recv().is_ok() {
            return Err(ChildError::Unasked);
        }
        // If the child is gone, so is its answer.
        let _ = self.requests.send(request.frame().to_vec());
        match self.answers.recv_timeout(timeout) {
            Ok(Ok(answer)) => request.accept(&answer).map_err(ChildError::False),
            Ok(Err(error)) => Err(ChildError::False(error)),
            Err(RecvTimeoutError::Timeout) => Err(ChildError::TimedOut(timeout)),
            Err(RecvTimeoutError::Disconnected) => Err(self.ended()?),
        }
    }

    /// How a child that closed its output ended.
    fn ended(&mut self) -> Result<ChildError, ChildError> {
        for _ in 0..50 {
            if let Some(status) = self.child.try_wait()? {
                return Ok(ChildError::Crashed(status));
            }
            std::thread::sleep(LAST_BREATH / 50);
        }
        self.child.kill()?;
        Ok(ChildError::Crashed(self.child.wait()?))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write(mut pipe: ChildStdin, requests: &Receiver<Vec<u8>>) {
    for request in requests {
        if pipe.write_all(&request).and_then(|()| pipe.flush()).is_err() {
            return;
        }
    }
}

/// Hands on whole answers until the pipe ends, or one that is none.
fn read(mut pipe: ChildStdout, answers: &SyncSender<Result<Vec<u8>, RemoteError>>) {
    while let Some(answer) = read_frame(&mut pipe, MAX_ANSWER) {
        let end = answer.is_err();
        if answers.send(answer).is_err() || end {
            return;
        }
    }
}

/// One frame without its length; `None` at the end of the pipe. Memory grows with the bytes that came, not with
/// the length that was told.
pub fn read_frame(pipe: &mut impl Read, most: usize) -> Option<Result<Vec<u8>, RemoteError>> {
    let mut length = Vec::new();
    let read = pipe.take(LENGTH as u64).read_to_end(&mut length);
    match (read, <[u8; LENGTH]>::try_from(&length[..])) {
        (Ok(0), _) | (Err(_), _) => None,
        (_, Err(_)) => Some(Err(RemoteError::Length)),
        (_, Ok(length)) => Some(frame_length(length, most).and_then(|length| {
            let mut message = Vec::new();
            match pipe.take(length as u64).read_to_end(&mut message) {
                Ok(read) if read == length => Ok(message),
                _ => Err(RemoteError::Length),
            }
        })),
    }
}
