//! The load generator: one thread, epoll, no allocation per request.
//!
//! It waits with epoll and talks through plain `send` and `recv` rather than through a runtime: a request is then one
//! send, one receive and a share of one wait, with nothing of ours in between. The generator shares its core with the
//! backend on small machines, so what it does not spend is load that the proxy gets. (A ring would save system calls
//! and no CPU: the two relays, which differ in nothing else, cost the same within noise.)
//!
//! Closed loop: each connection sends its next request when it has its answer. Open loop (`--rate`): requests fall due
//! on a fixed schedule and their latency counts from that moment, so a proxy that stalls cannot hide it by slowing the
//! questions down. Herd: all connections send at once, and again when the last has its answer.

mod connection;
mod events;
mod outcome;
mod reader;
mod syscalls;
mod verdict;

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

pub use self::connection::open_session;
use self::connection::{Connection, Inbox, Progress};
pub use self::events::Events;
use self::outcome::{Accounts, Tally};
pub use self::outcome::{Latency, Outcome};
pub use self::reader::Reader;
pub use self::syscalls::Counter;
use self::syscalls::Counting;
pub use self::verdict::{Expected, Wrong, judge};
use crate::clock::monotonic_ns;
use crate::launch::raise_open_files;
use crate::workload::{FIRST_HERD, FIRST_ID, TOOL, Target, Workload};

#[derive(Args, Debug)]
pub struct DriveArgs {
    /// Where to send requests, numeric address only; if given several times, connections take them in turn
    #[arg(long, default_value = "http://127.0.0.1:9001/mcp")]
    pub url: Vec<Target>,
    #[arg(long, value_enum, default_value = "call")]
    pub workload: Workload,
    #[arg(long, short, default_value_t = 32)]
    pub connections: usize,
    /// The tool to call, if a proxy offers it under another name
    #[arg(long, default_value = TOOL)]
    pub tool: String,
    /// Length of the measured window
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Load before the window opens
    #[arg(long, default_value_t = 0.5)]
    pub warmup_seconds: f64,
    /// Stop after so many requests, and with the last answer; `--seconds` is the longest it may take then
    #[arg(long)]
    pub requests: Option<u64>,
    /// Open loop: requests a second on a fixed schedule; without it the loop is closed
    #[arg(long)]
    pub rate: Option<f64>,
    /// Processes whose CPU time is divided by the answers of the window; may be repeated
    #[arg(long)]
    pub watch_pid: Vec<u32>,
    /// The backend, to tell its turns on a shared core from those of strangers
    #[arg(long)]
    pub backend_pid: Option<u32>,
    /// Count the system calls of the watched processes
    #[arg(long, value_enum, requires = "watch_pid")]
    pub count_syscalls: Option<Counter>,
}

/// More than one thread can send; a schedule with intervals below a microsecond would only measure that.
const RATE_MAX: f64 = 1e6;
const EVENTS_MAX: usize = 1024;
/// How long the answers still due at the end of the window may take.
const DRAIN: Duration = Duration::from_secs(30);
const IDLE_WAIT: Duration = Duration::from_millis(20);

/// Runs the load, prints one line of JSON, and fails if an answer was wrong.
pub fn run(args: &DriveArgs) -> Result<()> {
    let outcome = drive(args)?;
    println!("{}", serde_json::to_string(&outcome)?);
    if let Some(first) = &outcome.first_wrong {
        bail!("{} of {} answers were wrong; the first: {first}", outcome.wrong, outcome.requests + outcome.wrong);
    }
    Ok(())
}

/// Runs the load.
pub fn drive(args: &DriveArgs) -> Result<Outcome> {
    raise_open_files()?;
    Driver::new(args)?.drive()
}

struct Driver<'a> {
    args: &'a DriveArgs,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    /// Connections without a request, unless the loop is closed.
    idle: Vec<usize>,
    spares: Vec<Inbox>,
    next_id: u64,
    herd: u64,
    pace: Pace,
    /// The window is closed.
    stopping: bool,
    tally: Tally,
}

/// When a connection sends its next request.
enum Pace {
    /// As soon as it has its answer.
    Closed,
    /// When one falls due.
    Open { next_ns: u64, interval_ns: u64 },
    /// When all have their answers.
    Herd,
}

impl<'a> Driver<'a> {
    fn new(args: &'a DriveArgs) -> Result<Self> {
        ensure!(args.connections > 0, "at least one connection");
        ensure!(args.rate.is_none_or(|rate| rate > 0.0 && rate <= RATE_MAX), "--rate above 0, up to {RATE_MAX}");
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut connections = Vec::with_capacity(args.connections);
        for index in 0..args.connections {
            let url = &args.url[index % args.url.len()];
            let connection = Connection::open(url, args.workload, &args.tool)
                .with_context(|| format!("connection {} of {}", index + 1, args.connections))?;
            register(&epoll, &connection, index)?;
            connections.push(connection);
        }
        if args.rate.is_some() {
            // The default slack of 50 µs would be added to every scheduled moment.
            rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))?;
        }
        let pace = match args.rate {
            Some(rate) => Pace::Open { next_ns: monotonic_ns(), interval_ns: (1e9 / rate) as u64 },
            None if args.workload == Workload::Herd => Pace::Herd,
            None => Pace::Closed,
        };
        Ok(Driver {
            args,
            epoll,
            idle: (0..connections.len()).collect(),
            connections,
            spares: Vec::new(),
            next_id: FIRST_ID,
            herd: FIRST_HERD,
            pace,
            stopping: false,
            tally: Tally::new()?,
        })
    }

    fn drive(mut self) -> Result<Outcome> {
        self.send_due(monotonic_ns())?;
        self.turn_until(monotonic_ns() + seconds(self.args.warmup_seconds), false)?;

        let counting =
            self.args.count_syscalls.map(|counter| Counting::attach(counter, &self.args.watch_pid)).transpose()?;
        let unmeasured = self.tally.restart();
        let before = Accounts::read(self.args);
        let opened_ns = monotonic_ns();
        self.turn_until(opened_ns + seconds(self.args.seconds), self.args.requests.is_some())?;
        let window_ns = monotonic_ns() - opened_ns;
        let used = Accounts::read(self.args).since(&before);
        let mut outcome = self.tally.outcome(self.args, window_ns, &used);
        if let Some(counting) = counting {
            outcome.add_syscalls(counting.finish()?);
        }

        // The rest is not measured, but a request that is never answered is a fault of the run.
        self.tally.restart();
        self.stopping = true;
        self.turn_until(monotonic_ns() + DRAIN.as_nanos() as u64, true)?;
        for _ in self.connections.iter().filter(|connection| connection.busy) {
            self.tally.wrong(Wrong::NoAnswer);
        }
        outcome.add_unmeasured(&unmeasured, &self.tally);
        Ok(outcome)
    }

    /// Handles events until `end_ns`, or until no answer is awaited if that is all that is wanted.
    fn turn_until(&mut self, end_ns: u64, until_idle: bool) -> Result<()> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let mut now = monotonic_ns();
        while now < end_ns {
            if until_idle && self.is_over() && !self.connections.iter().any(|connection| connection.busy) {
                return Ok(());
            }
            let timeout = Timespec::try_from(self.wait_at_most(now).min(Duration::from_nanos(end_ns - now)))?;
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in events.drain(..) {
                self.on_event(event.data.u64() as usize)?;
            }
            now = monotonic_ns();
            if let Pace::Open { .. } = self.pace {
                self.send_due(now)?;
            }
        }
        Ok(())
    }

    fn wait_at_most(&self, now: u64) -> Duration {
        match &self.pace {
            Pace::Open { next_ns, .. } if !self.idle.is_empty() => Duration::from_nanos(next_ns.saturating_sub(now)),
            _ => IDLE_WAIT,
        }
    }

    fn on_event(&mut self, index: usize) -> Result<()> {
        let connection = &mut self.connections[index];
        let was_busy = connection.busy;
        let tally = &mut self.tally;
        let mut arrived_ns = None;
        let progress = connection.advance(&mut self.spares, |sent_ns| {
            tally.event(arrived_ns.get_or_insert_with(monotonic_ns).saturating_sub(sent_ns));
        });
        let (verdict, ended) = match progress {
            Progress::Waiting => return Ok(()),
            Progress::Answered(verdict) => (verdict, false),
            Progress::Ended(verdict) => (verdict, true),
        };
        let now = monotonic_ns();
        match verdict {
            Ok(()) if was_busy => tally.answer(now - connection.since_ns),
            Ok(()) => {}
            Err(wrong) => tally.wrong(wrong),
        }
        if ended {
            self.tally.reconnects += 1;
            self.reconnect(index)?;
        }
        if let Pace::Closed = self.pace {
            return self.send(index, now);
        }
        if was_busy {
            self.idle.push(index);
        }
        if let Pace::Herd = self.pace
            && self.idle.len() == self.connections.len()
        {
            self.herd += 1;
            self.send_due(now)?;
        }
        Ok(())
    }

    /// Sends what falls due by now: everything, unless the loop is open.
    fn send_due(&mut self, now: u64) -> Result<()> {
        while !self.stopping && !self.idle.is_empty() {
            let mut since = now;
            if let Pace::Open { next_ns, interval_ns } = &mut self.pace {
                if *next_ns > now {
                    break;
                }
                since = *next_ns;
                *next_ns += *interval_ns;
            }
            let index = self.idle.pop().expect("just asked");
            self.send(index, since)?;
        }
        Ok(())
    }

    fn send(&mut self, index: usize, since_ns: u64) -> Result<()> {
        if self.is_over() {
            return Ok(());
        }
        self.next_id += 1;
        self.tally.sent += 1;
        if self.args.workload == Workload::Connect {
            self.reconnect(index)?;
        }
        if self.connections[index].send(self.next_id, self.herd, since_ns).is_err() {
            // Closed between two requests, which a server may do at any time: once more on a new connection.
            self.tally.reconnects += 1;
            self.reconnect(index)?;
            self.connections[index].send(self.next_id, self.herd, since_ns)?;
        }
        Ok(())
    }

    /// No more requests are sent.
    fn is_over(&self) -> bool {
        self.stopping || self.args.requests.is_some_and(|requests| self.next_id - FIRST_ID >= requests)
    }

    fn reconnect(&mut self, index: usize) -> Result<()> {
        self.connections[index].reconnect()?;
        register(&self.epoll, &self.connections[index], index)
    }
}

/// Edge-triggered: see the epoll relay.
fn register(epoll: &OwnedFd, connection: &Connection, index: usize) -> Result<()> {
    let mut interest = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
    interest.set(EventFlags::OUT, connection.waits_for_room());
    Ok(epoll::add(epoll, &connection.socket, EventData::new_u64(index as u64), interest)?)
}

fn seconds(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1e9) as u64
}
