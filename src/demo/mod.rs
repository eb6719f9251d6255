//! The embedded demo backends: two small but complete MCP servers on loopback.
//!
//! `ringway demo`, and `ringway` without a configuration, put these behind the proxy, so that a stranger sees
//! both eras of the protocol work before writing a line of configuration. `modern` speaks 2026-07-28: stateless,
//! POST only. `legacy` speaks 2025-03-26 to 2025-11-25: sessions, a GET stream, messages from the server.
//!
//! They are ordinary HTTP servers to the workers and run beside them: blocking sockets, one thread a connection
//! (`http`). Nothing of the data plane is used, so a fault there cannot hide by being made twice.

mod http;
mod legacy;
mod modern;
mod rpc;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;

use serde_json::{Value, json};

/// Where the two servers listen. They run until the process ends.
#[derive(Clone, Copy, Debug)]
pub struct Demo {
    /// The stateless server of 2026-07-28. Any path is its MCP endpoint.
    pub modern: SocketAddr,
    /// The server with sessions. Any path is its MCP endpoint.
    pub legacy: SocketAddr,
}

/// Binds both servers to free loopback ports and serves them from background threads.
///
/// # Errors
///
/// If loopback cannot be bound or a thread cannot be started.
pub fn start() -> io::Result<Demo> {
    let legacy = legacy::Server::new(legacy::KEEP_ALIVE);
    Ok(Demo {
        modern: http::serve("demo-modern", modern::answer)?,
        legacy: http::serve("demo-legacy", move |request, connection| legacy.answer(request, connection))?,
    })
}

impl Demo {
    /// Shell lines that show each server through the proxy at `base`, such as `http://127.0.0.1:8080`.
    ///
    /// They are meant for one shell, from top to bottom: the legacy lines share a variable with the session id.
    #[must_use]
    pub fn curl_lines(&self, base: &str) -> String {
        let modern = modern_lines(&format!("{base}/mcp/modern"));
        let legacy = legacy_lines(&format!("{base}/mcp/legacy"));
        [modern, legacy].concat().join("\n") + "\n"
    }
}

fn modern_lines(url: &str) -> Vec<String> {
    let call = |method: &str, name: Option<&str>, mut params: Value| {
        params["_meta"][modern::VERSION_KEY] = json!(modern::VERSION);
        params["_meta"][modern::CAPABILITIES_KEY] = json!({});
        let mut headers =
            vec![format!("'MCP-Protocol-Version: {}'", modern::VERSION), format!("'Mcp-Method: {method}'")];
        headers.extend(name.map(|name| format!("'Mcp-Name: {name}'")));
        post(url, &headers, &json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
    };
    vec![
        format!("# modern server ({}): every request stands alone", modern::VERSION),
        call("server/discover", None, json!({})),
        call("tools/list", None, json!({})),
        call("tools/call", Some("echo"), json!({"name": "echo", "arguments": {"text": "hello"}})),
        "# the same, streaming its progress".to_owned(),
        call(
            "tools/call",
            Some("countdown"),
            json!({"name": "countdown", "arguments": {"from": 5}, "_meta": {"progressToken": "demo"}}),
        ),
    ]
}

fn legacy_lines(url: &str) -> Vec<String> {
    let session =
        || vec![format!("'MCP-Protocol-Version: {}'", legacy::LATEST), "\"Mcp-Session-Id: $SESSION\"".to_owned()];
    let call = |id: u32, method: &str, params: Value| {
        post(url, &session(), &json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
    };
    let initialize = post(
        url,
        &[],
        &json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": legacy::LATEST, "capabilities": {}, "clientInfo": {"name": "curl", "version": "1"}}}),
    );
    vec![
        format!("# legacy server ({}): initialize opens a session, named in a response header", legacy::LATEST),
        format!(
            "SESSION=$({initialize} -D - -o /dev/null | tr -d '\\r' | awk 'tolower($1) == \"mcp-session-id:\" {{print $2}}'); echo \"session $SESSION\""
        ),
        post(url, &session(), &json!({"jsonrpc": "2.0", "method": "notifications/initialized"})),
        call(2, "tools/list", json!({})),
        "# the server's own messages arrive on a GET stream, held open in the background".to_owned(),
        format!("curl -sN --max-time 60 {url} -H 'Accept: text/event-stream'{} & sleep 1", flags(&session())),
        call(3, "tools/call", json!({"name": "notify", "arguments": {"text": "hello from the server"}})),
        "# ending the session ends its stream".to_owned(),
        format!("curl -sS -X DELETE {url}{}", flags(&session())),
    ]
}

/// One POST as a shell line. No body here holds a single quote.
fn post(url: &str, headers: &[String], body: &Value) -> String {
    format!(
        "curl -sSN {url} -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream'{} -d '{body}'",
        flags(headers)
    )
}

fn flags(headers: &[String]) -> String {
    headers.iter().map(|header| format!(" -H {header}")).collect()
}
