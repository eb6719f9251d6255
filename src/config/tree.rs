//! A file's text as a tree in which every value knows its place.
//!
//! Reading a value never stops at a fault: it is noted and the key's default, or nothing, stands in.
//! So one walk finds everything. What a key may hold comes from [`mod@super::reference`].

use std::rc::Rc;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::model::{Choice, Secret};
use super::place::{Context, Place, Source};
use super::reference::{Absent, KeyDoc, Kind, ROUTE, TOP, reference};
use super::text::{self, Checked, Problem, expand, nearest, quote};

/// A value at its place.
pub(super) struct Node<'a> {
    pub(super) place: Place<'a>,
    value: &'a DeValue<'a>,
}

impl<'a> Node<'a> {
    fn wrong_type(&self, expected: &str) {
        let found = self.value.type_str();
        let article = if found.starts_with(['a', 'i']) { "an" } else { "a" };
        self.place.fault(format!("must be {expected}, not {article} {found}"), format!("write {expected}"));
    }

    /// This as a table with the keys of `docs` and the given tables in it; others are refused.
    pub(super) fn table(&self, docs: &'static [&'static str], tables: &[&str]) -> Option<Table<'a>> {
        let DeValue::Table(entries) = self.value else {
            self.wrong_type("a table");
            return None;
        };
        let table = Table { place: self.place.clone(), docs, entries: Some(entries), below: None };
        table.refuse_unknown(tables);
        Some(table)
    }

    /// This as a table of tables with free names.
    pub(super) fn named(&self) -> Vec<(&'a str, Node<'a>)> {
        let DeValue::Table(entries) = self.value else {
            self.wrong_type("a table");
            return Vec::new();
        };
        entries.iter().map(|(key, value)| (key.get_ref().as_ref(), child(&self.place, key, value))).collect()
    }

    /// The elements, if this is a list.
    pub(super) fn items(&self, expected: &str) -> Option<Vec<Node<'a>>> {
        let Some(items) = self.value.as_array() else {
            self.wrong_type(expected);
            return None;
        };
        let node = |(index, item): (usize, &'a Spanned<DeValue<'a>>)| {
            let line = self.place.line_at(item.span().start);
            Node { place: self.place.item(index, line), value: item.get_ref() }
        };
        Some(items.iter().enumerate().map(node).collect())
    }

    fn text(&self) -> Option<Text<'a>> {
        let Some(raw) = self.value.as_str() else {
            self.wrong_type("a string");
            return None;
        };
        match expand(raw, self.place.variables()) {
            Ok(value) => Some(Text { place: self.place.clone(), raw: raw.to_owned(), value }),
            Err(problems) => {
                problems.into_iter().for_each(|problem| self.place.report(problem));
                None
            }
        }
    }

    fn flag(&self) -> Option<bool> {
        let flag = self.value.as_bool();
        if flag.is_none() {
            self.wrong_type("true or false");
        }
        flag
    }

    fn number(&self, min: u64, max: u64, unit: &str) -> Option<u64> {
        let Some(integer) = self.value.as_integer() else {
            self.wrong_type("an integer");
            return None;
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let in_range = number.filter(|number| (min..=max).contains(number));
        if in_range.is_none() {
            self.place.fault(format!("is {integer}, out of range"), format!("use {min} to {max} {unit}").trim_end());
        }
        in_range
    }
}

/// A string at its place, its variables replaced.
pub(super) struct Text<'a> {
    pub(super) place: Place<'a>,
    raw: String,
    pub(super) value: String,
}

impl Text<'_> {
    /// The meaning of the text, or a fault.
    pub(super) fn parse<T>(&self, check: impl Fn(&str) -> Checked<T>) -> Option<T> {
        self.place.take(
            check(&self.value)
                .map_err(|found| Problem { problem: format!("{} {}", self.shown(), found.problem), ..found }),
        )
    }

    /// For messages: as written, unless it may hold a password.
    pub(super) fn shown(&self) -> String {
        if self.raw.contains('@') { "the value".to_owned() } else { quote(&self.raw) }
    }

    /// A secret, or the one in the file that `file:` names.
    pub(super) fn secret(&self) -> Option<Secret> {
        // Asked of what was written: the content of a variable is never taken for a path.
        let path = self.raw.starts_with("file:").then(|| &self.value["file:".len()..]);
        let text = match path {
            Some(path) => self.place.take(text::secret_file(&self.place.source.directory().join(path)))?,
            None => self.value.clone(),
        };
        self.place.take(text::secret(text))
    }
}

/// A table at its place, whose keys are known.
#[derive(Clone)]
pub(super) struct Table<'a> {
    pub(super) place: Place<'a>,
    /// Tables of the reference whose keys may stand here.
    docs: &'static [&'static str],
    /// `None`: the table is not written.
    entries: Option<&'a DeTable<'a>>,
    /// Asked for what is not written here.
    below: Option<Rc<Table<'a>>>,
}

impl<'a> Table<'a> {
    /// The whole of a file.
    pub(super) fn root(context: &'a Context<'a>, source: &'a Source, entries: &'a DeTable<'a>) -> Self {
        Self { place: Place::of_file(context, source, 1), docs: &[TOP], entries: Some(entries), below: None }
    }

    /// The same with defaults from another table.
    pub(super) fn inherit(self, below: &Table<'a>) -> Self {
        Self { below: Some(Rc::new(below.clone())), ..self }
    }

    /// What is written here.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.entries.into_iter().flatten().map(|(key, _)| key.get_ref().as_ref())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names().next().is_none()
    }

    /// The value of a key, here or below.
    pub(super) fn node(&self, name: &str) -> Option<Node<'a>> {
        let written = self.entries.and_then(|entries| entries.get_key_value(name));
        match written {
            Some((key, value)) => Some(child(&self.place, key, value)),
            None => self.below.as_ref().and_then(|below| below.node(name)),
        }
    }

    /// A table within; an empty one if it is not written. What it lacks is looked for in the table of
    /// the same name below.
    pub(super) fn table(&self, name: &str, docs: &'static [&'static str], tables: &[&str]) -> Table<'a> {
        let below = self.below.as_ref().map(|below| Rc::new(below.table(name, docs, tables)));
        let here = Table { below: None, ..self.clone() };
        let written = here.node(name).and_then(|node| node.table(docs, tables));
        let table =
            written.unwrap_or_else(|| Table { place: self.place.unwritten(name), docs, entries: None, below: None });
        Table { below, ..table }
    }

    /// Where a key stands; the table's own line if it is not written.
    pub(super) fn place_of(&self, name: &str) -> Place<'a> {
        self.node(name).map_or_else(|| self.place.unwritten(name), |node| node.place)
    }

    /// A number of the reference.
    pub(super) fn number(&self, name: &str) -> u64 {
        let Kind::Number { default, min, max, unit } = self.doc(name).kind else {
            unreachable!("the reference has no number {name}");
        };
        self.node(name).and_then(|node| node.number(min, max, unit)).unwrap_or(default)
    }

    /// A number of the reference that counts things in memory.
    pub(super) fn count(&self, name: &str) -> usize {
        // The ranges of the reference fit into 32 bits where this is called.
        usize::try_from(self.number(name)).unwrap_or(usize::MAX)
    }

    /// A number of milliseconds of the reference.
    pub(super) fn duration(&self, name: &str) -> Duration {
        Duration::from_millis(self.number(name))
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, name: &str) -> bool {
        let Kind::Flag { default } = self.doc(name).kind else {
            unreachable!("the reference has no flag {name}");
        };
        self.node(name).and_then(|node| node.flag()).unwrap_or(default)
    }

    /// A word of the reference.
    pub(super) fn choice<T: Choice>(&self, name: &str) -> T {
        self.node(name)
            .and_then(|node| node.text())
            .and_then(|text| text.parse(|word| self.word(name, word)))
            .unwrap_or_default()
    }

    /// The choice that a word means for a key, wherever the word comes from.
    pub(super) fn word<T: Choice>(&self, name: &str, word: &str) -> Checked<T> {
        let Kind::Choice { names, later } = self.doc(name).kind else {
            unreachable!("the reference has no choice {name}");
        };
        T::ALL.iter().copied().find(|choice| choice.name() == word).ok_or_else(|| {
            let problem = if later.contains(&word) { "is not available yet" } else { "is none of the known words" };
            Problem::new(problem, format!("use one of {}", names().join(", ")))
        })
    }

    /// A string of the reference.
    pub(super) fn text(&self, name: &str) -> Option<Text<'a>> {
        let Kind::Text { example, absent } = self.doc(name).kind else {
            unreachable!("the reference has no text {name}");
        };
        match self.node(name) {
            Some(node) => node.text(),
            None => self.absent(name, absent, &format!("\"{example}\"")),
        }
    }

    /// The meanings of a list of strings of the reference, none of which may stand there twice.
    pub(super) fn list<T: PartialEq>(&self, name: &str, check: impl Fn(&str) -> Checked<T>) -> Vec<T> {
        let mut found: Vec<T> = Vec::new();
        for text in self.texts(name) {
            match text.parse(&check) {
                Some(value) if found.contains(&value) => {
                    text.place.fault(format!("{} stands here twice", text.shown()), "remove one");
                }
                Some(value) => found.push(value),
                None => {}
            }
        }
        found
    }

    /// A list of strings of the reference, not empty.
    pub(super) fn texts(&self, name: &str) -> Vec<Text<'a>> {
        let Kind::List { example, absent } = self.doc(name).kind else {
            unreachable!("the reference has no list {name}");
        };
        let Some(node) = self.node(name) else {
            return self.absent(name, absent, &format!("[\"{example}\"]")).into_iter().collect();
        };
        let Some(items) = node.items("a list of strings") else {
            return Vec::new();
        };
        if items.is_empty() {
            node.place.fault("is empty", format!("name at least one, for instance \"{example}\""));
        }
        items.iter().filter_map(Node::text).collect()
    }

    fn absent(&self, name: &str, absent: Absent, example: &str) -> Option<Text<'a>> {
        let place = self.place.unwritten(name);
        match absent {
            Absent::None => None,
            Absent::Default(text) => Some(Text { place, raw: text.to_owned(), value: text.to_owned() }),
            Absent::Required => {
                place.fault("is missing", format!("add {name} = {example}"));
                None
            }
        }
    }

    fn keys(&self) -> impl Iterator<Item = &'static KeyDoc> {
        reference().iter().filter(|doc| self.docs.contains(&doc.table))
    }

    fn doc(&self, name: &str) -> &'static KeyDoc {
        // A caller that asks for an undocumented key fails every test that loads a file.
        self.keys().find(|doc| doc.name == name).expect("the loader reads documented keys only")
    }

    /// Faults for keys that are neither of the reference nor one of these tables.
    pub(super) fn refuse_unknown(&self, tables: &[&str]) {
        let known: Vec<&str> = self.keys().map(|doc| doc.name).chain(tables.iter().copied()).collect();
        for (key, value) in self.entries.into_iter().flatten() {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                child(&self.place, key, value)
                    .place
                    .fault("is no key that Ringway knows", what_was_meant(name, &known));
            }
        }
    }
}

fn child<'a>(place: &Place<'a>, key: &Spanned<impl AsRef<str>>, value: &'a Spanned<DeValue<'a>>) -> Node<'a> {
    let line = place.line_at(key.span().start);
    Node { place: place.child(key.get_ref().as_ref(), line), value: value.get_ref() }
}

/// The remedy for an unknown key.
fn what_was_meant(name: &str, known: &[&str]) -> String {
    let elsewhere = reference().iter().find(|doc| doc.name == name);
    let near = nearest(name, known.iter().copied());
    match (elsewhere, near) {
        (Some(doc), _) if doc.table == TOP => "move it above the first [table] of the main file".to_owned(),
        (Some(doc), _) if doc.table == ROUTE => "it belongs into [[routes]]".to_owned(),
        (Some(doc), _) => format!("it belongs into [{}]", doc.table),
        (None, Some(near)) => format!("did you mean {near}?"),
        (None, None) => format!("remove it; known here: {}", known.join(", ")),
    }
}
