//! One client connection: the request it repeats, and the answer it is waiting for.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::events::Events;
use super::reader::Reader;
use super::verdict::{Expected, Wrong, judge};
use crate::http;
use crate::workload::{self, SSE_EVENTS, Target, Template, Workload};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The bytes of one answer. Kept in a stack of spares, so that the one used is nearly always warm in the cache.
pub struct Inbox {
    bytes: Box<[u8]>,
    filled: usize,
}

impl Inbox {
    pub fn new(bytes_max: usize) -> Self {
        Inbox { bytes: vec![0; bytes_max].into_boxed_slice(), filled: 0 }
    }
}

pub struct Connection {
    pub socket: TcpStream,
    target: Target,
    workload: Workload,
    /// One for each part of the workload; `part` is the one that was sent last.
    templates: Vec<Template>,
    part: usize,
    id: u64,
    /// How much of the request has left.
    sent: usize,
    /// When the request was sent, or should have been (open loop).
    pub since_ns: u64,
    /// An answer is awaited.
    pub busy: bool,
    /// Holds an answer that has arrived in part.
    inbox: Option<Inbox>,
    reader: Reader,
    events: Events,
}

/// What a readable socket came to.
pub enum Progress {
    /// The answer is not complete.
    Waiting,
    /// The answer is complete and judged; the connection may carry another request.
    Answered(Result<(), Wrong>),
    /// The answer is complete or never will be, and the connection is of no use any more.
    Ended(Result<(), Wrong>),
}

impl Connection {
    /// Connects, and in the legacy era opens a session.
    pub fn open(target: &Target, workload: Workload, tool: &str) -> Result<Self> {
        let socket = connect(target)?;
        socket.set_nonblocking(false)?;
        // All parts of one workload are of one era.
        let modern = workload.parts()[0].is_modern();
        let session = if modern { None } else { open_session(&socket, target)? };
        socket.set_nonblocking(true)?;
        let template = |part: &Workload| Template::new(*part, target, tool, session.as_deref());
        Ok(Connection {
            socket,
            target: target.clone(),
            workload,
            templates: workload.parts().iter().map(template).collect(),
            part: 0,
            id: 0,
            sent: 0,
            since_ns: 0,
            busy: false,
            inbox: None,
            reader: Reader::default(),
            events: Events::default(),
        })
    }

    /// A new socket for the same client: the session goes on.
    pub fn reconnect(&mut self) -> Result<()> {
        self.socket = connect(&self.target)?;
        self.inbox = None;
        self.busy = false;
        Ok(())
    }

    pub fn send(&mut self, id: u64, herd: u64, since_ns: u64) -> io::Result<()> {
        self.part = (id % self.templates.len() as u64) as usize;
        self.templates[self.part].fill(id, herd);
        self.id = id;
        self.sent = 0;
        self.since_ns = since_ns;
        self.busy = true;
        self.reader = Reader::default();
        self.events = Events::default();
        self.send_rest()
    }

    /// Sends until the request is gone or the socket is full.
    fn send_rest(&mut self) -> io::Result<()> {
        let request = self.templates[self.part].bytes();
        while self.sent < request.len() {
            match (&self.socket).write(&request[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether the socket may be full before the request has left, so that its room has to be waited for.
    pub fn waits_for_room(&self) -> bool {
        self.workload == Workload::Upload1m
    }

    /// Goes on after an event. `on_stamp` gets the sending moment of each event of a stream.
    pub fn advance(&mut self, spares: &mut Vec<Inbox>, on_stamp: impl FnMut(u64)) -> Progress {
        if self.busy && self.waits_for_room() {
            // An error here is one for the receiving half too, or else an answer lies there that explains it.
            let _ = self.send_rest();
        }
        self.receive(spares, on_stamp)
    }

    fn receive(&mut self, spares: &mut Vec<Inbox>, on_stamp: impl FnMut(u64)) -> Progress {
        if !self.busy {
            return self.receive_idle();
        }
        let fresh = || Inbox::new(self.workload.answer_bytes_max());
        let mut inbox = self.inbox.take().or_else(|| spares.pop()).unwrap_or_else(fresh);
        let progress = self.receive_into(&mut inbox, on_stamp);
        if let Progress::Waiting = progress {
            self.inbox = Some(inbox);
        } else {
            self.busy = false;
            inbox.filled = 0;
            spares.push(inbox);
        }
        progress
    }

    fn receive_into(&mut self, inbox: &mut Inbox, mut on_stamp: impl FnMut(u64)) -> Progress {
        loop {
            let space = &mut inbox.bytes[inbox.filled..];
            if space.is_empty() {
                return Progress::Ended(Err(Wrong::TooLong));
            }
            let room = space.len();
            let received = match (&self.socket).read(space) {
                Ok(0) => return Progress::Ended(Err(Wrong::Closed)),
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::Waiting,
                Err(_) => return Progress::Ended(Err(Wrong::Closed)),
            };
            inbox.filled += received;
            let bytes = &mut inbox.bytes[..inbox.filled];
            let complete = match self.reader.advance(bytes) {
                Ok(complete) => complete,
                Err(wrong) => return Progress::Ended(Err(wrong)),
            };
            if self.reader.events {
                self.events.advance(self.reader.body(bytes), &self.expected(), &mut on_stamp);
            }
            if complete {
                let verdict = self.verdict(bytes);
                return if self.reader.close { Progress::Ended(verdict) } else { Progress::Answered(verdict) };
            }
            if received < room {
                // The socket is drained (edge-triggered: more bytes are a new event).
                return Progress::Waiting;
            }
        }
    }

    fn verdict(&self, bytes: &[u8]) -> Result<(), Wrong> {
        let events = if self.workload.parts()[self.part].is_stream() { SSE_EVENTS } else { 0 };
        match self.reader.status() {
            // A proxy may turn a plain answer into a stream of one event, but not a stream into a plain answer.
            200 if self.reader.events => self.events.verdict(events),
            200 if events > 0 => Err(Wrong::Events(0)),
            200 => judge(self.reader.body(bytes), &self.expected()),
            status => Err(Wrong::Status(status)),
        }
    }

    fn expected(&self) -> Expected {
        Expected::of(self.workload.parts()[self.part], self.id)
    }

    /// Bytes without a request are a fault; an end is only an idle connection being closed.
    fn receive_idle(&mut self) -> Progress {
        match (&self.socket).read(&mut [0; 1]) {
            Ok(0) => Progress::Ended(Ok(())),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Progress::Waiting,
            _ => Progress::Ended(Err(Wrong::Malformed)),
        }
    }
}

fn connect(target: &Target) -> Result<TcpStream> {
    let socket = TcpStream::connect(target.address).with_context(|| format!("connect to {}", target.address))?;
    socket.set_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The legacy handshake, blocking: it happens before anything is measured. mcp-gateway gives its clients no session,
/// which a server need not; who loses that of the mock will get no right answer from it.
pub fn open_session(socket: &TcpStream, target: &Target) -> Result<Option<String>> {
    socket.set_read_timeout(Some(HANDSHAKE_TIMEOUT))?;
    let answer = exchange(socket, &workload::initialize(target)).context("initialize")?;
    let session = answer.header("mcp-session-id").map(str::to_owned);
    exchange(socket, &workload::initialized(target, session.as_deref())).context("notifications/initialized")?;
    Ok(session)
}

fn exchange(mut socket: &TcpStream, request: &[u8]) -> Result<http::Answer> {
    socket.write_all(request)?;
    let answer = http::read_answer(&mut socket)?;
    ensure!((200..300).contains(&answer.status), "answered with status {}", answer.status);
    Ok(answer)
}
