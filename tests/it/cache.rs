//! Answers that are kept: which, for whom, for how long, and what makes them go.
//!
//! Every worker has a cache of its own, and an answer is in those of the workers that asked for it
//! and of the question's owner: a story about what must be kept asks on one connection, one about
//! what must not asks on many.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;

use crate::support::mcp::{
    Ask, answer, answer_with, answers, error, field_of, gated, gated_of, herd, reader, reader_with, result, server,
    server_of,
};
use crate::support::{Backend, Client, Gate, Proxy, Response, TempFile, eventually, json};

const HOUR_PUBLIC: &str = r#""ttlMs":3600000,"cacheScope":"public""#;
const HOUR_PRIVATE: &str = r#""ttlMs":3600000,"cacheScope":"private""#;

/// Asks on this connection.
fn ask(client: &mut Client, ask: &Ask) -> Response {
    client.send(ask.bytes());
    let response = client.response();
    response.answers(ask);
    response
}

/// Asserts that what the backend says is not kept: asked again, it is asked again.
fn is_not_kept(proxy: &Proxy, backend: &Backend, asks: &[Ask]) {
    let mut client = proxy.client();
    for (id, asked) in asks.iter().enumerate() {
        let before = backend.requests();
        ask(&mut client, &asked.clone().id(id));
        assert_eq!(backend.requests(), before + 1, "{asked:?}");
    }
}

/// Asserts that it is kept: the first reaches the backend, the others do not.
fn is_kept(proxy: &Proxy, backend: &Backend, asks: &[Ask]) {
    let before = backend.requests();
    let mut client = proxy.client();
    for (id, asked) in asks.iter().enumerate() {
        assert_eq!(ask(&mut client, &asked.clone().id(id)).status, 200);
        assert_eq!(backend.requests(), before + 1, "{asked:?}");
    }
}

#[test]
fn p_057_the_six_methods_are_kept_and_no_others() {
    let backend = server_of(HOUR_PUBLIC);
    let proxy = reader(&backend).start();
    for method in ["server/discover", "tools/list", "prompts/list", "resources/list", "resources/templates/list"] {
        is_kept(&proxy, &backend, &[Ask::modern(method), Ask::modern(method)]);
    }
    is_kept(&proxy, &backend, &[Ask::read("file:///a"), Ask::read("file:///a")]);
    for other in [
        Ask::modern("tools/call").named("name", "t"),
        Ask::modern("prompts/get").named("name", "p"),
        Ask::modern("tasks/get").named("taskId", "t"),
        Ask::modern("completion/complete"),
        Ask::modern("vendor/list"),
    ] {
        is_not_kept(&proxy, &backend, &[other.clone(), other]);
    }
}

#[test]
fn an_answer_is_kept_whatever_was_asked_before_it() {
    let backend = server_of(HOUR_PUBLIC);
    let proxy = reader(&backend).workers(1).start();
    // Two at once leave both their heads to whoever comes next: a request and the one who asks in its place.
    const HEAD: &str = "HEAD /none HTTP/1.1\r\nHost: test\r\n\r\n";
    let (begun, rest) = HEAD.split_at(10);
    let (mut slow, mut quick) = (proxy.client(), proxy.client());
    slow.send(begun);
    quick.send(HEAD);
    assert_eq!(quick.response_to_head().status, 404);
    slow.send(rest);
    assert_eq!(slow.response_to_head().status, 404);
    is_kept(&proxy, &backend, &[Ask::list(), Ask::list()]);
}

#[test]
fn p_058_p_063_what_has_no_time_left_is_not_kept() {
    const ROWS: &[&str] = &[
        r#""ttlMs":0,"cacheScope":"public""#,
        r#""cacheScope":"public""#,
        r#""ttlMs":-1,"cacheScope":"public""#,
        r#""ttlMs":null,"cacheScope":"public""#,
        r#""ttlMs":"60000","cacheScope":"public""#,
        r#""ttlMs":1e9,"cacheScope":"public""#,
        r#""_meta":{"ttlMs":60000},"cacheScope":"public""#,
    ];
    for members in ROWS {
        let backend = server_of(members);
        is_not_kept(&reader(&backend).start(), &backend, &[Ask::list(), Ask::list()]);
    }
    type Make = fn(&str) -> String;
    let rows: [Make; 5] = [
        |request| json(&error(request, -32603)),
        |request| answer_with(404, "", &error(request, -32601)),
        |request| {
            json(&answer(
                request,
                r#""result":{"resultType":"input_required","requestState":"s","ttlMs":60000,"cacheScope":"public"}"#,
            ))
        },
        |request| json(&answer(request, r#""result":{"resultType":"task","ttlMs":60000,"cacheScope":"public"}"#)),
        |request| answer_with(503, "", &result(request, HOUR_PUBLIC)),
    ];
    for make in rows {
        let backend = server(make);
        is_not_kept(&reader(&backend).start(), &backend, &[Ask::list(), Ask::list()]);
    }
}

#[test]
fn p_063_an_answer_is_used_no_longer_than_it_says() {
    let backend = server_of(r#""ttlMs":700,"cacheScope":"public""#);
    let proxy = reader(&backend).start();
    let mut client = proxy.client();
    for round in 1..=3 {
        eventually("the backend is asked again", || {
            let response = ask(&mut client, &Ask::list());
            assert!(response.message()["result"]["ttlMs"].as_u64().unwrap() <= 700);
            backend.requests() == round
        });
    }
}

#[test]
fn p_060_p_068_each_page_and_each_uri_is_kept_by_itself() {
    let backend = server(|request| {
        let body = request.split_once("\r\n\r\n").unwrap().1;
        let params = &serde_json::from_str::<Value>(body).unwrap()["params"];
        json(&result(request, &format!(r#""asked":[{},{}],{HOUR_PUBLIC}"#, params["cursor"], params["uri"])))
    });
    let proxy = reader(&backend).start();
    let page = |cursor: &str| Ask::list().param(&format!(r#""cursor":{cursor}"#));
    let asks = [
        (Ask::list(), "null", "null"),
        (page(r#""""#), r#""""#, "null"),
        (page(r#""a""#), r#""a""#, "null"),
        (page(r#""b""#), r#""b""#, "null"),
        (Ask::read("file:///a"), "null", r#""file:///a""#),
        (Ask::read("file:///b"), "null", r#""file:///b""#),
        (Ask::modern("resources/list"), "null", "null"),
    ];
    let mut client = proxy.client();
    for _ in 0..3 {
        for (asked, cursor, uri) in &asks {
            let response = ask(&mut client, asked);
            assert!(response.text().contains(&format!(r#""asked":[{cursor},{uri}]"#)), "{asked:?}");
        }
        assert_eq!(backend.requests(), asks.len());
    }
}

#[test]
fn p_061_p_064_a_private_answer_is_for_its_credential_only() {
    for members in [HOUR_PRIVATE, r#""ttlMs":3600000"#, r#""ttlMs":3600000,"cacheScope":"Public""#] {
        let backend = server_of(members);
        let proxy = reader(&backend).start();
        let mut clients: Vec<Client> = (0..12).map(|_| proxy.client()).collect();
        // A refreshed token of the same user is another credential.
        let by = |token: &str| Ask::list().by(token);
        let asks = [by("user-1.first"), by("user-1.second"), Ask::list(), Ask::list().field("Cookie: u=1")];
        for _ in 0..2 {
            for client in &mut clients {
                for asked in &asks {
                    let mine = field_of(&String::from_utf8(asked.bytes()).unwrap(), "Authorization").to_owned();
                    assert_eq!(ask(client, asked).made_for(), mine);
                }
            }
        }
        // Kept, for each of them: the second round and the other connections of a worker asked nobody.
        assert!(backend.requests() < 12 * asks.len(), "{}", backend.requests());
        assert!(backend.requests() >= asks.len());
    }
}

#[test]
fn p_062_a_public_answer_is_for_all() {
    let backend = server_of(HOUR_PUBLIC);
    let proxy = reader(&backend).start();
    let by = |token: &str| Ask::list().by(token);
    is_kept(&proxy, &backend, &[by("a"), by("b"), Ask::list(), by("c"), by("a")]);
}

#[test]
fn p_059_a_retry_neither_reads_nor_fills() {
    let backend = server_of(HOUR_PUBLIC);
    let proxy = reader(&backend).start();
    let retries =
        [r#""requestState":"s""#, r#""inputResponses":{}"#].map(|member| Ask::read("file:///a").param(member));
    is_not_kept(&proxy, &backend, &retries);
    // They have filled nothing, and once it is filled read nothing.
    is_kept(&proxy, &backend, &[Ask::read("file:///a"), Ask::read("file:///a")]);
    is_not_kept(&proxy, &backend, &retries);
    // Nor do those that want to hear of their own progress.
    is_not_kept(&proxy, &backend, &[Ask::read("file:///a").meta(r#""progressToken":1"#)]);
}

#[test]
fn p_065_a_served_copy_is_whole_and_the_askers_own() {
    let backend = server(|request| {
        let fields = "Date: Tue, 01 Jan 2030 00:00:00 GMT\r\nMcp-Session-Id: s\r\nX-Request-Id: 9\r\nX-Kept: yes\r\n";
        answer_with(200, fields, &result(request, r#""cacheScope":"public","ttlMs":  3600000  ,"last":"é""#))
    });
    let proxy = reader(&backend).start();
    let mut client = proxy.client();
    let first = ask(&mut client, &Ask::list().id(r#""first""#));
    assert_eq!(first.message()["result"]["ttlMs"], 3_600_000);
    let mut before = 3_600_000;
    for id in ["2", r#""2""#, "12345678901234567890", r#""\u0061""#] {
        let response = ask(&mut client, &Ask::list().id(id));
        assert_eq!(response.status, 200);
        assert_eq!(response.field("content-length").unwrap(), response.body.len().to_string());
        assert_eq!(response.field("content-type"), Some("application/json"));
        assert_eq!(response.field("x-kept"), Some("yes"));
        for absent in ["date", "mcp-session-id", "x-request-id", "set-cookie", "transfer-encoding", "age"] {
            assert_eq!(response.field(absent), None, "{absent}");
        }
        let left = response.message()["result"]["ttlMs"].as_u64().unwrap();
        assert!(left <= before, "time only runs down");
        before = left;
        // All else is the backend's, spaces included.
        let id = format!(r#""id":{id}"#);
        let own = first.text().replace(r#""id":"first""#, &id).replace("3600000", &left.to_string());
        assert_eq!(response.text(), own);
    }
    eventually("time runs down", || {
        ask(&mut client, &Ask::list()).message()["result"]["ttlMs"].as_u64().unwrap() < 3_600_000
    });
    // Pipelined, and to a client of HTTP/1.0.
    client.send([Ask::list().id(1).bytes(), Ask::list().id(2).bytes()].concat());
    assert_eq!(
        (client.response().message()["id"].clone(), client.response().message()["id"].clone()),
        (1.into(), 2.into())
    );
    client.send(String::from_utf8(Ask::list().bytes()).unwrap().replace("HTTP/1.1", "HTTP/1.0"));
    assert_eq!(client.response().message()["id"], 1);
    assert!(client.ended());
    assert_eq!(backend.requests(), 1);
}

#[test]
fn a_backend_whose_answers_are_not_kept() {
    let backend = server_of(HOUR_PUBLIC);
    for keys in ["cache = { enabled = false }", "cache = { ttl_max_ms = 0 }"] {
        is_not_kept(&reader_with(&backend, keys).start(), &backend, &[Ask::list(), Ask::list()]);
    }
    is_not_kept(&reader(&backend).limits("cache_bytes_max = 0").start(), &backend, &[Ask::list(), Ask::list()]);
    // Kept without being shared in flight.
    is_kept(&reader_with(&backend, "coalesce = { enabled = false }").start(), &backend, &[Ask::list(), Ask::list()]);
}

#[test]
fn an_operator_bounds_scope_and_time() {
    let backend = server_of(HOUR_PUBLIC);
    let proxy = reader_with(&backend, r#"cache = { scope_max = "private" }"#).start();
    is_kept(&proxy, &backend, &[Ask::list().by("a"), Ask::list().by("a")]);
    is_kept(&proxy, &backend, &[Ask::list().by("b"), Ask::list().by("b")]);
    // In flight too.
    let gate = Gate::new();
    let gated = gated_of(&gate, HOUR_PUBLIC);
    let proxy = reader_with(&gated, r#"cache = { scope_max = "private" }"#).start();
    let asks: Vec<Ask> = (0..8).map(|id| Ask::list().id(id).by(["a", "b"][id % 2])).collect();
    let mut clients = proxy.ask_together(&asks);
    gate.open_for(2);
    for (id, response) in answers(&mut clients, &asks).iter().enumerate() {
        assert_eq!(response.made_for(), ["Bearer a", "Bearer b"][id % 2]);
    }
    let proxy = reader_with(&backend, "cache = { ttl_max_ms = 500 }").start();
    let mut client = proxy.client();
    let before = backend.requests();
    eventually("it is asked again", || {
        ask(&mut client, &Ask::list());
        backend.requests() == before + 2
    });
}

#[test]
fn the_cache_is_bounded_in_bytes() {
    let backend = server(|request| json(&result(request, &format!(r#""pad":"{}",{HOUR_PUBLIC}"#, "x".repeat(10_000)))));
    let proxy = reader(&backend).limits("cache_bytes_max = 100000").workers(1).start();
    let mut client = proxy.client();
    let pages: Vec<Ask> = (0..50).map(|page| Ask::list().param(&format!(r#""cursor":"{page}""#))).collect();
    for page in &pages {
        ask(&mut client, page);
    }
    assert_eq!(backend.requests(), 50);
    for page in &pages {
        ask(&mut client, page);
    }
    // At most nine fit; the others had to be fetched again.
    assert!((91..100).contains(&backend.requests()), "{}", backend.requests());
    // One that fits nowhere is relayed, and drives nobody out.
    let small = server_of(HOUR_PUBLIC);
    let proxy = reader(&small).limits("cache_bytes_max = 300").workers(1).start();
    is_not_kept(&proxy, &small, &[Ask::list(), Ask::list()]);
}

/// A backend that answers until it is told to fail, and then in this way.
fn failing(
    members: &'static str,
    fail: impl Fn(&mut crate::support::backend::Exchange) + Send + Sync + 'static,
) -> (Backend, Arc<AtomicBool>) {
    let broken = Arc::new(AtomicBool::new(false));
    let is_broken = Arc::clone(&broken);
    let backend = Backend::scripted(move |exchange| {
        while let Some(request) = exchange.request() {
            if is_broken.load(Ordering::SeqCst) {
                return fail(exchange);
            }
            exchange.send(json(&result(&request, members)));
        }
    });
    (backend, broken)
}

#[test]
fn a_stale_answer_stands_in_when_the_backend_fails() {
    const SHORT: &str = r#""ttlMs":1,"cacheScope":"public""#;
    type Fail = fn(&mut crate::support::backend::Exchange);
    let rows: [(Fail, &str); 3] = [
        (|exchange| exchange.close(), ""),
        (|exchange| exchange.wait_for_end(), "first_byte_timeout_ms = 1000\n"),
        (|exchange| _ = exchange.send("no answer at all\r\n\r\n"), ""),
    ];
    for (fail, keys) in rows {
        let (backend, broken) = failing(SHORT, fail);
        let keys = format!("{keys}cache = {{ stale_if_error_ms = 3600000 }}");
        let proxy = reader_with(&backend, &keys).start();
        let mut client = proxy.client();
        ask(&mut client, &Ask::list());
        eventually("it is stale", || {
            let before = backend.requests();
            ask(&mut client, &Ask::list());
            backend.requests() > before
        });
        broken.store(true, Ordering::SeqCst);
        let response = eventually_stale(&mut client, &backend);
        assert_eq!((response.status, &response.message()["result"]["ttlMs"]), (200, &Value::from(0)));
        // For what was asked only.
        client.send(Ask::modern("prompts/list").bytes());
        assert!(client.response().status >= 502);
        broken.store(false, Ordering::SeqCst);
        let before = backend.requests();
        eventually("the backend is asked again", || {
            ask(&mut client, &Ask::list());
            backend.requests() > before
        });
    }
    // Without the key a failure is a failure.
    let (backend, broken) = failing(SHORT, crate::support::backend::Exchange::close);
    let proxy = reader(&backend).start();
    let mut client = proxy.client();
    ask(&mut client, &Ask::list());
    broken.store(true, Ordering::SeqCst);
    eventually("it is told", || ask(&mut client, &Ask::list()).status == 502);
}

/// The answer after the backend was asked in vain.
fn eventually_stale(client: &mut Client, backend: &Backend) -> Response {
    let before = backend.requests();
    let mut last = None;
    eventually("the backend is asked", || {
        last = Some(ask(client, &Ask::list()));
        backend.requests() > before
    });
    last.expect("an answer")
}

#[test]
fn p_069_a_stale_answer_is_served_while_one_exchange_fetches_a_new_one() {
    let gate = Gate::new();
    let number = AtomicUsize::new(0);
    let backend = gated(&gate, move |request| {
        let number = number.fetch_add(1, Ordering::SeqCst);
        // The first is stale at once, those that follow stay.
        let ttl = if number == 0 { 1 } else { 3_600_000 };
        json(&result(request, &format!(r#""number":{number},"ttlMs":{ttl},"cacheScope":"public""#)))
    });
    let proxy = reader_with(&backend, "cache = { stale_while_revalidate_ms = 3600000 }").workers(2).start();
    // Of this connection's worker it is known that it has the answer.
    let mut client = proxy.asks(&Ask::list());
    gate.open();
    client.response();
    eventually("it is stale", || ask(&mut client, &Ask::list()).message()["result"]["ttlMs"] == 0);
    // A worker that has nothing waits for the new one.
    let asks = herd(&Ask::list(), 40);
    let mut clients: Vec<Client> = asks.iter().map(|ask| proxy.asks(ask)).collect();
    eventually("a new one is asked for", || backend.requests() == 2);
    gate.open();
    for response in answers(&mut clients, &asks) {
        let result = &response.message()["result"];
        match result["number"].as_u64().unwrap() {
            0 => assert_eq!(result["ttlMs"], 0),
            number => assert_eq!((number, result["ttlMs"].as_u64().unwrap() > 1), (1, true)),
        }
    }
    eventually("the new one is served", || ask(&mut client, &Ask::list()).message()["result"]["number"] == 1);
    assert_eq!(backend.requests(), 2);
}

#[test]
fn p_068_an_unknown_cursor_drops_the_pages_of_its_list() {
    let backend = server(|request| {
        if request.contains(r#""cursor":"gone""#) {
            return json(&error(request, -32602));
        }
        json(&result(request, HOUR_PUBLIC))
    });
    let proxy = reader(&backend).start();
    let page = |cursor: &str| Ask::list().param(&format!(r#""cursor":"{cursor}""#));
    let prompts = Ask::modern("prompts/list");
    let mut client = proxy.client();
    let kept = [Ask::list(), page("a"), page("b"), prompts.clone()];
    for _ in 0..2 {
        kept.iter().for_each(|asked| drop(ask(&mut client, asked)));
    }
    assert_eq!(backend.requests(), 4);
    // From another connection, so perhaps at another worker.
    assert_eq!(ask(&mut proxy.client(), &page("gone")).message()["error"]["code"], -32602);
    assert_eq!(backend.requests(), 5);
    kept.iter().for_each(|asked| drop(ask(&mut client, asked)));
    assert_eq!(backend.requests(), 5 + 3, "the prompts are another list");
    // The same error without a cursor says nothing of pages.
    let strict = server(|request| match request.contains("x-bad") {
        true => json(&error(request, -32602)),
        false => json(&result(request, HOUR_PUBLIC)),
    });
    let proxy = reader(&strict).start();
    let mut client = proxy.client();
    ask(&mut client, &Ask::list());
    ask(&mut client, &Ask::list().param(r#""x-bad":1"#));
    ask(&mut client, &Ask::list());
    assert_eq!(strict.requests(), 2);
}

#[test]
fn p_070_p_119_a_changed_backend_has_nothing_kept_and_an_unchanged_one_all() {
    let (changing, staying, new) = (server_of(HOUR_PUBLIC), server_of(HOUR_PUBLIC), server_of(HOUR_PUBLIC));
    let file = TempFile::new();
    let with = |address, keys: &str| {
        Proxy::builder().reads_messages().backend_with("b", &[address], keys).backend("c", &[staying.address()])
    };
    let proxy = with(changing.address(), "").start_from(file.path());
    let mut client = proxy.client();
    let other = Ask::list().at("/mcp/c");
    for _ in 0..2 {
        ask(&mut client, &Ask::list());
        ask(&mut client, &other);
    }
    assert_eq!((changing.requests(), staying.requests()), (1, 1));
    // The same file again changes nothing.
    proxy.reloads();
    ask(&mut client, &Ask::list());
    ask(&mut client, &other);
    assert_eq!((changing.requests(), staying.requests()), (1, 1));
    file.write(&with(new.address(), "").text());
    proxy.reloads();
    ask(&mut client, &Ask::list());
    ask(&mut client, &other);
    assert_eq!((changing.requests(), new.requests(), staying.requests()), (1, 1, 1));
    // And back: what it said before the change is not dug out again.
    file.write(&with(changing.address(), "").text());
    proxy.reloads();
    ask(&mut client, &Ask::list());
    assert_eq!(changing.requests(), 2);
    // Another setting is a change too.
    file.write(&with(changing.address(), r#"cache = { scope_max = "private" }"#).text());
    proxy.reloads();
    ask(&mut client, &Ask::list().by("a"));
    ask(&mut client, &Ask::list().by("b"));
    assert_eq!(changing.requests(), 4);
}

/// A server with sessions whose results have no hints.
fn legacy_server() -> Backend {
    let sessions = AtomicUsize::new(0);
    server(move |request| {
        if request.contains(r#""initialize""#) {
            let number = sessions.fetch_add(1, Ordering::SeqCst);
            return answer_with(200, &format!("Mcp-Session-Id: s-{number}\r\n"), &answer(request, r#""result":{}"#));
        }
        let session = field_of(request, "Mcp-Session-Id");
        // Hints of another era count for nothing here.
        json(&answer(
            request,
            &format!(r#""result":{{"tools":[],"for":"{session}","ttlMs":3600000,"cacheScope":"public"}}"#),
        ))
    })
}

fn open_session(client: &mut Client) -> String {
    let response = ask(client, &Ask::legacy("initialize").by("one"));
    format!("Mcp-Session-Id: {}", response.field("mcp-session-id").expect("a session"))
}

#[test]
fn p_071_legacy_answers_are_kept_only_if_the_operator_says_so() {
    let backend = legacy_server();
    let proxy = reader(&backend).start();
    let mut client = proxy.client();
    let session = open_session(&mut client);
    let list = Ask::legacy("tools/list").field(&session);
    is_not_kept(&proxy, &backend, &[list.clone(), list]);

    let proxy = reader_with(&backend, "cache = { legacy_ttl_ms = 3600000 }").start();
    let mut client = proxy.client();
    let sessions = [open_session(&mut client), open_session(&mut client)];
    let before = backend.requests();
    for _ in 0..3 {
        for session in &sessions {
            let own = ask(&mut client, &Ask::legacy("tools/list").by("one").field(session)).made_for();
            assert!(own.starts_with("s-"));
        }
        assert_eq!(backend.requests(), before + 2, "for each session");
    }
    let own: Vec<String> = sessions
        .iter()
        .map(|session| ask(&mut client, &Ask::legacy("tools/list").by("one").field(session)).made_for())
        .collect();
    assert_ne!(own[0], own[1]);
    // Another credential in the same session.
    ask(&mut client, &Ask::legacy("tools/list").by("two").field(&sessions[0]));
    assert_eq!(backend.requests(), before + 3);
    // Calls are calls.
    let call = Ask::legacy("tools/call").field(&sessions[0]).param(r#""name":"t""#);
    is_not_kept(&proxy, &backend, &[call.clone(), call]);
    // Without a session nothing is known to be one client's.
    is_not_kept(&proxy, &backend, &[Ask::legacy("tools/list"), Ask::legacy("tools/list")]);
}

#[test]
fn p_071_vouched_for_legacy_answers_are_kept_by_credential() {
    let backend = legacy_server();
    let keys = "coalesce = { legacy_shared = true }\ncache = { legacy_ttl_ms = 3600000 }";
    let proxy = reader_with(&backend, keys).start();
    let mut client = proxy.client();
    let sessions = [open_session(&mut client), open_session(&mut client)];
    let before = backend.requests();
    for session in sessions.iter().chain(&sessions) {
        ask(&mut client, &Ask::legacy("tools/list").by("one").field(session));
    }
    assert_eq!(backend.requests(), before + 1);
    ask(&mut client, &Ask::legacy("tools/list").by("two").field(&sessions[0]));
    assert_eq!(backend.requests(), before + 2, "private: it says public, but in a language it does not speak");
}
