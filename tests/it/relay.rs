//! Requests reach the backend and answers come back, whatever their framing.

use crate::support::client::{CALL, post};
use crate::support::{Backend, Proxy, json};

#[test]
fn a_call_reaches_the_backend_with_our_framing_and_its_answer_comes_back() {
    let backend = Backend::always(json("{\"a\":1}"));
    let proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    client.send(format!(
        "POST /mcp/b?q=1 HTTP/1.1\r\nHost: public.example:81\r\nX-Other: kept \r\nconnection: x-secret, close\r\nX-Secret: s\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{CALL}",
        CALL.len()
    ));
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (200, "{\"a\":1}"));
    assert_eq!(response.field("connection"), Some("close"));
    assert!(client.ended());
    let expected = format!(
        "POST /mcp?q=1 HTTP/1.1\r\nHost: {}\r\nX-Other: kept\r\nContent-Type: application/json\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: public.example:81\r\nForwarded: for=127.0.0.1;host=\"public.example:81\";proto=http\r\nContent-Length: {}\r\n\r\n{CALL}",
        backend.address(),
        CALL.len()
    );
    assert_eq!(backend.next_request(), expected);
}

#[test]
fn connections_on_both_sides_are_used_again() {
    let backend = Backend::always(json("{}"));
    let proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    for _ in 0..5 {
        assert_eq!(client.call().status, 200);
    }
    assert_eq!((backend.requests(), backend.connections()), (5, 1));
    assert_eq!(proxy.metric("ringway_upstream_reused_total"), 4.0);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let backend = Backend::scripted(|exchange| {
        while let Some(request) = exchange.request() {
            let body = request.split("\r\n\r\n").nth(1).unwrap().to_owned();
            exchange.send(json(&body));
        }
    });
    let proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    let bodies: Vec<String> = (0..50).map(|n| format!("{{\"id\":{n}}}")).collect();
    client.send(bodies.iter().map(|body| post(body)).collect::<String>());
    for body in &bodies {
        assert_eq!(client.response().text(), *body);
    }
}

/// The fields of the request the backend saw that tell who sent it.
fn origin_fields(backend: &Backend) -> Vec<String> {
    let request = backend.next_request();
    let is_origin = |line: &&str| line.starts_with("X-Forwarded-") || line.starts_with("Forwarded:");
    request.lines().filter(is_origin).map(str::to_owned).collect()
}

#[test]
fn of_what_proxies_say_only_the_trusted_end_is_kept() {
    let backend = Backend::always(json("{}"));
    let proxy = Proxy::builder().server("trusted_hops = 2").backend("b", &[backend.address()]).start();
    let mut client = proxy.client();
    client.send(
        "GET /mcp/b HTTP/1.1\r\nHost: inner\r\nX-Forwarded-For: 6.6.6.6, 3.3.3.3\r\nX-Forwarded-For: 2.2.2.2\r\n\
         X-Forwarded-Proto: https\r\nX-Forwarded-Host: public.example\r\nForwarded: for=3.3.3.3;proto=https\r\n\r\n",
    );
    assert_eq!(client.response().status, 200);
    let expected = [
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: public.example",
        "Forwarded: for=3.3.3.3;proto=https",
        "X-Forwarded-For: 3.3.3.3, 2.2.2.2, 127.0.0.1",
    ];
    assert_eq!(origin_fields(&backend), expected);
    client.send("GET /mcp/b HTTP/1.1\r\nHost: inner\r\n\r\n");
    assert_eq!(client.response().status, 200);
    let expected = ["X-Forwarded-For: 127.0.0.1", "X-Forwarded-Proto: http", "X-Forwarded-Host: inner"];
    assert_eq!(origin_fields(&backend), expected);
}

#[test]
fn an_ipv6_client_is_named_in_brackets_where_the_grammar_asks_for_them() {
    let backend = Backend::always(json("{}"));
    let proxy = Proxy::builder().server("listen = [\"[::1]:0\"]").backend("b", &[backend.address()]).start();
    let mut client = proxy.client();
    client.send("GET /mcp/b HTTP/1.1\r\nHost: [::1]:80\r\n\r\n");
    assert_eq!(client.response().status, 200);
    let expected = [
        "X-Forwarded-For: ::1",
        "X-Forwarded-Proto: http",
        "X-Forwarded-Host: [::1]:80",
        "Forwarded: for=\"[::1]\";host=\"[::1]:80\";proto=http",
    ];
    assert_eq!(origin_fields(&backend), expected);
}
