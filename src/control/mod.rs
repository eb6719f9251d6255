//! The control thread: everything that changes while the workers serve.
//!
//! Owns the configuration in force, what host names resolved to, the counters of reloads, and the
//! admin listener. In: signals, orders of a [`ControlHandle`], admin requests, time. Out: snapshots
//! stored in the cell, [`Command`]s to the workers, listeners through [`Fleet`]. One monoio loop on
//! epoll (nothing here is hot); its tasks share `Control` and never hold it borrowed over an await.
//!
//! Whatever publishes a snapshot first takes its turn (`Control::turn`), so snapshots are built
//! one after the other, each from the one before. What may block (name lookups) runs on helper
//! threads with a deadline, what takes long (compiling) on one that stands back (`aside`).

mod access;
mod admin;
mod aside;
mod bell;
mod fleet;
mod gather;
mod handle;
mod handover;
pub mod log;
mod notify;
mod process;
mod prometheus;
mod reload;
mod resolve;
mod response;
mod signal;
mod tasks;
mod views;
mod wait;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use monoio::{LegacyDriver, RuntimeBuilder};
use tracing::{error, info, warn};

use crate::clock;
use crate::config::model::Config;
use crate::seam::{Command, Snapshot, SnapshotCell};

pub use access::AccessLog;
pub use fleet::{BoundListener, Fleet};
pub use handle::{ControlHandle, Inbox, channel};
pub use handover::{Handed, HandedSocket, Place, Plane, Predecessor, Program};
pub use notify::Notifier;
pub use reload::Outcome;
pub use resolve::{Addresses, Resolver};
pub use signal::Signals;

use gather::Ledger;
use handle::{Order, Orders};
use tasks::Tasks;

/// How often ended workers are looked for.
const SUPERVISE_EVERY: Duration = Duration::from_millis(100);

/// How often a drain looks whether it is over.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// What a drain allows the workers beyond their own deadline to notice that it has passed.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// Where the configuration came from, and comes from again on reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// The embedded default: there is nothing to reload.
    Fixed,
}

/// How control ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Drained, or the drain's time was over.
    Clean,
    /// Told to end without waiting for the drain.
    AtOnce,
}

/// What control begins with.
pub struct ControlParts {
    /// The configuration that the first snapshot was built from.
    pub config: Config,
    /// Where it came from.
    pub source: Source,
    /// Holds generation 1.
    pub cell: Arc<SnapshotCell>,
    /// Has resolved the host names of `config`.
    pub resolver: Resolver,
    /// The running workers.
    pub fleet: Box<dyn Fleet>,
    /// Bound for them, to be accepted from as soon as all else is set up.
    pub listeners: Vec<BoundListener>,
    /// The bound admin listener, if the configuration names one.
    pub admin: Option<TcpListener>,
    /// Both ends of [`channel`]: control gives itself orders too.
    pub orders: (ControlHandle, Inbox),
    /// Absent where the proxy runs inside another program.
    pub signals: Option<Signals>,
    /// Its writer is told of reloads, and waited for at the end.
    pub access_log: AccessLog,
    /// Log lines lost so far, if the log counts them.
    pub lost_log_lines: Option<log::LostLines>,
    /// How to start a successor. Absent where the proxy runs inside another program.
    pub program: Option<Program>,
    /// The process to take over from.
    pub predecessor: Option<Predecessor>,
    /// Hears how we are.
    pub notifier: Notifier,
    /// For a test: called whenever ended workers are looked for.
    pub tick: Option<fn()>,
}

/// Runs the control thread until a drain has ended.
///
/// # Errors
/// When the loop cannot be set up (descriptors exhausted).
pub fn run(parts: ControlParts) -> io::Result<Exit> {
    let mut runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?;
    runtime.block_on(serve(parts))
}

async fn serve(parts: ControlParts) -> io::Result<Exit> {
    let mut orders = Orders::new(parts.orders.1)?;
    let control = Rc::new(Control {
        source: parts.source,
        cell: parts.cell,
        handle: parts.orders.0,
        access_log: parts.access_log,
        lost_log_lines: parts.lost_log_lines,
        program: parts.program,
        notifier: parts.notifier,
        admin: parts.admin,
        tick: parts.tick,
        started: clock::wall(),
        config: RefCell::new(Arc::new(parts.config)),
        resolver: RefCell::new(parts.resolver),
        fleet: RefCell::new(parts.fleet),
        ledger: RefCell::new(Ledger::default()),
        former: RefCell::default(),
        counters: Cell::new(Counters::default()),
        changing: Cell::new(false),
        draining: Cell::new(false),
        handing_over: Cell::new(false),
        handed_over: Cell::new(false),
        tasks: Tasks::default(),
    });
    if let Some(signals) = parts.signals {
        signal::watch(&control, signals)?;
    }
    if let Some(listener) = &control.admin {
        admin::listen(&control, listener.try_clone()?)?;
    }
    control.tasks.spawn(resolve::keep_fresh(Rc::clone(&control)));
    control.tasks.spawn(supervise(Rc::clone(&control)));
    control.tasks.spawn(notify::feed_watchdog(Rc::clone(&control)));
    begin(&control, parts.listeners, parts.predecessor.as_ref())?;
    let main = async {
        let ending = until_stop(&control, &mut orders).await?;
        Ok(drain(&control, &orders, ending).await)
    };
    let ended = control.tasks.run_beside(main).await;
    control.access_log.finish();
    ended
}

/// Accepts connections; everything that could fail is behind us. Blocks while a predecessor hands
/// over: nothing else runs here yet.
fn begin(control: &Control, listeners: Vec<BoundListener>, predecessor: Option<&Predecessor>) -> io::Result<()> {
    if let Some(predecessor) = predecessor {
        predecessor.ask()?;
    }
    let workers = {
        let mut fleet = control.fleet.borrow_mut();
        fleet.adopt(listeners)?;
        fleet.workers().len()
    };
    let admin = control.admin.as_ref().map(TcpListener::local_addr).transpose()?;
    info!(
        workers,
        io_driver = control.fleet.borrow().io_driver(),
        admin = admin.map(|address| address.to_string()),
        pid = std::process::id(),
        "serving"
    );
    if let Some(predecessor) = predecessor {
        predecessor.tell_serving();
    }
    control.notifier.tell_ready();
    Ok(())
}

/// Why the workers are to finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Told to.
    Stop,
    /// A successor serves.
    HandedOver,
}

async fn until_stop(control: &Rc<Control>, orders: &mut Orders) -> io::Result<Ending> {
    loop {
        match orders.next().await? {
            Order::Reload(reply) => {
                let shared = Rc::clone(control);
                control.tasks.spawn(async move {
                    // Whoever asked may have stopped waiting.
                    let _ = reply.send(reload::run(&shared).await);
                });
            }
            Order::Stop => return Ok(Ending::Stop),
            Order::HandedOver => return Ok(Ending::HandedOver),
        }
    }
}

/// Lets the workers finish, but not for ever. Nothing is published or restarted any more.
async fn drain(control: &Control, orders: &Orders, ending: Ending) -> Exit {
    control.draining.set(true);
    let timeout = control.config().server.drain_timeout;
    info!(timeout_ms = timeout.as_millis() as u64, "draining");
    control.fleet.borrow_mut().release_all();
    // A service manager that stops us after a hand-over tells all processes: that is not yet to end at once.
    let mut stops_left = match ending {
        Ending::Stop => {
            control.notifier.tell("STOPPING=1");
            control.command_all(|| Command::Drain(timeout));
            1
        }
        Ending::HandedOver => {
            control.handed_over.set(true);
            control.command_all(|| Command::HandOver(timeout));
            2
        }
    };
    let deadline = clock::now() + timeout + DRAIN_GRACE;
    loop {
        // A successor that is not wanted any more must not outlive us.
        if !control.handing_over.get() && control.fleet.borrow_mut().drained() {
            info!("drained");
            return Exit::Clean;
        }
        if clock::now() >= deadline {
            warn!("drain timeout: ending with exchanges in flight");
            return Exit::Clean;
        }
        match orders.take() {
            Some(Order::Stop) => {
                stops_left -= 1;
                if stops_left == 0 {
                    warn!("told twice to stop: ending at once");
                    return Exit::AtOnce;
                }
            }
            Some(Order::HandedOver) => {}
            Some(Order::Reload(reply)) => {
                let _ = reply.send(Outcome::Draining);
            }
            None => monoio::time::sleep(DRAIN_LOOK).await,
        }
    }
}

async fn supervise(control: Rc<Control>) {
    while !control.draining.get() {
        if let Some(tick) = control.tick {
            tick();
        }
        for worker in control.fleet.borrow_mut().supervise() {
            error!(worker, "a worker ended and was started again");
            control.ledger.borrow_mut().retire(worker);
            control.count(|counters| counters.worker_restarts += 1);
        }
        control.bury();
        monoio::time::sleep(SUPERVISE_EVERY).await;
    }
}

/// What the control loop's tasks share.
struct Control {
    source: Source,
    cell: Arc<SnapshotCell>,
    handle: ControlHandle,
    access_log: AccessLog,
    lost_log_lines: Option<log::LostLines>,
    program: Option<Program>,
    notifier: Notifier,
    admin: Option<TcpListener>,
    tick: Option<fn()>,
    /// Wall clock at the start, since the Unix epoch.
    started: Duration,
    config: RefCell<Arc<Config>>,
    resolver: RefCell<Resolver>,
    fleet: RefCell<Box<dyn Fleet>>,
    ledger: RefCell<Ledger>,
    former: RefCell<Vec<Former>>,
    counters: Cell<Counters>,
    changing: Cell<bool>,
    draining: Cell<bool>,
    /// A successor is being started.
    handing_over: Cell<bool>,
    /// A successor serves, and answers operators too.
    handed_over: Cell<bool>,
    tasks: Tasks,
}

/// What was in force. Held until control is the last to have it: else a worker would be, and would take
/// the snapshot of thousands of backends apart between two requests.
struct Former {
    snapshot: Arc<Snapshot>,
    config: Arc<Config>,
}

impl Former {
    /// Whether a request in flight began with it, or a worker has yet to hear that it is over.
    fn is_used(&self) -> bool {
        Arc::strong_count(&self.snapshot) > 1
    }
}

/// What control itself counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counters {
    reloads_ok: u64,
    reloads_failed: u64,
    last_reload_failed: bool,
    worker_restarts: u64,
    caches_cleared: u64,
    handovers_ok: u64,
    handovers_failed: u64,
}

impl Control {
    /// The configuration in force.
    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }

    /// Of both logs.
    fn lost_log_lines(&self) -> u64 {
        let of_process = self.lost_log_lines.as_ref().map_or(0, log::LostLines::count);
        of_process as u64 + self.access_log.lines().lost()
    }

    fn count(&self, change: impl FnOnce(&mut Counters)) {
        let mut counters = self.counters.get();
        change(&mut counters);
        self.counters.set(counters);
    }

    /// Waits until no other change is under way. Ends with the guard.
    async fn turn(&self) -> Turn<'_> {
        while self.changing.replace(true) {
            monoio::time::sleep(wait::LOOK_AGAIN).await;
        }
        Turn(&self.changing)
    }

    /// Makes a snapshot the one in force. To be called in one's turn, with one that was built from
    /// the snapshot now in the cell.
    fn publish(&self, config: Arc<Config>, snapshot: Snapshot) {
        debug_assert!(self.changing.get(), "published out of turn");
        debug_assert_eq!(snapshot.generation, self.cell.load().generation + 1);
        let former = Former { snapshot: self.cell.swap(Arc::new(snapshot)), config: self.config.replace(config) };
        self.former.borrow_mut().push(former);
        self.command_all(|| Command::Refresh);
    }

    /// How many snapshots there are: the one in force, and those that requests in flight began with.
    fn snapshots(&self) -> usize {
        1 + self.former.borrow().iter().filter(|former| former.is_used()).count()
    }

    /// Takes apart what nobody uses any more.
    fn bury(&self) {
        let unused: Vec<_> = self.former.borrow_mut().extract_if(.., |former| !former.is_used()).collect();
        if !unused.is_empty() {
            let backends = unused.iter().map(|former| former.config.backends.len()).max().unwrap_or_default();
            // Without a thread it is taken apart here.
            self.tasks.spawn(async move { drop(aside::aside(backends, move || drop(unused)).await) });
        }
    }

    fn command_all(&self, command: impl Fn() -> Command) {
        for (worker, handle) in self.fleet.borrow().workers().iter().enumerate() {
            if let Err(refused) = handle.send(command()) {
                // It has ended, and its successor starts with the snapshot in force; or it has not
                // looked at its commands for so long that supervision is the one to act.
                warn!(worker, command = ?refused, "a worker takes no commands");
            }
        }
    }
}

/// The right to change what is in force.
struct Turn<'a>(&'a Cell<bool>);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

#[cfg(test)]
mod tests;
