//! JSON-RPC 2.0 as both demo servers use it.

use serde_json::{Map, Value, json};

pub(super) const PARSE_ERROR: i32 = -32700;
pub(super) const INVALID_REQUEST: i32 = -32600;
pub(super) const METHOD_NOT_FOUND: i32 = -32601;
pub(super) const INVALID_PARAMS: i32 = -32602;
pub(super) const INTERNAL_ERROR: i32 = -32603;

/// A message from a client.
pub(super) enum Message {
    Call(Call),
    /// The client's answer to a request of the server; these servers make none.
    Response,
}

/// A request, or without `id` a notification.
pub(super) struct Call {
    pub(super) id: Option<Value>,
    pub(super) method: String,
    pub(super) params: Map<String, Value>,
}

/// Parses a request body as JSON.
pub(super) fn parse(body: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(body).map_err(|_| Failure::new(400, PARSE_ERROR, "the body is not JSON"))
}

impl Message {
    pub(super) fn from_json(message: Value) -> Result<Self, Failure> {
        let malformed = || Failure::new(400, INVALID_REQUEST, "not a JSON-RPC 2.0 message");
        let Value::Object(mut message) = message else {
            return Err(malformed());
        };
        if message.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
            return Err(malformed());
        }
        let id = match message.remove("id") {
            Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) => {
                return Err(malformed());
            }
            id => id,
        };
        let params = match message.remove("params") {
            None => Map::new(),
            Some(Value::Object(params)) => params,
            Some(_) => return Err(malformed()),
        };
        match message.remove("method") {
            Some(Value::String(method)) => Ok(Self::Call(Call { id, method, params })),
            None if message.contains_key("result") || message.contains_key("error") => Ok(Self::Response),
            _ => Err(malformed()),
        }
    }
}

impl Call {
    /// The tool's argument `name`.
    pub(super) fn argument(&self, name: &str) -> Option<&Value> {
        self.params.get("arguments")?.get(name)
    }

    /// The tool's argument `text`, which most tools here take.
    pub(super) fn text(&self) -> Option<&str> {
        self.argument("text")?.as_str()
    }
}

/// A JSON-RPC error and the HTTP status it travels with.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: u16,
    /// The request's, if it had one that could be read.
    id: Option<Value>,
    code: i32,
    message: String,
    data: Option<Value>,
}

impl Failure {
    pub(super) fn new(status: u16, code: i32, message: impl Into<String>) -> Self {
        Self { status, id: None, code, message: message.into(), data: None }
    }

    pub(super) fn with_data(self, data: Value) -> Self {
        Self { data: Some(data), ..self }
    }

    pub(super) fn about(self, call: &Call) -> Self {
        Self { id: call.id.clone(), ..self }
    }

    pub(super) fn body(&self) -> Value {
        let mut body = json!({"jsonrpc": "2.0", "error": {"code": self.code, "message": self.message}});
        if let Some(data) = &self.data {
            body["error"]["data"] = data.clone();
        }
        if let Some(id) = &self.id {
            body["id"] = id.clone();
        }
        body
    }
}

/// The response that carries `result`.
pub(super) fn success(id: &Value, result: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": result})
}

/// What the tool `echo` of both servers answers.
pub(super) fn echo(call: &Call) -> Value {
    call.text().map_or_else(|| tool_error("the argument text must be a string"), text_content)
}

/// A tool's result: one piece of text.
pub(super) fn text_content(text: &str) -> Value {
    json!({"content": [{"type": "text", "text": text}]})
}

/// A result as well: an argument that fits no schema is for the model to see and mend (SEP-1303).
pub(super) fn tool_error(text: &str) -> Value {
    let mut result = text_content(text);
    result["isError"] = json!(true);
    result
}

/// A tool that takes one argument, as `tools/list` shows it.
pub(super) fn tool(name: &str, description: &str, argument: &str, schema: Value) -> Value {
    json!({
        "name": name,
        "description": description,
        "inputSchema": {"type": "object", "properties": {argument: schema}, "required": [argument]},
    })
}
