//! Descriptors run out, at the start and later; standard streams are closed, or nobody reads them.

use std::process::{Command, Stdio};
use std::time::Duration;

use crossbeam_channel::never;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringway::clock;

use crate::support::process::ringway_after;
use crate::support::{Backend, Client, Process, Proxy, ProxyBuilder, Reserved, TempFile, eventually, json, refuses};

fn before(backend: &Backend) -> ProxyBuilder {
    Proxy::builder().backend("b", &[backend.address()])
}

#[test]
fn the_limit_is_raised_to_the_hard_one() {
    let backend = Backend::always(json("{}"));
    let file = TempFile::with(&before(&backend).text());
    let mut process = Process::start(ringway_after("ulimit -Sn 100; ulimit -Hn 300", file.path()));
    let raised: Vec<_> = process.beginning.iter().filter(|line| line["message"] == "descriptor limit raised").collect();
    assert_eq!(raised.len(), 1);
    assert_eq!((&raised[0]["from"], &raised[0]["to"]), (&100.into(), &300.into()));
    assert_eq!(process.descriptor_limits(), ("300".to_owned(), "300".to_owned()));
    process.hands_over();
    process.former_end();
    assert_eq!(process.descriptor_limits(), ("300".to_owned(), "300".to_owned()));
}

/// From far too few to just enough: it says what is wrong and ends, or it serves. Nothing in between.
#[test]
fn with_too_few_descriptors_it_does_not_start_and_says_why() {
    let backend = Backend::always(json("{}"));
    let file = TempFile::with(&before(&backend).workers(2).text());
    let mut refused = 0;
    for limit in (8..=60).step_by(2) {
        let mut command = ringway_after(&format!("ulimit -n {limit}"), file.path());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = String::new();
        let mut pipe = std::io::BufReader::new(child.stderr.take().unwrap());
        // Until it serves or ends.
        while !stderr.contains("\"serving\"") && std::io::BufRead::read_line(&mut pipe, &mut stderr).unwrap() > 0 {}
        if stderr.contains("\"serving\"") {
            kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(0), "{limit}");
            continue;
        }
        let code = child.wait().unwrap().code();
        assert!(matches!(code, Some(1 | 3)), "{limit}: {code:?}: {stderr}");
        let told = stderr.lines().last().unwrap();
        assert!(
            told.contains("Too many open files") && told.contains(&format!("limit is {limit} descriptors")),
            "{told}"
        );
        refused += 1;
    }
    assert!((2..25).contains(&refused), "{refused} limits were too low");
}

#[test]
fn when_descriptors_run_out_it_waits_without_spinning_and_recovers() {
    let backend = Backend::always(json("{}"));
    let file = TempFile::with(&before(&backend).text());
    let process = Process::start(ringway_after("ulimit -n 80", file.path()));
    assert_eq!(process.client().call().status, 200);
    // All of them connect: what is not accepted waits in the kernel's queue.
    let mut clients: Vec<Client> = (0..120).map(|_| process.client()).collect();
    process.logs("cannot accept connections; trying again");
    let before = process.cpu_ticks();
    // The time is the subject: what it does in a second of want.
    let _ = never::<()>().recv_timeout(Duration::from_secs(1));
    let used = process.cpu_ticks() - before;
    assert!(used < 50, "{used} hundredths of a second in one second");
    let again =
        process.logged().iter().filter(|line| line["message"] == "cannot accept connections; trying again").count();
    let workers = std::env::var("RINGWAY_TEST_WORKERS").map_or(2, |text| text.parse().unwrap());
    assert!(again < workers, "said once by each worker, not {again} times more");

    let freed = clock::now();
    clients.clear();
    // While those that have left are taken from the queue a call may still lack its upstream connection.
    eventually("a call is served", || process.client().call().status == 200);
    let took = freed.elapsed();
    println!("served again {took:?} after descriptors were free");
    assert!(took < Duration::from_secs(2), "{took:?}");
    process.logs("accepting connections again");
    assert!(process.admin.refused("descriptors_exhausted") > 0.0);
}

#[test]
fn a_log_that_nobody_reads_any_more_stops_nothing() {
    let backend = Backend::always(json("{}"));
    let file = TempFile::with(&before(&backend).text());
    // `sed` passes on what it reads until the process serves, and ends.
    let process = Process::start(ringway_after("exec 2> >(sed '/\"serving\"/q' >&2)", file.path()));
    for round in 0..20 {
        // A line of the log each.
        assert_eq!(process.admin.ask("POST", "/reload").status, 200, "{round}");
        assert_eq!(process.client().call().status, 200);
    }
    process.signal(Signal::SIGPIPE);
    assert_eq!(process.client().call().status, 200);
    process.signal(Signal::SIGTERM);
    assert_eq!(process.end().code(), Some(0));
}

#[test]
fn standard_streams_that_are_closed_are_no_fault() {
    let backend = Backend::always(json("{}"));
    let place = Reserved::new();
    let file = TempFile::with(&before(&backend).server(&format!("listen = [\"{}\"]", place.address)).text());
    let mut command: Command = ringway_after("exec <&- >&- 2>&-", file.path());
    let mut child = command.spawn().unwrap();
    let pid = Pid::from_raw(child.id().cast_signed());
    eventually("it serves", || !refuses(place.address));
    assert_eq!(Client::connect(place.address).call().status, 200);
    // Its first descriptors are what standard streams are to be, and no socket of its own.
    for number in 0..3 {
        let target = std::fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap();
        assert_eq!(target.to_str(), Some("/dev/null"), "{number}");
    }
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
