//! Clients that call all the time while something else happens.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};

use super::{Client, Response};

/// Callers that keep their connection, and callers with a new connection for each call.
const CALLERS: [usize; 2] = [3, 2];

/// Between two calls on new connections.
const PAUSE: Duration = Duration::from_millis(2);

/// Whether an answer may say that it is its connection's last.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closing {
    /// The caller goes on with a new connection.
    Allowed,
    /// The connection has to last.
    Forbidden,
}

/// Runs `story` while callers repeat `call`; how many calls were made. One that is refused, ends
/// early or is answered with anything but 200 fails the test.
pub(crate) fn under_load(
    address: SocketAddr,
    closing: Closing,
    call: impl Fn(&mut Client) -> Response + Sync,
    story: impl FnOnce(),
) -> usize {
    let (over, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    // Ends the callers when `story` is over, by a panic too.
    let (running, ended) = bounded::<()>(0);
    let once = |client: &mut Client| {
        let response = call(client);
        assert_eq!(response.status, 200, "{}", response.head);
        calls.fetch_add(1, Ordering::Relaxed);
        response.field("connection").is_some()
    };
    let keeping = || {
        let mut client = Client::connect(address);
        while !over.load(Ordering::Relaxed) {
            if once(&mut client) {
                assert!(closing == Closing::Allowed, "a connection was ended");
                client = Client::connect(address);
            }
        }
    };
    let fresh = |ended: &Receiver<()>| {
        while !over.load(Ordering::Relaxed) {
            let mut client = Client::connect(address);
            once(&mut client);
            // Closed in the usual way each would leave its port in `TIME_WAIT` for a minute.
            client.reset();
            let _ = ended.recv_timeout(PAUSE);
        }
    };
    thread::scope(|scope| {
        for _ in 0..CALLERS[0] {
            scope.spawn(keeping);
        }
        for _ in 0..CALLERS[1] {
            scope.spawn(|| fresh(&ended));
        }
        let end = Over(&over);
        story();
        drop(end);
        drop(running);
    });
    calls.into_inner()
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
