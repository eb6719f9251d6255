//! The metrics page: Prometheus text exposition format 0.0.4, from plain values.
//!
//! Every metric stands in `docs/metrics.md`; a test compares the two.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use super::Counters;
use super::gather::{Gathered, Worker};
use super::process::ProcessStats;
use crate::error::Refusal;
use crate::seam::{Cached, Coalesced, Era, Invalidation, Label, Latency, Names, SessionEvent, Snapshot, WorkerStats};

/// Content type of the page.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Bounds of request and upstream times, in microseconds: from a local backend to a long tool call.
const DURATION_BOUNDS: [u64; 18] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// Bounds of the proxy's own time, in microseconds.
const OVERHEAD_BOUNDS: [u64; 13] = [5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 100_000];

/// Bounds of a worker's lateness, in microseconds.
const STALL_BOUNDS: [u64; 11] =
    [1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000];

/// All that the page is made of.
pub(super) struct Scrape<'a> {
    pub(super) gathered: &'a Gathered,
    pub(super) snapshot: &'a Snapshot,
    pub(super) snapshots: usize,
    pub(super) counters: Counters,
    pub(super) io_driver: &'a str,
    pub(super) lost_log_lines: u64,
    pub(super) process: ProcessStats,
}

/// The page.
pub(super) fn render(scrape: &Scrape<'_>) -> String {
    let mut page = Page::default();
    requests(&mut page, &scrape.gathered.total, &scrape.snapshot.names);
    mcp(&mut page, &scrape.gathered.total, scrape.counters);
    connections(&mut page, &scrape.gathered.total);
    upstream(&mut page, &scrape.gathered.total, scrape.snapshot);
    workers(&mut page, scrape);
    configuration(&mut page, scrape);
    process(&mut page, scrape);
    page.text
}

fn requests(page: &mut Page, total: &WorkerStats, names: &Names) {
    page.family("ringway_requests_total", Kind::Counter, "Requests answered, or abandoned by the client.");
    for ([route, backend, method, code], count) in request_lines(total, names) {
        let labels = [("route", route), ("backend", backend), ("method", method), ("code", code)];
        page.sample(&labels, count);
    }
    page.family("ringway_refused_total", Kind::Counter, "Requests and connections that Ringway itself refused.");
    page.samples("reason", Refusal::ALL.iter().map(|reason| reason.label()), &*total.refused);
    page.histogram(
        "ringway_request_duration_seconds",
        "First byte of a request read to last byte of its answer written.",
        &total.request_duration,
        &DURATION_BOUNDS,
    );
    page.histogram(
        "ringway_upstream_duration_seconds",
        "Request sent to the backend to first byte of its answer.",
        &total.upstream_duration,
        &DURATION_BOUNDS,
    );
    page.histogram(
        "ringway_overhead_seconds",
        "Time a request spent in the proxy itself.",
        &total.overhead,
        &OVERHEAD_BOUNDS,
    );
    page.single(
        "ringway_request_body_bytes_total",
        Kind::Counter,
        "Bytes of request bodies relayed to backends.",
        total.request_body_bytes,
    );
    page.single(
        "ringway_response_body_bytes_total",
        Kind::Counter,
        "Bytes of response bodies relayed to clients.",
        total.response_body_bytes,
    );
}

fn mcp(page: &mut Page, total: &WorkerStats, counters: Counters) {
    page.family("ringway_requests_by_era_total", Kind::Counter, "Requests by the era of MCP they belong to.");
    page.samples("era", Era::ALL.iter().map(|era| era.label()), &total.by_era);
    page.family("ringway_sessions_total", Kind::Counter, "Sessions of the legacy era, and attempts to use one.");
    page.samples("event", SessionEvent::ALL.iter().map(|event| event.label()), &total.sessions);
    page.family("ringway_coalesced_total", Kind::Counter, "Requests that may share an answer, by what they came to.");
    page.samples("result", Coalesced::ALL.iter().map(|result| result.label()), &total.coalesced);
    page.family("ringway_cache_total", Kind::Counter, "Requests that may be answered from the cache, by what it gave.");
    page.samples("result", Cached::ALL.iter().map(|result| result.label()), &total.cached);
    page.family("ringway_cache_invalidations_total", Kind::Counter, "Cache entries thrown away before their time.");
    let mut invalidated = total.invalidated;
    invalidated[Invalidation::Operator as usize] += counters.caches_cleared;
    page.samples("reason", Invalidation::ALL.iter().map(|reason| reason.label()), &invalidated);
    page.single(
        "ringway_memory_bytes",
        Kind::Gauge,
        "Buffers, queued and cached bytes: what limits.memory_*_bytes bound in each worker.",
        total.memory_bytes,
    );
    page.single("ringway_cache_bytes", Kind::Gauge, "Bytes in the cache.", total.cache_bytes);
    page.single("ringway_cache_entries", Kind::Gauge, "Entries in the cache.", total.cache_entries);
}

/// Label values of each series with its count, in a fixed order.
fn request_lines<'a>(total: &WorkerStats, names: &'a Names) -> BTreeMap<[&'a str; 4], u64> {
    let name = |label: Label| names.name(label);
    let labels = total.requests.iter().map(|(series, count)| {
        let values = [name(series.route), name(series.backend), series.method.label(), series.class.label()];
        (values, *count)
    });
    labels.collect()
}

fn connections(page: &mut Page, total: &WorkerStats) {
    page.family("ringway_connections", Kind::Gauge, "Connections open.");
    page.sample(&[("side", "client")], total.client_connections);
    page.sample(&[("side", "upstream")], total.upstream_connections);
    page.single(
        "ringway_connections_handed_over_total",
        Kind::Counter,
        "Connections that a worker with far more streams than others handed to one of them.",
        total.handed_over,
    );
    page.single("ringway_connections_accepted_total", Kind::Counter, "Client connections accepted.", total.accepted);
    page.single("ringway_exchanges", Kind::Gauge, "Requests in flight.", total.exchanges);
    page.single("ringway_streams", Kind::Gauge, "Requests in flight whose answer is an event stream.", total.streams);
    page.single("ringway_panics_total", Kind::Counter, "Connections ended by a panic.", total.panics);
}

fn upstream(page: &mut Page, total: &WorkerStats, snapshot: &Snapshot) {
    page.family("ringway_pool_idle", Kind::Gauge, "Idle connections kept for a backend.");
    for cluster in snapshot.clusters.iter() {
        let pools = cluster.endpoints.iter().filter_map(|endpoint| total.endpoints.get(&endpoint.id));
        page.sample(&[("backend", &cluster.name)], pools.map(|pool| pool.idle).sum::<usize>());
    }
    page.single("ringway_upstream_connects_total", Kind::Counter, "Connections made to backends.", total.connects);
    page.single(
        "ringway_upstream_reused_total",
        Kind::Counter,
        "Requests sent on a connection from the pool.",
        total.reused,
    );
    page.single("ringway_retries_total", Kind::Counter, "Requests sent again on a fresh connection.", total.retries);
}

fn workers(page: &mut Page, scrape: &Scrape<'_>) {
    let all = &scrape.gathered.workers;
    page.of_workers("ringway_worker_up", "Whether the worker answered this scrape.", all, |worker| u8::from(worker.up));
    let help = "Share of time the worker's thread ran since the scrape before.";
    page.of_workers("ringway_worker_busy_ratio", help, all, |worker| worker.busy);
    let help = "Client connections of the worker.";
    page.of_workers("ringway_worker_connections", help, all, |worker| worker.stats.client_connections);
    let help = "Requests in flight in the worker.";
    page.of_workers("ringway_worker_exchanges", help, all, |worker| worker.stats.exchanges);
    let help = "Of these, requests whose answer is an event stream.";
    page.of_workers("ringway_worker_streams", help, all, |worker| worker.stats.streams);
    page.family("ringway_worker_stall_seconds", Kind::Histogram, "How late the worker's loop came to a tick.");
    for (number, worker) in all.iter().enumerate() {
        page.histogram_samples(&[("worker", &number.to_string())], &worker.stats.stalls, &STALL_BOUNDS);
    }
    page.single(
        "ringway_worker_restarts_total",
        Kind::Counter,
        "Workers started again after they ended.",
        scrape.counters.worker_restarts,
    );
    page.family("ringway_io_driver", Kind::Gauge, "The I/O driver in use.");
    page.sample(&[("driver", scrape.io_driver)], 1);
}

fn configuration(page: &mut Page, scrape: &Scrape<'_>) {
    page.single(
        "ringway_config_generation",
        Kind::Gauge,
        "Number of the configuration snapshot in force.",
        scrape.snapshot.generation,
    );
    page.single(
        "ringway_config_snapshots",
        Kind::Gauge,
        "Configuration snapshots in memory: the one in force, and those that requests in flight began with.",
        scrape.snapshots,
    );
    page.family("ringway_reloads_total", Kind::Counter, "Reloads of the configuration.");
    page.sample(&[("result", "ok")], scrape.counters.reloads_ok);
    page.sample(&[("result", "failed")], scrape.counters.reloads_failed);
    page.single(
        "ringway_config_last_reload_successful",
        Kind::Gauge,
        "Whether the last reload succeeded; 1 before the first.",
        u8::from(!scrape.counters.last_reload_failed),
    );
    page.family("ringway_handovers_total", Kind::Counter, "Attempts to hand over to a new process.");
    page.sample(&[("result", "ok")], scrape.counters.handovers_ok);
    page.sample(&[("result", "failed")], scrape.counters.handovers_failed);
}

fn process(page: &mut Page, scrape: &Scrape<'_>) {
    page.family("ringway_build_info", Kind::Gauge, "The version that runs.");
    page.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.single(
        "ringway_log_lines_lost_total",
        Kind::Counter,
        "Lines of the log and the access log that could not be written.",
        scrape.lost_log_lines,
    );
    let process = &scrape.process;
    page.single("process_cpu_seconds_total", Kind::Counter, "User and system CPU time.", process.cpu.as_secs_f64());
    page.single("process_resident_memory_bytes", Kind::Gauge, "Resident memory.", process.resident_bytes);
    page.single("process_open_fds", Kind::Gauge, "Open file descriptors.", process.open_fds);
    page.single(
        "process_start_time_seconds",
        Kind::Gauge,
        "Start of the process since the Unix epoch.",
        process.started.as_secs_f64(),
    );
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The text so far. Writing into a string cannot fail, so results of `write!` are dropped here.
#[derive(Default)]
struct Page {
    text: String,
    family: &'static str,
}

impl Page {
    /// Begins a metric; samples that follow are its.
    fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        self.family = name;
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {}", kind.name());
    }

    fn single(&mut self, name: &'static str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(&[], value);
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.line("", labels, value);
    }

    /// A gauge that each worker has.
    fn of_workers<V: Display>(&mut self, name: &'static str, help: &str, all: &[Worker], value: fn(&Worker) -> V) {
        self.family(name, Kind::Gauge, help);
        for (number, worker) in all.iter().enumerate() {
            self.sample(&[("worker", &number.to_string())], value(worker));
        }
    }

    /// One sample for each value of a closed set, in its order.
    fn samples(&mut self, label: &str, values: impl Iterator<Item = &'static str>, counts: &[u64]) {
        for (value, count) in values.zip(counts) {
            self.sample(&[(label, value)], count);
        }
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(self.family);
        self.text.push_str(suffix);
        for (index, (name, value)) in labels.iter().enumerate() {
            let separator = if index == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{separator}{name}=\"{}\"", Escaped(value));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }

    fn histogram(&mut self, name: &'static str, help: &str, latency: &Latency, bounds: &[u64]) {
        self.family(name, Kind::Histogram, help);
        self.histogram_samples(&[], latency, bounds);
    }

    fn histogram_samples(&mut self, labels: &[(&str, &str)], latency: &Latency, bounds: &[u64]) {
        let summary = Summary::of(latency, bounds);
        let bounds = bounds.iter().map(|bound| seconds(*bound).to_string()).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(summary.cumulative.iter().chain([&summary.count])) {
            self.line("_bucket", &[labels, &[("le", &bound)]].concat(), count);
        }
        self.line("_sum", labels, seconds(summary.sum_micros));
        self.line("_count", labels, summary.count);
    }
}

/// A recorded histogram in fixed buckets, out of one walk over it, so that all parts agree.
#[derive(Debug, PartialEq, Eq)]
struct Summary {
    /// Values up to each bound.
    cumulative: Vec<u64>,
    count: u64,
    /// Exact to the histogram's two digits.
    sum_micros: u64,
}

impl Summary {
    fn of(latency: &Latency, bounds: &[u64]) -> Self {
        let histogram = &latency.0;
        let mut summary = Self { cumulative: vec![0; bounds.len()], count: 0, sum_micros: 0 };
        for step in histogram.iter_recorded() {
            let (value, count) = (step.value_iterated_to(), step.count_since_last_iteration());
            // The lowest value that counts as equal: what took exactly a bound's time is within it.
            let bucket = bounds.partition_point(|bound| *bound < histogram.lowest_equivalent(value));
            if let Some(within) = summary.cumulative.get_mut(bucket) {
                *within += count;
            }
            summary.count += count;
            summary.sum_micros += histogram.median_equivalent(value) * count;
        }
        let mut below = 0;
        for count in &mut summary.cumulative {
            below += *count;
            *count = below;
        }
        summary
    }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// A label's value: backslash, quote and line feed are escaped.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for character in self.0.chars() {
            match character {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::super::gather::Worker;
    use super::*;
    use crate::config;
    use crate::mcp::MethodLabel;
    use crate::seam::{EndpointStats, Series, StatusClass};

    fn snapshot() -> Snapshot {
        let config = config::load_str("test", "[backends.weather]\nendpoints = [\"http://10.0.0.7:9001/mcp\"]\n")
            .expect("a configuration");
        let addresses = super::super::Resolver::at_start(&config).addresses(&config);
        Snapshot::build(&config, &addresses, None).expect("a snapshot")
    }

    fn page(total: WorkerStats, snapshot: &Snapshot) -> String {
        let worker = Worker { up: true, ..Worker::default() };
        render(&Scrape {
            gathered: &Gathered { workers: vec![worker, Worker::default()], total },
            snapshot,
            snapshots: 1,
            counters: Counters { reloads_failed: 2, last_reload_failed: true, ..Counters::default() },
            io_driver: "epoll",
            lost_log_lines: 0,
            process: ProcessStats { cpu: Duration::from_millis(1500), ..ProcessStats::default() },
        })
    }

    fn some_stats(snapshot: &mut Snapshot) -> WorkerStats {
        let mut stats = WorkerStats::default();
        let weather = snapshot.clusters.find("weather").expect("a cluster").clone();
        let route = snapshot.names.intern("say \"hi\"\\\n");
        let series =
            Series { route, backend: weather.label, method: MethodLabel::ToolsCall, class: StatusClass::Success };
        stats.requests.insert(series, 3);
        stats.add(Refusal::NoRoute, 4);
        stats.add(Era::Legacy, 6);
        stats.add(Coalesced::Follower, 7);
        stats.add(Cached::Stale, 8);
        stats.add(Invalidation::UnknownTool, 9);
        stats.add(SessionEvent::RefusedEndpoint, 10);
        stats.cache_bytes = 11;
        stats.cache_entries = 12;
        for micros in [1, 1_000, 1_100, 70_000_000] {
            stats.request_duration.record(Duration::from_micros(micros));
        }
        stats.endpoints.insert(weather.endpoints[0].id, EndpointStats { idle: 5, ..EndpointStats::default() });
        stats
    }

    #[test]
    fn samples_carry_their_labels_and_values() {
        let mut snapshot = snapshot();
        let stats = some_stats(&mut snapshot);
        let page = page(stats, &snapshot);
        let request =
            r#"ringway_requests_total{route="say \"hi\"\\\n",backend="weather",method="tools/call",code="2xx"} 3"#;
        for line in [
            request,
            r#"ringway_refused_total{reason="no_route"} 4"#,
            r#"ringway_refused_total{reason="malformed"} 0"#,
            r#"ringway_requests_by_era_total{era="legacy"} 6"#,
            r#"ringway_requests_by_era_total{era="none"} 0"#,
            r#"ringway_coalesced_total{result="follower"} 7"#,
            r#"ringway_cache_total{result="stale"} 8"#,
            r#"ringway_cache_invalidations_total{reason="unknown_tool"} 9"#,
            r#"ringway_sessions_total{event="refused_endpoint"} 10"#,
            "ringway_cache_bytes 11",
            "ringway_cache_entries 12",
            r#"ringway_request_duration_seconds_bucket{le="0.0001"} 1"#,
            r#"ringway_request_duration_seconds_bucket{le="0.001"} 2"#,
            r#"ringway_request_duration_seconds_bucket{le="60"} 3"#,
            r#"ringway_request_duration_seconds_bucket{le="+Inf"} 4"#,
            "ringway_request_duration_seconds_count 4",
            r#"ringway_pool_idle{backend="weather"} 5"#,
            r#"ringway_worker_up{worker="0"} 1"#,
            r#"ringway_worker_up{worker="1"} 0"#,
            r#"ringway_io_driver{driver="epoll"} 1"#,
            "ringway_config_generation 1",
            r#"ringway_reloads_total{result="failed"} 2"#,
            "ringway_config_last_reload_successful 0",
            "process_cpu_seconds_total 1.5",
        ] {
            assert!(page.lines().any(|have| have == line), "{line} is missing in\n{page}");
        }
    }

    #[test]
    fn a_summary_is_exact_in_counts_and_close_in_sum() {
        let mut latency = Latency::default();
        for micros in [5, 10, 11, 2_000_000] {
            latency.record(Duration::from_micros(micros));
        }
        let summary = Summary::of(&latency, &[5, 10, 1_000]);
        assert_eq!((&summary.cumulative[..], summary.count), (&[1, 2, 3][..], 4));
        assert!(summary.sum_micros.abs_diff(2_000_026) < 20_000);
        let empty = Summary::of(&Latency::default(), &[5]);
        assert_eq!(empty, Summary { cumulative: vec![0], count: 0, sum_micros: 0 });
    }

    #[test]
    fn every_metric_is_documented_and_every_documented_metric_exists() {
        let page = page(WorkerStats::default(), &snapshot());
        let exposed: BTreeSet<_> = page
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .map(|line| line.split_once(' ').expect("name and type"))
            .collect();
        let documented: BTreeSet<_> = include_str!("../../docs/metrics.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
            .map(|(name, rest)| (name, rest.split(" |").next().unwrap_or_default()))
            .filter(|(_, kind)| ["counter", "gauge", "histogram"].contains(kind))
            .collect();
        assert!(!documented.is_empty());
        assert_eq!(exposed, documented);
    }
}
