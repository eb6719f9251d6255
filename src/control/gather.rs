//! What the workers counted, gathered on request and kept in sums that never go down.

use std::time::Duration;

use crossbeam_channel::bounded;

use super::{Control, wait};
use crate::clock;
use crate::seam::{Command, Latency, WorkerHandle, WorkerStats};

/// How long all workers together have to answer.
const DEADLINE: Duration = Duration::from_secs(1);

/// The busy ratio is of at least this long.
const BUSY_WINDOW: Duration = Duration::from_secs(1);

/// Asks every worker now, and gives their answers and the sums.
pub(super) async fn gather(control: &Control) -> Gathered {
    let workers = control.fleet.borrow().workers();
    let answers = ask(&workers).await;
    control.ledger.borrow_mut().enter(answers)
}

async fn ask(workers: &[WorkerHandle]) -> Vec<Option<WorkerStats>> {
    let deadline = clock::now() + DEADLINE;
    let asked: Vec<_> = workers
        .iter()
        .map(|worker| {
            let (sender, receiver) = bounded(1);
            // A command that is refused is dropped, and its channel closes.
            drop(worker.send(Command::Stats(sender)));
            receiver
        })
        .collect();
    let mut answers = Vec::with_capacity(asked.len());
    for receiver in asked {
        answers.push(wait::next(&receiver, deadline).await);
    }
    answers
}

/// One look at all workers.
#[derive(Clone, Debug, Default)]
pub(super) struct Gathered {
    /// By worker number.
    pub(super) workers: Vec<Worker>,
    /// Sums over the workers, those that have ended included.
    pub(super) total: WorkerStats,
}

/// One worker.
#[derive(Clone, Debug, Default)]
pub(super) struct Worker {
    /// Whether it answered this time; if not, its numbers are those of its last answer.
    pub(super) up: bool,
    /// Its numbers.
    pub(super) stats: WorkerStats,
    /// Share of the recent time that its thread was running, 0 to 1.
    pub(super) busy: f64,
    /// CPU time and age at the beginning of the time that `busy` is of.
    pub(super) busy_since: (Duration, Duration),
}

/// Remembers the last answers. A sum from which a silent worker is missing would go down and up
/// again, and a reader of counters would take the way up for new events.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    workers: Vec<Worker>,
    /// Counters of workers that have ended.
    retired: WorkerStats,
}

impl Ledger {
    /// The worker has ended, and its number passed to another that counts from zero.
    pub(super) fn retire(&mut self, worker: usize) {
        if let Some(ended) = self.workers.get_mut(worker) {
            add_counters(&mut self.retired, &ended.stats);
            *ended = Worker::default();
        }
    }

    fn enter(&mut self, answers: Vec<Option<WorkerStats>>) -> Gathered {
        self.workers.resize_with(answers.len(), Worker::default);
        for (worker, answer) in self.workers.iter_mut().zip(answers) {
            worker.up = answer.is_some();
            if let Some(stats) = answer {
                worker.enter(stats);
            }
        }
        let mut total = self.retired.clone();
        for worker in &self.workers {
            add_counters(&mut total, &worker.stats);
            add_gauges(&mut total, &worker.stats);
        }
        Gathered { workers: self.workers.clone(), total }
    }
}

impl Worker {
    fn enter(&mut self, stats: WorkerStats) {
        let (cpu, age) = self.busy_since;
        let window = stats.age.saturating_sub(age);
        if window >= BUSY_WINDOW {
            self.busy = (stats.cpu.saturating_sub(cpu).as_secs_f64() / window.as_secs_f64()).min(1.0);
            self.busy_since = (stats.cpu, stats.age);
        }
        self.stats = stats;
    }
}

fn add_counters(total: &mut WorkerStats, part: &WorkerStats) {
    for (series, count) in &part.requests {
        *total.requests.entry(*series).or_default() += count;
    }
    add_each(&mut *total.refused, &*part.refused);
    add_each(&mut total.by_era, &part.by_era);
    add_each(&mut total.coalesced, &part.coalesced);
    add_each(&mut total.cached, &part.cached);
    add_each(&mut total.invalidated, &part.invalidated);
    add_each(&mut total.sessions, &part.sessions);
    total.accepted += part.accepted;
    total.handed_over += part.handed_over;
    total.connects += part.connects;
    total.reused += part.reused;
    total.retries += part.retries;
    total.request_body_bytes += part.request_body_bytes;
    total.response_body_bytes += part.response_body_bytes;
    total.panics += part.panics;
    add_latency(&mut total.request_duration, &part.request_duration);
    add_latency(&mut total.upstream_duration, &part.upstream_duration);
    add_latency(&mut total.overhead, &part.overhead);
    for (id, endpoint) in &part.endpoints {
        let sum = total.endpoints.entry(*id).or_default();
        sum.requests += endpoint.requests;
        sum.connect_failures += endpoint.connect_failures;
        sum.eras = sum.eras.and(endpoint.eras);
    }
}

fn add_each(total: &mut [u64], part: &[u64]) {
    for (sum, count) in total.iter_mut().zip(part) {
        *sum += count;
    }
}

fn add_gauges(total: &mut WorkerStats, part: &WorkerStats) {
    total.client_connections += part.client_connections;
    total.upstream_connections += part.upstream_connections;
    total.exchanges += part.exchanges;
    total.streams += part.streams;
    total.cache_bytes += part.cache_bytes;
    total.memory_bytes += part.memory_bytes;
    total.cache_entries += part.cache_entries;
    for (id, endpoint) in &part.endpoints {
        let sum = total.endpoints.entry(*id).or_default();
        sum.active += endpoint.active;
        sum.idle += endpoint.idle;
        sum.cooling |= endpoint.cooling;
    }
}

fn add_latency(total: &mut Latency, part: &Latency) {
    total.0.add(&part.0).expect("all latencies have the same bounds");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Refusal;
    use crate::seam::{Cached, Coalesced, Era, Invalidation, SessionEvent};

    fn answer(accepted: u64, client_connections: usize) -> Option<WorkerStats> {
        Some(WorkerStats { accepted, client_connections, ..WorkerStats::default() })
    }

    #[test]
    fn sums_do_not_go_down_when_a_worker_is_silent() {
        let mut ledger = Ledger::default();
        ledger.enter(vec![answer(10, 1), answer(5, 2)]);
        let gathered = ledger.enter(vec![answer(11, 1), None]);
        assert_eq!((gathered.total.accepted, gathered.total.client_connections), (16, 3));
        assert_eq!(gathered.workers.iter().map(|worker| worker.up).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn sums_do_not_go_down_when_a_worker_is_replaced() {
        let mut ledger = Ledger::default();
        ledger.enter(vec![answer(10, 1), answer(5, 2)]);
        ledger.retire(1);
        let gathered = ledger.enter(vec![answer(10, 1), answer(1, 0)]);
        assert_eq!((gathered.total.accepted, gathered.total.client_connections), (16, 1));
    }

    #[test]
    fn every_counter_outlives_its_worker_and_no_gauge_does() {
        let mut stats = WorkerStats { cache_bytes: 9, cache_entries: 9, ..WorkerStats::default() };
        Refusal::ALL.iter().for_each(|kind| stats.add(*kind, 2));
        Era::ALL.iter().for_each(|kind| stats.add(*kind, 3));
        Coalesced::ALL.iter().for_each(|kind| stats.add(*kind, 4));
        Cached::ALL.iter().for_each(|kind| stats.add(*kind, 5));
        Invalidation::ALL.iter().for_each(|kind| stats.add(*kind, 6));
        SessionEvent::ALL.iter().for_each(|kind| stats.add(*kind, 7));
        let mut ledger = Ledger::default();
        let gathered = ledger.enter(vec![Some(stats.clone()), Some(stats.clone())]);
        assert_eq!((gathered.total.cache_bytes, gathered.total.cache_entries), (18, 18));
        ledger.retire(0);
        let total = ledger.enter(vec![Some(WorkerStats::default()), Some(stats)]).total;
        assert_eq!((total.cache_bytes, total.cache_entries), (9, 9));
        assert_eq!(*total.refused, [4; Refusal::COUNT]);
        assert_eq!(total.by_era, [6; Era::COUNT]);
        assert_eq!(total.coalesced, [8; Coalesced::COUNT]);
        assert_eq!(total.cached, [10; Cached::COUNT]);
        assert_eq!(total.invalidated, [12; Invalidation::COUNT]);
        assert_eq!(total.sessions, [14; SessionEvent::COUNT]);
    }

    #[test]
    fn busy_is_of_the_recent_time() {
        let at = |age, cpu| {
            let (age, cpu) = (Duration::from_secs(age), Duration::from_secs(cpu));
            vec![Some(WorkerStats { age, cpu, ..WorkerStats::default() })]
        };
        let mut ledger = Ledger::default();
        assert_eq!(ledger.enter(at(100, 0)).workers[0].busy, 0.0);
        assert_eq!(ledger.enter(at(110, 5)).workers[0].busy, 0.5);
        // Too soon for a new ratio.
        assert_eq!(ledger.enter(at(110, 5)).workers[0].busy, 0.5);
    }
}
