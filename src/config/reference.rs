//! Every key of the file with its default, range and meaning.
//!
//! The loader takes defaults and ranges from this table and refuses what is not in it; a test holds
//! the README's reference against it. So a key is documented or it does not exist.

use super::model::{
    Balance, BodyMode, CacheScopeMax, Choice, IoDriver, KeepAliveStreams, Protocol, SessionBinding, Subscribe,
    TraceHeaders,
};
use crate::limits;

/// One key.
#[derive(Debug)]
pub struct KeyDoc {
    /// The table it belongs to, one of the names below; empty: the top of the main file.
    pub table: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// What may be written.
    pub kind: Kind,
    /// One line.
    pub meaning: &'static str,
}

/// What may be written for a key.
#[derive(Debug)]
pub enum Kind {
    /// An integer from `min` to `max`.
    Number {
        /// If the key is left out.
        default: u64,
        /// Lowest allowed.
        min: u64,
        /// Highest allowed.
        max: u64,
        /// `ms`, `bytes`, or empty for a count.
        unit: &'static str,
    },
    /// `true` or `false`.
    Flag {
        /// If the key is left out.
        default: bool,
    },
    /// One word of a closed set, of which the first is the default.
    Choice {
        /// The set.
        names: fn() -> Vec<&'static str>,
        /// Words of the documentation that a later version will know.
        later: &'static [&'static str],
    },
    /// A string.
    Text {
        /// An example of it.
        example: &'static str,
        /// If the key is left out.
        absent: Absent,
    },
    /// A list of strings, none twice, not empty.
    List {
        /// An example of one of them.
        example: &'static str,
        /// If the key is left out.
        absent: Absent,
    },
}

/// What leaving a key out means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// A fault.
    Required,
    /// Nothing.
    None,
    /// As if this had been written; in a list, as its one element.
    Default(&'static str),
}

impl KeyDoc {
    /// Dotted: `limits.head_bytes_max`.
    #[must_use]
    pub fn key(&self) -> String {
        join(self.table, self.name)
    }

    /// The default as one would write it.
    #[must_use]
    pub fn default_text(&self) -> String {
        let quoted = |absent, open, close| match absent {
            Absent::Required => "required".to_owned(),
            Absent::None => "none".to_owned(),
            Absent::Default(text) => format!("{open}{text}{close}"),
        };
        match self.kind {
            Kind::Number { default, .. } => default.to_string(),
            Kind::Flag { default } => default.to_string(),
            Kind::Choice { names, .. } => format!("\"{}\"", names()[0]),
            Kind::Text { absent, .. } => quoted(absent, "\"", "\""),
            Kind::List { absent, .. } => quoted(absent, "[\"", "\"]"),
        }
    }

    /// What is allowed, with its unit.
    #[must_use]
    pub fn range_text(&self) -> String {
        match self.kind {
            Kind::Number { min, max, unit, .. } => format!("{min} to {max} {unit}").trim_end().to_owned(),
            Kind::Flag { .. } => "true, false".to_owned(),
            Kind::Choice { names, .. } => names().join(", "),
            Kind::Text { example, .. } => format!("e.g. \"{example}\""),
            Kind::List { example, .. } => format!("list, e.g. \"{example}\""),
        }
    }

    /// The key's row of the README's reference.
    #[must_use]
    pub fn row(&self) -> String {
        format!("| `{}` | `{}` | {} | {} |", self.key(), self.default_text(), self.range_text(), self.meaning)
    }
}

/// `table.name`, or `name` at the top.
pub(super) fn join(table: &str, name: &str) -> String {
    if table.is_empty() { name.to_owned() } else { format!("{table}.{name}") }
}

/// Every key there is, in the README's order.
#[must_use]
pub fn reference() -> &'static [KeyDoc] {
    REFERENCE
}

pub(super) const TOP: &str = "";
pub(super) const SERVER: &str = "server";
pub(super) const ADMIN: &str = "admin";
pub(super) const LOG: &str = "log";
pub(super) const LIMITS: &str = "limits";
pub(super) const SESSIONS: &str = "sessions";
/// Allowed in each `[backends.NAME]` too, where it wins over the default.
pub(super) const BACKEND_DEFAULTS: &str = "defaults.backend";
pub(super) const CACHE: &str = "defaults.backend.cache";
pub(super) const COALESCE: &str = "defaults.backend.coalesce";
pub(super) const BACKEND: &str = "backends.NAME";
pub(super) const ROUTE: &str = "routes[]";

const SECOND_MS: u64 = 1_000;
const HOUR_MS: u64 = 3_600 * SECOND_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
/// Deadlines are kept in ticks of this length: a shorter one could not be honoured.
const TICK_MS: u64 = 100;
/// More connections than this have no descriptors and no memory on any machine we know of.
const CONNECTIONS_CEILING: u64 = 1 << 20;

const REFERENCE: &[KeyDoc] = &[
    list(
        TOP,
        "include",
        "backends.d/*.toml",
        Absent::None,
        "more files with `[backends.*]` and `[[routes]]`; globs, relative to this file",
    ),
    list(
        SERVER,
        "listen",
        "0.0.0.0:8080",
        Absent::Default("127.0.0.1:8080"),
        "addresses for clients; port 0 takes a free one",
    ),
    count(SERVER, "workers", 0, 0, 1024, "worker threads; 0: one per core this process may use"),
    choice::<IoDriver>(SERVER, "io_driver", &[], "how to wait for I/O; `RINGWAY_IO_DRIVER` in the environment wins"),
    millis(SERVER, "drain_timeout_ms", 30 * SECOND_MS, 0, HOUR_MS, "how long a drain waits for exchanges in flight"),
    millis(
        SERVER,
        "handover_timeout_ms",
        30 * SECOND_MS,
        100,
        HOUR_MS,
        "how long a new process may take until it is ready to take over (`USR2`)",
    ),
    text(SERVER, "public_url", "https://mcp.example.com", Absent::None, "what clients call this proxy"),
    count(
        SERVER,
        "trusted_hops",
        0,
        0,
        16,
        "proxies in front that are yours: so many `X-Forwarded-For` entries are kept",
    ),
    list(
        SERVER,
        "allowed_origins",
        "https://app.example.com",
        Absent::None,
        "origins of web pages that may send requests, beside our own; `*`: any. Others are answered 403",
    ),
    list(
        SERVER,
        "allowed_hosts",
        "mcp.example.com",
        Absent::None,
        "names we answer to, beside `localhost`, addresses, the routes' hosts and that of `public_url`; `*`: any. Asked of listeners on loopback, and if set of all",
    ),
    millis(
        SERVER,
        "resolve_interval_ms",
        30 * SECOND_MS,
        SECOND_MS,
        DAY_MS,
        "how often endpoint host names are resolved",
    ),
    choice::<TraceHeaders>(
        SERVER,
        "traceparent",
        &[],
        "`create`: backends are told a span of Ringway's own, in a new trace if the request has none",
    ),
    text(ADMIN, "listen", "127.0.0.1:9090", Absent::Default("127.0.0.1:9090"), "address for operators, or `off`"),
    text(
        ADMIN,
        "token",
        "file:/etc/ringway/admin-token",
        Absent::None,
        "bearer token of at least 16 bytes; required unless `admin.listen` is loopback",
    ),
    text(
        LOG,
        "access",
        "/var/log/ringway/access.log",
        Absent::Default("off"),
        "one JSON line for each request: `off`, `stderr`, or a file, which is opened anew at each reload",
    ),
    bytes(
        LIMITS,
        "head_bytes_max",
        32 * 1024,
        1024,
        limits::HEAD_BYTES_CEILING as u64,
        "head of a request, or of a backend's answer",
    ),
    bytes(LIMITS, "target_bytes_max", 8 * 1024, 64, limits::HEAD_BYTES_CEILING as u64, "request target"),
    count(LIMITS, "headers_max", 100, 8, limits::HEADERS_CEILING as u64, "header fields in one head"),
    bytes(LIMITS, "body_bytes_max", 10 << 20, 1024, 1 << 40, "request body"),
    bytes(
        LIMITS,
        "envelope_bytes_max",
        1 << 20,
        1024,
        64 << 20,
        "request body that is read whole to be looked at; longer ones stream, or on a route with `body = \"envelope\"` are refused",
    ),
    bytes(
        LIMITS,
        "legacy_look_bytes_max",
        64 * 1024,
        0,
        64 << 20,
        "body of an older revision's request that is looked at for its method; longer ones stream; 0: none is",
    ),
    bytes(
        LIMITS,
        "shared_reply_bytes_max",
        1 << 20,
        1024,
        64 << 20,
        "answer that is collected to be shared or cached; longer ones stream to each client by itself",
    ),
    bytes(LIMITS, "cache_bytes_max", 64 << 20, 0, 1 << 40, "cached answers of one worker; 0: nothing is cached"),
    count(LIMITS, "connections_per_worker_max", 16_384, 1, CONNECTIONS_CEILING, "client connections of one worker"),
    count(
        LIMITS,
        "connections_per_ip_max",
        8_192,
        1,
        CONNECTIONS_CEILING,
        "client connections from one address to one worker",
    ),
    count(LIMITS, "exchanges_per_worker_max", 8_192, 1, CONNECTIONS_CEILING, "exchanges in flight in one worker"),
    bytes(
        LIMITS,
        "memory_soft_bytes",
        256 << 20,
        1 << 20,
        1 << 40,
        "buffers, queued and cached bytes of one worker from which on its cache shrinks and connections end with their answer",
    ),
    bytes(
        LIMITS,
        "memory_hard_bytes",
        512 << 20,
        1 << 20,
        1 << 40,
        "the same from which on new requests and connections are refused",
    ),
    millis(
        LIMITS,
        "head_timeout_ms",
        10 * SECOND_MS,
        TICK_MS,
        DAY_MS,
        "from the first byte of a request head to its last",
    ),
    millis(LIMITS, "body_timeout_ms", 30 * SECOND_MS, TICK_MS, DAY_MS, "between two reads of a request body"),
    millis(LIMITS, "idle_timeout_ms", 75 * SECOND_MS, TICK_MS, DAY_MS, "a client connection between two requests"),
    millis(
        LIMITS,
        "write_timeout_ms",
        30 * SECOND_MS,
        TICK_MS,
        DAY_MS,
        "a client that takes none of the bytes held for it",
    ),
    list(
        SESSIONS,
        "keys",
        "file:/etc/ringway/session-key",
        Absent::None,
        "secrets that seal session ids: the first seals, all open; give replicas the same; none: a random key per process",
    ),
    millis(SESSIONS, "max_age_ms", 0, 0, 30 * DAY_MS, "older sessions are refused; 0: no bound"),
    choice::<Protocol>(BACKEND_DEFAULTS, "protocol", &[], "MCP era of the backend; `auto`: seen in its answers"),
    choice::<Balance>(BACKEND_DEFAULTS, "balance", &["hash"], "how an endpoint is chosen"),
    millis(BACKEND_DEFAULTS, "connect_timeout_ms", SECOND_MS, TICK_MS, HOUR_MS, "TCP connect"),
    millis(
        BACKEND_DEFAULTS,
        "first_byte_timeout_ms",
        30 * SECOND_MS,
        TICK_MS,
        DAY_MS,
        "from the request's last byte to the first of its answer",
    ),
    millis(BACKEND_DEFAULTS, "stream_idle_timeout_ms", 300 * SECOND_MS, TICK_MS, DAY_MS, "silence inside an answer"),
    millis(
        BACKEND_DEFAULTS,
        "request_timeout_ms",
        600 * SECOND_MS,
        0,
        DAY_MS,
        "the whole exchange, unless its answer is an event stream; 0: no bound",
    ),
    millis(
        BACKEND_DEFAULTS,
        "stream_timeout_ms",
        4 * HOUR_MS,
        0,
        7 * DAY_MS,
        "an event stream that answers a request, whatever progress it tells; not GET, not `subscriptions/listen`; 0: no bound",
    ),
    millis(
        BACKEND_DEFAULTS,
        "keep_alive_ms",
        15 * SECOND_MS,
        0,
        HOUR_MS,
        "silence on an event stream after which the client is sent a comment; 0: never",
    ),
    choice::<KeepAliveStreams>(
        BACKEND_DEFAULTS,
        "keep_alive_streams",
        &[],
        "which streams get comments: GET and `subscriptions/listen`, or all",
    ),
    count(
        BACKEND_DEFAULTS,
        "session_generation",
        0,
        0,
        u32::MAX as u64,
        "a new number ends all sessions with this backend: they are answered 404",
    ),
    count(BACKEND_DEFAULTS, "idle_conns_max", 1024, 0, 65_536, "idle connections kept per endpoint and worker"),
    millis(BACKEND_DEFAULTS, "idle_timeout_ms", 60 * SECOND_MS, TICK_MS, DAY_MS, "how long an idle connection is kept"),
    millis(
        BACKEND_DEFAULTS,
        "conn_age_max_ms",
        HOUR_MS,
        SECOND_MS,
        7 * DAY_MS,
        "how old a connection may get before it is not used again",
    ),
    millis(
        BACKEND_DEFAULTS,
        "connect_cooldown_ms",
        SECOND_MS,
        0,
        HOUR_MS,
        "how long an endpoint that refused a connection is passed over",
    ),
    flag(COALESCE, "enabled", true, "concurrent equal reads reach the backend once"),
    flag(
        COALESCE,
        "legacy_shared",
        false,
        "sessions of one credential share their reads too: the backend answers all sessions alike",
    ),
    flag(CACHE, "enabled", true, "answers with a `ttlMs` are kept for so long"),
    millis(CACHE, "ttl_max_ms", DAY_MS, 0, 7 * DAY_MS, "no answer is kept for longer, whatever it says"),
    choice::<CacheScopeMax>(
        CACHE,
        "scope_max",
        &[],
        "`private`: nothing is shared between credentials, whatever the backend says",
    ),
    millis(
        CACHE,
        "legacy_ttl_ms",
        0,
        0,
        7 * DAY_MS,
        "how long reads of the older revisions are kept, for their session or credential; 0: not at all",
    ),
    millis(
        CACHE,
        "stale_if_error_ms",
        0,
        0,
        7 * DAY_MS,
        "how long beyond its time an answer is served if the backend fails",
    ),
    millis(
        CACHE,
        "stale_while_revalidate_ms",
        0,
        0,
        7 * DAY_MS,
        "how long beyond its time an answer is served while a new one is fetched",
    ),
    choice::<Subscribe>(
        CACHE,
        "subscribe",
        &[],
        "a subscription of Ringway's own to the backend's change notifications, one per process, without a credential",
    ),
    list(BACKEND, "endpoints", "http://10.0.0.7:9001/mcp", Absent::Required, "equal servers behind this name"),
    text(ROUTE, "host", "mcp.example.com", Absent::None, "only requests for this host, without port"),
    text(ROUTE, "path", "/mcp/*", Absent::Required, "`/exact`, `/prefix/*`, or with one `{backend}` segment"),
    text(ROUTE, "backend", "weather", Absent::None, "where to send; left out if the path captures `{backend}`"),
    list(ROUTE, "methods", "POST", Absent::None, "only these request methods"),
    choice::<SessionBinding>(
        ROUTE,
        "session_binding",
        &[],
        "what a session is bound to; `credential`: the `Authorization` that opened it",
    ),
    choice::<BodyMode>(
        ROUTE,
        "body",
        &[],
        "what is looked at in a request: see [Bodies](#bodies); `auto`: `headers` where the backend coalesces or caches, `stream` elsewhere and for `/prefix/*`",
    ),
];

const fn count(
    table: &'static str,
    name: &'static str,
    default: u64,
    min: u64,
    max: u64,
    meaning: &'static str,
) -> KeyDoc {
    KeyDoc { table, name, kind: Kind::Number { default, min, max, unit: "" }, meaning }
}

const fn bytes(
    table: &'static str,
    name: &'static str,
    default: u64,
    min: u64,
    max: u64,
    meaning: &'static str,
) -> KeyDoc {
    KeyDoc { table, name, kind: Kind::Number { default, min, max, unit: "bytes" }, meaning }
}

const fn millis(
    table: &'static str,
    name: &'static str,
    default: u64,
    min: u64,
    max: u64,
    meaning: &'static str,
) -> KeyDoc {
    KeyDoc { table, name, kind: Kind::Number { default, min, max, unit: "ms" }, meaning }
}

const fn flag(table: &'static str, name: &'static str, default: bool, meaning: &'static str) -> KeyDoc {
    KeyDoc { table, name, kind: Kind::Flag { default }, meaning }
}

const fn choice<T: Choice>(
    table: &'static str,
    name: &'static str,
    later: &'static [&'static str],
    meaning: &'static str,
) -> KeyDoc {
    KeyDoc { table, name, kind: Kind::Choice { names: names::<T>, later }, meaning }
}

const fn text(
    table: &'static str,
    name: &'static str,
    example: &'static str,
    absent: Absent,
    meaning: &'static str,
) -> KeyDoc {
    KeyDoc { table, name, kind: Kind::Text { example, absent }, meaning }
}

const fn list(
    table: &'static str,
    name: &'static str,
    example: &'static str,
    absent: Absent,
    meaning: &'static str,
) -> KeyDoc {
    KeyDoc { table, name, kind: Kind::List { example, absent }, meaning }
}

fn names<T: Choice>() -> Vec<&'static str> {
    T::ALL.iter().map(|choice| choice.name()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_lie_in_their_range_and_units_are_in_the_names() {
        assert!(!reference().is_empty());
        for doc in reference() {
            if let Kind::Number { default, min, max, unit } = doc.kind {
                assert!(min <= default && default <= max, "{}", doc.key());
                assert_eq!(doc.name.ends_with("_ms"), unit == "ms", "{}", doc.key());
                assert_eq!(doc.name.contains("_bytes"), unit == "bytes", "{}", doc.key());
            }
        }
    }

    #[test]
    fn no_key_is_listed_twice() {
        let mut keys: Vec<String> = reference().iter().map(KeyDoc::key).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), reference().len());
    }

    #[test]
    fn the_tick_is_the_clocks() {
        assert_eq!(u128::from(TICK_MS), crate::clock::TICK.as_millis());
    }

    #[test]
    fn a_row_reads_well() {
        let row = |key: &str| reference().iter().find(|doc| doc.key() == key).expect("documented").row();
        assert_eq!(
            row("limits.body_timeout_ms"),
            "| `limits.body_timeout_ms` | `30000` | 100 to 86400000 ms | between two reads of a request body |"
        );
        assert!(row("server.listen").contains(r#"| `["127.0.0.1:8080"]` |"#));
        assert!(row("routes[].path").contains("| `required` |"));
    }
}
