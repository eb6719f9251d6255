//! Requests of this worker that wait for one answer, and how workers agree on who fetches it.
//!
//! A request that may share takes a seat. The first one of its question leads: at once if this worker
//! owns the question, else when the owner says so. Who leads fetches the answer and lands it; who
//! follows is told. What keeps anybody from waiting for ever:
//!
//! - a leader that ends without landing (its guard is dropped) makes the next of its crew the leader;
//! - a worker that ends is reported to all others, whose requests then ask again;
//! - a worker that drains asks no other one any more;
//! - an owner that cannot be reached is not waited for: its askers share among themselves.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use ahash::{AHashMap, RandomState};
use slab::Slab;

use crate::coalesce::{
    Cache, Departure, FlightId, Flights, Found, Joined, Member, Question, QuestionBuilder, Scope, Shared,
};
use crate::limits;
use crate::seam::{Landing, PeerMessage, Peers, Undelivered};

/// All sharing of one worker.
pub(super) struct Sharing {
    me: usize,
    peers: Arc<Peers>,
    hasher: RandomState,
    state: RefCell<State>,
    /// Where questions are put together.
    scratch: RefCell<Vec<u8>>,
}

struct State {
    flights: Flights,
    /// Flights here whose question another worker owns.
    abroad: AHashMap<FlightId, Abroad>,
    seats: Slab<Seat>,
    cache: Cache,
    /// Messages that must not be lost and found a mailbox full, by the worker they are for. Bounded by
    /// the questions under way: a worker with messages waiting is asked nothing new.
    outbox: BTreeMap<usize, VecDeque<PeerMessage>>,
    /// Asks no other worker: this one drains.
    alone: bool,
    /// Tells no other worker anything: this one falls.
    silent: bool,
}

/// A flight here as its owner knows it.
struct Abroad {
    owner: usize,
    /// The owner has said: lead.
    leads: bool,
    /// Whether others wait at the owner's.
    audience: bool,
}

/// A request that waits, or leads.
#[derive(Default)]
struct Seat {
    turn: Option<Told>,
    waker: Option<Waker>,
}

enum Told {
    Lead,
    Landed(Landing),
}

/// A request's turn.
pub(super) enum Turn {
    /// Fetch the answer and land it.
    Lead(Leading),
    /// It came out.
    Landed(Landing),
}

/// A request that waits for its turn. Dropped, it leaves.
pub(super) struct Waiting {
    sharing: Rc<Sharing>,
    flight: FlightId,
    seat: usize,
    over: bool,
}

/// The duty to land a flight. Dropped, it goes to the next of the crew.
pub(super) struct Leading {
    sharing: Rc<Sharing>,
    flight: FlightId,
    seat: usize,
    over: bool,
}

impl Sharing {
    pub(super) fn new(me: usize, first: FlightId, peers: Arc<Peers>, hasher: RandomState) -> Self {
        let state = State {
            flights: Flights::new(first),
            abroad: AHashMap::new(),
            seats: Slab::new(),
            cache: Cache::default(),
            outbox: BTreeMap::new(),
            alone: false,
            silent: false,
        };
        Self { me, peers, hasher, state: RefCell::new(state), scratch: RefCell::default() }
    }

    /// Puts a question together.
    pub(super) fn question(&self, build: impl FnOnce(&mut QuestionBuilder<'_>)) -> Question {
        let mut scratch = self.scratch.borrow_mut();
        let mut builder = QuestionBuilder::new(&mut scratch);
        build(&mut builder);
        builder.finish(&self.hasher)
    }

    /// Whether what goes by this name, of which a process has one, falls to this worker.
    pub(super) fn owns(&self, name: &[u8]) -> bool {
        self.question(|question| question.part(name)).owner(self.peers.len()) == self.me
    }

    /// Tells the others how many streams this worker carries; nothing if it takes no connections.
    pub(super) fn tell_load(&self, streams: Option<usize>) {
        self.peers.tell_load(self.me, streams);
    }

    /// The worker with the fewest streams, if this one has far more.
    pub(super) fn lighter_worker(&self) -> Option<usize> {
        self.peers.lighter_than(self.me)
    }

    /// Hands a connection to another worker. It comes back if that takes none.
    pub(super) fn hand_over(&self, worker: usize, connection: PeerMessage) -> Option<PeerMessage> {
        match self.peers.send(worker, connection) {
            Ok(()) => None,
            Err(Undelivered::Full(connection) | Undelivered::Ended(connection)) => Some(connection),
        }
    }

    /// What the cache has.
    pub(super) fn find(&self, question: &Question, scope: Scope, now: Instant) -> Found {
        self.state.borrow().cache.find(question, scope, now)
    }

    /// Entries and bytes of the cache.
    pub(super) fn cached(&self) -> (usize, u64) {
        let state = self.state.borrow();
        (state.cache.len(), state.cache.bytes())
    }

    /// Sets the cache's bound.
    pub(super) fn resize(&self, bytes_max: u64) {
        self.state.borrow_mut().cache.resize(bytes_max);
    }

    /// Drops what can not be served any more, and sends what could not be sent.
    pub(super) fn sweep(&self, now: Instant) {
        self.state.borrow_mut().cache.sweep(now);
        self.flush();
    }

    /// Keeps an answer that was fetched for one asker.
    pub(super) fn keep(&self, question: &Question, landing: &Landing) {
        if let Landing::Answer(shared) = landing {
            self.state.borrow_mut().cache.keep(question, shared);
        }
    }

    /// A seat at the flight of a question.
    pub(super) fn take_seat(self: &Rc<Self>, question: &Question, scope: Scope, epoch: u64) -> Waiting {
        let state = &mut *self.state.borrow_mut();
        let seat = state.seats.insert(Seat::default());
        let public = state.cache.is_known_public(question);
        let joined = state.flights.join(question, scope, public, epoch, Member::Seat(seat));
        if joined.leads && !self.ask_owner(state, question, scope, epoch, joined.flight) {
            state.seats[seat].turn = Some(Told::Lead);
        }
        if !joined.leads {
            self.tell_audience(state, joined.flight);
        }
        Waiting { sharing: Rc::clone(self), flight: joined.flight, seat, over: false }
    }

    /// Asks the question's owner who is to lead; `false` if that is for this worker to say.
    fn ask_owner(&self, state: &mut State, question: &Question, scope: Scope, epoch: u64, ticket: FlightId) -> bool {
        let owner = question.owner(self.peers.len());
        if owner == self.me || state.alone || state.outbox.contains_key(&owner) {
            return false;
        }
        if state.abroad.len() >= limits::PEER_TICKETS_MAX {
            return false;
        }
        let ask = PeerMessage::Ask { from: self.me, ticket, question: question.clone(), scope, epoch };
        let asked = self.peers.send(owner, ask).is_ok();
        if asked {
            state.abroad.insert(ticket, Abroad { owner, leads: false, audience: false });
        }
        asked
    }

    /// Takes a message of another worker.
    pub(super) fn receive(&self, message: PeerMessage, now: Instant) {
        let state = &mut *self.state.borrow_mut();
        match message {
            PeerMessage::Ask { from, ticket, question, scope, epoch } => {
                if let Found::Fresh(shared) = state.cache.find(&question, scope, now) {
                    let landing = Landing::Answer(shared);
                    return self.send(state, from, PeerMessage::Landed { ticket, landing });
                }
                let public = state.cache.is_known_public(&question);
                let member = Member::Peer { worker: from, ticket };
                let Joined { flight, leads } = state.flights.join(&question, scope, public, epoch, member);
                if leads { self.appoint(state, flight, member) } else { self.tell_audience(state, flight) }
            }
            PeerMessage::Leave { from, ticket } => {
                if let Some(flight) = state.flights.of_peer(from, ticket) {
                    self.leave(state, flight, Member::Peer { worker: from, ticket });
                }
            }
            PeerMessage::Done { from, ticket, landing } => {
                let leader = Member::Peer { worker: from, ticket };
                let flight = state.flights.of_peer(from, ticket);
                if let Some(flight) = flight.filter(|flight| state.flights.leader(*flight) == Some(leader)) {
                    self.land(state, flight, &landing, Some(leader));
                }
            }
            PeerMessage::Lead { owner, ticket } => match state.abroad.get_mut(&ticket) {
                Some(abroad) => {
                    abroad.leads = true;
                    let leader = state.flights.leader(ticket);
                    leader.into_iter().for_each(|leader| self.appoint(state, ticket, leader));
                }
                // All who asked have left meanwhile.
                None => self.send(state, owner, PeerMessage::Leave { from: self.me, ticket }),
            },
            PeerMessage::Landed { ticket, landing } => {
                if state.abroad.remove(&ticket).is_some() {
                    self.land(state, ticket, &landing, None);
                }
            }
            // For who accepts connections, not for who shares answers.
            PeerMessage::Connection { .. } => {}
            PeerMessage::Audience { ticket, waits } => {
                if let Some(abroad) = state.abroad.get_mut(&ticket) {
                    abroad.audience = waits;
                    wake_leader(state, ticket);
                }
            }
        }
    }

    /// A worker has ended. `successor`: the first flight of the one in its place.
    pub(super) fn peer_ended(&self, worker: usize, successor: FlightId) {
        let state = &mut *self.state.borrow_mut();
        for (flight, member) in state.flights.members_of(worker, successor) {
            self.leave(state, flight, member);
        }
        self.withdraw(state, |abroad| abroad.owner == worker);
    }

    /// From now on this worker's requests share among themselves only. Who leads for others goes on.
    pub(super) fn stand_alone(&self) {
        let state = &mut *self.state.borrow_mut();
        state.alone = true;
        self.withdraw(state, |abroad| !abroad.leads);
    }

    /// From now on other workers hear nothing of this one: what its flights come to is the doing of its
    /// end, of which control tells them.
    pub(super) fn fall_silent(&self) {
        let state = &mut *self.state.borrow_mut();
        state.silent = true;
        state.outbox.clear();
    }

    /// Leaves the flights of some owners: who leads goes on and lands here, who waits asks again. An
    /// owner that still lives, or has heard of a flight although it has just taken another's place, is
    /// told: it must neither wait for who leads here, nor let a leader go on for who waits here.
    fn withdraw(&self, state: &mut State, of: impl Fn(&Abroad) -> bool) {
        let tickets = state.abroad.iter().filter(|(_, abroad)| of(abroad)).map(|(ticket, _)| *ticket);
        let mut tickets: Vec<_> = tickets.collect();
        tickets.sort_unstable();
        for ticket in tickets {
            let Some(Abroad { owner, leads, .. }) = state.abroad.remove(&ticket) else {
                continue;
            };
            self.send(state, owner, PeerMessage::Leave { from: self.me, ticket });
            if leads {
                wake_leader(state, ticket);
            } else {
                self.land(state, ticket, &Landing::Again, None);
            }
        }
    }

    /// Tells a member to lead.
    fn appoint(&self, state: &mut State, flight: FlightId, member: Member) {
        match member {
            Member::Seat(seat) => tell(state, seat, Told::Lead),
            Member::Peer { worker, ticket } => {
                self.send(state, worker, PeerMessage::Lead { owner: self.me, ticket });
                if state.flights.followers(flight) > 0 {
                    self.send(state, worker, PeerMessage::Audience { ticket, waits: true });
                }
            }
        }
    }

    /// Tells a leader elsewhere whether somebody waits beside it, when that has just changed: of a
    /// herd only the first is news.
    fn tell_audience(&self, state: &mut State, flight: FlightId) {
        let followers = state.flights.followers(flight);
        if let Some(Member::Peer { worker, ticket }) = state.flights.leader(flight)
            && followers <= 1
        {
            self.send(state, worker, PeerMessage::Audience { ticket, waits: followers == 1 });
        }
    }

    /// Takes a member out of its flight.
    fn leave(&self, state: &mut State, flight: FlightId, member: Member) {
        match state.flights.leave(flight, member) {
            Departure::NotThere => {}
            Departure::Followed => {
                self.tell_audience(state, flight);
                wake_leader(state, flight);
            }
            Departure::Promoted(next) => {
                // Who is first at a flight whose owner has not answered yet only waits first.
                if state.abroad.get(&flight).is_none_or(|abroad| abroad.leads) {
                    self.appoint(state, flight, next);
                }
            }
            Departure::Last => {
                if let Some(Abroad { owner, .. }) = state.abroad.remove(&flight) {
                    self.send(state, owner, PeerMessage::Leave { from: self.me, ticket: flight });
                }
            }
        }
    }

    /// Ends a flight. All of its crew are told but `by`, who brought the news.
    fn land(&self, state: &mut State, flight: FlightId, landing: &Landing, by: Option<Member>) {
        let Some((question, crew)) = state.flights.land(flight) else {
            return;
        };
        if let Landing::Answer(shared) = landing {
            state.cache.keep(&question, shared);
        }
        for (member, scope) in crew {
            match member {
                _ if Some(member) == by => {}
                Member::Seat(seat) => tell(state, seat, Told::Landed(for_scope(landing, scope))),
                // Those who ask there now need not be those who asked first: their worker knows.
                Member::Peer { worker, ticket } => {
                    self.send(state, worker, PeerMessage::Landed { ticket, landing: landing.clone() });
                }
            }
        }
    }

    /// Sends what must not be lost.
    fn send(&self, state: &mut State, worker: usize, message: PeerMessage) {
        if state.silent {
            return;
        }
        let undelivered = match state.outbox.contains_key(&worker) {
            // Behind what waits already: messages of one flight keep their order.
            true => Err(Undelivered::Full(message)),
            false => self.peers.send(worker, message),
        };
        if let Err(Undelivered::Full(message)) = undelivered {
            state.outbox.entry(worker).or_default().push_back(message);
        }
    }

    /// Sends what waits to be sent. A worker that takes nothing holds up no other one's messages.
    pub(super) fn flush(&self) {
        self.state.borrow_mut().outbox.retain(|worker, messages| {
            while let Some(message) = messages.pop_front() {
                if let Err(Undelivered::Full(message)) = self.peers.send(*worker, message) {
                    messages.push_front(message);
                    return true;
                }
            }
            false
        });
    }

    /// Whether every message has been sent that others wait for.
    pub(super) fn has_sent_all(&self) -> bool {
        self.state.borrow().outbox.is_empty()
    }
}

/// What an asker is told of a landing. A private answer is for the scope it was fetched for, whoever
/// of a crew was first: who led may have left, and the next be somebody else.
fn for_scope(landing: &Landing, scope: Scope) -> Landing {
    match landing {
        Landing::Answer(shared) if !shared.is_for(scope) => Landing::Again,
        landing => landing.clone(),
    }
}

fn tell(state: &mut State, seat: usize, told: Told) {
    let seat = &mut state.seats[seat];
    seat.turn = Some(told);
    seat.waker.take().into_iter().for_each(Waker::wake);
}

/// A leader whose client has left waits to hear whether anybody is left to fetch for.
fn wake_leader(state: &mut State, flight: FlightId) {
    if let Some(Member::Seat(seat)) = state.flights.leader(flight) {
        state.seats[seat].waker.take().into_iter().for_each(Waker::wake);
    }
}

impl Waiting {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        let told = {
            let seat = &mut self.sharing.state.borrow_mut().seats[self.seat];
            match seat.turn.take() {
                Some(told) => told,
                None => {
                    seat.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        };
        self.over = true;
        Poll::Ready(match told {
            Told::Lead => {
                let Self { flight, seat, .. } = *self;
                Turn::Lead(Leading { sharing: Rc::clone(&self.sharing), flight, seat, over: false })
            }
            Told::Landed(landing) => {
                self.sharing.state.borrow_mut().seats.remove(self.seat);
                Turn::Landed(landing)
            }
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.over {
            self.sharing.give_up(self.flight, self.seat);
        }
    }
}

impl Sharing {
    fn give_up(&self, flight: FlightId, seat: usize) {
        let state = &mut *self.state.borrow_mut();
        self.leave(state, flight, Member::Seat(seat));
        state.seats.remove(seat);
    }
}

impl Leading {
    /// Whether somebody else waits for the answer.
    pub(super) fn has_audience(&self) -> bool {
        let state = self.sharing.state.borrow();
        state.flights.followers(self.flight) > 0 || state.abroad.get(&self.flight).is_some_and(|abroad| abroad.audience)
    }

    /// Ready once nobody waits for the answer.
    pub(super) fn poll_deserted(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.has_audience() {
            return Poll::Ready(());
        }
        self.sharing.state.borrow_mut().seats[self.seat].waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Tells all who wait, here and elsewhere, and keeps what may be kept.
    pub(super) fn land(mut self, landing: &Landing) {
        self.over = true;
        let sharing = Rc::clone(&self.sharing);
        let state = &mut *sharing.state.borrow_mut();
        if let Some(Abroad { owner, .. }) = state.abroad.remove(&self.flight) {
            let done = PeerMessage::Done { from: sharing.me, ticket: self.flight, landing: landing.clone() };
            sharing.send(state, owner, done);
        }
        sharing.land(state, self.flight, landing, Some(Member::Seat(self.seat)));
        state.seats.remove(self.seat);
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        if !self.over {
            self.sharing.give_up(self.flight, self.seat);
        }
    }
}

/// An answer as it is kept and handed round.
pub(super) type Answer = Arc<Shared>;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
