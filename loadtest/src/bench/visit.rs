//! One visit of one peer: the generator runs, and everybody's accounts are read.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Bench;
use crate::case::Load;
use crate::drive::Outcome;
use crate::http;
use crate::launch::{own, pinned};
use crate::memory::{Resident, forget_peak};
use crate::peers::{Peer, Running};

/// One visit: the generator's account and what the others say of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Visit {
    pub outcome: Outcome,
    /// Requests that reached the backend, of `outcome.sent`.
    pub reached_backend: u64,
    /// Memory of the proxy before the visit, and the most during it, bytes; zero without a proxy.
    pub idle_bytes: u64,
    pub peak_bytes: u64,
}

/// All visits of one peer in one case.
#[derive(Clone, Debug)]
pub struct Visits {
    pub peer: Peer,
    pub visits: Vec<Visit>,
    /// Why there are no more of them.
    pub failure: Option<String>,
    /// System calls per request by name, from a run of its own.
    pub syscalls: Option<BTreeMap<String, f64>>,
}

/// Beyond this share of foreign turns a visit is repeated, and marked if that did not help.
pub const DISTURBED_SHARE_MAX: f64 = 0.05;

/// What opening connections and waiting for the last answers may take beyond the window.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
const COUNTING_SECONDS: f64 = 0.5;
/// A visit that counts system calls, with the counter's own start and end.
pub const COUNTING_TIME: Duration = Duration::from_millis(900);

impl Visit {
    pub fn is_disturbed(&self) -> bool {
        self.outcome.disturbed_share > DISTURBED_SHARE_MAX
    }
}

impl Visits {
    pub fn new(peer: Peer) -> Self {
        Visits { peer, visits: Vec::new(), failure: None, syscalls: None }
    }
}

impl Bench<'_> {
    /// Visits again, a few times at most, while strangers take the cores; the calmest visit counts.
    ///
    /// Chosen by what was done to the run and never by what came out of it.
    pub(super) fn calmest_visit(&mut self, running: &mut Running, load: Load) -> Result<Visit> {
        let urls = [running.url.clone()];
        let mut calmest = self.visit(running, &urls, load)?;
        for _ in 0..self.plan.repeats {
            // A wrong answer is never visited away.
            if !calmest.is_disturbed() || calmest.outcome.wrong > 0 {
                break;
            }
            self.progress.repeat(self.plan.visit_time());
            let again = self.visit(running, &urls, load)?;
            if again.outcome.wrong > 0 || again.outcome.disturbed_share < calmest.outcome.disturbed_share {
                calmest = again;
            }
        }
        Ok(calmest)
    }

    pub(super) fn visit(&self, running: &mut Running, urls: &[String], load: Load) -> Result<Visit> {
        running.check_alive()?;
        let pids = running.pids();
        let before = reached_backend(self.mock.address)?;
        let idle_bytes = Resident::of(&pids).now;
        forget_peak(&pids);
        let window = (self.plan.seconds, self.plan.warmup_seconds);
        let outcome = self.drive(running, urls, load, window, &[])?;
        let peak_bytes = Resident::of(&pids).peak;
        // A proxy that was replaced meanwhile has not answered well, whatever its successor did.
        running.check_alive()?;
        Ok(Visit { outcome, reached_backend: reached_backend(self.mock.address)? - before, idle_bytes, peak_bytes })
    }

    /// Counts with perf, and from its first failure on with strace.
    pub(super) fn count_syscalls(&mut self, visits: &mut Visits, running: &Running, load: Load) {
        let (urls, window) = ([running.url.clone()], (COUNTING_SECONDS, 0.1));
        while let Some(&counter) = self.syscall_counters.first() {
            let counter = counter.to_possible_value().expect("no variant is skipped");
            match self.drive(running, &urls, load, window, &["--count-syscalls", counter.get_name()]) {
                Ok(outcome) => {
                    visits.syscalls = outcome.syscalls;
                    return;
                }
                Err(error) => {
                    self.syscall_counters.remove(0);
                    self.report.leave_out(&format!("system calls with {}", counter.get_name()), &format!("{error:#}"));
                }
            }
        }
    }

    fn drive(
        &self,
        running: &Running,
        urls: &[String],
        load: Load,
        (seconds, warmup_seconds): (f64, f64),
        more: &[&str],
    ) -> Result<Outcome> {
        let mut arguments = vec!["drive".to_owned()];
        let mut option = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        option("--workload", load.workload.name());
        option("--connections", load.connections.to_string());
        option("--tool", running.peer.tool().to_owned());
        option("--seconds", seconds.to_string());
        option("--warmup-seconds", warmup_seconds.to_string());
        option("--backend-pid", self.mock.server.pid().to_string());
        urls.iter().for_each(|url| option("--url", url.clone()));
        running.pids().iter().for_each(|pid| option("--watch-pid", pid.to_string()));
        load.rate.iter().for_each(|rate| option("--rate", rate.to_string()));
        self.run_own(&arguments, more, Duration::from_secs_f64(seconds + warmup_seconds) + PATIENCE)
    }

    /// Runs one of our own subcommands beside the proxy; the line of JSON that it prints.
    pub(super) fn run_own<T: DeserializeOwned>(
        &self,
        arguments: &[String],
        more: &[&str],
        limit: Duration,
    ) -> Result<T> {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let mut command = pinned(&[self.cores.generator], &own(&arguments)?)?;
        let child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("start the load generator")?;
        let pid = Pid::from_child(&child);
        let (over, is_over) = channel::<()>();
        let watch = std::thread::spawn(move || {
            let late = is_over.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
            // It has not been waited for yet, so the id is still its own.
            late && kill_process(pid, Signal::TERM).is_ok()
        });
        let output = child.wait_with_output()?;
        drop(over);
        ensure!(!watch.join().unwrap_or(false), "the load generator was not done after {limit:?}");
        // It fails when an answer was wrong, but then it has printed its line all the same.
        serde_json::from_slice(&output.stdout)
            .map_err(|_| anyhow::anyhow!("{}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

/// Lists and calls the backend has seen; handshakes are not part of the load.
fn reached_backend(backend: SocketAddr) -> Result<u64> {
    #[derive(Deserialize)]
    struct Counts {
        methods: BTreeMap<String, u64>,
    }
    let answer = http::get(backend, "/counts").context("ask the backend what reached it")?;
    let counts: Counts = serde_json::from_slice(&answer.body)?;
    Ok(["tools/call", "tools/list"].iter().filter_map(|method| counts.methods.get(*method)).sum())
}
