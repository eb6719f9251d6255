//! Where the kernel refuses io_uring, as the default profiles of container runtimes have it, everything
//! works on epoll; and the profile that is shipped allows it.

use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::process::{ringway, ringway_at};
use crate::support::seccomp::{of_profile, refusing, under};
use crate::support::{Backend, Process, Proxy, TempFile, json};

const RINGWAY: &str = env!("CARGO_BIN_EXE_ringway");
const VARIABLE: &str = "RINGWAY_IO_DRIVER";

/// Serves with this driver, whichever the run of the tests is for.
fn with_driver(driver: &str, file: &Path) -> Command {
    let mut command = ringway_at(Path::new(RINGWAY), file);
    command.env(VARIABLE, driver);
    command
}

fn before(backend: &Backend) -> TempFile {
    TempFile::with(&Proxy::builder().backend("b", &[backend.address()]).text())
}

fn driver_of(process: &Process) -> String {
    let page = process.admin.ask("GET", "/metrics").text();
    let mut drivers =
        page.lines().filter_map(|line| line.strip_prefix("ringway_io_driver{driver=\"")?.strip_suffix("\"} 1"));
    let driver = drivers.next().expect("a driver").to_owned();
    assert_eq!(drivers.next(), None);
    driver
}

/// What every kind of process does, done once.
fn works(mut process: Process) {
    for _ in 0..8 {
        assert_eq!(process.client().call().status, 200);
    }
    assert_eq!(process.admin.ask("POST", "/reload").status, 200);
    let driver = driver_of(&process);
    process.hands_over();
    process.former_end();
    assert_eq!(driver_of(&process), driver);
    assert_eq!(process.client().call().status, 200);
    process.signal(Signal::SIGTERM);
    assert_eq!(process.end().code(), Some(0));
}

#[test]
fn without_io_uring_it_serves_on_epoll_and_says_so_once() {
    let backend = Backend::always(json("{}"));
    for errno in [Errno::EPERM, Errno::ENOSYS] {
        let file = before(&backend);
        let filter = [refusing("io_uring_setup", errno as i32)];
        let process = under(&filter, || Process::start(with_driver("auto", file.path())));
        let lines: Vec<String> = process.beginning.iter().map(Value::to_string).collect();
        let about: Vec<&String> = lines.iter().filter(|line| line.contains("io_uring")).collect();
        assert_eq!(about.len(), 1, "{lines:?}");
        assert!(about[0].contains("WARN") && about[0].contains("running on epoll"), "{}", about[0]);
        assert_eq!(process.beginning.last().unwrap()["io_driver"], "epoll");
        assert_eq!(driver_of(&process), "epoll");
        works(process);
        let version = under(&filter, || ringway(["version"]).output().unwrap());
        assert!(String::from_utf8_lossy(&version.stdout).contains("io driver epoll\n"));
    }
}

#[test]
fn io_uring_that_was_asked_for_by_name_is_not_replaced() {
    let file = TempFile::with(
        "[server]\nlisten = [\"127.0.0.1:0\"]\n[backends.b]\nendpoints = [\"http://127.0.0.1:9/mcp\"]\n",
    );
    let filter = [refusing("io_uring_setup", Errno::EPERM as i32)];
    let output = under(&filter, || {
        with_driver("io_uring", file.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
    });
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("server.io_driver is \"io_uring\", which the kernel refuses"), "{said}");
}

#[test]
fn the_profile_that_is_shipped_has_all_that_is_needed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/seccomp.json");
    let profile: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let here = String::from_utf8(ringway(["version"]).env(VARIABLE, "auto").output().unwrap().stdout).unwrap();
    let best = here.lines().find_map(|line| line.strip_prefix("io driver ")).expect("a driver").to_owned();
    let backend = Backend::always(json("{}"));
    let rings = ["io_uring_setup", "io_uring_enter", "io_uring_register"];
    for (driver, without, expected) in
        [("auto", &[][..], best.as_str()), ("epoll", &[], "epoll"), ("auto", &rings, "epoll")]
    {
        let file = before(&backend);
        let process = under(&of_profile(&profile, without), || Process::start(with_driver(driver, file.path())));
        assert_eq!(driver_of(&process), expected);
        works(process);
    }
}
