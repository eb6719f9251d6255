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

/// Ties the calling thread, and all that it starts from now on, to one core.
pub fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("pin to core {core}"))
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
    fn time_only_grows() {
        let own = [std::process::id()];
        let earlier = CpuTime::of(&own);
        assert!(CpuTime::is_kept());
        assert!(CpuTime::of(&own).run_ns >= earlier.run_ns);
        assert_eq!(CpuTime::of(&[]), CpuTime::default());
    }

    #[test]
    fn a_process_that_is_gone_does_not_underflow() {
        let busy = CpuTime { run_ns: 5, wait_ns: 1 };
        assert_eq!(CpuTime::default() - busy, CpuTime::default());
    }
}
