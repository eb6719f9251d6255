//! The comparison: every peer with the same load, in turns, so that whatever drifts hits all alike.

use std::fs;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::cpu::{CpuTime, allowed_cores};
use crate::drive::Outcome;
use crate::http;
use crate::launch::{own, pinned};
use crate::peers::{Mock, Peer, Running, Setting};
use crate::report::{Machine, PeerVersion, Report};
use crate::workload::Workload;

#[derive(Args, Debug)]
pub struct BenchArgs {
    /// Length of each measured window
    #[arg(long)]
    seconds: Option<f64>,
    /// Load before each window
    #[arg(long)]
    warmup_seconds: Option<f64>,
    /// Visits of each peer for each case
    #[arg(long)]
    rounds: Option<usize>,
    /// How often a visit is repeated at most when others disturbed it
    #[arg(long)]
    repeats: Option<usize>,
    /// Fewer cases, shorter visits: a look, not a result
    #[arg(long)]
    quick: bool,
    /// Who takes part
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// What is measured, as WORKLOAD@CONNECTIONS
    #[arg(long, value_delimiter = ',')]
    cases: Vec<Case>,
    /// The proxy under test
    #[arg(long, env = "RINGWAY_BIN", default_value = "target/release/ringway")]
    ringway: PathBuf,
    /// Where report, configurations and logs go
    #[arg(long, default_value = "loadtest/out")]
    out: PathBuf,
}

/// A workload at a number of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    pub workload: Workload,
    pub connections: usize,
}

const CASES: &[&str] = &["call@1", "call@32", "call@256", "call-modern@32", "list@32", "call-64k@32", "sse20@32"];
const CASES_QUICK: &[&str] = &["call@32", "list@32"];

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (workload, connections) = text.split_once('@').ok_or("write WORKLOAD@CONNECTIONS, for example call@32")?;
        let workload = Workload::from_str(workload, false)?;
        let connections = connections.parse().ok().filter(|&count| count > 0).ok_or("at least one connection")?;
        Ok(Case { workload, connections })
    }
}

/// How long, how often, what and with whom.
struct Plan {
    seconds: f64,
    warmup_seconds: f64,
    rounds: usize,
    repeats: usize,
    peers: Vec<Peer>,
    cases: Vec<Case>,
}

/// Which core does what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cores {
    pub generator: usize,
    pub backend: usize,
    pub proxy: usize,
}

/// One visit: the generator's account and what the backend saw of it.
#[derive(Clone, Debug, Serialize)]
pub struct Visit {
    pub outcome: Outcome,
    /// Requests that reached the backend, of `outcome.sent`.
    pub reached_backend: u64,
}

/// Beyond this share of foreign turns a visit is repeated, and marked if that did not help.
pub const DISTURBED_SHARE_MAX: f64 = 0.05;

impl Visit {
    pub fn is_disturbed(&self) -> bool {
        self.outcome.disturbed_share > DISTURBED_SHARE_MAX
    }
}

pub fn run(args: &BenchArgs) -> Result<()> {
    let plan = Plan::new(args)?;
    let cores = Cores::choose(&allowed_cores()?)?;
    ensure!(
        CpuTime::is_kept(),
        "cannot compare: this kernel keeps no scheduler statistics (/proc/PID/schedstat), so CPU per request is unknown"
    );
    fs::create_dir_all(&args.out).with_context(|| format!("create {}", args.out.display()))?;

    let mock = Mock::start(cores.backend, &args.out)?;
    let setting = Setting { backend: mock.address, core: cores.proxy, dir: &args.out, ringway: &args.ringway };
    let start =
        |&peer: &Peer| Running::start(peer, &setting).with_context(|| format!("cannot compare with {}", peer.name()));
    let mut peers = plan.peers.iter().map(start).collect::<Result<Vec<_>>>()?;

    let versions = peers.iter().map(|running| PeerVersion { peer: running.peer, version: running.version.clone() });
    let mut report = Report::new(Machine::read(cores), versions.collect(), plan.seconds, plan.rounds);
    let mut progress = Progress::new(&plan);
    for &case in &plan.cases {
        let mut visits = vec![Vec::new(); peers.len()];
        for round in 0..plan.rounds {
            for (running, visits) in peers.iter_mut().zip(&mut visits) {
                progress.show(case, round, running.peer);
                let visit = calmest_visit(running, case, &plan, cores, &mock, &mut progress);
                visits.push(visit.with_context(|| format!("{case} through {}", running.peer.name()))?);
            }
        }
        let visits = plan.peers.iter().copied().zip(visits).collect();
        progress.clear();
        println!("{}", report.add(case, visits).table());
        // Written after every case: a run that is broken off has lost only the case it was in.
        report.write(&args.out.join("report.json"))?;
    }
    print!("{}", report.closing_notes());
    println!("written to {}", args.out.join("report.json").display());
    match report.wrong() {
        0 => Ok(()),
        wrong => bail!("{wrong} answers were wrong: the figures of those peers do not count"),
    }
}

/// Visits again, a few times at most, while strangers take the cores; the calmest visit counts.
///
/// Chosen by what was done to the run and never by what came out of it.
fn calmest_visit(
    running: &mut Running,
    case: Case,
    plan: &Plan,
    cores: Cores,
    mock: &Mock,
    progress: &mut Progress,
) -> Result<Visit> {
    let mut calmest = visit(running, case, plan, cores, mock)?;
    for _ in 0..plan.repeats {
        if !calmest.is_disturbed() {
            break;
        }
        progress.repeat();
        let again = visit(running, case, plan, cores, mock)?;
        // A wrong answer is never visited away.
        if calmest.outcome.wrong == 0
            && (again.outcome.wrong > 0 || again.outcome.disturbed_share < calmest.outcome.disturbed_share)
        {
            calmest = again;
        }
    }
    Ok(calmest)
}

fn visit(running: &mut Running, case: Case, plan: &Plan, cores: Cores, mock: &Mock) -> Result<Visit> {
    running.check_alive()?;
    let before = reached_backend(mock.address)?;
    let arguments = [
        vec!["drive".to_owned(), "--url".to_owned(), running.url.clone()],
        vec!["--workload".to_owned(), case.workload.name(), "--connections".to_owned(), case.connections.to_string()],
        vec!["--seconds".to_owned(), plan.seconds.to_string()],
        vec!["--warmup-seconds".to_owned(), plan.warmup_seconds.to_string()],
        vec!["--backend-pid".to_owned(), mock.server.pid().to_string()],
        running.pids().iter().flat_map(|pid| ["--watch-pid".to_owned(), pid.to_string()]).collect(),
    ]
    .concat();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut generator = pinned(cores.generator, &own(&arguments)?)?;
    let output = generator.stderr(Stdio::piped()).output().context("start the load generator")?;
    // It fails when an answer was wrong, but then it has printed its line all the same.
    let outcome = serde_json::from_slice(&output.stdout).map_err(|_| {
        anyhow::anyhow!("the load generator failed: {}", String::from_utf8_lossy(&output.stderr).trim())
    })?;
    Ok(Visit { outcome, reached_backend: reached_backend(mock.address)? - before })
}

/// Lists and calls the backend has seen; handshakes are not part of the load.
fn reached_backend(backend: SocketAddr) -> Result<u64> {
    #[derive(Deserialize)]
    struct Counts {
        methods: std::collections::BTreeMap<String, u64>,
    }
    let answer = http::get(backend, "/counts").context("ask the backend what reached it")?;
    let counts: Counts = serde_json::from_slice(&answer.body)?;
    Ok(["tools/call", "tools/list"].iter().filter_map(|method| counts.methods.get(*method)).sum())
}

impl Plan {
    fn new(args: &BenchArgs) -> Result<Self> {
        let cases = if args.quick { CASES_QUICK } else { CASES };
        let default_cases = || cases.iter().map(|case| case.parse().expect("written above")).collect();
        let plan = Plan {
            seconds: args.seconds.unwrap_or(if args.quick { 0.7 } else { 1.5 }),
            warmup_seconds: args.warmup_seconds.unwrap_or(if args.quick { 0.3 } else { 0.5 }),
            rounds: args.rounds.unwrap_or(if args.quick { 3 } else { 5 }),
            repeats: args.repeats.unwrap_or(if args.quick { 1 } else { 3 }),
            peers: if args.peers.is_empty() { Peer::value_variants().to_vec() } else { args.peers.clone() },
            cases: if args.cases.is_empty() { default_cases() } else { args.cases.clone() },
        };
        ensure!((1..=100).contains(&plan.rounds), "--rounds between 1 and 100");
        ensure!(plan.repeats <= 100, "--repeats up to 100");
        ensure!(plan.seconds > 0.0 && plan.seconds <= 600.0, "--seconds between 0 and 600");
        ensure!((0.0..=600.0).contains(&plan.warmup_seconds), "--warmup-seconds between 0 and 600");
        Ok(plan)
    }
}

impl Cores {
    /// The proxy has a core of its own; generator and backend share one only if there is no third.
    fn choose(allowed: &[usize]) -> Result<Self> {
        match *allowed {
            [generator, proxy] => Ok(Cores { generator, backend: generator, proxy }),
            [generator, backend, .., proxy] => Ok(Cores { generator, backend, proxy }),
            _ => bail!(
                "cannot compare: only one core may be used here; a proxy that shares it with generator and backend \
                 would be measured with their cache misses and their turns"
            ),
        }
    }
}

/// One line that says what runs and how long is left.
struct Progress {
    begun: Instant,
    done: usize,
    total: usize,
    /// What a visit should take, until some have shown what it does take.
    visit: Duration,
    terminal: bool,
}

impl Progress {
    fn new(plan: &Plan) -> Self {
        let total = plan.cases.len() * plan.rounds * plan.peers.len();
        let visit = Duration::from_secs_f64(plan.seconds + plan.warmup_seconds + 0.1);
        Progress { begun: Instant::now(), done: 0, total, visit, terminal: std::io::stderr().is_terminal() }
    }

    fn show(&mut self, case: Case, round: usize, peer: Peer) {
        let left = self.left();
        let line = format!(
            "[{:>3}/{}] {case}, round {}, {}; {}:{:02} left",
            self.done + 1,
            self.total,
            round + 1,
            peer.name(),
            left.as_secs() / 60,
            left.as_secs() % 60
        );
        self.done += 1;
        if self.terminal {
            eprint!("\r\x1b[K{line}");
            let _ = std::io::stderr().flush();
        } else if round == 0 {
            eprintln!("{line}");
        }
    }

    /// One visit more than was planned.
    fn repeat(&mut self) {
        self.done += 1;
        self.total += 1;
    }

    fn left(&self) -> Duration {
        let visit = if self.done > 0 { self.begun.elapsed() / self.done as u32 } else { self.visit };
        visit * (self.total - self.done) as u32
    }

    fn clear(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}@{}", self.workload.name(), self.connections)
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
        assert!("call".parse::<Case>().is_err());
        assert!("call@0".parse::<Case>().is_err());
        assert!("nothing@1".parse::<Case>().is_err());
    }

    #[test]
    fn the_proxy_never_shares_its_core() {
        assert!(Cores::choose(&[3]).is_err());
        assert!(Cores::choose(&[]).is_err());
        assert_eq!(Cores::choose(&[0, 1]).unwrap(), Cores { generator: 0, backend: 0, proxy: 1 });
        assert_eq!(Cores::choose(&[2, 3, 4, 7]).unwrap(), Cores { generator: 2, backend: 3, proxy: 7 });
    }
}
