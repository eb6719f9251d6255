//! The worker threads: started, pinned, given their sockets, started again when they end.

use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ahash::RandomState;
use crossbeam_channel::bounded;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::SigSet;
use nix::unistd::Pid;

use super::backoff::Backoff;
use super::driver::Driver;
use super::{Hooks, listen};
use crate::clock;
use crate::coalesce::FlightId;
use crate::control::{BoundListener, Fleet, HandedSocket, Place, Plane};
use crate::seam::{AccessLines, Command, Peers, SnapshotCell, WorkerHandle, mailbox};
use crate::worker;

/// The worker threads.
pub(super) struct Workers {
    pub(super) count: usize,
    /// Cores this process may use.
    cores: Vec<usize>,
    driver: Driver,
    cell: Arc<SnapshotCell>,
    access: AccessLines,
    hooks: Hooks,
    listeners: Vec<BoundListener>,
    seats: Vec<Seat>,
    /// How workers reach each other.
    peers: Arc<Peers>,
    hasher: RandomState,
    /// Workers started so far, those that ended included.
    started: Cell<u64>,
}

struct Seat {
    handle: WorkerHandle,
    thread: JoinHandle<io::Result<()>>,
    backoff: Backoff,
}

impl Seat {
    /// Has the worker look at what is in force, and at who else there is.
    fn refresh(&self) {
        // A new worker's mailbox is empty; one that has ended is started again.
        let _ = self.handle.send(Command::Refresh);
    }
}

/// Bits of a flight's number that count those of one worker: more than it sees in its life. The others
/// tell workers apart, those that took another's place too.
const FLIGHTS_BITS: u32 = 40;

impl Workers {
    pub(super) fn new(
        count: usize,
        driver: Driver,
        cell: Arc<SnapshotCell>,
        access: AccessLines,
        hooks: Hooks,
    ) -> io::Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        let cores: Vec<usize> = (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or(false)).collect();
        let count = if count == 0 { cores.len().max(1) } else { count };
        Ok(Self {
            count,
            cores,
            driver,
            cell,
            access,
            hooks,
            listeners: Vec::new(),
            seats: Vec::new(),
            peers: Arc::default(),
            hasher: RandomState::new(),
            started: Cell::new(0),
        })
    }

    /// Starts all workers and waits until the loop of each runs: what follows is believed.
    pub(super) fn start_all(&mut self) -> io::Result<()> {
        for index in 0..self.count {
            let (handle, thread) = self.start(index)?;
            self.seats.push(Seat { handle, thread, backoff: Backoff::started(clock::now()) });
        }
        let deadline = clock::now() + START_TIMEOUT;
        for index in 0..self.count {
            let (reply, answered) = bounded(1);
            // One that has ended refuses the command, or keeps it with its mailbox: its thread tells.
            drop(self.seats[index].handle.send(Command::Stats(reply)));
            while answered.recv_timeout(START_LOOK).is_err() {
                if self.seats[index].thread.is_finished() || clock::now() >= deadline {
                    return Err(self.not_started(index));
                }
            }
        }
        self.peers.publish(self.workers());
        self.seats.iter().for_each(Seat::refresh);
        Ok(())
    }

    fn not_started(&mut self, index: usize) -> io::Error {
        let thread = self.seats.swap_remove(index).thread;
        if !thread.is_finished() {
            return io::Error::new(io::ErrorKind::TimedOut, format!("worker {index} does not answer"));
        }
        match thread.join() {
            Ok(Err(error)) => error,
            _ => io::Error::other(format!("worker {index} ended while it was started")),
        }
    }

    /// Starts one worker, pinned to a core of its own while there are cores.
    fn start(&self, index: usize) -> io::Result<(WorkerHandle, JoinHandle<io::Result<()>>)> {
        let (handle, mailbox) = mailbox()?;
        let first_flight = self.next_flight();
        self.started.set(self.started.get() + 1);
        let start = worker::Start {
            index,
            cell: Arc::clone(&self.cell),
            mailbox,
            // Duplicates: should it die, what waits in their queues is there for its successor.
            listeners: sockets_of(&self.listeners, index)?,
            access: self.access.clone(),
            hooks: self.hooks,
            peers: Arc::clone(&self.peers),
            first_flight,
            hasher: self.hasher.clone(),
        };
        let driver = self.driver;
        let core = self.cores.get(index % self.cores.len().max(1)).copied();
        let builder = thread::Builder::new().name(format!("ringway-{index}")).stack_size(STACK_BYTES);
        let thread = builder.spawn(move || {
            // Signals are control's; one that interrupted the event loop would be taken for a failure.
            let _ = SigSet::all().thread_block();
            if let Some(core) = core {
                pin(core);
            }
            driver
                .block_on(worker::run(start))
                .and_then(|ended| ended)
                .inspect_err(|error| tracing::error!(worker = index, %error, "worker failed"))
        })?;
        Ok((handle, thread))
    }

    /// The number of the first flight of the worker that is started next.
    fn next_flight(&self) -> FlightId {
        FlightId(self.started.get() << FLIGHTS_BITS)
    }
}

fn sockets_of(listeners: &[BoundListener], worker: usize) -> io::Result<Vec<(SocketAddr, TcpListener)>> {
    let mut sockets = Vec::new();
    for listener in listeners {
        sockets.extend(listener.of_worker(worker)?);
    }
    Ok(sockets)
}

/// For a worker to answer for the first time: it sets up its event loop before.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Between looks at whether it has ended instead.
const START_LOOK: Duration = Duration::from_millis(10);

/// Address space, not memory. The JSON parser skips nested values by recursion: 64 levels, the most we
/// let it see, take 16 KiB in a release build and over 2 MiB in a debug build.
const STACK_BYTES: usize = 8 << 20;

/// Keeps the current thread on one core. Where that is not allowed it runs where it may.
fn pin(core: usize) {
    let mut set = CpuSet::new();
    if set.set(core).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set)).is_err() {
        tracing::warn!(core, "cannot pin a worker to its core");
    }
}

impl Fleet for Workers {
    fn workers(&self) -> Vec<WorkerHandle> {
        self.seats.iter().map(|seat| seat.handle.clone()).collect()
    }

    fn bind(&self, address: SocketAddr) -> io::Result<BoundListener> {
        listen::bind_all(address, self.count)
    }

    fn adopt(&mut self, listeners: Vec<BoundListener>) -> io::Result<()> {
        let sockets: io::Result<Vec<_>> = (0..self.seats.len()).map(|index| sockets_of(&listeners, index)).collect();
        let listening = listeners.iter().try_for_each(listen::listen);
        self.listeners.extend(listeners);
        listening?;
        for (index, (seat, sockets)) in self.seats.iter().zip(sockets?).enumerate() {
            if seat.handle.send(Command::Listen(sockets)).is_err() {
                tracing::warn!(worker = index, "a worker takes no commands");
            }
        }
        Ok(())
    }

    fn sockets(&self) -> io::Result<Vec<HandedSocket>> {
        let all = self.listeners.iter().flat_map(|listener| {
            let place = Place { plane: Some(Plane::Data), address: listener.address };
            listener.own.iter().chain(&listener.shared).map(move |socket| Ok((place, socket.try_clone()?)))
        });
        all.collect()
    }

    fn release(&mut self, address: SocketAddr) {
        self.listeners.retain(|listener| listener.address != address);
        for seat in &self.seats {
            // A worker that takes no commands has ended, and its successor does not listen there.
            let _ = seat.handle.send(Command::Unlisten(vec![address]));
        }
    }

    fn release_all(&mut self) {
        self.listeners.clear();
    }

    fn supervise(&mut self) -> Vec<usize> {
        let now = clock::now();
        let mut restarted = Vec::new();
        for index in 0..self.seats.len() {
            let seat = &mut self.seats[index];
            if !seat.thread.is_finished() || !seat.backoff.may_start(now) {
                continue;
            }
            seat.backoff.has_started(now);
            let successor = self.next_flight();
            match self.start(index) {
                Ok((handle, thread)) => {
                    let seat = &mut self.seats[index];
                    (seat.handle, seat.thread) = (handle, thread);
                    self.peers.publish(self.workers());
                    self.seats[index].refresh();
                    // Requests of other workers may wait for what this one would have said.
                    for seat in &self.seats {
                        let _ = seat.handle.send(Command::PeerEnded { worker: index, successor });
                    }
                    restarted.push(index);
                }
                Err(error) => tracing::error!(worker = index, %error, "cannot start a worker again"),
            }
        }
        restarted
    }

    fn drained(&mut self) -> bool {
        self.seats.iter().all(|seat| seat.thread.is_finished())
    }

    fn io_driver(&self) -> &'static str {
        self.driver.label()
    }
}
