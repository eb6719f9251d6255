//! What envelope and reply share: reading a few members of a JSON text and leaving the rest alone.
//!
//! The parser is used in its derived form, which checks the whole text and refuses a second copy of
//! any member it names, escaped spellings included. Two things it does not do are done here: it
//! skips containers by recursion, so their depth is bounded first; and it would take an array for an
//! object, its elements for the members in order.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use sonic_rs::LazyValue;
use sonic_rs::error::Category;

use super::McpError;

/// Nesting deeper than this is not looked into; no message of the protocol comes near. Each level is
/// a call of the parser's: 64 of them take less than 16 KiB of stack in a release build, but 3 MiB in
/// a debug build.
pub(super) const DEPTH_MAX: usize = 64;

/// A part of a body, by where it lies: it stays right when the body's buffer moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Of a part of `whole`, found by address; nothing if it is a copy.
    pub(super) fn within(part: &str, whole: &str) -> Option<Self> {
        let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
        let end = start + part.len();
        // `checked` has refused bodies whose offsets do not fit.
        (end <= whole.len()).then_some(Self { start: start as u32, end: end as u32 })
    }

    /// The bytes, out of the body it was found in.
    #[must_use]
    pub fn of(self, body: &[u8]) -> &[u8] {
        &body[self.range()]
    }

    /// As a range of the body.
    #[must_use]
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// A piece of a body's text: where it lies, or a copy. The parser copies strings written with escapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Text {
    Span(Span),
    Copy(Box<str>),
}

impl Text {
    /// Of a value, if it is a string.
    pub(super) fn string(value: &Raw<'_>, whole: &str) -> Result<Option<Self>, McpError> {
        Ok(value.string()?.map(|text| Self::part(text, whole)))
    }

    /// Of a value's JSON text, whatever it is.
    pub(super) fn raw(value: Raw<'_>, whole: &str) -> Self {
        Self::part(value.0, whole)
    }

    fn part(text: Cow<'_, str>, whole: &str) -> Self {
        match Span::within(&text, whole) {
            Some(span) => Self::Span(span),
            None => Self::Copy(text.into()),
        }
    }

    /// The bytes, given the body it was found in.
    pub(super) fn of<'a>(&'a self, body: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Span(span) => span.of(body),
            Self::Copy(text) => text.as_bytes(),
        }
    }
}

/// The JSON text of a value.
pub(super) struct Raw<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        // Not kept as it is: it is twice as large, and has something to drop.
        LazyValue::deserialize(input).map(|value| Self(value.as_raw_cow()))
    }
}

impl Raw<'_> {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// What it says, if it is a string.
    pub(super) fn string(&self) -> Result<Option<Cow<'_, str>>, McpError> {
        let raw = self.as_str();
        if !raw.starts_with('"') {
            Ok(None)
        } else if raw.contains('\\') {
            sonic_rs::from_str(raw).map(Some).map_err(fault)
        } else {
            Ok(Some(Cow::Borrowed(&raw[1..raw.len() - 1])))
        }
    }

    /// Where it lies in `whole`, unless it is a copy.
    pub(super) fn span(&self, whole: &str) -> Option<Span> {
        Span::within(&self.0, whole)
    }
}

/// The body as text that the parser can be let loose on.
pub(super) fn checked(body: &[u8]) -> Result<&str, McpError> {
    if u32::try_from(body.len()).is_err() {
        return Err(McpError::TooLarge);
    }
    // Before the parser: with a lazy field inside, its own check panics (0.5.10).
    let text = std::str::from_utf8(body).map_err(|_| McpError::NotUtf8)?;
    if depth_exceeds(body, DEPTH_MAX) { Err(McpError::TooDeep) } else { Ok(text) }
}

/// Reads the members of a checked text that has to be an object.
pub(super) fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, McpError> {
    if first_byte(text) == Some(b'{') {
        return sonic_rs::from_str(text).map_err(fault);
    }
    validate(text)?;
    Err(McpError::NotAMessage)
}

/// Whether a checked text is one JSON document.
pub(super) fn validate(text: &str) -> Result<(), McpError> {
    sonic_rs::from_str::<IgnoredAny>(text).map(drop).map_err(fault)
}

/// The byte that says what kind of value a text is.
pub(super) fn first_byte(text: &str) -> Option<u8> {
    text.bytes().find(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))
}

fn fault(error: sonic_rs::Error) -> McpError {
    match error.classify() {
        Category::TypeUnmatched => McpError::Members,
        _ => McpError::Syntax,
    }
}

/// A member that is there, be it null: `Option` alone would call null absent.
pub(super) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(input: D) -> Result<Option<T>, D::Error> {
    T::deserialize(input).map(Some)
}

/// A member that is an object and nothing else, or null, which counts as absent.
pub(super) fn inner<'de, D: Deserializer<'de>, T: Deserialize<'de>>(input: D) -> Result<Option<T>, D::Error> {
    struct Members<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
        type Value = Option<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Option<T>, A::Error> {
            T::deserialize(MapAccessDeserializer::new(members)).map(Some)
        }

        fn visit_unit<E>(self) -> Result<Option<T>, E> {
            Ok(None)
        }
    }

    input.deserialize_any(Members(PhantomData))
}

/// Whether brackets outside strings nest deeper than `max`.
///
/// Nearly every message has fewer than `max` opening brackets in all, strings included, and then no
/// second look is needed: counting them is a loop the compiler turns into SIMD.
pub(super) fn depth_exceeds(text: &[u8], max: usize) -> bool {
    opening_brackets(text) > max && nesting_exceeds(text, max)
}

fn opening_brackets(text: &[u8]) -> usize {
    // Blocks short enough for sums of one byte. `[` and `{` differ in the bit 0x20 only.
    let count = |block: &[u8]| block.iter().map(|byte| u8::from(byte | 0x20 == b'{')).sum::<u8>();
    text.chunks(255).map(|block| usize::from(count(block))).sum()
}

fn nesting_exceeds(text: &[u8], max: usize) -> bool {
    let mut depth = 0usize;
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'"' => rest = after_string(rest),
            b'[' | b'{' => {
                depth += 1;
                if depth > max {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// What follows the string whose opening quote lies just before `text`.
fn after_string(text: &[u8]) -> &[u8] {
    let mut rest = text;
    while let Some(at) = memchr::memchr2(b'"', b'\\', rest) {
        if rest[at] == b'"' {
            return &rest[at + 1..];
        }
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One byte after the other, as the definition of depth says.
    fn depth(text: &[u8]) -> usize {
        let (mut depth, mut deepest) = (0usize, 0);
        let (mut in_string, mut escaped) = (false, false);
        for byte in text {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = in_string,
                b'"' => in_string = !in_string,
                b'[' | b'{' if !in_string => depth += 1,
                b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
                _ => {}
            }
            deepest = deepest.max(depth);
        }
        deepest
    }

    #[test]
    fn depth_is_that_of_brackets_outside_strings() {
        let mut random = super::super::random::Random::new(1);
        for _ in 0..20_000 {
            let length = random.below(600);
            let text: Vec<u8> = (0..length).map(|_| *random.of(br#"[[[[{{]}":\\,a 1"#)).collect();
            let max = random.below(20);
            assert_eq!(depth_exceeds(&text, max), depth(&text) > max, "{max} {:?}", String::from_utf8_lossy(&text));
        }
    }

    #[test]
    fn depth_is_counted_over_long_texts() {
        let deep = "[".repeat(70_000);
        assert!(depth_exceeds(deep.as_bytes(), 64));
        let wide = "[],".repeat(70_000);
        assert!(!depth_exceeds(wide.as_bytes(), 1));
        let quoted = format!("\"{deep}\"");
        assert!(!depth_exceeds(quoted.as_bytes(), 0));
    }

    #[test]
    fn a_copy_has_no_span() {
        let whole = String::from("abcdef");
        let copy = String::from("cd");
        assert_eq!(Span::within(&whole[2..4], &whole), Some(Span { start: 2, end: 4 }));
        assert_eq!(Span::within(&copy, &whole), None);
    }
}
