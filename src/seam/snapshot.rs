//! What the workers are to do, as one immutable value with a number.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use arc_swap::ArcSwap;

use crate::config::model::{AccessLog, Config, EndpointUrl, Limits, Secret, TraceHeaders};
use crate::mcp::SessionKeys;
use crate::policy::Gate;
use crate::route::RouteTable;
use crate::upstream::ClusterTable;

/// The published snapshot; control stores, workers load.
pub type SnapshotCell = ArcSwap<Snapshot>;

/// A metric label's value by number; the number keeps its meaning for the life of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label(pub u32);

impl Label {
    /// The label `none`: no route or backend was found.
    pub const NONE: Self = Self(0);
}

/// Label values in order of their numbers. Grows with the names operators use; never shrinks.
#[derive(Clone, Debug)]
pub struct Names {
    names: Vec<Arc<str>>,
    numbers: AHashMap<Arc<str>, Label>,
}

impl Default for Names {
    fn default() -> Self {
        let mut names = Self { names: Vec::new(), numbers: AHashMap::new() };
        names.intern("none");
        names
    }
}

impl Names {
    /// The number of a name, a new one if it was never seen.
    pub fn intern(&mut self, name: &str) -> Label {
        if let Some(label) = self.numbers.get(name) {
            return *label;
        }
        let label = Label(u32::try_from(self.names.len()).expect("fewer than 2^32 names fit in memory"));
        let name: Arc<str> = Arc::from(name);
        self.names.push(Arc::clone(&name));
        self.numbers.insert(name, label);
        label
    }

    /// The name of a number handed out by [`Names::intern`].
    #[must_use]
    pub fn name(&self, label: Label) -> &str {
        self.names.get(label.0 as usize).map_or("none", |name| name)
    }
}

/// Routing configuration, compiled. A request keeps the snapshot it began with.
#[derive(Debug)]
pub struct Snapshot {
    /// 1 for the first, one more with each reload or change of addresses.
    pub generation: u64,
    /// Host and path to a route.
    pub routes: RouteTable,
    /// Backends with their resolved endpoints.
    pub clusters: ClusterTable,
    /// Ceilings and deadlines.
    pub limits: Limits,
    /// See [`crate::config::model::Server::trusted_hops`].
    pub trusted_hops: usize,
    /// See [`crate::config::model::Server::traceparent`].
    pub trace_headers: TraceHeaders,
    /// Whether requests are logged.
    pub access_log: bool,
    /// Whom we let in, and who we are.
    pub gate: Gate,
    /// Label values.
    pub names: Names,
    /// What seals session ids.
    pub sessions: SessionKeys,
    /// See [`crate::config::model::Sessions::max_age`].
    pub session_age_max: Duration,
}

/// The configured keys, or a random one that lasts as long as the process: a reload must not end the
/// sessions it sealed.
fn session_keys(config: &Config, previous: Option<&Snapshot>) -> SessionKeys {
    let secrets = &config.sessions.keys;
    match previous {
        _ if !secrets.is_empty() => SessionKeys::new(secrets.iter().map(|secret: &Secret| secret.expose().as_bytes())),
        Some(previous) if previous.sessions.are_random() => previous.sessions.clone(),
        _ => SessionKeys::random(),
    }
}

/// Why a configuration cannot be compiled; names the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildError {
    /// Dotted key, for instance `routes[2].backend`.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Snapshot {
    /// Compiles a configuration beside the one in force.
    ///
    /// `addresses` holds what each distinct endpoint host resolved to (literal addresses included);
    /// an absent or empty entry leaves that endpoint without addresses. Endpoints that `previous`
    /// has under the same backend, URL and address keep their identity, and so their pools.
    ///
    /// # Errors
    /// Every fault found, not the first only.
    pub fn build(
        config: &Config,
        addresses: &BTreeMap<EndpointUrl, Vec<SocketAddr>>,
        previous: Option<&Self>,
    ) -> Result<Self, Vec<BuildError>> {
        let mut names = previous.map(|p| p.names.clone()).unwrap_or_default();
        let clusters = ClusterTable::build(config, addresses, previous.map(|p| &p.clusters), &mut names);
        let routes = RouteTable::compile(config, &clusters, &mut names)?;
        Ok(Self {
            generation: previous.map_or(1, |p| p.generation + 1),
            routes,
            clusters,
            limits: config.limits.clone(),
            trusted_hops: config.server.trusted_hops,
            trace_headers: config.server.traceparent,
            access_log: config.log.access != AccessLog::Off,
            gate: Gate::new(config),
            names,
            sessions: session_keys(config, previous),
            session_age_max: config.sessions.max_age,
        })
    }
}
