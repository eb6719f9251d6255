//! From visits to figures: medians, ratios within a round, a table, and `report.json`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::bench::{Case, Cores, DISTURBED_SHARE_MAX, Visit};
use crate::drive::Latency;
use crate::peers::Peer;

#[derive(Serialize)]
pub struct Report {
    machine: Machine,
    peers: Vec<PeerVersion>,
    seconds: f64,
    rounds: usize,
    cases: Vec<CaseReport>,
}

#[derive(Serialize)]
pub struct Machine {
    kernel: String,
    cpu: String,
    cores: Cores,
    load_average_at_start: String,
}

#[derive(Serialize)]
pub struct PeerVersion {
    pub peer: Peer,
    pub version: String,
}

#[derive(Serialize)]
pub struct CaseReport {
    workload: String,
    connections: usize,
    rows: Vec<Row>,
}

/// One peer in one case: medians over the rounds, and the visits they come from.
#[derive(Serialize)]
pub struct Row {
    peer: Peer,
    requests_per_second: f64,
    /// CPU of the proxy per request; absent without a proxy.
    cpu_us: Option<f64>,
    cpu_us_min: Option<f64>,
    cpu_us_max: Option<f64>,
    latency: Latency,
    event_delay: Option<Latency>,
    /// CPU per request against another peer: the median of the ratios within each round, so that drift cancels out.
    cpu_to_floor: Option<f64>,
    cpu_to_nginx: Option<f64>,
    cpu_to_haproxy: Option<f64>,
    throughput_to_direct: Option<f64>,
    /// Of the requests sent, the share that reached the backend.
    reached_backend: f64,
    wrong: u64,
    first_wrong: Option<String>,
    disturbed_visits: usize,
    visits: Vec<Visit>,
}

impl Report {
    pub fn new(machine: Machine, peers: Vec<PeerVersion>, seconds: f64, rounds: usize) -> Self {
        Report { machine, peers, seconds, rounds, cases: Vec::new() }
    }

    pub fn add(&mut self, case: Case, visits: Vec<(Peer, Vec<Visit>)>) -> &CaseReport {
        self.cases.push(CaseReport::new(case, visits));
        self.cases.last().expect("just pushed")
    }

    pub fn wrong(&self) -> u64 {
        self.rows().map(|row| row.wrong).sum()
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        fs::write(path, serde_json::to_vec_pretty(self)?).with_context(|| format!("write {}", path.display()))
    }

    /// What a reader of the tables has to know.
    pub fn closing_notes(&self) -> String {
        let mut notes = String::from(
            "CPU µs is the scheduler's run time of all threads of the proxy divided by right answers; medians of the rounds,\n\
             ratios are medians of the ratios within each round. ÷floor is against the io_uring relay. A difference under\n\
             10 % is noise on a shared machine.\n",
        );
        let disturbed: usize = self.rows().map(|row| row.disturbed_visits).sum();
        if disturbed > 0 {
            notes.push_str(&format!(
                "{disturbed} visits (in rows marked ~) were disturbed: others had a core of the run for more than {:.0} % of \
                 the time.\nA request then costs more, and not by the same factor for every proxy: repeat on a quiet machine.\n",
                DISTURBED_SHARE_MAX * 100.0
            ));
        }
        for row in self.rows().filter(|row| row.wrong > 0) {
            let first = row.first_wrong.as_deref().unwrap_or("unknown");
            notes.push_str(&format!("{}: {} wrong answers; the first: {first}\n", row.peer.name(), row.wrong));
        }
        notes
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.cases.iter().flat_map(|case| &case.rows)
    }
}

impl CaseReport {
    fn new(case: Case, visits: Vec<(Peer, Vec<Visit>)>) -> Self {
        let of = |wanted: Peer| visits.iter().find(|(peer, _)| *peer == wanted).map(|(_, visits)| visits.as_slice());
        let rows = visits.iter().map(|(peer, visits)| {
            let cpu = |visit: &Visit| visit.outcome.watched_cpu_us;
            let throughput = |visit: &Visit| Some(visit.outcome.requests_per_second);
            let cpu_to = |other: Peer| of(other).and_then(|others| ratio(visits, others, cpu));
            let cpus: Vec<f64> = visits.iter().filter_map(cpu).collect();
            let outcomes = || visits.iter().map(|visit| &visit.outcome);
            let sent: u64 = outcomes().map(|outcome| outcome.sent).sum();
            Row {
                peer: *peer,
                requests_per_second: median(visits.iter().filter_map(throughput).collect()).unwrap_or(0.0),
                cpu_us: median(cpus.clone()),
                cpu_us_min: cpus.iter().copied().reduce(f64::min),
                cpu_us_max: cpus.iter().copied().reduce(f64::max),
                latency: Latency::median(outcomes().map(|outcome| outcome.latency)).unwrap_or_default(),
                event_delay: Latency::median(outcomes().filter_map(|outcome| outcome.event_delay)),
                cpu_to_floor: cpu_to(Peer::RelayUring),
                cpu_to_nginx: cpu_to(Peer::Nginx),
                cpu_to_haproxy: cpu_to(Peer::Haproxy),
                throughput_to_direct: of(Peer::Direct).and_then(|direct| ratio(visits, direct, throughput)),
                reached_backend: visits.iter().map(|visit| visit.reached_backend).sum::<u64>() as f64
                    / sent.max(1) as f64,
                wrong: outcomes().map(|outcome| outcome.wrong).sum(),
                first_wrong: outcomes().find_map(|outcome| outcome.first_wrong.clone()),
                disturbed_visits: visits.iter().filter(|visit| visit.is_disturbed()).count(),
                visits: visits.clone(),
            }
        });
        CaseReport { workload: case.workload.name(), connections: case.connections, rows: rows.collect() }
    }

    pub fn table(&self) -> String {
        let plural = if self.connections == 1 { "connection" } else { "connections" };
        let mut table = format!("\n{}, {} {plural}\n", self.workload, self.connections);
        table.push_str(
            "peer          CPU µs  min–max          ÷floor ÷nginx ÷haproxy    req/s ÷direct    p50 µs    p99 µs  p99.9 µs    \
             max µs reached wrong\n",
        );
        for row in &self.rows {
            table.push_str(&row.line());
        }
        let streams = self.rows.iter().filter_map(|row| Some((row.peer, row.event_delay?)));
        for (index, (peer, delay)) in streams.enumerate() {
            if index == 0 {
                table.push_str("delay of an event, from the backend's stamp to its arrival:\n");
            }
            let (name, Latency { p50_us, p99_us, max_us, .. }) = (peer.name(), delay);
            table.push_str(&format!("{name:<12} p50 {p50_us:>8.1} µs   p99 {p99_us:>8.1} µs   max {max_us:>8.1} µs\n"));
        }
        table
    }
}

impl Row {
    fn line(&self) -> String {
        // A wrong answer may be a fast one, so nothing is compared with it.
        let right = |value: Option<f64>| if self.wrong == 0 { value } else { None };
        let cell = |value: Option<f64>, width: usize, decimals: usize| match value {
            Some(value) => format!("{value:>width$.decimals$}"),
            None => format!("{:>width$}", "–"),
        };
        let spread = match (self.cpu_us_min, self.cpu_us_max) {
            (Some(min), Some(max)) => format!("{min:.1}–{max:.1}"),
            _ => "–".to_owned(),
        };
        format!(
            "{:<12}{}{} {:<15} {} {} {} {} {} {} {} {} {} {:>6.0}% {:>5}\n",
            self.peer.name(),
            if self.disturbed_visits > 0 { "~" } else { " " },
            cell(self.cpu_us, 7, 2),
            spread,
            cell(right(self.cpu_to_floor), 7, 2),
            cell(right(self.cpu_to_nginx), 6, 2),
            cell(right(self.cpu_to_haproxy), 8, 2),
            cell(Some(self.requests_per_second), 8, 0),
            cell(right(self.throughput_to_direct), 7, 2),
            cell(Some(self.latency.p50_us), 9, 1),
            cell(Some(self.latency.p99_us), 9, 1),
            cell(Some(self.latency.p99_9_us), 9, 1),
            cell(Some(self.latency.max_us), 9, 1),
            self.reached_backend * 100.0,
            self.wrong
        )
    }
}

impl Machine {
    pub fn read(cores: Cores) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let cpu = read("/proc/cpuinfo");
        let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
        Machine {
            kernel: read("/proc/sys/kernel/osrelease"),
            cpu: cpu.trim_start_matches([' ', '\t', ':']).to_owned(),
            cores,
            load_average_at_start: read("/proc/loadavg"),
        }
    }
}

impl Latency {
    /// Each figure's median, which need not come from the same visit.
    fn median(of: impl Iterator<Item = Latency>) -> Option<Latency> {
        let all: Vec<Latency> = of.collect();
        let figure = |pick: fn(&Latency) -> f64| median(all.iter().map(pick).collect());
        Some(Latency {
            p50_us: figure(|latency| latency.p50_us)?,
            p90_us: figure(|latency| latency.p90_us)?,
            p99_us: figure(|latency| latency.p99_us)?,
            p99_9_us: figure(|latency| latency.p99_9_us)?,
            max_us: figure(|latency| latency.max_us)?,
        })
    }
}

/// The median of the ratios of visits of the same round; none if a figure is missing or zero.
fn ratio(visits: &[Visit], others: &[Visit], figure: impl Fn(&Visit) -> Option<f64>) -> Option<f64> {
    let ratios = visits.iter().zip(others).filter_map(|(visit, other)| {
        let other = figure(other).filter(|other| *other > 0.0)?;
        Some(figure(visit)? / other)
    });
    median(ratios.collect())
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::Outcome;

    fn visit(cpu_us: f64, requests_per_second: f64) -> Visit {
        let outcome = Outcome { watched_cpu_us: Some(cpu_us), requests_per_second, sent: 10, ..Outcome::default() };
        Visit { outcome, reached_backend: 5 }
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }

    #[test]
    fn a_ratio_is_taken_within_the_round() {
        // The machine became twice as slow in the third round; the peers did not change places.
        let ours = [visit(5.0, 0.0), visit(5.0, 0.0), visit(10.0, 0.0)];
        let nginx = [visit(10.0, 0.0), visit(10.0, 0.0), visit(20.0, 0.0)];
        assert_eq!(ratio(&ours, &nginx, |visit| visit.outcome.watched_cpu_us), Some(0.5));
        assert_eq!(ratio(&ours, &[visit(0.0, 0.0)], |visit| visit.outcome.watched_cpu_us), None);
    }

    #[test]
    fn a_row_says_what_reached_the_backend_and_is_not_compared_when_wrong() {
        let case: Case = "call@32".parse().unwrap();
        let mut wrong = visit(1.0, 9.0);
        wrong.outcome.wrong = 1;
        let visits = vec![(Peer::Nginx, vec![visit(20.0, 3.0)]), (Peer::Ringway, vec![wrong])];
        let report = CaseReport::new(case, visits);
        assert_eq!(report.rows[1].reached_backend, 0.5);
        assert_eq!(report.rows[1].cpu_to_nginx, Some(0.05));
        assert!(!report.rows[1].line().contains("0.05"), "{}", report.table());
    }
}
