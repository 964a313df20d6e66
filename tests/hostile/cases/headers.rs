//! Peers that lie about headers.

use super::{Case, End, case, several};
use crate::wire::{Done, Stage, Wire};
use crate::world::{Net, cheap_header, header_on, noise};
use bitcoin::BlockHash;
use bitcoin::CompactTarget;
use bitcoin::Target;
use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use headlong::limits;
use headlong::sim::forge::mine_header;
use headlong::wire::Message;
use headlong::wire::compact_size;
use std::io;

/// A peer that answers each `getheaders` with these, and all else as an honest one.
fn answering(name: &str, end: End, headers: impl Fn(&Stage) -> Vec<Header> + Send + Sync + 'static) -> Case {
    case(name, end, move |stage, wire| {
        let answer = Message::Headers(headers(stage));
        wire.serve(&stage.world.honest.served, |wire, message| {
            // Once before they are asked for, since the node may ask others first.
            if matches!(message, Message::GetHeaders(_) | Message::Verack) {
                wire.send(&answer)?;
                stage.engage();
            }
            Ok(if matches!(message, Message::GetHeaders(_)) { Done::Yes } else { Done::No })
        })
    })
}

/// The honest headers, the last of them changed and mined again.
fn with_last(stage: &Stage, change: impl Fn(&mut Header)) -> Vec<Header> {
    let mut headers = stage.world.honest.headers();
    let last = headers.last_mut().unwrap();
    change(last);
    mine_header(last);
    headers
}

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        answering("no headers", End::NoFault, |_| Vec::new()).crowd().short(),
        case("headers missing", End::NoFault, |stage, wire| {
            wire.serve(&stage.world.honest.served, |_, message| {
                let Message::GetHeaders(_) = message else { return Ok(Done::No) };
                stage.engage();
                Ok(Done::Yes)
            })
        }),
        answering("headers reversed", End::Fault("do not connect"), |stage| {
            stage.world.honest.headers().into_iter().rev().collect()
        })
        .crowd(),
        answering("a header twice", End::Fault("do not connect"), |stage| {
            let headers = stage.world.honest.headers();
            [headers[0], headers[0]].into()
        })
        .crowd(),
        answering("headers with a gap", End::Fault("do not connect"), |stage| {
            let mut headers = stage.world.honest.headers();
            headers.remove(100);
            headers
        })
        .crowd(),
        answering("headers that connect to nothing", End::NoFault, |stage| {
            let mut parent = stage.world.honest.headers()[0];
            parent.prev_blockhash = BlockHash::from_byte_array([3; 32]);
            (0..50)
                .scan(parent, |parent, n| Some(std::mem::replace(parent, header_on(parent, n))))
                .skip(1)
                .collect()
        })
        .crowd(),
        answering("wrong bits", End::Fault("bad-diffbits"), |stage| {
            with_last(stage, |last| last.bits = CompactTarget::from_consensus(0x207f_fffe))
        })
        .crowd(),
        answering("bits that are no target", End::Fault("high-hash"), |stage| {
            let mut headers = stage.world.honest.headers();
            headers.last_mut().unwrap().bits = CompactTarget::from_consensus(0xff7f_ffff);
            headers
        })
        .crowd(),
        answering("no proof of work", End::Fault("high-hash"), |stage| {
            let mut headers = stage.world.honest.headers();
            let last = headers.last_mut().unwrap();
            while Target::from_compact(last.bits).is_met_by(last.block_hash()) {
                last.nonce += 1;
            }
            headers
        })
        .crowd()
        .short(),
        answering("a time before the median", End::Fault("time-too-old"), |stage| {
            with_last(stage, |last| last.time -= 20_000)
        })
        .crowd(),
        answering("a time in the future", End::NoFault, |stage| {
            with_last(stage, |last| last.time = u32::MAX)
        })
        .crowd(),
        answering("an outdated version", End::Fault("bad-version"), |stage| {
            with_last(stage, |last| last.version = bitcoin::block::Version::from_consensus(1))
        })
        .crowd(),
        case("more headers than a message may have", End::Fault("malformed headers"), |stage, wire| {
            let headers: Vec<Header> = chain_of(&stage.world.honest.headers()[0], limits::MAX_HEADERS + 1);
            wire.shake_hands()?;
            wire.send(&Message::Headers(headers))?;
            stage.engage();
            wire.ignore()
        })
        .crowd(),
        case("headers followed by transactions", End::Fault("malformed headers"), |stage, wire| {
            wire.shake_hands()?;
            let mut payload = Vec::new();
            compact_size::encode(1, &mut payload);
            payload.extend(bitcoin::consensus::serialize(&stage.world.honest.headers()[0]));
            payload.push(1);
            payload.extend(noise(200, 3));
            let frame = wire.frame("headers", &payload);
            wire.raw(&frame)?;
            stage.engage();
            wire.ignore()
        })
        .crowd(),
        case("headers one by one", End::NoFault, |stage, wire| {
            let headers = stage.world.honest.headers();
            wire.serve(&stage.world.honest.served, |wire, message| {
                let Message::GetHeaders(request) = message else { return Ok(Done::No) };
                let known = headers.iter().rposition(|h| request.locator_hashes.contains(&h.block_hash()));
                let next = headers.get(known.map_or(0, |known| known + 1)).copied();
                wire.send(&Message::Headers(next.into_iter().collect()))?;
                stage.engage();
                Ok(Done::Yes)
            })
        }),
        case("an endless chain of little work", End::NoFault, endless).on(Net::Hard),
        several(3, case("an endless chain of little work", End::NoFault, endless).on(Net::Hard)),
        case("a chain of little work that changes each time", End::NoFault, changing).on(Net::Hard),
        case("a chain that ends below the least work", End::NoFault, |stage, wire| {
            let headers = chain_of_cheap(&stage.world.params.genesis.header, 300);
            wire.serve(&stage.world.honest.served, |wire, message| {
                let Message::GetHeaders(_) = message else { return Ok(Done::No) };
                wire.send(&Message::Headers(headers.clone()))?;
                stage.engage();
                Ok(Done::Yes)
            })
        })
        .on(Net::Hard),
        case("a claim of a million blocks and no headers", End::NoFault, |stage, wire| {
            wire.next()?;
            let Message::Version(mut version) = crate::wire::version() else { unreachable!() };
            version.start_height = 1_000_000;
            wire.send(&Message::Version(version))?;
            wire.send(&Message::Verack)?;
            loop {
                if let Message::GetHeaders(_) = wire.next()? {
                    wire.send(&Message::Headers(Vec::new()))?;
                    stage.engage();
                }
            }
        }),
    ];
    cases.push(several(
        3,
        case("headers missing", End::NoFault, |stage, wire| {
            stage.engage();
            wire.serve(&stage.world.honest.served, |_, message| match message {
                Message::GetHeaders(_) => Ok(Done::Yes),
                _ => Ok(Done::No),
            })
        }),
    ));
    cases
}

fn chain_of(parent: &Header, length: usize) -> Vec<Header> {
    let next = |last: &Header| Some(header_on(last, 0));
    std::iter::successors(next(parent), next).take(length).collect()
}

fn chain_of_cheap(parent: &Header, length: usize) -> Vec<Header> {
    std::iter::successors(Some(cheap_header(parent)), |last| Some(cheap_header(last))).take(length).collect()
}

/// As many headers as a message may have, each time, until the present is reached.
fn endless(stage: &Stage, wire: &mut Wire) -> io::Result<()> {
    let genesis = stage.world.params.genesis.header;
    let mut last = genesis;
    wire.serve(&stage.world.honest.served, |wire, message| {
        let Message::GetHeaders(request) = message else { return Ok(Done::No) };
        if request.locator_hashes.first() != Some(&last.block_hash()) {
            last = genesis;
        }
        let headers = chain_of_cheap(&last, limits::MAX_HEADERS);
        last = *headers.last().unwrap();
        wire.send(&Message::Headers(headers))?;
        stage.engage();
        Ok(Done::Yes)
    })
}

/// Full messages of little work, of another chain each time.
fn changing(stage: &Stage, wire: &mut Wire) -> io::Result<()> {
    let mut genesis = stage.world.params.genesis.header;
    wire.serve(&stage.world.honest.served, |wire, message| {
        let Message::GetHeaders(_) = message else { return Ok(Done::No) };
        let mut first = cheap_header(&stage.world.params.genesis.header);
        genesis.nonce += 1;
        first.version = bitcoin::block::Version::from_consensus(0x2000_0000 + genesis.nonce as i32 % 1_000);
        mine_header(&mut first);
        let mut headers = vec![first];
        headers.extend(chain_of_cheap(&first, limits::MAX_HEADERS - 1));
        wire.send(&Message::Headers(headers))?;
        stage.engage();
        Ok(Done::Yes)
    })
}
