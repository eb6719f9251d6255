//! A backend that does as it is told: one script runs for each connection it accepts.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use super::PATIENCE;

/// A scripted backend on a port of its own; dropped, it stops accepting.
pub struct Backend {
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
pub struct Exchange {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Which connection this is, from 0.
    pub connection: usize,
    state: Arc<State>,
    seen: mpsc::Sender<String>,
}

/// A 200 with this JSON body.
pub fn json(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

impl Backend {
    /// Runs the script on a thread of its own for each connection.
    pub fn scripted(script: impl Fn(&mut Exchange) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
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
    pub fn always(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::scripted(move |exchange| while exchange.request().is_some() && exchange.send(&answer) {})
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Requests read whole so far.
    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Waits for the next request that a script has read: head and body as they came.
    pub fn next_request(&self) -> String {
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
    /// Reads one request with its body; `None` when the connection has ended before it.
    pub fn request(&mut self) -> Option<String> {
        let head_end = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end + 4;
            }
            self.fill()?;
        };
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
    pub fn read_some(&mut self) -> Option<Vec<u8>> {
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
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Waits until the other side ends the connection.
    pub fn wait_for_end(&mut self) {
        while self.fill().is_some() {}
    }

    /// Ends the connection.
    pub fn close(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}
