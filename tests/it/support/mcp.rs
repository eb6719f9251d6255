//! MCP messages as bytes: what a client asks, and what a server answers.

use super::backend::{Exchange, json};
use super::client::{Client, Response};
use super::{Backend, Gate, PATIENCE, Proxy, ProxyBuilder, eventually};

pub(crate) const MODERN: &str = "2026-07-28";

/// A request to backend `b`, as a client of one era sends it. Members are JSON text.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) id: String,
    method: String,
    is_modern: bool,
    path: String,
    params: Vec<String>,
    meta: Vec<String>,
    fields: String,
}

impl Ask {
    /// Of 2026-07-28: complete, with headers that mirror it.
    pub(crate) fn modern(method: &str) -> Self {
        let meta = [
            format!(r#""io.modelcontextprotocol/protocolVersion":"{MODERN}""#),
            r#""io.modelcontextprotocol/clientCapabilities":{}"#.to_owned(),
        ];
        let ask = Self { is_modern: true, meta: meta.into(), ..Self::legacy(method) };
        ask.field(&format!("MCP-Protocol-Version: {MODERN}")).field(&format!("Mcp-Method: {method}"))
    }

    /// A modern `tools/list`.
    pub(crate) fn list() -> Self {
        Self::modern("tools/list")
    }

    /// A modern `resources/read`.
    pub(crate) fn read(uri: &str) -> Self {
        Self::modern("resources/read").named("uri", uri)
    }

    /// Of the revisions with sessions, which mirror nothing.
    pub(crate) fn legacy(method: &str) -> Self {
        Self {
            id: "1".to_owned(),
            method: method.to_owned(),
            is_modern: false,
            path: "/mcp/b".to_owned(),
            params: Vec::new(),
            meta: Vec::new(),
            fields: String::new(),
        }
    }

    /// With this id.
    pub(crate) fn id(mut self, id: impl ToString) -> Self {
        self.id = id.to_string();
        self
    }

    /// At another path.
    pub(crate) fn at(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// With one more member of `params`.
    pub(crate) fn param(mut self, member: &str) -> Self {
        self.params.push(member.to_owned());
        self
    }

    /// With a string in `params` that `Mcp-Name` repeats, if the era has that.
    pub(crate) fn named(self, key: &str, value: &str) -> Self {
        let ask = self.param(&format!(r#""{key}":"{value}""#));
        if ask.is_modern { ask.field(&format!("Mcp-Name: {value}")) } else { ask }
    }

    /// With one more member of `params._meta`.
    pub(crate) fn meta(mut self, member: &str) -> Self {
        self.meta.push(member.to_owned());
        self
    }

    /// With other capabilities than none.
    pub(crate) fn capable_of(mut self, capabilities: &str) -> Self {
        self.meta[1] = format!(r#""io.modelcontextprotocol/clientCapabilities":{capabilities}"#);
        self
    }

    /// With one more header line.
    pub(crate) fn field(mut self, line: &str) -> Self {
        self.fields += line;
        self.fields += "\r\n";
        self
    }

    /// With a credential.
    pub(crate) fn by(self, token: &str) -> Self {
        self.field(&format!("Authorization: Bearer {token}"))
    }

    pub(crate) fn body(&self) -> String {
        let mut params = self.params.clone();
        if !self.meta.is_empty() {
            params.push(format!(r#""_meta":{{{}}}"#, self.meta.join(",")));
        }
        format!(r#"{{"jsonrpc":"2.0","id":{},"method":"{}","params":{{{}}}}}"#, self.id, self.method, params.join(","))
    }

    /// Head and body.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        post_to(&self.path, &self.fields, self.body())
    }
}

/// A POST of any body; `fields` are whole header lines.
pub(crate) fn post_to(path: &str, fields: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut bytes = format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\n{fields}Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// The JSON text of the id of a request that an [`Ask`] made.
pub(crate) fn id_of(request: &str) -> &str {
    let from = request.find(r#""id":"#).expect("an id") + 5;
    let length = request[from..].find(r#","method""#).expect("a method behind it");
    &request[from..from + length]
}

/// The value of a request's header, or nothing.
pub(crate) fn field_of<'a>(request: &'a str, name: &str) -> &'a str {
    let head = request.split("\r\n\r\n").next().unwrap_or_default();
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next().unwrap_or_default()
}

/// A message that answers a request: `members` stand behind its id.
pub(crate) fn answer(request: &str, members: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{},{members}}}"#, id_of(request))
}

/// A complete result with these members, which says for which credential it was made.
pub(crate) fn result(request: &str, members: &str) -> String {
    let credential = field_of(request, "Authorization");
    answer(request, &format!(r#""result":{{"resultType":"complete","for":"{credential}","tools":[],{members}}}"#))
}

/// An error.
pub(crate) fn error(request: &str, code: i32) -> String {
    answer(request, &format!(r#""error":{{"code":{code},"message":"no"}}"#))
}

/// An answer of any status with more header lines.
pub(crate) fn answer_with(status: u16, fields: &str, body: &str) -> String {
    json(body).replacen("200 OK\r\n", &format!("{status} Status\r\n{fields}"), 1)
}

/// A server that answers each request with what `answer` makes of it.
pub(crate) fn server(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Backend {
    Backend::scripted(move |exchange| {
        while let Some(request) = exchange.request() {
            exchange.send(answer(&request));
        }
    })
}

/// The same behind a gate: each answer has to be let through.
pub(crate) fn gated(gate: &Gate, answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Backend {
    let gate = gate.clone();
    server(move |request| {
        gate.pass();
        answer(request)
    })
}

/// A server whose results have these members.
pub(crate) fn server_of(members: &'static str) -> Backend {
    server(move |request| json(&result(request, members)))
}

/// The same behind a gate.
pub(crate) fn gated_of(gate: &Gate, members: &'static str) -> Backend {
    gated(gate, move |request| json(&result(request, members)))
}

/// A proxy that reads messages, before one backend.
pub(crate) fn reader(backend: &Backend) -> ProxyBuilder {
    reader_with(backend, "")
}

/// The same with keys in the backend's table.
pub(crate) fn reader_with(backend: &Backend, keys: &str) -> ProxyBuilder {
    Proxy::builder().reads_messages().backend_with("b", &[backend.address()], keys)
}

/// Keeps answers out of the cache, so that what is shared is shared in flight.
pub(crate) const NO_CACHE: &str = "cache = { enabled = false }";

impl Proxy {
    /// Asks on a connection of its own.
    pub(crate) fn ask(&self, ask: &Ask) -> Response {
        self.asks(ask).response()
    }

    /// The same without waiting for the answer.
    pub(crate) fn asks(&self, ask: &Ask) -> Client {
        let mut client = self.client();
        client.send(ask.bytes());
        client
    }

    /// Asks all at once, each on a connection of its own, and waits until they are in flight together.
    pub(crate) fn ask_together(&self, asks: &[Ask]) -> Vec<Client> {
        let before = self.metric("ringway_exchanges") as usize;
        let clients = asks.iter().map(|ask| self.asks(ask)).collect();
        self.has_in_flight(before + asks.len());
        clients
    }

    /// Waits until so many exchanges are in flight, and all workers know of each other's.
    pub(crate) fn has_in_flight(&self, count: usize) {
        eventually("all are in flight", || self.metric("ringway_exchanges") as usize == count);
        // A worker reads what others sent it before it answers us: each look takes a message between
        // workers one step further, and no news has more than three to go.
        (0..3).for_each(|_| _ = self.metric("ringway_exchanges"));
    }
}

impl Response {
    /// The message in the body.
    pub(crate) fn message(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The member `for` of a result: whose it is.
    pub(crate) fn made_for(&self) -> String {
        self.message()["result"]["for"].as_str().unwrap_or_else(|| panic!("not a result: {self:?}")).to_owned()
    }

    /// Asserts that it answers this request with a result, or an error of ours or the backend's.
    pub(crate) fn answers(&self, ask: &Ask) -> &Self {
        let id = format!(r#"{{"jsonrpc":"2.0","id":{},"#, ask.id);
        assert!(self.text().starts_with(&id), "{} for {}", self.text(), ask.id);
        self
    }
}

/// Reads all answers, in the order of the requests, and asserts that each has its request's id.
pub(crate) fn answers(clients: &mut [Client], asks: &[Ask]) -> Vec<Response> {
    assert_eq!(clients.len(), asks.len());
    let pairs = clients.iter_mut().zip(asks);
    pairs
        .map(|(client, ask)| {
            let response = client.response();
            response.answers(ask);
            response
        })
        .collect()
}

/// The same request by so many clients, told apart by their ids.
pub(crate) fn herd(ask: &Ask, count: usize) -> Vec<Ask> {
    (0..count).map(|number| ask.clone().id(number)).collect()
}

impl Gate {
    /// Lets so many through.
    pub(crate) fn open_for(&self, count: usize) {
        (0..count).for_each(|_| self.open());
    }
}

impl Exchange {
    /// Reads a request and says so; then waits for the end of the connection and says that.
    pub(crate) fn tell_end(&mut self, tell: &crossbeam_channel::Sender<&'static str>) {
        self.request();
        // The test may be over.
        let _ = tell.send("asked");
        self.wait_for_end();
        let _ = tell.send("ended");
    }
}

/// What is told next.
pub(crate) fn told(receiver: &crossbeam_channel::Receiver<&'static str>) -> &'static str {
    receiver.recv_timeout(PATIENCE).expect("something is told")
}
