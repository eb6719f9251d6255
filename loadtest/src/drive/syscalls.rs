//! System calls of the proxy per request, counted by perf, or by strace where perf may not.
//!
//! perf counts at the kernel's own trace point and costs next to nothing, but gives only the sum. Under strace every
//! call stops the proxy, which is then several times slower and finds more to do at each wake-up: with one connection
//! its counts are exact, with many they are low, and lowest for who batches most.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;
use rustix::process::{Pid, Signal, kill_process};

use crate::cpu::allowed_cores;
use crate::launch::pinned;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Counter {
    /// The sum, without slowing the proxy
    Perf,
    /// Each by its name, with a proxy that is slower
    Strace,
}

/// A counter that is attached to all threads of some processes.
pub struct Counting {
    counter: Counter,
    child: Child,
    /// perf's acknowledgements, or strace's messages: who cannot write them ends.
    messages: BufReader<Box<dyn Read>>,
}

/// The name under which perf's sum stands.
const ALL: &str = "all";

impl Counting {
    /// Counts from here on.
    pub fn attach(counter: Counter, pids: &[u32]) -> Result<Self> {
        let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
        let arguments = match counter {
            // Does nothing until it is told through its input, and acknowledges through its output.
            Counter::Perf => {
                let fixed = "perf stat --delay -1 --control fd:0,1 -x , -e raw_syscalls:sys_enter -p";
                format!("{fixed} {}", pids.join(","))
            }
            Counter::Strace => format!("strace -c -f -o /dev/stdout -p {}", pids.join(" -p ")),
        };
        let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        // Through the launcher, so that it does not outlive this process, attached to somebody else's.
        let mut command = pinned(&allowed_cores()?, &arguments)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let messages: Box<dyn Read> = match counter {
            Counter::Perf => Box::new(child.stdout.take().expect("piped above")),
            Counter::Strace => Box::new(child.stderr.take().expect("piped above")),
        };
        let mut counting = Counting { counter, child, messages: BufReader::new(messages) };
        match counter {
            Counter::Perf => counting.tell_perf("enable")?,
            Counter::Strace => {
                for _ in pids {
                    let line = counting.message()?;
                    ensure!(line.contains(" attached"), "strace cannot attach: {}", line.trim());
                }
            }
        }
        Ok(counting)
    }

    /// Lets go; the calls since `attach` by name.
    pub fn finish(mut self) -> Result<BTreeMap<String, u64>> {
        if self.counter == Counter::Perf {
            self.tell_perf("disable")?;
        }
        kill_process(Pid::from_child(&self.child), Signal::INT)?;
        let (mut summary, mut rest) = (String::new(), String::new());
        if self.counter == Counter::Perf {
            self.child.stderr.take().expect("piped above").read_to_string(&mut summary)?;
        } else {
            self.child.stdout.take().expect("piped above").read_to_string(&mut summary)?;
            self.messages.read_to_string(&mut rest)?;
        }
        self.child.wait()?;
        let calls = match self.counter {
            Counter::Perf => parse_perf(&summary),
            Counter::Strace => parse_strace(&summary),
        };
        ensure!(!calls.is_empty(), "nothing was counted: {}{}", summary.trim(), rest.trim());
        Ok(calls)
    }

    fn tell_perf(&mut self, order: &str) -> Result<()> {
        let told = writeln!(self.child.stdin.as_mut().expect("piped above"), "{order}");
        // It sends the zero behind "ack\n", too.
        if told.is_ok() && self.message()?.trim_start_matches('\0').starts_with("ack") {
            return Ok(());
        }
        self.child.kill()?;
        let mut why = String::new();
        self.child.stderr.take().expect("piped above").read_to_string(&mut why)?;
        let why: Vec<&str> = why.lines().map(str::trim).filter(|line| !line.is_empty()).take(3).collect();
        bail!("perf cannot count: {}", why.join(" "))
    }

    fn message(&mut self) -> Result<String> {
        let mut line = String::new();
        self.messages.read_line(&mut line)?;
        Ok(line)
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        // Harmless if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `1234,,raw_syscalls:sys_enter,...`
fn parse_perf(summary: &str) -> BTreeMap<String, u64> {
    let line = summary.lines().find(|line| line.contains("raw_syscalls:sys_enter"));
    let count = line.and_then(|line| line.split(',').next()?.parse().ok());
    count.map(|count| (ALL.to_owned(), count)).into_iter().collect()
}

/// `% time  seconds  usecs/call  calls  [errors]  syscall`, between two rules; then the total.
fn parse_strace(summary: &str) -> BTreeMap<String, u64> {
    let rows = summary.lines().skip_while(|line| !line.starts_with("------")).skip(1);
    let rows = rows.take_while(|line| !line.starts_with("------"));
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        Some(((*fields.last()?).to_owned(), fields.get(3)?.parse().ok()?))
    };
    rows.filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perf_tells_the_sum() {
        let summary = "1234,,raw_syscalls:sys_enter,2000000,100.00,,\n";
        assert_eq!(parse_perf(summary), BTreeMap::from([("all".to_owned(), 1234)]));
        assert!(parse_perf("<not counted>,,raw_syscalls:sys_enter,0,100.00,,").is_empty());
    }

    #[test]
    fn strace_tells_calls_by_name() {
        let summary = "% time     seconds  usecs/call     calls    errors syscall\n\
            ------ ----------- ----------- --------- --------- ----------------\n \
            62.50    0.000025           2        12         3 recvfrom\n \
            37.50    0.000015           1         8           sendto\n\
            ------ ----------- ----------- --------- --------- ----------------\n\
            100.00    0.000040           2        20         3 total\n";
        assert_eq!(parse_strace(summary), BTreeMap::from([("recvfrom".to_owned(), 12), ("sendto".to_owned(), 8)]));
        assert!(parse_strace("").is_empty());
    }
}
