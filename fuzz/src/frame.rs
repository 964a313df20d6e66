//! The push decoder: any bytes, in any pieces.
//!
//! Input: number of pieces' lengths modulo 16, the lengths (0: all that is left), the stream.

use crate::feed::Feed;
use crate::meter::peak;
use headlong::limits::{MAX_PAYLOAD, PAYLOAD_FIRST_ALLOCATION};
use headlong::wire::frame::{Command, Decoder, Frame, FrameError, Progress};

/// The magic of the streams: regtest's.
pub const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];

/// What a stream came to.
#[derive(Debug, PartialEq)]
struct Outcome {
    frames: Vec<Frame>,
    error: Option<FrameError>,
    /// Not compared after an error, which a longer piece reveals later.
    received: Option<u64>,
    unknown: u64,
    progress: Option<Progress>,
}

pub fn run(data: &[u8]) {
    let mut feed = Feed::new(data);
    let count = usize::from(feed.u8() % 16);
    let pieces = feed.take(count);
    let stream = feed.rest();
    let whole = decode(stream, &[]);
    assert_eq!(whole, decode(stream, pieces), "the pieces {pieces:?} matter");
    check_memory(stream);
    for frame in whole.frames {
        assert_eq!(Command::new(frame.command.as_str()), Some(frame.command));
        let limit = frame.command.payload_limit().expect("unknown commands are read over");
        assert!(frame.payload.len() <= limit);
        if frame.verify().is_ok() {
            let command = frame.command;
            if let Ok(message) = frame.into_message() {
                assert_eq!(message.expect("a known command").command(), command);
            }
        }
    }
}

fn decode(mut stream: &[u8], pieces: &[u8]) -> Outcome {
    let mut decoder = Decoder::new(MAGIC);
    let mut frames = Vec::new();
    let mut error = None;
    let mut lengths = pieces.iter().cycle();
    while !stream.is_empty() && error.is_none() {
        let length = match lengths.next() {
            None | Some(0) => stream.len(),
            Some(length) => usize::from(*length).min(stream.len()),
        };
        let (mut piece, rest) = stream.split_at(length);
        stream = rest;
        while !piece.is_empty() {
            match decoder.feed(piece) {
                Ok(used) => {
                    assert!(used > 0, "the decoder stands still");
                    piece = &piece[used..];
                }
                Err(failure) => {
                    assert_eq!(decoder.feed(&[0]), Err(failure.clone()), "the first error is final");
                    error = Some(failure);
                    break;
                }
            }
            if let Some(progress) = decoder.progress() {
                assert!(progress.received < progress.length.max(1) && progress.length <= MAX_PAYLOAD);
            }
            frames.extend(decoder.take_frame());
        }
    }
    let received = error.is_none().then(|| decoder.received());
    Outcome { frames, error, received, unknown: decoder.unknown_count(), progress: decoder.progress() }
}

/// A header makes us hold 64 KiB, or its block; the rest comes when as much has arrived.
fn check_memory(stream: &[u8]) {
    let (block, most) = peak(|| {
        let mut decoder = Decoder::new(MAGIC);
        let mut rest = stream;
        let mut block = false;
        while let Some(used) = decoder.feed(rest).ok().filter(|used| *used > 0) {
            rest = &rest[used..];
            block |= decoder.progress().is_some_and(|progress| progress.command.as_str() == "block");
            block |= decoder.take_frame().is_some_and(|frame| frame.command.as_str() == "block");
        }
        block
    });
    let bound = if block || stream.len() >= PAYLOAD_FIRST_ALLOCATION { MAX_PAYLOAD } else { 0 };
    assert!(most <= bound + PAYLOAD_FIRST_ALLOCATION + 4_096, "{} bytes made us hold {most}", stream.len());
}
