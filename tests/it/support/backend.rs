//! A backend that does as it is told: one script runs for each connection it accepts.

use std::fmt::Display;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::places::{BlackHole, Reserved};
use super::{PATIENCE, find, take};

/// A scripted backend on a port of its own; dropped, it stops accepting.
pub(crate) struct Backend {
    address: SocketAddr,
    state: Arc<State>,
    requests: mpsc::Receiver<String>,
}

struct State {
    stopped: AtomicBool,
    connections: AtomicUsize,
    requests: AtomicUsize,
}

/// One connection to the backend, as its script sees it.
pub(crate) struct Exchange {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
    /// Which connection this is, from 0.
    pub(crate) connection: usize,
    state: Arc<State>,
    seen: mpsc::Sender<String>,
}

/// Head of a chunked stream of events.
pub(crate) const EVENT_STREAM: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// An event.
pub(crate) fn event(data: impl Display) -> String {
    format!("event: message\ndata: {data}\n\n")
}

/// A chunk.
pub(crate) fn chunk(payload: &str) -> String {
    format!("{:x}\r\n{payload}\r\n", payload.len())
}

/// Ends a chunked body.
pub(crate) const LAST_CHUNK: &str = "0\r\n\r\n";

/// A 200 with this JSON body.
pub(crate) fn json(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

impl Backend {
    /// Runs the script on a thread of its own for each connection.
    pub(crate) fn scripted(script: impl Fn(&mut Exchange) + Send + Sync + 'static) -> Self {
        Self::over(TcpListener::bind("127.0.0.1:0").unwrap(), script)
    }

    /// Comes up at an address that refused connections so far.
    pub(crate) fn at(place: Reserved, script: impl Fn(&mut Exchange) + Send + Sync + 'static) -> Self {
        Self::over(place.listen(), script)
    }

    /// Comes up at an address where connecting hung so far.
    pub(crate) fn in_place_of(place: BlackHole, script: impl Fn(&mut Exchange) + Send + Sync + 'static) -> Self {
        Self::over(place.listen(), script)
    }

    fn over(listener: TcpListener, script: impl Fn(&mut Exchange) + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            stopped: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
        });
        let (seen, requests) = mpsc::channel();
        let (shared, script) = (Arc::clone(&state), Arc::new(script));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let connection = shared.connections.fetch_add(1, Ordering::SeqCst);
                let stream = stream.unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.set_write_timeout(Some(PATIENCE)).unwrap();
                stream.set_nodelay(true).unwrap();
                let (script, state, seen) = (Arc::clone(&script), Arc::clone(&shared), seen.clone());
                thread::spawn(move || script(&mut Exchange { stream, buffer: Vec::new(), connection, state, seen }));
            }
        });
        Self { address, state, requests }
    }

    /// Answers every request on every connection with these bytes.
    pub(crate) fn always(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::scripted(move |exchange| while exchange.request().is_some() && exchange.send(&answer) {})
    }

    /// Answers one request on each connection and ends it.
    pub(crate) fn always_then_close(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::scripted(move |exchange| {
            if exchange.request().is_some() {
                exchange.send(&answer);
            }
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Requests read whole so far.
    pub(crate) fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Requests that scripts have read and nobody has taken yet.
    pub(crate) fn waiting_requests(&self) -> Vec<String> {
        self.requests.try_iter().collect()
    }

    /// Waits until none has come for that long: how many came since requests were last taken.
    pub(crate) fn requests_until_quiet_for(&self, pause: Duration) -> usize {
        std::iter::from_fn(|| self.requests.recv_timeout(pause).ok()).count()
    }

    /// Waits for the next request that a script has read: head and body as they came.
    pub(crate) fn next_request(&self) -> String {
        self.requests.recv_timeout(PATIENCE).expect("a request at the backend")
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        // Wakes the accepting thread to see it.
        let _ = TcpStream::connect(self.address);
    }
}

impl Exchange {
    /// Reads the head of a request, and no more than came with it.
    pub(crate) fn head(&mut self) -> Option<String> {
        let end = self.head_end()?;
        Some(String::from_utf8_lossy(&self.buffer.drain(..end).collect::<Vec<u8>>()).into_owned())
    }

    fn head_end(&mut self) -> Option<usize> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                return Some(end + 4);
            }
            self.fill()?;
        }
    }

    /// Reads that many bytes.
    pub(crate) fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            self.fill()?;
        }
        Some(take(&mut self.buffer, length))
    }

    /// Reads one request with its body; `None` when the connection has ended before it.
    pub(crate) fn request(&mut self) -> Option<String> {
        let head_end = self.head_end()?;
        let head = String::from_utf8_lossy(&self.buffer[..head_end]).into_owned();
        let field = |name: &str| {
            head.lines().find_map(|line| {
                let (key, value) = line.split_once(": ")?;
                key.eq_ignore_ascii_case(name).then(|| value.to_owned())
            })
        };
        let end = if field("transfer-encoding").is_some() {
            loop {
                if let Some(end) = find(&self.buffer[head_end..], b"0\r\n\r\n") {
                    break head_end + end + 5;
                }
                self.fill()?;
            }
        } else {
            let end = head_end + field("content-length").map_or(0, |length| length.parse::<usize>().unwrap());
            while self.buffer.len() < end {
                self.fill()?;
            }
            end
        };
        let request = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end);
        self.state.requests.fetch_add(1, Ordering::SeqCst);
        // The test may have ended without looking.
        let _ = self.seen.send(request.clone());
        Some(request)
    }

    /// Bytes that came and no request has used, after reading once if there are none.
    pub(crate) fn read_some(&mut self) -> Option<Vec<u8>> {
        if self.buffer.is_empty() {
            self.fill()?;
        }
        Some(std::mem::take(&mut self.buffer))
    }

    fn fill(&mut self) -> Option<()> {
        let mut bytes = [0; 65_536];
        match self.stream.read(&mut bytes) {
            Ok(0) | Err(_) => None,
            Ok(read) => {
                self.buffer.extend_from_slice(&bytes[..read]);
                Some(())
            }
        }
    }

    /// `false` when the other side has gone.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Waits until the other side ends the connection.
    pub(crate) fn wait_for_end(&mut self) {
        while self.fill().is_some() {}
    }

    /// Ends the connection.
    pub(crate) fn close(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// More than the kernel's buffers hold, by far.
pub(crate) const FLOOD: usize = 1 << 30;

/// A peer that takes nothing for that long has stopped reading, for all that most tests care.
pub(crate) const STALL: Duration = Duration::from_millis(700);

/// Writes `bytes` again and again, of which `sent` are written already, until the other side takes no more for
/// that long, or all of [`FLOOD`]: how many it has taken then. A machine that stands still for a while looks the
/// same, and makes the number smaller.
pub(crate) fn send_until_stalled(stream: &mut TcpStream, bytes: &[u8], mut sent: usize, stall: Duration) -> usize {
    stream.set_write_timeout(Some(stall)).unwrap();
    while sent < FLOOD
        && let Ok(taken) = stream.write(&bytes[sent % bytes.len()..])
    {
        sent += taken;
    }
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    sent
}
