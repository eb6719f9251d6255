//! What a run has found, as a table on the terminal, as `report.json` and as `report.html`.

mod figures;
mod grid;
mod html;
mod plot;
mod publish;
mod targets;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use self::figures::{FleetReport, IdleReport, LoadReport, LoadRow};
use self::grid::Grid;
use crate::bench::{DISTURBED_SHARE_MAX, FleetFigures, Machine, Visits};
use crate::case::{Idle, Load};
use crate::hold::Held;
use crate::peers::Peer;

pub use self::publish::{PublishArgs, run as publish};
pub use self::targets::cases as target_cases;

#[derive(Serialize, Deserialize)]
pub struct Report {
    machine: Machine,
    seconds: f64,
    rounds: usize,
    peers: Vec<PeerVersion>,
    left_out: Vec<LeftOut>,
    loads: Vec<LoadReport>,
    idle: Vec<IdleReport>,
    fleets: Vec<FleetReport>,
}

#[derive(Serialize, Deserialize)]
struct PeerVersion {
    peer: Peer,
    version: String,
}

/// What was not measured, and why.
#[derive(Serialize, Deserialize, PartialEq, Eq)]
struct LeftOut {
    what: String,
    why: String,
}

impl Report {
    pub fn new(machine: Machine, seconds: f64, rounds: usize) -> Self {
        let (peers, left_out, loads, idle, fleets) = Default::default();
        Report { machine, seconds, rounds, peers, left_out, loads, idle, fleets }
    }

    pub fn takes_part(&mut self, peer: Peer, version: String) {
        self.peers.push(PeerVersion { peer, version });
    }

    pub fn leave_out(&mut self, what: &str, why: &str) {
        let left_out = LeftOut { what: what.to_owned(), why: why.to_owned() };
        if !self.left_out.contains(&left_out) {
            self.left_out.push(left_out);
        }
    }

    /// Adds a case; its table for the terminal, as for the other two kinds.
    pub fn add_load(&mut self, load: Load, all: Vec<Visits>) -> String {
        let report = LoadReport::new(load, all);
        let events =
            report.event_grid().map(|grid| ("time of an event from the backend's stamp to its arrival:\n", grid));
        let grids: Vec<(&str, Grid)> = [("", report.grid())].into_iter().chain(events).collect();
        let added = text(&report.case, &report.title, &grids);
        self.loads.push(report);
        added
    }

    pub fn add_idle(&mut self, idle: Idle, rows: Vec<(Peer, Result<Held, String>)>) -> String {
        let report = IdleReport::new(idle, rows);
        let added = text(&report.case, &report.title, &[("", report.grid())]);
        self.idle.push(report);
        added
    }

    pub fn add_fleet(&mut self, backends: usize, rows: Vec<(Peer, Result<FleetFigures, String>)>) -> String {
        let report = FleetReport::new(backends, rows);
        let added = text(&report.case, &report.title(), &[("", report.grid())]);
        self.fleets.push(report);
        added
    }

    /// Wrong answers and failures of the peers that have to be right: which case, who, what.
    pub fn faults(&self) -> Vec<String> {
        let loads =
            self.loads.iter().flat_map(|report| report.rows.iter().map(|row| (&report.case, row.peer, &row.fault)));
        let idle =
            self.idle.iter().flat_map(|report| report.rows.iter().map(|row| (&report.case, row.peer, &row.fault)));
        let fleets =
            self.fleets.iter().flat_map(|report| report.rows.iter().map(|row| (&report.case, row.peer, &row.fault)));
        let faults = loads.chain(idle).chain(fleets).filter(|(_, peer, _)| peer.must_be_right());
        faults.filter_map(|(case, peer, fault)| Some(format!("{case}, {}: {}", peer.name(), fault.as_ref()?))).collect()
    }

    /// `report.json` and `report.html`.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let write = |name: &str, text: String| {
            let path = dir.join(name);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))
        };
        write("report.json", serde_json::to_string_pretty(self)?)?;
        write("report.html", html::page(self)?)
    }

    /// What a reader of the tables has to know.
    pub fn closing_notes(&self) -> String {
        let mut notes = String::from("\n");
        for (column, meaning) in grid::LEGEND {
            notes.push_str(&format!("{column}: {meaning}\n"));
        }
        notes.push_str("A difference under 10 % is noise on a shared machine.\n");
        for left_out in &self.left_out {
            notes.push_str(&format!("left out: {}: {}\n", left_out.what, left_out.why));
        }
        for remark in self.remarks() {
            notes.push_str(&format!("note: {remark}\n"));
        }
        for reason in self.reasons() {
            notes.push_str(&format!("THESE FIGURES MAY NOT BE COMPARED: {reason}\n"));
        }
        notes
    }

    /// Why nothing here may be compared: what was seen at the start, and during the run.
    fn reasons(&self) -> Vec<String> {
        let mut reasons = self.machine.reasons.clone();
        let disturbed: usize = self.load_rows().map(|row| row.disturbed_visits).sum();
        let visits: usize = self.load_rows().map(|row| row.visits.len()).sum();
        // A few are outvoted by the median.
        if disturbed * 5 > visits {
            reasons.push(format!(
                "{disturbed} of {visits} visits were disturbed: others had a core of the run for more than {:.0} % of the time; \
                 a request then costs more, and not by the same factor for every proxy",
                DISTURBED_SHARE_MAX * 100.0
            ));
        }
        reasons
    }

    /// What a reader should know of this machine.
    fn remarks(&self) -> Vec<&'static str> {
        let cores = &self.machine.cores;
        let mut remarks = Vec::new();
        if cores.generator == cores.backend {
            remarks.push(
                "two cores: generator and backend share one, and it is full before a fast proxy is. Compare CPU per \
                 request; requests per second say how fast the whole was",
            );
        }
        let has_two_workers = self.peers.iter().any(|peer| peer.peer.workers() > 1);
        if has_two_workers && cores.proxy_of_two.contains(&cores.generator) {
            remarks.push(
                "two workers share their cores with generator and backend here: only their CPU per request means anything",
            );
        }
        remarks
    }

    fn load_rows(&self) -> impl Iterator<Item = &LoadRow> {
        self.loads.iter().flat_map(|report| &report.rows)
    }
}

fn text(case: &str, title: &str, grids: &[(&str, Grid)]) -> String {
    let grids = grids.iter().map(|(heading, grid)| format!("{heading}{}", grid.text()));
    format!("\n{case}: {title}\n{}", grids.collect::<String>())
}
