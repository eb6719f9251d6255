//! More than there is room for, all at once: who is refused is told to come again, who comes again is
//! served, and nothing spins meanwhile.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use ringway::clock;

use crate::support::client::{CALL, post};
use crate::support::process::{limited, serving};
use crate::support::{Backend, Client, Process, Proxy, TempFile, eventually, json};

/// Each of many clients that come at once calls until it is served: how often one was refused.
fn storm(proxy: &Proxy, clients: usize) -> usize {
    let refused = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                eventually("the call is served", || {
                    let mut client = proxy.client();
                    // Refused at the door, it may find the door closed: the answer is there all the same.
                    let _ = std::io::Write::write_all(&mut client.stream, post(CALL).as_bytes());
                    match client.try_response() {
                        Some(response) if response.status == 200 => true,
                        Some(response) => {
                            assert_eq!((response.status, response.field("retry-after")), (503, Some("1")));
                            refused.fetch_add(1, Ordering::SeqCst);
                            // As it was told, if not quite for so long.
                            thread::park_timeout(Duration::from_millis(50));
                            false
                        }
                        // A reset has overtaken the answer.
                        None => false,
                    }
                });
            });
        }
    });
    refused.into_inner()
}

#[test]
fn a_storm_is_refused_politely_and_everyone_is_served_in_the_end() {
    const CLIENTS: usize = 100;
    let backend = Backend::scripted(|exchange| {
        while exchange.request().is_some() {
            // Long enough for others to find the place taken.
            thread::park_timeout(Duration::from_millis(5));
            exchange.send(json("{}"));
        }
    });
    let limits = [
        ("connections_per_worker_max = 4", "connections_max"),
        ("connections_per_ip_max = 4", "connections_per_ip"),
        ("exchanges_per_worker_max = 4", "exchanges_max"),
    ];
    for (limit, reason) in limits {
        let proxy = Proxy::builder().workers(1).limits(limit).backend("b", &[backend.address()]).start();
        let refused = storm(&proxy, CLIENTS);
        println!("{limit}: {CLIENTS} calls at once, refused {refused} times, then served");
        assert!(refused > 0 && proxy.refused(reason) as usize >= refused, "{limit}: {refused}");
        proxy.comes_to_rest();
        // Room is as it was.
        let mut all: Vec<Client> = (0..4).map(|_| proxy.client()).collect();
        all.iter_mut().for_each(|client| assert_eq!(client.call().status, 200));
    }
}

/// Descriptors that the proxy may have in the test of what happens when it has them all.
const DESCRIPTORS_MAX: usize = 128;

fn exhausted_process(backend: &Backend, driver: &str, file: &TempFile) -> Process {
    let text = Proxy::builder().workers(2).backend("b", &[backend.address()]).text();
    file.write(&text);
    let mut command = limited(&serving(file.path()), DESCRIPTORS_MAX);
    command.env("RINGWAY_IO_DRIVER", driver);
    Process::start(command)
}

#[test]
fn without_descriptors_it_neither_spins_nor_stays_away() {
    const WATCHED: Duration = Duration::from_secs(2);
    let backend = Backend::always(json("{}"));
    for driver in ["auto", "epoll"] {
        let file = TempFile::new();
        let proxy = exhausted_process(&backend, driver, &file);
        proxy.wait_for_workers();
        let mut early = proxy.client();
        assert_eq!(early.call().status, 200);
        let starved = clock::now();
        let crowd: Vec<Client> = (0..2 * DESCRIPTORS_MAX).map(|_| proxy.client()).collect();
        for _ in 0..2 {
            proxy.logs("cannot accept connections; trying again");
        }
        // What it looks at again, it looks at with a pause: by its CPU time, and by how often it tried.
        let (began, cpu) = (clock::now(), proxy.cpu());
        while clock::now().duration_since(began) < WATCHED {
            thread::park_timeout(Duration::from_millis(50));
        }
        let (elapsed, spent) = (clock::now().duration_since(began), proxy.cpu() - cpu);
        println!("{driver}: without descriptors for {elapsed:?}: {spent:?} of CPU");
        assert!(spent < elapsed / 4, "{spent:?} of CPU in {elapsed:?}");
        // Who is connected is served, with the connection that is in the pool or told that there is none.
        assert!(matches!(early.call().status, 200 | 502));
        drop(crowd);
        let began = clock::now();
        eventually("new clients are served", || {
            let mut client = proxy.client();
            let _ = std::io::Write::write_all(&mut client.stream, post(CALL).as_bytes());
            client.try_response().is_some_and(|response| response.status == 200)
        });
        println!("{driver}: served again {:?} after the crowd has left", clock::now().duration_since(began));
        let tries = proxy.admin.refused("descriptors_exhausted");
        let pauses = clock::now().duration_since(starved).as_millis() as f64 / 100.0 + 1.0;
        assert!((1.0..=2.0 * pauses + 1.0).contains(&tries), "{tries} tries by two workers in {pauses} ticks");
        drop(early);
        proxy.admin.comes_to_rest();
    }
}
