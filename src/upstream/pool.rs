//! One worker's connections to backends: idle ones to use again, new ones, and their counts.

use std::cell::{Cell, RefCell};
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::Arc;

use ahash::AHashMap;

use super::balance::{Affinity, Candidate, choose};
use super::connect::connect;
use super::{Cluster, ClusterTable, Endpoint, EndpointId, UpstreamError};
use crate::clock::Tick;
use crate::config::model::Backend;
use crate::http::{Deadlines, Socket};
use crate::limits;
use crate::seam::{EndpointStats, ErasSeen};

/// All connections of one worker to backends.
#[derive(Debug)]
pub struct Upstreams {
    endpoints: RefCell<AHashMap<EndpointId, Rc<State>>>,
    deadlines: Rc<Deadlines>,
    turn: Cell<usize>,
    random: Cell<u64>,
    /// Connections open, idle ones included.
    open: Rc<Cell<usize>>,
    connects: Cell<u64>,
    reused: Cell<u64>,
}

/// What this worker knows of one endpoint.
#[derive(Debug)]
struct State {
    /// An id stands for the same endpoint for ever. Held here, so that a lease counts a reference of this
    /// worker's own: the one to the snapshot's endpoint is counted on a cache line that all workers share.
    endpoint: Arc<Endpoint>,
    idle: RefCell<Vec<Connection>>,
    active: Cell<usize>,
    requests: Cell<u64>,
    connect_failures: Cell<u64>,
    cooling_until: Cell<Tick>,
    eras: Cell<ErasSeen>,
}

struct Connection {
    socket: Socket,
    born: Tick,
    /// Set when it becomes idle: how long it may wait for another exchange.
    use_until: Tick,
    _open: Counted,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("fd", &self.socket.fd()).finish_non_exhaustive()
    }
}

/// Holds a counter up by one.
#[derive(Debug)]
struct Counted(Rc<Cell<usize>>);

impl Counted {
    fn new(counter: &Rc<Cell<usize>>) -> Self {
        counter.set(counter.get() + 1);
        Self(Rc::clone(counter))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A connection in use by one exchange. Dropped, it is closed; [`Lease::release`] keeps it.
#[derive(Debug)]
pub struct Lease {
    connection: Option<Connection>,
    state: Rc<State>,
    /// Whether it came from the pool.
    pub reused: bool,
    poisoned: bool,
}

/// Which connections may be given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// An idle one if there is one.
    Any,
    /// A new one: an idle one just failed.
    New,
}

impl Upstreams {
    /// Of a worker; `seed` makes its choices differ from its siblings'.
    #[must_use]
    pub fn new(deadlines: Rc<Deadlines>, seed: u64) -> Self {
        Self {
            endpoints: RefCell::default(),
            deadlines,
            turn: Cell::new(0),
            random: Cell::new(seed | 1),
            open: Rc::default(),
            connects: Cell::new(0),
            reused: Cell::new(0),
        }
    }

    /// A connection to the endpoint that holds a session: to no other, whatever its state.
    ///
    /// # Errors
    /// Of connecting.
    pub async fn lease_pinned(
        &self,
        endpoint: &Arc<Endpoint>,
        backend: &Backend,
        freshness: Freshness,
    ) -> Result<Lease, UpstreamError> {
        let state = self.state(endpoint);
        let leased = self.lease_at(&state, backend, freshness).await;
        if leased.as_ref().is_err_and(|failure| !failure.is_ours()) {
            state.connect_failures.set(state.connect_failures.get() + 1);
        }
        leased
    }

    /// A connection to one of the cluster's endpoints. When connecting fails, another endpoint is
    /// tried: no byte of the request has been sent then.
    ///
    /// # Errors
    /// The last attempt's, or [`UpstreamError::NoEndpoint`] if there was nothing to try.
    pub async fn lease(
        &self,
        cluster: &Cluster,
        affinity: Option<Affinity>,
        freshness: Freshness,
    ) -> Result<Lease, UpstreamError> {
        let mut tried: Vec<EndpointId> = Vec::new();
        let mut error = UpstreamError::NoEndpoint;
        while tried.len() < limits::CONNECT_ATTEMPTS_MAX {
            let Some(state) = self.choose(cluster, affinity, &tried) else {
                break;
            };
            match self.lease_at(&state, &cluster.backend, freshness).await {
                Ok(lease) => return Ok(lease),
                Err(failure) => {
                    error = failure;
                    if !failure.is_ours() {
                        state.connect_failures.set(state.connect_failures.get() + 1);
                        state.cooling_until.set(self.deadlines.now().after(cluster.backend.connect_cooldown));
                    }
                    tried.push(state.endpoint.id);
                }
            }
        }
        Err(error)
    }

    async fn lease_at(
        &self,
        state: &Rc<State>,
        backend: &Backend,
        freshness: Freshness,
    ) -> Result<Lease, UpstreamError> {
        let idle = match freshness {
            Freshness::Any => take_idle(state, self.deadlines.now()),
            Freshness::New => None,
        };
        let reused = idle.is_some();
        let mut lease = Lease { connection: idle, state: Rc::clone(state), reused, poisoned: false };
        // Counted as active from here on, also while it connects, and until the lease is dropped.
        state.active.set(state.active.get() + 1);
        if lease.connection.is_none() {
            let socket = connect(state.endpoint.address, backend.connect_timeout, &self.deadlines).await?;
            self.connects.set(self.connects.get() + 1);
            let born = self.deadlines.now();
            let open = Counted::new(&self.open);
            lease.connection = Some(Connection { socket, born, use_until: Tick::NEVER, _open: open });
        } else {
            self.reused.set(self.reused.get() + 1);
        }
        state.requests.set(state.requests.get() + 1);
        Ok(lease)
    }

    /// An endpoint not tried yet. One alone is never passed over for having failed: its refusal is
    /// the answer (nginx does the same with a single server).
    fn choose(&self, cluster: &Cluster, affinity: Option<Affinity>, tried: &[EndpointId]) -> Option<Rc<State>> {
        let endpoints = &cluster.endpoints;
        let now = self.deadlines.now();
        let alone = endpoints.len() == 1;
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let candidate = |index: usize| {
            let endpoint = &endpoints[index];
            let state = self.state(endpoint);
            let cooling = !alone && state.cooling_until.get() > now;
            Candidate { active: state.active.get(), usable: !cooling && !tried.contains(&endpoint.id) }
        };
        let index = match affinity {
            Some(affinity) => affinity.choose(endpoints.len(), candidate, |index| endpoints[index].identity)?,
            None => choose(cluster.backend.balance, endpoints.len(), candidate, turn, self.draw())?,
        };
        Some(self.state(&endpoints[index]))
    }

    fn state(&self, endpoint: &Arc<Endpoint>) -> Rc<State> {
        let mut endpoints = self.endpoints.borrow_mut();
        Rc::clone(endpoints.entry(endpoint.id).or_insert_with(|| Rc::new(State::new(Arc::clone(endpoint)))))
    }

    /// xorshift64 (Marsaglia, 2003): spread, not secrecy, is what the balancer needs.
    pub fn draw(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        x
    }

    /// Closes idle connections that have ended or are too old. Looks at endpoints in use only, so
    /// that a large fleet costs nothing while it is quiet.
    pub fn sweep(&self) {
        let now = self.deadlines.now();
        for state in self.endpoints.borrow().values() {
            state.idle.borrow_mut().retain(|idle| idle.use_until > now && idle.socket.is_quiet());
        }
    }

    /// Forgets endpoints that a new snapshot does not have, and closes what led there.
    pub fn keep_only(&self, clusters: &ClusterTable) {
        self.endpoints.borrow_mut().retain(|id, _| clusters.has_endpoint(*id));
    }

    /// Closes every idle connection.
    pub fn clear(&self) {
        for state in self.endpoints.borrow().values() {
            state.idle.borrow_mut().clear();
        }
    }

    /// Connections open, made, and used again.
    #[must_use]
    pub fn counts(&self) -> (usize, u64, u64) {
        (self.open.get(), self.connects.get(), self.reused.get())
    }

    /// Every endpoint this worker has used.
    #[must_use]
    pub fn endpoint_stats(&self) -> AHashMap<EndpointId, EndpointStats> {
        let now = self.deadlines.now();
        let stats = |state: &State| EndpointStats {
            active: state.active.get(),
            idle: state.idle.borrow().len(),
            requests: state.requests.get(),
            connect_failures: state.connect_failures.get(),
            cooling: state.cooling_until.get() > now,
            eras: state.eras.get(),
        };
        self.endpoints.borrow().iter().map(|(id, state)| (*id, stats(state))).collect()
    }
}

impl State {
    fn new(endpoint: Arc<Endpoint>) -> Self {
        Self {
            endpoint,
            idle: RefCell::default(),
            active: Cell::default(),
            requests: Cell::default(),
            connect_failures: Cell::default(),
            cooling_until: Cell::default(),
            eras: Cell::default(),
        }
    }
}

/// The idle connection used last that is still alive and young enough: the warmest, so that the
/// others grow old and go.
fn take_idle(state: &State, now: Tick) -> Option<Connection> {
    loop {
        let connection = state.idle.borrow_mut().pop()?;
        if connection.use_until > now && connection.socket.is_quiet() {
            return Some(connection);
        }
    }
}

impl Lease {
    /// The connection.
    pub fn socket(&mut self) -> &mut Socket {
        // Present from creation to release, which consumes the lease.
        &mut self.connection.as_mut().expect("a lease holds its connection").socket
    }

    /// Where it leads.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.state.endpoint
    }

    /// The connection carries bytes that belong to no exchange: it must not be used again.
    pub fn poison(&mut self) {
        self.poisoned = true;
    }

    /// Notes which era the endpoint's answer was of.
    pub fn saw(&self, era: impl Into<ErasSeen>) {
        self.state.eras.set(self.state.eras.get().and(era.into()));
    }

    /// Keeps the connection for another exchange. Only after an answer that ended cleanly, with
    /// nothing left over, on a connection that both sides keep open.
    pub fn release(&mut self, backend: &Backend) {
        // A backend that answered before it had the whole request would take its rest for the next one.
        let is_clean = |connection: &mut Connection| !self.poisoned && connection.socket.has_sent_all();
        let Some(mut connection) = self.connection.take_if(is_clean) else {
            return;
        };
        let now = connection.socket.deadline.now();
        connection.use_until = now.after(backend.idle_timeout).min(connection.born.after(backend.conn_age_max));
        connection.socket.deadline.clear();
        let mut idle = self.state.idle.borrow_mut();
        if idle.len() < backend.idle_conns_max && connection.use_until > now {
            idle.push(connection);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            // At once, so that the backend sees the end of the exchange now and not when the
            // descriptor is closed, a turn later.
            connection.socket.shutdown(Shutdown::Both);
        }
        self.state.active.set(self.state.active.get() - 1);
    }
}
