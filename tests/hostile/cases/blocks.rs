//! Peers that withhold blocks, or send others than were asked for.

use super::{Case, End, case, several};
use crate::wire::{Behaviour, Done, Stage, Wire, framed};
use crate::world::{Chain, FORK, World, header_on, noise};
use bitcoin::block::Header;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{Amount, Block, BlockHash, Transaction, TxOut, Witness};
use headlong::wire::Message;
use std::io;
use std::time::Duration;

/// The hashes that a `getdata` asks for.
fn wanted(message: &Message) -> Option<Vec<BlockHash>> {
    let Message::GetData(entries) = message else { return None };
    let hash = |entry: &Inventory| match entry {
        Inventory::Block(hash) | Inventory::WitnessBlock(hash) => Some(*hash),
        _ => None,
    };
    Some(entries.iter().filter_map(hash).collect())
}

/// A peer of a chain that is honest but when blocks are asked for.
fn delivering(
    name: &str,
    end: End,
    chain: impl Fn(&World) -> &Chain + Send + Sync + 'static,
    deliver: impl Fn(&Stage, &mut Wire, &[BlockHash]) -> io::Result<()> + Send + Sync + 'static,
) -> Case {
    case(name, end, move |stage, wire| {
        wire.serve(&chain(stage.world).served, |wire, message| match wanted(message) {
            Some(hashes) => {
                deliver(stage, wire, &hashes)?;
                Ok(Done::Yes)
            }
            None => Ok(Done::No),
        })
    })
}

/// A peer that sends other bytes for a block, where `change` finds some.
fn changing(
    name: &str,
    end: End,
    change: impl Fn(&Block) -> Option<Vec<u8>> + Send + Sync + 'static,
) -> Case {
    delivering(
        name,
        end,
        |world| &world.honest,
        move |stage, wire, hashes| {
            let blocks = &stage.world.honest.blocks;
            for hash in hashes {
                let Some(block) = blocks.iter().find(|block| block.block_hash() == *hash) else { continue };
                let changed = change(block);
                let bytes = changed.clone().unwrap_or_else(|| serialize(block));
                let frame = wire.frame("block", &bytes);
                wire.raw(&frame)?;
                if changed.is_some() {
                    stage.engage();
                }
            }
            Ok(())
        },
    )
}

fn edited(block: &Block, edit: impl FnOnce(&mut Vec<Transaction>) -> Option<()>) -> Option<Vec<u8>> {
    let mut block = block.clone();
    edit(&mut block.txdata)?;
    Some(serialize(&block))
}

fn has_witness(tx: &Transaction) -> bool {
    tx.input.iter().any(|input| !input.witness.is_empty())
}

pub fn cases() -> Vec<Case> {
    let mut cases = mutations();
    cases.extend([
        delivering("blocks withheld", End::NoFault, |world| &world.honest, withhold).short(),
        delivering("blocks withheld", End::NoFault, |world| &world.honest, withhold).manual(),
        several(5, delivering("blocks withheld", End::NoFault, |world| &world.honest, withhold)),
        delivering("notfound for all", End::NoFault, |world| &world.honest, not_found).short(),
        several(5, delivering("notfound for all", End::NoFault, |world| &world.honest, not_found)),
        delivering(
            "a block a second",
            End::NoFault,
            |world| &world.honest,
            |stage, wire, hashes| {
                for hash in hashes {
                    stage.engage();
                    wire.pause(Duration::from_secs(1))?;
                    send_block(stage, wire, hash)?;
                }
                Ok(())
            },
        ),
        delivering(
            "other blocks than were asked for",
            End::NoFault,
            |world| &world.honest,
            |stage, wire, hashes| {
                stage.engage();
                let blocks = &stage.world.honest.blocks;
                for hash in hashes {
                    let other = blocks.iter().position(|block| block.block_hash() == *hash).unwrap_or(0) / 2;
                    wire.send(&block(&blocks[other]))?;
                }
                Ok(())
            },
        ),
        delivering(
            "blocks that nobody knows",
            End::NoFault,
            |world| &world.honest,
            |stage, wire, hashes| {
                stage.engage();
                for number in 0..hashes.len() as u64 {
                    let mut unknown = stage.world.honest.blocks[0].clone();
                    unknown.header = header_on(&unknown.header, number);
                    wire.send(&block(&unknown))?;
                }
                Ok(())
            },
        ),
        delivering(
            "the same block for ever",
            End::NoFault,
            |world| &world.honest,
            |stage, wire, hashes| {
                stage.engage();
                for _ in 0..20_000 {
                    send_block(stage, wire, &hashes[0])?;
                }
                Ok(())
            },
        ),
        delivering("signs of life and no blocks", End::NoFault, |world| &world.honest, alive).short(),
        delivering("signs of life and no blocks", End::NoFault, |world| &world.honest, alive).manual(),
        several(3, delivering("signs of life and no blocks", End::NoFault, |world| &world.honest, alive)),
        serving("a block that takes too much, valid headers on top", End::Fault("bad-cb-amount"), |world| {
            &world.greedy
        })
        .short(),
        serving(
            "a block with a false signature, valid headers on top",
            End::Fault("block-script-verify"),
            |world| &world.unsigned,
        ),
        several(
            4,
            changing("a transaction changed", End::Fault("bad-txnmrklroot"), |block| {
                edited(block, |txs| txs.get(1).is_some().then(|| txs[0].output[0].value = Amount::ONE_SAT))
            }),
        )
        .head_start(15),
        serving("a shorter chain", End::NoFault, |world| &world.shorter),
        delivering(
            "a longer chain whose blocks are withheld",
            End::NoFault,
            |world| &world.longer,
            |stage, wire, hashes| {
                let known = &stage.world.longer.blocks[..FORK as usize];
                for hash in hashes {
                    if known.iter().any(|block| block.block_hash() == *hash) {
                        send_block(stage, wire, hash)?;
                    } else {
                        stage.engage();
                    }
                }
                Ok(())
            },
        ),
        Case::new(
            "longer chains of headers, each without blocks",
            (1..=3).map(headers_only).collect(),
            End::NoFault,
        ),
        case("all blocks unasked", End::NoFault, |stage, wire| unasked(stage, wire, &stage.world.honest))
            .short(),
        case("all blocks of a shorter chain unasked", End::NoFault, |stage, wire| {
            unasked(stage, wire, &stage.world.shorter)
        }),
        case("all blocks of a false chain unasked", End::Fault("bad-cb-amount"), |stage, wire| {
            unasked(stage, wire, &stage.world.greedy)
        }),
        case(
            "changed blocks unasked, before they are asked for",
            End::Fault("bad-txnmrklroot"),
            |stage, wire| {
                wire.shake_hands()?;
                wire.send(&Message::Headers(stage.world.honest.headers()))?;
                for block in stage.world.honest.blocks.iter() {
                    let mut block = block.clone();
                    block.txdata[0].output[0].value = Amount::from_sat(1);
                    wire.send(&self::block(&block))?;
                }
                stage.engage();
                wire.ignore()
            },
        ),
    ]);
    cases
}

/// What may happen to a body on its way, none of which says anything about its hash.
fn mutations() -> Vec<Case> {
    vec![
        changing("a transaction changed", End::Fault("bad-txnmrklroot"), |block| {
            edited(block, |txs| {
                txs.get_mut(1)?.output[0].value -= Amount::from_sat(1);
                Some(())
            })
        })
        .short(),
        changing("a transaction left out", End::Fault("bad-txnmrklroot"), |block| {
            edited(block, |txs| txs.get(1).is_some().then(|| drop(txs.pop())))
        }),
        changing("transactions in another order", End::Fault("bad-txnmrklroot"), |block| {
            edited(block, |txs| txs.get(2).is_some().then(|| txs.swap(1, 2)))
        }),
        changing("all transactions left out", End::Fault("bad-txnmrklroot"), |block| {
            edited(block, |txs| {
                txs.clear();
                Some(())
            })
        }),
        // CVE-2012-2459: the merkle tree repeats the last of an odd number itself.
        changing("the last transaction twice", End::Fault("bad-txns-duplicate"), |block| {
            edited(block, |txs| {
                let last = txs.last()?.clone();
                (txs.len() > 1 && txs.len() % 2 == 1).then(|| txs.push(last))
            })
        })
        .short(),
        changing("a witness changed", End::Fault("bad-witness-merkle-match"), |block| {
            edited(block, |txs| {
                let tx = txs[1..].iter_mut().find(|tx| has_witness(tx))?;
                let input = tx.input.iter_mut().find(|input| !input.witness.is_empty())?;
                let mut items = input.witness.to_vec();
                *items.last_mut()?.first_mut()? ^= 1;
                input.witness = Witness::from_slice(&items);
                Some(())
            })
        })
        .short(),
        changing("witnesses stripped", End::Fault("bad-witness-nonce-size"), |block| {
            edited(block, |txs| {
                txs.iter_mut().flat_map(|tx| &mut tx.input).for_each(|input| input.witness = Witness::new());
                Some(())
            })
        }),
        changing("a coinbase witness of two items", End::Fault("bad-witness-nonce-size"), |block| {
            edited(block, |txs| {
                txs[0].input[0].witness.push([0; 32]);
                Some(())
            })
        }),
        changing(
            "a witness in a block of the coinbase alone",
            End::Fault("bad-witness-merkle-match"),
            |block| {
                edited(block, |txs| {
                    txs[0].input[0].witness = Witness::from_slice(&[[1; 32]]);
                    Some(())
                })
            },
        ),
        changing("a body cut short", End::Fault("decode-failed"), |block| {
            let mut bytes = serialize(block);
            bytes.truncate(bytes.len() - 1);
            Some(bytes)
        }),
        changing("a body of a header", End::Fault("decode-failed"), |block| Some(serialize(&block.header))),
        changing("a body that counts 2^63 transactions", End::Fault("decode-failed"), |block| {
            let mut bytes = serialize(&block.header);
            bytes.extend([0xff, 0, 0, 0, 0, 0, 0, 0, 0x80]);
            bytes.extend(noise(1_000, 4));
            Some(bytes)
        }),
        changing("a body that counts in too long a form", End::Fault("decode-failed"), |block| {
            let bytes = serialize(block);
            let long = [&bytes[..80], &[0xfd, bytes[80], 0], &bytes[81..]].concat();
            Some(long)
        }),
        changing("a body of four million bytes of noise", End::Fault("decode-failed"), |block| {
            let mut bytes = serialize(&block.header);
            bytes.extend(noise(3_900_000, 5));
            Some(bytes)
        }),
        changing("a body of the most outputs", End::Fault("bad-txnmrklroot"), |block| {
            let mut block = block.clone();
            let empty = TxOut { value: Amount::ZERO, script_pubkey: Default::default() };
            block.txdata[0].output = vec![empty; 400_000];
            Some(serialize(&block))
        }),
        changing("bytes after the block", End::NoFault, |block| {
            let mut bytes = serialize(block);
            bytes.extend(noise(500_000, 6));
            Some(bytes)
        }),
    ]
}

fn block(block: &Block) -> Message {
    Message::Block(headlong::RawBlock::new(serialize(block)).unwrap())
}

/// Sends a block of any chain of the world.
fn send_block(stage: &Stage, wire: &mut Wire, hash: &BlockHash) -> io::Result<()> {
    let chains = [&stage.world.honest, &stage.world.longer];
    let found = chains.iter().find_map(|chain| chain.served.read().block(hash).cloned());
    found.map_or(Ok(()), |raw| wire.send(&Message::Block(raw)))
}

fn withhold(stage: &Stage, _: &mut Wire, _: &[BlockHash]) -> io::Result<()> {
    stage.engage();
    Ok(())
}

fn not_found(stage: &Stage, wire: &mut Wire, hashes: &[BlockHash]) -> io::Result<()> {
    stage.engage();
    wire.send(&Message::NotFound(hashes.iter().map(|hash| Inventory::WitnessBlock(*hash)).collect()))
}

/// Sends 4 kB a second of a message without an end, and no block.
fn alive(stage: &Stage, wire: &mut Wire, _: &[BlockHash]) -> io::Result<()> {
    stage.engage();
    loop {
        wire.slowly(&framed(wire.magic, "nonsense", &[0; 100_000]), 4_096)?;
    }
}

fn serving(name: &str, end: End, chain: impl Fn(&World) -> &Chain + Send + Sync + 'static) -> Case {
    case(name, end, move |stage, wire| {
        let mut asked = 0;
        wire.serve(&chain(stage.world).served, |_, message| {
            asked += wanted(message).map_or(0, |hashes| hashes.len());
            if asked > FORK as usize {
                stage.engage();
            }
            Ok(Done::No)
        })
    })
}

/// Headers alone, on top of the genesis block, with more work than all others.
fn headers_only(number: u64) -> Behaviour {
    std::sync::Arc::new(move |stage: &Stage, wire: &mut Wire| {
        let genesis = stage.world.params.genesis.header;
        let next = |last: &Header| Some(header_on(last, number));
        let length = 600 + 50 * number as usize;
        let headers: Vec<Header> = std::iter::successors(next(&genesis), next).take(length).collect();
        wire.serve(&stage.world.honest.served, |wire, message| match message {
            Message::GetHeaders(_) => {
                wire.send(&Message::Headers(headers.clone()))?;
                stage.engage();
                Ok(Done::Yes)
            }
            Message::GetData(_) => Ok(Done::Yes),
            _ => Ok(Done::No),
        })
    })
}

fn unasked(stage: &Stage, wire: &mut Wire, chain: &Chain) -> io::Result<()> {
    wire.shake_hands()?;
    wire.send(&Message::Headers(chain.headers()))?;
    for block in chain.blocks.iter() {
        wire.send(&self::block(block))?;
    }
    stage.engage();
    wire.ignore()
}

#[test]
fn the_chain_has_what_the_mutations_need() {
    let blocks = &crate::world::world(crate::world::Net::Easy).honest.blocks;
    assert!(blocks.iter().filter(|block| block.txdata.len() > 1 && block.txdata.len() % 2 == 1).count() > 20);
    assert!(blocks.iter().filter(|block| block.txdata[1..].iter().any(has_witness)).count() > 20);
    let again: Block = deserialize(&serialize(&blocks[150])).unwrap();
    assert_eq!(again.block_hash().to_byte_array(), blocks[150].block_hash().to_byte_array());
}
