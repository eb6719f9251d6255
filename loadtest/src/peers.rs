//! What is compared: how each peer is found, configured and started.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::Serialize;

use crate::cpu::with_descendants;
use crate::http;
use crate::launch::{Server, own};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// No proxy: the generator talks to the backend
    Direct,
    /// The floor on epoll
    RelayEpoll,
    /// The floor on io_uring
    RelayUring,
    Nginx,
    Haproxy,
    Ringway,
}

impl Peer {
    pub fn name(self) -> &'static str {
        match self {
            Peer::Direct => "direct",
            Peer::RelayEpoll => "relay-epoll",
            Peer::RelayUring => "relay-uring",
            Peer::Nginx => "nginx",
            Peer::Haproxy => "haproxy",
            Peer::Ringway => "ringway",
        }
    }
}

/// What starting a peer needs to know.
pub struct Setting<'a> {
    /// The mock backend.
    pub backend: SocketAddr,
    /// The core the peer runs on.
    pub core: usize,
    /// Configurations and logs go here.
    pub dir: &'a Path,
    pub ringway: &'a Path,
}

/// A peer that answers.
pub struct Running {
    pub peer: Peer,
    pub url: String,
    /// What it says about its version.
    pub version: String,
    server: Option<Server>,
}

/// How long a peer may take to answer after its start.
const START_TIMEOUT: Duration = Duration::from_secs(10);

impl Running {
    pub fn start(peer: Peer, setting: &Setting) -> Result<Self> {
        let version = version(peer, setting)?;
        let listen = free_address()?;
        let admin = free_address()?;
        let url = |address, path| format!("http://{address}{path}");
        let (command, url) = match peer {
            Peer::Direct => {
                return Ok(Running { peer, url: url(setting.backend, "/mcp"), version, server: None });
            }
            Peer::RelayEpoll => (relay("epoll", listen, setting.backend)?, url(listen, "/mcp")),
            Peer::RelayUring => (relay("io_uring", listen, setting.backend)?, url(listen, "/mcp")),
            Peer::Nginx => {
                let config = setting.configure("nginx.conf", include_str!("../peers/nginx.conf"), listen, admin)?;
                let prefix = text(&fs::canonicalize(setting.dir)?)?;
                let command = [&program("nginx")?, "-p", &prefix, "-e", "stderr", "-c", &config];
                (command.map(str::to_owned).to_vec(), url(listen, "/mcp"))
            }
            Peer::Haproxy => {
                let config = setting.configure("haproxy.cfg", include_str!("../peers/haproxy.cfg"), listen, admin)?;
                let command = [&program("haproxy")?, "-db", "-f", &config];
                (command.map(str::to_owned).to_vec(), url(listen, "/mcp"))
            }
            Peer::Ringway => {
                let config = setting.configure("ringway.toml", include_str!("../peers/ringway.toml"), listen, admin)?;
                let command = [&text(setting.ringway)?, "run", "--config", &config];
                (command.map(str::to_owned).to_vec(), url(listen, "/mcp/mock"))
            }
        };
        let log = setting.dir.join(format!("{}.log", peer.name()));
        let mut server = Server::start(peer.name(), setting.core, &command, &log)?;
        let ready = || match peer {
            Peer::Ringway => http::get(admin, "/readyz").is_ok_and(|answer| answer.status == 200),
            _ => TcpStream::connect(listen).is_ok(),
        };
        wait_until(&mut server, ready).with_context(|| last_words(&log))?;
        Ok(Running { peer, url, version, server: Some(server) })
    }

    /// Its processes now: a worker that was replaced has another id.
    pub fn pids(&self) -> Vec<u32> {
        self.server.as_ref().map(|server| with_descendants(server.pid())).unwrap_or_default()
    }

    pub fn check_alive(&mut self) -> Result<()> {
        self.server.as_mut().map_or(Ok(()), Server::check_alive)
    }
}

/// The mock backend that all peers of a run stand in front of.
pub struct Mock {
    pub server: Server,
    pub address: SocketAddr,
}

impl Mock {
    /// Starts it and waits until it answers.
    pub fn start(core: usize, dir: &Path) -> Result<Self> {
        let address = free_address()?;
        let command = own(&["mock", "--listen", &address.to_string()])?;
        let log = dir.join("mock.log");
        let mut server = Server::start("mock", core, &command, &log)?;
        wait_until(&mut server, || http::get(address, "/counts").is_ok()).with_context(|| last_words(&log))?;
        Ok(Mock { server, address })
    }
}

fn wait_until(server: &mut Server, ready: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + START_TIMEOUT;
    while !ready() {
        server.check_alive()?;
        if Instant::now() > deadline {
            bail!("no answer within {START_TIMEOUT:?} of its start");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// The end of what a server wrote before it failed.
fn last_words(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(5).collect();
    let lines: Vec<&str> = lines.into_iter().rev().collect();
    format!("{}: {}", log.display(), if lines.is_empty() { "(nothing)".to_owned() } else { lines.join(" | ") })
}

fn relay(driver: &str, listen: SocketAddr, backend: SocketAddr) -> Result<Vec<String>> {
    own(&["relay", "--driver", driver, "--listen", &listen.to_string(), "--upstream", &backend.to_string()])
}

impl Setting<'_> {
    /// Writes a peer's configuration; the path of the file.
    fn configure(&self, name: &str, template: &str, listen: SocketAddr, admin: SocketAddr) -> Result<String> {
        let dir = fs::canonicalize(self.dir)?;
        let config = template
            .replace("@LISTEN@", &listen.to_string())
            .replace("@ADMIN@", &admin.to_string())
            .replace("@BACKEND@", &self.backend.to_string())
            .replace("@DIR@", &text(&dir)?);
        let path = dir.join(name);
        fs::write(&path, config).with_context(|| format!("write {}", path.display()))?;
        text(&path)
    }
}

/// A loopback address nobody listens on, from below the range the kernel takes outgoing ports from.
fn free_address() -> Result<SocketAddr> {
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

fn version(peer: Peer, setting: &Setting) -> Result<String> {
    let output = match peer {
        Peer::Direct | Peer::RelayEpoll | Peer::RelayUring => {
            return Ok(env!("CARGO_PKG_VERSION").to_owned());
        }
        Peer::Nginx => Command::new(program("nginx")?).arg("-v").output(),
        Peer::Haproxy => Command::new(program("haproxy")?).arg("-v").output(),
        Peer::Ringway => Command::new(setting.ringway).arg("version").output(),
    };
    let output = output.with_context(|| match peer {
        Peer::Ringway => {
            format!("{} cannot be started: build it, or name it with --ringway", setting.ringway.display())
        }
        _ => format!("{} cannot be started", peer.name()),
    })?;
    let said = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&said).lines().next().unwrap_or("unknown").to_owned())
}

/// Looks a program up, also where Debian keeps what only root is expected to start.
fn program(name: &str) -> Result<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let found = places.map(|place| place.join(name)).find(|candidate| candidate.is_file());
    match found {
        Some(found) => text(&found),
        None => {
            bail!("{name} is not installed: `apt-get install {name}`, or leave it out with --peers")
        }
    }
}

fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).with_context(|| format!("{} is not text", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_have_no_hole_left() {
        let dir = std::env::temp_dir().join(format!("ringway-loadtest-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let address = "127.0.0.1:1".parse().unwrap();
        let setting = Setting { backend: address, core: 0, dir: &dir, ringway: Path::new("ringway") };
        let templates = [
            ("nginx.conf", include_str!("../peers/nginx.conf")),
            ("haproxy.cfg", include_str!("../peers/haproxy.cfg")),
            ("ringway.toml", include_str!("../peers/ringway.toml")),
        ];
        for (name, template) in templates {
            let path = setting.configure(name, template, address, address).unwrap();
            let config = fs::read_to_string(path).unwrap();
            let settings = config.lines().filter(|line| !line.starts_with('#'));
            assert!(settings.clone().count() > 5);
            assert!(settings.clone().all(|line| !line.contains('@')), "{config}");
        }
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn free_addresses_differ() {
        assert_ne!(free_address().unwrap(), free_address().unwrap());
    }
}
