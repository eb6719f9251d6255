//! One worker's own state: everything its connections share, and nothing another thread sees.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use arc_swap::Cache;

use crate::clock::{self, Tick};
use crate::config::model::Limits;
use crate::error::{ProxyError, Refusal};
use crate::http::{BufferPool, Deadlines, HeadLimits, RequestHead, ResponseHead};
use crate::seam::{Snapshot, SnapshotCell, WorkerStats};
use crate::server::Hooks;
use crate::upstream::Upstreams;

/// The heads of one exchange. They are large and an idle connection needs none, so a worker keeps a
/// few and lends them out.
#[derive(Debug, Default)]
pub(super) struct Heads {
    pub(super) request: RequestHead,
    pub(super) answer: ResponseHead,
}

/// Shared by the tasks of one worker.
pub(super) struct Core {
    pub(super) deadlines: Rc<Deadlines>,
    pub(super) buffers: BufferPool,
    /// Where heads are written before they are sent or put before a body. Never held over `.await`.
    pub(super) scratch: RefCell<Vec<u8>>,
    pub(super) upstreams: Upstreams,
    pub(super) stats: RefCell<WorkerStats>,
    pub(super) draining: Cell<bool>,
    pub(super) connections: Cell<usize>,
    pub(super) hooks: Hooks,
    /// While draining: from this tick on, connections between two requests end.
    idle_until: Cell<Tick>,
    exchanges: Rc<Cell<usize>>,
    streams: Rc<Cell<usize>>,
    per_ip: RefCell<AHashMap<IpAddr, usize>>,
    #[expect(clippy::vec_box, reason = "lent out by pointer: moving them would cost more than the box")]
    heads: RefCell<Vec<Box<Heads>>>,
    published: RefCell<Cache<Arc<SnapshotCell>, Arc<Snapshot>>>,
    current: RefCell<Rc<InForce>>,
    started: Instant,
    /// Random bytes of this worker, and how many nonces were made of them.
    nonces: ([u8; 16], Cell<u64>),
}

/// The snapshot in use. A worker holds one share of it, and its requests count theirs among
/// themselves: a count that all workers wrote to would be the one thing they fight over.
pub(super) struct InForce(Arc<Snapshot>);

impl Deref for InForce {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.0
    }
}

/// Free `Heads` kept: about as many as requests are parsed at once.
const FREE_HEADS_MAX: usize = 64;

/// Holds a gauge up by one while it lives.
pub(super) struct Held(Rc<Cell<usize>>);

impl Held {
    fn new(gauge: &Rc<Cell<usize>>) -> Self {
        gauge.set(gauge.get() + 1);
        Self(Rc::clone(gauge))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Core {
    pub(super) fn new(cell: Arc<SnapshotCell>, seed: u64, hooks: Hooks) -> Self {
        let mut published = Cache::new(cell);
        let current = Rc::new(InForce(Arc::clone(published.load())));
        let deadlines = Rc::new(Deadlines::default());
        Self {
            upstreams: Upstreams::new(Rc::clone(&deadlines), seed),
            deadlines,
            buffers: BufferPool::default(),
            scratch: RefCell::default(),
            stats: RefCell::default(),
            draining: Cell::new(false),
            connections: Cell::new(0),
            hooks,
            idle_until: Cell::default(),
            exchanges: Rc::default(),
            streams: Rc::default(),
            per_ip: RefCell::default(),
            heads: RefCell::default(),
            published: RefCell::new(published),
            current: RefCell::new(current),
            started: clock::now(),
            nonces: (nonce_prefix(), Cell::new(0)),
        }
    }

    /// The snapshot in force. A request asks once and keeps the answer.
    pub(super) fn snapshot(&self) -> Rc<InForce> {
        let mut published = self.published.borrow_mut();
        let newest = published.load();
        let mut current = self.current.borrow_mut();
        if !Arc::ptr_eq(newest, &current.0) {
            *current = Rc::new(InForce(Arc::clone(newest)));
        }
        Rc::clone(&current)
    }

    /// A nonce never given before, here or in another process.
    pub(super) fn nonce(&self) -> [u8; 24] {
        let (prefix, count) = &self.nonces;
        count.set(count.get() + 1);
        let mut nonce = [0; 24];
        nonce[..16].copy_from_slice(prefix);
        nonce[16..].copy_from_slice(&count.get().to_be_bytes());
        nonce
    }

    /// From now on every answer is its connection's last. A connection between two requests has
    /// `idle_wait` to bring one.
    pub(super) fn begin_drain(&self, idle_wait: Duration) {
        let now = self.deadlines.now();
        self.idle_until.set(if idle_wait.is_zero() { now } else { now.after(idle_wait) });
        self.draining.set(true);
    }

    /// Whether connections between two requests end.
    pub(super) fn ends_idle(&self) -> bool {
        self.draining.get() && self.deadlines.now() >= self.idle_until.get()
    }

    /// Time since the worker started.
    pub(super) fn age(&self) -> Duration {
        clock::now().duration_since(self.started)
    }

    pub(super) fn heads(&self) -> Box<Heads> {
        self.heads.borrow_mut().pop().unwrap_or_default()
    }

    pub(super) fn keep_heads(&self, mut heads: Box<Heads>) {
        heads.request.reset();
        heads.answer.reset();
        let mut free = self.heads.borrow_mut();
        if free.len() < FREE_HEADS_MAX {
            free.push(heads);
        }
    }

    /// Room for one more exchange.
    pub(super) fn admit(&self, limits: &Limits) -> Result<Held, ProxyError> {
        if self.exchanges.get() >= limits.exchanges_per_worker_max {
            return Err(ProxyError::Overloaded);
        }
        Ok(Held::new(&self.exchanges))
    }

    /// Counts an answer that is a stream of events while it lasts.
    pub(super) fn count_stream(&self) -> Held {
        Held::new(&self.streams)
    }

    pub(super) fn count_refusal(&self, refusal: Refusal) {
        self.stats.borrow_mut().refused[refusal as usize] += 1;
    }

    /// Room for one more connection from this address.
    pub(super) fn admit_connection(self: &Rc<Self>, ip: IpAddr, limits: &Limits) -> Result<Admission, ProxyError> {
        if self.connections.get() >= limits.connections_per_worker_max {
            return Err(ProxyError::ConnectionsMax);
        }
        let mut per_ip = self.per_ip.borrow_mut();
        let count = per_ip.entry(ip).or_default();
        if *count >= limits.connections_per_ip_max {
            return Err(ProxyError::ConnectionsPerIp);
        }
        *count += 1;
        self.connections.set(self.connections.get() + 1);
        Ok(Admission { core: Rc::clone(self), ip })
    }

    /// A copy of everything counted, with the gauges of now.
    pub(super) fn report(&self) -> WorkerStats {
        let (open, connects, reused) = self.upstreams.counts();
        WorkerStats {
            client_connections: self.connections.get(),
            upstream_connections: open,
            exchanges: self.exchanges.get(),
            streams: self.streams.get(),
            connects,
            reused,
            endpoints: self.upstreams.endpoint_stats(),
            cpu: thread_cpu(),
            age: self.age(),
            ..self.stats.borrow().clone()
        }
    }
}

/// A client connection's place in the counts.
pub(super) struct Admission {
    core: Rc<Core>,
    ip: IpAddr,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.core.connections.set(self.core.connections.get() - 1);
        let mut per_ip = self.core.per_ip.borrow_mut();
        if let Some(count) = per_ip.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                per_ip.remove(&self.ip);
            }
        }
    }
}

/// 128 random bits tell this worker's nonces from those of every other worker and replica.
fn nonce_prefix() -> [u8; 16] {
    let mut prefix = [0; 16];
    // Without it no session could be sealed; the worker's supervision tries again.
    getrandom::fill(&mut prefix).expect("the system's random number generator works");
    prefix
}

/// CPU time of this thread; zero where the kernel does not say.
fn thread_cpu() -> Duration {
    let clock = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
    nix::time::clock_gettime(clock).map(Duration::from).unwrap_or_default()
}

/// Limits on a head, out of the configuration's.
pub(super) fn head_limits(limits: &Limits) -> HeadLimits {
    HeadLimits {
        head_bytes_max: limits.head_bytes_max,
        target_bytes_max: limits.target_bytes_max,
        headers_max: limits.headers_max,
    }
}
