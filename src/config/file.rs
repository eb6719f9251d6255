//! Configuration as written: from the text of all files to [`Config`], or to every fault in them.
//!
//! Top-down: the main file, what it includes, table by table, then what must hold between tables.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use toml::de::DeTable;

use super::address::{self, CAPTURE};
use super::error::{ConfigError, Fault};
use super::include;
use super::model::{
    AccessLog, Admin, Backend, BodyMode, Cache, Coalesce, Config, IoDriver, Limits, Log, Route, Server, SessionBinding,
    Sessions,
};
use super::place::{Context, Place, Source};
use super::reference::{ADMIN, BACKEND, BACKEND_DEFAULTS, CACHE, COALESCE, LIMITS, LOG, ROUTE, SERVER, SESSIONS};
use super::text::{Checked, Problem, Variables, nearest, quote};
use super::tree::{Node, Table, Text};

/// Wins over `server.io_driver`, so that one test suite runs on every driver.
const IO_DRIVER_VARIABLE: &str = "RINGWAY_IO_DRIVER";

const TABLES: [&str; 8] = ["server", "admin", "log", "limits", "sessions", "defaults", "backends", "routes"];

/// What an included file may hold: a team's own backends and routes.
const INCLUDED_TABLES: [&str; 2] = ["backends", "routes"];

/// Tables within a backend's.
const BACKEND_TABLES: [&str; 2] = ["cache", "coalesce"];

/// If the file names no route.
const DEFAULT_PATH: &str = "/mcp/{backend}";

/// A configuration and what to tell of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// As used.
    pub config: Config,
    /// The main file, then the included ones.
    pub files: Vec<PathBuf>,
    /// What is allowed but may surprise.
    pub notes: Vec<String>,
}

/// Reads the main file and all it includes.
pub(super) fn read(main: &Source, variables: Variables<'_>) -> Result<Loaded, ConfigError> {
    let context = Context::new(variables);
    let loaded = context.parse(main).map(|tree| read_tree(&context, main, &tree));
    let faults = context.faults.into_inner();
    match loaded {
        Some(loaded) if faults.is_empty() => Ok(loaded),
        _ => Err(in_file_order(faults, &main.name())),
    }
}

/// The main file first; included ones are sorted by name.
fn in_file_order(mut faults: Vec<Fault>, main: &str) -> ConfigError {
    faults.sort_by(|a, b| (a.file != main, &a.file, a.line).cmp(&(b.file != main, &b.file, b.line)));
    ConfigError { faults }
}

fn read_tree(context: &Context<'_>, main: &Source, tree: &DeTable<'_>) -> Loaded {
    let mut notes = Vec::new();
    let root = Table::root(context, main, tree);
    let sources = include::read(&root, &mut notes);
    let trees: Vec<_> = sources.iter().map(|source| (source, context.parse(source))).collect();
    // What seems missing may stand in a file that could not be read.
    let all_read = context.faults.borrow().is_empty();

    root.refuse_unknown(&TABLES);
    let server = server(context, &root.table("server", &[SERVER], &[]));
    let admin = admin(&root.table("admin", &[ADMIN], &[]), &server.listen);
    let log = log(&root.table("log", &[LOG], &[]));
    let limits = limits(&root.table("limits", &[LIMITS], &[]));
    let sessions = sessions(&root.table("sessions", &[SESSIONS], &[]));
    let defaults = root.table("defaults", &[], &["backend"]).table("backend", &[BACKEND_DEFAULTS], &BACKEND_TABLES);
    // Read by itself too: a fault in the defaults is one even if no backend inherits them.
    inherited(&defaults);

    let mut fleet = Fleet::default();
    fleet.read(&root, &defaults);
    for (source, tree) in &trees {
        if let Some(tree) = tree {
            let file = Table::root(context, source, tree);
            refuse_main_keys(&file, &main.name());
            fleet.read(&file, &defaults);
        }
    }
    if all_read {
        fleet.refuse_missing(&root);
    }
    fleet.refuse_overlaps();
    fleet.note_unused(&mut notes);

    let files = std::iter::once(main).chain(&sources).map(|source| source.path.clone()).collect();
    Loaded { config: fleet.into_config(server, admin, log, limits, sessions), files, notes }
}

fn refuse_main_keys(file: &Table<'_>, main: &str) {
    for name in file.names().filter(|name| !INCLUDED_TABLES.contains(name)) {
        let remedy = format!("move it into {main}: an included file holds [backends.*] and [[routes]] only");
        file.place_of(name).fault("is not allowed in an included file", remedy);
    }
}

fn server(context: &Context<'_>, table: &Table<'_>) -> Server {
    let written = table.choice("io_driver");
    Server {
        listen: table.list("listen", address::socket_address),
        workers: table.count("workers"),
        io_driver: io_driver_of_environment(context, table).unwrap_or(written),
        drain_timeout: table.duration("drain_timeout_ms"),
        handover_timeout: table.duration("handover_timeout_ms"),
        public_url: table.text("public_url").and_then(|text| text.parse(address::public_url)),
        trusted_hops: table.count("trusted_hops"),
        allowed_origins: table.list("allowed_origins", address::origin),
        allowed_hosts: table.list("allowed_hosts", address::allowed_host),
        resolve_interval: table.duration("resolve_interval_ms"),
        traceparent: table.choice("traceparent"),
    }
}

fn io_driver_of_environment(context: &Context<'_>, table: &Table<'_>) -> Option<IoDriver> {
    let word = (context.variables)(IO_DRIVER_VARIABLE).filter(|word| !word.is_empty())?;
    let fault = |Problem { problem, remedy }| Fault {
        file: "environment".to_owned(),
        line: 0,
        key: IO_DRIVER_VARIABLE.to_owned(),
        problem: format!("{} {problem}", quote(&word)),
        remedy,
    };
    table.word("io_driver", &word).map_err(|problem| context.faults.borrow_mut().push(fault(problem))).ok()
}

fn admin(table: &Table<'_>, data: &[SocketAddr]) -> Admin {
    let written = table.text("listen").filter(|text| text.value != "off");
    let listen = written.and_then(|text| text.parse(|value| admin_address(value, data)));
    if listen.is_some_and(|address| !address.ip().is_loopback()) && table.node("token").is_none() {
        table.place_of("token").fault(
            "is missing, while other machines can reach admin.listen",
            "set token = \"file:/path\" to at least 16 bytes, or listen on 127.0.0.1 or [::1]",
        );
    }
    Admin { listen, token: table.text("token").and_then(|text| text.secret()) }
}

fn admin_address(text: &str, data: &[SocketAddr]) -> Checked<SocketAddr> {
    let address = address::socket_address(text)?;
    if address.port() != 0 && data.contains(&address) {
        return Err(Problem::new("is an address of server.listen too", "give the admin plane a port of its own"));
    }
    Ok(address)
}

fn log(table: &Table<'_>) -> Log {
    Log { access: table.text("access").and_then(|text| text.parse(access_log)).unwrap_or_default() }
}

fn access_log(text: &str) -> Checked<AccessLog> {
    match text {
        "off" => Ok(AccessLog::Off),
        "stderr" => Ok(AccessLog::Stderr),
        path if path.starts_with('/') => Ok(AccessLog::File(path.into())),
        _ => Err(Problem::new("is no place for a log", "use off, stderr or an absolute path")),
    }
}

fn limits(table: &Table<'_>) -> Limits {
    let limits = Limits {
        head_bytes_max: table.count("head_bytes_max"),
        target_bytes_max: table.count("target_bytes_max"),
        headers_max: table.count("headers_max"),
        body_bytes_max: table.number("body_bytes_max"),
        envelope_bytes_max: table.count("envelope_bytes_max"),
        legacy_look_bytes_max: table.count("legacy_look_bytes_max"),
        shared_reply_bytes_max: table.count("shared_reply_bytes_max"),
        cache_bytes_max: table.number("cache_bytes_max"),
        connections_per_worker_max: table.count("connections_per_worker_max"),
        connections_per_ip_max: table.count("connections_per_ip_max"),
        exchanges_per_worker_max: table.count("exchanges_per_worker_max"),
        memory_soft_bytes: table.number("memory_soft_bytes"),
        memory_hard_bytes: table.number("memory_hard_bytes"),
        head_timeout: table.duration("head_timeout_ms"),
        body_timeout: table.duration("body_timeout_ms"),
        idle_timeout: table.duration("idle_timeout_ms"),
        write_timeout: table.duration("write_timeout_ms"),
    };
    if limits.memory_soft_bytes > limits.memory_hard_bytes {
        table.place_of("memory_soft_bytes").fault(
            format!("is {}, above limits.memory_hard_bytes, {}", limits.memory_soft_bytes, limits.memory_hard_bytes),
            "lower the one or raise the other",
        );
    }
    if limits.target_bytes_max >= limits.head_bytes_max {
        // The target is a part of the head.
        table.place_of("target_bytes_max").fault(
            format!("is {}, not below limits.head_bytes_max, {}", limits.target_bytes_max, limits.head_bytes_max),
            "lower the one or raise the other",
        );
    }
    limits
}

fn sessions(table: &Table<'_>) -> Sessions {
    Sessions {
        keys: table.texts("keys").iter().filter_map(Text::secret).collect(),
        max_age: table.duration("max_age_ms"),
    }
}

/// What a backend takes from `[defaults.backend]`: all but its endpoints.
fn inherited(table: &Table<'_>) -> Backend {
    Backend {
        endpoints: Vec::new(),
        protocol: table.choice("protocol"),
        balance: table.choice("balance"),
        connect_timeout: table.duration("connect_timeout_ms"),
        first_byte_timeout: table.duration("first_byte_timeout_ms"),
        stream_idle_timeout: table.duration("stream_idle_timeout_ms"),
        request_timeout: table.duration("request_timeout_ms"),
        stream_timeout: table.duration("stream_timeout_ms"),
        keep_alive: table.duration("keep_alive_ms"),
        keep_alive_streams: table.choice("keep_alive_streams"),
        session_generation: table.number("session_generation"),
        coalesce: coalesce(&table.table("coalesce", &[COALESCE], &[])),
        cache: cache(&table.table("cache", &[CACHE], &[])),
        idle_conns_max: table.count("idle_conns_max"),
        idle_timeout: table.duration("idle_timeout_ms"),
        conn_age_max: table.duration("conn_age_max_ms"),
        connect_cooldown: table.duration("connect_cooldown_ms"),
    }
}

fn coalesce(table: &Table<'_>) -> Coalesce {
    Coalesce { enabled: table.flag("enabled"), legacy_shared: table.flag("legacy_shared") }
}

fn cache(table: &Table<'_>) -> Cache {
    Cache {
        enabled: table.flag("enabled"),
        ttl_max: table.duration("ttl_max_ms"),
        scope_max: table.choice("scope_max"),
        legacy_ttl: table.duration("legacy_ttl_ms"),
        stale_if_error: table.duration("stale_if_error_ms"),
        stale_while_revalidate: table.duration("stale_while_revalidate_ms"),
        subscribe: table.choice("subscribe"),
    }
}

fn backend(table: &Table<'_>) -> Backend {
    Backend { endpoints: table.list("endpoints", address::endpoint), ..inherited(table) }
}

fn route(table: &Table<'_>) -> Route {
    Route {
        host: table.text("host").and_then(|text| text.parse(address::route_host)),
        path: table.text("path").and_then(|text| text.parse(address::path_pattern)).unwrap_or_default(),
        backend: table.text("backend").map(|text| text.value),
        methods: table.list("methods", address::method),
        session_binding: table.choice("session_binding"),
        body: table.choice("body"),
    }
}

/// Backends and routes of all files, with their places for what must hold between them.
#[derive(Default)]
struct Fleet<'a> {
    backends: BTreeMap<String, (Place<'a>, Backend)>,
    routes: Vec<(Table<'a>, Route)>,
}

impl<'a> Fleet<'a> {
    fn read(&mut self, file: &Table<'a>, defaults: &Table<'a>) {
        for (name, node) in file.node("backends").iter().flat_map(Node::named) {
            self.read_backend(name, &node, defaults);
        }
        let routes = file.node("routes").and_then(|node| node.items("a list of tables ([[routes]])"));
        for node in routes.into_iter().flatten() {
            if let Some(table) = node.table(&[ROUTE], &[]) {
                let route = route(&table);
                refuse_contradiction(&table, &route);
                self.routes.push((table, route));
            }
        }
    }

    fn read_backend(&mut self, name: &str, node: &Node<'a>, defaults: &Table<'a>) {
        node.place.take(address::backend_name(name));
        let Some(table) = node.table(&[BACKEND, BACKEND_DEFAULTS], &BACKEND_TABLES) else {
            return;
        };
        let backend = backend(&table.inherit(defaults));
        match self.backends.entry(name.to_owned()) {
            Entry::Vacant(entry) => drop(entry.insert((node.place.clone(), backend))),
            Entry::Occupied(entry) => {
                let first = entry.get().0.position();
                node.place.fault(format!("is defined again, first in {first}"), "rename or remove one of the two");
            }
        }
    }

    /// No backend at all, or one that a route names.
    fn refuse_missing(&self, root: &Table<'_>) {
        if self.backends.is_empty() {
            let problem = if root.is_empty() { "the file is empty" } else { "no backend is configured" };
            root.place_of("backends").fault(problem, "add [backends.NAME] with endpoints = [\"http://host:port/mcp\"]");
        }
        for (table, route) in &self.routes {
            let Some(name) = route.backend.as_deref().filter(|name| !self.backends.contains_key(*name)) else {
                continue;
            };
            let near = nearest(name, self.backends.keys().map(String::as_str));
            let remedy = near.map_or("define it, or mend the name".to_owned(), |near| format!("did you mean {near}?"));
            table.place_of("backend").fault("names no backend of this configuration", remedy);
        }
    }

    fn refuse_overlaps(&self) {
        let mut earlier: BTreeMap<_, Vec<&(Table<'_>, Route)>> = BTreeMap::new();
        for entry in &self.routes {
            let (table, route) = entry;
            let same_place = earlier.entry((&route.host, &route.path)).or_default();
            if let Some((first, _)) = same_place.iter().find(|(_, other)| methods_overlap(route, other)) {
                let problem = format!("meets the same requests as {} in {}", first.place.key, first.place.position());
                table.place.fault(problem, "change host or path, or name different methods on both");
            }
            same_place.push(entry);
        }
    }

    fn note_unused(&self, notes: &mut Vec<String>) {
        // Without routes, or with a capture, every backend can be reached.
        if self.routes.is_empty() || self.routes.iter().any(|(_, route)| route.backend.is_none()) {
            return;
        }
        let routed: BTreeSet<_> = self.routes.iter().filter_map(|(_, route)| route.backend.as_deref()).collect();
        for (name, (place, _)) in self.backends.iter().filter(|(name, _)| !routed.contains(name.as_str())) {
            notes.push(format!("{}: no route leads to backend {name}", place.position()));
        }
    }

    fn into_config(self, server: Server, admin: Admin, log: Log, limits: Limits, sessions: Sessions) -> Config {
        let backends = self.backends.into_iter().map(|(name, (_, backend))| (name, backend)).collect();
        let mut routes: Vec<Route> = self.routes.into_iter().map(|(_, route)| route).collect();
        if routes.is_empty() {
            routes.push(Route {
                host: None,
                path: DEFAULT_PATH.to_owned(),
                backend: None,
                methods: Vec::new(),
                session_binding: SessionBinding::default(),
                body: BodyMode::default(),
            });
        }
        Config { server, admin, log, limits, sessions, backends, routes }
    }
}

/// The backend comes from the path or from the file: from one of them.
fn refuse_contradiction(table: &Table<'_>, route: &Route) {
    let place = table.place_of("backend");
    match (route.path.contains(CAPTURE), route.backend.is_some()) {
        (true, true) => place.fault("stands beside a path that captures {backend}", "remove one of the two"),
        // An empty path is a faulty one.
        (false, false) if !route.path.is_empty() && table.node("backend").is_none() => {
            place.fault("is missing", format!("add backend = \"name\", or a segment {CAPTURE} to the path"));
        }
        _ => {}
    }
}

fn methods_overlap(route: &Route, other: &Route) -> bool {
    // No methods means any.
    route.methods.is_empty() || other.methods.is_empty() || route.methods.iter().any(|m| other.methods.contains(m))
}
