//! The real binary: what only a process of its own shows (signals, exit codes, descriptors, memory).

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::admin::Admin;
use super::client::Client;
use super::{PATIENCE, eventually};

/// A proxy in a process of its own; dropped, it is killed.
pub(crate) struct Process {
    child: Child,
    log: Receiver<Value>,
    /// Lines of standard output.
    pub(crate) output: Receiver<String>,
    pub(crate) address: SocketAddr,
    pub(crate) admin: Admin,
}

/// What a command that ended has said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The command line, outside of the project's directory so that no configuration is found by chance.
pub(crate) fn ringway<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let built = || env!("CARGO_BIN_EXE_ringway").into();
    let mut command = Command::new(std::env::var_os("RINGWAY_TEST_BINARY").unwrap_or_else(built));
    command.args(arguments).current_dir(std::env::temp_dir()).stdin(Stdio::null());
    command
}

/// The command that serves a configuration file.
pub(crate) fn serving(file: &Path) -> Command {
    ringway([OsStr::new("run"), OsStr::new("--config"), file.as_os_str()])
}

/// The same command with this many descriptors at most.
pub(crate) fn limited(command: &Command, descriptors_max: usize) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -n {descriptors_max} && exec \"$@\""), "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    shell.current_dir(std::env::temp_dir()).stdin(Stdio::null());
    shell
}

/// Runs a command line to its end.
pub(crate) fn say<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Said {
    let output = ringway(arguments).output().unwrap();
    Said {
        code: output.status.code().expect("an exit code"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Process {
    /// Serves a configuration file.
    pub(crate) fn serve(file: &Path) -> Self {
        Self::start(serving(file))
    }

    /// Starts a command and waits until it serves.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = lines(child.stdout.take().unwrap(), Some);
        let log = lines(child.stderr.take().unwrap(), |line| serde_json::from_str::<Value>(&line).ok());
        let listening = wait_for(&log, "listening");
        let serving = wait_for(&log, "serving");
        let address = |line: &Value, key: &str| line[key].as_str().expect(key).parse().unwrap();
        Self { address: address(&listening, "address"), admin: Admin(address(&serving, "admin")), child, log, output }
    }

    /// Waits until every worker runs its loop: what each allocates once is there then.
    pub(crate) fn wait_for_workers(&self) {
        eventually("every worker answers", || {
            let page = self.admin.ask("GET", "/metrics").text();
            let mut workers = page.lines().filter(|line| line.starts_with("ringway_worker_up{")).peekable();
            workers.peek().is_some() && workers.all(|line| line.ends_with(" 1"))
        });
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Waits for a line of the log.
    pub(crate) fn logs(&self, message: &str) -> Value {
        wait_for(&self.log, message)
    }

    /// Lines of the log that nobody has waited for yet.
    pub(crate) fn logged(&self) -> Vec<Value> {
        self.log.try_iter().collect()
    }

    /// Waits for the process to end.
    pub(crate) fn end(mut self) -> ExitStatus {
        let mut status = None;
        eventually("the process ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.expect("it has ended")
    }

    /// Descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// CPU time of all its threads.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // Behind the name in parentheses, which may hold anything: state, then numbers. The 12th and
        // the 13th are user and system time in hundredths of a second.
        let numbers = stat.rsplit(')').next().unwrap().split_whitespace();
        let hundredths: u64 = numbers.skip(11).take(2).map(|number| number.parse::<u64>().unwrap()).sum();
        Duration::from_millis(hundredths * 10)
    }

    /// Resident memory of its own, in bytes: without the pages of its program, which come in as it runs.
    pub(crate) fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a resident size");
        line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads lines on a thread of its own, as a pipe that nobody reads would stop the process.
fn lines<T: Send + 'static>(
    stream: impl Read + Send + 'static,
    parse: impl Fn(String) -> Option<T> + Send + 'static,
) -> Receiver<T> {
    let (sender, receiver) = unbounded();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            // Who reads may have left.
            parse(line).map(|line| sender.send(line).ok());
        }
    });
    receiver
}

fn wait_for(log: &Receiver<Value>, message: &str) -> Value {
    loop {
        let line = log.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("never logged: {message}"));
        if line["message"] == message {
            return line;
        }
    }
}
