//! The access log: what a line says, what none may say, and how the file lives.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use ringway::control::Outcome;
use serde_json::{Value, json as value};
use tempfile::TempDir;

use crate::support::backend::{EVENT_STREAM, LAST_CHUNK, chunk, event};
use crate::support::client::{CALL, GET, post};
use crate::support::process::say;
use crate::support::{Backend, Gate, Proxy, ProxyBuilder, Reserved, TempFile, eventually, json};

fn log_to(place: impl std::fmt::Display) -> String {
    format!("[log]\naccess = \"{place}\"")
}

/// With backend `b`, and an access log in this file.
fn logging(backend: &Backend, file: &Path) -> ProxyBuilder {
    Proxy::builder().backend("b", &[backend.address()]).routes(&log_to(file.display()))
}

/// A directory of the test's own and a file that is to be in it.
fn place() -> (TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("access.log");
    (directory, file)
}

/// Waits until the file has so many lines; each must be JSON.
fn lines(file: &Path, count: usize) -> Vec<Value> {
    let read = || fs::read_to_string(file).unwrap_or_default();
    eventually(&format!("{} has {count} lines", file.display()), || read().lines().count() >= count);
    let text = read();
    assert!(text.ends_with('\n'));
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(lines.len(), count, "{text}");
    lines
}

/// The line has these members, and others.
fn says(line: &Value, expected: &Value) {
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(line.get(name), Some(value), "{name} of {line}");
    }
}

const MODERN_CALL: &str = concat!(
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"Grüße","arguments":{},"_meta":{"#,
    r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#
);

/// What mirrors it, and a trace.
const MODERN: &str = "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: =?base64?R3LDvMOfZQ==?=\r\n\
    traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";

#[test]
fn each_request_is_one_line_that_says_what_became_of_it() {
    let gate = Gate::new();
    let held = gate.clone();
    let backend = Backend::scripted(move |exchange| {
        while let Some(request) = exchange.request() {
            match request {
                request if request.starts_with("GET") => {
                    exchange.send([EVENT_STREAM, &chunk(&event("one")), &chunk(&event("two")), LAST_CHUNK].concat())
                }
                request if request.contains("hold") => {
                    held.pass();
                    exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ntoo short");
                    return exchange.close();
                }
                _ => exchange.send(json("{\"answer\":42}")),
            };
        }
    });
    let refusing = Reserved::new();
    let (_directory, file) = place();
    let proxy = logging(&backend, &file)
        .backend("refusing", &[refusing.address])
        .limits("body_bytes_max = 2000")
        .workers(1)
        .start();
    let mut client = proxy.client();
    let hold = CALL.replace("echo", "hold");
    let mut count = 0;
    let mut said = |request: String| {
        client.send(request);
        client.response();
        count += 1;
        lines(&file, count).pop().unwrap()
    };

    let line = said(post(MODERN_CALL).replacen("Host", &format!("{MODERN}Host"), 1).replace("/mcp/b", "/mcp/b?q=1"));
    let expected = value!({
        "client": "127.0.0.1", "http_method": "POST", "path": "/mcp/b", "mcp_method": "tools/call", "name": "Grüße",
        "status": 200, "refused": null, "route": "/mcp/{backend}", "backend": "b", "era": "modern", "share": "none",
        "request_bytes": MODERN_CALL.len(), "response_bytes": 13, "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "worker": 0,
    });
    says(&line, &expected);
    let time = |name: &str| line[name].as_f64().expect(name);
    assert!(time("proxy_ms") + time("upstream_ms") <= time("duration_ms") + 0.01, "{line}");

    let line = said(GET.replace("Host", "Mcp-Name: not-of-this-era\r\nHost"));
    let two_events = 2 * event("one").len();
    says(&line, &value!({"http_method": "GET", "status": 200, "response_bytes": two_events, "request_bytes": 0}));
    says(&line, &value!({"mcp_method": null, "name": null, "trace_id": null}));

    let line = said(post(CALL).replace("/mcp/b", "/nowhere"));
    says(&line, &value!({"path": "/nowhere", "status": 404, "refused": "no_route", "route": null, "backend": null}));
    says(&line, &value!({"upstream_ms": null, "request_bytes": CALL.len(), "response_bytes": 0}));

    let line = said(post(CALL).replace("/mcp/b", "/mcp/refusing"));
    says(&line, &value!({"status": 502, "refused": "connect_failed", "backend": "refusing", "upstream_ms": null}));

    // Cut off by the backend.
    client.send(post(&hold));
    gate.open();
    client.head();
    assert_eq!(client.rest(), b"too short");
    let line = lines(&file, 5).pop().unwrap();
    says(&line, &value!({"status": 200, "refused": "upstream_truncated", "response_bytes": 9}));

    // Left by the client.
    let mut client = proxy.client();
    client.send(post(&hold));
    eventually("the backend is asked", || backend.requests() == 4);
    client.reset();
    let line = lines(&file, 6).pop().unwrap();
    says(&line, &value!({"status": null, "refused": "client_gone", "backend": "b"}));
    assert!(line["upstream_ms"].is_number(), "{line}");

    // Refused before its body is read; the connection ends with the answer.
    let mut client = proxy.client();
    client.send(post(&"x".repeat(3000)));
    assert_eq!(client.response().status, 413);
    let line = lines(&file, 7).pop().unwrap();
    says(&line, &value!({"path": "/mcp/b", "status": 413, "refused": "body_too_large", "backend": null}));
    assert_eq!(proxy.metric("ringway_requests_total"), 7.0);
    assert_eq!(proxy.metric("ringway_log_lines_lost_total"), 0.0);
}

#[test]
fn its_members_are_those_of_the_documentation() {
    let backend = Backend::always(json("{}"));
    let (_directory, file) = place();
    let proxy = logging(&backend, &file).start();
    proxy.client().call();
    lines(&file, 1);
    let line = fs::read_to_string(&file).unwrap();
    let documentation = include_str!("../../docs/access-log.md");
    let rows = documentation.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let mut at = 0;
    let mut documented = 0;
    for (name, _) in rows {
        at += line[at..].find(&format!("\"{name}\":")).unwrap_or_else(|| panic!("{name} is not next in {line}"));
        documented += 1;
    }
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line.as_object().unwrap().len(), documented);
    let example = documentation.lines().find(|line| line.starts_with("{\"time\"")).expect("an example");
    let example: Value = serde_json::from_str(example).expect("JSON");
    assert!(example.as_object().unwrap().keys().eq(line.as_object().unwrap().keys()));
}

#[test]
fn p_112_no_secret_is_logged() {
    let answer = "HTTP/1.1 200 OK\r\nSet-Cookie: hidden\r\nMcp-Session-Id: hidden\r\nX-Answer: hidden\r\n\
        Content-Length: 26\r\n\r\n{\"requestState\": \"hidden\"}";
    let backend = Backend::always(answer);
    // What goes to stderr is checked too: the one log beside the other.
    let process = Proxy::builder()
        .backend("b", &[backend.address()])
        .routes(&log_to("stderr"))
        .server("traceparent = \"create\"")
        .start_process(&TempFile::new());
    let body = r#"{"jsonrpc":"2.0","id":"hidden","method":"tools/call","params":{"name":"echo","requestState":"hidden","inputResponses":{"a":"hidden"},"arguments":{"key":"hidden"},"_meta":{"traceparent":"hidden","x":"hidden"}}}"#;
    let fields = "Authorization: Bearer hidden\r\nProxy-Authorization: Basic hidden\r\nCookie: s=hidden\r\nX-Api-Key: hidden\r\n\
        Mcp-Param-Key: hidden\r\nMcp-Param-Region: =?base64?aGlkZGVu?=\r\nUser-Agent: hidden\r\nReferer: http://hidden/\r\n\
        traceparent: hidden\r\ntracestate: k=hidden\r\nbaggage: user=hidden\r\nX-Forwarded-For: hidden\r\nLast-Event-ID: hidden\r\n";
    let mut sent = 0;
    for era in [
        "Mcp-Session-Id: hidden\r\n",
        "MCP-Protocol-Version: hidden\r\nMcp-Session-Id: hidden\r\n",
        "MCP-Protocol-Version: 2026-07-28\r\nMcp-Session-Id: hidden\r\nMcp-Method: tools/call\r\nMcp-Name: echo\r\n",
        "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: hidden\r\n",
        "",
    ] {
        for path in ["/mcp/b?token=hidden", "/nowhere?token=hidden"] {
            let request = post(body).replace("/mcp/b", path);
            let mut client = process.client();
            client.send(request.replacen("Host: test", format!("Host: hidden.example\r\n{fields}{era}").trim_end(), 1));
            client.response();
            sent += 1;
        }
    }
    let mut logged = Vec::new();
    eventually("every request is logged", || {
        logged.extend(process.logged());
        logged.iter().filter(|line| line["http_method"] == "POST").count() == sent
    });
    assert!(logged.iter().any(|line| line["name"] == "echo"));
    for line in logged {
        assert!(!line.to_string().to_ascii_lowercase().contains("hidden"), "{line}");
    }
}

#[test]
fn a_file_that_was_moved_away_is_opened_anew() {
    let backend = Backend::always(json("{}"));
    let (_directory, file) = place();
    let config = TempFile::new();
    let process = logging(&backend, &file).start_process(&config);
    let moved = |number: usize| file.with_extension(format!("log.{number}"));
    process.client().call();
    lines(&file, 1);
    fs::rename(&file, moved(1)).unwrap();
    process.client().call();
    lines(&moved(1), 2);
    process.signal(Signal::SIGHUP);
    process.logs("configuration reloaded");
    process.client().call();
    lines(&file, 1);

    // Whoever rotates logs does not look at the configuration.
    config.write("nonsense");
    fs::rename(&file, moved(2)).unwrap();
    process.signal(Signal::SIGHUP);
    process.logs("reload refused, the configuration stays as it is");
    process.client().call();
    lines(&file, 1);
    assert_eq!((lines(&moved(1), 2).len(), lines(&moved(2), 1).len()), (2, 1));
}

#[test]
fn it_comes_and_goes_and_moves_by_reload() {
    let backend = Backend::always(json("{}"));
    let (directory, file) = place();
    let config = TempFile::new();
    let with = |place: &str| Proxy::builder().backend("b", &[backend.address()]).routes(&log_to(place)).text();
    let mut proxy = Proxy::builder().backend("b", &[backend.address()]).start_from(config.path());
    let mut client = proxy.client();
    let mut reload = |place: &str| {
        config.write(&with(place));
        proxy.reloads();
        assert_eq!(proxy.operator().page("/config")["config"]["log"]["access"], place);
        assert_eq!(client.call().status, 200);
    };
    reload("off");
    reload(file.to_str().unwrap());
    lines(&file, 1);
    let other = directory.path().join("other.log");
    reload(other.to_str().unwrap());
    lines(&other, 1);
    reload("off");

    let nowhere = directory.path().join("not-there/access.log");
    config.write(&with(nowhere.to_str().unwrap()));
    let Some(Outcome::Refused(faults)) = proxy.server().control.reload() else { panic!("not refused") };
    assert_eq!((faults.len(), faults[0].key.as_str()), (1, "log.access"));
    assert!(faults[0].problem.contains(nowhere.to_str().unwrap()), "{}", faults[0]);
    assert_eq!(client.call().status, 200);
    assert_eq!((lines(&file, 1).len(), lines(&other, 1).len()), (1, 1));
}

#[test]
fn a_file_that_cannot_be_opened_ends_the_start() {
    let backend = Backend::always(json("{}"));
    let (directory, _) = place();
    let config = TempFile::with(&logging(&backend, directory.path()).text());
    let said = say([std::ffi::OsStr::new("run"), "--config".as_ref(), config.path().as_os_str()]);
    assert_eq!(said.code, 2);
    assert!(said.stderr.contains("log.access: cannot open"), "{}", said.stderr);
}

#[test]
fn lines_that_cannot_be_written_are_counted_and_nothing_waits() {
    let backend = Backend::always(json("{}"));
    let proxy = logging(&backend, Path::new("/dev/full")).start();
    let mut client = proxy.client();
    for _ in 0..3 {
        assert_eq!(client.call().status, 200);
    }
    eventually("the lines are counted", || proxy.metric("ringway_log_lines_lost_total") == 3.0);
}

#[test]
fn the_last_lines_are_there_when_the_process_has_ended() {
    let backend = Backend::always(json("{}"));
    let (_directory, file) = place();
    let process = logging(&backend, &file).start_process(&TempFile::new());
    let mut client = process.client();
    for _ in 0..5 {
        assert_eq!(client.call().status, 200);
    }
    process.signal(Signal::SIGTERM);
    assert_eq!(process.end().code(), Some(0));
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().filter(|line| serde_json::from_str::<Value>(line).is_ok()).count(), 5, "{text}");
}
