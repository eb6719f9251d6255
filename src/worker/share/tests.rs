//! Single stories that chance seldom tells; the rest is in `simulation`.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use ahash::RandomState;

use super::{Leading, Sharing, Turn, Waiting};
use crate::coalesce::{Epochs, FlightId, Found, Question, Scope, Shared, Slot, Validity};
use crate::limits;
use crate::mcp::MethodLabel;
use crate::seam::{Landing, Mailbox, PeerMessage, Peers, mailbox};

/// Workers with their mailboxes.
struct Fleet {
    peers: Arc<Peers>,
    workers: Vec<(Rc<Sharing>, Mailbox)>,
    epochs: Arc<Epochs>,
    now: Instant,
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Fleet {
    fn new(count: usize) -> Self {
        let (peers, hasher) = (Arc::new(Peers::default()), RandomState::new());
        let mut workers = Vec::new();
        let mut handles = Vec::new();
        for index in 0..count {
            let (handle, mailbox) = mailbox().expect("a socket pair");
            let first = FlightId((index as u64) << 40);
            let sharing = Rc::new(Sharing::new(index, first, Arc::clone(&peers), hasher.clone()));
            sharing.resize(1 << 20);
            handles.push(handle);
            workers.push((sharing, mailbox));
        }
        peers.publish(handles);
        Self { peers, workers, epochs: Arc::default(), now: crate::clock::now() }
    }

    /// Different questions that all belong to one worker.
    fn questions_of(&self, owner: usize) -> impl Iterator<Item = Question> {
        let numbers = 0_u32..;
        let questions =
            numbers.map(|number| self.workers[0].0.question(|question| question.part(&number.to_le_bytes())));
        questions.filter(move |question| question.owner(self.workers.len()) == owner)
    }

    fn question_of(&self, owner: usize) -> Question {
        self.questions_of(owner).next().expect("endless")
    }

    fn ask(&self, worker: usize, question: &Question, asker: &str) -> Waiting {
        self.workers[worker].0.take_seat(question, scope(asker), 0)
    }

    /// Delivers every message.
    fn pump(&self) {
        for _ in 0..8 {
            for (sharing, mailbox) in &self.workers {
                while let Some(message) = mailbox.take_peer() {
                    sharing.receive(message, self.now);
                }
                sharing.flush();
            }
        }
    }

    fn answer(&self, asker: &str, cache_scope: &str, ttl_ms: u64) -> Landing {
        let validity = Validity::begin(&self.epochs, Slot::of(MethodLabel::ToolsList, b""));
        let body = format!(r#"{{"id":1,"result":{{"ttlMs":{ttl_ms},"cacheScope":"{cache_scope}"}}}}"#);
        Landing::Answer(Arc::new(Shared::of_body(&body, scope(asker), validity, self.now)))
    }

    /// Every worker learns that answers to a question are public.
    fn make_public(&self, question: &Question) {
        let answer = self.answer("nobody", "public", 0);
        self.workers.iter().for_each(|(sharing, _)| sharing.keep(question, &answer));
    }

    fn has(&self, worker: usize, question: &Question, asker: &str) -> bool {
        matches!(self.workers[worker].0.find(question, scope(asker), self.now), Found::Fresh(_))
    }
}

fn scope(name: &str) -> Scope {
    Scope::of(std::iter::once((&b"authorization"[..], name.as_bytes())))
}

fn turn(waiting: &mut Waiting) -> Option<Turn> {
    match waiting.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(turn) => Some(turn),
        Poll::Pending => None,
    }
}

fn leads(mut waiting: Waiting) -> Leading {
    match turn(&mut waiting) {
        Some(Turn::Lead(leading)) => leading,
        Some(Turn::Landed(landing)) => panic!("{landing:?} before it was asked"),
        None => panic!("it only waits"),
    }
}

fn landed(mut waiting: Waiting) -> Landing {
    match turn(&mut waiting) {
        Some(Turn::Landed(landing)) => landing,
        Some(Turn::Lead(_)) => panic!("it leads"),
        None => panic!("it only waits"),
    }
}

#[test]
fn p_061_an_owner_goes_by_who_led_and_not_by_who_asked_first() {
    let fleet = Fleet::new(2);
    let question = fleet.question_of(0);
    fleet.make_public(&question);
    let first = fleet.ask(1, &question, "alice");
    let second = fleet.ask(1, &question, "bob");
    fleet.pump();
    let followers = [fleet.ask(0, &question, "alice"), fleet.ask(0, &question, "bob")];
    // The owner does not hear of it: somebody there still leads.
    drop(first);
    leads(second).land(&fleet.answer("bob", "private", 1_000));
    fleet.pump();
    let [alice, bob] = followers.map(landed);
    assert!(matches!(alice, Landing::Again), "{alice:?}");
    assert!(matches!(bob, Landing::Answer(_)), "{bob:?}");
    for worker in [0, 1] {
        assert!(!fleet.has(worker, &question, "alice") && fleet.has(worker, &question, "bob"), "worker {worker}");
    }
}

#[test]
fn p_061_a_worker_goes_by_who_led_and_not_by_who_asks_first_there() {
    let fleet = Fleet::new(2);
    let question = fleet.question_of(0);
    fleet.make_public(&question);
    let leader = leads(fleet.ask(0, &question, "alice"));
    let first = fleet.ask(1, &question, "alice");
    let second = fleet.ask(1, &question, "bob");
    let third = fleet.ask(1, &question, "alice");
    fleet.pump();
    drop(first);
    leader.land(&fleet.answer("alice", "private", 1_000));
    fleet.pump();
    let (bob, alice) = (landed(second), landed(third));
    assert!(matches!(bob, Landing::Again), "{bob:?}");
    assert!(matches!(alice, Landing::Answer(_)), "{alice:?}");
    assert!(!fleet.has(1, &question, "bob") && fleet.has(1, &question, "alice"));
}

#[test]
fn p_074_who_fetches_for_a_worker_that_ends_looks_again_whether_anybody_waits() {
    let fleet = Fleet::new(2);
    let question = fleet.question_of(0);
    let leader = fleet.ask(1, &question, "alice");
    fleet.pump();
    let _follower = fleet.ask(0, &question, "alice");
    fleet.pump();
    let leader = leads(leader);
    assert!(leader.has_audience());
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    assert!(leader.poll_deserted(&mut Context::from_waker(&waker)).is_pending());
    fleet.workers[1].0.peer_ended(0, FlightId(9 << 40));
    assert!(woken.0.load(Ordering::Relaxed), "nothing wakes it");
    assert!(leader.poll_deserted(&mut Context::from_waker(&waker)).is_ready());
}

#[test]
fn a_successor_that_let_somebody_lead_does_not_wait_for_the_answer() {
    let fleet = Fleet::new(2);
    let question = fleet.question_of(0);
    // Worker 0 is a successor already, of which worker 1 hears last.
    let leader = fleet.ask(1, &question, "alice");
    fleet.pump();
    let follower = fleet.ask(0, &question, "alice");
    fleet.workers[1].0.peer_ended(0, FlightId(0));
    leads(leader).land(&fleet.answer("alice", "private", 0));
    fleet.pump();
    leads(follower);
}

#[test]
fn a_draining_worker_is_no_audience() {
    let fleet = Fleet::new(2);
    let question = fleet.question_of(0);
    let leader = leads(fleet.ask(0, &question, "alice"));
    let follower = fleet.ask(1, &question, "alice");
    fleet.pump();
    assert!(leader.has_audience());
    fleet.workers[1].0.stand_alone();
    fleet.pump();
    assert!(!leader.has_audience());
    assert!(matches!(landed(follower), Landing::Again));
    leads(fleet.ask(1, &question, "alice"));
}

#[test]
fn beyond_the_tickets_a_worker_asks_nobody() {
    let fleet = Fleet::new(2);
    let questions: Vec<_> = fleet.questions_of(0).take(limits::PEER_TICKETS_MAX + 1).collect();
    let mut waiting: Vec<_> = questions.iter().map(|question| fleet.ask(1, question, "alice")).collect();
    leads(waiting.pop().expect("one more"));
    let mut other = fleet.ask(1, &questions[limits::PEER_TICKETS_MAX - 1], "alice");
    assert!(turn(&mut other).is_none(), "who shares a ticket waits");
    drop(waiting.pop());
    assert!(turn(&mut fleet.ask(1, &questions[limits::PEER_TICKETS_MAX], "alice")).is_some(), "no ticket is free");
    drop(other);
    assert!(turn(&mut fleet.ask(1, &questions[limits::PEER_TICKETS_MAX], "alice")).is_none(), "one is free");
}

#[test]
fn a_full_mailbox_holds_up_no_other_worker() {
    let fleet = Fleet::new(3);
    let question = fleet.question_of(0);
    let leader = leads(fleet.ask(0, &question, "alice"));
    let (slow, quick) = (fleet.ask(1, &question, "alice"), fleet.ask(2, &question, "alice"));
    fleet.pump();
    let fill = || PeerMessage::Audience { ticket: FlightId(u64::MAX), waits: false };
    while fleet.peers.send(1, fill()).is_ok() {}
    leader.land(&fleet.answer("alice", "public", 0));
    assert!(!fleet.workers[0].0.has_sent_all());
    let (sharing, mailbox) = &fleet.workers[2];
    while let Some(message) = mailbox.take_peer() {
        sharing.receive(message, fleet.now);
    }
    assert!(matches!(landed(quick), Landing::Answer(_)));
    // Nothing new is asked of a worker that has not been told the old.
    leads(fleet.ask(0, &fleet.question_of(1), "alice"));
    fleet.pump();
    assert!(matches!(landed(slow), Landing::Answer(_)));
    assert!(fleet.workers[0].0.has_sent_all());
}
