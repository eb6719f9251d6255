//! Both eras on one URL: each request is what it says it is, and nothing is known of a backend but
//! what it answers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::support::mcp::{
    Ask, MODERN, NO_CACHE, answer, answer_with, answers, error, field_of, gated, herd, reader, reader_with, result,
    server,
};
use crate::support::{Backend, Gate, Proxy, json};

/// A server of both eras: says in which it was asked, and knows its sessions.
fn dual_server() -> Backend {
    let sessions = AtomicUsize::new(0);
    server(move |request| {
        if field_of(request, "MCP-Protocol-Version") == MODERN {
            assert_eq!(field_of(request, "Mcp-Session-Id"), "");
            return json(&result(request, r#""era":"modern","ttlMs":0,"cacheScope":"private""#));
        }
        if request.contains(r#""initialize""#) {
            let number = sessions.fetch_add(1, Ordering::SeqCst);
            return answer_with(
                200,
                &format!("Mcp-Session-Id: s-{number}\r\n"),
                &answer(request, r#""result":{"era":"legacy"}"#),
            );
        }
        let session = field_of(request, "Mcp-Session-Id");
        json(&answer(request, &format!(r#""result":{{"era":"legacy","for":"{session}"}}"#)))
    })
}

#[test]
fn p_096_one_url_serves_both_eras_at_once() {
    let backend = dual_server();
    let proxy = reader(&backend).start();
    thread::scope(|scope| {
        for number in 0..12 {
            let mut client = proxy.client();
            scope.spawn(move || {
                let mut ask = |ask: Ask| {
                    client.send(ask.bytes());
                    let response = client.response();
                    assert_eq!(response.answers(&ask).status, 200);
                    response
                };
                let opened = ask(Ask::legacy("initialize").id(format!("\"{number}\"")));
                let session = format!("Mcp-Session-Id: {}", opened.field("mcp-session-id").expect("a session"));
                let mut own = None;
                for id in 0..20 {
                    // On one connection, in turn; the methods are those of both eras.
                    let method = ["tools/list", "tools/call"][id % 2];
                    let modern = ask(Ask::modern(method).named("name", "t").id(id));
                    assert_eq!(modern.message()["result"]["era"], "modern");
                    assert_eq!(modern.field("mcp-session-id"), None);
                    let legacy =
                        ask(Ask::legacy(method).id(id).field(&session).field("MCP-Protocol-Version: 2025-06-18"));
                    assert_eq!(legacy.message()["result"]["era"], "legacy");
                    assert_eq!(own.get_or_insert(legacy.made_for()), &legacy.made_for(), "one session");
                }
            });
        }
    });
}

/// What servers of the older revisions answer a probe they do not understand.
const REFUSALS: &[&str] = &[
    "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nX-Server: old\r\nContent-Length: 107\r\n\r\n{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32000,\"message\":\"Bad Request: Unsupported protocol version\"},\"id\":null}  ",
    "HTTP/1.1 400 No Such Thing\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nno!",
    "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nDate: x\r\nContent-Length: 5\r\n\r\n<p>no",
    "HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 406 Not Acceptable\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\nContent-Length: 6\r\n\r\n\"oops\"",
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\nnull",
];

#[test]
fn p_097_an_old_servers_refusal_of_a_probe_passes_untouched() {
    for refusal in REFUSALS {
        for mode in ["headers", "envelope"] {
            let gate = Gate::new();
            let backend = gated(&gate, |_| (*refusal).to_owned());
            let route = format!("[[routes]]\npath = \"/mcp/b\"\nbackend = \"b\"\nbody = \"{mode}\"");
            let proxy = reader(&backend).routes(&route).start();
            // One probe, and several that could share an answer.
            for count in [1, 3] {
                let asks = herd(&Ask::modern("server/discover"), count);
                let mut clients = proxy.ask_together(&asks);
                gate.open_for(count);
                for client in &mut clients {
                    let response = client.response();
                    assert_eq!(response.head + &String::from_utf8(response.body).unwrap(), *refusal);
                }
            }
            assert_eq!(backend.requests(), 4, "none was answered in another's place");
        }
    }
}

#[test]
fn p_097_a_servers_modern_refusals_pass_with_their_status() {
    for (status, code) in [(400, -32020), (400, -32021), (400, -32022), (404, -32601), (400, -32602), (200, -32602)] {
        let backend = server(move |request| answer_with(status, "X-Own: yes\r\n", &error(request, code)));
        let proxy = reader(&backend).start();
        for ask in [Ask::modern("server/discover").id("\"a\""), Ask::modern("tools/call").named("name", "t")] {
            let response = proxy.ask(&ask);
            assert_eq!((response.status, response.field("x-own")), (status, Some("yes")));
            assert_eq!(response.answers(&ask).message()["error"]["code"], code);
        }
    }
}

#[test]
fn p_097_every_own_answer_to_a_modern_request_is_a_message_with_its_id() {
    let nowhere = crate::support::Reserved::new();
    let proxy = Proxy::builder().reads_messages().backend_with("b", &[nowhere.address], NO_CACHE).start();
    let asks = [
        (Ask::modern("server/discover").id("\"a\""), 502, -32603),
        (Ask::modern("tools/call").named("name", "t").id(99_999_999_999_u64), 502, -32603),
        (Ask::modern("server/discover").at("/mcp/none").id(3), 404, -32601),
        (Ask::modern("tools/call").named("name", "t").at("/").id("\"\""), 404, -32601),
    ];
    for (ask, status, code) in asks {
        let response = proxy.ask(&ask);
        assert_eq!(response.status, status, "{ask:?}");
        assert_eq!(response.field("content-type"), Some("application/json"));
        assert_eq!(response.answers(&ask).message()["error"]["code"], code);
        assert!(!response.text().contains("127.0.0.1"), "no addresses");
    }
}

#[test]
fn p_035_p_090_an_unknown_version_is_refused_where_the_protocol_is_named() {
    let all = ["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26"];
    for (protocol, supported) in [("modern", &all[..1]), ("legacy", &all[1..])] {
        let backend = Backend::always(json("{}"));
        let proxy = reader_with(&backend, &format!("protocol = \"{protocol}\"")).start();
        for version in ["2027-01-01", "2025-01-01", "DRAFT-2026-v1", "1"] {
            for method in ["initialize", "server/discover", "tools/call"] {
                let ask = Ask::legacy(method).id("\"x\"").field(&format!("MCP-Protocol-Version: {version}"));
                let response = proxy.ask(&ask);
                assert_eq!(response.status, 400, "{protocol} {version}");
                let error = &response.answers(&ask).message()["error"];
                assert_eq!(error["code"], -32022);
                assert_eq!(error["data"], serde_json::json!({"supported": supported, "requested": version}));
            }
        }
        assert_eq!(backend.connections(), 0);
    }
}

#[test]
fn p_035_p_090_else_the_backend_says_which_versions_it_has() {
    let refusal = answer_with(400, "", r#"{"jsonrpc":"2.0","id":"x","error":{"code":-32022,"message":"m"}}"#);
    let backend = Backend::always(refusal);
    let proxy = reader(&backend).start();
    for method in ["initialize", "server/discover", "tools/list"] {
        let ask = Ask::legacy(method).id("\"x\"").field("MCP-Protocol-Version: 2027-01-01");
        let response = proxy.ask(&ask);
        assert_eq!((response.status, response.message()["error"]["message"].as_str()), (400, Some("m")));
        assert!(backend.next_request().contains("MCP-Protocol-Version: 2027-01-01\r\n"));
    }
    assert_eq!(backend.requests(), 3, "and nothing of it is shared or kept");
}

#[test]
fn p_096_concurrent_probes_and_handshakes_are_not_mixed_up() {
    let gate = Gate::new();
    let backend = gated(&gate, |request| {
        let era = if field_of(request, "MCP-Protocol-Version") == MODERN { "modern" } else { "legacy" };
        json(&result(request, &format!(r#""era":"{era}","ttlMs":0,"cacheScope":"public""#)))
    });
    let proxy = reader(&backend).start();
    let asks: Vec<Ask> =
        (0..12).map(|id| if id % 2 == 0 { Ask::list() } else { Ask::legacy("tools/list") }.id(id)).collect();
    let mut clients = proxy.ask_together(&asks);
    // The modern ones share; the legacy ones, without sessions, do not.
    gate.open_for(1 + 6);
    for (id, response) in answers(&mut clients, &asks).iter().enumerate() {
        assert_eq!(response.message()["result"]["era"], ["modern", "legacy"][id % 2]);
    }
    assert_eq!(backend.requests(), 1 + 6);
}
