//! What may happen to the text of one value before it means something: variables, secret files,
//! and for messages: quoting, and the word that was probably meant.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::model::Secret;

/// Looks up an environment variable. A parameter, so that tests need not change the process.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What a check of one value found; whoever knows the value's place makes a fault of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) problem: String,
    pub(super) remedy: String,
}

/// The outcome of a check of one value.
pub(super) type Checked<T> = Result<T, Problem>;

impl Problem {
    pub(super) fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { problem: problem.into(), remedy: remedy.into() }
    }
}

/// Ceiling for one configuration file.
pub(super) const FILE_BYTES_MAX: u64 = 16 << 20;

const SECRET_BYTES_MAX: u64 = 4096;

/// Below this a token can be guessed.
const SECRET_BYTES_MIN: usize = 16;

/// Readable, writable or executable for everybody.
const MODE_OTHERS: u32 = 0o007;

/// Replaces each `${NAME}` by the variable's value; `$${` stands for a plain `${`.
///
/// # Errors
/// Every variable that has no value.
pub(super) fn expand(raw: &str, variables: Variables<'_>) -> Result<String, Vec<Problem>> {
    let mut expanded = String::with_capacity(raw.len());
    let mut problems = Vec::new();
    let mut rest = raw;
    while let Some(start) = rest.find("${") {
        let (before, reference) = rest.split_at(start);
        if let Some(before) = before.strip_suffix('$') {
            expanded.push_str(before);
            expanded.push_str("${");
            rest = &reference["${".len()..];
            continue;
        }
        expanded.push_str(before);
        let Some((name, behind)) = reference["${".len()..].split_once('}') else {
            problems.push(Problem::new("has a `${` without its `}`", "close it, or write `$${` for a plain `${`"));
            break;
        };
        match variable(name, variables) {
            Ok(value) => expanded.push_str(&value),
            Err(problem) => problems.push(problem),
        }
        rest = behind;
    }
    expanded.push_str(rest);
    if problems.is_empty() { Ok(expanded) } else { Err(problems) }
}

fn variable(name: &str, variables: Variables<'_>) -> Checked<String> {
    let well_formed = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !well_formed {
        return Err(Problem::new(
            format!("refers to {} as a variable", quote(name)),
            "a variable's name has letters, digits and `_`; write `$${` for a plain `${`",
        ));
    }
    match variables(name) {
        None => Err(Problem::new(format!("variable {name} is not set"), format!("set {name} in the environment"))),
        Some(value) if value.is_empty() => {
            Err(Problem::new(format!("variable {name} is empty"), format!("give {name} a value")))
        }
        Some(value) => Ok(value),
    }
}

/// A secret as used. Problems never show it.
pub(super) fn secret(text: String) -> Checked<Secret> {
    if text.len() < SECRET_BYTES_MIN {
        return Err(Problem::new(
            format!("has {} bytes, too few", text.len()),
            format!("use at least {SECRET_BYTES_MIN}, for instance of `openssl rand -hex 32`"),
        ));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Problem::new(
            "has bytes that no Authorization header can carry",
            "use visible ASCII without spaces, on one line",
        ));
    }
    Ok(Secret::new(text))
}

/// Content of a secret's file without one newline at its end.
pub(super) fn secret_file(path: &Path) -> Checked<String> {
    let file = File::open(path).map_err(|error| cannot_read(path, &error))?;
    // Asked of the open file: what is checked is what is read.
    let mode = file.metadata().map_err(|error| cannot_read(path, &error))?.mode();
    if mode & MODE_OTHERS != 0 {
        return Err(Problem::new(
            format!("{} is open to everybody (mode {:03o})", path.display(), mode & 0o777),
            format!("chmod o-rwx {}", path.display()),
        ));
    }
    let mut text = read_bounded(file, SECRET_BYTES_MAX).map_err(|error| cannot_read(path, &error))?;
    if text.ends_with('\n') {
        text.pop();
    }
    if text.is_empty() {
        return Err(Problem::new(format!("{} is empty", path.display()), "write the secret into it"));
    }
    Ok(text)
}

/// A file's text, if it is not larger than allowed and UTF-8.
pub(super) fn read_file(path: &Path) -> Checked<String> {
    File::open(path).and_then(|file| read_bounded(file, FILE_BYTES_MAX)).map_err(|error| cannot_read(path, &error))
}

fn read_bounded(file: File, bytes_max: u64) -> io::Result<String> {
    let mut text = String::new();
    let bytes = file.take(bytes_max + 1).read_to_string(&mut text)?;
    if bytes as u64 > bytes_max {
        return Err(io::Error::other(format!("larger than {bytes_max} bytes")));
    }
    Ok(text)
}

fn cannot_read(path: &Path, error: &io::Error) -> Problem {
    Problem::new(format!("cannot read {}: {error}", path.display()), "check the path, and that this user may read it")
}

/// A value as written, on one line and not too long for a message.
pub(super) fn quote(raw: &str) -> String {
    const SHOWN_MAX: usize = 80;
    match raw.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{:?}...", &raw[..end]),
        None => format!("{raw:?}"),
    }
}

/// A key of a path as TOML would write it.
pub(super) fn quote_key(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if bare { key.to_owned() } else { quote(key) }
}

/// The candidate that was probably meant by `word`: close to it by edit distance.
pub(super) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the word may differ, but not so much that the suggestion is noise.
    let distance_max = (word.len() / 3).clamp(1, 3);
    candidates
        .filter(|candidate| candidate.len().abs_diff(word.len()) <= distance_max)
        .map(|candidate| (edit_distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= distance_max)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's, with one row of the matrix.
fn edit_distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("10.0.0.7".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn variables_are_replaced_and_escapes_kept() {
        let expands = |raw, to: &str| assert_eq!(expand(raw, &variables), Ok(to.to_owned()));
        expands("http://${HOST}:80/${HOST}", "http://10.0.0.7:80/10.0.0.7");
        expands("$${HOST} costs $5 ${HOST}", "${HOST} costs $5 10.0.0.7");
        expands("/mcp/{backend}", "/mcp/{backend}");
        expands("", "");
    }

    #[test]
    fn every_variable_without_a_value_is_named() {
        let problems = |raw| -> Vec<String> {
            expand(raw, &variables).expect_err("has problems").into_iter().map(|p| p.problem).collect()
        };
        assert_eq!(problems("${NO} ${EMPTY} ${HOST}"), ["variable NO is not set", "variable EMPTY is empty"]);
        assert_eq!(problems("${HOST"), ["has a `${` without its `}`"]);
        assert_eq!(problems("${}"), ["refers to \"\" as a variable"]);
        assert_eq!(problems("${A-B}"), ["refers to \"A-B\" as a variable"]);
    }

    #[test]
    fn distances() {
        for (left, right, distance) in [("", "", 0), ("abc", "", 3), ("", "ab", 2), ("kitten", "sitting", 3)] {
            assert_eq!(edit_distance(left, right), distance, "{left} {right}");
        }
    }

    #[test]
    fn nearest_is_close_or_nothing() {
        let keys = ["listen", "workers", "drain_timeout_ms"];
        let nearest = |word| nearest(word, keys.into_iter());
        assert_eq!(nearest("worker"), Some("workers"));
        assert_eq!(nearest("drain_timeout"), Some("drain_timeout_ms"));
        assert_eq!(nearest("tls"), None);
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        assert_eq!(quote("a\nb"), r#""a\nb""#);
        assert_eq!(quote(&"é".repeat(81)), format!("\"{}\"...", "é".repeat(80)));
    }
}
