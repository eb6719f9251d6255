//! From the globs of `include` to the files they name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern, glob_with};

use super::place::{Place, Source};
use super::text::{Checked, Problem, read_file};
use super::tree::Table;

/// Editors leave `.#name.toml` beside what they edit: such a file is no part of the configuration.
const MATCHING: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

const WILDCARDS: [char; 3] = ['*', '?', '['];

/// The included files, sorted by path, each once. Notes tell of globs that match nothing yet.
pub(super) fn read(main: &Table<'_>, notes: &mut Vec<String>) -> Vec<Source> {
    let mut paths: BTreeMap<PathBuf, Place<'_>> = BTreeMap::new();
    for pattern in main.texts("include") {
        let place = &pattern.place;
        let Some(found) = pattern.parse(|text| matches(place.source.directory(), text)) else {
            continue;
        };
        if found.is_empty() {
            notes.push(format!("{}: {} matches no file", place.position(), pattern.shown()));
        }
        for path in found {
            paths.entry(path).or_insert_with(|| place.clone());
        }
    }
    paths.into_iter().filter_map(|(path, place)| read_one(&path, &place)).collect()
}

fn read_one(path: &Path, place: &Place<'_>) -> Option<Source> {
    if is_same_file(path, &place.source.path) {
        place.fault("includes the file it stands in", "name other files, for instance \"backends.d/*.toml\"");
        return None;
    }
    place.take(read_file(path)).map(|text| Source::new(path, text))
}

fn is_same_file(left: &Path, right: &Path) -> bool {
    matches!((left.canonicalize(), right.canonicalize()), (Ok(left), Ok(right)) if left == right)
}

/// Paths that a pattern matches from a directory. A plain path matches itself, to be found missing
/// when it is read; of a glob only the directory must exist, since a fleet may begin empty.
fn matches(directory: &Path, pattern: &str) -> Checked<Vec<PathBuf>> {
    let Some(wildcard) = pattern.find(WILDCARDS) else {
        return Ok(vec![directory.join(pattern)]);
    };
    let literal = directory.join(&pattern[..pattern[..wildcard].rfind('/').map_or(0, |slash| slash + 1)]);
    let searched = if literal.as_os_str().is_empty() { Path::new(".") } else { &literal };
    if !searched.is_dir() {
        return Err(Problem::new(
            format!("looks into {}, which is no directory", searched.display()),
            "create it, or mend the pattern",
        ));
    }
    let absolute = PathBuf::from(Pattern::escape(&directory.to_string_lossy())).join(pattern);
    glob_with(&absolute.to_string_lossy(), MATCHING)
        .map_err(|error| Problem::new(format!("is no glob: {}", error.msg), "see `*`, `?` and `[a-z]`"))?
        .map(|path| path.map_err(|error| Problem::new(error.to_string(), "let this user read the directory")))
        .collect()
}
