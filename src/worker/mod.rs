//! A worker: one thread, one event loop, everything its connections need.
//!
//! Started by `server`, told what to do through its mailbox, never waits on another thread.

mod body;
mod connection;
mod core;
mod exchange;
mod panic;
mod record;
mod respond;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use ahash::AHashMap;
use monoio::net::UnixStream;
use monoio::task::JoinHandle;

use self::core::Core;
use crate::clock::{TICK, Tick};
use crate::error::Refusal;
use crate::http::Socket;
use crate::limits;
use crate::seam::{Command, Mailbox, SnapshotCell};
use crate::server::Hooks;

/// What a worker begins with.
pub(crate) struct Start {
    pub(crate) index: usize,
    pub(crate) cell: Arc<SnapshotCell>,
    pub(crate) mailbox: Mailbox,
    pub(crate) listeners: Vec<(SocketAddr, TcpListener)>,
    pub(crate) hooks: Hooks,
}

/// Between looks at pools for connections that are too old or have ended.
const SWEEP_TICKS: u32 = 10;

/// Runs a worker on the current thread's event loop until it has drained.
///
/// # Errors
/// Of the driver, while starting.
pub(crate) async fn run(mut start: Start) -> io::Result<()> {
    let seed = ahash::RandomState::new().hash_one(start.index);
    let core = Rc::new(Core::new(start.cell, seed, start.hooks));
    let _end = EndAll(Rc::clone(&core));
    let mut acceptors = Acceptors { core: Rc::clone(&core), running: AHashMap::new() };
    for (address, listener) in start.listeners.drain(..) {
        acceptors.add(address, listener)?;
    }
    monoio::spawn(tick(Rc::clone(&core)));
    let wake = start.mailbox.wake.take().ok_or_else(|| io::Error::other("the mailbox was taken"))?;
    let wake = UnixStream::from_std(wake)?;
    let mut drain = None;
    loop {
        if wait_for_mail(&wake, &mut drain).await?.is_none() {
            return Ok(());
        }
        start.mailbox.rearm();
        while let Some(command) = start.mailbox.take() {
            match command {
                // Requests find the newest snapshot themselves; this lets go of what it lacks.
                Command::Refresh => core.upstreams.keep_only(core.snapshot().clusters.iter()),
                Command::Listen(listeners) => {
                    for (address, listener) in listeners {
                        if let Err(error) = acceptors.add(address, listener) {
                            tracing::error!(%address, %error, "worker cannot listen");
                        }
                    }
                }
                Command::Unlisten(addresses) => addresses.iter().for_each(|address| acceptors.remove(*address)),
                // A scrape that gave up waiting has dropped its end.
                Command::Stats(reply) => drop(reply.send(core.report())),
                // Beside the mail: what a worker counts can be asked for to its end.
                Command::Drain(timeout) => {
                    core.draining.set(true);
                    drain = Some(monoio::spawn(drained(Rc::clone(&core), acceptors.remove_all(), timeout)));
                }
            }
        }
    }
}

/// Ends the sockets of a worker that ends, by a panic too. The runtime does not free tasks that wait
/// on a descriptor when it is dropped, so their clients would wait for ever.
struct EndAll(Rc<Core>);

impl Drop for EndAll {
    fn drop(&mut self) {
        self.0.deadlines.end_all();
    }
}

/// Waits for a wake-up and takes all that came. `None`: the drain, if one runs, has ended.
async fn wait_for_mail(wake: &UnixStream, drain: &mut Option<JoinHandle<()>>) -> io::Result<Option<()>> {
    use std::os::fd::AsRawFd;

    let mut readable = pin!(wake.readable(false));
    let rung = poll_fn(|cx| {
        if drain.as_mut().is_some_and(|drain| pin!(drain).poll(cx).is_ready()) {
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

/// Advances the coarse clock, enforces deadlines, looks after the pools.
async fn tick(core: Rc<Core>) {
    let mut swept = 0;
    loop {
        // To the next whole tick, so that a deadline is enforced one tick late at most.
        let into_tick = core.age().as_millis() % TICK.as_millis();
        monoio::time::sleep(TICK - Duration::from_millis(into_tick as u64)).await;
        core.hooks.on_tick();
        // By the clock and not by counting: a worker that was busy must not stretch its deadlines.
        let ticks = core.age().as_millis() / TICK.as_millis();
        let now = Tick(u32::try_from(ticks).unwrap_or(u32::MAX - 1));
        core.deadlines.advance(now);
        if now.0 >= swept + SWEEP_TICKS {
            swept = now.0;
            core.upstreams.sweep();
        }
    }
}

/// Lets exchanges finish and `listeners` go, for no longer than `timeout`.
async fn drained(core: Rc<Core>, listeners: Vec<Weak<Listener>>, timeout: Duration) {
    core.upstreams.clear();
    let end = core.deadlines.now().after(timeout);
    loop {
        core.deadlines.end_idle();
        let is_over = core.connections.get() == 0 && listeners.iter().all(|listener| listener.strong_count() == 0);
        // Also when it is over: the runtime closes descriptors a turn late and, ended, not at all. A
        // listening socket left open would go on taking connections that nobody accepts.
        monoio::time::sleep(DRAIN_LOOK).await;
        if is_over || core.deadlines.now() >= end {
            return;
        }
    }
}

/// Between looks at a drain's progress.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// The accepting tasks by address.
struct Acceptors {
    core: Rc<Core>,
    running: AHashMap<SocketAddr, Acceptor>,
}

struct Acceptor {
    listener: Rc<Listener>,
    stop: Rc<Stop>,
}

/// A listening socket: accepted from through the standard library, waited for through the runtime.
/// An accept that the runtime holds would lose its connection when dropped; this one cannot.
struct Listener {
    readiness: monoio::net::TcpListener,
    socket: TcpListener,
}

/// Tells an accepting task to end. The socket is not shut down for that: it may be shared with the
/// process that takes over.
#[derive(Default)]
struct Stop {
    stopped: Cell<bool>,
    task: Cell<Option<Waker>>,
}

impl Acceptors {
    fn add(&mut self, address: SocketAddr, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let readiness = monoio::net::TcpListener::from_std(listener.try_clone()?)?;
        let listener = Rc::new(Listener { readiness, socket: listener });
        let stop = Rc::new(Stop::default());
        monoio::spawn(accept_loop(Rc::clone(&self.core), Rc::clone(&listener), Rc::clone(&stop)));
        self.running.insert(address, Acceptor { listener, stop });
        Ok(())
    }

    /// Takes what is queued, then lets go of the socket.
    fn remove(&mut self, address: SocketAddr) {
        if let Some(acceptor) = self.running.remove(&address) {
            // What cannot be accepted now is lost with the socket.
            let _ = accept_queued(&self.core, &acceptor.listener, usize::MAX);
            acceptor.stop.stopped.set(true);
            acceptor.stop.task.take().into_iter().for_each(Waker::wake);
        }
    }

    /// Gives the listeners, which go when their accepting tasks have ended.
    fn remove_all(&mut self) -> Vec<Weak<Listener>> {
        let listeners = self.running.values().map(|acceptor| Rc::downgrade(&acceptor.listener)).collect();
        let addresses: Vec<_> = self.running.keys().copied().collect();
        addresses.into_iter().for_each(|address| self.remove(address));
        listeners
    }
}

async fn accept_loop(core: Rc<Core>, listener: Rc<Listener>, stop: Rc<Stop>) {
    loop {
        let mut readable = pin!(listener.readiness.readable(false));
        let ready = poll_fn(|cx| {
            if stop.stopped.get() {
                return Poll::Ready(None);
            }
            stop.task.set(Some(cx.waker().clone()));
            readable.as_mut().poll(cx).map(Some)
        });
        if ready.await.is_none() {
            return;
        }
        if let Err(error) = accept_queued(&core, &listener, limits::ACCEPTS_PER_TURN_MAX) {
            core.count_refusal(Refusal::DescriptorsExhausted);
            tracing::warn!(%error, "cannot accept connections; trying again");
            // The queue stays readable: without a pause this would spin.
            monoio::time::sleep(TICK).await;
        }
    }
}

/// Accepts up to `max` queued connections.
fn accept_queued(core: &Rc<Core>, listener: &Listener, max: usize) -> io::Result<()> {
    for _ in 0..max {
        match listener.socket.accept() {
            Ok((stream, peer)) => begin(core, stream, peer),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            // This one was reset while it waited; the next may be well.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Starts to serve a connection, or closes it.
fn begin(core: &Rc<Core>, stream: TcpStream, peer: SocketAddr) {
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
    let guarded = panic::Guarded::new(connection::serve(Rc::clone(core), socket, peer, admission));
    let core = Rc::clone(core);
    monoio::spawn(async move {
        if guarded.await.is_err() {
            core.stats.borrow_mut().panics += 1;
        }
    });
}
