use serde_json::{Value, json};

use super::*;
use crate::mcp::random::{Random, json_text, value};

fn parse(body: &str) -> Result<Envelope, McpError> {
    Envelope::parse(body.as_bytes())
}

#[test]
fn a_request_is_read() {
    let body = br#" {"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"n","uri":"u","taskId":"t",
        "cursor":"","requestId":7,"protocolVersion":"2025-06-18","arguments":{"name":"other","_meta":{}},"_meta":{
        "io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"x":{}},
        "io.modelcontextprotocol/clientInfo":{},"io.modelcontextprotocol/logLevel":"info","progressToken":1,
        "traceparent":"00-1"}}} "#;
    let envelope = Envelope::parse(body).expect("a request");
    assert_eq!((envelope.kind, envelope.method), (Kind::Request, MethodLabel::ToolsCall));
    assert_eq!(envelope.id(body), Some(&b"\"a\""[..]));
    assert_eq!(envelope.method_text(body), Some(&b"tools/call"[..]));
    assert_eq!(envelope.subject(body), Some(&b"n"[..]));
    assert_eq!(envelope.named(NameField::Uri, body), Some(&b"u"[..]));
    assert_eq!(envelope.named(NameField::TaskId, body), Some(&b"t"[..]));
    assert_eq!(envelope.cursor(body), Some(&b"\"\""[..]));
    assert_eq!(envelope.cancelled_id(body), Some(&b"7"[..]));
    assert_eq!(envelope.initialize_version(body), Some(&b"2025-06-18"[..]));
    assert_eq!(envelope.protocol_version(body), Some(&b"2026-07-28"[..]));
    assert_eq!(envelope.client_capabilities(body), Some(&br#"{"x":{}}"#[..]));
    assert_eq!(envelope.traceparent().map(|span| span.of(body)), Some(&b"\"00-1\""[..]));
    assert!(envelope.has_client_info() && envelope.has_log_level() && envelope.has_progress_token());
    assert!(!envelope.is_retry());
}

#[test]
fn kinds_are_told_apart() {
    let kind = |body| parse(body).map(|envelope| envelope.kind);
    assert_eq!(kind(r#"{"jsonrpc":"2.0","method":"m"}"#), Ok(Kind::Notification));
    assert_eq!(kind(r#"{"jsonrpc":"2.0","id":1,"result":null}"#), Ok(Kind::Response));
    assert_eq!(kind(r#"{"jsonrpc":"2.0","id":1,"error":{}}"#), Ok(Kind::Response));
    assert_eq!(kind(r#"{"jsonrpc":"2.0","error":{}}"#), Ok(Kind::Response));
    assert_eq!(kind(r#"{"jsonrpc":"2.0","result":{}}"#), Err(McpError::Response));
    assert_eq!(kind(r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#), Err(McpError::Response));
    assert_eq!(kind(r#"{"jsonrpc":"2.0","id":1,"method":"m","result":{}}"#), Err(McpError::Response));
    assert_eq!(kind(r#"{"jsonrpc":"2.0","id":1}"#), Err(McpError::NotAMessage));
    assert_eq!(kind(r#"{"jsonrpc":"2.0","id":1,"method":5}"#), Err(McpError::NotAMessage));
}

#[test]
fn p_006_ids_keep_their_text_and_type() {
    for id in ["1", "\"1\"", "123456789012345678901234567890", "-7", "0", r#""a\u0062\"""#, "\"\"", "\"é\""] {
        let body = format!(r#"{{"jsonrpc":"2.0","method":"m","params":{{"id":9,"x":[1,{{}}]}},"id": {id} }}"#);
        let envelope = parse(&body).expect(id);
        assert_eq!(envelope.id(body.as_bytes()), Some(id.as_bytes()), "{id}");
        assert_eq!(request_id(body.as_bytes()).as_deref(), Some(id.as_bytes()), "{id}");
    }
    for id in ["null", "1.0", "1e3", "1E3", "true", "{}", "[]", r#""\ud800""#] {
        let body = format!(r#"{{"jsonrpc":"2.0","method":"m","id":{id}}}"#);
        let expected = if id.starts_with('"') { McpError::Syntax } else { McpError::Id };
        assert_eq!(parse(&body).err(), Some(expected), "{id}");
        assert_eq!(request_id(body.as_bytes()), None, "{id}");
    }
    assert!(same_id(b"1", b"1") && same_id(br#""ab""#, br#""a\u0062""#));
    assert!(!same_id(b"1", b"\"1\"") && !same_id(b"1", b"2") && !same_id(br#""\\""#, br#""a""#));
}

#[test]
fn p_007_what_is_no_message_is_told_from_what_is_no_json() {
    for body in ["", " ", "x", "{", "{}x", "{}{}", "[1", r#"{"a":1,}"#, "\u{feff}{}", r#"{"a":01}"#, "'a'", "[]]"] {
        assert_eq!(parse(body).err(), Some(McpError::Syntax), "{body}");
    }
    for body in ["null", "1", " \"a\" ", "true", "[]"] {
        assert_eq!(parse(body).err(), Some(McpError::NotAMessage), "{body}");
    }
    for body in ["{}", r#"{"id":1,"method":"m"}"#, r#"{"jsonrpc":2.0,"method":"m"}"#, r#"{"jsonrpc":"1.0"}"#] {
        assert_eq!(parse(body).err(), Some(McpError::JsonRpcVersion), "{body}");
    }
    assert_eq!(McpError::Syntax.code(), -32700);
    assert_eq!(McpError::NotAMessage.code(), -32600);
}

#[test]
fn p_032_a_second_copy_of_a_member_is_refused() {
    let first = r#""jsonrpc":"2.0","id":1,"method":"tools/call""#;
    let version = "io.modelcontextprotocol/protocolVersion";
    let mut bodies = Vec::new();
    for member in
        [r#""jsonrpc":"2.0""#, r#""id":1"#, r#""i\u0064":1"#, r#""method":"tools/call""#, r#""m\u0065thod":"x""#]
    {
        bodies.push(format!("{{{first},{member}}}"));
    }
    bodies.push(format!(r#"{{{first},"params":{{}},"par\u0061ms":{{}}}}"#));
    let keys = ["name", "uri", "taskId", "cursor", "_meta", "requestId", "requestState", "inputResponses"];
    for key in keys {
        bodies.push(format!(r#"{{{first},"params":{{"{key}":null,"x":1,"{key}":null}}}}"#));
        let escaped = format!(r"\u{:04x}{}", key.as_bytes()[0], &key[1..]);
        bodies.push(format!(r#"{{{first},"params":{{"{key}":null,"{escaped}":null}}}}"#));
    }
    for key in [version, "progressToken", "traceparent", "io.modelcontextprotocol\\/clientCapabilities"] {
        let copy = key.replace('\\', "");
        bodies.push(format!(r#"{{{first},"params":{{"_meta":{{"{key}":"a","{copy}":"a"}}}}}}"#));
    }
    for body in bodies {
        assert_eq!(parse(&body).err(), Some(McpError::Members), "{body}");
        // Its refusal carries the id all the same, if that is no matter of doubt itself.
        let ids = body.matches(r#""id":"#).count() + body.matches(r#""i\u0064":"#).count();
        assert_eq!(request_id(body.as_bytes()).is_some(), ids == 1, "{body}");
    }
    let unread = format!(r#"{{{first},"x":1,"x":2,"params":{{"arguments":{{"name":1,"name":2}}}}}}"#);
    assert!(parse(&unread).is_ok());
}

#[test]
fn p_033_a_body_that_is_no_utf8_is_refused() {
    let mut body = br#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"x":"_"}}"#.to_vec();
    let place = body.iter().position(|byte| *byte == b'_').expect("a place");
    body[place] = 0xff;
    let error = Envelope::parse(&body).err();
    assert_eq!(error, Some(McpError::NotUtf8));
    assert_eq!(error.map(|error| (error.status(), error.code())), Some((400, -32700)));
}

#[test]
fn an_array_is_no_object() {
    for body in [
        r#"{"jsonrpc":"2.0","id":1,"method":"m","params":["name","uri"]}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":["2026-07-28",{}]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"m","params":7}"#,
    ] {
        assert_eq!(parse(body).err(), Some(McpError::Members), "{body}");
    }
    assert!(parse(r#"{"jsonrpc":"2.0","id":1,"method":"m","params":null}"#).is_ok());
    assert!(parse(r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":null}}"#).is_ok());
}

#[test]
fn p_092_a_batch_is_its_messages() {
    let note = r#"{"jsonrpc":"2.0","method":"m"}"#;
    let ask = r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#;
    let kind = |body: String| parse(&body).map(|envelope| envelope.kind);
    assert_eq!(kind(format!(" [{note},{ask}, {note}]")), Ok(Kind::Batch { asks: true }));
    assert_eq!(kind(format!("[{note}]")), Ok(Kind::Batch { asks: false }));
    assert_eq!(kind(format!("[{note},1]")), Err(McpError::NotAMessage));
    assert_eq!(kind(format!("[[{note}]]")), Err(McpError::NotAMessage));
    assert_eq!(kind(format!("[{note}]{note}")), Err(McpError::Syntax));
    assert_eq!(kind(format!("[{note},]")), Err(McpError::Syntax));
    let initialize = r#"{"jsonrpc":"2.0","id":2,"method":"initi\u0061lize"}"#;
    assert_eq!(kind(format!("[{ask},{initialize}]")), Err(McpError::BatchInitialize));
}

#[test]
fn strings_are_decoded_to_compare_them() {
    let body =
        br#"{"jsonrpc":"\u0032.0","id":1,"method":"tools\/call","params":{"name":"\u00e9\"","cursor":"\u0061"}}"#;
    let envelope = Envelope::parse(body).expect("a request");
    assert_eq!(envelope.method, MethodLabel::ToolsCall);
    assert_eq!(envelope.subject(body), Some("é\"".as_bytes()));
    assert_eq!(envelope.cursor(body), Some(&br#""\u0061""#[..]));
    assert_eq!(parse(r#"{"jsonrpc":"2.0","id":1,"method":"\ud800"}"#).err(), Some(McpError::Syntax));
}

#[test]
fn hostile_bodies_are_refused_in_good_time() {
    let lists = "[".repeat(1_000_000);
    let objects = r#"{"a":"#.repeat(1_000_000);
    let in_params = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{{"x":{}"#, "[{\"a\":".repeat(50_000));
    let in_batch = format!("[{in_params}");
    let at_limit = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{{"x":{open}{close}}}}}"#)
    };
    for body in [lists, objects, in_params, in_batch, at_limit(63)] {
        assert_eq!(parse(&body).err(), Some(McpError::TooDeep), "{body:.60}");
        assert_eq!(request_id(body.as_bytes()), None);
    }
    // More stack than a test has: see `DEPTH_MAX`.
    let deepest = std::thread::Builder::new().stack_size(16 << 20).spawn(move || parse(&at_limit(62)).is_ok());
    assert!(deepest.expect("a thread").join().expect("no panic"));
    for body in [
        "\"".repeat(1_000_000),
        "\\".repeat(1_000_000),
        format!("{{\"jsonrpc\":\"{}", "\\u".repeat(500_000)),
        format!("[{}", "1,".repeat(500_000)),
        format!("{{{}", "\"id\":1,".repeat(100_000)),
        format!("{{\"id\":{}", "9".repeat(1_000_000)),
    ] {
        assert!(parse(&body).is_err(), "{body:.60}");
    }
    let long = "9".repeat(100_000);
    let body = format!(r#"{{"jsonrpc":"2.0","id":{long},"method":"m"}}"#);
    assert_eq!(request_id(body.as_bytes()).as_deref(), Some(long.as_bytes()));
}

#[test]
fn p_059_p_076_what_may_be_shared() {
    let of = |method: &str, params: &str| {
        parse(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#)).expect("a request")
    };
    assert!(of("tools/list", "{}").is_coalescable());
    assert!(of("resources/read", r#"{"uri":"u"}"#).is_coalescable());
    assert!(!of("tools/call", r#"{"name":"n"}"#).is_coalescable());
    let retry = of("resources/read", r#"{"uri":"u","requestState":"s"}"#);
    assert!(retry.is_retry() && !retry.is_cacheable() && !retry.is_coalescable());
    assert!(!of("resources/read", r#"{"uri":"u","inputResponses":null}"#).is_cacheable());
    assert!(!of("tools/list", r#"{"_meta":{"io.modelcontextprotocol/logLevel":"info"}}"#).is_coalescable());
    let progress = of("tools/list", r#"{"_meta":{"progressToken":1}}"#);
    assert!(progress.is_cacheable() && !progress.is_coalescable());
    let notification = parse(r#"{"jsonrpc":"2.0","method":"tools/list"}"#).expect("a notification");
    assert!(!notification.is_cacheable());
}

#[test]
fn p_060_p_070_a_question_is_all_but_neutral_values() {
    let question = |params: &str| -> Vec<u8> {
        let body = format!(r#"{{"id":1,"params":{params},"jsonrpc":"2.0","method":"tools/list"}}"#);
        let envelope = parse(&body).expect("a request");
        envelope.question(body.as_bytes()).flatten().copied().collect()
    };
    let with = |trace: &str, info: &str, token: &str, vendor: &str| {
        question(&format!(
            r#"{{"_meta":{{"traceparent":"{trace}","io.modelcontextprotocol/clientInfo":{{"name":"{info}"}},
            "x/y":"{vendor}","progressToken":{token},"tracestate":"{trace}","baggage":"{trace}"}}}}"#
        ))
    };
    assert_eq!(with("a", "b", "1", "v"), with("cc", "d", "\"e\"", "v"));
    assert_ne!(with("a", "b", "1", "v"), with("a", "b", "1", "w"));
    let different = ["{}", r#"{"cursor":""}"#, r#"{"cursor":null}"#, r#"{"cursor":"a"}"#, r#"{"later":1}"#, "null"];
    for (index, one) in different.iter().enumerate() {
        assert!(different[..index].iter().all(|other| question(one) != question(other)), "{one}");
    }
    let body = br#"{"id":1,"jsonrpc":"2.0","method":"tools/list"}"#;
    let envelope = Envelope::parse(body).expect("a request");
    assert_eq!(envelope.question(body).flatten().count(), 0);
}

/// Every member read is the one serde_json reads, whatever stands around it.
#[test]
fn random_messages_are_read_as_an_oracle_reads_them() {
    let mut random = Random::new(3);
    let mut requests = 0;
    for _ in 0..4_000 {
        let mut params = value(&mut random, 4);
        if let Some(params) = params.as_object_mut() {
            for key in ["name", "uri", "taskId", "cursor", "arguments"] {
                if random.once_in(2) {
                    params.insert(key.to_owned(), value(&mut random, 2));
                }
            }
        }
        let id = value(&mut random, 1);
        let method = if random.once_in(2) { json!("tools/call") } else { value(&mut random, 0) };
        let message =
            json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params, "other": value(&mut random, 3)});
        let body = json_text(&mut random, &message);
        let read = parse(&body);
        let has_good_id = id.is_string() || id.is_i64() || id.is_u64();
        let is_members = |value: &Value| value.is_object() || value.is_null();
        let has_good_params = is_members(&params) && params.get("_meta").is_none_or(is_members);
        assert_eq!(read.is_ok(), has_good_id && has_good_params && method.is_string(), "{body} {read:?}");
        let Ok(envelope) = read else { continue };
        requests += 1;
        let bytes = body.as_bytes();
        let text = |text: Option<&[u8]>| text.map(|text| String::from_utf8(text.to_vec()).expect("UTF-8"));
        assert_eq!(text(envelope.method_text(bytes)).as_deref(), method.as_str());
        let raw_id: Value = serde_json::from_slice(envelope.id(bytes).expect("an id")).expect("JSON");
        assert_eq!(raw_id, id);
        for (field, key) in [(NameField::Name, "name"), (NameField::Uri, "uri"), (NameField::TaskId, "taskId")] {
            assert_eq!(text(envelope.named(field, bytes)).as_deref(), params[key].as_str(), "{body}");
        }
        let cursor = envelope.cursor(bytes).map(|raw| serde_json::from_slice::<Value>(raw).expect("JSON"));
        assert_eq!(cursor.as_ref(), params.get("cursor"), "{body}");
    }
    assert!(requests > 200, "{requests}");
}

/// Cutting a message short, or changing any one byte, gives a verdict; what is taken as a message
/// is JSON to the oracle too.
#[test]
fn damaged_messages_never_panic() {
    let mut random = Random::new(4);
    let bytes = br#"{}[]":,\ue01-.truefalsn "#;
    let mut accepted = 0;
    for _ in 0..400 {
        let params = json!({"name": value(&mut random, 1), "_meta": {"traceparent": "t", "a": value(&mut random, 2)}});
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
        let body = json_text(&mut random, &message).into_bytes();
        for _ in 0..50 {
            let mut damaged = body.clone();
            match random.below(4) {
                0 => damaged.truncate(random.below(body.len())),
                1 => damaged[random.below(body.len())] = *random.of(bytes),
                2 => damaged[random.below(body.len())] = random.next() as u8,
                _ => damaged.insert(random.below(body.len()), *random.of(bytes)),
            }
            if let Ok(envelope) = Envelope::parse(&damaged) {
                accepted += 1;
                // What is not read is not decoded: its escapes and exponents are the backend's affair.
                if let Err(error) = serde_json::from_slice::<Value>(&damaged) {
                    let reason = error.to_string();
                    let is_known = ["escape", "out of range"].iter().any(|known| reason.contains(known));
                    assert!(is_known, "{reason}: {}", String::from_utf8_lossy(&damaged));
                }
                envelope.question(&damaged).for_each(drop);
            }
            let _ = request_id(&damaged);
        }
    }
    assert!(accepted > 100, "{accepted}");
    for _ in 0..20_000 {
        let garbage: Vec<u8> = (0..random.below(60)).map(|_| *random.of(bytes)).collect();
        assert!(Envelope::parse(&garbage).is_err());
    }
}
