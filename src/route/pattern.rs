//! Path patterns: `/exact`, `/prefix/*`, `/mcp/{backend}`, `/mcp/{backend}/*`.

/// A parsed pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    /// Up to the first thing that varies; the whole path if nothing does.
    literal: String,
    captures: bool,
    /// Literal text between the captured segment and the end or the `*`.
    after: String,
    open: bool,
}

/// What a pattern found behind its literal part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail<'p> {
    /// The `{backend}` segment.
    pub(super) captured: Option<&'p [u8]>,
    /// What `*` stands for, with the slash before it.
    pub(super) rest: &'p [u8],
}

const CAPTURE: &str = "{backend}";

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if !text.starts_with('/') {
            return Err("must begin with /".to_owned());
        }
        let (fixed, open) = match text.strip_suffix("/*") {
            // The slash stays: `/a/*` takes what begins with `/a/`.
            Some(_) => (&text[..text.len() - 1], true),
            None => (text, false),
        };
        let (literal, captures, after) = match fixed.split_once(CAPTURE) {
            Some((before, after)) => (before, true, after),
            None => (fixed, false, ""),
        };
        if captures && !(literal.ends_with('/') && (after.is_empty() || after.starts_with('/'))) {
            return Err("{backend} must be a whole segment".to_owned());
        }
        if [literal, after].iter().any(|part| part.contains(['*', '{', '}', '?', '#'])) {
            return Err("only one {backend} and a closing /* may vary".to_owned());
        }
        Ok(Self { literal: literal.to_owned(), captures, after: after.to_owned(), open })
    }

    pub(super) fn literal(&self) -> &[u8] {
        self.literal.as_bytes()
    }

    pub(super) fn captures(&self) -> bool {
        self.captures
    }

    /// Whether it takes whatever follows a prefix.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    pub(super) fn is_exact(&self) -> bool {
        !self.captures && !self.open
    }

    /// For a path known to begin with the literal part.
    pub(super) fn match_tail<'p>(&self, path: &'p [u8]) -> Option<Tail<'p>> {
        let tail = path.strip_prefix(self.literal.as_bytes())?;
        let (captured, tail) = if self.captures {
            let end = memchr::memchr(b'/', tail).unwrap_or(tail.len());
            let (segment, tail) = tail.split_at(end);
            (Some(segment), tail.strip_prefix(self.after.as_bytes())?)
        } else {
            (None, tail)
        };
        match (self.open, tail) {
            // `rest` begins with the slash that ended the fixed part.
            (true, _) => Some(Tail { captured, rest: &path[path.len() - tail.len() - 1..] }),
            (false, []) => Some(Tail { captured, rest: &[] }),
            (false, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail<'p>(pattern: &str, path: &'p str) -> Option<(Option<&'p str>, &'p str)> {
        let text = |bytes: &'p [u8]| std::str::from_utf8(bytes).unwrap();
        Pattern::parse(pattern)
            .unwrap()
            .match_tail(path.as_bytes())
            .map(|tail| (tail.captured.map(text), text(tail.rest)))
    }

    #[test]
    fn each_shape_matches_what_it_says() {
        assert_eq!(tail("/mcp", "/mcp"), Some((None, "")));
        assert_eq!(tail("/mcp", "/mcp/"), None);
        assert_eq!(tail("/a/*", "/a/"), Some((None, "/")));
        assert_eq!(tail("/a/*", "/a/b/c"), Some((None, "/b/c")));
        assert_eq!(tail("/a/*", "/a"), None);
        assert_eq!(tail("/*", "/x"), Some((None, "/x")));
        assert_eq!(tail("/mcp/{backend}", "/mcp/w"), Some((Some("w"), "")));
        assert_eq!(tail("/mcp/{backend}", "/mcp/w/x"), None);
        assert_eq!(tail("/{backend}/mcp", "/w/mcp"), Some((Some("w"), "")));
        assert_eq!(tail("/{backend}/mcp", "/w/other"), None);
        assert_eq!(tail("/mcp/{backend}/*", "/mcp/w/x/y"), Some((Some("w"), "/x/y")));
    }

    #[test]
    fn other_shapes_are_refused() {
        for text in
            ["mcp", "", "/a{backend}", "/{backend}b", "/{backend}/{backend}", "/a/*/b", "/a*", "/{name}", "/a?b"]
        {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
    }
}
