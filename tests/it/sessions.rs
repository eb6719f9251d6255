//! Legacy sessions: the id a client holds is our sealed token, and finds its endpoint from anywhere.

use ringway::mcp::{Binding, Session, SessionKeys};
use serde_json::Value;

use crate::support::session::{ask, initialize, legacy_server};
use crate::support::{Backend, Proxy, ProxyBuilder, json};

const KEYS: &str = "[sessions]\nkeys = [\"one-key-of-many-bytes\"]";

#[test]
fn a_session_finds_its_endpoint_from_every_connection_and_worker() {
    // Names too long to stand in a token by chance.
    let servers = ["eastern", "western", "northern"].map(legacy_server);
    let addresses = servers.each_ref().map(Backend::address);
    let proxy = Proxy::before(&addresses);
    for _ in 0..12 {
        let token = initialize(&mut proxy.client());
        let told = ask(&mut proxy.client(), &token, "").text();
        for _ in 0..8 {
            let response = ask(&mut proxy.client(), &token, "");
            assert_eq!((response.status, response.text()), (200, told.clone()));
            assert_eq!(response.field("mcp-session-id"), Some(token.as_str()), "the id stays what the client knows");
        }
        let upstream_id = told.split(' ').nth(1).unwrap();
        assert!(!token.contains(upstream_id), "the backend's id is not for clients");
    }
}

#[test]
fn a_forged_or_foreign_session_is_404_before_any_backend_hears_of_it() {
    let server = legacy_server("x");
    let proxy = Proxy::builder().backend("b", &[server.address()]).backend("other", &[server.address()]).start();
    let token = initialize(&mut proxy.client());
    let seen = server.requests();
    let mut forged = token.clone().into_bytes();
    forged[40] = if forged[40] == b'A' { b'B' } else { b'A' };
    for id in
        ["x-0", "b85bc45f5230049a37718adfa468a644", std::str::from_utf8(&forged).unwrap(), &token[..token.len() - 1]]
    {
        let response = ask(&mut proxy.client(), id, "");
        assert_eq!(response.status, 404, "{id}");
        assert!(response.text().contains("session not found"));
    }
    let mut client = proxy.client();
    client.send(format!("GET /mcp/other HTTP/1.1\r\nHost: h\r\nMcp-Session-Id: {token}\r\n\r\n"));
    assert_eq!(client.response().status, 404, "a session of another backend");
    assert_eq!(server.requests(), seen);
    assert_eq!(proxy.refused("session_unknown"), 5.0);
    let event = |event: &str| proxy.metric(&format!("ringway_sessions_total{{event=\"{event}\"}}"));
    assert_eq!(["opened", "resumed", "refused_forged", "refused_endpoint"].map(event), [1.0, 0.0, 4.0, 1.0]);
}

#[test]
fn replicas_and_restarts_with_the_same_key_know_each_others_sessions() {
    let servers = ["x", "y"].map(legacy_server);
    let addresses = servers.each_ref().map(Backend::address);
    let replica = || Proxy::builder().backend("b", &addresses).routes(KEYS).start();
    let first = replica();
    let tokens: Vec<String> = (0..6).map(|_| initialize(&mut first.client())).collect();
    let second = replica();
    for token in &tokens {
        let told = ask(&mut first.client(), token, "").text();
        assert_eq!(ask(&mut second.client(), token, "").text(), told);
    }
    drop(first);
    let restarted = replica();
    for token in &tokens {
        assert_eq!(ask(&mut restarted.client(), token, "").status, 200);
    }
    let stranger = Proxy::before(&addresses);
    assert_eq!(ask(&mut stranger.client(), &tokens[0], "").status, 404);
}

#[test]
fn sessions_survive_a_reload_and_end_with_their_endpoint() {
    let servers = ["x", "y"].map(legacy_server);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ringway.toml");
    let with = |addresses: &[std::net::SocketAddr]| Proxy::builder().backend("b", addresses);
    let mut proxy = with(&[servers[0].address()]).start_from(&path);
    let token = initialize(&mut proxy.client());
    let reload = |proxy: &mut Proxy, builder: ProxyBuilder| {
        std::fs::write(&path, builder.text()).unwrap();
        let outcome = proxy.server().control.reload();
        assert!(matches!(outcome, Some(ringway::control::Outcome::Done(_))), "{outcome:?}");
    };
    reload(&mut proxy, with(&[servers[1].address(), servers[0].address()]));
    assert_eq!(ask(&mut proxy.client(), &token, "").status, 200);
    reload(&mut proxy, with(&[servers[1].address()]));
    assert_eq!(ask(&mut proxy.client(), &token, "").status, 404);
}

#[test]
fn a_bound_session_is_refused_to_another_credential() {
    let server = legacy_server("x");
    let route = "[[routes]]\npath = \"/mcp/b\"\nbackend = \"b\"\nsession_binding = \"credential\"";
    let proxy = Proxy::builder().backend("b", &[server.address()]).routes(route).start();
    let mut client = proxy.client();
    client.send("POST /mcp/b HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer a\r\nContent-Length: 2\r\n\r\n{}");
    let token = client.response().field("mcp-session-id").unwrap().to_owned();
    assert_eq!(ask(&mut client, &token, "Authorization: Bearer a\r\n").status, 200);
    assert_eq!(ask(&mut client, &token, "Authorization: Bearer b\r\n").status, 404);
    assert_eq!(ask(&mut client, &token, "").status, 404);
    client.send(format!(
        "DELETE /mcp/b HTTP/1.1\r\nHost: h\r\nMcp-Session-Id: {token}\r\nAuthorization: Bearer a\r\n\r\n"
    ));
    assert_eq!(client.response().status, 200);
    let event = |event: &str| proxy.metric(&format!("ringway_sessions_total{{event=\"{event}\"}}"));
    assert_eq!(["opened", "resumed", "refused_binding", "ended"].map(event), [1.0, 2.0, 2.0, 1.0]);
}

#[test]
fn a_session_that_is_too_old_is_refused() {
    let server = legacy_server("x");
    let old = Session { endpoint: 1, issued_minutes: 0, binding: Binding::default(), upstream_id: b"x-0".to_vec() };
    let token = SessionKeys::new([&b"one-key-of-many-bytes"[..]]).seal(&old, [7; 24]);
    let proxy =
        Proxy::builder().backend("b", &[server.address()]).routes(&format!("{KEYS}\nmax_age_ms = 2592000000")).start();
    assert_eq!(ask(&mut proxy.client(), &token, "").status, 404);
    assert_eq!(proxy.metric("ringway_sessions_total{event=\"refused_expired\"}"), 1.0);
}

#[test]
fn p_002_a_session_id_means_nothing_to_a_modern_request() {
    let server = Backend::always("HTTP/1.1 200 OK\r\nMcp-Session-Id: minted\r\nContent-Length: 2\r\n\r\n{}");
    let proxy = Proxy::before(&[server.address()]);
    let response = ask(&mut proxy.client(), "anything", "MCP-Protocol-Version: 2026-07-28\r\n");
    assert_eq!(response.status, 200);
    assert_eq!(response.field("mcp-session-id"), None);
}

#[test]
fn p_088_no_route_is_not_404_to_a_session() {
    let server = legacy_server("x");
    let proxy = Proxy::before(&[server.address()]);
    let token = initialize(&mut proxy.client());
    let mut client = proxy.client();
    client.send(format!("POST /nowhere HTTP/1.1\r\nHost: h\r\nMcp-Session-Id: {token}\r\nContent-Length: 0\r\n\r\n"));
    assert_eq!(client.response().status, 400);
    client.send("POST /nowhere HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.response().status, 404);
}

#[test]
fn the_eras_seen_are_counted_and_shown() {
    let (old, new, silent) = (legacy_server("x"), Backend::always(json("{}")), Backend::always(json("{}")));
    let proxy = Proxy::builder()
        .backend("b", &[old.address()])
        .backend("new", &[new.address()])
        .backend("silent", &[silent.address()])
        .start();
    let token = initialize(&mut proxy.client());
    assert_eq!(ask(&mut proxy.client(), &token, "MCP-Protocol-Version: 2025-06-18\r\n").status, 200);
    let mut client = proxy.client();
    for path in ["/mcp/new", "/mcp/nowhere"] {
        client.send(format!(
            "POST {path} HTTP/1.1\r\nHost: h\r\nMCP-Protocol-Version: 2026-07-28\r\nContent-Length: 2\r\n\r\n{{}}"
        ));
        client.response();
    }
    let era = |era: &str| proxy.metric(&format!("ringway_requests_by_era_total{{era=\"{era}\"}}"));
    assert_eq!((era("modern"), era("legacy"), era("none")), (2.0, 1.0, 1.0));
    assert_eq!(proxy.metric("ringway_requests_by_era_total"), proxy.metric("ringway_requests_total"));
    let page = proxy.operator().page("/backends");
    let seen = |name: &str| page["backends"][name]["endpoints"][0]["addresses"][0]["era"].clone();
    assert_eq!([seen("b"), seen("new"), seen("silent")], ["legacy".into(), "modern".into(), Value::Null]);
}
