use std::collections::BTreeMap;
use std::fmt::Write;

use super::*;
use crate::config;

fn snapshot(routes: &str) -> Snapshot {
    let mut text = String::new();
    for name in ["a", "b", "c"] {
        writeln!(text, "[backends.{name}]\nendpoints = [\"http://127.0.0.1:9/{name}\"]").unwrap();
    }
    text.push_str(routes);
    let config = config::load_str("test.toml", &text).unwrap();
    Snapshot::build(&config, &BTreeMap::new(), None).unwrap()
}

fn find(snapshot: &Snapshot, host: &str, path: &str, method: &str) -> String {
    match snapshot.routes.find(host.as_bytes(), path.as_bytes(), method.as_bytes()) {
        Ok(found) => {
            let rest = String::from_utf8_lossy(found.rest);
            format!("{}{rest}", snapshot.clusters.at(found.cluster).name)
        }
        Err(NotFound::NoRoute) => "404".to_owned(),
        Err(NotFound::MethodNotAllowed(route)) => format!("405 {}", route.allow),
    }
}

#[test]
fn without_routes_the_path_names_the_backend() {
    let snapshot = snapshot("");
    assert_eq!(find(&snapshot, "x", "/mcp/a", "POST"), "a");
    assert_eq!(find(&snapshot, "x", "/mcp/b", "DELETE"), "b");
    for path in ["/mcp/", "/mcp/d", "/mcp/a/", "/mcp/A", "/", "*", "/mcp", "/.well-known/mcp"] {
        assert_eq!(find(&snapshot, "x", path, "POST"), "404", "{path}");
    }
}

#[test]
fn the_most_specific_route_wins_whatever_the_order() {
    let snapshot = snapshot(
        r#"
        [[routes]]
        path = "/*"
        backend = "a"
        [[routes]]
        path = "/x/*"
        backend = "b"
        [[routes]]
        path = "/x/y"
        backend = "c"
        [[routes]]
        host = "Only.Example"
        path = "/x/*"
        backend = "a"
        "#,
    );
    assert_eq!(find(&snapshot, "h", "/x/y", "POST"), "c");
    assert_eq!(find(&snapshot, "h", "/x/z", "POST"), "b/z");
    assert_eq!(find(&snapshot, "h", "/q", "POST"), "a/q");
    assert_eq!(find(&snapshot, "ONLY.example:8080", "/x/y", "POST"), "a/y");
    assert_eq!(find(&snapshot, "only.example", "/q", "POST"), "a/q");
    assert_eq!(find(&snapshot, "[::1]:80", "/q", "POST"), "a/q");
}

#[test]
fn methods_choose_between_routes_of_one_path_and_405_names_what_is_taken() {
    let snapshot = snapshot(
        r#"
        [[routes]]
        path = "/m"
        backend = "a"
        methods = ["POST"]
        [[routes]]
        path = "/m"
        backend = "b"
        methods = ["GET"]
        "#,
    );
    assert_eq!(find(&snapshot, "h", "/m", "POST"), "a");
    assert_eq!(find(&snapshot, "h", "/m", "GET"), "b");
    assert_eq!(find(&snapshot, "h", "/m", "PUT"), "405 POST");
    assert_eq!(snapshot.routes.allowed(b"h", b"/m"), ["POST", "GET"]);
}
