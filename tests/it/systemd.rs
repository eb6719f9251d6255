//! As a service manager sees it: sockets that are passed, and what it is told. The manager is played:
//! a datagram socket that hears, a shell that puts descriptors where they belong.

use std::fs;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::Signal;

use crate::support::process::{ringway_after, ringway_at};
use crate::support::{Backend, Client, PATIENCE, Process, Proxy, ProxyBuilder, TempFile, eventually, json};

const RINGWAY: &str = env!("CARGO_BIN_EXE_ringway");

/// Runs the binary with a descriptor at number 3, as a service manager does.
fn passing(descriptor: impl Into<OwnedFd>, variables: &str, file: &Path) -> Command {
    let mut command = ringway_after(&format!("exec 3<&0 0</dev/null; export {variables}"), file);
    command.stdin(Stdio::from(descriptor.into()));
    command
}

/// `$$` is the shell's number, and the binary's once it has taken the shell's place.
const ONE_SOCKET: &str = "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=ringway.socket";

fn listening() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn before(backend: &Backend) -> ProxyBuilder {
    Proxy::builder().backend("b", &[backend.address()])
}

fn ends(mut command: Command) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
}

#[test]
fn a_passed_socket_is_accepted_from_and_outlives_the_process() {
    let backend = Backend::always(json("{}"));
    let (listener, address) = listening();
    let file = TempFile::new();
    // To bind the address itself would fail: the socket does not share its port.
    file.write(&before(&backend).workers(4).server(&format!("listen = [\"{address}\", \"127.0.0.1:0\"]")).text());
    for _ in 0..2 {
        // From the second round on this waits in the queue while nobody serves.
        let mut waiting = Client::connect(address);
        let process = Process::start(passing(listener.try_clone().unwrap(), ONE_SOCKET, file.path()));
        assert_eq!(process.address, address);
        assert_eq!(waiting.call().status, 200);
        let mut clients: Vec<Client> = (0..64).map(|_| Client::connect(address)).collect();
        for client in &mut clients {
            assert_eq!(client.call().status, 200);
        }
        assert!(process.environment().iter().any(|line| line.starts_with("LISTEN_FDS=")), "the test passes one");
        process.signal(Signal::SIGTERM);
        assert_eq!(process.end().code(), Some(0));
    }
}

#[test]
fn the_admin_socket_can_be_passed_and_handed_over() {
    let backend = Backend::always(json("{}"));
    let (listener, address) = listening();
    let file = TempFile::new();
    let text = before(&backend)
        .text()
        .replace("[admin]\nlisten = \"127.0.0.1:0\"", &format!("[admin]\nlisten = \"{address}\""));
    file.write(&text);
    let mut process = Process::start(passing(listener, ONE_SOCKET, file.path()));
    assert_eq!(process.admin.0, address);
    // The variables are the old one's; the new one must not look for descriptors by them.
    process.hands_over();
    process.former_end();
    assert_eq!(process.admin.ask("GET", "/readyz").status, 200);
    assert!(process.environment().iter().all(|line| !line.starts_with("LISTEN_")));
}

#[test]
fn a_passed_socket_with_a_shared_port_is_joined_by_one_for_each_worker() {
    let backend = Backend::always(json("{}"));
    let place = crate::support::Reserved::new();
    let address = place.address;
    let file = TempFile::new();
    file.write(&before(&backend).workers(3).server(&format!("listen = [\"{address}\"]")).text());
    let process = Process::start(passing(place.listen(), ONE_SOCKET, file.path()));
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    // Columns: number, local address, remote address, state; `0A` listens.
    let local = format!("0100007F:{:04X}", address.port());
    let members = table.lines().filter(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        columns[1] == local && columns[3] == "0A"
    });
    assert_eq!(members.count(), 3);
    for _ in 0..32 {
        assert_eq!(process.client().call().status, 200);
    }
}

#[test]
fn sockets_that_are_not_for_us_are_left_alone() {
    let backend = Backend::always(json("{}"));
    let file = TempFile::new();
    file.write(&before(&backend).text());
    // Of no configured address: closed, and said.
    let (listener, address) = listening();
    let process = Process::start(passing(listener, ONE_SOCKET, file.path()));
    assert_eq!(process.client().call().status, 200);
    eventually("nobody has the socket", || TcpStream::connect(address).is_err());
    // Variables of another process: they mean nothing.
    let (listener, _) = listening();
    let process = Process::start(passing(listener, "LISTEN_PID=1 LISTEN_FDS=1", file.path()));
    assert_eq!(process.client().call().status, 200);
}

#[test]
fn what_is_no_listening_socket_is_refused_by_name() {
    let file = TempFile::with("[backends.b]\nendpoints = [\"http://127.0.0.1:9001/mcp\"]\n");
    let (listener, address) = listening();
    let connected = TcpStream::connect(address).unwrap();
    let _other_end = listener.accept().unwrap();
    let datagram = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let cases: [OwnedFd; 3] = [connected.into(), datagram.into(), fs::File::open("/dev/null").unwrap().into()];
    for descriptor in cases {
        let output = ends(passing(descriptor, ONE_SOCKET, file.path()));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains("fd 3 is not") || said.contains("descriptor 3, which is no listening TCP socket"),
            "{said}"
        );
    }
}

/// A service manager that hears what it is told.
struct Manager {
    socket: UnixDatagram,
    path: String,
    _directory: tempfile::TempDir,
}

impl Manager {
    fn at_a_path() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Self::over(socket, path.display().to_string(), directory)
    }

    fn abstract_name() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let name = directory.path().display().to_string();
        let socket = UnixDatagram::bind_addr(&UnixAddress::from_abstract_name(&name).unwrap()).unwrap();
        Self::over(socket, format!("@{name}"), directory)
    }

    fn over(socket: UnixDatagram, path: String, directory: tempfile::TempDir) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, path, _directory: directory }
    }

    /// The lines of the next datagram.
    fn hears(&self) -> Vec<String> {
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).expect("a notification");
        String::from_utf8(bytes[..length].to_vec()).unwrap().lines().map(str::to_owned).collect()
    }

    fn starts(&self, file: &Path) -> Command {
        let mut command = ringway_at(Path::new(RINGWAY), file);
        command.env("NOTIFY_SOCKET", &self.path).env_remove("WATCHDOG_USEC");
        command
    }
}

#[test]
fn the_manager_is_told_of_every_step() {
    let backend = Backend::always(json("{}"));
    for manager in [Manager::at_a_path(), Manager::abstract_name()] {
        let file = TempFile::new();
        file.write(&before(&backend).text());
        let mut process = Process::start(manager.starts(file.path()));
        assert_eq!(manager.hears(), ["READY=1", "STATUS=serving"]);
        // A reload is told whatever becomes of it: `systemctl reload` waits for its end.
        for text in [before(&backend).text(), "nonsense".to_owned(), before(&backend).text()] {
            file.write(&text);
            process.signal(Signal::SIGHUP);
            let reloading = manager.hears();
            assert_eq!((reloading.len(), reloading[0].as_str()), (2, "RELOADING=1"));
            let micros: u64 = reloading[1].strip_prefix("MONOTONIC_USEC=").unwrap().parse().unwrap();
            assert!(micros > 0);
            assert_eq!(manager.hears()[0], "READY=1");
        }
        process.hands_over();
        // From the old one first: only of its successor does a manager take the word that follows.
        assert_eq!(manager.hears(), [format!("MAINPID={}", process.id())]);
        assert_eq!(manager.hears()[0], "READY=1");
        process.former_end();
        process.signal(Signal::SIGTERM);
        assert_eq!(manager.hears(), ["STOPPING=1"], "and the old one, which goes on, has not said so");
        assert_eq!(process.end().code(), Some(0));
    }
}

#[test]
fn the_watchdog_is_fed_by_whoever_serves() {
    let backend = Backend::always(json("{}"));
    let manager = Manager::at_a_path();
    let file = TempFile::new();
    file.write(&before(&backend).text());
    let mut command = manager.starts(file.path());
    command.env("WATCHDOG_USEC", "200000");
    let mut process = Process::start(command);
    let fed = |times: usize| {
        let mut seen = 0;
        while seen < times {
            seen += usize::from(manager.hears() == ["WATCHDOG=1"]);
        }
    };
    fed(3);
    process.hands_over();
    process.former_end();
    fed(3);
}

#[test]
fn a_manager_that_has_gone_harms_nobody() {
    let backend = Backend::always(json("{}"));
    let file = TempFile::new();
    file.write(&before(&backend).text());
    let mut command = ringway_at(Path::new(RINGWAY), file.path());
    command.env("NOTIFY_SOCKET", "/nowhere/notify").env("WATCHDOG_USEC", "20000");
    let process = Process::start(command);
    assert_eq!(process.client().call().status, 200);
    process.signal(Signal::SIGTERM);
    assert_eq!(process.end().code(), Some(0));
}

/// The files that are shipped, as systemd itself reads them, where it is installed; and everywhere, that
/// they fit the configuration they come with.
#[test]
fn the_unit_files_load() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let read = |name: &str| fs::read_to_string(config.join(name)).unwrap();
    let (service, socket) = (read("ringway.service"), read("ringway.socket"));
    let minimal = ringway::config::load(&config.join("minimal.toml")).unwrap();
    let value = |text: &str, key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("no {key}")).to_owned()
    };
    assert_eq!(value(&socket, "ListenStream"), minimal.server.listen[0].to_string());
    assert_eq!(value(&service, "Type"), "notify");
    assert!(value(&service, "TimeoutStopSec").parse::<u64>().unwrap() > minimal.server.drain_timeout.as_secs() + 1);
    assert!(service.contains("\nExecStart=/usr/local/bin/ringway run --config "));

    let directory = tempfile::tempdir().unwrap();
    let here = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let paths =
        [here("ringway.service", &service.replace("/usr/local/bin/ringway", RINGWAY)), here("ringway.socket", &socket)];
    match Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&paths).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() && said.is_empty(), "{said}");
        }
        Err(error) => println!("NOT VERIFIED by systemd, which is not installed here: {error}"),
    }
}

/// A peer that resets while it waits in a queue that nobody serves costs nothing later.
#[test]
fn a_client_that_leaves_the_queue_is_no_fault() {
    let backend = Backend::always(json("{}"));
    let (listener, address) = listening();
    let file = TempFile::new();
    file.write(&before(&backend).server(&format!("listen = [\"{address}\"]")).text());
    let gone = TcpStream::connect(address).unwrap();
    gone.shutdown(Shutdown::Both).unwrap();
    Client::connect(address).reset();
    let process = Process::start(passing(listener, ONE_SOCKET, file.path()));
    assert_eq!(process.client().call().status, 200);
}
