//! Reading an HTTP/1.1 answer as it arrives, without allocating.
//!
//! The reader is as small as the load generator's own peers allow: final statuses only, Content-Length or chunked.
//! What it does not know it calls a fault, and a fault counts as a wrong answer.

use memchr::memmem;

use super::verdict::Wrong;

/// How far an answer has been read. The bytes themselves stay in the caller's buffer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reader {
    state: State,
    status: u16,
    /// Where the body begins, and where what has been decoded of it ends; chunk framing is squeezed out in place.
    body_at: usize,
    body_end: usize,
    /// The answer asks for the connection to be closed.
    pub close: bool,
    /// The body is an event stream.
    pub events: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Head,
    Length {
        end: usize,
    },
    /// `at` is the first byte not decoded; `left` is what the chunk still lacks, with the CRLF after it.
    Chunked {
        at: usize,
        left: usize,
    },
    Done,
}

impl Reader {
    /// Reads on in `buffer`, which holds all bytes of the answer so far. True once the answer is complete.
    pub fn advance(&mut self, buffer: &mut [u8]) -> Result<bool, Wrong> {
        if let State::Head = self.state {
            let Some(end) = memmem::find(buffer, b"\r\n\r\n") else {
                return Ok(false);
            };
            self.read_head(&buffer[..end + 2])?;
        }
        match self.state {
            State::Length { end } if buffer.len() > end => return Err(Wrong::Malformed),
            State::Length { end } => {
                self.body_end = buffer.len();
                if buffer.len() == end {
                    self.state = State::Done;
                }
            }
            State::Chunked { .. } => self.read_chunks(buffer)?,
            State::Head | State::Done => {}
        }
        Ok(matches!(self.state, State::Done))
    }

    /// As much of the body as has arrived.
    pub fn body<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        &buffer[self.body_at..self.body_end]
    }

    /// Status line and headers, once they have arrived.
    pub fn head<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        &buffer[..self.body_at]
    }

    pub fn status(&self) -> u16 {
        self.status
    }

    /// `head` ends with the CRLF of its last line.
    fn read_head(&mut self, head: &[u8]) -> Result<(), Wrong> {
        let line = head.strip_prefix(b"HTTP/1.1 ").ok_or(Wrong::Malformed)?;
        self.status = line.get(..3).and_then(decimal).ok_or(Wrong::Malformed)? as u16;
        let mut length = None;
        let mut chunked = false;
        let mut at = memmem::find(head, b"\r\n").ok_or(Wrong::Malformed)? + 2;
        while at < head.len() {
            let end = at + memmem::find(&head[at..], b"\r\n").ok_or(Wrong::Malformed)?;
            let line = &head[at..end];
            // The first letter decides for most headers: this runs for each line of each answer.
            match line.first().map(u8::to_ascii_lowercase) {
                Some(b'c') => {
                    if let Some(value) = value_of(line, b"content-length") {
                        length = Some(decimal(value).ok_or(Wrong::Malformed)?);
                    } else if let Some(value) = value_of(line, b"connection") {
                        self.close = value.eq_ignore_ascii_case(b"close");
                    } else if let Some(value) = value_of(line, b"content-type") {
                        const STREAM: &[u8] = b"text/event-stream";
                        self.events = value.get(..STREAM.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(STREAM));
                    }
                }
                Some(b't') => chunked |= value_of(line, b"transfer-encoding").is_some(),
                _ => {}
            }
            at = end + 2;
        }
        self.body_at = head.len() + 2;
        self.body_end = self.body_at;
        self.state = match (length, chunked) {
            (Some(length), false) => State::Length { end: self.body_at + length },
            (None, true) => State::Chunked { at: self.body_at, left: 0 },
            _ => return Err(Wrong::Malformed),
        };
        Ok(())
    }

    fn read_chunks(&mut self, buffer: &mut [u8]) -> Result<(), Wrong> {
        let State::Chunked { mut at, mut left } = self.state else {
            return Ok(());
        };
        while at < buffer.len() {
            if left == 0 {
                let Some(line) = memmem::find(&buffer[at..], b"\r\n") else {
                    break;
                };
                let size = hexadecimal(&buffer[at..at + line]).ok_or(Wrong::Malformed)?;
                if size == 0 {
                    // Nothing in this system sends trailers: the last chunk is these two line ends.
                    let rest = &buffer[at + line + 2..];
                    if rest.len() < 2 {
                        break;
                    }
                    if rest != b"\r\n" {
                        return Err(Wrong::Malformed);
                    }
                    self.state = State::Done;
                    return Ok(());
                }
                at += line + 2;
                left = size + 2;
            }
            let take = left.min(buffer.len() - at);
            let payload = take.min(left.saturating_sub(2));
            buffer.copy_within(at..at + payload, self.body_end);
            self.body_end += payload;
            at += take;
            left -= take;
        }
        self.state = State::Chunked { at, left };
        Ok(())
    }
}

fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    found.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

fn decimal(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 12 {
        return None;
    }
    digits.iter().try_fold(0, |value, digit| digit.is_ascii_digit().then(|| value * 10 + (digit - b'0') as usize))
}

fn hexadecimal(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    digits.iter().try_fold(0, |value, digit| Some(value << 4 | (*digit as char).to_digit(16)? as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds an answer in pieces of every size; the result must not depend on where it was cut.
    fn read(answer: &[u8]) -> Result<(u16, Vec<u8>), Wrong> {
        let mut whole = None;
        for piece in 1..=answer.len() {
            let (mut reader, mut buffer) = (Reader::default(), Vec::new());
            let mut result = Ok(false);
            for bytes in answer.chunks(piece) {
                buffer.extend_from_slice(bytes);
                result = reader.advance(&mut buffer);
                if result != Ok(false) {
                    break;
                }
            }
            let result = match result {
                Ok(true) => Ok((reader.status(), reader.body(&buffer).to_vec())),
                Ok(false) => Err(Wrong::Closed),
                Err(wrong) => Err(wrong),
            };
            assert_eq!(whole.get_or_insert(result.clone()), &result, "in pieces of {piece}");
        }
        whole.unwrap()
    }

    #[test]
    fn a_length_and_chunks_give_the_same_body() {
        let fixed = b"HTTP/1.1 200 OK\r\nContent-Type: x\r\nCONTENT-LENGTH:  5\r\n\r\nhello";
        assert_eq!(read(fixed), Ok((200, b"hello".to_vec())));
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n";
        assert_eq!(read(chunked), Ok((200, b"hello".to_vec())));
    }

    #[test]
    fn an_empty_body_is_an_answer() {
        assert_eq!(read(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"), Ok((202, vec![])));
    }

    #[test]
    fn what_is_cut_short_or_too_long_is_not_an_answer() {
        assert_eq!(read(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello"), Err(Wrong::Closed));
        assert_eq!(read(b"HTTP/1.1 200 OK\r\n\r\n"), Err(Wrong::Malformed));
        assert_eq!(read(b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n"), Err(Wrong::Malformed));
        let both = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(read(both), Err(Wrong::Malformed));
    }

    #[test]
    fn an_event_stream_is_noticed() {
        let mut answer =
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream;charset=utf-8\r\ncontent-length: 0\r\n\r\n".to_vec();
        let mut reader = Reader::default();
        assert_eq!(reader.advance(&mut answer), Ok(true));
        assert!(reader.events);
    }

    #[test]
    fn close_is_noticed() {
        let mut answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_vec();
        let mut reader = Reader::default();
        assert_eq!(reader.advance(&mut answer), Ok(true));
        assert!(reader.close);
    }
}
