//! HTTP/1.1 as far as asking a server for bytes needs it: the text of a request, a push reader of answers, and gzip.
//!
//! 1. [`request`] writes a `GET`.
//! 2. [`ResponseReader`] is fed the bytes as they come, and ends with the answer: its head (parsed by `httparse`), and its
//!    body by length, by chunks, or up to the end of the stream (RFC 9112, sections 4 to 7).
//! 3. [`unpack`] undoes the coding of the body, up to a bound.
//!
//! A server is believed nothing that costs memory: a length that is too great is refused when it is stated, and nothing
//! is reserved for one that is only stated. What two readers could read in two ways (two lengths, a length and chunks) is
//! refused. Left out: interim answers (we send nothing that asks for one), trailers, which are read and dropped, and other
//! codings than gzip.
//!
//! Pure: no socket and no clock.

use crate::limits::{
    MAX_CHUNK_LINE, MAX_CHUNK_OVERHEAD, MAX_HTTP_FIELDS, MAX_HTTP_HEAD, MAX_SOURCE_TEXT, READ_CHUNK,
};
use httparse::{EMPTY_HEADER, Header, Response as Parsed, Status, parse_chunk_size};
use std::io::Read;

/// What is wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The bytes are not HTTP.
    #[error("not HTTP: {0}")]
    Malformed(&'static str),
    /// A part is longer than it may be.
    #[error("too long: {0}")]
    TooLong(&'static str),
    /// HTTP that is of no use here.
    #[error("not supported: {0}")]
    Unsupported(&'static str),
    /// The body is not what its coding says.
    #[error("not gzip: {0}")]
    Coding(&'static str),
    /// The stream ended within the answer.
    #[error("the answer was cut short")]
    CutShort,
}

impl HttpError {
    /// The part that is wrong, in a word.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Malformed(what) | Self::TooLong(what) | Self::Unsupported(what) | Self::Coding(what) => {
                what
            }
            Self::CutShort => "cut short",
        }
    }
}

/// How a body is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Coding {
    /// As it is.
    Identity,
    /// RFC 1952.
    Gzip,
}

/// A complete answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Whether the connection may be used for another request.
    pub keep_alive: bool,
    /// How the body is coded.
    pub coding: Coding,
    /// Whether the server says that it answers other codings differently (`Vary: Accept-Encoding`).
    pub varies: bool,
    /// The body, coded.
    pub body: Vec<u8>,
}

/// The bytes of a `GET`. `host` and `path` must hold no spaces and control characters, as no address has any.
pub fn request(host: &str, path: &str, gzip: bool) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let coding = if gzip { "Accept-Encoding: gzip\r\n" } else { "" };
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: headlong/{version}\r\nAccept: */*\r\n{coding}\r\n"
    )
    .into_bytes()
}

/// What a head says.
#[derive(Clone, Copy, Debug)]
struct Head {
    status: u16,
    keep_alive: bool,
    coding: Coding,
    varies: bool,
    length: Length,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Stated(u64),
    Chunked,
    ToEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Head,
    /// So many bytes of the body are missing.
    Body(u64),
    /// Up to the end of the stream.
    ToEnd,
    /// A line with a chunk's size.
    Size,
    /// So many bytes of a chunk are missing.
    Chunk(u64),
    /// The end of the line behind a chunk.
    ChunkEnd,
    Trailers,
    Complete,
}

/// Reads one answer; to be fed until it is complete.
#[derive(Debug)]
pub struct ResponseReader {
    /// Bytes that an unpacked body may have.
    limit: usize,
    stage: Stage,
    head: Option<Head>,
    /// The head, then lines between chunks, as far as they have come.
    line: Vec<u8>,
    /// Bytes of the trailers' lines.
    trailers: usize,
    /// Bytes of chunks' sizes and line ends.
    overhead: usize,
    body: Vec<u8>,
}

impl ResponseReader {
    /// A reader of an answer whose body may have so many bytes when it is unpacked. Answers other than 200 may have
    /// [`MAX_SOURCE_TEXT`].
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            stage: Stage::Head,
            head: None,
            line: Vec::new(),
            trailers: 0,
            overhead: 0,
            body: Vec::new(),
        }
    }

    /// Takes bytes; how many of them belong to the answer. Fewer than all only if it is complete.
    ///
    /// # Errors
    /// [`HttpError`]; the reader is of no use then.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, HttpError> {
        let mut rest = bytes;
        while !rest.is_empty() && self.stage != Stage::Complete {
            let used = self.step(rest)?;
            rest = rest.get(used..).unwrap_or_default();
        }
        Ok(bytes.len() - rest.len())
    }

    /// Whether nothing is missing.
    pub fn is_complete(&self) -> bool {
        self.stage == Stage::Complete
    }

    /// Bytes that the answer may take once the head has come: of its body and, if it is packed, of what is in it.
    pub fn place(&self) -> Option<usize> {
        let head = self.head.as_ref()?;
        let body = match head.length {
            Length::Stated(length) => usize::try_from(length).unwrap_or(usize::MAX).min(self.most()),
            Length::Chunked | Length::ToEnd => self.most(),
        };
        let packed = head.status == 200 && head.coding == Coding::Gzip;
        Some(body.saturating_add(if packed { self.limit } else { 0 }))
    }

    /// The stream has ended; that may be the answer's end.
    ///
    /// # Errors
    /// [`HttpError::CutShort`].
    pub fn end(&mut self) -> Result<(), HttpError> {
        match self.stage {
            Stage::ToEnd | Stage::Complete => {
                self.stage = Stage::Complete;
                Ok(())
            }
            _ => Err(HttpError::CutShort),
        }
    }

    /// Whether not a byte has come.
    pub fn is_untouched(&self) -> bool {
        self.stage == Stage::Head && self.line.is_empty()
    }

    /// The answer, once it is complete.
    pub fn into_response(self) -> Option<Response> {
        let head = self.head.filter(|_| self.stage == Stage::Complete)?;
        let Head { status, keep_alive, coding, varies, length: _ } = head;
        Some(Response { status, keep_alive, coding, varies, body: self.body })
    }

    fn step(&mut self, bytes: &[u8]) -> Result<usize, HttpError> {
        match self.stage {
            Stage::Head => self.take_head(bytes),
            Stage::Body(missing) => {
                let (used, left) = self.take_body(bytes, missing);
                self.stage = if left == 0 { Stage::Complete } else { Stage::Body(left) };
                Ok(used)
            }
            Stage::ToEnd => {
                if self.body.len().saturating_add(bytes.len()) > self.most() {
                    return Err(HttpError::TooLong("body"));
                }
                self.body.extend_from_slice(bytes);
                Ok(bytes.len())
            }
            Stage::Chunk(missing) => {
                let (used, left) = self.take_body(bytes, missing);
                self.stage = if left == 0 { Stage::ChunkEnd } else { Stage::Chunk(left) };
                Ok(used)
            }
            Stage::Size | Stage::ChunkEnd | Stage::Trailers => self.take_line(bytes),
            Stage::Complete => Ok(0),
        }
    }

    /// Bytes that the body may have as it comes. What can't be packed grows by some bytes in 16,384.
    fn most(&self) -> usize {
        match self.head {
            Some(Head { status: 200, coding: Coding::Gzip, .. }) => self.limit + self.limit / 1_000 + 1_024,
            Some(Head { status: 200, .. }) | None => self.limit,
            Some(_) => MAX_SOURCE_TEXT,
        }
    }

    fn take_body(&mut self, bytes: &[u8], missing: u64) -> (usize, u64) {
        let used = usize::try_from(missing).unwrap_or(usize::MAX).min(bytes.len());
        self.body.extend_from_slice(bytes.get(..used).unwrap_or_default());
        (used, missing - used as u64)
    }

    /// Up to the empty line. It is looked for once in each byte, and the head is parsed once.
    fn take_head(&mut self, bytes: &[u8]) -> Result<usize, HttpError> {
        for (at, &byte) in bytes.iter().enumerate() {
            if self.line.len() >= MAX_HTTP_HEAD {
                return Err(HttpError::TooLong("head"));
            }
            self.line.push(byte);
            // As `httparse` takes an empty line, or the bytes behind it would be read over.
            if byte == b'\n' && (self.line.ends_with(b"\n\r\n") || self.line.ends_with(b"\n\n")) {
                let head = parse_head(&self.line)?;
                self.line = Vec::new();
                self.begin_body(head)?;
                return Ok(at + 1);
            }
        }
        Ok(bytes.len())
    }

    fn begin_body(&mut self, head: Head) -> Result<(), HttpError> {
        self.head = Some(head);
        self.stage = match head.length {
            // These have no body, whatever they state (RFC 9112, section 6.3).
            _ if matches!(head.status, 204 | 304) => Stage::Complete,
            Length::Stated(0) => Stage::Complete,
            Length::Stated(length) if length > self.most() as u64 => return Err(HttpError::TooLong("body")),
            Length::Stated(length) => Stage::Body(length),
            Length::Chunked => Stage::Size,
            Length::ToEnd => Stage::ToEnd,
        };
        Ok(())
    }

    /// A line between, before or behind chunks.
    fn take_line(&mut self, bytes: &[u8]) -> Result<usize, HttpError> {
        let end = bytes.iter().position(|&byte| byte == b'\n');
        let used = end.map_or(bytes.len(), |at| at + 1);
        if self.line.len() + used > MAX_CHUNK_LINE {
            return Err(HttpError::TooLong("chunk's line"));
        }
        self.overhead += used;
        if self.overhead > MAX_CHUNK_OVERHEAD {
            return Err(HttpError::TooLong("chunks' framing"));
        }
        self.line.extend_from_slice(bytes.get(..used).unwrap_or_default());
        if end.is_some() {
            let line = core::mem::take(&mut self.line);
            self.stage = self.after_line(&line)?;
            self.line = line;
            self.line.clear();
        }
        Ok(used)
    }

    fn after_line(&mut self, line: &[u8]) -> Result<Stage, HttpError> {
        let is_empty = line == b"\r\n" || line == b"\n";
        match self.stage {
            Stage::Size => {
                // An empty line is taken for a size of 0 there.
                let is_size = line.first().is_some_and(u8::is_ascii_hexdigit);
                let Ok(Status::Complete((_, size))) = parse_chunk_size(line) else {
                    return Err(HttpError::Malformed("chunk's size"));
                };
                if !is_size {
                    return Err(HttpError::Malformed("chunk's size"));
                }
                if size > (self.most() - self.body.len()) as u64 {
                    return Err(HttpError::TooLong("body"));
                }
                Ok(if size == 0 { Stage::Trailers } else { Stage::Chunk(size) })
            }
            Stage::ChunkEnd if is_empty => Ok(Stage::Size),
            Stage::ChunkEnd => Err(HttpError::Malformed("chunk's end")),
            _ if is_empty => Ok(Stage::Complete),
            _ => {
                self.trailers += line.len();
                if self.trailers > MAX_CHUNK_LINE {
                    Err(HttpError::TooLong("trailers"))
                } else {
                    Ok(Stage::Trailers)
                }
            }
        }
    }
}

fn parse_head(bytes: &[u8]) -> Result<Head, HttpError> {
    let mut fields = [EMPTY_HEADER; MAX_HTTP_FIELDS];
    let mut parsed = Parsed::new(&mut fields);
    match parsed.parse(bytes) {
        Ok(Status::Complete(used)) if used == bytes.len() => {}
        Ok(_) => return Err(HttpError::Malformed("head")),
        Err(httparse::Error::TooManyHeaders) => return Err(HttpError::TooLong("head")),
        Err(_) => return Err(HttpError::Malformed("head")),
    }
    let (Some(status), Some(version)) = (parsed.code, parsed.version) else {
        return Err(HttpError::Malformed("status line"));
    };
    if !(200..600).contains(&status) {
        return Err(HttpError::Unsupported("status"));
    }
    let mut head = Head {
        status,
        keep_alive: version == 1,
        coding: Coding::Identity,
        varies: false,
        length: Length::ToEnd,
    };
    for field in parsed.headers.iter() {
        take_field(&mut head, field)?;
    }
    // Where the end of the stream is the end of the body, there is nothing to use again.
    head.keep_alive &= head.length != Length::ToEnd || matches!(status, 204 | 304);
    Ok(head)
}

fn take_field(head: &mut Head, field: &Header<'_>) -> Result<(), HttpError> {
    let is = |name: &str| field.name.eq_ignore_ascii_case(name);
    let value = field.value.trim_ascii();
    if is("content-length") {
        let stated = Length::Stated(number(value).ok_or(HttpError::Malformed("content-length"))?);
        if head.length != Length::ToEnd && head.length != stated {
            return Err(HttpError::Malformed("two lengths"));
        }
        head.length = stated;
    } else if is("transfer-encoding") {
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(HttpError::Unsupported("transfer-encoding"));
        }
        if head.length != Length::ToEnd {
            return Err(HttpError::Malformed("two lengths"));
        }
        head.length = Length::Chunked;
    } else if is("content-encoding") {
        head.coding = match value {
            _ if head.coding != Coding::Identity => return Err(HttpError::Unsupported("content-encoding")),
            _ if value.eq_ignore_ascii_case(b"gzip") || value.eq_ignore_ascii_case(b"x-gzip") => Coding::Gzip,
            _ if value.eq_ignore_ascii_case(b"identity") => Coding::Identity,
            _ => return Err(HttpError::Unsupported("content-encoding")),
        };
    } else if is("connection") {
        head.keep_alive &= !lists(value, b"close");
    } else if is("vary") {
        head.varies |= lists(value, b"accept-encoding");
    }
    Ok(())
}

/// Whether a list names this.
fn lists(value: &[u8], wanted: &[u8]) -> bool {
    value.split(|&byte| byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(wanted))
}

/// Digits only, at most 18 of them.
fn number(value: &[u8]) -> Option<u64> {
    let is_number = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    core::str::from_utf8(value).ok().filter(|_| is_number)?.parse().ok()
}

/// The body as it was before it was coded, of at most so many bytes; more are not unpacked.
///
/// # Errors
/// [`HttpError::TooLong`], or [`HttpError::Coding`].
pub fn unpack(coding: Coding, body: Vec<u8>, limit: usize) -> Result<Vec<u8>, HttpError> {
    match coding {
        Coding::Identity if body.len() > limit => Err(HttpError::TooLong("body")),
        Coding::Identity => Ok(body),
        Coding::Gzip => {
            let mut decoder = flate2::bufread::GzDecoder::new(&body[..]);
            let mut unpacked = Vec::with_capacity(body.len().saturating_mul(2).min(limit).min(READ_CHUNK));
            let most = (limit as u64).saturating_add(1);
            let read = decoder.by_ref().take(most).read_to_end(&mut unpacked);
            if unpacked.len() > limit {
                return Err(HttpError::TooLong("body"));
            }
            read.map_err(|_| HttpError::Coding("damaged"))?;
            if !decoder.into_inner().is_empty() {
                return Err(HttpError::Coding("bytes behind it"));
            }
            Ok(unpacked)
        }
    }
}

#[cfg(test)]
mod tests;
