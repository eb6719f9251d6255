//! The project's own shape: which module may know which, what is not in the dependency tree, and that
//! the README knows every key.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ringway::config::{KeyDoc, reference};
use serde_json::Value;

/// What each module may name of this crate; arrows go one way. A row is the whole truth about its
/// module's code; tests inside the modules may look further.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("clock", &[]),
    // `clock`: the deadline of a socket is kept in ticks, whose value comes from outside.
    ("http", &["limits", "clock"]),
    ("mcp", &["limits"]),
    ("coalesce", &["mcp"]),
    ("config", &["limits"]),
    ("policy", &["config::model"]),
    // `error`: a look-up that fails says what the client is told. `seam`: its labels, and the
    // snapshot that `ringway routes` prints. `upstream`: a route holds its cluster by place.
    ("route", &["config::model", "error", "seam", "upstream"]),
    // `seam`: labels, and the plain values it is counted in.
    // `coalesce`: what makes a backend's answers void lives as long as the backend stays as it is.
    ("upstream", &["clock", "coalesce", "config::model", "http", "limits", "seam"]),
    ("relay", &["http", "limits"]),
    ("error", &["http", "mcp", "policy", "upstream"]),
    // `error` and `mcp`: closed sets that are metric labels. `mcp`: the keys of session tokens.
    // `coalesce`: what workers tell each other is about its flights.
    ("seam", &["coalesce", "config::model", "error", "mcp", "policy", "route", "upstream", "limits"]),
    // `server`: only its `Hooks`, which tests pass through it.
    (
        "worker",
        &[
            "clock",
            "coalesce",
            "config::model",
            "error",
            "http",
            "limits",
            "mcp",
            "relay",
            "route",
            "seam",
            "server",
            "upstream",
        ],
    ),
    // `error`: the reasons of refusals, for the metrics page.
    ("control", &["clock", "config", "error", "http", "limits", "seam"]),
    // The demo's servers stand beside the proxy and share nothing with it but the clock.
    ("demo", &["clock"]),
    // `coalesce`: the numbers of the workers' flights.
    ("server", &["clock", "coalesce", "config", "control", "seam", "worker"]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => rust_files(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// `src/http/head.rs` and `src/http.rs` are of `http`.
fn module_of(file: &Path) -> String {
    let within = file.strip_prefix(root().join("src")).unwrap();
    let first = within.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Paths into this crate that the code of a file names, comments and tests left out.
fn imports(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]").next().unwrap();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let of_line = |line: &str| -> Vec<String> {
        let paths = line.split("crate::").skip(1);
        paths
            .map(|path| path.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').next().unwrap().to_owned())
            .collect()
    };
    lines.flat_map(of_line).collect()
}

#[test]
fn modules_know_only_what_they_may() {
    let table: BTreeMap<&str, &[&str]> = MAY_IMPORT.iter().copied().collect();
    let files = rust_files(&root().join("src"));
    let mut seen = BTreeSet::new();
    let mut named = 0;
    for file in &files {
        let module = module_of(file);
        let is_test = file.file_name().is_some_and(|name| name == "tests.rs");
        if matches!(module.as_str(), "lib" | "main") || is_test {
            continue;
        }
        let Some(allowed) = table.get(module.as_str()) else {
            panic!("{} belongs to no row of the table", file.display());
        };
        for import in imports(&fs::read_to_string(file).unwrap()) {
            let within = |allowed: &str| import == allowed || import.starts_with(&format!("{allowed}::"));
            let is_own = within(&module);
            assert!(
                is_own || allowed.iter().any(|allowed| within(allowed)),
                "{} names {import}, which {module} may not know",
                file.display()
            );
            named += 1;
        }
        seen.insert(module);
    }
    assert!(files.len() > 30 && named > 50, "the test saw {named} imports in {} files", files.len());
    let rows: BTreeSet<String> = table.keys().map(|row| (*row).to_owned()).collect();
    assert_eq!(seen, rows, "every row has its module");
}

#[test]
fn imports_are_found_where_they_stand() {
    let text = "use crate::a::b;\n// crate::comment::x\nfn f() { crate::c::d() }\n#[cfg(test)]\nuse crate::test;";
    assert_eq!(imports(text), ["a::b", "c::d"]);
}

/// Packages of `ringway`'s normal dependency tree.
fn dependencies() -> BTreeSet<String> {
    let version = Command::new("rustc").arg("-vV").output().expect("rustc");
    let version = String::from_utf8(version.stdout).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--locked", "--format-version", "1", "--filter-platform", host])
        .current_dir(root())
        .output()
        .expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let names: BTreeMap<String, String> =
        list(&metadata["packages"]).iter().map(|package| (text(&package["id"]), text(&package["name"]))).collect();
    let normal = |node: &Value| -> Vec<String> {
        let of_kind = |dependency: &&Value| list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
        list(&node["deps"]).iter().filter(of_kind).map(|dependency| text(&dependency["pkg"])).collect()
    };
    let nodes: BTreeMap<String, Vec<String>> =
        list(&metadata["resolve"]["nodes"]).iter().map(|node| (text(&node["id"]), normal(node))).collect();
    let ours = names.iter().find(|(_, name)| *name == "ringway").expect("this package").0;
    let (mut known, mut open) = (BTreeSet::new(), vec![ours.clone()]);
    while let Some(id) = open.pop() {
        if known.insert(id.clone()) {
            open.extend(nodes[&id].iter().cloned());
        }
    }
    known.iter().map(|id| names[id].clone()).collect()
}

#[test]
fn no_other_runtime_is_in_the_dependency_tree() {
    let dependencies = dependencies();
    assert!(dependencies.contains("monoio"), "the tree was not read: {dependencies:?}");
    for runtime in ["tokio", "async-std", "smol", "hyper", "monoio-http"] {
        assert!(!dependencies.contains(runtime), "{runtime} is in the tree");
    }
}

#[test]
fn the_readme_has_every_key_in_order_and_no_other() {
    let readme = fs::read_to_string(root().join("README.md")).expect("a README");
    let expected: Vec<String> = reference().iter().map(KeyDoc::row).collect();
    assert!(!expected.is_empty());
    let table = readme.split_once("| key | default | allowed | meaning |").expect("the reference's heading").1;
    // Behind the heading comes the line of dashes; a table ends at the first line without a bar.
    let rows: Vec<&str> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    assert_eq!(rows, expected, "the table in README.md should be:\n{}\n", expected.join("\n"));
}
