//! Faults inside: what falls is up again soon, or everything ends; nothing goes on half dead.

use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ringway::config;
use ringway::control::log;
use ringway::server::{self, Hooks, Inherited, RunError, Source};

use crate::support::{Backend, Process, Proxy, TempFile, eventually, json};

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
fn a_worker_is_back_within_a_second() {
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
    let took = FELL.get().expect("it fell").elapsed();
    println!("served again {took:?} after the panic");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(proxy.metric("ringway_worker_restarts_total"), 1.0);
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

/// What the binary does, with a hook. Ends this process.
fn serve_until_control_dies(file: &str) -> ! {
    let config = config::load(file.as_ref()).unwrap();
    let hooks = Hooks { control: Some(end_control), ..Hooks::default() };
    let process = server::Process {
        inherited: Inherited::default(),
        program: server::program().unwrap(),
        log: log::init(),
        hooks,
    };
    std::thread::spawn(|| {
        // Its input ends when the test has seen it serve.
        let _ = std::io::stdin().lines().count();
        END_CONTROL.store(true, Ordering::SeqCst);
    });
    let ended = server::run(config, Source::File(file.into()), process, |_| Ok(()));
    let is_control = matches!(ended, Err(RunError::Control(_)));
    std::process::exit(if is_control { 1 } else { 99 });
}

#[test]
fn without_its_control_thread_the_process_ends() {
    const FILE: &str = "RINGWAY_TEST_SERVE";
    if let Ok(file) = std::env::var(FILE) {
        serve_until_control_dies(&file);
    }
    let backend = Backend::always(json("{}"));
    let file = TempFile::with(&Proxy::builder().backend("b", &[backend.address()]).text());
    // This very test, in another process.
    let name = std::thread::current().name().expect("the name of the test").to_owned();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([name.as_str(), "--exact"]).env(FILE, file.path());
    let (reader, writer) = std::io::pipe().unwrap();
    let process = Process::start({
        command.stdin(Stdio::from(reader));
        command
    });
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
