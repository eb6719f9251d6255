//! System calls of the proxy per request, counted by strace.
//!
//! A traced process is several times slower, so nothing else is measured meanwhile, and a proxy that is slower finds
//! more to do at each wake-up: with few connections the counts are exact, with many a little low for everybody.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// A strace that is attached to all threads of some processes.
pub struct Counting {
    strace: Child,
    /// Kept open: a strace that cannot write its messages ends.
    messages: BufReader<ChildStderr>,
}

impl Counting {
    pub fn attach(pids: &[u32]) -> Result<Self> {
        let mut command = Command::new("strace");
        command.args(["-c", "-f", "-o", "/dev/stdout"]);
        command.args(pids.iter().flat_map(|pid| ["-p".to_owned(), pid.to_string()]));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut strace = command.spawn().context("strace cannot be started")?;
        let mut messages = BufReader::new(strace.stderr.take().expect("piped above"));
        for _ in pids {
            let mut line = String::new();
            messages.read_line(&mut line)?;
            ensure!(line.contains(" attached"), "strace cannot attach: {}", line.trim());
        }
        Ok(Counting { strace, messages })
    }

    /// Lets go; the calls since `attach` by name.
    pub fn finish(mut self) -> Result<BTreeMap<String, u64>> {
        kill_process(Pid::from_child(&self.strace), Signal::INT)?;
        let mut summary = String::new();
        self.strace.stdout.take().expect("piped above").read_to_string(&mut summary)?;
        self.strace.wait()?;
        let mut last_words = String::new();
        self.messages.read_to_string(&mut last_words)?;
        let calls = parse(&summary);
        ensure!(!calls.is_empty(), "strace counted nothing: {}", last_words.trim());
        Ok(calls)
    }
}

/// `% time  seconds  usecs/call  calls  [errors]  syscall`, between two rules; then the total.
fn parse(summary: &str) -> BTreeMap<String, u64> {
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
    fn the_summary_is_calls_by_name() {
        let summary = "% time     seconds  usecs/call     calls    errors syscall\n\
            ------ ----------- ----------- --------- --------- ----------------\n \
            62.50    0.000025           2        12         3 recvfrom\n \
            37.50    0.000015           1         8           sendto\n\
            ------ ----------- ----------- --------- --------- ----------------\n\
            100.00    0.000040           2        20         3 total\n";
        assert_eq!(parse(summary), BTreeMap::from([("recvfrom".to_owned(), 12), ("sendto".to_owned(), 8)]));
        assert!(parse("").is_empty());
    }
}
