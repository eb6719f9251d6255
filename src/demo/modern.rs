//! The demo server of protocol version 2026-07-28: stateless, POST only.
//!
//! Every request is checked as the specification asks of a server that reads bodies: the headers mirror the body
//! or the request is refused with -32020, so a proxy that damages either shows at once.

use std::io::{self, ErrorKind};
use std::time::Duration;

use serde_json::{Value, json};

use super::http::{Connection, Request};
use super::rpc::{
    self, Call, Failure, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, Message, success, text_content,
};

pub(super) const VERSION: &str = "2026-07-28";
pub(super) const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";
pub(super) const CAPABILITIES_KEY: &str = "io.modelcontextprotocol/clientCapabilities";

const HEADER_MISMATCH: i32 = -32020;
const UNSUPPORTED_VERSION: i32 = -32022;

/// How long lists and the resource may be cached: long enough to see it, short enough to see it end.
const TTL_MS: u64 = 60_000;
/// Time between two events of the countdown.
const COUNTDOWN_STEP: Duration = Duration::from_millis(200);
const COUNTDOWN_MAX: u64 = 100;
const ABOUT_URI: &str = "demo://about";

/// Answers one HTTP request.
pub(super) fn answer(request: &Request, connection: &mut Connection) -> io::Result<()> {
    if request.method != "POST" {
        let failure = Failure::new(405, INVALID_REQUEST, format!("{VERSION} knows POST only"));
        return connection.respond(405, &[("Allow", "POST")], Some(&failure.body()));
    }
    let call = match rpc::parse(&request.body).and_then(Message::from_json) {
        Ok(Message::Call(call)) => call,
        Ok(Message::Response) => {
            let message = "this server asks nothing, so nothing can be answered";
            return connection.fail(&Failure::new(400, INVALID_REQUEST, message));
        }
        Err(failure) => return connection.fail(&failure),
    };
    let outcome = check_metadata(request, &call).and_then(|()| match &call.id {
        Some(id) => dispatch(id, &call),
        None => Ok(Answer::Accepted),
    });
    match outcome {
        Ok(Answer::Result(response)) => connection.respond(200, &[], Some(&response)),
        Ok(Answer::Countdown(countdown)) => countdown.stream(connection),
        Ok(Answer::Accepted) => connection.respond(202, &[], None),
        Err(failure) => connection.fail(&failure.about(&call)),
    }
}

enum Answer<'a> {
    Result(Value),
    Countdown(Countdown<'a>),
    /// A notification's.
    Accepted,
}

/// Checks the metadata in the body and the headers that mirror it.
///
/// The order decides which error a request with several faults gets; it is the conformance suite's.
fn check_metadata(request: &Request, call: &Call) -> Result<(), Failure> {
    let Some(version) = request.header("mcp-protocol-version") else {
        // Most likely an older client, which can only learn from this what would be understood.
        return Err(mismatch(format!("MCP-Protocol-Version is missing; this server speaks {VERSION}"))
            .with_data(json!({"supported": [VERSION]})));
    };
    // Notifications need no metadata, and the header rules for them are undefined: what is there must be right.
    if call.id.is_some() {
        let meta = call.params.get("_meta").unwrap_or(&Value::Null);
        let Some(stated) = meta[VERSION_KEY].as_str().filter(|_| meta[CAPABILITIES_KEY].is_object()) else {
            let message = format!("_meta must hold {VERSION_KEY} and {CAPABILITIES_KEY}");
            return Err(Failure::new(400, INVALID_PARAMS, message));
        };
        if stated != version {
            return Err(mismatch("MCP-Protocol-Version is not the version in _meta"));
        }
    }
    if version != VERSION {
        return Err(Failure::new(400, UNSUPPORTED_VERSION, format!("this server speaks {VERSION}"))
            .with_data(json!({"supported": [VERSION], "requested": version})));
    }
    match request.header("mcp-method") {
        None if call.id.is_none() => {}
        Some(method) if method == call.method => {}
        _ => {
            return Err(mismatch("Mcp-Method is missing or is not the method of the body"));
        }
    }
    let named_by = match call.method.as_str() {
        "tools/call" | "prompts/get" => "name",
        "resources/read" => "uri",
        _ => return Ok(()),
    };
    let name = request.header("mcp-name").and_then(decode_mirrored);
    match call.params.get(named_by).and_then(Value::as_str) {
        Some(stated) if name.as_deref() == Some(stated) => Ok(()),
        _ => Err(mismatch(format!("Mcp-Name is missing, malformed or is not the {named_by} of the body"))),
    }
}

fn mismatch(message: impl Into<String>) -> Failure {
    Failure::new(400, HEADER_MISMATCH, message)
}

/// Decodes a mirrored value: `=?base64?…?=` holds Base64 of UTF-8, anything else stands for itself.
///
/// `None`: what the markers enclose is malformed. The markers may not overlap, so `=?base64?=` is a literal.
fn decode_mirrored(value: &str) -> Option<String> {
    match value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        Some(encoded) => String::from_utf8(decode_base64(encoded)?).ok(),
        None => Some(value.to_owned()),
    }
}

/// Standard Base64 with its padding; `None` if malformed.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_suffix("==").or_else(|| text.strip_suffix('=')).unwrap_or(text);
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut bit_count) = (0_u32, 0);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        bit_count += 6;
        if bit_count >= 8 {
            bit_count -= 8;
            bytes.push((bits >> bit_count) as u8);
            bits &= (1 << bit_count) - 1;
        }
    }
    Some(bytes)
}

fn dispatch<'a>(id: &'a Value, call: &'a Call) -> Result<Answer<'a>, Failure> {
    let result = match call.method.as_str() {
        "server/discover" => cacheable(json!({
            "supportedVersions": [VERSION],
            "capabilities": {"tools": {}, "resources": {}},
            "instructions": "A demonstration: call echo, or countdown with a progress token.",
        })),
        "tools/list" => whole_list(call, "tools", tools())?,
        "resources/list" => whole_list(call, "resources", json!([about()]))?,
        "resources/templates/list" => whole_list(call, "resourceTemplates", json!([]))?,
        "resources/read" => read_resource(call)?,
        "tools/call" => return call_tool(id, call),
        method => {
            return Err(Failure::new(404, METHOD_NOT_FOUND, format!("{method} is not offered")));
        }
    };
    Ok(Answer::Result(success(id, result)))
}

fn tools() -> Value {
    json!([
        rpc::tool("echo", "Returns the text it was given.", "text", json!({"type": "string"})),
        rpc::tool(
            "countdown",
            "Counts down to zero, telling its progress if a progress token is given.",
            "from",
            json!({"type": "integer", "minimum": 1, "maximum": COUNTDOWN_MAX}),
        ),
    ])
}

fn about() -> Value {
    json!({"uri": ABOUT_URI, "name": "about", "description": "What this server is.", "mimeType": "text/plain"})
}

/// A list that fits one page, so that no cursor was ever given out.
fn whole_list(call: &Call, key: &str, entries: Value) -> Result<Value, Failure> {
    match call.params.get("cursor") {
        None => Ok(cacheable(json!({key: entries}))),
        Some(_) => Err(Failure::new(200, INVALID_PARAMS, "no such cursor")),
    }
}

fn read_resource(call: &Call) -> Result<Value, Failure> {
    match call.params.get("uri") {
        Some(uri) if uri == ABOUT_URI => Ok(cacheable(json!({
            "contents": [{"uri": ABOUT_URI, "mimeType": "text/plain", "text": "A demo MCP server inside Ringway."}],
        }))),
        uri => Err(Failure::new(200, INVALID_PARAMS, "no such resource").with_data(json!({"uri": uri}))),
    }
}

fn call_tool<'a>(id: &'a Value, call: &'a Call) -> Result<Answer<'a>, Failure> {
    let respond = |result| success(id, complete(result));
    match call.params.get("name").and_then(Value::as_str) {
        Some("echo") => Ok(Answer::Result(respond(rpc::echo(call)))),
        Some("countdown") => {
            let from = call.argument("from").and_then(Value::as_u64);
            let Some(from) = from.filter(|from| (1..=COUNTDOWN_MAX).contains(from)) else {
                let message = format!("the argument from must be an integer from 1 to {COUNTDOWN_MAX}");
                return Ok(Answer::Result(respond(rpc::tool_error(&message))));
            };
            let response = respond(text_content(&format!("counted down from {from}")));
            match call.params.get("_meta").and_then(|meta| meta.get("progressToken")) {
                Some(token) => Ok(Answer::Countdown(Countdown { from, token, response })),
                None => Ok(Answer::Result(response)),
            }
        }
        _ => Err(Failure::new(200, INVALID_PARAMS, "no such tool")),
    }
}

/// A countdown that was asked for its progress.
struct Countdown<'a> {
    from: u64,
    token: &'a Value,
    /// What follows the last event.
    response: Value,
}

impl Countdown<'_> {
    fn stream(self, connection: &mut Connection) -> io::Result<()> {
        let mut events = connection.open_events()?;
        for step in 1..=self.from {
            events.send(&json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {
                "progressToken": self.token,
                "progress": step,
                "total": self.from,
                "message": (self.from + 1 - step).to_string(),
            }}))?;
            // In this protocol version the leave is the cancellation.
            if connection.left_within(COUNTDOWN_STEP) {
                return Err(ErrorKind::ConnectionAborted.into());
            }
        }
        events.send(&self.response)?;
        events.finish()
    }
}

/// A result of one of the methods that carry cache hints. Nothing here depends on who asks.
fn cacheable(mut result: Value) -> Value {
    result["ttlMs"] = json!(TTL_MS);
    result["cacheScope"] = json!("public");
    complete(result)
}

fn complete(mut result: Value) -> Value {
    result["resultType"] = json!("complete");
    result["_meta"]["io.modelcontextprotocol/serverInfo"] =
        json!({"name": "ringway-demo-modern", "version": env!("CARGO_PKG_VERSION")});
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirrored_value_is_decoded_only_between_whole_markers() {
        for (value, decoded) in [
            ("plain", Some("plain")),
            ("", Some("")),
            ("=?base64?SGVsbG8=?=", Some("Hello")),
            ("=?base64?w7Y=?=", Some("ö")),
            ("=?base64?SGk==?=", None),
            ("=?base64?AAAA?=", Some("\0\0\0")),
            ("=?base64??=", Some("")),
            ("=?base64?=", Some("=?base64?=")),
            ("SGVsbG8=", Some("SGVsbG8=")),
            ("=?base64?SGVsbG8=", Some("=?base64?SGVsbG8=")),
            ("=?BASE64?SGVsbG8=?=", Some("=?BASE64?SGVsbG8=?=")),
            ("=?base64?SGVsbG8?=", None),
            ("=?base64?SGVs*G8=?=", None),
            ("=?base64?A===?=", None),
            ("=?base64?/w==?=", None),
        ] {
            assert_eq!(decode_mirrored(value).as_deref(), decoded, "{value}");
        }
    }
}
