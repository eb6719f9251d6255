//! Host, path and method decide where a request goes, and where it goes nowhere it is told why.

use crate::support::client::CALL;
use crate::support::{Backend, Client, Proxy, Response, json};

/// A backend that answers with the target it was asked for.
fn echo() -> Backend {
    Backend::scripted(|exchange| {
        while let Some(request) = exchange.request() {
            let target = request.split(' ').nth(1).unwrap().to_owned();
            exchange.send(json(&target));
        }
    })
}

fn ask(client: &mut Client, method: &str, host: &str, target: &str) -> Response {
    let body = if method == "POST" { CALL } else { "" };
    client.send(format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    client.response()
}

#[test]
fn without_routes_every_backend_has_its_path() {
    let (a, b) = (echo(), echo());
    let proxy = Proxy::builder().backend("a", &[a.address()]).backend("b", &[b.address()]).start();
    let mut client = proxy.client();
    for (name, backend) in [("a", &a), ("b", &b)] {
        for method in ["POST", "GET", "DELETE"] {
            let response = ask(&mut client, method, "any.example", &format!("/mcp/{name}?q=1"));
            assert_eq!((response.status, response.text().as_str()), (200, "/mcp?q=1"));
        }
        assert_eq!(backend.requests(), 3);
    }
    for path in
        ["/", "/mcp", "/mcp/", "/mcp/c", "/mcp/a/", "/mcp/a/b", "/mcp/A", "/.well-known/oauth-protected-resource"]
    {
        let response = ask(&mut client, "POST", "any.example", path);
        assert_eq!((response.status, response.field("content-type")), (404, Some("application/json")), "{path}");
        assert!(response.text().contains("\"id\":1,"), "{path}: {}", response.text());
    }
}

#[test]
fn the_most_specific_route_takes_the_request() {
    let backends: Vec<Backend> = (0..5).map(|_| echo()).collect();
    let names = ["any", "prefix", "exact", "host", "captured"];
    let builder = names
        .iter()
        .zip(&backends)
        .fold(Proxy::builder(), |builder, (name, backend)| builder.backend(name, &[backend.address()]));
    let proxy = builder
        .routes(
            r#"
            [[routes]]
            path = "/*"
            backend = "any"
            [[routes]]
            path = "/team/*"
            backend = "prefix"
            [[routes]]
            path = "/team/mcp"
            backend = "exact"
            [[routes]]
            host = "only.example"
            path = "/team/*"
            backend = "host"
            [[routes]]
            path = "/by/{backend}/name/*"
            "#,
        )
        .start();
    let mut client = proxy.client();
    let expected = [
        ("h", "/x", "any", "/mcp/x"),
        ("h", "/team/x/y?q", "prefix", "/mcp/x/y?q"),
        ("h", "/team/", "prefix", "/mcp/"),
        ("h", "/team/mcp", "exact", "/mcp"),
        ("h", "/team/mcp/", "prefix", "/mcp/mcp/"),
        ("only.example", "/team/mcp", "host", "/mcp/mcp"),
        ("ONLY.Example:8080", "/team/mcp", "host", "/mcp/mcp"),
        ("only.example", "/x", "any", "/mcp/x"),
        ("h", "/by/captured/name/tail", "captured", "/mcp/tail"),
        ("h", "/by/nobody/name/tail", "any", "/mcp/by/nobody/name/tail"),
    ];
    for (host, target, name, sent) in expected {
        let backend = &backends[names.iter().position(|known| *known == name).unwrap()];
        let before = backend.requests();
        let response = ask(&mut client, "POST", host, target);
        assert_eq!((response.status, response.text().as_str()), (200, sent), "{host}{target}");
        assert_eq!(backend.requests(), before + 1, "{host}{target} goes to {name}");
    }
}

#[test]
fn a_method_that_no_route_takes_is_405_and_says_which_are_taken() {
    let backend = echo();
    let proxy = Proxy::builder()
        .backend("b", &[backend.address()])
        .routes("[[routes]]\npath = \"/mcp\"\nbackend = \"b\"\nmethods = [\"POST\", \"DELETE\"]")
        .start();
    let mut client = proxy.client();
    assert_eq!(ask(&mut client, "POST", "h", "/mcp").status, 200);
    assert_eq!(ask(&mut client, "DELETE", "h", "/mcp").status, 200);
    for method in ["GET", "PUT", "OPTIONS"] {
        let response = ask(&mut client, method, "h", "/mcp");
        assert_eq!((response.status, response.field("allow")), (405, Some("POST, DELETE")), "{method}");
    }
    assert_eq!(proxy.refused("method_not_allowed"), 3.0);
    assert_eq!(backend.requests(), 2);
}

#[test]
fn methods_tell_routes_of_one_path_apart() {
    let (calls, streams) = (echo(), echo());
    let proxy = Proxy::builder()
        .backend("calls", &[calls.address()])
        .backend("streams", &[streams.address()])
        .routes(
            "[[routes]]\npath = \"/mcp\"\nbackend = \"calls\"\nmethods = [\"POST\"]\n\
             [[routes]]\npath = \"/mcp\"\nbackend = \"streams\"\nmethods = [\"GET\"]",
        )
        .start();
    let mut client = proxy.client();
    assert_eq!(ask(&mut client, "POST", "h", "/mcp").status, 200);
    assert_eq!(ask(&mut client, "GET", "h", "/mcp").status, 200);
    assert_eq!((calls.requests(), streams.requests()), (1, 1));
    let response = ask(&mut client, "DELETE", "h", "/mcp");
    assert_eq!((response.status, response.field("allow")), (405, Some("POST, GET")));
}

#[test]
fn a_path_cannot_climb_out_of_its_prefix() {
    let backend = echo();
    let proxy = Proxy::builder()
        .backend("b", &[backend.address()])
        .routes("[[routes]]\npath = \"/a/*\"\nbackend = \"b\"")
        .start();
    for target in ["/a/..", "/a/../b", "/a/%2e%2e/b", "/a/./b", "/a/.%2E"] {
        let mut client = proxy.client();
        assert_eq!(ask(&mut client, "POST", "h", target).status, 400, "{target}");
    }
    assert_eq!(backend.connections(), 0);
}

#[test]
fn endpoints_share_the_requests_of_their_backend() {
    for balance in ["round_robin", "least_requests"] {
        let backends = [echo(), echo(), echo()];
        let proxy = Proxy::builder()
            .workers(1)
            .backend_with("b", &backends.each_ref().map(Backend::address), &format!("balance = \"{balance}\""))
            .start();
        let mut client = proxy.client();
        for _ in 0..60 {
            assert_eq!(ask(&mut client, "POST", "h", "/mcp/b").status, 200);
        }
        let shares = backends.each_ref().map(Backend::requests);
        assert_eq!(shares.iter().sum::<usize>(), 60);
        match balance {
            "round_robin" => assert_eq!(shares, [20, 20, 20]),
            _ => assert!(shares.iter().all(|share| *share > 0), "{shares:?}"),
        }
    }
}
