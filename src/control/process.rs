//! What the system says about this process.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// For the `process_*` metrics; zero where the system does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ProcessStats {
    /// User and system time of all threads.
    pub(super) cpu: Duration,
    pub(super) resident_bytes: u64,
    pub(super) open_fds: usize,
    /// Since the Unix epoch.
    pub(super) started: Duration,
}

impl ProcessStats {
    /// As of now. `started` is the caller's knowledge.
    pub(super) fn read(started: Duration) -> Self {
        Self { cpu: cpu(), resident_bytes: resident_bytes(), open_fds: open_fds(), started }
    }
}

fn cpu() -> Duration {
    let micros =
        |time: TimeVal| Duration::from_secs(time.tv_sec() as u64) + Duration::from_micros(time.tv_usec() as u64);
    getrusage(UsageWho::RUSAGE_SELF)
        .map(|usage| micros(usage.user_time()) + micros(usage.system_time()))
        .unwrap_or_default()
}

fn resident_bytes() -> u64 {
    fs::read_to_string("/proc/self/status").ok().and_then(|status| resident_in(&status)).unwrap_or_default()
}

fn resident_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

fn open_fds() -> usize {
    // One of them is the directory that is being read.
    fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(resident_in("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2048 * 1024));
        assert_eq!(resident_in("Name:\tx\n"), None);
    }

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let stats = ProcessStats::read(Duration::ZERO);
        assert!(stats.resident_bytes > 0 && stats.open_fds > 0);
    }
}
