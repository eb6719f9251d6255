//! What becomes of answers that are not simply relayed: notes, lost sessions, silent streams, and what
//! streams tell of changes.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::backend::{EVENT_STREAM, LAST_CHUNK, chunk, event};
use crate::support::client::{GET, post};
use crate::support::mcp::{Ask, answer_with, id_of, post_to, reader, reader_with, result};
use crate::support::{Backend, Client, Proxy, eventually, json};

/// A server with one session, that answers what comes in it as told.
fn session_server(status: u16, body: &'static str) -> Backend {
    Backend::scripted(move |exchange| {
        while let Some(request) = exchange.request() {
            if request.contains("\"initialize\"") {
                exchange.send("HTTP/1.1 200 OK\r\nMcp-Session-Id: s-1\r\nContent-Length: 2\r\n\r\n{}");
            } else {
                exchange.send(answer_with(status, "", body));
            }
        }
    })
}

/// Opens a session: the client's token.
fn initialize(client: &mut Client) -> String {
    client.send(post(r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#));
    client.response().field("mcp-session-id").expect("a session").to_owned()
}

#[test]
fn p_003_a_notification_is_answered_202_whatever_the_backend_says() {
    let note = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    let response = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    for (status, body) in [(200, "{}"), (200, ""), (204, ""), (202, "{\"ok\":true}"), (202, "")] {
        let backend = Backend::always(answer_with(status, "", body));
        let proxy = reader(&backend).start();
        for message in [note, response] {
            let mut client = proxy.client();
            client.send(post(message));
            let told = client.response();
            assert_eq!((told.status, told.text().as_str()), (202, ""), "{status} {body:?}");
            // The connection is as good as before.
            client.send(post(message));
            assert_eq!(client.response().status, 202);
        }
        let modern = "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: notifications/progress\r\n";
        let mut client = proxy.client();
        client.send(post_to("/mcp/b", modern, r#"{"jsonrpc":"2.0","method":"notifications/progress"}"#));
        assert_eq!((client.response().status, backend.requests()), (202, 5));
    }
}

#[test]
fn p_003_a_refused_notification_stays_refused() {
    let refusal = answer_with(400, "", "{\"jsonrpc\":\"2.0\"}");
    let backend = Backend::always(refusal);
    let proxy = reader(&backend).start();
    let mut client = proxy.client();
    client.send(post(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#));
    let told = client.response();
    assert_eq!((told.status, told.text().as_str()), (400, "{\"jsonrpc\":\"2.0\"}"));
}

#[test]
fn p_088_a_lost_session_is_one_clean_404_in_every_dialect() {
    let rows = [
        (
            400,
            r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: No valid session ID provided"},"id":null}"#,
        ),
        (400, "Invalid session ID"),
        (401, "Unauthorized: Session not found"),
        (410, "Session terminated"),
        (200, r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32600,"message":"Session not found"}}"#),
    ];
    for (status, body) in rows {
        let backend = session_server(status, body);
        let proxy = reader(&backend).start();
        let mut client = proxy.client();
        let token = initialize(&mut client);
        let call = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"t"}}"#;
        client.send(post_to("/mcp/b", &format!("Mcp-Session-Id: {token}\r\n"), call));
        let told = client.response();
        assert_eq!(told.status, 404, "{status} {body}");
        let message: serde_json::Value = serde_json::from_slice(&told.body).expect("JSON");
        assert_eq!(
            message,
            serde_json::json!({"jsonrpc": "2.0", "id": 7, "error": {"code": -32600, "message": "session not found"}})
        );
        assert_eq!(proxy.refused("session_lost"), 1.0);
        assert_eq!(proxy.metric("ringway_sessions_total{event=\"refused_backend\"}"), 1.0);
    }
}

#[test]
fn p_088_a_404_is_the_backends_to_word_if_it_is_json() {
    let worded = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"Session not found"}}"#;
    for (content_type, body, told) in [
        ("application/json", worded, worded),
        (
            "text/html",
            "<h1>gone</h1>",
            r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32600,"message":"session not found"}}"#,
        ),
    ] {
        let backend = Backend::scripted(move |exchange| {
            while let Some(request) = exchange.request() {
                if request.contains("\"initialize\"") {
                    exchange.send("HTTP/1.1 200 OK\r\nMcp-Session-Id: s-1\r\nContent-Length: 2\r\n\r\n{}");
                } else {
                    exchange.send(answer_with(404, "", body).replace("application/json", content_type));
                }
            }
        });
        let proxy = reader(&backend).start();
        let mut client = proxy.client();
        let token = initialize(&mut client);
        let call = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"t"}}"#;
        client.send(post_to("/mcp/b", &format!("Mcp-Session-Id: {token}\r\n"), call));
        let response = client.response();
        assert_eq!((response.status, response.text().as_str()), (404, told));
        assert_eq!(proxy.metric("ringway_sessions_total{event=\"refused_backend\"}"), 1.0);
    }
}

#[test]
fn p_088_other_refusals_in_a_session_pass_as_they_came() {
    let rows = [
        (400, r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32602,"message":"Invalid params"}}"#),
        (401, "token expired"),
        (403, "no"),
        (500, "session not found"),
        (
            200,
            r#"{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"\"error\" session not found"}]}}"#,
        ),
    ];
    for (status, body) in rows {
        let backend = session_server(status, body);
        let proxy = reader(&backend).start();
        let mut client = proxy.client();
        let token = initialize(&mut client);
        let call = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"t"}}"#;
        client.send(post_to("/mcp/b", &format!("Mcp-Session-Id: {token}\r\n"), call));
        let told = client.response();
        let expected = if body.contains("\\\"error\\\" session") { (200, body) } else { (status, body) };
        assert_eq!((told.status, told.text().as_str()), expected);
    }
    // Without a session the same words mean nothing to us.
    let backend = Backend::always(answer_with(404, "", "Session not found"));
    let proxy = reader(&backend).start();
    let mut client = proxy.client();
    client.send(post(r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"t"}}"#));
    assert_eq!(client.response().text(), "Session not found");
}

#[test]
fn a_new_session_generation_ends_the_sessions_before_it() {
    let backend = session_server(200, r#"{"jsonrpc":"2.0","id":7,"result":{}}"#);
    let keys = "[sessions]\nkeys = [\"one-key-of-many-bytes\"]";
    let before = reader(&backend).routes(keys).start();
    let token = initialize(&mut before.client());
    let same = reader(&backend).routes(keys).start();
    let next = reader_with(&backend, "session_generation = 1").routes(keys).start();
    let call = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"t"}}"#;
    for (proxy, status) in [(&before, 200), (&same, 200), (&next, 404)] {
        let mut client = proxy.client();
        client.send(post_to("/mcp/b", &format!("Mcp-Session-Id: {token}\r\n"), call));
        assert_eq!(client.response().status, status);
    }
}

/// A backend whose streams say what the test sends, piece by piece.
fn teller() -> (Backend, crossbeam_channel::Sender<String>) {
    let (sender, pieces) = crossbeam_channel::unbounded::<String>();
    let backend = Backend::scripted(move |exchange| {
        while exchange.request().is_some() {
            exchange.send(EVENT_STREAM);
            while let Ok(piece) = pieces.recv_timeout(crate::support::PATIENCE) {
                if !exchange.send(&piece) {
                    return;
                }
                if piece.ends_with(LAST_CHUNK) {
                    break;
                }
            }
        }
    });
    (backend, sender)
}

/// A backend whose stream says nothing.
fn silent() -> Backend {
    Backend::scripted(|exchange| {
        exchange.request();
        exchange.send(EVENT_STREAM);
        exchange.wait_for_end();
    })
}

/// Waits until a stream of the backend `silent` has got some comments: others had time for as many.
fn time_for_comments(proxy: &Proxy) {
    let mut clock = proxy.client();
    clock.send(GET.replacen("/mcp/b", "/mcp/silent", 1));
    clock.head();
    (0..4).for_each(|_| assert_eq!(clock.chunk(), b": \n\n"));
}

#[test]
fn p_051_a_silent_stream_gets_comments_between_events_only() {
    let (backend, tell) = teller();
    let silent = silent();
    let proxy = Proxy::builder()
        .defaults("keep_alive_ms = 100")
        .backend("b", &[backend.address()])
        .backend("silent", &[silent.address()])
        .start();
    let mut client = proxy.client();
    client.send(GET);
    let head = client.head();
    assert!(head.contains("X-Accel-Buffering: no\r\n"), "{head}");
    assert_eq!(client.chunk(), b": \n\n");
    let whole = event("x");
    let (begun, rest) = whole.split_at(9);
    tell.send(chunk(begun)).unwrap();
    // A comment may have gone out before the event began.
    let mut seen = client.chunk();
    while seen == b": \n\n" {
        seen = client.chunk();
    }
    assert_eq!(seen, begun.as_bytes());
    // Inside of it there is none, while another stream gets several.
    time_for_comments(&proxy);
    tell.send(chunk(rest)).unwrap();
    assert_eq!(client.chunk(), rest.as_bytes(), "nothing stands inside an event");
    assert_eq!(client.chunk(), b": \n\n");
}

#[test]
fn p_051_a_call_is_not_interrupted_unless_all_streams_are_to_get_comments() {
    for (keys, commented) in
        [("keep_alive_ms = 100", false), ("keep_alive_ms = 100\nkeep_alive_streams = \"all\"", true)]
    {
        let (backend, tell) = teller();
        let silent = silent();
        let proxy = Proxy::builder()
            .defaults(keys)
            .backend("b", &[backend.address()])
            .backend("silent", &[silent.address()])
            .start();
        let mut client = proxy.client();
        client.send(post(r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"t"}}"#));
        client.head();
        time_for_comments(&proxy);
        if commented {
            assert_eq!(client.chunk(), b": \n\n");
        }
        tell.send(chunk(&event("{}"))).unwrap();
        let mut next = client.chunk();
        while commented && next == b": \n\n" {
            next = client.chunk();
        }
        assert_eq!(next, event("{}").as_bytes());
    }
}

#[test]
fn p_051_the_backends_own_word_on_buffering_is_kept() {
    let stream = EVENT_STREAM.replacen("\r\n\r\n", "\r\nX-Accel-Buffering: yes\r\n\r\n", 1);
    let backend = Backend::scripted(move |exchange| {
        exchange.request();
        exchange.send(&stream);
        exchange.wait_for_end();
    });
    let proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    client.send(GET);
    let head = client.head();
    assert!(head.contains("X-Accel-Buffering: yes\r\n") && head.matches("X-Accel-Buffering").count() == 1, "{head}");
}

#[test]
fn p_055_progress_does_not_extend_a_stream_for_ever() {
    let backend = Backend::scripted(|exchange| {
        exchange.request();
        exchange.send(EVENT_STREAM);
        // As fast as the client takes it: no silence that would be a reason.
        while exchange.send(chunk(&event("progress"))) {}
    });
    let proxy = Proxy::builder().backend_with("b", &[backend.address()], "stream_timeout_ms = 300").start();
    let mut client = proxy.client();
    client.send(post(r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"t"}}"#));
    client.head();
    let rest = client.rest();
    assert!(!rest.ends_with(LAST_CHUNK.as_bytes()), "cut off, and seen to be");
    assert_eq!(proxy.refused("request_timeout"), 1.0);
}

/// A server that keeps its lists for long, numbers them, and answers calls as told. Its GET stream and
/// its subscriptions say what the test sends.
fn lists(call: &'static str) -> (Backend, crossbeam_channel::Sender<String>) {
    let (sender, pieces) = crossbeam_channel::unbounded::<String>();
    let asked = AtomicUsize::new(0);
    let backend = Backend::scripted(move |exchange| {
        while let Some(request) = exchange.request() {
            if request.starts_with("GET") || request.contains("subscriptions/listen") {
                exchange.send(EVENT_STREAM);
                while let Ok(piece) = pieces.recv_timeout(crate::support::PATIENCE)
                    && exchange.send(&piece)
                {}
                return;
            }
            let sent = if request.contains("tools/call") {
                call.replace("ID", id_of(&request))
            } else {
                let number = asked.fetch_add(1, Ordering::SeqCst);
                json(&result(&request, &format!(r#""ttlMs":600000,"cacheScope":"public","number":{number}"#)))
            };
            exchange.send(sent);
        }
    });
    (backend, sender)
}

/// Which list the proxy gives now.
fn number(proxy: &Proxy, ask: &Ask) -> u64 {
    proxy.ask(ask).message()["result"]["number"].as_u64().expect("a number")
}

#[test]
fn p_066_a_change_told_on_a_relayed_stream_makes_the_list_void() {
    let (backend, tell) = lists("");
    let proxy = reader(&backend).start();
    let tools = Ask::list();
    let prompts = Ask::modern("prompts/list");
    assert_eq!((number(&proxy, &tools), number(&proxy, &prompts)), (0, 1));
    assert_eq!((number(&proxy, &tools), number(&proxy, &prompts)), (0, 1));
    let mut listener = proxy.client();
    listener.send(GET);
    listener.head();
    let told = |proxy: &Proxy| proxy.metric("ringway_cache_invalidations_total{reason=\"notification\"}");
    for (asked, method) in [(2, "notifications/tools/list_changed"), (3, r"notifications\/tools\/list_changed")] {
        let note = event(format!(r#"{{"jsonrpc":"2.0","method":"{method}"}}"#));
        // In two pieces, as streams come.
        let (one, other) = note.split_at(40);
        tell.send(chunk(one)).unwrap();
        tell.send(chunk(other)).unwrap();
        assert_eq!(client_text(&mut listener, note.len()), note);
        assert_eq!(number(&proxy, &tools), asked, "{method}: asked anew");
        assert_eq!(number(&proxy, &prompts), 1, "not what did not change");
        assert_eq!(told(&proxy), (asked - 1) as f64);
    }
    for other in ["notifications/progress", "notifications/resources/updated"] {
        let note = event(format!(r#"{{"jsonrpc":"2.0","method":"{other}","params":{{"uri":"u:1"}}}}"#));
        tell.send(chunk(&note)).unwrap();
        assert_eq!(client_text(&mut listener, note.len()), note);
        assert_eq!((number(&proxy, &tools), number(&proxy, &prompts)), (3, 1), "{other}");
    }
    assert_eq!(told(&proxy), 3.0);
}

/// So many bytes of a chunked stream.
fn client_text(client: &mut Client, length: usize) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < length {
        bytes.extend(client.chunk());
    }
    String::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn p_067_an_error_that_tells_of_another_schema_makes_the_tools_void() {
    for (code, status, voids) in [(-32020, 400, true), (-32602, 200, true), (-32603, 200, false)] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":ID,"error":{{"code":{code},"message":"m"}}}}"#);
        let call: &'static str = answer_with(status, "", &body).leak();
        // The length counts `ID`, which is as long as the ids of the calls.
        let (backend, _tell) = lists(call);
        let proxy = reader(&backend).start();
        assert_eq!((number(&proxy, &Ask::list()), number(&proxy, &Ask::list())), (0, 0));
        let called = proxy.ask(&Ask::modern("tools/call").named("name", "t").id(77));
        assert_eq!((called.status, called.message()["error"]["code"].as_i64()), (status, Some(code)));
        assert_eq!(number(&proxy, &Ask::list()), u64::from(voids), "{code}");
    }
}

#[test]
fn an_operator_clears_the_cache_of_one_backend_or_of_all() {
    let (backend, _tell) = lists("");
    let proxy = reader(&backend).backend("other", &[backend.address()]).start();
    let other = Ask::list().at("/mcp/other");
    assert_eq!((number(&proxy, &Ask::list()), number(&proxy, &other)), (0, 1));
    assert_eq!((number(&proxy, &Ask::list()), number(&proxy, &other)), (0, 1));
    let clear = |path: &str| proxy.admin("DELETE", path).message()["cleared"].clone();
    assert_eq!(clear("/cache/other"), serde_json::json!(["other"]));
    assert_eq!((number(&proxy, &Ask::list()), number(&proxy, &other)), (0, 2));
    assert_eq!(clear("/cache"), serde_json::json!(["b", "other"]));
    assert_eq!((number(&proxy, &Ask::list()), number(&proxy, &other)), (3, 4));
    assert_eq!(proxy.admin("DELETE", "/cache/none").status, 404);
    assert_eq!(proxy.admin("GET", "/cache").status, 405);
    assert_eq!(proxy.metric("ringway_cache_invalidations_total{reason=\"operator\"}"), 3.0);
}

#[test]
fn p_066_ringways_own_subscription_makes_lists_void_with_no_client_listening() {
    let (backend, tell) = lists("");
    let keys = "cache = { subscribe = \"listen\" }";
    let proxy = reader_with(&backend, keys).workers(2).start();
    let listen = backend.next_request();
    assert!(listen.contains("Mcp-Method: subscriptions/listen\r\n"), "{listen}");
    eventually("the subscription has begun", || {
        let first = number(&proxy, &Ask::list());
        first == number(&proxy, &Ask::list())
    });
    let before = number(&proxy, &Ask::list());
    tell.send(chunk(&event(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#))).unwrap();
    eventually("the list is asked anew", || number(&proxy, &Ask::list()) > before);
    // One for the whole process.
    assert!(!backend_asked_again(&backend, "subscriptions/listen"));
}

/// Whether a request that says this has come, of those nobody has taken yet.
fn backend_asked_again(backend: &Backend, mark: &str) -> bool {
    backend.waiting_requests().iter().any(|request| request.contains(mark))
}

#[test]
fn p_066_a_legacy_backend_is_subscribed_to_by_a_session_and_its_stream() {
    let (sender, pieces) = crossbeam_channel::unbounded::<String>();
    let backend = Backend::scripted(move |exchange| {
        while let Some(request) = exchange.request() {
            if request.contains("\"initialize\"") {
                let body = result(&request, r#""protocolVersion":"2025-06-18","capabilities":{}"#);
                exchange.send(answer_with(200, "Mcp-Session-Id: own\r\n", &body));
            } else if request.starts_with("GET") {
                exchange.send(EVENT_STREAM);
                while let Ok(piece) = pieces.recv_timeout(crate::support::PATIENCE)
                    && exchange.send(&piece)
                {}
                return;
            } else {
                exchange.send("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n");
            }
        }
    });
    let proxy = reader_with(&backend, "cache = { subscribe = \"get_stream\" }").workers(1).start();
    assert!(backend.next_request().contains("\"initialize\""));
    let initialized = backend.next_request();
    assert!(initialized.contains("notifications/initialized") && initialized.contains("Mcp-Session-Id: own\r\n"));
    let get = backend.next_request();
    assert!(get.contains("MCP-Protocol-Version: 2025-06-18\r\n") && get.contains("Mcp-Session-Id: own\r\n"), "{get}");
    sender.send(chunk(&event(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#))).unwrap();
    eventually("the change is counted", || {
        proxy.metric("ringway_cache_invalidations_total{reason=\"notification\"}") == 1.0
    });
}

#[test]
fn p_085_requests_about_one_task_meet_one_endpoint() {
    let backends: Vec<Backend> = (0..4)
        .map(|_| {
            Backend::scripted(|exchange| {
                while let Some(request) = exchange.request() {
                    exchange.send(json(&result(&request, r#""taskId":"t""#)));
                }
            })
        })
        .collect();
    let addresses: Vec<_> = backends.iter().map(Backend::address).collect();
    let proxy = Proxy::builder().reads_messages().backend("b", &addresses).start();
    for task in 0..8 {
        let counts = || backends.iter().map(Backend::requests).collect::<Vec<_>>();
        let before = counts();
        for method in ["tasks/get", "tasks/update", "tasks/get", "tasks/cancel"] {
            let ask = Ask::modern(method).named("taskId", &format!("task-{task}"));
            assert_eq!(proxy.ask(&ask).status, 200);
        }
        let met = counts().iter().zip(before).filter(|(after, before)| **after != *before).count();
        assert_eq!(met, 1, "task {task}");
    }
}
