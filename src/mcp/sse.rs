//! Streams of server-sent events (WHATWG HTML, section 9.2): where one event ends, and what is in it.
//! Lines end with LF, CR LF or CR; pieces may be cut anywhere, within CR LF and within the byte
//! order mark.

use memchr::memchr2;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Cuts a stream into lines, piece by piece.
#[derive(Clone, Copy, Debug, Default)]
struct Lines {
    /// Bytes of the byte order mark seen; all three, or past the stream's first byte: done.
    mark: u8,
    /// A line feed would still be part of the last line's end.
    after_return: bool,
}

/// Part of a line.
struct Part<'a> {
    text: &'a [u8],
    /// Whether the line ends here.
    ends: bool,
}

impl Lines {
    /// Takes the next part off the front of a piece; nothing once that is used up.
    fn next<'a>(&mut self, piece: &mut &'a [u8]) -> Option<Part<'a>> {
        if usize::from(self.mark) < BYTE_ORDER_MARK.len()
            && let Some(part) = self.skip_mark(piece)
        {
            return Some(part);
        }
        if self.after_return && !piece.is_empty() {
            self.after_return = false;
            *piece = piece.strip_prefix(b"\n").unwrap_or(piece);
        }
        if piece.is_empty() {
            return None;
        }
        let (text, ends) = match memchr2(b'\n', b'\r', piece) {
            Some(end) => {
                self.after_return = piece[end] == b'\r';
                let text = &piece[..end];
                *piece = &piece[end + 1..];
                (text, true)
            }
            None => (std::mem::take(piece), false),
        };
        Some(Part { text, ends })
    }

    /// Skips the mark. If what looked like its beginning was none, that is the first line's.
    fn skip_mark<'a>(&mut self, piece: &mut &'a [u8]) -> Option<Part<'a>> {
        while let Some(expected) = BYTE_ORDER_MARK.get(usize::from(self.mark)) {
            match piece.split_first() {
                Some((byte, rest)) if byte == expected => {
                    *piece = rest;
                    self.mark += 1;
                }
                Some(_) => {
                    let seen = &BYTE_ORDER_MARK[..usize::from(self.mark)];
                    self.mark = BYTE_ORDER_MARK.len() as u8;
                    return (!seen.is_empty()).then_some(Part { text: seen, ends: false });
                }
                None => return None,
            }
        }
        None
    }

    /// Whether the next byte begins a line, whatever it is.
    fn is_at_start(self) -> bool {
        let within_mark = (1..BYTE_ORDER_MARK.len()).contains(&usize::from(self.mark));
        !self.after_return && !within_mark
    }
}

/// Tells whether a stream that is being relayed stands between two events, where a comment of our
/// own may be put in. A few bytes of state, whatever the stream.
///
/// After a CR it is not known to, until the next byte shows whether a LF belongs to it; so a stream
/// that ends lines with CR alone gets no comments. Before its first byte a stream does stand between
/// events: a byte order mark that came behind our comment would not be one, but no MCP server sends
/// any, while many are silent until they have a result.
#[derive(Clone, Copy, Debug, Default)]
pub struct Boundaries {
    lines: Lines,
    line: Line,
    /// Whether the event has a line already.
    in_event: bool,
}

/// The current line, as far as it has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Line {
    #[default]
    Empty,
    Comment,
    Field,
}

impl Boundaries {
    /// Looks at what is relayed next.
    pub fn feed(&mut self, piece: &[u8]) {
        let mut rest = piece;
        while let Some(part) = self.lines.next(&mut rest) {
            if let (Line::Empty, Some(first)) = (self.line, part.text.first()) {
                self.line = if *first == b':' { Line::Comment } else { Line::Field };
            }
            if part.ends {
                self.in_event = match self.line {
                    Line::Empty => false,
                    Line::Comment => self.in_event,
                    Line::Field => true,
                };
                self.line = Line::Empty;
            }
        }
    }

    /// Whether all that was fed ends between two events.
    #[must_use]
    pub fn between_events(&self) -> bool {
        !self.in_event && self.line == Line::Empty && self.lines.is_at_start()
    }
}

/// Reads the events of a stream, each whole.
#[derive(Debug)]
pub struct EventReader {
    lines: Lines,
    bytes_max: usize,
    /// The current line.
    line: Vec<u8>,
    /// The event's data lines, each with a line feed behind it.
    data: Vec<u8>,
    name: Vec<u8>,
    /// The event has more than `bytes_max` and is being skipped.
    oversized: bool,
}

/// An event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Its type, `message` if it names none.
    pub name: &'a [u8],
    /// Its data lines, joined by line feeds.
    pub data: &'a [u8],
}

impl EventReader {
    /// A reader that skips events whose line or data has more than `bytes_max`.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            lines: Lines::default(),
            bytes_max,
            line: Vec::new(),
            data: Vec::new(),
            name: Vec::new(),
            oversized: false,
        }
    }

    /// Takes the next piece and hands every event that ends in it to `on_event`. Events without data
    /// are none, as the standard has it.
    pub fn feed(&mut self, piece: &[u8], mut on_event: impl FnMut(Event<'_>)) {
        let mut rest = piece;
        while let Some(part) = self.lines.next(&mut rest) {
            // Nothing of a comment is needed, however long it is.
            let is_comment = self.line.first().or(part.text.first()) == Some(&b':');
            self.oversized |= !is_comment && self.line.len() + part.text.len() > self.bytes_max;
            if is_comment || self.oversized {
                // Its first byte is enough to tell the line from an empty one.
                let first = part.text.first().filter(|_| self.line.is_empty());
                self.line.extend(first);
            } else {
                self.line.extend_from_slice(part.text);
            }
            if part.ends {
                self.end_line(&mut on_event);
            }
        }
    }

    fn end_line(&mut self, on_event: &mut impl FnMut(Event<'_>)) {
        if self.line.is_empty() {
            if let (false, Some((_, data))) = (self.oversized, self.data.split_last()) {
                let name: &[u8] = if self.name.is_empty() { b"message" } else { &self.name };
                on_event(Event { name, data });
            }
            self.data.clear();
            self.name.clear();
            self.oversized = false;
        } else if !self.oversized {
            self.read_field();
        }
        self.line.clear();
    }

    fn read_field(&mut self) {
        let (field, value) = match memchr::memchr(b':', &self.line) {
            Some(colon) => (&self.line[..colon], &self.line[colon + 1..]),
            None => (&self.line[..], &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" if self.data.len() + value.len() >= self.bytes_max => self.oversized = true,
            b"data" => {
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            b"event" => {
                self.name.clear();
                self.name.extend_from_slice(value);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;

    fn stands_between(pieces: &[&[u8]]) -> bool {
        let mut boundaries = Boundaries::default();
        for piece in pieces {
            boundaries.feed(piece);
        }
        boundaries.between_events()
    }

    fn events(bytes_max: usize, pieces: &[&[u8]]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut reader = EventReader::new(bytes_max);
        let mut events = Vec::new();
        for piece in pieces {
            reader.feed(piece, |event| events.push((event.name.to_vec(), event.data.to_vec())));
        }
        events
    }

    #[test]
    fn p_051_comments_go_between_events() {
        for text in [
            "",
            "data: a\n\n",
            "data: a\r\n\r\n",
            ": ping\n",
            "data: a\n\n: ping\n",
            "\n",
            "\u{feff}",
            "id: 1\n\n: x\r\n",
        ] {
            assert!(stands_between(&[text.as_bytes()]), "{text:?}");
        }
        for text in [
            "d",
            "data: a",
            "data: a\n",
            "data: a\n: ping\n",
            "id: 1\ndata\n",
            ": pin",
            "data: a\r\n\r",
            "data: a\r\r",
            "data: a\n\n:",
            "\u{feff}data: a\n",
        ] {
            assert!(!stands_between(&[text.as_bytes()]), "{text:?}");
        }
        assert!(!stands_between(&[b"\xef"]) && !stands_between(&[b"\xef", b"\xbb"]));
        assert!(stands_between(&[b"data: a\r\n\r", b"", b"\n"]));
        assert!(!stands_between(&[b"data: a\r\n\r", b"d"]));
    }

    /// By the definition: all lines of the text, and the fate of each.
    fn oracle(text: &[u8]) -> bool {
        let body = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        if body == b"\xef" || body == b"\xef\xbb" || body.ends_with(b"\r") {
            return false;
        }
        let body = String::from_utf8_lossy(body).replace("\r\n", "\n").replace('\r', "\n");
        let mut in_event = false;
        let (lines, last) = body.rsplit_once('\n').unwrap_or(("", &body));
        if body.contains('\n') {
            for line in lines.split('\n') {
                in_event = !line.is_empty() && (in_event || !line.starts_with(':'));
            }
        }
        !in_event && last.is_empty()
    }

    fn cut<'a>(random: &mut Random, text: &'a [u8]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(random.below(rest.len() + 1));
            pieces.push(piece);
            rest = after;
        }
        pieces
    }

    #[test]
    fn boundaries_do_not_depend_on_the_cuts() {
        let mut random = Random::new(8);
        let pieces = ["\n", "\r\n", "\r", "data: x", ":", "data", "\u{feff}", "event: e", "é", "\n\n"];
        for _ in 0..20_000 {
            let text: String = (0..random.below(8)).map(|_| *random.of(&pieces)).collect();
            let text = text.as_bytes();
            assert_eq!(stands_between(&[text]), oracle(text), "{:?}", String::from_utf8_lossy(text));
            assert_eq!(stands_between(&cut(&mut random, text)), oracle(text), "{:?}", String::from_utf8_lossy(text));
            let bytes: Vec<&[u8]> = text.chunks(1).collect();
            assert_eq!(events(100, &bytes), events(100, &[text]));
            assert_eq!(events(100, &cut(&mut random, text)), events(100, &[text]));
        }
    }

    #[test]
    fn events_are_read_at_any_cut() {
        let event = |name: &str, data: &str| (name.as_bytes().to_vec(), data.as_bytes().to_vec());
        let text = concat!(
            "\u{feff}data: a\r\ndata:b\r\rid: 1\ndata:\n\n: c\nevent: e\ndata:  x\nretry: 5\nunknown\n\n",
            "event: gone\n\ndata: y\n\ndata: cut"
        );
        let expected = vec![event("message", "a\nb"), event("message", ""), event("e", " x"), event("message", "y")];
        assert_eq!(events(100, &[text.as_bytes()]), expected);
        for at in 0..text.len() {
            let (one, other) = text.as_bytes().split_at(at);
            assert_eq!(events(100, &[one, other]), expected, "{at}");
        }
    }

    #[test]
    fn an_event_over_the_limit_is_skipped_and_the_next_is_read() {
        let long = "x".repeat(1000);
        let text = format!(
            "data: {long}\n\ndata: a\n\n{}\ndata: b\n\n:{long}\n\ndata: c\n\n",
            "data: 0123456789\n".repeat(20)
        );
        let expected: Vec<_> = ["a", "c"].map(|data| (b"message".to_vec(), data.as_bytes().to_vec())).into();
        let text = text.replace("\n\ndata: b", "\ndata: b");
        assert_eq!(events(64, &[text.as_bytes()]), expected);
        let mut reader = EventReader::new(64);
        let mut count = 0;
        for byte in text.as_bytes().chunks(1) {
            reader.feed(byte, |_| count += 1);
            assert!(reader.line.len() <= 64 && reader.data.len() <= 64 + 1 && reader.name.len() <= 64);
        }
        assert_eq!(count, 2);
    }

    #[test]
    fn a_comment_over_the_limit_costs_no_event() {
        let comment = format!(":{}\n", "x".repeat(1000));
        let text = format!("{comment}data: a\n\nevent: e\n{comment}data: b\n{comment}\n{comment}\ndata: c\n\n");
        let event = |name: &str, data: &str| (name.as_bytes().to_vec(), data.as_bytes().to_vec());
        let expected = vec![event("message", "a"), event("e", "b"), event("message", "c")];
        for size in [1, 7, 64, 65, text.len()] {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            assert_eq!(events(64, &pieces), expected, "{size}");
        }
    }

    #[test]
    fn a_scanner_is_a_few_bytes() {
        assert!(size_of::<Boundaries>() <= 8);
    }
}
