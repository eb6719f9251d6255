//! Who waits for which answer.
//!
//! A flight gathers askers of one question; the first of its crew leads, which is to fetch the
//! answer. Pure bookkeeping: the caller wakes, sends and fetches.

use ahash::AHashMap;

use super::{Question, Scope};

/// Number of a flight, never given twice in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlightId(pub u64);

/// Somebody at a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Member {
    /// A request of this worker, by its seat.
    Seat(usize),
    /// All that gather at a flight of another worker.
    Peer {
        /// Which worker.
        worker: usize,
        /// Its flight.
        ticket: FlightId,
    },
}

/// What came of joining.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Where the member is now.
    pub flight: FlightId,
    /// Whether it is the first there.
    pub leads: bool,
}

/// What came of leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// Nothing: it was not there.
    NotThere,
    /// A follower left; the leader goes on.
    Followed,
    /// The leader left, and this one leads now.
    Promoted(Member),
    /// It was the last; the flight is gone.
    Last,
}

/// The flights of one worker.
#[derive(Debug)]
pub struct Flights {
    by_key: AHashMap<Key, FlightId>,
    all: AHashMap<FlightId, Flight>,
    peers: AHashMap<(usize, FlightId), FlightId>,
    next: u64,
}

/// Askers that wait for the same answer: of one scope, or of any if answers are known to be public. Who
/// asks after something has made answers void may not be given one that was begun before; who asked
/// earlier may still come later, from another worker or for the second time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    question: Question,
    scope: Option<Scope>,
    epoch: u64,
}

#[derive(Debug)]
struct Flight {
    key: Key,
    /// The first leads.
    crew: Vec<(Member, Scope)>,
}

impl Flights {
    /// Numbers begin at `first`.
    #[must_use]
    pub fn new(first: FlightId) -> Self {
        Self { by_key: AHashMap::new(), all: AHashMap::new(), peers: AHashMap::new(), next: first.0 }
    }

    /// Adds a member to the flight for a question as it stood at `epoch`, a new one if there is none.
    /// `public`: answers are known to be for everybody.
    pub fn join(&mut self, question: &Question, scope: Scope, public: bool, epoch: u64, member: Member) -> Joined {
        let own = Key { question: question.clone(), scope: Some(scope), epoch };
        let everybodys = Key { scope: None, ..own.clone() };
        // What is known of answers may have changed since a flight began: whoever is asking on behalf of
        // `scope` already asks for this one too.
        let theirs = || self.by_key.get(&everybodys).filter(|id| public || self.scope_of_leader(**id) == Some(scope));
        let there = self.by_key.get(&own).or_else(theirs).copied();
        let id = there.unwrap_or_else(|| {
            let id = FlightId(self.next);
            self.next += 1;
            let key = if public { everybodys } else { own };
            self.by_key.insert(key.clone(), id);
            self.all.insert(id, Flight { key, crew: Vec::new() });
            id
        });
        if let Member::Peer { worker, ticket } = member {
            self.peers.insert((worker, ticket), id);
        }
        let crew = &mut self.flight(id).crew;
        crew.push((member, scope));
        Joined { flight: id, leads: crew.len() == 1 }
    }

    fn flight(&mut self, id: FlightId) -> &mut Flight {
        self.all.get_mut(&id).expect("an id that was just found")
    }

    /// Ends a flight: all who were there, the leader first, and the question.
    pub fn land(&mut self, id: FlightId) -> Option<(Question, Vec<(Member, Scope)>)> {
        let flight = self.all.remove(&id)?;
        self.by_key.remove(&flight.key);
        for (member, _) in &flight.crew {
            self.forget(*member);
        }
        Some((flight.key.question, flight.crew))
    }

    /// Takes a member out of a flight.
    pub fn leave(&mut self, id: FlightId, member: Member) -> Departure {
        let Some(flight) = self.all.get_mut(&id) else {
            return Departure::NotThere;
        };
        let Some(at) = flight.crew.iter().position(|(other, _)| *other == member) else {
            return Departure::NotThere;
        };
        flight.crew.remove(at);
        let next = flight.crew.first().map(|(member, _)| *member);
        self.forget(member);
        match next {
            None => {
                self.land(id);
                Departure::Last
            }
            Some(next) if at == 0 => Departure::Promoted(next),
            Some(_) => Departure::Followed,
        }
    }

    fn forget(&mut self, member: Member) {
        if let Member::Peer { worker, ticket } = member {
            self.peers.remove(&(worker, ticket));
        }
    }

    /// The flight where another worker's flight waits.
    #[must_use]
    pub fn of_peer(&self, worker: usize, ticket: FlightId) -> Option<FlightId> {
        self.peers.get(&(worker, ticket)).copied()
    }

    /// Who leads a flight.
    #[must_use]
    pub fn leader(&self, id: FlightId) -> Option<Member> {
        self.all.get(&id)?.crew.first().map(|(member, _)| *member)
    }

    /// On whose behalf it asks.
    fn scope_of_leader(&self, id: FlightId) -> Option<Scope> {
        self.all.get(&id)?.crew.first().map(|(_, scope)| *scope)
    }

    /// How many wait beside the leader.
    #[must_use]
    pub fn followers(&self, id: FlightId) -> usize {
        self.all.get(&id).map_or(0, |flight| flight.crew.len() - 1)
    }

    /// Members that stand for flights of a worker numbered below `before`: those of a worker that
    /// has ended, in the order it began them.
    #[must_use]
    pub fn members_of(&self, worker: usize, before: FlightId) -> Vec<(FlightId, Member)> {
        let of_worker = self.peers.iter().filter(|((peer, ticket), _)| *peer == worker && *ticket < before);
        let mut of_worker: Vec<_> = of_worker.map(|((_, ticket), id)| (*ticket, *id)).collect();
        of_worker.sort_unstable();
        of_worker.into_iter().map(|(ticket, id)| (id, Member::Peer { worker, ticket })).collect()
    }

    /// Whether nobody waits for anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty() && self.by_key.is_empty() && self.peers.is_empty()
    }
}

#[cfg(test)]
impl Flights {
    /// That the tables agree with each other.
    pub(crate) fn check(&self) {
        for (key, id) in &self.by_key {
            assert!(self.all.get(id).is_some_and(|flight| flight.key == *key), "open without a flight: {id:?}");
        }
        let mut peers = 0;
        for (id, flight) in &self.all {
            assert!(!flight.crew.is_empty(), "a flight without a crew: {id:?}");
            for (at, (member, _)) in flight.crew.iter().enumerate() {
                assert!(flight.crew[..at].iter().all(|(other, _)| other != member), "{member:?} is there twice");
                if let Member::Peer { worker, ticket } = member {
                    peers += 1;
                    assert_eq!(self.of_peer(*worker, *ticket), Some(*id), "{member:?} is not to be found");
                }
            }
        }
        assert_eq!(self.peers.len(), peers, "a peer without a flight");
    }

    /// Every member, its flight, and whether it leads there.
    pub(crate) fn members(&self) -> impl Iterator<Item = (FlightId, Member, bool)> {
        let members = |(id, flight): (&FlightId, &'_ Flight)| {
            let id = *id;
            flight.crew.iter().enumerate().map(move |(at, (member, _))| (id, *member, at == 0)).collect::<Vec<_>>()
        };
        self.all.iter().flat_map(members)
    }
}

#[cfg(test)]
mod tests {
    use ahash::RandomState;

    use super::*;
    use crate::coalesce::QuestionBuilder;

    const ONE: Member = Member::Seat(1);
    const TWO: Member = Member::Seat(2);
    const PEER: Member = Member::Peer { worker: 7, ticket: FlightId(3) };

    fn question(name: &str) -> Question {
        let mut bytes = Vec::new();
        let mut question = QuestionBuilder::new(&mut bytes);
        question.part(name.as_bytes());
        question.finish(&RandomState::with_seeds(1, 2, 3, 4))
    }

    fn scope(name: &str) -> Scope {
        Scope::of(std::iter::once((&b"authorization"[..], name.as_bytes())))
    }

    /// Joins on behalf of alice, while answers are not known to be public.
    fn join(flights: &mut Flights, name: &str, member: Member) -> Joined {
        let joined = flights.join(&question(name), scope("alice"), false, 0, member);
        flights.check();
        joined
    }

    #[test]
    fn p_072_the_first_leads_and_all_land() {
        let mut flights = Flights::new(FlightId(100));
        let first = join(&mut flights, "q", ONE);
        assert_eq!(first, Joined { flight: FlightId(100), leads: true });
        for member in [PEER, TWO] {
            assert_eq!(join(&mut flights, "q", member), Joined { flight: first.flight, leads: false });
        }
        assert!(join(&mut flights, "other", Member::Seat(4)).leads);
        assert_eq!(flights.leader(first.flight), Some(ONE));
        assert_eq!(flights.followers(first.flight), 2);
        assert_eq!(flights.of_peer(7, FlightId(3)), Some(first.flight));
        let (landed, crew) = flights.land(first.flight).expect("it is there");
        assert_eq!(landed, question("q"));
        assert_eq!(crew.iter().map(|(member, _)| *member).collect::<Vec<_>>(), [ONE, PEER, TWO]);
        assert!(flights.land(first.flight).is_none());
        assert_eq!(flights.of_peer(7, FlightId(3)), None);
        assert!(join(&mut flights, "q", ONE).leads, "who comes later begins anew");
    }

    #[test]
    fn p_073_scopes_wait_for_one_answer_only_if_it_is_known_to_be_public() {
        let mut flights = Flights::new(FlightId(0));
        let mut join = |name: &str, public| {
            let seat = Member::Seat(flights.all.len() * 10 + flights.all.values().map(|f| f.crew.len()).sum::<usize>());
            let joined = flights.join(&question("q"), scope(name), public, 0, seat);
            flights.check();
            joined
        };
        let alices = join("alice", false);
        assert!(join("bob", false).leads, "of two scopes");
        let everybodys = join("carol", true);
        assert!(everybodys.leads && !join("dave", true).leads);
        assert_eq!(join("alice", true).flight, alices.flight, "she asks already");
        assert_eq!(join("carol", false).flight, everybodys.flight, "so does she, for others too");
        assert!(join("dave", false).leads, "the answer that others lead to may not be for him");
    }

    #[test]
    fn p_066_who_asks_after_an_invalidation_gets_a_flight_of_its_own() {
        let mut flights = Flights::new(FlightId(0));
        let mut join = |epoch, seat| {
            let joined = flights.join(&question("q"), scope("alice"), false, epoch, Member::Seat(seat));
            flights.check();
            joined
        };
        let old = join(5, 0);
        let new = join(6, 1);
        assert!(old.leads && new.leads);
        assert_eq!(join(5, 2), Joined { flight: old.flight, leads: false }, "who asked before and comes late");
        assert_eq!(join(6, 3), Joined { flight: new.flight, leads: false }, "is not in the way of others");
        assert!(flights.land(new.flight).is_some() && flights.land(old.flight).is_some());
        assert!(flights.is_empty());
    }

    #[test]
    fn p_074_the_next_leads_when_the_leader_leaves() {
        let mut flights = Flights::new(FlightId(0));
        let flight = join(&mut flights, "q", ONE).flight;
        for member in [PEER, TWO, Member::Seat(3)] {
            join(&mut flights, "q", member);
        }
        let mut leave = |member| {
            let departure = flights.leave(flight, member);
            flights.check();
            departure
        };
        assert_eq!(leave(TWO), Departure::Followed);
        assert_eq!(leave(TWO), Departure::NotThere);
        assert_eq!(leave(ONE), Departure::Promoted(PEER));
        assert_eq!(leave(PEER), Departure::Promoted(Member::Seat(3)));
        assert_eq!(leave(Member::Seat(3)), Departure::Last);
        assert_eq!(leave(Member::Seat(3)), Departure::NotThere);
        assert!(flights.is_empty());
    }

    #[test]
    fn those_of_a_worker_that_ended_are_told_from_its_successors() {
        let mut flights = Flights::new(FlightId(0));
        let member = |worker, ticket| Member::Peer { worker, ticket: FlightId(ticket) };
        for (name, worker, ticket) in [("a", 7, 12), ("b", 7, 11), ("a", 7, 100), ("b", 8, 11)] {
            join(&mut flights, name, member(worker, ticket));
        }
        let members: Vec<_> = flights.members_of(7, FlightId(100)).into_iter().map(|(_, member)| member).collect();
        assert_eq!(members, [member(7, 11), member(7, 12)]);
    }
}
