//! Reload after reload under load, with everything changing and every kind of bad file between the good
//! ones: no call fails, no connection is dropped, no session is lost, and memory stays where it is.
//!
//! Five seconds of it; `RINGWAY_TORTURE_SECONDS=30` for the length that `docs/reliability.md` speaks of.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded, tick};
use nix::sys::signal::Signal;
use ringway::{clock, config};

use crate::support::backend::{EVENT_STREAM, LAST_CHUNK, chunk, event};
use crate::support::client::{GET, post};
use crate::support::load::{Closing, under_load};
use crate::support::session::{ask, initialize, legacy_server};
use crate::support::{
    Backend, Client, PATIENCE, Process, Proxy, ProxyBuilder, Reserved, TempFile, eventually, json, refuses,
};

const EVERY: Duration = Duration::from_millis(100);

/// Backends that nobody calls, so that a reload has something to do.
const EXTRAS: usize = 100;

/// What resident memory may grow by, from after the first quarter to the end: what is filled as it is
/// needed, buffers and the allocator's caches, took up to 2 MiB. That no snapshot is kept is counted.
const GROWTH_MAX: usize = 8 << 20;

struct Stage {
    sessions: Backend,
    others: [Backend; 2],
    streaming: Backend,
    comers: [Reserved; 2],
}

impl Stage {
    /// The configuration of a round. The first listener, and the endpoint that has the session, stay.
    fn text(&self, round: usize) -> String {
        let listed: Vec<String> = self
            .comers
            .iter()
            .enumerate()
            .filter(|(number, _)| self.listens(round, *number))
            .map(|(_, comer)| format!(", \"{}\"", comer.address))
            .collect();
        let other = &self.others[round % 2];
        let mut builder: ProxyBuilder = Proxy::builder()
            .server(&format!("listen = [\"127.0.0.1:0\"{}]", listed.concat()))
            .limits(&format!("body_bytes_max = {}\nheaders_max = {}", 10_000 + round, 50 + round % 50))
            .limits(&format!("idle_timeout_ms = {}\nexchanges_per_worker_max = {}", 60_000 + round, 1000 + round))
            .backend("b", &[self.sessions.address()])
            // A round may take longer than a stream is silent by default.
            .backend_with("s", &[self.streaming.address()], "keep_alive_ms = 0")
            .backend("other", &[other.address()]);
        // A second endpoint comes and goes; what has a session is not sent there.
        if round.is_multiple_of(3) {
            builder =
                builder.backend_with("pair", &[other.address(), self.sessions.address()], "balance = \"round_robin\"");
        }
        let mut extras = String::new();
        for number in 0..EXTRAS {
            let place = format!("http://127.0.0.1:{}/mcp-{}", 1000 + number, round % 7);
            writeln!(extras, "[backends.extra-{number}]\nendpoints = [\"{place}\"]").unwrap();
        }
        let routes = format!(
            "{extras}[[routes]]\npath = \"/mcp/{{backend}}\"\n[[routes]]\npath = \"/round\"\nbackend = \"other\"\nmethods = [\"{}\"]\n",
            if round.is_multiple_of(2) { "POST" } else { "GET" }
        );
        builder.routes(&routes).text()
    }

    fn listens(&self, round: usize, comer: usize) -> bool {
        !(round + comer).is_multiple_of(3)
    }
}

/// Puts a file there that must not come into force, and says what for.
fn spoil(file: &TempFile, good: &str, round: usize) -> &'static str {
    match round % 4 {
        0 => file.write(""),
        1 => file.write("nonsense = ["),
        2 => file.write(cut_off(good, round)),
        _ => fs::remove_file(file.path()).unwrap(),
    }
    ["empty", "bad", "truncated", "missing"][round % 4]
}

/// The front of a text, cut where what is left is no configuration.
fn cut_off(text: &str, round: usize) -> &str {
    let mut end = text.len() * (1 + round % 9) / 10;
    while config::load_str("test", &text[..end]).is_ok() {
        end -= 1;
    }
    &text[..end]
}

fn reloads(process: &Process, generation: &mut u64) {
    *generation += 1;
    let response = process.admin.ask("POST", "/reload");
    assert_eq!(response.status, 200, "{}", response.text());
    assert!(response.text().contains(&format!("\"generation\": {generation}\n")), "{}", response.text());
}

#[test]
fn reloads_hurt_nobody() {
    let seconds = std::env::var("RINGWAY_TORTURE_SECONDS").map_or(5, |text| text.parse().expect("seconds"));
    let (sender, parts) = crossbeam_channel::unbounded::<String>();
    let stage = Stage {
        sessions: legacy_server("x"),
        others: ["0", "1"].map(|name| Backend::always(json(name))),
        streaming: Backend::scripted(move |exchange| {
            exchange.request();
            exchange.send(EVENT_STREAM);
            while let Ok(part) = parts.recv_timeout(PATIENCE)
                && exchange.send(part)
            {}
        }),
        comers: [Reserved::new(), Reserved::new()],
    };
    let file = TempFile::with(&stage.text(0));
    let process = Process::serve(file.path());
    process.wait_for_workers();
    let session = initialize(&mut process.client());
    let mut listener = process.client();
    listener.send(GET.replace("/mcp/b", "/mcp/s"));
    listener.head();

    let (start, length) = (clock::now(), Duration::from_secs(seconds));
    let (mut round, mut generation) = (0, 1);
    // After the first quarter: the round and what was resident.
    let mut warm = None;
    // Connections through listeners that go away: they stay.
    let mut kept: Vec<Client> = Vec::new();
    let calls = under_load(
        process.address,
        Closing::Forbidden,
        |client| ask(client, &session, ""),
        || {
            let ticks = tick(EVERY);
            while start.elapsed() < length {
                ticks.recv_timeout(PATIENCE).unwrap();
                round += 1;
                let text = stage.text(round);
                if round % 5 == 0 {
                    let what = spoil(&file, &text, round / 5);
                    let response = process.admin.ask("POST", "/reload");
                    assert_eq!(response.status, 422, "{what}: {}", response.text());
                    assert_eq!(process.admin.metric("ringway_config_generation"), generation as f64, "{what}");
                }
                file.write(&text);
                reloads(&process, &mut generation);
                for (number, comer) in stage.comers.iter().enumerate() {
                    if stage.listens(round, number) {
                        let mut client = Client::connect(comer.address);
                        let response = ask(&mut client, &session, "");
                        assert_eq!(response.status, 200, "round {round}: {} {}", response.head, response.text());
                        if kept.len() < 16 {
                            kept.push(client);
                        }
                    } else {
                        eventually("nobody listens there", || refuses(comer.address));
                    }
                }
                sender.send(chunk(&event(round))).unwrap();
                assert_eq!(listener.event(), event(round), "the stream goes on");
                if warm.is_none() && start.elapsed() > length / 4 {
                    warm = Some((round, process.memory()));
                }
            }
        },
    );
    for client in &mut kept {
        let response = ask(client, &session, "");
        assert_eq!((response.status, response.field("connection")), (200, None));
    }
    sender.send(LAST_CHUNK.to_owned()).unwrap();
    assert_eq!(listener.chunk(), b"");
    let (warm, memory) = warm.expect("a first quarter");
    let grown = process.memory().saturating_sub(memory);
    println!("{round} reloads, {calls} calls, {} KiB grown by {} KiB", memory >> 10, grown >> 10);
    assert!(calls > round, "too little load to show anything: {calls} calls in {round} rounds");
    assert!(grown < GROWTH_MAX, "memory has grown by {grown} bytes in {} rounds", round - warm);
    assert_eq!(process.admin.metric("ringway_refused_total"), 0.0);
    eventually("one snapshot is left", || process.admin.metric("ringway_config_snapshots") == 1.0);
    process.signal(Signal::SIGTERM);
    drop(kept);
    assert_eq!(process.end().code(), Some(0));
}

/// Half of this file is a good one, without the route that makes the call succeed.
#[test]
fn a_file_that_is_being_written_is_waited_for() {
    let backend = Backend::always(json("{}"));
    let builder = || Proxy::builder().backend("b", &[backend.address()]);
    let file = TempFile::new();
    let route = |path: &str| format!("[[routes]]\npath = \"{path}\"\nbackend = \"b\"\n");
    let (half, rest) = (builder().text() + &route("/early"), route("/late"));
    config::load_str("half", &half).expect("the half is a good one");
    let proxy = builder().start_from(file.path());
    // On a machine that stands still between the two writes the first one is all there is.
    eventually("the writer is quick once", || {
        let half_written = clock::now();
        file.write(&half);
        let was_quick = thread::scope(|scope| {
            let reload = scope.spawn(|| proxy.reloads());
            let mut writer = fs::OpenOptions::new().append(true).open(file.path()).unwrap();
            writer.write_all(rest.as_bytes()).unwrap();
            let was_quick = half_written.elapsed() < Duration::from_millis(20);
            reload.join().unwrap();
            was_quick
        });
        let mut client = proxy.client();
        client.send(post("{}").replace("/mcp/b", "/late"));
        let status = client.response().status;
        assert!(!was_quick || status == 200, "half a file came into force");
        was_quick
    });
}

#[test]
fn a_file_that_never_rests_is_refused() {
    let backend = Backend::always(json("{}"));
    let file = TempFile::new();
    let proxy = Proxy::builder().backend("b", &[backend.address()]).start_from(file.path());
    let (over, ended) = bounded::<()>(0);
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut writer = fs::OpenOptions::new().append(true).open(file.path()).unwrap();
            while ended.recv_timeout(Duration::from_millis(2)) == Err(RecvTimeoutError::Timeout) {
                writer.write_all(b"#\n").unwrap();
            }
        });
        // On a machine that stands still the file does rest.
        eventually("it never rests for two seconds", || {
            let response = proxy.admin("POST", "/reload");
            response.status == 422 && response.text().contains("has been written to all the time")
        });
        drop(over);
    });
}
