//! Batches for a verifier that runs elsewhere, in another process, a sandbox or an enclave, as bytes and back.
//! No I/O: the host carries the bytes (`examples/confined_verifier` does, over a pipe).
//!
//! 1. [`Request::encode`] writes a batch. The request keeps its id, its digest and the batch's shape.
//! 2. The other side reads it ([`Batch::decode`]), verifies it and writes an answer ([`encode_answer`]).
//! 3. [`Request::accept`] reads the answer. It repeats id and digest of the request, so that a stale, mixed-up,
//!    damaged or truncated answer is told from a true one, and a failure that it names must lie within the
//!    batch. An answer that is false and well-formed cannot be told here: the host may ask a second verifier.
//!
//! Each message is a frame: its length as u32, then so many bytes. Numbers are little-endian.
//!
//! | request | bytes |
//! | --- | --- |
//! | id | 8 |
//! | digest: SHA-256 of id and all that follows | 32 |
//! | number of transactions | 4 |
//! | of each: flags, length of the transaction, transaction (BIP144), number of spent outputs | 4, 4, …, 4 |
//! | of each spent output: amount in satoshis, length of the script, script | 8, 4, … |
//!
//! | answer | bytes |
//! | --- | --- |
//! | id and digest of the request | 40 |
//! | 0 valid, 1 invalid, 2 no verdict | 1 |
//! | if invalid: index of transaction and input | 4, 4 |
//! | without verdict: the reason as text | … |

use super::{ScriptFailure, TxScripts, Verdict, VerifierError};
use crate::chain::deployments::ScriptFlags;
use crate::consensus::decode::decode_transaction;
use crate::limits::{MAX_REMOTE_REASON, MAX_REMOTE_REQUEST, MAX_REMOTE_TRANSACTIONS};
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::{Amount, ScriptBuf, Transaction, TxOut};

/// Bytes of the length in front of each frame.
pub const LENGTH: usize = 4;
/// Bytes of id and digest.
const HEAD: usize = 40;
/// Bytes of the longest answer, without the length in front.
pub const MAX_ANSWER: usize = HEAD + 1 + MAX_REMOTE_REASON;
/// Bytes of a spent output without its script.
const MIN_SPENT: usize = 12;

const VALID: u8 = 0;
const INVALID: u8 = 1;
const NO_VERDICT: u8 = 2;

/// Why bytes are no message, or no answer to this request. Nothing follows about the batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// A message is longer than it may be.
    #[error("{0} bytes or entries are more than a message may have")]
    TooLarge(usize),
    /// A message ends too early, or too late.
    #[error("a message of the wrong length")]
    Length,
    /// A transaction cannot be read.
    #[error("transaction {0} cannot be read")]
    Transaction(usize),
    /// There are not as many spent outputs as inputs: a defect of whoever made the batch.
    #[error("transaction {0} has not as many spent outputs as inputs")]
    Spent(usize),
    /// The digest does not belong to the bytes.
    #[error("the digest does not fit the message")]
    Damaged,
    /// The answer belongs to another request.
    #[error("an answer to request {found}, not to {asked}")]
    OtherRequest {
        /// The request that waits.
        asked: u64,
        /// The one that is answered.
        found: u64,
    },
    /// The answer's digest is not the request's: the other side saw something else.
    #[error("an answer to other bytes than those of request {0}")]
    OtherDigest(u64),
    /// The verdict is none that there is.
    #[error("verdict {0} is none")]
    Verdict(u8),
    /// The failure lies outside of the batch.
    #[error("a failure at input {} of transaction {}, which is not in the batch", .0.input, .0.transaction)]
    OutOfRange(ScriptFailure),
}

/// The number of bytes that follow the length of a frame.
///
/// # Errors
/// [`RemoteError::TooLarge`] above `most`: [`MAX_REMOTE_REQUEST`] for requests, [`MAX_ANSWER`] for answers.
pub fn frame_length(length: [u8; LENGTH], most: usize) -> Result<usize, RemoteError> {
    let length = u32::from_le_bytes(length) as usize;
    if length > most { Err(RemoteError::TooLarge(length)) } else { Ok(length) }
}

/// A request that waits for its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    id: u64,
    digest: [u8; 32],
    frame: Vec<u8>,
    /// Inputs of each transaction.
    inputs: Vec<u32>,
}

impl Request {
    /// Writes a batch. Each request of a connection has another id.
    ///
    /// # Errors
    /// `TooLarge` above [`MAX_REMOTE_REQUEST`] bytes or [`MAX_REMOTE_TRANSACTIONS`] transactions; `Spent`.
    pub fn encode(id: u64, batch: &[TxScripts<'_>]) -> Result<Self, RemoteError> {
        let mut inputs = Vec::with_capacity(batch.len().min(MAX_REMOTE_TRANSACTIONS));
        let mut body = Vec::new();
        put_length(&mut body, batch.len(), MAX_REMOTE_TRANSACTIONS)?;
        for (index, scripts) in batch.iter().enumerate() {
            if scripts.spent.len() != scripts.tx.input.len() {
                return Err(RemoteError::Spent(index));
            }
            body.extend(scripts.flags.0.to_le_bytes());
            put_bytes(&mut body, scripts.raw)?;
            inputs.push(put_length(&mut body, scripts.spent.len(), MAX_REMOTE_REQUEST / MIN_SPENT)?);
            for output in scripts.spent {
                body.extend(output.value.to_sat().to_le_bytes());
                put_bytes(&mut body, output.script_pubkey.as_bytes())?;
            }
        }
        let digest = digest(id, &body);
        let mut frame = Vec::with_capacity(LENGTH + HEAD + body.len());
        put_length(&mut frame, HEAD + body.len(), MAX_REMOTE_REQUEST)?;
        frame.extend(id.to_le_bytes());
        frame.extend(digest);
        frame.extend(body);
        Ok(Self { id, digest, frame, inputs })
    }

    /// What is to be sent: length and bytes.
    pub fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// Its id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Reads an answer, without the length in front. Within the result is what the verifier said.
    ///
    /// # Errors
    /// [`RemoteError`] if it is no answer to this request: then the verifier is broken or lies.
    pub fn accept(&self, answer: &[u8]) -> Result<Result<Verdict, VerifierError>, RemoteError> {
        if answer.len() > MAX_ANSWER {
            return Err(RemoteError::TooLarge(answer.len()));
        }
        let mut rest = answer;
        let found = u64::from_le_bytes(take(&mut rest)?);
        if found != self.id {
            return Err(RemoteError::OtherRequest { asked: self.id, found });
        }
        if take::<32>(&mut rest)? != self.digest {
            return Err(RemoteError::OtherDigest(self.id));
        }
        let [verdict] = take(&mut rest)?;
        match verdict {
            VALID => {}
            INVALID => {
                let transaction = take_number(&mut rest)?;
                let input = take_number(&mut rest)?;
                let failure = ScriptFailure { transaction, input };
                if !rest.is_empty() {
                    return Err(RemoteError::Length);
                }
                let inputs = self.inputs.get(transaction).copied().unwrap_or(0);
                return if input < inputs as usize {
                    Ok(Ok(Verdict::Invalid(failure)))
                } else {
                    Err(RemoteError::OutOfRange(failure))
                };
            }
            NO_VERDICT => {
                return Ok(Err(VerifierError { reason: String::from_utf8_lossy(rest).into_owned() }));
            }
            other => return Err(RemoteError::Verdict(other)),
        }
        if rest.is_empty() { Ok(Ok(Verdict::Valid)) } else { Err(RemoteError::Length) }
    }
}

/// A batch on the other side, which owns what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The request's id, for the answer.
    pub id: u64,
    /// The request's digest, for the answer.
    pub digest: [u8; 32],
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    tx: Transaction,
    raw: Vec<u8>,
    spent: Vec<TxOut>,
    flags: ScriptFlags,
}

impl Batch {
    /// Reads a request, without the length in front. Allocates no more than the bytes given account for.
    ///
    /// # Errors
    /// [`RemoteError`] if these are not the bytes that [`Request::encode`] wrote.
    pub fn decode(message: &[u8]) -> Result<Self, RemoteError> {
        if message.len() > MAX_REMOTE_REQUEST {
            return Err(RemoteError::TooLarge(message.len()));
        }
        let mut rest = message;
        let id = u64::from_le_bytes(take(&mut rest)?);
        let told = take(&mut rest)?;
        if digest(id, rest) != told {
            return Err(RemoteError::Damaged);
        }
        let count = take_number(&mut rest)?;
        if count > MAX_REMOTE_TRANSACTIONS {
            return Err(RemoteError::TooLarge(count));
        }
        let entries = (0..count).map(|index| entry(&mut rest, index)).collect::<Result<_, _>>()?;
        if rest.is_empty() { Ok(Self { id, digest: told, entries }) } else { Err(RemoteError::Length) }
    }

    /// The batch as a [`super::Verifier`] takes it.
    pub fn scripts(&self) -> Vec<TxScripts<'_>> {
        self.entries
            .iter()
            .map(|Entry { tx, raw, spent, flags }| TxScripts { tx, raw, spent, flags: *flags })
            .collect()
    }

    /// The answer to this request, length and bytes.
    pub fn answer(&self, answer: &Result<Verdict, VerifierError>) -> Vec<u8> {
        encode_answer(self.id, self.digest, answer)
    }
}

/// An answer to the request of this id and digest, length and bytes. A long reason is cut.
pub fn encode_answer(id: u64, digest: [u8; 32], answer: &Result<Verdict, VerifierError>) -> Vec<u8> {
    let mut message = [&id.to_le_bytes()[..], &digest].concat();
    match answer {
        Ok(Verdict::Valid) => message.push(VALID),
        Ok(Verdict::Invalid(ScriptFailure { transaction, input })) => {
            message.push(INVALID);
            // What does not fit is out of range on the other side too.
            for index in [transaction, input] {
                message.extend(u32::try_from(*index).unwrap_or(u32::MAX).to_le_bytes());
            }
        }
        Err(VerifierError { reason }) => {
            message.push(NO_VERDICT);
            message.extend(reason.bytes().take(MAX_REMOTE_REASON));
        }
    }
    // An answer is at most `MAX_ANSWER` bytes.
    [&(message.len() as u32).to_le_bytes()[..], &message].concat()
}

fn digest(id: u64, body: &[u8]) -> [u8; 32] {
    let mut engine = sha256::Hash::engine();
    engine.input(&id.to_le_bytes());
    engine.input(body);
    sha256::Hash::from_engine(engine).to_byte_array()
}

fn entry(rest: &mut &[u8], index: usize) -> Result<Entry, RemoteError> {
    let flags = ScriptFlags(u32::from_le_bytes(take(rest)?));
    let raw = take_bytes(rest)?.to_vec();
    let tx = decode_transaction(&raw).map_err(|_| RemoteError::Transaction(index))?;
    if take_number(rest)? != tx.input.len() {
        return Err(RemoteError::Spent(index));
    }
    let output = |_| {
        let value = Amount::from_sat(u64::from_le_bytes(take(rest)?));
        Ok(TxOut { value, script_pubkey: ScriptBuf::from_bytes(take_bytes(rest)?.to_vec()) })
    };
    let spent = tx.input.iter().map(output).collect::<Result<_, _>>()?;
    Ok(Entry { tx, raw, spent, flags })
}

fn put_length(bytes: &mut Vec<u8>, length: usize, most: usize) -> Result<u32, RemoteError> {
    let number = u32::try_from(length).ok().filter(|_| length <= most && bytes.len() <= MAX_REMOTE_REQUEST);
    let number = number.ok_or(RemoteError::TooLarge(length))?;
    bytes.extend(number.to_le_bytes());
    Ok(number)
}

fn put_bytes(bytes: &mut Vec<u8>, more: &[u8]) -> Result<(), RemoteError> {
    put_length(bytes, more.len(), MAX_REMOTE_REQUEST)?;
    bytes.extend(more);
    Ok(())
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], RemoteError> {
    let (first, others) = rest.split_first_chunk().ok_or(RemoteError::Length)?;
    *rest = others;
    Ok(*first)
}

fn take_number(rest: &mut &[u8]) -> Result<usize, RemoteError> {
    Ok(u32::from_le_bytes(take(rest)?) as usize)
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], RemoteError> {
    let length = take_number(rest)?;
    let (bytes, others) = rest.split_at_checked(length).ok_or(RemoteError::Length)?;
    *rest = others;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::{OutPoint, TxIn};
    use proptest::prelude::*;

    fn transaction(inputs: usize, lock_time: u32) -> Transaction {
        let input = |vout| TxIn { previous_output: OutPoint { vout, ..OutPoint::null() }, ..TxIn::default() };
        Transaction {
            version: bitcoin::transaction::Version::TWO,
            lock_time: bitcoin::absolute::LockTime::from_consensus(lock_time),
            input: (0..inputs as u32).map(input).collect(),
            output: vec![TxOut { value: Amount::from_sat(1), script_pubkey: ScriptBuf::new() }],
        }
    }

    fn with_batch<T>(shape: &[usize], with: impl FnOnce(&[TxScripts<'_>]) -> T) -> T {
        let parts: Vec<_> = (0..)
            .zip(shape)
            .map(|(n, &inputs)| {
                let tx = transaction(inputs, n);
                let spent = |n: usize| TxOut {
                    value: Amount::from_sat(n as u64),
                    script_pubkey: ScriptBuf::from_bytes(vec![0x51; n * 100]),
                };
                let spent: Vec<TxOut> = (0..inputs).map(spent).collect();
                (bitcoin::consensus::serialize(&tx), tx, spent, ScriptFlags(n))
            })
            .collect();
        let batch: Vec<_> =
            parts.iter().map(|(raw, tx, spent, flags)| TxScripts { tx, raw, spent, flags: *flags }).collect();
        with(&batch)
    }

    fn request(id: u64, shape: &[usize]) -> Request {
        with_batch(shape, |batch| Request::encode(id, batch).unwrap())
    }

    #[test]
    fn a_batch_comes_back_as_it_was_sent() {
        for shape in [&[][..], &[1], &[2, 1, 5]] {
            with_batch(shape, |batch| {
                let request = Request::encode(7, batch).unwrap();
                let length = *request.frame().first_chunk().unwrap();
                let message = &request.frame()[LENGTH..];
                assert_eq!(frame_length(length, MAX_REMOTE_REQUEST), Ok(message.len()));
                assert!(frame_length(length, message.len() - 1).is_err());
                let decoded = Batch::decode(message).unwrap();
                let scripts = decoded.scripts();
                assert_eq!((decoded.id, scripts.len()), (7, batch.len()));
                for (a, b) in scripts.iter().zip(batch) {
                    assert_eq!((a.tx, a.raw, a.spent, a.flags), (b.tx, b.raw, b.spent, b.flags));
                }
            });
        }
        with_batch(&[2], |batch| {
            let short = TxScripts { spent: &batch[0].spent[1..], ..batch[0] };
            assert_eq!(Request::encode(1, &[batch[0], short]), Err(RemoteError::Spent(1)));
        });
    }

    #[test]
    fn answers_are_told_apart() {
        let (first, second) = (request(1, &[1, 3]), request(2, &[1, 3]));
        let batch = Batch::decode(&first.frame()[LENGTH..]).unwrap();
        let at = |transaction, input| ScriptFailure { transaction, input };
        let answer = |verdict| batch.answer(&verdict)[LENGTH..].to_vec();
        for verdict in [Verdict::Valid, Verdict::Invalid(at(0, 0)), Verdict::Invalid(at(1, 2))] {
            let bytes = answer(Ok(verdict));
            assert_eq!(first.accept(&bytes).unwrap().unwrap(), verdict);
            assert_eq!(second.accept(&bytes), Err(RemoteError::OtherRequest { asked: 2, found: 1 }));
            assert_eq!(request(1, &[1, 2]).accept(&bytes), Err(RemoteError::OtherDigest(1)));
            for cut in 0..bytes.len() {
                assert!(first.accept(&bytes[..cut]).is_err(), "{verdict:?} cut to {cut}");
            }
            assert_eq!(first.accept(&[&bytes[..], &[0]].concat()), Err(RemoteError::Length));
        }
        for outside in [at(0, 1), at(2, 0), at(1, 3), at(usize::MAX, 0)] {
            let error = first.accept(&answer(Ok(Verdict::Invalid(outside)))).unwrap_err();
            assert!(matches!(error, RemoteError::OutOfRange(_)), "{error}");
        }
        let long = "x".repeat(MAX_REMOTE_REASON + 9);
        let bytes = answer(Err(VerifierError { reason: long.clone() }));
        assert_eq!(bytes.len(), MAX_ANSWER);
        assert_eq!(first.accept(&bytes).unwrap().unwrap_err().reason, long[..MAX_REMOTE_REASON]);
        assert!(matches!(first.accept(&[&bytes[..], b"x"].concat()), Err(RemoteError::TooLarge(_))));
        let mut other = answer(Ok(Verdict::Valid));
        other[HEAD] = 3;
        assert_eq!(first.accept(&other), Err(RemoteError::Verdict(3)));
    }

    #[test]
    fn lengths_that_lie_allocate_nothing() {
        let mut body = u32::MAX.to_le_bytes().to_vec();
        let message = |body: &[u8]| [&9u64.to_le_bytes()[..], &digest(9, body), body].concat();
        assert_eq!(Batch::decode(&message(&body)), Err(RemoteError::TooLarge(u32::MAX as usize)));
        body = [&1u32.to_le_bytes()[..], &[0; 4], &u32::MAX.to_le_bytes()].concat();
        assert_eq!(Batch::decode(&message(&body)), Err(RemoteError::Length));
        body = [&1u32.to_le_bytes()[..], &[0; 4], &1u32.to_le_bytes(), &[0]].concat();
        assert_eq!(Batch::decode(&message(&body)), Err(RemoteError::Transaction(0)));
    }

    proptest! {
        #[test]
        fn damage_is_refused(at in any::<proptest::sample::Index>(), bit in 0..8u32, cut in any::<bool>()) {
            let request = request(3, &[1, 2]);
            let mut message = request.frame()[LENGTH..].to_vec();
            let at = at.index(message.len());
            if cut {
                message.truncate(at);
            } else {
                message[at] ^= 1 << bit;
            }
            prop_assert!(Batch::decode(&message).is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let message = [&1u64.to_le_bytes()[..], &digest(1, &bytes), &bytes].concat();
            let _ = Batch::decode(&message);
            let _ = request(1, &[1]).accept(&bytes);
        }
    }
}
