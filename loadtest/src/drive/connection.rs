//! One client connection: the request it repeats, and the answer it is waiting for.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::events::Events;
use super::reader::Reader;
use super::verdict::{Wrong, judge};
use crate::http;
use crate::workload::{self, SSE_EVENTS, Target, Template, Workload, id_digits};

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
    template: Template,
    id: u64,
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
    pub fn open(target: &Target, workload: Workload) -> Result<Self> {
        let socket = connect(target)?;
        socket.set_nonblocking(false)?;
        let session = if workload.is_modern() { None } else { Some(open_session(&socket, target)?) };
        socket.set_nonblocking(true)?;
        let template = Template::new(workload, target, session.as_deref());
        let (reader, events) = Default::default();
        Ok(Connection { socket, template, id: 0, since_ns: 0, busy: false, inbox: None, reader, events })
    }

    /// A new socket for the same client: the session goes on.
    pub fn reconnect(&mut self, target: &Target) -> Result<()> {
        self.socket = connect(target)?;
        self.inbox = None;
        self.busy = false;
        Ok(())
    }

    pub fn send(&mut self, id: u64, since_ns: u64) -> io::Result<()> {
        self.id = id;
        self.since_ns = since_ns;
        self.busy = true;
        self.reader = Reader::default();
        self.events = Events::default();
        // A request is a few hundred bytes and the socket is idle: it is taken whole or the connection is broken.
        let request = self.template.with_id(id);
        match (&self.socket).write(request)? {
            sent if sent == request.len() => Ok(()),
            _ => Err(ErrorKind::WriteZero.into()),
        }
    }

    /// Receives what is there. `on_stamp` gets the sending moment of each event.
    pub fn receive(&mut self, workload: Workload, spares: &mut Vec<Inbox>, on_stamp: impl FnMut(u64)) -> Progress {
        if !self.busy {
            return self.receive_idle();
        }
        let fresh = || Inbox::new(workload.answer_bytes_max());
        let mut inbox = self.inbox.take().or_else(|| spares.pop()).unwrap_or_else(fresh);
        let progress = self.receive_into(&mut inbox, workload, on_stamp);
        if let Progress::Waiting = progress {
            self.inbox = Some(inbox);
        } else {
            self.busy = false;
            inbox.filled = 0;
            spares.push(inbox);
        }
        progress
    }

    fn receive_into(&mut self, inbox: &mut Inbox, workload: Workload, mut on_stamp: impl FnMut(u64)) -> Progress {
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
            if workload.is_stream() {
                self.events.advance(self.reader.body(bytes), &id_digits(self.id), &mut on_stamp);
            }
            if complete {
                let verdict = self.verdict(bytes, workload);
                return if self.reader.close { Progress::Ended(verdict) } else { Progress::Answered(verdict) };
            }
            if received < room {
                // The socket is drained (edge-triggered: more bytes are a new event).
                return Progress::Waiting;
            }
        }
    }

    fn verdict(&self, bytes: &[u8], workload: Workload) -> Result<(), Wrong> {
        match self.reader.status() {
            200 if workload.is_stream() => self.events.verdict(SSE_EVENTS),
            200 => judge(self.reader.body(bytes), &id_digits(self.id), workload.body_bytes_min()),
            status => Err(Wrong::Status(status)),
        }
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

/// The legacy handshake, blocking: it happens before anything is measured.
fn open_session(socket: &TcpStream, target: &Target) -> Result<String> {
    socket.set_read_timeout(Some(HANDSHAKE_TIMEOUT))?;
    let answer = exchange(socket, &workload::initialize(target)).context("initialize")?;
    let session = answer
        .header("mcp-session-id")
        .with_context(|| format!("initialize was answered without a session:\n{}", answer.head))?
        .to_owned();
    exchange(socket, &workload::initialized(target, &session)).context("notifications/initialized")?;
    Ok(session)
}

fn exchange(mut socket: &TcpStream, request: &[u8]) -> Result<http::Answer> {
    socket.write_all(request)?;
    let answer = http::read_answer(&mut socket)?;
    ensure!((200..300).contains(&answer.status), "answered with\n{}", answer.head);
    Ok(answer)
}
