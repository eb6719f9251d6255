//! A route that reads every message: what it refuses, with which words, and that a backend hears
//! nothing of it; what it lets pass, and that not a byte of it changes.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::random::{Random, json_text, value};
use crate::support::mcp::{Ask, MODERN, field_of, post_to};
use crate::support::{Backend, Proxy, ProxyBuilder, Response, json as json_answer};

fn reading(backend: &Backend, keys: &str) -> ProxyBuilder {
    Proxy::builder()
        .reads_messages()
        .backend_with("b", &[backend.address()], keys)
        .routes("[[routes]]\npath = \"/mcp/b\"\nbackend = \"b\"\nbody = \"envelope\"")
}

/// A message that must be refused.
struct Row {
    name: &'static str,
    /// Header lines.
    fields: String,
    body: Vec<u8>,
    status: u16,
    code: i64,
    /// The id in the answer, as JSON text; empty: none.
    id: &'static str,
}

fn row(name: &'static str, fields: &str, body: impl Into<Vec<u8>>, code: i64, id: &'static str) -> Row {
    Row { name, fields: fields.to_owned(), body: body.into(), status: 400, code, id }
}

/// Header lines of a modern message. Without a name if that is `-`.
fn mirrored(method: &str, name: &str) -> String {
    let name = if name == "-" { String::new() } else { format!("Mcp-Name: {name}\r\n") };
    format!("MCP-Protocol-Version: {MODERN}\r\nMcp-Method: {method}\r\n{name}")
}

/// A modern request with id 7 and further members of `params`.
fn request(method: &str, member: &str) -> String {
    let ask = Ask::modern(method).id(7);
    if member.is_empty() { ask.body() } else { ask.param(member).body() }
}

/// Sends each and asserts that it is refused as it says, that the backend hears nothing of it, and that
/// the connection goes on.
fn refuses(keys: &str, rows: Vec<Row>) {
    let backend = Backend::always(json_answer("{}"));
    let proxy = reading(&backend, keys).limits("envelope_bytes_max = 300000").start();
    let good = Ask::modern("tools/call").named("name", "t");
    let mut names = BTreeSet::new();
    assert!(!rows.is_empty());
    for Row { name, fields, body, status, code, id } in rows {
        assert!(names.insert(name), "{name} is there twice");
        let mut client = proxy.client();
        client.send(post_to("/mcp/b", &fields, body));
        is_refusal(name, &client.response(), status, code, id);
        client.send(good.bytes());
        assert_eq!(client.response().status, 200, "{name}");
        let seen = backend.next_request();
        assert_eq!(seen.split_once("\r\n\r\n").unwrap().1, good.body(), "{name}");
    }
    assert_eq!(backend.requests(), names.len());
}

fn is_refusal(name: &str, response: &Response, status: u16, code: i64, id: &str) {
    assert_eq!(response.status, status, "{name}: {response:?}");
    assert_eq!(response.field("content-type"), Some("application/json"), "{name}");
    let text = response.text();
    let start = if id.is_empty() {
        r#"{"jsonrpc":"2.0","error":{"#.to_owned()
    } else {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"#)
    };
    assert!(text.starts_with(&start), "{name}: {text}");
    assert_eq!(response.message()["error"]["code"], code, "{name}: {text}");
}

#[test]
fn p_003_p_004_p_005_messages_of_the_wrong_kind_are_refused() {
    let list = mirrored("tools/list", "-");
    let batch = format!("[{}]", request("tools/list", ""));
    let response = r#"{"jsonrpc":"2.0","id":7,"result":{}}"#;
    let legacy = |version: &str| format!("MCP-Protocol-Version: {version}\r\n");
    refuses(
        "",
        vec![
            row("P-004 modern", &list, batch.as_bytes(), -32600, ""),
            row("P-004 2025-11-25", &legacy("2025-11-25"), batch.as_bytes(), -32600, ""),
            row("P-004 2025-06-18", &legacy("2025-06-18"), batch.as_bytes(), -32600, ""),
            row("P-005 result", &list, response, -32600, ""),
            row("P-005 error", &list, r#"{"jsonrpc":"2.0","id":7,"error":{"code":1,"message":"m"}}"#, -32600, ""),
            row("P-005 error without id", &list, r#"{"jsonrpc":"2.0","error":{"code":1,"message":"m"}}"#, -32600, ""),
            row("both", &list, r#"{"jsonrpc":"2.0","id":7,"result":{},"error":{}}"#, -32600, ""),
            row(
                "P-092 initialize in a batch",
                "",
                r#"[{"jsonrpc":"2.0","id":7,"method":"initialize","params":{}}]"#,
                -32600,
                "",
            ),
            row("an empty batch", "", "[]", -32600, ""),
            row("a batch of anything", "", "[1]", -32600, ""),
        ],
    );
}

#[test]
fn p_006_p_007_p_033_what_is_no_message_is_refused() {
    let list = mirrored("tools/list", "-");
    let with_id = |id: &str| request("tools/list", "").replace(r#""id":7"#, &format!(r#""id":{id}"#));
    let mut bad_utf8 = request("tools/list", r#""x":"?""#).into_bytes();
    let at = bad_utf8.iter().position(|byte| *byte == b'?').unwrap();
    bad_utf8[at] = 0xff;
    let no_message = |name, code, id, body: &str| row(name, &list, body, code, id);
    let deep = |count: usize| "[".repeat(count);
    refuses(
        "",
        vec![
            no_message("P-006 null", -32600, "", &with_id("null")),
            no_message("P-006 a fraction", -32600, "", &with_id("1.5")),
            no_message("P-006 an exponent", -32600, "", &with_id("1e3")),
            no_message("P-006 an object", -32600, "", &with_id("{}")),
            no_message("P-006 an array", -32600, "", &with_id("[1]")),
            no_message("P-006 a bool", -32600, "", &with_id("true")),
            no_message("P-007 nothing", -32700, "", ""),
            no_message("P-007 white space", -32700, "", " \r\n"),
            no_message("P-007 half", -32700, "", r#"{"jsonrpc":"2.0","id":7"#),
            no_message("P-007 a word", -32700, "", "nul"),
            no_message("P-007 bytes behind", -32700, "", &(request("tools/list", "") + "x")),
            no_message("P-007 another behind", -32700, "", &(request("tools/list", "") + &request("tools/list", ""))),
            no_message("P-007 a trailing comma", -32700, "", r#"{"jsonrpc":"2.0","id":7,"method":"tools/list",}"#),
            no_message("P-007 single quotes", -32700, "", "{'jsonrpc':'2.0'}"),
            no_message("P-007 a byte order mark", -32700, "", &format!("\u{feff}{}", request("tools/list", ""))),
            no_message("P-007 a number", -32600, "", "1"),
            no_message("P-007 a string", -32600, "", r#""x""#),
            no_message("P-007 null", -32600, "", "null"),
            no_message("P-007 an empty object", -32600, "", "{}"),
            no_message("P-007 no method", -32600, "7", r#"{"jsonrpc":"2.0","id":7,"params":{}}"#),
            no_message("P-007 a method of another type", -32600, "7", r#"{"jsonrpc":"2.0","id":7,"method":1}"#),
            no_message("P-007 no jsonrpc", -32600, "7", r#"{"id":7,"method":"tools/list"}"#),
            no_message("P-007 jsonrpc 1.0", -32600, "7", r#"{"jsonrpc":"1.0","id":7,"method":"tools/list"}"#),
            no_message("P-007 jsonrpc a number", -32600, "7", r#"{"jsonrpc":2.0,"id":7,"method":"tools/list"}"#),
            no_message(
                "P-007 params an array",
                -32600,
                "7",
                r#"{"jsonrpc":"2.0","id":7,"method":"tools/list","params":[1]}"#,
            ),
            row("P-033 not UTF-8", &list, bad_utf8, -32700, ""),
            no_message("a depth bomb", -32600, "", &deep(200_000)),
            no_message(
                "a depth bomb in arguments",
                -32600,
                "",
                &request("tools/list", &format!(r#""x":{}"#, deep(200_000))),
            ),
            no_message(
                "too deep, and whole",
                -32600,
                "",
                &request("tools/list", &format!(r#""x":{}{}"#, deep(100), "]".repeat(100))),
            ),
        ],
    );
}

#[test]
fn p_013_to_p_018_headers_that_do_not_mirror_the_body_are_refused() {
    let call = request("tools/call", r#""name":"t""#);
    let list = request("tools/list", "");
    let read = request("resources/read", r#""uri":"file:///a""#);
    let version = |version: &str| format!("MCP-Protocol-Version: {version}\r\nMcp-Method: tools/list\r\n");
    refuses(
        "",
        vec![
            row("P-013 no version, but a modern body", "Mcp-Method: tools/list\r\n", list.as_bytes(), -32020, "7"),
            row(
                "P-014 the body's version is older",
                &mirrored("tools/list", "-"),
                list.replace(MODERN, "2025-11-25"),
                -32020,
                "7",
            ),
            row(
                "P-014 the body's version is unknown",
                &mirrored("tools/list", "-"),
                list.replace(MODERN, "2027-01-01"),
                -32020,
                "7",
            ),
            row("P-015 no method", &format!("MCP-Protocol-Version: {MODERN}\r\n"), list.as_bytes(), -32020, "7"),
            row("P-016 another method", &mirrored("prompts/list", "-"), list.as_bytes(), -32020, "7"),
            row("P-016 upper case", &mirrored("TOOLS/LIST", "-"), list.as_bytes(), -32020, "7"),
            row("P-016 a method beside", &mirrored("tools/list, tools/call", "-"), list.as_bytes(), -32020, "7"),
            row("P-016 empty", &mirrored("", "-"), list.as_bytes(), -32020, "7"),
            row("P-017 a call without name", &mirrored("tools/call", "-"), call.as_bytes(), -32020, "7"),
            row(
                "P-017 a prompt without name",
                &mirrored("prompts/get", "-"),
                request("prompts/get", r#""name":"t""#),
                -32020,
                "7",
            ),
            row("P-017 a resource without name", &mirrored("resources/read", "-"), read.as_bytes(), -32020, "7"),
            row("P-018 another tool", &mirrored("tools/call", "u"), call.as_bytes(), -32020, "7"),
            row("P-018 upper case", &mirrored("tools/call", "T"), call.as_bytes(), -32020, "7"),
            row("P-018 empty", &mirrored("tools/call", ""), call.as_bytes(), -32020, "7"),
            row("P-018 another resource", &mirrored("resources/read", "file:///b"), read.as_bytes(), -32020, "7"),
            row(
                "P-018 a name for a URI",
                &mirrored("resources/read", "file:///a"),
                request("resources/read", r#""name":"file:///a""#),
                -32020,
                "7",
            ),
            row("P-018 a number", &mirrored("tools/call", "1"), request("tools/call", r#""name":1"#), -32020, "7"),
            row(
                "P-020 a literal without its beginning",
                &mirrored("tools/call", "SGVsbG8="),
                request("tools/call", r#""name":"Hello""#),
                -32020,
                "7",
            ),
            row(
                "P-020 a literal without its end",
                &mirrored("tools/call", "=?base64?SGVsbG8="),
                request("tools/call", r#""name":"Hello""#),
                -32020,
                "7",
            ),
            row(
                "P-020 a literal in upper case",
                &mirrored("tools/call", "=?BASE64?SGVsbG8=?="),
                request("tools/call", r#""name":"Hello""#),
                -32020,
                "7",
            ),
            row(
                "P-021 no padding",
                &mirrored("tools/call", "=?base64?SGVsbG8?="),
                request("tools/call", r#""name":"Hello""#),
                -32020,
                "7",
            ),
            row(
                "P-021 another alphabet",
                &mirrored("tools/call", "=?base64?_-==?="),
                request("tools/call", r#""name":"Hello""#),
                -32020,
                "7",
            ),
            row(
                "P-021 beyond ASCII",
                &mirrored("tools/call", "é"),
                request("tools/call", r#""name":"é""#),
                -32020,
                "7",
            ),
            row(
                "P-084 a task without name",
                &mirrored("tasks/get", "-"),
                request("tasks/get", r#""taskId":"t""#),
                -32020,
                "7",
            ),
            row(
                "P-084 another task",
                &mirrored("tasks/update", "u"),
                request("tasks/update", r#""taskId":"t""#),
                -32020,
                "7",
            ),
            row(
                "P-084 a task's cancel",
                &mirrored("tasks/cancel", "u"),
                request("tasks/cancel", r#""taskId":"t""#),
                -32020,
                "7",
            ),
            row(
                "P-029 a notification with another method",
                &mirrored("tools/list", "-"),
                r#"{"jsonrpc":"2.0","method":"notifications/progress"}"#,
                -32020,
                "",
            ),
            row("P-035 a version to come", &version("2027-01-01"), list.replace(MODERN, "2027-01-01"), -32022, "7"),
            row("P-035 no version at all", &version("x"), list.as_bytes(), -32022, "7"),
            row(
                "P-090 an old version that never was",
                &version("2025-01-01"),
                r#"{"jsonrpc":"2.0","id":7,"method":"tools/list"}"#,
                -32022,
                "7",
            ),
        ],
    );
}

#[test]
fn p_013_where_only_the_modern_protocol_is_served_a_version_is_needed() {
    let old = r#"{"jsonrpc":"2.0","id":7,"method":"tools/list"}"#;
    refuses(r#"protocol = "modern""#, vec![row("P-013 no version", "", old, -32020, "7")]);
}

#[test]
fn p_032_members_that_are_there_twice_are_refused() {
    let call = mirrored("tools/call", "t");
    let read = mirrored("resources/read", "t");
    let name = r#""name":"t""#;
    let params = request("tools/call", name);
    let doubled = format!(r#"{},"params":{{}}}}"#, &params[..params.len() - 1]);
    let twice = |text: &str, with: &str| request("tools/call", name).replacen(text, &format!("{text},{with}"), 1);
    refuses(
        "",
        vec![
            row("jsonrpc", &call, twice(r#""jsonrpc":"2.0""#, r#""jsonrpc":"2.0""#), -32600, "7"),
            row("id", &call, twice(r#""id":7"#, r#""id":8"#), -32600, ""),
            row("id, escaped", &call, twice(r#""id":7"#, r#""\u0069d":8"#), -32600, ""),
            row("method", &call, twice(r#""method":"tools/call""#, r#""method":"tools/list""#), -32600, "7"),
            row(
                "method, escaped",
                &call,
                twice(r#""method":"tools/call""#, r#""m\u0065thod":"tools/list""#),
                -32600,
                "7",
            ),
            row("params", &call, doubled, -32600, "7"),
            row("params.name", &call, twice(name, r#""name":"u""#), -32600, "7"),
            row("params.name, equal", &call, twice(name, name), -32600, "7"),
            row("params.name, escaped", &call, twice(name, r#""n\u0061me":"u""#), -32600, "7"),
            row("params.uri", &read, request("resources/read", r#""uri":"t","uri":"u""#), -32600, "7"),
            row(
                "params.taskId",
                &mirrored("tasks/get", "t"),
                request("tasks/get", r#""taskId":"t","task\u0049d":"u""#),
                -32600,
                "7",
            ),
            row(
                "params.cursor",
                &mirrored("tools/list", "-"),
                request("tools/list", r#""cursor":"t","cursor":"u""#),
                -32600,
                "7",
            ),
            row("params._meta", &call, twice(name, r#""_meta":{}"#), -32600, "7"),
            row(
                "params._meta.version",
                &call,
                twice(
                    r#""io.modelcontextprotocol/clientCapabilities":{}"#,
                    &format!(r#""io.modelcontextprotocol/protocolVersion":"{MODERN}""#),
                ),
                -32600,
                "7",
            ),
        ],
    );
}

#[test]
fn p_035_an_unknown_version_is_told_those_that_are_served() {
    let all = ["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26"];
    for (protocol, supported) in [("auto", &all[..]), ("modern", &all[..1]), ("legacy", &all[1..])] {
        let backend = Backend::always(json_answer("{}"));
        let proxy = reading(&backend, &format!("protocol = \"{protocol}\"")).start();
        for version in ["2027-01-01", "latest", ""] {
            let mut client = proxy.client();
            let fields = format!("MCP-Protocol-Version: {version}\r\nMcp-Method: tools/list\r\n");
            client.send(post_to("/mcp/b", &fields, Ask::list().id("\"a\"").body()));
            let response = client.response();
            is_refusal(version, &response, 400, -32022, "\"a\"");
            let data = &response.message()["error"]["data"];
            assert_eq!(data, &json!({"supported": supported, "requested": version}), "{protocol}");
        }
        assert_eq!(backend.connections(), 0);
    }
}

#[test]
fn p_009_two_copies_of_a_header_that_is_one_are_refused() {
    let backend = Backend::always(json_answer("{}"));
    let proxy = reading(&backend, "").start();
    let (modern, legacy) =
        (Ask::modern("tools/call").named("name", "t"), Ask::legacy("tools/call").param("\"name\":\"t\""));
    let twice = |line: &str| format!("{line}\r\n{line}");
    let rows = [
        (&modern, "MCP-Protocol-Version: 2026-07-28".to_owned(), -32020),
        (&modern, "mcp-protocol-version: 2025-11-25".to_owned(), -32020),
        (&legacy, "MCP-Protocol-Version: 2025-11-25\r\nMCP-Protocol-Version: 2026-07-28".to_owned(), -32020),
        (&modern, "Mcp-Method: tools/call".to_owned(), -32020),
        (&modern, "MCP-NAME: t".to_owned(), -32020),
        (&modern, twice("Mcp-Session-Id: a"), -32020),
        (&legacy, twice("Mcp-Session-Id: a"), -32600),
        (&legacy, twice("MCP-Protocol-Version: 2025-11-25"), -32600),
        (&legacy, twice("Mcp-Method: tools/call"), -32600),
        // HTTP's, to every client.
        (&modern, "Content-Type: text/plain".to_owned(), -32600),
    ];
    for &(ask, ref line, code) in &rows {
        is_refusal(line, &proxy.ask(&ask.clone().field(line)), 400, code, "");
    }
    assert_eq!(proxy.refused("malformed") as usize, rows.len());
    assert_eq!(backend.connections(), 0);
}

#[test]
fn p_011_only_json_is_read() {
    let backend = Backend::always(json_answer("{}"));
    let proxy = reading(&backend, "").start();
    let with = |line: &str| {
        let bytes = String::from_utf8(Ask::modern("tools/call").id(7).named("name", "t").bytes()).unwrap();
        let mut client = proxy.client();
        client.send(bytes.replace("Content-Type: application/json\r\n", line));
        client.response()
    };
    for line in [
        "",
        "Content-Type: text/plain\r\n",
        "Content-Type:\r\n",
        "Content-Type: application/jsonx\r\n",
        "Content-Type: application/json-rpc\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\n",
    ] {
        is_refusal(line, &with(line), 415, -32600, "7");
    }
    assert_eq!(backend.connections(), 0);
    for line in [
        "content-type: APPLICATION/JSON\r\n",
        "Content-Type: application/json; charset=utf-8\r\n",
        "Content-Type:application/json;charset=UTF-8\r\n",
        "Content-Type: application/json ; x=y\r\n",
    ] {
        assert_eq!(with(line).status, 200, "{line}");
    }
}

#[test]
fn p_011_the_backend_is_offered_both_kinds_of_answer() {
    let backend = Backend::always(json_answer("{}"));
    let proxy = reading(&backend, "").start();
    for line in
        ["", "Accept: application/json\r\n", "Accept: */*\r\n", "accept: text/event-stream\r\nAccept: text/html\r\n"]
    {
        for ask in
            [Ask::modern("tools/call").named("name", "t"), Ask::list().by(line.trim()), Ask::legacy("tools/list")]
        {
            let bytes = String::from_utf8(ask.bytes()).unwrap();
            let mut client = proxy.client();
            client.send(bytes.replace("Accept: application/json, text/event-stream\r\n", line));
            assert_eq!(client.response().status, 200);
            let seen = backend.next_request();
            assert_eq!(field_of(&seen, "Accept"), "application/json, text/event-stream");
            assert_eq!(seen.to_ascii_lowercase().matches("\r\naccept:").count(), 1, "{seen}");
        }
    }
}

#[test]
fn p_008_a_body_over_the_limit_is_refused_before_it_is_read() {
    let backend = Backend::always(json_answer("{}"));
    let proxy = reading(&backend, "").limits("envelope_bytes_max = 2000").start();
    let large = Ask::modern("tools/call").named("name", "t").param(&format!(r#""pad":"{}""#, "x".repeat(2000)));
    let bytes = String::from_utf8(large.bytes()).unwrap();
    let (head, body) = bytes.split_once("\r\n\r\n").unwrap();
    let length = format!("Content-Length: {}", body.len());
    let head_of = |framing: &str| format!("{}\r\n\r\n", head.replace(&length, framing));
    for (index, sent) in [
        // Only the head: the answer does not wait for the body.
        head_of(&length),
        head_of(&format!("{length}\r\nExpect: 100-continue")),
        head_of(&length) + body,
        format!("{}{:x}\r\n{body}\r\n", head_of("Transfer-Encoding: chunked"), body.len()),
    ]
    .iter()
    .enumerate()
    {
        let mut client = proxy.client();
        client.send(sent);
        let response = client.response();
        // The id is told if the body came with its head.
        let id = if response.message()["id"] == 1 { "1" } else { "" };
        assert!(index > 1 || id.is_empty());
        is_refusal(&index.to_string(), &response, 413, -32600, id);
    }
    assert_eq!(backend.connections(), 0);
    let fits = Ask::modern("tools/call").named("name", "t").param(&format!(r#""pad":"{}""#, "x".repeat(1000)));
    assert_eq!(proxy.ask(&fits).status, 200);
}

#[test]
fn p_019_p_020_p_029_p_091_what_mirrors_its_body_in_any_spelling_passes() {
    let backend = Backend::always(json_answer("{}"));
    let proxy = reading(&backend, "").start();
    let hello = request("tools/call", r#""name":"Hello""#);
    let note = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{}}"#;
    let modern = format!("MCP-Protocol-Version: {MODERN}\r\n");
    let rows = [
        (
            "P-019 letter case",
            format!("mcp-PROTOCOL-version: {MODERN}\r\nMCP-METHOD: tools/call\r\nmcp-name: Hello\r\n"),
            hello.clone(),
        ),
        (
            "P-019 white space",
            format!("MCP-Protocol-Version:\t {MODERN} \r\nMcp-Method:tools/call\t\r\nMcp-Name:   Hello \t\r\n"),
            hello.clone(),
        ),
        ("P-020 a sentinel", mirrored("tools/call", "=?base64?SGVsbG8=?="), hello.clone()),
        ("P-020 beyond ASCII", mirrored("tools/call", "=?base64?w6k=?="), request("tools/call", r#""name":"é""#)),
        ("P-020 escaped", mirrored("tools/call", "=?base64?w6k=?="), request("tools/call", r#""name":"\u00E9""#)),
        ("P-020 an empty sentinel", mirrored("tools/call", "=?base64??="), request("tools/call", r#""name":"""#)),
        (
            "P-020 a literal",
            mirrored("tools/call", "=?BASE64?SGVsbG8=?="),
            request("tools/call", r#""name":"=?BASE64?SGVsbG8=?=""#),
        ),
        ("P-020 ten bytes", mirrored("tools/call", "=?base64?="), request("tools/call", r#""name":"=?base64?=""#)),
        ("an empty name", mirrored("tools/call", ""), request("tools/call", r#""name":"""#)),
        ("P-029 without its method", modern.clone(), note.to_owned()),
        ("P-029 with its method", mirrored("notifications/progress", "-"), note.to_owned()),
        (
            "P-023 an unknown parameter",
            mirrored("tools/list", "-") + "Mcp-Param-Any: =?base64?!?=\r\n",
            request("tools/list", ""),
        ),
        ("a name nobody asks for", mirrored("tools/list", "x"), request("tools/list", "")),
        ("P-036 an unknown method", mirrored("vendor/any", "-"), request("vendor/any", "")),
        ("P-091 no version", String::new(), r#"{"jsonrpc":"2.0","id":7,"method":"tools/list"}"#.to_owned()),
        (
            "P-091 P-092 no version, a batch",
            String::new(),
            r#" [{"jsonrpc":"2.0","id":7,"method":"ping"},{"jsonrpc":"2.0","method":"x"}]"#.to_owned(),
        ),
        ("a legacy response", String::new(), r#"{"jsonrpc":"2.0","id":7,"result":{}}"#.to_owned()),
        (
            "a legacy error without id",
            String::new(),
            r#"{"jsonrpc":"2.0","error":{"code":1,"message":"m"}}"#.to_owned(),
        ),
        (
            "2025-06-18",
            "MCP-Protocol-Version: 2025-06-18\r\n".to_owned(),
            r#"{"jsonrpc":"2.0","id":7,"method":"tools/list"}"#.to_owned(),
        ),
        (
            "initialize",
            String::new(),
            r#"{"jsonrpc":"2.0","id":7,"method":"initialize","params":{"protocolVersion":"1999-01-01"}}"#.to_owned(),
        ),
    ];
    for (name, fields, body) in rows {
        let mut client = proxy.client();
        client.send(post_to("/mcp/b", &fields, &body));
        // What nobody answers is 202, whatever the backend says (P-003).
        let is_note = !(body.contains("\"id\"") && body.contains("\"method\""));
        assert_eq!(client.response().status, if is_note { 202 } else { 200 }, "{name}");
        let seen = backend.next_request();
        assert_eq!(seen.split_once("\r\n\r\n").unwrap().1, body, "{name}");
        // Mirrored headers pass as they came, but for the white space around them.
        for line in fields.lines() {
            let (key, value) = line.split_once(':').unwrap();
            assert_eq!(field_of(&seen, key), value.trim(), "{name}");
        }
    }
}

/// Arguments that JSON allows and few would write.
const ODD: &[&str] = &[
    r#"{"a":1,"a":2}"#,
    r#"{"":{"":""}}"#,
    r#"[1E400,-0,0.1e-7,12345678901234567890123,1.0,-1.50E+02]"#,
    r#""\ud800""#,
    r#""\u0000\/\b\f""#,
    "\"\u{7f}\u{2028}\u{feff}\u{10ffff}\"",
    "[ ]",
    "{\r\n\t}",
    "null",
    r#"{"jsonrpc":"1.0","id":null,"method":7,"params":[]}"#,
    r#"{"_meta":1,"_meta":2}"#,
];

#[test]
fn p_010_p_077_every_byte_of_a_message_reaches_the_backend_as_it_was() {
    let backend = Backend::always(json_answer("{}"));
    let proxy = reading(&backend, "").start();
    let seed = 11;
    let mut random = Random::new(seed);
    let mut sent: Vec<String> =
        ODD.iter().map(|odd| request("tools/call", &format!(r#""name":"t","arguments":{odd}"#))).collect();
    for _ in 0..120 {
        let message = json!({
            "jsonrpc": "2.0",
            "id": random.next() >> 12,
            "method": "tools/call",
            "vendor": value(&mut random, 3),
            "params": {
                "name": "t",
                "arguments": value(&mut random, 5),
                "requestState": "=?\u{0}é",
                "inputResponses": value(&mut random, 2),
                "unknown": value(&mut random, 2),
                "_meta": {
                    "io.modelcontextprotocol/protocolVersion": MODERN,
                    "io.modelcontextprotocol/clientCapabilities": {"x": value(&mut random, 1)},
                    "vendor/key": value(&mut random, 2),
                },
            },
        });
        sent.push(json_text(&mut random, &message));
    }
    for (number, body) in sent.iter().enumerate() {
        let mut client = proxy.client();
        let fields = mirrored("tools/call", "t");
        let head = format!("POST /mcp/b HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n{fields}");
        let length = format!("Content-Length: {}\r\n", body.len());
        match number % 4 {
            0 => client.send(post_to("/mcp/b", &fields, body)),
            1 => {
                client.send(format!("{head}{length}\r\n"));
                pieces(&mut random, body.as_bytes()).for_each(|piece| client.send_and_let_read(piece));
            }
            2 => {
                client.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n"));
                for piece in pieces(&mut random, body.as_bytes()) {
                    client.send_and_let_read(&[format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
                }
                client.send("0\r\n\r\n");
            }
            _ => {
                client.send(format!("{head}{length}Expect: 100-continue\r\n\r\n"));
                assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
                client.send(body);
            }
        }
        assert_eq!(client.response().status, 200, "seed {seed}, message {number}: {body}");
        let seen = backend.next_request();
        assert_eq!(seen.split_once("\r\n\r\n").unwrap().1, body, "seed {seed}, message {number}");
        assert_eq!(field_of(&seen, "Content-Length"), body.len().to_string());
    }
    assert_eq!(backend.requests(), ODD.len() + 120);
    let _: Vec<Value> = sent.iter().skip(ODD.len()).map(|body| serde_json::from_str(body).unwrap()).collect();
}

/// Cuts bytes into up to eight pieces, none empty.
fn pieces<'a>(random: &mut Random, bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    bytes.chunks(1 + bytes.len() / (1 + random.below(8)))
}
