//! `traceparent` and `tracestate` on their way to a backend.

use crate::support::client::CALL;
use crate::support::{Backend, Proxy, json};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CAME: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// What the backend is told of the trace, field by field in order, of a request with these fields.
fn told(proxy: &Proxy, backend: &Backend, fields: &str) -> Vec<(String, String)> {
    let mut client = proxy.client();
    let length = CALL.len();
    client.send(format!("POST /mcp/b HTTP/1.1\r\nHost: h\r\n{fields}Content-Length: {length}\r\n\r\n{CALL}"));
    assert_eq!(client.response().status, 200);
    let request = backend.next_request();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, CALL);
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    fields
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .filter(|(name, _)| name.starts_with("trace"))
        .collect()
}

#[test]
fn p_045_passed_is_untouched() {
    let backend = Backend::always(json("{}"));
    let proxy = Proxy::before(&[backend.address()]);
    assert_eq!(told(&proxy, &backend, ""), []);
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let fields = format!("Tracestate: a=1\r\ntraceparent: {CAME}\r\ntracestate: b=2\r\n");
    let expected = [field("tracestate", "a=1"), field("traceparent", CAME), field("tracestate", "b=2")];
    assert_eq!(told(&proxy, &backend, &fields), expected);
    let nonsense = "traceparent: nonsense\r\ntraceparent: twice\r\ntracestate: x\r\n";
    let expected = [field("traceparent", "nonsense"), field("traceparent", "twice"), field("tracestate", "x")];
    assert_eq!(told(&proxy, &backend, nonsense), expected);
}

#[test]
fn p_045_created_continues_a_valid_trace_with_a_span_of_its_own() {
    let backend = Backend::always(json("{}"));
    let proxy = Proxy::builder().server("traceparent = \"create\"").backend("b", &[backend.address()]).start();
    let fields = format!("tracestate: a=1\r\nTraceParent: {CAME}\r\ntracestate: b=2\r\n");
    let seen = told(&proxy, &backend, &fields);
    let names: Vec<&str> = seen.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["tracestate", "tracestate", "traceparent"]);
    assert_eq!((seen[0].1.as_str(), seen[1].1.as_str()), ("a=1", "b=2"));
    let parts: Vec<&str> = seen[2].1.split('-').collect();
    assert_eq!((parts[0], parts[1], parts[3]), ("00", TRACE, "01"));
    assert!(parts[2].len() == 16 && parts[2] != "00f067aa0ba902b7", "{parts:?}");
}

#[test]
fn p_045_created_begins_a_trace_where_none_is_valid() {
    let backend = Backend::always(json("{}"));
    let proxy = Proxy::builder().server("traceparent = \"create\"").backend("b", &[backend.address()]).start();
    let twice = format!("traceparent: {CAME}\r\ntraceparent: {CAME}\r\ntracestate: a=1\r\n");
    let hop = format!("Connection: traceparent\r\ntraceparent: {CAME}\r\ntracestate: a=1\r\n");
    let mut seen = Vec::new();
    for fields in [
        "",
        "tracestate: a=1\r\n",
        "traceparent: 00-00000000000000000000000000000000-00f067aa0ba902b7-01\r\ntracestate: a=1\r\n",
        &twice,
        &hop,
    ] {
        let told = told(&proxy, &backend, fields);
        let [(name, value)] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!(name, "traceparent");
        let parts: Vec<&str> = value.split('-').collect();
        assert_eq!((parts[0], parts[3]), ("00", "00"));
        assert!(parts[1].len() == 32 && parts[1] != TRACE && parts[2].len() == 16, "{value}");
        seen.extend([parts[1].to_owned(), parts[2].to_owned()]);
    }
    let ids = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), ids, "no id is given twice");
}
