//! What a process occupies, as the kernel counts it.

use std::fs;

use serde::{Deserialize, Serialize};

/// Resident memory of some processes, bytes. What several processes share is counted in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resident {
    pub now: u64,
    /// The most since the process began, or since `forget_peak`.
    pub peak: u64,
}

impl Resident {
    /// A process that is gone adds nothing: its end shows as missing answers, which is the better message.
    pub fn of(pids: &[u32]) -> Self {
        let mut total = Resident::default();
        for pid in pids {
            let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let status = read("status");
            // What `status` says of now is up to some hundred KiB old: every core counts for itself first.
            let now = kib(&read("smaps_rollup"), "Rss:").or_else(|| kib(&status, "VmRSS:")).unwrap_or(0);
            total.now += now * 1024;
            total.peak += kib(&status, "VmHWM:").unwrap_or(0).max(now) * 1024;
        }
        total
    }
}

/// From here on the peak counts anew. Where the kernel refuses, it goes on from the start of the process.
pub fn forget_peak(pids: &[u32]) {
    for pid in pids {
        let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
    }
}

fn kib(status: &str, field: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_read_in_kib() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(kib(status, "VmRSS:"), Some(1024));
        assert_eq!(kib(status, "VmSwap:"), None);
    }

    #[test]
    fn this_process_occupies_something() {
        let own = Resident::of(&[std::process::id()]);
        assert!(own.now > 0 && own.peak >= own.now, "{own:?}");
        assert_eq!(Resident::of(&[]), Resident::default());
    }
}
