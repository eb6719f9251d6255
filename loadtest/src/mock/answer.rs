//! What the mock says: a JSON-RPC request in, an answer out. No sockets here.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use monoio_http::common::response::Response;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::wire::response;
use crate::clock::monotonic_ns;
use crate::workload::TOOL;

pub(super) const LEGACY_VERSION: &str = "2025-06-18";
pub(super) const MODERN_VERSION: &str = "2026-07-28";
const SESSION_PREFIX: &str = "mock-session-";
const SMALL_TEXT_BYTES: usize = 64;
const LIST_BYTES: usize = 12 * 1024;
/// A size a request may ask for; beyond it the mock refuses rather than fills the machine's memory.
const SIZE_BYTES_MAX: usize = 16 * 1024 * 1024;
const DELAY_MS_MAX: u64 = 60_000;

pub(super) enum Answer {
    Whole(Response),
    Events(EventStream),
    /// An event stream on which nothing comes, until the client leaves.
    Silence,
}

/// An answer, and how long it takes to find it.
pub(super) struct Delayed {
    pub(super) answer: Answer,
    pub(super) delay: Duration,
}

/// A `tools/call` answered by `events` progress notifications and then its result.
pub(super) struct EventStream {
    id: String,
    pub(super) events: u32,
    pub(super) pause: Duration,
    modern: bool,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    params: Option<Params<'a>>,
}

#[derive(Deserialize, Default)]
struct Params<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    /// Any page of a list is the same page. `after-50-ms...` is one that takes 50 ms to find.
    #[serde(borrow)]
    cursor: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    arguments: Arguments<'a>,
    #[serde(borrow, rename = "_meta")]
    meta: Option<Meta<'a>>,
}

#[derive(Deserialize, Default)]
struct Arguments<'a> {
    /// Bytes of text in the result.
    size: Option<usize>,
    /// Progress notifications before the result; the answer is then an event stream.
    events: Option<u32>,
    /// Pause before each of them.
    #[serde(default)]
    pause_ms: u64,
    /// Ballast without escapes, and the length it must have arrived with.
    #[serde(borrow)]
    blob: Option<&'a RawValue>,
    #[serde(default)]
    blob_bytes: usize,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow, rename = "io.modelcontextprotocol/protocolVersion")]
    protocol_version: Option<Cow<'a, str>>,
}

/// The answers that are the same every time, made once.
pub(super) struct Answers {
    list_legacy: String,
    /// The first page, which may be kept as long as the mock was told.
    list_first: String,
    /// Any other page, which may not be kept.
    list_page: String,
    sessions: Cell<u64>,
}

impl Answers {
    pub(super) fn new(list_ttl_ms: u64) -> Self {
        let tools = list_of_tools(LIST_BYTES);
        let modern = |ttl_ms: u64| {
            format!(r#"{{"resultType":"complete","ttlMs":{ttl_ms},"cacheScope":"public","tools":[{tools}]}}"#)
        };
        Answers {
            list_legacy: format!(r#"{{"tools":[{tools}]}}"#),
            list_first: modern(list_ttl_ms),
            list_page: modern(0),
            sessions: Cell::new(0),
        }
    }

    /// Answers one `POST`; `count` hears the method of every message that could be read.
    pub(super) fn answer(&self, headers: &HeaderMap, body: &[u8], count: impl FnOnce(&str)) -> Delayed {
        let Ok(message) = serde_json::from_slice::<Message>(body) else {
            count("unreadable");
            return Answer::error(400, "null", -32700, "parse error").at_once();
        };
        count(&message.method);
        let Some(id) = message.id else {
            return Answer::empty(202).at_once();
        };
        let id = id.get();
        let params = message.params.unwrap_or_default();
        let delay = params.cursor.as_deref().and_then(delay_of).unwrap_or_default();
        let modern = params.meta.as_ref().and_then(|meta| meta.protocol_version.as_deref()) == Some(MODERN_VERSION);

        let answer = if message.method == "initialize" {
            self.initialize(id)
        } else if modern && !mirrored(headers, &message.method, params.name.as_deref()) {
            Answer::error(400, id, -32020, "headers and body differ")
        } else if !modern && !has_session(headers) {
            Answer::error(404, id, -32600, "unknown session")
        } else {
            match message.method.as_ref() {
                "ping" => Answer::result(id, "{}"),
                "tools/list" if !modern => Answer::result(id, &self.list_legacy),
                "tools/list" if params.cursor.is_none() => Answer::result(id, &self.list_first),
                "tools/list" => Answer::result(id, &self.list_page),
                "tools/call" => call(id, &params.arguments, modern),
                _ => Answer::error(if modern { 404 } else { 200 }, id, -32601, "method not found"),
            }
        };
        Delayed { answer, delay }
    }

    /// Answers one `GET`.
    pub(super) fn stream(headers: &HeaderMap) -> Answer {
        if has_session(headers) { Answer::Silence } else { Answer::empty(404) }
    }

    fn initialize(&self, id: &str) -> Answer {
        let session = self.sessions.replace(self.sessions.get() + 1);
        let result = format!(
            r#"{{"protocolVersion":"{LEGACY_VERSION}","capabilities":{{"tools":{{}}}},"serverInfo":{{"name":"mock","version":"1"}}}}"#
        );
        let mut answer = response(200, Some("application/json"), result_message(id, &result));
        let session = format!("{SESSION_PREFIX}{session:016x}");
        answer.headers_mut().insert("mcp-session-id", session.parse().expect("ASCII"));
        Answer::Whole(answer)
    }
}

/// A session id is ours if it looks like ours: the mock keeps no table, yet a proxy that loses the header is caught.
fn has_session(headers: &HeaderMap) -> bool {
    headers.get("mcp-session-id").is_some_and(|id| id.as_bytes().starts_with(SESSION_PREFIX.as_bytes()))
}

/// In the modern era method, name and version of the body stand in headers too, and must still do so here.
fn mirrored(headers: &HeaderMap, method: &str, name: Option<&str>) -> bool {
    let is = |header: &str, value: &str| headers.get(header).is_some_and(|found| found.as_bytes() == value.as_bytes());
    is("mcp-protocol-version", MODERN_VERSION)
        && is("mcp-method", method)
        && (method != "tools/call" || name.is_some_and(|name| is("mcp-name", name)))
}

/// `after-50-ms...`: a page that takes its time.
fn delay_of(cursor: &str) -> Option<Duration> {
    let (ms, _) = cursor.strip_prefix("after-")?.split_once("-ms")?;
    ms.parse().ok().filter(|&ms| ms <= DELAY_MS_MAX).map(Duration::from_millis)
}

fn call(id: &str, arguments: &Arguments, modern: bool) -> Answer {
    let size = arguments.size.unwrap_or(SMALL_TEXT_BYTES);
    if size > SIZE_BYTES_MAX {
        return Answer::error(200, id, -32602, "size too large");
    }
    // A string without escapes is two quotes longer than what it says.
    if arguments.blob.is_some_and(|blob| blob.get().len() != arguments.blob_bytes + 2) {
        return Answer::error(200, id, -32602, "blob is not as long as it should be");
    }
    match arguments.events {
        None => Answer::result(id, &call_result(size, modern)),
        Some(events) => Answer::Events(EventStream {
            id: id.to_owned(),
            events,
            pause: Duration::from_millis(arguments.pause_ms),
            modern,
        }),
    }
}

fn call_result(size: usize, modern: bool) -> String {
    let mut result = String::with_capacity(size + 128);
    result.push_str(if modern { r#"{"resultType":"complete","# } else { "{" });
    result.push_str(r#""content":[{"type":"text","text":""#);
    result.push_str(&"x".repeat(size));
    result.push_str(r#""}],"isError":false}"#);
    result
}

fn result_message(id: &str, result: &str) -> Bytes {
    let mut message = String::with_capacity(result.len() + id.len() + 40);
    let _ = write!(message, r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#);
    message.into()
}

impl Answer {
    pub(super) fn at_once(self) -> Delayed {
        Delayed { answer: self, delay: Duration::ZERO }
    }

    pub(super) fn empty(status: u16) -> Self {
        Answer::Whole(response(status, None, Bytes::new()))
    }

    pub(super) fn json(status: u16, body: impl Into<Bytes>) -> Self {
        Answer::Whole(response(status, Some("application/json"), body.into()))
    }

    fn result(id: &str, result: &str) -> Self {
        Answer::json(200, result_message(id, result))
    }

    fn error(status: u16, id: &str, code: i32, message: &str) -> Self {
        let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"{message}"}}}}"#);
        Answer::json(status, body)
    }
}

impl EventStream {
    /// Carries the moment it is made, on the machine's monotonic clock, so that the client can tell how long it took.
    pub(super) fn notification(&self, index: u32) -> String {
        let (id, total, sent_ns) = (&self.id, self.events, monotonic_ns());
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{id},"progress":{index},"total":{total},"_meta":{{"sentNs":{sent_ns}}}}}}}"#
        )
    }

    pub(super) fn response(&self) -> String {
        let result = call_result(SMALL_TEXT_BYTES, self.modern);
        format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, self.id)
    }
}

/// Tool descriptions, comma separated, as many as fit into about `bytes`.
fn list_of_tools(bytes: usize) -> String {
    let mut tools = String::with_capacity(bytes + 512);
    for index in 0.. {
        let (separator, name) = if index == 0 { ("", TOOL.to_owned()) } else { (",", format!("tool_{index:03}")) };
        let tool = format!(
            r#"{separator}{{"name":"{name}","title":"Tool number {index}","description":"Looks up one thing among many and says what it found, in one short paragraph of plain text.","inputSchema":{{"type":"object","properties":{{"query":{{"type":"string","description":"what to look for"}},"limit":{{"type":"integer","minimum":1,"maximum":100}}}},"required":["query"]}}}}"#
        );
        if tools.len() + tool.len() > bytes {
            return tools;
        }
        tools.push_str(&tool);
    }
    tools
}

#[cfg(test)]
mod tests {
    use super::*;
    use monoio_http::common::body::BodyExt;

    fn ask(headers: &[(&'static str, &str)], body: &str) -> (u16, String) {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let Answer::Whole(response) = Answers::new(9).answer(&headers, body.as_bytes(), |_| {}).answer else {
            panic!("an event stream")
        };
        let (head, body) = response.into_parts();
        let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().build().unwrap();
        let body = runtime.block_on(body.bytes()).unwrap();
        (head.status.as_u16(), String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn the_id_is_echoed_byte_for_byte() {
        let session = [("mcp-session-id", "mock-session-0")];
        for id in ["7", "\"a\\u0062\"", "12345678901234567890"] {
            let (status, body) = ask(&session, &format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#));
            assert_eq!((status, body), (200, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#)));
        }
    }

    #[test]
    fn a_call_has_the_size_that_was_asked_for() {
        let session = [("mcp-session-id", "mock-session-0")];
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":{"size":65536}}}"#;
        let (_, answer) = ask(&session, body);
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["result"]["content"][0]["text"].as_str().unwrap().len(), 65536);
    }

    #[test]
    fn a_lost_header_is_an_error() {
        let legacy = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
        assert_eq!(ask(&[], legacy).0, 404);
        let modern = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
        assert_eq!(ask(&[], modern).0, 400);
        let mirrored = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/list")];
        let (status, body) = ask(&mirrored, modern);
        assert_eq!(status, 200);
        let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["result"]["resultType"], "complete");
        assert_eq!(answer["result"]["ttlMs"], 9);
    }

    #[test]
    fn a_page_may_not_be_kept_and_may_take_its_time() {
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":"after-50-ms-1","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
        let mirrored = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/list")];
        let (status, answer) = ask(&mirrored, body);
        assert_eq!(status, 200);
        assert!(answer.contains(r#""ttlMs":0,"#), "{answer}");
        assert_eq!(delay_of("after-50-ms-1"), Some(Duration::from_millis(50)));
        assert_eq!((delay_of("page-7"), delay_of("after-1x-ms"), delay_of("after-99999999-ms")), (None, None, None));
    }

    #[test]
    fn a_blob_that_lost_a_byte_is_an_error() {
        let session = [("mcp-session-id", "mock-session-0")];
        for (bytes, right) in [(3, true), (4, false)] {
            let body = format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"t","arguments":{{"blob_bytes":{bytes},"blob":"uuu"}}}}}}"#
            );
            assert_eq!(ask(&session, &body).1.contains("result"), right);
        }
    }

    #[test]
    fn the_list_is_as_long_as_it_says_and_is_json() {
        let tools = format!("[{}]", list_of_tools(LIST_BYTES));
        assert!((LIST_BYTES - 512..=LIST_BYTES + 2).contains(&tools.len()), "{}", tools.len());
        let tools: Vec<serde_json::Value> = serde_json::from_str(&tools).unwrap();
        assert!(tools.len() > 20);
    }
}
