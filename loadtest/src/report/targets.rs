//! What Ringway promises, read off a report: the table of `docs/performance.md` and the plot beside it.

use std::fmt::Write;

use anyhow::{Context, Result};

use super::Report;
use super::figures::{FleetRow, LoadRow, ratio};
use super::plot::{Bar, bars};
use crate::bench::Visit;
use crate::peers::Peer;

/// A promise, and where it is read off.
struct Target {
    case: &'static str,
    figure: Figure,
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Figure {
    /// A peer's figure against another's: the median of the ratios within each round.
    Ratio(Measure, Peer, Peer),
    /// What one adds to the median latency without a proxy, against what another adds.
    AddedP50(Peer, Peer),
    /// How much longer the median event is on its way through one than through another, µs.
    EventP50Beyond(Peer, Peer),
    /// Memory of one client that does nothing, KiB.
    MemoryEach,
    Fleet(&'static str, fn(&FleetRow) -> Option<f64>),
}

#[derive(Clone, Copy)]
enum Measure {
    Cpu,
    Throughput,
    P99,
    P999,
    EventP50,
    EventP99,
}

#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

use Bound::{AtLeast, AtMost};
use Figure::{AddedP50, EventP50Beyond, Fleet, MemoryEach, Ratio};
use Measure::{Cpu, EventP50, EventP99, P99, P999, Throughput};
use Peer::{
    Agentgateway, Direct, Envoy, Haproxy, McpGateway, McpProxy, Nginx, RelayUring, Ringway, Ringway2, RingwayEnvelope,
    RingwayEpoll, RingwayPgo, RingwayStream,
};

const TARGETS: &[Target] = &[
    target("call@1", Ratio(Cpu, Ringway, RelayUring), AtMost(1.20)),
    target("call@1", Ratio(Cpu, RingwayStream, RelayUring), AtMost(1.20)),
    target("call@1", Ratio(Cpu, Ringway, Nginx), AtMost(0.70)),
    target("call@1", Ratio(Cpu, RingwayStream, Nginx), AtMost(0.70)),
    target("call@1", AddedP50(Ringway, RelayUring), AtMost(1.10)),
    target("call@32", Ratio(Cpu, Ringway, RelayUring), AtMost(1.20)),
    target("call@32", Ratio(Cpu, RingwayStream, RelayUring), AtMost(1.20)),
    target("call@32", Ratio(Cpu, Ringway, Nginx), AtMost(0.80)),
    target("call@32", Ratio(Cpu, RingwayStream, Nginx), AtMost(0.80)),
    target("call@32", Ratio(Cpu, Ringway, Haproxy), AtMost(0.85)),
    target("call@32", Ratio(Cpu, RingwayStream, Haproxy), AtMost(0.85)),
    target("call@32", Ratio(Throughput, Ringway, Haproxy), AtLeast(1.00)),
    target("call@32", Ratio(P99, Ringway, Haproxy), AtMost(1.00)),
    target("call@256", Ratio(Cpu, Ringway, RelayUring), AtMost(1.25)),
    target("call@256", Ratio(Cpu, RingwayStream, RelayUring), AtMost(1.25)),
    target("call@256", Ratio(Cpu, Ringway, Nginx), AtMost(0.60)),
    target("call@256", Ratio(Cpu, RingwayStream, Nginx), AtMost(0.60)),
    target("call@256", Ratio(P999, Ringway, Nginx), AtMost(1.00)),
    target("call@32", Ratio(Cpu, RingwayEnvelope, RingwayStream), AtMost(1.10)),
    target("call-modern@32", Ratio(Cpu, Ringway, RelayUring), AtMost(1.20)),
    target("call-modern@32", Ratio(Cpu, Ringway, Nginx), AtMost(0.80)),
    target("call-modern@32", Ratio(Cpu, RingwayEnvelope, RingwayStream), AtMost(1.10)),
    target("list@32", Ratio(Cpu, Ringway, RelayUring), AtMost(1.25)),
    target("list@32", Ratio(Cpu, Ringway, Nginx), AtMost(0.65)),
    target("list-cached@32", Ratio(Cpu, Ringway, RelayUring), AtMost(0.50)),
    target("list-cached@32", Ratio(Throughput, Ringway, Direct), AtLeast(0.90)),
    target("call-64k@32", Ratio(Cpu, Ringway, RelayUring), AtMost(1.15)),
    target("call-64k@32", Ratio(Cpu, Ringway, Nginx), AtMost(0.95)),
    target("sse20@32", Ratio(Cpu, Ringway, RelayUring), AtMost(1.05)),
    target("sse20@32", Ratio(Cpu, Ringway, Nginx), AtMost(1.00)),
    target("sse20-paced@32", EventP50Beyond(Ringway, RelayUring), AtMost(10.0)),
    target("sse20-paced@32", Ratio(EventP50, Ringway, Nginx), AtMost(1.00)),
    target("sse20-paced@32", Ratio(EventP99, Ringway, Nginx), AtMost(1.00)),
    target("call@32", Ratio(Cpu, Ringway, McpProxy), AtMost(1.0 / 8.0)),
    target("call@32", Ratio(Cpu, Ringway, McpGateway), AtMost(1.0 / 8.0)),
    target("call@32", Ratio(Cpu, Ringway, Agentgateway), AtMost(1.0 / 8.0)),
    target("call@32", Ratio(Throughput, Ringway, McpProxy), AtLeast(6.0)),
    target("call@32", Ratio(Throughput, Ringway, McpGateway), AtLeast(6.0)),
    target("call@32", Ratio(Throughput, Ringway, Agentgateway), AtLeast(6.0)),
    target("list@32", Ratio(Cpu, Ringway, McpProxy), AtMost(1.0 / 15.0)),
    target("list@32", Ratio(Cpu, Ringway, McpGateway), AtMost(1.0 / 15.0)),
    target("list@32", Ratio(Cpu, Ringway, Agentgateway), AtMost(1.0 / 15.0)),
    target("call@32", Ratio(Cpu, RingwayEpoll, Ringway), AtMost(1.30)),
    target("call@32", Ratio(Cpu, RingwayEpoll, Nginx), AtMost(1.00)),
    // 1.7 times as much with twice as many: where the workers have no cores to themselves, CPU tells.
    target("call@256", Ratio(Cpu, Ringway2, Ringway), AtMost(2.0 / 1.7)),
    target("idle-20000", MemoryEach, AtMost(4.0)),
    target("streams-20000", MemoryEach, AtMost(4.0)),
    target("fleet-10000", Fleet("CPU ÷ that before 10 backends", |row| row.cpu_to_small), AtMost(1.05)),
    target("fleet-10000", Fleet("reload, s", |row| row.reload_ms.map(|ms| ms / 1e3)), AtMost(1.0)),
    target("fleet-10000", Fleet("p99 while it reloads ÷ p99", |row| row.p99_reloading_to_quiet), AtMost(1.05)),
    target("fleet-10000", Fleet("memory, MiB", |row| row.resident_bytes.map(mebibytes)), AtMost(200.0)),
];

const fn target(case: &'static str, figure: Figure, bound: Bound) -> Target {
    Target { case, figure, bound }
}

/// Whose CPU the plot compares, and in which case.
const PLOT_CASE: &str = "call@32";
const PLOT_PEERS: [Peer; 8] = [RelayUring, Ringway, Haproxy, Nginx, Envoy, Agentgateway, McpProxy, McpGateway];

/// The cases that anything is promised about.
pub fn cases() -> Vec<&'static str> {
    let mut cases: Vec<&str> = Vec::new();
    for target in TARGETS {
        if !cases.contains(&target.case) {
            cases.push(target.case);
        }
    }
    cases
}

/// Markdown: what was measured on what, then each promise and what came of it.
pub fn table(report: &Report) -> String {
    let machine = &report.machine;
    let mut text = format!(
        "{}, {} cores, Linux {}; {} visits of {} s each, medians of the ratios within a round.\n",
        machine.cpu, machine.cores_allowed, machine.kernel, report.rounds, report.seconds
    );
    let versions = report.peers.iter().filter(|peer| !matches!(peer.peer, Direct) && !peer.peer.is_relay());
    let versions: Vec<String> = versions.map(|peer| format!("{} ({})", peer.peer.name(), peer.version)).collect();
    // Writing into a String does not fail.
    let _ = writeln!(text, "Took part: {}.", versions.join(", "));
    for reason in report.reasons() {
        let _ = writeln!(text, "Not to be relied on: {reason}.");
    }
    text.push_str("\n| case | figure | target | measured | met | ringway-pgo |\n|---|---|---|---|---|---|\n");
    for Target { case, figure, bound } in TARGETS {
        let value = report.figure(case, *figure);
        let measured = value.map_or("–".to_owned(), short);
        let met = value.map_or("", |value| if bound.holds(value) { "yes" } else { "**no**" });
        let pgo = figure.of_pgo().and_then(|figure| report.figure(case, figure)).map_or(String::new(), short);
        let (figure, bound) = (figure.title(), bound.title());
        let _ = writeln!(text, "| `{case}` | {figure} | {bound} | {measured} | {met} | {pgo} |");
    }
    text
}

/// SVG: CPU per request of those that people compare.
pub fn plot(report: &Report) -> Result<String> {
    let load = report.loads.iter().find(|load| load.case == PLOT_CASE).context("the report is without its case")?;
    let row = |peer: Peer| load.rows.iter().find(|row| row.peer == peer && row.is_right());
    let bar = |peer: Peer| row(peer).map(|row| Bar { peer, value: row.cpu_us });
    bars(&PLOT_PEERS.into_iter().filter_map(bar).collect::<Vec<_>>(), 1)
}

impl Report {
    fn figure(&self, case: &str, figure: Figure) -> Option<f64> {
        // A wrong answer may be a fast one.
        let row = |peer: Peer| {
            let load = self.loads.iter().find(|load| load.case == case)?;
            load.rows.iter().find(|row| row.peer == peer && row.is_right())
        };
        let beside = |of: Peer, to: Peer, pick: fn(&LoadRow) -> Option<f64>| Some((pick(row(of)?)?, pick(row(to)?)?));
        match figure {
            Ratio(measure, of, to) => ratio(&row(of)?.visits, &row(to)?.visits, |visit| measure.of(visit)),
            AddedP50(of, to) => beside(of, to, |row| row.added_p50_us).map(|(own, other)| own / other),
            EventP50Beyond(of, to) => beside(of, to, |row| row.event_added_p50_us).map(|(own, other)| own - other),
            MemoryEach => {
                let rows = &self.idle.iter().find(|idle| idle.case == case)?.rows;
                let held = rows.iter().find(|row| row.peer == Ringway)?.held.as_ref()?;
                Some(held.per_connection_bytes / 1024.0)
            }
            Fleet(_, pick) => {
                let rows = &self.fleets.iter().find(|fleet| fleet.case == case)?.rows;
                pick(rows.iter().find(|row| row.peer == Ringway && row.fault.is_none())?)
            }
        }
    }
}

impl Figure {
    /// The same figure of the profile-guided build, if it is one of Ringway with its defaults.
    fn of_pgo(self) -> Option<Self> {
        match self {
            Ratio(measure, Ringway, to) => Some(Ratio(measure, RingwayPgo, to)),
            AddedP50(Ringway, to) => Some(AddedP50(RingwayPgo, to)),
            EventP50Beyond(Ringway, to) => Some(EventP50Beyond(RingwayPgo, to)),
            _ => None,
        }
    }

    fn title(self) -> String {
        match self {
            Ratio(measure, of, to) => format!("{}: {} ÷ {}", measure.title(), of.name(), to.name()),
            AddedP50(of, to) => format!("added p50: {} ÷ {}", of.name(), to.name()),
            EventP50Beyond(of, to) => format!("p50 of an event: {} − {}, µs", of.name(), to.name()),
            MemoryEach => "memory of each, KiB".to_owned(),
            Fleet(title, _) => title.to_owned(),
        }
    }
}

impl Measure {
    fn of(self, visit: &Visit) -> Option<f64> {
        let outcome = &visit.outcome;
        match self {
            Cpu => outcome.watched_cpu_us,
            Throughput => Some(outcome.requests_per_second),
            P99 => Some(outcome.latency.p99_us),
            P999 => Some(outcome.latency.p99_9_us),
            EventP50 => outcome.event_delay.map(|delay| delay.p50_us),
            EventP99 => outcome.event_delay.map(|delay| delay.p99_us),
        }
    }

    fn title(self) -> &'static str {
        match self {
            Cpu => "CPU",
            Throughput => "requests a second",
            P99 => "p99",
            P999 => "p99.9",
            EventP50 => "p50 of an event",
            EventP99 => "p99 of an event",
        }
    }
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            AtMost(bound) => value <= bound,
            AtLeast(bound) => value >= bound,
        }
    }

    fn title(self) -> String {
        match self {
            AtMost(bound) => format!("≤ {}", short(bound)),
            AtLeast(bound) => format!("≥ {}", short(bound)),
        }
    }
}

/// Two digits that count, and no more than are needed.
fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 10.0 => format!("{value:.0}"),
        small if small < 0.2 => format!("{value:.3}"),
        _ => format!("{value:.2}"),
    }
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::{load, visit, visits};
    use super::*;
    use crate::bench::{Cores, Machine};
    use crate::case::Case;

    fn report() -> Report {
        let cores = Cores { generator: 0, backend: 0, proxy: vec![1], proxy_of_two: vec![0, 1] };
        let machine = Machine {
            kernel: "6".to_owned(),
            cpu: "a processor".to_owned(),
            memory_gib: 1.0,
            cores,
            cores_allowed: 2,
            use_at_start: 0.0,
            load_average_at_start: "0".to_owned(),
            reasons: Vec::new(),
        };
        let mut report = Report::new(machine, 1.0, 1);
        report.add_load(
            load("call@32"),
            vec![
                visits(RelayUring, vec![visit(10.0, 9.0)]),
                visits(Nginx, vec![visit(20.0, 9.0)]),
                visits(Ringway, vec![visit(11.0, 9.0)]),
                visits(RingwayStream, vec![visit(17.0, 9.0)]),
                visits(RingwayPgo, vec![visit(9.0, 9.0)]),
            ],
        );
        report
    }

    #[test]
    fn every_case_can_be_read() {
        let cases = cases();
        assert!(cases.len() > 10);
        for case in cases {
            assert!(case.parse::<Case>().is_ok(), "{case}");
        }
    }

    #[test]
    fn the_table_says_what_holds_and_what_does_not() {
        // As it comes out of the file.
        let report: Report = serde_json::from_str(&serde_json::to_string(&report()).unwrap()).unwrap();
        let table = table(&report);
        assert!(table.contains("| `call@32` | CPU: ringway ÷ relay-uring | ≤ 1.20 | 1.10 | yes | 0.90 |"), "{table}");
        assert!(table.contains("| `call@32` | CPU: ringway-stream ÷ nginx | ≤ 0.80 | 0.85 | **no** |  |"), "{table}");
        assert!(table.contains("| `call@32` | CPU: ringway ÷ mcp-proxy | ≤ 0.125 | – |  |  |"), "{table}");
        let plot = plot(&report).unwrap();
        assert!(plot.contains("nginx") && !plot.contains("mcp-proxy"), "{plot}");
    }
}
