//! The real binary: what only a process of its own shows (signals, exit codes, descriptors, memory),
//! and its successors after a hand-over.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::Value;

use super::admin::Admin;
use super::client::Client;
use super::{PATIENCE, eventually};

/// A proxy in a process of its own; dropped, it is killed. After a hand-over it stands for the
/// successor, which writes to the same pipes.
pub(crate) struct Process {
    pid: Pid,
    /// Those that handed over, and may drain still.
    former: Vec<Pid>,
    log: Receiver<Value>,
    /// Lines of the log up to the one that says that it serves.
    pub(crate) beginning: Vec<Value>,
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
    program(&binary(), arguments)
}

/// The binary under test: the one that was built with the tests, or `RINGWAY_TEST_BINARY`.
pub(crate) fn binary() -> PathBuf {
    let built = || env!("CARGO_BIN_EXE_ringway").into();
    std::env::var_os("RINGWAY_TEST_BINARY").map_or_else(built, PathBuf::from)
}

/// Serves a configuration file by a program that is, for now, a copy of the one under test.
pub(crate) fn ringway_at(path: &Path, file: &Path) -> Command {
    program(path, [OsStr::new("run"), OsStr::new("--config"), file.as_os_str()])
}

fn program<S: AsRef<OsStr>>(path: &Path, arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(path);
    command.args(arguments).current_dir(std::env::temp_dir()).stdin(Stdio::null());
    command
}

/// Serves a configuration file in a shell's place, behind what the shell does first.
pub(crate) fn ringway_after(shell: &str, file: &Path) -> Command {
    after(shell, &serving(file))
}

/// The command that serves a configuration file.
pub(crate) fn serving(file: &Path) -> Command {
    ringway_at(&binary(), file)
}

/// The same command with this many descriptors at most.
pub(crate) fn limited(command: &Command, descriptors_max: usize) -> Command {
    after(&format!("ulimit -n {descriptors_max}"), command)
}

/// A command in a shell's place, behind what the shell does first.
fn after(first: &str, command: &Command) -> Command {
    let mut shell = Command::new("bash");
    shell.args(["-c", &format!("{first} && exec \"$@\""), "bash"]);
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
    #[expect(clippy::zombie_processes, reason = "waited for by its number, as its successors are")]
    pub(crate) fn start(mut command: Command) -> Self {
        // A successor's parent ends before it does: then it becomes a child of ours.
        prctl::set_child_subreaper(true).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        let output = lines(child.stdout.take().unwrap(), Some);
        let log = lines(child.stderr.take().unwrap(), |line| serde_json::from_str::<Value>(&line).ok());
        let beginning = until(&log, "serving");
        let listening = beginning.iter().find(|line| line["message"] == "listening").expect("an address");
        let address = |line: &Value, key: &str| line[key].as_str().expect(key).parse().unwrap();
        let (address, admin) =
            (address(listening, "address"), Admin(address(&beginning[beginning.len() - 1], "admin")));
        Self { pid, former: Vec::new(), log, beginning, output, address, admin }
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
        kill(self.pid, signal).unwrap();
    }

    pub(crate) fn id(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Has it hand over, and stands for the successor from then on.
    pub(crate) fn hands_over(&mut self) {
        self.signal(Signal::SIGUSR2);
        let successor = self.logs("handed over")["pid"].as_i64().expect("a process id");
        let successor = Pid::from_raw(i32::try_from(successor).expect("a process id"));
        self.former.push(std::mem::replace(&mut self.pid, successor));
    }

    /// Waits until all that handed over have ended, and well.
    pub(crate) fn former_end(&mut self) {
        for former in self.former.drain(..) {
            assert_eq!(ended(former).code(), Some(0), "{former}");
        }
    }

    /// Waits for a line of the log.
    pub(crate) fn logs(&self, message: &str) -> Value {
        until(&self.log, message).pop().expect("the line that was waited for")
    }

    /// Lines of the log that nobody has waited for yet.
    pub(crate) fn logged(&self) -> Vec<Value> {
        self.log.try_iter().collect()
    }

    /// Waits for the process to end.
    pub(crate) fn end(mut self) -> ExitStatus {
        self.former_end();
        let status = ended(self.pid);
        self.pid = NOBODY;
        status
    }

    fn proc(&self, file: &str) -> std::path::PathBuf {
        format!("/proc/{}/{file}", self.pid).into()
    }

    /// Descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(self.proc("fd")).unwrap().count()
    }

    /// CPU time of all its threads.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap();
        // Behind the name in parentheses, which may hold anything: state, then numbers. The 12th and
        // the 13th are user and system time in hundredths of a second.
        let numbers = stat.rsplit(')').next().unwrap().split_whitespace();
        let hundredths: u64 = numbers.skip(11).take(2).map(|number| number.parse::<u64>().unwrap()).sum();
        Duration::from_millis(hundredths * 10)
    }

    /// Resident memory of its own, in bytes: without the pages of its program, which come in as it runs.
    pub(crate) fn memory(&self) -> usize {
        let status = std::fs::read_to_string(self.proc("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a resident size");
        line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
    }

    /// CPU time it has used, in clock ticks, of which a second has 100.
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(self.proc("stat")).unwrap();
        // Behind the name, which is in brackets: state is the first field, user and system time the 12th and 13th.
        let fields: Vec<&str> = stat.rsplit_once(") ").expect("a name").1.split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// Its soft and hard limit of descriptors.
    pub(crate) fn descriptor_limits(&self) -> (String, String) {
        let limits = std::fs::read_to_string(self.proc("limits")).unwrap();
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("a limit");
        let mut values = line.split_whitespace().map(str::to_owned);
        (values.next().unwrap(), values.next().unwrap())
    }

    /// The file it runs.
    pub(crate) fn program(&self) -> std::path::PathBuf {
        std::fs::read_link(self.proc("exe")).unwrap()
    }

    /// Its environment, one `NAME=VALUE` each.
    pub(crate) fn environment(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.proc("environ")).unwrap();
        text.split_terminator('\0').map(str::to_owned).collect()
    }
}

/// In place of a process that has ended.
const NOBODY: Pid = Pid::from_raw(0);

/// Waits for a child of ours to end.
fn ended(pid: Pid) -> ExitStatus {
    let mut status = None;
    eventually("the process ends", || {
        status = match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => Some(ExitStatus::from_raw(code << 8)),
            Ok(WaitStatus::Signaled(_, signal, _)) => Some(ExitStatus::from_raw(signal as i32)),
            // A successor is not ours before its parent has ended.
            Ok(_) | Err(nix::errno::Errno::ECHILD) => None,
            Err(error) => panic!("waiting for {pid}: {error}"),
        };
        status.is_some()
    });
    status.expect("it has ended")
}

impl Drop for Process {
    fn drop(&mut self) {
        for pid in self.former.iter().chain([&self.pid]).filter(|pid| **pid != NOBODY) {
            // Whatever has ended by itself needs neither.
            let _ = kill(*pid, Signal::SIGKILL);
            let _ = waitpid(*pid, None);
        }
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

/// Lines of the log up to the next with this message.
fn until(log: &Receiver<Value>, message: &str) -> Vec<Value> {
    let mut lines: Vec<Value> = Vec::new();
    while lines.last().is_none_or(|line| line["message"] != message) {
        let line = log.recv_timeout(PATIENCE);
        lines.push(line.unwrap_or_else(|_| panic!("never logged: {message}, but {lines:?}")));
    }
    lines
}
