//! The control thread as a whole: real loop, real admin connections, workers that only listen to
//! their commands.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, unbounded};

use super::*;
use crate::config;
use crate::seam::{Mailbox, WorkerHandle, WorkerStats, mailbox};

const TAKEN: &str = "127.0.0.9:9";

/// What the workers are told and the fleet is asked for, in order.
type Events = Receiver<String>;

/// A fleet of one worker that answers, and of as many as wanted that never do.
struct FakeFleet {
    events: Sender<String>,
    workers: Vec<WorkerHandle>,
    /// Kept, so that the silent worker's mailbox stays open.
    _silent: Vec<Mailbox>,
    ended: Arc<AtomicBool>,
}

impl FakeFleet {
    fn start(silent: usize) -> (Self, Events) {
        let (events, receiver) = unbounded();
        let ended = Arc::new(AtomicBool::new(false));
        let (handle, mailbox_of_worker) = mailbox().expect("a mailbox");
        let worker = Worker { events: events.clone(), ended: Arc::clone(&ended) };
        thread::spawn(move || worker.run(mailbox_of_worker));
        let silent = (0..silent).map(|_| mailbox().expect("a mailbox"));
        let (handles, silent): (Vec<_>, Vec<_>) = silent.unzip();
        let workers = [vec![handle], handles].concat();
        (Self { events, workers, _silent: silent, ended }, receiver)
    }

    fn note(&self, event: String) {
        self.events.send(event).expect("the test listens");
    }
}

impl Fleet for FakeFleet {
    fn workers(&self) -> Vec<WorkerHandle> {
        self.workers.clone()
    }

    fn bind(&self, address: SocketAddr) -> io::Result<BoundListener> {
        if address.to_string() == TAKEN {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        self.note(format!("bind {address}"));
        Ok(BoundListener { address, own: Vec::new(), shared: Vec::new() })
    }

    fn adopt(&mut self, listeners: Vec<BoundListener>) -> io::Result<()> {
        listeners.iter().for_each(|listener| self.note(format!("adopt {}", listener.address)));
        Ok(())
    }

    fn sockets(&self) -> io::Result<Vec<HandedSocket>> {
        Ok(Vec::new())
    }

    fn release(&mut self, address: SocketAddr) {
        self.note(format!("release {address}"));
    }

    fn release_all(&mut self) {}

    fn supervise(&mut self) -> Vec<usize> {
        Vec::new()
    }

    fn drained(&mut self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    fn io_driver(&self) -> &'static str {
        "epoll"
    }
}

struct Worker {
    events: Sender<String>,
    ended: Arc<AtomicBool>,
}

impl Worker {
    /// Until control has gone. Told to drain it says so and goes on: its exchanges take long.
    fn run(self, mut mailbox: Mailbox) {
        let mut wake = mailbox.wake.take().expect("not taken before");
        wake.set_nonblocking(false).expect("a socket");
        while wake.read(&mut [0]).is_ok_and(|length| length > 0) {
            mailbox.rearm();
            while let Some(command) = mailbox.take() {
                match command {
                    Command::Stats(reply) => {
                        reply.send(WorkerStats { accepted: 7, ..WorkerStats::default() }).expect("control waits");
                    }
                    Command::Drain(_) => self.events.send("drain".into()).expect("the test listens"),
                    other => drop(self.events.send(format!("{other:?}").to_lowercase())),
                }
            }
        }
        self.ended.store(true, Ordering::Release);
    }
}

struct Running {
    file: PathBuf,
    admin: SocketAddr,
    handle: ControlHandle,
    events: Events,
    ended: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Exit>>,
}

const BACKEND: &str = "[backends.weather]\nendpoints = [\"http://10.0.0.7:9001/mcp\"]\n";

fn text(server: &str) -> String {
    format!("[server]\n{server}\n{BACKEND}")
}

fn temporary_file() -> PathBuf {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("ringway-control-{}-{number}.toml", std::process::id()))
}

fn start(text: &str, silent_workers: usize) -> Running {
    let file = temporary_file();
    fs::write(&file, text).expect("a temporary file");
    let source = Source::File(file.clone());
    start_from(config::load(&file).expect("a configuration"), source, silent_workers, file)
}

fn start_from(config: Config, source: Source, silent_workers: usize, file: PathBuf) -> Running {
    let resolver = Resolver::at_start(&config);
    let snapshot = Snapshot::build(&config, &resolver.addresses(&config), None).expect("a snapshot");
    let (fleet, events) = FakeFleet::start(silent_workers);
    let ended = Arc::clone(&fleet.ended);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let admin = listener.local_addr().expect("bound");
    let orders = channel().expect("a channel");
    let handle = orders.0.clone();
    let access_log = AccessLog::start(&config.log.access).expect("a log");
    let parts = ControlParts {
        config,
        source,
        cell: Arc::new(SnapshotCell::from_pointee(snapshot)),
        resolver,
        fleet: Box::new(fleet),
        admin: Some(listener),
        orders,
        signals: None,
        access_log,
        lost_log_lines: None,
        listeners: Vec::new(),
        program: None,
        predecessor: None,
        notifier: Notifier::default(),
        tick: None,
    };
    let thread = thread::spawn(move || run(parts));
    Running { file, admin, handle, events, ended, thread }
}

impl Running {
    fn rewrite(&self, text: &str) {
        fs::write(&self.file, text).expect("a temporary file");
    }

    fn ask(&self, method: &str, path: &str) -> (u16, String) {
        self.send(&format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.admin))
    }

    fn send(&self, request: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.admin).expect("the admin listener");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        (head[9..12].parse().expect("a status"), body.to_owned())
    }

    fn metric(&self, name: &str) -> String {
        let (status, page) = self.ask("GET", "/metrics");
        assert_eq!(status, 200);
        let line = page.lines().find_map(|line| line.strip_prefix(name)).expect("the metric is there");
        line.trim().to_owned()
    }

    fn events_so_far(&self) -> Vec<String> {
        self.events.try_iter().collect()
    }

    fn stop(self) -> Exit {
        self.ended.store(true, Ordering::Release);
        self.handle.stop();
        let exit = self.thread.join().expect("no panic").expect("a loop");
        let _ = fs::remove_file(&self.file);
        // The fleet and its worker hold the other ends: nothing of the loop has been left behind.
        while let Ok(_unread) = self.events.recv_timeout(Duration::from_secs(10)) {}
        assert_eq!(self.events.try_recv(), Err(TryRecvError::Disconnected));
        exit
    }
}

fn fault_keys(outcome: &Option<Outcome>) -> Vec<&str> {
    match outcome {
        Some(Outcome::Refused(faults)) => faults.iter().map(|fault| fault.key.as_str()).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn pages_answer() {
    let proxy = start(&text(""), 0);
    assert_eq!(proxy.ask("GET", "/livez"), (200, "alive\n".into()));
    assert_eq!(proxy.ask("GET", "/readyz"), (200, "ready\n".into()));
    assert_eq!(proxy.ask("HEAD", "/readyz"), (200, String::new()));
    assert_eq!(proxy.ask("GET", "/nowhere").0, 404);
    assert_eq!(proxy.ask("GET", "/reload").0, 405);
    assert_eq!(proxy.ask("DELETE", "/metrics").0, 405);
    assert_eq!(proxy.metric("ringway_connections_accepted_total"), "7");
    let page = |path| {
        let (status, body) = proxy.ask("GET", path);
        assert_eq!(status, 200);
        serde_json::from_str::<serde_json::Value>(&body).expect("JSON")
    };
    assert_eq!(page("/backends")["backends"]["weather"]["endpoints"][0]["addresses"][0]["address"], "10.0.0.7:9001");
    assert_eq!(page("/config")["config"]["backends"]["weather"]["endpoints"][0], "http://10.0.0.7:9001/mcp");
    assert_eq!(page("/stats")["workers"][0]["counted"]["accepted"], 7);
    assert_eq!(proxy.stop(), Exit::Clean);
}

#[test]
fn secrets_are_hidden_and_asked_for() {
    let token = "0123456789abcdef";
    let proxy = start(&format!("[admin]\ntoken = \"{token}\"\n{BACKEND}"), 0);
    assert_eq!(proxy.ask("GET", "/config").0, 401);
    assert_eq!(proxy.ask("GET", "/nowhere").0, 401);
    assert_eq!(proxy.ask("GET", "/livez").0, 200);
    let (status, body) =
        proxy.send(&format!("GET /config HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"));
    assert_eq!(status, 200);
    assert!(body.contains("\"token\": \"***\"") && !body.contains(token));
    proxy.stop();
}

#[test]
fn hostile_requests_get_an_answer_and_no_more() {
    let proxy = start(&text(""), 0);
    let host = format!("Host: {}\r\n", proxy.admin);
    assert_eq!(proxy.send("nonsense\r\n\r\n").0, 400);
    assert_eq!(proxy.send(&format!("GET / HTTP/1.1\r\n{host}X: {}\r\n\r\n", "x".repeat(20_000))).0, 431);
    assert_eq!(proxy.send(&format!("POST /reload HTTP/1.1\r\n{host}Content-Length: 70000\r\n\r\n")).0, 413);
    assert_eq!(proxy.send(&format!("POST /reload HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n")).0, 411);
    assert_eq!(proxy.send("POST /reload HTTP/1.1\r\nHost: rebound.example\r\n\r\n").0, 403);
    assert_eq!(proxy.events_so_far(), [""; 0]);
    proxy.stop();
}

#[test]
fn a_reload_binds_then_publishes_then_listens_then_releases() {
    let proxy = start(&text("listen = [\"127.0.0.1:8080\", \"127.0.0.1:8081\"]"), 0);
    proxy.rewrite(&text("listen = [\"127.0.0.1:8081\", \"127.0.0.1:8082\"]"));
    let (status, body) = proxy.ask("POST", "/reload");
    assert_eq!((status, body.contains("\"generation\": 2")), (200, true), "{body}");
    // The worker hears of the snapshot on its own thread.
    assert_eq!(proxy.metric("ringway_config_generation"), "2");
    let events = proxy.events_so_far();
    let of_fleet: Vec<_> = events.iter().filter(|event| *event != "refresh").collect();
    assert_eq!(of_fleet, ["bind 127.0.0.1:8082", "adopt 127.0.0.1:8082", "release 127.0.0.1:8080"]);
    assert_eq!(events.len(), 4, "the worker was told once: {events:?}");
    assert_eq!(proxy.metric("ringway_reloads_total{result=\"ok\"}"), "1");
    proxy.stop();
}

#[test]
fn a_bad_file_changes_nothing_and_says_all_that_is_wrong() {
    let proxy = start(&text(""), 0);
    proxy.rewrite(&text("lisen = 1\nworkers = -1"));
    let (status, body) = proxy.ask("POST", "/reload");
    assert_eq!(status, 422);
    let faults = &serde_json::from_str::<serde_json::Value>(&body).expect("JSON")["faults"];
    assert_eq!(faults.as_array().map(Vec::len), Some(2), "{body}");
    assert_eq!(faults[0]["line"], 2);
    assert_eq!(proxy.metric("ringway_config_generation"), "1");
    assert_eq!(proxy.metric("ringway_reloads_total{result=\"failed\"}"), "1");
    assert_eq!(proxy.metric("ringway_config_last_reload_successful"), "0");
    proxy.rewrite(&text(""));
    assert_eq!(proxy.handle.reload(), Some(Outcome::Done(2)));
    assert_eq!(proxy.metric("ringway_config_last_reload_successful"), "1");
    proxy.stop();
}

#[test]
fn an_address_that_cannot_be_bound_refuses_the_whole_reload() {
    let proxy = start(&text("listen = [\"127.0.0.1:8080\"]"), 0);
    proxy.rewrite(&text(&format!("listen = [\"127.0.0.1:8081\", \"{TAKEN}\"]")));
    assert_eq!(fault_keys(&proxy.handle.reload()), ["server.listen"]);
    assert_eq!(proxy.metric("ringway_config_generation"), "1");
    assert_eq!(proxy.events_so_far(), ["bind 127.0.0.1:8081"], "bound, and dropped again");
    proxy.stop();
}

#[test]
fn a_key_that_needs_a_restart_refuses_the_reload() {
    let proxy = start(&text("workers = 1"), 0);
    proxy.rewrite(&text("workers = 2"));
    assert_eq!(fault_keys(&proxy.handle.reload()), ["server.workers"]);
    proxy.stop();
}

#[test]
fn the_embedded_configuration_cannot_be_reloaded() {
    let config = config::load_str("test", BACKEND).expect("a configuration");
    let proxy = start_from(config, Source::Fixed, 0, temporary_file());
    assert_eq!(proxy.ask("POST", "/reload").0, 409);
    assert_eq!(proxy.metric("ringway_reloads_total{result=\"ok\"}"), "0");
    proxy.stop();
}

#[test]
fn reloads_asked_for_at_once_run_one_after_the_other() {
    let proxy = start(&text(""), 0);
    let reloads: Vec<_> = (0..8)
        .map(|_| {
            let handle = proxy.handle.clone();
            thread::spawn(move || handle.reload())
        })
        .collect();
    let generation = |outcome| match outcome {
        Some(Outcome::Done(generation)) => generation,
        other => panic!("{other:?}"),
    };
    let mut generations: Vec<_> =
        reloads.into_iter().map(|reload| generation(reload.join().expect("no panic"))).collect();
    generations.sort_unstable();
    assert_eq!(generations, [2, 3, 4, 5, 6, 7, 8, 9]);
    proxy.stop();
}

#[test]
fn a_silent_worker_is_reported_and_holds_nobody_up() {
    let proxy = start(&text(""), 1);
    let (status, page) = proxy.ask("GET", "/metrics");
    assert_eq!(status, 200);
    assert!(page.contains("ringway_worker_up{worker=\"0\"} 1\nringway_worker_up{worker=\"1\"} 0\n"));
    proxy.stop();
}

#[test]
fn a_drain_shows_at_once_and_ends_when_the_workers_have() {
    let proxy = start(&text(""), 0);
    proxy.handle.stop();
    assert_eq!(proxy.events.recv_timeout(Duration::from_secs(10)).as_deref(), Ok("drain"));
    assert_eq!(proxy.ask("GET", "/readyz"), (503, "draining\n".into()));
    assert_eq!(proxy.ask("GET", "/livez").0, 200);
    assert_eq!(proxy.ask("POST", "/reload").0, 503);
    assert_eq!(proxy.handle.reload(), Some(Outcome::Draining));
    proxy.ended.store(true, Ordering::Release);
    assert!(matches!(proxy.thread.join().expect("no panic"), Ok(Exit::Clean)));
    remove(&proxy.file);
}

#[test]
fn a_drain_does_not_outlast_its_timeout() {
    let proxy = start(&text("drain_timeout_ms = 0"), 0);
    proxy.handle.stop();
    assert!(matches!(proxy.thread.join().expect("no panic"), Ok(Exit::Clean)));
    remove(&proxy.file);
}

#[test]
fn told_twice_to_stop_it_ends_at_once() {
    let proxy = start(&text(""), 0);
    proxy.handle.stop();
    proxy.handle.stop();
    assert!(matches!(proxy.thread.join().expect("no panic"), Ok(Exit::AtOnce)));
    remove(&proxy.file);
}

fn remove(file: &Path) {
    fs::remove_file(file).expect("it was written");
}
