//! Peers that do not introduce themselves as they should.

use super::{Case, End, case, several};
use crate::wire::{Done, framed, version};
use headlong::wire::Message;
use headlong::wire::frame;
use std::time::Duration;

/// Bytes a second of a peer that is as slow as it can be.
const LORIS: usize = 16;

pub fn cases() -> Vec<Case> {
    vec![
        case("silence from the first byte on", End::NoFault, |stage, wire| {
            stage.engage();
            wire.freeze()
        })
        .crowd(),
        case(
            "silence from the first byte on, for longer than a handshake",
            End::Closed("timed out: handshake"),
            {
                |stage, wire| {
                    stage.engage();
                    wire.ignore()
                }
            },
        )
        .linger(62),
        case("the connection ends at once", End::NoFault, |_, _| Ok(())).crowd(),
        case("the connection ends after each handshake", End::NoFault, |stage, wire| {
            wire.shake_hands()?;
            stage.engage();
            Ok(())
        })
        .manual(),
        case("a version and no verack", End::NoFault, |stage, wire| {
            wire.introduce()?;
            stage.engage();
            wire.ignore()
        })
        .crowd(),
        case("a verack and no version", End::NoFault, |stage, wire| {
            wire.send(&Message::Verack)?;
            stage.engage();
            wire.ignore()
        })
        .crowd(),
        case("verack before version", End::NoFault, |stage, wire| {
            wire.send(&Message::Verack)?;
            wire.introduce()?;
            stage.engage();
            wire.ignore()
        })
        .crowd(),
        case("every message before the version", End::NoFault, |stage, wire| {
            for sample in crate::payloads::samples().iter().filter(|sample| sample.command != "version") {
                let frame = wire.frame(sample.command, &sample.payload());
                wire.raw(&frame)?;
            }
            wire.shake_hands()?;
            stage.engage();
            wire.ignore()
        })
        .crowd(),
        case("every message between version and verack", End::NoFault, |stage, wire| {
            wire.introduce()?;
            for sample in crate::payloads::samples().iter().filter(|sample| sample.command != "verack") {
                let frame = wire.frame(sample.command, &sample.payload());
                wire.raw(&frame)?;
            }
            stage.engage();
            wire.ignore()
        })
        .crowd(),
        case("version, verack, wtxidrelay and sendaddrv2 ten times each", End::NoFault, |stage, wire| {
            wire.introduce()?;
            for _ in 0..10 {
                wire.send(&version())?;
                wire.send(&Message::WtxidRelay)?;
                wire.send(&Message::SendAddrV2)?;
            }
            for _ in 0..10 {
                wire.send(&Message::Verack)?;
            }
            stage.engage();
            wire.ignore()
        })
        .crowd(),
        case("wtxidrelay after verack", End::Closed("wtxidrelay after verack"), |stage, wire| {
            wire.shake_hands()?;
            wire.send(&Message::WtxidRelay)?;
            stage.engage();
            wire.ignore()
        })
        .crowd(),
        case("sendaddrv2 after verack", End::Closed("sendaddrv2 after verack"), |stage, wire| {
            wire.shake_hands()?;
            wire.send(&Message::SendAddrV2)?;
            stage.engage();
            wire.ignore()
        })
        .crowd(),
        case("an obsolete version", End::Closed("obsolete"), |stage, wire| {
            let Message::Version(mut version) = version() else { unreachable!() };
            version.version = 31_799;
            wire.send(&Message::Version(version))?;
            stage.engage();
            wire.ignore()
        })
        .crowd(),
        case("our own nonce", End::Closed("connected to self"), |stage, wire| {
            let ours = wire.next()?;
            wire.send(&ours)?;
            stage.engage();
            wire.ignore()
        })
        .crowd(),
        case("16 bytes a second from the version on", End::NoFault, |stage, wire| {
            stage.engage();
            let bytes = frame::encode(wire.magic, &version());
            wire.slowly(&bytes, LORIS)?;
            wire.slowly(&framed(wire.magic, "nonsense", &[0; 100_000]), LORIS)
        })
        .crowd()
        .short(),
        case("16 bytes a second from the headers on", End::NoFault, slow_headers),
        several(3, case("16 bytes a second from the headers on", End::NoFault, slow_headers)),
        case("16 bytes a second of each block", End::NoFault, slow_blocks).short(),
        case("16 bytes a second of each block", End::NoFault, slow_blocks).manual(),
        several(3, case("16 bytes a second of each block", End::NoFault, slow_blocks)),
    ]
}

fn slow_headers(stage: &crate::wire::Stage, wire: &mut crate::wire::Wire) -> std::io::Result<()> {
    let engaged = stage.clone();
    let headers = Message::Headers(stage.world.honest.headers());
    wire.serve(&stage.world.honest.served, move |wire, message| {
        let Message::GetHeaders(_) = message else { return Ok(Done::No) };
        engaged.engage();
        let bytes = frame::encode(wire.magic, &headers);
        wire.slowly(&bytes, LORIS)?;
        Ok(Done::Yes)
    })
}

fn slow_blocks(stage: &crate::wire::Stage, wire: &mut crate::wire::Wire) -> std::io::Result<()> {
    let engaged = stage.clone();
    let block = stage.world.honest.blocks[0].clone();
    wire.serve(&stage.world.honest.served, move |wire, message| {
        let Message::GetData(_) = message else { return Ok(Done::No) };
        engaged.engage();
        let bytes = framed(wire.magic, "block", &bitcoin::consensus::serialize(&block));
        loop {
            wire.slowly(&bytes, LORIS)?;
            wire.pause(Duration::from_millis(250))?;
        }
    })
}
