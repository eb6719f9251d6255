//! A worker whose loop stands still is seen, and so is one that has more to do than the others.

use std::time::Duration;

use crossbeam_channel::never;
use nix::sys::signal::Signal;

use crate::support::backend::{EVENT_STREAM, chunk, event};
use crate::support::client::GET;
use crate::support::{Backend, Client, Proxy, TempFile, eventually, json};

/// How long the whole process stands still.
const STILL: Duration = Duration::from_millis(900);

#[test]
fn a_loop_that_stood_still_is_measured_and_logged_once() {
    let backend = Backend::always(json("{}"));
    let file = TempFile::new();
    let process = Proxy::builder().workers(2).backend("b", &[backend.address()]).start_process(&file);
    // Stalls of each worker that were longer than half a second, out of one page: ticks are counted on.
    let longer = || {
        let page = process.admin.ask("GET", "/metrics").text();
        let count = |worker: usize, le: &str| {
            let sample = format!("ringway_worker_stall_seconds_bucket{{worker=\"{worker}\",le=\"{le}\"}} ");
            page.lines().find_map(|line| line.strip_prefix(&sample)?.parse::<usize>().ok()).expect("a sample")
        };
        [0, 1].map(|worker| count(worker, "+Inf") - count(worker, "0.5"))
    };
    let ticks = || process.admin.metric("ringway_worker_stall_seconds_count{worker=\"0\"}");
    eventually("ticks are counted", || ticks() > 3.0);
    process.signal(Signal::SIGSTOP);
    // The time is the subject here.
    let _ = never::<()>().recv_timeout(STILL);
    process.signal(Signal::SIGCONT);
    eventually("the stall is counted", || longer().iter().all(|count| *count >= 1));
    let stats = process.admin.page("/stats");
    let longest = stats["workers"][0]["stall_micros"]["max"].as_u64().unwrap();
    // A tick that is due within the stall is late for the rest of it: for 100 ms less at most, and less what a
    // busy machine takes until the threads have stopped. The same stall is counted above.
    assert!(longest > 500_000, "{longest} µs");
    // A machine that stands still itself makes more of them; each has its line, and no more than one.
    let (at_least, mut said) = (longer(), [0, 0]);
    eventually("each stall has its line", || {
        for line in process.logged().iter().filter(|line| line["message"] == "a worker's loop stood still") {
            said[line["worker"].as_u64().expect("a number") as usize] += 1;
        }
        (0..2).all(|worker| said[worker] >= at_least[worker])
    });
    let at_most = longer();
    assert!((0..2).all(|worker| said[worker] <= at_most[worker]), "{said:?} lines for {at_most:?} stalls");
}

#[test]
fn what_each_worker_holds_is_shown() {
    let backend = Backend::scripted(|exchange| {
        exchange.request();
        exchange.send([EVENT_STREAM, &chunk(&event("x"))].concat());
        exchange.wait_for_end();
    });
    let proxy = Proxy::builder().workers(3).backend("b", &[backend.address()]).start();
    let mut clients: Vec<Client> = (0..24).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(GET);
        client.head();
    }
    let stats = proxy.operator().page("/stats");
    for (name, key) in [("connections", "client_connections"), ("exchanges", "exchanges"), ("streams", "streams")] {
        let of = |worker: usize| proxy.metric(&format!("ringway_worker_{name}{{worker=\"{worker}\"}}"));
        let metrics = [of(0), of(1), of(2)];
        assert_eq!(metrics.iter().sum::<f64>(), 24.0, "{name}");
        let shown: Vec<f64> = (0..3).map(|worker| stats["workers"][worker]["counted"][key].as_f64().unwrap()).collect();
        assert_eq!(shown, metrics, "{name}");
    }
}
