//! Sessions of the older revisions, on both sides.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::client::post;
use super::{Backend, Client, Response};

/// A server with sessions of its own: answers `initialize` with a new id, everything else with its
/// own name and the id it was asked with, and 404 for ids it did not give.
pub(crate) fn legacy_server(name: &'static str) -> Backend {
    static SESSIONS: AtomicUsize = AtomicUsize::new(0);
    Backend::scripted(move |exchange| {
        while let Some(request) = exchange.request() {
            let id = request.lines().find_map(|line| line.strip_prefix("Mcp-Session-Id: "));
            let answer = match id {
                None => {
                    let number = SESSIONS.fetch_add(1, Ordering::SeqCst);
                    format!("HTTP/1.1 200 OK\r\nMcp-Session-Id: {name}-{number}\r\nContent-Length: 2\r\n\r\n{{}}")
                }
                Some(id) if id.starts_with(name) => {
                    let body = format!("{name} {id}");
                    format!("HTTP/1.1 200 OK\r\nMcp-Session-Id: {id}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                }
                Some(_) => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
            };
            exchange.send(answer);
        }
    })
}

/// Opens a session: the token that the client is to name it by.
pub(crate) fn initialize(client: &mut Client) -> String {
    client.send(post("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{}}"));
    let response = client.response();
    assert_eq!(response.status, 200);
    response.field("mcp-session-id").expect("a session id").to_owned()
}

/// A request of a session, with more header lines.
pub(crate) fn ask(client: &mut Client, session: &str, more: &str) -> Response {
    client.send(format!(
        "POST /mcp/b HTTP/1.1\r\nHost: h\r\nMcp-Session-Id: {session}\r\n{more}Content-Length: 2\r\n\r\n{{}}"
    ));
    client.response()
}
