//! The proxy under test.

use std::fmt::Write;
use std::net::SocketAddr;

use ringway::config;
use ringway::server::{Hooks, Server, Source};

use super::client::{Client, Response};

/// A running proxy; dropped, it is stopped.
pub struct Proxy {
    server: Server,
}

/// How it is to be set up. Text is TOML.
#[derive(Default)]
pub struct ProxyBuilder {
    server: String,
    limits: String,
    defaults: String,
    backends: String,
    routes: String,
    workers: Option<usize>,
    hooks: Hooks,
}

impl Proxy {
    pub fn builder() -> ProxyBuilder {
        ProxyBuilder::default()
    }

    /// With one backend, `b`, at these addresses.
    pub fn before(endpoints: &[SocketAddr]) -> Self {
        Self::builder().backend("b", endpoints).start()
    }

    pub fn address(&self) -> SocketAddr {
        self.server.addresses[0]
    }

    pub fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address())
    }

    /// Asks the admin listener.
    pub fn admin(&self, method: &str, path: &str) -> Response {
        let mut client = Client::connect(self.server.admin.expect("an admin listener"));
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        client.response()
    }

    /// The sum of all samples of a metric whose line begins with this text.
    pub fn metric(&self, sample: &str) -> f64 {
        let text = self.admin("GET", "/metrics").text();
        let matching = text
            .lines()
            .filter(|line| line.strip_prefix(sample).is_some_and(|rest| rest.starts_with([' ', '{', ',', '}'])));
        matching.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// `ringway_refused_total` of one reason.
    pub fn refused(&self, reason: &str) -> f64 {
        self.metric(&format!("ringway_refused_total{{reason=\"{reason}\"}}"))
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
    pub fn backend(self, name: &str, endpoints: &[SocketAddr]) -> Self {
        self.backend_with(name, endpoints, "")
    }

    /// `keys` go into the backend's table.
    pub fn backend_with(mut self, name: &str, endpoints: &[SocketAddr], keys: &str) -> Self {
        let urls: Vec<String> = endpoints.iter().map(|address| format!("\"http://{address}/mcp\"")).collect();
        writeln!(self.backends, "[backends.{name}]\nendpoints = [{}]\n{keys}", urls.join(", ")).unwrap();
        self
    }

    /// `[server]` keys.
    pub fn server(mut self, keys: &str) -> Self {
        writeln!(self.server, "{keys}").unwrap();
        self
    }

    /// `[limits]` keys.
    pub fn limits(mut self, keys: &str) -> Self {
        writeln!(self.limits, "{keys}").unwrap();
        self
    }

    /// `[defaults.backend]` keys.
    pub fn defaults(mut self, keys: &str) -> Self {
        writeln!(self.defaults, "{keys}").unwrap();
        self
    }

    /// Whole `[[routes]]` tables.
    pub fn routes(mut self, tables: &str) -> Self {
        writeln!(self.routes, "{tables}").unwrap();
        self
    }

    /// For a test whose story needs a certain number; else it is the run's.
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = Some(count);
        self
    }

    pub fn hooks(mut self, hooks: Hooks) -> Self {
        self.hooks = hooks;
        self
    }

    /// The configuration as text.
    pub fn text(&self) -> String {
        let workers = self.workers.unwrap_or_else(|| {
            std::env::var("RINGWAY_TEST_WORKERS").map_or(2, |text| text.parse().expect("a number of workers"))
        });
        let listen = if self.server.contains("listen") { "" } else { "listen = [\"127.0.0.1:0\"]" };
        format!(
            "[server]\n{listen}\nworkers = {workers}\n{}\n[admin]\nlisten = \"127.0.0.1:0\"\n[limits]\n{}\n[defaults.backend]\n{}\n{}\n{}",
            self.server, self.limits, self.defaults, self.backends, self.routes
        )
    }

    pub fn start(self) -> Proxy {
        let config = config::load_str("test.toml", &self.text()).unwrap_or_else(|error| panic!("{error}"));
        let server = Server::start(config, Source::Fixed, self.hooks).expect("a proxy");
        Proxy { server }
    }

    /// From a file that the test may change and reload.
    pub fn start_from(self, path: &std::path::Path) -> Proxy {
        std::fs::write(path, self.text()).unwrap();
        let config = config::load(path).unwrap_or_else(|error| panic!("{error}"));
        let server = Server::start(config, Source::File(path.to_owned()), self.hooks).expect("a proxy");
        Proxy { server }
    }
}
