//! Faults inside: what falls is up again soon, or everything ends; nothing goes on half dead.

use std::collections::HashSet;
use std::io::{PipeWriter, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ringway::config;
use ringway::control::log;
use ringway::server::{self, Hooks, Inherited, RunError, Source};

use crate::support::{Backend, Client, Process, Proxy, Reserved, TempFile, eventually, json, refuses};

#[expect(clippy::disallowed_methods, reason = "what is promised is a time")]
fn now() -> Instant {
    Instant::now()
}

/// When the test's worker fell.
static FELL: OnceLock<Instant> = OnceLock::new();
static FALL: AtomicBool = AtomicBool::new(false);

fn fall_once() {
    if FALL.swap(false, Ordering::SeqCst) {
        FELL.get_or_init(now);
        panic!("the test's own panic");
    }
}

#[test]
fn a_worker_that_falls_is_started_again_at_once() {
    let backend = Backend::always(json("{}"));
    let proxy = Proxy::builder()
        .workers(1)
        .backend("b", &[backend.address()])
        .hooks(Hooks { tick: Some(fall_once), ..Hooks::default() })
        .start();
    assert_eq!(proxy.client().call().status, 200);
    FALL.store(true, Ordering::SeqCst);
    eventually("it falls", || !FALL.load(Ordering::SeqCst));
    // It waits in the queue that the dead one leaves to the next.
    assert_eq!(proxy.client().call().status, 200);
    println!("served again {:?} after the panic", FELL.get().expect("it fell").elapsed());
    assert_eq!(proxy.metric("ringway_worker_restarts_total"), 1.0);
}

static FALLS_DUE: AtomicUsize = AtomicUsize::new(0);

fn fall_when_due() {
    let due = FALLS_DUE.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |due| due.checked_sub(1));
    assert!(due.is_err(), "the test's own panic");
}

/// The sockets that listen on a port, and the descriptors that this process has of them.
fn listening(address: SocketAddr) -> (usize, usize) {
    let port = format!(":{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let rows = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let sockets: HashSet<String> = rows
        .filter(|row| row[1].ends_with(&port) && row[3] == "0A")
        .map(|row| format!("socket:[{}]", row[9]))
        .collect();
    let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten().flat_map(|entry| entry.path().read_link());
    (sockets.len(), links.filter(|link| sockets.contains(link.to_str().unwrap_or_default())).count())
}

#[test]
fn workers_that_fall_leave_no_listener_behind() {
    const FALLS: usize = 3;
    let backend = Backend::always(json("{}"));
    let (place, file) = (Reserved::new(), TempFile::new());
    let with = |addresses: &str| {
        let text = Proxy::builder().workers(2).backend("b", &[backend.address()]);
        text.server(&format!("listen = [{addresses}]")).hooks(Hooks { tick: Some(fall_when_due), ..Hooks::default() })
    };
    let mut proxy = with(&format!("\"127.0.0.1:0\", \"{}\"", place.address)).start_from(file.path());
    let addresses = [proxy.address(), place.address];
    let before = addresses.map(listening);
    assert!(before.iter().all(|(sockets, descriptors)| (*sockets, *descriptors >= 4) == (2, true)), "{before:?}");
    for fallen in 1..=FALLS {
        FALLS_DUE.store(1, Ordering::SeqCst);
        eventually("a worker falls", || FALLS_DUE.load(Ordering::SeqCst) == 0);
        // Those that come meanwhile wait in a queue that goes on to the next worker.
        let mut crowd: Vec<Client> = (0..200).map(|number| Client::connect(addresses[number % 2])).collect();
        crowd.iter_mut().for_each(|client| assert_eq!(client.call().status, 200));
        assert_eq!(proxy.metric("ringway_worker_restarts_total"), fallen as f64);
    }
    eventually("there are as many as before", || addresses.map(listening) == before);
    // What is let go is refused, and not left in a queue.
    file.write(&with("\"127.0.0.1:0\"").text());
    proxy.reloads();
    eventually("nobody listens there", || refuses(place.address));
    assert_eq!(proxy.client().call().status, 200);
    proxy.server().stop().unwrap();
    assert!(refuses(addresses[0]));
}

static KEEP_FALLING: AtomicBool = AtomicBool::new(false);
static FALLS: AtomicUsize = AtomicUsize::new(0);

fn keep_falling() {
    if KEEP_FALLING.load(Ordering::SeqCst) {
        FALLS.fetch_add(1, Ordering::SeqCst);
        panic!("the test's own panic");
    }
}

#[test]
fn a_worker_that_does_not_last_is_not_started_in_a_circle() {
    let backend = Backend::always(json("{}"));
    let proxy = Proxy::builder()
        .workers(1)
        .backend("b", &[backend.address()])
        .hooks(Hooks { tick: Some(keep_falling), ..Hooks::default() })
        .start();
    let begun = now();
    KEEP_FALLING.store(true, Ordering::SeqCst);
    // At once, after a second, after two more.
    eventually("the fourth fall", || FALLS.load(Ordering::SeqCst) == 4);
    assert!(begun.elapsed() >= Duration::from_secs(3), "four falls within {:?}", begun.elapsed());
    KEEP_FALLING.store(false, Ordering::SeqCst);
    assert_eq!(proxy.client().call().status, 200, "and when it lasts it serves");
    assert_eq!(proxy.metric("ringway_worker_restarts_total"), 4.0);
}

static END_CONTROL: AtomicBool = AtomicBool::new(false);

fn end_control() {
    assert!(!END_CONTROL.load(Ordering::SeqCst), "the control thread's own panic");
}

/// What the binary does, with hooks.
fn serve(file: &str, hooks: Hooks) -> Result<(), RunError> {
    let config = config::load(file.as_ref()).unwrap();
    let process = server::Process {
        inherited: Inherited::default(),
        program: server::program().unwrap(),
        log: log::init(),
        hooks,
    };
    server::run(config, Source::File(file.into()), process, |_| Ok(()))
}

/// Ends this process.
fn serve_until_control_dies(file: &str) -> ! {
    std::thread::spawn(|| {
        // Its input ends when the test has seen it serve.
        let _ = std::io::stdin().lines().count();
        END_CONTROL.store(true, Ordering::SeqCst);
    });
    let ended = serve(file, Hooks { control: Some(end_control), ..Hooks::default() });
    let is_control = matches!(ended, Err(RunError::Control(_)));
    std::process::exit(if is_control { 1 } else { 99 });
}

/// Has a worker fall for each line that comes. Ends this process.
fn serve_and_fall(file: &str) -> ! {
    std::thread::spawn(|| {
        for _ in std::io::stdin().lines() {
            FALLS_DUE.fetch_add(1, Ordering::SeqCst);
        }
    });
    let ended = serve(file, Hooks { tick: Some(fall_when_due), ..Hooks::default() });
    std::process::exit(ended.is_err().into());
}

/// Says to this very test, in another process, what file to serve.
const FILE: &str = "RINGWAY_TEST_SERVE";

/// This very test, in another process, which hears what is written.
fn again(file: &TempFile, driver: &str) -> (Process, PipeWriter) {
    let name = std::thread::current().name().expect("the name of the test").to_owned();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([name.as_str(), "--exact"]).env(FILE, file.path()).env("RINGWAY_IO_DRIVER", driver);
    let (reader, writer) = std::io::pipe().unwrap();
    let process = Process::start({
        command.stdin(Stdio::from(reader));
        command
    });
    (process, writer)
}

#[test]
fn workers_that_fall_leave_no_descriptor_behind() {
    if let Ok(file) = std::env::var(FILE) {
        serve_and_fall(&file);
    }
    let backend = Backend::always(json("{}"));
    for driver in ["auto", "epoll"] {
        let file = TempFile::with(&Proxy::builder().workers(2).backend("b", &[backend.address()]).text());
        let (process, mut orders) = again(&file, driver);
        process.wait_for_workers();
        assert_eq!(process.client().call().status, 200);
        process.admin.comes_to_rest();
        // A connection to its backend goes with the worker that has it.
        let now = || process.descriptors() - process.admin.metric("ringway_connections{side=\"upstream\"}") as usize;
        let before = now();
        for fallen in 1..=3 {
            writeln!(orders).unwrap();
            eventually("a worker falls", || process.admin.metric("ringway_worker_restarts_total") == f64::from(fallen));
        }
        // One that was about to be closed may be among those before; three falls would leave three.
        eventually(&format!("{driver}: there are no more descriptors than {before}"), || now() <= before);
    }
}

#[test]
fn without_its_control_thread_the_process_ends() {
    if let Ok(file) = std::env::var(FILE) {
        serve_until_control_dies(&file);
    }
    let backend = Backend::always(json("{}"));
    let file = TempFile::with(&Proxy::builder().backend("b", &[backend.address()]).text());
    let (process, writer) = again(&file, "auto");
    let mut client = process.client();
    assert_eq!(client.call().status, 200);
    drop(writer);
    let panic = process.logs("panic");
    assert_eq!(panic["reason"], "the control thread's own panic");
    let told = process.logs("the control thread failed, so this process ends: it panicked");
    assert_eq!(told["level"], "ERROR");
    assert!(client.ended());
    assert_eq!(process.end().code(), Some(1));
}
