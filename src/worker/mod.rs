//! A worker: one thread, one event loop, everything its connections need.
//!
//! Started by `server`, told what to do through its mailbox, never waits on another thread.

mod access;
mod alarm;
mod answer;
mod body;
mod connection;
mod core;
mod download;
mod exchange;
mod fetch;
mod message;
mod panic;
mod record;
mod respond;
mod session;
mod share;
mod subscribe;
mod ticker;
mod upload;

use std::cell::{Cell, OnceCell};
use std::future::{Future, poll_fn};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ahash::{AHashMap, RandomState};
use monoio::net::UnixStream;

use self::access::AccessLog;
use self::core::Core;
use self::share::Sharing;
use self::subscribe::Subscriptions;
pub(crate) use self::ticker::Ticker;
use crate::clock::{self, TICK};
use crate::coalesce::FlightId;
use crate::error::Refusal;
use crate::http::{Socket, give_way};
use crate::limits;
use crate::seam::{AccessLines, Command, Mailbox, PeerMessage, Peers, SnapshotCell};
use crate::server::Hooks;

/// What a worker begins with.
pub(crate) struct Start {
    pub(crate) index: usize,
    pub(crate) cell: Arc<SnapshotCell>,
    pub(crate) mailbox: Mailbox,
    pub(crate) listeners: Vec<(SocketAddr, TcpListener)>,
    pub(crate) access: AccessLines,
    pub(crate) hooks: Hooks,
    /// How to reach the other workers.
    pub(crate) peers: Arc<Peers>,
    /// The number of its first flight.
    pub(crate) first_flight: FlightId,
    /// What tells all workers alike whose question it is.
    pub(crate) hasher: RandomState,
}

/// The kernel takes a wait of nothing for none.
const SHORTEST_WAIT: Duration = Duration::from_nanos(1);

/// A turn of the loop that lasts longer is worth a line in the log.
const STALL_WARNING: Duration = Duration::from_millis(500);

/// Between looks at pools for connections that are too old or have ended.
const SWEEP_TICKS: u32 = 10;

/// Runs a worker on the current thread's event loop until it has drained.
///
/// # Errors
/// Of the driver, while starting; and when one of the worker's own tasks has panicked.
pub(crate) async fn run(mut start: Start) -> io::Result<()> {
    let seed = ahash::RandomState::new().hash_one(start.index);
    let sharing = Sharing::new(start.index, start.first_flight, start.peers, start.hasher);
    let access = AccessLog::new(start.index, start.access);
    let core = Rc::new(Core::new(start.cell, sharing, seed, access, start.hooks));
    let _end = EndAll(Rc::clone(&core));
    let mut acceptors = Acceptors { core: Rc::clone(&core), running: AHashMap::new() };
    acceptors.add_all(start.listeners.drain(..));
    // Both made now: a drain has to be looked after, also when there are no descriptors left.
    let (ticker, drain_ticker) = (Ticker::new()?, Ticker::new()?);
    ticker.start(core.next_tick().saturating_sub(core.age()).max(SHORTEST_WAIT), TICK)?;
    let ticks_end = Rc::new(Stop::default());
    spawn_own(&core, tick(Rc::clone(&core), start.index, ticker, Rc::clone(&ticks_end)));
    spawn_own(&core, send_posted(Rc::clone(&core)));
    let served = panic::Guarded::new(obey(&core, &mut acceptors, start.mailbox, &drain_ticker)).await;
    let ended = served.unwrap_or_else(|panic::Panicked| Err(io::Error::other("its main task panicked")));
    ticks_end.tell();
    if ended.is_err() {
        // The worker that takes its place accepts on the same sockets.
        let listeners = acceptors.remove_all(Queue::Leave);
        core.sharing.fall_silent();
        core.deadlines.end_all();
        core.fall.tell();
        core.alarms.ring_all();
        drained(core, listeners, FALL_TIMEOUT, &drain_ticker).await;
    }
    // The loop's next turn closes what has been let go of.
    drop(drain_ticker);
    give_way().await;
    ended
}

/// Spawns a task without which the worker cannot go on.
fn spawn_own(core: &Rc<Core>, task: impl Future<Output = ()> + 'static) {
    let guarded = panic::Guarded::new(task);
    let core = Rc::clone(core);
    monoio::spawn(async move {
        if guarded.await.is_err() {
            core.fall.tell();
        }
    });
}

/// Runs work beside all connections, fenced in like one. A drain waits for it.
fn spawn(core: &Rc<Core>, work: impl Future<Output = ()> + 'static) {
    let guarded = panic::Guarded::new(work);
    let core = Rc::clone(core);
    let errand = core.count_errand();
    monoio::spawn(async move {
        if guarded.await.is_err() {
            core.stats.borrow_mut().panics += 1;
        }
        drop(errand);
    });
}

/// Does what control and the other workers ask for, until a drain has ended.
async fn obey(
    core: &Rc<Core>,
    acceptors: &mut Acceptors,
    mut mailbox: Mailbox,
    drain_ticker: &Ticker,
) -> io::Result<()> {
    // Followed with the first command, when all workers are known.
    let subscriptions = Subscriptions::default();
    let wake = mailbox.wake.take().ok_or_else(|| io::Error::other("the mailbox was taken"))?;
    let wake = UnixStream::from_std(wake)?;
    let mut drain: Option<Drain<'_>> = None;
    let look_after =
        |listeners, timeout| Box::pin(drained(Rc::clone(core), listeners, timeout, drain_ticker)) as Drain<'_>;
    loop {
        if wait_for_mail(core, &wake, &mut drain).await?.is_none() {
            return Ok(());
        }
        mailbox.rearm();
        while let Some(message) = mailbox.take_peer() {
            match message {
                PeerMessage::Connection { stream, peer, on_loopback } => begin(core, stream, peer, on_loopback),
                message => core.sharing.receive(message, clock::now()),
            }
        }
        core.sharing.flush();
        while let Some(command) = mailbox.take() {
            match command {
                // Requests find the newest snapshot themselves; this lets go of what it lacks.
                Command::Refresh => {
                    core.upstreams.keep_only(&core.snapshot().clusters);
                    subscriptions.follow(core);
                }
                Command::Listen(listeners) => acceptors.add_all(listeners),
                Command::Unlisten(addresses) => {
                    addresses.iter().for_each(|address| acceptors.remove(*address, Queue::Take));
                }
                Command::PeerEnded { worker, successor } => core.sharing.peer_ended(worker, successor),
                // A scrape that gave up waiting has dropped its end.
                Command::Stats(reply) => drop(reply.send(core.report())),
                // Beside the mail: what a worker counts can be asked for to its end.
                Command::Drain(timeout) => {
                    core.begin_drain(Duration::ZERO);
                    subscriptions.end();
                    drain = Some(look_after(acceptors.remove_all(Queue::Take), timeout));
                }
                Command::HandOver(timeout) => {
                    core.begin_drain(LAST_REQUEST_WAIT);
                    subscriptions.end();
                    drain = Some(look_after(acceptors.remove_all(Queue::Leave), timeout));
                }
            }
        }
    }
}

/// Ends the sockets of a worker that ends, by a panic too. The runtime does not free tasks that wait
/// on a descriptor when it is dropped, so their clients would wait for ever, and the worker's last
/// log lines too.
struct EndAll(Rc<Core>);

impl Drop for EndAll {
    fn drop(&mut self) {
        self.0.outbox.end();
        self.0.deadlines.end_all();
        self.0.access.flush();
    }
}

/// A drain that runs.
type Drain<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Waits for a wake-up and takes all that came. `None`: the drain, if one runs, has ended.
async fn wait_for_mail(core: &Core, wake: &UnixStream, drain: &mut Option<Drain<'_>>) -> io::Result<Option<()>> {
    use std::os::fd::AsRawFd;

    let mut readable = pin!(wake.readable(false));
    let rung = poll_fn(|cx| {
        if core.fall.is_told(cx) {
            return Poll::Ready(Err(io::Error::other("one of its tasks panicked")));
        }
        if drain.as_mut().is_some_and(|drain| drain.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Ok(None));
        }
        readable.as_mut().poll(cx).map_ok(Some)
    });
    if rung.await?.is_none() {
        return Ok(None);
    }
    let mut bytes = [0; 64];
    let flags = nix::sys::socket::MsgFlags::MSG_DONTWAIT;
    match nix::sys::socket::recv(wake.as_raw_fd(), &mut bytes, flags) {
        Ok(0) => Err(io::Error::from(io::ErrorKind::BrokenPipe)),
        _ => Ok(Some(())),
    }
}

/// Advances the coarse clock, enforces deadlines, hands over log lines, looks after the pools, and sees
/// how late it is: as late as a turn of the loop, in which nobody else was served, lasted beyond the time
/// it was due.
async fn tick(core: Rc<Core>, worker: usize, ticker: Ticker, end: Rc<Stop>) {
    let mut swept = 0;
    loop {
        let due = core.next_tick();
        let mut ticked = pin!(ticker.tick());
        let ticked = poll_fn(|cx| match end.is_told(cx) {
            true => Poll::Ready(None),
            false => ticked.as_mut().poll(cx).map(Some),
        });
        match ticked.await {
            None => return,
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::error!(worker, %error, "a worker's clock stopped");
                return core.fall.tell();
            }
        }
        let late = core.age().saturating_sub(due);
        core.stats.borrow_mut().stalls.record(late);
        if late >= STALL_WARNING {
            tracing::warn!(worker, stalled_ms = late.as_millis() as u64, "a worker's loop stood still");
        }
        core.hooks.on_tick();
        // By the clock and not by counting: a worker that was busy must not stretch its deadlines.
        let now = core.ticks();
        core.deadlines.advance(now);
        core.alarms.ring(now);
        core.tell_load();
        core.access.flush();
        if now.0 >= swept + SWEEP_TICKS {
            swept = now.0;
            core.upstreams.sweep();
            core.sharing.sweep(clock::now());
            core.fit_cache();
        }
    }
}

/// Sends what the tasks of a turn have posted. Peers that do not take it whole are waited for apart.
async fn send_posted(core: Rc<Core>) {
    loop {
        core.outbox.posted().await;
        for rest in core.outbox.send() {
            let charge = core.buffers.ledger.charge(rest.unsent_bytes());
            let worker = Rc::clone(&core);
            spawn(&core, async move {
                let timeout = worker.snapshot().limits.write_timeout;
                if !rest.send_rest(&worker.deadlines, timeout).await {
                    worker.count_refusal(Refusal::WriteTimeout);
                }
                drop(charge);
            });
        }
    }
}

/// Lets exchanges finish and `listeners` go, for no longer than `timeout`.
async fn drained(core: Rc<Core>, listeners: Vec<Weak<Listener>>, timeout: Duration, ticker: &Ticker) {
    core.upstreams.clear();
    // By the clock: of a worker that falls the ticks may have ended.
    let end = core.age() + timeout;
    let mut ticks = ticker.start(DRAIN_LOOK, DRAIN_LOOK).is_ok();
    loop {
        if core.ends_idle() {
            core.deadlines.end_idle();
        }
        let is_over = core.is_at_rest() && listeners.iter().all(|listener| listener.strong_count() == 0);
        // Also when it is over: the runtime closes descriptors a turn late and, ended, not at all. A
        // listening socket left open would go on taking connections that nobody accepts.
        ticks = ticks && ticker.tick().await.is_ok();
        if is_over || !ticks || core.age() >= end {
            return;
        }
    }
}

/// Between looks at a drain's progress.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// How long a worker that falls may take to close what it has: its place is empty meanwhile.
const FALL_TIMEOUT: Duration = Duration::from_millis(200);

/// After a hand-over, how long a connection between two requests may still bring one, whose answer
/// then says that it is the last. To end it at once could cross with a request on its way.
const LAST_REQUEST_WAIT: Duration = Duration::from_secs(2);

/// The accepting tasks by address; there are several for one that came with more sockets than workers.
struct Acceptors {
    core: Rc<Core>,
    running: AHashMap<SocketAddr, Vec<Acceptor>>,
}

/// What becomes of the connections queued on a socket that is let go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Queue {
    /// Accepted here: else they would be lost with the socket.
    Take,
    /// Left to the process that has the socket too.
    Leave,
}

struct Acceptor {
    listener: Rc<Listener>,
    stop: Rc<Stop>,
}

/// A listening socket: accepted from through the standard library, waited for through the runtime.
/// An accept that the runtime holds would lose its connection when dropped; this one cannot.
struct Listener {
    socket: TcpListener,
    /// It can be reached from this machine only.
    on_loopback: bool,
    /// A duplicate for the runtime, made by the accepting task as soon as there is a descriptor for it.
    readiness: OnceCell<monoio::net::TcpListener>,
}

impl Listener {
    fn readiness(&self) -> io::Result<&monoio::net::TcpListener> {
        if let Some(readiness) = self.readiness.get() {
            return Ok(readiness);
        }
        let readiness = monoio::net::TcpListener::from_std(self.socket.try_clone()?)?;
        Ok(self.readiness.get_or_init(|| readiness))
    }
}

/// Tells a task to end. An accepting task's socket is not shut down for that: it may be shared with the
/// process that takes over.
#[derive(Default)]
struct Stop {
    told: Cell<bool>,
    task: Cell<Option<Waker>>,
}

impl Stop {
    fn tell(&self) {
        self.told.set(true);
        self.task.take().into_iter().for_each(Waker::wake);
    }

    /// Whether the task is to end; if not, it is woken when it is.
    fn is_told(&self, cx: &Context<'_>) -> bool {
        if !self.told.get() {
            self.task.set(Some(cx.waker().clone()));
        }
        self.told.get()
    }
}

impl Acceptors {
    /// Accepts on sockets that do not block.
    fn add_all(&mut self, listeners: impl IntoIterator<Item = (SocketAddr, TcpListener)>) {
        for (address, socket) in listeners {
            let on_loopback = address.ip().is_loopback();
            let listener = Rc::new(Listener { socket, on_loopback, readiness: OnceCell::new() });
            let stop = Rc::new(Stop::default());
            spawn_own(&self.core, accept_loop(Rc::clone(&self.core), Rc::clone(&listener), Rc::clone(&stop)));
            self.running.entry(address).or_default().push(Acceptor { listener, stop });
        }
    }

    /// Lets go of an address's sockets.
    fn remove(&mut self, address: SocketAddr, queue: Queue) {
        for acceptor in self.running.remove(&address).into_iter().flatten() {
            if queue == Queue::Take {
                // What cannot be accepted now is lost with the socket.
                let _ = accept_queued(&self.core, &acceptor.listener, usize::MAX);
            }
            acceptor.stop.tell();
        }
    }

    /// Gives the listeners, which go when their accepting tasks have ended.
    fn remove_all(&mut self, queue: Queue) -> Vec<Weak<Listener>> {
        let running = self.running.values().flatten();
        let listeners = running.map(|acceptor| Rc::downgrade(&acceptor.listener)).collect();
        let addresses: Vec<_> = self.running.keys().copied().collect();
        addresses.into_iter().for_each(|address| self.remove(address, queue));
        listeners
    }
}

async fn accept_loop(core: Rc<Core>, listener: Rc<Listener>, stop: Rc<Stop>) {
    let mut is_failing = false;
    // What comes to a worker that falls is left to the next.
    while !stop.told.get() && !core.fall.told.get() {
        match accept_some(&core, &listener, &stop).await {
            Ok(()) if is_failing => {
                is_failing = false;
                tracing::info!("accepting connections again");
            }
            Ok(()) => {}
            Err(error) => {
                core.count_refusal(Refusal::DescriptorsExhausted);
                // Once for each time that it begins, not for each try.
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(%error, "cannot accept connections; trying again");
                }
                // The queue stays readable: without a pause this would spin.
                if !core.rest(Duration::ZERO).await {
                    return;
                }
            }
        }
    }
}

/// Waits for connections, or until it is told to stop, and accepts what one turn takes.
async fn accept_some(core: &Rc<Core>, listener: &Listener, stop: &Stop) -> io::Result<()> {
    let mut readable = pin!(listener.readiness()?.readable(false));
    let ready = poll_fn(|cx| {
        if stop.is_told(cx) {
            return Poll::Ready(false);
        }
        readable.as_mut().poll(cx).map(|_| true)
    });
    match ready.await && !core.fall.told.get() {
        true => accept_queued(core, listener, limits::ACCEPTS_PER_TURN_MAX),
        false => Ok(()),
    }
}

/// Accepts up to `max` queued connections.
fn accept_queued(core: &Rc<Core>, listener: &Listener, max: usize) -> io::Result<()> {
    for _ in 0..max {
        match listener.socket.accept() {
            Ok((stream, peer)) => place(core, stream, peer, listener.on_loopback),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            // This one was reset while it waited; the next may be well.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Serves a new connection here, or has a worker do so that carries far less.
fn place(core: &Rc<Core>, stream: TcpStream, peer: SocketAddr, on_loopback: bool) {
    let Some(lighter) = core.hands_over() else {
        return begin(core, stream, peer, on_loopback);
    };
    let connection = PeerMessage::Connection { stream, peer, on_loopback };
    match core.sharing.hand_over(lighter, connection) {
        None => core.stats.borrow_mut().handed_over += 1,
        Some(PeerMessage::Connection { stream, peer, on_loopback }) => begin(core, stream, peer, on_loopback),
        // What comes back is what was sent.
        Some(_) => {}
    }
}

/// Starts to serve a connection, or closes it.
fn begin(core: &Rc<Core>, stream: TcpStream, peer: SocketAddr, on_loopback: bool) {
    core.stats.borrow_mut().accepted += 1;
    let admission = match core.admit_connection(peer.ip(), &core.snapshot().limits) {
        Ok(admission) => admission,
        Err(error) => {
            core.count_refusal(error.refusal());
            // A new socket has room for it; whoever does not listen any more has lost nothing.
            let _ = (&stream).write(&respond::last_answer(error, true));
            return;
        }
    };
    let socket = stream
        .set_nonblocking(true)
        .and_then(|()| stream.set_nodelay(true))
        .and_then(|()| Socket::new(stream, &core.deadlines));
    // A socket that cannot be set up has been reset by its peer.
    let Ok(socket) = socket else { return };
    let guarded = panic::Guarded::new(connection::serve(Rc::clone(core), socket, peer, on_loopback, admission));
    let core = Rc::clone(core);
    monoio::spawn(async move {
        if guarded.await.is_err() {
            core.stats.borrow_mut().panics += 1;
        }
    });
}
