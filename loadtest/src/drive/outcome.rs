//! Counting while it runs, and what is said at the end.

use std::collections::BTreeMap;

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::DriveArgs;
use super::verdict::Wrong;
use crate::cpu::CpuTime;

const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// What happened since the last restart.
pub struct Tally {
    latency: Histogram<u64>,
    event_delay: Histogram<u64>,
    pub sent: u64,
    pub reconnects: u64,
    wrong: u64,
    first_wrong: Option<Wrong>,
}

/// The part of a run before the window opened.
pub struct Unmeasured {
    sent: u64,
    wrong: u64,
    first_wrong: Option<Wrong>,
    reconnects: u64,
}

/// The scheduler's account of everybody who takes part.
#[derive(Clone, Copy, Debug, Default)]
pub struct Accounts {
    watched: CpuTime,
    own: CpuTime,
    backend: CpuTime,
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p99_9_us: f64,
    pub max_us: f64,
}

/// The line a run ends with.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    pub workload: String,
    pub connections: usize,
    /// Requests a second asked for; absent in a closed loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    pub seconds: f64,
    /// Right answers within the window.
    pub requests: u64,
    /// Wrong ones, in the whole run: one in the warm-up is a fault too.
    pub wrong: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_wrong: Option<String>,
    pub requests_per_second: f64,
    #[serde(flatten)]
    pub latency: Latency,
    /// The whole distribution: how many nines (1 is the 90th percentile, 2 the 99th) and microseconds, as far as the
    /// number of answers goes.
    pub curve: Vec<(f64, f64)>,
    /// From the backend's stamp in each event to its arrival; absent without event streams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_delay: Option<Latency>,
    /// Requests sent in the whole run, to compare with what reached the backend.
    pub sent: u64,
    pub reconnects: u64,
    /// CPU of the watched processes per request; absent if none is watched, or nothing was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watched_cpu_us: Option<f64>,
    /// System calls of the watched processes per request, by name; absent unless they were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syscalls: Option<BTreeMap<String, f64>>,
    /// Share of the window in which somebody outside the run had a core that the proxy, the generator or the backend
    /// (whichever suffered most) wanted. A request then costs more, and not by the same factor for every proxy.
    pub disturbed_share: f64,
    /// CPU of this load generator per request.
    pub generator_cpu_us: f64,
}

impl Tally {
    pub fn new() -> Result<Self> {
        let histogram = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)?;
        let (latency, event_delay) = (histogram.clone(), histogram);
        Ok(Tally { latency, event_delay, sent: 0, reconnects: 0, wrong: 0, first_wrong: None })
    }

    pub fn answer(&mut self, latency_ns: u64) {
        self.latency.saturating_record(latency_ns);
    }

    pub fn event(&mut self, delay_ns: u64) {
        self.event_delay.saturating_record(delay_ns);
    }

    pub fn wrong(&mut self, wrong: Wrong) {
        self.wrong += 1;
        self.first_wrong.get_or_insert(wrong);
    }

    /// Begins to count anew.
    pub fn restart(&mut self) -> Unmeasured {
        self.latency.reset();
        self.event_delay.reset();
        Unmeasured {
            sent: std::mem::take(&mut self.sent),
            wrong: std::mem::take(&mut self.wrong),
            first_wrong: self.first_wrong.take(),
            reconnects: std::mem::take(&mut self.reconnects),
        }
    }

    pub fn outcome(&self, args: &DriveArgs, window_ns: u64, used: &Accounts) -> Outcome {
        let requests = self.latency.len();
        let per_request_us = |ns: u64| ns as f64 / 1e3 / requests.max(1) as f64;
        let watching = !args.watch_pid.is_empty() && requests > 0;
        Outcome {
            workload: args.workload.name(),
            connections: args.connections,
            rate: args.rate,
            seconds: window_ns as f64 / 1e9,
            requests,
            wrong: self.wrong,
            first_wrong: self.first_wrong.map(|wrong| wrong.to_string()),
            requests_per_second: requests as f64 * 1e9 / window_ns.max(1) as f64,
            latency: Latency::of(&self.latency),
            curve: curve(&self.latency),
            event_delay: (!self.event_delay.is_empty()).then(|| Latency::of(&self.event_delay)),
            sent: self.sent,
            reconnects: self.reconnects,
            watched_cpu_us: watching.then(|| per_request_us(used.watched.run_ns)),
            syscalls: None,
            disturbed_share: used.disturbed_ns() as f64 / window_ns.max(1) as f64,
            generator_cpu_us: per_request_us(used.own.run_ns),
        }
    }
}

impl Accounts {
    pub fn read(args: &DriveArgs) -> Self {
        Accounts {
            watched: CpuTime::of(&args.watch_pid),
            own: CpuTime::of(&[std::process::id()]),
            backend: CpuTime::of(args.backend_pid.as_slice()),
        }
    }

    pub fn since(self, earlier: &Accounts) -> Accounts {
        Accounts {
            watched: self.watched - earlier.watched,
            own: self.own - earlier.own,
            backend: self.backend - earlier.backend,
        }
    }

    /// Generator and backend may share a core: what one waits while the other runs is nobody's fault.
    fn disturbed_ns(&self) -> u64 {
        let own = self.own.wait_ns.saturating_sub(self.backend.run_ns);
        let backend = self.backend.wait_ns.saturating_sub(self.own.run_ns);
        self.watched.wait_ns.max(own).max(backend)
    }
}

impl Outcome {
    /// Adds system calls, as many as were made for the answers of the window.
    pub fn add_syscalls(&mut self, calls: BTreeMap<String, u64>) {
        let requests = self.requests.max(1) as f64;
        self.syscalls = Some(calls.into_iter().map(|(name, count)| (name, count as f64 / requests)).collect());
    }

    /// Adds what happened outside the window: it is not timed, but it reached the backend, and it may have been wrong.
    pub fn add_unmeasured(&mut self, before: &Unmeasured, after: &Tally) {
        self.sent += before.sent + after.sent;
        self.wrong += before.wrong + after.wrong;
        self.reconnects += before.reconnects + after.reconnects;
        let first = before.first_wrong.map(|wrong| wrong.to_string());
        let last = after.first_wrong.map(|wrong| wrong.to_string());
        self.first_wrong = first.or(self.first_wrong.take()).or(last);
    }
}

/// Ten points for every nine.
fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let nines_max = (histogram.len().max(1) as f64).log10();
    let points = (0..=60).map(|tenth| tenth as f64 / 10.0).take_while(|nines| *nines <= nines_max);
    let value = |nines: f64| histogram.value_at_quantile(1.0 - 10f64.powf(-nines)) as f64 / 1e3;
    points.map(|nines| (nines, value(nines))).collect()
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1e3;
        let max_us = histogram.max() as f64 / 1e3;
        Latency { p50_us: at(0.5), p90_us: at(0.9), p99_us: at(0.99), p99_9_us: at(0.999), max_us }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_microseconds() {
        let mut tally = Tally::new().unwrap();
        for us in 1..=1000 {
            tally.answer(us * 1000);
        }
        let latency = Latency::of(&tally.latency);
        assert!((latency.p50_us - 500.0).abs() < 1.0, "{latency:?}");
        assert!((latency.p99_us - 990.0).abs() < 1.0, "{latency:?}");
        assert!((latency.max_us - 1000.0).abs() < 1.0, "{latency:?}");
        let curve = curve(&tally.latency);
        let (nines, us) = curve[20];
        assert!((nines - 2.0).abs() < 1e-9 && (us - 990.0).abs() < 1.0, "{curve:?}");
        assert_eq!(curve.len(), 31, "a thousand answers say nothing about four nines");
    }

    #[test]
    fn turns_of_the_backend_are_no_disturbance() {
        let time = |run_ns, wait_ns| CpuTime { run_ns, wait_ns };
        let shared = Accounts { watched: time(9, 1), own: time(4, 6), backend: time(6, 4) };
        assert_eq!(shared.disturbed_ns(), 1);
        let stranger = Accounts { own: time(4, 9), ..shared };
        assert_eq!(stranger.disturbed_ns(), 3);
    }

    #[test]
    fn what_went_wrong_before_the_window_fails_the_run() {
        let mut tally = Tally::new().unwrap();
        tally.sent = 3;
        tally.wrong(Wrong::Status(502));
        let before = tally.restart();
        let mut outcome = Outcome { sent: 10, ..Outcome::default() };
        outcome.add_unmeasured(&before, &tally);
        assert_eq!((outcome.sent, outcome.wrong), (13, 1));
        assert_eq!(outcome.first_wrong.as_deref(), Some("status 502"));
    }
}
