//! Blocks and transactions from bytes, as Core reads them (primitives/transaction.h, serialize.h).
//!
//! The types are rust-bitcoin's, the reading is not, for three reasons:
//! 1. rust-bitcoin refuses a transaction without inputs and outputs (which Core reads and then rejects by a
//!    rule) and accepts the witness flag on one without inputs (which Core cannot read).
//! 2. The place of each transaction in the block's bytes is kept, so that its ids are hashed from those
//!    bytes and the interpreter gets them without a second serialisation.
//! 3. Counts are checked against the bytes that are left before anything is allocated.
//!
//! Bytes after a block's end are ignored, as Core ignores them both in a `block` message and in
//! `submitblock`; [`DecodedBlock::size`] tells where the block ended.

use crate::wire::compact_size::{self, CompactSizeError};
use bitcoin::absolute::LockTime;
use bitcoin::block::Header;
use bitcoin::hashes::{Hash, HashEngine, sha256d};
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, Block, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness, Wtxid,
};
use core::ops::Range;
use std::sync::Arc;

/// The bytes are not a block or a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// They end too early, or a count is larger than what is left could hold.
    #[error("unexpected end of data")]
    UnexpectedEnd,
    /// A CompactSize is not in its shortest form.
    #[error("non-canonical CompactSize")]
    NonCanonical,
    /// A count or the whole is over 32 MiB (Core's `MAX_SIZE`).
    #[error("size too large")]
    TooLarge,
    /// The flag byte of BIP144 holds unknown bits.
    #[error("unknown transaction optional data")]
    UnknownFlag,
    /// The witness flag is set, and all witnesses are empty.
    #[error("superfluous witness record")]
    SuperfluousWitness,
    /// Bytes follow where none may.
    #[error("trailing bytes")]
    Trailing,
}

/// Largest count or string (Core's `MAX_SIZE`).
const MAX_SIZE: usize = 0x0200_0000;

/// Where a transaction lies in the bytes it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    start: u32,
    end: u32,
    /// Bytes of marker, flag and witnesses; 0 without witness.
    witness: u32,
}

impl Span {
    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    fn base_size(self) -> usize {
        (self.end - self.start - self.witness) as usize
    }
}

/// A block that was read, and nothing more: no rule was checked.
#[derive(Clone, Debug)]
pub struct DecodedBlock {
    block: Block,
    bytes: Arc<Vec<u8>>,
    spans: Vec<Span>,
    hash: BlockHash,
    txids: Vec<Txid>,
    wtxids: Vec<Wtxid>,
    size: usize,
    base_size: usize,
}

impl DecodedBlock {
    /// The block.
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// The transactions.
    pub fn transactions(&self) -> &[Transaction] {
        &self.block.txdata
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.block.header
    }

    /// The hash of the header.
    pub fn hash(&self) -> BlockHash {
        self.hash
    }

    /// Ids of the transactions, in order.
    pub fn txids(&self) -> &[Txid] {
        &self.txids
    }

    /// Ids of the transactions with their witnesses, in order; the coinbase's is not zeroed.
    pub fn wtxids(&self) -> &[Wtxid] {
        &self.wtxids
    }

    /// The bytes it was read from, without what follows the block.
    pub fn raw(&self) -> &[u8] {
        self.bytes.get(..self.size).unwrap_or(&[])
    }

    /// The serialisation of a transaction (BIP144); empty if there are fewer transactions.
    pub fn raw_transaction(&self, index: usize) -> &[u8] {
        self.spans.get(index).and_then(|span| self.bytes.get(span.range())).unwrap_or(&[])
    }

    /// Whether a transaction carries a witness.
    pub fn has_witness(&self, index: usize) -> bool {
        self.spans.get(index).is_some_and(|span| span.witness > 0)
    }

    /// Bytes of a transaction without its witnesses; 0 if there are fewer transactions.
    pub fn transaction_base_size(&self, index: usize) -> usize {
        self.spans.get(index).map_or(0, |span| span.base_size())
    }

    /// Bytes of the block with witnesses.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Bytes of the block without witnesses.
    pub fn base_size(&self) -> usize {
        self.base_size
    }

    /// Weight (BIP141): three times the size without witnesses and once the size with them.
    pub fn weight(&self) -> usize {
        3 * self.base_size + self.size
    }
}

/// Reads a block. Bytes after its end are ignored, as in Core.
///
/// # Errors
/// [`DecodeError`], where Core's `DecodeHexBlk` fails.
pub fn decode_block(bytes: Arc<Vec<u8>>) -> Result<DecodedBlock, DecodeError> {
    if bytes.len() > MAX_SIZE {
        return Err(DecodeError::TooLarge);
    }
    let mut reader = Reader { bytes: &bytes, at: 0 };
    let raw_header = reader.take(80)?;
    let hash = BlockHash::from_byte_array(sha256d::Hash::hash(raw_header).to_byte_array());
    let header = bitcoin::consensus::deserialize(raw_header).map_err(|_| DecodeError::UnexpectedEnd)?;
    let count = reader.count(MIN_TX)?;
    let mut base_size = reader.at;
    let mut txdata = Vec::with_capacity(count);
    let mut spans = Vec::with_capacity(count);
    let mut txids = Vec::with_capacity(count);
    let mut wtxids = Vec::with_capacity(count);
    for _ in 0..count {
        let (tx, span, txid, wtxid) = reader.transaction()?;
        base_size += span.base_size();
        txdata.push(tx);
        spans.push(span);
        txids.push(txid);
        wtxids.push(wtxid);
    }
    let size = reader.at;
    Ok(DecodedBlock { block: Block { header, txdata }, bytes, spans, hash, txids, wtxids, size, base_size })
}

/// Reads one transaction (BIP144), which must fill `bytes`.
///
/// # Errors
/// [`DecodeError`]; `Trailing` if bytes follow it.
pub fn decode_transaction(bytes: &[u8]) -> Result<Transaction, DecodeError> {
    if bytes.len() > MAX_SIZE {
        return Err(DecodeError::TooLarge);
    }
    let mut reader = Reader { bytes, at: 0 };
    let (tx, ..) = reader.transaction()?;
    reader.finish()?;
    Ok(tx)
}

/// The shortest transaction: version, no inputs, no outputs, lock time.
const MIN_TX: usize = 10;
/// The shortest input: outpoint, empty script, sequence number.
const MIN_INPUT: usize = 41;
/// The shortest output: value, empty script.
const MIN_OUTPUT: usize = 9;

/// A position in bytes. All sizes were bounded by [`MAX_SIZE`], so that positions fit a `u32`.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the front of at most [`MAX_SIZE`] bytes.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: bytes.get(..MAX_SIZE).unwrap_or(bytes), at: 0 }
    }

    /// Everything must have been read.
    pub(super) fn finish(&self) -> Result<(), DecodeError> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(DecodeError::Trailing) }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let end = self.at.checked_add(len).ok_or(DecodeError::UnexpectedEnd)?;
        let taken = self.bytes.get(self.at..end).ok_or(DecodeError::UnexpectedEnd)?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.take(N)?.try_into().map_err(|_| DecodeError::UnexpectedEnd)
    }

    fn compact_size(&mut self) -> Result<usize, DecodeError> {
        let rest = self.bytes.get(self.at..).unwrap_or(&[]);
        let (value, len) = compact_size::decode(rest).map_err(|error| match error {
            CompactSizeError::NeedMore(_) => DecodeError::UnexpectedEnd,
            CompactSizeError::NonCanonical => DecodeError::NonCanonical,
        })?;
        self.at += len;
        match usize::try_from(value) {
            Ok(value) if value <= MAX_SIZE => Ok(value),
            _ => Err(DecodeError::TooLarge),
        }
    }

    /// A count of items that take at least `least` bytes each.
    fn count(&mut self, least: usize) -> Result<usize, DecodeError> {
        let count = self.compact_size()?;
        if count > (self.bytes.len() - self.at) / least {
            return Err(DecodeError::UnexpectedEnd);
        }
        Ok(count)
    }

    /// A string of bytes with its length before it.
    pub(super) fn string(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.compact_size()?;
        self.take(len)
    }

    fn inputs(&mut self) -> Result<Vec<TxIn>, DecodeError> {
        let count = self.count(MIN_INPUT)?;
        let mut inputs = Vec::with_capacity(count);
        for _ in 0..count {
            let txid = Txid::from_byte_array(self.array()?);
            let vout = u32::from_le_bytes(self.array()?);
            let script_sig = ScriptBuf::from_bytes(self.string()?.to_vec());
            let sequence = Sequence(u32::from_le_bytes(self.array()?));
            let previous_output = OutPoint { txid, vout };
            inputs.push(TxIn { previous_output, script_sig, sequence, witness: Witness::new() });
        }
        Ok(inputs)
    }

    fn outputs(&mut self) -> Result<Vec<TxOut>, DecodeError> {
        let count = self.count(MIN_OUTPUT)?;
        let mut outputs = Vec::with_capacity(count);
        for _ in 0..count {
            let value = Amount::from_sat(u64::from_le_bytes(self.array()?));
            let script_pubkey = ScriptBuf::from_bytes(self.string()?.to_vec());
            outputs.push(TxOut { value, script_pubkey });
        }
        Ok(outputs)
    }

    /// A witness: a count of strings.
    pub(super) fn witness(&mut self) -> Result<Witness, DecodeError> {
        let count = self.count(1)?;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(self.string()?);
        }
        Ok(Witness::from_slice(&items))
    }

    fn transaction(&mut self) -> Result<(Transaction, Span, Txid, Wtxid), DecodeError> {
        let start = self.at;
        let version = Version(i32::from_le_bytes(self.array()?));
        let mut body = self.at;
        let mut input = self.inputs()?;
        let mut output = Vec::new();
        let mut flag = 0;
        if input.is_empty() {
            [flag] = self.array()?;
            if flag != 0 {
                body = self.at;
                input = self.inputs()?;
                output = self.outputs()?;
            }
        } else {
            output = self.outputs()?;
        }
        let body = body..self.at;
        if flag & 1 != 0 {
            for txin in &mut input {
                txin.witness = self.witness()?;
            }
            if input.iter().all(|txin| txin.witness.is_empty()) {
                return Err(DecodeError::SuperfluousWitness);
            }
        }
        if flag & !1 != 0 {
            return Err(DecodeError::UnknownFlag);
        }
        let witness = if flag == 0 { 0 } else { 2 + self.at - body.end };
        let lock_time = LockTime::from_consensus(u32::from_le_bytes(self.array()?));

        let raw = &self.bytes[start..self.at];
        let wtxid = sha256d::Hash::hash(raw);
        let txid = if flag == 0 {
            wtxid
        } else {
            let mut engine = sha256d::Hash::engine();
            engine.input(&self.bytes[start..start + 4]);
            engine.input(&self.bytes[body]);
            engine.input(&self.bytes[self.at - 4..self.at]);
            sha256d::Hash::from_engine(engine)
        };
        let span = Span { start: start as u32, end: self.at as u32, witness: witness as u32 };
        let tx = Transaction { version, lock_time, input, output };
        Ok((tx, span, Txid::from_raw_hash(txid), Wtxid::from_raw_hash(wtxid)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::consensus::{deserialize, serialize};
    use bitcoin::hex::FromHex;
    use proptest::prelude::*;

    fn tx(hex: &str) -> Result<Transaction, DecodeError> {
        decode_transaction(&Vec::from_hex(&hex.replace(' ', "")).unwrap())
    }

    #[test]
    fn forms_that_rust_bitcoin_reads_otherwise_than_core() {
        // Neither inputs nor outputs: Core reads it, and a rule refuses it.
        let empty = tx("01000000 00 00 00000000").unwrap();
        assert!(empty.input.is_empty() && empty.output.is_empty());
        // The witness flag without any input.
        let output = "01 0000000000000000 00";
        assert_eq!(tx(&format!("01000000 0001 00 {output} 00000000")), Err(DecodeError::SuperfluousWitness));
    }

    #[test]
    fn witnesses_that_core_refuses() {
        let zeros = "00".repeat(36);
        let input = format!("01 {zeros} 00 ffffffff");
        let output = "01 0000000000000000 00";
        assert!(tx(&format!("01000000 {input} {output} 00000000")).is_ok());
        assert!(tx(&format!("01000000 0001 {input} {output} 0100 00000000")).is_ok());
        let with = |flag: &str, witness: &str| {
            tx(&format!("01000000 00{flag} {input} {output} {witness} 00000000")).unwrap_err()
        };
        assert_eq!(with("01", "00"), DecodeError::SuperfluousWitness);
        assert_eq!(with("02", ""), DecodeError::UnknownFlag);
        assert_eq!(with("03", "0100"), DecodeError::UnknownFlag);
        assert_eq!(with("01", "0100 00"), DecodeError::Trailing);
        assert_eq!(with("01", "fd0100 00"), DecodeError::NonCanonical);
        assert_eq!(with("01", "feffffff01"), DecodeError::UnexpectedEnd);
        assert_eq!(with("01", "fe01000002"), DecodeError::TooLarge);
    }

    #[test]
    fn counts_that_the_bytes_cannot_hold_are_refused_before_allocation() {
        let header = [0; 80];
        for count in [&[0x01][..], &[0xfd, 0xff, 0xff], &[0xfe, 0, 0, 0, 0x02]] {
            let bytes = [&header[..], count].concat();
            assert_eq!(decode_block(Arc::new(bytes)).unwrap_err(), DecodeError::UnexpectedEnd);
        }
        assert_eq!(decode_block(Arc::new(vec![0; 79])).unwrap_err(), DecodeError::UnexpectedEnd);
        assert_eq!(decode_block(Arc::new(vec![0; MAX_SIZE + 1])).unwrap_err(), DecodeError::TooLarge);
        assert!(decode_block(Arc::new([&header[..], &[0]].concat())).unwrap().transactions().is_empty());
    }

    fn any_tx() -> impl Strategy<Value = Transaction> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..300);
        let items = proptest::collection::vec(bytes(), 0..3);
        let input = (any::<[u8; 32]>(), any::<u32>(), bytes(), any::<u32>(), items).prop_map(
            |(txid, vout, script, sequence, items)| TxIn {
                previous_output: OutPoint { txid: Txid::from_byte_array(txid), vout },
                script_sig: ScriptBuf::from_bytes(script),
                sequence: Sequence(sequence),
                witness: Witness::from_slice(&items),
            },
        );
        let output = (any::<u64>(), bytes()).prop_map(|(value, script)| TxOut {
            value: Amount::from_sat(value),
            script_pubkey: ScriptBuf::from_bytes(script),
        });
        let inputs = proptest::collection::vec(input, 1..4);
        let outputs = proptest::collection::vec(output, 0..4);
        (any::<i32>(), any::<u32>(), inputs, outputs).prop_map(|(version, lock, input, output)| Transaction {
            version: Version(version),
            lock_time: LockTime::from_consensus(lock),
            input,
            output,
        })
    }

    proptest! {
        #[test]
        fn blocks_read_as_in_rust_bitcoin(txdata in proptest::collection::vec(any_tx(), 0..4), tail in 0usize..3) {
            let header = deserialize(&[7; 80]).unwrap();
            let block = Block { header, txdata };
            let mut bytes = serialize(&block);
            bytes.extend(vec![0xee; tail]);
            let decoded = decode_block(Arc::new(bytes)).unwrap();
            prop_assert_eq!(decoded.block(), &block);
            prop_assert_eq!(decoded.hash(), block.block_hash());
            prop_assert_eq!(decoded.raw(), serialize(&block));
            prop_assert_eq!(decoded.size(), block.total_size());
            prop_assert_eq!(decoded.weight() as u64, block.weight().to_wu());
            for (i, tx) in block.txdata.iter().enumerate() {
                prop_assert_eq!(decoded.txids()[i], tx.compute_txid());
                prop_assert_eq!(decoded.wtxids()[i], tx.compute_wtxid());
                prop_assert_eq!(decoded.raw_transaction(i), serialize(tx));
                prop_assert_eq!(decoded.transaction_base_size(i), tx.base_size());
                prop_assert_eq!(decoded.has_witness(i), tx.input.iter().any(|input| !input.witness.is_empty()));
            }
        }

        /// What is read from damaged bytes is what those bytes say.
        #[test]
        fn damage_is_refused_or_read_as_it_is(tx in any_tx(), at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = serialize(&tx);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            match (decode_transaction(&bytes), deserialize::<Transaction>(&bytes)) {
                (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours, theirs),
                (Err(_), Err(_)) => {}
                (Ok(ours), Err(_)) => prop_assert!(ours.input.is_empty() && ours.output.is_empty()),
                (Err(error), Ok(theirs)) => {
                    prop_assert_eq!(error, DecodeError::SuperfluousWitness);
                    prop_assert!(theirs.input.is_empty());
                }
            }
            prop_assert!(decode_transaction(&bytes[..at]).is_err());
        }
    }
}
