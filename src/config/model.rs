//! Configuration as used: typed, complete, every fault already reported.
//!
//! Built by the loader; code behind the loader sees only this shape.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything an operator can say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The `[server]` table.
    pub server: Server,
    /// The `[admin]` table.
    pub admin: Admin,
    /// The `[log]` table.
    pub log: Log,
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
    /// Origins of web pages that are let in; `*`: any.
    pub allowed_origins: Vec<String>,
    /// Names in `Host` that are ours; `*`: any.
    pub allowed_hosts: Vec<String>,
    /// How often endpoint host names are resolved again.
    pub resolve_interval: Duration,
    /// What becomes of trace headers.
    pub traceparent: TraceHeaders,
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

/// `traceparent`: what becomes of `traceparent` and `tracestate` of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TraceHeaders {
    /// They go on as they came.
    #[default]
    Pass,
    /// A span of our own is named to the backend, in a new trace if none came.
    Create,
}

impl Choice for TraceHeaders {
    const ALL: &'static [Self] = &[Self::Pass, Self::Create];

    fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Create => "create",
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

/// What is logged of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// One line for each request.
    pub access: AccessLog,
}

/// `access`: where the lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere, and none are made.
    #[default]
    Off,
    /// Beside the other log.
    Stderr,
    /// To the end of this file; an absolute path.
    File(PathBuf),
}

impl fmt::Display for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Stderr => f.write_str("stderr"),
            Self::File(path) => path.display().fmt(f),
        }
    }
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
    /// A request body that is read whole to be looked at, in bytes.
    pub envelope_bytes_max: usize,
    /// A legacy request's body that is looked at for its method, in bytes.
    pub legacy_look_bytes_max: usize,
    /// An answer that is collected to be shared, in bytes.
    pub shared_reply_bytes_max: usize,
    /// Cached answers of one worker, in bytes.
    pub cache_bytes_max: u64,
    /// Client connections of one worker.
    pub connections_per_worker_max: usize,
    /// Client connections from one address to one worker.
    pub connections_per_ip_max: usize,
    /// Exchanges in flight in one worker.
    pub exchanges_per_worker_max: usize,
    /// Buffers, queued and cached bytes of one worker from which on it saves memory.
    pub memory_soft_bytes: u64,
    /// The same from which on it takes no more.
    pub memory_hard_bytes: u64,
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
    /// An event stream that answers a request; zero: no bound.
    pub stream_timeout: Duration,
    /// Silence on an event stream after which a comment is sent; zero: none is.
    pub keep_alive: Duration,
    /// Which streams get comments.
    pub keep_alive_streams: KeepAliveStreams,
    /// Part of the endpoints' identity, so that a new number ends all sessions.
    pub session_generation: u64,
    /// Concurrent equal reads.
    pub coalesce: Coalesce,
    /// Answers that are kept.
    pub cache: Cache,
    /// Idle connections kept per endpoint and worker.
    pub idle_conns_max: usize,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// How old a connection may get before it is not used again.
    pub conn_age_max: Duration,
    /// How long an endpoint that refused a connection is passed over.
    pub connect_cooldown: Duration,
}

/// The `coalesce` table of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coalesce {
    /// Concurrent equal reads reach the backend once.
    pub enabled: bool,
    /// The operator vouches that the backend answers all legacy sessions of a credential alike.
    pub legacy_shared: bool,
}

/// The `cache` table of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    /// Answers with a `ttlMs` are kept.
    pub enabled: bool,
    /// The longest that any answer is kept.
    pub ttl_max: Duration,
    /// The widest scope an answer may have.
    pub scope_max: CacheScopeMax,
    /// How long legacy reads are kept; zero: not at all.
    pub legacy_ttl: Duration,
    /// How long beyond its time an answer may stand in for a failure.
    pub stale_if_error: Duration,
    /// How long beyond its time an answer is served while a new one is fetched.
    pub stale_while_revalidate: Duration,
    /// Ringway's own subscription to change notifications.
    pub subscribe: Subscribe,
}

impl Backend {
    /// Whether any answer of this backend may be shared, now or later.
    #[must_use]
    pub fn shares(&self) -> bool {
        self.coalesce.enabled || self.cache.enabled
    }
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

impl Protocol {
    /// The era it names, if it names one.
    #[must_use]
    pub fn is_modern(self) -> Option<bool> {
        match self {
            Self::Auto => None,
            Self::Modern => Some(true),
            Self::Legacy => Some(false),
        }
    }
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

/// `body`: what is looked at in the requests of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyMode {
    /// What the route's backend needs.
    #[default]
    Auto,
    /// Nothing: all is relayed unparsed.
    Stream,
    /// The headers; bodies only of requests that may be shared, and short ones of legacy requests.
    Headers,
    /// Every message, checked whole.
    Envelope,
}

impl Choice for BodyMode {
    const ALL: &'static [Self] = &[Self::Auto, Self::Stream, Self::Headers, Self::Envelope];

    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Stream => "stream",
            Self::Headers => "headers",
            Self::Envelope => "envelope",
        }
    }
}

/// `keep_alive_streams`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeepAliveStreams {
    /// GET and `subscriptions/listen`: streams that are silent by nature.
    #[default]
    Listen,
    /// Every event stream.
    All,
}

impl Choice for KeepAliveStreams {
    const ALL: &'static [Self] = &[Self::Listen, Self::All];

    fn name(self) -> &'static str {
        match self {
            Self::Listen => "listen",
            Self::All => "all",
        }
    }
}

/// `cache.scope_max`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheScopeMax {
    /// As the backend says.
    #[default]
    Public,
    /// Nothing is shared between credentials.
    Private,
}

impl Choice for CacheScopeMax {
    const ALL: &'static [Self] = &[Self::Public, Self::Private];

    fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
        }
    }
}

/// `cache.subscribe`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Subscribe {
    /// No subscription.
    #[default]
    Off,
    /// `subscriptions/listen`, of 2026-07-28.
    Listen,
    /// The GET stream of a session of Ringway's own, of the older revisions.
    GetStream,
}

impl Choice for Subscribe {
    const ALL: &'static [Self] = &[Self::Off, Self::Listen, Self::GetStream];

    fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Listen => "listen",
            Self::GetStream => "get_stream",
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
    /// What is looked at in requests.
    pub body: BodyMode,
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
