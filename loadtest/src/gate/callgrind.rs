//! A program under callgrind, and what it was seen to do.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The start of a command line; the program and its arguments follow. `within` is the one function whose instructions,
/// and those of what it calls, are collected; otherwise it is all of them.
pub(super) fn callgrind(log: &Path, within: Option<&str>) -> Vec<String> {
    let mut command = vec![
        "valgrind".to_owned(),
        "--tool=callgrind".to_owned(),
        // Only the sum is of interest, and that is in the log.
        "--callgrind-out-file=/dev/null".to_owned(),
        format!("--log-file={}", log.display()),
        "--trace-syscalls=yes".to_owned(),
    ];
    command.extend(within.map(|function| format!("--toggle-collect={function}")));
    command
}

/// What a program has done in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) instructions: u64,
    /// Without callgrind they are no system calls and cannot be counted.
    pub(super) clock_reads: u64,
}

/// Of a program that has ended.
pub(super) fn counted(log: &Path) -> Result<Counted> {
    let bytes = fs::read(log).with_context(|| format!("read {}", log.display()))?;
    parse(&String::from_utf8_lossy(&bytes))
        .with_context(|| format!("callgrind collected nothing, see {}", log.display()))
}

/// `SYSCALL[4711,1](228) sys_clock_gettime( 1, 0x1fff000630 )...` and, at its end, `==4711== Collected : 123456`.
fn parse(log: &str) -> Option<Counted> {
    let instructions = log.lines().find_map(|line| line.split_once("Collected : "))?.1.trim().parse().ok()?;
    let clock_reads = log.matches(" sys_clock_gettime(").count() as u64;
    // None: the function was not found.
    (instructions > 0).then_some(Counted { instructions, clock_reads })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_did_is_in_the_log() {
        let log = "SYSCALL[7,1](228) sys_clock_gettime( 1, 0x1f ) --> Success(0x0)\n\
                   ==7== Events    : Ir\n==7== Collected : 42108\n==7==\n";
        assert_eq!(parse(log), Some(Counted { instructions: 42_108, clock_reads: 1 }));
        assert_eq!(parse("==7== Collected : 0\n"), None);
        assert_eq!(parse(""), None);
    }
}
