//! One exchange for many who ask the same at the same time: who shares, who does not, and what becomes
//! of those who wait when a client, the backend, the configuration or a worker goes.
//!
//! Nothing is cached in most of these stories, so that what reaches the backend once was shared in
//! flight. That all are in flight together is known before the backend is let to answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_channel::unbounded;
use ringway::control::Exit;
use ringway::server::Hooks;
use serde_json::Value;

use crate::support::backend::{EVENT_STREAM, LAST_CHUNK, chunk, event};
use crate::support::mcp::{
    Ask, NO_CACHE, answer, answer_with, answers, error, field_of, gated, gated_of, herd, id_of, reader, reader_with,
    result, server, told,
};
use crate::support::{Backend, BlackHole, Client, Gate, Proxy, TempFile, eventually, json};

const PRIVATE: &str = r#""ttlMs":0,"cacheScope":"private""#;
const PUBLIC: &str = r#""ttlMs":0,"cacheScope":"public""#;

/// A proxy that shares and keeps nothing.
fn sharing(backend: &Backend) -> Proxy {
    reader_with(backend, NO_CACHE).start()
}

/// Asks once for all these while the backend waits, lets so many answers go, and gives the answers.
fn together(proxy: &Proxy, gate: &Gate, asks: &[Ask], exchanges: usize) -> Vec<crate::support::Response> {
    let mut clients = proxy.ask_together(asks);
    gate.open_for(exchanges);
    answers(&mut clients, asks)
}

/// Asserts that these requests, asked together, reach the backend so many times, and that each asker
/// gets the answer made for its credential.
fn reach(asks: &[Ask], exchanges: usize, members: &'static str) {
    let gate = Gate::new();
    let backend = gated_of(&gate, members);
    let proxy = sharing(&backend);
    for (response, ask) in together(&proxy, &gate, asks, exchanges).iter().zip(asks) {
        assert_eq!(response.status, 200);
        assert_eq!(response.made_for(), field_of(&String::from_utf8(ask.bytes()).unwrap(), "Authorization"));
    }
    assert_eq!(backend.requests(), exchanges, "{:?}", asks[0]);
    proxy.comes_to_rest();
}

#[test]
fn p_072_a_herd_of_a_thousand_on_four_workers_is_one_exchange() {
    let gate = Gate::new();
    let backend = gated_of(&gate, PRIVATE);
    let proxy = reader_with(&backend, NO_CACHE).workers(4).start();
    let asks = herd(&Ask::list().by("one"), 1000);
    for response in together(&proxy, &gate, &asks, 1) {
        assert_eq!((response.status, response.made_for().as_str()), (200, "Bearer one"));
    }
    assert_eq!(backend.requests(), 1);
    proxy.comes_to_rest();
}

#[test]
fn p_073_ten_credentials_at_a_private_backend_are_ten_exchanges() {
    let gate = Gate::new();
    let backend = gated_of(&gate, PRIVATE);
    let proxy = reader_with(&backend, NO_CACHE).workers(4).start();
    let asks: Vec<Ask> = (0..1000).map(|number| Ask::list().id(number).by(&format!("user-{}", number % 10))).collect();
    for (number, response) in together(&proxy, &gate, &asks, 10).iter().enumerate() {
        assert_eq!(response.made_for(), format!("Bearer user-{}", number % 10));
    }
    assert_eq!(backend.requests(), 10);
    proxy.comes_to_rest();
}

#[test]
fn p_073_once_known_to_be_public_credentials_share() {
    let gate = Gate::new();
    let backend = gated_of(&gate, PUBLIC);
    let proxy = reader(&backend).start();
    let asks: Vec<Ask> = (0..60).map(|number| Ask::list().id(number).by(&format!("user-{number}"))).collect();
    // The first time nothing is known.
    together(&proxy, &gate, &asks[..3], 3);
    for response in together(&proxy, &gate, &asks, 1) {
        assert_eq!(response.status, 200);
    }
    assert_eq!(backend.requests(), 4);
    proxy.comes_to_rest();
}

/// A gated backend that says `public` until it is told otherwise.
fn turning(gate: &Gate) -> (Backend, Arc<AtomicBool>) {
    let private = Arc::new(AtomicBool::new(false));
    let (is_private, gate) = (Arc::clone(&private), gate.clone());
    let backend = server(move |request| {
        gate.pass();
        json(&result(request, if is_private.load(Ordering::SeqCst) { PRIVATE } else { PUBLIC }))
    });
    (backend, private)
}

#[test]
fn p_073_a_surprise_private_answer_is_for_its_own_credential() {
    let gate = Gate::new();
    let (backend, private) = turning(&gate);
    let proxy = reader(&backend).start();
    together(&proxy, &gate, &[Ask::list().by("user-0")], 1);
    private.store(true, Ordering::SeqCst);
    let asks: Vec<Ask> = (0..40).map(|number| Ask::list().id(number).by(&format!("user-{}", number % 4))).collect();
    let mut clients = proxy.ask_together(&asks);
    (0..2).for_each(|_| drop(backend.next_request()));
    assert_eq!(backend.requests(), 1 + 1, "one for all, as it was known to be public");
    gate.open();
    // The others ask again, each credential for itself.
    proxy.has_in_flight(30);
    gate.open_for(3);
    for (number, response) in answers(&mut clients, &asks).iter().enumerate() {
        assert_eq!(response.made_for(), format!("Bearer user-{}", number % 4));
    }
    assert_eq!(backend.requests(), 1 + 4);
    drop(clients);
    proxy.comes_to_rest();
}

/// Who asked first at a worker may have left when the answer comes: it is still theirs by whose
/// credential it was fetched.
#[test]
fn p_073_a_private_answer_stays_private_when_the_first_to_ask_has_left() {
    let gate = Gate::new();
    let (backend, private) = turning(&gate);
    let proxy = reader(&backend).workers(2).start();
    // Which worker leads and which owns the question is up to chance: all four happen.
    for page in 0..12 {
        let page = Ask::list().param(&format!(r#""cursor":"{page}""#));
        private.store(false, Ordering::SeqCst);
        together(&proxy, &gate, &[page.clone().by("one")], 1);
        private.store(true, Ordering::SeqCst);
        let mut leader = proxy.asks(&page.clone().by("one"));
        (0..2).for_each(|_| drop(backend.next_request()));
        let first = proxy.ask_together(&herd(&page.clone().by("one"), 12));
        let asks = herd(&page.clone().by("other"), 12);
        let mut clients = proxy.ask_together(&asks);
        drop(first);
        proxy.has_in_flight(1 + 12);
        gate.open();
        assert_eq!(leader.response().made_for(), "Bearer one");
        proxy.has_in_flight(12);
        gate.open();
        for response in answers(&mut clients, &asks) {
            assert_eq!(response.made_for(), "Bearer other");
        }
        backend.next_request();
    }
}

#[test]
fn p_072_each_gets_its_own_id_in_its_own_spelling() {
    let ids = [
        "0",
        "-1",
        "1",
        "12345678901234567890",
        "99999999999999999999999999",
        r#""1""#,
        r#""""#,
        r#""a\"b\\""#,
        r#""\u0061""#,
        r#""a""#,
        r#""é\ud83d\ude00""#,
        r#""id""#,
    ];
    let gate = Gate::new();
    let backend = gated(&gate, |request| {
        // The id stands where servers may put it, and a like one in the result.
        let id = id_of(request);
        json(&format!(
            r#"{{ "result" : {{"id":{id},"tools":[],"resultType":"complete","ttlMs":0,"cacheScope":"private"}} , "id" : {id} , "jsonrpc":"2.0"}}"#
        ))
    });
    let proxy = sharing(&backend);
    let mut leader = proxy.asks(&Ask::list().id(r#""lead\u0065r""#));
    backend.next_request();
    let asks: Vec<Ask> = ids.iter().map(|id| Ask::list().id(id)).collect();
    let mut clients = proxy.ask_together(&asks);
    gate.open();
    let of = |id: &str, inner: &str| {
        format!(
            r#"{{ "result" : {{"id":{inner},"tools":[],"resultType":"complete","ttlMs":0,"cacheScope":"private"}} , "id" : {id} , "jsonrpc":"2.0"}}"#
        )
    };
    let own = r#""lead\u0065r""#;
    assert_eq!(leader.response().text(), of(own, own));
    for (client, id) in clients.iter_mut().zip(ids) {
        let response = client.response();
        assert_eq!(response.text(), of(id, own));
        assert_eq!(response.field("content-length").unwrap(), response.body.len().to_string());
    }
    assert_eq!(backend.requests(), 1);
}

#[test]
fn p_074_followers_are_served_when_the_leader_leaves_before_the_answer() {
    let gate = Gate::new();
    let backend = gated_of(&gate, PRIVATE);
    let proxy = sharing(&backend);
    for leave in [drop, Client::reset] {
        let leader = proxy.asks(&Ask::list());
        backend.next_request();
        let asks = herd(&Ask::list(), 10);
        let mut clients = proxy.ask_together(&asks);
        leave(leader);
        proxy.has_in_flight(10);
        gate.open();
        for response in answers(&mut clients, &asks) {
            assert_eq!(response.status, 200);
        }
        drop(clients);
        proxy.comes_to_rest();
    }
    assert_eq!(backend.requests(), 2);
}

#[test]
fn p_074_followers_are_served_when_the_leader_leaves_inside_the_answer() {
    let gate = Gate::new();
    let rest = gate.clone();
    let backend = Backend::scripted(move |exchange| {
        while let Some(request) = exchange.request() {
            let answer = json(&result(&request, PRIVATE));
            let (head, body) = answer.split_at(answer.len() - 20);
            exchange.send(head);
            rest.pass();
            exchange.send(body);
        }
    });
    let proxy = sharing(&backend);
    let leader = proxy.asks(&Ask::list());
    backend.next_request();
    let asks = herd(&Ask::list(), 10);
    let mut clients = proxy.ask_together(&asks);
    drop(leader);
    proxy.has_in_flight(10);
    gate.open();
    for response in answers(&mut clients, &asks) {
        assert_eq!(response.status, 200);
    }
    assert_eq!(backend.requests(), 1);
    drop(clients);
    proxy.comes_to_rest();
}

#[test]
fn p_074_followers_are_served_when_the_leader_leaves_while_connecting() {
    let place = BlackHole::new();
    let proxy = Proxy::builder()
        .reads_messages()
        .backend_with("b", &[place.address], &format!("connect_timeout_ms = 20000\n{NO_CACHE}"))
        .start();
    let leader = proxy.asks(&Ask::list());
    proxy.has_in_flight(1);
    let asks = herd(&Ask::list(), 10);
    let mut clients = proxy.ask_together(&asks);
    drop(leader);
    proxy.has_in_flight(10);
    let backend = Backend::in_place_of(place, |exchange| {
        while let Some(request) = exchange.request() {
            exchange.send(json(&result(&request, PRIVATE)));
        }
    });
    for response in answers(&mut clients, &asks) {
        assert_eq!(response.status, 200);
    }
    assert_eq!(backend.requests(), 1);
    drop(clients);
    proxy.comes_to_rest();
}

#[test]
fn p_074_followers_ask_themselves_when_the_leader_has_left_and_the_answer_was_its_own() {
    let gate = Gate::new();
    let backend = gated(&gate, |request| answer_with(403, "", &error(request, -32600)));
    let proxy = sharing(&backend);
    let leader = proxy.asks(&Ask::list());
    backend.next_request();
    let asks = herd(&Ask::list(), 5);
    let mut clients = proxy.ask_together(&asks);
    drop(leader);
    proxy.has_in_flight(5);
    gate.open_for(1 + 5);
    for response in answers(&mut clients, &asks) {
        assert_eq!(response.status, 403);
    }
    assert_eq!(backend.requests(), 1 + 5);
}

#[test]
fn p_074_the_backend_sees_the_end_when_the_last_one_leaves() {
    let (tell, heard) = unbounded();
    let backend = Backend::scripted(move |exchange| exchange.tell_end(&tell));
    let proxy = sharing(&backend);
    for leader_first in [true, false] {
        let leader = proxy.asks(&Ask::list());
        assert_eq!(told(&heard), "asked");
        let mut clients = proxy.ask_together(&herd(&Ask::list(), 8));
        if leader_first {
            clients.insert(0, leader)
        } else {
            clients.push(leader)
        }
        for left in (0..9).rev() {
            assert!(heard.is_empty(), "the backend is asked for those who wait");
            drop(clients.remove(0));
            proxy.has_in_flight(left);
        }
        assert_eq!(told(&heard), "ended");
        proxy.comes_to_rest();
    }
    assert_eq!(backend.requests(), 2);
}

#[test]
fn p_074_a_new_request_joins_the_flight_whose_first_client_has_left() {
    let gate = Gate::new();
    let backend = gated_of(&gate, PRIVATE);
    let proxy = sharing(&backend);
    let leader = proxy.asks(&Ask::list());
    backend.next_request();
    let asks = herd(&Ask::list(), 4);
    let mut clients = proxy.ask_together(&asks);
    drop(leader);
    proxy.has_in_flight(4);
    let late = herd(&Ask::list().id("late"), 4);
    let mut late_clients = proxy.ask_together(&late);
    gate.open();
    answers(&mut clients, &asks);
    answers(&mut late_clients, &late);
    assert_eq!(backend.requests(), 1);
}

/// Asks four times at once at a backend that answers each request by itself, and asserts that every
/// asker reached it and got its own answer.
fn everyone_asks(proxy: &Proxy, gate: &Gate, backend: &Backend, status: u16) {
    let before = backend.requests();
    let asks = herd(&Ask::list().by("one"), 4);
    for response in together(proxy, gate, &asks, 4) {
        assert_eq!(response.status, status);
    }
    assert_eq!(backend.requests(), before + 4);
}

#[test]
fn p_075_what_concerns_the_leader_alone_is_asked_for_by_each() {
    type Make = fn(&str) -> String;
    let rows: [(&str, u16, Make); 8] = [
        ("input_required", 200, |request| {
            json(&answer(request, r#""result":{"resultType":"input_required","requestState":"s"}"#))
        }),
        ("a type of an extension", 200, |request| {
            json(&answer(request, r#""result":{"resultType":"task","taskId":"t","ttlMs":60000}"#))
        }),
        ("401", 401, |request| answer_with(401, "WWW-Authenticate: Bearer\r\n", &error(request, -32600))),
        ("401 without a challenge", 401, |request| answer_with(401, "", &error(request, -32600))),
        ("403", 403, |request| answer_with(403, "", &error(request, -32600))),
        ("a cookie", 200, |request| answer_with(200, "Set-Cookie: a=b\r\n", &result(request, PUBLIC))),
        ("an encoding", 200, |request| answer_with(200, "Content-Encoding: gzip\r\n", &result(request, PUBLIC))),
        ("varies", 200, |request| answer_with(200, "Vary: User-Agent\r\n", &result(request, PUBLIC))),
    ];
    for (name, status, make) in rows {
        let gate = Gate::new();
        let backend = gated(&gate, make);
        let proxy = reader(&backend).start();
        everyone_asks(&proxy, &gate, &backend, status);
        // Nor is it kept.
        everyone_asks(&proxy, &gate, &backend, status);
        eventually(name, || proxy.metric("ringway_exchanges") == 0.0);
    }
}

#[test]
fn p_072_an_error_is_shared_by_its_credential() {
    type Make = fn(&str) -> String;
    let rows: [(u16, Make); 3] = [
        (200, |request| json(&error(request, -32603))),
        (404, |request| answer_with(404, "", &error(request, -32601))),
        (400, |request| answer_with(400, "", &error(request, -32602))),
    ];
    for (status, make) in rows {
        let gate = Gate::new();
        let backend = gated(&gate, make);
        let proxy = reader(&backend).start();
        let asks: Vec<Ask> = (0..12).map(|number| Ask::list().id(number).by(["a", "b"][number % 2])).collect();
        for response in together(&proxy, &gate, &asks, 2) {
            assert_eq!(response.status, status);
            assert_eq!(response.message()["error"]["message"], "no");
        }
        assert_eq!(backend.requests(), 2);
        // It is not kept (P-058).
        together(&proxy, &gate, &asks[..1], 1);
        assert_eq!(backend.requests(), 3);
    }
}

/// Asserts that a failure of the backend is told to all who wait for it.
fn all_are_told(proxy: &Proxy, status: u16, fail: impl FnOnce()) {
    let asks = herd(&Ask::list(), 20);
    let mut clients: Vec<Client> = asks.iter().map(|ask| proxy.asks(ask)).collect();
    fail();
    for response in answers(&mut clients, &asks) {
        assert_eq!((response.status, &response.message()["error"]["code"]), (status, &Value::from(-32603)));
    }
    drop(clients);
    proxy.comes_to_rest();
}

#[test]
fn a_backend_that_closes_is_told_to_all_and_asked_once() {
    let gate = Gate::new();
    let closing = gate.clone();
    let backend = Backend::scripted(move |exchange| {
        exchange.request();
        closing.pass();
    });
    let proxy = sharing(&backend);
    all_are_told(&proxy, 502, || {
        proxy.has_in_flight(20);
        gate.open();
    });
    assert_eq!(backend.requests(), 1);
}

#[test]
fn a_backend_that_is_silent_is_told_to_all_and_asked_once() {
    let backend = Backend::scripted(|exchange| {
        exchange.request();
        exchange.wait_for_end();
    });
    all_are_told(&reader_with(&backend, &format!("first_byte_timeout_ms = 5000\n{NO_CACHE}")).start(), 504, || ());
    assert_eq!(backend.requests(), 1);
}

#[test]
fn a_backend_that_cannot_be_reached_is_told_to_all() {
    let place = BlackHole::new();
    let proxy = Proxy::builder().reads_messages().backend_with("b", &[place.address], "connect_timeout_ms = 5000");
    all_are_told(&proxy.start(), 504, || ());
}

#[test]
fn an_answer_that_breaks_off_is_a_failure_for_all() {
    let gate = Gate::new();
    let breaking = gate.clone();
    let backend = Backend::scripted(move |exchange| {
        while let Some(request) = exchange.request() {
            let answer = json(&result(&request, PRIVATE));
            exchange.send(&answer[..answer.len() - 5]);
            breaking.pass();
            exchange.close();
        }
    });
    let proxy = sharing(&backend);
    let asks = herd(&Ask::list(), 8);
    let mut clients = proxy.ask_together(&asks);
    gate.open();
    for response in answers(&mut clients, &asks) {
        assert_eq!(response.status, 502);
    }
    assert_eq!(backend.requests(), 1);
}

#[test]
fn a_reply_over_the_limit_goes_to_each_by_itself_and_unchanged() {
    fn large(request: &str) -> String {
        result(request, &format!(r#""pad":"{}","ttlMs":60000,"cacheScope":"public""#, "x".repeat(5000)))
    }
    type Make = fn(&str) -> String;
    let rows: [Make; 2] = [
        |request| json(&large(request)),
        |request| {
            let body = large(request);
            let chunks: Vec<String> =
                body.as_bytes().chunks(700).map(|part| chunk(std::str::from_utf8(part).unwrap())).collect();
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{}{LAST_CHUNK}",
                chunks.concat()
            )
        },
    ];
    for make in rows {
        let gate = Gate::new();
        let backend = gated(&gate, make);
        let proxy = reader(&backend).limits("shared_reply_bytes_max = 1024").start();
        let asks: Vec<Ask> = herd(&Ask::list().by("one"), 6);
        for (response, ask) in together(&proxy, &gate, &asks, 6).iter().zip(&asks) {
            assert_eq!(response.text(), large(&String::from_utf8(ask.bytes()).unwrap()));
        }
        assert_eq!(backend.requests(), 6);
        // Neither is it cached.
        together(&proxy, &gate, &asks[..1], 1);
        assert_eq!(backend.requests(), 7);
    }
}

/// A stream of a notification and then the result, which goes on when it is let.
fn streaming(gate: &Gate, events: fn(&str) -> Vec<String>) -> Backend {
    let gate = gate.clone();
    Backend::scripted(move |exchange| {
        while let Some(request) = exchange.request() {
            gate.pass();
            exchange.send(EVENT_STREAM);
            for data in events(&request) {
                exchange.send(chunk(&event(data)));
            }
            exchange.send(LAST_CHUNK);
        }
    })
}

#[test]
fn a_stream_with_other_events_first_goes_to_each_by_itself() {
    const NOTE: &str = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#;
    let gate = Gate::new();
    let backend = streaming(&gate, |request| vec![NOTE.to_owned(), result(request, PUBLIC)]);
    let proxy = sharing(&backend);
    let asks = herd(&Ask::list(), 5);
    let mut clients = proxy.ask_together(&asks);
    gate.open_for(5);
    for (client, ask) in clients.iter_mut().zip(&asks) {
        let response = client.response();
        let own = result(&String::from_utf8(ask.bytes()).unwrap(), PUBLIC);
        assert_eq!(response.text(), event(NOTE) + &event(own));
        assert_eq!(response.field("content-type"), Some("text/event-stream"));
    }
    assert_eq!(backend.requests(), 5);
}

#[test]
fn a_stream_that_begins_with_the_response_is_shared_as_one_message() {
    let gate = Gate::new();
    let sent = |request: &str| vec![result(request, PUBLIC)];
    let backend = streaming(&gate, sent);
    let proxy = sharing(&backend);
    let first = Ask::list().id("\"first\"");
    let mut leader = proxy.asks(&first);
    let request = backend.next_request();
    let asks = herd(&Ask::list(), 8);
    let mut clients = proxy.ask_together(&asks);
    gate.open();
    let response = leader.response();
    assert_eq!(response.text(), event(&sent(&request)[0]), "the leader's bytes are the backend's");
    assert_eq!(response.field("content-type"), Some("text/event-stream"));
    for response in answers(&mut clients, &asks) {
        assert_eq!(response.field("content-type"), Some("application/json"));
        assert_eq!(response.field("transfer-encoding"), None);
    }
    assert_eq!(backend.requests(), 1);
}

#[test]
fn p_076_what_may_not_be_shared_is_asked_for_by_each() {
    let asks = [
        Ask::modern("tools/call").named("name", "t").param(r#""arguments":{}"#),
        Ask::modern("prompts/get").named("name", "p"),
        Ask::modern("completion/complete").param(r#""ref":{"type":"ref/prompt","name":"p"}"#),
        Ask::modern("tasks/get").named("taskId", "t"),
        Ask::modern("tasks/update").named("taskId", "t"),
        Ask::modern("tasks/cancel").named("taskId", "t"),
        Ask::modern("vendor/list"),
        Ask::list().meta(r#""io.modelcontextprotocol/logLevel":"debug""#),
        Ask::list().meta(r#""progressToken":1"#),
        Ask::list().meta(r#""progressToken":null"#),
        Ask::read("file:///a").param(r#""inputResponses":{}"#),
        Ask::read("file:///a").param(r#""requestState":"s""#),
        Ask::read("file:///a").param(r#""requestState":null"#),
        Ask::read("file:///a").param(r#""request\u0053tate":"s""#),
        Ask::legacy("tools/call").param(r#""name":"t""#),
        Ask::legacy("ping"),
    ];
    for ask in asks {
        reach(&herd(&ask, 4), 4, PUBLIC);
    }
}

#[test]
fn p_072_what_the_six_methods_ask_is_shared() {
    let asks = [
        Ask::modern("server/discover"),
        Ask::list(),
        Ask::modern("prompts/list"),
        Ask::modern("resources/list"),
        Ask::modern("resources/templates/list"),
        Ask::read("file:///a"),
    ];
    for ask in asks {
        reach(&herd(&ask, 6), 1, PRIVATE);
    }
}

/// Asserts that those in one group share an answer, and the groups do not.
fn split(groups: &[&[Ask]]) {
    let asks = groups.iter().flat_map(|group| group.iter().flat_map(|ask| [ask.clone(), ask.clone()]));
    let asks: Vec<Ask> = asks.enumerate().map(|(id, ask)| ask.id(id)).collect();
    reach(&asks, groups.len(), PRIVATE);
}

#[test]
fn p_070_every_header_but_the_neutral_ones_is_part_of_what_is_asked() {
    let with = |line: &str| Ask::list().field(line);
    split(&[&[with("X-Tenant: a"), with("x-tenant: a")], &[with("X-Tenant: b")], &[Ask::list()]]);
    split(&[&[with("Accept-Language: de")], &[with("Accept-Language: en")]]);
    split(&[&[with("Origin: https://a")], &[with("Origin: https://b")]]);
    split(&[&[with("Mcp-Param-X: 1")], &[with("Mcp-Param-X: 2")], &[Ask::list()]]);
    split(&[&[with("X-A: 1\r\nX-B: 2")], &[with("X-A: 1, 2")], &[with("X-A: 1")]]);
    let neutral = [
        "User-Agent: one",
        "User-Agent: two",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate: a=b",
        "baggage: a=b",
        "X-Request-Id: 1",
        "X-Real-IP: 192.0.2.1",
        "X-Forwarded-For: 192.0.2.1",
        "Forwarded: for=192.0.2.1",
        "Last-Event-ID: 1",
        "Mcp-Session-Id: 1",
    ];
    split(&[&neutral.map(with)]);
}

#[test]
fn p_070_what_a_trusted_proxy_says_was_asked_for_is_part_of_what_is_asked() {
    let gate = Gate::new();
    let backend = gated(&gate, |request| {
        let url = format!("{}://{}", field_of(request, "X-Forwarded-Proto"), field_of(request, "X-Forwarded-Host"));
        json(&result(request, &format!(r#""url":"{url}","ttlMs":3600000,"cacheScope":"public""#)))
    });
    let proxy = reader(&backend).server("trusted_hops = 1").start();
    let of = |proto: &str, host: &str| {
        Ask::list().field(&format!("X-Forwarded-Proto: {proto}")).field(&format!("X-Forwarded-Host: {host}"))
    };
    let urls = [("https", "one"), ("http", "one"), ("https", "two")];
    let asks: Vec<Ask> = (0..12).map(|id| of(urls[id % 3].0, urls[id % 3].1).id(id)).collect();
    for (id, response) in together(&proxy, &gate, &asks, 3).iter().enumerate() {
        let (proto, host) = urls[id % 3];
        assert_eq!(response.message()["result"]["url"], format!("{proto}://{host}"));
    }
}

#[test]
fn p_061_every_credential_is_part_of_who_asks() {
    let with = |line: &str| Ask::list().field(line);
    let gate = Gate::new();
    let backend = gated_of(&gate, PRIVATE);
    let proxy = sharing(&backend);
    let lines = [
        "Authorization: Bearer a",
        "Authorization: Bearer b",
        "Authorization: bearer a",
        "Cookie: a=b",
        "Cookie: a=c",
        "DPoP: x",
        "X-API-Key: k",
        "Proxy-Marker: 1",
    ];
    let asks: Vec<Ask> = lines.into_iter().map(with).chain([Ask::list()]).collect();
    let asks: Vec<Ask> = asks.iter().chain(&asks).enumerate().map(|(id, ask)| ask.clone().id(id)).collect();
    together(&proxy, &gate, &asks, lines.len() + 1);
    assert_eq!(backend.requests(), lines.len() + 1);
}

#[test]
fn p_060_p_070_what_is_asked_is_told_apart() {
    let page = |cursor: &str| Ask::list().param(&format!(r#""cursor":{cursor}"#));
    split(&[&[Ask::list()], &[page(r#""""#)], &[page(r#""a""#)], &[page(r#""b""#)], &[page("null")]]);
    split(&[&[Ask::read("file:///a")], &[Ask::read("file:///b")], &[Ask::read("file:///a").param(r#""x":1"#)]]);
    split(&[&[Ask::list()], &[Ask::list().capable_of(r#"{"roots":{}}"#)]]);
    split(&[&[Ask::list()], &[Ask::modern("prompts/list")], &[Ask::modern("resources/list")]]);
    split(&[&[Ask::list()], &[Ask::list().at("/mcp/b?x=1")], &[Ask::list().at("/mcp/b?x=2")]]);
    let neutral = [
        r#""io.modelcontextprotocol/clientInfo":{"name":"a","version":"1"}"#,
        r#""io.modelcontextprotocol/clientInfo":{"name":"b","version":"2"}"#,
    ];
    split(&[&neutral.map(|member| Ask::list().meta(member))]);
    let traces = [r#""traceparent":"a","baggage":"x=1""#, r#""traceparent":"b","baggage":"x=2""#];
    split(&[&traces.map(|member| Ask::list().meta(member))]);
    split(&[&[Ask::list()], &[Ask::list().meta(r#""com.example/tenant":"a""#)]]);
}

#[test]
fn p_070_routes_backends_and_versions_are_told_apart() {
    let gate = Gate::new();
    let backend = gated_of(&gate, PRIVATE);
    let proxy = Proxy::builder()
        .reads_messages()
        .backend_with("b", &[backend.address()], NO_CACHE)
        .backend_with("c", &[backend.address()], NO_CACHE)
        .routes("[[routes]]\npath = \"/mcp/b\"\nbackend = \"b\"\n[[routes]]\npath = \"/other\"\nbackend = \"b\"")
        .routes("[[routes]]\npath = \"/mcp/c\"\nbackend = \"c\"")
        .start();
    let ways = [Ask::list(), Ask::list().at("/other"), Ask::list().at("/mcp/c"), Ask::legacy("tools/list")];
    let versions = ["2025-06-18", "2025-11-25"]
        .map(|version| Ask::legacy("tools/list").field(&format!("MCP-Protocol-Version: {version}")));
    let asks: Vec<Ask> = ways.into_iter().chain(versions).enumerate().map(|(id, ask)| ask.id(id)).collect();
    // Those without a session share nothing unless the operator vouches, and here stand alone anyway.
    together(&proxy, &gate, &asks, 6);
    assert_eq!(backend.requests(), 6);
}

/// A gated server with sessions: `initialize` is let through and begins one.
fn legacy_server(gate: &Gate) -> Backend {
    let (gate, sessions) = (gate.clone(), AtomicUsize::new(0));
    server(move |request| {
        if request.contains(r#""initialize""#) {
            let number = sessions.fetch_add(1, Ordering::SeqCst);
            return answer_with(200, &format!("Mcp-Session-Id: s-{number}\r\n"), &answer(request, r#""result":{}"#));
        }
        gate.pass();
        let session = field_of(request, "Mcp-Session-Id");
        json(&answer(request, &format!(r#""result":{{"tools":[],"for":"{session}"}}"#)))
    })
}

fn open_session(proxy: &Proxy) -> String {
    let response = proxy.ask(&Ask::legacy("initialize").by("one"));
    format!("Mcp-Session-Id: {}", response.field("mcp-session-id").expect("a session"))
}

#[test]
fn p_072_legacy_requests_share_within_their_session() {
    let gate = Gate::new();
    let backend = legacy_server(&gate);
    let proxy = sharing(&backend);
    let sessions = [open_session(&proxy), open_session(&proxy)];
    let asks: Vec<Ask> =
        (0..16).map(|id| Ask::legacy("tools/list").id(id).by("one").field(&sessions[id % 2])).collect();
    for (id, response) in together(&proxy, &gate, &asks, 2).iter().enumerate() {
        assert_eq!(response.made_for(), format!("s-{}", id % 2));
    }
    assert_eq!(backend.requests(), 2 + 2);
}

#[test]
fn p_072_legacy_sessions_share_if_the_operator_vouches_for_the_backend() {
    let gate = Gate::new();
    let backend = legacy_server(&gate);
    let keys = format!("coalesce = {{ legacy_shared = true }}\n{NO_CACHE}");
    let proxy = reader_with(&backend, &keys).start();
    let sessions = [open_session(&proxy), open_session(&proxy)];
    let of = |token: &str| -> Vec<Ask> {
        (0..16).map(|id| Ask::legacy("tools/list").id(id).by(token).field(&sessions[id % 2])).collect()
    };
    together(&proxy, &gate, &of("one"), 1);
    assert_eq!(backend.requests(), 2 + 1);
    // Within one credential only.
    let asks: Vec<Ask> = of("one").into_iter().chain(of("two")).collect();
    together(&proxy, &gate, &asks, 2);
    assert_eq!(backend.requests(), 2 + 1 + 2);
}

#[test]
fn a_backend_that_does_not_coalesce_is_asked_by_each() {
    let gate = Gate::new();
    let backend = gated_of(&gate, PUBLIC);
    let proxy = reader_with(&backend, "coalesce = { enabled = false }").start();
    let asks = herd(&Ask::list(), 5);
    together(&proxy, &gate, &asks, 5);
    assert_eq!(backend.requests(), 5);
}

#[test]
fn p_119_a_flight_lands_where_it_began_when_the_configuration_changes() {
    let gate = Gate::new();
    let (old, new) = (gated_of(&gate, PRIVATE), gated_of(&gate, PRIVATE));
    let file = TempFile::new();
    let proxy = reader_with(&old, NO_CACHE).start_from(file.path());
    let asks = herd(&Ask::list(), 10);
    let mut before = proxy.ask_together(&asks);
    old.next_request();
    file.write(&reader_with(&new, NO_CACHE).text());
    proxy.reloads();
    let mut after = proxy.ask_together(&asks);
    new.next_request();
    gate.open_for(2);
    answers(&mut before, &asks);
    answers(&mut after, &asks);
    assert_eq!((old.requests(), new.requests()), (1, 1));
    drop((before, after));
    proxy.comes_to_rest();
}

/// A backend that answers nobody until it is let, and then everybody.
fn held() -> (Backend, Arc<AtomicBool>) {
    let released = Arc::new(AtomicBool::new(false));
    let release = Arc::clone(&released);
    let backend = server(move |request| {
        eventually("the test lets the backend answer", || released.load(Ordering::SeqCst));
        json(&result(request, PRIVATE))
    });
    (backend, release)
}

/// Six questions, ten askers each: owners and leaders differ.
fn six_questions() -> Vec<Ask> {
    (0..60).map(|id| Ask::list().id(id).param(&format!(r#""cursor":"{}""#, id % 6))).collect()
}

/// Workers that drain ask each other no more: who waited for another worker asks again by itself.
#[test]
fn a_drain_lets_every_flight_land() {
    let (backend, release) = held();
    let mut proxy = reader_with(&backend, NO_CACHE).workers(2).start();
    let asks = six_questions();
    let mut clients = proxy.ask_together(&asks);
    (0..6).for_each(|_| drop(backend.next_request()));
    proxy.begin_drain();
    release.store(true, Ordering::SeqCst);
    for response in answers(&mut clients, &asks) {
        assert_eq!((response.status, response.field("connection")), (200, Some("close")));
    }
    assert!(matches!(proxy.server().wait(), Ok(Exit::Clean)));
    assert!((6..=12).contains(&backend.requests()), "{} for two workers", backend.requests());
}

static FALL: AtomicBool = AtomicBool::new(false);

fn fall_once() {
    assert!(!FALL.swap(false, Ordering::SeqCst), "the test's own panic");
}

/// A worker dies while it leads, owns or waits for what the others wait for: whichever it is, those
/// who are left get an answer.
#[test]
fn a_worker_that_dies_leaves_nobody_waiting() {
    let (backend, release) = held();
    let proxy =
        reader_with(&backend, NO_CACHE).workers(3).hooks(Hooks { tick: Some(fall_once), ..Hooks::default() }).start();
    let asks = six_questions();
    let clients = proxy.ask_together(&asks);
    (0..6).for_each(|_| drop(backend.next_request()));
    FALL.store(true, Ordering::SeqCst);
    eventually("a worker was started again", || proxy.metric("ringway_worker_restarts_total") == 1.0);
    eventually("all workers answer", || proxy.metric("ringway_worker_up") == 3.0);
    release.store(true, Ordering::SeqCst);
    let mut served = 0;
    for (mut client, ask) in clients.into_iter().zip(&asks) {
        // The clients of the dead worker see its end.
        if !client.ended() {
            let response = client.response();
            assert_eq!(response.answers(ask).status, 200);
            served += 1;
        }
    }
    assert!((1..60).contains(&served), "{served}");
    for ask in &asks {
        assert_eq!(proxy.ask(ask).status, 200);
    }
    proxy.comes_to_rest();
}
