//! The proxy under test.

use std::fmt::Write;
use std::net::SocketAddr;

use ringway::config;
use ringway::control::Outcome;
use ringway::server::{Hooks, Server, Source};

use super::admin::Admin;
use super::client::{Client, Response};
use super::places::TempFile;
use super::process::Process;
use super::{eventually, refuses};

/// A running proxy; dropped, it is stopped.
pub(crate) struct Proxy {
    server: Server,
}

/// How it is to be set up. Text is TOML.
#[derive(Default)]
pub(crate) struct ProxyBuilder {
    server: String,
    admin: String,
    limits: String,
    defaults: String,
    backends: String,
    routes: String,
    workers: Option<usize>,
    hooks: Hooks,
    reads_messages: bool,
}

/// Nothing needs the body, so that routes relay it unparsed.
const UNPARSED: &str = "coalesce = { enabled = false }\ncache = { enabled = false }";

impl Proxy {
    pub(crate) fn builder() -> ProxyBuilder {
        ProxyBuilder::default()
    }

    /// With one backend, `b`, at these addresses.
    pub(crate) fn before(endpoints: &[SocketAddr]) -> Self {
        Self::builder().backend("b", endpoints).start()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.addresses[0]
    }

    /// Puts the file, which has no faults, in force.
    pub(crate) fn reloads(&self) {
        let outcome = self.server.control.reload();
        assert!(matches!(outcome, Some(Outcome::Done(_))), "{outcome:?}");
    }

    pub(crate) fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address())
    }

    /// Its admin listener.
    pub(crate) fn operator(&self) -> Admin {
        Admin(self.server.admin.expect("an admin listener"))
    }

    /// Asks the admin listener.
    pub(crate) fn admin(&self, method: &str, path: &str) -> Response {
        self.operator().ask(method, path)
    }

    /// The sum of all samples of a metric whose line begins with this text.
    pub(crate) fn metric(&self, sample: &str) -> f64 {
        self.operator().metric(sample)
    }

    /// `ringway_refused_total` of one reason.
    pub(crate) fn refused(&self, reason: &str) -> f64 {
        self.operator().refused(reason)
    }

    /// Tells it to stop, and waits until every worker has begun to: each lets its listeners go as it does.
    pub(crate) fn begin_drain(&mut self) {
        let address = self.address();
        self.server.control.stop();
        eventually("nobody listens any more", || refuses(address));
    }

    /// Waits until no exchange is in flight and no client is connected.
    pub(crate) fn comes_to_rest(&self) {
        self.operator().comes_to_rest();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // A test that failed has exchanges in flight that would never end: the second stop is at once.
        if std::thread::panicking() {
            self.server.control.stop();
        }
        let _ = self.server.stop();
    }
}

impl ProxyBuilder {
    pub(crate) fn backend(self, name: &str, endpoints: &[SocketAddr]) -> Self {
        self.backend_with(name, endpoints, "")
    }

    /// With one endpoint, at a URL.
    pub(crate) fn backend_at(mut self, name: &str, url: &str) -> Self {
        writeln!(self.backends, "[backends.{name}]\nendpoints = [\"{url}\"]").unwrap();
        self
    }

    /// `keys` go into the backend's table.
    pub(crate) fn backend_with(mut self, name: &str, endpoints: &[SocketAddr], keys: &str) -> Self {
        let urls: Vec<String> = endpoints.iter().map(|address| format!("\"http://{address}/mcp\"")).collect();
        writeln!(self.backends, "[backends.{name}]\nendpoints = [{}]\n{keys}", urls.join(", ")).unwrap();
        self
    }

    /// `[server]` keys.
    pub(crate) fn server(mut self, keys: &str) -> Self {
        writeln!(self.server, "{keys}").unwrap();
        self
    }

    /// `[admin]` keys.
    pub(crate) fn admin(mut self, keys: &str) -> Self {
        writeln!(self.admin, "{keys}").unwrap();
        self
    }

    /// `[limits]` keys.
    pub(crate) fn limits(mut self, keys: &str) -> Self {
        writeln!(self.limits, "{keys}").unwrap();
        self
    }

    /// `[defaults.backend]` keys.
    pub(crate) fn defaults(mut self, keys: &str) -> Self {
        writeln!(self.defaults, "{keys}").unwrap();
        self
    }

    /// Whole `[[routes]]` tables.
    pub(crate) fn routes(mut self, tables: &str) -> Self {
        writeln!(self.routes, "{tables}").unwrap();
        self
    }

    /// Leaves coalescing and the cache on, as they are by default: messages are read. Without it bytes
    /// are relayed as they are, for the stories about bytes.
    pub(crate) fn reads_messages(mut self) -> Self {
        self.reads_messages = true;
        self
    }

    /// For a test whose story needs a certain number; else it is the run's.
    pub(crate) fn workers(mut self, count: usize) -> Self {
        self.workers = Some(count);
        self
    }

    pub(crate) fn hooks(mut self, hooks: Hooks) -> Self {
        self.hooks = hooks;
        self
    }

    /// The configuration as text.
    pub(crate) fn text(&self) -> String {
        let workers = self.workers.unwrap_or_else(|| {
            std::env::var("RINGWAY_TEST_WORKERS").map_or(2, |text| text.parse().expect("a number of workers"))
        });
        // Tests name hosts and origins as they like.
        let open = |key: &str| if self.server.contains(key) { String::new() } else { format!("{key} = [\"*\"]\n") };
        let hosts = open("allowed_hosts") + &open("allowed_origins");
        let listen = if self.server.contains("listen") { "" } else { "listen = [\"127.0.0.1:0\"]" };
        let sharing = if self.reads_messages { "" } else { UNPARSED };
        format!(
            "[server]\n{listen}\n{hosts}\nworkers = {workers}\n{}\n[admin]\nlisten = \"127.0.0.1:0\"\n{}\n[limits]\n{}\n[defaults.backend]\n{sharing}\n{}\n{}\n{}",
            self.server, self.admin, self.limits, self.defaults, self.backends, self.routes
        )
    }

    pub(crate) fn start(self) -> Proxy {
        let config = config::load_str("test.toml", &self.text()).unwrap_or_else(|error| panic!("{error}"));
        let server = Server::start(config, Source::Fixed, self.hooks).expect("a proxy");
        Proxy { server }
    }

    /// In a process of its own, which keeps the file open for a reload.
    pub(crate) fn start_process(self, file: &TempFile) -> Process {
        file.write(&self.text());
        let process = Process::serve(file.path());
        process.wait_for_workers();
        process
    }

    /// From a file that the test may change and reload.
    pub(crate) fn start_from(self, path: &std::path::Path) -> Proxy {
        std::fs::write(path, self.text()).unwrap();
        let config = config::load(path).unwrap_or_else(|error| panic!("{error}"));
        let server = Server::start(config, Source::File(path.to_owned()), self.hooks).expect("a proxy");
        Proxy { server }
    }
}
