//! Both servers over real sockets, as a client or a proxy meets them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::*;

// --- the printed lines -------------------------------------------------------------------------------------------

/// The lines are what a stranger tries first, so they are run exactly as printed, in one shell.
#[test]
fn every_curl_line_works_as_printed() {
    let curl = Command::new("curl").arg("--version").stdout(Stdio::null()).status();
    assert!(curl.is_ok_and(|status| status.success()), "this test runs curl, which is not installed");
    let demo = start().unwrap();
    let lines = demo
        .curl_lines("http://proxy")
        .replace("http://proxy/mcp/modern", &format!("http://{}/mcp/modern", demo.modern))
        .replace("http://proxy/mcp/legacy", &format!("http://{}/mcp/legacy", demo.legacy));
    let script: String = lines.lines().map(|line| format!("{line}\necho \"exit status $?\"\n")).collect();

    let output = Command::new("sh").args(["-c", &(script + "wait")]).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();

    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{stdout}");
    assert!(lines.contains("curl"));
    assert_eq!(stdout.matches("exit status 0\n").count(), lines.lines().count(), "{stdout}");
    assert!(!stdout.contains("\"error\""), "{stdout}");
    for shown in ["supportedVersions", "ttlMs", "\"hello\"", "notifications/progress", "counted down from 5"] {
        assert!(stdout.contains(shown), "modern: {shown} in {stdout}");
    }
    for shown in ["session ", "\"notify\"", "notifications/message", "hello from the server"] {
        assert!(stdout.contains(shown), "legacy: {shown} in {stdout}");
    }
}

// --- modern ------------------------------------------------------------------------------------------------------

#[test]
fn the_cacheable_methods_carry_their_hints() {
    let mut client = Client::modern();
    for (method, key) in [
        ("server/discover", "supportedVersions"),
        ("tools/list", "tools"),
        ("resources/list", "resources"),
        ("resources/templates/list", "resourceTemplates"),
    ] {
        let result = client.call_modern(method, &[], json!({})).result();
        assert_eq!(
            (&result["ttlMs"], &result["cacheScope"], &result["resultType"]),
            (&json!(60_000), &json!("public"), &json!("complete")),
            "{method}"
        );
        assert!(result[key].is_array(), "{method}");
    }
    let read = client.call_modern("resources/read", &[("Mcp-Name", "demo://about")], json!({"uri": "demo://about"}));
    assert_eq!(read.result()["contents"][0]["uri"], "demo://about");
    assert_eq!(read.result()["ttlMs"], 60_000);
}

#[test]
fn a_name_may_come_encoded() {
    let mut client = Client::modern();
    let params = json!({"name": "echo", "arguments": {"text": "ö"}});
    let reply = client.call_modern("tools/call", &[("mcp-name", "  =?base64?ZWNobw==?= ")], params);
    assert_eq!(reply.result()["content"][0]["text"], "ö");
    assert_eq!(reply.result()["resultType"], "complete");
}

#[test]
fn each_fault_of_a_modern_request_has_its_status_and_code() {
    let version = ("MCP-Protocol-Version", modern::VERSION);
    let list = ("Mcp-Method", "tools/list");
    let call = ("Mcp-Method", "tools/call");
    let echo = json!({"name": "echo", "arguments": {"text": "x"}});
    let cases = [
        ("no version", vec![list], "tools/list", json!({}), 400, -32020),
        (
            "another version than in the body",
            vec![("MCP-Protocol-Version", "2025-11-25"), list],
            "tools/list",
            json!({}),
            400,
            -32020,
        ),
        ("version given twice", vec![version, version, list], "tools/list", json!({}), 400, -32020),
        ("no method", vec![version], "tools/list", json!({}), 400, -32020),
        ("method in other letters", vec![version, ("Mcp-Method", "TOOLS/LIST")], "tools/list", json!({}), 400, -32020),
        ("no name", vec![version, call], "tools/call", echo.clone(), 400, -32020),
        ("another name", vec![version, call, ("Mcp-Name", "countdown")], "tools/call", echo.clone(), 400, -32020),
        ("bad Base64", vec![version, call, ("Mcp-Name", "=?base64?ZWNobw?=")], "tools/call", echo.clone(), 400, -32020),
        ("no name in the body", vec![version, call, ("Mcp-Name", "echo")], "tools/call", json!({}), 400, -32020),
        ("unknown method", vec![version, ("Mcp-Method", "ping")], "ping", json!({}), 404, -32601),
        ("unknown tool", vec![version, call, ("Mcp-Name", "no")], "tools/call", json!({"name": "no"}), 200, -32602),
        ("unknown cursor", vec![version, list], "tools/list", json!({"cursor": ""}), 200, -32602),
        (
            "unknown resource",
            vec![version, ("Mcp-Method", "resources/read"), ("Mcp-Name", "demo://x")],
            "resources/read",
            json!({"uri": "demo://x"}),
            200,
            -32602,
        ),
    ];
    let mut client = Client::modern();
    for (fault, headers, method, mut params, status, code) in cases {
        params["_meta"] = json!({modern::VERSION_KEY: modern::VERSION, modern::CAPABILITIES_KEY: {}});
        let reply = client.post(&headers, &json!({"jsonrpc": "2.0", "id": "a", "method": method, "params": params}));
        assert_eq!((reply.status, reply.code(), &reply.json()["id"]), (status, code, &json!("a")), "{fault}");
    }
}

/// An argument that does not fit is shown to the model, so the call succeeds with an error for its result.
#[test]
fn a_bad_argument_is_a_result_that_says_so() {
    let mut client = Client::modern();
    for (tool, arguments) in
        [("echo", json!({})), ("countdown", json!({"from": 0})), ("countdown", json!({"from": "3"}))]
    {
        let reply =
            client.call_modern("tools/call", &[("Mcp-Name", tool)], json!({"name": tool, "arguments": arguments}));
        assert_eq!(reply.result()["isError"], true, "{tool} {arguments}");
    }
    let mut client = Client::legacy();
    let session = client.initialize(legacy::LATEST);
    for tool in ["echo", "notify"] {
        let reply = client.post(&[("Mcp-Session-Id", &session)], &request("tools/call", json!({"name": tool})));
        assert_eq!(reply.result()["isError"], true, "{tool}");
    }
}

#[test]
fn missing_metadata_and_foreign_versions_are_told_apart() {
    let mut client = Client::modern();
    let mut list = |version: &str, params: Value| {
        let headers = [("MCP-Protocol-Version", version), ("Mcp-Method", "tools/list")];
        client.post(&headers, &json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": params}))
    };
    let reply = list("2031-01-01", json!({"_meta": {modern::VERSION_KEY: "2031-01-01", modern::CAPABILITIES_KEY: {}}}));
    assert_eq!((reply.status, reply.code()), (400, -32022));
    assert_eq!(reply.json()["error"]["data"], json!({"supported": [modern::VERSION], "requested": "2031-01-01"}));

    for params in [json!({}), json!({"_meta": {modern::VERSION_KEY: modern::VERSION}})] {
        let reply = list(modern::VERSION, params);
        assert_eq!((reply.status, reply.code()), (400, -32602));
    }
}

#[test]
fn a_modern_notification_is_accepted_if_what_it_mirrors_is_right() {
    let mut client = Client::modern();
    let note = json!({"jsonrpc": "2.0", "method": "notifications/x"});
    let version = ("MCP-Protocol-Version", modern::VERSION);
    let reply = client.post(&[version], &note);
    assert_eq!((reply.status, reply.body.as_str()), (202, ""));
    let reply = client.post(&[version, ("Mcp-Method", "notifications/y")], &note);
    assert_eq!((reply.status, reply.code(), reply.json().get("id")), (400, -32020, None));
}

#[test]
fn modern_knows_post_only_and_no_sessions() {
    let mut client = Client::modern();
    for method in ["GET", "DELETE"] {
        let reply = client.send(method, &[("Mcp-Session-Id", "1")], "");
        assert_eq!((reply.status, reply.code()), (405, -32600), "{method}");
        assert_eq!(reply.header("allow"), Some("POST"));
    }
    let reply = client.call_modern("tools/list", &[("Mcp-Session-Id", "1")], json!({}));
    assert_eq!((reply.status, reply.header("mcp-session-id")), (200, None));
}

#[test]
fn a_countdown_streams_its_progress_then_its_result() {
    let mut client = Client::modern();
    let reply = client.call_modern("tools/call", &[("Mcp-Name", "countdown")], countdown(2));
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    let events = reply.events();
    assert_eq!(events.len(), 3);
    for (event, progress) in events.iter().zip([1, 2]) {
        assert_eq!(event["method"], "notifications/progress");
        assert_eq!((&event["params"]["progress"], &event["params"]["progressToken"]), (&json!(progress), &json!(7)));
    }
    assert_eq!(events[2]["result"]["content"][0]["text"], "counted down from 2");

    // The connection serves on, and without a token the answer is a plain one.
    let params = json!({"name": "countdown", "arguments": {"from": 2}});
    let reply = client.call_modern("tools/call", &[("Mcp-Name", "countdown")], params);
    assert_eq!(reply.result()["content"][0]["text"], "counted down from 2");
}

/// The client half-closes, which the server must take for a leave, so that the end of its work can be seen.
#[test]
fn a_countdown_stops_when_its_client_leaves() {
    let mut client = Client::modern();
    client.write_modern("tools/call", &[("Mcp-Name", "countdown")], countdown(100));
    client.read_until("notifications/progress");
    client.stream.shutdown(Shutdown::Write).unwrap();
    // The whole countdown would outlast the client's read timeout.
    let mut rest = String::new();
    client.reader.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains("result"), "{rest}");
}

// --- legacy ------------------------------------------------------------------------------------------------------

#[test]
fn a_session_from_initialize_to_delete() {
    let mut client = Client::legacy();
    let session = client.initialize(legacy::LATEST);
    assert_eq!(session.len(), 32);
    assert_ne!(session, client.initialize(legacy::LATEST));
    let headers = [("Mcp-Session-Id", session.as_str()), ("MCP-Protocol-Version", legacy::LATEST)];

    let reply = client.post(&headers, &json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    assert_eq!((reply.status, reply.body.as_str()), (202, ""));
    let reply = client.post(&headers, &json!({"jsonrpc": "2.0", "id": 9, "result": {}}));
    assert_eq!((reply.status, reply.body.as_str()), (202, ""));
    assert_eq!(client.post(&headers, &request("ping", json!({}))).result(), json!({}));
    assert_eq!(client.post(&headers, &request("tools/list", json!({}))).result()["tools"][0]["name"], "echo");
    let echo = request("tools/call", json!({"name": "echo", "arguments": {"text": "hi"}}));
    assert_eq!(client.post(&headers, &echo).result()["content"][0]["text"], "hi");
    let reply = client.post(&headers, &request("prompts/list", json!({})));
    assert_eq!((reply.status, reply.code()), (200, -32601));

    assert_eq!(client.send("DELETE", &headers, "").status, 200);
    assert_eq!(client.post(&headers, &echo).status, 404);
    assert_eq!(client.send("DELETE", &headers, "").status, 404);
}

#[test]
fn the_version_is_negotiated() {
    let mut client = Client::legacy();
    for (asked, agreed) in [("2025-03-26", "2025-03-26"), ("2025-06-18", "2025-06-18"), ("1999-01-01", "2025-11-25")] {
        let reply = client.post(&[], &request("initialize", json!({"protocolVersion": asked})));
        assert_eq!(reply.result()["protocolVersion"], agreed);
    }
}

#[test]
fn a_request_must_name_a_live_session_and_a_known_version() {
    let mut client = Client::legacy();
    let session = client.initialize(legacy::LATEST);
    let unknown_version = [("Mcp-Session-Id", session.as_str()), ("MCP-Protocol-Version", "2026-07-28")];
    let cases: [(&[(&str, &str)], u16); 3] = [(&[], 400), (&[("Mcp-Session-Id", "0")], 404), (&unknown_version, 400)];
    for (headers, status) in cases {
        assert_eq!(client.post(headers, &request("ping", json!({}))).status, status);
        for method in ["GET", "DELETE"] {
            assert_eq!(client.send(method, headers, "").status, status, "{method}");
        }
    }
}

#[test]
fn the_tool_notify_reaches_the_one_stream_of_its_session() {
    let demo = start().unwrap();
    let mut client = Client::connect(demo.legacy);
    let session = client.initialize(legacy::LATEST);
    let headers = [("Mcp-Session-Id", session.as_str())];
    let notify = |text: &str| request("tools/call", json!({"name": "notify", "arguments": {"text": text}}));

    // Sent before there is a stream, it waits.
    client.post(&headers, &notify("early")).result();
    let mut stream = Client::connect(demo.legacy);
    stream.write("GET", &headers, "");
    stream.read_until("\"early\"");
    client.post(&headers, &notify("later")).result();
    stream.read_until("\"later\"");

    let reply = Client::connect(demo.legacy).send("GET", &headers, "");
    assert_eq!((reply.status, reply.code()), (409, -32600));

    // When the client has left, its session may have a stream again.
    stream.stream.shutdown(Shutdown::Write).unwrap();
    stream.reader.read_to_string(&mut String::new()).unwrap();
    let mut stream = Client::connect(demo.legacy);
    stream.write("GET", &headers, "");
    stream.read_until("text/event-stream");

    // Below the level the client asked for, nothing is sent.
    client.post(&headers, &request("logging/setLevel", json!({"level": "error"}))).result();
    client.post(&headers, &notify("unheard")).result();
    client.post(&headers, &request("logging/setLevel", json!({"level": "debug"}))).result();
    client.post(&headers, &notify("heard")).result();
    assert!(!stream.read_until("\"heard\"").contains("unheard"));

    // The end of the session is an orderly end of the stream.
    client.send("DELETE", &headers, "");
    let mut rest = String::new();
    stream.reader.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("\r\n0\r\n\r\n"), "{rest:?}");
}

#[test]
fn a_silent_stream_is_kept_alive() {
    let server = legacy::Server::new(Duration::from_millis(20));
    let address = http::serve("demo-test", move |request, connection| server.answer(request, connection)).unwrap();
    let mut client = Client::connect(address);
    let session = client.initialize(legacy::LATEST);
    client.write("GET", &[("Mcp-Session-Id", &session)], "");
    client.read_until(": keep-alive");
    client.read_until(": keep-alive");
}

#[test]
fn only_2025_03_26_has_batches() {
    let mut client = Client::legacy();
    let batch = json!([
        request("ping", json!({})),
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": "b", "method": "nothing"},
    ]);
    let session = client.initialize("2025-03-26");
    let headers = [("Mcp-Session-Id", session.as_str())];
    let reply = client.post(&headers, &batch);
    let answers = reply.json();
    assert_eq!((reply.status, answers.as_array().map(Vec::len)), (200, Some(2)));
    assert_eq!((&answers[0]["result"], &answers[1]["error"]["code"]), (&json!({}), &json!(-32601)));
    let notifications = json!([{"jsonrpc": "2.0", "method": "notifications/initialized"}]);
    assert_eq!(client.post(&headers, &notifications).status, 202);
    for refused in [json!([]), json!([request("initialize", json!({}))]), json!([1])] {
        assert_eq!(client.post(&headers, &refused).status, 400, "{refused}");
    }

    let session = client.initialize(legacy::LATEST);
    assert_eq!(client.post(&[("Mcp-Session-Id", &session)], &batch).status, 400);
}

#[test]
fn the_session_unused_for_longest_makes_room() {
    let mut client = Client::legacy();
    let ping = |client: &mut Client, session: &str| {
        client.post(&[("Mcp-Session-Id", session)], &request("ping", json!({}))).status
    };
    let (first, second) = (client.initialize(legacy::LATEST), client.initialize(legacy::LATEST));
    for _ in 2..legacy::SESSIONS_MAX {
        client.initialize(legacy::LATEST);
    }
    assert_eq!(ping(&mut client, &first), 200);
    client.initialize(legacy::LATEST);
    assert_eq!((ping(&mut client, &first), ping(&mut client, &second)), (200, 404));
}

// --- HTTP --------------------------------------------------------------------------------------------------------

#[test]
fn what_is_not_served_is_refused_and_closed() {
    let demo = start().unwrap();
    let large_header = format!("POST / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(http::HEAD_BYTES_MAX));
    let large_body = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", http::BODY_BYTES_MAX + 1);
    let many_headers = format!("POST / HTTP/1.1\r\n{}\r\n", "X: x\r\n".repeat(65));
    for (bytes, status) in [
        ("\0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nX: \u{1}\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}", 400),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        ("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", 413),
        (large_body.as_str(), 413),
        (large_header.as_str(), 431),
        (many_headers.as_str(), 431),
        ("POST / HTTP/1.0\r\n\r\n", 505),
    ] {
        for address in [demo.modern, demo.legacy] {
            let mut client = Client::connect(address);
            client.stream.write_all(bytes.as_bytes()).unwrap();
            let reply = client.read_reply();
            assert_eq!((reply.status, reply.header("connection")), (status, Some("close")), "{bytes:.60}");
            assert_eq!(client.reader.read(&mut [0]).unwrap(), 0, "{bytes:.60}");
        }
    }
}

#[test]
fn a_method_foreign_to_mcp_is_refused_without_a_body() {
    let mut client = Client::modern();
    for method in ["HEAD", "PUT", "OPTIONS"] {
        let reply = client.send(method, &[], "");
        assert_eq!((reply.status, reply.body.as_str()), (405, ""));
    }
}

#[test]
fn a_web_page_of_another_machine_is_refused() {
    let mut client = Client::legacy();
    let initialize = request("initialize", json!({"protocolVersion": legacy::LATEST}));
    for (origin, status) in [
        ("http://localhost", 200),
        ("http://127.0.0.1:8080", 200),
        ("https://[::1]:1", 200),
        ("http://localhost.example.com", 403),
        ("https://example.com", 403),
        ("null", 403),
    ] {
        assert_eq!(client.post(&[("Origin", origin)], &initialize).status, status, "{origin}");
    }
}

#[test]
fn requests_sent_ahead_are_answered_in_order() {
    let mut client = Client::modern();
    client.write_modern("tools/call", &[("Mcp-Name", "countdown")], countdown(1));
    client.write_modern("tools/list", &[], json!({}));
    assert_eq!(client.read_reply().events().len(), 2);
    assert!(client.read_reply().result()["tools"].is_array());
}

#[test]
fn a_client_that_waits_to_be_told_is_told_to_continue() {
    let mut client = Client::modern();
    client.stream.write_all(b"POST / HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n").unwrap();
    assert_eq!(client.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    client.stream.write_all(b"{}").unwrap();
    assert_eq!(client.read_reply().code(), -32600);
}

#[test]
fn a_body_that_is_no_message_is_refused() {
    for mut client in [Client::modern(), Client::legacy()] {
        for (body, code) in [
            ("{", -32700),
            ("1", -32600),
            ("{}", -32600),
            (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#, -32600),
        ] {
            let reply = client.send("POST", &[], body);
            assert_eq!((reply.status, reply.code()), (400, code), "{body}");
        }
    }
}

#[test]
fn connections_beyond_the_limit_are_turned_away() {
    let demo = start().unwrap();
    let mut clients: Vec<_> = (0..http::CONNECTIONS_MAX).map(|_| Client::connect(demo.modern)).collect();
    // Accepted in order: once the last is served, all are.
    assert_eq!(clients.last_mut().unwrap().send("GET", &[], "").status, 405);
    let reply = Client::connect(demo.modern).read_reply();
    assert_eq!((reply.status, reply.header("connection")), (503, Some("close")));
    assert_eq!(clients[0].send("GET", &[], "").status, 405);
}

// --- the client --------------------------------------------------------------------------------------------------

fn request(method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
}

fn countdown(from: u64) -> Value {
    json!({"name": "countdown", "arguments": {"from": from}, "_meta": {"progressToken": 7}})
}

/// A connection that knows as little HTTP as will do.
struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    fn modern() -> Self {
        Self::connect(start().unwrap().modern)
    }

    fn legacy() -> Self {
        Self::connect(start().unwrap().legacy)
    }

    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self { reader: BufReader::new(stream.try_clone().unwrap()), stream }
    }

    fn initialize(&mut self, version: &str) -> String {
        let reply = self.post(&[], &request("initialize", json!({"protocolVersion": version})));
        reply.header("mcp-session-id").unwrap().to_owned()
    }

    fn call_modern(&mut self, method: &str, headers: &[(&str, &str)], params: Value) -> Reply {
        self.write_modern(method, headers, params);
        self.read_reply()
    }

    fn write_modern(&mut self, method: &str, headers: &[(&str, &str)], mut params: Value) {
        params["_meta"][modern::VERSION_KEY] = json!(modern::VERSION);
        params["_meta"][modern::CAPABILITIES_KEY] = json!({});
        let mirrored = [("MCP-Protocol-Version", modern::VERSION), ("Mcp-Method", method)];
        self.write("POST", &[&mirrored, headers].concat(), &request(method, params).to_string());
    }

    fn post(&mut self, headers: &[(&str, &str)], body: &Value) -> Reply {
        self.send("POST", headers, &body.to_string())
    }

    fn send(&mut self, method: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        self.write(method, headers, body);
        self.read_reply()
    }

    fn write(&mut self, method: &str, headers: &[(&str, &str)], body: &str) {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length = body.len();
        let request = format!("{method} /any HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
        self.stream.write_all(request.as_bytes()).unwrap();
    }

    /// Reads on until `text` has come, and returns all up to its end.
    fn read_until(&mut self, text: &str) -> String {
        let mut read = Vec::new();
        while !read.ends_with(text.as_bytes()) {
            let mut byte = [0];
            self.reader.read_exact(&mut byte).unwrap_or_else(|error| panic!("{text:?} did not come: {error}"));
            read.push(byte[0]);
        }
        String::from_utf8(read).unwrap()
    }

    fn read_line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn read_reply(&mut self) -> Reply {
        let status = self.read_line().split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
        let headers = std::iter::from_fn(|| Some(self.read_line()).filter(|line| !line.is_empty()));
        let headers =
            headers.map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())));
        let mut reply = Reply { status, headers: headers.map(Option::unwrap).collect(), body: String::new() };
        match reply.header("content-length") {
            Some(length) => reply.body = self.read_text(length.parse().unwrap()),
            None => loop {
                let length = usize::from_str_radix(&self.read_line(), 16).unwrap();
                reply.body += &self.read_text(length);
                assert_eq!(self.read_line(), "");
                if length == 0 {
                    break;
                }
            },
        }
        reply
    }

    fn read_text(&mut self, length: usize) -> String {
        let mut bytes = vec![0; length];
        self.reader.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }
}

struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.body))
    }

    fn result(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        let result = self.json()["result"].take();
        assert!(!result.is_null(), "{}", self.body);
        result
    }

    fn code(&self) -> i32 {
        self.json()["error"]["code"].as_i64().and_then(|code| code.try_into().ok()).expect("an error code")
    }

    fn events(&self) -> Vec<Value> {
        let data = self.body.lines().filter_map(|line| line.strip_prefix("data: "));
        data.map(|json| serde_json::from_str(json).unwrap()).collect()
    }
}
