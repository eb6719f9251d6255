//! The demo server of the protocol versions with sessions: 2025-03-26, 2025-06-18 and 2025-11-25.
//!
//! `initialize` opens a session, POST calls within it, GET holds the stream on which the server's own messages
//! go out, DELETE ends it. A message that finds no stream waits for one, because clients open theirs in the
//! background while they make their first calls.

#![expect(clippy::disallowed_types, reason = "threads of the demo share the sessions; no worker runs this")]

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::http::{Connection, EventStream, Request};
use super::rpc::{
    self, Call, Failure, INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, Message, success,
    text_content,
};

/// What a client that asks for a version unknown here is offered.
pub(super) const LATEST: &str = "2025-11-25";
const VERSIONS: [&str; 3] = [BATCHING, "2025-06-18", LATEST];
/// The only version in which a body may hold several messages.
const BATCHING: &str = "2025-03-26";

pub(super) const SESSIONS_MAX: usize = 1024;
/// Messages that wait for a stream; the oldest make room.
const WAITING_MAX: usize = 16;
/// How often a silent stream gets a comment: well within the idle timers of what lies between.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);

const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];
/// The level of what the tool `notify` sends.
const NOTIFY_LEVEL: &str = "info";

/// The server: all it knows are its sessions.
pub(super) struct Server {
    sessions: Mutex<Sessions>,
    keep_alive: Duration,
}

/// An answer that is neither a stream nor an error.
struct Answer {
    status: u16,
    body: Option<Value>,
    /// Only the answer to `initialize` has one.
    session_id: Option<String>,
}

impl Answer {
    fn empty(status: u16) -> Self {
        Self { status, body: None, session_id: None }
    }

    fn json(body: Value) -> Self {
        Self { status: 200, body: Some(body), session_id: None }
    }
}

impl Server {
    /// A server without sessions, whose silent streams get a comment every `keep_alive`.
    pub(super) fn new(keep_alive: Duration) -> Self {
        Self { sessions: Mutex::default(), keep_alive }
    }

    /// Answers one HTTP request.
    pub(super) fn answer(&self, request: &Request, connection: &mut Connection) -> io::Result<()> {
        let outcome = match request.method.as_str() {
            "GET" => match self.session(request) {
                Ok((id, session)) => return self.hold_stream(id, &session, connection),
                Err(failure) => Err(failure),
            },
            "DELETE" => self.end_session(request),
            _ => self.post(request),
        };
        match outcome {
            Ok(Answer { status, body, session_id }) => {
                let session_id = session_id.as_deref().map(|id| ("Mcp-Session-Id", id));
                connection.respond(status, session_id.as_slice(), body.as_ref())
            }
            Err(failure) => connection.fail(&failure),
        }
    }

    fn end_session(&self, request: &Request) -> Result<Answer, Failure> {
        let (id, session) = self.session(request)?;
        lock(&self.sessions).by_id.remove(id);
        lock(&session).end_stream();
        Ok(Answer::empty(200))
    }

    fn post(&self, request: &Request) -> Result<Answer, Failure> {
        match rpc::parse(&request.body)? {
            Value::Array(batch) => self.post_batch(request, batch),
            message => match Message::from_json(message)? {
                Message::Call(call) => self.post_call(request, &call).map_err(|failure| failure.about(&call)),
                Message::Response => self.session(request).map(|_| Answer::empty(202)),
            },
        }
    }

    fn post_call(&self, request: &Request, call: &Call) -> Result<Answer, Failure> {
        if let ("initialize", Some(id)) = (call.method.as_str(), &call.id) {
            check_version(request)?;
            return self.initialize(id, call);
        }
        let (_, session) = self.session(request)?;
        match &call.id {
            Some(id) => Ok(Answer::json(success(id, dispatch(call, &session)?))),
            None => Ok(Answer::empty(202)),
        }
    }

    fn post_batch(&self, request: &Request, batch: Vec<Value>) -> Result<Answer, Failure> {
        let refused = |message| Err(Failure::new(400, INVALID_REQUEST, message));
        let (_, session) = self.session(request)?;
        if lock(&session).version != BATCHING {
            return refused("the session's protocol version has no batches");
        }
        if batch.is_empty() {
            return refused("an empty batch");
        }
        if batch.iter().any(|message| message["method"] == "initialize") {
            return refused("initialize may not be part of a batch");
        }
        let messages = batch.into_iter().map(Message::from_json).collect::<Result<Vec<_>, _>>()?;
        let responses: Vec<_> = messages.iter().filter_map(|message| respond_in_batch(message, &session)).collect();
        Ok(if responses.is_empty() { Answer::empty(202) } else { Answer::json(responses.into()) })
    }

    fn initialize(&self, id: &Value, call: &Call) -> Result<Answer, Failure> {
        let Some(asked) = call.params.get("protocolVersion").and_then(Value::as_str) else {
            return Err(Failure::new(200, INVALID_PARAMS, "protocolVersion is missing"));
        };
        let version = VERSIONS.into_iter().find(|version| *version == asked).unwrap_or(LATEST);
        let session_id =
            random_id().map_err(|_| Failure::new(500, INTERNAL_ERROR, "no randomness for a session id"))?;
        lock(&self.sessions).insert(session_id.clone(), Session::new(version));
        let result = json!({
            "protocolVersion": version,
            "capabilities": {"tools": {}, "logging": {}},
            "serverInfo": {"name": "ringway-demo-legacy", "version": env!("CARGO_PKG_VERSION")},
            "instructions": "A demonstration: call echo, or notify while a GET stream is open.",
        });
        Ok(Answer { session_id: Some(session_id), ..Answer::json(success(id, result)) })
    }

    /// The session a request names, and its id.
    fn session<'a>(&self, request: &'a Request) -> Result<(&'a str, Arc<Mutex<Session>>), Failure> {
        check_version(request)?;
        let Some(id) = request.header("mcp-session-id") else {
            return Err(Failure::new(400, INVALID_REQUEST, "Mcp-Session-Id is missing: initialize first"));
        };
        match lock(&self.sessions).find(id) {
            Some(session) => Ok((id, session)),
            None => Err(Failure::new(404, INVALID_REQUEST, "no such session: initialize again")),
        }
    }

    /// Holds the session's stream until the client leaves or the session ends.
    ///
    /// Other threads send on it, so this one is free to wait for the client: its leave is seen at once.
    fn hold_stream(&self, id: &str, session: &Mutex<Session>, connection: &mut Connection) -> io::Result<()> {
        {
            let mut session = lock(session);
            if session.events.is_some() {
                let failure = Failure::new(409, INVALID_REQUEST, "the session has a stream already");
                return connection.fail(&failure);
            }
            // While it is held its requests are not read, so no others should be sent after it.
            connection.close_after_this();
            session.open_stream(connection.open_events()?);
        }
        while !connection.left_within(self.keep_alive) {
            // An evicted session is found to be gone here; one in use is thereby kept from eviction.
            let alive = lock(&self.sessions).find(id).is_some();
            if !alive || !lock(session).keep_stream_alive() {
                break;
            }
        }
        lock(session).end_stream();
        Ok(())
    }
}

/// Checks the version header; without it 2025-03-26 is meant, which had none.
fn check_version(request: &Request) -> Result<(), Failure> {
    match request.header("mcp-protocol-version") {
        Some(version) if !VERSIONS.contains(&version) => {
            Err(Failure::new(400, INVALID_REQUEST, format!("this server speaks {}", VERSIONS.join(", "))))
        }
        _ => Ok(()),
    }
}

/// The response to one message of a batch; `None` if it asks for none.
fn respond_in_batch(message: &Message, session: &Mutex<Session>) -> Option<Value> {
    let Message::Call(call) = message else {
        return None;
    };
    let id = call.id.as_ref()?;
    Some(match dispatch(call, session) {
        Ok(result) => success(id, result),
        Err(failure) => failure.about(call).body(),
    })
}

fn dispatch(call: &Call, session: &Mutex<Session>) -> Result<Value, Failure> {
    match call.method.as_str() {
        "ping" => Ok(json!({})),
        "tools/list" => match call.params.get("cursor") {
            None => Ok(json!({"tools": tools()})),
            Some(_) => Err(Failure::new(200, INVALID_PARAMS, "no such cursor")),
        },
        "tools/call" => call_tool(call, session),
        "logging/setLevel" => {
            let level = call.params.get("level").and_then(Value::as_str).and_then(severity);
            lock(session).severity_min =
                level.ok_or_else(|| Failure::new(200, INVALID_PARAMS, "no such logging level"))?;
            Ok(json!({}))
        }
        method => Err(Failure::new(200, METHOD_NOT_FOUND, format!("{method} is not offered"))),
    }
}

fn tools() -> Value {
    json!([
        rpc::tool("echo", "Returns the text it was given.", "text", json!({"type": "string"})),
        rpc::tool("notify", "Sends the text on the session's GET stream.", "text", json!({"type": "string"})),
    ])
}

fn call_tool(call: &Call, session: &Mutex<Session>) -> Result<Value, Failure> {
    match call.params.get("name").and_then(Value::as_str) {
        Some("echo") => Ok(rpc::echo(call)),
        Some("notify") => Ok(match call.text() {
            Some(text) => {
                lock(session).log(text);
                text_content("sent")
            }
            None => rpc::tool_error("the argument text must be a string"),
        }),
        _ => Err(Failure::new(200, INVALID_PARAMS, "no such tool")),
    }
}

/// All sessions, at most [`SESSIONS_MAX`].
#[derive(Default)]
struct Sessions {
    by_id: HashMap<String, Entry>,
    /// Counts lookups: what orders the sessions by their last use.
    uses: u64,
}

struct Entry {
    session: Arc<Mutex<Session>>,
    last_use: u64,
}

impl Sessions {
    fn find(&mut self, id: &str) -> Option<Arc<Mutex<Session>>> {
        let entry = self.by_id.get_mut(id)?;
        self.uses += 1;
        entry.last_use = self.uses;
        Some(Arc::clone(&entry.session))
    }

    /// Adds a session, in place of the one unused for longest if there are too many.
    fn insert(&mut self, id: String, session: Session) {
        if self.by_id.len() >= SESSIONS_MAX {
            let oldest = self.by_id.iter().min_by_key(|(_, entry)| entry.last_use).map(|(id, _)| id.clone());
            oldest.and_then(|id| self.by_id.remove(&id));
        }
        self.uses += 1;
        self.by_id.insert(id, Entry { session: Arc::new(Mutex::new(session)), last_use: self.uses });
    }
}

struct Session {
    version: &'static str,
    /// Set and cleared by the thread that holds the GET, and cleared when the session ends.
    events: Option<EventStream>,
    waiting: VecDeque<Value>,
    /// Log messages below this are not sent.
    severity_min: usize,
}

impl Session {
    fn new(version: &'static str) -> Self {
        Self { version, events: None, waiting: VecDeque::new(), severity_min: 0 }
    }

    fn open_stream(&mut self, events: EventStream) {
        self.events = Some(events);
        for message in std::mem::take(&mut self.waiting) {
            self.send(message);
        }
    }

    /// False if the stream broke.
    fn keep_stream_alive(&mut self) -> bool {
        self.events.as_mut().is_some_and(|events| events.keep_alive().is_ok())
    }

    fn end_stream(&mut self) {
        if let Some(events) = self.events.take() {
            events.close();
        }
    }

    fn log(&mut self, text: &str) {
        if severity(NOTIFY_LEVEL) >= Some(self.severity_min) {
            self.send(json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {
                "level": NOTIFY_LEVEL, "logger": "demo", "data": text}}));
        }
    }

    /// Sends a message on the stream, or keeps it for the next.
    ///
    /// A broken stream stays in place: the thread that holds it was woken and removes it.
    fn send(&mut self, message: Value) {
        if self.events.as_mut().is_some_and(|events| events.send(&message).is_ok()) {
            return;
        }
        if self.waiting.len() == WAITING_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(message);
    }
}

/// The rank of a logging level; `None` if there is no such level.
fn severity(level: &str) -> Option<usize> {
    LEVELS.iter().position(|known| *known == level)
}

/// 128 bits from the system's generator: a session id must not be guessable.
fn random_id() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

/// Locks; what a panicked thread left is used as it is, since every change here is complete in itself.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
