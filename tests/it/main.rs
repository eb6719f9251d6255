//! Integration tests: the proxy in this process, over real sockets, raw bytes on both sides.
//!
//! One file per behaviour. `RINGWAY_TEST_WORKERS` (default 2) and `RINGWAY_IO_DRIVER` choose what
//! they run on; `scripts/test` runs them on 1 and 4 workers and both drivers, and on 2. What needs a process
//! starts the binary that was built with the tests, or `RINGWAY_TEST_BINARY`, a release build say.

mod access;
mod admin;
mod answers;
mod at_most_once;
mod backpressure;
mod cache;
mod cancellation;
mod coalescing;
mod config;
mod deadlines;
mod denied;
mod descriptors;
mod differential;
mod drain;
mod envelope;
mod eras;
mod faults;
mod gate;
mod handover;
mod hangup;
mod layout;
mod limits;
mod modes;
mod overload;
mod poison;
mod pool;
mod process;
#[path = "../../src/mcp/random.rs"]
mod random;
mod relay;
mod reload;
mod request_framing;
mod response_framing;
mod retry;
mod routing;
mod sessions;
mod slow;
mod stalls;
mod streaming;
mod support;
mod systemd;
mod torture;
mod trace;
mod truncation;
mod workers;
