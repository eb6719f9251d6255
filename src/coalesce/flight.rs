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
    #[must_use]
    pub fn scope_of_leader(&self, id: FlightId) -> Option<Scope> {
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

    /// The question of a flight.
    #[must_use]
    pub fn question(&self, id: FlightId) -> Option<&Question> {
        self.all.get(&id).map(|flight| &flight.key.question)
    }

    /// Every flight.
    pub fn ids(&self) -> impl Iterator<Item = FlightId> {
        self.all.keys().copied()
    }

    /// Whether nobody waits for anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty() && self.by_key.is_empty() && self.peers.is_empty()
    }
}
