//! Too much at once is refused at once, politely, and for as long as it is too much; and no refusal
//! tells a stranger where a backend is.

use serde_json::{Value, json as value};

use crate::support::client::{CALL, GET, post};
use crate::support::{Backend, BlackHole, Client, Gate, Proxy, Reserved, Response, eventually, json};

/// The answer comes without a request, and the connection ends with it.
fn refused_at_the_door(client: &mut Client) {
    let response = client.response();
    assert_eq!((response.status, response.field("retry-after")), (503, Some("1")));
    assert!(client.ended());
}

#[test]
fn a_worker_takes_no_more_connections_than_allowed() {
    let backend = Backend::always(json("{}"));
    let proxy =
        Proxy::builder().workers(1).limits("connections_per_worker_max = 2").backend("b", &[backend.address()]).start();
    let (mut first, mut second) = (proxy.client(), proxy.client());
    assert_eq!((first.call().status, second.call().status), (200, 200));
    refused_at_the_door(&mut proxy.client());
    assert_eq!(proxy.refused("connections_max"), 1.0);
    assert_eq!((first.call().status, second.call().status), (200, 200));
    drop(first);
    eventually("its place is free", || proxy.metric("ringway_connections{side=\"client\"}") == 1.0);
    assert_eq!(proxy.client().call().status, 200);
}

#[test]
fn one_address_cannot_take_the_places_of_all() {
    let backend = Backend::always(json("{}"));
    let proxy =
        Proxy::builder().workers(1).limits("connections_per_ip_max = 2").backend("b", &[backend.address()]).start();
    let (mut first, mut second) = (proxy.client(), proxy.client());
    assert_eq!((first.call().status, second.call().status), (200, 200));
    refused_at_the_door(&mut proxy.client());
    assert_eq!(proxy.refused("connections_per_ip"), 1.0);
    let mut other = Client::connect_from([127, 0, 0, 2], proxy.address());
    assert_eq!(other.call().status, 200);
    drop((first, second));
    eventually("the places are free", || proxy.metric("ringway_connections{side=\"client\"}") == 1.0);
    assert_eq!(proxy.client().call().status, 200);
}

#[test]
fn a_worker_takes_no_more_exchanges_than_allowed() {
    let gate = Gate::new();
    let answer = gate.clone();
    let backend = Backend::scripted(move |exchange| {
        while exchange.request().is_some() {
            answer.pass();
            exchange.send(json("{}"));
        }
    });
    let proxy =
        Proxy::builder().workers(1).limits("exchanges_per_worker_max = 1").backend("b", &[backend.address()]).start();
    let (mut first, mut second) = (proxy.client(), proxy.client());
    first.send(post(CALL));
    backend.next_request();
    for _ in 0..2 {
        let response = second.call();
        assert_eq!((response.status, response.field("retry-after")), (503, Some("1")));
        assert_eq!(response.field("connection"), None, "the client may try again on its connection");
        assert_eq!(error_of(&response)["id"], 1);
    }
    assert_eq!(proxy.refused("exchanges_max"), 2.0);
    gate.open();
    assert_eq!(first.response().status, 200);
    second.send(post(CALL));
    gate.open();
    assert_eq!(second.response().status, 200);
}

#[test]
fn beyond_the_hard_bound_of_memory_nothing_new_is_taken() {
    const BOUND: f64 = 1_048_576.0;
    let backend = Backend::always(json("{}"));
    let proxy = Proxy::builder()
        .workers(1)
        .limits(&format!("memory_soft_bytes = {BOUND}\nmemory_hard_bytes = {BOUND}"))
        .routes("[[routes]]\npath = \"/mcp/b\"\nbackend = \"b\"\nbody = \"envelope\"")
        .backend("b", &[backend.address()])
        .start();
    let mut early = proxy.client();
    assert_eq!(early.call().status, 200);
    // A message that is to be read whole: its buffer has room for twice what has come of it.
    let message = post(&CALL.replace("{}", &format!("{{\"text\":\"{}\"}}", "x".repeat(900_000))));
    let (most, rest) = message.split_at(700_000);
    let mut large = proxy.client();
    large.send(most);
    let held = || proxy.metric("ringway_memory_bytes");
    eventually("it holds all there may be", || held() >= BOUND);
    let response = early.call();
    assert_eq!((response.status, response.field("retry-after")), (503, Some("1")));
    assert_eq!(error_of(&response)["id"], 1);
    // Beyond the soft bound, which is the same here, connections end with their answer.
    assert_eq!(response.field("connection"), Some("close"));
    refused_at_the_door(&mut proxy.client());
    assert_eq!((proxy.refused("memory_max"), backend.requests()), (2.0, 1));
    // What was taken before is served, and then everybody is again.
    large.send(rest);
    assert_eq!(large.response().status, 200);
    eventually("its memory is free", || held() < BOUND);
    assert_eq!(proxy.client().call().status, 200);
    assert_eq!((proxy.refused("memory_max"), backend.requests()), (2.0, 3));
}

/// The JSON-RPC error that a response is, checked in its form.
fn error_of(response: &Response) -> Value {
    assert_eq!(response.field("content-type"), Some("application/json"));
    let body: Value = serde_json::from_slice(&response.body).expect("JSON");
    assert_eq!(body["jsonrpc"], "2.0");
    assert!(body["error"]["message"].is_string() && body.get("result").is_none(), "{body}");
    body
}

#[test]
fn an_error_carries_the_id_of_its_request() {
    let refusing = Reserved::new();
    let proxy = Proxy::before(&[refusing.address]);
    let mut client = proxy.client();
    // Text and not numbers: these must come back as they were written.
    for id in ["1", "0", "-5", "\"one\"", "\"\"", r#""a\"\u00e9\\""#, "12345678901234567890123456789"] {
        client.send(post(&format!(r#"{{"jsonrpc":"2.0","method":"tools/list","params":{{"id":7}},"id":{id}}}"#)));
        let response = client.response();
        assert_eq!(response.status, 502);
        error_of(&response);
        assert!(response.text().contains(&format!("\"id\":{id},")), "{id}: {}", response.text());
    }
    for body in [r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, "[]", "no json", ""] {
        client.send(post(body));
        let response = client.response();
        assert_eq!(error_of(&response).get("id"), None, "{body}");
    }
}

#[test]
fn each_failure_has_its_status_and_code_and_names_no_backend() {
    let (refusing, hole) = (Reserved::new(), BlackHole::new());
    let (closing, silent) = (
        Backend::always_then_close(""),
        Backend::scripted(|exchange| {
            exchange.request();
            exchange.wait_for_end();
        }),
    );
    let garbled = Backend::always_then_close("nonsense\r\n\r\n");
    let proxy = Proxy::builder()
        .defaults("connect_timeout_ms = 200\nfirst_byte_timeout_ms = 200")
        .backend("refusing", &[refusing.address])
        .backend("hole", &[hole.address])
        .backend("closing", &[closing.address()])
        .backend("silent", &[silent.address()])
        .backend("garbled", &[garbled.address()])
        .backend_at("nowhere", "http://internal-name.invalid/mcp")
        .start();
    let failures =
        [("refusing", 502), ("hole", 504), ("closing", 502), ("silent", 504), ("garbled", 502), ("nowhere", 503)];
    let mut client = proxy.client();
    for (backend, status) in failures {
        client.send(post(CALL).replace("/mcp/b", &format!("/mcp/{backend}")));
        let response = client.response();
        assert_eq!(response.status, status, "{backend}");
        let body = error_of(&response);
        assert_eq!((&body["id"], &body["error"]["code"]), (&value!(1), &value!(-32603)));
        let text = response.head.clone() + &response.text();
        for secret in ["127.0.0.1", "internal-name", "invalid"] {
            assert!(!text.contains(secret), "{backend} is told of: {text}");
        }
    }
    client.send(GET.replace("/mcp/b", "/mcp/unknown"));
    let response = client.response();
    assert_eq!((response.status, &error_of(&response)["error"]["code"]), (404, &value!(-32601)));
}

#[test]
fn a_body_beyond_its_limit_is_refused_known_or_not() {
    let backend = Backend::scripted(|exchange| exchange.wait_for_end());
    let proxy = Proxy::builder().limits("body_bytes_max = 1024").backend("b", &[backend.address()]).start();
    let chunked = format!(
        "POST /mcp/b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\n{}\r\n0\r\n\r\n",
        "x".repeat(4096)
    );
    for request in [post(&"x".repeat(1025)), chunked] {
        let mut client = proxy.client();
        client.send(request);
        let response = client.response();
        assert_eq!((response.status, response.field("connection")), (413, Some("close")));
        error_of(&response);
    }
    assert_eq!(proxy.refused("body_too_large"), 2.0);
    assert_eq!(backend.connections(), 0);
}
