//! A table before it is text or HTML: the same columns for both.

use super::figures::{FleetReport, FleetRow, IdleReport, IdleRow, LoadReport, LoadRow};
use crate::peers::Peer;

pub struct Grid {
    pub columns: Vec<&'static str>,
    pub rows: Vec<Line>,
}

pub struct Line {
    pub cells: Vec<String>,
    /// What went wrong; the figures then do not count.
    pub fault: Option<String>,
    /// What a reader has to know of the figures.
    pub remark: Option<String>,
    pub disturbed: bool,
    pub is_ringway: bool,
}

impl Line {
    fn of(peer: Peer) -> Self {
        Line { cells: Vec::new(), fault: None, remark: None, disturbed: false, is_ringway: peer.is_ringway() }
    }
}

/// What the columns mean, for those who read the tables for the first time.
pub const LEGEND: &[(&str, &str)] = &[
    (
        "CPU µs",
        "run time of all threads of the proxy, as the scheduler counts it, per right answer; median of the rounds",
    ),
    ("÷floor, ÷nginx, ...", "that against the io_uring relay and others: median of the ratios within each round"),
    ("req/s, ÷direct", "throughput, and against the load without any proxy"),
    ("p50 to max", "µs from sending a request (fixed schedule: from when it fell due) to the last byte of its answer"),
    ("+p50, +p99", "µs more than without a proxy, within the same round"),
    (
        "calls",
        "system calls of the proxy per request, counted by perf in a run of its own (or by strace, which slows the proxy down)",
    ),
    ("idle, peak", "resident memory of the proxy before the case and the most during it, MiB"),
    ("reached", "requests that the backend saw, of those sent: below 100 % somebody answered for it"),
    (
        "wrong",
        "answers with another status, id, length or result than was asked for; any at all, and nothing is compared",
    ),
    ("~", "others had a core of the run for more than 5 % of a visit, also after repeats"),
];

type Cell<Row> = (&'static str, fn(&Row) -> String);

fn grid<Row>(rows: &[Row], columns: &[Cell<Row>], about: impl Fn(&Row) -> Line) -> Grid {
    let line = |row: &Row| Line { cells: columns.iter().map(|(_, cell)| cell(row)).collect(), ..about(row) };
    Grid { columns: columns.iter().map(|(title, _)| *title).collect(), rows: rows.iter().map(line).collect() }
}

impl LoadReport {
    pub fn grid(&self) -> Grid {
        let mut columns: Vec<Cell<LoadRow>> = vec![
            ("peer", |row| row.peer.name()),
            ("CPU µs", |row| figure(row.cpu_us, 2)),
            ("min–max", |row| match (row.cpu_us_min, row.cpu_us_max) {
                (Some(min), Some(max)) => format!("{min:.1}–{max:.1}"),
                _ => NONE.to_owned(),
            }),
            ("÷floor", |row| figure(row.right(row.cpu_to_floor), 2)),
            ("÷nginx", |row| figure(row.right(row.cpu_to_nginx), 2)),
            ("÷nginx-big", |row| figure(row.right(row.cpu_to_nginx_big), 2)),
            ("÷haproxy", |row| figure(row.right(row.cpu_to_haproxy), 2)),
            ("req/s", |row| figure(Some(row.requests_per_second), 0)),
            ("÷direct", |row| figure(row.right(row.throughput_to_direct), 2)),
            ("p50", |row| micros(row.latency.p50_us)),
            ("+p50", |row| row.right(row.added_p50_us).map_or(NONE.to_owned(), micros)),
            ("p90", |row| micros(row.latency.p90_us)),
            ("p99", |row| micros(row.latency.p99_us)),
            ("+p99", |row| row.right(row.added_p99_us).map_or(NONE.to_owned(), micros)),
            ("p99.9", |row| micros(row.latency.p99_9_us)),
            ("max", |row| micros(row.latency.max_us)),
            ("calls", |row| figure(row.syscalls, 2)),
            ("idle", |row| mebibytes(row.idle_bytes)),
            ("peak", |row| mebibytes(row.peak_bytes)),
            ("reached", |row| percent(row.reached_backend)),
            ("wrong", |row| row.wrong.to_string()),
        ];
        if self.rows.iter().all(|row| row.cpu_to_nginx_big.is_none()) {
            columns.retain(|(title, _)| *title != "÷nginx-big");
        }
        grid(&self.rows, &columns, |row| Line {
            fault: row.fault.clone(),
            remark: row.remark.clone(),
            disturbed: row.disturbed_visits > 0,
            ..Line::of(row.peer)
        })
    }

    /// How long events were on their way; none if the case has no events.
    pub fn event_grid(&self) -> Option<Grid> {
        let columns: [Cell<LoadRow>; 6] = [
            ("peer", |row| row.peer.name()),
            ("p50", |row| row.event_delay.map_or(NONE.to_owned(), |delay| micros(delay.p50_us))),
            ("+p50", |row| row.right(row.event_added_p50_us).map_or(NONE.to_owned(), micros)),
            ("p99", |row| row.event_delay.map_or(NONE.to_owned(), |delay| micros(delay.p99_us))),
            ("+p99", |row| row.right(row.event_added_p99_us).map_or(NONE.to_owned(), micros)),
            ("max", |row| row.event_delay.map_or(NONE.to_owned(), |delay| micros(delay.max_us))),
        ];
        let has_events = self.rows.iter().any(|row| row.event_delay.is_some());
        has_events.then(|| {
            grid(&self.rows, &columns, |row| Line { disturbed: row.disturbed_visits > 0, ..Line::of(row.peer) })
        })
    }
}

impl LoadRow {
    fn right(&self, value: Option<f64>) -> Option<f64> {
        value.filter(|_| self.is_right())
    }
}

impl IdleReport {
    pub fn grid(&self) -> Grid {
        let columns: [Cell<IdleRow>; 4] = [
            ("peer", |row| row.peer.name()),
            ("KiB each", |row| figure(row.held.as_ref().map(|held| held.per_connection_bytes / 1024.0), 2)),
            ("MiB before", |row| mebibytes(row.held.as_ref().map(|held| held.before_bytes))),
            ("MiB with all", |row| mebibytes(row.held.as_ref().map(|held| held.with_all_bytes))),
        ];
        grid(&self.rows, &columns, |row| Line { fault: row.fault.clone(), ..Line::of(row.peer) })
    }
}

impl FleetReport {
    pub fn grid(&self) -> Grid {
        let columns: [Cell<FleetRow>; 10] = [
            ("peer", |row| row.peer.name()),
            ("start ms", |row| figure(row.start_ms, 0)),
            ("reload ms", |row| figure(row.reload_ms, 0)),
            ("under load", |row| figure(row.reload_under_load_ms, 0)),
            ("MiB", |row| mebibytes(row.resident_bytes)),
            ("CPU µs", |row| figure(row.cpu_us, 2)),
            ("÷ten backends", |row| figure(row.cpu_to_small, 2)),
            ("p99", |row| row.p99_us.map_or(NONE.to_owned(), micros)),
            ("reloading ÷ p99", |row| figure(row.p99_reloading_to_quiet, 2)),
            ("wrong", |row| row.wrong.to_string()),
        ];
        grid(&self.rows, &columns, |row| Line { fault: row.fault.clone(), ..Line::of(row.peer) })
    }
}

const NONE: &str = "–";

fn figure(value: Option<f64>, decimals: usize) -> String {
    value.map_or(NONE.to_owned(), |value| format!("{value:.decimals$}"))
}

/// Microseconds, with a decimal where it says something. Nothing takes none at all.
fn micros(us: f64) -> String {
    if us == 0.0 {
        return NONE.to_owned();
    }
    if us.abs() < 100.0 { format!("{us:.1}") } else { format!("{us:.0}") }
}

fn mebibytes(bytes: Option<u64>) -> String {
    figure(bytes.map(|bytes| bytes as f64 / 1024.0 / 1024.0), 1)
}

/// Whole percents, and decimals where a herd has become one request.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent == 0.0 || percent >= 10.0 { format!("{percent:.0}%") } else { format!("{percent:.2}%") }
}

impl Grid {
    /// For a terminal; columns as wide as they must be.
    pub fn text(&self) -> String {
        let width_of = |column: usize| {
            let cells = self.rows.iter().map(|row| row.cells[column].chars().count());
            cells.chain([self.columns[column].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width_of).collect();
        let line = |cells: Vec<&str>, mark: &str| {
            let mut line = format!("{:<width$}{mark}", cells[0], width = widths[0]);
            for (cell, width) in cells.iter().zip(&widths).skip(1) {
                line.push_str(&format!("  {cell:>width$}"));
            }
            line.trim_end().to_owned() + "\n"
        };
        let mut text = line(self.columns.clone(), " ");
        for row in &self.rows {
            let mark = if row.disturbed { "~" } else { " " };
            text.push_str(&line(row.cells.iter().map(String::as_str).collect(), mark));
        }
        for row in &self.rows {
            for (mark, words) in [("!", &row.fault), ("·", &row.remark)] {
                if let Some(words) = words {
                    text.push_str(&format!("{mark} {}: {words}\n", row.cells[0]));
                }
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::{load, visit, visits};
    use super::*;

    #[test]
    fn a_peer_that_was_wrong_is_not_compared() {
        let mut wrong = visit(1.0, 9.0);
        wrong.outcome.wrong = 1;
        wrong.outcome.first_wrong = Some("status 502".to_owned());
        let all = vec![visits(Peer::Nginx, vec![visit(20.0, 3.0)]), visits(Peer::Ringway, vec![wrong])];
        let report = LoadReport::new(load("call@32"), all);
        assert_eq!(report.rows[1].cpu_to_nginx, Some(0.05));
        let text = report.grid().text();
        assert!(!text.contains("0.05") && text.contains("! ringway: status 502"), "{text}");
    }

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let line = |cells: [&str; 2]| Line { cells: cells.map(str::to_owned).to_vec(), ..Line::of(Peer::Nginx) };
        let grid = Grid { columns: vec!["peer", "µs"], rows: vec![line(["a", "1"]), line(["longer", "1000"])] };
        assert_eq!(grid.text(), "peer       µs\na           1\nlonger   1000\n");
    }

    #[test]
    fn figures_have_the_decimals_they_need() {
        assert_eq!((micros(12.34), micros(1234.5)), ("12.3".to_owned(), "1234".to_owned()));
        assert_eq!(
            (percent(1.0), percent(0.01), percent(0.0)),
            ("100%".to_owned(), "1.00%".to_owned(), "0%".to_owned())
        );
        assert_eq!(figure(None, 2), "–");
    }
}
