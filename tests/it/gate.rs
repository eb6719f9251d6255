//! Who is let in by `Origin` and `Host`, whatever the method.

use crate::support::client::CALL;
use crate::support::{Backend, Proxy, json};

/// A request with this host and these header lines.
fn request(method: &str, host: &str, fields: &str) -> String {
    let body = if method == "POST" { CALL } else { "" };
    format!(
        "{method} /mcp/b HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{fields}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn p_106_a_foreign_origin_is_403_for_any_method_and_reaches_no_backend() {
    let backend = Backend::always(json("{}"));
    let proxy = Proxy::builder()
        .server("allowed_origins = [\"https://app.example\"]")
        .backend("b", &[backend.address()])
        .start();
    for method in ["POST", "GET", "DELETE", "OPTIONS"] {
        let mut client = proxy.client();
        for origin in ["https://evil.example", "null", "https://app.example.evil.example"] {
            client.send(request(method, "h", &format!("Origin: {origin}\r\n")));
            let told = client.response();
            assert_eq!(told.status, 403, "{method} {origin}");
            assert_eq!(told.field("content-type"), Some("application/json"));
        }
        assert_eq!(backend.requests(), 0);
    }
    for fields in ["", "Origin: https://app.example\r\n", "Origin: http://h\r\n"] {
        let mut client = proxy.client();
        client.send(request("POST", "h", fields));
        assert_eq!(client.response().status, 200, "{fields}");
        assert!(backend.next_request().contains(fields), "an origin that is let in is the backend's to judge too");
    }
    assert_eq!(proxy.refused("origin"), 12.0);
}

#[test]
fn a_loopback_listener_answers_to_its_own_names_only() {
    let backend = Backend::always(json("{}"));
    let proxy = Proxy::builder()
        .server("allowed_hosts = [\"edge.example\"]")
        .backend("b", &[backend.address()])
        .routes("[[routes]]\nhost = \"routed.example\"\npath = \"/mcp/b\"\nbackend = \"b\"")
        .routes("[[routes]]\npath = \"/mcp/b\"\nbackend = \"b\"")
        .start();
    for (host, status) in [
        ("127.0.0.1:8080", 200),
        ("localhost", 200),
        ("[::1]:8080", 200),
        ("edge.example:443", 200),
        ("routed.example", 200),
        ("rebound.example", 403),
        ("127.0.0.1.rebound.example", 403),
    ] {
        let mut client = proxy.client();
        client.send(request("POST", host, ""));
        assert_eq!(client.response().status, status, "{host}");
    }
    assert_eq!((backend.requests(), proxy.refused("host")), (5, 2.0));
}
