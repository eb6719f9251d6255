//! The operator's file: what it means, and what is said when it means nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ringway::config::model::{AccessLog, Backend, Balance, IoDriver, Protocol, TraceHeaders};
use ringway::config::{self, Absent, Config, ConfigError, Kind, Loaded, reference};

const ONE_BACKEND: &str = "[backends.a]\nendpoints = [\"http://a:1/mcp\"]\n";
const TOKEN: &str = "0123456789abcdef";

fn variables(name: &str) -> Option<String> {
    match name {
        "HOST" => Some("10.0.0.7".into()),
        "PASSWORD" => Some("hunter2".into()),
        "EMPTY" => Some(String::new()),
        "RINGWAY_ADMIN_TOKEN" => Some(TOKEN.into()),
        _ => None,
    }
}

fn load(text: &str) -> Result<Config, ConfigError> {
    config::load_str_with("t.toml", text, &variables).map(|loaded| loaded.config)
}

#[track_caller]
fn loads(text: &str) -> Config {
    load(text).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

/// The faults of a text, a line each.
#[track_caller]
fn faults(text: &str) -> Vec<String> {
    let error = load(text).expect_err(text);
    error.faults.iter().map(ToString::to_string).collect()
}

/// The text has this one fault; the expected text is a part of it, so that remedies may be reworded.
#[track_caller]
fn refused(text: &str, expected: &str) {
    let faults = faults(text);
    assert_eq!(faults.len(), 1, "{faults:#?}");
    assert!(faults[0].contains(expected), "{}\nis not: {expected}", faults[0]);
}

/// The same, in a file that has a backend below.
#[track_caller]
fn refused_above_backend(text: &str, expected: &str) {
    refused(&format!("{text}\n{ONE_BACKEND}"), expected);
}

/// Files of one test, gone at its end.
struct Directory(PathBuf);

impl Directory {
    fn new(files: &[(&str, &str)]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = Self(std::env::temp_dir().join(format!("ringway-config-{}-{number}", std::process::id())));
        for (name, text) in files {
            let path = directory.path(name);
            fs::create_dir_all(path.parent().expect("a file stands in a directory")).expect("temporary directory");
            fs::write(path, text).expect("temporary file");
        }
        directory
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn load(&self, name: &str) -> Result<Loaded, ConfigError> {
        config::load_with(&self.path(name), &variables)
    }

    /// Faults of the main file `main.toml`, with paths relative to the directory.
    fn faults(&self) -> Vec<String> {
        let error = self.load("main.toml").expect_err("has faults");
        let directory = format!("{}/", self.0.display());
        error.faults.iter().map(|fault| fault.to_string().replace(&directory, "")).collect()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // A leftover in the temporary directory is no failure of the test.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_minimal_file_gets_every_default() {
    let config = loads(ONE_BACKEND);
    assert_eq!(config.server.listen, ["127.0.0.1:8080".parse().unwrap()]);
    assert_eq!(config.server.io_driver, IoDriver::Auto);
    assert_eq!(config.server.drain_timeout, Duration::from_secs(30));
    assert_eq!(config.server.handover_timeout, Duration::from_secs(30));
    assert_eq!(config.server.public_url, None);
    assert_eq!(config.admin.listen, Some("127.0.0.1:9090".parse().unwrap()));
    assert_eq!(config.admin.token, None);
    assert_eq!(config.log.access, AccessLog::Off);
    assert_eq!(config.server.traceparent, TraceHeaders::Pass);
    assert_eq!(config.limits.head_bytes_max, 32_768);
    assert_eq!(config.limits.body_bytes_max, 10_485_760);
    assert_eq!(config.limits.idle_timeout, Duration::from_secs(75));
    let backend = &config.backends["a"];
    assert_eq!(backend.protocol, Protocol::Auto);
    assert_eq!(backend.balance, Balance::LeastRequests);
    assert_eq!(backend.request_timeout, Duration::from_secs(600));
    assert_eq!(backend.endpoints[0].authority, "a:1");
    assert_eq!(config.routes.len(), 1);
    assert_eq!((config.routes[0].path.as_str(), &config.routes[0].backend), ("/mcp/{backend}", &None));
}

/// A value for each documented key that is allowed and not the default.
fn another_value(kind: &Kind, key: &str) -> String {
    match (kind, key) {
        (Kind::Number { default, .. }, "limits.memory_soft_bytes") => (default + 1).to_string(),
        (Kind::Number { default, max, .. }, "limits.target_bytes_max") => (default + 1).min(*max).to_string(),
        (Kind::Number { default, min, max, .. }, _) => if default == max { min } else { max }.to_string(),
        (Kind::Flag { default }, _) => (!default).to_string(),
        (Kind::Choice { names, .. }, _) => format!("\"{}\"", names()[1]),
        (Kind::Text { .. }, "admin.listen") => "\"off\"".into(),
        (Kind::List { .. }, "sessions.keys") => "[\"a-secret-of-enough-bytes\"]".into(),
        (Kind::Text { .. }, "admin.token") => format!("\"{TOKEN}\""),
        (Kind::Text { example, .. }, _) => format!("\"{example}\""),
        (Kind::List { example, .. }, _) => format!("[\"{example}\"]"),
    }
}

#[test]
fn every_documented_key_is_read_into_the_configuration() {
    let route = |line: &str| loads(&format!("[[routes]]\npath = \"/p\"\nbackend = \"a\"\n{line}\n{ONE_BACKEND}"));
    let (plain, plain_route) = (loads(ONE_BACKEND), route(""));
    let mut seen = 0;
    for doc in reference() {
        let key = doc.key();
        let line = format!("{} = {}", doc.name, another_value(&doc.kind, &key));
        let required = matches!(
            doc.kind,
            Kind::Text { absent: Absent::Required, .. } | Kind::List { absent: Absent::Required, .. }
        );
        match doc.table {
            // These have tests of their own: without them nothing loads.
            "" => continue,
            _ if required || key == "routes[].backend" => continue,
            "routes[]" => assert_ne!(route(&line), plain_route, "{key}"),
            "defaults.backend" => {
                let inherited = loads(&format!("[defaults.backend]\n{line}\n{ONE_BACKEND}"));
                assert_ne!(inherited, plain, "{key}");
                assert_eq!(inherited, loads(&format!("{ONE_BACKEND}{line}\n")), "{key} in the backend itself");
            }
            table => assert_ne!(loads(&format!("[{table}]\n{line}\n{ONE_BACKEND}")), plain, "{key}"),
        }
        seen += 1;
    }
    assert!(seen > 25, "only {seen}");
}

#[test]
fn every_number_has_its_range() {
    let mut seen = 0;
    for doc in reference() {
        let Kind::Number { min, max, .. } = doc.kind else { continue };
        for number in [min.checked_sub(1), max.checked_add(1)].into_iter().flatten() {
            refused_above_backend(
                &format!("[{}]\n{} = {number}", doc.table, doc.name),
                &format!("t.toml:2: {}: is {number}, out of range (use {min} to {max}", doc.key()),
            );
            seen += 1;
        }
    }
    assert!(seen > 25, "only {seen}");
}

#[test]
fn a_backend_wins_over_the_defaults() {
    let text = "[defaults.backend]\nconnect_timeout_ms = 200\nidle_conns_max = 1\n\
                [backends.a]\nendpoints = [\"http://a\"]\nconnect_timeout_ms = 300\n\
                [backends.b]\nendpoints = [\"http://b\"]\n";
    let config = loads(text);
    let of = |name: &str| {
        let Backend { connect_timeout, idle_conns_max, .. } = &config.backends[name];
        (connect_timeout.as_millis(), *idle_conns_max)
    };
    assert_eq!((of("a"), of("b")), ((300, 1), (200, 1)));
}

#[test]
fn a_fault_in_the_defaults_is_reported_once() {
    refused(
        "[defaults.backend]\nbalance = \"random\"\n[backends.a]\nendpoints = [\"http://a\"]\n[backends.b]\nendpoints = [\"http://b\"]\n",
        "t.toml:2: defaults.backend.balance: \"random\" is none of the known words (use one of least_requests, round_robin)",
    );
}

#[test]
fn all_faults_are_reported_at_once_in_the_order_of_lines() {
    let text = r#"
[server]
lisen = ["127.0.0.1:1"]
workers = "two"
listen = ["localhost:80"]

[limits]
headers_max = 100000

[backends.A]
endpoints = ["https://a"]

[backends.b]
endpoints = ["http://${UNSET}/"]
cache = { legacy_ttl = 1 }

[[routes]]
path = "b"
backend = "c"
"#;
    let starts = [
        "t.toml:3: server.lisen: is no key that Ringway knows (did you mean listen?)",
        "t.toml:4: server.workers: must be an integer, not a string",
        "t.toml:5: server.listen[0]: \"localhost:80\" is not an address",
        "t.toml:8: limits.headers_max: is 100000, out of range (use 8 to 256)",
        "t.toml:10: backends.A: is not a name for a backend",
        "t.toml:11: backends.A.endpoints[0]: \"https://a\" asks for TLS",
        "t.toml:14: backends.b.endpoints[0]: variable UNSET is not set",
        "t.toml:15: backends.b.cache.legacy_ttl: is no key that Ringway knows (did you mean legacy_ttl_ms?",
        "t.toml:18: routes[0].path: \"b\" does not begin with `/`",
        "t.toml:19: routes[0].backend: names no backend of this configuration (did you mean A?)",
    ];
    let found = faults(text);
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for (found, start) in found.iter().zip(starts) {
        assert!(found.starts_with(start), "{found}\nis not: {start}");
    }
}

#[test]
fn a_file_without_backends_is_refused() {
    for text in ["", "\n\n", "# only a comment\n"] {
        refused(text, "t.toml:1: backends: the file is empty (add [backends.NAME]");
    }
    refused("[server]\nworkers = 1\n", "t.toml:1: backends: no backend is configured");
    refused("[backends]\n", "t.toml:1: backends: no backend is configured");
    refused("[backends.a]\n", "t.toml:1: backends.a.endpoints: is missing (add endpoints = [");
    refused("[backends.a]\nendpoints = []\n", "t.toml:2: backends.a.endpoints: is empty");
}

#[test]
fn what_is_no_toml_is_refused_line_by_line() {
    let found = faults("x = 'a\n\n[server\ny = = 1\n[backends.a]\n");
    let lines: Vec<&str> = found.iter().filter_map(|fault| fault.strip_prefix("t.toml:")?.split(':').next()).collect();
    assert_eq!(lines, ["1", "3", "4"], "{found:#?}");
    assert!(found.iter().all(|fault| fault.contains("is not TOML")), "{found:#?}");
}

#[test]
fn a_backend_defined_twice_in_one_file_names_both_lines() {
    let found = faults(&format!("{ONE_BACKEND}\n{ONE_BACKEND}"));
    assert!(found[0].starts_with("t.toml:4: defines a again, first on line 1 ("), "{found:#?}");
    refused(&format!("{ONE_BACKEND}endpoints = []\n"), "t.toml:3: defines endpoints again");
}

#[test]
fn unknown_keys_come_with_what_was_meant() {
    refused_above_backend("[sever]", "t.toml:1: sever: is no key that Ringway knows (did you mean server?)");
    refused_above_backend(
        "[server]\nbody_bytes_max = 1",
        "server.body_bytes_max: is no key that Ringway knows (it belongs into [limits])",
    );
    refused_above_backend("[server]\ntls = {}", "(remove it; known here: listen, workers");
    refused(
        &format!("{ONE_BACKEND}include = [\"x.toml\"]"),
        "t.toml:3: backends.a.include: is no key that Ringway knows (move it above the first [table]",
    );
    refused_above_backend("[defaults.backend]\nendpoints = [\"http://a\"]", "(it belongs into [backends.NAME])");
    refused(
        &format!("{ONE_BACKEND}host = \"a\""),
        "t.toml:3: backends.a.host: is no key that Ringway knows (it belongs into [[routes]])",
    );
    refused_above_backend("[defaults.route]", "t.toml:1: defaults.route: is no key");
    refused_above_backend("[server]\n\"a\\nb\" = 1", r#"server."a\nb": is no key"#);
}

#[test]
fn wrong_types_are_named() {
    for (text, expected) in [
        ("server = 1", "t.toml:1: server: must be a table, not an integer"),
        ("[server]\nworkers = 1.5", "t.toml:2: server.workers: must be an integer, not a float"),
        ("[server]\nworkers = -1", "t.toml:2: server.workers: is -1, out of range"),
        ("[server]\nworkers = 99999999999999999999999", "out of range"),
        ("[server]\nlisten = \"127.0.0.1:80\"", "t.toml:2: server.listen: must be a list of strings, not a string"),
        (
            "[server]\nlisten = [\n  \"127.0.0.1:80\",\n  80,\n]",
            "t.toml:4: server.listen[1]: must be a string, not an integer",
        ),
        ("[admin]\nlisten = false", "t.toml:2: admin.listen: must be a string, not a boolean"),
        ("[routes]", "t.toml:1: routes: must be a list of tables ([[routes]]), not a table"),
        ("routes = [1]", "t.toml:1: routes[0]: must be a table, not an integer"),
    ] {
        refused_above_backend(text, expected);
    }
    assert!(faults("backends = 1")[0].starts_with("t.toml:1: backends: must be a table"));
}

#[test]
fn an_access_log_has_a_place() {
    let place = |place: &str| loads(&format!("[log]\naccess = \"{place}\"\n{ONE_BACKEND}")).log.access;
    assert_eq!((place("off"), place("stderr")), (AccessLog::Off, AccessLog::Stderr));
    assert_eq!(place("/var/log/a.log"), AccessLog::File("/var/log/a.log".into()));
    for wrong in ["", "stdout", "access.log", "./access.log"] {
        let expected =
            format!("t.toml:2: log.access: \"{wrong}\" is no place for a log (use off, stderr or an absolute path)");
        refused_above_backend(&format!("[log]\naccess = \"{wrong}\""), &expected);
    }
}

#[test]
fn server_values_are_checked() {
    for (line, expected) in [
        ("listen = []", "t.toml:2: server.listen: is empty"),
        ("listen = [\"[::1]:1\", \"[::1]:1\"]", "t.toml:2: server.listen[1]: \"[::1]:1\" stands here twice"),
        (
            "io_driver = \"kqueue\"",
            "t.toml:2: server.io_driver: \"kqueue\" is none of the known words (use one of auto, io_uring, epoll)",
        ),
        ("public_url = \"mcp.example.com\"", "t.toml:2: server.public_url: \"mcp.example.com\" is not a URL"),
        ("public_url = \"https://a/?b\"", "t.toml:2: server.public_url: \"https://a/?b\" has a query"),
    ] {
        refused_above_backend(&format!("[server]\n{line}"), expected);
    }
    let config = loads(&format!("[server]\npublic_url = \"https://a.example/\"\n{ONE_BACKEND}"));
    assert_eq!(config.server.public_url.as_deref(), Some("https://a.example"));
}

#[test]
fn the_environment_wins_over_the_io_driver_of_the_file() {
    let text = format!("[server]\nio_driver = \"io_uring\"\n{ONE_BACKEND}");
    let load = |word: &'static str| {
        config::load_str_with("t.toml", &text, &|name| (name == "RINGWAY_IO_DRIVER").then(|| word.to_owned()))
    };
    assert_eq!(load("epoll").unwrap().config.server.io_driver, IoDriver::Epoll);
    assert_eq!(load("").unwrap().config.server.io_driver, IoDriver::IoUring);
    assert_eq!(
        load("kqueue").unwrap_err().to_string(),
        "environment: RINGWAY_IO_DRIVER: \"kqueue\" is none of the known words (use one of auto, io_uring, epoll)"
    );
}

#[test]
fn an_admin_address_for_other_machines_needs_a_token() {
    let refused = |lines: &str, expected: &str| refused_above_backend(&format!("[admin]\n{lines}"), expected);
    for address in ["0.0.0.0:9090", "[::]:9090", "10.0.0.1:9090", "[::ffff:127.0.0.1]:9090"] {
        refused(&format!("listen = \"{address}\""), "t.toml:1: admin.token: is missing");
    }
    refused("listen = \"0.0.0.0:9090\"\ntoken = \"short\"", "t.toml:3: admin.token: has 5 bytes, too few");
    refused("token = \"0123456789 abcdef\"", "t.toml:2: admin.token: has bytes that no Authorization header");
    refused("listen = \"9090\"", "t.toml:2: admin.listen: \"9090\" is not an address");
    refused(
        "listen = \"127.0.0.1:8080\"",
        "t.toml:2: admin.listen: \"127.0.0.1:8080\" is an address of server.listen too",
    );
    for lines in
        ["listen = \"off\"", "listen = \"[::1]:9090\"", "listen = \"0.0.0.0:1\"\ntoken = \"${RINGWAY_ADMIN_TOKEN}\""]
    {
        loads(&format!("[admin]\n{lines}\n{ONE_BACKEND}"));
    }
}

#[test]
fn the_target_is_a_part_of_the_head() {
    refused_above_backend(
        "[limits]\nhead_bytes_max = 8192",
        "t.toml:1: limits.target_bytes_max: is 8192, not below limits.head_bytes_max, 8192",
    );
}

#[test]
fn backends_are_checked() {
    for (line, expected) in [
        (
            "balance = \"hash\"",
            "t.toml:3: backends.a.balance: \"hash\" is not available yet (use one of least_requests, round_robin)",
        ),
        ("protocol = \"Modern\"", "t.toml:3: backends.a.protocol: \"Modern\" is none of the known words"),
        (
            "connect_timeout_ms = 0",
            "t.toml:3: backends.a.connect_timeout_ms: is 0, out of range (use 100 to 3600000 ms)",
        ),
    ] {
        refused(&format!("{ONE_BACKEND}{line}\n"), expected);
    }
    for (name, problem) in [
        ("A", "is not a name"),
        ("\"\"", "is not a name"),
        ("\".well-known\"", "is not a name"),
        ("well-known", "is reserved"),
    ] {
        let found = faults(&format!("[backends.{name}]\nendpoints = [\"http://a\"]"));
        assert!(
            found.len() == 1 && found[0].starts_with("t.toml:1: backends.") && found[0].contains(problem),
            "{found:#?}"
        );
    }
    refused(
        "[backends.a]\nendpoints = [\"http://a\", \"http://a\"]",
        "t.toml:2: backends.a.endpoints[1]: \"http://a\" stands here twice",
    );
    refused(
        "[backends.a]\nendpoints = [\"http://A\", \"http://a:80/\"]",
        "t.toml:2: backends.a.endpoints[1]: \"http://a:80/\" stands here twice",
    );
}

#[test]
fn a_password_never_gets_into_a_message() {
    for url in ["http://u:hunter2@a/", "http://u:${PASSWORD}@a/", "http://${PASSWORD} /"] {
        let found = faults(&format!("[backends.a]\nendpoints = [\"{url}\"]"));
        assert!(found.len() == 1 && !found[0].contains("hunter2"), "{found:#?}");
    }
}

#[test]
fn variables_are_replaced_in_every_string() {
    let config = loads("[backends.a]\nendpoints = [\"http://${HOST}:1/$${HOST\"]\n".replace("$${HOST", "x").as_str());
    assert_eq!(config.backends["a"].endpoints[0].host, "10.0.0.7");
    refused_above_backend(
        "include = [\"${EMPTY}.toml\"]",
        "t.toml:1: include[0]: variable EMPTY is empty (give EMPTY a value)",
    );
    refused_above_backend(
        "[server]\npublic_url = \"https://${A B}\"",
        "t.toml:2: server.public_url: refers to \"A B\" as a variable",
    );
    let found = faults(&format!("[server]\nlisten = [\"${{ONE}}:${{TWO}}\"]\n{ONE_BACKEND}"));
    assert_eq!(found.len(), 2, "{found:#?}");
    // Escaped it is a plain text, and so no address.
    refused_above_backend("[server]\nlisten = [\"$${HOST}:1\"]", "\"$${HOST}:1\" is not an address");
}

fn routes(lines: &str) -> String {
    format!("{ONE_BACKEND}[[routes]]\n{lines}\n")
}

#[test]
fn routes_are_read_as_written_and_hosts_in_lower_case() {
    let config =
        loads(&routes("host = \"MCP.Example.com\"\npath = \"/x/*\"\nbackend = \"a\"\nmethods = [\"POST\", \"GET\"]"));
    let route = &config.routes[0];
    assert_eq!(
        (route.host.as_deref(), route.path.as_str(), route.backend.as_deref()),
        (Some("mcp.example.com"), "/x/*", Some("a"))
    );
    assert_eq!(route.methods, ["POST", "GET"]);
}

#[test]
fn routes_are_checked() {
    for (lines, expected) in [
        ("backend = \"a\"", "t.toml:3: routes[0].path: is missing"),
        ("path = \"/a\"", "t.toml:3: routes[0].backend: is missing"),
        ("path = \"/{backend}\"\nbackend = \"a\"", "t.toml:5: routes[0].backend: stands beside a path that captures"),
        (
            "path = \"/a\"\nbackend = \"weather\"",
            "t.toml:5: routes[0].backend: names no backend of this configuration (define it",
        ),
        ("path = \"/{name}\"\nbackend = \"a\"", "t.toml:4: routes[0].path: \"/{name}\" has braces"),
        ("path = \"/.well-known/x\"\nbackend = \"a\"", "t.toml:4: routes[0].path: \"/.well-known/x\" lies under"),
        ("path = \"/a\"\nbackend = \"a\"\nhost = \"a:80\"", "t.toml:6: routes[0].host: \"a:80\" is more than a host"),
        (
            "path = \"/a\"\nbackend = \"a\"\nmethods = [\"post\"]",
            "t.toml:6: routes[0].methods[0]: \"post\" is not a method",
        ),
        ("path = \"/a\"\nbackend = \"a\"\nmethods = []", "t.toml:6: routes[0].methods: is empty"),
        (
            "path = \"/a\"\nbackend = \"a\"\nmethod = \"GET\"",
            "t.toml:6: routes[0].method: is no key that Ringway knows (did you mean methods?)",
        ),
    ] {
        refused(&routes(lines), expected);
    }
}

#[test]
fn two_routes_for_the_same_requests_are_refused() {
    let two = |first: &str, second: &str| {
        let route = |lines: &str| format!("[[routes]]\npath = \"/a\"\nbackend = \"a\"\n{lines}\n");
        format!("{ONE_BACKEND}{}{}", route(first), route(second))
    };
    for (first, second) in [
        ("", ""),
        ("methods = [\"GET\"]", ""),
        ("methods = [\"GET\", \"POST\"]", "methods = [\"POST\"]"),
        ("host = \"A.example\"", "host = \"a.example\""),
    ] {
        refused(&two(first, second), "t.toml:7: routes[1]: meets the same requests as routes[0] in t.toml:3");
    }
    loads(&two("methods = [\"GET\"]", "methods = [\"POST\"]"));
    loads(&two("", "host = \"a.example\""));
}

#[test]
fn includes_bring_backends_and_routes() {
    let directory = Directory::new(&[
        ("main.toml", "include = [\"d/*.toml\", \"d/a.toml\", \"one.toml\"]\n[defaults.backend]\nidle_conns_max = 7\n"),
        ("d/b.toml", "[backends.b]\nendpoints = [\"http://b\"]\n"),
        ("d/a.toml", "[backends.a]\nendpoints = [\"http://a\"]\n[[routes]]\npath = \"/a\"\nbackend = \"one\"\n"),
        ("d/.#a.toml", "left by an editor"),
        ("d/readme.md", "no configuration"),
        ("one.toml", "[backends.one]\nendpoints = [\"http://one\"]\n"),
    ]);
    let loaded = directory.load("main.toml").unwrap();
    let files: Vec<&Path> = loaded.files.iter().map(|path| path.strip_prefix(&directory.0).unwrap()).collect();
    assert_eq!(files, ["main.toml", "d/a.toml", "d/b.toml", "one.toml"].map(Path::new));
    assert_eq!(loaded.config.backends.len(), 3);
    assert!(loaded.config.backends.values().all(|backend| backend.idle_conns_max == 7));
    assert_eq!(loaded.notes.len(), 2, "backends without a route: {:?}", loaded.notes);
}

#[test]
fn a_glob_may_match_nothing_yet_and_says_so() {
    let directory = Directory::new(&[("main.toml", "include = [\"d/*.toml\"]\n"), ("d/readme.md", "")]);
    fs::write(directory.path("main.toml"), format!("include = [\"d/*.toml\"]\n{ONE_BACKEND}")).unwrap();
    let notes = directory.load("main.toml").unwrap().notes;
    assert!(notes.len() == 1 && notes[0].ends_with("main.toml:1: \"d/*.toml\" matches no file"), "{notes:?}");
}

#[test]
fn includes_that_cannot_be_read_are_refused() {
    let directory = Directory::new(&[
        (
            "main.toml",
            "include = [\n\"none.toml\",\n\"none/*.toml\",\n\"dir\",\n\"a[.toml\",\n\"main.toml\",\n\"bad.toml\",\n\"latin.toml\",\n]\n",
        ),
        ("dir/x", ""),
        ("bad.toml", "[backends.x\n"),
    ]);
    fs::write(directory.path("latin.toml"), b"# \xe9\n").unwrap();
    let found = directory.faults();
    let starts = [
        "main.toml:2: include[0]: cannot read none.toml: No such file",
        "main.toml:3: include[1]: \"none/*.toml\" looks into none/, which is no directory",
        "main.toml:4: include[2]: cannot read dir: Is a directory",
        "main.toml:5: include[3]: \"a[.toml\" is no glob",
        "main.toml:6: include[4]: includes the file it stands in",
        "main.toml:8: include[6]: cannot read latin.toml: stream did not contain valid UTF-8",
        "bad.toml:1: is not TOML",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for (found, start) in found.iter().zip(starts) {
        assert!(found.starts_with(start), "{found}\nis not: {start}");
    }
}

#[test]
fn an_included_file_holds_backends_and_routes_only() {
    let directory = Directory::new(&[
        ("main.toml", "include = [\"team.toml\"]\n[backends.a]\nendpoints = [\"http://a\"]\n"),
        ("team.toml", "include = [\"x.toml\"]\n[defaults.backend]\n[server]\n[backends.b]\nendpoints = []\n"),
    ]);
    let found = directory.faults();
    for (found, start) in found.iter().zip([
        "team.toml:1: include: is not allowed in an included file (move it into main.toml",
        "team.toml:2: defaults: is not allowed in an included file",
        "team.toml:3: server: is not allowed in an included file",
        "team.toml:5: backends.b.endpoints: is empty",
    ]) {
        assert!(found.starts_with(start), "{found}\nis not: {start}");
    }
    assert_eq!(found.len(), 4, "{found:#?}");
}

#[test]
fn a_backend_defined_in_two_files_names_both() {
    let directory = Directory::new(&[
        ("main.toml", "include = [\"team.toml\"]\n\n[backends.a]\nendpoints = [\"http://a\"]\n"),
        ("team.toml", "[backends.b]\nendpoints = [\"http://b\"]\n[backends.a]\nendpoints = [\"http://a\"]\n"),
    ]);
    assert_eq!(
        directory.faults(),
        ["team.toml:3: backends.a: is defined again, first in main.toml:3 (rename or remove one of the two)"]
    );
}

#[test]
fn a_main_file_that_cannot_be_read_is_refused() {
    let directory = Directory::new(&[]);
    assert!(directory.faults()[0].starts_with("main.toml: cannot read main.toml: No such file"));
}

#[test]
fn a_secret_comes_from_a_file_and_stays_hidden() {
    let main = "[admin]\ntoken = \"file:token\"\n[backends.a]\nendpoints = [\"http://a\"]\n";
    let directory = Directory::new(&[("main.toml", main), ("token", "0123456789abcdef\n")]);
    let mode = |mode| fs::set_permissions(directory.path("token"), fs::Permissions::from_mode(mode)).unwrap();
    let write = |text: &str| fs::write(directory.path("token"), text).unwrap();

    mode(0o640);
    let config = directory.load("main.toml").unwrap().config;
    assert_eq!(config.admin.token.as_ref().map(|token| token.expose()), Some(TOKEN));
    assert!(!format!("{config:?}").contains(TOKEN));

    mode(0o644);
    assert_eq!(
        directory.faults(),
        ["main.toml:2: admin.token: token is open to everybody (mode 644) (chmod o-rwx token)"]
    );
    mode(0o600);
    for (text, expected) in [
        ("", "main.toml:2: admin.token: token is empty"),
        ("\n", "main.toml:2: admin.token: token is empty"),
        ("0123456789abcdef\n\n", "main.toml:2: admin.token: has bytes that no Authorization header"),
        (&"x".repeat(5000), "main.toml:2: admin.token: cannot read token: larger than 4096 bytes"),
    ] {
        write(text);
        assert!(directory.faults()[0].starts_with(expected), "{:?}", directory.faults());
    }
    fs::remove_file(directory.path("token")).unwrap();
    assert!(directory.faults()[0].starts_with("main.toml:2: admin.token: cannot read token: No such file"));
}

#[test]
fn a_variable_is_never_taken_for_the_path_of_a_secret() {
    let text = format!("[admin]\ntoken = \"${{PATH_LIKE}}\"\n{ONE_BACKEND}");
    let config = config::load_str_with("t.toml", &text, &|_| Some("epoll".into())).map(|_| ()).unwrap_err();
    assert!(config.to_string().contains("has 5 bytes"), "{config}");
    let variables = |name: &str| (name == "PATH_LIKE").then(|| "file:/etc/hostname-of-sorts".to_owned());
    let loaded = config::load_str_with("t.toml", &text, &variables).unwrap();
    assert_eq!(loaded.config.admin.token.unwrap().expose(), "file:/etc/hostname-of-sorts");
}

#[test]
fn the_demo_serves_both_servers_and_may_be_moved() {
    let (modern, legacy) = ("127.0.0.1:4001".parse().unwrap(), "127.0.0.1:4002".parse().unwrap());
    let config = config::demo(modern, legacy, &|_| None).unwrap().config;
    assert_eq!(config.backends.keys().collect::<Vec<_>>(), ["legacy", "modern"]);
    assert_eq!(config.backends["modern"].endpoints[0].port, 4001);
    assert_eq!(config.server.listen, ["127.0.0.1:8080".parse().unwrap()]);
    let moved = |value: &'static str| {
        config::demo(modern, legacy, &|name| (name == "RINGWAY_LISTEN").then(|| value.to_owned()))
    };
    assert_eq!(moved("127.0.0.1:1").unwrap().config.server.listen, ["127.0.0.1:1".parse().unwrap()]);
    let error = moved("\"]\nworkers = 1 #").unwrap_err().to_string();
    assert!(error.starts_with("demo:2: server.listen[0]: \"${RINGWAY_LISTEN}\" is not an address"), "{error}");
}

#[test]
fn the_example_files_load() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut names: Vec<String> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    // No ringway.toml: a fresh clone shows the demo.
    assert_eq!(names, ["edge.toml", "fleet.toml", "minimal.toml"]);
    for name in &names {
        let loaded = config::load_with(&directory.join(name), &variables).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(loaded.notes, Vec::<String>::new(), "{name}");
        let expected = if name == "fleet.toml" { (4, 3) } else { (loaded.config.backends.len(), 1) };
        assert_eq!((loaded.config.backends.len(), loaded.files.len()), expected, "{name}");
    }
}

/// A generator with a fixed seed (xorshift): enough to vary texts, the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).expect("below a usize")
    }
}

#[test]
fn no_text_makes_the_loader_panic() {
    const PIECES: [&str; 30] = [
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "=",
        ".",
        ",",
        "\n",
        "\"",
        "'",
        "\"\"\"",
        "#",
        " ",
        "\\u",
        "${",
        "$${",
        "é\u{1F600}",
        "\0",
        "-1",
        "0x",
        "1e9",
        "true",
        "include",
        "backends.a",
        "endpoints",
        "\"http://[::1]:1/\"",
        "routes",
        "\u{feff}",
    ];
    let whole = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/edge.toml")).unwrap();
    let characters: Vec<char> = whole.chars().collect();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (mut loaded, mut refused) = (0, 0);
    for round in 0..3000 {
        let text: String = if round % 2 == 0 {
            (0..dice.below(40)).map(|_| PIECES[dice.below(PIECES.len())]).collect()
        } else {
            // A true file with one stretch of it replaced.
            let start = dice.below(characters.len());
            let end = (start + dice.below(12)).min(characters.len());
            let piece = PIECES[dice.below(PIECES.len())];
            characters[..start].iter().chain(&piece.chars().collect::<Vec<_>>()).chain(&characters[end..]).collect()
        };
        match load(&text) {
            Ok(_) => loaded += 1,
            Err(error) => {
                refused += 1;
                assert!(!error.faults.is_empty(), "refused without a fault: {text:?}");
            }
        }
    }
    assert!(loaded > 100 && refused > 1000, "{loaded} loaded, {refused} refused");
}
