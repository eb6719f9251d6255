//! Files, lines and keys: where a fault is, and where faults are gathered.

use std::cell::RefCell;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::error::Fault;
use super::reference::join;
use super::text::{Checked, Problem, Variables, quote_key};

/// One file.
pub(super) struct Source {
    pub(super) path: PathBuf,
    text: String,
    /// Offset of each line's first byte.
    lines: Vec<usize>,
}

impl Source {
    pub(super) fn new(path: &Path, text: String) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(starts).collect();
        Self { path: path.to_owned(), text, lines }
    }

    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Where relative paths begin.
    pub(super) fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// Counted from 1.
    fn line_at(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset)
    }

    fn line_text(&self, line: usize) -> &str {
        let end = self.lines.get(line).copied().unwrap_or(self.text.len());
        self.text[self.lines[line - 1]..end].trim()
    }

    /// An earlier `[table]` line that reads as this one does.
    fn same_header_before(&self, line: usize) -> Option<usize> {
        let header = self.line_text(line);
        (1..line).find(|earlier| header.starts_with('[') && self.line_text(*earlier) == header)
    }
}

/// What all reads share: where variables come from and where faults go.
pub(super) struct Context<'a> {
    pub(super) variables: Variables<'a>,
    pub(super) faults: RefCell<Vec<Fault>>,
}

impl<'a> Context<'a> {
    pub(super) fn new(variables: Variables<'a>) -> Self {
        Self { variables, faults: RefCell::default() }
    }

    /// The tree of a file; `None` if it is no TOML, since half a tree would bring faults of its own.
    pub(super) fn parse<'s>(&self, source: &'s Source) -> Option<DeTable<'s>> {
        let (tree, mut errors) = DeTable::parse_recoverable(&source.text);
        errors.sort_by_key(|error| error.span().map(|span| span.start));
        let mut last_line = 0;
        for error in &errors {
            let span = error.span().unwrap_or_default();
            // An empty span tells what is missing behind the character before it.
            let line = source.line_at(if span.is_empty() { span.start.saturating_sub(1) } else { span.start });
            // The first error of a line explains the others.
            if line != last_line {
                self.syntax_fault(source, line, span, error.message());
            }
            last_line = line;
        }
        errors.is_empty().then(|| tree.into_inner())
    }

    fn syntax_fault(&self, source: &Source, line: usize, span: Range<usize>, message: &str) {
        let place = Place::of_file(self, source, line);
        if message != "duplicate key" {
            return place.fault(format!("is not TOML: {message}"), "mend the syntax; see https://toml.io");
        }
        let first = source.same_header_before(line).map(|first| format!(", first on line {first}")).unwrap_or_default();
        let key = source.text.get(span).unwrap_or_default();
        place.fault(format!("defines {key} again{first}"), "keep one of the two");
    }
}

/// Where a key stands.
#[derive(Clone)]
pub(super) struct Place<'a> {
    context: &'a Context<'a>,
    pub(super) source: &'a Source,
    line: usize,
    pub(super) key: String,
}

impl<'a> Place<'a> {
    /// A line of a file, or its first for the whole of it.
    pub(super) fn of_file(context: &'a Context<'a>, source: &'a Source, line: usize) -> Self {
        Self { context, source, line, key: String::new() }
    }

    pub(super) fn fault(&self, problem: impl Into<String>, remedy: impl Into<String>) {
        let fault = Fault {
            file: self.source.name(),
            line: self.line,
            key: self.key.clone(),
            problem: problem.into(),
            remedy: remedy.into(),
        };
        let mut faults = self.context.faults.borrow_mut();
        // A fault in the defaults is met again with every backend that inherits them.
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }

    pub(super) fn report(&self, found: Problem) {
        self.fault(found.problem, found.remedy);
    }

    pub(super) fn variables(&self) -> Variables<'a> {
        self.context.variables
    }

    /// The line of an offset into this place's file.
    pub(super) fn line_at(&self, offset: usize) -> usize {
        self.source.line_at(offset)
    }

    /// `file:line`, to refer to this place from another.
    pub(super) fn position(&self) -> String {
        format!("{}:{}", self.source.name(), self.line)
    }

    /// The value of a check, or a fault here.
    pub(super) fn take<T>(&self, checked: Checked<T>) -> Option<T> {
        checked.map_err(|problem| self.report(problem)).ok()
    }

    /// A key in the table that stands here.
    pub(super) fn child(&self, name: &str, line: usize) -> Self {
        Self { line, key: join(&self.key, &quote_key(name)), ..self.clone() }
    }

    /// A key that is missing in the table that stands here.
    pub(super) fn unwritten(&self, name: &str) -> Self {
        self.child(name, self.line)
    }

    /// An element of the list that stands here.
    pub(super) fn item(&self, index: usize, line: usize) -> Self {
        Self { line, key: format!("{}[{index}]", self.key), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_become_lines() {
        let source = Source::new(Path::new("d/a.toml"), "a\n\nb".into());
        let lines: Vec<usize> = (0..4).map(|offset| source.line_at(offset)).collect();
        assert_eq!(lines, [1, 1, 2, 3]);
        assert_eq!(source.line_text(3), "b");
        assert_eq!(source.directory(), Path::new("d"));
    }
}
