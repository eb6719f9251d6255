//! One line of the comparison: what is done to every peer, as it is written on the command line.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;

use crate::workload::Workload;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// Requests: `call@32`, closed loop; `mixed@64/1000`, 1,000 a second on a fixed schedule.
    Load(Load),
    /// Clients that do nothing: `idle-2000` between two requests, `streams-2000` on open event streams.
    Idle(Idle),
    /// Ringway with this many backends of three endpoints: `fleet-10000`.
    Fleet(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    pub workload: Workload,
    pub connections: usize,
    /// Requests a second, if the loop is open.
    pub rate: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    pub connections: usize,
    pub streams: bool,
}

/// What a run without `--cases` measures.
pub const CASES: &[&str] = &[
    "call@1",
    "call@32",
    "call@256",
    "call-modern@1",
    "call-modern@32",
    "call-modern@256",
    "list@32",
    "list-modern@32",
    "list-cached@32",
    "herd-100",
    "herd-1000",
    "call-64k@32",
    "call-1m@8",
    "upload-1m@8",
    "sse20@32",
    "sse20-paced@32",
    "mixed@64/1000",
    "connect@32",
    "idle-2000",
    "streams-2000",
    "idle-20000",
    "streams-20000",
    "fleet-10000",
];

/// What `--quick` measures: a little of each kind.
pub const CASES_QUICK: &[&str] = &[
    "call@32",
    "list-modern@32",
    "list-cached@32",
    "herd-100",
    "sse20@8",
    "mixed@16/500",
    "connect@8",
    "idle-200",
    "fleet-100",
];

const CONNECTIONS_MAX: usize = 50_000;
const BACKENDS_MAX: usize = 100_000;

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let up_to = |digits: &str, max: usize| {
            let number = digits.parse().ok().filter(|number| (1..=max).contains(number));
            number.ok_or(format!("`{digits}` is not a number from 1 to {max}"))
        };
        if let Some(connections) = text.strip_prefix("herd-") {
            let connections = up_to(connections, CONNECTIONS_MAX)?;
            return Ok(Case::Load(Load { workload: Workload::Herd, connections, rate: None }));
        }
        for (prefix, streams) in [("idle-", false), ("streams-", true)] {
            if let Some(connections) = text.strip_prefix(prefix) {
                return Ok(Case::Idle(Idle { connections: up_to(connections, CONNECTIONS_MAX)?, streams }));
            }
        }
        if let Some(backends) = text.strip_prefix("fleet-") {
            // Ten of them are asked, and compared with a fleet of ten.
            return match up_to(backends, BACKENDS_MAX)? {
                backends if backends > FLEET_SMALL => Ok(Case::Fleet(backends)),
                _ => Err(format!("a fleet has more than {FLEET_SMALL} backends")),
            };
        }
        let (workload, rest) = text.split_once('@').ok_or(
            "write WORKLOAD@CONNECTIONS or WORKLOAD@CONNECTIONS/RATE, herd-N, idle-N, streams-N or fleet-N, \
             for example call@32",
        )?;
        let (connections, rate) = match rest.split_once('/') {
            Some((connections, rate)) => (connections, Some(up_to(rate, 1_000_000)? as u32)),
            None => (rest, None),
        };
        let workload = Workload::from_str(workload, false)?;
        Ok(Case::Load(Load { workload, connections: up_to(connections, CONNECTIONS_MAX)?, rate }))
    }
}

/// Files of one process that are no connections of the load.
const FILES_SPARE: u64 = 100;

impl Case {
    /// Open files of the process that needs most: a proxy may have a socket towards the backend for each client.
    pub fn files_needed(&self) -> u64 {
        let connections = match self {
            Case::Load(load) => load.connections,
            Case::Idle(idle) => idle.connections,
            Case::Fleet(_) => 0,
        };
        2 * connections as u64 + FILES_SPARE
    }

    /// Why there are too many connections for a limit on open files.
    pub fn too_many(&self, files_max: u64) -> Option<String> {
        let needed = self.files_needed();
        (needed > files_max).then(|| {
            format!(
                "needs {needed} open files in one process, and {files_max} is the hard limit here, which only root may \
                 raise (`ulimit -Hn`, LimitNOFILE, docker run --ulimit nofile); up to {} connections will do",
                files_max.saturating_sub(FILES_SPARE) / 2
            )
        })
    }
}

/// What a fleet is compared with, and how many of its backends are asked.
pub const FLEET_SMALL: usize = 10;

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Case::Load(load) => load.fmt(f),
            Case::Idle(idle) => idle.fmt(f),
            Case::Fleet(backends) => write!(f, "fleet-{backends}"),
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Load { workload, connections, rate } = self;
        match (workload, rate) {
            (Workload::Herd, _) => write!(f, "herd-{connections}"),
            (_, None) => write!(f, "{}@{connections}", workload.name()),
            (_, Some(rate)) => write!(f, "{}@{connections}/{rate}", workload.name()),
        }
    }
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}-{}", if self.streams { "streams" } else { "idle" }, self.connections)
    }
}

impl Load {
    /// The case in words.
    pub fn title(&self) -> String {
        let about = self.workload.to_possible_value().and_then(|value| value.get_help().map(ToString::to_string));
        let plural = if self.connections == 1 { "connection" } else { "connections" };
        let pace = match self.rate {
            Some(rate) => format!(", {rate} requests a second on a fixed schedule"),
            None => String::new(),
        };
        format!("{} ({} {plural}{pace})", about.unwrap_or_default(), self.connections)
    }
}

impl Idle {
    pub fn title(&self) -> String {
        let what =
            if self.streams { "open event streams on which nothing comes" } else { "idle keep-alive connections" };
        format!("{} {what}", self.connections)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_cases_can_be_read() {
        for case in CASES.iter().chain(CASES_QUICK) {
            assert_eq!(case.parse::<Case>().unwrap().to_string(), *case);
        }
    }

    #[test]
    fn what_is_no_case_is_refused() {
        for text in ["call", "call@0", "nothing@1", "call@1/0", "idle-0", "idle-99999999", "fleet-10", "herd-x"] {
            assert!(text.parse::<Case>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_can_be_held_is_told_with_what_cannot() {
        let case: Case = "streams-20000".parse().unwrap();
        assert_eq!(case.files_needed(), 40_100);
        assert_eq!(case.too_many(65_536), None);
        assert!(case.too_many(20_000).unwrap().ends_with("up to 9950 connections will do"));
    }

    #[test]
    fn a_title_says_how_many_and_how_fast() {
        let Ok(Case::Load(load)) = "mixed@64/1000".parse() else { panic!() };
        assert!(
            load.title().ends_with("(64 connections, 1000 requests a second on a fixed schedule)"),
            "{}",
            load.title()
        );
    }
}
