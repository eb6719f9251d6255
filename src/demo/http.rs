//! Just enough HTTP/1.1 for the demo servers, with blocking sockets on loopback.
//!
//! One thread accepts, one thread serves each connection. Everything is bounded: connections, head, body, and
//! each wait. What is not needed is refused and the connection closed: HTTP/1.0 and chunked request bodies.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::rpc::{Failure, INVALID_REQUEST};
use crate::clock;

/// Open connections per server, and so its threads.
pub(super) const CONNECTIONS_MAX: usize = 256;
/// Request line and headers.
pub(super) const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// One JSON-RPC message or batch.
pub(super) const BODY_BYTES_MAX: usize = 1024 * 1024;
/// How long a connection may stay open between requests: longer than a proxy pools one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// From the first byte of a request to its last.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A client that takes no byte for this long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves a free loopback port from background threads; `answer` writes the answer to each request.
///
/// An error from `answer` ends the connection: the answer may be half written.
pub(super) fn serve<A>(name: &str, answer: A) -> io::Result<SocketAddr>
where
    A: Fn(&Request, &mut Connection) -> io::Result<()> + Send + Sync + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let connection_name = format!("{name}-conn");
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || accept_all(&listener, &connection_name, &Arc::new(answer)))?;
    Ok(address)
}

fn accept_all<A>(listener: &TcpListener, thread_name: &str, answer: &Arc<A>)
where
    A: Fn(&Request, &mut Connection) -> io::Result<()> + Send + Sync + 'static,
{
    // Each connection holds a copy, dropped even if its thread panics; only this thread makes copies.
    let seat = Arc::new(());
    loop {
        let Ok((stream, _)) = listener.accept() else {
            // Most likely out of descriptors, which only time mends.
            #[expect(clippy::disallowed_methods, reason = "a thread of its own, no worker")]
            thread::sleep(Duration::from_millis(100));
            continue;
        };
        if Arc::strong_count(&seat) > CONNECTIONS_MAX {
            turn_away(stream);
            continue;
        }
        let (answer, seat) = (Arc::clone(answer), Arc::clone(&seat));
        // A thread that cannot be started drops the stream, which closes it.
        let _ = thread::Builder::new().name(thread_name.to_owned()).spawn(move || {
            let _seat = seat;
            // The connection is over either way, and a client's leave is no event worth a log line.
            let _ = converse(stream, &*answer);
        });
    }
}

/// Answers 503 from the accept thread, which must not wait long for anyone.
fn turn_away(stream: TcpStream) {
    if let Ok(mut connection) = Connection::new(stream) {
        let _ = connection.refuse(503, "too many connections", Duration::from_millis(50));
    }
}

/// Serves one connection to its end.
fn converse<A>(stream: TcpStream, answer: &A) -> io::Result<()>
where
    A: Fn(&Request, &mut Connection) -> io::Result<()>,
{
    let mut connection = Connection::new(stream)?;
    loop {
        let request = match connection.read_request() {
            Ok(request) => request,
            Err(Ended::Left) => return Ok(()),
            Err(Ended::Refused(status, reason)) => {
                return connection.refuse(status, reason, Duration::from_secs(1));
            }
        };
        connection.closing = request.closing;
        if !matches!(request.method.as_str(), "POST" | "GET" | "DELETE") {
            // Without a body, because the method may be HEAD.
            connection.respond(405, &[("Allow", "POST, GET, DELETE")], None)?;
        } else if !request.origin_is_local() {
            let failure = Failure::new(403, INVALID_REQUEST, "this Origin may not use a local server");
            connection.fail(&failure)?;
        } else {
            answer(&request, &mut connection)?;
        }
        if connection.closing {
            return Ok(());
        }
    }
}

/// A request, complete. The target is not kept: every path is the endpoint.
pub(super) struct Request {
    pub(super) method: String,
    /// Names in lower case; the values of a repeated name are joined by a comma, as RFC 9110 section 5.2 has it.
    headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
    closing: bool,
}

impl Request {
    /// The value of the header `name`, which is given in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Whether the request comes from no web page, or from one of this machine.
    ///
    /// Without this check any page in the user's browser could reach these servers by DNS rebinding.
    fn origin_is_local(&self) -> bool {
        let Some(origin) = self.header("origin") else {
            return true;
        };
        let host = origin.split_once("://").map_or("", |(_, host)| host);
        ["localhost", "127.0.0.1", "[::1]"]
            .iter()
            .any(|local| host.strip_prefix(local).is_some_and(|port| port.is_empty() || port.starts_with(':')))
    }
}

/// Why no request came.
enum Ended {
    /// The client closed, or was silent for too long.
    Left,
    /// What came is answered with this status, and the connection closed.
    Refused(u16, &'static str),
}

/// A parsed head: the request without its body, and where that lies in the buffer.
struct Head {
    request: Request,
    head_bytes: usize,
    body_bytes: usize,
}

impl Head {
    /// `None`: more bytes are needed.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, Ended> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut headers);
        let head_bytes = match parsed.parse(bytes) {
            Ok(httparse::Status::Complete(head_bytes)) if head_bytes <= HEAD_BYTES_MAX => head_bytes,
            Ok(httparse::Status::Partial) if bytes.len() <= HEAD_BYTES_MAX => return Ok(None),
            Ok(_) | Err(httparse::Error::TooManyHeaders) => {
                return Err(Ended::Refused(431, "head too large"));
            }
            Err(_) => return Err(Ended::Refused(400, "not an HTTP/1.1 request")),
        };
        if parsed.version != Some(1) {
            return Err(Ended::Refused(505, "only HTTP/1.1 is spoken here"));
        }
        let method = parsed.method.unwrap_or_default().to_owned();
        let headers = collect_headers(parsed.headers)?;
        if headers.contains_key("transfer-encoding") {
            return Err(Ended::Refused(411, "a body needs a Content-Length"));
        }
        let body_bytes = match headers.get("content-length") {
            None => 0,
            Some(digits) if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                return Err(Ended::Refused(400, "bad Content-Length"));
            }
            // More digits than fit are too many bytes as well.
            Some(digits) => match digits.parse() {
                Ok(body_bytes) if body_bytes <= BODY_BYTES_MAX => body_bytes,
                _ => return Err(Ended::Refused(413, "body too large")),
            },
        };
        let closing = headers
            .get("connection")
            .is_some_and(|options| options.split(',').any(|option| option.trim().eq_ignore_ascii_case("close")));
        let request = Request { method, headers, body: Vec::new(), closing };
        Ok(Some(Self { request, head_bytes, body_bytes }))
    }
}

fn collect_headers(parsed: &[httparse::Header<'_>]) -> Result<BTreeMap<String, String>, Ended> {
    let mut headers = BTreeMap::<String, String>::new();
    for header in parsed {
        let Ok(value) = str::from_utf8(header.value) else {
            return Err(Ended::Refused(400, "a header is not UTF-8"));
        };
        let value = value.trim_matches([' ', '\t']);
        headers
            .entry(header.name.to_ascii_lowercase())
            .and_modify(|joined| {
                joined.push_str(", ");
                joined.push_str(value);
            })
            .or_insert_with(|| value.to_owned());
    }
    Ok(headers)
}

/// One client connection: what it sent and is not used yet, and the way back.
pub(super) struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
    /// Whether the answer under way is the last.
    closing: bool,
}

/// What a wait for bytes brought.
enum Filled {
    Bytes,
    Closed,
    Late,
}

impl Connection {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        Ok(Self { stream, unread: Vec::new(), closing: false })
    }

    fn read_request(&mut self) -> Result<Request, Ended> {
        if self.unread.is_empty() && !matches!(self.fill(clock::now() + IDLE_TIMEOUT), Filled::Bytes) {
            return Err(Ended::Left);
        }
        let deadline = clock::now() + REQUEST_TIMEOUT;
        let Head { mut request, head_bytes, body_bytes } = loop {
            match Head::parse(&self.unread)? {
                Some(head) => break head,
                None => self.fill_by(deadline)?,
            }
        };
        let end = head_bytes + body_bytes;
        if self.unread.len() < end && request.header("expect").is_some() {
            // A failed write shows as a closed connection in the read that follows.
            let _ = self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        while self.unread.len() < end {
            self.fill_by(deadline)?;
        }
        request.body = self.unread[head_bytes..end].to_vec();
        self.unread.drain(..end);
        Ok(request)
    }

    fn fill_by(&mut self, deadline: Instant) -> Result<(), Ended> {
        match self.fill(deadline) {
            Filled::Bytes => Ok(()),
            Filled::Closed => Err(Ended::Left),
            Filled::Late => Err(Ended::Refused(408, "the request took too long")),
        }
    }

    /// Reads once, waiting until `deadline` at most.
    fn fill(&mut self, deadline: Instant) -> Filled {
        let mut chunk = [0; 8 * 1024];
        loop {
            let wait = deadline.saturating_duration_since(clock::now());
            // The call refuses a wait of zero: it would mean forever.
            if wait.is_zero() {
                return Filled::Late;
            }
            if self.stream.set_read_timeout(Some(wait)).is_err() {
                return Filled::Closed;
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return Filled::Closed,
                Ok(count) => {
                    self.unread.extend_from_slice(&chunk[..count]);
                    return Filled::Bytes;
                }
                // A signal to the process; a socket read with a timeout is never restarted by the kernel.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Filled::Late;
                }
                Err(_) => return Filled::Closed,
            }
        }
    }

    /// Waits, and says whether the client left meanwhile: the pause between events on a stream.
    ///
    /// A request sent early is kept for its turn. More than one whole request ahead counts as a leave.
    pub(super) fn left_within(&mut self, wait: Duration) -> bool {
        let deadline = clock::now() + wait;
        loop {
            match self.fill(deadline) {
                Filled::Late => return false,
                Filled::Closed => return true,
                Filled::Bytes if self.unread.len() > HEAD_BYTES_MAX + BODY_BYTES_MAX => {
                    return true;
                }
                Filled::Bytes => {}
            }
        }
    }

    /// Writes a whole response, in one write.
    pub(super) fn respond(&mut self, status: u16, headers: &[(&str, &str)], body: Option<&Value>) -> io::Result<()> {
        // The line end is for those who read the answer in a terminal.
        let body = body.map_or_else(String::new, |body| format!("{body}\n"));
        let mut head = self.head(status);
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            head += "Content-Type: application/json\r\n";
        }
        let response = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        self.stream.write_all(response.as_bytes())
    }

    /// Writes an error as a whole response.
    pub(super) fn fail(&mut self, failure: &Failure) -> io::Result<()> {
        self.respond(failure.status, &[], Some(&failure.body()))
    }

    /// Begins a response that is an event stream.
    ///
    /// The stream has its own handle on the socket, so that another thread may send on it while this one waits
    /// for the client to leave.
    pub(super) fn open_events(&mut self) -> io::Result<EventStream> {
        let head = self.head(200)
            + "Content-Type: text/event-stream\r\n\
               Cache-Control: no-cache\r\n\
               X-Accel-Buffering: no\r\n\
               Transfer-Encoding: chunked\r\n\r\n";
        self.stream.write_all(head.as_bytes())?;
        Ok(EventStream { stream: self.stream.try_clone()? })
    }

    /// Makes the answer that follows the last one.
    pub(super) fn close_after_this(&mut self) {
        self.closing = true;
    }

    fn head(&self, status: u16) -> String {
        let connection = if self.closing { "Connection: close\r\n" } else { "" };
        format!("HTTP/1.1 {status} {}\r\n{connection}", reason_phrase(status))
    }

    /// Writes an error and closes, reading on for up to `linger`.
    ///
    /// Closing a socket with unread bytes resets it, and the client might lose the answer.
    fn refuse(&mut self, status: u16, reason: &str, linger: Duration) -> io::Result<()> {
        self.closing = true;
        self.fail(&Failure::new(status, INVALID_REQUEST, reason))?;
        let deadline = clock::now() + linger;
        self.stream.shutdown(Shutdown::Write)?;
        while matches!(self.fill(deadline), Filled::Bytes) {
            self.unread.clear();
        }
        Ok(())
    }
}

/// The events of one response. It ends with [`finish`](Self::finish), or broken.
#[derive(Debug)]
pub(super) struct EventStream {
    stream: TcpStream,
}

impl EventStream {
    /// Sends one JSON-RPC message. Serialised JSON holds no line end, so it is one `data` line.
    pub(super) fn send(&mut self, message: &Value) -> io::Result<()> {
        self.write_chunk(&format!("event: message\ndata: {message}\n\n"))
    }

    /// Sends a comment, which clients ignore and idle timers along the way do not.
    pub(super) fn keep_alive(&mut self) -> io::Result<()> {
        self.write_chunk(": keep-alive\n\n")
    }

    /// Ends the stream in order; the connection may serve on.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.write_chunk("")
    }

    /// Ends the stream in order, and the connection with it. Wakes the thread that waits for the client to leave.
    ///
    /// A client that left already cannot be told, and need not be.
    pub(super) fn close(mut self) {
        let _ = self.finish();
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// The empty chunk is the last.
    fn write_chunk(&mut self, data: &str) -> io::Result<()> {
        let chunk = format!("{:x}\r\n{data}\r\n", data.len());
        // A chunk may be half written now: nothing may follow it, and whoever waits on the socket should know.
        self.stream.write_all(chunk.as_bytes()).inspect_err(|_| {
            let _ = self.stream.shutdown(Shutdown::Both);
        })
    }
}

fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        202 => "Accepted",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        // No caller has another; the phrase may be empty (RFC 9112 section 4).
        _ => "",
    }
}
