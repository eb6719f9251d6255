//! The binary as a person or an init system meets it: commands, exit codes, signals.

use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::support::backend::{EVENT_STREAM, chunk, event};
use crate::support::client::{CALL, GET, post};
use crate::support::process::{ringway, say};
use crate::support::{Backend, Gate, PATIENCE, Process, Proxy, Reserved, TempFile, eventually, json, refuses};

const GOOD: &str = "[backends.weather]\nendpoints = [\"http://127.0.0.1:9001/mcp\"]\n";

fn with(file: &TempFile, arguments: &[&str]) -> crate::support::process::Said {
    let path = file.path().display().to_string();
    let (command, rest) = arguments.split_first().unwrap();
    say([&[*command, "--config", &path], rest].concat())
}

#[test]
fn check_sums_up_a_good_file() {
    let said = with(&TempFile::with(GOOD), &["check"]);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
    for part in ["routes     1", "backends   1", "endpoints  1", "ok\n"] {
        assert!(said.stdout.contains(part), "{}", said.stdout);
    }
}

#[test]
fn check_accepts_every_example() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut seen = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let mut command = ringway(["check".as_ref(), "--config".as_ref(), path.as_os_str()]);
            let output = command.env("RINGWAY_ADMIN_TOKEN", "0123456789abcdef").output().unwrap();
            assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
            seen += 1;
        }
    }
    assert!(seen > 0, "no example was seen");
}

#[test]
fn check_and_run_name_every_fault_with_file_and_line() {
    let file = TempFile::with(&format!("[server]\nworkerz = 2\n[limits]\nheaders_max = 1\n{GOOD}"));
    for command in ["check", "run"] {
        let said = with(&file, &[command]);
        assert_eq!((said.code, said.stdout.as_str()), (2, ""));
        let path = file.path().display();
        for part in [format!("{path}:2"), "server.workerz".into(), format!("{path}:4"), "limits.headers_max".into()] {
            assert!(said.stderr.contains(&part), "{part} is missing in\n{}", said.stderr);
        }
    }
}

#[test]
fn a_file_that_is_not_there_is_a_fault_of_configuration() {
    for arguments in [["check", "--config", "nowhere.toml"], ["run", "--config", "nowhere.toml"]] {
        let said = say(arguments);
        assert_eq!(said.code, 2);
        assert!(said.stderr.contains("nowhere.toml"), "{}", said.stderr);
    }
}

#[test]
fn routes_are_shown_and_explained() {
    let file =
        TempFile::with(&format!("{GOOD}[[routes]]\npath = \"/w/*\"\nbackend = \"weather\"\nmethods = [\"POST\"]\n"));
    let table = with(&file, &["routes"]);
    assert_eq!(table.code, 0);
    assert!(["/w/*", "weather", "POST"].iter().all(|part| table.stdout.contains(part)), "{}", table.stdout);
    let met = with(&file, &["routes", "POST", "http://any.example/w/x"]);
    assert!(met.stdout.contains("route /w/* to backend weather"), "{}", met.stdout);
    assert!(with(&file, &["routes", "GET", "/w/x"]).stdout.contains("405"));
    assert!(with(&file, &["routes", "GET", "/elsewhere"]).stdout.contains("404"));
}

#[test]
fn the_version_names_the_driver_that_would_run() {
    let said = say(["version"]);
    assert_eq!(said.code, 0);
    assert!(said.stdout.starts_with(&format!("ringway {}\n", env!("CARGO_PKG_VERSION"))), "{}", said.stdout);
    assert!(said.stdout.contains("io driver io_uring") || said.stdout.contains("io driver epoll"));
}

#[test]
fn what_it_does_not_know_it_refuses() {
    for arguments in [&["--unknown"][..], &["unknown"], &["routes", "GET"], &["run", "--config"]] {
        let said = say(arguments);
        assert_eq!(said.code, 2, "{arguments:?}");
        assert!(said.stderr.starts_with("error: "), "{}", said.stderr);
    }
}

#[test]
fn an_address_that_is_taken_is_exit_code_3() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let data = format!("[server]\nlisten = [\"{address}\"]\n[admin]\nlisten = \"off\"\n{GOOD}");
    let admin = format!("[server]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"{address}\"\n{GOOD}");
    for text in [data, admin] {
        let said = with(&TempFile::with(&text), &["run"]);
        assert_eq!(said.code, 3, "{}", said.stderr);
        assert!(said.stderr.contains(&format!("cannot listen on {address}")), "{}", said.stderr);
    }
}

fn serving(backend: &Backend) -> Process {
    Proxy::builder().backend("b", &[backend.address()]).start_process(&TempFile::new())
}

#[test]
fn a_signal_drains_and_ends_with_zero() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let gate = Gate::new();
        let answer = gate.clone();
        let backend = Backend::scripted(move |exchange| {
            exchange.request();
            answer.pass();
            exchange.send(json("\"late\""));
        });
        let process = serving(&backend);
        let mut client = process.client();
        client.send(post(CALL));
        backend.next_request();
        process.signal(signal);
        process.logs("draining");
        eventually("nobody listens any more", || refuses(process.address));
        gate.open();
        assert_eq!(client.response().text(), "\"late\"");
        process.logs("drained");
        assert_eq!(process.end().code(), Some(0));
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let backend = Backend::scripted(|exchange| {
        exchange.request();
        exchange.wait_for_end();
    });
    let process = serving(&backend);
    let mut client = process.client();
    client.send(post(CALL));
    backend.next_request();
    process.signal(Signal::SIGTERM);
    process.logs("draining");
    process.signal(Signal::SIGTERM);
    assert_eq!(process.end().code(), Some(0));
    assert!(client.ended());
}

#[test]
fn a_hang_up_signal_reloads() {
    let (old, new) = (Backend::always(json("\"old\"")), Backend::always(json("\"new\"")));
    let file = TempFile::new();
    let process = Proxy::builder().backend("b", &[old.address()]).start_process(&file);
    let mut client = process.client();
    assert_eq!(client.call().text(), "\"old\"");
    file.write(&Proxy::builder().backend("b", &[new.address()]).text());
    process.signal(Signal::SIGHUP);
    assert_eq!(process.logs("configuration reloaded")["generation"], 2);
    assert_eq!(client.call().text(), "\"new\"");

    file.write("nonsense");
    process.signal(Signal::SIGHUP);
    let fault = process.logs("configuration fault");
    assert!(fault["fault"].as_str().unwrap().contains(&file.path().display().to_string()), "{fault}");
    process.logs("reload refused, the configuration stays as it is");
    assert_eq!(client.call().text(), "\"new\"");
}

#[test]
fn the_log_keeps_secrets() {
    let backend = Backend::always_then_close([EVENT_STREAM, &chunk(&event("x"))].concat());
    let process = serving(&backend);
    let mut client = process.client();
    client.send(GET.replace("Accept", "Authorization: Bearer hidden-1\r\nMcp-Session-Id: hidden-2\r\nAccept"));
    client.head();
    process.signal(Signal::SIGTERM);
    process.logs("drained");
    assert!(process.logged().iter().all(|line| !line.to_string().contains("hidden")));
}

#[test]
fn every_line_that_the_demo_prints_works() {
    let place = Reserved::new();
    let mut command = ringway(["demo"]);
    command.env("RINGWAY_LISTEN", place.address.to_string()).env("RINGWAY_ADMIN_LISTEN", "127.0.0.1:0");
    let demo = Process::start(command);
    let mut script = Vec::new();
    while script.last().is_none_or(|line: &String| !line.contains("-X DELETE")) {
        script.push(demo.output.recv_timeout(PATIENCE).expect("the last line"));
    }
    // As printed, but every answer's status is shown behind it.
    let show = "curl() { command curl -w '\\n<%{http_code}>\\n' \"$@\"; }\n";
    let output = Command::new("bash")
        .args(["-c", &(show.to_owned() + &script.join("\n") + "\nwait")])
        .stdin(Stdio::null())
        .output()
        .expect("bash");
    let said = String::from_utf8(output.stdout).unwrap();
    let calls = script.iter().filter(|line| line.contains("curl ")).count();
    // The status of `initialize` goes where its session id is picked from.
    let ok = said.lines().filter(|line| line.starts_with("<2")).count();
    assert!(
        calls > 7 && ok == calls - 1,
        "{ok} of {calls} succeeded:\n{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for part in ["countdown", "hello", "notifications/progress", "hello from the server", "session "] {
        assert!(said.contains(part), "{part:?} is missing in\n{said}");
    }
}
