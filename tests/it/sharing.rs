//! Answers that go to more than one asker: coalescing and the cache, from the outside.

use serde_json::{Value, json};

use crate::support::backend::Exchange;
use crate::support::{Backend, Client, Gate, Proxy, Response, eventually};

/// A modern `tools/list`, with an id and more members of `params` (each with a comma behind it).
fn list_body(id: &str, members: &str) -> String {
    request_body(id, "tools/list", members)
}

fn request_body(id: &str, method: &str, members: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{{members}"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#
    )
}

/// The request of a modern client: `fields` are whole header lines.
fn modern(method: &str, fields: &str, body: &str) -> String {
    format!(
        "POST /mcp/b HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\nMcp-Method: {method}\r\n\
         {fields}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn list(id: &str, fields: &str) -> String {
    modern("tools/list", fields, &list_body(id, ""))
}

/// The body of a request as the backend got it.
fn asked(request: &str) -> Value {
    let body = request.split_once("\r\n\r\n").expect("a head").1;
    serde_json::from_str(body).expect("JSON")
}

/// A result to a request, with these members.
fn answer_to(request: &str, members: &Value) -> String {
    let mut result = json!({"resultType": "complete", "tools": [{"name": "t", "inputSchema": {"type": "object"}}]});
    for (key, value) in members.as_object().expect("members") {
        result[key] = value.clone();
    }
    let body = json!({"jsonrpc": "2.0", "id": asked(request)["id"], "result": result}).to_string();
    crate::support::json(&body)
}

/// A backend that answers every request with these members, after it was let through.
fn gated(gate: &Gate, members: Value) -> Backend {
    let gate = gate.clone();
    Backend::scripted(move |exchange| {
        while let Some(request) = exchange.request() {
            gate.pass();
            exchange.send(answer_to(&request, &members));
        }
    })
}

fn backend(members: Value) -> Backend {
    Backend::scripted(move |exchange: &mut Exchange| {
        while let Some(request) = exchange.request() {
            exchange.send(answer_to(&request, &members));
        }
    })
}

fn sharing(backend: &Backend) -> Proxy {
    Proxy::builder().reads_messages().backend("b", &[backend.address()]).start()
}

fn message(response: &Response) -> Value {
    serde_json::from_slice(&response.body).unwrap_or_else(|_| panic!("no JSON: {response:?}"))
}

/// Sends each request on a connection of its own and waits until the proxy has them all in flight.
fn all_at_once(proxy: &Proxy, requests: &[String]) -> Vec<Client> {
    let clients = requests.iter().map(|request| {
        let mut client = proxy.client();
        client.send(request);
        client
    });
    let clients: Vec<Client> = clients.collect();
    eventually("all are in flight", || proxy.metric("ringway_exchanges") as usize == requests.len());
    clients
}

#[test]
fn p_072_concurrent_equal_requests_are_one_exchange_and_each_gets_its_own_id() {
    let gate = Gate::new();
    let backend = gated(&gate, json!({"ttlMs": 0, "cacheScope": "private"}));
    let proxy = sharing(&backend);
    let ids: Vec<String> =
        (0..40).map(|number| if number % 2 == 0 { number.to_string() } else { format!("\"{number}\"") }).collect();
    let requests: Vec<String> = ids.iter().map(|id| list(id, "Authorization: Bearer one\r\n")).collect();
    let clients = all_at_once(&proxy, &requests);
    gate.open();
    for (mut client, id) in clients.into_iter().zip(&ids) {
        let response = client.response();
        assert_eq!(response.status, 200);
        assert_eq!(message(&response)["id"], serde_json::from_str::<Value>(id).unwrap());
        assert_eq!(message(&response)["result"]["tools"][0]["name"], "t");
    }
    assert_eq!(backend.requests(), 1);
    proxy.comes_to_rest();
}

#[test]
fn p_065_a_kept_answer_is_served_with_the_time_that_is_left() {
    let backend = backend(json!({"ttlMs": 600_000, "cacheScope": "public"}));
    let proxy = sharing(&backend);
    let mut client = proxy.client();
    client.send(list("1", ""));
    assert_eq!(message(&client.response())["result"]["ttlMs"], 600_000);
    for id in 2..20 {
        // From every worker.
        let mut client = proxy.client();
        client.send(list(&id.to_string(), "Authorization: Bearer other\r\n"));
        let response = client.response();
        assert_eq!(message(&response)["id"], id);
        assert!(message(&response)["result"]["ttlMs"].as_u64().unwrap() <= 600_000);
    }
    assert_eq!(backend.requests(), 1);
}
