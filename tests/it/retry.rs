//! What is tried again and what never is: a call runs once at most because of us.

use nix::errno::Errno;

use crate::support::client::{CALL, DELETE, GET, post};
use crate::support::seccomp::{refusing, under};
use crate::support::{Backend, Gate, Process, Proxy, Reserved, TempFile, json};

/// A backend that answers the first request on its first connection; what is sent there behind it is
/// read, and then the connection ends. Later connections are served.
fn dies_on_reuse() -> Backend {
    Backend::scripted(|exchange| {
        exchange.request();
        exchange.send(json("{}"));
        if exchange.connection == 0 {
            exchange.request();
            exchange.close();
            return;
        }
        while exchange.request().is_some() && exchange.send(json("{}")) {}
    })
}

#[test]
fn a_pooled_connection_that_ended_while_idle_is_replaced() {
    let (now, ended) = (Gate::new(), Gate::new());
    let (told, done) = (now.clone(), ended.clone());
    let backend = Backend::scripted(move |exchange| {
        exchange.request();
        exchange.send(json("{}"));
        if exchange.connection == 0 {
            told.pass();
            exchange.close();
            done.open();
        } else {
            exchange.wait_for_end();
        }
    });
    let proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    assert_eq!(client.call().status, 200);
    now.open();
    ended.pass();
    assert_eq!(client.call().status, 200, "a POST too: nothing of it was sent on the dead one");
    assert_eq!((backend.connections(), backend.requests()), (2, 2));
}

#[test]
fn a_read_on_a_pooled_connection_that_dies_is_repeated_once_on_a_fresh_one() {
    for request in [GET, DELETE] {
        let backend = dies_on_reuse();
        let proxy = Proxy::before(&[backend.address()]);
        let mut client = proxy.client();
        assert_eq!(client.call().status, 200);
        client.send(request);
        assert_eq!(client.response().status, 200);
        assert_eq!((backend.connections(), backend.requests()), (2, 3));
        assert_eq!(proxy.metric("ringway_retries_total"), 1.0);
    }
}

#[test]
fn it_is_not_repeated_a_second_time() {
    let backend = Backend::scripted(|exchange| {
        exchange.request();
        if exchange.connection == 0 {
            exchange.send(json("{}"));
            exchange.request();
        }
        exchange.close();
    });
    let proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    assert_eq!(client.call().status, 200);
    client.send(GET);
    assert_eq!(client.response().status, 502);
    assert_eq!((backend.connections(), backend.requests()), (2, 3));
    assert_eq!(proxy.refused("upstream_closed"), 1.0);
}

#[test]
fn a_post_whose_bytes_were_sent_is_not_repeated() {
    let backend = dies_on_reuse();
    let proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    assert_eq!(client.call().status, 200);
    assert_eq!(client.call().status, 502);
    assert_eq!(backend.requests(), 2, "the call ran once");
    assert_eq!(proxy.metric("ringway_retries_total"), 0.0);
    assert_eq!(client.call().status, 200, "and the client goes on");
}

#[test]
fn a_delete_with_a_body_too_long_to_keep_is_not_repeated() {
    let backend = dies_on_reuse();
    let proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    assert_eq!(client.call().status, 200);
    let body = "x".repeat(300_000);
    client.send(post(&body).replacen("POST", "DELETE", 1));
    assert_eq!(client.response().status, 502);
    assert_eq!(backend.requests(), 2);
}

#[test]
fn a_fresh_connection_that_dies_is_an_answer() {
    let backend = Backend::scripted(|exchange| drop(exchange.request()));
    let proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    for request in [GET, DELETE, &post(CALL)] {
        client.send(request);
        assert_eq!(client.response().status, 502);
    }
    assert_eq!(backend.requests(), 3);
    assert_eq!(proxy.metric("ringway_retries_total"), 0.0);
}

/// A backend whose pooled connection begins to answer with these bytes and dies.
fn dies_after(beginning: &'static str) -> Backend {
    Backend::scripted(move |exchange| {
        exchange.request();
        exchange.send(json("{}"));
        exchange.request();
        exchange.send(beginning);
    })
}

#[test]
fn a_request_whose_answer_had_begun_is_never_repeated() {
    let body = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nha";
    for beginning in [body, "HTTP/1.1 200 OK\r\nCont", "H", "HTTP/1.1 103 Early Hints\r\n\r\n"] {
        let backend = dies_after(beginning);
        let proxy = Proxy::before(&[backend.address()]);
        let mut client = proxy.client();
        assert_eq!(client.call().status, 200);
        client.send(GET);
        if beginning == body {
            client.head();
            assert_eq!(client.rest(), b"ha");
        } else {
            assert_eq!(client.response().status, 502, "{beginning}");
        }
        assert_eq!(backend.requests(), 2, "{beginning}");
    }
}

#[test]
fn an_answer_that_is_not_http_is_502_and_its_connection_is_not_used_again() {
    let backend =
        Backend::scripted(|exchange| while exchange.request().is_some() && exchange.send("SSH-2.0-server\r\n\r\n") {});
    let proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    for _ in 0..2 {
        assert_eq!(client.call().status, 502);
    }
    assert_eq!(backend.connections(), 2);
    assert_eq!(proxy.refused("upstream_malformed"), 2.0);
}

#[test]
fn an_endpoint_that_refuses_is_passed_over_for_another() {
    let (refusing, backend) = (Reserved::new(), Backend::always(json("{}")));
    for balance in ["least_requests", "round_robin"] {
        let proxy = Proxy::builder()
            .backend_with("b", &[refusing.address, backend.address()], &format!("balance = \"{balance}\""))
            .start();
        let mut client = proxy.client();
        for _ in 0..20 {
            assert_eq!(client.call().status, 200);
        }
        assert_eq!(proxy.metric("ringway_refused_total"), 0.0);
    }
}

#[test]
fn where_all_refuse_the_client_is_told_and_then_told_to_wait() {
    let refusing = [Reserved::new(), Reserved::new()];
    let proxy = Proxy::builder()
        .workers(1)
        .backend_with("b", &refusing.each_ref().map(|place| place.address), "connect_cooldown_ms = 60000")
        .start();
    let mut client = proxy.client();
    let first = client.call();
    assert_eq!((first.status, first.field("retry-after")), (502, None));
    let second = client.call();
    assert_eq!((second.status, second.field("retry-after")), (503, Some("1")));
    assert_eq!((proxy.refused("connect_failed"), proxy.refused("no_endpoint")), (1.0, 1.0));
    let page = proxy.operator().page("/backends");
    for endpoint in page["backends"]["b"]["endpoints"].as_array().unwrap() {
        assert_eq!(endpoint["addresses"][0]["cooling"], true);
        assert_eq!(endpoint["addresses"][0]["connect_failures"], 1);
    }
}

#[test]
fn where_our_own_ports_have_run_out_no_endpoint_is_blamed() {
    const CALLS: usize = 6;
    let backends = [(); 2].map(|()| Backend::always(json("{}")));
    let addresses = backends.each_ref().map(Backend::address);
    let text = Proxy::builder().workers(1).backend_with("b", &addresses, "connect_cooldown_ms = 60000").text();
    let file = TempFile::with(&text);
    // The kernel's answer when every local port has a connection to that address.
    let filter = [refusing("connect", Errno::EADDRNOTAVAIL as i32)];
    let process = under(&filter, || Process::serve(file.path()));
    let mut client = process.client();
    for _ in 0..CALLS {
        assert_eq!(client.call().status, 502);
    }
    assert_eq!(process.admin.refused("no_local_port") as usize, CALLS);
    assert_eq!(process.admin.metric("ringway_refused_total") as usize, CALLS);
    let page = process.admin.page("/backends");
    let endpoints = page["backends"]["b"]["endpoints"].as_array().unwrap();
    assert_eq!(endpoints.len(), 2);
    for endpoint in endpoints {
        assert_eq!(endpoint["addresses"][0]["cooling"], false);
        assert_eq!(endpoint["addresses"][0]["connect_failures"], 0);
    }
}

#[test]
fn an_endpoint_that_has_cooled_is_tried_again() {
    let (late, other) = (Reserved::new(), Reserved::new());
    let proxy = Proxy::builder()
        .workers(1)
        .backend_with("b", &[late.address, other.address], "connect_cooldown_ms = 100")
        .start();
    let mut client = proxy.client();
    assert_eq!(client.call().status, 502);
    let _backend = Backend::at(late, |exchange| while exchange.request().is_some() && exchange.send(json("{}")) {});
    crate::support::eventually("it is served", || client.call().status == 200);
}

#[test]
fn an_only_endpoint_is_tried_every_time() {
    let refusing = Reserved::new();
    let proxy = Proxy::before(&[refusing.address]);
    let mut client = proxy.client();
    for _ in 0..3 {
        assert_eq!(client.call().status, 502);
    }
    assert_eq!(proxy.refused("connect_failed"), 3.0);
}

#[test]
fn a_backend_whose_name_has_no_address_is_unavailable() {
    let proxy = Proxy::builder().backend_at("b", "http://nowhere.invalid/mcp").start();
    let response = proxy.client().call();
    assert_eq!((response.status, response.field("retry-after")), (503, Some("1")));
    assert_eq!(proxy.refused("no_endpoint"), 1.0);
}
