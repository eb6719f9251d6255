//! How each peer is found, started, and asked whether it is ready.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::Peer;
use super::configure::{Holes, fleet_backend};
use crate::case::FLEET_SMALL;
use crate::cpu::with_descendants;
use crate::drive::open_session;
use crate::http;
use crate::launch::{Server, own};
use crate::workload::Target;

/// What starting a peer needs to know.
pub struct Setting<'a> {
    /// The mock backend.
    pub backend: SocketAddr,
    /// The cores a peer runs on: one, but for Ringway with more workers.
    pub cores: &'a [usize],
    pub cores_of_two: &'a [usize],
    /// Each peer has a folder for its configuration and its log in here.
    pub dir: &'a Path,
    pub ringway: &'a Path,
    /// Where run.sh has put rivals it built.
    pub rivals: &'a Path,
    /// Sockets one process may have.
    pub sockets_max: u64,
}

/// A peer that answers.
pub struct Running {
    pub peer: Peer,
    pub url: String,
    /// Ringway's admin listener.
    pub admin: SocketAddr,
    /// From its start to the first answer.
    pub start_time: Duration,
    server: Option<Server>,
}

/// How long a peer may take to answer after its start.
const START_TIMEOUT: Duration = Duration::from_secs(120);

impl Running {
    pub fn start(peer: Peer, setting: &Setting) -> Result<Self> {
        Self::start_as(peer, &peer.name(), 0, setting)
    }

    /// Starts it under another name, so that it may run beside itself, and with so many more backends.
    pub fn start_as(peer: Peer, name: &str, fleet: usize, setting: &Setting) -> Result<Self> {
        let (listen, admin) = (free_address()?, free_address()?);
        let mut running = Running {
            peer,
            url: format!("http://{}{}", if peer == Peer::Direct { setting.backend } else { listen }, path(peer)),
            admin,
            start_time: Duration::ZERO,
            server: None,
        };
        if peer == Peer::Direct {
            return Ok(running);
        }
        let dir = setting.dir.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let dir = fs::canonicalize(dir)?;
        let (backend, sockets_max) = (setting.backend, setting.sockets_max);
        let config = Holes { peer, listen, admin, backend, dir: &dir, sockets_max, fleet }.write()?;
        let config = config.as_deref().map(text).transpose()?.unwrap_or_default();

        let command = command(peer, setting, &config, &dir, listen)?;
        if peer.is_ringway() {
            check_config(&command[0], &config)?;
        }
        let cores = if peer.workers() > 1 { setting.cores_of_two } else { setting.cores };
        let target: Target = running.url.parse().map_err(anyhow::Error::msg)?;
        let begun = Instant::now();
        running.server = Some(start_proxy(name, cores, &command, &dir.join("log"), &target)?);
        running.start_time = begun.elapsed();
        Ok(running)
    }

    /// Its processes now: a worker that was replaced has another id.
    pub fn pids(&self) -> Vec<u32> {
        self.server.as_ref().map(|server| with_descendants(server.pid())).unwrap_or_default()
    }

    pub fn check_alive(&mut self) -> Result<()> {
        self.server.as_mut().map_or(Ok(()), Server::check_alive)
    }

    /// URLs of some backends, spread over a fleet of this size.
    pub fn fleet_urls(&self, fleet: usize) -> Vec<String> {
        let base = self.url.rsplit_once('/').map_or(self.url.as_str(), |(base, _)| base);
        (0..FLEET_SMALL).map(|index| format!("{base}/{}", fleet_backend(index * fleet / FLEET_SMALL))).collect()
    }
}

/// Starts a proxy and waits until it answers.
pub fn start_proxy(name: &str, cores: &[usize], command: &[String], log: &Path, target: &Target) -> Result<Server> {
    let mut server = Server::start(name, cores, command, log)?;
    wait_until(&mut server, || first_answer(target)).with_context(|| last_words(log))?;
    Ok(server)
}

/// What a peer says about its version; an error says why it cannot take part.
pub fn version(peer: Peer, setting: &Setting) -> Result<String> {
    let arguments: &[&str] = match peer {
        Peer::Direct | Peer::RelayEpoll | Peer::RelayUring => return Ok(env!("CARGO_PKG_VERSION").to_owned()),
        Peer::McpProxy | Peer::McpGateway => return installed_version(&program(peer, setting)?, &peer.name(), setting),
        Peer::Nginx | Peer::NginxBig | Peer::Haproxy => &["-v"],
        _ if peer.is_ringway() => &["version"],
        // With the long option it says more, as JSON.
        Peer::Agentgateway => &["-V"],
        _ => &["--version"],
    };
    let program = program(peer, setting)?;
    let output = Command::new(&program).args(arguments).output();
    let output = output.with_context(|| format!("{program} cannot be started"))?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    // Ringway says version and commit, a line each; all others say more than is of interest after the first.
    let lines = said.lines().map(|line| line.trim().trim_start_matches(&program).trim_start());
    let lines = lines.filter(|line| !line.is_empty()).take(if peer.is_ringway() { 2 } else { 1 });
    Ok(lines.collect::<Vec<_>>().join(", "))
}

/// As cargo has noted it down: mcp-proxy does not say its own.
fn installed_version(program: &str, name: &str, setting: &Setting) -> Result<String> {
    let notes = setting.rivals.join(".crates.toml");
    let text = fs::read_to_string(&notes).with_context(|| format!("read {} beside {program}", notes.display()))?;
    let of = |line: &str| Some(line.strip_prefix(&format!("\"{name} "))?.split_once(' ')?.0.to_owned());
    text.lines().find_map(of).with_context(|| format!("{} knows no {name}", notes.display()))
}

/// Where a peer serves the mock.
fn path(peer: Peer) -> &'static str {
    match peer {
        _ if peer.is_ringway() => "/mcp/mock",
        Peer::McpGateway => "/mcp/mock",
        Peer::McpProxy => "/",
        _ => "/mcp",
    }
}

fn program(peer: Peer, setting: &Setting) -> Result<String> {
    match peer {
        Peer::Direct | Peer::RelayEpoll | Peer::RelayUring => Ok(own(&[])?.remove(0)),
        Peer::Nginx | Peer::NginxBig => installed("nginx"),
        Peer::Haproxy => installed("haproxy"),
        Peer::McpProxy | Peer::McpGateway => {
            let path = setting.rivals.join("bin").join(peer.name());
            ensure!(path.is_file(), "{} is not there: `loadtest/run.sh --rivals full` builds it", path.display());
            text(&path)
        }
        Peer::Agentgateway | Peer::Envoy | Peer::Monolake | Peer::RingwayPgo => {
            let variable = peer.variable().expect("these have one");
            let path = std::env::var(variable).ok().filter(|path| !path.is_empty());
            let path = path.with_context(|| format!("set {variable} to the path of its binary"))?;
            ensure!(Path::new(&path).is_file(), "{variable}: there is no file {path}");
            Ok(path)
        }
        _ => {
            ensure!(
                setting.ringway.is_file(),
                "{} is not there: build it, or name it with --ringway",
                setting.ringway.display()
            );
            text(setting.ringway)
        }
    }
}

fn command(peer: Peer, setting: &Setting, config: &str, dir: &Path, listen: SocketAddr) -> Result<Vec<String>> {
    let program = program(peer, setting)?;
    let (listen, backend, dir) = (listen.to_string(), setting.backend.to_string(), text(dir)?);
    let relay =
        |driver: &'static str| ["relay", "--driver", driver, "--listen", &listen, "--upstream", &backend].to_vec();
    let arguments: Vec<&str> = match peer {
        Peer::Direct => bail!("there is no proxy to start"),
        Peer::RelayEpoll => relay("epoll"),
        Peer::RelayUring => relay("io_uring"),
        Peer::Nginx | Peer::NginxBig => vec!["-p", &dir, "-e", "stderr", "-c", config],
        Peer::Haproxy => vec!["-db", "-f", config],
        Peer::McpProxy => vec!["--config", config],
        // Otherwise it logs every request.
        Peer::McpGateway => vec!["--log-level", "error", "--config", config],
        Peer::Agentgateway => vec!["-f", config],
        Peer::Envoy => vec!["-c", config, "--concurrency", "1", "--log-level", "error", "--disable-hot-restart"],
        Peer::Monolake => vec!["-c", config],
        _ => vec!["run", "--config", config],
    };
    Ok(std::iter::once(program).chain(arguments.into_iter().map(str::to_owned)).collect())
}

/// A Ringway that does not know a key yet cannot be compared in that variant.
fn check_config(ringway: &str, config: &str) -> Result<()> {
    let output = Command::new(ringway).args(["check", "--config", config]).output().context("ringway check")?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    ensure!(
        output.status.success(),
        "this Ringway refuses its configuration: {}",
        said.lines().next().unwrap_or("no reason")
    );
    Ok(())
}

/// The mock backend that all peers of a run stand in front of.
pub struct Mock {
    pub server: Server,
    pub address: SocketAddr,
}

/// How long a list may be kept by those who look; requests that must not be shared ask for other pages.
const LIST_TTL_MS: u32 = 60_000;

impl Mock {
    /// Starts it and waits until it answers.
    pub fn start(core: usize, dir: &Path) -> Result<Self> {
        Self::start_slow(core, dir, Duration::ZERO)
    }

    /// One that takes its time over each answer.
    pub fn start_slow(core: usize, dir: &Path, delay: Duration) -> Result<Self> {
        let address = free_address()?;
        let (listen, ttl, delay) = (address.to_string(), LIST_TTL_MS.to_string(), delay.as_millis().to_string());
        let command = own(&["mock", "--listen", &listen, "--list-ttl-ms", &ttl, "--delay-ms", &delay])?;
        let log = dir.join("mock.log");
        let mut server = Server::start("mock", &[core], &command, &log)?;
        wait_until(&mut server, || http::get(address, "/counts").map(drop)).with_context(|| last_words(&log))?;
        Ok(Mock { server, address })
    }
}

/// A session through the peer: a port that takes connections may have nobody behind it yet.
fn first_answer(target: &Target) -> Result<()> {
    open_session(&TcpStream::connect(target.address)?, target).map(drop)
}

fn wait_until(server: &mut Server, ready: impl Fn() -> Result<()>) -> Result<()> {
    let deadline = Instant::now() + START_TIMEOUT;
    while let Err(not_yet) = ready() {
        server.check_alive()?;
        if Instant::now() > deadline {
            return Err(not_yet.context(format!("not ready within {START_TIMEOUT:?} of its start")));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// The end of what a server wrote before it failed.
fn last_words(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(5).collect();
    let lines: Vec<&str> = lines.into_iter().rev().collect();
    format!("{} ends with: {}", log.display(), if lines.is_empty() { "nothing".to_owned() } else { lines.join(" | ") })
}

/// A loopback address nobody listens on, from below the range the kernel takes outgoing ports from.
pub fn free_address() -> Result<SocketAddr> {
    use std::sync::atomic::{AtomicU16, Ordering};
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 10_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..COUNT {
        // Two benches at once begin in different places.
        let offset = (std::process::id() as u16).wrapping_mul(37).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let address = SocketAddr::from(([127, 0, 0, 1], FIRST + offset % COUNT));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no free port between {FIRST} and {}", FIRST + COUNT)
}

/// Looks a program up, also where Debian keeps what only root is expected to start.
fn installed(name: &str) -> Result<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let found = places.map(|place| place.join(name)).find(|candidate| candidate.is_file());
    text(
        &found.with_context(|| {
            format!("{name} is not installed: `apt-get install {name}`, or leave it out with --peers")
        })?,
    )
}

fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).with_context(|| format!("{} is not text", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_addresses_differ() {
        assert_ne!(free_address().unwrap(), free_address().unwrap());
    }

    #[test]
    fn ten_backends_are_asked_wherever_they_stand() {
        let url = "http://127.0.0.1:1/mcp/mock".to_owned();
        let admin = "127.0.0.1:2".parse().unwrap();
        let running = Running { peer: Peer::Ringway, url, admin, start_time: Duration::ZERO, server: None };
        assert_eq!(running.fleet_urls(10)[9], "http://127.0.0.1:1/mcp/b000009");
        assert_eq!(running.fleet_urls(10_000)[9], "http://127.0.0.1:1/mcp/b009000");
    }
}
