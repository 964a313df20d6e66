//! Each stage alone, beside what limits it: `cargo bench --bench stages`.
//!
//! | group | stage | limit |
//! | --- | --- | --- |
//! | `headers` | into the tree, with all checks | one double SHA-256 of 80 bytes each |
//! | `block` | decoded and checked by itself (ids, roots, sigops) | double SHA-256 of its bytes (of a transaction with witnesses there are two) |
//! | `wire` | a block of four million bytes as a message, to and from the bytes of both transports | |
//! | `scripts` | an input by the crate's verifiers | one signature check by libsecp256k1 each |
//!
//! Rates are elements (headers, inputs) or bytes a second on one thread.

use bip324::{GarbageResult, Handshake, InboundCipher, Initialized, OutboundCipher, Role, VersionResult};
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::secp256k1::{Message, Secp256k1, SecretKey};
use bitcoin::{Block, OutPoint, Transaction, TxOut};
use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use headlong::chain::block_tree::BlockTree;
use headlong::chain::deployments::ScriptFlags;
use headlong::consensus::decode::decode_block;
use headlong::consensus::header::accept;
use headlong::sim::forge::{BlockPlan, Forge, forge_header};
use headlong::sim::wallet::OutputKind;
use headlong::verify::interpreter::Interpreter;
use headlong::verify::standard::StandardVerifier;
use headlong::verify::{TxScripts, Verdict, Verifier, check_block};
use headlong::wire::{Message as Wired, frame, v2};
use headlong::{Network, Params, RawBlock};
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;

fn params() -> Arc<Params> {
    Arc::new(Params::new(Network::Regtest))
}

fn headers(c: &mut Criterion) {
    const COUNT: usize = 20_000;
    let params = params();
    let mut chain = vec![*params.genesis_header()];
    for n in 1..=COUNT {
        let parent = chain[n - 1];
        chain.push(forge_header(&parent, parent.time + 1, parent.bits, [7; 32]));
    }
    let now = u64::from(chain[COUNT].time);
    let mut group = c.benchmark_group("headers");
    group.throughput(Throughput::Elements(COUNT as u64));
    group.bench_function("accept", |b| {
        b.iter_batched(
            || BlockTree::new(params.clone(), [1, 2]),
            |mut tree| {
                for header in &chain[1..] {
                    accept(&mut tree, header, now).expect("a good header");
                }
                tree
            },
            BatchSize::LargeInput,
        );
    });
    group.bench_function("limit: hashing", |b| {
        let bytes: Vec<Vec<u8>> = chain[1..].iter().map(bitcoin::consensus::serialize).collect();
        b.iter(|| {
            for header in &bytes {
                black_box(sha256d::Hash::hash(header));
            }
        });
    });
}

/// A block of signed inputs of some types, with the outputs that each of its transactions spends.
fn signed_block(kinds: &[(OutputKind, u64)], inputs: usize) -> (Block, Vec<Vec<TxOut>>) {
    let mut forge = Forge::new(params(), 1).mix(kinds);
    let mut branch = forge.genesis(None);
    let mut outputs = HashMap::new();
    let mut last = None;
    for height in 0..160 {
        let plan = match height {
            0..100 => BlockPlan::default(),
            100..159 => BlockPlan { inputs: 50, growth: 100 },
            _ => BlockPlan { inputs, growth: 0 },
        };
        let block = forge.extend(&mut branch, plan);
        for tx in &block.txdata {
            let txid = tx.compute_txid();
            for (vout, output) in (0..).zip(&tx.output) {
                outputs.insert(OutPoint::new(txid, vout), output.clone());
            }
        }
        last = Some(block);
    }
    let block = last.expect("the last of 160");
    let spent =
        |tx: &Transaction| tx.input.iter().map(|input| outputs[&input.previous_output].clone()).collect();
    let spent = block.txdata[1..].iter().map(spent).collect();
    (block, spent)
}

const TODAY: [(OutputKind, u64); 4] =
    [(OutputKind::P2wpkh, 50), (OutputKind::P2trKey, 30), (OutputKind::P2pkh, 10), (OutputKind::P2wsh, 10)];

fn block(c: &mut Criterion) {
    let (block, _) = signed_block(&TODAY, 2_000);
    let bytes = Arc::new(bitcoin::consensus::serialize(&block));
    let params = params();
    let verifier = StandardVerifier::with_cache(0);
    let mut group = c.benchmark_group("block");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("decode and check", |b| {
        b.iter(|| {
            let decoded = decode_block(bytes.clone()).expect("a good block");
            check_block(decoded, &params, &verifier).expect("a good block")
        });
    });
    group.bench_function("limit: hashing", |b| b.iter(|| sha256d::Hash::hash(&bytes)));
}

/// The ciphers of one direction of an encrypted connection.
fn ciphers() -> (OutboundCipher, InboundCipher) {
    struct Fixed(u8);
    impl bip324::FillBytes for Fixed {
        fn fill_bytes(&mut self, out: &mut [u8; 32]) {
            *out = [self.0; 32];
        }
    }
    let curve = Secp256k1::signing_only();
    let begin = |role, number| {
        let mut key = [0; 64];
        let handshake = Handshake::<Initialized>::new_with_rng([1; 4], role, &mut Fixed(number), &curve);
        (handshake.expect("a key").send_key(None, &mut key).expect("room"), key)
    };
    let ((first, first_key), (second, second_key)) = (begin(Role::Initiator, 1), begin(Role::Responder, 2));
    let version = |handshake: Handshake<bip324::SentKey<'static>>, key| {
        let mut out = vec![0; Handshake::<bip324::ReceivedKey<'_>>::send_version_len(None)];
        let handshake = handshake.receive_key(key).expect("a key");
        (handshake.send_version(&mut out, None).expect("room"), out)
    };
    let (first, first_version) = version(first, second_key);
    let (second, second_version) = version(second, first_key);
    let complete = |handshake: Handshake<bip324::SentVersion>, bytes: &[u8]| {
        let Ok(GarbageResult::FoundGarbage { mut handshake, consumed_bytes }) =
            handshake.receive_garbage(bytes)
        else {
            panic!("no terminator")
        };
        let (length, packet) = bytes[consumed_bytes..].split_first_chunk::<3>().expect("a packet");
        let length = handshake.decrypt_packet_len(*length).expect("a length");
        match handshake.receive_version(&mut packet[..length].to_vec()) {
            Ok(VersionResult::Complete { cipher }) => cipher.into_split(),
            _ => panic!("no session"),
        }
    };
    (complete(first, &second_version).1, complete(second, &first_version).0)
}

fn wire(c: &mut Criterion) {
    let block = RawBlock::new(vec![7; 4_000_000]).expect("a header and more");
    let message = Wired::Block(block);
    let mut group = c.benchmark_group("wire");
    group.throughput(Throughput::Bytes(4_000_000)).sample_size(20);
    group.bench_function("encode, v1", |b| b.iter(|| frame::encode([1; 4], black_box(&message))));
    let (mut out, read) = ciphers();
    let mut decoder = v2::Decoder::new(read);
    let mut alone = ciphers().0;
    group.bench_function("encrypt, v2", |b| b.iter(|| v2::encode(&mut alone, black_box(&message))));
    group.bench_function("decrypt, v2", |b| {
        b.iter_batched(
            || v2::encode(&mut out, &message),
            |packet| {
                let mut bytes = &packet[..];
                while !bytes.is_empty() {
                    bytes = &bytes[decoder.feed(bytes).expect("authentic")..];
                }
                decoder.take_frame().expect("a frame")
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("checksum, v1", |b| {
        let bytes = frame::encode([1; 4], &message);
        b.iter(|| {
            let mut decoder = frame::Decoder::new([1; 4]);
            decoder.feed(&bytes).expect("a frame");
            decoder.take_frame().expect("a frame").verify()
        });
    });
}

fn scripts(c: &mut Criterion) {
    let mut group = c.benchmark_group("scripts");
    for (name, kind) in [
        ("P2WPKH", OutputKind::P2wpkh),
        ("P2PKH", OutputKind::P2pkh),
        ("P2TR by key", OutputKind::P2trKey),
        ("P2TR by script", OutputKind::P2trScript),
        ("P2WSH 2 of 3", OutputKind::P2wsh),
    ] {
        let (block, spent) = signed_block(&[(kind, 1)], 400);
        engines(&mut group, name, &block, &spent);
    }
    let secp = Secp256k1::new();
    let key = SecretKey::from_slice(&[7; 32]).expect("a key");
    let (message, public) = (Message::from_digest([9; 32]), key.public_key(&secp));
    let sig = secp.sign_ecdsa(&message, &key);
    group.throughput(Throughput::Elements(1));
    group.bench_function("limit: one ECDSA signature", |b| {
        b.iter(|| secp.verify_ecdsa(&message, &sig, &public).expect("a good signature"));
    });
}

fn engines(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, block: &Block, spent: &[Vec<TxOut>]) {
    let raw: Vec<Vec<u8>> = block.txdata[1..].iter().map(bitcoin::consensus::serialize).collect();
    let batch: Vec<TxScripts<'_>> = block.txdata[1..]
        .iter()
        .zip(&raw)
        .zip(spent)
        .map(|((tx, raw), spent)| TxScripts { tx, raw, spent, flags: ScriptFlags::ALL })
        .collect();
    let inputs: usize = spent.iter().map(Vec::len).sum();
    group.throughput(Throughput::Elements(inputs as u64));
    let standard = StandardVerifier::with_cache(0);
    let engines: [(&str, &dyn Verifier); 2] = [("standard", &standard), ("interpreter", &Interpreter)];
    for (engine, verifier) in engines {
        group.bench_function(format!("{name}, {engine}"), |b| {
            b.iter(|| assert_eq!(verifier.verify(&batch), Ok(Verdict::Valid)));
        });
    }
}

criterion_group! {
    name = stages;
    config = Criterion::default().sample_size(20);
    targets = headers, block, wire, scripts
}
criterion_main!(stages);
