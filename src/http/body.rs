//! Body framing in and out: fixed lengths, chunks, and bodies that end with their connection.

use std::ops::Range;

use super::HttpError;
use super::fields::is_token;
use crate::limits;

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyLength {
    /// No body.
    #[default]
    None,
    /// That many bytes, at least one.
    Fixed(u64),
    /// Chunks.
    Chunked,
    /// All up to the end of the connection; answers only.
    UntilClose,
}

/// Finds the payload in the bytes of a body, however they are cut.
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
    payload_bytes: u64,
    extension_bytes: usize,
    trailer_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Done,
    Fixed {
        left: u64,
    },
    UntilClose,
    /// Digits of a chunk size seen so far.
    Size {
        value: u64,
        digits: u32,
    },
    Extension {
        value: u64,
    },
    SizeFeed {
        value: u64,
    },
    Data {
        left: u64,
    },
    DataReturn,
    DataFeed,
    /// At the start of a trailer line, or of the empty line that ends the body.
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerFeed,
    LastFeed,
}

impl BodyDecoder {
    /// For a body of this length.
    #[must_use]
    pub fn new(length: BodyLength) -> Self {
        let state = match length {
            BodyLength::None => State::Done,
            BodyLength::Fixed(left) => State::Fixed { left },
            BodyLength::Chunked => State::Size { value: 0, digits: 0 },
            BodyLength::UntilClose => State::UntilClose,
        };
        Self { state, payload_bytes: 0, extension_bytes: 0, trailer_bytes: 0 }
    }

    /// Whether the body is complete.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Payload so far, without framing.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// To be told when the connection ended.
    ///
    /// # Errors
    /// [`HttpError::Truncated`] unless the end completes the body.
    pub fn end(&mut self) -> Result<(), HttpError> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(HttpError::Truncated),
        }
    }

    /// Takes bytes from the front of `input`: how many, and which of these are payload (one run at
    /// most; call again with the rest). Takes none only if `input` is empty or the body is done.
    ///
    /// # Errors
    /// A fault of the chunk framing.
    pub fn decode(&mut self, input: &[u8]) -> Result<(usize, Range<usize>), HttpError> {
        let mut at = 0;
        while at < input.len() {
            match self.state {
                State::Done => break,
                State::UntilClose => {
                    self.payload_bytes += (input.len() - at) as u64;
                    return Ok((input.len(), at..input.len()));
                }
                State::Fixed { left } => {
                    let (taken, left) = take(left, input.len() - at);
                    self.state = if left == 0 { State::Done } else { State::Fixed { left } };
                    self.payload_bytes += taken as u64;
                    return Ok((at + taken, at..at + taken));
                }
                State::Data { left } => {
                    let (taken, left) = take(left, input.len() - at);
                    self.state = if left == 0 { State::DataReturn } else { State::Data { left } };
                    self.payload_bytes += taken as u64;
                    return Ok((at + taken, at..at + taken));
                }
                framing => {
                    self.state = self.step(framing, input[at])?;
                    at += 1;
                }
            }
        }
        Ok((at, at..at))
    }

    /// One byte of chunk framing (RFC 9112 section 7.1, without its leniencies).
    fn step(&mut self, state: State, byte: u8) -> Result<State, HttpError> {
        Ok(match (state, byte) {
            (State::Size { value, digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == limits::CHUNK_SIZE_DIGITS_MAX {
                    return Err(HttpError::Chunk);
                }
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                State::Size { value: value * 16 + digit, digits: digits + 1 }
            }
            (State::Size { value, digits: 1.. }, b'\r') => State::SizeFeed { value },
            (State::Size { value, digits: 1.. }, b';') => State::Extension { value },
            (State::Extension { value }, b'\r') => State::SizeFeed { value },
            (State::Extension { value }, _) if is_text(byte) => {
                self.extension_bytes += 1;
                within(self.extension_bytes, limits::CHUNK_EXTENSION_BYTES_MAX)?;
                State::Extension { value }
            }
            (State::SizeFeed { value: 0 }, b'\n') => State::TrailerStart,
            (State::SizeFeed { value }, b'\n') => State::Data { left: value },
            (State::DataReturn, b'\r') => State::DataFeed,
            (State::DataFeed, b'\n') => State::Size { value: 0, digits: 0 },
            (State::TrailerStart, b'\r') => State::LastFeed,
            (State::TrailerStart, _) if is_token(&[byte]) => self.trailer(State::TrailerName)?,
            (State::TrailerName, b':') => self.trailer(State::TrailerValue)?,
            (State::TrailerName, _) if is_token(&[byte]) => self.trailer(State::TrailerName)?,
            (State::TrailerValue, b'\r') => State::TrailerFeed,
            (State::TrailerValue, _) if is_text(byte) => self.trailer(State::TrailerValue)?,
            (State::TrailerFeed, b'\n') => State::TrailerStart,
            (State::LastFeed, b'\n') => State::Done,
            _ => return Err(HttpError::Chunk),
        })
    }

    fn trailer(&mut self, next: State) -> Result<State, HttpError> {
        self.trailer_bytes += 1;
        within(self.trailer_bytes, limits::TRAILER_BYTES_MAX)?;
        Ok(next)
    }
}

fn within(count: usize, max: usize) -> Result<(), HttpError> {
    if count > max { Err(HttpError::ChunkOverhead) } else { Ok(()) }
}

/// Of `left` bytes, those there and those to come.
fn take(left: u64, there: usize) -> (usize, u64) {
    let taken = usize::try_from(left).map_or(there, |left| left.min(there));
    (taken, left - taken as u64)
}

/// A byte of a field value or a chunk extension.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}

/// Writes chunk framing around a payload that lies in a buffer with room before and behind it.
#[derive(Debug)]
pub struct Chunker;

impl Chunker {
    /// The line before a chunk of `length` payload bytes, at least one.
    #[must_use]
    pub fn size_line(length: usize) -> SizeLine {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut line = SizeLine { bytes: [0; 18], start: 16 };
        line.bytes[16..].copy_from_slice(b"\r\n");
        let mut left = length;
        while left > 0 {
            line.start -= 1;
            line.bytes[line.start] = DIGITS[left % 16];
            left /= 16;
        }
        line
    }

    /// Behind a chunk's payload.
    pub const END: &'static [u8] = b"\r\n";
    /// Behind the last chunk's payload, when the body ends with it.
    pub const END_AND_LAST: &'static [u8] = b"\r\n0\r\n\r\n";
    /// When the body ends and no payload is left to send.
    pub const LAST: &'static [u8] = b"0\r\n\r\n";
}

/// A chunk-size line.
#[derive(Debug)]
pub struct SizeLine {
    bytes: [u8; 18],
    start: usize,
}

impl AsRef<[u8]> for SizeLine {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Payload, bytes taken, and whether the body was complete, for input cut into pieces.
    fn run(length: BodyLength, input: &[u8], piece: usize) -> Result<(Vec<u8>, usize, bool), HttpError> {
        let mut decoder = BodyDecoder::new(length);
        let (mut payload, mut taken) = (Vec::new(), 0);
        for chunk in input.chunks(piece) {
            let mut rest = chunk;
            while !rest.is_empty() && !decoder.is_done() {
                let (used, range) = decoder.decode(rest)?;
                payload.extend_from_slice(&rest[range]);
                taken += used;
                rest = &rest[used..];
            }
        }
        Ok((payload, taken, decoder.is_done()))
    }

    #[test]
    fn chunks_are_read_the_same_however_they_are_cut() {
        let body = b"5;name=value\r\nhello\r\n0000A\r\n, world..!\r\n0\r\nTrailer: x\r\n\r\nnext";
        for piece in 1..=body.len() {
            let (payload, taken, done) = run(BodyLength::Chunked, body, piece).unwrap();
            assert_eq!(payload, b"hello, world..!");
            assert_eq!(taken, body.len() - 4);
            assert!(done);
        }
    }

    #[test]
    fn bad_chunk_framing_is_refused() {
        let long_size = [b"0".repeat(16).as_slice(), b"\r\n"].concat();
        let long_trailer = [b"0\r\nA: ".as_slice(), &b"x".repeat(9000), b"\r\n\r\n"].concat();
        let long_extension = [b"1;".as_slice(), &b"x".repeat(17_000), b"\r\n"].concat();
        let cases: &[&[u8]] = &[
            b"\r\n",
            b"g\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b"0x1\r\n",
            b" 1\r\n",
            b"1 \r\n",
            b"1\n",
            b"1\rx",
            b"1\r\nab\r\n",
            b"1\r\na\n",
            b"1\r\na\rx",
            b"1;\nx\r\n",
            b"1;\0\r\n",
            b"0\r\n x: y\r\n",
            b"0\r\nx y: z\r\n",
            b"0\r\n: z\r\n",
            b"0\r\nx\r\n",
            b"0\r\nx: y\n",
            b"0\n\n",
            b"0\r\n\n",
            b"fffffffffffffffd\r\n",
            &long_size,
            &long_trailer,
            &long_extension,
        ];
        for case in cases {
            assert!(run(BodyLength::Chunked, case, 7).is_err(), "{:?}", String::from_utf8_lossy(case));
        }
    }

    #[test]
    fn an_early_end_is_told_from_a_late_one() {
        assert_eq!(BodyDecoder::new(BodyLength::Chunked).end(), Err(HttpError::Truncated));
        assert_eq!(BodyDecoder::new(BodyLength::Fixed(1)).end(), Err(HttpError::Truncated));
        assert_eq!(BodyDecoder::new(BodyLength::UntilClose).end(), Ok(()));
        assert_eq!(BodyDecoder::new(BodyLength::None).end(), Ok(()));
    }

    #[test]
    fn size_lines_are_hex() {
        for length in [1, 9, 10, 255, 4096, 65_535, usize::MAX] {
            assert_eq!(Chunker::size_line(length).as_ref(), format!("{length:x}\r\n").as_bytes());
        }
    }
}
