//! Peers that send more than anyone can use.

use super::{Case, End, case, several};
use crate::payloads::samples;
use crate::wire::{Done, Stage, Wire, framed, version};
use crate::world::noise;
use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::Inventory;
use headlong::limits;
use headlong::wire::{Message, frame};
use std::io;
use std::time::{Duration, Instant};

/// How long a flood lasts: longer than any sync beside it.
const FLOOD: Duration = Duration::from_secs(60);

/// A peer that shakes hands and writes these bytes again and again; it reads what it is sent if it `listens`.
fn flood(
    name: impl Into<String>,
    listens: bool,
    bytes: impl Fn(&Stage, &Wire) -> Vec<u8> + Send + Sync + 'static,
) -> Case {
    case(name, End::NoFault, move |stage, wire| {
        wire.shake_hands()?;
        let bytes = bytes(stage, wire);
        let end = Instant::now() + FLOOD;
        while Instant::now() < end {
            wire.raw(&bytes)?;
            stage.engage();
            if listens {
                wire.drain()?;
            }
        }
        wire.ignore()
    })
}

/// Many copies of a message.
fn repeated(frame: Vec<u8>) -> Vec<u8> {
    frame.repeat((128 * 1024 / frame.len()).max(1))
}

pub fn cases() -> Vec<Case> {
    let message = |wire: &Wire, message: &Message| repeated(frame::encode(wire.magic, message));
    let sample = |wire: &Wire, command: &str, items: usize| {
        let samples = samples();
        let sample = samples.iter().find(|sample| sample.command == command).unwrap();
        repeated(framed(wire.magic, command, &sample.with(items as u64, items)))
    };
    vec![
        flood("ping", true, move |_, wire| message(wire, &Message::Ping(7))).short(),
        flood("ping, and the pongs are not read", false, move |_, wire| message(wire, &Message::Ping(7)))
            .short(),
        several(3, flood("ping", true, move |_, wire| message(wire, &Message::Ping(7)))),
        flood("pong", true, move |_, wire| message(wire, &Message::Pong(7))),
        flood("version", true, move |_, wire| message(wire, &version())),
        flood("inv of transactions", true, move |_, wire| {
            let entries = (0..limits::MAX_INV as u32)
                .map(|n| Inventory::Transaction(bitcoin::Txid::from_byte_array(hash_of(n))));
            message(wire, &Message::Inv(entries.collect()))
        }),
        flood("inv of blocks that nobody knows", true, move |_, wire| {
            let one = |n| Message::Inv(vec![Inventory::Block(BlockHash::from_byte_array(hash_of(n)))]);
            (0..5_000).flat_map(|n| frame::encode(wire.magic, &one(n))).collect()
        })
        .short(),
        flood("inv of all blocks", true, move |stage, wire| {
            let blocks = stage.world.honest.blocks.iter();
            message(wire, &Message::Inv(blocks.map(|block| Inventory::Block(block.block_hash())).collect()))
        }),
        flood("addr", true, move |_, wire| {
            // Addresses of many networks, last seen just now.
            let now =
                std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as u32;
            (0..20u32)
                .flat_map(|part| {
                    let entry = |n: u32| {
                        let [a, b, c, d] = (part * 1_000 + n).wrapping_mul(2_654_435_761).to_be_bytes();
                        let socket = (std::net::Ipv4Addr::new(a % 90 + 20, b, c, d), 8_333).into();
                        let services =
                            bitcoin::p2p::ServiceFlags::NETWORK | bitcoin::p2p::ServiceFlags::WITNESS;
                        (now, bitcoin::p2p::Address::new(&socket, services))
                    };
                    let entries = (0..limits::MAX_ADDR as u32).map(entry).collect();
                    frame::encode(wire.magic, &Message::Addr(entries))
                })
                .collect()
        })
        .short(),
        flood("addrv2", true, move |_, wire| sample(wire, "addrv2", limits::MAX_ADDR)),
        flood("getdata", true, move |_, wire| sample(wire, "getdata", limits::MAX_INV)),
        flood("getdata of one", true, move |_, wire| sample(wire, "getdata", 1)),
        flood("getheaders", true, move |_, wire| sample(wire, "getheaders", limits::MAX_LOCATOR)),
        flood("notfound", true, move |_, wire| sample(wire, "notfound", limits::MAX_INV)),
        flood("notfound of all blocks", true, move |stage, wire| {
            let blocks = stage.world.honest.blocks.iter();
            let all = blocks.map(|block| Inventory::WitnessBlock(block.block_hash())).collect();
            message(wire, &Message::NotFound(all))
        }),
        flood("the honest headers", true, move |stage, wire| {
            message(wire, &Message::Headers(stage.world.honest.headers()))
        })
        .short(),
        flood("no headers", true, move |_, wire| message(wire, &Message::Headers(Vec::new()))),
        flood("unknown commands", true, |_, wire| repeated(framed(wire.magic, "nonsense", &[]))),
        flood("unknown commands of the greatest length", true, |_, wire| {
            framed(wire.magic, "nonsense", &noise(limits::MAX_PAYLOAD, 7))
        }),
        flood("the least messages", true, |_, wire| repeated(framed(wire.magic, "sendheaders", &[]))),
        flood("blocks of the greatest length that nobody knows", true, |stage, wire| {
            let mut block = bitcoin::consensus::serialize(&stage.world.honest.blocks[0].header);
            block[76] ^= 1;
            block.resize(limits::MAX_PAYLOAD, 0);
            framed(wire.magic, "block", &block)
        }),
        flood("known blocks again and again", true, move |stage, wire| {
            let blocks = stage.world.honest.blocks.iter();
            blocks
                .flat_map(|block| framed(wire.magic, "block", &bitcoin::consensus::serialize(block)))
                .collect()
        }),
        flood("transactions with the most that a payload can make us hold", true, |_, wire| {
            // A witness of empty items: each of its bytes becomes an entry of an index.
            let mut tx = vec![2, 0, 0, 0, 0, 1, 1];
            tx.extend([7; 36]);
            tx.extend([0, 0xff, 0xff, 0xff, 0xff, 0]);
            let items = 3_900_000u32;
            tx.push(0xfe);
            tx.extend(items.to_le_bytes());
            tx.resize(tx.len() + items as usize + 4, 0);
            framed(wire.magic, "tx", &tx)
        }),
        flood("compact blocks of the most transactions", true, |_, wire| {
            let samples = samples();
            let sample = samples.iter().find(|sample| sample.command == "blocktxn").unwrap();
            framed(wire.magic, "blocktxn", &sample.with(60_000, 60_000))
        }),
        case("a header of four million bytes, connection after connection", End::NoFault, |stage, wire| {
            wire.shake_hands()?;
            wire.raw(&crate::wire::header(wire.magic, "block", limits::MAX_PAYLOAD as u32, &[0; 4]))?;
            wire.pause(Duration::from_millis(200))?;
            stage.engage();
            Ok(())
        })
        .manual(),
        case("requests are taken and never read", End::NoFault, |stage, wire| {
            wire.serve(&stage.world.honest.served, |wire, message| match message {
                Message::GetData(_) => {
                    stage.engage();
                    wire.freeze()?;
                    Ok(Done::Yes)
                }
                _ => Ok(Done::No),
            })
        }),
    ]
}

fn hash_of(number: u32) -> [u8; 32] {
    bitcoin::hashes::sha256::Hash::hash(&number.to_le_bytes()).to_byte_array()
}

impl Wire {
    /// Takes what has come and forgets it.
    fn drain(&mut self) -> io::Result<()> {
        while self.take_soon()? {}
        Ok(())
    }
}
