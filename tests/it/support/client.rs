//! A client that sends what it is given and reads answers as strictly as it can.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{PATIENCE, find, take};

/// One connection to the proxy.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
    /// Payload of an event stream, out of its chunks.
    events: Vec<u8>,
}

/// An answer, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Head as it came.
    pub(crate) head: String,
    /// Payload without framing.
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of the only field of this name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.head.lines().filter_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        });
        let value = values.next();
        assert_eq!(values.next(), None, "{name} stands twice: {}", self.head);
        value
    }
}

/// A small legacy call to backend `b`.
pub(crate) const CALL: &str =
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{}}}"#;

/// A POST of this body to backend `b`.
pub(crate) fn post(body: &str) -> String {
    format!(
        "POST /mcp/b HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A GET of backend `b`'s stream of events.
pub(crate) const GET: &str = "GET /mcp/b HTTP/1.1\r\nHost: test\r\nAccept: text/event-stream\r\n\r\n";

/// A DELETE at backend `b`.
pub(crate) const DELETE: &str = "DELETE /mcp/b HTTP/1.1\r\nHost: test\r\n\r\n";

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    /// From this local address.
    pub(crate) fn connect_from(local: [u8; 4], address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.bind(&SocketAddr::from((local, 0)).into()).unwrap();
        socket.connect(&address.into()).unwrap();
        Self::over(socket.into())
    }

    /// With room for little that it has not read yet.
    pub(crate) fn connect_narrow(address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        socket.connect(&address.into()).unwrap();
        Self::over(socket.into())
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new(), events: Vec::new() }
    }

    /// Leaves without a good-bye: a reset.
    pub(crate) fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends a call and reads its answer.
    pub(crate) fn call(&mut self) -> Response {
        self.send(post(CALL));
        self.response()
    }

    /// Reads one answer to HEAD.
    pub(crate) fn response_to_head(&mut self) -> Response {
        let head = self.head();
        let status =
            head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no status: {head}"));
        Response { status, head, body: Vec::new() }
    }

    /// Reads one answer to a request other than HEAD.
    pub(crate) fn response(&mut self) -> Response {
        let mut response = self.response_to_head();
        let status = response.status;
        let chunked = response.field("transfer-encoding").is_some();
        let length: Option<usize> = response.field("content-length").map(|length| length.parse().unwrap());
        assert!(!(chunked && length.is_some()), "two lengths: {}", response.head);
        response.body = match length {
            _ if status < 200 || status == 204 || status == 304 => Vec::new(),
            Some(length) => self.exactly(length),
            None if chunked => self.chunks(),
            None => self.rest(),
        };
        response
    }

    /// Reads one answer, for a client that does not know whether it will get one: `None` when the
    /// connection ends before the answer does, or when its end is the end of the connection.
    pub(crate) fn try_response(&mut self) -> Option<Response> {
        loop {
            let end = find(&self.buffer, b"\r\n\r\n");
            if let Some((head, body)) = end.map(|end| self.buffer.split_at(end + 4)) {
                let head = String::from_utf8(head.to_vec()).unwrap();
                let is_chunked = head.contains("Transfer-Encoding: chunked\r\n");
                let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
                let is_whole = match length {
                    _ if head.starts_with("HTTP/1.1 204 ") => true,
                    Some(length) => body.len() >= length.parse().unwrap(),
                    None => is_chunked && (body.starts_with(b"0\r\n\r\n") || find(body, b"\r\n0\r\n\r\n").is_some()),
                };
                if is_whole {
                    return Some(self.response());
                }
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// Reads a head; `None` when the connection ends before it does.
    pub(crate) fn try_head(&mut self) -> Option<String> {
        let end = self.try_until(b"\r\n\r\n")?;
        Some(String::from_utf8(self.buffer.drain(..end).collect()).unwrap())
    }

    /// Reads a head, up to and with its empty line.
    pub(crate) fn head(&mut self) -> String {
        self.try_head().unwrap_or_else(|| panic!("ended inside: {:?}", String::from_utf8_lossy(&self.buffer)))
    }

    /// Reads that many bytes; `None` when the connection ends before.
    pub(crate) fn try_exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            if !self.fill() {
                return None;
            }
        }
        Some(take(&mut self.buffer, length))
    }

    /// Reads that many bytes.
    pub(crate) fn exactly(&mut self, length: usize) -> Vec<u8> {
        self.try_exactly(length).unwrap_or_else(|| panic!("ended {} bytes early", length - self.buffer.len()))
    }

    /// Reads one chunk's payload; empty for the last.
    pub(crate) fn chunk(&mut self) -> Vec<u8> {
        self.try_chunk().unwrap_or_else(|| panic!("ended inside: {:?}", String::from_utf8_lossy(&self.buffer)))
    }

    /// The same; `None` when the connection ends before the chunk does.
    fn try_chunk(&mut self) -> Option<Vec<u8>> {
        let end = self.try_until(b"\r\n")?;
        let line: Vec<u8> = self.buffer.drain(..end).collect();
        let digits = std::str::from_utf8(&line[..end - 2]).unwrap();
        let size = usize::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("chunk size {digits:?}"));
        let mut payload = self.try_exactly(size + 2)?;
        assert!(payload.ends_with(b"\r\n"), "no CRLF behind a chunk of {size}");
        payload.truncate(size);
        Some(payload)
    }

    /// Reads one event of a chunked stream, with the empty line that ends it.
    pub(crate) fn event(&mut self) -> String {
        self.try_event().expect("the stream ended")
    }

    /// The same; `None` when the stream or its connection ends.
    pub(crate) fn try_event(&mut self) -> Option<String> {
        // What has been looked through is not looked through again: an event may have many chunks.
        let mut from = 0;
        loop {
            if let Some(at) = find(&self.events[from..], b"\n\n") {
                return Some(String::from_utf8(take(&mut self.events, from + at + 2)).unwrap());
            }
            from = self.events.len().saturating_sub(1);
            let chunk = self.try_chunk()?;
            if chunk.is_empty() {
                return None;
            }
            self.events.extend(chunk);
        }
    }

    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let chunk = self.chunk();
            if chunk.is_empty() {
                return body;
            }
            body.extend(chunk);
        }
    }

    /// Everything up to the end of the connection.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.buffer)
    }

    /// Whether the proxy has ended the connection with nothing more to read.
    pub(crate) fn ended(&mut self) -> bool {
        self.buffer.is_empty() && !self.fill()
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish_sending(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    fn try_until(&mut self, mark: &[u8]) -> Option<usize> {
        loop {
            if let Some(at) = find(&self.buffer, mark) {
                return Some(at + mark.len());
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// Reads once; `false` at the end. A reset is an end too.
    fn fill(&mut self) -> bool {
        let mut bytes = [0; 65_536];
        match self.stream.read(&mut bytes) {
            Ok(0) => false,
            Ok(read) => {
                self.buffer.extend_from_slice(&bytes[..read]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("reading: {error}"),
        }
    }
}
