//! Configuration as used: typed, complete, every fault already reported.
//!
//! Built by the loader; code behind the loader sees only this shape.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// Everything an operator can say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The `[server]` table.
    pub server: Server,
    /// The `[admin]` table.
    pub admin: Admin,
    /// The `[limits]` table.
    pub limits: Limits,
    /// The `[sessions]` table.
    pub sessions: Sessions,
    /// The `[backends.*]` tables, by name.
    pub backends: BTreeMap<String, Backend>,
    /// The `[[routes]]` in file order; the default route when the file names none.
    pub routes: Vec<Route>,
}

/// Where and how to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Data-plane addresses; port 0 binds a free one.
    pub listen: Vec<SocketAddr>,
    /// Worker threads; 0: one per core this process may use.
    pub workers: usize,
    /// Which I/O driver to try.
    pub io_driver: IoDriver,
    /// How long a drain waits for exchanges in flight.
    pub drain_timeout: Duration,
    /// How long a successor may take until it is ready to serve.
    pub handover_timeout: Duration,
    /// Public base URL, without a trailing slash.
    pub public_url: Option<String>,
    /// How many proxies in front of us are ours: that many entries of `X-Forwarded-For` are kept.
    pub trusted_hops: usize,
    /// How often endpoint host names are resolved again.
    pub resolve_interval: Duration,
}

/// A key whose value is one word of a closed set.
pub trait Choice: Copy + Default + 'static {
    /// All of them, the default first.
    const ALL: &'static [Self];

    /// The word.
    fn name(self) -> &'static str;
}

/// `io_driver`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoDriver {
    /// The best that works here.
    #[default]
    Auto,
    /// `io_uring` or refuse to start.
    IoUring,
    /// `epoll`.
    Epoll,
}

impl Choice for IoDriver {
    const ALL: &'static [Self] = &[Self::Auto, Self::IoUring, Self::Epoll];

    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

/// The admin listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// `None`: no admin listener.
    pub listen: Option<SocketAddr>,
    /// Bearer token; required when `listen` is not loopback.
    pub token: Option<Secret>,
}

/// How session ids of legacy backends are sealed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    /// The first seals, all open. None: a random key of this process.
    pub keys: Vec<Secret>,
    /// Older sessions are refused; zero: no bound.
    pub max_age: Duration,
}

/// `session_binding`: what a session id is bound to besides its backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionBinding {
    /// Nothing: the backend judges each request by itself.
    #[default]
    None,
    /// The `Authorization` that opened the session.
    Credential,
}

/// Ceilings and deadlines towards clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Request head, and response head of a backend, in bytes.
    pub head_bytes_max: usize,
    /// Request target in bytes.
    pub target_bytes_max: usize,
    /// Header fields in one head.
    pub headers_max: usize,
    /// Request body in bytes.
    pub body_bytes_max: u64,
    /// Client connections of one worker.
    pub connections_per_worker_max: usize,
    /// Client connections from one address to one worker.
    pub connections_per_ip_max: usize,
    /// Exchanges in flight in one worker.
    pub exchanges_per_worker_max: usize,
    /// From the first byte of a head to its last.
    pub head_timeout: Duration,
    /// Between two reads of a request body.
    pub body_timeout: Duration,
    /// An idle keep-alive connection.
    pub idle_timeout: Duration,
    /// A client that takes none of the bytes we hold for it.
    pub write_timeout: Duration,
}

/// One backend: equal endpoints behind one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// At least one.
    pub endpoints: Vec<EndpointUrl>,
    /// Which era the backend speaks.
    pub protocol: Protocol,
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// TCP connect.
    pub connect_timeout: Duration,
    /// From the request's last byte to the first byte of an answer.
    pub first_byte_timeout: Duration,
    /// Silence inside an answer (a held stream sends keep-alives).
    pub stream_idle_timeout: Duration,
    /// The whole exchange of an answer that is not a stream of events; zero: no bound.
    pub request_timeout: Duration,
    /// Idle connections kept per endpoint and worker.
    pub idle_conns_max: usize,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// How old a connection may get before it is not used again.
    pub conn_age_max: Duration,
    /// How long an endpoint that refused a connection is passed over.
    pub connect_cooldown: Duration,
}

/// `http://host:port/path`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointUrl {
    /// Name in lower case or address, without brackets.
    pub host: String,
    /// Port, 80 if the URL names none.
    pub port: u16,
    /// What goes into `Host`: with brackets where needed, without the default port.
    pub authority: String,
    /// Absolute path, at least `/`; no query.
    pub path: String,
}

/// `protocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Seen in its answers.
    #[default]
    Auto,
    /// 2026-07-28 and later.
    Modern,
    /// The versions with `initialize`.
    Legacy,
}

impl Choice for Protocol {
    const ALL: &'static [Self] = &[Self::Auto, Self::Modern, Self::Legacy];

    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Modern => "modern",
            Self::Legacy => "legacy",
        }
    }
}

/// `balance`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// The less loaded of two drawn at random.
    #[default]
    LeastRequests,
    /// In turn.
    RoundRobin,
}

impl Choice for Balance {
    const ALL: &'static [Self] = &[Self::LeastRequests, Self::RoundRobin];

    fn name(self) -> &'static str {
        match self {
            Self::LeastRequests => "least_requests",
            Self::RoundRobin => "round_robin",
        }
    }
}

impl Choice for SessionBinding {
    const ALL: &'static [Self] = &[Self::None, Self::Credential];

    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Credential => "credential",
        }
    }
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Lower-case host without port; `None`: any.
    pub host: Option<String>,
    /// Path pattern as written: `/mcp`, `/mcp/*` or `/mcp/{backend}`.
    pub path: String,
    /// The backend's name; `None` where the path captures `{backend}`.
    pub backend: Option<String>,
    /// Allowed request methods, upper case; empty: any.
    pub methods: Vec<String>,
    /// What session ids are bound to.
    pub session_binding: SessionBinding,
}

/// A value that must not be seen: `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps the text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text; only to compare or to send it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
