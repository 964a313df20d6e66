//! The reader of HTTP answers and what unpacks their bodies: any bytes, in any pieces.
//!
//! Input: number of pieces' lengths modulo 16, the lengths (0: all that is left), whether the stream's end is told, the
//! bound of the body in hundreds of bytes, the stream. What comes out with gzip is unpacked.

use crate::feed::Feed;
use crate::meter::peak;
use headlong::limits::{MAX_HTTP_HEAD, MAX_SOURCE_TEXT, READ_CHUNK};
use headlong::net::http::{Coding, HttpError, Response, ResponseReader, unpack};

/// The answer with the bytes that it took, or why there is none; `None` if more is to come.
type Outcome = Option<Result<(Response, usize), HttpError>>;

pub fn run(data: &[u8]) {
    let mut feed = Feed::new(data);
    let count = usize::from(feed.u8() % 16);
    let pieces = feed.take(count);
    let ends = feed.u8() % 2 == 1;
    let limit = usize::from(feed.u8()) * 100;
    let stream = feed.rest();
    let (whole, held) = peak(|| read(stream, &[], limit, ends));
    assert_eq!(whole, read(stream, pieces, limit, ends), "the pieces {pieces:?} matter");
    // Buffers double when they grow.
    let bound = 2 * (MAX_HTTP_HEAD + stream.len()) + 16_384;
    assert!(held <= bound, "{} bytes made us hold {held}", stream.len());
    let Some(Ok((response, used))) = whole else { return };
    assert!(used <= stream.len() && response.body.len() <= used);
    if response.status == 200 && response.coding == Coding::Identity {
        assert!(response.body.len() <= limit);
    }
    assert!(response.status == 200 || response.body.len() <= MAX_SOURCE_TEXT);
    let length = response.body.len();
    let (unpacked, held) = peak(|| unpack(response.coding, response.body, limit));
    // The decoder's own state is some 50 KB.
    assert!(held <= 3 * limit + READ_CHUNK + 100_000, "{length} packed bytes made us hold {held}");
    match unpacked {
        Ok(body) => assert!(body.len() <= limit, "unpacked beyond the bound"),
        Err(_) => assert!(length > 0 || response.coding == Coding::Gzip, "no bytes are no error"),
    }
}

fn read(mut stream: &[u8], pieces: &[u8], limit: usize, ends: bool) -> Outcome {
    let mut reader = ResponseReader::new(limit);
    let mut lengths = pieces.iter().cycle();
    let mut used = 0;
    while !stream.is_empty() && !reader.is_complete() {
        let length = match lengths.next() {
            None | Some(0) => stream.len(),
            Some(length) => usize::from(*length).min(stream.len()),
        };
        let (piece, rest) = stream.split_at(length);
        stream = rest;
        match reader.feed(piece) {
            Ok(taken) => {
                assert!(taken == piece.len() || reader.is_complete(), "bytes are left and more is to come");
                used += taken;
            }
            Err(error) => return Some(Err(error)),
        }
    }
    if ends && let Err(error) = reader.end() {
        return Some(Err(error));
    }
    reader.into_response().map(|response| Ok((response, used)))
}

/// Answers as servers send them.
pub fn seeds() -> Vec<Vec<u8>> {
    let start = [3, 1, 7, 23, 1, 200];
    let gzip: &[u8] =
        &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0x4b, 0x4c, 0x4a, 6, 0, 0xc2, 0x41, 0x24, 0x35, 3, 0, 0, 0];
    let packed =
        [b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nVary: Accept-Encoding\r\n\r\n", gzip].concat();
    let texts: [&[u8]; 7] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcdeHTTP/1.1",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\n",
        b"HTTP/1.0 404 Not Found\r\n\r\nnot found",
        b"HTTP/1.1 204 No Content\n\n",
        b"HTTP/1.1 301 Moved\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        &packed,
    ];
    texts.iter().map(|text| [&start, *text].concat()).collect()
}
