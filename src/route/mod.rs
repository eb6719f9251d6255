//! Host, path and method to a route and its backend.
//!
//! Compiled once per snapshot; a look-up hashes the path and its prefixes and never walks the
//! routes, so that 10,000 of them cost what ten do. The host decides first (a route of that host,
//! else one of any host), then the exact path, then the longest literal prefix, then a pattern that
//! captures before one that does not.

mod pattern;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use ahash::AHashMap;

use self::pattern::{Pattern, Tail};
use crate::config::model::{BodyMode, Choice, Config, Route as RouteConfig, SessionBinding};
use crate::error::ProxyError;
use crate::seam::{BuildError, Label, Names, Snapshot};
use crate::upstream::{Cluster, ClusterTable};

/// Paths that no route may take: metadata documents live there (RFC 8615).
const RESERVED_PREFIX: &[u8] = b"/.well-known/";

/// One compiled route.
#[derive(Debug)]
pub struct Route {
    /// As configured: host and path.
    pub name: String,
    /// Metric label.
    pub label: Label,
    /// `None`: the path names it.
    cluster: Option<usize>,
    pattern: Pattern,
    methods: Vec<String>,
    /// What session ids are bound to.
    pub session_binding: SessionBinding,
    /// For the `Allow` field; empty if every method is taken.
    pub allow: String,
    body: BodyMode,
}

impl Route {
    /// What is looked at in requests to a backend; never `auto`.
    #[must_use]
    pub fn body_mode(&self, cluster: &Cluster) -> BodyMode {
        match self.body {
            // What lies under a prefix is not known to be an MCP endpoint.
            BodyMode::Auto if self.pattern.is_open() || !cluster.backend.shares() => BodyMode::Stream,
            BodyMode::Auto => BodyMode::Headers,
            mode => mode,
        }
    }
}

/// All routes of a snapshot.
#[derive(Debug, Default)]
pub struct RouteTable {
    routes: Vec<Route>,
    hosts: AHashMap<Box<[u8]>, PathTable>,
    any_host: PathTable,
    /// Backend names for `{backend}`, with their clusters.
    backends: AHashMap<Box<[u8]>, usize>,
}

/// Routes of one host by path. Values are indices into `RouteTable::routes`, in file order.
#[derive(Debug, Default)]
struct PathTable {
    exact: AHashMap<Box<[u8]>, Vec<usize>>,
    /// By literal prefix, which ends with a slash.
    prefixes: AHashMap<Box<[u8]>, Vec<usize>>,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub struct Found<'t, 'p> {
    /// By which route.
    pub route: &'t Route,
    /// To which cluster of the same snapshot.
    pub cluster: usize,
    /// What a prefix route leaves of the path, with its slash; empty for others.
    pub rest: &'p [u8],
}

/// Why a request goes nowhere.
#[derive(Clone, Copy, Debug)]
pub enum NotFound<'t> {
    /// No route has this host and path.
    NoRoute,
    /// This one does, but takes other methods.
    MethodNotAllowed(&'t Route),
}

impl From<NotFound<'_>> for ProxyError {
    fn from(reason: NotFound<'_>) -> Self {
        match reason {
            NotFound::NoRoute => Self::NoRoute,
            NotFound::MethodNotAllowed(_) => Self::MethodNotAllowed,
        }
    }
}

impl RouteTable {
    /// Compiles the routes of a configuration.
    ///
    /// # Errors
    /// Every route whose pattern or backend does not hold.
    pub fn compile(config: &Config, clusters: &ClusterTable, names: &mut Names) -> Result<Self, Vec<BuildError>> {
        let mut table = Self::default();
        let mut faults = Vec::new();
        for (index, route) in config.routes.iter().enumerate() {
            match compile_one(route, clusters, names) {
                Ok(compiled) => table.insert(route.host.as_deref(), compiled),
                Err((field, problem)) => faults.push(BuildError { key: format!("routes[{index}].{field}"), problem }),
            }
        }
        table.sort();
        for (index, cluster) in clusters.iter().enumerate() {
            table.backends.insert(cluster.name.as_bytes().into(), index);
        }
        if faults.is_empty() { Ok(table) } else { Err(faults) }
    }

    fn insert(&mut self, host: Option<&str>, route: Route) {
        let index = self.routes.len();
        let paths = match host {
            Some(host) => self.hosts.entry(host.to_ascii_lowercase().into_bytes().into()).or_default(),
            None => &mut self.any_host,
        };
        let map = if route.pattern.is_exact() { &mut paths.exact } else { &mut paths.prefixes };
        map.entry(route.pattern.literal().into()).or_default().push(index);
        self.routes.push(route);
    }

    /// Of patterns with the same literal part, one that captures is tried before one that is open:
    /// `/mcp/{backend}` before `/mcp/*`.
    fn sort(&mut self) {
        let tables = self.hosts.values_mut().chain([&mut self.any_host]);
        for indices in tables.flat_map(|paths| paths.prefixes.values_mut()) {
            indices.sort_by_key(|index| !self.routes[*index].pattern.captures());
        }
    }

    /// The route for a request; `host` may carry a port, any letter case.
    ///
    /// # Errors
    /// Why there is none.
    pub fn find<'p>(&self, host: &[u8], path: &'p [u8], method: &[u8]) -> Result<Found<'_, 'p>, NotFound<'_>> {
        if path.starts_with(RESERVED_PREFIX) {
            return Err(NotFound::NoRoute);
        }
        let mut refused = None;
        if !self.hosts.is_empty() {
            let host = without_port(host).to_ascii_lowercase();
            if let Some(found) =
                self.hosts.get(host.as_slice()).and_then(|paths| self.search(paths, path, method, &mut refused))
            {
                return Ok(found);
            }
        }
        if let Some(found) = self.search(&self.any_host, path, method, &mut refused) {
            return Ok(found);
        }
        Err(refused.map_or(NotFound::NoRoute, NotFound::MethodNotAllowed))
    }

    /// The most specific route of `paths` that takes path and method; notes the most specific one
    /// that takes the path only.
    fn search<'t, 'p>(
        &'t self,
        paths: &'t PathTable,
        path: &'p [u8],
        method: &[u8],
        refused: &mut Option<&'t Route>,
    ) -> Option<Found<'t, 'p>> {
        let exact = paths.exact.get(path).into_iter();
        let prefixes = prefixes_of(path).filter_map(|prefix| paths.prefixes.get(prefix));
        for index in exact.chain(prefixes).flatten() {
            let route = &self.routes[*index];
            let Some(tail) = route.pattern.match_tail(path) else {
                continue;
            };
            let Some(cluster) = self.cluster_of(route, &tail) else {
                continue;
            };
            if !route.methods.is_empty() && !route.methods.iter().any(|allowed| allowed.as_bytes() == method) {
                refused.get_or_insert(route);
                continue;
            }
            return Some(Found { route, cluster, rest: tail.rest });
        }
        None
    }

    /// Methods that routes of this host and path take, for the `Allow` field of a 405: all of them, as
    /// each may have a route of its own (RFC 9110 section 10.2.1).
    #[must_use]
    pub fn allowed(&self, host: &[u8], path: &[u8]) -> Vec<&str> {
        let mut allowed = Vec::new();
        for route in &self.routes {
            for method in &route.methods {
                let takes = |found: Found<'_, '_>| std::ptr::eq(found.route, route);
                if !allowed.contains(&method.as_str()) && self.find(host, path, method.as_bytes()).is_ok_and(takes) {
                    allowed.push(method);
                }
            }
        }
        allowed
    }

    fn cluster_of(&self, route: &Route, tail: &Tail<'_>) -> Option<usize> {
        match tail.captured {
            Some(name) => self.backends.get(name).copied(),
            None => route.cluster,
        }
    }

    /// All routes in file order.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }
}

fn compile_one(
    route: &RouteConfig,
    clusters: &ClusterTable,
    names: &mut Names,
) -> Result<Route, (&'static str, String)> {
    let pattern = Pattern::parse(&route.path).map_err(|problem| ("path", problem))?;
    let cluster = match &route.backend {
        Some(name) => {
            Some(clusters.position(name).ok_or_else(|| ("backend", format!("no backend is named {name:?}")))?)
        }
        None if pattern.captures() => None,
        None => {
            return Err(("backend", "missing, and the path does not capture {backend}".to_owned()));
        }
    };
    let name = format!("{}{}", route.host.as_deref().unwrap_or_default(), route.path);
    Ok(Route {
        label: names.intern(&name),
        name,
        cluster,
        pattern,
        methods: route.methods.clone(),
        session_binding: route.session_binding,
        allow: route.methods.join(", "),
        body: route.body,
    })
}

/// Every prefix of a path that ends with a slash, the longest first.
fn prefixes_of(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    memchr::memrchr_iter(b'/', path).map(|slash| &path[..=slash])
}

fn without_port(host: &[u8]) -> &[u8] {
    // A bracketed address keeps its colons.
    match memchr::memrchr(b':', host) {
        Some(colon) if host[colon..].iter().all(|byte| *byte != b']') => &host[..colon],
        _ => host,
    }
}

/// The compiled table, a line a route, for `ringway routes`.
#[must_use]
pub fn table(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    for route in snapshot.routes.routes() {
        let backend = route.cluster.map_or("{backend}", |index| &snapshot.clusters.at(index).name);
        let methods = if route.allow.is_empty() { "any method" } else { &route.allow };
        // Writing into a String does not fail.
        let _ = writeln!(text, "{:40} -> {backend:20} {methods:20} body: {}", route.name, body_modes(snapshot, route));
    }
    text
}

/// What a route looks at: one mode, or if its backends differ those there are.
fn body_modes(snapshot: &Snapshot, route: &Route) -> String {
    let mode = |cluster: &Arc<Cluster>| route.body_mode(cluster).name();
    match route.cluster {
        Some(index) => mode(snapshot.clusters.at(index)).to_owned(),
        None => {
            let modes: BTreeSet<_> = snapshot.clusters.iter().map(mode).collect();
            modes.into_iter().collect::<Vec<_>>().join(" or ")
        }
    }
}

/// Which route and backend a request meets, and why, for `ringway routes METHOD URL`.
#[must_use]
pub fn explain(snapshot: &Snapshot, method: &str, host: &str, path: &str) -> String {
    match snapshot.routes.find(host.as_bytes(), path.as_bytes(), method.as_bytes()) {
        Ok(found) => {
            let cluster = snapshot.clusters.at(found.cluster);
            let body = found.route.body_mode(cluster).name();
            let mut text = format!("route {} to backend {}, body: {body}\n", found.route.name, cluster.name);
            for endpoint in &cluster.endpoints {
                let base = endpoint.path.trim_end_matches('/');
                let rest = String::from_utf8_lossy(found.rest);
                let path = if rest.is_empty() { endpoint.path.as_str() } else { base };
                let _ = writeln!(text, "  http://{}{path}{rest} at {}", endpoint.authority, endpoint.address);
            }
            text
        }
        Err(NotFound::NoRoute) => "no route: 404\n".to_owned(),
        Err(NotFound::MethodNotAllowed(route)) => {
            format!("route {} takes {} only: 405\n", route.name, route.allow)
        }
    }
}

#[cfg(test)]
mod tests;
