//! A new process takes over while clients call; one that cannot changes nothing.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use nix::sys::signal::Signal;

use crate::support::backend::{EVENT_STREAM, LAST_CHUNK, chunk, event};
use crate::support::client::{CALL, GET, post};
use crate::support::load::{Closing, under_load};
use crate::support::process::ringway_at;
use crate::support::session::{ask, initialize, legacy_server};
use crate::support::{Backend, Client, PATIENCE, Process, Proxy, ProxyBuilder, TempFile, eventually, json, refuses};

fn before(backend: &Backend) -> ProxyBuilder {
    Proxy::builder().backend("b", &[backend.address()])
}

/// A hand-over waits for the signal's handling at both processes: a few in a row, with more and with
/// fewer workers than the one before.
#[test]
fn calls_go_on_and_sessions_live_through_hand_overs_in_a_row() {
    let server = legacy_server("x");
    for keys in ["", "[sessions]\nkeys = [\"one-key-of-many-bytes\"]"] {
        let file = TempFile::new();
        let text = |workers: usize| before(&server).workers(workers).routes(keys).text();
        let mut process = before(&server).workers(2).routes(keys).start_process(&file);
        // Port 0 is the port it got, whatever follows.
        let address = process.address;
        let session = initialize(&mut process.client());
        let calls = under_load(
            address,
            Closing::Allowed,
            |client| ask(client, &session, ""),
            || {
                for workers in [4, 1, 3] {
                    file.write(&text(workers));
                    process.hands_over();
                    process.wait_for_workers();
                    let stats = process.admin.page("/stats");
                    assert_eq!(stats["workers"].as_array().unwrap().len(), workers);
                }
                process.former_end();
            },
        );
        assert!(calls > 50, "too little load to show anything: {calls} calls");
        // One worker or four sockets: no queue is without somebody who accepts.
        for _ in 0..64 {
            assert_eq!(ask(&mut process.client(), &session, "").status, 200);
        }
        process.signal(Signal::SIGTERM);
        assert_eq!(process.end().code(), Some(0));
        assert!(refuses(address));
    }
}

#[test]
fn what_has_begun_ends_in_the_old_process() {
    let (sender, parts) = crossbeam_channel::unbounded::<String>();
    let backend = Backend::scripted(move |exchange| {
        while let Some(request) = exchange.request() {
            if request.ends_with(CALL) {
                exchange.send(json("{}"));
                continue;
            }
            exchange.send(EVENT_STREAM);
            if request.starts_with("GET") {
                return exchange.wait_for_end();
            }
            while let Ok(part) = parts.recv_timeout(PATIENCE)
                && exchange.send(part)
            {}
        }
    });
    let file = TempFile::new();
    let mut process = before(&backend).start_process(&file);
    let (mut caller, mut listener) = (process.client(), process.client());
    let (mut idle, fresh) = (process.client(), process.client());
    caller.send(post(&CALL.replace("echo", "stream")));
    caller.head();
    listener.send(GET);
    listener.head();
    assert_eq!(idle.call().field("connection"), None);
    process.hands_over();
    // Both are of the old process, which may not end them while a request may be on its way.
    let mut clients = [idle, fresh];
    clients.iter_mut().for_each(|client| client.send(post(CALL)));
    for client in &mut clients {
        let mut response = client.response();
        // It has been told that it hands over, and its workers hear of it a moment later.
        while response.field("connection").is_none() {
            assert_eq!(response.status, 200);
            response = client.call();
        }
        assert_eq!((response.status, response.field("connection")), (200, Some("close")));
        assert!(client.ended());
    }
    assert_eq!(process.client().call().field("connection"), None, "the new one does not drain");
    assert_eq!(process.admin.ask("GET", "/readyz").status, 200);
    assert_eq!(listener.chunk(), b"", "a stream that would never end is ended, for its client to open it anew");
    sender.send(chunk(&event("still"))).unwrap();
    assert_eq!(caller.event(), event("still"), "an answer is not");
    sender.send(LAST_CHUNK.to_owned()).unwrap();
    assert_eq!(caller.chunk(), b"");
    process.former_end();
}

#[test]
fn nothing_is_inherited_but_what_is_meant() {
    let backend = Backend::always(json("{}"));
    let file = TempFile::new();
    let mut process = before(&backend).start_process(&file);
    let first = process.environment();
    process.hands_over();
    process.former_end();
    process.wait_for_workers();
    let descriptors = process.descriptors();
    for _ in 0..4 {
        process.hands_over();
        process.former_end();
    }
    process.wait_for_workers();
    // A connection to the admin listener may be among the first ones, but one leak is four now.
    eventually("as many descriptors as before", || process.descriptors() <= descriptors);
    // No secret, above all.
    let more: Vec<String> = process.environment().into_iter().filter(|line| !first.contains(line)).collect();
    assert_eq!(more, ["RINGWAY_HANDOVER=stdin"]);
}

/// Every kind of successor that does not come to serve.
#[test]
fn a_successor_that_fails_changes_nothing() {
    let backend = Backend::always(json("{}"));
    let (file, directory) = (TempFile::new(), tempfile::tempdir().unwrap());
    let program = directory.path().join("ringway");
    install(&program);
    let text = before(&backend).server("handover_timeout_ms = 1000").text();
    file.write(&text);
    let mut process = Process::start(ringway_at(&program, file.path()));
    let script = |text: &str| {
        replace(&program, |new| {
            fs::write(new, format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(new, fs::Permissions::from_mode(0o755)).unwrap();
        });
    };
    let cases: [(&dyn Fn(), &str); 5] = [
        (&|| file.write("nonsense"), "ended early (exit status: 2)"),
        (&|| script("exit 7"), "ended early (exit status: 7)"),
        (&|| script("kill -SEGV $$"), "ended early (signal: 11"),
        (&|| script("exec sleep 60"), "was not ready and has been killed"),
        (&|| replace(&program, |new| fs::write(new, "").unwrap()), "cannot start"),
    ];
    let calls = under_load(process.address, Closing::Forbidden, Client::call, || {
        for (spoil, problem) in &cases {
            spoil();
            process.signal(Signal::SIGUSR2);
            let line = process.logs("not handed over: this process serves on");
            assert!(line["problem"].as_str().unwrap().contains(problem), "{problem}: {line}");
        }
    });
    assert!(calls > 0);
    assert_eq!(process.admin.metric("ringway_handovers_total{result=\"failed\"}"), cases.len() as f64);
    // And then it succeeds.
    file.write(&text);
    replace(&program, install);
    process.hands_over();
    process.former_end();
    assert_eq!(process.client().call().status, 200);
}

#[test]
fn a_link_that_points_to_a_new_version_is_followed() {
    let backend = Backend::always(json("{}"));
    let (file, directory) = (TempFile::new(), tempfile::tempdir().unwrap());
    let versions = ["1", "2"].map(|version| directory.path().join(version));
    versions.iter().for_each(|version| install(version));
    let program = directory.path().join("ringway");
    symlink(&versions[0], &program).unwrap();
    file.write(&before(&backend).text());
    let mut process = Process::start(ringway_at(&program, file.path()));
    assert_eq!(process.program(), versions[0]);
    replace(&program, |new| symlink(&versions[1], new).unwrap());
    process.hands_over();
    assert_eq!(process.program(), versions[1]);
    process.former_end();
}

#[test]
fn told_to_end_it_takes_no_successor() {
    let backend = Backend::always(json("{}"));
    let (file, directory) = (TempFile::new(), tempfile::tempdir().unwrap());
    let program = directory.path().join("ringway");
    install(&program);
    file.write(&before(&backend).text());
    let process = Process::start(ringway_at(&program, file.path()));
    let started = directory.path().join("started");
    replace(&program, |new| {
        // As the real one would, it waits for what it is handed.
        fs::write(new, format!("#!/bin/sh\necho $$ >{0}.new && mv {0}.new {0}\nexec cat\n", started.display()))
            .unwrap();
        fs::set_permissions(new, fs::Permissions::from_mode(0o755)).unwrap();
    });
    process.signal(Signal::SIGUSR2);
    eventually("the new process runs", || started.exists());
    let successor = fs::read_to_string(&started).unwrap();
    process.signal(Signal::SIGTERM);
    assert_eq!(process.end().code(), Some(0));
    let stat = Path::new("/proc").join(successor.trim()).join("stat");
    eventually("the new process is gone", || {
        fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") Z ")) || !stat.exists()
    });
}

/// Puts the binary under test at a path.
fn install(path: &Path) {
    fs::hard_link(env!("CARGO_BIN_EXE_ringway"), path)
        .or_else(|_| fs::copy(env!("CARGO_BIN_EXE_ringway"), path).map(drop))
        .unwrap();
}

/// Puts another file at a path, as a package manager does: a file that runs cannot be written to.
fn replace(path: &Path, make: impl FnOnce(&Path)) {
    let new = path.with_extension("new");
    make(&new);
    fs::rename(new, path).unwrap();
}
