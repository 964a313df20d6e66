//! The solution of a signet block (BIP325; Core: signet.cpp).
//!
//! 1. The solution is what follows the header `ecc7daa2` in a push of the coinbase's witness commitment.
//! 2. It is cut out of the commitment; the block's merkle root is computed again without it.
//! 3. Two virtual transactions: one commits to the block and pays to the challenge, one spends it with the
//!    solution. The block is good if that input's script succeeds.
//!
//! Without a solution the input is empty, which satisfies a challenge of `OP_TRUE`.

use super::block::witness_commitment_index;
use super::decode::{DecodedBlock, Reader};
use super::merkle::merkle_root;
use super::sigops::Operations;
use crate::chain::deployments::ScriptFlags;
use bitcoin::absolute::LockTime;
use bitcoin::opcodes::all::OP_RETURN;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};

/// What marks the solution in the commitment.
const SIGNET_HEADER: [u8; 4] = [0xec, 0xc7, 0xda, 0xa2];

/// The rules for the solution's script.
pub const SIGNET_SCRIPT_FLAGS: ScriptFlags =
    ScriptFlags::P2SH.with(ScriptFlags::WITNESS).with(ScriptFlags::DERSIG).with(ScriptFlags::NULLDUMMY);

/// The transaction whose only input shows that the signers agreed to a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignetSpend {
    /// BIP325's `to_sign`, with the solution.
    pub to_sign: Transaction,
    /// The output of `to_spend` that it spends: zero satoshis to the challenge.
    pub spent: TxOut,
}

/// Builds the spend of a block; `None` if it has no witness commitment or its solution is malformed.
pub fn signet_spend(block: &DecodedBlock, challenge: &Script) -> Option<SignetSpend> {
    let at = witness_commitment_index(block.transactions())?;
    let mut coinbase = block.transactions().first()?.clone();
    let commitment = &mut coinbase.output.get_mut(at)?.script_pubkey;
    let (mut script_sig, mut witness) = (ScriptBuf::new(), Witness::new());
    if let Some((cleared, solution)) = cut_solution(commitment) {
        let mut reader = Reader::new(&solution);
        script_sig = ScriptBuf::from_bytes(reader.string().ok()?.to_vec());
        witness = reader.witness().ok()?;
        reader.finish().ok()?;
        *commitment = cleared;
    }
    let mut leaves = vec![coinbase.compute_txid().to_raw_hash()];
    leaves.extend(block.txids().iter().skip(1).map(|txid| txid.to_raw_hash()));
    let (root, _) = merkle_root(leaves);

    // The block's data: version, parent, the root without the solution, time.
    let raw = block.raw();
    let mut script = vec![0x00, 72];
    script.extend_from_slice(raw.get(..36)?);
    script.extend_from_slice(root.as_ref());
    script.extend_from_slice(raw.get(68..72)?);
    let spent = TxOut { value: Amount::ZERO, script_pubkey: challenge.to_owned() };
    let input = |previous_output, script_sig, witness| {
        vec![TxIn { previous_output, script_sig, sequence: Sequence::ZERO, witness }]
    };
    let virtual_tx = |input, output| Transaction {
        version: Version(0),
        lock_time: LockTime::ZERO,
        input,
        output: vec![output],
    };
    let to_spend =
        virtual_tx(input(OutPoint::null(), ScriptBuf::from_bytes(script), Witness::new()), spent.clone());
    let outpoint = OutPoint { txid: to_spend.compute_txid(), vout: 0 };
    let nothing =
        TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(vec![OP_RETURN.to_u8()]) };
    Some(SignetSpend { to_sign: virtual_tx(input(outpoint, script_sig, witness), nothing), spent })
}

/// The commitment without the solution, and the solution; `None` if it holds none.
fn cut_solution(commitment: &Script) -> Option<(ScriptBuf, Vec<u8>)> {
    let mut cleared = Vec::with_capacity(commitment.len());
    let mut solution = None;
    for operation in Operations::new(commitment.as_bytes()) {
        // What follows a push that is cut short is lost, as in Core.
        let Some((opcode, data)) = operation else { break };
        match data.strip_prefix(&SIGNET_HEADER) {
            Some(found) if solution.is_none() && !found.is_empty() => {
                solution = Some(found.to_vec());
                push(&mut cleared, &SIGNET_HEADER);
            }
            _ if data.is_empty() => cleared.push(opcode),
            _ => push(&mut cleared, data),
        }
    }
    Some((ScriptBuf::from_bytes(cleared), solution?))
}

/// Appends a push of `data` with the shortest of the four forms that carry a length.
fn push(script: &mut Vec<u8>, data: &[u8]) {
    let length = (data.len() as u32).to_le_bytes();
    match data.len() {
        0..=0x4b => script.push(length[0]),
        0x4c..=0xff => script.extend([0x4c, length[0]]),
        0x100..=0xffff => script.extend([0x4d, length[0], length[1]]),
        _ => {
            script.push(0x4e);
            script.extend(length);
        }
    }
    script.extend_from_slice(data);
}
