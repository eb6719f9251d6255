//! Starting a process so that it runs where it should and does not outlive us.
//!
//! Every process of a run is started through `launch`, which pins itself, asks the kernel for a signal when its parent
//! dies, raises the limit on open files, and then becomes the program it was given. A bench that is killed outright
//! thus leaves nothing behind, and no program needs to know how to pin itself.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use rustix::process::{Pid, Resource, Rlimit, Signal, getppid, getrlimit, set_parent_process_death_signal, setrlimit};

use crate::cpu;

#[derive(Args, Debug)]
pub struct LaunchArgs {
    /// Core to run on; may be repeated
    #[arg(long, required = true)]
    core: Vec<usize>,
    /// Process that has to be alive
    #[arg(long)]
    parent: u32,
    /// Program and arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Becomes the program; returns only if that fails.
pub fn run(args: &LaunchArgs) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM))?;
    if getppid().map(Pid::as_raw_nonzero).map(|pid| pid.get() as u32) != Some(args.parent) {
        bail!("the bench that started this is gone");
    }
    raise_open_files()?;
    cpu::pin(&args.core)?;
    let (program, arguments) = args.command.split_first().context("no program")?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("start {program}"))
}

/// Enough for 20,000 clients whose connections are passed on one by one, with room to spare.
const OPEN_FILES: u64 = 1 << 16;

/// Raises the limit on open files as far as this process may; the limit from now on.
pub fn raise_open_files() -> Result<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: Some(OPEN_FILES), maximum: Some(OPEN_FILES) };
    if maximum.is_none_or(|maximum| maximum >= OPEN_FILES) || setrlimit(Resource::Nofile, wanted).is_err() {
        // Enough already, or only root may raise the hard limit.
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
}

/// A command line that runs `command` on `cores`.
pub fn pinned(cores: &[usize], command: &[String]) -> Result<Command> {
    let mut launcher = Command::new(std::env::current_exe()?);
    launcher.args(["launch", "--parent", &std::process::id().to_string()]);
    launcher.args(cores.iter().flat_map(|core| ["--core".to_owned(), core.to_string()]));
    launcher.arg("--").args(command).stdin(Stdio::null());
    // Which driver runs is for each peer's configuration to say.
    launcher.env_remove("RINGWAY_IO_DRIVER");
    Ok(launcher)
}

/// The command line of one of our own subcommands.
pub fn own(arguments: &[&str]) -> Result<Vec<String>> {
    let own = std::env::current_exe()?.into_os_string().into_string();
    let own = own.ok().context("the path of this program is not text")?;
    Ok(std::iter::once(own).chain(arguments.iter().map(|argument| argument.to_string())).collect())
}

/// A server that is ended when it goes out of scope.
pub struct Server {
    name: String,
    child: Child,
}

/// How long a server may take to end in an orderly way.
const END_TIMEOUT: Duration = Duration::from_secs(3);

impl Server {
    /// Starts it with its output in `log`.
    pub fn start(name: &str, cores: &[usize], command: &[String], log: &Path) -> Result<Self> {
        let output = File::create(log).with_context(|| format!("write {}", log.display()))?;
        let mut command = pinned(cores, command)?;
        command.stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        Ok(Server { name: name.to_owned(), child })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails once the server has ended by itself.
    pub fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} has ended ({status})", self.name),
            None => Ok(()),
        }
    }

    /// Asks it to end and waits; whether it has.
    pub fn end(&mut self, patience: Duration) -> bool {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has been waited for has given its id back.
        if !matches!(self.child.try_wait(), Ok(None)) || self.end(END_TIMEOUT) {
            return;
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
