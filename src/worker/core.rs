//! One worker's own state: everything its connections share, and nothing another thread sees.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::IpAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use arc_swap::Cache;

use super::Stop;
use super::access::AccessLog;
use super::alarm::Alarms;
use super::share::Sharing;
use crate::clock::{self, TICK, Tick};
use crate::config::model::{Limits, TraceHeaders};
use crate::error::{ProxyError, Refusal};
use crate::http::{BufferPool, Deadlines, HeadLimits, Outbox, RequestHead, ResponseHead, Trace, TraceIds};
use crate::limits;
use crate::seam::{Counted, Snapshot, SnapshotCell, WorkerStats};
use crate::server::Hooks;
use crate::upstream::Upstreams;

/// The heads of one exchange. They are large and an idle connection needs none, so a worker keeps some
/// and lends them out.
#[derive(Debug, Default)]
pub(super) struct Heads {
    pub(super) request: RequestHead,
    pub(super) answer: ResponseHead,
}

/// Shared by the tasks of one worker.
pub(super) struct Core {
    pub(super) deadlines: Rc<Deadlines>,
    pub(super) alarms: Rc<Alarms>,
    pub(super) buffers: BufferPool,
    pub(super) outbox: Outbox,
    pub(super) upstreams: Upstreams,
    pub(super) sharing: Rc<Sharing>,
    /// Connections handed to other workers in this tick.
    handed: Cell<usize>,
    pub(super) stats: RefCell<WorkerStats>,
    pub(super) draining: Cell<bool>,
    /// Told when one of the worker's own tasks has panicked.
    pub(super) fall: Stop,
    pub(super) connections: Cell<usize>,
    pub(super) access: AccessLog,
    pub(super) hooks: Hooks,
    /// While draining: from this tick on, connections between two requests end.
    idle_until: Cell<Tick>,
    exchanges: Rc<Cell<usize>>,
    errands: Rc<Cell<usize>>,
    streams: Rc<Cell<usize>>,
    per_ip: RefCell<AHashMap<IpAddr, usize>>,
    #[expect(clippy::vec_box, reason = "lent out by pointer: moving them would cost more than the box")]
    heads: RefCell<Vec<Box<Heads>>>,
    published: RefCell<Cache<Arc<SnapshotCell>, Arc<Snapshot>>>,
    current: RefCell<Rc<InForce>>,
    started: Instant,
    /// Random bytes of this worker, and how many nonces were made of them.
    nonces: ([u8; 16], Cell<u64>),
    trace_ids: RefCell<TraceIds>,
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

/// Free `Heads` kept: about as many as requests are under way at once.
const FREE_HEADS_MAX: usize = 1024;

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
    pub(super) fn new(cell: Arc<SnapshotCell>, sharing: Sharing, seed: u64, access: AccessLog, hooks: Hooks) -> Self {
        let mut published = Cache::new(cell);
        let current = Rc::new(InForce(Arc::clone(published.load())));
        sharing.resize(current.limits.cache_bytes_max);
        let deadlines = Rc::new(Deadlines::default());
        Self {
            upstreams: Upstreams::new(Rc::clone(&deadlines), seed),
            deadlines,
            alarms: Rc::default(),
            buffers: BufferPool::default(),
            outbox: Outbox::default(),
            stats: RefCell::default(),
            draining: Cell::new(false),
            fall: Stop::default(),
            connections: Cell::new(0),
            access,
            hooks,
            sharing: Rc::new(sharing),
            handed: Cell::new(0),
            idle_until: Cell::default(),
            exchanges: Rc::default(),
            errands: Rc::default(),
            streams: Rc::default(),
            per_ip: RefCell::default(),
            heads: RefCell::default(),
            published: RefCell::new(published),
            current: RefCell::new(current),
            started: clock::now(),
            // 128 bits tell this worker's nonces from those of every other worker and replica.
            nonces: (random_bytes(), Cell::new(0)),
            trace_ids: RefCell::new(TraceIds::new(random_bytes())),
        }
    }

    /// The snapshot in force. A request asks once and keeps the answer.
    pub(super) fn snapshot(&self) -> Rc<InForce> {
        let mut published = self.published.borrow_mut();
        let newest = published.load();
        let mut current = self.current.borrow_mut();
        if !Arc::ptr_eq(newest, &current.0) {
            self.sharing.resize(newest.limits.cache_bytes_max);
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

    /// What becomes of a request's trace headers.
    pub(super) fn trace(&self, headers: TraceHeaders, head: &RequestHead, bytes: &[u8]) -> Trace {
        match headers {
            TraceHeaders::Pass => Trace::Pass,
            TraceHeaders::Create => Trace::create(head, bytes, &mut self.trace_ids.borrow_mut()),
        }
    }

    /// From now on every answer is its connection's last, and this worker asks no other. A connection
    /// between two requests has `idle_wait` to bring one.
    pub(super) fn begin_drain(&self, idle_wait: Duration) {
        let now = self.deadlines.now();
        self.idle_until.set(if idle_wait.is_zero() { now } else { now.after(idle_wait) });
        self.draining.set(true);
        self.sharing.stand_alone();
        self.sharing.tell_load(None);
        self.alarms.ring_all();
    }

    /// Waits for `pause`, rounded up to ticks. `false`: the worker falls, and its ticks end.
    #[must_use]
    pub(super) async fn rest(&self, pause: Duration) -> bool {
        let alarm = self.alarms.add();
        let due = self.deadlines.now().after(pause);
        // All alarms ring when a drain begins, too.
        while self.deadlines.now() < due && !self.fall.told.get() {
            alarm.set(due);
            poll_fn(|cx| alarm.poll(cx)).await;
        }
        !self.fall.told.get()
    }

    /// Tells the other workers what this one carries.
    pub(super) fn tell_load(&self) {
        self.handed.set(0);
        if !self.draining.get() {
            self.sharing.tell_load(Some(self.streams.get()));
        }
    }

    /// The worker that a connection accepted now is handed to, if this one has far more to do than others.
    /// What they carry is known as of their last tick, so only a few go there in each.
    pub(super) fn hands_over(&self) -> Option<usize> {
        let lighter = self.sharing.lighter_worker().filter(|_| self.handed.get() < limits::HANDED_PER_TICK_MAX)?;
        self.handed.set(self.handed.get() + 1);
        Some(lighter)
    }

    /// Whether connections between two requests end.
    pub(super) fn ends_idle(&self) -> bool {
        self.draining.get() && self.deadlines.now() >= self.idle_until.get()
    }

    /// Time since the worker started.
    pub(super) fn age(&self) -> Duration {
        clock::now().duration_since(self.started)
    }

    /// Whole ticks since then, by the clock.
    pub(super) fn ticks(&self) -> Tick {
        Tick(u32::try_from(self.age().as_millis() / TICK.as_millis()).unwrap_or(u32::MAX - 1))
    }

    /// When the next one is due, as an age.
    pub(super) fn next_tick(&self) -> Duration {
        TICK * (self.ticks().0 + 1)
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
        self.admit_memory(limits)?;
        Ok(Held::new(&self.exchanges))
    }

    /// Counts work that belongs to no connection while it lasts.
    pub(super) fn count_errand(&self) -> Held {
        Held::new(&self.errands)
    }

    /// Whether nothing is under way any more.
    pub(super) fn is_at_rest(&self) -> bool {
        self.connections.get() == 0 && self.errands.get() == 0 && self.sharing.has_sent_all()
    }

    /// A random pause of up to `max`.
    pub(super) fn jitter(&self, max: Duration) -> Duration {
        max.mul_f64((self.upstreams.draw() % 1024) as f64 / 1024.0)
    }

    /// Bytes held for exchanges and in the cache.
    pub(super) fn memory_bytes(&self) -> u64 {
        let (_, cached) = self.sharing.cached();
        self.buffers.ledger.bytes() as u64 + cached
    }

    fn admit_memory(&self, limits: &Limits) -> Result<(), ProxyError> {
        if self.memory_bytes() >= limits.memory_hard_bytes { Err(ProxyError::MemoryMax) } else { Ok(()) }
    }

    /// Whether connections are to end with the answer they carry: in a drain, and to save memory.
    pub(super) fn lets_go(&self) -> bool {
        self.draining.get() || self.memory_bytes() >= self.current.borrow().limits.memory_soft_bytes
    }

    /// Gives the cache the room there is: a quarter of its own where memory is to be saved.
    pub(super) fn fit_cache(&self) {
        let snapshot = self.snapshot();
        let own = snapshot.limits.cache_bytes_max;
        let is_scarce = self.memory_bytes() >= snapshot.limits.memory_soft_bytes;
        self.sharing.resize(if is_scarce { own / 4 } else { own });
    }

    /// Counts an answer that is a stream of events while it lasts.
    pub(super) fn count_stream(&self) -> Held {
        Held::new(&self.streams)
    }

    pub(super) fn count_refusal(&self, refusal: Refusal) {
        self.stats.borrow_mut().refused[refusal as usize] += 1;
    }

    /// Counts one of its kind.
    pub(super) fn count(&self, what: impl Counted) {
        self.stats.borrow_mut().add(what, 1);
    }

    /// Room for one more connection from this address.
    pub(super) fn admit_connection(self: &Rc<Self>, ip: IpAddr, limits: &Limits) -> Result<Admission, ProxyError> {
        if self.connections.get() >= limits.connections_per_worker_max {
            return Err(ProxyError::ConnectionsMax);
        }
        self.admit_memory(limits)?;
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
        let (cache_entries, cache_bytes) = self.sharing.cached();
        WorkerStats {
            client_connections: self.connections.get(),
            upstream_connections: open,
            exchanges: self.exchanges.get(),
            streams: self.streams.get(),
            connects,
            reused,
            cache_entries,
            cache_bytes,
            memory_bytes: self.memory_bytes(),
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

/// From the system, once for each use at the start: no system call for each request.
fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Without them no session could be sealed; the worker's supervision tries again.
    getrandom::fill(&mut bytes).expect("the system's random number generator works");
    bytes
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
