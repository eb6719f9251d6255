//! What envelope and reply share: reading a few members of a JSON text and leaving the rest alone.
//!
//! One pass checks the whole text by the grammar of RFC 8259 and keeps where the wanted members lie.
//! It is a loop, so that no depth of nesting costs stack, and copies nothing. A second copy of a wanted
//! member, escaped spellings included, is refused: whoever reads behind us may take the other one.
//!
//! Own code, because the derived form of a JSON library had to be mended from outside in each of these
//! points (recursion, arrays taken for objects, copies of escaped strings, a panic on bad UTF-8), and
//! took 1.4 times the instructions; 4 times for what a request asks, which it read a second time.

use std::borrow::Cow;
use std::ops::Range;

use super::McpError;

/// Nesting deeper than this is refused; no message of the protocol comes near, and who reads behind us
/// may recurse.
pub(super) const DEPTH_MAX: u32 = 64;

/// A part of a body, by where it lies: it stays right when the body's buffer moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
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

    /// What the value says, if it is a string: without its quotes, and decoded.
    pub(super) fn string(self, body: &[u8]) -> Result<Option<Cow<'_, [u8]>>, McpError> {
        match self.of(body) {
            [b'"', text @ .., b'"'] if memchr::memchr(b'\\', text).is_none() => Ok(Some(Cow::Borrowed(text))),
            quoted @ [b'"', ..] => decoded(quoted).map(|text| Some(Cow::Owned(text))),
            _ => Ok(None),
        }
    }

    /// Whether the value is an object.
    pub(super) fn is_object(self, body: &[u8]) -> bool {
        self.of(body).starts_with(b"{")
    }
}

/// What a string with escapes says. Fails for half a surrogate pair, which is no text.
fn decoded(quoted: &[u8]) -> Result<Vec<u8>, McpError> {
    serde_json::from_slice::<String>(quoted).map(String::into_bytes).map_err(|_| McpError::Syntax)
}

/// A string's text: where it lies without its quotes, or a decoded copy if it was written with escapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Text {
    Span(Span),
    Copy(Box<[u8]>),
}

impl Text {
    /// Of a value, if it is a string.
    pub(super) fn string(value: Span, body: &[u8]) -> Result<Option<Self>, McpError> {
        Ok(value.string(body)?.map(|text| match text {
            Cow::Borrowed(_) => Self::Span(Span { start: value.start + 1, end: value.end - 1 }),
            Cow::Owned(text) => Self::Copy(text.into()),
        }))
    }

    /// The bytes, given the body it was found in.
    pub(super) fn of<'a>(&'a self, body: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Span(span) => span.of(body),
            Self::Copy(text) => text,
        }
    }
}

/// Wanted members of an object.
pub(super) trait Members {
    /// Gets a member's name, decoded, and has the scanner pass its value.
    fn member(&mut self, name: &[u8], value: &mut Scanner<'_>) -> Result<(), McpError>;
}

/// Reads the members of a body that has to be one object.
pub(super) fn object(body: &[u8], members: &mut impl Members) -> Result<(), McpError> {
    let mut scanner = Scanner::new(body)?;
    if scanner.token()? == b'{' {
        scanner.object(members)?;
        return scanner.end();
    }
    scanner.skip()?;
    scanner.end()?;
    Err(McpError::NotAMessage)
}

/// Hands over the elements of a body that has to be one array, each when all of the body is known to be
/// JSON. No list of them: of small ones it would be many times as large as the body.
pub(super) fn array(body: &[u8], mut element: impl FnMut(&[u8]) -> Result<(), McpError>) -> Result<(), McpError> {
    let mut scanner = Scanner::new(body)?;
    scanner.skip()?;
    scanner.end()?;
    scanner.at = 0;
    if scanner.token()? != b'[' {
        return Err(McpError::NotAMessage);
    }
    scanner.open()?;
    if scanner.token()? == b']' {
        return Ok(());
    }
    loop {
        element(scanner.value()?.of(body))?;
        if !scanner.goes_on(b']')? {
            return Ok(());
        }
    }
}

/// A walk through a JSON text. A fault leaves it where it was found.
pub(super) struct Scanner<'a> {
    text: &'a [u8],
    /// First byte not passed.
    at: usize,
    /// How many containers are open around it.
    depth: u32,
}

impl<'a> Scanner<'a> {
    fn new(body: &'a [u8]) -> Result<Self, McpError> {
        if u32::try_from(body.len()).is_err() {
            return Err(McpError::TooLarge);
        }
        // Nearly every message is ASCII, which is seen much faster.
        if !body.is_ascii() && std::str::from_utf8(body).is_err() {
            return Err(McpError::NotUtf8);
        }
        Ok(Self { text: body, at: 0, depth: 0 })
    }

    /// Passes a value and keeps where it lies, unless there was one before.
    pub(super) fn once(&mut self, place: &mut Option<Span>) -> Result<(), McpError> {
        let value = self.value()?;
        if place.replace(value).is_some() { Err(McpError::Members) } else { Ok(()) }
    }

    /// As [`Scanner::once`] for an object, whose members are read too, or null, which has none.
    pub(super) fn inner(&mut self, place: &mut Option<Span>, members: &mut impl Members) -> Result<(), McpError> {
        if place.is_some() {
            return Err(McpError::Members);
        }
        let value = match self.token()? {
            b'{' => {
                let start = self.at;
                self.object(members)?;
                self.since(start)
            }
            first => {
                let value = self.value()?;
                if first != b'n' {
                    return Err(McpError::Members);
                }
                value
            }
        };
        *place = Some(value);
        Ok(())
    }

    /// Passes a value that nobody wants.
    pub(super) fn skip(&mut self) -> Result<(), McpError> {
        self.value().map(drop)
    }

    /// Passes a value of any kind.
    fn value(&mut self) -> Result<Span, McpError> {
        self.token()?;
        let start = self.at;
        let outside = self.depth;
        // What is open inside this value, the innermost in the lowest bit: an object or else an array.
        let mut objects = 0u64;
        loop {
            match self.token()? {
                bracket @ (b'{' | b'[') => {
                    self.open()?;
                    objects = objects << 1 | u64::from(bracket == b'{');
                    // Both closing brackets are two behind their opening ones.
                    if self.token()? != bracket + 2 {
                        if bracket == b'{' {
                            self.name()?;
                        }
                        continue;
                    }
                    self.close();
                    objects >>= 1;
                }
                first => self.scalar(first)?,
            }
            // Behind a value: what closes with it, and whether another follows.
            loop {
                if self.depth == outside {
                    return Ok(self.since(start));
                }
                let in_object = objects & 1 == 1;
                if self.goes_on(if in_object { b'}' } else { b']' })? {
                    if in_object {
                        self.name()?;
                    }
                    break;
                }
                objects >>= 1;
            }
        }
    }

    /// Reads the object whose opening brace is next.
    fn object(&mut self, members: &mut impl Members) -> Result<(), McpError> {
        self.open()?;
        if self.token()? == b'}' {
            self.close();
            return Ok(());
        }
        loop {
            let (name, has_escapes) = self.name()?;
            match has_escapes {
                false => members.member(&self.text[name.range()][1..name.range().len() - 1], self)?,
                true => members.member(&decoded(name.of(self.text))?, self)?,
            }
            if !self.goes_on(b'}')? {
                return Ok(());
            }
        }
    }

    /// Behind a value in a container: passes a comma, or the bracket that closes it.
    fn goes_on(&mut self, closing: u8) -> Result<bool, McpError> {
        match self.token()? {
            b',' => {
                self.at += 1;
                Ok(true)
            }
            byte if byte == closing => {
                self.close();
                Ok(false)
            }
            _ => Err(McpError::Syntax),
        }
    }

    /// The byte that the next token begins with.
    fn token(&mut self) -> Result<u8, McpError> {
        while let Some(byte) = self.text.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Ok(*byte);
            }
            self.at += 1;
        }
        Err(McpError::Syntax)
    }

    /// Nothing but whitespace is left.
    fn end(&mut self) -> Result<(), McpError> {
        if self.token().is_ok() { Err(McpError::Syntax) } else { Ok(()) }
    }

    fn since(&self, start: usize) -> Span {
        // `new` has refused bodies whose offsets do not fit.
        Span { start: start as u32, end: self.at as u32 }
    }

    fn open(&mut self) -> Result<(), McpError> {
        self.at += 1;
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(McpError::TooDeep) } else { Ok(()) }
    }

    fn close(&mut self) {
        self.at += 1;
        self.depth -= 1;
    }

    /// Passes a member's name, and the colon behind it. The name with its quotes, and whether it has escapes.
    fn name(&mut self) -> Result<(Span, bool), McpError> {
        if self.token()? != b'"' {
            return Err(McpError::Syntax);
        }
        let start = self.at;
        let has_escapes = self.string()?;
        let name = self.since(start);
        if self.token()? != b':' {
            return Err(McpError::Syntax);
        }
        self.at += 1;
        Ok((name, has_escapes))
    }

    fn scalar(&mut self, first: u8) -> Result<(), McpError> {
        match first {
            b'"' => self.string().map(drop),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            _ => Err(McpError::Syntax),
        }
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), McpError> {
        if !self.text[self.at..].starts_with(word) {
            return Err(McpError::Syntax);
        }
        self.at += word.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(), McpError> {
        self.take(b"-");
        if !self.take(b"0") {
            self.digits()?;
        }
        if self.take(b".") {
            self.digits()?;
        }
        if self.take(b"eE") {
            self.take(b"+-");
            self.digits()?;
        }
        Ok(())
    }

    /// Passes the next byte if it is one of these.
    fn take(&mut self, any: &[u8]) -> bool {
        let found = self.text.get(self.at).is_some_and(|byte| any.contains(byte));
        self.at += usize::from(found);
        found
    }

    fn digits(&mut self) -> Result<(), McpError> {
        let count = self.text[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        if count == 0 { Err(McpError::Syntax) } else { Ok(()) }
    }

    /// Passes a string, quotes included; whether it has escapes.
    fn string(&mut self) -> Result<bool, McpError> {
        let mut has_escapes = false;
        let mut rest = &self.text[self.at + 1..];
        loop {
            rest = &rest[plain_bytes(rest)..];
            match rest {
                [b'"', behind @ ..] => {
                    self.at = self.text.len() - behind.len();
                    return Ok(has_escapes);
                }
                [b'\\', ..] => {
                    has_escapes = true;
                    rest = &rest[escape_bytes(rest)?..];
                }
                _ => return Err(McpError::Syntax),
            }
        }
    }
}

/// The length of the escape that `text` begins with.
fn escape_bytes(text: &[u8]) -> Result<usize, McpError> {
    match text {
        [_, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => Ok(2),
        [_, b'u', digits @ ..] if digits.len() >= 4 && digits[..4].iter().all(u8::is_ascii_hexdigit) => Ok(6),
        _ => Err(McpError::Syntax),
    }
}

/// How many bytes at the start of `text` stand for themselves in a string: no quote, no backslash, no
/// control character.
fn plain_bytes(text: &[u8]) -> usize {
    let mut at = 0;
    while at < 32
        && let Some(word) = text[at..].first_chunk::<8>()
    {
        let special = special_bytes(u64::from_le_bytes(*word));
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += word.len();
    }
    // A long string: two passes of SIMD are less than one in words.
    let rest = &text[at..];
    let plain = &rest[..memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len())];
    match plain.iter().fold(u8::MAX, |least, byte| least.min(*byte)) {
        b' '.. => at + plain.len(),
        _ => at + plain.iter().take_while(|byte| **byte >= b' ').count(),
    }
}

/// Marks the first special byte of eight in its highest bit, and some of those behind it.
///
/// A byte minus `n` borrows into its highest bit if it is below `n`, unless it had that bit before. The
/// borrow may mark the byte behind a marked one too, never one in front.
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 0xff;
    let below = |word: u64, n: u8| word.wrapping_sub(ONES * u64::from(n)) & !word;
    let equals = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    (below(word, b' ') | equals(b'"') | equals(b'\\')) & (ONES << 7)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::random::{Random, json_text, value};
    use super::*;

    fn scan(text: &[u8]) -> Result<(), McpError> {
        let mut scanner = Scanner::new(text)?;
        scanner.skip()?;
        scanner.end()
    }

    /// Two members, each of them once.
    #[derive(Default)]
    struct Two {
        a: Option<Span>,
        b: Option<Span>,
    }

    impl Members for Two {
        fn member(&mut self, name: &[u8], value: &mut Scanner<'_>) -> Result<(), McpError> {
            match name {
                b"a" => value.once(&mut self.a),
                b"b" => value.once(&mut self.b),
                _ => value.skip(),
            }
        }
    }

    #[test]
    fn the_grammar_is_that_of_json() {
        for text in [
            "0",
            "-0",
            "10",
            "-1.50",
            "1e5",
            "1E+05",
            "2e-0",
            "true",
            "false",
            "null",
            "\"\"",
            "[]",
            "{}",
            "[[],{}]",
            " [ 1 , 2 ] ",
            "{\"a\" : {\"b\":[null]}, \"\":0}",
            "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00aF\"",
            "\"\u{7f}é\"",
        ] {
            assert_eq!(scan(text.as_bytes()), Ok(()), "{text}");
        }
        for text in [
            "",
            "-",
            "01",
            "+1",
            ".5",
            "1.",
            "1e",
            "1e+",
            "0x1",
            "--1",
            "tru",
            "True",
            "nul",
            "NaN",
            "\"",
            "\"\\",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\\u123",
            "\"\n\"",
            "\"\u{1f}\"",
            "'a'",
            "[",
            "]",
            "[1",
            "[1,",
            "[,1]",
            "[1,]",
            "[1 2]",
            "[1}",
            "{",
            "}",
            "{1:2}",
            "{a:1}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\":1 \"b\":2}",
            "{\"a\":1]",
            "1 2",
            "{}{}",
            "\u{a0}1",
            "1\u{0}",
        ] {
            assert_eq!(scan(text.as_bytes()), Err(McpError::Syntax), "{text}");
        }
    }

    /// What serde_json takes is taken, with the same members; what it refuses is refused, but for
    /// numbers too large for it and halves of surrogate pairs, which nobody here decodes.
    #[test]
    fn verdicts_are_those_of_an_oracle() {
        let mut random = Random::new(1);
        let bytes = br#"{}[]":,\ue01-.truefalsn "#;
        let (mut good, mut bad) = (0, 0);
        for _ in 0..20_000 {
            let whole = value(&mut random, 4);
            let mut text = json_text(&mut random, &whole).into_bytes();
            if random.once_in(2) {
                let at = random.below(text.len());
                match random.below(3) {
                    0 => text.truncate(at),
                    1 => text[at] = *random.of(bytes),
                    _ => text.insert(at, *random.of(bytes)),
                }
            }
            let ours = scan(&text);
            match serde_json::from_slice::<Value>(&text) {
                Ok(_) => {
                    good += 1;
                    assert_eq!(ours, Ok(()), "{}", String::from_utf8_lossy(&text));
                }
                Err(error) => {
                    bad += 1;
                    let reason = error.to_string();
                    let is_known =
                        ["surrogate", "out of range", "hex escape"].iter().any(|known| reason.contains(known));
                    assert!(ours.is_err() || is_known, "{reason}: {}", String::from_utf8_lossy(&text));
                }
            }
        }
        assert!(good > 10_000 && bad > 3_000, "{good} {bad}");
    }

    #[test]
    fn members_are_found_by_what_their_names_say() {
        let body = br#" {"x":[{"a":1}],"\u0061": "\\" ,"b":{"b":2}} "#;
        let mut two = Two::default();
        assert_eq!(object(body, &mut two), Ok(()));
        let text = |span: Option<Span>| span.map(|span| std::str::from_utf8(span.of(body)).expect("UTF-8"));
        assert_eq!((text(two.a), text(two.b)), (Some(r#""\\""#), Some(r#"{"b":2}"#)));
        assert_eq!(two.a.expect("a").string(body).expect("text").as_deref(), Some(&b"\\"[..]));
        for twice in [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":1}"#, r#"{"b":null,"a":1,"b":null}"#] {
            assert_eq!(object(twice.as_bytes(), &mut Two::default()), Err(McpError::Members), "{twice}");
        }
    }

    #[test]
    fn elements_are_the_whole_array() {
        let of = |text: &str| {
            let mut elements = Vec::new();
            array(text.as_bytes(), |element| {
                elements.push(String::from_utf8(element.to_vec()).expect("UTF-8"));
                Ok(())
            })
            .map(|()| elements)
        };
        assert_eq!(of("[]"), Ok(vec![]));
        assert_eq!(of(r#" [ 1 ,[2, 3],{"a":[]}] "#), Ok(vec!["1".into(), "[2, 3]".into(), r#"{"a":[]}"#.into()]));
        assert_eq!(of("{}"), Err(McpError::NotAMessage));
        for text in ["[", "[1", "[1,]", "[1]]", "[1]x", "[}"] {
            assert_eq!(of(text), Err(McpError::Syntax), "{text}");
        }
        let mut seen = 0;
        let count = |_: &[u8]| {
            seen += 1;
            Err(McpError::Id)
        };
        assert_eq!((array(b"[1,2]", count), seen), (Err(McpError::Id), 1));
    }

    #[test]
    fn depth_is_that_of_brackets_outside_strings() {
        let nested =
            |depth: usize| ["[{\"a\":\"[[[\",\"b\":".repeat(depth / 2), "1".into(), "}]".repeat(depth / 2)].concat();
        assert_eq!(scan(nested(64).as_bytes()), Ok(()));
        assert_eq!(scan(nested(66).as_bytes()), Err(McpError::TooDeep));
        let wide = format!("[{}]", "[],{},".repeat(70_000) + "0");
        assert_eq!(scan(wide.as_bytes()), Ok(()));
        assert_eq!(scan("[".repeat(70_000).as_bytes()), Err(McpError::TooDeep));
        // Members that are read count like those that are skipped.
        let mut two = Two::default();
        let body = format!("{{\"a\":{}1{}}}", "[".repeat(63), "]".repeat(63));
        assert_eq!(object(body.as_bytes(), &mut two), Ok(()));
        let body = format!("{{\"a\":{}1{}}}", "[".repeat(64), "]".repeat(64));
        assert_eq!(object(body.as_bytes(), &mut Two::default()), Err(McpError::TooDeep));
    }

    fn is_special(byte: u8) -> bool {
        byte < b' ' || byte == b'"' || byte == b'\\'
    }

    /// Every length and place, so that each way of looking meets each kind of byte.
    #[test]
    fn special_bytes_are_found_where_they_are() {
        for length in 0..45 {
            let mut text = vec![b'a'; length];
            assert_eq!(plain_bytes(&text), length);
            for at in 0..length {
                for byte in 0..=255 {
                    text[at] = byte;
                    let expected = if is_special(byte) { at } else { length };
                    assert_eq!(plain_bytes(&text), expected, "{byte} at {at} of {length}");
                }
                text[at] = *[b'a', 0x80, 0xff, b' ', b'!', b'#', b'[', b']'].get(at % 8).unwrap_or(&b'a');
            }
        }
        let mut random = Random::new(2);
        for _ in 0..20_000 {
            let text: Vec<u8> =
                (0..random.below(80)).map(|_| if random.once_in(9) { random.next() as u8 } else { b'~' }).collect();
            let expected = text.iter().position(|byte| is_special(*byte)).unwrap_or(text.len());
            assert_eq!(plain_bytes(&text), expected);
        }
    }
}
