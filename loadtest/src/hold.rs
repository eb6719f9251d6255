//! Clients that do nothing: what does a proxy keep for each?
//!
//! Each client is a connection with one request behind it, or an event stream on which nothing comes. They come from
//! many addresses of 127.0.0.0/8, so that ports do not run out and a limit per client address is not met.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use serde::{Deserialize, Serialize};

use crate::drive::{Events, Expected, Reader, Wrong, judge, open_session};
use crate::http;
use crate::launch::raise_open_files;
use crate::memory::Resident;
use crate::workload::{FIRST_HERD, FIRST_ID, TOOL, Target, Template, Workload, open_stream};

#[derive(Args, Debug)]
pub struct HoldArgs {
    /// Where to connect to, numeric address only
    #[arg(long, default_value = "http://127.0.0.1:9001/mcp")]
    pub url: Target,
    #[arg(long, short, default_value_t = 2000)]
    pub connections: usize,
    /// The tool to call, if a proxy offers it under another name
    #[arg(long, default_value = TOOL)]
    pub tool: String,
    /// Open event streams rather than connections between two requests
    #[arg(long)]
    pub streams: bool,
    /// Processes whose memory is watched; may be repeated
    #[arg(long)]
    pub watch_pid: Vec<u32>,
}

/// The line a run ends with.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Held {
    pub connections: usize,
    pub streams: bool,
    /// Resident memory of the watched processes before, and with all connections idle, bytes.
    pub before_bytes: u64,
    pub with_all_bytes: u64,
    pub per_connection_bytes: f64,
}

/// Connections opened and closed first, so that what is made once and kept is not counted.
const WARM_UP_CONNECTIONS: usize = 64;
const CONNECTIONS_PER_ADDRESS: usize = 500;
/// For buffers to be given back, and for sockets to be closed.
const SETTLE: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_secs(10);

/// Opens all, looks at the memory, and fails unless every connection is still of use.
pub fn run(args: &HoldArgs) -> Result<()> {
    let files = raise_open_files()?;
    ensure!(
        args.connections as u64 + 50 <= files,
        "{} connections need more than {files} open files",
        args.connections
    );
    drop(Clients::open(args, args.connections.min(WARM_UP_CONNECTIONS))?);
    std::thread::sleep(SETTLE);

    let before_bytes = Resident::of(&args.watch_pid).now;
    let mut clients = Clients::open(args, args.connections)?;
    std::thread::sleep(SETTLE);
    let with_all_bytes = Resident::of(&args.watch_pid).now;
    clients.check()?;

    let grown = with_all_bytes.saturating_sub(before_bytes) as f64;
    let held = Held {
        connections: args.connections,
        streams: args.streams,
        before_bytes,
        with_all_bytes,
        per_connection_bytes: grown / args.connections as f64,
    };
    println!("{}", serde_json::to_string(&held)?);
    Ok(())
}

struct Clients {
    sockets: Vec<TcpStream>,
    streams: bool,
    request: Template,
}

impl Clients {
    fn open(args: &HoldArgs, count: usize) -> Result<Self> {
        // One session for all: what is asked is what a connection costs, and not what a session costs.
        let session = open_session(&connect_from(0, &args.url)?, &args.url)?;
        let request = Template::new(Workload::Call, &args.url, &args.tool, session.as_deref());
        let mut clients = Clients { sockets: Vec::with_capacity(count), streams: args.streams, request };
        let stream = open_stream(&args.url, session.as_deref());
        for index in 0..count {
            let opened = connect_from(index, &args.url).and_then(|mut socket| {
                if args.streams {
                    socket.write_all(&stream)?;
                    read_stream_head(&mut socket)?;
                } else {
                    clients.call(&mut socket)?;
                }
                Ok(socket)
            });
            clients.sockets.push(opened.with_context(|| format!("connection {} of {count}", index + 1))?);
        }
        Ok(clients)
    }

    fn call(&mut self, socket: &mut TcpStream) -> Result<()> {
        self.request.fill(FIRST_ID, FIRST_HERD);
        socket.write_all(self.request.bytes())?;
        let answer = http::read_answer(socket)?;
        ensure!(answer.status == 200, "{}", Wrong::Status(answer.status));
        let expected = Expected::of(Workload::Call, FIRST_ID);
        let verdict = if answer.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")) {
            let mut events = Events::default();
            events.advance(&answer.body, &expected, |_| {});
            events.verdict(0)
        } else {
            judge(&answer.body, &expected)
        };
        verdict.map_err(|wrong| anyhow::anyhow!("{wrong}"))
    }

    /// Each connection must take another request, and each stream must be open.
    fn check(&mut self) -> Result<()> {
        for index in 0..self.sockets.len() {
            let mut socket = self.sockets[index].try_clone()?;
            let usable = if self.streams { is_silent(&mut socket) } else { self.call(&mut socket) };
            usable.with_context(|| format!("connection {} was not kept", index + 1))?;
        }
        Ok(())
    }
}

/// A connection whose source address depends on its index.
fn connect_from(index: usize, target: &Target) -> Result<TcpStream> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    if target.address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
        let group = index / CONNECTIONS_PER_ADDRESS;
        let source = Ipv4Addr::new(127, 0, (group / 250) as u8, 2 + (group % 250) as u8);
        bind(&socket, &SocketAddr::from((source, 0)))?;
    }
    connect(&socket, &target.address).with_context(|| format!("connect to {}", target.address))?;
    let socket = TcpStream::from(socket);
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    Ok(socket)
}

/// The head must be that of an event stream.
fn read_stream_head(socket: &mut TcpStream) -> Result<()> {
    let (mut reader, mut answer, mut piece) = (Reader::default(), Vec::new(), [0; 4096]);
    while !reader.events {
        let received = socket.read(&mut piece).context("no event stream")?;
        answer.extend_from_slice(&piece[..received]);
        let complete = reader.advance(&mut answer).map_err(|wrong| anyhow::anyhow!("{wrong}"))?;
        ensure!(matches!(reader.status(), 0 | 200), "{}", Wrong::Status(reader.status()));
        ensure!(!complete && received > 0, "the event stream was ended, or is none");
    }
    Ok(())
}

/// Open, and nothing to read but what keeps it open.
fn is_silent(socket: &mut TcpStream) -> Result<()> {
    socket.set_nonblocking(true)?;
    loop {
        match socket.read(&mut [0; 4096]) {
            Ok(0) => bail!("the event stream was ended"),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
