//! Answers as servers send them, and as they must not.

use super::*;
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use std::io::Write;

fn read_in(bytes: &[u8], pieces: usize, limit: usize) -> Result<(Response, usize), HttpError> {
    let mut reader = ResponseReader::new(limit);
    let mut used = 0;
    for piece in bytes.chunks(pieces.max(1)) {
        used += reader.feed(piece)?;
        if reader.is_complete() {
            break;
        }
    }
    if !reader.is_complete() {
        reader.end()?;
    }
    Ok((reader.into_response().unwrap(), used))
}

/// Whatever the pieces, the outcome is the same.
fn read(text: impl AsRef<[u8]>) -> Result<(Response, usize), HttpError> {
    let bytes = text.as_ref();
    let whole = read_in(bytes, bytes.len(), 100_000);
    for pieces in [1, 2, 3, 7, 100] {
        assert_eq!(read_in(bytes, pieces, 100_000), whole, "in pieces of {pieces}");
    }
    whole
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// As bitcoind (Knots 29) answers, its date aside.
const BITCOIND: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\
    Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 5\r\n\r\nabcde";

/// As nginx 1.28 answers with gzip on: in chunks.
const NGINX: &str = "HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
    Content-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\
    Vary: Accept-Encoding\r\nContent-Encoding: gzip\r\n\r\n";

#[test]
fn an_answer_by_length_ends_there_and_what_follows_is_left() {
    let (response, used) = read(BITCOIND).unwrap();
    assert_eq!((response.status, &response.body[..], response.keep_alive), (200, &b"abcde"[..], true));
    assert_eq!(used, BITCOIND.len());
    let (again, used) = read(format!("{BITCOIND}HTTP/1.1 ")).unwrap();
    assert_eq!((again, used), (response, BITCOIND.len()));
}

/// The bug: an empty line behind a line that ends without a carriage return was not seen, and a body up to its own first
/// empty line was taken for a part of the head.
#[test]
fn a_head_ends_at_its_first_empty_line_whatever_ends_its_lines() {
    for end in ["\r\n", "\n"] {
        for empty in ["\r\n", "\n"] {
            let text = format!("HTTP/1.1 200 OK{end}Content-Length: 9{end}{empty}ab\r\n\r\ncd\n");
            let (response, used) = read(&text).unwrap();
            assert_eq!((&response.body[..], used), (&b"ab\r\n\r\ncd\n"[..], text.len()), "{text:?}");
        }
    }
}

#[test]
fn an_answer_in_chunks_with_extensions_and_trailers() {
    let text = "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n\
        3;name=value\r\nabc\r\n00A\r\n0123456789\r\n0\r\nDigest: x\r\n\r\nHTTP";
    let (response, used) = read(text).unwrap();
    assert_eq!((&response.body[..], used), (&b"abc0123456789"[..], text.len() - 4));
}

#[test]
fn a_packed_answer_in_chunks_as_a_proxy_sends_it() {
    let body: Vec<u8> = (0..50_000u32).flat_map(|n| (n / 100).to_le_bytes()).take(90_000).collect();
    let packed = gzip(&body);
    let mut bytes = NGINX.as_bytes().to_vec();
    for chunk in packed.chunks(700) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
        bytes.extend(chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    let (response, used) = read(&bytes).unwrap();
    assert_eq!((used, response.coding, response.varies), (bytes.len(), Coding::Gzip, true));
    assert!(response.keep_alive);
    assert_eq!(unpack(response.coding, response.body, 90_000), Ok(body));
}

#[test]
fn the_end_of_the_stream_ends_a_body_only_if_nothing_else_does() {
    let (response, _) = read("HTTP/1.1 200 OK\r\n\r\nabc").unwrap();
    assert_eq!((&response.body[..], response.keep_alive), (&b"abc"[..], false));
    for text in [
        "",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
    ] {
        assert_eq!(read(text), Err(HttpError::CutShort), "{text}");
    }
}

#[test]
fn connections_that_end_are_not_used_again() {
    for (text, kept) in [
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x, Close\r\n\r\n", false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false),
        ("HTTP/1.1 204 No Content\r\n\r\n", true),
    ] {
        let (response, used) = read(text).unwrap();
        assert_eq!((response.keep_alive, used), (kept, text.len()), "{text}");
    }
}

#[test]
fn what_can_be_read_in_two_ways_or_none_is_refused() {
    let with = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
    for (text, error) in [
        (with("Content-Length: 3\r\nContent-Length: 4"), HttpError::Malformed("two lengths")),
        (with("Content-Length: 3\r\nTransfer-Encoding: chunked"), HttpError::Malformed("two lengths")),
        (with("Transfer-Encoding: chunked\r\nContent-Length: 3"), HttpError::Malformed("two lengths")),
        (with("Transfer-Encoding: gzip, chunked"), HttpError::Unsupported("transfer-encoding")),
        (with("Content-Length: -1"), HttpError::Malformed("content-length")),
        (with("Content-Length: +1"), HttpError::Malformed("content-length")),
        (with("Content-Length: 1, 1"), HttpError::Malformed("content-length")),
        (with("Content-Length: 99999999999999999999"), HttpError::Malformed("content-length")),
        (with("Content-Length: 100001"), HttpError::TooLong("body")),
        (with("Content-Encoding: br"), HttpError::Unsupported("content-encoding")),
        (
            with("Content-Encoding: gzip\r\nContent-Encoding: gzip"),
            HttpError::Unsupported("content-encoding"),
        ),
        (with("Content Length: 3"), HttpError::Malformed("head")),
        (with(&"a: b\r\n".repeat(MAX_HTTP_FIELDS + 1)), HttpError::TooLong("head")),
        (with(&format!("a: {}", "b".repeat(MAX_HTTP_HEAD))), HttpError::TooLong("head")),
        ("HTTP/1.1 100 Continue\r\n\r\n".into(), HttpError::Unsupported("status")),
        ("HTTP/1.1 999 What\r\n\r\n".into(), HttpError::Unsupported("status")),
        ("HTTP/2 200 OK\r\n\r\n".into(), HttpError::Malformed("head")),
        ("\n\n".into(), HttpError::Malformed("head")),
        ("<html>\n\n".into(), HttpError::Malformed("head")),
    ] {
        assert_eq!(read(&text), Err(error), "{text}");
    }
    for (chunks, error) in [
        ("x\r\n", HttpError::Malformed("chunk's size")),
        ("-1\r\n", HttpError::Malformed("chunk's size")),
        ("\r\n", HttpError::Malformed("chunk's size")),
        ("3\r\nabcd\r\n", HttpError::Malformed("chunk's end")),
        ("186a1\r\n", HttpError::TooLong("body")),
        ("fffffffffffffffff\r\n", HttpError::Malformed("chunk's size")),
        ("ffffffffffffffff\r\n", HttpError::TooLong("body")),
        (&format!("1;{}\r\n", "x".repeat(MAX_CHUNK_LINE)), HttpError::TooLong("chunk's line")),
        (&format!("0\r\n{}", "a: b\r\n".repeat(MAX_CHUNK_LINE)), HttpError::TooLong("trailers")),
    ] {
        assert_eq!(read(with("Transfer-Encoding: chunked") + chunks), Err(error), "{chunks}");
    }
}

#[test]
fn a_body_never_grows_beyond_its_bound() {
    let head = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
    let to_end = head("") + &"x".repeat(100_001);
    assert_eq!(read_in(to_end.as_bytes(), 999, 100_000), Err(HttpError::TooLong("body")));
    let chunks = head("Transfer-Encoding: chunked\r\n") + &"5\r\nxxxxx\r\n".repeat(20_001);
    assert_eq!(read_in(chunks.as_bytes(), 999, 100_000), Err(HttpError::TooLong("body")));
    // Of a text that is no answer to what was asked, less is taken.
    let error = format!("HTTP/1.1 500 No\r\n\r\n{}", "x".repeat(MAX_SOURCE_TEXT + 1));
    assert_eq!(read_in(error.as_bytes(), 999, 100_000), Err(HttpError::TooLong("body")));
    // A body sent byte by byte costs more framing than is taken.
    let slow = head("Transfer-Encoding: chunked\r\n") + &"1\r\nx\r\n".repeat(300_000);
    assert_eq!(read_in(slow.as_bytes(), 9_999, 4_000_000), Err(HttpError::TooLong("chunks' framing")));
}

#[test]
fn bombs_and_damage_are_refused_within_the_bound() {
    let bomb = gzip(&vec![0; 50 << 20]);
    assert!(bomb.len() < 60_000);
    assert_eq!(unpack(Coding::Gzip, bomb, 1_000_000), Err(HttpError::TooLong("body")));
    let fine = gzip(b"some bytes");
    assert_eq!(unpack(Coding::Gzip, fine.clone(), 10), Ok(b"some bytes".to_vec()));
    assert_eq!(unpack(Coding::Gzip, fine.clone(), 9), Err(HttpError::TooLong("body")));
    assert_eq!(unpack(Coding::Identity, vec![0; 11], 10), Err(HttpError::TooLong("body")));
    for damaged in [&fine[..fine.len() - 1], &fine[..12], b"", b"some bytes"] {
        assert_eq!(unpack(Coding::Gzip, damaged.to_vec(), 10), Err(HttpError::Coding("damaged")));
    }
    let mut wrong_sum = fine.clone();
    let at = wrong_sum.len() - 6;
    wrong_sum[at] ^= 1;
    assert_eq!(unpack(Coding::Gzip, wrong_sum, 10), Err(HttpError::Coding("damaged")));
    let longer = [&fine[..], b"x"].concat();
    assert_eq!(unpack(Coding::Gzip, longer, 10), Err(HttpError::Coding("bytes behind it")));
}

#[test]
fn a_request_says_what_is_understood() {
    let text = String::from_utf8(request("a:8332", "/rest/x?count=2", true)).unwrap();
    assert!(text.starts_with("GET /rest/x?count=2 HTTP/1.1\r\nHost: a:8332\r\n"), "{text}");
    assert!(text.contains("\r\nAccept-Encoding: gzip\r\n") && text.ends_with("\r\n\r\n"));
    assert!(!String::from_utf8(request("a:8332", "/", false)).unwrap().contains("Encoding"));
}

proptest! {
    /// What a server writes in any of the three ways, cut anywhere, is read as it was.
    #[test]
    fn bodies_come_out_as_they_went_in(
        body in prop::collection::vec(any::<u8>(), 0..2_000),
        way in 0..3u8,
        sizes in prop::collection::vec(1..300usize, 1..8),
        pieces in 1..500usize,
    ) {
        let mut bytes = b"HTTP/1.1 200 OK\r\n".to_vec();
        match way {
            0 => bytes.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes()),
            1 => bytes.extend(b"\r\n"),
            _ => bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n"),
        }
        if way < 2 {
            bytes.extend(&body);
        } else {
            let (mut rest, mut sizes) = (&body[..], sizes.iter().cycle());
            while !rest.is_empty() {
                let (chunk, left) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
                bytes.extend(format!("{:X}\r\n", chunk.len()).bytes());
                bytes.extend(chunk);
                bytes.extend(b"\r\n");
                rest = left;
            }
            bytes.extend(b"0\r\n\r\n");
        }
        let (response, used) = read_in(&bytes, pieces, 2_000).unwrap();
        prop_assert_eq!(used, bytes.len());
        prop_assert_eq!(response.body, body);
    }

    #[test]
    fn any_bytes_end_in_an_answer_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..500),
        fields in prop::sample::select(vec!["", "Transfer-Encoding: chunked\r\n", "Content-Length: 9\r\n"]),
    ) {
        let _ = read_in(&bytes, 7, 300);
        let text = [&b"HTTP/1.1 200 OK\r\n"[..], fields.as_bytes(), b"\r\n", &bytes].concat();
        if let Ok((response, _)) = read_in(&text, 7, 300) {
            prop_assert!(response.body.len() <= 300);
        }
        let _ = unpack(Coding::Gzip, bytes, 300);
    }
}
