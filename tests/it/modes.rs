//! How much of a request a route looks at: nothing, its headers, or the message too.

use crate::support::backend::Exchange;
use crate::support::mcp::{Ask, MODERN, answer_with, error, field_of, post_to, server};
use crate::support::process::say;
use crate::support::{Backend, Client, Proxy, ProxyBuilder, TempFile, json};

fn route(body: &str) -> String {
    format!("[[routes]]\npath = \"/mcp/b\"\nbackend = \"b\"\nbody = \"{body}\"")
}

fn in_mode(backend: &Backend, mode: &str) -> ProxyBuilder {
    Proxy::builder().reads_messages().backend("b", &[backend.address()]).routes(&route(mode))
}

/// A backend that sends each body back, byte for byte.
fn echo() -> Backend {
    Backend::scripted(|exchange: &mut Exchange| {
        while let Some(head) = exchange.head() {
            let length = field_of(&head, "Content-Length").parse().unwrap_or(0);
            let Some(body) = exchange.exactly(length) else { return };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n");
            exchange.send([head.as_bytes(), &body].concat());
        }
    })
}

/// Asserts that this is relayed as it is.
fn passes(client: &mut Client, name: &str, fields: &str, body: &[u8]) {
    client.send(post_to("/mcp/b", fields, body));
    let response = client.response();
    assert_eq!((response.status, response.body.as_slice()), (200, body), "{name}");
}

fn modern(method: &str) -> String {
    format!("MCP-Protocol-Version: {MODERN}\r\nMcp-Method: {method}\r\n")
}

#[test]
fn the_route_table_says_what_is_looked_at() {
    let off = "coalesce = { enabled = false }\ncache = { enabled = false }";
    let address = "127.0.0.1:9".parse().unwrap();
    let routes = ["stream", "headers", "envelope"]
        .map(|mode| format!("[[routes]]\npath = \"/{mode}\"\nbackend = \"both\"\nbody = \"{mode}\"\n"));
    let file = TempFile::with(
        &Proxy::builder()
            .reads_messages()
            .backend("both", &[address])
            .backend_with("caches", &[address], "coalesce = { enabled = false }")
            .backend_with("neither", &[address], off)
            .routes(&routes.concat())
            .routes("[[routes]]\npath = \"/auto-both\"\nbackend = \"both\"")
            .routes("[[routes]]\npath = \"/auto-caches\"\nbackend = \"caches\"")
            .routes("[[routes]]\npath = \"/auto-neither\"\nbackend = \"neither\"")
            .routes("[[routes]]\npath = \"/prefix/*\"\nbackend = \"both\"")
            .routes("[[routes]]\npath = \"/any/{backend}\"")
            .text(),
    );
    let path = file.path().to_str().unwrap();
    let table = say(["routes", "--config", path]).stdout;
    let rows = [
        ("/stream", "stream"),
        ("/headers", "headers"),
        ("/envelope", "envelope"),
        ("/auto-both", "headers"),
        ("/auto-caches", "headers"),
        ("/auto-neither", "stream"),
        ("/prefix/*", "stream"),
        ("/any/{backend}", "headers or stream"),
    ];
    for (route, mode) in rows {
        let line =
            table.lines().find(|line| line.split(' ').any(|word| word == route)).unwrap_or_else(|| panic!("{table}"));
        assert!(line.ends_with(&format!("body: {mode}")), "{line}");
    }
    let explained = say(["routes", "--config", path, "POST", "http://test/any/neither"]).stdout;
    assert!(explained.contains("body: stream"), "{explained}");
    let explained = say(["routes", "--config", path, "POST", "http://test/envelope"]).stdout;
    assert!(explained.contains("body: envelope"), "{explained}");
}

#[test]
fn p_030_a_stream_route_relays_whatever_it_is() {
    let backend = echo();
    let proxy = in_mode(&backend, "stream").limits("envelope_bytes_max = 1024").start();
    let mut client = proxy.client();
    let list = Ask::list().body();
    let rows: [(&str, String, &[u8]); 10] = [
        ("no JSON", modern("tools/list"), b"{"),
        ("no UTF-8", modern("tools/list"), b"\xff\x00\"\r\n\r\n"),
        ("an array", modern("tools/list"), b"[]"),
        ("another method", modern("prompts/list"), list.as_bytes()),
        ("no method", format!("MCP-Protocol-Version: {MODERN}\r\n"), list.as_bytes()),
        ("an unknown version", "MCP-Protocol-Version: 2030-01-01\r\n".to_owned(), list.as_bytes()),
        ("no version", String::new(), list.as_bytes()),
        ("members twice", modern("tools/list"), br#"{"id":1,"id":2}"#),
        ("deep", modern("tools/list"), &[b'['; 10_000]),
        ("nothing", modern("tools/list"), b""),
    ];
    for (name, fields, body) in rows {
        passes(&mut client, name, &fields, body);
    }
    // What it is offered is what the client said.
    let seen = Backend::always(json("{}"));
    let proxy = in_mode(&seen, "stream").start();
    let mut client = proxy.client();
    client.send("POST /mcp/b HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nAccept: text/plain\r\nContent-Length: 1\r\n\r\nx");
    assert_eq!(client.response().status, 200);
    assert_eq!(field_of(&seen.next_request(), "Accept"), "text/plain");
}

#[test]
fn p_030_a_headers_route_does_not_read_a_call() {
    let backend = echo();
    let proxy = in_mode(&backend, "headers").start();
    let mut client = proxy.client();
    let call = Ask::modern("tools/call").named("name", "t").body();
    let rows: [(&str, String, &[u8]); 8] = [
        ("half a message", modern("tools/call"), b"{\"jsonrpc\":\"2.0\",\"id\":1,"),
        ("no UTF-8", modern("tools/call"), b"\xff\x00"),
        ("deep", modern("tools/call"), &[b'{'; 10_000]),
        ("another name", modern("tools/call") + "Mcp-Name: u\r\n", call.as_bytes()),
        ("no name", modern("tools/call"), call.as_bytes()),
        ("another method", modern("prompts/get"), call.as_bytes()),
        ("no method", format!("MCP-Protocol-Version: {MODERN}\r\n"), call.as_bytes()),
        ("a method nobody knows", modern("vendor/any"), b"x"),
    ];
    for (name, fields, body) in rows {
        passes(&mut client, name, &fields, body);
    }
}

#[test]
fn p_030_a_backends_own_mismatch_is_relayed() {
    let backend = server(|request| answer_with(400, "X-Own: yes\r\n", &error(request, -32020)));
    let proxy = in_mode(&backend, "headers").start();
    for ask in [Ask::modern("tools/call").field("Mcp-Name: u").param(r#""name":"t""#), Ask::list()] {
        let response = proxy.ask(&ask);
        assert_eq!((response.status, response.field("x-own")), (400, Some("yes")));
        assert_eq!(response.answers(&ask).message()["error"]["code"], -32020);
    }
}

#[test]
fn p_016_p_018_what_may_be_shared_must_mirror_its_body_on_every_route_that_shares() {
    let backend = echo();
    let proxy = in_mode(&backend, "headers").start();
    let list = Ask::list().body();
    let read = Ask::read("file:///a").body();
    let rows = [
        ("another method", modern("prompts/list"), list.clone()),
        ("a call behind a list's headers", modern("tools/list"), Ask::modern("tools/call").named("name", "t").body()),
        ("another version", modern("tools/list"), list.replace(MODERN, "2025-11-25")),
        ("no name", modern("resources/read"), read.clone()),
        ("another name", modern("resources/read") + "Mcp-Name: file:///b\r\n", read.clone()),
    ];
    for (name, fields, body) in rows {
        let mut client = proxy.client();
        client.send(post_to("/mcp/b", &fields, body));
        let response = client.response();
        assert_eq!((response.status, &response.message()["error"]["code"]), (400, &(-32020).into()), "{name}");
        assert_eq!(response.message()["id"], 1, "{name}");
    }
    assert_eq!(backend.connections(), 0);
    // A list behind a call's headers is the backend's to refuse: it is never shared.
    passes(&mut proxy.client(), "a list behind a call's headers", &modern("tools/call"), list.as_bytes());
}

#[test]
fn p_031_in_front_of_a_legacy_backend_every_modern_message_is_compared() {
    let backend = echo();
    let proxy =
        Proxy::builder().reads_messages().backend_with("b", &[backend.address()], r#"protocol = "legacy""#).start();
    let call = Ask::modern("tools/call").named("name", "t").body();
    for fields in
        [modern("tools/call"), modern("tools/call") + "Mcp-Name: u\r\n", modern("prompts/get") + "Mcp-Name: t\r\n"]
    {
        let mut client = proxy.client();
        client.send(post_to("/mcp/b", &fields, &call));
        let response = client.response();
        assert_eq!((response.status, &response.message()["error"]["code"]), (400, &(-32020).into()), "{fields}");
    }
    assert_eq!(backend.connections(), 0);
    passes(&mut proxy.client(), "a call", &(modern("tools/call") + "Mcp-Name: t\r\n"), call.as_bytes());
}

#[test]
fn p_001_where_only_the_modern_protocol_is_served_there_are_no_streams_and_no_sessions() {
    let backend = Backend::always(json("{}"));
    let modern_only =
        Proxy::builder().reads_messages().backend_with("b", &[backend.address()], r#"protocol = "modern""#).start();
    let either = in_mode(&backend, "headers").start();
    for method in ["GET", "DELETE"] {
        let request = format!(
            "{method} /mcp/b HTTP/1.1\r\nHost: h\r\nMCP-Protocol-Version: {MODERN}\r\nAccept: text/event-stream\r\n\r\n"
        );
        let mut client = modern_only.client();
        client.send(&request);
        let response = client.response();
        assert_eq!(response.status, 405);
        assert_eq!(response.field("allow"), Some("POST"), "RFC 9110 section 15.5.6");
        assert_eq!(backend.connections(), 0);
    }
    for method in ["GET", "DELETE", "OPTIONS"] {
        let mut client = either.client();
        client.send(format!("{method} /mcp/b HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!(client.response().status, 200, "{method}: the backend's to judge");
    }
}

/// A backend that says when a request's head has come, and then answers it when its body has.
fn told_of_heads() -> (Backend, crossbeam_channel::Receiver<&'static str>) {
    let (tell, heard) = crossbeam_channel::unbounded();
    let backend = Backend::scripted(move |exchange| {
        while let Some(head) = exchange.head() {
            let _ = tell.send("head");
            let length = field_of(&head, "Content-Length").parse().unwrap_or(0);
            if exchange.exactly(length).is_none() {
                return;
            }
            exchange.send(json("{}"));
        }
    });
    (backend, heard)
}

/// Sends all but the last byte and asserts that the backend has begun to read.
fn streams(proxy: &Proxy, heard: &crossbeam_channel::Receiver<&'static str>, request: &[u8]) {
    let mut client = proxy.client();
    let (last, rest) = request.split_last().unwrap();
    client.send(rest);
    assert_eq!(crate::support::mcp::told(heard), "head");
    client.send([*last]);
    assert_eq!(client.response().status, 200);
}

#[test]
fn a_message_longer_than_the_look_is_streamed() {
    let (backend, heard) = told_of_heads();
    let limits = "legacy_look_bytes_max = 2000\nenvelope_bytes_max = 4000";
    let proxy = in_mode(&backend, "headers").limits(limits).start();
    let padded = |ask: Ask, length: usize| ask.param(&format!(r#""pad":"{}""#, "x".repeat(length)));
    streams(&proxy, &heard, &padded(Ask::legacy("tools/call"), 2000).bytes());
    streams(&proxy, &heard, &padded(Ask::legacy("initialize"), 50_000).bytes());
    streams(&proxy, &heard, &padded(Ask::list(), 5000).bytes());
    streams(&proxy, &heard, &padded(Ask::modern("tools/call"), 10).bytes());
    // What is no message is not seen to be none.
    streams(&proxy, &heard, &post_to("/mcp/b", "", "x".repeat(2001)));
    // Chunked, where the length shows only as it comes.
    let body = padded(Ask::legacy("tools/call"), 60_000).body();
    let mut client = proxy.client();
    client.send(
        "POST /mcp/b HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    for piece in body.as_bytes().chunks(999) {
        client.send_and_let_read(&[format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
    }
    assert_eq!(crate::support::mcp::told(&heard), "head");
    drop(client);
    // Within the limit it is looked at, and refused if it is none.
    let mut client = proxy.client();
    client.send(post_to("/mcp/b", "", "x".repeat(1999)));
    assert_eq!((client.response().status, heard.is_empty()), (400, true));

    let proxy = in_mode(&backend, "headers").limits("legacy_look_bytes_max = 0").start();
    streams(&proxy, &heard, &post_to("/mcp/b", "", "no message"));
}

#[test]
fn a_small_message_that_is_looked_at_is_awaited_whole() {
    let (backend, heard) = told_of_heads();
    let proxy = in_mode(&backend, "headers").start();
    for ask in [Ask::legacy("tools/call"), Ask::list()] {
        let bytes = ask.bytes();
        let mut client = proxy.client();
        let (last, rest) = bytes.split_last().unwrap();
        client.send_and_let_read(rest);
        assert_eq!(proxy.metric("ringway_exchanges"), 1.0);
        assert!(heard.is_empty(), "no backend is held up by a client that is slow");
        client.send([*last]);
        assert_eq!(client.response().status, 200);
        assert_eq!(crate::support::mcp::told(&heard), "head");
    }
}
