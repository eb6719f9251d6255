//! Whose time it is: pinning, and the scheduler's account of a process.

use std::fs;
use std::ops::Sub;

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};

/// The cores this process may use, lowest first.
pub fn allowed_cores() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None).context("read the CPU affinity")?;
    Ok((0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect())
}

/// Ties the calling thread, and all that it starts from now on, to some cores.
pub fn pin(cores: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core);
    }
    sched_setaffinity(None, &set).with_context(|| format!("pin to cores {cores:?}"))
}

/// The share of time for which each core was in use since boot, by whomever.
pub struct CoreUse(Vec<(usize, [u64; 2])>);

impl CoreUse {
    pub fn read() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
        Ok(CoreUse(stat.lines().filter_map(parse_core).collect()))
    }

    /// The share of one core that was in use since `earlier`.
    pub fn share_since(&self, earlier: &CoreUse, core: usize) -> f64 {
        let of = |all: &CoreUse| all.0.iter().find(|(index, _)| *index == core).map_or([0, 0], |(_, times)| *times);
        let ([busy, total], [busy_before, total_before]) = (of(self), of(earlier));
        busy.saturating_sub(busy_before) as f64 / total.saturating_sub(total_before).max(1) as f64
    }
}

/// `cpu1 user nice system idle iowait irq softirq steal ...`: the core, and its busy and total time.
fn parse_core(line: &str) -> Option<(usize, [u64; 2])> {
    let mut fields = line.strip_prefix("cpu")?.split_ascii_whitespace();
    let core = fields.next()?.parse().ok().filter(|_| !line.starts_with("cpu "))?;
    let times: Vec<u64> = fields.take(8).map_while(|field| field.parse().ok()).collect();
    let total: u64 = times.iter().sum();
    Some((core, [total - times.get(3)? - times.get(4)?, total]))
}

/// Scheduler times of all threads of some processes, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuTime {
    /// Spent running, user and kernel.
    pub run_ns: u64,
    /// Spent runnable but waiting for the core: somebody else had it.
    pub wait_ns: u64,
}

impl CpuTime {
    /// Whether this kernel keeps the account at all.
    pub fn is_kept() -> bool {
        fs::read_to_string("/proc/self/schedstat").is_ok_and(|text| parse(&text).is_some())
    }

    /// What was used up to now; a thread that is running is behind by up to one scheduler tick.
    ///
    /// A process that is gone adds nothing: its end shows as missing answers, which is the better message.
    pub fn of(pids: &[u32]) -> Self {
        let mut total = CpuTime::default();
        for pid in pids {
            for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                if let Some(time) = fs::read_to_string(task.path().join("schedstat")).ok().and_then(|text| parse(&text))
                {
                    total.run_ns += time.run_ns;
                    total.wait_ns += time.wait_ns;
                }
            }
        }
        total
    }
}

impl Sub for CpuTime {
    type Output = CpuTime;

    /// Saturating: a thread that ended takes its account with it.
    fn sub(self, earlier: CpuTime) -> CpuTime {
        CpuTime {
            run_ns: self.run_ns.saturating_sub(earlier.run_ns),
            wait_ns: self.wait_ns.saturating_sub(earlier.wait_ns),
        }
    }
}

/// `schedstat` is three numbers: run time, wait time, time slices.
fn parse(schedstat: &str) -> Option<CpuTime> {
    let mut numbers = schedstat.split_ascii_whitespace().map(str::parse);
    Some(CpuTime { run_ns: numbers.next()?.ok()?, wait_ns: numbers.next()?.ok()? })
}

/// A process and its descendants: nginx works in a child.
pub fn with_descendants(root: u32) -> Vec<u32> {
    let mut pids = vec![root];
    let mut next = 0;
    while next < pids.len() {
        let pid = pids[next];
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            pids.extend(children.split_ascii_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
        next += 1;
    }
    pids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedstat_is_run_time_then_wait_time() {
        assert_eq!(parse("51512 7 1\n"), Some(CpuTime { run_ns: 51512, wait_ns: 7 }));
        assert_eq!(parse(""), None);
        assert_eq!(parse("x 1 2"), None);
    }

    #[test]
    fn a_core_is_busy_when_it_is_not_idle() {
        assert_eq!(parse_core("cpu3 10 1 20 60 5 2 1 1 0 0"), Some((3, [35, 100])));
        assert_eq!(parse_core("cpu  10 1 20 60 5 2 1 1 0 0"), None);
        assert_eq!(parse_core("intr 5"), None);
        let (earlier, later) = (CoreUse(vec![(1, [10, 100])]), CoreUse(vec![(1, [60, 200])]));
        assert_eq!(later.share_since(&earlier, 1), 0.5);
        assert_eq!(later.share_since(&earlier, 2), 0.0);
    }

    #[test]
    fn a_process_that_runs_has_used_time() {
        assert!(CpuTime::is_kept());
        // No more than that: the sum falls when a thread of another test ends.
        assert!(CpuTime::of(&[std::process::id()]).run_ns > 0);
        assert_eq!(CpuTime::of(&[]), CpuTime::default());
    }

    #[test]
    fn a_process_that_is_gone_does_not_underflow() {
        let busy = CpuTime { run_ns: 5, wait_ns: 1 };
        assert_eq!(CpuTime::default() - busy, CpuTime::default());
    }
}
