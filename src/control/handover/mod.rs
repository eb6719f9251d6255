//! Handing over to a new process: the program is started again, gets the listening sockets, and says
//! when it is ready; then it accepts, and this process drains.
//!
//! The whole talk with the successor is [`give`], on a helper thread, since it waits. Whatever goes
//! wrong in it ends the successor and changes nothing here. [`Predecessor`] is the same talk seen
//! from the new process.

mod link;

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use tracing::{error, info, warn};

use super::{Control, wait};
use crate::clock;
use crate::seam::RandomSecret;
use link::{LINK_VARIABLE, Link, Message};

pub use link::{HandedSocket, Place, Plane};

/// Between two steps that need nothing but that the other process runs.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a successor that gave up may take to end by itself, so that its exit code can be told.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// What a service manager passes to one process alone, and must not be taken for the successor's.
const NOT_INHERITED: [&str; 4] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"];

/// How this process was started, and its successor is to be.
#[derive(Clone, Debug)]
pub struct Program {
    /// Absolute; symbolic links in it are followed when it is started again.
    pub path: PathBuf,
    /// With the program's name in front.
    pub arguments: Vec<OsString>,
}

/// A successor that serves, and the link to it.
struct Successor {
    child: Child,
    link: Arc<Link>,
}

/// Hands over. On success the control loop is told to drain; else everything stays as it is.
pub(super) async fn run(control: &Rc<Control>) {
    // No reload meanwhile: the sockets are those of the configuration in force.
    let _turn = control.turn().await;
    let Some(program) = control.program.clone() else {
        return warn!("not handed over: runs inside another program");
    };
    if control.draining.get() {
        return warn!("not handed over: draining");
    }
    if std::process::id() == 1 {
        // A container ends with its first process, and its successor with it.
        return error!("not handed over: this is process 1, with which all others end; start a new container instead");
    }
    control.handing_over.set(true);
    let outcome = hand_over(control, program).await;
    control.handing_over.set(false);
    match outcome {
        Ok(successor) => {
            let pid = successor.child.id();
            info!(pid, "handed over");
            control.count(|counters| counters.handovers_ok += 1);
            control.notifier.tell(&format!("MAINPID={pid}"));
            // It serves, whether it hears of this or not.
            let _ = successor.link.send(&Message::Done);
            control.handle.handed_over();
        }
        Err(problem) if control.draining.get() => info!(%problem, "not handed over: draining"),
        Err(problem) => {
            control.count(|counters| counters.handovers_failed += 1);
            error!(%problem, "not handed over: this process serves on");
        }
    }
}

async fn hand_over(control: &Control, program: Program) -> io::Result<Successor> {
    let mut sockets = control.fleet.borrow().sockets()?;
    if let (Some(address), Some(admin)) = (control.config().admin.listen, &control.admin) {
        sockets.push((Place { plane: Some(Plane::Admin), address }, admin.try_clone()?));
    }
    let secret = control.cell.load().sessions.random_secret();
    let timeout = control.config().server.handover_timeout;
    let (link, theirs) = Link::pair()?;
    let link = Arc::new(link);
    let (sender, outcome) = bounded(1);
    let shared = Arc::clone(&link);
    info!(path = %program.path.display(), sockets = sockets.len(), "handing over");
    thread::Builder::new().name("ringway-heir".into()).spawn(move || {
        // Nobody waits any more if this process has begun to end.
        let _ = sender.send(start(&program, theirs).and_then(|child| give(child, &shared, &sockets, secret, timeout)));
    })?;
    awaited(control, &link, &outcome).await
}

/// The helper thread's answer. A process that was told to end takes no successor, and waits with its
/// end until there is none.
async fn awaited(control: &Control, link: &Arc<Link>, outcome: &Receiver<io::Result<Child>>) -> io::Result<Successor> {
    loop {
        match outcome.try_recv() {
            Ok(child) if control.draining.get() => {
                kill(&mut child?);
                return Err(io::Error::other("told to end meanwhile"));
            }
            Ok(child) => return Ok(Successor { child: child?, link: Arc::clone(link) }),
            Err(TryRecvError::Disconnected) => return Err(io::Error::other("the helper thread failed")),
            Err(TryRecvError::Empty) => {}
        }
        if control.draining.get() {
            link.close();
        }
        monoio::time::sleep(wait::LOOK_AGAIN).await;
    }
}

fn start(program: &Program, stdin: impl Into<Stdio>) -> io::Result<Child> {
    let mut command = Command::new(&program.path);
    let mut arguments = program.arguments.iter();
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments).stdin(stdin).env(LINK_VARIABLE, "stdin");
    for variable in NOT_INHERITED {
        command.env_remove(variable);
    }
    let failed =
        |error: io::Error| io::Error::new(error.kind(), format!("cannot start {}: {error}", program.path.display()));
    // The command is dropped with this, and with it our copy of the successor's end.
    command.spawn().map_err(failed)
}

/// Hands everything to a process that was started, until it serves; or ends it.
fn give(
    mut child: Child,
    link: &Link,
    sockets: &[HandedSocket],
    secret: Option<RandomSecret>,
    timeout: Duration,
) -> io::Result<Child> {
    let talk = || {
        link.set_timeout(timeout)?;
        link.send_all(sockets, secret)?;
        link.expect(&Message::Ready)?;
        link.set_timeout(STEP_TIMEOUT)?;
        link.send(&Message::Go)?;
        link.expect(&Message::Serving)
    };
    match talk() {
        Ok(()) => Ok(child),
        Err(error) => {
            link.close();
            Err(io::Error::new(error.kind(), format!("the new process {}: {error}", end(&mut child))))
        }
    }
}

/// Ends a process that is not wanted, and says how it ended.
fn end(child: &mut Child) -> String {
    let deadline = clock::now() + END_TIMEOUT;
    let mut ended: Option<ExitStatus> = None;
    while ended.is_none() && clock::now() < deadline {
        ended = child.try_wait().unwrap_or_default();
        #[expect(clippy::disallowed_methods, reason = "a helper thread waits for a process that is about to end")]
        thread::sleep(wait::LOOK_AGAIN);
    }
    if let Some(status) = ended {
        return format!("ended early ({status})");
    }
    kill(child);
    "was not ready and has been killed".to_owned()
}

fn kill(child: &mut Child) {
    // It cannot have ended unseen: nobody else waits for it.
    let _ = child.kill();
    let _ = child.wait();
}

/// The process that this one takes over from.
#[derive(Debug)]
pub struct Predecessor(Link);

/// What a predecessor hands over.
#[derive(Debug)]
pub struct Handed {
    /// Its listening sockets, the admin listener's among them.
    pub sockets: Vec<HandedSocket>,
    /// What its session keys are made of, if they are random.
    pub session_secret: Option<RandomSecret>,
    /// To tell that we are ready.
    pub predecessor: Predecessor,
}

impl Predecessor {
    /// Receives what a predecessor hands over, if there is one.
    ///
    /// # Errors
    /// When there should be one but it does not speak.
    pub fn find() -> io::Result<Option<Handed>> {
        if std::env::var_os(LINK_VARIABLE).is_none_or(|value| value.is_empty()) {
            return Ok(None);
        }
        let link = Link::of_stdin()?;
        link.set_timeout(STEP_TIMEOUT)?;
        let (sockets, session_secret) = link.receive_all()?;
        Ok(Some(Handed { sockets, session_secret, predecessor: Self(link) }))
    }

    /// Says that nothing can fail any more, and waits for the word to accept.
    pub(super) fn ask(&self) -> io::Result<()> {
        self.0.send(&Message::Ready)?;
        self.0.expect(&Message::Go)
    }

    /// Says that connections are accepted, and waits until the service manager knows of us.
    pub(super) fn tell_serving(&self) {
        let done = self.0.send(&Message::Serving).and_then(|()| self.0.expect(&Message::Done));
        if let Err(error) = done {
            // It may have crashed; its connections are lost then, but its sockets are here.
            warn!(%error, "the predecessor did not end the hand-over");
        }
    }
}
