//! Connections to backends are kept and used again, the newest first, and not for ever.

use crossbeam_channel::Receiver;

use crate::support::client::{CALL, post};
use crate::support::{Backend, Client, Gate, PATIENCE, Proxy, TempFile, eventually, json};

/// A backend that names its connection in each answer; to `hold` at the gate first.
fn naming() -> (Backend, Gate) {
    let gate = Gate::new();
    let answer = gate.clone();
    let backend = Backend::scripted(move |exchange| {
        while let Some(request) = exchange.request() {
            if request.ends_with("hold") {
                answer.pass();
            }
            let name = exchange.connection.to_string();
            exchange.send(json(&name));
        }
    });
    (backend, gate)
}

/// That many calls in flight at once, on connections of their own.
fn held(proxy: &Proxy, backend: &Backend, count: usize) -> Vec<Client> {
    let call = |_| {
        let mut client = proxy.client();
        client.send(post("hold"));
        backend.next_request();
        client
    };
    (0..count).map(call).collect()
}

#[test]
fn the_connection_used_last_is_used_next() {
    let (backend, gate) = naming();
    let proxy = Proxy::builder().workers(1).backend("b", &[backend.address()]).start();
    let mut clients = held(&proxy, &backend, 3);
    for _ in 0..3 {
        gate.open();
    }
    let mut names: Vec<String> = clients.iter_mut().map(|client| client.response().text()).collect();
    eventually("all are idle", || proxy.metric("ringway_pool_idle") == 3.0);
    let last = clients[0].call().text();
    for _ in 0..3 {
        for client in &mut clients {
            assert_eq!(client.call().text(), last);
        }
    }
    names.sort();
    assert_eq!(names, ["0", "1", "2"]);
    assert_eq!(backend.connections(), 3);
}

#[test]
fn no_more_idle_connections_are_kept_than_allowed() {
    let (backend, gate) = naming();
    let proxy = Proxy::builder().workers(1).backend_with("b", &[backend.address()], "idle_conns_max = 1").start();
    let mut clients = held(&proxy, &backend, 3);
    assert_eq!(proxy.metric("ringway_connections{side=\"upstream\"}"), 3.0);
    for _ in 0..3 {
        gate.open();
    }
    clients.iter_mut().for_each(|client| drop(client.response()));
    eventually("one is kept", || {
        proxy.metric("ringway_pool_idle{backend=\"b\"}") == 1.0
            && proxy.metric("ringway_connections{side=\"upstream\"}") == 1.0
    });
}

#[test]
fn none_is_kept_where_none_is_allowed() {
    let backend = Backend::always(json("{}"));
    let proxy = Proxy::builder().backend_with("b", &[backend.address()], "idle_conns_max = 0").start();
    let mut client = proxy.client();
    for _ in 0..3 {
        assert_eq!(client.call().status, 200);
    }
    assert_eq!(backend.connections(), 3);
}

/// A backend that says when a connection has ended.
fn telling() -> (Backend, Receiver<()>) {
    let (sender, ended) = crossbeam_channel::unbounded();
    let backend = Backend::scripted(move |exchange| {
        while exchange.request().is_some() && exchange.send(json("{}")) {}
        let _ = sender.send(());
    });
    (backend, ended)
}

#[test]
fn an_idle_connection_grows_old() {
    let (backend, ended) = telling();
    let proxy = Proxy::builder().backend_with("b", &[backend.address()], "idle_timeout_ms = 100").start();
    let mut client = proxy.client();
    assert_eq!(client.call().status, 200);
    ended.recv_timeout(PATIENCE).expect("the proxy to close its connection");
    eventually("none is left", || proxy.metric("ringway_connections{side=\"upstream\"}") == 0.0);
    assert_eq!(client.call().status, 200);
}

#[test]
fn a_busy_connection_grows_old_too() {
    let (backend, ended) = telling();
    let proxy = Proxy::builder().workers(1).backend_with("b", &[backend.address()], "conn_age_max_ms = 1000").start();
    let mut client = proxy.client();
    eventually("the connection is given up", || {
        assert_eq!(client.call().status, 200);
        ended.try_recv().is_ok()
    });
    assert_eq!(proxy.metric("ringway_refused_total"), 0.0);
}

#[test]
fn a_connection_with_bytes_nobody_asked_for_is_given_up() {
    let surplus = json("{}") + "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";
    let backend = Backend::always(surplus);
    let proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    for _ in 0..3 {
        assert_eq!(client.call().text(), "{}");
    }
    assert_eq!(backend.connections(), 3);
}

#[test]
fn so_is_one_where_they_come_later() {
    let (now, sent) = (Gate::new(), Gate::new());
    let (told, done) = (now.clone(), sent.clone());
    let backend = Backend::scripted(move |exchange| {
        while exchange.request().is_some() {
            exchange.send(json("{}"));
            if exchange.connection == 0 {
                told.pass();
                exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged");
                done.open();
            }
        }
    });
    let proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    assert_eq!(client.call().text(), "{}");
    now.open();
    sent.pass();
    assert_eq!(client.call().text(), "{}");
    assert_eq!(backend.connections(), 2);
}

#[test]
fn an_idle_connection_that_the_backend_ended_does_not_stay_in_the_pool() {
    let backend = Backend::always_then_close(json("{}"));
    let proxy = Proxy::before(&[backend.address()]);
    assert_eq!(proxy.client().call().status, 200);
    eventually("it is gone", || {
        proxy.metric("ringway_pool_idle") == 0.0 && proxy.metric("ringway_connections{side=\"upstream\"}") == 0.0
    });
}

#[test]
fn a_backend_that_wants_to_close_is_not_asked_twice() {
    let backend = Backend::always("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    let proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    for _ in 0..3 {
        assert_eq!(client.call().status, 200);
    }
    assert_eq!(backend.connections(), 3);
}

#[test]
fn the_connections_of_an_endpoint_that_stays_survive_a_reload() {
    let (stays, goes) = (telling(), telling());
    let file = TempFile::new();
    let both = || Proxy::builder().workers(1).backend("b", &[stays.0.address()]).backend("other", &[goes.0.address()]);
    let proxy = both().start_from(file.path());
    let mut client = proxy.client();
    let other = post(CALL).replace("/mcp/b", "/mcp/other");
    assert_eq!(client.call().status, 200);
    client.send(&other);
    assert_eq!(client.response().status, 200);

    file.write(&Proxy::builder().workers(1).backend("b", &[stays.0.address()]).text());
    proxy.reloads();
    assert_eq!(client.call().status, 200);
    assert_eq!(stays.0.connections(), 1, "the pooled connection was used again");
    goes.1.recv_timeout(PATIENCE).expect("the connection of the endpoint that is gone to be closed");
    client.send(&other);
    assert_eq!(client.response().status, 404);
}
