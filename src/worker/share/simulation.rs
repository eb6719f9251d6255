//! The sharing of several workers, driven by chance: no socket, no runtime, an invented time. What is
//! real: `Sharing` itself, the mailboxes, and wakers: a request is polled when it was woken and else
//! not, so that a wake-up that is missing shows.
//!
//! After every step: no answer goes to a scope it is not for, or is older than an invalidation that
//! its asker came after; nobody leads beside another; the tables agree. Whenever all is delivered:
//! whoever waits has somebody to wait for, and leaders know whether they are waited for. In the end
//! nothing is left of anybody. A request may be dropped whenever it is not being polled, which is at
//! each of its awaits.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use ahash::RandomState;

use super::{Leading, Sharing, Turn, Waiting};
use crate::coalesce::{Epochs, FlightId, Found, Member, Question, Scope, Shared, Slot, Validity};
use crate::error::ProxyError;
use crate::limits;
use crate::mcp::random::Random;
use crate::mcp::{CacheScope, MethodLabel};
use crate::seam::{Landing, Mailbox, PeerMessage, Peers, WorkerHandle, mailbox};

const SEEDS: std::ops::Range<u64> = 0..1500;
const STEPS: usize = 100;
const REQUESTS_MAX: usize = 24;
/// The topic whose answers are sometimes public.
const EITHER: usize = 2;
/// Bits of a flight's number that count those of one worker, as in `server`.
const FLIGHTS_BITS: u32 = 40;

#[test]
fn p_072_workers_share_and_nobody_waits_for_ever() {
    for seed in SEEDS {
        World::new(seed).run();
    }
}

/// What a run is like.
#[derive(Clone, Copy, Debug)]
struct Mood {
    /// Of sixteen requests that end before their answer comes by itself, so many have left.
    leave: usize,
    /// Only what is answered now this way, now that is asked for.
    only_either: bool,
    deaths: bool,
    drains: bool,
    congestion: bool,
}

struct World {
    seed: u64,
    random: Random,
    mood: Mood,
    /// Something has gone wrong: a worker ended or stands alone, a mailbox was full.
    disturbed: bool,
    peers: Arc<Peers>,
    hasher: RandomState,
    workers: Vec<Worker>,
    /// Workers started so far.
    started: u64,
    epochs: Arc<Epochs>,
    topics: Vec<Topic>,
    scopes: Vec<Scope>,
    now: Instant,
    requests: Vec<Request>,
    numbered: usize,
    /// Requests of workers that ended without freeing their tasks.
    lost: Vec<Stage>,
    /// By the number that each answer has for its body.
    answers: Vec<Origin>,
    events: Vec<Event>,
}

struct Topic {
    question: Question,
    slot: Slot,
    says: Says,
}

/// Whom the answers to a question are for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Says {
    Private,
    /// And every worker knows from the beginning.
    Public,
    /// Sometimes this, sometimes that.
    Either,
}

struct Worker {
    sharing: Rc<Sharing>,
    /// None: it has ended.
    mailbox: Option<Mailbox>,
    handle: WorkerHandle,
    first: FlightId,
    /// Who has ended, and the first flight of the one in its place; not heard yet.
    news: VecDeque<(usize, FlightId)>,
}

struct Request {
    number: usize,
    worker: usize,
    topic: usize,
    scope: usize,
    validity: Validity,
    attempts: usize,
    woken: Arc<Woken>,
    stage: Stage,
}

enum Stage {
    Waits(Waiting),
    Leads(Leading),
    /// Its client has left; it goes on for others.
    CarriesOn(Leading),
}

/// Where an answer comes from.
struct Origin {
    topic: usize,
    scope: usize,
    epoch: u64,
}

/// What happened, for whoever has to understand a failure.
#[derive(Debug)]
#[expect(dead_code, reason = "read through Debug only")]
enum Event {
    Asked { request: usize, worker: usize, topic: usize, scope: usize, epoch: u64 },
    Leads { request: usize },
    Told { request: usize, landing: String },
    Left { request: usize },
    CarriesOn { request: usize },
    Deserted { request: usize },
    Landed { request: usize, landing: String },
    Received { worker: usize, message: String },
    Ended { worker: usize },
    Restarted { worker: usize },
    Heard { worker: usize, ended: usize },
    StandsAlone { worker: usize },
    Congested { worker: usize },
    Invalidated { topic: usize },
    Settles,
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.events.iter().for_each(|event| eprintln!("{event:?}"));
            eprintln!("seed {} with {:?}", self.seed, self.mood);
        }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mood = Mood {
            leave: *random.of(&[2, 8, 14]),
            only_either: random.once_in(3),
            deaths: random.once_in(2),
            drains: random.once_in(4),
            congestion: random.once_in(4),
        };
        let hasher = RandomState::with_seeds(random.next(), random.next(), random.next(), random.next());
        let scopes = [&b"alice"[..], b"bob", b"carol"];
        let mut world = Self {
            seed,
            mood,
            disturbed: false,
            peers: Arc::default(),
            hasher,
            workers: Vec::new(),
            started: 0,
            epochs: Arc::default(),
            topics: Vec::new(),
            scopes: scopes.iter().map(|name| Scope::of(std::iter::once((&b"authorization"[..], *name)))).collect(),
            now: crate::clock::now(),
            requests: Vec::new(),
            numbered: 0,
            lost: Vec::new(),
            answers: Vec::new(),
            events: Vec::new(),
            random,
        };
        let workers = *world.random.of(&[1, 2, 2, 3, 3, 4]);
        for index in 0..workers {
            let worker = world.start(index);
            world.workers.push(worker);
        }
        world.publish();
        world.add_topics();
        world
    }

    fn add_topics(&mut self) {
        for (method, uri, says) in [
            (MethodLabel::ToolsList, "", Says::Private),
            (MethodLabel::ResourcesRead, "file:///a", Says::Public),
            (MethodLabel::ResourcesRead, "file:///b", Says::Either),
        ] {
            let question = self.workers[0].sharing.question(|question| {
                question.part(method.label().as_bytes());
                question.part(uri.as_bytes());
            });
            let slot = Slot::of(method, uri.as_bytes());
            self.topics.push(Topic { question, slot, says });
            if says == Says::Public {
                let validity = Validity::begin(&self.epochs, slot);
                let answer = Landing::Answer(Arc::new(self.answer(self.topics.len() - 1, 0, validity, "public", 0)));
                let question = &self.topics[self.topics.len() - 1].question;
                self.workers.iter().for_each(|worker| worker.sharing.keep(question, &answer));
            }
        }
    }

    fn start(&mut self, index: usize) -> Worker {
        let (handle, mailbox) = mailbox().expect("a socket pair");
        let first = FlightId(self.started << FLIGHTS_BITS);
        self.started += 1;
        let sharing = Rc::new(Sharing::new(index, first, Arc::clone(&self.peers), self.hasher.clone()));
        sharing.resize(1 << 20);
        Worker { sharing, mailbox: Some(mailbox), handle, first, news: VecDeque::new() }
    }

    fn publish(&self) {
        self.peers.publish(self.workers.iter().map(|worker| worker.handle.clone()).collect());
    }

    fn run(mut self) {
        for _ in 0..STEPS {
            self.step();
            self.check();
        }
        // No more askers: all who are left come to their end.
        while !self.requests.is_empty() {
            self.settle();
            let leader = self.requests.iter().position(|request| !matches!(request.stage, Stage::Waits(_)));
            if let Some(at) = leader {
                if self.random.once_in(4) {
                    self.drop_request(at)
                } else {
                    self.land(at)
                }
                self.check();
            }
        }
        self.settle();
        for worker in &self.workers {
            let state = worker.sharing.state.borrow();
            assert!(state.flights.is_empty(), "flights are left: {:?}", state.flights);
            assert!(state.seats.is_empty() && state.abroad.is_empty(), "somebody is left");
        }
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..30 => self.ask(),
            30..50 => self.poll_one(),
            50..70 => self.pump_one(),
            70..86 if self.random.below(16) < self.mood.leave => self.drop_one(),
            70..86 => self.land_one(),
            86..88 => self.invalidate(),
            88 => self.now += Duration::from_millis(self.random.below(800) as u64),
            89 => {
                let now = self.now;
                self.any_worker().sharing.sweep(now);
            }
            90 => self.settle(),
            91 | 92 if self.mood.deaths => self.end_one(),
            93 | 94 if self.mood.deaths => self.supervise(),
            95 | 96 if self.mood.deaths => {
                let worker = self.random.below(self.workers.len());
                self.hear(worker);
            }
            97 if self.mood.drains && self.random.once_in(3) => self.stand_alone(),
            98 if self.mood.congestion => self.congest(),
            _ => self.any_worker().sharing.flush(),
        }
    }

    fn any_worker(&mut self) -> &Worker {
        let worker = self.random.below(self.workers.len());
        &self.workers[worker]
    }

    fn ask(&mut self) {
        let worker = self.random.below(self.workers.len());
        if self.workers[worker].mailbox.is_none() || self.requests.len() == REQUESTS_MAX {
            return;
        }
        let topic = if self.mood.only_either { EITHER } else { self.random.below(self.topics.len()) };
        let scope = self.random.below(self.scopes.len());
        let validity = Validity::begin(&self.epochs, self.topics[topic].slot);
        self.numbered += 1;
        self.take_seat(self.numbered, worker, topic, scope, validity, 0);
    }

    /// What `exchange` does: the cache first, then a seat.
    fn take_seat(
        &mut self,
        number: usize,
        worker: usize,
        topic: usize,
        scope: usize,
        validity: Validity,
        attempts: usize,
    ) {
        let epoch = validity.epoch();
        self.events.push(Event::Asked { request: number, worker, topic, scope, epoch });
        let sharing = Rc::clone(&self.workers[worker].sharing);
        let question = &self.topics[topic].question;
        if let Found::Fresh(shared) = sharing.find(question, self.scopes[scope], self.now) {
            return self.check_answer(&shared, topic, scope, epoch);
        }
        let stage = Stage::Waits(sharing.take_seat(question, self.scopes[scope], epoch));
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        self.requests.push(Request { number, worker, topic, scope, validity, attempts, woken, stage });
    }

    fn check_answer(&self, shared: &Shared, topic: usize, scope: usize, epoch: u64) {
        let origin = &self.answers[number_of(shared).expect("answers are numbered")];
        assert_eq!(origin.topic, topic, "an answer to another question");
        let is_public = shared.scope == CacheScope::Public;
        assert!(is_public || origin.scope == scope, "a private answer of scope {} for {scope}", origin.scope);
        assert!(origin.epoch >= epoch, "an answer that was void when it was asked for");
    }

    fn poll_one(&mut self) {
        let woken: Vec<_> = (0..self.requests.len()).filter(|at| self.requests[*at].is_woken()).collect();
        if !woken.is_empty() {
            let at = *self.random.of(&woken);
            self.poll(at);
        }
    }

    fn poll(&mut self, at: usize) {
        let request = &mut self.requests[at];
        request.woken.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&request.woken));
        let mut cx = Context::from_waker(&waker);
        let number = request.number;
        match &mut request.stage {
            Stage::Waits(waiting) => match waiting.poll(&mut cx) {
                Poll::Pending => {}
                Poll::Ready(Turn::Lead(leading)) => {
                    request.stage = Stage::Leads(leading);
                    self.events.push(Event::Leads { request: number });
                }
                Poll::Ready(Turn::Landed(landing)) => {
                    let Request { worker, topic, scope, validity, attempts, .. } = self.requests.swap_remove(at);
                    self.events.push(Event::Told { request: number, landing: in_short(&landing) });
                    match landing {
                        Landing::Answer(shared) => self.check_answer(&shared, topic, scope, validity.epoch()),
                        Landing::Again if attempts + 1 < limits::SHARE_ATTEMPTS_MAX => {
                            self.take_seat(number, worker, topic, scope, validity, attempts + 1);
                        }
                        Landing::Again | Landing::Failed(_) | Landing::Leader => {}
                    }
                }
            },
            Stage::Leads(_) => {}
            Stage::CarriesOn(leading) => {
                if leading.poll_deserted(&mut cx).is_ready() {
                    self.events.push(Event::Deserted { request: number });
                    self.requests.swap_remove(at);
                }
            }
        }
    }

    fn drop_one(&mut self) {
        if !self.requests.is_empty() {
            let at = self.random.below(self.requests.len());
            self.drop_request(at);
        }
    }

    fn drop_request(&mut self, at: usize) {
        let mut request = self.requests.swap_remove(at);
        let number = request.number;
        match request.stage {
            Stage::Leads(leading) if leading.has_audience() && !self.random.once_in(4) => {
                self.events.push(Event::CarriesOn { request: number });
                request.stage = Stage::CarriesOn(leading);
                request.woken.0.store(true, Ordering::Relaxed);
                self.requests.push(request);
            }
            stage => {
                drop(stage);
                self.events.push(Event::Left { request: number });
            }
        }
    }

    fn land_one(&mut self) {
        let leaders = (0..self.requests.len()).filter(|at| !matches!(self.requests[*at].stage, Stage::Waits(_)));
        let leaders: Vec<_> = leaders.collect();
        if !leaders.is_empty() {
            let at = *self.random.of(&leaders);
            self.land(at);
        }
    }

    fn land(&mut self, at: usize) {
        let request = self.requests.swap_remove(at);
        let (Stage::Leads(leading) | Stage::CarriesOn(leading)) = request.stage else {
            return;
        };
        let landing = match self.random.below(8) {
            0 => Landing::Failed(ProxyError::Overloaded),
            1 => Landing::Leader,
            kind => {
                let is_public = match self.topics[request.topic].says {
                    Says::Private => false,
                    Says::Public => true,
                    Says::Either => kind % 3 != 0,
                };
                let scope = if is_public { "public" } else { "private" };
                let ttl_ms = if kind < 4 { 0 } else { 1000 };
                Landing::Answer(Arc::new(self.answer(request.topic, request.scope, request.validity, scope, ttl_ms)))
            }
        };
        self.events.push(Event::Landed { request: request.number, landing: in_short(&landing) });
        leading.land(&landing);
    }

    fn answer(&mut self, topic: usize, scope: usize, validity: Validity, cache_scope: &str, ttl_ms: u64) -> Shared {
        let number = self.answers.len();
        self.answers.push(Origin { topic, scope, epoch: validity.epoch() });
        let body = format!(
            r#"{{"id":1,"result":{{"ttlMs":{ttl_ms},"cacheScope":"{cache_scope}","resultType":"complete","number":{number}}}}}"#
        );
        Shared::of_body(&body, self.scopes[scope], validity, self.now)
    }

    fn pump_one(&mut self) {
        let worker = self.random.below(self.workers.len());
        // One message of many, so that they cross; or all, as a worker takes them.
        let max = if self.random.once_in(4) { usize::MAX } else { 1 };
        self.pump(worker, max);
    }

    /// Whether there was anything.
    fn pump(&mut self, index: usize, max: usize) -> bool {
        let (worker, mut taken, mut any) = (&self.workers[index], 0, false);
        let Some(mailbox) = &worker.mailbox else { return false };
        while taken < max
            && let Some(message) = mailbox.take_peer()
        {
            if !is_junk(&message) {
                self.events.push(Event::Received { worker: index, message: message_in_short(&message) });
                taken += 1;
            }
            worker.sharing.receive(message, self.now);
            any = true;
        }
        if max == usize::MAX {
            worker.sharing.flush();
        }
        any
    }

    fn invalidate(&mut self) {
        let topic = self.random.below(self.topics.len());
        self.epochs.advance(self.topics[topic].slot);
        self.events.push(Event::Invalidated { topic });
    }

    fn end_one(&mut self) {
        let index = self.random.below(self.workers.len());
        // One after the other: control is quicker than that, but a second may end before all know of the first.
        if self.workers[index].mailbox.is_none() {
            return;
        }
        self.disturbed = true;
        self.events.push(Event::Ended { worker: index });
        let (own, others) = std::mem::take(&mut self.requests).into_iter().partition(|request| request.worker == index);
        self.requests = others;
        let own: Vec<Request> = own;
        // Tasks that are freed leave, those that are not do not; some are while messages still get out.
        for (at, request) in own.into_iter().enumerate() {
            if at == 2 {
                self.workers[index].mailbox = None;
            }
            if self.random.once_in(2) { drop(request) } else { self.lost.push(request.stage) }
        }
        self.workers[index].mailbox = None;
    }

    /// Starts again who has ended, and tells the others.
    fn supervise(&mut self) {
        for index in 0..self.workers.len() {
            if self.workers[index].mailbox.is_some() {
                continue;
            }
            self.workers[index] = self.start(index);
            let first = self.workers[index].first;
            self.publish();
            self.workers.iter_mut().for_each(|worker| worker.news.push_back((index, first)));
            self.events.push(Event::Restarted { worker: index });
        }
    }

    /// Whether there were news.
    fn hear(&mut self, index: usize) -> bool {
        let worker = &mut self.workers[index];
        let Some((ended, successor)) = worker.news.pop_front().filter(|_| worker.mailbox.is_some()) else {
            return false;
        };
        self.events.push(Event::Heard { worker: index, ended });
        worker.sharing.peer_ended(ended, successor);
        true
    }

    fn stand_alone(&mut self) {
        let index = self.random.below(self.workers.len());
        self.disturbed = true;
        self.events.push(Event::StandsAlone { worker: index });
        self.workers[index].sharing.stand_alone();
    }

    /// Fills a mailbox but for a few places.
    fn congest(&mut self) {
        let index = self.random.below(self.workers.len());
        let room = self.random.below(3);
        self.disturbed = true;
        self.events.push(Event::Congested { worker: index });
        while self.peers.send(index, junk()).is_ok() {}
        if let Some(mailbox) = &self.workers[index].mailbox {
            for _ in 0..room {
                if let Some(message) = mailbox.take_peer() {
                    self.workers[index].sharing.receive(message, self.now);
                }
            }
        }
    }

    /// Delivers everything and lets everybody react, until nothing moves any more.
    fn settle(&mut self) {
        self.events.push(Event::Settles);
        for _ in 0..1000 {
            let mut moved = false;
            self.supervise();
            for index in 0..self.workers.len() {
                moved |= !self.workers[index].sharing.has_sent_all();
                moved |= self.hear(index);
                moved |= self.pump(index, usize::MAX);
            }
            while let Some(at) = self.requests.iter().position(Request::is_woken) {
                moved = true;
                self.poll(at);
            }
            if !moved {
                self.check();
                return self.check_settled();
            }
        }
        panic!("messages go round and round");
    }

    /// What holds at any moment.
    fn check(&self) {
        for (index, worker) in self.workers.iter().enumerate() {
            if worker.mailbox.is_none() {
                continue;
            }
            let state = worker.sharing.state.borrow();
            state.flights.check();
            let own = self.requests.iter().filter(|request| request.worker == index).count();
            assert_eq!(state.seats.len(), own, "seats of worker {index}");
            for ticket in state.abroad.keys() {
                assert!(state.flights.leader(*ticket).is_some(), "{ticket:?} waits for an owner without a crew");
            }
        }
        // Who cannot be asked, or has to be replaced, is replaced at the price of a second exchange.
        if self.disturbed {
            return;
        }
        let leaders: Vec<_> = self.requests.iter().filter(|request| request.leads()).collect();
        for (at, one) in leaders.iter().enumerate() {
            for other in &leaders[..at] {
                let same = one.topic == other.topic && one.validity.epoch() == other.validity.epoch();
                let may_share = match self.topics[one.topic].says {
                    Says::Private => one.scope == other.scope,
                    Says::Public => true,
                    // While workers learn it, one after the other, two may ask.
                    Says::Either => false,
                };
                assert!(!same || !may_share, "requests {} and {} both lead", one.number, other.number);
            }
        }
    }

    /// What holds when every message has arrived and everybody has reacted.
    fn check_settled(&self) {
        for request in &self.requests {
            let same = |other: &&Request| {
                other.topic == request.topic && other.validity.epoch() == request.validity.epoch() && other.leads()
            };
            assert!(self.requests.iter().any(|other| same(&other)), "request {} waits for nobody", request.number);
            let (Stage::Leads(leading) | Stage::CarriesOn(leading)) = &request.stage else {
                continue;
            };
            let is_watched = matches!(request.stage, Stage::CarriesOn(_));
            assert!(!is_watched || leading.has_audience(), "request {} leads for nobody", request.number);
        }
        for (index, worker) in self.workers.iter().enumerate() {
            let state = worker.sharing.state.borrow();
            for (ticket, abroad) in &state.abroad {
                let member = Member::Peer { worker: index, ticket: *ticket };
                let owner = self.workers[abroad.owner].sharing.state.borrow();
                let flight = owner.flights.of_peer(index, *ticket).expect("the owner knows who waits");
                assert_eq!(abroad.leads, owner.flights.leader(flight) == Some(member), "who leads {flight:?}");
                let waits = owner.flights.followers(flight) > 0;
                assert!(self.disturbed || !abroad.leads || abroad.audience == waits, "audience of {flight:?}");
            }
            for (flight, member, leads) in state.flights.members() {
                let Member::Peer { worker, ticket } = member else { continue };
                let is_known = self.workers[worker].sharing.state.borrow().abroad.contains_key(&ticket);
                // One whose question was still on its way when its worker ended follows to the landing.
                let is_past = ticket < self.workers[worker].first && !leads;
                assert!(is_known || is_past, "{member:?} of {flight:?} has left");
            }
        }
    }
}

impl Request {
    fn is_woken(&self) -> bool {
        self.woken.0.load(Ordering::Relaxed)
    }

    fn leads(&self) -> bool {
        !matches!(self.stage, Stage::Waits(_))
    }
}

/// A message that changes nothing.
fn junk() -> PeerMessage {
    PeerMessage::Audience { ticket: FlightId(u64::MAX), waits: false }
}

fn is_junk(message: &PeerMessage) -> bool {
    matches!(message, PeerMessage::Audience { ticket: FlightId(u64::MAX), .. })
}

fn in_short(landing: &Landing) -> String {
    match landing {
        Landing::Answer(shared) => format!("{:?} answer {:?}", shared.scope, number_of(shared)),
        Landing::Failed(_) => "failed".into(),
        Landing::Leader => "for the leader".into(),
        Landing::Again => "again".into(),
    }
}

fn message_in_short(message: &PeerMessage) -> String {
    match message {
        PeerMessage::Ask { from, ticket, epoch, .. } => format!("ask from {from}, {ticket:?}, epoch {epoch}"),
        PeerMessage::Done { from, ticket, landing, .. } => {
            format!("done from {from}, {ticket:?}, {}", in_short(landing))
        }
        PeerMessage::Landed { ticket, landing, .. } => format!("landed, {ticket:?}, {}", in_short(landing)),
        other => format!("{other:?}"),
    }
}

/// The number of an answer.
fn number_of(shared: &Shared) -> Option<usize> {
    let (_, number) = std::str::from_utf8(&shared.body).ok()?.rsplit_once("\"number\":")?;
    number.trim_end_matches('}').parse().ok()
}
