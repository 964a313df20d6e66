//! Bytes that are not the protocol's, or only nearly so.

use super::{Case, End, case};
use crate::payloads::{Sample, samples};
use crate::wire::{framed, header};
use crate::world::noise;
use headlong::limits;
use headlong::wire::Message;
use headlong::wire::frame::Command;
use std::io;

/// A peer that shakes hands, sends these bytes, and reads on.
fn after_handshake(
    name: String,
    end: End,
    bytes: impl Fn([u8; 4]) -> Vec<u8> + Send + Sync + 'static,
) -> Case {
    case(name, end, move |stage, wire| {
        wire.shake_hands()?;
        wire.raw(&bytes(wire.magic))?;
        stage.engage();
        wire.ignore()
    })
    .crowd()
}

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("garbage instead of a version", End::Fault("wrong magic"), |_, wire| {
            wire.raw(&noise(100_000, 1))?;
            wire.ignore()
        })
        .crowd()
        .short(),
        after_handshake("garbage after the handshake".into(), End::Fault("wrong magic"), |_| noise(3_000, 2)),
        after_handshake("the magic of mainnet".into(), End::Fault("wrong magic"), |_| {
            framed([0xf9, 0xbe, 0xb4, 0xd9], "ping", &[0; 8])
        }),
        after_handshake("a wrong checksum".into(), End::Fault("wrong checksum on ping"), |magic| {
            [header(magic, "ping", 8, &[1, 2, 3, 4]), vec![0; 8]].concat()
        })
        .short(),
        after_handshake("a wrong checksum on a long message".into(), End::Fault("wrong checksum"), |magic| {
            [header(magic, "tx", 1_000_000, &[1, 2, 3, 4]), vec![0; 1_000_000]].concat()
        }),
        after_handshake(
            "bytes after the end of a command".into(),
            End::Fault("malformed command"),
            |magic| {
                let mut frame = framed(magic, "ping", &[0; 8]);
                frame[10] = b'x';
                frame
            },
        ),
        after_handshake("a command that is no text".into(), End::Fault("malformed command"), |magic| {
            let mut frame = framed(magic, "ping", &[0; 8]);
            frame[4] = 7;
            frame
        }),
        after_handshake("an unknown command".into(), End::NoFault, |magic| {
            framed(magic, "nonsense", &[5; 999])
        }),
        after_handshake("a command of no letters".into(), End::NoFault, |magic| framed(magic, "", &[5; 99])),
        after_handshake("an unknown command too long".into(), End::Fault("nonsense of"), |magic| {
            header(magic, "nonsense", limits::MAX_PAYLOAD as u32 + 1, &[0; 4])
        }),
        after_handshake("a length of 2^32 - 1".into(), End::Fault("block of 4294967295"), |magic| {
            header(magic, "block", u32::MAX, &[0; 4])
        }),
    ];
    let samples = samples();
    cases.extend(samples.iter().flat_map(cut));
    cases.extend(samples.iter().flat_map(lying));
    let mut commands: Vec<&'static str> = samples.iter().map(|sample| sample.command).collect();
    commands.push("block");
    commands.sort_unstable();
    commands.dedup();
    cases.extend(commands.into_iter().flat_map(too_long));
    cases
}

/// A message cut short: its payload, with the length and checksum of what is left; and the frame, before the
/// connection ends.
fn cut(sample: &Sample) -> Vec<Case> {
    let (command, payload) = (sample.command, sample.payload());
    let mut cases = Vec::new();
    if !payload.is_empty() {
        let mut cuts = vec![payload.len() - 1, payload.len() / 2, 0];
        if sample.may_be_cut {
            // What nobody needs may be missing; the first fields of a version may not.
            cuts = if command == "version" { vec![45, 50, 0] } else { Vec::new() };
        }
        for length in cuts {
            let payload = payload[..length].to_vec();
            let name = format!("{command} cut to {length} bytes");
            cases.push(after_handshake(name, End::Fault("malformed"), move |magic| {
                framed(magic, command, &payload)
            }));
        }
    }
    let name = format!("{command} that ends with the connection");
    let ends = move |stage: &crate::wire::Stage, wire: &mut crate::wire::Wire| -> io::Result<()> {
        wire.shake_hands()?;
        let frame = wire.frame(command, &payload);
        wire.raw(&frame[..frame.len() - (payload.len() / 2).max(1)])?;
        stage.engage();
        Ok(())
    };
    cases.push(case(name, End::Closed("closed by the peer"), ends).crowd());
    cases
}

/// A message that counts more than it has, or more than it may.
fn lying(sample: &Sample) -> Vec<Case> {
    let Some(counted) = &sample.counted else { return Vec::new() };
    let command = sample.command;
    let mut bodies = vec![
        ("2^63".to_owned(), sample.with(1 << 63, counted.count)),
        ("2^64 - 1".to_owned(), sample.with(u64::MAX, counted.count)),
        ("one more than it has".to_owned(), sample.with(counted.count as u64 + 40, counted.count)),
    ];
    let over = counted.limit.saturating_add(1);
    let most = Command::new(command).unwrap().payload_limit().unwrap();
    if counted.limit < usize::MAX {
        // As many as the length allows; what it does not is a case of its own.
        let room = most.saturating_sub(sample.with(0, 0).len() + 8) / counted.item.len();
        bodies.push((format!("{over}"), sample.with(over as u64, over.min(room))));
    }
    let cases = bodies.into_iter().map(|(count, payload)| {
        let name = format!("{command} that counts {count} after {} bytes", sample.before.len());
        after_handshake(name, End::Fault("malformed"), move |magic| framed(magic, command, &payload))
    });
    cases.collect()
}

/// A payload one byte longer than the command allows; and of just that length, which may be nonsense.
fn too_long(command: &'static str) -> Vec<Case> {
    let limit = Command::new(command).unwrap().payload_limit().unwrap();
    let over =
        after_handshake(format!("{command} of {} bytes", limit + 1), End::Fault(command), move |magic| {
            header(magic, command, limit as u32 + 1, &[0; 4])
        });
    let last =
        case(format!("{command} of {limit} bytes that never come"), End::NoFault, move |stage, wire| {
            wire.shake_hands()?;
            wire.raw(&header(wire.magic, command, limit as u32, &[0; 4]))?;
            wire.send(&Message::Ping(1))?;
            stage.engage();
            wire.ignore()
        });
    vec![over, last.crowd()]
}
