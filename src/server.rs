//! Start and stop: bind, one worker a core, one control thread, wait.

mod driver;

use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use ahash::RandomState;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::SigSet;
use nix::unistd::Pid;
use socket2::{Domain, Protocol, Socket, Type};

use self::driver::Driver;
use crate::coalesce::FlightId;
use crate::config::ConfigError;
use crate::config::model::Config;
use crate::control::{self, AccessLog, BoundListener, ControlHandle, ControlParts, Exit, Fleet, Resolver, Signals};
use crate::seam::{AccessLines, BuildError, Command, Peers, Snapshot, SnapshotCell, WorkerHandle, mailbox};
use crate::worker;

pub use crate::control::Source;
pub use driver::available as io_driver_available;

/// Places where a test may look in. Empty outside tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hooks {
    /// Called with the path of each request, on its worker.
    pub request: Option<fn(&[u8])>,
    /// Called on every tick of every worker, outside of what fences a connection's panics in.
    pub tick: Option<fn()>,
}

impl Hooks {
    pub(crate) fn on_request(self, path: &[u8]) {
        if let Some(hook) = self.request {
            hook(path);
        }
    }

    pub(crate) fn on_tick(self) {
        if let Some(hook) = self.tick {
            hook();
        }
    }
}

/// Why serving could not begin, or ended.
#[derive(Debug)]
pub enum RunError {
    /// An address is not ours to listen on.
    Bind {
        /// As configured.
        address: SocketAddr,
        /// Of the system.
        error: io::Error,
    },
    /// The configuration does not hold.
    Config(ConfigError),
    /// It does not compile to a snapshot.
    Build(Vec<BuildError>),
    /// Anything else.
    Other(io::Error),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { address, error } => write!(f, "cannot listen on {address}: {error}"),
            Self::Config(error) => error.fmt(f),
            Self::Build(errors) => errors.iter().try_for_each(|error| writeln!(f, "{}: {}", error.key, error.problem)),
            Self::Other(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RunError {}

impl From<io::Error> for RunError {
    fn from(error: io::Error) -> Self {
        Self::Other(error)
    }
}

/// Serves until a signal says otherwise. The calling thread becomes the control thread. `announce` is
/// called with the addresses once they are listened on.
///
/// # Errors
/// When serving cannot begin.
pub fn run(
    config: Config,
    source: Source,
    log: &control::log::Log,
    announce: impl FnOnce(&[SocketAddr]) -> io::Result<()>,
) -> Result<(), RunError> {
    let signals = Signals::install()?;
    let prepared = prepare(config, source, Hooks::default())?;
    announce(&prepared.addresses)?;
    let parts = ControlParts { signals: Some(signals), lost_log_lines: Some(log.lost_lines()), ..prepared.parts };
    match control::run(parts)? {
        Exit::Clean | Exit::AtOnce => Ok(()),
    }
}

/// A proxy running inside another program.
#[derive(Debug)]
pub struct Server {
    /// Data-plane addresses, in the order of the configuration, with the ports they got.
    pub addresses: Vec<SocketAddr>,
    /// The admin address with the port it got.
    pub admin: Option<SocketAddr>,
    /// To reload and to stop.
    pub control: ControlHandle,
    thread: Option<JoinHandle<io::Result<Exit>>>,
}

impl Server {
    /// Starts workers and a control thread.
    ///
    /// # Errors
    /// When serving cannot begin.
    pub fn start(config: Config, source: Source, hooks: Hooks) -> Result<Self, RunError> {
        let Prepared { parts, addresses, admin } = prepare(config, source, hooks)?;
        let control = parts.orders.0.clone();
        let thread = thread::Builder::new().name("ringway-control".into()).spawn(move || control::run(parts))?;
        Ok(Self { addresses, admin, control, thread: Some(thread) })
    }

    /// Drains and waits for the end.
    ///
    /// # Errors
    /// When the control thread failed.
    pub fn stop(&mut self) -> io::Result<Exit> {
        self.control.stop();
        self.wait()
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// When the control thread failed.
    pub fn wait(&mut self) -> io::Result<Exit> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(exit)) => exit,
            Some(Err(_)) => Err(io::Error::other("the control thread panicked")),
            None => Ok(Exit::Clean),
        }
    }
}

struct Prepared {
    parts: ControlParts,
    addresses: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
}

/// Everything up to the first accepted connection.
fn prepare(config: Config, source: Source, hooks: Hooks) -> Result<Prepared, RunError> {
    let driver = Driver::choose(config.server.io_driver)?;
    let resolver = Resolver::at_start(&config);
    let snapshot = Snapshot::build(&config, &resolver.addresses(&config), None).map_err(RunError::Build)?;
    if snapshot.sessions.are_random() {
        tracing::warn!("no sessions.keys: sessions end with this process, and other replicas do not know them");
    }
    let cell = Arc::new(SnapshotCell::from_pointee(snapshot));
    let access_log = AccessLog::start(&config.log.access)
        .map_err(|error| RunError::Build(vec![BuildError { key: "log.access".into(), problem: error.to_string() }]))?;
    let admin = config.admin.listen.map(|address| bind_one(address, false).map_err(|error| bind_error(address, error)));
    let admin = admin.transpose()?;
    let admin_address = admin.as_ref().map(TcpListener::local_addr).transpose()?;
    let mut workers = Workers::new(config.server.workers, driver, Arc::clone(&cell), access_log.lines(), hooks)?;
    let mut addresses = Vec::new();
    for address in &config.server.listen {
        let bound = workers.bind(*address).map_err(|error| bind_error(*address, error))?;
        addresses.push(bound.sockets[0].local_addr()?);
        workers.listeners.push(bound);
    }
    workers.start_all()?;
    for address in &addresses {
        tracing::info!(%address, "listening");
    }
    tracing::info!(
        workers = workers.count,
        io_driver = driver.label(),
        admin = admin_address.map(|address| address.to_string()),
        "serving"
    );
    let parts = ControlParts {
        config,
        source,
        cell,
        resolver,
        fleet: Box::new(workers),
        admin,
        orders: control::channel()?,
        signals: None,
        access_log,
        lost_log_lines: None,
    };
    Ok(Prepared { parts, addresses, admin: admin_address })
}

fn bind_error(address: SocketAddr, error: io::Error) -> RunError {
    RunError::Bind { address, error }
}

/// Connections waiting to be accepted, per worker and address.
const BACKLOG: i32 = 1024;

fn bind_one(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // Each family is bound where it is named, as nginx has it.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The worker threads.
struct Workers {
    count: usize,
    /// Cores this process may use.
    cores: Vec<usize>,
    driver: Driver,
    cell: Arc<SnapshotCell>,
    access: AccessLines,
    hooks: Hooks,
    listeners: Vec<BoundListener>,
    seats: Vec<Seat>,
    peers: Arc<Peers>,
    hasher: RandomState,
    /// Workers started so far, those that ended included.
    started: Cell<u64>,
}

struct Seat {
    handle: WorkerHandle,
    thread: JoinHandle<()>,
    first_flight: FlightId,
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
    fn new(
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

    fn start_all(&mut self) -> io::Result<()> {
        for index in 0..self.count {
            let seat = self.start(index)?;
            self.seats.push(seat);
        }
        self.peers.publish(self.workers());
        self.seats.iter().for_each(Seat::refresh);
        Ok(())
    }

    /// Starts one worker, pinned to a core of its own while there are cores.
    fn start(&self, index: usize) -> io::Result<Seat> {
        let (handle, mailbox) = mailbox()?;
        let first_flight = FlightId(self.started.get() << FLIGHTS_BITS);
        self.started.set(self.started.get() + 1);
        // The worker's sockets are duplicates: should it die, what waits in their queues is there
        // for its successor.
        let listeners =
            self.listeners.iter().map(|listener| Ok((listener.address, listener.sockets[index].try_clone()?)));
        let start = worker::Start {
            index,
            cell: Arc::clone(&self.cell),
            mailbox,
            listeners: listeners.collect::<io::Result<_>>()?,
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
            if let Err(error) = driver.block_on(worker::run(start)).and_then(|ended| ended) {
                tracing::error!(worker = index, %error, "worker failed");
            }
        })?;
        Ok(Seat { handle, thread, first_flight })
    }
}

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
        let first = bind_one(address, true)?;
        // Port 0 becomes a port with the first socket; the others join it there.
        let bound = first.local_addr()?;
        let mut sockets = vec![first];
        for _ in 1..self.count {
            sockets.push(bind_one(bound, true)?);
        }
        Ok(BoundListener { address, sockets })
    }

    fn adopt(&mut self, listener: BoundListener) {
        for (index, seat) in self.seats.iter().enumerate() {
            match listener.sockets[index].try_clone() {
                Ok(socket) => {
                    if seat.handle.send(Command::Listen(vec![(listener.address, socket)])).is_err() {
                        tracing::warn!(worker = index, "a worker takes no commands");
                    }
                }
                Err(error) => {
                    tracing::error!(worker = index, %error, "cannot hand over a listener")
                }
            }
        }
        self.listeners.push(listener);
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
        let mut restarted = Vec::new();
        for index in 0..self.seats.len() {
            if !self.seats[index].thread.is_finished() {
                continue;
            }
            match self.start(index) {
                Ok(seat) => {
                    let successor = seat.first_flight;
                    self.seats[index] = seat;
                    self.peers.publish(self.workers());
                    self.seats[index].refresh();
                    // Requests of other workers may wait for what this one would have said.
                    for seat in &self.seats {
                        let _ = seat.handle.send(Command::PeerEnded { worker: index, successor });
                    }
                    restarted.push(index);
                }
                Err(error) => {
                    tracing::error!(worker = index, %error, "cannot start a worker again")
                }
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
