//! The comparison: every peer with the same load, in turns, so that whatever drifts hits all alike.

mod fleet;
mod idle;
mod machine;
mod progress;
mod visit;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};

pub use self::fleet::FleetFigures;
pub use self::machine::{Cores, Machine};
use self::progress::Progress;
pub use self::visit::{DISTURBED_SHARE_MAX, Visit, Visits};
use crate::case::{CASES, CASES_QUICK, Case, Idle, Load};
use crate::cpu::{CpuTime, allowed_cores};
use crate::drive::Counter;
use crate::launch::raise_open_files;
use crate::peers::{Mock, Peer, Rivals, Running, Setting, version};
use crate::report::{Report, target_cases};

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
    /// Few cases, short visits: a look, not a result
    #[arg(long)]
    quick: bool,
    /// Who takes part
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// Which rivals take part if --peers does not say
    #[arg(long, value_enum, default_value_t)]
    rivals: Rivals,
    /// Measure the cases that docs/performance.md promises anything about
    #[arg(long, conflicts_with_all = ["cases", "quick"])]
    targets: bool,
    /// What is measured: WORKLOAD@CONNECTIONS, WORKLOAD@CONNECTIONS/RATE, herd-N, idle-N, streams-N, fleet-N
    #[arg(long, value_delimiter = ',')]
    cases: Vec<Case>,
    /// Measure on a busy machine, too; the report says why its figures may not be compared
    #[arg(long)]
    anyway: bool,
    /// The proxy under test
    #[arg(long, env = "RINGWAY_BIN", default_value = "target/release/ringway")]
    ringway: PathBuf,
    /// Where report, configurations and logs go
    #[arg(long, default_value = "loadtest/out")]
    out: PathBuf,
}

/// How long, how often, what and with whom.
struct Plan {
    seconds: f64,
    warmup_seconds: f64,
    rounds: usize,
    repeats: usize,
    quick: bool,
    peers: Vec<Peer>,
    /// The command line names the peers, so each of them is needed, and wanted in every case.
    peers_are_named: bool,
    cases: Vec<Case>,
}

pub fn run(args: &BenchArgs) -> Result<()> {
    let mut plan = Plan::new(args)?;
    let cores = Cores::choose(&allowed_cores()?)?;
    ensure!(
        CpuTime::is_kept(),
        "cannot compare: this kernel keeps no scheduler statistics (/proc/PID/schedstat), so CPU per request is unknown"
    );
    let machine = Machine::look(&cores, plan.quick)?;
    if let Some(reason) = machine.reasons.first()
        && !args.anyway
        && !plan.quick
    {
        bail!("cannot compare: {reason} (--anyway measures all the same)");
    }
    fs::create_dir_all(&args.out).with_context(|| format!("create {}", args.out.display()))?;
    let dir = args.out.join("peers");
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let sockets_max = raise_open_files()?;

    let mock = Mock::start(cores.backend, &dir)?;
    let setting = Setting {
        backend: mock.address,
        cores: &cores.proxy,
        cores_of_two: &cores.proxy_of_two,
        dir: &dir,
        ringway: &args.ringway,
        rivals: &args.out.join("rivals"),
        sockets_max,
    };
    let mut report = Report::new(machine, plan.seconds, plan.rounds);
    plan.cases.retain(|case| {
        let reason = case.too_many(sockets_max);
        reason.iter().for_each(|reason| report.leave_out(&case.to_string(), reason));
        reason.is_none()
    });
    let mut bench = Bench {
        report,
        progress: Progress::new(plan.estimate()),
        plan,
        cores: cores.clone(),
        mock,
        setting,
        out: args.out.clone(),
        syscall_counters: Counter::value_variants().to_vec(),
    };
    let mut peers = bench.start_peers()?;
    for case in bench.plan.cases.clone() {
        let table = match case {
            Case::Load(load) => bench.load(load, &mut peers),
            Case::Idle(idle) => bench.idle(idle, &peers),
            Case::Fleet(backends) => bench.fleet(backends, &peers),
        };
        bench.progress.clear();
        println!("{table}");
        // Written after every case: a run that is broken off has lost only the case it was in.
        bench.report.write(&bench.out)?;
    }
    print!("{}", bench.report.closing_notes());
    println!("written to {} and report.json beside it", bench.out.join("report.html").display());
    let faults = bench.report.faults();
    ensure!(faults.is_empty(), "wrong answers or failures of peers that have to be right:\n{}", faults.join("\n"));
    Ok(())
}

/// A run and what it has found so far.
struct Bench<'a> {
    plan: Plan,
    cores: Cores,
    mock: Mock,
    setting: Setting<'a>,
    report: Report,
    progress: Progress,
    out: PathBuf,
    /// What may count system calls: the best that has not failed is the first.
    syscall_counters: Vec<Counter>,
}

impl Bench<'_> {
    fn start_peers(&mut self) -> Result<Vec<Running>> {
        let mut running = Vec::new();
        for peer in self.plan.peers.clone() {
            let started =
                version(peer, &self.setting).and_then(|version| Ok((version, Running::start(peer, &self.setting)?)));
            match started {
                Ok((version, peer)) => {
                    self.report.takes_part(peer.peer, version);
                    running.push(peer);
                }
                // What nobody asked for by name may be missing; then it is said.
                Err(error) if !self.plan.peers_are_named && peer != Peer::Ringway => {
                    self.report.leave_out(&peer.name(), &format!("{error:#}"));
                }
                Err(error) => return Err(error.context(format!("cannot compare with {}", peer.name()))),
            }
        }
        Ok(running)
    }

    /// Whether a peer takes part in a case. What it lacks is said.
    fn takes_part(&mut self, peer: Peer, case: Case) -> bool {
        let lacks = peer.lacks(case).filter(|_| self.plan.wants(peer, case));
        if let Some(reason) = lacks {
            self.report.leave_out(&format!("{} in {case}", peer.name()), reason);
        }
        lacks.is_none() && self.plan.wants(peer, case)
    }

    fn load(&mut self, load: Load, peers: &mut [Running]) -> String {
        let case = Case::Load(load);
        let mut taking_part: Vec<&mut Running> = Vec::new();
        for running in peers {
            if self.takes_part(running.peer, case) {
                taking_part.push(running);
            }
        }
        let mut all: Vec<Visits> = taking_part.iter().map(|running| Visits::new(running.peer)).collect();
        for round in 0..self.plan.rounds {
            for (running, visits) in taking_part.iter_mut().zip(&mut all) {
                let label = format!("{case}, round {}, {}", round + 1, running.peer.name());
                self.progress.step(&label, self.plan.visit_time(), round == 0);
                if visits.failure.is_none() {
                    self.visit_into(visits, running, load);
                }
            }
        }
        if !self.plan.quick || self.plan.cases.first() == Some(&case) {
            for (running, visits) in taking_part.iter_mut().zip(&mut all) {
                let label = format!("{case}, system calls, {}", running.peer.name());
                self.progress.step(&label, visit::COUNTING_TIME, false);
                if running.peer != Peer::Direct && visits.failure.is_none() {
                    self.count_syscalls(visits, running, load);
                }
            }
        }
        self.report.add_load(load, all)
    }

    /// A failure ends this peer's part in the case, not the run.
    fn visit_into(&mut self, visits: &mut Visits, running: &mut Running, load: Load) {
        match self.calmest_visit(running, load) {
            Ok(visit) => visits.visits.push(visit),
            Err(error) => {
                visits.failure = Some(format!("{error:#}"));
                // It may have ended, or be busy with what it was asked: the next case meets a fresh one.
                match Running::start(running.peer, &self.setting) {
                    Ok(fresh) => *running = fresh,
                    Err(error) => self.report.leave_out(&running.peer.name(), &format!("not started again: {error:#}")),
                }
            }
        }
    }

    fn idle(&mut self, idle: Idle, peers: &[Running]) -> String {
        let case = Case::Idle(idle);
        let mut rows = Vec::new();
        for running in peers {
            if self.takes_part(running.peer, case) {
                self.progress.step(&format!("{case}, {}", running.peer.name()), idle::time(idle), true);
                rows.push((running.peer, self.hold(running.peer, idle).map_err(|error| format!("{error:#}"))));
            }
        }
        self.report.add_idle(idle, rows)
    }

    fn fleet(&mut self, backends: usize, peers: &[Running]) -> String {
        let case = Case::Fleet(backends);
        let mut rows = Vec::new();
        for running in peers {
            if self.takes_part(running.peer, case) {
                let label = format!("{case}, {}", running.peer.name());
                self.progress.step(&label, fleet::time(backends, self.plan.rounds, self.plan.visit_time()), true);
                let figures = self.govern(running.peer, backends);
                rows.push((running.peer, figures.map_err(|error| format!("{error:#}"))));
            }
        }
        self.report.add_fleet(backends, rows)
    }
}

impl Plan {
    fn new(args: &BenchArgs) -> Result<Self> {
        let cases = match args {
            BenchArgs { targets: true, .. } => &target_cases(),
            BenchArgs { quick: true, .. } => CASES_QUICK,
            _ => CASES,
        };
        let default_cases = || cases.iter().map(|case| case.parse().expect("written in case.rs")).collect();
        let default_peers = || Peer::default_set(args.rivals, args.quick);
        let plan = Plan {
            seconds: args.seconds.unwrap_or(if args.quick { 0.2 } else { 1.0 }),
            warmup_seconds: args.warmup_seconds.unwrap_or(if args.quick { 0.1 } else { 0.3 }),
            rounds: args.rounds.unwrap_or(if args.quick { 1 } else { 5 }),
            repeats: args.repeats.unwrap_or(if args.quick { 0 } else { 3 }),
            quick: args.quick,
            peers: if args.peers.is_empty() { default_peers() } else { args.peers.clone() },
            peers_are_named: !args.peers.is_empty(),
            cases: if args.cases.is_empty() { default_cases() } else { args.cases.clone() },
        };
        ensure!((1..=100).contains(&plan.rounds), "--rounds between 1 and 100");
        ensure!(plan.repeats <= 100, "--repeats up to 100");
        ensure!(plan.seconds > 0.0 && plan.seconds <= 600.0, "--seconds between 0 and 600");
        ensure!((0.0..=600.0).contains(&plan.warmup_seconds), "--warmup-seconds between 0 and 600");
        Ok(plan)
    }

    fn wants(&self, peer: Peer, case: Case) -> bool {
        peer.has_a_part(case) && (self.peers_are_named || peer.is_of_interest(case))
    }

    fn visit_time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds + self.warmup_seconds + 0.1)
    }

    /// What a run takes if nothing is repeated.
    fn estimate(&self) -> Duration {
        let of_case = |case: &Case| {
            let takes_part = |peer: &&Peer| self.wants(**peer, *case) && peer.lacks(*case).is_none();
            let peers = self.peers.iter().filter(takes_part).count() as u32;
            let counted = !self.quick || self.cases.first() == Some(case);
            match case {
                Case::Load(_) => {
                    let counting = if counted { visit::COUNTING_TIME } else { Duration::ZERO };
                    (self.visit_time() * self.rounds as u32 + counting) * peers
                }
                Case::Idle(idle) => idle::time(*idle) * peers,
                Case::Fleet(backends) => fleet::time(*backends, self.rounds, self.visit_time()) * peers,
            }
        };
        self.cases.iter().map(of_case).sum()
    }
}
