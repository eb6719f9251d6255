//! The three parts of a story: a proxy, a backend that does as told, a client that sends bytes.

pub mod backend;
pub mod client;
pub mod proxy;

pub use backend::{Backend, Exchange, json};
pub use client::{Client, Response};
pub use proxy::{Proxy, ProxyBuilder};

use std::time::{Duration, Instant};

/// No single wait of a test is longer. Far above what a slow machine needs; no test passes by it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until something holds, looking often.
///
/// # Panics
/// When it does not come to hold.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
