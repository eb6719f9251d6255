//! The parts together, as a user runs them: every workload through the relays, and answers that must not pass.
//! Nothing here looks at a figure: a slow machine is not a fault.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};

const BINARY: &str = env!("CARGO_BIN_EXE_ringway-loadtest");

const WORKLOADS: &[&str] = &[
    "call",
    "call-modern",
    "connect",
    "list",
    "list-modern",
    "list-cached",
    "herd",
    "call-64k",
    "call-1m",
    "upload-1m",
    "sse20",
    "sse20-paced",
    "mixed",
];

/// A server of ours, on a port it chose; ended at the end of the test.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(arguments: &[&str]) -> Server {
        let mut child = Command::new(BINARY)
            .args(arguments)
            .args(["--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").expect(&line).parse().unwrap();
        Server { child, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn drive(address: SocketAddr, path: &str, arguments: &[&str]) -> (Output, serde_json::Value) {
    let url = format!("http://{address}{path}");
    // What is bounded by a number may take as long as a slow machine needs.
    let seconds = if arguments.contains(&"--requests") { "60" } else { "0.2" };
    let output = Command::new(BINARY)
        .args(["drive", "--url", &url, "--seconds", seconds, "--warmup-seconds", "0"])
        .args(arguments)
        .output()
        .unwrap();
    let outcome = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output, outcome)
}

#[track_caller]
fn assert_all_right((output, outcome): (Output, serde_json::Value)) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(outcome["wrong"], 0, "{outcome}");
    assert!(outcome["sent"].as_u64().unwrap() > 0, "{outcome}");
}

#[test]
fn every_workload_is_answered_directly_and_through_the_relays() {
    let mock = Server::start(&["mock"]);
    let upstream = mock.address.to_string();
    let mut hops = vec![Server::start(&["relay", "--driver", "epoll", "--upstream", &upstream])];
    if io_uring_is_available() {
        hops.push(Server::start(&["relay", "--driver", "io_uring", "--upstream", &upstream]));
    }
    hops.push(mock);
    for hop in &hops {
        for workload in WORKLOADS {
            assert_all_right(drive(hop.address, "/mcp", &["--workload", workload, "--connections", "4"]));
        }
    }
}

#[test]
fn the_open_loop_keeps_its_schedule_with_few_connections() {
    let mock = Server::start(&["mock"]);
    assert_all_right(drive(mock.address, "/mcp", &["--connections", "2", "--rate", "500"]));
}

#[test]
fn as_many_requests_are_sent_as_are_asked_for() {
    let mock = Server::start(&["mock"]);
    let drive = drive(mock.address, "/mcp", &["--connections", "3", "--requests", "100"]);
    assert_eq!(drive.1["sent"], 100, "{}", drive.1);
    assert_eq!(drive.1["requests"], 100, "{}", drive.1);
    assert_all_right(drive);
}

#[test]
fn idle_clients_are_held_and_counted() {
    let mock = Server::start(&["mock"]);
    let relay = Server::start(&["relay", "--driver", "epoll", "--upstream", &mock.address.to_string()]);
    for more in [&[] as &[&str], &["--streams"]] {
        let (url, pid) = (format!("http://{}/mcp", relay.address), relay.child.id().to_string());
        let output = Command::new(BINARY)
            .args(["hold", "--connections", "100", "--url", &url, "--watch-pid", &pid])
            .args(more)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let held: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(held["connections"], 100);
        assert!(held["with_all_bytes"].as_u64().unwrap() > 0, "{held}");
    }
}

#[test]
fn a_stream_that_is_refused_is_not_held() {
    let mock = Server::start(&["mock"]);
    let url = format!("http://{}/elsewhere", mock.address);
    let output = Command::new(BINARY).args(["hold", "--streams", "--url", &url]).output().unwrap();
    assert!(!output.status.success());
}

#[test]
fn a_fast_wrong_answer_fails_the_run() {
    let mock = Server::start(&["mock"]);
    let (output, outcome) = drive(mock.address, "/elsewhere", &["--workload", "call-modern"]);
    assert!(!output.status.success());
    assert!(outcome["wrong"].as_u64().unwrap() > 0, "{outcome}");
    assert_eq!(outcome["requests"], 0);
    assert_eq!(outcome["first_wrong"], "status 404");
}

#[test]
fn a_backend_that_goes_away_fails_the_run() {
    let mock = Server::start(&["mock"]);
    let address = mock.address;
    drop(mock);
    let (output, _) = drive(address, "/mcp", &[]);
    assert!(!output.status.success());
}

fn io_uring_is_available() -> bool {
    io_uring::IoUring::new(8).is_ok()
}
