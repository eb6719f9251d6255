//! Heads in the form that nearly all have, read in one pass.
//!
//! The form is narrower than the grammar: a usual method, lines that end with CRLF, at most one space behind a
//! colon, values of printable ASCII with no space at either end. What differs in a byte, breaks a rule, or has
//! not come whole gets no verdict here: `head` has httparse read it, and says what is wrong with it. So what is
//! accepted here must be the same head for httparse; the tests of `head` and the fuzz targets hold it to that.
//!
//! Why it is our own: to tokenise a head first and then to look at each field took 4,500 instructions for the
//! two heads of a call, of 16,000; in one pass it is 3,500, and a call costs 0.97 of the CPU with one
//! connection, 0.97 to 0.99 with 32, 0.98 with 256.

use std::ops::Range;

use super::fields::{Fields, is_token};
use super::{FieldKind, Method, Version};

/// The first line of a request, in ranges of the buffer.
pub(super) struct RequestLine {
    pub(super) method: Method,
    pub(super) method_text: Range<usize>,
    pub(super) target: Range<usize>,
    pub(super) version: Version,
    /// Where the next line begins.
    pub(super) end: usize,
}

/// The first line of an answer, in ranges of the buffer.
pub(super) struct StatusLine {
    pub(super) version: Version,
    pub(super) status: u16,
    pub(super) reason: Range<usize>,
    /// Where the next line begins.
    pub(super) end: usize,
}

/// Reads a request's first line.
pub(super) fn request_line(bytes: &[u8]) -> Option<RequestLine> {
    let (method, length) = match bytes {
        [b'P', b'O', b'S', b'T', b' ', ..] => (Method::Post, 4),
        [b'G', b'E', b'T', b' ', ..] => (Method::Get, 3),
        [b'D', b'E', b'L', b'E', b'T', b'E', b' ', ..] => (Method::Delete, 6),
        _ => return None,
    };
    let start = length + 1;
    let target = start..start + run::<b'!'>(&bytes[start..]);
    let [b' ', b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor, ..] = &bytes[target.end..] else {
        return None;
    };
    let end = line_end(bytes, target.end + " HTTP/1.1".len())?;
    let line = RequestLine { method, method_text: 0..length, version: version_of(*minor)?, end, target };
    (!line.target.is_empty()).then_some(line)
}

/// Reads an answer's first line, if it gives a reason.
pub(super) fn status_line(bytes: &[u8]) -> Option<StatusLine> {
    let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor, b' ', status @ .., b' '] = bytes.get(..13)? else {
        return None;
    };
    let digit = |sum: u16, digit: &u8| digit.is_ascii_digit().then(|| 10 * sum + u16::from(digit - b'0'));
    let status = status.iter().try_fold(0, digit).filter(|status| (100..600).contains(status))?;
    let reason = 13..13 + run::<b' '>(&bytes[13..]);
    let line = StatusLine { version: version_of(*minor)?, status, end: line_end(bytes, reason.end)?, reason };
    (!line.reason.is_empty()).then_some(line)
}

/// Reads the lines of fields that begin at `at`, of which there may be `fields_max`, and the empty one behind
/// them. Gives the head's end.
pub(super) fn fields(
    bytes: &[u8],
    mut at: usize,
    version: Version,
    fields_max: usize,
    fields: &mut Fields,
) -> Option<usize> {
    fields.begin(version);
    let mut left = fields_max;
    loop {
        if let Some(end) = line_end(bytes, at) {
            return fields.end(bytes).is_ok().then_some(end);
        }
        left = left.checked_sub(1)?;
        let name = at..at + colon(&bytes[at..])?;
        let kind = FieldKind::of(&bytes[name.clone()]);
        // The names that are known are of the right bytes.
        if kind == FieldKind::Other && !is_token(&bytes[name.clone()]) {
            return None;
        }
        let start = name.end + if bytes.get(name.end + 1) == Some(&b' ') { 2 } else { 1 };
        let text = bytes.get(start..)?;
        let value = start..start + run::<b' '>(text);
        let text = &text[..value.len()];
        if text.first()? == &b' ' || text.last()? == &b' ' {
            return None;
        }
        at = line_end(bytes, value.end)?;
        fields.add(kind, name.into(), value.into(), text).ok()?;
    }
}

/// The end of a line that has nothing more from `at` on.
fn line_end(bytes: &[u8], at: usize) -> Option<usize> {
    (bytes.get(at..at + 2)? == b"\r\n").then_some(at + 2)
}

fn version_of(digit: u8) -> Option<Version> {
    matches!(digit, b'0' | b'1').then(|| Version::of(digit - b'0'))
}

/// How many bytes at the beginning are printable ASCII from `FROM` on.
fn run<const FROM: u8>(text: &[u8]) -> usize {
    const { assert!(FROM <= 0x7f) }
    // A byte's highest bit is set by its own, by a borrow because it is below FROM, and by one because it is DEL. The
    // borrow goes on into bytes above, so only the lowest bit that is set is to be believed: the first.
    first(text, |word| word | word.wrapping_sub(each(FROM)) | (word ^ each(0x7f)).wrapping_sub(each(1)))
        .unwrap_or(text.len())
}

/// Where the first colon is.
fn colon(text: &[u8]) -> Option<usize> {
    first(text, |word| {
        let differs = word ^ each(b':');
        !differs & differs.wrapping_sub(each(1))
    })
}

/// The first byte whose highest bit is set when eight bytes at a time have been through `mark`: the words of
/// a head are short, and a search that is made for long texts takes longer to begin.
fn first(text: &[u8], mark: impl Fn(u64) -> u64) -> Option<usize> {
    let marks = |word: [u8; 8]| mark(u64::from_le_bytes(word)) & each(0x80);
    let place = |marks: u64| marks.trailing_zeros() as usize / 8;
    let (words, rest) = text.as_chunks();
    for (index, word) in words.iter().enumerate() {
        let marks = marks(*word);
        if marks != 0 {
            return Some(8 * index + place(marks));
        }
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let place = place(marks(last));
    (place < rest.len()).then_some(8 * words.len() + place)
}

/// A word of eight times this byte.
const fn each(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_is_found_wherever_it_stands_and_whatever_stands_behind_it() {
        for length in 0..20 {
            for place in 0..length {
                for byte in 0..=u8::MAX {
                    for rest in [b'a', b'!', b' ', b':', 0, 0x1f, 0x7f, 0x80, 0xff] {
                        let mut text = vec![b'z'; length];
                        text[place..].fill(rest);
                        text[place] = byte;
                        let position = |is: fn(u8) -> bool| text.iter().position(|byte| is(*byte));
                        let ends = (
                            position(|byte| !(b'!'..=b'~').contains(&byte)),
                            position(|byte| !(b' '..=b'~').contains(&byte)),
                        );
                        assert_eq!(run::<b'!'>(&text), ends.0.unwrap_or(length), "{}", text.escape_ascii());
                        assert_eq!(run::<b' '>(&text), ends.1.unwrap_or(length), "{}", text.escape_ascii());
                        assert_eq!(colon(&text), position(|byte| byte == b':'), "{}", text.escape_ascii());
                    }
                }
            }
        }
    }
}
