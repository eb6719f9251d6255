//! What an operator can ask, and what only the operator can.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::client::{CALL, GET, post};
use crate::support::{Backend, Client, Proxy, Reserved, json};

const TOKEN: &str = "a-token-of-enough-bytes";

#[test]
fn every_page_answers_the_methods_it_names() {
    let backend = Backend::always(json("{}"));
    let proxy = Proxy::before(&[backend.address()]);
    let pages = [
        ("/livez", "text/plain; charset=utf-8"),
        ("/readyz", "text/plain; charset=utf-8"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/backends", "application/json"),
        ("/config", "application/json"),
        ("/stats", "application/json"),
    ];
    for (page, content_type) in pages {
        let response = proxy.admin("GET", page);
        assert_eq!((response.status, response.field("content-type")), (200, Some(content_type)), "{page}");
        let head = proxy.admin("HEAD", page);
        assert_eq!((head.status, head.field("content-type")), (200, Some(content_type)), "{page}");
        for method in ["POST", "DELETE", "PUT", "OPTIONS"] {
            let response = proxy.admin(method, page);
            assert_eq!((response.status, response.field("allow")), (405, Some("GET, HEAD")), "{method} {page}");
        }
    }
    let response = proxy.admin("GET", "/reload");
    assert_eq!((response.status, response.field("allow")), (405, Some("POST")));
    assert_eq!(proxy.admin("POST", "/reload").status, 409, "there is no file");
    for page in ["/", "/metricsx", "/metrics/", "/mcp/b"] {
        assert_eq!(proxy.admin("GET", page).status, 404, "{page}");
    }
}

#[test]
fn admin_pages_are_not_on_the_data_address() {
    let backend = Backend::always(json("{}"));
    let proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    for page in ["/metrics", "/config", "/reload", "/livez"] {
        client.send(GET.replace("/mcp/b", page));
        assert_eq!(client.response().status, 404, "{page}");
    }
}

#[test]
fn a_token_is_asked_for_and_never_shown() {
    let backend = Backend::always(json("{}"));
    let proxy = Proxy::builder().admin(&format!("token = \"{TOKEN}\"")).backend("b", &[backend.address()]).start();
    let operator = proxy.operator();
    for page in ["/metrics", "/backends", "/config", "/stats", "/nowhere"] {
        let response = operator.ask("GET", page);
        assert_eq!(response.status, 401, "{page}");
        assert!(response.field("www-authenticate").unwrap().starts_with("Bearer"));
        let wrong = operator.ask_with("GET", page, "Authorization: Bearer a-token-of-enough-bytez\r\n");
        assert_eq!(wrong.status, 401, "{page}");
    }
    assert_eq!(operator.ask("POST", "/reload").status, 401);
    for probe in ["/livez", "/readyz"] {
        assert_eq!(operator.ask("GET", probe).status, 200);
    }
    let config = operator.ask_with("GET", "/config", &format!("Authorization: Bearer {TOKEN}\r\n"));
    assert_eq!(config.status, 200);
    assert!(config.text().contains("\"token\": \"***\"") && !config.text().contains(TOKEN));
}

#[test]
fn a_web_page_cannot_reach_it() {
    let backend = Backend::always(json("{}"));
    let proxy = Proxy::before(&[backend.address()]);
    let operator = proxy.operator();
    assert_eq!(operator.ask_with("POST", "/reload", "Origin: http://page.example\r\n").status, 403);
    let mut client = Client::connect(operator.0);
    client.send("GET /config HTTP/1.1\r\nHost: rebound.example\r\n\r\n");
    assert_eq!(client.response().status, 403);
}

#[test]
fn the_configuration_in_force_is_shown_complete() {
    let backend = Backend::always(json("{}"));
    let proxy = Proxy::builder()
        .limits("headers_max = 77")
        .defaults("connect_timeout_ms = 1234")
        .backend("b", &[backend.address()])
        .start();
    let page = proxy.operator().page("/config");
    assert_eq!((&page["generation"], &page["source"]), (&1.into(), &"embedded".into()));
    assert_eq!(page["config"]["limits"]["headers_max"], 77);
    assert_eq!(page["config"]["backends"]["b"]["connect_timeout_ms"], 1234);
    assert_eq!(page["config"]["backends"]["b"]["endpoints"][0], format!("http://{}/mcp", backend.address()));
    assert_eq!(page["config"]["routes"][0]["path"], "/mcp/{backend}");
}

#[test]
fn the_numbers_tell_what_happened() {
    let (backend, refusing) = (Backend::always(json("{\"answer\":42}")), Reserved::new());
    let proxy = Proxy::builder().backend("b", &[backend.address()]).backend("refusing", &[refusing.address]).start();
    let mut client = proxy.client();
    for _ in 0..3 {
        assert_eq!(client.call().status, 200);
    }
    client.send(GET);
    assert_eq!(client.response().status, 200);
    client.send(post(CALL).replacen("Host", "Mcp-Method: tools/call\r\nHost", 1));
    assert_eq!(client.response().status, 200);
    client.send(post(CALL).replace("/mcp/b", "/mcp/refusing"));
    assert_eq!(client.response().status, 502);
    client.send(GET.replace("/mcp/b", "/nowhere"));
    assert_eq!(client.response().status, 404);

    let requests = |backend: &str, method: &str, code: &str| {
        let route = if backend == "none" { "none" } else { "/mcp/{backend}" };
        proxy.metric(&format!(
            "ringway_requests_total{{route=\"{route}\",backend=\"{backend}\",method=\"{method}\",code=\"{code}\"}}"
        ))
    };
    assert_eq!(requests("b", "POST", "2xx"), 3.0);
    assert_eq!(requests("b", "GET", "2xx"), 1.0);
    assert_eq!(requests("b", "tools/call", "2xx"), 1.0);
    assert_eq!(requests("refusing", "POST", "5xx"), 1.0);
    assert_eq!(requests("none", "GET", "4xx"), 1.0);
    assert_eq!(proxy.metric("ringway_requests_total"), 7.0);
    assert_eq!((proxy.refused("connect_failed"), proxy.refused("no_route")), (1.0, 1.0));
    assert_eq!(proxy.metric("ringway_request_duration_seconds_count"), 7.0);
    assert_eq!(proxy.metric("ringway_upstream_duration_seconds_count"), 5.0);
    assert_eq!(proxy.metric("ringway_overhead_seconds_count"), 5.0);
    assert_eq!(proxy.metric("ringway_request_body_bytes_total"), (4 * CALL.len()) as f64);
    assert_eq!(proxy.metric("ringway_response_body_bytes_total"), (5 * "{\"answer\":42}".len()) as f64);
    assert_eq!(proxy.metric("ringway_connections{side=\"client\"}"), 1.0);
    assert_eq!(proxy.metric("ringway_connections{side=\"upstream\"}"), 1.0);
    assert_eq!(proxy.metric("ringway_connections_accepted_total"), 1.0);
    assert_eq!(proxy.metric("ringway_upstream_connects_total"), 1.0);
    assert_eq!(proxy.metric("ringway_upstream_reused_total"), 4.0);
    assert_eq!(proxy.metric("ringway_pool_idle{backend=\"b\"}"), 1.0);
    assert_eq!(proxy.metric("ringway_exchanges"), 0.0);
    assert_eq!(proxy.metric("ringway_io_driver"), 1.0);

    let backends = proxy.operator().page("/backends");
    let state = |name: &str| backends["backends"][name]["endpoints"][0]["addresses"][0].clone();
    assert_eq!(
        (&state("b")["requests"], &state("b")["idle"], &state("b")["active"]),
        (&5.into(), &1.into(), &0.into())
    );
    assert_eq!(state("refusing")["connect_failures"], 1);
    let stats = proxy.operator().page("/stats");
    assert_eq!(stats["total"]["requests"], 7);
}

#[test]
fn the_driver_asked_for_is_the_one_that_runs() {
    let backend = Backend::always(json("{}"));
    let proxy = Proxy::before(&[backend.address()]);
    let page = proxy.admin("GET", "/metrics").text();
    let line = page.lines().find(|line| line.starts_with("ringway_io_driver{")).unwrap();
    match std::env::var("RINGWAY_IO_DRIVER").as_deref() {
        Ok("epoll") => assert!(line.contains("\"epoll\""), "{line}"),
        Ok("io_uring") => assert!(line.contains("\"io_uring"), "{line}"),
        // Whichever works here.
        _ => {}
    }
}

#[test]
fn prometheus_itself_accepts_the_metrics() {
    let backend = Backend::always(json("{}"));
    let proxy = Proxy::builder()
        .backend("b", &[backend.address()])
        .routes("[[routes]]\nhost = \"h.example\"\npath = \"/a/*\"\nbackend = \"b\"")
        .start();
    let mut client = proxy.client();
    for request in [GET.replace("/mcp/b", "/a/x").replace("test", "h.example"), post(CALL)] {
        client.send(request);
        client.response();
    }
    let page = proxy.admin("GET", "/metrics").body;
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is not there: scripts/test installs it (Debian package prometheus)");
    promtool.stdin.take().unwrap().write_all(&page).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty() && output.stdout.is_empty(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
