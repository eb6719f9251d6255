//! Whether a request still costs what it did: instructions and looks at the clock, counted by callgrind, beside figures
//! that are checked in.
//!
//! Instructions are not time, but they are the same on a busy machine, and a time is not. The proxy runs on epoll,
//! since callgrind does not see into a ring. It serves one connection, and client and backend take their time, so that
//! it always waits and never finds more than one thing to do: no count depends on who was faster.

mod callgrind;
mod figures;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use self::callgrind::{Counted, callgrind, counted};
use self::figures::Figures;
use crate::cpu::allowed_cores;
use crate::drive::{DriveArgs, drive};
use crate::peers::{Mock, free_address, start_proxy};
use crate::workload::{TOOL, Workload};

#[derive(Args, Debug)]
pub struct GateArgs {
    /// Figures to compare with
    #[arg(long, default_value = "benches/counts.json")]
    figures: PathBuf,
    /// Write what was counted there, instead of comparing
    #[arg(long)]
    update: bool,
    /// The binary of the bench `leaves`
    #[arg(long)]
    leaves: PathBuf,
    /// The proxy
    #[arg(long, env = "RINGWAY_BIN", default_value = "target/release/ringway")]
    ringway: PathBuf,
    /// Where logs go
    #[arg(long, default_value = "loadtest/out/gate")]
    out: PathBuf,
}

/// How often a leaf runs. The count is exact, so this only spreads what happens once in a while.
const LEAF_TIMES: u64 = 100;
/// The function of the bench that repeats a leaf.
const LEAF_FUNCTION: &str = "leaves::counted";

/// A proxy and what it is asked.
struct Scenario {
    name: &'static str,
    workload: Workload,
    /// The route's `body`.
    body: &'static str,
}

const SCENARIOS: &[Scenario] = &[
    Scenario { name: "request/call", workload: Workload::CallModern, body: "headers" },
    Scenario { name: "request/call of a session", workload: Workload::Call, body: "headers" },
    Scenario { name: "request/call, body = stream", workload: Workload::CallModern, body: "stream" },
    Scenario { name: "request/call, body = envelope", workload: Workload::CallModern, body: "envelope" },
    Scenario { name: "request/list of 12 KiB", workload: Workload::ListModern, body: "headers" },
    Scenario { name: "request/list of 12 KiB, cached", workload: Workload::ListCached, body: "headers" },
];

/// What must cost the same with every number of workers, and how far it may be apart.
const WORKERS: [usize; 3] = [2, 4, 8];
const WORKERS_TOLERANCE: f64 = 0.10;

/// A request costs the difference between a run of few and a run of many: what starting costs cancels out.
const REQUESTS_FEW: u64 = 100;
const REQUESTS_MANY: u64 = 500;
/// Callgrind makes a program some fifty times slower, and a request takes less than a millisecond all the same.
const REQUESTS_PER_SECOND: f64 = 250.0;
const BACKEND_DELAY: Duration = Duration::from_millis(2);
/// No result comes of it: a process that takes longer is stuck.
const PATIENCE: Duration = Duration::from_secs(300);

pub fn run(args: &GateArgs) -> Result<()> {
    fs::create_dir_all(&args.out).with_context(|| format!("create {}", args.out.display()))?;
    let mut counts = BTreeMap::new();
    for name in leaf_names(&args.leaves)? {
        counts.insert(name.clone(), count_leaf(&args.leaves, &name, &args.out)?);
    }
    let gate = Gate { args, mock: Mock::start_slow(allowed_cores()?[0], &args.out, BACKEND_DELAY)? };
    for scenario in SCENARIOS {
        let each = gate.count_request(scenario, 1)?;
        counts.insert(scenario.name.to_owned(), each.instructions);
        counts.insert(format!("{}, clock reads", scenario.name), each.clock_reads);
    }
    let mut faults = gate.compare_workers(&SCENARIOS[0], counts[SCENARIOS[0].name])?;

    let now = Figures { rustc: rustc_version()?, counts };
    if args.update {
        now.write(&args.figures)?;
        println!("written to {}", args.figures.display());
    } else {
        let compared = Figures::read(&args.figures)?.compare(&now);
        println!("\n  recorded        now   change\n{}", compared.text);
        faults.extend(compared.faults);
    }
    ensure!(
        faults.is_empty(),
        "{}\nIf that is the price of something: scripts/bench-gate --update, and say in the commit of what",
        faults.join("\n")
    );
    Ok(())
}

fn leaf_names(leaves: &Path) -> Result<Vec<String>> {
    let names = output(Command::new(leaves).arg("names"))?;
    ensure!(!names.is_empty(), "{} knows no leaf", leaves.display());
    Ok(names.lines().map(str::to_owned).collect())
}

/// Instructions of one run of a leaf.
fn count_leaf(leaves: &Path, name: &str, out: &Path) -> Result<u64> {
    let log = out.join("leaf.log");
    let command = callgrind(&log, Some(LEAF_FUNCTION));
    let (valgrind, options) = command.split_first().expect("a program");
    let times = LEAF_TIMES.to_string();
    output(Command::new(valgrind).args(options).arg(leaves).args(["run", name, &times]))?;
    Ok(counted(&log).with_context(|| name.to_owned())?.instructions / LEAF_TIMES)
}

fn rustc_version() -> Result<String> {
    Ok(output(Command::new("rustc").arg("-V"))?.trim().to_owned())
}

/// What a program prints that has to succeed.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {}", command.get_program().display()))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

struct Gate<'a> {
    args: &'a GateArgs,
    mock: Mock,
}

impl Gate<'_> {
    /// What is wrong with more workers: they must not make a request dearer.
    fn compare_workers(&self, scenario: &Scenario, alone: u64) -> Result<Vec<String>> {
        let mut faults = Vec::new();
        for workers in WORKERS {
            let count = self.count_request(scenario, workers)?.instructions;
            let times = count as f64 / alone as f64;
            println!("{}: with {workers} workers {times:.3} times the instructions of one", scenario.name);
            if times > 1.0 + WORKERS_TOLERANCE {
                faults
                    .push(format!("{}: {count} instructions with {workers} workers, {alone} with one", scenario.name));
            }
        }
        Ok(faults)
    }

    fn count_request(&self, scenario: &Scenario, workers: usize) -> Result<Counted> {
        let count = |requests, lives| {
            let count = self.count_process(scenario, workers, requests, lives);
            count.with_context(|| format!("{} with {workers} workers", scenario.name))
        };
        let (many, lived) = count(REQUESTS_MANY, Duration::ZERO)?;
        let (few, _) = count(REQUESTS_FEW, lived)?;
        let each = |many: u64, few: u64| {
            let each = many.saturating_sub(few) as f64 / (REQUESTS_MANY - REQUESTS_FEW) as f64;
            each.round() as u64
        };
        Ok(Counted {
            instructions: each(many.instructions, few.instructions),
            clock_reads: each(many.clock_reads, few.clock_reads),
        })
    }

    /// What a whole process does that serves so many requests, and how long it served. It lives so long at least: what
    /// it does every so often then cancels out, too.
    fn count_process(
        &self,
        scenario: &Scenario,
        workers: usize,
        requests: u64,
        lives: Duration,
    ) -> Result<(Counted, Duration)> {
        let (listen, admin) = (free_address()?, free_address()?);
        let [config, log, counts] =
            ["ringway.toml", "ringway.log", "callgrind.log"].map(|name| self.args.out.join(name));
        let text = format!(
            "[server]\nlisten = [\"{listen}\"]\nworkers = {workers}\nio_driver = \"epoll\"\n\
             [admin]\nlisten = \"{admin}\"\n\
             [backends.mock]\nendpoints = [\"http://{}/mcp\"]\n\
             [[routes]]\npath = \"/mcp/mock\"\nbackend = \"mock\"\nbody = \"{}\"\n",
            self.mock.address, scenario.body
        );
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        let mut command = callgrind(&counts, None);
        let text = |path: &Path| path.to_str().map(str::to_owned).with_context(|| format!("{path:?} is not text"));
        command.extend([text(&self.args.ringway)?, "run".into(), "--config".into(), text(&config)?]);
        let url = format!("http://{listen}/mcp/mock").parse().map_err(anyhow::Error::msg)?;
        let mut proxy = start_proxy("ringway", &allowed_cores()?, &command, &log, &url)?;
        let begun = Instant::now();
        let outcome = drive(&DriveArgs {
            url: vec![url],
            workload: scenario.workload,
            connections: 1,
            tool: TOOL.to_owned(),
            seconds: PATIENCE.as_secs_f64(),
            warmup_seconds: 0.0,
            requests: Some(requests),
            rate: Some(REQUESTS_PER_SECOND),
            watch_pid: Vec::new(),
            backend_pid: None,
            count_syscalls: None,
        })?;
        let wrong = outcome.first_wrong.unwrap_or_default();
        ensure!(outcome.requests == requests, "{} of {requests} answers were right: {wrong}", outcome.requests);
        let lived = begun.elapsed();
        thread::sleep(lives.saturating_sub(lived));
        // Callgrind writes its log when it ends.
        ensure!(proxy.end(PATIENCE), "the proxy did not end within {PATIENCE:?}");
        Ok((counted(&counts)?, lived))
    }
}
