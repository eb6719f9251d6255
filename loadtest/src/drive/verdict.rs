//! Whether an answer is right.

use std::fmt;

use memchr::memmem;

use crate::workload::{Workload, id_digits};

/// Why an answer is wrong. The first one of a run is shown, so it says what was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    Malformed,
    Status(u16),
    TooLong,
    TooShort,
    OtherId,
    NoResult,
    OtherResult,
    IsError,
    Events(u32),
    Closed,
    NoAnswer,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Wrong::Malformed => write!(f, "not an HTTP/1.1 answer with a length or chunks"),
            Wrong::Status(status) => write!(f, "status {status}"),
            Wrong::TooLong => write!(f, "longer than any right answer"),
            Wrong::TooShort => write!(f, "shorter than any right answer"),
            Wrong::OtherId => write!(f, "the id is not the one that was asked with"),
            Wrong::NoResult => write!(f, "no result"),
            Wrong::OtherResult => write!(f, "the result is not the one that was asked for"),
            Wrong::IsError => write!(f, "isError is true"),
            Wrong::Events(count) => write!(f, "{count} events before the result"),
            Wrong::Closed => write!(f, "connection closed before the answer was complete"),
            Wrong::NoAnswer => write!(f, "no answer in time"),
        }
    }
}

/// What a right answer has.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    pub id: [u8; 10],
    /// The member of the result which is an array with something in it.
    pub member: &'static str,
    pub body_bytes_min: usize,
}

impl Expected {
    pub fn of(workload: Workload, id: u64) -> Self {
        let (member, body_bytes_min) = (workload.result_member(), workload.body_bytes_min());
        Expected { id: id_digits(id), member, body_bytes_min }
    }
}

/// Judges the JSON-RPC response in `body`.
///
/// Nearly every right answer begins as the mock wrote it; that is compared first. A proxy may write the same JSON
/// another way, so anything else is parsed before it is called wrong.
pub fn judge(body: &[u8], expected: &Expected) -> Result<(), Wrong> {
    let Expected { id, member, body_bytes_min } = expected;
    if body.len() < *body_bytes_min {
        return Err(Wrong::TooShort);
    }
    const IS_ERROR: &[u8] = b"\"isError\":";
    let fine = memmem::rfind(body, IS_ERROR).is_none_or(|at| body[at + IS_ERROR.len()..].starts_with(b"false"));
    let as_written = body
        .strip_prefix(b"{\"jsonrpc\":\"2.0\",\"id\":")
        .and_then(|rest| rest.strip_prefix(id))
        .and_then(|rest| rest.strip_prefix(b",\"result\":{"))
        .is_some_and(|rest| begins_with_array(rest, member) && rest.ends_with(b"}}"));
    if fine && as_written {
        return Ok(());
    }
    judge_parsed(body, id, member)
}

/// Among the first members stands the one that is looked for, and its array is not empty.
fn begins_with_array(result: &[u8], member: &str) -> bool {
    let beginning = &result[..result.len().min(128)];
    memmem::find(beginning, member.as_bytes())
        .is_some_and(|at| beginning[..at].ends_with(b"\"") && beginning[at + member.len()..].starts_with(b"\":[{"))
}

#[cold]
fn judge_parsed(body: &[u8], id: &[u8], member: &str) -> Result<(), Wrong> {
    #[derive(serde::Deserialize)]
    struct Response<'a> {
        #[serde(borrow)]
        id: Option<&'a serde_json::value::RawValue>,
        result: Option<serde_json::Map<String, serde_json::Value>>,
    }
    let response: Response = serde_json::from_slice(body).map_err(|_| Wrong::NoResult)?;
    let result = response.result.ok_or(Wrong::NoResult)?;
    if response.id.is_none_or(|found| found.get().as_bytes() != id) {
        return Err(Wrong::OtherId);
    }
    if result.get("isError") == Some(&serde_json::Value::Bool(true)) {
        return Err(Wrong::IsError);
    }
    match result.get(member) {
        Some(serde_json::Value::Array(items)) if !items.is_empty() => Ok(()),
        _ => Err(Wrong::OtherResult),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_result_with_the_same_id_is_right() {
        let ok =
            |body: &str| judge(body.as_bytes(), &Expected { id: *b"1000000001", member: "tools", body_bytes_min: 10 });
        assert_eq!(ok(r#"{"jsonrpc":"2.0","id":1000000001,"result":{"ttlMs":1,"tools":[{}]}}"#), Ok(()));
        assert_eq!(ok(r#"{"id": 1000000001, "result": {"a": 1, "tools": [1]}, "jsonrpc": "2.0"}"#), Ok(()));
        assert_eq!(ok(r#"{"jsonrpc":"2.0","id":1000000002,"result":{"tools":[{}]}}"#), Err(Wrong::OtherId));
        assert_eq!(ok(r#"{"jsonrpc":"2.0","id":"1000000001","result":{"tools":[{}]}}"#), Err(Wrong::OtherId));
        assert_eq!(ok(r#"{"jsonrpc":"2.0","id":1000000001,"result":{}}"#), Err(Wrong::OtherResult));
        assert_eq!(ok(r#"{"jsonrpc":"2.0","id":1000000001,"result":{"tools":[]}}"#), Err(Wrong::OtherResult));
        assert_eq!(ok(r#"{"jsonrpc":"2.0","id":1000000001,"result":{"content":[{}]}}"#), Err(Wrong::OtherResult));
        assert_eq!(ok(r#"{"jsonrpc":"2.0","id":1000000001,"error":{"code":1}}"#), Err(Wrong::NoResult));
        let error = r#"{"jsonrpc":"2.0","id":1000000001,"result":{"tools":[{}],"isError":true}}"#;
        assert_eq!(ok(error), Err(Wrong::IsError));
        assert_eq!(ok(&error.replace(":true", ": true")), Err(Wrong::IsError));
        assert_eq!(ok("{}"), Err(Wrong::TooShort));
    }
}
