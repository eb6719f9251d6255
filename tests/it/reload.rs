//! A new configuration takes effect as a whole, while everything goes on; a bad one changes nothing.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ringway::control::Outcome;

use crate::support::backend::{EVENT_STREAM, chunk, event};
use crate::support::client::{CALL, GET, post};
use crate::support::{Backend, Client, Gate, Proxy, ProxyBuilder, Reserved, TempFile, eventually, json, refuses};

fn named(name: &str) -> Backend {
    Backend::always(json(&format!("\"{name}\"")))
}

fn with_b(address: SocketAddr) -> ProxyBuilder {
    Proxy::builder().backend("b", &[address])
}

fn call_to(path: &str) -> String {
    post(CALL).replace("/mcp/b", path)
}

#[test]
fn backends_come_change_and_go() {
    let (old, new) = (named("old"), named("new"));
    let file = TempFile::new();
    let proxy = with_b(old.address()).start_from(file.path());
    let mut client = proxy.client();
    assert_eq!(client.call().text(), "\"old\"");
    client.send(call_to("/mcp/added"));
    assert_eq!(client.response().status, 404);

    file.write(&with_b(new.address()).backend("added", &[old.address()]).text());
    proxy.reloads();
    // On the connection that was there before.
    assert_eq!(client.call().text(), "\"new\"");
    client.send(call_to("/mcp/added"));
    assert_eq!(client.response().text(), "\"old\"");

    file.write(&Proxy::builder().backend("added", &[new.address()]).text());
    proxy.reloads();
    assert_eq!(client.call().status, 404);
    client.send(call_to("/mcp/added"));
    assert_eq!(client.response().text(), "\"new\"");
    assert_eq!(proxy.metric("ringway_config_generation"), 3.0);
    assert_eq!(proxy.metric("ringway_reloads_total{result=\"ok\"}"), 2.0);
}

#[test]
fn routes_change_by_the_admin_page_too() {
    let (left, right) = (named("left"), named("right"));
    let both = |route: &str| {
        Proxy::builder()
            .backend("left", &[left.address()])
            .backend("right", &[right.address()])
            .routes(&format!("[[routes]]\npath = \"/x\"\nbackend = \"{route}\""))
    };
    let file = TempFile::new();
    let proxy = both("left").start_from(file.path());
    let mut client = proxy.client();
    client.send(call_to("/x"));
    assert_eq!(client.response().text(), "\"left\"");
    file.write(&both("right").text());
    let response = proxy.admin("POST", "/reload");
    assert_eq!((response.status, response.text().contains("\"generation\": 2")), (200, true));
    client.send(call_to("/x"));
    assert_eq!(client.response().text(), "\"right\"");
}

#[test]
fn limits_change_for_the_connections_that_are_there() {
    let backend = named("b");
    let file = TempFile::new();
    let proxy = with_b(backend.address()).start_from(file.path());
    let mut client = proxy.client();
    let large = post(&"x".repeat(5000));
    client.send(&large);
    assert_eq!(client.response().status, 200);
    file.write(&with_b(backend.address()).limits("body_bytes_max = 2000").text());
    proxy.reloads();
    client.send(&large);
    assert_eq!(client.response().status, 413);
}

#[test]
fn what_is_in_flight_finishes_where_it_began() {
    let gate = Gate::new();
    let answer = gate.clone();
    let old = Backend::scripted(move |exchange| {
        while let Some(request) = exchange.request() {
            match request.starts_with("GET") {
                true => exchange.send([EVENT_STREAM, &chunk(&event("before"))].concat()),
                false => true,
            };
            answer.pass();
            match request.starts_with("GET") {
                true => exchange.send(chunk(&event("after"))),
                false => exchange.send(json("\"old\"")),
            };
        }
    });
    let new = named("new");
    let file = TempFile::new();
    let proxy = with_b(old.address()).start_from(file.path());
    let (mut caller, mut listener) = (proxy.client(), proxy.client());
    caller.send(post(CALL));
    old.next_request();
    listener.send(GET);
    listener.head();
    assert_eq!(listener.event(), event("before"));

    file.write(&with_b(new.address()).text());
    proxy.reloads();
    assert_eq!(proxy.client().call().text(), "\"new\"");
    gate.open();
    gate.open();
    assert_eq!(caller.response().text(), "\"old\"");
    assert_eq!(listener.event(), event("after"));
    assert_eq!(caller.call().text(), "\"new\"");
}

#[test]
fn listeners_come_and_go() {
    let backend = named("b");
    let (first, second) = (Reserved::new(), Reserved::new());
    let listening = |addresses: &[SocketAddr]| {
        let list: Vec<String> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
        with_b(backend.address()).server(&format!("listen = [{}]", list.join(", ")))
    };
    let file = TempFile::new();
    let proxy = listening(&[first.address]).start_from(file.path());
    let mut before = Client::connect(first.address);
    assert_eq!(before.call().status, 200);
    assert!(refuses(second.address));

    file.write(&listening(&[first.address, second.address]).text());
    proxy.reloads();
    for address in [first.address, second.address] {
        assert_eq!(Client::connect(address).call().status, 200);
    }

    file.write(&listening(&[second.address]).text());
    proxy.reloads();
    eventually("nobody listens at the first", || refuses(first.address));
    assert_eq!(before.call().status, 200, "connections that are there stay");
    assert_eq!(Client::connect(second.address).call().status, 200);

    file.write(&listening(&[first.address]).text());
    proxy.reloads();
    assert_eq!(Client::connect(first.address).call().status, 200, "an address may come back");
}

#[test]
fn a_bad_file_changes_nothing_and_says_where_it_is_bad() {
    let backend = named("b");
    let file = TempFile::new();
    let good = with_b(backend.address());
    let text = good.text();
    let proxy = good.start_from(file.path());
    let mut client = proxy.client();
    let lines = text.lines().count();
    file.write(&format!("{text}\n[backends.c]\nendpoints = [\"ftp://10.0.0.1/mcp\"]\nconect_timeout_ms = 5\n"));

    let response = proxy.admin("POST", "/reload");
    assert_eq!(response.status, 422);
    let page: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
    let mut faults: Vec<(u64, &str)> = page["faults"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| {
            assert_eq!(fault["file"], file.path().display().to_string());
            assert!(fault["problem"].is_string() && fault["remedy"].is_string());
            (fault["line"].as_u64().unwrap(), fault["key"].as_str().unwrap())
        })
        .collect();
    faults.sort_unstable();
    let lines = lines as u64;
    assert_eq!(faults[1], (lines + 4, "backends.c.conect_timeout_ms"), "{page}");
    assert_eq!(faults[0].0, lines + 3, "{page}");
    assert!(faults[0].1.starts_with("backends.c.endpoints"), "{page}");
    assert_eq!(faults.len(), 2);

    assert_eq!(client.call().status, 200);
    assert_eq!(proxy.metric("ringway_config_generation"), 1.0);
    assert_eq!(proxy.metric("ringway_reloads_total{result=\"failed\"}"), 1.0);
    assert_eq!(proxy.metric("ringway_config_last_reload_successful"), 0.0);
    file.write(&text);
    proxy.reloads();
    assert_eq!(proxy.metric("ringway_config_last_reload_successful"), 1.0);
}

#[test]
fn a_listener_that_cannot_be_bound_leaves_the_backends_as_they_are() {
    let (old, new) = (named("old"), named("new"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let file = TempFile::new();
    let proxy = with_b(old.address()).start_from(file.path());
    let listen = format!("listen = [\"127.0.0.1:0\", \"{}\"]", taken.local_addr().unwrap());
    file.write(&with_b(new.address()).server(&listen).text());
    let mut handle = proxy;
    assert!(matches!(handle.server().control.reload(), Some(Outcome::Refused(_))));
    assert_eq!(handle.client().call().text(), "\"old\"");
}

#[test]
fn fifty_reloads_under_load_fail_no_request_and_drop_no_connection() {
    let (left, right) = (named("left"), named("right"));
    let file = TempFile::new();
    let text = |number: usize| {
        let (b, other) = if number.is_multiple_of(2) { (&left, &right) } else { (&right, &left) };
        with_b(b.address()).backend("other", &[other.address()])
    };
    let proxy = text(0).start_from(file.path());
    let over = AtomicBool::new(false);
    let calls: usize = thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|_| {
                let (mut client, over) = (proxy.client(), &over);
                scope.spawn(move || {
                    let mut calls = 0;
                    while !over.load(Ordering::Relaxed) {
                        // On one connection for all the time: one that is dropped would panic here.
                        let response = client.call();
                        assert_eq!(response.status, 200);
                        assert_eq!(response.field("connection"), None);
                        calls += 1;
                    }
                    calls
                })
            })
            .collect();
        for number in 1..=50 {
            file.write(&text(number).text());
            proxy.reloads();
        }
        over.store(true, Ordering::Relaxed);
        callers.into_iter().map(|caller| caller.join().unwrap()).sum()
    });
    assert!(calls >= 50, "too little load to show anything: {calls} calls");
    assert_eq!(proxy.metric("ringway_refused_total"), 0.0);
    assert_eq!(proxy.metric("ringway_config_generation"), 51.0);
}
