//! Start and stop: bind, one worker a core, one control thread, wait.

mod backoff;
mod driver;
mod limit;
mod listen;
mod program;
mod workers;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use self::driver::Driver;
use self::workers::Workers;
use crate::config::ConfigError;
use crate::config::model::Config;
use crate::control::{self, AccessLog, ControlHandle, ControlParts, Exit, Notifier, Plane, Resolver, Signals};
use crate::seam::{BuildError, SessionKeys, Snapshot, SnapshotCell};

pub use crate::control::Source;
pub use driver::available as io_driver_available;
pub use listen::Inherited;
pub use program::program;

/// Places where a test may look in. Empty outside tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hooks {
    /// Called with the path of each request, on its worker.
    pub request: Option<fn(&[u8])>,
    /// Called on every tick of every worker, outside of what fences a connection's panics in.
    pub tick: Option<fn()>,
    /// Called on the control thread whenever it looks for workers that have ended.
    pub control: Option<fn()>,
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
    /// The control thread failed, for this reason, and with it the process.
    Control(String),
    /// Anything else.
    Other(io::Error),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { error, .. } | Self::Other(error) if limit::is_descriptors(error) => {
                write!(f, "cannot start: {error}; {}", limit::advice())
            }
            Self::Bind { address, error } => write!(f, "cannot listen on {address}: {error}"),
            Self::Config(error) => error.fmt(f),
            Self::Build(errors) => errors.iter().try_for_each(|error| writeln!(f, "{}: {}", error.key, error.problem)),
            Self::Control(reason) => write!(f, "the control thread failed, so this process ends: {reason}"),
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

/// What a process is started with, beside its configuration.
#[derive(Debug)]
pub struct Process {
    /// Sockets that were there before it.
    pub inherited: Inherited,
    /// How its successor is started.
    pub program: control::Program,
    /// The log to which lines may be lost.
    pub log: control::log::Log,
    /// Empty outside tests.
    pub hooks: Hooks,
}

/// Serves until a signal says otherwise. The calling thread becomes the control thread. `announce` is
/// called with the addresses once they are listened on.
///
/// # Errors
/// When serving cannot begin, or the control thread fails: workers without it would serve what was in
/// force for ever, deaf to signals and reloads.
pub fn run(
    config: Config,
    source: Source,
    process: Process,
    announce: impl FnOnce(&[SocketAddr]) -> io::Result<()>,
) -> Result<(), RunError> {
    let signals = Signals::install()?;
    limit::raise_descriptors();
    let prepared = prepare(config, source, process.hooks, process.inherited)?;
    announce(&prepared.addresses)?;
    let parts = ControlParts {
        signals: Some(signals),
        lost_log_lines: Some(process.log.lost_lines()),
        program: Some(process.program),
        notifier: Notifier::of_environment(),
        ..prepared.parts
    };
    // Unwind safe: the process ends, and nothing of control's is looked at any more.
    let reason = match catch_unwind(AssertUnwindSafe(|| control::run(parts))) {
        Ok(Ok(Exit::Clean | Exit::AtOnce)) => return Ok(()),
        Ok(Err(error)) if limit::is_descriptors(&error) => return Err(error.into()),
        Ok(Err(error)) => error.to_string(),
        // The panic hook has told what and where.
        Err(_) => "it panicked".to_owned(),
    };
    let error = RunError::Control(reason);
    tracing::error!("{error}");
    Err(error)
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
        let Prepared { parts, addresses, admin } = prepare(config, source, hooks, Inherited::default())?;
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
fn prepare(config: Config, source: Source, hooks: Hooks, mut inherited: Inherited) -> Result<Prepared, RunError> {
    let driver = Driver::choose(config.server.io_driver)?;
    let resolver = Resolver::at_start(&config);
    let mut snapshot = Snapshot::build(&config, &resolver.addresses(&config), None).map_err(RunError::Build)?;
    if snapshot.sessions.are_random() {
        match inherited.session_secret {
            Some(secret) => snapshot.sessions = SessionKeys::of_random(secret),
            None => tracing::warn!("no sessions.keys: sessions end with this process, unknown to other replicas"),
        }
    }
    let cell = Arc::new(SnapshotCell::from_pointee(snapshot));
    let access_log = AccessLog::start(&config.log.access)
        .map_err(|error| RunError::Build(vec![BuildError { key: "log.access".into(), problem: error.to_string() }]))?;
    let admin = config.admin.listen.map(|address| {
        // Bound for one, so there is one at most.
        let inherited = inherited.of(Plane::Admin, address).pop().map(Ok);
        inherited.unwrap_or_else(|| listen::bind_one(address, false)).map_err(|error| bind_error(address, error))
    });
    let admin = admin.transpose()?;
    let admin_address = admin.as_ref().map(TcpListener::local_addr).transpose()?;
    let mut workers = Workers::new(config.server.workers, driver, Arc::clone(&cell), access_log.lines(), hooks)?;
    let (mut listeners, mut addresses) = (Vec::new(), Vec::new());
    for address in &config.server.listen {
        let bound = match inherited.of(Plane::Data, *address) {
            sockets if sockets.is_empty() => listen::bind_all(*address, workers.count),
            sockets => Ok(listen::spread(*address, sockets, workers.count)),
        };
        let bound = bound.map_err(|error| bind_error(*address, error))?;
        addresses.push(bound.local_addr()?);
        listeners.push(bound);
    }
    inherited.close_others();
    workers.start_all()?;
    for address in &addresses {
        tracing::info!(%address, "listening");
    }
    let parts = ControlParts {
        config,
        source,
        cell,
        resolver,
        fleet: Box::new(workers),
        listeners,
        admin,
        orders: control::channel()?,
        signals: None,
        access_log,
        lost_log_lines: None,
        program: None,
        predecessor: inherited.predecessor,
        notifier: Notifier::default(),
        tick: hooks.control,
    };
    Ok(Prepared { parts, addresses, admin: admin_address })
}

fn bind_error(address: SocketAddr, error: io::Error) -> RunError {
    RunError::Bind { address, error }
}
