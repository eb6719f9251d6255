//! The load generator: one thread, epoll, no allocation per request.
//!
//! It waits with epoll and talks through plain `send` and `recv` rather than through a runtime: a request is then one
//! send, one receive and a share of one wait, with nothing of ours in between. The generator shares its core with the
//! backend on small machines, so what it does not spend is load that the proxy gets. (A ring would save system calls
//! and no CPU: the two relays, which differ in nothing else, cost the same within noise.)
//!
//! Closed loop: each connection sends its next request when it has its answer. Open loop (`--rate`): requests fall due
//! on a fixed schedule and their latency counts from that moment, so a proxy that stalls cannot hide it by slowing the
//! questions down.

mod connection;
mod events;
mod outcome;
mod reader;
mod verdict;

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use self::connection::{Connection, Inbox, Progress};
use self::outcome::{Accounts, Tally};
pub use self::outcome::{Latency, Outcome};
pub use self::reader::Reader;
pub use self::verdict::Wrong;
use crate::clock::monotonic_ns;
use crate::workload::{FIRST_ID, Target, Workload};

#[derive(Args, Debug)]
pub struct DriveArgs {
    /// Where to send requests, numeric address only
    #[arg(long, default_value = "http://127.0.0.1:9001/mcp")]
    pub url: Target,
    #[arg(long, value_enum, default_value = "call")]
    pub workload: Workload,
    #[arg(long, short, default_value_t = 32)]
    pub connections: usize,
    /// Length of the measured window
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Load before the window opens
    #[arg(long, default_value_t = 0.5)]
    pub warmup_seconds: f64,
    /// Open loop: requests a second on a fixed schedule; without it the loop is closed
    #[arg(long)]
    pub rate: Option<f64>,
    /// Processes whose CPU time is divided by the answers of the window; may be repeated
    #[arg(long)]
    pub watch_pid: Vec<u32>,
    /// The backend, to tell its turns on a shared core from those of strangers
    #[arg(long)]
    pub backend_pid: Option<u32>,
}

/// More than one thread can send; a schedule with intervals below a microsecond would only measure that.
const RATE_MAX: f64 = 1e6;
const EVENTS_MAX: usize = 1024;
/// How long the answers still due at the end of the window may take.
const DRAIN: Duration = Duration::from_secs(30);
const IDLE_WAIT: Duration = Duration::from_millis(20);

/// Runs the load, prints one line of JSON, and fails if an answer was wrong.
pub fn run(args: &DriveArgs) -> Result<()> {
    let outcome = Driver::new(args)?.drive()?;
    println!("{}", serde_json::to_string(&outcome)?);
    if let Some(first) = &outcome.first_wrong {
        bail!("{} of {} answers were wrong; the first: {first}", outcome.wrong, outcome.requests + outcome.wrong);
    }
    Ok(())
}

struct Driver<'a> {
    args: &'a DriveArgs,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    /// Connections without a request, for the open loop.
    idle: Vec<usize>,
    spares: Vec<Inbox>,
    next_id: u64,
    schedule: Option<Schedule>,
    /// No more requests are sent.
    stopping: bool,
    tally: Tally,
}

/// The open loop's schedule.
struct Schedule {
    next_ns: u64,
    interval_ns: u64,
}

impl<'a> Driver<'a> {
    fn new(args: &'a DriveArgs) -> Result<Self> {
        ensure!(args.connections > 0, "at least one connection");
        ensure!(args.rate.is_none_or(|rate| rate > 0.0 && rate <= RATE_MAX), "--rate above 0, up to {RATE_MAX}");
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut connections = Vec::with_capacity(args.connections);
        for index in 0..args.connections {
            let connection = Connection::open(&args.url, args.workload)
                .with_context(|| format!("connection {} of {}", index + 1, args.connections))?;
            register(&epoll, &connection, index)?;
            connections.push(connection);
        }
        if args.rate.is_some() {
            // The default slack of 50 µs would be added to every scheduled moment.
            rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))?;
        }
        let schedule = args.rate.map(|rate| Schedule { next_ns: monotonic_ns(), interval_ns: (1e9 / rate) as u64 });
        let idle = (0..args.connections).collect();
        let tally = Tally::new()?;
        let (spares, next_id, stopping) = (Vec::new(), FIRST_ID, false);
        Ok(Driver { args, epoll, connections, idle, spares, next_id, schedule, stopping, tally })
    }

    fn drive(mut self) -> Result<Outcome> {
        self.send_due(monotonic_ns())?;
        self.turn_until(monotonic_ns() + seconds(self.args.warmup_seconds), false)?;

        let unmeasured = self.tally.restart();
        let before = Accounts::read(self.args);
        let opened_ns = monotonic_ns();
        self.turn_until(opened_ns + seconds(self.args.seconds), false)?;
        let window_ns = monotonic_ns() - opened_ns;
        let used = Accounts::read(self.args).since(&before);
        let mut outcome = self.tally.outcome(self.args, window_ns, &used);

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
            if until_idle && !self.connections.iter().any(|connection| connection.busy) {
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
            if self.schedule.is_some() {
                self.send_due(now)?;
            }
        }
        Ok(())
    }

    fn wait_at_most(&self, now: u64) -> Duration {
        match &self.schedule {
            Some(schedule) if !self.idle.is_empty() => Duration::from_nanos(schedule.next_ns.saturating_sub(now)),
            _ => IDLE_WAIT,
        }
    }

    fn on_event(&mut self, index: usize) -> Result<()> {
        let connection = &mut self.connections[index];
        let was_busy = connection.busy;
        let tally = &mut self.tally;
        let mut arrived_ns = None;
        let progress = connection.receive(self.args.workload, &mut self.spares, |sent_ns| {
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
            self.reconnect(index)?;
        }
        if self.schedule.is_some() {
            if was_busy {
                self.idle.push(index);
            }
            Ok(())
        } else {
            self.send(index, now)
        }
    }

    /// Sends what the schedule asks for by now; in a closed loop, the first request of every connection.
    fn send_due(&mut self, now: u64) -> Result<()> {
        while let Some(index) = self.idle.pop() {
            let since = match &mut self.schedule {
                Some(schedule) if schedule.next_ns > now || self.stopping => {
                    self.idle.push(index);
                    return Ok(());
                }
                Some(schedule) => {
                    let due = schedule.next_ns;
                    schedule.next_ns += schedule.interval_ns;
                    due
                }
                None => now,
            };
            self.send(index, since)?;
        }
        Ok(())
    }

    fn send(&mut self, index: usize, since_ns: u64) -> Result<()> {
        if self.stopping {
            return Ok(());
        }
        self.next_id += 1;
        self.tally.sent += 1;
        if self.connections[index].send(self.next_id, since_ns).is_err() {
            // Closed between two requests, which a server may do at any time: once more on a new connection.
            self.reconnect(index)?;
            self.connections[index].send(self.next_id, since_ns)?;
        }
        Ok(())
    }

    fn reconnect(&mut self, index: usize) -> Result<()> {
        self.tally.reconnects += 1;
        self.connections[index].reconnect(&self.args.url)?;
        register(&self.epoll, &self.connections[index], index)
    }
}

/// Edge-triggered: see the epoll relay.
fn register(epoll: &OwnedFd, connection: &Connection, index: usize) -> Result<()> {
    let interest = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
    Ok(epoll::add(epoll, &connection.socket, EventData::new_u64(index as u64), interest)?)
}

fn seconds(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1e9) as u64
}
