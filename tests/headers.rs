//! Real headers go through the rules of their networks: a small set that comes with the project, and larger
//! ones from the folder of vectors beside it (or in `HEADLONG_SHARED`), where that is present.

mod vectors;

use headlong::chain::block_tree::BlockTree;
use headlong::chain::params::{Network, Params};
use headlong::chain::work::ChainWork;
use headlong::consensus::header::{accept, are_continuous};
use headlong::error::RejectKind;

use bitcoin::CompactTarget;
use bitcoin::block::Header;
use bitcoin::hex::FromHex;
use std::io::{BufRead, BufReader, Cursor};
use std::sync::Arc;
use vectors::vector;

const FIRST_HEADERS: &str = include_str!("data/headers-main-0-20.txt");
const LATE: u64 = u32::MAX as u64;

fn tree(network: Network) -> BlockTree {
    BlockTree::new(Arc::new(Params::new(network)), [11, 12])
}

fn decode(bytes: &[u8]) -> Vec<Header> {
    bytes.chunks(80).map(|bytes| bitcoin::consensus::deserialize(bytes).unwrap()).collect()
}

fn first_headers() -> Vec<Header> {
    let lines = FIRST_HEADERS.lines().filter(|line| !line.starts_with('#'));
    lines.flat_map(|line| decode(&Vec::from_hex(line).unwrap())).collect()
}

/// Accepts all, the genesis block's included, and checks the tree against sums made here.
fn accept_all(network: Network, headers: &[Header]) -> BlockTree {
    let mut tree = tree(network);
    let mut work = ChainWork::ZERO;
    assert!(are_continuous(headers));
    for (height, header) in headers.iter().enumerate() {
        let id = accept(&mut tree, header, u64::from(header.time)).unwrap();
        work = work + ChainWork::from_be_bytes(header.work().to_be_bytes());
        assert_eq!(tree.height(id) as usize, height);
        assert_eq!(tree.work(id), work);
        assert_eq!(tree.best_header(), id);
    }
    for (height, header) in headers.iter().enumerate() {
        let id = tree.ancestor(tree.best_header(), height as u32).unwrap();
        assert_eq!(tree.header(id), *header);
        assert_eq!(tree.find(&header.block_hash()), Some(id));
    }
    assert_eq!(tree.len(), headers.len());
    tree
}

#[test]
fn the_first_headers_of_mainnet_are_accepted() {
    let headers = first_headers();
    assert_eq!(headers.len(), 21);
    accept_all(Network::Main, &headers);
    // Block 11, as any explorer shows it.
    assert_eq!(
        headers[11].block_hash().to_string(),
        "0000000097be56d606cdd9c54b04d4747e957d3608abe69198c661f2add73073"
    );
}

#[test]
fn a_real_header_with_one_bit_changed_is_refused() {
    let headers = first_headers();
    let mut tree = tree(Network::Main);
    let id = accept(&mut tree, &headers[1], LATE).unwrap();
    let bytes = bitcoin::consensus::serialize(&headers[2]);
    for bit in 0..640 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let refused = accept(&mut tree, &decode(&bytes)[0], LATE).unwrap_err();
        assert_eq!((refused.reason, refused.kind), ("high-hash", RejectKind::InvalidHeader), "bit {bit}");
    }
    assert_eq!(tree.best_header(), id);
    assert_eq!(accept(&mut tree, &headers[3], LATE).unwrap_err().kind, RejectKind::MissingParent);
    let mut easy = headers[2];
    easy.bits = CompactTarget::from_consensus(0x207f_ffff);
    assert_eq!(accept(&mut tree, &easy, LATE).unwrap_err().reason, "high-hash");
}

#[test]
fn ten_thousand_headers_of_mainnet_are_accepted() {
    let Some(packed) = vector("headers/main-00000-10236.bin.xz") else { return };
    let mut bytes = Vec::new();
    lzma_rs::xz_decompress(&mut Cursor::new(packed), &mut bytes).unwrap();
    let headers = decode(&bytes);
    assert_eq!(headers.len(), 10_237);
    accept_all(Network::Main, &headers);
}

#[test]
fn a_period_of_signet_is_accepted() {
    let Some(bytes) = vector("headers/signet-00000-02015.bin") else { return };
    let headers = decode(&bytes);
    assert_eq!(headers.len(), 2_016);
    accept_all(Network::Signet, &headers);
}

#[test]
fn the_first_retarget_of_a_fast_chain_quadruples_the_difficulty() {
    let Some(packed) = vector("blocks/blocks-mining_mainnet.jsonl.zst") else { return };
    let lines = BufReader::new(ruzstd::decoding::StreamingDecoder::new(Cursor::new(packed)).unwrap()).lines();
    let mut tree = tree(Network::Main);
    let steps = lines
        .map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap())
        .filter(|step| step["t"] == "block");
    for (index, step) in steps.enumerate() {
        assert!(step["r"].is_null(), "the vector expects a refusal that this test does not know");
        let hex = step["hex"].as_str().unwrap();
        let header = decode(&Vec::from_hex(&hex[..160]).unwrap())[0];
        let id = accept(&mut tree, &header, step["now"].as_u64().unwrap()).unwrap();
        assert_eq!(Some(u64::from(tree.height(id))), step["height"].as_u64());
        assert_eq!(step["tip"].as_str(), Some(tree.hash(id).to_string().as_str()));
        let height = index as u32 + 1;
        assert_eq!(tree.bits(id), if height < 2016 { 0x1d00_ffff } else { 0x1c3f_ffc0 });
    }
    assert_eq!(tree.len(), 2_017);
}
