//! From visits to figures: medians, and ratios within a round.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bench::{FleetFigures, Visit, Visits};
use crate::case::{Idle, Load};
use crate::drive::Latency;
use crate::hold::Held;
use crate::peers::Peer;

/// A load and what came of it.
#[derive(Serialize, Deserialize)]
pub struct LoadReport {
    pub case: String,
    pub title: String,
    pub workload: String,
    pub connections: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    /// A proxy may answer for the backend.
    pub may_be_shared: bool,
    pub rows: Vec<LoadRow>,
}

/// One peer in one case: medians over the rounds, and the visits they come from.
#[derive(Serialize, Deserialize)]
pub struct LoadRow {
    pub peer: Peer,
    pub requests_per_second: f64,
    /// CPU of the proxy per request; absent without a proxy.
    pub cpu_us: Option<f64>,
    pub cpu_us_min: Option<f64>,
    pub cpu_us_max: Option<f64>,
    pub latency: Latency,
    /// Against direct: the median of the differences within each round.
    pub added_p50_us: Option<f64>,
    pub added_p99_us: Option<f64>,
    pub event_delay: Option<Latency>,
    pub event_added_p50_us: Option<f64>,
    pub event_added_p99_us: Option<f64>,
    /// CPU per request against another peer: the median of the ratios within each round, so that drift cancels out.
    pub cpu_to_floor: Option<f64>,
    pub cpu_to_nginx: Option<f64>,
    pub cpu_to_nginx_big: Option<f64>,
    pub cpu_to_haproxy: Option<f64>,
    pub throughput_to_direct: Option<f64>,
    /// System calls per request, in sum and by name.
    pub syscalls: Option<f64>,
    pub syscalls_by_name: Option<BTreeMap<String, f64>>,
    /// Memory before the first visit and the most during any, bytes; absent without a proxy.
    pub idle_bytes: Option<u64>,
    pub peak_bytes: Option<u64>,
    /// Of the requests sent, the share that reached the backend.
    pub reached_backend: f64,
    pub wrong: u64,
    /// What was wrong first, or why there is nothing.
    pub fault: Option<String>,
    /// What a reader has to know of these figures.
    pub remark: Option<String>,
    pub disturbed_visits: usize,
    /// Nines and microseconds: 2 is the 99th percentile.
    pub curve: Vec<(f64, f64)>,
    pub visits: Vec<Visit>,
}

#[derive(Serialize, Deserialize)]
pub struct IdleReport {
    pub case: String,
    pub title: String,
    pub rows: Vec<IdleRow>,
}

#[derive(Serialize, Deserialize)]
pub struct IdleRow {
    pub peer: Peer,
    #[serde(flatten)]
    pub held: Option<Held>,
    pub fault: Option<String>,
}

#[derive(Serialize, Deserialize)]
pub struct FleetReport {
    pub case: String,
    pub backends: usize,
    pub rows: Vec<FleetRow>,
}

#[derive(Serialize, Deserialize)]
pub struct FleetRow {
    pub peer: Peer,
    pub start_ms: Option<f64>,
    pub reload_ms: Option<f64>,
    pub reload_under_load_ms: Option<f64>,
    pub resident_bytes: Option<u64>,
    pub cpu_us: Option<f64>,
    /// Against a fleet of ten, of which the same ten are asked.
    pub cpu_to_small: Option<f64>,
    pub p99_us: Option<f64>,
    /// p99 while it reloads over and over, against p99 while it does not.
    pub p99_reloading_to_quiet: Option<f64>,
    pub wrong: u64,
    pub fault: Option<String>,
    pub figures: Option<FleetFigures>,
}

impl LoadReport {
    pub fn new(load: Load, all: Vec<Visits>) -> Self {
        let rows = all.iter().map(|visits| LoadRow::new(load, visits, &all)).collect();
        LoadReport {
            case: load.to_string(),
            title: load.title(),
            workload: load.workload.name(),
            connections: load.connections,
            rate: load.rate,
            may_be_shared: load.workload.may_be_shared(),
            rows,
        }
    }
}

/// Less than this must not be missing at the backend if every request has to reach it.
const REACHED_MIN: f64 = 0.999;

impl LoadRow {
    fn new(load: Load, own: &Visits, all: &[Visits]) -> Self {
        let visits = &own.visits;
        let of = |peer: Peer| all.iter().find(|other| other.peer == peer).map(|other| other.visits.as_slice());
        let cpu = |visit: &Visit| visit.outcome.watched_cpu_us;
        let throughput = |visit: &Visit| Some(visit.outcome.requests_per_second);
        let cpu_to = |other: Peer| of(other).and_then(|others| ratio(visits, others, cpu));
        let added = |figure: fn(&Visit) -> Option<f64>| {
            let direct = of(Peer::Direct).filter(|_| own.peer != Peer::Direct)?;
            let figure = |visit: &Visit| figure(visit).filter(|_| visit.outcome.requests > 0);
            within_rounds(visits, direct, figure, |own, direct| own - direct)
        };
        let cpus: Vec<f64> = visits.iter().filter_map(cpu).collect();
        let outcomes = || visits.iter().map(|visit| &visit.outcome);
        let sent: u64 = outcomes().map(|outcome| outcome.sent).sum();
        let reached: u64 = visits.iter().map(|visit| visit.reached_backend).sum();
        let reached_backend = reached as f64 / sent.max(1) as f64;
        let answered_for = sent > 0 && reached_backend < REACHED_MIN && !load.workload.may_be_shared();
        let first_wrong = outcomes().find_map(|outcome| outcome.first_wrong.clone());
        let unanswered = visits
            .iter()
            .any(|visit| visit.outcome.requests == 0)
            .then(|| "no answer within a whole window: make it longer with --seconds".to_owned());
        let unasked = answered_for
            .then(|| format!("answered {:.1} % without asking the backend", (1.0 - reached_backend) * 100.0));
        LoadRow {
            peer: own.peer,
            requests_per_second: median(visits.iter().filter_map(throughput).collect()).unwrap_or(0.0),
            cpu_us: median(cpus.clone()),
            cpu_us_min: cpus.iter().copied().reduce(f64::min),
            cpu_us_max: cpus.iter().copied().reduce(f64::max),
            latency: Latency::median(outcomes().map(|outcome| outcome.latency)).unwrap_or_default(),
            added_p50_us: added(|visit| Some(visit.outcome.latency.p50_us)),
            added_p99_us: added(|visit| Some(visit.outcome.latency.p99_us)),
            event_delay: Latency::median(outcomes().filter_map(|outcome| outcome.event_delay)),
            event_added_p50_us: added(|visit| Some(visit.outcome.event_delay?.p50_us)),
            event_added_p99_us: added(|visit| Some(visit.outcome.event_delay?.p99_us)),
            cpu_to_floor: cpu_to(Peer::RelayUring),
            cpu_to_nginx: cpu_to(Peer::Nginx),
            cpu_to_nginx_big: cpu_to(Peer::NginxBig),
            cpu_to_haproxy: cpu_to(Peer::Haproxy),
            throughput_to_direct: of(Peer::Direct).and_then(|direct| ratio(visits, direct, throughput)),
            syscalls: own.syscalls.as_ref().map(|calls| calls.values().sum()),
            syscalls_by_name: own.syscalls.clone(),
            idle_bytes: visits.first().map(|visit| visit.idle_bytes).filter(|bytes| *bytes > 0),
            peak_bytes: visits.iter().map(|visit| visit.peak_bytes).max().filter(|bytes| *bytes > 0),
            reached_backend,
            wrong: outcomes().map(|outcome| outcome.wrong).sum(),
            // An MCP proxy of others may well answer from what it has; it is said, and the figures stand.
            fault: own
                .failure
                .clone()
                .or(first_wrong)
                .or(unanswered)
                .or(unasked.clone().filter(|_| own.peer.must_be_right())),
            remark: unasked.filter(|_| !own.peer.must_be_right()),
            disturbed_visits: visits.iter().filter(|visit| visit.is_disturbed()).count(),
            curve: median_curve(visits),
            visits: visits.clone(),
        }
    }

    /// A wrong answer may be a fast one, so a peer that gave any is compared with nobody.
    pub fn is_right(&self) -> bool {
        self.fault.is_none()
    }
}

impl IdleReport {
    pub fn new(idle: Idle, rows: Vec<(Peer, Result<Held, String>)>) -> Self {
        let row = |(peer, held): (Peer, Result<Held, String>)| {
            let (held, fault) = either(held);
            IdleRow { peer, held, fault }
        };
        IdleReport { case: idle.to_string(), title: idle.title(), rows: rows.into_iter().map(row).collect() }
    }
}

impl FleetReport {
    pub fn new(backends: usize, rows: Vec<(Peer, Result<FleetFigures, String>)>) -> Self {
        let rows = rows.into_iter().map(|(peer, figures)| FleetRow::new(peer, figures)).collect();
        FleetReport { case: format!("fleet-{backends}"), backends, rows }
    }

    pub fn title(&self) -> String {
        format!("{} backends with three endpoints each are configured, and ten of them asked", self.backends)
    }
}

impl FleetRow {
    fn new(peer: Peer, figures: Result<FleetFigures, String>) -> Self {
        let (figures, failure) = either(figures);
        let cpu = |visit: &Visit| visit.outcome.watched_cpu_us;
        let p99 = |visit: &Visit| Some(visit.outcome.latency.p99_us);
        let some = figures.as_ref();
        let visits = || some.into_iter().flat_map(|f| f.small.visits.iter().chain(&f.large.visits).chain(&f.reloading));
        let of_large = |figure: fn(&Visit) -> Option<f64>| {
            some.and_then(|f| median(f.large.visits.iter().filter_map(figure).collect()))
        };
        FleetRow {
            peer,
            start_ms: some.map(|f| f.large.start_ms),
            reload_ms: some.and_then(|f| median(f.reload_ms.clone())),
            reload_under_load_ms: some.and_then(|f| median(f.reload_under_load_ms.clone())),
            resident_bytes: some.map(|f| f.large.resident_bytes),
            cpu_us: of_large(cpu),
            cpu_to_small: some.and_then(|f| ratio(&f.large.visits, &f.small.visits, cpu)),
            p99_us: of_large(p99),
            p99_reloading_to_quiet: some.and_then(|f| ratio(&f.reloading, &f.large.visits, p99)),
            wrong: visits().map(|visit| visit.outcome.wrong).sum(),
            fault: failure.or_else(|| visits().find_map(|visit| visit.outcome.first_wrong.clone())),
            figures,
        }
    }
}

fn either<T>(result: Result<T, String>) -> (Option<T>, Option<String>) {
    match result {
        Ok(value) => (Some(value), None),
        Err(error) => (None, Some(error)),
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

/// Point by point, as far as most visits go.
fn median_curve(visits: &[Visit]) -> Vec<(f64, f64)> {
    let curves = || visits.iter().map(|visit| &visit.outcome.curve);
    let longest = curves().map(Vec::len).max().unwrap_or(0);
    let point = |index: usize| {
        let there: Vec<(f64, f64)> = curves().filter_map(|curve| curve.get(index).copied()).collect();
        let nines = there.first()?.0;
        (2 * there.len() > visits.len()).then_some(())?;
        Some((nines, median(there.iter().map(|(_, us)| *us).collect())?))
    };
    (0..longest).map_while(point).collect()
}

/// The median of the ratios of visits of the same round; none if a figure is missing or zero.
pub(super) fn ratio(visits: &[Visit], others: &[Visit], figure: impl Fn(&Visit) -> Option<f64>) -> Option<f64> {
    within_rounds(visits, others, |visit| figure(visit).filter(|value| *value > 0.0), |own, other| own / other)
}

fn within_rounds(
    visits: &[Visit],
    others: &[Visit],
    figure: impl Fn(&Visit) -> Option<f64>,
    compare: impl Fn(f64, f64) -> f64,
) -> Option<f64> {
    let compared = visits.iter().zip(others).filter_map(|(own, other)| Some(compare(figure(own)?, figure(other)?)));
    median(compared.collect())
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
pub mod tests {
    use super::*;
    use crate::case::Case;
    use crate::drive::Outcome;

    pub fn visit(cpu_us: f64, requests_per_second: f64) -> Visit {
        let outcome = Outcome {
            watched_cpu_us: Some(cpu_us),
            requests_per_second,
            sent: 10,
            requests: 10,
            curve: vec![(0.0, 1.0), (1.0, cpu_us)],
            ..Outcome::default()
        };
        Visit { outcome, reached_backend: 10, idle_bytes: 1 << 20, peak_bytes: 2 << 20 }
    }

    pub fn load(text: &str) -> Load {
        match text.parse() {
            Ok(Case::Load(load)) => load,
            other => panic!("{other:?}"),
        }
    }

    pub fn visits(peer: Peer, visits: Vec<Visit>) -> Visits {
        Visits { visits, ..Visits::new(peer) }
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
    fn latency_is_added_to_that_of_the_same_round() {
        let with_p50 = |us: f64| {
            let mut visit = visit(1.0, 1.0);
            visit.outcome.latency.p50_us = us;
            visit
        };
        let direct = visits(Peer::Direct, vec![with_p50(10.0), with_p50(30.0)]);
        let nginx = visits(Peer::Nginx, vec![with_p50(15.0), with_p50(37.0)]);
        let report = LoadReport::new(load("call@32"), vec![direct, nginx]);
        assert_eq!(report.rows[0].added_p50_us, None);
        assert_eq!(report.rows[1].added_p50_us, Some(6.0));
    }

    #[test]
    fn who_answers_for_the_backend_unasked_is_not_right() {
        let mut unasked = visit(1.0, 9.0);
        unasked.reached_backend = 5;
        let row = |case, peer| LoadReport::new(load(case), vec![visits(peer, vec![unasked.clone()])]).rows.remove(0);
        assert!(!row("list@32", Peer::Ringway).is_right());
        assert!(row("list-cached@32", Peer::Ringway).is_right());
        assert_eq!(row("herd-100", Peer::Ringway).reached_backend, 0.5);
        let rival = row("list@32", Peer::McpProxy);
        assert!(rival.is_right());
        assert_eq!(rival.remark.as_deref(), Some("answered 50.0 % without asking the backend"));
    }

    #[test]
    fn a_window_without_an_answer_is_a_fault_and_no_figure() {
        let mut silent = visit(1.0, 0.0);
        silent.outcome.requests = 0;
        let all = vec![visits(Peer::Direct, vec![visit(1.0, 9.0)]), visits(Peer::Nginx, vec![silent])];
        let report = LoadReport::new(load("call@32"), all);
        assert_eq!(report.rows[1].added_p50_us, None);
        assert!(report.rows[1].fault.as_ref().unwrap().starts_with("no answer within a whole window"));
    }

    #[test]
    fn a_curve_goes_as_far_as_most_visits() {
        let mut short = visit(3.0, 1.0);
        short.outcome.curve.pop();
        let curve = median_curve(&[visit(2.0, 1.0), visit(4.0, 1.0), short.clone()]);
        assert_eq!(curve, [(0.0, 1.0), (1.0, 3.0)]);
        assert_eq!(median_curve(&[visit(2.0, 1.0), short]).len(), 1);
    }
}
